"""`ExportPlan`: every stage with its shapes, weights and FLOP, from a config and a layout alone. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from page4d import __version__
from page4d.config import GlobalStrategy, LayerOutput, ModelConfig, Order, TimeEncoding
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.manifest import KeptLayer, Manifest, StageEntry, TensorSpec
from page4d.network.poses import POSE_NUMBERS
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d_export.cost import Cost, Flop

_MOST_IMAGES = 1 << 14  # of a window, and so encoder calls: each is a line of the buffer plan
_MOST_NUMBERS = 1 << 40  # of a tensor over all calls of its stage, as a manifest allows
_MOST_FLOP = 1 << 63  # of a window: what 64 bits count
_ENCODER_IMAGES = (
    16  # of a call, at most: enough rows to fill a GPU, few enough that the activations stay a fraction of the tokens
)
OUT = "_out"
Costed = tuple[StageEntry, Flop]
"""A stage, and the FLOP of a call by what they are of."""


@dataclass(frozen=True)
class ExportPlan:
    """What an export is going to make."""

    config: ModelConfig
    layout: Layout
    precision: Precision
    keypoints: bool
    encoder_images: int
    attention: AttentionChoice

    @classmethod
    def make(
        cls,
        config: ModelConfig,
        layout: Layout,
        precision: Precision,
        keypoints: bool = False,
        encoder_images: int | None = None,
        attention: AttentionChoice = AttentionChoice.AUTO,
    ) -> ExportPlan:
        """A plan; `encoder_images` None picks the largest divisor of the clip's images up to 16, in int8 1.

        Raises:
            UsageError: `encoder_images` does not divide the clip's images, keypoints without a Global-SA to use them,
                the plugin in a precision that it does not compute in, a layout that a published model was not made for,
                or one that is too large: over 16384 images, a tensor of over 2^40 numbers, 2^63 FLOP.
        """
        config.require(layout)
        if layout.images > _MOST_IMAGES:
            raise _too_large(layout, f"{layout.images} images", f"up to {_MOST_IMAGES} images: T * V * B")
        if encoder_images is None:
            # in int8 a call's images share the range that they are rounded in: one each gives every image a result of
            # its own
            most = 1 if precision is Precision.INT8 else min(_ENCODER_IMAGES, layout.images)
            encoder_images = max(n for n in range(1, most + 1) if layout.images % n == 0)
        if encoder_images < 1 or layout.images % encoder_images:
            divisors = [n for n in range(1, layout.images + 1) if layout.images % n == 0]
            allowed = ", ".join(map(str, divisors[:_ENCODER_IMAGES])) + (
                f", .. {layout.images}" if len(divisors) > _ENCODER_IMAGES else ""
            )
            raise UsageError(
                f"--encoder-images does not divide the clip's {layout.images} images",
                got=encoder_images,
                allowed=allowed,
            )
        if keypoints and not config.global_layers:
            raise UsageError(
                "--keypoints has no effect: the model has no Global-SA layer", allowed="a model with global_layers"
            )
        if attention is AttentionChoice.PLUGIN and not precision.has_16_bits:
            raise UsageError(
                "--attention plugin computes in 16 bits",
                got=precision,
                allowed="--fp16, --bf16 or --fp8",
                hint="--attention auto",
            )
        plan = cls(config, layout, precision, keypoints, encoder_images, attention)
        plan._require_sizes()
        return plan

    def _require_sizes(self) -> None:
        """Refuse what no manifest could say and no machine hold."""
        for entry in self.stages():
            for spec in (*entry.inputs, *entry.outputs):
                if entry.calls * math.prod(spec.shape) > _MOST_NUMBERS:
                    raise _too_large(
                        self.layout,
                        f"{spec.name} {list(spec.shape)} of {entry.name}",
                        f"tensors of up to 2^{_MOST_NUMBERS.bit_length() - 1} numbers",
                    )
        if self.flop >= _MOST_FLOP:
            raise _too_large(self.layout, f"{self.flop:.1e} FLOP a window", f"below {_MOST_FLOP:.1e}")

    def at(self, layout: Layout) -> ExportPlan:
        """The same stages at another layout."""
        return ExportPlan.make(self.config, layout, self.precision, self.keypoints, attention=self.attention)

    def in_precision(self, precision: Precision) -> ExportPlan:
        """The same stages in another precision."""
        return replace(self, precision=precision)

    def manifest(self, weights: str) -> Manifest:
        """The manifest before anything is built."""
        return Manifest(
            page4d=__version__,
            model=self.config.to_mapping(),
            weights=weights,
            layout=self.layout,
            precision=self.precision,
            encoder_images=self.encoder_images,
            stages=self.stages(),
            keep=tuple(self.kept()),
            attention=self.attention,
        )

    def stages(self) -> tuple[StageEntry, ...]:
        """Every stage in the order they run."""
        return tuple(entry for entry, _ in self._costed)

    @property
    def flop_by_stage(self) -> dict[str, Flop]:
        """Of a call of each stage, by its name."""
        return {entry.name: flop for entry, flop in self._costed}

    @cached_property
    def _costed(self) -> tuple[Costed, ...]:
        return tuple(self._entries())

    @cached_property
    def flop(self) -> int:
        """Of a window: all calls of all stages."""
        return sum(entry.calls * entry.flop for entry in self.stages())

    def _entries(self) -> Iterator[Costed]:
        config = self.config
        yield self._encoder()
        streams = 1
        for layer in range(config.depth):
            if config.reads_mask(layer, None):
                yield self._mask_head()
            for block in config.order:
                yield self._block(
                    block, layer, streams
                )  # given one stream, the first block that computes two starts them equal
                streams = config.streams_in(layer)
                if config.reads_mask(layer, block):
                    yield self._mask_head()
            if layer in (config.global_layers or ()):
                yield self._global(layer)
        if config.predictions:
            yield from self._predictions()

    def unfused(self) -> list[str]:
        """Stages whose attention TensorRT computes with an n x n tensor unless it has the plugin: key segments, the
        epipolar prior."""
        config = self.config
        segmented = {
            "time_sa": config.time_encoding is TimeEncoding.ALIBI,
            "global_sa": config.global_strategy is GlobalStrategy.DILATED,
        }
        return [
            entry.name
            for entry in self.stages()
            if segmented.get(entry.kind, False) or (entry.kind == "view_sa" and config.epipolar)
        ]

    def kept(self) -> Iterator[KeptLayer]:
        """The kept layers and the stages whose tokens they hold."""
        config = self.config
        for layer in config.keep_layers or ():
            blocks = tuple(f"{block}_sa.{layer}" for block in config.order)
            if config.layer_output is LayerOutput.PAIR:
                stages = blocks
            elif layer in (config.global_layers or ()):
                stages = (f"global_sa.{layer}",)
            else:
                stages = blocks[-1:]
            yield KeptLayer(layer, stages, config.streams)

    def gathered(self) -> list[KeptLayer]:
        """The kept layers that stages read."""
        read = {spec.name for entry in self.stages() for spec in entry.inputs}
        return [kept for kept in self.kept() if f"layers.{kept.layer}" in read]

    # ---- one method a kind

    def _encoder(self) -> Costed:
        layout, width, n = self.layout, self.config.width, self.encoder_images
        flop = self._cost.encoder(n)
        return StageEntry(
            name="encoder",
            kind="encoder",
            layer=None,
            inputs=(
                TensorSpec("images", (n, layout.H, layout.W, 3), "uint8"),
                TensorSpec("special", (n, layout.special, width), self.precision.tokens),
            ),
            outputs=(TensorSpec("tokens", (n, layout.N, width), self.precision.tokens),),
            weight_bytes=self._cost.encoder_bytes(),
            flop=flop.total,
            calls=layout.images // n,
            largest=n * layout.N * 4 * width,
        ), flop

    def _mask_head(self) -> Costed:
        config, flop = self.config, self._cost.mask_head()
        return StageEntry(
            name="mask_head",
            kind="mask_head",
            layer=None,
            inputs=(self._tokens(1), *([self._patch_map("mask_ext")] if config.takes_mask else [])),
            outputs=(self._patch_map("mask"), *([self._patch_map("row_bias")] if config.row_mask is not None else [])),
            weight_bytes=self._cost.mask_head_bytes(),
            flop=flop.total,
            largest=self.layout.images * self.layout.N * self.config.width,
        ), flop

    def _block(self, block: Order, layer: int, streams_in: int) -> Costed:
        config, layout = self.config, self.layout
        streams, biased = config.streams_in(layer), config.biased(layer)
        inputs = [self._tokens(streams_in)]
        if biased:
            inputs.append(self._patch_map("mask"))
        if block is Order.VIEW:
            sequences, length = layout.B * layout.T, layout.view_tokens
            if config.epipolar:
                inputs.append(TensorSpec("fundamental", layout.fundamental_shape, "float32"))
        else:
            sequences, length = layout.B * layout.V, layout.time_tokens
            if config.rows_biased(layer):
                inputs.append(self._patch_map("row_bias"))
        shared = (streams - streams_in) * self._cost.shared_projections(length)
        flop = sequences * (streams * self._cost.block(length, length) + shared)
        return StageEntry(
            name=f"{block}_sa.{layer}",
            kind=f"{block}_sa",
            layer=layer,
            inputs=tuple(inputs),
            outputs=(self._tokens(streams, OUT),),
            weight_bytes=self._cost.block_bytes() + (2 * 4 if biased else 0),
            flop=flop.total,
            largest=self._hidden(streams),
        ), flop

    def _global(self, layer: int) -> Costed:
        config, layout, cost = self.config, self.layout, self._cost
        streams, biased, n = config.streams_in(layer), config.biased(layer), layout.global_tokens
        inputs, outputs = [self._tokens(streams)], [self._tokens(streams, OUT)]
        if self.keypoints:
            inputs.append(self._patch_map("keypoints"))
        if config.global_strategy is GlobalStrategy.LANDMARK:
            anchors = layout.anchors(config.landmarks)
            flop = cost.block(n, anchors, context=anchors)
        elif config.global_strategy is GlobalStrategy.DILATED:
            flop = cost.block(n, 0) + layout.dilated_count(config.dilations) * cost.scores(layout.N, layout.N)
        else:
            m = config.memory_tokens
            flop = cost.block(m, m + n, context=m + n) + cost.block(n, m, context=m)
            shape = layout.memory_shape(streams, m, config.width)
            inputs.append(TensorSpec("memory", shape, self.precision.tokens))
            outputs.append(TensorSpec("memory", shape, self.precision.tokens, OUT))
        flop = streams * layout.B * flop
        return StageEntry(
            name=f"global_sa.{layer}",
            kind="global_sa",
            layer=layer,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            weight_bytes=cost.block_bytes() + (4 if biased and self.keypoints else 0),
            flop=flop.total,
            largest=self._hidden(streams),
        ), flop

    def _predictions(self) -> Iterator[Costed]:
        """Pi3's heads, each on the last layer's pair."""
        layout, width = self.layout, self.config.width
        half, pixels = width // 2, layout.PATCH**2
        pair = TensorSpec(f"layers.{self.config.depth - 1}", layout.layer_shape(2 * width), self.precision.tokens)
        camera = (
            8 * half * half + POSE_NUMBERS * half
        )  # two residual blocks of three layers, two layers, translation and rotation
        heads = (
            ("points", layout.images_shape, width, 3 * pixels * width, 0, 3 * pixels * (width + 1)),
            ("confidence", layout.pixel_map_shape, width, pixels * width, 0, pixels * (width + 1)),
            (
                "camera",
                layout.pose_shape(POSE_NUMBERS),
                half,
                6 * half * half,
                camera - 6 * half * half,
                camera + 8 * half + POSE_NUMBERS,
            ),
        )
        for name, shape, out, per_patch, per_image, weights in heads:
            flop = self._cost.prediction(out, per_patch, per_image)
            yield (
                StageEntry(
                    name=name,
                    kind=name,
                    layer=None,
                    inputs=(pair,),
                    outputs=(TensorSpec(name, shape, "float32"),),
                    weight_bytes=self._cost.prediction_bytes(out, weights),
                    flop=flop.total,
                    largest=self._hidden(1),
                ),
                flop,
            )

    # ---- what they share

    @property
    def _cost(self) -> Cost:
        return Cost(self.config, self.layout, self.precision)

    def _tokens(self, streams: int, suffix: str = "") -> TensorSpec:
        return TensorSpec("tokens", self.layout.tokens_shape(streams, self.config.width), self.precision.tokens, suffix)

    def _patch_map(self, name: str) -> TensorSpec:
        return TensorSpec(name, self.layout.patch_map_shape, "float32")

    def _hidden(self, streams: int) -> int:
        """Numbers in the MLP's hidden tensor, the largest of a block."""
        return streams * self.layout.images * self.layout.N * 4 * self.config.width


def _too_large(layout: Layout, got: str, allowed: str) -> UsageError:
    sizes = f"T={layout.T} V={layout.V} B={layout.B} {layout.H}x{layout.W}"
    return UsageError(
        f"the engines would be too large, at {sizes}",
        got=got,
        allowed=allowed,
        hint="a smaller --T, --V, --height or --width",
    )
