"""A range of activations that 8 bits hold, the same for every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from page4d_export.quantize.stage_graph import Floats

_LARGEST = 255  # of a byte
_MIDDLE = 128
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class FixedRange:
    """Values as bytes, `(byte - zero) * scale`: exact for 0, and cut off at both ends."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float, room: float = 1.0) -> FixedRange:
        """The range from `low` to `high`, and to 0 where it lies outside, times `room`."""
        low, high = min(0.0, low) * room, max(0.0, high) * room
        scale = _float32((high - low) / _LARGEST)
        return cls(scale, round(-low / scale))

    @classmethod
    def symmetric(cls, low: float, high: float, room: float = 1.0) -> FixedRange:
        """A range around 0 that has `low` and `high`, times `room`: OpenVINO multiplies bytes of two such ranges."""
        return cls(_float32(max(-low, high) * room / (_MIDDLE - 1)), _MIDDLE)

    def rounded(self, values: Floats) -> Floats:
        """The nearest values of the range."""
        return (np.clip(np.round(values / self.scale) + self.zero, 0, _LARGEST) - self.zero) * self.scale


def _float32(scale: float) -> float:
    """The nearest scale that a graph can hold; 1 for a range without an extent."""
    return float(np.float32(scale)) if scale > _SMALLEST_SCALE else 1.0
