"""A browser without a window: Chromium or Chrome, found on this machine, draws the page in software."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

from page4d.errors import MissingBackendError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Programs that are looked for, the first one found is taken."""

_FLAGS = (
    "--headless=new",
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have 64 MB of it
    "--hide-scrollbars",
    "--mute-audio",
)
_PATIENCE = 10.0  # seconds until a browser that does not end is killed


def find_browser() -> str:
    """Path of a browser.

    Raises:
        MissingBackendError: there is none.
    """
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    raise MissingBackendError(
        "pictures are drawn by Chromium or Chrome, and none is installed",
        got=f"none of {', '.join(NAMES)} on PATH",
        hint="apt-get install chromium (Debian), or google-chrome-stable (Ubuntu, where chromium is a snap)",
    )


@contextlib.contextmanager
def headless(url: str, size: tuple[int, int], flags: Sequence[str] = ()) -> Iterator[pathlib.Path]:
    """A browser that shows a page, which is ended at the block's end.

    Args:
        url: of the page.
        size: width and height of the window, in pixels.
        flags: more of Chromium's.

    Yields:
        The folder of its profile, which is deleted at the end.

    Raises:
        MissingBackendError: there is no browser.
    """
    browser = find_browser()
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium's sandbox does not start for root
    with tempfile.TemporaryDirectory(prefix="page4d-browser-", ignore_cleanup_errors=True) as profile:
        command = [browser, *_FLAGS, *root, *flags]
        command += [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}", url]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True) as process:
            try:
                yield pathlib.Path(profile)
            finally:
                process.terminate()
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
