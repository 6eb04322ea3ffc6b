"""`write_glb`: a scene's cloud and cameras as one GLB file, for Blender and for viewers in a browser."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.network.poses import quaternion
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.formats.glb_file import LINES, POINTS, GlbFile
from page4d_engines.results.formats.scene_parts import at_most, has_camera
from page4d_engines.results.formats.written import Written
from page4d_engines.results.scene.calibration import Calibration

GLB = "scene.glb"
MOST_POINTS = 1_000_000
"""Where `--max-points` does not say: viewers in a browser become slow beyond it."""

_FLIP = np.diag([1.0, -1.0, -1.0])  # y down, z forward (OpenCV's) to y up, z backward (glTF's), and back
_FRUSTUM = 0.08  # its depth, as a share of the scene's
_LEAST_UP = 0.1  # length of the mean of unit vectors; of a shorter one the direction says nothing
_APART = 0.01  # how far x axes must turn from each other to say what is square to them, as a variance: 6 degrees
# pairs of its vertices; written vertex by vertex, since some readers do not look at the indices of lines
_EDGES = np.array([0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1, 1, 5, 5, 2])
_COLOURS = ((0.9, 0.2, 0.1), (0.1, 0.5, 0.9), (0.2, 0.7, 0.1), (0.9, 0.6, 0.0), (0.6, 0.2, 0.8), (0.0, 0.7, 0.7))


def write_glb(folder: pathlib.Path, scene: Scene) -> Written:
    """Write `scene.glb`: a node `scene` with a node `cloud` and a node per image that has a camera, named as it.

    Vertices have the scene's own coordinates. The node `scene` turns them so that y is up, as glTF has it, and the
    first camera looks along -z: see `up_turn`. An image's node has its camera's pose, its frustum as lines, and a child
    with a glTF camera. Memory: a window of the scene, and 60 bytes a point, at most `MOST_POINTS` where the scene's
    options do not say how many.

    Args:
        folder: an existing one.
        scene: is read once, or twice where its points are thinned out.

    Raises:
        UsageError: a photo or a window's file is gone or damaged.
    """
    cloud = _Cloud.of(at_most(scene, MOST_POINTS))
    file = GlbFile()
    children = []
    if cloud.count:
        material = _unlit(file, "cloud", (1.0, 1.0, 1.0))
        attributes = {"POSITION": file.positions(cloud.places), "COLOR_0": file.colours(cloud.colours)}
        primitive = {"attributes": attributes, "mode": POINTS, "material": material}
        file.meshes.append({"name": "cloud", "primitives": [primitive]})
        children.append(_add_node(file, name="cloud", mesh=len(file.meshes) - 1))
    children += _add_cameras(file, cloud.cameras, _FRUSTUM * cloud.depth)
    turn = up_turn([camera.calibration.camera_to_world for camera in cloud.cameras])
    root = _add_node(file, name="scene", rotation=quaternion(turn).tolist(), children=children)
    if not children:
        del file.nodes[root]["children"]
    path = folder / GLB
    file.write(path, [root], "page4d")
    return Written([path])


def up_turn(poses: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The rotation `[3,3]` from a world to one with y up, in which the first camera looks along -z, if up allows.

    Cameras are held level: up is the direction that is square to all of their x axes, where these differ, else the mean
    of their own up.

    Args:
        poses: camera to world, `[4,4]` each; without any, the world is taken for a camera's frame: y down, z forward.
    """
    if not poses:
        return _FLIP
    rotations = np.stack([pose[:3, :3] for pose in poses])
    first, up = rotations[0], -rotations[:, :, 1].mean(0)
    if np.linalg.norm(up) < _LEAST_UP:
        up = -first[:, 1]
    spread, axes = np.linalg.eigh(np.einsum("ni,nj->ij", rotations[:, :, 0], rotations[:, :, 0]) / len(poses))
    level = axes[:, 0] * np.sign(axes[:, 0] @ up)
    if spread[1] - spread[0] > _APART and level @ up > 0.5 * np.linalg.norm(up):
        up = level
    up = up / np.linalg.norm(up)
    right = np.cross(first[:, 2], up)
    if np.linalg.norm(right) < _LEAST_UP:  # it looks straight up or down
        right = first[:, 0] - (first[:, 0] @ up) * up
    right = right / np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])


@dataclass(frozen=True)
class _PosedCamera:
    """An image's camera: its name, view and calibration."""

    name: str
    view: int
    calibration: Calibration


