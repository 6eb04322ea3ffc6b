"""Photos brought to the engine's size as Depth Anything 3's public code does, on the way that a run takes them."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.cameras import Camera
from page4d.layout import Layout
from page4d_engines.clip.da3.opencv_resize import resize
from page4d_engines.clip.da3.sizes import common_size, passes, side_for
from page4d_engines.clip.fit import Fit, FitMode, PhotoWay
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.window_reader import Fits, WindowReader
from tests.support.beside import golden_recipe
from tests.support.clips import refusal
from tests.support.examples import examples
from tests.vectors.make import picture

PUBLISHED = FitMode.PUBLISHED


def photos(folder, *images):
    """A folder of PNG files, opened as the frames of one camera."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    return FrameFolder.open(folder, loose=UngroupedImages.TIMES)


def fits_of(folder, width, height, mode=None, way=PhotoWay.DA3):
    return Fits.choose(folder, Layout(T=folder.count, V=1, H=height, W=width), mode, way)


def fitted(folder, width, height, mode=None):
    """What the engines read: uint8 `[T,H,W,3]`."""
    layout = Layout(T=folder.count, V=1, H=height, W=width)
    reader = WindowReader(folder, layout, mode, False, False, PhotoWay.DA3)
    (_, inputs), *_ = reader.read([range(folder.count)])
    return inputs.images[:, 0].copy()


# ---- OpenCV's filters

OPENCV = [  # (width, height) of picture(.., seed = place in this list), of the result, crc32 of cv2.resize's bytes
    ((64, 48), (56, 42), 0x7F2D7E51),
    ((61, 47), (23, 31), 0x08F34E0F),
    ((84, 56), (42, 28), 0xFB402EDF),
    ((90, 60), (30, 20), 0x6E1D5428),
    ((60, 30), (30, 30), 0x3D8E42E1),
    ((504, 284), (504, 280), 0xECB01CA2),
    ((37, 23), (50, 20), 0x926B5FC6),
    ((33, 45), (70, 98), 0x6DBB0BE3),
    ((20, 90), (21, 45), 0xD3412394),
    ((1, 1), (5, 3), 0x1C41406D),
    ((301, 7), (300, 6), 0x04DE3B3D),
]
"""OpenCV 5.0.0 with `cv2.ipp.setUseIPP(False)`; INTER_AREA where no side grows, INTER_CUBIC otherwise."""


@pytest.mark.parametrize("seed", range(len(OPENCV)))
def test_resize_gives_opencvs_bytes(seed):
    source, target, crc32 = OPENCV[seed]
    assert zlib.crc32(resize(picture(*source, seed), *target).tobytes()) == crc32


def test_photos_of_many_rows_are_scaled_in_strips_as_a_whole():
    """Rows are independent of how many are scaled at a time."""
    tall = picture(40, 1500, 3)
    whole, upper = resize(tall, 35, 750), resize(tall[:500], 35, 250)
    assert (whole[:250] == upper).all()
    tall = picture(40, 1500, 4)
    assert (resize(tall, 20, 500)[:250] == resize(tall[:750], 20, 250)).all()


@examples(60)
@given(
    size=st.tuples(*[st.integers(1, 60)] * 2), target=st.tuples(*[st.integers(1, 60)] * 2), level=st.integers(0, 255)
)
def test_an_even_image_stays_even(size, target, level):
    result = resize(np.full((size[1], size[0], 3), level, np.uint8), *target)
    assert result.shape == (target[1], target[0], 3) and np.abs(result.astype(int) - level).max() <= 1


# ---- the public code's values


@pytest.mark.parametrize(("name", "most"), [("dev.photo.landscape", 0), ("dev.photo.small", 2)])
def test_photos_are_those_of_the_public_code(name, most, tmp_path):
    """The one that shrinks byte for byte; the other, which grows, was made by OpenCV's wheel, which has IPP's cubic."""
    recipe = golden_recipe("golden_models_recipe")
    folder = photos(tmp_path / "photos", Image.fromarray(recipe.photo(name, *recipe.DA3_PHOTOS[name])))
    width, height = common_size([folder.sizes[0][0]])
    (image,) = fitted(folder, width, height)
    stored = np.load(recipe.HERE / "golden_da3_dev.npz")
    assert image.shape == tuple(stored[f"{name}/shape"])
    differences = np.abs(image.ravel()[stored[f"{name}/idx"]] - stored[f"{name}/ref"])
    assert differences.max() <= most and (differences > 0).mean() <= 0.05 * (most > 0)


# ---- sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), ((504, 378), (504, 378))),
        ((1920, 1080), ((504, 284), (504, 280))),
        ((300, 401), ((377, 504), (378, 504))),
        ((504, 287), ((504, 287), (504, 294))),  # of two equally near ones the higher
        ((1008, 7), ((504, 4), (504, 1))),  # half to even; no patch
    ],
)
def test_the_longer_side_is_scaled_and_both_are_rounded(size, expected):
    assert passes(size) == expected


def test_the_side_is_the_public_codes_or_else_the_engines():
    assert side_for([(640, 480)], Layout(1, 1, 378, 504)) == 504
    assert side_for([(640, 480)], Layout(1, 1, 210, 280)) == 280
    assert side_for([(640, 480), (480, 640)], Layout(1, 1, 378, 378)) == 504
    assert side_for([(640, 480)], Layout(1, 1, 378, 378)) is None


