"""Counts, shapes and segments of a layout; what configs refuse."""

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.config import PRESETS
from page4d.errors import EngineError, UsageError
from page4d.manifest import CONSTANTS, Manifest
from page4d.manifest_checks.manifest_check import check_manifest
from page4d.manifest_checks.raw_manifest import layout_of
from page4d.precision import Precision
from page4d_export.plan.export_plan import ExportPlan
from tests.support.examples import examples


def test_the_sizes_of_the_specification():
    layout = Layout(24, 4, 518, 518)
    assert (layout.h, layout.w, layout.P, layout.N) == (37, 37, 1369, 1374)
    assert (layout.view_tokens, layout.time_tokens, layout.global_tokens) == (5496, 32976, 131904)
    assert layout.anchors(64) == 24 * 4 * 64
    assert layout.tokens_shape(2, 1024) == (2, 24, 4, 1374, 1024)
    assert Layout(2, 3, 28, 42, B=5).tokens_shape(2, 8) == (2, 5, 2, 3, 11, 8)
    assert Layout(1, 1, 28, 28).anchors(64) == 4  # no more than there are patches


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4, 4, 520, 518), r"height is not a multiple of the patch size 14\s+got:\s+520\s+allowed: 518 or 532"),
        ((4, 4, 518, 0), r"width .*\s+got:\s+0"),
        ((0, 4, 518, 518), r"T is too small\s+got:\s+0"),
        ((4, -1, 518, 518), r"V is too small"),
        ((65536, 1, 518, 518), r"T is too large\s+got:\s+65536\s+allowed: 1 to 65535"),
        ((2**63, 2, 14, 14), "T is too large"),
        ((1, 10**400, 14, 14), "V is too large"),
        ((1, 1, 14, 14, 70000), "B is too large"),
        ((1, 1, 10**12, 14), r"height is too large\s+got:\s+1000000000000\s+allowed: up to 65534"),
        ((1, 1, 14, 65548), "width is too large"),
        ((1.0, 1, 14, 14), r"T is no whole number\s+got:\s+1\.0"),
        (("4", 1, 14, 14), "T is no whole number"),
        ((None, 1, 14, 14), "T is no whole number"),
        ((True, 1, 14, 14), "T is no whole number"),
        ((1, 1, [14], 14), "H is no whole number"),
    ],
)
def test_impossible_layouts_are_refused(sizes, message):
    with pytest.raises(UsageError, match=message):
        Layout(*sizes)


def test_the_largest_layout_is_a_manifests():
    """What a layout allows, a manifest says, and the other way round."""
    largest = {"T": 65535, "V": 65535, "H": 65534, "W": 65534, "B": 65535}
    assert Layout(np.int64(2), 1, 14, 14) == Layout(2, 1, 14, 14)
    for name, size in largest.items():
        sizes = {"T": 1, "V": 1, "H": 14, "W": 14, "B": 1, name: size}
        assert layout_of(sizes) == Layout(**sizes)
        with pytest.raises(EngineError):
            layout_of({**sizes, name: size + 14})
        with pytest.raises(UsageError):
            Layout(**{**sizes, name: size + 14})


