"""Small checkpoints of Depth Anything 3 and of Pi3X, as `tests.support.checkpoints` has those of the other models."""

import itertools

from tests.support.checkpoints import block, convolution, encoder, linear, norm, pi3_shapes

BACKBONE = "model.backbone.pretrained."
DA3_DPT = {384: (64, (48, 96, 192, 384))}  # features, channels; other widths in proportion, as VGGT's


def da3_shapes(width=64, encoder_depth=2, pairs=2, heads=("camera", "depth"), known_cameras=True, rays=True):
    """Name -> shape, as in the `model.safetensors` of SMALL (width 384, 4 encoder blocks, 4 pairs)."""
    shapes = {f"{BACKBONE}camera_token": (1, 2, width), **_backbone(width, encoder_depth)}
    for number in range(encoder_depth, encoder_depth + 2 * pairs):
        shapes |= block(f"{BACKBONE}blocks.{number}.", width, scaled=True, normed=True)
    if "depth" in heads:
        shapes |= norm("model.head.norm", 2 * width) | _dpt(width, 2 * width, 2)
        if rays:
            shapes |= convolution("model.head.scratch.output_conv1_aux.3.0", width // 8, width // 4, 3)
            shapes |= norm("model.head.scratch.output_conv2_aux.0.2", 32)
            shapes |= convolution("model.head.scratch.refinenet1_aux.out_conv", width // 4, width // 4, 1)
    if "camera" in heads:
        for name, outputs in (("backbone.0", 2 * width), ("backbone.2", 2 * width), ("fc_t", 3), ("fc_qvec", 4)):
            shapes |= linear(f"model.cam_dec.{name}", outputs, 2 * width)
        shapes |= linear("model.cam_dec.fc_fov.0", 2, 2 * width)
    if known_cameras:
        shapes |= linear("model.cam_enc.pose_branch.fc1", width // 2, 9)
        shapes |= linear("model.cam_enc.pose_branch.fc2", width, width // 2)
        shapes |= norm("model.cam_enc.token_norm", width) | norm("model.cam_enc.trunk_norm", width)
        for number in range(4):
            shapes |= block(f"model.cam_enc.trunk.{number}.", width, scaled=True, normed=False)
    return shapes


def mono_shapes(width=64, encoder_depth=4):
    """Name -> shape, as in MONO-LARGE and METRIC-LARGE (width 1024, 24 blocks)."""
    shapes = _backbone(width, encoder_depth) | _dpt(width, width, 1)
    shapes |= convolution("model.head.scratch.sky_output_conv2.0", max(width // 32, 1), width // 8, 3)
    return shapes | convolution("model.head.scratch.sky_output_conv2.2", 1, max(width // 32, 1), 1)


def pi3x_shapes(width=64, encoder_depth=1, pairs=2, heads=True, conditioning=True):
    """Name -> shape, as in Pi3X's `model.safetensors` (width 1024, 24 encoder blocks, 18 pairs)."""
    shapes = pi3_shapes(width, encoder_depth, pairs, heads)
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(("point_head.", "conf_head."))}
    if conditioning:
        shapes |= {"depth_emb": (1, 1, width), "depth_encoder.cls_token": (1, 1, width)}
        shapes |= convolution("ray_embed.proj", width, 2, 14)
        shapes |= block("pose_inject_blk.0.", width, scaled=True, normed=True)
    if heads:
        shapes |= _conv_head("point_head.", width, (2, 1)) | _conv_head("conf_head.", width, (1,))
        shapes |= {"metric_token": (1, 1, 2 * width)} | _metric_decoder(width)
        shapes |= linear("metric_head", 1, width // 2)
    return shapes


def _backbone(width, encoder_depth):
    shapes = encoder(BACKBONE, width, encoder_depth)
    del shapes[f"{BACKBONE}register_tokens"]
    return shapes


def _dpt(width, read, outputs):
    features, channels = DA3_DPT.get(width, (width // 4, (width // 4, width // 2, width, width)))
    hidden = max(min(32, features // 2), 1) if read > width else max(width // 32, 1)
    prefix, shapes = "model.head.", {}
    for i, count in enumerate(channels):
        shapes |= convolution(f"{prefix}projects.{i}", count, read, 1)
        shapes[f"{prefix}scratch.layer{i + 1}_rn.weight"] = (features, count, 3, 3)
    for i, size in ((0, 4), (1, 2), (3, 3)):
        shapes |= convolution(f"{prefix}resize_layers.{i}", channels[i], channels[i], size)
    for i in (1, 2, 3, 4):
        unit = f"{prefix}scratch.refinenet{i}"
        shapes |= convolution(f"{unit}.out_conv", features, features, 1)
        for number, conv in itertools.product((1, 2) if i < 4 else (2,), (1, 2)):
            shapes |= convolution(f"{unit}.resConfUnit{number}.conv{conv}", features, features, 3)
    shapes |= convolution(f"{prefix}scratch.output_conv1", features // 2, features, 3)
    shapes |= convolution(f"{prefix}scratch.output_conv2.0", hidden, features // 2, 3)
    return shapes | convolution(f"{prefix}scratch.output_conv2.2", outputs, hidden, 1)


def _conv_head(prefix, width, outputs):
    widths, shapes = (width, width // 4, width // 8, width // 16), {}
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        blocks = f"{prefix}upsample_blocks.{i}."
        shapes |= {f"{blocks}0.0.weight": (before + 2, after, 2, 2), f"{blocks}0.0.bias": (after,)}
        shapes |= convolution(f"{blocks}0.1", after, after, 3)
        for unit in (1, 2):
            layers = f"{blocks}{unit}.layers."
            shapes |= norm(f"{layers}0", after) | norm(f"{layers}3", 2 * after)
            shapes |= convolution(f"{layers}2", 2 * after, after, 3) | convolution(f"{layers}5", after, 2 * after, 3)
    for i, count in enumerate(outputs):
        shapes |= convolution(f"{prefix}output_block.{i}.0", width // 32, widths[-1] + 2, 3)
        shapes |= convolution(f"{prefix}output_block.{i}.2", count, width // 32, 1)
    return shapes


def _metric_decoder(width):
    half, shapes = width // 2, {}
    for name in ("projects_x", "projects_y"):
        shapes |= linear(f"metric_decoder.{name}", half, 2 * width)
    for i in range(5):
        prefix = f"metric_decoder.blocks.{i}."
        for name in ("norm2", "norm_y", "norm3"):
            shapes |= norm(prefix + name, half)
        for name in ("q_proj", "k_proj", "v_proj", "proj"):
            shapes |= linear(f"{prefix}cross_attn.{name}", half, half)
        shapes |= linear(f"{prefix}mlp.fc1", 4 * half, half) | linear(f"{prefix}mlp.fc2", half, 4 * half)
    return shapes | linear("metric_decoder.linear_out", half, half)
