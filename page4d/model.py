"""`Page4D`: the reference network, top to bottom."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from page4d.config import Head, LayerOutput, ModelConfig, Order, Published
from page4d.layout import Layout
from page4d.manifest import LoadReport
from page4d.network.aggregator import Layer
from page4d.network.clip_inputs import ClipInputs
from page4d.network.encoder import Encoder
from page4d.network.heads.camera_decoder import CameraDecoder
from page4d.network.heads.camera_encoder import CameraEncoder
from page4d.network.heads.dpt import Depth, DepthAndSky, WorldPoints
from page4d.network.heads.metric_head import Metric
from page4d.network.heads.pi3 import Camera as Pi3Camera
from page4d.network.heads.pi3 import Confidence, Points
from page4d.network.heads.pose_head import REFINEMENTS, PoseHead
from page4d.network.known_cameras import KnownCameras
from page4d.network.mask import MaskHead, RowMaskHead
from page4d.network.output import Output as Output
from page4d.network.poses import camera_to_world, intrinsics
from page4d.network.presence import first_present
from page4d.network.reference_view import balanced_view
from page4d.published import QUATERNION_NUMBERS


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
        licence: of these weights, as text; empty where none were loaded.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, filled: bool = True) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.report: LoadReport | None = None
        self.licence = ""
        with torch.device("meta"):  # no memory, no time: every tensor is filled once, below
            self.encoder = Encoder(config)
            self.camera_encoder = CameraEncoder(config) if config.known_cameras else None
            if config.has_special_tokens:
                # the first set for the image that is told apart, the second for all others
                self.special_tokens = nn.Parameter(torch.empty(2, 1 + config.registers, config.width))
            self.mask_head = mask_head(config)
            self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.depth))
            if config.has_memory:
                self.memory_tokens = nn.Parameter(torch.empty(config.memory_tokens, config.width))
            self.camera = prediction_head(config, Head.CAMERA)
            self.depth = prediction_head(config, Head.DEPTH)
            self.points = prediction_head(config, Head.POINTS)
            self.confidence = prediction_head(config, Head.CONFIDENCE)
            self.metric = prediction_head(config, Head.METRIC)
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
        present: Tensor | NDArray[np.bool_ | np.uint8] | None = None,
    ) -> Output:
        """Run a clip.

        Args:
            images: uint8 RGB `[T,V,H,W,3]` or `[B,T,V,H,W,3]`.
            mask_ext: external dynamic mask `[T,V,P,1]` in [0,1]; none counts as all zero. Published models take none.
            keypoints: K_ext `[T,V,P,1]` in [0,1].
            cameras: per view, in order, entries as in `cameras.json`, with K for these images; needed with `epipolar`
                and `known_cameras`.
            memory: `[S,M,C]` of the window before; none starts from the learned memory.
            present: which images are there, `[T,V]` or `[B,T,V]`, bool or uint8, at least one of each clip; none: all.
                Of the others nothing is read: the results are those of the images that are there, and NaN at the
                others. The first image that is there is the one that special tokens tell apart.

        Raises:
            UsageError: shapes that do not match, cameras missing, an external mask for a published model, or more
                timesteps or views than a published model takes.
        """
        learned = self.memory_tokens if self.config.has_memory else None
        inputs = ClipInputs.checked(
            self.config, self.encoder.cls_token, images, mask_ext, keypoints, cameras, memory, present, learned
        )
        layout, memory, present_images = inputs.layout, inputs.memory, inputs.present
        if self.config.sees_alone:
            output = Output(None, {}, None, **self._depth_and_sky(inputs.images, layout)).of_present(present_images)
            return output if inputs.is_batched else output.of_one_clip()
        tokens = self._encoded(inputs)
        kept: dict[int, Tensor] = {}
        mask: Tensor | None = None
        row_bias: Tensor | None = None
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if self.config.reads_mask(i, None):
                assert isinstance(self.mask_head, MaskHead)
                mask = self.mask_head(tokens, inputs.mask_ext, layout)
            blocks = []
            for block in layer.order:
                if block is Order.VIEW:
                    tokens = layer.view_sa(tokens, layout, mask, inputs.lines, present_images)
                else:
                    of_rows = row_bias if self.config.rows_biased(i) else None
                    tokens = layer.time_sa(tokens, layout, mask, of_rows, present_images)
                blocks.append(tokens)
                if self.config.reads_mask(i, block):
                    assert isinstance(self.mask_head, RowMaskHead)
                    mask, row_bias = self.mask_head(tokens, layout)
            if layer.global_sa is not None:
                tokens, memory = layer.global_sa(tokens, layout, inputs.keypoints, memory, present=present_images)
            if i in (self.config.keep_layers or ()):
                is_pair = self.config.layer_output is LayerOutput.PAIR
                kept[i] = side_by_side(blocks if is_pair else [tokens], self.config.streams)
        if mask is not None:
            mask = mask.reshape(layout.B, layout.T, layout.V, layout.h, layout.w)
        predictions = self._predictions(kept, layout, present_images)
        if inputs.rig is not None:
            predictions |= _in_frame_of(inputs.rig, predictions, present_images)
        output = Output(mask, kept, memory, **predictions).of_present(present_images)
        return output if inputs.is_batched else output.of_one_clip()

    def _encoded(self, inputs: ClipInputs) -> Tensor:
        """Special tokens and encoded patches of a clip, `[1,B,T,V,N,C]`."""
        layout, present = inputs.layout, inputs.present
        patches, selecting = self.encoder.encode(inputs.images)
        if self.camera_encoder is not None and inputs.rig is not None:
            special = self._special_of(inputs.rig, layout, present)
        else:
            reference = None if present is None else first_present(present).cpu().numpy()
            if selecting is not None:
                reference = self._reference(selecting, layout, present)
            special = self.special(layout, reference)
        tokens = torch.cat((special, patches), dim=1)
        return tokens.reshape(1, layout.B, layout.T, layout.V, layout.N, -1)

    def special(self, layout: Layout, reference: NDArray[np.int64] | None = None) -> Tensor:
        """The special tokens of every image, `[B*T*V,1+registers,C]`; one image of a clip has its own: image 0, or that
        of number `reference` `[B]`."""
        which = torch.ones(layout.B, layout.frames, dtype=torch.long, device=self.encoder.cls_token.device)
        which[range(layout.B), 0 if reference is None else torch.from_numpy(reference)] = 0
        return self.special_tokens[which.flatten()]

    def _special_of(self, rig: KnownCameras, layout: Layout, present: Tensor | None) -> Tensor:
        """The special tokens of every image, `[B*V,1,C]`, where the cameras are known."""
        assert self.camera_encoder is not None
        weight = self.encoder.cls_token
        if present is None:
            encoded = torch.from_numpy(rig.encoded(layout.H, layout.W)).to(weight)
            special: Tensor = self.camera_encoder(encoded[None]).transpose(0, 1).repeat(layout.B, 1, 1)
            return special
        clips = [rig.encoded(layout.H, layout.W, views) for views in present.flatten(1).cpu().numpy()]
        special = self.camera_encoder(torch.from_numpy(np.stack(clips)).to(weight), present)
        return special.flatten(0, 1)[:, None]

    def _reference(self, selecting: Tensor, layout: Layout, present: Tensor | None) -> NDArray[np.int64]:
        """The number of each clip's reference view `[B]`, from the images' cls tokens `[B*V,C]`."""
        present_images = None if present is None else present.flatten(1).cpu().numpy()
        return balanced_view(selecting.unflatten(0, (layout.B, layout.V)).double().cpu().numpy(), present_images)

    def restructure(self, config: ModelConfig) -> None:
        """Become a model of another mask head, or with fewer heads, as a checkpoint has them.

        The modules are new and take over the parameters, but the mask head's, which are seeded.
        """
        rebuilt = Page4D(config, self.seed, filled=False)
        parameters = {name: value for name, value in self.named_parameters() if not name.startswith("mask_head.")}
        rebuilt.load_state_dict(parameters, strict=False, assign=True)
        if rebuilt.mask_head is not None and not self.encoder.cls_token.is_meta:
            rebuilt.mask_head.to(self.encoder.cls_token.dtype).to_empty(device="cpu")
            for name, parameter in rebuilt.mask_head.named_parameters():
                seed_parameter(f"mask_head.{name}", parameter.data, self.seed)
        self.config = config
        for part in ("encoder", "mask_head", "layers", *Head):
            setattr(self, part, getattr(rebuilt, part))

    def exact(self) -> Page4D:
        """The same model, with the same tensors, whose attention reads every key."""
        model = copy.deepcopy(self, {id(tensor): tensor for tensor in self.parameters()})
        for module in model.modules():
            for name, value in (("config", self.config.exact), ("one_in", 1)):
                if hasattr(module, name):
                    setattr(module, name, value)
        return model

    def _depth_and_sky(self, images: Tensor, layout: Layout) -> dict[str, Any]:
        """Of a model that sees every image alone, `[B,T,V,H,W]` each."""
        assert self.depth is not None
        lead = (layout.B, layout.T, layout.V)
        depth, sky = self.depth(*(tokens.unflatten(0, lead) for tokens in self.encoder.tapped(images)), layout=layout)
        return {"depth": depth, "sky": sky}

    def _predictions(self, kept: Mapping[int, Tensor], layout: Layout, present: Tensor | None) -> dict[str, Any]:
        """The heads' results by the names of `Output`'s fields, from the kept layers `[B,T,V,N,2C]`."""
        results: dict[str, Any] = {}
        for head in self.config.predictions:
            others = {"present": present} if self.config.is_of_several_images(head) else {}
            layers = (kept[layer] for layer in self.config.layers_of(head))
            values = getattr(self, head)(*layers, layout=layout, **others)
            if isinstance(values, tuple):
                results[head], results[f"{head}_confidence"] = values
            else:
                results[head] = values
        if Head.CAMERA in results:
            results |= self._cameras(results[Head.CAMERA], layout)
        if Head.METRIC in results:
            metric = results[Head.METRIC]
            results["points"] = results["points"] * metric.reshape(-1, 1, 1, 1, 1, 1)
            results["camera"][..., :3, 3] *= metric.to(results["camera"]).reshape(-1, 1, 1, 1)
        return results | {"points_frame": self.config.points_frame}

    def _cameras(self, numbers: Tensor, layout: Layout) -> dict[str, Tensor]:
        """What the camera head's values `[B,T,V,..]` say: camera to world, and K where they have fields of view."""
        values = numbers.cpu().numpy()
        assert self.config.traits is not None  # this project's own network has no heads
        cameras = {"camera": camera_to_world(values, self.config.traits.pose_direction)}
        if values.shape[-1] == QUATERNION_NUMBERS:
            cameras["intrinsics"] = intrinsics(values, layout.H, layout.W)
        return {name: torch.from_numpy(matrices).to(numbers.device) for name, matrices in cameras.items()}


