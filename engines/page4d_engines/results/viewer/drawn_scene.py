"""`DrawnScene`: a scene in viser: nodes for its points, its cameras, and what of them is visible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import viser
import viser.transforms
from numpy.typing import NDArray

from page4d_engines.results.scene.cloud_view import CAMERA
from page4d_engines.results.viewer.colouring import Colour, Coloured
from page4d_engines.results.viewer.shown_image import ShownImage
from page4d_engines.results.viewer.shown_points import ShownPoints
from page4d_engines.results.viewer.shown_scene import ShownScene

_SHARE, _SPACING = 0.12, 0.5  # of a frustum's length: per distance of what cameras see, and per distance between two
_FOV = math.pi / 3  # radians; of a camera whose focal length is not known
_OTHERS = (92, 128, 148)
"""Colour of the cameras of other timesteps."""
_CORNERS = np.array([[0, 0, 0], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], np.float64)
_EDGES = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])


@dataclass(frozen=True)
class Look:
    """What is drawn, and how.

    Attributes:
        colour: what points are coloured by.
        percent: how many of a scene's points are hidden, those of least confidence; 0 to 100.
        size: of a point, as a multiple of what leaves no gaps.
        static: whether points that do not move are drawn.
        dynamic: whether points that move are.
        all_times: whether static points of all timesteps are drawn, or of the chosen one alone.
        cameras: whether cameras of the chosen timestep are drawn.
        names: whether their names are.
        all_cameras: whether those of all timesteps are.
    """

    colour: Colour = Colour.PHOTO
    percent: float = 0.0
    size: float = 1.0
    static: bool = True
    dynamic: bool = True
    all_times: bool = True
    cameras: bool = True
    names: bool = True
    all_cameras: bool = False


class DrawnScene:
    """A scene's nodes in a server, below a name of their own.

    Args:
        server: viser's.
        scene: what is drawn.
        root: name of the node above all of the scene's: `/scene0`.
    """

    def __init__(self, server: viser.ViserServer, scene: ShownScene, root: str) -> None:
        self.scene, self._server, self._root = scene, server, root
        self._points: dict[tuple[str, int], viser.PointCloudHandle] = {}
        self._cameras: dict[int, tuple[viser.CameraFrustumHandle, viser.LabelHandle]] = {}
        self.eyes = np.zeros((0, 3))
        """Where the browsers look from, `[n,3]`."""
        self._all_cameras: viser.LineSegmentsHandle | None = None
        self._frustum = _frustum_size(scene)
        self._shown: int | None = None

    def fill(self, look: Look) -> Coloured:
        """Send the points that are sure enough, in their colours; gives these, of all of the scene's points."""
        points, threshold = self.scene.points, self.threshold(look.percent)
        coloured = Coloured.by(look.colour, points, self.scene.unit)
        sure = np.ones(len(points), np.bool_) if threshold is None else ~(points.confidence < threshold)
        for t in self.scene.times:
            for kind, of_kind in (("static", ~points.dynamic), ("dynamic", points.dynamic)):
                chosen = np.flatnonzero(sure & of_kind & (points.t == t))
                self._place(kind, t, points.chosen(chosen), coloured.colours[chosen], look)
        return coloured

    def threshold(self, percent: float) -> float | None:
        """The least confidence of a point that is drawn; None: all are."""
        confidence = self.scene.points.confidence
        known = confidence[np.isfinite(confidence)]
        return None if not percent or not known.size else float(np.percentile(known, percent))

    def resize(self, look: Look) -> None:
        """Give all points another size."""
        for handle in self._points.values():
            handle.point_size = look.size * self.scene.point_size

    def show(self, look: Look, t: int | None) -> None:
        """Make visible what belongs to a timestep; None: nothing of this scene."""
        for (kind, time), handle in self._points.items():
            at_time = time == t or (kind == "static" and look.all_times)
            handle.visible = t is not None and at_time and (look.static if kind == "static" else look.dynamic)
        images = [image for image in self.scene.posed if image.t == t]
        if t is not None and t != self._shown:
            self._place_cameras(images)
        self._shown = t
        self.show_cameras(look)

    def _place(self, kind: str, t: int, points: ShownPoints, colours: NDArray[np.uint8], look: Look) -> None:
        before = self._points.pop((kind, t), None)
        visible = True if before is None else before.visible
        if not len(points):
            if before is not None:
                before.remove()
            return
        self._points[kind, t] = self._server.scene.add_point_cloud(
            f"{self._root}/{kind}/{t}",
            points.points,
            colours,
            point_size=look.size * self.scene.point_size,
            point_shape="square",
            point_shading="flat",  # the photo's own colours
            precision="float32",  # halves leave steps of a thousandth, which are seen
            visible=visible,
        )

    def show_cameras(self, look: Look) -> None:
        """Make cameras and names of the shown timestep visible, but not those that a browser looks from."""
        is_shown = self._shown is not None
        for image in self.scene.posed:
            if image.t != self._shown or image.pose is None:
                continue
            near = np.linalg.norm(self.eyes - image.pose[:3, 3], axis=1) < self._frustum
            frustum, name = self._cameras[image.v]
            frustum.visible = look.cameras and not near.any()
            name.visible = frustum.visible and look.names
        for v in self._cameras.keys() - {image.v for image in self.scene.posed if image.t == self._shown}:
            for handle in self._cameras[v]:
                handle.visible = False
        if look.all_cameras and is_shown and self._all_cameras is None:
            self._all_cameras = self._placed_wireframes()
        if self._all_cameras is not None:
            self._all_cameras.visible = look.all_cameras and is_shown

    def _place_cameras(self, images: list[ShownImage]) -> None:
        """The frusta of one timestep; those of the one before have the same names, and are replaced."""
        for image in images:
            assert image.pose is not None
            wxyz, position = quaternion(image.pose), image.pose[:3, 3]
            frustum = self._server.scene.add_camera_frustum(
                f"{self._root}/cameras/{image.v}",
                image.fov or _FOV,
                image.aspect,
                scale=self._frustum * _viser_scale(image),
                thickness=2.0,
                thickness_units="screen",
                color=CAMERA,
                image=image.photo(),
                format="jpeg",
                wxyz=wxyz,
                position=position,
                cast_shadow=False,
                receive_shadow=False,
            )
            over = _pyramid(image, self._frustum)[1:3].mean(0) + 0.06 * self._frustum * self.scene.up
            label = self._server.scene.add_label(
                f"{self._root}/names/{image.v}",
                image.camera_name,
                position=over,
                anchor="bottom-center",
            )
            self._cameras[image.v] = (frustum, label)

    def _placed_wireframes(self) -> viser.LineSegmentsHandle | None:
        images = self.scene.posed
        if not images:
            return None
        corners = np.stack([_pyramid(image, 0.5 * self._frustum) for image in images])
        lines = corners[:, _EDGES].reshape(-1, 2, 3).astype(np.float32)
        return self._server.scene.add_line_segments(
            f"{self._root}/all_cameras", lines, _OTHERS, thickness=1.0, thickness_units="screen"
        )


