#!/usr/bin/env python3
"""What somebody learns who sees the sizes of packs, and when they appear, and nothing else (S6, S7).

  observer.py --work DIR [--files N]

There are N known files, whose sizes the observer knows. Each is put into the data directory once, alone and together with
a spell of use (workload.py age), and a snapshot is taken. The observer takes the growth of the store, subtracts what
such a snapshot takes without the file (the median of some that were taken for that), and names the known file whose
size is nearest. Printed: how often that is right, how many files are nearer than the right one, and the same if
packs were padded as in Padmé (https://bford.info/pub/sec/purb.pdf), which adds at most 12 %. Half of the files do not
compress; the others are text, of which the observer knows the compressed size too.

NBAK names the program, as for peers.py.
"""
import argparse, lzma, math, os, random, shutil, statistics, subprocess, sys

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


class Place:
    def __init__(self, work):
        shutil.rmtree(work, ignore_errors=True)
        self.data, self.store = os.path.join(work, "data"), os.path.join(work, "store")
        os.makedirs(self.data)
        subprocess.run(WORKLOAD + ["make", self.data, "--scale", "0.2"], check=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("NBAK_", "NODYN_", "LYNOX_"))}
        key = "q0Zk3vB8sYt1nWm6RdX4uJc7HfLp2GaE"
        self.env = dict(clean, NBAK_DATA_DIR=self.data, NBAK_REPO=self.store, NODYN_VAULT_KEY=key)
        self.steps = 0
        self.snapshot()

    def packs(self):
        folder = os.path.join(self.store, "packs")
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return {name: os.path.getsize(os.path.join(folder, name)) for name in names}

    def snapshot(self):
        """The sizes of the packs that appear."""
        before = self.packs()
        subprocess.run([NBAK, "snapshot", "-q"], env=self.env, check=True, stdout=subprocess.DEVNULL)
        return [size for name, size in self.packs().items() if name not in before]

    def age(self):
        self.steps += 1
        subprocess.run(WORKLOAD + ["age", self.data, "--step", str(self.steps)], check=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", required=True)
    args.add_argument("--files", type=int, default=100)
    told = args.parse_args()
    dice = random.Random(7)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(4000)]
    known = []
    for number in range(told.files):
        size = round(math.exp(dice.uniform(math.log(8_000), math.log(800_000))))
        if number % 2:
            body = dice.randbytes(size)
            known.append((body, len(body)))
        else:
            body = " ".join(dice.choices(words, k=size // 6)).encode()
            known.append((body, len(lzma.compress(body, preset=1))))
    place = Place(os.path.abspath(told.work))
    print(f"{len(known)} known files, {min(size for _, size in known)} to {max(size for _, size in known)} bytes")
    for name, busy in (("alone", False), ("with a spell of use", True)):
        quiet = []
        for number in range(15):
            if busy:
                place.age()
            else:
                open(os.path.join(place.data, "marker"), "w").write(str(number))
            quiet.append(sum(place.snapshot()))
        usual, spread = statistics.median(quiet), statistics.pstdev(quiet)
        grown = []
        for number, (body, _) in enumerate(known):
            if busy:
                place.age()
            path = os.path.join(place.data, f"known {number}")
            open(path, "wb").write(body)
            grown.append(place.snapshot())
            os.remove(path)
            place.snapshot()
        for padding in (False, True):
            right = {True: 0, False: 0}
            ranks = []
            for number, packs in enumerate(grown):
                seen = sum(padded(size) if padding else size for size in packs) - usual
                far = [abs(size - seen) for _, size in known]
                rank = sum(one < far[number] for one in far)
                ranks.append(rank)
                right[number % 2 == 1] += rank == 0
            half = len(known) / 2
            print(
                f"{name}{', padded' if padding else ''}: named rightly {right[True] / half:.0%} of those that do not"
                f" compress, {right[False] / half:.0%} of the texts; the right one is nearer than all but"
                f" {statistics.median(ranks):.0f} of them (median)"
                + ("" if padding else f"; without a file {usual:.0f} bytes, spread {spread:.0f}")
            )
    chance = 1 / len(known)
    print(f"by chance: {chance:.0%}")


if __name__ == "__main__":
    main()
