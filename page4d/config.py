"""`ModelConfig`: everything that decides the network's structure, and the presets."""

from __future__ import annotations

import dataclasses
import enum
import functools
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.published import PI3_EPS, ROW_MASKS, TRAITS, Choice, Dpt, DptSizes, RowMask, Traits
from page4d.published import PRESETS as PRESETS
from page4d.published import Head as Head
from page4d.published import MaskHeadKind as MaskHeadKind
from page4d.published import PointsFrame as PointsFrame
from page4d.published import Published as Published


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
_VGGT_DPT_LAYERS, _VGGT_DEPTH = (5, 12, 18, 24), 24
"""How many of VGGT's 24 layers lie up to each of the four that its DPT heads read."""

# What an option may be; the descriptions are what an error says is allowed.
_Width = Annotated[int, Meta(ge=1, le=1 << 14, description="a whole number, 1 to 16384")]
_Heads = Annotated[int, Meta(ge=1, le=1 << 9, description="a whole number, 1 to 512")]
_Blocks = Annotated[int, Meta(ge=1, le=256, description="a whole number, 1 to 256")]
_Depth = Annotated[int, Meta(ge=0, le=256, description="a whole number, 0 to 256")]
_Streams = Annotated[int, Meta(ge=1, le=2, description="1, or 2 (pose, then geo)")]
_Layer = Annotated[int, Meta(ge=0, description="a layer's number, from 0")]
_Layers = Annotated[tuple[_Layer, ...] | None, Meta(description="whole numbers, layers from 0")]
_Tokens = Annotated[int, Meta(ge=1, le=Layout.LARGEST, description=f"a whole number, 1 to {Layout.LARGEST}")]
_Squares = Annotated[int, Meta(description=f"{', '.join(map(str, SAMPLINGS))}: one patch in so many")]
_Levels = Annotated[
    tuple[_Tokens, ...],
    Meta(
        min_length=1,
        max_length=16,
        description=f"one or more whole numbers of 1 or more, up to 16 of up to {Layout.LARGEST}",
    ),
]
_Predictions = Annotated[
    tuple[Head, ...],
    Meta(description="heads that the published model has; of Pi3 and Pi3X all or none"),
]
_Order = Annotated[tuple[Order, ...], Meta(description="words, ('view', 'time') or ('time', 'view')")]
_Pixels = Annotated[float, Meta(ge=0, le=65504, description="a number, 0 to 65504 pixels")]
_Penalty = Annotated[float, Meta(ge=-65504, le=65504, description="a number, -65504 to 65504, float16's range")]


