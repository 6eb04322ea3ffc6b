"""How images, masks and cameras come to the engine's size."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit, FitMode, scaled_as_vggt
from tests.support.examples import examples

PATCH = Layout.PATCH


def layout(width, height):
    return Layout(T=1, V=1, H=height, W=width)


sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))
grids = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda grid: layout(grid[0] * PATCH, grid[1] * PATCH))


@st.composite
def cases(draw, sizes=sizes):
    """A photo's size, an engine and a mode that bring them together."""
    size, target, mode = draw(sizes), draw(grids), draw(st.sampled_from(FitMode))
    if mode in TO_ANY_SIZE:
        return size, target, mode
    pad = mode is FitMode.PUBLISHED_PAD
    try:
        _, rows = scaled_as_vggt(size, target.W, pad)
    except UsageError:
        assume(False)
    return size, layout(target.W, target.W if pad else max(min(rows, target.W), target.H)), mode


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)


def integrate(source, fit):
    """Mean over every patch, by going over all pairs of patch and source pixel and adding the area of their overlap."""
    rows, columns = source.shape
    left, top, right, bottom = fit.box
    x0, y0, width, height = fit.target
    across = [x0 + (min(max(x, left), right) - left) * width / (right - left) for x in range(columns + 1)]
    down = [y0 + (min(max(y, top), bottom) - top) * height / (bottom - top) for y in range(rows + 1)]
    means = []
    for i in range(fit.layout.h):
        for j in range(fit.layout.w):
            total = 0.0
            for y in range(rows):
                high = min(down[y + 1], (i + 1) * PATCH) - max(down[y], i * PATCH)
                if high <= 0:
                    continue
                for x in range(columns):
                    wide = min(across[x + 1], (j + 1) * PATCH) - max(across[x], j * PATCH)
                    if wide > 0:
                        total += high * wide * float(source[y, x])
            means.append(total / (PATCH * PATCH * 255))
    return np.array(means)[:, None]


@examples(60)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_patch_mean_is_the_area_integral(case, seed):
    size, target, mode = case
    fit = Fit.choose(size, target, mode)
    source = noise(size, seed)
    means = fit.patch_mean(source)
    assert means.shape == (target.P, 1) and means.dtype == np.float32
    assert np.abs(means - integrate(source, fit)).max() < 1e-6


@examples(100)
@given(case=cases(st.tuples(st.integers(1, 2000), st.integers(1, 2000))), value=st.integers(0, 255))
def test_a_constant_image_stays_constant(case, value):
    size, target, mode = case
    fit = Fit.choose(size, target, mode)
    image, mean = (
        fit.image(Image.new("RGB", size, (value, 7, 255))),
        fit.patch_mean(np.full(size[::-1], value, np.uint8)),
    )
    assert image.shape == (target.H, target.W, 3) and image.dtype == np.uint8
    left, top, width, height = fit.target
    assert (image[top : top + height, left : left + width] == (value, 7, 255)).all()
    share = np.zeros((target.H, target.W))
    share[top : top + height, left : left + width] = value / 255
    assert np.allclose(
        mean.reshape(target.h, target.w),
        share.reshape(target.h, PATCH, target.w, PATCH).mean((1, 3)),
        rtol=0,
        atol=1e-6,
    )
    assert mean.min() >= 0 and mean.max() <= 1
    if mode in (FitMode.PAD, FitMode.PUBLISHED, FitMode.PUBLISHED_PAD):
        outside = np.ones((target.H, target.W), bool)
        outside[top : top + height, left : left + width] = False
        assert (image[outside] == (0 if mode is FitMode.PAD else 255)).all()
    else:
        assert fit.target == (0, 0, target.W, target.H)


@examples(200)
@given(size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)), target=grids)
def test_crop_covers_and_pad_lies_inside_centred_and_in_proportion(size, target):
    crop = Fit.choose(size, target, FitMode.CROP)
    left, top, right, bottom = crop.box
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert left + right == pytest.approx(size[0]) and top + bottom == pytest.approx(size[1])
    assert min(left, top) == 0, "one side is kept whole"
    assert crop.scale[0] == pytest.approx(crop.scale[1], rel=1e-9)

    pad = Fit.choose(size, target, FitMode.PAD)
    x, y, width, height = pad.target
    assert pad.box == (0, 0, *size)
    assert width == target.W or height == target.H
    assert width >= 1 and height >= 1 and 0 <= target.W - width - 2 * x <= 1 and 0 <= target.H - height - 2 * y <= 1
    scale = min(target.W / size[0], target.H / size[1])
    assert abs(width - scale * size[0]) <= max(0.5, 1 - scale * size[0]) + 1e-9
    assert abs(height - scale * size[1]) <= max(0.5, 1 - scale * size[1]) + 1e-9


