"""Which network an export is of, by its checkpoints and flags; and the export of a checkpoint as a person runs it."""

import hashlib
import json
import re

import numpy as np
import onnx
import pytest
import torch

import page4d
from page4d import Layout
from page4d.checkpoints import weights
from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.sources import Sources
from page4d.errors import UsageError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_export.commands.inspect import weights_command
from page4d_export.exporter import write_unverified, write_verified
from page4d_export.model_source import ModelSource
from page4d_export.plan.export_plan import ExportPlan
from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3, save_sharded
from tests.support.commands import inside

SIZE = {"width": 128, "heads": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small checkpoints of every kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_pi3(folder / "model.safetensors", pi3_state())
    save_pi3(folder / "headless.safetensors", pi3_state(heads=False))
    save_page4d(folder / "checkpoint_150.pt", page4d_state("150", layers=range(24)), optimizer=True)
    save_page4d(folder / "checkpoint_mask.pt", page4d_state("2026", layers=range(24)))
    save_page4d(folder / "vggt.pt", page4d_state(None, layers=range(2)), nested=False)
    return folder


def chosen(files, T=1, preset=None, pi3=None, page4d=None, **options):
    checkpoints = {kind: name and Checkpoint.open(files / name) for kind, name in (("pi3", pi3), ("page4d", page4d))}
    return ModelSource.choose(preset, options, T, sources=Sources(**checkpoints))


def test_one_checkpoint_is_its_own_published_model(files):
    source = chosen(files, pi3="model.safetensors")
    assert source.chosen == "pi3" and source.config.published == "pi3" and source.config.predictions
    assert (source.config.width, source.config.depth, source.config.encoder_depth) == (128, 2, 2)
    assert not chosen(files, pi3="headless.safetensors").config.predictions
    masked = chosen(files, T=3, page4d="checkpoint_mask.pt")
    assert masked.chosen == "page4d" and masked.config.row_mask.gain == 64
    assert masked.described == "PAGE-4D 2026 (checkpoint_mask.pt)"
    assert not chosen(files, T=3, page4d="checkpoint_mask.pt", mask=False).config.has_mask
    assert chosen(files, T=3, page4d="vggt.pt").config.published == "vggt"


def test_everything_else_is_the_projects_own_network(files):
    assert chosen(files).config == page4d.ModelConfig.preset("vitl") and chosen(files).described == "seeded (seed 0)"
    both = chosen(files, pi3="model.safetensors", page4d="checkpoint_mask.pt")
    assert both.chosen is None and both.config.published is None and both.config.streams == 2
    assert both.config.mask_head == "2026"
    over_time = chosen(files, T=4, pi3="model.safetensors")  # Pi3 alone knows no time
    assert over_time.chosen is None and over_time.config.published is None
    asked = chosen(files, preset="vits", pi3="model.safetensors")
    assert asked.config.width == 384 and asked.config.published is None
    assert not chosen(files, preset="pi3", pi3="headless.safetensors").config.predictions
    with pytest.raises(UsageError, match="--registers and --time-sa choose between checkpoints"):
        ModelSource.choose(None, {}, 1, registers="split")


@pytest.mark.parametrize(("name", "T", "V"), [("model.safetensors", 1, 2), ("checkpoint_150.pt", 2, 1)])
def test_engines_of_a_checkpoint_are_its_model(files, tmp_path, name, T, V):
    """From the file through load, stages, ONNX and the runtime; eps in every file and in the manifest."""
    model = page4d.load(files / name)
    layout = Layout(T, V, 28, 42)
    folder = tmp_path / "engines"
    folder.mkdir()
    manifest = write_unverified(model, ExportPlan.make(model.config, layout, Precision.FLOAT32), folder)
    images = np.random.default_rng(0).integers(0, 256, layout.images_shape, np.uint8)
    outputs, reference = Pipeline.load(folder).run(images).tensors(), model(torch.from_numpy(images))
    for layer, tensor in reference.layers.items():
        np.testing.assert_allclose(outputs[f"layers.{layer}"], tensor, rtol=1e-3, atol=1e-3 * float(tensor.abs().max()))
    assert ("points" in outputs) == (reference.points is not None)
    assert ("mask" in outputs) == (reference.mask is not None)
    for entry in manifest.stages:
        graph = onnx.load(folder / entry.file, load_external_data=False).graph
        stored = {
            onnx.helper.get_attribute_value(a) for node in graph.node for a in node.attribute if a.name == "epsilon"
        }
        # VGGT's camera head normalises once without weights, which no eps of a checkpoint is for
        weightless = {1e-6} if entry.kind == "camera" and T > 1 else set()
        assert {round(value, 9) for value in stored} == set(entry.eps.values()) | weightless, entry.name
    assert manifest.loaded == model.report == read_manifest(folder).loaded
    assert manifest.loaded.files[0].sha256 == hashlib.sha256((files / name).read_bytes()).hexdigest()


def test_the_command(files, tmp_path):
    arguments = ("--pi3", files / "headless.safetensors", "--T", 1, "--V", 2, "--height", 28, "--width", 42)
    done = inside(*arguments, "-o", tmp_path / "engines", "--json")
    assert done.returncode == 0, done.stderr
    assert "preset pi3, as Pi3 (headless.safetensors) was published" in done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["weights"] == "Pi3 (headless.safetensors)" and manifest["model"]["published"] == "pi3"
    groups = {group["name"]: group for group in manifest["loaded"]["groups"]}
    assert groups["encoder"]["loaded"] == 35 and groups["encoder"]["file"] == "headless.safetensors"
    row = next(line for line in done.stderr.splitlines() if line.startswith("time_sa "))
    assert re.search(r"time_sa +headless.safetensors +decoder\.\{2i\}\.\* +36", row)
    assert manifest["verification"]["chain"].keys() == {"layers.1/time_sa.1", "layers.1/view_sa.1"}


def test_bad_checkpoints_leave_no_engines(files, tmp_path):
    state = pi3_state()
    state["decoder.1.mlp.fc2.weight"][3, 5] = float("nan")
    save_pi3(tmp_path / "nan.safetensors", state)
    (tmp_path / "cut.safetensors").write_bytes((files / "model.safetensors").read_bytes()[:-100])
    arguments = ("--T", 1, "--V", 2, "--height", 28, "--width", 42, "-o", tmp_path / "engines")
    for flags, message in (
        (
            ("--pi3", tmp_path / "nan.safetensors"),
            r"nan\.safetensors: decoder\.1\.mlp\.fc2\.weight holds numbers that are not finite\s+got:\s+1 of",
        ),
        (("--pi3", tmp_path / "cut.safetensors"), r"cut\.safetensors is damaged"),
        (("--pi3", files / "vggt.pt"), r"vggt\.pt was given as pi3, and is a VGGT checkpoint"),
        (
            ("--pi3", files / "model.safetensors", "--preset", "pi3"),
            r"has another shape than the model's\s+got:.*128.*\s+allowed:.*1024",
        ),
        (("--pi3", files / "model.safetensors", "--mask", "off"), r"mask is out of range"),
        (("--page4d", files / "checkpoint_150.pt", "--mask", "dim"), r"'--mask'.*'dim' is not one of 'on', 'off'"),
    ):
        done = inside(*flags, *arguments)
        assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "engines").exists()


