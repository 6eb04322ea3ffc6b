"""The export, end to end: files, figures, the accuracy gate, and what is left when it fails."""

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from page4d import Layout, ModelConfig
from page4d.accuracy import compare
from page4d.errors import AccuracyError, MissingBackendError, OutOfMemoryError, UsageError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.network import clip_inputs, sparse
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_engines import Backend, Pipeline
from page4d_engines.engine_folder import EngineFolder
from page4d_export import exporter, verify
from page4d_export.bench.cpu_chain import compare_chain
from page4d_export.commands.bench import app
from page4d_export.commands.clip import clip_command
from page4d_export.commands.inspect import inspect_command
from page4d_export.exporter import write_verified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_export.verify import affordable_layout
from tests.support.commands import TINY, inside, program, started
from tests.support.models import config_of, layout_of, lively, takes_keypoints


def plan_for(variant="default", precision="float32", encoder_images=None, **options):
    """Of the model and the layout that `made` has: their traces are there, once another file has asked for it."""
    config = config_of(variant, **{"encoder_depth": 2, **options})
    return ExportPlan.make(
        config, layout_of(variant, 56, 70), Precision(precision), takes_keypoints(variant), encoder_images
    )


def test_an_encoder_called_in_chunks_is_verified_so(tmp_path):
    plan = plan_for(encoder_images=2)
    manifest = write_verified(lively(plan.config), plan, tmp_path / "engines")
    assert manifest.stage("encoder").calls == 3 and manifest.stage("encoder").inputs[0].shape[0] == 2


