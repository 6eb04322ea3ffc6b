"""The least time that a machine's limits allow a stage."""

import pytest

from page4d.precision import Precision
from page4d_export.bench.roofline import Roofline, bytes_of
from page4d_export.plan.export_plan import ExportPlan
from tests.support.models import config_of, layout_of


def test_the_limit_is_what_takes_longer():
    roofline = Roofline(flop=1e12, bytes=1e10)
    assert roofline.seconds(2e12, 1e9) == 2.0 and roofline.seconds(1e9, 3e10) == 3.0


def test_a_stage_moves_weights_inputs_and_outputs_once_a_call():
    plan = ExportPlan.make(config_of("default"), layout_of("default", 28, 42), Precision.FLOAT16, encoder_images=2)
    encoder = plan.stages()[0]
    C, N = plan.config.width, plan.layout.N
    images, special, tokens = 2 * 28 * 42 * 3, 2 * 5 * C * 2, 2 * N * C * 2
    assert encoder.calls == 3 and bytes_of(encoder) == 3 * (encoder.weight_bytes + images + special + tokens)


def test_shares_add_up_over_stages():
    """Of each stage its own limit: one that is bound by memory does not make up for one that is bound by products."""
    entries = list(ExportPlan.make(config_of("default"), layout_of("default", 28, 42), Precision.FLOAT32).stages())
    intensity = sorted(entry.flop * entry.calls / bytes_of(entry) for entry in entries)
    roofline = Roofline(1e9, 1e9 / intensity[len(intensity) // 2])
    least = sum(roofline.seconds(entry.flop * entry.calls, bytes_of(entry)) for entry in entries)
    assert roofline.share(entries, 4 * least) == pytest.approx(0.25)
    assert least > 1.001 * roofline.seconds(
        sum(entry.flop * entry.calls for entry in entries), sum(map(bytes_of, entries))
    )


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FP8])
def test_this_machine_s_limits(precision):
    """PyTorch multiplies fp8 on a CPU element by element, some 1e8 a second."""
    roofline = Roofline.measured(precision, "cpu")
    assert 1e7 < roofline.flop < 1e14 and 1e8 < roofline.bytes < 1e12
