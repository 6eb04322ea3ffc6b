"""A stage in ONNX Runtime's CUDA provider, bound to GPU memory that its caller owns: for machines with a GPU and no TensorRT.

Graphs are lowered as for the CPU, 16 bits widened to float32: products of 16-bit engines then go through the matrix units as TF32,
which keeps as many bits as float16, and float32's range.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime

from page4d.errors import EngineError, MissingBackendError
from page4d_engines.gpu import Gpu
from page4d_engines.gpu_chain import GpuEngine, Launch
from page4d_engines.ort_engine import first_line, translated, widened
from page4d_engines.ort_lowering import lower
from page4d_plugins.driver import driver

_PROVIDER = "CUDAExecutionProvider"
_CHANNELS = 8
"""ONNX Runtime's attention without an n x n tensor takes heads of a multiple of this on a GPU."""


def require_provider() -> None:
    """Raise unless ONNX Runtime has a GPU to run on.

    Raises:
        MissingBackendError: the installed ONNX Runtime is the CPU's, or no driver answers.
    """
    found = onnxruntime.get_available_providers()
    if _PROVIDER not in found:
        hint = 'pip uninstall onnxruntime, then pip install "onnxruntime-gpu>=1.20,<2"'
        raise MissingBackendError("--backend cuda needs ONNX Runtime's build for GPUs", got=", ".join(found), hint=hint)
    driver()


class CudaOrtEngine(GpuEngine):
    """One session on a GPU.

    Args:
        path: the stage's ONNX file.
        gpu: where; the session computes on its stream.
        fast: let float32 products go through the matrix units as TF32.

    Raises:
        EngineError: ONNX Runtime does not accept the file.
        MissingBackendError: the provider cannot start, as with a CUDA of another version.
    """

    def __init__(self, path: pathlib.Path, gpu: Gpu, fast: bool) -> None:
        self.scratch = 0
        self._number, self._name = gpu.number, path.name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        chosen = {
            "device_id": str(gpu.number),
            "user_compute_stream": str(gpu.stream),
            "use_tf32": str(int(fast)),
            "arena_extend_strategy": "kSameAsRequested",  # else it doubles, and keeps what nobody asked for
        }
        try:
            model = onnx.load(path, load_external_data=False)
            weights = widened(model, path.parent)
            proto = lower(model, rounding=False, channels=_CHANNELS)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
            if weights:
                options.add_external_initializers(list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()])
            self._session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=[(_PROVIDER, chosen), "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime and protobuf raise a type of their own for every status
            raise translated(error, path.name, EngineError(f"{path.name} cannot be loaded: {first_line(error)}", hint="page4d-export again")) from error
        if self._session.get_providers()[0] != _PROVIDER:
            hint = "CUDA and cuDNN of the versions that onnxruntime-gpu names; page4d doctor"
            raise MissingBackendError("ONNX Runtime's CUDA provider does not start", hint=hint)

    @property
    def uncapturable(self) -> str:
        """As `GpuEngine.uncapturable`."""
        return "ONNX Runtime allocates while it runs"

    def bind(self, inputs: Mapping[str, int], outputs: Mapping[str, int], scratch: int) -> Launch:
        """As `GpuEngine.bind`."""
        binding = self._session.io_binding()
        for value in self._session.get_inputs():
            binding.bind_input(value.name, "cuda", self._number, _numpy_type(value.type), value.shape, inputs[value.name])
        for value in self._session.get_outputs():
            binding.bind_output(value.name, "cuda", self._number, _numpy_type(value.type), value.shape, outputs[value.name])

        def launch(stream: int) -> None:
            try:
                self._session.run_with_iobinding(binding)
            except Exception as error:
                raise translated(error, self._name, EngineError(f"{self._name} failed: {first_line(error)}")) from error

        return launch


def _numpy_type(said: str) -> type[np.generic]:
    """numpy's type of what ONNX Runtime calls `tensor(float)`."""
    inner = said.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32"}.get(inner, inner)).type
