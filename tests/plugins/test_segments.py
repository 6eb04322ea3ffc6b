"""Key segments in Triton's interpreter, against the definition in float64 and against a loop over queries."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import page4d.network.attention as definition
from page4d import Layout
from page4d.errors import UsageError
from page4d.network import sparse
from page4d.ops import BiasedRows
from page4d_plugins.modes import Mode, Tile
from tests.support.examples import examples
from tests.support.kernel_cases import double, draw, near

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
INF = float("inf")
SMALL = Tile(16, 16, 4, 1)
BOTH = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def csr(*groups):
    """seg_ptr and seg from lists of (start, length), one for each group of queries."""
    flat = [segment for group in groups for segment in group]
    return torch.tensor([0, *np.cumsum([len(group) for group in groups])], dtype=torch.int32), torch.tensor(
        flat, dtype=torch.int32
    ).reshape(-1, 2)


def one_by_one(q, k, v, key_bias, seg_ptr, seg, segment_bias=None):
    """Query by query, key by key, in float64; keys that a list names twice count twice."""
    q, k, v, key_bias = (tensor.double().numpy() for tensor in (q, k, v, key_bias))
    out = np.zeros_like(q)
    rows = q.shape[2] // (len(seg_ptr) - 1)
    for z, a, i in np.ndindex(q.shape[:3]):
        logits, values = [], []
        for p in range(seg_ptr[i // rows], seg_ptr[i // rows + 1]):
            for j in range(int(seg[p, 0]), int(seg[p, 0] + seg[p, 1])):
                extra = 0.0 if segment_bias is None else float(segment_bias[a, p])
                logits.append(q[z, a, i] @ k[z, a, j] / q.shape[3] ** 0.5 + key_bias[z, j] + extra)
                values.append(v[z, a, j])
        if logits and max(logits) > -INF:
            weights = np.exp(np.array(logits) - max(logits))
            out[z, a, i] = weights @ np.array(values) / weights.sum()
    return torch.from_numpy(out)


def poisoned(tensors, seg):
    """Keys that no segment names become NaN."""
    q, k, v, bias = tensors
    unread = torch.ones(k.shape[2], dtype=torch.bool)
    for start, length in seg.tolist():
        unread[start : start + length] = False
    for tensor in (k, v):
        tensor[:, :, unread] = float("nan")
    bias[:, unread] = float("nan")
    return q, k, v, bias


@st.composite
def segmented(draw_):
    """Groups of queries with lists of key ranges: none, empty, overlapping, of one key, of several tiles."""
    groups, rows, m = draw_(st.integers(1, 3)), draw_(st.integers(1, 20)), draw_(st.integers(1, 60))
    ranges = st.tuples(st.integers(0, m), st.sampled_from([0, 1, 5, 15, 16, 17, 33, 60])).map(
        lambda pair: (pair[0], min(pair[1], m - pair[0]))
    )
    lists = draw_(st.lists(st.lists(ranges, max_size=3), min_size=groups, max_size=groups))
    return groups * rows, m, *csr(*lists)


@examples(25)
@given(segmented(), st.booleans(), st.sampled_from([None, 0.0, 0.3, 1.0]), st.floats(0, 0.5), st.integers(0, 99))
def test_any_segments(attention, case, descriptors, closed_segments, closed_keys, seed):
    """Keys outside every segment, NaN here, are never read; a share of keys and of segments is at -inf."""
    n, m, seg_ptr, seg = case
    generator = torch.Generator().manual_seed(seed)
    q, k, v, bias = draw(1, 2, n, m, 16, seed=seed)
    bias[torch.rand(bias.shape, generator=generator) < closed_keys] = -INF
    segment_bias = None
    if closed_segments is not None:
        segment_bias = (torch.rand(2, len(seg), generator=generator) * 16 - 8).half()
        segment_bias[torch.rand(segment_bias.shape, generator=generator) < closed_segments] = -INF
    q, k, v, bias = poisoned((q, k, v, bias), seg)
    mode, more = (Mode.SEGMENTS, {}) if segment_bias is None else (Mode.SEGMENTS_BIASED, {"segment_bias": segment_bias})
    tensors = {"q": q, "k": k, "v": v, "key_bias": bias, "seg_ptr": seg_ptr, "seg": seg} | more
    tile = SMALL._replace(descriptors=descriptors)
    out = attention.run(tensors, mode, tile, tile)
    near(out, one_by_one(q, k, v, bias, seg_ptr, seg, segment_bias))


@BOTH
@pytest.mark.parametrize("D", [16, 64, 128])
@pytest.mark.parametrize("by_head", [False, True])
def test_against_the_definition(attention, dtype, D, by_head):
    """With the tiles that the op takes by itself; no size is a multiple of one."""
    q, k, v, bias = draw(2, 2, 3 * 27, 210, D, dtype)
    bias[0, 60:70] = -INF
    seg_ptr, seg = csr([(0, 70)], [(10, 3), (150, 60)], [(65, 1), (0, 64), (70, 81)])
    segment_bias = (
        (torch.randn(2, len(seg), generator=torch.Generator().manual_seed(1)) * 4).to(dtype) if by_head else None
    )
    expected = definition.segment_attention(
        *double(q, k, v, bias), seg_ptr, seg, None if segment_bias is None else segment_bias.double()
    )
    near(attention.segment_attention(q, k, v, bias, seg_ptr, seg, segment_bias), expected)
    expected = definition.segment_attention(
        *double(q, k, v), None, seg_ptr, seg, None if segment_bias is None else segment_bias.double()
    )
    near(attention.segment_attention(q, k, v, None, seg_ptr, seg, segment_bias), expected)


@pytest.mark.parametrize("tile", [SMALL, Tile(32, 32, 4, 1), Tile(16, 16, 4, 1, True), Tile(32, 64, 4, 1, True)])
def test_keys_outside_the_segments_are_never_read(attention, tile):
    """Whatever lies there, behind a segment's end above all: the result is the same, bit for bit."""
    q, k, v, bias = draw(2, 2, 40, 150, 16)
    seg_ptr, seg = csr([(3, 17), (90, 40)], [(20, 1), (133, 16)])

    def call(q, k, v, bias):
        tensors = {"q": q, "k": k, "v": v, "key_bias": bias, "seg_ptr": seg_ptr, "seg": seg}
        return attention.run(tensors, Mode.SEGMENTS, tile, tile)

    assert torch.equal(call(q, k, v, bias), call(*poisoned((q, k.clone(), v.clone(), bias.clone()), seg)))


