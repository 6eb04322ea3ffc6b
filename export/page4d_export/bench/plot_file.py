"""The PNG that `--plot` writes."""

from __future__ import annotations

import importlib.util
import io
import pathlib
from typing import Any

from page4d.errors import MissingBackendError, UsageError
from page4d.files import write_atomically


def check_plot(path: pathlib.Path) -> None:
    """Check before the measuring that the plot can be drawn.

    Raises:
        UsageError: not a .png in an existing folder.
        MissingBackendError: matplotlib is not installed.
    """
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise UsageError("--plot writes a PNG into an existing folder", got=path, allowed="FOLDER/FILE.png")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingBackendError("--plot draws with matplotlib", hint='pip install "page4d[peers]"')


def save_plot(figure: Any, path: pathlib.Path) -> None:
    """Write a matplotlib figure, whole or not at all; replaced where it exists."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    write_atomically(path, written.getvalue())
