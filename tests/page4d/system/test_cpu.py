"""The CPU as Linux describes it."""

import pytest

from page4d.system import cpu

TEXT = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu avx2 avx512_vnni

processor\t: 1
model name\t: another core
flags\t\t: fpu
"""


@pytest.fixture
def described(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    cpu._facts.cache_clear()
    yield tmp_path / "cpuinfo"
    cpu._facts.cache_clear()


def test_the_first_core_speaks_for_all(described):
    described.write_text(TEXT)
    assert cpu.cpu_name() == "Some CPU @ 2.00GHz" and cpu.cpu_features() == {"fpu", "avx2", "avx512_vnni"}


def test_a_system_that_does_not_say_has_a_name_and_no_features(described):
    assert cpu.cpu_name() and cpu.cpu_features() == frozenset()
