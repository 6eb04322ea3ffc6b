"""Stages: their chain is the model, and their names, shapes, dtypes and costs are those of the plan."""

import re

import numpy as np
import pytest
import torch

from page4d import Layout, ModelConfig, Page4D
from page4d.cameras import cameras_from_mapping, fundamental
from page4d.errors import UsageError
from page4d.network.poses import camera_to_world
from page4d.network.reference_view import balanced_view
from page4d.precision import Precision
from page4d_export import stages
from page4d_export.plan.export_plan import ExportPlan
from tests.support.da3.models import cameras_of
from tests.support.models import EVERY, VARIANTS, config_of, layout_of, lively, takes_keypoints


def run_chain(model, layout, values, keypoints):
    """Stages one after the other: an output is the next stage's input of the same name."""
    layout, blocks = model.config.settled(layout), []
    for name, stage in stages(model, layout, keypoints=keypoints).items():
        results = []
        for number in range(stage.entry.calls):
            inputs = []
            for spec in stage.inputs:
                size = int(np.prod(spec.shape))
                inputs.append(values[spec.name].reshape(-1)[number * size : (number + 1) * size].reshape(spec.shape))
            out = stage.module(*inputs)
            results.append(out if isinstance(out, tuple) else (out,))
        for index, spec in enumerate(stage.outputs):
            values[spec.name] = torch.cat([result[index] for result in results])
        if "select" in values and name == "encoder":
            clips = values["select"].numpy().reshape(layout.B, layout.V, -1)
            values["tokens"][:, : layout.special] = model.special(layout, balanced_view(clips))
        if "_sa." in name:
            blocks.append(values["tokens"][0])
            # of one stream: the outputs of the last two blocks
            values[f"layers.{stage.entry.layer}"] = torch.cat(blocks[-2:], -1)
    return values


@pytest.mark.parametrize("variant", EVERY)
def test_stages_compute_where_their_inputs_are(variant):
    """On a device that is not the CPU: nothing that they make themselves lies elsewhere."""
    config = config_of(variant)
    for stage in stages(
        Page4D(config), layout_of(variant, 28, 42), "float16", keypoints=takes_keypoints(variant)
    ).values():
        inputs = [torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device="meta") for spec in stage.inputs]
        out = stage.module.to("meta")(*inputs)
        for spec, tensor in zip(stage.outputs, out if isinstance(out, tuple) else (out,), strict=True):
            assert (tensor.device.type, tuple(tensor.shape)) == ("meta", spec.shape)


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("variant", EVERY)
def test_the_chain_of_stages_is_the_model(variant, B):
    own = variant in VARIANTS
    model, layout = lively(config_of(variant)), layout_of(variant, 28, 42, B)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, layout.images_shape, dtype=torch.uint8, generator=generator)
    mask_ext, keypoints = (torch.rand(layout.patch_map_shape, generator=generator) for _ in range(2))
    rig = cameras_of(layout.V)
    out = model(images, mask_ext, keypoints, cameras=rig) if own else model(images)
    lines = torch.from_numpy(fundamental(list(cameras_from_mapping(rig).values()))).float()
    values = {"images": images, "mask_ext": mask_ext, "keypoints": keypoints, "fundamental": lines}
    if model.config.has_special_tokens:
        values["special"] = model.special(layout)
    if model.config.has_memory:
        values["memory"] = model.memory_tokens.expand(layout.memory_shape(2, *model.memory_tokens.shape))
    values = run_chain(model, layout, values, keypoints=own)
    assert ("mask" in values) == (out.mask is not None)
    if out.mask is not None:
        torch.testing.assert_close(values["mask"].reshape(layout.mask_shape), out.mask)
    if "metric" in values:
        values["points"] = values["points"].reshape(B, -1) * values["metric"][:, None]
    for head in model.config.predictions:
        if head != "camera":
            torch.testing.assert_close(values[head].reshape(getattr(out, head).shape), getattr(out, head))
    for name in ("depth_confidence", "points_confidence", "sky"):
        expected = getattr(out, name)
        assert (name in values) == (expected is not None)
        if expected is not None:
            torch.testing.assert_close(values[name].reshape(expected.shape), expected)
    if out.camera is not None:
        # float64, from raw values that are float32
        poses = torch.from_numpy(camera_to_world(values["camera"].numpy(), model.config.traits.pose_direction))
        if "metric" in values:
            poses[..., :3, 3] *= values["metric"].reshape(*layout.lead, 1, 1, 1)
        torch.testing.assert_close(poses, out.camera, atol=1e-5, rtol=1e-5)
    if model.config.depth and not own:
        layer = model.config.depth - 1
        torch.testing.assert_close(values[f"layers.{layer}"], out.layers[layer])
    if model.config.has_memory:
        torch.testing.assert_close(values["memory"], out.memory)
    if own and str(model.config.layer_output) == "streams":
        torch.testing.assert_close(values["tokens"].movedim(0, -2).flatten(-2), out.layers[1])


