"""`ExportPlan`: every stage with its shapes, weights and FLOP, from a config and a layout alone. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from page4d import __version__
from page4d.config import GlobalStrategy, Head, LayerOutput, ModelConfig, Published, TimeEncoding
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.manifest import KeptLayer, Manifest, StageEntry, Unit
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.published import PoseDirection
from page4d_export.plan.cost import Flop
from page4d_export.plan.costed_stage import Costed
from page4d_export.plan.plan_stages import PlanStages

_MOST_IMAGES = 1 << 14  # of a window, and so encoder calls: each is a line of the buffer plan
_MOST_NUMBERS = 1 << 40  # of a tensor over all calls of its stage, as a manifest allows
_MOST_FLOP = 1 << 63  # of a window: what 64 bits count
# of a call, at most: enough rows to fill a GPU, few enough that the activations stay a fraction of the tokens
_ENCODER_IMAGES = 16
_MOST_DIVISORS = 16  # that an error lists
# of a call of DPT's and Pi3X's heads: one image of 518 x 518, whose largest map has 137 MB in float32
_HEAD_PATCHES = 37 * 37


@dataclass(frozen=True)
class ExportPlan:
    """What an export will write: the model, the layout, the precision, and the stages that follow from them."""

    config: ModelConfig
    layout: Layout
    precision: Precision
    keypoints: bool
    encoder_images: int
    head_images: int
    attention: AttentionChoice
    absent_views: bool = False
    static_ranges: bool = False

    @classmethod
    def make(
        cls,
        config: ModelConfig,
        layout: Layout,
        precision: Precision,
        keypoints: bool = False,
        encoder_images: int | None = None,
        attention: AttentionChoice = AttentionChoice.AUTO,
        head_images: int | None = None,
        absent_views: bool = False,
        static_ranges: bool = False,
    ) -> ExportPlan:
        """A plan.

        Args:
            config: of the model.
            layout: fixes every shape.
            precision: of tokens and weights.
            keypoints: whether Global-SA reads keypoint maps.
            encoder_images: images of an encoder call; None: the largest divisor of the clip's images up to 16, in int8
                without static ranges 1.
            attention: what TensorRT makes of attention.
            head_images: images of a call of DPT heads (VGGT, Depth Anything 3) and of Pi3X's points and confidence;
                None: the largest divisor of the clip's images with at most 1369 patches, or 1; in int8
                without static ranges 1.
            absent_views: whether the engines are told which images are there, and go without the others.
            static_ranges: in int8: activations, queries and keys are rounded to ranges that were measured on frames.

        Raises:
            UsageError: static ranges in another precision than int8, `encoder_images` or `head_images` does not divide
                the clip's images, keypoints without a Global-SA to use them, absent views where no image sees another,
                a model that sees images alone without its head, the plugin in a precision that it does not compute in,
                a layout that a published model was not made for, or one that is too large: over 16384 images, a tensor
                of over 2^40 numbers, 2^63 FLOP.
        """
        layout = config.settled(layout)
        if config.sees_alone and not config.predictions:
            raise UsageError(
                f"without its heads {config.published} gives nothing",
                got="predictions = ()",
                allowed="predictions = depth",
                hint="--heads depth, or none of --heads",
            )
        if layout.images > _MOST_IMAGES:
            raise _too_large(layout, f"{layout.images} images", f"up to {_MOST_IMAGES} images: T * V * B")
        if static_ranges and precision is not Precision.INT8:
            raise UsageError("--static-ranges is of int8", got=precision, allowed="--int8 --static-ranges")
        # without static ranges the images of a call share one range; with one image a call, none depends on another
        most_encoder, most_head = _ENCODER_IMAGES, _HEAD_PATCHES // layout.P
        if precision is Precision.INT8 and not static_ranges:
            most_encoder = most_head = 1
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
        if absent_views:
            _require_several_images(config, layout)
        if config.is_sparse and layout.frames == 1:
            raise UsageError(
                "--sparse-attention has no effect: a clip is a single image",
                got=f"T={layout.T} V={layout.V}",
                allowed="two images or more",
            )
        plan = cls(
            config=config,
            layout=layout,
            precision=precision,
            keypoints=keypoints,
            encoder_images=_images_a_call("--encoder-images", encoder_images, layout.images, most_encoder),
            head_images=_images_a_call("--head-images", head_images, layout.images, most_head),
            attention=attention,
            absent_views=absent_views,
            static_ranges=static_ranges,
        )
        plan._require_sizes()
        return plan

    def _require_sizes(self) -> None:
        """Refuse sizes beyond what a manifest allows."""
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
        return ExportPlan.make(
            self.config,
            layout,
            self.precision,
            self.keypoints,
            attention=self.attention,
            absent_views=self.absent_views,
            static_ranges=self.static_ranges,
        )

    def in_precision(self, precision: Precision) -> ExportPlan:
        """The same stages in another precision, without static ranges."""
        return replace(self, precision=precision, static_ranges=False)

    @property
    def exact(self) -> ExportPlan:
        """The same stages, whose attention reads every key."""
        return replace(self, config=self.config.exact)

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
            points_frame=self.config.points_frame,
            pose_direction=self._pose_direction,
            unit=self._unit,
            static_ranges=self.static_ranges,
        )

    @property
    def _pose_direction(self) -> PoseDirection | None:
        """Of nine numbers of the camera; None where they are as they were before manifests named it."""
        traits = self.config.traits
        if traits is None or Head.CAMERA not in self.config.predictions:
            return None
        direction = traits.pose_direction
        return None if direction is PoseDirection.WORLD_TO_CAMERA else direction

    @property
    def _unit(self) -> Unit | None:
        """Of lengths, where the model knows one."""
        is_metric_depth = self.config.published is Published.DA3_METRIC and Head.DEPTH in self.config.predictions
        return Unit.METRES if is_metric_depth or Head.METRIC in self.config.predictions else None

    def stages(self) -> tuple[StageEntry, ...]:
        """Every stage in the order they run."""
        return tuple(entry for entry, _ in self._costed)

    @property
    def flop_by_stage(self) -> dict[str, Flop]:
        """FLOP of a call of each stage, by its name."""
        return {entry.name: flop for entry, flop in self._costed}

    @cached_property
    def _costed(self) -> tuple[Costed, ...]:
        stages = PlanStages(
            config=self.config,
            layout=self.layout,
            precision=self.precision,
            keypoints=self.keypoints,
            encoder_images=self.encoder_images,
            head_images=self.head_images,
            absent_views=self.absent_views,
        )
        return tuple(stages.entries())

    @cached_property
    def flop(self) -> int:
        """FLOP of a window: all calls of all stages."""
        return sum(entry.calls * entry.flop for entry in self.stages())

    def unfused(self) -> list[str]:
        """Stages with key segments (as sparse attention has) or the epipolar prior: without the plugin, TensorRT has an
        n x n tensor there."""
        config = self.config
        segmented = {
            "time_sa": config.time_encoding is TimeEncoding.ALIBI,
            "global_sa": config.global_strategy is GlobalStrategy.DILATED,
        }
        return [
            entry.name
            for entry in self.stages()
            if segmented.get(entry.kind, False)
            or (entry.kind == "view_sa" and config.epipolar)
            or (entry.kind == f"{config.global_block}_sa" and entry.layer in (config.sparse_layers or ()))
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


def _images_a_call(flag: str, images: int | None, all_images: int, most: int) -> int:
    """Images of a call: as chosen, or the largest divisor of all up to `most`, at least 1."""
    if images is None:
        return max(n for n in range(1, max(1, min(most, all_images)) + 1) if all_images % n == 0)
    if images < 1 or all_images % images:
        divisors = [n for n in range(1, all_images + 1) if all_images % n == 0]
        allowed = ", ".join(map(str, divisors[:_MOST_DIVISORS]))
        if len(divisors) > _MOST_DIVISORS:
            allowed += f", .. {all_images}"
        raise UsageError(f"{flag} does not divide the clip's {all_images} images", got=images, allowed=allowed)
    return images


def _require_several_images(config: ModelConfig, layout: Layout) -> None:
    """Raise unless images see each other, so that one may be absent."""
    if config.sees_alone:
        raise UsageError(
            f"--absent-views has no effect: {config.published} sees every image alone",
            allowed="a model whose images see each other",
            hint="without --absent-views; leave out what the engines give for an absent image",
        )
    if layout.frames == 1:
        raise UsageError(
            "--absent-views has no effect: a clip is a single image",
            got=f"T={layout.T} V={layout.V}",
            allowed="two images or more",
        )
    if config.known_cameras and layout.B > 1:
        raise UsageError(
            "clips side by side share their known cameras, which absent views change",
            got=f"--absent-views, --known-cameras and B={layout.B}",
            allowed="B=1, or one of both flags",
        )


def _too_large(layout: Layout, got: str, allowed: str) -> UsageError:
    sizes = f"T={layout.T} V={layout.V} B={layout.B} {layout.H}x{layout.W}"
    return UsageError(
        f"the engines would be too large, at {sizes}",
        got=got,
        allowed=allowed,
        hint="a smaller --T, --V, --height or --width",
    )
