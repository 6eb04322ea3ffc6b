"""The chain in ONNX Runtime against the reference model."""

import contextlib
import copy as copying
import gc
import multiprocessing
import os
import pathlib
import pickle
import re
import shutil
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as hnp
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.errors import EngineError, MissingBackendError, UsageError
from page4d.manifest_file import read_manifest, write_manifest
from page4d_engines import Backend, Pipeline
from page4d_engines.arguments import map_argument
from page4d_engines.runtime import host_chain
from tests.support.examples import examples
from tests.support.models import EXPORTED, takes_keypoints


def close(found, want, tolerance):
    error = np.linalg.norm(found.astype(np.float64) - want.numpy()) / np.linalg.norm(want.numpy())
    assert error < tolerance, error


def tensors(given):
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}


@pytest.mark.parametrize("variant", EXPORTED)
def test_equals_the_reference(made, variant):
    made_ = made(variant)
    given = made_.inputs(takes_keypoints(variant))
    want = made_.model(made_.clip.frames, **tensors(given))
    result = Pipeline.load(made_.folder).run(made_.clip.frames, **given)
    assert set(result.layers) == set(want.layers)
    named = {
        name: getattr(want, name)
        for name in ("mask", "memory", "points", "confidence", "camera")
        if getattr(want, name) is not None
    }
    named |= {f"layers.{i}": layer for i, layer in want.layers.items()}
    found = result.tensors()
    assert set(found) == set(named)
    for name, tensor in named.items():
        assert found[name].shape == tuple(tensor.shape), name
        close(found[name], tensor, 1e-5)


def test_predictions_of_a_run_are_kept_by_a_copy(made):
    made_ = made("pi3")
    pipeline = Pipeline.load(made_.folder)
    first = pipeline.run(made_.clip.frames)
    kept = first.copy()
    second = pipeline.run(made_.clip.frames[:, ::-1])
    want = made_.model(made_.clip.frames)
    assert np.abs(kept.points - second.points).max() > 1e-2 and np.abs(kept.camera - second.camera).max() > 1e-2
    close(kept.points, want.points, 1e-5)
    close(kept.camera, want.camera, 1e-5)


def test_a_published_model_takes_no_mask(made):
    made_ = made("page4d 2026")
    with pytest.raises(UsageError, match="take no external mask"):
        Pipeline.load(made_.folder).run(
            made_.clip.frames, mask_ext=np.zeros(made_.plan.layout.patch_map_shape, np.float32)
        )


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 3e-3), ("bfloat16", 2e-2)])
def test_sixteen_bit_engines(made, precision, tolerance):
    made_ = made("default", precision)
    given = made_.inputs(keypoints=False)
    want = made_.model(made_.clip.frames, **tensors(given)).layers[1]
    errors = []
    for rounding in (False, True):
        found = Pipeline.load(made_.folder, rounding=rounding).run(made_.clip.frames, **given).layers[1]
        close(found, want, tolerance)
        errors.append(np.linalg.norm(found - want.numpy()))
    assert errors[1] > 1.3 * errors[0]  # rounding every result shows


def test_clips_side_by_side(made):
    made_ = made("memory", B=2)
    clips = np.stack([made_.clip.frames, made_.clip.frames[::-1]])
    given = made_.inputs(keypoints=True)
    want = made_.model(clips, **tensors(given))
    result = Pipeline.load(made_.folder).run(clips, **given)
    close(result.mask, want.mask, 1e-5)
    close(result.layers[1], want.layers[1], 1e-5)
    close(result.memory, want.memory, 1e-5)


def test_memory_is_carried(made):
    made_ = made("memory")
    given = made_.inputs(keypoints=True)
    pipeline = Pipeline.load(made_.folder)
    first = pipeline.run(made_.clip.frames, **given).copy()
    second = pipeline.run(made_.clip.frames, **given, memory=first.memory).copy()
    model_first = made_.model(made_.clip.frames, **tensors(given))
    want = made_.model(made_.clip.frames, **tensors(given), memory=model_first.memory)
    close(second.layers[1], want.layers[1], 1e-5)
    close(second.memory, want.memory, 1e-5)
    assert np.abs(second.memory - first.memory).max() > 1e-3
    again = pipeline.run(made_.clip.frames, **given)  # without one, from the learned memory
    np.testing.assert_array_equal(again.layers[1], first.layers[1])


