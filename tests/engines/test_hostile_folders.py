"""Engine folders that are damaged, or made by somebody who means harm: refused in words before anything in them is
loaded."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from page4d.errors import EngineError, Page4DError
from page4d.files import sha256
from page4d.manifest import CONSTANTS
from page4d.manifest_file import read_manifest
from page4d.system.strict_json import DEEPEST, LARGEST, require_strict
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.self_check import self_check
from tests.support.examples import examples
from tests.support.fuzz_folders import encoded, fuzz

ENCODER = "onnx/encoder.onnx"
SMALL = "onnx/mask_head.onnx"


@pytest.fixture
def folder(made, tmp_path):
    return pathlib.Path(shutil.copytree(made().folder, tmp_path / "engines"))


@pytest.fixture
def golden(checked, tmp_path):
    return pathlib.Path(shutil.copytree(checked(), tmp_path / "engines"))


def rewrite(folder, change=lambda manifest: None):
    """The manifest changed, the hashes of all files that it lists made right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    for name in manifest["files"]:
        if os.path.isfile(folder / name):
            manifest["files"][name] = sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refused(folder, words):
    with pytest.raises(EngineError, match=words) as caught:
        Pipeline.load(folder, Backend.ONNXRUNTIME, threads=1)
    assert caught.value.exit_code == 4
    return caught.value


# ---- what stands in the place of a file


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    os.mknod(path, 0o600 | stat.S_IFSOCK)


