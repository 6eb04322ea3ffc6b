"""Recognising a checkpoint, and refusing what is none: every error is a UsageError that names the file, and nothing in
a file runs."""

import collections
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import time
import warnings
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.tensor_file import TensorFile
from page4d.checkpoints.weights import load
from page4d.config import Published
from page4d.errors import UsageError
from tests.support.checkpoints import page4d_shapes, page4d_state, pi3_shapes, pi3_state, save_page4d, save_pi3
from tests.support.examples import examples

TABLES = pathlib.Path(__file__).parents[4] / "shared" / "checkpoints"
NORM = "decoder.0.norm1.weight"


@pytest.fixture(scope="module")
def small():
    """A whole Pi3 checkpoint without heads, 64 wide."""
    return pi3_state(64, encoder_depth=1, pairs=1, heads=False)


def refused(path, *words, act=Checkpoint.open):
    """The text of the UsageError, which names the file and holds some words."""
    with pytest.raises(UsageError) as caught:
        act(path)
    text = str(caught.value)
    for word in (path.name, *words):
        assert word in text
    return text


def only_usage_errors(path):
    """Open a file and read all of it; anything but a UsageError is raised."""
    try:
        checkpoint = Checkpoint.open(path)
        checkpoint.document()
        for _, tensor in checkpoint.read(checkpoint.shapes):
            tensor.sum()
    except UsageError:
        pass


# ---- the small checkpoints of these tests are the real ones in small


def table(name):
    path = TABLES / f"{name}.keys.json"
    if not path.is_file():
        pytest.skip(f"no table of the real checkpoint at {path}")
    return {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}


def test_pi3_names_and_shapes_are_the_real_ones():
    real = table("pi3")
    assert len(real) == 1210
    assert pi3_shapes(1024, encoder_depth=24, pairs=18) == real


@pytest.mark.parametrize(("name", "kind"), [("page4d_checkpoint_150", "150"), ("page4d_2026", "2026")])
def test_page4d_names_and_shapes_are_the_real_ones(name, kind):
    real = table(name)
    made = page4d_shapes(kind, 1024, encoder_depth=24)
    assert {key for key in made if key.startswith("aggregator.")} == {
        key for key in real if key.startswith("aggregator.")
    }
    assert made.items() <= real.items()


# ---- what a file is


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("heads", [True, False])
def test_pi3_is_recognised(tmp_path, suffix, heads):
    path = tmp_path / f"model{suffix}"
    state = pi3_state(64, encoder_depth=2, pairs=3, heads=heads)
    save_pi3(path, state)
    found = Checkpoint.open(path)
    assert (found.published, found.described, found.name) == (Published.PI3, "Pi3", path.name)
    assert (found.width, found.depth, found.encoder_depth, found.registers) == (64, 3, 2, 4)
    assert (found.mask_head, found.predictions) == (None, heads)
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert set(found.dtypes.values()) == {"float32"}


FORMS = {
    "nested": {},
    "flat": {"nested": False},
    "module": {"module": True},
    "flat module": {"nested": False, "module": True},
    "optimizer": {"optimizer": True},
    "safetensors": {"suffix": ".safetensors"},
    "safetensors module": {"suffix": ".safetensors", "module": True},
}


@pytest.mark.parametrize("kind", ["150", "2026", None])
@pytest.mark.parametrize("form", FORMS)
def test_page4d_and_vggt_are_recognised(tmp_path, kind, form):
    options = dict(FORMS[form])
    path = tmp_path / f"checkpoint{options.pop('suffix', '.pt')}"
    state = page4d_state(kind, 64, encoder_depth=1, layers=range(3))
    save_page4d(path, state, **options)
    found = Checkpoint.open(path)
    assert found.published is (Published.PAGE4D if kind else Published.VGGT)
    assert found.described == (f"PAGE-4D {kind}" if kind else "VGGT")
    assert (found.width, found.depth, found.encoder_depth, found.registers) == (64, 3, 1, 4)
    assert found.mask_head == kind
    assert not found.predictions
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert ("optimizer" in found.state) == (path.suffix == ".pt" and options.get("nested", True))
    for name, tensor in found.read(state):
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict"])
def test_other_usual_nestings(tmp_path, small, wrapper):
    torch.save({wrapper: {"model": small}, "epoch": 3}, tmp_path / "a.pt")
    found = Checkpoint.open(tmp_path / "a.pt")
    assert found.state == ("epoch",)
    assert set(found.shapes) == set(small)


