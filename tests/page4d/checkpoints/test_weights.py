"""Where each weight comes from, by a table written out here on its own, and errors that leave the model as it was."""

import hashlib
import re

import pytest
import torch

from page4d import ModelConfig, Page4D
from page4d.checkpoints.weights import load, load_weights
from page4d.config import Published
from page4d.errors import UsageError
from page4d.network.block import LayerNorm
from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3, save_sharded

WIDTH = 64
LINEAR = [
    f"{name}.{leaf}"
    for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
    for leaf in ("weight", "bias")
]
SCALED = [*LINEAR, "ls1.gamma", "ls2.gamma"]  # a block of the encoder
BLOCK = [
    *SCALED,
    *(f"attn.{name}.{leaf}" for name in ("q_norm", "k_norm") for leaf in ("weight", "bias")),
]  # a block of the aggregator
HEAD_150 = [f"head0.{i}.{leaf}" for i in (0, 2, 4) for leaf in ("weight", "bias")]


@pytest.fixture(scope="module")
def pi3():
    return pi3_state(WIDTH, heads=False)


@pytest.fixture(scope="module")
def page4d():
    """By kind."""
    return {kind: page4d_state(kind, WIDTH) for kind in ("150", "2026", None)}


@pytest.fixture(scope="module")
def files(tmp_path_factory, pi3, page4d):
    """Paths of whole checkpoints, by what they hold."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {
        "pi3": folder / "model.safetensors",
        "150": folder / "checkpoint_150.pt",
        "2026": folder / "checkpoint_mask.pt",
        None: folder / "vggt.pt",
    }
    save_pi3(paths["pi3"], pi3)
    for kind, state in page4d.items():
        save_page4d(paths[kind], state, nested=kind is not None)
    return paths


def hybrid(seed=0, filled=True, **options):
    return Page4D(
        ModelConfig.preset("tiny", **{"width": WIDTH, "heads": 1, "encoder_depth": 2, "depth": 2, **options}),
        seed,
        filled,
    )


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def encoder_from(state, prefix, depth=2):
    names = [
        "cls_token",
        "pos_embed",
        "register_tokens",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "norm.weight",
        "norm.bias",
    ]
    names += [f"blocks.{i}.{name}" for i in range(depth) for name in SCALED]
    return {f"encoder.{name}": prefix + name for name in names}


def block_from(layer, kind, prefix):
    return {f"layers.{layer}.{kind}.block.{name}": prefix + name for name in BLOCK}


def check(model, before, sources, new):
    """Every parameter is the tensor of its source (name -> tensor), or what it was before; `new` is a pattern of the
    latter's names."""
    names = {name for name, _ in model.named_parameters()}
    untouched = names - set(sources)
    assert set(sources) <= names
    assert {name for name in names if re.fullmatch(new, name)} == untouched
    for name, parameter in model.named_parameters():
        wanted = sources[name] if name in sources else before[name]
        assert torch.equal(parameter, wanted), name
        assert not parameter.requires_grad


def norms_eps(module):
    return {
        norm.eps
        for name, norm in module.named_modules()
        if isinstance(norm, LayerNorm) and not name.endswith(("q_norm", "k_norm"))
    }


def qk_eps(module):
    return {
        norm.eps for name, norm in module.named_modules() if name.endswith(("q_norm", "k_norm")) and norm is not None
    }


LAMBDAS = r"layers\.\d\.(view_sa|time_sa|global_sa)\.lambda_\w+"

