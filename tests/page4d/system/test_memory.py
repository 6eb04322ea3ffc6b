"""What this machine has free, and what this process holds."""

import numpy as np

from page4d.system import memory


def test_this_machine_has_some_memory_free():
    assert 1 << 20 < memory.available_memory() < 1 << 50


def test_a_large_array_is_held_and_leaves_a_peak():
    before = memory.resident_memory()
    array = np.ones(1 << 26, np.uint8)
    held = memory.resident_memory()
    assert held - before > array.nbytes * 0.9
    del array
    assert memory.peak_memory() >= held - (1 << 20)


def test_the_peak_is_told_where_the_system_has_no_status_file(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    assert memory.peak_memory() > 1 << 20
