"""The file of a pack: written, read and refused; which of its kernels serves a GPU."""

import io
import tarfile

import pytest

from page4d.errors import UsageError
from page4d_plugins.compile import compiler
from page4d_plugins.kernel_pack import PTX, SHIPPED, Entry, Header, Kernel, Pack, Parameter
from page4d_plugins.launch_plan import Shape
from page4d_plugins.launcher import plan_for
from page4d_plugins.modes import Dtype, Mode


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
    pack = small_pack()
    pack.write(tmp_path / "small.tar.xz")
    read = Pack.read(tmp_path / "small.tar.xz")
    assert (read.header, read.kernels) == (pack.header, pack.kernels)
    read.unpack(tmp_path / "folder")
    files = {
        str(path.relative_to(tmp_path / "folder")): path.read_bytes()
        for path in (tmp_path / "folder").rglob("*")
        if path.is_file()
    }
    assert files == pack.files()
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
    """A GPU architecture's own code; PTX for those without, known and unknown."""
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
    """A GPU whose own code is left out has the PTX, never the code of another architecture."""
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
    """A grid covers the queries by the tile of the code that is launched, also where that is PTX."""
    part = Pack(
        pack.header, {path: kernel for path, kernel in pack.kernels.items() if not path.startswith(("sm_87", "sm_90"))}
    )
    for kernels in (pack, part):
        for capability in (80, 86, 87, 88, 90, 100, 110, 120, 130):
            for mode in (mode for mode in Mode if not mode.partial):
                plan = plan_for(Shape(mode, Dtype.FLOAT16, 8, 16, 1000, 1000), capability, kernels)
                launch = next(launch for launch in plan.launches if launch.kernel.startswith("attention"))
                tile = kernels.kernel(launch.kernel, Dtype.FLOAT16, capability).entry.tile
                assert launch.grid[0] == -(-1000 // tile.queries), (capability, mode)
                assert (launch.values["KD"] is not None) == tile.descriptors, (capability, mode)
