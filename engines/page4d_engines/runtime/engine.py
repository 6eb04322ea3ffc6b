"""The engine of one stage: the protocols that a chain needs, whatever library computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Launch = Callable[[int], None]
"""Puts a call on a stream, given the stream's handle."""


class HostEngine(Protocol):
    """A stage that reads and writes the host's memory."""

    def bind(
        self, inputs: dict[str, NDArray[np.generic]], outputs: dict[str, NDArray[np.generic]]
    ) -> Callable[[], None]:
        """A call over fixed memory, by the engine's names; the arrays' shapes may be views of the engine's."""
        ...


class GpuEngine(Protocol):
    """A stage that was loaded on a GPU.

    Attributes:
        scratch: bytes that a call needs beside its inputs and outputs; all stages share one block.
    """

    scratch: int

    @property
    def uncapturable(self) -> str | None:
        """Why it cannot be part of a CUDA graph, asked after a first run; None where it can."""
        ...

    def bind(self, inputs: Mapping[str, int], outputs: Mapping[str, int], scratch: int) -> Launch:
        """A call over fixed GPU addresses: of inputs and outputs by the engine's names, and of the scratch block."""
        ...
