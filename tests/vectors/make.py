"""Golden vectors that Python and C++ both read: what this package's own code gives for inputs that both sides can make.

`python -m tests.vectors.make` writes every file anew; a function a file, each returning plain data.
"""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import zlib
from types import SimpleNamespace

import numpy as np
from PIL import Image

from page4d.cameras import Camera, fundamental
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.network.poses import camera_to_world, intrinsics, points_source, to_world, unproject
from page4d.published import PointsFrame, PoseDirection
from page4d_engines.clip.fit import Fit, FitMode, PhotoWay
from page4d_engines.clip.window_reader import Fits
from tests.vectors.clip.camera_formats import camera_formats
from tests.vectors.host_steps import known_cameras, reference_views
from tests.vectors.manifests import manifests
from tests.vectors.plans import plans, published_plans
from tests.vectors.rigs import plain, rig, turned

FOLDER = pathlib.Path(__file__).parent

IMAGES = """Byte c of pixel (x, y) of an image of a width and a seed,
whole numbers throughout: in blocks of 16 x 16 pixels,
by (x / 16 + y / 16 + seed) % 3,
0: r = (3 x + 5 y + 85 c + 11 seed) % 512, the lesser of r and 511 - r;
1: (((y width + x) 3 + c + 1000003 seed) 2654435761 mod 2^32) / 2^24;
2: 255 where (x + y) / 4 is odd, else 0.
Single-channel images have byte 0, and so has the alpha of the others, taken from 255."""


