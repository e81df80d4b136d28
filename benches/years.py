#!/usr/bin/env python3
"""What a store costs after thousands of snapshots, and what it takes to free their space.

    years.py --work DIR [--snapshots 10000]      one small directory, aged before each snapshot; then a policy, gc, and
                                                 a fresh store of the kept states beside it
    years.py --work DIR --prune [--snapshots 300] [--scale 1]
                                                 the same history in nbak, restic and rustic; then each forgets all but
                                                 some, and frees the space

NBAK, RESTIC, RUSTIC name programs other than those on the PATH. Everything happens in DIR, which must not exist.
"""
import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KEY = "eWVhcnMgb2Ygc25hcHNob3RzLCBvbmUga2V5IGZvcmV2"


def run(command, env=None):
    """Seconds, peak memory in MiB, and what it printed."""
    start = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate()
    seconds = time.perf_counter() - start
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {child.returncode}: {err.decode()}")
    return seconds, out.decode()


def measured(command, env=None):
    """The same, with the peak memory of this one process in MiB, by a small child that waits for it. It lets nobody have
    more than 64 files open."""
    script = (
        "import resource, subprocess, sys, time; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
        "s = time.perf_counter(); c = subprocess.run(sys.argv[1:], "
        "stdout=subprocess.DEVNULL); t = time.perf_counter() - s; "
        "print(t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, c.returncode)"
    )
    _, out = run([sys.executable, "-c", script, *command], env)
    seconds, memory, code = out.split()
    if code != "0":
        sys.exit(f"{' '.join(command)} failed with {code}")
    return float(seconds), float(memory)


def size(folder):
    return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names)


