"""Pi3X's heads a second time: pixel by pixel, in float64, with no code of the reference model."""

import math

import numpy as np
import torch

from tests.support.naive import heads, network
from tests.support.naive.vggt_heads import convolve, resize, spread


def predict(config, weights, pair, h, w):
    """The last layer's pair [T,V,N,2C] -> what `Output` holds, by its names."""
    T, V = pair.shape[:2]
    net = network.Net(config, weights, T, V, h, w, None)
    arrays = {name: value.numpy() for name, value in weights.items()}
    scale = metric(net, pair.flatten(0, 1))
    points, confidence, cameras = [], [], []
    for image in pair.flatten(0, 1):
        x, y, z = conv_head("points.head", arrays, heads.decode(net, "points", image).numpy(), h, w)
        depth = np.exp(np.minimum(z, 15))
        points.append(np.stack((x * depth, y * depth, depth), -1) * scale)
        confidence.append(conv_head("confidence.head", arrays, heads.decode(net, "confidence", image).numpy(), h, w)[0])
        pose = heads.pose(*heads.camera_numbers(net, image)).numpy()
        pose[:3, 3] *= scale
        cameras.append(pose)
    values = {"points": points, "confidence": confidence, "camera": cameras}
    stacked = {name: np.stack(parts) for name, parts in values.items()}
    maps = {name: torch.from_numpy(value.reshape(T, V, *value.shape[1:])) for name, value in stacked.items()}
    return maps | {"metric": torch.tensor(scale, dtype=torch.float64)}


def conv_head(name, weights, patches, h, w):
    """Patch tokens [P,C] -> maps [values,H,W]."""
    H, W = network.PATCH * h, network.PATCH * w

    def convolved(x, layer):
        return convolve(x, weights[f"{name}.{layer}.weight"], weights[f"{name}.{layer}.bias"], around="edge")

    x = patches.T.reshape(-1, h, w)
    for block in (0, 1, 2):
        key = f"upsample_blocks.{block}"
        x = with_places(x, W / H)
        x = spread(x, weights[f"{name}.{key}.0.0.weight"], weights[f"{name}.{key}.0.0.bias"])
        x = convolved(x, f"{key}.0.1")
        for unit in (1, 2):
            layers = f"{key}.{unit}.layers"
            inner = np.maximum(grouped(x, 1, weights, f"{name}.{layers}.0"), 0)
            inner = convolved(inner, f"{layers}.2")
            groups = max(len(inner) // 32, 1)
            inner = np.maximum(grouped(inner, groups, weights, f"{name}.{layers}.3"), 0)
            x = x + convolved(inner, f"{layers}.5")
    x = with_places(resize(x, H, W, corners=False), W / H)
    outputs = []
    while f"{name}.output_block.{len(outputs)}.0.weight" in weights:
        key = f"output_block.{len(outputs)}"
        outputs.append(convolved(np.maximum(convolved(x, f"{key}.0"), 0), f"{key}.2"))
    return np.concatenate(outputs)


def with_places(x, aspect):
    """Two more channels: every place's x and y, half the diagonal as unit."""
    _, rows, columns = x.shape
    out = np.zeros((len(x) + 2, rows, columns))
    out[:-2] = x
    diagonal = math.sqrt(1 + aspect**2)
    for row in range(rows):
        for column in range(columns):
            out[-2, row, column] = (2 * column - (columns - 1)) / columns * aspect / diagonal
            out[-1, row, column] = (2 * row - (rows - 1)) / rows / diagonal
    return out


def grouped(x, groups, weights, name):
    """Each group of channels normed over all of its pixels."""
    out, size = np.zeros_like(x), len(x) // groups
    for group in range(groups):
        part = x[group * size : (group + 1) * size]
        out[group * size : (group + 1) * size] = (part - part.mean()) / math.sqrt(part.var() + 1e-5)
    return out * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def metric(net, images):
    """Metres per unit, from the tokens [S,N,2C] of all images: one row of attention."""
    x = net.linear("metric.decoder.projects_x", net.w["metric.token"][0])
    y = net.linear("metric.decoder.projects_y", images.flatten(0, 1))
    places = net.places * len(images)
    half, count = x.shape[1], max(net.c.heads // 2, 1)
    size = half // count
    for i in range(5):
        name = f"metric.decoder.blocks.{i}."
        read = net.norm(name + "norm_y", y, 1e-6)
        q = net.linear(name + "cross_attn.q_proj", net.norm(name + "norm2", x, 1e-6))
        k, v = (net.linear(f"{name}cross_attn.{kind}_proj", read) for kind in ("k", "v"))
        rows = []
        for head in range(count):
            part = slice(head * size, (head + 1) * size)
            logits = (net.rotate(k[:, part], places) @ q[0, part]) / math.sqrt(size)
            shares = torch.exp(logits - logits.max())
            rows.append(shares @ v[:, part] / shares.sum())
        x = x + net.linear(name + "cross_attn.proj", torch.cat(rows)[None])
        hidden = net.gelu(net.linear(name + "mlp.fc1", net.norm(name + "norm3", x, 1e-6)))
        x = x + net.linear(name + "mlp.fc2", hidden)
    return float(torch.exp(net.linear("metric.head", net.linear("metric.decoder.linear_out", x))))
