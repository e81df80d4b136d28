#!/usr/bin/env python3
"""What peers.py measured, as a table in Markdown and as a plot in SVG.

    report.py RESULT.json [--markdown FILE] [--plot FILE]
"""
import argparse
import json
import math
import textwrap
from html import escape
from statistics import median

MB = 1_000_000
# What a row says, the kind of round, what is taken of its samples, in which unit, and how many become one.
ROWS = [
    ("first: wall, s", "first", "wall", 1, median),
    ("first: CPU, s", "first", "cpu", 1, median),
    ("first: peak memory, MB", "first", "peak", MB, median),
    ("first: stored, MB", "first", "bytes", MB, median),
    ("first: of this index, a cache, MB", "first", "index", MB, median),
    ("unchanged: wall, s", "unchanged", "wall", 1, median),
    ("unchanged: CPU, s", "unchanged", "cpu", 1, median),
    ("unchanged: peak memory, MB", "unchanged", "peak", MB, median),
    ("unchanged: stored, kB", "unchanged", "bytes", 1000, median),
    ("aged: wall, s", "aged", "wall", 1, median),
    ("aged: CPU, s", "aged", "cpu", 1, median),
    ("aged: peak memory, MB", "aged", "peak", MB, median),
    ("aged: stored, MB", "aged", "bytes", MB, median),
    ("all aged together: stored, MB", "aged", "bytes", MB, sum),
    ("all aged together: of this index, a cache, MB", "aged", "index", MB, sum),
    ("restore: wall, s", "restore", "wall", 1, median),
    ("check of all data: wall, s", "check", "wall", 1, median),
]
# Dark enough for white paper, light enough for a black screen; lines are told by their dashes, too.
INK, FAINT = "#7a828c", "#7a828c44"
LINES = {"nbak": ("#2f81e8", "none"), "restic": ("#d9622b", "none"), "rustic": ("#b2538f", "7 3"),
         "borg": ("#2b9348", "2 3"), "bupstash": ("#98791a", "9 3 2 3")}


def figure(value):
    return f"{value:.{3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def times(ratio):
    return f"{ratio:.{2 if ratio < 1 else 1 if ratio < 10 else 0}f}×"


def value(result, row, program):
    """One figure; none if there is no sample, or none that has it."""
    _, kind, what, unit, one = row
    samples = [sample[what] / unit for sample in result["samples"].get(program, {}).get(kind, []) if what in sample]
    return one(samples) if samples else None


def cell(result, row, program, base="nbak"):
    """The figure, and how many times that of the base it is."""
    ours, theirs = value(result, row, base), value(result, row, program)
    if theirs is None:
        return "-"
    return figure(theirs) + (f" ({times(theirs / ours)})" if program != base and ours and ours > 0 else "")


def table(result):
    """Markdown."""
    options, programs, directory = result["options"], result["programs"], result["directory"]
    heads = [f"{name} {of['version']}{of['note'] and ', ' + of['note']}" for name, of in programs.items()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(programs) + 1) + "|"]
    for row in ROWS:
        lines.append(f"| {row[0]} | " + " | ".join(cell(result, row, name) for name in programs) + " |")
        if row[1] == "restore":
            copied = cell(result, row, "cp -r")
            lines.append(f"| `cp -r` beside it: wall, s | {copied} |" + " |" * (len(programs) - 1))
    young = f"after {options['rest']:g} s of rest and one more snapshot" if options["rest"] else "of files as they came"
    scan = ["nbak's aged snapshots read everything (`--full-scan`)."] if options["full_scan"] else []
    lines += ["", *textwrap.wrap(" ".join([
        f"In brackets: times nbak. The directory: {directory['bytes'] / MB:.0f} MB in {directory['files']} files at",
        f"the end, scale {options['scale']:g}, seed {options['seed']}; aged {options['steps']} times, databases",
        f"{'held open' if options['hold'] else 'closed'} between the steps. Unchanged snapshots {young}.", *scan,
        f"Medians: of {options['steps']} aged snapshots, of {options['repeat']} of all else. *Stored* is what the",
        "store grew by, all files in it counted. Caches that others keep elsewhere are not; nbak's index and notes,",
        "which are one, are, and have rows of their own. Each restored tree was compared with the directory, and its",
        "databases checked."]), 120)]
    if options["restore_at"]:
        lines += ["", "| aged snapshots | nbak's restore: wall, s | `cp -r`: wall, s |", "|---|---|---|"]
    for step in options["restore_at"]:
        row = ("", f"restore at {step}", "wall", 1, median)
        lines.append(f"| {step} | {cell(result, row, 'nbak', 'cp -r')} | {cell(result, row, 'cp -r', 'cp -r')} |")
    lines += [line for name, why in result["failed"].items() for line in ("", f"{name} failed: {why}")]
    return "\n".join(lines) + "\n"


