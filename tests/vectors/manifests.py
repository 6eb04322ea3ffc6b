"""Manifests that are read, and manifests that are refused with these very words; and the buffer plans that are made of the first."""

import copy
import itertools
import json
import pathlib
import re
import tempfile
from dataclasses import asdict

import msgspec
from conftest import EXPORTED, config_of, layout_of, takes_keypoints

from page4d.errors import EngineError
from page4d.manifest import read_manifest
from page4d.precision import Precision
from page4d_engines.buffers import BufferPlan
from page4d_engines.program import Gather, Run, program
from page4d_export.plan import Plan

HASH = "0" * 64
BF16 = {"default", "pi3"}  # of the others float32; float16 is of the same size


def manifest_of(variant, precision=Precision.FLOAT32, B=1, encoder_images=None):
    """As plain values, with names of files, but no files."""
    plan = Plan.make(config_of(variant), layout_of(variant, 56, 70, B), precision, takes_keypoints(variant), encoder_images)
    found = json.loads(msgspec.json.encode(plan.manifest("seeded")))
    for entry in found["stages"]:
        entry["file"] = f"onnx/{entry['name']}.onnx"
    found["files"] = {entry["file"]: HASH for entry in found["stages"]} | {"onnx/constants.safetensors": HASH}
    return found


def plans():
    """Every kind of stage; what lies where, and the steps of a window."""
    wanted = [(variant, Precision.BFLOAT16 if variant in BF16 else Precision.FLOAT32, 1) for variant in EXPORTED]
    others = [("memory", Precision.FLOAT16, 2), ("default", Precision.INT8, 1), ("default", Precision.FP8, 1)]
    # an encoder call has one time, one image, or three, a time and a half: then carried images are computed once more
    slides = [("default", Precision.FLOAT32, 2), ("late", Precision.BFLOAT16, 1), ("memory", Precision.FLOAT16, 3)]
    return {
        "plans": [_plan(variant, precision, B) for variant, precision, B in [*wanted, *others]],
        "slides": [_plan(variant, precision, 1, encoder_images, sliding=True) for variant, precision, encoder_images in slides],
    }


def _plan(variant, precision, B, encoder_images=None, sliding=False):
    manifest = manifest_of(variant, precision, B, encoder_images)
    plan = BufferPlan.make(_read(json.dumps(manifest)), sliding=sliding)
    steps = []
    for step in program(plan):
        if isinstance(step, Run):
            views = [{name: asdict(view) for name, view in each.items()} for each in (step.call.inputs, step.call.outputs)]
            steps.append({"stage": step.call.stage.name, "inputs": views[0], "outputs": views[1], "gathers": []})
        elif isinstance(step, Gather):
            steps[-1]["gathers"].append(_numbers(step))
    views = {which: {name: asdict(view) for name, view in getattr(plan, which).items()} for which in ("starts", "outputs")}
    found = {"name": f"{variant} {precision} B={B}", "manifest": manifest, "sizes": plan.sizes, "total": plan.total, **views, "steps": steps}
    layout = layout_of(variant, 56, 70, B)
    return found | {"carries": [_carry(plan, shared * layout.V) for shared in range(1, layout.T)]} if sliding else found


def _carry(plan, images):
    """Of a window that begins with so many images of the one before: what is moved, and the calls that are left."""
    steps = program(plan, carried=images)
    moved = [_numbers(step) for step in itertools.takewhile(lambda step: not isinstance(step, Run), steps) if isinstance(step, Gather)]
    return {"images": images, "gathers": moved, "calls": [step.number for step in steps if isinstance(step, Run)]}


def _numbers(step):
    return [step.source.buffer, step.target.buffer, step.source_offset, step.target_offset, step.rows, step.width, step.pitch]


