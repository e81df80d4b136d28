#!/usr/bin/env python3
"""A data directory to measure backups on, and what a few minutes of use do to it.

    workload.py make DIR [--scale 1] [--seed 1]    a new directory, of some 50 MB for each unit of scale
    workload.py age  DIR --step K  [--seed 1]      one spell of use; it is as large on every scale
    workload.py busy DIR --seconds T               write to the databases for so long, and say how many rounds it took
    workload.py hold DIR                           keep its databases open, as an application does, until stdin ends

`history.db` only grows, and half of it is sealed, so that it does not compress; `datastore.db` is updated in place,
with a full-text index; `graph/` holds pages in a form of their own, changed in place; `notes/` are texts that grow;
`sessions/` are JSON files that are written anew. Both databases write ahead. The same seed gives the same bytes.
"""
import argparse
import itertools
import json
import os
import random
import sqlite3
import sys
import time

PAGE = 4096
LETTERS = random.Random(PAGE)
WORDS = ["".join(LETTERS.choices("etaoinshrdlucmfwypvbgk", k=LETTERS.randint(2, 10))) for _ in range(8000)]
# The nth word is used as often as 1/n says, as in any language.
OFTEN = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))
HISTORY = """
    CREATE TABLE IF NOT EXISTS runs(id TEXT PRIMARY KEY, started REAL, task TEXT, answer TEXT, sealed BLOB);
    CREATE INDEX IF NOT EXISTS runs_started ON runs(started);
    CREATE TABLE IF NOT EXISTS calls(id INTEGER PRIMARY KEY, run TEXT, input TEXT, output BLOB);
    CREATE INDEX IF NOT EXISTS calls_run ON calls(run);"""
DATASTORE = """
    CREATE TABLE IF NOT EXISTS records(id INTEGER PRIMARY KEY, owner TEXT, body TEXT, weight REAL);
    CREATE INDEX IF NOT EXISTS records_owner ON records(owner, weight);
    CREATE VIRTUAL TABLE IF NOT EXISTS found USING fts5(body, content='records', content_rowid='id');"""


def prose(dice, least, most):
    return " ".join(dice.choices(WORDS, cum_weights=OFTEN, k=dice.randint(least, most)))


def databases(folder):
    for name, schema in (("history.db", HISTORY), ("datastore.db", DATASTORE)):
        connection = sqlite3.connect(os.path.join(folder, name), timeout=60, isolation_level=None)
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + schema)
        yield connection


def add_runs(history, dice, count):
    history.execute("BEGIN")
    for _ in range(count):
        run, secret = dice.randbytes(16).hex(), dice.random() < 0.5
        answer = (None, dice.randbytes(dice.randint(500, 6000))) if secret else (prose(dice, 60, 700), None)
        history.execute("INSERT INTO runs VALUES(?, ?, ?, ?, ?)", (run, dice.random(), prose(dice, 5, 40), *answer))
        for _ in range(dice.randint(1, 5)):
            output = dice.randbytes(dice.randint(80, 1500)) if secret else prose(dice, 10, 300)
            history.execute("INSERT INTO calls VALUES(NULL, ?, ?, ?)", (run, prose(dice, 4, 30), output))
    history.execute("COMMIT")


def put_record(store, dice, number=None):
    body = prose(dice, 10, 120)
    row = store.execute("INSERT INTO records VALUES(?, ?, ?, ?)", (number, prose(dice, 1, 2), body, dice.random()))
    store.execute("INSERT INTO found(rowid, body) VALUES(?, ?)", (row.lastrowid, body))


