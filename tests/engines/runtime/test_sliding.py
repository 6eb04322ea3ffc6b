"""Windows that overlap: the tokens of the frames that they share are kept, and results stay as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from page4d.config import ModelConfig
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d.system.progress import SILENT
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.clip.fit import Fit
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_engines.results.summary import read_summary
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.schedule import CopyRows, Run, schedule
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_scene.clip import render, save
from tests.support.examples import examples
from tests.support.exports import by_time


@pytest.fixture(scope="module")
def sliding(made, tmp_path_factory):
    cache = {}

    def make(variant="default", precision="float32"):
        if (variant, precision) not in cache:
            cache[variant, precision] = by_time(made(variant), tmp_path_factory.mktemp("engines"), precision)
        return cache[variant, precision]

    return make


@pytest.fixture
def clip(tmp_path):
    save(render(7, 2, 100, 80, seed=2), tmp_path / "clip")
    return tmp_path / "clip"


def frames_of(made_, count, seed=0):
    shape = made_.plan.layout
    return np.random.default_rng(seed).integers(0, 256, (count, shape.V, shape.H, shape.W, 3), np.uint8)


@pytest.mark.parametrize(("variant", "precision"), [("default", "float32"), ("late", "float32"), ("default", "int8")])
def test_equal_to_the_bit_to_windows_computed_whole(sliding, variant, precision, on_cpu):
    """Every stride, window after window: kept tokens come to the right places, and nothing overwrites them."""
    made_ = sliding(variant, precision)
    T = made_.plan.layout.T
    arguments = made_.inputs(keypoints=made_.plan.keypoints)
    frames = frames_of(made_, 3 * T)
    plain, sliding = (
        Pipeline.load(made_.folder, on_cpu),
        Pipeline.load(made_.folder, on_cpu, sliding=True),
    )
    for stride in range(1, T + 1):
        before = None
        for start in range(0, 3 * T - T + 1, stride):
            clip = frames[start : start + T]
            plain_result = plain.run(clip, **arguments).copy()
            expected = plain_result.tensors()
            result = sliding.run(clip, **arguments, shared=0 if before is None else T - stride)
            outputs = result.tensors()
            for name, array in expected.items():
                np.testing.assert_array_equal(
                    outputs[name], array, err_msg=f"{name}, stride {stride}, window from {start}"
                )
            encoder, whole = result.timing.flop["encoder"], plain_result.timing.flop["encoder"]
            n, images = made_.plan.encoder_images, made_.plan.layout.images
            new = images if before is None else stride * made_.plan.layout.V
            assert encoder * images == whole * n * -(-new // n), "the encoder saw the new images, whole calls of them"
            before = clip


def test_a_kept_frame_is_not_looked_at_again(sliding, on_cpu):
    """Whatever lies in its place has no effect."""
    made_ = sliding()
    T = made_.plan.layout.T
    frames = frames_of(made_, T + 1)
    sliding = Pipeline.load(made_.folder, on_cpu, sliding=True)
    sliding.run(frames[:T])
    spoilt = frames[1:].copy()
    spoilt[: T - 1] = 0
    result = sliding.run(spoilt, shared=T - 1)
    expected = Pipeline.load(made_.folder, on_cpu).run(frames[1:])
    np.testing.assert_array_equal(result.layers[1], expected.layers[1])


def test_what_cannot_be_shared_is_refused(made):
    made_ = made()
    frames, T = frames_of(made_, made_.plan.layout.T), made_.plan.layout.T
    with pytest.raises(UsageError, match="a pipeline that keeps nothing"):
        Pipeline.load(made_.folder, "onnxruntime").run(frames, shared=1)
    sliding = Pipeline.load(made_.folder, "onnxruntime", sliding=True)
    with pytest.raises(UsageError, match="no run before"):
        sliding.run(frames, shared=1)
    sliding.run(frames)
    for shared in (-1, T):
        with pytest.raises(UsageError, match=rf"got:\s+shared = {shared}(.|\n)*allowed: 0 to {T - 1}"):
            sliding.run(frames, shared=shared)


@examples(60)
@given(T=st.integers(1, 7), V=st.integers(1, 4), divisor=st.integers(1, 30), data=st.data())
def test_moves_go_over_any_layout(T, V, divisor, data):
    """After the moves each kept image lies where the window has it, and all new ones are computed.

    On bytes that name their image."""
    layout = Layout(T, V, 14, 14)
    n = next(n for n in range(min(divisor, layout.images), 0, -1) if layout.images % n == 0)
    manifest = ExportPlan.make(ModelConfig.preset("tiny"), layout, Precision.FLOAT32, encoder_images=n).manifest("")
    plan = BufferPlan.make(manifest, sliding=True)
    carried = data.draw(st.integers(0, T - 1)) * V
    assert plan.encoded is not None and plan.encoded.shape[0] == layout.images
    width = plan.sizes["encoded"] // layout.images
    places = list(range(layout.images))
    steps = schedule(plan, carried=carried)
    for step in steps:
        if isinstance(step, CopyRows) and step.source.buffer == step.target.buffer == "encoded":
            assert (
                step.pitch == step.width == width and (step.source_offset - step.target_offset) >= step.rows * width
            ), "no overlap"
            first, to = step.source_offset // width, step.target_offset // width
            places[to : to + step.rows] = places[first : first + step.rows]
    assert places[:carried] == list(range(layout.images - carried, layout.images))
    encoding = [step.call for step in steps if isinstance(step, Run) and step.call.stage.kind == "encoder"]
    computed = {call.outputs["tokens"].offset // width + image for call in encoding for image in range(n)}
    assert set(range(carried, layout.images)) <= computed and len(computed) < layout.images - carried + n
    writers = [
        step.call
        for step in steps
        if isinstance(step, Run) and any(view.buffer == "encoded" for view in step.call.outputs.values())
    ]
    assert {call.stage.kind for call in writers} == {"encoder"}, "what is kept is written by none but the encoder"


def test_the_command_decodes_and_encodes_new_frames_alone(sliding, clip, tmp_path, monkeypatch):
    """`--stride 1` writes what separate windows give, and decodes and encodes each frame once."""
    made_ = sliding()
    layout, folder = made_.plan.layout, FrameFolder.open(clip)
    read = []
    image = Fit.image
    monkeypatch.setattr(Fit, "image", lambda self, source: read.append(source) or image(self, source))
    options = RunOptions(stride=1, backend=Backend.ONNXRUNTIME, pool=ThreadPool.of(1))
    ClipRun.prepare(EngineFolder.open(made_.folder), folder, tmp_path / "out", options).run(SILENT)
    assert len(read) == folder.count * layout.V
    summary = read_summary(tmp_path / "out" / "summary.json")
    count = folder.count - layout.T + 1
    assert len(summary.windows) == count
    stage = read_manifest(made_.folder).stage("encoder")
    calls = stage.calls + (count - 1) * -(-layout.V // made_.plan.encoder_images)
    assert summary.stage_flop["encoder"] == stage.flop * calls
    plain = Pipeline.load(made_.folder, "onnxruntime")
    reader = WindowReader(folder, layout, None, False, False)
    for window, inputs in reader.read(windows(folder.count, layout.T, 1)):
        name = next(entry.file for entry in summary.windows if int(entry.first_frame) == window[0])
        expected = plain.run(inputs.images, mask_ext=inputs.mask_ext)
        stored = load_file(tmp_path / "out" / name)
        np.testing.assert_array_equal(stored["mask"], expected.mask)
        np.testing.assert_array_equal(stored["layers.1"], expected.layers[1])
