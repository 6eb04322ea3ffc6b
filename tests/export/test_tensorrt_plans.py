"""TensorRT plans in engine folders: built by TensorRT-RTX without a GPU, with an export or afterwards; what the flags
mean; what is left when it fails."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import msgspec
import onnx
import pytest

from page4d.errors import AccuracyError
from page4d.files import sha256
from page4d.manifest import Flavor
from page4d.manifest_file import read_manifest, write_manifest
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import Progress
from page4d_engines import Pipeline, console
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.self_check import self_check
from page4d_engines.tensorrt.builder import BuildOptions, attention_nodes
from page4d_engines.tensorrt.plans import PLUGINS, PlanBuildRequest, build_into, library_for
from page4d_export import exporter
from page4d_export.commands.build_flags import BuildFlags, PlanBuilder
from page4d_plugins.kernel_pack import shipped
from tests.support.commands import TINY, inside
from tests.support.exports import without_plugins
from tests.support.models import EXPORTED

CHIPS = ("sm_89", "sm_120")
UNFUSED = [  # the epipolar prior, and key segments
    ("memory", r"(?s)plan of view_sa\.0 holds an n x n tensor.*--attention plugin"),
    ("dilated", r"(?s)plan of time_sa\.0 holds an n x n tensor.*--attention plugin"),
]


def wish(precision=Precision.FLOAT16, targets=CHIPS, native=False):
    return PlanBuildRequest(library_for(Flavor.RTX), BuildOptions(targets), precision, native)


def content(folder):
    return {path.relative_to(folder).as_posix(): path.is_file() and sha256(path) for path in folder.rglob("*")}


def of_each_kind(manifest):
    """A stage of every kind and signature."""
    found = {(entry.kind, entry.inputs, entry.outputs): entry for entry in manifest.stages}
    return msgspec.structs.replace(manifest, stages=tuple(found.values()))


def built(folder, target, native=False):
    """Plans of a stage of every kind, and the attentions that each graph has."""
    manifest = of_each_kind(read_manifest(folder))
    plans = wish(manifest.precision, native=native).build(folder, manifest, target)
    return plans, {
        entry.name: attention_nodes(onnx.load(folder / entry.file, load_external_data=False))[0]
        for entry in manifest.stages
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A float16 folder as the command writes it without a flag on plans, and what the export told on the way."""
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
def bare(made, tmp_path):
    """Copies of a folder without plans."""
    return lambda precision="float16": shutil.copytree(made("default", precision).folder, tmp_path / "engines")


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
    folder, _, said = exported
    manifest = EngineFolder.open(folder).manifest  # every file has the hash that the manifest says
    plans, library = manifest.plans, library_for(None)
    assert (plans.library, plans.version) == (library.flavor, ".".join(map(str, library.version)))
    assert library.flavor is not Flavor.RTX or plans.chips == ()
    assert f"plans: {library}, for {', '.join(plans.chips) or 'sm_80 and newer'}" in said
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
    found = self_check(folder, Pipeline.of(folder, Backend.ONNXRUNTIME), bisect=True)
    found.require()
    outputs = [(entry.name, spec.name) for entry in folder.manifest.stages for spec in entry.outputs]
    assert (
        [(row.stage, row.output) for row in found.chain] == outputs == [(row.stage, row.output) for row in found.alone]
    )


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
        name: (len(found), 0) for name, found in nodes.items()
    }
    assert plans.kernels == shipped().header.source
    assert set(os.listdir(tmp_path)) == {entry.file for entry in plans.stages.values()}, (
        "TensorRT-RTX has no timing cache"
    )


@pytest.mark.parametrize("variant", ["default", LATE])
def test_every_attention_is_fused_where_that_was_asked(native, variant, tmp_path):
    plans, nodes = built(native(variant), tmp_path, native=True)
    expected = {name: (0, sum(node.parts for node in found)) for name, found in nodes.items()}
    assert {name: (entry.plugins, entry.fused) for name, entry in plans.stages.items()} == expected and sum(
        fused for _, fused in expected.values()
    ) > 4
    assert plans.kernels is None, "no kernel of ours is in them"


