"""Depth Anything 3 and Pi3X, read from files, against the values of their public code, in float64.

The values lie beside the repository, and are not part of it; where they are missing the tests are skipped.
"""

import functools
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from page4d import Layout, ModelConfig, Page4D, load
from page4d.network.heads.camera_decoder import CameraDecoder
from page4d.network.heads.conv_head import ConvHead
from page4d.network.heads.dpt import Depth
from page4d.network.heads.metric_head import Metric
from page4d.network.heads.sky import fill_sky
from page4d.network.known_cameras import KnownCameras
from page4d.network.poses import camera_to_world, intrinsics, world_to_camera
from page4d.network.reference_view import balanced_view
from page4d.published import PoseDirection
from tests.support.beside import golden_recipe, key_table

TOLERANCE = 1e-9
C2W = PoseDirection.CAMERA_TO_WORLD


@pytest.fixture(scope="module")
def recipe():
    return golden_recipe("golden_models_recipe")


def saved(recipe, folder, table, keep=""):
    """A file with the names and shapes of a published one, and the recipe's weights."""
    shapes = key_table(table)
    file = folder / "model.safetensors"
    save_file({name: recipe.weight(name, shape) for name, shape in shapes.items() if re.search(keep, name)}, file)
    return file


@pytest.fixture(scope="module")
def small(recipe, tmp_path_factory):
    """Loads SMALL with options, in float64."""
    file = saved(recipe, tmp_path_factory.mktemp("small"), "da3-small")

    @functools.cache
    def loaded(**options):
        return load(file, **options).double()

    yield loaded
    file.unlink()


def pictures(recipe, name, V, H, W):
    return torch.from_numpy(recipe.images(name, V, H, W))[None]


def check_da3(recipe, case, model, out):
    """Every result of a clip, against the values of a case."""
    check = functools.partial(recipe.check, tolerance=TOLERANCE)
    for number, layer in enumerate(model.config.dpt_layers):
        check(f"{case}.pair{number}", out.layers[layer][0])
    check(f"{case}.depth", out.depth[0])
    check(f"{case}.confidence", out.depth_confidence[0])
    check(f"{case}.extrinsics", world_to_camera(out.camera[0].numpy()))
    check(f"{case}.intrinsics", out.intrinsics[0])


@pytest.mark.parametrize("case", ["one", "two", "three", "three.first"])
def test_da3_small_from_images(recipe, small, case):
    case = f"dev.small.{case}"
    _, whose, V, H, W, reference = recipe.DA3[case]
    model, images = small(reference_view=reference), pictures(recipe, whose, V, H, W)
    check_da3(recipe, case, model, model(images))
    if reference == "saddle_balanced":
        recipe.check(f"{case}.select", model.encoder.encode(images[0])[1], TOLERANCE)


def test_da3_small_with_known_cameras(recipe, small):
    """The values are those before the public code brings them into the known cameras' frame and scale."""
    case = "dev.small.poses"
    _, whose, V, H, W, _ = recipe.DA3[case]
    E, K = recipe.cameras(case, V, H, W)
    rig = {
        f"camera {v}": {"width": W, "height": H, "K": K[0, v].tolist(), "world_to_camera": E[0, v].tolist()}
        for v in range(V)
    }
    model, known = small(known_cameras=True), KnownCameras(E[0], K[0])
    tokens = model.camera_encoder(torch.from_numpy(known.encoded(H, W))[None])[0]
    recipe.check(f"{case}.camera_tokens", tokens, TOLERANCE)
    out = model(pictures(recipe, whose, V, H, W), cameras=rig)
    for number in range(4):
        recipe.check(f"{case}.pair{number}", out.layers[number][0], TOLERANCE)
    numbers = model.camera(out.layers[3][None], model.config.settled(Layout(1, V, H, W)))[0, 0].numpy()
    recipe.check(f"{case}.pose", numbers, TOLERANCE)
    estimated = camera_to_world(numbers, C2W)
    recipe.check(f"{case}.depth", out.depth[0] * known.scale(estimated), TOLERANCE)
    recipe.check(f"{case}.confidence", out.depth_confidence[0], TOLERANCE)
    np.testing.assert_allclose(world_to_camera(out.camera[0].numpy()), E[0, :, :3], atol=1e-6)
    np.testing.assert_allclose(out.intrinsics[0], K[0])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["base", "large"])
