"""Which file of a repository is its checkpoint."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence

from page4d.checkpoints.hub.hub_id import HubId
from page4d.checkpoints.shard_index import INDEX_SUFFIX, part_of
from page4d.errors import UsageError
from page4d.system.plain_text import listed

_NAMED = 8  # of many in a message
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")


def checkpoint_in(source: HubId, names: Sequence[str]) -> str:
    """The file, or the index of several, that holds the weights.

    `model.safetensors` or its index comes before every other `.safetensors`, and these before `model.pt` and every
    other pickle. Files in folders are not chosen, only named.

    Args:
        source: the repository; with a file, that one.
        names: of all files in it.

    Raises:
        UsageError: no such file; no checkpoint, or several that are equals.
    """
    here = [name for name in names if "/" not in name]
    if source.file:
        if source.file not in names:
            raise UsageError(
                f"{source.repository} has no such file",
                got=source.file,
                allowed=_choice(names),
                hint=_example(source, names),
            )
        return source.file
    for is_candidate in _RANKS:
        candidates = [name for name in here if is_candidate(name)]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise UsageError(
                f"{source.repository} holds several checkpoints",
                got=_some(candidates),
                allowed="one",
                hint=f"give one of them: {source.at(file=candidates[0])}",
            )
    raise UsageError(
        f"{source.repository} holds no checkpoint at its top",
        got=_some(list(names)) or "no files",
        allowed="model.safetensors, its index, or model.pt",
        hint=_example(source, names),
    )


def _whole(name: str, endings: Sequence[str]) -> bool:
    """Whether a name is of a file of weights that is no part of several."""
    return name.lower().endswith(tuple(endings)) and part_of(name) is None


_SAFETENSORS = ".safetensors"
_RANKS: tuple[Callable[[str], bool], ...] = (
    lambda name: name == f"model{_SAFETENSORS}",
    lambda name: name == f"model{_SAFETENSORS}{INDEX_SUFFIX}",
    lambda name: name.endswith(_SAFETENSORS + INDEX_SUFFIX) or _whole(name, [_SAFETENSORS]),
    lambda name: name == "model.pt",
    lambda name: name.endswith(INDEX_SUFFIX) or _whole(name, _PICKLES),
)
"""From the first choice to the last."""


def _weights(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(INDEX_SUFFIX) or _whole(name, [_SAFETENSORS, *_PICKLES])]


def _choice(names: Sequence[str]) -> str:
    return _some(_weights(names)) or "no checkpoint is there"


def _example(source: HubId, names: Sequence[str]) -> str | None:
    weights = _weights(names)
    return f"{source.at(file=weights[0])}" if weights else None


def _some(names: list[str]) -> str:
    return listed([name[:100] for name in names], _NAMED)


def beside(file: str, name: str) -> str:
    """The path in the repository of a file beside another."""
    return posixpath.join(posixpath.dirname(file), name)
