"""Downloads by the real client from a hub on loopback."""

import hashlib
import os
import sys

import pytest

from page4d.checkpoints.hub.download import download
from page4d.checkpoints.hub.hub_id import HubId
from page4d.errors import MissingBackendError, Page4DError, UsageError
from page4d.system.progress import Progress
from tests.support.hub.hub_server import TOKEN

WEIGHTS = bytes(range(256)) * 4096  # a MiB
OTHER = WEIGHTS[::-1]
CONFIG = b'{"model_name": "da3-small"}'
NAME = "depth-anything/DA3-SMALL"
SOURCE = HubId(NAME)


def refusal(source, *parts, error=Page4DError):
    with pytest.raises(error) as caught:
        download(source)
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    return caught.value


# ---- what comes, and which


def test_weights_and_config_lie_beside_each_other_in_the_cache(hub):
    _, commit = hub.add(NAME, {"model.safetensors": WEIGHTS, "config.json": CONFIG}, tags=["license:apache-2.0"])
    downloaded = download(SOURCE)
    assert downloaded.path.read_bytes() == WEIGHTS and downloaded.path.is_relative_to(hub.cache)
    assert downloaded.path.with_name("config.json").read_bytes() == CONFIG
    assert str(downloaded.source) == f"hf:{NAME}@{commit}:model.safetensors"
    assert downloaded.licence == "apache-2.0"
    assert download(SOURCE) == downloaded
    assert hub.downloads() == [("config.json", None), ("model.safetensors", None)]


def test_progress_tells_how_much_has_come(hub):
    hub.add(NAME, {"model.safetensors": WEIGHTS * 12})
    told = []
    download(SOURCE, Progress(lambda what, share: told.append((what, share))))
    assert told[0] == (f"asking the hub for {NAME}", 0.0)
    assert told[1] == (f"{NAME}: model.safetensors, 0 of 12 MiB", 0.0)
    assert told[-1] == (f"{NAME}: model.safetensors, 12 of 12 MiB", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)


def test_nothing_is_printed(hub, capfd):
    hub.add(NAME, {"model.safetensors": WEIGHTS, "config.json": CONFIG})
    download(SOURCE)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.pt", "model.safetensors", "README.md"], "model.safetensors"),
        (["other.safetensors", "model.safetensors"], "model.safetensors"),
        (["model.pt", "vggt.safetensors", "optimizer.pt"], "vggt.safetensors"),
        (["model.pt", "checkpoint_150.pt"], "model.pt"),
        (["checkpoint_150.pt", "README.md", "folder/model.safetensors"], "checkpoint_150.pt"),
    ],
)
def test_the_checkpoint_is_chosen_by_its_name(hub, names, chosen):
    hub.add(NAME, dict.fromkeys(names, WEIGHTS))
    assert download(SOURCE).path.name == chosen
    assert [name for name, _ in hub.downloads()] == [chosen]


def test_several_checkpoints_are_named_and_one_is_asked_for(hub):
    hub.add(NAME, {"small.pt": WEIGHTS, "large.pt": OTHER})
    refusal(SOURCE, "holds several checkpoints", "large.pt, small.pt", f"hf:{NAME}:large.pt", error=UsageError)
    assert download(HubId(NAME, file="small.pt")).path.read_bytes() == WEIGHTS
    refusal(HubId(NAME, file="x.pt"), "has no such file", "large.pt, small.pt", error=UsageError)


def test_a_repository_without_a_checkpoint_at_its_top(hub):
    hub.add(NAME, {"README.md": b"", "small/model.safetensors": WEIGHTS, "small/config.json": CONFIG})
    refusal(SOURCE, "holds no checkpoint at its top", f"hf:{NAME}:small/model.safetensors", error=UsageError)
    path = download(HubId(NAME, file="small/model.safetensors")).path
    assert path.read_bytes() == WEIGHTS and path.with_name("config.json").read_bytes() == CONFIG


def test_an_index_brings_its_files(hub):
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    parts = {"model-00001-of-00002.safetensors": WEIGHTS, "model-00002-of-00002.safetensors": OTHER}
    hub.add(NAME, {"model.safetensors.index.json": index, "model.pt": WEIGHTS, **parts})
    told = []
    path = download(SOURCE, Progress(lambda what, share: told.append(share))).path
    assert path.name == "model.safetensors.index.json"
    assert {name: path.with_name(name).read_bytes() for name in parts} == parts
    assert told == sorted(told) and (told[0], told[-1]) == (0.0, 1.0)


def test_an_index_that_leads_elsewhere_brings_nothing(hub):
    hub.add(NAME, {"model.safetensors.index.json": b'{"weight_map": {"a": "../../x"}}'})
    refusal(SOURCE, "names a file elsewhere", error=UsageError)


def test_revisions_are_branches_tags_and_commits(hub):
    repository, first = hub.add(NAME, {"model.safetensors": WEIGHTS})
    repository.branches["v1"] = first
    second = repository.commit({"model.safetensors": OTHER})
    for revision, commit, content in (("", second, OTHER), ("v1", first, WEIGHTS), (first, first, WEIGHTS)):
        downloaded = download(HubId(NAME, revision))
        assert (downloaded.source.revision, downloaded.path.read_bytes()) == (commit, content)
    refusal(HubId(NAME, "v2"), "has no such revision", "v2", error=UsageError)


# ---- without a network


