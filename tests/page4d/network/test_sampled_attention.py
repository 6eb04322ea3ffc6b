"""Attention over all images that reads a sample of the other images' patches: against naive twins, and its limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig, Page4D
from page4d.config import SAMPLINGS
from page4d.errors import UsageError
from page4d.network.attention import biased_attention
from page4d.network.sparse import Sampling
from page4d.ops import BiasedRows
from page4d.published import TRAITS
from tests.page4d.network.test_published import assert_equal_predictions, build, expected_predictions
from tests.support.examples import examples
from tests.support.naive import network as naive

SMALL = {"width": 64, "heads": 1}
OF_IMAGES = {
    "vggt": {"encoder_depth": 1, "depth": 3, "keep_layers": (0, 2)},
    "page4d": {"encoder_depth": 1, "mask_head": "150", "depth": 10, "keep_layers": (7, 8, 9)},
    "pi3": {"encoder_depth": 1, "depth": 2, "keep_layers": (0, 1)},
    "pi3x": {"encoder_depth": 1, "depth": 2, "keep_layers": (0, 1), "predictions": False},
    "da3-large": {"encoder_depth": 2, "depth": 4, "keep_layers": (0, 1, 2, 3)},
}


def images_of(preset, count, h, w, clips=1):
    sees_time = TRAITS[ModelConfig.preset(preset).published].sees_time
    T, V = (count, 1) if sees_time else (1, count)
    shape = (*([clips] if clips > 1 else []), T, V, 14 * h, 14 * w, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


# ---- whole models


@pytest.mark.parametrize("layers", [None, (1,)], ids=["all layers", "one layer"])
@pytest.mark.parametrize("one_in", [4, 9])
@pytest.mark.parametrize("preset", OF_IMAGES)
def test_a_sparse_model_equals_the_naive_twin_with_a_mask(preset, one_in, layers):
    options = {**SMALL, **OF_IMAGES[preset], "sparse_attention": one_in, "sparse_layers": layers}
    model = build(preset, **options)
    h, w = (2, 3) if preset == "page4d" else (3, 4)  # the twin of PAGE-4D's mask goes pair by pair
    images = images_of(preset, 3, h, w)
    weights, position = dict(model.named_parameters()), model.encoder.position(h, w)
    out = model(images)
    mask, expected, _ = naive.forward(model.config, weights, position, images.numpy())
    for layer, tokens in expected.items():
        torch.testing.assert_close(out.layers[layer], tokens, rtol=1e-8, atol=1e-8)
    if preset == "page4d":
        torch.testing.assert_close(out.mask, mask, rtol=1e-8, atol=1e-8)
        assert_equal_predictions(out, expected_predictions(model.config, weights, expected))
    exact = model.exact()(images)
    last = model.config.depth - 1
    assert (exact.layers[last] - out.layers[last]).norm() > 1e-4 * exact.layers[last].norm()


@pytest.mark.parametrize("preset", ["vggt", "da3-large"])
def test_clips_side_by_side_equal_clips_alone(preset):
    model = build(preset, **SMALL, **OF_IMAGES[preset], sparse_attention=4)
    clips = images_of(preset, 3, 3, 3, clips=2)
    together = model(clips)
    for number in range(2):
        tokens = model(clips[number]).layers[model.config.depth - 1]
        torch.testing.assert_close(together.layers[model.config.depth - 1][number], tokens)


@pytest.mark.parametrize("preset", OF_IMAGES)
def test_off_the_model_is_the_published_one_to_the_bit(preset):
    published = ModelConfig.preset(preset, **SMALL, **OF_IMAGES[preset])
    off = ModelConfig.preset(preset, **SMALL, **OF_IMAGES[preset], sparse_attention=1)
    sparse = ModelConfig.preset(preset, **SMALL, **OF_IMAGES[preset], sparse_attention=4, sparse_layers=(0,))
    assert off == published == sparse.exact
    assert not any("sparse" in name for name in off.to_mapping())  # manifests of exact engines do not speak of it
    assert all(ModelConfig.from_mapping(config.to_mapping()) == config for config in (off, sparse))
    images = images_of(preset, 2, 2, 3)
    model = Page4D(sparse, seed=1)
    exact, expected = model.exact(), Page4D(published, seed=1)
    assert exact.config == published
    assert all(ours is theirs for ours, theirs in zip(exact.parameters(), model.parameters(), strict=True))
    for layer, tokens in expected(images).layers.items():
        assert torch.equal(exact(images).layers[layer], tokens)
    last = published.depth - 1
    assert model.config == sparse and not torch.equal(model(images).layers[last], expected(images).layers[last])


def test_of_one_image_every_key_is_read():
    model = build("vggt", **SMALL, encoder_depth=1, depth=2, sparse_attention=9)
    images = images_of("vggt", 1, 3, 3)
    assert torch.equal(model(images).depth, model.exact()(images).depth)


# ---- the operation


def dense(q, k, v, layout, images, one_in, key_bias, rows):
    """The same with a mask [n,n]."""
    side = math.isqrt(one_in)
    kept = set()
    for top, left in itertools.product(range(0, layout.h, side), range(0, layout.w, side)):
        bottom, right = min(top + side, layout.h) - 1, min(left + side, layout.w) - 1
        kept.add(layout.special + (top + bottom) // 2 * layout.w + (left + right) // 2)
    token = torch.arange(images * layout.N)
    image, within = token // layout.N, token % layout.N
    is_sampled = torch.tensor([number < layout.special or number in kept for number in within.tolist()])
    is_read = (image[:, None] == image) | is_sampled
    bias = torch.where(is_read, 0.0, -math.inf).double()
    if key_bias is not None:
        is_biased = torch.ones(len(token)) if rows is None else (within < rows.leading) * rows.gain
        # by row, since 0 * -inf is no number
        by_row = [key_bias * gain if gain else torch.zeros_like(key_bias) for gain in is_biased.tolist()]
        bias = bias + torch.stack(by_row, 1)[:, None]
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + bias
    return torch.nan_to_num(logits.softmax(-1)) @ v


@examples(60)
@given(
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    images=st.integers(2, 4),
    clips=st.integers(1, 2),
    registers=st.sampled_from((0, 4)),
    one_in=st.sampled_from(SAMPLINGS[1:]),
    bias=st.sampled_from(("none", "keys", "an image without keys", "rows")),
    seed=st.integers(0, 99),
)
def test_equals_attention_with_a_mask(h, w, images, clips, registers, one_in, bias, seed):
    layout = Layout(images, 1, 14 * h, 14 * w, registers=registers)
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, clips, 2, images * layout.N, 4, dtype=torch.float64, generator=generator)
    key_bias = None
    if bias != "none":
        key_bias = torch.randn(clips, images * layout.N, dtype=torch.float64, generator=generator)
    if bias == "an image without keys":
        key_bias[:, layout.N : 2 * layout.N] = -math.inf
    rows = BiasedRows(layout.N, layout.special, 3.0) if bias == "rows" else None
    out = Sampling(layout, images, one_in).attend(q, k, v, key_bias, rows)
    torch.testing.assert_close(out, dense(q, k, v, layout, images, one_in, key_bias, rows), rtol=1e-10, atol=1e-10)


def test_where_a_square_is_one_patch_all_is_read():
    layout = Layout(3, 1, 14, 14)
    q, k, v = torch.randn(3, 1, 2, 3 * layout.N, 8, dtype=torch.float64)
    out = Sampling(layout, 3, 4).attend(q, k, v)
    torch.testing.assert_close(out, biased_attention(q, k, v), rtol=1e-12, atol=1e-12)


# ---- the grid


@pytest.mark.parametrize(
    ("h", "w", "one_in", "kept"),
    [
        (4, 4, 4, [0, 2, 8, 10]),
        (3, 5, 4, [0, 2, 4, 10, 12, 14]),  # what is cut off at the edge has a patch of its own
        (3, 6, 9, [7, 10]),
        (4, 4, 9, [5, 7, 13, 15]),
        (2, 2, 64, [0]),
    ],
)
def test_kept_patches(h, w, one_in, kept):
    assert Layout(1, 1, 14 * h, 14 * w).sampled_patches(one_in) == kept


@examples(40)
@given(
    h=st.integers(1, 12),
    w=st.integers(1, 12),
    images=st.integers(1, 5),
    registers=st.sampled_from((0, 4)),
    one_in=st.sampled_from(SAMPLINGS),
)
def test_counts_are_those_of_the_segments(h, w, images, registers, one_in):
    layout = Layout(images, 1, 14 * h, 14 * w, registers=registers)
    assert layout.sampled_tokens(one_in) == layout.special + len(layout.sampled_patches(one_in))
    seg_ptr, seg = layout.sampled_segments(images, one_in)
    pairs = 0
    for first, past in itertools.pairwise(seg_ptr):
        keys = [key for start, length in seg[first:past] for key in range(start, start + length)]
        assert len(set(keys)) == len(keys) and max(keys) < images * layout.N
        pairs += layout.N * len(keys)
    assert pairs == layout.sampled_pairs(images, one_in)
    if one_in == 1:
        assert pairs == (images * layout.N) ** 2


# ---- what configs refuse


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("tiny", {"sparse_attention": 4}, "this project's own network, whose View-SA and Time-SA"),
        ("da3-mono", {"sparse_attention": 4}, "Depth Anything 3 MONO, which sees every image by itself"),
        ("vggt", {"sparse_attention": 5}, r"sparse_attention is out of range\s+got:\s+5\s+allowed: 1, 4, 9, 16"),
        ("vggt", {"sparse_attention": 0}, "1, 4, 9, 16"),
        ("vggt", {"sparse_layers": (3,)}, "with sparse_attention = 1 no layer is sparse"),
        (
            "vggt",
            {"sparse_attention": 4, "sparse_layers": (24,)},
            r"sparse_layers .*\s+got:\s+24\s+allowed: layers 0 to",
        ),
        ("vggt", {"sparse_attention": 4, "sparse_layers": ()}, "one layer or more"),
    ],
)
def test_refused(preset, options, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig.preset(preset, **options)


# ---- beside absent images


@pytest.mark.parametrize("preset", OF_IMAGES)
def test_an_absent_image_is_as_if_it_were_not_in_the_clip(preset):
    model = build(preset, **SMALL, **OF_IMAGES[preset], sparse_attention=4)
    images = images_of(preset, 4, 3, 3)
    by_image = images.flatten(0, 1)
    smaller = by_image[[0, 1, 3]].reshape(*(3 if size == 4 else 1 for size in images.shape[:2]), *images.shape[2:])
    present = torch.tensor([True, True, False, True]).reshape(images.shape[:2])
    out, expected = model(images, present=present), model(smaller)
    for layer, tokens in expected.layers.items():
        torch.testing.assert_close(
            out.layers[layer].flatten(0, 1)[[0, 1, 3]], tokens.flatten(0, 1), rtol=1e-8, atol=1e-8
        )
