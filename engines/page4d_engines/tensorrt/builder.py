"""One ONNX file becomes one plan: built, and its layers compared with its graph."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import onnx
from onnx import helper

from page4d.errors import EngineError, OutOfMemoryError, UsageError
from page4d.manifest import Flavor
from page4d.ops import DOMAIN, PLUGIN_ATTRIBUTES
from page4d.system.interrupts import Held, held_interrupts
from page4d.system.memory import available_memory
from page4d.system.progress import SILENT, Progress
from page4d_engines.runtime.gpu_memory import free_on_gpu
from page4d_engines.tensorrt.layers import AttentionNode, Layer, check, read, read_inspector
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.log import log_of
from page4d_plugins.driver import current_device
from page4d_plugins.tensorrt.plugin import register

_NO_TACTIC = "Could not find any implementation"


@dataclass(frozen=True)
class BuildOptions:
    """What a plan is built for."""

    targets: tuple[str, ...] = ()
    """GPU architectures (`sm_<capability>`) that a TensorRT-RTX plan is to run on; none: all from sm_80 on, or, with
    full TensorRT, this machine's."""
    optimization_level: int | None = None
    """0 .. 5: how long the builder searches; None: TensorRT's own default."""
    hardware_compat: bool = False
    """Full TensorRT: a plan for every GPU from Ampere on, instead of this machine's."""


@dataclass
class Plan:
    """A built engine."""

    content: bytes
    layers: list[Layer] = field(repr=False)
    plugins: int
    """Attentions that are this project's plugin."""
    fused: int
    """Attentions that are TensorRT's own fused kernel."""


class PlanBuilder:
    """Builds stages in turn; the timings that it measured for one serve the next."""

    def __init__(self, library: Library, options: BuildOptions, timing_cache: bytes = b"") -> None:
        """Check the options, register the plugins.

        Raises:
            UsageError: options that this TensorRT does not have.
        """
        _check(library, options)
        self.library, self.options, self.timing_cache = library, options, timing_cache
        register(library.module)

    def build(self, stage: str, path: pathlib.Path, precision: str, progress: Progress = SILENT) -> Plan:
        """Build one stage.

        Args:
            stage: its name, for messages.
            path: its ONNX file.
            precision: of the graph: `float32`, `float16`, `bfloat16` or `fp8`.
            progress: called as the builder goes on.

        Raises:
            AccuracyError: a layer holds an n x n tensor, a product is computed in a wider type than the graph's, or an
                attention is neither fused nor a plugin.
            EngineError: TensorRT refuses the file.
            OutOfMemoryError: TensorRT finds no kernel that fits into memory.
            KeyboardInterrupt: the build was interrupted; TensorRT has ended it.
        """
        log = log_of(self.library.module)
        log.begin()
        try:
            # in a callback from C++ Python's own KeyboardInterrupt is lost, or ends the process
            with held_interrupts() as held:
                return self._build(stage, path, precision, progress, held)
        finally:
            log.end()

    def _build(self, stage: str, path: pathlib.Path, precision: str, progress: Progress, held: Held) -> Plan:
        trt = self.library.module
        log = log_of(trt)
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        model = onnx.load(path, load_external_data=False)
        nodes, native = attention_nodes(model)
        if not parser.parse_from_file(str(path)):
            raise EngineError(
                f"{self.library} refuses {stage}",
                got="; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)),
            )
        config = self._config(builder)
        monitor = _monitor_class(trt)(progress, held)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        if plan is None:
            raise _failure(self.library, stage, log.errors)
        if self.library.flavor is Flavor.TENSORRT:  # TensorRT-RTX times nothing when it builds
            self.timing_cache = bytes(config.get_timing_cache().serialize())
            layers = self._inspected(stage, plan, log)
        else:  # may have no GPU, without which there is no inspector
            layers = read(log.end())
            if not layers:
                raise EngineError(
                    f"the layers of {stage} cannot be read back: {self.library} lists them in another way",
                    hint="a version that is known: 1.7",
                )
        check(stage, layers, nodes, precision, native, fp8_products(model))
        plugins, fused = sum(layer.is_plugin for layer in layers), sum(layer.is_fused_attention for layer in layers)
        return Plan(bytes(plan), layers, plugins, fused)

    def _inspected(self, stage: str, plan: Any, log: Any) -> list[Layer]:
        trt = self.library.module
        engine = trt.Runtime(log).deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"TensorRT does not load the plan of {stage} that it built", got="; ".join(log.errors) or None
            )
        inspector = engine.create_engine_inspector()
        return read_inspector(stage, inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def _config(self, builder: Any) -> Any:
        trt, options = self.library.module, self.options
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.hardware_compat:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.targets:
            config.num_compute_capabilities = len(options.targets)
            for number, target in enumerate(options.targets):
                config.set_compute_capability(getattr(trt.ComputeCapability, target.replace("sm_", "SM")), number)
        if self.library.flavor is Flavor.TENSORRT:
            config.set_timing_cache(config.create_timing_cache(self.timing_cache), False)
        return config


def fp8_products(model: onnx.ModelProto) -> list[str]:
    """Names of the products that are computed in fp8."""
    widened = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and widened.issuperset(node.input)]


