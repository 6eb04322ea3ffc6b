"""The chain as a list of steps, made from a buffer plan alone: what every backend does, in order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.errors import EngineError
from page4d.network.reference_view import balanced_view
from page4d.precision import DTYPE_BYTES
from page4d_engines.runtime.buffer_plan import BufferPlan, LayerCopy, ReferenceChoice, StageCall, TensorSlot


@dataclass(frozen=True)
class Upload:
    """A value from outside comes into its place."""

    name: str
    part: TensorSlot
    """All of it; of the images, what one encoder call reads."""
    reader: int | None = None
    """The call that waits for it, where it may come while others run."""


@dataclass(frozen=True)
class Run:
    """One call of a stage."""

    number: int
    call: StageCall
    is_last: bool
    """Of the stage's calls: its outputs are then whole."""


@dataclass(frozen=True)
class CopyRows:
    """Rows of bytes, side by side in one place, come into columns of another.

    A stage's tokens into a kept layer, a stream at a time; or encoded images into their places in the next window.
    """

    source: TensorSlot
    source_offset: int
    """Of the first row, in bytes from the start of the source's buffer."""
    target: TensorSlot
    target_offset: int
    rows: int
    width: int
    """Bytes of a row; the source's rows follow one another."""
    pitch: int
    """Bytes from a row of the target to the next."""


@dataclass(frozen=True)
class Download:
    """A result leaves its place."""

    name: str
    view: TensorSlot


@dataclass(frozen=True)
class ChooseView:
    """The host reads `choice.select` when all calls before are done, and chooses each clip's reference view."""

    choice: ReferenceChoice

    def copies(self, select: NDArray[np.generic], present: NDArray[np.generic] | None = None) -> list[CopyRows]:
        """The copies to make before the next call, of one row each.

        Args:
            select: what lies at `choice.select`.
            present: 1 for each view that is there, `[..,T,V]`, of which one is chosen; None: all are.
        """
        choice = self.choice
        views = len(select) // choice.clips
        views_present = None if present is None else present.reshape(choice.clips, views).astype(bool)
        chosen = balanced_view(select.reshape(choice.clips, views, -1).astype(np.float64), views_present)
        copies = []
        for clip, view in enumerate(chosen.tolist()):
            first = clip * views
            # of view 0 both are as they should be
            pairs = ((first, first + view), (first + 1, first)) if view else ()
            copies += [_special_row(choice, source, target) for source, target in pairs]
        return copies


Step = Upload | Run | CopyRows | ChooseView | Download


def schedule(plan: BufferPlan, constants: frozenset[str] = frozenset({"special"}), carried: int = 0) -> list[Step]:
    """All steps of one window.

    Args:
        plan: of the buffers.
        constants: values from outside that never change, and so are no step.
        carried: images that the window begins with and the one before ended with; the encoder does not see them again.
            For a sliding plan.

    Raises:
        EngineError: rows would be moved beyond the end of a buffer, or images carried that a plan does not keep.
    """
    steps: list[Step] = [
        Upload(name, view) for name, view in plan.starts.items() if name not in constants and name != "images"
    ]
    calls = plan.calls
    known = frozenset(_known(plan, carried))
    # images go up call by call, so that the next ones can while these are computed on
    steps += [
        Upload("images", call.inputs["images"], number)
        for number, call in enumerate(calls)
        if "images" in call.inputs and number not in known
    ]
    steps += _carries(plan, carried)
    for number, call in enumerate(calls):
        if number in known:
            continue
        is_last = number + 1 == len(calls) or calls[number + 1].stage.name != call.stage.name
        steps.append(Run(number, call, is_last))
        if plan.reference is not None and plan.reference.call == number:
            steps.append(ChooseView(plan.reference))
        for keep in plan.keeps:
            if keep.call == number:
                steps += _gathers(keep, plan.outputs[f"layers.{keep.layer}"])
    steps += [Download(name, view) for name, view in plan.outputs.items()]
    for step in steps:
        if isinstance(step, CopyRows):
            _check_inside(plan, step)
    return steps


def _special_row(choice: ReferenceChoice, source: int, target: int) -> CopyRows:
    """Token 0 of one image's special tokens into the tokens of another."""
    item = DTYPE_BYTES[choice.tokens.dtype]
    width = choice.tokens.shape[-1] * item
    return CopyRows(
        source=choice.special,
        source_offset=choice.special.offset + source * math.prod(choice.special.shape[1:]) * item,
        target=choice.tokens,
        target_offset=choice.tokens.offset + target * math.prod(choice.tokens.shape[1:]) * item,
        rows=1,
        width=width,
        pitch=width,
    )


def _check_inside(plan: BufferPlan, step: CopyRows) -> None:
    """Both ends lie inside their buffers, which are plain memory."""
    source_end = step.source_offset + step.rows * step.width
    target_end = step.target_offset + (step.rows - 1) * step.pitch + step.width
    ends = ((step.source.buffer, step.source_offset, source_end), (step.target.buffer, step.target_offset, target_end))
    for buffer, begin, end in ends:
        if not 0 <= begin < end <= plan.sizes[buffer]:
            got = f"bytes {begin} to {end}"
            raise EngineError(
                f"rows of the buffer {buffer} lie outside of it", got=got, allowed=f"{plan.sizes[buffer]} bytes"
            )


def _known(plan: BufferPlan, carried: int) -> Iterator[int]:
    """Calls whose images are all carried; one that has a new image computes the others once more."""
    seen = 0
    for number, call in enumerate(plan.calls):
        if "images" in call.inputs:
            seen += call.inputs["images"].shape[0]
            if seen <= carried:
                yield number


def _carries(plan: BufferPlan, carried: int) -> Iterator[CopyRows]:
    if carried == 0:
        return
    encoded = plan.encoded
    if encoded is None:
        raise EngineError(
            "the buffer plan keeps nothing of the window before",
            got=f"{carried} images to carry",
            allowed="a sliding plan",
        )
    images, width = encoded.shape[0], math.prod(encoded.shape[1:]) * DTYPE_BYTES[encoded.dtype]
    step = images - carried
    # in order and no more than the distance at once: what is read was not written over
    for first in range(0, carried, step):
        yield CopyRows(
            source=encoded,
            source_offset=encoded.offset + (first + step) * width,
            target=encoded,
            target_offset=encoded.offset + first * width,
            rows=min(step, carried - first),
            width=width,
            pitch=width,
        )
    special = plan.starts["special"]  # these tokens belong to the place in the window, not to the image
    yield CopyRows(
        source=special,
        source_offset=special.offset,
        target=encoded,
        target_offset=encoded.offset,
        rows=carried,
        width=math.prod(special.shape[1:]) * DTYPE_BYTES[special.dtype],
        pitch=width,
    )


def _gathers(keep: LayerCopy, target: TensorSlot) -> Iterator[CopyRows]:
    """`[S or 1,..,N,C]` into its part of `[..,N,S*parts*C]`; a stage that computes one stream stands for all S."""
    computed, *rest, channels = keep.source.shape
    rows, width = math.prod(rest), channels * DTYPE_BYTES[target.dtype]
    pitch = target.shape[-1] * DTYPE_BYTES[target.dtype]
    # tokens of several calls are not kept; a kept layer's source is a whole tensor
    for stream in range(pitch // (width * keep.parts)):
        yield CopyRows(
            source=keep.source,
            source_offset=keep.source.offset + min(stream, computed - 1) * rows * width,
            target=target,
            target_offset=target.offset + (stream * keep.parts + keep.part) * width,
            rows=rows,
            width=width,
            pitch=pitch,
        )
