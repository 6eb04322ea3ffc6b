"""Clips on disk: what is found, what is refused and in which words, and how windows are read."""

import io
import itertools
import json
import os
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
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_export.sample_scene.clip import render, save
from tests.support.examples import examples

T, V, W, H = 7, 2, 48, 36
LAYOUT = Layout(T=3, V=V, H=42, W=56)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A rendered clip on disk, and the clip."""
    clip, folder = render(T, V, W, H), tmp_path_factory.mktemp("saved") / "clip"
    save(clip, folder)
    return clip, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved[1], tmp_path / "clip")


def keypoints_for(folder):
    shutil.copytree(folder / "masks", folder / "keypoints")
    for file in (folder / "keypoints").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)


def refusal(call, *parts):
    """The message of the UsageError that `call` ends in, which must hold all parts."""
    with pytest.raises(UsageError) as caught:
        call()
    for part in parts:
        assert str(part) in str(caught.value), f"{part!r} not in:\n{caught.value}"
    return str(caught.value)


# ---- a whole folder


def test_finds_everything_beside_the_frames(saved):
    clip, root = saved
    for path in (root, root / "frames", str(root)):
        found = FrameFolder.open(path)
        assert found.camera_names == ("cam0", "cam1") and found.size == (W, H) and found.count == T
        assert found.frame_names == tuple(f"{t:06d}" for t in range(T))
        assert found.keypoint_files is None and list(found.cameras) == ["cam0", "cam1"]
        for t in range(T):
            for v in range(V):
                image = found.image(t, v)
                assert image.mode == "RGB" and (np.asarray(image) == clip.frames[t, v]).all()
                mask = found.mask(t, v)
                assert mask.dtype == np.uint8 and (mask == clip.masks[t, v]).all()


def test_path_relative_to_the_frames_themselves(saved, monkeypatch):
    monkeypatch.chdir(saved[1] / "frames")
    found = FrameFolder.open(".")
    assert found.mask_files is not None and found.cameras is not None


def test_named_paths_go_before_what_lies_beside(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("masks", "cameras.json"):
        (folder / name).rename(other / name)
    bare = FrameFolder.open(folder)
    assert bare.mask_files is None and bare.cameras is None
    keypoints_for(other)
    found = FrameFolder.open(
        folder, masks=other / "masks", cameras=str(other / "cameras.json"), keypoints=other / "keypoints"
    )
    assert found.cameras is not None
    assert (found.keypoints(1, 1) == 255 - found.mask(1, 1)).all()


def test_natural_order_of_cameras_and_frames(tmp_path):
    for camera in ("cam10", "cam2", "cam1"):
        (tmp_path / camera).mkdir()
        for t in (10, 9, 1):
            Image.new("RGB", (4, 4), (t, 0, 0)).save(tmp_path / camera / f"f{t}.png")
    found = FrameFolder.open(tmp_path)
    assert found.camera_names == ("cam1", "cam2", "cam10") and found.frame_names == ("f1", "f9", "f10")
    assert [found.image(t, 0).getpixel((0, 0))[0] for t in range(3)] == [1, 9, 10]


def test_what_is_no_image_is_passed_over(folder):
    (folder / "frames" / ".cache").mkdir()
    (folder / "frames" / "notes.txt").write_text("x")
    (folder / "frames" / "cam0" / "Thumbs.db").write_bytes(b"x")
    (folder / "frames" / "cam0" / "._000000.png").write_bytes(b"x")
    (folder / "frames" / "cam1" / "000003.png").rename(folder / "frames" / "cam1" / "000003.PNG")
    assert FrameFolder.open(folder).count == T


def test_cameras_may_name_their_frames_each_in_its_own_way(folder):
    for kind in ("frames", "masks"):
        for file in (folder / kind / "cam1").iterdir():
            file.rename(file.with_name(f"right_{file.name}"))
    assert FrameFolder.open(folder).count == T


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    """The orientation says where the stored first row and column belong; the upright image has red on top, blue at the
    left below."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8], upright[8:, :16] = (255, 0, 0), (0, 0, 255)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "cam0").mkdir()
    Image.fromarray(np.ascontiguousarray(stored)).save(
        tmp_path / "cam0" / f"0.{suffix}", exif=exif, quality=95, subsampling=0
    )
    found = FrameFolder.open(tmp_path)
    assert found.size == (32, 16)
    assert np.abs(np.asarray(found.image(0, 0)).astype(int) - upright).max() < 40


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_other_modes_become_rgb_and_grey(tmp_path, mode):
    ramp = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (4, 1))
    grey = {"1": (ramp > 127) * np.uint8(255)}.get(mode, ramp)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    for kind in ("frames", "masks"):
        (tmp_path / kind / "cam0").mkdir(parents=True)
        image.save(tmp_path / kind / "cam0" / "0.png")
    found = FrameFolder.open(tmp_path)
    assert (np.asarray(found.image(0, 0)) == grey[..., None]).all() and (found.mask(0, 0) == grey).all()


