"""What OpenVINO computes a folder in: 16-bit graphs as float32 ones, bytes as they are or as bfloat16."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from page4d.precision import Precision
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino import library
from page4d_engines.ort.cpu_engine import OrtEngine

pytestmark = pytest.mark.skipif(not library.is_installed(), reason="OpenVINO is not installed")


def nodes_of(model):
    for node in model.get_ordered_ops():
        yield node
        if node.get_type_name() == "TensorIterator":
            yield from nodes_of(node.get_function())


def arrays_of(specs):
    rng = np.random.default_rng(0)
    values = {}
    for spec in specs:
        dtype = "float32" if spec.dtype in ("float16", "bfloat16") else spec.dtype
        high = 256 if dtype == "uint8" else 1
        values[spec.binding] = (rng.random(spec.shape) * high).astype(dtype)
    return values


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("variant", ["default", "memory"])
def test_a_16_bit_graph_becomes_the_float32_graph_of_its_weights(made, variant, precision):
    """Nothing of 16 bits is left, in loops' bodies either; results are those of ONNX Runtime, which widens, too."""
    from page4d_engines.openvino.device import core
    from page4d_engines.openvino.engine import OpenVinoEngine, settings
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
            OpenVinoEngine(folder, entry, "CPU", settings("CPU", Precision.FLOAT32, 1)),
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
    from page4d_engines.openvino.engine import OpenVinoEngine, settings

    folder = EngineFolder.open(made("default", "bfloat16").folder)
    entry = folder.manifest.stage("time_sa.0")
    inputs, outputs = arrays_of(entry.inputs), arrays_of(entry.outputs)
    OpenVinoEngine(folder, entry, "CPU", settings("CPU", Precision.BFLOAT16, 1)).bind(inputs, outputs)()
    (tokens,) = outputs.values()
    assert np.mean(tokens.view(np.uint32) & 0xFFFF != 0) > 0.9, "a bfloat16 has no low bits"


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
    assert ("and int8" in device.described("CPU", Precision.INT8, Precision(int8))) == (not tiles)


@pytest.mark.parametrize("tiles", [False, True])
def test_products_of_bytes_are_exact_where_they_are_computed_in_floating_point(monkeypatch, tmp_path, tiles):
    """With AMX the bytes are widened once; without, OpenVINO quantises the activations, and errs."""
    from page4d_engines.openvino import int8
    from page4d_engines.openvino.device import core
    from page4d_engines.openvino.engine import settings

    monkeypatch.setattr(int8, "has_bfloat16_tiles", lambda: tiles)
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 64, 384), dtype=np.float32)
    numbers = random.integers(1, 256, (384, 128), np.uint8)
    scale = random.uniform(0.01, 0.02, 128).astype(np.float32)
    constants = {"numbers": numbers, "scale": scale, "middle": np.array(128, np.uint8)}
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["bytes", "range", "zero"]),
            helper.make_node("MatMulInteger", ["bytes", "numbers", "zero", "middle"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["range", "scale"], ["scales"]),
            helper.make_node("Mul", ["wide", "scales"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 64, 128))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "linear.onnx")
    compiled = core().compile_model(str(tmp_path / "linear.onnx"), "CPU", settings("CPU", Precision.FLOAT32, 1))
    expected = x.astype(np.float64) @ ((numbers.astype(np.float64) - 128) * scale)
    error = np.linalg.norm(compiled([x])[0] - expected) / np.linalg.norm(expected)
    assert error < (1e-6 if tiles else 2e-2)


def test_memory_is_kept_between_calls_where_there_is_plenty(made, monkeypatch):
    from page4d_engines.openvino import engine

    manifest = EngineFolder.open(made().folder).manifest
    needed = engine._BETWEEN * 4 * sum(entry.largest for entry in manifest.stages)
    free = int(needed / engine._KEPT_SHARE)
    for available, precision, keeps in (
        (free + 4, Precision.FLOAT32, True),
        (free - 4, Precision.FLOAT32, False),
        (free // 2 + 4, Precision.BFLOAT16, True),
    ):
        monkeypatch.setattr(engine, "available_memory", lambda available=available: available)
        assert engine.keeps_memory(manifest, precision) is keeps


@pytest.mark.parametrize("keeps", [False, True])
def test_memory_between_operations_is_given_back_or_kept(made, keeps):
    """The heap of a stage whose scratch is large, after a call: as before it, or larger."""
    from page4d_engines.openvino.engine import OpenVinoEngine, settings

    folder = EngineFolder.open(made().folder)
    entry = folder.manifest.stage("time_sa.0")
    engine = OpenVinoEngine(folder, entry, "CPU", settings("CPU", Precision.FLOAT32, 1), keeps)
    given_back = []
    compiled = engine._compiled

    class Compiled:
        def __getattr__(self, name):
            return getattr(compiled, name)

        def release_memory(self):
            given_back.append(compiled.release_memory())

    engine._compiled = Compiled()
    inputs, outputs = arrays_of(entry.inputs), arrays_of(entry.outputs)
    call = engine.bind(inputs, outputs)
    call()
    (tokens,) = outputs.values()
    first = tokens.copy()
    call()
    assert len(given_back) == (0 if keeps else 2)
    np.testing.assert_array_equal(tokens, first)


def test_threads_are_pinned_where_they_are_all_of_the_machine(monkeypatch):
    from page4d_engines.openvino.engine import settings

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert settings("CPU", Precision.FLOAT32, 4)["ENABLE_CPU_PINNING"]
    assert not settings("CPU", Precision.FLOAT32, 3)["ENABLE_CPU_PINNING"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert not settings("CPU", Precision.FLOAT32, 4)["ENABLE_CPU_PINNING"]
    assert "ENABLE_CPU_PINNING" not in settings("GPU", Precision.FLOAT32, 4)