def test_photos_of_different_sizes_are_cut_to_the_middle_of_the_smallest(tmp_path):
    images = [Image.fromarray(picture(*size, seed)) for seed, size in enumerate([(640, 480), (480, 640), (100, 90)])]
    result = fitted(photos(tmp_path / "photos", *images), 378, 378)
    corners = [(63, 0), (0, 63), (63, 35)]
    for number, (image, (left, top)) in enumerate(zip(images, corners, strict=True)):
        pixels = np.asarray(image)
        for width, height in passes(image.size):
            pixels = resize(pixels, width, height)
        assert (result[number] == pixels[top : top + 378, left : left + 378]).all()


def test_cameras_and_masks_follow_crop_and_scale(tmp_path):
    sizes = [(1920, 1080), (480, 640)]
    folder = photos(tmp_path / "photos", *(Image.new("RGB", size) for size in sizes))
    fits = fits_of(folder, 378, 280)
    for (width, height), (scaled_width, scaled_height) in zip(sizes, [(504, 280), (378, 504)], strict=True):
        fit = fits.by_size[width, height]
        source = Camera(width, height, np.array([[900.0, 0, width / 2], [0, 800, height / 3], [0, 0, 1]]), np.eye(3, 4))
        camera = fit.camera(source)
        expected = source.K * [[scaled_width / width], [scaled_height / height], [1]]
        expected[:2, 2] -= (scaled_width - 378) // 2, (scaled_height - 280) // 2
        assert np.allclose(camera.K, expected, rtol=1e-12)
        back = fit.source_camera(camera)
        assert np.allclose(back.K, source.K, rtol=1e-12) and (back.width, back.height) == (width, height)
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 255
        mean = fit.patch_mean(mask).reshape(20, 27)
        assert (mean[:, :13] == 1).all() and (mean[:, 14:] == 0).all() and np.allclose(mean[:, 13], 0.5)


# ---- which mode is taken


@pytest.mark.parametrize("mode", [PUBLISHED, None])
def test_published_means_this_for_depth_anything(tmp_path, mode):
    folder = photos(tmp_path / "photos", Image.fromarray(picture(64, 36, 0)))
    fits = fits_of(folder, 56, 28, mode)
    assert fits.mode is PUBLISHED and fits.by_size[64, 36] == Fit.as_da3((64, 36), Layout(1, 1, 28, 56), 56)
    assert fits_of(folder, 56, 28, FitMode.CROP).by_size[64, 36].passes == ()
    vggt = fits_of(folder, 56, 28, PUBLISHED, None)
    assert vggt.by_size[64, 36].scaled == (56, 28), "without a way of its own a model's photos are scaled as VGGT's"


def test_frames_of_the_engines_aspect_ratio_need_no_mode_at_another_size(tmp_path):
    """The public code makes 504x406 of these: of two equally near multiples of 14 the higher."""
    folder = photos(tmp_path / "photos", Image.new("RGB", (504, 399)))
    fits = fits_of(folder, 504, 392)
    assert fits.mode is None and fits.by_size[504, 399].passes == ()


@pytest.mark.parametrize("mode", [PUBLISHED, None])
@pytest.mark.parametrize(
    ("sizes", "right"),
    [([(640, 480)], (504, 378)), ([(1920, 1080)], (504, 280)), ([(640, 480), (480, 640)], (378, 378))],
)
def test_an_engine_of_another_size_is_refused_and_the_right_one_named(tmp_path, mode, sizes, right):
    folder = photos(tmp_path / "photos", *(Image.new("RGB", size) for size in sizes))
    refusal(
        lambda: fits_of(folder, 518, 518, mode),
        "Depth Anything 3's public code",
        "engine's 518x518",
        "frames of " + ", ".join(f"{width}x{height}" for width, height in sizes),
        f"an engine of {right[0]}x{right[1]}",
        f"page4d-export --height {right[1]} --width {right[0]}, or --fit stretch|crop|pad",
    )


def test_extreme_aspect_ratios_are_refused(tmp_path):
    folder = photos(tmp_path / "photos", Image.new("RGB", (2000, 10)))
    refusal(lambda: fits_of(folder, 504, 14), "aspect ratio", "2000x10", "504x1", "--fit stretch|crop|pad")


def test_colours_under_transparency_are_taken_as_the_public_code_does(tmp_path):
    image = Image.fromarray(picture(56, 42, 0))
    image.putalpha(Image.fromarray(picture(56, 42, 1)[..., 0]))
    assert (fitted(photos(tmp_path / "photos", image), 56, 42)[0] == picture(56, 42, 0)).all()


# ---- what the report says


@pytest.mark.parametrize(
    ("size", "engine", "sentence"),
    [
        ((640, 480), (504, 378), "were scaled to 504x378 (OpenCV's area or cubic filter), as Depth Anything 3's"),
        ((1920, 1080), (504, 280), "were scaled to 504x284 and then to 504x280 (OpenCV's area or cubic filter), as"),
        ((504, 378), (504, 378), "were taken as they are"),
    ],
)
def test_a_sentence_says_what_was_done(tmp_path, size, engine, sentence):
    folder = photos(tmp_path / "photos", Image.new("RGB", size))
    (text,) = fits_of(folder, *engine).sentences(folder)
    assert text.startswith(f"{size[0]}x{size[1]} frames {sentence}")


def test_a_sentence_says_what_was_cut(tmp_path):
    folder = photos(tmp_path / "photos", Image.new("RGB", (640, 480)), Image.new("RGB", (480, 640)))
    assert fits_of(folder, 378, 378).sentences(folder)[1] == (
        "480x640 frames were scaled to 378x504 (OpenCV's area or cubic filter) and cut to their middle 378x378,"
        " as Depth Anything 3's public code does"
    )
