"""`Pipeline`: an engine folder, loaded and ready to run clips over buffers that are allocated once."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from page4d.errors import UsageError
from page4d.manifest import PointsFrame
from page4d.network.known_cameras import KnownCameras
from page4d_engines.arguments import (
    backend_argument,
    finite_argument,
    images_argument,
    lines_argument,
    map_argument,
    poses_argument,
    present_argument,
    require_threads,
    rig_argument,
    shared_argument,
)
from page4d_engines.backend import Backend, choose
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.runtime.chain import Arrays, Chain, Observe
from page4d_engines.runtime.constants import read_constants, special_tokens
from page4d_engines.runtime.host_results import finished
from page4d_engines.runtime.result import LengthUnit as LengthUnit
from page4d_engines.runtime.result import Result as Result
from page4d_engines.timing import Timing


class Pipeline:
    """The chain of an engine folder.

    One clip at a time: a second `run`, of another thread or from a callback, is refused while one runs. For several
    threads load one pipeline in each (with weights and buffers of its own), or hold a lock of yours over `run` and the
    use of its `Result`. For several processes load one in each: a pipeline cannot be copied or pickled, and does not
    survive a fork.

    Attributes:
        manifest: the folder's.
        backend: what was chosen.
        plan: the buffers and the calls over them.
    """

    def __init__(self, folder: EngineFolder, backend: Backend, load: Callable[[Arrays], Chain]) -> None:
        self.manifest, self.backend = folder.manifest, backend
        constants = read_constants(folder)
        self._memory = constants.get("memory", np.zeros(0, np.float32))
        # which image has the special tokens of the first depends on which are there; a chosen view gets them later
        is_moved = self.manifest.takes_present and not self.manifest.chooses_reference
        self._special = constants.get("special") if is_moved else None
        changing = {"memory", "special"} if is_moved else {"memory"}
        self._chain = load({name: constants[name] for name in constants if name not in changing})
        self.plan = self._chain.plan
        # numpy itself has no bfloat16: such results become float32
        self._outputs = {
            name: np.empty(array.shape, np.float32) if array.dtype.name == "bfloat16" else array
            for name, array in self._chain.outputs.items()
        }
        self._has_run = False
        self._presence: NDArray[np.uint8] | None = None  # which images of the run before were; None: all
        self._running = threading.Lock()
        self._process = os.getpid()
        _LOADED.add(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Neither `copy` nor `pickle` makes another pipeline."""
        raise TypeError(
            "a Pipeline cannot be copied or pickled: it holds engines, and buffers that they are bound to\n"
            "  try:     Pipeline.load(folder) once in each thread or process"
        )

    @property
    def described(self) -> str:
        """A description of the library and device that compute."""
        return self._chain.described

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path,
        backend: Backend | str = Backend.AUTO,
        threads: int | None = None,
        rounding: bool = False,
        sliding: bool = False,
    ) -> Pipeline:
        """Load an engine folder.

        Args:
            path: the folder.
            backend: what to run on; `auto` takes the best that folder and machine allow.
            threads: of ONNX Runtime on the CPU, 1 or more; None takes every CPU.
            rounding: round as the 16-bit graph does instead of computing in float32; for checking accuracy, slow.
            sliding: windows will overlap: encoded tokens are kept, for `run(shared=...)`; takes memory for one stream's
                tokens.

        Raises:
            UsageError: no such backend, or not a number of threads.
            EngineError: the folder is incomplete or damaged, or its plans are for another machine.
            MissingBackendError: the backend is not there.
            OutOfMemoryError: buffers and weights do not fit this machine.
        """
        require_threads(threads)
        folder, chosen = EngineFolder.open(path), backend_argument(backend)
        return cls.of(folder, chosen, ThreadPool.of(threads), rounding, sliding)

    @classmethod
    def of(
        cls,
        folder: EngineFolder,
        backend: Backend = Backend.AUTO,
        pool: ThreadPool | None = None,
        rounding: bool = False,
        sliding: bool = False,
    ) -> Pipeline:
        """As `load`, of an opened folder, with threads that may be shared."""
        loader = choose(folder, backend, pool, rounding, sliding)
        return cls(folder, loader.backend, loader.load)

    def run(
        self,
        images: ArrayLike,
        *,
        mask_ext: ArrayLike | None = None,
        keypoints: ArrayLike | None = None,
        cameras: Mapping[str, Any] | NDArray[np.floating[Any]] | None = None,
        memory: ArrayLike | None = None,
        present: ArrayLike | None = None,
        shared: int = 0,
        progress: Callable[[str], None] | None = None,
        observe: Observe | None = None,
    ) -> Result:
        """Run one clip; arguments as the reference model's.

        Everything is checked before the first value is copied: a call that is refused changes nothing.

        Args:
            images: uint8 `[T,V,H,W,3]`.
            mask_ext: `[T,V,P,1]` in [0,1], real numbers of any type, or one number for all; None counts as all zero.
                Published models take none.
            keypoints: `[T,V,P,1]` in [0,1]; needed if and only if the engines were exported with them.
            cameras: per view what `cameras.json` has, K and size for the images given. For engines with the epipolar
                prior, which also take the fundamental matrices `[V,V,3,3]`; for those with known cameras, which also
                take the camera encoder's input `[V,9]` (the results are then not brought into the cameras' frame); for
                Depth Anything 3 METRIC, whose depth is in metres where it has them. Others do not look at it.
            memory: `[S,M,C]` of the window before, finite; None starts from the learned one.
            present: which images are there, `[T,V]`, bool or 0 and 1, at least one; None: all. Absent ones are for
                engines that were exported with `--absent-views`. Their images have to have values, which change no
                result (in int8 its rounding); the results are NaN there, kept layers have tokens without a meaning.
            shared: timesteps that this clip begins with and the last one ended with, the same images: the encoder does
                not see them again.
            progress: called with a stage's name before it runs, as far as the backend goes stage by stage. What it
                raises ends the run.
            observe: called with every stage's inputs and outputs after it ran; slow, for checking.

        Returns:
            The results, in the pipeline's own buffers: the next run overwrites them.

        Raises:
            UsageError: something has another shape or type than the engines', is out of range or not finite, or is
                missing; `shared` without a whole run before, or a pipeline that keeps nothing; another run of this
                pipeline goes on; the pipeline was loaded before a fork, by the parent of this process.
        """
        self._require_own_process()
        with self._one_at_a_time():
            for name, callback in (("progress", progress), ("observe", observe)):
                if callback is not None and not callable(callback):
                    raise UsageError(
                        f"{name} is no function", got=type(callback).__name__, allowed="a function, or None"
                    )
            carried, rig, presence = self._carried(shared), self._rig(cameras), present_argument(present, self.manifest)
            self._require_carried(carried // self.manifest.layout.V, presence)
            for name, array in self._checked(images, mask_ext, keypoints, cameras, memory, rig, presence).items():
                target = self._chain.inputs[name]
                np.copyto(target, array.reshape(target.shape) if array.ndim else array, casting="same_kind")
            return self._run(carried, progress, observe, rig, presence)

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "the pipeline was loaded before this process was forked, and its threads are not here",
                got=f"loaded in process {self._process}, called in {os.getpid()}",
                allowed="a pipeline of this process's own",
                hint='Pipeline.load after the fork, or multiprocessing.get_context("spawn")',
            )

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._running.acquire(blocking=False):
            raise UsageError(
                "this pipeline is running: it has one set of buffers, and runs one clip at a time",
                got="a second run, of another thread or from a callback",
                allowed="one run after the other",
                hint="a Pipeline.load for each thread, or a lock over run and the use of its result",
            )
        try:
            yield
        finally:
            self._running.release()

    def _run(
        self,
        carried: int,
        progress: Callable[[str], None] | None,
        observe: Observe | None,
        rig: KnownCameras | None,
        presence: NDArray[np.uint8] | None,
    ) -> Result:
        """Run on what lies in the inputs."""
        self._has_run = False  # until the encoded tokens are known to be whole
        seconds = self._chain.run(progress, observe, carried)
        self._has_run, self._presence = True, presence
        for name, array in self._chain.outputs.items():
            if array is not self._outputs[name]:
                np.copyto(self._outputs[name], array)
        result = dataclasses.replace(self._result, timing=self._timing(seconds, carried))
        present = None if presence is None else presence.astype(bool)
        return finished(result, self.manifest, self._outputs.get("camera"), rig, present)

    def _timing(self, seconds: Mapping[str, float], carried: int) -> Timing:
        """Of a run that carried so many images, which saves calls of the encoder."""
        stages, saved = self.manifest.stages, {"encoder": carried // self.manifest.encoder_images}
        return Timing(
            {entry.name: seconds.get(entry.name, 0.0) for entry in stages},
            {entry.name: entry.flop * (entry.calls - saved.get(entry.kind, 0)) for entry in stages},
        )

    @functools.cached_property
    def _result(self) -> Result:
        """What lies in the buffers; cameras, timing and unit are made after each run."""
        layers = {kept.layer: self._outputs[f"layers.{kept.layer}"] for kept in self.manifest.keep}
        output, frame = self._outputs.get, self.manifest.points_frame or PointsFrame.CAMERA
        metric = output("metric")
        return Result(
            mask=output("mask"),
            layers=layers,
            memory=output("memory"),
            points=output("points"),
            points_confidence=output("points_confidence"),
            confidence=output("confidence"),
            depth=output("depth"),
            depth_confidence=output("depth_confidence"),
            metric=metric if metric is None or self.manifest.layout.B > 1 else metric.reshape(()),
            sky=output("sky"),
            points_frame=frame if self.manifest.makes("points") else None,
        )

    def _carried(self, shared: int) -> int:
        """The number of images of so many shared timesteps."""
        shape = self.manifest.layout
        count = shared_argument(shared, shape.T)
        missing = None
        if shape.B > 1:
            missing = "B > 1"
        elif self.plan.encoded is None:
            missing = "a pipeline that keeps nothing"
        elif not self._has_run:
            missing = "no run before"
        if count and missing is not None:
            raise UsageError(
                "shared times need what the encoder made of the clip before",
                got=missing,
                hint="Pipeline.load(..., sliding=True), and a first run",
            )
        return count * shape.V

    def _require_carried(self, shared: int, presence: NDArray[np.uint8] | None) -> None:
        """Images of shared timesteps that are there now were there before: nothing was encoded of the others."""
        if not shared or self._presence is None:
            return
        before = self._presence[len(self._presence) - shared :]
        now = np.ones_like(before) if presence is None else presence[:shared]
        if (now > before).any():
            t, v = np.argwhere(now > before)[0].tolist()
            raise UsageError(
                "a shared time has an image that was absent from the clip before",
                got=f"timestep {t}, view {v}",
                allowed="an image that is absent again",
                hint="fewer shared times",
            )

    def _rig(self, cameras: object) -> KnownCameras | None:
        """The images' cameras, for engines whose results depend on them beyond an input."""
        manifest, is_mapping = self.manifest, isinstance(cameras, Mapping)
        if (manifest.knows_cameras and is_mapping) or (manifest.metres_by_focal_length and cameras is not None):
            return KnownCameras.of(rig_argument(cameras, manifest.layout).values())
        return None

    def _checked(
        self,
        images: ArrayLike,
        mask_ext: ArrayLike | None,
        keypoints: ArrayLike | None,
        cameras: object,
        memory: ArrayLike | None,
        rig: KnownCameras | None,
        presence: NDArray[np.uint8] | None,
    ) -> dict[str, NDArray[Any]]:
        """The arguments by the inputs' names, each of its shape or a single number."""
        manifest, shape = self.manifest, self.manifest.layout
        values: dict[str, NDArray[Any]] = {"images": images_argument(images, shape.images_shape)}
        if manifest.reads("mask_ext"):
            values["mask_ext"] = map_argument("mask_ext", 0.0 if mask_ext is None else mask_ext, shape.patch_map_shape)
        elif mask_ext is not None:
            raise UsageError(
                "these engines are of a published model and take no external mask",
                got="mask_ext",
                allowed="no mask_ext",
            )
        if manifest.reads("keypoints"):
            if keypoints is None:
                raise UsageError(
                    "these engines were exported with --keypoints and need them",
                    allowed=f"keypoints {list(shape.patch_map_shape)}",
                )
            values["keypoints"] = map_argument("keypoints", keypoints, shape.patch_map_shape)
        elif keypoints is not None:
            raise UsageError("these engines take no keypoints", hint="page4d-export --keypoints")
        if manifest.reads("fundamental"):
            values["fundamental"] = finite_argument(
                "fundamental", lines_argument(cameras, shape), self._chain.inputs["fundamental"]
            )
        if manifest.knows_cameras:
            views = None if presence is None else presence.reshape(-1).astype(bool)
            encoded = poses_argument(cameras, shape) if rig is None else rig.encoded(shape.H, shape.W, views)
            values["cameras"] = finite_argument("cameras", encoded, self._chain.inputs["cameras"])
        if manifest.reads("memory"):
            values["memory"] = finite_argument(
                "memory", self._memory if memory is None else memory, self._chain.inputs["memory"]
            )
        if manifest.takes_present:
            values["present"] = np.ones(shape.image_map_shape, np.uint8) if presence is None else presence
            if self._special is not None:
                values["special"] = special_tokens(self._special, values["present"], shape)
        return values


_LOADED: weakref.WeakSet[Pipeline] = weakref.WeakSet()


def _keep_after_fork() -> None:
    """In a forked process never destroy the parent's engines: they would wait forever for threads that are not here."""
    for pipeline in _LOADED:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipeline._chain))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_after_fork)
