"""What OpenVINO computes a folder in: 16-bit graphs as float32 ones, bytes as they are or as bfloat16."""

import statistics

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from page4d.precision import Precision
from page4d.system.cpu import multiplies_signed
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino import library
from page4d_engines.ort.cpu_engine import OrtEngine
from tests.support.stage_arrays import arrays_of

pytestmark = pytest.mark.skipif(not library.is_installed(), reason="OpenVINO is not installed")


def nodes_of(model):
    for node in model.get_ordered_ops():
        yield node
        if node.get_type_name() == "TensorIterator":
            yield from nodes_of(node.get_function())


def product_of(path, nodes, x, constants):
    """`y` of OpenVINO for `x` `[1,64,384]` and a matrix of bytes around 128, and that matrix in float64 `[384,128]`.

    Args:
        path: of the graph's file.
        nodes: from `x`, `numbers`, `scale` and `constants` to `y`.
        x: float32.
        constants: further ones, by name.
    """
    from page4d_engines.openvino.device import core
    from page4d_engines.openvino.engine import settings as hints_of

    random = np.random.default_rng(0)
    numbers = random.integers(1, 256, (384, 128), np.uint8)
    scale = random.uniform(0.01, 0.02, 128).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 64, 128))],
        [
            numpy_helper.from_array(array, name)
            for name, array in {"numbers": numbers, "scale": scale, **constants}.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    compiled = core().compile_model(str(path), "CPU", hints_of("CPU", Precision.FLOAT32, 1))
    return compiled([x])[0], (numbers.astype(np.float64) - 128) * scale


def product_of_bytes(activation):
    """The nodes of an int8 layer that reads `activation`."""
    return [
        helper.make_node("DynamicQuantizeLinear", [activation], ["bytes", "range", "zero"]),
        helper.make_node("MatMulInteger", ["bytes", "numbers", "zero", "middle"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["range", "scale"], ["scales"]),
        helper.make_node("Mul", ["wide", "scales"], ["y"]),
    ]


MIDDLE = {"middle": np.array(128, np.uint8)}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("variant", ["default", "memory"])
def test_a_16_bit_graph_becomes_the_float32_graph_of_its_weights(made, variant, precision):
    """Nothing of 16 bits is left, in loops' bodies either; results are those of ONNX Runtime, which widens, too."""
    from page4d_engines.openvino.device import core
    from page4d_engines.openvino.engine import OpenVinoEngine
    from page4d_engines.openvino.engine import settings as hints_of
    from page4d_engines.openvino.wide_graph import widen

    folder = EngineFolder.open(made(variant, precision).folder)
    loops = 0
    for entry in folder.manifest.stages:
        model = core().read_model(folder.file(entry.file))
        types = library.library().Type
        narrow = {types.f16, types.bf16}
        assert any(value.get_element_type() in narrow for node in nodes_of(model) for value in node.outputs())
        widen(model)
        assert not any(value.get_element_type() in narrow for node in nodes_of(model) for value in node.outputs())
        loops += sum(node.get_type_name() == "TensorIterator" for node in nodes_of(model))
        inputs = arrays_of(entry.inputs)
        results = []
        for engine in (
            OpenVinoEngine(folder, entry, "CPU", hints_of("CPU", Precision.FLOAT32, 1)),
            OrtEngine.of_stage(folder, entry),
        ):
            outputs = {name: np.zeros_like(array) for name, array in arrays_of(entry.outputs).items()}
            engine.bind(inputs, outputs)()
            results.append(outputs)
        for name, expected in results[1].items():
            error = np.linalg.norm(results[0][name] - expected) / np.linalg.norm(expected)
            assert error < 1e-5, (entry.name, name)
    assert (loops > 0) == (variant == "memory"), "the epipolar prior is a loop"


@pytest.mark.skipif(not library.has_bfloat16(), reason="this CPU does not compute in bfloat16")
def test_a_block_of_bfloat16_keeps_its_last_sums_in_float32(made):
    from page4d_engines.openvino.engine import OpenVinoEngine
    from page4d_engines.openvino.engine import settings as hints_of

    folder = EngineFolder.open(made("default", "bfloat16").folder)
    entry = folder.manifest.stage("time_sa.0")
    inputs, outputs = arrays_of(entry.inputs), arrays_of(entry.outputs)
    OpenVinoEngine(folder, entry, "CPU", hints_of("CPU", Precision.BFLOAT16, 1)).bind(inputs, outputs)()
    (tokens,) = outputs.values()
    assert np.mean(tokens.view(np.uint32) & 0xFFFF != 0) > 0.9, "a bfloat16 has no low bits"


@pytest.mark.skipif(not library.has_bfloat16(), reason="this CPU does not compute in bfloat16")
def test_a_graph_compiled_for_float32_is_not_taken_for_bfloat16(made, monkeypatch, tmp_path):
    """Weights that bfloat16 holds exactly give one graph in both; with AMX, OpenVINO confuses the two in its cache."""
    from page4d_engines.openvino.engine import OpenVinoEngine
    from page4d_engines.openvino.engine import settings as hints_of

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = EngineFolder.open(made("default", "bfloat16").folder)
    entry = folder.manifest.stage("encoder")
    results = []
    for precision in (Precision.FLOAT32, Precision.BFLOAT16):
        inputs, outputs = arrays_of(entry.inputs), arrays_of(entry.outputs)
        OpenVinoEngine(folder, entry, "CPU", hints_of("CPU", precision, 1)).bind(inputs, outputs)()
        results.append(outputs["tokens"])
    assert 1e-4 < np.linalg.norm(results[1] - results[0]) / np.linalg.norm(results[0]) < 2e-2


@pytest.mark.parametrize(
    ("capabilities", "tiles", "float16_tiles", "float16", "bfloat16", "int8"),
    [
        (["FP32", "INT8"], False, False, "float32", "float32", "float32"),
        (["FP32", "BF16", "INT8"], False, False, "bfloat16", "bfloat16", "bfloat16"),
        (["FP32", "FP16", "BF16"], False, False, "float16", "bfloat16", "bfloat16"),
        (["FP32", "FP16", "BF16"], True, False, "bfloat16", "bfloat16", "bfloat16"),
        (["FP32", "FP16", "BF16"], True, True, "float16", "bfloat16", "bfloat16"),
        (["FP32", "FP16"], False, False, "float16", "float32", "float32"),
    ],
)
def test_16_bits_are_what_a_cpu_computes_fast(monkeypatch, capabilities, tiles, float16_tiles, float16, bfloat16, int8):
    from page4d_engines.openvino import device

    class Core:
        def get_property(self, name, of):
            assert (name, of) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return capabilities

    monkeypatch.setattr(device, "core", Core)
    monkeypatch.setattr(device, "has_bfloat16_tiles", lambda: tiles)
    monkeypatch.setattr(device, "has_float16_tiles", lambda: float16_tiles)
    expected = {"float32": "float32", "float16": float16, "bfloat16": bfloat16, "int8": int8}
    got = {name: str(device.computing_precision(Precision(name), "CPU")) for name in expected}
    assert got == expected


def test_activations_of_layers_that_stay_in_floating_point_are_not_quantised(tmp_path):
    """int8 engines store such layers' weights as bytes, which OpenVINO would take for products of bytes."""
    nodes = [
        helper.make_node("DequantizeLinear", ["numbers", "scale", "zeros"], ["weight"], axis=1),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ]
    x = np.random.default_rng(1).standard_normal((1, 64, 384), dtype=np.float32)
    y, matrix = product_of(tmp_path / "linear.onnx", nodes, x, {"zeros": np.full(128, 128, np.uint8)})
    np.testing.assert_allclose(y, x.astype(np.float64) @ matrix, rtol=0, atol=1e-4 * np.abs(y).max())


@pytest.mark.skipif(not multiplies_signed(), reason="this CPU has no exact products of signed bytes")
@pytest.mark.parametrize("gelu", [False, True])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 4), outliers=st.integers(0, 3))
def test_an_activation_has_a_range_per_row_and_is_not_clipped(tmp_path_factory, gelu, seed, spread, outliers):
    """So no element is further off than half a step of its row, times the column of the matrix."""
    from page4d_engines.openvino import int8

    random = np.random.default_rng(seed)
    x = random.standard_normal((1, 64, 384)) * 10 ** random.uniform(-spread, spread, (1, 64, 1))
    x[:, 0] = 0
    x[:, random.integers(1, 64, outliers), random.integers(0, 384, outliers)] *= 100
    x = x.astype(np.float32)
    nodes = [helper.make_node("Gelu", ["x"], ["activated"])] if gelu else []
    path = tmp_path_factory.mktemp("linear") / "linear.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "multiplies_bytes", lambda: True)
        y, matrix = product_of(path, nodes + product_of_bytes("activated" if gelu else "x"), x, MIDDLE)
    exact = x.astype(np.float64)
    if gelu:
        exact *= np.vectorize(statistics.NormalDist().cdf)(exact)
        step = np.maximum(exact.max(-1, keepdims=True), 0.68) * 1.25 / 255
    else:
        step = np.abs(exact).max(-1, keepdims=True) / 127
    rounding = 1e-5 * np.abs(exact) @ np.abs(matrix)  # of float32
    assert np.all(np.abs(y - exact @ matrix) <= step / 2 * np.abs(matrix).sum(0) + rounding)
    error = np.linalg.norm(y - exact @ matrix, axis=-1) / np.maximum(np.linalg.norm(exact @ matrix, axis=-1), 1e-30)
    assert gelu or np.median(error) < 2e-2


