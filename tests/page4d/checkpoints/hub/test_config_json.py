import json

import pytest

from page4d.checkpoints.hub.config_json import model_name_beside


def test_the_name_is_read_beside_a_file_and_in_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3metric-large", "config": {"net": {}}}))
    assert model_name_beside(tmp_path) == "da3metric-large"
    assert model_name_beside(tmp_path / "model.safetensors") == "da3metric-large"


def test_a_hub_cache_links_the_config_beside_the_weights(tmp_path):
    blob, snapshot = tmp_path / "blobs" / "abc", tmp_path / "snapshots" / "def"
    blob.parent.mkdir()
    snapshot.mkdir(parents=True)
    blob.write_text('{"model_name": "da3mono-large"}')
    (snapshot / "config.json").symlink_to(blob)
    assert model_name_beside(snapshot / "model.safetensors") == "da3mono-large"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b'"da3-small"',
        b'{"model_name": "da3-small"',
        b'{"model_name": 3}',
        b'{"model_name": ""}',
        b'{"model_name": "da3\\u001b[2J"}',
        b'{"model_name": "' + b"x" * 101 + b'"}',
        b'{"model_name": "a", "model_name": "b"}',
        b"[" * 100_000,
    ],
)
def test_a_config_that_names_no_model_says_nothing(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    assert model_name_beside(tmp_path) is None


def test_a_checkpoint_without_a_config_has_no_name(tmp_path):
    assert model_name_beside(tmp_path / "model.safetensors") is None
    (tmp_path / "config.json").mkdir()
    assert model_name_beside(tmp_path) is None
