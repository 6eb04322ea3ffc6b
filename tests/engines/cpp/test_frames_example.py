"""The C++ example `frames`: frames of a folder in, masks out; over the test backend, under sanitizers."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from page4d_export.sample_scene.clip import render, save


def frames_example(cpp, *words):
    done = subprocess.run([cpp / "examples" / "frames" / "frames", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def frames(tmp_path):
    """Five times of two cameras: two windows of three, the second one shares a time with the first."""
    save(render(5, 2, 100, 80, seed=2), tmp_path / "clip")
    return tmp_path / "clip" / "frames"


def test_the_frames_example_writes_a_mask_for_each_frame(cpp, made, frames, tmp_path):
    code, printed, said = frames_example(cpp, made("default").folder, frames, tmp_path / "out", "--test")
    assert (code, said) == (0, "")
    masks = {
        path.relative_to(tmp_path / "out"): np.asarray(Image.open(path)) for path in (tmp_path / "out").rglob("*.png")
    }
    assert masks.keys() == {path.relative_to(frames) for path in frames.rglob("*.png")}
    assert all(mask.shape == (4, 5) and mask.dtype == np.uint8 and mask.std() > 0 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)
    assert re.fullmatch(r"not written: layers\.\d+, float32, \d+ bytes a window\n", printed)


def test_the_frames_example_with_engines_of_other_inputs_and_outputs(cpp, made, frames, tmp_path):
    """Engines that give no mask end well and write no folder; those that need more than images say what."""
    (frames / "cam2").symlink_to(frames / "cam1")
    code, printed, _ = frames_example(cpp, made("pi3").folder, frames, tmp_path / "out", "--test")
    assert code == 0 and re.findall(r"not written: (\w+)", printed) == ["layers", "points", "confidence", "camera"]
    (frames / "cam2").unlink()
    code, _, said = frames_example(cpp, made("memory").folder, frames, tmp_path / "out", "--test")
    assert code == 2 and "need the calibration of every view" in said
    assert not list(tmp_path.glob("out*"))


def test_the_frames_example_says_what_is_wrong_and_leaves_nothing(cpp, made, frames, tmp_path):
    engines = made("default").folder
    for words in ([], [engines, frames], [engines, frames, "out", "--tset"], [engines, frames, "out", "--test", "x"]):
        code, printed, usage = frames_example(cpp, *words)
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
        "too few frames for a window": ("out", lambda: keep_two_times(frames)),
        "no camera's folder": ("out", lambda: [shutil.rmtree(frames / camera) for camera in ("cam0", "cam1")]),
        "there is no such folder": ("out", frames.rmdir),
    }
    for message, (out, spoil) in spoilt.items():
        spoil()
        code, printed, said = frames_example(cpp, engines, frames, f"{tmp_path / out}/", "--test")
        assert (code, printed) == (2, "") and message in said, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "mine"]
    assert not list((tmp_path / "mine").iterdir())


def keep_two_times(frames):
    """Of one camera, which stands in for both."""
    for file in sorted((frames / "cam0").iterdir())[2:]:
        file.unlink()
    shutil.copytree(frames / "cam0", frames / "cam1")
