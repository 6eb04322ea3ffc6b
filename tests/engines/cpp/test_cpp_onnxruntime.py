"""The C++ runtime over ONNX Runtime: the numbers of page4d-run, to the bit.

Every option of the network has its kind of node in one of these engines: the epipolar prior and memory in `memory`,
landmarks and two kept layers in `late`, dilated Global-SA in `dilated`.
"""

import functools
import pathlib
import re
import shutil
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest

from page4d.errors import MissingBackendError
from page4d.system.progress import SILENT
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.engine_folder import EngineFolder
from page4d_export.bench.languages.cpp_windows import compare_languages
from tests.support.cpp.parity_runs import (
    clip_of,
    cpp_run,
    keypoints_for,
    onnxruntime_library,
    same_runs,
    same_with_cameras,
    write_raw,
)
from tests.support.cpp.published_engines import exact_rig, published_engines
from tests.support.exports import by_time, rehash, verified
from tests.vectors.published_manifests import H, W

LONG = pytest.mark.slow  # beside each of these is a faster one of another precision or model


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.mark.parametrize("variant", ["default", "memory", "late", "dilated"])
def test_masks_tokens_and_memory(parity, made, tmp_path, variant):
    clip = clip_of(tmp_path / "clip", 7, 2, 100, 80)
    keypoints_for(clip)
    windows = same_runs(parity, made(variant).folder, clip, tmp_path, stride=2, backend="onnxruntime")
    assert len(windows) == 3 and np.ptp(windows[0]["mask"]) > 0


@pytest.mark.parametrize(
    ("variant", "precision"),
    [
        ("memory", "int8"),
        pytest.param("late", "int8", marks=LONG),
        pytest.param("dilated", "int8", marks=LONG),
        pytest.param("memory", "bfloat16", marks=LONG),
        pytest.param("late", "float16", marks=LONG),
    ],
)
def test_options_in_other_precisions(parity, made, tmp_path, variant, precision):
    clip = clip_of(tmp_path / "clip", 4, 2, 100, 80)
    keypoints_for(clip)
    same_runs(parity, made(variant, precision).folder, clip, tmp_path, stride=1, backend="onnxruntime")


def test_static_ranges(parity, shared, tmp_path):
    folder = verified("int8", shared, static_ranges=True).folder
    same_runs(parity, folder, clip_of(tmp_path / "clip", 4, 2, 100, 80), tmp_path, stride=1, backend="onnxruntime")


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=LONG)])
@pytest.mark.parametrize("stride", [1, pytest.param(2, marks=LONG)])
def test_windows_that_overlap(parity, made, tmp_path, precision, stride):
    """Only new timesteps are encoded, in both languages."""
    (tmp_path / "engines").mkdir()
    engines = by_time(made("memory"), tmp_path / "engines", precision).folder
    clip = clip_of(tmp_path / "clip", 6, 2, 100, 80)
    keypoints_for(clip)
    windows = same_runs(parity, engines, clip, tmp_path, stride=stride, backend="onnxruntime")
    assert len(windows) > 2 and not np.array_equal(windows[0]["mask"], windows[1]["mask"])


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=LONG)])
@pytest.mark.parametrize(
    ("variant", "T", "V"),
    [
        ("pi3", 1, 3),
        ("vggt", 3, 1),
        ("page4d 2026", 3, 1),
        pytest.param("page4d 150", 3, 1, marks=LONG),
        pytest.param("da3", 1, 3, marks=LONG),
        pytest.param("pi3x", 1, 3, marks=LONG),
        pytest.param("da3-mono", 1, 2, marks=LONG),
    ],
)
def test_heads(parity, made, tmp_path, variant, precision, T, V):
    clip = clip_of(tmp_path / "clip", T, V, 96, 80)
    folder = made(variant, precision).folder
    (window,) = same_runs(parity, folder, clip, tmp_path, fit="crop", backend="onnxruntime")
    assert all(np.isfinite(window[name]).all() for name in ("camera", "depth", "points") if name in window)


@pytest.fixture(scope="session")
def engines(shared):
    return functools.partial(published_engines, shared)


