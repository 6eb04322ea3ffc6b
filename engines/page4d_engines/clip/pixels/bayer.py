"""Bayer patterns as RGB, by linear interpolation: OpenCV's `COLOR_Bayer..2RGB`.

A pixel has one colour. The others are means of its neighbours: of the two that have the colour, (a + b + 1) >> 1, or of
the four, (a + b + c + d + 2) >> 2. Pixels at the border get the colours of the next ones inside.

A pattern is named by its upper left four pixels here, as ROS and OpenCV's newer names do (`COLOR_BayerRGGB2RGB`).
OpenCV's older names are those of the second row, from its second pixel on: `COLOR_BayerBG2RGB` is RGGB.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

LEAST = 3
"""Pixels of each side: a pixel that is not at the border."""


def from_bayer(pixels: Bytes, red_row: int, red_column: int) -> Bytes:
    """A pattern as colours.

    Args:
        pixels: `[H,W]`, each at least `LEAST`.
        red_row: 0 or 1: the first row with red pixels.
        red_column: 0 or 1: the first column with red pixels.

    Returns:
        RGB, `[H,W,3]`.
    """
    wide = pixels.astype(np.uint16)
    centre, above, below = wide[1:-1, 1:-1], wide[:-2, 1:-1], wide[2:, 1:-1]
    left, right = wide[1:-1, :-2], wide[1:-1, 2:]
    corners = wide[:-2, :-2] + wide[:-2, 2:] + wide[2:, :-2] + wide[2:, 2:]
    of_corners, of_sides = (corners + 2) >> 2, (above + below + left + right + 2) >> 2
    of_row, of_column = (left + right + 1) >> 1, (above + below + 1) >> 1
    rows, columns = (np.arange(1, side - 1) for side in pixels.shape)
    in_red_row, in_red_column = (rows % 2 == red_row)[:, None], (columns % 2 == red_column)[None]

    def colour(in_its_row: npt.NDArray[np.bool_], in_its_column: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
        return np.where(
            in_its_row, np.where(in_its_column, centre, of_row), np.where(in_its_column, of_column, of_corners)
        )

    red, blue = colour(in_red_row, in_red_column), colour(~in_red_row, ~in_red_column)
    green = np.where(in_red_row == in_red_column, of_sides, centre)
    inside = np.stack([red, green, blue], -1).astype(np.uint8)
    return np.pad(inside, ((1, 1), (1, 1), (0, 0)), mode="edge")
