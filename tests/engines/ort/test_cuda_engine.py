"""Engines on a GPU, compared with the reference and, in one CUDA graph, with single calls; in flat memory."""

import resource
import shutil

import numpy as np
import pytest
import torch

from page4d import Layout, ModelConfig
from page4d.accuracy import compare
from page4d.errors import MissingBackendError
from page4d.precision import Precision
from page4d_engines import Backend, Pipeline
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.cuda_engine import require_provider
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.cuda_device import CudaDevice
from page4d_engines.runtime.gpu_chain import GpuChain
from page4d_engines.self_check import self_check
from page4d_engines.tensorrt.builder import BuildOptions
from page4d_engines.tensorrt.engine import Session
from page4d_engines.tensorrt.plans import PlanBuildRequest, build_into, library_for
from page4d_engines.tensorrt.requirements import Machine
from page4d_export.bench.chain_sides import Eager
from page4d_export.exporter import write_unverified, write_verified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_plugins.driver import capability_of
from tests.support.models import EXPORTED, config_of, layout_of, lively, takes_keypoints

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]
WAYS = [
    (Backend.TENSORRT, Precision.FLOAT16),
    (Backend.TENSORRT, Precision.BFLOAT16),
    (Backend.TENSORRT, Precision.FP8),
    (Backend.CUDA, Precision.FLOAT16),
    (Backend.CUDA, Precision.BFLOAT16),
]


def on_gpu(path, backend):
    """The folder's pipeline on a backend, plans built where it wants some; a skip where it is not installed."""
    folder = EngineFolder.open(path)
    least = folder.manifest.precision.least_chip
    if capability_of(0) < least:
        pytest.skip(f"{folder.manifest.precision} wants sm_{least}")
    try:
        library = library_for(None) if backend is Backend.TENSORRT else require_provider()
    except MissingBackendError as missing:
        pytest.skip(f"{backend} is not on this machine: {missing}")
    if library is not None:
        if not library.runs_on(capability_of(0)):
            pytest.skip(f"{library} does not run on sm_{capability_of(0)}")
        build_into(folder, PlanBuildRequest(library, BuildOptions(), folder.manifest.precision, native=False))
        folder = EngineFolder.open(path)
    return folder, Pipeline.of(folder, backend)


backends = pytest.mark.parametrize("backend", [Backend.TENSORRT, Backend.CUDA])


@pytest.mark.parametrize("variant", EXPORTED)
@pytest.mark.parametrize(("backend", "precision"), WAYS)
def test_every_stage_against_the_reference(tmp_path, variant, precision, backend):
    """In the chain against the reference's golden values, alone against ONNX Runtime on a CPU."""
    config = config_of(variant)
    plan = ExportPlan.make(config, layout_of(variant, 56, 70), precision, keypoints=takes_keypoints(variant))
    write_verified(lively(config), plan, tmp_path / "engines")
    folder, pipeline = on_gpu(tmp_path / "engines", backend)
    result = self_check(folder, pipeline, bisect=True)
    assert len(result.chain) == len(result.alone) == sum(len(entry.outputs) for entry in folder.manifest.stages)
    result.require()


@pytest.mark.parametrize(("backend", "precision"), WAYS)
def test_a_real_size_against_the_reference(tmp_path, precision, backend):
    """ViT-L, T=4 V=4, 518x518: the chain against the reference in float32 on the same GPU."""
    config, layout = ModelConfig.preset("vitl"), Layout(4, 4, 518, 518)
    plan = ExportPlan.make(config, layout, precision)
    model = lively(config)
    values = SampleClip.rendered(layout).values
    reference = Eager(model, Precision.FLOAT32, "cuda").run(values)
    torch.cuda.empty_cache()
    (tmp_path / "engines").mkdir()
    write_unverified(model, plan, tmp_path / "engines")
    _, pipeline = on_gpu(tmp_path / "engines", backend)
    outputs = pipeline.run(values["images"], mask_ext=values["mask_ext"]).tensors()
    for name, expected in reference.items():
        accuracy = compare(outputs[name].astype(np.float32), expected)
        assert accuracy.nans == 0 and accuracy.relative_l2 < 4 * precision.tolerance, f"{name}: {accuracy}"


@backends
def test_a_thousand_windows_in_flat_memory(made, backend, tmp_path):
    made_ = made("memory", "float16")
    _, pipeline = on_gpu(shutil.copytree(made_.folder, tmp_path / "engines"), backend)
    gpu, rng = CudaDevice(), np.random.default_rng(0)
    arguments = made_.inputs(keypoints=True)
    first, memory = None, []
    for number in range(1000):
        images = rng.integers(0, 256, made_.clip.frames.shape, np.uint8) if number % 100 else made_.clip.frames
        result = pipeline.run(images, **arguments)
        if number % 100 == 0:
            memory.append((gpu.free(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
            first = result.mask.copy() if first is None else first
            assert np.array_equal(result.mask, first), "the same frames give the same bits"
    assert memory[-1][0] >= memory[1][0] - (1 << 20) and memory[-1][1] <= memory[1][1] + (4 << 10)


def test_a_graph_gives_what_single_calls_give(made, tmp_path):
    made_ = made("default", "float16")
    folder, pipeline = on_gpu(shutil.copytree(made_.folder, tmp_path / "engines"), Backend.TENSORRT)
    assert pipeline._chain.has_graph
    arguments = {"images": made_.clip.frames, **made_.inputs(keypoints=False)}
    expected = pipeline.run(**arguments).copy()
    machine, gpu = Machine.here(folder.manifest.plans), CudaDevice()

    def make(constants):
        session = Session(machine.library, gpu)
        engines = {
            entry.name: session.load(entry, folder.file(folder.manifest.plans.stages[entry.name].file))
            for entry in folder.manifest.stages
        }
        return GpuChain(gpu, BufferPlan.make(folder.manifest), engines, constants, "single calls")

    single = Pipeline(folder, Backend.TENSORRT, make)
    single._chain._graphs = []
    result = single.run(**arguments)
    for name, array in expected.tensors().items():
        assert np.array_equal(result.tensors()[name], array), name


@backends
def test_a_run_on_new_frames_is_not_the_last_one(made, backend, tmp_path):
    """The graph reads what lies in the buffers now."""
    made_ = made("default", "float16")
    _, pipeline = on_gpu(shutil.copytree(made_.folder, tmp_path / "engines"), backend)
    host = Pipeline.load(made_.folder, "onnxruntime")
    rng = np.random.default_rng(1)
    for _ in range(3):
        images = rng.integers(0, 256, made_.clip.frames.shape, np.uint8)
        arguments = {"images": images, **made_.inputs(keypoints=False)}
        assert compare(pipeline.run(**arguments).mask, host.run(**arguments).mask).relative_l2 < 1e-2
