"""Licences of the published weights, as their authors state them."""

from __future__ import annotations

from dataclasses import dataclass

from page4d.config import Published


@dataclass(frozen=True)
class Licence:
    """The licence of one published set of weights.

    Attributes:
        name: under which the weights are published.
        terms: their licence, in words.
        source: the page that states it, or whose authors to ask.
    """

    name: str
    terms: str
    source: str

    def __str__(self) -> str:
        return f"{self.name} as published: {self.terms}, {self.source}"


LICENCES = {
    Published.PI3: (Licence("yyfz233/Pi3", "CC BY-NC 4.0 (no commercial use)", "https://huggingface.co/yyfz233/Pi3"),),
    Published.VGGT: (
        Licence("facebook/VGGT-1B", "CC BY-NC 4.0 (no commercial use)", "https://huggingface.co/facebook/VGGT-1B"),
        Licence(
            "facebook/VGGT-1B-Commercial",
            "VGGT License (commercial use, with an acceptable use policy: no military use)",
            "https://huggingface.co/facebook/VGGT-1B-Commercial",
        ),
    ),
    Published.PAGE4D: (
        Licence(
            "PAGE-4D",
            "unknown, ask its authors (it is fine-tuned from VGGT)",
            "https://github.com/kaichen-z/PAGE4D",
        ),
    ),
}
"""By model. Two of VGGT's files hold the same tensors by name and shape: a file does not say which of them it is."""
