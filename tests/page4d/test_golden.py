"""Values of the published models' own code, where they lie beside the repository (not part of it): float64, 1e-6."""

import importlib.util
import pathlib

import pytest
import torch

from page4d import Layout, ModelConfig
from page4d import rope as ropes
from page4d.block import Block
from page4d.encoder import MEAN, STD, Encoder
from page4d.mask import MaskHead

GRID = Layout(1, 1, 56, 84)


@pytest.fixture(scope="module")
def golden():
    path = pathlib.Path(__file__).parents[3] / "shared" / "golden" / "golden.py"
    if not path.is_file():
        pytest.skip(f"no reference values at {path.parent}")
    spec = importlib.util.spec_from_file_location("golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def filled(golden, build, prefix):
    """A module in float64 with recipe weights; built without memory first."""
    with torch.device("meta"):
        module = build()
    weights = {name: torch.from_numpy(golden.weight(prefix + name, tuple(parameter.shape))).double() for name, parameter in module.named_parameters()}
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def encoder(golden):
    return filled(golden, lambda: Encoder(ModelConfig.preset("vitl")), "encoder.")


def test_rope(golden):
    q = torch.from_numpy(golden.tokens("golden.rope.q", (1, 16, 29, 64))).double()
    turned = ropes.rotate(q.transpose(1, 2), ropes.spatial(GRID, 64, torch.float64))
    golden.check("rope.q", turned.transpose(1, 2))


def test_block(golden):
    block = filled(golden, lambda: Block(1024, 16, eps=1e-6, qk_eps=1e-5), "decoder.0.")
    tokens = torch.from_numpy(golden.tokens("golden.block.tokens", (2, 29, 1024))).double()
    golden.check("block.even(decoder.0)", block(tokens, ropes.spatial(GRID, 64, torch.float64)))


def test_block_notices_a_wrong_eps(golden):
    block = filled(golden, lambda: Block(1024, 16, eps=1e-5, qk_eps=1e-5), "decoder.0.")
    tokens = torch.from_numpy(golden.tokens("golden.block.tokens", (2, 29, 1024))).double()
    with pytest.raises(AssertionError, match="largest difference"):
        golden.check("block.even(decoder.0)", block(tokens, ropes.spatial(GRID, 64, torch.float64)))


@pytest.mark.parametrize("size", [(224, 224), (280, 518)])
def test_positional_embedding(golden, encoder, size):
    golden.check(f"pos_embed.{size[0]}x{size[1]}", encoder.position(size[0] // 14, size[1] // 14))


def test_encoder(golden, encoder):
    image = torch.from_numpy(golden.image(280, 518)).double()
    mean, std = (torch.tensor(values).double().reshape(3, 1, 1) for values in (MEAN, STD))
    x = (image - mean) / std
    prepared = encoder.prepared(x)
    golden.check("encoder.280x518.prepared_tokens", prepared)
    golden.check("encoder.280x518.block0", encoder.blocks[0](prepared))
    golden.check("encoder.280x518.x_norm_patchtokens", encoder.features(x))


def test_mask_head(golden):
    prefix = "aggregator.spatial_mask_head."
    head = MaskHead(ModelConfig.preset("vitl"))
    head.head0 = filled(golden, lambda: MaskHead(ModelConfig.preset("vitl")).head0, prefix + "head0.")
    tokens = torch.from_numpy(golden.tokens("golden.page4d.tokens", (1, 2, 29, 1024))).double()
    logit = head.logit(tokens[0, :, GRID.special :], GRID)
    strength, temperature = (
        torch.nn.functional.softplus(torch.from_numpy(golden.weight(prefix + name, ())).double()) + 1e-6 for name in ("alpha_logit", "tau_logit")
    )
    bias = -0.5 * (strength * torch.sigmoid(-logit / temperature.clamp(min=1e-3))).clamp(0, 1)
    golden.check("page4d.maskhead_fin10.key_bias", torch.nn.functional.pad(bias[..., 0], (GRID.special, 0)).reshape(1, -1))
