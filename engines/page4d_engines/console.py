"""What all commands share: how they end, how they show progress, where text and where JSON go."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from safetensors import SafetensorError

from page4d.errors import ExitCode, Page4DError
from page4d.system.interrupts import exit_code, raised_interrupts, reason
from page4d.system.plain_text import json_document, printable
from page4d.system.progress import SILENT, Progress
from page4d_engines.timing import Stopwatch

_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal
_NO_SPACE = "no space left on the disk; nothing half-written was left\n  try:     free some, or -o on another disk"
_NO_MEMORY = "out of memory\n  try:     a smaller --T, --V, --height or --width"
_LIBRARIES_WITHOUT_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "can't start new thread",
    "DefaultCPUAllocator",
)
_LOG = logging.getLogger("page4d")
_activity: list[str] = []
"""What is going on, as progress last showed it: for the report of a fault."""


def run(command: Callable[[], None]) -> int:
    """Run a command's body; the exit code.

    Every error and every signal becomes a message on stderr, never a traceback (-v prints it).
    """
    try:
        with raised_interrupts() as raised:
            return worded(command, raised)
    except KeyboardInterrupt as interrupt:  # while the message of another one was printed
        return exit_code(interrupt)


def worded(command: Callable[[], None], raised: Sequence[KeyboardInterrupt] = ()) -> int:
    """As `run`, without handlers of signals; `raised` are the signals that became exceptions so far."""
    try:
        try:
            command()
            sys.stdout.flush()
        except Exception:
            if raised:
                raise raised[0] from None
            raise
    except Page4DError as error:
        return _end(error.exit_code, str(error))
    except KeyboardInterrupt as interrupt:
        return _end(exit_code(interrupt), f"{reason(interrupt)}; nothing half-written was left")
    except MemoryError:
        return _end(ExitCode.OUT_OF_MEMORY, _NO_MEMORY)
    except BrokenPipeError:  # who read stdout has read enough; stderr never raises it
        _silence(sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _end(ExitCode.FAILURE, _NO_SPACE)
        return _end(ExitCode.FAILURE, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        return _fault(error)
    finally:
        _activity.clear()
    return ExitCode.OK


def _fault(error: Exception) -> int:
    """The end after an unforeseen error: a library that ran out of something, or a fault of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, SafetensorError) and ("No space left" in text or "I/O error" in text):  # has no errno
        return _end(ExitCode.FAILURE, _NO_SPACE if "No space left" in text else text)
    if any(sign in text for sign in _LIBRARIES_WITHOUT_MEMORY):
        return _end(ExitCode.OUT_OF_MEMORY, f"{_NO_MEMORY}\n  got:     {text[:200]}")
    if _LOG.isEnabledFor(logging.DEBUG):
        say(traceback.format_exc())
    during = f", while {_activity[-1]}" if _activity else ""
    what = f"this is a fault in page4d{during}: {type(error).__name__}: {text[:300]}"
    return _end(
        ExitCode.FAILURE,
        f"{what}\n  try:     again with -v, and report what it prints with the output of page4d doctor --json",
    )


def _end(code: int, message: str) -> int:
    say(f"page4d: {message}")
    return code


def flush_streams() -> None:
    """Before the process ends: text that a stream still holds and cannot write does not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                _silence(stream.fileno())


def _silence(descriptor: int) -> None:
    """Discard what Python still flushes to a stream that nobody reads any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_verbosity(verbose: bool, quiet: bool = False) -> None:
    """Log level of the project: warnings, everything with -v, errors alone with -q."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_PrintableFormatter("%(name)s: %(message)s"))
    logging.raiseExceptions = verbose  # a log line that nobody can read stops nothing
    _LOG.setLevel(level)


def say(text: str, quiet: bool = False) -> None:
    """A line for a person, on stderr: stdout belongs to --json.

    Where it cannot be written (a closed pipe, a full disk) it is lost, and nothing stops.
    """
    if not quiet:
        with contextlib.suppress(OSError, ValueError):
            print(printable(text), file=sys.stderr, flush=True)


def process_clock() -> Stopwatch:
    """Since this process began, interpreter and imports included."""
    import psutil  # late: --help need not wait for it

    # psutil adds when the machine started, cut to whole seconds: the difference of the two has no such error
    started = psutil.Process().create_time() - psutil.boot_time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    return Stopwatch(time.perf_counter() - age)


@contextlib.contextmanager
def stdout() -> Iterator[None]:
    """Within the block a failure to write is stdout's, and the error says so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence(sys.stdout.fileno())
        raise Page4DError(f"stdout cannot be written: {error.strerror}") from None


def write_json(document: Any) -> None:
    """One JSON document on stdout; undecodable bytes of file names are escaped."""
    text = json_document(document)
    with stdout():
        sys.stdout.buffer.write(text)
        sys.stdout.flush()


class _Printable:
    """A table or text of rich, with names from outside in a form that a terminal can take."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _TableConsole(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError

    def print(self, *objects: Any, **options: Any) -> None:
        texts = [
            self.render_str(item, markup=options.get("markup")) if isinstance(item, str) else item for item in objects
        ]
        with contextlib.suppress(OSError) if self.stderr else stdout():
            super().print(*map(_Printable, texts), **options)


def table_console(stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal, 140 columns elsewhere, so that files hold whole rows."""
    console = _TableConsole(stderr=stderr, highlight=False)
    return console if console.is_terminal else _TableConsole(stderr=stderr, highlight=False, width=140)


def table(title: str | None, left: Sequence[str], right: Sequence[str], **options: Any) -> Table:
    """An empty table: columns of text, then columns of numbers; `options` are those of `rich.table.Table`."""
    columns = Table(title=title, title_justify="left", **options)
    for name in left:
        columns.add_column(name)
    for name in right:
        columns.add_column(name, justify="right")
    return columns


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""
    with _shown(quiet) as show:

        def tell(what: str, share: float) -> None:
            _activity[:] = [what]
            show(what, share)

        yield Progress(tell)


@contextlib.contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    if quiet:
        yield SILENT.note
    elif sys.stderr.isatty():
        from rich import progress as bars
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda what, share: bar.update(task, description=escape(printable(what)), completed=share)
    else:
        started = last = time.monotonic()

        def line(what: str, share: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PLAIN_EVERY:
                last = now
                say(f"{share:4.0%}  {now - started:5.0f} s  {what}")

        yield line
