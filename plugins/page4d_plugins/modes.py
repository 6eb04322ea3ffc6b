"""Which kernels there are: how keys are chosen and biased, the dtypes, the tiles of each GPU architecture."""

from __future__ import annotations

import enum
from typing import NamedTuple

from page4d.errors import UsageError

HEAD_DIM = 64
"""Channels of a head in the pack; every model of this project has it."""


class Dtype(enum.Enum):
    """Type of q, k, v and the output; products and softmax are float32 in both."""

    FLOAT16 = "fp16"
    BFLOAT16 = "bf16"

    @classmethod
    def named(cls, name: str) -> Dtype:
        """From the name of a tensor's type in PyTorch and the manifest."""
        try:
            return cls[name.upper()]
        except KeyError:
            raise UsageError(
                "the attention kernels compute in 16 bits", got=name, allowed="float16, bfloat16"
            ) from None


class Bytes(enum.Enum):
    """Type of cameras' images, in the place of `Dtype`."""

    UINT8 = "u8"


class Keys(enum.IntEnum):
    """Which keys a group of queries reads."""

    RANGE = 0
    """One range: all keys, or one of the parts that keys are split into."""
    SEGMENTS = 1
    """The ranges of a CSR list."""
    VIEWS = 2
    """All keys, view by view, each view with its own epipolar lines."""


class Mode(enum.Enum):
    """What a kernel computes, beyond softmax(q k / sqrt(D)) v. The value is the name in the pack."""

    DENSE = "dense"
    BIASED = "biased"
    """A bias per key."""
    ROWS = "rows"
    """A bias per key, for the leading rows of every period only."""
    EPIPOLAR = "epipolar"
    """A bias per key, and a penalty off the epipolar line."""
    SEGMENTS = "segments"
    """Key segments by query group, a bias per key."""
    SEGMENTS_BIASED = "segments_biased"
    """Key segments by query group, a bias per key, a bias per head and segment."""
    PARTIAL = "partial"
    """One part of the keys: a float32 result with its log-sum-exp, to be merged."""
    PARTIAL_BIASED = "partial_biased"
    """One part of the keys, a bias per key."""

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias per key."""
        return self not in (Mode.DENSE, Mode.PARTIAL)

    @property
    def keys(self) -> Keys:
        """How keys are chosen."""
        if self is Mode.EPIPOLAR:
            return Keys.VIEWS
        return Keys.SEGMENTS if self in (Mode.SEGMENTS, Mode.SEGMENTS_BIASED) else Keys.RANGE

    @property
    def partial(self) -> bool:
        """Whether it computes one of several parts."""
        return self in (Mode.PARTIAL, Mode.PARTIAL_BIASED)

    @property
    def of_parts(self) -> Mode | None:
        """The mode in which its keys can be split, or None."""
        return {Mode.DENSE: Mode.PARTIAL, Mode.BIASED: Mode.PARTIAL_BIASED}.get(self)


class Tile(NamedTuple):
    """Queries and keys of a block, its warps, its loads in flight, and whether K and V are read by descriptor."""

    queries: int
    keys: int
    warps: int
    stages: int
    descriptors: bool = False


class Chip(NamedTuple):
    """Tiles of one GPU architecture."""

    tile: Tile
    epipolar: Tile
    """Lines and distances take registers: with as many keys as `tile` they would spill."""
    part: Tile
    """For split keys: few queries."""
    segments: Tile | None = None
    """For key segments; None: as `tile`."""

    def of(self, mode: Mode) -> Tile:
        """The tile of a mode."""
        if mode.partial:
            return self.part
        if mode.keys is Keys.SEGMENTS and self.segments is not None:
            return self.segments
        return self.epipolar if mode is Mode.EPIPOLAR else self.tile


_AMPERE = Chip(Tile(128, 64, 8, 2), Tile(128, 32, 8, 2), Tile(64, 64, 4, 2))
_ORIN = Chip(Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(64, 64, 4, 2))
# measured on an H100 (docs/performance.md): with few rows several blocks share a multiprocessor, and the softmax of one
# runs beside the products of another
_HOPPER = Chip(Tile(64, 64, 4, 2, True), Tile(64, 32, 4, 3), Tile(64, 64, 4, 3, True), Tile(64, 128, 4, 3, True))
_BLACKWELL = Chip(Tile(128, 128, 8, 2), Tile(128, 32, 8, 2), Tile(64, 64, 4, 2))

CHIPS: dict[int, Chip] = {
    80: _AMPERE,  # A100
    86: _AMPERE,  # RTX 30, A10
    87: _ORIN,
    89: _AMPERE,  # RTX 40, L4
    90: _HOPPER,  # H100, H200
    100: _BLACKWELL,  # B200
    103: _BLACKWELL,  # B300
    110: _BLACKWELL,  # Thor
    120: _AMPERE,  # RTX 50
    121: _AMPERE,  # DGX Spark
}
"""By compute capability, times ten."""

FALLBACK = 80
"""The architecture whose PTX a driver can compile for any newer one."""


def chip_for(capability: int) -> int:
    """The architecture whose kernels run on a GPU: its own, else the fallback's, compiled by the driver.

    Raises:
        UsageError: the GPU is older than the fallback.
    """
    if capability < FALLBACK:
        raise UsageError(
            "the attention kernels do not run on this GPU", got=f"sm_{capability}", allowed=f"sm_{FALLBACK} or newer"
        )
    return capability if capability in CHIPS else FALLBACK
