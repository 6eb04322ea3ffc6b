"""Whether plans and a machine go together: checked before anything is loaded; errors name the command that rebuilds."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from page4d.errors import EngineError
from page4d.manifest import Flavor, Plans
from page4d.precision import Precision
from page4d_engines.tensorrt.library import Library
from page4d_plugins.driver import capability_of, cuda_version
from page4d_plugins.kernel_pack import shipped


@dataclass(frozen=True)
class Machine:
    """What plans depend on at a machine."""

    library: Library
    capability: int
    """Of the GPU, times ten."""
    cuda: tuple[int, int]
    """The newest CUDA that the driver runs."""
    kernels: str
    """SHA-256 of the source of the attention kernels that are installed."""

    @classmethod
    def here(cls, plans: Plans) -> Machine:
        """This machine.

        Raises:
            MissingBackendError: no driver, or the TensorRT that the plans are of is not installed.
        """
        capability = capability_of(0)
        return cls(Library.find(plans.library), capability, cuda_version(), shipped().header.source)

    @property
    def chip(self) -> str:
        """`sm_<capability>`."""
        return f"sm_{self.capability}"

    def require(self, plans: Plans, folder: pathlib.Path) -> None:
        """Raise unless the plans run here.

        Args:
            plans: as the manifest has them.
            folder: that they lie in, for the command that rebuilds them.

        Raises:
            EngineError: another TensorRT, another GPU architecture, other kernels, or a driver that is too old.
        """
        rebuild = f"page4d-export --build-only {folder} --backend {plans.library}"
        here = ".".join(map(str, self.library.version))
        if here != plans.version:
            name = str(self.library).rpartition(" ")[0]
            raise EngineError(f"the plans were built by another {name}", got=plans.version, allowed=here, hint=rebuild)
        self.library.require_on(self.capability)
        if not plans.fits(self.capability):
            hint = f"{rebuild} --target {self.chip}" if self.library.flavor is Flavor.RTX else rebuild
            if plans.least_chip > self.capability >= Precision.FLOAT16.least_chip:
                hint = "page4d-export --fp16: this GPU has no fp8 products"
            raise EngineError(
                "the plans were built for other GPUs than this one", got=plans.runs_on, allowed=self.chip, hint=hint
            )
        if plans.kernels is not None and plans.kernels != self.kernels:
            got, allowed = f"{plans.kernels[:12]}..", f"{self.kernels[:12]}.."
            raise EngineError(
                "the plans' plugins are of another version of page4d's kernels", got=got, allowed=allowed, hint=rebuild
            )
        needed = cuda_of(self.library)
        if needed is not None and self.cuda[0] < needed:
            name = f"{self.library} is for CUDA {needed}"
            raise EngineError(
                f"{name}, and this GPU's driver is older",
                got=f"CUDA {self.cuda[0]}.{self.cuda[1]}",
                hint="a newer driver",
            )


def cuda_of(library: Library) -> int | None:
    """Major version of the CUDA that an installed TensorRT is for; None where its packages do not say."""
    name = "tensorrt-rtx" if library.flavor is Flavor.RTX else "tensorrt"
    for major in (13, 12):
        try:
            version(f"{name}-cu{major}-libs" if library.flavor is Flavor.RTX else f"{name}-cu{major}")
        except PackageNotFoundError:
            continue
        return major
    return None
