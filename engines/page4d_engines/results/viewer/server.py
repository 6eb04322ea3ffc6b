"""The web server of the page: viser's, without what it offers to the world."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from page4d.errors import MissingBackendError, UsageError

if TYPE_CHECKING:
    import viser

PORT, LOOPBACK = 8080, "127.0.0.1"


@contextlib.contextmanager
def serving(host: str, port: int) -> Iterator[viser.ViserServer]:
    """A server, which is stopped at the block's end.

    Args:
        host: the address to listen on.
        port: 1 to 65535.

    Raises:
        MissingBackendError: viser is not installed.
        UsageError: the port is taken or not for this user, or the host has no such address.
    """
    require_viser()
    from page4d_engines.results.viewer.private_server import PrivateServer

    refuse_busy(host, port)
    # browsers open connections that they do not use, and each would print a traceback
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):  # viser prints there, which is for results
        server = PrivateServer(host=host, port=port, label="page4d", verbose=False)
    try:
        if server.get_port() != port:  # somebody was faster; viser takes the next free one without a word
            raise _busy(host, port)
        yield server
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()


def require_viser() -> None:
    """Raise where the page cannot be shown.

    Raises:
        MissingBackendError: viser is not installed.
    """
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise MissingBackendError(
            "the viewer's page is drawn by viser, which is not installed",
            got=f"no module {error.name}",
            hint='pip install "page4d[viewer]"',
        ) from None


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def address_of(host: str, port: int) -> str:
    """The page's address, as a browser takes it."""
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def refuse_busy(host: str, port: int) -> None:
    """Raise unless a server can listen on a port.

    Raises:
        UsageError: the port is taken or not for this user, or the host has no such address.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no hindrance
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _busy(host, port) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UsageError("the port is for root alone", got=port, allowed="1024 to 65535") from None
        hint = "--host 127.0.0.1, or 0.0.0.0 for all addresses of this machine"
        raise UsageError(f"the host cannot be listened on: {error.strerror}", got=host, hint=hint) from None


def _busy(host: str, port: int) -> UsageError:
    hint = f"--port {port + 1 if port < 65535 else PORT}, or end the program that listens there"
    return UsageError("the port is taken by another program", got=f"{host}:{port}", hint=hint)
