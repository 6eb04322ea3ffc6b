"""`page4d view` as a user runs it."""

import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from page4d.errors import ExitCode
from page4d_engines.commands.view import view_command
from page4d_engines.results.viewer.server import free_port
from tests.engines.results.viewer.headless_page import needs_browser, until
from tests.support.commands import inside, program


def view(*arguments):
    return inside(*arguments, function=view_command)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, ExitCode.TERMINATED)])
def test_the_page_is_served_until_a_signal_ends_it(true_run, number, code):
    port = free_port()
    command = [*program("page4d"), "view", str(true_run.out), "--port", str(port), "--no-browser", "--max-points", "99"]
    environment = {**os.environ, "DISPLAY": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        told = until(server.stderr.readline)
        assert "99 of" in told and "--max-points" in told
        assert f"http://127.0.0.1:{port}" in until(server.stderr.readline)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
            assert b"<html" in answer.read()
        server.send_signal(number)
        out, err = server.communicate(timeout=30)
    assert server.returncode == code
    assert out == "" and "Traceback" not in err


def test_a_recording_is_written_and_nothing_served(true_run, tmp_path):
    pytest.importorskip("rerun")
    done = view(true_run.out, "--rerun", tmp_path / "run.rrd")
    assert done.returncode == 0 and (tmp_path / "run.rrd").stat().st_size > 10_000
    assert "run.rrd" in done.stderr


def test_pictures_are_not_written_into_a_folder_that_holds_something(true_run, tmp_path):
    needs_browser()
    (tmp_path / "notes.txt").write_text("mine")
    done = view(true_run.out, "--screenshot", tmp_path)
    assert done.returncode == ExitCode.USAGE and "is not empty" in done.stderr
    inside_run = view(true_run.out, "--screenshot", true_run.out / "pictures")
    assert inside_run.returncode == ExitCode.USAGE and "the run" in inside_run.stderr


@pytest.mark.parametrize(
    ("package", "flags"), [("viser", ()), ("viser", ("--screenshot", "pictures")), ("rerun", ("--rerun", "run.rrd"))]
)
def test_what_is_missing_is_named_before_anything_is_read(package, flags, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    done = view("no-such-run", *flags)
    assert done.returncode == ExitCode.MISSING_BACKEND
    assert f"page4d[{'viewer' if package == 'viser' else 'rerun'}]" in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = view(tmp_path, "--port", free_port())
    assert done.returncode == ExitCode.USAGE and "summary" in done.stderr


def test_a_clip_that_has_moved_is_named_with_its_flag(true_run, tmp_path):
    done = view(true_run.out, "--port", free_port(), "--frames", tmp_path)
    assert done.returncode == ExitCode.USAGE and "--frames" in done.stderr
