"""The published models that the network reproduces, what of its structure each of them fixes, and the presets."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any


class Choice(str, enum.Enum):
    """An option that is one of a few strings; a member equals its string."""

    def __str__(self) -> str:
        return str(self.value)


class Published(Choice):
    """A published model that the network can reproduce exactly."""

    PI3 = "pi3"
    PI3X = "pi3x"
    VGGT = "vggt"
    PAGE4D = "page4d"
    DA3 = "da3"
    DA3_MONO = "da3-mono"
    DA3_METRIC = "da3-metric"


class Head(Choice):
    """A prediction head on kept layers; a stage of its own."""

    CAMERA = "camera"
    DEPTH = "depth"
    POINTS = "points"
    CONFIDENCE = "confidence"
    METRIC = "metric"


class PointsFrame(Choice):
    """The frame that points are in."""

    CAMERA = "camera"
    """Each pixel's own camera (Pi3)."""
    WORLD = "world"
    """One frame for the whole clip (VGGT, PAGE-4D)."""


class PoseDirection(Choice):
    """What the nine numbers of a camera head say."""

    WORLD_TO_CAMERA = "world_to_camera"
    CAMERA_TO_WORLD = "camera_to_world"


class FinalNorm(Choice):
    """What the network's final norm applies to, in front of a DPT head."""

    NOTHING = "nothing"
    SECOND_HALF = "second half"
    """Of each pair: the later block's tokens."""
    ALL = "all"


class Waves(Choice):
    """The place embedding in a DPT head."""

    NONE = "none"
    FLOAT64 = "float64"
    """Its frequencies are computed in float64."""
    FLOAT32 = "float32"


@dataclass(frozen=True)
class DptSizes:
    """Channels in a DPT head.

    Attributes:
        features: in the fusion.
        channels: of the four maps before it, from the finest to the coarsest.
        hidden: before the output.
    """

    features: int
    channels: tuple[int, int, int, int]
    hidden: int


