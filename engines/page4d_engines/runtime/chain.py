"""`Chain`: what a pipeline runs, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from page4d.manifest import StageEntry
from page4d_engines.runtime.buffer_plan import BufferPlan

Arrays = Mapping[str, NDArray[Any]]
Observe = Callable[[StageEntry, Arrays, Arrays], None]
"""Told, after a stage's last call, its whole inputs and outputs by name, in host memory."""


class Chain(Protocol):
    """The stages over buffers that were allocated once.

    Attributes:
        plan: of the buffers.
        inputs: host memory for every value from outside, by name; what lies there when `run` begins is what it runs on.
        outputs: host memory of every result, by name; holds the last run's.
        described: what computes, in words.
    """

    plan: BufferPlan
    inputs: Arrays
    outputs: Arrays
    described: str

    def run(
        self, progress: Callable[[str], None] | None = None, observe: Observe | None = None, carried: int = 0
    ) -> dict[str, float]:
        """Run all stages; the seconds of each, by name.

        Args:
            progress: called with a stage's name before each of its calls, as far as the backend goes call by call.
            observe: called as the stages go.
            carried: images at the start that were the last ones of the run before; for a chain whose plan is sliding.
        """
        ...