# ---- this project's own network


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

    keys = encoder_from(pi3, "encoder.")
    for i in (0, 1):
        keys |= block_from(i, "view_sa", f"decoder.{2 * i + 1}.") | block_from(i, "global_sa", f"decoder.{2 * i + 1}.")
        if second is None or time_sa == "pi3":
            keys |= block_from(i, "time_sa", f"decoder.{2 * i}.")
    sources = {name: pi3[key] for name, key in keys.items()}
    sources["special_tokens"] = pi3["register_token"].reshape(1, 5, WIDTH).repeat(2, 1, 1)
    if second is not None and time_sa != "pi3":
        state = page4d[kind]
        sources |= {
            name: state[key]
            for i in (0, 1)
            for name, key in block_from(i, "time_sa", f"aggregator.global_blocks.{22 + i}.").items()
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
        for name, key in block_from(i, "time_sa", f"aggregator.global_blocks.{i + 24 - layers}.").items():
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
    given = parameters(seeded)
    assert set(given) == {name for name, _ in empty.named_parameters()}
    for name, parameter in empty.named_parameters():
        assert torch.equal(parameter, given[name]), name
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad


def test_a_checkpoint_with_more_layers_than_the_model(pi3, files):
    model = hybrid(depth=1, encoder_depth=1)
    load_weights(model, files["pi3"])
    assert torch.equal(model.layers[0].view_sa.block.mlp.fc1.weight, pi3["decoder.1.mlp.fc1.weight"])
    assert model.report.unused > 0


# ---- the published models


@pytest.mark.parametrize("heads", [True, False])
def test_load_pi3(tmp_path, heads):
    state = pi3_state(64, encoder_depth=1, pairs=3, heads=heads)
    save_pi3(tmp_path / "model.safetensors", state)
    model = load(tmp_path / "model.safetensors")
    config = model.config
    assert config == ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=3, predictions=heads)

    keys = encoder_from(state, "encoder.", 1)
    for i in range(3):
        keys |= block_from(i, "view_sa", f"decoder.{2 * i + 1}.") | block_from(i, "time_sa", f"decoder.{2 * i}.")
    for ours, theirs in (("points", "point"), ("confidence", "conf"), ("camera", "camera")) if heads else ():
        keys |= {f"{ours}.decoder.{name}": f"{theirs}_decoder.{name}" for name in named(state, f"{theirs}_decoder.")}
        keys |= {f"{ours}.head.{name}": f"{theirs}_head.{name}" for name in named(state, f"{theirs}_head.")}
    sources = {name: state[key] for name, key in keys.items()}
    sources["special_tokens"] = state["register_token"].reshape(1, 5, 64).repeat(2, 1, 1)
    check(model, {}, sources, "nothing")
    assert (model.points is not None, model.confidence is not None, model.camera is not None) == (heads, heads, heads)
    assert {norms_eps(layer) == {1e-6} and qk_eps(layer) == {1e-5} for layer in model.layers} == {True}
    assert norms_eps(model.encoder) == {1e-6}


def named(state, prefix):
    return [name.removeprefix(prefix) for name in state if name.startswith(prefix)]


@pytest.mark.parametrize(
    ("kind", "mask"), [("150", True), ("150", False), ("2026", True), ("2026", False), (None, True)]
)
def test_load_page4d_and_vggt(tmp_path, kind, mask):
    state = page4d_state(kind, 64, encoder_depth=1, layers=range(11))
    save_page4d(tmp_path / "a.pt", state, module=True, optimizer=True)
    options = {"keep_layers": (0, 10)} if mask else {"mask": False}
    model = load(tmp_path / "a.pt", **options)
    assert model.config.published is (Published.PAGE4D if kind else Published.VGGT)
    assert (model.config.width, model.config.heads, model.config.encoder_depth, model.config.depth) == (64, 1, 1, 11)
    assert model.config.keep_layers == ((0, 10) if mask else (10,))
    assert model.config.mask is mask

    keys = encoder_from(state, "aggregator.patch_embed.", 1)
    for i in range(11):
        keys |= block_from(i, "view_sa", f"aggregator.frame_blocks.{i}.") | block_from(
            i, "time_sa", f"aggregator.global_blocks.{i}."
        )
    if kind is not None and mask:
        keys |= {
            f"mask_head.{name}": f"aggregator.spatial_mask_head.{name}"
            for name in named(state, "aggregator.spatial_mask_head.")
        }
        assert model.mask_head.kind == kind
        assert model.mask_head.sign == -1.0
    else:
        assert model.mask_head is None
    sources = {name: state[key] for name, key in keys.items()}
    sources["special_tokens"] = torch.cat(
        (state["aggregator.camera_token"], state["aggregator.register_token"]), dim=2
    )[0]
    check(model, {}, sources, "nothing")
    assert {norms_eps(layer) == qk_eps(layer) == {1e-5} for layer in model.layers} == {True}
    assert norms_eps(model.encoder) == {1e-6}


@pytest.mark.parametrize(("built", "given"), [("150", "2026"), ("2026", "150")])
def test_the_published_mask_head_follows_the_checkpoint(tmp_path, built, given):
    save_page4d(tmp_path / "a.pt", page4d_state(given, 64, 1, range(11)))
    model = Page4D(ModelConfig.preset("page4d", width=64, heads=1, encoder_depth=1, depth=11, mask_head=built))
    load_weights(model, page4d=tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt")
    assert model.config == loaded.config
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_a_pi3_model_with_heads_loads_a_file_without(tmp_path):
    save_pi3(tmp_path / "a.safetensors", pi3_state(64, 1, 1, heads=False))
    model = Page4D(ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=1))
    assert model.points is not None
    load_weights(model, tmp_path / "a.safetensors")
    assert not model.config.predictions
    assert (model.points, model.confidence, model.camera) == (None, None, None)
    assert model.report.new == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_precisions_are_converted(tmp_path, dtype, suffix):
    state = {name: tensor.to(dtype) for name, tensor in pi3_state(64, 1, 1, heads=False).items()}
    save_pi3(tmp_path / f"a{suffix}", state)
    model = load(tmp_path / f"a{suffix}")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name in ("encoder.pos_embed", "encoder.blocks.0.attn.qkv.weight"):
        assert torch.equal(model.get_parameter(name), state[name].float()), name
    assert torch.equal(model.layers[0].view_sa.block.mlp.fc2.bias, state["decoder.1.mlp.fc2.bias"].float())
    assert torch.equal(model.special_tokens[1], state["register_token"][0, 0].float())


