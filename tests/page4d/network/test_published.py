"""The published models: the reference model against the naive twin, and what is theirs alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig, Page4D
from page4d.errors import UsageError
from page4d.network.aggregator import TimeSA
from page4d.network.mask import RowMaskHead
from page4d.published import TRAITS
from tests.support.examples import examples
from tests.support.naive import da3_heads as naive_da3_heads
from tests.support.naive import heads as naive_heads
from tests.support.naive import network as naive
from tests.support.naive import pi3x_heads as naive_pi3x_heads
from tests.support.naive import vggt_heads as naive_vggt_heads

SPECIAL = 5
NARROW = {"width": 64, "heads": 1, "encoder_depth": 1}
WIDE = {"width": 128, "heads": 2, "encoder_depth": 1}
OLD = {**NARROW, "mask_head": "150", "depth": 10}
NEW = {**NARROW, "mask_head": "2026", "depth": 12}

MODELS = {
    "pi3": ("pi3", {**WIDE, "depth": 3, "keep_layers": (0, 1, 2)}),
    "pi3 without heads": ("pi3", {**NARROW, "depth": 2, "keep_layers": (0, 1), "predictions": False}),
    "vggt": ("vggt", {**WIDE, "depth": 3, "keep_layers": (0, 2)}),
    "page4d 150": ("page4d", {**OLD, "keep_layers": (0, 7, 8, 9)}),
    "page4d 2026": ("page4d", {**NEW, "keep_layers": (0, 9, 10, 11)}),
    "page4d 150, two heads": ("page4d", {**OLD, **WIDE, "depth": 9, "keep_layers": (7, 8)}),
    "page4d 150, unmasked": ("page4d", {**OLD, "mask": False, "keep_layers": (8, 9)}),
    "page4d 2026, unmasked": ("page4d", {**NEW, "mask": False, "keep_layers": (10, 11)}),
    "pi3x": ("pi3x", {**WIDE, "depth": 2, "keep_layers": (0, 1)}),
    "pi3x without heads": ("pi3x", {**NARROW, "depth": 2, "keep_layers": (1,), "predictions": False}),
    "da3": ("da3-large", {**WIDE, "encoder_depth": 2, "depth": 5, "keep_layers": (0, 1, 2, 3, 4)}),
    "da3 first": ("da3-large", {**NARROW, "depth": 2, "keep_layers": (0, 1), "reference_view": "first"}),
    "da3-mono": ("da3-mono", {**NARROW, "encoder_depth": 4, "keep_layers": ()}),
    "page4d 2026, masked and not again": ("page4d", {**NEW, "depth": 22, "keep_layers": (19, 20, 21)}),
}


def enliven(module, seed=5):
    """Weights of such a size that every one of them matters; a mask head's so that M takes all values."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.endswith(("alpha_logit", "tau_logit")):
            parameter.copy_(torch.randn((), generator=generator))
        elif "head0" in name:
            scale = 2 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        elif parameter.dim() == 4 and name.startswith(("depth.", "points.")):
            continue  # convolutions of a DPT head are seeded large enough, and their results go through exp
        elif parameter.dim() > 1 and "norm" not in name:
            parameter.mul_(5)
    return module


def build(preset, **options):
    return enliven(Page4D(ModelConfig.preset(preset, **options), seed=3).double())


def clip(preset, images=3, seed=0):
    published = ModelConfig.preset(preset).published
    T, V = (images, 1) if TRAITS[published].sees_time else (1, images)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (T, V, 28, 42, 3), np.uint8))


def apart(a, b):
    return float((a - b).abs().max())


