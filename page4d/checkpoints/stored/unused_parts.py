"""Parts of published models that no model of this project has: known by name, and left unused."""

from __future__ import annotations

import re
from dataclasses import dataclass

from page4d.config import Published


@dataclass(frozen=True)
class UnusedPart:
    """A part of a published model that is left unused.

    Attributes:
        name: as reports call it.
        reason: why it is left unused.
        keys: of its tensors in files, a pattern to be shown; None: the first parts of their names.
        pattern: of the names of its tensors.
    """

    name: str
    reason: str
    keys: str | None
    pattern: re.Pattern[str]

    @property
    def note(self) -> str:
        """A remark for a load report."""
        return f"{self.name}: left unused; {self.reason}"


TRACK_HEAD = UnusedPart("track head", "this project does not export it", None, re.compile(r"track_head\."))
_RAY_HALF = UnusedPart(
    "ray half of the depth head",
    "cameras come from the camera head, and results do not need rays",
    "head.*_aux.*",
    re.compile(r"head\.scratch\.(?:refinenet\d|output_conv\d)_aux\."),
)
_CONDITIONING = UnusedPart(
    "conditioning on known poses, rays and depth",
    "the model sees images alone, for which it adds nothing",
    None,
    re.compile(r"depth_encoder\.|depth_emb$|ray_embed\.|pose_inject_blk\."),
)
_PARTS = {
    Published.VGGT: (TRACK_HEAD,),
    Published.PAGE4D: (TRACK_HEAD,),
    Published.DA3: (_RAY_HALF,),
    Published.PI3X: (_CONDITIONING,),
}


def unused_parts(published: Published) -> tuple[UnusedPart, ...]:
    """The parts of a published model that are left unused."""
    return _PARTS.get(published, ())


def unused_part_of(published: Published, name: str) -> UnusedPart | None:
    """The unused part that a tensor belongs to; None: it is of another part."""
    return next((part for part in unused_parts(published) if part.pattern.match(name)), None)
