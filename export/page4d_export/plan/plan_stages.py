"""`PlanStages`: the stages of a plan in the order they run, with shapes, weights and FLOP. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from page4d.config import GlobalStrategy, Head, ModelConfig, Order
from page4d.layout import Layout
from page4d.manifest import TensorSpec
from page4d.precision import Precision
from page4d.published import QUATERNION_NUMBERS
from page4d_export.plan.cost import Cost
from page4d_export.plan.costed_stage import Costed, costed_stage
from page4d_export.plan.da3_cost import CameraEncoderCost
from page4d_export.plan.head_stages import HeadStages

OUT = "_out"
"""Suffix of an output that has an input's name, in the graph."""


@dataclass(frozen=True)
class PlanStages:
    """The parts of a plan that decide about its stages."""

    config: ModelConfig
    layout: Layout
    precision: Precision
    keypoints: bool
    encoder_images: int
    head_images: int
    absent_views: bool

    def entries(self) -> Iterator[Costed]:
        """Every stage in the order they run."""
        config = self.config
        if config.known_cameras:
            yield self._camera_encoder()
        yield self._encoder()
        streams = 1
        for layer in range(config.depth):
            if config.reads_mask(layer, None):
                yield self._mask_head()
            for block in config.order:
                # the first block that computes two streams is given one: they start equal
                yield self._block(block, layer, streams)
                streams = config.streams_in(layer)
                if config.reads_mask(layer, block):
                    yield self._mask_head()
            if layer in (config.global_layers or ()):
                yield self._global(layer)
        yield from HeadStages(
            config, self.layout, self.precision, self.head_images, self._present(self.layout.frames)
        ).entries()

    # ---- one method a kind

    def _camera_encoder(self) -> Costed:
        layout, width = self.layout, self.config.width
        cost = CameraEncoderCost(self.config, self.precision)
        special = TensorSpec("special", (layout.images, layout.special, width), self.precision.tokens)
        return costed_stage(
            "camera_encoder",
            inputs=[TensorSpec("cameras", (layout.V, QUATERNION_NUMBERS), "float32"), *self._present(layout.V)],
            outputs=[special],
            weight_bytes=cost.weight_bytes,
            flop=cost.flop(layout.V),
            largest=max(layout.V * 4 * width, math.prod(special.shape)),
        )

    def _encoder(self) -> Costed:
        config, layout, n, dtype = self.config, self.layout, self.encoder_images, self.precision.tokens
        inputs = [TensorSpec("images", (n, layout.H, layout.W, 3), "uint8")]
        if config.sees_alone:
            shape = (n, layout.P, config.width)
            outputs = [TensorSpec(f"features.{block}", shape, dtype) for block in config.layers_of(Head.DEPTH)]
        else:
            inputs.append(TensorSpec("special", (n, layout.special, config.width), dtype))
            outputs = [TensorSpec("tokens", (n, layout.N, config.width), dtype)]
        if config.chooses_reference:
            outputs.append(TensorSpec("select", (n, config.width), "float32"))
        return costed_stage(
            "encoder",
            inputs=inputs,
            outputs=outputs,
            weight_bytes=self._cost.encoder_bytes(),
            flop=self._cost.encoder(n),
            largest=n * layout.N * 4 * config.width,
            calls=layout.images // n,
        )

    def _mask_head(self) -> Costed:
        config = self.config
        return costed_stage(
            "mask_head",
            inputs=[self._tokens(1), *([self._patch_map("mask_ext")] if config.takes_mask else [])],
            outputs=[self._patch_map("mask"), *([self._patch_map("row_bias")] if config.row_mask is not None else [])],
            weight_bytes=self._cost.mask_head_bytes(),
            flop=self._cost.mask_head(),
            largest=self.layout.images * self.layout.N * config.width,
        )

    def _block(self, block: Order, layer: int, streams_in: int) -> Costed:
        config, layout, cost = self.config, self.layout, self._cost
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
        shared = (streams - streams_in) * cost.shared_projections(length)
        return costed_stage(
            f"{block}_sa.{layer}",
            inputs=[*inputs, *self._present(layout.V if block is Order.VIEW else layout.T)],
            outputs=[self._tokens(streams, OUT)],
            weight_bytes=cost.block_bytes() + (2 * 4 if biased else 0),
            flop=sequences * (streams * cost.block(length, length) + shared),
            largest=self._hidden(streams),
        )

    def _global(self, layer: int) -> Costed:
        config, layout, cost = self.config, self.layout, self._cost
        streams, n = config.streams_in(layer), layout.global_tokens
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
        return costed_stage(
            f"global_sa.{layer}",
            inputs=[*inputs, *self._present(layout.frames)],
            outputs=outputs,
            weight_bytes=cost.block_bytes() + (4 if config.biased(layer) and self.keypoints else 0),
            flop=streams * layout.B * flop,
            largest=self._hidden(streams),
        )

    # ---- what they share

    @property
    def _cost(self) -> Cost:
        return Cost(self.config, self.layout, self.precision)

    def _tokens(self, streams: int, suffix: str = "") -> TensorSpec:
        return TensorSpec("tokens", self.layout.tokens_shape(streams, self.config.width), self.precision.tokens, suffix)

    def _patch_map(self, name: str) -> TensorSpec:
        return TensorSpec(name, self.layout.patch_map_shape, "float32")

    def _present(self, images: int) -> tuple[TensorSpec, ...]:
        """Which images are there, for a stage in which so many attend to each other."""
        is_input = self.absent_views and images > 1
        return (TensorSpec("present", self.layout.image_map_shape, "uint8"),) * is_input

    def _hidden(self, streams: int) -> int:
        """Elements of the MLP's hidden tensor, the largest of a block."""
        return streams * self.layout.images * self.layout.N * 4 * self.config.width
