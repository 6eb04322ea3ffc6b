"""Metres: the similarity that brings a world to them, from known cameras, a metric run, or a distance."""

from __future__ import annotations

import dataclasses
import pathlib
from dataclasses import dataclass

import msgspec

from page4d.cameras import Camera, read_cameras
from page4d.errors import UsageError
from page4d.files import sha256
from page4d.system.plain_text import listed
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import FinishedRun, Scene, photo_path
from page4d_engines.results.summary import SUMMARY, Summary
from page4d_engines.results.world.metre_scales import (
    KnownDepths,
    KnownDistance,
    clip_images,
    clip_names,
    known_depths,
    many_worlds,
    other_cameras,
    other_photos,
    scale_by_cameras,
    scale_by_depth,
    scale_by_distance,
    unknown_names,
)
from page4d_engines.results.world.placing import placed
from page4d_engines.results.world.similarity import Similarity
from page4d_engines.results.world.world_summary import MetricScale, MetricSummary

_NAMED = 6  # names that an error lists


@dataclass(frozen=True)
class MetricSource:
    """What metres come from: one of the three.

    Attributes:
        reference: what lengths are compared with, as on the command line: a path, or names and a distance.
        digest: of what it holds, for `MadeBy`.
        cameras: known ones, in metres.
        run: output folder of a run in metres, on the same photos.
        distance: between two cameras.
    """

    reference: str
    digest: str
    cameras: dict[str, Camera] | None = None
    run: FinishedRun | None = None
    distance: KnownDistance | None = None

    @classmethod
    def of(cls, path: pathlib.Path | None, distance: str | None) -> MetricSource | None:
        """Of `--metric-from` and `--known-distance`; None where neither is given.

        Raises:
            UsageError: both are given; a file that is no `cameras.json`, or has one camera; a folder that is no run, or
                one without depth in metres; a distance that is none.
        """
        if path is not None and distance is not None:
            raise UsageError(
                "metres are given twice",
                got=f"--metric-from {path} and --known-distance {distance}",
                allowed="one of them",
            )
        if distance is not None:
            return cls(reference=distance, digest=distance, distance=KnownDistance.of(distance))
        if path is None:
            return None
        if path.is_dir():
            return cls(reference=str(path), digest=_digest(path / SUMMARY), run=_metric_run(path))
        cameras = read_cameras(path)
        if len(cameras) < 2:
            raise UsageError(
                "one camera says nothing of metres",
                got=f"--metric-from {path}, with {listed(list(cameras), _NAMED) or 'no camera'}",
                allowed="two cameras or more, at different places",
            )
        return cls(reference=str(path), digest=_digest(path), cameras=cameras)

    def check(self, clip: FrameFolder, in_one_world: bool) -> None:
        """Whether it can say anything of a clip, before this is run.

        Args:
            clip: of the run.
            in_one_world: whether all of its windows will be.

        Raises:
            UsageError: its cameras or photos are others; a distance, of windows with worlds of their own.
        """
        images = list(clip_images(clip))
        if self.run is not None:
            known = {photo_path(self.run.clip, t, v) for t, v in clip_images(self.run.clip)}
            if known.isdisjoint(photo_path(clip, t, v) for t, v in images):
                raise other_photos(self.run, str(clip.path))
            return
        names = {name for t, v in images for name in clip_names(clip, t, v)}
        shown = [*clip.camera_names, *clip.frame_names]
        if self.cameras is not None and names.isdisjoint(self.cameras):
            raise other_cameras(self.reference, self.cameras, shown)
        if self.distance is not None:
            if not in_one_world:
                raise many_worlds()
            missing = [name for name in (self.distance.first, self.distance.second) if name not in names]
            if missing:
                raise unknown_names(missing, self.reference, shown)

    def summary(self, run: FinishedRun) -> Summary:
        """The summary of a run, with its lengths in metres: `world` of the windows, depth scales, positions, unit.

        Raises:
            UsageError: the source has nothing to do with the run: no cameras or photos of these names, no depth.
        """
        worlds: dict[str, MetricScale] = {}
        windows = []
        earlier = {} if run.summary.metric is None else run.summary.metric.worlds
        depths = {} if self.run is None else known_depths(self.run, run)
        for scene in run.scenes():
            change, residual, measured = self._of_scene(scene, depths)
            before = earlier[scene.name].scale if scene.name in earlier else 1.0
            worlds[scene.name] = MetricScale(scale=before * change.scale, residual=residual, measured=measured)
            windows += [placed(window, change, str(LengthUnit.METRES)) for window in scene.windows]
        metric = MetricSummary(source=self._kind, reference=self.reference, worlds=worlds)
        return msgspec.structs.replace(run.summary, windows=windows, metric=metric)

    def applied(self, run: FinishedRun) -> FinishedRun:
        """A finished run with its lengths in metres; its files are as they were.

        Raises:
            UsageError: as `summary`.
        """
        self.check(run.clip, in_one_world=len(run.scenes()) == 1)
        summary = self.summary(run)
        if summary.made_by is not None:
            made_by = msgspec.structs.replace(summary.made_by, metric=self.digest)
            summary = msgspec.structs.replace(summary, made_by=made_by)
        return dataclasses.replace(run, summary=summary)

    @property
    def _kind(self) -> str:
        if self.cameras is not None:
            return "cameras"
        return "depth" if self.run is not None else "distance"

    def _of_scene(self, scene: Scene, depths: KnownDepths) -> tuple[Similarity, float | None, int]:
        if self.cameras is not None:
            return scale_by_cameras(scene, self.cameras, self.reference)
        if self.run is not None:
            return scale_by_depth(scene, self.run, depths)
        assert self.distance is not None
        return scale_by_distance(scene, self.distance)


def _digest(path: pathlib.Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return ""  # whoever reads it says what is wrong


def _metric_run(path: pathlib.Path) -> FinishedRun:
    run = FinishedRun.open(path)
    units = {window.predictions.unit for window in run.summary.windows if window.predictions is not None}
    has_depth = all(window.predictions and window.predictions.depth_scale for window in run.summary.windows)
    if units != {str(LengthUnit.METRES)} or not has_depth:
        reason = "no depth" if not has_depth else "depth in another unit"
        raise UsageError(
            "the run of --metric-from has no depth in metres",
            got=f"{path}, with {reason}",
            allowed="cameras.json, or a run of Pi3X, or of Depth Anything 3 METRIC with focal lengths",
        )
    return run
