"""Pi3's heads a second time: pixel by pixel, in float64, with no code of the reference model."""

import numpy as np
import torch

from tests.support.naive import network as naive

BLOCKS = 5


def predict(config, weights, pair, h, w):
    """The last layer's pair [T,V,N,2C] -> points [T,V,H,W,3], confidence [T,V,H,W], camera-to-world [T,V,4,4]."""
    T, V = pair.shape[:2]
    net = naive.Net(config, weights, T, V, h, w, None)
    points, confidence, camera = [], [], []
    for t in range(T):
        for v in range(V):
            x, y, z = pixels(net, "points", pair[t, v])
            depth = torch.exp(z)
            points.append(torch.stack([x * depth, y * depth, depth], -1))
            confidence.append(pixels(net, "confidence", pair[t, v])[0])
            camera.append(pose(*camera_numbers(net, pair[t, v])))
    return (torch.stack(parts).reshape(T, V, *parts[0].shape) for parts in (points, confidence, camera))


def decode(net, name, x):
    x = net.linear(f"{name}.decoder.projects", x)
    for i in range(BLOCKS):
        x = net.block(
            f"{name}.decoder.blocks.{i}.", x, None, net.places, None, None, eps=1e-6, qk_eps=None, scaled=False
        )
    return net.linear(f"{name}.decoder.linear_out", x)[net.special :]


def pixels(net, name, x):
    """Maps [channels,H,W]: of a patch's numbers, the first 14*14 are its first channel."""
    side = naive.PATCH
    numbers = net.linear(f"{name}.head.proj", decode(net, name, x))
    out = torch.full((numbers.shape[1] // side**2, side * net.h, side * net.wd), torch.nan, dtype=torch.float64)
    for patch, values in enumerate(numbers.tolist()):
        top, left = side * (patch // net.wd), side * (patch % net.wd)
        for place, value in enumerate(values):
            channel, row, column = place // side**2, place // side % side, place % side
            out[channel, top + row, left + column] = value
    return out


def camera_numbers(net, x):
    """A translation [3] and three rows [3,3]."""
    x = decode(net, "camera", x)
    for block in range(2):
        inner = x
        for layer in (1, 2, 3):
            inner = net.linear(f"camera.head.res_conv.{block}.res_conv{layer}", inner).clamp(min=0)
        x = x + inner
    mean = sum(x) / len(x)
    for layer in (0, 2):
        mean = net.linear(f"camera.head.more_mlps.{layer}", mean).clamp(min=0)
    return net.linear("camera.head.fc_t", mean).numpy(), net.linear("camera.head.fc_rot", mean).numpy().reshape(3, 3)


def pose(translation, rows):
    out = np.eye(4)
    out[:3, :3] = nearest_rotation(np.stack([row / np.sqrt(row @ row) for row in rows]))
    out[:3, 3] = translation
    return torch.from_numpy(out)


def nearest_rotation(a):
    """By quaternions: sum(R * a) is a quadratic form of R's, largest at the eigenvector of its largest eigenvalue."""
    w, x, y, z = np.linalg.eigh(rotation_form(a))[1][:, -1]
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def rotation_form(a):
    """The quadratic form in (w, x, y, z)."""
    return np.array(
        [
            [a[0, 0] + a[1, 1] + a[2, 2], a[2, 1] - a[1, 2], a[0, 2] - a[2, 0], a[1, 0] - a[0, 1]],
            [a[2, 1] - a[1, 2], a[0, 0] - a[1, 1] - a[2, 2], a[0, 1] + a[1, 0], a[0, 2] + a[2, 0]],
            [a[0, 2] - a[2, 0], a[0, 1] + a[1, 0], a[1, 1] - a[0, 0] - a[2, 2], a[1, 2] + a[2, 1]],
            [a[1, 0] - a[0, 1], a[0, 2] + a[2, 0], a[1, 2] + a[2, 1], a[2, 2] - a[0, 0] - a[1, 1]],
        ]
    )
