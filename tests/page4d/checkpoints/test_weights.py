"""Where each weight of this project's own network comes from, by a table written out here on its own."""

import pytest
import torch

from page4d import ModelConfig, Page4D
from page4d.checkpoints.weights import load_weights
from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3
from tests.support.loads import (
    WIDTH,
    block_sources,
    check,
    encoder_sources,
    hybrid,
    norms_eps,
    parameters,
    qk_eps,
)

HEAD_150 = [f"head0.{i}.{leaf}" for i in (0, 2, 4) for leaf in ("weight", "bias")]
LAMBDAS = r"layers\.\d\.(view_sa|time_sa|global_sa)\.lambda_\w+"


@pytest.mark.parametrize(
    ("second", "time_sa"),
    [
        (None, None),
        (None, "pi3"),
        ("150", None),
        ("150", "page4d"),
        ("150", "pi3"),
        ("2026", None),
        ("2026", "pi3"),
        ("vggt", None),
    ],
)
@pytest.mark.parametrize("head", ["150", "2026"])
def test_every_weight_of_the_hybrid(pi3, page4d, files, second, time_sa, head):
    model = hybrid(mask_head=head, global_layers=(0, 1))
    before = parameters(model)
    kind = None if second in (None, "vggt") else second
    load_weights(model, files["pi3"], None if second is None else files[kind], time_sa=time_sa)

    keys = encoder_sources("encoder.")
    for i in (0, 1):
        keys |= block_sources(i, "view_sa", f"decoder.{2 * i + 1}.") | block_sources(
            i, "global_sa", f"decoder.{2 * i + 1}."
        )
        if second is None or time_sa == "pi3":
            keys |= block_sources(i, "time_sa", f"decoder.{2 * i}.")
    sources = {name: pi3[key] for name, key in keys.items()}
    sources["special_tokens"] = pi3["register_token"].reshape(1, 5, WIDTH).repeat(2, 1, 1)
    if second is not None and time_sa != "pi3":
        state = page4d[kind]
        sources |= {
            name: state[key]
            for i in (0, 1)
            for name, key in block_sources(i, "time_sa", f"aggregator.global_blocks.{22 + i}.").items()
        }
    if kind is not None:
        sources |= {f"mask_head.{name}": page4d[kind][f"aggregator.spatial_mask_head.{name}"] for name in HEAD_150}
        before |= {"mask_head.alpha": torch.tensor(1.0), "mask_head.beta": torch.tensor(1.0)}
    check(model, before, sources, LAMBDAS + (r"|mask_head\.(alpha|beta)" if kind else r"|mask_head\..*"))

    assert model.config.mask_head == (kind or head)
    assert model.mask_head.kind == (kind or head)
    assert model.mask_head.sign == (1.0 if kind is None else -1.0)


def test_the_seed_of_what_no_checkpoint_has_is_the_models(files):
    """Gate, memory tokens and mask head differ by seed; what is loaded does not."""
    options = {"fusion": "gate", "global_strategy": "memory", "memory_tokens": 3, "global_layers": (1,)}
    models = [hybrid(seed, **options) for seed in (0, 7)]
    before = [parameters(model) for model in models]
    for model in models:
        load_weights(model, files["pi3"])
    first, second = (parameters(model) for model in models)
    new = ("mask_head.", "memory_tokens")
    for name in first:
        if name.startswith(new):
            assert torch.equal(first[name], before[0][name]), name
            assert torch.equal(second[name], before[1][name]), name
        elif "lambda" not in name:
            assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["memory_tokens"], second["memory_tokens"])
    assert not torch.equal(first["mask_head.head0.0.weight"], second["mask_head.head0.0.weight"])


@pytest.mark.parametrize("seed", [0, 7])
def test_a_new_mask_head_after_a_change_of_structure_has_the_models_seed(files, seed):
    model = hybrid(seed, mask_head="150", fusion="gate")
    load_weights(model, files["pi3"], files["2026"])
    like = hybrid(seed, mask_head="2026", fusion="gate")
    for name in ("mask_head.gate.0.weight", "mask_head.gate.2.bias"):
        assert torch.equal(model.get_parameter(name), like.get_parameter(name)), name


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_time_sa_takes_the_last_global_blocks(tmp_path, layers):
    """Of 24, as many as the model has layers."""
    first = pi3_state(64, 1, 3, heads=False)
    second = page4d_state("150", 64, 1)
    save_pi3(tmp_path / "a.safetensors", first)
    save_page4d(tmp_path / "b.pt", second)
    model = Page4D(ModelConfig.preset("tiny", width=64, heads=1, encoder_depth=1, depth=layers))
    load_weights(model, tmp_path / "a.safetensors", tmp_path / "b.pt")
    for i in range(layers):
        for name, key in block_sources(i, "time_sa", f"aggregator.global_blocks.{i + 24 - layers}.").items():
            assert torch.equal(model.get_parameter(name), second[key]), name


