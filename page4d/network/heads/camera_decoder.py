"""Depth Anything 3's camera head: an MLP on the camera token of every image.

Structure after ByteDance-Seed/Depth-Anything-3 @ 2c21ea8; parameters are called as in its checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from page4d.config import ModelConfig
from page4d.layout import Layout
from page4d.network.block import island


class CameraDecoder(nn.Module):
    """Pose and field of view of every image alone. Float32 or wider."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = 2 * config.width
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_qvec = nn.Linear(width, 4)
        self.fc_fov = nn.Sequential(nn.Linear(width, 2), nn.ReLU())

    def forward(self, pair: Tensor, layout: Layout) -> Tensor:
        """The last layer's pair `[B,T,V,N,2C]` -> `[B,T,V,9]`: translation, quaternion, fields of view >= 0."""
        x = self.backbone(island(pair[..., 0, :]))
        return torch.cat((self.fc_t(x), self.fc_qvec(x), self.fc_fov(x)), dim=-1)
