"""`HeadStages`: the heads' stages of a plan, with shapes, weights and FLOP. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from page4d.config import Head, ModelConfig, Published
from page4d.layout import Layout
from page4d.manifest import TensorSpec
from page4d.precision import Precision
from page4d.published import QUATERNION_NUMBERS, ROW_NUMBERS
from page4d_export.plan.cost import Cost
from page4d_export.plan.costed_stage import Costed, costed_stage
from page4d_export.plan.da3_cost import CameraDecoderCost
from page4d_export.plan.head_cost import CameraCost, DptCost
from page4d_export.plan.pi3x_cost import ConvHeadCost, MetricCost


@dataclass(frozen=True)
class HeadStages:
    """The parts of a plan that decide about its heads' stages.

    Attributes:
        head_images: images of a call of heads that see each image alone and make large maps: DPT and Pi3X's.
        present: the input that says which images are there, where the engines have it, for heads whose images see each
            other.
    """

    config: ModelConfig
    layout: Layout
    precision: Precision
    head_images: int
    present: tuple[TensorSpec, ...] = ()

    def entries(self) -> Iterator[Costed]:
        """Every head's stage in the order they run."""
        is_pi3, is_pi3x = (self.config.published is model for model in (Published.PI3, Published.PI3X))
        for head in self.config.predictions:
            if head is Head.METRIC:
                yield self._metric()
            elif is_pi3x and head is not Head.CAMERA:
                yield self._conv(head)
            elif is_pi3 or is_pi3x:
                yield self._pi3(head)
            elif head is Head.CAMERA:
                yield self._camera()
            else:
                yield self._dpt(head)

    def _camera(self) -> Costed:
        """Nine numbers of each image: of VGGT and PAGE-4D, and of Depth Anything 3."""
        config, layout = self.config, self.layout
        pair = self._last_pair
        if config.published is Published.DA3:
            decoder = CameraDecoderCost(config)
            weight_bytes, flop = decoder.weight_bytes, decoder.flop(layout.images)
        else:
            cost = CameraCost(config, self.precision)
            weight_bytes, flop = cost.weight_bytes, cost.flop(layout.B, layout.frames)
        return costed_stage(
            "camera",
            inputs=[pair, *(self.present if config.is_of_several_images(Head.CAMERA) else ())],
            outputs=[TensorSpec("camera", layout.pose_shape(QUATERNION_NUMBERS), "float32")],
            weight_bytes=weight_bytes,
            flop=flop,
            largest=max(math.prod(pair.shape), 8 * config.width * layout.images),
        )

    def _dpt(self, head: Head) -> Costed:
        """Depth or points of some images, and beside them a confidence or the sky."""
        config, layout, n = self.config, self.layout, self.head_images
        pixels = (n, layout.H, layout.W)
        values = (*pixels, 3) if head is Head.POINTS else pixels
        shape = self._chunk
        if config.sees_alone:
            source, shape, beside, numbers = "features", (n, layout.P, config.width), "sky", 1
        else:
            source, beside, numbers = "layers", f"{head}_confidence", 4 if head is Head.POINTS else 2
        cost = DptCost(config, layout, self.precision, numbers)
        return costed_stage(
            str(head),
            inputs=[TensorSpec(f"{source}.{i}", shape, self.precision.tokens) for i in config.layers_of(head)],
            outputs=[TensorSpec(str(head), values, "float32"), TensorSpec(beside, pixels, "float32")],
            weight_bytes=cost.weight_bytes,
            flop=cost.flop(n),
            largest=cost.largest(n),
            calls=layout.images // n,
        )

    def _pi3(self, head: Head) -> Costed:
        """Pi3's heads, and Pi3X's camera."""
        layout, width = self.layout, self.config.width
        half, pixels = width // 2, layout.PATCH**2
        # multiply-adds of the camera's head: two residual blocks of three layers, of which the first run on patches;
        # then two layers, translation and rotation on images
        on_patches, camera = 6 * half * half, 8 * half * half + ROW_NUMBERS * half
        shape, out, per_patch, per_image, weights = {
            Head.POINTS: (layout.images_shape, width, 3 * pixels * width, 0, 3 * pixels * (width + 1)),
            Head.CONFIDENCE: (layout.pixel_map_shape, width, pixels * width, 0, pixels * (width + 1)),
            Head.CAMERA: (
                layout.pose_shape(ROW_NUMBERS),
                half,
                on_patches,
                camera - on_patches,
                camera + 8 * half + ROW_NUMBERS,
            ),
        }[head]
        return costed_stage(
            str(head),
            inputs=[self._last_pair],
            outputs=[TensorSpec(str(head), shape, "float32")],
            weight_bytes=self._cost.prediction_bytes(out, weights),
            flop=self._cost.prediction(layout.images, out, per_patch, per_image),
            largest=self._hidden(layout.images),
        )

    def _conv(self, head: Head) -> Costed:
        """Pi3X's points or confidence of some images: Pi3's decoder, then convolutions."""
        config, layout, n = self.config, self.layout, self.head_images
        pixels = (n, layout.H, layout.W)
        is_points = head is Head.POINTS
        cost = ConvHeadCost(config, layout, self.precision, (2, 1) if is_points else (1,))
        return costed_stage(
            str(head),
            inputs=[TensorSpec(f"layers.{config.depth - 1}", self._chunk, self.precision.tokens)],
            outputs=[TensorSpec(str(head), (*pixels, 3) if is_points else pixels, "float32")],
            weight_bytes=self._cost.prediction_bytes(config.width) + cost.weight_bytes,
            flop=self._cost.prediction(n, config.width) + cost.flop(n),
            largest=max(self._hidden(n), cost.largest(n)),
            calls=layout.images // n,
        )

    def _metric(self) -> Costed:
        """Pi3X's scale of a clip."""
        layout, pair = self.layout, self._last_pair
        cost = MetricCost(self.config)
        return costed_stage(
            "metric",
            inputs=[pair, *self.present],
            outputs=[TensorSpec("metric", (layout.B,), "float32")],
            weight_bytes=cost.weight_bytes,
            flop=cost.flop(layout.B, layout.global_tokens),
            largest=math.prod(pair.shape),
        )

    # ---- what they share

    @property
    def _cost(self) -> Cost:
        return Cost(self.config, self.layout, self.precision)

    @property
    def _last_pair(self) -> TensorSpec:
        """The last kept layer of all images."""
        shape = self.layout.layer_shape(2 * self.config.width)
        return TensorSpec(f"layers.{self.config.depth - 1}", shape, self.precision.tokens)

    @property
    def _chunk(self) -> tuple[int, ...]:
        """The shape of a kept layer of one call's images."""
        return (self.head_images, self.layout.N, 2 * self.config.width)

    def _hidden(self, images: int) -> int:
        """Elements of the MLP's hidden tensor in a decoder's block."""
        return images * self.layout.N * 4 * self.config.width
