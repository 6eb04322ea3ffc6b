"""`OtherRun`: a second run over the same photos, which a run is scored against where there is no truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from page4d.errors import UsageError
from page4d.system.plain_text import listed
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import FinishedRun, Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.scores.reference import ReferenceImage, moving_patches

_HINT = "--truth CLIP, which each of them is compared with"


@dataclass(frozen=True)
class OtherRun:
    """The results of a run as if they were the truth.

    Attributes:
        run: that is the reference.
        lacks: as `Reference.lacks`; which results there are shows image by image.
    """

    run: FinishedRun
    lacks: dict[str, str] = field(default_factory=dict)

    least_baseline = 0.01  # of cameras that stand still a network gives poses that differ a little

    def require_alike(self, run: FinishedRun) -> None:
        """Raise where the other run has not the same images.

        Raises:
            UsageError: photos, windows, size or worlds differ.
        """
        here, there = _shape(run), _shape(self.run)
        for name, value in here.items():
            if value != there[name]:
                raise UsageError(
                    f"the two runs cannot be compared image by image: they differ in {name}",
                    got=f"{run.path}: {value}; {self.run.path}: {there[name]}",
                    hint=_HINT,
                )
        own_names = {scene.name for scene in self.run.scenes()}
        missing = [scene.name for scene in run.scenes() if scene.name not in own_names]
        if missing:
            raise UsageError(
                "the two runs cannot be compared image by image: they differ in the windows",
                got=f"{listed(missing, 3)}: in {run.path}, not in {self.run.path}",
                allowed="runs with the same --stride",
                hint=_HINT,
            )

    def paired(self, scene: Scene) -> Iterator[tuple[PosedImage, ReferenceImage]]:
        """As `Reference.paired`."""
        own_scene = next(other for other in self.run.scenes() if other.name == scene.name)
        for image, reference in itertools.zip_longest(scene, own_scene):
            if image is None or reference is None or image.photo != reference.photo:
                got = " and ".join("no photo" if posed is None else posed.photo for posed in (image, reference))
                raise UsageError("the two runs are of other photos", got=got, hint="--truth CLIP")
            known = reference.kept[..., None] & np.isfinite(reference.points)
            yield (
                image,
                ReferenceImage(
                    pose=reference.calibration.camera_to_world,
                    depth=None if reference.depth is None else _shown(reference),
                    mask=None if reference.mask is None else moving_patches(reference.mask),
                    points=np.where(known, reference.points, np.nan) if known.any() else None,
                ),
            )

    def other_unit(self, unit: LengthUnit | None) -> str | None:
        """As `Reference.other_unit`."""
        own_unit = self.run.scenes()[0].unit
        return None if unit == own_unit else "the two runs' lengths are in different units"


def _shown(image: PosedImage) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert image.depth is not None
    return np.where(image.fit.shown, image.depth.astype(np.float64), np.nan)


def _shape(run: FinishedRun) -> dict[str, object]:
    """What two runs need to have in common, by its name."""
    layout = run.layout
    return {
        "the engines' size": f"{layout.W}x{layout.H}",
        "the number of timesteps and views": f"T={layout.T}, V={layout.V}",
        "the windows": [scene.name for scene in run.scenes()] if len(run.scenes()) < 4 else len(run.scenes()),
        "the photos": len(run.clip.frame_names) * len(run.clip.camera_names),
    }
