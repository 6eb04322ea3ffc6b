"""Which checkpoints go with which network, decided from their tables of contents. No torch."""

from __future__ import annotations

import dataclasses

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.config import ModelConfig, Published
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


def adapted(config: ModelConfig, pi3: Checkpoint | None, page4d: Checkpoint | None) -> ModelConfig:
    """A config with the checkpoints' structure: their mask head, and Pi3's heads only where the file holds them."""
    if page4d is not None and page4d.mask_head is not None:
        config = dataclasses.replace(config, mask_head=page4d.mask_head)
    if config.predictions and pi3 is not None and not pi3.predictions:
        config = dataclasses.replace(config, predictions=())
    return config


def _names(*checkpoints: Checkpoint | None) -> str:
    return ", ".join(checkpoint.name for checkpoint in checkpoints if checkpoint is not None)