@dataclass(frozen=True)
class ModelConfig:
    """The network's structure; defaults are the real model's (ViT-L encoder, 16 aggregator layers, two streams).

    Sizes have upper bounds, far beyond any such model, that keep a plan short and a manifest readable.

    Enums may be given as strings. `None` for `global_layers` means the last layer; for `keep_layers` it means the
    layers that the heads read, without heads the last one. Layers that the heads read are always kept. A published
    model's options are fixed except its size, the layers that are kept, its mask and its heads.

    Raises:
        UsageError: a value that is not allowed, or two that exclude each other.
    """

    width: _Width = 1024
    heads: _Heads = 16
    encoder_depth: _Blocks = 24
    depth: _Depth = 16
    streams: _Streams = 2
    order: _Order = (Order.VIEW, Order.TIME)
    layer_output: LayerOutput = LayerOutput.STREAMS
    mask_layer: _Layer = 0
    mask_head: MaskHeadKind = MaskHeadKind.CHECKPOINT_150
    fusion: Fusion = Fusion.SCALAR
    time_encoding: TimeEncoding = TimeEncoding.ROPE
    global_layers: _Layers = None
    global_strategy: GlobalStrategy = GlobalStrategy.LANDMARK
    landmarks: _Tokens = 64
    dilations: _Levels = (1, 2, 4)
    memory_tokens: _Tokens = 32
    epipolar: bool = False
    epipolar_band: _Pixels = 28.0
    epipolar_penalty: _Penalty = 4.0
    keep_layers: _Layers = None
    published: Published | None = None
    """The published model that the network reproduces; None: this project's own network. Decides also which weight of a
    checkpoint goes where."""
    mask: bool = True
    """Whether PAGE-4D's own mask is applied; other models have no such choice."""
    predictions: _Predictions = ()
    """The heads, in the order of their stages. True may be given for all of the published model's, False for none."""
    reference_view: ReferenceView = ReferenceView.FIRST
    known_cameras: bool = False
    """Whether the images' cameras are an input (Depth Anything 3): they become the special tokens, and no view is told
    apart."""
    sparse_attention: _Squares = 1
    """Of how many patches of the other images one is a key, in a published model's attention over all images; 1: all
    are, as published. Special tokens and the query's own image are read whole."""
    sparse_layers: _Layers = None
    """The layers where that is so; None: all, or none where `sparse_attention` is 1."""

    @property
    def head_dim(self) -> int:
        """Channels of a head, `D`."""
        return self.width // self.heads

    @property
    def has_memory(self) -> bool:
        """Whether memory tokens go from one Global-SA to the next and are an output."""
        return self.global_strategy is GlobalStrategy.MEMORY and bool(self.global_layers)

    @property
    def row_mask(self) -> RowMask | None:
        """PAGE-4D's own mask, where the network is deep enough to have it."""
        if self.published is not Published.PAGE4D or not self.mask:
            return None
        row_mask = ROW_MASKS[self.mask_head]
        return row_mask if row_mask.after < self.depth else None

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask head, and a mask among the outputs."""
        return self.published is None or self.row_mask is not None

    @property
    def takes_mask(self) -> bool:
        """Whether an external mask is an input: published models have none."""
        return self.published is None

    @property
    def traits(self) -> Traits | None:
        """What the published model fixes; None for this project's own network."""
        return None if self.published is None else TRAITS[self.published]

    @property
    def built_on_vggt(self) -> bool:
        """Whether it is VGGT as published, or PAGE-4D, which is VGGT with a mask."""
        return self.published in (Published.VGGT, Published.PAGE4D)

    @property
    def sees_alone(self) -> bool:
        """Whether the model is an encoder alone, which sees every image by itself, and a depth head."""
        return self.traits is not None and self.traits.sees_alone

    @property
    def has_special_tokens(self) -> bool:
        """Whether special tokens are weights: not of an encoder alone, nor where known cameras give them."""
        return not self.sees_alone and not self.known_cameras

    @property
    def registers(self) -> int:
        """Register tokens of an image."""
        return Layout.REGISTERS if self.traits is None else self.traits.registers

    @property
    def eps(self) -> tuple[float, float]:
        """Of an aggregator block's LayerNorms, and of those over q and k, unless a checkpoint sets others."""
        return PI3_EPS if self.traits is None else self.traits.eps

    @property
    def dpt(self) -> Dpt:
        """How its DPT heads are built."""
        assert self.traits is not None  # this project's own network has no heads
        return self.traits.dpt

    @property
    def dpt_sizes(self) -> DptSizes:
        """Channels in its DPT heads."""
        return self.dpt.sizes(self.width)

    @property
    def dpt_layers(self) -> tuple[int, ...]:
        """The four layers that DPT heads read: of VGGT 4, 11, 17, 23 of 24, in proportion for others; of Depth Anything
        3 the last of each quarter. Of a model that is an encoder alone they are its blocks, as VGGT's layers."""
        if self.published is Published.DA3:
            return tuple(max(-(-quarter * self.depth // 4) - 1, 0) for quarter in (1, 2, 3, 4))
        depth = self.depth or self.encoder_depth
        return tuple(max(-(-count * depth // _VGGT_DEPTH) - 1, 0) for count in _VGGT_DPT_LAYERS)

    def layers_of(self, head: Head) -> tuple[int, ...]:
        """The layers whose pairs a head reads, each once."""
        if head is Head.DEPTH or (head is Head.POINTS and self.built_on_vggt):
            return tuple(dict.fromkeys(self.dpt_layers))
        return (self.depth - 1,)

    def is_of_several_images(self, head: Head) -> bool:
        """Whether a head's images see each other: the camera of VGGT and PAGE-4D, Pi3X's metres."""
        return head is Head.METRIC or (head is Head.CAMERA and self.built_on_vggt)

    @property
    def head_layers(self) -> tuple[int, ...]:
        """The layers that the model's heads read, ascending."""
        if self.sees_alone:
            return ()
        return tuple(sorted({layer for head in self.predictions for layer in self.layers_of(head)}))

    @property
    def points_frame(self) -> PointsFrame | None:
        """The frame of the points head's points; None without it."""
        return self.traits.points_frame if self.traits is not None and Head.POINTS in self.predictions else None

    @property
    def _heads(self) -> tuple[Head, ...]:
        """The heads of the published model."""
        return () if self.traits is None else self.traits.heads

    @property
    def chooses_reference(self) -> bool:
        """Whether the reference view is chosen after the encoder."""
        return self.reference_view is not ReferenceView.FIRST and not self.known_cameras

    def reads_mask(self, layer: int, block: Order | None) -> bool:
        """Whether the mask head comes next: before layer `layer` (block None), or after one of its blocks."""
        if self.row_mask is not None:
            return (layer, block) == (self.row_mask.after, Order.VIEW)
        return self.has_mask and block is None and layer == self.mask_layer

    def streams_in(self, layer: int) -> int:
        """Streams that layer `layer` computes: one before the mask exists, S from `mask_layer` on."""
        return self.streams if layer >= self.mask_layer else 1

    def biased(self, layer: int) -> bool:
        """Whether the mask or keypoints bias the attention of layer `layer`, by stream."""
        return self.streams > 1 and layer >= self.mask_layer

    def rows_biased(self, layer: int) -> bool:
        """Whether PAGE-4D's own mask biases Time-SA of layer `layer`, on the rows of special tokens."""
        return self.row_mask is not None and layer in self.row_mask.layers

    @property
    def global_block(self) -> Order | None:
        """The block whose attention goes over all images of a clip; None where no block's does."""
        if self.traits is None or self.sees_alone:
            return None
        return Order.TIME if self.traits.sees_time else Order.VIEW

    @property
    def is_sparse(self) -> bool:
        """Whether attention over all images reads a sample of their patches."""
        return self.sparse_attention > 1

    @property
    def exact(self) -> ModelConfig:
        """The same network, whose attention reads every key."""
        return dataclasses.replace(self, sparse_attention=1, sparse_layers=None)

    def sampling(self, layer: int, block: Order) -> int:
        """Of how many patches of another image one is a key in a block; 1: all are."""
        is_sparse = block is self.global_block and layer in (self.sparse_layers or ())
        return self.sparse_attention if is_sparse else 1

    def settled(self, layout: Layout) -> Layout:
        """The layout with as many register tokens as the model has.

        Raises:
            UsageError: a clip that the model as published does not take: several timesteps, or several views.
        """
        self.require(layout)
        return dataclasses.replace(layout, registers=self.registers)

    def require(self, layout: Layout) -> None:
        """Check that the model takes clips of this layout as it was published.

        Raises:
            UsageError: several timesteps for a model of views, several views for one of frames.
        """
        traits = self.traits
        if traits is None:
            return
        if traits.sees_time and layout.V > 1:
            raise UsageError(
                f"{traits.title} as published sees T frames of one view",
                got=f"V = {layout.V}",
                allowed="V = 1",
                hint=f"--T {layout.T * layout.V} --V 1",
            )
        if not traits.sees_time and layout.T > 1:
            other = ", or --preset vitl with --pi3" if self.published is Published.PI3 else ""
            views = layout.V if self.published is Published.PI3 else layout.T * layout.V
            raise UsageError(
                f"{traits.title} as published sees V images of one time",
                got=f"T = {layout.T}",
                allowed="T = 1",
                hint=f"--T 1 --V {views}{other}",
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> ModelConfig:
        """A named size, with any field replaced: `ModelConfig.preset("vits", depth=4)`."""
        if name not in PRESETS:
            raise UsageError("there is no such preset", got=name, allowed=", ".join(PRESETS))
        return cls.from_mapping({**PRESETS[name], **overrides})

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> ModelConfig:
        """A config from plain values, as a manifest stores them."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError("the model has no such option", got=", ".join(unknown), allowed=", ".join(sorted(known)))
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values (strings, numbers, lists), for a manifest; of sparse attention only where there is some."""
        plain = {}
        for field in dataclasses.fields(self):
            if field.name.startswith("sparse_") and not self.is_sparse:
                continue
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = [str(item) if isinstance(item, enum.Enum) else item for item in value]
            plain[field.name] = str(value) if isinstance(value, enum.Enum) else value
        return plain

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "predictions" and isinstance(value, bool):
                value = (self._heads or tuple(Head)) if value else ()  # of a model without heads: refused below
            object.__setattr__(self, field.name, _converted(field.name, value))
        self._settle_heads()
        alone = self.sees_alone
        self._require("depth", (self.depth == 0) == alone, "0, as the model was published" if alone else "1 to 256")
        last = () if alone else (self.depth - 1,)
        global_layers = last if self.global_layers is None else self.global_layers
        chosen = (() if self.head_layers else last) if self.keep_layers is None else self.keep_layers
        object.__setattr__(self, "global_layers", tuple(sorted(set(global_layers))))
        object.__setattr__(self, "keep_layers", tuple(sorted({*chosen, *self.head_layers})))
        self._require(
            "width",
            self.width % (self.heads * 32) == 0,
            f"a multiple of 32 * heads = {32 * self.heads} (RoPE turns each head's two halves)",
        )
        self._require("order", set(self.order) == set(Order) and len(self.order) == 2, _allowed("order"))
        self._require("mask_layer", self.mask_layer < max(self.depth, 1), f"0 to {self.depth - 1}")
        for name in ("global_layers", "keep_layers"):
            inside = all(layer < self.depth for layer in getattr(self, name))
            self._require(name, inside, f"layers 0 to {self.depth - 1}")
        kept = len(self.keep_layers or ())
        _require("keep_layers", kept <= MOST_KEPT, f"{kept} layers", f"up to {MOST_KEPT}")
        self._settle_sampling()
        self._require_as_published()
        if self.has_memory:
            self._require(
                "global_layers",
                min(self.global_layers or ()) >= self.mask_layer,
                f"with memory, layers from mask_layer = {self.mask_layer} on (there is one memory per stream)",
            )

    def _settle_sampling(self) -> None:
        """Bring `sparse_layers` into order, and check that there is attention over all images to be made sparse."""
        is_sparse, layers = self.is_sparse, self.sparse_layers
        self._require("sparse_attention", self.sparse_attention in SAMPLINGS, _allowed("sparse_attention"))
        if is_sparse and self.global_block is None:
            why = (
                "which sees every image by itself"
                if self.sees_alone
                else "whose View-SA and Time-SA go over parts of a clip, and whose Global-SA is sparse by itself"
            )
            model = "this project's own network" if self.traits is None else self.traits.title
            raise UsageError(
                f"sparse_attention is for models whose attention goes over all images, not for {model}, {why}",
                got=self.sparse_attention,
                allowed="1",
                hint="a checkpoint of VGGT, PAGE-4D, Pi3, Pi3X or Depth Anything 3 any-view, as it was published",
            )
        if not is_sparse:
            self._require("sparse_layers", not layers, "none: with sparse_attention = 1 no layer is sparse")
            object.__setattr__(self, "sparse_layers", None)
            return
        layers = tuple(range(self.depth)) if layers is None else tuple(sorted(set(layers)))
        self._require("sparse_layers", bool(layers), "one layer or more, or all")
        self._require("sparse_layers", layers[-1] < self.depth, f"layers 0 to {self.depth - 1}")
        object.__setattr__(self, "sparse_layers", layers)

    def _settle_heads(self) -> None:
        """Bring `predictions` into the order of the stages, and check that the model has these heads."""
        allowed, chosen = self._heads, set(self.predictions)
        words = ", ".join(allowed) or "none; only published models have heads"
        self._require("predictions", chosen <= set(allowed), words)
        if self.traits is not None and self.traits.all_or_none:
            self._require("predictions", len(chosen) in (0, len(allowed)), f"all of {words}, or none")
        object.__setattr__(self, "predictions", tuple(head for head in allowed if head in chosen))

    def _require_as_published(self) -> None:
        """Options that a published model has no choice of have its values."""
        if self.published is not Published.PAGE4D:
            self._require("mask", self.mask, "true; only the published page4d has a mask that can be off")
        chooses = self.traits is not None and self.traits.chooses_reference
        self._require("known_cameras", chooses or not self.known_cameras, "false; only da3 takes cameras")
        self._require("reference_view", chooses or not self.chooses_reference, "first, as all models but da3 have it")
        if self.published is None:
            return
        preset = PRESETS["da3-large" if self.published is Published.DA3 else str(self.published)]
        for name in ("streams", "order", "time_encoding", "layer_output", "global_layers", "mask_layer", "fusion"):
            value = preset.get(name, getattr(ModelConfig, name))
            self._require(name, getattr(self, name) == value, f"{value or 'none'}, as {self.published} was published")
        self._require("epipolar", not self.epipolar, f"false, as {self.published} was published")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        _require(name, holds, getattr(self, name), allowed)


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(ModelConfig, include_extras=True)


def _converted(name: str, value: object) -> object:
    """An option's value in its type: strings become enums, lists tuples."""
    try:
        return msgspec.convert(value, _hints()[name])
    except msgspec.ValidationError:
        what = "has no such value" if _choice(name) else "is out of range"
        raise UsageError(f"{name} {what}", got=_shown(value), allowed=_allowed(name)) from None


def _choice(name: str) -> type[Choice] | None:
    """The enum of an option that is one of a few strings."""
    hint = _hints()[name]
    kinds = (hint, *get_args(hint))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Choice)), None)


def _allowed(name: str) -> str:
    """The values of an option, as an error names them."""
    hint, choice = _hints()[name], _choice(name)
    if choice is not None:
        return ", ".join(choice)
    return "true or false" if hint is bool else str(hint.__metadata__[0].description)


def _require(name: str, holds: bool, got: object, allowed: str) -> None:
    if not holds:
        raise UsageError(f"{name} is out of range", got=_shown(got), allowed=allowed)


def _shown(value: object) -> str:
    """Any value in a message: also one that is nested deeply, or a number of more digits than Python prints."""
    try:
        text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 200 else f"{text[:200]}.."
