"""Which checkpoints go with which network, decided from their tables of contents. No torch."""

from __future__ import annotations

import dataclasses

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.config import HEADS, ModelConfig, Published
from page4d.errors import UsageError


def check_kinds(pi3: Checkpoint | None, page4d: Checkpoint | None) -> None:
    """Check that each checkpoint was given as what it is.

    Raises:
        UsageError: none, or one in the other's place.
    """
    if pi3 is None and page4d is None:
        raise UsageError("no checkpoint was given", allowed="pi3=FILE, page4d=FILE, or both")
    for argument, checkpoint, of_pi3 in (("pi3", pi3, True), ("page4d", page4d, False)):
        if checkpoint is not None and (checkpoint.published is Published.PI3) != of_pi3:
            hint = f"give it as {'page4d' if of_pi3 else 'pi3'}"
            raise UsageError(
                f"{checkpoint.name} was given as {argument}, and is a {checkpoint.described} checkpoint",
                got=checkpoint.path,
                hint=hint,
            )


def check_model(config: ModelConfig, pi3: Checkpoint | None, page4d: Checkpoint | None) -> None:
    """Check that a network finds what it needs in its checkpoints.

    Raises:
        UsageError: one is missing, one too many, or one without the mask head that the network has.
    """
    if config.published is Published.PI3 and (pi3 is None or page4d is not None):
        raise UsageError(
            "the published pi3 takes its weights from a Pi3 checkpoint alone",
            got=_names(pi3, page4d),
            allowed="pi3=FILE",
        )
    if config.built_on_vggt and (page4d is None or pi3 is not None):
        raise UsageError(
            f"the published {config.published} takes its weights from one checkpoint alone",
            got=_names(pi3, page4d),
            allowed="page4d=FILE",
        )
    if config.published is None and pi3 is None:
        raise UsageError(
            "View-SA and Global-SA of this model take Pi3's weights, and no Pi3 checkpoint was given",
            got=_names(pi3, page4d),
            allowed="pi3=FILE, with or without page4d=FILE",
            hint="the preset page4d or vggt runs such a checkpoint alone, as published",
        )
    if config.row_mask is not None and page4d is not None and page4d.mask_head is None:
        raise UsageError(
            f"{page4d.name} has no mask head: it is a {page4d.described} checkpoint",
            got=page4d.path,
            hint="--mask off, or the preset vggt",
        )


def adapted(
    config: ModelConfig, pi3: Checkpoint | None, page4d: Checkpoint | None, heads_asked: bool = False
) -> ModelConfig:
    """A config with the checkpoints' structure: their mask head, and the heads that the file holds.

    Args:
        config: of the network that the weights are for.
        pi3, page4d: the checkpoints.
        heads_asked: whether somebody asked for exactly the config's heads. All heads of a model, unasked, stand for
            those that the file has; any other choice is always one that was made.

    Raises:
        UsageError: the file lacks a head that was asked for.
    """
    if page4d is not None and page4d.mask_head is not None:
        config = dataclasses.replace(config, mask_head=page4d.mask_head)
    source = pi3 if config.published is Published.PI3 else page4d if config.built_on_vggt else None
    if source is None or config.published is None or set(config.predictions) <= set(source.predictions):
        return config
    if heads_asked or config.predictions != HEADS[config.published]:
        source.require_heads(config.predictions)
    # layers that are kept for the heads alone go with them
    keep_layers = None if config.keep_layers == config.head_layers else config.keep_layers
    return dataclasses.replace(config, predictions=source.predictions, keep_layers=keep_layers)


def unused_heads(config: ModelConfig, pi3: Checkpoint | None, page4d: Checkpoint | None) -> tuple[str, ...]:
    """Why this project's own network takes no heads from its checkpoints, a note for each that has some."""
    if config.published is not None:
        return ()
    notes = []
    if pi3 is not None and pi3.predictions:
        notes.append(
            f"{pi3.name}: Pi3's heads are left unused. They read the last layer of Pi3: attention within each photo"
            " beside attention over all photos. This network's last layer attends over the views and then over time,"
            " so the heads would read other features than they were trained on. --preset pi3 has them, at one timestep"
        )
    if page4d is not None and page4d.predictions:
        notes.append(
            f"{page4d.name}: {page4d.described}'s heads are left unused. They read whole layers of {page4d.described},"
            " of which this network takes the blocks over time alone. --preset"
            f" {page4d.published} has them"
        )
    return tuple(notes)


def _names(*checkpoints: Checkpoint | None) -> str:
    return ", ".join(checkpoint.name for checkpoint in checkpoints if checkpoint is not None)