def _in_frame_of(rig: KnownCameras, predictions: Mapping[str, Any], present: Tensor | None) -> dict[str, Tensor]:
    """Depth, camera and intrinsics `[B,1,V,..]` in the frame and scale of known cameras."""
    results: dict[str, Tensor] = {}
    if "camera" in predictions:
        estimated: Tensor = predictions["camera"]
        present_images = [None] * len(estimated) if present is None else list(present.flatten(1).cpu().numpy())
        scales = [
            rig.scale(clip[0].cpu().numpy(), views) for clip, views in zip(estimated, present_images, strict=True)
        ]
        results["camera"] = torch.from_numpy(rig.camera_to_world).to(estimated).expand_as(estimated)
        results["intrinsics"] = torch.from_numpy(rig.K).to(estimated).expand_as(predictions["intrinsics"])
        if "depth" in predictions:
            depth: Tensor = predictions["depth"]
            results["depth"] = depth / torch.tensor(scales, dtype=torch.float64).to(depth).reshape(-1, 1, 1, 1, 1)
    return results


def mask_head(config: ModelConfig) -> MaskHead | RowMaskHead | None:
    """The mask head of a model: its own, PAGE-4D's as published, or none."""
    if not config.has_mask:
        return None
    return MaskHead(config) if config.published is None else RowMaskHead(config)


