"""YUV as RGB: BT.601, limited range, in the integers that OpenCV computes with.

Y, U and V are bytes. With y = max(Y - 16, 0), u = U - 128, v = V - 128:

    R = (1220542 y + 1673527 v            + 2^19) >> 20
    G = (1220542 y -  852492 v - 409993 u + 2^19) >> 20
    B = (1220542 y             + 2116026 u + 2^19) >> 20

each limited to 0..255. The factors are 1.164, 1.596, -0.813, -0.391 and 2.018 times 2^20. OpenCV's vector code gives
the same bytes as its scalar code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

SHIFT = 20
LUMA, V_TO_RED, V_TO_GREEN, U_TO_GREEN, U_TO_BLUE = 1220542, 1673527, -852492, -409993, 2116026
BLACK, GREY = 16, 128
"""The lowest Y, and U and V of what has no colour."""


def from_semiplanar(luma: Bytes, chroma: Bytes, v_first: bool) -> Bytes:
    """NV12, and where V comes first NV21.

    Args:
        luma: Y, `[H,W]`, both even.
        chroma: `[H/2,W]`: U and V in turn, each of two by two pixels.

    Returns:
        RGB, `[H,W,3]`.
    """
    pairs = chroma.reshape(chroma.shape[0], -1, 2)
    first, second = (pairs[..., i].repeat(2, 0).repeat(2, 1) for i in range(2))
    return _rgb(luma, second, first) if v_first else _rgb(luma, first, second)


def from_packed(rows: Bytes, luma_first: bool) -> Bytes:
    """YUYV, and where U comes before Y UYVY.

    Args:
        rows: `[H,2*W]`, W even: two pixels in four bytes.

    Returns:
        RGB, `[H,W,3]`.
    """
    luma, chroma = (rows[:, 0::2], rows[:, 1::2]) if luma_first else (rows[:, 1::2], rows[:, 0::2])
    return _rgb(luma, chroma[:, 0::2].repeat(2, 1), chroma[:, 1::2].repeat(2, 1))


def _rgb(luma: Bytes, chroma_u: Bytes, chroma_v: Bytes) -> Bytes:
    half = 1 << (SHIFT - 1)
    y = np.maximum(luma.astype(np.int32) - BLACK, 0) * LUMA + half
    u, v = (chroma.astype(np.int32) - GREY for chroma in (chroma_u, chroma_v))
    sums = (y + V_TO_RED * v, y + V_TO_GREEN * v + U_TO_GREEN * u, y + U_TO_BLUE * u)
    return np.stack([np.clip(channel >> SHIFT, 0, 255).astype(np.uint8) for channel in sums], -1)
