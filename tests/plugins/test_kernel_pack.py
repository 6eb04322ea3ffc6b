"""The shipped pack: complete, of this source, lean machine code; what reads, writes, looks up and builds packs."""

import ctypes
import io
import itertools
import re
import struct
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d.ops import BIASED_INPUTS, SEGMENT_INPUTS, BiasedRows
from page4d_plugins.compile import compiler
from page4d_plugins.compile.cubin import parameter_table
from page4d_plugins.kernel_pack import PTX, SHIPPED, Entry, Header, Kernel, Pack, Parameter, shipped, targets, tile_chip
from page4d_plugins.launch_plan import Descriptor, Ref, Shape, Strides, make_plan
from page4d_plugins.launcher import plan_for
from page4d_plugins.modes import CHIPS, Dtype, Keys, Mode, Tile
from page4d_plugins.parameters import ParameterBlock
from tests.support.examples import examples

SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99, PTX: 99}
"""KiB of shared memory that one block may have (CUDA programming guide, technical specifications); PTX runs on any
chip."""
ADDRESSES = {
    name: 2**40 + 2**32 * i for i, name in enumerate(sorted({*BIASED_INPUTS, *SEGMENT_INPUTS, "out", "workspace"}))
}
PACKED = Strides(3 * 16 * 64 * 400, 64, 3 * 16 * 64)  # of one packed qkv


@pytest.fixture(scope="module")
def pack():
    return shipped()


def attention_kernels(pack, chip):
    found = [
        kernel
        for kernel in pack.kernels.values()
        if kernel.entry.chip == chip and kernel.entry.kernel.startswith("attention")
    ]
    assert len(found) == 2 * len(Mode)
    return found


# ---- what is shipped


def test_the_pack_belongs_to_the_source(pack):
    assert pack.header.source == compiler.source_hash(), "the pack is older than the kernels: page4d plugins build"


def test_the_pack_is_complete(pack):
    """Every kernel, type and chip; what the compiler does not know, PTX serves."""
    missing = [
        f"sm_{chip}" for chip in CHIPS if f"sm_{chip}" not in {kernel.entry.chip for kernel in pack.kernels.values()}
    ]
    assert missing == ["sm_110"]
    wanted = compiler.all_targets([chip for chip in targets() if chip not in missing])
    assert {(k.entry.kernel, k.entry.dtype, k.entry.chip) for k in pack.kernels.values()} == {
        (t.kernel, t.dtype.value, t.chip) for t in wanted
    }
    assert len(pack.kernels) == len(wanted) == 15 * 2 * 10
    for target in wanted:
        path = f"{target.chip}/{target.kernel}_{target.dtype.value}.{'ptx' if target.chip == PTX else 'cubin'}"
        entry = pack.kernels[path].entry
        assert entry.path == path
        assert (
            Tile(entry.tile.queries, entry.tile.keys, entry.tile.warps, entry.tile.stages, entry.tile.descriptors)
            == target.tile
        )


def test_machine_code_is_of_its_chip_and_fits_it(pack):
    """No spills, no more registers or shared memory than a block may have, no more parameters than a launch takes."""
    from elftools.elf.elffile import ELFFile

    for path, kernel in pack.kernels.items():
        entry = kernel.entry
        assert entry.spills == 0, path
        assert entry.registers * entry.threads <= 65536, path
        assert entry.registers <= 255, path
        assert entry.shared <= 1024 * SHARED[PTX if entry.chip == PTX else tile_chip(entry.chip)], path
        assert entry.threads == 32 * entry.tile.warps, path
        assert entry.parameters[-1].offset + entry.parameters[-1].size <= 4096, path
        if entry.chip == PTX:
            text = kernel.code.decode()
            assert re.findall(r"^\.target (\S+)", text, re.MULTILINE) == ["sm_80"], path
            assert re.findall(r"\.entry (\w+)\(", text) == [entry.entry], path
            assert len(re.findall(rf"\.param [^\n]*\b{entry.entry}_param_\d+,?$", text, re.MULTILINE)) == len(
                entry.parameters
            ), path
        else:
            elf = ELFFile(io.BytesIO(kernel.code))
            assert tile_chip(entry.chip) in (elf.header.e_flags & 0xFF, elf.header.e_flags >> 8 & 0xFF), path
            assert elf.get_section_by_name(f".text.{entry.entry}") is not None, path


@pytest.mark.parametrize(
    ("chip", "instruction"), [("sm_80", "HMMA"), ("sm_90", "HGMMA"), ("sm_100", "UTCHMMA"), ("sm_120", "HMMA")]
)
@pytest.mark.parametrize("name", ["attention_dense_fp16", "attention_epipolar_bf16"])
def test_products_run_on_the_matrix_units(pack, chip, instruction, name):
    """mma.sync, wgmma (for which K and V come by tensor map where that is faster), tcgen05; and nothing goes through
    local memory."""
    code = compiler.disassemble("nvdisasm", "-c", cubin=pack.kernels[f"{chip}/{name}.cubin"].code)
    used = set(re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)", code, re.MULTILINE))
    assert used & {"HMMA", "HGMMA", "UTCHMMA"} == {instruction}
    assert not used & {"LDL", "STL"}
    assert ("UTMALDG" in used) == (chip == "sm_90" and "dense" in name)
    assert ("UTMALDG" in used) == pack.kernels[f"{chip}/{name}.cubin"].entry.tile.descriptors