def resident():
    gc.collect()
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_second_window_allocates_nothing(made):
    made_ = made()
    pipeline = Pipeline.load(made_.folder)
    mask_ext = made_.inputs(keypoints=False)["mask_ext"]
    first = pipeline.run(made_.clip.frames, mask_ext=mask_ext)
    places = [array.ctypes.data for array in (first.mask, first.layers[1])]
    kept = first.copy()
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


def test_seconds_are_told_by_stage(made):
    made_ = made()
    pipeline = Pipeline.load(made_.folder)
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
    single = Pipeline.load(made_.folder, threads=1)
    assert running() == before
    np.testing.assert_allclose(
        single.run(made_.clip.frames).mask,
        Pipeline.load(made_.folder, threads=2).run(made_.clip.frames).mask,
        rtol=1e-5,
    )


def test_a_moved_folder_runs(made, tmp_path):
    made_ = made()
    shutil.copytree(made_.folder, tmp_path / "elsewhere")
    here = Pipeline.load(made_.folder).run(made_.clip.frames).copy()
    there = Pipeline.load(tmp_path / "elsewhere").run(made_.clip.frames)
    np.testing.assert_array_equal(here.layers[1], there.layers[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((2, 2, 56, 70, 3), np.uint8)},
            (
                r"images has another shape than the engines'\s+got:\s+\[2, 2, 56, 70, 3\]\s+allowed: uint8 \[3, 2, 56,"
                r" 70, 3\]"
            ),
        ),
        ({"images": np.zeros((3, 2, 56, 70, 3), np.float32)}, r"images have the wrong type\s+got:\s+float32"),
        ({"mask_ext": np.zeros((3, 2, 5, 1))}, r"mask_ext has another shape"),
        ({"keypoints": None}, r"exported with --keypoints and need them"),
        ({"cameras": None}, r"need the calibration of every view"),
        ({"cameras": {}}, r"number of cameras is not the engines'\s+got:\s+0\s+allowed: 2"),
        ({"memory": np.zeros((2, 4, 128))}, r"memory has another shape"),
    ],
)
def test_wrong_arguments_are_named(made, change, message):
    made_ = made("memory")
    given = {"images": made_.clip.frames, **made_.inputs(keypoints=True), **change}
    with pytest.raises(UsageError, match=message):
        Pipeline.load(made_.folder).run(**given)


