"""Whether a checkpoint is complete, by its tensors' names alone.

A complete one has the whole encoder, both blocks of every layer, and of each head all or nothing; of Pi3's and Pi3X's
heads all or none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from page4d.checkpoints.stored.stored_heads import foreign_to_heads, required_of_heads
from page4d.checkpoints.stored.stored_model import DA3_BACKBONE, MASK_HEAD, first_layer_block, stored_model
from page4d.checkpoints.stored.tensor_names import pairs
from page4d.config import MaskHeadKind, Published
from page4d.errors import UsageError

_NAMED = 3  # of many in a message


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
    model = stored_model(published, names)
    lacking = [name for name in _required(published, mask_head, names) if name not in names]
    if lacking:
        count = f", nor {len(lacking) - 1} others" if len(lacking) > 1 else ""
        holds = f"{model.depth(names)} layers and {model.encoder_depth(names)} encoder blocks"
        raise UsageError(
            f"{file} lacks {lacking[0]}: it is not the whole of a {described} checkpoint",
            got=f"no such tensor{count}; the file holds {holds}, or parts of them",
            allowed=("all blocks from 0 on and each head with all of their tensors; heads of Pi3 and Pi3X all or none"),
            hint="the index (*.index.json) of a checkpoint in several files; else download it again",
        )
    foreign = sorted((*model.foreign(names), *foreign_to_heads(published, names)))
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
    if published is Published.DA3:
        first = first_layer_block(names)
        if first % 2 or not first:
            raise UsageError(
                f"{file}: attention over all views begins at a block of another kind than in {described}",
                got=f"the first block with q_norm is {DA3_BACKBONE}blocks.{first}",
                allowed="a block of even number from 2 on",
            )


def _required(published: Published, mask_head: MaskHeadKind | None, names: Collection[str]) -> Iterator[str]:
    yield from stored_model(published, names).required(names)
    if published is Published.PAGE4D:
        for name in pairs(*(f"head0.{i}" for i in (0, 2, 4))):
            yield MASK_HEAD + name
        if mask_head is MaskHeadKind.CHECKPOINT_150:
            yield from (f"{MASK_HEAD}alpha_logit", f"{MASK_HEAD}tau_logit")
    yield from required_of_heads(published, names)