@pytest.mark.parametrize(
    ("name", "V", "precision"),
    [
        ("da3", 4, "float32"),
        ("da3", 4, "int8"),
        ("pi3x", 3, "float32"),
        ("mono", 4, "float32"),
        pytest.param("mono", 4, "int8", marks=LONG),
        pytest.param("metric", 4, "float32", marks=LONG),
        pytest.param("pi3x", 3, "int8", marks=LONG),
        pytest.param("pi3x", 3, "float16", marks=LONG),
        pytest.param("da3", 4, "bfloat16", marks=LONG),
    ],
)
def test_published_models(parity, engines, tmp_path, name, V, precision):
    """Of several windows: the reference view of Depth Anything 3 is another one in some."""
    frames = clip_of(tmp_path / "clip", 6, V, 100, 80)
    (frames / "cameras.json").unlink()
    fit = None if name == "pi3x" else "published"
    windows = same_runs(parity, engines(name, V, precision), frames, tmp_path, fit=fit, backend="onnxruntime")
    assert len(windows) == 6


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("known", "float32"),
        ("metric", "float32"),
        pytest.param("metric", "int8", marks=LONG),
        pytest.param("known", "int8", marks=LONG),
    ],
)
def test_cameras_that_were_given(parity, engines, tmp_path, name, precision):
    frames = clip_of(tmp_path / "clip", 1, 4, W, H)
    folder = engines(name, 4, precision)
    tensors = same_with_cameras(parity, folder, frames, exact_rig(4), tmp_path, backend="onnxruntime")
    assert tensors.keys() >= {"depth", "intrinsics"}


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_other_precisions(parity, made, tmp_path, precision):
    """16 bits are computed in float32, as in Python."""
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    same_runs(parity, made("default", precision).folder, clip, tmp_path, backend="onnxruntime")


def test_the_first_pipeline_of_a_process_decides_on_the_library_and_the_threads(cpp, made):
    """Later ones that ask for others are told so."""
    capi = pathlib.Path(onnxruntime.__file__).parent / "capi"
    (library,) = capi.glob("libonnxruntime.so*")
    completed = subprocess.run(
        [cpp / "tests" / "second_pipeline", made("default").folder, library, "libm.so.6"],
        capture_output=True,
        text=True,
    )
    assert (completed.returncode, completed.stderr) == (0, "")


def test_the_log_has_onnx_runtimes_messages_and_nothing_is_printed_without_one(cpp, made, tmp_path):
    """A weight that no operation reads, of which ONNX Runtime warns."""
    folder = tmp_path / "engines"
    shutil.copytree(made("default").folder, folder)
    stage = EngineFolder.open(folder).manifest.stages[0]
    graph = onnx.load(folder / stage.cpu, load_external_data=False)
    graph.graph.initializer.append(onnx.helper.make_tensor("idle_weight", onnx.TensorProto.FLOAT, [1], [0.0]))
    onnx.save(graph, folder / stage.cpu)
    rehash(folder)
    command = [cpp / "tests" / "log_messages", folder, onnxruntime_library()]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert (completed.returncode, completed.stderr) == (0, "")
    lines = completed.stdout.splitlines()
    assert [line for line in lines if re.fullmatch(r"1 ONNX Runtime: .*'idle_weight'.*", line)], completed.stdout
    assert lines[-1] == f"0 {folder}: ONNX Runtime {onnxruntime.__version__} on the CPU, 1 thread"
    assert len(lines) == 2, completed.stdout


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime is a build for GPUs"
)
def test_the_cuda_provider_is_named_where_the_library_has_none(parity, made, tmp_path):
    frames = FrameFolder.open(clip_of(tmp_path / "clip", 3, 2, 70, 56))
    library = {"backend": "onnxruntime-cuda", "library": onnxruntime_library()}
    write_raw(tmp_path / "raw", frames, {"starts": [0], "fit": "none", "sliding": False, **library}, ["masks"])
    done = cpp_run(parity, made().folder, tmp_path / "raw", tmp_path / "cpp")
    assert done.returncode == 5 and "needs ONNX Runtime's build for GPUs" in done.stderr
    assert "pip install onnxruntime-gpu" in done.stderr
    done = cpp_run(parity, made("default", "int8").folder, tmp_path / "raw", tmp_path / "narrow")
    assert done.returncode == 4 and "float32 alone" in done.stderr


def test_windows_are_timed_in_both_languages(cpp, made):
    result = compare_languages(made("late").folder, cpp / "tests" / "time_windows", 2, 1, SILENT)
    assert [side.language for side in result.sides] == ["C++", "Python"] and result.ratio > 0
    assert all(side.load > 0 and side.seconds > 0 and side.peak_bytes > 1e7 for side in result.sides)


def test_a_program_that_is_not_there_is_named(made, tmp_path):
    with pytest.raises(MissingBackendError, match="page4d_time_windows"):
        compare_languages(made().folder, tmp_path / "none", 1, 1, SILENT)
