"""Signals that end a command (Ctrl-C, SIGTERM, SIGHUP): raised as exceptions, held back where that would do harm.

Imports the standard library alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}
_Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised like Ctrl-C, so that the same code cleans up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal ended: 130, 143 or 129."""
    return 128 + getattr(interrupt, "number", signal.SIGINT)


def reason(interrupt: KeyboardInterrupt) -> str:
    """What the signal did, as text: `interrupted`."""
    return _REASONS[signal.Signals(getattr(interrupt, "number", signal.SIGINT))]


def end_at_once() -> None:
    """Let signals end the process without a traceback, until `raised_interrupts`.

    For the time of imports, when there is nothing to clean up.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"page4d: {_REASONS[signal.Signals(number)]}\n".encode())
        os._exit(128 + number)

    _install(end)


@contextmanager
def raised_interrupts() -> Iterator[list[KeyboardInterrupt]]:
    """Within the block signals raise exceptions in the main thread: `KeyboardInterrupt`, or its subclass `Interrupted`.

    Yields the exceptions raised so far: a library that a signal interrupts may turn its exception into another.
    """
    raised: list[KeyboardInterrupt] = []

    def raise_interrupt(number: int, frame: FrameType | None) -> None:
        raised.append(KeyboardInterrupt() if number == signal.SIGINT else Interrupted(number))
        raise raised[-1]

    before = _install(raise_interrupt)
    try:
        yield raised
    finally:
        _restore(before)


class Held:
    """Whether a signal came."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def asked(self) -> bool:
        """Whether any of the signals came."""
        return self.number is not None


@contextmanager
def held_interrupts() -> Iterator[Held]:
    """Within the block signals only set `asked`; at its end they take effect. Only the main thread receives signals.

    Raises:
        KeyboardInterrupt: at the end, where a signal came.
    """
    held = Held()

    def remember(number: int, frame: FrameType | None) -> None:
        held.number = number

    before = _install(remember)
    try:
        yield held
    finally:
        _restore(before)
    if held.number is not None:
        signal.raise_signal(held.number)


def _install(handler: _Handler) -> dict[signal.Signals, object]:
    """Handle the signals that are not ignored (as under nohup); returns the handlers before."""
    before: dict[signal.Signals, object] = {}
    if threading.current_thread() is not threading.main_thread():
        return before
    for number in _ENDING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not Python's
            before[number] = signal.signal(number, handler)
    return before


def _restore(before: dict[signal.Signals, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