def test_document(tmp_path):
    state = page4d_state("2026", 64, encoder_depth=1, layers=range(2))
    state["aggregator.camera_token"] = state["aggregator.camera_token"].half()
    save_page4d(tmp_path / "a.pt", state)
    document = Checkpoint.open(tmp_path / "a.pt").document()
    assert json.loads(json.dumps(document)) == document
    assert document == {
        "file": str(tmp_path / "a.pt"),
        "bytes": (tmp_path / "a.pt").stat().st_size,
        "model": "page4d",
        "described": "PAGE-4D 2026",
        "mask_head": "2026",
        "width": 64,
        "encoder_blocks": 1,
        "layers": 2,
        "registers": 4,
        "predictions": False,
        "tensors": len(state),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "dtypes": ["float16", "float32"],
        "beside": [
            "prev_epoch",
            "steps",
            "optimizer",
            "scaler",
            "ema_models",
            "skip_saving_parameters",
            "time_elapsed",
        ],
        "files": ["a.pt"],
        "notes": [],
    }


def test_the_dtype_is_told_in_the_same_words_for_both_formats(tmp_path):
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for suffix in (".pt", ".safetensors"):
            save_pi3(tmp_path / f"a{suffix}", {"register_token": torch.zeros(1, 1, 5, 64, dtype=dtype)})
            assert TensorFile.open(tmp_path / f"a{suffix}").tensors == {
                "register_token": ((1, 1, 5, 64), str(dtype).removeprefix("torch."))
            }


def test_pi3x_is_refused_by_name(tmp_path, small):
    save_pi3(
        tmp_path / "a.safetensors",
        {**small, "depth_encoder.x.weight": torch.zeros(1), "pose_inject_blk.0.weight": torch.zeros(1)},
    )
    refused(tmp_path / "a.safetensors", "Pi3X", "depth_encoder.*", "pose_inject_blk.*")
    save_pi3(tmp_path / "b.safetensors", {**small, "pose_inject_blk.0.weight": torch.zeros(1)})
    assert "depth_encoder" not in refused(tmp_path / "b.safetensors", "Pi3X")


def test_another_model_is_refused_with_what_it_has(tmp_path):
    save_pi3(tmp_path / "a.safetensors", {"backbone.0.weight": torch.zeros(1), "neck.bias": torch.zeros(1)})
    refused(tmp_path / "a.safetensors", "no checkpoint of a known model", "backbone, neck")


def test_the_same_tensor_twice(tmp_path, small):
    save_pi3(tmp_path / "a.pt", {**small, f"module.{NORM}": torch.zeros(64)})
    refused(tmp_path / "a.pt", NORM, "twice")


