"""Makes a backup with the program, and reads it with examples/read_backup.py: both dialects, sealed and not.

  reader.py NBAK

The plain files must be the data directory's, databases row by row; and a flipped byte, wherever it is, must be found.
Then the program restores the backups under tests/fixtures/reference, which the application made, and what comes back is
held against what they must give.
"""
import hashlib, json, os, random, sqlite3, subprocess, sys, tempfile
from pathlib import Path

READER = Path(__file__).parent.parent / "examples" / "read_backup.py"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def fill(data):
    for folder in ("memory/acme", "sessions", "knowledge-graph", "empty"):
        (data / folder).mkdir(parents=True)
    (data / "config.json").write_text("{}")
    (data / "memory" / "acme" / "später-日本.txt").write_text("text\n" * 1000)
    (data / "memory" / "nothing").write_bytes(b"")
    (data / "knowledge-graph" / "data.kz").write_bytes(random.Random(1).randbytes(300_000))
    db = sqlite3.connect(data / "history.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE runs(id INTEGER PRIMARY KEY, response BLOB)")
    db.executemany("INSERT INTO runs(response) VALUES(?)", [(random.Random(n).randbytes(500),) for n in range(400)])
    return db


def dump(path):
    return list(sqlite3.connect(path).iterdump())


def read(backup, key, out=None):
    environment = {**os.environ, "NODYN_VAULT_KEY": key or ""}
    command = [sys.executable, READER, backup, *(["--out", out] if out else [])]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def reference(program, place):
    for sample in sorted(path for path in (READER.parent.parent / "tests/fixtures/reference").iterdir() if path.is_dir()):
        expected = json.loads((sample / "expected.json").read_text("utf-8"))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("NODYN_", "LYNOX_", "NBAK_"))}
        environment.update({"NODYN_VAULT_KEY": expected["vault_key"]} if expected["vault_key"] else {})
        (backup,) = (path for path in sample.iterdir() if path.is_dir())
        data = place / sample.name
        restore = [program, "--data-dir", data, "backup", "restore", backup, "--yes", "--allow-unsigned"]
        subprocess.run(restore, env=environment, check=True, capture_output=True)
        for entry in expected["expected"]:
            path = data / entry["path"]
            if "sha256" in entry:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"], path
            else:
                found = hashlib.sha256("\n".join(dump(path)).encode()).hexdigest()
                assert found == entry["sha256_of_iterdump"], path


def incomplete(program, place):
    """What a backup lacks is read, and nobody can change it or take it away."""
    data = place / "lacking"
    data.mkdir()
    (data / "file").write_bytes(b"there")
    os.mkfifo(data / "pipe")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NODYN_", "LYNOX_", "NBAK_"))}
    command = [program, "--data-dir", data, "--repo", place / "lacking-store", "backup", "--json"]
    made = subprocess.run(command, env={**environment, "NODYN_VAULT_KEY": KEY}, capture_output=True, text=True)
    assert made.returncode == 3, made
    backup = Path(json.loads(made.stdout)["path"])
    answer = read(backup, KEY)
    assert answer.returncode == 0 and "MAC checked" in answer.stdout and "not in the backup: 'pipe'" in answer.stdout, answer
    manifest = backup / "manifest.json"
    whole = manifest.read_text("utf-8")
    for before, after in (('"pipe"', '"pope"'), ('"lacks_count": 1', '"lacks_count": 2'), ("lacks", "locks")):
        manifest.write_text(whole.replace(before, after), "utf-8")
        assert whole != manifest.read_text("utf-8") and read(backup, KEY).returncode == 1, before
    manifest.write_text(whole, "utf-8")


def main(program):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        data = place / "data"
        data.mkdir()
        db = fill(data)
        for number, (key, dialect) in enumerate([(KEY, "nodyn"), (KEY, "lynox"), (None, "nodyn")]):
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("NODYN_", "LYNOX_", "NBAK_"))}
            environment.update({"NODYN_VAULT_KEY": key} if key else {})
            folders = ["--data-dir", data, "--repo", place / f"store{number}"]
            subprocess.run([program, *folders, "snapshot"], env=environment, check=True, capture_output=True)
            to = place / f"backups{number}"
            export = [program, *folders, "export", "latest", "--to", to, "--dialect", dialect]
            subprocess.run(export, env=environment, check=True, capture_output=True)
            (backup,) = (path for path in to.iterdir() if not path.name.startswith("."))
            out = place / f"out{number}"
            answer = read(backup, key, out)
            assert answer.returncode == 0, answer
            assert ("MAC checked" in answer.stdout) == (key is not None), answer
            for path in sorted(data.rglob("*")):
                name = path.relative_to(data)
                if path.name.endswith(("-wal", "-shm")):
                    continue
                if path.suffix == ".db":
                    assert dump(out / name) == dump(path), name
                elif path.is_file():
                    assert (out / name).read_bytes() == path.read_bytes(), name
                else:
                    assert (out / name).is_dir(), name
            for path in (path for path in backup.rglob("*") if path.is_file() and path.name != "manifest.json"):
                whole = path.read_bytes()
                for at in {0, len(whole) // 2, len(whole) - 1} if whole else ():
                    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
                    assert read(backup, key).returncode == 1, (path, at)
                path.write_bytes(whole)
            assert read(backup, key).returncode == 0
        incomplete(program, place)
        db.close()
        reference(program, place)
    print("the reader agrees: 3 backups read, every flipped byte found")


main(Path(sys.argv[1]).resolve())