def test_trainable_parameters_in_a_file_leave_no_graph(tmp_path):
    torch.save(
        {name: torch.nn.Parameter(tensor) for name, tensor in pi3_state(64, 1, 1, heads=False).items()},
        tmp_path / "a.pt",
    )
    model = Page4D(ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=1))
    load_weights(model, tmp_path / "a.pt")
    for parameter in (*model.parameters(), *load(tmp_path / "a.pt").parameters()):
        assert parameter.grad_fn is None
        assert not parameter.requires_grad


# ---- the report


def counts(report):
    return {
        (group.name, group.file): (group.loaded, group.adapted, group.new)
        for group in report.groups
        if group.name != "unused"
    }


def test_the_report_of_both_checkpoints(pi3, page4d, files):
    model = hybrid(global_layers=(1,))
    report = load_weights(model, files["pi3"], files["2026"])
    assert model.report is report
    assert counts(report) == {
        ("encoder", "model.safetensors"): (7 + 2 * 14, 0, 0),
        ("special tokens", "model.safetensors"): (0, 1, 0),
        ("view_sa", "model.safetensors"): (2 * 18, 0, 4),
        ("time_sa", "checkpoint_mask.pt"): (2 * 18, 0, 4),
        ("global_sa", "model.safetensors"): (18, 0, 1),
        ("mask head", "checkpoint_mask.pt"): (6, 0, 2),
    }
    assert report.loaded + report.adapted + report.new == len(list(model.parameters()))
    used = {"model.safetensors": 7 + 2 * 14 + 1 + 2 * 18, "checkpoint_mask.pt": 2 * 18 + 6}
    for file, state, words in ((files["pi3"], pi3, "Pi3"), (files["2026"], page4d["2026"], "PAGE-4D 2026")):
        unused = sum(group.unused for group in report.groups if group.file == file.name)
        assert used[file.name] + unused == len(state)
        source = next(source for source in report.files if source.name == file.name)
        assert (source.model, source.tensors) == (words, len(state))
        assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    unused = {(group.file, group.keys): group.unused for group in report.groups if group.name == "unused"}
    assert unused["model.safetensors", "decoder.*"] == 2 * 18
    assert unused["model.safetensors", "image_mean"] == 1
    assert unused["checkpoint_mask.pt", "aggregator.frame_blocks.*"] == 24 * 18
    assert model.weights == "Pi3 (model.safetensors) and PAGE-4D 2026 (checkpoint_mask.pt)"


SPECIAL = {"split": (0, 1, 0), "truncate": (0, 1, 1), "page4d": (0, 2, 0)}


@pytest.mark.parametrize("registers", SPECIAL)
@pytest.mark.parametrize("kind", ["150", None])
def test_counts_add_up(pi3, page4d, files, registers, kind):
    """Special tokens are one parameter, counted by the tensors that they come from, and once more where a part of them
    is new."""
    model = hybrid(global_layers=(0, 1), global_strategy="memory", fusion="gate")
    report = load_weights(model, files["pi3"], files[kind], registers=registers)
    (special,) = [group for group in report.groups if group.name.startswith("special tokens")]
    assert (special.loaded, special.adapted, special.new) == SPECIAL[registers]
    assert report.loaded + report.adapted + report.new == len(list(model.parameters())) - 1 + sum(SPECIAL[registers])
    repeated = sum(
        group.loaded for group in report.groups if group.name == "global_sa"
    )  # the weights of View-SA once more
    assert repeated == 2 * 18
    assert report.loaded - repeated + report.adapted + report.unused == len(pi3) + len(page4d[kind])


def test_the_words_for_a_seeded_mask_head(files):
    model = hybrid(5)
    load_weights(model, files["pi3"], files[None])
    assert model.weights == "Pi3 (model.safetensors) and VGGT (vggt.pt); mask head seeded (seed 5)"
    assert counts(model.report)["mask head", ""] == (0, 0, 10 - 2)


