"""The reference model against a naive twin, for every option, and its properties."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig, Page4D
from page4d.errors import UsageError
from page4d.network import rope as ropes
from page4d.network.attention import biased_attention
from page4d.network.block import Block
from page4d.network.mask import clamped, key_bias
from page4d.network.sparse import largest
from tests.support.examples import examples
from tests.support.naive import network as naive

SMALL = {"width": 128, "heads": 2, "encoder_depth": 1, "depth": 2}


def build(**options):
    """A small float64 model whose biases and lambdas all matter."""
    model = Page4D(ModelConfig.preset("tiny", **{**SMALL, **options}), seed=3).double()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lambda" in name:
            parameter.copy_(torch.rand((), generator=generator) * 6 - 1)  # some beyond the clamp, some negative
        elif name.endswith(("alpha", "beta")) or "gate" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        elif parameter.dim() > 1 and "norm" not in name:
            parameter.mul_(5)
    return model


def clip(T, V, h=2, w=3, seed=0):
    rng = np.random.default_rng(seed)
    layout = Layout(T, V, 14 * h, 14 * w)
    images = torch.from_numpy(rng.integers(0, 256, layout.images_shape, np.uint8))
    maps = [torch.from_numpy(rng.random(layout.patch_map_shape)) for _ in range(2)]
    return images, *maps


def rig(V, shared_centre=False):
    """Cameras of 42x28 images on an arc; with `shared_centre` the first two stand at one place and look apart."""
    cameras = {}
    for v in range(V):
        angle = 0.5 * v
        rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
        centre = (
            np.array([1.0, 0.2, 0.0])
            if shared_centre and v < 2
            else np.array([2 * np.sin(angle) + 1, 0.1 * v, 1 - np.cos(angle)])
        )
        pose = np.concatenate([rotation, (-rotation @ centre)[:, None]], 1)
        cameras[f"cam{v}"] = {
            "width": 42,
            "height": 28,
            "K": [[40, 0, 21], [0, 40, 14], [0, 0, 1]],
            "world_to_camera": pose.tolist(),
        }
    return cameras


OPTIONS = {
    "default": {},
    "one stream": {"streams": 1},
    "time first": {"order": ("time", "view")},
    "alibi": {"time_encoding": "alibi"},
    "no time": {"time_encoding": "none"},
    "2026 head": {"mask_head": "2026"},
    "gate": {"fusion": "gate"},
    "late mask": {"mask_layer": 1, "keep_layers": (0, 1)},
    "few landmarks": {"landmarks": 2, "global_layers": (0, 1)},
    "landmarks, one stream": {"landmarks": 2, "streams": 1},
    "dilated": {"global_strategy": "dilated", "dilations": (1,), "global_layers": (0, 1)},
    "dilated, two levels": {"global_strategy": "dilated", "dilations": (2, 3)},
    "memory": {"global_strategy": "memory", "memory_tokens": 3, "global_layers": (0, 1)},
    "no global": {"global_layers": ()},
    "epipolar": {"epipolar": True, "epipolar_band": 7.0, "epipolar_penalty": 3.0},
    "epipolar, one stream, late mask": {"epipolar": True, "epipolar_band": 4.0, "streams": 1, "mask_layer": 1},
    "pair": {"layer_output": "pair", "streams": 1, "keep_layers": (0, 1), "global_layers": ()},
    "pair of streams": {"layer_output": "pair", "mask_layer": 1, "keep_layers": (0, 1)},
}


@pytest.mark.parametrize("optional_inputs", [False, True], ids=["bare", "all inputs"])
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_the_naive_twin(name, optional_inputs):
    options = OPTIONS[name]
    model = build(**options)
    T, V = (4, 2) if "dilated" in name else (3, 2)
    images, mask_ext, keypoints = clip(T, V)
    inputs = {"mask_ext": mask_ext, "keypoints": keypoints} if optional_inputs else {}
    if options.get("epipolar"):
        inputs["cameras"] = rig(V)
    if options.get("global_strategy") == "memory" and optional_inputs:
        inputs["memory"] = torch.randn(2, 3, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = model(images, **inputs)
    weights = dict(model.named_parameters())
    mask, layers, memory = naive.forward(model.config, weights, model.encoder.position(2, 3), images.numpy(), **inputs)
    torch.testing.assert_close(out.mask, mask, rtol=1e-9, atol=1e-9)
    assert set(out.layers) == set(layers)
    for i, layer in layers.items():
        torch.testing.assert_close(out.layers[i], layer, rtol=1e-8, atol=1e-8)
    if memory is not None:
        torch.testing.assert_close(out.memory, memory, rtol=1e-8, atol=1e-8)
    else:
        assert out.memory is None


def test_clips_side_by_side_equal_clips_alone():
    model = build(global_strategy="memory", memory_tokens=4, epipolar=True, epipolar_band=6.0)
    clips = [clip(2, 3, seed=seed) for seed in range(2)]
    together = model(*(torch.stack(parts) for parts in zip(*clips, strict=True)), cameras=rig(3))
    for b, (images, mask_ext, keypoints) in enumerate(clips):
        alone = model(images, mask_ext, keypoints, cameras=rig(3))
        torch.testing.assert_close(together.mask[b], alone.mask)
        torch.testing.assert_close(together.layers[1][b], alone.layers[1])
        torch.testing.assert_close(together.memory[:, b], alone.memory)


def test_cameras_at_one_centre_put_no_penalty_on_each_other():
    model = build(epipolar=True, epipolar_band=1.0, epipolar_penalty=4.0, global_layers=())
    images, _, _ = clip(1, 2)
    penalised, free = model(images, cameras=rig(2)), model(images, cameras=rig(2, shared_centre=True))
    plain = build(global_layers=())(images)
    torch.testing.assert_close(free.layers[1], plain.layers[1])
    assert (penalised.layers[1] - plain.layers[1]).abs().max() > 1e-3


def test_views_may_be_permuted():
    model = build(global_layers=())
    images, mask_ext, _ = clip(2, 4)
    model.special_tokens[0] = model.special_tokens[1]  # the first image's own special tokens tell it apart
    order = [2, 0, 3, 1]
    straight, permuted = model(images, mask_ext), model(images[:, order], mask_ext[:, order])
    torch.testing.assert_close(permuted.mask, straight.mask[:, order])
    torch.testing.assert_close(permuted.layers[1], straight.layers[1][:, order])


def test_at_one_time_all_time_encodings_agree():
    images, mask_ext, _ = clip(1, 3)
    rope, alibi, none = (
        build(time_encoding=encoding)(images, mask_ext).layers[1] for encoding in ("rope", "alibi", "none")
    )
    torch.testing.assert_close(rope, none, rtol=0, atol=0)
    torch.testing.assert_close(alibi, none, rtol=0, atol=1e-12)


def test_time_encodings_differ_over_several_times():
    images, mask_ext, _ = clip(3, 1)
    rope, alibi, none = (
        build(time_encoding=encoding)(images, mask_ext).layers[1] for encoding in ("rope", "alibi", "none")
    )
    assert (rope - none).abs().max() > 1e-3
    assert (alibi - none).abs().max() > 1e-3


def test_dilated_over_the_whole_grid_is_dense():
    model = build(global_strategy="dilated", dilations=(1,))
    layout = Layout(2, 2, 28, 42)  # every frame is a neighbour of every other
    tokens = torch.randn(2, 1, 2, 2, layout.N, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    block = model.layers[1].global_sa
    wide, _ = block(tokens, layout)
    dense = block.block(tokens.flatten(2, 4).flatten(0, 1), ropes.spatial(layout, 64, tokens), biased_attention)
    torch.testing.assert_close(wide, dense.reshape(tokens.shape))
    far = Layout(3, 2, 28, 42)
    tokens = torch.randn(2, 1, 3, 2, far.N, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sparse, _ = block(tokens, far)
    dense = block.block(tokens.flatten(2, 4).flatten(0, 1), ropes.spatial(far, 64, tokens), biased_attention)
    assert (sparse - dense.reshape(tokens.shape)).abs().max() > 1e-3


@pytest.mark.parametrize("k", [6, 64])
def test_all_patches_as_landmarks_are_dense_over_the_patches(k):
    """The anchors come sorted by confidence; attention does not ask for the order of its keys."""
    layout = Layout(2, 2, 28, 42)
    block = build(landmarks=k).layers[1].global_sa
    tokens = torch.randn(2, 1, 2, 2, layout.N, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    landmark, _ = block(tokens, layout)
    x, rope = tokens.flatten(2, 4).flatten(0, 1), ropes.spatial(layout, 64, tokens)
    patches = torch.cat(
        [torch.arange(f * layout.N + layout.special, (f + 1) * layout.N) for f in range(layout.frames)]
    ).expand(2, -1)
    dense = block.block(x, rope, biased_attention, context=x[:, patches[0]], context_rope=rope.rows(patches % layout.N))
    torch.testing.assert_close(landmark, dense.reshape(tokens.shape))


def test_landmark_ties_go_to_the_lower_number():
    confidence = torch.tensor([[1.0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 1, 2, 2, 1, 0]])
    assert largest(confidence, 4).tolist() == [[0, 2, 4, 1], [0, 1, 2, 3], [2, 3, 1, 4]]


@examples(100)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1]))
def test_doubted_landmarks_are_the_furthest_from_those_chosen(k, seed, doubt):
    """What is certain stays; of what lies within the doubt as many change places as can."""
    rng = np.random.default_rng(seed)
    confidence = torch.from_numpy(
        rng.choice(np.concatenate([rng.uniform(1, 2, 6), 1 + doubt * rng.uniform(0, 1, 6)]), (3, 12), replace=True)
    )
    chosen, other = largest(confidence, k), largest(confidence, k, doubt)
    assert chosen.shape == other.shape == (3, k)
    for row, first, second in zip(confidence.numpy(), chosen.numpy(), other.numpy(), strict=True):
        last = row[first[-1]]
        tied = np.flatnonzero(np.abs(row - last) <= doubt * last)
        assert len(set(second)) == k and set(first) - set(tied) == set(second) - set(tied)
        below = [number for number in tied if row[number] < last]
        assert len(set(below) & set(second)) == min(len(below), len(set(first) & set(tied)))


def attention_shares(bias):
    """Share of attention that goes to each of 12 keys under a key bias: the values are indicators of the keys."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 2, 12, 64, dtype=torch.float64, generator=generator) for _ in range(2))
    v = torch.eye(12, 64, dtype=torch.float64).expand(1, 2, 12, 64)
    return biased_attention(q, k, v, bias[None])[..., :12].mean((0, 1, 2))


