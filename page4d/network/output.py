"""`Output`: what the network gives for a clip."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from page4d.manifest import OF_IMAGES
from page4d.network.poses import world_points
from page4d.published import PointsFrame


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
        metric: metres per unit of the network `[]`, by which points and positions of cameras are multiplied (Pi3X).
        sky: `[T,V,H,W]`, 0 or more: a pixel is sky from 0.3 on (Depth Anything 3 MONO and METRIC).
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
    metric: Tensor | None = None
    sky: Tensor | None = None
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

    def of_present(self, present: Tensor | None) -> Output:
        """The same with NaN for the images that are not there, by bool `[B,T,V]`, in all but kept layers and memory."""
        if present is None:
            return self
        images: dict[str, Any] = {}
        for name in OF_IMAGES:
            values: Tensor | None = getattr(self, name)
            if values is not None:
                images[name] = values.masked_fill(
                    ~present.reshape(*present.shape, *(1,) * (values.dim() - 3)), torch.nan
                )
        return dataclasses.replace(self, **images)

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
