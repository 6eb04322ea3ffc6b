"""Constants and golden clips that are not those of the engines."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from page4d.errors import EngineError
from page4d.manifest import CONSTANTS
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.self_check import self_check
from tests.support.exports import load_refused, rehash


def other_constants(folder, change):
    constants = load_file(folder / CONSTANTS)
    change(constants)
    save_file({name: np.ascontiguousarray(array) for name, array in constants.items()}, folder / CONSTANTS)
    rehash(folder)
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
    load_refused(other_constants(folder, change), "is not as the engines need it")


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
    rehash(folder)
    load_refused(folder, "is not as the engines need it")


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
    rehash(golden)
    opened = EngineFolder.open(golden)
    with pytest.raises(EngineError, match="is not as the engines need it"):
        self_check(opened, Pipeline.of(opened, Backend.ONNXRUNTIME, ThreadPool.of(1)))


@pytest.mark.parametrize("tolerance", [{}, {"encoder/tokens": 1}, {"nobody/tokens": 1}])
def test_every_reference_has_its_tolerance(golden, tolerance):
    rehash(golden, lambda manifest: manifest["golden"].update(tolerance=tolerance))
    load_refused(golden, "other tolerances")
