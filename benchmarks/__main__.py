"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtchord.decoder import PRESETS
from rtchord.errors import UserError, named_path, told_in_a_sentence

Args = argparse.Namespace
Result = dict[str, Any]
Measured = tuple[Result, Result]  # the whole result, and the part that people read

# Each imports what it needs when it is called, so that none needs what another does.


def _online(args: Args) -> Measured:
    from benchmarks.online import online

    result: Result = online(args.folder, args.engine, args.latency)
    return result, result["scores"]


def _curve(args: Args) -> Measured:
    from benchmarks.curve import curve

    result = curve(args.folder, args.engine)
    return result, {
        f"{name} {point['sweep']} {point['at']}": {key: point[key] for key in ("mean7", "majmin", "lat_med")}
        for name, points in result["sets"].items()
        for point in points
    }


def _robustness(args: Args) -> Measured:
    from benchmarks.robustness import robustness

    result = robustness(args.folder, args.engine, args.songs, args.seconds, args.charts, args.seed)
    found = {**result["sets"], "charts": result["keys"]}
    table = {f"{name}: {row['condition']}": row.get("scores", row) for name, rows in found.items() for row in rows}
    shown = {name: scores.get("mean7", "skipped") for name, scores in table.items()}
    return result, shown | {row["condition"]: row.get("no_chord", "skipped") for row in result["no_music"]}


def _peers(args: Args) -> Measured:
    from benchmarks.peers import peers

    result = peers(args.folder, args.songs, args.seconds, args.rounds)
    return result, {name: system["scores"]["mean7"] for name, system in result["systems"].items()}


def _offline(args: Args) -> Measured:
    from benchmarks.offline import offline

    result: Result = offline(args.folder, args.engine)
    return result, result["scores"]


def _latency(args: Args) -> Measured:
    from benchmarks.latency import latency

    result: Result = latency(args.engine, args.hops, args.strums)
    stages: Result = result.get("stages", {"parts": {}})
    shown = {name: f"median {part['median_us']} us, p99 {part['p99_us']} us" for name, part in stages["parts"].items()}
    for row in result.get("end_to_end", {"runs": []})["runs"]:
        shown[f"{row['period']}, {row['neighbour']}"] = row["machine_ms"]
    return result, shown


def _engines(args: Args) -> Measured:
    from engines.bench import SHIPPED, bench

    result: Result = bench(SHIPPED, args.engine, args.steps)
    return result, {name: row["paced"] for name, row in result["engines"].items()}


def _throughput(args: Args) -> Measured:
    from benchmarks.throughput import throughput

    result: Result = throughput(args.folder, args.files, args.seconds, args.rounds, args.hops, args.minutes)
    return result, result


def _start(args: Args) -> Measured:
    from benchmarks.start import start

    result: Result = start(args.cold, args.warm, args.stay)
    return result, {key: value for key, value in result.items() if key != "packages_mb"}


def _resampling(_: Args) -> Measured:
    from benchmarks.resampling import resampling

    result: Result = resampling()
    return result, result["waits"]


def _cqt(args: Args) -> Measured:
    from benchmarks.cqt import cqt

    result: Result = cqt(args.hops, args.hours)
    return result, {key: value for key, value in result.items() if not isinstance(value, dict | list)}


def _gate(args: Args) -> Measured:
    from benchmarks.gate import gate

    result: Result = gate(args.engine)
    return result, result["summary"]


def _capture(args: Args) -> Measured:
    from benchmarks.capture import capture

    result: Result = capture(args.seconds)
    return result, result["lost"]


def _soak(args: Args) -> Measured:
    from benchmarks.soak import soak

    result: Result = soak(args.hours, args.minutes, args.stops)
    return result, {f"{part}.{key}": value for part, row in result.items() for key, value in row.items()}


