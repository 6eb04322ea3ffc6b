"""A stage in OpenVINO, bound to memory that its caller owns."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.errors import EngineError
from page4d.manifest import Manifest, StageEntry
from page4d.precision import Precision
from page4d.system.memory import available_memory
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino.device import HINTS, core
from page4d_engines.openvino.library import alone_in_cache, cache_folder, library, translated
from page4d_engines.openvino.wide_graph import widen

_BETWEEN = 2  # sizes of a stage's largest tensor that lie between its operations; 1 to 2 were measured
_KEPT_SHARE = 0.25  # of the memory that is free when the engines are loaded


def settings(device: str, precision: Precision, threads: int) -> dict[str, Any]:
    """What a stage is compiled with, by OpenVINO's names.

    Args:
        device: as OpenVINO names it.
        precision: to compute in, of those that the device has.
        threads: of a CPU.
    """
    hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if device.startswith("CPU"):
        # Pinned threads are an eighth faster where stages are short. Where a pipeline takes only some of the CPUs, its
        # threads stay free: two such pipelines would be pinned to the same ones.
        has_all = threads == os.cpu_count() == len(os.sched_getaffinity(0))
        hints |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": has_all}
    if (folder := cache_folder(HINTS[precision])) is not None:
        hints["CACHE_DIR"] = str(folder)
    return hints


def keeps_memory(manifest: Manifest, precision: Precision) -> bool:
    """Whether stages keep the memory of between their operations from call to call, as much as this machine has free.

    To give it back and take it again costs a tenth of the time at `vitb` 518x518 in bfloat16.

    Args:
        manifest: of the engines.
        precision: that they are computed in.
    """
    width = 4 if precision is Precision.FLOAT32 else 2
    needed = _BETWEEN * width * sum(entry.largest for entry in manifest.stages)
    return needed <= _KEPT_SHARE * available_memory()


class OpenVinoEngine:
    """One compiled model.

    Args:
        folder: the engines.
        entry: the stage; its own graph is read, and its weights are mapped.
        device: as OpenVINO names it.
        hints: its `settings`.
        keeps_memory: whether it keeps the memory of between its operations after a call.

    Raises:
        EngineError: OpenVINO does not accept the file.
        MissingBackendError: OpenVINO is not there.
        OutOfMemoryError: the weights do not fit.
    """

    def __init__(
        self, folder: EngineFolder, entry: StageEntry, device: str, hints: dict[str, Any], keeps_memory: bool = False
    ) -> None:
        self._name = folder.file(entry.file).name
        self._keeps_memory = keeps_memory
        try:
            model = core().read_model(folder.file(entry.file))
            widen(model)
            with alone_in_cache(hints.get("CACHE_DIR")) as has_cache:
                used = {name: value for name, value in hints.items() if has_cache or name != "CACHE_DIR"}
                self._compiled = core().compile_model(model, device, used)
        except RuntimeError as error:  # of OpenVINO, for everything
            raise translated(error, self._name, "cannot be loaded by") from error

    def bind(
        self, inputs: dict[str, NDArray[np.generic]], outputs: dict[str, NDArray[np.generic]]
    ) -> Callable[[], None]:
        """As `HostEngine.bind`: OpenVINO reads and writes the arrays' own memory.

        Raises:
            EngineError: an array is missing, or has another size or type than the graph's.
        """
        request = self._compiled.create_infer_request()
        for ports, arrays in ((self._compiled.inputs, inputs), (self._compiled.outputs, outputs)):
            for port in ports:
                array = self._bound(port, arrays)
                request.set_tensor(port, library().Tensor(array.reshape(tuple(port.shape)), shared_memory=True))

        def call() -> None:
            try:
                request.start_async()  # `infer` would also make arrays of the results
                request.wait()
                if not self._keeps_memory:
                    self._compiled.release_memory()
            except RuntimeError as error:
                raise translated(error, self._name, "failed in") from error

        return call

    def _bound(self, port: Any, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.generic]:
        """The array of an input or output, whose memory OpenVINO will use; its shape may be a view.

        Raises:
            EngineError: there is none, or it has another size or type.
        """
        names = port.names
        array = next((arrays[name] for name in names if name in arrays), None)
        if (
            array is None
            or array.size != math.prod(port.shape)
            or not array.flags.c_contiguous
            or port.element_type.to_dtype() != array.dtype
        ):
            got = "nothing" if array is None else f"{array.dtype.name} {list(array.shape)}"
            what = f"{' or '.join(sorted(names))} of {self._name} does not lie in memory as its graph says"
            allowed = f"{port.element_type.get_type_name()} {list(port.shape)}"
            raise EngineError(what, got=got, allowed=allowed, hint="page4d-export again")
        return array
