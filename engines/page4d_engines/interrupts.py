"""Ctrl-C held back where an exception in the middle would do harm: inside callbacks of C++ code, between two renames."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Held:
    """Whether somebody wants to interrupt."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def held_interrupts() -> Iterator[Held]:
    """Within the block Ctrl-C only sets `asked`; behind it, it raises as ever. Threads other than the main one get none anyway.

    Raises:
        KeyboardInterrupt: at the end, where it was asked for.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return

    def ask(number: int, frame: FrameType | None) -> None:
        held.asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
    if held.asked:
        raise KeyboardInterrupt
