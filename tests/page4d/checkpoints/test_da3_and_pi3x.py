"""Files of Depth Anything 3 and Pi3X: what they are taken for, where each tensor goes, what is left unused."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import ModelConfig, Page4D
from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.completeness import check_complete
from page4d.checkpoints.sources import Sources
from page4d.checkpoints.weights import load, load_weights
from page4d.config import Published
from page4d.errors import UsageError
from page4d.published import TRAITS
from tests.support.beside import key_table
from tests.support.checkpoints import filled, page4d_state, pi3_state, save_pi3
from tests.support.da3.checkpoints import BACKBONE, da3_shapes, mono_shapes, pi3x_shapes
from tests.support.examples import examples
from tests.support.loads import block_sources, check, encoder_sources, norms_eps, qk_eps, refusal, refused

REAL = {  # table: preset, name of the model, tensors that nothing takes
    "da3-small": ("da3-small", "Depth Anything 3 SMALL", 94 + 64),
    "da3-base": ("da3-base", "Depth Anything 3 BASE", 94 + 64),
    "da3-large": ("da3-large", "Depth Anything 3 LARGE", 94 + 64),
    "da3mono-large": ("da3-mono", "Depth Anything 3 MONO", 0),
    "da3metric-large": ("da3-mono", "Depth Anything 3 MONO", 0),
    "pi3x": ("pi3x", "Pi3X", 436 + 2),
}


def statistics():
    return {
        "image_mean": torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1),
        "image_std": torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1),
    }


def saved(folder, shapes, **changed):
    """A file of these tensors; `changed` has some in place of the file's, None: without it."""
    state = filled(shapes)
    state |= {name: tensor for name, tensor in statistics().items() if name in shapes} | changed
    save_pi3(folder / "model.safetensors", {name: tensor for name, tensor in state.items() if tensor is not None})
    return folder / "model.safetensors"


def sources_of(state, prefixes):
    """The tensor of every parameter under some prefixes, which are other prefixes in the file."""
    return {
        ours + name.removeprefix(theirs): tensor
        for ours, theirs in prefixes.items()
        for name, tensor in state.items()
        if name.startswith(theirs) and "_aux" not in name
    }


# ---- what a file is


@pytest.mark.parametrize("table", REAL)
def test_every_tensor_of_the_real_files_has_its_place(tmp_path, table):
    preset, described, left = REAL[table]
    shapes = key_table(table)
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    save_pi3(tmp_path / "a.pt", state)
    checkpoint = Checkpoint.open(tmp_path / "a.pt")
    assert (checkpoint.preset, checkpoint.described) == (preset, described)
    config = checkpoint.config()
    assert config == ModelConfig.preset(preset) and checkpoint.predictions == TRAITS[config.published].heads
    sizes = {name: math.prod(parameter.shape) for name, parameter in Page4D(config, filled=False).named_parameters()}
    counts = checkpoint.document()["parameters_of"]
    assert sum(counts.values()) == sum(math.prod(shape) for shape in shapes.values())
    unused = ("ray half of the depth head", "camera encoder", "conditioning on known poses, rays and depth", "other")
    doubled = 5 * 1024 if table == "pi3x" else 0  # its special tokens are the same for all images
    assert sum(count for part, count in counts.items() if part not in unused) == sum(sizes.values()) - doubled
    assert checkpoint.camera_encoder is (left == 94 + 64)
    assert not any("layers, and" in note or "encoder blocks" in note for note in checkpoint.notes)


@pytest.mark.parametrize(("width", "name"), [(64, "Depth Anything 3"), (384, "Depth Anything 3 SMALL")])
def test_sizes_are_read_from_shapes(tmp_path, width, name):
    path = saved(tmp_path, da3_shapes(width, encoder_depth=4, pairs=3, known_cameras=False))
    checkpoint = Checkpoint.open(path)
    assert (checkpoint.width, checkpoint.encoder_depth, checkpoint.depth, checkpoint.registers) == (width, 4, 3, 0)
    assert checkpoint.described == name and checkpoint.published is Published.DA3
    config = checkpoint.config()
    assert (config.width, config.heads, config.encoder_depth, config.depth) == (width, width // 64, 4, 3)
    assert config.reference_view == "saddle_balanced" and config.predictions == ("camera", "depth")
    assert any("3 layers, and the published da3 of this width has 4" in note for note in checkpoint.notes) is (
        width == 384
    )


def test_files_without_the_prefix_of_the_class_around_the_model_are_the_same(tmp_path):
    state = {name.removeprefix("model."): tensor for name, tensor in filled(da3_shapes()).items()}
    save_pi3(tmp_path / "a.pt", state)
    assert Checkpoint.open(tmp_path / "a.pt").published is Published.DA3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({f"{BACKBONE}blocks.0.mlp.w12.weight": torch.zeros(1)}, ("GIANT", "SwiGLU", "DA3-LARGE")),
        ({f"{BACKBONE}camera_token_extra": torch.zeros(1)}, ("training", "converter")),
    ],
)
def test_giant_and_training_files_are_refused_by_name(tmp_path, more, words):
    text = refused(saved(tmp_path, da3_shapes(), **more), *words)
    assert "lacks" not in text and "try:" in text