def quaternion(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation of a pose `[4,4]`, as w, x, y, z."""
    return np.asarray(viser.transforms.SO3.from_matrix(pose[:3, :3]).wxyz)


def _pyramid(image: ShownImage, size: float) -> NDArray[np.float64]:
    """The place of a camera and the corners of what it sees at a distance, the upper ones first, `[5,3]`."""
    assert image.pose is not None
    half = math.tan((image.fov or _FOV) / 2)
    corners: NDArray[np.float64] = size * _CORNERS * [half * image.aspect, half, 1]
    return corners @ image.pose[:3, :3].T + image.pose[:3, 3]


def _viser_scale(image: ShownImage) -> float:
    """What viser is to be told for a frustum of length 1: it gives all frusta one volume."""
    half = math.tan((image.fov or _FOV) / 2)
    return (half * half * image.aspect / 3) ** (1 / 3)


def _frustum_size(scene: ShownScene) -> float:
    """Of all frusta: large enough to see the photos, small enough to leave a gap between two cameras."""
    distances = [image.distance for image in scene.posed if math.isfinite(image.distance)]
    size = _SHARE * (float(np.median(distances)) if distances else scene.extent)
    first = min(scene.times, default=0)
    centres = np.array([image.pose[:3, 3] for image in scene.posed if image.pose is not None and image.t == first])
    if len(centres) > 1:
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
        nearest = np.median(np.where(apart > 0, apart, np.inf).min(1))
        size = min(size, _SPACING * float(nearest))
    return max(size, 1e-3 * scene.extent)