# ---- the whole model


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_naive_twin(name):
    preset, options = MODELS[name]
    model, images = build(preset, **options), clip(preset)
    weights, position = dict(model.named_parameters()), model.encoder.position(2, 3)
    out = model(images)
    if model.config.sees_alone:
        assert not out.layers
        assert_equal_predictions(out, naive_da3_heads.predict_alone(model.config, weights, position, images.numpy()))
        return
    mask, layers, memory = naive.forward(model.config, weights, position, images.numpy())
    assert set(out.layers) == set(layers) == {*options["keep_layers"], *model.config.head_layers}
    for i, layer in layers.items():
        assert layer.shape[-1] == 2 * options["width"]
        torch.testing.assert_close(out.layers[i], layer, rtol=1e-8, atol=1e-8)
    assert out.memory is None and memory is None
    if preset == "page4d" and options.get("mask", True):
        torch.testing.assert_close(out.mask, mask, rtol=1e-8, atol=1e-8)
        assert mask.std() > 0.1
    else:
        assert out.mask is None and mask is None
    assert_equal_predictions(out, expected_predictions(model.config, weights, layers))


PREDICTIONS = ("points", "points_confidence", "confidence", "depth", "depth_confidence", "camera", "intrinsics")
SCALARS = ("metric",)


def expected_predictions(config, weights, layers):
    """What the heads give, by the names of `Output`."""
    if not config.predictions:
        return {}
    if config.published == "pi3":
        values = naive_heads.predict(config, weights, layers[config.depth - 1], 2, 3)
        return dict(zip(("points", "confidence", "camera"), values, strict=True))
    if config.published == "pi3x":
        return naive_pi3x_heads.predict(config, weights, layers[config.depth - 1], 2, 3)
    if config.published == "da3":
        return naive_da3_heads.predict(config, weights, layers, 28, 42)
    return naive_vggt_heads.predict(config, weights, layers, 28, 42)


def assert_equal_predictions(out, expected):
    for name in (*PREDICTIONS, "sky", *SCALARS):
        computed = getattr(out, name)
        assert (computed is None) == (name not in expected), name
        if computed is not None:
            assert name in SCALARS or computed.nan_to_num().std() > 1e-3, name
            torch.testing.assert_close(computed, expected[name], rtol=1e-8, atol=1e-8, equal_nan=True)


def test_what_the_heads_give_lies_where_it_must():
    pi3, vggt = (build(name, **MODELS[name][1])(clip(name)) for name in ("pi3", "vggt"))
    assert pi3.points.shape == (1, 3, 28, 42, 3) and (pi3.points[..., 2] > 0).all()
    assert apart(pi3.camera[:, 0], torch.eye(4).double()) > 1e-2  # the world is not camera 0
    assert vggt.points.shape == (3, 1, 28, 42, 3) and (vggt.depth > 0).all()
    assert (vggt.depth_confidence > 1).all() and (vggt.points_confidence > 1).all()
    assert pi3.points_frame == "camera" and vggt.points_frame == "world"


def test_layers_that_the_heads_read_are_kept():
    assert ModelConfig.preset("vggt").keep_layers == (4, 11, 17, 23)
    assert ModelConfig.preset("vggt", keep_layers=(0,)).keep_layers == (0, 4, 11, 17, 23)
    assert ModelConfig.preset("page4d", predictions=("camera",)).keep_layers == (23,)
    assert ModelConfig.preset("vggt", predictions=(), keep_layers=(2,)).keep_layers == (2,)
    assert ModelConfig.preset("pi3", keep_layers=(0, 16)).keep_layers == (0, 16, 17)


@pytest.mark.parametrize("heads", [(), ("camera",), ("depth",), ("points",), ("points", "camera"), ("depth", "camera")])
def test_a_model_with_fewer_heads_gives_the_same_of_these(heads):
    options = {**WIDE, "depth": 4}
    whole, some = (build("vggt", **options, predictions=chosen) for chosen in (True, heads))
    weights = dict(whole.named_parameters())
    some.load_state_dict({name: weights[name] for name, _ in some.named_parameters()})
    images = clip("vggt")
    expected, out = whole(images), some(images)
    names = {"camera": ("camera", "intrinsics"), "depth": ("depth", "depth_confidence")}
    predicted = {name for head in heads for name in names.get(head, ("points", "points_confidence"))}
    assert {name for name in PREDICTIONS if getattr(out, name) is not None} == predicted
    for name in predicted:
        assert torch.equal(getattr(out, name).nan_to_num(), getattr(expected, name).nan_to_num()), name
    assert out.points_frame == ("world" if "points" in heads else None)
    assert set(out.layers) == set(some.config.head_layers or {3})