def test_nested_is_refused_by_name(tmp_path):
    state = {name.replace("model.", "model.da3.", 1): tensor for name, tensor in filled(da3_shapes()).items()}
    state |= {name.replace("model.", "model.da3_metric.", 1): tensor for name, tensor in filled(mono_shapes()).items()}
    save_pi3(tmp_path / "a.safetensors", state)
    refused(tmp_path / "a.safetensors", "NESTED", "da3.*, da3_metric.*", "DA3METRIC-LARGE")


@pytest.mark.parametrize("encoder_depth", [1, 3])
def test_a_first_global_block_of_odd_number_is_another_model(tmp_path, encoder_depth):
    refused(saved(tmp_path, da3_shapes(encoder_depth=encoder_depth)), f"blocks.{encoder_depth}", "even number")


SHAPES = {
    Published.DA3: da3_shapes(),
    Published.DA3_MONO: mono_shapes(),
    Published.PI3X: pi3x_shapes(),
}
UNNEEDED = ("image_", "depth_e", "ray_embed.", "pose_inject_blk.")


@pytest.mark.parametrize("published", SHAPES)
@examples(60)
@given(data=st.data())
def test_no_needed_tensor_can_be_missing(published, data):
    names = {name.removeprefix("model.") for name in SHAPES[published]}
    check_complete("a.pt", "it", published, None, names)
    needed = sorted(name for name in names if not name.startswith(UNNEEDED) and "_aux" not in name)
    lost = data.draw(st.sampled_from(needed))
    with pytest.raises(UsageError, match=r"a\.pt lacks .*it is not the whole"):
        check_complete("a.pt", "it", published, None, names - {lost})


@pytest.mark.parametrize("published", SHAPES)
@pytest.mark.parametrize("leaf", ["lora_A.weight", "weight_scale"])
def test_adapters_are_refused(published, leaf):
    names = {name.removeprefix("model.") for name in SHAPES[published]}
    block = "decoder.0.attn.qkv" if published is Published.PI3X else "backbone.pretrained.blocks.1.attn.qkv"
    head = "metric_decoder.blocks.0.mlp.fc1" if published is Published.PI3X else "head.projects.0"
    for place in (block, head):
        with pytest.raises(UsageError, match="merge adapters"):
            check_complete("a.pt", "it", published, None, names | {f"{place}.{leaf}"})


def test_a_block_of_a_pair_cannot_be_missing(tmp_path):
    shapes = {name: shape for name, shape in da3_shapes().items() if ".blocks.5." not in name}
    refused(saved(tmp_path, shapes), "lacks backbone.pretrained.blocks.5.norm1.weight")


# ---- where tensors go


@pytest.mark.parametrize("known_cameras", [False, True])
def test_load_da3(tmp_path, known_cameras):
    state = filled(da3_shapes())
    save_pi3(tmp_path / "model.safetensors", state)
    model = load(tmp_path / "model.safetensors", known_cameras=known_cameras)
    sizes = {"width": 64, "heads": 1, "encoder_depth": 2, "depth": 2}
    assert model.config == ModelConfig.preset("da3-large", **sizes, known_cameras=known_cameras)
    keys = encoder_sources(BACKBONE, 2)
    keys = {name: key for name, key in keys.items() if not name.startswith(("encoder.norm", "encoder.register"))}
    for i in range(2):
        keys |= block_sources(i, "time_sa", f"{BACKBONE}blocks.{2 + 2 * i}.")
        keys |= block_sources(i, "view_sa", f"{BACKBONE}blocks.{3 + 2 * i}.")
    sources = {name: state[key] for name, key in keys.items()}
    sources |= sources_of(state, {"camera.": "model.cam_dec.", "depth.": "model.head."})
    sources |= sources_of(state, {"depth.final_norm.": f"{BACKBONE}norm."})
    if known_cameras:
        sources |= sources_of(state, {"camera_encoder.": "model.cam_enc."})
    else:
        sources["special_tokens"] = state[f"{BACKBONE}camera_token"].reshape(2, 1, 64)
    check(model, {}, sources, "nothing")
    for layer in model.layers:
        assert norms_eps(layer) == {1e-6} and qk_eps(layer) == {1e-5}
    rows = {group.name: group for group in model.report.groups}
    assert rows["ray half of the depth head, unused"].unused == 6
    assert rows["ray half of the depth head, unused"].keys == "head.*_aux.*"
    assert ("camera encoder, unused" in rows) is not known_cameras
    assert any("--known-cameras" in note for note in model.report.notes) is not known_cameras
    assert any("ray half of the depth head: left unused" in note for note in model.report.notes)
    counts = model.report.loaded + model.report.adapted + model.report.unused
    assert counts == len(state)


