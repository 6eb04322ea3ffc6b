"""The contestants of `page4d bench peers`: the engines, PyTorch, and other ways to run this model on a CPU."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import onnxruntime
import torch
from onnxscript import opset20
from torch import Tensor, nn

from page4d.errors import MissingBackendError
from page4d.layout import Layout
from page4d.model import Output, Page4D
from page4d.precision import Precision
from page4d_engines.pipeline import Pipeline
from page4d_export.bench.contestant import Contestant, Course, Forward, Runner, of_pipeline
from page4d_export.bench.openvino import openvino, openvino_int8
from page4d_export.tracing.onnx_export import OPSET, silence


def contestants() -> list[Contestant]:
    """All contestants, in the order of the rows and of every round. The others are compared with the first."""
    return [
        Contestant("PyTorch eager, float32", lambda course: _eager(course, course.model)),
        Contestant("PyTorch eager, bfloat16", lambda course: _eager(course, course.narrow)),
        Contestant("torch.compile, float32", lambda course: _compiled(course, course.model)),
        Contestant("torch.compile, bfloat16", lambda course: _compiled(course, course.narrow)),
        Contestant("plain ONNX export, ONNX Runtime", plain_onnx),
        Contestant("OpenVINO, float32", lambda course: openvino(course, Precision.FLOAT32)),
        Contestant("OpenVINO, bfloat16", lambda course: openvino(course, Precision.BFLOAT16)),
        Contestant("OpenVINO, int8 by NNCF", openvino_int8),
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
        Contestant("page4d engines, float32, on OpenVINO", lambda course: _on_openvino(course, course.engines), True),
        Contestant("page4d engines, bfloat16, on OpenVINO", lambda course: _on_openvino(course, course.bfloat16), True),
        Contestant("page4d engines, int8, on OpenVINO", lambda course: _on_openvino(course, course.int8), True),
        Contestant(
            "page4d engines, static int8, on OpenVINO",
            lambda course: _on_openvino(course, course.static_int8),
            ours=True,
        ),
    ]


def _on_openvino(course: Course, folder: pathlib.Path) -> Runner:
    from page4d_engines.openvino.device import multiplies_bytes

    pipeline = Pipeline.load(folder, "openvino", course.threads)
    precision = "int8" if multiplies_bytes(pipeline.manifest.precision) else str(pipeline.precision)
    return of_pipeline(course, pipeline, precision, pipeline.described)


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
    """The whole model by one `torch.onnx.export`: attention is what PyTorch's own exporter writes, without lowering.

    The model is captured by `torch.export` first: only inside `torch.onnx` does it use this project's nodes.
    """
    whole = _Whole(course.model, course.kept).eval()
    inputs = tuple(torch.from_numpy(array) for array in (course.images, course.mask_ext) if array is not None)
    silence("torch.onnx", "onnxscript", "onnx_ir")
    with torch.no_grad():
        captured = torch.export.export(whole, inputs)
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
    feeds = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
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
        others = [layer for i, layer in out.layers.items() if i != self.kept]
        optional = (getattr(out, field.name) for field in dataclasses.fields(out))
        return (out.layers[self.kept], *others, *(value for value in optional if isinstance(value, Tensor)))


class _Network(Page4D):
    """The model up to the raw output of the camera head: poses are computed from it on the host."""

    def _cameras(self, numbers: Tensor, layout: Layout) -> dict[str, Tensor]:
        return {"camera": numbers}


def _stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort, which torch.onnx 2.13 cannot translate; ONNX's TopK puts the lower index first among equals."""
    op: Any = opset20  # its types know no traced values
    return op.TopK(x, op.Constant(value_ints=[int(x.shape[dim])]), axis=dim, largest=int(descending), sorted=1)
