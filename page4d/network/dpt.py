"""VGGT's depth and points heads: DPT, from the patch tokens of four layers to a map over all pixels.

Structure after facebookresearch/vggt @ 44b3afb; parameters are called as in its checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import Head, ModelConfig
from page4d.layout import Layout
from page4d.network.block import LayerNorm, island

_EPS = 1e-5
_OMEGA = 100.0  # the embedding's lowest frequency is 1/100
_RATIO = 0.1  # of the embedding


class DptHead(nn.Module):
    """Four maps at 4, 2, 1 and 1/2 times the patch grid, fused from the coarsest on, then resized to the image.

    Sizes follow the network's width C: C/4, C/2, C, C channels before the fusion, C/4 in it.
    """

    def __init__(self, config: ModelConfig, values: int) -> None:
        """Args: config: of the network. values: output channels, the last of which is the confidence."""
        super().__init__()
        width, features = config.width, config.width // 4
        channels = (width // 4, width // 2, width, width)
        unique = config.layers_of(Head.DEPTH)
        self.sources = [unique.index(layer) for layer in config.dpt_layers]
        self.norm = LayerNorm(2 * width, eps=_EPS)
        self.projects = nn.ModuleList(nn.Conv2d(2 * width, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            )
        )
        self.scratch = Scratch(channels, features, values)

    def forward(self, *pairs: Tensor, layout: Layout) -> Tensor:
        """The pairs `[..,N,2C]` of `config.layers_of(Head.DEPTH)` -> raw values `[..,H,W,values]` in the island's
        dtype. Images do not see each other."""
        tokens = [self.norm(pair.flatten(0, -3)[:, layout.special :]).to(pair.dtype) for pair in pairs]
        maps = [self._map(level, tokens[source], layout) for level, source in enumerate(self.sources)]
        x = self.scratch.fuse(maps)
        x = _resize(self.scratch.output_conv1(x), (layout.H, layout.W))
        x = self.scratch.output_conv2(add_places(x, layout))
        return island(x).movedim(1, -1).unflatten(0, pairs[0].shape[:-2])

    def _map(self, level: int, tokens: Tensor, layout: Layout) -> Tensor:
        """Tokens `[n,P,2C]` -> map number `level`, before the fusion."""
        project = self.projects[level]
        assert isinstance(project, nn.Conv2d)
        # a linear layer of the tokens: the same numbers, and the wider tokens are not transposed
        projected = F.linear(tokens, project.weight.flatten(1), project.bias)
        grid = projected.transpose(1, 2).unflatten(2, (layout.h, layout.w))
        resized: Tensor = self.resize_layers[level](add_places(grid, layout))
        return resized


class Scratch(nn.Module):
    """Fusion of the four maps and the output layers; the name is the checkpoint's."""

    def __init__(self, channels: tuple[int, int, int, int], features: int, values: int) -> None:
        super().__init__()
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(count, features, 3, padding=1, bias=False) for count in channels
        )
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(features) for _ in range(3))
        self.refinenet4 = Fusion(features, is_deepest=True)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        hidden = max(features // 8, 1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, values, 1)
        )

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Maps at 4, 2, 1 and 1/2 times the grid `[n,..]` -> `[n,C/4,8h,8w]`."""
        first, second, third, fourth = (
            layer(x)
            for layer, x in zip((self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn), maps, strict=True)
        )
        x = self.refinenet4(fourth, None, _size(third))
        x = self.refinenet3(x, third, _size(second))
        x = self.refinenet2(x, second, _size(first))
        rows, columns = _size(first)
        fused: Tensor = self.refinenet1(x, first, (2 * rows, 2 * columns))
        return fused


class Fusion(nn.Module):
    """A coarser map and one at this level -> a map at the next finer level."""

    def __init__(self, features: int, is_deepest: bool = False) -> None:
        super().__init__()
        if not is_deepest:
            self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, beside: Tensor | None, size: tuple[int, int]) -> Tensor:
        """x, beside `[n,F,..]` of one size -> `[n,F,*size]`."""
        if beside is not None:
            x = x + self.resConfUnit1(beside)
        fused: Tensor = self.out_conv(_resize(self.resConfUnit2(x), size))
        return fused


class ResidualUnit(nn.Module):
    """Two convolutions beside the identity of relu(x): the public code's first ReLU works in place."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x `[n,F,..]`."""
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class Depth(DptHead):
    """Depth z in the camera's frame, up to one scale for the clip, and its confidence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, values=2)

    def forward(self, *pairs: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Pairs as `DptHead` takes them -> depth `[..,H,W]` > 0, confidence `[..,H,W]` > 1."""
        depth, confidence = super().forward(*pairs, layout=layout).exp().unbind(-1)
        return depth, 1 + confidence


class WorldPoints(DptHead):
    """Every pixel's point in the world, and its confidence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, values=4)

    def forward(self, *pairs: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Pairs as `DptHead` takes them -> points `[..,H,W,3]`, confidence `[..,H,W]` > 1."""
        raw, confidence = super().forward(*pairs, layout=layout).split((3, 1), dim=-1)
        # sign(x) expm1(|x|) in a form that loses no digits near 0 where a runtime computes expm1 as exp(x) - 1
        points = (raw / 2).tanh() * (1 + raw.abs().exp())
        return points, 1 + confidence.squeeze(-1).exp()


def add_places(x: Tensor, layout: Layout) -> Tensor:
    """x `[n,D,rows,columns]`, with the embedding of every place on the image added.

    The first half of the channels depends on the column alone, the second on the row alone.
    """
    columns, rows = place_embeddings(x.shape[1], x.shape[2], x.shape[3], layout.W / layout.H)
    return x + columns.to(x) + rows.to(x)


def place_embeddings(D: int, rows: int, columns: int, aspect: float) -> tuple[Tensor, Tensor]:
    """The embedding of a grid as two parts to be added, float32 `[D,1,columns]` and `[D,rows,1]`.

    Sines, then cosines, of D/4 frequencies each: of x in the first half of the channels, of y in the second. x and y
    run over the image, whose half diagonal is 1; `aspect` is its width over its height.
    """
    diagonal = math.hypot(aspect, 1.0)
    parts = []
    for half, (count, side) in enumerate(((columns, aspect / diagonal), (rows, 1.0 / diagonal))):
        end = side * (count - 1) / count
        places = torch.linspace(-end, end, count, dtype=torch.float64)
        angles = _OMEGA ** (-torch.arange(D // 4, dtype=torch.float64) / (D / 4))[:, None] * places
        waves = torch.cat((angles.sin(), angles.cos())).float() * _RATIO  # [D/2,count]
        nothing = torch.zeros_like(waves)
        parts.append(torch.cat((nothing, waves) if half else (waves, nothing)))
    return parts[0][:, None, :], parts[1][:, :, None]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear; the outer pixels' centres are the outer pixels' centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _size(x: Tensor) -> tuple[int, int]:
    """Rows and columns of a map."""
    return x.shape[-2], x.shape[-1]
