"""One node, three meanings that agree: the function body, the lowering for ONNX Runtime, the op in PyTorch."""

import concurrent.futures
import itertools
import multiprocessing
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from page4d.network.attention import BiasedRows, EpipolarPrior, biased_attention, segment_attention
from page4d.network.presence import ABSENT
from page4d_engines.ort.lowering import lower
from page4d_export.tracing.onnx_functions import function_for
from tests.support.examples import examples

PLUGIN = {"plugin_version": "1", "plugin_namespace": "page4d"}
MEANINGS = (0, 1, 8)  # the body; lowered for a CPU, for a GPU


def node_model(op, values, constants, head_dim, **attributes):
    """A model of one node."""
    names = [*values, *constants]
    node = helper.make_node(op, names, ["out"], domain="page4d", **PLUGIN, **attributes)
    types = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int32): onnx.TensorProto.INT32}
    inputs = [helper.make_tensor_value_info(name, types[array.dtype], array.shape) for name, array in values.items()]
    output = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, values["q"].shape)
    graph = helper.make_graph(
        [node], "one", inputs, [output], [numpy_helper.from_array(array, name) for name, array in constants.items()]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("page4d", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[function_for(node, head_dim)])
    onnx.checker.check_model(model, full_check=True)
    return model


def run(op, values, constants, head_dim, lowered, **attributes):
    """What the node gives for the values.

    By its function body, or lowered with heads of a multiple of `lowered` channels."""
    model = node_model(op, values, constants, head_dim, **attributes)
    if lowered:
        model = lower(model, rounding=False, channels=lowered)
        assert all(not n.op_type.endswith("Attention") for n in model.graph.node)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, values)[0]


def draw(shape, seed):
    z, a, n, m, d = shape
    rng = np.random.default_rng(seed)
    sizes = {"q": (z, a, n, d), "k": (z, a, m, d), "v": (z, a, m, d), "key_bias": (z, m)}
    values = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    values["key_bias"] *= 3
    return values


def agree(result, expected):
    np.testing.assert_allclose(result, expected, rtol=2e-4, atol=2e-5)


shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 20), st.integers(1, 24), st.sampled_from([8, 32, 64])
)


@examples(15)
@given(shapes, st.booleans(), st.integers(0, 99))
def test_biased_attention(shape, has_bias, seed):
    values = draw(shape, seed)
    if not has_bias:
        del values["key_bias"]
    expected = biased_attention(*(torch.from_numpy(array).double() for array in values.values())).numpy()
    for lowered in MEANINGS:
        agree(run("BiasedAttention", values, {}, shape[-1], lowered), expected)


@examples(25)
@given(shapes, st.floats(0, 1), st.integers(0, 99))
def test_keys_of_absent_images_are_as_if_they_were_not_there(shape, share, seed):
    """In every meaning; where none is there, what comes out is finite."""
    values = draw(shape, seed)
    absent = np.random.default_rng(seed).random(values["key_bias"].shape) < share
    absent[0] |= share == 1
    values["key_bias"] += np.where(absent, np.float32(ABSENT), 0)
    results = [run("BiasedAttention", values, {}, shape[-1], lowered) for lowered in MEANINGS]
    wide = {name: torch.from_numpy(array).double() for name, array in values.items()}
    for z, keys in enumerate(~absent):
        if not keys.any():
            assert all(np.isfinite(result[z]).all() for result in results)
            continue
        k, v, bias = wide["k"][z : z + 1, :, keys], wide["v"][z : z + 1, :, keys], wide["key_bias"][z : z + 1, keys]
        for result in results:
            agree(result[z : z + 1], biased_attention(wide["q"][z : z + 1], k, v, bias).numpy())


@examples(15)
@given(shapes, st.integers(2, 6), st.integers(1, 4), st.sampled_from([1.0, 64.0]), st.integers(0, 99))
def test_biased_rows(shape, period, leading, gain, seed):
    z, a, periods, m, d = shape
    rows = BiasedRows(period, min(leading, period - 1), gain)
    values = draw((z, a, periods * period, m, d), seed)
    values["key_bias"] /= max(gain / 4, 1)
    expected = biased_attention(*(torch.from_numpy(array).double() for array in values.values()), rows=rows).numpy()
    for lowered in MEANINGS:
        result = run(
            "BiasedAttention",
            values,
            {},
            d,
            lowered,
            row_period=rows.period,
            row_leading=rows.leading,
            row_gain=rows.gain,
        )
        agree(result, expected)


