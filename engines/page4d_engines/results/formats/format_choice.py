"""Which formats are asked for, and whether the engines give what each takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from page4d.errors import UsageError
from page4d_engines.options import Format
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.given_heads import GivenHeads

# they take points and cameras; without these points.ply and cameras.json are left out, with a warning
_OF_A_WORLD = (Format.GLB, Format.COLMAP, Format.NERFSTUDIO)


def formats_named(text: str) -> tuple[Format, ...]:
    """The formats of a list with commas, `ply,glb`, each once, in the order of `Format`.

    Raises:
        UsageError: a name is none of a format, or empty.
    """
    words = {word.strip() for word in text.split(",")}
    unknown = sorted(words - {kind.value for kind in Format})
    if unknown:
        raise UsageError(
            "--formats names an unknown format" if any(unknown) else "--formats has a place without a name",
            got=", ".join(filter(None, unknown)) or f"'{text}'",
            allowed=f"{','.join(Format)}, or some of them",
        )
    return tuple(kind for kind in Format if kind.value in words)


def names_of(formats: Iterable[Format | str]) -> tuple[str, ...]:
    """The names of formats, each once, in the order of `Format`."""
    known = {Format(kind) for kind in formats}
    return tuple(kind.value for kind in Format if kind in known)


def refuse_impossible(formats: Sequence[Format], heads: GivenHeads, choice: CloudChoice | None) -> None:
    """Check that engines give what every format is made of.

    Args:
        formats: that are asked for.
        heads: of the engines.
        choice: what their point cloud is made from; None: they give none.

    Raises:
        UsageError: they do not.
    """
    gives = ", ".join(name for name in heads.outputs if not name.endswith("confidence")) or "nothing of a scene"
    for kind in formats:
        missing = [
            *(["predictions"] if kind is Format.NPZ and not heads.outputs else []),
            *(["points in the world"] if kind in _OF_A_WORLD and choice is None else []),
            *(["cameras with focal lengths"] if kind in _OF_A_WORLD and not heads.calibrates else []),
        ]
        if missing:
            raise UsageError(
                f"these engines lack what --formats {kind} is made of: {' and '.join(missing)}",
                got=gives,
                allowed="engines with heads for points, or depth, and cameras",
                hint="page4d-export with these heads",
            )
