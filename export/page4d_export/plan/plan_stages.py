"""`PlanStages`: the stages of a plan in the order they run, with shapes, weights and FLOP. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from page4d.config import GlobalStrategy, Head, ModelConfig, Order
from page4d.layout import Layout
from page4d.manifest import StageEntry, TensorSpec
from page4d.network.poses import QUATERNION_NUMBERS, ROW_NUMBERS
from page4d.precision import Precision
from page4d_export.plan.cost import Cost, Flop
from page4d_export.plan.head_cost import CameraCost, DptCost

OUT = "_out"
"""Suffix of an output that has an input's name, in the graph."""
Costed = tuple[StageEntry, Flop]
"""A stage, and the FLOP of a call by what they are of."""


@dataclass(frozen=True)
class PlanStages:
    """The parts of a plan that decide about its stages."""

    config: ModelConfig
    layout: Layout
    precision: Precision
    keypoints: bool
    encoder_images: int
    head_images: int

    def entries(self) -> Iterator[Costed]:
        """Every stage in the order they run."""
        config = self.config
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
        if config.built_on_vggt:
            yield from self._vggt_heads()
        elif config.predictions:
            yield from self._pi3_heads()

    # ---- one method a kind

    def _encoder(self) -> Costed:
        layout, width, n, dtype = self.layout, self.config.width, self.encoder_images, self.precision.tokens
        images = TensorSpec("images", (n, layout.H, layout.W, 3), "uint8")
        special = TensorSpec("special", (n, layout.special, width), dtype)
        return self._stage(
            "encoder",
            inputs=[images, special],
            outputs=[TensorSpec("tokens", (n, layout.N, width), dtype)],
            weight_bytes=self._cost.encoder_bytes(),
            flop=self._cost.encoder(n),
            largest=n * layout.N * 4 * width,
            calls=layout.images // n,
        )

    def _mask_head(self) -> Costed:
        config = self.config
        return self._stage(
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
        return self._stage(
            f"{block}_sa.{layer}",
            inputs=inputs,
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
        return self._stage(
            f"global_sa.{layer}",
            inputs=inputs,
            outputs=outputs,
            weight_bytes=cost.block_bytes() + (4 if config.biased(layer) and self.keypoints else 0),
            flop=streams * layout.B * flop,
            largest=self._hidden(streams),
        )

    def _vggt_heads(self) -> Iterator[Costed]:
        """The heads of VGGT and PAGE-4D that the model has."""
        for head in self.config.predictions:
            yield self._vggt_camera() if head is Head.CAMERA else self._dpt(head)

    def _vggt_camera(self) -> Costed:
        config, layout = self.config, self.layout
        cost = CameraCost(config, self.precision)
        pair = self._pair(config.depth - 1, layout.layer_shape(2 * config.width))
        return self._stage(
            "camera",
            inputs=[pair],
            outputs=[TensorSpec("camera", layout.pose_shape(QUATERNION_NUMBERS), "float32")],
            weight_bytes=cost.weight_bytes,
            flop=cost.flop(layout.B, layout.frames),
            largest=max(math.prod(pair.shape), 8 * config.width * layout.images),
        )

    def _dpt(self, head: Head) -> Costed:
        """Depth or points of some images, from each pixel's numbers, of which the last is its confidence."""
        layout, n = self.layout, self.head_images
        pixels = (n, layout.H, layout.W)
        values = pixels if head is Head.DEPTH else (*pixels, 3)
        numbers = 2 if head is Head.DEPTH else 4
        cost = DptCost(self.config, layout, self.precision, numbers)
        shape = (n, layout.N, 2 * self.config.width)
        return self._stage(
            str(head),
            inputs=[self._pair(layer, shape) for layer in self.config.layers_of(head)],
            outputs=[TensorSpec(str(head), values, "float32"), TensorSpec(f"{head}_confidence", pixels, "float32")],
            weight_bytes=cost.weight_bytes,
            flop=cost.flop(n),
            largest=cost.largest(n),
            calls=layout.images // n,
        )

    def _pi3_heads(self) -> Iterator[Costed]:
        """Pi3's heads, each on the last layer's pair."""
        layout, width = self.layout, self.config.width
        half, pixels, poses = width // 2, layout.PATCH**2, layout.pose_shape(ROW_NUMBERS)
        pair = self._pair(self.config.depth - 1, layout.layer_shape(2 * width))
        # multiply-adds of the camera's head: two residual blocks of three layers, of which the first run on patches;
        # then two layers, translation and rotation on images
        on_patches, camera = 6 * half * half, 8 * half * half + ROW_NUMBERS * half
        heads = (
            ("points", layout.images_shape, width, 3 * pixels * width, 0, 3 * pixels * (width + 1)),
            ("confidence", layout.pixel_map_shape, width, pixels * width, 0, pixels * (width + 1)),
            ("camera", poses, half, on_patches, camera - on_patches, camera + 8 * half + ROW_NUMBERS),
        )
        for name, shape, out, per_patch, per_image, weights in heads:
            yield self._stage(
                name,
                inputs=[pair],
                outputs=[TensorSpec(name, shape, "float32")],
                weight_bytes=self._cost.prediction_bytes(out, weights),
                flop=self._cost.prediction(out, per_patch, per_image),
                largest=self._hidden(1),
            )

    # ---- what they share

    def _stage(
        self,
        name: str,
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        weight_bytes: int,
        flop: Flop,
        largest: int,
        calls: int = 1,
    ) -> Costed:
        kind, _, layer = name.partition(".")
        entry = StageEntry(
            name=name,
            kind=kind,
            layer=int(layer) if layer else None,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            weight_bytes=weight_bytes,
            flop=flop.total,
            largest=largest,
            calls=calls,
        )
        return entry, flop

    @property
    def _cost(self) -> Cost:
        return Cost(self.config, self.layout, self.precision)

    def _tokens(self, streams: int, suffix: str = "") -> TensorSpec:
        return TensorSpec("tokens", self.layout.tokens_shape(streams, self.config.width), self.precision.tokens, suffix)

    def _pair(self, layer: int, shape: tuple[int, ...]) -> TensorSpec:
        """A kept layer as a head reads it."""
        return TensorSpec(f"layers.{layer}", shape, self.precision.tokens)

    def _patch_map(self, name: str) -> TensorSpec:
        return TensorSpec(name, self.layout.patch_map_shape, "float32")

    def _hidden(self, streams: int) -> int:
        """Elements of the MLP's hidden tensor, the largest of a block."""
        return streams * self.layout.images * self.layout.N * 4 * self.config.width
