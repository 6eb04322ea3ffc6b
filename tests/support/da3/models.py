"""Small models of Depth Anything 3 and Pi3X whose weights matter, and cameras for them."""

import functools

import numpy as np

from page4d import ModelConfig, Page4D

SMALL = {"width": 64, "heads": 2}
MODELS = {
    "da3": {"name": "da3-small", **SMALL, "encoder_depth": 2, "depth": 2},
    "first": {"name": "da3-small", **SMALL, "encoder_depth": 2, "depth": 2, "reference_view": "first"},
    "known": {"name": "da3-small", **SMALL, "encoder_depth": 2, "depth": 2, "known_cameras": True},
    "mono": {"name": "da3-mono", **SMALL, "encoder_depth": 4},
    "metric": {"name": "da3-metric", **SMALL, "encoder_depth": 4},
    "pi3x": {"name": "pi3x", **SMALL, "encoder_depth": 1, "depth": 2},
}
H, W = 28, 42


@functools.cache
def model_of(name):
    """Weights so large that special tokens matter, but those of depth, whose exponential would overflow."""
    model = Page4D(ModelConfig.preset(**MODELS[name]), seed=3)
    for key, parameter in model.named_parameters():
        if parameter.dim() > 1 and not key.startswith(("depth.", "points.", "confidence.", "metric.", "camera.")):
            parameter.mul_(3)
    return model


def cameras_of(V, W=W, H=H, seed=0):
    """Cameras on a curve, each turned about the vertical axis."""
    rng, rig = np.random.default_rng(seed), {}
    for v in range(V):
        angle = 0.2 * v
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pose = np.concatenate((turn, rng.normal(size=(3, 1)) * 5), axis=1)
        K = [[40.0 + v, 0, W / 2], [0, 44.0 + v, H / 2], [0, 0, 1]]
        rig[f"cam{v}"] = {"width": W, "height": H, "K": K, "world_to_camera": pose.tolist()}
    return rig