def test_da3_from_images(recipe, tmp_path, size, much_memory):
    case = f"dev.{size}"
    _, whose, V, H, W, _ = recipe.DA3[case]
    model = load(saved(recipe, tmp_path, f"da3-{size}", r"^(?!.*_aux|model\.cam_enc)")).double()
    assert model.config == ModelConfig.preset(f"da3-{size}")
    check_da3(recipe, case, model, model(pictures(recipe, whose, V, H, W)))


@pytest.mark.slow
def test_da3_metric_from_images(recipe, tmp_path, much_memory):
    """MONO is the same network."""
    model = load(saved(recipe, tmp_path, "da3metric-large"), published="da3-metric").double()
    for case, size in recipe.DA3_MONO.items():
        out = model(pictures(recipe, case, *size))
        recipe.check(f"{case}.depth", out.depth[0], TOLERANCE)
        recipe.check(f"{case}.sky", out.sky[0], TOLERANCE)
        recipe.check(f"{case}.filled", fill_sky(out.depth[0].numpy(), out.sky[0].numpy()), TOLERANCE)


@pytest.mark.slow
def test_pi3x_from_images(recipe, tmp_path, much_memory):
    """2 encoder blocks and 2 layers of the published width; its conditioning parts are in the file."""
    keep = r"^(?!(?:depth_)?encoder\.blocks|decoder\.)|^encoder\.blocks\.[01]\.|^decoder\.[0-3]\."
    model = load(saved(recipe, tmp_path, "pi3x", keep)).double()
    assert (model.config.encoder_depth, model.config.depth) == (2, 2)
    for case, size in recipe.PI3X.items():
        out = model(pictures(recipe, case, *size))
        recipe.check(f"{case}.pair", out.layers[1][0], TOLERANCE)
        recipe.check(f"{case}.metric", out.metric.reshape(1), TOLERANCE)
        recipe.check(f"{case}.local_points", out.points[0], TOLERANCE)
        recipe.check(f"{case}.points", out.world_points()[0], TOLERANCE)
        recipe.check(f"{case}.confidence", out.confidence[0], TOLERANCE)
        recipe.check(f"{case}.camera_poses", out.camera[0], TOLERANCE)


# ---- parts alone


@pytest.fixture(scope="module")
def part(recipe):
    """Makes a part of a network in float64 with the recipe's weights; `names` are prefixes in the file, by ours."""

    def built(make, names):
        with torch.device("meta"):
            module = make()
        weights = {}
        for name, parameter in module.named_parameters():
            ours = max((prefix for prefix in names if name.startswith(prefix)), key=len)
            key = names[ours] + name.removeprefix(ours)
            weights[name] = torch.from_numpy(recipe.weight(key, tuple(parameter.shape))).double()
        module.load_state_dict(weights, assign=True)
        return module.requires_grad_(False)

    return built


@pytest.mark.parametrize("case", ["dev.heads.small", "dev.heads.base"])
def test_heads_of_da3(recipe, part, case):
    size, V, H, W = recipe.DA3_HEADS[case]
    config = ModelConfig.preset(f"da3-{size}")
    names = {"": "model.head.", "final_norm.": "model.backbone.pretrained.norm."}
    head = part(lambda: Depth(config), names)
    channels, layout = 2 * config.width, config.settled(Layout(1, V, H, W))
    pairs = [torch.from_numpy(recipe.pairs(case, number, V, H, W, channels)).double() for number in range(4)]
    depth, confidence = head(*pairs, layout=layout)
    recipe.check(f"{case}.depth", depth[0], TOLERANCE)
    recipe.check(f"{case}.confidence", confidence[0], TOLERANCE)
    camera = part(lambda: CameraDecoder(config), {"": "model.cam_dec."})
    recipe.check(f"{case}.pose", camera(pairs[3][:, None], layout)[0, 0], TOLERANCE)


