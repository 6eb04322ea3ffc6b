"""The C++ runtime over ONNX Runtime: the numbers of page4d-run, to the bit."""

import pathlib
import subprocess

import numpy as np
import onnxruntime
import pytest

from tests.support.cpp.parity_runs import clip_of, keypoints_for, same_runs


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
