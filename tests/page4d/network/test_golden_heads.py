"""The heads of VGGT and PAGE-4D against the values of their public code, in float64.

The values lie beside the repository, and are not part of it; where they are missing the tests are skipped.
"""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from page4d import Layout, ModelConfig, load
from page4d.network.heads.dpt import Depth, WorldPoints
from page4d.network.heads.pose_head import PoseHead
from page4d.network.poses import camera_to_world, intrinsics, world_points, world_to_camera
from tests.support.beside import golden_recipe, key_table

VGGT = ModelConfig.preset("vggt")
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def recipe():
    return golden_recipe("golden_heads_recipe")


@pytest.fixture(scope="module")
def head(recipe):
    """Makes a head in float64 with the recipe's weights."""

    def made(kind, prefix):
        with torch.device("meta"):
            module = kind(VGGT)
        weights = {
            name: torch.from_numpy(recipe.weight(prefix + name, tuple(parameter.shape))).double()
            for name, parameter in module.named_parameters()
        }
        module.load_state_dict(weights, assign=True)
        return module.requires_grad_(False)

    return made


def pairs(recipe, case, layers):
    S, H, W = recipe.CASES[case]
    tokens = (torch.from_numpy(recipe.tokens(case, layer, S, H, W)).double().unsqueeze(2) for layer in layers)
    return list(tokens), Layout(S, 1, H, W)  # [1,S,1,N,2C]


def test_camera(recipe, head):
    module = head(PoseHead, "camera_head.")
    for case in recipe.CASES:
        (pair,), layout = pairs(recipe, case, (23,))
        numbers = module(pair, layout).flatten(1, 2).numpy()  # [1,S,9]
        stored = np.load(recipe.HERE / "golden_heads_dev.npz")
        last = stored[f"{case}.camera/ref"].reshape(stored[f"{case}.camera/shape"])[-1]
        np.testing.assert_allclose(numbers, last, rtol=TOLERANCE, atol=TOLERANCE)
        recipe.check(f"{case}.camera.extrinsics", world_to_camera(camera_to_world(numbers)), TOLERANCE)
        recipe.check(f"{case}.camera.intrinsics", intrinsics(numbers, layout.H, layout.W), TOLERANCE)


@pytest.mark.parametrize(("kind", "name"), [(Depth, "depth"), (WorldPoints, "point")])
def test_depth_and_points(recipe, head, kind, name):
    module = head(kind, f"{name}_head.")
    for case in recipe.CASES:
        tokens, layout = pairs(recipe, case, recipe.LAYERS)
        values, confidence = (value.squeeze(2) for value in module(*tokens, layout=layout))
        recipe.check(f"{case}.{name}", values.unsqueeze(-1) if name == "depth" else values, TOLERANCE)
        recipe.check(f"{case}.{name}.confidence", confidence, TOLERANCE)


def test_cameras_of_a_pose_encoding(recipe):
    for name, (count, H, W) in recipe.POSES.items():
        numbers = recipe.poses(name, count)
        recipe.check(f"{name}.extrinsics", world_to_camera(camera_to_world(numbers)), TOLERANCE)
        recipe.check(f"{name}.intrinsics", intrinsics(numbers, H, W), TOLERANCE)


def test_points_from_depth(recipe):
    for name, (S, H, W) in recipe.UNPROJECT.items():
        depth, numbers = recipe.depths(name, S, H, W)[..., 0], recipe.poses(name, S)[0]
        world = world_points(None, None, depth, camera_to_world(numbers), intrinsics(numbers, H, W))
        recipe.check(f"{name}.world", world, 1e-6)  # the public code rounds to float32 in between


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vggt", "page4d_2026", "page4d_2026_off", "page4d_150"])
def test_whole_models_from_images(recipe, model, tmp_path, much_memory):
    """2 encoder blocks and all 24 layers of the published width, read from a file."""
    weights = {
        key: recipe.weight(key, shape)
        for key, shape in key_table(KEY_TABLES.get(model, model)).items()
        if not key.startswith("track_head.") and not is_left_out(key)
    }
    file = tmp_path / "model.safetensors"
    save_file(weights, file)
    del weights
    options = {"mask": False} if model.endswith("_off") else {}
    network = load(file, **options).double()
    file.unlink()
    for case, (S, H, W) in recipe.E2E.items():
        images = torch.from_numpy(recipe.images(case, S, H, W)).unsqueeze(1)
        out = network(images)
        name = f"{case}.{model}"
        for layer in recipe.LAYERS:
            recipe.check(f"{name}.layer{layer}", out.layers[layer].transpose(0, 1), TOLERANCE)
        extrinsics = world_to_camera(out.camera.numpy()).swapaxes(0, 1)
        recipe.check(f"{name}.extrinsics", extrinsics, TOLERANCE)
        recipe.check(f"{name}.depth", out.depth.transpose(0, 1).unsqueeze(-1), TOLERANCE)
        recipe.check(f"{name}.depth.confidence", out.depth_confidence.transpose(0, 1), TOLERANCE)
        recipe.check(f"{name}.point", out.points.transpose(0, 1), TOLERANCE)
        recipe.check(f"{name}.point.confidence", out.points_confidence.transpose(0, 1), TOLERANCE)


KEY_TABLES = {"page4d_150": "page4d_checkpoint_150", "page4d_2026_off": "page4d_2026"}


def is_left_out(key):
    """Whether it is of an encoder block after the second."""
    prefix = "aggregator.patch_embed.blocks."
    return key.startswith(prefix) and int(key.removeprefix(prefix).partition(".")[0]) > 1