def product_in_range(scale, zero):
    """The nodes of an int8 layer with a static range, and their constants."""
    nodes = product_of_bytes("x")
    nodes[0] = helper.make_node("QuantizeLinear", ["x", "range", "zero"], ["bytes"])
    return nodes, {**MIDDLE, "range": np.array(scale, np.float32), "zero": np.array(zero, np.uint8)}


@pytest.mark.skipif(not multiplies_signed(), reason="this CPU has no exact products of signed bytes")
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-4, 10), zero=st.integers(0, 255))
def test_an_activation_with_a_static_range_is_rounded_to_it_and_cut_off(tmp_path_factory, seed, scale, zero):
    from page4d_engines.openvino import int8

    random = np.random.default_rng(seed)
    x = (scale * random.uniform(-350, 350, (1, 64, 384))).astype(np.float32)
    nodes, constants = product_in_range(scale, zero)
    path = tmp_path_factory.mktemp("linear") / "linear.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "multiplies_bytes", lambda: True)
        y, matrix = product_of(path, nodes, x, constants)
    step = np.float64(np.float32(scale))
    rounded = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    # where x lies between two steps, float32 may choose the other one
    between = np.abs(np.abs(x / step % 1) - 0.5) < 1e-4
    allowed = step * between @ np.abs(matrix) + 1e-5 * np.abs(rounded) @ np.abs(matrix)
    assert np.all(np.abs(y - rounded @ matrix) <= allowed + 1e-30)


