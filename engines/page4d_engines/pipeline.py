"""`Pipeline`: an engine folder, loaded and ready to run clips over buffers that are allocated once."""

from __future__ import annotations

import dataclasses
import enum
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file

from page4d.cameras import cameras_from_mapping, fundamental
from page4d.errors import MissingBackendError, OutOfMemoryError, UsageError
from page4d.manifest import CONSTANTS, Manifest
from page4d.poses import camera_to_world
from page4d_engines.buffers import BufferPlan, Keep, View
from page4d_engines.folder import EngineFolder


class Backend(str, enum.Enum):
    """What runs the engines. Anything but `auto` is a demand."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    CUDA = "cuda"
    TENSORRT = "tensorrt"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Result:
    """What a clip gives: the reference model's fields, as arrays.

    They lie in the pipeline's own buffers: the next `run` overwrites them. `copy()` keeps them.

    Attributes:
        mask: M float32 `[T,V,h,w]`, the probability that a patch is dynamic; None where the model has no mask head.
        layers: per kept layer its tokens `[T,V,N,S*C]`.
        memory: `[S,M,C]`, to be given to the next window, where the model has memory; else None.
        points: float32 `[T,V,H,W,3]`, every pixel's point in its camera's frame, up to scale; None without Pi3's heads, as the next two.
        confidence: float32 `[T,V,H,W]`, a logit.
        camera: float64 `[T,V,4,4]`, camera-to-world; NaN where the engines gave no finite numbers.
    """

    mask: NDArray[np.float32] | None
    layers: dict[int, NDArray[np.generic]]
    memory: NDArray[np.generic] | None
    points: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None
    camera: NDArray[np.float64] | None = None

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What there is, by name: `mask`, `layers.<i>`, `memory`, `points`, `confidence`, `camera`."""
        named = {"mask": self.mask, "memory": self.memory, "points": self.points, "confidence": self.confidence, "camera": self.camera}
        return {name: array for name, array in named.items() if array is not None} | {f"layers.{i}": layer for i, layer in self.layers.items()}

    def copy(self) -> Result:
        """The same in memory of its own."""
        copied = {name: array.copy() for name, array in self.tensors().items()}
        layers = {i: copied.pop(f"layers.{i}") for i in self.layers}
        return Result(copied.pop("mask", None), layers, copied.pop("memory", None), **copied)