def test_many_names_take_no_time(tmp_path):
    """Work grows as the file does, also where the last of 100,000 names is there twice."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    table = {f"decoder.{i % 500}.{i}": entry for i in range(100_000)} | {"zz": entry, "module.zz": entry}
    header = json.dumps(table).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    began = time.process_time()
    refused(tmp_path / "a.safetensors", "zz", "twice")
    assert time.process_time() - began < 5


# ---- what trainers and compilers put around names

PREFIXES = st.lists(st.sampled_from(["module", "_orig_mod", "model", "_fsdp_wrapped_module"]), max_size=4).map(
    lambda words: "".join(f"{word}." for word in words)
)


@examples(25)
@given(PREFIXES)
def test_prefixes_in_any_order_and_nesting(tmp_path_factory, small, prefix):
    path = tmp_path_factory.getbasetemp() / "prefixed.safetensors"
    save_pi3(path, {prefix + name: tensor for name, tensor in small.items()})
    found = Checkpoint.open(path)
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in small.items()}
    for name, tensor in found.read([NORM, "register_token"]):
        assert torch.equal(tensor, small[name])


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_checkpoint_wrapped_module"])
def test_a_wrapper_around_a_part_of_the_model(tmp_path, small, wrapper):
    """Compiled block by block: `decoder.0._orig_mod.norm1.weight`."""
    inner = lambda name: name.replace("decoder.0.", f"decoder.0.{wrapper}.").replace(
        "encoder.", f"encoder.{wrapper}.", 1
    )
    save_pi3(tmp_path / "a.safetensors", {inner(name): tensor for name, tensor in small.items()})
    assert set(Checkpoint.open(tmp_path / "a.safetensors").shapes) == set(small)


def test_a_file_of_lightning(tmp_path, small):
    torch.save(
        {"state_dict": {f"model.{name}": tensor for name, tensor in small.items()}, "epoch": 3, "global_step": 7},
        tmp_path / "last.ckpt",
    )
    found = Checkpoint.open(tmp_path / "last.ckpt")
    assert set(found.shapes) == set(small) and found.state == ("epoch", "global_step")
    assert load(tmp_path / "last.ckpt").complete


def test_another_prefix_is_named(tmp_path, small):
    save_pi3(tmp_path / "a.safetensors", {f"net.{name}": tensor for name, tensor in small.items()})
    refused(tmp_path / "a.safetensors", "no checkpoint of a known model", "without 'net.'")


# ---- averaged weights


def test_averaged_weights_beside_the_trained_ones_are_not_read_and_noted(tmp_path, small):
    averaged = {name: tensor * 0 for name, tensor in small.items()}
    torch.save({"model": small, "ema": {"module": averaged}}, tmp_path / "a.pt")
    save_pi3(tmp_path / "b.safetensors", small | {f"ema.{name}": tensor for name, tensor in averaged.items()})
    for path, place in ((tmp_path / "a.pt", "['ema']['module']"), (tmp_path / "b.safetensors", "ema.*")):
        (note,) = [note for note in Checkpoint.open(path).notes if "averaged" in note]
        assert path.name in note and place in note
        model = load(path)
        assert torch.equal(model.layers[0].view_sa.block.norm1.weight, small["decoder.1.norm1.weight"])
        assert note in model.report.notes and f"note: {note}" in str(model.report)


def test_averaged_weights_alone_are_refused_with_what_to_do(tmp_path, small):
    torch.save({"ema": {"module": small}, "epoch": 1}, tmp_path / "a.pt")
    assert "torch.load('a.pt')['ema']['module']" in refused(tmp_path / "a.pt", "no checkpoint of a known model")


def test_an_optimizers_state_is_no_other_weights(tmp_path, small):
    state = {"exp_avg": torch.zeros(3), "ema": torch.zeros(3)}
    torch.save({"model": small, "optimizer": {"state": {0: state}, "ema": state}}, tmp_path / "a.pt")
    assert not any("averaged" in note for note in Checkpoint.open(tmp_path / "a.pt").notes)


# ---- what is no file of weights


def test_no_such_file(tmp_path):
    refused(tmp_path / "none.pt", "no such checkpoint")
    refused(tmp_path, "holds no checkpoint")
    refused(tmp_path / ("a" * 5000 + ".pt"), "cannot be read")


TEXTS = {
    "empty": b"",
    "lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid"
        b" sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
    ),
    "html": b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n" * 20,
    "text": b"These are not the weights that you are looking for.\n" * 20,
    "short": b"PK",
    "empty zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
@pytest.mark.parametrize("content", TEXTS)
def test_other_files(tmp_path, content, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(TEXTS[content])
    text = refused(path)
    assert ("git lfs pull" in text) == (content == "lfs pointer")


@pytest.fixture(scope="module")
def safetensors_bytes(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.safetensors"
    save_pi3(path, small)
    return path.read_bytes()


@pytest.fixture(scope="module")
def pt_bytes(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    save_page4d(path, small)
    return path.read_bytes()


def header_bytes(content):
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.mark.parametrize("part", ["length", "header", "tensors"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("more", [0, 1])
def test_truncated_safetensors(tmp_path, safetensors_bytes, part, kept, more):
    header, size = header_bytes(safetensors_bytes), len(safetensors_bytes)
    first, last = {"length": (0, 8), "header": (8, header), "tensors": (header, size - 2)}[part]
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes[: first + int(kept * (last - first)) + more])
    refused(path, str(path.stat().st_size))


@pytest.mark.parametrize("kept", [1, 3, 4, 5, 30, 1000, 0.5, -1000, -22, -1])
def test_truncated_pt(tmp_path, pt_bytes, kept):
    path = tmp_path / "model.pt"
    path.write_bytes(pt_bytes[: len(pt_bytes) // 2 if kept == 0.5 else kept])
    refused(path, "damaged", str(path.stat().st_size))


def one_tensor(**entry):
    return json.dumps(
        {"register_token": {"dtype": "F32", "shape": [1, 1, 5, 64], "data_offsets": [0, 1280]} | entry}
    ).encode()


HEADERS = {
    "length of 2**63": (2**63, one_tensor()),
    "length of 2**64 - 1": (2**64 - 1, one_tensor()),
    "length beyond the file": (5000, one_tensor()),
    "length too small": (20, one_tensor()),
    "no length": (0, one_tensor()),
    "no JSON": (None, b"x" * 200),
    "broken JSON": (None, one_tensor()[:-1]),
    "no UTF-8": (None, b'{"\xff\xfe": 1}'),
    "a list": (None, b"[1, 2, 3]"),
    "nested 10,000 deep": (None, b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "overflow": (None, one_tensor(shape=[2**62, 8])),
    "overflow to the right size": (None, one_tensor(shape=[2**32, 2**32, 5, 64])),
    "negative shape": (None, one_tensor(shape=[1, 1, -5, -64])),
    "shape beyond 64 bits": (None, one_tensor(shape=[2**70])),
    "offsets beyond the file": (None, one_tensor(data_offsets=[2**40, 2**40 + 1280])),
    "offsets reversed": (None, one_tensor(data_offsets=[1280, 0])),
    "offsets that leave a gap": (None, one_tensor(data_offsets=[8, 1288])),
    "shape and offsets that disagree": (None, one_tensor(shape=[1, 1, 5, 65])),
    "no dtype": (None, one_tensor(dtype="F31")),
}


@pytest.mark.parametrize("case", HEADERS)
def test_broken_safetensors_headers(tmp_path, case):
    length, header = HEADERS[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(1280))
    refused(path)


def test_a_good_header_of_the_same_making_is_taken(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(one_tensor())) + one_tensor() + bytes(1280))
    assert TensorFile.open(path).tensors == {"register_token": ((1, 1, 5, 64), "float32")}


@pytest.mark.parametrize("length", [128, 2 * 256, 0x80 * 257])
def test_a_header_length_may_begin_with_any_byte(tmp_path, length):
    """0x80 is also the first byte of a pickle."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + one_tensor().ljust(length) + bytes(1280))
    assert TensorFile.open(path).tensors == {"register_token": ((1, 1, 5, 64), "float32")}


