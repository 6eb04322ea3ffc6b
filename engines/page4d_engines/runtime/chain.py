"""`Chain`: the stages that a pipeline runs, on whatever device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from page4d.manifest import StageEntry
from page4d.precision import Precision
from page4d_engines.runtime.buffer_plan import BufferPlan

Arrays = Mapping[str, NDArray[Any]]
Observe = Callable[[StageEntry, Arrays, Arrays], None]
"""Called after a stage's last call with its whole inputs and outputs by name, in host memory."""


class Chain(Protocol):
    """The stages over buffers that were allocated once.

    Attributes:
        plan: of the buffers.
        inputs: host memory for every value from outside, by name; `run` reads what lies there when it begins.
        outputs: host memory of every result, by name; holds the last run's.
        described: a description of the library and device that compute.
        precision: the type that they compute in; None: the engines' own.
    """

    plan: BufferPlan
    inputs: Arrays
    outputs: Arrays
    described: str
    precision: Precision | None

    def run(
        self, progress: Callable[[str], None] | None = None, observe: Observe | None = None, carried: int = 0
    ) -> dict[str, float]:
        """Run all stages; the seconds of each, by name.

        Args:
            progress: called with a stage's name before each of its calls, as far as the backend goes call by call.
            observe: called after each stage's last call.
            carried: images at the start that were the last ones of the run before; for a chain whose plan is sliding.

        Raises:
            EngineError, OutOfMemoryError: from the library that computes; no images to carry where a plan keeps none.
        """
        ...
