"""What all commands share: how they end, how they show progress, where words and where JSON go."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from rich.console import Console
from safetensors import SafetensorError

from page4d.errors import ExitCode, Page4DError

_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal
_NO_SPACE = "no space left on the disk; nothing half-written was left\n  try:     free some, or -o on another disk"


def run(command: Callable[[], None]) -> int:
    """Run a command's body; the exit code. Every foreseen error becomes its message on stderr, never a traceback."""
    try:
        command()
    except Page4DError as error:
        return _end(error.exit_code, str(error))
    except KeyboardInterrupt:
        return _end(ExitCode.INTERRUPTED, "interrupted; nothing half-written was left")
    except MemoryError:
        return _end(ExitCode.OUT_OF_MEMORY, "out of memory\n  try:     a smaller --T, --V, --height or --width")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _end(ExitCode.FAILURE, _NO_SPACE)
        return _end(ExitCode.FAILURE, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except SafetensorError as error:  # has no errno
        if "No space left" not in str(error):
            raise
        return _end(ExitCode.FAILURE, _NO_SPACE)
    return ExitCode.OK


def _end(code: ExitCode, message: str) -> int:
    print(f"page4d: {message}", file=sys.stderr, flush=True)
    return code


def set_verbosity(verbose: bool, quiet: bool) -> None:
    """Log level of the project: warnings, everything with -v, errors alone with -q."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("page4d").setLevel(level)


def say(text: str, quiet: bool = False) -> None:
    """A line for a person, on stderr: stdout belongs to --json."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def process_age() -> float:
    """Seconds since this process began, interpreter and imports included; 0 where the system does not say (it is not Linux)."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def write_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    sys.stdout.flush()


def table_console(stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal, 140 columns elsewhere, so that files hold whole rows."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=140)


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere. Told what starts and the share that is done."""
    if quiet:
        yield lambda what, share: None
    elif sys.stderr.isatty():
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda what, share: bar.update(task, description=what, completed=share)
    else:
        started = last = time.monotonic()

        def line(what: str, share: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PLAIN_EVERY:
                last = now
                print(f"{share:4.0%}  {now - started:5.0f} s  {what}", file=sys.stderr, flush=True)

        yield line
