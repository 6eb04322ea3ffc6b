"""Checkpoints loaded into models, and refused: where each parameter comes from, and what a load sets beside them."""

import re

import pytest
import torch

from page4d import ModelConfig, Page4D
from page4d.checkpoints.checkpoint import Checkpoint
from page4d.errors import UsageError
from page4d.network.block import LayerNorm

WIDTH = 64
_LINEAR = [
    f"{name}.{leaf}"
    for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
    for leaf in ("weight", "bias")
]
_ENCODER_BLOCK = [*_LINEAR, "ls1.gamma", "ls2.gamma"]
_QK_NORMS = ("q_norm", "k_norm")
_AGGREGATOR_BLOCK = [*_ENCODER_BLOCK, *(f"attn.{name}.{leaf}" for name in _QK_NORMS for leaf in ("weight", "bias"))]


def refusal(path, *parts, act=Checkpoint.open):
    """The text of the UsageError that `act` on a file or folder ends in, which has all parts in it."""
    with pytest.raises(UsageError) as caught:
        act(path)
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    return text


def refused(path, *parts, act=Checkpoint.open):
    """As `refusal`, and the text names the file."""
    return refusal(path, path.name, *parts, act=act)


def hybrid(seed=0, filled=True, **options):
    """This project's own network, as small as a checkpoint of WIDTH lets it be."""
    options = {"width": WIDTH, "heads": 1, "encoder_depth": 2, "depth": 2, **options}
    return Page4D(ModelConfig.preset("tiny", **options), seed, filled)


def parameters(model):
    """Copies of all parameters, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def encoder_sources(prefix, depth=2):
    """The tensor in a checkpoint of every parameter of the encoder."""
    names = ["cls_token", "pos_embed", "register_tokens", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    names += ["norm.weight", "norm.bias", *(f"blocks.{i}.{name}" for i in range(depth) for name in _ENCODER_BLOCK)]
    return {f"encoder.{name}": prefix + name for name in names}


def block_sources(layer, kind, prefix):
    """The tensor in a checkpoint of every parameter of one of a layer's blocks."""
    return {f"layers.{layer}.{kind}.block.{name}": prefix + name for name in _AGGREGATOR_BLOCK}


def check(model, before, sources, new):
    """Every parameter is the tensor of its source (name -> tensor), or unchanged where its name matches `new`."""
    names = {name for name, _ in model.named_parameters()}
    assert set(sources) <= names
    assert {name for name in names if re.fullmatch(new, name)} == names - set(sources)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, sources[name] if name in sources else before[name]), name
        assert not parameter.requires_grad


def norms_eps(module):
    """The eps of all LayerNorms but those of q and k."""
    norms = ((name, norm) for name, norm in module.named_modules() if isinstance(norm, LayerNorm))
    return {norm.eps for name, norm in norms if not name.endswith(_QK_NORMS)}


def qk_eps(module):
    """The eps of the LayerNorms of q and k."""
    return {norm.eps for name, norm in module.named_modules() if name.endswith(_QK_NORMS)}
