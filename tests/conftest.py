"""Fixtures that tests of all parts share."""

import fcntl
import functools
import os
import pathlib
import shutil
import signal
import sys
import tempfile

import pytest
from hypothesis import settings

from tests.support.exports import Made, making, with_golden
from tests.support.hub.hub_server import serving
from tests.support.models import config_of, layout_of, lively, takes_keypoints

ALL_TESTS = pytest.StashKey[list[pytest.Item]]()  # of the run, before any is left out

# how many examples hypothesis tries of those that a test states; `--hypothesis-profile=full` is test.sh's --all
settings.register_profile("full", max_examples=100)
settings.register_profile("fast", max_examples=20, derandomize=True)  # the same ones on every machine
settings.load_profile("fast")

# Before torch is imported: what is computed here is small, and threads that wait for the next loop by spinning, in each
# of two processes, took most of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    help = "--backend auto takes OpenVINO on a CPU for every precision: tests of ONNX Runtime's engines test OpenVINO's"
    parser.addoption("--on-openvino", action="store_true", help=help)


@pytest.fixture(scope="session", autouse=True)
def openvino_where_auto_decides(request):
    """As `--on-openvino` says; without it `auto` decides as it does for everybody."""
    if not request.config.getoption("--on-openvino"):
        yield
        return
    from page4d_engines.backend import OpenVinoLoader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVinoLoader, "require_faster", lambda self: None)
        yield


def pytest_configure():
    """A shell's background job ignores Ctrl-C, and so would the commands that tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def much_memory():
    """One such test at a time, of all processes that run tests: each takes up to 11 GB."""
    with open(pathlib.Path(tempfile.gettempdir()) / "page4d-much-memory.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_operator_table():
    """torch.onnx's table of operators, built once: anew for every graph it takes a third of a small one's time."""
    from torch.onnx._internal.exporter import _registration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _registration.ONNXRegistry,
            "from_torchlib",
            staticmethod(functools.cache(_registration.ONNXRegistry.from_torchlib)),
        )
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    config.stash[ALL_TESTS] = list(items)


@pytest.fixture(scope="session")
def all_tests(request):
    """Every test of the run, those that markers leave out, too."""
    return request.config.stash[ALL_TESTS]


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    """Benchmarks set torch's threads for their process."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != int(os.environ["OMP_NUM_THREADS"]):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


_SHARED = "PAGE4D_TESTS_SHARED"  # a folder that all processes of one run of the tests have in common


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for what is made once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    return pathlib.Path(
        os.environ.setdefault(_SHARED, str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base))
    )


@pytest.fixture(scope="session", autouse=True)
def shared_traces(shared):
    """Exports of all processes of a run trace equal graphs once: most of the time of a small export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAGE4D_TRACES", str(shared / "traces"))
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_cache(shared):
    """What is kept between runs, compiled models too, lies with the tests and not in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(params=["onnxruntime", "openvino"])
def on_cpu(request):
    """Each backend that computes on a CPU, by name."""
    from page4d_engines.openvino.library import is_installed

    if request.param == "openvino" and not is_installed():
        pytest.skip("OpenVINO is not installed")
    return request.param


@pytest.fixture(scope="session")
def real_clip() -> pathlib.Path:
    """A filmed clip, 12 timesteps by 4 cameras, with masks and cameras, where it lies beside the repository."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "clip"
    if not (folder / "frames").is_dir():
        pytest.skip(f"no filmed clip at {folder}")
    return folder


@pytest.fixture(scope="session")
def cpp(shared):
    """The build folder of `engines/cpp`, its tests and examples, with address and undefined-behaviour sanitizers."""
    from tests.support.cpp.cmake_builds import build

    with making(shared / "cpp") as first:
        if first:
            source = pathlib.Path(__file__).parents[1] / "engines" / "cpp"
            build(source, shared / "cpp" / "build", "--preset", "asan")
    return shared / "cpp" / "build"


@pytest.fixture(scope="session")
def made(shared):
    """Engine folders of a tiny model by variant and precision, each made once for all processes of a run."""
    cache = {}

    def make(variant="default", precision="float32", B=1, absent_views=False):
        if (variant, precision, B, absent_views) not in cache:
            from page4d.precision import Precision
            from page4d_export.exporter import write_unverified
            from page4d_export.plan.export_plan import ExportPlan
            from page4d_export.sample_scene.clip import render

            config = config_of(variant, encoder_depth=2)
            layout = layout_of(variant, 56, 70, B)
            head_images = 1 if variant == "vggt" else None  # heads of several calls, where others' see all images
            plan = ExportPlan.make(
                config,
                layout,
                Precision(precision),
                takes_keypoints(variant),
                head_images=head_images,
                absent_views=absent_views,
            )
            model = lively(config)
            folder = shared / f"made-{variant}-{precision}-{B}{'-absent' * absent_views}".replace(" ", "_") / "engines"
            with making(folder.parent) as first:
                if first:
                    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
                    folder.mkdir()
                    write_unverified(model, plan, folder)
            clip = render(layout.T, layout.V, layout.W, layout.H)
            cache[variant, precision, B, absent_views] = Made(folder, model, plan, clip)
        return cache[variant, precision, B, absent_views]

    return make


@pytest.fixture(scope="session")
def checked(made, shared):
    """Engine folders of `made` with a golden clip, by variant and precision; not to be changed."""

    def make(variant="default", precision="float32", absent_views=False):
        folder = shared / f"checked-{variant}-{precision}{'-absent' * absent_views}".replace(" ", "_") / "engines"
        with making(folder.parent) as first:
            if first:
                shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
                with_golden(made(variant, precision, absent_views=absent_views), folder)
        return folder

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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback that the real client talks to, with an empty cache.

    The client read its environment when it was imported: what it made of that is set here.
    """
    constants = pytest.importorskip("huggingface_hub.constants")
    cache = tmp_path / "cache"
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with serving() as server:
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "DOWNLOAD_CHUNK_SIZE": 1 << 16,
        }.items():
            monkeypatch.setattr(constants, name, value)
        server.cache, server.constants = cache, constants
        yield server
