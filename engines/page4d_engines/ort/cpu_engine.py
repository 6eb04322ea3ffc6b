"""A stage in ONNX Runtime on the CPU, bound to memory that its caller owns."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from page4d.errors import EngineError, MissingBackendError
from page4d.manifest import StageEntry
from page4d.system.cpu import multiplies_signed
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.library import (
    first_line,
    report_nothing,
    require_onnx,
    require_supported,
    translated,
    unloadable,
)
from page4d_engines.ort.thread_pool import ThreadPool

if TYPE_CHECKING:
    import onnx

_TYPES = {f"tensor({name})": name for name in ("uint8", "int8", "int32", "int64", "bool", "float16")} | {
    "tensor(float)": "float32"
}


@functools.cache
def _share_arena() -> None:
    """One arena for the activations of all stages: they run one after the other, and each would else keep its own."""
    cpu = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(cpu, None)


class OrtEngine:
    """One session.

    Args:
        path: the stage's ONNX file.
        pool: threads to compute with; None takes every CPU, or the pool that the process shares.
        rounding: round every 16-bit result as the typed graph does, to show what another backend would compute; slow.
        extend: changes the graph before anything else does, to look inside.
        is_lowered: the file is a graph for a CPU (cpu_graph.py), which is loaded as it is.

    Raises:
        EngineError: ONNX Runtime does not accept the file.
        MissingBackendError: ONNX Runtime is too old; the file is no graph for a CPU, and `onnx` is not installed.
    """

    @classmethod
    def of_stage(
        cls, folder: EngineFolder, entry: StageEntry, pool: ThreadPool | None = None, rounding: bool = False
    ) -> OrtEngine:
        """The engine of a folder's stage: of its graph for this CPU, where the folder has one and rounds nothing."""
        lowered = entry.cpu_signed if entry.cpu_signed and multiplies_signed() else entry.cpu
        if lowered and not rounding:
            return cls(folder.file(lowered), pool, is_lowered=True)
        return cls(folder.file(entry.file), pool, rounding)

    def __init__(
        self,
        path: pathlib.Path,
        pool: ThreadPool | None = None,
        rounding: bool = False,
        extend: Callable[[onnx.ModelProto], None] | None = None,
        is_lowered: bool = False,
    ) -> None:
        require_supported()
        report_nothing()
        _share_arena()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        (pool or ThreadPool.of()).configure(options)
        # a session's threads wait for work by spinning, beside the next stage's that have some
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.use_env_allocators", "1")
        # 8-bit weights of layers that compute in float32 are widened once, not at every call
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._weights: dict[str, NDArray[np.generic]] = {}  # the session reads them in place
        try:
            graph = str(path) if is_lowered else self._lowered(path, options, rounding, extend)
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except MissingBackendError:
            raise
        except Exception as error:  # ONNX Runtime and protobuf raise a type of their own for every status
            raise translated(error, path.name, unloadable(error, path.name)) from error
        self._name = path.name

    def _lowered(
        self,
        path: pathlib.Path,
        options: onnxruntime.SessionOptions,
        rounding: bool,
        extend: Callable[[onnx.ModelProto], None] | None,
    ) -> bytes:
        """A stage's own graph, lowered; weights that the session cannot map go into the options."""
        require_onnx(f"{path.name} is no graph for a CPU: making one of it")
        from page4d_engines.ort.stage_graph import lowered_stage

        content, self._weights = lowered_stage(path, rounding, extend, multiplies_signed())
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        if self._weights:
            options.add_external_initializers(
                list(self._weights),
                [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()],
            )
        return content

    def bind(
        self, inputs: dict[str, NDArray[np.generic]], outputs: dict[str, NDArray[np.generic]]
    ) -> Callable[[], None]:
        """A call over fixed memory: contiguous arrays that outlive it, by the engine's names.

        Raises:
            EngineError: an array is missing, or has another size or type than the graph's.
        """
        binding = self._session.io_binding()
        for value in self._session.get_inputs():
            array = self._bound(value, inputs)
            binding.bind_input(value.name, "cpu", 0, array.dtype.type, value.shape, array.ctypes.data)
        for value in self._session.get_outputs():
            array = self._bound(value, outputs)
            binding.bind_output(value.name, "cpu", 0, array.dtype.type, value.shape, array.ctypes.data)

        def call() -> None:
            try:
                self._session.run_with_iobinding(binding)
            except Exception as error:
                raise translated(error, self._name, EngineError(f"{self._name} failed: {first_line(error)}")) from error

        return call

    def _bound(self, value: onnxruntime.NodeArg, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.generic]:
        """The array of a session's input or output, whose memory ONNX Runtime will use unchecked.

        The session's shape may be a view of the stage's.

        Raises:
            EngineError: there is none, or it has another size or type.
        """
        array = arrays.get(value.name)
        sizes = [size if isinstance(size, int) else 0 for size in value.shape]
        if (
            array is None
            or array.size != math.prod(sizes)
            or not array.flags.c_contiguous
            or _TYPES.get(value.type) != array.dtype.name
        ):
            got = "nothing" if array is None else f"{array.dtype.name} {list(array.shape)}"
            what = f"{value.name} of {self._name} does not lie in memory as its graph says"
            raise EngineError(what, got=got, allowed=f"{value.type} {value.shape}", hint="page4d-export again")
        return array
