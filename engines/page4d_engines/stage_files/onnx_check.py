"""Whether a stage's ONNX file is what the manifest says: its inputs and outputs, operators, and places of weights.

It is checked before anything loads it.

ONNX Runtime, TensorRT and Triton read weights that lie in other files by themselves, and would follow any path.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterable, Sequence

from page4d.errors import EngineError
from page4d.manifest import Manifest, StageEntry, TensorSpec
from page4d.ops import BIASED_ATTENTION, DOMAIN, SEGMENT_ATTENTION
from page4d.system.folder_file import path_inside
from page4d_engines.stage_files.onnx_file import OnnxFile, Tensor, Value
from page4d_engines.stage_files.protobuf_fields import DamagedError

ONNX_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "float16": 10, "bfloat16": 16}
"""ONNX's numbers of the manifest's types."""
_INT8, _INT64, _BOOL, _FLOAT8 = 3, 7, 9, 17
_BYTES = {**dict(zip(ONNX_TYPES.values(), (4, 1, 4, 2, 2), strict=True)), _INT8: 1, _INT64: 8, _BOOL: 1, _FLOAT8: 1}
"""Of an element, by the types that weights in another file may have."""
_STANDARD = ("", "ai.onnx")
_PLACE = {"location", "offset", "length"}
_NUMBER = re.compile(r"[0-9]{1,18}")
_AGAIN = "page4d-export again"


def check_stage(content: bytes, folder: pathlib.Path, manifest: Manifest, entry: StageEntry) -> None:
    """Check an ONNX file.

    Args:
        content: of the file.
        folder: the engine folder.
        manifest: its manifest, which was checked.
        entry: of the stage.

    Raises:
        EngineError: it is damaged, its inputs and outputs are not the manifest's, it has operators of an unknown kind,
            or weights that are not in a file beside it that the manifest lists.
    """
    file = entry.file
    model = parsed(content, file)
    _check_borders(file, "input", model.graph.inputs, entry.inputs)
    _check_borders(file, "output", model.graph.outputs, entry.outputs)
    _check_operators(file, model)
    check_weights(file, model, folder, manifest)


def parsed(content: bytes, file: str) -> OnnxFile:
    """The ONNX file `file` of this content.

    Raises:
        EngineError: it is none.
    """
    try:
        return OnnxFile.parse(content)
    except DamagedError as error:
        raise EngineError(f"{file} is damaged: it is no ONNX file", got=error, hint=_AGAIN) from None


def check_weights(file: str, model: OnnxFile, folder: pathlib.Path, manifest: Manifest) -> None:
    """Whether weights that lie in other files lie in listed ones beside `file`.

    Raises:
        EngineError: they do not.
    """
    if model.has_training or any(graph.has_sparse for graph in model.graphs):
        raise EngineError(f"{file} has parts that no engine has", got="training or sparse weights", hint=_AGAIN)
    for tensor in model.tensors:
        if tensor.place is not None:
            _check_place(file, tensor, tensor.place, folder, manifest)


def _check_borders(file: str, what: str, values: Sequence[Value], specs: Iterable[TensorSpec]) -> None:
    actual = {value.name: (value.dtype, list(value.shape)) for value in values}
    expected = {spec.binding: (ONNX_TYPES[spec.dtype], list(spec.shape)) for spec in specs}
    if actual.keys() != expected.keys() or len(values) != len(expected):
        got, allowed = ", ".join(value.name for value in values) or "none", ", ".join(expected)
        raise EngineError(f"{file} has other {what}s than the manifest says", got=got, allowed=allowed, hint=_AGAIN)
    for name, (dtype, shape) in expected.items():
        if actual[name] != (dtype, shape):
            got = f"{type_name(actual[name][0])} {actual[name][1]}"
            what = f"the {what} {name} of {file} is not what the manifest says"
            raise EngineError(what, got=got, allowed=f"{type_name(dtype)} {shape}", hint=_AGAIN)


def type_name(dtype: int) -> str:
    """The manifest's name of ONNX's number of a type."""
    return next((name for name, number in ONNX_TYPES.items() if number == dtype), f"type {dtype}")


def _check_operators(file: str, model: OnnxFile) -> None:
    """Only ONNX's own operators, and this project's attention as a function of them: no others, and nothing loops."""
    own = {BIASED_ATTENTION, SEGMENT_ATTENTION}
    for function in model.functions:
        if function.domain != DOMAIN or function.name not in own:
            raise _unknown(file, f"{function.domain or 'a standard domain'}: {function.name}")
    in_functions = [node for function in model.functions for node in function.nodes]
    for node in (*model.graph.nodes, *in_functions):
        if node.domain not in _STANDARD and not (node.domain == DOMAIN and node.op_type in own):
            raise _unknown(file, f"{node.domain}: {node.op_type}")
        if node.graphs:
            raise _unknown(file, f"{node.op_type}, which has a graph inside")  # a loop need not end
    if any(node.domain not in _STANDARD for node in in_functions):
        raise _unknown(file, f"a function that calls functions of {DOMAIN}")
    if any(default.graphs for function in model.functions for default in function.defaults):
        raise _unknown(file, "a function with a graph as a default")


def _unknown(file: str, got: str) -> EngineError:
    allowed = f"ONNX's own without graphs inside, and {DOMAIN}'s {BIASED_ATTENTION} and {SEGMENT_ATTENTION}"
    return EngineError(f"{file} has an operator of an unknown kind", got=got, allowed=allowed, hint=_AGAIN)


def _check_place(
    file: str, tensor: Tensor, entries: tuple[tuple[str, str], ...], folder: pathlib.Path, manifest: Manifest
) -> None:
    """Weights lie beside their ONNX file, in a file that the manifest lists, which is as long as they say."""
    keys, place = [key for key, _ in entries], dict(entries)
    location = place.get("location", "")
    listed = (pathlib.PurePosixPath(file).parent / location).as_posix()
    # a plain name: "/" would also lead to places that ONNX Runtime gives a meaning of its own
    if not location or "/" in location or "\\" in location or listed not in manifest.files:
        allowed = "the name of a file beside it that manifest.json lists"
        raise EngineError(
            f"{file} has weights that are not in the engine folder",
            got=location or "no location",
            allowed=allowed,
            hint=_AGAIN,
        )
    size = path_inside(folder, listed).stat().st_size
    width = _BYTES.get(tensor.dtype)
    count = math.prod(tensor.dims) if all(side >= 0 for side in tensor.dims) else -1
    numbers = [place[key] for key in ("offset", "length") if key in place]
    plain = len(set(keys)) == len(keys) and set(keys) <= _PLACE and all(_NUMBER.fullmatch(number) for number in numbers)
    if not plain or width is None or count < 0:
        values = ", ".join(f"{key}={place[key]}" for key in sorted(place))
        raise EngineError(
            f"{file} has weights in a place that is none",
            got=f"{values}, type {tensor.dtype} {list(tensor.dims)}",
            allowed="location, offset and length of a tensor",
            hint=_AGAIN,
        )
    offset, length = int(place.get("offset", 0)), int(place.get("length", count * width))
    if length != count * width or offset + length > size:
        got = f"{count * width} bytes of {tensor.name}, {length} bytes at {offset}"
        raise EngineError(
            f"{file} has weights beyond the end of their file",
            got=got,
            allowed=f"{listed} has {size} bytes",
            hint=_AGAIN,
        )
