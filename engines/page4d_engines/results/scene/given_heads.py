"""`GivenHeads`: what some engines' heads give, as their manifest says it or as a finished run's files show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from page4d.manifest import PREDICTIONS, Manifest, PointsFrame
from page4d.published import QUATERNION_NUMBERS, TRAITS, Published
from page4d_engines.pipeline import Result


@dataclass(frozen=True)
class GivenHeads:
    """What heads give.

    Attributes:
        outputs: of `PREDICTIONS`, in that order.
        has_intrinsics: whether the cameras have fields of view.
        points_frame: of the points; None: there are none.
        published: the published model.
        has_mask: whether there is a mask.
    """

    outputs: tuple[str, ...]
    has_intrinsics: bool
    points_frame: PointsFrame | None
    published: str | None
    has_mask: bool

    @classmethod
    def of(cls, manifest: Manifest) -> GivenHeads:
        """Of some engines; those of before `points_frame` are Pi3's."""
        has_camera, has_points = manifest.makes("camera"), manifest.makes("points")
        return cls(
            outputs=tuple(name for name in PREDICTIONS if manifest.makes(name)),
            has_intrinsics=has_camera and manifest.spec("camera").shape[-1] == QUATERNION_NUMBERS,
            points_frame=manifest.points_frame or PointsFrame.CAMERA if has_points else None,
            published=manifest.model.get("published"),
            has_mask=manifest.makes("mask"),
        )

    @classmethod
    def of_result(cls, result: Result, model: Mapping[str, Any]) -> GivenHeads:
        """Of a result of a model, which is `Manifest.model`."""
        return cls(
            outputs=tuple(name for name in PREDICTIONS if getattr(result, name) is not None),
            has_intrinsics=result.intrinsics is not None,
            points_frame=result.points_frame,
            published=model.get("published"),
            has_mask=result.mask is not None,
        )

    def gives(self, output: str) -> bool:
        """Whether there is an output called so."""
        return output in self.outputs

    @property
    def world_fields(self) -> list[str]:
        """Which of `points`, `depth`, `camera`, `intrinsics` there are."""
        fields = [name for name in ("points", "depth", "camera") if self.gives(name)]
        return [*fields, "intrinsics"] if self.has_intrinsics else fields

    @property
    def calibrates(self) -> bool:
        """Whether there are cameras with intrinsics: the engines' own, or ones fitted to each camera's points."""
        fits = self.points_frame is not PointsFrame.WORLD and self.gives("points") and self.gives("confidence")
        return self.gives("camera") and (self.has_intrinsics or fits)


def points_frame_of(model: Mapping[str, Any]) -> PointsFrame:
    """Of the points of a model, which is `Manifest.model`."""
    published = model.get("published")
    return PointsFrame.CAMERA if published is None else TRAITS[Published(published)].points_frame
