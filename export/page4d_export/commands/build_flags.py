"""The flags of `page4d-export` that choose which TensorRT plans are built."""

from __future__ import annotations

import enum
import pathlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from page4d.errors import MissingBackendError, UsageError
from page4d.ops import AttentionChoice
from page4d.precision import Precision

if TYPE_CHECKING:
    import typer

    from page4d_engines.tensorrt.plans import PlanBuildRequest

_WITH_BUILD_ONLY = {"build_only", "backend", "target", "hardware_compat", "optimization_level", "plugin_library"}
_WITH_BUILD_ONLY |= {"as_json", "verbose", "quiet"}


class PlanBuilder(str, enum.Enum):
    """The library that builds TensorRT plans; auto: the one that is installed."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    RTX = "rtx"


@dataclass(frozen=True)
class BuildFlags:
    """The flags on building, as they were given."""

    no_build: bool = False
    builder: PlanBuilder = PlanBuilder.AUTO
    target: str | None = None
    hardware_compat: bool = False
    optimization_level: int | None = None
    plugin_library: pathlib.Path | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: `--no-build` beside a flag that asks for plans.
        """
        if self.no_build and self.asked:
            raise UsageError(
                "--no-build excludes flags that ask for plans", got=", ".join(self.asked), allowed="one or the other"
            )

    @property
    def asked(self) -> list[str]:
        """The flags that ask for plans."""
        flags = {
            "--backend": self.builder is not PlanBuilder.AUTO,
            "--target": self.target is not None,
            "--hardware-compat": self.hardware_compat,
            "--optimization-level": self.optimization_level is not None,
            "--plugin-library": self.plugin_library is not None,
        }
        return [flag for flag, is_set in flags.items() if is_set]

    def refuse_others(self, context: typer.Context) -> None:
        """Refuse flags that are not about building beside `--build-only`: the folder fixes model, layout and precision.

        Raises:
            UsageError: a flag was given that is not about building.
        """
        others = []
        for option in context.command.params:
            if option.name is None or option.name in _WITH_BUILD_ONLY:
                continue
            source = context.get_parameter_source(option.name)
            if source is not None and source.name == "COMMANDLINE":
                is_flag = option.param_type_name == "option"
                others.append(option.opts[-1] if is_flag else str(context.params[option.name]))
        if others:
            raise UsageError(
                "--build-only takes model, layout and precision from the engine folder",
                got=", ".join(others),
                allowed="--backend, --target, --hardware-compat, --optimization-level, --plugin-library",
            )

    def request(self, precision: Precision, attention: AttentionChoice) -> tuple[PlanBuildRequest | None, str]:
        """What to build, and a line that tells the user why; an empty one where there is nothing to tell.

        Without a flag that asks for plans, none are built where there is no TensorRT.

        Raises:
            UsageError, MissingBackendError: plans were asked for and cannot be.
        """
        if self.no_build:
            return None, "plans: none, --no-build"
        if not self.asked and not precision.has_16_bits:
            installed = any(find_spec(name) is not None for name in ("tensorrt", "tensorrt_rtx_bindings"))
            return None, "plans: none, TensorRT takes --fp16, --bf16 or --fp8" if installed else ""
        try:
            build = self.demanded(precision, attention)
        except MissingBackendError as missing:
            if self.asked:
                raise
            return None, f"plans: none, {missing.what}"
        return build, f"plans: {build.library}, for {build.runs_on}"

    def demanded(self, precision: Precision, attention: AttentionChoice) -> PlanBuildRequest:
        """What to build.

        Raises:
            UsageError: the flags and the engines do not go together.
            MissingBackendError: there is no such TensorRT here.
        """
        from page4d.manifest import Flavor
        from page4d_engines.ort.library import require_onnx

        require_onnx("building plans")
        from page4d_engines.tensorrt.builder import BuildOptions
        from page4d_engines.tensorrt.plans import PlanBuildRequest, library_for

        targets = tuple(dict.fromkeys(name.strip() for name in (self.target or "").split(",") if name.strip()))
        if self.target is not None and not targets:
            raise UsageError("--target names no GPU architecture", got=repr(self.target), hint="--target sm_89,sm_120")
        flavor = None if self.builder is PlanBuilder.AUTO else Flavor(self.builder.value)
        if flavor is None and targets:
            flavor = Flavor.RTX  # the only one that builds for other GPUs than this machine's
        options = BuildOptions(targets, self.optimization_level, self.hardware_compat)
        native = attention is AttentionChoice.NATIVE
        return PlanBuildRequest(library_for(flavor), options, precision, native, self.plugin_library)
