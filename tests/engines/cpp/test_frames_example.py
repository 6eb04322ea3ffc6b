"""The C++ example `frames`: frames of a folder in, masks out; over the test backend, under sanitizers."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from page4d_export.sample_scene.clip import render, save


def frames_example(cpp, *arguments):
    command = [cpp / "examples" / "frames" / "frames", *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, text=True)
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
    masks = {path.relative_to(out): np.asarray(Image.open(path)) for path in out.rglob("*.png")}
    assert masks.keys() == {path.relative_to(frames) for path in frames.rglob("*.png")}
    assert all(mask.shape == (4, 5) and mask.dtype == np.uint8 and mask.std() > 0 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)
    assert re.fullmatch(r"not written: layers\.\d+, float32, \d+ bytes a window\n", printed)


def test_the_frames_example_with_engines_of_other_inputs_and_outputs(cpp, made, frames, tmp_path):
    """With engines without masks it succeeds and writes no folder; it says what engines need beyond images."""
    (frames / "cam2").symlink_to(frames / "cam1")
    code, printed, _ = frames_example(cpp, made("pi3").folder, frames, tmp_path / "out", "--test")
    assert code == 0 and re.findall(r"not written: (\w+)", printed) == ["layers", "points", "confidence", "camera"]
    (frames / "cam2").unlink()
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
        "the engines are for other cameras": ("out", lambda: shutil.rmtree(frames / "cam1")),
        "too few frames for a window": ("out", lambda: keep_two_timesteps(frames)),
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
