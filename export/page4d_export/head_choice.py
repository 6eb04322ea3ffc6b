"""The heads that an export was asked for, by their names."""

from __future__ import annotations

from collections.abc import Sequence

from page4d.config import HEADS, Head, Published
from page4d.errors import UsageError

NO_HEADS = "none"


def heads_named(names: str | Sequence[str], published: Published | None) -> tuple[Head, ...]:
    """The heads of these names.

    Args:
        names: several, or a text with commas between them; `none` alone, or nothing in the sequence: no head.
        published: the model that they are of; None: this project's own network, which has no heads.

    Raises:
        UsageError: a name that is no head of the model; some of Pi3's heads, which come all together.
    """
    words = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(map(str, names))
    if words in ([], [NO_HEADS]):
        return ()
    allowed = HEADS[published] if published is not None else ()
    choice = ", ".join(allowed)
    if unknown := [word for word in words if word not in allowed]:
        model = "the network" if published is None else f"the model {published}"
        raise UsageError(
            f"--heads: {model} has no head of this name",
            got=", ".join(repr(word) for word in unknown),
            allowed=f"{choice}, or {NO_HEADS}" if allowed else f"{NO_HEADS}: only published models have heads",
        )
    if published is Published.PI3 and set(words) != set(allowed):
        raise UsageError(
            "--heads: Pi3's heads come all together",
            got=", ".join(words),
            allowed=f"{','.join(allowed)}, or {NO_HEADS}",
        )
    return tuple(head for head in allowed if head in words)