# ---- what is refused when opening


def test_no_such_folder(tmp_path):
    (tmp_path / "film.zip").write_bytes(b"")
    refusal(
        lambda: FrameFolder.open(tmp_path / "nowhere"),
        "no such folder of frames",
        tmp_path / "nowhere",
        "<camera>/<frame>",
    )
    refusal(lambda: FrameFolder.open(tmp_path / "film.zip"), "path of the frames is not a folder", "film.zip")


def test_no_cameras(tmp_path):
    refusal(lambda: FrameFolder.open(tmp_path), "no camera folders", tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "0001.png")
    refusal(lambda: FrameFolder.open(tmp_path), "no camera folders", "cam0/0001.png")


def test_camera_without_images(folder):
    (folder / "frames" / "cam2").mkdir()
    refusal(lambda: FrameFolder.open(folder), "camera cam2 has no images", "*.png *.jpg *.jpeg")


def test_unequal_counts_name_camera_counts_and_first_missing_frame(folder):
    (folder / "frames" / "cam1" / "000002.png").unlink()
    refusal(lambda: FrameFolder.open(folder), "camera cam1: 6", "camera cam0: 7", "cam1 lacks is 000002")
    for file in (folder / "frames" / "cam1").iterdir():
        file.rename(file.with_name(f"right_{file.name}"))
    text = refusal(lambda: FrameFolder.open(folder), "camera cam1: 6", "camera cam0: 7")
    assert "lacks" not in text


def test_equal_counts_of_different_times(folder):
    (folder / "frames" / "cam0" / "000005.png").unlink()
    (folder / "frames" / "cam1" / "000002.png").unlink()
    refusal(lambda: FrameFolder.open(folder), "camera cam1 has no frame 000002, which camera cam0 has")


def test_a_frame_twice(folder):
    Image.new("RGB", (W, H)).save(folder / "frames" / "cam1" / "000004.jpg")
    refusal(lambda: FrameFolder.open(folder), "camera cam1 has frame 000004 twice", "000004.jpg", "000004.png")


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
    found = FrameFolder.open(folder)
    words = (
        "camera cam1, frame 000003.png",
        f"{H}x{W}",
        f"{W}x{H}, as camera cam0, frame 000000.png",
        "--fit stretch|crop|pad",
    )
    refusal(lambda: WindowReader(found, LAYOUT, None, False, False), *words)


def test_masks_that_do_not_match(folder):
    Image.new("L", (W, H + 1)).save(folder / "masks" / "cam0" / "000001.png")
    refusal(
        lambda: FrameFolder.open(folder), "camera cam0, mask 000001.png has another size", f"{W}x{H + 1}", f"{W}x{H}"
    )
    (folder / "masks" / "cam0" / "000001.png").unlink()
    refusal(lambda: FrameFolder.open(folder), "camera cam0 has no mask for frame 000001.png", "000001.png")
    shutil.rmtree(folder / "masks" / "cam0")
    refusal(lambda: FrameFolder.open(folder), "masks folder has no camera cam0", "cam0, cam1")


