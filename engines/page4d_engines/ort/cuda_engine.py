"""A float32 stage in ONNX Runtime's CUDA provider, bound to GPU memory that its caller owns.

It is for machines with a GPU and no TensorRT. Graphs are lowered as for the CPU. Stages in 16 bits run piece by piece,
`partitioned_engine.py`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import onnxruntime

from page4d.errors import EngineError, MissingBackendError
from page4d_engines.ort.library import first_line, require_onnx, require_supported, translated, unloadable
from page4d_engines.runtime.cuda_device import CudaDevice
from page4d_engines.runtime.engine import GpuEngine, Launch
from page4d_engines.versions import TRIED
from page4d_plugins.driver import driver

_PROVIDER = "CUDAExecutionProvider"
_CHANNELS = 8
"""ONNX Runtime's attention without an n x n tensor takes heads of a multiple of this on a GPU."""
UNCAPTURABLE = "ONNX Runtime allocates while it runs"


def require_provider() -> None:
    """Raise unless ONNX Runtime has a GPU to run on.

    Raises:
        MissingBackendError: the installed ONNX Runtime is the CPU's, or too old, or no driver answers; `onnx` is not
            installed, which prepares graphs for a GPU when they are loaded.
    """
    providers = onnxruntime.get_available_providers()
    if _PROVIDER not in providers:
        hint = f'pip uninstall onnxruntime, then pip install "onnxruntime-gpu>={TRIED["onnxruntime"].lowest},<2"'
        raise MissingBackendError(
            "--backend cuda needs ONNX Runtime's build for GPUs", got=", ".join(providers), hint=hint
        )
    require_supported()
    require_onnx("--backend cuda")
    driver()


def cuda_session(model: bytes, options: onnxruntime.SessionOptions, gpu: CudaDevice) -> onnxruntime.InferenceSession:
    """A session on a GPU's stream.

    Raises:
        MissingBackendError: the provider does not start.
    """
    options.log_severity_level = 3
    onnxruntime.set_default_logger_severity(3)  # else every session warns that the provider is none of another kind
    settings = {
        "device_id": str(gpu.number),
        "user_compute_stream": str(gpu.stream),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",  # one convolution in all: not worth trying every way
        "arena_extend_strategy": "kSameAsRequested",  # else it doubles, and keeps what nobody asked for
    }
    session = onnxruntime.InferenceSession(model, options, providers=[(_PROVIDER, settings), "CPUExecutionProvider"])
    if session.get_providers()[0] != _PROVIDER:
        hint = "CUDA and cuDNN of the versions that onnxruntime-gpu names; page4d doctor"
        raise MissingBackendError("ONNX Runtime's CUDA provider does not start", hint=hint)
    return session


class CudaOrtEngine(GpuEngine):
    """One session on a GPU.

    Args:
        path: the stage's ONNX file, in float32.
        gpu: where; the session computes on its stream.

    Raises:
        EngineError: ONNX Runtime does not accept the file.
        MissingBackendError: the provider cannot start, as with a CUDA of another version.
    """

    def __init__(self, path: pathlib.Path, gpu: CudaDevice) -> None:
        import onnx

        from page4d_engines.ort.lowering import lower

        self.scratch = 0
        self._number, self._name = gpu.number, path.name
        options = onnxruntime.SessionOptions()
        try:
            model = onnx.load(path, load_external_data=False)
            proto = lower(model, rounding=False, channels=_CHANNELS)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
            self._session = cuda_session(proto.SerializeToString(), options, gpu)
        except MissingBackendError:
            raise
        except Exception as error:  # ONNX Runtime and protobuf raise a type of their own for every status
            raise translated(error, path.name, unloadable(error, path.name)) from error

    @property
    def uncapturable(self) -> str:
        """As `GpuEngine.uncapturable`."""
        return UNCAPTURABLE

    def bind(self, inputs: Mapping[str, int], outputs: Mapping[str, int], scratch: int) -> Launch:
        """As `GpuEngine.bind`."""
        binding = self._session.io_binding()
        for values, bind, addresses in (
            (self._session.get_inputs(), binding.bind_input, inputs),
            (self._session.get_outputs(), binding.bind_output, outputs),
        ):
            for value in values:
                bind(value.name, "cuda", self._number, _numpy_type(value.type), value.shape, addresses[value.name])

        def launch(stream: int) -> None:
            try:
                self._session.run_with_iobinding(binding)
            except Exception as error:
                raise translated(error, self._name, EngineError(f"{self._name} failed: {first_line(error)}")) from error

        return launch


def _numpy_type(name: str) -> type[np.generic]:
    """numpy's type of one that ONNX Runtime names, such as `tensor(float)`."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32"}.get(inner, inner)).type
