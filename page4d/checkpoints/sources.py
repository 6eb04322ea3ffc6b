"""`Sources`: the checkpoints that a network's weights are from, and whether they go with the network. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.config import ModelConfig, Published
from page4d.errors import UsageError
from page4d.published import TRAITS

_SHARED = {Published.PI3: "pi3", Published.VGGT: "page4d", Published.PAGE4D: "page4d"}
"""The place of checkpoints that this project's own network takes weights from; all others go into their own model."""


@dataclass(frozen=True)
class Sources:
    """One checkpoint, or one of Pi3 and one of PAGE-4D or VGGT, decided from their tables of contents.

    Attributes:
        pi3: Pi3's.
        page4d: PAGE-4D's or VGGT's.
        single: of a model whose weights go into that model alone: Pi3X, Depth Anything 3.

    Raises:
        UsageError: one in another's place; one beside a single one.
    """

    pi3: Checkpoint | None = None
    page4d: Checkpoint | None = None
    single: Checkpoint | None = None

    def __post_init__(self) -> None:
        for argument in ("pi3", "page4d"):
            checkpoint: Checkpoint | None = getattr(self, argument)
            place = None if checkpoint is None else _SHARED.get(checkpoint.published)
            if checkpoint is not None and place != argument:
                how = f"give it as {place}" if place else "give it alone: page4d-export FILE, or page4d.load(FILE)"
                raise UsageError(
                    f"{checkpoint.name} was given as {argument}, and is a {checkpoint.described} checkpoint",
                    got=checkpoint.path,
                    hint=how,
                )
        if self.single is not None and len(self.all) > 1:
            raise UsageError(
                f"{self.single.name} was given beside another checkpoint",
                got=_names(*self.all),
                allowed=f"{self.single.described} alone, or Pi3 and PAGE-4D together",
            )

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Sources:
        """One checkpoint, in the place that it belongs to."""
        return cls(**{_SHARED.get(checkpoint.published, "single"): checkpoint})

    @property
    def all(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint, Pi3's first."""
        return tuple(file for file in (self.pi3, self.page4d, self.single) if file is not None)

    def for_model(self, config: ModelConfig) -> Sources:
        """The same for a network: a file that does not tell which of two models it is becomes that of the network."""
        if self.single is None or config.published is None:
            return self
        return dataclasses.replace(self, single=self.single.read_as(config.published))

    def of_published(self, published: Published | None) -> Checkpoint | None:
        """The checkpoint that a published model takes all of its weights from."""
        return None if published is None else getattr(self, _SHARED.get(published, "single"))

    def check(self, config: ModelConfig) -> None:
        """Check that a network finds what it needs.

        Raises:
            UsageError: no checkpoint, one missing, one too many, or one without a part that the network has.
        """
        if not self.all:
            raise UsageError("no checkpoint was given", allowed="pi3=FILE, page4d=FILE, or both; or checkpoint=FILE")
        source = self.of_published(config.published)
        if config.published is not None and (source is None or len(self.all) > 1):
            whose = {"pi3": "a Pi3 checkpoint alone", "page4d": "one checkpoint alone"}
            argument = _SHARED.get(config.published, "checkpoint")
            raise UsageError(
                f"the published {config.published} takes its weights from"
                f" {whose.get(argument, 'its own checkpoint alone')}",
                got=_names(*self.all),
                allowed=f"{argument}=FILE",
            )
        if config.published is None and self.pi3 is None:
            raise UsageError(
                "View-SA and Global-SA of this model take Pi3's weights, and no Pi3 checkpoint was given",
                got=_names(*self.all),
                allowed="pi3=FILE, with or without page4d=FILE",
                hint=f"the preset {self.all[0].preset} runs such a checkpoint alone, as published",
            )
        if config.row_mask is not None and self.page4d is not None and self.page4d.mask_head is None:
            raise UsageError(
                f"{self.page4d.name} has no mask head: it is a {self.page4d.described} checkpoint",
                got=self.page4d.path,
                hint="--mask off, or the preset vggt",
            )
        if self.single is not None:
            _check_single(config, self.single)

    def adapted(self, config: ModelConfig, heads_asked: bool = False) -> ModelConfig:
        """A config with the checkpoints' structure: their mask head, and the heads that the file holds.

        Args:
            config: of the network that the weights are for.
            heads_asked: whether somebody asked for exactly the config's heads. All heads of a model, unasked, stand for
                those that the file has; any other choice is always one that was made.

        Raises:
            UsageError: the file lacks a head that was asked for.
        """
        if self.page4d is not None and self.page4d.mask_head is not None:
            config = dataclasses.replace(config, mask_head=self.page4d.mask_head)
        source = self.of_published(config.published)
        if source is None or config.published is None or set(config.predictions) <= set(source.predictions):
            return config
        if heads_asked or config.predictions != TRAITS[config.published].heads:
            source.require_heads(config.predictions)
        # layers that are kept for the heads alone go with them
        keep_layers = None if config.keep_layers == config.head_layers else config.keep_layers
        return dataclasses.replace(config, predictions=source.predictions, keep_layers=keep_layers)

    def notes(self, config: ModelConfig) -> tuple[str, ...]:
        """Remarks on the checkpoints that are no errors, and on what a network leaves unused of them."""
        return (*(note for checkpoint in self.all for note in checkpoint.notes), *self._unused(config))

    def _unused(self, config: ModelConfig) -> Iterator[str]:
        if self.single is not None and self.single.camera_encoder and not config.known_cameras:
            yield f"{self.single.name}: camera encoder: left unused; it is for known cameras (--known-cameras)"
        if config.published is not None:
            return
        if self.pi3 is not None and self.pi3.predictions:
            yield (
                f"{self.pi3.name}: Pi3's heads are left unused. They read the last layer of Pi3: attention within each"
                " photo beside attention over all photos. This network's last layer attends over the views and then"
                " over time, so the heads would read other features than they were trained on. --preset pi3 has them,"
                " at one timestep"
            )
        if self.page4d is not None and self.page4d.predictions:
            model = self.page4d.described
            yield (
                f"{self.page4d.name}: {model}'s heads are left unused. They read whole layers of {model}, of which this"
                f" network takes the blocks over time alone. --preset {self.page4d.published} has them"
            )


NO_SOURCES = Sources()


def _check_single(config: ModelConfig, source: Checkpoint) -> None:
    if config.published is not source.published:
        raise UsageError(
            f"{source.name} is a {source.described} checkpoint, and the network is {config.published}",
            got=source.path,
            allowed=f"the preset {source.preset}",
        )
    if config.known_cameras and not source.camera_encoder:
        raise UsageError(
            f"{source.name} has no camera encoder, which known cameras need",
            got="known_cameras",
            allowed="a file with cam_enc.*",
            hint="without --known-cameras",
        )
    if config.published is Published.DA3 and config.encoder_depth != source.encoder_depth:
        raise UsageError(
            f"{source.name}: the encoder of {source.described} ends where attention over all views begins",
            got=f"encoder_depth = {config.encoder_depth}",
            allowed=f"encoder_depth = {source.encoder_depth}",
            hint=f"the preset {source.preset}",
        )


def _names(*checkpoints: Checkpoint) -> str:
    return ", ".join(checkpoint.name for checkpoint in checkpoints)