class Directory:
    """A database that writes ahead, held open, and some small files."""

    def __init__(self, folder):
        self.folder, self.dice, self.step = folder, random.Random(7), 0
        os.makedirs(os.path.join(folder, "notes"))
        self.db = sqlite3.connect(os.path.join(folder, "history.db"), isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=WAL; CREATE TABLE runs(id INTEGER PRIMARY KEY, text TEXT);")
        for number in range(2000):
            self.db.execute("INSERT INTO runs VALUES(?, ?)", (number, self.text()))
        for number in range(40):
            self.note(number)

    def text(self):
        return " ".join(self.dice.choices(["ever", "lost", "found", "kept", "gone", "again", "never"], k=30))

    def note(self, number):
        with open(os.path.join(self.folder, "notes", f"{number}.md"), "w") as file:
            file.write(f"{self.step}\n" + "\n".join(self.text() for _ in range(10)))

    def age(self):
        self.step += 1
        self.db.execute("BEGIN")
        for _ in range(3):
            self.db.execute("UPDATE runs SET text = ? WHERE id = ?", (self.text(), self.dice.randrange(2000)))
        self.db.execute("COMMIT")
        if self.step % 5 == 0:
            self.note(self.dice.randrange(40))


def years(work, count, nbak):
    data, repo = os.path.join(work, "data"), os.path.join(work, "repo")
    directory = Directory(data)
    base = [nbak, "--data-dir", data, "--repo", repo]
    env = {"NODYN_VAULT_KEY": KEY}
    seconds, packs = [], []
    for number in range(count):
        directory.age()
        took, _ = run([*base, "snapshot", "-q"], env)
        seconds.append(took)
        packs.append(len(os.listdir(os.path.join(repo, "packs"))))
        if number + 1 in (1, 10, 100, 1000, 5000) or (number + 1) % 5000 == 0:
            last = statistics.median(seconds[-100:])
            directory.age()
            _, memory = measured([*base, "snapshot", "-q"], env)
            print(f"{number + 1:6} snapshots: median of the last hundred {last * 1000:.1f} ms, {size(repo) / 1e6:.1f} MB, "
                  f"{packs[-1]} packs; one more takes {memory:.0f} MiB", flush=True)
    first, last = statistics.median(seconds[:100]), statistics.median(seconds[-100:])
    print(f"the last hundred / the first hundred: {last / first:.2f} (medians), "
          f"{statistics.mean(seconds[-100:]) / statistics.mean(seconds[:100]):.2f} (means), most packs {max(packs)}")
    for what, command in (("snapshots", ["snapshots"]), ("unchanged", ["snapshot"]), ("stats", ["stats"]),
                          ("check", ["check"])):
        took, memory = measured([*base, *command], env)
        print(f"{what}: {took:.3f} s, {memory:.0f} MiB")
    before, repeats = size(repo), 20
    for number in range(repeats):
        run([*base, "snapshot", "-q", "--tag", f"same-{number}"], env)
    print(f"overhead of an unchanged snapshot that is asked for: {(size(repo) - before) / repeats:.0f} bytes")

    for what, command in (("forget", ["forget", "--keep-last", "60"]), ("gc", ["gc"]), ("check", ["check", "--read-data"])):
        took, memory = measured([*base, *command], env)
        print(f"{what}: {took:.2f} s, {memory:.0f} MiB; the store has {size(repo) / 1e6:.2f} MB")
    # A fresh store of the same states: each is restored over the last, and taken.
    fresh, again = os.path.join(work, "fresh"), os.path.join(work, "again")
    kept = [json.loads(line)["snapshot"] for line in run([*base, "--json", "snapshots"], env)[1].splitlines()]
    for snapshot in kept:
        run([*base, "restore", snapshot, "--target", again, "--overwrite"], env)
        run([nbak, "--data-dir", again, "--repo", fresh, "snapshot", "-q", "--tag", snapshot[:8] + "x"], env)
    ratio = size(os.path.join(repo, "packs")) / size(os.path.join(fresh, "packs"))
    print(f"{len(kept)} kept: the packs have {ratio:.2f} times the bytes of those of a fresh store with the same states "
          f"({size(repo) / size(fresh):.2f} with index and notes); all restored")


def prune(work, count, scale, nbak, restic, rustic):
    data = os.path.join(work, "data")
    script = [sys.executable, os.path.join(HERE, "workload.py")]
    run([*script, "make", data, "--scale", str(scale)])
    tools = {"nbak": (os.path.join(work, "nbak"), {"NODYN_VAULT_KEY": KEY})}
    tools["restic"] = (os.path.join(work, "restic"), {"RESTIC_PASSWORD": "years", "RESTIC_CACHE_DIR": work + "/cache"})
    tools["rustic"] = (os.path.join(work, "rustic"), {"RUSTIC_PASSWORD": "years", "RUSTIC_CACHE_DIR": work + "/cache2"})
    program = {"nbak": nbak, "restic": restic, "rustic": rustic}
    tools = {name: tool for name, tool in tools.items() if shutil.which(program[name])}
    repo = lambda name: tools[name][0]
    for name in tools:
        if name != "nbak":
            run([program[name], "-r", repo(name), "init"], tools[name][1])
    for step in range(count):
        run([*script, "age", data, "--step", str(step)])
        for name in tools:
            env = tools[name][1]
            if name == "nbak":
                run([nbak, "--data-dir", data, "--repo", repo(name), "snapshot", "-q"], env)
            else:
                run([program[name], "-r", repo(name), "backup", data], env)
        if (step + 1) % 50 == 0:
            print(f"{step + 1} snapshots: " + ", ".join(f"{n} {size(repo(n)) / 1e6:.0f} MB" for n in tools), flush=True)
    keep = ["--keep-last", str(max(count // 10, 2))]
    for name in tools:
        env, before = tools[name][1], size(repo(name))
        if name == "nbak":
            base = [nbak, "--data-dir", data, "--repo", repo(name)]
            steps = [[*base, "forget", *keep], [*base, "gc"]]
        elif name == "restic":
            base = [restic, "-r", repo(name)]
            steps = [[*base, "forget", "--group-by", "paths", *keep], [*base, "prune"]]
        else:
            base = [rustic, "-r", repo(name)]
            steps = [[*base, "forget", *keep], [*base, "prune", "--instant-delete", "--keep-pack", "0s"]]
        took = [measured(step, env) for step in steps]
        print(f"{name}: forget {took[0][0]:.2f} s, prune {took[1][0]:.2f} s, {took[1][1]:.0f} MiB; "
              f"{before / 1e6:.1f} MB before, {size(repo(name)) / 1e6:.1f} after", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--snapshots", type=int)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--prune", action="store_true")
    options = parser.parse_args()
    os.makedirs(options.work)
    nbak = os.path.abspath(shutil.which(os.environ.get("NBAK", "nbak")) or sys.exit("there is no nbak: NBAK names it"))
    if options.prune:
        restic, rustic = (shutil.which(os.environ.get(name.upper(), name)) or "" for name in ("restic", "rustic"))
        prune(options.work, options.snapshots or 300, options.scale, nbak, restic, rustic)
    else:
        years(options.work, options.snapshots or 10_000, nbak)


if __name__ == "__main__":
    main()
