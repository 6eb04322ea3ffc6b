"""Tensors of a checkpoint, read from mapped files a few at a time."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from page4d.checkpoints.tensor_file import PLAIN_DTYPES, TensorFile
from page4d.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

# bytes that are mapped before the file is opened anew: pages that were read count as memory until then
_BATCH = 256 << 20


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
