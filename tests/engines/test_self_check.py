"""`page4d verify`: the golden clip of an engine folder, stage by stage, and what is said of a stage that departs."""

import json
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors.numpy import load_file

from page4d import Layout, ModelConfig
from page4d.accuracy import SAMPLES, sampled
from page4d.errors import AccuracyError, EngineError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort import cpu_engine
from page4d_engines.ort.cpu_graph import write_cpu_graphs
from page4d_engines.self_check import self_check
from page4d_export import exporter, verify
from page4d_export.commands.verify import verify_command
from page4d_export.plan.export_plan import ExportPlan
from tests.support.commands import inside
from tests.support.examples import examples
from tests.support.exports import rewrite
from tests.support.models import SMALL, lively, takes_keypoints

# ---- the sample


@examples(60)
@given(st.integers(1, 4000), st.integers(1, 300))
def test_a_sample_is_of_distinct_places(size, samples):
    places = [i * 2654435761 % size for i in range(min(size, samples))]
    assert len(set(places)) == len(places)
    np.testing.assert_array_equal(sampled(np.arange(size, dtype=np.int32), samples), places)


def test_a_sample_of_a_large_tensor():
    array = np.random.default_rng(0).standard_normal((3, 70, 100)).astype(np.float16)
    sample = sampled(array)
    flat = array.ravel()
    np.testing.assert_array_equal(sample, [flat[i * 2654435761 % flat.size] for i in range(SAMPLES)])
    assert sample.dtype == np.float32 and sample.shape == (SAMPLES,)
    small = array[:, :, :2]
    assert sorted(sampled(small)) == sorted(small.ravel().astype(np.float32)), "of a small one all"
    assert sampled(np.zeros((0, 3), np.float32)).shape == (0,)


# ---- folders


def run(path, bisect=False, progress=SILENT, backend="onnxruntime"):
    folder = EngineFolder.open(path)
    return self_check(folder, Pipeline.of(folder, Backend(backend)), bisect, progress)


def invoke(path, *arguments):
    return inside(path, "--backend", "onnxruntime", *arguments, function=verify_command)


def outputs_of(manifest):
    return [(entry.name, spec.name) for entry in manifest.stages for spec in entry.outputs]


@pytest.mark.parametrize(
    ("variant", "precision"),
    [("default", "float32"), ("default", "float16"), ("memory", "float32"), ("pi3", "float32"), ("vggt", "float32")],
)
def test_engines_as_they_should_be(checked, variant, precision, on_cpu):
    """Every output of every stage; also with memory, keypoints, the epipolar prior, Pi3's heads, heads of chunks."""
    path = checked(variant, precision)
    manifest, told = read_manifest(path), []
    inputs = set(load_file(path / manifest.golden.inputs))
    assert inputs == {name for name in ("images", "mask_ext", "keypoints", "fundamental") if manifest.reads(name)}
    assert takes_keypoints(variant) == ("keypoints" in inputs)
    result = run(path, True, Progress(lambda what, share: told.append((what, share))), on_cpu)
    result.require()
    assert result.first() is None and result.backend == on_cpu and result.described.lower().startswith(on_cpu)
    assert result.seconds > 0
    assert (
        [(row.stage, row.output) for row in result.chain]
        == outputs_of(manifest)
        == [(row.stage, row.output) for row in result.alone]
    )
    computing = Pipeline.of(EngineFolder.open(path), Backend(on_cpu)).precision
    # where a machine computes float16 in bfloat16, and says so, errors are those of bfloat16
    more = max(0.0, computing.tolerance - Precision(precision).tolerance)
    assert more == 0 or str(computing) in result.described
    for row in result.chain:
        assert row.allowed == manifest.golden.tolerance[f"{row.stage}/{row.output}"] + more
        assert row.allowed >= Precision(precision).tolerance
        assert row.passed and row.accuracy.nans == 0
    assert any(row.accuracy.relative_l2 > 0 for row in result.chain), "it is compared with something else than itself"
    assert {row.allowed for row in result.alone} == {Precision(precision).tolerance + more}
    near = 1e-6 if on_cpu == "onnxruntime" else 5e-6 if computing is Precision.FLOAT32 else 3e-2
    assert max(row.accuracy.relative_l2 for row in result.alone) < near
    calls = [f"{on_cpu}: {entry.name}" for entry in manifest.stages for _ in range(entry.calls)]
    assert [what for what, _ in told] == calls
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] < 1


