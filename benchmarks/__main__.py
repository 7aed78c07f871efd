"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rtchord.decoder import PRESETS
from rtchord.errors import UserError, told_in_a_sentence


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    online = commands.add_parser("online", help="accuracy and latency over a folder of audio and .lab files")
    online.add_argument("folder", type=Path)
    online.add_argument("--latency", choices=PRESETS, default="balanced", help="decoder preset")
    offline = commands.add_parser("offline", help="accuracy of `rtchord transcribe` over such a folder")
    offline.add_argument("folder", type=Path)
    songs = commands.add_parser("make-songs", help="render a test set from POP909 songs that were not trained on")
    songs.add_argument("pop909", type=Path)
    songs.add_argument("target", type=Path)
    songs.add_argument("--font", type=Path, required=True, help="soundfont; not one of those trained on")
    songs.add_argument("--count", type=int, default=20)
    songs.add_argument("--skip", type=int, required=True, help="songs that were trained on (render --songs)")
    songs.add_argument("--exclude", type=Path, help="as given to render")
    songs.add_argument("--seed", type=int, default=0)
    strums = commands.add_parser("make-strums", help="splice a test set from recordings of single chords")
    strums.add_argument("clips", type=Path, help="folder with labels.csv (file, chord, seconds, variant)")
    strums.add_argument("target", type=Path)
    strums.add_argument("--variant", action="append", required=True, help="may be repeated")
    strums.add_argument("--count", type=int, default=5, help="pieces of each variant")
    strums.add_argument("--chords", type=int, default=40, help="in each piece")
    strums.add_argument("--seed", type=int, default=0)
    hop = commands.add_parser("hop", help="cost of one hop, part by part, on one core")
    hop.add_argument("--hops", type=int, choices=range(1, 10**7), metavar="N", default=5000)
    resampling = commands.add_parser("resampling", help="delay of our streaming resampler beside soxr's")
    cqt = commands.add_parser("cqt", help="cost, agreement with librosa, latency and drift of the transform")
    cqt.add_argument("--hops", type=int, default=5000)
    cqt.add_argument("--hours", type=float, default=0.2, help="of audio to look for drift in")
    picture = commands.add_parser("cqt-picture", help="centred, right-aligned and variable-Q frames around an onset")
    picture.add_argument("file", type=Path)
    picture.add_argument("--png", type=Path, required=True)
    gate = commands.add_parser("gate", help="how long a chord is named while an idle amplifier hums")
    capture = commands.add_parser("capture", help="samples lost by three ways to capture, beside a busy thread (JACK)")
    capture.add_argument("--seconds", type=float, default=10.0, help="of each of 24 runs")
    soak = commands.add_parser("soak", help="memory, drift and stuck notes over long runs (the live ones over JACK)")
    soak.add_argument("--hours", type=float, default=10.0, help="of audio to stream as fast as it goes; 0 for none")
    soak.add_argument("--minutes", type=float, default=20.0, help="of a live session; 0 for none")
    soak.add_argument("--stops", type=int, default=200, help="sessions to end by SIGTERM; 0 for none")
    report = commands.add_parser("report", help="write the tables of the documents from benchmarks/results/")
    report.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document is out of date")
    for command in (online, offline, hop, gate):
        command.add_argument("--engine", type=Path, help="engine folder; default: the shipped one")
    for command in (online, offline, hop, resampling, cqt, gate, capture, soak):
        command.add_argument("--json", action="store_true", help="print the whole result as JSON")
        command.add_argument("--output", type=Path, help="also write it here, with machine, versions and commit")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with told_in_a_sentence("benchmarks"):
        if args.command == "report":
            from benchmarks.report import report

            stale = report(args.check)
            print(f"{'out of date' if args.check else 'written'}: {', '.join(stale) or 'none'}")
            return 1 if args.check and stale else 0
        if args.command == "cqt-picture":
            from benchmarks.cqt_picture import picture

            onset = picture(args.file, args.png)
            print(f"{args.png}: around the onset at {onset:.2f} s")
            return 0
        if args.command == "make-songs":
            from benchmarks import testset

            testset.songs(args.pop909, args.target, args.font, args.count, args.skip, args.exclude, args.seed)
            return 0
        if args.command == "make-strums":
            from benchmarks import testset

            testset.strums(args.clips, args.target, args.variant, args.count, args.chords, args.seed)
            return 0
        if args.command == "online":
            from benchmarks.online import online

            result = online(args.folder, args.engine, args.latency)
            table = result["scores"]
        elif args.command == "offline":
            from benchmarks.offline import offline

            result = offline(args.folder, args.engine)
            table = result["scores"]
        elif args.command == "cqt":
            from benchmarks.cqt import cqt

            result = cqt(args.hops, args.hours)
            table = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
        elif args.command == "soak":
            from benchmarks.soak import soak as run

            result = run(args.hours, args.minutes, args.stops)
            table = {f"{part}.{k}": v for part, row in result.items() for k, v in row.items()}  # type: ignore[attr-defined]
        elif args.command == "gate":
            from benchmarks.gate import gate as named

            result = named(args.engine)
            table = result["named"]
        elif args.command == "capture":
            from benchmarks.capture import capture as measure

            result = measure(args.seconds)
            table = result["lost"]
        elif args.command == "resampling":
            from benchmarks.resampling import resampling

            result = resampling()
            table = result["waits"]
        else:
            from benchmarks.hop import hop_cost

            result = hop_cost(args.engine, args.hops)
            table = {k: v for k, v in result.items() if k != "parts"} | dict(result["parts"])  # type: ignore[call-overload]
    if args.output:
        from benchmarks.results import write

        try:
            write(args.output, result)
        except OSError as error:
            print(f"benchmarks: cannot write {str(args.output)!r}: {error.strerror}", file=sys.stderr)
            return UserError.exit_code
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in table.items():  # type: ignore[attr-defined]
            print(f"{name:20} {round(value, 4) if isinstance(value, float) else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
