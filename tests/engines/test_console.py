"""How commands end and speak, where something goes wrong that nobody foresaw."""

import logging
import subprocess
import sys
import time

import pytest
from rich.table import Table

from page4d_engines import console


@pytest.fixture
def project_level():
    project = logging.getLogger("page4d")
    before = project.level
    yield
    project.setLevel(before)


@pytest.mark.parametrize("verbose", [False, True])
def test_a_fault_of_ours_is_one_line_and_with_v_a_traceback(capsys, project_level, verbose):
    def body():
        with console.progress(quiet=True) as progress:
            progress.note("window 1 of 2: encoder", 0.0)
            raise KeyError("\x1b[2Jname")

    console.set_verbosity(verbose)
    assert console.run(body) == 1
    errors = capsys.readouterr().err
    line = r"this is a fault in page4d, while window 1 of 2: encoder: KeyError: '\x1b[2Jname'"
    assert f"page4d: {line}\n  try:     again with -v" in errors
    assert ("Traceback" in errors) == verbose and "\x1b" not in errors


@pytest.mark.parametrize(
    "text", ["std::bad_alloc", "can't start new thread", "Failed to allocate memory for requested buffer of size 1"]
)
def test_what_libraries_say_of_memory_is_exit_code_6(capsys, text):
    def body():
        raise RuntimeError(text)

    assert console.run(body) == 6
    assert capsys.readouterr().err.startswith("page4d: out of memory\n")


def test_names_with_escape_sequences_reach_no_terminal_raw(capsys):
    table = Table("stage")
    table.add_row("\x1b[31mview_sa\x07")
    console.table_console().print(table)
    console.table_console().print("[bold]\x1b[2J")
    console.say("\x1b[2Jgone")
    written = capsys.readouterr()
    assert "\x1b" not in written.out + written.err
    assert r"\x1b[31mview_sa" in written.out and r"\x1b[2Jgone" in written.err


def test_json_holds_names_that_are_no_text(capsysbinary):
    console.write_json({"frames": ["bad \udcff byte"]})
    assert b"bad \\\\udcff byte" in capsysbinary.readouterr().out


def test_a_process_is_as_old_as_its_caller_has_waited_for_it():
    """The clock has steps of 10 ms; what psutil alone says is up to a second too much."""
    code = "from page4d_engines import console; clock = console.process_clock(); print(clock.seconds)"
    started = time.perf_counter()
    seconds = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    waited = time.perf_counter() - started
    assert 0.2 * waited < seconds <= waited + 0.02
