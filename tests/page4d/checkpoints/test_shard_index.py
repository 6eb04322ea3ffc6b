"""Checkpoints in several files are read through their index, or refused with what to give instead."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.weights import load
from tests.support.checkpoints import page4d_state, save_pi3, save_sharded
from tests.support.examples import examples
from tests.support.loads import refusal

INDEX = "model.safetensors.index.json"


def halves(state, later):
    """The tensors of which `later` is not true, and the others."""
    return [{name: tensor for name, tensor in state.items() if later(name) == second} for second in (False, True)]


@pytest.fixture
def sharded(small, tmp_path):
    return save_sharded(tmp_path / "parts", halves(small, lambda name: name.startswith("decoder.3.")))


def rewritten(folder, change):
    """The index after a change of its content."""
    content = json.loads((folder / INDEX).read_text())
    change(content["weight_map"])
    (folder / INDEX).write_text(json.dumps(content))
    return folder / INDEX


@examples(15)
@given(
    data=st.data(),
    suffix=st.sampled_from([".safetensors", ".bin"]),
    count=st.integers(1, 4),
    prefix=st.sampled_from(["", "module.", "model._orig_mod."]),
)
def test_any_division_into_files_is_the_whole(tmp_path_factory, small, data, suffix, count, prefix):
    folder = tmp_path_factory.mktemp("parts")
    place = {
        name: data.draw(st.integers(0, count - 1), label=name[-8:]) if i < 12 else i % count
        for i, name in enumerate(small)
    }
    states = [
        {prefix + name: tensor for name, tensor in small.items() if place[name] == number} for number in range(count)
    ]
    save_sharded(folder, [state for state in states if state], suffix)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in small.items()}
    for name, tensor in checkpoint.read(reversed(list(small))):
        assert torch.equal(tensor, small[name]), name


def test_what_is_known_of_it_counts_all_files(sharded, small):
    document = Checkpoint.open(sharded).document()
    assert document["file"] == str(sharded / INDEX)
    assert document["files"] == [INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert document["bytes"] == sum(path.stat().st_size for path in sharded.glob("*.safetensors"))
    assert (document["layers"], document["tensors"]) == (2, len(small))


# ---- a part alone


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00002.safetensors",
        "pytorch_model-00002-of-00003.bin",
        "vggt_1_of_2.pt",
        "model.1of4.safetensors",
        "Model-00001-OF-00002.safetensors",
        "model-00001-of-00002.fp16.safetensors",
    ],
)
def test_a_part_by_its_name_is_refused_without_an_index(tmp_path, small, name):
    save_pi3(tmp_path / name, small)
    text = refusal(tmp_path / name, name, "and not the whole", "index")
    assert "another name" in text
    refusal(tmp_path, "and not the whole")


@pytest.mark.parametrize(
    "name",
    [
        *("model-00001-of-00001.safetensors", "out-of-2-trials.safetensors"),
        *("step-1000.safetensors", "best-of-3.safetensors"),
    ],
)
def test_other_names_are_no_parts(tmp_path, small, name):
    save_pi3(tmp_path / name, small)
    assert Checkpoint.open(tmp_path / name).depth == Checkpoint.open(tmp_path).depth == 2


def test_a_part_beside_its_index_is_refused_with_the_index(sharded):
    for part in sorted(sharded.glob("model-*")):
        refusal(part, part.name, "and not the whole", f"try:     {sharded / INDEX}")


def test_a_part_by_any_name_is_refused_where_an_index_lists_it(tmp_path, small):
    """Even one that is whole as a smaller model."""
    folder = save_sharded(
        tmp_path,
        halves(small, lambda name: name.startswith(("decoder.2.", "decoder.3."))),
        names=["a.safetensors", "b.safetensors"],
    )
    refusal(folder / "a.safetensors", "one of 2 parts", str(folder / INDEX))


def test_the_only_file_of_an_index_is_the_whole(tmp_path, small):
    folder = save_sharded(tmp_path, [small])
    assert Checkpoint.open(folder).depth == Checkpoint.open(folder / "model-00001-of-00001.safetensors").depth == 2


def test_a_damaged_index_beside_a_whole_file_is_no_matter(tmp_path, small):
    save_pi3(tmp_path / "model.safetensors", small)
    (tmp_path / "other.index.json").write_text("{")
    assert Checkpoint.open(tmp_path / "model.safetensors").depth == 2


# ---- folders


def test_a_folder_with_one_checkpoint(tmp_path, small):
    save_pi3(tmp_path / "model.safetensors", small)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("a model")
    assert Checkpoint.open(tmp_path).path == tmp_path / "model.safetensors"


def test_a_folder_with_several_names_them(sharded, small):
    save_pi3(sharded / "other.safetensors", small)
    refusal(sharded, "several checkpoints", INDEX, "other.safetensors")


def test_a_folder_without_any(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refusal(tmp_path, "holds no checkpoint", "index.json")
    refusal(tmp_path / "config.json", "no index of a checkpoint")
    refusal(tmp_path / "none.index.json", "no such index")


# ---- hostile and damaged indices


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.safetensors", "/etc/hostname", "a/b.safetensors", "..", ""),
        *("a\\b", "a\0b", "x" * 300, "C:model.safetensors", "a\nb"),
    ],
)
def test_a_file_elsewhere_is_not_read(sharded, small, name):
    save_pi3(sharded.parent / "outside.safetensors", small)
    refusal(rewritten(sharded, lambda weights: weights.update(register_token=name)), INDEX, "names a file elsewhere")


def test_a_link_out_of_the_folder_is_not_followed(sharded):
    part = sharded / "model-00002-of-00002.safetensors"
    part.rename(sharded.parent / "secret.safetensors")
    part.symlink_to(sharded.parent / "secret.safetensors")
    refusal(sharded, part.name, "leads out of the folder")
    part.unlink()
    (sharded / "kept").symlink_to(sharded.parent / "secret.safetensors")
    part.symlink_to("kept")
    refusal(sharded, part.name, "leads out of the folder")


def test_a_link_within_the_folder_is_followed(sharded):
    part = sharded / "model-00002-of-00002.safetensors"
    part.rename(sharded / "data")
    part.symlink_to("data")
    assert Checkpoint.open(sharded / INDEX).depth == 2


def test_a_snapshot_of_the_hub_cache_is_read(sharded, tmp_path):
    """Its files are links into the cache's store."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / f"{number:064}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064}")
    assert Checkpoint.open(snapshot).depth == 2
    assert load(snapshot / INDEX).complete
    refusal(snapshot / "model-00001-of-00002.safetensors", "and not the whole")


