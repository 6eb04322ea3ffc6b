"""`TruthClip`: the true cameras, depth and masks of a clip's photos, brought to the engine's pixels."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera, read_cameras
from page4d.errors import UsageError
from page4d_engines.clip.companions import by
from page4d_engines.clip.frame import Frame
from page4d_engines.clip.image_file import ImageFile
from page4d_engines.clip.listing import Listing, frames_of
from page4d_engines.clip.names import composed, readable
from page4d_engines.clip.search import TRUE_DEPTH
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.scores.reference import MOVES, ReferenceImage

CAMERAS, MASKS = "cameras.json", "masks"

_METRES = 1e-3  # of a step of a depth image


@dataclass(frozen=True)
class TruthClip:
    """A folder with `cameras.json`, `depth/` and `masks/`, or some of them.

    Attributes:
        path: of the folder.
        lacks: as `Reference.lacks`.
    """

    path: pathlib.Path
    lacks: dict[str, str]

    least_baseline = 1e-6

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TruthClip:
        """Of a clip, or of its folder `frames` or `images`.

        Raises:
            UsageError: there is no such folder, or it has no truth.
        """
        folder = pathlib.Path(path)
        if not folder.is_dir():
            raise UsageError("there is no such folder of a clip", got=folder, allowed=f"a folder with {_PARTS}")
        if folder.resolve().name in ("frames", "images") and not any((folder / part).exists() for part in _NAMES):
            folder = folder.resolve().parent
        missing = {part: not (folder / part).exists() for part in _NAMES}
        if all(missing.values()):
            raise UsageError("the clip has no truth to compare with", got=folder, allowed=_PARTS)
        lacks = {
            score: f"the truth has no {part}"
            for score, part in (("pose", CAMERAS), ("depth", f"{TRUE_DEPTH}/"), ("mask", f"{MASKS}/"))
            if missing[part.rstrip("/")]
        }
        if absent := [what for what in ("depth", "pose") if what in lacks]:
            lacks["cloud"] = lacks[absent[0]]
        return cls(folder, lacks)

    def paired(self, scene: Scene) -> Iterator[tuple[PosedImage, ReferenceImage]]:
        """As `Reference.paired`."""
        for image in scene:
            yield image, self.of(image)

    def of(self, image: PosedImage) -> ReferenceImage:
        """The truth of an image, at its pixels; nothing beside a padded photo.

        Raises:
            UsageError: the truth is of another size than the photo, or cannot be read.
        """
        camera, depth, mask = self._camera(image), self._depth(image), self._mask(image)
        pose = None
        points = None
        if camera is not None:
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = camera.world_to_camera[:, :3].T, camera.centre
        if camera is not None and depth is not None:
            columns, rows = _nearest(image)
            rays = np.stack([columns + 0.5, rows + 0.5, np.ones(rows.shape)], -1) @ np.linalg.inv(camera.K).T
            points = (rays * depth[..., None]) @ camera.world_to_camera[:, :3] + camera.centre
        return ReferenceImage(pose, depth, mask, points)

    def other_unit(self, unit: LengthUnit | None) -> str | None:
        """As `Reference.other_unit`."""
        return "the run's lengths are in a unit of its own, not in metres" if unit is None else None

    def _camera(self, image: PosedImage) -> Camera | None:
        names = (f"{image.camera_name}/{image.frame_name}", image.name, image.camera_name)
        key = next((composed(name) for name in names if composed(name) in self._cameras), None)
        if key is None:
            return None
        camera = self._cameras[key]
        _require_size(f"the true camera {key}", (camera.width, camera.height), image)
        return camera

    def _depth(self, image: PosedImage) -> NDArray[np.float64] | None:
        file = self._file(TRUE_DEPTH, image)
        if file is None:
            return None
        what = f"the true depth of {image.photo}"
        if not isinstance(file, ImageFile):
            raise UsageError(f"{what} is a video", got=file.file, allowed="a 16-bit PNG, in millimetres")
        steps = file.steps(what)
        _require_size(what, steps.shape[::-1], image)
        columns, rows = _nearest(image)
        depth = steps[rows, columns] * _METRES
        return np.where(image.fit.shown & (depth > 0), depth, np.nan)

    def _mask(self, image: PosedImage) -> NDArray[np.bool_] | None:
        file = self._file(MASKS, image)
        if file is None:
            return None
        what = f"the true mask of {image.photo}"
        values = file.channel(what).values
        _require_size(what, values.shape[::-1], image)
        layout = image.fit.layout
        return np.asarray(image.fit.patch_mean(values).reshape(layout.h, layout.w) >= MOVES)

    def _file(self, kind: str, image: PosedImage) -> Frame | None:
        """The file of an image: in its camera's folder, or where photos lie together, among the photos'."""
        if not (self.path / kind).is_dir():
            return None
        frames = self._frames(kind, composed(image.camera_name)) or self._frames(kind, None) or {}
        return frames.get(composed(pathlib.PurePosixPath(image.photo).stem))

    @functools.cached_property
    def _cameras(self) -> dict[str, Camera]:
        if not (self.path / CAMERAS).exists():
            return {}
        return {composed(name): camera for name, camera in read_cameras(self.path / CAMERAS).items()}

    @functools.cached_property
    def _listings(self) -> dict[str, dict[str | None, dict[str, Frame]]]:
        return {}

    def _frames(self, kind: str, camera: str | None) -> dict[str, Frame] | None:
        """Files of a camera, or those without a camera's folder, by their stems; None where there are none."""
        known = self._listings.setdefault(kind, {})
        if camera not in known:
            root = self.path / kind
            listing = Listing.of(root)
            places = {composed(name): place for name, place in listing.sources.items()}
            place = root if camera is None and listing.images else places.get(camera or "")
            files = () if place is None else frames_of(place, f"the truth's {kind} of {camera or readable(root)}")
            known[camera] = {composed(file.stem): file for file in files}
        return known[camera] or None


_NAMES = (CAMERAS, TRUE_DEPTH, MASKS)
_PARTS = f"{CAMERAS}, {TRUE_DEPTH}/<camera>/<frame>.png, {MASKS}/<camera>/<frame>.png, or one of them"


def _nearest(image: PosedImage) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Column and row `[H,W]` of the photo's pixel that each of the engine's pixels has its middle in."""
    places = np.floor(image.photo_pixels()).astype(np.intp)
    width, height = image.fit.source_size
    return places[..., 0].clip(0, width - 1), places[..., 1].clip(0, height - 1)


def _require_size(what: str, size: tuple[int, ...], image: PosedImage) -> None:
    if tuple(size) != image.fit.source_size:
        raise UsageError(f"{what} has another size than the photo", got=by(size), allowed=by(image.fit.source_size))
