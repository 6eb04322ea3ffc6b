"""`page4d-export FILE` and `page4d weights FILE`: what a checkpoint is, and which of its heads become stages."""

import json
import math

import pytest
import torch

import page4d_export
from page4d.checkpoints.checkpoint import Checkpoint
from page4d.config import Head, Published
from page4d.errors import UsageError
from page4d.published import TRAITS
from page4d_export.commands.inspect import weights_command
from page4d_export.export_request import ExportRequest
from page4d_export.model_source import ModelSource, heads_named
from tests.support.beside import key_table
from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3, save_sharded
from tests.support.commands import inside, refused

SMALL = ("--height", 28, "--width", 42)
VIDEO = ("--T", 2, "--V", 1, *SMALL)
PHOTOS = ("--T", 1, "--V", 2, *SMALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small checkpoints of every kind; VGGT's with a track head, `depth.pt` with one head alone."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_pi3(folder / "model.safetensors", pi3_state(64, 1, 2))
    save_page4d(folder / "checkpoint_150.pt", page4d_state("150", 64, 1, range(9)), optimizer=True)
    save_page4d(folder / "checkpoint_mask.pt", page4d_state("2026", 64, 1, range(11)))
    save_page4d(folder / "vggt.pt", page4d_state(None, 64, 1, range(2), track=True), nested=False)
    save_page4d(folder / "depth.pt", page4d_state(None, 64, 1, range(2), heads=("depth",)), nested=False)
    return folder


def planned(*arguments):
    """The model of a plan, and the names of its stages that are heads."""
    done = inside(*arguments, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)["manifest"]
    return manifest["model"], [entry["name"] for entry in manifest["stages"] if entry["kind"] in list(Head)]


# ---- a file without a flag


@pytest.mark.parametrize(
    ("name", "layout", "published", "mask_head"),
    [
        ("model.safetensors", PHOTOS, "pi3", None),
        ("vggt.pt", VIDEO, "vggt", None),
        ("checkpoint_150.pt", VIDEO, "page4d", "150"),
        ("checkpoint_mask.pt", VIDEO, "page4d", "2026"),
    ],
)
def test_a_file_alone_is_recognised(files, name, layout, published, mask_head):
    model, heads = planned(files / name, *layout)
    assert model["published"] == published and mask_head in (None, model["mask_head"])
    assert model["order"] == (["time", "view"] if published == "pi3" else ["view", "time"])
    assert sorted(heads) == sorted(TRAITS[Published(published)].heads) and set(model["predictions"]) == set(heads)
    messages = inside(files / name, *layout, "--dry-run").stderr
    assert f"preset {published}, as " in messages and f"heads: {', '.join(model['predictions'])}" in messages


@pytest.mark.parametrize(
    ("table", "layout", "published"),
    [
        ("pi3", ("--T", 1, "--V", 4), "pi3"),
        ("vggt", ("--T", 8, "--V", 1), "vggt"),
        ("page4d_checkpoint_150", ("--T", 8, "--V", 1), "page4d"),
        ("page4d_2026", ("--T", 8, "--V", 1), "page4d"),
    ],
)
def test_the_real_files_are_recognised_at_their_size(tmp_path, table, layout, published):
    """Files of the real names and shapes, with one number behind each tensor."""
    shapes = key_table(table)
    save_pi3(tmp_path / "a.pt", {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()})
    model, heads = planned(tmp_path / "a.pt", *layout)
    assert (model["published"], model["width"], model["encoder_depth"]) == (published, 1024, 24)
    assert model["keep_layers"] == ([17] if published == "pi3" else [4, 11, 17, 23])
    assert sorted(heads) == sorted(TRAITS[Published(published)].heads)
    text, facts = shown(tmp_path / "a.pt")
    assert facts["unused_heads"] == (["track"] if table == "vggt" else [])
    assert facts["parameters"] == sum(math.prod(shape) for shape in shapes.values())
    assert ("track head 65.9 M" in text) is (table == "vggt")
    assert ("camera head 216.2 M, depth head 32.7 M, points head 32.7 M" in text) is (published != "pi3")
    notes = [note for note in facts["notes"] if "track head" not in note]
    assert notes == []


def test_a_folder_is_a_file_too(files, tmp_path):
    state = page4d_state(None, 64, 1, range(2))
    halves = [{key: state[key] for key in list(state)[part::2]} for part in (0, 1)]
    folder = save_sharded(tmp_path / "parts", halves)
    assert planned(folder, *VIDEO) == planned(files / "vggt.pt", *VIDEO)


def test_the_flags_for_one_checkpoint_are_the_same_as_the_file_alone(files):
    assert planned("--page4d", files / "vggt.pt", *VIDEO) == planned(files / "vggt.pt", *VIDEO)
    assert planned("--pi3", files / "model.safetensors", *PHOTOS) == planned(files / "model.safetensors", *PHOTOS)


def test_a_preset_beside_a_file_is_another_network(files):
    size = ("--set", "width=64", "--set", "heads=1", "--set", "encoder_depth=1", "--set", "depth=2")
    model, heads = planned(files / "model.safetensors", "--preset", "tiny", *size, "--T", 2, "--V", 2, *SMALL)
    assert (model.get("published"), heads) == (None, [])
    messages = inside(
        files / "model.safetensors", "--preset", "tiny", *size, "--T", 2, "--V", 2, *SMALL, "--dry-run"
    ).stderr
    assert "note: model.safetensors: Pi3's heads are left unused" in messages


def test_a_file_excludes_the_flags_for_two(files):
    done = inside(files / "vggt.pt", "--pi3", files / "model.safetensors", *VIDEO)
    refused(done, 2, r"exported alone", r"vggt\.pt and --pi3 .*model\.safetensors", r"try: .*--pi3 FILE --page4d FILE")
    refused(inside("--build-only", files, files / "vggt.pt"), 2, r"--build-only takes .*\s+got: +.*vggt\.pt")


def test_a_layout_that_the_model_does_not_take(files):
    refused(inside(files / "vggt.pt", "--T", 2, "--V", 2), 2, "VGGT as published sees T frames", "--T 4 --V 1")
    refused(inside(files / "model.safetensors", "--T", 2, "--V", 2), 2, "Pi3 as published", "--preset vitl with --pi3")


def test_no_such_file_and_no_model(files, tmp_path):
    refused(inside(tmp_path / "none.pt", *VIDEO), 2, r"none\.pt")
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    refused(inside(tmp_path / "page.pt", *VIDEO), 2, r"page\.pt")


# ---- which heads


@pytest.mark.parametrize(
    ("text", "heads", "layers"),
    [
        ("camera", ["camera"], [1]),
        ("points,camera", ["camera", "points"], [0, 1]),
        (" depth ", ["depth"], [0, 1]),
        ("none", [], [1]),
    ],
)
def test_heads_that_are_wanted(files, text, heads, layers):
    model, stages = planned(files / "vggt.pt", *VIDEO, "--heads", text)
    assert (model["predictions"], model["keep_layers"]) == (heads, layers)
    assert stages == heads


def test_heads_by_the_models_options(files):
    for option, heads in (
        ("predictions=depth", ["depth"]),
        ("predictions=camera,points", ["camera", "points"]),
        ("predictions=true", ["camera", "depth", "points"]),
        ("predictions=false", []),
        ("predictions=", []),
    ):
        assert planned(files / "vggt.pt", *VIDEO, "--set", option)[1] == heads, option
    assert planned(files / "depth.pt", *VIDEO, "--set", "predictions=true")[1] == ["depth"]


def test_all_heads_are_those_of_the_file(files):
    model, heads = planned(files / "depth.pt", *VIDEO)
    assert heads == model["predictions"] == ["depth"]
    with_preset = ("--preset", "vggt", "--set", "width=64", "--set", "heads=1", "--set", "encoder_depth=1")
    model, heads = planned(files / "depth.pt", *with_preset, "--set", "depth=2", "--set", "keep_layers=1", *VIDEO)
    assert heads == ["depth"] and model["keep_layers"] == [0, 1]
    messages = inside(files / "depth.pt", *VIDEO, "--dry-run").stderr
    assert "note: depth.pt: no head for camera, points, which the published file has" in messages


@pytest.mark.parametrize("flags", [("--heads", "camera"), ("--set", "predictions=camera,depth,points")])
def test_a_head_that_the_file_lacks(files, flags):
    for preset in ((), ("--preset", "vggt", "--set", "width=64", "--set", "heads=1", "--set", "depth=2")):
        done = inside(files / "depth.pt", *preset, *VIDEO, *flags)
        refused(done, 2, r"depth\.pt has no camera head", r"allowed: the heads in the file: depth", "--heads depth")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ("vggt.pt", *VIDEO, "--heads", "depht"),
            ("no head of this name", "'depht'", "camera, depth, points, or none"),
        ),
        (("vggt.pt", *VIDEO, "--heads", "confidence"), ("'confidence'", "camera, depth, points, or none")),
        (("vggt.pt", *VIDEO, "--heads", "none,depth"), ("'none'",)),
        (("vggt.pt", *VIDEO, "--heads", ""), ("''", "camera, depth, points, or none")),
        (("model.safetensors", *PHOTOS, "--heads", "points"), ("all together", "points,confidence,camera, or none")),
        (("vggt.pt", *VIDEO, "--heads", "depth", "--set", "predictions=depth"), ("--heads and --set predictions",)),
    ],
)
def test_heads_that_nobody_has(files, arguments, messages):
    refused(inside(files / arguments[0], *arguments[1:]), 2, *messages)