def test_keypoints_need_engines_that_take_them(made):
    made_ = made()
    with pytest.raises(UsageError, match=r"take no keypoints\s+try:\s+page4d-export --keypoints"):
        Pipeline.load(made_.folder).run(made_.clip.frames, keypoints=np.zeros(made_.plan.layout.patch_map_shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "images have the wrong type"),
        ({"images": [[1], [2, 3]]}, "images cannot be made an array"),
        ({"images": np.uint8(3)}, r"images has another shape than the engines'\s+got:\s+\[\]"),
        (
            {"mask_ext": np.full((3, 2, 20, 1), np.nan)},
            r"mask_ext holds numbers that are no probabilities\s+got:\s+nan",
        ),
        ({"mask_ext": np.full((3, 2, 20, 1), 255, np.uint8)}, r"no probabilities(.|\n)*divide by 255"),
        ({"mask_ext": "white"}, "mask_ext holds no real numbers"),
        ({"mask_ext": np.full((3, 2, 20, 1), None)}, r"mask_ext holds no real numbers\s+got:\s+object"),
        ({"mask_ext": np.zeros((3, 2, 20, 1), "datetime64[s]")}, "mask_ext holds no real numbers"),
        ({"keypoints": np.zeros((3, 2, 20, 1), complex)}, "keypoints holds no real numbers"),
        ({"keypoints": np.full((3, 2, 20, 1), -0.5)}, "keypoints holds numbers that are no probabilities"),
        ({"cameras": [1, 2]}, "cameras are no mapping of names to cameras"),
        ({"cameras": {"a": 3, "b": None}}, "camera a is no camera"),
        ({"cameras": np.zeros((2, 2, 3))}, "fundamental has another shape"),
        ({"cameras": np.full((2, 2, 3, 3), np.inf)}, "fundamental holds numbers that are not finite"),
        ({"memory": np.full((2, 5, 128), np.nan)}, "memory holds numbers that are not finite"),
        ({"memory": np.full((2, 5, 128), 1e300)}, "memory holds numbers that are not finite, or too large"),
        ({"memory": 0.0}, "memory has another shape"),
        ({"shared": 1.0}, r"got:\s+shared = 1\.0"),
        ({"shared": True}, r"got:\s+shared = True"),
        ({"shared": None}, r"got:\s+shared = None"),
        ({"shared": 10**30}, "shared = 1000"),
        ({"progress": 3}, "progress is no function"),
        ({"observe": "all"}, "observe is no function"),
    ],
)
def test_a_refused_call_changes_nothing(made, change, message):
    """Whatever comes first is not copied either: the inputs lie as they did, and the next call is right."""
    made_ = made("memory")
    pipeline = Pipeline.load(made_.folder, "onnxruntime", threads=1)
    given = {"images": made_.clip.frames, **made_.inputs(keypoints=True)}
    pipeline.run(**given)
    before = {name: array.copy() for name, array in pipeline._chain.inputs.items()}
    others = {
        "images": made_.clip.frames[:, ::-1],
        "mask_ext": np.ones((3, 2, 20, 1)),
        "keypoints": np.ones((3, 2, 20, 1)),
        "memory": np.ones((2, 5, 128)),
    }
    with pytest.raises(UsageError, match=message):
        pipeline.run(**{**given, **others, **change})
    for name, array in pipeline._chain.inputs.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_cameras_of_another_image_size_are_refused(made):
    """Their K would put every line in another place."""
    made_ = made("memory")
    given = made_.inputs(keypoints=True)
    cameras = {name: {**entry, "width": 1920, "height": 1080} for name, entry in given["cameras"].items()}
    with pytest.raises(UsageError, match=r"another size than the engines see\s+got:\s+1920x1080\s+allowed: 70x56"):
        Pipeline.load(made_.folder).run(made_.clip.frames, **{**given, "cameras": cameras})


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64, bool])
def test_maps_of_other_types_are_taken(made, dtype):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, threads=1)
    mask = np.random.default_rng(0).integers(0, 2, made_.plan.layout.patch_map_shape)
    want = pipeline.run(made_.clip.frames, mask_ext=mask.astype(np.float32)).copy()
    for value in (mask.astype(dtype), mask.astype(dtype).tolist()):
        np.testing.assert_array_equal(pipeline.run(made_.clip.frames, mask_ext=value).mask, want.mask)
    np.testing.assert_array_equal(
        pipeline.run(made_.clip.frames, mask_ext=1).layers[1],
        pipeline.run(made_.clip.frames, mask_ext=np.ones(mask.shape, np.float32)).copy().layers[1],
    )


@examples(150)
@given(
    hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(),
            hnp.floating_dtypes(),
            hnp.complex_number_dtypes(),
            hnp.unicode_string_dtypes(),
        ),
        st.sampled_from([(), (3, 2, 20, 1), (2,)]),
    )
)
def test_any_array_is_probabilities_or_refused(array):
    try:
        checked = map_argument("mask_ext", array, (3, 2, 20, 1))
    except UsageError:
        return
    target = np.full((3, 2, 20, 1), np.nan, np.float32)
    np.copyto(target, checked, casting="same_kind")
    assert target.min() >= -1e-4 and target.max() <= 1 + 1e-4


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


# ---- one caller at a time, of one process


@pytest.mark.parametrize("sliding", [False, True])
def test_a_second_caller_is_refused_while_one_runs(made, sliding):
    made_ = made()
    frames = made_.clip.frames
    pipeline = Pipeline.load(made_.folder, "onnxruntime", threads=1, sliding=sliding)
    want = pipeline.run(frames).copy()
    inside, go_on = threading.Event(), threading.Event()

    def wait(stage):
        inside.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: pipeline.run(frames, progress=wait).copy())
        assert inside.wait(60)
        for change in ({}, {"shared": 1} if sliding else {}):
            with pytest.raises(UsageError, match=r"this pipeline is running(.|\n)*Pipeline\.load for each thread"):
                pipeline.run(frames[::-1], **change)
        go_on.set()
        np.testing.assert_array_equal(first.result().layers[1], want.layers[1])
    np.testing.assert_array_equal(pipeline.run(frames).layers[1], want.layers[1])


