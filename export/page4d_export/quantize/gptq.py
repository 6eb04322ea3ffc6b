"""Rounding a matrix so that its products change least: each row makes good what those before it lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from page4d_export.quantize.stage_graph import Floats

_DAMPING = 0.01  # share of the mean square that is added to every channel's, for what other frames bring
_PART = 128  # rows that are rounded before all others are moved


def compensated(exact: Floats, moment: NDArray[np.floating[Any]], nearest: Callable[[Floats], Floats]) -> Floats:
    """A matrix W `[K,N]` rounded to few bits, so that its products with its inputs x change least.

    What rounding row k adds to the product, x_k times its error, is in part what other channels can take away, since
    channels go together: rows that are still to come are moved so that what is left of it over these inputs is least.
    With channels that have nothing to do with each other it is rounding to the nearest. After Frantar et al., GPTQ,
    2022.

    Args:
        exact: `[K,N]`.
        moment: mean of `x^T x` over the inputs x, their mean taken out, `[K,K]`.
        nearest: rounds one row `[N]`, or the matrix.

    Returns:
        float64 `[K,N]`, every row as `nearest` gives it.
    """
    scale = float(np.mean(np.diag(moment)))
    if not scale > 0:
        return nearest(exact)
    order = np.argsort(-np.diag(moment), kind="stable")  # what matters most first, while there is most to move
    damped = moment[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices(len(damped))] += _DAMPING * scale
    factor = _factor_of_inverse(damped)
    remaining, rounded = exact[order].astype(np.float64), np.empty(exact.shape)
    for start in range(0, len(remaining), _PART):
        part = remaining[start : start + _PART]
        errors = np.empty_like(part)
        stop = start + len(part)
        for row in range(len(part)):
            place = start + row
            rounded[place] = nearest(part[row])
            errors[row] = (part[row] - rounded[place]) / factor[place, place]
            part[row + 1 :] -= np.outer(factor[place, place + 1 : stop], errors[row])
        remaining[stop:] -= factor[start:stop, stop:].T @ errors
    result = np.empty_like(rounded)
    result[order] = rounded
    return result


def _factor_of_inverse(matrix: Floats) -> Floats:
    """The upper triangular U of which `U^T U` is the inverse."""
    # from the triangle R of `R R^T`: half the work of inverting first
    lower = torch.linalg.cholesky(torch.from_numpy(matrix[::-1, ::-1].copy()))
    return torch.linalg.solve_triangular(
        lower.flip(0, 1), torch.eye(len(matrix), dtype=torch.float64), upper=True
    ).numpy()
