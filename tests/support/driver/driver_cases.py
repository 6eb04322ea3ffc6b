"""The chain on a GPU, run on the driver of `driver.cpp`: cuda-core and its bindings are real, the GPU is not.

Run by test_gpu_chain.py. Stages are ONNX Runtime's on the CPU, put on the streams as host functions, so that they run
when the streams come to them.
"""

import ctypes
import gc
import logging
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from cuda.bindings import driver as api

from page4d import Layout
from page4d.accuracy import compare
from page4d.errors import EngineError, OutOfMemoryError
from page4d.network.reference_view import balanced_view
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort import partitioned_engine
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_engines.ort.partition import Attention
from page4d_engines.ort.rows.row_fusion import RowCall
from page4d_engines.runtime import gpu_memory
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.cuda_device import CudaDevice
from page4d_engines.runtime.gpu_chain import GpuChain
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.stage import stages_of
from page4d_plugins.driver import capability_of, checked, cuda_version, is_integrated
from page4d_plugins.modes import HEAD_DIM, Keys, Mode
from page4d_plugins.row_launch import RowKernel
from tests.support.da3.models import H, W, model_of
from tests.support.driver.pieces_on_the_cpu import attended, joined
from tests.support.exports import by_time
from tests.support.models import config_of, layout_of, lively
from tests.support.torch_engines.plan_stages import StageModule, written
from tests.support.torch_engines.plan_stages import pipeline_of as pipeline_of_plan
from tests.support.torch_engines.torch_stages import TorchStages

LIBRARY = ctypes.CDLL("libcuda.so.1")
FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
LIMIT = 4 << 30  # bytes of the driver's memory
VARIANTS = [
    "default",
    "memory",
    "vggt",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("dilated", "late", "pi3")),
]


def put_on(stream, work):
    """A host function on a stream; gives back what must live until it has run."""
    function = FUNCTION(lambda _: work())
    # the bindings take the place of the address
    place = ctypes.c_void_p(ctypes.cast(function, ctypes.c_void_p).value)
    checked(api.cuLaunchHostFunc(stream, api.CUhostFn(_ptr=ctypes.addressof(place)), 0))
    return function, place


class HostSession:
    """ONNX Runtime's session on the CPU in the place of one on the GPU: it runs when the stream comes to it."""

    def __init__(self, model, options, gpu):
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.gpu, self.held = gpu, []
        self.get_inputs, self.get_outputs = self.session.get_inputs, self.session.get_outputs

    def io_binding(self):
        binding = self.session.io_binding()

        def on_host(bind):
            return lambda name, device, number, dtype, shape, address: bind(name, "cpu", 0, dtype, shape, address)

        return SimpleNamespace(
            bind_input=on_host(binding.bind_input), bind_output=on_host(binding.bind_output), real=binding
        )

    def run_with_iobinding(self, binding, options):
        self.held.append(put_on(self.gpu.stream, lambda: self.session.run_with_iobinding(binding.real, options)))


def over(tensors, addresses):
    """Arrays over memory, by name: `tensors` are shapes and types."""
    values = {}
    for name, (sizes, dtype) in tensors.items():
        memory = (ctypes.c_uint8 * (int(np.prod(sizes)) * np.dtype(dtype).itemsize)).from_address(addresses[name])
        values[name] = np.ctypeslib.as_array(memory).view(dtype).reshape(sizes)
    return values