@st.composite
def segmented(draw_):
    """Random ranges, by group; `full` makes every group read every key once, which is lowered in another way."""
    groups, rows, m, full = (
        draw_(st.integers(1, 4)),
        draw_(st.integers(1, 4)),
        draw_(st.integers(1, 16)),
        draw_(st.booleans()),
    )
    segments, pointers = [], [0]
    for _ in range(groups):
        cuts = sorted(set(draw_(st.lists(st.integers(0, m), max_size=3))) | {0, m})
        pieces = [(a, b - a) for a, b in itertools.pairwise(cuts)]
        if not full:
            chosen = draw_(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
            pieces = [piece for piece, keep in zip(pieces, chosen, strict=True) if keep] or pieces[:1]
        segments += draw_(st.permutations(pieces))
        pointers.append(len(segments))
    return groups * rows, m, np.array(pointers, np.int32), np.array(segments, np.int32).reshape(-1, 2)


@examples(25)
@given(segmented(), st.booleans(), st.integers(0, 99))
def test_segment_attention(case, has_segment_bias, seed):
    n, m, seg_ptr, seg = case
    values = draw((2, 3, n, m, 16), seed)
    constants = {"seg_ptr": seg_ptr, "seg": seg}
    if has_segment_bias:
        constants["segment_bias"] = np.random.default_rng(seed).standard_normal((3, len(seg))).astype(np.float32) * 2
    tensors = [torch.from_numpy(array) for array in (*values.values(), *constants.values())]
    expected = segment_attention(*tensors).numpy()
    for lowered in MEANINGS:
        agree(run("SegmentAttention", values, constants, 16, lowered), expected)


@examples(12)
@given(st.integers(1, 3), st.integers(1, 6), st.floats(1, 20), st.integers(0, 99))
def test_epipolar_prior(views, patches, band, seed):
    rng = np.random.default_rng(seed)
    tokens = patches + 2
    values = draw((2, 2, views * tokens, views * tokens, 16), seed)
    values["fundamental"] = rng.standard_normal((views, views, 3, 3)).astype(np.float32)
    values["fundamental"][range(views), range(views)] = 0
    values["centres"] = np.concatenate(
        [np.zeros((2, 3)), np.c_[rng.random((patches, 2)) * 40, np.ones(patches)]]
    ).astype(np.float32)
    q, k, v, bias, fundamental, centres = (torch.from_numpy(array) for array in values.values())
    expected = biased_attention(q, k, v, bias, EpipolarPrior(fundamental, centres, band, 2.5)).numpy()
    for lowered in MEANINGS:
        agree(run("BiasedAttention", values, {}, 16, lowered, epipolar_band=band, epipolar_penalty=2.5), expected)


def test_epipolar_loop_cuts_queries_into_parts(monkeypatch):
    """As at real sizes, where a part is a fraction of the queries and the last is padded."""
    from page4d_engines.ort import attention_lowering

    monkeypatch.setattr(attention_lowering, "_LOGITS_BYTES", 4 * 2 * 21 * 4)  # four rows of two heads and 21 keys
    test_epipolar_prior.hypothesis.inner_test(3, 5, 4.0, 7)


def cases(frames, tokens, heads):
    """Every form of attention over frames x tokens keys."""
    n = frames * tokens
    values = draw((1, heads, n, n, 64), 0)
    numbers = np.arange(frames, dtype=np.int32)
    all_pairs = np.stack([np.tile(numbers, frames) * tokens, np.full(frames**2, tokens, np.int32)], 1).astype(np.int32)
    neighbours = [[f for f in (g - 1, g, g + 1) if 0 <= f < frames] for g in range(frames)]
    near = np.array([(f * tokens, tokens) for group in neighbours for f in group], np.int32)
    ends = np.cumsum([0, *map(len, neighbours)]).astype(np.int32)
    alibi = {
        "seg_ptr": (np.arange(frames + 1) * frames).astype(np.int32),
        "seg": all_pairs,
        "segment_bias": np.zeros((heads, frames**2), np.float32),
    }
    lines = {"fundamental": np.ones((frames, frames, 3, 3), np.float32), "centres": np.ones((tokens, 3), np.float32)}
    return {
        "plain": ("BiasedAttention", {k: v for k, v in values.items() if k != "key_bias"}, {}, {}),
        "biased": ("BiasedAttention", values, {}, {}),
        "rows": ("BiasedAttention", values, {}, {"row_period": tokens, "row_leading": 5, "row_gain": 64.0}),
        "alibi": ("SegmentAttention", values, alibi, {}),
        "dilated": ("SegmentAttention", values, {"seg_ptr": ends, "seg": near}, {}),
        "epipolar": ("BiasedAttention", values | lines, {}, {"epipolar_band": 3.0, "epipolar_penalty": 4.0}),
    }


SLOWER = ("plain", "biased", "alibi", "epipolar")  # a process each


def added_memory(case):
    """Bytes that a lowered node takes at its peak beyond its inputs, in a fresh process."""
    op, values, constants, attributes = cases(6, 1024, 4)[case]
    model = lower(node_model(op, values, constants, 64, **attributes), rounding=False)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def status(key):
        return next(
            int(line.split()[1]) * 1024
            for line in pathlib.Path("/proc/self/status").read_text().splitlines()
            if line.startswith(key)
        )

    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    session.run(None, values)
    return status("VmHWM") - before


@pytest.mark.parametrize("case", ["rows", "dilated", *(pytest.param(case, marks=pytest.mark.slow) for case in SLOWER)])
def test_memory_is_linear(case):
    """6144 keys, 4 heads: a tensor of all logits is 604 MB, one head's 151; q, k, v and the output are 6 MB each."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(added_memory, case).result() < 150e6
