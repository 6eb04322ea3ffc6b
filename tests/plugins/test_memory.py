"""The kernel's memory in Triton's interpreter: any strides are read in place, and nothing else is touched."""

import mmap

import numpy as np
import pytest
import torch

import page4d.network.attention as definition
from page4d.errors import UsageError
from page4d.ops import BiasedRows
from page4d_plugins.launch_plan import Strides
from page4d_plugins.modes import Mode, Tile
from tests.support.kernel_cases import double, draw, named, near

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
SMALL = Tile(16, 16, 4, 1)
CSR = {
    "seg_ptr": torch.tensor([0, 1, 3], dtype=torch.int32),
    "seg": torch.tensor([[3, 20], [40, 9], [55, 1]], dtype=torch.int32),
}
CALLS = {  # tensors beside q, k, v; details
    Mode.DENSE: ((), {}),
    Mode.BIASED: (("key_bias",), {}),
    Mode.ROWS: (("key_bias",), {"rows": BiasedRows(7, 2, 3.0)}),
    Mode.EPIPOLAR: (("key_bias", "fundamental", "centres"), {"band": 3.0, "penalty": 2.0}),
    Mode.SEGMENTS: (("key_bias", "seg_ptr", "seg"), {}),
    Mode.SEGMENTS_BIASED: (("key_bias", "seg_ptr", "seg", "segment_bias"), {}),
    Mode.PARTIAL: ((), {}),
    Mode.PARTIAL_BIASED: (("key_bias",), {}),
}


@pytest.fixture
def touched(attention, monkeypatch):
    """Addresses that kernels read and write during a test, and the memory that is allocated meanwhile."""
    from triton.runtime import interpreter

    inner, empty = interpreter._interpreter, torch.empty
    touched = {"read": [], "written": [], "allocated": []}

    class Recorded:
        def __getattr__(self, name):
            return getattr(inner, name)

        def load(self, pointers, mask, *more):
            touched["read"].append(pointers[np.broadcast_to(mask, pointers.shape)].ravel())
            return inner.load(pointers, mask, *more)

        def store(self, pointers, value, mask):
            touched["written"].append(pointers[np.broadcast_to(mask, pointers.shape)].ravel())
            return inner.store(pointers, value, mask)

    def allocated(*sizes, **options):
        touched["allocated"].append(empty(*sizes, **options))
        return touched["allocated"][-1]

    monkeypatch.setattr(interpreter, "_interpreter", Recorded())
    monkeypatch.setattr(torch, "empty", allocated)
    return touched


def addresses(tensor):
    """Of every element, in the tensor's shape."""
    offsets = sum(
        np.arange(size).reshape([-1] + [1] * (tensor.dim() - axis - 1)) * tensor.stride(axis)
        for axis, size in enumerate(tensor.shape)
    )
    return (tensor.data_ptr() + tensor.element_size() * np.asarray(offsets)).astype(np.uint64)


@pytest.mark.parametrize("descriptors", [False, True])
@pytest.mark.parametrize("mode", CALLS)
def test_nothing_beside_the_tensors_is_touched(attention, plans, touched, mode, descriptors):
    """No row or key behind the last, no key outside the segments; all of the output is written."""
    names, details = CALLS[mode]
    m = 1100 if mode.partial else 70
    q, k, v, bias = draw(1, 2, 70, m, 16)
    everything = {
        "key_bias": bias,
        "fundamental": torch.zeros(2, 2, 3, 3),
        "centres": torch.zeros(35, 3),
        "segment_bias": torch.zeros(2, 3).half(),
    } | CSR
    tensors = named(q, k, v) | {name: everything[name] for name in names}
    asked = {Mode.PARTIAL: Mode.DENSE, Mode.PARTIAL_BIASED: Mode.BIASED}.get(mode, mode)
    tile = Tile(32, 256 if mode.partial else 32, 4, 1, descriptors)
    out = attention.run(tensors, asked, tile, tile, **details)
    assert plans[0].mode is mode
    read, written = np.unique(np.concatenate(touched["read"])), np.unique(np.concatenate(touched["written"]))
    assert touched["allocated"][0] is out
    (workspace,) = touched["allocated"][1:]
    if "seg" in names:
        kept = torch.cat([torch.arange(start, start + length) for start, length in CSR["seg"].tolist()])
        for tensor in (k, v):
            assert np.array_equal(
                read[np.isin(read, addresses(tensor))], np.sort(addresses(tensor)[:, :, kept].ravel())
            )
    else:
        assert np.isin(addresses(k), read).all()
        assert np.isin(addresses(v), read).all()
    assert np.isin(read, np.concatenate([addresses(tensor).ravel() for tensor in (*tensors.values(), workspace)])).all()
    assert np.isin(written, np.concatenate([addresses(out).ravel(), addresses(workspace)])).all()
    assert np.isin(addresses(out), written).all()
    assert np.isin(read[np.isin(read, addresses(workspace))], written).all()


