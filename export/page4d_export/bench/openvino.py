"""OpenVINO as a contestant: the same stages, one compiled model each, chained over the same buffers as the engines."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnx.inliner
from numpy.typing import NDArray

from page4d.errors import MissingBackendError
from page4d.manifest import StageEntry
from page4d.precision import Precision
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.openvino.library import library, without_reports
from page4d_engines.pipeline import Pipeline
from page4d_engines.runtime.host_chain import HostChain
from page4d_export.bench.contestant import Course, Runner, of_pipeline

_PRECISIONS = {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16"}


def openvino(course: Course, precision: Precision) -> Runner:
    """The course's engine folder in OpenVINO on the CPU.

    Raises:
        MissingBackendError: OpenVINO is not installed.
    """
    pipeline, engines = _chain(course, precision)
    used = " and ".join(sorted({engine.precision for engine in engines.values()}))
    note = "" if used == str(precision) else f"asked for {precision}, which OpenVINO does not use on this CPU"
    return of_pipeline(course, pipeline, used, note)


def openvino_int8(course: Course) -> Runner:
    """The same in int8: NNCF quantises each stage as its documentation says for transformers.

    It measures ranges on the frames that are timed afterwards, which favours it. What it leaves in floating point is
    computed in the type that OpenVINO chooses.

    Raises:
        MissingBackendError: OpenVINO or NNCF is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise MissingBackendError("NNCF is not installed", hint='pip install "page4d[peers]"')
    measured, engines = _chain(course, Precision.FLOAT32)
    for engine in engines.values():
        engine.samples = []
    measured.run(course.images, mask_ext=course.mask_ext)
    models = {name: _quantised(engine.model, engine.samples or []) for name, engine in engines.items()}
    del measured, engines  # their memory
    pipeline, _ = _chain(course, None, models)
    return of_pipeline(course, pipeline, "int8", f"by NNCF {importlib.metadata.version('nncf')}")


def _quantised(model: Any, samples: list[dict[str, NDArray[Any]]]) -> Any:
    """A stage's graph in int8, by the inputs that it had in some calls."""
    with without_reports():
        import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        return nncf.quantize(
            model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
        )


def _chain(
    course: Course, precision: Precision | None, models: Mapping[str, Any] | None = None
) -> tuple[Pipeline, dict[str, OpenVinoEngine]]:
    """The course's stages in OpenVINO, chained, and each stage's engine by name.

    Args:
        course: its float32 engines.
        precision: to compute in; None: as OpenVINO chooses.
        models: in place of the folder's graphs, by stage; None: the folder's.
    """
    library()
    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": course.threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        hints["INFERENCE_PRECISION_HINT"] = _PRECISIONS[precision]
    folder = EngineFolder.open(course.engines)
    engines: dict[str, OpenVinoEngine] = {}

    def load(entry: StageEntry) -> OpenVinoEngine:
        model = (models or {}).get(entry.name) or library().Core().read_model(_inlined(folder.file(entry.file)))
        engines[entry.name] = OpenVinoEngine(model, hints)
        return engines[entry.name]

    pipeline = Pipeline(folder, Backend.ONNXRUNTIME, lambda constants: HostChain(folder, constants, load, "openvino"))
    return pipeline, engines


class OpenVinoEngine:
    """A stage in OpenVINO.

    Attributes:
        model: its graph.
        precision: what it computes in, by its own account.
        samples: copies of the inputs of each call from now on; None: none are kept.
    """

    def __init__(self, model: Any, hints: dict[str, Any]) -> None:
        self.model = model
        self._compiled = library().Core().compile_model(model, "CPU", hints)
        self.precision = _precision(self._compiled)
        self.samples: list[dict[str, NDArray[Any]]] | None = None

    def bind(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """As `HostEngine.bind`."""
        request = self._compiled.create_infer_request()
        bound: dict[str, NDArray[Any]] = {}
        for ports, arrays in ((self._compiled.inputs, inputs), (self._compiled.outputs, outputs)):
            for port in ports:
                array = next(arrays[name] for name in port.names if name in arrays)
                assert array.size == math.prod(port.shape)
                bound[port.any_name] = array.reshape(tuple(port.shape))
                request.set_tensor(port, library().Tensor(bound[port.any_name], shared_memory=True))
        read = [port.any_name for port in self._compiled.inputs]

        def call() -> None:
            if self.samples is not None:
                self.samples.append({name: bound[name].copy() for name in read})
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
