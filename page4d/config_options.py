"""The options of `ModelConfig`: words that they may be, and bounds of numbers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from page4d.layout import Layout
from page4d.published import Choice, Head


class Order(Choice):
    """A block of an aggregator layer."""

    VIEW = "view"
    TIME = "time"


class LayerOutput(Choice):
    """Content of a kept layer: the tokens after the layer, or both blocks' outputs side by side."""

    STREAMS = "streams"
    PAIR = "pair"


class Fusion(Choice):
    """How the head's logit and the external mask are weighted: by two scalars, or by an MLP, per patch."""

    SCALAR = "scalar"
    GATE = "gate"


class TimeEncoding(Choice):
    """How Time-SA encodes relative time."""

    ROPE = "rope"
    ALIBI = "alibi"
    NONE = "none"


class ReferenceView(Choice):
    """Which view's special tokens tell it apart from all others; the world is about its camera."""

    FIRST = "first"
    SADDLE_BALANCED = "saddle_balanced"
    """Depth Anything 3's choice, by what the encoder makes of the views; where there are three or more."""


class GlobalStrategy(Choice):
    """How Global-SA is made sparse."""

    LANDMARK = "landmark"
    DILATED = "dilated"
    MEMORY = "memory"


SAMPLINGS = (1, 4, 9, 16, 25, 36, 49, 64)
"""Of how many patches of another image attention reads one: squares of 1 to 8 patches a side; 1 is exact."""
MOST_KEPT = 64
"""Layers that can be kept; a manifest has as many."""
HEAD_BLOCKS = 5
"""Blocks in the decoder of each of Pi3's heads."""
CAMERA_BLOCKS = 4
"""Blocks in the trunk of VGGT's camera head."""

# What an option may be; the descriptions are what an error says is allowed.
Width = Annotated[int, Meta(ge=1, le=1 << 14, description="a whole number, 1 to 16384")]
HeadCount = Annotated[int, Meta(ge=1, le=1 << 9, description="a whole number, 1 to 512")]
BlockCount = Annotated[int, Meta(ge=1, le=256, description="a whole number, 1 to 256")]
LayerCount = Annotated[int, Meta(ge=0, le=256, description="a whole number, 0 to 256")]
StreamCount = Annotated[int, Meta(ge=1, le=2, description="1, or 2 (pose, then geo)")]
LayerNumber = Annotated[int, Meta(ge=0, description="a layer's number, from 0")]
LayerNumbers = Annotated[tuple[LayerNumber, ...] | None, Meta(description="whole numbers, layers from 0")]
TokenCount = Annotated[int, Meta(ge=1, le=Layout.LARGEST, description=f"a whole number, 1 to {Layout.LARGEST}")]
SquareSize = Annotated[int, Meta(description=f"{', '.join(map(str, SAMPLINGS))}: one patch in so many")]
DilationLevels = Annotated[
    tuple[TokenCount, ...],
    Meta(
        min_length=1,
        max_length=16,
        description=f"one or more whole numbers of 1 or more, up to 16 of up to {Layout.LARGEST}",
    ),
]
Predictions = Annotated[
    tuple[Head, ...],
    Meta(description="heads that the published model has; of Pi3 and Pi3X all or none"),
]
BlockOrder = Annotated[tuple[Order, ...], Meta(description="words, ('view', 'time') or ('time', 'view')")]
Pixels = Annotated[float, Meta(ge=0, le=65504, description="a number, 0 to 65504 pixels")]
Penalty = Annotated[float, Meta(ge=-65504, le=65504, description="a number, -65504 to 65504, float16's range")]
