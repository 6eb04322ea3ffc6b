"""The chain in ONNX Runtime compared with the reference model."""

import gc
import pathlib
import re
import shutil
import tracemalloc

import numpy as np
import onnxruntime
import pytest
import torch

from page4d.errors import EngineError, MissingBackendError, UsageError
from page4d.manifest_checks.manifest_file import read_manifest, write_manifest
from page4d_engines import Backend, Pipeline
from page4d_engines.runtime import host_chain
from tests.support.models import EXPORTED, NEWER, takes_keypoints


def close(array, reference, tolerance):
    error = np.linalg.norm(array.astype(np.float64) - reference.numpy()) / np.linalg.norm(reference.numpy())
    assert error < tolerance, error


def tensors(arguments):
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
    }


@pytest.mark.parametrize("variant", [*EXPORTED, *NEWER, "vggt"])
def test_equals_the_reference(made, variant, on_cpu):
    made_ = made(variant)
    arguments = made_.inputs(takes_keypoints(variant))
    reference = made_.model(made_.clip.frames, **tensors(arguments))
    result = Pipeline.load(made_.folder, on_cpu).run(made_.clip.frames, **arguments)
    assert set(result.layers) == set(reference.layers)
    fields = ("mask", "memory", "points", "points_confidence", "confidence", "depth", "depth_confidence")
    named = {name: getattr(reference, name) for name in (*fields, "camera", "intrinsics", "metric", "sky")}
    named = {name: tensor for name, tensor in named.items() if tensor is not None}
    named |= {f"layers.{i}": layer for i, layer in reference.layers.items()}
    outputs = result.tensors()
    assert set(outputs) == set(named)
    for name, tensor in named.items():
        assert outputs[name].shape == tuple(tensor.shape), name
        close(outputs[name], tensor, 1e-5)
    assert result.points_frame is reference.points_frame


def test_predictions_of_a_run_are_kept_by_a_copy(made, on_cpu):
    made_ = made("pi3")
    pipeline = Pipeline.load(made_.folder, on_cpu)
    first = pipeline.run(made_.clip.frames)
    kept = first.copy()
    second = pipeline.run(made_.clip.frames[:, ::-1])
    reference = made_.model(made_.clip.frames)
    assert np.abs(kept.points - second.points).max() > 1e-2 and np.abs(kept.camera - second.camera).max() > 1e-2
    close(kept.points, reference.points, 1e-5)
    close(kept.camera, reference.camera, 1e-5)


@pytest.mark.parametrize(("variant", "sources"), [("pi3", ["points"]), ("page4d 2026", ["depth", "points"])])
def test_points_in_the_world_are_the_references_from_every_source(made, variant, sources):
    made_ = made(variant)
    reference = made_.model(made_.clip.frames)
    result = Pipeline.load(made_.folder).run(made_.clip.frames)
    close(result.world_points(), reference.world_points(), 1e-5)
    np.testing.assert_array_equal(result.world_points(), result.world_points(sources[0]), "the first is the default")
    for source in sources:
        close(result.world_points(source), reference.world_points(source), 1e-5)
    kept = result.copy()
    assert (kept.points_frame, kept.timing) == (result.points_frame, result.timing)
    np.testing.assert_array_equal(kept.world_points(), result.world_points())
    if "depth" not in sources:
        with pytest.raises(UsageError, match="depth"):
            result.world_points("depth")


def test_heads_of_clips_side_by_side(made, on_cpu):
    made_ = made("vggt", B=2)
    clips = np.stack([made_.clip.frames, made_.clip.frames[::-1]])
    reference = made_.model(clips)
    result = Pipeline.load(made_.folder, on_cpu).run(clips)
    for name in ("depth", "points", "camera", "intrinsics"):
        assert getattr(result, name).shape == tuple(getattr(reference, name).shape)
        close(getattr(result, name), getattr(reference, name), 1e-5)
    close(result.world_points("depth"), reference.world_points("depth"), 1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 3e-3), ("bfloat16", 2e-2)])
