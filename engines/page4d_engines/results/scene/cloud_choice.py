"""`CloudChoice`: what the point cloud of a run is made from, decided from the engines before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from page4d.errors import UsageError
from page4d.manifest import Manifest, PointsFrame
from page4d.network.poses import points_source
from page4d.published import Published
from page4d_engines.options import PointsSource
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.confidence import Threshold
from page4d_engines.results.scene.given_heads import GivenHeads

LEAST_PROBABILITY, PERCENTILE, DA3_PERCENTILE = 0.1, 50.0, 40.0
"""Of a point that is kept, where nothing else is asked for: Pi3's probability; a percentile of VGGT's and PAGE-4D's
confidence, and of Depth Anything 3's, as each has it in its public code."""
_CLOUD, _CAMERAS = "points.ply", "cameras.json"


@dataclass(frozen=True)
class CloudChoice:
    """The source of a cloud and the least confidence of its points.

    Attributes:
        source: what the points are made from.
        confidence: the result that is their confidence: `confidence`, `points_confidence` or `depth_confidence`.
        threshold: of it; of `confidence`, which is a logit, of its probability.
    """

    source: PointsSource
    confidence: str
    threshold: Threshold

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        points_from: str | None = None,
        min_confidence: float | None = None,
        percentile: float | None = None,
    ) -> CloudChoice | None:
        """The choice for some engines; as `of_heads`."""
        return cls.of_heads(GivenHeads.of(manifest), points_from, min_confidence, percentile)

    @classmethod
    def of_heads(
        cls,
        heads: GivenHeads,
        points_from: str | None = None,
        min_confidence: float | None = None,
        percentile: float | None = None,
    ) -> CloudChoice | None:
        """The choice for what heads give; None where they give no points in the world.

        Args:
            heads: of the engines.
            points_from: None: depth with cameras where the engines give these, else the points head.
            min_confidence: least probability, 0 to 1; only for engines that give a probability.
            percentile: least confidence as a percentile, 0 to 100. By default the probability is at least 0.1, and
                other confidences are at least the 50th percentile (of Depth Anything 3 the 40th).

        Raises:
            UsageError: the engines lack what is asked for, or a number is out of range.
        """
        fields, frame = heads.world_fields, _frame(heads)
        flags = {
            "--points-from": points_from,
            "--min-confidence": min_confidence,
            "--confidence-percentile": percentile,
        }
        asked = [f"{flag} {value}" for flag, value in flags.items() if value is not None]
        try:
            source = PointsSource(points_source(fields, frame, points_from))
        except UsageError as error:
            if not asked:
                return None
            raise UsageError(
                f"these engines lack what the point cloud{f' from {points_from}' if points_from else ''} is made of",
                got=f"{', '.join(asked)}; the engines give {error.got}",
                allowed=error.allowed,
                hint=_other_source(fields, frame) if points_from else "page4d-export with these heads",
            ) from None
        names = ("depth_confidence",) if source is PointsSource.DEPTH else ("points_confidence", "confidence")
        confidence = next((name for name in names if heads.gives(name)), None)
        if confidence is None:
            if asked:
                raise UsageError("these engines give no confidence of their points", got=", ".join(asked))
            return None
        is_probability, usual = confidence == "confidence", _usual_percentile(heads)
        if min_confidence is not None and not is_probability:
            raise UsageError(
                "the confidence of these engines is no probability, and has no fixed scale",
                got=f"--min-confidence {min_confidence}",
                allowed="--confidence-percentile 0 to 100",
                hint=f"--confidence-percentile {usual:g}, which is the default",
            )
        return cls(source, confidence, _threshold(is_probability, min_confidence, percentile, usual))

    @classmethod
    def asked(cls, heads: GivenHeads, options: CloudOptions) -> CloudChoice | None:
        """The choice for what heads give and a user asks for; as `of_heads`.

        Raises:
            UsageError: as `of_heads`; static points are asked for, and the engines give no mask.
        """
        if options.static_only and not heads.has_mask:
            raise UsageError(
                "these engines give no mask, which says what is dynamic",
                got="--static-only",
                allowed="engines of PAGE-4D, or of this project's own network",
                hint="the same command without --static-only",
            )
        return cls.of_heads(heads, options.points_from, options.min_confidence, options.confidence_percentile)


def left_out(manifest: Manifest, choice: CloudChoice | None) -> Iterator[str]:
    """Sentences on the files that engines with heads do not give, and why."""
    heads = GivenHeads.of(manifest)
    if not heads.outputs:
        return
    gives = f"these engines give {', '.join(name for name in heads.outputs if not name.endswith('confidence'))}"
    if choice is None:
        yield f"no {_CLOUD}: it takes the points head, or depth and cameras; {gives}"
    if not heads.calibrates:
        yield f"no {_CAMERAS}: it takes the camera head; {gives}"
    in_world = heads.points_frame is PointsFrame.WORLD and not heads.gives("camera")
    if not heads.gives("depth") and (in_world or not heads.gives("points")):
        yield f"no depth images: they take the depth head, or points and cameras; {gives}"


def _frame(heads: GivenHeads) -> PointsFrame:
    """Of the points; where there are none, that of the heads that could give them."""
    return heads.points_frame or PointsFrame.WORLD


def _other_source(fields: list[str], frame: PointsFrame) -> str:
    try:
        return f"--points-from {points_source(fields, frame)}"
    except UsageError:
        return "page4d-export with these heads"


def _usual_percentile(heads: GivenHeads) -> float:
    """Of confidences that are no probabilities."""
    return DA3_PERCENTILE if heads.published == Published.DA3 else PERCENTILE


def _threshold(is_probability: bool, least: float | None, percentile: float | None, usual: float) -> Threshold:
    if least is not None and percentile is not None:
        raise UsageError(
            "the least confidence is given twice",
            got=f"--min-confidence {least} and --confidence-percentile {percentile}",
            allowed="one of them",
        )
    if least is not None and not 0 <= least <= 1:
        raise UsageError("--min-confidence is out of range", got=least, allowed="a probability, 0 to 1")
    if percentile is not None and not 0 <= percentile <= 100:
        raise UsageError("--confidence-percentile is out of range", got=percentile, allowed="0 to 100")
    if percentile is None and is_probability:
        return Threshold(LEAST_PROBABILITY if least is None else least)
    return Threshold(percentile=usual if percentile is None else percentile)
