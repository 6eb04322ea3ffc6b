"""`Page4D`: the reference network, top to bottom."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from page4d.cameras import cameras_from_mapping, fundamental
from page4d.config import Head, LayerOutput, ModelConfig, Order, PointsFrame, Published
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.manifest import LoadReport
from page4d.network.aggregator import Layer
from page4d.network.dpt import Depth, WorldPoints
from page4d.network.encoder import Encoder
from page4d.network.heads import Camera, Confidence, Points
from page4d.network.mask import MaskHead, RowMaskHead
from page4d.network.pose_head import REFINEMENTS, PoseHead
from page4d.network.poses import QUATERNION_NUMBERS, camera_to_world, intrinsics, world_points


@dataclass(frozen=True)
class Output:
    """The network's outputs for a clip (with the axis B in front of T where images have it).

    Attributes:
        mask: M `[T,V,h,w]`, the probability that a patch is dynamic; None where the model has no mask head.
        layers: per kept layer its tokens `[T,V,N,S*C]`, pose then geo on the channels (twice as wide with pair output).
        memory: memory tokens `[S,M,C]` as they leave the last Global-SA, where the strategy is `memory`; else None.
        points: `[T,V,H,W,3]`, every pixel's point as the head gives it: in `points_frame`, up to one scale for the
            clip. None without such a head, as all that follow.
        points_confidence: `[T,V,H,W]`, above 1 (VGGT, PAGE-4D).
        confidence: `[T,V,H,W]`, a logit (Pi3).
        depth: `[T,V,H,W]`, z in the camera's frame, in the scale of the cameras' positions.
        depth_confidence: `[T,V,H,W]`, above 1.
        camera: camera-to-world `[T,V,4,4]`; NaN where the head gave no pose.
        intrinsics: K `[T,V,3,3]` in pixels of the images given; NaN for a focal length that the head did not give.
        points_frame: the frame of `points`.
    """

    mask: Tensor | None
    layers: dict[int, Tensor]
    memory: Tensor | None
    points: Tensor | None = None
    points_confidence: Tensor | None = None
    confidence: Tensor | None = None
    depth: Tensor | None = None
    depth_confidence: Tensor | None = None
    camera: Tensor | None = None
    intrinsics: Tensor | None = None
    points_frame: PointsFrame | None = None

    def of_one_clip(self) -> Output:
        """The same without the axis B, which is 1."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        first: dict[str, Any] = {
            name: value[0] for name, value in values.items() if isinstance(value, Tensor) and name != "memory"
        }
        layers = {layer: tokens[0] for layer, tokens in self.layers.items()}
        memory = None if self.memory is None else self.memory[:, 0]
        return dataclasses.replace(self, layers=layers, memory=memory, **first)

    def world_points(self, source: str | None = None) -> Tensor:
        """Every pixel's point in the world.

        Args:
            source: `depth`, from depth, camera and intrinsics; `points`, from the points head. None: depth where the
                model gives all three, else points.

        Returns:
            float64 `[T,V,H,W,3]`, on the CPU.

        Raises:
            UsageError: the model has no such head.
        """
        names = ("points", "depth", "camera", "intrinsics")
        tensors = {name: getattr(self, name) for name in names}
        arrays = {name: None if tensor is None else tensor.cpu().numpy() for name, tensor in tensors.items()}
        return torch.from_numpy(world_points(**arrays, points_frame=self.points_frame, source=source))


@dataclass(frozen=True)
class _Inputs:
    """A clip that was checked, with the axis B, on the model's device.

    Attributes:
        images: uint8 `[B*T*V,H,W,3]`.
        mask_ext, keypoints: `[B,T,V,P,1]` in the model's dtype; keypoints may be None.
        lines: fundamental matrices `[V,V,3,3]` of the epipolar prior, or None.
        memory: `[S,B,M,C]`, or None where the model has no memory.
        is_batched: whether the caller's images have the axis B.
    """

    layout: Layout
    images: Tensor
    mask_ext: Tensor
    keypoints: Tensor | None
    lines: Tensor | None
    memory: Tensor | None
    is_batched: bool


