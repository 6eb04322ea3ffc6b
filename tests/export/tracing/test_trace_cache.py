"""A cached trace is the one that would be traced anew, and what changes a trace changes its key."""

import dataclasses

import onnx
import pytest

from page4d import Layout, ModelConfig, Page4D
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_export.tracing.trace_cache import TraceCache, trace_key
from tests.support.models import EXPORTED

LAYOUT = Layout(2, 2, 28, 42)


def never():
    raise AssertionError("it is traced again")


def plan_of(config, layout=LAYOUT, precision=Precision.FLOAT32, attention=AttentionChoice.AUTO):
    return ExportPlan.make(config, layout, precision, attention=attention)


def keys(config, seed=0, **options):
    """A key of every stage, by name."""
    plan = plan_of(config, **options)
    stages = stages_of(Page4D(config, seed=seed), plan)
    return {name: trace_key(stage, stage.module, plan.attention, config.head_dim) for name, stage in stages.items()}


@pytest.mark.parametrize(
    ("variant", "precision"),
    [("default", "float32"), *(pytest.param(variant, "float16", marks=pytest.mark.slow) for variant in EXPORTED)],
)
def test_stages_of_cached_traces_equal_those_of_fresh_ones(made, variant, precision, tmp_path):
    """The cache is the one that all tests share: its traces are of other weights, and some of another depth."""
    plan = made(variant, precision).plan
    stages = stages_of(Page4D(plan.config, seed=3), plan)
    by_key = {trace_key(stage, stage.module, plan.attention, plan.config.head_dim): stage for stage in stages.values()}
    assert len(by_key) > 4
    for stage in by_key.values():
        written = []
        for name, cache in (("cached", TraceCache.of_environment()), ("fresh", TraceCache())):
            (tmp_path / name).mkdir(exist_ok=True)
            path = OnnxExporter(tmp_path / name, plan.config.head_dim, plan.attention, cache).write(stage)
            written.append(path.read_bytes())
        assert written[0] == written[1], stage.name


def test_a_cache_without_a_folder_traces_a_key_once():
    graph = onnx.ModelProto(producer_name="graph")
    cache = TraceCache()
    assert cache.get("key", lambda: graph) is cache.get("key", never) is graph
    assert TraceCache().get("key", lambda: None) is None


def test_other_processes_find_what_is_in_the_folder(tmp_path):
    graph = onnx.ModelProto(producer_name="graph")
    TraceCache(tmp_path / "traces").get("key", lambda: graph)
    assert TraceCache(tmp_path / "traces").get("key", never) == graph
    assert [path.name for path in (tmp_path / "traces").iterdir()] == ["key.onnx"]


def test_exports_share_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    graph = onnx.ModelProto(producer_name="graph")
    monkeypatch.setenv("PAGE4D_TRACES", str(tmp_path))
    TraceCache.of_environment().get("key", lambda: graph)
    assert TraceCache.of_environment().get("key", never) == graph
    for off in (lambda: monkeypatch.setenv("PAGE4D_TRACES", ""), lambda: monkeypatch.delenv("PAGE4D_TRACES")):
        off()
        assert TraceCache.of_environment().get("key", lambda: None) is None


def test_neither_weights_nor_the_count_of_layers_change_a_key():
    config = ModelConfig.preset("tiny", depth=2, encoder_depth=1, global_layers=(1,))
    first = keys(config)
    assert keys(config, seed=1) == first
    deeper = keys(dataclasses.replace(config, depth=4, keep_layers=(2, 3), global_layers=(1, 3)))
    assert {name: deeper[name] for name in first} == first
    assert deeper["time_sa.3"] == first["time_sa.1"] and deeper["global_sa.3"] == first["global_sa.1"]
    assert len(set(first.values())) < len(first), "stages that differ in their weights alone share a trace"


@pytest.mark.parametrize(
    "change",
    [
        {"layout": Layout(3, 2, 28, 42)},
        {"layout": Layout(2, 3, 28, 42)},
        {"layout": Layout(2, 2, 42, 28)},
        {"layout": Layout(2, 2, 28, 42, 2)},
        {"precision": Precision.FLOAT16},
        {"precision": Precision.BFLOAT16},
        {"attention": AttentionChoice.NATIVE},
    ],
    ids=repr,
)
def test_another_layout_precision_or_attention_is_another_trace(change):
    config = ModelConfig.preset("tiny", depth=2, encoder_depth=1)
    own, other = keys(config), keys(config, **change)
    same = {name for name in own if own[name] == other[name]}
    # an encoder's call takes images one by one, whatever timesteps and views they are of
    assert same <= ({"encoder"} if "layout" in change else set()), same


@pytest.mark.parametrize(
    "change",
    [
        {"width": 192, "heads": 3},
        {"heads": 1},
        {"encoder_depth": 2},
        {"mask_layer": 1},
        {"mask_head": "2026"},
        {"fusion": "gate"},
        {"order": ("time", "view")},
        {"time_encoding": "alibi"},
        {"epipolar": True},
        {"epipolar": True, "epipolar_band": 10.0},
        {"epipolar": True, "epipolar_penalty": 2.0},
        {"global_strategy": "memory"},
        {"global_strategy": "memory", "memory_tokens": 5},
        {"global_strategy": "dilated"},
        {"global_strategy": "dilated", "dilations": (1,)},
        {"landmarks": 3},
        {"layer_output": "pair"},
        {"streams": 1},
    ],
    ids=repr,
)
def test_another_config_is_another_trace(change):
    """Keys of a config that differ from those of every other, by at least one stage; found by what is not shared."""
    base = {"depth": 2, "encoder_depth": 1}
    own, other = keys(ModelConfig.preset("tiny", **base)), keys(ModelConfig.preset("tiny", **{**base, **change}))
    assert own != other
