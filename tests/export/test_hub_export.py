"""`page4d-export ID`, `page4d weights ID` and the same in Python: a checkpoint of a hub on loopback."""

import hashlib
import json

import msgspec
import pytest
import torch

import page4d
import page4d_export
from page4d_export.commands.inspect import inspect_command, weights_command
from page4d_export.commands.tables import print_origin
from tests.support.checkpoints import filled, pi3_state, save_pi3
from tests.support.commands import inside, refused, started
from tests.support.da3.checkpoints import mono_shapes

NAME = "yyfz233/Pi3"
LICENCE = "CC BY-NC 4.0: not for commercial use (yyfz233/Pi3)"
PHOTOS = ("--T", 1, "--V", 2, "--height", 28, "--width", 42)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small Pi3, and the bytes of its file."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_pi3(path, pi3_state(64, 1, 2))
    return path, path.read_bytes()


@pytest.fixture
def commit(hub, weights, tmp_path, monkeypatch):
    """Hash of the one commit of NAME; the test runs in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return hub.add(NAME, {"model.safetensors": weights[1], "model.pt": b"PK other", "README.md": b""})[1]


def test_an_export_has_repository_commit_hash_and_licence_in_its_manifest(commit, weights, tmp_path):
    told = []
    manifest = page4d_export.export(
        NAME,
        T=1,
        V=2,
        height=28,
        width=42,
        heads=(),
        out=tmp_path / "engines",
        progress=lambda *step: told.append(step),
    )
    stored = json.loads((tmp_path / "engines" / "manifest.json").read_text())
    (file,) = stored["loaded"]["files"]
    assert (file["name"], file["repository"], file["revision"]) == ("model.safetensors", NAME, commit)
    assert file["sha256"] == hashlib.sha256(weights[1]).hexdigest()
    assert stored["licence"] == LICENCE
    assert stored["weights"] == f"Pi3 (hf:{NAME}@{commit}:model.safetensors)"
    assert told[1][0].startswith(f"{NAME}: model.safetensors, ")
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert manifest.licence == LICENCE
    inspected = inside(tmp_path / "engines", function=inspect_command)
    assert f"licence: {LICENCE}" in inspected.stdout and f"weights: {stored['weights']}" in inspected.stdout


def test_an_older_manifest_says_no_licence(commit, capsys):
    manifest = msgspec.json.decode(inside(NAME, *PHOTOS, "--dry-run", "--json").stdout)["manifest"]
    assert manifest["licence"] == ""  # nothing was loaded
    del manifest["licence"]
    print_origin(msgspec.convert(manifest, page4d.manifest.Manifest))
    assert "licence" not in capsys.readouterr().out


def test_the_model_is_that_of_the_file(commit, weights):
    from_hub, from_file = page4d.load(f"hf:{NAME}@{commit}"), page4d.load(weights[0])
    assert from_hub.config == from_file.config and from_hub.licence == LICENCE
    assert from_file.licence == f"as published: {LICENCE}"
    for name, parameter in from_file.named_parameters():
        assert torch.equal(parameter, from_hub.get_parameter(name)), name


@pytest.mark.parametrize("flags", [(NAME,), ("--pi3", NAME), (f"hf:{NAME}@main:model.safetensors",)])
def test_commands_take_an_id_where_they_take_a_file(commit, flags):
    done = inside(*flags, *PHOTOS, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"preset pi3, as Pi3 (hf:{NAME}@{commit}:model.safetensors) was published" in done.stderr


def test_weights_says_commit_licence_and_the_command_that_exports_it(commit):
    done = inside(NAME, function=weights_command)
    text = " ".join(done.stdout.replace("│", " ").split())
    assert f"page4d-export hf:{NAME}@{commit}:model.safetensors --T 1 --V 4" in text
    assert f"licence {NAME} as published: CC BY-NC 4.0: not for commercial use" in text
    facts = json.loads(inside(NAME, "--json", function=weights_command).stdout)
    assert (facts["repository"], facts["revision"]) == (NAME, commit)


@pytest.mark.parametrize(
    ("repository", "name", "published"),
    [
        ("depth-anything/DA3METRIC-LARGE", "da3metric-large", "da3-metric"),
        ("depth-anything/DA3MONO-LARGE", "da3mono-large", "da3-mono"),
    ],
)
def test_the_config_of_the_repository_says_which_model_it_is(hub, tmp_path, repository, name, published):
    save_pi3(tmp_path / "model.safetensors", filled(mono_shapes()))
    weights = (tmp_path / "model.safetensors").read_bytes()
    hub.add(repository, {"model.safetensors": weights, "config.json": json.dumps({"model_name": name}).encode()})
    facts = json.loads(inside(f"hf:{repository}", "--json", function=weights_command).stdout)
    assert (facts["model"], facts["repository"]) == (published, repository)
    assert [licence["terms"] for licence in facts["licences"]] == ["Apache-2.0"]


def test_a_folder_of_the_name_wins(commit, weights, hub, tmp_path):
    folder = tmp_path / "here" / NAME
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(weights[0])
    facts = json.loads(inside(NAME, "--json", function=weights_command).stdout)
    assert (facts["repository"], facts["file"]) == ("", f"{NAME}/model.safetensors")
    assert hub.requests == []


def test_what_is_neither_there_nor_on_the_hub(commit):
    refused(inside("yyfz233/Pi4", *PHOTOS), 2, "no file or folder here, and no repository on the hub", "yyfz233/Pi4")
    refused(inside("hf:Pi3", *PHOTOS), 2, "hub is not named like this", "hf:OWNER/NAME@REVISION:FILE")


def test_the_environment_names_hub_and_cache_and_switches_to_offline(commit, hub, tmp_path):
    """In processes of their own: the client reads its environment when it is imported."""
    home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    online = started("page4d", "weights", NAME, "--json", **home)
    assert online.returncode == 0 and online.stderr == "", online.stderr
    assert json.loads(online.stdout)["file"].startswith(str(tmp_path / "home"))
    asked = len(hub.requests)
    offline = started("page4d", "weights", NAME, "--json", **home | {"HF_HUB_OFFLINE": "1"})
    assert offline.stdout == online.stdout and len(hub.requests) == asked
    other = started("page4d", "weights", "facebook/VGGT-1B", **home | {"HF_HUB_OFFLINE": "1"})
    refused(other, 1, "offline mode is on", "by hand: download", "give its path")