def bytes_of(name, weight, precision, quantised):
    """In int8 a byte for each value of a block's matrix and a float32 scale for each output; in fp8 the bytes alone.

    So have the projections of DPT heads in int8; in fp8 these heads stay as they are, and all of VGGT's. Pi3X's metric
    head is float32.
    """
    if quantised and re.search(r"(attn\.(qkv|proj)|mlp\.fc[12]|projects\.\d)\.weight$", name):
        return weight.numel() + (4 * weight.shape[0] if precision is Precision.INT8 else 0)
    return weight.numel() * weight.element_size()


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("variant", EVERY)
def test_modules_keep_to_their_entries(variant, precision):
    model, layout = lively(config_of(variant)), layout_of(variant, 28, 42)
    for name, stage in stages(model, layout, precision, keypoints=variant in VARIANTS).items():
        assert stage.name == name
        module = stage.module
        inputs = [torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in stage.inputs]
        out = module(*inputs)
        out = out if isinstance(out, tuple) else (out,)
        assert [(tuple(x.shape), str(x.dtype)) for x in out] == [
            (spec.shape, f"torch.{spec.dtype}") for spec in stage.outputs
        ], name
        # the fitted one stands in the place of pos_embed
        weights = {key: w for key, w in module.named_parameters() if key != "encoder.pos_embed"}
        stays = name == "depth" or (model.config.built_on_vggt and name in ("camera", "points"))
        quantised = (precision is Precision.INT8 or (precision is Precision.FP8 and not stays)) and name != "metric"
        sizes = [bytes_of(key, w, precision, quantised) for key, w in weights.items()]
        unused = 0 if "keypoints" in {spec.name for spec in stage.inputs} or stage.entry.kind != "global_sa" else 4
        assert stage.entry.weight_bytes == sum(sizes) - unused, name


def borders(stages_of_model):
    """Names of the inputs and of the outputs of each stage."""
    return {
        name: ([spec.name for spec in stage.inputs], [spec.name for spec in stage.outputs])
        for name, stage in stages_of_model.items()
    }


def test_stages_are_those_of_the_design():
    layout = Layout(2, 2, 28, 42)
    model = lively(config_of("default"))
    assert borders(stages(model, layout)) == {
        "encoder": (["images", "special"], ["tokens"]),
        "mask_head": (["tokens", "mask_ext"], ["mask"]),
        "view_sa.0": (["tokens", "mask"], ["tokens"]),
        "time_sa.0": (["tokens", "mask"], ["tokens"]),
        "view_sa.1": (["tokens", "mask"], ["tokens"]),
        "time_sa.1": (["tokens", "mask"], ["tokens"]),
        "global_sa.1": (["tokens"], ["tokens"]),
    }
    encoder = stages(model, layout)["encoder"]
    assert encoder.inputs[0].dtype == "uint8" and encoder.inputs[0].shape == (4, 28, 42, 3)
    late = stages(lively(config_of("late")), layout)
    assert [spec.name for spec in late["view_sa.0"].inputs] == ["tokens"] and late["view_sa.0"].outputs[0].shape[0] == 1
    assert late["view_sa.1"].inputs[0].shape[0] == 1 and late["view_sa.1"].outputs[0].shape[0] == 2
    assert list(late).index("mask_head") == 3  # after layer 0


