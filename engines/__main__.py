"""Command line of the engine workshop."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rtchord.errors import told_in_a_sentence


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m engines", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="student weights to an engine folder (ONNX), checked against them")
    export.add_argument("weights", type=Path, help="student.safetensors of a training run")
    export.add_argument("target", type=Path, help="engine folder to write")
    export.add_argument("--name", default="2e1d-live", help="name in the manifest")
    export.add_argument("--delay", type=float, default=0.0, help="s the posteriors lag the sound, measured")
    export.add_argument("--replace", action="store_true", help="replace an engine that is there")
    describe = commands.add_parser("describe", help="write measured delay and scores into an engine's manifest")
    describe.add_argument("engine", type=Path, help="engine folder")
    describe.add_argument("--delay", type=float, help="s the posteriors lag the sound")
    describe.add_argument("--scores", type=Path, nargs="*", default=[], help="results of `python -m benchmarks online`")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with told_in_a_sentence("engines"):
        from engines.export import describe, export

        if args.command == "describe":
            manifest = describe(args.engine, args.delay, args.scores)
            print(f"{args.engine}: {manifest.name}, delay {manifest.delay} s, scores of {len(manifest.scores)} runs")
            return 0
        manifest = export(args.weights, args.target, args.name, args.delay, args.replace)
    print(f"{args.target}: {manifest.name}, differs from its student by at most {manifest.check['max_error']:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
