"""Manifests of Depth Anything 3 and Pi3X: every kind of stage that other models lack."""

import json

import msgspec

from page4d import Layout, ModelConfig
from page4d.precision import Precision
from page4d_export.plan.export_plan import ExportPlan
from tests.support.da3.models import MODELS, SMALL

HASH = "0" * 64
WIDTH, H, W, PATCHES = SMALL["width"], 56, 70, 20


def as_written(plan):
    """With names of files, but no files."""
    manifest = plan.manifest("seeded")
    values = json.loads(msgspec.json.encode(manifest))
    for entry in values["stages"]:
        entry["file"] = f"onnx/{entry['name']}.onnx"
    values["files"] = {entry["file"]: HASH for entry in values["stages"]}
    if manifest.constants:
        values["files"]["onnx/constants.safetensors"] = HASH
    return values


def plan_of_model(name, V, B=1, precision=Precision.FLOAT32, absent_views=False):
    """Of a model of `MODELS`: two images a call of the encoder, or one of Pi3X's, and one of the heads that take them
    in chunks."""
    config, layout = ModelConfig.preset(**MODELS[name]), Layout(1, V, H, W, B)
    images = 1 if name == "pi3x" else 2
    return ExportPlan.make(config, layout, precision, False, images, head_images=1, absent_views=absent_views)


def manifest_of_model(name, V, B=1, precision=Precision.FLOAT32, absent_views=False):
    """As `plan_of_model`."""
    return as_written(plan_of_model(name, V, B, precision, absent_views))


BASES = {
    "da3": manifest_of_model("da3", 4),
    "known": manifest_of_model("known", 4),
    "pi3x": manifest_of_model("pi3x", 3),
    "mono": manifest_of_model("mono", 4),
    "metric": manifest_of_model("metric", 4),
}

_DA3, _KNOWN = BASES["da3"]["stages"], BASES["known"]["stages"]
_SELECT = {"name": "select", "shape": [2, WIDTH], "dtype": "float32"}
WRONG = {
    "da3": [
        (["layout", "registers"], 2),
        (["layout", "registers"], 4),
        (["layout", "registers"], "removed"),
        (["layout", "registers"], "0"),
        (["layout", "special"], 1),
        (["pose_direction"], "sideways"),
        (["pose_direction"], 1),
        (["unit"], "metres"),
        (["unit"], "feet"),
        (["unit"], 1),
        (["model", "depth"], 0),
        (["model", "published"], "da3-mono"),
        (["layout", "T"], 2),
        (["stages", 0, "outputs", 1, "shape"], [4, WIDTH]),
        (["stages", 0, "outputs", 1, "dtype"], "float16"),
        (["stages", 0, "outputs", 1, "name"], "selected"),
        (["stages", 0, "outputs", 1, "name"], "features.3"),
        (["stages", 0, "outputs", 0, "name"], "features.3"),
        (["stages", 0, "inputs", 1, "shape"], [2, 5, WIDTH]),
        (["stages", 5, "kind"], "metric"),
        (["stages"], [_DA3[0], _KNOWN[0], *_DA3[1:]]),
        (["stages"], [_KNOWN[0], *_DA3]),
        (["stages"], _DA3[1:]),
        (["stages", 6, "calls"], 3),
        (["files", "onnx/constants.safetensors"], "removed"),
    ],
    "known": [
        (["stages", 0, "inputs", 0, "shape"], [4, 12]),
        (["stages", 0, "inputs", 0, "name"], "images"),
        (["stages", 0, "outputs", 0, "shape"], [2, 1, WIDTH]),
        (["stages", 0, "outputs", 0, "name"], "tokens"),
        (["stages", 0, "calls"], 2),
        (["stages"], [_KNOWN[0], _KNOWN[0], *_KNOWN[1:]]),
        (["stages"], _KNOWN[:1] + _KNOWN[2:]),
        (["stages", 1, "calls"], 4),
        (["stages", 1, "outputs"], [_KNOWN[1]["outputs"][0], _SELECT]),
        (["stages", 6, "inputs", 0, "name"], "cameras"),
    ],
    "pi3x": [
        (["pose_direction"], "sideways"),
        (["unit"], "feet"),
        (["model", "published"], "pi3"),
        (["stages", 5, "calls"], 2),
        (["stages", 5, "outputs", 0, "shape"], [3, H, W, 3]),
        (["stages", 6, "outputs", 0, "shape"], [1, W, H]),
        (["stages", 8, "outputs", 0, "shape"], [3]),
        (["stages", 8, "outputs", 0, "shape"], [1, 1]),
        (["stages", 8, "outputs", 0, "dtype"], "float16"),
        (["stages", 8, "outputs", 0, "name"], "scale"),
        (["stages", 8, "calls"], 3),
        (["stages", 8, "kind"], "scale"),
    ],
    "mono": [
        (["model", "depth"], 1),
        (["model", "depth"], "removed"),
        (["model", "published"], "da3"),
        (["model", "published"], None),
        (["model", "published"], ["da3-mono"]),
        (["model", "global_layers"], [0]),
        (["pose_direction"], "camera_to_world"),
        (["layout", "registers"], 1),
        (["stages", 0, "inputs"], [_DA3[0]["inputs"][1]]),
        (["stages", 0, "inputs"], _DA3[0]["inputs"]),
        (["stages", 0, "outputs"], BASES["mono"]["stages"][0]["outputs"] + [{**_SELECT, "name": "features.25"}]),
        (["stages", 0, "outputs"], BASES["mono"]["stages"][0]["outputs"][:3]),
        (["stages", 0, "outputs", 0, "shape"], [2, PATCHES + 1, WIDTH]),
        (["stages", 0, "outputs", 0, "dtype"], "float16"),
        (["stages", 0, "outputs", 0, "name"], "tokens"),
        (["stages", 1, "inputs", 0, "name"], "features.5"),
        (["stages", 1, "inputs", 0, "name"], "layers.0"),
        (["stages", 1, "inputs", 0, "shape"], [2, PATCHES, WIDTH]),
        (["stages", 1, "outputs", 1, "name"], "depth_confidence"),
        (["stages", 1, "outputs", 1, "shape"], [1, W, H]),
        (["stages", 1, "calls"], 3),
        (["stages"], _DA3),
    ],
    "metric": [(["unit"], "miles")],
}
RIGHT = {
    "da3": [
        (["pose_direction"], "world_to_camera"),
        (["pose_direction"], "removed"),
        (["pose_direction"], None),
        (["model", "published"], "a model of tomorrow"),
        (["stages", 0, "outputs"], _DA3[0]["outputs"][:1]),
    ],
    "known": [(["pose_direction"], None)],
    "pi3x": [(["unit"], None), (["unit"], "removed"), (["layout", "registers"], "removed")],
    "mono": [(["layout", "registers"], 4), (["unit"], "metres"), (["model", "published"], "da3-metric")],
    "metric": [(["unit"], None)],
}
