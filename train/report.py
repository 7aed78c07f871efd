"""The experiment of `python -m train reproduce` in the documents: its table and its picture, from the result on disk.

A document holds `<!-- table NAME -->` .. `<!-- end -->`; what lies between is replaced by the table of that name. The
picture holds the hash of the result it was drawn from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtchord.errors import UserError
from train.files import replaced

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "pipeline.json"
DOCUMENT = ROOT / "docs" / "training.md"
PICTURE = ROOT / "docs" / "pipeline.png"
MARKER = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FOOTNOTE = re.compile(r"^\n† .*\n", re.MULTILINE)

# What the papers found (arXiv 2602.19778), as least values here: student -> share of the teacher's mean of seven that
# stage 1 keeps.
KEPT = {"btc": 0.98, "2e1d": 0.96}
GAIN = 0.025  # of stage 2 over supervised training, relative


# --- documents --------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def interval(value: float | None, span: list[float] | None) -> str:
    """A figure and its interval."""
    return number(value, 3) + ("" if span is None else f" ({span[0]:.3f} .. {span[1]:.3f})")


def fill(text: str, tables: Mapping[str, Callable[[], str]], *, others: bool = False) -> str:
    """A document with its tables written anew; UserError for a name that is no table's, unless `others` are left."""

    def replace(match: re.Match[str]) -> str:
        if match[2] in tables:
            return f"{match[1]}{tables[match[2]]()}{match[3]}"
        if others:
            return match[0]
        raise UserError(f"there is no table {match[2]!r}; there are {', '.join(tables)}")

    return MARKER.sub(replace, text)


# --- the experiment ---------------------------------------------------------------------------------------------------


def load(path: Path = RESULT) -> dict[str, Any]:
    """The experiment's result; UserError where it is missing."""
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        raise UserError(
            f"no result {path.name!r}; run the experiment (python -m train reproduce RUNS --data DATA)"
        ) from None
    return loaded


def _label(row: dict[str, Any]) -> str:
    return row["after"] if row["student"] == "teacher" else f"{row['student']}, {row['after']}"


def pipeline(result: dict[str, Any]) -> str:
    """Every row of the experiment on every set, what it says beside the papers, and what it was made of."""
    text = ""
    for name, about in result["sets"].items():
        rows = []
        for row in result["rows"]:
            offline, online = row["sets"][name]["offline"], row["sets"][name].get("online")
            scores, spans = offline["scores"], offline["intervals"]
            cells = [interval(scores["mean7"], spans["mean7"])]
            cells += [number(scores[key], 3) for key in ("majmin", "tetrads", "class_mean", "rare_mean", "acqa", "seg")]
            live = online["scores"] if online else {}
            cells += [number(live.get(key), digits) for key, digits in (("mean7", 3), ("lat_med", 3))]
            cells += [number(live.get("events_per_change"), 2)]
            rows.append([row["student"], row["after"], *cells])
        head = ["student", "after", "mean of 7 (95 %)", "majmin", "tetrads", "class mean", "rare mean", "ACQA", "seg"]
        text += f"\n`{name}`, {about['songs']} songs, {about['hours']:.1f} h:\n\n"
        text += table([*head, "online: mean of 7", "latency median, s", "events per change"], rows)
    text += f"\nBeside what the papers found, on `{next(iter(result['sets']))}`:\n\n" + _findings(result)
    return f"{text}\n{_made_of(result)}\n"


