#!/usr/bin/env python3
"""What somebody learns who sees the sizes of packs, and when they come and go, and nothing else (S6, S7).

  observer.py --work DIR [--files N] [--same]

There are N known files. Each is put into a data directory once, alone and together with a spell of use (workload.py
age), and a snapshot is taken. The observer has the files and nbak: it rehearses each of them alone, in a data directory
of the same kind and a store of its own, with another key. It takes what such a snapshot takes without a file (the
median of some) from both, and names the file whose rehearsal is nearest to what it saw; of several that are as near it
draws one, so that each counts for a part.

It watches the folder all the time, and so knows in which order packs came: the first one of a snapshot is that
snapshot's, what follows may be upkeep. `growth` is the observer who sees only what a snapshot adds in all. `seconds`
goes by time alone, from the writing of the lock to the first pack. Printed too: the same if packs were padded as in
Padmé (https://bford.info/pub/sec/purb.pdf), which adds at most 12 %, in the rehearsal as in the store. Half of the
files do not compress; the others are text.

NBAK names the program, as for peers.py.
"""
import argparse, math, os, random, shutil, statistics, subprocess, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
NBAK = os.environ.get("NBAK", os.path.join(HERE, "../target/release/nbak"))
WORKLOAD = [sys.executable, os.path.join(HERE, "workload.py")]


def padded(size):
    """Padmé: so many low bits are zero as the exponent has no need of."""
    if size < 2:
        return size
    exponent = int(math.log2(size))
    last = exponent - (int(math.log2(exponent)) + 1)
    mask = (1 << last) - 1
    return (size + mask) & ~mask


class Seen:
    """What one snapshot showed: the sizes of the packs that came, in their order, and seconds to the first."""

    def __init__(self, sizes, seconds):
        self.sizes, self.seconds = sizes, seconds

    def own(self, pad):
        return padded(self.sizes[0]) if pad else self.sizes[0]

    def growth(self, pad):
        return sum(padded(size) if pad else size for size in self.sizes)


class Place:
    def __init__(self, work, key, seed):
        shutil.rmtree(work, ignore_errors=True)
        self.data, self.store, self.seed = os.path.join(work, "data"), os.path.join(work, "store"), str(seed)
        os.makedirs(self.data)
        subprocess.run(WORKLOAD + ["make", self.data, "--scale", "0.2", "--seed", self.seed], check=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("NBAK_", "NODYN_", "LYNOX_"))}
        self.env = dict(clean, NBAK_DATA_DIR=self.data, NBAK_REPO=self.store, NODYN_VAULT_KEY=key)
        self.steps = 0
        self.snapshot()

    def snapshot(self):
        folder, came, ended = os.path.join(self.store, "packs"), [], threading.Event()
        known = set(os.listdir(folder)) if os.path.isdir(folder) else set()

        def look():
            last = False
            while True:
                try:
                    for entry in sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime_ns):
                        if entry.name not in known:
                            known.add(entry.name)
                            came.append((entry.stat().st_size, entry.stat().st_mtime))
                except FileNotFoundError:
                    pass  # Not there yet, or gone while it was looked at.
                if last:
                    return
                last = ended.is_set()
                time.sleep(0.001)

        watcher = threading.Thread(target=look)
        watcher.start()
        subprocess.run([NBAK, "snapshot", "-q"], env=self.env, check=True, stdout=subprocess.DEVNULL)
        begun = os.path.getmtime(os.path.join(self.store, "lock"))
        ended.set()
        watcher.join()
        return Seen([size for size, _ in came], came[0][1] - begun)

    def age(self):
        self.steps += 1
        subprocess.run(WORKLOAD + ["age", self.data, "--step", str(self.steps), "--seed", self.seed], check=True)

    def without(self, busy):
        """What some snapshots show in which no known file comes."""
        seen = []
        for number in range(15):
            if busy:
                self.age()
            else:
                open(os.path.join(self.data, "marker"), "w").write(str(number))
            seen.append(self.snapshot())
        return seen

    def each(self, known, busy):
        """What is shown by a snapshot for each of the files."""
        seen = []
        for number, body in enumerate(known):
            if busy:
                self.age()
            path = os.path.join(self.data, f"known {number}")
            open(path, "wb").write(body)
            seen.append(self.snapshot())
            os.remove(path)
            self.snapshot()
        return seen


def named_rightly(seen, candidates):
    """Which part of those that do not compress, and of the texts, is named rightly."""
    right = [0.0, 0.0]
    for number, one in enumerate(seen):
        far = [abs(candidate - one) for candidate in candidates]
        if far[number] == min(far):
            right[number % 2] += 1 / far.count(min(far))
    return right[1] / (len(seen) // 2), right[0] / ((len(seen) + 1) // 2)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", required=True)
    args.add_argument("--files", type=int, default=100)
    args.add_argument("--same", action="store_true", help="the observer has the very data directory too")
    told = args.parse_args()
    dice = random.Random(7)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(4000)]
    known = []
    for number in range(told.files):
        size = round(math.exp(dice.uniform(math.log(8_000), math.log(800_000))))
        known.append(dice.randbytes(size) if number % 2 else " ".join(dice.choices(words, k=size // 6)).encode())
    print(f"{len(known)} known files, {min(map(len, known))} to {max(map(len, known))} bytes")
    work = os.path.abspath(told.work)
    rehearsal = Place(os.path.join(work, "rehearsal"), "aR8mX2vQ7tLc5nYw9KdJ4sBf6HgZp3uE", 1 if told.same else 2)
    rehearsed_without, rehearsed = rehearsal.without(False), rehearsal.each(known, False)
    place = Place(os.path.join(work, "watched"), "q0Zk3vB8sYt1nWm6RdX4uJc7HfLp2GaE", 1)
    for name, busy in (("alone", False), ("with a spell of use", True)):
        without, seen = place.without(busy), place.each(known, busy)
        counts = sorted({len(one.sizes) for one in seen})
        took = sorted(one.seconds for one in seen)
        print(
            f"{name}: {counts} packs come; the first after {took[len(took) // 2]:.3f} s, {took[0]:.3f} to"
            f" {took[-1]:.3f}; without a file it has {statistics.median(one.own(False) for one in without):.0f} bytes, spread"
            f" {statistics.pstdev([one.own(False) for one in without]):.0f}"
        )
        ways = [(what, pad, lambda one, what=what, pad=pad: getattr(one, what)(pad)) for what in ("own", "growth")
                for pad in (False, True)]
        for what, pad, measure in ways + [("seconds", False, lambda one: one.seconds)]:
            # Padded sizes of one kind of snapshot are compared as they are: nothing can be taken from them.
            shift = 0 if pad and not busy else statistics.median(map(measure, without)) - statistics.median(
                map(measure, rehearsed_without))
            random_bytes, text = named_rightly(list(map(measure, seen)), [measure(one) + shift for one in rehearsed])
            print(f"  {what}{', padded' if pad else ''}: named rightly {random_bytes:.0%} of those that do not"
                  f" compress, {text:.0%} of the texts")
    print(f"by chance: {1 / len(known):.0%}")


if __name__ == "__main__":
    main()
