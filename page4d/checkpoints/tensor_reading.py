"""Tensors of a checkpoint: where they are, and reading them, from mapped files a few at a time."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from page4d.checkpoints.recognition import plain_name
from page4d.checkpoints.tensor_file import PLAIN_DTYPES, TensorFile
from page4d.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

# bytes that are mapped before the file is opened anew: pages that were read count as memory until then
_BATCH = 256 << 20


def places_of(checkpoint: str, files: Iterable[TensorFile]) -> dict[str, tuple[TensorFile, str]]:
    """The file and the name in it of every tensor, by its name in the model.

    Args:
        checkpoint: its name in errors.
        files: that it consists of.

    Raises:
        UsageError: two tensors have one name in the model.
    """
    places: dict[str, tuple[TensorFile, str]] = {}
    for file in files:
        for key in file.tensors:
            name = plain_name(key)
            if name in places:
                raise UsageError(
                    f"{checkpoint} holds {name[:200]} twice, with a prefix of a trainer's or compiler's and without",
                    got=f"{places[name][1][:200]} and {key[:200]}",
                    allowed="one tensor of a name",
                )
            places[name] = (file, key)
    return places


def tensors_of(
    checkpoint: str, places: Mapping[str, tuple[TensorFile, str]], names: Iterable[str]
) -> Iterator[tuple[str, Tensor]]:
    """Each name with its tensor, one after the other: in the file's dtype, on the CPU.

    Args:
        checkpoint: its name in errors.
        places: file and name in the file, by name.
        names: of the tensors.

    Raises:
        UsageError: what is under a name is no plain tensor of floating-point numbers.
    """
    batch: list[str] = []
    mapped = 0
    for name in names:
        file, key = places[name]
        batch.append(name)
        mapped += math.prod(file.tensors[key][0]) * 4
        if mapped > _BATCH:
            yield from _batch(checkpoint, places, batch)
            batch, mapped = [], 0
    yield from _batch(checkpoint, places, batch)


def _batch(
    checkpoint: str, places: Mapping[str, tuple[TensorFile, str]], names: list[str]
) -> Iterator[tuple[str, Tensor]]:
    import torch

    readers: dict[pathlib.Path, Callable[[str], Tensor]] = {}
    for name in names:
        file, key = places[name]
        if file.path not in readers:
            readers[file.path] = file.reader()
        dtype = file.tensors[key][1]
        tensor = readers[file.path](key) if dtype in PLAIN_DTYPES.values() else None
        if tensor is None or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise UsageError(
                f"{checkpoint}: {name} holds no plain floating-point numbers",
                got=dtype if tensor is None else f"{tensor.layout}, on {tensor.device}",
                allowed="float32, float16, bfloat16 or float64",
                hint="save the weights in one of these types",
            )
        yield name, tensor