@BOTH
def test_alibi(attention, dtype):
    """Every frame reads every frame; the bias falls with the distance in time, at a rate of each head."""
    frames, tokens, heads = 4, 20, 4
    q, k, v, bias = draw(1, heads, frames * tokens, frames * tokens, 16, dtype)
    seg_ptr, seg = csr(*[[(f * tokens, tokens) for f in range(frames)]] * frames)
    distance = (torch.arange(frames)[:, None] - torch.arange(frames)).abs().flatten()
    segment_bias = (-(2.0 ** -torch.arange(1, heads + 1))[:, None] * distance).to(dtype)
    out = attention.segment_attention(q, k, v, bias, seg_ptr, seg, segment_bias)
    by_pair = (
        segment_bias.double().unflatten(1, (frames, frames)).repeat_interleave(tokens, 1).repeat_interleave(tokens, 2)
    )
    logits = torch.einsum("zand,zamd->zanm", *double(q, k)) / 4 + bias.double()[:, None, None] + by_pair
    near(out, logits.softmax(-1) @ v.double())


@pytest.mark.parametrize("rows", [None, BiasedRows(17, 5, 2.0)], ids=["all queries", "special rows"])
def test_a_sample_of_other_images(attention, rows, monkeypatch):
    """Published models' sparse attention: an image's queries (those of its special tokens alone, where the mask biases
    these) read the sampled keys of all images and the rest of their own."""
    sampling = sparse.Sampling(Layout(3, 1, 42, 56), 3, 4)
    q, k, v, bias = draw(1, 2, 3 * 17, 3 * 17, 16)
    expected = sampling.attend(*double(q, k, v, bias), rows)
    monkeypatch.setattr(sparse, "segment_attention", attention.segment_attention)
    near(sampling.attend(q, k, v, bias, rows), expected)


