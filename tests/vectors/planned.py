"""Manifests of planned exports, as plain values."""

import json

import msgspec

HASH = "0" * 64


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
