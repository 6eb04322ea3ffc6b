"""Windows of a clip, read ahead into arrays of the engines' size."""

import itertools
import json
import shutil
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.cameras import fundamental
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_export.sample_scene.clip import render
from tests.support.clips import H, T, V, W, keypoints_for, refusal

LAYOUT = Layout(T=3, V=V, H=42, W=56)


# ---- windows


@given(count=st.integers(1, 60), T=st.integers(1, 20), stride=st.integers(1, 20))
def test_windows_cover_every_frame(count, T, stride):
    if count < T or stride > T:
        with pytest.raises(UsageError):
            windows(count, T, stride)
        return
    ranges = windows(count, T, stride)
    assert all(len(window) == T for window in ranges)
    assert ranges[0][0] == 0 and ranges[-1][-1] == count - 1
    assert set().union(*ranges) == set(range(count))
    starts = [window[0] for window in ranges]
    assert starts == sorted(set(starts))
    assert all(b - a == stride for a, b in itertools.pairwise(starts[:-1]))
    assert len(ranges) == -(-(count - T) // stride) + 1, "no window more than needed"


def test_windows_that_cannot_be():
    refusal(lambda: windows(12, 24, 24), "12 frames", "T = 24", "--T 12")
    for stride in (0, -1, 25):
        refusal(lambda stride=stride: windows(48, 24, stride), "stride", stride, "1 to T = 24")


def inputs_directly(frames, fit, window):
    images = np.stack([[fit.image(frames.image(t, v)) for v in range(V)] for t in window])
    masks = np.stack([[fit.patch_mean(frames.mask(t, v)) for v in range(V)] for t in window])
    maps = np.stack([[fit.patch_mean(frames.keypoints(t, v)) for v in range(V)] for t in window])
    return images, masks, maps


@pytest.mark.parametrize("mode", [*TO_ANY_SIZE, FitMode.PUBLISHED])
def test_reading_ahead_gives_what_direct_reading_gives(folder, mode):
    keypoints_for(folder)
    frames = FrameFolder.open(folder)
    reader = WindowReader(frames, LAYOUT, mode, wants_keypoints=True, wants_cameras=True)
    of = windows(frames.count, LAYOUT.T, 2)
    seen, buffers = [], set()
    for window, inputs in reader.read(of):
        time.sleep(0.02)  # time for the next window to be read, which must leave this one alone
        images, masks, maps = inputs_directly(frames, reader.fit(0, 0), window)
        assert inputs.images.shape == LAYOUT.images_shape and inputs.images.dtype == np.uint8
        assert (inputs.images == images).all()
        for patches, expected in ((inputs.mask_ext, masks), (inputs.keypoints, maps)):
            assert patches.shape == LAYOUT.patch_map_shape and patches.dtype == np.float32
            assert (patches == expected).all()
        seen.append(window)
        buffers.add((id(inputs), inputs.images.ctypes.data, inputs.mask_ext.ctypes.data, inputs.keypoints.ctypes.data))
    assert seen == of and len(of) == 3 and len(buffers) == 2
    assert len(reader.decode_seconds) == len(of) and min(reader.decode_seconds) > 0


def test_fundamental_matrices_are_those_of_the_fitted_cameras(saved):
    frames = FrameFolder.open(saved[1])
    reader = WindowReader(frames, LAYOUT, FitMode.CROP, wants_keypoints=False, wants_cameras=True)
    fit = Fit.choose(frames.size, LAYOUT, FitMode.CROP)
    expected = fundamental(fit.camera(camera) for camera in saved[0].cameras.values())
    for _, inputs in reader.read(windows(frames.count, LAYOUT.T, 3)):
        assert inputs.fundamental.shape == LAYOUT.fundamental_shape and inputs.fundamental.dtype == np.float32
        assert (inputs.fundamental == expected.astype(np.float32)).all() and inputs.keypoints is None


def test_no_masks_are_zeros_and_what_is_not_wanted_is_not_read(folder):
    shutil.rmtree(folder / "masks")
    (folder / "cameras.json").unlink()
    reader = WindowReader(FrameFolder.open(folder), LAYOUT, None, wants_keypoints=False, wants_cameras=False)
    for _, inputs in reader.read([range(3), range(4, 7)]):
        assert (inputs.mask_ext == 0).all() and inputs.keypoints is None and inputs.fundamental is None


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("page4d-frames")]


