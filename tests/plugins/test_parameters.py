"""The parameters of a launch: laid out as the machine code of the shipped pack reads them."""

import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.ops import BIASED_INPUTS, SEGMENT_INPUTS, BiasedRows
from page4d_plugins.kernel_pack import PTX, Parameter, targets, tile_chip
from page4d_plugins.launch_plan import Descriptor, Ref, Shape, Strides, make_plan
from page4d_plugins.modes import CHIPS, Dtype, Keys, Mode
from page4d_plugins.parameters import ParameterBlock
from tests.support.examples import examples

ADDRESSES = {
    name: 2**40 + 2**32 * i for i, name in enumerate(sorted({*BIASED_INPUTS, *SEGMENT_INPUTS, "out", "workspace"}))
}
PACKED = Strides(3 * 16 * 64 * 400, 64, 3 * 16 * 64)  # of one packed qkv


def shape_of(mode, dtype):
    """A call that ends in the mode, parts included; q, k and v are views of one packed qkv."""
    whole = {Mode.PARTIAL: Mode.DENSE, Mode.PARTIAL_BIASED: Mode.BIASED}.get(mode, mode)
    shape = Shape(whole, dtype, 2, 16, 400, 400, q=PACKED, k=PACKED, v=PACKED)
    if mode.partial:
        return shape._replace(A=1, n=32, m=21_984, k=None)
    if mode is Mode.ROWS:
        return shape._replace(rows=BiasedRows(100, 5, 64.0))
    if mode.keys is Keys.VIEWS:
        return shape._replace(groups=4, band=3.0, penalty=2.5)
    return shape._replace(groups=5, segments=17) if mode.keys is Keys.SEGMENTS else shape


def expected(parameter, values):
    """What a parameter's bytes say, read straight from the plan."""
    name, _, part = parameter.name.partition(".")
    value = values.get(name)
    if part:
        return getattr(value, {"shape": "shape", "strid": "strides"}[part[:5]])[int(part[-1])]
    return ADDRESSES[value.tensor] + value.offset if isinstance(value, Ref) else value


@pytest.mark.parametrize("chip", [chip for chip in targets() if chip != "sm_110"])
def test_every_launch_is_laid_out_as_its_kernel_reads_it(pack, chip):
    encoded = {}

    def encode(descriptor, address):
        encoded[descriptor.tensor] = (descriptor, address)
        return struct.pack("<QQ", address, descriptor.keys) * 8

    for mode in Mode:
        for dtype in Dtype:
            table = CHIPS[tile_chip(chip)]
            shape = shape_of(mode, dtype)
            plan = make_plan(shape, table.of(shape.mode), table.part)
            assert plan.mode is mode
            for launch in plan.launches:
                entry = pack.kernels[f"{chip}/{launch.kernel}_{dtype.value}.{'ptx' if chip == PTX else 'cubin'}"].entry
                block = ParameterBlock(entry.parameters, launch.values)
                block.point(ADDRESSES, encode)
                slots = (ctypes.c_uint64 * len(entry.parameters)).from_address(block.address)
                for i, parameter in enumerate(entry.parameters):
                    raw = ctypes.string_at(slots[i], parameter.size)
                    assert raw == block.bytes_of(i)
                    if not parameter.name:
                        assert raw == bytes(parameter.size)
                    elif parameter.size == 128:
                        descriptor = launch.values[parameter.name]
                        assert slots[i] % 128 == 0
                        assert encoded[descriptor.tensor] == (descriptor, ADDRESSES[descriptor.tensor])
                        assert raw == struct.pack("<QQ", ADDRESSES[descriptor.tensor], table.of(mode).keys) * 8
                    elif parameter.floating:
                        assert struct.unpack("<f", raw)[0] == pytest.approx(
                            expected(parameter, launch.values), rel=1e-7
                        )
                    else:
                        assert int.from_bytes(raw, "little", signed=True) == expected(parameter, launch.values), (
                            entry.path,
                            parameter,
                        )
                assert {parameter.name for parameter in entry.parameters if parameter.size == 128} == (
                    {"KD", "VD"} if entry.tile.descriptors else set()
                )


