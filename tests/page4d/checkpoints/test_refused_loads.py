"""Loads that are refused, and leave the model as it was."""

import re

import pytest
import torch

from page4d import ModelConfig, Page4D
from page4d.checkpoints.weights import load, load_weights
from page4d.errors import UsageError
from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3, save_sharded
from tests.support.loads import WIDTH, hybrid, norms_eps, parameters


def refused(model, *words, **arguments):
    """The error of a load, after which nothing of the model has changed."""
    before, weights, report, config = parameters(model), model.weights, model.report, model.config

    def facts():
        return (
            norms_eps(model),
            [norms_eps(layer.time_sa) for layer in model.layers],
            getattr(model.mask_head, "sign", None),
        )

    facts_before = facts()
    with pytest.raises(UsageError) as caught:
        load_weights(model, **arguments)
    for word in words:
        assert word in str(caught.value)
    after = dict(model.named_parameters())
    assert set(after) == set(before)
    for name, parameter in after.items():
        assert torch.equal(parameter, before[name]), name
    assert (model.weights, model.report, model.config) == (weights, report, config)
    assert facts() == facts_before


NEEDED = {
    "encoder.norm.weight": ("pi3", [64]),
    "encoder.blocks.1.mlp.fc1.weight": ("pi3", [256, 64]),
    "register_token": ("pi3", [1, 1, 5, 64]),
    "decoder.3.attn.q_norm.bias": ("pi3", [64]),
    "aggregator.global_blocks.23.ls2.gamma": ("150", [64]),
    "aggregator.spatial_mask_head.head0.4.weight": ("150", [1, 64, 1, 1]),
}


def broken(tmp_path, files, states, key, change):
    """Arguments with one file replaced, one of whose tensors is changed (None: removed), and that file's name."""
    kind = NEEDED[key][0]
    state = dict(states[kind])
    tensor = change(state.pop(key))
    if tensor is not None:
        state[key] = tensor
    path = tmp_path / ("broken.safetensors" if kind == "pi3" else "broken.pt")
    save_page4d(path, state)
    arguments = {"pi3": files["pi3"], "page4d": files["150"]} | {"pi3" if kind == "pi3" else "page4d": path}
    return arguments, path.name


@pytest.fixture(scope="module")
def states(pi3, page4d):
    return {"pi3": pi3, "150": page4d["150"]}


@pytest.mark.parametrize("head", ["150", "2026"])
@pytest.mark.parametrize("key", NEEDED)
def test_a_missing_tensor(tmp_path, files, states, key, head):
    arguments, name = broken(tmp_path, files, states, key, lambda tensor: None)
    refused(hybrid(mask_head=head), f"{name} lacks {key}", "not the whole of a", **arguments)


@pytest.mark.parametrize("key", NEEDED)
def test_a_tensor_of_another_shape(tmp_path, files, states, key):
    arguments, name = broken(tmp_path, files, states, key, lambda tensor: torch.cat((tensor, tensor)))
    shape = NEEDED[key][1]
    refused(hybrid(), name, key, str(shape), str([2 * shape[0], *shape[1:]]), **arguments)


def test_the_same_numbers_in_another_shape(tmp_path, files, states):
    arguments, name = broken(tmp_path, files, states, "register_token", lambda tensor: tensor.reshape(5, WIDTH))
    refused(hybrid(), name, "register_token", "[5, 64]", "[1, 1, 5, 64]", **arguments)