def test_many_callers_get_right_results_or_an_error(made):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, "onnxruntime", threads=1)
    clips = [made_.clip.frames, made_.clip.frames[::-1], made_.clip.frames[:, ::-1]]
    want = [pipeline.run(clip).copy().layers[1] for clip in clips]
    lock, outcomes = threading.Lock(), []

    def call(number):
        for turn in range(12):
            try:
                with lock if turn % 2 else contextlib.nullcontext():  # a caller's own lock is the way to share one
                    pipeline.run(clips[number])
            except UsageError:
                outcomes.append("refused")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(call, range(3)))
    assert "refused" in outcomes
    for clip, layer in zip(clips, want, strict=True):
        np.testing.assert_array_equal(pipeline.run(clip).layers[1], layer)


def test_a_run_within_a_run_is_refused(made):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, "onnxruntime", threads=1)
    with pytest.raises(UsageError, match="this pipeline is running"):
        pipeline.run(made_.clip.frames, progress=lambda stage: pipeline.run(made_.clip.frames))
    assert np.isfinite(pipeline.run(made_.clip.frames).mask).all()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_callback_that_raises_ends_the_run_and_no_more(made, error):
    made_ = made()
    frames = made_.clip.frames
    pipeline = Pipeline.load(made_.folder, "onnxruntime", threads=1, sliding=True)
    want = pipeline.run(frames).copy()

    def stop(*arguments):
        raise error

    for callback in ({"progress": stop}, {"observe": stop}):
        with pytest.raises(error):
            pipeline.run(frames[::-1], **callback)
        with pytest.raises(UsageError, match="no run before"):  # what the encoder made of it is not whole
            pipeline.run(frames, shared=1)
        np.testing.assert_array_equal(pipeline.run(frames).layers[1], want.layers[1])


@pytest.mark.parametrize("act", [pickle.dumps, copying.copy, copying.deepcopy])
def test_a_pipeline_is_no_value(made, act):
    pipeline = Pipeline.load(made().folder, threads=1)
    for value in (pipeline, {"nested": [pipeline]}):
        with pytest.raises(TypeError, match=r"cannot be copied or pickled(.|\n)*once in each thread or process"):
            act(value) if value is pipeline or act is not copying.copy else copying.copy(pipeline)
    result = pipeline.run(made().clip.frames)
    assert np.array_equal(pickle.loads(pickle.dumps(result)).mask, result.mask)


def _in_child(folder, frames, only, answers):
    try:
        only[0].run(frames)
    except UsageError as error:
        answers.put(str(error))
    only.clear()
    gc.collect()  # engines whose threads are in another process
    answers.put(Pipeline.load(folder, "onnxruntime", threads=2).run(frames).mask.sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_pipeline_does_not_outlive_a_fork(made):
    """The child is told, may drop it, and load its own."""
    made_ = made()
    frames = made_.clip.frames
    only = [Pipeline.load(made_.folder, "onnxruntime", threads=2)]  # the reference that the child drops
    want = only[0].run(frames).mask.sum()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of forks beside threads
        child = context.Process(target=_in_child, args=(made_.folder, frames, only, answers))
        child.start()
    try:
        assert "loaded before this process was forked" in answers.get(timeout=60)
        assert answers.get(timeout=60) == pytest.approx(want, rel=1e-5)
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert only[0].run(frames).mask.sum() == want


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
    """Before anything is loaded: `auto` then goes on to the processor."""
    folder = made("default", "float16").folder
    monkeypatch.setattr("page4d_engines.ort.cuda_engine.require_provider", lambda: None)
    monkeypatch.setattr("page4d_plugins.driver.capability_of", lambda device: 75)
    with pytest.raises(
        EngineError,
        match=r"(?s)kernels of 16-bit engines do not run on this GPU.*sm_75.*sm_80 and newer.*without --fp16",
    ):
        Pipeline.load(folder, backend="cuda")
    assert Pipeline.load(folder).backend is Backend.ONNXRUNTIME


def test_too_little_memory_is_said_before_it_is_taken(made, monkeypatch):
    from page4d.errors import OutOfMemoryError

    monkeypatch.setattr(host_chain, "available_memory", lambda: 1_000_000)
    with pytest.raises(OutOfMemoryError, match=r"do not fit this machine's memory\s+got:.*GiB needed(.|\n)*--T"):
        Pipeline.load(made().folder)
