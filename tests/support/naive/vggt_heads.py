"""VGGT's heads a second time: tap by tap, in float64, with no code of the reference model."""

import math
import types

import numpy as np
import torch

from tests.support.naive import network as naive


def layers_of(depth):
    """Of 24 layers 4, 11, 17, 23: the last of the first 5/24, 12/24, 18/24 and all of the layers."""
    return [math.ceil(part * depth / 24) - 1 for part in (5, 12, 18, 24)]


def predict(config, weights, layers, H, W):
    """Layers [T,V,N,2C] -> what `Output` holds, by its names."""
    T, V = layers[config.depth - 1].shape[:2]
    arrays = {name: value.numpy() for name, value in weights.items()}
    numbers = cameras(config, weights, layers[config.depth - 1].flatten(0, 1)[:, 0])
    poses, calibrations = zip(*(camera(row, H, W) for row in numbers.tolist()), strict=True)
    predictions = {"camera": np.stack(poses), "intrinsics": np.stack(calibrations)}
    chosen = [layers[layer].flatten(0, 1).numpy() for layer in layers_of(config.depth)]
    images = [[tokens[i] for tokens in chosen] for i in range(T * V)]
    depth = np.stack([dpt("depth", arrays, image, H, W) for image in images])
    predictions |= {"depth": np.exp(depth[:, 0]), "depth_confidence": 1 + np.exp(depth[:, 1])}
    raw = np.stack([dpt("points", arrays, image, H, W) for image in images])
    points = np.where(raw[:, :3] < 0, 1 - np.exp(-raw[:, :3]), np.exp(raw[:, :3]) - 1)
    predictions |= {"points": np.moveaxis(points, 1, -1), "points_confidence": 1 + np.exp(raw[:, 3])}
    return {name: torch.from_numpy(value.reshape(T, V, *value.shape[1:])) for name, value in predictions.items()}


# ---- camera


def cameras(config, weights, tokens):
    """Camera tokens [S,2C] -> [S,9]."""
    width = 2 * config.width
    net = naive.Net(types.SimpleNamespace(width=width, heads=config.heads, published="vggt"), weights, 1, 1, 1, 1, None)
    start = net.norm("camera.token_norm", tokens, 1e-5)
    raw = weights["camera.empty_pose_tokens"][0].repeat(len(tokens), 1)
    total = torch.zeros_like(raw)
    for _ in range(4):
        embedded = net.linear("camera.embed_pose", raw)
        modulation = net.linear("camera.poseLN_modulation.1", embedded / (1 + torch.exp(-embedded)))
        shift, scale, gate = (modulation[:, part * width : (part + 1) * width] for part in range(3))
        centred = start - start.mean(-1, keepdim=True)
        free = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
        x = start + gate * (free * (1 + scale) + shift)
        for i in range(4):
            x = net.block(f"camera.trunk.{i}.", x, None, None, None, None, eps=1e-5, qk_eps=None)
        hidden = net.linear("camera.pose_branch.fc1", net.norm("camera.trunk_norm", x, 1e-5))
        total = total + net.linear("camera.pose_branch.fc2", net.gelu(hidden))
        raw = total
    return torch.cat([raw[:, :7], raw[:, 7:].clamp(min=0)], 1)


def camera(numbers, H, W):
    """One image's nine values -> camera to world [4,4], K [3,3]."""
    translation, (x, y, z, w), (vertical, horizontal) = numbers[:3], numbers[3:7], numbers[7:]
    turn = rotation(x, y, z, w)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn.T, -turn.T @ np.array(translation)
    return pose, calibration(vertical, horizontal, H, W)


def rotation(x, y, z, w):
    """Of a quaternion of any length."""
    columns = np.zeros((3, 3))
    for column, unit in enumerate(np.eye(3)):
        # the product q v q* of quaternions, twice by the cross product
        axis = np.array([x, y, z])
        turned = 2 * (axis @ unit) * axis + (w * w - axis @ axis) * unit + 2 * w * np.cross(axis, unit)
        columns[:, column] = turned / (axis @ axis + w * w)
    return columns


def calibration(vertical, horizontal, H, W):
    """K of two fields of view."""
    focal = [
        side / 2 / math.tan(angle / 2) if 0 < angle < math.pi else math.nan
        for side, angle in ((W, horizontal), (H, vertical))
    ]
    return np.array([[focal[0], 0, W / 2], [0, focal[1], H / 2], [0, 0, 1]])


# ---- depth and points


