"""What the flags ask of TensorRT: plans, which, or none."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from page4d.errors import MissingBackendError, UsageError
from page4d.ops import AttentionChoice
from page4d.precision import Precision

if TYPE_CHECKING:
    import typer

    from page4d_engines.tensorrt.plans import PlansBuild

_WITH_BUILD_ONLY = (
    "build_only",
    "backend",
    "target",
    "hardware_compat",
    "optimization_level",
    "plugin_library",
    "as_json",
    "verbose",
    "quiet",
)
_BACKENDS = ("auto", "tensorrt", "rtx")


@dataclass(frozen=True)
class BuildWish:
    """The flags on building, as they were given."""

    no_build: bool
    backend: str
    target: str | None
    hardware_compat: bool
    optimization_level: int | None
    plugin_library: pathlib.Path | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: `--no-build` beside a flag that asks for plans, or an unknown backend.
        """
        if self.backend not in _BACKENDS:
            raise UsageError("--backend has no such value", got=self.backend, allowed=", ".join(_BACKENDS))
        if self.no_build and self.asked:
            raise UsageError(
                "--no-build excludes flags that ask for plans", got=", ".join(self.asked), allowed="one or the other"
            )

    @property
    def asked(self) -> list[str]:
        """The flags that ask for plans."""
        flags = {
            "--backend": self.backend != "auto",
            "--target": self.target is not None,
            "--hardware-compat": self.hardware_compat,
            "--optimization-level": self.optimization_level is not None,
            "--plugin-library": self.plugin_library is not None,
        }
        return [flag for flag, given in flags.items() if given]

    def refuse_others(self, context: typer.Context) -> None:
        """Raise where `--build-only` has company: the folder knows its model, its layout and its precision.

        Raises:
            UsageError: a flag was given that is not about building.
        """
        others = []
        for option in context.command.params:
            source = (
                None if option.name in (None, *_WITH_BUILD_ONLY) else context.get_parameter_source(option.name or "")
            )
            if source is not None and source.name == "COMMANDLINE":
                others.append(option.opts[-1])
        if others:
            raise UsageError(
                "--build-only takes model, layout and precision from the engine folder",
                got=", ".join(others),
                allowed="--backend, --target, --hardware-compat, --optimization-level, --plugin-library",
            )

    def of(self, precision: Precision, attention: AttentionChoice) -> tuple[PlansBuild | None, str]:
        """What to build, and why so, in words, if any are due: nothing is a choice where nothing was asked for.

        Raises:
            UsageError, MissingBackendError: plans were asked for and cannot be.
        """
        if self.no_build:
            return None, "plans: none, --no-build"
        if not self.asked:
            if not precision.has_16_bits:
                installed = any(find_spec(name) is not None for name in ("tensorrt", "tensorrt_rtx_bindings"))
                return None, "plans: none, TensorRT takes --fp16, --bf16 or --fp8" if installed else ""
            try:
                build = self.demanded(precision, attention)
            except MissingBackendError as missing:
                return None, f"plans: none, {missing.what}"
        else:
            build = self.demanded(precision, attention)
        return build, f"plans: {build.library}, for {build.runs_on}"

    def demanded(self, precision: Precision, attention: AttentionChoice) -> PlansBuild:
        """What to build.

        Raises:
            UsageError: the flags and the engines do not go together.
            MissingBackendError: there is no such TensorRT here.
        """
        from page4d.manifest import Flavor
        from page4d_engines.tensorrt.builder import BuildOptions
        from page4d_engines.tensorrt.plans import PlansBuild, library_for

        chips = tuple(dict.fromkeys(name.strip() for name in (self.target or "").split(",") if name.strip()))
        if self.target is not None and not chips:
            raise UsageError("--target names no chip", got=repr(self.target), hint="--target sm_89,sm_120")
        flavor = None if self.backend == "auto" else Flavor(self.backend)
        if flavor is None and chips:
            flavor = Flavor.RTX  # the only one that builds for other chips than this machine's
        options = BuildOptions(chips, self.optimization_level, self.hardware_compat)
        return PlansBuild(
            library_for(flavor), options, precision, attention is AttentionChoice.NATIVE, self.plugin_library
        )
