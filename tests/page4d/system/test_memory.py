"""What is free: the kernel's own figure, by the lines of its file."""

import pytest

from page4d.system import memory

LINES = "MemTotal:       65536 kB\nMemFree:          100 kB\n"


@pytest.mark.parametrize(
    ("text", "free"),
    [(f"{LINES}MemAvailable:   32768 kB\nCached: 1 kB\n", 32 << 20), (f"{LINES}Cached: 1 kB\n", None), ("", None)],
)
def test_pages_of_files_count_as_free(text, free, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.available_memory() is None, "there is no such file, as where the system is not Linux"
    (tmp_path / "meminfo").write_text(text)
    assert memory.available_memory() == free


def test_this_machine_says():
    assert memory.available_memory() > 1 << 20
