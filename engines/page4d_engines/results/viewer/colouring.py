"""Colours of points by photo, depth, confidence or mask, and the legend that says what they mean."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.depth import NO_VALUE, colour_depth
from page4d_engines.results.overlay import colour_map
from page4d_engines.results.viewer.shown_points import ShownPoints

_LOW, _HIGH = 2, 98  # percentiles: a few points far out would leave one colour for the rest


class Colour(str, enum.Enum):
    """What points are coloured by."""

    PHOTO = "photo"
    DEPTH = "depth"
    CONFIDENCE = "confidence"
    MASK = "mask"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Coloured:
    """Points in colour.

    Attributes:
        colours: uint8 RGB `[n,3]`.
        bar: the colours of the legend from left to right, uint8 `[256,3]`; None where colours are the photos' own.
        legend: what the bar's ends mean; empty without a bar.
    """

    colours: NDArray[np.uint8]
    bar: NDArray[np.uint8] | None
    legend: str

    @classmethod
    def by(cls, colour: Colour, points: ShownPoints, unit: str) -> Coloured:
        """Of some points.

        Args:
            colour: what they are coloured by.
            points: some; those without a value become grey.
            unit: of lengths, in words.
        """
        bar = np.rint(colour_map(256)).astype(np.uint8)
        if colour is Colour.PHOTO:
            return cls(points.colours, None, "")
        if colour is Colour.MASK:
            return cls(_mapped(points.mask, 0.0, 1.0), bar, "0 static · 1 dynamic (probability)")
        values = points.depth if colour is Colour.DEPTH else points.confidence
        known = values[np.isfinite(values) & ((values > 0) | (colour is Colour.CONFIDENCE))]
        if not known.size:
            return cls(np.full((len(points), 3), NO_VALUE, np.uint8), None, f"no {colour} in this run")
        low, high = np.percentile(known, [_LOW, _HIGH]).tolist()
        if colour is Colour.DEPTH:
            colours = colour_depth(values[None], low, high)[0]
            return cls(colours, bar[::-1], f"{low:.3g} near · {high:.3g} far, in {unit}")
        return cls(_mapped(values, low, high), bar, f"{low:.3g} unsure · {high:.3g} sure")


def available(points: ShownPoints) -> list[Colour]:
    """What points can be coloured by."""
    values = {Colour.DEPTH: points.depth, Colour.CONFIDENCE: points.confidence, Colour.MASK: points.mask}
    return [Colour.PHOTO, *(colour for colour, known in values.items() if np.isfinite(known).any())]


def _mapped(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """In the colours of the map, from low to high; grey where there is no value."""
    known = np.isfinite(values)
    level = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    colours = np.rint(colour_map(256)).astype(np.uint8)[np.rint(level.clip(0, 1) * 255).astype(np.intp)]
    colours[~known] = NO_VALUE
    return colours
