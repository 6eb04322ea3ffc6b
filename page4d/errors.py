"""Every error for users, and the exit code of a command that it ends."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the commands return to the shell."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    ACCURACY = 3
    INCOMPATIBLE = 4
    MISSING_BACKEND = 5
    OUT_OF_MEMORY = 6
    HANGUP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class Page4DError(Exception):
    """Base of all errors for users; any other exception is a bug.

    Args:
        what: what was wrong, one clause, naming the thing (a flag, a file, a camera, a stage).
        got: the value that was given.
        allowed: what would have been accepted.
        hint: what to do next, best as a command to type.
    """

    exit_code = ExitCode.FAILURE

    def __init__(self, what: str, *, got: object = None, allowed: object = None, hint: str | None = None) -> None:
        self.what, self.got, self.allowed, self.hint = what, got, allowed, hint
        text = what
        if got is not None:
            text += f"\n  got:     {got}"
        if allowed is not None:
            text += f"\n  allowed: {allowed}"
        if hint is not None:
            text += f"\n  try:     {hint}"
        super().__init__(text)


class UsageError(Page4DError, ValueError):
    """Flags, frames, masks, cameras or arguments of a call that cannot be used."""

    exit_code = ExitCode.USAGE


class AccuracyError(Page4DError):
    """A stage differs from the reference by more than its tolerance."""

    exit_code = ExitCode.ACCURACY


class EngineError(Page4DError):
    """The engine folder is incomplete, damaged, or for another machine."""

    exit_code = ExitCode.INCOMPATIBLE


class MissingBackendError(Page4DError, ImportError):
    """A backend or an optional dependency that was asked for is not installed."""

    exit_code = ExitCode.MISSING_BACKEND


class OutOfMemoryError(Page4DError, MemoryError):
    """The machine has too little memory for what was asked."""

    exit_code = ExitCode.OUT_OF_MEMORY
