"""Fixtures that tests of all parts share."""

import functools
import hashlib
import os
import pathlib
import shutil
import sys

import pytest

from tests.support.exports import Made, making
from tests.support.models import config_of, layout_of, lively, takes_keypoints

# Before torch is imported: what is computed here is small, and threads that wait for the next loop by spinning, in each
# of two processes, took most of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_operator_table():
    """torch.onnx builds its table of operators anew for every graph, a third of the time of a small one; here it is
    built once."""
    from torch.onnx._internal.exporter import _registration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _registration.ONNXRegistry,
            "from_torchlib",
            staticmethod(functools.cache(_registration.ONNXRegistry.from_torchlib)),
        )
        yield


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    """Benchmarks set torch's threads for their process."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != int(os.environ["OMP_NUM_THREADS"]):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


LONGEST = (  # tests that are few and slow; C++ before them all, since others wait until it is built
    "test_cpp.py",
    "test_export.py",
    "test_cpp_offline.py",
    "test_ray_example.py",
    "test_tensorrt_plans.py",
    "test_plugins.py",
    "test_cpp_refusals.py",
    "test_csrc.py",
    "test_run_cli.py",
    "test_builder.py",
    "test_tensorrt.py",
    "test_repository.py",
    "test_ros2_example.py",
    "test_kernel_pack.py",
    "test_bench.py",
    "test_published.py",
    "test_onnx_functions.py",
    "test_self_check.py",
    "test_model_source.py",
    "test_onnx_export.py",
)


def pytest_collection_modifyitems(items):
    """Long files first: one that begins last leaves the other process without work. test.sh tells xdist to keep the
    order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


_SHARED = "PAGE4D_TESTS_SHARED"  # a folder that all processes of one run of the tests have in common


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for what is made once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    return pathlib.Path(
        os.environ.setdefault(_SHARED, str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base))
    )


def _trace_key(stage, module, plan):
    """What a stage's graph depends on: the stage itself, and of the model around it what a part of it may read; so
    models of another depth share it."""
    kind, config = stage.entry.kind, vars(plan.config)
    around = {name: value for name, value in config.items() if name not in ("depth", "encoder_depth", "keep_layers")}
    if kind != "global_sa":
        del around["global_layers"]
    if kind == "encoder":  # made before the clip's times and views, and before all that follows
        around = {name: config[name] for name in ("width", "heads", "published")}
    else:
        around["layout"] = plan.layout
    eps = tuple(child.eps for child in module.modules() if hasattr(child, "eps"))
    weights = tuple((name, tuple(weight.shape), weight.dtype) for name, weight in module.named_parameters())
    return repr((kind, stage.inputs, stage.outputs, weights, eps, plan.attention, around))


@pytest.fixture(scope="session", autouse=True)
def one_trace_of_a_graph(shared):
    """Exports share the traces of equal graphs, most of an export's time, in all processes of a run: a trace holds no
    weights, they are its inputs."""
    import onnx

    from page4d_export import exporter
    from page4d_export.onnx_export import OnnxExporter
    from page4d_export.quantize import calibrate as calibration

    traces, plans = {}, []
    trace = OnnxExporter._trace

    def remembered(self, stage, module, weights):
        if not plans:
            return trace(self, stage, module, weights)
        key = _trace_key(stage, module, plans[-1])
        if key not in traces:
            folder = shared / f"trace-{hashlib.sha256(key.encode()).hexdigest()}"
            with making(folder) as first:
                if first:
                    onnx.save(trace(self, stage, module, weights), folder / "trace.onnx")
            traces[key] = onnx.load(folder / "trace.onnx")
        return traces[key]

    def with_plan(function):
        def called(model, plan, *more):
            plans.append(plan)
            try:
                return function(model, plan, *more)
            finally:
                plans.pop()

        return called

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxExporter, "_trace", remembered)
        patch.setattr(exporter, "_write_stages", with_plan(exporter._write_stages))
        calibrate = with_plan(calibration.calibrate)
        patch.setattr(calibration, "calibrate", calibrate)
        patch.setattr(exporter, "calibrate", calibrate)
        yield


@pytest.fixture(scope="session")
def real_clip() -> pathlib.Path:
    """A filmed clip, 12 times by 4 cameras, with masks and cameras; it lies beside the repository and is not part of
    it."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "clip"
    if not (folder / "frames").is_dir():
        pytest.skip(f"no filmed clip at {folder}")
    return folder


@pytest.fixture(scope="session")
def cpp(shared):
    """The folder in which `engines/cpp` was built, its tests and examples, too, under AddressSanitizer and
    UndefinedBehaviorSanitizer."""
    from tests.support.cmake_builds import SANITIZED, build

    with making(shared / "cpp") as first:
        if first:
            build(pathlib.Path(__file__).parents[1] / "engines" / "cpp", shared / "cpp" / "build", *SANITIZED)
    return shared / "cpp" / "build"


@pytest.fixture(scope="session")
def made(shared):
    """Engine folders of a tiny model by variant and precision, made when first asked for, once for all processes of a
    run."""
    cache = {}

    def make(variant="default", precision="float32", B=1):
        if (variant, precision, B) not in cache:
            from page4d.precision import Precision
            from page4d_export.export_plan import ExportPlan
            from page4d_export.exporter import write_unverified
            from page4d_export.sample_scene.clip import render

            config = config_of(variant, encoder_depth=2)
            layout = layout_of(variant, 56, 70, B)
            plan = ExportPlan.make(config, layout, Precision(precision), keypoints=takes_keypoints(variant))
            model = lively(config)
            folder = shared / f"made-{variant}-{precision}-{B}".replace(" ", "_") / "engines"
            with making(folder.parent) as first:
                if first:
                    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
                    folder.mkdir()
                    write_unverified(model, plan, folder)
            cache[variant, precision, B] = Made(folder, model, plan, render(layout.T, layout.V, layout.W, layout.H))
        return cache[variant, precision, B]

    return make


@pytest.fixture
def room():
    """On a GPU: memory for tensors beyond 2^31 elements, and given back; cards of 16 GB cannot hold them."""
    import torch

    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("the GPU has less than 20 GB free")
    yield
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def attention():
    """page4d_plugins.attention, its kernels in Triton's interpreter."""
    from tests.support.kernel_cases import interpreting

    with interpreting() as module:
        yield module