def test_the_next_window_is_read_while_the_caller_has_this_one(saved):
    reader = WindowReader(FrameFolder.open(saved[1]), LAYOUT, None, False, False)
    steps = reader.read([range(3), range(3, 6)])
    _, first = next(steps)
    other = next(inputs for inputs in reader._sets if inputs is not first)
    deadline = time.monotonic() + 10
    while not other.images[-1, -1].any() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert other.images.any((2, 3, 4)).all(), "the second set fills without being asked for"
    assert len(list(steps)) == 1 and not reading_threads()


def test_stopping_early_ends_the_thread_and_frees_the_arrays(saved):
    reader = WindowReader(FrameFolder.open(saved[1]), LAYOUT, None, False, False)
    of = windows(T, LAYOUT.T, 1)
    for _ in reader.read(of):
        break
    else:
        pytest.fail("no window")
    steps = reader.read(of)
    next(steps)
    with pytest.raises(RuntimeError, match="in use"):
        next(reader.read(of))
    steps.close()
    assert not reading_threads()
    assert len(list(reader.read(of))) == len(of)
    assert list(reader.read([])) == []


def test_a_damaged_frame_surfaces_when_its_window_is_due(folder):
    file = folder / "frames" / "cam1" / "000004.png"
    file.write_bytes(file.read_bytes()[:-40])
    reader = WindowReader(FrameFolder.open(folder), LAYOUT, None, False, False)
    done = []
    text = refusal(
        lambda: [done.append(window) for window, _ in reader.read(windows(T, 3, 3))], "camera cam1, frame 000004.png"
    )
    assert done == [range(3)] and "cannot be read" in text and not reading_threads()


def test_reader_checks_layout_and_inputs(folder):
    frames = FrameFolder.open(folder)

    def make(layout, keypoints=False, cameras=False, mode=None):
        return WindowReader(frames, layout, mode, keypoints, cameras)

    refusal(lambda: make(Layout(T=3, V=4, H=42, W=56)), "2 cameras: cam0, cam1", "V = 4")
    refusal(lambda: make(Layout(T=3, V=2, H=42, W=56, B=2)), "B = 2", "B = 1")
    refusal(lambda: make(Layout(T=3, V=2, H=56, W=56)), f"{W}x{H}", "56x56", "--fit stretch|crop|pad")
    refusal(lambda: make(LAYOUT, keypoints=True), "keypoint", "--keypoints")
    (folder / "cameras.json").unlink()
    frames = FrameFolder.open(folder)
    refusal(lambda: make(LAYOUT, cameras=True), "cameras.json", "--cameras")
    for window in (range(2), range(5, 8), range(-1, 2)):
        refusal(
            lambda window=window: list(make(LAYOUT).read([window])), "no window of the clip", window, "T = 3", "0 to 6"
        )


def test_filmed_clip_opens_and_fits_without_a_mode(real_clip):
    frames = FrameFolder.open(real_clip)
    assert len(frames.camera_names) == 4 and frames.count == 12 and frames.size == (640, 480)
    assert frames.mask_files is not None and frames.cameras is not None
    layout = Layout(T=4, V=4, H=392, W=518)
    reader = WindowReader(frames, layout, None, wants_keypoints=False, wants_cameras=True)
    for window, inputs in reader.read(windows(frames.count, layout.T, layout.T)[:2]):
        for row, t in enumerate(window):
            for v in range(layout.V):
                source = np.asarray(frames.image(t, v)).astype(float)
                assert np.abs(inputs.images[row, v].astype(float).mean((0, 1)) - source.mean((0, 1))).max() < 1
                assert inputs.mask_ext[row, v].mean() == pytest.approx(frames.mask(t, v).mean() / 255, abs=1e-5)
        assert 0 < inputs.mask_ext.mean() < 0.5
        assert np.abs(inputs.fundamental).max() <= 1


