"""Licences of the published weights, as their authors state them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from page4d.published import Published

_HUB = "https://huggingface.co"
_NON_COMMERCIAL = "CC BY-NC 4.0: not for commercial use"
_APACHE = "Apache-2.0"
_UNKNOWN = "unknown, ask its authors"
_TAGS = {"apache-2.0": _APACHE, "cc-by-nc-4.0": _NON_COMMERCIAL, "mit": "MIT"}


@dataclass(frozen=True)
class Licence:
    """The licence of one published set of weights.

    Attributes:
        name: under which the weights are published.
        terms: their licence, in words.
        source: the page that states it, or whose authors to ask.
        width: C of the weights, where a model is published in several sizes; 0: any.
    """

    name: str
    terms: str
    source: str
    width: int = 0

    def __str__(self) -> str:
        return f"{self.name} as published: {self.terms}, {self.source}"


def _on_hub(name: str, terms: str, width: int = 0) -> Licence:
    return Licence(name, terms, f"{_HUB}/{name}", width)


LICENCES = {
    Published.PI3: (_on_hub("yyfz233/Pi3", _NON_COMMERCIAL),),
    Published.PI3X: (_on_hub("yyfz233/Pi3X", _NON_COMMERCIAL),),
    Published.VGGT: (
        _on_hub("facebook/VGGT-1B", _NON_COMMERCIAL),
        _on_hub(
            "facebook/VGGT-1B-Commercial",
            "VGGT License (commercial use, with an acceptable use policy: no military use)",
        ),
    ),
    Published.PAGE4D: (
        Licence("PAGE-4D", f"{_UNKNOWN} (it is fine-tuned from VGGT)", "https://github.com/kaichen-z/PAGE4D"),
    ),
    Published.DA3: (
        _on_hub("depth-anything/DA3-SMALL", _APACHE, width=384),
        _on_hub("depth-anything/DA3-BASE", _APACHE, width=768),
        _on_hub("depth-anything/DA3-LARGE", _NON_COMMERCIAL, width=1024),
        _on_hub("depth-anything/DA3-LARGE-1.1", _NON_COMMERCIAL, width=1024),
    ),
    Published.DA3_MONO: (_on_hub("depth-anything/DA3MONO-LARGE", _APACHE),),
    Published.DA3_METRIC: (_on_hub("depth-anything/DA3METRIC-LARGE", _APACHE),),
}
"""By model. Files that are published under several names may hold the same tensors by name and shape: a file does not
say which of them it is."""


def licences_of(published: Published, width: int) -> tuple[Licence, ...]:
    """The licences of what a file of this model and width may be; of all where it has no such width."""
    licences = LICENCES[published]
    return tuple(licence for licence in licences if licence.width in (0, width)) or licences


def licence_in(repository: str, tag: str) -> Licence:
    """The licence of a repository on the hub.

    Args:
        repository: `owner/name`.
        tag: the licence that its page is tagged with, `apache-2.0`, for one that is not in the table; or empty.
    """
    for licences in LICENCES.values():
        for licence in licences:
            if licence.name.lower() == repository.lower():
                return licence
    terms = _TAGS.get(tag) or (f"{tag}: not for commercial use" if "-nc" in tag else tag)
    return _on_hub(repository, terms or _UNKNOWN)


def summed_up(licences: Iterable[Licence]) -> str:
    """Terms with the weights that they are of: of several licences one holds, and the file does not say which."""
    names: dict[str, list[str]] = {}
    for licence in licences:
        names.setdefault(licence.terms, []).append(licence.name)
    return "; or ".join(f"{terms} ({' or '.join(of)})" for terms, of in names.items())
