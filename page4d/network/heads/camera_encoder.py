"""Depth Anything 3's camera encoder: known cameras to the special tokens of their images.

Structure after ByteDance-Seed/Depth-Anything-3 @ 2c21ea8; parameters are called as in its checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from page4d.config import CAMERA_BLOCKS, ModelConfig
from page4d.network.block import Block, LayerNorm, Mlp, island
from page4d.network.presence import attend_to
from page4d.published import QUATERNION_NUMBERS

_EPS = 1e-5
_HEADS = 16


class CameraEncoder(nn.Module):
    """The cameras of a clip, which attend to each other. Float32 or wider."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.pose_branch = Mlp(QUATERNION_NUMBERS, width // 2, width)
        self.token_norm = LayerNorm(width, eps=_EPS)
        self.trunk = nn.ModuleList(Block(width, _HEADS, _EPS, qk_eps=None) for _ in range(CAMERA_BLOCKS))
        self.trunk_norm = LayerNorm(width, eps=_EPS)

    def forward(self, poses: Tensor, present: Tensor | None = None) -> Tensor:
        """Cameras `[B,V,9]` as `page4d.network.known_cameras` encodes them, present `[B,V]` -> special tokens
        `[B,V,C]`."""
        x = self.token_norm(self.pose_branch(island(poses)))
        attend = attend_to(present, x)
        for block in self.trunk:
            x = block(x, attend=attend)
        out: Tensor = self.trunk_norm(x)
        return out
