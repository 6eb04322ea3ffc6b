"""`cameras.json`: what is taken in whatever form, what is refused and in which words, what is worth a note."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.cameras import Camera, cameras_from_mapping, fundamental, read_cameras, write_cameras
from page4d.errors import UsageError
from page4d.system.json_file import read_json
from page4d_engines.clip.camera_notes import camera_notes
from page4d_export.sample_scene.clip import render
from tests.support.examples import examples

NAMES = ("cam0", "cam1", "cam2")


@pytest.fixture(scope="module")
def rig():
    return {name: camera.to_mapping() for name, camera in render(1, 3, 64, 48).cameras.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cameras.json"


def refusal(call, *parts):
    with pytest.raises(UsageError) as caught:
        call()
    text = str(caught.value)
    assert len(text) < 700
    for part in parts:
        assert part in text, text
    return text


def notes(rig):
    return camera_notes(cameras_from_mapping(rig), rig)


def changed(rig, **values):
    return {name: {**entry, **values} for name, entry in rig.items()}


# ---- reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_encoding_of_json_is_read(path, rig, encoding):
    path.write_bytes(json.dumps({"Tür": rig["cam0"]}, ensure_ascii=False).encode(encoding))
    (name, camera), *_ = read_cameras(path).items()
    assert name == "Tür" and camera.to_mapping() == rig["cam0"]


def test_what_is_written_is_read(path, rig):
    write_cameras(path, cameras_from_mapping(rig))
    assert {name: camera.to_mapping() for name, camera in read_cameras(path).items()} == rig


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"\xe9", "is not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "JSON has a key twice: a"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
    ids=["empty", "half of UTF-16", "Latin-1", "a name twice", "lists", "mappings", "5000 digits"],
)
def test_what_is_no_json_that_can_be_read(path, content, words):
    path.write_bytes(content)
    refusal(lambda: read_json(path), str(path), words)


def test_a_fifo_is_not_waited_for(path):
    os.mkfifo(path)
    refusal(lambda: read_json(path), "it is not a regular file")
    refusal(lambda: read_json(path.parent), "Is a directory")
    refusal(lambda: read_json(path.parent / "none"), "No such file")
    path.unlink()
    path.symlink_to("/dev/zero")
    refusal(lambda: read_json(path), "it is not a regular file")


# ---- what is refused

_SIZES = [None, "64", [64], float("nan"), float("inf"), 1e30, 10**400, True, 56.9, 0, -3]


@pytest.mark.parametrize("key", ["width", "height"])
@pytest.mark.parametrize("value", _SIZES, ids=str)
def test_a_size_is_a_whole_number_of_pixels(rig, key, value):
    refusal(lambda: cameras_from_mapping(changed(rig, **{key: value})), f"camera cam0: {key} is no size of an image")


def test_a_whole_number_may_be_written_as_a_decimal(rig):
    assert cameras_from_mapping(changed(rig, width=64.0))["cam0"].width == 64


_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)
_number = st.floats() | st.integers(-(10**400), 10**400) | st.sampled_from([0, 1, -1, 1e308, 5e-324, None, "1"])
_matrices = _anything | st.sampled_from([(3, 3), (3, 4), (4, 4)]).flatmap(
    lambda shape: st.lists(
        st.lists(_number, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@pytest.mark.filterwarnings("error")
@examples(400)
@given(data=st.data())
def test_any_value_is_a_camera_with_finite_lines_or_a_usage_error(rig, data):
    entry = dict(rig["cam0"])
    for key in data.draw(st.sets(st.sampled_from(["width", "height", "K", "world_to_camera"]), min_size=1, max_size=2)):
        entry[key] = data.draw(_matrices if len(key) > 6 or key == "K" else _anything)
    try:
        camera = Camera.from_mapping("it", entry)
    except UsageError as error:
        assert str(error).startswith("camera it") and len(str(error)) < 2000
        return
    lines = fundamental([camera, Camera.from_mapping("other", rig["cam1"])])
    assert np.isfinite(lines).all()
    camera_notes({"it": camera}, {"it": entry})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("K", "hint"),
    [
        ([[50, 0, 0], [0, 50, 0], [32, 24, 1]], "transpose it"),
        ([[50, 0, 32], [3, 50, 24], [0, 0, 1]], "fx s cx"),
        ([[50, 0, 32], [0, 50, 24], [0, 0, 2]], "fx s cx"),
        ([[1e200, 0, 32], [0, 1e200, 24], [0, 0, 1]], "1e+09 or less"),
        ([[1e-300, 0, 0], [0, 1e-300, 0], [0, 0, 1]], "positive focal lengths"),
        ([["50", "0", "32"], ["0", "50", "24"], ["0", "0", "1"]], "3 rows of 3"),
        ([[True, False, False], [False, True, False], [False, False, True]], "3 rows of 3"),
        ([[10**400, 0, 32], [0, 50, 24], [0, 0, 1]], "no finite numbers"),
    ],
)
def test_matrices_that_are_no_calibration(rig, K, hint):
    refusal(lambda: cameras_from_mapping(changed(rig, K=K)), "camera cam0: K", hint)


def test_a_pose_may_be_3x4_or_4x4(rig):
    pose = rig["cam1"]["world_to_camera"]
    whole = Camera.from_mapping("it", {**rig["cam1"], "world_to_camera": [*pose, [0, 0, 0, 1]]})
    assert whole.world_to_camera.tolist() == pose
    columns = np.array([*pose, [0, 0, 0, 1]]).T.tolist()
    refusal(
        lambda: cameras_from_mapping(changed(rig, world_to_camera=columns)),
        "the last row of world_to_camera is not 0 0 0 1",
        "transpose it",
    )
    refusal(
        lambda: cameras_from_mapping(changed(rig, world_to_camera=[*pose, [0, 0, 0, 2]])),
        "the last row of world_to_camera",
    )


@pytest.mark.filterwarnings("error")
def test_a_place_beyond_all_precision(rig):
    pose = np.array(rig["cam0"]["world_to_camera"])
    pose[:, 3] = (1e308, 1e308, -1e308)
    refusal(
        lambda: cameras_from_mapping(changed(rig, world_to_camera=pose.tolist())),
        "translation of world_to_camera is out of range",
    )


def test_what_an_entry_lacks_is_named(rig):
    entry = {**rig["cam0"], "camera_to_world": [[1]]}
    del entry["world_to_camera"]
    refusal(
        lambda: Camera.from_mapping("it", entry), "camera it lacks world_to_camera", "the inverse of camera_to_world"
    )
    refusal(lambda: Camera.from_mapping("it", [1, 2]), "camera it is no mapping")


# ---- what is noted


@pytest.mark.parametrize(
    ("views", "size"),
    [(1, (640, 480)), *((views, size) for views in (1, 2, 3, 8) for size in ((64, 48), (52, 111)))],
)
def test_there_is_nothing_to_say_of_a_rendered_rig(views, size):
    cameras = render(1, views, *size).cameras
    assert camera_notes(cameras, {name: camera.to_mapping() for name, camera in cameras.items()}) == ()


@pytest.mark.parametrize(
    ("scale_x", "scale_y", "words"),
    [
        (1 / 64, 1 / 48, "normalised"),
        (1 / 64, 1 / 64, "normalised"),
        (2, 2, "principal point"),
        (0.5, 0.5, "principal point"),
        (0.1, 0.1, "principal point"),
    ],
)
def test_k_of_other_pixels(rig, scale_x, scale_y, words):
    scaled = {
        name: {**entry, "K": (np.diag([scale_x, scale_y, 1]) @ entry["K"]).tolist()} for name, entry in rig.items()
    }
    sentence = notes(scaled)[0]
    assert words in sentence and "cam0, cam1, cam2" in sentence


def test_k_of_a_turned_image():
    entry = render(1, 1, 640, 480).cameras["cam0"].to_mapping()
    turned = {"cam0": {**entry, "width": 480, "height": 640}}
    assert any("principal point" in sentence for sentence in notes(turned))


@pytest.mark.parametrize("focal", [(5, 5), (4000, 4000), (50, 90)])
def test_an_odd_focal_length(rig, focal):
    K = [[focal[0], 0, 32], [0, focal[1], 24], [0, 0, 1]]
    assert len(notes({"cam0": {**rig["cam0"], "K": K}})) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"distortion": [-0.35, 0.12, 0, 0, 0]},
        {"dist_coeffs": [[0.1, 0, 0, 0]]},
        {"D": [0.1]},
        {"k1": -0.2, "p1": 0},
        {"distortion": {"radial": [0.1, 0], "tangential": [0, 0]}},
        {"model": "fisheye"},
        {"camera_model": "OPENCV"},
    ],
)
def test_distortion_is_said_to_be_dropped(rig, values):
    (sentence,) = notes({**rig, "cam1": {**rig["cam1"], **values}})
    assert "cam1: lens distortion is not applied" in sentence and "undistort" in sentence


@pytest.mark.parametrize(
    "values", [{"distortion": [0, 0, 0.0]}, {"model": "PINHOLE"}, {"k1": 0}, {"name": "left"}, {"distortion": None}]
)
def test_no_distortion_is_nothing_to_say(rig, values):
    assert notes(changed(rig, **values)) == ()


def around(point, count, distance, noise, seed):
    """Cameras on a circle about a point, turned towards it."""
    rng, cameras = np.random.default_rng(seed), {}
    for number in range(count):
        angle = 2 * np.pi * number / count + rng.uniform(-0.2, 0.2)
        place = point + distance * np.array([np.cos(angle), rng.uniform(-0.2, 0.2), np.sin(angle)])
        forward = point + noise * rng.normal(size=3) - place
        forward /= np.linalg.norm(forward)
        right = np.cross((0.0, 1.0, 0.0), forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        cameras[f"cam{number}"] = Camera(
            640,
            480,
            np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
            np.column_stack([rotation, -rotation @ place]),
        )
    return cameras


def inverted(cameras):
    poses = {
        name: np.column_stack([camera.world_to_camera[:, :3].T, camera.centre]) for name, camera in cameras.items()
    }
    return {name: Camera(640, 480, camera.K, poses[name]) for name, camera in cameras.items()}


def noted(cameras):
    return any("camera-to-world" in sentence for sentence in camera_notes(cameras, {name: {} for name in cameras}))


@examples(60)
@given(count=st.integers(3, 9), distance=st.floats(1, 5), noise=st.floats(0, 0.1), seed=st.integers(0, 2**32 - 1))
def test_poses_the_right_way_round_are_never_said_to_be_wrong(count, distance, noise, seed):
    """Cameras about the scene, which is where the world begins."""
    assert not noted(around(np.zeros(3), count, distance, noise, seed))


def test_most_poses_that_are_the_wrong_way_round_are_noted():
    """Not all: cameras that happen to look the same way meet nowhere, of three cameras one time in sixteen."""
    wrong = [inverted(around(np.zeros(3), 3 + seed % 7, 1 + seed % 5, 0.02 * (seed % 6), seed)) for seed in range(210)]
    assert sum(map(noted, wrong)) >= 0.95 * len(wrong)


@examples(60)
@given(count=st.integers(2, 9), seed=st.integers(0, 2**32 - 1), place=st.tuples(*[st.floats(-5, 5)] * 3))
def test_poses_of_cameras_about_any_place_are_never_said_to_be_wrong(count, seed, place):
    assert not noted(around(np.array(place), count, 3.0, 0.1, seed))


@pytest.mark.parametrize("spread", [(0.2, 0, 0), (0, 0, 1.0)], ids=["stereo", "a drive"])
def test_parallel_cameras_say_nothing_about_the_way_round(spread):
    rng, cameras = np.random.default_rng(0), {}
    for number in range(6):
        x, y = 0.02 * rng.normal(size=2)
        rotation = np.array([[1, 0, -x], [0, 1, -y], [x, y, 1]])
        rotation = np.linalg.svd(rotation)[0] @ np.linalg.svd(rotation)[2]
        place = number * np.array(spread)
        cameras[f"cam{number}"] = Camera(
            640, 480, np.diag([500.0, 500, 1]), np.column_stack([rotation, -rotation @ place])
        )
    assert not noted(cameras) and not noted(inverted(cameras))
