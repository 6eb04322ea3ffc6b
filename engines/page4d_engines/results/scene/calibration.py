"""`Calibration`: a camera's pose and intrinsics, the network's own or fitted to its points; and `cameras.json`."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d.files import write_atomically
from page4d.network.poses import world_to_camera
from page4d_engines.clip.fit import Fit
from page4d_engines.results.scene.confidence import probability
from page4d_engines.results.world.similarity import Similarity

_FEWEST = 16  # pixels; of fewer, chance makes a focal length
_PARALLEL = 1e-9  # per pixel; rays closer together than this have no perspective
_ROUNDS, _OUTLYING = 3, 3.0  # refits, and how many robust standard deviations a pixel may be off to take part in one


@dataclass(frozen=True)
class Calibration:
    """A camera as the network's points and pose have it.

    Attributes:
        camera: of the source image, in its pixels; the principal point is the middle of the engine's image. A focal
            length is NaN where the network gave no field of view.
        camera_to_world: float64 `[4,4]`; NaN where the network gave no pose, and then the camera's is, too.
        fitted: whether the focal lengths come from the points; if not, they are a guess, the larger side of the
            engine's image. None: they are the network's own.
        residual: root mean square distance between a pixel and where the fitted camera sees its point, in pixels of the
            source, over the pixels that took part in the last round of the fit; NaN where not fitted.
    """

    camera: Camera
    camera_to_world: NDArray[np.float64]
    fitted: bool | None
    residual: float

    @classmethod
    def given(cls, K: NDArray[np.float64], camera: NDArray[np.float64], fit: Fit) -> Calibration:
        """Of intrinsics `[3,3]` that the network gave, in pixels of the engine's image, and a pose `[4,4]`."""
        return cls._of(K, camera, fit, None, math.nan)

    def moved(self, world: Similarity) -> Calibration:
        """The same camera in the world that `world` leads to."""
        pose = world.of_pose(self.camera_to_world)
        with np.errstate(invalid="ignore", over="ignore"):
            camera = dataclasses.replace(self.camera, world_to_camera=world_to_camera(pose))
        return dataclasses.replace(self, camera=camera, camera_to_world=pose)

    @classmethod
    def _of(
        cls, K: NDArray[np.float64], camera: NDArray[np.float64], fit: Fit, fitted: bool | None, residual: float
    ) -> Calibration:
        with np.errstate(invalid="ignore", over="ignore"):
            pose = world_to_camera(camera)
        source = fit.source_camera(Camera(fit.layout.W, fit.layout.H, K, pose))
        return cls(source, camera, fitted, residual)


def calibrate(
    points: NDArray[np.floating], confidence: NDArray[np.floating], camera: NDArray[np.float64], fit: Fit
) -> Calibration:
    """Fit a pinhole camera to one image's points.

    Args:
        points: `[H,W,3]`, each pixel's point in the camera's frame (x right, y down, z forward), of the engine's image.
        confidence: `[H,W]`, logits; the weights of the fit are their probabilities.
        camera: `[4,4]`, camera to world.
        fit: how the source image came to the engine's. Pixels that show nothing of the source take no part.

    Raises:
        UsageError: the shapes are not the engine's.
    """
    H, W = fit.layout.H, fit.layout.W
    if points.shape != (H, W, 3) or confidence.shape != (H, W) or camera.shape != (4, 4):
        raise UsageError(
            "points, confidence and camera cannot be calibrated",
            got=f"{list(points.shape)} {list(confidence.shape)} {list(camera.shape)}",
            allowed=f"[{H},{W},3] [{H},{W}] [4,4]",
        )
    usable = fit.shown & np.isfinite(points).all(-1) & (points[..., 2] > 0) & ~np.isnan(confidence)
    rows, columns = np.nonzero(usable)
    seen: NDArray[np.float64] = points[usable].astype(np.float64)
    with np.errstate(over="ignore"):
        slopes = seen[:, :2] / seen[:, 2:]
    # clipped: all of them 0 would be no weights
    weights = probability(confidence[usable].clip(-30, 30)).astype(np.float64)

    across = _focal(columns + 0.5 - W / 2, slopes[:, 0], weights)
    down = _focal(rows + 0.5 - H / 2, slopes[:, 1], weights)
    fitted = across is not None and down is not None
    if across is None or down is None:
        across = down = (max(H, W), math.nan)
    (fx, off_x), (fy, off_y) = across, down
    K = np.array([[fx, 0.0, W / 2], [0.0, fy, H / 2], [0.0, 0.0, 1.0]])
    residual = math.hypot(off_x / fit.scale[0], off_y / fit.scale[1])
    return Calibration._of(K, camera, fit, fitted, residual)


def write_calibration(
    path: pathlib.Path, calibrations: Mapping[str, Calibration], in_metres: bool = False
) -> list[str]:
    """Write `cameras.json` as `page4d.cameras.read_cameras` reads it, whole or not at all.

    Each entry also has `camera_to_world` (4x4), and where K is not the network's own `fitted` and `residual` (null
    where nothing was fitted), and `unit`, "metres", where lengths are in metres. A camera without a pose or a focal
    length has no place in the file.

    Returns:
        The names of the cameras that were left out: what they have for a pose is not finite, or no rotation, or the
        focal lengths are no numbers of pixels.
    """
    content, left_out = {}, []
    for name, calibration in calibrations.items():
        entry = calibration.camera.to_mapping()
        try:
            Camera.from_mapping(name, entry)
        except UsageError:
            left_out.append(name)
            continue
        content[name] = {**entry, "camera_to_world": calibration.camera_to_world.tolist()}
        if in_metres:
            content[name]["unit"] = "metres"
        if calibration.fitted is not None:
            residual = calibration.residual if math.isfinite(calibration.residual) else None
            content[name] |= {"fitted": calibration.fitted, "residual": residual}
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return left_out


def _focal(
    offset: NDArray[np.floating], slope: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float] | None:
    """The focal length f of offset = f * slope along one axis, and the fit's root mean square error, in pixels.

    None where no focal length fits.

    The errors are in the slopes, x/z of a network's points, and the offsets, where pixels are, are exact: so it is the
    slopes that are regressed on the offsets, to get 1/f. (The other way round, noise would flatten the fit, and one
    wild slope outweigh all others.) A weighted median starts the fit, which half of the pixels could be wrong for;
    least squares over those that agree refine it.
    """
    usable = np.isfinite(slope) & (offset != 0)
    offset, slope, weights = offset[usable], slope[usable], weights[usable]
    if offset.size < _FEWEST:
        return None
    # the least absolute deviations of a line through the origin
    inverse = _weighted_median(slope / offset, weights * np.abs(offset))
    error = 0.0
    for _ in range(_ROUNDS):
        if not inverse > _PARALLEL:
            return None
        off = np.abs(slope - inverse * offset)
        agreeing = off <= _OUTLYING * 1.4826 * float(np.median(off))
        some, weight = offset[agreeing], weights[agreeing]
        inverse = float((weight * some * slope[agreeing]).sum() / (weight * some * some).sum())
        if not inverse > _PARALLEL:
            return None
        error = float(np.sqrt((weight * (slope[agreeing] / inverse - some) ** 2).sum() / weight.sum()))
        explained = float(np.sqrt((weight * some * some).sum() / weight.sum()))
        if not error < explained:  # no camera of any focal length sees such points
            return None
    return 1 / inverse, error


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
