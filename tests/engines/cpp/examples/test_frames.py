"""The C++ example `frames`: frames of a folder in; masks, depth and points out; under sanitizers."""

import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import trimesh
from PIL import Image

from page4d.network.poses import world_points
from page4d.published import PointsFrame
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.engine_folder import EngineFolder
from page4d_export.sample_scene.clip import render, save
from tests.support.cpp.parity_runs import python_run


def frames_example(cpp, *arguments):
    command = [cpp / "examples" / "frames" / "frames", *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VIRTUAL_ENV": sys.prefix})
    return completed.returncode, completed.stdout, completed.stderr


@pytest.fixture
def frames(tmp_path):
    """Five timesteps of two cameras: two windows of three, the second shares a timestep with the first."""
    save(render(5, 2, 100, 80, seed=2), tmp_path / "clip")
    return tmp_path / "clip" / "frames"


def test_the_frames_example_writes_a_mask_for_each_frame(cpp, made, frames, tmp_path):
    out = tmp_path / "out"
    code, printed, error = frames_example(cpp, made("default").folder, frames, out, "--test")
    assert (code, error) == (0, "")
    masks = {path.relative_to(out / "masks"): np.asarray(Image.open(path)) for path in out.rglob("*.png")}
    assert masks.keys() == {path.relative_to(frames) for path in frames.rglob("*.png")}
    assert all(mask.shape == (4, 5) and mask.dtype == np.uint8 and mask.std() > 0 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)
    assert printed == "checksums in place of a network\n"


def test_the_frames_example_computes_what_page4d_run_computes(cpp, made, frames, tmp_path):
    """Without a GPU, by ONNX Runtime: depth to a step of its images, points to a millionth."""
    shutil.rmtree(frames / "cam1")
    engines, out, expected = made("vggt").folder, tmp_path / "out", tmp_path / "expected"
    code, printed, error = frames_example(cpp, engines, frames, out)
    assert (code, error) == (0, "") and printed.startswith(f"ONNX Runtime {onnxruntime.__version__} on the CPU")
    T = EngineFolder.open(engines).manifest.layout.T
    results = python_run(engines, FrameFolder.open(frames), expected, fit="crop")
    last = {}  # by frame: the last window that has it, and its timestep there
    for number, result in enumerate(results):
        start = min(number * T, 5 - T)
        last |= {start + t: (result["depth"], t) for t in range(T)}
        points = trimesh.load(out / f"points_{start}.ply")
        world = world_points(
            result["points"], PointsFrame.WORLD, result["depth"], result["camera"], result["intrinsics"]
        ).reshape(-1, 3)
        np.testing.assert_allclose(points.vertices, world, rtol=1e-6, atol=1e-6 * np.abs(world).max())
        assert len(np.unique(points.colors, axis=0)) > 20
    assert len(last) == 5
    for frame, (depth, t) in last.items():
        step = depth.max() / 65535
        image = np.asarray(Image.open(out / "depth" / "cam0" / f"{frame:06d}.png"))
        assert image.dtype == np.uint16 and np.ptp(image) > 0
        np.testing.assert_allclose(image * step, depth[t, 0].clip(0), rtol=0, atol=1.01 * step)


def test_the_frames_example_takes_a_folder_of_photos(cpp, made, frames, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        shutil.copy(frames / "cam0" / f"00000{number}.png", photos / f"photo{number}.png")
    code, _, error = frames_example(cpp, made("pi3").folder, photos, tmp_path / "out")
    assert (code, error) == (0, "") and [path.name for path in (tmp_path / "out").iterdir()] == ["points_0.ply"]


def test_the_frames_example_with_engines_of_other_inputs_and_outputs(cpp, made, frames, tmp_path):
    """It says what engines need beyond images."""
    code, _, error = frames_example(cpp, made("memory").folder, frames, tmp_path / "out", "--test")
    assert code == 2 and "need the calibration of every view" in error
    assert not list(tmp_path.glob("out*"))


def test_the_frames_example_says_what_is_wrong_and_leaves_nothing(cpp, made, frames, tmp_path):
    engines = made("default").folder
    complete = [engines, frames, "out"]
    for arguments in ([], complete[:2], [*complete, "--tset"], [*complete, "--test", "x"]):
        code, printed, usage = frames_example(cpp, *arguments)
        assert (code, printed) == (2, "") and usage.startswith("usage: frames ENGINES FRAMES OUT")
    (tmp_path / "mine").mkdir()
    file = frames / "cam1" / "000003.png"

    def another_size():
        Image.new("RGB", (9, 8)).save(file)

    spoilt = {
        "OUT exists": ("mine", lambda: None),
        "not a readable PNG": ("out", lambda: file.write_text("hello")),
        "has another size": ("out", another_size),
        "cameras have different numbers of frames": ("out", file.unlink),
        "allowed: 2 cameras of 3 frames or more": ("out", lambda: shutil.rmtree(frames / "cam1")),
        "got:     2 cameras of 2 frames": ("out", lambda: keep_two_timesteps(frames)),
        "no camera's folder": ("out", lambda: [shutil.rmtree(frames / camera) for camera in ("cam0", "cam1")]),
        "there is no such folder": ("out", frames.rmdir),
    }
    for message, (out, spoil) in spoilt.items():
        spoil()
        code, printed, error = frames_example(cpp, engines, frames, f"{tmp_path / out}/", "--test")
        assert (code, printed) == (2, "") and message in error, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "mine"]
    assert not list((tmp_path / "mine").iterdir())


def keep_two_timesteps(frames):
    """Of the first camera, copied to the second."""
    for file in sorted((frames / "cam0").iterdir())[2:]:
        file.unlink()
    shutil.copytree(frames / "cam0", frames / "cam1")
