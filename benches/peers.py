#!/usr/bin/env python3
"""Runs nbak and other backup programs side by side on one directory while it ages, and writes down what it cost.

    peers.py --work DIR [--scale 4] [--steps 100] [--markdown FILE] [--json FILE] [--plot FILE]

All of DIR/live, DIR/tools and DIR/out is removed and made anew; what the programs print is added to DIR/peers.log. They
are found on the PATH, or where NBAK, RESTIC, RUSTIC, BORG and BUPSTASH say; one that is not there is left out, with a
word, and if none is there, nothing is done, and the exit code is 1. The rounds:

    first      into an empty store; --repeat times, each time into a new one, of which the last is kept
    unchanged  --repeat times
    aged       --steps times: the directory is aged, then each program takes it
    restore    --repeat times, of the newest, into a fresh directory, beside `cp -r` of the same directory; what came
               back is compared with the directory, and each database passes `PRAGMA integrity_check`. All of it is
               left in DIR/out: to make files just after others were removed is slow on ext4
    check      --repeat times, of everything that was stored

In each round all programs take their turn before the next one begins, and the order rotates. A program is started by a
small process of its own, which does nothing but wait for it, so what this script does is in none of the figures.
"""
import argparse
import collections
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time

import report

HERE = os.path.dirname(os.path.abspath(__file__))
KEY = "bm90IGEgc2VjcmV0LCBhbmQgYXMgbG9uZyBhcyBvbmU="
# Variables that would change what the programs do.
THEIRS = "NBAK|NODYN|LYNOX|RESTIC|RUSTIC|BORG|BUPSTASH"
# Peak memory is inherited by whoever is forked off, so it must be a small process that forks. Answers: wall and CPU
# seconds, peak bytes, exit code.
STARTER = """
import os, sys, time
answer = int(sys.argv[1])
os.set_inheritable(answer, False)
began = time.perf_counter()
child = os.fork()
if child == 0:
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    finally:
        os._exit(127)
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - began
code = os.waitstatus_to_exitcode(status)
os.write(answer, f"[{wall}, {used.ru_utime + used.ru_stime}, {used.ru_maxrss * 1024}, {code}]".encode())
"""


class Failed(Exception):
    pass


def say(what):
    print(what, file=sys.stderr, flush=True)


def measure(command, log, env=None, cwd=None):
    """Runs it, and answers with seconds and bytes."""
    answer, theirs = os.pipe()
    with open(log, "ab") as out:
        before = out.seek(0, os.SEEK_END)
        starter = [sys.executable, "-IS", "-c", STARTER, str(theirs), *command]
        subprocess.run(starter, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, pass_fds=[theirs])
    os.close(theirs)
    with os.fdopen(answer) as answer:
        wall, cpu, peak, code = json.loads(answer.read() or "[0, 0, 0, 127]")
    if code != 0:
        with open(log, "rb") as out:
            out.seek(before)
            said = out.read().decode(errors="replace").strip().splitlines()[-3:]
        raise Failed(f"`{os.path.basename(command[0])} {' '.join(command[1:])}` ended with {code}: {' / '.join(said)}")
    return {"wall": wall, "cpu": cpu, "peak": peak}


