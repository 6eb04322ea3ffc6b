"""Where each weight of the published models comes from."""

import pytest
import torch

from page4d import ModelConfig, Page4D
from page4d.checkpoints.weights import load, load_weights
from page4d.config import Published
from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3
from tests.support.loads import block_sources, check, encoder_sources, norms_eps, qk_eps

VGGT_PREFIXES = {"camera": "camera_head", "depth": "depth_head", "points": "point_head"}


def named(state, prefix):
    """The names that begin with a prefix, without it."""
    return [name.removeprefix(prefix) for name in state if name.startswith(prefix)]


@pytest.mark.parametrize("heads", [True, False])
def test_load_pi3(tmp_path, heads):
    state = pi3_state(64, encoder_depth=1, pairs=3, heads=heads)
    save_pi3(tmp_path / "model.safetensors", state)
    model = load(tmp_path / "model.safetensors")
    config = model.config
    assert config == ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=3, predictions=heads)

    keys = encoder_sources("encoder.", 1)
    for i in range(3):
        keys |= block_sources(i, "view_sa", f"decoder.{2 * i + 1}.") | block_sources(i, "time_sa", f"decoder.{2 * i}.")
    for ours, theirs in (("points", "point"), ("confidence", "conf"), ("camera", "camera")) if heads else ():
        keys |= {f"{ours}.decoder.{name}": f"{theirs}_decoder.{name}" for name in named(state, f"{theirs}_decoder.")}
        keys |= {f"{ours}.head.{name}": f"{theirs}_head.{name}" for name in named(state, f"{theirs}_head.")}
    sources = {name: state[key] for name, key in keys.items()}
    sources["special_tokens"] = state["register_token"].reshape(1, 5, 64).repeat(2, 1, 1)
    check(model, {}, sources, "nothing")
    assert (model.points is not None, model.confidence is not None, model.camera is not None) == (heads, heads, heads)
    assert {norms_eps(layer) == {1e-6} and qk_eps(layer) == {1e-5} for layer in model.layers} == {True}
    assert norms_eps(model.encoder) == {1e-6}


@pytest.mark.parametrize(
    ("kind", "mask"), [("150", True), ("150", False), ("2026", True), ("2026", False), (None, True)]
)
def test_load_page4d_and_vggt(tmp_path, kind, mask):
    state = page4d_state(kind, 64, encoder_depth=1, layers=range(11))
    save_page4d(tmp_path / "a.pt", state, module=True, optimizer=True)
    options = {"keep_layers": (0, 10)} if mask else {"mask": False}
    model = load(tmp_path / "a.pt", **options)
    assert model.config.published is (Published.PAGE4D if kind else Published.VGGT)
    assert (model.config.width, model.config.heads, model.config.encoder_depth, model.config.depth) == (64, 1, 1, 11)
    assert model.config.predictions == ("camera", "depth", "points")
    assert model.config.keep_layers == tuple(sorted({*((0,) if mask else ()), *model.config.dpt_layers}))
    assert model.config.mask is mask

    keys = encoder_sources("aggregator.patch_embed.", 1)
    for i in range(11):
        keys |= block_sources(i, "view_sa", f"aggregator.frame_blocks.{i}.") | block_sources(
            i, "time_sa", f"aggregator.global_blocks.{i}."
        )
    if kind is not None and mask:
        keys |= {
            f"mask_head.{name}": f"aggregator.spatial_mask_head.{name}"
            for name in named(state, "aggregator.spatial_mask_head.")
        }
        assert model.mask_head.kind == kind
        assert model.mask_head.sign == -1.0
    else:
        assert model.mask_head is None
    for ours, theirs in VGGT_PREFIXES.items():
        keys |= {f"{ours}.{name}": f"{theirs}.{name}" for name in named(state, f"{theirs}.")}
    sources = {name: state[key] for name, key in keys.items()}
    sources["special_tokens"] = torch.cat(
        (state["aggregator.camera_token"], state["aggregator.register_token"]), dim=2
    )[0]
    check(model, {}, sources, "nothing")
    assert {norms_eps(layer) == qk_eps(layer) == {1e-5} for layer in model.layers} == {True}
    assert norms_eps(model.encoder) == {1e-6}


@pytest.mark.parametrize(("built", "kind"), [("150", "2026"), ("2026", "150")])
def test_the_published_mask_head_follows_the_checkpoint(tmp_path, built, kind):
    save_page4d(tmp_path / "a.pt", page4d_state(kind, 64, 1, range(11)))
    model = Page4D(ModelConfig.preset("page4d", width=64, heads=1, encoder_depth=1, depth=11, mask_head=built))
    load_weights(model, page4d=tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt")
    assert model.config == loaded.config
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_a_pi3_model_with_heads_loads_a_file_without(tmp_path):
    save_pi3(tmp_path / "a.safetensors", pi3_state(64, 1, 1, heads=False))
    model = Page4D(ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=1))
    assert model.points is not None
    load_weights(model, tmp_path / "a.safetensors")
    assert not model.config.predictions
    assert (model.points, model.confidence, model.camera) == (None, None, None)
    assert model.report.new == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_precisions_are_converted(tmp_path, dtype, suffix):
    state = {name: tensor.to(dtype) for name, tensor in pi3_state(64, 1, 1, heads=False).items()}
    save_pi3(tmp_path / f"a{suffix}", state)
    model = load(tmp_path / f"a{suffix}")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name in ("encoder.pos_embed", "encoder.blocks.0.attn.qkv.weight"):
        assert torch.equal(model.get_parameter(name), state[name].float()), name
    assert torch.equal(model.layers[0].view_sa.block.mlp.fc2.bias, state["decoder.1.mlp.fc2.bias"].float())
    assert torch.equal(model.special_tokens[1], state["register_token"][0, 0].float())


def test_trainable_parameters_in_a_file_leave_no_graph(tmp_path):
    torch.save(
        {name: torch.nn.Parameter(tensor) for name, tensor in pi3_state(64, 1, 1, heads=False).items()},
        tmp_path / "a.pt",
    )
    model = Page4D(ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=1))
    load_weights(model, tmp_path / "a.pt")
    for parameter in (*model.parameters(), *load(tmp_path / "a.pt").parameters()):
        assert parameter.grad_fn is None
        assert not parameter.requires_grad
