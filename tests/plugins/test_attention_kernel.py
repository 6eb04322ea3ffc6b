"""The kernel in Triton's interpreter against the definition in float64; key segments are in test_segments.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import page4d.network.attention as definition
from page4d.errors import UsageError
from page4d.network.attention import BiasedRows, EpipolarPrior
from page4d.network.presence import ABSENT
from page4d_plugins.modes import Mode, Tile
from tests.support.examples import examples
from tests.support.kernel_cases import double, draw, named, near

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
INF = float("inf")
SMALL = Tile(16, 16, 4, 1)
BOTH = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def epipolar(views, patches, seed=0, special=2):
    """Random cameras, and a band such that no distance is within a thousandth of it."""
    rng = np.random.default_rng(seed)
    fundamental = rng.standard_normal((views, views, 3, 3))
    fundamental[range(views), range(views)] = 0
    centres = np.concatenate([np.zeros((special, 3)), np.c_[rng.random((patches, 2)) * 40, np.ones(patches)]])
    fundamental, centres = (torch.from_numpy(array).float().double() for array in (fundamental, centres))
    lines = torch.einsum("abij,nj->abni", fundamental, centres)
    reach, size = (
        torch.einsum("abni,mi->abnm", lines, centres).abs(),
        lines[..., :2].norm(dim=-1, keepdim=True).expand(-1, -1, -1, len(centres)),
    )
    distances = (reach / size)[(reach > 0) & (size > 0)].sort().values
    if not len(distances):
        return EpipolarPrior(fundamental, centres, 3.0, 2.5)
    middle = distances[len(distances) // 4 : -(len(distances) // 4)]
    widest = (middle[1:] / middle[:-1]).argmax()
    band = float((middle[widest] * middle[widest + 1]).sqrt())
    assert ((distances / band - 1).abs() > 1e-3).all()
    return EpipolarPrior(fundamental, centres, band, 2.5)


@BOTH
@pytest.mark.parametrize("D", [16, 32, 64, 128])
def test_dense(attention, plans, dtype, D):
    q, k, v, _ = draw(2, 2, 37, 150, D, dtype)
    near(attention.biased_attention(q, k, v), definition.biased_attention(*double(q, k, v)))
    assert [plan.mode for plan in plans] == [Mode.DENSE]


@BOTH
@pytest.mark.parametrize("D", [16, 64, 128])
def test_biased(attention, plans, dtype, D):
    q, k, v, bias = draw(2, 2, 70, 150, D, dtype)
    bias[0, 100:103] = bias[1, 0] = -INF
    near(attention.biased_attention(q, k, v, bias), definition.biased_attention(*double(q, k, v, bias)))
    assert [plan.mode for plan in plans] == [Mode.BIASED]


@BOTH
@pytest.mark.parametrize(
    ("rows", "n"),
    [
        (BiasedRows(20, 5, 1.0), 80),
        (BiasedRows(7, 3, 16.0), 77),
        (BiasedRows(9, 0, 2.0), 9),
        (BiasedRows(5, 5, -0.5), 35),
    ],
)
def test_rows(attention, plans, dtype, rows, n):
    q, k, v, bias = draw(2, 2, n, 90, 32, dtype)
    near(
        attention.biased_attention(q, k, v, bias, rows=rows),
        definition.biased_attention(*double(q, k, v, bias), rows=rows),
    )
    assert [plan.mode for plan in plans] == [Mode.ROWS]


@BOTH
@pytest.mark.parametrize(("views", "patches"), [(1, 20), (2, 35), (3, 27)])
def test_epipolar(attention, plans, dtype, views, patches):
    """Special tokens and a view's own keys are exempt, as in the definition; the penalty matters."""
    n = views * (patches + 2)
    q, k, v, bias = draw(2, 2, n, n, 32, dtype)
    prior = epipolar(views, patches)
    out = attention.biased_attention(q, k, v, bias, prior)
    near(out, definition.biased_attention(*double(q, k, v, bias), prior))
    without = definition.biased_attention(*double(q, k, v, bias))
    assert views == 1 or (out.double() - without).norm() > 0.1 * without.norm()
    near(attention.biased_attention(q, k, v, None, prior), definition.biased_attention(*double(q, k, v), None, prior))
    assert [plan.mode for plan in plans] == [Mode.EPIPOLAR] * 2