def test_stages_of_the_published_models():
    predicting = borders(stages_at("pi3"))
    blocks = ["time_sa.0", "view_sa.0", "time_sa.1", "view_sa.1"]
    assert list(predicting) == ["encoder", *blocks, "points", "confidence", "camera"]
    assert predicting["points"] == (["layers.1"], ["points"]) and predicting["camera"] == (["layers.1"], ["camera"])
    vggt_borders = borders(stages_at("vggt"))
    assert list(vggt_borders)[-3:] == ["camera", "depth", "points"]
    assert vggt_borders["camera"] == (["layers.1"], ["camera"])
    assert vggt_borders["depth"] == (["layers.0", "layers.1"], ["depth", "depth_confidence"])
    assert vggt_borders["points"] == (["layers.0", "layers.1"], ["points", "points_confidence"])
    metric = borders(stages_at("pi3x"))
    assert list(metric) == ["encoder", *blocks, "points", "confidence", "camera", "metric"]
    assert metric["points"] == (["layers.1"], ["points"]) and metric["metric"] == (["layers.1"], ["metric"])
    choosing = borders(stages_at("da3"))
    assert choosing["encoder"] == (["images", "special"], ["tokens", "select"])
    assert list(choosing)[-2:] == ["camera", "depth"] and choosing["camera"] == (["layers.3"], ["camera"])
    assert choosing["depth"] == ([f"layers.{layer}" for layer in range(4)], ["depth", "depth_confidence"])
    features = [f"features.{block}" for block in range(4)]
    assert borders(stages_at("da3-mono")) == {"encoder": (["images"], features), "depth": (features, ["depth", "sky"])}
    masked = borders(stages_at("page4d 150"))
    assert list(masked).index("mask_head") == list(masked).index("view_sa.7") + 1
    assert masked["mask_head"] == (["tokens"], ["mask", "row_bias"])
    assert [name for name, (inputs, _) in masked.items() if "row_bias" in inputs] == ["time_sa.8", "time_sa.9"]


def stages_at(variant):
    return stages(lively(config_of(variant)), layout_of(variant, 28, 42))


EPS = [("default", 1e-6), ("pi3", 1e-6), ("pi3x", 1e-6), ("da3", 1e-6), ("vggt", 1e-5), ("page4d 2026", 1e-5)]


@pytest.mark.parametrize(("variant", "norm"), EPS)
def test_eps_of_every_stage(variant, norm):
    for name, stage in stages_at(variant).items():
        if name == "encoder" or (norm == 1e-6 and name in ("points", "confidence", "camera", "metric")):
            assert stage.eps == ({} if variant == "da3" and name == "camera" else {"norm": 1e-6})
        elif name in ("camera", "depth", "points"):
            assert stage.eps == {"norm": 1e-5}
        else:
            assert stage.eps == ({} if name == "mask_head" else {"norm": norm, "qk_norm": 1e-5})


def test_flop_of_pi3():
    """A pair of blocks and a head, by hand from the shapes."""
    layout = Layout(1, 2, 224, 224)
    plan = {
        entry.name: entry.flop
        for entry in ExportPlan.make(ModelConfig.preset("pi3"), layout, Precision.FLOAT32).stages()
    }
    C, N = 1024, 261
    block = 24 * C * C * N
    assert plan["time_sa.0"] == 2 * (block + 4 * N * N * C)
    assert plan["view_sa.0"] == 2 * block + 4 * (2 * N) ** 2 * C
    decoder = 5 * (block + 4 * N * N * C) + 2 * N * (2 * C * C + C * C)
    assert plan["points"] == 2 * (decoder + 2 * 256 * C * 588)


def test_flop_of_the_specification():
    """T=24 V=4 at 518, ViT-L, two streams.

    Encoder 98 TFLOP; per stream and block linears 3.3, attention 2.97 and 17.8, landmark Global 3.3."""
    plan = ExportPlan.make(ModelConfig.preset("vitl"), Layout(24, 4, 518, 518), Precision.FLOAT16)
    flop = {entry.name: entry.flop * entry.calls / 1e12 for entry in plan.stages()}
    assert flop["encoder"] == pytest.approx(98, rel=0.01)
    assert flop["view_sa.3"] == pytest.approx(2 * (3.3 + 2.97), rel=0.01)
    assert flop["time_sa.3"] == pytest.approx(2 * (3.3 + 17.8), rel=0.01)
    # its keys are projected for anchors alone
    assert flop["global_sa.15"] == pytest.approx(2 * (3.3 * 10 / 12 + 3.3), rel=0.05)


def test_encoder_images_divide_the_clip():
    def plan(n):
        return ExportPlan.make(config_of("default"), Layout(3, 4, 28, 28), Precision.FLOAT32, encoder_images=n)

    assert plan(None).encoder_images == 12
    assert plan(4).stages()[0].calls == 3
    with pytest.raises(
        UsageError, match=r"does not divide the clip's 12 images\s+got:\s+5\s+allowed: 1, 2, 3, 4, 6, 12"
    ):
        plan(5)


def test_sixteen_bit_modules_do_not_touch_the_model():
    model = lively(config_of("default"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for stage in stages(model, Layout(1, 1, 28, 28), "float16").values():
        assert any(parameter.dtype == torch.float16 for parameter in stage.module.parameters())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name])
