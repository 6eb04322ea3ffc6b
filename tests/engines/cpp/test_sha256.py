"""The C++ runtime's SHA-256 against Python's, by each of its methods that this CPU has: portable code, instructions."""

import hashlib
import pathlib
import platform
import shutil
import subprocess

import pytest

from tests.support.cpp.cmake_builds import run

SOURCE = pathlib.Path(__file__).parents[3] / "engines" / "cpp"
CONTENT = bytes(i % 251 for i in range(4200))


def check(printed):
    """Of every length around the borders of blocks, and of a few longer ones; returns the methods."""
    lengths: dict[str, int] = {}
    for line in printed.splitlines():
        method, length, digest = line.split()
        assert digest == hashlib.sha256(CONTENT[: int(length)]).hexdigest(), line
        lengths[method] = lengths.get(method, 0) + 1
    assert len(set(lengths.values())) == 1 and min(lengths.values()) > 400
    return list(lengths)


def cpu_has_instructions():
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return "sha_ni" in flags if platform.machine() == "x86_64" else "sha2" in flags


def test_digests_equal_pythons(cpp):
    methods = check(run(cpp / "tests" / "test_sha256", "digests"))
    assert methods == ["instructions", "portable"] if cpu_has_instructions() else ["portable"]


@pytest.mark.slow
def test_digests_of_a_64_bit_arm_cpu_equal_pythons(tmp_path):
    """Run by QEMU, where it is installed: the machine itself is another one."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    assert compiler, "test.sh installs it: g++-aarch64-linux-gnu"
    sources = [SOURCE / "tests" / "files" / "test_sha256.cpp", *(SOURCE / "src" / "files").glob("sha256*.cpp")]
    flags = ["-std=c++17", "-O2", "-static", "-march=armv8-a+crypto", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    folders = [f"-I{SOURCE / folder}" for folder in ("include", "src", "tests")]
    run(compiler, *flags, *folders, *sources, "-o", tmp_path / "digests")
    if not emulator:
        pytest.skip("qemu-aarch64-static is not installed (qemu-user-static, by test.sh): compiled only")
    assert check(run(emulator, tmp_path / "digests", "digests")) == ["instructions", "portable"]
    subprocess.run([emulator, tmp_path / "digests"], check=True)
