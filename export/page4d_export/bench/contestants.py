"""The contestants of `page4d bench --peers`: the engines, PyTorch, and other ways from this model to numbers on a
processor."""

from __future__ import annotations

import copy
import functools
import logging
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxscript import opset20
from torch import Tensor, nn

from page4d.errors import MissingBackendError
from page4d.layout import Layout
from page4d.model import Output, Page4D
from page4d.precision import Precision
from page4d_engines.pipeline import Pipeline
from page4d_export.export_plan import Plan
from page4d_export.exporter import write_unverified
from page4d_export.onnx_export import OPSET
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
    plan: Plan
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
        return self._written(Plan.make(self.plan.config, self.plan.layout, Precision.INT8, self.plan.keypoints))

    def _written(self, plan: Plan) -> pathlib.Path:
        folder = self.scratch / f"engines-{plan.precision}"
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
    """One way through the whole network; `prepare`, then `run` as often as wanted.

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


def contestants() -> list[Contestant]:
    """All of them, in the order of the rows and of every round. The first is what the others are held against."""
    from page4d_export.bench.openvino import openvino

    return [
        Contestant("PyTorch eager, float32", lambda course: _eager(course, course.model)),
        Contestant("PyTorch eager, bfloat16", lambda course: _eager(course, course.narrow)),
        Contestant("torch.compile, float32", lambda course: _compiled(course, course.model)),
        Contestant("torch.compile, bfloat16", lambda course: _compiled(course, course.narrow)),
        Contestant("plain ONNX export, ONNX Runtime", plain_onnx),
        Contestant("OpenVINO, float32", lambda course: openvino(course, Precision.FLOAT32)),
        Contestant("OpenVINO, bfloat16", lambda course: openvino(course, Precision.BFLOAT16)),
        Contestant(
            "page4d engines, float32",
            lambda course: of_pipeline(course, Pipeline.load(course.engines, "onnxruntime", course.threads)),
            ours=True,
        ),
        Contestant(
            "page4d engines, int8",
            lambda course: of_pipeline(course, Pipeline.load(course.int8, "onnxruntime", course.threads), "int8"),
            ours=True,
        ),
    ]


def of_pipeline(course: Course, pipeline: Pipeline, precision: str = "float32", note: str = "") -> Runner:
    """An engine folder's chain as a contestant."""
    return Runner(lambda: pipeline.run(course.images, mask_ext=course.mask_ext).layers[course.kept], precision, note)


def _eager(course: Course, model: Page4D) -> Runner:
    return Runner(_forward(course, model), str(model.special_tokens.dtype).removeprefix("torch."))


def _compiled(course: Course, model: Page4D) -> Runner:
    """All of the model in one graph, shapes fixed as the engines' are; the compiler's other options as they come."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise MissingBackendError("torch.compile needs a C++ compiler", hint="sudo apt install g++") from None
    forward = _forward(course, torch.compile(model, dynamic=False))
    forward()  # compiles
    return Runner(forward, str(model.special_tokens.dtype).removeprefix("torch."))


def _forward(course: Course, model: Callable[..., Output]) -> Forward:
    images = torch.from_numpy(course.images)
    mask_ext = None if course.mask_ext is None else torch.from_numpy(course.mask_ext)

    def forward() -> Tensor:
        with torch.inference_mode():
            return model(images, mask_ext).layers[course.kept]

    return forward


def plain_onnx(course: Course) -> Runner:
    """The whole model by one `torch.onnx.export`, as anybody would: attention as PyTorch's own exporter writes it, no
    lowering.

    The model is captured by `torch.export` first: only inside `torch.onnx` does it use this project's nodes.
    """
    whole = _Whole(course.model, course.kept).eval()
    given = (
        torch.from_numpy(course.images),
        *(() if course.mask_ext is None else (torch.from_numpy(course.mask_ext),)),
    )
    for noisy in (
        "torch.onnx",
        "onnxscript",
        "onnx_ir",
    ):  # they report optional packages that are not there, constants that stay as they are
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with torch.no_grad():
        captured = torch.export.export(whole, given)
        program = torch.onnx.export(
            captured,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
        )
    assert program is not None
    path = course.scratch / "plain.onnx"
    program.save(path, external_data=True)
    del program, captured
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = course.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), given, strict=True)}
    return Runner(lambda: session.run(None, feeds)[0], "float32")


class _Whole(nn.Module):
    """The network as a function of tensors alone: the kept layer first, then everything else that it computes."""

    def __init__(self, model: Page4D, kept: int) -> None:
        super().__init__()
        self.network = _Network(model.config, filled=False)
        self.network.load_state_dict(model.state_dict(), assign=True)  # shares the weights
        self.kept = kept

    def forward(self, images: Tensor, mask_ext: Tensor | None = None) -> tuple[Tensor, ...]:
        """As the class says."""
        out = self.network(images, mask_ext)
        others = (
            *(layer for i, layer in out.layers.items() if i != self.kept),
            out.mask,
            out.memory,
            out.points,
            out.confidence,
            out.camera,
        )
        return (out.layers[self.kept], *(value for value in others if value is not None))


class _Network(Page4D):
    """The model up to the camera's numbers: the poses are made from them on the host, which is no graph's business."""

    def _predictions(self, pair: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        assert self.points is not None and self.confidence is not None and self.camera is not None
        return self.points(pair, layout), self.confidence(pair, layout), self.camera(pair, layout)


def _stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """What torch.onnx 2.13 has no translation for; ONNX's TopK puts the lower index first among equals."""
    op: Any = opset20  # its types know no traced values
    return op.TopK(x, op.Constant(value_ints=[int(x.shape[dim])]), axis=dim, largest=int(descending), sorted=1)
