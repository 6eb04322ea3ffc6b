"""`page4d plugins`: packs built, listed, unpacked, and what is refused."""

import json

import pytest

from page4d_export.commands.plugins import app
from page4d_plugins.kernel_pack import SHIPPED, Pack
from tests.support.commands import inside, started


def plugins(*arguments):
    return inside(*arguments, function=app)


@pytest.mark.slow
def test_a_chip_built_again_has_the_shipped_code(tmp_path):
    """Every kernel of Orin, from the command line: the same machine code and records as in the package."""
    done = started("page4d", "plugins", "build", "--chip", "sm_87", "-o", tmp_path / "orin.tar.xz", "-j", 2)
    assert done.returncode == 0, done.stderr
    built, shipped = Pack.read(tmp_path / "orin.tar.xz"), Pack.read()
    assert len(built.kernels) == 36 and "36 kernels" in done.stderr
    assert built.header == shipped.header, "the package's pack is older than its source: page4d plugins build"
    for path, kernel in built.kernels.items():
        assert path.startswith("sm_87/") and kernel == shipped.kernels[path], path
    listed = plugins("list", tmp_path / "orin.tar.xz")
    assert listed.returncode == 0 and listed.stdout.count("sm_87") == 36
    assert "attention_segments_biased" in listed.stdout


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "pack.json").write_text("{}")
    done = plugins("build", "--chip", "ptx", "-o", tmp_path, "-j", 2)
    assert done.returncode == 2 and "not a folder of kernels" in done.stderr
    assert (tmp_path / "pack.json").read_text() == "{}"


@pytest.mark.slow
def test_a_folder_of_code_and_records(tmp_path):
    """As it would be unpacked from the package, in place of an earlier one; without its header it is none."""
    (tmp_path / "out").mkdir()
    older = Pack.read().files()
    (tmp_path / "out" / "pack.json").write_bytes(older["pack.json"])
    name = next(name for name in older if name.startswith("sm_90/") and name.endswith(".json"))
    (tmp_path / "out" / "sm_90").mkdir()
    (tmp_path / "out" / name).write_bytes(older[name])
    done = plugins("build", "--chip", "ptx,ptx", "-o", tmp_path / "out", "-j", 2, "--quiet")
    assert done.returncode == 0 and not done.stderr, done.stderr
    shipped = Pack.read().files()
    written = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert written == {
        name: content for name, content in shipped.items() if name == "pack.json" or name.startswith("ptx/")
    }
    (tmp_path / "out" / "pack.json").unlink()
    assert plugins("build", "--chip", "ptx", "-o", tmp_path / "out").returncode == 2


def test_list_and_unpack(tmp_path):
    document = json.loads(plugins("list", "--json").stdout)
    assert plugins("unpack", "-o", tmp_path / "out").returncode == 0
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == set(Pack.read().files()) and len(document["kernels"]) == (len(files) - 1) // 2
    for entry in document["kernels"]:
        name = f"{entry['chip']}/{entry['kernel']}_{entry['dtype']}"
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text()) == entry
        assert {f"{name}.cubin", f"{name}.ptx"} & files
    assert plugins("unpack", "-o", tmp_path / "out").returncode == 2, "not into a folder that holds something"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("build", "--chip", "sm_42", "-o", "x"), "sm_42"),
        (("build", "--chip", "sm_80"), "-o FOLDER"),
        (("build", "--chip", "sm_110", "-o", "x"), "newer Triton"),
        (("build", "-o", "nowhere/x.tar.xz"), "mkdir -p"),
        (("build", "-o", "nowhere/x"), "mkdir -p"),
        (("build", "-j", "0", "-o", "x"), "--jobs"),
        (("list", "/dev/null"), "/dev/null"),
    ],
)
def test_what_is_refused(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = SHIPPED.stat()
    done = plugins(*arguments)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()) and SHIPPED.stat() == before
