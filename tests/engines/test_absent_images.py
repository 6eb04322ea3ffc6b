"""`Pipeline.run(present=)`: engines go without absent images as `Page4D` does, in every variant of the network."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.errors import UsageError
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.constants import special_tokens
from page4d_engines.self_check import self_check
from page4d_export.plan.export_plan import ExportPlan
from tests.page4d.test_model import rig
from tests.support.examples import examples
from tests.support.models import EVERY, EXPORTED, PUBLISHED, config_of, layout_of, lively, takes_keypoints
from tests.support.torch_engines.plan_stages import pipeline_of

SEE_OTHERS = [variant for variant in EVERY if variant != "da3-mono"]


def inputs_of(config, layout, keypoints, seed=0):
    """Images, and what else a run takes, by name; maps float32."""
    rng = np.random.default_rng(seed)
    inputs = {"images": rng.integers(0, 256, layout.images_shape, np.uint8)}
    if config.takes_mask:
        inputs["mask_ext"] = rng.random(layout.patch_map_shape, np.float32)
    if keypoints:
        inputs["keypoints"] = rng.random(layout.patch_map_shape, np.float32)
    if config.epipolar or config.known_cameras:
        size = {"width": layout.W, "height": layout.H}
        inputs["cameras"] = {name: camera | size for name, camera in rig(layout.V).items()}
    return inputs


def patterns(layout):
    """The first image absent; a whole view or timestep; all but the last image; all there."""
    present = np.ones(layout.image_map_shape, np.uint8)
    first, last, lone = present.copy(), present.copy(), 0 * present
    first.reshape(layout.B, -1)[:, 0] = 0
    lone.reshape(layout.B, -1)[:, -1] = 1
    if layout.V > 1:
        last[..., -1] = 0
    else:
        last[..., -1, :] = 0
    return first, last, lone, present


def expect_reference(result, output, tolerance):
    """All fields of a result, and NaN at the same places."""
    tensors = result.tensors()
    assert all(np.isfinite(tensors[f"layers.{i}"].astype(np.float32)).all() for i in output.layers)
    fields = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    fields |= {f"layers.{i}": tokens for i, tokens in output.layers.items()}
    for name, value in fields.items():
        if not isinstance(value, torch.Tensor):
            continue
        got, expected = tensors[name].astype(np.float64), value.double().numpy()
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), err_msg=name)
        error = np.linalg.norm(np.nan_to_num(got - expected)) / np.linalg.norm(np.nan_to_num(expected))
        assert error < tolerance, (name, error)


def run_both(pipeline, model, inputs, present, tolerance):
    as_tensors = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in inputs.items()
    }
    expect_reference(pipeline.run(**inputs, present=present), model(**as_tensors, present=present), tolerance)


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("variant", SEE_OTHERS)
def test_the_host_does_between_stages_what_the_model_does(tmp_path, variant, B):
    config, layout = config_of(variant), layout_of(variant, 28, 42, B)
    model, keypoints = lively(config), takes_keypoints(variant)
    plan = ExportPlan.make(config, layout, Precision.FLOAT32, keypoints, head_images=1, absent_views=True)
    pipeline = pipeline_of(model, plan, tmp_path / "engines")
    inputs = inputs_of(config, layout, keypoints)
    for present in patterns(layout):
        run_both(pipeline, model, inputs, present, 1e-5)
    run_both(pipeline, model, inputs, None, 1e-5)


@pytest.mark.parametrize("absent", [[0], [1, 3], [0, 1, 2]])
def test_known_cameras_of_absent_images_do_not_count(tmp_path, absent):
    options = {**PUBLISHED["da3"][0], "known_cameras": True, "reference_view": "first"}
    config, layout = ModelConfig.preset(**{"encoder_depth": 2, **options}), Layout(1, 5, 28, 42)
    model = lively(config)
    plan = ExportPlan.make(config, layout, Precision.FLOAT32, head_images=1, absent_views=True)
    present = np.ones((1, 5), np.uint8)
    present[0, absent] = 0
    run_both(pipeline_of(model, plan, tmp_path / "engines"), model, inputs_of(config, layout, False), present, 1e-4)


@pytest.mark.parametrize("variant", [*EXPORTED, "vggt", "pi3x", "da3"])
def test_engines_equal_the_reference(made, variant):
    made_ = made(variant, absent_views=True)
    inputs = inputs_of(made_.model.config, made_.plan.layout, takes_keypoints(variant))
    pipeline = Pipeline.load(made_.folder, threads=1)
    for present in patterns(made_.plan.layout)[:3]:
        run_both(pipeline, made_.model, inputs, present, 2e-5)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_engines_in_less_precision_are_near_the_reference(made, precision):
    made_ = made("vggt", precision, absent_views=True)
    inputs = inputs_of(made_.model.config, made_.plan.layout, False)
    pipeline = Pipeline.load(made_.folder, threads=1, rounding=precision != "int8")
    for present in patterns(made_.plan.layout)[:3]:
        run_both(pipeline, made_.model, inputs, present, 10 * Precision(precision).tolerance)


@pytest.mark.parametrize("variant", ["default", "page4d 2026"])
def test_the_golden_clip_has_an_absent_image(checked, variant):
    folder = EngineFolder.open(checked(variant, absent_views=True))
    assert folder.manifest.takes_present
    pipeline = Pipeline.of(folder)
    check = self_check(folder, pipeline)
    check.require()
    assert len(check.chain) == sum(len(entry.outputs) for entry in folder.manifest.stages)


def test_windows_that_overlap_take_other_first_images(made):
    made_ = made("default", absent_views=True)
    layout = made_.plan.layout
    pipeline = Pipeline.load(made_.folder, sliding=True, threads=1)
    rng = np.random.default_rng(1)
    clip = rng.integers(0, 256, (layout.T + 1, *layout.images_shape[1:]), np.uint8)
    there = np.ones((layout.T + 1, layout.V), np.uint8)
    there[0, 0] = there[1] = 0
    pipeline.run(clip[: layout.T], present=there[: layout.T])
    got = pipeline.run(clip[1:], present=there[1:], shared=layout.T - 1).copy()
    alone = Pipeline.load(made_.folder, threads=1).run(clip[1:], present=there[1:])
    for name, array in alone.tensors().items():
        np.testing.assert_array_equal(got.tensors()[name], array, err_msg=name)


def test_an_image_that_was_absent_cannot_be_shared_as_one_that_is_there(made):
    made_ = made("default", absent_views=True)
    pipeline = Pipeline.load(made_.folder, sliding=True, threads=1)
    images, present = made_.clip.frames, np.ones((3, 2), np.uint8)
    present[2, 1] = 0
    pipeline.run(images, present=present)
    for now in (None, np.ones((3, 2), np.uint8)):
        with pytest.raises(UsageError, match="timestep 1, view 1"):
            pipeline.run(images, present=now, shared=2)
    now = np.ones((3, 2), np.uint8)
    now[1, 1] = 0
    pipeline.run(images, present=now, shared=2)
    pipeline.run(images, shared=1)


@pytest.mark.parametrize(
    ("present", "what"),
    [
        (np.zeros((3, 2), np.uint8), "no image of a clip is there"),
        (np.ones((2, 3), np.uint8), "another shape"),
        (np.ones((3, 2)), "wrong type"),
        (np.full((3, 2), 2), "other values than 0 and 1"),
    ],
)
def test_what_says_nothing_of_the_images_is_refused(made, present, what):
    made_ = made("default", absent_views=True)
    images = np.zeros(made_.plan.layout.images_shape, np.uint8)
    with pytest.raises(UsageError, match=what):
        Pipeline.load(made_.folder, threads=1).run(images, present=present)


def test_engines_that_need_every_image_say_what_takes_less(made):
    made_ = made("default")
    pipeline, images = Pipeline.load(made_.folder, threads=1), made_.clip.frames
    present = np.ones((3, 2), np.uint8)
    expected = pipeline.run(images).copy()
    np.testing.assert_array_equal(pipeline.run(images, present=present).mask, expected.mask)
    present[1, 0] = 0
    with pytest.raises(UsageError, match="--absent-views"):
        pipeline.run(images, present=present)


@examples(50)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_special_tokens_are_the_models_whatever_is_absent(B, T, V, data):
    layout = Layout(T, V, 14, 14, B)
    counts = st.integers(1, 2 ** (T * V) - 1)
    present = np.array(
        [[code >> bit & 1 for bit in range(T * V)] for code in data.draw(st.lists(counts, min_size=B, max_size=B))]
    )
    special = np.ones((B * T * V, 5, 4), np.float32)
    special.reshape(B, T * V, 5, 4)[:, 0] = 7
    moved = special_tokens(special, present.astype(np.uint8).reshape(layout.image_map_shape), layout)
    for clip, row in zip(moved.reshape(B, T * V, -1), present, strict=True):
        firsts = np.flatnonzero((clip == 7).all(1)).tolist()
        assert firsts == [int(np.flatnonzero(row)[0])]
