"""`PredictionSummary`: the files of what heads give in one window, for `summary.json` and the report."""

from __future__ import annotations

import msgspec


class CameraSummary(msgspec.Struct, frozen=True):
    """An estimated camera, or a given one. A length is in the window's `unit`."""

    position: list[float | None]
    """In the world, `[3]`."""
    focal: list[float | None]
    """fx, fy in pixels of the photo; None where the network gave no field of view."""
    fitted: bool | None
    """Whether the focal lengths were fitted to the points, and are no guess; None: they are the network's own."""
    residual: float | None
    """Of the fit, root mean square in pixels of the photo."""


class PredictionSummary(msgspec.Struct, frozen=True):
    """The files of one window, relative to the output folder, with `/`; None where the engines do not give one."""

    cloud: str | None
    points: int
    """In the cloud."""
    cameras: str | None
    depth: list[str]
    """16-bit PNG files; 0 stands for no value."""
    depth_scale: float | None
    """Depth of one step of these, in `unit`."""
    rig: dict[str, CameraSummary]
    """By image: a camera's name where there is one timestep, a frame's where there is one camera, else both."""
    warnings: list[str] = []
    points_from: str | None = None
    """What the cloud is made from: `depth` (with cameras) or `points` (the points head)."""
    confidence: str | None = None
    """The result that is the confidence of the cloud's points; `confidence` as a probability."""
    percentile: float | None = None
    """Of the confidences of all images of the window, which `threshold` is; None where it is a given number."""
    threshold: float | None = None
    """The least confidence of a point in the cloud; None where no pixel has any."""
    unit: str | None = None
    """Of all lengths of the window: `metres`; `cameras`, that of the given `cameras.json`; None, one of its own."""
    formats: list[str] = []
    """Files of the other formats that were written of the window."""

    @property
    def unit_in_words(self) -> str:
        """What lengths are in."""
        return unit_in_words(self.unit)

    @property
    def cloud_source(self) -> str:
        """In words, what the cloud is made from and which of its points."""
        made_of = "depth and cameras" if self.points_from == "depth" else "the points head"
        what = "probability" if self.confidence == "confidence" else "confidence"
        least = "none" if self.threshold is None else f"{self.threshold:.4g}"
        rule = "" if self.percentile is None else f", percentile {self.percentile:g} of the window"
        return f"from {made_of}, {what} at least {least}{rule}"


def unit_in_words(unit: str | None) -> str:
    """`metres`, `cameras` or None of a result, for a sentence."""
    return {"metres": "metres", "cameras": "the unit of the given cameras"}.get(unit or "", "the clip's own unit")
