"""Depth Anything 3's heads a second time, known cameras among them, with no code of the reference model."""

import types

import numpy as np
import torch

from tests.support.naive import heads, network, vggt_heads


def predict(config, weights, layers, H, W):
    """Kept layers [T,V,N,2C] -> what `Output` holds, by its names."""
    last, width = layers[config.depth - 1], config.width
    T, V = last.shape[:2]
    net = network.Net(config, weights, T, V, 1, 1, None)
    poses, calibrations = [], []
    for token in last.flatten(0, 1)[:, 0]:
        numbers = cameras(net, token)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = vggt_heads.rotation(*numbers[3:7]), numbers[:3]
        poses.append(pose)
        calibrations.append(vggt_heads.calibration(*numbers[7:], H, W))
    arrays = {name: value.numpy() for name, value in weights.items()}
    quarters = [-(-part * config.depth // 4) - 1 for part in (1, 2, 3, 4)]
    halves = [layers[layer].flatten(0, 1) for layer in quarters]
    norm = (arrays["depth.final_norm.weight"], arrays["depth.final_norm.bias"])
    raw = []
    for image in range(T * V):
        pairs = [half[image].numpy() for half in halves]
        pairs = [np.concatenate((pair[:, :width], vggt_heads.normed(pair[:, width:], *norm)), 1) for pair in pairs]
        raw.append(vggt_heads.dpt("depth", arrays, pairs, H, W, special=1, keeps_sign=True, waves=np.float32))
    raw = np.stack(raw)
    values = {
        "camera": np.stack(poses),
        "intrinsics": np.stack(calibrations),
        "depth": np.exp(raw[:, 0]),
        "depth_confidence": 1 + np.exp(raw[:, 1]),
    }
    return {name: torch.from_numpy(value.reshape(T, V, *value.shape[1:])) for name, value in values.items()}


def predict_alone(config, weights, position, images):
    """Depth and sky [T,V,H,W] of a model that sees every image alone."""
    T, V, H, W, _ = images.shape
    levels = network.features(config, weights, position, images, vggt_heads.layers_of(config.encoder_depth))
    arrays = {name: value.numpy() for name, value in weights.items()}
    norm = (arrays["depth.final_norm.weight"], arrays["depth.final_norm.bias"])
    maps = []
    for image in range(T * V):
        tokens = [vggt_heads.normed(level.flatten(0, 1)[image].numpy(), *norm) for level in levels]
        outputs = ("output_conv2", "sky_output_conv2")
        maps.append(
            vggt_heads.dpt("depth", arrays, tokens, H, W, special=0, keeps_sign=True, waves=None, outputs=outputs)
        )
    raw = torch.from_numpy(np.stack(maps).reshape(T, V, 2, H, W))
    return {"depth": raw[:, :, 0].exp(), "sky": raw[:, :, 1].clamp(min=0)}


def cameras(net, token):
    """Nine numbers: translation, quaternion, fields of view."""
    for layer in (0, 2):
        token = net.linear(f"camera.backbone.{layer}", token).clamp(min=0)
    fields = net.linear("camera.fc_fov.0", token).clamp(min=0)
    return [*net.linear("camera.fc_t", token).tolist(), *net.linear("camera.fc_qvec", token).tolist(), *fields.tolist()]


# ---- known cameras


def special_tokens(config, weights, rig, H, W):
    """Of every view [V,1,C], from its camera."""
    matrices = [np.array(camera["world_to_camera"], float) for camera in rig.values()]
    first = np.vstack((matrices[0], [0, 0, 0, 1]))
    poses = [np.linalg.inv(np.vstack((matrix, [0, 0, 0, 1])) @ np.linalg.inv(first)) for matrix in matrices]
    distances = sorted(np.sqrt((pose[:3, 3] ** 2).sum()) for pose in poses)
    unit = max(distances[(len(poses) - 1) // 2], 0.1)
    rows = []
    for pose, camera in zip(poses, rig.values(), strict=True):
        fy, fx = camera["K"][1][1], camera["K"][0][0]
        rows.append(
            [*(pose[:3, 3] / unit), *quaternion(pose[:3, :3]), 2 * np.arctan(H / 2 / fy), 2 * np.arctan(W / 2 / fx)]
        )
    part = types.SimpleNamespace(width=config.width, heads=16, published="da3")
    net = network.Net(part, weights, 1, 1, 1, 1, None)
    x = torch.tensor(np.array(rows))
    hidden = net.gelu(net.linear("camera_encoder.pose_branch.fc1", x))
    x = net.norm("camera_encoder.token_norm", net.linear("camera_encoder.pose_branch.fc2", hidden), 1e-5)
    for i in range(4):
        x = net.block(f"camera_encoder.trunk.{i}.", x, None, None, None, None, eps=1e-5, qk_eps=None)
    return net.norm("camera_encoder.trunk_norm", x, 1e-5)[:, None]


def quaternion(matrix):
    """x y z w, w >= 0: the eigenvector whose rotation is the nearest."""
    best = heads.rotation_form(matrix)
    w, x, y, z = np.linalg.eigh(best)[1][:, -1]
    return np.array([x, y, z, w]) * (1 if w >= 0 else -1)


def in_known_frame(values, rig):
    """Depth divided by the scale of known centres on estimated ones; the known cameras themselves."""
    known = [np.linalg.inv(np.vstack((camera["world_to_camera"], [0, 0, 0, 1]))) for camera in rig.values()]
    a = np.stack([pose[:3, 3] for pose in known])
    b = values["camera"][0, :, :3, 3].numpy()
    a, b = a - a.mean(0), b - b.mean(0)
    # the rotation that turns a onto b best; then the scale, by least squares
    form = sum(np.outer(q, p) for p, q in zip(a, b, strict=True))
    turn = heads.nearest_rotation(form)
    scale = sum((turn @ p) @ q for p, q in zip(a, b, strict=True)) / sum(p @ p for p in a)
    K = torch.tensor([camera["K"] for camera in rig.values()], dtype=torch.float64)
    return values | {
        "camera": torch.from_numpy(np.stack(known))[None],
        "intrinsics": K[None],
        "depth": values["depth"] / scale,
    }
