"""TensorRT plans in engine folders: built by TensorRT-RTX without a GPU, with an export or afterwards."""

import contextlib
import os
import shutil

import msgspec
import onnx
import pytest

from page4d.errors import AccuracyError
from page4d.files import sha256
from page4d.manifest import Flavor
from page4d.manifest_checks.manifest_file import read_manifest, write_manifest
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import Progress
from page4d_engines import Pipeline, console
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.self_check import self_check
from page4d_engines.tensorrt.builder import BuildOptions, attention_nodes
from page4d_engines.tensorrt.plans import PlanBuildRequest, build_into, library_for
from page4d_export import exporter
from page4d_plugins.kernel_pack import shipped
from tests.support.commands import TINY, inside
from tests.support.exports import content, without_plugins
from tests.support.models import EXPORTED

CHIPS = ("sm_89", "sm_120")


UNFUSED = [  # the epipolar prior, and key segments
    ("memory", r"(?s)plan of view_sa\.0 holds an n x n tensor.*--attention plugin"),
    ("dilated", r"(?s)plan of time_sa\.0 holds an n x n tensor.*--attention plugin"),
]


def plan_request(precision=Precision.FLOAT16, targets=CHIPS, native=False):
    return PlanBuildRequest(library_for(Flavor.RTX), BuildOptions(targets), precision, native)


def of_each_kind(manifest):
    """A stage of every kind and signature."""
    entries = {(entry.kind, entry.inputs, entry.outputs): entry for entry in manifest.stages}
    return msgspec.structs.replace(manifest, stages=tuple(entries.values()))


