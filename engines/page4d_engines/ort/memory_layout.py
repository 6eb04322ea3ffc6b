"""Places in one block of memory for the tensors that the steps of a stage pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_ALIGNED = 256


@dataclass(frozen=True)
class Interval:
    """Memory that is needed from one step to another.

    Attributes:
        first, last: numbers of the steps, both included.
        size: bytes.
    """

    first: int
    last: int
    size: int


class MemoryLayout(NamedTuple):
    """Places in one block of memory."""

    offsets: dict[str, int]
    """Of tensors, by name, in bytes."""
    workspaces: dict[int, int]
    """Of what a step needs while it runs, by its number, in bytes."""
    size: int
    """Bytes of the block."""


def plan_memory(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """An offset for every interval, so that no two that share a step overlap, and the bytes of the block.

    The largest come first, each at the lowest offset that is free during all of its steps. A of steps 0 and 1, B of 1
    and 2, C of 2 and 3, D of 3:

        offset
          |   B B
          |   B B D
          | A A C C
          | A A C C
          +--------- step
            0 1 2 3
    """
    offsets = [0] * len(intervals)
    placed: list[tuple[int, int, Interval]] = []  # begin, end
    for number in sorted(range(len(intervals)), key=lambda number: -intervals[number].size):
        interval, offset = intervals[number], 0
        for begin, end, other in sorted(placed, key=lambda place: place[:2]):
            together = interval.first <= other.last and other.first <= interval.last
            if together and offset < end and begin < offset + interval.size:
                offset = -(-end // _ALIGNED) * _ALIGNED
        placed.append((offset, offset + interval.size, interval))
        offsets[number] = offset
    return offsets, max((end for _, end, _ in placed), default=0)