@pytest.mark.parametrize(
    ("variant", "precision"),
    [
        ("memory", "float32"),
        ("default", "float16"),
        ("default", "bfloat16"),
        pytest.param("late", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_an_export_is_verified_and_says_so(variant, precision, tmp_path, monkeypatch):
    plan = plan_for(variant, precision)
    model = lively(plan.config)
    told = []
    manifest = write_verified(
        model, plan, tmp_path / "engines", progress=Progress(lambda what, share: told.append(share))
    )
    assert manifest == read_manifest(tmp_path / "engines") == EngineFolder.open(tmp_path / "engines").manifest
    for entry in manifest.stages:
        assert set(entry.accuracy) == {spec.name for spec in entry.outputs}
        for accuracy in entry.accuracy.values():
            assert 0 <= accuracy.relative_l2 <= plan.precision.tolerance and accuracy.nans == 0
            assert accuracy.cosine > 0.999
    chain = manifest.verification.chain
    assert "mask" in chain and any(name.startswith("layers.") for name in chain)
    assert ("memory" in chain) == (variant == "memory")
    if precision != "float32":  # 16 bits show: the figures are of the typed graph, not of a float32 computation
        assert max(a.relative_l2 for entry in manifest.stages for a in entry.accuracy.values()) > 1e-4
    assert manifest.verification.layout == manifest.layout and manifest.weights == model.weights
    assert told == sorted(told) and told[0] == 0 and told[-1] <= 1
    assert set(os.listdir(tmp_path)) == {"engines"}
    listed = {
        path.relative_to(tmp_path / "engines").as_posix()
        for path in (tmp_path / "engines").rglob("*")
        if path.is_file()
    }
    assert set(manifest.files) == listed - {"manifest.json"}

    # the chain's figure is that of a pipeline that rounds
    frames = SampleClip.rendered(plan.layout).values
    out = Pipeline.load(tmp_path / "engines", rounding=precision != "float32").run(
        frames["images"],
        mask_ext=frames["mask_ext"],
        keypoints=frames["keypoints"] if plan.keypoints else None,
        cameras=frames["fundamental"] if plan.config.epipolar else None,
    )
    monkeypatch.setattr(clip_inputs, "_rig", lambda *_: None)
    monkeypatch.setattr(clip_inputs, "fundamental", lambda _: frames["fundamental"])
    reference = model(
        frames["images"],
        torch.from_numpy(frames["mask_ext"]),
        torch.from_numpy(frames["keypoints"]) if plan.keypoints else None,
    )
    deviation = compare(out.layers[1], reference.layers[1].numpy())
    assert deviation.relative_l2 == pytest.approx(chain["layers.1"].relative_l2, rel=0.5, abs=2e-6)


def test_a_stage_beyond_its_tolerance_leaves_no_engines(tmp_path):
    plan = plan_for(precision="float16")
    with pytest.raises(
        AccuracyError,
        match=r"stage encoder departs(.|\n)*relative L2 .*\n.*allowed: relative L2 up to 1e-07 in float16",
    ):
        write_verified(lively(plan.config), plan, tmp_path / "engines", tolerance=1e-7)
    assert os.listdir(tmp_path) == []


def test_overflow_in_sixteen_bits_is_caught(tmp_path):
    """Weights that PyTorch handles in float32 and that leave float16's range: the classic silent failure."""
    plan = plan_for(precision="float16")
    model = lively(plan.config)
    model.layers[1].view_sa.block.mlp.fc1.bias += 3e4
    model.layers[1].view_sa.block.mlp.fc2.weight += 0.1
    with pytest.raises(AccuracyError, match=r"stage view_sa.1 departs(.|\n)*\b[1-9]\d* NaN"):
        write_verified(model, plan, tmp_path / "engines")
    wide = plan_for(precision="bfloat16")  # has the range
    write_verified(model, wide, tmp_path / "engines")


def test_a_wrong_weight_is_caught(tmp_path, monkeypatch):
    """The gate compares with the model, not with the file."""
    plan = plan_for()
    model = lively(plan.config)
    real = verify.OrtEngine

    class Tampered(real):
        def __init__(self, path, **options):
            super().__init__(path, **options)
            if path.name == "time_sa.0.onnx":
                model.layers[0].time_sa.block.attn.qkv.bias += 0.05

    monkeypatch.setattr(verify, "OrtEngine", Tampered)
    with pytest.raises(AccuracyError, match=r"stage time_sa\.0"):
        write_verified(model, plan, tmp_path / "engines")


def test_landmarks_of_equal_confidence_are_no_error(tmp_path, monkeypatch):
    """The reference chooses otherwise where norms differ by less than rounding, here by up to 5 %.

    The error that this causes is measured and allowed."""
    plan = plan_for(landmarks=4, global_layers=(0,))
    model, frames = lively(plan.config), SampleClip.rendered(plan.layout)
    manifest = write_verified(model, plan, tmp_path / "engines")
    assert manifest.stage("global_sa.0").ties < 1e-6, "of twelve frames none has a near tie"
    choose = sparse.largest
    monkeypatch.setattr(sparse, "largest", lambda confidence, k, doubt=0.0: choose(confidence, k, 0.05 - doubt))
    with pytest.raises(AccuracyError, match=r"stage global_sa\.0"):
        list(verify.verify(model, plan, tmp_path / "engines" / "onnx", frames, 1e-5))
    monkeypatch.setattr(verify, "DOUBT", 0.05 / Precision.FLOAT32.tolerance)
    verified = {stage.stage: stage for stage in verify.verify(model, plan, tmp_path / "engines" / "onnx", frames, 1e-5)}
    cost = verified["global_sa.0"].ties
    assert cost == pytest.approx(verified["global_sa.0"].alone["tokens"].relative_l2, rel=0.01) and cost > 1e-3
    assert all(stage.ties == 0 for name, stage in verified.items() if name != "global_sa.0")

    # and in the golden clip for whatever comes after it
    (tmp_path / "checked").mkdir()
    verified = {
        name: dataclasses.replace(stage, chained=manifest.stage(name).accuracy) for name, stage in verified.items()
    }
    gate = exporter.Gate(plan, frames, 1e-5, verified)
    golden = exporter.write_golden(tmp_path / "checked", manifest, gate, SampleClip.rendered)
    for name, limit in golden.tolerance.items():
        follows = name.startswith(("global_sa", "view_sa.1", "time_sa.1"))
        assert limit == (4 * cost if follows else 1e-5), name


def test_a_wrong_weight_among_tied_landmarks_is_caught(tmp_path, monkeypatch):
    """What ties may cost is small beside an error."""
    plan = plan_for(landmarks=4, global_layers=(0,))
    model = lively(plan.config)
    monkeypatch.setattr(verify, "DOUBT", 1e-3 / Precision.FLOAT32.tolerance)
    write_verified(model, plan, tmp_path / "engines")
    model.layers[0].global_sa.block.attn.qkv.bias += 0.05
    with pytest.raises(AccuracyError, match=r"stage global_sa\.0"):
        list(verify.verify(model, plan, tmp_path / "engines" / "onnx", SampleClip.rendered(plan.layout), 1e-5))


def test_an_engine_folder_is_replaced_and_nothing_else(tmp_path):
    plan = plan_for()
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="-o names something that is not an engine folder"):
        write_verified(lively(plan.config), plan, folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_compare_against_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5)).astype(np.float32)
    y = (x + 0.01 * rng.standard_normal((3, 5))).astype(np.float32)
    accuracy = compare(y, x)
    assert accuracy.max_abs == pytest.approx(np.abs(y - x).max())
    assert accuracy.relative_l2 == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-5)
    assert accuracy.cosine == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-6)
    y[0, 0], y[1, 1] = np.nan, np.inf
    assert compare(y, x).nans == 2


