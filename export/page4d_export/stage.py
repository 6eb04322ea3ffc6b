"""Stages: slices of the reference model with named inputs and outputs, as they are exported."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from page4d.layout import Layout
from page4d.manifest import StageEntry, TensorSpec
from page4d.model import Page4D
from page4d.network.block import LayerNorm, island
from page4d.network.encoder import Encoder
from page4d.network.heads.camera_decoder import CameraDecoder
from page4d.network.heads.camera_encoder import CameraEncoder
from page4d.network.heads.conv_head import GroupNorm
from page4d.network.heads.metric_head import Metric
from page4d.network.heads.pose_head import PoseHead
from page4d.precision import Precision
from page4d_export.plan.export_plan import ExportPlan

_SCALARS = (
    "lambda_pose",
    "lambda_geo",
    "lambda_pose_t",
    "lambda_geo_t",
    "lambda_kpt",
    "alpha",
    "beta",
    "alpha_logit",
    "tau_logit",
)
_WIDE = (PoseHead, CameraDecoder, CameraEncoder, Metric)
"""Modules that are float32 as a whole."""
_READ_BY_HEADS = ("layers.", "features.")


@dataclass(frozen=True)
class Stage:
    """A part of the model that becomes one engine.

    Attributes:
        entry: its names, shapes and dtypes.
        precision: of its tokens and weights.
    """

    entry: StageEntry
    precision: Precision
    _build: Callable[[], nn.Module]

    @property
    def name(self) -> str:
        """The name in the manifest."""
        return self.entry.name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and dtypes in the order the module takes them."""
        return self.entry.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and dtypes in the order the module returns them."""
        return self.entry.outputs

    @property
    def eps(self) -> dict[str, float]:
        """The eps of its LayerNorms, as the weights have them: `norm` of tokens, `qk_norm` of each head's q and k."""
        norms = [(name, child.eps) for name, child in self._build().named_modules() if isinstance(child, LayerNorm)]
        of_heads = ("q_norm", "k_norm")
        return {"qk_norm" if name.rpartition(".")[2] in of_heads else "norm": eps for name, eps in norms}

    @property
    def module(self) -> nn.Module:
        """The torch module: tensors in the order of `inputs` to one tensor, or a tuple in the order of `outputs`.

        In float32 and int8 it shares the model's weights; in 16 bits it is a copy, made anew each time, so that only
        one exists at once.
        """
        module = self._build().eval()
        return cast(copy.deepcopy(module), self.precision) if self.precision.has_16_bits else module


def stages(
    model: Page4D,
    layout: Layout,
    precision: Precision | str = Precision.FLOAT32,
    keypoints: bool = False,
    encoder_images: int | None = None,
    head_images: int | None = None,
    absent_views: bool = False,
) -> dict[str, Stage]:
    """The model's stages at a layout, by name, in the order they run.

    Args:
        model: float32.
        layout: fixes every shape.
        precision: of tokens and weights; inputs and outputs that are maps of patches stay float32.
        keypoints: whether Global-SA takes K_ext.
        encoder_images, head_images: images of a call of the encoder, and of the heads that are called in chunks; None:
            as `ExportPlan.make` chooses.
        absent_views: whether the stages are told which images are there.
    """
    plan = ExportPlan.make(
        model.config,
        layout,
        Precision(precision),
        keypoints,
        encoder_images,
        head_images=head_images,
        absent_views=absent_views,
    )
    return stages_of(model, plan)


def stages_of(model: Page4D, plan: ExportPlan) -> dict[str, Stage]:
    """The stages of a plan."""
    return {
        entry.name: Stage(entry, plan.precision, partial(_module, model, plan.layout, entry)) for entry in plan.stages()
    }


def _module(model: Page4D, layout: Layout, entry: StageEntry) -> nn.Module:
    if entry.kind == "encoder":
        return (FeaturesStage if model.config.sees_alone else EncoderStage)(model.encoder, layout)
    owner = model if entry.layer is None else model.layers[entry.layer]
    part = getattr(owner, entry.kind)
    assert isinstance(part, nn.Module)  # the plan lists what the config has
    if isinstance(part, CameraEncoder):
        return CameraEncoderStage(part, layout, getattr(torch, entry.outputs[0].dtype))
    return SliceStage(part, entry, layout)


