"""The shipped pack: complete, of this source, lean machine code, and what the compiler builds anew."""

import io
import itertools
import re

import pytest

from page4d_plugins.compile import compiler
from page4d_plugins.compile.cubin import parameter_table
from page4d_plugins.kernel_pack import PTX, SHIPPED, targets, tile_chip
from page4d_plugins.modes import CHIPS, Tile

SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99, PTX: 99}  # PTX runs on any
"""KiB of shared memory that one block may have (CUDA programming guide, technical specifications)."""


def test_the_pack_belongs_to_the_source(pack):
    assert pack.header.source == compiler.source_hash(), "the pack is older than the kernels: page4d plugins build"


def test_the_pack_is_complete(pack):
    """Every kernel, type and GPU architecture; PTX serves what the compiler does not know."""
    missing = [
        f"sm_{chip}" for chip in CHIPS if f"sm_{chip}" not in {kernel.entry.chip for kernel in pack.kernels.values()}
    ]
    assert missing == ["sm_110"]
    all_targets = compiler.all_targets([chip for chip in targets() if chip not in missing])
    assert {(k.entry.kernel, k.entry.dtype, k.entry.chip) for k in pack.kernels.values()} == {
        (t.kernel, t.dtype.value, t.chip) for t in all_targets
    }
    assert len(pack.kernels) == len(all_targets) == (15 * 2 + 6) * 10
    for target in all_targets:
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
    """By mma.sync, wgmma (K and V by tensor map where that is faster) or tcgen05; nothing goes through local memory."""
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


# ---- built anew


@pytest.fixture(scope="module")
def few():
    """Kernels of each kind, for GPU architectures of three generations."""
    names = [
        ("sm_90", "attention_biased", "fp16"),
        ("sm_80", "attention_partial", "bf16"),
        ("sm_80", "prepare", "bf16"),
        (PTX, "merge", "fp16"),
    ]
    names += [("sm_90", "tokens_norm", "bf16"), ("sm_120", "heads", "fp16"), ("sm_90", "pixels_bayer", "u8")]
    return [target for target in compiler.all_targets() if (target.chip, target.kernel, target.dtype.value) in names]


@pytest.fixture(scope="module")
def built(few):
    done = []
    pack = compiler.build(few, 2, done.append)
    assert len(few) == 7
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
    (tmp_path / "pixels").mkdir()
    for name in ("attention_kernel.py", "row_kernel.py", "pixels/pixel_kernel.py"):
        (tmp_path / name).write_text((SHIPPED.parent / name).read_text())
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
    pixels = (tmp_path / "pixels/pixel_kernel.py").read_text()
    (tmp_path / "pixels/pixel_kernel.py").write_text(pixels.replace("852492", "852493", 1))
    assert compiler.source_hash() != before
    (tmp_path / "pixels/pixel_kernel.py").write_text(pixels)
    assert compiler.source_hash() == before
    monkeypatch.setitem(CHIPS, 80, CHIPS[80]._replace(part=Tile(32, 32, 4, 2)))
    assert compiler.source_hash() != before
