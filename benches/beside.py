#!/usr/bin/env python3
"""What the daemon costs an application that writes all the time, and whether the daemon's memory stays what it is.

  beside.py --work DIR [--scale S] [--minutes M] [--every 10s] [--workload FILE]

A writer (workload.py busy) works in turns of a minute. In five turns of six the daemon takes its snapshots beside it,
in the sixth it is stopped (SIGSTOP), so that both are measured on the same machine, at the same size of data, in the
same hour. Each turn is a line; the medians, the store's size, a full check and a restore drill come at the end.

NBAK names the program, as for peers.py.
"""
import argparse, json, os, shutil, signal, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
NBAK = os.environ.get("NBAK", os.path.join(HERE, "../target/release/nbak"))


def size_of(folder):
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(at, name)).st_size
            except FileNotFoundError:
                pass
    return total


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", required=True)
    args.add_argument("--scale", type=float, default=2)
    args.add_argument("--minutes", type=int, default=60)
    args.add_argument("--every", default="10s")
    args.add_argument("--turn", type=int, default=60, help="seconds")
    args.add_argument("--workload", default=os.path.join(HERE, "workload.py"), help="the script that makes and writes")
    told = args.parse_args()
    work = os.path.abspath(told.work)
    shutil.rmtree(work, ignore_errors=True)
    data, store = os.path.join(work, "data"), os.path.join(work, "store")
    os.makedirs(data)
    workload = [sys.executable, told.workload]
    subprocess.run(workload + ["make", data, "--scale", str(told.scale)], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(data, "config.json"), "w") as config:
        json.dump({"nbak": {"snapshot_schedule": f"@every {told.every}", "drill": False, "keep": False}}, config)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NBAK_", "NODYN_", "LYNOX_"))}
    env = dict(clean, NBAK_DATA_DIR=data, NBAK_REPO=store, NODYN_VAULT_KEY="q0Zk3vB8sYt1nWm6RdX4uJc7HfLp2GaE")
    log = open(os.path.join(work, "daemon.log"), "w")
    daemon = subprocess.Popen([NBAK, "daemon"], env=env, stdout=log, stderr=log)
    state = os.path.join(data, ".nbak-state.json")
    with_it, without, memory, took = [], [], [], []
    print("minute  daemon   rounds/s  snapshots  last took ms  daemon KiB  data MB  store MB", flush=True)
    try:
        for minute in range(told.minutes):
            stopped = minute % 6 == 5
            daemon.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
            began = time.monotonic()
            busy = subprocess.run(
                workload + ["busy", data, "--seconds", str(told.turn)], check=True, capture_output=True, text=True
            )
            rate = int(busy.stdout.split()[0]) / (time.monotonic() - began)
            (without if stopped else with_it).append(rate)
            memory.append(resident(daemon.pid))
            try:
                last = json.load(open(state))["last"]["snapshot"]["took"]
            except (OSError, KeyError, ValueError):
                last = 0
            if not stopped:
                took.append(last)
            packs = os.path.join(store, "packs")
            count = sum(1 for line in open(log.name) if line.startswith("snapshot: done"))
            print(
                f"{minute:6}  {'stopped' if stopped else 'on     '} {rate:9.2f}  {count:9}  {last:12}  {memory[-1]:10}"
                f"  {size_of(data) / 1e6:7.1f}  {size_of(packs) / 1e6:8.1f}",
                flush=True,
            )
    finally:
        daemon.send_signal(signal.SIGCONT)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
    on, off = statistics.median(with_it), statistics.median(without or [float("nan")])
    print(f"rounds/s: {on:.2f} beside the daemon, {off:.2f} without: {on / off:.3f}")
    print(f"a snapshot took {statistics.median(took)} ms, at most {max(took)} (one of each minute)")
    print(f"the daemon's memory: {memory[0]} KiB in the first minute, {memory[-1]} in the last, {max(memory)} at most")
    listed = subprocess.run([NBAK, "snapshots", "--json"], env=env, check=True, capture_output=True, text=True)
    print(f"{len(listed.stdout.splitlines())} snapshots")
    for what in (["check", "--read-data"], ["drill"]):
        ended = subprocess.run([NBAK] + what, env=env, capture_output=True, text=True)
        print(f"nbak {' '.join(what)}: exit code {ended.returncode}: {ended.stdout.strip().splitlines()[-1:]}")


if __name__ == "__main__":
    main()