def test_growing_lambda_moves_attention_from_and_to_masked_patches():
    layout = Layout(1, 1, 14, 7 * 14)
    mask = torch.tensor([1.0, 0, 1, 0, 0, 0, 1]).double().reshape(1, 1, 1, 7, 1)
    masked = [layout.special + i for i in (0, 2, 6)]
    shares = {}
    for strength in (0.5, 1.5, 3.0, 9.0):
        factor = clamped(torch.tensor(strength, dtype=torch.float64))
        biases = key_bias(mask, -factor, factor, layout)[:, 0, 0, 0]
        assert (biases[:, : layout.special] == 0).all()  # special tokens are never biased
        for stream, bias in enumerate(biases):
            shares[stream, strength] = float(attention_shares(bias)[masked].sum())
    assert shares[0, 0.5] > shares[0, 1.5] > shares[0, 3.0] > shares[0, 9.0] > 0  # pose: away
    assert shares[1, 0.5] < shares[1, 1.5] < shares[1, 3.0] < shares[1, 9.0] < 1  # geo: towards
    assert clamped(torch.tensor(9.0)) == 4 and clamped(torch.tensor(-9.0)) == -4


def test_lambdas_at_zero_make_both_streams_equal():
    model = build()
    for name, parameter in model.named_parameters():
        if "lambda" in name:
            parameter.zero_()
    images, mask_ext, keypoints = clip(2, 2)
    pose, geo = model(images, mask_ext, keypoints).layers[1].chunk(2, -1)
    torch.testing.assert_close(pose, geo)
    masked, unmasked = model(images, mask_ext).layers[1], model(images).layers[1]
    torch.testing.assert_close(masked, unmasked)