@pytest.mark.parametrize(("variant", "says"), UNFUSED)
def test_what_tensorrt_does_not_fuse_leaves_no_engines(made, native, monkeypatch, variant, says, tmp_path):
    made_, ready = made(variant, "float16"), native(variant)

    class Ready(exporter.OnnxExporter):
        """Its files are there: making them takes seconds a stage."""

        def write(self, stage, change=None):
            for file in (ready / "onnx").glob(f"{stage.name}.onnx*"):
                shutil.copy(file, self.folder)

    monkeypatch.setattr(exporter, "OnnxExporter", Ready)
    (tmp_path / "out").mkdir()
    with pytest.raises(AccuracyError, match=says):
        exporter.write_verified(made_.model, made_.plan, tmp_path / "out" / "engines", plans=wish(native=True))
    assert os.listdir(tmp_path / "out") == []


# ---- plans of a folder that is there


def test_plans_come_into_a_folder(bare):
    path = bare("bfloat16")
    was, old = content(path), read_manifest(path)
    shares = []
    manifest = build_into(
        EngineFolder.open(path), wish(Precision.BFLOAT16), Progress(lambda what, share: shares.append(share))
    )
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] <= 1
    assert EngineFolder.open(path).manifest == manifest
    assert manifest.plans.chips == CHIPS and all(
        entry.plugins for name, entry in manifest.plans.stages.items() if name != "mask_head"
    )
    assert msgspec.structs.replace(manifest, plans=None, files=old.files) == old
    now = content(path)
    assert {name: digest for name, digest in now.items() if name in was and name != "manifest.json"} == {
        n: d for n, d in was.items() if n != "manifest.json"
    }
    assert now.keys() - was.keys() == {f"{entry.name}.plan" for entry in manifest.stages}, "no staging is left"


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
    was = content(folder)
    manifest = build_into(EngineFolder.open(folder), wish(targets=("sm_86",)))
    assert EngineFolder.open(folder).manifest == manifest and manifest.plans.chips == ("sm_86",)
    now = content(folder)
    assert (
        now.keys() ^ was.keys() == {"plans", "plans/encoder.plan", "encoder.plan"}
        and "plans/encoder.plan" not in manifest.files
    )
    assert all(now[entry.file] != was.get(entry.file) for entry in manifest.plans.stages.values())


@pytest.mark.parametrize("where", ["building time_sa.0", "building view_sa.0: "])
def test_an_interrupted_build_changes_nothing(folder, where):
    """Between stages, and inside the builder."""
    was = content(folder)

    def interrupted(what, share):
        if what.startswith(where):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_into(EngineFolder.open(folder), wish(targets=()), Progress(interrupted))
    assert content(folder) == was


@pytest.mark.parametrize(("variant", "says"), UNFUSED)
def test_a_failed_build_changes_nothing(native, variant, says):
    path = native(variant)
    was = content(path)
    with pytest.raises(AccuracyError, match=says):
        build_into(EngineFolder.open(path), wish(native=True))
    assert content(path) == was


# ---- the command


def test_build_only_needs_no_torch(bare):
    path = bare()
    code = "import sys; sys.modules['torch'] = None; from page4d_export.main import export; export()"
    arguments = ("--build-only", path, "--target", "sm_89", "--json")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((path / "manifest.json").read_text()) and document["plans"]["chips"] == ["sm_89"]
    assert "plans: TensorRT-RTX" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--T", 4), 2, "--build-only takes model, layout and precision from the engine folder"),
        (("--fp16",), 2, "--build-only takes model, layout and precision from the engine folder"),
        (
            ("--no-build",),
            2,
            "--build-only takes model, layout and precision from the engine folder\n  got:     --no-build",
        ),
        (("--attention", "native", "--height", 56), 2, "from the engine folder\n  got:     --height, --attention"),
        (("--target", "sm_90"), 2, "allowed: sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
        (("--target", ","), 2, "--target names no GPU architecture"),
        (("--optimization-level", 6), 2, "Invalid value for '--optimization-level'"),
        (("--backend", "rtx", "--hardware-compat"), 2, "--hardware-compat is full TensorRT's"),
        (("--backend", "wrong"), 2, "not one of 'auto', 'tensorrt', 'rtx'"),
    ],
)
def test_build_only_refuses(made, arguments, code, words):
    path = made("default", "float16").folder
    was = content(path)
    done = inside("--build-only", path, *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert content(path) == was


def test_plans_are_16_bits(made):
    done = inside("--build-only", made().folder)
    assert done.returncode == 2 and "--fp16, --bf16 or --fp8" in done.stderr, done.stderr
    done = inside(*TINY, "--target", "sm_89", "-o", "unused")
    assert done.returncode == 2 and "--fp16, --bf16 or --fp8" in done.stderr, done.stderr


def test_full_tensorrt_is_a_demand(made):
    try:
        library_for(Flavor.TENSORRT)
    except ImportError as missing:
        done = inside("--build-only", made("default", "float16").folder, "--backend", "tensorrt")
        assert done.returncode == 5 and missing.what in done.stderr, done.stderr
    else:
        pytest.skip("full TensorRT and a GPU are here")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--no-build", "--backend", "rtx"), "--no-build excludes flags that ask for plans"),
        (("--no-build", "--target", "sm_89"), "--no-build excludes flags that ask for plans"),
        (("--backend", "wrong"), "not one of 'auto', 'tensorrt', 'rtx'"),
        (("--fp16", "--target", "sm_90"), "sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
    ],
)
def test_an_export_refuses(arguments, words, tmp_path):
    done = inside(*TINY, *arguments, "-o", tmp_path / "engines")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert os.listdir(tmp_path) == []


