"""Depth Anything 3 and Pi3X between their stages and after them: the whole is what `Page4D` itself computes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout
from page4d.errors import UsageError
from page4d.network.reference_view import balanced_view
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.result import LengthUnit
from page4d_engines.runtime.schedule import ChooseView, Run, schedule
from tests.support.da3.models import H, W, cameras_of, model_of
from tests.support.examples import examples
from tests.support.torch_engines.torch_stages import TorchStages


def images_of(layout, seed=0):
    return np.random.default_rng(seed).integers(0, 256, layout.images_shape, np.uint8)


def expect_equal(result, output, names):
    for name in names:
        got, expected = getattr(result, name), getattr(output, name)
        assert got is not None, name
        assert got.shape == tuple(expected.shape), name
        np.testing.assert_allclose(got, expected.double().numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_reference_view_is_chosen_between_the_stages(tmp_path, B, n, seed):
    layout = Layout(1, 3, H, W, B)
    images = images_of(layout, seed)
    result = TorchStages(model_of("da3"), layout, n, n).pipeline(tmp_path / "engines").run(images)
    output = model_of("da3")(images)
    expect_equal(result, output, ("depth", "depth_confidence", "camera", "intrinsics"))
    first = model_of("first")(images)
    chosen = _chosen(images, layout)
    assert (not torch.allclose(first.depth, output.depth, rtol=1e-3)) == bool(chosen.any()), "the choice matters"
    assert result.unit is None


def _chosen(images, layout):
    _, select = model_of("da3").encoder.encode(torch.from_numpy(images).reshape(-1, H, W, 3))
    return balanced_view(select.reshape(layout.B, layout.V, -1).double().numpy())


def test_clips_of_the_tests_choose_other_views_than_the_first():
    clips = [(images_of(Layout(1, 3, H, W, B), seed), Layout(1, 3, H, W, B)) for B in (1, 2) for seed in (0, 1)]
    chosen = {int(view) for images, layout in clips for view in _chosen(images, layout)}
    assert len(chosen) > 1 and chosen != {0}


@pytest.mark.parametrize(("name", "V"), [("da3", 1), ("da3", 2), ("first", 4)])
def test_without_a_choice_the_first_view_is_the_reference(tmp_path, name, V):
    layout = Layout(1, V, H, W)
    images = images_of(layout)
    stages = TorchStages(model_of(name), layout)
    assert BufferPlan.make(stages.manifest).reference is None
    expect_equal(stages.pipeline(tmp_path / "engines").run(images), model_of(name)(images), ("depth", "camera"))


@pytest.mark.parametrize("name", ["da3", "mono", "pi3x"])
def test_a_pipeline_for_windows_that_overlap_shares_nothing_of_one_timestep(tmp_path, name):
    layout = Layout(1, 3, H, W)
    images = images_of(layout)
    stages = TorchStages(model_of(name), layout, 1, 1)
    pipeline = stages.pipeline(tmp_path / "sliding", sliding=True)
    expected = stages.pipeline(tmp_path / "plain").run(images).tensors()
    for array_name, array in pipeline.run(images).tensors().items():
        np.testing.assert_array_equal(array, expected[array_name], err_msg=array_name)
    with pytest.raises(UsageError, match="shares a part of its times"):
        pipeline.run(images, shared=1)


@examples(40)
@given(st.integers(1, 6), st.integers(1, 3), st.data())
def test_the_choice_exchanges_two_rows_of_a_clip_and_no_others(V, B, data):
    """Against indexing: special tokens as the model itself gives them to the chosen view."""
    layout = Layout(1, V, H, W, B)
    n = data.draw(st.sampled_from([n for n in range(1, V * B + 1) if V * B % n == 0]))
    model = model_of("da3")
    stages = TorchStages(model, layout, n, 1)
    plan = BufferPlan.make(stages.manifest)
    steps = schedule(plan)
    choices = [number for number, step in enumerate(steps) if isinstance(step, ChooseView)]
    assert len(choices) == (V >= 3)
    if not choices:
        return
    before = steps[choices[0] - 1]
    assert isinstance(before, Run) and before.is_last and before.call.stage.kind == "encoder"
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    select = rng.normal(size=(B * V, 64)).astype(np.float32)
    buffers = {name: rng.normal(size=size // 4).astype(np.float32) for name, size in plan.sizes.items()}
    special = model.special(stages.layout).numpy()
    buffers["special"][:] = special.ravel()
    choice = plan.reference
    tokens = buffers[choice.tokens.buffer].reshape(-1)[: np.prod(choice.tokens.shape)].reshape(choice.tokens.shape)
    tokens[:, 0] = special[:, 0]
    expected = tokens.copy()
    expected[:, 0] = model.special(stages.layout, balanced_view(select.reshape(B, V, -1))).numpy()[:, 0]
    for copy in steps[choices[0]].copies(select):
        target, source = (buffers[slot.buffer].view(np.uint8) for slot in (copy.target, copy.source))
        part = source[copy.source_offset : copy.source_offset + copy.width]
        target[copy.target_offset : copy.target_offset + copy.width] = part
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize("B", [1, 2])
def test_known_cameras_give_the_frame_and_the_unit(tmp_path, B):
    layout = Layout(1, 3, H, W, B)
    images, rig = images_of(layout), cameras_of(3)
    pipeline = TorchStages(model_of("known"), layout, 3, 1).pipeline(tmp_path / "engines")
    result, output = pipeline.run(images, cameras=rig), model_of("known")(images, cameras=rig)
    expect_equal(result, output, ("depth", "depth_confidence", "camera", "intrinsics"))
    poses = np.array([camera["world_to_camera"] for camera in rig.values()])
    np.testing.assert_allclose(
        np.linalg.inv(result.camera)[..., :3, :], np.broadcast_to(poses, (*result.camera.shape[:-2], 3, 4)), atol=1e-12
    )
    assert result.unit is LengthUnit.CAMERAS


def test_known_cameras_are_needed_and_checked(tmp_path):
    layout = Layout(1, 3, H, W)
    pipeline = TorchStages(model_of("known"), layout, 3, 1).pipeline(tmp_path / "engines")
    images = images_of(layout)
    with pytest.raises(
        UsageError, match=r"exported with --known-cameras and need the calibration of every view\s+allowed: 3 cameras"
    ):
        pipeline.run(images)
    with pytest.raises(UsageError, match="number of cameras is not the engines'"):
        pipeline.run(images, cameras=cameras_of(2))
    with pytest.raises(UsageError, match="camera cam0 is of images of another size"):
        pipeline.run(images, cameras=cameras_of(3, W=70))
    with pytest.raises(UsageError, match=r"no mapping of names to cameras\s+got:\s+int\s.*their encoding \[3, 9\]"):
        pipeline.run(images, cameras=3)
    with pytest.raises(UsageError, match=r"cameras has another shape than the engines'"):
        pipeline.run(images, cameras=np.zeros((3, 12)))


def test_the_encoding_of_known_cameras_leaves_the_results_in_the_networks_frame(tmp_path):
    from page4d.cameras import cameras_from_mapping
    from page4d.network.known_cameras import KnownCameras

    layout = Layout(1, 3, H, W)
    images, rig = images_of(layout), cameras_of(3)
    known = KnownCameras.of(cameras_from_mapping(rig).values())
    pipeline = TorchStages(model_of("known"), layout, 3, 1).pipeline(tmp_path / "engines")
    given_, encoded = pipeline.run(images, cameras=rig).copy(), pipeline.run(images, cameras=known.encoded(H, W))
    assert not np.allclose(encoded.camera, given_.camera)
    scale = known.scale(encoded.camera[0])
    np.testing.assert_allclose(encoded.depth / scale, given_.depth, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", ["mono", "metric"])
def test_depth_and_sky_of_images_that_are_seen_alone(tmp_path, name, n):
    layout = Layout(1, 2, H, W)
    images = images_of(layout)
    stages = TorchStages(model_of(name), layout, n, 3 - n)
    result, output = stages.pipeline(tmp_path / "engines").run(images), model_of(name)(images)
    assert stages.manifest.constants == () and not (tmp_path / "engines/onnx/constants.safetensors").exists()
    expect_equal(result, output, ("depth", "sky"))
    assert (result.camera, result.unit, result.layers) == (None, None, {})


def test_metric_depth_is_in_metres_where_focal_lengths_are_known(tmp_path):
    layout = Layout(1, 2, H, W)
    images, rig = images_of(layout), cameras_of(2)
    pipeline = TorchStages(model_of("metric"), layout, 2, 2).pipeline(tmp_path / "engines")
    plain = pipeline.run(images).copy()
    for _ in range(2):  # the buffers that were scaled are not scaled again
        result = pipeline.run(images, cameras=rig)
        for v in range(2):
            factor = (40 + v + 44 + v) / 2 / 300
            np.testing.assert_allclose(result.depth[0, v], plain.depth[0, v] * factor, rtol=1e-6)
        assert result.unit is LengthUnit.METRES and plain.unit is None
        np.testing.assert_array_equal(result.intrinsics[0, 1], rig["cam1"]["K"])
        np.testing.assert_array_equal(result.sky, plain.sky)


def test_mono_does_not_look_at_cameras(tmp_path):
    layout = Layout(1, 1, H, W)
    pipeline = TorchStages(model_of("mono"), layout).pipeline(tmp_path / "engines")
    plain = pipeline.run(images_of(layout)).copy()
    result = pipeline.run(images_of(layout), cameras=cameras_of(1))
    np.testing.assert_array_equal(plain.depth, result.depth)
    assert result.unit is None


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("n", [1, 2])
def test_pi3x_is_in_metres(tmp_path, B, n):
    layout = Layout(1, 2, H, W, B)
    images = images_of(layout)
    result = TorchStages(model_of("pi3x"), layout, 2, n).pipeline(tmp_path / "engines").run(images)
    output = model_of("pi3x")(images)
    expect_equal(result, output, ("points", "confidence", "camera", "metric"))
    assert result.metric.shape == layout.lead
    assert result.unit is LengthUnit.METRES
    assert {"metric", "points"} <= set(result.tensors()) and "sky" not in result.tensors()
    np.testing.assert_allclose(result.world_points(), output.world_points().numpy(), rtol=1e-3, atol=1e-4)


def test_results_name_in_order():
    stages = TorchStages(model_of("pi3x"), Layout(1, 2, H, W))
    assert list(BufferPlan.make(stages.manifest).outputs) == ["layers.1", "points", "confidence", "camera", "metric"]