def test_load_mono(tmp_path):
    state = filled(mono_shapes())
    save_pi3(tmp_path / "model.safetensors", state)
    model = load(tmp_path / "model.safetensors")
    keys = encoder_sources(BACKBONE, 4)
    keys = {name: key for name, key in keys.items() if not name.startswith(("encoder.norm", "encoder.register"))}
    sources = {name: state[key] for name, key in keys.items()} | sources_of(state, {"depth.": "model.head."})
    check(model, {}, sources | sources_of(state, {"depth.final_norm.": f"{BACKBONE}norm."}), "nothing")
    assert model.config.published is Published.DA3_MONO and model.report.unused == 0


@pytest.mark.parametrize("conditioning", [True, False])
def test_load_pi3x(tmp_path, conditioning):
    """With the conditioning parts, and as it is saved without them."""
    state = filled(pi3x_shapes(conditioning=conditioning)) | statistics()
    save_pi3(tmp_path / "model.safetensors", state)
    checkpoint = Checkpoint.open(tmp_path / "model.safetensors")
    assert checkpoint.published is Published.PI3X and checkpoint.predictions == TRAITS[Published.PI3X].heads
    model = load(checkpoint)
    keys = encoder_sources("encoder.", 1)
    for i in range(2):
        keys |= block_sources(i, "view_sa", f"decoder.{2 * i + 1}.") | block_sources(i, "time_sa", f"decoder.{2 * i}.")
    sources = {name: state[key] for name, key in keys.items()}
    for ours, theirs in (("points", "point"), ("confidence", "conf"), ("camera", "camera"), ("metric", "metric")):
        sources |= sources_of(state, {f"{ours}.decoder.": f"{theirs}_decoder.", f"{ours}.head.": f"{theirs}_head."})
    sources["metric.token"] = state["metric_token"]
    sources["special_tokens"] = state["register_token"].reshape(1, 5, 64).repeat(2, 1, 1)
    check(model, {}, sources, "nothing")
    rows = [group for group in model.report.groups if group.name.startswith("conditioning")]
    keys = {"depth_emb", "depth_encoder.*", "ray_embed.*", "pose_inject_blk.*"}
    assert {row.keys for row in rows} == (keys if conditioning else set())
    assert any("images alone" in note for note in model.report.notes) is conditioning
    assert model.report.loaded + model.report.adapted + model.report.unused == len(state)


def test_pi3x_without_heads_gives_tokens(tmp_path):
    path = saved(tmp_path, pi3x_shapes(heads=False))
    assert load(path).config.predictions == ()
    assert any("none of Pi3X's heads" in note for note in Checkpoint.open(path).notes)


@pytest.mark.parametrize(("name", "value"), [("image_mean", 0.5), ("image_std", 1.0)])
def test_images_normalised_otherwise_are_refused(tmp_path, name, value):
    path = saved(tmp_path, pi3x_shapes(), **{name: torch.full((1, 3, 1, 1), value)})
    refused(path, name, "ImageNet", f"{value:.4g}, {value:.4g}", act=load)
    halved = {name: tensor.bfloat16() for name, tensor in statistics().items()}
    assert load(saved(tmp_path, pi3x_shapes(), **halved)).complete


@pytest.mark.parametrize("lost", ["camera", "depth"])
def test_a_file_without_a_head_gives_a_model_without_it(tmp_path, lost):
    heads = tuple(head for head in ("camera", "depth") if head != lost)
    path = saved(tmp_path, da3_shapes(heads=heads))
    assert load(path).config.predictions == heads
    assert any(f"no head for {lost}" in note for note in Checkpoint.open(path).notes)
    refused(path, f"has no {lost} head", act=lambda path: load(path, predictions=(lost,)))