class Page4D(nn.Module):
    """Encoder, special tokens, mask head, aggregator. Built in eval mode, weights seeded by their names.

    Args:
        config: the structure.
        seed: of the weights; the same name, shape and seed give the same tensor in every model.
        filled: False leaves the weights without memory and values, for `page4d.load_weights` to fill.

    Attributes:
        weights: their origin, as text.
        complete: whether every weight has a value; False before the first load, or after a load that was interrupted
            while it wrote.
        report: which weights were loaded from which checkpoint; None where none were.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, filled: bool = True) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.report: LoadReport | None = None
        with torch.device("meta"):  # no memory, no time: every tensor is filled once, below
            self.encoder = Encoder(config)
            # the first set for image (0, 0), the second for all others
            self.special_tokens = nn.Parameter(torch.empty(2, 1 + Layout.REGISTERS, config.width))
            self.mask_head = mask_head(config)
            self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.depth))
            if config.has_memory:
                self.memory_tokens = nn.Parameter(torch.empty(config.memory_tokens, config.width))
            self.camera = prediction_head(config, Head.CAMERA)
            self.depth = prediction_head(config, Head.DEPTH)
            self.points = prediction_head(config, Head.POINTS)
            self.confidence = prediction_head(config, Head.CONFIDENCE)
        self.requires_grad_(False)
        self.eval()
        self.weights, self.complete = (f"seeded (seed {seed})", True) if filled else ("none yet", False)
        if filled:
            self.to_empty(device="cpu")
            for name, parameter in self.named_parameters():
                seed_parameter(name, parameter.data, seed)

    def forward(
        self,
        images: Tensor | NDArray[np.uint8],
        mask_ext: Tensor | None = None,
        keypoints: Tensor | None = None,
        cameras: Mapping[str, Any] | None = None,
        memory: Tensor | None = None,
    ) -> Output:
        """Run a clip.

        Args:
            images: uint8 RGB `[T,V,H,W,3]` or `[B,T,V,H,W,3]`.
            mask_ext: external dynamic mask `[T,V,P,1]` in [0,1]; none counts as all zero. Published models take none.
            keypoints: K_ext `[T,V,P,1]` in [0,1].
            cameras: per view, in order, entries as in `cameras.json`, with K for these images; needed with `epipolar`.
            memory: `[S,M,C]` of the window before; none starts from the learned memory.

        Raises:
            UsageError: shapes that do not match, cameras missing, an external mask for a published model, or more
                timesteps or views than a published model takes.
        """
        inputs = self._checked(images, mask_ext, keypoints, cameras, memory)
        layout, memory = inputs.layout, inputs.memory
        tokens = self.embed(inputs.images, self.special(layout))
        tokens = tokens.reshape(1, layout.B, layout.T, layout.V, layout.N, -1)
        kept: dict[int, Tensor] = {}
        mask = row_bias = None
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if self.config.reads_mask(i, None):
                assert isinstance(self.mask_head, MaskHead)
                mask = self.mask_head(tokens, inputs.mask_ext, layout)
            blocks = []
            for block in layer.order:
                if block is Order.VIEW:
                    tokens = layer.view_sa(tokens, layout, mask, inputs.lines)
                else:
                    tokens = layer.time_sa(tokens, layout, mask, row_bias if self.config.rows_biased(i) else None)
                blocks.append(tokens)
                if self.config.reads_mask(i, block):
                    assert isinstance(self.mask_head, RowMaskHead)
                    mask, row_bias = self.mask_head(tokens, layout)
            if layer.global_sa is not None:
                tokens, memory = layer.global_sa(tokens, layout, inputs.keypoints, memory)
            if i in (self.config.keep_layers or ()):
                is_pair = self.config.layer_output is LayerOutput.PAIR
                kept[i] = side_by_side(blocks if is_pair else [tokens], self.config.streams)
        if mask is not None:
            mask = mask.reshape(layout.B, layout.T, layout.V, layout.h, layout.w)
        output = Output(mask, kept, memory, **self._predictions(kept, layout))
        return output if inputs.is_batched else output.of_one_clip()

    def embed(self, images: Tensor, special: Tensor) -> Tensor:
        """Images uint8 `[n,H,W,3]` and their special tokens `[n,5,C]` -> tokens `[n,N,C]`."""
        return torch.cat((special, self.encoder(images)), dim=1)

    def special(self, layout: Layout) -> Tensor:
        """The special tokens of every image, `[B*T*V,5,C]`; (t, v) = (0, 0) of a clip has its own."""
        which = torch.ones(layout.B, layout.frames, dtype=torch.long, device=self.special_tokens.device)
        which[:, 0] = 0
        return self.special_tokens[which.flatten()]

    def restructure(self, config: ModelConfig) -> None:
        """Become a model of another mask head, or with fewer heads, as a checkpoint has them.

        The modules are new and take over the parameters, but the mask head's, which are seeded.
        """
        rebuilt = Page4D(config, self.seed, filled=False)
        parameters = {name: value for name, value in self.named_parameters() if not name.startswith("mask_head.")}
        rebuilt.load_state_dict(parameters, strict=False, assign=True)
        if rebuilt.mask_head is not None and not self.special_tokens.is_meta:
            rebuilt.mask_head.to(self.special_tokens.dtype).to_empty(device="cpu")
            for name, parameter in rebuilt.mask_head.named_parameters():
                seed_parameter(f"mask_head.{name}", parameter.data, self.seed)
        self.config = config
        for part in ("encoder", "mask_head", "layers", *Head):
            setattr(self, part, getattr(rebuilt, part))

    def _checked(
        self,
        images: Tensor | NDArray[np.uint8],
        mask_ext: Tensor | None,
        keypoints: Tensor | None,
        cameras: Mapping[str, Any] | None,
        memory: Tensor | None,
    ) -> _Inputs:
        """What `forward` was called with, in the shapes that the network computes with."""
        images = torch.as_tensor(images, device=self.special_tokens.device)
        if images.dtype != torch.uint8 or images.dim() not in (5, 6) or images.shape[-1] != 3:
            raise UsageError(
                "images have the wrong form",
                got=f"{images.dtype} {list(images.shape)}",
                allowed="uint8 [T,V,H,W,3] or [B,T,V,H,W,3]",
            )
        is_batched = images.dim() == 6
        B, T, V, H, W, _ = images.shape if is_batched else (1, *images.shape)
        layout = Layout(T, V, H, W, B)
        self.config.require(layout)
        if mask_ext is not None and not self.config.takes_mask:
            raise UsageError(
                f"the published model {self.config.published} takes no external mask",
                got="mask_ext",
                allowed="no mask_ext",
            )
        dtype = self.special_tokens.dtype
        return _Inputs(
            layout=layout,
            images=images.reshape(layout.images, H, W, 3),
            mask_ext=self._patch_map("mask_ext", mask_ext, layout, dtype),
            keypoints=None if keypoints is None else self._patch_map("keypoints", keypoints, layout, dtype),
            lines=self._fundamental(cameras, layout, dtype),
            memory=self._memory(memory, layout) if self.config.has_memory else None,
            is_batched=is_batched,
        )

    def _predictions(self, kept: Mapping[int, Tensor], layout: Layout) -> dict[str, Any]:
        """The heads' results by the names of `Output`'s fields, from the kept layers `[B,T,V,N,2C]`."""
        results: dict[str, Any] = {}
        for head in self.config.predictions:
            values = getattr(self, head)(*(kept[layer] for layer in self.config.layers_of(head)), layout=layout)
            if isinstance(values, tuple):
                results[head], results[f"{head}_confidence"] = values
            else:
                results[head] = values
        if Head.CAMERA in results:
            results |= self._cameras(results[Head.CAMERA], layout)
        return results | {"points_frame": self.config.points_frame}

    def _cameras(self, numbers: Tensor, layout: Layout) -> dict[str, Tensor]:
        """What the camera head's values `[B,T,V,..]` say: camera to world, and K where they have fields of view."""
        values = numbers.cpu().numpy()
        cameras = {"camera": camera_to_world(values)}
        if values.shape[-1] == QUATERNION_NUMBERS:
            cameras["intrinsics"] = intrinsics(values, layout.H, layout.W)
        return {name: torch.from_numpy(matrices).to(numbers.device) for name, matrices in cameras.items()}

    def _patch_map(self, name: str, values: Tensor | None, layout: Layout, dtype: torch.dtype) -> Tensor:
        shape = (layout.B, layout.T, layout.V, layout.P, 1)
        if values is None:
            return torch.zeros(shape, dtype=dtype, device=self.special_tokens.device)
        values = torch.as_tensor(values, device=self.special_tokens.device)
        if values.shape not in (shape, shape[1:]) or (layout.B > 1 and values.shape != shape):
            raise UsageError(
                f"{name} has the wrong shape", got=list(values.shape), allowed=list(layout.patch_map_shape)
            )
        return values.reshape(shape).to(dtype)

    def _fundamental(self, cameras: Mapping[str, Any] | None, layout: Layout, dtype: torch.dtype) -> Tensor | None:
        if not self.config.epipolar:
            return None
        if cameras is None or len(cameras) != layout.V:
            raise UsageError(
                "the epipolar prior needs the calibration of every view",
                got="no cameras" if cameras is None else f"{len(cameras)} cameras",
                allowed=f"{layout.V}, in the order of the views",
            )
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        matrices = torch.from_numpy(fundamental(cameras_from_mapping(cameras).values()))
        return matrices.to(self.special_tokens.device, wide)

    def _memory(self, memory: Tensor | None, layout: Layout) -> Tensor:
        shape = (self.config.streams, layout.B, *self.memory_tokens.shape)
        if memory is None:
            return self.memory_tokens.expand(shape)
        if memory.numel() != int(np.prod(shape)) or memory.shape[-2:] != shape[-2:]:
            allowed = layout.memory_shape(shape[0], *self.memory_tokens.shape)
            raise UsageError("memory has the wrong shape", got=list(memory.shape), allowed=list(allowed))
        return memory.reshape(shape).to(self.memory_tokens.dtype)


