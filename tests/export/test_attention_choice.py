"""`--attention`: what the graphs leave to TensorRT, and what is refused."""

import json

import numpy as np
import onnx
import pytest

from page4d import Page4D
from page4d.errors import UsageError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.commands import inside
from tests.support.models import config_of, layout_of

SMALL = (
    *("--preset", "tiny", "--set", "depth=1", "--set", "encoder_depth=1"),
    *("--T", "2", "--V", "2", "--height", "28", "--width", "28"),
)


@pytest.mark.parametrize("choice", list(AttentionChoice))
def test_nodes_name_the_plugin_unless_native(choice, tmp_path):
    """Whatever the choice, the function body is there."""
    config = config_of("dilated")
    plan = ExportPlan.make(config, layout_of("dilated", 28, 28), Precision.FLOAT16, attention=choice)
    assert plan.manifest("").attention is choice
    exporter = OnnxExporter(tmp_path, config.head_dim, plan.attention)
    stages = stages_of(Page4D(config), plan)
    for name in ("view_sa.0", "global_sa.1"):
        file = exporter.write(stages[name])
        model = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(file, full_check=True)
        (node,) = (node for node in model.graph.node if node.domain == "page4d")
        named = {attribute.name for attribute in node.attribute if attribute.name.startswith("plugin_")}
        assert named == (set() if choice is AttentionChoice.NATIVE else {"plugin_version", "plugin_namespace"})
        (body,) = (function for function in model.functions if function.name == node.op_type)
        assert set(body.attribute) == {attribute.name for attribute in node.attribute}


def test_onnx_runtime_lowers_the_nodes_of_either(tmp_path):
    """Engines without a plugin's name compute the same."""
    config = config_of("default", depth=1, encoder_depth=2, global_layers=())
    layout = layout_of("default", 56, 70)  # that of `made`: traced already
    frames = SampleClip.rendered(layout).values
    tokens = []
    for choice in (AttentionChoice.AUTO, AttentionChoice.NATIVE):
        (tmp_path / choice.value).mkdir()
        manifest = write_unverified(
            Page4D(config),
            ExportPlan.make(config, layout, Precision.FLOAT16, attention=choice),
            tmp_path / choice.value,
        )
        assert manifest.attention is choice is read_manifest(tmp_path / choice.value).attention
        result = Pipeline.load(tmp_path / choice.value).run(frames["images"], mask_ext=frames["mask_ext"])
        tokens.append(result.layers[0].copy())
    assert np.array_equal(*tokens) and tokens[0].std() > 0


def test_another_layout_keeps_the_choice():
    plan = ExportPlan.make(
        config_of("default"), layout_of("default", 28, 28), Precision.FLOAT16, attention=AttentionChoice.NATIVE
    )
    assert plan.at(layout_of("default", 42, 42)).attention is AttentionChoice.NATIVE


def test_the_plugin_computes_in_16_bits():
    with pytest.raises(UsageError, match="--fp16, --bf16 or --fp8"):
        ExportPlan.make(
            config_of("default"), layout_of("default", 28, 28), Precision.FLOAT32, attention=AttentionChoice.PLUGIN
        )
    done = inside(*SMALL, "--attention", "plugin", "--dry-run")
    assert done.returncode == 2 and "--attention plugin" in done.stderr


def test_the_flag():
    done = inside(*SMALL, "--fp16", "--attention", "native", "--set", "time_encoding=alibi", "--dry-run", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["manifest"]["attention"] == "native"
    assert "n x n" in done.stderr and "time_sa.0" in done.stderr and "view_sa.0" not in done.stderr
    done = inside(*SMALL, "--attention", "fast", "--dry-run")
    assert done.returncode == 2 and "'fast' is not one of 'auto', 'plugin', 'native'" in done.stderr


def test_stages_that_tensorrt_does_not_fuse():
    def unfused(variant):
        return ExportPlan.make(config_of(variant), layout_of(variant, 28, 28), Precision.FLOAT16).unfused()

    assert unfused("default") == []
    assert unfused("memory") == ["view_sa.0", "view_sa.1"], "the epipolar prior"
    assert unfused("dilated") == ["time_sa.0", "time_sa.1", "global_sa.1"], "ALiBi and the grid"