@pytest.mark.parametrize(
    ("key", "value"), [*((key, "nan") for key in NEEDED), ("register_token", "inf"), ("encoder.norm.weight", "-inf")]
)
def test_numbers_that_are_not_finite(tmp_path, files, states, key, value):
    def spoil(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[-1] = float(value)
        return tensor

    arguments, name = broken(tmp_path, files, states, key, spoil)
    refused(hybrid(mask_head="2026"), name, key, "1 of ", **arguments)


def test_a_double_that_float32_cannot_hold(tmp_path, files, states):
    arguments, name = broken(tmp_path, files, states, "encoder.norm.weight", lambda tensor: tensor.double() * 1e200)
    refused(hybrid(), name, "encoder.norm.weight", "not finite", **arguments)


def test_an_unused_tensor_may_hold_anything(tmp_path, pi3, page4d):
    first = {
        **pi3,
        "depth_head.proj.bias": torch.full((588,), float("nan")),
        "decoder.0.ls1.gamma": torch.full((7,), float("inf")),
    }
    second = {
        **page4d["150"],
        "aggregator.frame_blocks.22.norm1.weight": torch.full((WIDTH,), float("nan")),
        "counter": torch.tensor(5),
    }
    save_pi3(tmp_path / "a.safetensors", first)
    save_page4d(tmp_path / "b.pt", second)
    model = hybrid()
    load_weights(model, tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_load_that_fails_keeps_the_one_before(files, tmp_path, states):
    model = hybrid()
    load_weights(model, files["pi3"], files["150"])
    arguments, name = broken(tmp_path, files, states, "encoder.norm.weight", lambda tensor: None)
    refused(model, name, **arguments)
    assert model.weights == "Pi3 (model.safetensors) and PAGE-4D 150 (checkpoint_150.pt)"


WRONG = {
    "nothing": ({}, "no checkpoint was given"),
    "PAGE-4D as pi3": ({"pi3": "150"}, "checkpoint_150.pt was given as pi3, and is a PAGE-4D 150 checkpoint"),
    "VGGT as pi3": ({"pi3": None}, "vggt.pt was given as pi3, and is a VGGT checkpoint"),
    "Pi3 as page4d": ({"page4d": "pi3"}, "model.safetensors was given as page4d, and is a Pi3 checkpoint"),
    "PAGE-4D alone": ({"page4d": "150"}, "no Pi3 checkpoint was given"),
    "tokens of no one": ({"pi3": "pi3", "registers": "page4d"}, "registers cannot be taken"),
    "unknown tokens": ({"pi3": "pi3", "registers": "first"}, "split, truncate"),
    "Time-SA of no one": ({"pi3": "pi3", "time_sa": "page4d"}, "time_sa cannot be taken"),
    "unknown Time-SA": ({"pi3": "pi3", "page4d": "150", "time_sa": "vggt"}, "page4d, pi3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_choices_that_the_files_do_not_allow(files, case):
    choice, message = WRONG[case]
    arguments = {name: files[value] if name in ("pi3", "page4d") else value for name, value in choice.items()}
    refused(hybrid(), message, **arguments)


def test_a_missing_file_and_a_damaged_one(tmp_path, files):
    refused(hybrid(), "none.pt", pi3=files["pi3"], page4d=tmp_path / "none.pt")
    (tmp_path / "a.safetensors").write_bytes(files["pi3"].read_bytes()[:-5])
    refused(hybrid(), "a.safetensors", pi3=tmp_path / "a.safetensors", page4d=files["150"])


def published(name, **options):
    return Page4D(ModelConfig.preset(name, **{"width": 64, "heads": 1, "encoder_depth": 1, "depth": 11, **options}))


@pytest.mark.parametrize(
    ("preset", "kinds", "message"),
    [
        ("pi3", {"page4d": "150"}, "pi3 takes its weights from a Pi3 checkpoint alone"),
        ("pi3", {"pi3": "pi3", "page4d": "150"}, "pi3 takes its weights from a Pi3 checkpoint alone"),
        ("vggt", {"pi3": "pi3"}, "vggt takes its weights from one checkpoint alone"),
        ("page4d", {"pi3": "pi3", "page4d": "150"}, "page4d takes its weights from one checkpoint alone"),
        ("page4d", {"page4d": None}, "vggt.pt has no mask head"),
    ],
)
def test_published_models_take_their_own_weights(files, preset, kinds, message):
    refused(published(preset), message, **{name: files[kind] for name, kind in kinds.items()})


def test_page4d_without_its_mask_takes_vggt(tmp_path):
    state = page4d_state(None, 64, 1, range(11))
    save_page4d(tmp_path / "vggt.pt", state)
    refused(published("page4d"), "vggt.pt", page4d=tmp_path / "vggt.pt")
    model = published("page4d", mask=False)
    load_weights(model, page4d=tmp_path / "vggt.pt")
    assert torch.equal(model.layers[10].time_sa.block.mlp.fc1.bias, state["aggregator.global_blocks.10.mlp.fc1.bias"])


def test_a_model_with_more_layers_than_the_file(files):
    refused(hybrid(depth=3), "model.safetensors lacks decoder.5.", "2 layers and 2 encoder blocks", pi3=files["pi3"])
    refused(hybrid(encoder_depth=3), "model.safetensors lacks encoder.blocks.2.", pi3=files["pi3"])


def test_a_model_of_another_width(files):
    refused(hybrid(width=128, heads=2), "model.safetensors", "[1, 1, 64]", "[1, 1, 128]", pi3=files["pi3"])


@pytest.mark.parametrize(
    "key", ["point_decoder.blocks.2.norm1.weight", "conf_head.proj.bias", "camera_head.fc_rot.weight"]
)
def test_heads_that_are_there_in_part(tmp_path, key):
    state = pi3_state(64, 1, 1)
    del state[key]
    save_pi3(tmp_path / "a.safetensors", state)
    refused(published("pi3", depth=1), f"a.safetensors lacks {key}", pi3=tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=re.escape(f"a.safetensors lacks {key}")):
        load(tmp_path / "a.safetensors")


def test_one_head_alone_is_not_enough(tmp_path):
    state = pi3_state(64, 1, 1)
    save_pi3(
        tmp_path / "a.safetensors",
        {name: tensor for name, tensor in state.items() if not name.startswith(("point_", "conf_"))},
    )
    refused(published("pi3", depth=1), "a.safetensors lacks point_", pi3=tmp_path / "a.safetensors")


def test_load_refuses_options_that_do_not_go_with_the_model(tmp_path):
    save_page4d(tmp_path / "a.pt", page4d_state("150", 64, 1, range(2)))
    with pytest.raises(UsageError, match="epipolar"):
        load(tmp_path / "a.pt", epipolar=True)
    with pytest.raises(UsageError, match="no such option"):
        load(tmp_path / "a.pt", masks=False)
    with pytest.raises(UsageError, match=r"lacks aggregator\.frame_blocks\.2\."):
        load(tmp_path / "a.pt", depth=3)


def test_a_number_that_is_not_finite_in_a_second_file_is_refused(tmp_path, pi3):
    spoilt = {**pi3, "decoder.3.mlp.fc2.bias": torch.full((WIDTH,), float("nan"))}
    halves = [
        {name: tensor for name, tensor in spoilt.items() if name.startswith("decoder.3.") == later}
        for later in (False, True)
    ]
    refused(hybrid(), "decoder.3.mlp.fc2.bias", "not finite", pi3=save_sharded(tmp_path, halves))