@dataclass(frozen=True)
class Dpt:
    """How the DPT heads of a published model are built; the defaults are VGGT's.

    Attributes:
        by_width: channels in the fusion, and of the four maps, for networks of some widths; others have VGGT's
            proportions.
        most_hidden: channels before the output, as far as that is not more than half of those in the fusion; None: as
            VGGT, an eighth of them.
        final_norm: what of the tokens the network's final norm applies to, in front of the head's own norm.
        has_norm: whether the head has a norm of its own.
        waves: place embedding.
        keeps_sign: whether a residual unit adds its input; else relu of it.
        has_sky: whether a second output tells the sky, instead of a confidence.
    """

    by_width: tuple[tuple[int, int, tuple[int, int, int, int]], ...] = ()
    most_hidden: int | None = None
    final_norm: FinalNorm = FinalNorm.NOTHING
    has_norm: bool = True
    waves: Waves = Waves.FLOAT64
    keeps_sign: bool = False
    has_sky: bool = False

    def sizes(self, width: int) -> DptSizes:
        """For a network of this width."""
        listed = {known: (features, channels) for known, features, channels in self.by_width}
        features, channels = listed.get(width, (width // 4, (width // 4, width // 2, width, width)))
        hidden = features // 8 if self.most_hidden is None else min(self.most_hidden, features // 2)
        return DptSizes(features, channels, max(hidden, 1))


@dataclass(frozen=True)
class Traits:
    """What a published model fixes.

    Attributes:
        title: the name that its authors give it.
        heads: in the order their stages run.
        eps: of an aggregator block's LayerNorms, and of those over q and k.
        all_or_none: whether a checkpoint has all heads or none.
        sees_time: whether its clip is T frames of one view; else V images of one time.
        sees_alone: whether it is an encoder alone, which sees every image by itself.
        registers: register tokens of an image.
        encoder_norm: whether the encoder's tokens are normed.
        antialiased: whether the position embedding is resized with a filter that widens (bicubic, a = -0.5), at the
            exact ratio of the grids; else by plain bicubic interpolation (a = -0.75), at the ratio that DINOv2 has.
        places_in_views: whether View-SA tells patches apart by place; else only from special tokens.
        chooses_reference: whether the view that is told apart may be chosen; else it is the first.
        points_frame: of the points head's points.
        pose_direction: of nine numbers of the camera head.
        dpt: how its DPT heads are built.
    """

    title: str
    heads: tuple[Head, ...]
    eps: tuple[float, float]
    all_or_none: bool = False
    sees_time: bool = False
    sees_alone: bool = False
    registers: int = 4
    encoder_norm: bool = True
    antialiased: bool = True
    places_in_views: bool = True
    chooses_reference: bool = False
    points_frame: PointsFrame = PointsFrame.WORLD
    pose_direction: PoseDirection = PoseDirection.WORLD_TO_CAMERA
    dpt: Dpt = Dpt()


ROW_NUMBERS = 12
"""Of Pi3's camera head: a translation, then three rows of a matrix; camera to world."""
QUATERNION_NUMBERS = 9
"""Of the other camera heads: a translation, a quaternion (x y z w), the vertical and the horizontal field of view in
radians."""
SKY = 0.3
"""A pixel whose `sky` is this or more is sky."""
PI3_EPS, PAGE4D_EPS = (1e-6, 1e-5), (1e-5, 1e-5)
_VGGT_HEADS = (Head.CAMERA, Head.DEPTH, Head.POINTS)
_DA3_SIZES = (
    (384, 64, (48, 96, 192, 384)),
    (768, 128, (96, 192, 384, 768)),
    (1024, 256, (256, 512, 1024, 1024)),
)
_MONO = Traits(
    title="Depth Anything 3 MONO",
    heads=(Head.DEPTH,),
    eps=PI3_EPS,
    sees_alone=True,
    registers=0,
    encoder_norm=False,
    antialiased=False,
    dpt=Dpt(final_norm=FinalNorm.ALL, has_norm=False, waves=Waves.NONE, keeps_sign=True, has_sky=True),
)
TRAITS = {
    Published.PI3: Traits(
        title="Pi3",
        heads=(Head.POINTS, Head.CONFIDENCE, Head.CAMERA),
        eps=PI3_EPS,
        all_or_none=True,
        points_frame=PointsFrame.CAMERA,
    ),
    Published.PI3X: Traits(
        title="Pi3X",
        heads=(Head.POINTS, Head.CONFIDENCE, Head.CAMERA, Head.METRIC),
        eps=PI3_EPS,
        all_or_none=True,
        points_frame=PointsFrame.CAMERA,
    ),
    Published.VGGT: Traits(title="VGGT", heads=_VGGT_HEADS, eps=PAGE4D_EPS, sees_time=True),
    Published.PAGE4D: Traits(title="PAGE-4D", heads=_VGGT_HEADS, eps=PAGE4D_EPS, sees_time=True),
    Published.DA3: Traits(
        title="Depth Anything 3",
        heads=(Head.CAMERA, Head.DEPTH),
        eps=PI3_EPS,
        registers=0,
        encoder_norm=False,
        antialiased=False,
        places_in_views=False,
        chooses_reference=True,
        pose_direction=PoseDirection.CAMERA_TO_WORLD,
        dpt=Dpt(_DA3_SIZES, most_hidden=32, final_norm=FinalNorm.SECOND_HALF, waves=Waves.FLOAT32, keeps_sign=True),
    ),
    Published.DA3_MONO: _MONO,
    Published.DA3_METRIC: dataclasses.replace(_MONO, title="Depth Anything 3 METRIC"),
}


class MaskHeadKind(Choice):
    """Structure of the mask head, by the generation of the PAGE-4D checkpoint that has it."""

    CHECKPOINT_150 = "150"
    CHECKPOINT_2026 = "2026"


@dataclass(frozen=True)
class RowMask:
    """PAGE-4D's own mask, a bias on Time-SA's logits on the rows of the special tokens.

    Attributes:
        after: the head reads the output of this layer's View-SA.
        layers: layers whose Time-SA is biased.
        gain: factor of the bias on the rows of special tokens; patch rows have none.
    """

    after: int
    layers: range
    gain: float


ROW_MASKS = {
    MaskHeadKind.CHECKPOINT_150: RowMask(7, range(8, 24), 1.0),
    MaskHeadKind.CHECKPOINT_2026: RowMask(9, range(10, 20), 64.0),
}

_PUBLISHED: dict[str, Any] = {"streams": 1, "global_layers": (), "time_encoding": "none", "layer_output": "pair"}

_DA3: dict[str, Any] = {
    **_PUBLISHED,
    "published": "da3",
    "order": ("time", "view"),
    "predictions": True,
    "reference_view": "saddle_balanced",
}

PRESETS: dict[str, dict[str, Any]] = {
    "vitl": {},
    "vitb": {"width": 768, "heads": 12, "encoder_depth": 12, "depth": 8},
    "vits": {"width": 384, "heads": 6, "encoder_depth": 12, "depth": 8},
    "tiny": {"width": 128, "heads": 2, "encoder_depth": 3, "depth": 4},
    "pi3": {**_PUBLISHED, "published": "pi3", "depth": 18, "order": ("time", "view"), "predictions": True},
    "pi3x": {**_PUBLISHED, "published": "pi3x", "depth": 18, "order": ("time", "view"), "predictions": True},
    "vggt": {**_PUBLISHED, "published": "vggt", "depth": 24, "predictions": True},
    "page4d": {**_PUBLISHED, "published": "page4d", "depth": 24, "predictions": True},
    "da3-small": {**_DA3, "width": 384, "heads": 6, "encoder_depth": 4, "depth": 4},
    "da3-base": {**_DA3, "width": 768, "heads": 12, "encoder_depth": 4, "depth": 4},
    "da3-large": {**_DA3, "encoder_depth": 8, "depth": 8},
    "da3-mono": {**_PUBLISHED, "published": "da3-mono", "depth": 0, "order": ("time", "view"), "predictions": True},
    "da3-metric": {**_PUBLISHED, "published": "da3-metric", "depth": 0, "order": ("time", "view"), "predictions": True},
}