# ---- sizes that differ


COLOUR = (9, 200, 99)


@pytest.fixture
def mixed(tmp_path):
    """Two cameras of different sizes with masks and calibration; the frames are of one colour each."""
    cameras = {}
    for name, size in (("cam0", (64, 48)), ("cam1", (48, 64))):
        cameras[name] = render(1, 1, *size).cameras["cam0"].to_mapping()
        for kind in ("frames", "masks", "keypoints"):
            (tmp_path / kind / name).mkdir(parents=True)
            for t in range(3):
                image = Image.new("RGB", size, COLOUR) if kind == "frames" else Image.new("L", size, 255)
                image.save(tmp_path / kind / name / f"{t}.png")
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    return tmp_path


@pytest.mark.parametrize("mode", FitMode)
def test_frames_of_different_sizes_are_fitted_each_by_itself(mixed, mode):
    """Images, masks, keypoint maps and calibration."""
    frames, layout = FrameFolder.open(mixed), LAYOUT if mode in TO_ANY_SIZE else Layout(T=3, V=V, H=56, W=56)
    assert frames.size is None and frames.sizes == (((64, 48),) * 3, ((48, 64),) * 3)
    reader = WindowReader(frames, layout, mode, wants_keypoints=True, wants_cameras=True)
    fits = [Fit.choose(size, layout, mode) for size in ((64, 48), (48, 64))]
    assert [reader.fit(2, v) for v in range(2)] == fits
    (_, inputs), *_ = reader.read([range(3)])
    for v, fit in enumerate(fits):
        left, top, width, height = fit.target
        shown = np.zeros((layout.H, layout.W), bool)
        shown[top : top + height, left : left + width] = True
        assert ((inputs.images[:, v] == COLOUR).all(-1) == shown).all()
        share = shown.reshape(layout.h, 14, layout.w, 14).mean((1, 3)).reshape(-1, 1)
        for patches in (inputs.mask_ext, inputs.keypoints):
            assert np.abs(patches[:, v] - share).max() < 1e-6
    expected = fundamental(fit.camera(camera) for fit, camera in zip(fits, frames.cameras.values(), strict=True))
    np.testing.assert_array_equal(inputs.fundamental, expected.astype(np.float32))


def test_frames_of_different_sizes_in_one_camera(mixed):
    Image.new("RGB", (100, 30), "white").save(mixed / "frames" / "cam0" / "1.png")
    refusal(lambda: FrameFolder.open(mixed), "camera cam0, mask 1.png has another size")
    shutil.rmtree(mixed / "masks")
    shutil.rmtree(mixed / "keypoints")
    refusal(
        lambda: FrameFolder.open(mixed),
        "another size for camera cam0",
        "64x48",
        "100x30",
        "a camera has one size, and frame 1.png",
    )
    (mixed / "cameras.json").unlink()
    reader = WindowReader(FrameFolder.open(mixed), LAYOUT, FitMode.PAD, False, False)
    assert reader.fit(1, 0) == Fit.choose((100, 30), LAYOUT, FitMode.PAD) != reader.fit(0, 0)
    assert len(list(reader.read([range(3)]))) == 1


def test_mixed_sizes_name_camera_and_frame(folder):
    Image.new("RGB", (H, W)).save(folder / "frames" / "cam1" / "000003.png")
    refusal(
        lambda: FrameFolder.open(folder),
        "camera cam1, mask 000003.png has another size than its frame",
        f"{W}x{H}",
        f"{H}x{W}",
    )
    shutil.rmtree(folder / "masks")
    refusal(
        lambda: FrameFolder.open(folder),
        "another size for camera cam1",
        f"{W}x{H}",
        f"{H}x{W}",
        "one size, and frame 000003.png",
    )
    (folder / "cameras.json").unlink()
    frames = FrameFolder.open(folder)
    words = (
        "camera cam1, frame 000003.png",
        f"{H}x{W}",
        f"{W}x{H}, as camera cam0, frame 000000.png",
        "--fit stretch|crop|pad",
    )
    refusal(lambda: WindowReader(frames, LAYOUT, None, False, False), *words)