@BOTH
@pytest.mark.parametrize("has_bias", [False, True])
def test_split_keys(attention, plans, dtype, has_bias):
    """Few queries on many keys: parts and a merge give what one pass gives."""
    q, k, v, bias = draw(1, 2, 21, 2100, 32, dtype)
    inputs = (q, k, v, bias) if has_bias else (q, k, v)
    out = attention.biased_attention(*inputs)
    near(out, definition.biased_attention(*double(*inputs)))
    (plan,) = plans
    assert plan.mode is (Mode.PARTIAL_BIASED if has_bias else Mode.PARTIAL)
    assert plan.launches[-1].kernel == "merge"
    assert plan.launches[-1].values["parts"] == 4
    one_segment = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([[0, 2100]], dtype=torch.int32)
    whole = attention.segment_attention(q, k, v, bias if has_bias else None, *one_segment)
    assert plans[-1].mode is Mode.SEGMENTS
    near(out, whole.double())


def test_parts_without_a_key_above_minus_infinity(attention, plans):
    """The first, the last, and in the second sequence all of them."""
    q, k, v, bias = draw(2, 1, 9, 1600, 16)
    bias[0, :600] = bias[0, 1580:] = -INF
    bias[1] = -INF
    out = attention.run(named(q, k, v, bias), Mode.BIASED, SMALL, Tile(16, 64, 4, 1))
    near(out, definition.biased_attention(*double(q, k, v, bias)))
    assert plans[0].launches[-1].values["parts"] == 3
    assert plans[0].launches[1].values["chunk"] <= 600
    assert (out[1] == 0).all()


@examples(20)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 33), st.integers(1, 40), st.sampled_from([16, 32])),
    st.sampled_from([(16, 16), (32, 16), (16, 32), (64, 64)]),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_any_shape(attention, shape, tile, descriptors, closed, seed):
    """Random shapes and tiles, a random share of the keys at -inf; one key and one query are among them."""
    q, k, v, bias = draw(*shape, seed=seed)
    bias[torch.rand(bias.shape, generator=torch.Generator().manual_seed(seed)) < closed] = -INF
    tile = Tile(*tile, 4, 1, descriptors)
    near(
        attention.run(named(q, k, v, bias), Mode.BIASED, tile, tile),
        definition.biased_attention(*double(q, k, v, bias)),
    )
    near(attention.run(named(q, k, v), Mode.DENSE, tile, tile), definition.biased_attention(*double(q, k, v)))


@BOTH
def test_parts_of_absent_images_alone(attention, plans, dtype):
    """The first part, the last, and in the second sequence all of them, whose result is finite."""
    q, k, v, bias = draw(2, 1, 9, 1600, 16, dtype)
    bias[0, :600] = bias[0, 1580:] = bias[1] = ABSENT
    out = attention.run(named(q, k, v, bias), Mode.BIASED, SMALL, Tile(16, 64, 4, 1))
    there = slice(600, 1580)
    near(out[:1], definition.biased_attention(*double(q[:1], k[:1, :, there], v[:1, :, there], bias[:1, there])))
    assert plans[0].launches[-1].values["parts"] == 3 and out.isfinite().all()


def test_one_key_is_its_value(attention):
    q, k, v, bias = draw(2, 3, 5, 1, 16)
    for out in (attention.biased_attention(q, k, v), attention.biased_attention(q, k, v, bias)):
        assert torch.equal(out, v.expand(-1, -1, 5, -1))


def test_one_query(attention):
    q, k, v, bias = draw(2, 3, 1, 100, 16)
    near(attention.biased_attention(q, k, v, bias), definition.biased_attention(*double(q, k, v, bias)))


def test_a_sequence_without_keys_gives_zeros_and_leaves_the_others(attention):
    q, k, v, bias = draw(2, 2, 20, 70, 16)
    bias[1] = -INF
    out = attention.biased_attention(q, k, v, bias)
    assert (out[1] == 0).all()
    assert torch.equal(out[:1], attention.biased_attention(q[:1], k[:1], v[:1], bias[:1]))
    rows = BiasedRows(4, 1, 1.0)
    out = attention.biased_attention(q, k, v, bias, rows=rows)
    assert (out[1, :, ::4] == 0).all()
    near(out, definition.biased_attention(*double(q, k, v, bias), rows=rows))