def test_groups_without_keys_give_zeros(attention):
    """No segments, empty segments, closed segments, closed keys; the group between is as if alone."""
    q, k, v, bias = draw(1, 2, 5 * 7, 60, 16)
    bias[:, 40:] = -INF
    seg_ptr, seg = csr([], [(5, 0), (60, 0)], [(3, 30)], [(0, 20), (20, 20)], [(40, 20)])
    segment_bias = torch.tensor([[0, 3, 1, -INF, -INF, 2]] * 2).half()
    out = attention.segment_attention(q, k, v, bias, seg_ptr, seg, segment_bias).unflatten(2, (5, 7))
    assert (out[:, :, [0, 1, 3, 4]] == 0).all()
    alone = attention.segment_attention(q[:, :, 14:21], k, v, bias, *csr([(3, 30)]), segment_bias[:, 2:3])
    assert torch.equal(out[:, :, 2], alone)
    without = attention.segment_attention(q, k, v, bias, seg_ptr, seg).unflatten(2, (5, 7))
    assert (without[:, :, [0, 1, 4]] == 0).all()
    near(
        without[:, :, 3], definition.biased_attention(*double(q[:, :, 21:28], k[:, :, :40], v[:, :, :40], bias[:, :40]))
    )


@pytest.mark.parametrize("size", [40.0, 1000.0, 65504.0])
def test_large_segment_biases(attention, size):
    """Up to the least finite float16, as masks are often written, on some of a row's segments or on all."""
    q, k, v, bias = draw(1, 2, 48, 60, 16)
    seg_ptr, seg = csr([(0, 20), (20, 20), (40, 20)], [(0, 20), (20, 20), (40, 20)], [(0, 25), (30, 30)])
    segment_bias = torch.tensor(
        [[-size, 0, -size, 0, -size, 0.5, -size, -size], [size, 0, size, -size, 1, 0, size, size]]
    ).half()
    out = attention.segment_attention(q, k, v, bias, seg_ptr, seg, segment_bias)
    near(out, one_by_one(q, k, v, bias, seg_ptr, seg, segment_bias))


def test_one_segment_of_all_keys_is_plain_attention(attention):
    q, k, v, bias = draw(2, 2, 40, 100, 16)
    tile = Tile(32, 32, 4, 1)
    plain = attention.run({"q": q, "k": k, "v": v, "key_bias": bias}, Mode.BIASED, tile, tile)
    whole = dict(zip(("seg_ptr", "seg"), csr([(0, 100)]), strict=True))
    assert torch.equal(
        plain, attention.run({"q": q, "k": k, "v": v, "key_bias": bias} | whole, Mode.SEGMENTS, tile, tile)
    )


def refused(call, what):
    with pytest.raises(UsageError, match=what):
        call()


def test_lists_that_are_refused(attention):
    q, k, v, bias = draw(1, 2, 8, 8, 16)
    seg_ptr, seg = csr([(0, 4)], [(4, 4)])
    refused(lambda: attention.segment_attention(q, k, v, bias, seg_ptr.long(), seg), "int32")
    refused(lambda: attention.segment_attention(q, k, v, bias, seg_ptr, seg.long()), "int32")
    refused(lambda: attention.segment_attention(q, k, v, bias, *csr([], [], [])), "equal groups")
    refused(
        lambda: attention.segment_attention(q, k, v, bias, seg_ptr, seg, torch.zeros(2, 3)),
        "segment_bias of SegmentAttention does not fit",
    )
    refused(
        lambda: attention.segment_attention(q, k, v, bias, seg_ptr, seg, torch.zeros(1, 2)),
        "segment_bias of SegmentAttention does not fit",
    )
    refused(lambda: attention.segment_attention(q, k, v, bias, seg_ptr[:1], seg), "equal groups")


def test_ranges_of_another_shape_are_refused(attention):
    """The kernel would read (start, length) from elsewhere."""
    q, k, v, bias = draw(1, 2, 8, 8, 16)
    seg_ptr, seg = csr([(0, 4)], [(4, 4)])
    refused(lambda: attention.segment_attention(q, k, v, bias, seg_ptr, seg.flatten()), "seg")
    refused(lambda: attention.segment_attention(q, k, v, bias, seg_ptr, torch.cat((seg, seg), dim=1)), "seg")