@pytest.mark.parametrize("name", ["pi3", "pi3x", "vggt", "page4d 150", "page4d 2026", "da3", "da3-mono"])
def test_clips_side_by_side_equal_clips_alone(name):
    preset, options = MODELS[name]
    model = build(preset, **options)
    clips = [clip(preset, seed=seed) for seed in range(2)]
    together = model(torch.stack(clips))
    for b, images in enumerate(clips):
        alone = model(images)
        for i, layer in alone.layers.items():
            torch.testing.assert_close(together.layers[i][b], layer, rtol=1e-9, atol=1e-9)
        for field in ("mask", *PREDICTIONS, "sky", *SCALARS):
            batch, single = getattr(together, field), getattr(alone, field)
            assert (batch is None) == (single is None), field
            if single is not None:
                torch.testing.assert_close(batch[b], single, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", ["vggt", "page4d 150", "page4d 2026"])
def test_only_the_first_frame_is_told_apart(name):
    """Its special tokens are its own, those of all others the same; there is no time."""
    preset, options = MODELS[name]
    model, images = build(preset, **options), clip(preset, 4)
    straight = model(images)
    order = [0, 3, 1, 2]
    permuted = model(images[order])
    for i, layer in straight.layers.items():
        torch.testing.assert_close(permuted.layers[i], layer[order], rtol=1e-9, atol=1e-9)
    if straight.mask is not None:
        torch.testing.assert_close(permuted.mask, straight.mask[order], rtol=1e-9, atol=1e-9)
    order = [1, 0, 2, 3]
    for i, layer in model(images[order]).layers.items():
        assert apart(layer, straight.layers[i][order]) > 1e-3


# ---- PAGE-4D's own mask


@pytest.mark.parametrize(("options", "first"), [(OLD, 8), (NEW, 10)], ids=["150", "2026"])
def test_the_mask_acts_on_special_tokens_from_its_first_layer_on(options, first):
    options = {**options, "keep_layers": tuple(range(options["depth"]))}
    masked, plain = build("page4d", **options), build("page4d", **options, mask=False)
    weights = dict(masked.named_parameters())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in plain.named_parameters())
    images = clip("page4d")
    on, off = masked(images), plain(images)
    assert on.mask is not None and off.mask is None
    for i in range(first):
        assert torch.equal(on.layers[i], off.layers[i]), i
    (view_on, time_on), (view_off, time_off) = (out.layers[first].chunk(2, -1) for out in (on, off))
    assert torch.equal(view_on, view_off)
    assert apart(time_on[..., :SPECIAL, :], time_off[..., :SPECIAL, :]) > 1e-3
    torch.testing.assert_close(time_on[..., SPECIAL:, :], time_off[..., SPECIAL:, :], rtol=1e-11, atol=1e-11)
    # one layer later patches hear of it from special tokens
    assert apart(on.layers[first + 1][..., SPECIAL:, :], off.layers[first + 1][..., SPECIAL:, :]) > 1e-6