def test_rows_without_the_bias_never_see_it(attention):
    """Keys closed to the leading rows alone: the others come out as if there were no bias, bit for bit."""
    q, k, v, bias = draw(1, 2, 60, 90, 32)
    bias[:, 10:75] = -INF
    out = attention.biased_attention(q, k, v, bias, rows=BiasedRows(6, 2, 3.0)).unflatten(2, (10, 6))
    free = attention.biased_attention(q, k, v, torch.zeros_like(bias), rows=BiasedRows(6, 2, 3.0)).unflatten(2, (10, 6))
    assert torch.equal(out[..., 2:, :], free[..., 2:, :])
    assert not torch.isclose(out[..., :2, :], free[..., :2, :]).all(dim=-1).any()


def test_logits_of_hundreds(attention):
    """The maximum is taken out before exponents: nothing overflows, one key wins."""
    q, k, v, bias = draw(1, 2, 20, 100, 32)
    q, k = q * 30, k * 10
    near(attention.biased_attention(q, k, v, bias), definition.biased_attention(*double(q, k, v, bias)))
    near(attention.biased_attention(q, k, v), definition.biased_attention(*double(q, k, v)))


@pytest.mark.parametrize("kind", ["one pass", "split"])
def test_more_keys_than_float16_counts(attention, plans, kind):
    """66,000 equal weights: their sum is no float16 (65,504 at most), nor is a tile's."""
    q, k, v, bias = draw(1, 1, 2, 66_000, 16)
    k.zero_()
    v[:] = torch.arange(66_000)[:, None] % 7 - 2.0
    tile = Tile(2, 65536 if kind == "one pass" else 8192, 4, 1)
    mode, rows = (Mode.ROWS, {"rows": BiasedRows(2, 0, 1.0)}) if kind == "one pass" else (Mode.DENSE, {})
    out = attention.run(named(q, k, v, *([bias] if rows else [])), mode, tile, tile, **rows)
    near(out, v.double().mean(dim=2, keepdim=True).expand(-1, -1, 2, -1))
    assert plans[0].mode is (Mode.ROWS if rows else Mode.PARTIAL)


@BOTH
def test_descriptors_and_pointers_give_the_same_bits(attention, dtype):
    q, k, v, bias = draw(1, 2, 40, 83, 32, dtype)
    for mode, inputs in ((Mode.DENSE, (q, k, v)), (Mode.BIASED, (q, k, v, bias))):
        tile = Tile(32, 16, 4, 1)
        pointers, descriptors = (
            attention.run(named(*inputs), mode, t, t) for t in (tile, tile._replace(descriptors=True))
        )
        assert torch.equal(pointers, descriptors)
    prior = epipolar(2, 18)
    details = {"band": prior.band, "penalty": prior.penalty}
    tensors = named(q, k[:, :, :40], v[:, :, :40], bias[:, :40]) | {
        "fundamental": prior.fundamental.float(),
        "centres": prior.centres.float(),
    }
    pointers, descriptors = (
        attention.run(tensors, Mode.EPIPOLAR, t, t, **details) for t in (tile, tile._replace(descriptors=True))
    )
    assert torch.equal(pointers, descriptors)


def test_tiles_agree(attention):
    """Of every size, in every mode."""
    q, k, v, bias = draw(1, 2, 58, 58, 32)
    prior = epipolar(2, 27)
    lines = {"fundamental": prior.fundamental.float(), "centres": prior.centres.float()}
    details = {"band": prior.band, "penalty": prior.penalty}
    rows = BiasedRows(29, 5, 4.0)
    for sizes in ((16, 32), (64, 16), (32, 128), (128, 64)):
        tile = Tile(*sizes, 4, 1)
        near(attention.run(named(q, k, v), Mode.DENSE, tile, tile), definition.biased_attention(*double(q, k, v)))
        near(
            attention.run(named(q, k, v, bias), Mode.ROWS, tile, tile, rows=rows),
            definition.biased_attention(*double(q, k, v, bias), rows=rows),
        )
        out = attention.run(named(q, k, v, bias) | lines, Mode.EPIPOLAR, tile, tile, **details)
        near(out, definition.biased_attention(*double(q, k, v, bias), prior))


def test_a_key_exactly_on_the_band_is_free(attention):
    """Strictly further counts: line y = 10; of two equal keys, 4 and 4.5 above it, the second is off a band of 4."""
    fundamental = torch.zeros(2, 2, 3, 3)
    fundamental[0, 1] = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, -10]])
    centres = torch.tensor([[3.0, 14, 1], [3, 14.5, 1]])
    q, k, v, _ = draw(1, 1, 4, 4, 16)
    k.zero_()
    out = attention.biased_attention(q, k, v, None, EpipolarPrior(fundamental, centres, 4.0, INF))
    near(out[:, :, :2], v[:, :, :3].double().mean(dim=2, keepdim=True).expand(-1, -1, 2, -1))
    near(out[:, :, 2:], v.double().mean(dim=2, keepdim=True).expand(-1, -1, 2, -1))


