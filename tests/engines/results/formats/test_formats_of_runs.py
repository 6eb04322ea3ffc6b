"""`page4d-run --formats`: files of real engines, kept by --resume, in batches, and the same as convert writes."""

import json
import shutil

import numpy as np
import pycolmap
import pytest
import trimesh

from page4d.cameras import read_cameras
from page4d.files import refuse_foreign
from page4d_engines.commands.convert import convert_command
from page4d_engines.options import Format
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.formats.format_choice import formats_named
from page4d_engines.results.summary import RUN_OUTPUT, read_summary
from page4d_export.sample_scene.clip import render, save
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import inside, refused, run
from tests.support.exports import content

FILES = {
    "cameras.json",
    "colmap/sparse/0/cameras.bin",
    "colmap/sparse/0/images.bin",
    "colmap/sparse/0/points3D.bin",
    "colmap/sparse_text/0/cameras.txt",
    "colmap/sparse_text/0/images.txt",
    "colmap/sparse_text/0/points3D.txt",
    "points.ply",
    "scene.glb",
    "scene.npz",
    "transforms.json",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "clip"
    save(render(1, 3, 90, 70), folder)
    return folder


@pytest.fixture(scope="module")
def whole(made, photos, tmp_path_factory):
    """A run that wrote every format."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run(made("pi3").folder, photos, "-o", out, "--formats", ",".join(Format), "--max-points", 500)
    assert done.returncode == 0, done.stderr
    told = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("format:")]
    assert sorted(told) == [str(out / name) for name in ("colmap", "scene.glb", "scene.npz", "transforms.json")]
    return out


def test_every_format_is_written_and_listed(whole):
    summary = read_summary(whole / "summary.json")
    written = {path for path in content(whole) if not path.startswith("depth")} & FILES
    assert written == FILES
    (window,) = summary.windows
    listed = {window.predictions.cloud, window.predictions.cameras, *window.predictions.formats}
    assert listed == FILES and summary.made_by.formats == tuple(map(str, Format))
    assert len(read_ply(whole / "points.ply")) == window.predictions.points <= 500
    refuse_foreign(whole, RUN_OUTPUT)  # a later run may replace it
    assert not [warning for warning in summary.warnings if "fault" in warning]


def test_every_format_is_read_by_its_reader(photos, whole):
    cameras = read_cameras(whole / "cameras.json")
    names = {f"cam{v}/000000.png": f"cam{v}" for v in range(3)}
    for kind in ("sparse", "sparse_text"):
        model = pycolmap.Reconstruction(str(whole / "colmap" / kind / "0"))
        assert sorted(image.name for image in model.images.values()) == sorted(names)
        for image in model.images.values():
            camera, expected = model.cameras[image.camera_id], cameras[names[image.name]]
            assert (photos / "frames" / image.name).is_file()
            assert (camera.width, camera.height) == (90, 70) == (expected.width, expected.height)
            np.testing.assert_allclose(camera.calibration_matrix(), expected.K)
            np.testing.assert_allclose(image.cam_from_world().matrix(), expected.world_to_camera, atol=1e-9)
    vertices = read_ply(whole / "points.ply")
    cloud = trimesh.load_scene(whole / "scene.glb", process=False).geometry["cloud"]
    np.testing.assert_array_equal(cloud.vertices, columns(vertices, *"xyz"))
    document = json.loads((whole / "transforms.json").read_text())
    assert document["ply_file_path"] == "points.ply"
    for frame, (name, camera) in zip(document["frames"], cameras.items(), strict=True):
        path = (whole / frame["file_path"]).resolve()
        assert path == (photos / "frames" / name / "000000.png").resolve() and path.is_file()
        position = np.array(frame["transform_matrix"])[:3, 3]
        np.testing.assert_allclose(position, camera.centre, atol=1e-6)
    arrays = np.load(whole / "scene.npz")
    assert arrays["name"].tolist() == list(cameras) and arrays["kept"].sum() == len(vertices)


def test_a_run_that_is_whole_is_kept_and_other_flags_run_again(made, photos, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    before = content(tmp_path / "out")
    command = [made("pi3").folder, photos, "-o", tmp_path / "out", "--resume", "--max-points", 500, "--formats"]
    assert run(*command, "npz,ply,nerfstudio,glb,colmap").returncode == 0
    assert content(tmp_path / "out") == before
    (tmp_path / "out" / "scene.glb").unlink()  # no longer whole
    assert run(*command, "glb,npz").returncode == 0
    again = read_summary(tmp_path / "out" / "summary.json")
    assert again.made_by.formats == ("glb", "npz") and not (tmp_path / "out" / "colmap").exists()
    # points.ply was not asked for
    assert again.windows[0].predictions.cloud is None and not (tmp_path / "out" / "points.ply").exists()
    assert FinishedRun.open(tmp_path / "out").scenes()[0].count == 3


def test_convert_writes_what_the_run_would_have_written(made, photos, whole, tmp_path):
    out = tmp_path / "out"
    assert run(made("pi3").folder, photos, "-o", out).returncode == 0
    flags = ["--formats", "glb,colmap,npz", "--max-points", 500]
    done = inside(out, *flags, function=convert_command)
    assert done.returncode == 0, done.stderr
    by_run, converted = content(whole), content(out)
    same = {path for path in FILES if path.startswith(("colmap/", "scene.glb"))}
    assert {path for path in same if by_run[path] == converted[path]} == same
    assert (read_ply(out / "points.ply") == read_ply(whole / "points.ply")).all()  # written anew with fewer points


def test_batches_write_formats_of_every_folder(made, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "a")
    shutil.copytree(photos, tmp_path / "b")
    command = [made("pi3").folder, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out", "--formats", "ply,glb"]
    assert run(*command).returncode == 0
    for name in ("a", "b"):
        assert read_summary(tmp_path / "out" / name / "summary.json").format_files == ["scene.glb"]
    kept = run(*command, "--resume")
    assert kept.stderr.count("(kept)") == 2
    other = run(*command, "--resume", "--voxel", 0.1)
    assert "(kept)" not in other.stderr and other.returncode == 0
    assert read_summary(tmp_path / "out" / "a" / "summary.json").made_by.voxel == 0.1


@pytest.mark.parametrize("flags", [["--formats", "glb"], ["--formats", "npz"], ["--static-only"]])
def test_formats_that_engines_cannot_give_are_refused_before_they_run(made, photos, tmp_path, flags):
    variant = "pi3" if flags == ["--static-only"] else "default"
    clip = photos
    if variant == "default":
        clip = tmp_path / "clip"
        save(render(3, 2, 70, 56), clip)
    done = run(made(variant).folder, clip, "-o", tmp_path / "out", *flags)
    refused(done, 2, flags[0], "these engines")
    assert not (tmp_path / "out").exists()


def test_a_list_of_formats_has_each_once_in_one_order():
    assert formats_named("npz, glb,npz") == (Format.GLB, Format.NPZ)