def plot(result):
    """What the aged snapshots stored, added up. Each line is named at its end."""
    width, height, left, right, top, bottom = 800, 430, 64, 200, 58, 48
    steps, series = result["options"]["steps"], {}
    for name in result["programs"]:
        total, series[name] = 0, []
        for sample in result["samples"][name]["aged"]:
            total += sample["bytes"] / MB
            series[name].append(max(total, 0.001))
    marks = [digit * 10.0**power for power in range(-3, 8) for digit in (1, 2, 5)]
    ends = [line[at] for line in series.values() for at in (0, -1)]
    least = max(mark for mark in marks if mark <= min(ends))
    most = min(mark for mark in marks if mark >= max(*ends, least * 10))

    def x(step):
        return left + (width - left - right) * (step - 1) / max(1, steps - 1)

    def y(mb):
        return top + (height - top - bottom) * math.log(most / mb) / math.log(most / least)

    def text(at, to, what, anchor="start", size=12, color=INK, weight="normal"):
        return (f'<text x="{at:.1f}" y="{to:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}" '
                f'font-weight="{weight}">{escape(what)}</text>')

    title = f"Stored by {steps} aged snapshots of the same directory"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'role="img" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
           f"<title>{title}</title>", text(left, 22, title, size=15, weight="600"),
           text(left, 42, "MB added to the store since the first snapshot, added up; logarithmic")]
    for mark in (mark for mark in marks if least <= mark <= most):
        out.append(f'<path d="M{left} {y(mark):.1f}H{width - right}" stroke="{FAINT}"/>')
        if most / least <= 2000 or f"{mark:g}".strip("0.") == "1":
            out.append(text(left - 8, y(mark) + 4, f"{mark:g}", "end"))
    apart = next(gap for power in range(6) for gap in (10**power, 2 * 10**power, 5 * 10**power) if steps / gap <= 10)
    for step in sorted({1, *range(apart, steps + 1, apart)}):
        out.append(f'<path d="M{x(step):.1f} {height - bottom}v5" stroke="{INK}"/>')
        out.append(text(x(step), height - bottom + 20, str(step), "middle"))
    out.append(f'<path d="M{left} {height - bottom}H{width - right}" stroke="{INK}"/>')
    out.append(text((left + width - right) / 2, height - 8, "aged snapshots", "middle"))
    below = 0.0
    for name in sorted(series, key=lambda name: -series[name][-1]):
        (color, dash), line = LINES[name], series[name]
        end = y(line[-1])
        points = " ".join(f"{x(at + 1):.1f},{y(mb):.1f}" for at, mb in enumerate(line))
        stroke, weight = (3, "600") if name == "nbak" else (2, "normal")
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{stroke}" '
                   f'stroke-dasharray="{dash}" stroke-linejoin="round"/>')
        out.append(f'<circle cx="{x(len(line)):.1f}" cy="{end:.1f}" r="3.5" fill="{color}"/>')
        # Lines that end close together have their names one below the other.
        below = max(below + 17, end)
        ratio = f" ({times(line[-1] / series['nbak'][-1])})" if name != "nbak" and "nbak" in series else ""
        out.append(f'<path d="M{width - right + 6} {end:.1f}L{width - right + 16} {below:.1f}" stroke="{color}"/>')
        label = f"{name} {figure(line[-1])} MB{ratio}"
        out.append(text(width - right + 20, below + 4, label, color=color, weight=weight))
    return "\n".join([*out, "</svg>", ""])


def write(result, markdown=None, picture=None):
    """The table goes to stdout if no file is named for it."""
    if markdown:
        with open(markdown, "w", encoding="utf-8") as file:
            file.write(table(result))
    else:
        print(table(result), end="")
    if picture and result["programs"]:
        with open(picture, "w", encoding="utf-8") as file:
            file.write(plot(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a table and a plot of what peers.py measured.")
    parser.add_argument("result")
    parser.add_argument("--markdown")
    parser.add_argument("--plot")
    given = parser.parse_args()
    with open(given.result, encoding="utf-8") as measured:
        write(json.load(measured), given.markdown, given.plot)