def test_heads_of_seeded_networks():
    size = ("--set", "width=64", "--set", "heads=1", "--set", "encoder_depth=1", "--set", "depth=2")
    assert planned("--preset", "vggt", *size, *VIDEO, "--heads", "depth")[1] == ["depth"]
    refused(inside("--preset", "tiny", *VIDEO, "--heads", "depth"), 2, "no head of this name", "only published models")
    assert planned("--preset", "tiny", *VIDEO, "--heads", "none")[1] == []


def test_heads_by_name():
    assert heads_named(("points", "depth"), Published.VGGT) == (Head.DEPTH, Head.POINTS)
    assert heads_named([Head.CAMERA], Published.PAGE4D) == (Head.CAMERA,)
    assert heads_named((), Published.VGGT) == heads_named("none", None) == ()
    assert heads_named("camera,points,confidence", Published.PI3) == TRAITS[Published.PI3].heads


def test_heads_of_an_export_from_python(files, tmp_path, monkeypatch):
    """A network with weights has the heads that it has; a file those that are named."""
    monkeypatch.setattr(
        ExportRequest, "run", lambda request, progress: request
    )  # what is exported, without the minutes
    layout = {"T": 2, "V": 1, "height": 28, "width": 42, "out": tmp_path / "engines"}
    request = page4d_export.export(files / "vggt.pt", heads=["camera"], **layout)
    assert request.plan.config.predictions == ("camera",)
    report = request.source.model().report
    unused = {group.name for group in report.groups if group.unused}
    assert {"depth head, unused", "points head, unused", "track head, unused"} <= unused
    assert "track head: left unused" in " ".join(report.notes)
    assert page4d_export.export(files / "vggt.pt", heads=(), **layout).plan.config.predictions == ()
    assert page4d_export.export(files / "depth.pt", **layout).plan.config.predictions == ("depth",)
    with pytest.raises(UsageError, match="no head of this name"):
        page4d_export.export(files / "vggt.pt", heads=["track"], **layout)
    with pytest.raises(UsageError, match="Pi3 as published sees V images of one time"):
        page4d_export.export(files / "model.safetensors", **layout)
    model = ModelSource.of_file(Checkpoint.open(files / "depth.pt"), None, {}, 2).model()
    with pytest.raises(UsageError, match="heads are for the path of a checkpoint"):
        page4d_export.export(model, heads=["depth"], **layout)


