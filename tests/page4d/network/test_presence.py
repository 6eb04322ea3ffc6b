"""Absent images: the results are those of the layout without them, in float64, whatever the option."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import ModelConfig
from page4d.errors import UsageError
from tests.page4d.test_model import OPTIONS, build, clip, rig
from tests.support.examples import examples
from tests.support.models import PUBLISHED, config_of, layout_of, lively
from tests.support.naive import network as naive

EXACT = {"rtol": 1e-9, "atol": 1e-9}
OF_FLOAT32_ANGLES = {
    "rtol": 1e-5,
    "atol": 1e-6,
}  # RoPE's angles are, in every precision: of other times, rounded otherwise
FAR = {"rope", "alibi"}  # time encodings in which a timestep less between two others brings these closer


def rig_of(cameras, views):
    return None if cameras is None else {f"cam{v}": cameras[f"cam{v}"] for v in views}


def compare(whole, smaller, present, **tolerance):
    """All that the smaller clip gives is at the images that are there; the others are NaN."""
    T, V = present.shape
    times, views = present.any(1), present.any(0)
    for field in dataclasses.fields(smaller):
        name, value = field.name, getattr(smaller, field.name)
        if not isinstance(value, torch.Tensor):
            continue
        got = getattr(whole, name)
        if name not in ("memory", "metric"):
            assert got.shape[:2] == (T, V)
            assert got[~torch.from_numpy(present)].isnan().all(), name
            got = got[times][:, views]
        torch.testing.assert_close(got, value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)
    for layer, tokens in smaller.layers.items():
        assert whole.layers[layer].isfinite().all()
        torch.testing.assert_close(whole.layers[layer][times][:, views], tokens, **tolerance)


def without(T, V, time=None, view=None):
    present = np.ones((T, V), bool)
    if time is not None:
        present[time] = False
    if view is not None:
        present[:, view] = False
    return present


def holes(options):
    """Patterns whose smaller layout has the same relative places."""
    grid = "dilated" in options.get("global_strategy", "")
    encoding = options.get("time_encoding", "rope")
    T, V = (4, 3) if grid else (3, 3)
    views = (0, V - 1) if grid else range(V)
    times = (0, T - 1) if grid or encoding in FAR else range(T)
    yield from (without(T, V, view=v) for v in views)
    yield from (without(T, V, time=t) for t in times)
    yield without(T, V, time=0, view=0)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_clip_with_absent_views_or_timesteps_equals_the_smaller_clip(name):
    options = OPTIONS[name]
    model = build(**options)
    for present in holes(options):
        images, mask_ext, keypoints = clip(*present.shape)
        times, views = np.flatnonzero(present.any(1)), np.flatnonzero(present.any(0))
        cameras = rig(present.shape[1]) if options.get("epipolar") else None
        whole = model(images, mask_ext, keypoints, cameras=cameras, present=present)
        parts = [part[times][:, views] for part in (images, mask_ext, keypoints)]
        turned = options.get("time_encoding", "rope") == "rope" and not present[0].any()
        tolerance = OF_FLOAT32_ANGLES if turned else EXACT
        compare(whole, model(*parts, cameras=rig_of(cameras, views)), present, **tolerance)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_with_absent_images_equals_the_smaller_clip(name):
    config = config_of(name)
    model = lively(config).double()
    layout = layout_of(name, 28, 42)
    T, V = layout.T, layout.V
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, layout.images_shape, np.uint8)
    for place in range(T * V):
        present = np.ones(T * V, bool)
        present[place] = False
        present = present.reshape(T, V)
        smaller = images[present][:, None] if V == 1 else images[present][None]
        compare(model(images, present=present), model(smaller), present, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", OPTIONS)
@examples(6)
@given(st.data())
def test_any_absent_images_are_as_if_their_tokens_were_in_no_sequence(name, data):
    """Beside the naive twin, which leaves them out."""
    options = OPTIONS[name]
    T, V = (4, 2) if "dilated" in name else (3, 2)
    there = data.draw(st.integers(1, 2 ** (T * V) - 1))
    present = np.array([there >> bit & 1 for bit in range(T * V)], bool).reshape(T, V)
    expect_naive(build(**options), T, V, present, options.get("epipolar"))


@pytest.mark.parametrize("name", ["page4d 150", "page4d 2026", "vggt", "pi3", "da3"])
@examples(4)
@given(st.data())
def test_any_absent_images_of_a_published_model(name, data):
    config = config_of(name)
    T, V = PUBLISHED[name][1]
    there = data.draw(st.integers(1, 2 ** (T * V) - 1))
    present = np.array([there >> bit & 1 for bit in range(T * V)], bool).reshape(T, V)
    expect_naive(lively(dataclasses.replace(config, predictions=False)).double(), T, V, present)


def expect_naive(model, T, V, present, has_cameras=False):
    images, mask_ext, keypoints = clip(T, V)
    inputs = {"mask_ext": mask_ext, "keypoints": keypoints} if model.config.takes_mask else {}
    if has_cameras:
        inputs["cameras"] = rig(V)
    out = model(images, **inputs, present=present)
    weights = dict(model.named_parameters())
    position = model.encoder.position(2, 3)
    mask, layers, memory = naive.forward(model.config, weights, position, images.numpy(), **inputs, present=present)
    tolerance = {"rtol": 1e-8, "atol": 1e-8}
    if mask is not None:
        torch.testing.assert_close(out.mask, mask, equal_nan=True, **tolerance)
    for i, layer in layers.items():
        torch.testing.assert_close(out.layers[i][present], layer[present], **tolerance)
    if memory is not None:
        torch.testing.assert_close(out.memory, memory, **tolerance)


@pytest.mark.parametrize("absent", [[0], [2], [0, 3], [1, 2, 3]])
def test_absent_views_of_known_cameras_do_not_count(absent):
    V = 5
    model = lively(_known()).double()
    images = np.random.default_rng(4).integers(0, 256, (1, V, 28, 42, 3), np.uint8)
    present = np.ones((1, V), bool)
    present[0, absent] = False
    views = np.flatnonzero(present[0])
    whole = model(images, cameras=rig(V), present=present)
    compare(whole, model(images[:, views], cameras=rig_of(rig(V), views)), present, rtol=1e-8, atol=1e-8)


def _known():
    return ModelConfig.preset(**{"encoder_depth": 2, **PUBLISHED["da3"][0]}, known_cameras=True, reference_view="first")


@pytest.mark.parametrize("variant", ["vggt", "da3", "pi3x"])
def test_clips_side_by_side_have_absent_images_of_their_own(variant):
    model = lively(config_of(variant)).double()
    layout = layout_of(variant, 14, 28, B=2)
    images = np.random.default_rng(5).integers(0, 256, layout.images_shape, np.uint8)
    present = np.ones((2, layout.T, layout.V), bool)
    present[0].flat[0] = present[1].flat[1] = False
    together = model(images, present=present)
    for b in range(2):
        alone = model(images[b], present=present[b])
        for field in dataclasses.fields(alone):
            value = getattr(alone, field.name)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(together, field.name)[b], value, equal_nan=True)


def test_what_an_absent_image_shows_changes_nothing():
    model = build(global_strategy="memory", memory_tokens=3, landmarks=2)
    images, mask_ext, keypoints = clip(3, 2)
    present = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    other = images.clone()
    other[0, 1] = 255 - other[0, 1]
    outputs = [model(pixels, mask_ext, keypoints, present=present) for pixels in (images, other)]
    there = torch.from_numpy(present).bool()
    for i in outputs[0].layers:
        assert torch.equal(outputs[0].layers[i][there], outputs[1].layers[i][there])
        assert not torch.equal(outputs[0].layers[i], outputs[1].layers[i])
    assert torch.equal(outputs[0].memory, outputs[1].memory)


def test_all_images_present_is_the_clip_as_it_is():
    model = build()
    images, mask_ext, keypoints = clip(2, 2)
    outputs = [model(images, mask_ext, keypoints, present=present) for present in (None, np.ones((2, 2), bool))]
    torch.testing.assert_close(outputs[1].mask, outputs[0].mask, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outputs[1].layers[1], outputs[0].layers[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "present, what",
    [
        (np.zeros((2, 2), bool), "no image of a clip is there"),
        (np.ones((2, 3), bool), "present has the wrong shape"),
        (np.ones((2, 2)), "whether it is there"),
        (np.full((2, 2), 2, np.uint8), "whether it is there"),
    ],
)
def test_what_says_nothing_of_the_images_is_refused(present, what):
    with pytest.raises(UsageError, match=what):
        build()(clip(2, 2)[0], present=present)
