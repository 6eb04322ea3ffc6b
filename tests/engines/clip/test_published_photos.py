"""Photos brought to the engine's size as VGGT's public code does, on the way that a run takes them."""

import dataclasses
import html

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from page4d import ModelConfig
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.published import Published
from page4d.system.progress import SILENT
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit, FitMode, PhotoWay
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.window_reader import Fits, WindowReader
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.results.clip_run import ClipRun
from page4d_engines.results.summary import read_summary
from tests.support.beside import golden_recipe
from tests.support.clips import refusal
from tests.support.examples import examples

BICUBIC = Image.Resampling.BICUBIC
PUBLISHED, PAD = FitMode.PUBLISHED, FitMode.PUBLISHED_PAD


def naive(images, target, pad, by_axis=False):
    """What the public code makes of PIL images: uint8 `[n,H,W,3]`; `by_axis` scales the width first, then the height.

    So does Pillow in one call up to version 12; from 13 on it begins with the height of photos that shrink and are more
    than twice as tall as wide.
    """
    arrays = []
    for image in images:
        width, height = image.size
        new = (target, round(height * (target / width) / 14) * 14)
        if pad and height > width:
            new = (round(width * (target / height) / 14) * 14, target)
        image = image.resize((new[0], height), BICUBIC) if by_axis else image
        array = np.asarray(image.resize(new, BICUBIC))
        if pad:
            array = whitened(array, target, target)
        elif new[1] > target:
            array = array[(new[1] - target) // 2 :][:target]
        arrays.append(array)
    rows, columns = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
    return np.stack([whitened(array, rows, columns) for array in arrays])


def whitened(array, rows, columns):
    down, across = rows - array.shape[0], columns - array.shape[1]
    sides = (down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)
    return np.pad(array, sides, constant_values=255)


def noise(*size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def photos(folder, *images):
    """A folder of PNG files, opened as the frames of one camera."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    return FrameFolder.open(folder, loose=UngroupedImages.TIMES)


def reader(folder, width, height, mode=None, way=PhotoWay.VGGT):
    return WindowReader(folder, Layout(T=folder.count, V=1, H=height, W=width), mode, False, False, way)


def fitted(folder, width, height, mode=None):
    """What the engines read: uint8 `[T,H,W,3]`."""
    (_, inputs), *_ = reader(folder, width, height, mode).read([range(folder.count)])
    return inputs.images[:, 0].copy()


# ---- the public code's values


@pytest.mark.parametrize("name", ["dev.photos.crop", "dev.photos.pad"])
def test_photos_are_those_of_the_public_code(name, tmp_path):
    recipe = golden_recipe("golden_heads_recipe")
    mode, sizes = recipe.PREPROCESS[name]
    images = [Image.fromarray(recipe.photo(f"{name}.{number}", *size)) for number, size in enumerate(sizes)]
    folder = photos(tmp_path / "photos", *images)
    result = fitted(folder, 518, 392) if mode == "crop" else fitted(folder, 518, 518, PAD)
    recipe.check(name, result.transpose(0, 3, 1, 2) / 255, 1e-6)


# ---- the definition


@pytest.mark.parametrize(
    ("sizes", "height"),
    [
        ([(64, 48)], 42),
        ([(300, 500)], 56),  # 98 rows, of which 56 are left
        ([(100, 61)], 28),  # 34.2 pixels: two and a half patches are rounded to two
        ([(56, 21)], 28),  # one and a half patches are rounded to two
        ([(56, 35)], 28),  # two and a half to two
        ([(64, 48), (64, 30), (1000, 1100)], 56),
        ([(64, 48), (128, 64), (65, 33)], 42),  # 7 rows of white on either side
    ],
)
def test_crop_is_as_the_public_code_defines_it(tmp_path, sizes, height):
    images = [noise(*size, seed=number) for number, size in enumerate(sizes)]
    expected = naive(images, 56, pad=False)
    assert expected.shape[1:3] == (height, 56)
    for mode in (PUBLISHED, None):
        assert (fitted(photos(tmp_path / "photos", *images), 56, height, mode) == expected).all()


@pytest.mark.parametrize("sizes", [[(64, 48)], [(48, 64)], [(56, 56), (90, 30), (50, 95)]])
def test_pad_is_as_the_public_code_defines_it(tmp_path, sizes):
    images = [noise(*size, seed=number) for number, size in enumerate(sizes)]
    result = fitted(photos(tmp_path / "photos", *images), 56, 56, PAD)
    assert (result == naive(images, 56, pad=True)).all()


@examples(100)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    width=st.integers(1, 4),
    pad=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_size_is_as_the_public_code_defines_it(size, width, pad, seed):
    image = noise(*size, seed=seed)
    target = 14 * width
    try:
        expected = naive([image], target, pad, by_axis=True)[0]
    except ValueError:  # Pillow makes no image without pixels
        assume(False)
    assume(size[1] <= 100 * size[0])
    fit = Fit.choose(size, Layout(1, 1, *expected.shape[:2]), PAD if pad else PUBLISHED)
    assert (fit.image(image) == expected).all()


def test_fields_of_view_change_by_axis_since_the_height_is_rounded():
    fit = Fit.choose((1280, 800), Layout(1, 1, H=322, W=518), PUBLISHED)
    assert fit.scale == pytest.approx((518 / 1280, 322 / 800)) and fit.scale[0] != fit.scale[1]
    fit = Fit.choose((480, 640), Layout(1, 1, H=518, W=518), PUBLISHED)
    assert fit.scaled == (518, 686) and fit.scale == pytest.approx((518 / 480, 686 / 640))
    assert fit.shift == pytest.approx((0, -84))


# ---- transparent photos


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB"])
def test_transparent_photos_are_laid_over_white(tmp_path, kind):
    alpha = Image.fromarray(np.random.default_rng(5).integers(0, 256, (42, 56), dtype=np.uint8))
    if kind == "P":
        noise(56, 42).quantize(16).save(tmp_path / "p0.png", transparency=bytes(range(0, 256, 16)))
    elif kind == "RGB":
        Image.new("RGB", (56, 42), (1, 2, 3)).save(tmp_path / "p0.png", transparency=(1, 2, 3))
    else:
        image = noise(56, 42).convert("L" if kind == "LA" else "RGB")
        image.putalpha(alpha)
        image.save(tmp_path / "p0.png")
    with Image.open(tmp_path / "p0.png") as stored:
        assert stored.mode == kind
        over = np.asarray(stored.convert("RGBA")).astype(float)
    colours, share = over[..., :3], over[..., 3:] / 255
    expected = np.rint(colours * share + 255 * (1 - share))
    folder = FrameFolder.open(tmp_path, loose=UngroupedImages.TIMES)
    on_white = reader(folder, 56, 42)
    (_, inputs), *_ = on_white.read([range(1)])
    assert np.abs(inputs.images[0, 0] - expected).max() <= 1
    assert on_white.folder.notes == ()
    assert "1 frame with transparent parts was laid over white: p0.png" in on_white.fits.sentences(folder)

    (_, inputs), *_ = reader(folder, 56, 42, FitMode.STRETCH).read([range(1)])
    assert (inputs.images[0, 0] == colours).all(), "the other modes take the colours that lie under them"


# ---- which mode is taken


def test_the_way_is_that_of_the_engines_model(tmp_path):
    names = [None, *Published]
    ways = {name: way for name in names if (way := PhotoWay.of({"published": name})) is not None}
    assert ways == {
        "vggt": PhotoWay.VGGT,
        "page4d": PhotoWay.VGGT,
        "da3": PhotoWay.DA3,
        "da3-mono": PhotoWay.DA3,
        "da3-metric": PhotoWay.DA3,
    }
    assert PhotoWay.of({}) is None
    assert PhotoWay.of(msgspec.to_builtins(ModelConfig.preset("vggt"))) is PhotoWay.VGGT
    assert PhotoWay.of(msgspec.to_builtins(ModelConfig.preset("da3-small"))) is PhotoWay.DA3
    folder = photos(tmp_path / "photos", noise(480, 640))
    assert reader(folder, 56, 56).fits.mode is PUBLISHED
    refusal(lambda: reader(folder, 56, 56, way=None), "aspect ratio", "--fit stretch|crop|pad")


@pytest.mark.parametrize("mode", TO_ANY_SIZE)
def test_a_mode_that_is_named_is_taken(tmp_path, mode):
    assert reader(photos(tmp_path / "photos", noise(64, 48)), 56, 42, mode).fits.mode is mode


def test_photos_of_the_engines_aspect_ratio_need_no_mode_where_the_public_code_would_cut_them(tmp_path):
    """Upright ones, of which it makes a square."""
    folder = photos(tmp_path / "photos", noise(48, 64))
    fits = reader(folder, 42, 56).fits
    assert fits.mode is None and fits.by_size[48, 64].target == (0, 0, 42, 56)


@pytest.mark.parametrize("mode", [PUBLISHED, None])
@pytest.mark.parametrize(
    ("sizes", "engine", "height"),
    [
        ([(640, 480)], (56, 56), 42),  # lower than the engine
        ([(640, 360)], (56, 14), 28),  # higher
        ([(480, 640)], (56, 28), 56),
        ([(640, 480), (480, 300)], (56, 56), 42),
    ],
)
def test_an_engine_of_another_size_is_refused_and_the_right_one_named(tmp_path, mode, sizes, engine, height):
    folder = photos(tmp_path / "photos", *(Image.new("RGB", size) for size in sizes))
    text = refusal(
        lambda: reader(folder, *engine, mode),
        f"engine's {engine[0]}x{engine[1]}",
        "frames of " + ", ".join(f"{width}x{height}" for width, height in sizes),
        f"an engine of 56x{height}",
        f"page4d-export --height {height} --width 56, or --fit stretch|crop|pad",
    )
    assert ("published-pad" in text) == (engine == (56, 56))


def test_pad_needs_a_square_engine(tmp_path):
    folder = photos(tmp_path / "photos", noise(64, 48))
    refusal(
        lambda: reader(folder, 56, 42, PAD), "56x42", "an engine of 56x56", "--height 56 --width 56, or --fit stretch"
    )


@pytest.mark.parametrize(("size", "mode"), [((1000, 5), PUBLISHED), ((5, 1000), PAD), ((5, 1000), PUBLISHED)])
def test_extreme_aspect_ratios_are_refused(size, mode):
    with pytest.raises(UsageError, match=rf"aspect ratio(.|\n)*{size[0]}x{size[1]}(.|\n)*stretch"):
        Fit.choose(size, Layout(1, 1, 56, 56), mode)


# ---- what the report says


@pytest.mark.parametrize(
    ("size", "engine", "mode", "sentence"),
    [
        ((640, 480), (518, 392), None, "were scaled to 518x392 (bicubic), as VGGT's public code does"),
        (
            (480, 640),
            (518, 518),
            PUBLISHED,
            "were scaled to 518x686 (bicubic) and cut to the middle 518 rows, as VGGT's public code does",
        ),
        (
            (320, 480),
            (518, 518),
            PAD,
            "were scaled to 350x518 (bicubic) and padded with white to 518x518, as VGGT's public code does",
        ),
        ((518, 392), (518, 392), PUBLISHED, "were taken as they are"),
        ((480, 640), (392, 518), None, "were scaled to 392x518 (bicubic)"),
        ((640, 480), (518, 518), FitMode.STRETCH, "were scaled to 518x518 (bicubic; each axis by itself)"),
        ((640, 480), (518, 518), FitMode.CROP, "were cut to their middle 480x480 and scaled to 518x518 (bicubic)"),
        ((640, 480), (518, 518), FitMode.PAD, "were scaled to 518x388 (bicubic) and padded with black to 518x518"),
    ],
)
def test_a_sentence_says_what_was_done(tmp_path, size, engine, mode, sentence):
    folder = photos(tmp_path / "photos", Image.new("RGB", size))
    fits = Fits.choose(folder, Layout(1, 1, engine[1], engine[0]), mode, PhotoWay.VGGT)
    assert fits.sentences(folder) == [f"{size[0]}x{size[1]} frames {sentence}"]


def test_there_is_a_sentence_for_each_size_and_an_end_to_them(tmp_path):
    folder = photos(
        tmp_path / "two", Image.new("RGB", (64, 48)), Image.new("RGB", (64, 32)), Image.new("RGB", (64, 48))
    )
    assert reader(folder, 56, 42).fits.sentences(folder) == [
        "64x48 frames were scaled to 56x42 (bicubic), as VGGT's public code does",
        "64x32 frames were scaled to 56x28 (bicubic) and padded with white to 56x42, as VGGT's public code does",
    ]
    many = photos(tmp_path / "many", *(Image.new("RGB", (60 + number, 48)) for number in range(25)))
    *_, last = sentences = reader(many, 56, 42, FitMode.CROP).fits.sentences(many)
    assert len(sentences) == 21 and last == "frames of 5 more sizes were fitted likewise"


def test_a_run_of_a_published_model_scales_photos_as_published_and_says_so(made, tmp_path):
    """Engines of 70x56 that are said to be VGGT's: the photos come to them alike, and any export is as good."""
    engines = EngineFolder.open(made().folder)
    model = {**engines.manifest.model, "published": "vggt"}
    engines = dataclasses.replace(engines, manifest=msgspec.structs.replace(engines.manifest, model=model))
    for number, size in enumerate([(64, 48), (80, 32)]):
        photos(tmp_path / "clip" / f"cam{number}", *[noise(*size)] * 3)
    run = ClipRun.prepare(engines, FrameFolder.open(tmp_path / "clip"), tmp_path / "out")
    assert run.reader.fits.mode is PUBLISHED
    summary = run.run(SILENT)
    assert read_summary(tmp_path / "out" / "summary.json").photos == summary.photos
    assert summary.photos[1].startswith("80x32 frames were scaled to 70x28 (bicubic) and padded with white to 70x56")
    assert summary.photos[1] in html.unescape((tmp_path / "out" / "report.html").read_text())
