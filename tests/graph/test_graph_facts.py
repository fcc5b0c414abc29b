"""Facts about a graph are counted, not guessed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graph_nets import NETS

from edgeopt.graph.facts import graph_facts


@pytest.mark.parametrize("net", ["mlp", "pooled", "vit"])
def test_parameters_are_those_of_the_torch_model(case, net):
    expected = sum(p.numel() for p in NETS[net][0]().parameters())
    assert graph_facts(case(net).float_path).parameters == expected
    assert graph_facts(case(net).int8_path).parameters == expected


def test_macs_are_counted_for_one_sample(case):
    assert graph_facts(case("mlp").float_path).macs == 20 * 64 + 64 * 32 + 32 * 10
    pooled = 8 * 8 * 8 * 9 + 4 * 4 * 16 * 8 * 9 + 64 * 32 + 32 * 10
    assert graph_facts(case("pooled").float_path).macs == pooled
    assert graph_facts(case("pooled").int8_path).macs == pooled


def test_attention_counts_products_of_activations(case):
    tokens, width = 17, 32
    linear = tokens * width * (3 * width + width + 2 * width + 2 * width)
    attention = 2 * tokens * tokens * width
    assert graph_facts(case("vit").float_path).macs == 2 * (linear + attention) + 16 * 192 * width + 10 * width


def test_the_interface_is_read_as_written(case):
    facts = graph_facts(case("resnet").int8_path)
    assert facts.inputs == case("resnet").inputs
    assert facts.outputs == case("resnet").outputs
    assert facts.opset == 20


def test_the_quantized_share_tells_int8_from_float(case):
    assert graph_facts(case("resnet").float_path).quantized_ops == 0.0
    assert graph_facts(case("resnet").int8_path).quantized_ops == 1.0
    assert graph_facts(case("resnet").int8_path).ops["Conv"] == 21


def test_int8_weights_take_a_quarter(case):
    ratio = (
        graph_facts(case("resnet").int8_path).initializer_bytes
        / graph_facts(case("resnet").float_path).initializer_bytes
    )
    assert 0.25 < ratio < 0.3


def test_the_onnx_side_imports_no_torch():
    modules = "facts io half parity taps layers differences dialects qdq passes.base passes.simplify"
    code = "import sys\n" + "\n".join(f"import edgeopt.graph.{m}" for m in modules.split())
    code += "\nfrom edgeopt.graph.dialects import DIALECTS\n[DIALECTS[n] for n in DIALECTS]\n"
    code += "print([m for m in ('torch', 'onnxruntime', 'openvino') if m in sys.modules])"
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
