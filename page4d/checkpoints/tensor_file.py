"""`TensorFile`: one `.safetensors` or `.pt` file, read without loading it whole into memory.

Nothing in a file is executed: `.safetensors` holds none, and pickles are read as weights only.
"""

from __future__ import annotations

import pathlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from page4d.errors import MissingBackendError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PLAIN_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types that weights can be read from: torch's names, by those of `.safetensors`."""
_WRAPPERS = ("model", "state_dict", "model_state_dict", "module")  # what trainers put the weights under
_DEEPEST = 3  # dicts in dicts in which other weights are looked for


@dataclass(frozen=True)
class TensorFile:
    """A file's table of contents.

    Attributes:
        path: of the file.
        tensors: shape and dtype by the name that the file has.
        state: names of what a trainer stored beside the weights; never read.
        elsewhere: names of tensors under other entries of a `.pt` file, by the Python expression of the entry:
            `["ema"]["module"]`.
    """

    path: pathlib.Path
    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    state: tuple[str, ...] = ()
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: pathlib.Path) -> TensorFile:
        """Read a file's table of contents.

        Raises:
            UsageError: no such file; it cannot be read, is damaged, of another format, or holds code.
            MissingBackendError: a `.pt` file where torch is not installed.
        """
        try:
            return _open(path)
        except OSError as error:  # no permission, a name too long, ..
            raise UsageError(
                "the checkpoint cannot be read", got=f"{path}: {error.strerror}", allowed="a .safetensors or .pt file"
            ) from None

    def reader(self) -> Callable[[str], Tensor]:
        """A function from a tensor's name in the file to the tensor, which is mapped from the file.

        Raises:
            UsageError: the file was changed or damaged since it was opened.
        """
        if _is_zip(self.path):
            return _state_dict(self.path, _load(self.path)).tensors.__getitem__
        get: Callable[[str], Tensor] = _open_safetensors(self.path, "pt").get_tensor
        return get


def _open(file: pathlib.Path) -> TensorFile:
    if not file.is_file():
        raise UsageError("there is no such checkpoint", got=file, allowed="a .safetensors or .pt file")
    if _is_zip(file):
        content = _state_dict(file, _load(file))
        tensors = {
            name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in content.tensors.items()
        }
        return TensorFile(file, tensors, content.state, content.elsewhere)
    with file.open("rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{file.name} is a Git LFS pointer, not the weights", got=file, hint="git lfs pull")
    pickled = head[:1] == b"\x80" or (file.suffix in (".pt", ".pth", ".bin", ".ckpt") and b"<html" not in head.lower())
    # "{" begins the table of a .safetensors file, after its length, whose first byte may be any
    if pickled and head[8:9] != b"{":
        raise UsageError(
            f"{file.name} is damaged, cut short, or in PyTorch's format of before 2020, which can only be read whole",
            got=f"{file.stat().st_size} bytes, no zip archive",
            allowed="a file of torch.save, or .safetensors",
            hint="download it again, or save it anew with today's torch.save",
        )
    with _open_safetensors(file, "numpy") as opened_file:
        tensors = {}
        for name in opened_file.keys():  # noqa: SIM118  (not a mapping)
            tensor = opened_file.get_slice(name)
            dtype = tensor.get_dtype()
            tensors[name] = (tuple(tensor.get_shape()), PLAIN_DTYPES.get(dtype, dtype))
        return TensorFile(file, tensors)


def _open_safetensors(file: pathlib.Path, framework: str) -> Any:
    try:
        return safe_open(file, framework=framework)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{file.name} is damaged, cut short, or no checkpoint at all: {error}",
            got=f"{file} ({file.stat().st_size} bytes)",
            allowed="a whole .safetensors file, or one of torch.save",
            hint="download it again and compare its size",
        ) from None


def _is_zip(file: pathlib.Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PK\x03\x04"


def _load(file: pathlib.Path) -> Any:
    """What torch.save wrote, tensors mapped from the file; code in it is refused, not run."""
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingBackendError(
            f"reading {file.name} needs PyTorch", allowed=".safetensors without it", hint='pip install "page4d[export]"'
        ) from None
    try:
        with warnings.catch_warnings():
            # of pickle protocols and TorchScript; under PYTHONWARNINGS=error they would be errors
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"(?:GLOBAL|global:?) (?!GLOBAL)[`']?([\w.]+)", str(error))
        if forbidden is None:
            raise _damaged(file, error) from None
        raise UsageError(
            f"{file.name} holds code or objects beside its weights; none of it was run",
            got=forbidden.group(1),
            allowed="tensors, numbers and texts in dicts and lists",
            hint=(
                "where you trust its maker, the weights alone:"
                f' torch.save(torch.load({file.name!r}, weights_only=False)["model"], "weights.pt")'
            ),
        ) from None
    except Exception as error:  # a damaged pickle or archive raises whatever its bytes lead to
        raise _damaged(file, error) from None


def _damaged(file: pathlib.Path, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"{file.name} is damaged or cut short: {reason}",
        got=f"{file} ({file.stat().st_size} bytes)",
        hint="download it again and compare its size",
    )


@dataclass(frozen=True)
class _StateDict:
    tensors: dict[str, Tensor]
    state: tuple[str, ...]
    elsewhere: dict[str, tuple[str, ...]]


def _state_dict(file: pathlib.Path, loaded: Any) -> _StateDict:
    """The tensors by name, flat or under one of the usual names, and the names of what else is there."""
    top = loaded
    beside: tuple[str, ...] = ()
    for _ in _WRAPPERS:  # not endlessly: a dict may hold itself
        if not isinstance(loaded, dict):
            break
        inner = next((name for name in _WRAPPERS if isinstance(loaded.get(name), dict)), None)
        if inner is None:
            break
        beside += tuple(str(name) for name in loaded if name != inner)
        loaded = loaded[inner]
    if not isinstance(loaded, dict):
        raise UsageError(
            f"{file.name} holds no weights by name",
            got=type(loaded).__name__,
            allowed='a state dict, or {"model": state dict, ..}',
        )
    tensors = _named_tensors(loaded)
    seen = {id(loaded)}
    return _StateDict(
        tensors, beside + tuple(str(name) for name in loaded if name not in tensors), dict(_elsewhere(top, "", seen))
    )


def _named_tensors(entries: dict[Any, Any]) -> dict[str, Tensor]:
    from torch import Tensor

    return {
        name: value
        for name, value in entries.items()
        if isinstance(name, str) and isinstance(value, Tensor) and not value.is_nested
    }


def _elsewhere(entries: Any, expression: str, seen: set[int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Dicts below the weights' that hold tensors by name: averaged ones, other networks', an optimizer's."""
    if not isinstance(entries, dict) or expression.count("[") > _DEEPEST:
        return
    for key, value in entries.items():
        if isinstance(key, str) and isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            inner = f"{expression}[{key!r}]"
            if names := tuple(_named_tensors(value)):
                yield inner, names
            yield from _elsewhere(value, inner, seen)
