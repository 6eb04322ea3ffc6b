"""The C++ runtime's outputs equal page4d-run's byte for byte.

Resizing, the order of images, windows, memory, masks, cameras and poses.
"""

import shutil

import numpy as np
import pytest

from page4d_engines.ort import cpu_engine
from tests.support.cpp.parity_runs import Checksums, clip_of, keypoints_for, same_runs
from tests.support.exports import by_time


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


@pytest.mark.parametrize("variant", ["default", "memory", "late"])
def test_masks_tokens_and_memory(parity, made, tmp_path, variant):
    clip = clip_of(tmp_path / "clip", 7, 2, 100, 80)
    keypoints_for(clip)
    windows = same_runs(parity, made(variant).folder, clip, tmp_path, stride=2)
    assert len(windows) == 3 and "mask" in windows[0] and ("memory" in windows[0]) == (variant == "memory")
    assert not np.array_equal(windows[0]["mask"], windows[1]["mask"]), "the checksums see the images"


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_that_overlap(parity, made, tmp_path, stride):
    """In both runtimes only new timesteps are encoded; the tokens of the others are those of the window before."""
    (tmp_path / "engines").mkdir()
    engines = by_time(made("memory"), tmp_path / "engines").folder
    clip = clip_of(tmp_path / "clip", 6, 2, 100, 80)
    keypoints_for(clip)
    assert len(same_runs(parity, engines, clip, tmp_path, stride=stride)) > 2


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_another_aspect_ratio(parity, made, tmp_path, fit):
    same_runs(parity, made("default").folder, clip_of(tmp_path / "clip", 3, 2, 111, 52), tmp_path, fit=fit)


def test_frames_as_vggts_public_code_scales_them(parity, made, tmp_path):
    same_runs(parity, made("default").folder, clip_of(tmp_path / "clip", 3, 2, 101, 83), tmp_path, fit="published")


def test_without_masks_and_cameras(parity, made, tmp_path):
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    same_runs(parity, made("default").folder, clip / "frames", tmp_path)


def test_16_bits(parity, made, tmp_path):
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    (window,) = same_runs(parity, made("default", "float16").folder, clip, tmp_path)
    (layer,) = [name for name in window if name.startswith("layers.")]
    assert (tmp_path / "cpp" / "0" / layer).stat().st_size == 2 * window[layer].size


def test_points_confidence_and_poses(parity, made, tmp_path):
    (window,) = same_runs(parity, made("pi3").folder, clip_of(tmp_path / "clip", 1, 3, 96, 80), tmp_path, fit="pad")
    assert {"points", "confidence", "camera"} <= window.keys()


@pytest.mark.parametrize("variant", ["vggt", "page4d 2026"])
def test_depth_cameras_and_intrinsics(parity, made, tmp_path, variant):
    clip = clip_of(tmp_path / "clip", 5, 1, 96, 80)
    windows = same_runs(parity, made(variant).folder, clip, tmp_path, stride=2, fit="crop")
    heads = {"camera", "intrinsics", "depth", "depth_confidence", "points", "points_confidence"}
    assert len(windows) == 2 and heads <= windows[0].keys()
    assert np.isfinite(windows[0]["camera"]).all() and np.isfinite(windows[0]["intrinsics"]).any()


def test_a_filmed_clip(parity, made, real_clip, tmp_path):
    for kind in ("frames", "masks"):
        for v in range(2):
            shutil.copytree(real_clip / kind / f"cam{v}", tmp_path / "clip" / kind / f"cam{v}")
    same_runs(parity, made("default").folder, tmp_path / "clip", tmp_path, fit="crop")