def test_legacy_torch_format(tmp_path, small):
    for suffix in (".pt", ".bin", ""):
        torch.save(small, tmp_path / f"a{suffix}", _use_new_zipfile_serialization=False)
        refused(tmp_path / f"a{suffix}", "before 2020", "torch.save")


def test_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "TorchScript")


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("README.md", "nothing")
    refused(tmp_path / "a.pt")


# ---- hostile files


class Runs:
    """Pickled, a command that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize(
    "place",
    ["beside the weights", "among the weights", "instead of them", "a bare pickle", "a bare pickle by another name"],
)
def test_code_in_a_pickle_does_not_run(tmp_path, small, place):
    marker = tmp_path / "marker"
    code = Runs(marker)
    path = tmp_path / ("a.safetensors" if place.endswith("name") else "a.pt")
    if place.startswith("a bare"):
        path.write_bytes(pickle.dumps({**small, "code": code}))
        refused(path)
    else:
        torch.save(
            {"beside the weights": {"model": small, "code": code}, "among the weights": {**small, "code": code}}.get(
                place, code
            ),
            path,
        )
        refused(path, "code", "none of it was run", f"{os.name}.system")
    assert not marker.exists()
    os.system(f"touch '{marker}'")
    assert marker.exists()  # the command would have left it


def test_objects_of_other_programs_are_refused(tmp_path, small):
    torch.save(
        {"model": small, "config": pathlib.PurePosixPath("a"), "counts": collections.Counter("a")}, tmp_path / "a.pt"
    )
    refused(tmp_path / "a.pt", "code or objects", "pathlib.PurePosixPath")


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(3)], torch.zeros(3), 5, None, "weights"],
    ids=["list", "tensor", "number", "nothing", "text"],
)
def test_no_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "no weights by name", type(content).__name__)


@pytest.mark.parametrize("content", [{}, {"register_token": 5, NORM: [1.0, 2.0]}, {3: torch.zeros(3)}, {"model": {}}])
def test_no_tensors(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "no tensors")


def test_a_dict_that_holds_itself(tmp_path):
    endless = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "a.pt")
    refused(tmp_path / "a.pt")


STRANGE = {
    "int64": lambda x: (x * 100).long(),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "float8 of powers of two": lambda x: x.abs().to(torch.float8_e8m0fnu),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_needed_tensor_of_another_sort(tmp_path, small, strange):
    state = {**small, NORM: STRANGE[strange](small[NORM])}
    save_pi3(tmp_path / "a.pt", state)
    refused(tmp_path / "a.pt", NORM, "no plain floating-point numbers", act=load)
    if strange not in ("complex", "sparse", "meta"):  # which .safetensors cannot hold, or torch cannot write
        save_pi3(tmp_path / "a.safetensors", state)
        refused(tmp_path / "a.safetensors", NORM, "no plain floating-point numbers", act=load)


def test_a_nested_tensor(tmp_path, small):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are a prototype
        nested = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)])
        save_pi3(tmp_path / "needed.pt", {**small, NORM: nested})
        save_pi3(tmp_path / "unneeded.pt", {**small, "other": nested})
    refused(tmp_path / "needed.pt", NORM, act=load)
    assert load(tmp_path / "unneeded.pt").report.unused == 2  # image_mean, image_std


def test_a_gigantic_shape_without_memory_behind_it(tmp_path, small):
    gigantic = torch.zeros(1).expand(2**40, 2**20)
    save_pi3(tmp_path / "needed.pt", {**small, NORM: gigantic})
    refused(tmp_path / "needed.pt", NORM, "[1099511627776, 1048576]", "[64]", act=load)
    save_pi3(tmp_path / "unneeded.pt", {**small, "other": gigantic})
    assert Checkpoint.open(tmp_path / "unneeded.pt").document()["parameters"] > 2**60
    assert load(tmp_path / "unneeded.pt").report.unused == 3


@pytest.mark.parametrize(
    "shape", [(), (0,), (64,), (5, 64), (1, 1, 5, 0), (1, 1, 5, 100), (1, 1, 6, 64), (1, 1, 5, 2**40)]
)
def test_special_tokens_of_another_shape(tmp_path, small, shape):
    save_pi3(tmp_path / "a.pt", {**small, "register_token": torch.zeros(()).expand(shape)})
    json.dumps(Checkpoint.open(tmp_path / "a.pt").document())
    refused(tmp_path / "a.pt", act=load)


@pytest.mark.parametrize(
    "name",
    ["decoder.999999999.norm1.weight", f"decoder.{'9' * 5000}.norm1.weight", "encoder.blocks.99999999.norm1.weight"],
)
def test_a_block_number_out_of_all_bounds_is_no_block(tmp_path, small, name):
    save_pi3(tmp_path / "a.pt", {**small, name: torch.zeros(64)})
    found = Checkpoint.open(tmp_path / "a.pt")
    assert (found.depth, found.encoder_depth) == (1, 1)


@examples(30)
@given(st.binary(max_size=300))
def test_random_bytes_after_the_zip_signature(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.pt"
    path.write_bytes(b"PK\x03\x04" + content)
    refused(path, "damaged")


CHANGES = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=5)


def changed(content, changes, end):
    content = bytearray(content)
    for place, byte in changes:
        content[place % end] = byte
    return bytes(content)


@examples(60)
@given(CHANGES)
def test_damaged_safetensors_headers(tmp_path_factory, safetensors_bytes, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(changed(safetensors_bytes, changes, header_bytes(safetensors_bytes)))
    only_usage_errors(path)


@examples(60)
@given(CHANGES)
def test_damaged_pickles(tmp_path_factory, small, changes):
    """The archive is whole, with a right checksum; the pickle in it is not."""
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    save_page4d(path, {**small, NORM: torch.nn.Parameter(torch.ones(64))}, optimizer=True)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, changed(part, changes, len(part)) if name.endswith("data.pkl") else part)
    only_usage_errors(path)


# ---- memory

LOAD = """
import sys
from page4d.checkpoints.weights import load
model = load(sys.argv[1])
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, sum(p.numel() for p in model.parameters()))
"""


def test_a_trainers_state_is_never_in_memory(tmp_path):
    if not pathlib.Path("/proc/self/status").is_file():
        pytest.skip("no /proc, which tells the peak of a process without that of the one that started it")
    state = page4d_state(None, 64, encoder_depth=1, layers=range(1))
    save_page4d(tmp_path / "small.pt", state)
    save_page4d(tmp_path / "large.pt", state, optimizer=100_000_000)
    size = (tmp_path / "large.pt").stat().st_size
    children = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, str(tmp_path / name)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parents[3],
        )
        for name in ("small.pt", "large.pt")
    ]
    (small, parameters), (large, parameters_too) = (
        [int(number) for number in child.communicate(timeout=120)[0].split()] for child in children
    )
    (tmp_path / "large.pt").unlink()
    assert size > 400e6
    assert parameters == parameters_too > 0
    assert large - small < 100_000  # KiB
