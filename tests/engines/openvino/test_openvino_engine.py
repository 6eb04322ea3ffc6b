"""OpenVINO as a backend: whose memory it uses, what it computes in, what it keeps, what it tells nobody."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from page4d.accuracy import compare
from page4d.errors import EngineError, MissingBackendError, UsageError
from page4d.precision import Precision
from page4d_engines import Backend, Pipeline, backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino import library
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.sample_clip import SampleClip
from tests.support.exports import verified
from tests.support.stage_arrays import arrays_of

pytestmark = pytest.mark.skipif(not library.is_installed(), reason="OpenVINO is not installed")


def engine_of(folder, name, keeps_memory=False):
    from page4d_engines.openvino.engine import OpenVinoEngine, settings

    opened = EngineFolder.open(folder)
    entry = opened.manifest.stage(name)
    return OpenVinoEngine(opened, entry, "CPU", settings("CPU", Precision.FLOAT32, 1), keeps_memory), entry


def test_inputs_and_outputs_are_the_callers_memory(made):
    engine, entry = engine_of(made().folder, "time_sa.0")
    inputs, outputs = arrays_of(entry.inputs), arrays_of(entry.outputs)
    bound = []
    create = engine._compiled.create_infer_request
    engine._compiled.create_infer_request = lambda: bound.append(create()) or bound[-1]
    call = engine.bind(inputs, outputs)
    (request,) = bound
    places = {array.ctypes.data for array in (*inputs.values(), *outputs.values())}
    tensors = [*request.input_tensors, *request.output_tensors]
    assert {tensor.data.ctypes.data for tensor in tensors} == places
    call()
    first = {name: array.copy() for name, array in outputs.items()}
    inputs["tokens"] *= 2  # in place: the next call sees it
    call()
    assert all(np.abs(outputs[name] - first[name]).max() > 1e-3 for name in first)
    assert {tensor.data.ctypes.data for tensor in (*request.input_tensors, *request.output_tensors)} == places


@pytest.mark.parametrize("spoil", ["missing", "size", "type"])
def test_memory_of_another_form_is_refused(made, spoil):
    engine, entry = engine_of(made().folder, "time_sa.0")
    inputs, outputs = arrays_of(entry.inputs), arrays_of(entry.outputs)
    name = entry.outputs[0].binding
    changed = {"size": outputs[name][..., :-1].copy(), "type": outputs[name].astype(np.float64)}
    outputs = {} if spoil == "missing" else outputs | {name: changed[spoil]}
    with pytest.raises(EngineError, match=r"does not lie in memory as its graph says(.|\n)*page4d-export again"):
        engine.bind(inputs, outputs)


@pytest.mark.parametrize(("precision", "allowed"), [("float16", 2e-2), ("bfloat16", 2e-2), ("int8", 2e-2)])
def test_narrow_engines_are_computed_in_what_the_cpu_has(made, precision, allowed):
    """The result is near float32's, and says what it was computed in."""
    from page4d_engines.openvino.device import computing_precision

    made_ = made("default", precision)
    expected = Pipeline.load(made_.folder, "onnxruntime").run(made_.clip.frames).copy()
    pipeline = Pipeline.load(made_.folder, "openvino")
    layer = pipeline.run(made_.clip.frames).layers[1]
    computing = computing_precision(Precision(precision), "CPU")
    assert pipeline.backend is Backend.OPENVINO and f"computing in {computing}" in pipeline.described
    assert pipeline.precision is computing
    assert layer.dtype == np.float32
    error = np.linalg.norm(layer - expected.layers[1]) / np.linalg.norm(expected.layers[1])
    assert error < allowed and (error > 1e-4) == (computing is not Precision.FLOAT32 or precision == "int8")
    if library.has_bfloat16():
        assert computing is Precision.BFLOAT16 or precision == "float16"


def test_static_ranges_are_those_of_onnx_runtime(shared):
    """Where OpenVINO multiplies bytes, most rows are equal; in a few, a value between two steps becomes the other one.

    Elsewhere it rounds nothing."""
    from page4d_engines.openvino.device import multiplies_bytes
    from page4d_engines.openvino.engine import OpenVinoEngine, settings

    static = verified("int8", shared, static_ranges=True)
    folder = EngineFolder.open(static.folder)
    for entry in folder.manifest.stages:
        inputs, results = arrays_of(entry.inputs), []
        hints = settings("CPU", Precision.FLOAT32, 1)
        for engine in (OpenVinoEngine(folder, entry, "CPU", hints), OrtEngine.of_stage(folder, entry)):
            outputs = {name: np.zeros_like(array) for name, array in arrays_of(entry.outputs).items()}
            engine.bind(inputs, outputs)()
            results.append(next(iter(outputs.values())))
        apart = np.linalg.norm(results[0] - results[1], axis=-1) / np.linalg.norm(results[1], axis=-1)
        is_rounded = entry.kind != "mask_head"
        is_equal = multiplies_bytes(Precision.INT8) or not is_rounded
        assert np.median(apart) < 1e-5 if is_equal else np.median(apart) > 1e-3, entry.name


def test_engines_with_static_ranges_are_near_the_reference(shared):
    static = verified("int8", shared, static_ranges=True)
    values = SampleClip.rendered(static.plan.layout).values
    inputs = {name: values[name] for name in ("images", "mask_ext")}
    with torch.inference_mode():
        exact = static.model(*map(torch.from_numpy, inputs.values())).layers[1].numpy()
    layer = Pipeline.load(static.folder, "openvino").run(**inputs).layers[1]
    assert compare(layer, exact.reshape(layer.shape)).relative_l2 < 2.5e-2


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
    engine, entry = engine_of(made().folder, "time_sa.0", keeps)
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


