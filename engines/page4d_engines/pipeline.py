"""`Pipeline`: an engine folder, loaded and ready to run clips over buffers that are allocated once."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from page4d.cameras import cameras_from_mapping, fundamental
from page4d.errors import UsageError
from page4d.poses import camera_to_world
from page4d_engines.backend import Backend, choose
from page4d_engines.chain import Arrays, Chain, Observe
from page4d_engines.constants import read_constants
from page4d_engines.folder import EngineFolder


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
        flop: of each stage in the last `run`, by name.
    """

    def __init__(self, folder: EngineFolder, backend: Backend, make: Callable[[Arrays], Chain]) -> None:
        self.manifest, self.backend = folder.manifest, backend
        constants = read_constants(folder)
        self._memory = constants.get("memory", np.zeros(0, np.float32))
        self._chain = make({"special": constants["special"]})
        self.plan = self._chain.plan
        # 16 bits that numpy has no type for are given out as float32
        self._outputs = {name: np.empty(array.shape, np.float32) if _is_bfloat16(array) else array for name, array in self._chain.outputs.items()}
        self.seconds: dict[str, float] = {}
        self.flop: dict[str, int] = {}
        self._has_run = False

    @property
    def described(self) -> str:
        """What computes, in words."""
        return self._chain.described

    @classmethod
    def load(
        cls, path: str | pathlib.Path, backend: Backend | str = Backend.AUTO, threads: int | None = None, rounding: bool = False, sliding: bool = False
    ) -> Pipeline:
        """Load an engine folder.

        Args:
            path: the folder.
            backend: what to run on; `auto` takes the best that folder and machine allow.
            threads: of ONNX Runtime on the CPU; None takes every processor.
            rounding: round as the 16-bit graph does instead of computing in float32; for checking accuracy, slow.
            sliding: windows will overlap: what the encoder makes is kept, for `run(shared=...)`; takes memory for one stream's tokens.

        Raises:
            EngineError: the folder is incomplete or damaged, or its plans are for another machine.
            MissingBackendError: the backend is not there.
            OutOfMemoryError: buffers and weights do not fit this machine.
        """
        return cls.of(EngineFolder.open(path), Backend(backend), threads, rounding, sliding)

    @classmethod
    def of(cls, folder: EngineFolder, backend: Backend = Backend.AUTO, threads: int | None = None, rounding: bool = False, sliding: bool = False) -> Pipeline:
        """As `load`, from a folder that was opened before."""
        chosen, make = choose(folder, backend, threads, rounding, sliding)
        return cls(folder, chosen, make)

    def run(
        self,
        images: ArrayLike,
        mask_ext: ArrayLike | None = None,
        keypoints: ArrayLike | None = None,
        cameras: Mapping[str, Any] | NDArray[np.floating[Any]] | None = None,
        memory: ArrayLike | None = None,
        shared: int = 0,
        progress: Callable[[str], None] | None = None,
        observe: Observe | None = None,
    ) -> Result:
        """Run one clip; arguments as the reference model's.

        Args:
            images: uint8 `[T,V,H,W,3]`.
            mask_ext: `[T,V,P,1]` in [0,1]; none counts as all zero. Published models take none.
            keypoints: `[T,V,P,1]` in [0,1]; needed if and only if the engines were exported with them.
            cameras: per view what `cameras.json` has, K for the images given; or the fundamental matrices `[V,V,3,3]`.
            memory: `[S,M,C]` of the window before; none starts from the learned one.
            shared: times that this clip begins with and the last one ended with, the same images: the encoder does not see them again.
            progress: called with a stage's name before it runs, as far as the backend goes stage by stage.
            observe: called with every stage's inputs and outputs after it ran; slow, for checking.

        Raises:
            UsageError: something has another shape than the engines', or is missing; `shared` without a run before, or a pipeline that
                keeps nothing.
        """
        carried = self._carried(shared)
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
            self._give("memory", self._memory if memory is None else memory, np.float32)

        self._has_run = False  # until it is known that what the encoder made is whole
        found = self._chain.run(progress, observe, carried)
        self._has_run = True
        self.seconds = {entry.name: found.get(entry.name, 0.0) for entry in self.manifest.stages}
        spared = {"encoder": carried // self.manifest.encoder_images}  # calls
        self.flop = {entry.name: entry.flop * (entry.calls - spared.get(entry.kind, 0)) for entry in self.manifest.stages}
        for name, array in self._chain.outputs.items():
            if array is not self._outputs[name]:
                np.copyto(self._outputs[name], array)
        numbers = self._outputs.get("camera")
        return self._result if numbers is None else dataclasses.replace(self._result, camera=camera_to_world(numbers))

    @functools.cached_property
    def _result(self) -> Result:
        """What lies in the buffers; a pose is made from its numbers after each run."""
        layers = {kept.layer: self._outputs[f"layers.{kept.layer}"] for kept in self.manifest.keep}
        found = self._outputs.get
        return Result(found("mask"), layers, found("memory"), found("points"), found("confidence"))

    def _carried(self, shared: int) -> int:
        """Images of so many times."""
        shape = self.manifest.shape
        if shared == 0:
            return 0
        if self.plan.encoded is None or not self._has_run or shape.B > 1:
            got = "B > 1" if shape.B > 1 else "no run before" if self.plan.encoded is not None else "a pipeline that keeps nothing"
            raise UsageError("shared times need what the encoder made of the clip before", got=got, hint="Pipeline.load(..., sliding=True), and a first run")
        if not 0 < shared < shape.T:
            raise UsageError("a clip shares a part of its times with the one before", got=f"shared = {shared}", allowed=f"0 to {shape.T - 1}")
        return shared * shape.V

    def _give(self, name: str, value: ArrayLike, dtype: type[np.generic]) -> None:
        """Copy a value from outside into its buffer."""
        target, given = self._chain.inputs[name], np.asarray(value)
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


def _is_bfloat16(array: NDArray[Any]) -> bool:
    return array.dtype.name == "bfloat16"