def compiled(path, kernels):
    """A library that says it has these kernels, as that of plugins/csrc does, which wants TensorRT's headers."""
    source = f'extern "C" const char* page4d_plugins_kernels() {{ return "{kernels}"; }}'
    subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path)], input=source, text=True, check=True)
    return path


def test_the_plugins_library_travels_with_the_plans(made, tmp_path):
    engines = shutil.copytree(made("default", "float16").folder, tmp_path / "engines")
    library = compiled(tmp_path / "lib.so", shipped().header.source)
    done = inside(
        "--build-only", engines, "--backend", "rtx", "--target", "sm_89", "--plugin-library", library, "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert (engines / PLUGINS).read_bytes() == library.read_bytes()
    assert EngineFolder.open(engines).manifest.files[PLUGINS] == sha256(library)


@pytest.mark.parametrize("case", ["missing", "a text", "other kernels"])
def test_another_library_is_refused(case, made, tmp_path):
    library = tmp_path / "lib.so"
    if case == "a text":
        library.write_text(f"page4d_plugins_kernels {shipped().header.source}")
    elif case == "other kernels":
        compiled(library, "0" * 64)
    engines = shutil.copytree(made("default", "float16").folder, tmp_path / "engines")
    before = content(engines)
    done = inside("--build-only", engines, "--backend", "rtx", "--plugin-library", library)
    assert done.returncode == 2 and "--plugin-library" in done.stderr and "build plugins/csrc" in done.stderr, (
        done.stderr
    )
    assert content(engines) == before


@pytest.mark.parametrize("missing", ["--T", "--V"])
def test_an_export_needs_a_layout(missing):
    given = {"--T": 2, "--V": 2}
    del given[missing]
    done = inside("--preset", "tiny", *(word for pair in given.items() for word in pair))
    assert done.returncode == 2 and f"no {missing}" in done.stderr, done.stderr


def test_what_is_built_and_why_not():
    def said(precision, **flags):
        return BuildFlags(**flags).request(Precision(precision), AttentionChoice.AUTO)

    assert said("float32") == (None, "plans: none, TensorRT takes --fp16, --bf16 or --fp8")
    assert said("float16", no_build=True) == (None, "plans: none, --no-build")
    build, why = said("bfloat16", target="sm_120, sm_89,sm_120", optimization_level=2)
    assert build.chips == ("sm_120", "sm_89") and why == f"plans: {library_for(Flavor.RTX)}, for sm_120, sm_89"
    assert build.options == BuildOptions(("sm_120", "sm_89"), 2)
    assert build.library.flavor is Flavor.RTX and build.warnings == []
    build, why = said("float16", builder=PlanBuilder.RTX)
    assert build.chips == () and why.endswith("for sm_80 and newer")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "plans: none, TensorRT takes --fp16, --bf16 or --fp8"),
        (("--fp16", "--no-build"), "plans: none, --no-build"),
        (("--bf16",), "plans: TensorRT"),
    ],
)
def test_what_is_built_is_said_before_the_export(arguments, says, tmp_path):
    done = inside(*TINY, *arguments, "--frames", tmp_path / "missing", "-o", tmp_path / "engines")
    assert done.returncode == 2 and done.stderr.startswith(says), done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("after", [0.1, 0.5, 1.0])
def test_ctrl_c_ends_a_build_and_changes_nothing(bare, after):
    path = bare()
    was = content(path)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from page4d_export.main import"
        " export; export()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--build-only", str(path), "--target", "sm_89"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(path.parent.glob(f".{path.name}-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors, errors
    assert content(path) == was and not list(path.parent.glob(f".{path.name}-*"))