def built(folder, target, native=False):
    """Plans of a stage of every kind, and the attentions that each graph has."""
    manifest = of_each_kind(read_manifest(folder))
    plans = plan_request(manifest.precision, native=native).build(folder, manifest, target)
    return plans, {
        entry.name: attention_nodes(onnx.load(folder / entry.file, load_external_data=False))[0]
        for entry in manifest.stages
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A float16 folder as the command writes it without a flag on plans, the export's progress, and its stderr."""
    folder = tmp_path_factory.mktemp("exported") / "engines"
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            console,
            "progress",
            lambda quiet: contextlib.nullcontext(Progress(lambda what, share: told.append((what, share)))),
        )
        done = inside(*TINY, "--fp16", "--encoder-images", 3, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder, told, done.stderr


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of it."""
    return shutil.copytree(exported[0], tmp_path / "engines")


@pytest.fixture
def native(made, tmp_path):
    """A folder as `--attention native` writes it: its nodes name no plugin."""

    def make(variant):
        path = shutil.copytree(made(variant, "float16").folder, tmp_path / "native")
        manifest = read_manifest(path)
        for entry in manifest.stages:
            without_plugins(path / entry.file, path / entry.file)
        files = {name: sha256(path / name) for name in manifest.files}
        write_manifest(path, msgspec.structs.replace(manifest, attention=AttentionChoice.NATIVE, files=files))
        return path

    return make


# ---- an export with plans


def test_an_export_writes_plans(exported):
    folder, _, stderr = exported
    manifest = EngineFolder.open(folder).manifest  # every file has the hash that the manifest says
    plans, library = manifest.plans, library_for(None)
    assert (plans.library, plans.version) == (library.flavor, ".".join(map(str, library.version)))
    assert library.flavor is not Flavor.RTX or plans.chips == ()
    assert f"plans: {library}, for {', '.join(plans.chips) or 'sm_80 and newer'}" in stderr
    assert plans.kernels == shipped().header.source and plans.optimization_level is None
    assert list(plans.stages) == [entry.name for entry in manifest.stages]
    for name, entry in plans.stages.items():
        assert entry.file == f"{name}.plan" and entry.seconds > 0
        assert manifest.files[entry.file] == sha256(folder / entry.file) and (folder / entry.file).stat().st_size > 1e4
        assert (entry.plugins, entry.fused) == ({"mask_head": 0, "encoder": 2}.get(name, 1), 0)
    assert set(manifest.files) == {name for name, digest in content(folder).items() if digest} - {"manifest.json"}
    assert manifest.golden.expected is not None, "it is verified as one without plans is"
    assert os.listdir(folder.parent) == ["engines"]


def test_an_export_passes_its_own_check(exported):
    """With an encoder that is called in chunks."""
    folder = EngineFolder.open(exported[0])
    assert folder.manifest.stage("encoder").calls == 2
    result = self_check(folder, Pipeline.of(folder, Backend.ONNXRUNTIME), bisect=True)
    result.require()
    outputs = [(entry.name, spec.name) for entry in folder.manifest.stages for spec in entry.outputs]
    for rows in (result.chain, result.alone):
        assert [(row.stage, row.output) for row in rows] == outputs


def test_progress_goes_on_through_the_plans(exported):
    folder, told, _ = exported
    shares = [share for what, share in told if not what.startswith("weights")]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] <= 1
    building = [(what, share) for what, share in told if what.startswith("building ")]
    names = [entry.name for entry in read_manifest(folder).stages]
    assert list(dict.fromkeys(what.split(":")[0].removeprefix("building ") for what, _ in building)) == names
    assert building[0][1] == pytest.approx(2 / 3), "exporting, verifying and building count alike"


LATE = pytest.param("late", marks=pytest.mark.slow)  # it has no attention that the others lack


@pytest.mark.parametrize("variant", [*(variant for variant in EXPORTED if variant != "late"), LATE])
def test_every_attention_becomes_a_plugin(made, variant, tmp_path):
    plans, nodes = built(made(variant, "float16").folder, tmp_path)
    assert {name: (entry.plugins, entry.fused) for name, entry in plans.stages.items()} == {
        name: (len(attentions), 0) for name, attentions in nodes.items()
    }
    assert plans.kernels == shipped().header.source
    files = {entry.file for entry in plans.stages.values()}
    assert set(os.listdir(tmp_path)) == files, "TensorRT-RTX has no timing cache"


@pytest.mark.parametrize("variant", ["default", LATE])
def test_every_attention_is_fused_where_that_was_asked(native, variant, tmp_path):
    plans, nodes = built(native(variant), tmp_path, native=True)
    expected = {name: (0, sum(node.parts for node in attentions)) for name, attentions in nodes.items()}
    assert {name: (entry.plugins, entry.fused) for name, entry in plans.stages.items()} == expected
    assert sum(fused for _, fused in expected.values()) > 4
    assert plans.kernels is None, "no kernel of ours is in them"


@pytest.mark.parametrize(("variant", "says"), UNFUSED)
def test_what_tensorrt_does_not_fuse_leaves_no_engines(made, native, monkeypatch, variant, says, tmp_path):
    made_, ready = made(variant, "float16"), native(variant)

    class Ready(exporter.OnnxExporter):
        """Its files are there: making them takes seconds a stage."""

        def write(self, stage, change=None):
            for file in (ready / "onnx").glob(f"{stage.name}.onnx*"):
                shutil.copy(file, self.folder)
            return self.folder / f"{stage.name}.onnx"

    monkeypatch.setattr(exporter, "OnnxExporter", Ready)
    (tmp_path / "out").mkdir()
    with pytest.raises(AccuracyError, match=says):
        exporter.write_verified(made_.model, made_.plan, tmp_path / "out" / "engines", plans=plan_request(native=True))
    assert os.listdir(tmp_path / "out") == []


# ---- plans of a folder that is there


def test_plans_come_into_a_folder(made, tmp_path):
    path = shutil.copytree(made("default", "bfloat16").folder, tmp_path / "engines")
    before, old = content(path), read_manifest(path)
    shares = []
    manifest = build_into(
        EngineFolder.open(path), plan_request(Precision.BFLOAT16), Progress(lambda what, share: shares.append(share))
    )
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] <= 1
    assert EngineFolder.open(path).manifest == manifest
    assert manifest.plans.chips == CHIPS
    assert all(entry.plugins for name, entry in manifest.plans.stages.items() if name != "mask_head")
    assert msgspec.structs.replace(manifest, plans=None, files=old.files) == old
    now = content(path)
    assert {name for name, digest in before.items() if now.get(name) != digest} == {"manifest.json"}
    assert now.keys() - before.keys() == {f"{entry.name}.plan" for entry in manifest.stages}, "no staging is left"


def test_plans_take_the_place_of_older_ones(folder):
    """Of a name that the new ones do not have, too."""
    old = read_manifest(folder)
    entries = dict(old.plans.stages)
    (folder / "plans").mkdir()
    (folder / "encoder.plan").rename(folder / "plans" / "encoder.plan")
    entries["encoder"] = msgspec.structs.replace(entries["encoder"], file="plans/encoder.plan")
    files = {"plans/encoder.plan" if name == "encoder.plan" else name: digest for name, digest in old.files.items()}
    write_manifest(
        folder, msgspec.structs.replace(old, plans=msgspec.structs.replace(old.plans, stages=entries), files=files)
    )
    before = content(folder)
    manifest = build_into(EngineFolder.open(folder), plan_request(targets=("sm_86",)))
    assert EngineFolder.open(folder).manifest == manifest and manifest.plans.chips == ("sm_86",)
    now = content(folder)
    assert now.keys() ^ before.keys() == {"plans", "plans/encoder.plan", "encoder.plan"}
    assert "plans/encoder.plan" not in manifest.files
    assert all(now[entry.file] != before.get(entry.file) for entry in manifest.plans.stages.values())


@pytest.mark.parametrize("where", ["building time_sa.0", "building view_sa.0: "])
def test_an_interrupted_build_changes_nothing(folder, where):
    """Between stages, and inside the builder."""
    before = content(folder)

    def interrupted(what, share):
        if what.startswith(where):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_into(EngineFolder.open(folder), plan_request(targets=()), Progress(interrupted))
    assert content(folder) == before


@pytest.mark.parametrize(("variant", "says"), UNFUSED)
def test_a_failed_build_changes_nothing(native, variant, says):
    path = native(variant)
    before = content(path)
    with pytest.raises(AccuracyError, match=says):
        build_into(EngineFolder.open(path), plan_request(native=True))
    assert content(path) == before
