"""Small checkpoints with the names and shapes of the published ones, which the model's code has no part in."""

import itertools
import json
import math
import zlib

import torch
from safetensors.torch import save_file

HEAD_DIM = 64
TRACK_KEY = "track_head.tracker.corr_mlp.fc1.weight"
VGGT_HEADS = ("camera", "depth", "points")


def pi3_shapes(width=128, encoder_depth=2, pairs=2, heads=True):
    """Name -> shape, as in Pi3's `model.safetensors` (width 1024, 24 encoder blocks, 18 pairs)."""
    shapes = {"register_token": (1, 1, 5, width), "image_mean": (1, 3, 1, 1), "image_std": (1, 3, 1, 1)}
    shapes |= encoder("encoder.", width, encoder_depth)
    for i in range(2 * pairs):
        shapes |= block(f"decoder.{i}.", width, scaled=True, normed=True)
    if not heads:
        return shapes
    for name, out in (("point", width), ("conf", width), ("camera", width // 2)):
        shapes |= linear(f"{name}_decoder.projects", width, 2 * width)
        for i in range(5):
            shapes |= block(f"{name}_decoder.blocks.{i}.", width, scaled=False, normed=False)
        shapes |= linear(f"{name}_decoder.linear_out", out, width)
    shapes |= linear("point_head.proj", 3 * 14 * 14, width) | linear("conf_head.proj", 14 * 14, width)
    half = width // 2
    for name in (*(f"res_conv.{i}.res_conv{j}" for i in (0, 1) for j in (1, 2, 3)), "more_mlps.0", "more_mlps.2"):
        shapes |= linear(f"camera_head.{name}", half, half)
    return shapes | linear("camera_head.fc_t", 3, half) | linear("camera_head.fc_rot", 9, half)


def page4d_shapes(kind="150", width=128, encoder_depth=2, layers=range(24), heads=VGGT_HEADS, track=False):
    """Name -> shape, as in PAGE-4D's checkpoints of both generations or VGGT's (kind None).

    Args:
        kind: generation of the mask head.
        width: C; the heads have sizes in proportion.
        encoder_depth: blocks of the encoder.
        layers: numbers of the aggregator's layers.
        heads: those in the file.
        track: whether VGGT's track head is there; a few of its tensors stand for it.
    """
    shapes = {"aggregator.camera_token": (1, 2, 1, width), "aggregator.register_token": (1, 2, 4, width)}
    shapes |= encoder("aggregator.patch_embed.", width, encoder_depth)
    shapes["aggregator.patch_embed.mask_token"] = (1, width)
    for i in layers:
        shapes |= block(f"aggregator.frame_blocks.{i}.", width, scaled=True, normed=True)
        shapes |= block(f"aggregator.global_blocks.{i}.", width, scaled=True, normed=True)
    head = "aggregator.spatial_mask_head."
    if kind is not None:
        shapes |= {f"{head}head0.0.weight": (width, 1, 3, 3), f"{head}head0.0.bias": (width,)}
    if kind == "150":
        shapes |= {f"{head}head0.2.weight": (width, 1, 3, 3), f"{head}head0.2.bias": (width,)}
        shapes |= {f"{head}head0.4.weight": (1, width, 1, 1), f"{head}head0.4.bias": (1,)}
        shapes |= {f"{head}alpha_logit": (), f"{head}tau_logit": ()}
    if kind == "2026":
        shapes |= {f"{head}head0.2.weight": (width // 4, width, 1, 1), f"{head}head0.2.bias": (width // 4,)}
        shapes |= {f"{head}head0.4.weight": (1, width // 4, 1, 1), f"{head}head0.4.bias": (1,)}
    of_heads = {
        "camera": lambda: _vggt_camera_head(width),
        "depth": lambda: _dpt_head("depth_head.", width, 2),
        "points": lambda: _dpt_head("point_head.", width, 4),
    }
    for name in heads:
        shapes |= of_heads[name]()
    if track:
        shapes |= norm("track_head.feature_extractor.norm", 2 * width) | linear(TRACK_KEY[: -len(".weight")], 384, 567)
    return shapes


def pi3_state(width=128, encoder_depth=2, pairs=2, heads=True):
    """Pi3's state dict, float32."""
    state = filled(pi3_shapes(width, encoder_depth, pairs, heads))
    state["image_mean"] = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    state["image_std"] = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    return state


def page4d_state(kind="150", width=128, encoder_depth=2, layers=range(24), heads=VGGT_HEADS, track=False):
    """State dict of PAGE-4D, or of VGGT (kind None), float32, of what `page4d_shapes` says."""
    return filled(page4d_shapes(kind, width, encoder_depth, layers, heads, track))


def filled(shapes):
    """A tensor per name, by the name and the shape alone, of a size that lets it matter in the result."""
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def save_pi3(path, state):
    """Write `.safetensors`, or `.pt` (flat), by the path's suffix."""
    save_page4d(path, state, nested=False)


def save_page4d(path, state, nested=True, module=False, optimizer=False):
    """Write `.pt` as the trainer does, or `.safetensors`, by the path's suffix.

    Args:
        path: of the file.
        state: the weights.
        nested: under `model`, with the trainer's state beside them; `.pt` only.
        module: put `module.` before every name.
        optimizer: with moments in the optimizer's state; True, or how many values they have.
    """
    state = {f"module.{name}" if module else name: tensor for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
        return
    moments = {}
    if optimizer:
        count = 100_000 if optimizer is True else optimizer
        moments[0] = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(count)}
    trainer = {
        "prev_epoch": 149,
        "steps": {"train": 0, "val": 0},
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-5, "params": [0]}]},
    }
    trainer |= {"scaler": None, "ema_models": None, "skip_saving_parameters": [], "time_elapsed": 0}
    torch.save({"model": state, **trainer} if nested else state, path)


def save_sharded(folder, states, suffix=".safetensors", names=None):
    """Write a checkpoint in several files with its index, as transformers does; the folder."""
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    folder.mkdir(exist_ok=True)
    names = names or [
        f"{stem.split('.')[0]}-{number:05}-of-{len(states):05}{suffix}" for number in range(1, len(states) + 1)
    ]
    for name, state in zip(names, states, strict=True):
        save_pi3(folder / name, state)
    weight_map = {key: name for name, state in zip(names, states, strict=True) for key in state}
    size = sum(tensor.numel() * tensor.element_size() for state in states for tensor in state.values())
    (folder / f"{stem}.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    return folder


def encoder(prefix, width, depth):
    """Tensors of an encoder of `depth` blocks."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + 37 * 37, width), "register_tokens": (1, 4, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)} | norm("norm", width)
    for i in range(depth):
        shapes |= block(f"blocks.{i}.", width, scaled=True, normed=False)
    return {prefix + name: shape for name, shape in shapes.items()}


def block(prefix, width, scaled, normed):
    """Tensors of a transformer block."""
    shapes = norm(f"{prefix}norm1", width) | norm(f"{prefix}norm2", width)
    shapes |= linear(f"{prefix}attn.qkv", 3 * width, width) | linear(f"{prefix}attn.proj", width, width)
    shapes |= linear(f"{prefix}mlp.fc1", 4 * width, width) | linear(f"{prefix}mlp.fc2", width, 4 * width)
    if scaled:
        shapes |= {f"{prefix}ls1.gamma": (width,), f"{prefix}ls2.gamma": (width,)}
    if normed:
        shapes |= norm(f"{prefix}attn.q_norm", HEAD_DIM) | norm(f"{prefix}attn.k_norm", HEAD_DIM)
    return shapes


def _vggt_camera_head(width):
    wide = 2 * width
    shapes = {"empty_pose_tokens": (1, 1, 9)} | norm("token_norm", wide) | norm("trunk_norm", wide)
    shapes |= linear("embed_pose", wide, 9) | linear("poseLN_modulation.1", 3 * wide, wide)
    shapes |= linear("pose_branch.fc1", width, wide) | linear("pose_branch.fc2", 9, width)
    for i in range(4):
        shapes |= block(f"trunk.{i}.", wide, scaled=True, normed=False)
    return {f"camera_head.{name}": shape for name, shape in shapes.items()}


def _dpt_head(prefix, width, outputs):
    quarter, half = width // 4, width // 2
    shapes = norm("norm", 2 * width)
    for i, channels in enumerate((quarter, half, width, width)):
        shapes |= convolution(f"projects.{i}", channels, 2 * width, 1)
        shapes[f"scratch.layer{i + 1}_rn.weight"] = (quarter, channels, 3, 3)
    for i, channels, size in ((0, quarter, 4), (1, half, 2), (3, width, 3)):
        shapes |= convolution(f"resize_layers.{i}", channels, channels, size)
    for i in (1, 2, 3, 4):
        shapes |= convolution(f"scratch.refinenet{i}.out_conv", quarter, quarter, 1)
        for unit, conv in itertools.product((1, 2) if i < 4 else (2,), (1, 2)):
            shapes |= convolution(f"scratch.refinenet{i}.resConfUnit{unit}.conv{conv}", quarter, quarter, 3)
    shapes |= convolution("scratch.output_conv1", width // 8, quarter, 3)
    shapes |= convolution("scratch.output_conv2.0", width // 32, width // 8, 3)
    shapes |= convolution("scratch.output_conv2.2", outputs, width // 32, 1)
    return {prefix + name: shape for name, shape in shapes.items()}


def convolution(name, outputs, inputs, size):
    """Weight and bias of a convolution."""
    return {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}


def linear(name, outputs, inputs):
    """Weight and bias of a linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, width):
    """Weight and bias of a norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _tensor(name, shape):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("gamma") or (name.endswith("weight") and "norm" in name):
        return 1 + 0.2 * noise
    if len(shape) < 2:
        return 0.2 * noise
    if "token" in name or "pos_embed" in name:
        return 0.5 * noise
    return noise / math.sqrt(math.prod(shape[1:]))
