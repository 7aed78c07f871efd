"""Every operator of the exported programs has a TensorRT converter, so that the whole graph can become one engine.

`torch_tensorrt.json` is read off the source of the version that it names: operators with converters
(aten_ops_converters, ops_evaluators), and which operators its lowering decomposes or keeps
(lowering/_decomposition_groups). torch-tensorrt itself cannot be imported without a CUDA build of torch.
"""

import json
from pathlib import Path

import pytest
import torch
from torch._decomp import get_decompositions
from torch._export.utils import _collect_all_valid_cia_ops_for_aten_namespace, _get_decomp_for_cia

from engines.export import program_of
from engines.network import from_student

KNOWN = json.loads((Path(__file__).parent / "torch_tensorrt.json").read_text())
GONE = {
    "<built-in function getitem>",  # evaluated while it converts
    "aten._assert_tensor_metadata.default",  # removed by its lowering (passes/remove_assert_nodes)
    "aten._unsafe_view.default",  # replaced in its lowering (lowering/_decompositions) by a reshape
    "aten.alias.default",  # replaced there by nothing
}


def operator(name: str) -> object:
    found = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def lowered(program: torch.export.ExportedProgram) -> set[str]:
    """Names of the operators that are left for converters."""
    table = get_decompositions([operator(name) for name in KNOWN["decomposed"]])
    kept = {operator(name) for name in KNOWN["kept"]}
    table |= {op: _get_decomp_for_cia(op) for op in _collect_all_valid_cia_ops_for_aten_namespace() if op not in kept}
    nodes = program.run_decompositions(table).graph.nodes
    return {str(node.target) for node in nodes if node.op == "call_function"} - GONE


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("form", "streams"), [("step", 1), ("step", 8), ("window", 1)])
def test_every_operator_has_a_converter(weights: Path, form: str, streams: int, precision: str) -> None:
    found = lowered(program_of(from_student(weights, form, streams, precision)))
    assert "aten.linear.default" in found, "what is looked at is the network"
    assert found <= set(KNOWN["converters"])


def test_an_operator_without_a_converter_is_seen() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x).real

    assert not lowered(torch.export.export(Odd(), (torch.eye(3),))) <= set(KNOWN["converters"])
