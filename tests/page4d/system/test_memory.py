"""What this machine has free, and what this process holds."""

import mmap

from page4d.system import memory


def test_this_machine_has_some_memory_free():
    assert 1 << 20 < memory.available_memory() < 1 << 50


def test_pages_that_are_written_are_held_and_leave_a_peak():
    size = 1 << 26
    before = memory.resident_memory()
    # Fresh pages of the system: an array may lie in pages that the process freed and still holds.
    with mmap.mmap(-1, size) as pages:
        pages.write(b"\1" * size)
        held = memory.resident_memory()
        assert held - before > size * 0.9
    assert memory.peak_memory() >= held - (1 << 20)


def test_the_peak_is_told_where_the_system_has_no_status_file(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    assert memory.peak_memory() > 1 << 20
