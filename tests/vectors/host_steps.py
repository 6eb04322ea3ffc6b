"""What the host computes for Depth Anything 3: the choice of the reference view, and what known cameras mean."""

import numpy as np

from page4d.network.known_cameras import KnownCameras
from page4d.network.poses import camera_to_world
from page4d.network.reference_view import balanced_view
from page4d.published import PoseDirection
from tests.vectors.rigs import circle, plain, rig, turning_rig, wave


def reference_views():
    """`page4d.network.reference_view`: cls tokens, and the view that is chosen by them."""
    cases = []
    for number, (V, C) in enumerate([(1, 8), (2, 8), (3, 8), (3, 384), (4, 16), (5, 16), (7, 24), (12, 32)]):
        tokens = wave(V * C, number).reshape(V, C).astype(np.float32) + np.float32(0.5)
        cases.append(tokens)
    cases.append(np.repeat(cases[4][:1], 4, axis=0))  # of equal views the first
    cases.append(cases[4][[3, 1, 0, 1, 2]])  # of two equal ones the first
    cases.append(np.zeros((4, 6), np.float32))  # no direction: the first
    cases.append(np.where(np.arange(16) == 5, np.nan, cases[4]).astype(np.float32))
    entries = []
    with np.errstate(invalid="ignore"):
        for tokens in cases:
            entries.append({"tokens": plain(tokens), "view": int(balanced_view(tokens))})
    return {"about": "tokens: float32 [V,C]; null stands for NaN. view: the one that is chosen.", "cases": entries}


def known_cameras():
    """`page4d.network.known_cameras`: what the camera encoder reads, and the scale of the results."""
    rigs = [rig()[:1], rig()[:2], rig()[1:], rig()[::-1], turning_rig(), circle(10), circle(19)]
    return {
        "about": "Images of H x W pixels. encoded: [V,9]. estimates: camera to world [V,4,4], and the scale of depth.",
        "H": 56,
        "W": 70,
        "cases": [_known(cameras, number) for number, cameras in enumerate(rigs)],
    }


def _known(cameras, number):
    known = KnownCameras.of(cameras)
    encoded = known.encoded(56, 70)
    off = 0.01 * wave(len(cameras) * 3, number).reshape(-1, 3)
    estimates = []
    for factor in (1.0, 0.03, 40.0):
        moved = np.concatenate((encoded[:, :3] * factor + off, encoded[:, 3:]), axis=1)
        estimates.append(camera_to_world(moved, PoseDirection.CAMERA_TO_WORLD))
    mirrored = camera_to_world(encoded, PoseDirection.CAMERA_TO_WORLD)
    mirrored[:, 0, 3] *= -1
    estimates += [mirrored, np.repeat(mirrored[:1], len(cameras), axis=0)]  # of cameras at one place there is no scale
    if len(cameras) >= 10:  # outliers
        for some in (slice(0, 1), slice(2, 6), slice(1, None, 3)):
            moved = estimates[0].copy()
            moved[some, :3, 3] += 3 * wave(3, number + 5)
            estimates.append(moved)
    return {
        "cameras": [camera.to_mapping() for camera in cameras],
        "encoded": plain(encoded),
        "estimates": [{"camera": plain(poses), "scale": known.scale(poses)} for poses in estimates],
    }