def test_sixteen_bit_engines(made, precision, tolerance):
    made_ = made("default", precision)
    arguments = made_.inputs(keypoints=False)
    reference = made_.model(made_.clip.frames, **tensors(arguments)).layers[1]
    errors = []
    for rounding in (False, True):
        pipeline = Pipeline.load(made_.folder, "onnxruntime", rounding=rounding)
        layer = pipeline.run(made_.clip.frames, **arguments).layers[1]
        close(layer, reference, tolerance)
        errors.append(np.linalg.norm(layer - reference.numpy()))
    assert errors[1] > 1.3 * errors[0]  # rounding every result shows


def test_clips_side_by_side(made, on_cpu):
    made_ = made("memory", B=2)
    clips = np.stack([made_.clip.frames, made_.clip.frames[::-1]])
    arguments = made_.inputs(keypoints=True)
    reference = made_.model(clips, **tensors(arguments))
    result = Pipeline.load(made_.folder, on_cpu).run(clips, **arguments)
    close(result.mask, reference.mask, 1e-5)
    close(result.layers[1], reference.layers[1], 1e-5)
    close(result.memory, reference.memory, 1e-5)


def test_memory_is_carried(made, on_cpu):
    made_ = made("memory")
    arguments = made_.inputs(keypoints=True)
    pipeline = Pipeline.load(made_.folder, on_cpu)
    first = pipeline.run(made_.clip.frames, **arguments).copy()
    second = pipeline.run(made_.clip.frames, **arguments, memory=first.memory).copy()
    model_first = made_.model(made_.clip.frames, **tensors(arguments))
    reference = made_.model(made_.clip.frames, **tensors(arguments), memory=model_first.memory)
    close(second.layers[1], reference.layers[1], 1e-5)
    close(second.memory, reference.memory, 1e-5)
    assert np.abs(second.memory - first.memory).max() > 1e-3
    again = pipeline.run(made_.clip.frames, **arguments)  # without one, from the learned memory
    np.testing.assert_array_equal(again.layers[1], first.layers[1])


def resident():
    gc.collect()
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_second_window_allocates_nothing(made, on_cpu):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, on_cpu)
    mask_ext = made_.inputs(keypoints=False)["mask_ext"]
    first = pipeline.run(made_.clip.frames, mask_ext=mask_ext)
    places = [array.ctypes.data for array in (first.mask, first.layers[1])]
    kept = first.copy()
    # where OpenVINO gives memory back after each stage, the heap has its final size after some windows
    for _ in range(40 if on_cpu == "openvino" else 1):
        pipeline.run(made_.clip.frames[::-1], mask_ext=mask_ext)
    before = resident()
    tracemalloc.start()
    for _ in range(20):
        second = pipeline.run(made_.clip.frames, mask_ext=mask_ext)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000, "numpy's arrays are traced: a copy of the tokens alone would be more"
    assert resident() - before < 2 << 20, "nor does the runtime's arena grow"
    assert [array.ctypes.data for array in (second.mask, second.layers[1])] == places
    np.testing.assert_array_equal(second.layers[1], kept.layers[1])
    assert not np.shares_memory(kept.mask, second.mask)


def test_seconds_are_told_by_stage(made, on_cpu):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, on_cpu)
    seen = []
    seconds = pipeline.run(made_.clip.frames, progress=seen.append).timing.seconds
    assert seen == [call.stage.name for call in pipeline.plan.calls]
    assert list(seconds) == [entry.name for entry in pipeline.manifest.stages] and min(seconds.values()) > 0


def test_other_sessions_of_the_process_are_left_alone(made):
    """A program has models of its own, and makes their sessions after ours."""
    made_ = made()
    Pipeline.load(made_.folder).run(made_.clip.frames)
    session = onnxruntime.InferenceSession(made_.folder / "onnx" / "mask_head.onnx", providers=["CPUExecutionProvider"])
    values = {value.name: np.zeros(value.shape, np.float32) for value in session.get_inputs()}
    assert session.run(None, values)[0].shape == made_.plan.layout.patch_map_shape


def test_threads_are_what_was_asked_for(made):
    made_ = made()

    def running():
        return len(list(pathlib.Path("/proc/self/task").iterdir()))

    before = running()
    single = Pipeline.load(made_.folder, "onnxruntime", threads=1)
    assert running() == before
    np.testing.assert_allclose(
        single.run(made_.clip.frames).mask,
        Pipeline.load(made_.folder, "onnxruntime", threads=2).run(made_.clip.frames).mask,
        rtol=1e-5,
    )


