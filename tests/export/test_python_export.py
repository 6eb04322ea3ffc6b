"""`page4d_export.export`: the export as Python programs call it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import page4d_export
from page4d import ModelConfig, Page4D
from page4d.errors import AccuracyError, UsageError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines import Pipeline
from tests.support.checkpoints import pi3_state, save_pi3
from tests.support.models import config_of, layout_of, lively

SMALL = {"T": 2, "V": 2, "height": 28, "width": 42}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_pi3(path, pi3_state())
    return path


def test_a_model_becomes_engines_that_compute_what_it_does(tmp_path):
    model, layout = lively(config_of("default", encoder_depth=2)), layout_of("default", 56, 70)
    shares = []
    manifest = page4d_export.export(
        model,
        T=layout.T,
        V=layout.V,
        height=56,
        width=70,
        out=tmp_path / "engines",
        progress=lambda what, share: shares.append(share),
    )
    assert manifest == read_manifest(tmp_path / "engines") and manifest.verification.layout == layout
    assert shares == sorted(shares) and 0 <= shares[0] < shares[-1] <= 1
    images = np.random.default_rng(0).integers(0, 256, layout.images_shape, np.uint8)
    layers, expected = Pipeline.load(tmp_path / "engines").run(images).layers, model(torch.from_numpy(images)).layers
    for number, tokens in expected.items():
        np.testing.assert_allclose(layers[number], tokens, rtol=1e-3, atol=1e-3 * float(tokens.abs().max()))


def test_a_checkpoint_is_its_published_model_in_the_precision_that_is_asked(checkpoint, tmp_path):
    engines = str(tmp_path / "engines")
    manifest = page4d_export.export(
        str(checkpoint), T=1, V=2, height=28, width=42, precision="float16", tolerance=0.02, out=engines
    )
    assert manifest.weights == "Pi3 (model.safetensors)" and manifest.precision == "float16"
    assert manifest.model["published"] == "pi3" and manifest.loaded.files[0].name == "model.safetensors"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"precision": "fp16"}, "precision has no such value"),
        ({"attention": "fast"}, "attention has no such value"),
        ({"tolerance": float("nan")}, "--tolerance is out of range"),
        ({"height": 30}, "height is not a multiple of the patch size 14"),
        ({"registers": "split"}, "are for the path of a checkpoint"),
        ({"model": 3}, "there is no model to export"),
        ({"model": "missing.safetensors"}, "missing.safetensors"),
        ({"frames": "missing"}, "missing"),
        ({"out": "missing/engines"}, "-o lies in a folder that does not exist"),
    ],
)
def test_bad_arguments_leave_nothing(changed, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {"model": Page4D(ModelConfig.preset("tiny", depth=1, encoder_depth=1)), "out": "engines", **SMALL}
    with pytest.raises(UsageError, match=words):
        page4d_export.export(**arguments | changed)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_ours_stays(checkpoint, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(UsageError, match="-o"):
        page4d_export.export(checkpoint, T=1, V=2, height=28, width=42, out=tmp_path)
    with pytest.raises(UsageError, match="checkpoint"):
        page4d_export.export(checkpoint, T=1, V=2, height=28, width=42, out=checkpoint.parent)
    assert os.listdir(tmp_path) == ["notes.txt"] and notes.read_text() == "mine" and checkpoint.is_file()


def test_a_stage_that_departs_leaves_no_engines(tmp_path):
    model = lively(config_of("default", encoder_depth=2))
    with pytest.raises(AccuracyError, match="departs from the reference"):
        page4d_export.export(model, T=3, V=2, height=56, width=70, tolerance=1e-9, out=tmp_path / "engines")
    assert os.listdir(tmp_path) == []


def test_importing_the_package_is_light():
    code = "import sys, page4d_export; assert not {'torch', 'onnx', 'numpy'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
