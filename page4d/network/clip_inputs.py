"""`ClipInputs`: what the network is called with, checked, in the shapes that it computes with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from page4d.cameras import Camera, cameras_from_mapping, fundamental
from page4d.config import ModelConfig
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.network.known_cameras import KnownCameras


@dataclass(frozen=True)
class ClipInputs:
    """A clip with the axis B, on the model's device.

    Attributes:
        images: uint8 `[B*T*V,H,W,3]`.
        mask_ext, keypoints: `[B,T,V,P,1]` in the model's dtype; keypoints may be None.
        lines: fundamental matrices `[V,V,3,3]` of the epipolar prior, or None.
        memory: `[S,B,M,C]`, or None where the model has no memory.
        rig: the images' cameras, where the model takes them.
        present: bool `[B,T,V]`, which images are there; None: all.
        is_batched: whether the caller's images have the axis B.
    """

    layout: Layout
    images: Tensor
    mask_ext: Tensor
    keypoints: Tensor | None
    lines: Tensor | None
    memory: Tensor | None
    rig: KnownCameras | None
    present: Tensor | None
    is_batched: bool

    @classmethod
    def checked(
        cls,
        config: ModelConfig,
        weight: Tensor,
        images: Tensor | NDArray[np.uint8],
        mask_ext: Tensor | None,
        keypoints: Tensor | None,
        cameras: Mapping[str, Any] | None,
        memory: Tensor | None,
        present: Tensor | NDArray[np.bool_ | np.uint8] | None,
        learned_memory: Tensor | None,
    ) -> ClipInputs:
        """The arguments of `Page4D.forward`.

        Args:
            config: of the model.
            weight: one of its weights, whose device and dtype decide.
            images, mask_ext, keypoints, cameras, memory, present: as the caller gave them.
            learned_memory: `[M,C]`, which memory starts from.

        Raises:
            UsageError: as `Page4D.forward`.
        """
        images = torch.as_tensor(images, device=weight.device)
        if images.dtype != torch.uint8 or images.dim() not in (5, 6) or images.shape[-1] != 3:
            raise UsageError(
                "images have the wrong form",
                got=f"{images.dtype} {list(images.shape)}",
                allowed="uint8 [T,V,H,W,3] or [B,T,V,H,W,3]",
            )
        is_batched = images.dim() == 6
        B, T, V, H, W, _ = images.shape if is_batched else (1, *images.shape)
        layout = config.settled(Layout(T, V, H, W, B))
        if mask_ext is not None and not config.takes_mask:
            raise UsageError(
                f"the published model {config.published} takes no external mask",
                got="mask_ext",
                allowed="no mask_ext",
            )
        lines = None
        if config.epipolar:
            wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
            lines = torch.from_numpy(fundamental(_rig(cameras, layout, "the epipolar prior"))).to(weight.device, wide)
        known = _rig(cameras, layout, "a model with known cameras") if config.known_cameras else None
        return cls(
            layout=layout,
            images=images.reshape(layout.images, H, W, 3),
            mask_ext=_patch_map("mask_ext", mask_ext, layout, weight),
            keypoints=None if keypoints is None else _patch_map("keypoints", keypoints, layout, weight),
            lines=lines,
            memory=None if learned_memory is None else _memory(memory, learned_memory, layout, config.streams),
            rig=None if known is None else KnownCameras.of(known),
            present=None if present is None else _present(present, layout, weight.device),
            is_batched=is_batched,
        )


def _patch_map(name: str, values: Tensor | None, layout: Layout, weight: Tensor) -> Tensor:
    """Values per patch `[B,T,V,P,1]`; None gives zeros."""
    shape = (layout.B, layout.T, layout.V, layout.P, 1)
    if values is None:
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    values = torch.as_tensor(values, device=weight.device)
    if values.shape not in (shape, shape[1:]) or (layout.B > 1 and values.shape != shape):
        raise UsageError(f"{name} has the wrong shape", got=list(values.shape), allowed=list(layout.patch_map_shape))
    return values.reshape(shape).to(weight.dtype)


def _present(values: Tensor | NDArray[np.bool_ | np.uint8], layout: Layout, device: torch.device) -> Tensor:
    """Which images are there, bool `[B,T,V]`: at least one of each clip."""
    shape = (layout.B, layout.T, layout.V)
    present = torch.as_tensor(values, device=device)
    if present.shape not in (shape, shape[1:]) or (layout.B > 1 and present.shape != shape):
        allowed = list(layout.image_map_shape)
        raise UsageError("present has the wrong shape", got=list(present.shape), allowed=allowed)
    if present.dtype not in (torch.bool, torch.uint8) or bool((present > 1).any()):
        raise UsageError(
            "present does not say of each image whether it is there",
            got=present.dtype,
            allowed="bool, or uint8 0 and 1",
        )
    present = present.reshape(shape).bool()
    if not bool(present.flatten(1).any(1).all()):
        raise UsageError("no image of a clip is there", got="present all 0", allowed="at least one image in each clip")
    return present


def _rig(cameras: Mapping[str, Any] | None, layout: Layout, what: str) -> list[Camera]:
    """The views' cameras, which `what` needs."""
    if cameras is None or len(cameras) != layout.V:
        raise UsageError(
            f"{what} needs the calibration of every view",
            got="no cameras" if cameras is None else f"{len(cameras)} cameras",
            allowed=f"{layout.V}, in the order of the views",
        )
    return list(cameras_from_mapping(cameras).values())


def _memory(memory: Tensor | None, learned: Tensor, layout: Layout, streams: int) -> Tensor:
    """Memory `[S,B,M,C]`: the caller's, or the learned one."""
    shape = (streams, layout.B, *learned.shape)
    if memory is None:
        return learned.expand(shape)
    if memory.numel() != math.prod(shape) or memory.shape[-2:] != shape[-2:]:
        allowed = layout.memory_shape(streams, *learned.shape)
        raise UsageError("memory has the wrong shape", got=list(memory.shape), allowed=list(allowed))
    return memory.reshape(shape).to(learned.dtype)
