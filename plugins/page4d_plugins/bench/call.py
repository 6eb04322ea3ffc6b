"""One call of an attention op on random inputs: what the benchmark times and the tests on a GPU check."""

from __future__ import annotations

import enum
import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.network.attention import EpipolarPrior
from page4d.ops import BiasedRows
from page4d_plugins.launch_plan import Shape, Strides
from page4d_plugins.modes import HEAD_DIM, Dtype, Keys, Mode

TORCH_TYPES = {Dtype.FLOAT16: torch.float16, Dtype.BFLOAT16: torch.bfloat16}
IMAGE = 518
"""Height and width in pixels of the published models' images: 1374 tokens a frame."""
_DILATIONS = (1, 2, 4)
_LANDMARKS = 64  # anchors of a frame
_MEMORY = 32  # memory tokens


class Call(NamedTuple):
    """Inputs of one call, by the names that the op gives them."""

    mode: Mode
    tensors: dict[str, Tensor]
    rows: BiasedRows | None = None
    band: float = 0.0
    """Pixels."""
    penalty: float = 0.0

    @property
    def groups(self) -> int:
        """Query groups: those of the segments, the views of the epipolar prior, else one."""
        if self.mode.keys is Keys.SEGMENTS:
            return len(self.tensors["seg_ptr"]) - 1
        return len(self.tensors["fundamental"]) if self.mode is Mode.EPIPOLAR else 1

    @property
    def dtype(self) -> Dtype:
        """The type of q, k and v."""
        return Dtype.named(str(self.tensors["q"].dtype).removeprefix("torch."))

    @property
    def epipolar(self) -> EpipolarPrior | None:
        """The prior as the op takes it."""
        if self.mode is not Mode.EPIPOLAR:
            return None
        return EpipolarPrior(self.tensors["fundamental"], self.tensors["centres"], self.band, self.penalty)

    @property
    def shape(self) -> Shape:
        """The shape as the launcher takes it."""
        Z, A, n, D = self.tensors["q"].shape
        q, k, v = (Strides(*self.tensors[name].stride()[:3]) for name in "qkv")
        segments = len(self.tensors["seg"]) if "seg" in self.tensors else 0
        return Shape(
            mode=self.mode,
            dtype=self.dtype,
            Z=Z,
            A=A,
            n=n,
            m=self.tensors["k"].shape[2],
            D=D,
            groups=self.groups,
            segments=segments,
            rows=self.rows,
            band=self.band,
            penalty=self.penalty,
            q=q,
            k=k,
            v=v,
        )

    def ranges(self) -> list[list[tuple[int, int]]]:
        """(start, length) of the keys that each query group reads."""
        if self.mode.keys is not Keys.SEGMENTS:
            return [[(0, self.tensors["k"].shape[2])]] * self.groups
        pointers, segments = (
            self.tensors["seg_ptr"].tolist(),
            [(start, length) for start, length in self.tensors["seg"].tolist()],
        )
        return [segments[begin:end] for begin, end in itertools.pairwise(pointers)]

    @property
    def flop(self) -> int:
        """FLOP of both products, over the keys that are read: 4 * queries * keys * D * A * Z."""
        Z, A, n, D = self.tensors["q"].shape
        read = sum(length for group in self.ranges() for _, length in group)
        return 4 * Z * A * D * (n // self.groups) * read

    @property
    def size(self) -> int:
        """Bytes of all inputs."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class Form(enum.Enum):
    """A use of attention in the model, on all tokens of a clip as queries where nothing else is said."""

    DENSE = "dense"
    BIASED = "key bias"
    ROWS = "rows"
    """A key bias that the special tokens of each frame alone see."""
    EPIPOLAR = "epipolar"
    """Every frame a view of its own."""
    DILATED = "dilated"
    """Key segments: the frames of the T x V grid around a query's, 1, 2 and 4 steps off."""
    ALIBI = "alibi"
    """Key segments: every frame reads every frame, a bias by head and segment."""
    LANDMARK = "landmark"
    """64 keys a frame."""
    MEMORY = "memory read"
    """32 queries."""
    MEMORY_BIASED = "memory read, key bias"

    @property
    def mode(self) -> Mode:
        """The op's mode."""
        return {
            Form.BIASED: Mode.BIASED,
            Form.MEMORY_BIASED: Mode.BIASED,
            Form.ROWS: Mode.ROWS,
            Form.EPIPOLAR: Mode.EPIPOLAR,
            Form.DILATED: Mode.SEGMENTS,
            Form.ALIBI: Mode.SEGMENTS_BIASED,
        }.get(self, Mode.DENSE)


def layout_for(keys: int, image: int = IMAGE) -> Layout:
    """A clip of so many tokens, about as long as wide up to 4 views.

    Args:
        keys: T*V*N.
        image: height and width in pixels.

    Raises:
        UsageError: the keys are not whole frames.
    """
    N = Layout(1, 1, image, image).N
    frames = keys // N
    if frames < 1 or keys % N:
        below = max(frames, 1) * N
        raise UsageError("the keys are not whole frames", got=keys, allowed=f"multiples of {N}", hint=f"--keys {below}")
    V = next(V for V in (4, 2, 1) if frames >= V * V and frames % V == 0)
    return Layout(frames // V, V, image, image)


def form_call(form: Form, layout: Layout, dtype: Dtype, sequences: int, heads: int, device: str, seed: int = 0) -> Call:
    """Random inputs of one use.

    Args:
        form: the use.
        layout: of the clip; n = `layout.global_tokens` but for the memory.
        dtype: of q, k, v and biases.
        sequences: Z.
        heads: A.
        device: where the tensors lie.
        seed: equal seeds give equal inputs.
    """
    memory = form in (Form.MEMORY, Form.MEMORY_BIASED)
    sizes = (
        sequences,
        heads,
        _MEMORY if memory else layout.global_tokens,
        layout.anchors(_LANDMARKS) if form is Form.LANDMARK else layout.global_tokens,
    )
    lists: tuple[Tensor, Tensor] | None = None
    if form in (Form.DILATED, Form.ALIBI):
        one_view = Layout(layout.frames, 1, layout.H, layout.W)
        seg_ptr, seg = layout.dilated_segments(_DILATIONS) if form is Form.DILATED else one_view.time_segments()
        lists = torch.from_numpy(seg_ptr), torch.from_numpy(seg)
    rows = BiasedRows(layout.N, layout.special, -1.5) if form is Form.ROWS else None
    return random_call(
        form.mode, dtype, sizes, device, seed, segments=lists, centres=centres(layout), views=layout.frames, rows=rows
    )


def random_call(
    mode: Mode,
    dtype: Dtype,
    sizes: tuple[int, int, int, int],
    device: str,
    seed: int = 0,
    *,
    D: int = HEAD_DIM,
    segments: tuple[Tensor, Tensor] | None = None,
    centres: Tensor | None = None,
    views: int = 1,
    rows: BiasedRows | None = None,
) -> Call:
    """Random inputs of one mode.

    Args:
        mode: one of an op; not a mode of parts.
        dtype: of q, k, v and biases.
        sizes: Z, A, n, m.
        device: where the tensors lie.
        seed: equal seeds give equal inputs.
        D: channels of a head.
        segments: seg_ptr and seg, where the mode reads segments.
        centres: `[N,3]`, where there are epipolar lines.
        views: V, where there are epipolar lines.
        rows: the rows that are biased, where some are.
    """
    Z, A, n, m = sizes
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=TORCH_TYPES[dtype])

    tensors = {"q": normal(Z, A, n, D), "k": normal(Z, A, m, D), "v": normal(Z, A, m, D)}
    if mode.has_bias:
        tensors["key_bias"] = 2 * normal(Z, m)
    if mode is Mode.EPIPOLAR:
        assert centres is not None
        pixels = torch.tensor([1.0, 1.0, 300.0], device=device)  # so that lines cross the image
        fundamental = torch.randn(views, views, 3, 3, generator=generator, device=device) * pixels[:, None] * pixels
        fundamental[range(views), range(views)] = 0.0  # a view has no lines in itself
        return Call(mode, tensors | {"fundamental": fundamental, "centres": centres.to(device)}, band=20.0, penalty=4.0)
    if mode.keys is Keys.SEGMENTS:
        assert segments is not None
        tensors |= {"seg_ptr": segments[0].to(device), "seg": segments[1].to(device)}
        if mode is Mode.SEGMENTS_BIASED:
            tensors["segment_bias"] = 2 * normal(A, len(segments[1]))
    return Call(mode, tensors, rows)


def centres(layout: Layout) -> Tensor:
    """Places of a view's tokens in pixels, `[N,3]`; zeros for special tokens."""
    y, x = torch.meshgrid(torch.arange(layout.h) + 0.5, torch.arange(layout.w) + 0.5, indexing="ij")
    places = torch.stack((x.flatten() * layout.PATCH, y.flatten() * layout.PATCH, torch.ones(layout.P)), dim=1)
    return torch.cat((torch.zeros(layout.special, 3), places))