def _report(args: Args) -> int:
    from benchmarks.report import report

    stale = report(args.check)
    print(f"{'out of date' if args.check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if args.check and stale else 0


def _picture(args: Args) -> int:
    from benchmarks.cqt_picture import picture

    print(f"{args.png}: around the onset at {picture(args.file, args.png):.2f} s")
    return 0


def _songs(args: Args) -> int:
    from benchmarks import testset

    testset.songs(args.pop909, args.target, args.font, args.count, args.skip, args.exclude, args.seed)
    return 0


def _strums(args: Args) -> int:
    from benchmarks import testset

    testset.strums(args.clips, args.target, args.variant, args.count, args.chords, args.seed)
    return 0


def _charts(args: Args) -> int:
    from benchmarks import charts

    print(charts.charts(args.target, args.font, args.seed, args.transpose))
    return 0


def _all(args: Args) -> int:
    from benchmarks.redo import redo

    return redo(args.data, args.runs, args.only)


def _count(text: str) -> int:
    """A number from 0 for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 up")
    return int(text)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)

    def measuring(name: str, run: Callable[[Args], Measured], says: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=says)
        command.set_defaults(measure=run)
        command.add_argument("--json", action="store_true", help="print the whole result as JSON")
        command.add_argument("--output", type=named_path, help="also write it here, with machine, versions and commit")
        return command

    def doing(name: str, run: Callable[[Args], int], says: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=says)
        command.set_defaults(run=run)
        return command

    def engine(command: argparse.ArgumentParser) -> None:
        command.add_argument("--engine", type=named_path, help="engine folder; default: the shipped one")

    online = measuring("online", _online, "accuracy and latency over a folder of audio and .lab files")
    online.add_argument("folder", type=named_path)
    online.add_argument("--latency", choices=PRESETS, default="balanced", help="decoder preset")
    engine(online)
    curve = measuring("curve", _curve, "accuracy against latency: presets, thresholds, counts, lookahead")
    curve.add_argument("folder", type=named_path, nargs="+")
    engine(curve)
    robustness = measuring(
        "robustness", _robustness, "such folders in noise, rooms, other tunings, codecs, under speech"
    )
    robustness.add_argument("folder", type=named_path, nargs="+")
    robustness.add_argument("--songs", type=int, default=12, help="of the folder, evenly spread")
    robustness.add_argument("--seconds", type=float, default=30.0, help="from the start of each song")
    robustness.add_argument("--charts", type=int, choices=range(1, 7), default=6, help="in other keys")
    robustness.add_argument("--seed", type=int, default=0)
    engine(robustness)
    peers = measuring("peers", _peers, "other recognizers and transforms beside ours, in one run")
    peers.add_argument("folder", type=named_path)
    peers.add_argument("--songs", type=int, default=8, help="of the folder, evenly spread")
    peers.add_argument("--seconds", type=float, default=15.0, help="excerpt scored, from the middle of each song")
    peers.add_argument("--rounds", type=int, default=200, help="of the transforms, in turn")
    offline = measuring("offline", _offline, "accuracy of `rtchord transcribe` over such a folder")
    offline.add_argument("folder", type=named_path)
    engine(offline)
    latency = measuring(
        "latency", _latency, "what every stage of a hop costs, and from a strum to its MIDI notes (JACK)"
    )
    latency.add_argument("--hops", type=_count, default=100_000, help="of every stage; 0 for none")
    latency.add_argument("--strums", type=_count, default=120, help="in each of 8 settings, over JACK; 0 for none")
    engine(latency)
    bench = measuring("engines", _engines, "time, memory and start of every engine that is there, on one core")
    bench.add_argument("--steps", type=int, default=5000, help="of each kind")
    bench.add_argument("--engine", type=named_path, action="append", default=[], help="a folder to measure too")
    throughput = measuring("throughput", _throughput, "recordings labelled, streams a core, files at full speed")
    throughput.add_argument("folder", type=named_path, nargs="?", help="of recordings to label; default: the demo")
    throughput.add_argument("--files", type=int, choices=range(1, 10**4), metavar="N", default=3)
    throughput.add_argument("--seconds", type=float, default=60.0, help="of each")
    throughput.add_argument("--rounds", type=_count, default=3, help="of labelling, both ways in turn; 0 for none")
    throughput.add_argument("--hops", type=_count, default=200, help="of every number of streams; 0 for none")
    throughput.add_argument("--minutes", type=float, default=20.0, help="of sound for `rtchord listen`; 0 for none")
    start = measuring("start", _start, "size of wheel and install, seconds to the first sound heard, memory")
    start.add_argument("--cold", type=int, choices=range(1, 100), metavar="N", default=3, help="starts")
    start.add_argument("--warm", type=int, choices=range(1, 100), metavar="N", default=7, help="starts")
    start.add_argument("--stay", type=float, default=10.0, help="s after which the memory is looked at")
    measuring("resampling", _resampling, "delay of our streaming resampler beside soxr's")
    cqt = measuring("cqt", _cqt, "cost, agreement with librosa, latency and drift of the transform")
    cqt.add_argument("--hops", type=int, default=5000)
    cqt.add_argument("--hours", type=float, default=0.2, help="of audio to look for drift in")
    engine(measuring("gate", _gate, "quiet starts, held chords, idle noises, chords over noise"))
    capture = measuring("capture", _capture, "samples lost by three ways to capture, beside a busy thread (JACK)")
    capture.add_argument("--seconds", type=float, default=10.0, help="of each of 24 runs")
    soak = measuring("soak", _soak, "memory, drift and stuck notes over long runs (the live ones over JACK)")
    soak.add_argument("--hours", type=float, default=10.0, help="of audio to stream as fast as it goes; 0 for none")
    soak.add_argument("--minutes", type=float, default=20.0, help="of a live session; 0 for none")
    soak.add_argument("--stops", type=int, default=200, help="sessions to end by SIGTERM; 0 for none")

    songs = doing("make-songs", _songs, "render a test set from POP909 songs that were not trained on")
    songs.add_argument("pop909", type=named_path)
    songs.add_argument("target", type=named_path)
    songs.add_argument("--font", type=named_path, required=True, help="soundfont; not one of those trained on")
    songs.add_argument("--count", type=int, default=20)
    songs.add_argument("--skip", type=int, required=True, help="songs that were trained on (render --songs)")
    songs.add_argument("--exclude", type=named_path, help="as given to render")
    songs.add_argument("--seed", type=int, default=0)
    strums = doing("make-strums", _strums, "splice a test set from recordings of single chords")
    strums.add_argument("clips", type=named_path, help="folder with labels.csv (file, chord, seconds, variant)")
    strums.add_argument("target", type=named_path)
    strums.add_argument("--variant", action="append", required=True, help="may be repeated")
    strums.add_argument("--count", type=int, default=5, help="pieces of each variant")
    strums.add_argument("--chords", type=int, default=40, help="in each piece")
    strums.add_argument("--seed", type=int, default=0)
    charts = doing(
        "make-charts", _charts, "render the test set that needs no data: every chord on six groups of instruments"
    )
    charts.add_argument("target", type=named_path)
    charts.add_argument(
        "--font", type=named_path, help="soundfont; default: MuseScore_General_Lite, which training never uses"
    )
    charts.add_argument("--seed", type=int, default=0)
    charts.add_argument("--transpose", type=int, default=0, help="semitones")
    picture = doing("cqt-picture", _picture, "centred, right-aligned and variable-Q frames around an onset")
    picture.add_argument("file", type=named_path)
    picture.add_argument("--png", type=named_path, required=True)
    everything = doing("all", _all, "measure every result again, in order")
    everything.add_argument("data", type=named_path, help="folder with the sets: pop, strum, songs, guitars12, charts")
    everything.add_argument("--runs", type=named_path, default=Path("runs"), help="folder of the training's runs")
    everything.add_argument("--only", action="append", help="a result's name, or its beginning; may be repeated")
    report = doing("report", _report, "write the tables and pictures of the documents from benchmarks/results/")
    report.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document is out of date")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with told_in_a_sentence("benchmarks"):
        if "run" in args:
            return int(args.run(args))
        from train.files import check_place
        from train.results import write

        if args.output:
            check_place(args.output)
        start = time.perf_counter()
        result, table = args.measure(args)
        if args.output:
            try:
                write(args.output, result, time.perf_counter() - start)
            except OSError as error:
                raise UserError(f"cannot write {str(args.output)!r}: {error.strerror}") from None
        if args.json:
            print(json.dumps(result, indent=1))
        else:
            for name, value in table.items():
                print(f"{name:20} {round(value, 4) if isinstance(value, float) else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