def test_a_moved_folder_runs(made, tmp_path, on_cpu):
    made_ = made()
    shutil.copytree(made_.folder, tmp_path / "elsewhere")
    here = Pipeline.load(made_.folder, on_cpu).run(made_.clip.frames).copy()
    there = Pipeline.load(tmp_path / "elsewhere", on_cpu).run(made_.clip.frames)
    np.testing.assert_array_equal(here.layers[1], there.layers[1])


# ---- loading


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"backend": "gpu"}, "no such backend"),
        ({"threads": 0}, "no number of threads"),
        ({"threads": "2"}, "no number"),
    ],
)
def test_wrong_options_of_loading_are_named(made, option, message):
    with pytest.raises(UsageError, match=message):
        Pipeline.load(made().folder, **option)


@pytest.fixture
def copy(made, tmp_path):
    return pathlib.Path(shutil.copytree(made().folder, tmp_path / "copy"))


def test_damaged_folders_are_refused(copy):
    with pytest.raises(EngineError, match="no such engine folder"):
        Pipeline.load(copy / "missing")
    weights = copy / "onnx" / "encoder.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(EngineError, match=r"onnx/encoder.onnx.data is not the file that was exported"):
        Pipeline.load(copy)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(EngineError, match=rf"cut short\s+got:.*\({len(content) // 2} bytes\)"):
        Pipeline.load(copy)
    weights.unlink()
    with pytest.raises(EngineError, match=r"lacks onnx/encoder.onnx.data"):
        Pipeline.load(copy)


def test_damaged_manifests_are_refused(copy):
    manifest = copy / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2])
    with pytest.raises(EngineError, match=r"manifest.json is damaged"):
        Pipeline.load(copy)
    manifest.write_text(text.replace('"format": 1', '"format": 9'))
    with pytest.raises(EngineError, match=r"another format version\s+got:\s+9\s+allowed: 1"):
        Pipeline.load(copy)
    manifest.write_text(text.replace("onnx/mask_head.onnx", "../mask_head.onnx"))
    with pytest.raises(EngineError, match=r"outside the engine folder"):
        Pipeline.load(copy)
    manifest.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EngineError, match=r"manifest.json is damaged"):
        Pipeline.load(copy)
    manifest.unlink()
    with pytest.raises(EngineError, match=r"no manifest.json: its export did not finish"):
        Pipeline.load(copy)


def test_manifests_round_trip(made, copy):
    manifest = read_manifest(made().folder)
    write_manifest(copy, manifest)
    assert read_manifest(copy) == manifest
    assert manifest.layout == made().plan.layout


def test_a_backend_is_a_demand(made):
    folder = made().folder
    with pytest.raises(
        EngineError, match=rf"no TensorRT plans(.|\n)*page4d-export --build-only {re.escape(str(folder))}"
    ):
        Pipeline.load(folder, backend="tensorrt")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(MissingBackendError, match="cuda"):
            Pipeline.load(folder, backend="cuda")


def test_a_gpu_without_kernels_is_left(made, monkeypatch):
    """Before anything is loaded: `auto` then goes on to the CPU."""
    folder = made("default", "float16").folder
    monkeypatch.setattr("page4d_engines.ort.cuda_engine.require_provider", lambda: None)
    monkeypatch.setattr("page4d_plugins.driver.capability_of", lambda device: 75)
    with pytest.raises(
        EngineError,
        match=r"(?s)kernels of 16-bit engines do not run on this GPU.*sm_75.*sm_80 and newer.*without --fp16",
    ):
        Pipeline.load(folder, backend="cuda")
    assert Pipeline.load(folder).backend in (Backend.ONNXRUNTIME, Backend.OPENVINO)


def test_too_little_memory_is_said_before_it_is_taken(made, monkeypatch):
    from page4d.errors import OutOfMemoryError

    monkeypatch.setattr(host_chain, "available_memory", lambda: 1_000_000)
    with pytest.raises(OutOfMemoryError, match=r"do not fit this machine's memory\s+got:.*GiB needed(.|\n)*--T"):
        Pipeline.load(made().folder)
