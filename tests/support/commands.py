"""Commands as a user runs them: in a process of their own, or in this one."""

import os
import re
import subprocess
import sys

from typer.testing import CliRunner

from page4d_engines import cli
from page4d_export.commands.export import export_command


def run(*arguments, cwd=None, **environment):
    command = [sys.executable, "-c", "from page4d_engines.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, timeout=120
    )


def refused(done, code, *messages):
    assert done.returncode == code, done.stderr
    for message in messages:
        assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def inside(*arguments, function=export_command):
    """A command in this process, where torch is imported and traces are shared; what a process of its own adds is seen
    once for each command."""
    done = CliRunner().invoke(cli.command(function), list(map(str, arguments)), catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def command(*arguments, entry="export", cwd=None):
    code = f"from page4d_export.main import {entry}; {entry}()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300
    )
