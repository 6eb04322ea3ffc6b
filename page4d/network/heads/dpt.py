"""DPT heads for depth and points: from the patch tokens of four layers to a map over all pixels.

Structure after facebookresearch/vggt @ 44b3afb and ByteDance-Seed/Depth-Anything-3 @ 2c21ea8; parameters are called as
in their checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import Head, ModelConfig
from page4d.layout import Layout
from page4d.network.block import LayerNorm, island
from page4d.network.heads.places import places
from page4d.published import Dpt, DptSizes, FinalNorm, Waves

_EPS = 1e-5
_OMEGA = 100.0  # the embedding's lowest frequency is 1/100
_RATIO = 0.1  # of the embedding


class DptHead(nn.Module):
    """Four maps at 4, 2, 1 and 1/2 times the patch grid, fused from the coarsest on, then resized to the image."""

    def __init__(self, config: ModelConfig, values: int) -> None:
        """A head of `config`'s network that gives so many values per pixel."""
        super().__init__()
        width, form, sizes = config.width, config.dpt, config.dpt_sizes
        channels = sizes.channels
        unique = config.layers_of(Head.DEPTH)
        self.sources = [unique.index(layer) for layer in config.dpt_layers]
        self.waves, self.is_pair = form.waves, form.final_norm is not FinalNorm.ALL
        read = 2 * width if self.is_pair else width
        self.final_norm = None if form.final_norm is FinalNorm.NOTHING else LayerNorm(width, eps=_EPS)
        self.norm = LayerNorm(read, eps=_EPS) if form.has_norm else None
        self.projects = nn.ModuleList(nn.Conv2d(read, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            )
        )
        self.scratch = Scratch(form, sizes, values)

    def forward(self, *pairs: Tensor, layout: Layout) -> Tensor:
        """The pairs `[..,N,2C]` of `config.layers_of(Head.DEPTH)` -> raw values `[..,H,W,values]` in the island's
        dtype. Images do not see each other."""
        x = self.scratch.output_conv2(self._fused([pair[..., layout.special :, :] for pair in pairs], layout))
        return island(x).movedim(1, -1).unflatten(0, pairs[0].shape[:-2])

    def _fused(self, layers: Sequence[Tensor], layout: Layout) -> Tensor:
        """Patch tokens `[..,P,2C]` of the layers -> the map in front of the output `[n,F/2,H,W]`."""
        tokens = [self._normed(layer.flatten(0, -3)) for layer in layers]
        maps = [self._map(level, tokens[source], layout) for level, source in enumerate(self.sources)]
        x = _resize(self.scratch.output_conv1(self.scratch.fuse(maps)), (layout.H, layout.W))
        return add_places(x, layout, self.waves)

    def _normed(self, tokens: Tensor) -> Tensor:
        """Tokens `[n,P,2C]` after the network's final norm, as far as it applies, and the head's own."""
        wide = tokens
        if self.final_norm is not None and self.is_pair:
            first, second = tokens.chunk(2, dim=-1)
            wide = torch.cat((island(first), self.final_norm(second)), dim=-1)
        elif self.final_norm is not None:
            wide = self.final_norm(tokens)
        return (wide if self.norm is None else self.norm(wide)).to(tokens.dtype)

    def _map(self, level: int, tokens: Tensor, layout: Layout) -> Tensor:
        """Tokens `[n,P,2C]` -> map number `level`, before the fusion."""
        project = self.projects[level]
        assert isinstance(project, nn.Conv2d)
        # a linear layer of the tokens: the same numbers, and the wider tokens are not transposed
        projected = F.linear(tokens, project.weight.flatten(1), project.bias)
        grid = projected.transpose(1, 2).unflatten(2, (layout.h, layout.w))
        resized: Tensor = self.resize_layers[level](add_places(grid, layout, self.waves))
        return resized


