"""Values of the published models' own code, where they lie beside the repository (not part of it): float64, 1e-6."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from page4d import Layout, ModelConfig
from page4d.checkpoints.weights import load
from page4d.network import rope as ropes
from page4d.network.block import Block
from page4d.network.encoder import MEAN, STD, Encoder
from page4d.network.heads.pi3 import Points
from page4d.network.mask import RowMaskHead, on_keys
from tests.support.beside import golden_recipe
from tests.support.checkpoints import pi3_shapes

GRID = Layout(1, 1, 56, 84)


@pytest.fixture(scope="module")
def golden():
    return golden_recipe("golden")


def filled(golden, build, prefix):
    """A module in float64 with recipe weights; built without memory first."""
    with torch.device("meta"):
        module = build()
    weights = {
        name: torch.from_numpy(golden.weight(prefix + name, tuple(parameter.shape))).double()
        for name, parameter in module.named_parameters()
    }
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(False)


def encoder_of(golden, depth):
    return filled(golden, lambda: Encoder(ModelConfig.preset("vitl", encoder_depth=depth)), "encoder.")


@pytest.fixture(scope="module")
def first_block(golden):
    return encoder_of(golden, 1)


@pytest.fixture(scope="module")
def prepared_image(golden):
    image = torch.from_numpy(golden.image(280, 518)).double()
    mean, std = (torch.tensor(values).double().reshape(3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std


def test_rope(golden):
    q = torch.from_numpy(golden.tokens("golden.rope.q", (1, 16, 29, 64))).double()
    turned = ropes.rotate(q.transpose(1, 2), ropes.spatial(GRID, 64, q))
    golden.check("rope.q", turned.transpose(1, 2))


def test_block(golden):
    block = filled(golden, lambda: Block(1024, 16, eps=1e-6, qk_eps=1e-5), "decoder.0.")
    tokens = torch.from_numpy(golden.tokens("golden.block.tokens", (2, 29, 1024))).double()
    golden.check("block.even(decoder.0)", block(tokens, ropes.spatial(GRID, 64, tokens)))


def test_block_notices_a_wrong_eps(golden):
    block = filled(golden, lambda: Block(1024, 16, eps=1e-5, qk_eps=1e-5), "decoder.0.")
    tokens = torch.from_numpy(golden.tokens("golden.block.tokens", (2, 29, 1024))).double()
    with pytest.raises(AssertionError, match="largest difference"):
        golden.check("block.even(decoder.0)", block(tokens, ropes.spatial(GRID, 64, tokens)))


@pytest.mark.parametrize("size", [(224, 224), (280, 518)])
def test_positional_embedding(golden, first_block, size):
    golden.check(f"pos_embed.{size[0]}x{size[1]}", first_block.position(size[0] // 14, size[1] // 14))


def test_encoder_up_to_its_first_block(golden, first_block, prepared_image):
    prepared = first_block.prepared(prepared_image)
    golden.check("encoder.280x518.prepared_tokens", prepared)
    golden.check("encoder.280x518.block0", first_block.blocks[0](prepared))


@pytest.mark.slow
def test_encoder(golden, prepared_image):
    encoder = encoder_of(golden, ModelConfig.preset("vitl").encoder_depth)
    golden.check("encoder.280x518.x_norm_patchtokens", encoder.features(prepared_image))


@pytest.fixture(scope="module")
def pi3(golden, tmp_path_factory):
    """Pi3 of one encoder block and one pair, from a checkpoint of recipe weights; float32."""
    path = tmp_path_factory.mktemp("recipe") / "model.safetensors"
    save_file(
        {
            key: golden.weight(key, shape)
            for key, shape in pi3_shapes(1024, encoder_depth=1, pairs=1, heads=False).items()
        },
        path,
    )
    model = load(path)
    path.unlink()
    return model


def test_frame_attention_of_a_loaded_pi3(golden, pi3):
    """Pi3's decode up to its first block: special tokens in front, positions, attention within each image."""
    layout = Layout(1, 3, 56, 84, B=2)
    hidden = torch.from_numpy(golden.tokens("golden.decode.hidden", (6, 24, 1024))).double()
    tokens = torch.cat((pi3.special(layout).double(), hidden), dim=1).reshape(1, 2, 1, 3, 29, 1024)
    golden.check("decode.pos", np.tile(ropes.positions(layout), (6, 1, 1)))
    golden.check("decode.frame_out", pi3.layers[0].time_sa.double()(tokens, layout))


def test_points(golden):
    layout = Layout(1, 2, 56, 84)
    pair = torch.from_numpy(golden.tokens("golden.heads.hidden", (2, 29, 2048))).double()[None, None]

    def build():
        return Points(ModelConfig.preset("pi3"))

    with torch.device("meta"):
        points = build()
    points.decoder = filled(golden, lambda: build().decoder, "point_decoder.")
    points.head = filled(golden, lambda: build().head, "point_head.")
    golden.check("heads.point_decoder", points.decoder(pair, layout))
    golden.check("heads.local_points", points(pair, layout))


def test_mask_head(golden):
    head = filled(golden, lambda: RowMaskHead(ModelConfig.preset("page4d")), "aggregator.spatial_mask_head.")
    layout = Layout(2, 1, 56, 84)
    tokens = torch.from_numpy(golden.tokens("golden.page4d.tokens", (1, 2, 29, 1024))).double()
    mask, bias = head(tokens[None, :, :, None], layout)
    assert mask.shape == bias.shape == (1, *layout.patch_map_shape)
    golden.check("page4d.maskhead_fin10.key_bias", on_keys(bias, layout))