class EncoderStage(nn.Module):
    """images uint8 `[n,H,W,3]`, special `[n,1+registers,C]` -> tokens `[n,N,C]`, the positional embedding fixed.

    Where a reference view is chosen, also the cls tokens that it is chosen by, float32 `[n,C]`.
    """

    def __init__(self, encoder: Encoder, layout: Layout) -> None:
        super().__init__()
        self.encoder = encoder
        self.position = nn.Parameter(encoder.position(layout.h, layout.w).detach().clone(), requires_grad=False)

    def forward(self, images: Tensor, special: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """As the class says."""
        patches, selecting = self.encoder.encode(images, self.position)
        tokens = torch.cat((special, patches), dim=1)
        return tokens if selecting is None else (tokens, island(selecting))


class FeaturesStage(EncoderStage):
    """images uint8 `[n,H,W,3]` -> patch tokens `[n,P,C]` after each block that heads read."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """As the class says."""
        return tuple(self.encoder.tapped(images, self.position))


class CameraEncoderStage(nn.Module):
    """cameras float32 `[V,9]` -> special tokens `[B*V,1,C]` of every image, the same in every clip.

    Of one clip alone also present uint8 `[1,V]`: the cameras of absent images are read by no other's.
    """

    def __init__(self, encoder: CameraEncoder, layout: Layout, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder
        self.clips, self.dtype = layout.B, dtype

    def forward(self, cameras: Tensor, present: Tensor | None = None) -> Tensor:
        """As the class says."""
        special: Tensor = self.encoder(cameras[None], present).transpose(0, 1)
        return special.repeat(self.clips, 1, 1).to(self.dtype)


class SliceStage(nn.Module):
    """A part of the model behind the stage's own names and shapes (without B where it is 1).

    Kept layers or features, which heads read, are its first arguments; all others have the stage's names.
    """

    def __init__(self, part: nn.Module, entry: StageEntry, layout: Layout) -> None:
        super().__init__()
        self.part = part
        self.entry, self.layout = entry, layout

    def forward(self, *inputs: Tensor, **options: float) -> Tensor | tuple[Tensor, ...]:
        """Inputs and outputs in the entry's order; options are the part's own."""
        named = {spec.name: self._with_batch(spec.name, x) for spec, x in zip(self.entry.inputs, inputs, strict=True)}
        pairs = [named.pop(spec.name) for spec in self.entry.inputs if spec.name.startswith(_READ_BY_HEADS)]
        results = self.part(*pairs, layout=self.layout, **named, **options)
        results = results if isinstance(results, tuple) else (results,)
        shaped = tuple(x.reshape(spec.shape) for spec, x in zip(self.entry.outputs, results, strict=False))
        return shaped if len(shaped) > 1 else shaped[0]

    def _with_batch(self, name: str, x: Tensor) -> Tensor:
        if name.startswith(_READ_BY_HEADS) and x.dim() == 3:  # one call's images, of whatever clips
            return x[None, None]
        if name == "fundamental" or self.layout.B > 1:
            return x
        return x.unsqueeze(1 if name in ("tokens", "memory") else 0)  # streams stand before B


def cast(module: nn.Module, precision: Precision) -> nn.Module:
    """Weights in 16 bits, those of the float32 islands aside: norms, lambdas, alpha, beta, and what is made of cameras
    or makes cameras and metres (but Pi3's camera).

    In place.
    """
    dtype = getattr(torch, precision.tokens)
    wide = {child for part in module.modules() if isinstance(part, _WIDE) for child in part.modules()}
    for child in module.modules():
        if child in wide or isinstance(child, LayerNorm | GroupNorm):
            continue
        for name, parameter in child.named_parameters(recurse=False):
            if name not in _SCALARS:
                parameter.data = parameter.data.to(dtype)
    return module
