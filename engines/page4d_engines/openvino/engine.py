"""A stage in OpenVINO, bound to memory that its caller owns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.errors import EngineError
from page4d.manifest import StageEntry
from page4d.precision import Precision
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino import int8
from page4d_engines.openvino.device import HINTS, core
from page4d_engines.openvino.library import cache_folder, library, translated


def settings(device: str, precision: Precision, threads: int) -> dict[str, Any]:
    """What a stage is compiled with, by OpenVINO's names.

    Args:
        device: as OpenVINO names it.
        precision: to compute in, of those that the device has.
        threads: of a CPU.
    """
    hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if device.startswith("CPU"):
        # unpinned: the threads of a second pipeline, or of the host's program, would be pinned to the same cores
        hints |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    hints |= int8.settings()
    if (folder := cache_folder()) is not None:
        hints["CACHE_DIR"] = str(folder)
    return hints


class OpenVinoEngine:
    """One compiled model.

    Args:
        folder: the engines.
        entry: the stage; its own graph is read, and its weights are mapped.
        device: as OpenVINO names it.
        hints: its `settings`.

    Raises:
        EngineError: OpenVINO does not accept the file.
        MissingBackendError: OpenVINO is not there.
        OutOfMemoryError: the weights do not fit.
    """

    def __init__(self, folder: EngineFolder, entry: StageEntry, device: str, hints: dict[str, Any]) -> None:
        self._name = folder.file(entry.file).name
        try:
            model = core().read_model(folder.file(entry.file))
            _widen_borders(model)
            self._compiled = core().compile_model(model, device, hints)
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
                # memory of between its operations, which every stage would else keep for itself
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


def _widen_borders(model: Any) -> None:
    """Inputs and outputs of 16 bits become float32, as the chain's memory has them on a host."""
    types, preprocess = library().Type, library().preprocess
    narrow = (types.f16, types.bf16)
    steps = preprocess.PrePostProcessor(model)
    for number, port in enumerate(model.inputs):
        if port.get_element_type() in narrow:
            steps.input(number).tensor().set_element_type(types.f32)
    for number, port in enumerate(model.outputs):
        if port.get_element_type() in narrow:
            steps.output(number).tensor().set_element_type(types.f32)
    steps.build()
