"""Tensors that no model can take are refused by name where it needs them, and are no matter where it does not."""

import json
import warnings

import pytest
import torch

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.weights import load
from tests.support.checkpoints import save_pi3
from tests.support.loads import refused

NORM = "decoder.0.norm1.weight"
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
    checkpoint = Checkpoint.open(tmp_path / "a.pt")
    assert (checkpoint.depth, checkpoint.encoder_depth) == (2, 1)
