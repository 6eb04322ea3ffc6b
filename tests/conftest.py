"""Fixtures that tests of all parts share."""

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest

# Before torch is imported: what is computed here is small, and threads that wait for the next loop by spinning, in each of two processes, took most of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_operator_table():
    """torch.onnx builds its table of operators anew for every graph, a third of the time of a small one; here it is built once."""
    from torch.onnx._internal.exporter import _registration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(functools.cache(_registration.ONNXRegistry.from_torchlib)))
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
    "test_plans.py",
    "test_plugins_command.py",
    "test_cpp_refusals.py",
    "test_csrc.py",
    "test_run_cli.py",
    "test_tensorrt_build.py",
    "test_tensorrt.py",
    "test_triton_server.py",
    "test_ros2_example.py",
    "test_pack.py",
    "test_bench.py",
    "test_published.py",
    "test_functions.py",
    "test_self_check.py",
    "test_model_source.py",
    "test_onnx.py",
)


def pytest_collection_modifyitems(items):
    """Long files first: one that begins last leaves the other process without work. test.sh tells xdist to keep the order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


_SHARED = "PAGE4D_TESTS_SHARED"  # a folder that all processes of one run of the tests have in common


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for what is made once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    return pathlib.Path(os.environ.setdefault(_SHARED, str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)))


@contextlib.contextmanager
def making(folder):
    """Whether it is this process that makes what is in a folder; others wait until it is done."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        yield not done.exists()
        done.touch()


def _trace_key(stage, module, plan):
    """What a stage's graph depends on: the stage itself, and of the model around it what a part of it may read; so models of another depth share it."""
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
    """Exports share the traces of equal graphs, most of an export's time, in all processes of a run: a trace holds no weights, they are its inputs."""
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
    """A filmed clip, 12 times by 4 cameras, with masks and cameras; it lies beside the repository and is not part of it."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "clip"
    if not (folder / "frames").is_dir():
        pytest.skip(f"no filmed clip at {folder}")
    return folder


VARIANTS = {
    "default": {},
    "memory": {"global_strategy": "memory", "memory_tokens": 5, "global_layers": (0, 1), "epipolar": True, "epipolar_band": 10.0},
    "dilated": {"global_strategy": "dilated", "dilations": (1,), "time_encoding": "alibi", "order": ("time", "view"), "layer_output": "pair"},
    "late": {"mask_layer": 1, "keep_layers": (0, 1), "landmarks": 3, "mask_head": "2026", "fusion": "gate"},
}

SMALL = {"width": 128, "heads": 2}
PUBLISHED = {  # options, and the (T, V) that the model sees
    "pi3": ({"name": "pi3", **SMALL, "depth": 2}, (1, 3)),
    "vggt": ({"name": "vggt", **SMALL, "depth": 2}, (3, 1)),
    "page4d 150": ({"name": "page4d", **SMALL, "depth": 10}, (3, 1)),
    "page4d 2026": ({"name": "page4d", **SMALL, "depth": 12, "mask_head": "2026"}, (3, 1)),
}
EVERY = [*VARIANTS, *PUBLISHED]
EXPORTED = [*VARIANTS, "pi3", "page4d 2026"]  # every kind of stage and node; an export takes seconds


def config_of(variant, **options):
    """A small model; `options` for those of this project's own."""
    from page4d import ModelConfig

    if variant in PUBLISHED:
        return ModelConfig.preset(**{"encoder_depth": 1, **PUBLISHED[variant][0]})
    return ModelConfig.preset("tiny", **{"depth": 2, "encoder_depth": 1, **options, **VARIANTS[variant]})


def layout_of(variant, H, W, B=1):
    """Several times and views where the model sees such."""
    from page4d import Layout

    return Layout(*PUBLISHED.get(variant, (None, (3, 2)))[1], H, W, B)


def by_time(whole, folder, precision="float32"):
    """Engines of `whole`'s model in a folder that is there; their encoder sees the views of one time in a call."""
    from page4d.precision import Precision
    from page4d_export.export_plan import Plan
    from page4d_export.exporter import write_unverified

    plan = Plan.make(whole.plan.config, whole.plan.layout, Precision(precision), whole.plan.keypoints, whole.plan.layout.V)
    write_unverified(whole.model, plan, folder)
    return Made(folder, whole.model, plan, whole.clip)


def lively(config, seed=0):
    """A seeded model whose lambdas matter: at 0 masked and unmasked are the same and a test proves nothing."""
    import torch

    from page4d import Page4D

    model = Page4D(config, seed=seed)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lambda" in name:
            parameter.copy_(torch.rand((), generator=generator) * 3 + 0.5)
        elif parameter.dim() > 1 and "norm" not in name and "encoder" not in name:
            parameter.mul_(3)
    return model


def takes_keypoints(variant):
    """Of the variants that can, one is exported without."""
    return variant not in ("default", *PUBLISHED)


def without_plugins(source, target):
    """Write a stage's file as `--attention native` does: its nodes name no plugin. The trace, which takes seconds, is the same."""
    import onnx

    from page4d.ops import PLUGIN_ATTRIBUTES

    model = onnx.load(source, load_external_data=source.parent != target.parent)  # weights beside it stay there
    for node in model.graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name not in PLUGIN_ATTRIBUTES]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(model, target)
    return target


class Made:
    """An engine folder, the model that it was made from, and a clip of its shape."""

    def __init__(self, folder, model, plan, clip):
        self.folder, self.model, self.plan, self.clip = folder, model, plan, clip

    def inputs(self, keypoints):
        rng = np.random.default_rng(0)
        layout = self.plan.layout
        given = {"mask_ext": rng.random(layout.patch_map_shape).astype(np.float32)} if self.model.config.takes_mask else {}
        if keypoints:
            given["keypoints"] = rng.random(layout.patch_map_shape).astype(np.float32)
        if self.model.config.epipolar:
            given["cameras"] = {name: camera.to_mapping() for name, camera in self.clip.cameras.items()}
        return given


@pytest.fixture(scope="session")
def cpp(shared):
    """The folder in which `engines/cpp` was built, its tests and examples, too, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    from cmake_builds import SANITIZED, build

    with making(shared / "cpp") as first:
        if first:
            build(pathlib.Path(__file__).parents[1] / "engines" / "cpp", shared / "cpp" / "build", *SANITIZED)
    return shared / "cpp" / "build"


@pytest.fixture(scope="session")
def made(shared):
    """Engine folders of a tiny model by variant and precision, made when first asked for, once for all processes of a run."""
    cache = {}

    def make(variant="default", precision="float32", B=1):
        if (variant, precision, B) not in cache:
            from page4d.precision import Precision
            from page4d_export.export_plan import Plan
            from page4d_export.exporter import write_unverified
            from page4d_export.sample_scene.clip import render

            config = config_of(variant, encoder_depth=2)
            layout = layout_of(variant, 56, 70, B)
            plan = Plan.make(config, layout, Precision(precision), keypoints=takes_keypoints(variant))
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
    from kernel_cases import interpreting

    with interpreting() as module:
        yield module
