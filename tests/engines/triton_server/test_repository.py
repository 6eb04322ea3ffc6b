"""Repositories for Triton Inference Server: valid by its own schema, and run from their configurations alone."""

import dataclasses
import json
import math
import shutil

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2 as schema

from page4d import Layout
from page4d.cameras import cameras_from_mapping, fundamental
from page4d.errors import EngineError, UsageError
from page4d.files import sha256
from page4d.manifest import Flavor, PlanEntry, Plans
from page4d.manifest_checks.manifest_file import read_manifest, write_manifest
from page4d.network.poses import camera_to_world, intrinsics
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.triton_server.config import Platform
from page4d_engines.triton_server.ensemble import Ensemble
from page4d_engines.triton_server.repository import Backend, Repository
from page4d_export.plan.export_plan import ExportPlan
from tests.support.commands import started
from tests.support.da3.models import H, W, model_of
from tests.support.models import EXPORTED, config_of, layout_of, takes_keypoints
from tests.support.torch_engines.torch_stages import TorchStages

TYPES = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}
MANIFEST_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16"}


def type_name(port):
    return schema.DataType.Name(port.data_type)


def inside(port):
    """The shape that the model itself sees."""
    return list(port.reshape.shape) if port.HasField("reshape") else list(port.dims)


class Server:
    """Does with a repository what Triton does, and knows nothing else of it."""

    def __init__(self, texts, root=None):
        self.root = root
        self.models = {name: text_format.Parse(text, schema.ModelConfig()) for name, text in texts.items()}
        assert all(config.name == name and config.max_batch_size == 0 for name, config in self.models.items())
        (self.ensemble,) = [config for config in self.models.values() if config.platform == "ensemble"]
        self.steps = list(self.ensemble.ensemble_scheduling.step)

    @classmethod
    def of(cls, root):
        assert all((folder / "1").is_dir() for folder in root.iterdir())
        return cls({folder.name: (folder / "config.pbtxt").read_text() for folder in root.iterdir()}, root)

    def request(self, inputs):
        assert set(inputs) == {port.name for port in self.ensemble.input}
        tensors = {port.name: self.fitting(port, inputs[port.name]) for port in self.ensemble.input}
        waiting = list(reversed(self.steps))  # the order of an ensemble's steps means nothing
        while waiting:
            step = next(step for step in waiting if set(step.input_map.values()) <= set(tensors))
            waiting.remove(step)
            outputs = self.call(
                self.models[step.model_name], {key: tensors[value] for key, value in step.input_map.items()}
            )
            for key, value in step.output_map.items():
                assert value not in tensors
                tensors[value] = outputs[key]
        return {port.name: self.fitting(port, tensors[port.name]) for port in self.ensemble.output}

    def call(self, config, tensors):
        assert set(tensors) == {port.name for port in config.input}
        session = onnxruntime.InferenceSession(
            str(self.root / config.name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        inputs = {port.name: self.fitting(port, tensors[port.name]).reshape(inside(port)) for port in config.input}
        names = [port.name for port in config.output]
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        for port in config.output:
            assert list(outputs[port.name].shape) == inside(port)
        return {port.name: self.fitting(port, outputs[port.name].reshape(port.dims)) for port in config.output}

    @staticmethod
    def fitting(port, array):
        assert list(array.shape) == list(port.dims) and array.dtype == TYPES[type_name(port)], port
        return array


def check_wiring(server):
    """What Triton refuses to load is not there.

    That is: a tensor without a maker or with two, ends that differ in shape or type, a reshape of another size."""
    ends = {port.name: port for port in server.ensemble.input}
    for step in server.steps:
        model = server.models[step.model_name]
        assert model.platform != "ensemble"
        assert set(step.input_map) == {port.name for port in model.input}
        assert set(step.output_map) == {port.name for port in model.output}
        for port in model.output:
            assert step.output_map[port.name] not in ends, "made twice"
            ends[step.output_map[port.name]] = port
    read = {port.name: port for port in server.ensemble.output}
    readers = list(read.items())
    for step in server.steps:
        readers += [(step.input_map[port.name], port) for port in server.models[step.model_name].input]
    for tensor, port in readers:
        assert (list(ends[tensor].dims), ends[tensor].data_type) == (list(port.dims), port.data_type), tensor
    for config in server.models.values():
        for port in [*config.input, *config.output]:
            assert math.prod(port.dims) == math.prod(inside(port)) and min(port.dims) > 0
    assert {port.name for port in server.ensemble.input} <= {tensor for tensor, _ in readers}
    assert {step.model_name for step in server.steps} | {server.ensemble.name} == set(server.models)


def check_stages(server, manifest, platform, kind):
    """The stages' models say what the manifest says."""
    for entry in manifest.stages:
        config = server.models["page4d_" + entry.name.replace(".", "_")]
        assert config.platform == platform
        assert [schema.ModelInstanceGroup.Kind.Name(group.kind) for group in config.instance_group] == [kind]
        for ports, specs in ((config.input, entry.inputs), (config.output, entry.outputs)):
            expected = [(spec.binding, MANIFEST_TYPES[spec.dtype], list(spec.shape)) for spec in specs]
            assert [(port.name, type_name(port), inside(port)) for port in ports] == expected


@pytest.fixture(scope="module")
def served(made, tmp_path_factory):
    """Repositories on ONNX Runtime, made when first asked for."""
    cache = {}

    def make(*key, memory_input=False):
        if (key, memory_input) not in cache:
            root = tmp_path_factory.mktemp("served") / "repository"
            written = Repository.of(EngineFolder.open(made(*key).folder), Backend.ONNXRUNTIME, memory_input).write(root)
            cache[key, memory_input] = Server.of(root), written
        return cache[key, memory_input]

    return make


def requested(made_, arguments, images):
    """A request's tensors for what `Pipeline.run` is given."""
    arguments = dict(arguments)
    if "cameras" in arguments:
        cameras = cameras_from_mapping(arguments.pop("cameras"))
        arguments["fundamental"] = fundamental(cameras.values()).astype(np.float32)
    return {"images": images, **arguments}


def same(outputs, result):
    expected = result.tensors()
    if "intrinsics" in expected:  # which the client makes of the camera's numbers
        H, W = result.depth.shape[-2:]
        outputs = {**outputs, "intrinsics": intrinsics(outputs["camera"], H, W)}
    assert set(outputs) == set(expected)
    for name, array in expected.items():
        output = camera_to_world(outputs[name]) if name == "camera" else outputs[name]
        assert output.shape == array.shape, name
        error = np.linalg.norm(output - array) / np.linalg.norm(array)
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize(
    "key", [*((variant,) for variant in EXPORTED), ("memory", "float32", 2)], ids=lambda key: " ".join(map(str, key))
)
def test_a_request_gives_what_the_pipeline_gives(made, served, key):
    made_ = made(*key)
    arguments, images = made_.inputs(takes_keypoints(key[0])), made_.clip.frames
    if len(key) == 3:
        images = np.stack([images, images[::-1]])
    server, written = served(*key)
    check_wiring(server)
    check_stages(server, made_.plan.manifest(""), "onnxruntime_onnx", "KIND_AUTO")
    same(server.request(requested(made_, arguments, images)), Pipeline.load(made_.folder).run(images, **arguments))
    assert {spec.name: list(spec.shape) for spec in written.outputs} == {
        port.name: list(port.dims) for port in server.ensemble.output
    }
    assert sorted(model.name for model in written.models) == sorted(server.models)
    assert written.command == f"tritonserver --model-repository={server.root}"


def test_memory_as_an_input(made, served):
    made_ = made("memory")
    arguments, images = made_.inputs(keypoints=True), made_.clip.frames
    pipeline = Pipeline.load(made_.folder)
    memory = pipeline.run(images, **arguments).copy().memory
    server, _ = served("memory", memory_input=True)
    check_wiring(server)
    outputs = server.request(requested(made_, arguments, images) | {"memory": memory})
    outputs["memory"] = outputs.pop("memory_out")
    same(outputs, pipeline.run(images, **arguments, memory=memory))


def test_weights_lie_beside_their_model(made, served):
    """Some of these models' weights are in a file of their own, under the name that the model knows."""
    server, _ = served("default")
    beside = [path for path in server.root.glob("*/1/*") if path.suffix == ".data"]
    assert beside and all(path.read_bytes() == (made().folder / "onnx" / path.name).read_bytes() for path in beside)


@pytest.mark.parametrize(
    ("precision", "element"), [("float16", TensorProto.FLOAT16), ("bfloat16", TensorProto.BFLOAT16)]
)
def test_sixteen_bits_between_models(precision, element):
    """Types of every tensor; glue runs on a CPU in these types, too, and moves bits as they are."""
    plan = ExportPlan.make(config_of("late"), layout_of("late", 56, 70), Precision(precision))
    manifest = plan.manifest("")
    rng = np.random.default_rng(0)
    whole = rng.integers(-99, 99, manifest.spec("special").shape)
    special = (whole / 64).astype(np.float32)  # in either type without rounding
    ensemble = Ensemble.of(manifest, {"special": special}, Platform.PLAN)
    configs = [ensemble.config, *ensemble.stages.values(), *(config for config, _ in ensemble.glue)]
    server = Server({config.name: config.text() for config in configs})
    check_wiring(server)
    check_stages(server, manifest, "tensorrt_plan", "KIND_GPU")
    assert {type_name(port) for port in server.ensemble.output if port.name.startswith("layers")} == {
        MANIFEST_TYPES[precision]
    }
    glue = {config.name: (config, model) for config, model in ensemble.glue}

    images = np.zeros(plan.layout.images_shape, np.uint8)
    (constants,) = called(*glue["page4d_constants"], [(images, TensorProto.UINT8)], element)
    wide = (
        constants.view(np.float16).astype(np.float32)
        if precision == "float16"
        else (constants.astype(np.uint32) << 16).view(np.float32)
    )
    np.testing.assert_array_equal(wide, special)

    config, model = glue["page4d_layers_0"]
    tokens = rng.integers(0, 2**15, config.inputs[0].shape, np.uint16)
    (layer,) = called(config, model, [(tokens, element)], element)
    assert tokens.shape[0] == 1  # one stream, which stands for two
    np.testing.assert_array_equal(layer, np.concatenate([tokens[0], tokens[0]], axis=-1))


def called(config, model, inputs, element):
    """A model's outputs as bits: numpy has no bfloat16."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    binding, arrays = session.io_binding(), []
    for port, (array, kind) in zip(config.inputs, inputs, strict=True):
        binding.bind_ortvalue_input(port.name, onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind))
    for port in config.outputs:
        arrays.append(np.zeros(port.shape, np.uint16))
        binding.bind_ortvalue_output(
            port.name, onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(arrays[-1], element)
        )
    session.run_with_iobinding(binding)
    return arrays


def planned(source, target, library="tensorrt", plugins=0):
    """A copy of an engine folder with plans that are not."""
    shutil.copytree(source, target)
    manifest = read_manifest(target)
    (target / "plans").mkdir()
    files, stages = dict(manifest.files), {}
    for entry in manifest.stages:
        name = f"plans/{entry.name}.plan"
        (target / name).write_bytes(f"plan of {entry.name}".encode())
        files[name], stages[entry.name] = sha256(target / name), PlanEntry(name, plugins, 1, 0.0)
    plans = Plans(Flavor(library), "10.8.0", ("sm_89",), None, stages)
    write_manifest(target, msgspec.structs.replace(manifest, plans=plans, files=files))
    return target


def test_the_engine_folder_stays_readable(made, tmp_path):
    """onnx refuses weights of several names: those of the server are others."""
    folder = EngineFolder.open(made().folder)
    Repository.of(folder, Backend.ONNXRUNTIME).write(tmp_path / "models")
    onnx.checker.check_model(str(folder.file("onnx/encoder.onnx")))


@pytest.mark.parametrize("plugins", [0, 2])
def test_plans(made, tmp_path, plugins):
    folder, root = planned(made("pi3").folder, tmp_path / "engines", plugins=plugins), tmp_path / "models"
    done = started("page4d", "export-triton", folder, "-o", root, "--json")
    assert done.returncode == 0, done.stderr
    server, manifest = Server.of(root), read_manifest(folder)
    check_wiring(server)
    check_stages(server, manifest, "tensorrt_plan", "KIND_GPU")
    for entry in manifest.stages:
        version = root / ("page4d_" + entry.name.replace(".", "_")) / "1"
        assert [path.name for path in version.iterdir()] == ["model.plan"]
        assert (version / "model.plan").read_text() == f"plan of {entry.name}"
    document = json.loads(done.stdout)
    assert document["command"] in done.stderr
    assert document["command"].startswith(f"tritonserver --model-repository={root}")
    assert {model["name"]: model["platform"] for model in document["models"]} == {
        name: config.platform for name, config in server.models.items()
    }
    flag = '--backend-config=tensorrt,plugins="/opt/page4d/libpage4d_plugins_register.so"'
    assert (flag in document["command"]) == bool(plugins) and "10.8.0" in document["notes"][0]


def test_a_pool_for_large_tensors(made, tmp_path):
    """Triton sets 64 MiB of a GPU aside for tensors; what goes beyond would take the way over the host."""
    folder = EngineFolder.open(planned(made().folder, tmp_path / "engines"))
    plan = made().plan
    repository = Repository.of(folder)
    wide = 2 * math.prod(plan.layout.tokens_shape(2, plan.config.width)) * 4
    assert wide < repository.ensemble.bytes < 2 * wide + made().clip.frames.nbytes
    assert "--cuda" not in repository.write(tmp_path / "small").command
    large = dataclasses.replace(repository, ensemble=dataclasses.replace(repository.ensemble, bytes=1 << 30))
    assert f" --cuda-memory-pool-byte-size=0:{3 << 29}" in large.write(tmp_path / "large").command


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        (lambda source, target: source, "--build-only"),
        (lambda source, target: planned(source, target, library="rtx"), "--build-only"),
    ],
    ids=["no plans", "rtx plans"],
)
def test_plans_that_triton_cannot_load(made, tmp_path, folder, says):
    opened = EngineFolder.open(folder(made().folder, tmp_path / "engines"))
    with pytest.raises((UsageError, EngineError), match=says):
        Repository.of(opened)


def test_what_is_refused(made, tmp_path):
    opened = EngineFolder.open(made().folder)
    encoder, *others = opened.manifest.stages
    looped = msgspec.structs.replace(opened.manifest, stages=(msgspec.structs.replace(encoder, calls=2), *others))
    with pytest.raises(UsageError, match="--encoder-images 6"):
        Repository.of(EngineFolder(opened.path, looped), Backend.ONNXRUNTIME)
    heads = EngineFolder.open(made("page4d 2026").folder)
    stages = [
        msgspec.structs.replace(entry, calls=3) if entry.name == "depth" else entry for entry in heads.manifest.stages
    ]
    looped = msgspec.structs.replace(heads.manifest, stages=tuple(stages))
    with pytest.raises(
        UsageError, match=r"depth takes the images in parts\s+got: .*3 calls of 1 (.|\n)*--head-images 3,"
    ):
        Repository.of(EngineFolder(heads.path, looped), Backend.ONNXRUNTIME)
    with pytest.raises(UsageError, match="bfloat16"):
        Repository.of(
            EngineFolder(opened.path, msgspec.structs.replace(opened.manifest, precision=Precision.BFLOAT16)),
            Backend.ONNXRUNTIME,
        )
    with pytest.raises(UsageError, match="no memory"):
        Repository.of(opened, Backend.ONNXRUNTIME, memory_input=True)


def test_what_fails_leaves_nothing(made, tmp_path):
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "file").write_text("somebody's")
    for arguments, says in (
        (("-o", occupied, "--backend", "onnxruntime"), "not empty"),
        (("-o", tmp_path / "new"), "--build-only"),
        (("-o", tmp_path / "new", "--backend", "cuda"), "onnxruntime"),
        (("-o", tmp_path / "no" / "new", "--backend", "onnxruntime"), "mkdir -p"),
    ):
        done = started("page4d", "export-triton", made().folder, *arguments)
        assert done.returncode == 2 and says in done.stderr and not done.stdout and "Traceback" not in done.stderr, (
            done.stderr
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["occupied", "file"]
    spoiled = EngineFolder.open(made().folder)
    files = {name: digest for name, digest in spoiled.manifest.files.items() if not name.endswith(".data")}
    repository = Repository.of(
        EngineFolder(spoiled.path, msgspec.structs.replace(spoiled.manifest, files=files)), Backend.ONNXRUNTIME
    )
    with pytest.raises(EngineError, match="weights in a file"):
        repository.write(tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["occupied", "file"]


@pytest.mark.parametrize(
    ("name", "inputs", "results"),
    [
        ("first", ["images"], ["layers.0", "layers.1", "depth", "depth_confidence", "camera"]),
        ("known", ["cameras", "images"], ["layers.0", "layers.1", "depth", "depth_confidence", "camera"]),
        ("mono", ["images"], ["depth", "sky"]),
        ("pi3x", ["images"], ["layers.1", "points", "confidence", "camera", "metric"]),
    ],
)
def test_stages_of_newer_models_are_wired(tmp_path, name, inputs, results):
    folder = TorchStages(model_of(name), Layout(1, 3, H, W), 3, 3).write(tmp_path / "engines")
    ensemble = Repository.of(folder, Backend.ONNXRUNTIME).ensemble
    assert sorted(port.name for port in ensemble.config.inputs) == inputs
    assert [port.name for port in ensemble.config.outputs] == results
    has_constants = any(config.name == "page4d_constants" for config, _ in ensemble.glue)
    assert has_constants == (name in ("first", "pi3x"))


def test_an_ensemble_does_not_know_which_image_is_the_first_that_is_there(made):
    folder = EngineFolder.open(made("default", absent_views=True).folder)
    with pytest.raises(UsageError, match="without --absent-views"):
        Repository.of(folder, Backend.ONNXRUNTIME)


def test_an_ensemble_chooses_no_reference_view(tmp_path):
    folder = TorchStages(model_of("da3"), Layout(1, 3, H, W), 3, 3).write(tmp_path / "engines")
    with pytest.raises(UsageError, match=r"reference view is chosen there\s.*\s+allowed: --reference-view first"):
        Repository.of(folder, Backend.ONNXRUNTIME)
    assert Repository.of(
        TorchStages(model_of("da3"), Layout(1, 2, H, W), 2, 2).write(tmp_path / "two"), Backend.ONNXRUNTIME
    )
