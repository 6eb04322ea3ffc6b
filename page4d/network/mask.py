"""The dynamic mask: the head that predicts it, the fusion with an external mask, and the bias on keys that it gives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import Fusion, MaskHeadKind, ModelConfig
from page4d.layout import Layout
from page4d.network.block import island

LAMBDA_LIMIT = 4.0


class MaskLogit(nn.Module):
    """Tokens to a logit per patch, large where it is dynamic: what both generations of PAGE-4D's mask head have."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width

        def depthwise() -> nn.Conv2d:
            return nn.Conv2d(width, width, 3, padding=1, groups=width)

        self.kind = config.mask_head
        self.sign = 1.0  # -1 for published PAGE-4D weights, whose logit is large where static
        if self.kind is MaskHeadKind.CHECKPOINT_150:
            self.head0 = nn.Sequential(depthwise(), nn.GELU(), depthwise(), nn.GELU(), nn.Conv2d(width, 1, 1))
        else:
            self.head0 = nn.Sequential(
                depthwise(), nn.GELU(), nn.Conv2d(width, width // 4, 1), nn.GELU(), nn.Conv2d(width // 4, 1, 1)
            )

    def logit(self, patches: Tensor, layout: Layout) -> Tensor:
        """Patch tokens `[B,T,V,P,C]` -> the logit m `[B,T,V,P,1]`, in the island's dtype."""
        grid = patches.flatten(0, 2).transpose(1, 2).unflatten(2, (layout.h, layout.w))  # [n,C,h,w]
        if self.kind is MaskHeadKind.CHECKPOINT_150:
            logit = self.head0(grid)
        else:
            wide = island(grid)
            centred = wide - wide.mean((2, 3), keepdim=True)
            # unbiased; a grid of one patch has no spread and stays 0
            spread = (centred.square().sum((2, 3), keepdim=True) / max(layout.P - 1, 1)).sqrt()
            normal = centred / spread.clamp(min=1e-6)
            logit = island(self.head0(normal.to(grid.dtype))) + normal.mean(1, keepdim=True)
        return island(self.sign * logit.flatten(2).transpose(1, 2)).unflatten(0, patches.shape[:3])


class MaskHead(MaskLogit):
    """Probability per patch that it is dynamic, `M = sigmoid(alpha * m + beta * M_ext)`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.fusion = config.fusion
        if self.fusion is Fusion.SCALAR:
            self.alpha = nn.Parameter(torch.empty(()))
            self.beta = nn.Parameter(torch.empty(()))
        else:
            width = config.width
            self.gate = nn.Sequential(nn.Linear(width, width // 4), nn.GELU(), nn.Linear(width // 4, 2))

    def forward(self, tokens: Tensor, mask_ext: Tensor, layout: Layout) -> Tensor:
        """tokens `[1,B,T,V,N,C]`, mask_ext `[B,T,V,P,1]` in [0,1] -> M `[B,T,V,P,1]`, in the island's dtype."""
        patches = tokens[0, ..., layout.special :, :]  # [B,T,V,P,C]
        logit = self.logit(patches, layout)
        if self.fusion is Fusion.SCALAR:
            alpha, beta = island(self.alpha), island(self.beta)
        else:
            alpha, beta = island(self.gate(patches)).split(1, dim=-1)  # each [B,T,V,P,1]
        return torch.sigmoid(alpha * logit + beta * mask_ext.to(logit.dtype))


class RowMaskHead(MaskLogit):
    """PAGE-4D's own head: M, and the bias that special tokens put on patch keys, as in the checkpoint's generation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.sign = -1.0
        if self.kind is MaskHeadKind.CHECKPOINT_150:
            self.alpha_logit = nn.Parameter(torch.empty(()))
            self.tau_logit = nn.Parameter(torch.empty(()))

    def forward(self, tokens: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """tokens `[1,B,T,V,N,C]` -> M and the bias before its gain, `[B,T,V,P,1]` each, in the island's dtype."""
        logit = self.logit(tokens[0, ..., layout.special :, :], layout)
        dynamic = torch.sigmoid(logit)
        if self.kind is MaskHeadKind.CHECKPOINT_2026:
            return dynamic, 0.5 - dynamic
        strength = F.softplus(island(self.alpha_logit)) + 1e-6
        temperature = (F.softplus(island(self.tau_logit)) + 1e-6).clamp(min=1e-3)
        return dynamic, -0.5 * (strength * torch.sigmoid(logit / temperature)).clamp(0, 1)


def clamped(scalar: Tensor) -> Tensor:
    """A lambda as the forward pass uses it: in [-4, 4], in the island's dtype."""
    return island(scalar).clamp(-LAMBDA_LIMIT, LAMBDA_LIMIT)


def key_bias(patch_map: Tensor, pose: Tensor, geo: Tensor, layout: Layout) -> Tensor:
    """Bias per key and stream, zero on special tokens.

    Args:
        patch_map: M or K_ext `[B,T,V,P,1]`.
        pose, geo: the two streams' factors, scalars.
        layout: of the clip.

    Returns:
        `[S,B,T,V,N]`, pose then geo.
    """
    padded = on_keys(patch_map, layout)
    return torch.stack((pose, geo)).to(padded.dtype).reshape(2, 1, 1, 1, 1) * padded


def on_keys(patch_map: Tensor, layout: Layout) -> Tensor:
    """A patch map `[B,T,V,P,1]` for all tokens, zero on special ones: `[B,T,V,N]`."""
    return F.pad(patch_map.squeeze(-1), (layout.special, 0))
