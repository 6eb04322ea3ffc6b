"""Recognising a checkpoint, whatever is around its weights and their names."""

import json
import struct
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.weights import load
from page4d.config import Published
from page4d.published import TRAITS
from tests.support.beside import key_table
from tests.support.checkpoints import page4d_shapes, page4d_state, pi3_shapes, pi3_state, save_page4d, save_pi3
from tests.support.examples import examples
from tests.support.loads import refused

NORM = "decoder.0.norm1.weight"


# ---- the small checkpoints of these tests are the real ones in small


def test_pi3_names_and_shapes_are_the_real_ones():
    real = key_table("pi3")
    assert len(real) == 1210
    assert pi3_shapes(1024, encoder_depth=24, pairs=18) == real


@pytest.mark.parametrize(("name", "kind"), [("page4d_checkpoint_150", "150"), ("page4d_2026", "2026"), ("vggt", None)])
def test_page4d_and_vggt_names_and_shapes_are_the_real_ones(name, kind):
    """But for the track head, of which a few names are enough."""
    real = key_table(name)
    track = {key for key in real if key.startswith("track_head.")}
    assert len(track) == (0 if kind else 394)
    assert page4d_shapes(kind, 1024, encoder_depth=24) == {key: real[key] for key in real if key not in track}
    assert kind or page4d_shapes(kind, 1024, encoder_depth=24, track=True).items() <= real.items()


# ---- what a file is


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("heads", [True, False])
def test_pi3_is_recognised(tmp_path, suffix, heads):
    path = tmp_path / f"model{suffix}"
    state = pi3_state(64, encoder_depth=2, pairs=3, heads=heads)
    save_pi3(path, state)
    checkpoint = Checkpoint.open(path)
    assert (checkpoint.published, checkpoint.described, checkpoint.name) == (Published.PI3, "Pi3", path.name)
    assert (checkpoint.width, checkpoint.depth, checkpoint.encoder_depth, checkpoint.registers) == (64, 3, 2, 4)
    assert (checkpoint.mask_head, checkpoint.predictions) == (None, TRAITS[Published.PI3].heads if heads else ())
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert set(checkpoint.dtypes.values()) == {"float32"}


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
    checkpoint = Checkpoint.open(path)
    assert checkpoint.published is (Published.PAGE4D if kind else Published.VGGT)
    assert checkpoint.described == (f"PAGE-4D {kind}" if kind else "VGGT")
    assert (checkpoint.width, checkpoint.depth, checkpoint.encoder_depth, checkpoint.registers) == (64, 3, 1, 4)
    assert checkpoint.mask_head == kind
    assert checkpoint.predictions == ("camera", "depth", "points")
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert ("optimizer" in checkpoint.state) == (path.suffix == ".pt" and options.get("nested", True))
    for name, tensor in checkpoint.read(state):
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict"])
def test_other_usual_nestings(tmp_path, small, wrapper):
    torch.save({wrapper: {"model": small}, "epoch": 3}, tmp_path / "a.pt")
    checkpoint = Checkpoint.open(tmp_path / "a.pt")
    assert checkpoint.state == ("epoch",)
    assert set(checkpoint.shapes) == set(small)


PARTS = {
    "encoder": "aggregator.patch_embed.",
    "layers": ("aggregator.frame_blocks.", "aggregator.global_blocks."),
    "special tokens": ("aggregator.camera_token", "aggregator.register_token"),
    "mask head": "aggregator.spatial_mask_head.",
    "depth head": "depth_head.",
    "points head": "point_head.",
    "track head": "track_head.",
}


def test_document(tmp_path):
    state = page4d_state("2026", 64, encoder_depth=1, layers=range(2), heads=("depth", "points"), track=True)
    state["aggregator.camera_token"] = state["aggregator.camera_token"].half()
    save_page4d(tmp_path / "a.pt", state)
    document = Checkpoint.open(tmp_path / "a.pt").document()
    assert json.loads(json.dumps(document)) == document
    assert document == {
        "file": str(tmp_path / "a.pt"),
        "repository": "",
        "revision": "",
        "bytes": (tmp_path / "a.pt").stat().st_size,
        "model": "page4d",
        "preset": "page4d",
        "described": "PAGE-4D 2026",
        "mask_head": "2026",
        "width": 64,
        "encoder_blocks": 1,
        "layers": 2,
        "registers": 4,
        "predictions": ["depth", "points"],
        "unused_heads": ["track"],
        "unused_parts": ["track head"],
        "camera_encoder": False,
        "licences": [
            {
                "name": "PAGE-4D",
                "terms": "unknown, ask its authors (it is fine-tuned from VGGT)",
                "source": "https://github.com/kaichen-z/PAGE4D",
                "width": 0,
            }
        ],
        "tensors": len(state),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "parameters_of": {
            part: sum(tensor.numel() for name, tensor in state.items() if name.startswith(prefixes))
            for part, prefixes in PARTS.items()
        },
        "dtypes": ["float16", "float32"],
        "beside": [
            *("prev_epoch", "steps", "optimizer", "scaler", "ema_models", "skip_saving_parameters", "time_elapsed"),
        ],
        "files": ["a.pt"],
        "notes": [
            "a.pt: no head for camera, which the published file has: the model gives no camera",
            "a.pt: track head: left unused; this project does not export it",
        ],
    }


def test_a_part_of_pi3x_is_not_taken_for_pi3(tmp_path, small):
    save_pi3(tmp_path / "a.safetensors", {**small, "pose_inject_blk.0.weight": torch.zeros(1)})
    assert Checkpoint.open(tmp_path / "a.safetensors").published is Published.PI3X
    save_pi3(tmp_path / "b.safetensors", {**small, "metric_token": torch.zeros(1, 1, 128)})
    refused(tmp_path / "b.safetensors", "not the whole of a Pi3X checkpoint")


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
    checkpoint = Checkpoint.open(path)
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in small.items()}
    for name, tensor in checkpoint.read([NORM, "register_token"]):
        assert torch.equal(tensor, small[name])


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_checkpoint_wrapped_module"])
def test_a_wrapper_around_a_part_of_the_model(tmp_path, small, wrapper):
    """Compiled block by block: `decoder.0._orig_mod.norm1.weight`."""

    def inner(name):
        return name.replace("decoder.0.", f"decoder.0.{wrapper}.").replace("encoder.", f"encoder.{wrapper}.", 1)

    save_pi3(tmp_path / "a.safetensors", {inner(name): tensor for name, tensor in small.items()})
    assert set(Checkpoint.open(tmp_path / "a.safetensors").shapes) == set(small)


def test_a_file_of_lightning(tmp_path, small):
    torch.save(
        {"state_dict": {f"model.{name}": tensor for name, tensor in small.items()}, "epoch": 3, "global_step": 7},
        tmp_path / "last.ckpt",
    )
    checkpoint = Checkpoint.open(tmp_path / "last.ckpt")
    assert set(checkpoint.shapes) == set(small) and checkpoint.state == ("epoch", "global_step")
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