def prediction_head(config: ModelConfig, head: Head) -> nn.Module | None:
    """A head of a model; None where it has no such head."""
    if head not in config.predictions:
        return None
    if config.published in (Published.PI3, Published.PI3X):
        modules = {Head.POINTS: Points, Head.CONFIDENCE: Confidence, Head.CAMERA: Pi3Camera, Head.METRIC: Metric}
    else:
        camera = CameraDecoder if config.published is Published.DA3 else PoseHead
        depth = DepthAndSky if config.sees_alone else Depth
        modules = {Head.CAMERA: camera, Head.DEPTH: depth, Head.POINTS: WorldPoints}
    return modules[head](config)


def side_by_side(parts: list[Tensor], streams: int) -> Tensor:
    """Tokens `[S or 1,B,T,V,N,C]` of one or two blocks -> a kept layer `[B,T,V,N,S*C or S*2C]`.

    The blocks' channels lie side by side within a stream.
    """
    joined = torch.cat([part.expand(streams, *part.shape[1:]) for part in parts], dim=-1)
    return joined.movedim(0, -2).flatten(-2)


def seed_parameter(name: str, tensor: Tensor, seed: int) -> None:
    """Fill a parameter that is in no checkpoint.

    lambda 0; alpha, beta 1; the gate's last layer 0 with bias (1, 1); norms and LayerScale near 1; the biases of a
    camera that is not rotated and sees 1 rad; convolutions of depth and points normal, std 1 / sqrt(inputs): their maps
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
    elif name.endswith("fc_fov.0.bias"):
        tensor.fill_(1.0)
    elif name.endswith("fc_qvec.bias"):
        tensor.zero_()
        tensor[3] = 1.0
    else:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
        is_dpt = name.startswith(("depth.", "points.")) and tensor.dim() == 4
        tensor.normal_(0.0, tensor[0].numel() ** -0.5 if is_dpt else 0.02, generator=generator)
        if leaf == "gamma" or (leaf == "weight" and "norm" in owner):
            tensor.add_(1.0)
