"""`Result`: what the engines give for one clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d_engines.timing import Timing


@dataclass(frozen=True)
class Result:
    """What a clip gives: the reference model's fields, as arrays.

    The arrays are the pipeline's own buffers. They are valid from the return of `run` until the next `run` of the same
    pipeline begins, in whatever thread, and overwrites them. They keep the buffers alive after the pipeline. `copy()`
    keeps the values.

    Attributes:
        mask: M float32 `[T,V,h,w]`, the probability that a patch is dynamic; None where the model has no mask head.
        layers: per kept layer its tokens `[T,V,N,S*C]`.
        memory: `[S,M,C]`, an argument of the next window's run, where the model has memory; else None.
        points: float32 `[T,V,H,W,3]`, every pixel's point in its camera's frame, up to scale; None without Pi3's heads,
            as the next two.
        confidence: float32 `[T,V,H,W]`, a logit.
        camera: float64 `[T,V,4,4]`, camera-to-world; NaN where the engines gave no finite values.
        timing: seconds and floating-point operations of each stage in this run.
    """

    mask: NDArray[np.float32] | None
    layers: dict[int, NDArray[np.generic]]
    memory: NDArray[np.generic] | None
    points: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None
    camera: NDArray[np.float64] | None = None
    timing: Timing = field(default_factory=Timing)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What there is, by name: `mask`, `layers.<i>`, `memory`, `points`, `confidence`, `camera`."""
        named = {
            "mask": self.mask,
            "memory": self.memory,
            "points": self.points,
            "confidence": self.confidence,
            "camera": self.camera,
        }
        return {name: array for name, array in named.items() if array is not None} | {
            f"layers.{i}": layer for i, layer in self.layers.items()
        }

    def copy(self) -> Result:
        """The same in memory of its own."""
        copied = {name: array.copy() for name, array in self.tensors().items()}
        layers = {i: copied.pop(f"layers.{i}") for i in self.layers}
        return Result(copied.pop("mask", None), layers, copied.pop("memory", None), **copied, timing=self.timing)