def test_keypoints_that_do_not_match(folder):
    keypoints_for(folder)
    (folder / "keypoints" / "cam1" / "000006.png").unlink()
    refusal(lambda: FrameFolder.open(folder), "camera cam1 has no keypoint map for frame 000006.png")


@pytest.mark.parametrize("name", ["masks", "keypoints", "cameras"])
def test_a_named_path_must_exist(folder, name):
    refusal(
        lambda: FrameFolder.open(folder, **{name: folder / "nowhere"}),
        "nowhere",
        name if name != "cameras" else "cannot be read",
    )


def test_cameras_that_do_not_match(folder):
    path = folder / "cameras.json"
    cameras = json.loads(path.read_text())
    path.write_text(json.dumps({**cameras, "cam1": {**cameras["cam1"], "width": 640}}))
    refusal(lambda: FrameFolder.open(folder), "cameras.json", "another size for camera cam1", f"640x{H}", f"{W}x{H}")
    path.write_text(json.dumps({"left": cameras["cam0"], "cam1": cameras["cam1"]}))
    refusal(lambda: FrameFolder.open(folder), "has no camera cam0", "left, cam1")
    path.write_text(
        json.dumps({"spare": {**cameras["cam1"], "width": 9}, "cam1": cameras["cam1"], "cam0": cameras["cam0"]})
    )
    assert list(FrameFolder.open(folder).cameras) == ["cam0", "cam1"]
    path.write_text("{")
    refusal(lambda: FrameFolder.open(folder), "cameras.json is not JSON")


# ---- files that are no images


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_without_an_image_header_is_refused_at_open(folder, content):
    (folder / "frames" / "cam1" / "000002.png").write_bytes(content)
    refusal(lambda: FrameFolder.open(folder), "camera cam1, frame 000002.png cannot be read", "PNG or JPEG")


@pytest.mark.parametrize("kind", ["frame", "mask"])
def test_a_truncated_image_is_refused_when_read(folder, kind):
    file = folder / f"{kind}s" / "cam1" / "000002.png"
    file.write_bytes(file.read_bytes()[:-40])
    found = FrameFolder.open(folder)
    refusal(
        lambda: found.image(2, 1) if kind == "frame" else found.mask(2, 1),
        f"camera cam1, {kind} 000002.png cannot be read",
        file,
    )


def test_files_that_change_after_opening(folder):
    found = FrameFolder.open(folder)
    (folder / "frames" / "cam0" / "000000.png").unlink()
    refusal(lambda: found.image(0, 0), "camera cam0, frame 000000.png cannot be read: no such file")
    Image.new("RGB", (5, 5)).save(folder / "frames" / "cam0" / "000001.png")
    refusal(lambda: found.image(1, 0), "camera cam0, frame 000001.png", "5x5", f"{W}x{H}")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about a damaged EXIF block
@examples(150)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpeg"]))
def test_damaged_bytes_are_an_image_or_a_usage_error(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    (folder / "cam0").mkdir(parents=True, exist_ok=True)
    for old in (folder / "cam0").iterdir():
        old.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(
        buffer, suffix, exif=exif
    )
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "cam0" / f"0.{suffix}").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert FrameFolder.open(folder).image(0, 0).mode == "RGB"
    except UsageError as error:
        assert f"camera cam0, frame 0.{suffix}" in str(error)


# ---- windows


