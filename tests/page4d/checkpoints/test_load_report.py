"""What a load says of itself: the report, and the model's description of its weights."""

import hashlib

import pytest
import torch

from page4d.checkpoints.weights import load, load_weights
from tests.support.checkpoints import pi3_state, save_page4d, save_pi3, save_sharded
from tests.support.loads import WIDTH, hybrid, parameters


def counts(report):
    groups = [group for group in report.groups if not group.unused]
    return {(group.name, group.file): (group.loaded, group.adapted, group.new) for group in groups}


def test_the_report_of_both_checkpoints(pi3, page4d, files):
    model = hybrid(global_layers=(1,))
    report = load_weights(model, files["pi3"], files["2026"])
    assert model.report is report
    assert counts(report) == {
        ("encoder", "model.safetensors"): (7 + 2 * 14, 0, 0),
        ("special tokens", "model.safetensors"): (0, 1, 0),
        ("view_sa", "model.safetensors"): (2 * 18, 0, 4),
        ("time_sa", "checkpoint_mask.pt"): (2 * 18, 0, 4),
        ("global_sa", "model.safetensors"): (18, 0, 1),
        ("mask head", "checkpoint_mask.pt"): (6, 0, 2),
    }
    assert report.loaded + report.adapted + report.new == len(list(model.parameters()))
    used = {"model.safetensors": 7 + 2 * 14 + 1 + 2 * 18, "checkpoint_mask.pt": 2 * 18 + 6}
    for file, state, description in ((files["pi3"], pi3, "Pi3"), (files["2026"], page4d["2026"], "PAGE-4D 2026")):
        unused = sum(group.unused for group in report.groups if group.file == file.name)
        assert used[file.name] + unused == len(state)
        source = next(source for source in report.files if source.name == file.name)
        assert (source.model, source.tensors) == (description, len(state))
        assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    unused = {(group.file, group.keys): group.unused for group in report.groups if group.unused}
    assert unused["model.safetensors", "decoder.*"] == 2 * 18
    assert unused["model.safetensors", "image_mean"] == 1
    assert unused["checkpoint_mask.pt", "aggregator.frame_blocks.*"] == 24 * 18
    assert model.weights == "Pi3 (model.safetensors) and PAGE-4D 2026 (checkpoint_mask.pt)"


SPECIAL = {"split": (0, 1, 0), "truncate": (0, 1, 1), "page4d": (0, 2, 0)}


@pytest.mark.parametrize("registers", SPECIAL)
@pytest.mark.parametrize("kind", ["150", None])
def test_counts_add_up(pi3, page4d, files, registers, kind):
    """Special tokens are one parameter, counted by its source tensors, and once more where a part of it is new."""
    model = hybrid(global_layers=(0, 1), global_strategy="memory", fusion="gate")
    report = load_weights(model, files["pi3"], files[kind], registers=registers)
    (special,) = [group for group in report.groups if group.name.startswith("special tokens")]
    assert (special.loaded, special.adapted, special.new) == SPECIAL[registers]
    assert report.loaded + report.adapted + report.new == len(list(model.parameters())) - 1 + sum(SPECIAL[registers])
    # the weights of View-SA once more
    repeated = sum(group.loaded for group in report.groups if group.name == "global_sa")
    assert repeated == 2 * 18
    assert report.loaded - repeated + report.adapted + report.unused == len(pi3) + len(page4d[kind])


def test_the_description_of_a_seeded_mask_head(files):
    model = hybrid(5)
    load_weights(model, files["pi3"], files[None])
    assert model.weights == "Pi3 (model.safetensors) and VGGT (vggt.pt); mask head seeded (seed 5)"
    assert counts(model.report)["mask head", ""] == (0, 0, 10 - 2)


