"""One side of `page4d bench peers`, and what all sides run."""

from __future__ import annotations

import copy
import functools
import pathlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from page4d.manifest_checks.manifest_file import MANIFEST
from page4d.model import Page4D
from page4d.precision import Precision
from page4d_engines.pipeline import Pipeline
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.stage import cast

Forward = Callable[[], "NDArray[Any] | Tensor"]
"""One pass over the clip; the last kept layer `[T,V,N,S*C]`, where the contestant left it."""


@dataclass
class Course:
    """What every contestant runs: the same model, frames and threads.

    Attributes:
        model: the reference, float32.
        plan: float32.
        images: uint8 `[T,V,H,W,3]`.
        mask_ext: float32 `[T,V,P,1]`, or None where the model takes none.
        threads: of each contestant.
        scratch: an existing folder, for files; it is gone after the benchmark.
    """

    model: Page4D
    plan: ExportPlan
    images: NDArray[Any]
    mask_ext: NDArray[Any] | None
    threads: int
    scratch: pathlib.Path

    @functools.cached_property
    def engines(self) -> pathlib.Path:
        """The plan's engine folder, written when it is first asked for."""
        return self._written(self.plan)

    @functools.cached_property
    def int8(self) -> pathlib.Path:
        """The same in int8, written when it is first asked for."""
        return self._written(self._in(Precision.INT8))

    @functools.cached_property
    def static_int8(self) -> pathlib.Path:
        """The same with static ranges, of the rendered clip, which is what is timed."""
        return self._written(self._in(Precision.INT8, static_ranges=True))

    @functools.cached_property
    def bfloat16(self) -> pathlib.Path:
        """The same in bfloat16, written when it is first asked for."""
        return self._written(self._in(Precision.BFLOAT16))

    def _in(self, precision: Precision, static_ranges: bool = False) -> ExportPlan:
        plan = self.plan
        return ExportPlan.make(plan.config, plan.layout, precision, plan.keypoints, static_ranges=static_ranges)

    def _written(self, plan: ExportPlan) -> pathlib.Path:
        folder = self.scratch / f"engines-{plan.precision}{'-static' * plan.static_ranges}"
        if not (folder / MANIFEST).exists():  # another contestant's process may have written it
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_unverified(self.model, plan, folder)
        return folder

    @functools.cached_property
    def narrow(self) -> Page4D:
        """The model with bfloat16 weights, its float32 islands aside."""
        model = copy.deepcopy(self.model)
        cast(model, Precision.BFLOAT16)
        return model

    @property
    def kept(self) -> int:
        """The layer that is compared: the last that is kept."""
        return max(self.plan.config.keep_layers or ())


@dataclass(frozen=True)
class Runner:
    """A contestant that is ready.

    Attributes:
        forward: runs it.
        precision: what it really computes in.
        note: what a reader of its row should know; empty where nothing.
    """

    forward: Forward
    precision: str
    note: str = ""


@dataclass
class Contestant:
    """One way through the whole network; `prepare`, then `run` any number of times.

    Attributes:
        name: of its row.
        start: makes it ready, warm-up included; raises whatever stands in the way.
        ours: whether it is this project's.
        runner: after `prepare`.
    """

    name: str
    start: Callable[[Course], Runner]
    ours: bool = False
    runner: Runner | None = field(default=None, init=False)
    _result: NDArray[Any] | Tensor | None = field(default=None, init=False, repr=False)

    def prepare(self, course: Course) -> None:
        """Get ready."""
        self.runner = self.start(course)

    def run(self) -> float:
        """One pass; the seconds it took, from frames to results in host memory."""
        assert self.runner is not None
        self._result = None  # its memory is the next one's
        started = time.perf_counter()
        self._result = self.runner.forward()
        return time.perf_counter() - started

    @property
    def layer(self) -> NDArray[np.float32]:
        """The kept layer of the last run, in memory of its own."""
        assert self._result is not None
        return np.array(self._result.float().numpy() if isinstance(self._result, Tensor) else self._result, np.float32)


def of_pipeline(course: Course, pipeline: Pipeline, precision: str = "float32", note: str = "") -> Runner:
    """An engine folder's chain as a contestant."""
    return Runner(lambda: pipeline.run(course.images, mask_ext=course.mask_ext).layers[course.kept], precision, note)
