"""Masks drawn over frames, and contact sheets of them."""

import numpy as np
import pytest
from PIL import Image

from page4d.errors import UsageError
from page4d_engines.results import contact_sheet as paired
from page4d_engines.results.overlay import ANCHORS, CLEAR, FULL, NOT_A_NUMBER, colour_bar, contact_sheet, overlay


def at_width(width, sheet, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "MAX_WIDTH", width)
        return sheet(*arguments)


def frame(H=56, W=84, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)


def plain(H, W, value):
    return np.full((H, W, 3), value, np.uint8)


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.asarray(colour) / 255]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_a_static_scene_stays_as_it_was_taken():
    image = frame()
    shown = overlay(image, np.zeros((4, 6), np.float32))
    assert np.array_equal(shown, image)
    assert shown is not image


def test_only_what_is_dynamic_is_coloured():
    image, mask = frame(), np.zeros((4, 6), np.float32)
    mask[1:3, 1:3] = 1
    change = np.abs(overlay(image, mask).astype(int) - image).max(axis=2)
    assert (change[19:37, 19:37] > 0).all()
    assert (change[:, 63:] == 0).all()
    assert (change[:7] == 0).all()


def test_the_mask_lies_where_its_patches_lie():
    for row, column in ((0, 0), (3, 0), (0, 5), (3, 5), (2, 4)):
        mask = np.zeros((4, 6), np.float32)
        mask[row, column] = 1
        change = overlay(plain(56, 84, 128), mask).astype(int) - 128
        ys, xs = np.nonzero(np.abs(change).max(axis=2) >= np.abs(change).max())
        assert (ys // 14 == row).all()
        assert (xs // 14 == column).all()


def test_the_frame_fades_steadily_as_the_probability_grows():
    # what is left of the frame is the difference between the same mask over white and over black
    probability = np.linspace(0, 1, 140, dtype=np.float32)[None]
    white, black = (
        overlay(plain(14, 140, 255), probability).astype(int),
        overlay(plain(14, 140, 0), probability).astype(int),
    )
    left = (white - black)[7].mean(axis=1)
    assert left[0] == 255
    assert left[-1] > 0
    assert (np.diff(left) <= 0.67).all()  # falls, but for the rounding of three channels
    between = left[(probability[0] > CLEAR + 0.05) & (probability[0] < FULL - 0.05)]
    assert (np.diff(between[::10]) < 0).all()
    assert (left[probability[0] < CLEAR - 0.01] == 255).all()


def test_the_order_of_the_colours_shows_in_lightness_alone():
    light = [luminance(colour) for _, colour in ANCHORS]
    assert light == sorted(light)
    assert [position for position, _ in ANCHORS] == sorted(position for position, _ in ANCHORS)
    assert ANCHORS[0][0] == 0
    assert ANCHORS[-1][0] == 1


def test_the_bar_shows_what_an_overlay_shows():
    bar = colour_bar(11)
    assert bar.shape == (11, 3)
    for index in (0, 5, 10):
        assert np.array_equal(overlay(plain(3, 3, 128), np.full((1, 1), index / 10, np.float32))[1, 1], bar[index])


@pytest.mark.parametrize(
    ("H", "W", "h", "w"),
    [(14, 14, 1, 1), (392, 518, 28, 37), (14, 140, 1, 10), (140, 14, 10, 1), (30, 50, 7, 3), (5, 5, 28, 37)],
)
def test_any_shape(H, W, h, w):
    image = frame(H, W)
    shown = overlay(image, np.full((h, w), 0.5, np.float32))
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    assert not np.array_equal(shown, image)


def test_values_outside_are_clipped_and_a_broken_mask_does_not_look_static():
    image = frame(28, 28)
    mask = np.array([[-1, 2], [0, np.nan]], np.float32)
    shown = overlay(image, mask)
    assert (shown[21:, 21:] == NOT_A_NUMBER).all()
    assert not (shown[:14, :14] == NOT_A_NUMBER).all(axis=2).any()
    clipped = overlay(image, np.array([[0, 1], [0, np.nan]], np.float32))
    assert np.array_equal(shown, clipped)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_no_image(image):
    with pytest.raises(UsageError, match="image"):
        overlay(image, np.zeros((1, 1), np.float32))


def test_no_mask():
    with pytest.raises(UsageError, match="mask"):
        overlay(frame(), np.zeros((2, 2, 1), np.float32))


# ---- contact sheets

PAINTS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def painted(T, V, H, W):
    """Every camera in a colour of its own."""
    images = np.zeros((T, V, H, W, 3), np.uint8)
    for v in range(V):
        images[:, v] = PAINTS[v]
    return images


def area(sheet, colour):
    pixels = np.asarray(sheet)
    near = [abs(pixels[..., c].astype(np.int16) - value) <= 1 for c, value in enumerate(colour)]
    return int((near[0] & near[1] & near[2]).sum())


@pytest.mark.parametrize(("T", "H", "W"), [(1, 28, 42), (2, 42, 28), (5, 28, 42), (3, 14, 14), (40, 28, 28)])
def test_a_sheet_holds_every_camera_with_and_without_mask(T, H, W):
    V = 5
    names = [f"cam{v}" for v in range(V)]
    times = [f"{t:06d}" for t in range(T)]
    sheet = at_width(800, contact_sheet, painted(T, V, H, W), np.zeros((T, V, 2, 3), np.float32), names, times)
    assert sheet.mode == "RGB"
    assert sheet.width <= 800
    areas = [area(sheet, colour) for colour in PAINTS]
    assert min(areas) > 0
    assert len(set(areas)) == 1

    masked = at_width(800, contact_sheet, painted(T, V, H, W), np.ones((T, V, 2, 3), np.float32), names, times)
    assert masked.size == sheet.size
    for colour, whole in zip(PAINTS, areas, strict=True):
        assert area(masked, colour) == pytest.approx(whole / 2, rel=0.02)


def test_a_narrow_sheet_shows_fewer_times_with_the_first_and_the_last():
    T = 12
    images = np.zeros((T, 1, 28, 28, 3), np.uint8)
    for t in range(T):
        images[t] = (20 * t, 255 - 20 * t, 128)
    masks = np.zeros((T, 1, 2, 2), np.float32)
    times = [str(t) for t in range(T)]

    def shown(width):
        sheet = at_width(width, contact_sheet, images, masks, ["cam"], times)
        assert sheet.width <= width
        return [t for t in range(T) if area(sheet, (20 * t, 255 - 20 * t, 128)) > 100]

    wide, narrow = shown(2700), shown(1000)
    assert wide == list(range(T))
    assert 2 <= len(narrow) < T
    assert {narrow[0], narrow[-1]} == {0, T - 1}
    steps = np.diff(narrow)
    assert steps.max() - steps.min() <= 1


def test_a_sheet_changes_where_the_mask_does():
    images = painted(3, 2, 28, 42)
    masks = np.zeros((3, 2, 2, 3), np.float32)
    before = np.asarray(contact_sheet(images, masks, ["a", "b"], ["0", "1", "2"])).astype(int)
    masks[1, 1] = 1
    after = np.asarray(contact_sheet(images, masks, ["a", "b"], ["0", "1", "2"])).astype(int)
    ys, xs = np.nonzero(np.abs(after - before).max(axis=2))
    assert ys.min() > before.shape[0] / 2  # the second camera
    assert before.shape[1] * 0.3 < xs.min() < xs.max() < before.shape[1] * 0.75  # the second time


@pytest.mark.parametrize("name", ["", "<b>&", "two\nlines", "a" * 500, "кам 前", "bad \udcff byte"])
def test_any_name(name):
    sheet = at_width(
        300, contact_sheet, painted(2, 1, 28, 42), np.zeros((2, 1, 2, 3), np.float32), [name], [name, name]
    )
    assert isinstance(sheet, Image.Image)
    assert area(sheet, PAINTS[0]) > 0


def test_a_sheet_of_things_that_do_not_go_together():
    images, masks = painted(2, 2, 14, 14), np.zeros((2, 2, 1, 1), np.float32)
    with pytest.raises(UsageError, match="name"):
        contact_sheet(images, masks, ["a"], ["0", "1"])
    with pytest.raises(UsageError, match="name"):
        contact_sheet(images, masks, ["a", "b"], ["0"])
    with pytest.raises(UsageError, match="go together"):
        contact_sheet(images, masks[:1], ["a", "b"], ["0", "1"])
