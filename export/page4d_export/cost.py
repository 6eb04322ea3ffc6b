"""What a stage costs: FLOP of a call (a multiply-add is two) and bytes of weights, from sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

from page4d.config import Fusion, MaskHeadKind, ModelConfig
from page4d.layout import Layout
from page4d.precision import Precision


@dataclass(frozen=True)
class Cost:
    """Cost formulas of a model at a layout and precision."""

    config: ModelConfig
    layout: Layout
    precision: Precision

    # ---- FLOP

    def block(self, queries: int, keys: int, context: int | None = None) -> int:
        """A block on one sequence of `queries` tokens that attend to `keys` keys; `context` tokens beside them are projected to keys."""
        width = self.config.width
        projected = queries if context is None else context
        linears = 2 * width * width * (queries + 2 * projected + queries + 8 * queries)
        return linears + self.scores(queries, keys)

    def scores(self, queries: int, keys: int) -> int:
        """Both products of attention, all heads."""
        return 4 * queries * keys * self.config.width

    def encoder(self, images: int) -> int:
        """The encoder on some images."""
        layout = self.layout
        patches = 2 * 3 * layout.PATCH**2 * self.config.width * layout.P
        return images * (patches + self.config.encoder_depth * self.block(layout.N, layout.N))

    def mask_head(self) -> int:
        """Mask head and fusion on the clip."""
        width, quarter = self.config.width, self.config.width // 4
        per_patch = 2 * (9 * width + 9 * width + width) if self.config.mask_head is MaskHeadKind.CHECKPOINT_150 else 2 * (9 * width + width * quarter + quarter)
        if self.config.fusion is Fusion.GATE:
            per_patch += 2 * (width * quarter + quarter * 2)
        return self.layout.images * self.layout.P * per_patch

    # ---- bytes of weights; norms and scalars stay float32

    def block_bytes(self, qk_norm: bool = True) -> int:
        """A block."""
        width = self.config.width
        return (12 * width * width + 11 * width) * self.precision.itemsize + (4 * width + (4 * self.config.head_dim if qk_norm else 0)) * 4

    def encoder_bytes(self) -> int:
        """The encoder, its positional embedding at this layout's grid."""
        width, layout = self.config.width, self.layout
        tokens = 1 + layout.REGISTERS + 1 + layout.P  # cls, registers, positions
        embedding = (3 * layout.PATCH**2 + 1 + tokens) * width * self.precision.itemsize
        return embedding + self.config.encoder_depth * self.block_bytes(qk_norm=False) + 2 * width * 4

    def mask_head_bytes(self) -> int:
        """Mask head and fusion."""
        width, quarter = self.config.width, self.config.width // 4
        numbers = 10 * width + (11 * width + 1 if self.config.mask_head is MaskHeadKind.CHECKPOINT_150 else width * quarter + 2 * quarter + 1)
        if self.config.fusion is Fusion.GATE:
            return (numbers + (width + 1) * quarter + (quarter + 1) * 2) * self.precision.itemsize
        return numbers * self.precision.itemsize + 2 * 4