def _mean(result: dict[str, Any], student: str, after: str, key: str) -> float | None:
    """A score of a row on the first set; None where the row, or the score, is not there."""
    for row in result["rows"]:
        if (row["student"], row["after"]) == (student, after):
            value: float | None = row["sets"][next(iter(result["sets"]))]["offline"]["scores"][key]
            return value
    return None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def findings(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each student, on the first set: `kept`, the share of the teacher's mean of seven that stage 1 keeps; `gain`,
    `majmin_gain`, `rare_gain`: relative, of the selective stage 2 over supervised training; floors where papers have
    some. None where a row is missing."""
    found = []
    for student in dict.fromkeys(row["student"] for row in result["rows"] if row["student"] != "teacher"):
        teacher = next((row["after"] for row in result["rows"] if row["student"] == "teacher"), "")

        def gain(key: str, student: str = student) -> float | None:
            ratio = _ratio(*(_mean(result, student, after, key) for after in ("stage 2, selective KD", "supervised")))
            return None if ratio is None else ratio - 1

        kept = _ratio(_mean(result, student, "stage 1", "mean7"), _mean(result, "teacher", teacher, "mean7"))
        found.append(
            {
                "student": student,
                "kept": kept,
                "kept_floor": KEPT.get(student),
                "gain": gain("mean7"),
                "gain_floor": GAIN if student in KEPT else None,
                "majmin_gain": gain("majmin"),
                "rare_gain": gain("rare_mean"),
            }
        )
    return found


def _percent(value: float | None, floor: float | None = None, sign: str = "") -> str:
    """A share in %, and by how much it misses its floor."""
    if value is None:
        return "-"
    text = f"{100 * value:{sign}.1f} %"
    if floor is None:
        return text
    short = floor - value
    return f"{text} (floor {100 * floor:{sign}.1f}: {'met' if short <= 0 else f'missed by {100 * short:.1f}'})"


def _findings(result: dict[str, Any]) -> str:
    rows = [
        [
            row["student"],
            _percent(row["kept"], row["kept_floor"]),
            _percent(row["gain"], row["gain_floor"], "+"),
            _percent(row["majmin_gain"], None, "+"),
            _percent(row["rare_gain"], None, "+"),
        ]
        for row in findings(result)
    ]
    head = ["student", "stage 1 / teacher, mean of 7", "stage 2 (selective KD) over supervised, mean of 7", "majmin"]
    return table([*head, "rare mean"], rows)


def _made_of(result: dict[str, Any]) -> str:
    """A sentence on data, size and time."""
    size, data = result["size"], result["data"]
    seeds = len(size["seeds"])
    total = sum(step["seconds"] for step in result["steps"]) / 3600
    return (
        f"Size `{result['name']}`: {data['unlabelled_h']:.2f} h of unlabelled music labelled by {size['teacher']}, "
        f"{data['labelled_h']:.2f} h of music with true labels, {seeds} seed{'s' if seeds > 1 else ''}; "
        f"{total:.2f} h of computing."
    )


# --- the picture ------------------------------------------------------------------------------------------------------


def source(result: dict[str, Any]) -> str:
    """What a picture was drawn from, as a hash that is written into it."""
    return hashlib.sha256(json.dumps([result["sets"], result["rows"]], sort_keys=True).encode()).hexdigest()


def picture(result: dict[str, Any], png: Path) -> None:
    """Bars with intervals: every row's mean of seven, and below it the mean over rare qualities, for each set."""
    from matplotlib.figure import Figure

    shown = {"mean7": "mean of the seven metrics", "rare_mean": "mean over rare qualities"}
    names, rows = list(result["sets"]), result["rows"]
    figure = Figure(figsize=(max(6.0, 0.34 * len(rows)) * len(names), 7), layout="constrained")
    grid = figure.subplots(len(shown), len(names), squeeze=False, sharex="col")
    students = list(dict.fromkeys(row["student"] for row in rows))
    colours = [f"C{students.index(row['student'])}" for row in rows]
    places = range(len(rows))
    for column, name in zip(grid.T, names, strict=True):
        for axes, (key, says) in zip(column, shown.items(), strict=True):
            parts = [row["sets"][name]["offline"] for row in rows]
            heights = [part["scores"][key] or 0.0 for part in parts]
            spans = [part["intervals"][key] or (height, height) for part, height in zip(parts, heights, strict=True)]
            below = [max(0.0, height - low) for height, (low, _) in zip(heights, spans, strict=True)]
            above = [max(0.0, high - height) for height, (_, high) in zip(heights, spans, strict=True)]
            axes.bar(places, heights, color=colours, yerr=[below, above], capsize=2, error_kw={"lw": 0.8})
            axes.set_ylim(bottom=0)
            axes.set_ylabel(says, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(axis="y", alpha=0.3)
        column[0].set_title(f"{name} ({result['sets'][name]['songs']} songs, 95 % intervals)", fontsize=8)
        column[-1].set_xticks(places, [_label(row) for row in rows], rotation=90, fontsize=7)
    with replaced(png) as temporary:
        figure.savefig(temporary, dpi=90, format="png", metadata={"Source": source(result)})


def report(check: bool, path: Path = RESULT, document: Path = DOCUMENT, png: Path = PICTURE) -> list[str]:
    """Write the table and the picture, or with `check` only look; names of what was out of date.

    Footnotes, which `python -m benchmarks report` adds, are no reason to be out of date.
    """
    result = load(path)
    before = document.read_text()
    if not any(match[2] == "pipeline" for match in MARKER.finditer(before)):
        raise UserError(
            f"{document.name} has no `<!-- table pipeline -->` .. `<!-- end -->`; put it where the table goes"
        )
    after = fill(before, {"pipeline": lambda: pipeline(result)}, others=True)
    stale = []
    if FOOTNOTE.sub("", after) != FOOTNOTE.sub("", before):
        stale.append(document.name)
        if not check:
            document.write_text(after)
    if not png.is_file() or source(result).encode() not in png.read_bytes():
        stale.append(png.name)
        if not check:
            picture(result, png)
    return stale