class HostLauncher:
    """The attention kernels' place: the reference's attention over the same addresses."""

    def __init__(self, shape, device, pack):
        self.shape, self.workspace, self.held = shape, 512, []

    def __call__(self, addresses, stream):
        def work():
            values = over(self.tensors(), addresses)
            names = {name: name for name in values if name not in ("out", "workspace")}
            values["out"].reshape(-1)[:] = attended(Attention(self.shape, names, "out"), values)
            values["workspace"][:] = 0xFF  # whoever lies there loses

        self.held.append(put_on(stream, work))

    def tensors(self):
        """Shapes and types of what the call reads and writes, by name; heads as they lie."""
        s, half, single, whole = self.shape, np.float16, np.float32, np.int32
        queries, keys = (s.Z, s.n, s.A, s.D), (s.Z, s.m, s.A, s.D)
        tensors = {
            "q": (queries, half),
            "k": (keys, half),
            "v": (keys, half),
            "out": (queries, half),
            "workspace": ((512,), np.uint8),
        }
        if s.mode is not Mode.DENSE:
            tensors["key_bias"] = ((s.Z, s.m), half)
        if s.mode.keys is Keys.SEGMENTS:
            tensors |= {"seg_ptr": ((s.groups + 1,), whole), "seg": ((s.segments, 2), whole)}
        if s.mode is Mode.SEGMENTS_BIASED:
            tensors["segment_bias"] = ((s.A, s.segments), half)
        if s.mode is Mode.EPIPOLAR:
            tensors |= {"fundamental": ((s.groups, s.groups, 3, 3), single), "centres": ((s.n // s.groups, 3), single)}
        return tensors


class HostRows:
    """The row kernels' place: PyTorch over the same addresses."""

    def __init__(self, launches, dtype, device, pack):
        (self.launch,), self.dtype, self.held = launches, dtype, []

    def __call__(self, addresses, stream):
        def work():
            values = over(self.tensors(), addresses)
            outputs = [name for name in ("sum", "out") if name in values]
            names = {name: name for name in values if name not in outputs}
            kernel = RowKernel(self.launch.kernel)
            call = RowCall(kernel, self.launch, self.dtype, names, {name: name for name in outputs})
            for name, array in joined(call, values).items():
                values[name].reshape(-1)[:] = array

        self.held.append(put_on(stream, work))

    def tensors(self):
        """As `HostLauncher.tensors`."""
        kernel, sizes, rows = RowKernel(self.launch.kernel), self.launch.values, self.launch.grid[0]
        if kernel is RowKernel.HEADS:
            table = dict.fromkeys(("cos", "sin"), ((sizes["period"], HEAD_DIM), np.float32))
            norm = dict.fromkeys(("weight", "shift"), ((HEAD_DIM,), np.float32))
            whole = dict.fromkeys(("x", "out"), ((sizes["rows"], HEAD_DIM), np.float16))
            return {**table, **norm, **whole, "bias": ((sizes["count"], HEAD_DIM), np.float16)}
        channels = sizes["channels"]
        whole = ((rows // sizes.get("blocks", 1), channels), np.float16)
        row, wide = ((channels,), np.float16), ((channels,), np.float32)
        if kernel is RowKernel.GELU:
            return {"x": whole, "bias": row, "out": whole}
        adds = {} if kernel is RowKernel.NORM else {"p": whole, "bias": row, "gamma": row, "sum": whole}
        return {"x": whole, **adds} | ({} if kernel is RowKernel.ADD else {"weight": wide, "shift": wide, "out": whole})


def dtype_of(value):
    """numpy's name for the dtype of a session's input or output."""
    name = value.type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32"}.get(name, name)


class HostEngine:
    """A stage that is put on a stream as a function of the host's."""

    def __init__(self, path, uncapturable=None, breaks=False):
        self.engine, self.uncapturable, self.breaks, self.scratch = OrtEngine(path), uncapturable, breaks, 1000
        self.calls = 0

    def bind(self, inputs, outputs, scratch):
        session = self.engine._session

        def arrays(values, addresses):
            return over({value.name: (value.shape, dtype_of(value)) for value in values}, addresses)

        call = self.engine.bind(arrays(session.get_inputs(), inputs), arrays(session.get_outputs(), outputs))

        def counted(_):
            self.calls += 1
            call()

        held = []

        def launch(stream):
            if (
                self.breaks
                and checked(api.cuStreamIsCapturing(stream)) != api.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
            ):
                raise EngineError("this stage synchronises")
            held.append(put_on(stream, lambda: counted(None)))

        return launch


def pipeline_of(folder, engines=None, sliding=False, **options):
    """A pipeline on the driver, and its chain; `engines` are put into the dict that is given."""
    opened = EngineFolder.open(folder)
    loaded = {} if engines is None else engines
    chains = []

    def make(constants):
        for entry in opened.manifest.stages:
            loaded[entry.name] = HostEngine(opened.file(entry.file), **options)
        chains.append(
            GpuChain(
                CudaDevice(),
                BufferPlan.make(opened.manifest, widen=True, sliding=sliding),
                loaded,
                constants,
                "a driver without a GPU",
            )
        )
        return chains[0]

    return Pipeline(opened, Backend.CUDA, make), chains[0]


class ModuleEngine:
    """A stage of the reference model that is put on a stream."""

    def __init__(self, entry, engine, uncapturable):
        self.entry, self.engine, self.uncapturable, self.scratch = entry, engine, uncapturable, 1000

    def bind(self, inputs, outputs, scratch):
        shapes = [
            {spec.binding: (spec.shape, spec.dtype) for spec in specs}
            for specs in (self.entry.inputs, self.entry.outputs)
        ]
        call = self.engine.bind(over(shapes[0], inputs), over(shapes[1], outputs))
        held = []
        return lambda stream: held.append(put_on(stream, call))


@pytest.mark.parametrize("use_graph", [True, False])
@pytest.mark.parametrize("B", [1, 2])
def test_the_host_chooses_the_reference_view(tmp_path, use_graph, B):
    """Between two graphs, or between calls: as the chain on the host does, window after window."""
    model, layout = model_of("da3"), Layout(1, 3, H, W, B)
    stages = TorchStages(model, layout, encoder_images=1, head_images=3)
    opened = stages.write(tmp_path / "engines")
    host = stages.pipeline(tmp_path / "host")

    def make(constants):
        engines = {
            entry.name: ModuleEngine(entry, stages.engine(entry), None if use_graph else "single calls")
            for entry in opened.manifest.stages
        }
        return GpuChain(CudaDevice(), BufferPlan.make(opened.manifest), engines, constants, "modules")

    pipeline = Pipeline(opened, Backend.CUDA, make)
    assert pipeline._chain.has_graph == use_graph
    seen = set()
    for seed in range(4):
        images = np.random.default_rng(seed).integers(0, 256, layout.images_shape, np.uint8)
        expected, before = host.run(images).tensors(), LIBRARY.driver_launches()
        result = pipeline.run(images)
        assert LIBRARY.driver_launches() - before == 2 * use_graph, "one graph before the choice, one after it"
        for name, array in result.tensors().items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert min(result.timing.seconds.values()) > 0
        _, select = model.encoder.encode(torch.from_numpy(images).reshape(-1, H, W, 3))
        seen |= set(balanced_view(select.reshape(B, 3, -1).double().numpy()).tolist())
    assert len(seen) > 1, "clips whose choices differ"


@pytest.mark.parametrize("use_graph", [True, False])
@pytest.mark.parametrize("variant", ["vggt", "da3", "default"])
def test_absent_images_change_who_is_first(tmp_path, variant, use_graph):
    """The special tokens go up with every window; or the reference view is chosen among those that are there."""
    config, layout = config_of(variant), layout_of(variant, 28, 42)
    plan = ExportPlan.make(config, layout, Precision.FLOAT32, head_images=1, absent_views=True)
    model = lively(config)
    host = pipeline_of_plan(model, plan, tmp_path / "host")
    opened, stages = written(model, plan, tmp_path / "engines"), stages_of(model, plan)

    def make(constants):
        engines = {
            entry.name: ModuleEngine(entry, StageModule(stages[entry.name]), None if use_graph else "single calls")
            for entry in opened.manifest.stages
        }
        return GpuChain(CudaDevice(), BufferPlan.make(opened.manifest), engines, constants, "modules")

    pipeline = Pipeline(opened, Backend.CUDA, make)
    images = np.random.default_rng(0).integers(0, 256, layout.images_shape, np.uint8)
    present = np.ones(layout.image_map_shape, np.uint8)
    for absent in ([0], [], [0, 1], [2]):
        present.flat[:] = 1
        present.flat[absent] = 0
        expected = host.run(images, present=present).tensors()
        for name, array in pipeline.run(images, present=present).tensors().items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


def inputs_of(exported, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, exported.clip.frames.shape, np.uint8)
    return {"images": frames, **exported.inputs(keypoints=exported.plan.keypoints)}


@pytest.fixture(autouse=True)
def room():
    yield
    LIBRARY.driver_limit(ctypes.c_size_t(LIMIT))
    LIBRARY.driver_integrated(0, ctypes.c_size_t(0))


def test_what_the_driver_says():
    assert capability_of(0) == 89 and cuda_version() == (13, 0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("use_graph", [True, False])
def test_equals_the_chain_on_the_host(made, variant, use_graph):
    """Window after window, with other frames: uploads, waits, gathered layers and downloads are all in their place."""
    exported = made(variant)
    host = Pipeline.load(exported.folder, "onnxruntime")
    pipeline, chain = pipeline_of(exported.folder, uncapturable=None if use_graph else "single calls")
    assert chain.has_graph == use_graph
    for seed in range(3):
        inputs = inputs_of(exported, seed)
        expected, result = host.run(**inputs).tensors(), pipeline.run(**inputs)
        results, seconds = result.tensors(), result.timing.seconds
        assert set(expected) == set(results)
        for name, array in expected.items():
            np.testing.assert_array_equal(results[name], array, err_msg=name)
    assert list(seconds) == [entry.name for entry in pipeline.manifest.stages] and min(seconds.values()) > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_stages_cut_at_our_kernels(made, variant, monkeypatch):
    """Pieces and kernels over one block of scratch memory: every address is where the step before put its numbers."""
    exported = made(variant, "float16")
    monkeypatch.setattr(partitioned_engine, "cuda_session", HostSession)
    monkeypatch.setattr(partitioned_engine, "Launcher", HostLauncher)
    monkeypatch.setattr(partitioned_engine, "KernelLauncher", HostRows)
    opened = EngineFolder.open(exported.folder)

    def make(constants):
        gpu = CudaDevice()
        sessions = partitioned_engine.SharedSessions(gpu)
        engines = {
            entry.name: partitioned_engine.PartitionedEngine(opened.file(entry.file), gpu, sessions)
            for entry in opened.manifest.stages
        }
        return GpuChain(gpu, BufferPlan.make(opened.manifest), engines, constants, "pieces")

    pipeline, host = Pipeline(opened, Backend.CUDA, make), Pipeline.load(exported.folder, "onnxruntime", rounding=True)
    assert not pipeline._chain.has_graph
    for seed in range(2):
        inputs = inputs_of(exported, seed)
        expected, results = host.run(**inputs).tensors(), pipeline.run(**inputs).tensors()
        for name, array in expected.items():
            accuracy = compare(results[name].astype(np.float32), array.astype(np.float32))
            assert accuracy.nans == 0 and accuracy.relative_l2 < 4e-3, f"{name}: {accuracy}"
    before = LIBRARY.driver_streams_destroyed()
    del pipeline
    gc.collect()
    assert LIBRARY.driver_streams_destroyed() == before, "sessions ask their stream once more when they go"


def test_windows_that_overlap(made, tmp_path):
    """An encoder call of one timestep: carried images are neither uploaded nor encoded.

    They come to their places; a whole window is the graph again.
    """
    layout = by_time(made(), tmp_path).plan.layout
    engines = {}
    pipeline, chain = pipeline_of(tmp_path, engines, sliding=True)
    host = Pipeline.load(tmp_path, "onnxruntime")
    frames = np.random.default_rng(0).integers(0, 256, (3 * layout.T, *layout.images_shape[1:]), np.uint8)
    assert chain.has_graph
    for start, shared in ((0, 0), (1, layout.T - 1), (2, layout.T - 1), (4, layout.T - 2), (5, 0)):
        clip, before = frames[start : start + layout.T], engines["encoder"].calls
        expected, results = host.run(clip).tensors(), pipeline.run(clip, shared=shared).tensors()
        assert engines["encoder"].calls - before == layout.T - shared
        for name, array in expected.items():
            np.testing.assert_array_equal(results[name], array, err_msg=f"{name}, from {start}")


def test_a_run_is_one_launch_and_allocates_nothing(made):
    exported = made("memory")
    engines = {}
    pipeline, _ = pipeline_of(exported.folder, engines)
    calls = {name: engine.calls for name, engine in engines.items()}
    assert all(count == exported.plan.manifest("").stage(name).calls for name, count in calls.items()), (
        "one run to warm up"
    )
    before = LIBRARY.driver_allocations(), LIBRARY.driver_launches()
    result = pipeline.run(**inputs_of(exported, 0))
    pipeline.run(**{**inputs_of(exported, 1), "memory": result.memory})
    assert (LIBRARY.driver_allocations(), LIBRARY.driver_launches()) == (before[0], before[1] + 2)
    assert all(engine.calls == 3 * calls[name] for name, engine in engines.items())


@pytest.mark.parametrize("options", [{"uncapturable": "it synchronises"}, {"breaks": True}])
def test_an_engine_that_cannot_be_captured(made, caplog, options):
    """Known before, or found out by trying: the calls are launched one by one, and a warning says why."""
    exported = made()
    with caplog.at_level(logging.WARNING, "page4d"):
        pipeline, chain = pipeline_of(exported.folder, **options)
    assert not chain.has_graph and "no CUDA graph" in caplog.text and "synchronises" in caplog.text
    inputs = inputs_of(exported, 0)
    np.testing.assert_array_equal(
        pipeline.run(**inputs).mask, Pipeline.load(exported.folder, "onnxruntime").run(**inputs).mask
    )


def test_what_an_observer_sees(made):
    """Every stage once, its whole inputs and outputs, as on the host."""
    exported = made("late")
    inputs = inputs_of(exported, 3)
    seen = {}
    for pipeline in (Pipeline.load(exported.folder, "onnxruntime"), pipeline_of(exported.folder)[0]):
        rows = seen[pipeline.backend] = []

        def keep(entry, inputs, outputs, rows=rows):
            return rows.append((entry.name, dict(inputs), {name: array.copy() for name, array in outputs.items()}))

        pipeline.run(**inputs, observe=keep)
    host, gpu = seen[Backend.ONNXRUNTIME], seen[Backend.CUDA]
    assert [row[0] for row in host] == [row[0] for row in gpu] == [entry.name for entry in exported.plan.stages()]
    for (name, inputs, outputs), (_, inputs_there, outputs_there) in zip(host, gpu, strict=True):
        assert set(inputs) == set(inputs_there)
        for key, array in outputs.items():
            np.testing.assert_array_equal(outputs_there[key], array, err_msg=f"{name} {key}")


def test_too_little_memory(made):
    LIBRARY.driver_limit(ctypes.c_size_t(1 << 18))
    with pytest.raises(
        OutOfMemoryError, match=r"do not fit the GPU\s+got:\s+[\d.]+ MiB needed(.|\n)*allowed: 0.2 MiB free(.|\n)*--T"
    ):
        pipeline_of(made().folder)
    gpu = CudaDevice()
    with pytest.raises(OutOfMemoryError, match=r"too little memory left\s+got:\s+2.0 MiB more"):
        gpu.allocate(2 << 20)


def test_files_that_were_read_take_no_memory_of_an_integrated_gpu(made, monkeypatch):
    """There the driver counts cached pages of files as used; they are given up when memory is needed."""
    LIBRARY.driver_integrated(1, ctypes.c_size_t(LIMIT - 1000))
    assert is_integrated(0) and CudaDevice().free() > LIMIT // 16 and int(checked(api.cuMemGetInfo())[0]) <= 1000
    assert pipeline_of(made().folder)[0].run(**inputs_of(made(), 0)).mask.size
    monkeypatch.setattr(gpu_memory, "available_memory", lambda: 1 << 18)
    with pytest.raises(OutOfMemoryError, match=r"do not fit the GPU(.|\n)*allowed: 0.2 MiB free"):
        pipeline_of(made().folder)
    LIBRARY.driver_integrated(0, ctypes.c_size_t(LIMIT - 1000))
    with pytest.raises(OutOfMemoryError, match="do not fit the GPU"):
        pipeline_of(made().folder)


def test_work_that_is_not_waited_for_is_not_done():
    """The driver itself: what its tests rest on."""
    gpu = CudaDevice()
    there = gpu.allocate(40)
    here, ten = (gpu.pinned((10,), np.dtype(np.float32)) for _ in range(2))
    ten[:] = np.arange(10)
    gpu.upload(there, ten, gpu.uploads)
    gpu.download(here, there, gpu.stream)
    gpu.synchronize()
    assert not here.any()
    event = gpu.event()
    gpu.record(event, gpu.uploads)
    gpu.wait(gpu.stream, event)
    gpu.download(here, there, gpu.stream)
    gpu.synchronize()
    assert np.array_equal(here, ten)
    with pytest.raises(RuntimeError), gpu.capture():
        gpu.record(event, gpu.stream)
        gpu.wait(gpu.uploads, event)
        gpu.upload(there, ten, gpu.uploads)  # and nobody waits for it
    with pytest.raises(RuntimeError):
        gpu.upload(there + 4, ten, gpu.stream)  # beyond the end
