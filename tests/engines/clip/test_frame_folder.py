"""Folders of frames: what is found, what is refused and with which message."""

import io
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.errors import UsageError
from page4d_engines.clip.frame_folder import FrameFolder
from tests.support.clips import H, T, V, W, refusal
from tests.support.examples import examples

# ---- a whole folder


def test_finds_everything_beside_the_frames(saved):
    clip, root = saved
    for path in (root, root / "frames", str(root)):
        frames = FrameFolder.open(path)
        assert frames.camera_names == ("cam0", "cam1") and frames.size == (W, H) and frames.count == T
        assert frames.frame_names == tuple(f"{t:06d}" for t in range(T))
        assert frames.keypoint_files is None and list(frames.cameras) == ["cam0", "cam1"]
        for t in range(T):
            for v in range(V):
                image = frames.image(t, v)
                assert image.mode == "RGB" and (np.asarray(image) == clip.frames[t, v]).all()
                mask = frames.mask(t, v)
                assert mask.dtype == np.uint8 and (mask == clip.masks[t, v]).all()


def test_path_relative_to_the_frames_themselves(saved, monkeypatch):
    monkeypatch.chdir(saved[1] / "frames")
    frames = FrameFolder.open(".")
    assert frames.mask_files is not None and frames.cameras is not None


def test_natural_order_of_cameras_and_frames(tmp_path):
    for camera in ("cam10", "cam2", "cam1"):
        (tmp_path / camera).mkdir()
        for t in (10, 9, 1):
            Image.new("RGB", (4, 4), (t, 0, 0)).save(tmp_path / camera / f"f{t}.png")
    frames = FrameFolder.open(tmp_path)
    assert frames.camera_names == ("cam1", "cam2", "cam10") and frames.frame_names == ("f1", "f9", "f10")
    assert [frames.image(t, 0).getpixel((0, 0))[0] for t in range(3)] == [1, 9, 10]


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
    """The orientation says where the stored first row and column belong.

    The upright image has red on top, blue at the left below."""
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
    frames = FrameFolder.open(tmp_path)
    assert frames.size == (32, 16)
    assert np.abs(np.asarray(frames.image(0, 0)).astype(int) - upright).max() < 40


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_other_modes_become_rgb_and_grey(tmp_path, mode):
    ramp = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (4, 1))
    grey = {"1": (ramp > 127) * np.uint8(255)}.get(mode, ramp)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    for kind in ("frames", "masks"):
        (tmp_path / kind / "cam0").mkdir(parents=True)
        image.save(tmp_path / kind / "cam0" / "0.png")
    frames = FrameFolder.open(tmp_path)
    assert (np.asarray(frames.image(0, 0)) == grey[..., None]).all() and (frames.mask(0, 0) == grey).all()


def test_opening_reads_headers_only(real_clip, tmp_path):
    """A frame cut off after its header opens; only reading it fails."""
    folder = shutil.copytree(real_clip, tmp_path / "clip")
    for file in (folder / "frames").rglob("*.jpg"):
        os.truncate(file, 4096)
    assert FrameFolder.open(folder).size == (640, 480)


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


# ---- files that are no images


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_without_an_image_header_is_refused_at_open(folder, content):
    (folder / "frames" / "cam1" / "000002.png").write_bytes(content)
    refusal(lambda: FrameFolder.open(folder), "camera cam1, frame 000002.png cannot be read", "PNG or JPEG")


@pytest.mark.parametrize("kind", ["frame", "mask"])
def test_a_truncated_image_is_refused_when_read(folder, kind):
    file = folder / f"{kind}s" / "cam1" / "000002.png"
    file.write_bytes(file.read_bytes()[:-40])
    frames = FrameFolder.open(folder)
    refusal(
        lambda: frames.image(2, 1) if kind == "frame" else frames.mask(2, 1),
        f"camera cam1, {kind} 000002.png cannot be read",
        file,
    )


def test_files_that_change_after_opening(folder):
    frames = FrameFolder.open(folder)
    (folder / "frames" / "cam0" / "000000.png").unlink()
    refusal(lambda: frames.image(0, 0), "camera cam0, frame 000000.png cannot be read: no such file")
    Image.new("RGB", (5, 5)).save(folder / "frames" / "cam0" / "000001.png")
    refusal(lambda: frames.image(1, 0), "camera cam0, frame 000001.png", "5x5", f"{W}x{H}")


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
