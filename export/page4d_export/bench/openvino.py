"""OpenVINO as a contestant: the same stages, one compiled model each, chained over the same buffers as the engines."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnx.inliner
from numpy.typing import NDArray

from page4d.manifest import StageEntry
from page4d.precision import Precision
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino.library import library
from page4d_engines.pipeline import Pipeline
from page4d_engines.runtime.host_chain import HostChain
from page4d_export.bench.contestant import Course, Runner, of_pipeline

_PRECISIONS = {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16"}


def openvino(course: Course, precision: Precision) -> Runner:
    """The course's engine folder in OpenVINO on the CPU.

    Raises:
        MissingBackendError: OpenVINO is not installed.
    """
    library()
    hints = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": course.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    engines: list[OpenVinoEngine] = []

    folder = EngineFolder.open(course.engines)

    def load(entry: StageEntry) -> OpenVinoEngine:
        engines.append(OpenVinoEngine(folder.file(entry.file), hints))
        return engines[-1]

    pipeline = Pipeline(folder, Backend.ONNXRUNTIME, lambda constants: HostChain(folder, constants, load, "openvino"))
    used = " and ".join(sorted({engine.precision for engine in engines}))
    note = "" if used == str(precision) else f"asked for {precision}, which OpenVINO does not use on this CPU"
    return of_pipeline(course, pipeline, used, note)


class OpenVinoEngine:
    """A stage in OpenVINO.

    Attributes:
        precision: what it computes in, by its own account.
    """

    def __init__(self, path: pathlib.Path, hints: dict[str, Any]) -> None:
        core = library().Core()
        self._compiled = core.compile_model(core.read_model(_inlined(path)), "CPU", hints)
        self.precision = _precision(self._compiled)

    def bind(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """As `HostEngine.bind`."""
        arrays = {**inputs, **outputs}
        request = self._compiled.create_infer_request()
        for port in (*self._compiled.inputs, *self._compiled.outputs):
            name = next(name for name in port.names if name in arrays)
            assert arrays[name].size == math.prod(port.shape)
            request.set_tensor(port, library().Tensor(arrays[name].reshape(tuple(port.shape)), shared_memory=True))

        def call() -> None:
            request.start_async()  # `infer` would also make arrays of the results
            request.wait()

        return call


def _inlined(path: pathlib.Path) -> pathlib.Path:
    """The stage with its attention functions inlined, in a file beside the original and its weights."""
    target = path.with_suffix(".standard.onnx")
    if not target.exists():
        onnx.save(onnx.inliner.inline_local_functions(onnx.load(path, load_external_data=False)), target)
    return target


def _precision(compiled: Any) -> str:
    """The type that a compiled model computes in; the CPU may not have the one that was asked for."""
    name: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return next((str(precision) for precision, short in _PRECISIONS.items() if short == name), name)