def _read(text):
    """A manifest from its text, by the real reader."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        return read_manifest(pathlib.Path(folder))


def _said(text):
    try:
        _read(text)
    except EngineError as error:
        return re.sub(r"got:     /\S*manifest\.json", "got:     manifest.json", str(error))
    return ""


# what is done to a manifest: the place, and the value that it gets; a value of REMOVED takes it away
REMOVED = "removed"
WRONG = [
    *[([key], REMOVED) for key in ("page4d", "model", "weights", "layout", "precision", "encoder_images", "stages", "keep", "format")],
    (["page4d"], 3),
    (["page4d"], None),
    (["weights"], ["a"]),
    (["model"], []),
    (["format"], 2),
    (["format"], "1"),
    (["encoder_images"], 1.0),
    (["encoder_images"], "1"),
    (["encoder_images"], True),
    (["encoder_images"], 0),
    (["precision"], "float8"),
    (["layout"], {"T": 3, "V": 2, "H": 56}),
    (["layout"], {"T": 3, "V": 2, "H": 56, "W": 70, "D": 1}),
    (["layout", "T"], "3"),
    (["layout", "T"], 0),
    (["layout", "H"], 55),
    (["layout", "W"], 2**40),
    (["layout", "T"], 4),
    (["stages"], {}),
    (["stages"], []),
    (["stages", 0], 1),
    (["stages", 0, "name"], REMOVED),
    (["stages", 0, "name"], "../encoder"),
    (["stages", 1, "name"], "encoder"),
    (["stages", 0, "layer"], "x"),
    (["stages", 0, "flop"], 1.5),
    (["stages", 0, "calls"], 0),
    (["stages", 0, "calls"], 2),
    (["stages", 0, "file"], 4),
    (["stages", 0, "eps"], {"a b": None}),
    (["stages", 0, "accuracy"], {"tokens": {"cosine": 1, "max_abs": "x"}}),
    (["stages", 0, "accuracy"], {"tokens": {"cosine": 1}}),
    (["stages", 0, "ties"], "none"),
    (["stages", 0, "inputs", 0, "name"], 7),
    (["stages", 0, "inputs", 0, "name"], "pictures"),
    (["stages", 0, "inputs", 1, "name"], "images"),
    (["stages", 0, "inputs", 0, "dtype"], "uint16"),
    (["stages", 0, "inputs", 0, "shape"], []),
    (["stages", 0, "inputs", 0, "shape", 0], "6"),
    (["stages", 0, "inputs", 0, "shape", 0], 0),
    (["stages", 0, "inputs", 0, "shape", 0], -6),
    (["stages", 0, "inputs", 0, "shape", 0], 7),
    (["stages", 0, "outputs", 0, "shape"], [2**20, 2**20, 2]),
    (["stages", 0, "outputs", 0, "shape"], [2**62, 2**62, 2**62, 2]),
    (["stages", 0, "outputs", 0, "shape"], [1] * 9),
    (["keep", 0, "layer"], None),
    (["keep", 0, "layer"], -1),
    (["keep", 0, "stages"], []),
    (["keep", 0, "stages"], ["nobody"]),
    (["keep", 0, "stages"], ["encoder"]),
    (["keep", 0, "stages"], [1]),
    (["keep", 0, "streams"], 1),
    (["keep", 0, "streams"], 3),
    (["model", "width"], 64),
    (["model", "width"], REMOVED),
    (["files"], {"a": 4}),
    (["made"], {"a": 4}),
    (["plans"], 3),
    (["plans"], {"library": "rtx"}),
    (["plans"], {"library": "cudnn", "version": "1", "chips": [], "kernels": None, "stages": {}}),
    (["plans"], {"library": "rtx", "version": "1.7.1", "chips": [], "kernels": None, "stages": {}}),
    (["plans"], {"library": "rtx", "version": "1.7.1", "chips": [8], "kernels": None, "stages": {}}),
    (["golden"], {"inputs": "x", "expected": 4}),
    (["verification"], {"layout": {"T": "4"}}),
    (["loaded"], {"files": []}),
    (["loaded"], {"files": [], "groups": [{"name": "a", "file": "b", "keys": "c", "loaded": "d"}]}),
]
RIGHT = [(["later"], {"than": "us"}), (["stages", 0, "later"], 1), (["keep"], []), (["verification"], None), (["layout", "B"], REMOVED)]
NO_JSON = [
    "",
    "[]",
    "{",
    '{"format":1,}',
    '{"format":1} x',
    '{"format":NaN}',
    '{"format":01}',
    '{"format":1,"page4d":"\udcff"}',
    '{"a":' * 200,
    "3",
    "null",
    '"text"',
]


def manifests():
    """One manifest, changed in one place a case; `said` is empty where it is read. Of texts that are no JSON only the first words are the same."""
    base = manifest_of("default")
    cases = []
    for place, value in [*WRONG, *RIGHT]:
        said = _said(json.dumps(changed(base, place, value)))
        assert bool(said) == ((place, value) in WRONG), (place, value, said)
        cases.append({"place": place, "value": value, "said": said})
    return {"removed": REMOVED, "base": base, "changed": cases, "no_json": [_no_json(text) for text in NO_JSON]}


def _no_json(text):
    """In hexadecimal: some are not even text."""
    assert _said(text).startswith("manifest.json is damaged: "), text
    return text.encode("utf-8", "surrogateescape").hex()


def changed(base, place, value):
    """The base with one thing changed."""
    made = copy.deepcopy(base)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    if value == REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return made
