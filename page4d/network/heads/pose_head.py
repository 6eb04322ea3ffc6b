"""VGGT's camera head: pose and field of view of every image, in four refinements.

Structure after facebookresearch/vggt @ 44b3afb; parameters are called as in its checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import CAMERA_BLOCKS, ModelConfig
from page4d.layout import Layout
from page4d.network.block import Attend, Block, LayerNorm, Mlp, island
from page4d.network.presence import attend_to
from page4d.published import QUATERNION_NUMBERS

REFINEMENTS = 4
_EPS = 1e-5
_FREE_EPS = 1e-6  # of the norm without weights


class PoseHead(nn.Module):
    """Camera tokens of a clip's images, which attend to each other; twice the network's width. Float32 or wider."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = 2 * config.width
        self.empty_pose_tokens = nn.Parameter(torch.empty(1, 1, QUATERNION_NUMBERS))
        self.embed_pose = nn.Linear(QUATERNION_NUMBERS, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.token_norm = LayerNorm(width, eps=_EPS)
        self.trunk = nn.ModuleList(Block(width, config.heads, _EPS, qk_eps=None) for _ in range(CAMERA_BLOCKS))
        self.trunk_norm = LayerNorm(width, eps=_EPS)
        self.pose_branch = Mlp(width, config.width, QUATERNION_NUMBERS)

    def forward(self, pair: Tensor, layout: Layout, present: Tensor | None = None) -> Tensor:
        """The last layer's pair `[B,T,V,N,2C]`, present `[B,T,V]` -> `[B,T,V,9]`: translation, quaternion, fields of
        view >= 0."""
        tokens = self.token_norm(island(pair[..., 0, :]).flatten(1, 2))  # [B,T*V,2C]
        attend = attend_to(present, tokens)
        raw = self.empty_pose_tokens.expand(*tokens.shape[:2], -1)
        for refinement in range(REFINEMENTS):
            change = self._change(tokens, raw, attend)
            raw = raw + change if refinement else change
        pose, fields_of_view = raw.split((7, 2), dim=-1)
        return torch.cat((pose, F.relu(fields_of_view)), dim=-1).unflatten(1, pair.shape[1:3])

    def _change(self, tokens: Tensor, raw: Tensor, attend: Attend) -> Tensor:
        """Normed tokens `[B,T*V,2C]` and the values so far `[B,T*V,9]` -> what is added to these."""
        shift, scale, gate = self.poseLN_modulation(self.embed_pose(raw)).chunk(3, dim=-1)
        free = F.layer_norm(tokens, tokens.shape[-1:], eps=_FREE_EPS)
        x = tokens + gate * (free * (1 + scale) + shift)
        for block in self.trunk:
            x = block(x, attend=attend)
        change: Tensor = self.pose_branch(self.trunk_norm(x))
        return change