def attention_with_static_ranges(scales, shape):
    """A graph of an attention of `shape` `[Z,A,n,D]` whose queries and keys are rounded."""
    nodes = []
    for name in ("q", "k"):
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_scale", "middle"], [f"{name}_bytes"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_bytes", f"{name}_scale", "middle"], [f"{name}_rounded"])
        )
    nodes.append(helper.make_node("BiasedAttention", ["q_rounded", "k_rounded", "v"], ["y"], domain="page4d"))
    constants = {**MIDDLE, "q_scale": np.array(scales[0], np.float32), "k_scale": np.array(scales[1], np.float32)}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("page4d", 1)])


@pytest.mark.parametrize("multiplies", [False, True])
def test_queries_and_keys_with_static_ranges_are_rounded_where_bytes_are_multiplied(monkeypatch, tmp_path, multiplies):
    from page4d_engines.openvino import int8
    from page4d_engines.openvino.device import core
    from page4d_engines.openvino.engine import settings as hints_of

    if multiplies and not multiplies_signed():
        pytest.skip("this CPU has no exact products of signed bytes")
    monkeypatch.setattr(int8, "multiplies_bytes", lambda: multiplies)
    shape, scales = (2, 3, 64, 64), (0.02, 0.03)  # some values are cut off: 127 steps are 2.5 and 3.8
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape, dtype=np.float32) for _ in range(3)]
    onnx.save(attention_with_static_ranges(scales, shape), tmp_path / "attention.onnx")
    compiled = core().compile_model(str(tmp_path / "attention.onnx"), "CPU", hints_of("CPU", Precision.FLOAT32, 1))
    y = compiled(arrays)[0]

    def attention(queries, keys):
        logits = queries @ keys.swapaxes(2, 3) / 8
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ arrays[2].astype(np.float64)

    exact = [array.astype(np.float64) for array in arrays[:2]]
    rounded = [np.clip(np.round(array / step), -128, 127) * step for array, step in zip(exact, scales, strict=True)]
    distances = [np.linalg.norm(y - attention(*factors)) for factors in (exact, rounded)]
    near, far = (distances[1], distances[0]) if multiplies else distances
    assert near < 1e-4 * np.linalg.norm(y) < 0.1 * far


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_bytes_are_multiplied_where_that_is_exact_and_faster(monkeypatch, tmp_path, signed, tiles):
    """Elsewhere the matrix is given in floating point, so only the CPU's own type rounds."""
    from page4d_engines.openvino import device, int8

    monkeypatch.setattr(int8, "has_bfloat16_tiles", lambda: tiles)
    monkeypatch.setattr(int8, "multiplies_signed", lambda: signed)
    bytes_too = signed and not tiles
    assert ("and int8" in device.described("CPU", Precision.INT8, Precision.BFLOAT16)) == bytes_too
    if bytes_too and not multiplies_signed():
        pytest.skip("this CPU has no exact products of signed bytes")
    x = np.random.default_rng(1).standard_normal((1, 64, 384), dtype=np.float32)
    y, matrix = product_of(tmp_path / "linear.onnx", product_of_bytes("x"), x, MIDDLE)
    exact = x.astype(np.float64) @ matrix
    error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    assert 1e-3 < error < 2e-2 if bytes_too else error < 1e-6
    nodes, constants = product_in_range(np.abs(x).max() / 127, 128)
    y, _ = product_of(tmp_path / "static.onnx", nodes, x, constants)
    error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    assert 1e-3 < error < 2e-2 if bytes_too else error < 1e-6
