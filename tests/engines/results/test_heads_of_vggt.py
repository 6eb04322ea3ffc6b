"""Engines of VGGT and PAGE-4D from photos to files, compared with the reference model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from page4d import Layout, ModelConfig
from page4d.cameras import read_cameras
from page4d.precision import Precision
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit
from page4d_engines.results.summary import read_summary
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_scene.clip import render
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import refused, run
from tests.support.models import lively

LAYOUT = Layout(3, 1, 56, 70)
NAMES = ["IMG_1", "IMG_2", "IMG_10"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photos of one camera in a folder of their own."""
    folder = tmp_path_factory.mktemp("photos")
    clip = render(3, 1, 140, 112, seed=4)
    for t, name in enumerate(NAMES):
        Image.fromarray(clip.frames[t, 0]).save(folder / f"{name}.png")
    return folder


def plan_of(heads):
    options = {"width": 128, "heads": 2, "depth": 4, "encoder_depth": 2, "predictions": heads}
    return ExportPlan.make(ModelConfig.preset("vggt", **options), LAYOUT, Precision.FLOAT32, head_images=1)


def smooth(model):
    """The model with depth that changes so little from pixel to pixel that none hangs between two surfaces."""
    if model.depth is not None:
        model.depth.scratch.output_conv2[2].weight.mul_(0.01)
    return model


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Engine folders of VGGT by its heads, depth and points in a call an image; and the model of each."""
    cache = {}

    def make(*heads):
        if heads not in cache:
            plan, folder = plan_of(heads), tmp_path_factory.mktemp("_".join(heads))
            cache[heads] = folder, smooth(lively(plan.config))
            write_unverified(cache[heads][1], plan, folder)
        return cache[heads]

    return make


ALL = ("camera", "depth", "points")


def images_of(folder, names=NAMES, mode=None):
    """uint8 `[T,1,H,W,3]`, as the engines see the photos."""
    opened = [Image.open(folder / f"{name}.png").convert("RGB") for name in names]
    return np.stack([Fit.choose(image.size, LAYOUT, mode).image(image) for image in opened])[:, None]


def test_photos_become_a_cloud_cameras_and_depth(engines, photos, tmp_path):
    folder, model = engines(*ALL)
    out = tmp_path / "out"
    done = run(folder, photos, "-o", out, "--confidence-percentile", 0)
    assert done.returncode == 0, done.stderr
    assert str(out / "points.ply") in done.stderr
    (window,) = read_summary(out / "summary.json").windows
    files = window.predictions

    reference = model(torch.from_numpy(images_of(photos)))
    stored = load_file(out / window.file)
    fields = ("depth", "depth_confidence", "points", "points_confidence", "camera", "intrinsics")
    assert set(stored) == {*fields, *(f"layers.{i}" for i in range(4))}
    for name in fields:
        np.testing.assert_allclose(stored[name], getattr(reference, name), rtol=1e-3, atol=1e-4, err_msg=name)

    vertices = read_ply(out / "points.ply")
    assert files.points == len(vertices) == LAYOUT.images * LAYOUT.H * LAYOUT.W
    assert (files.points_from, files.confidence, files.percentile) == ("depth", "depth_confidence", 0)
    assert files.threshold == pytest.approx(float(stored["depth_confidence"].min()))
    world = reference.world_points("depth").numpy().reshape(-1, 3)
    np.testing.assert_allclose(columns(vertices, *"xyz"), world, rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(columns(vertices, "red", "green", "blue"), images_of(photos).reshape(-1, 3))
    np.testing.assert_array_equal(vertices["confidence"], stored["depth_confidence"].ravel())

    cameras, written = read_cameras(out / "cameras.json"), json.loads((out / "cameras.json").read_text())
    assert list(cameras) == list(files.rig) == NAMES
    for t, (name, camera) in enumerate(cameras.items()):
        assert (camera.width, camera.height) == (140, 112)
        np.testing.assert_allclose(camera.K[:2], 2 * reference.intrinsics[t, 0, :2], rtol=1e-3)
        np.testing.assert_allclose(written[name]["camera_to_world"], reference.camera[t, 0], atol=1e-4)
        assert set(written[name]) == {"width", "height", "K", "world_to_camera", "camera_to_world"}
        assert files.rig[name].fitted is None and files.rig[name].focal == [camera.K[0, 0], camera.K[1, 1]]
        with Image.open(out / "depth" / f"{name}.png") as picture:
            depth = np.asarray(picture).astype(np.float64) * files.depth_scale
        np.testing.assert_allclose(depth, reference.depth[t, 0], rtol=1e-3, atol=1.5 * files.depth_scale)
    assert files.depth == [f"depth/{name}.png" for name in NAMES]
    report = (out / "report.html").read_text()
    for text in ("points.ply", "depth/IMG_10.png", "IMG_2", "from depth and cameras", "clip&rsquo;s own unit"):
        assert text in report
    assert "residual" not in report and "a guess" not in report


def test_half_of_the_pixels_of_all_photos_unless_told_otherwise(engines, photos, tmp_path):
    done = run(engines(*ALL)[0], photos, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (window,) = read_summary(tmp_path / "out" / "summary.json").windows
    confidence = load_file(tmp_path / "out" / window.file)["depth_confidence"]
    vertices = read_ply(tmp_path / "out" / "points.ply")
    assert window.predictions.percentile == 50
    assert window.predictions.threshold == pytest.approx(np.percentile(confidence, 50))
    assert len(vertices) == (confidence >= np.percentile(confidence, 50)).sum()
    assert vertices["confidence"].min() >= window.predictions.threshold > 1


def test_points_of_the_points_head_are_in_the_world_as_they_are(engines, photos, tmp_path):
    out = tmp_path / "out"
    done = run(engines(*ALL)[0], photos, "-o", out, "--points-from", "points", "--confidence-percentile", 0)
    assert done.returncode == 0, done.stderr
    (window,) = read_summary(out / "summary.json").windows
    stored = load_file(out / window.file)
    vertices = read_ply(out / "points.ply")
    assert (window.predictions.points_from, window.predictions.confidence) == ("points", "points_confidence")
    assert 0 < len(vertices) <= stored["points_confidence"].size
    points = {tuple(point) for point in stored["points"].reshape(-1, 3).tolist()}
    assert {tuple(point) for point in columns(vertices, *"xyz").tolist()} <= points
    # those before their cameras: all of them, but for flying pixels
    centre, forward = stored["camera"][:, :, None, None, :3, 3], stored["camera"][..., :3, 2]
    z = np.einsum("tvhwi,tvi->tvhw", stored["points"] - centre, forward)
    assert len(vertices) <= (z > 0).sum()


def test_a_crop_and_different_sizes_are_undone_for_each_photo(engines, photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    sizes = {"IMG_1": (140, 112), "IMG_2": (112, 280), "IMG_10": (420, 200)}
    for name, size in sizes.items():
        Image.open(photos / f"{name}.png").resize(size).save(folder / f"{name}.png")
    for mode in TO_ANY_SIZE:
        done = run(engines(*ALL)[0], folder, "-o", tmp_path / "out", "--fit", mode, "--confidence-percentile", 0)
        assert done.returncode == 0, done.stderr
        fits = [Fit.choose(size, LAYOUT, mode) for size in sizes.values()]
        (window,) = read_summary(tmp_path / "out" / "summary.json").windows
        shown = sum(fit.target[2] * fit.target[3] for fit in fits)
        assert window.predictions.points == shown, "pixels beside a padded photo are no points"
        cameras = read_cameras(tmp_path / "out" / "cameras.json")
        K = load_file(next((tmp_path / "out").glob("*.safetensors")))["intrinsics"]
        for t, (name, size) in enumerate(sizes.items()):
            fit, camera = Fit.choose(size, LAYOUT, mode), cameras[name]
            assert (camera.width, camera.height) == size
            np.testing.assert_allclose(fit.camera(camera).K, K[t, 0], rtol=1e-9, atol=1e-9)
            assert np.abs(camera.K[:2, 2] - np.array(size) / 2).max() <= 1 / min(fit.scale)


FILES = {"points.ply", "cameras.json", "depth"}
SUBSETS = {
    ("camera", "depth"): (FILES, ()),
    ("camera", "points"): (FILES, ()),
    ("depth", "points"): (FILES - {"cameras.json"}, ("no cameras.json: it takes the camera head",)),
    ("points",): ({"points.ply"}, ("no cameras.json", "no depth images: they take the depth head, or points and")),
    ("depth",): ({"depth"}, ("no points.ply: it takes the points head, or depth and cameras", "no cameras.json")),
    ("camera",): ({"cameras.json"}, ("no points.ply", "no depth images")),
}


@pytest.mark.parametrize("heads", SUBSETS, ids="_".join)
def test_what_some_of_the_heads_give_is_written_and_the_rest_is_named(engines, photos, tmp_path, heads):
    files, sentences = SUBSETS[heads]
    out = tmp_path / "out"
    done = run(engines(*heads)[0], photos, "-o", out)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} & FILES == files
    summary = read_summary(out / "summary.json")
    written = summary.windows[0].predictions
    assert (written.cloud is not None, written.cameras is not None) == ("points.ply" in files, "cameras.json" in files)
    assert bool(written.depth) == (written.depth_scale is not None) == ("depth" in files)
    assert list(written.rig) == (NAMES if "cameras.json" in files else [])
    left_out = [warning for warning in summary.warnings if warning.startswith("no ")]
    assert len(left_out) == len(sentences)
    for sentence, warning in zip(sentences, left_out, strict=True):
        assert warning.startswith(sentence)
        assert warning.endswith(f"; these engines give {', '.join(reversed(heads))}")
        assert f"note: {warning}" in done.stderr
    for file in FILES:
        assert (f"/{file}" in done.stderr) == (file in files)
    report = (out / "report.html").read_text()
    assert ("points.ply</a>" in report) == ("points.ply" in files)
    assert ("<h2>Cameras</h2>" in report) == ("cameras.json" in files)
    assert run(engines(*heads)[0], photos, "-o", out).returncode == 0, "an earlier result is replaced"


def test_what_the_engines_do_not_give_is_refused_before_the_run(engines, photos, tmp_path):
    out = tmp_path / "out"
    refused(
        run(engines(*ALL)[0], photos, "-o", out, "--min-confidence", 0.5),
        2,
        r"no probability(.|\n)*got: +--min-confidence 0.5\s+allowed: --confidence-percentile 0 to 100",
    )
    refused(
        run(engines("camera", "depth")[0], photos, "-o", out, "--points-from", "points"),
        2,
        r"from points is made of\s+got: +--points-from points; the engines give camera, intrinsics, depth\s+allowed:"
        r" points\s+try: +--points-from depth",
    )
    refused(
        run(engines("depth")[0], photos, "-o", out, "--points-from", "depth"),
        2,
        r"from depth is made of\s+got: .*the engines give depth\s+allowed: depth, camera, intrinsics\s+try: +page4d-",
    )
    for flag, value in (("--confidence-percentile", 30), ("--min-confidence", 0.2)):
        refused(run(engines("camera")[0], photos, "-o", out, flag, value), 2, f"is made of(.|\n)*{flag} {value}")
    for value in (-1, 101, "half"):
        refused(
            run(engines(*ALL)[0], photos, "-o", out, "--confidence-percentile", value),
            2,
            "Invalid value for '--confidence-percentile'",
        )
    refused(run(engines(*ALL)[0], photos, "-o", out, "--points-from", "tokens"), 2, "Invalid value for '--points-from'")
    assert not out.exists()


def test_cameras_of_several_windows_are_each_windows_own(engines, photos, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    for number, name in enumerate([*NAMES, *NAMES]):
        (more / f"{number}.png").write_bytes((photos / f"{name}.png").read_bytes())
    done = run(engines("camera", "depth")[0], more, "-o", tmp_path / "out", "--stride", 3)
    assert done.returncode == 0, done.stderr
    windows = read_summary(tmp_path / "out" / "summary.json").windows
    for window, names in zip(windows, (["0", "1", "2"], ["3", "4", "5"]), strict=True):
        assert list(read_cameras(tmp_path / "out" / window.predictions.cameras)) == names
        assert window.predictions.depth == [f"{window.name}/depth/{name}.png" for name in names]
    assert windows[0].predictions.threshold == windows[1].predictions.threshold, "the same photos"


def test_cameras_without_a_field_of_view_or_a_pose_are_left_out_and_named(photos, tmp_path):
    plan = plan_of(("camera", "depth"))
    model = smooth(lively(plan.config))
    for which, words in (("fov", "no focal length was found for"), ("pose", "no pose was found for")):
        bias = model.camera.pose_branch.fc2.bias
        bias[7:] = -1e3 if which == "fov" else 0.25
        bias[:3] = 3e38 if which == "pose" else 0
        folder = tmp_path / which
        folder.mkdir()
        write_unverified(model, plan, folder)
        done = run(folder, photos, "-o", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert f"note: {words} IMG_1, IMG_2, IMG_10: not in cameras.json" in done.stderr
        assert json.loads((tmp_path / "out" / "cameras.json").read_text()) == {}
        assert len(read_ply(tmp_path / "out" / "points.ply")) == 0
        assert len(list((tmp_path / "out" / "depth").iterdir())) == 3, "depth needs no camera"


def test_frames_of_one_camera_need_no_folder_of_their_own_and_have_a_mask_too(made, photos, tmp_path):
    done = run(made("page4d 2026").folder, photos, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "the mask, points, depth and cameras are noise" in done.stderr
    summary = read_summary(tmp_path / "out" / "summary.json")
    assert summary.cameras == [photos.name] and summary.has_mask and summary.has_predictions
    assert len(summary.windows[0].overlays) == 3 and 0 < summary.mask_mean < 1
    assert {path.name for path in (tmp_path / "out").iterdir()} > FILES | {"masks"}
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"mask mean {summary.mask_mean:.3f}, {summary.points:,} points" in report
