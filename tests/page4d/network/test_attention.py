"""The two ops against explicit logits in float64, over random shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.network.attention import BiasedRows, EpipolarPrior, biased_attention, segment_attention
from tests.support.examples import examples


def tensors(shape, seed, dtype=torch.float64):
    z, a, n, m, d = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes):
        return torch.randn(*sizes, dtype=dtype, generator=generator)

    return draw(z, a, n, d), draw(z, a, m, d), draw(z, a, m, d), draw(z, m) * 3


def explicit(q, k, v, bias):
    """bias broadcast to [Z,A,n,m]."""
    logits = torch.einsum("zand,zamd->zanm", q, k) / q.shape[-1] ** 0.5 + bias
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    return torch.einsum("zanm,zamd->zand", weights / weights.sum(-1, keepdim=True), v)


shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 11), st.sampled_from([4, 8, 64])
)


@examples(40)
@given(shapes, st.booleans(), st.integers(0, 99))
def test_biased_attention(shape, has_bias, seed):
    q, k, v, bias = tensors(shape, seed)
    expected = explicit(q, k, v, bias[:, None, None] if has_bias else torch.zeros(1).double())
    torch.testing.assert_close(biased_attention(q, k, v, bias if has_bias else None), expected, rtol=1e-9, atol=1e-10)


@st.composite
def leading_rows(draw):
    """A period, how many of its rows see the bias (0 to all), and the number of periods of queries."""
    period = draw(st.integers(1, 7))
    return period, draw(st.integers(0, period)), draw(st.integers(1, 4))


@examples(60)
@given(
    leading_rows(),
    st.integers(1, 20),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
    st.sampled_from([1.0, 64.0]),
    st.integers(0, 99),
)
def test_a_bias_that_only_some_rows_see(rows, m, batch, gain, seed):
    """logits[i,j] += r_i * bias_j: the gain on the first rows of every period, nothing on the others."""
    period, leading, periods = rows
    q, k, v, noise = tensors((*batch, period * periods, m, 8), seed)
    bias = (noise * 2).clamp(-4, 4)
    factors = torch.tensor(
        [gain if i % period < leading else 0.0 for i in range(period * periods)], dtype=torch.float64
    )
    expected = explicit(q, k, v, (factors[:, None] * bias[:, None])[:, None])
    out = biased_attention(q, k, v, bias, rows=BiasedRows(period, leading, gain))
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)


@st.composite
def segmented(draw):
    """Groups of queries with random, possibly overlapping or empty lists of key ranges."""
    groups, rows, m = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 12))
    lists = draw(
        st.lists(
            st.lists(st.tuples(st.integers(0, m - 1), st.integers(0, 5)), max_size=3), min_size=groups, max_size=groups
        )
    )
    segments, pointers = [], [0]
    for ranges in lists:
        keys_read = set()
        for start, length in ranges:
            length = min(length, m - start)
            if not keys_read & set(range(start, start + length)):  # a key read twice by one group would count twice
                keys_read |= set(range(start, start + length))
                segments.append((start, length))
        pointers.append(len(segments))
    return groups, rows, m, pointers, segments


@examples(60)
@given(segmented(), st.booleans(), st.booleans(), st.integers(0, 99))
def test_segment_attention(case, has_bias, has_segment_bias, seed):
    groups, rows, m, pointers, segments = case
    q, k, v, bias = tensors((2, 2, groups * rows, m, 8), seed)
    by_segment = torch.randn(2, len(segments), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mask = torch.full((2, 2, groups * rows, m), -torch.inf, dtype=torch.float64)
    for g in range(groups):
        for p in range(pointers[g], pointers[g + 1]):
            start, length = segments[p]
            for a in range(2):
                mask[:, a, g * rows : (g + 1) * rows, start : start + length] = (
                    by_segment[a, p] if has_segment_bias else 0
                )
    if has_bias:
        mask = mask + bias[:, None, None]
    out = segment_attention(
        q,
        k,
        v,
        bias if has_bias else None,
        torch.tensor(pointers, dtype=torch.int32),
        torch.tensor(segments, dtype=torch.int32).reshape(-1, 2),
        by_segment if has_segment_bias else None,
    )
    for row in range(groups * rows):
        reads = torch.isfinite(mask[0, 0, row])
        if reads.any():
            expected = explicit(q[:, :, row : row + 1], k, v, mask[:, :, row : row + 1])
            torch.testing.assert_close(out[:, :, row : row + 1], expected, rtol=1e-9, atol=1e-10)
        else:
            assert (out[:, :, row] == 0).all()


def test_segments_outside_the_keys_are_refused():
    q, k, v, _ = tensors((1, 1, 4, 6, 8), 0)
    pointers = torch.tensor([0, 1], dtype=torch.int32)
    with pytest.raises(ValueError, match="leaves the 6 keys"):
        segment_attention(q, k, v, None, pointers, torch.tensor([[4, 3]], dtype=torch.int32))
    with pytest.raises(ValueError, match="4 queries cannot be cut into 3"):
        segment_attention(
            q, k, v, None, torch.tensor([0, 1, 1, 1], dtype=torch.int32), torch.tensor([[0, 3]], dtype=torch.int32)
        )


@examples(25)
@given(st.integers(1, 3), st.integers(1, 5), st.floats(0, 30), st.integers(0, 99))
def test_epipolar_prior(views, patches, band, seed):
    """Against distances from lines, pair by pair; special tokens (centre 0) and a view's own keys are free."""
    rng = np.random.default_rng(seed)
    fundamental = rng.standard_normal((views, views, 3, 3))
    fundamental[range(views), range(views)] = 0
    centres = np.concatenate([np.zeros((2, 3)), np.c_[rng.random((patches, 2)) * 40, np.ones(patches)]])
    n = views * (patches + 2)
    q, k, v, bias = tensors((2, 2, n, n, 8), seed)
    prior = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            (a, x), (b, y) = divmod(i, patches + 2), divmod(j, patches + 2)
            if a != b and x >= 2 and y >= 2:
                line = fundamental[a, b] @ centres[x]
                if abs(line @ centres[y]) / np.hypot(*line[:2]) > band:
                    prior[i, j] = -2.5
    epipolar = EpipolarPrior(torch.from_numpy(fundamental), torch.from_numpy(centres), band, 2.5)
    for key_bias in (bias, None):
        expected = explicit(q, k, v, prior + (0 if key_bias is None else bias[:, None, None]))
        torch.testing.assert_close(biased_attention(q, k, v, key_bias, epipolar), expected, rtol=1e-9, atol=1e-10)


def test_a_key_exactly_on_the_band_is_free():
    """Strictly further counts: line y = 10, a key 4 above it, band 4."""
    fundamental = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    fundamental[0, 1] = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, -10]])
    centres = torch.tensor([[3.0, 14, 1], [3, 14.5, 1]], dtype=torch.float64)
    bias = EpipolarPrior(fundamental, centres, 4.0, 7.0).bias(0)
    assert bias.tolist() == [[0, 0, 0, -7], [0, 0, 0, -7]]