def picture(width, height, seed):
    """uint8 `[height,width,3]` as `IMAGES` says."""
    y, x, c = np.ogrid[:height, :width, :3]
    ramp = (3 * x + 5 * y + 85 * c + 11 * seed) % 512
    noise = ((((y * width + x) * 3 + c + 1000003 * seed) * 2654435761) % 2**32) >> 24
    kinds = np.broadcast_arrays(np.minimum(ramp, 511 - ramp), noise, (x + y) // 4 % 2 * 255)
    return np.choose((x // 16 + y // 16 + seed) % 3, kinds).astype(np.uint8)


def fitting(source, engine, mode):
    """Sizes are (width, height)."""
    layout = Layout(1, 1, engine[1], engine[0])
    if mode == "none":
        return Fit.choose(source, layout, None)
    clip = SimpleNamespace(sizes=[[source]])
    if mode == "published-da3":
        return Fits.choose(clip, layout, FitMode.PUBLISHED, PhotoWay.DA3).by_size[source]
    return Fits.choose(clip, layout, FitMode(mode)).by_size[source]


def refusal(call, *arguments):
    """All lines of the error that a call ends in."""
    try:
        call(*arguments)
    except UsageError as error:
        return str(error)
    raise AssertionError("nothing is refused")


# source, engine, mode. Enlarged and reduced, along one axis or both; equal along one axis or both; odd sizes, single
# pixels
FITS = [
    *itertools.product([(56, 42)], [(56, 42)], ["none", "stretch", "crop", "pad"]),
    *itertools.product(
        [(1, 1), (37, 23), (23, 37), (120, 130), (129, 77), (250, 33)], [(56, 42), (28, 28)], ["stretch", "crop", "pad"]
    ),
    ((56, 20), (56, 42), "stretch"),
    ((56, 101), (56, 42), "stretch"),
    ((20, 42), (56, 42), "crop"),
    ((101, 42), (56, 42), "stretch"),
    ((101, 42), (56, 42), "crop"),
    ((101, 75), (56, 42), "none"),
    ((64, 56), (56, 42), "none"),
    ((640, 360), (126, 70), "none"),
    ((640, 360), (126, 126), "crop"),
    ((640, 360), (126, 126), "pad"),
    ((1, 9), (14, 14), "stretch"),
    ((301, 1), (14, 14), "pad"),
    ((2, 3), (14, 14), "crop"),
    *[
        (source, engine, "published")
        for source, engine in [
            ((56, 42), (56, 42)),
            ((37, 23), (56, 28)),
            ((640, 360), (126, 70)),
            ((23, 37), (56, 56)),  # of 84 rows the middle 56
            ((33, 250), (28, 28)),
            ((28, 41), (28, 28)),
            ((28, 84), (28, 28)),  # nothing is scaled
            ((29, 28), (28, 28)),
        ]
    ],
    *itertools.product(
        [(56, 42), (37, 23), (23, 37), (120, 130), (129, 77), (25, 160), (56, 56)], [(56, 56)], ["published-pad"]
    ),
    *[
        (source, engine, "published-da3")
        for source, engine in [
            ((56, 42), (56, 42)),  # nothing is scaled
            ((112, 84), (56, 42)),  # blocks of two by two
            ((168, 126), (56, 42)),  # of three by three
            ((112, 70), (56, 42)),  # 35 rows, a tie of 28 and 42
            ((100, 75), (56, 42)),
            ((129, 77), (56, 28)),
            ((23, 37), (42, 56)),  # grows: a row of 105 numbers, and then of 126
            ((11, 90), (14, 98)),
            ((640, 480), (504, 378)),
            ((40, 31), (504, 392)),
        ]
    ],
]
FORMATS = ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"]


def fit():
    """`page4d_engines.clip.fit.Fit`, with Pillow's resize in it."""
    images, masks, cameras = [], [], []
    for number, (source, engine, mode) in enumerate(FITS):
        case = {"source": source, "engine": engine, "mode": mode, "seed": number}
        fitted = fitting(source, engine, mode)
        picked = picture(*source, number)
        layout = FORMATS[number % len(FORMATS)]
        image = Image.fromarray(picked[..., 0] if layout == "mono8" else picked)
        result = fitted.image(image)
        spare = (0, 5)[number // 5 % 2]
        images.append({**case, "format": layout, "spare": spare, "crc32": zlib.crc32(result.tobytes())})
        if result.size <= 600:
            images[-1]["hex"] = result.tobytes().hex()
        masks.append(
            {
                **case,
                "spare": 7 - spare,
                "mean": fitted.patch_mean(np.ascontiguousarray(picked[..., 0])).ravel().tolist(),
            }
        )
        camera = rig()[number % 3].resized(source[0] / 640, source[1] / 480, 0, 0, *source)
        cameras.append({**case, "camera": camera.to_mapping(), "fitted": fitted.camera(camera).to_mapping()})
    refused = []
    for source, engine in (
        ((100, 60), (56, 56)),
        ((60, 100), (56, 56)),
        ((1, 1), (28, 14)),
        ((63, 56), (56, 42)),
        ((0, 5), (14, 14)),
        ((7, -1), (14, 14)),
    ):
        refused.append(
            {"source": source, "engine": engine, "mode": "none", "text": refusal(fitting, source, engine, "none")}
        )
    for source, engine, mode in (
        ((56, 42), (56, 56), "published"),
        ((23, 37), (56, 84), "published"),
        ((56, 42), (56, 42), "published-pad"),
        ((250, 20), (56, 56), "published"),
        ((250, 20), (56, 56), "published-pad"),
        ((2, 250), (14, 14), "published"),
        ((2, 250), (14, 14), "published-pad"),
        ((2**31 - 1, 1), (14, 14), "published-pad"),
        ((1, 2**31 - 1), (65534, 65534), "published"),
        ((640, 480), (518, 518), "published-da3"),
        ((2000, 10), (504, 14), "published-da3"),
    ):
        refused.append(
            {"source": source, "engine": engine, "mode": mode, "text": refusal(fitting, source, engine, mode)}
        )
    other = fitting((56, 42), (28, 28), "crop")
    wrong = {
        "source": (56, 42),
        "engine": (28, 28),
        "mode": "crop",
        "camera": rig()[0].to_mapping(),
        "text": refusal(other.camera, rig()[0]),
    }
    about = (
        IMAGES
        + "\nSizes are width, height. spare: bytes between rows, 170 each. crc32 and hex: of the fitted RGB image."
        " mean: of single-channel images. Camera formats: tests/vectors/clip/camera_formats.py; rgb: crc32 of the RGB."
    )
    return {
        "about": about,
        "images": images,
        "camera_formats": camera_formats(fitting),
        "masks": masks[::2],
        "cameras": cameras[::7],
        "refused": refused,
        "refused_camera": wrong,
    }


def numbers(values):
    """A list of rows from one where null stands for NaN."""
    return [[math.nan if value is None else value for value in row] for row in values]


def fundamentals():
    """`page4d.cameras`: fundamental matrices, and what is refused."""
    good = rig()[1].to_mapping()
    pose, K = good["world_to_camera"], good["K"]
    changed = {
        "cam0": {"K": [[None, *K[0][1:]], *K[1:]]},
        "1": {"world_to_camera": [*pose[:2], [*pose[2][:3], None]]},
        "left": {"world_to_camera": [pose[1], pose[0], pose[2]]},
        "right": {"world_to_camera": [[1.5, 1e-7, -3, 0], [0.00005, 1, 0, 0], [1e20, -0.0, 12345.678912, 0]]},
        "3": {"K": [[-500.0, 0, 320], [0, 500, 240], [0, 0, 1]]},
        "4": {"K": [[500.0, 0, 320], [0, 0.0, 240], [0, 0, 1]]},
        "a b": {"K": [[1e22, 1e-5, 320.1], [0, 123456789012345680.0, 1234567890123456.0], [0, 0, 0]]},
    }
    refused = []
    for name, values in changed.items():
        camera = {**good, **values}
        values_read = {**camera, "K": numbers(camera["K"]), "world_to_camera": numbers(camera["world_to_camera"])}
        refused.append({"name": name, "camera": camera, "text": refusal(Camera.from_mapping, name, values_read)})
    about = "fundamental: [V,V,3,3] of the cameras. refused: null stands for NaN."
    return {
        "about": about,
        "cameras": [camera.to_mapping() for camera in rig()],
        "fundamental": fundamental(rig()).tolist(),
        "refused": refused,
    }


def poses():
    """`page4d.network.poses`: cameras of both encodings, intrinsics, points in the world."""
    rows, quaternions = row_cameras(), quaternion_cameras()
    return {
        "about": "row_numbers: float32 [n,12], quaternion_numbers: float32 [n,9]; null stands for NaN."
        " pose: [n,4,4], null for one that is NaN throughout. K: [n,3,3], of images of H x W pixels."
        " world: float32 depth [H,W] or points [n,3], with pose and K; world_points: [..,3]."
        " refused: outputs that there are, the frame of points, and what points in the world are wanted from.",
        "row_numbers": plain(rows),
        "row_pose": plain(camera_to_world(rows)),
        "quaternion_numbers": plain(quaternions),
        "quaternion_pose": plain(camera_to_world(quaternions)),
        "quaternion_pose_to_world": plain(camera_to_world(quaternions, PoseDirection.CAMERA_TO_WORLD)),
        "H": 56,
        "W": 70,
        "K": plain(intrinsics(quaternions, 56, 70)),
        "world": list(world_cases()),
        "refused": list(refused_sources()),
    }


def row_cameras():
    """float32 `[n,12]`; no rows of rank 1, of which no rotation is the nearest."""
    cases = []
    for number in range(12):
        rotation = turned(0.3 * number, 1.1 - 0.5 * number, 0.2 * number)
        wobble = 0.05 * (number % 4) * np.sin(np.arange(9) * (number + 1.0)).reshape(3, 3)
        scale = np.array([1, 10.0**-number, 3])[:, None]
        cases.append([0.1 * number, -number, 1e3 * number, *((rotation + wobble) * scale * (-1) ** number).ravel()])
    cases += [
        [1, 2, 3, 1, 0, 0, 1, 0, 0, 0, 1, 0],  # two rows alike
        [1, 2, 3, 0, 0, 2, 0, 0, 0, 0, 1, 0],  # a row of zeros
        [1, 2, 3, 1e30, 2e30, -1e30, 1e-30, 1e-30, 0, 3, -1, 1],
        [1, None, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        [1, 2, 3, 1, 0, 0, 0, 1, 0, 0, 0, None],
    ]
    return np.array(numbers(cases), np.float32)


def quaternion_cameras():
    """float32 `[n,9]`: quaternions of any length, fields of view that are a camera's, and such as are none."""
    wave = np.sin(np.arange(12 * 9) * 1.7).reshape(12, 9)
    wave[:, 3:7] *= 10.0 ** (np.arange(12)[:, None] - 6)
    wave[:, 7:] = 0.1 + 1.4 * np.abs(wave[:, 7:])
    edges = [
        [0, 0, 0, 0, 0, 0, 1, 1, 1],
        [1, 2, 3, 0, 0, 0, 0, 1, 1],  # a quaternion of length 0
        [1, 2, 3, 0, 0, 0, 1e-38, 1, 1],
        [1, None, 3, 0, 0, 0, 1, 1, 1],
        [1, 2, 3, 0, None, 0, 1, 1, 1],
        [1, 2, 3, 0, 0, 0, 1, None, 1],
        [1, 2, 3, 0, 1, 0, 1, 0, 1],  # a field of view that the head's ReLU cut off
        [1, 2, 3, 0, 1, 0, 1, 1, -1],
        [1, 2, 3, 0, 1, 0, 1, 3.1415925, 3.1415927],  # of float32, the last below pi and the first above
        [1, 2, 3, 0, 1, 0, 1, 1e-30, 4],
    ]
    return np.concatenate((wave, numbers(edges))).astype(np.float32)


def world_cases():
    """Depth and points with a pose, and without one."""
    H, W = 3, 5
    depth = (1.5 + np.cos(np.arange(H * W) * 0.9)).reshape(H, W).astype(np.float32)
    points = np.sin(np.arange(H * W * 3) * 1.3).reshape(H * W, 3).astype(np.float32)
    cameras = quaternion_cameras()
    for number in (0, 7, 11, 13, 18):
        pose, K = camera_to_world(cameras[number]), intrinsics(cameras[number], H, W)
        world = to_world(unproject(depth, K), pose)
        yield {"depth": plain(depth), "K": plain(K), "pose": plain(pose), "world_points": plain(world)}
        world = to_world(points[None], pose)[0]
        yield {"points": plain(points), "pose": plain(pose), "world_points": plain(world)}


def refused_sources():
    """What points in the world cannot be made from, for every choice of outputs, frames and sources."""
    outputs = ("camera", "intrinsics", "depth", "points")
    for count, frame, source in itertools.product(range(len(outputs)), PointsFrame, (None, "depth", "points")):
        for fields in itertools.combinations(outputs, count):
            try:
                points_source(fields, frame, source)
            except UsageError as error:
                yield {"outputs": fields, "frame": str(frame), "source": source, "text": str(error)}


FILES = {
    "fit": fit,
    "fundamental": fundamentals,
    "known_cameras": known_cameras,
    "manifests": manifests,
    "plans": plans,
    "poses": poses,
    "published_plans": published_plans,
    "reference_view": reference_views,
}


def text_of(data):
    """JSON with a line for each entry of each list at the top."""
    lines = []
    for key, value in data.items():
        entries = [json.dumps(entry, allow_nan=False) for entry in value] if isinstance(value, list) else None
        lines.append(
            f"{json.dumps(key)}: "
            + (json.dumps(value, allow_nan=False) if entries is None else "[\n" + ",\n".join(entries) + "\n]")
        )
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    for name, make in FILES.items():
        (FOLDER / f"{name}.json").write_text(text_of(make()))