def test_tables_of_parameters_are_those_of_the_machine_code(pack):
    for path, kernel in pack.kernels.items():
        table = [(parameter.offset, parameter.size) for parameter in kernel.entry.parameters]
        if kernel.entry.chip == PTX:
            assert kernel.entry.parameters == pack.kernels[f"sm_80/{kernel.entry.name}.cubin"].entry.parameters, path
        else:
            assert parameter_table(kernel.code) == table, path
        assert all(first[0] + first[1] <= second[0] for first, second in itertools.pairwise(table)), path


# ---- building


@pytest.fixture(scope="module")
def few():
    """Kernels of each kind, for chips of three generations."""
    wanted = [
        ("sm_90", "attention_biased", "fp16"),
        ("sm_80", "attention_partial", "bf16"),
        ("sm_80", "prepare", "bf16"),
        (PTX, "merge", "fp16"),
    ]
    wanted += [("sm_90", "tokens_norm", "bf16"), ("sm_120", "heads", "fp16")]
    return [target for target in compiler.all_targets() if (target.chip, target.kernel, target.dtype.value) in wanted]


@pytest.fixture(scope="module")
def built(few):
    done = []
    pack = compiler.build(few, 2, done.append)
    assert len(few) == 6
    assert sorted(done) == sorted(few)
    return pack


@pytest.mark.slow
def test_building_twice_gives_equal_bytes(few, built):
    """Whatever the order and the number of processes; with no path of this machine in it."""
    again = compiler.build(few[::-1], 1)
    assert again.content() == built.content()
    assert not any(str(SHIPPED.parent).encode() in kernel.code for kernel in built.kernels.values())


def test_what_is_built_now_is_what_is_shipped(pack, built):
    if (pack.header.triton, pack.header.ptxas) != (built.header.triton, built.header.ptxas):
        pytest.skip(f"the pack was built by Triton {pack.header.triton}, this is {built.header.triton}")
    assert built.header.source == compiler.source_hash()
    for path, kernel in built.kernels.items():
        assert kernel == pack.kernels[path], f"{path}: page4d plugins build"


def test_the_source_hash_sees_code_and_neither_comments_nor_docstrings(monkeypatch, tmp_path):
    for name in ("attention_kernel.py", "row_kernel.py"):
        (tmp_path / name).write_text(SHIPPED.with_name(name).read_text())
    text = (tmp_path / "attention_kernel.py").read_text()
    monkeypatch.setattr(compiler, "_FOLDER", tmp_path)
    before = compiler.source_hash()
    (tmp_path / "attention_kernel.py").write_text(text.replace("import triton\n", "import triton  # the language\n", 1))
    assert compiler.source_hash() == before
    (tmp_path / "attention_kernel.py").write_text(text.replace('"""Grid (', '"""Launched as (', 1))
    assert compiler.source_hash() == before
    (tmp_path / "attention_kernel.py").write_text(text.replace("tl.maximum(top", "tl.minimum(top", 1))
    assert compiler.source_hash() != before
    (tmp_path / "attention_kernel.py").write_text(text)
    rows = (tmp_path / "row_kernel.py").read_text()
    (tmp_path / "row_kernel.py").write_text(rows.replace("half + half", "half - half", 1))
    assert compiler.source_hash() != before
    (tmp_path / "row_kernel.py").write_text(rows)
    assert compiler.source_hash() == before
    monkeypatch.setitem(CHIPS, 80, CHIPS[80]._replace(part=Tile(32, 32, 4, 2)))
    assert compiler.source_hash() != before


# ---- files