@dataclass
class _Cloud:
    """The points of a scene, and its cameras.

    Attributes:
        cameras: of the images that have one.
    """

    cameras: list[_PosedCamera] = field(default_factory=list)
    _places: list[NDArray[np.float32]] = field(default_factory=list)
    _colours: list[NDArray[np.uint8]] = field(default_factory=list)
    _depths: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, scene: Scene) -> _Cloud:
        """Read a scene."""
        cloud = cls()
        for image in scene.images():
            cloud._add(image)
        return cloud

    def _add(self, image: PosedImage) -> None:
        self._places.append(image.points[image.kept])
        self._colours.append(image.pixels[image.kept])
        if has_camera(image):
            self.cameras.append(_PosedCamera(image.name, image.v, image.calibration))
            if image.depth is not None and image.kept.any():
                self._depths.append(float(np.median(image.depth[image.kept])))

    @property
    def count(self) -> int:
        """Points."""
        return sum(map(len, self._places))

    @property
    def places(self) -> NDArray[np.float32]:
        """`[n,3]`, in the world."""
        return np.concatenate(self._places)

    @property
    def colours(self) -> NDArray[np.uint8]:
        """`[n,3]`."""
        return np.concatenate(self._colours)

    @property
    def depth(self) -> float:
        """Of what a camera sees: the median over images of their medians, 1 where none is known."""
        depth = float(np.median(self._depths)) if self._depths else 1.0
        return depth if math.isfinite(depth) and depth > 0 else 1.0


def _add_cameras(file: GlbFile, cameras: Sequence[_PosedCamera], depth: float) -> list[int]:
    """Add a node for every camera, with a frustum so deep; their numbers."""
    if not cameras:
        return []
    views = sorted({camera.view for camera in cameras})
    materials = {view: _unlit(file, f"view {view}", _COLOURS[view % len(_COLOURS)]) for view in views}
    numbers = []
    for camera in cameras:
        attributes = {"POSITION": file.positions(_frustum(camera.calibration, depth)[_EDGES])}
        primitive = {"attributes": attributes, "mode": LINES, "material": materials[camera.view]}
        file.meshes.append({"name": f"{camera.name} frustum", "primitives": [primitive]})
        file.cameras.append(_perspective(camera, depth))
        lens = _add_node(file, name=f"{camera.name} camera", camera=len(file.cameras) - 1)
        pose = camera.calibration.camera_to_world
        turned = pose[:3, :3] @ _FLIP
        place = {"translation": pose[:3, 3].tolist(), "rotation": quaternion(turned).tolist()}
        mesh = len(file.meshes) - 1
        numbers.append(_add_node(file, name=camera.name, mesh=mesh, children=[lens], **place))
    return numbers


def _perspective(camera: _PosedCamera, depth: float) -> dict[str, Any]:
    """A glTF camera; these have their principal point in the middle of the image."""
    pinhole = camera.calibration.camera
    K, width, height = pinhole.K, pinhole.width, pinhole.height
    perspective = {
        "yfov": 2 * math.atan(height / (2 * float(K[1, 1]))),
        "aspectRatio": float(width / K[0, 0] * K[1, 1] / height),
        "znear": depth / 100,
    }
    return {"name": f"{camera.name} camera", "type": "perspective", "perspective": perspective}


def _frustum(calibration: Calibration, depth: float) -> NDArray[np.float32]:
    """The camera's centre, the photo's corners at a depth, and a mark above its upper edge: `[6,3]`, glTF's axes."""
    camera = calibration.camera
    width, height = camera.width, camera.height
    pixels = np.array(
        [(0, 0), (width, 0), (width, height), (0, height), (width / 2, -0.25 * height)],
        np.float64,
    )
    K = camera.K
    slopes = (pixels - K[:2, 2]) / (K[0, 0], K[1, 1])
    corners = np.concatenate([slopes, np.ones((len(slopes), 1))], 1) * depth
    return np.concatenate([np.zeros((1, 3)), corners @ _FLIP]).astype(np.float32)


def _unlit(file: GlbFile, name: str, colour: tuple[float, float, float]) -> int:
    """Add a material that shows its colour whatever the light is."""
    file.materials.append(
        {
            "name": name,
            "pbrMetallicRoughness": {"baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0},
            "extensions": {"KHR_materials_unlit": {}},
        }
    )
    return len(file.materials) - 1


def _add_node(file: GlbFile, **content: Any) -> int:
    file.nodes.append(content)
    return len(file.nodes) - 1
