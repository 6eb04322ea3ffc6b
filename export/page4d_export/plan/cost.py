"""What a stage costs: FLOP of a call (a multiply-add is two) and bytes of weights, from sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

from page4d.config import HEAD_BLOCKS, Fusion, MaskHeadKind, ModelConfig
from page4d.layout import Layout
from page4d.precision import Precision


@dataclass(frozen=True)
class Flop:
    """Floating-point operations; a multiply-add is two.

    Attributes:
        linears: of products with weights.
        attention: of both products of attention.
    """

    linears: int
    attention: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.linears + self.attention

    def __add__(self, other: Flop) -> Flop:
        return Flop(self.linears + other.linears, self.attention + other.attention)

    def __rmul__(self, count: int) -> Flop:
        return Flop(count * self.linears, count * self.attention)


@dataclass(frozen=True)
class Cost:
    """Cost formulas of a model at a layout and precision."""

    config: ModelConfig
    layout: Layout
    precision: Precision

    # ---- FLOP

    def block(self, queries: int, keys: int, context: int | None = None) -> Flop:
        """A block on one sequence of `queries` tokens that attend to `keys` keys.

        `context` tokens are projected to keys; None: the queries are.
        """
        width = self.config.width
        projected = queries if context is None else context
        linears = 2 * width * width * (queries + 2 * projected + queries + 8 * queries)
        return Flop(linears) + self.scores(queries, keys)

    def shared_projections(self, tokens: int) -> Flop:
        """q, k and v of so many tokens, negative: what a block saves for every stream that starts as another does."""
        return Flop(-6 * self.config.width**2 * tokens)

    def scores(self, queries: int, keys: int) -> Flop:
        """Both products of attention, all heads."""
        return Flop(0, attention=4 * queries * keys * self.config.width)

    def encoder(self, images: int) -> Flop:
        """The encoder on some images."""
        layout = self.layout
        patches = 2 * 3 * layout.PATCH**2 * self.config.width * layout.P
        return images * (Flop(patches) + self.config.encoder_depth * self.block(layout.N, layout.N))

    def mask_head(self) -> Flop:
        """Mask head and fusion on the clip."""
        width, quarter = self.config.width, self.config.width // 4
        per_patch = (
            2 * (9 * width + 9 * width + width)
            if self.config.mask_head is MaskHeadKind.CHECKPOINT_150
            else 2 * (9 * width + width * quarter + quarter)
        )
        if self.config.fusion is Fusion.GATE and self.config.row_mask is None:
            per_patch += 2 * (width * quarter + quarter * 2)
        return Flop(self.layout.images * self.layout.P * per_patch)

    def prediction(self, images: int, out: int, per_patch: int = 0, per_image: int = 0) -> Flop:
        """One of Pi3's heads on some images: its decoder to `out` channels, then multiply-adds per patch and per
        image."""
        width, layout = self.config.width, self.layout
        linears = 2 * layout.N * width * (2 * width + out) + 2 * (layout.P * per_patch + per_image)
        return images * (HEAD_BLOCKS * self.block(layout.N, layout.N) + Flop(linears))

    # ---- bytes of weights; norms and scalars stay float32. In 8 bits a linear layer has scales besides

    def linear_bytes(self, parameters: int, outputs: int) -> int:
        """Matrices of so many parameters with so many outputs, without the biases."""
        if self.precision is Precision.INT8:
            return parameters + 4 * outputs
        return parameters if self.precision is Precision.FP8 else parameters * self.precision.itemsize

    def block_bytes(self, qk_norm: bool = True, scaled: bool = True) -> int:
        """A block."""
        width = self.config.width
        biases = 11 if scaled else 9  # of the linear layers, and LayerScale
        return (
            self.linear_bytes(12 * width * width, 9 * width)
            + biases * width * self.precision.itemsize
            + (4 * width + (4 * self.config.head_dim if qk_norm else 0)) * 4
        )

    def prediction_bytes(self, out: int, head: int = 0) -> int:
        """One of Pi3's heads: its decoder to `out` channels, and a head of so many parameters."""
        width = self.config.width
        linears = (2 * width + 1) * width + (width + 1) * out + head
        return HEAD_BLOCKS * self.block_bytes(qk_norm=False, scaled=False) + linears * self.precision.itemsize

    def encoder_bytes(self) -> int:
        """The encoder, its positional embedding at this layout's grid."""
        width, layout = self.config.width, self.layout
        tokens = 1 + self.config.registers + 1 + layout.P  # cls, registers, positions
        embedding = (3 * layout.PATCH**2 + 1 + tokens) * width * self.precision.itemsize
        is_normed = self.config.traits is None or self.config.traits.encoder_norm
        norm = 2 * width * 4 if is_normed else 0
        return embedding + self.config.encoder_depth * self.block_bytes(qk_norm=False) + norm

    def mask_head_bytes(self) -> int:
        """Mask head and fusion."""
        width, quarter = self.config.width, self.config.width // 4
        parameters = 10 * width + (
            11 * width + 1
            if self.config.mask_head is MaskHeadKind.CHECKPOINT_150
            else width * quarter + 2 * quarter + 1
        )
        if self.config.row_mask is not None:
            return parameters * self.precision.itemsize + (
                2 * 4 if self.config.mask_head is MaskHeadKind.CHECKPOINT_150 else 0
            )
        if self.config.fusion is Fusion.GATE:
            return (parameters + (width + 1) * quarter + (quarter + 1) * 2) * self.precision.itemsize
        return parameters * self.precision.itemsize + 2 * 4