def test_fp8_and_unknown_devices_are_refused(made):
    folder = made().folder
    with pytest.raises(MissingBackendError, match=r"no such device(.|\n)*got: +NONE(.|\n)*allowed: .*CPU"):
        Pipeline.load(folder, "openvino", device="NONE")
    with pytest.raises(UsageError, match=r"for OpenVINO alone(.|\n)*--backend openvino"):
        Pipeline.load(folder, "onnxruntime", device="GPU")


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "is_installed", "expected", "said"),
    [
        ("float16", True, True, Backend.OPENVINO, ""),
        ("bfloat16", True, True, Backend.OPENVINO, ""),
        ("float16", False, True, Backend.ONNXRUNTIME, "does not compute in bfloat16"),
        ("float16", True, False, Backend.ONNXRUNTIME, r'pip install "page4d\[openvino\]"'),
        ("int8", True, True, Backend.OPENVINO, ""),
        ("int8", False, True, Backend.ONNXRUNTIME, "does not compute in bfloat16"),
        ("float32", True, True, Backend.ONNXRUNTIME, "with the numbers of the C++ runtime"),
    ],
)
def test_auto_takes_what_is_faster_and_says_why_not(
    request, made, monkeypatch, caplog, precision, has_bfloat16, is_installed, expected, said
):
    if request.config.getoption("--on-openvino"):
        pytest.skip("auto has no rule of its own with --on-openvino")
    monkeypatch.setattr(library, "has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(library, "is_installed", lambda: is_installed)
    folder = EngineFolder.open(made("default", precision).folder)
    with caplog.at_level(logging.INFO, "page4d.backend"):
        assert backend.choose(folder, Backend.AUTO, None, rounding=False).backend is expected
    messages = [record.getMessage() for record in caplog.records if "not on openvino" in record.getMessage()]
    assert len(messages) == bool(said)
    assert all(word in messages[0] for word in [said.replace("\\", "")] if said)
    assert backend.choose(folder, Backend.AUTO, None, rounding=True).backend is Backend.ONNXRUNTIME


def test_compiled_models_are_kept_in_a_folder_of_its_owner_alone(made, monkeypatch, tmp_path):
    made_ = made()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Pipeline.load(made_.folder, "openvino").run(made_.clip.frames).copy()
    (folder,) = (tmp_path / "page4d").iterdir()
    assert folder.name.startswith("openvino-2") and folder.stat().st_mode & 0o777 == 0o700
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert kept
    again = Pipeline.load(made_.folder, "openvino").run(made_.clip.frames)
    np.testing.assert_array_equal(again.layers[1], first.layers[1])
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == kept, "nothing is compiled again"
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    damaged = Pipeline.load(made_.folder, "openvino").run(made_.clip.frames)
    np.testing.assert_array_equal(damaged.layers[1], first.layers[1])


def test_processes_that_start_at_once_share_the_cache(made, tmp_path):
    """Without a lock one reads a model that another still writes: bus errors, NaN, or OpenVINO's own error."""
    program = (
        "import sys, numpy as np; from page4d_engines import Pipeline;"
        "pipeline = Pipeline.load(sys.argv[1], 'openvino');"
        "images = np.full(pipeline.manifest.layout.images_shape, 99, np.uint8);"
        "print(np.abs(pipeline.run(images).layers[1]).sum())"
    )
    for attempt in range(2):
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / str(attempt))}
        command = [sys.executable, "-c", program, made("default", "bfloat16").folder]
        running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        printed = [process.communicate(timeout=120)[0] for process in running]
        assert [process.returncode for process in running] == [0] * 4
        assert len(set(printed)) == 1 and np.isfinite(float(printed[0]))


def test_a_cache_that_cannot_be_locked_is_not_used(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = library.cache_folder("f32")
    (folder / "lock").symlink_to(tmp_path / "elsewhere")
    made_ = made()
    assert Pipeline.load(made_.folder, "openvino").run(made_.clip.frames).layers
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_cache_that_others_may_write_to_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = library.cache_folder("f32")
    folder.chmod(0o777)
    assert library.cache_folder("f32") is None
    folder.chmod(0o700)
    assert library.cache_folder("f32") == folder
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert library.cache_folder("f32") is None


_IMPORT = """
import socket, sys
def refuse(*arguments): raise AssertionError("a connection")
socket.socket.connect = refuse
from page4d_engines.openvino.library import library
assert library().convert_model is not None
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""


def test_nothing_is_sent_and_nothing_lies_in_the_home_folder(tmp_path):
    own = {name: value for name, value in os.environ.items() if name not in ("CI", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT], env=own | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not list(tmp_path.rglob("*"))


def test_without_the_package_it_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingBackendError, match=r'OpenVINO is not installed(.|\n)*pip install "page4d\[openvino\]"'):
        Pipeline.load(made().folder, "openvino")


def test_a_version_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.setattr(library.library(), "__version__", "2025.4.0-1")
    with pytest.raises(MissingBackendError, match=r"too old(.|\n)*2025\.4\.0(.|\n)*2026\.4 and newer"):
        library.library()


def test_a_stage_that_is_not_taken_is_named(made, tmp_path):
    import shutil

    folder = EngineFolder.open(made().folder)
    entry = folder.manifest.stage("mask_head")
    broken = shutil.copytree(folder.path, tmp_path / "engines")
    (broken / entry.file).write_bytes(b"nothing")
    from page4d_engines.openvino.engine import OpenVinoEngine

    with pytest.raises(EngineError, match=r"mask_head\.onnx cannot be loaded by OpenVINO 2.*(.|\n)*were tried"):
        OpenVinoEngine(EngineFolder(broken, folder.manifest), entry, "CPU", {})
