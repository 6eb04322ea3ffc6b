"""`page4d doctor`: what is installed, which GPUs there are, what is missing, and which backends that leaves."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

import msgspec

from page4d import __version__
from page4d.errors import MissingBackendError, Page4DError
from page4d.manifest import Flavor
from page4d.precision import Precision
from page4d_engines.openvino.device import computing_precision, core
from page4d_engines.options import CPU
from page4d_engines.ort.cuda_engine import require_provider
from page4d_engines.ort.library import require_onnx
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.requirements import cuda_of
from page4d_engines.versions import TRIED
from page4d_plugins.driver import capability_of, checked, chip_here, cuda_version, driver
from page4d_plugins.kernel_pack import shipped

_RUN = ("onnxruntime", "numpy", "ml-dtypes", "msgspec", "safetensors", "pillow", "typer", "rich", "jinja2")
_EXPORT = ("torch", "onnx", "onnxscript", "onnx-ir")
_KERNELS = ("triton",)
_HUB = "huggingface-hub"
_OPTIONAL = ("openvino", "cuda-core", "cuda-bindings", "av", _HUB)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    said: str
    """A version, or what is wrong."""
    hint: str | None = None
    """What to do where something is missing."""


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings."""

    installed: list[Finding]
    machine: list[Finding]
    can: list[Finding]
    """Exporting, reading videos, building plans, and every backend."""


def diagnose() -> Diagnosis:
    """Look at this machine. Loads nothing heavy, changes nothing."""
    installed = [Finding("page4d", True, __version__), Finding("python", True, platform.python_version())]
    installed += [
        _package(name) for name in (*_RUN, "openvino", *_EXPORT, *_KERNELS, "cuda-core", "cuda-bindings", "av", _HUB)
    ]
    installed += [_library(flavor) for flavor in (Flavor.TENSORRT, Flavor.RTX)]
    installed.append(_tried("attention kernels", lambda: f"{len(shipped().kernels)} for {', '.join(_chips())}"))
    return Diagnosis(installed, list(_machine()), list(_abilities()))


def _package(name: str) -> Finding:
    for package in (f"{name}-gpu", name) if name == "onnxruntime" else (name,):
        try:
            installed = version(package)
        except PackageNotFoundError:
            continue
        tried = TRIED[name]
        description = f"{installed}{' (GPU)' if package.endswith('-gpu') else ''}"
        if remark := tried.remark(installed):
            description += f", {remark}"
        old = tried.too_old(installed)
        return Finding(name, not old, description, f'pip install "{package}>={tried.lowest}"' if old else None)
    return Finding(name, False, "not installed")


def _chips() -> list[str]:
    chips = {kernel.entry.chip for kernel in shipped().kernels.values()}
    return sorted(chips, key=lambda chip: (chip == "ptx", len(chip), chip))


def _library(flavor: Flavor) -> Finding:
    name = "TensorRT" if flavor is Flavor.TENSORRT else "TensorRT-RTX"

    def describe() -> str:
        library = Library.find(flavor)
        cuda = cuda_of(library)
        release = ".".join(map(str, library.version)) + (f", for CUDA {cuda}" if cuda else "")
        return "; ".join([release, *library.warnings(chip_here(), native=True)])

    return _tried(name, describe)


def _machine() -> Iterator[Finding]:
    yield Finding("system", True, f"{platform.system()} {platform.machine()}")
    finding = _tried("driver", lambda: "CUDA {}.{}".format(*cuda_version()))
    yield finding
    if not finding.ok:
        return
    api = driver()
    for number in range(int(checked(api.cuDeviceGetCount()))):
        name = checked(api.cuDeviceGetName(128, number)).split(b"\0")[0].decode()
        yield Finding(f"GPU {number}", True, f"{name}, sm_{capability_of(number)}")


def _abilities() -> Iterator[Finding]:
    def need(extra: str, *names: str) -> str:
        missing = [finding for finding in map(_package, names) if not finding.ok]
        if missing:
            what = "; ".join(f"{finding.name} {finding.said}" for finding in missing)
            raise MissingBackendError(what, hint=f'pip install "page4d{extra}"')
        return "yes"

    def plans() -> str:
        require_onnx("building plans")
        from page4d_engines.tensorrt.plans import library_for

        return f"with {library_for(None)}"

    def tensorrt() -> str:
        library, capability = Library.find(), capability_of(0)
        library.require_on(capability)
        return f"{library}, on sm_{capability}"

    def openvino() -> str:
        need("[openvino]", "openvino")
        devices = ", ".join(core().available_devices)
        return f"on {devices}; 16-bit engines on the CPU in {computing_precision(Precision.BFLOAT16, CPU)}"

    def provider() -> str:
        require_provider()
        importlib.import_module("ml_dtypes")
        return "ONNX Runtime's CUDA provider"

    yield _tried("page4d-export", lambda: need("[export]", *_EXPORT))
    yield _tried("frames in videos", lambda: need("[video]", "av"))
    yield _tried("weights from a hub", lambda: need("[hub]", _HUB))
    yield _tried("build plans", plans)
    yield _tried("--backend tensorrt", tensorrt)
    yield _tried("--backend cuda", provider)
    yield _tried("--backend onnxruntime", lambda: need("", *_RUN))
    yield _tried("--backend openvino", openvino)


def _tried(name: str, describe: Callable[[], str]) -> Finding:
    """What a call returns, or the error that it raises."""
    try:
        return Finding(name, True, describe())
    except Page4DError as error:
        return Finding(name, False, error.what + (f" ({error.got})" if error.got is not None else ""), error.hint)
