"""Counts, shapes and segments of a layout; what configs refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.errors import UsageError


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
    ],
)
def test_impossible_layouts_are_refused(sizes, message):
    with pytest.raises(UsageError, match=message):
        Layout(*sizes)


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
                    near = (kt, kv) == (t, v) or any(abs(kt - t) in (0, level) and abs(kv - v) in (0, level) for level in levels)
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
        ({"global_strategy": "memory", "global_layers": (0, 3), "mask_layer": 1}, r"with memory, layers from mask_layer = 1 on"),
        ({"width": 100}, "width is out of range"),
        ({"depht": 2}, r"no such option\s+got:\s+depht"),
        ({"dilations": ()}, "dilations is out of range"),
        ({"depth": "four"}, r"depth is out of range\s+got:\s+four\s+allowed: a whole number"),
        ({"streams": True}, "streams is out of range"),
        ({"epipolar": "yes"}, r"epipolar is out of range\s+got:\s+yes\s+allowed: true or false"),
        ({"epipolar_band": None}, "epipolar_band is out of range"),
        ({"keep_layers": 3}, "keep_layers is out of range"),
        ({"global_layers": (0, "last")}, "global_layers is out of range"),
    ],
)
def test_impossible_models_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig.preset("tiny", **options)


def test_presets_and_plain_values():
    real = ModelConfig.preset("vitl")
    assert (real.width, real.heads, real.encoder_depth, real.depth, real.streams) == (1024, 16, 24, 16, 2)
    assert real.global_layers == (15,) and real.keep_layers == (15,)
    with pytest.raises(UsageError, match=r"no such preset\s+got:\s+vith"):
        ModelConfig.preset("vith")
    config = ModelConfig.preset("vits", order=("time", "view"), global_strategy="dilated", keep_layers=(1, 3))
    assert ModelConfig.from_mapping(config.to_mapping()) == config
    assert all(value is None or isinstance(value, (str, int, float, bool, list)) for value in config.to_mapping().values())
