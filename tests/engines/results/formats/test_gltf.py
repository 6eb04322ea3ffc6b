"""GLB files of the rendered scene, read by trimesh and compared with the scene itself."""

import dataclasses
import json
import struct

import numpy as np
import pytest
import trimesh

from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.formats import gltf
from page4d_engines.results.formats.gltf import up_turn, write_glb
from page4d_engines.results.scene.cloud_options import CloudOptions
from tests.support.true_run import write_true_run

FLIP = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Photos that are cut, of two timesteps of three cameras."""
    return write_true_run(
        tmp_path_factory.mktemp("run"), T=2, V=3, size=(56, 84), photo_size=(126, 150), fit="crop", orbit=0.05
    )


def scene_of(run, **options):
    (scene,) = FinishedRun.open(run.out, options=CloudOptions(**options) if options else None).scenes()
    return scene


def load(folder):
    return trimesh.load_scene(folder / "scene.glb", process=False)


def document(path):
    """The JSON of a GLB file, and its buffer."""
    content = path.read_bytes()
    magic, version, size, json_size, json_kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, size, json_kind) == (b"glTF", 2, len(content), b"JSON")
    return json.loads(content[20 : 20 + json_size]), content[28 + json_size :]


def to_linear(colours):
    srgb = colours / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def test_the_cloud_has_the_scenes_points_and_colours(run, tmp_path):
    scene = scene_of(run)
    assert write_glb(tmp_path, scene).files == [tmp_path / "scene.glb"]
    cloud = load(tmp_path).geometry["cloud"]
    images = list(scene.images())
    points = np.concatenate([image.points[image.kept] for image in images])
    np.testing.assert_array_equal(cloud.vertices, points)
    true = run.points[np.stack([image.kept for image in images]).reshape(run.depth.shape)]
    np.testing.assert_allclose(cloud.vertices, true, atol=1e-5)
    colours = np.concatenate([image.pixels[image.kept] for image in images])
    # glTF's colours are linear: sRGB's own bytes would look washed out
    np.testing.assert_allclose(cloud.colors[:, :3] / 255, to_linear(colours), atol=0.5 / 255)
    assert (cloud.colors[:, 3] == 255).all()


def test_y_is_up_and_the_first_camera_looks_along_minus_z(run, tmp_path):
    write_glb(tmp_path, scene_of(run))
    loaded = load(tmp_path)
    turn, geometry = loaded.graph["cloud"]
    assert geometry == "cloud"
    # the rendered scene's z is up
    np.testing.assert_allclose(turn[:3, :3] @ (0, 0, 1), (0, 1, 0), atol=0.02)
    assert np.linalg.det(turn[:3, :3]) == pytest.approx(1)
    forward = turn[:3, :3] @ run.cameras[0][0].world_to_camera[2, :3]
    assert forward[2] < -0.8 and abs(forward[0]) < 1e-6


def test_every_image_has_a_node_with_its_camera_and_frustum(run, tmp_path):
    write_glb(tmp_path, scene_of(run))
    loaded = load(tmp_path)
    turn = loaded.graph["cloud"][0][:3, :3]
    for t, row in enumerate(run.cameras):
        for v, camera in enumerate(row):
            pose, geometry = loaded.graph[f"cam{v}/{t:06d}"]
            np.testing.assert_allclose(pose[:3, 3], turn @ camera.centre, atol=1e-5)
            np.testing.assert_allclose(pose[:3, :3], turn @ camera.world_to_camera[:, :3].T @ FLIP, atol=1e-5)
            edges = loaded.geometry[geometry].vertices.reshape(-1, 2, 3)  # pairs, of the frustum and a mark above it
            np.testing.assert_allclose(edges[:4, 0], 0, atol=1e-9)
            np.testing.assert_array_equal(edges[4:8, 0], edges[:4, 1])
            np.testing.assert_array_equal(edges[4:8, 1], np.roll(edges[:4, 1], -1, 0))
            # the corners of the frustum are those of the photo, not of what the engine saw of it
            corners = (edges[:4, 1] @ pose[:3, :3].T + pose[:3, 3]) @ turn
            places = corners @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]
            pixels = places[:, :2] / places[:, 2:] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]
            np.testing.assert_allclose(pixels, [(0, 0), (126, 0), (126, 150), (0, 150)], atol=0.05)
            assert (edges[8, 1] == edges[9, 0]).all() and edges[8, 1, 1] > edges[:4, 1, 1].max()


def test_cameras_have_the_photos_field_of_view(run, tmp_path):
    write_glb(tmp_path, scene_of(run))
    content, _ = document(tmp_path / "scene.glb")
    nodes = {node["name"]: node for node in content["nodes"]}
    for v, camera in enumerate(run.cameras[1]):
        parent = nodes[f"cam{v}/000001"]
        (child,) = (content["nodes"][number] for number in parent["children"])
        lens = content["cameras"][child["camera"]]["perspective"]
        assert lens["yfov"] == pytest.approx(2 * np.arctan(75 / camera.K[1, 1]), rel=1e-4)
        assert np.tan(lens["yfov"] / 2) * lens["aspectRatio"] == pytest.approx(63 / camera.K[0, 0], rel=1e-4)


def test_the_file_follows_the_specification(run, tmp_path):
    write_glb(tmp_path, scene_of(run))
    content, buffer = document(tmp_path / "scene.glb")
    assert content["buffers"] == [{"byteLength": len(buffer)}] and len(buffer) % 4 == 0
    sizes, widths = {5126: 4, 5121: 1}, {"VEC3": 3, "VEC4": 4}
    for accessor in content["accessors"]:
        view = content["bufferViews"][accessor["bufferView"]]
        size = sizes[accessor["componentType"]] * widths[accessor["type"]]
        assert accessor["count"] > 0 and view["byteLength"] == size * accessor["count"]
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(buffer)
    for mesh in content["meshes"]:
        (primitive,) = mesh["primitives"]
        positions = content["accessors"][primitive["attributes"]["POSITION"]]
        assert len(positions["min"]) == len(positions["max"]) == 3 and primitive["mode"] in (0, 1)
    assert content["scenes"] == [{"nodes": [len(content["nodes"]) - 1]}]
    children = [number for node in content["nodes"] for number in node.get("children", [])]
    assert sorted(children) == list(range(len(content["nodes"]) - 1))  # each node but the root has one parent


def test_max_points_is_kept_to_and_has_a_default(run, tmp_path, monkeypatch):
    write_glb(tmp_path, scene_of(run, max_points=300))
    assert len(load(tmp_path).geometry["cloud"].vertices) == 300
    monkeypatch.setattr(gltf, "MOST_POINTS", 200)
    write_glb(tmp_path, scene_of(run))
    assert len(load(tmp_path).geometry["cloud"].vertices) == 200


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (first,) = write_glb(tmp_path / "a", scene_of(run)).files
    (second,) = write_glb(tmp_path / "b", scene_of(run)).files
    assert first.read_bytes() == second.read_bytes()


def test_a_scene_without_points_or_cameras_is_a_file_that_can_be_read(run, tmp_path):
    scene = scene_of(run)

    class Empty(type(scene)):
        def images(self):
            for image in super().images():
                unknown = dataclasses.replace(image.calibration.camera, world_to_camera=np.full((3, 4), np.nan))
                lost = dataclasses.replace(image.calibration, camera=unknown)
                yield dataclasses.replace(image, kept=np.zeros_like(image.kept), calibration=lost)

    write_glb(tmp_path, Empty(scene.name, scene.windows, scene.run))
    content, buffer = document(tmp_path / "scene.glb")
    assert buffer == b"" and content["nodes"] == [{"name": "scene", "rotation": [1.0, 0.0, 0.0, 0.0]}]
    assert not load(tmp_path).geometry


@pytest.mark.parametrize("tilt", [0.0, 0.6])
def test_up_is_square_to_level_cameras_however_they_are_tilted(tilt):
    poses = []
    for angle in (0.0, 0.7, 1.4):
        c, s = np.cos(angle), np.sin(angle)
        level = np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]]).T  # columns: x right, y down, z forward; up is y
        ct, st = np.cos(tilt), np.sin(tilt)
        pose = np.eye(4)
        pose[:3, :3] = level @ np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
        poses.append(pose)
    np.testing.assert_allclose(up_turn(poses) @ (0, 1, 0), (0, 1, 0), atol=1e-9)


def test_up_of_a_single_camera_is_its_own_also_where_it_looks_down():
    pose = np.eye(4)
    np.testing.assert_allclose(up_turn([pose]), FLIP, atol=1e-12)
    around = np.eye(4)
    around[:3, :3] = np.diag([1.0, -1.0, -1.0])  # upside down, and backwards
    turn = up_turn([pose, around])  # their ups cancel out
    assert np.linalg.det(turn) == pytest.approx(1)
    np.testing.assert_allclose(turn, FLIP, atol=1e-12)
