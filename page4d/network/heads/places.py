"""Coordinates of a map's places on the image, as DPT's and Pi3X's heads have them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def places(rows: int, columns: int, aspect: float) -> tuple[Tensor, Tensor]:
    """x of every column and y of every row, float64 `[columns]`, `[rows]`.

    They run evenly over the image, whose half diagonal is 1, from the centre of the first cell to that of the last;
    `aspect` is the image's width over its height.
    """
    diagonal = math.hypot(aspect, 1.0)
    return _run(columns, aspect / diagonal), _run(rows, 1.0 / diagonal)


def _run(count: int, half_side: float) -> Tensor:
    end = half_side * (count - 1) / count
    return torch.linspace(-end, end, count, dtype=torch.float64)
