"""Weights that lie beside an ONNX file, mapped instead of read."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo


def is_external(tensor: TensorProto) -> bool:
    """Whether a constant's values lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def mapped(
    tensor: TensorProto, folder: pathlib.Path, dtype: DTypeLike, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """An external constant's values, read-only, mapped from the file.

    Args:
        tensor: the constant.
        folder: of the ONNX file.
        dtype: of the same size as the constant's, or uint8 with `shape` for its bytes.
        shape: another than the constant's own.
    """
    place = ExternalDataInfo(tensor)
    return np.memmap(
        folder / place.location, dtype, "r", place.offset or 0, tuple(tensor.dims) if shape is None else shape
    )