def test_the_own_network_says_why_it_takes_no_heads(tmp_path, files):
    """Pi3's read a pair of outputs that it does not have, PAGE-4D's and VGGT's layers of which it has the half."""
    save_pi3(tmp_path / "heads.safetensors", pi3_state(WIDTH))
    model = hybrid()
    report = load_weights(model, tmp_path / "heads.safetensors", files[None])
    pi3_note, vggt_note = report.notes
    for words in (
        "heads.safetensors: Pi3's heads are left unused",
        "over the views and then over time",
        "--preset pi3",
    ):
        assert words in pi3_note
    for words in ("vggt.pt: VGGT's heads are left unused", "the blocks over time alone", "--preset vggt"):
        assert words in vggt_note
    assert (model.points, model.confidence, model.camera, model.depth) == (None, None, None, None)
    unused = {(group.name, group.keys): group.unused for group in report.groups if group.unused}
    assert unused["confidence head, unused", "conf_decoder.*"] == 64
    assert unused["confidence head, unused", "conf_head.*"] == 2
    assert unused["depth head, unused", "depth_head.*"] == 62


def test_a_published_network_has_nothing_to_say_of_heads(tmp_path):
    save_pi3(tmp_path / "heads.safetensors", pi3_state(WIDTH, 1, 1))
    assert load(tmp_path / "heads.safetensors").report.notes == ()


def test_the_report_is_a_table(files):
    model = hybrid()
    lines = str(load_weights(model, files["pi3"], files["150"])).splitlines()
    pi3_note, page4d_note = model.report.notes
    assert lines.pop() == f"note: {page4d_note}" and page4d_note.startswith("checkpoint_150.pt: PAGE-4D 150's heads")
    assert lines.pop() == f"note: {pi3_note}" and pi3_note.startswith("model.safetensors: none of Pi3's heads")
    assert lines[0].split() == ["group", "file", "keys", "loaded", "adapted", "new", "unused"]
    groups = {"encoder", "special", "view_sa", "time_sa", "global_sa", "mask", "unused", "all"}
    groups |= {"camera", "depth", "points"}
    assert {line.split()[0] for line in lines[1:]} == groups
    for line in lines[1:-1]:
        assert "model.safetensors" in line or "checkpoint_150.pt" in line
    (time_sa,) = [line for line in lines if line.startswith("time_sa")]
    assert time_sa.split()[1:3] == ["checkpoint_150.pt", "aggregator.global_blocks.{i+22}.*"]
    total = [int(number) for number in lines[-1].split()[1:]]
    assert total == [model.report.loaded, model.report.adapted, model.report.new, model.report.unused]


def test_a_checkpoint_in_several_files_is_the_same_model(tmp_path, pi3, page4d):
    """From its index, from its folder, and beside another one; every file's hash is in the report."""
    halves = [{name: tensor for i, (name, tensor) in enumerate(pi3.items()) if i % 2 == half} for half in (0, 1)]
    folder = save_sharded(tmp_path / "pi3", halves)
    save_page4d(tmp_path / "vggt.pt", page4d[None])
    save_pi3(tmp_path / "whole.safetensors", pi3)
    whole = parameters(load(tmp_path / "whole.safetensors"))
    for path in (folder, folder / "model.safetensors.index.json", str(folder)):
        model = load(path)
        assert model.weights == "Pi3 (model.safetensors.index.json)"
        assert all(torch.equal(parameter, whole[name]) for name, parameter in model.named_parameters())
    names = ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert [source.name for source in model.report.files] == list(names)
    assert [source.tensors for source in model.report.files] == [0, len(halves[0]), len(halves[1])]
    for source in model.report.files:
        assert source.sha256 == hashlib.sha256((folder / source.name).read_bytes()).hexdigest()
    both = [hybrid(), hybrid()]
    load_weights(both[0], tmp_path / "whole.safetensors", tmp_path / "vggt.pt")
    load_weights(both[1], folder, tmp_path / "vggt.pt")
    for whole_parameter, other in zip(both[0].parameters(), both[1].parameters(), strict=True):
        assert torch.equal(whole_parameter, other)