class Tool:
    """One program and its store. Whatever it keeps besides lies in a folder that goes with the store."""

    setup, note = (), ""

    def __init__(self, exe, work):
        self.exe, self.folder = exe, os.path.join(work, "tools", self.name)
        self.store, self.log, self.taken = os.path.join(self.folder, "store"), os.path.join(work, "peers.log"), 0
        version = "version" if self.name == "restic" else "--version"
        said = subprocess.run([exe, version], capture_output=True, text=True).stdout
        self.version = " ".join(re.findall(r"\d+\.\d+[.\d]*", said)[:1])
        clean = {name: value for name, value in os.environ.items() if not re.match(THEIRS, name)}
        caches = {f"XDG_{kind}_HOME": os.path.join(self.folder, kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        self.env = clean | caches | {name: value.format(store=self.store, folder=self.folder, key=KEY)
                                     for name, value in self.needs.items()}

    def run(self, *arguments, cwd=None):
        return measure([self.exe, *arguments], self.log, self.env, cwd)

    def begin(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.taken = 0
        for arguments in self.setup:
            self.run(*(argument.format(folder=self.folder) for argument in arguments))

    def take(self, live, *more):
        """A snapshot, and the bytes that it added to the store: all files there, an index or not."""
        self.taken += 1
        before = size_of(self.store)[0]
        sample = self.backup(live, *more)
        return sample | {"bytes": size_of(self.store)[0] - before}


class Nbak(Tool):
    name, needs = "nbak", {"NODYN_VAULT_KEY": "{key}", "NBAK_REPO": "{store}"}

    def take(self, live, *more):
        before = self.index()
        sample = super().take(live, *more)
        return sample | {"index": self.index() - before}

    def index(self):
        """Bytes of what is a cache: the index, and the notes beside it."""
        files = os.scandir(self.store) if os.path.isdir(self.store) else ()
        return sum(file.stat().st_size for file in files if re.match("index[.]redb|note-", file.name))

    def backup(self, live, *more):
        return self.run("--data-dir", live, "snapshot", *more)

    def restore(self, to):
        return self.run("restore", "latest", "--target", to)

    def check(self):
        return self.run("check", "--read-data")


class Restic(Tool):
    name, setup = "restic", [["init"]]
    needs = {"RESTIC_REPOSITORY": "{store}", "RESTIC_PASSWORD": "{key}"}

    def backup(self, live):
        return self.run("backup", "--quiet", ".", cwd=live)

    def restore(self, to):
        return self.run("restore", "latest", "--target", to)

    def check(self):
        return self.run("check", "--read-data")


class Rustic(Restic):
    name, needs = "rustic", {"RUSTIC_REPOSITORY": "{store}", "RUSTIC_PASSWORD": "{key}", "RUSTIC_NO_PROGRESS": "true"}

    def backup(self, live):
        return self.run("backup", ".", cwd=live)

    def restore(self, to):
        return self.run("restore", "latest", to)


class Borg(Tool):
    """With zstd, and with chunks of 16 KiB on average: its own of 2 MiB store most of a database again each time."""

    name, note, setup = "borg", "finer chunks", [["init", "--encryption", "repokey-blake2"]]
    needs = {"BORG_REPO": "{store}", "BORG_PASSPHRASE": "{key}", "BORG_BASE_DIR": "{folder}"}

    def backup(self, live):
        finer = ["--compression", "zstd,3", "--chunker-params", "buzhash,12,16,14,4095"]
        return self.run("create", *finer, f"::{self.taken}", ".", cwd=live)

    def restore(self, to):
        os.mkdir(to)
        return self.run("extract", f"::{self.taken}", cwd=to)

    def check(self):
        return self.run("check", "--verify-data")


class Bupstash(Tool):
    name, setup = "bupstash", [["new-key", "-o", "{folder}/key"], ["init"]]
    needs = {"BUPSTASH_REPOSITORY": "{store}", "BUPSTASH_KEY": "{folder}/key",
             "BUPSTASH_SEND_LOG": "{folder}/sendlog", "BUPSTASH_QUERY_CACHE": "{folder}/queries"}
    check = None  # It has none.

    def backup(self, live):
        return self.run("put", "--quiet", f"name={self.taken}", live)

    def restore(self, to):
        os.mkdir(to)
        return self.run("restore", "--quiet", "--into", to, f"name={self.taken}")


class Copy:
    """The floor for a restore."""

    name = "cp -r"

    def __init__(self, live, log):
        self.live, self.log = live, log

    def restore(self, to):
        return measure([shutil.which("cp"), "-r", self.live, to], self.log)


TOOLS = {tool.name: tool for tool in (Nbak, Restic, Rustic, Borg, Bupstash)}


def size_of(folder):
    """Bytes and number of the files in it."""
    sizes = [os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names]
    return sum(sizes), len(sizes)


def is_database(path):
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def contents(folder, scratch):
    """The hash of each file. A database counts as the image that its log makes of it, and must be whole."""
    found = {}
    for path in sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names):
        of = re.sub("-(wal|shm|journal)$", "", path)
        if of != path and is_database(of):
            continue
        image, name = path, os.path.relpath(path, folder)
        if is_database(path):
            # Of a copy: opening it could change the directory.
            os.makedirs(scratch)
            image = os.path.join(scratch, "image")
            for end in filter(lambda end: os.path.exists(path + end), ("", "-wal", "-journal")):
                shutil.copyfile(path + end, image + end)
            connection = sqlite3.connect(image)
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            if verdict != "ok":
                raise Failed(f"{name}: {verdict}")
        with open(image, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        found[name] = digest.hexdigest()
        shutil.rmtree(scratch, ignore_errors=True)
    return found


class Run:
    """The directory, the programs, and a list of samples for each program and kind of round."""

    def __init__(self, options):
        self.options, self.work = options, os.path.abspath(options.work)
        self.live, self.out, tools = (os.path.join(self.work, name) for name in ("live", "out", "tools"))
        found = {name: shutil.which(os.environ.get(name.upper()) or name) for name in options.tools}
        for name in (name for name, exe in found.items() if not exe):
            say(f"{name} is not installed: left out")
        if not any(found.values()):
            sys.exit(f"peers.py: none of {', '.join(found)} can be run: nothing was done")
        for folder in (self.live, self.out, tools):
            shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(self.out)
        self.restored = 0
        self.samples = collections.defaultdict(lambda: collections.defaultdict(list))
        self.copy, self.tools, self.failed = Copy(self.live, os.path.join(self.work, "peers.log")), {}, {}
        for name, exe in found.items():
            if exe:
                self.tools[name] = TOOLS[name](os.path.abspath(exe), self.work)

    def workload(self, *arguments):
        subprocess.run([sys.executable, self.options.workload, *map(str, arguments)], check=True)

    def each(self, nth, kind, action, tools=None):
        """A round: every tool takes its turn, from the nth on. One that fails is out."""
        tools = list(self.tools.values()) if tools is None else tools
        for at in range(len(tools)):
            tool = tools[(nth + at) % len(tools)]
            if tool.name in self.failed:
                continue
            try:
                sample = action(tool)
            except Failed as error:
                say(f"{tool.name} is out: {error}")
                self.failed[tool.name] = str(error)
                self.tools.pop(tool.name, None)
            else:
                self.samples[tool.name][kind].append(sample)

    def first(self, tool):
        tool.begin()
        os.sync()
        return tool.take(self.live)

    def aged(self, tool):
        return tool.take(self.live, *(["--full-scan"] if self.options.full_scan and tool.name == "nbak" else []))

    def restores(self, kind, tools):
        scratch = os.path.join(self.work, "image")
        expected = contents(self.live, scratch)

        def restored(tool):
            # Nothing is removed in between: ext4 gives out the inodes of removed files anew only after five minutes,
            # and to look past thousands of them takes it longer than some of these programs need for all else.
            self.restored += 1
            out = os.path.join(self.out, str(self.restored))
            os.sync()
            sample = tool.restore(out)
            came = contents(out, scratch)
            wrong = [name for name in came.keys() | expected.keys() if came.get(name) != expected.get(name)]
            if wrong:
                raise Failed(f"{len(wrong)} files are missing, too many or not as they were, such as {min(wrong)}")
            return sample

        for nth in range(self.options.repeat):
            self.each(nth, kind, restored, [*tools, self.copy])

    def rounds(self):
        options, repeats, holder = self.options, range(self.options.repeat), None
        self.workload("make", self.live, "--scale", options.scale, "--seed", options.seed)
        if options.hold:
            command = [sys.executable, os.path.join(HERE, "workload.py"), "hold", self.live]
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            say(holder.stdout.readline().strip())
        try:
            say("first and unchanged snapshots")
            for nth in repeats:
                self.each(nth, "first", self.first)
            if not self.tools:
                sys.exit("peers.py: every program failed at its first snapshot")
            if options.rest:
                say(f"waiting {options.rest:g} s")
                time.sleep(options.rest)
                # What was too young at the last snapshot is read once more, and trusted from then on.
                self.each(0, "rested", lambda tool: tool.take(self.live))
            for nth in repeats:
                self.each(nth, "unchanged", lambda tool: tool.take(self.live))
            for step in range(1, options.steps + 1):
                say(f"aged snapshot, {step} of {options.steps}")
                self.workload("age", self.live, "--step", step, "--seed", options.seed)
                self.each(step, "aged", self.aged)
                if step in options.restore_at and "nbak" in self.tools:
                    self.restores(f"restore at {step}", [self.tools["nbak"]])
            say("restores")
            self.restores("restore", self.tools.values())
            say("checks")
            for nth in repeats:
                self.each(nth, "check", lambda tool: tool.check(), [tool for tool in self.tools.values() if tool.check])
        finally:
            if holder:
                holder.communicate()


    def result(self):
        size, files = size_of(self.live)
        machine = {"cores": os.cpu_count(), "system": " ".join(os.uname()[0:3:2]), "sqlite": sqlite3.sqlite_version}
        programs = {tool.name: {"version": tool.version, "note": tool.note} for tool in self.tools.values()}
        return {"options": vars(self.options), "machine": machine, "directory": {"bytes": size, "files": files},
                "programs": programs, "failed": self.failed, "samples": self.samples}


def main():
    parser = argparse.ArgumentParser(description="Compare backup programs on a directory that ages.")
    option = parser.add_argument
    option("--work", required=True, help="a scratch directory; live, tools and out in it are made anew")
    option("--scale", type=float, default=4, help="of the workload")
    option("--seed", type=int, default=1, help="of the workload")
    option("--steps", type=int, default=100, help="aged snapshots")
    option("--repeat", type=int, default=3, help="rounds of everything else")
    option("--tools", default=",".join(TOOLS), type=lambda names: names.split(","), help="which, with commas")
    option("--workload", default=os.path.join(HERE, "workload.py"), help="a script that takes `make` and `age` as "
           "benches/workload.py does")
    option("--hold", action="store_true", help="keep the databases open between the steps, as an application does")
    option("--rest", type=float, default=0, metavar="SECONDS", help="wait before the unchanged round: nbak trusts the "
           "time stamps of a file that is older than a minute")
    option("--full-scan", action="store_true", help="nbak's aged snapshots read everything")
    option("--restore-at", default=[], type=lambda steps: sorted(map(int, steps.split(","))), metavar="N,N",
           help="restore nbak's newest after so many aged snapshots, too")
    option("--markdown", help="write the table here rather than to stdout")
    option("--json", help="write every sample here; report.py makes table and plot of it again")
    option("--plot", help="write an SVG here: what the aged snapshots stored")
    options = parser.parse_args()
    if unknown := [name for name in options.tools if name not in TOOLS]:
        parser.error(f"there is no tool {unknown[0]}; there are {', '.join(TOOLS)}")
    if options.steps < 1 or options.repeat < 1 or any(not 1 <= step <= options.steps for step in options.restore_at):
        parser.error("--steps and --repeat are 1 or more, and --restore-at is among the steps")
    run = Run(options)
    run.rounds()
    result = run.result()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    report.write(result, options.markdown, options.plot)
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