STAND_INS = {
    "is a FIFO": fifo,
    "is a socket": unix_socket,
    "is a folder": pathlib.Path.mkdir,
    "leads out of the engine folder": lambda path: path.symlink_to("/dev/zero"),
    "cannot be read": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("words", STAND_INS)
@pytest.mark.parametrize("name", ["manifest.json", CONSTANTS, ENCODER, f"{ENCODER}.data"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder, name, words):
    (folder / name).unlink()
    STAND_INS[words](folder / name)
    refused(folder, f"{name} {words}")


@pytest.mark.parametrize("name", ["manifest.json", ENCODER, f"{ENCODER}.data"])
def test_links_lead_to_what_is_inside_or_nowhere(folder, name, tmp_path):
    outside = tmp_path / "outside"
    shutil.copy(folder / name, outside)
    (folder / name).unlink()
    (folder / name).symlink_to(outside)
    refused(folder, rf"(?s){name} leads out of the engine folder.*cp -rL")
    (folder / "..data").mkdir()  # as a container's volumes are laid out
    shutil.copy(outside, folder / "..data" / "kept")
    (folder / name).unlink()
    (folder / name).symlink_to(os.path.relpath(folder / "..data" / "kept", (folder / name).parent))
    EngineFolder.open(folder)


def test_a_folder_of_files_that_leads_out_is_refused(folder, tmp_path):
    (folder / "onnx").rename(tmp_path / "onnx")
    (folder / "onnx").symlink_to(tmp_path / "onnx")
    refused(folder, "leads out of the engine folder")


def test_the_engine_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert Pipeline.load(tmp_path / "link", Backend.ONNXRUNTIME, threads=1).manifest == read_manifest(folder)


@pytest.mark.parametrize("name", ["../a", "/etc/hostname", "a//b", "./a", "a/", "", "a/..", "a\0b", "onnx/../../a"])
def test_names_are_plain_paths_inside(folder, name):
    rewrite(folder, lambda manifest: manifest["files"].update({name: "0" * 64}))
    refused(folder, "names a file outside the engine folder")


@pytest.mark.parametrize("name", ["a" * 300, "onnx/missing", "onnx/encoder.onnx/inside", "\u00e9" * 200])
def test_files_that_are_not_there(folder, name):
    rewrite(folder, lambda manifest: manifest["files"].update({name: "0" * 64}))
    refused(folder, "lacks|cannot be read")


@pytest.mark.parametrize("name", [CONSTANTS, SMALL, "golden/inputs.safetensors", "golden/expected.safetensors"])
def test_what_is_used_is_listed(golden, name):
    rewrite(golden, lambda manifest: manifest["files"].pop(name))
    refused(golden, "is not listed|stages without a file")


# ---- the manifest's text


TEXTS = {
    "too large": b" " * (LARGEST + 1),
    "nested too deeply": b'{"format": 1, "a": ' + b"[" * 100_000,
    "key twice: format": b'{"format": 1, "format": 1}',
    "more than 64 bits": b'{"format": 1, "a": ' + b"9" * 5000 + b"}",
    "too large$": b'{"format": 1, "a": 1e400}',
    "NaN is no number": b'{"format": 1, "a": NaN}',
    "damaged": b"\xef\xbb\xbf{}",
    "damaged: ": b'{"format": 1, "a": "\\ud800"}',
}


@pytest.mark.parametrize("words", TEXTS)
def test_texts_that_are_no_manifest(folder, words):
    (folder / "manifest.json").write_bytes(TEXTS[words])
    error = refused(folder, "manifest.json")
    assert words.strip("$") in str(error)


@examples(100)
@given(st.integers(1, 2 * DEEPEST), st.booleans(), st.sampled_from(["", "1", "{}", '"["']))
def test_depth_is_counted_in_objects_and_arrays(depth, is_object, inside):
    opening, closing = ('{"a":', "}") if is_object else ("[", "]")
    text = (opening * depth + (inside or "0") + closing * depth).encode()
    if depth + (inside == "{}") <= DEEPEST:
        require_strict(text)
    else:
        with pytest.raises(ValueError, match="nested too deeply"):
            require_strict(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@examples(200)
@given(JSON)
def test_plain_documents_are_strict(document):
    require_strict(json.dumps(document).encode())


# ---- graphs


def with_graph(folder, change, name=ENCODER):
    model = onnx.load(folder / name, load_external_data=False)
    change(model)
    (folder / name).write_bytes(model.SerializeToString())
    rewrite(folder)
    return folder


def place(tensor, **keys):
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.ClearField("raw_data")
    for key, value in keys.items():
        tensor.external_data.add(key=key, value=str(value))


def outside(model):
    return next(tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)


LOCATIONS = {
    "absolute": "/etc/passwd",
    "upwards": "../manifest.json",
    "not listed": "stranger.data",
    "a folder deeper": "deeper/w.data",
    "ONNX Runtime's word for an address in memory": "*/_ORT_MEM_ADDR_/*",
    "none": "",
    "Windows": "..\\manifest.json",
}


@pytest.mark.parametrize("kind", LOCATIONS)
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.UINT8])
def test_weights_lie_beside_their_graph(folder, kind, dtype):
    (folder / "onnx" / "stranger.data").write_bytes(bytes(1 << 20))
    deeper = folder / "onnx" / LOCATIONS["a folder deeper"]
    deeper.parent.mkdir()
    deeper.write_bytes(bytes(1 << 20))
    rewrite(folder, lambda manifest: manifest["files"].update({"onnx/deeper/w.data": "0" * 64}))

    def change(model):
        place(outside(model), location=LOCATIONS[kind], offset=0)
        outside(model).data_type = dtype

    refused(with_graph(folder, change), "weights that are not in the engine folder")


@pytest.mark.parametrize(
    "keys",
    [
        {"offset": 10**12},
        {"offset": -4096},
        {"offset": 2**63},
        {"offset": "0x10"},
        {"offset": " 0"},
        {"offset": 0, "length": 10**12},
        {"offset": 0, "length": 4},
        {"offset": 0, "length": -4},
        {"offset": 0, "basepath": "/etc"},
        {"offset": 0, "checksum": "x"},
    ],
)
def test_weights_lie_within_their_file(folder, keys):
    refused(
        with_graph(folder, lambda model: place(outside(model), location="encoder.onnx.data", **keys)),
        "weights (in a place that is none|beyond the end)",
    )


def test_a_place_is_said_once(folder):
    def change(model):
        tensor = outside(model)
        tensor.external_data.add(key="location", value="encoder.onnx.data")

    refused(with_graph(folder, change), "in a place that is none")


@pytest.mark.parametrize(
    ("dtype", "dims"),
    [
        (TensorProto.STRING, [1]),
        (TensorProto.INT4, [2]),
        (99, [1]),
        (TensorProto.FLOAT, [-1]),
        (TensorProto.FLOAT, [2**40]),
    ],
)
def test_weights_of_types_and_sizes_that_are_none(folder, dtype, dims):
    def change(model):
        tensor = outside(model)
        place(tensor, location="encoder.onnx.data", offset=0)
        tensor.data_type = dtype
        tensor.dims[:] = dims

    refused(with_graph(folder, change), "weights (in a place that is none|beyond the end)")


def test_weights_in_attributes_are_looked_at_as_well(folder):
    def change(model):
        tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
        place(tensor, location="/etc/passwd", offset=0)
        model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))

    refused(with_graph(folder, change, SMALL), "weights that are not in the engine folder")


