"""What sparse attention costs: the engines' error against the exact model, and the gate that asks how much may be."""

from __future__ import annotations

from page4d.errors import AccuracyError, UsageError
from page4d.manifest import Accuracy, SparsePrice
from page4d_export.plan.export_plan import ExportPlan


def stage_tolerance(plan: ExportPlan, tolerance: float | None) -> float:
    """The relative L2 error that a stage may have against its reference.

    That is `tolerance`, or the precision's own. With sparse attention `tolerance` is for what the sampling changes, and
    stages, whose reference is as sparse as they are, keep the precision's own.

    Raises:
        UsageError: sparse attention without a tolerance.
    """
    if not plan.config.is_sparse:
        return plan.precision.tolerance if tolerance is None else tolerance
    if tolerance is None:
        raise UsageError(
            "sparse attention changes the model's results; how much is measured at export, and how much may be is not"
            " for the exporter to decide",
            got=f"--sparse-attention {plan.config.sparse_attention} without --tolerance",
            allowed="--tolerance: largest relative L2 error of an output against the exact model, above 0, up to 1",
            hint="--tolerance 0.05, with --frames of your own scene: the error depends on weights and images",
        )
    return plan.precision.tolerance


def price_of(plan: ExportPlan, chain: dict[str, Accuracy], tolerance: float) -> SparsePrice:
    """The price of a plan's sparse attention.

    Args:
        plan: of the engines, at their own layout.
        chain: the results of the chain of engines, against the exact reference.
        tolerance: largest relative L2 error that passes.

    Raises:
        AccuracyError: a result is further off, or holds NaN or infinity.
    """
    config = plan.config
    price = SparsePrice(
        one_in=config.sparse_attention,
        layers=config.sparse_layers or (),
        tolerance=tolerance,
        flop=plan.flop,
        exact_flop=plan.exact.flop,
        chain=chain,
    )
    departing = [name for name, off in chain.items() if not off.relative_l2 <= tolerance or off.nans]
    if departing:
        raise AccuracyError(
            f"with sparse attention the model departs from itself in {', '.join(departing)}",
            got=", ".join(f"{name} {chain[name].relative_l2:.2e}" for name in departing),
            allowed=f"relative L2 up to {tolerance:g}, no NaN",
            hint="a smaller --sparse-attention, fewer --sparse-layers, or a larger --tolerance",
        )
    return price