def attention_nodes(model: onnx.ModelProto) -> tuple[list[AttentionNode], bool]:
    """The attentions of a graph, and whether they are left to TensorRT's own fusion: their nodes name no plugin."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}
    attentions, native = [], True
    for node in model.graph.node:
        if node.domain == DOMAIN:
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            native &= not PLUGIN_ATTRIBUTES.keys() <= attributes.keys()
            parts = 2 if "row_period" in attributes else 1
            (_, _, queries, channels), keys = shapes[node.input[0]], shapes[node.input[1]][2]
            attentions.append(
                AttentionNode(
                    node.name or node.output[0], queries, keys, channels, "epipolar_band" in attributes, parts
                )
            )
    return attentions, native


def _check(library: Library, options: BuildOptions) -> None:
    targets = options.targets
    if targets and library.flavor is not Flavor.RTX:
        raise UsageError(
            f"{library} builds for this machine's GPU alone",
            got=f"--target {','.join(targets)}",
            hint="--backend rtx, or --hardware-compat",
        )
    if options.hardware_compat and library.flavor is Flavor.RTX:
        raise UsageError(
            "--hardware-compat is full TensorRT's",
            got=library,
            hint="leave it out: without --target the plans run on sm_80 and newer",
        )
    if targets:
        allowed = [f"sm_{capability}" for capability in library.capabilities]
        if unknown := [target for target in targets if target not in allowed]:
            what = f"{library} does not build for this GPU architecture"
            raise UsageError(what, got=", ".join(unknown), allowed=", ".join(allowed))
    if options.optimization_level is not None and not 0 <= options.optimization_level <= 5:
        raise UsageError("--optimization-level is 0 to 5", got=options.optimization_level)


def _failure(library: Library, stage: str, errors: Sequence[str]) -> Exception:
    reason = "; ".join(errors) or "no reason given"
    if _NO_TACTIC in reason:
        if library.flavor is Flavor.TENSORRT:  # tries its kernels on the GPU
            free, where = free_on_gpu(current_device()), "the GPU's"
        else:
            free, where = available_memory(), "main"
        return OutOfMemoryError(
            f"TensorRT found no kernel for {stage} that fits into memory",
            got=f"{reason} ({free / 1e9:.1f} GB of {where} memory free)",
            hint="a smaller --T, --V, --height or --width",
        )
    return EngineError(f"TensorRT built no plan of {stage}", got=reason)


@cache
def _monitor_class(trt: ModuleType) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Passes progress on; on Ctrl-C it asks the builder to stop, since an exception may not pass through it."""

        def __init__(self, progress: Progress, held: Held) -> None:
            trt.IProgressMonitor.__init__(self)
            self.progress, self.held, self.interrupted = progress, held, False
            self.steps: dict[str, int] = {}
            self.outermost: str | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.steps[name] = steps
            if parent is None:
                self.outermost = name

        def phase_finish(self, name: str) -> None:
            self.steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            try:
                if name == self.outermost:
                    self.progress.note(name, (step + 1) / max(1, self.steps.get(name, 1)))
            except KeyboardInterrupt:
                self.interrupted = True
            self.interrupted |= self.held.asked
            return not self.interrupted

    return Monitor
