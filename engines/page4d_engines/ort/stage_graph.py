"""A stage's own graph, made ready for a CPU when it is loaded: where no graph for a CPU beside it serves."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from page4d_engines.ort.int8_weights import signed
from page4d_engines.ort.lowering import lower
from page4d_engines.stage_files.external_data import is_external, mapped


def lowered_stage(
    path: pathlib.Path,
    rounding: bool,
    extend: Callable[[onnx.ModelProto], None] | None,
    is_signed: bool,
) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """Lower a stage's graph.

    Args:
        path: its file.
        rounding: as `lower` has it.
        extend: changes the graph before anything else does.
        is_signed: the weights of 8-bit products become signed.

    Returns:
        The graph, serialized, and by name the weights that a session cannot map from their file.
    """
    model = onnx.load(path, load_external_data=False)
    if extend is not None:
        extend(model)
    weights = _widened(model, path.parent)
    if is_signed:
        weights |= signed(model, path.parent)
    return lower(model, rounding).SerializeToString(), weights


def _widened(model: onnx.ModelProto, folder: pathlib.Path) -> dict[str, NDArray[np.generic]]:
    """The 16-bit initializers that lie in another file, as float32 in their shapes; the session maps the others."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for tensor in model.graph.initializer:
        if not is_external(tensor):
            continue
        if tensor.data_type == TensorProto.BFLOAT16:  # the upper half of a float32
            arrays[tensor.name] = (mapped(tensor, folder, np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif tensor.data_type == TensorProto.FLOAT16:
            arrays[tensor.name] = mapped(tensor, folder, np.float16).astype(np.float32)
    return arrays
