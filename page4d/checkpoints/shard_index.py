"""`ShardIndex`: the `*.index.json` of a checkpoint in several files; and which file a path to a checkpoint means."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from page4d.checkpoints.tensor_file import TensorFile
from page4d.errors import UsageError
from page4d.system.plain_text import listed
from page4d.system.strict_json import distinct_names

INDEX_SUFFIX = ".index.json"
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_LARGEST = 16 << 20  # bytes of an index; a published one has a hundred for each tensor
_MOST_FILES = 1000
_PART = re.compile(r"(?:^|[-_.])(\d{1,6})[-_]?of[-_]?(\d{1,6})(?=[-_.]|$)", re.IGNORECASE)
_NAMED = 6  # of many in a message


@dataclass(frozen=True)
class ShardIndex:
    """Which tensor lies in which file.

    Attributes:
        path: of the index.
        weight_map: name of a file beside the index, by name of a tensor.
    """

    path: pathlib.Path
    weight_map: Mapping[str, str]

    @classmethod
    def read(cls, path: pathlib.Path) -> ShardIndex:
        """Read an index, not the files that it names.

        Raises:
            UsageError: it cannot be read, is too large, no index, names a tensor twice, or a file that is no plain
                name.
        """
        if not path.is_file():
            raise UsageError("there is no such index of a checkpoint", got=path, allowed=f"a file *{INDEX_SUFFIX}")
        try:
            with path.open("rb") as file:
                text = file.read(_LARGEST + 1)
        except OSError as error:
            raise UsageError("the index of a checkpoint cannot be read", got=f"{path}: {error.strerror}") from None
        if len(text) > _LARGEST:
            raise UsageError(
                f"{path.name} is too large for an index",
                got=f"over {_LARGEST >> 20} MiB",
                allowed=f"up to {_LARGEST >> 20} MiB",
            )
        try:
            content = json.loads(text, object_pairs_hook=distinct_names)
        except (ValueError, RecursionError) as error:
            raise _no_index(path, f"{type(error).__name__}: {str(error)[:200]}") from None
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        is_map = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
        if not weight_map or not is_map:
            raise _no_index(path, "no weight_map of tensors' names to files' names")
        index = cls(path, weight_map)
        for name in index.names:
            if not _is_plain(name):
                allowed = "names of files that lie beside the index"
                raise UsageError(
                    f"{path.name} names a file elsewhere; nothing of it was read", got=name[:200], allowed=allowed
                )
        if len(index.names) > _MOST_FILES:
            raise UsageError(f"{path.name} names too many files", got=len(index.names), allowed=f"up to {_MOST_FILES}")
        return index

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names, each once, in order."""
        return tuple(sorted(set(self.weight_map.values())))

    def open(self) -> tuple[TensorFile, ...]:
        """The tables of contents of all files, in the order of `names`.

        Raises:
            UsageError: a file is missing, lies elsewhere through a link, or holds other tensors than the index says.
        """
        folder = self.path.parent
        lacking = [name for name in self.names if not (folder / name).is_file()]
        if lacking:
            raise UsageError(
                f"{self.path.name} names files that are not beside it",
                got=f"{_some(lacking)} of {len(self.names)} files",
                allowed=f"all of them in {folder}",
                hint="download them to the same folder",
            )
        homes = _homes(folder)
        expected: dict[str, list[str]] = {name: [] for name in self.names}
        for tensor, name in self.weight_map.items():
            expected[name].append(tensor)
        files = []
        for name, tensors in expected.items():
            target = (folder / name).resolve()
            if not any(target.is_relative_to(home) for home in homes):
                hint = "a hard link or a copy, or the folder where the files themselves lie"
                raise UsageError(
                    f"{name} leads out of the folder of {self.path.name}",
                    got=target,
                    allowed=f"files in {homes[0]}",
                    hint=hint,
                )
            file = TensorFile.open(folder / name)
            self._check(file, tensors)
            files.append(file)
        return tuple(files)

    def _check(self, file: TensorFile, tensors: Iterable[str]) -> None:
        expected = set(tensors)
        lacking, more = sorted(expected - set(file.tensors)), sorted(set(file.tensors) - expected)
        if lacking:
            raise UsageError(
                f"{file.path.name} lacks tensors that {self.path.name} puts there",
                got=f"no {_some(lacking)}",
                hint="download both again",
            )
        if more:
            elsewhere = self.weight_map.get(more[0])
            where = "none at all" if elsewhere is None else elsewhere
            what = f"{file.path.name} holds tensors that {self.path.name} does not put there"
            raise UsageError(
                what,
                got=f"{_some(more)}; by the index in {where}",
                allowed="each tensor in one file, all of them in the index",
            )


