"""The kernels of cameras' images, in Triton: pixels of any format to RGB, and the resize to the engines' size.

All in integers, so that results equal those of the CPU to the byte: `page4d_engines.clip.pixels` for the formats,
Pillow for the resize. Offsets of rows have 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _byte(value):
    """To 0..255."""
    return tl.minimum(tl.maximum(value, 0), 255).to(tl.uint8)


@triton.jit
def pixels(
    SOURCE, CHROMA, RGB, width, height, pitch, chroma_pitch, step, red, green, blue, y_at, u_at, v_at, red_row,
    red_column, LAYOUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(width*height/BLOCK)). RGB `[height,width,3]` = SOURCE, whose rows are `pitch` bytes apart.

    LAYOUT, as `pixel_launch.PixelKernel` has them:
    0: orders of channels. step: bytes of a pixel; red green blue: which of them.
    1: SOURCE has Y, CHROMA a row of pairs for every two rows. u_at v_at: which byte of a pair.
    2: two pixels in four bytes of SOURCE. y_at u_at v_at: which of them, of Y the first.
    3: a Bayer pattern. red_row red_column: of the first red pixel, 0 or 1.
    """
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < width * height
    pixel = tl.minimum(pixel, width * height - 1)
    y = pixel // width
    x = pixel % width
    if LAYOUT == 0:
        at = SOURCE + y.to(tl.int64) * pitch + x * step
        r = tl.load(at + red)
        g = tl.load(at + green)
        b = tl.load(at + blue)
    elif LAYOUT == 3:
        # a pixel at the border has the colours of the next one inside
        y = tl.minimum(tl.maximum(y, 1), height - 2)
        x = tl.minimum(tl.maximum(x, 1), width - 2)
        row = SOURCE + y.to(tl.int64) * pitch + x
        above = row - pitch
        below = row + pitch
        centre = tl.load(row).to(tl.int32)
        left = tl.load(row - 1).to(tl.int32)
        right = tl.load(row + 1).to(tl.int32)
        top = tl.load(above).to(tl.int32)
        bottom = tl.load(below).to(tl.int32)
        corners = tl.load(above - 1).to(tl.int32) + tl.load(above + 1).to(tl.int32)
        corners = corners + tl.load(below - 1).to(tl.int32) + tl.load(below + 1).to(tl.int32)
        of_corners = (corners + 2) >> 2
        of_sides = (left + right + top + bottom + 2) >> 2
        of_row = (left + right + 1) >> 1
        of_column = (top + bottom + 1) >> 1
        in_red_row = y % 2 == red_row
        in_red_column = x % 2 == red_column
        in_row = tl.where(in_red_column, centre, of_row)
        in_other_row = tl.where(in_red_column, of_column, of_corners)
        r = tl.where(in_red_row, in_row, in_other_row).to(tl.uint8)
        in_row = tl.where(in_red_column, of_row, centre)
        in_other_row = tl.where(in_red_column, of_corners, of_column)
        b = tl.where(in_red_row, in_other_row, in_row).to(tl.uint8)
        g = tl.where(in_red_row == in_red_column, of_sides, centre).to(tl.uint8)
    else:
        if LAYOUT == 1:
            luma = SOURCE + y.to(tl.int64) * pitch + x
            pair = CHROMA + (y // 2).to(tl.int64) * chroma_pitch + x // 2 * 2
        else:
            pair = SOURCE + y.to(tl.int64) * pitch + x // 2 * 4
            luma = pair + y_at + x % 2 * 2
        light = tl.maximum(tl.load(luma).to(tl.int32) - 16, 0) * 1220542 + 524288
        u = tl.load(pair + u_at).to(tl.int32) - 128
        v = tl.load(pair + v_at).to(tl.int32) - 128
        r = _byte((light + 1673527 * v) >> 20)
        g = _byte((light - 852492 * v - 409993 * u) >> 20)
        b = _byte((light + 2116026 * u) >> 20)
    out = RGB + pixel.to(tl.int64) * 3
    tl.store(out, r, mask=exists)
    tl.store(out + 1, g, mask=exists)
    tl.store(out + 2, b, mask=exists)


@triton.jit
def across(RGB, FIRST, WEIGHTS, OUT, most, source, skipped, width, blocks, BLOCK: tl.constexpr):
    """Grid (rows * blocks), blocks = ceil(3*width/BLOCK). OUT `[rows,width,3]` = rows of RGB `[.,source,3]`, resized.

    skipped: rows of RGB before the first. FIRST: int32 `[width]`, the first pixel that each is made of.
    WEIGHTS: int32 `[width,most]`, times 2^22; 0 where there is none.
    """
    row = tl.program_id(0) // blocks
    byte = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    pixel = tl.minimum(byte // 3, width - 1)
    first = tl.load(FIRST + pixel)
    start = RGB + (row + skipped).to(tl.int64) * source * 3 + byte % 3
    sums = tl.full((BLOCK,), 2097152, tl.int32)
    for tap in range(most):
        at = first + tap
        weight = tl.load(WEIGHTS + pixel * most + tap)
        sums += weight * tl.load(start + at * 3, mask=at < source, other=0).to(tl.int32)
    tl.store(OUT + row.to(tl.int64) * width * 3 + byte, _byte(sums >> 22), mask=byte < width * 3)


@triton.jit
def down(
    RGB, FIRST, WEIGHTS, TARGET, most, source, left, top, width, height, columns, ground, blocks, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (rows * blocks), blocks = ceil(3*columns/BLOCK). TARGET `[rows,columns,3]` = `ground`, and RGB on it.

    RGB: `[source,width,3]`, which becomes `[height,width,3]` at column `left` and row `top`.
    FIRST: int32 `[height]`, WEIGHTS: int32 `[height,most]`, as of `across`.
    """
    row = tl.program_id(0) // blocks
    byte = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    y = row - top
    x = byte // 3 - left
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    first = tl.load(FIRST + y)
    start = RGB + x * 3 + byte % 3
    sums = tl.full((BLOCK,), 2097152, tl.int32)
    for tap in range(most):
        at = first + tap
        weight = tl.load(WEIGHTS + y * most + tap)
        sums += weight * tl.load(start + at.to(tl.int64) * width * 3, mask=at < source, other=0).to(tl.int32)
    result = tl.where(inside, _byte(sums >> 22).to(tl.int32), ground)
    tl.store(TARGET + row.to(tl.int64) * columns * 3 + byte, result.to(tl.uint8), mask=byte < columns * 3)
