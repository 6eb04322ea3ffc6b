"""Depth Anything 3 and Pi3X by their files and flags: which network an export is of, and what a file is said to be."""

import json
import re

import pytest
import torch

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.config import Published
from page4d_export.commands.inspect import weights_command
from page4d_export.model_source import ModelSource
from tests.support.checkpoints import filled, save_pi3
from tests.support.commands import inside
from tests.support.da3.checkpoints import da3_shapes, mono_shapes, pi3x_shapes
from tests.support.loads import refusal

LAYOUT = ("--T", 1, "--V", 3, "--height", 28, "--width", 42)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small checkpoints, by the names of their models."""
    folder, paths = tmp_path_factory.mktemp("checkpoints"), {}
    for name, shapes in (("da3", da3_shapes()), ("mono", mono_shapes()), ("pi3x", pi3x_shapes())):
        state = filled(shapes)
        if name == "pi3x":
            state["image_mean"] = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
            state["image_std"] = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
        paths[name] = folder / name / "model.safetensors"
        paths[name].parent.mkdir()
        save_pi3(paths[name], state)
    return paths


def source_of(path, preset=None, heads=None, **options):
    return ModelSource.of_file(Checkpoint.open(path), preset, options, T=1, heads=heads)


@pytest.mark.parametrize(
    ("name", "published", "heads"),
    [
        ("da3", "da3", ("camera", "depth")),
        ("mono", "da3-mono", ("depth",)),
        ("pi3x", "pi3x", ("points", "confidence", "camera", "metric")),
    ],
)
def test_a_file_is_its_own_published_model(files, name, published, heads):
    source = source_of(files[name])
    assert (source.config.published, source.config.predictions, source.config.width) == (published, heads, 64)
    assert source.chosen is not None and source.chosen.startswith(published)
    model = source.model()
    assert model.complete and model.weights == source.described
    assert source.notes == model.report.notes


def test_metric_is_named_by_its_preset_or_by_the_config_beside_it(files, tmp_path):
    options = {"width": 64, "heads": 1, "encoder_depth": 4}
    source = ModelSource.of_file(Checkpoint.open(files["mono"]), "da3-metric", options, T=1)
    assert source.config.published is Published.DA3_METRIC and not source.notes
    assert source.model().weights == "Depth Anything 3 METRIC (model.safetensors)"
    (tmp_path / "model.safetensors").write_bytes(files["mono"].read_bytes())
    (tmp_path / "config.json").write_text('{"model_name": "da3metric-large"}')
    assert source_of(tmp_path).chosen == "da3-metric"
    assert any("--preset da3-metric" in note for note in source_of(files["mono"]).notes)


@pytest.mark.parametrize("heads", ["camera", "depth", "none"])
def test_heads_of_depth_anything_are_chosen_by_name(files, heads):
    expected = () if heads == "none" else (heads,)
    assert source_of(files["da3"], heads=heads).config.predictions == expected


def test_heads_that_come_all_together_or_that_a_model_lacks(files):
    refusal(files["pi3x"], "Pi3X's heads come all together", act=lambda path: source_of(path, heads="points"))
    refusal(files["mono"], "no head of this name", act=lambda path: source_of(path, heads="camera"))


def test_a_file_of_one_model_is_not_exported_as_another(files):
    for name, preset in (("da3", "da3-mono"), ("mono", "da3-small"), ("pi3x", "pi3"), ("da3", "vitl")):
        refusal(files[name], act=lambda path, preset=preset: source_of(path, preset))


def planned(*arguments):
    """The manifest that a plan has, and what was said."""
    done = inside(*arguments, *LAYOUT, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["manifest"], done.stderr


def test_flags_choose_reference_view_and_known_cameras(files):
    manifest, said = planned(files["da3"])
    assert manifest["model"]["reference_view"] == "saddle_balanced" and not manifest["model"]["known_cameras"]
    assert "as Depth Anything 3 (model.safetensors) was published; heads: camera, depth" in said
    assert re.search(r"note: .*camera encoder: left unused", said)
    manifest, _ = planned(files["da3"], "--reference-view", "first")
    assert manifest["model"]["reference_view"] == "first"
    manifest, said = planned(files["da3"], "--known-cameras")
    assert manifest["model"]["known_cameras"] and "camera encoder: left unused" not in said


@pytest.mark.parametrize("flags", [("--known-cameras",), ("--reference-view", "saddle_balanced")])
def test_flags_of_depth_anything_are_refused_for_other_models(files, flags):
    done = inside(files["pi3x"], *flags, *LAYOUT, "--dry-run")
    assert done.returncode == 2 and "is out of range" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("da3", ("Depth Anything 3", "--known-cameras: camera encoder", "left unused: ray half", "--T 1 --V 4")),
        ("mono", ("none: images do not see each other", "Apache-2.0", "--preset da3-metric", "--T 1 --V 4")),
        ("pi3x", ("metric head", "conditioning on known poses", "CC BY-NC 4.0", "camera and 4 registers")),
    ],
)
def test_what_a_file_is(files, name, words):
    done = inside(files[name], function=weights_command)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.replace("│", " ").split())
    for word in words:
        assert word in text, text
    document = json.loads(inside(files[name], "--json", function=weights_command).stdout)
    assert document["camera_encoder"] is (name == "da3")
    assert sum(document["parameters_of"].values()) == document["parameters"]