# ---- what a checkpoint is


def shown(path):
    done = inside(path, function=weights_command)
    assert done.returncode == 0, done.stderr
    facts = json.loads(inside(path, "--json", function=weights_command).stdout)
    return " ".join(done.stdout.replace("│", " ").split()), facts


def test_weights_lists_heads_parameters_and_licences(files):
    text, facts = shown(files / "vggt.pt")
    assert "heads camera, depth, points; left unused: track" in text
    assert "note vggt.pt: track head: left unused; this project does not export it" in text
    for words in (
        "facebook/VGGT-1B as published: CC BY-NC 4.0",
        "facebook/VGGT-1B-Commercial as published",
        "do not tell",
    ):
        assert words in text
    assert f"page4d-export {files / 'vggt.pt'} --T 8 --V 1" in text
    assert (facts["predictions"], facts["unused_heads"]) == (["camera", "depth", "points"], ["track"])
    assert [licence["name"] for licence in facts["licences"]] == ["facebook/VGGT-1B", "facebook/VGGT-1B-Commercial"]
    assert sum(facts["parameters_of"].values()) == facts["parameters"]
    assert f"camera head {facts['parameters_of']['camera head'] / 1e6:.1f} M" in text
    assert {"encoder", "layers", "depth head", "points head", "track head"} < set(facts["parameters_of"])


def test_weights_of_the_other_models(files):
    text, facts = shown(files / "model.safetensors")
    assert "heads points, confidence, camera" in text and "yyfz233/Pi3 as published: CC BY-NC 4.0" in text
    assert f"page4d-export {files / 'model.safetensors'} --T 1 --V 4" in text and facts["unused_heads"] == []
    text, facts = shown(files / "checkpoint_mask.pt")
    assert "PAGE-4D 2026" in text and "unknown, ask its authors" in text and "mask head" in facts["parameters_of"]
    text, facts = shown(files / "depth.pt")
    assert "heads depth licence" in text and facts["predictions"] == ["depth"]
