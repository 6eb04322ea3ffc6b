"""`Checkpoint`: a published model's file, recognised by its tensors' names, and read without ever being in memory whole.

Nothing in a file is executed: `.safetensors` holds none, and pickles are read as weights only.
"""

from __future__ import annotations

import math
import pathlib
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from page4d.config import MaskHeadKind, ModelConfig, Published
from page4d.errors import MissingBackendError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MASK_HEAD = "aggregator.spatial_mask_head."
_NAMES = {Published.PI3: "Pi3", Published.VGGT: "VGGT", Published.PAGE4D: "PAGE-4D"}
_PI3X = ("depth_encoder.", "pose_inject_blk.")
_HEAD_DIM = 64
_WIDEST = 1 << 14  # beyond it a width is damage, and its matrices more than torch can count
_BATCH = 256 << 20  # bytes that are mapped before the file is opened anew: pages that were read count as memory until then
_WRAPPERS = ("model", "state_dict", "model_state_dict")  # what trainers put the weights under


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights: what it holds, not the weights themselves.

    Attributes:
        path: of the file.
        published: the model that it belongs to.
        shapes, dtypes: of its tensors, by their names in the model (without `module.` or a nesting).
        state: what a trainer put beside the weights, by name; never read.
        keys: the names as the file has them, by the names in the model.
    """

    path: pathlib.Path
    published: Published
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    state: tuple[str, ...]
    keys: Mapping[str, str]

    @classmethod
    def open(cls, path: str | pathlib.Path) -> Checkpoint:
        """Read a file's table of contents and recognise the model.

        Raises:
            UsageError: no such file; damaged, or of another format; holds code; no model that is known, or Pi3X.
            MissingBackendError: a `.pt` file where torch is not installed.
        """
        file = pathlib.Path(path)
        try:
            content = _contents(file)
        except OSError as error:  # no permission, a name too long, ..
            raise UsageError("the checkpoint cannot be read", got=f"{file}: {error.strerror}", allowed="a .safetensors or .pt file") from None
        names = [name.removeprefix("module.") for name in content.tensors]
        if twice := next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None:
            raise UsageError(f"{file.name} holds {twice} twice, with `module.` and without", got=file, allowed="one tensor of a name")
        keys = dict(zip(names, content.tensors, strict=True))
        facts = {name: content.tensors[key] for name, key in keys.items()}
        shapes = {name: shape for name, (shape, _) in facts.items()}
        published = _recognise(file, shapes)
        return cls(file, published, shapes, {name: dtype for name, (_, dtype) in facts.items()}, content.state, keys)

    # ---- what it is

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @property
    def mask_head(self) -> MaskHeadKind | None:
        """Structure of PAGE-4D's mask head; None where there is none."""
        shape = self.shapes.get(f"{MASK_HEAD}head0.2.weight")
        if shape is None:
            return None
        return MaskHeadKind.CHECKPOINT_150 if shape[1:] == (1, 3, 3) else MaskHeadKind.CHECKPOINT_2026

    @property
    def predictions(self) -> bool:
        """Whether any of Pi3's heads is in the file."""
        heads = ("point_decoder.", "point_head.", "conf_decoder.", "conf_head.", "camera_decoder.", "camera_head.")
        return self.published is Published.PI3 and any(name.startswith(heads) for name in self.shapes)

    @property
    def encoder_depth(self) -> int:
        """Blocks of the encoder."""
        return self._count(r"(?:encoder|aggregator\.patch_embed)\.blocks\.")

    @property
    def depth(self) -> int:
        """Aggregator layers, of two blocks each."""
        return self._count(r"decoder\.") // 2 if self.published is Published.PI3 else self._count(r"aggregator\.frame_blocks\.")

    @property
    def width(self) -> int:
        """C; 0 where no tensor says it."""
        token = "register_token" if self.published is Published.PI3 else "aggregator.register_token"
        return (self.shapes.get(token) or (0,))[-1]

    @property
    def registers(self) -> int:
        """Register tokens beside the camera token."""
        camera = int(self.published is Published.PI3)  # Pi3 has it among them
        shape = self.shapes.get("register_token" if camera else "aggregator.register_token", ())
        return max(shape[-2] - camera, 0) if len(shape) > 1 else 0

    @property
    def described(self) -> str:
        """The model in words: `PAGE-4D 2026`."""
        return f"{_NAMES[self.published]} {self.mask_head}" if self.published is Published.PAGE4D and self.mask_head else _NAMES[self.published]

    def config(self, **overrides: Any) -> ModelConfig:
        """The published model that the file holds, with as many layers as it has."""
        known: dict[str, Any] = {"depth": max(self.depth, 1), "encoder_depth": max(self.encoder_depth, 1)}
        if self.width % _HEAD_DIM or self.width > _WIDEST:
            raise UsageError(
                f"{self.name}: the special tokens have a width that no such model has", got=self.width, allowed=f"a multiple of {_HEAD_DIM}, up to {_WIDEST}"
            )
        if self.width:
            known |= {"width": self.width, "heads": self.width // _HEAD_DIM}
        if self.published is Published.PI3:
            known["predictions"] = self.predictions
        if self.mask_head is not None:
            known["mask_head"] = str(self.mask_head)
        return ModelConfig.preset(str(self.published), **(known | overrides))

    def document(self) -> dict[str, Any]:
        """Everything that is known without the weights, in plain values."""
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "model": str(self.published),
            "described": self.described,
            "mask_head": None if self.mask_head is None else str(self.mask_head),
            "width": self.width,
            "encoder_blocks": self.encoder_depth,
            "layers": self.depth,
            "registers": self.registers,
            "predictions": self.predictions,
            "tensors": len(self.shapes),
            "parameters": sum(math.prod(shape) for shape in self.shapes.values()),
            "dtypes": sorted(set(self.dtypes.values())),
            "beside": list(self.state),
        }

    def _count(self, prefix: str) -> int:
        # three digits: a name with more is no block, and would cost its number of blocks to build
        numbers = {int(found.group(1)) for name in self.shapes if (found := re.match(prefix + r"(\d{1,3})\.", name))}
        return max(numbers, default=-1) + 1

    # ---- reading

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of some names, one after the other. Each lies in the mapped file, and is to be copied before the next is asked for.

        Raises:
            UsageError: what is under a name is no plain tensor of floating-point numbers.
        """
        batch: list[str] = []
        mapped = 0
        for name in names:
            batch.append(name)
            mapped += math.prod(self.shapes[name]) * 4
            if mapped > _BATCH:
                yield from self._batch(batch)
                batch, mapped = [], 0
        yield from self._batch(batch)

    def _batch(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        import torch

        if not names:
            return
        if _is_zip(self.path):
            state, _ = _state_dict(self.path, _load(self.path))
            get = lambda name: state[self.keys[name]]
        else:
            file = _open_safetensors(self.path, "pt")
            get = lambda name: file.get_tensor(self.keys[name])
        for name in names:
            plain = self.dtypes[name] in _DTYPES.values()
            tensor = get(name) if plain else None
            if tensor is None or tensor.layout is not torch.strided or tensor.device.type != "cpu":
                got = self.dtypes[name] if tensor is None else f"{tensor.layout}, on {tensor.device}"
                raise UsageError(f"{self.name}: {name} holds no plain floating-point numbers", got=got, allowed="float32, float16, bfloat16 or float64")
            yield name, tensor


@dataclass(frozen=True)
class _Contents:
    tensors: dict[str, tuple[tuple[int, ...], str]]  # name in the file -> shape, dtype
    state: tuple[str, ...]


def _recognise(file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> Published:
    if any(name.startswith(_PI3X) for name in shapes):
        found = ", ".join(f"{prefix}*" for prefix in _PI3X if any(name.startswith(prefix) for name in shapes))
        raise UsageError(f"{file.name} is a Pi3X checkpoint, another network than Pi3", got=f"tensors {found}", allowed="Pi3's own model.safetensors")
    if "register_token" in shapes or any(re.match(r"decoder\.\d+\.", name) for name in shapes):
        return Published.PI3
    if any(name.startswith(("aggregator.frame_blocks.", "aggregator.global_blocks.", "aggregator.patch_embed.", MASK_HEAD)) for name in shapes):
        return Published.PAGE4D if any(name.startswith(MASK_HEAD) for name in shapes) else Published.VGGT
    first = ", ".join(sorted({name.split(".")[0] for name in shapes})[:8]) or "no tensors"
    raise UsageError(
        f"{file.name} is no checkpoint of a known model", got=f"tensors under {first}", allowed="Pi3, VGGT or PAGE-4D, as their authors publish them"
    )


def _contents(file: pathlib.Path) -> _Contents:
    if not file.is_file():
        raise UsageError("there is no such checkpoint", got=file, allowed="a .safetensors or .pt file")
    if _is_zip(file):
        state, beside = _state_dict(file, _load(file))
        return _Contents({name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in state.items()}, beside)
    with file.open("rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{file.name} is a Git LFS pointer, not the weights", got=file, hint="git lfs pull")
    pickled = head[:1] == b"\x80" or (file.suffix in (".pt", ".pth", ".bin", ".ckpt") and b"<html" not in head.lower())
    if pickled and head[8:9] != b"{":  # with which the table of .safetensors begins, after its length, whose first byte may be any
        raise UsageError(
            f"{file.name} is damaged, cut short, or in PyTorch's format of before 2020, which can only be read whole",
            got=f"{file.stat().st_size} bytes, no zip archive",
            allowed="a file of torch.save, or .safetensors",
            hint="download it again, or save it anew with today's torch.save",
        )
    with _open_safetensors(file, "numpy") as opened_file:
        slices = {name: opened_file.get_slice(name) for name in opened_file.keys()}  # noqa: SIM118  (not a mapping)
        return _Contents({name: (tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype())) for name, part in slices.items()}, ())


_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


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
        raise MissingBackendError(f"reading {file.name} needs PyTorch", allowed=".safetensors without it", hint='pip install "page4d[export]"') from None
    try:
        return torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global:?) (?!GLOBAL)[`']?([\w.]+)", str(error))
        if found is None:
            raise _damaged(file, error) from None
        raise UsageError(
            f"{file.name} holds code or objects beside its weights; none of it was run",
            got=found.group(1),
            allowed="tensors, numbers and texts in dicts and lists",
            hint='where you trust its maker: torch.save({"model": state_dict}, ...) from a program of theirs',
        ) from None
    except Exception as error:  # a damaged pickle or archive raises whatever its bytes lead to
        raise _damaged(file, error) from None


def _damaged(file: pathlib.Path, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"{file.name} is damaged or cut short: {reason}", got=f"{file} ({file.stat().st_size} bytes)", hint="download it again and compare its size"
    )


def _state_dict(file: pathlib.Path, loaded: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by name, flat or under one of the usual names, and the names of what else is there."""
    from torch import Tensor

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
        raise UsageError(f"{file.name} holds no weights by name", got=type(loaded).__name__, allowed='a state dict, or {"model": state dict, ..}')
    tensors = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor) and not value.is_nested}
    return tensors, beside + tuple(str(name) for name in loaded if name not in tensors)
