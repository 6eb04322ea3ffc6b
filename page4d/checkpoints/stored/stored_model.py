"""The encoder, the layers and the special tokens of published models as checkpoints hold them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from page4d.checkpoints.stored.tensor_names import NORMED_BLOCK, SCALED_BLOCK, pairs
from page4d.config import Published
from page4d.published import TRAITS

MASK_HEAD = "aggregator.spatial_mask_head."
DA3_BACKBONE = "backbone.pretrained."
"""In front of the tensors of Depth Anything 3's encoder and layers."""
DA3_TOKEN = f"{DA3_BACKBONE}camera_token"
_EVERY_NUMBER = 1000  # three digits: a name with more is no block, and would cost its number of blocks to build


class Blocks:
    """Numbered blocks under some prefixes, as many under each: the encoder's, or both of every layer.

    Args:
        prefixes: in front of the numbers.
        leaves: tensors of a block.
        step: blocks of one prefix that make a layer.
        first, stop: the numbers that blocks of this kind have begin here, and end before.
    """

    def __init__(
        self,
        prefixes: tuple[str, ...],
        leaves: tuple[str, ...],
        step: int = 1,
        first: int = 0,
        stop: int = _EVERY_NUMBER,
    ) -> None:
        self._prefixes, self._leaves, self._step = prefixes, leaves, step
        self._numbers = range(first, stop)
        self._pattern = re.compile(rf"({'|'.join(map(re.escape, prefixes))})(\d{{1,3}})\.(.+)", re.DOTALL)

    def has(self, name: str) -> bool:
        """Whether a tensor is in one of these blocks."""
        return self._match(name) is not None

    def count(self, names: Collection[str]) -> int:
        """Layers: one more than the highest number under any prefix."""
        numbers = (int(match.group(2)) for name in names if (match := self._match(name)))
        first = self._numbers.start
        return -(-(max(numbers, default=first - 1) + 1 - first) // self._step)

    def required(self, names: Collection[str]) -> Iterator[str]:
        """All tensors of blocks 0 to the last, at least one layer's."""
        first = self._numbers.start
        numbers = range(first, first + max(self.count(names), 1) * self._step)
        for number, prefix, leaf in itertools.product(numbers, self._prefixes, self._leaves):
            yield f"{prefix}{number}.{leaf}"

    def foreign(self, names: Collection[str]) -> Iterator[str]:
        """Tensors in blocks that these blocks do not have: adapters, scales of quantised weights."""
        known = frozenset(self._leaves)
        for name in names:
            if (match := self._match(name)) and match.group(3) not in known:
                yield name

    def _match(self, name: str) -> re.Match[str] | None:
        match = self._pattern.fullmatch(name)
        return match if match and int(match.group(2)) in self._numbers else None


@dataclass(frozen=True)
class StoredModel:
    """A model in a file, without its heads.

    Attributes:
        encoder: in front of the names of the encoder's tensors.
        beside_blocks: names of the encoder's tensors outside its blocks.
        special: names of the special tokens.
        encoder_blocks: the encoder's blocks.
        layers: both blocks of every layer; None of a model that is an encoder alone.
    """

    encoder: str
    beside_blocks: tuple[str, ...]
    special: tuple[str, ...]
    encoder_blocks: Blocks
    layers: Blocks | None

    def encoder_depth(self, names: Collection[str]) -> int:
        """Blocks of the encoder, by the names of a file's tensors."""
        return self.encoder_blocks.count(names)

    def depth(self, names: Collection[str]) -> int:
        """Layers of two blocks each, by the names of a file's tensors."""
        return 0 if self.layers is None else self.layers.count(names)

    def required(self, names: Collection[str]) -> Iterator[str]:
        """All tensors that a file of these names must have."""
        yield from self.special
        yield from self.beside_blocks
        yield from self.encoder_blocks.required(names)
        if self.layers is not None:
            yield from self.layers.required(names)

    def foreign(self, names: Collection[str]) -> Iterator[str]:
        """Tensors in blocks that the model's blocks do not have."""
        yield from self.encoder_blocks.foreign(names)
        if self.layers is not None:
            yield from self.layers.foreign(names)


def stored_model(published: Published, names: Collection[str]) -> StoredModel:
    """How a published model lies in a file.

    Args:
        published: the model.
        names: of the file's tensors: of Depth Anything 3 they tell where the encoder ends.
    """
    if published in (Published.PI3, Published.PI3X):
        return _model(published, "encoder.", ("register_token",), Blocks(("decoder.",), NORMED_BLOCK, step=2))
    if published in (Published.VGGT, Published.PAGE4D):
        layers = Blocks(("aggregator.frame_blocks.", "aggregator.global_blocks."), NORMED_BLOCK)
        special = ("aggregator.camera_token", "aggregator.register_token")
        return _model(published, "aggregator.patch_embed.", special, layers)
    if TRAITS[published].sees_alone:
        return _model(published, DA3_BACKBONE, (), None)
    blocks, first = f"{DA3_BACKBONE}blocks.", first_layer_block(names)
    layers = Blocks((blocks,), NORMED_BLOCK, step=2, first=first)
    return _model(published, DA3_BACKBONE, (DA3_TOKEN,), layers, stop=first)


def first_layer_block(names: Collection[str]) -> int:
    """The number of the first block of Depth Anything 3 that is not the encoder's: it has a LayerNorm over q."""
    pattern = re.compile(rf"{re.escape(DA3_BACKBONE)}blocks\.(\d{{1,3}})\.attn\.q_norm\.weight")
    numbers = [int(match.group(1)) for name in names if (match := pattern.fullmatch(name))]
    encoder = Blocks((f"{DA3_BACKBONE}blocks.",), SCALED_BLOCK)
    return min(numbers, default=encoder.count(names))


def _model(
    published: Published, encoder: str, special: tuple[str, ...], layers: Blocks | None, stop: int = _EVERY_NUMBER
) -> StoredModel:
    leaves = ("cls_token", "pos_embed", *pairs("patch_embed.proj", "norm"))
    if TRAITS[published].registers:
        leaves += ("register_tokens",)
    return StoredModel(
        encoder=encoder,
        beside_blocks=tuple(encoder + leaf for leaf in leaves),
        special=special,
        encoder_blocks=Blocks((f"{encoder}blocks.",), SCALED_BLOCK, stop=stop),
        layers=layers,
    )
