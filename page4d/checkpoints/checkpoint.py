"""`Checkpoint`: a published model's weights, recognised by their names, in one file or in several with an index."""

from __future__ import annotations

import functools
import math
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from page4d.checkpoints.completeness import HEAD_PREFIXES, MASK_HEAD, blocks_of, check_complete, shortfalls
from page4d.checkpoints.shard_index import ShardIndex, file_of, is_index
from page4d.checkpoints.tensor_file import PLAIN_DTYPES, TensorFile
from page4d.config import MaskHeadKind, ModelConfig, Published
from page4d.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {Published.PI3: "Pi3", Published.VGGT: "VGGT", Published.PAGE4D: "PAGE-4D"}
_PI3X = ("depth_encoder.", "pose_inject_blk.")
_VGGT = ("aggregator.frame_blocks.", "aggregator.global_blocks.", "aggregator.patch_embed.")
_HEAD_DIM = 64
_WIDEST = 1 << 14  # beyond it a width is damage, and its matrices more than torch can count
# bytes that are mapped before the file is opened anew: pages that were read count as memory until then
_BATCH = 256 << 20
# what torch puts around a module, at any depth
_WRAPPED = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_AVERAGED = re.compile(r"(?:^|[^a-z])ema(?:$|[^a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, or several with an index: its table of contents, not the weights themselves.

    Attributes:
        path: of the file or index.
        published: the model that it belongs to.
        shapes, dtypes: of its tensors, by their names in the model (without the prefixes of trainers and compilers).
        state: names of what a trainer stored beside the weights; never read.
        places: file and name in the file, by the names in the model.
        files: the files that tensors are read from.
    """

    path: pathlib.Path
    published: Published
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    state: tuple[str, ...]
    places: Mapping[str, tuple[TensorFile, str]]
    files: tuple[TensorFile, ...]

    @classmethod
    def open(cls, path: str | pathlib.Path) -> Checkpoint:
        """Read a checkpoint's table of contents and recognise the model.

        Args:
            path: of a file, of the `*.index.json` of a checkpoint in several files, or of a folder with one such.

        Raises:
            UsageError: no such file; damaged, or of another format; holds code; no model that is known, or Pi3X; only
                a part of a model.
            MissingBackendError: a `.pt` file where torch is not installed.
        """
        if not isinstance(path, str | pathlib.Path):
            raise UsageError(
                "a checkpoint is given by its path", got=type(path).__name__, allowed="a string or pathlib.Path"
            )
        file = file_of(pathlib.Path(path))
        files = ShardIndex.read(file).open() if is_index(file) else (TensorFile.open(file),)
        places: dict[str, tuple[TensorFile, str]] = {}
        for part in files:
            for key in part.tensors:
                name = _plain_name(key)
                if name in places:
                    raise UsageError(
                        f"{file.name} holds {name[:200]} twice, with a prefix of a trainer's or compiler's and without",
                        got=f"{places[name][1][:200]} and {key[:200]}",
                        allowed="one tensor of a name",
                    )
                places[name] = (part, key)
        tensors = {name: part.tensors[key] for name, (part, key) in places.items()}
        shapes = {name: shape for name, (shape, _) in tensors.items()}
        checkpoint = cls(
            path=file,
            published=_recognise(file, shapes, files),
            shapes=shapes,
            dtypes={name: dtype for name, (_, dtype) in tensors.items()},
            state=tuple(dict.fromkeys(name for part in files for name in part.state)),
            places=places,
            files=files,
        )
        check_complete(file.name, checkpoint.described, checkpoint.published, checkpoint.mask_head, shapes)
        return checkpoint

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
        return self.published is Published.PI3 and any(name.startswith(HEAD_PREFIXES) for name in self.shapes)

    @functools.cached_property
    def encoder_depth(self) -> int:
        """Blocks of the encoder."""
        return blocks_of(self.published)[0].count(self.shapes)

    @functools.cached_property
    def depth(self) -> int:
        """Aggregator layers, of two blocks each."""
        return blocks_of(self.published)[1].count(self.shapes)

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
        """The model's name and variant: `PAGE-4D 2026`."""
        name = _NAMES[self.published]
        return f"{name} {self.mask_head}" if self.published is Published.PAGE4D and self.mask_head else name

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """Every file that is read: the file itself, or the index and its files."""
        return tuple(dict.fromkeys((self.path, *(file.path for file in self.files))))

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """What is unusual and no error: fewer layers than published, averaged weights beside the others."""
        notes = list(shortfalls(self.published, self.width, self.depth, self.encoder_depth, self.shapes))
        prefixes = (f"{name.split('.')[0]}.*" for name in self.shapes)
        entries = dict.fromkeys((*_known_entries(self.files), *prefixes))
        averaged = [name for name in entries if _AVERAGED.search(name)]
        if averaged:
            notes.append(
                f"averaged weights ({', '.join(averaged[:3])}) are not read;"
                " to use them, save them as a file of their own"
            )
        matrix_types = {dtype for name, dtype in self.dtypes.items() if name.endswith(".weight")}
        if unreadable := sorted(matrix_types - set(PLAIN_DTYPES.values())):
            notes.append(f"matrices of type {', '.join(unreadable)} cannot be read; save them as float16 or bfloat16")
        return tuple(f"{self.name}: {note}" for note in notes)

    def config(self, **overrides: Any) -> ModelConfig:
        """The published model that the file holds, with as many layers as it has."""
        known: dict[str, Any] = {"depth": max(self.depth, 1), "encoder_depth": max(self.encoder_depth, 1)}
        if self.width % _HEAD_DIM or self.width > _WIDEST:
            raise UsageError(
                f"{self.name}: the special tokens have a width that no such model has",
                got=self.width,
                allowed=f"a multiple of {_HEAD_DIM}, up to {_WIDEST}",
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
            "bytes": sum(file.path.stat().st_size for file in self.files),
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
            "files": [path.name for path in self.paths],
            "notes": list(self.notes),
        }

    # ---- reading

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor, one after the other: in the file's dtype, on the CPU.

        Each lies in a mapped file, and is to be copied before the next is asked for.

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

        readers: dict[pathlib.Path, Callable[[str], Tensor]] = {}
        for name in names:
            file, key = self.places[name]
            if file.path not in readers:
                readers[file.path] = file.reader()
            plain = self.dtypes[name] in PLAIN_DTYPES.values()
            tensor = readers[file.path](key) if plain else None
            if tensor is None or tensor.layout is not torch.strided or tensor.device.type != "cpu":
                got = self.dtypes[name] if tensor is None else f"{tensor.layout}, on {tensor.device}"
                raise UsageError(
                    f"{self.name}: {name} holds no plain floating-point numbers",
                    got=got,
                    allowed="float32, float16, bfloat16 or float64",
                    hint="save the weights in one of these types",
                )
            yield name, tensor


def _plain_name(key: str) -> str:
    """A tensor's name in the model: without the prefixes of torch.compile, data parallelism and Lightning."""
    parts = [part for part in key.split(".") if part not in _WRAPPED]
    first = next((i for i, part in enumerate(parts) if part != "model"), 0)
    return ".".join(parts[first:])


def _looks_known(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a known model's."""
    return _published({_plain_name(name) for name in names}) is not None


def _known_entries(files: Iterable[TensorFile]) -> Iterator[str]:
    """Other entries of `.pt` files that hold a known model, as Python expressions."""
    for file in files:
        yield from (expression for expression, names in file.elsewhere.items() if _looks_known(names))


def _published(names: Collection[str]) -> Published | None:
    if any(name == "register_token" or re.match(r"decoder\.\d+\.", name) for name in names):
        return Published.PI3
    if any(name.startswith(MASK_HEAD) for name in names):
        return Published.PAGE4D
    if any(name.startswith(_VGGT) for name in names):
        return Published.VGGT
    return None


def _recognise(file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], files: tuple[TensorFile, ...]) -> Published:
    if pi3x := [prefix for prefix in _PI3X if any(name.startswith(prefix) for name in shapes)]:
        raise UsageError(
            f"{file.name} is a Pi3X checkpoint, another network than Pi3",
            got=f"tensors {', '.join(f'{prefix}*' for prefix in pi3x)}",
            allowed="Pi3's own model.safetensors",
        )
    published = _published(shapes)
    if published is not None:
        return published
    first = [name[:60] for name in sorted({name.split(".")[0] for name in shapes})[:8]]
    entry = next(_known_entries(files), None)
    hint = None
    if entry is not None:
        hint = (
            f"the file has weights under {entry}:"
            f" torch.save(torch.load({file.name!r}){entry}, 'weights.pt'), and give that"
        )
    elif len(first) == 1 and _looks_known(name.partition(".")[2] for name in shapes):
        hint = f"save the tensors without {first[0] + '.'!r} in front of their names"
    raise UsageError(
        f"{file.name} is no checkpoint of a known model",
        got=f"tensors under {', '.join(first) or 'no tensors'}",
        allowed="Pi3, VGGT or PAGE-4D, as their authors publish them",
        hint=hint,
    )
