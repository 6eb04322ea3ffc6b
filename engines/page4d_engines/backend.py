"""A loader for each backend, and which of them `auto` takes for a folder on this machine."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Protocol

from page4d.errors import EngineError, MissingBackendError, UsageError
from page4d.manifest import Plans, StageEntry
from page4d.precision import Precision
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.options import CPU
from page4d_engines.options import Backend as Backend
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.chain import Arrays, Chain

_LOG = logging.getLogger("page4d.backend")


class Loader(Protocol):
    """An engine folder on one backend.

    Attributes:
        backend: which.
    """

    @property
    def backend(self) -> Backend:
        """Which."""
        ...

    def check(self) -> None:
        """Raise unless folder and machine go together; loads nothing.

        Raises:
            EngineError: the folder is not for this backend, or not for this machine.
            MissingBackendError: the backend is not there.
        """
        ...

    def load(self, constants: Arrays) -> Chain:
        """The chain, loaded; `constants` are the values from outside that do not change, by name.

        Raises:
            EngineError: a file cannot be loaded.
            MissingBackendError: the backend does not start.
            OutOfMemoryError: weights and buffers do not fit.
        """
        ...


def choose(
    folder: EngineFolder,
    backend: Backend,
    pool: ThreadPool | None,
    rounding: bool,
    sliding: bool = False,
    device: str = CPU,
) -> Loader:
    """The loader that runs a folder on this machine.

    `auto` takes TensorRT where the folder's plans and the machine go together, then ONNX Runtime's CUDA provider where
    there is a GPU for it, then OpenVINO where the folder has 16 or 8 bits and the CPU computes in bfloat16, else ONNX
    Runtime on the CPU; it logs why a better one was left.

    Args:
        folder: the engines.
        backend: a demand, or `auto`.
        pool: threads of a CPU; None takes every CPU.
        rounding: round as the 16-bit graph does, on the CPU; `auto` then means ONNX Runtime.
        sliding: windows will overlap, and encoded tokens are kept.
        device: of OpenVINO.

    Raises:
        EngineError: what is demanded does not run the folder: `tensorrt` without plans, or not on this machine.
        MissingBackendError: what is demanded is not there.
        UsageError: a device for another backend than OpenVINO.
    """
    if device != CPU and backend is not Backend.OPENVINO:
        raise UsageError("a device is chosen for OpenVINO alone", got=f"{backend}, {device}", hint="--backend openvino")
    on_openvino = OpenVinoLoader(folder, sliding, pool, device)
    others: list[Loader] = [TensorRTLoader(folder, sliding), CudaLoader(folder, sliding), on_openvino]
    for loader in others:
        if backend is loader.backend:
            loader.check()
            return loader
        if backend is Backend.AUTO and not rounding:
            try:
                if loader is on_openvino:
                    on_openvino.require_faster()
                loader.check()
                return loader
            except (EngineError, MissingBackendError) as error:
                expected = loader.backend is Backend.TENSORRT and folder.manifest.plans is not None
                _LOG.log(logging.WARNING if expected else logging.INFO, "not on %s: %s", loader.backend, error.what)
    return OnnxRuntimeLoader(folder, sliding, pool, rounding)


@dataclass(frozen=True)
class OnnxRuntimeLoader:
    """ONNX Runtime on the CPU."""

    folder: EngineFolder
    sliding: bool
    pool: ThreadPool | None
    rounding: bool
    backend = Backend.ONNXRUNTIME

    def check(self) -> None:
        """Runs every folder on every machine."""

    def load(self, constants: Arrays) -> Chain:
        """As `Loader.load`."""
        from page4d_engines.ort.cpu_engine import OrtEngine
        from page4d_engines.runtime.host_chain import HostChain

        engine = functools.partial(OrtEngine.of_stage, self.folder, pool=self.pool, rounding=self.rounding)
        precision = Precision.FLOAT32 if self.folder.manifest.precision.has_16_bits else None
        described = f"onnxruntime, computing in {precision}" if precision else "onnxruntime"
        return HostChain(self.folder, constants, engine, described, self.sliding, precision)


@dataclass(frozen=True)
class OpenVinoLoader:
    """OpenVINO on the CPU, or on an Intel GPU."""

    folder: EngineFolder
    sliding: bool
    pool: ThreadPool | None
    device: str = CPU
    backend = Backend.OPENVINO

    def require_faster(self) -> None:
        """Raise unless it is known to be faster than ONNX Runtime for this folder on this CPU (docs/engines.md).

        Raises:
            EngineError: it is not, or as good.
            MissingBackendError: it would be, and is not installed.
        """
        from page4d_engines.openvino.library import has_bfloat16, is_installed

        precision = self.folder.manifest.precision
        if not (precision.has_16_bits or precision is Precision.INT8):
            raise EngineError("engines of this precision run on ONNX Runtime, with the numbers of the C++ runtime")
        if not has_bfloat16():
            raise EngineError("this CPU does not compute in bfloat16, in which OpenVINO is faster")
        if not is_installed():
            raise MissingBackendError('OpenVINO is not installed, which is faster here: pip install "page4d[openvino]"')

    def check(self) -> None:
        """As `Loader.check`."""
        from page4d_engines.openvino.device import require_device

        if self.folder.manifest.precision is Precision.FP8:
            raise EngineError(
                "fp8 engines are for TensorRT",
                got=self.folder.path,
                allowed="--backend tensorrt",
                hint="page4d-export --fp16 or --bf16 for OpenVINO",
            )
        require_device(self.device)

    def load(self, constants: Arrays) -> Chain:
        """As `Loader.load`."""
        from page4d_engines.openvino.device import computing_precision, described
        from page4d_engines.openvino.engine import OpenVinoEngine, keeps_memory, settings
        from page4d_engines.runtime.host_chain import HostChain

        exported = self.folder.manifest.precision
        precision = computing_precision(exported, self.device)
        text = described(self.device, exported, precision)
        hints = settings(self.device, precision, (self.pool or ThreadPool.of()).threads)
        keeps = keeps_memory(self.folder.manifest, precision)

        def load(entry: StageEntry) -> OpenVinoEngine:
            return OpenVinoEngine(self.folder, entry, self.device, hints, keeps)

        return HostChain(self.folder, constants, load, text, self.sliding, None if precision is exported else precision)


@dataclass(frozen=True)
class TensorRTLoader:
    """TensorRT plans on a GPU."""

    folder: EngineFolder
    sliding: bool
    backend = Backend.TENSORRT

    def check(self) -> None:
        """As `Loader.check`."""
        from page4d_engines.tensorrt.requirements import Machine

        Machine.here(self._plans).require(self._plans, self.folder.path)

    def load(self, constants: Arrays) -> Chain:
        """As `Loader.load`."""
        from page4d_engines.runtime.cuda_device import CudaDevice
        from page4d_engines.runtime.gpu_chain import GpuChain
        from page4d_engines.tensorrt.engine import Session
        from page4d_engines.tensorrt.library import Library

        gpu, library = CudaDevice(), Library.find(self._plans.library)
        session = Session(library, gpu)
        engines = {
            entry.name: session.load(entry, self.folder.file(self._plans.stages[entry.name].file))
            for entry in self.folder.manifest.stages
        }
        plan = BufferPlan.make(self.folder.manifest, sliding=self.sliding)
        chain = GpuChain(gpu, plan, engines, constants, f"{library} on {gpu.name}")
        session.keep_compiled()
        return chain

    @property
    def _plans(self) -> Plans:
        plans = self.folder.manifest.plans
        if plans is None:
            hint = f"page4d-export --build-only {self.folder.path}"
            raise EngineError("the engine folder has no TensorRT plans", got=self.folder.path, hint=hint)
        return plans


@dataclass(frozen=True)
class CudaLoader:
    """ONNX Runtime's CUDA provider, with this project's kernels for engines in 16 bits."""

    folder: EngineFolder
    sliding: bool
    backend = Backend.CUDA

    def check(self) -> None:
        """As `Loader.check`."""
        precision = self.folder.manifest.precision
        if precision is Precision.INT8:
            raise EngineError(
                "int8 engines are for a CPU",
                got=self.folder.path,
                allowed="--backend onnxruntime",
                hint="page4d-export --fp16 for a GPU",
            )
        if precision is Precision.FP8:
            raise EngineError(
                "fp8 engines are for TensorRT",
                got=self.folder.path,
                allowed="--backend tensorrt",
                hint="page4d-export --fp16 for ONNX Runtime on a GPU",
            )
        from page4d_engines.ort.cuda_engine import require_provider
        from page4d_plugins.driver import capability_of
        from page4d_plugins.modes import FALLBACK

        require_provider()
        if precision.has_16_bits and (capability := capability_of(0)) < FALLBACK:
            raise EngineError(
                "the kernels of 16-bit engines do not run on this GPU",
                got=f"sm_{capability}",
                allowed=f"sm_{FALLBACK} and newer",
                hint="page4d-export without --fp16 or --bf16",
            )

    def load(self, constants: Arrays) -> Chain:
        """As `Loader.load`."""
        from page4d_engines.ort.cuda_engine import CudaOrtEngine
        from page4d_engines.ort.partitioned_engine import PartitionedEngine, SharedSessions
        from page4d_engines.runtime.cuda_device import CudaDevice
        from page4d_engines.runtime.engine import GpuEngine
        from page4d_engines.runtime.gpu_chain import GpuChain

        manifest, gpu = self.folder.manifest, CudaDevice()
        narrow, sessions = manifest.precision.has_16_bits, SharedSessions(gpu)
        engines: dict[str, GpuEngine] = {}
        for entry in manifest.stages:
            file = self.folder.file(entry.file)
            engines[entry.name] = PartitionedEngine(file, gpu, sessions) if narrow else CudaOrtEngine(file, gpu)
        described = f"ONNX Runtime{' with kernels of page4d' if narrow else ''} on {gpu.name}, {manifest.precision}"
        return GpuChain(gpu, BufferPlan.make(manifest, sliding=self.sliding), engines, constants, described)
