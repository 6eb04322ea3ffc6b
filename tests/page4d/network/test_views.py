"""Models of several images of one time: the view that is told apart, known cameras, and images seen alone."""

import numpy as np
import pytest
import torch

from page4d import Layout, ModelConfig
from page4d.errors import UsageError
from page4d.network.heads.conv_head import ConvHead
from tests.page4d.network.test_published import apart, assert_equal_predictions, build, clip, expected_predictions
from tests.support.naive import da3_heads as naive_da3_heads
from tests.support.naive import network as naive
from tests.support.naive.vggt_heads import rotation

SIZE = {"width": 64, "heads": 1, "encoder_depth": 2, "depth": 4}
FIRST = {**SIZE, "reference_view": "first"}


def rig(V=3, seed=7):
    """Cameras that look about forward, a unit or so apart."""
    random, cameras = np.random.default_rng(seed), {}
    for view in range(V):
        turn = rotation(*(random.normal(size=4) * 0.3 + [0, 0, 0, 1]))
        pose = np.concatenate((turn, random.normal(size=(3, 1))), 1)
        K = [[40.0 + view, 0, 21.0], [0, 38.0, 14.0], [0, 0, 1]]
        cameras[f"camera {view}"] = {"width": 42, "height": 28, "K": K, "world_to_camera": pose.tolist()}
    return cameras


def chosen(model, images):
    """The view that the model tells apart, by the independent formula."""
    tokens = model.encoder.encode(images[0])[1]
    return naive.balanced(tokens.tolist())


def seed_whose_reference_is_not_the_first(model, V):
    return next(seed for seed in range(20) if chosen(model, clip("da3-large", V, seed)))


@pytest.mark.parametrize("V", [3, 5])
def test_the_reference_view_is_chosen_among_three_and_more(V):
    model, first = build("da3-large", **SIZE), build("da3-large", **FIRST)
    images = clip("da3-large", V, seed_whose_reference_is_not_the_first(model, V))
    reference = chosen(model, images)
    order = [reference, *(view for view in range(V) if view != reference)]
    out, moved = model(images), first(images[:, order])
    for layer, tokens in out.layers.items():
        torch.testing.assert_close(tokens[:, order], moved.layers[layer], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.camera[:, order], moved.camera, rtol=1e-9, atol=1e-9)
    assert apart(first(images).layers[3], out.layers[3]) > 1e-3


@pytest.mark.parametrize("V", [1, 2])
def test_of_one_or_two_views_the_first_is_told_apart(V):
    images = clip("da3-large", V)
    out, first = build("da3-large", **SIZE)(images), build("da3-large", **FIRST)(images)
    assert torch.equal(out.layers[3], first.layers[3]) and torch.equal(out.depth, first.depth)