@pytest.mark.parametrize("options", [OLD, NEW], ids=["150", "2026"])
def test_a_row_bias_changes_the_outputs_of_special_tokens_only(options):
    config = ModelConfig.preset("page4d", **options)
    module = build("page4d", **options).layers[config.row_mask.layers[0]].time_sa
    assert isinstance(module, TimeSA)
    layout = Layout(3, 1, 28, 42, B=2)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 2, 3, 1, layout.N, config.width, dtype=torch.float64, generator=generator)
    first, second = (torch.rand(2, 3, 1, layout.P, 1, dtype=torch.float64, generator=generator) - 0.5 for _ in range(2))
    second[1] = first[1]
    a, b, none, zero = (module(tokens, layout, None, bias) for bias in (first, second, None, torch.zeros_like(first)))
    torch.testing.assert_close(zero, none, rtol=1e-11, atol=1e-11)
    for other in (b, none):
        torch.testing.assert_close(a[..., SPECIAL:, :], other[..., SPECIAL:, :], rtol=1e-11, atol=1e-11)
    assert ((a - b)[:, 0, ..., :SPECIAL, :].abs().amax(-1) > 1e-4).all()  # every special token of every frame
    assert torch.equal(a[:, 1], b[:, 1])  # a clip's bias is its own


@examples(60)
@given(
    st.sampled_from(["150", "2026"]),
    st.floats(-12, 12),
    st.floats(-12, 12),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 99),
)
def test_the_mask_head_equals_its_formula(kind, alpha, tau, grid, seed):
    """All strengths and temperatures: clamped to 1, vanishing, and at the smallest temperature."""
    config = ModelConfig.preset("page4d", **NARROW, mask_head=kind)
    head = RowMaskHead(config).double().requires_grad_(False)
    for parameter in head.parameters():
        parameter.fill_(0.02)
    enliven(head, seed)
    if kind == "150":
        head.alpha_logit.fill_(alpha)
        head.tau_logit.fill_(tau)
    layout = Layout(2, 1, 14 * grid[0], 14 * grid[1])
    tokens = torch.randn(
        1, 1, 2, 1, layout.N, config.width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    dynamic, bias = head(tokens, layout)
    net = naive.Net(
        config, {f"mask_head.{name}": parameter for name, parameter in head.named_parameters()}, 2, 1, *grid, None
    )
    for t in range(2):
        expected = net.own_mask({(t, 0): tokens[0, 0, t, 0]}, t, 0)
        torch.testing.assert_close(dynamic[0, t, 0, :, 0], expected[0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(bias[0, t, 0, :, 0], expected[1], rtol=1e-8, atol=1e-9)
    assert bias.min() >= -0.5 and bias.max() <= (0 if kind == "150" else 0.5)


@pytest.mark.parametrize(("kind", "after"), [("150", 7), ("2026", 9)])
def test_a_model_that_ends_before_its_mask_has_none(kind, after):
    model = build("page4d", **NARROW, mask_head=kind, depth=after)
    assert model.mask_head is None and not model.config.has_mask
    assert model(clip("page4d")).mask is None
    assert not any("mask_head" in name for name, _ in model.named_parameters())
    # one layer more, and there is a mask, though no layer that it acts in
    longer, plain = (build("page4d", **NARROW, mask_head=kind, depth=after + 1, mask=mask) for mask in (True, False))
    out = longer(clip("page4d"))
    assert out.mask.shape == (3, 1, 2, 3)
    assert torch.equal(out.layers[after], plain(clip("page4d")).layers[after])


def test_without_its_mask_page4d_is_vggt_with_other_weights():
    options = {**NARROW, "depth": 10}
    page4d, vggt = build("page4d", **options, mask=False), build("vggt", **options)
    assert [name for name, _ in page4d.named_parameters()] == [name for name, _ in vggt.named_parameters()]
    assert torch.equal(page4d(clip("vggt")).layers[9], vggt(clip("vggt")).layers[9])


# ---- what is refused


@pytest.mark.parametrize(
    ("preset", "shape", "message"),
    [
        ("pi3", (2, 1), r"Pi3 as published sees V images of one time\s+got:\s+T = 2\s+allowed: T = 1"),
        ("vggt", (1, 2), r"VGGT as published sees T frames of one view\s+got:\s+V = 2\s+allowed: V = 1"),
        (
            "page4d",
            (3, 2),
            r"PAGE-4D as published sees T frames of one view\s+got:\s+V = 2\s+allowed: V = 1(.*\n.*)*--T 6 --V 1",
        ),
    ],
)
def test_clips_of_another_layout_are_refused(preset, shape, message):
    model = build(preset, **NARROW, depth=1)
    with pytest.raises(UsageError, match=message):
        model(torch.zeros(*shape, 28, 42, 3, dtype=torch.uint8))


@pytest.mark.parametrize("preset", ["pi3", "vggt", "page4d"])
def test_an_external_mask_is_refused(preset):
    model, images = build(preset, **NARROW, depth=1), clip(preset)
    with pytest.raises(UsageError, match=f"the published model {preset} takes no external mask"):
        model(images, torch.zeros(*images.shape[:2], 6, 1))


STRANGE = [
    {"streams": 2},
    {"time_encoding": "rope"},
    {"time_encoding": "alibi"},
    {"layer_output": "streams"},
    {"global_layers": (0,)},
    {"global_layers": None},
    {"epipolar": True},
]


@pytest.mark.parametrize("options", STRANGE)
@pytest.mark.parametrize("preset", ["pi3", "vggt", "page4d"])
def test_options_that_were_not_published_are_refused(preset, options):
    with pytest.raises(
        UsageError, match=rf"{next(iter(options))} is out of range\s+got:(.*\n.*)*as {preset} was published"
    ):
        ModelConfig.preset(preset, **options)


@pytest.mark.parametrize(
    ("preset", "order"), [("pi3", ("view", "time")), ("vggt", ("time", "view")), ("page4d", ("time", "view"))]
)
def test_another_order_is_refused(preset, order):
    with pytest.raises(UsageError, match=rf"order is out of range(.*\n.*)*as {preset} was published"):
        ModelConfig.preset(preset, order=order)


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("tiny", {"mask": False}, "mask is out of range"),
        ("pi3", {"mask": False}, "mask is out of range"),
        ("vggt", {"mask": False}, "mask is out of range"),
        ("tiny", {"predictions": True}, "predictions is out of range"),
        ("vggt", {"predictions": ("confidence",)}, r"got:\s+confidence\s+allowed: camera, depth, points"),
        ("page4d", {"predictions": ("masks",)}, r"predictions is out of range\s+got:\s+masks"),
        ("pi3", {"predictions": ("camera",)}, "allowed: all of points, confidence, camera, or none"),
        (
            "tiny",
            {"published": "pi4"},
            r"published has no such value\s+got:\s+pi4\s+allowed: pi3, pi3x, vggt, page4d, da3, da3-mono, da3-metric",
        ),
    ],
)
def test_choices_of_other_models_are_refused(preset, options, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig.preset(preset, **options)


def test_the_choices_that_published_models_leave():
    assert ModelConfig.preset("pi3", keep_layers=(0, 16), predictions=False).keep_layers == (0, 16)
    assert not ModelConfig.preset("page4d", mask=False).has_mask
    sizes = {name: ModelConfig.preset(name) for name in ("pi3", "vggt", "page4d")}
    assert {name: config.depth for name, config in sizes.items()} == {"pi3": 18, "vggt": 24, "page4d": 24}
    assert {name: config.eps for name, config in sizes.items()} == {
        "pi3": (1e-6, 1e-5),
        "vggt": (1e-5, 1e-5),
        "page4d": (1e-5, 1e-5),
    }
    assert {name: config.has_mask for name, config in sizes.items()} == {"pi3": False, "vggt": False, "page4d": True}
    for kind, layers in (("150", range(8, 24)), ("2026", range(10, 20))):
        config = ModelConfig.preset("page4d", mask_head=kind)
        assert [layer for layer in range(24) if config.rows_biased(layer)] == list(layers)
    for config in sizes.values():
        assert ModelConfig.from_mapping(config.to_mapping()) == config
