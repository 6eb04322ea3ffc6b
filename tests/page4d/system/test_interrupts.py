"""Signals that end a command, and streams that are not there."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from page4d.system.interrupts import exit_code, held_interrupts, raised_interrupts, reason
from page4d.system.plain_text import as_text, encodable, printable

CODES = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "the terminal was closed"),
}


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("number", CODES)
def test_every_ending_signal_is_an_exception_with_its_exit_code(number):
    before = signal.getsignal(number)
    with raised_interrupts() as raised, pytest.raises(KeyboardInterrupt) as interrupt:
        signal.raise_signal(number)
    assert (exit_code(interrupt.value), reason(interrupt.value)) == CODES[number]
    assert raised == [interrupt.value] and signal.getsignal(number) == before


@pytest.mark.parametrize("number", CODES)
def test_a_held_signal_waits_for_the_end_of_the_block(number):
    steps = []
    with raised_interrupts(), pytest.raises(KeyboardInterrupt) as interrupt:
        with held_interrupts() as held:
            signal.raise_signal(number)
            steps.append(held.asked)
        steps.append("not reached")
    assert steps == [True] and exit_code(interrupt.value) == CODES[number][0]
    with raised_interrupts(), held_interrupts() as held:
        pass
    assert not held.asked


def test_a_signal_that_is_ignored_stays_so():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raised_interrupts(), held_interrupts() as held:
            signal.raise_signal(signal.SIGHUP)
        assert not held.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_threads_hold_nothing():
    errors = []

    def work():
        try:
            with raised_interrupts(), held_interrupts():
                pass
        except ValueError as error:  # signals are the main thread's
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


@pytest.mark.parametrize("number", CODES)
def test_while_a_command_is_imported_a_signal_ends_it_in_one_line(number):
    code = "import sys, page4d_engines.entry; print('ready', flush=True); import time; time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == CODES[number][0] and errors == f"page4d: {CODES[number][1]}\n"


def test_a_signal_that_a_library_makes_another_exception_of_still_ends_the_command(capsys):
    from page4d_engines import console

    def body():
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(1)
        except KeyboardInterrupt:
            raise ImportError("numpy._core.multiarray failed to import") from None

    assert console.run(body) == 143
    assert capsys.readouterr().err == "page4d: terminated; nothing half-written was left\n"


def test_an_entry_point_imports_next_to_nothing():
    done = python("import sys, page4d_engines.entry, page4d_export.entry; print(*sorted(sys.modules))")
    assert not {"numpy", "typer", "rich", "msgspec", "PIL", "torch"} & set(done.stdout.split())


def test_a_program_that_cannot_be_loaded_says_so():
    done = python("from page4d.system.process import start; start('page4d_engines.no_such_module', 'main')")
    assert (
        done.returncode == 1
        and "the program cannot be loaded: No module named" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_are_opened_to_nowhere(closed, tmp_path):
    """So that no file which is opened later gets a stream's number, and with it what libraries write there."""
    code = (
        f"import sys; from page4d.system.process import begin; begin()\nfile = open({str(tmp_path / 'file')!r}, 'w');"
        " print('out'); print('err', file=sys.stderr); file.write(str(file.fileno())); file.close()"
    )

    def close():
        for descriptor in closed:
            os.close(descriptor)

    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=close,
        timeout=60,
        stdin=subprocess.DEVNULL,
        **({} if closed == (0, 1, 2) else {"capture_output": True}),
    )
    assert done.returncode == 0 and int((tmp_path / "file").read_text()) > 2


def test_text_from_outside_cannot_move_a_terminal():
    assert printable("a\x1b[2Jb\x9bc\x07d\re\u202ef\udcffg") == r"a\x1b[2Jb\x9bc\x07d\re" + r"\u202ef\udcffg"
    assert printable("кам 前\n\tx") == "кам 前\n\tx"
    assert as_text("bad \udcff") == r"bad \udcff" and encodable({"\udc80": ["\udcff", 1, None]}) == {
        r"\udc80": [r"\udcff", 1, None]
    }
