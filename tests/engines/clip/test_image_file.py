"""Single image files: damaged metadata, sizes beyond Pillow's limit, HEIC, more than 8 bits."""

import os
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.errors import MissingBackendError, OutOfMemoryError, UsageError
from page4d.layout import Layout
from page4d_engines.clip import frame_folder
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from tests.support.clips import write_png
from tests.support.examples import examples

SCENE = (np.arange(0, 180, 5)[:, None] + np.arange(0, 240, 5)).clip(0, 255).astype(np.uint8)  # [36,48]


def exif(orientation, *, damage=None):
    """An EXIF block; `damage` changes its bytes."""
    block = Image.Exif()
    block[0x0112] = orientation
    content = bytearray(block.tobytes())
    return bytes(damage(content) if damage else content)


def with_a_bad_tag(orientation, order="<", kind=3):
    """A block whose tag of the maker points beyond its end, which Pillow warns of."""
    number = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    maker = struct.pack(f"{order}HHII", 0x010F, 2, 4000, 900_000)
    entries = maker + struct.pack(f"{order}HHI", 0x0112, kind, 1) + number
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, 2) + entries + struct.pack(f"{order}I", 0)


def photos(folder, **options):
    folder.mkdir(exist_ok=True)
    Image.fromarray(SCENE).convert("RGB").save(folder / "p0.jpg", quality=95, **options)
    return FrameFolder.open(folder, loose=UngroupedImages.VIEWS)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage!!", b"Exif\0\0II*\0" + b"\xff" * 9, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0"]
)
def test_a_photo_with_exif_data_that_is_none_is_taken_as_it_is_stored(tmp_path, block):
    frames = photos(tmp_path / "photos", exif=block)
    assert frames.size == (48, 36) and np.abs(np.asarray(frames.image(0, 0)).astype(int)[..., 0] - SCENE).max() < 20
    assert all("EXIF data that cannot be read" in note and "p0.jpg" in note for note in frames.notes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_a_tag_that_cannot_be_read_leaves_the_orientation(tmp_path, order, kind):
    assert photos(tmp_path / "photos", exif=with_a_bad_tag(6, order, kind)).size == (36, 48)


@examples(200)
@given(data=st.data())
def test_no_exif_block_keeps_a_photo_from_being_read(tmp_path_factory, data):
    """However damaged, and where warnings are errors."""

    def damage(content):
        for _ in range(data.draw(st.integers(0, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        return content[: data.draw(st.integers(0, len(content)))]

    block = exif(data.draw(st.integers(1, 8)), damage=damage) or b"Exif\0\0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = photos(tmp_path_factory.getbasetemp() / "photos", exif=block)
        assert {*frames.size} == {48, 36} and frames.image(0, 0).size == frames.size


def test_warnings_as_errors_in_a_process_of_its_own(tmp_path):
    """A library's filter must hold where the interpreter was started with another."""
    photos(tmp_path / "photos", exif=with_a_bad_tag(6))
    code = """
import sys
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
print(FrameFolder.open(sys.argv[1], loose=UngroupedImages.VIEWS).image(0, 0).size)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "photos"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.stdout, done.returncode) == ("(36, 48)\n", 0), done.stderr


@pytest.mark.parametrize(("kind", "name"), [("WEBP", "WebP"), ("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF")])
def test_an_image_of_another_kind_is_called_by_it(tmp_path, kind, name):
    Image.fromarray(SCENE).save(tmp_path / "p0.jpg", kind)
    with pytest.raises(
        UsageError, match=f"camera p0, frame p0.jpg cannot be read: it is a {name} image, whatever its name says"
    ):
        FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)


def test_the_content_says_what_an_image_is_not_its_name(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / "p0.jpg", "PNG")
    assert (np.asarray(FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS).image(0, 0))[..., 0] == SCENE).all()


def test_heic_photos(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(SCENE).convert("RGB")).save(tmp_path / "p0.HEIC", quality=95)
    Image.fromarray(SCENE).save(tmp_path / "p1.png")
    (tmp_path / "p2.jpg").write_bytes((tmp_path / "p0.HEIC").read_bytes())  # as they come out of some exports
    frames = FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)
    assert frames.camera_names == ("p0", "p1", "p2") and frames.size == (48, 36) and frames.notes == ()
    for v in (0, 2):
        assert np.abs(np.asarray(frames.image(0, v)).astype(int)[..., 0] - SCENE).max() < 20


def test_heic_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "p0.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(MissingBackendError, match=r"page4d\[heic\]"):
        FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_photos_keep_their_colours_and_are_named(tmp_path, mode):
    image = Image.fromarray(SCENE).convert("L" if mode == "LA" else "RGB")
    if mode == "P":
        image.quantize(16).save(tmp_path / "p0.png", transparency=0)
    else:
        image.putalpha(Image.fromarray(np.where(SCENE > 99, 255, 0).astype(np.uint8)))
        image.save(tmp_path / "p0.png")
    frames = FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)
    (note,) = frames.notes
    assert "transparent parts" in note and np.abs(np.asarray(frames.image(0, 0)).astype(int)[..., 0] - SCENE).max() < 60


def png16(path, values):
    """An RGB PNG of 16 bits, which Pillow does not write: uint16 `[H,W,3]`."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    write_png(path, values.shape[1], values.shape[0], 16, rows)


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("most", [65535, 4095, 1023])
def test_16_bits_become_8_and_few_of_them_are_noted(tmp_path, colour, most):
    """Whatever the bits: 65535 is white. Of 12 or 10 bits in 16 nearly nothing is left, which is said."""
    values = np.linspace(0, most, 36 * 48).reshape(36, 48).astype(np.uint16)
    if colour:
        png16(tmp_path / "p0.png", np.repeat(values[..., None], 3, -1))
    else:
        Image.fromarray(values).save(tmp_path / "p0.png")
    frames = FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)
    assert frames.notes == ()
    assert np.abs(np.asarray(frames.image(0, 0))[..., 0] - values / 257).max() <= 1
    assert [("12 bits" in note) for note in frames.notes] == [True] * (most < 65535)


def test_a_photo_beyond_pillows_limit_is_read_in_the_memory_that_is_said(tmp_path):
    """180 megapixels, in a process of its own: the most that it held."""
    Image.new("1", (16320, 11000), 1).save(tmp_path / "p0.png", compress_level=1)
    code = """
import resource, sys
from page4d.layout import Layout
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
frames = FrameFolder.open(sys.argv[1], loose=UngroupedImages.VIEWS)
fit = Fit.choose(frames.size, Layout(1, 1, 56, 56), FitMode.CROP)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert (fit.image(frames.image(0, 0)) == 255).all()
print(frames.notes[0])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (16320 * 11000))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    note, bytes_a_pixel = done.stdout.splitlines()
    assert "180 megapixels: reading one takes 0.7 GB" in note and float(bytes_a_pixel) < 8


def test_an_image_of_a_few_bytes_that_says_it_is_endless(tmp_path, monkeypatch):
    write_png(tmp_path / "p0.png", 2**31 - 1, 2**31 - 1, 8, bytes(999))
    with pytest.raises(OutOfMemoryError, match=r"camera p0, frame p0.png is too large(.|\n)*megapixels") as caught:
        FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)
    assert caught.value.exit_code == 6
    write_png(tmp_path / "p0.png", 20_000, 10_000, 8, bytes(999))
    monkeypatch.setattr(frame_folder, "available_memory", lambda: 799_000_000)
    with pytest.raises(OutOfMemoryError, match=r"200 megapixels, 0\.8 GB"):
        FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)


def test_no_memory_while_decoding(tmp_path, monkeypatch):
    """Where the system says no, it is an error of the image's name."""
    write_png(tmp_path / "p0.png", 40_000, 40_000, 8, bytes(999))
    code = """
import pathlib, resource, sys
from page4d.errors import OutOfMemoryError
from page4d_engines.clip.image_file import ImageFile
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    ImageFile(pathlib.Path(sys.argv[1])).image("camera p0")
except OutOfMemoryError as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "p0.png"], capture_output=True, text=True)
    assert done.stdout == "camera p0 is too large for the memory that is left\n", done.stderr


@examples(30)
@given(rows=st.integers(1, 60), columns=st.integers(1, 60), at_once=st.integers(1, 500), seed=st.integers(0, 999))
def test_patch_means_of_large_images_are_those_of_small_ones(rows, columns, at_once, seed):
    """Taken part by part, they are the same up to the last bits."""
    source = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    fit = Fit.choose((columns, rows), Layout(1, 1, 28, 42), FitMode.CROP)
    whole = fit.patch_mean(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("page4d_engines.clip.fit._AT_ONCE", at_once)
        assert np.abs(fit.patch_mean(source) - whole).max() < 1e-6
