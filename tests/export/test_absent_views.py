"""`--absent-views`: which stages know of absent images, where that has no meaning, and the command itself."""

import json

import pytest

from page4d import Layout, ModelConfig
from page4d.config import Head
from page4d.errors import UsageError
from page4d.manifest_checks.manifest_check import check_manifest
from page4d.precision import Precision
from page4d_export.commands.export import export_command
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from tests.support.commands import inside
from tests.support.models import EVERY, PUBLISHED, config_of, layout_of

SEE_OTHERS = [variant for variant in EVERY if variant != "da3-mono"]


def plan_of(variant, absent_views=True, B=1):
    return ExportPlan.make(
        config_of(variant), layout_of(variant, 28, 42, B), Precision.FLOAT32, absent_views=absent_views
    )


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("variant", SEE_OTHERS)
def test_stages_in_which_images_see_each_other_take_present_last_and_no_others(variant, B):
    plan, plain = (plan_of(variant, absent, B) for absent in (True, False))
    layout, config = plan.layout, plan.config
    for entry, before in zip(plan.stages(), plain.stages(), strict=True):
        several = {"view_sa": layout.V > 1, "time_sa": layout.T > 1, "global_sa": True, "metric": True}
        several["camera"] = config.built_on_vggt
        assert entry.inputs[: len(before.inputs)] == before.inputs and entry.outputs == before.outputs
        more = entry.inputs[len(before.inputs) :]
        assert [spec.name for spec in more] == ["present"] * several.get(entry.kind, False)
        for spec in more:
            assert (spec.shape, spec.dtype, spec.suffix) == (layout.image_map_shape, "uint8", "")
        assert (entry.flop, entry.weight_bytes) == (before.flop, before.weight_bytes)
    assert plan.manifest("").takes_present and not plain.manifest("").takes_present
    smaller = plan.at(Layout(layout.T, layout.V, 14, 14))
    assert smaller.absent_views and smaller.manifest("").takes_present


def test_the_camera_encoder_knows_of_absent_images():
    config = ModelConfig.preset(**PUBLISHED["da3"][0], known_cameras=True, reference_view="first")
    plan = ExportPlan.make(config, Layout(1, 3, 28, 42), Precision.FLOAT32, absent_views=True)
    first = plan.stages()[0]
    assert first.kind == "camera_encoder" and [spec.name for spec in first.inputs] == ["cameras", "present"]
    with pytest.raises(UsageError, match="share their known cameras"):
        ExportPlan.make(config, Layout(1, 3, 28, 42, 2), Precision.FLOAT32, absent_views=True)


def test_where_no_image_sees_another_absent_views_are_refused():
    with pytest.raises(UsageError, match="sees every image alone"):
        plan_of("da3-mono")
    with pytest.raises(UsageError, match="a clip is a single image"):
        ExportPlan.make(config_of("default"), Layout(1, 1, 28, 42), Precision.FLOAT32, absent_views=True)


def test_a_head_that_sees_images_alone_is_not_told():
    config = config_of("pi3")
    assert not any(config.is_of_several_images(head) for head in config.predictions)
    assert config_of("vggt").is_of_several_images(Head.CAMERA) and config_of("pi3x").is_of_several_images(Head.METRIC)


@pytest.mark.parametrize("variant", SEE_OTHERS)
def test_its_manifests_pass_the_checks(variant):
    from tests.vectors.published_manifests import as_written

    manifest = as_written(plan_of(variant))
    assert any(spec["name"] == "present" for entry in manifest["stages"] for spec in entry["inputs"])
    check_manifest_of(manifest)


def check_manifest_of(values):
    import msgspec

    from page4d.manifest import Manifest

    check_manifest(msgspec.convert(values, Manifest))


def test_clips_of_the_verification_lack_one_image_each():
    layout = Layout(1, 3, 28, 42, 2)
    assert SampleClip.rendered(layout).values["present"].tolist() == [[[0, 1, 1]], [[1, 0, 1]]]
    assert SampleClip.rendered(Layout(1, 1, 28, 42)).values["present"].tolist() == [[1]]


def test_the_plan_of_the_command_has_the_input():
    flags = ("--preset", "tiny", "--T", 2, "--V", 2, "--height", 28, "--width", 28, "--dry-run", "--json")
    texts = [inside(*flags, *more, function=export_command) for more in ((), ("--absent-views",))]
    assert all(done.returncode == 0 for done in texts), texts[1].stderr
    plain, absent = (json.dumps(json.loads(done.stdout)) for done in texts)
    assert "present" not in plain and "present" in absent
