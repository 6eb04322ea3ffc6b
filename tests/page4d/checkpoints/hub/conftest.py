"""A hub on loopback that the real client talks to, with an empty cache."""

import pytest

from tests.support.hub_server import serving


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub. The client read its environment when it was imported: what it made of it is set here."""
    constants = pytest.importorskip("huggingface_hub.constants")
    cache = tmp_path / "cache"
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with serving() as server:
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "DOWNLOAD_CHUNK_SIZE": 1 << 16,
        }.items():
            monkeypatch.setattr(constants, name, value)
        server.cache, server.constants = cache, constants
        yield server