def use_records(store, dice, added, changed, deleted):
    store.execute("BEGIN")
    for _ in range(added):
        put_record(store, dice)
    newest = store.execute("SELECT max(id) FROM records").fetchone()[0]
    for nth in range(changed + deleted):
        sought = (dice.randint(1, newest - 99),)
        row = store.execute("SELECT id, body FROM records WHERE id >= ? LIMIT 1", sought).fetchone()
        store.execute("INSERT INTO found(found, rowid, body) VALUES('delete', ?, ?)", row)
        store.execute("DELETE FROM records WHERE id = ?", row[:1])
        if nth < changed:
            put_record(store, dice, row[0])
    store.execute("COMMIT")


def graph_page(dice):
    edges = dice.randbytes(dice.randrange(200, 3200))
    return len(edges).to_bytes(4, "little") + edges + bytes(PAGE - 4 - len(edges))


def write(folder, kind, number, text, how="w"):
    path = os.path.join(folder, kind, f"{number % 40:02}", f"{number:06}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, how, encoding="utf-8") as file:
        file.write(text + "\n")


def session(dice):
    return json.dumps([{"from": who, "text": prose(dice, 5, 80)} for who in ("user", "app") * dice.randint(1, 9)])


def make(folder, history, store, dice, scale):
    for _ in range(max(1, round(40 * scale))):
        add_runs(history, dice, 100)
        use_records(store, dice, 250, 0, 0)
    with open(os.path.join(folder, "graph/pages.bin"), "wb") as file:
        file.writelines(graph_page(dice) for _ in range(round(2000 * scale) + 1))
    for number in range(round(500 * scale) + 10):
        write(folder, "sessions", number, session(dice))
        for note in range(3):
            write(folder, "notes", number * 3 + note, prose(dice, 20, dice.choice([100, 300, 2000])))


def age(folder, history, store, dice):
    add_runs(history, dice, 12)
    history.execute("UPDATE runs SET started = started + 1 WHERE id IN (SELECT id FROM runs ORDER BY started LIMIT 6)")
    use_records(store, dice, 10, 25, 4)
    with open(os.path.join(folder, "graph/pages.bin"), "r+b") as file:
        pages = file.seek(0, os.SEEK_END) // PAGE
        file.writelines(graph_page(dice) for _ in range(3))
        for _ in range(12):
            file.seek(dice.randrange(pages) * PAGE + dice.randrange(4, 2000))
            file.write(dice.randbytes(256))
    notes, sessions = (sum(len(names) for *_, names in os.walk(os.path.join(folder, kind)))
                       for kind in ("notes", "sessions"))
    for _ in range(3):
        write(folder, "notes", dice.randrange(notes), prose(dice, 20, 60), "a")
    for number in (sessions, dice.randrange(sessions)):
        write(folder, "sessions", number, session(dice))


def busy(history, store, dice, seconds):
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        add_runs(history, dice, 2)
        use_records(store, dice, 2, 1, 0)
        rounds += 1
        time.sleep(0.01)
    print(f"{rounds} rounds")


def hold(folder):
    """Databases are known by their content, so that it serves any directory. No transaction is left open."""
    held = []
    for path in [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]:
        if open(path, "rb").read(16) == b"SQLite format 3\0":
            held.append(sqlite3.connect(path, timeout=60))
            held[-1].execute("SELECT count(*) FROM sqlite_master").fetchall()
    print(f"holding {len(held)} databases", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make and age a data directory to measure backups on.")
    parser.add_argument("what", choices=["make", "age", "busy", "hold"])
    parser.add_argument("directory")
    for name, kind in (("--scale", float), ("--seed", int), ("--step", int), ("--seconds", float)):
        parser.add_argument(name, type=kind, default=1)
    given = parser.parse_args()
    if given.what == "hold":
        hold(given.directory)
    elif given.what == "busy":
        busy(*databases(given.directory), random.Random(), given.seconds)
    elif given.what == "make":
        os.makedirs(os.path.join(given.directory, "graph"))
        make(given.directory, *databases(given.directory), random.Random(f"make {given.seed}"), given.scale)
    else:
        age(given.directory, *databases(given.directory), random.Random(f"age {given.seed} {given.step}"))
