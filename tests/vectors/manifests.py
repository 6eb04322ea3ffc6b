"""Manifests that are read, and manifests that are refused, with their errors."""

import copy
import json
import pathlib
import re
import tempfile

from page4d.errors import EngineError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_export.plan.export_plan import ExportPlan
from tests.support.models import config_of, layout_of, takes_keypoints
from tests.vectors import published_manifests
from tests.vectors.published_manifests import HASH, as_written


def manifest_of(variant, precision=Precision.FLOAT32, B=1, encoder_images=None, head_images=None, absent_views=False):
    """Of a small model."""
    plan = ExportPlan.make(
        config_of(variant),
        layout_of(variant, 56, 70, B),
        precision,
        takes_keypoints(variant),
        encoder_images,
        head_images=head_images,
        absent_views=absent_views,
    )
    return as_written(plan)


def read(text):
    """A manifest from its text, by the real reader."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        return read_manifest(pathlib.Path(folder))


def _refusal(text):
    try:
        read(text)
    except EngineError as error:
        return re.sub(r"got:     /\S*manifest\.json", "got:     manifest.json", str(error))
    return ""


# what is done to a manifest: the place, and the value that it gets; a value of REMOVED takes it away
REMOVED = "removed"
SPARE = {"name": "mask_ext", "shape": [3, 2, 20, 1], "dtype": "float32"}
PLAN = {"file": "onnx/encoder.onnx", "plugins": 0, "fused": 0, "seconds": 1}
STAGES = [entry["name"] for entry in manifest_of("default")["stages"]]
PLANS = dict.fromkeys(STAGES, PLAN)
FILE = {"name": "a", "model": "b", "sha256": HASH, "tensors": 1}
SWAPPED, MOVED, WITHOUT = (
    [manifest_of("default")["stages"][number] for number in order]
    for order in ((0, 1, 3, 2, 4, 5, 6), (0, 2, 1, 3, 4, 5, 6), (0, 2, 3, 4, 5, 6))
)
WRONG = [
    *[
        ([key], REMOVED)
        for key in ("page4d", "model", "weights", "layout", "precision", "encoder_images", "stages", "keep", "format")
    ],
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
    (["attention"], "tiled"),
    (["attention"], None),
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
    (["licence"], 3),
    (["plans"], 3),
    (["plans"], {"library": "rtx"}),
    (["plans"], {"library": "cudnn", "version": "1", "chips": [], "kernels": None, "stages": {}}),
    (["plans"], {"library": "rtx", "version": "1.7.1", "chips": [], "kernels": None, "stages": {}}),
    (["plans"], {"library": "rtx", "version": "1.7.1", "chips": [8], "kernels": None, "stages": {}}),
    (["golden"], {"inputs": "x", "expected": 4}),
    (["verification"], {"layout": {"T": "4"}}),
    (["verification"], {"layout": {"T": 4}, "frames": "", "tolerance": 1, "chain": {}}),
    (["verification"], {"layout": {"T": 4, "V": 1, "H": 14, "W": 15}, "frames": "", "tolerance": 1, "chain": {}}),
    *[
        (["model", option], value)
        for option in ("width", "streams", "depth")
        for value in (REMOVED, None, 0, 2**40, 1.5, "1", True, [1], {})
    ],
    *[
        (["model", "order"], value)
        for value in (REMOVED, ["view"], ["time", "view"], ["view", "view"], ["view", 1], "view", None)
    ],
    *[(["model", "global_layers"], value) for value in (REMOVED, None, [], [0], [1, 7], [-1], ["1"], [True], "1")],
    (["model", "depth"], 1),
    (["model", "streams"], 1),
    (["layout"], {"T": 65534, "V": 65534, "H": 65534, "W": 65534, "B": 65534}),
    (["encoder_images"], 4),
    (["encoder_images"], 3),
    (["encoder_images"], 2**62),
    (["stages", 0, "kind"], "eye"),
    (["stages", 0, "kind"], "mask_head"),
    (["stages", 0, "layer"], 0),
    (["stages", 2, "layer"], None),
    (["stages", 2, "layer"], 1),
    (["stages", 2, "kind"], "time_sa"),
    (["stages", 0, "calls"], 2**40),
    (["stages", 1, "calls"], 2),
    *[(["stages", 0, count], value) for count in ("weight_bytes", "flop", "largest") for value in (-1, 2**62)],
    (["stages", 0, "inputs", 1], SPARE),
    (["stages", 0, "inputs"], []),
    (["stages", 0, "outputs"], []),
    (["stages", 0, "outputs", 0, "suffix"], "_out"),
    (["stages", 2, "outputs", 0, "suffix"], ""),
    (["stages", 2, "outputs", 0, "suffix"], "_in"),
    (["stages", 2, "inputs", 0, "suffix"], "_out"),
    (["stages", 0, "inputs", 0, "shape"], [6, 70, 56, 3]),
    (["stages", 0, "inputs", 1, "shape"], [1, 5, 128]),
    (["stages", 0, "inputs", 1, "shape"], [6, 5, 1]),
    (["stages", 0, "outputs", 0, "shape"], [1, 150, 128]),
    (["stages", 0, "outputs", 0, "name"], "mask"),
    (["stages", 0, "outputs", 0, "dtype"], "float16"),
    (["stages", 1, "inputs", 0, "shape"], [2, 3, 2, 25, 128]),
    (["stages", 2, "inputs", 0, "shape"], [2, 3, 2, 25, 128]),
    (["stages", 2, "inputs", 0, "name"], "memory"),
    (["stages", 2, "inputs", 0, "name"], "layers.1"),
    (["stages", 2, "outputs", 0, "shape"], [3, 3, 2, 25, 128]),
    (["stages", 3, "outputs", 0, "shape"], [1, 3, 2, 25, 128]),
    (["stages", 1, "outputs", 0, "dtype"], "uint8"),
    (["stages", 2, "file"], "onnx/view_sa.1.onnx"),
    (["stages", 2, "file"], "view_sa.0.onnx"),
    (["stages", 2, "file"], None),
    (["stages", 2, "cpu"], "onnx/view_sa.0.cpu.onnx"),
    (["stages", 2, "cpu"], "onnx/encoder.onnx"),
    (["stages", 2, "cpu"], None),
    (["stages", 2, "cpu_signed"], "onnx/view_sa.0.vnni.onnx"),
    (["stages", 2, "cpu_signed"], "onnx/encoder.onnx"),
    (["stages", 2, "cpu_signed"], 1),
    *[(["stages"], stages) for stages in (SWAPPED, MOVED, WITHOUT)],
    (["keep", 0, "stages"], ["time_sa.0"]),
    (["keep", 0, "stages"], ["global_sa.1", "global_sa.1"]),
    (["keep", 0, "stages"], ["global_sa.1", "time_sa.1"]),
    (["keep", 0, "layer"], 0),
    (["keep", 0, "layer"], 2**62),
    *[(["files", name], HASH) for name in ("../a", "/a", "a/../b", "a//b", "./a", "a/", "", "a/.")],
    (["files", "onnx/constants.safetensors"], REMOVED),
    (["files", "onnx/encoder.onnx"], REMOVED),
    *[(["files", "onnx/encoder.onnx"], value) for value in ("", "0" * 63, "0" * 65, "A" * 64, "0" * 63 + "\n")],
    (["golden"], {"inputs": "golden/inputs.safetensors", "expected": None, "tolerance": {}}),
    (["golden"], {"inputs": "onnx/encoder.onnx", "expected": "x", "tolerance": {}}),
    (["golden"], {"inputs": "onnx/encoder.onnx", "expected": "onnx/encoder.onnx", "tolerance": {"encoder/tokens": 1}}),
    (["golden"], {"inputs": "onnx/encoder.onnx", "expected": None, "tolerance": {"encoder/tokens": -1}}),
    (["golden"], {"inputs": "onnx/encoder.onnx", "expected": None, "tolerance": {"encoder/tokens": 1e300}}),
    (["golden"], {"inputs": "onnx/encoder.onnx", "expected": None, "tolerance": {"encoder/mask": 1}}),
    (["plans"], {"library": "rtx", "version": "1", "chips": [], "kernels": None, "stages": PLANS}),
    (["plans"], {"library": "rtx", "version": "1", "chips": [], "kernels": None, "stages": {**PLANS, "eye": PLAN}}),
    (["loaded"], {"files": []}),
    (["loaded"], {"files": [{"name": "a", "model": "b", "sha256": "c", "tensors": 1, "revision": 2}], "groups": []}),
    (["loaded"], {"files": [{**FILE, "revision": 1}], "groups": []}),
    (["loaded"], {"files": [{**FILE, "repository": None}], "groups": []}),
    (["licence"], 3),
    (["licence"], None),
    (["loaded"], {"files": [], "groups": [{"name": "a", "file": "b", "keys": "c", "loaded": "d"}]}),
]
RIGHT = [
    (["golden"], {"inputs": "onnx/encoder.onnx", "expected": None, "tolerance": {"encoder/tokens": 0}}),
    (["files", "onnx/more/a b.data"], HASH),
    (["model", "heads"], "any"),
    (["later"], {"than": "us"}),
    (["licence"], "Apache-2.0"),
    (["loaded"], {"files": [{**FILE, "repository": "a/b", "revision": "c"}], "groups": []}),
    (["stages", 0, "later"], 1),
    (["keep"], []),
    (["verification"], None),
    (["layout", "B"], REMOVED),
]
# of the base of VGGT: stages 5, 6 and 7 are its camera, depth and points, of 3 images in 3 calls
_LAYERS = manifest_of("vggt", head_images=1)["stages"][6]["inputs"]
_FIVE = [{**_LAYERS[0], "name": f"layers.{number}"} for number in range(5)]
WRONG_HEADS = [
    (["points_frame"], REMOVED),
    (["points_frame"], None),
    (["points_frame"], "room"),
    (["points_frame"], 1),
    (["stages"], manifest_of("vggt", head_images=1)["stages"][:7]),
    *[(["stages", number, "calls"], calls) for number in (6, 7) for calls in (0, 1, 2, 4, 2**40)],
    (["stages", 5, "calls"], 3),
    *[(["stages", number, "inputs"], inputs) for number in (6, 7) for inputs in ([], _FIVE, [_LAYERS[0], _LAYERS[0]])],
    (["stages", 5, "inputs"], _LAYERS),
    (["stages", 6, "inputs", 0, "name"], "layers.7"),
    (["stages", 6, "inputs", 0, "name"], "tokens"),
    (["stages", 6, "inputs", 0, "shape"], [3, 1, 25, 256]),
    (["stages", 6, "inputs", 0, "dtype"], "float16"),
    (["stages", 6, "outputs", 0, "shape"], [3, 56, 70]),
    (["stages", 6, "outputs", 0, "shape"], [1, 70, 56]),
    (["stages", 6, "outputs", 0, "dtype"], "float16"),
    (["stages", 6, "outputs", 0, "name"], "points"),
    (["stages", 6, "outputs", 0, "name"], "depth_confidence"),
    (["stages", 6, "outputs", 1, "name"], "confidence"),
    (["stages", 6, "kind"], "points"),
    (["stages", 7, "outputs", 0, "shape"], [1, 56, 70]),
    (["stages", 7, "outputs", 1, "name"], "confidence"),
    (["stages", 7, "outputs", 1, "shape"], [1, 56, 70, 3]),
    (["stages", 5, "outputs", 0, "shape"], [3, 1, 7]),
    (["stages", 5, "outputs", 0, "shape"], [1, 3, 9]),
    (["keep"], []),
    (["keep", 0, "stages"], ["time_sa.0"]),
]
RIGHT_HEADS = [
    (["points_frame"], "camera"),
    (["stages", 5, "outputs", 0, "shape"], [3, 1, 12]),
    (["stages", 6, "inputs"], _LAYERS[:1]),
    (["stages", 6, "inputs"], _LAYERS[::-1]),
]
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
    '{"a":' * 101 + "1" + "}" * 101,
    "[" * 101 + "]" * 101,
    '{"format":1,"format":1}',
    '{"format":1,"a":{"b":1,"c":2,"b":3}}',
    '{"format":1,"a":9223372036854775808}',
    '{"format":1,"a":-9223372036854775809}',
    '{"format":1,"a":18446744073709551616}',
    '{"format":1,"a":1' + "0" * 400 + "}",
    '{"format":1,"a":1e400}',
    '{"format":1,"a":-1e400}',
    '{"format":1,"a":Infinity}',
    '{"format":1,"a":"\\ud800"}',
    '{"format":1,"a":"\t"}',
    "\ufeff{}",
    "3",
    "null",
    '"text"',
]


def manifests():
    """One manifest, changed in one place a case; `said` is the error, empty where it is read.

    Of texts that are no JSON only the first words of the errors are the same.
    """
    base, heads = manifest_of("default"), manifest_of("vggt", head_images=1)
    cases, cases_of_heads = changes_of(base, WRONG, RIGHT), changes_of(heads, WRONG_HEADS, RIGHT_HEADS)
    deep = {"later": json.loads("[" * 99 + "1" + "]" * 99)}
    assert not _refusal(json.dumps(base | deep)), "as deep as may be"
    return {
        "removed": REMOVED,
        "base": base,
        "changed": cases,
        "heads": {"base": heads, "changed": cases_of_heads},
        "published": [
            {
                "base": base,
                "changed": changes_of(base, published_manifests.WRONG[name], published_manifests.RIGHT[name]),
            }
            for name, base in published_manifests.BASES.items()
        ],
        "no_json": [_no_json(text) for text in NO_JSON],
        "deep": deep,
    }


def changes_of(base, wrong, right):
    """Each change with the error that the reader gives."""
    cases = []
    for place, value in [*wrong, *right]:
        error = _refusal(json.dumps(changed(base, place, value)))
        assert bool(error) == ((place, value) in wrong), (place, value, error)
        cases.append({"place": place, "value": value, "said": error})
    return cases


def _no_json(text):
    """In hexadecimal: some are not even text."""
    assert _refusal(text).startswith("manifest.json is damaged: "), text
    return text.encode("utf-8", "surrogateescape").hex()


def changed(base, place, value):
    """The base with one thing changed."""
    manifest = copy.deepcopy(base)
    inner = manifest
    for key in place[:-1]:
        inner = inner[key]
    if value == REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return manifest
