"""The entry point of `page4d-run`: light, so that from the first moment on Ctrl-C ends it with a message."""

from page4d.system.interrupts import end_at_once

end_at_once()  # before anything else is imported: a command has begun

from page4d.system.process import start  # noqa: E402


def run() -> None:
    """`page4d-run`."""
    start("page4d_engines.cli", "main")
