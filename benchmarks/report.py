"""Tables in the documents, written from the results on disk; no figure in them is typed by hand.

A document holds `<!-- table NAME -->` .. `<!-- end -->`; what lies between is replaced by the table of that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.score import SEVEN
from rtchord.chords import QUALITIES
from rtchord.decoder import PRESETS
from rtchord.errors import UserError

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DOCUMENTS = (
    "README.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/cqt.md",
    "docs/engines.md",
    "docs/training.md",
)
SETS = ("pop", "strum")
HELD_OUT = ("songs", "guitars12")
MARKER = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> dict[str, Any]:
    """A result file; UserError where it is missing."""
    path = RESULTS / f"{name}.json"
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        raise UserError(f"no result {path.name!r}; measure it again (docs/benchmarks.md says how)") from None
    return loaded


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


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


def presets() -> str:
    """Every preset on both development sets."""
    return _scores_table(
        [(name, preset, result(f"online-{name}-{preset}")["scores"]) for name in SETS for preset in PRESETS]
    )


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


STAGES = ("stage1", "stage2", "blend")


def stages() -> str:
    """What each step of the training did, balanced preset."""
    keys = ("mean7", "majmin", "class_mean", "lat_med", "lat_p90")
    rows = []
    for name in SETS:
        for stage in STAGES:
            # The blend is what ships, so its scores are the online ones.
            found = f"online-{name}-balanced" if stage == "blend" else f"stages-{name}-{stage}"
            scores = result(found)["scores"]
            rows.append(
                [name, stage, *(number(scores[key], 3) for key in keys), number(scores["events_per_change"], 2)]
            )
    head = ["set", "after", "mean of 7", "majmin", "class mean", "lat. median, s", "p90, s", "events per change"]
    return table(head, rows)


def offline() -> str:
    """The offline decode."""
    rows = []
    for name in SETS:
        scores = result(f"offline-{name}")["scores"]
        rows.append([name, *(number(scores[key], 3) for key in (*SEVEN, "mean7"))])
    return table(["set", *SEVEN, "mean of 7"], rows)


def hop() -> str:
    """What a hop costs."""
    measured = result("hop")
    rows = [
        [name, *(number(part[key], 1) for key in ("median_us", "p99_us"))] for name, part in measured["parts"].items()
    ]
    return table(["part", "median, µs", "p99, µs"], rows) + (
        f"\nOne hop is {measured['hop_us'] / 1000:.1f} ms of sound; the whole chain runs "
        f"{measured['times_real_time']:.0f} times faster than real time on one core "
        f"(median of {measured['hops']} hops, audio at {measured['rate'] / 1000:g} kHz).\n"
    )


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
        f"{run['window_over_step_cpu']:.1f} times by processor time.\n`rtchord listen` is ready "
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
    keys = ("majmin", "tetrads", "mean7")
    rows = []
    for name in SETS:
        runs = result(f"online-{name}-balanced"), result(f"int8-{name}")
        cells = [number(run["scores"][key], 4) for key in keys for run in runs]
        rows.append([f"{name} ({runs[1]['songs']})", *cells])
    return table(["set (songs)", *(f"{key}, {kind}" for key in keys for kind in ("fp32", "int8"))], rows)


TABLES: dict[str, Callable[[], str]] = {
    "online": online, "presets": presets, "heldout": heldout, "qualities": qualities, "stages": stages,
    "offline": offline, "hop": hop, "resampling": resampling,
    "cqt": cqt, "cqt_agreement": cqt_agreement, "cqt_latency": cqt_latency, "cqt_decimators": cqt_decimators,
    "cqt_drift": cqt_drift, "engines": engines, "streams": streams, "int8": int8,
}  # fmt: skip


def filled(text: str) -> str:
    """A document with its tables written anew; UserError for a name that is no table's."""

    def replace(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise UserError(f"there is no table {match[2]!r}; there are {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[match[2]]()}{match[3]}"

    return MARKER.sub(replace, text)


def report(check: bool) -> list[str]:
    """Write the tables into the documents, or with `check` only look; names of documents that were out of date."""
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text()
        after = filled(before)
        if after != before:
            stale.append(name)
            if not check:
                path.write_text(after)
    return stale
