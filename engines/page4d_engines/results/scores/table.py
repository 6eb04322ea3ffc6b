"""The scores as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from page4d_engines import console
from page4d_engines.results.scores.evaluation import Evaluation

_PERCENT, _DEGREES, _NUMBER = "%", "degrees", ""
_ROWS = {
    "pose.auc_5": ("pose AUC@5", _PERCENT),
    "pose.auc_15": ("pose AUC@15", _PERCENT),
    "pose.auc_30": ("pose AUC@30", _PERCENT),
    "pose.rotation_error": ("relative rotation error", _DEGREES),
    "pose.ate": ("ATE, after Sim(3)", "length"),
    "pose.ate_rigid": ("ATE, after SE(3)", "length"),
    "depth.abs_rel": ("depth AbsRel, median-scaled", _NUMBER),
    "depth.delta_125": ("depth delta < 1.25, median-scaled", _PERCENT),
    "depth.abs_rel_metric": ("depth AbsRel, unscaled", _NUMBER),
    "depth.delta_125_metric": ("depth delta < 1.25, unscaled", _PERCENT),
    "mask.iou": ("mask IoU", _PERCENT),
    "mask.f1": ("mask F1", _PERCENT),
    "cloud.accuracy_mean": ("cloud accuracy, mean", "length"),
    "cloud.accuracy_median": ("cloud accuracy, median", "length"),
    "cloud.completeness_mean": ("cloud completeness, mean", "length"),
    "cloud.completeness_median": ("cloud completeness, median", "length"),
}


def table(evaluation: Evaluation) -> Table:
    """A row for each score that a run has, a column for each run, and one for the difference of two."""
    runs = evaluation.runs
    columns = [f"{run.out} ({run.precision})" for run in runs] + ["difference"] * (len(runs) > 1)
    reference = "truth" if evaluation.is_truth else "reference"
    rows = console.table(f"{reference}: {evaluation.reference}", ["score", "unit"], columns)
    values = [run.scores.values() for run in runs]
    length = "m" if evaluation.is_truth else "the reference's"
    for name, (words, unit) in _ROWS.items():
        if not any(name in scores for scores in values):
            continue
        cells = [_cell(scores.get(name), unit) for scores in values]
        if len(runs) > 1:
            cells.append(_cell(evaluation.difference.get(name), unit, "+"))
        rows.add_row(words, length if unit == "length" else unit, *cells)
    return rows


def reasons(evaluation: Evaluation) -> Iterator[str]:
    """Sentences on what could not be scored: one for all scores of a run with the same reason."""
    for run in evaluation.runs:
        names_of: dict[str, list[str]] = {}
        for name, reason in run.scores.reasons.items():
            names_of.setdefault(reason, []).append(_ROWS[name][0] if name in _ROWS else name)
        where = f"{run.out}: " if len(evaluation.runs) > 1 else ""
        for reason, names in names_of.items():
            yield f"{where}no {'; '.join(names)}: {reason}"


def _cell(value: float | None, unit: str, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{100 * value:{sign}.2f}" if unit == _PERCENT else f"{value:{sign}.4g}"
