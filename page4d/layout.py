"""`Layout`: the shape of a clip, and the only place where a count is computed from it."""

from __future__ import annotations

import itertools
import operator
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from page4d.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """A clip of `T` timesteps seen by `V` views at `H` x `W` pixels, `B` clips side by side.

    `registers` counts the register tokens of an image, 0 or 4: the model decides, and `ModelConfig.settled` sets it.
    The model, the exporter and the buffer plan take every size from here. A layout is fixed per engine. The axis `B`
    stands before `T` and is left out of every shape where `B` is 1. Sizes are whole numbers up to `LARGEST`, as in a
    manifest; `ExportPlan.make` bounds what can be exported further.

    Raises:
        UsageError: a size that is no whole number, below 1 or above `LARGEST`, or `H`, `W` not a multiple of the patch
            size.
    """

    T: int
    V: int
    H: int
    W: int
    B: int = 1
    registers: int = 4

    PATCH: ClassVar[int] = 14
    REGISTERS: ClassVar[int] = 4
    LARGEST: ClassVar[int] = 65535

    def __post_init__(self) -> None:
        for name in ("T", "V", "B", "H", "W"):
            object.__setattr__(self, name, self._whole(name, getattr(self, name)))
        for name in ("T", "V", "B"):
            size = getattr(self, name)
            if not 1 <= size <= self.LARGEST:
                what = f"the layout's {name} is too {'small' if size < 1 else 'large'}"
                raise UsageError(what, got=size, allowed=f"1 to {self.LARGEST}")
        if self.registers not in (0, self.REGISTERS):
            raise UsageError(
                "the layout's registers are no model's", got=self.registers, allowed=f"0 or {self.REGISTERS}"
            )
        for side, size in (("height", self.H), ("width", self.W)):
            if size > self.LARGEST:
                most = self.LARGEST // self.PATCH * self.PATCH
                raise UsageError(f"the image {side} is too large", got=size, allowed=f"up to {most} pixels")
            if size < self.PATCH or size % self.PATCH:
                below = max(size // self.PATCH, 1) * self.PATCH
                what = f"the image {side} is not a multiple of the patch size {self.PATCH}"
                raise UsageError(what, got=size, allowed=f"{below} or {below + self.PATCH}")

    def _whole(self, name: str, size: object) -> int:
        """A size as an int, from any integer type."""
        if isinstance(size, typing.SupportsIndex) and not isinstance(size, bool):
            return operator.index(size)
        allowed = f"1 to {self.LARGEST}"
        raise UsageError(f"the layout's {name} is no whole number", got=repr(size)[:100], allowed=allowed)

    def __str__(self) -> str:
        clips = f"B={self.B} " if self.B > 1 else ""
        return f"{clips}T={self.T} V={self.V} {self.H}x{self.W}"

    # ---- one image

    @property
    def h(self) -> int:
        """Rows of patches."""
        return self.H // self.PATCH

    @property
    def w(self) -> int:
        """Columns of patches."""
        return self.W // self.PATCH

    @property
    def P(self) -> int:
        """Patches of an image."""
        return self.h * self.w

    @property
    def special(self) -> int:
        """Special tokens in front of the patches: one camera token, then the registers."""
        return 1 + self.registers

    @property
    def N(self) -> int:
        """Tokens of a view."""
        return self.special + self.P

    # ---- the clip

    @property
    def images(self) -> int:
        """Images of all clips, t slow, v fast."""
        return self.B * self.T * self.V

    @property
    def frames(self) -> int:
        """Images (t, v) of one clip."""
        return self.T * self.V

    @property
    def view_tokens(self) -> int:
        """Length of a View-SA sequence."""
        return self.V * self.N

    @property
    def time_tokens(self) -> int:
        """Length of a Time-SA sequence."""
        return self.T * self.N

    @property
    def global_tokens(self) -> int:
        """Tokens of a whole clip and stream."""
        return self.T * self.V * self.N

    def anchors_per_frame(self, landmarks: int) -> int:
        """Anchors that `landmark` Global-SA takes from each (t, v)."""
        return min(landmarks, self.P)

    def anchors(self, landmarks: int) -> int:
        """Anchors of the whole clip: the keys of `landmark` Global-SA."""
        return self.frames * self.anchors_per_frame(landmarks)

    # ---- shapes as a caller sees them (B left out where it is 1)

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes before T: (B,), or none."""
        return (self.B,) if self.B > 1 else ()

    @property
    def images_shape(self) -> tuple[int, ...]:
        """uint8 RGB images `[T,V,H,W,3]`."""
        return (*self.lead, self.T, self.V, self.H, self.W, 3)

    @property
    def pixel_map_shape(self) -> tuple[int, ...]:
        """One value per pixel, `[T,V,H,W]`: confidence."""
        return self.images_shape[:-1]

    @property
    def image_map_shape(self) -> tuple[int, ...]:
        """One value per image, `[T,V]`: whether it is there."""
        return self.images_shape[:-3]

    def pose_shape(self, numbers: int) -> tuple[int, ...]:
        """Some values per image, `[T,V,numbers]`: a camera's pose."""
        return (*self.lead, self.T, self.V, numbers)

    @property
    def patch_map_shape(self) -> tuple[int, ...]:
        """One value per patch, `[T,V,P,1]`: external mask, keypoints, the mask inside the network."""
        return (*self.lead, self.T, self.V, self.P, 1)

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The mask as a result, `[T,V,h,w]`."""
        return (*self.lead, self.T, self.V, self.h, self.w)

    @property
    def fundamental_shape(self) -> tuple[int, ...]:
        """Fundamental matrices of all pairs of views, `[V,V,3,3]`."""
        return (self.V, self.V, 3, 3)

    def tokens_shape(self, streams: int, width: int) -> tuple[int, ...]:
        """Tokens between stages, `[S,T,V,N,C]`."""
        return (streams, *self.lead, self.T, self.V, self.N, width)

    def layer_shape(self, channels: int) -> tuple[int, ...]:
        """A kept layer, `[T,V,N,S*C]` (`channels` = S*C, twice that with pair output)."""
        return (*self.lead, self.T, self.V, self.N, channels)

    def memory_shape(self, streams: int, memory_tokens: int, width: int) -> tuple[int, ...]:
        """Memory tokens, `[S,M,C]`."""
        return (streams, *self.lead, memory_tokens, width)

    # ---- which keys a query group (N queries each) reads, as CSR lists of key ranges (start, length)

    def time_segments(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Time-SA by timesteps: queries of t read every timestep as a segment of its own.

        `seg_ptr [T+1]`, `seg [T*T,2]`.
        """
        return _csr([(key * self.N, self.N) for key in range(self.T)] for _ in range(self.T))

    def dilated_count(self, levels: Iterable[int]) -> int:
        """How many segments `dilated_segments` has, without building them."""
        return sum(max(self.T - abs(t), 0) * max(self.V - abs(v), 0) for t, v in _dilated_steps(levels))

    def dilated_segments(self, levels: Iterable[int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Dilated Global-SA: (t,v) reads itself and its neighbours at every distance l in `levels`.

        These are the (t+a*l, v+b*l) in the grid with a, b in -1, 0, 1, each once. `seg_ptr [T*V+1]`, `seg [s,2]`, one
        segment per key frame, in order.
        """
        steps = _dilated_steps(levels)
        groups = []
        for t, v in itertools.product(range(self.T), range(self.V)):
            near = ((t + down, v + right) for down, right in steps)
            frames = sorted(kt * self.V + kv for kt, kv in near if 0 <= kt < self.T and 0 <= kv < self.V)
            groups.append([(frame * self.N, self.N) for frame in frames])
        return _csr(groups)


def _dilated_steps(levels: Iterable[int]) -> set[tuple[int, int]]:
    """From a frame to those that it reads: itself, and its eight neighbours at every level."""
    signs = itertools.product((-1, 0, 1), (-1, 0, 1))
    return {(0, 0)} | {(a * level, b * level) for (a, b), level in itertools.product(signs, levels)}


def _csr(groups: Iterable[list[tuple[int, int]]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    import numpy as np

    pointers, segments = [0], []
    for group in groups:
        segments += group
        pointers.append(len(segments))
    return np.asarray(pointers, np.int32), np.asarray(segments, np.int32).reshape(-1, 2)