def dpt(name, weights, tokens, H, W, special=naive.SPECIAL, keeps_sign=False, waves=float, outputs=("output_conv2",)):
    """Tokens [N,2C] of four layers, one image -> raw maps [values,H,W] of all outputs.

    special: tokens before the patches; keeps_sign: whether units add x, not relu(x); waves: type in which the
    embedding's frequencies are computed, None: no embedding.
    """
    h, w, w_of = H // naive.PATCH, W // naive.PATCH, lambda key: weights[f"{name}.{key}"]
    maps = []
    for level, image in enumerate(tokens):
        patches = image[special:]
        if f"{name}.norm.weight" in weights:
            patches = normed(patches, w_of("norm.weight"), w_of("norm.bias"))
        projected = patches @ w_of(f"projects.{level}.weight")[:, :, 0, 0].T + w_of(f"projects.{level}.bias")
        x = projected.T.reshape(-1, h, w)
        x = x + embedding(len(x), h, w, W / H, waves)
        if level < 2:
            x = spread(x, w_of(f"resize_layers.{level}.weight"), w_of(f"resize_layers.{level}.bias"))
        elif level == 3:
            x = convolve(x, w_of("resize_layers.3.weight"), w_of("resize_layers.3.bias"), step=2)
        maps.append(convolve(x, w_of(f"scratch.layer{level + 1}_rn.weight")))

    def unit(key, x):
        positive = np.maximum(x, 0)
        inner = np.maximum(convolve(positive, w_of(f"{key}.conv1.weight"), w_of(f"{key}.conv1.bias")), 0)
        return (x if keeps_sign else positive) + convolve(inner, w_of(f"{key}.conv2.weight"), w_of(f"{key}.conv2.bias"))

    x = maps[3]
    for level in (3, 2, 1, 0):
        key = f"scratch.refinenet{level + 1}"
        if level < 3:
            x = x + unit(f"{key}.resConfUnit1", maps[level])
        rows, columns = maps[level - 1].shape[1:] if level else (2 * size for size in maps[0].shape[1:])
        x = resize(unit(f"{key}.resConfUnit2", x), rows, columns)
        x = convolve(x, w_of(f"{key}.out_conv.weight"), w_of(f"{key}.out_conv.bias"))
    x = resize(convolve(x, w_of("scratch.output_conv1.weight"), w_of("scratch.output_conv1.bias")), H, W)
    x = x + embedding(len(x), H, W, W / H, waves)
    results = []
    for output in outputs:
        key = f"scratch.{output}"
        hidden = np.maximum(convolve(x, w_of(f"{key}.0.weight"), w_of(f"{key}.0.bias")), 0)
        results.append(convolve(hidden, w_of(f"{key}.2.weight"), w_of(f"{key}.2.bias")))
    return np.concatenate(results)


def normed(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def embedding(channels, rows, columns, aspect, waves):
    if waves is None:
        return 0.0
    out, quarter, diagonal = np.zeros((channels, rows, columns)), channels // 4, math.sqrt(aspect**2 + 1)
    for row in range(rows):
        for column in range(columns):
            x = (2 * column - (columns - 1)) / columns * aspect / diagonal
            y = (2 * row - (rows - 1)) / rows / diagonal
            for j in range(quarter):
                omega = float(waves(1) / waves(100) ** waves(j / (channels / 4)))
                turns = math.sin(x * omega), math.cos(x * omega), math.sin(y * omega), math.cos(y * omega)
                for part, wave in enumerate(turns):
                    out[part * quarter + j, row, column] = np.float32(np.float32(wave) * np.float32(0.1))
    return out


def convolve(x, kernel, bias=None, step=1, around="constant"):
    """x [in,rows,columns], kernel [out,in,k,k]; zeros around, or its border (`edge`)."""
    k, (_, rows, columns) = kernel.shape[-1], x.shape
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)), around)
    height, width = -(-rows // step), -(-columns // step)
    out = np.zeros((len(kernel), height, width)) + (0 if bias is None else bias[:, None, None])
    for i in range(k):
        for j in range(k):
            seen = padded[:, i : i + step * (height - 1) + 1 : step, j : j + step * (width - 1) + 1 : step]
            out += np.tensordot(kernel[:, :, i, j], seen, 1)
    return out


def spread(x, kernel, bias):
    """Transposed convolution whose step is its size: every pixel becomes a square. kernel [in,out,k,k]."""
    k, (_, rows, columns) = kernel.shape[-1], x.shape
    out = np.zeros((kernel.shape[1], k * rows, k * columns))
    for row in range(rows):
        for column in range(columns):
            square = np.tensordot(x[:, row, column], kernel, 1) + bias[:, None, None]
            out[:, k * row : k * row + k, k * column : k * column + k] = square
    return out


def resize(x, rows, columns, corners=True):
    """Bilinear; the corner pixels' centres stay corners, or else their corners do."""
    out = np.zeros((len(x), rows, columns))
    for row in range(rows):
        for column in range(columns):
            y = row * (x.shape[1] - 1) / max(rows - 1, 1)
            z = column * (x.shape[2] - 1) / max(columns - 1, 1)
            if not corners:
                y = min(max((row + 0.5) * x.shape[1] / rows - 0.5, 0), x.shape[1] - 1)
                z = min(max((column + 0.5) * x.shape[2] / columns - 0.5, 0), x.shape[2] - 1)
            top, left = int(y), int(z)
            bottom, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
            upper = x[:, top, left] * (1 - (z - left)) + x[:, top, right] * (z - left)
            lower = x[:, bottom, left] * (1 - (z - left)) + x[:, bottom, right] * (z - left)
            out[:, row, column] = upper * (1 - (y - top)) + lower * (y - top)
    return out