@examples(100)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_a_fitted_camera_sees_what_the_fitted_image_shows(case, seed):
    size, target, mode = case
    fit = Fit.choose(size, target, mode)
    chance = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(chance.normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    K = np.array([[50.0, 0.3, 31.0], [0, 55.0, 22.0], [0, 0, 1]])
    source = Camera(*size, K, np.concatenate([turn, chance.normal(size=(3, 1))], 1))
    fitted = fit.camera(source)
    assert (fitted.width, fitted.height) == (target.W, target.H)

    def pixel(camera, point):
        x, y, z = camera.K @ (camera.world_to_camera[:, :3] @ point + camera.world_to_camera[:, 3])
        return np.array([x / z, y / z])

    point = source.centre + turn.T @ np.array([*chance.uniform(-1, 1, 2), 2.0])
    x, y = pixel(source, point)
    left, top, right, bottom = fit.box
    x0, y0, width, height = fit.target
    expected = x0 + (x - left) * width / (right - left), y0 + (y - top) * height / (bottom - top)
    assert np.allclose(pixel(fitted, point), expected, rtol=1e-9, atol=1e-9 * max(fit.scale) * 100)


@examples(100)
@given(
    case=cases(st.tuples(st.integers(1, 4000), st.integers(1, 4000))),
    focal=st.floats(1, 5000),
    middle=st.floats(-100, 5000),
)
def test_the_source_camera_is_the_inverse_of_the_fitted_one(case, focal, middle):
    size, target, mode = case
    fit = Fit.choose(size, target, mode)
    pose = np.array([[0.0, 0, 1, 3], [1, 0, 0, -2], [0, 1, 0, 0.5]])
    source = Camera(*size, np.array([[focal, 0.3, middle], [0, 1.2 * focal, 22.0], [0, 0, 1]]), pose)
    back = fit.source_camera(fit.camera(source))
    assert (back.width, back.height) == size
    assert np.allclose(back.K, source.K, rtol=1e-9, atol=1e-9 * max(size))
    assert (back.world_to_camera == pose).all()
    fitted = Camera(target.W, target.H, source.K, pose)
    forth = fit.camera(fit.source_camera(fitted))
    assert (forth.width, forth.height) == (target.W, target.H)
    assert np.allclose(forth.K, fitted.K, rtol=1e-9, atol=1e-9 * max(size))


def test_only_a_camera_of_the_engines_size_has_a_source_camera():
    with pytest.raises(UsageError, match=r"another size(.|\n)*64x48(.|\n)*56x42"):
        Fit.choose((64, 48), layout(56, 42), None).source_camera(Camera(64, 48, np.diag([50.0, 50, 1]), np.eye(3, 4)))


@pytest.mark.parametrize(
    ("mode", "target"),
    [
        *((mode, layout(112, 84)) for mode in (*TO_ANY_SIZE, FitMode.PUBLISHED)),  # 112x56, white above and below
        (FitMode.PUBLISHED_PAD, layout(112, 112)),
        (FitMode.PUBLISHED, layout(42, 42)),  # 42x28
    ],
    ids=str,
)
def test_image_mask_and_camera_agree_on_where_a_thing_is(mode, target):
    """A white square: the image's patch means are the mask's, and the camera's pixel lies in the square's middle."""
    size = (200, 100)
    source = np.zeros((100, 200), np.uint8)
    source[50:70, 90:130] = 255
    fit = Fit.choose(size, target, mode)
    image = fit.image(Image.fromarray(source).convert("RGB"))[..., 0] / 255.0
    left, top, width, height = fit.target
    inner = image[top : top + height, left : left + width]
    assert image.sum() - inner.sum() == pytest.approx(fit.ground / 255 * (image.size - inner.size))
    image = np.pad(inner, ((top, target.H - top - height), (left, target.W - left - width)))
    y, x = np.mgrid[: target.H, : target.W] + 0.5
    middle = (image * x).sum() / image.sum(), (image * y).sum() / image.sum()
    # its axis meets the square's middle
    corner = Camera(200, 100, np.array([[1.0, 0, 110], [0, 1.0, 60], [0, 0, 1]]), np.eye(3, 4))
    assert np.allclose(fit.camera(corner).K[:2, 2], middle, atol=0.05)
    patches = image.reshape(target.h, PATCH, target.w, PATCH).mean((1, 3)).reshape(-1, 1)
    assert np.abs(fit.patch_mean(source) - patches).max() < 0.03


def test_image_at_the_engines_size_is_untouched():
    target = layout(56, 42)
    source = np.random.default_rng(0).integers(0, 256, (42, 56, 3), dtype=np.uint8)
    for mode in (None, *TO_ANY_SIZE, FitMode.PUBLISHED):
        fit = Fit.choose((56, 42), target, mode)
        assert (fit.image(Image.fromarray(source)) == source).all()
        blocks = source[..., 0].reshape(3, PATCH, 4, PATCH).mean((1, 3), dtype=np.float64) / 255
        assert np.allclose(fit.patch_mean(source[..., 0]), blocks.reshape(-1, 1), atol=1e-7)


def test_shrinking_filters_out_what_the_result_cannot_show():
    target = layout(28, 28)
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (280, 140))).convert("RGB")
    assert np.abs(Fit.choose((280, 280), target, None).image(stripes).astype(float) - 127.5).max() < 6


