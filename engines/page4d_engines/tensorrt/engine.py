"""TensorRT plans on a GPU: loaded, bound to memory that their caller owns."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from page4d.errors import EngineError
from page4d.files import write_atomically
from page4d.manifest import Flavor, StageEntry
from page4d_engines.runtime.cuda_device import CudaDevice
from page4d_engines.runtime.engine import GpuEngine, Launch
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.log import log_of
from page4d_plugins.tensorrt.plugin import register

_LOG = logging.getLogger("page4d.tensorrt")


class Session:
    """One TensorRT runtime on one GPU.

    TensorRT-RTX compiles kernels when it loads a plan: they are kept from one process to the next.
    """

    def __init__(self, library: Library, gpu: CudaDevice) -> None:
        register(library.module)
        self.library, self._gpu = library, gpu
        self._log = log_of(library.module)
        self._runtime = library.module.Runtime(self._log)
        self._cache: Any = None
        self._cached = b""

    def load(self, stage: StageEntry, path: pathlib.Path) -> TensorRTEngine:
        """Load a stage's plan.

        Raises:
            EngineError: TensorRT refuses it, or it is of another stage.
        """
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(
                f"{self.library} does not load {path.name}",
                got=self.errors,
                hint="page4d-export --build-only ENGINES",
            )
        return TensorRTEngine(self, stage, engine)

    def context(self, engine: Any) -> Any:
        """An execution context whose scratch memory is its caller's."""
        trt = self.library.module
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.library.flavor is Flavor.TENSORRT:
            return engine.create_execution_context(strategy)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            file = _cache_file(self.library, self._gpu)
            if file.is_file():
                self._cached = file.read_bytes()
                self._cache.deserialize(self._cached)
        config.set_runtime_cache(self._cache)
        return engine.create_execution_context(config)

    def keep_compiled(self) -> None:
        """Save what TensorRT-RTX compiled for this GPU, for the next process."""
        if self._cache is None:
            return
        content = bytes(self._cache.serialize())
        if content == self._cached:
            return
        file = _cache_file(self.library, self._gpu)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, content)
        except OSError as error:
            _LOG.warning("kernels compiled for this GPU are not kept: %s", error)

    @property
    def stream(self) -> int:
        """Handle of the stream that engines run on."""
        return self._gpu.stream

    @property
    def errors(self) -> str | None:
        """TensorRT's errors so far, as text; None where there are none."""
        return "; ".join(self._log.errors) or None


class TensorRTEngine(GpuEngine):
    """A loaded plan."""

    def __init__(self, session: Session, stage: StageEntry, engine: Any) -> None:
        self._session, self._stage, self._engine = session, stage, engine
        trt = session.library.module
        for spec in (*stage.inputs, *stage.outputs):
            names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
            if spec.binding not in names:
                raise EngineError(
                    f"the plan of {stage.name} has no tensor {spec.binding}",
                    got=", ".join(names),
                    hint="page4d-export --build-only ENGINES",
                )
            actual = (tuple(engine.get_tensor_shape(spec.binding)), engine.get_tensor_dtype(spec.binding))
            if actual != (spec.shape, getattr(trt, spec.dtype)):
                got, allowed = f"{actual[1]} {list(actual[0])}", f"{spec.dtype} {list(spec.shape)}"
                raise EngineError(
                    f"the plan of {stage.name} has another {spec.binding} than the manifest", got=got, allowed=allowed
                )
        self.scratch = int(engine.device_memory_size_v2)
        self._contexts: list[Any] = []

    @property
    def uncapturable(self) -> str | None:
        """As `GpuEngine.uncapturable`: TensorRT-RTX may still compile kernels while it runs, and reports so."""
        capturable = [
            context.is_stream_capturable(self._session.stream)
            for context in self._contexts
            if hasattr(context, "is_stream_capturable")
        ]
        return None if all(capturable) else f"{self._session.library} cannot have {self._stage.name} captured"

    def bind(self, inputs: Mapping[str, int], outputs: Mapping[str, int], scratch: int) -> Launch:
        """As `GpuEngine.bind`."""
        context = self._session.context(self._engine)
        if context is None:
            raise EngineError(f"TensorRT makes no context for {self._stage.name}", got=self._session.errors)
        self._contexts.append(context)
        if self.scratch:
            context.set_device_memory(scratch, self.scratch)
        for name, address in (*inputs.items(), *outputs.items()):
            if not context.set_tensor_address(name, address):
                what = f"the plan of {self._stage.name} takes no address for {name}"
                raise EngineError(what, got=self._session.errors)

        def launch(stream: int) -> None:
            if not context.execute_async_v3(stream):
                raise EngineError(f"{self._stage.name} failed in TensorRT", got=self._session.errors)

        return launch


def _cache_file(library: Library, gpu: CudaDevice) -> pathlib.Path:
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return home / "page4d" / f"rtx-{'.'.join(map(str, library.version))}-sm_{gpu.capability}.bin"