@pytest.mark.parametrize("mode", CALLS)
def test_q_k_and_v_have_strides_of_their_own(attention, mode):
    """Each laid out in another way, the sequence first, last or in the middle: the bits of contiguous tensors."""
    names, details = CALLS[mode]
    m = 1100 if mode.partial else 42
    q, k, v, bias = draw(2, 2, 42, m, 16)
    lines = {"fundamental": torch.ones(2, 2, 3, 3), "centres": torch.arange(63.0).reshape(21, 3)}
    csr = {"seg_ptr": CSR["seg_ptr"], "seg": CSR["seg"] // 2, "segment_bias": torch.arange(6).reshape(2, 3).half()}
    more = {name: ({"key_bias": bias} | lines | csr)[name] for name in names}
    asked = {Mode.PARTIAL: Mode.DENSE, Mode.PARTIAL_BIASED: Mode.BIASED}.get(mode, mode)
    laid = {
        "q": q.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3),
        "k": k.permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3),
        "v": v,
    }
    assert all(
        len(set(strides)) == 3 for strides in list(zip(*(tensor.stride() for tensor in laid.values()), strict=True))[:3]
    )
    tile = Tile(32, 256 if mode.partial else 32, 4, 1)
    out = attention.run(laid | more, asked, tile, tile, **details)
    assert torch.equal(
        out, attention.run(named(q.contiguous(), k.contiguous(), v.contiguous()) | more, asked, tile, tile, **details)
    )


def test_packed_qkv_is_read_in_place(attention, plans):
    """[Z,n,3,A,D], as a linear layer leaves it: the kernel gets its strides, and gives the same bits."""
    Z, n, A, D = 2, 38, 2, 16
    packed = torch.randn(Z, n, 3, A, D, generator=torch.Generator().manual_seed(0)).half()
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    assert len({tensor.untyped_storage().data_ptr() for tensor in (q, k, v, packed)}) == 1
    for tile in (SMALL, SMALL._replace(descriptors=True)):
        out = attention.run(named(q, k, v), Mode.DENSE, tile, tile)
        launch = plans[-1].launches[-1]
        for name in "qkv":
            assert [launch.values[f"{name}_{axis}"] for axis in "zan"] == [n * 3 * A * D, D, 3 * A * D]
        if tile.descriptors:
            for name in ("KD", "VD"):
                assert launch.values[name].shape == (Z, A, n, D)
                assert launch.values[name].strides == (n * 3 * A * D, D, 3 * A * D, 1)
        assert out.is_contiguous()
        assert torch.equal(
            out, attention.run(named(*(tensor.contiguous() for tensor in (q, k, v))), Mode.DENSE, tile, tile)
        )
    near(out, definition.biased_attention(*double(q, k, v)))


def test_addresses_that_no_descriptor_takes_are_refused(attention):
    """A view that starts between two multiples of 16 bytes."""
    q, k, v, _ = draw(1, 2, 38, 38, 16)
    shifted = torch.zeros(k.numel() + 1, dtype=k.dtype)[1:].view(k.shape).copy_(k)
    with pytest.raises(
        UsageError, match=r"start at a multiple of 16 bytes\s+got:\s+k 2 bytes beyond one\s+try:\s+\.clone"
    ):
        attention.biased_attention(q, shifted, v)


def test_a_bias_with_strides(attention):
    q, k, v, _ = draw(2, 1, 20, 50, 16)
    bias = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)).half()[:, :, 1].T
    near(attention.biased_attention(q, k, v, bias), definition.biased_attention(*double(q, k, v, bias)))


@pytest.mark.parametrize("mode", [Mode.BIASED, Mode.SEGMENTS])
def test_offsets_beyond_32_bits(attention, monkeypatch, mode):
    """Rows 2^24 elements apart: offsets exceed 2^31 elements in each of q, k, v and the output."""
    from triton.runtime.interpreter import GridExecutor

    Z, A, n, D = 2, 2, 192, 16
    strides = Strides(2**31 + 2**10, 2**32 + 2**11, 2**24)
    no_reserve = 0x4000  # MAP_NORESERVE: pages exist once touched
    memory = mmap.mmap(-1, 20 * 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    everything = torch.frombuffer(memory, dtype=torch.float16)
    near_q, near_k, near_v, bias = draw(Z, A, n, n, D)
    far = {
        name: everything[64 * i :].as_strided((Z, A, n, D), (*strides, 1))
        for i, name in enumerate(("q", "k", "v", "out"))
    }
    for name, tensor in (("q", near_q), ("k", near_k), ("v", near_v)):
        far[name].copy_(tensor)
    seg_ptr, seg = (
        torch.tensor([0, 1, 2, 4], dtype=torch.int32),
        torch.tensor([[0, 40], [150, 42], [60, 33], [188, 4]], dtype=torch.int32),
    )
    lists = {"seg_ptr": seg_ptr, "seg": seg} if mode is Mode.SEGMENTS else {}
    empty, make = torch.empty, attention.make_plan
    monkeypatch.setattr(
        torch, "empty", lambda size, **options: far["out"] if size == near_q.shape else empty(size, **options)
    )
    monkeypatch.setattr(attention, "make_plan", lambda shape, *tiles: make(shape._replace(out=strides), *tiles))
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)  # would copy all of the memory onto itself
    out = attention.run(named(far["q"], far["k"], far["v"], bias) | lists, mode, Tile(32, 32, 4, 1), SMALL)
    assert out is far["out"]
    exact = double(near_q, near_k, near_v, bias)
    near(
        out.clone(),
        definition.segment_attention(*exact, seg_ptr, seg) if lists else definition.biased_attention(*exact),
    )
