"""The entry points of `page4d-export` and `page4d`: light, so that Ctrl-C ends them without a traceback at any time."""

from page4d.system.interrupts import end_at_once

end_at_once()  # before anything else is imported: a command has begun

from page4d.system.process import start  # noqa: E402


def export() -> None:
    """`page4d-export`."""
    start("page4d_export.main", "export")


def main() -> None:
    """`page4d`."""
    start("page4d_export.main", "main")
