"""The C++ example `rig`: live cameras, simulated, with ONNX Runtime; what it prints is what Python computes."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from page4d_engines import Pipeline
from page4d_engines.backend import Backend

EXAMPLES = pathlib.Path(__file__).parents[4] / "engines" / "cpp" / "examples"
RATE = 10


def rig_example(cpp, *arguments):
    command = [cpp / "examples" / "rig" / "rig", *map(str, arguments)]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    return completed.returncode, completed.stdout, completed.stderr


def tables(printed):
    """The lines of windows and of cameras, as lists of numbers; what computes."""
    described, head, *lines = (line for line in printed.splitlines() if line)
    dropped = next(i for i, line in enumerate(lines) if line.endswith("windows were dropped"))
    assert head.split()[:2] == ["window", "oldest"] and lines[dropped + 1].split()[0] == "camera"
    windows, cameras = lines[:dropped], lines[dropped + 2 :]
    return described, [[*map(float, line.split())] for line in windows], [[*map(int, line.split())] for line in cameras]


def drawn(layout, camera, k):
    """Image k of a camera, as the example draws it."""
    side = layout.H // 4
    x, y = np.arange(layout.W), np.arange(layout.H)[:, None]
    left, top = (5 * k + 40 * camera) % (layout.W - side), (3 * k + 20 * camera) % (layout.H - side)
    image = np.empty((layout.H, layout.W, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 60 + 90 * x // layout.W, 90 + 60 * y // layout.H, 110
    image[top : top + side, left : left + side] = 230, 80 + 40 * (camera % 4), 60
    return image


@pytest.mark.parametrize(("variant", "name"), [("default", "mask"), ("pi3", "confidence"), ("vggt", "depth")])
def test_it_prints_the_numbers_that_python_computes(cpp, made, variant, name):
    """Of each window: means by camera. Jitter and threads put nothing else into a window than its own images."""
    engines = made(variant).folder
    code, printed, error = rig_example(cpp, engines, "--rate", RATE, "--seconds", 1.5, "--backend", "onnxruntime")
    assert code == 0, error
    described, windows, cameras = tables(printed)
    assert described.startswith(f"ONNX Runtime {onnxruntime.__version__} on the CPU") and len(windows) > 1
    pipeline = Pipeline.load(engines, backend=Backend.ONNXRUNTIME)
    layout = pipeline.manifest.layout
    assert [camera[:2] for camera in cameras] == [[v, 1.5 * RATE] for v in range(layout.V)]
    checked = 0
    for _, oldest, newest, skew, repeated, absent, _, *means in windows:
        first, last = round(oldest * RATE), round(newest * RATE)
        assert skew <= 8 and repeated == absent == 0 and len(means) == layout.V
        if last - first != layout.T - 1:  # a machine so busy that images came too late: the window has a gap
            continue
        images = np.array([[drawn(layout, v, first + t) for v in range(layout.V)] for t in range(layout.T)])
        values = pipeline.run(images).tensors()[name].astype(np.float64)
        expected = values.reshape(layout.T, layout.V, -1).mean(axis=(0, 2))
        np.testing.assert_allclose(means, expected, rtol=0, atol=6e-7 * max(1, np.abs(expected).max()))
        checked += 1
    assert checked > 0


def test_a_camera_that_falls_silent(cpp, made):
    """Its last image is used again, or there are no more windows."""
    command = [made("default").folder, "--backend", "test", "--seconds", 1.5, "--kill", 1, "--from", 0.6]
    code, repeated, error = rig_example(cpp, *command, "--missing", "repeat")
    assert code == 0, error
    code, skipped, error = rig_example(cpp, *command, "--missing", "skip")
    assert code == 0, error
    _, windows, cameras = tables(repeated)
    assert windows[-1][4] > 0 and cameras[1][5] > 0 == cameras[0][5], "columns of repeated images"
    _, fewer, cameras = tables(skipped)
    assert 0 < len(fewer) < len(windows) and cameras[1][5] == 0


def test_it_says_what_is_wrong(cpp, made):
    for arguments in ((), ("--help",)):
        code, printed, usage = rig_example(cpp, *arguments)
        assert (code, printed) == (2, "") and usage.startswith("usage: rig ENGINES [NAME VALUE]")
    engines = made("default").folder
    refused = {
        ("--rate",): "a NAME and its VALUE",
        ("--rat", "3"): "got:     --rat",
        ("--rate", "fast"): "got:     --rate fast",
        ("--seconds", "nan"): "got:     --seconds nan",
        ("--kill", "9"): "allowed: -1.000000 to 1.000000",
        ("--missing", "maybe"): "allowed: skip repeat absent",
        ("--missing", "absent"): "--absent-views",
    }
    for arguments, words in refused.items():
        code, _, error = rig_example(cpp, engines, "--backend", "test", *arguments)
        assert code == 2 and words in error, (arguments, error)


@pytest.mark.parametrize("example", ["frames", "rig"])
def test_examples_are_short(example):
    """A program to copy is read at once."""
    lines = sum(len(path.read_text().splitlines()) for path in (EXAMPLES / example).glob("*.[ch]*"))
    assert lines < 200