@pytest.mark.parametrize("layer", [0, 1])
def test_global_sa_follows_its_layer(pi3, files, layer):
    model = hybrid(global_layers=(layer,))
    load_weights(model, files["pi3"])
    assert torch.equal(
        model.layers[layer].global_sa.block.attn.qkv.weight, pi3[f"decoder.{2 * layer + 1}.attn.qkv.weight"]
    )
    assert model.layers[1 - layer].global_sa is None


@pytest.mark.parametrize("second", [None, "150"])
@pytest.mark.parametrize("registers", [None, "split"])
def test_split_keeps_the_five_tokens_of_pi3(pi3, files, registers, second):
    model = hybrid()
    load_weights(model, files["pi3"], second and files[second], registers=registers)
    for tokens in model.special_tokens:
        assert torch.equal(tokens, pi3["register_token"][0, 0])


def test_truncate_has_a_new_camera_token_and_the_first_four(pi3, files):
    models = [hybrid(seed) for seed in (0, 0, 7)]
    for model in models:
        load_weights(model, files["pi3"], registers="truncate")
        for tokens in model.special_tokens:
            assert torch.equal(tokens[1:], pi3["register_token"][0, 0, :4])
        assert torch.equal(*model.special_tokens[:, 0])
        assert not (model.special_tokens[0, 0] == pi3["register_token"][0, 0]).all(-1).any()
        assert 0.01 < model.special_tokens[0, 0].std() < 0.03
    assert torch.equal(models[0].special_tokens, models[1].special_tokens)
    assert not torch.equal(models[0].special_tokens[0, 0], models[2].special_tokens[0, 0])


def test_tokens_of_page4d_tell_the_first_image_from_the_others(page4d, files):
    model = hybrid()
    load_weights(model, files["pi3"], files["150"], registers="page4d")
    state = page4d["150"]
    for i in (0, 1):
        assert torch.equal(model.special_tokens[i, 0], state["aggregator.camera_token"][0, i, 0])
        assert torch.equal(model.special_tokens[i, 1:], state["aggregator.register_token"][0, i])
    assert not torch.equal(*model.special_tokens)


@pytest.mark.parametrize(
    ("second", "time_sa", "expected"),
    [(None, None, 1e-6), ("150", None, 1e-5), (None, "pi3", 1e-6), ("2026", "pi3", 1e-6)],
)
def test_eps_follow_the_source(files, second, time_sa, expected):
    model = hybrid(global_layers=(0, 1))
    load_weights(model, files["pi3"], second and files[second], time_sa=time_sa)
    for layer in model.layers:
        assert norms_eps(layer.view_sa) == norms_eps(layer.global_sa) == {1e-6}
        assert norms_eps(layer.time_sa) == {expected}
        assert qk_eps(layer) == {1e-5}
    assert norms_eps(model.encoder) == {1e-6}


def test_eps_are_set_anew_by_every_load(files):
    model = hybrid()
    load_weights(model, files["pi3"], files["150"])
    load_weights(model, files["pi3"])
    assert norms_eps(model.layers[0].time_sa) == {1e-6}


def test_a_model_without_memory_gets_all_of_it(files):
    """As the exporter builds it: no weights at all before the load."""
    options = {"global_strategy": "memory", "memory_tokens": 3}
    empty, seeded = hybrid(7, filled=False, **options), hybrid(7, **options)
    for model in (empty, seeded):
        load_weights(model, files["pi3"], files["2026"])
    seeded_parameters = parameters(seeded)
    assert set(seeded_parameters) == {name for name, _ in empty.named_parameters()}
    for name, parameter in empty.named_parameters():
        assert torch.equal(parameter, seeded_parameters[name]), name
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad


def test_a_checkpoint_with_more_layers_than_the_model(pi3, files):
    model = hybrid(depth=1, encoder_depth=1)
    load_weights(model, files["pi3"])
    assert torch.equal(model.layers[0].view_sa.block.mlp.fc1.weight, pi3["decoder.1.mlp.fc1.weight"])
    assert model.report.unused > 0
