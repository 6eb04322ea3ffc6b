"""Manifests of Depth Anything 3 and Pi3X: which go together, and the words of those that do not."""

import dataclasses
import json

import msgspec
import pytest

from page4d import Layout
from page4d.errors import EngineError
from page4d.manifest import Unit
from page4d.manifest_checks.manifest_check import check_manifest
from page4d.manifest_checks.manifest_file import read_manifest
from tests.support.da3.models import MODELS, H, W, model_of
from tests.support.torch_engines.torch_stages import TorchStages


def entry_of(manifest, name):
    return next(number for number, entry in enumerate(manifest.stages) if entry.name == name)


def changed(manifest, name, **fields):
    """With other fields of a stage."""
    stages = list(manifest.stages)
    number = entry_of(manifest, name)
    stages[number] = msgspec.structs.replace(stages[number], **fields)
    return msgspec.structs.replace(manifest, stages=tuple(stages))


def shaped(spec, *shape):
    return msgspec.structs.replace(spec, shape=shape)


def _listed(manifest):
    """With hashes of files that nobody reads."""
    files = {entry.file: "0" * 64 for entry in manifest.stages} | {"onnx/constants.safetensors": "0" * 64}
    return msgspec.structs.replace(manifest, files=files)


def manifest_of(name, layout=None):
    return TorchStages(model_of(name), layout or Layout(1, 3, H, W), 3, 1).manifest


def _with(manifest, **fields):
    return msgspec.structs.replace(manifest, **fields)


def _moved(manifest, name, place):
    stages = list(manifest.stages)
    stages.insert(place, stages.pop(entry_of(manifest, name)))
    return _with(manifest, stages=tuple(stages))


@pytest.mark.parametrize("name", list(MODELS))
def test_manifests_of_these_models_go_together(name):
    check_manifest(_listed(manifest_of(name)))


def _spec(manifest, stage, tensor):
    entry = manifest.stages[entry_of(manifest, stage)]
    return next(spec for spec in (*entry.inputs, *entry.outputs) if spec.name == tensor)


def _outputs(manifest, stage, *specs):
    return changed(manifest, stage, outputs=specs)


REFUSED = [
    ("da3", lambda _: manifest_of("da3", Layout(3, 1, H, W)), r"are for one timestep\s+got:\s+T=3"),
    (
        "da3",
        lambda m: _outputs(m, "encoder", _spec(m, "encoder", "tokens"), shaped(_spec(m, "encoder", "select"), 3, 32)),
        r"select of encoder is not of its layout\s+got:\s+float32 \[3, 32\]\s+allowed: float32 \[3, 64\]",
    ),
    (
        "da3",
        lambda m: _with(m, layout=dataclasses.replace(m.layout, registers=4)),
        "special of encoder is not of its layout",
    ),
    ("da3", lambda m: _with(m, unit=Unit.METRES), r"a unit and no metric or sky\s+got:\s+metres\s+allowed: no unit"),
    (
        "mono",
        lambda m: _with(m, pose_direction="camera_to_world"),
        r"a pose_direction and no camera\s+got:\s+camera_to_world\s+allowed: no pose_direction",
    ),
    ("mono", lambda m: _with(m, model={**m.model, "depth": 1}), r"its model has no depth\s+got:\s+1\s+allowed: 0\n"),
    (
        "mono",
        lambda m: _with(m, model={**m.model, "published": None}),
        r"its model has no depth\s+got:\s+0\s+allowed: 1 to 65535",
    ),
    ("da3", lambda m: _with(m, model={**m.model, "depth": 0}), r"its model has no depth\s+got:\s+0"),
    (
        "mono",
        lambda m: _outputs(m, "depth", _spec(m, "depth", "depth")),
        r"depth has other tensors than a stage of kind depth\s+got:\s+features.0, .*\s+allowed: 1 to 4 layers.<i>",
    ),
    (
        "mono",
        lambda m: _outputs(m, "encoder", shaped(_spec(m, "encoder", "features.0"), 3, 7, 64)),
        r"features.0 of encoder is not of its layout\s+got:\s+float32 \[3, 7, 64\]\s+allowed: float32 \[3, 6, 64\]",
    ),
    (
        "mono",
        lambda m: _outputs(m, "encoder", _spec(m, "encoder", "features.0")),
        "depth reads what is not there by then",
    ),
    (
        "known",
        lambda m: _moved(m, "camera_encoder", 1),
        r"camera encoder is not its first stage\s+got:\s+camera_encoder",
    ),
    ("known", lambda m: _moved(m, "encoder", 2), r"the encoder is not its first stage\s+got:\s+time_sa.0"),
    (
        "known",
        lambda m: _outputs(m, "camera_encoder", shaped(_spec(m, "camera_encoder", "special"), 1, 1, 64)),
        r"special of camera_encoder is not of its layout\s+got:\s+float32 \[1, 1, 64\]\s+allowed: float32 \[3, 1, 64\]",
    ),
    ("known", lambda m: changed(m, "camera_encoder", calls=3), r"camera_encoder is called another number of times"),
    (
        "known",
        lambda m: _outputs(m, "encoder", _spec(m, "encoder", "tokens"), _spec(manifest_of("da3"), "encoder", "select")),
        r"chooses a reference view although the cameras are known",
    ),
    (
        "pi3x",
        lambda m: changed(m, "points", calls=2),
        r"points is called another number of times\s+got:\s+2\s+allowed: a divisor of 3 images",
    ),
    ("pi3x", lambda m: _with(m, model={**m.model, "published": "pi3"}), "points is called another number of times"),
    (
        "pi3x",
        lambda m: _outputs(m, "metric", shaped(_spec(m, "metric", "metric"), 3)),
        r"metric of metric is not of its layout\s+got:\s+float32 \[3\]\s+allowed: float32 \[1\]",
    ),
    (
        "pi3x",
        lambda m: changed(m, "metric", kind="scale"),
        r"unknown kind\s+got:\s+scale\s+allowed: .*depth, camera_encoder, metric",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_parts_that_do_not_go_together_are_refused(name, change, message):
    with pytest.raises(EngineError, match=message):
        check_manifest(_listed(change(manifest_of(name))))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "pose_direction",
            "up",
            r"its pose_direction is unknown\s+got:\s+up\s+allowed: world_to_camera, camera_to_world",
        ),
        ("unit", "feet", r"its unit is unknown\s+got:\s+feet\s+allowed: metres"),
    ],
)
def test_unknown_words_are_refused(tmp_path, field, value, message):
    _rewritten(tmp_path, lambda manifest: manifest.update({field: value}), message)


def test_layouts_have_registers_of_a_model(tmp_path):
    _rewritten(
        tmp_path,
        lambda manifest: manifest["layout"].update(registers=2),
        r"its layout is none\s+got:\s+registers=2\s+allowed: 0 or 4 registers",
    )


def _rewritten(folder, change, message):
    TorchStages(model_of("da3"), Layout(1, 1, H, W)).write(folder / "engines")
    file = folder / "engines" / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(EngineError, match=message):
        read_manifest(folder / "engines")