@given(st.integers(1, 9), st.integers(1, 7), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_dilated_segments_are_counted_without_making_them(T, V, levels):
    layout = Layout(T, V, 14, 14)
    assert layout.dilated_count(levels) == len(layout.dilated_segments(levels)[1])


@given(st.integers(1, 6), st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_dilated_segments_are_the_neighbours(T, V, levels):
    layout = Layout(T, V, 14, 28)
    seg_ptr, seg = layout.dilated_segments(levels)
    assert len(seg_ptr) == T * V + 1
    for t in range(T):
        for v in range(V):
            mine = seg[seg_ptr[t * V + v] : seg_ptr[t * V + v + 1]]
            assert (mine[:, 1] == layout.N).all()
            frames = [divmod(int(start) // layout.N, V) for start in mine[:, 0]]
            assert len(set(frames)) == len(frames)
            for kt in range(T):
                for kv in range(V):
                    near = (kt, kv) == (t, v) or any(
                        abs(kt - t) in (0, level) and abs(kv - v) in (0, level) for level in levels
                    )
                    assert ((kt, kv) in frames) == near


def test_time_segments_cover_every_time_for_every_time():
    layout = Layout(3, 2, 14, 14)
    seg_ptr, seg = layout.time_segments()
    assert seg_ptr.tolist() == [0, 3, 6, 9]
    assert seg.tolist() == [[0, layout.N], [layout.N, layout.N], [2 * layout.N, layout.N]] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streams": 3}, r"streams is out of range\s+got:\s+3"),
        ({"fusion": "mean"}, r"fusion has no such value\s+got:\s+mean\s+allowed: scalar, gate"),
        ({"order": ("view", "view")}, "order is out of range"),
        ({"mask_layer": 4}, r"mask_layer is out of range\s+got:\s+4\s+allowed: 0 to 3"),
        ({"global_layers": (7,)}, "global_layers is out of range"),
        (
            {"global_strategy": "memory", "global_layers": (0, 3), "mask_layer": 1},
            r"with memory, layers from mask_layer = 1 on",
        ),
        ({"width": 100}, "width is out of range"),
        ({"depht": 2}, r"no such option\s+got:\s+depht"),
        ({"dilations": ()}, "dilations is out of range"),
        ({"depth": "four"}, r"depth is out of range\s+got:\s+four\s+allowed: a whole number"),
        ({"streams": True}, "streams is out of range"),
        ({"epipolar": "yes"}, r"epipolar is out of range\s+got:\s+yes\s+allowed: true or false"),
        ({"epipolar_band": None}, "epipolar_band is out of range"),
        ({"keep_layers": 3}, "keep_layers is out of range"),
        ({"global_layers": (0, "last")}, "global_layers is out of range"),
        ({"width": 2**15, "heads": 512}, r"width is out of range\s+got:\s+32768\s+allowed: a whole number, 1 to 16384"),
        ({"depth": 10**9}, r"depth is out of range\s+got:\s+1000000000\s+allowed: a whole number, 0 to 256"),
        ({"encoder_depth": 257}, "encoder_depth is out of range"),
        ({"heads": 0}, "heads is out of range"),
        ({"memory_tokens": 65536}, "memory_tokens is out of range"),
        ({"landmarks": 10**5000}, r"landmarks is out of range\s+got:\s+a int too large to show"),
        ({"dilations": (1,) * 17}, r"dilations is out of range(.|\n)*up to 16 of up to 65535"),
        ({"dilations": (65536,)}, "dilations is out of range"),
        (
            {"depth": 100, "keep_layers": tuple(range(65))},
            r"keep_layers is out of range\s+got:\s+65 layers\s+allowed: up to 64",
        ),
        ({"epipolar_band": float("nan")}, "epipolar_band is out of range"),
        ({"epipolar_band": float("inf")}, "epipolar_band is out of range"),
        ({"epipolar_penalty": -1e308}, "epipolar_penalty is out of range"),
        ({"epipolar_penalty": 10**400}, "epipolar_penalty is out of range"),
        ({"order": 3}, r"order is out of range\s+got:\s+3\s+allowed: words"),
        ({"order": None}, "order is out of range"),
        ({"order": (["view"], "time")}, "order is out of range"),
        ({"fusion": ["gate"]}, "fusion has no such value"),
        ({"published": {}}, "published has no such value"),
    ],
)
def test_impossible_models_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig.preset("tiny", **options)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.integers()
    | st.floats()
    | st.sampled_from(["view", "gate", "150", "pi3", "memory", 10**400, 2**63])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@examples(300)
@given(
    st.sampled_from([field.name for field in dataclasses.fields(ModelConfig)]), VALUES, st.sampled_from(list(PRESETS))
)
@example("predictions", [], "da3-mono")
def test_any_value_of_any_option_is_taken_or_refused_in_words(name, value, preset):
    """What is taken has a plan, and a manifest that says it."""
    try:
        config = ModelConfig.preset(preset, **{name: value})
        plan = ExportPlan.make(config, Layout(1, 1, 28, 28), Precision.FLOAT32)
    except UsageError as error:
        assert name in str(error) or "published" in str(error) or "width" in str(error)
        return
    manifest = plan.manifest("")
    stages = tuple(msgspec.structs.replace(entry, file=f"onnx/{entry.name}.onnx") for entry in manifest.stages)
    files = dict.fromkeys([CONSTANTS, *(entry.file for entry in stages)], "0" * 64)
    manifest = msgspec.json.decode(
        msgspec.json.encode(msgspec.structs.replace(manifest, stages=stages, files=files)), type=Manifest
    )
    check_manifest(manifest)
    assert ModelConfig.from_mapping(manifest.model) == config


def test_presets_and_plain_values():
    real = ModelConfig.preset("vitl")
    assert (real.width, real.heads, real.encoder_depth, real.depth, real.streams) == (1024, 16, 24, 16, 2)
    assert real.global_layers == (15,) and real.keep_layers == (15,)
    with pytest.raises(UsageError, match=r"no such preset\s+got:\s+vith"):
        ModelConfig.preset("vith")
    config = ModelConfig.preset("vits", order=("time", "view"), global_strategy="dilated", keep_layers=(1, 3))
    assert ModelConfig.from_mapping(config.to_mapping()) == config
    assert all(
        value is None or isinstance(value, (str, int, float, bool, list)) for value in config.to_mapping().values()
    )