def loop(model):
    out = model.graph.output[0]
    shape = [side.dim_value for side in out.type.tensor_type.shape.dim]
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("before", "after")]
    go = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["before"], ["after"])]
    body = helper.make_graph(
        nodes, "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []), go[0], tensor[0]], [go[1], tensor[1]]
    )
    constants = {"count": np.array(2**62), "true": np.array(True), "zero": np.zeros(shape, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Loop", list(constants), [out.name], body=body))


def foreign(model):
    model.graph.node[0].domain = "evil.ops"
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))


def foreign_function(model):
    model.functions.append(
        helper.make_function(
            "", "Add", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 20)]
        )
    )


def endless_function(model):
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("page4d", 1)]
    del model.functions[:]
    nodes = [helper.make_node("BiasedAttention", ["a"], ["b"], domain="page4d")]
    model.functions.append(helper.make_function("page4d", "BiasedAttention", ["a"], ["b"], nodes, imports))


@pytest.mark.parametrize("change", [loop, foreign, foreign_function, endless_function])
def test_operators_that_are_not_the_exporters(folder, change):
    refused(with_graph(folder, change, SMALL), "operator of an unknown kind")


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(1000), b"\x08" * 100])
def test_files_that_are_no_graphs(folder, content):
    (folder / SMALL).write_bytes(content)
    rewrite(folder)
    refused(folder, "is no ONNX file|has other inputs")


def border(way, change):
    return lambda model: change(getattr(model.graph, way)[0])


@pytest.mark.parametrize("way", ["input", "output"])
@pytest.mark.parametrize(
    "change",
    [
        lambda value: setattr(value, "name", "other"),
        lambda value: setattr(value.type.tensor_type, "elem_type", TensorProto.DOUBLE),
        lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_value", 7),
        lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_param", "n"),
        lambda value: value.type.tensor_type.shape.dim.add(dim_value=1),
        lambda value: value.type.Clear(),
    ],
)
def test_inputs_and_outputs_are_the_manifests(folder, way, change):
    refused(with_graph(folder, border(way, change), SMALL), "than the manifest says|is not what the manifest says")


def test_a_graph_that_says_two_sizes_of_one_tensor_writes_nowhere(folder):
    """Shapes inside a graph are anybody's word; memory is bound by the size of the manifest's."""

    def change(model):
        for value in model.graph.value_info:
            value.type.tensor_type.shape.dim[0].dim_value = 2**20

    with pytest.raises(Page4DError):
        Pipeline.load(with_graph(folder, change), Backend.ONNXRUNTIME, threads=1).run(
            np.zeros(read_manifest(folder).layout.images_shape, np.uint8)
        )


# ---- constants and the golden clip