def test_a_layout_too_large_is_verified_by_a_smaller_one(tmp_path, monkeypatch):
    plan = plan_for(depth=1, encoder_depth=1, global_layers=()).at(Layout(4, 3, 56, 70))  # every stage is traced twice
    assert affordable_layout(plan) == plan.layout
    monkeypatch.setattr(verify, "matmul_rate", lambda: 1e6)  # a machine of a megaflop
    small = affordable_layout(plan)
    assert small.T == 2 and small.V == 2 and small.P < plan.layout.P
    manifest = write_verified(lively(plan.config), plan, tmp_path / "engines")
    assert manifest.layout == Layout(4, 3, 56, 70)
    assert manifest.verification.layout == small
    graphs = {f"onnx/{path.name}" for path in (tmp_path / "engines" / "onnx").glob("*.onnx")}
    assert graphs == {file for entry in manifest.stages for file in (entry.file, entry.cpu)}
    large = np.zeros((4, 3, 56, 70, 3), np.uint8)
    Pipeline.load(tmp_path / "engines").run(large)  # the engines are of the large layout


def test_the_command(tmp_path):
    done = started("page4d-export", *TINY, "--fp16", "-o", tmp_path / "engines", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest == json.loads((tmp_path / "engines" / "manifest.json").read_text())
    assert manifest["precision"] == "float16" and "seeded" in manifest["weights"] and "seeded" in done.stderr
    assert manifest["model"]["depth"] == 1
    shown = started("page4d", "inspect", tmp_path / "engines")
    assert shown.returncode == 0 and "view_sa.0" in shown.stdout and "whole chain" in shown.stdout
    assert json.loads(inside(tmp_path / "engines", "--json", function=inspect_command).stdout) == manifest


def test_the_command_on_filmed_frames(real_clip, tmp_path):
    arguments = [*TINY[:-8], "--T", 2, "--V", 4, "--height", 84, "--width", 112]
    done = inside(*arguments, "--frames", real_clip, "-o", tmp_path / "engines", "--set", "epipolar=true")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "engines").verification.frames == "clip"


