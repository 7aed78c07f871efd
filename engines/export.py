"""A network to files: ONNX and torch.export's program, with static shapes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import onnx
import torch

from engines.network import Network


def write_onnx(network: Network, path: Path) -> None:
    """The network as ONNX, opset of the exporter's choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, about itself
        program = torch.onnx.export(
            network.module,
            tuple(network.inputs.values()),
            input_names=list(network.inputs),
            output_names=network.outputs,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:  # traces of where the code lay on the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def write_int8(network: Network, path: Path) -> None:
    """As ONNX, with the weights of matrix products in 7 bits; their inputs are rounded to 8 at each step.

    With weights of 8 bits, processors without VNNI add products in 16 bits, which overflow: the same file would say
    other chords there.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        exact = Path(scratch) / "model.onnx"
        write_onnx(network, exact)
        model = onnx.load(exact)
        del model.graph.value_info[:]  # shapes that the quantizer would have to agree with
        onnx.save_model(model, exact)
        logging.disable(logging.WARNING)  # its advice is about models of other kinds
        try:
            quantize_dynamic(
                exact, path, weight_type=QuantType.QInt8, reduce_range=True, op_types_to_quantize=["MatMul"]
            )
        finally:
            logging.disable(logging.NOTSET)


def program_of(network: Network, device: str = "cpu") -> torch.export.ExportedProgram:
    """torch.export's program of the network, of ATen operators only."""
    inputs = tuple(tensor.to(device) for tensor in network.inputs.values())
    with torch.no_grad():
        return torch.export.export(network.module.to(device), inputs, strict=False)


def write_program(network: Network, path: Path) -> None:
    """The program as a .pt2 file."""
    program = program_of(network)
    for node in program.graph.nodes:  # traces of where the code lay on the exporting machine
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(key, None)
    torch.export.save(program, path)
