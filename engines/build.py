"""A network to an engine folder. Nothing is left behind where a build or its check fails."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.export import program_of, write_int8, write_onnx, write_program
from engines.network import Network
from engines.verify import SECONDS, verified
from rtchord.engine import backend_class, load, own_folder, read_manifest, sha256, write_manifest
from rtchord.engine.base import reason_of
from rtchord.engine.cuda import cuda_torch
from rtchord.engine.manifest import Manifest
from rtchord.engine.tensorrt import TensorRtEngine, TensorRtRtxEngine
from rtchord.errors import UserError
from train.files import check_place


def as_onnx(network: Network, folder: Path) -> None:
    write = write_int8 if network.draft.precision == "int8" else write_onnx
    write(network, folder / "model.onnx")


def as_program(network: Network, folder: Path) -> None:
    write_program(network, folder / "model.pt2")


def as_both(network: Network, folder: Path) -> None:
    as_onnx(network, folder)
    as_program(network, folder)


def as_tensorrt(network: Network, folder: Path) -> None:
    """By torch-tensorrt, the whole graph in one serialised engine: an operator without a converter is an error."""
    who = "TensorRT engine"
    cuda_torch(who)
    TensorRtEngine.probe()
    try:
        from torch_tensorrt import dynamo
    except Exception as error:  # whatever a half-installed one raises
        raise UserError(
            f"{who}: torch-tensorrt cannot be used ({reason_of(error)}); `pip install 'rtchord[tensorrt]'` "
            "or use --engine onnx"
        ) from None
    inputs = tuple(tensor.cuda() for tensor in network.inputs.values())
    try:
        blob = dynamo.convert_exported_program_to_serialized_trt_engine(
            program_of(network, "cuda"), arg_inputs=inputs, **tensorrt_options()
        )
    except Exception as error:  # many types, none public
        raise UserError(f"{who}: the build failed ({reason_of(error)}); use --backend cuda or onnx") from None
    (folder / "model.engine").write_bytes(blob)


def tensorrt_options() -> dict[str, Any]:
    """For torch-tensorrt: types as in the program, no fallback, fp32 without TF32, timings kept for the next build."""
    here = TensorRtEngine.probe()
    key = "".join(c if c.isalnum() or c in ".-" else "_" for c in f"{here.gpu}-{here.capability}-{here.library}")
    timings = own_folder() / ".timings"
    timings.mkdir(parents=True, exist_ok=True)
    return {
        "use_explicit_typing": True,
        "require_full_compilation": True,
        "min_block_size": 1,
        "decompose_attention": True,
        "disable_tf32": True,
        "optimization_level": 5,
        "timing_cache_path": str(timings / f"{key}.bin"),
    }


def as_tensorrt_rtx(network: Network, folder: Path) -> None:
    """By TensorRT-RTX's own parser, from ONNX, in the types of the ONNX file. Needs no GPU."""
    trt = TensorRtRtxEngine.library()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        write_onnx(network, path)
        if not parser.parse(path.read_bytes()):
            raise UserError(f"TensorRT-RTX engine: it cannot read the ONNX file ({parser.get_error(0).desc()})")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    blob = builder.build_serialized_network(definition, config)
    if blob is None:
        raise UserError("TensorRT-RTX engine: the build failed; see the messages above, or use --backend onnx")
    (folder / "model.engine").write_bytes(bytes(blob))


WRITERS: dict[str, Callable[[Network, Path], None]] = {
    "onnx": as_onnx,
    "openvino": as_onnx,
    "cuda": as_program,
    "tensorrt": as_tensorrt,
    "tensorrt-rtx": as_tensorrt_rtx,
}


def default_target(manifest: Manifest) -> Path:
    """Where an engine goes if no folder was named: the user's own, one folder for each kind."""
    parts = [manifest.name, manifest.backend, manifest.precision]
    parts += [manifest.form] * (manifest.form != "step") + [f"{manifest.streams}-streams"] * (manifest.streams > 1)
    return own_folder() / "-".join(parts)


def build(
    network: Network,
    backend: str,
    target: Path | None = None,
    replace_old: bool = False,
    seconds: float = SECONDS,
    write: Callable[[Network, Path], None] | None = None,
) -> tuple[Path, Manifest, str]:
    """Write an engine folder and verify it where this machine can run it.

    Returns the folder, its manifest, and why it could not be verified here (empty if it was). An engine in the default
    folder is replaced where it no longer loads (another GPU or version); `replace_old` replaces any.
    """
    write = write or WRITERS[backend]
    if network.draft.precision == "int8" and (backend, write) != ("onnx", as_onnx):
        raise UserError("precision int8 is for `build --backend onnx` only")
    draft = network.draft.model_copy(update={"backend": backend})
    folder = target or default_target(draft)
    check_place(folder, folder=True)
    if folder.exists() and not replace_old and (target is not None or _loads(folder)):
        raise UserError(f"{str(folder)!r} exists; choose another folder or give --replace")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(network, temporary)
        files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        manifest = write_manifest(temporary, draft.model_copy(update={"files": files}))
        try:
            backend_class(backend).probe()
        except UserError as error:
            why = str(error)
        else:
            manifest, why = verified(temporary, replace(network, draft=manifest), seconds), ""
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder, manifest, why


def _loads(folder: Path) -> bool:
    try:
        load(folder)
    except UserError:
        return False
    return read_manifest(folder).check is not None