def mask_head(config: ModelConfig) -> MaskHead | RowMaskHead | None:
    """The mask head of a model: its own, PAGE-4D's as published, or none."""
    if not config.has_mask:
        return None
    return MaskHead(config) if config.published is None else RowMaskHead(config)


def prediction_head(config: ModelConfig, head: Head) -> nn.Module | None:
    """A head of a model; None where it has no such head."""
    if head not in config.predictions:
        return None
    if config.published is Published.PI3:
        return {Head.POINTS: Points, Head.CONFIDENCE: Confidence, Head.CAMERA: Camera}[head](config)
    return {Head.CAMERA: PoseHead, Head.DEPTH: Depth, Head.POINTS: WorldPoints}[head](config)


def side_by_side(parts: list[Tensor], streams: int) -> Tensor:
    """Tokens `[S or 1,B,T,V,N,C]` of one or two blocks -> a kept layer `[B,T,V,N,S*C or S*2C]`.

    The blocks' channels lie side by side within a stream.
    """
    joined = torch.cat([part.expand(streams, *part.shape[1:]) for part in parts], dim=-1)
    return joined.movedim(0, -2).flatten(-2)


def seed_parameter(name: str, tensor: Tensor, seed: int) -> None:
    """Fill a parameter that is in no checkpoint.

    lambda 0; alpha, beta 1; the gate's last layer 0 with bias (1, 1); norms and LayerScale near 1; the bias of a camera
    that is not rotated and sees 1 rad; convolutions of depth and points normal, std 1 / sqrt(inputs): their maps
    then vary; the rest normal, std 0.02.
    """
    *_, owner, leaf = ("", *name.split("."))
    if leaf.startswith("lambda_"):
        tensor.zero_()
    elif leaf in ("alpha", "beta") or name.endswith("gate.2.bias"):
        tensor.fill_(1.0)
    elif name.endswith("gate.2.weight"):
        tensor.zero_()
    elif name.endswith("pose_branch.fc2.bias"):
        tensor.zero_()
        tensor[6:] = 1 / REFINEMENTS  # w of the quaternion, both fields of view: each refinement adds it
    else:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
        is_dpt = name.startswith(("depth.", "points.")) and tensor.dim() == 4
        tensor.normal_(0.0, tensor[0].numel() ** -0.5 if is_dpt else 0.02, generator=generator)
        if leaf == "gamma" or (leaf == "weight" and "norm" in owner):
            tensor.add_(1.0)