def test_the_accuracy_gate_is_exit_3(tmp_path):
    done = inside(*TINY, "--fp16", "-o", tmp_path / "engines", "--tolerance", 1e-9)
    assert done.returncode == 3 and "departs from the reference" in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fp16", "--bf16"), r"--fp16 and --bf16 exclude each other"),
        (("--preset", "huge"), r"no such preset\s+got:\s+huge\s+allowed: vitl, vitb, vits, tiny"),
        (("--height", 30), r"height is not a multiple of the patch size 14\s+got:\s+30\s+allowed: 28 or 42"),
        (("--T", 0), r"T is too small"),
        (("--set", "depth"), r"--set wants NAME=VALUE"),
        (("--set", "depht=3"), r"no such option\s+got:\s+depht"),
        (
            ("--set", "time_encoding=sinus"),
            r"time_encoding has no such value\s+got:\s+sinus\s+allowed: rope, alibi, none",
        ),
        (("--encoder-images", 4), r"does not divide the clip's 6 images"),
        (("-o", "missing/engines"), r"-o lies in a folder that does not exist"),
        (("--frames", "missing"), r"missing"),
        (("--keypoints",), r"--keypoints has no effect"),
    ],
)
def test_bad_flags(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = inside(*TINY, *arguments)
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and os.listdir(tmp_path) == []


def test_a_missing_flag_is_exit_2():
    done = inside("--preset", "tiny", "--T", 2)
    assert done.returncode == 2 and "--V" in done.stderr


def test_dry_run_is_quick_and_loads_no_weights(tmp_path):
    """The real layout; and torch, which alone takes longer than the bound, is not imported."""
    arguments = ("--preset", "vitl", "--fp16", "--T", "24", "--V", "4", "--dry-run")
    code = """
import sys
from page4d_export.main import export
try:
    export()
finally:
    assert "torch" not in sys.modules
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # CPU seconds: a busy machine does not count
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    for word in (
        "encoder",
        "time_sa.0-15 (16 times)",
        "2x24x4x1374x1024",
        "97.6 TFLOP",
        "near 2^31",
        "buffer tokens.0",
        "weights 1.3 GiB",
    ):
        assert word in done.stdout, word
    document = json.loads(inside(*arguments, "--json").stdout)
    assert document["total"]["flop"] == pytest.approx(987.5e12, rel=1e-3)
    assert document["buffers"]["tokens.0"] == 2 * 24 * 4 * 1374 * 1024 * 2
    assert "view_sa.3" in document["total"]["near_limit"]
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path):
    command = [*program("page4d-export"), *map(str, TINY), "-o", tmp_path / "engines"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".engines-*/new/onnx/*.onnx")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors and os.listdir(tmp_path) == []


def test_clip_command(tmp_path):
    done = started("page4d", "clip", "--T", 2, "--V", 2, "--width", 40, "--height", 30, "-o", tmp_path / "clip")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == ["cameras.json", "depth", "frames", "masks"]
    single = inside("--T", 1, "--V", 1, "--width", 40, "--height", 30, "-o", tmp_path / "one", function=clip_command)
    assert "1 frame of 1 camera: " in single.stderr and "2 frames of 2 cameras: " in done.stderr
    again = inside("-o", tmp_path / "clip", function=clip_command)
    assert again.returncode == 2 and "-o is not empty" in again.stderr


def test_bench_command():
    def bench(*arguments):
        return inside(*arguments, function=app)

    size = ("--preset", "tiny", "--T", 3, "--V", 2, "--height", 56, "--width", 70)  # the layout of `made`: traced once
    done = bench("chain", *size, "--rounds", 2, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = {row["part"]: row for row in document["rows"]}
    assert set(rows) == {"encoder", "mask_head", "view_sa", "time_sa", "global_sa", "whole"}
    for row in rows.values():
        assert row["pytorch"] > 0 and row["engines"] > 0 and row["spread"][0] <= row["ratio"] <= row["spread"][1]
    attention = json.loads(bench("attention", "--keys", 512, "--rounds", 1, "--device", "cpu", "--json").stdout)
    assert {side["name"] for side in attention["sides"]} == {"PyTorch", "engines"}


@pytest.mark.parametrize(
    ("variant", "parts"),
    [("pi3", {"points", "confidence", "camera"}), ("page4d 2026", {"mask_head", "camera", "depth", "points"})],
)
def test_bench_of_a_published_model(variant, parts):
    """Its heads are parts of their own."""
    plan = ExportPlan.make(config_of(variant), layout_of(variant, 56, 70), Precision.FLOAT32)
    rows = {row.part: row for row in compare_chain(plan, variant, 1, 2, SILENT).rows}
    assert set(rows) == {"encoder", "time_sa", "view_sa", "whole"} | parts
    assert all(row.pytorch > 0 and row.engines > 0 for row in rows.values())


def test_bench_says_what_does_not_fit_into_memory():
    plan = ExportPlan.make(ModelConfig.preset("vggt"), Layout(2000, 1, 518, 518), Precision.FLOAT32)
    began = time.perf_counter()
    with pytest.raises(OutOfMemoryError, match=r"(?s)do not fit this machine's memory at T=2000.*GB that are free"):
        compare_chain(plan, "vggt", 1, 2, SILENT)
    assert time.perf_counter() - began < 5, "nothing is made before"


def test_bench_of_the_chain_on_a_gpu(monkeypatch, capsys):
    """Its bookkeeping, on the CPU's device; what cannot be compiled is missing and said to be."""
    from page4d_export.bench import gpu_chain as bench

    def refuse(self):
        raise RuntimeError("no compiler\nand why")

    monkeypatch.setattr(bench.Eager, "compile", refuse)
    plan = plan_for(precision="float16")
    benchmark = bench.compare_gpu_chain(plan, "tiny", 2, Backend.ONNXRUNTIME, SILENT, device="cpu")
    assert [side.name for side in benchmark.sides] == ["engines", "PyTorch"]
    assert benchmark.absent == {"torch.compile": "no compiler"}
    assert benchmark.sides[0].speedup == 1.0
    assert all(low <= side.milliseconds <= high for side in benchmark.sides for low, high in [side.spread])
    assert {part.kind for part in benchmark.parts} == {"encoder", "mask_head", "view_sa", "time_sa", "global_sa"}
    assert all(part.engines > 0 and part.eager > 0 for part in benchmark.parts)
    assert all(accuracy.relative_l2 < 5e-3 and accuracy.nans == 0 for accuracy in benchmark.differences.values())
    assert len(benchmark.differences) == 2
    bench.print_gpu_chain(benchmark)
    assert "engines: onnxruntime, computing in float32" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_why_an_engine_does_not_run_is_in_the_record(made, tmp_path):
    from page4d_export.bench.gpu_chain import _pipeline

    made_ = made("default", "float16")
    absent = {}
    with pytest.raises(MissingBackendError, match="no engine runs on this GPU"):
        folder = shutil.copytree(made_.folder, tmp_path / "engines")
        _pipeline(folder, made_.plan, Backend.AUTO, absent, SILENT)
    assert list(absent) == ["engines, tensorrt", "engines, cuda"]
    assert "no GPU driver answers" in absent["engines, tensorrt"]
