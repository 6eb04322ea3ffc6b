"""The chain on the CPU, over numpy memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from page4d.errors import OutOfMemoryError
from page4d.manifest import Manifest, StageEntry
from page4d.system.memory import available_memory
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.buffer_plan import BufferPlan, TensorSlot
from page4d_engines.runtime.chain import Arrays, Observe
from page4d_engines.runtime.engine import HostEngine
from page4d_engines.runtime.schedule import ChooseView, CopyRows, Run, schedule

_Action = tuple[Run | CopyRows | ChooseView, Callable[[], None]]
_SCRATCH = 6  # sizes of the largest tensor; 7 to 8 were measured, so what is refused surely does not fit


class HostChain:
    """A `Chain` whose inputs and outputs lie where the engines use them: only kept layers are copied."""

    def __init__(
        self,
        folder: EngineFolder,
        constants: Arrays,
        load: Callable[[StageEntry], HostEngine],
        library: str,
        sliding: bool = False,
    ) -> None:
        """Allocate, load, bind.

        Args:
            folder: the engines.
            constants: values from outside that do not change, by name.
            load: makes a stage's engine.
            library: the name of the library that computes.
            sliding: keep the encoded tokens for the next window.

        Raises:
            EngineError: a file that cannot be loaded.
            OutOfMemoryError: buffers and weights do not fit this machine.
        """
        manifest = folder.manifest
        self.plan = BufferPlan.make(manifest, widen=True, sliding=sliding)
        self.described = f"{library}, computing in float32" if manifest.precision.has_16_bits else library
        _check_memory(self.plan, manifest)
        self._buffers = {name: np.zeros(size, np.uint8) for name, size in self.plan.sizes.items()}
        self.inputs: Arrays = {name: self.at(view) for name, view in self.plan.starts.items()}
        self.outputs: Arrays = {name: self.at(view) for name, view in self.plan.outputs.items()}
        for name, value in constants.items():
            self.inputs[name][:] = value
        engines = {entry.name: load(entry) for entry in manifest.stages}
        self._runs: dict[int, Callable[[], None]] = {}
        for number, call in enumerate(self.plan.calls):
            inputs, outputs = (
                {name: self.at(view) for name, view in views.items()} for views in (call.inputs, call.outputs)
            )
            self._runs[number] = engines[call.stage.name].bind(inputs, outputs)
        self._schedules = {0: self._schedule(0)}

    def run(
        self, progress: Callable[[str], None] | None = None, observe: Observe | None = None, carried: int = 0
    ) -> dict[str, float]:
        """As `Chain.run`."""
        if carried not in self._schedules:
            self._schedules[carried] = self._schedule(carried)
        seconds: dict[str, float] = {}
        stage = ""
        for step, act in self._schedules[carried]:
            if isinstance(step, Run):
                stage = step.call.stage.name
                if progress is not None:
                    progress(stage)
            started = time.perf_counter()
            act()
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
            if observe is not None and isinstance(step, Run) and step.is_last:
                observe(
                    step.call.stage,
                    *({name: self.at(view) for name, view in views.items()} for views in self.plan.whole(step.call)),
                )
        return seconds

    def at(self, view: TensorSlot) -> NDArray[np.generic]:
        """The array that a view of the plan stands for, in place."""
        dtype = np.dtype(view.dtype)
        size = int(np.prod(view.shape)) * dtype.itemsize
        return self._buffers[view.buffer][view.offset : view.offset + size].view(dtype).reshape(view.shape)

    def _schedule(self, carried: int) -> list[_Action]:
        steps: list[_Action] = []
        for step in schedule(self.plan, carried=carried):
            if isinstance(step, Run):
                steps.append((step, self._runs[step.number]))
            elif isinstance(step, CopyRows):
                steps.append((step, self._gather(step)))
            elif isinstance(step, ChooseView):
                steps.append((step, functools.partial(self._choose_view, step)))
        return steps

    def _choose_view(self, step: ChooseView) -> None:
        for copy in step.copies(self.at(step.choice.select), self.inputs.get("present")):
            self._gather(copy)()

    def _gather(self, step: CopyRows) -> Callable[[], None]:
        source = self._buffers[step.source.buffer][step.source_offset :][: step.rows * step.width].reshape(
            step.rows, step.width
        )
        target = as_strided(
            self._buffers[step.target.buffer][step.target_offset :], (step.rows, step.width), (step.pitch, 1)
        )
        # as elements rather than bytes: numpy then copies several at a time
        dtype = np.dtype(step.target.dtype)
        return lambda: np.copyto(target.view(dtype), source.view(dtype))


def _check_memory(plan: BufferPlan, manifest: Manifest) -> None:
    """Refuse what cannot fit, before the machine begins to swap."""
    widened = 2 if manifest.precision.has_16_bits else 1
    scratch = _SCRATCH * 4 * max(entry.largest for entry in manifest.stages)
    needed = plan.total + widened * sum(entry.weight_bytes for entry in manifest.stages) + scratch
    available = available_memory()
    if needed > available:
        raise OutOfMemoryError(
            "the engines do not fit this machine's memory",
            got=(
                f"{needed / 2**30:.1f} GiB needed: buffers {plan.total / 2**30:.1f},"
                f" one stage's scratch {scratch / 2**30:.1f}, the rest weights"
            ),
            allowed=f"{available / 2**30:.1f} GiB free",
            hint="page4d-export with a smaller --T, --V, --height or --width",
        )
