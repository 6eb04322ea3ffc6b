"""`Evaluation`: one run's scores, or two runs' side by side, as `page4d eval` writes them."""

from __future__ import annotations

import os
import pathlib

import msgspec

from page4d.errors import UsageError
from page4d.system.progress import Progress
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.scores.other_run import OtherRun
from page4d_engines.results.scores.scores import Scores, score
from page4d_engines.results.scores.truth_clip import TruthClip


class ScoredRun(msgspec.Struct, frozen=True):
    """A run and its scores."""

    out: str
    precision: str
    backend: str
    weights: str
    scores: Scores


class Evaluation(msgspec.Struct, frozen=True):
    """Scores against a truth, or of one run against another."""

    reference: str
    """The clip with the truth; or, without one, the run that stands for it."""
    is_truth: bool
    """Whether the reference is a truth."""
    runs: list[ScoredRun]
    """One, or two where both are compared with a truth."""
    difference: dict[str, float | None]
    """The first run's scores minus the second's, by their names; empty for one run."""


def evaluate(
    out: str | os.PathLike[str],
    truth: str | os.PathLike[str] | None,
    against: str | os.PathLike[str] | None,
    frames: str | os.PathLike[str] | None,
    progress: Progress,
) -> Evaluation:
    """Score a run against a truth, a second run beside it, or the one against the other.

    Args:
        out: output folder of the run.
        truth: the clip, with `cameras.json`, `depth/` and `masks/` or some of them; None: `against` is the reference.
        against: output folder of a second run.
        frames: where the runs' frames lie; None: where they were.
        progress: what is told how far it is.

    Raises:
        UsageError: there is neither truth nor second run; a folder is not what it should be; the runs differ in what
            has to be the same.
    """
    if truth is None and against is None:
        raise UsageError("there is nothing to compare the run with", got=out, hint="--truth CLIP or --against OUT2")
    known = None if truth is None else TruthClip.open(truth)
    runs = [FinishedRun.open(path, frames) for path in (out, against) if path is not None]
    if known is None:
        reference = OtherRun(runs[1])
        reference.require_alike(runs[0])
        scored = _scored(runs[0], score(runs[0], reference, progress))
        return Evaluation(reference=str(against), is_truth=False, runs=[scored], difference={})
    scored_runs = [
        _scored(run, score(run, known, progress.part(part / len(runs), (part + 1) / len(runs), 1, "")))
        for part, run in enumerate(runs)
    ]
    return Evaluation(reference=str(known.path), is_truth=True, runs=scored_runs, difference=_difference(*scored_runs))


def _difference(first: ScoredRun, second: ScoredRun | None = None) -> dict[str, float | None]:
    if second is None:
        return {}
    here, there = first.scores.values(), second.scores.values()
    pairs = {name: (here.get(name), there.get(name)) for name in [*here, *(key for key in there if key not in here)]}
    return {name: None if a is None or b is None else a - b for name, (a, b) in pairs.items()}


def _scored(run: FinishedRun, scores: Scores) -> ScoredRun:
    summary = run.summary
    return ScoredRun(
        out=str(pathlib.Path(run.path)),
        precision=summary.precision,
        backend=summary.backend,
        weights=summary.weights,
        scores=scores,
    )
