"""Engines of small Depth Anything 3 and Pi3X, and cameras for them."""

import shutil

import numpy as np

from page4d.precision import Precision
from page4d_export.exporter import write_unverified
from tests.support.da3.models import model_of
from tests.support.exports import making
from tests.vectors.published_manifests import H, W, plan_of_model


def published_engines(shared, name, V, precision="float32"):
    """An engine folder of a model of `MODELS`, made once for all processes of a run."""
    folder = shared / f"made-published-{name}-{V}-{precision}" / "engines"
    with making(folder.parent) as first:
        if first:
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
            folder.mkdir()
            write_unverified(model_of(name), plan_of_model(name, V, precision=Precision(precision)), folder)
    return folder


def exact_rig(V):
    """Cameras whose poses the machine's numbers hold exactly: no order of sums makes a difference."""
    turns = ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])
    cameras = {}
    for v in range(V):
        pose = np.concatenate((turns[v % len(turns)], [[4.0 * v], [0.0], [0.0]]), axis=1)
        K = [[64.0, 0, W / 2], [0, 32.0 + v, H / 2], [0, 0, 1]]
        cameras[f"cam{v}"] = {"width": W, "height": H, "K": K, "world_to_camera": pose.tolist()}
    return cameras
