"""The C++ runtime over ONNX Runtime: the numbers of page4d-run, to the bit."""

import pathlib
import re
import shutil
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest

from page4d_engines.engine_folder import EngineFolder
from tests.support.cpp.parity_runs import clip_of, keypoints_for, same_runs
from tests.support.exports import rehash


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.mark.parametrize("variant", ["default", "memory", "late", "dilated"])
def test_masks_tokens_and_memory(parity, made, tmp_path, variant):
    clip = clip_of(tmp_path / "clip", 7, 2, 100, 80)
    keypoints_for(clip)
    windows = same_runs(parity, made(variant).folder, clip, tmp_path, stride=2, backend="onnxruntime")
    assert len(windows) == 3 and np.ptp(windows[0]["mask"]) > 0


@pytest.mark.parametrize("variant, T, V", [("pi3", 1, 3), ("vggt", 3, 1), ("page4d 2026", 3, 1)])
def test_heads(parity, made, tmp_path, variant, T, V):
    clip = clip_of(tmp_path / "clip", T, V, 96, 80)
    (window,) = same_runs(parity, made(variant).folder, clip, tmp_path, fit="crop", backend="onnxruntime")
    assert np.isfinite(window["camera"]).all()


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
    (library,) = (pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    command = [cpp / "tests" / "log_messages", folder, library]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert (completed.returncode, completed.stderr) == (0, "")
    lines = completed.stdout.splitlines()
    assert [line for line in lines if re.fullmatch(r"1 ONNX Runtime: .*'idle_weight'.*", line)], completed.stdout
    assert lines[-1] == f"0 {folder}: ONNX Runtime {onnxruntime.__version__} on the CPU, 1 thread"
    assert len(lines) == 2, completed.stdout
