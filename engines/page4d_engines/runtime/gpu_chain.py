"""The chain on a GPU: buffers are allocated once, addresses never change, and all of it is one CUDA graph.

Where the host chooses a reference view it is two, one before the choice and one after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  numpy then knows bfloat16 by name
import numpy as np
from numpy.typing import NDArray

from page4d.errors import EngineError, OutOfMemoryError
from page4d_engines.runtime.buffer_plan import BufferPlan, TensorSlot
from page4d_engines.runtime.chain import Arrays, Observe
from page4d_engines.runtime.cuda_device import CudaDevice
from page4d_engines.runtime.engine import GpuEngine
from page4d_engines.runtime.schedule import ChooseView, CopyRows, Download, Run, Step, Upload, schedule

_LOG = logging.getLogger("page4d.gpu")
_MIB = 1 << 20


class GpuChain:
    """A `Chain` on a GPU, which allocates nothing after its construction.

    Frames are uploaded from pinned memory, those of one encoder call while the encoder computes on those before.
    """

    def __init__(
        self, gpu: CudaDevice, plan: BufferPlan, engines: Mapping[str, GpuEngine], constants: Arrays, described: str
    ) -> None:
        """Allocate, bind, run once on zeros, capture.

        Args:
            gpu: where.
            plan: of the buffers, in the engines' types.
            engines: by stage name.
            constants: values from outside that do not change, by name.
            described: a description of the library and device that compute.

        Raises:
            OutOfMemoryError: the buffers do not fit the GPU.
        """
        self.plan, self.described, self._gpu = plan, described, gpu
        scratch = max(engine.scratch for engine in engines.values())
        _check_memory(gpu, plan.total + scratch)
        self._addresses = {name: gpu.allocate(size) for name, size in plan.sizes.items()}
        block = gpu.allocate(scratch)
        self._constants = frozenset(constants)
        steps = schedule(plan, self._constants)
        self.inputs: Arrays = {name: gpu.pinned(view.shape, np.dtype(view.dtype)) for name, view in plan.starts.items()}
        self.outputs: Arrays = {
            name: gpu.pinned(view.shape, np.dtype(view.dtype)) for name, view in plan.outputs.items()
        }
        for name, value in constants.items():
            np.copyto(self.inputs[name], value.reshape(self.inputs[name].shape), casting="same_kind")
            gpu.upload(self._at(plan.starts[name]), self.inputs[name], gpu.stream)
        if "present" in self.inputs:  # of the first run, too, some image has to be there
            self.inputs["present"].fill(1)
        self._started = gpu.event()
        self._arrived = {
            step.reader: gpu.event() for step in steps if isinstance(step, Upload) and step.reader is not None
        }
        self._steps = steps
        self._launches = {
            step.number: engines[step.call.stage.name].bind(
                {name: self._at(view) for name, view in step.call.inputs.items()},
                {name: self._at(view) for name, view in step.call.outputs.items()},
                block,
            )
            for step in steps
            if isinstance(step, Run)
        }
        self._begin = gpu.event(timing=True)
        self._ends = {number: gpu.event(timing=True) for number in self._launches}
        choice = plan.reference
        self._select = None if choice is None else gpu.pinned(choice.select.shape, np.dtype(choice.select.dtype))
        self._graphs: list[Any] = []
        self._put(steps, captured=False)
        gpu.synchronize()
        reasons = dict.fromkeys(engine.uncapturable for engine in engines.values() if engine.uncapturable)
        if not reasons:
            try:
                self._graphs = [self._captured(number, part) for number, part in enumerate(_device_parts(steps))]
            except (RuntimeError, EngineError) as error:
                reasons = {str(error): None}
        if not self._graphs:
            _LOG.warning("no CUDA graph, the calls are launched one by one: %s", "; ".join(map(str, reasons)))

    @property
    def has_graph(self) -> bool:
        """Whether a run is the launch of CUDA graphs: one, or with a chosen reference view two."""
        return bool(self._graphs)

    def run(
        self, progress: Callable[[str], None] | None = None, observe: Observe | None = None, carried: int = 0
    ) -> dict[str, float]:
        """As `Chain.run`; the graph is of whole windows, one that carries images is launched call by call."""
        steps = schedule(self.plan, self._constants, carried) if carried else self._steps
        runs = [step for step in steps if isinstance(step, Run)]
        if progress is not None:
            for step in runs:  # all at once: putting them on the GPU takes next to no time
                progress(step.call.stage.name)
        if observe is not None:
            self._put(steps, captured=False, after=lambda step: self._observed(step, observe))
        elif self._graphs and not carried:
            choices = [step for step in steps if isinstance(step, ChooseView)]
            for number, graph in enumerate(self._graphs):
                if number > 0:
                    self._step(choices[number - 1], captured=False)
                self._gpu.launch(graph)
        else:
            self._put(steps, captured=False)
        self._gpu.synchronize()
        seconds: dict[str, float] = {}
        before = self._begin
        for step in runs:
            name, end = step.call.stage.name, self._ends[step.number]
            seconds[name] = seconds.get(name, 0.0) + self._gpu.seconds(before, end)
            before = end
        return seconds

    def _captured(self, number: int, part: list[Step]) -> Any:
        """The graph of one part of the steps."""
        with self._gpu.capture() as graphs:
            self._put(part, captured=True, begins=number == 0)
        return graphs[0]

    def _put(
        self,
        steps: list[Step],
        captured: bool,
        after: Callable[[Run], None] = lambda step: None,
        begins: bool = True,
    ) -> None:
        """Put steps on the streams; those that begin a run have all uploads that go beside it."""
        gpu = self._gpu
        if begins:
            gpu.record_time(self._begin, gpu.stream, captured)
            gpu.record(self._started, gpu.stream)
            gpu.wait(gpu.uploads, self._started)  # the second stream is part of what this one does, and of its capture
        for step in steps:
            self._step(step, captured)
            if isinstance(step, Run):
                after(step)

    def _step(self, step: Step, captured: bool) -> None:
        gpu = self._gpu
        if isinstance(step, Upload):
            array, stream = _part(self.inputs[step.name], step.part), gpu.stream if step.reader is None else gpu.uploads
            gpu.upload(self._at(step.part), array, stream)
            if step.reader is not None:
                gpu.record(self._arrived[step.reader], stream)
        elif isinstance(step, Run):
            if step.number in self._arrived:
                gpu.wait(gpu.stream, self._arrived[step.number])
            self._launches[step.number](gpu.stream)
            gpu.record_time(self._ends[step.number], gpu.stream, captured)
        elif isinstance(step, CopyRows):
            source = self._addresses[step.source.buffer] + step.source_offset
            target = self._addresses[step.target.buffer] + step.target_offset
            gpu.copy_rows(target, step.pitch, source, step.width, step.rows, gpu.stream)
        elif isinstance(step, ChooseView):
            assert self._select is not None
            gpu.download(self._select, self._at(step.choice.select), gpu.stream)
            gpu.synchronize()
            for copy in step.copies(self._select, self.inputs.get("present")):
                self._step(copy, captured)
        else:
            assert isinstance(step, Download)
            gpu.download(self.outputs[step.name], self._at(step.view), gpu.stream)

    def _observed(self, step: Run, observe: Observe) -> None:
        if step.is_last:
            inputs, outputs = (
                {name: self._fetched(view) for name, view in views.items()} for views in self.plan.whole(step.call)
            )
            observe(step.call.stage, inputs, outputs)

    def _fetched(self, view: TensorSlot) -> NDArray[Any]:
        array = np.empty(view.shape, np.dtype(view.dtype))
        self._gpu.download(array, self._at(view), self._gpu.stream)
        self._gpu.synchronize()
        return array

    def _at(self, view: TensorSlot) -> int:
        return self._addresses[view.buffer] + view.offset


def _part(array: NDArray[Any], view: TensorSlot) -> NDArray[Any]:
    """The bytes of a whole value that a view of its buffer stands for."""
    dtype = np.dtype(view.dtype)
    begin = view.offset // dtype.itemsize
    return array.reshape(-1)[begin : begin + int(np.prod(view.shape))]


def _device_parts(steps: list[Step]) -> list[list[Step]]:
    """The steps without the host's, which part them."""
    parts: list[list[Step]] = [[]]
    for step in steps:
        if isinstance(step, ChooseView):
            parts.append([])
        else:
            parts[-1].append(step)
    return parts


def _check_memory(gpu: CudaDevice, needed: int) -> None:
    free = gpu.free()
    if needed > free:
        raise OutOfMemoryError(
            "buffers and scratch do not fit the GPU",
            got=f"{needed / _MIB:.1f} MiB needed beside the weights",
            allowed=f"{free / _MIB:.1f} MiB free",
            hint="page4d-export with a smaller --T, --V, --height or --width",
        )
