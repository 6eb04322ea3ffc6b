"""`Scores`: those of one run, and how they are computed: each image is read once, memory is that of a window."""

from __future__ import annotations

import msgspec
import numpy as np

from page4d.system.progress import Progress
from page4d_engines.results.finished.finished_run import FinishedRun, Scene
from page4d_engines.results.scores.cloud_scores import CloudScores, CloudTally, ScenePoints
from page4d_engines.results.scores.depth_scores import DepthScores, DepthTally
from page4d_engines.results.scores.mask_scores import MaskScores, MaskTally
from page4d_engines.results.scores.pose_scores import PoseScores, PoseTally
from page4d_engines.results.scores.reference import Reference, moving_patches, shown_patches


class Scores(msgspec.Struct, frozen=True):
    """A run in the task's own numbers; None for what neither run nor reference says anything of."""

    images: int
    """Of the run."""
    pose: PoseScores | None
    depth: DepthScores | None
    mask: MaskScores | None
    cloud: CloudScores | None
    reasons: dict[str, str]
    """Why a score is None, by its name: `pose`, `depth.abs_rel_metric`."""

    def values(self) -> dict[str, float | None]:
        """The scores by their names, `pose.auc_5`; without counts, and without groups that are None."""
        groups = {name: getattr(self, name) for name in ("pose", "depth", "mask", "cloud")}
        return {
            f"{name}.{key}": getattr(group, key)
            for name, group in groups.items()
            if group is not None
            for key in group.__struct_fields__
            if key not in ("images", "pairs", "scenes")
        }


class _Tallies:
    """Of all kinds of scores."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.pose = PoseTally(reference.least_baseline)
        self.depth, self.mask, self.cloud = DepthTally(), MaskTally(), CloudTally()
        self.images = 0
        self.estimated: set[str] = set()  # kinds that some image of the run has
        self.known: set[str] = set()  # kinds that some image has in both

    def add_scene(self, scene: Scene, progress: Progress) -> None:
        """Read the scene's images, one after the other."""
        reference, count = self.reference, scene.count
        other_unit = reference.other_unit(scene.unit)
        points = ScenePoints(count)
        poses, truth = [], []
        for number, (image, known) in enumerate(reference.paired(scene)):
            progress.note(f"image {image.photo}", number / count)
            self.images += 1
            pose = image.calibration.camera_to_world
            if self._has("pose", bool(np.isfinite(pose).all()), known.pose):
                assert known.pose is not None
                poses.append(pose)
                truth.append(known.pose)
            if self._has("depth", image.depth is not None, known.depth):
                assert image.depth is not None and known.depth is not None
                self.depth.add(image.depth, known.depth, other_unit)
            if self._has("mask", image.mask is not None, known.mask):
                assert image.mask is not None and known.mask is not None
                self.mask.add(moving_patches(image.mask), known.mask, shown_patches(image.fit.shown))
            if self._has("cloud", bool(image.kept.any()), known.points):
                assert known.points is not None
                points.add(image.points, image.kept, known.points)
        if poses:
            self.pose.add_scene(np.stack(poses), np.stack(truth), other_unit)
        if not points.empty:
            self.cloud.add_scene(points)

    def _has(self, kind: str, has_estimate: bool, known: object) -> bool:
        if has_estimate:
            self.estimated.add(kind)
        if has_estimate and known is not None:
            self.known.add(kind)
        return has_estimate and known is not None

    def scores(self) -> Scores:
        """Of all scenes."""
        groups: dict[str, PoseTally | DepthTally | MaskTally | CloudTally]
        groups = {"pose": self.pose, "depth": self.depth, "mask": self.mask, "cloud": self.cloud}
        reasons: dict[str, str] = {}
        parts: dict[str, msgspec.Struct | None] = {}
        for name, tally in groups.items():
            if name not in self.known:
                nothing = "the reference says nothing of the run's images" if name in self.estimated else _ABSENT[name]
                reasons[name] = self.reference.lacks.get(name, nothing)
                parts[name] = None
                continue
            parts[name] = tally.scores()
            reasons |= {f"{name}.{key}": reason for key, reason in tally.reasons.items()}
        return Scores(images=self.images, reasons=reasons, **parts)  # type: ignore[arg-type]


_ABSENT = {
    "pose": "the run has no camera poses",
    "depth": "the run has no depth",
    "mask": "the run has no mask",
    "cloud": "the run has no points",
}


def score(run: FinishedRun, reference: Reference, progress: Progress) -> Scores:
    """Score a run against a reference.

    Raises:
        UsageError: a file of either is gone or damaged, or does not go with the others.
    """
    tallies, scenes = _Tallies(reference), run.scenes()
    for number, scene in enumerate(scenes):
        tallies.add_scene(scene, progress.part(number / len(scenes), (number + 1) / len(scenes), 1, ""))
    return tallies.scores()