def test_memory_goes_from_window_to_window():
    model = build(global_strategy="memory", memory_tokens=4)
    images, mask_ext, _ = clip(2, 2)
    first = model(images, mask_ext)
    second = model(images, mask_ext, memory=first.memory)
    assert first.memory.shape == (2, 4, 128)
    assert (second.layers[1] - first.layers[1]).abs().max() > 1e-4


def test_the_same_seed_gives_the_same_weights_in_every_model():
    deep, shallow = (Page4D(ModelConfig.preset("tiny", **{**SMALL, "depth": depth}), seed=7) for depth in (3, 2))
    other = Page4D(ModelConfig.preset("tiny", **SMALL), seed=8)
    weights = dict(deep.named_parameters())
    for name, parameter in shallow.named_parameters():
        if "global_sa" not in name:
            assert torch.equal(parameter, weights[name]), name
    name = "layers.0.view_sa.block.attn.qkv.weight"
    assert not torch.equal(dict(other.named_parameters())[name], weights[name])
    assert "seeded" in deep.weights and "7" in deep.weights
    assert abs(float(weights[name].std()) - 0.02) < 1e-3


def test_parameters_have_the_names_that_others_look_for():
    names = [name for name, _ in Page4D(ModelConfig.preset("tiny")).named_parameters()]
    for ending in ("lambda_pose", "lambda_geo", "lambda_pose_t", "lambda_geo_t", "lambda_kpt", "alpha", "beta"):
        assert any(name.endswith(ending) for name in names), ending