def test_a_pack_that_is_read_is_written_with_the_same_bytes(pack, tmp_path):
    pack.write(tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == SHIPPED.read_bytes()


def small_pack():
    def kernel(chip, code):
        entry = Entry(
            "merge",
            "fp16",
            chip,
            "merge",
            compiler.TileSize(1, 1, 4, 1, False),
            128,
            0,
            10,
            0,
            [Parameter("OUT", 0, 8, False)],
        )
        return Kernel(entry, code)

    kernels = [kernel("sm_80", b"eighty"), kernel("sm_90", b"ninety"), kernel(PTX, b"text")]
    return Pack(Header("source", "3.6.0", "V12.8"), {kernel.entry.path: kernel for kernel in kernels})


def test_a_pack_comes_back_from_its_file(tmp_path):
    made = small_pack()
    made.write(tmp_path / "small.tar.xz")
    found = Pack.read(tmp_path / "small.tar.xz")
    assert (found.header, found.kernels) == (made.header, made.kernels)
    found.unpack(tmp_path / "folder")
    files = {
        str(path.relative_to(tmp_path / "folder")): path.read_bytes()
        for path in (tmp_path / "folder").rglob("*")
        if path.is_file()
    }
    assert files == made.files()
    assert set(files) == {"pack.json"} | {
        f"{chip}/merge_fp16.{end}" for chip in ("sm_80", "sm_90") for end in ("cubin", "json")
    } | {f"ptx/merge_fp16.{end}" for end in ("ptx", "json")}


def damaged():
    """Packs that are none, by what was done to them."""
    whole = small_pack().content()

    def without(*names, **changed):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:xz") as archive:
            for name, content in (small_pack().files() | changed).items():
                if name not in names:
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    yield "empty", b""
    yield "cut", whole[: len(whole) // 2]
    yield "another byte", whole[:-60] + bytes([whole[-60] ^ 0xFF]) + whole[-59:]
    yield "no archive", b"kernels" * 100
    yield "no header", without("pack.json")
    yield "no code", without("sm_90/merge_fp16.cubin")
    yield "no JSON", without(**{"sm_90/merge_fp16.json": b"{"})
    yield "a field less", without(**{"pack.json": b'{"source": "x"}'})


@pytest.mark.parametrize(("how", "content"), list(damaged()), ids=[how for how, _ in damaged()])
def test_a_damaged_pack_is_refused(tmp_path, how, content):
    (tmp_path / "bad.tar.xz").write_bytes(content)
    with pytest.raises(UsageError, match=r"(?s)cannot be read.*bad\.tar\.xz.*page4d plugins build"):
        Pack.read(tmp_path / "bad.tar.xz")


def test_a_missing_pack_is_refused(tmp_path):
    for path in (tmp_path / "none.tar.xz", tmp_path):
        with pytest.raises(UsageError, match=r"(?s)cannot be read.*page4d plugins build"):
            Pack.read(path)


# ---- which kernel serves a GPU


def test_lookup(pack):
    """A chip's own code; the PTX for chips without, known and unknown."""
    for dtype in Dtype:
        for capability in (80, 86, 87, 89, 90, 100, 103, 120, 121):
            assert (
                pack.kernel("attention_dense", dtype, capability).entry.path
                == f"sm_{capability}/attention_dense_{dtype.value}.cubin"
            )
        for capability in (88, 91, 101, 110, 130):
            assert (
                pack.kernel("attention_dense", dtype, capability).entry.path == f"ptx/attention_dense_{dtype.value}.ptx"
            )
    with pytest.raises(UsageError, match=r"(?s)sm_75.*sm_80 or newer"):
        pack.kernel("attention_dense", Dtype.FLOAT16, 75)


def test_lookup_in_a_pack_of_some_chips():
    """A chip whose own code is left out has the PTX; never the code of another chip."""
    part = small_pack()
    assert [part.kernel("merge", Dtype.FLOAT16, chip).code for chip in (80, 90, 86, 110, 130)] == [
        b"eighty",
        b"ninety",
        b"text",
        b"text",
        b"text",
    ]
    del part.kernels["ptx/merge_fp16.ptx"]
    assert part.kernel("merge", Dtype.FLOAT16, 90).code == b"ninety"
    for name, dtype, capability in (
        ("merge", Dtype.FLOAT16, 86),
        ("merge", Dtype.FLOAT16, 130),
        ("merge", Dtype.BFLOAT16, 90),
        ("prepare", Dtype.FLOAT16, 90),
    ):
        with pytest.raises(
            UsageError, match=rf"(?s)lacks a kernel.*{name}_{dtype.value} for sm_{capability}.*page4d plugins build"
        ):
            part.kernel(name, dtype, capability)


def test_plans_are_of_the_kernels_that_serve(pack):
    """A grid covers the queries by the tile of the code that is launched, also where a chip's own is missing."""
    part = Pack(
        pack.header, {path: kernel for path, kernel in pack.kernels.items() if not path.startswith(("sm_87", "sm_90"))}
    )
    for found in (pack, part):
        for capability in (80, 86, 87, 88, 90, 100, 110, 120, 130):
            for mode in (mode for mode in Mode if not mode.partial):
                plan = plan_for(Shape(mode, Dtype.FLOAT16, 8, 16, 1000, 1000), capability, found)
                launch = next(launch for launch in plan.launches if launch.kernel.startswith("attention"))
                tile = found.kernel(launch.kernel, Dtype.FLOAT16, capability).entry.tile
                assert launch.grid[0] == -(-1000 // tile.queries), (capability, mode)
                assert (launch.values["KD"] is not None) == tile.descriptors, (capability, mode)


# ---- parameters


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
    encode = lambda descriptor, address: calls.append((descriptor, address)) or bytes([len(calls)]) * 128
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
