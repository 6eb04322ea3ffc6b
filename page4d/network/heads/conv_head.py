"""Pi3X's pixel heads: patch tokens to a map of all pixels by transposed convolutions and residual blocks.

Structure after yyfz/Pi3 @ fc6cf1f; parameters are called as in its checkpoint.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import ModelConfig
from page4d.layout import Layout
from page4d.network.block import island
from page4d.network.heads.places import places

_EPS = 1e-5
_DOUBLINGS = 3  # of the patch grid; the rest of the way is a resize


class ConvHead(nn.Module):
    """Doubles the patch grid three times, resizes it to the image, and gives some channels by each output block."""

    def __init__(self, config: ModelConfig, outputs: tuple[int, ...]) -> None:
        """Args: config: of the network. outputs: channels of each output block."""
        super().__init__()
        widths = (config.width, *(max(config.width // 4 >> step, 1) for step in range(_DOUBLINGS)))
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(nn.ConvTranspose2d(before + 2, after, 2, stride=2), _conv(after, after)),
                ResidualConv(after),
                ResidualConv(after),
            )
            for before, after in itertools.pairwise(widths)
        )
        hidden = max(config.width // 32, 1)
        self.output_block = nn.ModuleList(
            nn.Sequential(_conv(widths[-1] + 2, hidden), nn.ReLU(), nn.Conv2d(hidden, count, 1)) for count in outputs
        )

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """tokens `[n,N,C]` -> `[n,H,W,channels]` in the island's dtype, the output blocks' side by side."""
        x = tokens[:, layout.special :].transpose(1, 2).unflatten(2, (layout.h, layout.w))
        for block in self.upsample_blocks:
            x = block(_with_places(x, layout))
        x = _resized(_resized(x, -2, layout.H), -1, layout.W)
        x = _with_places(x, layout)
        return island(torch.cat([block(x) for block in self.output_block], dim=1)).movedim(1, -1)


class ResidualConv(nn.Module):
    """Norm, ReLU, convolution, twice, beside the identity; twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = max(2 * width // 32, 1)
        self.layers = nn.Sequential(
            GroupNorm(1, width),
            nn.ReLU(),
            _conv(width, 2 * width),
            GroupNorm(groups, 2 * width),
            nn.ReLU(),
            _conv(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x `[n,F,..]`."""
        out: Tensor = x + self.layers(x)
        return out


class GroupNorm(nn.GroupNorm):
    """GroupNorm computed in the island's dtype, since it sums over whole maps."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x `[n,F,..]`, in its dtype."""
        wide = F.group_norm(island(x), self.num_groups, island(self.weight), island(self.bias), self.eps)
        return wide.to(x.dtype)


def _conv(before: int, after: int) -> nn.Conv2d:
    """3x3, the border repeated."""
    return nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate")


def _resized(x: Tensor, axis: int, count: int) -> Tensor:
    """Linear along an axis to `count` places, as `interpolate(align_corners=False)`.

    That computes places in float32, and at hundreds of pixels errs by 1e-5 of one: by more than engines may differ.
    """
    before = x.shape[axis]
    at = ((torch.arange(count, dtype=torch.float64) + 0.5) * before / count - 0.5).clamp(0, before - 1)
    low = at.long()
    high = (low + 1).clamp(max=before - 1)
    share = (at - low).to(x).unflatten(0, (count,) + (1,) * (-1 - axis))
    near, far = (x.index_select(axis, index.to(x.device)) for index in (low, high))
    return near + (far - near) * share


def _with_places(x: Tensor, layout: Layout) -> Tensor:
    """x `[n,F,rows,columns]` and two channels: every place's x and y on the image."""
    rows, columns = x.shape[-2:]
    across, down = (values.to(x) for values in places(rows, columns, layout.W / layout.H))
    grid = torch.stack((across.expand(rows, -1), down[:, None].expand(-1, columns)))
    return torch.cat((x, grid.expand(x.shape[0], -1, -1, -1)), dim=1)
