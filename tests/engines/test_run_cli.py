"""`page4d-run` as a person runs it: its files, its messages, its exit codes, and how its process ends."""

import json
import logging
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from page4d.cameras import read_cameras
from page4d_engines import Pipeline, backend, console
from page4d_engines.clip.fit import Fit
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save
from tests.support.commands import program, refused, run, started
from tests.support.hostile.kills import kill_replacement


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "clip"
    save(render(7, 2, 100, 80, seed=2), folder)
    return folder


@pytest.fixture
def own(clip, tmp_path):
    """A copy of the clip to spoil."""
    return pathlib.Path(shutil.copytree(clip, tmp_path / "clip"))


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_whole_run(made, clip, tmp_path):
    folder = made("memory").folder
    shutil.copytree(clip / "masks", tmp_path / "keypoints")
    keypoints = ("--keypoints", tmp_path / "keypoints")
    done = started("page4d-run", folder, clip / "frames", "-o", tmp_path / "out", *keypoints, "--stride", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out" / "report.html") in done.stderr
    out = tmp_path / "out"
    summary = read_summary(out / "summary.json")
    assert json.loads(done.stdout) == json.loads((out / "summary.json").read_text())
    assert [window.name for window in summary.windows] == ["window_0-2", "window_2-4", "window_4-6"]
    assert summary.cameras == ["cam0", "cam1"] and summary.backend == "onnxruntime"
    assert all(seconds > 0 for seconds in summary.stage_seconds.values())
    assert 0 < summary.startup_seconds < summary.wall_seconds
    assert summary.buffer_bytes > 0 and summary.peak_rss_bytes > summary.buffer_bytes

    # the same through Python, window by window, memory carried
    pipeline = Pipeline.load(folder, summary.backend)
    layout = pipeline.manifest.layout
    fit = Fit.choose((100, 80), layout, None)
    memory = None
    cameras = {name: fit.camera(camera) for name, camera in read_cameras(clip / "cameras.json").items()}
    for window, start in zip(summary.windows, (0, 2, 4), strict=True):
        frames = np.zeros(layout.images_shape, np.uint8)
        maps = np.zeros(layout.patch_map_shape, np.float32)
        for row in range(3):
            for v in range(2):
                name = f"cam{v}/{start + row:06d}.png"
                frames[row, v] = fit.image(Image.fromarray(picture(clip / "frames" / name)))
                maps[row, v] = fit.patch_mean(picture(clip / "masks" / name))
        prediction = pipeline.run(frames, mask_ext=maps, keypoints=maps, cameras=cameras, memory=memory).copy()
        memory = prediction.memory
        stored = load_file(out / window.file)
        np.testing.assert_array_equal(stored["mask"], prediction.mask)
        np.testing.assert_array_equal(stored["layers.1"], prediction.layers[1])
        np.testing.assert_array_equal(stored["memory"], prediction.memory)
        for overlay in window.overlays:
            assert picture(out / overlay).shape == (layout.H, layout.W, 3)
        assert len(window.overlays) == 6
    report = (out / "report.html").read_text()
    assert "view_sa" in report and "cam1" in report and "seeded" in report
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "no staging folder is left"


def test_windows_overlap_at_the_end_so_that_no_frame_is_left_out(made, clip, tmp_path):
    done = run(made().folder, clip, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = [window.name for window in read_summary(tmp_path / "out" / "summary.json").windows]
    assert names == ["window_0-2", "window_3-5", "window_4-6"]
    again = run(made().folder, clip, "-o", tmp_path / "out", "-q")  # replaces an earlier run
    assert again.returncode == 0 and again.stderr == ""


def test_neither_torch_nor_the_exporter_is_imported(made, clip, tmp_path):
    code = """
import sys
from page4d_engines.cli import command, run
try:
    command(run)()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "onnxscript", "page4d_export", "matplotlib", "cuda", "av"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code, made().folder, clip, "-o", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_bad_flags(made, clip, tmp_path):
    folder, out = made().folder, tmp_path / "out"
    refused(run(folder, clip, "-o", out, "--stride", 0), 2, r"stride .*\s+got:\s+0\s+allowed: 1 to T = 3")
    refused(run(folder, clip, "-o", out, "--stride", 4), 2, r"stride")
    for flag, value in (("--fit", "squash"), ("--backend", "gpu"), ("--threads", 0), ("--min-confidence", 2)):
        refused(run(folder, clip, "-o", out, flag, value), 2, f"Invalid value for '{flag}'")
    refused(run(folder, clip, "-o", out, "--backend", "tensorrt"), 4, r"has no TensorRT plans(.|\n)*--build-only")
    refused(run(folder, clip, "-o", out, "--backend", "cuda"), 5, r"--backend cuda needs")
    refused(run(folder, clip, "-o", out, "--masks", tmp_path / "nowhere"), 2, r"nowhere")
    refused(run(folder, clip, "-o", tmp_path / "no" / "out"), 2, r"-o lies in a folder that does not exist")
    refused(started("page4d-run", folder, clip, "-o", out, "--fit", "squash"), 2, "Invalid value for '--fit'")
    assert run(folder, clip, "--what").returncode == 2
    assert run().returncode == 2
    assert not out.exists()


def test_the_output_folder_is_not_taken_from_others(made, clip, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    refused(
        run(made().folder, clip, "-o", tmp_path / "thesis"), 2, r"-o names something that is not the output of a run"
    )
    (tmp_path / "thesis" / "summary.json").write_text('{"accuracy": 0.9}')
    refused(
        run(made().folder, clip, "-o", tmp_path / "thesis"),
        2,
        r"not the output of a run.*\s+got: .*chapter1.tex, summary.json",
    )
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"
    assert run(made().folder, clip, "-o", tmp_path / "out").returncode == 0
    (tmp_path / "out" / "masks" / "notes.txt").write_text("precious")
    refused(
        run(made().folder, clip, "-o", tmp_path / "out"),
        2,
        r"-o holds more than the output of a run.*\s+got: .*masks/notes.txt",
    )
    assert (tmp_path / "out" / "masks" / "notes.txt").read_text() == "precious"
    refused(run(made().folder, clip, "-o", ""), 2, "a folder's name is wanted")


def test_the_output_folder_is_no_input(made, own, tmp_path):
    engines = pathlib.Path(shutil.copytree(made().folder, tmp_path / "engines"))
    places = (own / "frames" / "out", own / "masks" / "cam0" / "out", own, own / "frames", engines, engines / "out")
    for place in places:
        refused(
            run(engines, own, "-o", place),
            2,
            r"-o (lies inside|is|holds) the (folder of frames|folder of masks|engine folder), which this reads",
        )
    assert not (own / "frames" / "out").exists() and (engines / "manifest.json").exists()


def test_bad_frames(made, own, tmp_path):
    folder, out = made().folder, tmp_path / "out"
    (tmp_path / "empty").mkdir()
    refused(run(folder, tmp_path / "empty", "-o", out), 2, r"empty")
    refused(run(folder, tmp_path / "missing", "-o", out), 2, r"missing")
    frame = own / "frames" / "cam1" / "000005.png"
    content = frame.read_bytes()
    frame.write_bytes(content[: len(content) // 2])  # found in the last window, after others were written
    refused(run(folder, own, "-o", out), 2, r"cam1", r"000005")
    frame.write_bytes(b"no picture")
    refused(run(folder, own, "-o", out), 2, r"cam1", r"000005")
    frame.unlink()
    refused(run(folder, own, "-o", out), 2, r"cam1", r"\b6\b", r"\b7\b")
    assert not out.exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_wrong_counts_and_shapes(made, clip, own, tmp_path):
    folder, out = made().folder, tmp_path / "out"
    shutil.copytree(own / "frames" / "cam1", own / "frames" / "cam2")
    shutil.rmtree(own / "masks")
    (own / "cameras.json").unlink()
    refused(
        run(folder, own, "-o", out),
        2,
        r"another number of cameras than the engine has views\s+got:\s+3 cameras: cam0, cam1, cam2\s+allowed: V = 2",
    )
    shutil.rmtree(own / "frames" / "cam2")
    for camera in ("cam0", "cam1"):
        for index in range(2, 7):
            (own / "frames" / camera / f"{index:06d}.png").unlink()
    refused(run(folder, own, "-o", out), 2, r"fewer frames than a window\s+got:\s+2 frames\s+allowed: T = 3", r"--T 2")
    save(render(3, 2, 160, 60), tmp_path / "wide")
    refused(run(folder, tmp_path / "wide", "-o", out), 2, r"--fit stretch", r"160")
    for mode in ("stretch", "crop", "pad"):
        assert run(folder, tmp_path / "wide", "-o", out, "--fit", mode).returncode == 0


def test_masks_and_cameras_must_match(made, own, tmp_path):
    folder, out = made().folder, tmp_path / "out"
    (own / "masks" / "cam0" / "000003.png").unlink()
    refused(run(folder, own, "-o", out), 2, r"cam0", r"000003")
    shutil.rmtree(own / "masks")
    assert run(folder, own, "-o", out).returncode == 0  # none at all is fine
    needs_cameras = made("memory").folder
    (own / "cameras.json").write_text(json.dumps({"cam0": {}}))
    refused(run(needs_cameras, own, "-o", out, "--keypoints", own / "frames"), 2, r"camera cam0 lacks")
    (own / "cameras.json").unlink()
    refused(run(needs_cameras, own, "-o", out, "--keypoints", own / "frames"), 2, r"cameras", r"--cameras FILE")
    refused(run(needs_cameras, own, "-o", out), 2, r"keypoint")


def test_damaged_engines(made, clip, tmp_path):
    copy = pathlib.Path(shutil.copytree(made().folder, tmp_path / "engines"))
    (copy / "onnx" / "view_sa.0.onnx").write_bytes(b"nonsense")
    refused(run(copy, clip, "-o", tmp_path / "out"), 4, r"onnx/view_sa.0.onnx is not the file that was exported")
    (copy / "manifest.json").unlink()
    refused(run(copy, clip, "-o", tmp_path / "out"), 4, r"no manifest.json")
    refused(run(tmp_path / "nothing", clip, "-o", tmp_path / "out"), 4, r"no such engine folder")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "words"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "the terminal was closed")]
)
def test_a_signal_leaves_the_earlier_result_and_nothing_else(made, clip, tmp_path, number, words):
    many = tmp_path / "many"
    for camera in ("cam0", "cam1"):
        (many / camera).mkdir(parents=True)
        for index in range(300):
            shutil.copy(clip / "frames" / camera / f"{index % 7:06d}.png", many / camera / f"{index:06d}.png")
    earlier = '{"page4d": "0.0.1", "engines": "e", "frames": "f", "windows": []}'
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text(earlier)
    command = [*program("page4d-run"), made().folder, many, "-o", tmp_path / "out", "--stride", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out-*/new/window_*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.Signals[number])
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.Signals[number], errors
    assert errors.splitlines()[-1] == f"page4d: {words}; nothing half-written was left" and "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "out"]
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == [earlier]


def test_killed_at_any_moment_the_result_is_whole(tmp_path):
    """More of it: `python tests/support/hostile/kills.py`."""
    rng = random.Random(0)
    (tmp_path / "a").mkdir()
    assert sum(kill_replacement(tmp_path / "a" / "out", signal.SIGKILL, 8, rng, files=100).values()) == 8
    (tmp_path / "volume" / "out").mkdir(parents=True)
    volume = tmp_path / "volume" / "out"
    mounting = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume], capture_output=True)
    if mounting.returncode == 0:
        try:
            assert sum(kill_replacement(volume, signal.SIGKILL, 8, rng, files=100, mounted=True).values()) == 8
        finally:
            subprocess.run(["umount", volume], check=True)


@pytest.mark.parametrize(
    ("redirect", "code"),
    [(">/dev/full", 1), ("2>/dev/full", 0), (">&- 2>&-", 0), ("| true", 141), ("2>&1 >/dev/null | true", 0)],
)
def test_streams_that_cannot_be_written_stop_nothing(made, clip, tmp_path, redirect, code):
    """Full, closed or unread, stdout or stderr: results are written, and no traceback ends the command."""
    command = [*program("page4d-run"), made().folder, clip, "-o", tmp_path / "out", "--json"]
    shell = ["bash", "-c", f'set -o pipefail; "$@" {redirect}', "bash", *command]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=120)
    assert done.returncode == code and (tmp_path / "out" / "summary.json").exists()
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    if redirect == ">/dev/full":
        assert done.stderr.splitlines()[-1] == "page4d: stdout cannot be written: No space left on device"


def test_a_full_disk_leaves_nothing(made, clip, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted as root")
    try:
        refused(run(made().folder, clip, "-o", disk / "out"), 1, r"no space left on the disk")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_filmed_clip(made, real_clip, tmp_path):
    """Four cameras into an engine of two is an error; two of them run, with their masks."""
    refused(
        run(made().folder, real_clip, "-o", tmp_path / "out", "--fit", "crop"),
        2,
        r"got:\s+4 cameras: cam0, cam1, cam2, cam3",
    )
    for kind in ("frames", "masks"):
        for camera in ("cam1", "cam2"):
            shutil.copytree(real_clip / kind / camera, tmp_path / "two" / kind / camera)
    done = run(made().folder, tmp_path / "two", "-o", tmp_path / "out", "--fit", "crop")
    assert done.returncode == 0, done.stderr
    summary = read_summary(tmp_path / "out" / "summary.json")
    assert len(summary.windows) == 4
    dynamic, static = np.zeros(2), np.zeros(2)
    for window in summary.windows:
        mask = load_file(tmp_path / "out" / window.file)["mask"]
        assert np.isfinite(mask).all()
        start = int(window.first_frame)
        fit = Fit.choose((640, 480), made().plan.layout, "crop")
        for row in range(3):
            for v, camera in enumerate(("cam1", "cam2")):
                truth = fit.patch_mean(picture(real_clip / "masks" / camera / f"{start + row:06d}.png"))[:, 0] > 0.5
                flat = mask[row, v].ravel()
                dynamic += [flat[truth].sum(), truth.sum()]
                static += [flat[~truth].sum(), (~truth).sum()]
    assert dynamic[0] / dynamic[1] > static[0] / static[1] + 0.1  # the external mask lifts M where it is set


def test_verbosity_reaches_every_logger():
    project = logging.getLogger("page4d")
    before = project.level
    try:
        console.set_verbosity(True, False)
        assert backend._LOG.isEnabledFor(logging.INFO)
        console.set_verbosity(False, True)
        assert not backend._LOG.isEnabledFor(logging.WARNING)
    finally:
        project.setLevel(before)