def test_the_report_is_a_table(files):
    model = hybrid()
    lines = str(load_weights(model, files["pi3"], files["150"])).splitlines()
    (note,) = model.report.notes
    assert lines.pop() == f"note: {note}" and note.startswith("model.safetensors: none of Pi3's heads")
    assert lines[0].split() == ["group", "file", "keys", "loaded", "adapted", "new", "unused"]
    assert {line.split()[0] for line in lines[1:]} == {
        "encoder",
        "special",
        "view_sa",
        "time_sa",
        "global_sa",
        "mask",
        "unused",
        "all",
    }
    for line in lines[1:-1]:
        assert "model.safetensors" in line or "checkpoint_150.pt" in line
    (time_sa,) = [line for line in lines if line.startswith("time_sa")]
    assert time_sa.split()[1:3] == ["checkpoint_150.pt", "aggregator.global_blocks.{i+22}.*"]
    total = [int(number) for number in lines[-1].split()[1:]]
    assert total == [model.report.loaded, model.report.adapted, model.report.new, model.report.unused]


def test_a_checkpoint_in_several_files_is_the_same_model(tmp_path, pi3, page4d):
    """From its index, from its folder, and beside another one; every file's hash is in the report."""
    halves = [{name: tensor for i, (name, tensor) in enumerate(pi3.items()) if i % 2 == half} for half in (0, 1)]
    folder = save_sharded(tmp_path / "pi3", halves)
    save_page4d(tmp_path / "vggt.pt", page4d[None])
    save_pi3(tmp_path / "whole.safetensors", pi3)
    whole = parameters(load(tmp_path / "whole.safetensors"))
    for path in (folder, folder / "model.safetensors.index.json", str(folder)):
        model = load(path)
        assert model.weights == "Pi3 (model.safetensors.index.json)"
        assert all(torch.equal(parameter, whole[name]) for name, parameter in model.named_parameters())
    names = ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert [source.name for source in model.report.files] == list(names)
    assert [source.tensors for source in model.report.files] == [0, len(halves[0]), len(halves[1])]
    for source in model.report.files:
        assert source.sha256 == hashlib.sha256((folder / source.name).read_bytes()).hexdigest()
    both = [hybrid(), hybrid()]
    load_weights(both[0], tmp_path / "whole.safetensors", tmp_path / "vggt.pt")
    load_weights(both[1], folder, tmp_path / "vggt.pt")
    for one, other in zip(both[0].parameters(), both[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_number_that_is_not_finite_in_a_second_file_is_refused(tmp_path, pi3):
    spoilt = {**pi3, "decoder.3.mlp.fc2.bias": torch.full((WIDTH,), float("nan"))}
    halves = [
        {name: tensor for name, tensor in spoilt.items() if name.startswith("decoder.3.") == later}
        for later in (False, True)
    ]
    refused(hybrid(), "decoder.3.mlp.fc2.bias", "not finite", pi3=save_sharded(tmp_path, halves))


# ---- errors, which leave everything as it was


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
    choice, words = WRONG[case]
    arguments = {name: files[value] if name in ("pi3", "page4d") else value for name, value in choice.items()}
    refused(hybrid(), words, **arguments)


def test_a_missing_file_and_a_damaged_one(tmp_path, files):
    refused(hybrid(), "none.pt", pi3=files["pi3"], page4d=tmp_path / "none.pt")
    (tmp_path / "a.safetensors").write_bytes(files["pi3"].read_bytes()[:-5])
    refused(hybrid(), "a.safetensors", pi3=tmp_path / "a.safetensors", page4d=files["150"])


def published(name, **options):
    return Page4D(ModelConfig.preset(name, **{"width": 64, "heads": 1, "encoder_depth": 1, "depth": 11, **options}))


@pytest.mark.parametrize(
    ("preset", "given", "words"),
    [
        ("pi3", {"page4d": "150"}, "pi3 takes its weights from a Pi3 checkpoint alone"),
        ("pi3", {"pi3": "pi3", "page4d": "150"}, "pi3 takes its weights from a Pi3 checkpoint alone"),
        ("vggt", {"pi3": "pi3"}, "vggt takes its weights from one checkpoint alone"),
        ("page4d", {"pi3": "pi3", "page4d": "150"}, "page4d takes its weights from one checkpoint alone"),
        ("page4d", {"page4d": None}, "vggt.pt has no mask head"),
    ],
)
def test_published_models_take_their_own_weights(files, preset, given, words):
    refused(published(preset), words, **{name: files[kind] for name, kind in given.items()})


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