def test_what_a_checkpoint_is(files, tmp_path):
    done = inside(files / "checkpoint_150.pt", function=weights_command)
    assert done.returncode == 0, done.stderr
    for words in ("PAGE-4D 150", "24 of two blocks each", "2 blocks, width 128", "camera and 4 registers", "optimizer"):
        assert words in done.stdout, words
    document = json.loads(inside(files / "model.safetensors", "--json", function=weights_command).stdout)
    assert (document["model"], document["layers"], document["registers"], document["predictions"]) == (
        "pi3",
        2,
        4,
        ["points", "confidence", "camera"],
    )
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    refused = inside(tmp_path / "page.pt", function=weights_command)
    assert refused.returncode == 2 and "page.pt" in refused.stderr and "Traceback" not in refused.stderr


def test_a_checkpoint_in_several_files_is_exported_and_a_part_of_it_is_not(files, tmp_path):
    state = pi3_state(heads=False)
    parts = [
        {name: tensor for name, tensor in state.items() if name.startswith("decoder.3.") == second}
        for second in (False, True)
    ]
    folder = save_sharded(tmp_path / "parts", parts)
    arguments = ("--T", 1, "--V", 2, "--height", 28, "--width", 42, "-o", tmp_path / "engines")
    done = inside("--pi3", folder, *arguments, "--dry-run")
    assert done.returncode == 0 and "note: model.safetensors.index.json: none of Pi3's heads" in done.stderr, (
        done.stderr
    )
    refused = inside("--pi3", folder / "model-00001-of-00002.safetensors", *arguments)
    assert refused.returncode == 2 and str(folder / "model.safetensors.index.json") in refused.stderr, refused.stderr
    shown = inside(folder, function=weights_command)
    assert shown.returncode == 0 and "model-00002-of-00002" in shown.stdout, shown.stderr
    source = ModelSource.choose(None, {}, 1, sources=Sources.of(Checkpoint.open(folder)))
    model = source.model()
    assert model.complete and source.config.depth == 2 and model.weights == "Pi3 (model.safetensors.index.json)"
    assert not (tmp_path / "engines").exists()


def test_nothing_half_loaded_is_exported(files, tmp_path, monkeypatch):
    model = page4d.load(files / "headless.safetensors")
    plan = ExportPlan.make(model.config, Layout(1, 2, 28, 42), Precision.FLOAT32)
    real, written = weights._put, []

    def interrupted(*arguments):
        written.append(arguments[1])
        if len(written) == 5:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(weights, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        page4d.load_weights(model, pi3=files / "headless.safetensors")
    for half in (model, page4d.Page4D(model.config, filled=False)):
        with pytest.raises(UsageError, match="weights are not complete"):
            write_verified(half, plan, tmp_path / "engines")
    assert not list(tmp_path.iterdir())
