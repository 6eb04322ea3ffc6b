"""Files of tensors: what is none is a UsageError that names the file, and nothing in a file runs."""

import collections
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.tensor_file import TensorFile
from page4d.errors import UsageError
from tests.support.checkpoints import page4d_state, save_page4d, save_pi3
from tests.support.examples import examples
from tests.support.loads import refused

NORM = "decoder.0.norm1.weight"


def only_usage_errors(path):
    """Open a file and read all of it; anything but a UsageError is raised."""
    try:
        checkpoint = Checkpoint.open(path)
        checkpoint.document()
        for _, tensor in checkpoint.read(checkpoint.shapes):
            tensor.sum()
    except UsageError:
        pass


def test_both_formats_name_a_dtype_alike(tmp_path):
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for suffix in (".pt", ".safetensors"):
            save_pi3(tmp_path / f"a{suffix}", {"register_token": torch.zeros(1, 1, 5, 64, dtype=dtype)})
            assert TensorFile.open(tmp_path / f"a{suffix}").tensors == {
                "register_token": ((1, 1, 5, 64), str(dtype).removeprefix("torch."))
            }


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
