"""Weights that are rounded so that their products change least, and what that is measured from."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.manifest import StageEntry, TensorSpec
from page4d_export.quantize import fp8, int8
from page4d_export.quantize.activation_stats import observe
from page4d_export.quantize.gptq import _DAMPING, compensated
from tests.support.examples import examples
from tests.support.linear_block import block


def inputs(rng, tokens, channels, common=0.9):
    """Tokens `[r,K]` without a mean, of which channels have much in common."""
    few = max(1, channels // 8)
    x = rng.normal(0, 1, (tokens, few)) @ rng.normal(0, 1, (few, channels)) * common + rng.normal(
        0, 1, (tokens, channels)
    ) * (1 - common)
    x *= np.exp(rng.normal(0, 0.5, channels))
    return x - x.mean(0)


def naive(exact, moment, nearest):
    """Row by row, the largest mean square first.

    The optimal change of all rows still to come is solved for anew each time."""
    damped = moment + np.eye(len(moment)) * _DAMPING * np.mean(np.diag(moment))
    left, result = exact.copy(), np.empty_like(exact)
    order = list(np.argsort(-np.diag(moment), kind="stable"))
    while order:
        row = order.pop(0)
        result[row] = nearest(left[row])
        if order:  # least tr(D^T H D) over the rest, given row's error
            wrong = result[row] - left[row]
            left[order] -= np.linalg.solve(damped[np.ix_(order, order)], np.outer(damped[order, row], wrong))
    return result


def rounding(step):
    """Rows to the nearest multiples of a step."""
    return lambda rows: np.round(rows / step) * step


@examples(25)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5]))
def test_it_is_the_naive_rounding(channels, outputs, seed, step):
    rng = np.random.default_rng(seed)
    x, exact, nearest = inputs(rng, 50, channels), rng.normal(0, 1, (channels, outputs)), rounding(step)
    moment = x.T @ x / len(x)
    np.testing.assert_allclose(compensated(exact, moment, nearest), naive(exact, moment, nearest), atol=1e-9)


def test_more_rows_than_a_part():
    rng = np.random.default_rng(0)
    x, exact = inputs(rng, 900, 300), rng.normal(0, 1, (300, 40))
    nearest, moment = rounding(0.05), x.T @ x / len(x)
    result = compensated(exact, moment, nearest)
    np.testing.assert_allclose(result, naive(exact, moment, nearest), atol=1e-9)
    before, after = (np.linalg.norm(x @ (rounded - exact)) for rounded in (nearest(exact), result))
    assert after < 0.5 * before


def test_channels_of_their_own_are_rounded_to_the_nearest():
    rng = np.random.default_rng(0)
    exact, nearest = rng.normal(0, 1, (40, 7)), rounding(0.1)
    for moment in (np.diag(rng.uniform(0, 3, 40)), np.zeros((40, 40))):
        np.testing.assert_array_equal(compensated(exact, moment, nearest), nearest(exact))


def test_channels_that_are_always_the_same():
    """One that is always zero, two that are always equal: no division by zero, and the pair shares its error."""
    rng = np.random.default_rng(0)
    x = inputs(rng, 200, 16)
    x[:, 3], x[:, 5] = 0, x[:, 4]
    exact, nearest = rng.normal(0, 1, (16, 8)), rounding(0.2)
    result = compensated(exact, x.T @ x / len(x), nearest)
    assert np.isfinite(result).all()
    assert np.linalg.norm(x @ (result - exact)) < np.linalg.norm(x @ (nearest(exact) - exact))


@pytest.mark.parametrize("scheme", [int8, fp8])
def test_stored_weights_lose_less(scheme):
    """Within the values that the format has; over tokens that were not looked at, too."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(0, 1, (24, 192))
    some, others = (rng.normal(0, 1, (800, 24)) @ mixing + rng.normal(0, 0.3, (800, 192)) for _ in range(2))
    exact = rng.normal(0, 0.05, (192, 64))
    moment = (some.T @ some / len(some)).astype(np.float32)
    plain, better = scheme.weight(exact), scheme.weight(exact, moment)
    assert plain.numbers.dtype == better.numbers.dtype and np.array_equal(plain.scale, better.scale)
    assert np.abs(better.values - exact).max() < 8 * np.abs(plain.values - exact).max()
    for x, gain in ((some, 0.6), (others, 0.7)):
        errors = [np.linalg.norm(x @ (quantised.values - exact)) for quantised in (better, plain)]
        assert errors[0] < gain * errors[1]


def test_what_is_seen_of_the_inputs(tmp_path):
    """Over several calls, against all tokens at once in float64."""
    model, _ = block(rows=40)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "block.onnx")

    def spec(name):
        return TensorSpec(name, (1, 40, 128), "float32")

    entry = StageEntry("b", "view_sa", 0, (spec("x"),), (spec("out"),), 0, 0, 0, calls=3)
    rng = np.random.default_rng(1)
    x = rng.normal([[[0]], [[1]], [[-3]]], 1, (3, 40, 128)).astype(np.float32)  # calls whose means are apart
    outputs, stats = observe(tmp_path / "block.onnx", entry, {"x": x})
    seen = stats.linears
    assert outputs["out"].shape == x.shape and len(seen) == 6 and seen[0] is seen[1] is seen[2]
    assert stats.attentions == [], "were not asked for"
    weight = {tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    centred = x.astype(np.float64) - x.mean(-1, dtype=np.float64, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    normed = (scaled * weight["norm1.weight"] + weight["norm1.bias"]).reshape(-1, 128)
    statistics = seen[0]
    assert statistics.tokens == 120 and statistics.moment.dtype == np.float32 and statistics.rows.shape == (3 * 40, 128)
    np.testing.assert_allclose(statistics.mean, normed.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics.low, normed.min(0), atol=1e-5)
    np.testing.assert_allclose(statistics.high, normed.max(0), atol=1e-5)
    np.testing.assert_allclose(statistics.moment, np.cov(normed.T, bias=True), atol=2e-5)
    assert seen[5].moment.shape == (512, 512) and (np.diag(seen[5].moment) > 0).any()