@given(count=st.integers(1, 60), T=st.integers(1, 20), stride=st.integers(1, 20))
def test_windows_cover_every_frame(count, T, stride):
    if count < T or stride > T:
        with pytest.raises(UsageError):
            windows(count, T, stride)
        return
    found = windows(count, T, stride)
    assert all(len(window) == T for window in found)
    assert found[0][0] == 0 and found[-1][-1] == count - 1
    assert set().union(*found) == set(range(count))
    starts = [window[0] for window in found]
    assert starts == sorted(set(starts))
    assert all(b - a == stride for a, b in itertools.pairwise(starts[:-1]))
    assert len(found) == -(-(count - T) // stride) + 1, "no window more than needed"


def test_windows_that_cannot_be():
    refusal(lambda: windows(12, 24, 24), "12 frames", "T = 24", "--T 12")
    for stride in (0, -1, 25):
        refusal(lambda stride=stride: windows(48, 24, stride), "stride", stride, "1 to T = 24")


def inputs_directly(found, fit, window, keypoints):
    images = np.stack([[fit.image(found.image(t, v)) for v in range(V)] for t in window])
    masks = np.stack([[fit.patch_mean(found.mask(t, v)) for v in range(V)] for t in window])
    maps = np.stack([[fit.patch_mean(found.keypoints(t, v)) for v in range(V)] for t in window]) if keypoints else None
    return images, masks, maps


@pytest.mark.parametrize("mode", FitMode)
def test_reading_ahead_gives_what_direct_reading_gives(folder, mode):
    keypoints_for(folder)
    found = FrameFolder.open(folder)
    reader = WindowReader(found, LAYOUT, mode, wants_keypoints=True, wants_cameras=True)
    of = windows(found.count, LAYOUT.T, 2)
    seen, buffers = [], set()
    for window, inputs in reader.read(of):
        time.sleep(0.02)  # time for the next window to be read, which must leave this one alone
        images, masks, maps = inputs_directly(found, reader.fit(0, 0), window, True)
        assert (
            inputs.images.shape == LAYOUT.images_shape
            and inputs.images.dtype == np.uint8
            and (inputs.images == images).all()
        )
        assert (
            inputs.mask_ext.shape == LAYOUT.patch_map_shape
            and inputs.mask_ext.dtype == np.float32
            and (inputs.mask_ext == masks).all()
        )
        assert (
            inputs.keypoints.shape == LAYOUT.patch_map_shape
            and inputs.keypoints.dtype == np.float32
            and (inputs.keypoints == maps).all()
        )
        seen.append(window)
        buffers.add((id(inputs), inputs.images.ctypes.data, inputs.mask_ext.ctypes.data, inputs.keypoints.ctypes.data))
    assert seen == of and len(of) == 3 and len(buffers) == 2
    assert len(reader.decode_seconds) == len(of) and min(reader.decode_seconds) > 0


def test_fundamental_matrices_are_those_of_the_fitted_cameras(saved):
    found = FrameFolder.open(saved[1])
    reader = WindowReader(found, LAYOUT, FitMode.CROP, wants_keypoints=False, wants_cameras=True)
    fit = Fit.choose(found.size, LAYOUT, FitMode.CROP)
    expected = fundamental(fit.camera(camera) for camera in saved[0].cameras.values())
    for _, inputs in reader.read(windows(found.count, LAYOUT.T, 3)):
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
    found = FrameFolder.open(folder)

    def make(layout, keypoints=False, cameras=False, mode=None):
        return WindowReader(found, layout, mode, keypoints, cameras)

    refusal(lambda: make(Layout(T=3, V=4, H=42, W=56)), "2 cameras: cam0, cam1", "V = 4")
    refusal(lambda: make(Layout(T=3, V=2, H=42, W=56, B=2)), "B = 2", "B = 1")
    refusal(lambda: make(Layout(T=3, V=2, H=56, W=56)), f"{W}x{H}", "56x56", "--fit stretch|crop|pad")
    refusal(lambda: make(LAYOUT, keypoints=True), "keypoint", "--keypoints")
    (folder / "cameras.json").unlink()
    found = FrameFolder.open(folder)
    refusal(lambda: make(LAYOUT, cameras=True), "cameras.json", "--cameras")
    for window in (range(2), range(5, 8), range(-1, 2)):
        refusal(
            lambda window=window: list(make(LAYOUT).read([window])), "no window of the clip", window, "T = 3", "0 to 6"
        )


# ---- a filmed clip


def test_filmed_clip_opens_and_fits_without_a_mode(real_clip):
    found = FrameFolder.open(real_clip)
    assert len(found.camera_names) == 4 and found.count == 12 and found.size == (640, 480)
    assert found.mask_files is not None and found.cameras is not None
    layout = Layout(T=4, V=4, H=392, W=518)
    reader = WindowReader(found, layout, None, wants_keypoints=False, wants_cameras=True)
    for window, inputs in reader.read(windows(found.count, layout.T, layout.T)[:2]):
        for row, t in enumerate(window):
            for v in range(layout.V):
                source = np.asarray(found.image(t, v)).astype(float)
                assert np.abs(inputs.images[row, v].astype(float).mean((0, 1)) - source.mean((0, 1))).max() < 1
                assert inputs.mask_ext[row, v].mean() == pytest.approx(found.mask(t, v).mean() / 255, abs=1e-5)
        assert 0 < inputs.mask_ext.mean() < 0.5
        assert np.abs(inputs.fundamental).max() <= 1


def test_opening_reads_headers_only(real_clip, tmp_path):
    """A frame cut off after its header opens; only reading it fails."""
    folder = shutil.copytree(real_clip, tmp_path / "clip")
    for file in (folder / "frames").rglob("*.jpg"):
        os.truncate(file, 4096)
    assert FrameFolder.open(folder).size == (640, 480)


# ---- sizes of their own


@pytest.fixture
def mixed(tmp_path):
    """Two cameras of different sizes with masks and calibration; the frames are of one colour each."""
    cameras = {}
    for name, size in (("cam0", (64, 48)), ("cam1", (48, 64))):
        cameras[name] = render(1, 1, *size).cameras["cam0"].to_mapping()
        for kind in ("frames", "masks", "keypoints"):
            (tmp_path / kind / name).mkdir(parents=True)
            for t in range(3):
                Image.new("RGB" if kind == "frames" else "L", size, "white").save(tmp_path / kind / name / f"{t}.png")
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    return tmp_path


@pytest.mark.parametrize("mode", FitMode)
def test_frames_of_different_sizes_are_fitted_each_by_itself(mixed, mode):
    """Images, masks, keypoint maps and calibration."""
    found = FrameFolder.open(mixed)
    assert found.size is None and found.sizes == (((64, 48),) * 3, ((48, 64),) * 3)
    reader = WindowReader(found, LAYOUT, mode, wants_keypoints=True, wants_cameras=True)
    fits = [Fit.choose(size, LAYOUT, mode) for size in ((64, 48), (48, 64))]
    assert [reader.fit(2, v) for v in range(2)] == fits
    (_, inputs), *_ = reader.read([range(3)])
    for v, fit in enumerate(fits):
        left, top, width, height = fit.target
        shown = np.zeros((LAYOUT.H, LAYOUT.W), bool)
        shown[top : top + height, left : left + width] = True
        assert ((inputs.images[:, v] == 255).all(-1) == shown).all()
        share = shown.reshape(LAYOUT.h, 14, LAYOUT.w, 14).mean((1, 3)).reshape(-1, 1)
        assert (
            np.abs(inputs.mask_ext[:, v] - share).max() < 1e-6 and np.abs(inputs.keypoints[:, v] - share).max() < 1e-6
        )
    want = fundamental(fit.camera(camera) for fit, camera in zip(fits, found.cameras.values(), strict=True))
    np.testing.assert_array_equal(inputs.fundamental, want.astype(np.float32))


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


def test_odd_cameras_are_noted(folder):
    path = folder / "cameras.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: {**entry, "k1": -0.3} for name, entry in content.items()}))
    (note,) = FrameFolder.open(folder).notes
    assert "cam0, cam1: lens distortion is not applied" in note