def other_constants(folder, change):
    constants = load_file(folder / CONSTANTS)
    change(constants)
    save_file({name: np.ascontiguousarray(array) for name, array in constants.items()}, folder / CONSTANTS)
    rewrite(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda constants: constants.clear(),
        lambda constants: constants.update(more=np.zeros(3, np.float32)),
        lambda constants: constants.update(special=np.zeros((3, 5), np.float32)),
        lambda constants: constants.update(special=constants["special"][:1]),
        lambda constants: constants.update(special=np.moveaxis(constants["special"], 0, 1)),
        lambda constants: constants.update(special=constants["special"].astype(np.float64)),
        lambda constants: constants.update(special=constants["special"] * np.nan),
        lambda constants: constants.update(special=constants["special"] + np.inf),
        lambda constants: constants.update(special=np.zeros(1 << 20, np.float32)),
    ],
)
def test_constants_are_what_the_engines_need(folder, change):
    refused(other_constants(folder, change), "is not as the engines need it")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff" * 8,
        bytes(100),
        (2**40).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b'{"a": NaN}',
    ],
)
def test_constants_that_are_damaged(folder, content):
    (folder / CONSTANTS).write_bytes(content)
    rewrite(folder)
    refused(folder, "is not as the engines need it")


GOLDEN = {
    "inputs": [
        lambda tensors: tensors.pop("images"),
        lambda tensors: tensors.update(images=tensors["images"][:1]),
        lambda tensors: tensors.update(images=tensors["images"].astype(np.float32)),
        lambda tensors: tensors.update(more=tensors["images"]),
        lambda tensors: tensors.update(mask_ext=tensors["mask_ext"] * np.nan),
    ],
    "expected": [
        lambda tensors: tensors.pop("encoder/tokens"),
        lambda tensors: tensors.update({"encoder/tokens": tensors["encoder/tokens"][:5]}),
        lambda tensors: tensors.update({"encoder/tokens": tensors["encoder/tokens"] * np.nan}),
        lambda tensors: tensors.update({"nobody/tokens": tensors["encoder/tokens"]}),
    ],
}


@pytest.mark.parametrize(
    ("file", "number"), [(file, number) for file, changes in GOLDEN.items() for number in range(len(changes))]
)
def test_the_golden_clip_is_of_these_engines(golden, file, number):
    path = golden / "golden" / f"{file}.safetensors"
    tensors = load_file(path)
    GOLDEN[file][number](tensors)
    save_file(tensors, path)
    rewrite(golden)
    opened = EngineFolder.open(golden)
    with pytest.raises(EngineError, match="is not as the engines need it"):
        self_check(opened, Pipeline.of(opened, Backend.ONNXRUNTIME, ThreadPool.of(1)))


@pytest.mark.parametrize("tolerance", [{}, {"encoder/tokens": 1}, {"nobody/tokens": 1}])
def test_every_reference_has_its_tolerance(golden, tolerance):
    rewrite(golden, lambda manifest: manifest["golden"].update(tolerance=tolerance))
    refused(golden, "other tolerances")


# ---- whatever else


def test_changed_folders_are_refused_or_run(checked, tmp_path):
    outcomes, failures, _ = fuzz(checked(), 250, 7, tmp_path)
    assert failures == [], failures[0][2]
    assert sum(outcomes.values()) == 250 and outcomes["same"] > 5
    assert len([outcome for outcome in outcomes if outcome.startswith("refused")]) > 1


def test_bounds_hold_without_assertions(folder):
    """`python -O` takes assertions away: what they kept from memory must be kept by something else."""
    program = """
import sys, numpy as np
from page4d.errors import EngineError
from page4d_engines.ort.cpu_engine import OrtEngine
assert False, "assertions are on"
engine = OrtEngine(__import__("pathlib").Path(sys.argv[1]))
three = np.zeros(3, np.float32)
try:
    engine.bind({"tokens": three, "mask_ext": three}, {"mask": three})
except EngineError as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-O", "-c", program, folder / SMALL], capture_output=True, text=True)
    assert done.returncode == 0 and "does not lie in memory as its graph says" in done.stdout, done.stderr


def test_encoded_takes_whatever_the_fuzzer_makes():
    assert json.loads(encoded({"a": [2**70, 1e300, None, "\u202e"]})) == {"a": [2**70, 1e300, None, "\u202e"]}
