"""`ModelSource`: which network an export is of, and where its weights come from, decided before a weight is read."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.checkpoint_match import adapted, check_kinds, check_model
from page4d.config import ModelConfig, Published
from page4d.errors import UsageError

if TYPE_CHECKING:
    from page4d.model import Page4D

DEFAULT_PRESET = "vitl"


@dataclass(frozen=True)
class ModelSource:
    """A network and its checkpoints.

    Attributes:
        config: with the structure that the checkpoints have.
        seed: of what no checkpoint gives.
        pi3, page4d: the checkpoints, or None.
        registers, time_sa: as `page4d.load_weights` takes them.
        chosen: the preset that was picked because of a checkpoint, else None.
    """

    config: ModelConfig
    seed: int
    pi3: Checkpoint | None
    page4d: Checkpoint | None
    registers: str | None
    time_sa: str | None
    chosen: str | None

    @classmethod
    def choose(
        cls,
        preset: str | None,
        options: dict[str, Any],
        T: int,
        seed: int = 0,
        pi3: pathlib.Path | None = None,
        page4d: pathlib.Path | None = None,
        registers: str | None = None,
        time_sa: str | None = None,
    ) -> ModelSource:
        """Pick the network.

        Without a preset one checkpoint means its own published model (Pi3's only at one time, which is all that it
        knows), and everything else this project's network.

        Args:
            preset: a name, or None.
            options: of `ModelConfig`, in place of the preset's.
            T: times that the engines are for.
            seed: of weights that no checkpoint gives, 0 to 2^63 - 1.
            pi3, page4d: checkpoints: a file, the index of several, or a folder.
            registers, time_sa: as `page4d.load_weights` takes them.

        Raises:
            UsageError: from the checkpoints, the preset or the options; flags for checkpoints without one; a seed out
                of range.
        """
        if not 0 <= seed < 1 << 63:
            raise UsageError("--seed is out of range", got=seed, allowed="0 to 2^63 - 1")
        if pi3 is None and page4d is None and (registers or time_sa):
            raise UsageError(
                "--registers and --time-sa choose between checkpoints, and none was given",
                allowed="--pi3 FILE, --page4d FILE, or both",
            )
        first, second = (None if path is None else Checkpoint.open(path) for path in (pi3, page4d))
        given = [checkpoint for checkpoint in (first, second) if checkpoint is not None]
        if given:
            check_kinds(first, second)
        own = preset is None and len(given) == 1 and (given[0].published is not Published.PI3 or T == 1)
        config = given[0].config(**options) if own else ModelConfig.preset(preset or DEFAULT_PRESET, **options)
        if given:
            config = adapted(config, first, second)
            check_model(config, first, second)
        return cls(config, seed, first, second, registers, time_sa, str(given[0].published) if own else None)

    def model(self) -> Page4D:
        """The network with its weights."""
        from page4d.checkpoints.weights import load_weights
        from page4d.model import Page4D

        if self.pi3 is None and self.page4d is None:
            return Page4D(self.config, self.seed)
        model = Page4D(self.config, self.seed, filled=False)
        pi3, page4d = (None if checkpoint is None else checkpoint.path for checkpoint in (self.pi3, self.page4d))
        load_weights(model, pi3, page4d, self.registers, self.time_sa)  # type: ignore[arg-type]  # checked there, by name
        return model

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual in the checkpoints and no error, in words."""
        return tuple(
            note for checkpoint in (self.pi3, self.page4d) if checkpoint is not None for note in checkpoint.notes
        )

    @property
    def described(self) -> str:
        """What the weights will be, before they are read."""
        files = [
            f"{checkpoint.described} ({checkpoint.name})"
            for checkpoint in (self.pi3, self.page4d)
            if checkpoint is not None
        ]
        return " and ".join(files) or f"seeded (seed {self.seed})"
