"""A recording for rerun: cameras, photos, depth, masks and points of a run on a timeline."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from page4d.errors import MissingBackendError, UsageError
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.scene.cloud_options import DYNAMIC
from page4d_engines.results.viewer.shown_points import ShownPoints, Thinning
from page4d_engines.results.viewer.shown_scene import up_of

if TYPE_CHECKING:
    import rerun

SUFFIX, TIMELINE = ".rrd", "timestep"

_MAGIC = b"RRF"  # what the recordings of all versions begin with
_STATIC, _DYNAMIC = 0, 1  # classes of a mask's pixels
_QUALITY = 90  # of the photos' JPEG
Tell = Callable[[str], None]


def require_rerun() -> None:
    """Raise where recordings cannot be written.

    Raises:
        MissingBackendError: rerun-sdk is not installed.
    """
    try:
        import rerun  # noqa: F401
    except ImportError as error:
        raise MissingBackendError(
            "recordings for rerun are written by rerun-sdk, which is not installed",
            got=f"no module {error.name}",
            hint='pip install "page4d[rerun]"',
        ) from None


def refuse_rerun_file(path: pathlib.Path, out: pathlib.Path) -> None:
    """Raise unless a recording of a run may be written to a path: it is new, or an earlier recording.

    Args:
        path: of the recording.
        out: the run's output folder, which holds a run and nothing else.

    Raises:
        UsageError: it has another suffix, lies in no folder or in the run's, cannot be written, or something else would
            be replaced.
    """
    if path.suffix != SUFFIX:
        raise UsageError("a recording for rerun has another suffix", got=path, allowed=f"a name that ends in {SUFFIX}")
    if not path.parent.is_dir():
        raise UsageError("--rerun lies in a folder that does not exist", got=path, hint=f"mkdir -p {path.parent}")
    if path.resolve().is_relative_to(out.resolve()):
        allowed = "a place outside: page4d-run would not replace a folder that holds more than a run"
        raise UsageError("--rerun lies in the run's folder", got=path, allowed=allowed)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError("--rerun cannot be written", got=path, allowed="a folder that you may write to")
    if os.path.lexists(path) and not _is_recording(path):
        raise UsageError("--rerun names something that is no recording, and it would be replaced", got=path)


def _is_recording(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def write_rerun(path: pathlib.Path, scenes: list[Scene], max_points: int, tell: Tell = lambda name: None) -> None:
    """Write a recording, whole or not at all.

    Of several scenes each has an entity of its name above its own. Static points have no time; dynamic ones, cameras,
    photos, depth and masks are on the timeline `timestep`.

    Args:
        path: of the file, checked before.
        scenes: of a run; read image by image.
        max_points: of all clouds together.
        tell: is called with the name of every image.

    Raises:
        MissingBackendError: rerun-sdk is not installed.
        UsageError: a photo or a window's file is gone or damaged.
    """
    require_rerun()
    import rerun

    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=SUFFIX)
    os.close(handle)
    try:
        stream = rerun.RecordingStream("page4d")
        stream.save(temporary)
        try:
            for scene in scenes:
                _log_scene(stream, scene, max(1, max_points // len(scenes)), tell)
        finally:
            stream.flush()
            stream.disconnect()
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _log_scene(stream: rerun.RecordingStream, scene: Scene, max_points: int, tell: Tell) -> None:
    import rerun

    root = ["world", *([scene.name] if scene.name else [])]
    classes = [(_STATIC, "static", (60, 60, 70)), (_DYNAMIC, "dynamic", (240, 112, 60))]
    stream.log(rerun.new_entity_path(root), rerun.AnnotationContext(classes), static=True)
    thinning, poses = Thinning(max_points), []
    for image in scene.images():
        stream.set_time(TIMELINE, sequence=image.t)
        _log_image(stream, root, image, scene.unit)
        thinning.add(ShownPoints.of(image))
        poses.append(image.calibration.camera_to_world)
        tell(image.name)
    known = [pose for pose in poses if np.isfinite(pose).all()]
    axes = _view_coordinates(up_of(np.array(known).reshape(-1, 4, 4)))
    stream.log(rerun.new_entity_path(root), axes, static=True)
    _log_points(stream, root, thinning.points())


def _log_image(stream: rerun.RecordingStream, root: list[str], image: PosedImage, unit: LengthUnit | None) -> None:
    import rerun

    place = [*root, "cameras", image.camera_name]
    camera = image.fit.camera(image.calibration.camera)
    pose = image.calibration.camera_to_world
    if np.isfinite(pose).all():
        turn = rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3])
        stream.log(rerun.new_entity_path(place), turn)
    else:  # the pose of the timestep before would stay
        stream.log(rerun.new_entity_path(place), rerun.Clear(recursive=False))
    if np.isfinite(camera.K).all():
        size = [camera.width, camera.height]
        pinhole = rerun.Pinhole(image_from_camera=camera.K, resolution=size, camera_xyz=rerun.ViewCoordinates.RDF)
        stream.log(rerun.new_entity_path(place), pinhole)
    photo = rerun.Image(image.pixels).compress(jpeg_quality=_QUALITY)
    stream.log(rerun.new_entity_path([*place, "photo"]), photo)
    if image.depth is not None:
        depth = np.nan_to_num(image.depth, nan=0.0, posinf=0.0, neginf=0.0)
        metre = 1.0 if unit is LengthUnit.METRES else None
        stream.log(rerun.new_entity_path([*place, "depth"]), rerun.DepthImage(depth, meter=metre))
    if image.mask is not None:
        moving = np.where(image.mask >= DYNAMIC, _DYNAMIC, _STATIC).astype(np.uint8)
        stream.log(rerun.new_entity_path([*place, "mask"]), rerun.SegmentationImage(moving))


def _log_points(stream: rerun.RecordingStream, root: list[str], points: ShownPoints) -> None:
    import rerun

    def cloud(part: ShownPoints) -> rerun.Points3D:
        return rerun.Points3D(part.points, colors=part.colours)

    static = points.chosen(~points.dynamic)
    stream.log(rerun.new_entity_path([*root, "points", "static"]), cloud(static), static=True)
    moving = points.chosen(points.dynamic)
    if not len(moving):
        return
    for t in np.unique(points.t).tolist():  # one that has none, too: the points of the one before would stay
        stream.set_time(TIMELINE, sequence=t)
        stream.log(rerun.new_entity_path([*root, "points", "dynamic"]), cloud(moving.chosen(moving.t == t)))


def _view_coordinates(up: NDArray[np.float64]) -> Any:
    """The axis of the world that is nearest to up, for rerun's view."""
    import rerun

    axis = int(np.abs(up).argmax())
    return getattr(rerun.ViewCoordinates, f"RIGHT_HAND_{'XYZ'[axis]}_{'UP' if up[axis] > 0 else 'DOWN'}")
