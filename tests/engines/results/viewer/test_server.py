"""The page's server: where it listens, what it refuses, that it publishes nothing."""

import socket
import sys
import urllib.request

import pytest

from page4d.errors import MissingBackendError
from page4d_engines.results.viewer.server import LOOPBACK, address_of, free_port, require_viser, serving
from tests.support.clips import refusal


def test_a_page_is_served_where_it_was_asked_for_and_gone_afterwards(capsys):
    port = free_port()
    with serving(LOOPBACK, port) as server:
        assert server.get_port() == port
        with urllib.request.urlopen(address_of(LOOPBACK, port), timeout=30) as answer:
            assert b"<html" in answer.read()
    with pytest.raises(OSError):
        urllib.request.urlopen(address_of(LOOPBACK, port), timeout=5)
    assert capsys.readouterr().out == "", "stdout is for results"


def test_a_port_that_is_taken_is_an_error_in_words():
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]

        def serve():
            with serving(LOOPBACK, port):
                pass

        refusal(serve, "taken by another program", f"{LOOPBACK}:{port}", "--port")


def test_a_host_that_is_not_of_this_machine_is_an_error_in_words():
    def serve():
        with serving("192.0.2.1", free_port()):
            pass

    refusal(serve, "cannot be listened on", "192.0.2.1", "--host")


def test_no_client_can_make_the_page_public(monkeypatch):
    import viser._viser

    monkeypatch.setattr(viser._viser, "ViserTunnel", None)  # opening one would fail
    with serving(LOOPBACK, free_port()) as server:
        assert server.request_share_url() is None


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:8080"), ("0.0.0.0", "http://localhost:8080"), ("::1", "http://[::1]:8080")],
)
def test_the_address_is_one_that_a_browser_takes(host, address):
    assert address_of(host, 8080) == address


def test_without_viser_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    refusal(require_viser, "viser", "page4d[viewer]", kind=MissingBackendError)