def test_camera_of_da3(recipe, part):
    """Fields of view of 0 or of half a turn and more are no camera's: they give no focal length here."""
    for case, (size, count, H, W) in recipe.DA3_CAMERA.items():
        config = ModelConfig.preset(f"da3-{size}")
        camera = part(lambda config=config: CameraDecoder(config), {"": "model.cam_dec."})
        vectors = torch.from_numpy(recipe.vectors(case, count, 2 * config.width)).double()
        numbers = camera(vectors[:, None, :, None], Layout(1, count, H, W, registers=0))[0, 0].numpy()
        recipe.check(f"{case}.pose", numbers, TOLERANCE)
        recipe.check(f"{case}.extrinsics", world_to_camera(camera_to_world(numbers, C2W)), TOLERANCE)
        K = intrinsics(numbers, H, W)
        stored = np.load(recipe.HERE / "golden_da3_dev.npz")[f"{case}.intrinsics/ref"].reshape(count, 3, 3)
        fields = numbers[:, [8, 7]]
        sees = (fields > 0) & (fields < np.pi)
        assert sees.any() and not sees.all()
        focal, expected = (matrices[:, [0, 1], [0, 1]] for matrices in (K, stored))
        np.testing.assert_allclose(focal[sees], expected[sees], rtol=TOLERANCE)
        assert np.isnan(focal[~sees]).all()


def test_reference_view(recipe):
    for case, (clips, V, C) in recipe.DA3_REFERENCE.items():
        chosen = np.load(recipe.HERE / "golden_da3_dev.npz")[f"{case}.saddle_balanced/ref"]
        assert (balanced_view(recipe.hidden(case, clips, V, C)) == chosen).all()
        assert len(set(chosen)) > 2


def test_position_embedding(recipe, part):
    names = {"encoder.": "model.backbone.pretrained."}
    config = ModelConfig.preset("da3-small", encoder_depth=1, depth=1, known_cameras=True, predictions=())

    def make():
        return torch.nn.ModuleDict({"encoder": Page4D(config, filled=False).encoder})

    encoder = part(make, names)["encoder"]
    for size, h, w in recipe.DA3_GRIDS:
        recipe.check(f"dev.pos_embed.{size}.{h}x{w}", encoder.position(h, w), 1e-7)


def test_convolutional_heads_of_pi3x(recipe, part):
    config = ModelConfig.preset("pi3x")
    for case, (V, h, w) in recipe.PI3X_HEADS.items():
        layout = Layout(1, V, 14 * h, 14 * w)
        patches = torch.from_numpy(recipe.hidden(case, V, h * w, config.width)).double()
        tokens = torch.cat((torch.full((V, layout.special, config.width), torch.nan), patches), dim=1)
        xyz = part(lambda: ConvHead(config, (2, 1)), {"": "point_head."})(tokens, layout).movedim(-1, 1)
        recipe.check(f"{case}.point.xy", xyz[:, :2], TOLERANCE)
        recipe.check(f"{case}.point.z", xyz[:, 2:], TOLERANCE)
        confidence = part(lambda: ConvHead(config, (1,)), {"": "conf_head."})(tokens, layout).movedim(-1, 1)
        recipe.check(f"{case}.confidence", confidence, TOLERANCE)


def test_metric_head_of_pi3x(recipe, part):
    config = ModelConfig.preset("pi3x")
    names = {"token": "metric_token", "decoder.": "metric_decoder.", "head.": "metric_head."}
    head = part(lambda: Metric(config), names)
    for case, (V, h, w) in recipe.PI3X_METRIC.items():
        layout = Layout(1, V, 14 * h, 14 * w)
        pair = torch.from_numpy(recipe.hidden(case, V, layout.N, 2 * config.width)).double()[None, None]
        recipe.check(f"{case}.scale", head(pair, layout), TOLERANCE)