def test_missing_parts_are_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refusal(sharded, "not beside it", "model-00002-of-00002.safetensors of 2 files", "download")
    os.mkfifo(sharded / "model-00002-of-00002.safetensors")
    refusal(sharded, "not beside it")


def test_index_and_files_that_disagree(sharded, small):
    second = "model-00002-of-00002.safetensors"
    index = rewritten(sharded, lambda weights: weights.update({"decoder.4.norm1.weight": second}))
    refusal(index, "lacks tensors", "decoder.4.norm1")
    save_sharded(sharded, halves(small, lambda name: name.startswith("decoder.3.")))
    index = rewritten(sharded, lambda weights: weights.pop("register_token"))
    refusal(index, "holds tensors that", "register_token", "none at all")
    save_sharded(sharded, halves(small, lambda name: name.startswith("decoder.3.")))
    refusal(rewritten(sharded, lambda weights: weights.update(register_token=second)), "register_token")


def test_a_tensor_in_two_files(sharded, small):
    second = {name: tensor for name, tensor in small.items() if name.startswith("decoder.3.")}
    save_pi3(sharded / "model-00002-of-00002.safetensors", {**second, "register_token": torch.zeros(1, 1, 5, 64)})
    refusal(sharded, "holds tensors that", "register_token", "by the index in model-00001-of-00002")
    first = {name: tensor for name, tensor in small.items() if name not in second}
    save_sharded(sharded, [first, {**second, "module.register_token": torch.zeros(1, 1, 5, 64)}])
    refusal(sharded, "register_token", "twice")


def test_files_that_lie_together_and_are_not_the_whole(tmp_path, small):
    states = halves(
        {name: tensor for name, tensor in small.items() if not name.startswith("decoder.1.")},
        lambda name: name.startswith("decoder.3."),
    )
    refusal(save_sharded(tmp_path, states), "lacks decoder.1.norm1.weight")


CONTENTS = {
    "empty": b"",
    "no JSON": b"weights",
    "cut short": b'{"weight_map": {"a": "b.safe',
    "a list": b"[]",
    "no map": b'{"metadata": {}}',
    "an empty map": b'{"weight_map": {}}',
    "a map of numbers": b'{"weight_map": {"a": 1}}',
    "a list of names": b'{"weight_map": ["a"]}',
    "nested 100,000 deep": b"[" * 100_000,
    "nested deep in objects": b'{"weight_map":' * 50_000,
    "no text": b"\xff\xfe\x00\xd8",
    "a number of 100,000 digits": b'{"a": ' + b"1" * 100_000 + b', "weight_map": {}}',
    "a name twice": b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}',
    "the map twice": b'{"weight_map": {"a": "x.bin"}, "weight_map": {"b": "y.bin"}}',
    "over 16 MiB": b'{"weight_map": {"a": "' + b"x" * (17 << 20) + b'"}}',
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_is_no_index(tmp_path, case):
    (tmp_path / INDEX).write_bytes(CONTENTS[case])
    text = refusal(tmp_path / INDEX, INDEX)
    assert len(text) < 2000
    refusal(tmp_path, INDEX)


@examples(30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_json_is_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / INDEX
    for content in (value, {"weight_map": value}):
        path.write_text(json.dumps(content))
        refusal(path, INDEX)


# ---- published kinds whose first part is a whole smaller model


def test_the_first_half_of_vggt_is_not_vggt(tmp_path):
    """Twelve whole layers of 24 with all of the encoder: nothing in the tensors tells it."""
    state = page4d_state(None, 64, encoder_depth=1)

    def later(name):
        return any(f"_blocks.{i}." in name for i in range(12, 24))

    folder = save_sharded(tmp_path, halves(state, later))
    assert Checkpoint.open(folder).depth == 24
    for part in folder.glob("*.safetensors"):
        refusal(part, "and not the whole")
    (folder / INDEX).unlink()
    for part in folder.glob("*.safetensors"):
        refusal(part, "and not the whole")
