"""`Backend`: what runs the engines, and what `auto` makes of a folder and a machine."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from page4d.errors import EngineError, MissingBackendError
from page4d.precision import Precision
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.chain import Arrays, Chain

_LOG = logging.getLogger("page4d.backend")
Make = Callable[[Arrays], Chain]
"""Makes a chain, given the values from outside that do not change."""


class Backend(str, enum.Enum):
    """What runs the engines. Anything but `auto` is a demand."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    CUDA = "cuda"
    TENSORRT = "tensorrt"

    def __str__(self) -> str:
        return self.value


def choose(
    folder: EngineFolder, backend: Backend, threads: int | None, rounding: bool, sliding: bool = False
) -> tuple[Backend, Make]:
    """What runs a folder here.

    `auto` takes TensorRT where the folder's plans and the machine go together, then ONNX Runtime's CUDA provider where
    there is a GPU for it, else ONNX Runtime on the CPU; it logs why a better one was left.

    Args:
        folder: the engines.
        backend: a demand, or `auto`.
        threads: of ONNX Runtime on the CPU; None takes every processor.
        rounding: round as the 16-bit graph does, on the CPU; `auto` then means the CPU.
        sliding: windows will overlap, and what the encoder makes is kept.

    Raises:
        EngineError: `tensorrt` is demanded, and there are no plans, or they do not run on this machine.
        MissingBackendError: what is demanded is not there.
    """
    ways: dict[Backend, Callable[[], Make]] = {
        Backend.TENSORRT: lambda: _tensorrt(folder, sliding),
        Backend.CUDA: lambda: _cuda(folder, sliding),
    }
    if backend in ways:
        return backend, ways[backend]()
    if backend is Backend.AUTO and not rounding:
        for candidate, way in ways.items():
            try:
                return candidate, way()
            except (EngineError, MissingBackendError) as error:
                hopeful = candidate is Backend.TENSORRT and folder.manifest.plans is not None
                _LOG.log(logging.WARNING if hopeful else logging.INFO, "not on %s: %s", candidate, error.what)

    def make(constants: Arrays) -> Chain:
        from page4d_engines.ort.cpu_engine import OrtEngine
        from page4d_engines.runtime.host_chain import HostChain

        return HostChain(folder, constants, lambda path: OrtEngine(path, threads, rounding), "onnxruntime", sliding)

    return Backend.ONNXRUNTIME, make


def _tensorrt(folder: EngineFolder, sliding: bool) -> Make:
    plans = folder.manifest.plans
    if plans is None:
        raise EngineError(
            "the engine folder has no TensorRT plans", got=folder.path, hint=f"page4d-export --build-only {folder.path}"
        )
    from page4d_engines.tensorrt.requirements import Machine

    machine = Machine.here(plans)
    machine.require(plans, folder.path)

    def make(constants: Arrays) -> Chain:
        from page4d_engines.runtime.cuda_device import CudaDevice
        from page4d_engines.runtime.gpu_chain import GpuChain
        from page4d_engines.tensorrt.engine import Session

        gpu = CudaDevice()
        session = Session(machine.library, gpu)
        engines = {
            entry.name: session.load(entry, folder.file(plans.stages[entry.name].file))
            for entry in folder.manifest.stages
        }
        chain = GpuChain(
            gpu,
            BufferPlan.make(folder.manifest, sliding=sliding),
            engines,
            constants,
            f"{machine.library} on {gpu.name}",
        )
        session.keep_compiled()
        return chain

    return make


def _cuda(folder: EngineFolder, sliding: bool) -> Make:
    if folder.manifest.precision == str(Precision.INT8):
        raise EngineError(
            "int8 engines are for a processor",
            got=folder.path,
            allowed="--backend onnxruntime",
            hint="page4d-export --fp16 for a GPU",
        )
    if folder.manifest.precision == str(Precision.FP8):
        raise EngineError(
            "fp8 engines are for TensorRT",
            got=folder.path,
            allowed="--backend tensorrt",
            hint="page4d-export --fp16 for ONNX Runtime on a GPU",
        )
    from page4d_engines.ort.cuda_engine import require_provider
    from page4d_plugins.driver import capability_of
    from page4d_plugins.modes import FALLBACK

    require_provider()
    narrow = Precision(folder.manifest.precision).has_16_bits
    if narrow and (capability := capability_of(0)) < FALLBACK:
        hint = "page4d-export without --fp16 or --bf16"
        raise EngineError(
            "the kernels of 16-bit engines do not run on this GPU",
            got=f"sm_{capability}",
            allowed=f"sm_{FALLBACK} and newer",
            hint=hint,
        )

    def make(constants: Arrays) -> Chain:
        from page4d_engines.ort.cuda_engine import CudaOrtEngine
        from page4d_engines.ort.partitioned_engine import PartitionedEngine, SharedSessions
        from page4d_engines.runtime.cuda_device import CudaDevice
        from page4d_engines.runtime.engine import GpuEngine
        from page4d_engines.runtime.gpu_chain import GpuChain

        gpu = CudaDevice()
        sessions = SharedSessions(gpu)
        files = {entry.name: folder.file(entry.file or "") for entry in folder.manifest.stages}
        engines: dict[str, GpuEngine] = {
            name: PartitionedEngine(file, gpu, sessions) if narrow else CudaOrtEngine(file, gpu)
            for name, file in files.items()
        }
        described = (
            f"ONNX Runtime{' with kernels of page4d' if narrow else ''} on {gpu.name}, {folder.manifest.precision}"
        )
        return GpuChain(gpu, BufferPlan.make(folder.manifest, sliding=sliding), engines, constants, described)

    return make