def test_rounding_to_patches_needs_no_mode():
    for size, target in (
        ((640, 480), (518, 392)),
        ((1920, 1080), (518, 294)),
        ((1080, 1920), (294, 518)),
        ((518, 518), (518, 518)),
        ((37, 37), (518, 518)),
    ):
        fit = Fit.choose(size, layout(*target), None)
        assert fit == Fit.choose(size, layout(*target), FitMode.STRETCH)
        assert fit.box == (0, 0, *size) and fit.target == (0, 0, *target)


@examples(200)
@given(size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)), target=grids)
def test_without_a_mode_one_side_must_come_within_half_a_patch(size, target):
    by_width, by_height = abs(size[1] * target.W / size[0] - target.H), abs(size[0] * target.H / size[1] - target.W)
    if abs(min(by_width, by_height) - PATCH / 2) < 1e-9:
        return  # on the edge the float above may fall on either side
    if min(by_width, by_height) <= PATCH / 2:
        assert Fit.choose(size, target, None).target == (0, 0, target.W, target.H)
    else:
        with pytest.raises(UsageError):
            Fit.choose(size, target, None)


def test_another_aspect_ratio_names_both_sizes_and_the_flag():
    with pytest.raises(UsageError) as caught:
        Fit.choose((1920, 1080), layout(518, 518), None)
    for part in ("1920x1080", "518x518", "--fit stretch|crop|pad", "aspect ratio"):
        assert part in str(caught.value)


def test_names_of_the_modes():
    assert [FitMode(name) for name in ("stretch", "crop", "pad", "published", "published-pad")] == list(FitMode)
    assert str(FitMode.PAD) == f"{FitMode.PAD}" == "pad"


def test_inputs_of_another_size_are_refused():
    fit = Fit.choose((64, 48), layout(56, 42), None)
    camera = Camera(48, 64, np.diag([50.0, 50, 1]), np.eye(3, 4))
    for call in (
        lambda: fit.image(Image.new("RGB", (48, 64))),
        lambda: fit.patch_mean(np.zeros((64, 48), np.uint8)),
        lambda: fit.camera(camera),
    ):
        with pytest.raises(UsageError, match=r"another size(.|\n)*48x64(.|\n)*64x48"):
            call()
    with pytest.raises(UsageError, match="no pixels"):
        Fit.choose((0, 5), layout(56, 42), None)


def test_patch_weights_are_made_once_per_fit():
    fit = Fit.choose((64, 48), layout(56, 42), None)
    fit.patch_mean(noise((64, 48)))
    first = fit._overlaps
    fit.patch_mean(noise((64, 48), 1))
    assert fit._overlaps is first
