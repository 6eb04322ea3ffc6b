"""`Progress`: what long work is at, and how much of it is done."""

from __future__ import annotations

from collections.abc import Callable


class Progress:
    """Told by long work what it begins; passes that on with the share of the whole that is done, from 0 to 1.

    Args:
        show: called with what is going on, as text, and the share from 0 to 1; None shows nothing.
        begin, end: shares of the whole that this progress covers.
        steps: `step` calls that fill it.
        label: stands before what is going on.
    """

    def __init__(
        self,
        show: Callable[[str, float], None] | None = None,
        begin: float = 0.0,
        end: float = 1.0,
        steps: int = 1,
        label: str = "",
    ) -> None:
        self._show, self._begin, self._end, self._steps, self._label = show, begin, end, steps, label
        self._done = 0

    def note(self, what: str, share: float) -> None:
        """`what` is going on, and this share of the work is done."""
        if self._show is not None:
            self._show(self._label + what, self._begin + (self._end - self._begin) * min(share, 1.0))

    def step(self, what: str) -> None:
        """The next of the steps begins."""
        self.note(what, self._done / self._steps)
        self._done += 1

    def part(self, begin: float, end: float, steps: int = 1, label: str = "") -> Progress:
        """The progress of a part of the work, from one share of it to another."""
        length = self._end - self._begin
        return Progress(
            self._show, self._begin + begin * length, self._begin + end * length, steps, self._label + label
        )


SILENT = Progress()
"""Shows nothing: for callers that want to hear nothing."""