def is_index(path: pathlib.Path) -> bool:
    """Whether a path is meant as an index rather than a file of weights."""
    return path.suffix.lower() == ".json"


def file_of(path: pathlib.Path) -> pathlib.Path:
    """The file that a path stands for: itself, or the one checkpoint, or the one index, in a folder.

    Raises:
        UsageError: a folder without a checkpoint, or with several; a part of a sharded checkpoint.
    """
    try:
        if path.is_dir():
            path = _checkpoint_in(path)
        if not is_index(path):
            _refuse_part(path)
    except OSError as error:  # no permission, a name too long, ..
        raise UsageError(
            "the checkpoint cannot be read", got=f"{path}: {error.strerror}", allowed="a .safetensors or .pt file"
        ) from None
    return path


def _checkpoint_in(folder: pathlib.Path) -> pathlib.Path:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    parts: set[str] = set()
    for name in indices:
        parts |= set(ShardIndex.read(folder / name).names)
    whole = [name for name in names if name.lower().endswith(_WEIGHTS) and name not in parts]
    candidates = [*indices, *whole]
    if len(candidates) == 1:
        return folder / candidates[0]
    if not candidates:
        allowed = f"one checkpoint ({', '.join(_WEIGHTS)}), or one *{INDEX_SUFFIX} with its files"
        raise UsageError(f"{folder.name} holds no checkpoint", got=folder, allowed=allowed)
    if not indices and all(part_of(name) for name in whole):
        _refuse_part(folder / whole[0])
    raise UsageError(
        f"{folder.name} holds several checkpoints",
        got=_some(candidates),
        allowed="one",
        hint=f"give one of them: {folder / candidates[0]}",
    )


def _refuse_part(file: pathlib.Path) -> None:
    """Raise where a file is one of several that make a checkpoint, by its name or by an index beside it."""
    if not file.is_file():
        return
    part = part_of(file.name)
    indices = {path: _names_of(path) for path in sorted(file.parent.glob(f"*{INDEX_SUFFIX}"))[:_NAMED]}
    listed = next((path for path, names in indices.items() if file.name in names and len(names) > 1), None)
    if part is None and listed is None:
        return
    which = f"part {part[0]} of {part[1]}" if part else f"one of {len(indices[listed or file])} parts"
    stem = _PART.split(file.name)[0]
    index = listed or next((path for path in indices if stem and path.name.startswith(stem)), None)
    raise UsageError(
        f"{file.name} is {which} of a checkpoint, and not the whole",
        got=file,
        allowed=f"the index of all parts, *{INDEX_SUFFIX}, or the folder that they lie in",
        hint=str(
            index or "download the index and all parts to one folder, and give that; a whole file needs another name"
        ),
    )


def part_of(name: str) -> tuple[int, int] | None:
    """(1, 2) for `model-00001-of-00002.safetensors`."""
    match = _PART.search(name)
    return None if match is None or int(match.group(2)) < 2 else (int(match.group(1)), int(match.group(2)))


def _names_of(index: pathlib.Path) -> tuple[str, ...]:
    try:
        return ShardIndex.read(index).names
    except UsageError:
        return ()  # damaged: of no help, and not what was asked for


def _homes(folder: pathlib.Path) -> list[pathlib.Path]:
    """Where an index's files may lie: its folder, and the store that a snapshot of the Hugging Face cache links to."""
    absolute = folder.absolute()
    homes = [folder.resolve()]
    if absolute.parent.name == "snapshots":
        homes.append((absolute.parent.parent / "blobs").resolve())
    return homes


def _is_plain(name: str) -> bool:
    return 0 < len(name) < 256 and name not in (".", "..") and name.isprintable() and not set(name) & set("/\\:")


def _no_index(path: pathlib.Path, reason: str) -> UsageError:
    return UsageError(
        f"{path.name} is no index of a checkpoint",
        got=reason,
        allowed='{"weight_map": {tensor: file, ..}}',
        hint="download it again",
    )


def _some(names: list[str]) -> str:
    """The first names of many."""
    return listed([name[:100] for name in names], _NAMED)
