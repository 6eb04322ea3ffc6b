"""Whether a checkpoint is complete, by its tensors' names alone.

A complete one has the whole encoder, both blocks of every layer, and of each head all or nothing; of Pi3's heads all
three or none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator

from page4d.checkpoints.stored_heads import foreign_to_heads, missing_heads, required_of_heads
from page4d.checkpoints.tensor_names import NORMED_BLOCK, SCALED_BLOCK, pairs
from page4d.config import PRESETS, MaskHeadKind, ModelConfig, Published
from page4d.errors import UsageError

MASK_HEAD = "aggregator.spatial_mask_head."
_NAMED = 3  # of many in a message
_ENCODER = ("cls_token", "pos_embed", "register_tokens", *pairs("patch_embed.proj", "norm"))


class Blocks:
    """Numbered blocks under some prefixes, as many under each: the encoder's, or both of every layer.

    Args:
        prefixes: in front of the numbers.
        leaves: tensors of a block.
        step: blocks of one prefix that make a layer.
    """

    def __init__(self, prefixes: tuple[str, ...], leaves: tuple[str, ...], step: int = 1) -> None:
        self.prefixes, self._leaves, self._step = prefixes, leaves, step
        # three digits: a name with more is no block, and would cost its number of blocks to build
        self._pattern = re.compile(rf"({'|'.join(map(re.escape, prefixes))})(\d{{1,3}})\.(.+)", re.DOTALL)

    def count(self, names: Collection[str]) -> int:
        """Layers: one more than the highest number under any prefix."""
        numbers = (int(match.group(2)) for name in names if (match := self._pattern.fullmatch(name)))
        return -(-(max(numbers, default=-1) + 1) // self._step)

    def required(self, names: Collection[str]) -> Iterator[str]:
        """All tensors of blocks 0 to the last, at least one layer's."""
        numbers = range(max(self.count(names), 1) * self._step)
        for number, prefix, leaf in itertools.product(numbers, self.prefixes, self._leaves):
            yield f"{prefix}{number}.{leaf}"

    def foreign(self, names: Collection[str]) -> Iterator[str]:
        """Tensors in blocks that these blocks do not have: adapters, scales of quantised weights."""
        known = frozenset(self._leaves)
        for name in names:
            if (match := self._pattern.fullmatch(name)) and match.group(3) not in known:
                yield name


_PI3 = Blocks(("encoder.blocks.",), SCALED_BLOCK), Blocks(("decoder.",), NORMED_BLOCK, step=2)
_VGGT = (
    Blocks(("aggregator.patch_embed.blocks.",), SCALED_BLOCK),
    Blocks(("aggregator.frame_blocks.", "aggregator.global_blocks."), NORMED_BLOCK),
)


def blocks_of(published: Published) -> tuple[Blocks, Blocks]:
    """The encoder's blocks and the layers' of a published model."""
    return _PI3 if published is Published.PI3 else _VGGT


def check_complete(
    file: str, described: str, published: Published, mask_head: MaskHeadKind | None, names: Collection[str]
) -> None:
    """Refuse a checkpoint that is only a part of a model, or more than a model.

    Args:
        file, described: its name, and the model's, as errors name them.
        published: the model that it belongs to.
        mask_head: the structure of PAGE-4D's mask head, None where it has none.
        names: of its tensors.

    Raises:
        UsageError: a tensor of the model is missing, or a block has tensors that the model's blocks do not have.
    """
    encoder, layers = blocks_of(published)
    lacking = [name for name in _required(published, mask_head, names) if name not in names]
    if lacking:
        count = f", nor {len(lacking) - 1} others" if len(lacking) > 1 else ""
        holds = f"{layers.count(names)} layers and {encoder.count(names)} encoder blocks"
        raise UsageError(
            f"{file} lacks {lacking[0]}: it is not the whole of a {described} checkpoint",
            got=f"no such tensor{count}; the file holds {holds}, or parts of them",
            allowed="all blocks from 0 on and each head with all of their tensors; Pi3's heads all three or none",
            hint="the index (*.index.json) of a checkpoint in several files; else download it again",
        )
    foreign = sorted(name for blocks in (encoder, layers) for name in blocks.foreign(names))
    foreign += sorted(foreign_to_heads(published, names))
    if foreign:
        adapters = (
            "adapters that are not merged into the weights"
            if any("lora" in name.lower() for name in foreign)
            else "tensors that no block or head of the model has"
        )
        raise UsageError(
            f"{file} holds {adapters}: {', '.join(name[:100] for name in foreign[:_NAMED])}",
            got=f"{len(foreign)} more tensors in its blocks and heads than {described} has",
            allowed=f"{described} as published, or weights trained further",
            hint=(
                "merge adapters into the weights (peft: merge_and_unload) and save the weights alone;"
                " quantised ones as float16 or bfloat16"
            ),
        )


def shortfalls(
    published: Published, width: int, depth: int, encoder_depth: int, names: Collection[str]
) -> Iterator[str]:
    """What a complete file lacks of the published model, as notes: no errors, since smaller models exist."""
    known, of_all = PRESETS[str(published)], "the file may be a part of it"
    if width == ModelConfig.width:
        if depth < known["depth"]:
            yield f"{depth} layers, and the published {published} of this width has {known['depth']}: {of_all}"
        if encoder_depth < ModelConfig.encoder_depth:
            yield (
                f"{encoder_depth} encoder blocks,"
                f" and the published {published} of this width has {ModelConfig.encoder_depth}: {of_all}"
            )
    yield from missing_heads(published, names)


def _required(published: Published, mask_head: MaskHeadKind | None, names: Collection[str]) -> Iterator[str]:
    encoder, layers = blocks_of(published)
    yield from (
        ("register_token",) if published is Published.PI3 else ("aggregator.camera_token", "aggregator.register_token")
    )
    for name in _ENCODER:
        yield encoder.prefixes[0].removesuffix("blocks.") + name
    yield from encoder.required(names)
    yield from layers.required(names)
    if published is Published.PAGE4D:
        for name in pairs(*(f"head0.{i}" for i in (0, 2, 4))):
            yield MASK_HEAD + name
        if mask_head is MaskHeadKind.CHECKPOINT_150:
            yield from (f"{MASK_HEAD}alpha_logit", f"{MASK_HEAD}tau_logit")
    yield from required_of_heads(published, names)
