"""Depth as 16-bit PNG, in colour and as a sheet."""

import numpy as np
import pytest
from PIL import Image

from page4d.errors import UsageError
from page4d_engines.results import contact_sheet as paired
from page4d_engines.results.depth import NO_VALUE, colour_depth, depth_scale, depth_sheet, write_depth


def at_width(width, sheet, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "MAX_WIDTH", width)
        return sheet(*arguments)


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == "I;16"
        return np.asarray(image)


def brightness(colours):
    return np.asarray(colours, np.float64) @ [0.2126, 0.7152, 0.0722]


def test_values_times_scale_are_the_depth(tmp_path):
    depth = np.random.default_rng(0).uniform(0.5, 20, (30, 40)).astype(np.float32)
    scale = depth_scale(depth)
    write_depth(tmp_path / "depth.png", depth, scale)
    values = read(tmp_path / "depth.png")
    assert values.shape == (30, 40)
    assert np.abs(values * scale - depth).max() <= scale / 2 * 1.001
    assert [path.name for path in tmp_path.iterdir()] == ["depth.png"]


def test_no_value_is_zero_and_the_rest_is_clipped(tmp_path):
    depth = np.array([[np.nan, np.inf, -np.inf, -1, 0], [1e-9, 0.5, 1.4, 1.6, 3e38]], np.float32)
    write_depth(tmp_path / "depth.png", depth, 1.0)
    assert read(tmp_path / "depth.png").tolist() == [[0, 0, 0, 0, 0], [1, 1, 1, 2, 65535]]


def test_the_scale_leaves_room_for_the_farthest():
    depth = np.linspace(0.001, 7, 100_000)
    assert np.percentile(depth, 99.9) / depth_scale(depth) == pytest.approx(60000)
    spoiled = np.concatenate([depth, [np.nan, np.inf, -5, 0], [1e30]])
    assert depth_scale(spoiled) == pytest.approx(depth_scale(depth), rel=1e-3)
    assert depth_scale(depth.reshape(2, 5, 100, 100) * 3) == pytest.approx(3 * depth_scale(depth))
    assert (
        depth_scale(np.full((2, 2), np.nan)) == depth_scale(np.zeros((0,))) == depth_scale(np.float32([-1, 0])) == 1.0
    )


def test_a_depth_image_of_something_else(tmp_path):
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="scale"):
            write_depth(tmp_path / "depth.png", np.ones((2, 2)), scale)
    with pytest.raises(UsageError, match="depth image"):
        write_depth(tmp_path / "depth.png", np.ones((2, 2, 1)), 1.0)
    assert list(tmp_path.iterdir()) == []


def test_near_is_bright_and_far_is_dark():
    depth = 1 / np.linspace(1, 1 / 8, 60)[None]
    colours = colour_depth(depth, 1, 8)
    assert colours.shape == (1, 60, 3) and colours.dtype == np.uint8
    light = brightness(colours[0])
    assert (np.diff(light) < 0.5).all() and light[0] > 180 and light[-1] < 40
    assert colours[0, 0, 0] > colours[0, 0, 2] and colours[0, -1, 2] > colours[0, -1, 0], "near is warm, far is cold"


def test_colours_go_evenly_with_disparity_and_stay_outside_the_range():
    middle = colour_depth(np.array([[1 / (0.5 + 0.5 / 8)]]), 1, 8)
    steps = colour_depth(1 / np.linspace(1, 1 / 8, 101)[None], 1, 8)[0].astype(int)
    assert np.abs(middle[0, 0].astype(int) - steps[50]).max() <= 2
    outside = colour_depth(np.array([[0.01, 1, 8, 1e30]]), 1, 8)[0]
    assert (outside[0] == outside[1]).all() and (outside[2] == outside[3]).all()


def test_no_value_is_grey_and_grey_is_nothing_else():
    colours = colour_depth(np.array([[np.nan, np.inf, 0, -2, 3]]), 1, 8)[0]
    assert (colours[:4] == NO_VALUE).all()
    assert len(set(NO_VALUE)) == 1
    whole = colour_depth(np.geomspace(1, 8, 500)[None], 1, 8)[0].astype(int)
    assert np.abs(whole - NO_VALUE).max(axis=1).min() > 20


def test_a_range_of_one_depth_and_no_range():
    flat = colour_depth(np.full((2, 2), 3.0), 3, 3)
    assert (flat == flat[0, 0]).all() and brightness(flat[0, 0]) > 180
    for near, far in ((0, 1), (-1, 1), (2, 1), (1, np.inf), (np.nan, 1)):
        with pytest.raises(UsageError, match="range"):
            colour_depth(np.ones((2, 2)), near, far)


# ---- sheets

PAINTS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (210, 210, 210), (90, 200, 90)]


def painted(T, V, H, W):
    images = np.zeros((T, V, H, W, 3), np.uint8)
    for v in range(V):
        images[:, v] = PAINTS[v]
    return images


def box(sheet, colour):
    """Left, top, right, bottom of the area of one colour."""
    ys, xs = np.nonzero((np.asarray(sheet) == colour).all(-1))
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def area(sheet, colour):
    left, top, right, bottom = box(sheet, colour)
    return (right - left) * (bottom - top)