def test_numbers_of_one_launch(pack):
    """Named and read back one by one: a view of a packed qkv, on Hopper."""
    table = CHIPS[90]
    launch = make_plan(shape_of(Mode.ROWS, Dtype.FLOAT16), table.tile, table.part).launches[-1]
    entry = pack.kernels["sm_90/attention_rows_fp16.cubin"].entry
    block = ParameterBlock(entry.parameters, launch.values)
    block.point(ADDRESSES, lambda descriptor, address: bytes(range(128)))
    raw = {parameter.name: block.bytes_of(i) for i, parameter in enumerate(entry.parameters) if parameter.name}
    assert struct.unpack("<f", raw["scale"])[0] == pytest.approx(1.4426950408889634 / 8, rel=1e-7)
    assert struct.unpack("<f", raw["gain"])[0] == 64.0
    assert struct.unpack("<qqq", raw["q_z"] + raw["q_a"] + raw["out_z"]) == (3 * 16 * 64 * 400, 64, 16 * 400 * 64)
    assert struct.unpack(
        "<iiiiii", raw["q_n"] + raw["out_n"] + raw["rows"] + raw["heads"] + raw["period"] + raw["leading"]
    ) == (3072, 64, 400, 16, 100, 5)
    assert struct.unpack("<QQQ", raw["Q"] + raw["OUT"] + raw["BIAS"]) == (
        ADDRESSES["q"],
        ADDRESSES["out"],
        ADDRESSES["workspace"],
    )
    assert raw["KD"] == raw["VD"] == bytes(range(128))
    assert struct.unpack("<iiii", b"".join(raw[f"KD.shape{i}"] for i in range(4))) == (2, 16, 400, 64)
    assert struct.unpack("<qqqq", b"".join(raw[f"KD.stride{i}"] for i in range(4))) == (3 * 16 * 64 * 400, 64, 3072, 1)


def test_addresses_are_written_when_they_change():
    described = Descriptor("k", (1, 1, 8, 64), (512, 512, 64, 1), 8)
    parameters = [Parameter("Q", 0, 8, False), Parameter("KD", 64, 128, False), Parameter("n", 192, 4, False)]
    block = ParameterBlock(parameters, {"Q": Ref("q", 256), "KD": described, "n": -5})
    calls = []

    def encode(descriptor, address):
        return calls.append((descriptor, address)) or bytes([len(calls)]) * 128

    for address in (4096, 4096, 8192):
        block.point({"q": address, "k": 2 * address}, encode)
        assert struct.unpack("<Q", block.bytes_of(0)) == (address + 256,)
    assert calls == [(described, 8192), (described, 16384)]
    assert block.bytes_of(1) == bytes([2]) * 128
    assert struct.unpack("<i", block.bytes_of(2)) == (-5,)


def test_values_that_a_kernel_does_not_fit_are_errors():
    """Of the program, not of its user: a name the plan lacks, an address in four bytes, a number too large."""
    with pytest.raises(KeyError, match="rows"):
        ParameterBlock([Parameter("rows", 0, 4, False)], {"n": 1})
    with pytest.raises(ValueError, match="KD is 8 bytes"):
        ParameterBlock([Parameter("KD", 0, 8, False)], {"KD": Descriptor("k", (1, 1, 1, 1), (1, 1, 1, 1), 1)})
    with pytest.raises(ValueError, match="Q is 4 bytes"):
        ParameterBlock([Parameter("Q", 0, 4, False)], {"Q": Ref("q")})
    with pytest.raises(OverflowError):
        ParameterBlock([Parameter("n", 0, 4, False)], {"n": 2**31})


@examples(40)
@given(
    st.lists(
        st.one_of(st.integers(-(2**31), 2**31 - 1), st.floats(width=32, allow_nan=False), st.none()),
        min_size=1,
        max_size=40,
    )
)
def test_any_numbers_come_back(values):
    """Eight bytes hold what four do; a missing value is a null."""
    parameters = [
        Parameter(f"p{i}", 8 * i, 4 if isinstance(value, float) else (4, 8)[i % 2], isinstance(value, float))
        for i, value in enumerate(values)
    ]
    block = ParameterBlock(parameters, {f"p{i}": value for i, value in enumerate(values)})
    for i, (parameter, value) in enumerate(zip(parameters, values, strict=True)):
        raw = block.bytes_of(i)
        assert len(raw) == parameter.size
        assert (struct.unpack("<f", raw)[0] if parameter.floating else int.from_bytes(raw, "little", signed=True)) == (
            value or 0
        )
