"""The buffer plan, from the manifest alone."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.config import Head
from page4d.manifest import PREDICTIONS
from page4d.precision import DTYPE_BYTES, Precision
from page4d_engines.runtime.buffer_plan import BufferPlan, part
from page4d_engines.runtime.schedule import Run, schedule
from page4d_export.plan.export_plan import ExportPlan
from tests.support.examples import examples
from tests.support.models import EVERY, PUBLISHED, config_of, layout_of


def planned(variant="default", precision="float32", encoder_images=None, widen=False, B=1):
    layout = layout_of(variant, 28, 42, B)
    if encoder_images is not None and layout.images % encoder_images:
        encoder_images = layout.images
    plan = ExportPlan.make(
        config_of(variant, depth=3), layout, Precision(precision), variant not in PUBLISHED, encoder_images
    )
    manifest = plan.manifest("none")
    return manifest, BufferPlan.make(manifest, widen)


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("encoder_images", [None, 1, 2])
@pytest.mark.parametrize("variant", EVERY)
def test_every_input_lies_where_its_producer_put_it(variant, encoder_images, B):
    _manifest, plan = planned(variant, encoder_images=encoder_images, B=B)
    places = {}
    for call in plan.calls:
        for spec in call.stage.inputs:
            view = call.inputs[spec.binding]
            assert view.shape == spec.shape
            if spec.name.startswith("layers."):
                kept, whole = plan.outputs[spec.name], plan.whole(call)[0][spec.name]
                assert (whole.buffer, whole.offset, whole.dtype) == (kept.buffer, kept.offset, kept.dtype)
                assert math.prod(whole.shape) == math.prod(kept.shape), "a kept layer is read where it is an output"
            if spec.name in places and call.stage.kind != "encoder":
                assert (view.buffer, view.offset) == places[spec.name], (call.stage.name, spec.name)
        for spec in call.stage.outputs:
            view = call.outputs[spec.binding]
            assert view.shape == spec.shape
            sources = {source.buffer for source in call.inputs.values()}
            assert view.buffer not in sources, "an output never lies on an input"
            places[spec.name] = (view.buffer, 0 if call.stage.kind == "encoder" else view.offset)
    assert ("mask" in plan.outputs) == ("mask" in places)
    assert not any(name.startswith("layers.") for name in plan.starts)
    if "memory" in plan.outputs:
        assert (plan.outputs["memory"].buffer, 0) == places["memory"]


def test_views_stay_inside_their_buffers():
    for variant in EVERY:
        for precision in Precision:
            for widen in (False, True):
                _, plan = planned(variant, str(precision), encoder_images=2, widen=widen)
                views = [v for call in plan.calls for v in (*call.inputs.values(), *call.outputs.values())]
                views += [*plan.outputs.values(), *plan.starts.values()]
                for view in views:
                    assert view.offset + math.prod(view.shape) * DTYPE_BYTES[view.dtype] <= plan.sizes[view.buffer], (
                        view
                    )
                    assert not widen or view.dtype in ("float32", "uint8")


def test_chunks_of_the_encoder_fill_the_tokens_once():
    _manifest, plan = planned(encoder_images=2)
    outputs = [call.outputs["tokens"] for call in plan.calls if call.stage.kind == "encoder"]
    size = math.prod(outputs[0].shape) * 4
    assert [view.offset for view in outputs] == [0, size, 2 * size]
    images = [call.inputs["images"].offset for call in plan.calls if call.stage.kind == "encoder"]
    assert images == [0, 2 * 28 * 42 * 3, 4 * 28 * 42 * 3]
    assert len({view.buffer for view in outputs}) == 1


def test_tokens_have_two_places_and_no_more():
    _manifest, plan = planned("memory")
    names = [name for name in plan.sizes if name.startswith(("tokens", "memory"))]
    assert sorted(names) == ["memory.0", "memory.1", "tokens.0", "tokens.1"]
    assert plan.starts["memory"].buffer == "memory.0"
    assert set(plan.starts) == {"images", "special", "mask_ext", "keypoints", "fundamental", "memory"}


def test_half_precision_halves_the_tokens():
    _, wide = planned(precision="float32")
    _, half = planned(precision="float16")
    _, widened = planned(precision="float16", widen=True)
    assert half.sizes["tokens.0"] * 2 == wide.sizes["tokens.0"] == widened.sizes["tokens.0"]
    assert half.sizes["mask"] == wide.sizes["mask"]


HEADS = [
    heads for count in (1, 2, 3) for heads in itertools.combinations((Head.CAMERA, Head.DEPTH, Head.POINTS), count)
]


@examples(60)
@given(
    st.sampled_from(HEADS),
    st.integers(1, 6),
    st.integers(1, 2),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([1, 4]),
)
def test_chunks_of_a_head_cover_its_result_once_and_read_the_layers_of_their_images(heads, T, B, n, widen, depth):
    layout = Layout(T, 1, 28, 42, B)
    if layout.images % n:
        n = 1
    config = ModelConfig.preset("vggt", width=64, heads=2, depth=depth, encoder_depth=1, predictions=heads)
    plan = ExportPlan.make(config, layout, Precision.FLOAT16, head_images=n)
    buffers = BufferPlan.make(plan.manifest("seeded"), widen)

    shape = layout.pixel_map_shape
    shapes = {"camera": layout.pose_shape(9), "depth": shape, "depth_confidence": shape}
    shapes |= {"points": (*shape, 3), "points_confidence": shape}
    expected = [name for name in PREDICTIONS if name.partition("_")[0] in heads]
    results = [name for name in buffers.outputs if name in PREDICTIONS]
    assert results == expected
    for name in results:
        slot = buffers.outputs[name]
        assert (slot.shape, slot.dtype, slot.offset) == (shapes[name], "float32", 0)
        assert buffers.sizes[slot.buffer] == 4 * math.prod(slot.shape)
    for head in {"depth", "points"} & set(heads):
        calls = [call for call in buffers.calls if call.stage.name == head]
        assert len(calls) == layout.images // n
        for number, call in enumerate(calls):
            for views, whole in zip((call.inputs, call.outputs), buffers.whole(call), strict=True):
                for name, view in views.items():
                    assert view == part(whole[name], number, len(calls))
                    assert view.shape[0] == n
                    kept = buffers.outputs[name]
                    assert (whole[name].buffer, whole[name].dtype) == (kept.buffer, kept.dtype)
                    assert math.prod(whole[name].shape) == math.prod(kept.shape)
    last = [step.call.stage.name for step in schedule(buffers) if isinstance(step, Run) and step.is_last]
    assert last == [entry.name for entry in plan.manifest("seeded").stages], "each stage's outputs are whole once"
