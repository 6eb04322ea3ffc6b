"""Commands as a user runs them.

`started` runs one in a process of its own, `inside` in this one, where torch is imported already. What a process adds
is tested once for each command.
"""

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from page4d_engines import cli
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_export.commands.export import export_command

TINY = (
    *("--preset", "tiny", "--set", "depth=1", "--set", "encoder_depth=2", "--set", "global_layers="),
    *("--T", 3, "--V", 2, "--height", 56, "--width", 70),
)
"""Flags of an export that takes seconds: its graphs are those of `made`, traced already."""

_ENTRIES = {
    "page4d-run": "from page4d_engines.cli import main; main()",
    "page4d-export": "from page4d_export.main import export; export()",
    "page4d": "from page4d_export.main import main; main()",
}


def program(entry):
    """The words that start a command, before its arguments."""
    return [sys.executable, "-c", _ENTRIES[entry]]


def started(entry, *arguments, cwd=None, **environment):
    """`page4d-run`, `page4d-export` or `page4d`, ended."""
    command = [*program(entry), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, timeout=300
    )


def inside(*arguments, function=export_command):
    """`page4d-export`, or another command by its function or its typer application."""
    app = function if isinstance(function, typer.Typer) else cli.command(function)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, arguments)), catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def run(*arguments):
    """`page4d-run` inside this process, with threads of its own.

    A pool of the whole process would stay behind, and ONNX Runtime then refuses sessions of others.
    """
    pool_of = ThreadPool.of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadPool, "of", lambda threads=None, shared=False: pool_of(threads))
        return inside(*arguments, function=cli.run)


def refused(done, code, *messages):
    """What a wrong command has to do: end with its code and say the messages, on stderr alone."""
    assert done.returncode == code, done.stderr
    for message in messages:
        assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