class Scratch(nn.Module):
    """Fusion of the four maps and the output layers; the name is the checkpoint's."""

    def __init__(self, form: Dpt, sizes: DptSizes, values: int) -> None:
        super().__init__()
        features, keeps_sign = sizes.features, form.keeps_sign
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(count, features, 3, padding=1, bias=False) for count in sizes.channels
        )
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(features, keeps_sign) for _ in range(3))
        self.refinenet4 = Fusion(features, keeps_sign, is_deepest=True)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = _output(features // 2, sizes.hidden, values)
        self.sky_output_conv2 = _output(features // 2, sizes.hidden, 1) if form.has_sky else None

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Maps at 4, 2, 1 and 1/2 times the grid `[n,..]` -> `[n,F,8h,8w]`."""
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

    def __init__(self, features: int, keeps_sign: bool, is_deepest: bool = False) -> None:
        super().__init__()
        if not is_deepest:
            self.resConfUnit1 = ResidualUnit(features, keeps_sign)
        self.resConfUnit2 = ResidualUnit(features, keeps_sign)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, beside: Tensor | None, size: tuple[int, int]) -> Tensor:
        """x, beside `[n,F,..]` of one size -> `[n,F,*size]`."""
        if beside is not None:
            x = x + self.resConfUnit1(beside)
        fused: Tensor = self.out_conv(_resize(self.resConfUnit2(x), size))
        return fused


class ResidualUnit(nn.Module):
    """Two convolutions beside the identity: of x, or of relu(x), where the public code's first ReLU works in place."""

    def __init__(self, features: int, keeps_sign: bool) -> None:
        super().__init__()
        self.keeps_sign = keeps_sign
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x `[n,F,..]`."""
        positive = F.relu(x)
        return (x if self.keeps_sign else positive) + self.conv2(F.relu(self.conv1(positive)))


class Depth(DptHead):
    """Depth z in the camera's frame, up to one scale for the clip, and its confidence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, values=2)

    def forward(self, *pairs: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Pairs as `DptHead` takes them -> depth `[..,H,W]` > 0, confidence `[..,H,W]` > 1."""
        depth, confidence = super().forward(*pairs, layout=layout).exp().unbind(-1)
        return depth, 1 + confidence


class DepthAndSky(DptHead):
    """Depth z in the camera's frame, in the model's own unit, and how much a pixel is sky."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, values=1)

    def forward(self, *features: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Patch tokens `[..,P,C]` of the encoder's four blocks -> depth `[..,H,W]` > 0, sky `[..,H,W]` >= 0."""
        x = self._fused(features, layout)
        assert self.scratch.sky_output_conv2 is not None
        depth, sky = self.scratch.output_conv2(x), self.scratch.sky_output_conv2(x)
        lead = features[0].shape[:-2]
        return island(depth).exp().squeeze(1).unflatten(0, lead), F.relu(island(sky)).squeeze(1).unflatten(0, lead)


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


def add_places(x: Tensor, layout: Layout, waves: Waves) -> Tensor:
    """x `[n,D,rows,columns]`, with the embedding of every place on the image added, if there is one.

    The first half of the channels depends on the column alone, the second on the row alone.
    """
    if waves is Waves.NONE:
        return x
    columns, rows = place_embeddings(x.shape[1], x.shape[2], x.shape[3], layout.W / layout.H, waves)
    return x + columns.to(x) + rows.to(x)


def place_embeddings(
    D: int, rows: int, columns: int, aspect: float, waves: Waves = Waves.FLOAT64
) -> tuple[Tensor, Tensor]:
    """The embedding of a grid as two parts to be added, float32 `[D,1,columns]` and `[D,rows,1]`.

    Sines, then cosines, of D/4 frequencies each: of x in the first half of the channels, of y in the second (`places`).
    """
    dtype = torch.float32 if waves is Waves.FLOAT32 else torch.float64
    omega = 1.0 / _OMEGA ** (torch.arange(D // 4, dtype=dtype) / (D / 4))
    parts = []
    for half, along in enumerate(places(rows, columns, aspect)):
        angles = omega.double()[:, None] * along
        values = torch.cat((angles.sin(), angles.cos())).float() * _RATIO  # [D/2,count]
        nothing = torch.zeros_like(values)
        parts.append(torch.cat((nothing, values) if half else (values, nothing)))
    return parts[0][:, None, :], parts[1][:, :, None]


def _output(before: int, hidden: int, values: int) -> nn.Sequential:
    """The layers in front of the result."""
    return nn.Sequential(nn.Conv2d(before, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, values, 1))


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear; the corner pixels keep their values (align_corners)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _size(x: Tensor) -> tuple[int, int]:
    """Rows and columns of a map."""
    return x.shape[-2], x.shape[-1]
