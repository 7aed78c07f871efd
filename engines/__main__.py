"""From a trained network to an engine that `rtchord` loads.

export and build make an engine and verify it in one go; verify does it again, or on the machine that is to run it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rtchord.engine import BACKENDS, backend_class, own_folder, read_manifest, sha256
from rtchord.errors import UserError, named_path, told_in_a_sentence

STUDENTS = Path(__file__).parent / "students"


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m engines", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)

    export = commands.add_parser("export", help="a checkpoint to a portable engine: ONNX, and torch.export beside it")
    export.add_argument("checkpoint", type=named_path, help="student.safetensors of a training run")
    export.add_argument("target", type=named_path, help="engine folder to write")
    build = commands.add_parser("build", help="a checkpoint to an engine for one backend")
    build.add_argument("checkpoint", type=named_path, help="student.safetensors of a training run")
    build.add_argument("target", type=named_path, nargs="?", help=f"folder to write (default: one in {own_folder()})")
    build.add_argument("--backend", choices=BACKENDS, required=True)
    published = commands.add_parser("import-published", help="a published 2E1D or BTC checkpoint to an engine")
    published.add_argument("checkpoint", type=named_path, help="file that torch.save wrote")
    published.add_argument("target", type=named_path, help="engine folder to write")
    published.add_argument("--layout", choices=("2e1d", "btc"), help="default: the one whose tensor names it has")
    published.add_argument(
        "--lookahead",
        type=float,
        default=0.28,
        metavar="S",
        help="from a frame to its answer, s (default: %(default)s)",
    )
    published.add_argument(
        "--transform", choices=("librosa-0.11", "librosa-0.6.3"), help="default: the one the authors trained on"
    )
    published.add_argument("--backend", choices=BACKENDS, default="onnx", help="default: %(default)s")
    published.add_argument("--name", default="", help="name in the manifest (default: the checkpoint's)")
    published.add_argument("--replace", action="store_true", help="replace an engine that is there")
    for command in (export, build):
        command.add_argument("--form", choices=("step", "window"), default="step", help="default: %(default)s")
        command.add_argument("--streams", type=int, default=1, metavar="N", help="that one step advances; default: 1")
        command.add_argument(
            "--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="default: %(default)s"
        )
        command.add_argument("--name", default="", help="name in the manifest (default: the checkpoint's)")
        command.add_argument("--delay", type=float, default=0.0, help="s the posteriors lag the sound, measured")
        command.add_argument("--replace", action="store_true", help="replace an engine that is there")
    verify = commands.add_parser("verify", help="check an engine beside PyTorch eager, on this machine")
    verify.add_argument("engine", type=named_path, help="engine folder")
    verify.add_argument(
        "--checkpoint", type=named_path, help="what it was made from (default: look in engines/students)"
    )
    for command in (export, build, published, verify):
        command.add_argument(
            "--seconds", type=float, default=600.0, help="of stream to compare over (default: %(default)s)"
        )
    commands.add_parser("list", help="engines that are there, and why one cannot be used")
    bench = commands.add_parser("bench", help="time, memory and start of every engine that is there, on one core")
    bench.add_argument("--steps", type=int, default=5000, help="of each kind (default: %(default)s)")
    bench.add_argument("--engine", type=named_path, action="append", default=[], help="a folder to measure too")
    bench.add_argument("--json", action="store_true", help="print the whole result as JSON")
    describe = commands.add_parser("describe", help="write measured delay and scores into an engine's manifest")
    describe.add_argument("engine", type=named_path, help="engine folder")
    describe.add_argument("--delay", type=float, help="s the posteriors lag the sound")
    describe.add_argument(
        "--scores", type=named_path, nargs="*", default=[], help="results of `python -m benchmarks online`"
    )
    return root


def _build(args: argparse.Namespace) -> str:
    from engines.build import as_both, build
    from engines.network import from_student
    from engines.published import from_published

    if args.command == "import-published":
        network = from_published(args.checkpoint, args.layout, args.lookahead, args.name, args.transform)
    else:
        network = from_student(args.checkpoint, args.form, args.streams, args.precision, args.name, args.delay)
    if args.command == "export":
        made = build(network, "onnx", args.target, args.replace, args.seconds, as_both)
    else:
        made = build(network, args.backend, args.target, args.replace, args.seconds)
    folder, manifest, why = made
    if why:
        return f"{folder}: built, not verified ({why}); run `python -m engines verify {folder}` where it is to run"
    return _said(folder, manifest)


def _said(folder: Path, manifest: object) -> str:
    check = manifest.check  # type: ignore[attr-defined]
    return (
        f"{folder}: {manifest.name}, differs from its network by at most {check.max_error:.1e} "  # type: ignore[attr-defined]
        f"over {check.seconds:.0f} s; same decoded chord in {check.chords:.3%} of frames"
    )


def _checkpoint_of(engine: Path) -> Path:
    source = read_manifest(engine).source
    for path in sorted(STUDENTS.glob("*.safetensors")):
        if sha256(path) == source:
            return path
    raise UserError(f"engine {str(engine)!r} was made from none of engines/students; say --checkpoint")


def _verify(args: argparse.Namespace) -> str:
    from engines.network import from_student
    from engines.published import from_published_as
    from engines.verify import verified

    manifest = read_manifest(args.engine)
    backend_class(manifest.backend).probe()
    checkpoint = args.checkpoint or _checkpoint_of(args.engine)
    if manifest.future is not None:
        network = from_published_as(manifest, checkpoint)
    else:
        network = from_student(checkpoint, manifest.form, manifest.streams, manifest.precision)
    return _said(args.engine, verified(args.engine, network, args.seconds))


def _list() -> str:
    from rtchord.engine import folders, load

    lines = []
    for folder in folders():
        try:
            manifest = load(folder).manifest
        except UserError as error:
            lines.append(f"{folder}: cannot be used: {error}")
            continue
        check = manifest.check
        lines.append(
            f"{folder}: {manifest.name}, {manifest.backend} {manifest.precision}, {manifest.form}, "
            f"{manifest.streams} stream{'s' * (manifest.streams > 1)}, "
            f"verified (at most {check.max_error:.1e} over {check.seconds:.0f} s)"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with told_in_a_sentence("engines"):
        if args.command in ("export", "build", "import-published"):
            print(_build(args))
        elif args.command == "verify":
            print(_verify(args))
        elif args.command == "list":
            print(_list())
        elif args.command == "bench":
            from engines.bench import SHIPPED, bench, table

            result = bench(SHIPPED, args.engine, args.steps)
            print(json.dumps(result, indent=1) if args.json else table(result))
        else:
            from engines.describe import describe

            manifest = describe(args.engine, args.delay, args.scores)
            print(f"{args.engine}: {manifest.name}, delay {manifest.delay} s, scores of {len(manifest.scores)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
