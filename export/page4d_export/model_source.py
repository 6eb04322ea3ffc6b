"""`ModelSource`: which network an export is of, and where its weights come from, decided before a weight is read."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.sources import NO_SOURCES, Sources
from page4d.config import PRESETS, Head, ModelConfig, Published
from page4d.errors import UsageError
from page4d.published import TRAITS

if TYPE_CHECKING:
    from page4d.model import Page4D

DEFAULT_PRESET = "vitl"
NO_HEADS = "none"
"""In place of names of heads: no head."""


def heads_named(names: str | Sequence[str], published: Published | None) -> tuple[Head, ...]:
    """The heads of these names.

    Args:
        names: several, or a text with commas between them; `none` alone, or nothing in the sequence: no head.
        published: the model that they are of; None: this project's own network, which has no heads.

    Raises:
        UsageError: a name that is no head of the model; some heads of Pi3 or Pi3X, which come all together.
    """
    words = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(map(str, names))
    if words in ([], [NO_HEADS]):
        return ()
    allowed = TRAITS[published].heads if published is not None else ()
    choice = ", ".join(allowed)
    if unknown := [word for word in words if word not in allowed]:
        model = "the network" if published is None else f"the model {published}"
        raise UsageError(
            f"--heads: {model} has no head of this name",
            got=", ".join(repr(word) for word in unknown),
            allowed=f"{choice}, or {NO_HEADS}" if allowed else f"{NO_HEADS}: only published models have heads",
        )
    if published is not None and TRAITS[published].all_or_none and set(words) != set(allowed):
        raise UsageError(
            f"--heads: {TRAITS[published].title}'s heads come all together",
            got=", ".join(words),
            allowed=f"{','.join(allowed)}, or {NO_HEADS}",
        )
    return tuple(head for head in allowed if head in words)


@dataclass(frozen=True)
class ModelSource:
    """A network and its checkpoints.

    Attributes:
        config: with the structure that the checkpoints have.
        seed: of what no checkpoint gives.
        sources: the checkpoints.
        registers, time_sa: as `page4d.load_weights` takes them.
        chosen: the preset that was picked because of a checkpoint, else None.
        loaded: the network itself, where it has its weights already.
    """

    config: ModelConfig
    seed: int = 0
    sources: Sources = NO_SOURCES
    registers: str | None = None
    time_sa: str | None = None
    chosen: str | None = None
    loaded: Page4D | None = None

    @classmethod
    def of(cls, model: object) -> ModelSource:
        """A network that has its weights.

        Raises:
            UsageError: it is none.
        """
        from page4d.model import Page4D

        if not isinstance(model, Page4D):
            allowed = "a page4d.Page4D, or the path of a checkpoint"
            raise UsageError("there is no model to export", got=type(model).__name__, allowed=allowed)
        return cls(model.config, loaded=model)

    @classmethod
    def choose(
        cls,
        preset: str | None,
        options: dict[str, Any],
        T: int,
        seed: int = 0,
        sources: Sources = NO_SOURCES,
        registers: str | None = None,
        time_sa: str | None = None,
        heads: str | Sequence[str] | None = None,
        alone: bool = False,
    ) -> ModelSource:
        """Pick the network.

        Without a preset one checkpoint means its own published model (Pi3's only at one timestep, which
        is all that it knows, unless `alone`), and everything else this project's network.

        Args:
            preset: a name, or None.
            options: of `ModelConfig`, in place of the preset's.
            T: timesteps that the engines are for.
            seed: of weights that no checkpoint gives, 0 to 2^63 - 1.
            sources: the checkpoints.
            registers, time_sa: as `page4d.load_weights` takes them.
            heads: names of heads, or `none`; None: all that the checkpoint has.
            alone: whether the checkpoint was given as a published model, not as a part of a network.

        Raises:
            UsageError: from the checkpoints, the preset or the options; flags for checkpoints without one; a head that
                the model or the checkpoint lacks; a seed out of range.
        """
        if not 0 <= seed < 1 << 63:
            raise UsageError("--seed is out of range", got=seed, allowed="0 to 2^63 - 1")
        checkpoints = sources.all
        if not checkpoints and (registers or time_sa):
            raise UsageError(
                "--registers and --time-sa choose between checkpoints, and none was given",
                allowed="--pi3 FILE, --page4d FILE, or both",
            )
        fits = alone or T == 1 or sources.pi3 is None
        own = preset is None and len(checkpoints) == 1 and fits
        name = checkpoints[0].preset if own else preset or DEFAULT_PRESET
        options = _with_heads(options, heads, name, sources)
        config = checkpoints[0].config(**options) if own else ModelConfig.preset(name, **options)
        if checkpoints:
            sources = sources.for_model(config)
            config = sources.adapted(config, heads_asked=True)
            sources.check(config)
        return cls(
            config=config,
            seed=seed,
            sources=sources,
            registers=registers,
            time_sa=time_sa,
            chosen=name if own else None,
        )

    @classmethod
    def of_file(
        cls,
        checkpoint: Checkpoint,
        preset: str | None,
        options: dict[str, Any],
        T: int,
        seed: int = 0,
        registers: str | None = None,
        time_sa: str | None = None,
        heads: str | Sequence[str] | None = None,
    ) -> ModelSource:
        """Pick the network for a checkpoint that says itself what it is. Arguments and errors: as of `choose`."""
        return cls.choose(
            preset,
            options,
            T,
            seed,
            sources=Sources.of(checkpoint),
            registers=registers,
            time_sa=time_sa,
            heads=heads,
            alone=True,
        )

    def model(self) -> Page4D:
        """The network with its weights.

        Raises:
            UsageError: a tensor of a checkpoint that is missing, of another shape or not finite.
        """
        if self.loaded is not None:
            return self.loaded
        from page4d.checkpoints.weights import load_weights
        from page4d.model import Page4D

        if not self.checkpoints:
            return Page4D(self.config, self.seed)
        model = Page4D(self.config, self.seed, filled=False)
        pi3, page4d, single = self.sources.pi3, self.sources.page4d, self.sources.single
        load_weights(model, pi3, page4d, self.registers, self.time_sa, checkpoint=single)
        return model

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that were given, Pi3's first."""
        return self.sources.all

    @property
    def files(self) -> dict[str, pathlib.Path]:
        """The files that are read, each under a name for messages."""
        return {f"the checkpoint {checkpoint.name}": checkpoint.path for checkpoint in self.checkpoints}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the checkpoints that are no errors."""
        return self.sources.notes(self.config)

    @property
    def described(self) -> str:
        """Where the weights are from, as text; known before they are read."""
        if self.loaded is not None:
            return self.loaded.weights
        files = [f"{checkpoint.described} ({checkpoint.origin})" for checkpoint in self.checkpoints]
        return " and ".join(files) or f"seeded (seed {self.seed})"


def _with_heads(
    options: dict[str, Any], heads: str | Sequence[str] | None, preset: str, sources: Sources
) -> dict[str, Any]:
    """The options of the config with its heads: those asked for; unasked, those in the model's checkpoint."""
    name = PRESETS.get(preset, {}).get("published")
    published = None if name is None else Published(name)
    if heads is not None:
        if "predictions" in options:
            raise UsageError("--heads and --set predictions both choose the heads", allowed="one of them")
        return options | {"predictions": heads_named(heads, published)}
    source = sources.of_published(published)
    if source is None or options.get("predictions", True) is not True:
        return options
    # not left to `adapted`: the layers that are kept by default are those of these heads
    return options | {"predictions": source.predictions}