def test_a_changed_weight_is_found(checked, tmp_path):
    path = shutil.copytree(checked(), tmp_path / "engines")
    file = path / "onnx" / "time_sa.0.onnx"
    model = onnx.load(file)
    tensor = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    onnx.save(model, file)
    write_cpu_graphs(file)
    rewrite(path, read_manifest(path))
    result = run(path)
    assert result.alone == []
    row = result.first()
    assert (row.stage, row.output, row.passed) == ("time_sa.0", "tokens", False)
    before = [entry.name for entry in read_manifest(path).stages]
    before = before[: before.index("time_sa.0")]
    assert all(row.passed for row in result.chain if row.stage in before) and before
    with pytest.raises(
        AccuracyError,
        match=r"(?s)time_sa\.0 departs in the chain in its output 'tokens', on onnxruntime.*relative L2.*--bisect",
    ):
        result.require()
    assert all(row.passed for row in run(path, bisect=True).alone), (
        "the file computes what it says: ONNX Runtime against itself"
    )

    done = invoke(path)
    assert done.returncode == 3 and "time_sa.0 departs in the chain" in done.stderr, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "departs" in line and "time_sa.0" in line)
    assert "tokens" in line
    done = invoke(path, "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["chain"], "the document is there, too"


def departing(monkeypatch, name, disturb):
    """A backend that computes one stage wrongly."""
    real = cpu_engine.OrtEngine

    class Departing(real):
        def __init__(self, path, *arguments, **options):
            super().__init__(path, *arguments, **options)
            self.departs = path.name == f"{name}.cpu.onnx"

        def bind(self, inputs, outputs):
            call = super().bind(inputs, outputs)

            def wrong():
                call()
                for array in outputs.values():
                    disturb(array)

            return wrong if self.departs else call

    monkeypatch.setattr(cpu_engine, "OrtEngine", Departing)


def larger(array):
    array *= 1.05


@pytest.mark.parametrize(
    ("variant", "stage"), [("default", "time_sa.0"), ("default", "encoder"), ("memory", "global_sa.0")]
)
def test_a_bisection_names_the_stage(checked, monkeypatch, variant, stage):
    departing(monkeypatch, stage, larger)
    result = run(checked(variant), bisect=True)
    assert {row.stage for row in result.alone if not row.passed} == {stage}
    assert result.first().stage == stage and result.first() in result.alone
    assert result.first().accuracy.relative_l2 == pytest.approx(0.05, rel=1e-3)
    wrong = [row.stage for row in result.chain if not row.passed]
    assert wrong[0] == stage and len(set(wrong)) > 1, "what follows departs in the chain, but not by itself"
    with pytest.raises(
        AccuracyError, match=rf"(?s){stage} departs by itself in its output 'tokens'.*relative L2 5\.00e-02"
    ):
        result.require()
    with pytest.raises(AccuracyError, match=rf"(?s){stage} departs in the chain.*--bisect"):
        run(checked(variant)).require()


@pytest.mark.parametrize("bisect", [False, True])
def test_what_is_not_finite_is_reported(checked, monkeypatch, bisect):
    def spoil(array):
        array.reshape(-1)[0] = np.nan  # a place that every sample has

    departing(monkeypatch, "view_sa.1", spoil)
    result = run(checked(), bisect)
    row = result.first()
    assert row.stage == "view_sa.1" and row.accuracy.nans == 1 and not row.passed
    with pytest.raises(AccuracyError, match=r"(?s)view_sa\.1 departs.*, 1 not finite"):
        result.require()


def test_a_folder_without_a_golden_clip(made):
    for bisect in (False, True):
        with pytest.raises(EngineError, match=r"(?s)has no golden clip.*page4d-export again"):
            run(made().folder, bisect)
    done = invoke(made().folder)
    assert done.returncode == 4 and "no golden clip" in done.stderr, done.stderr


def test_without_reference_values_there_is_the_bisection(tmp_path, monkeypatch):
    """A layout too large for the reference: the clip is of the engines' layout, and the encoder is called in chunks."""
    monkeypatch.setattr(verify, "matmul_rate", lambda: 1e5)  # a slow machine
    layout = Layout(6, 1, 28, 42)
    config = ModelConfig.preset("vggt", **SMALL, depth=1, encoder_depth=1)
    plan = ExportPlan.make(config, layout, Precision.FLOAT32, encoder_images=2)
    manifest = exporter.write_verified(lively(config), plan, tmp_path / "engines")
    assert manifest.verification.layout != manifest.layout and manifest.stage("encoder").calls == 3
    assert manifest.golden.expected is None and manifest.golden.tolerance == {}
    values = load_file(tmp_path / "engines" / manifest.golden.inputs)
    assert {name: array.shape for name, array in values.items()} == {"images": layout.images_shape}
    assert [name for name in manifest.files if name.startswith("golden/")] == [manifest.golden.inputs]
    with pytest.raises(EngineError, match=r"(?s)no reference values: its layout was too large.*--bisect"):
        run(tmp_path / "engines")
    shares = []
    result = run(tmp_path / "engines", bisect=True, progress=Progress(lambda what, share: shares.append(share)))
    result.require()
    assert result.chain == [] and [(row.stage, row.output) for row in result.alone] == outputs_of(manifest)
    assert len(shares) == 3 + len(manifest.stages) - 1 and shares == sorted(shares) and shares[-1] < 1
    departing(monkeypatch, "encoder", larger)
    assert [row.stage for row in run(tmp_path / "engines", bisect=True).alone if not row.passed] == ["encoder"]


# ---- the command


def test_the_command_says_what_was_found(checked):
    path = checked()
    done = invoke(path, "--bisect", "--json")
    assert done.returncode == 0 and "all stages as they should be, on onnxruntime" in done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"backend", "described", "seconds", "chain", "alone"}
    assert document["backend"] == "onnxruntime"
    assert [(row["stage"], row["output"]) for row in document["chain"]] == outputs_of(read_manifest(path))
    assert len(document["alone"]) == len(document["chain"])
    for row in (*document["chain"], *document["alone"]):
        assert set(row) == {"stage", "output", "accuracy", "allowed"}
        assert set(row["accuracy"]) == {"cosine", "max_abs", "relative_l2", "nans"}

    done = invoke(path)
    assert done.returncode == 0 and "departs" not in done.stdout
    for stage, output in outputs_of(read_manifest(path)):
        assert any(stage in line and output in line and "reference, chain" in line for line in done.stdout.splitlines())


def test_the_command_refuses(checked, tmp_path):
    done = invoke(checked(), "--backend", "abacus")
    assert done.returncode == 2 and "not one of 'auto', 'onnxruntime', 'openvino', 'cuda', 'tensorrt'" in done.stderr, (
        done.stderr
    )
    done = invoke(tmp_path / "missing")
    assert done.returncode == 4 and "no such engine folder" in done.stderr, done.stderr
