"""The sizes that Depth Anything 3's public code scales photos to; width before height.

ByteDance-Seed/Depth-Anything-3 @ 2c21ea8, `process_res_method` "upper_bound_resize".
"""

from __future__ import annotations

from collections.abc import Iterable

from page4d.layout import Layout

Size = tuple[int, int]

PROCESS_RES = 504
"""Pixels of the longer side, unless the public code is given another number."""


def passes(size: Size, side: int = PROCESS_RES) -> tuple[Size, Size]:
    """What a photo is scaled to, one after the other: the longer side to `side`; then each to whole patches.

    The second has a side of 1 where the photo is too narrow for a patch.
    """
    width, height = size
    scale = side / max(size)
    scaled = (max(1, round(width * scale)), max(1, round(height * scale))) if max(size) != side else size
    return scaled, (_to_patches(scaled[0]), _to_patches(scaled[1]))


def common_size(sizes: Iterable[Size], side: int = PROCESS_RES) -> Size:
    """What is left of all photos of these sizes: of each the middle that the smallest has."""
    results = [passes(size, side)[-1] for size in sizes]
    return min(width for width, _ in results), min(height for _, height in results)


def side_for(sizes: Iterable[Size], layout: Layout) -> int | None:
    """The longer side that gives just the engine's size of these photos: the public code's, or else the engine's own;
    None where neither does."""
    photos = list(sizes)
    candidates = (PROCESS_RES, max(layout.W, layout.H))
    return next((side for side in candidates if common_size(photos, side) == (layout.W, layout.H)), None)


def _to_patches(side: int) -> int:
    # to the nearest multiple, of two equally near ones to the higher
    return max(1, (side + Layout.PATCH // 2) // Layout.PATCH * Layout.PATCH)