def test_offline_mode_takes_what_the_cache_has(hub, monkeypatch):
    _, commit = hub.add(NAME, {"model.safetensors": WEIGHTS, "config.json": CONFIG})
    downloaded = download(SOURCE)
    hub.requests.clear()
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    for revision in ("", "main", commit):
        offline = download(HubId(NAME, revision))
        assert (offline.path, offline.source) == (downloaded.path, downloaded.source)
    refusal(HubId(NAME, "v2"), "offline mode is on", "HF_HUB_OFFLINE")
    refusal(HubId("yyfz233/Pi3"), "offline mode is on", "by hand", "/yyfz233/Pi3/tree/main and give its path")
    assert hub.requests == []


def test_offline_a_checkpoint_without_all_its_files_is_not_there(hub, monkeypatch):
    index = b'{"weight_map": {"a": "a-00001-of-00002.safetensors", "b": "a-00002-of-00002.safetensors"}}'
    parts = {"a-00001-of-00002.safetensors": WEIGHTS, "a-00002-of-00002.safetensors": OTHER}
    hub.add(NAME, {"model.safetensors.index.json": index, **parts})
    path = download(SOURCE).path
    path.with_name("a-00002-of-00002.safetensors").unlink()
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    refusal(SOURCE, "offline mode is on", "download a-00002-of-00002.safetensors")


def unplugged(hub, monkeypatch):
    """Nobody listens at the endpoint."""
    endpoint = "http://127.0.0.1:9"
    monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )


def test_without_a_network_the_cache_serves_and_else_the_manual_way_is_named(hub, monkeypatch):
    hub.add(NAME, {"model.safetensors": WEIGHTS})
    downloaded = download(SOURCE)
    unplugged(hub, monkeypatch)
    assert download(SOURCE).path == downloaded.path
    text = str(refusal(HubId("yyfz233/Pi3"), "was not reached", "ConnectError", "HF_ENDPOINT"))
    assert "download model.safetensors from http://127.0.0.1:9/yyfz233/Pi3/tree/main and give its path" in text
    assert str(hub.cache) in text


def test_what_answers_in_a_hubs_place_is_no_hub(hub, monkeypatch):
    hub.repositories[NAME] = None
    monkeypatch.setattr(type(hub), "add", None)
    handler = hub.RequestHandlerClass
    monkeypatch.setattr(handler, "_repository", lambda self, match: self._send(200, {}, b"<html>log in</html>"))
    refusal(SOURCE, "does not answer as a hub does", "HF_ENDPOINT", "by hand")


def test_without_the_package_the_extra_and_the_manual_way_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    error = refusal(SOURCE, 'pip install "page4d[hub]"', "huggingface_hub and a network", error=MissingBackendError)
    assert f"download model.safetensors from https://huggingface.co/{NAME}/tree/main and give its path" in str(error)
    assert error.exit_code == 5


# ---- who may


def test_unknown_and_private_repositories(hub, monkeypatch):
    refusal(SOURCE, "no repository on the hub, or a private one", NAME, "HF_TOKEN", error=UsageError)
    hub.add(NAME, {"model.safetensors": WEIGHTS}, private=True)
    refusal(SOURCE, "no repository on the hub, or a private one", error=UsageError)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert download(SOURCE).path.read_bytes() == WEIGHTS


def test_a_gated_repository_says_where_to_ask(hub, monkeypatch):
    hub.add(NAME, {"model.safetensors": WEIGHTS}, gated=True)
    refusal(SOURCE, "is gated", f"ask for access at {hub.endpoint}/{NAME}", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert download(SOURCE).path.read_bytes() == WEIGHTS


# ---- what goes wrong on the way


def test_a_cut_connection_is_taken_up_where_it_broke(hub):
    repository, _ = hub.add(NAME, {"model.safetensors": WEIGHTS}, cut_at=len(WEIGHTS) // 2, cuts=1)
    assert download(SOURCE).path.read_bytes() == WEIGHTS
    assert repository.cuts == 0
    (_, first), (_, second) = hub.downloads()
    assert first is None and second.startswith("bytes=") and second != "bytes=0-"


def test_a_download_that_breaks_off_leaves_no_checkpoint_and_the_next_succeeds(hub):
    repository, _ = hub.add(NAME, {"model.safetensors": WEIGHTS}, cut_at=500_000, cuts=1, refused_after_cut=True)
    refusal(SOURCE, "the download of", "broke off", "503", "once more; or by hand")
    assert [path for path in hub.cache.rglob("model.safetensors") if path.exists()] == []
    repository.cut_at = 0
    assert download(SOURCE).path.read_bytes() == WEIGHTS


def test_a_file_that_changed_on_its_way_is_refused_and_leaves_the_cache(hub):
    repository, commit = hub.add(NAME, {"model.safetensors": WEIGHTS}, changed={"model.safetensors"})
    stated = hashlib.sha256(WEIGHTS).hexdigest()
    refusal(SOURCE, "damaged on its way", f"allowed: sha256 {stated}", f"hf:{NAME}@{commit}:model.safetensors")
    assert [path for path in hub.cache.rglob("*") if path.is_file() and path.stat().st_size == len(WEIGHTS)] == []
    repository.changed.clear()
    assert download(SOURCE).path.read_bytes() == WEIGHTS


def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path):
    if os.geteuid() == 0:
        hub.cache.write_bytes(b"")  # a file where the folder would be
    else:
        hub.cache.mkdir(mode=0o500)
    hub.add(NAME, {"model.safetensors": WEIGHTS})
    refusal(SOURCE, str(hub.cache), "HF_HOME")
