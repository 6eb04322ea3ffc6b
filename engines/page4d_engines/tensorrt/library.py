"""The TensorRT that is installed: full, or TensorRT-RTX; which version, and what is known against it."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from types import ModuleType

from page4d.errors import EngineError, MissingBackendError
from page4d.manifest import Flavor
from page4d_plugins.tensorrt import rtx

_OLDEST, _NEWEST = (10, 3), (12, 0)


@dataclass(frozen=True)
class KnownBad:
    """Versions of full TensorRT that were seen to compute wrong values, without an error."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    """Both included."""
    what: str
    link: str
    native_only: bool = False
    """Whether this project's plugin computes right."""
    chips: tuple[str, ...] = ()
    """GPU architectures that are concerned; all if empty."""

    def concerns(self, version: tuple[int, ...], chip: str | None, native: bool) -> bool:
        """Whether to warn on a GPU architecture (`sm_<capability>`); where it is not known (None), as on all."""
        if self.native_only and not native:
            return False
        inside = self.first <= version and version[: len(self.last)] <= self.last
        return inside and (not self.chips or chip is None or chip in self.chips)


_ISSUES = "https://github.com/NVIDIA/TensorRT/issues/"
KNOWN_BAD = (
    KnownBad((10, 3), (10, 4), "fp16 engines of ViT encoders give wrong numbers", f"{_ISSUES}4723"),
    KnownBad((10, 7), (10, 7), "attention exported from PyTorch is fused wrongly", f"{_ISSUES}4333", native_only=True),
    KnownBad(
        first=(10, 0),
        last=(10, 16),
        what="the fused attention of ViT encoders gives wrong numbers in 16 bits",
        link=f"{_ISSUES}4837",
        native_only=True,
        chips=("sm_120", "sm_121"),
    ),
)


@dataclass(frozen=True)
class Library:
    """An installed TensorRT."""

    flavor: Flavor
    module: ModuleType
    version: tuple[int, ...]

    @classmethod
    def find(cls, flavor: Flavor | None = None) -> Library:
        """The library of a flavor; for None full TensorRT, or TensorRT-RTX where that is not installed.

        Raises:
            MissingBackendError: not installed, or of a version that this project does not know.
        """
        if flavor is not Flavor.RTX:
            try:
                module = importlib.import_module("tensorrt")
            except ImportError:
                if flavor is Flavor.TENSORRT:
                    raise MissingBackendError(
                        "TensorRT is not installed", hint='pip install "page4d[tensorrt]"'
                    ) from None
            else:
                return cls._of(Flavor.TENSORRT, module)
        return cls._of(Flavor.RTX, rtx.load())

    @classmethod
    def _of(cls, flavor: Flavor, module: ModuleType) -> Library:
        version = tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:3])
        if flavor is Flavor.TENSORRT and not _OLDEST <= version < _NEWEST:
            raise MissingBackendError(
                "this TensorRT is not supported",
                got=module.__version__,
                allowed="10.3 .. 11",
                hint='pip install "tensorrt>=10.3,<12"',
            )
        return cls(flavor, module, version)

    def __str__(self) -> str:
        name = "TensorRT-RTX" if self.flavor is Flavor.RTX else "TensorRT"
        return f"{name} {'.'.join(map(str, self.version))}"

    @property
    def capabilities(self) -> tuple[int, ...]:
        """Compute capabilities, times ten, that it builds for; empty for full TensorRT, which runs on all."""
        if self.flavor is Flavor.TENSORRT:
            return ()
        return tuple(sorted(int(name[2:]) for name in dir(self.module.ComputeCapability) if name.startswith("SM")))

    def runs_on(self, capability: int) -> bool:
        """Whether it runs on a GPU of this compute capability, times ten.

        TensorRT-RTX leaves out those of data centres and Jetson.
        """
        known = self.capabilities
        return not known or capability in known or capability > known[-1]

    def require_on(self, capability: int) -> None:
        """Raise unless it runs on a GPU of this compute capability, times ten; it would refuse a plan much later.

        Raises:
            EngineError: it does not.
        """
        if not self.runs_on(capability):
            allowed = f"{', '.join(f'sm_{known}' for known in self.capabilities)} and newer"
            raise EngineError(
                f"{self} does not run on this GPU",
                got=f"sm_{capability}",
                allowed=allowed,
                hint="--backend cuda, or full TensorRT",
            )

    def warnings(self, chip: str | None, native: bool) -> list[str]:
        """What is known against it on a GPU architecture (`sm_<capability>`; None: not known), a sentence each."""
        if self.flavor is Flavor.RTX:
            if chip is None or self.runs_on(int(chip.removeprefix("sm_"))):
                return []
            what = f"{self} builds for other machines here: it does not run on this GPU ({chip})"
            return [f"{what}, where --backend cuda does"]
        return [
            f"{self}: {bad.what} ({bad.link}); verify on the target"
            for bad in KNOWN_BAD
            if bad.concerns(self.version, chip, native)
        ]
