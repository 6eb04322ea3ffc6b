"""What a cloud is made from, for every set of heads and every wish."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.errors import UsageError
from page4d.precision import Precision
from page4d_engines.options import PointsSource
from page4d_engines.results.scene.cloud_choice import CloudChoice, left_out
from page4d_engines.results.scene.confidence import Threshold
from page4d_engines.results.scene.image_names import ImageNames
from page4d_export.plan.export_plan import ExportPlan
from tests.support.examples import examples

THREE = ("camera", "depth", "points")
HEADS = [heads for count in range(4) for heads in itertools.combinations(THREE, count)]


def manifest_of(name, heads):
    config = ModelConfig.preset(name, width=64, heads=2, depth=1, encoder_depth=1, predictions=heads)
    layout = Layout(1, 2, 28, 28) if name == "pi3" else Layout(2, 1, 28, 28)
    return ExportPlan.make(config, layout, Precision.FLOAT32).manifest("seeded")


MANIFESTS = {("vggt", *heads): manifest_of("vggt", heads) for heads in HEADS}
MANIFESTS |= {("pi3", *THREE): manifest_of("pi3", True), ("pi3",): manifest_of("pi3", False)}


@examples(100)
@given(
    which=st.sampled_from(sorted(MANIFESTS)),
    source=st.sampled_from([None, *PointsSource]),
    least=st.one_of(st.none(), st.floats(-0.5, 1.5)),
    percentile=st.one_of(st.none(), st.floats(-10, 110)),
)
def test_a_choice_is_what_was_asked_for_or_an_error(which, source, least, percentile):
    name, *heads = which
    sources = [PointsSource.DEPTH] if name == "vggt" and {"camera", "depth"} <= set(heads) else []
    sources += [PointsSource.POINTS] if "points" in heads else []
    allowed = source is None or source in sources
    allowed = allowed and (sources != [] or (least is None and percentile is None))
    allowed = allowed and (least is None or (name == "pi3" and percentile is None and 0 <= least <= 1))
    allowed = allowed and (percentile is None or 0 <= percentile <= 100)
    if not allowed:
        with pytest.raises(UsageError) as caught:
            CloudChoice.of(MANIFESTS[which], source, least, percentile)
        assert caught.value.got and (caught.value.allowed or caught.value.hint)
        return
    choice = CloudChoice.of(MANIFESTS[which], source, least, percentile)
    if not sources:
        assert choice is None
        return
    assert choice.source == (source or sources[0])
    if name == "pi3":
        assert choice.confidence == "confidence"
        expected = Threshold(0.1 if least is None else least) if percentile is None else Threshold(0, percentile)
        assert choice.threshold == expected
    else:
        assert choice.confidence == f"{choice.source}_confidence"
        assert choice.threshold == Threshold(percentile=50 if percentile is None else percentile)


@pytest.mark.parametrize("which", sorted(MANIFESTS), ids=" ".join)
def test_what_is_left_out_is_said_once(which):
    heads = which[1:]
    sentences = list(left_out(MANIFESTS[which], CloudChoice.of(MANIFESTS[which])))
    files = [sentence.split(":")[0].removeprefix("no ") for sentence in sentences]
    expected = []
    if heads:
        has_cloud = "points" in heads or {"camera", "depth"} <= set(heads)
        expected += [] if has_cloud else ["points.ply"]
        expected += [] if "camera" in heads else ["cameras.json"]
        has_depth = "depth" in heads or {"camera", "points"} <= set(heads)
        expected += [] if has_depth else ["depth images"]
    assert files == expected


@pytest.mark.parametrize(
    ("cameras", "times", "photos", "in_json", "depth"),
    [
        (["a", "b"], ["0"], True, ["a", "b"], ["a", "b"]),
        (["a", "b"], ["0"], False, ["a", "b"], ["a/0", "b/0"]),
        (["a"], ["0"], False, ["a"], ["a/0"]),
        (["a"], ["0", "1"], False, ["0", "1"], ["0", "1"]),
        (["a", "b"], ["0", "1"], False, ["a/0", "b/0", "a/1", "b/1"], ["a/0", "b/0", "a/1", "b/1"]),
    ],
)
def test_images_are_named_by_what_tells_them_apart(cameras, times, photos, in_json, depth):
    names = ImageNames.of(cameras, times, photos)
    assert (list(names.cameras), list(names.depth)) == (in_json, depth)