def test_the_order_of_views_does_not_matter_where_the_reference_is_chosen():
    model, images = build("da3-large", **SIZE), clip("da3-large", 4, seed=2)
    order = [2, 0, 3, 1]
    straight, permuted = model(images), model(images[:, order])
    for layer, tokens in straight.layers.items():
        torch.testing.assert_close(permuted.layers[layer], tokens[:, order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(permuted.depth, straight.depth[:, order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(permuted.camera, straight.camera[:, order], rtol=1e-9, atol=1e-9)


def test_only_the_first_view_is_told_apart_where_it_is_the_reference():
    model, images = build("da3-large", **FIRST), clip("da3-large", 4)
    straight = model(images)
    for order, same in (([0, 3, 1, 2], True), ([1, 0, 2, 3], False)):
        layers = model(images[:, order]).layers
        assert all((apart(layers[i], straight.layers[i][:, order]) < 1e-9) is same for i in layers)


def test_each_clip_has_its_own_reference():
    model = build("da3-large", **SIZE)
    clips = [clip("da3-large", 3, seed) for seed in range(4)]
    assert len({chosen(model, images) for images in clips}) > 1
    together = model(torch.stack(clips))
    for number, images in enumerate(clips):
        torch.testing.assert_close(together.depth[number], model(images).depth, rtol=1e-9, atol=1e-9)


# ---- known cameras


def test_known_cameras_equal_the_naive_twin():
    model, images, cameras = build("da3-large", **SIZE, known_cameras=True), clip("da3-large"), rig()
    weights = dict(model.named_parameters())
    special = naive_da3_heads.special_tokens(model.config, weights, cameras, 28, 42)
    assert (special[0] - special[1]).abs().max() > 1e-2
    position = model.encoder.position(2, 3)
    _, layers, _ = naive.forward(model.config, weights, position, images.numpy(), special_tokens=special)
    out = model(images, cameras=cameras)
    for i, layer in layers.items():
        torch.testing.assert_close(out.layers[i], layer, rtol=1e-8, atol=1e-8)
    expected = expected_predictions(model.config, weights, layers)
    assert_equal_predictions(out, naive_da3_heads.in_known_frame(expected, cameras))


def test_depth_is_in_the_scale_of_the_known_cameras():
    """Twice as far from each other, and everything is twice as far away; the tokens see no scale."""
    model, images, cameras = build("da3-large", **SIZE, known_cameras=True), clip("da3-large"), rig()
    out = model(images, cameras=cameras)
    for camera in cameras.values():
        for row in camera["world_to_camera"]:
            row[3] *= 2
    twice = model(images, cameras=cameras)
    torch.testing.assert_close(twice.layers[3], out.layers[3], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(twice.depth, 2 * out.depth, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(twice.camera[..., 3], out.camera[..., 3] * torch.tensor([2, 2, 2, 1.0]))


def test_a_view_without_a_camera_is_refused():
    model, images = build("da3-large", **SIZE, known_cameras=True), clip("da3-large")
    for cameras, words in ((None, "no cameras"), (rig(2), "2 cameras")):
        with pytest.raises(UsageError, match=rf"known cameras needs the calibration of every view\s+got:\s+{words}"):
            model(images, cameras=cameras)


# ---- images alone, and metres


def test_images_seen_alone_are_the_same_in_any_clip():
    model, images = build("da3-mono", **{**SIZE, "depth": 0}), clip("da3-mono", 3)
    together = model(images)
    assert together.depth.shape == together.sky.shape == (1, 3, 28, 42)
    assert (together.depth > 0).all() and (together.sky >= 0).all()
    for view in range(3):
        torch.testing.assert_close(model(images[:, [view]]).depth[:, 0], together.depth[:, view], rtol=1e-9, atol=1e-9)


def test_points_and_positions_are_multiplied_by_one_metric_scale():
    model, images = build("pi3x", **SIZE), clip("pi3x")
    metres = model(images)
    model.metric.head.bias += 1
    larger = model(images)
    torch.testing.assert_close(larger.metric, metres.metric * np.e)
    torch.testing.assert_close(larger.points, metres.points * np.e)
    torch.testing.assert_close(larger.camera[..., :3, 3], metres.camera[..., :3, 3] * np.e)
    torch.testing.assert_close(larger.camera[..., :3, :3], metres.camera[..., :3, :3])


def test_pi3x_pixel_heads_are_as_exact_on_wide_images_as_on_small_ones():
    """A resize with float32 coordinates errs with the image's size: 8e-6 at 266x266, where 1e-5 is allowed."""
    head, layout = ConvHead(ModelConfig.preset("pi3x", width=64, heads=1), (1,)).eval(), Layout(1, 1, 14, 1400)
    tokens = torch.randn(1, layout.N, 64, generator=torch.Generator().manual_seed(0))
    in_float32 = head(tokens, layout)
    expected = head.double()(tokens.double(), layout)
    assert (in_float32 - expected).norm() < 2e-6 * expected.norm()


@pytest.mark.parametrize("preset", ["pi3x", "da3-large", "da3-mono"])
def test_several_timesteps_are_refused(preset):
    depth = 0 if preset == "da3-mono" else 2
    model = build(preset, **{**SIZE, "depth": depth})
    with pytest.raises(UsageError, match=r"sees V images of one time\s+got:\s+T = 2\s+allowed: T = 1"):
        model(torch.zeros(2, 2, 28, 42, 3, dtype=torch.uint8))


@pytest.mark.parametrize("options", [{"known_cameras": True}, {"reference_view": "saddle_balanced"}])
@pytest.mark.parametrize("preset", ["pi3", "pi3x", "vggt", "da3-mono", "tiny"])
def test_choices_of_depth_anything_are_refused_elsewhere(preset, options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} is out of range"):
        ModelConfig.preset(preset, **options)
