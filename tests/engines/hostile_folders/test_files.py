"""What stands in the place of an engine folder's files, and which files it may have; changes at random."""

import json
import os
import pathlib
import shutil
import stat

import pytest

from page4d.manifest import CONSTANTS
from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from tests.support.exports import load_refused, rehash
from tests.support.hostile.fuzz_folders import encoded, fuzz

ENCODER = "onnx/encoder.onnx"


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
    load_refused(folder, f"{name} {words}")


@pytest.mark.parametrize("name", ["manifest.json", ENCODER, f"{ENCODER}.data"])
def test_links_lead_to_what_is_inside_or_nowhere(folder, name, tmp_path):
    outside = tmp_path / "outside"
    shutil.copy(folder / name, outside)
    (folder / name).unlink()
    (folder / name).symlink_to(outside)
    load_refused(folder, rf"(?s){name} leads out of the engine folder.*cp -rL")
    (folder / "..data").mkdir()  # as a container's volumes are laid out
    shutil.copy(outside, folder / "..data" / "kept")
    (folder / name).unlink()
    (folder / name).symlink_to(os.path.relpath(folder / "..data" / "kept", (folder / name).parent))
    EngineFolder.open(folder)


def test_a_folder_of_files_that_leads_out_is_refused(folder, tmp_path):
    (folder / "onnx").rename(tmp_path / "onnx")
    (folder / "onnx").symlink_to(tmp_path / "onnx")
    load_refused(folder, "leads out of the engine folder")


def test_the_engine_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert Pipeline.load(tmp_path / "link", Backend.ONNXRUNTIME, threads=1).manifest == read_manifest(folder)


@pytest.mark.parametrize("name", ["../a", "/etc/hostname", "a//b", "./a", "a/", "", "a/..", "a\0b", "onnx/../../a"])
def test_names_are_plain_paths_inside(folder, name):
    rehash(folder, lambda manifest: manifest["files"].update({name: "0" * 64}))
    load_refused(folder, "names a file outside the engine folder")


@pytest.mark.parametrize("name", ["a" * 300, "onnx/missing", "onnx/encoder.onnx/inside", "\u00e9" * 200])
def test_files_that_are_not_there(folder, name):
    rehash(folder, lambda manifest: manifest["files"].update({name: "0" * 64}))
    load_refused(folder, "lacks|cannot be read")


@pytest.mark.parametrize(
    "name", [CONSTANTS, "onnx/mask_head.onnx", "golden/inputs.safetensors", "golden/expected.safetensors"]
)
def test_what_is_used_is_listed(golden, name):
    rehash(golden, lambda manifest: manifest["files"].pop(name))
    load_refused(golden, "is not listed|stages without a file")


# ---- changes at random


def test_changed_folders_are_refused_or_run(checked, tmp_path):
    outcomes, failures, _ = fuzz(checked(), 250, 7, tmp_path)
    assert failures == [], failures[0][2]
    assert sum(outcomes.values()) == 250 and outcomes["same"] > 5
    assert len([outcome for outcome in outcomes if outcome.startswith("refused")]) > 1


def test_encoded_takes_whatever_the_fuzzer_makes():
    assert json.loads(encoded({"a": [2**70, 1e300, None, "\u202e"]})) == {"a": [2**70, 1e300, None, "\u202e"]}