class Pipeline:
    """The chain of an engine folder.

    Attributes:
        manifest: the folder's.
        backend: what was chosen.
        plan: the buffers and the calls over them.
        seconds: of each stage in the last `run`, by name.
    """

    def __init__(self, folder: EngineFolder, backend: Backend, threads: int | None, rounding: bool) -> None:
        from page4d_engines.ort_engine import OrtEngine

        self.manifest, self.backend = folder.manifest, backend
        self.plan = BufferPlan.make(folder.manifest, widen=True)
        _check_memory(self.plan, folder.manifest)
        self._buffers = {name: np.zeros(size, np.uint8) for name, size in self.plan.sizes.items()}
        self._constants = {name: array.astype(np.float32) for name, array in load_file(folder.file(CONSTANTS)).items()}
        self._array("special")[:] = self._constants["special"]
        engines = {entry.name: OrtEngine(folder.file(entry.file or ""), threads, rounding) for entry in folder.manifest.stages}
        self._calls: list[tuple[str, Callable[[], None], list[Keep]]] = []
        for number, call in enumerate(self.plan.calls):
            bound = engines[call.stage.name].bind(
                {name: self.at(view) for name, view in call.inputs.items()}, {name: self.at(view) for name, view in call.outputs.items()}
            )
            self._calls.append((call.stage.name, bound, [keep for keep in self.plan.keeps if keep.call == number]))
        self.seconds: dict[str, float] = {}

    @classmethod
    def load(cls, path: str | pathlib.Path, backend: Backend | str = Backend.AUTO, threads: int | None = None, rounding: bool = False) -> Pipeline:
        """Load an engine folder.

        Args:
            path: the folder.
            backend: what to run on; `auto` takes ONNX Runtime on the CPU.
            threads: of the backend; None takes every processor.
            rounding: round as the 16-bit graph does instead of computing in float32; for checking accuracy, slow.

        Raises:
            EngineError: the folder is incomplete or damaged.
            MissingBackendError: the backend is not there.
            OutOfMemoryError: buffers and weights do not fit this machine.
        """
        return cls.of(EngineFolder.open(path), Backend(backend), threads, rounding)

    @classmethod
    def of(cls, folder: EngineFolder, backend: Backend = Backend.AUTO, threads: int | None = None, rounding: bool = False) -> Pipeline:
        """As `load`, from a folder that was opened before."""
        if backend in (Backend.CUDA, Backend.TENSORRT):
            raise MissingBackendError(f"the {backend} backend is not part of this version", allowed="auto, onnxruntime", hint="--backend onnxruntime")
        return cls(folder, Backend.ONNXRUNTIME, threads, rounding)

    def run(
        self,
        images: ArrayLike,
        mask_ext: ArrayLike | None = None,
        keypoints: ArrayLike | None = None,
        cameras: Mapping[str, Any] | NDArray[np.floating[Any]] | None = None,
        memory: ArrayLike | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Result:
        """Run one clip; arguments as the reference model's.

        Args:
            images: uint8 `[T,V,H,W,3]`.
            mask_ext: `[T,V,P,1]` in [0,1]; none counts as all zero. Published models take none.
            keypoints: `[T,V,P,1]` in [0,1]; needed if and only if the engines were exported with them.
            cameras: per view what `cameras.json` has, K for the images given; or the fundamental matrices `[V,V,3,3]`.
            memory: `[S,M,C]` of the window before; none starts from the learned one.
            progress: called with a stage's name before it runs.

        Raises:
            UsageError: something has another shape than the engines', or is missing.
        """
        self._give("images", images, np.uint8)
        if self.manifest.reads("mask_ext"):
            self._give("mask_ext", 0.0 if mask_ext is None else mask_ext, np.float32)
        elif mask_ext is not None:
            raise UsageError("these engines are of a published model and take no external mask", got="mask_ext", allowed="no mask_ext")
        if self.manifest.reads("keypoints"):
            if keypoints is None:
                raise UsageError("these engines were exported with --keypoints and need them", allowed=f"keypoints {list(self.manifest.shape.patch_map_shape)}")
            self._give("keypoints", keypoints, np.float32)
        elif keypoints is not None:
            raise UsageError("these engines take no keypoints", hint="page4d-export --keypoints")
        if self.manifest.reads("fundamental"):
            self._give("fundamental", self._lines(cameras), np.float32)
        if self.manifest.reads("memory"):
            self._give("memory", self._constants["memory"] if memory is None else memory, np.float32)

        self.seconds = dict.fromkeys((entry.name for entry in self.manifest.stages), 0.0)
        for name, call, keeps in self._calls:
            if progress is not None:
                progress(name)
            started = time.perf_counter()
            call()
            for keep in keeps:
                self._keep(keep)
            self.seconds[name] += time.perf_counter() - started
        numbers = self._outputs.get("camera")
        return self._result if numbers is None else dataclasses.replace(self._result, camera=camera_to_world(numbers))

    @functools.cached_property
    def _outputs(self) -> dict[str, NDArray[Any]]:
        return {name: self.at(view) for name, view in self.plan.outputs.items()}

    @functools.cached_property
    def _result(self) -> Result:
        """What lies in the buffers; a pose is made from its numbers after each run."""
        layers = {kept.layer: self._outputs[f"layers.{kept.layer}"] for kept in self.manifest.keep}
        found = self._outputs.get
        return Result(found("mask"), layers, found("memory"), found("points"), found("confidence"))

    def at(self, view: View) -> NDArray[Any]:
        """The array that a view of the plan stands for, in place."""
        dtype = np.dtype(view.dtype)
        size = int(np.prod(view.shape)) * dtype.itemsize
        return self._buffers[view.buffer][view.offset : view.offset + size].view(dtype).reshape(view.shape)

    def _array(self, name: str) -> NDArray[Any]:
        return self.at(self.plan.starts[name])

    def _give(self, name: str, value: ArrayLike, dtype: type[np.generic]) -> None:
        """Copy a value from outside into its buffer."""
        target, given = self._array(name), np.asarray(value)
        shape = self.manifest.shape.images_shape if name == "images" else target.shape
        if given.ndim and given.shape != shape:
            raise UsageError(f"{name} has another shape than the engines'", got=list(given.shape), allowed=f"{np.dtype(dtype).name} {list(shape)}")
        if name == "images" and given.dtype != np.uint8:
            raise UsageError("images have the wrong type", got=given.dtype, allowed="uint8 RGB")
        np.copyto(target, given.reshape(target.shape) if given.ndim else given, casting="same_kind")

    def _lines(self, cameras: Mapping[str, Any] | NDArray[np.floating[Any]] | None) -> NDArray[np.floating[Any]]:
        views = self.manifest.shape.V
        if cameras is None:
            raise UsageError("these engines have the epipolar prior and need the calibration of every view", allowed=f"{views} cameras")
        if not isinstance(cameras, Mapping):
            return cameras
        if len(cameras) != views:
            raise UsageError("the number of cameras is not the engines'", got=len(cameras), allowed=views)
        return fundamental(cameras_from_mapping(cameras).values())

    def _keep(self, keep: Keep) -> None:
        """Gather a stage's tokens `[S or 1,T,V,N,C]` into its part of the kept layer `[T,V,N,S*C]`."""
        source, target = self.at(keep.source), self.at(self.plan.outputs[f"layers.{keep.layer}"])
        width = source.shape[-1]
        streams = target.shape[-1] // (width * keep.parts)
        by_stream = target.reshape(*target.shape[:-1], streams, keep.parts, width)
        for stream in range(streams):
            by_stream[..., stream, keep.part, :] = source[min(stream, source.shape[0] - 1)]


def _check_memory(plan: BufferPlan, manifest: Manifest) -> None:
    """Refuse what cannot fit, before it drives the machine into the ground."""
    widened = 1 if manifest.precision == "float32" else 2
    scratch = 4 * max(entry.largest for entry in manifest.stages)
    needed = plan.total + widened * sum(entry.weight_bytes for entry in manifest.stages) + scratch
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
    except OSError:
        return  # not Linux: no way to tell without another dependency
    available = next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable")), None)
    if available is not None and needed > available:
        raise OutOfMemoryError(
            "the engines do not fit this machine's memory",
            got=f"{needed / 2**30:.1f} GiB needed: buffers {plan.total / 2**30:.1f}, one stage's scratch {scratch / 2**30:.1f}, the rest weights",
            allowed=f"{available / 2**30:.1f} GiB free",
            hint="page4d-export with a smaller --T, --V, --height or --width",
        )
