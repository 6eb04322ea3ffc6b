"""Exports of published models with sparse attention: what they compute, what they cost, and the gate."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from page4d import Layout, ModelConfig, Page4D
from page4d.accuracy import compare
from page4d.config import Order
from page4d.errors import AccuracyError, UsageError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines.pipeline import Pipeline
from page4d_export.export_request import ExportRequest, export
from page4d_export.exporter import write_verified
from page4d_export.model_source import ModelSource
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_export.tracing.trace_cache import TraceCache, trace_key
from tests.support.commands import inside, refused
from tests.support.models import config_of, layout_of, lively

H, W = 56, 70
SPARSE = ["vggt", "pi3", "da3", "page4d 2026"]


def sparse(variant, one_in=4, layers=None):
    return dataclasses.replace(config_of(variant), sparse_attention=one_in, sparse_layers=layers)


def plan_of(config, layout, precision=Precision.FLOAT32, **options):
    return ExportPlan.make(config, layout, precision, **options)


@pytest.mark.parametrize(
    ("variant", "precision"),
    [
        ("vggt", "float32"),
        ("page4d 2026", "float32"),
        pytest.param("vggt", "float16", marks=pytest.mark.slow),
        pytest.param("vggt", "int8", marks=pytest.mark.slow),
        *(pytest.param(variant, "float32", marks=pytest.mark.slow) for variant in ("pi3", "da3")),
    ],
)
def test_engines_equal_the_sparse_reference_and_say_how_far_the_exact_one_is(variant, precision, tmp_path):
    config, layout = sparse(variant), layout_of(variant, H, W)
    plan, model = plan_of(config, layout, Precision(precision)), lively(config)
    manifest = write_verified(model, plan, tmp_path / "engines", tolerance=1.0)
    assert manifest == read_manifest(tmp_path / "engines")
    checked = manifest.verification
    # the engines against a reference as sparse as they are: as close as engines without sparse attention
    assert checked.tolerance == plan.precision.tolerance
    for entry in manifest.stages:
        assert all(accuracy.relative_l2 <= checked.tolerance for accuracy in entry.accuracy.values())
    price = checked.sparse
    assert (price.one_in, price.layers, price.tolerance) == (4, tuple(range(config.depth)), 1.0)
    assert price.flop == plan.flop < price.exact_flop == plan_of(config.exact, layout).flop
    assert set(price.chain) == set(checked.chain)

    # the same figures from whole models and the pipeline, on what the export verified with
    images = SampleClip.rendered(plan.layout).values["images"]
    exact = model.exact()(images)
    out = Pipeline.load(tmp_path / "engines", "onnxruntime").run(images)
    last = config.depth - 1
    tokens = [price.chain[name].relative_l2 for name in price.chain if name.startswith(f"layers.{last}")]
    measured = compare(out.layers[last], exact.layers[last].numpy()).relative_l2
    assert min(tokens) * 0.9 <= measured <= max(tokens) * 1.1 and measured > 1e-3
    if "depth" in price.chain:
        measured = compare(out.depth, exact.depth.numpy()).relative_l2
        assert measured == pytest.approx(price.chain["depth"].relative_l2, rel=0.05)


def test_engines_with_absent_views_can_be_sparse(tmp_path):
    config, layout = sparse("page4d 2026", layers=(10, 11)), layout_of("page4d 2026", 28, 42)
    plan = plan_of(config, layout, absent_views=True)
    manifest = write_verified(lively(config), plan, tmp_path / "engines", tolerance=1.0)
    assert manifest.reads("present") and manifest.verification.sparse.layers == (10, 11)


# ---- the gate


def test_a_sparse_model_too_far_from_the_exact_one_leaves_no_engines(tmp_path):
    config = sparse("vggt")
    plan = plan_of(config, layout_of("vggt", H, W))
    message = (
        r"departs from itself in .*\n.*layers.1/time_sa.1 (.|\n)*relative L2 up to 1e-05(.|\n)*fewer --sparse-layers"
    )
    with pytest.raises(AccuracyError, match=message):
        write_verified(lively(config), plan, tmp_path / "engines", tolerance=1e-5)
    assert os.listdir(tmp_path) == []


def test_without_a_tolerance_nothing_is_exported(tmp_path):
    config = sparse("vggt")
    model, plan = Page4D(config), plan_of(config, layout_of("vggt", H, W))
    request = ExportRequest(source=ModelSource.of(model), plan=plan, out=tmp_path / "engines")
    for refuse in (
        request.check,
        lambda: write_verified(model, plan, tmp_path / "engines"),
        lambda: export(model, T=3, V=1, height=H, width=W, out=tmp_path / "engines"),
    ):
        with pytest.raises(UsageError, match=r"--sparse-attention 4 without --tolerance"):
            refuse()
    assert os.listdir(tmp_path) == []


VGGT = ("--preset", "vggt", "--set", "width=128", "--set", "heads=2", "--set", "encoder_depth=1", "--set", "depth=2")
SIZES = ("--T", 3, "--V", 1, "--height", H, "--width", W, "--no-build")


def test_the_command_prints_the_price(tmp_path):
    flags = ("--sparse-attention", 9, "--sparse-layers", "1", "--tolerance", 1)
    done = inside(*VGGT, *SIZES, *flags, "-o", tmp_path / "engines")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stderr.split())
    assert "sparse attention: one in 9 patches of other images, in 1 layer, 1; " in words
    assert "error against the exact model up to " in words and "against the exact model: depth" in words
    price = read_manifest(tmp_path / "engines").verification.sparse
    assert price.one_in == 9 and price.layers == (1,)


def test_the_command_ends_with_3_where_the_price_is_too_high(tmp_path):
    done = inside(*VGGT, *SIZES, "--sparse-attention", 4, "--tolerance", 1e-6, "--quiet", "-o", tmp_path / "engines")
    refused(done, 3, "with sparse attention the model departs from itself")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sparse-attention", 4, "--no-build"), "--sparse-attention 4 without --tolerance"),
        (("--sparse-attention", 6, "--tolerance", 0.1), r"sparse_attention is out of range\n.*6"),
        (("--sparse-layers", "all"), "--sparse-layers has no effect alone"),
        (("--sparse-attention", 4, "--sparse-layers", "3-x"), "all, or numbers: 4,8-23"),
        (("--sparse-attention", 4, "--sparse-layers", "1-2"), "layers 0 to 1"),
        (("--sparse-attention", 4, "--T", 1, "--tolerance", 0.1), "a clip is a single image"),
    ],
)
def test_the_command_refuses(flags, message, tmp_path):
    done = inside(*VGGT, *SIZES, *flags, "--quiet", "-o", tmp_path / "engines")
    refused(done, 2, message)


# ---- the plan


def test_a_dry_run_says_what_is_saved():
    flags = ("--preset", "vggt", "--T", 50, "--V", 1, "--sparse-attention", 4, "--dry-run")
    done = inside(*flags)
    assert (
        "one in 4 patches of other images, in 24 layers, 0-23; 303.5 TFLOP a window instead of 637.0 TFLOP: 52% saved"
        in " ".join(done.stdout.split())
    )
    document = json.loads(inside(*flags, "--json").stdout)
    assert document["total"]["flop"] < 0.5 * document["total"]["exact_flop"]
    assert "exact_flop" not in json.loads(inside(*flags[:6], "--dry-run", "--json").stdout)["total"]


@pytest.mark.parametrize("variant", SPARSE)
def test_attention_costs_the_pairs_that_it_computes(variant):
    """2 products of 2 FLOP for every channel of every pair of a query and a key; linear layers cost as before."""
    layout = layout_of(variant, H, W)
    config = sparse(variant, 4, (1,))
    plan, exact = plan_of(config, layout), plan_of(config.exact, layout)
    layout, images = plan.layout, layout.frames
    kept = layout.special + 2 * 3  # of 4 x 5 patches
    block = "time" if config.global_block is Order.TIME else "view"
    for name, flop in plan.flop_by_stage.items():
        if name == f"{block}_sa.1":
            keys = layout.N + (images - 1) * kept
            assert flop.attention == 4 * config.width * images * layout.N * keys
            assert exact.flop_by_stage[name].attention == 4 * config.width * (images * layout.N) ** 2
            assert flop.linears == exact.flop_by_stage[name].linears
        else:
            assert flop == exact.flop_by_stage[name]
    assert plan.unfused() == [f"{block}_sa.1"] and exact.unfused() == []


# ---- graphs


def graphs(config, layout, folder):
    """Trace keys and ONNX files of all stages."""
    folder.mkdir()
    plan, model = plan_of(config, layout), Page4D(config, seed=2)
    keys, files, cache = {}, {}, TraceCache.of_environment()
    for name, stage in stages_of(model, plan).items():
        keys[name] = trace_key(stage, stage.module, plan.attention, config.head_dim)
        files[name] = OnnxExporter(folder, config.head_dim, plan.attention, cache).write(stage).read_bytes()
    return keys, files


def test_where_nothing_is_sparse_graphs_and_keys_are_as_before(tmp_path):
    config = ModelConfig.preset("vggt", width=64, heads=1, encoder_depth=1, depth=2, predictions=())
    layout = Layout(3, 1, 28, 42)
    exact_keys, exact_files = graphs(config, layout, tmp_path / "exact")
    off = dataclasses.replace(config, sparse_attention=1)
    assert graphs(off, layout, tmp_path / "off") == (exact_keys, exact_files)
    keys, files = graphs(dataclasses.replace(config, sparse_attention=4, sparse_layers=(1,)), layout, tmp_path / "one")
    assert {name for name in keys if keys[name] != exact_keys[name]} == {"time_sa.1"}
    assert {name for name in files if files[name] != exact_files[name]} == {"time_sa.1"}
    other = dataclasses.replace(config, sparse_attention=9, sparse_layers=(1,))
    assert graphs(other, layout, tmp_path / "nine")[0]["time_sa.1"] != keys["time_sa.1"]


def test_a_stage_is_the_models_block():
    config = sparse("pi3")
    model, layout = lively(config), layout_of("pi3", H, W)
    plan = plan_of(config, layout)
    stage = stages_of(model, plan)["view_sa.1"]
    tokens = torch.from_numpy(np.random.default_rng(0).normal(size=stage.inputs[0].shape).astype(np.float32))
    expected = model.layers[1].view_sa(tokens[:, None], plan.layout)
    assert torch.equal(stage.module(tokens), expected[:, 0])