def test_bad_arguments_are_named():
    model = build(epipolar=True)
    images, mask_ext, _ = clip(2, 2)
    with pytest.raises(UsageError, match=r"epipolar.*(\n.*)*2, in the order of the views"):
        model(images)
    with pytest.raises(UsageError, match=r"images have the wrong form"):
        model(images.float())
    with pytest.raises(UsageError, match=r"mask_ext has the wrong shape"):
        model(images, mask_ext[:1], cameras=rig(2))
    with pytest.raises(UsageError, match=r"not a multiple of the patch size"):
        model(images[:, :, :, :20], cameras=rig(2))


def test_layers_before_the_mask_repeat_their_stream():
    out = build(mask_layer=1, keep_layers=(0, 1))(*clip(2, 2)[:2])
    pose, geo = out.layers[0].chunk(2, -1)
    assert torch.equal(pose, geo)
    pose, geo = out.layers[1].chunk(2, -1)
    assert (pose - geo).abs().max() > 1e-3


@examples(30)
@given(
    z=st.integers(1, 3), n=st.integers(1, 6), copies=st.integers(2, 3), normed=st.booleans(), seed=st.integers(0, 2**31)
)
def test_streams_that_start_equal_are_computed_once_before_they_part(z, n, copies, normed, seed):
    """A block on one copy equals, in float64, the block on all of them side by side, each with a bias of its own."""
    torch.manual_seed(seed)
    block = Block(32, 2, 1e-6, 1e-5 if normed else None).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x, bias = torch.randn(z, n, 32, dtype=torch.float64), torch.randn(copies * z, n, dtype=torch.float64)
    attend = partial(biased_attention, key_bias=bias)
    with torch.no_grad():
        torch.testing.assert_close(
            block(x, attend=attend, copies=copies),
            block(torch.cat([x] * copies), attend=attend),
            rtol=1e-12,
            atol=1e-12,
        )