def test_known_cameras_need_the_camera_encoder(tmp_path):
    path = saved(tmp_path, da3_shapes(known_cameras=False))
    refused(path, "no camera encoder", act=lambda path: load(path, known_cameras=True))


def test_the_encoder_ends_where_the_file_says(tmp_path):
    path = saved(tmp_path, da3_shapes())
    refused(path, "encoder_depth = 2", act=lambda path: load(path, encoder_depth=4))
    assert load(path, depth=1).complete  # fewer layers take what they need


# ---- METRIC and MONO


def test_a_file_that_does_not_say_which_it_is_can_be_told(tmp_path):
    path = saved(tmp_path, mono_shapes())
    checkpoint = Checkpoint.open(path)
    assert not checkpoint.is_told and any("--preset da3-metric" in note for note in checkpoint.notes)
    model = load(path, published="da3-metric")
    assert model.config.published is Published.DA3_METRIC
    assert model.weights == "Depth Anything 3 METRIC (model.safetensors)"
    assert not any("--preset" in note for note in model.report.notes)
    metric = ModelConfig.preset("da3-metric", width=64, heads=1, encoder_depth=4)
    network = Page4D(metric, filled=False)
    assert load_weights(network, checkpoint=path).loaded == model.report.loaded
    assert "METRIC" in network.weights


@pytest.mark.parametrize(("name", "published"), [("da3metric-large", "da3-metric"), ("da3mono-large", "da3-mono")])
def test_the_config_beside_the_file_says_which_it_is(tmp_path, name, published):
    path = saved(tmp_path, mono_shapes())
    (tmp_path / "config.json").write_text(json.dumps({"model_name": name}))
    checkpoint = Checkpoint.open(path)
    assert checkpoint.is_told and checkpoint.published == published
    assert load(path).config.published == published
    other = "da3-mono" if published == "da3-metric" else "da3-metric"
    assert load(path, published=other).config.published == other  # what a person says comes first


def test_a_config_of_another_model_says_nothing(tmp_path):
    path = saved(tmp_path, mono_shapes())
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-small"}))
    assert Checkpoint.open(path).published is Published.DA3_MONO and not Checkpoint.open(path).is_told


# ---- what else a source may be


def test_a_checkpoint_as_the_only_source_of_any_published_model(tmp_path):
    states = {
        "pi3": pi3_state(64, encoder_depth=1, pairs=2),
        "vggt": page4d_state(None, 64, 1, range(2)),
        "pi3x": filled(pi3x_shapes()) | statistics(),
    }
    for preset, state in states.items():
        save_pi3(tmp_path / f"{preset}.safetensors", state)
        network = Page4D(ModelConfig.preset(preset, width=64, heads=1, encoder_depth=1, depth=2), filled=False)
        load_weights(network, checkpoint=tmp_path / f"{preset}.safetensors")
        assert network.complete


def test_sources_that_do_not_go_together(tmp_path):
    da3, pi3 = saved(tmp_path, da3_shapes()), tmp_path / "pi3.safetensors"
    save_pi3(pi3, pi3_state(64, encoder_depth=1, pairs=2))
    network = Page4D(ModelConfig.preset("pi3", width=64, heads=1, encoder_depth=1, depth=2))
    refusal(da3, "given as pi3", "page4d.load", act=lambda path: load_weights(network, pi3=path))
    refusal(da3, "only source", act=lambda path: load_weights(network, pi3=pi3, checkpoint=path))
    refusal(da3, "pi3 takes its weights from a Pi3 checkpoint", act=lambda path: load_weights(network, checkpoint=path))
    own = Page4D(ModelConfig.preset("tiny", width=64, heads=1, encoder_depth=1, depth=2))
    refusal(da3, "no Pi3 checkpoint", "da3-large", act=lambda path: load_weights(own, checkpoint=path))
    refusal(da3, "beside another", act=lambda path: Sources(pi3=Checkpoint.open(pi3), single=Checkpoint.open(path)))
    small = Page4D(ModelConfig.preset("da3-large", width=64, heads=1, encoder_depth=2, depth=2))
    for choice in ({"registers": "split"}, {"time_sa": "pi3"}):
        refusal(da3, "cannot be taken", act=lambda path, choice=choice: load_weights(small, checkpoint=path, **choice))
