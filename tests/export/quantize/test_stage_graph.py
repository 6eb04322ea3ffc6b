"""The linear layers of a graph, and the shifts that centre their inputs."""

import onnx
import pytest
from onnx import helper

from page4d.accuracy import compare
from page4d_export.quantize import fp8, int8
from tests.support.linear_block import block, graph_of, observe, quantized, run, without_means


def test_the_graph_finds_what_stands_before_a_layer():
    model, _ = block()
    graph = graph_of(model)
    q, k, v, proj, fc1, fc2 = graph.linears
    assert [linear.weight.split("/")[0] for linear in graph.linears] == ["b.attn.qkv.weight"] * 3 + [
        "b.attn.proj.weight",
        "b.mlp.fc1.weight",
        "b.mlp.fc2.weight",
    ]
    assert [graph.norm_before(linear).outputs[0].name for linear in (q, k, v, fc1)] == ["norm1.out"] * 3 + ["norm2.out"]
    assert graph.norm_before(proj) is graph.norm_before(fc2) is None
    assert graph.values_before(proj) is v and graph.values_before(fc2) is graph.values_before(q) is None


def test_a_norm_that_others_read_is_not_shifted():
    model, _ = block()
    model.graph.node.append(helper.make_node("Identity", ["norm1.out"], ["elsewhere"]))
    graph = graph_of(model)
    assert graph.norm_before(graph.linears[0]) is None and graph.norm_before(graph.linears[4]) is not None


@pytest.mark.parametrize(("scheme", "gain"), [(int8, 0.9), (fp8, 0.97)])
def test_shifts_make_the_error_smaller(tmp_path, scheme, gain):
    """Where tokens have much in common, errors in it do not average out: without the shifts they are larger."""
    model, x = block(rows=200)
    expected, seen, _ = observe(model, x, tmp_path)
    unshifted = onnx.ModelProto()
    unshifted.CopyFrom(model)
    quantized(scheme, model, seen)
    quantized(scheme, unshifted, without_means(seen))
    errors = [compare(run(graph, x, tmp_path)["out"], expected).relative_l2 for graph in (model, unshifted)]
    assert errors[0] < gain * errors[1]