def depths(T, V, H, W):
    return np.broadcast_to(np.linspace(2, 6, H)[:, None], (T, V, H, W)).astype(np.float32)


@pytest.mark.parametrize(
    ("V", "H", "W", "columns"), [(1, 84, 112, 1), (2, 84, 112, 2), (4, 518, 518, 4), (7, 392, 518, 4), (3, 84, 56, 3)]
)
def test_views_of_one_time_stand_side_by_side(V, H, W, columns):
    names = [f"photo {v}" for v in range(V)]
    sheet = at_width(1300, depth_sheet, painted(1, V, H, W), depths(1, V, H, W), names, ["0"])
    assert sheet.mode == "RGB" and sheet.width <= 1300
    boxes = [box(sheet, PAINTS[v]) for v in range(V)]
    lefts, tops = sorted({left for left, *_ in boxes}), sorted({top for _, top, *_ in boxes})
    assert len(lefts) == columns and len(tops) == -(-V // columns)
    assert [(lefts.index(left), tops.index(top)) for left, top, *_ in boxes] == [
        (v % columns, v // columns) for v in range(V)
    ]
    assert len({(right - left, bottom - top) for left, top, right, bottom in boxes}) == 1
    left, top, right, bottom = boxes[0]
    assert (right - left) / (bottom - top) == pytest.approx(W / H, rel=0.02)
    assert right - left >= 190


def test_a_row_per_camera_and_a_column_per_time():
    sheet = at_width(1600, depth_sheet, painted(4, 2, 84, 112), depths(4, 2, 84, 112), ["a", "b"], list("0123"))
    first, second = box(sheet, PAINTS[0]), box(sheet, PAINTS[1])
    assert first[0] == second[0] and first[2] == second[2] and first[3] < second[1]
    assert first[2] - first[0] > 4 * 190


def test_the_depth_stands_below_its_frame_near_bright_far_dark():
    V, H, W = 4, 112, 112
    depth = depths(1, V, H, W).copy()
    depth[0, 2, : H // 2] = np.nan
    sheet = np.asarray(depth_sheet(painted(1, V, H, W), depth, list("abcd"), ["0"]))
    for v in range(V):
        left, _, right, bottom = box(sheet, PAINTS[v])
        below = sheet[bottom + 3 : bottom + 3 + (right - left), left:right]
        light = brightness(below).mean(1)
        assert light[-20] < light[len(light) // 2 + 10] and light[-1] < 50
        if v == 2:
            assert (below[5:80] == NO_VALUE).all()
        else:
            assert light[3] > 180


def test_all_images_share_one_range():
    depth = np.stack([np.full((56, 56), value, np.float32) for value in (1, 2, 4)])[None]
    sheet = np.asarray(depth_sheet(painted(1, 3, 56, 56), depth, list("abc"), ["0"]))
    light = []
    for v in range(3):
        left, _, right, bottom = box(sheet, PAINTS[v])
        light.append(brightness(sheet[bottom + 20, (left + right) // 2]))
    assert light[0] > light[1] + 30 > light[2] + 60


def test_a_few_wild_depths_do_not_darken_the_rest():
    images, depth = painted(1, 2, 56, 56), depths(1, 2, 56, 56).copy()
    before = np.asarray(depth_sheet(images, depth, ["a", "b"], ["0"])).astype(int)
    depth[0, 0, 0, :20], depth[0, 1, 0, :20] = 1e30, 1e-30
    after = np.asarray(depth_sheet(images, depth, ["a", "b"], ["0"])).astype(int)
    left, top, right, bottom = box(before, PAINTS[0])
    inner = (slice(top + 20, bottom), slice(right + 3, right + 3 + right - left))  # beside its frame
    assert np.abs(before[inner] - after[inner]).max() < 12


@pytest.mark.parametrize("fill", [np.nan, np.inf, -1.0, 0.0, 5.0])
def test_any_depth_makes_a_sheet(fill):
    sheet = depth_sheet(painted(1, 2, 28, 42), np.full((1, 2, 28, 42), fill, np.float32), ["a", "b"], ["0"])
    assert area(sheet, PAINTS[0]) == area(sheet, PAINTS[1]) > 0
    assert ((np.asarray(sheet) == NO_VALUE).all(-1).sum() > 1000) == (fill != 5.0)


@pytest.mark.parametrize("name", ["", "two\nlines", "a" * 500, "кам 前", "bad \udcff byte"])
@pytest.mark.parametrize("T", [1, 2])
def test_any_name_and_noise(name, T):
    depth = np.exp(np.random.default_rng(0).normal(0, 30, (T, 2, 28, 42))).clip(0, 3e38).astype(np.float32)
    sheet = at_width(300, depth_sheet, painted(T, 2, 28, 42), depth, [name, name], [name] * T)
    assert area(sheet, PAINTS[0]) == area(sheet, PAINTS[1]) > 0


def test_a_sheet_of_things_that_do_not_go_together():
    images, depth = painted(1, 2, 28, 42), depths(1, 2, 28, 42)
    with pytest.raises(UsageError, match="name"):
        depth_sheet(images, depth, ["a"], ["0"])
    with pytest.raises(UsageError, match="go together"):
        depth_sheet(images, depth[:, :, 1:], ["a", "b"], ["0"])