@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_bias_of_another_type_keeps_its_precision(attention, bias_dtype):
    q, k, v, _ = draw(1, 2, 20, 50, 16)
    bias = (torch.rand(1, 50, generator=torch.Generator().manual_seed(3)) * 8 - 4).to(bias_dtype)
    bias[0, 7] = 300.0
    near(attention.biased_attention(q, k, v, bias), definition.biased_attention(*double(q, k, v, bias)))


def refused(call, what):
    with pytest.raises(UsageError, match=what):
        call()


def test_types_that_are_refused(attention):
    q, k, v, bias = draw(1, 2, 8, 8, 16)
    refused(lambda: attention.biased_attention(q.float(), k.float(), v.float()), "compute in 16 bits")
    refused(lambda: attention.biased_attention(q, k.bfloat16(), v), "differ in type")
    refused(lambda: attention.biased_attention(q, k, v.float()), "differ in type")
    refused(lambda: attention.biased_attention(q, k.to("meta"), v), "several devices")
    refused(lambda: attention.biased_attention(q, k, v, bias.to("meta")), "several devices")


def test_tensors_that_are_on_no_gpu_are_refused(attention, monkeypatch):
    """Outside the interpreter."""
    q, k, v, _ = draw(1, 2, 8, 8, 16)
    monkeypatch.delenv("TRITON_INTERPRET")
    refused(lambda: attention.biased_attention(q, k, v), "cpu")


def test_shapes_that_are_refused(attention):
    q, k, v, bias = draw(1, 2, 8, 8, 16)
    refused(lambda: attention.biased_attention(q[0], k[0], v[0]), "four axes")
    refused(lambda: attention.biased_attention(q, k, v[:, :, :7]), "^v of BiasedAttention does not fit")
    refused(lambda: attention.biased_attention(q, k[:, :1], v[:, :1]), "^k of BiasedAttention does not fit")
    refused(lambda: attention.biased_attention(q, k, v, bias[0]), "^key_bias of BiasedAttention does not fit")
    refused(lambda: attention.biased_attention(q, k, v, bias[:, :7]), "^key_bias of BiasedAttention does not fit")
    refused(lambda: attention.biased_attention(q[:, :, :0], k, v), "empty tensor")
    refused(lambda: attention.biased_attention(*(torch.zeros(1, 1, 4, 48).half() for _ in range(3))), "head dimension")
    refused(lambda: attention.biased_attention(q, k, v, bias, rows=BiasedRows(3, 1, 1.0)), "rows do not fit")


def test_strides_that_are_refused(attention):
    q, k, v, _ = draw(1, 2, 16, 16, 16)
    refused(lambda: attention.biased_attention(q.transpose(2, 3), k, v), "side by side")
    refused(lambda: attention.biased_attention(q, k.transpose(2, 3), v), "side by side")
    loose = torch.zeros(1, 2, 16, 24).half()[..., :16]
    refused(lambda: attention.biased_attention(loose, k, v), "multiples of 16")
    refused(lambda: attention.biased_attention(q, k, loose), "multiples of 16")


def test_options_that_are_refused(attention):
    q, k, v, bias = draw(1, 2, 8, 8, 16)
    prior = epipolar(2, 2)
    refused(lambda: attention.biased_attention(q, k, v, rows=BiasedRows(4, 1, 1.0)), "no key bias")
    refused(lambda: attention.biased_attention(q, k, v, bias, prior, BiasedRows(4, 1, 1.0)), "an epipolar prior")
    refused(
        lambda: attention.biased_attention(q[:, :, :4], k, v, bias, prior), "centres of BiasedAttention does not fit"
    )


def test_lines_of_another_size_are_refused(attention):
    """The kernel would read beyond them."""
    q, k, v, bias = draw(1, 2, 8, 8, 16)
    prior = epipolar(2, 2)
    refused(lambda: attention.biased_attention(q, k, v, bias, prior._replace(centres=prior.centres[:3])), "centres")
    refused(
        lambda: attention.biased_attention(q, k, v, bias, prior._replace(fundamental=prior.fundamental[:, :1])),
        "fundamental",
    )
