import pathlib

import pytest

from page4d.checkpoints.hub.hub_id import HubId, hub_id_of
from page4d.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:depth-anything/DA3-SMALL", HubId("depth-anything/DA3-SMALL")),
        (f"hf:yyfz233/Pi3@{COMMIT}", HubId("yyfz233/Pi3", COMMIT)),
        ("hf:facebook/VGGT-1B:model.pt", HubId("facebook/VGGT-1B", "", "model.pt")),
        ("hf:a/b@refs/pr/1:weights/model.pt", HubId("a/b", "refs/pr/1", "weights/model.pt")),
        ("hf:depth-anything/DA3-LARGE-1.1", HubId("depth-anything/DA3-LARGE-1.1")),
    ],
)
def test_a_repository_a_revision_and_a_file_are_read_and_written(text, expected):
    assert HubId.parse(text) == expected and str(expected) == text
    assert hub_id_of(text) == hub_id_of(pathlib.Path(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("hf:", "hf:Pi3", "hf:a/b/c", "hf:../b", "hf:-a/b", "hf:é/b", "hf:a/b c"),
        *("hf:a/b@", "hf:a/b:", "hf:a/b@x y", "hf:a/b@main:x:y"),
        *("hf:a/b:../x", "hf:a/b:/etc/passwd", "hf:a/b:x/./y", "hf:a/b:x//y", "hf:a/b:x\\y", "hf:a/b:x\n"),
    ],
)
def test_what_is_no_repository_or_leads_out_of_it_is_refused(text):
    with pytest.raises(UsageError, match=r"hub is not named like this|no empty part"):
        hub_id_of(text)


@pytest.mark.parametrize("text", ["model.safetensors", "weights/model.safetensors", "a/b.PT", "./a/b", "../a", "/a/b"])
def test_paths_are_paths(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_id_of(text) is None


def test_a_file_or_folder_of_the_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_id_of("yyfz233/Pi3") == HubId("yyfz233/Pi3")
    (tmp_path / "yyfz233" / "Pi3").mkdir(parents=True)
    assert hub_id_of("yyfz233/Pi3") is None
    assert hub_id_of("hf:yyfz233/Pi3") == HubId("yyfz233/Pi3")


def test_a_mistyped_path_is_not_sent_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    with pytest.raises(UsageError, match="there is no such checkpoint") as caught:
        hub_id_of("weights/pi3")
    assert "try:     hf:weights/pi3, if the repository is meant" in str(caught.value)
