"""Plans and machines: what goes together, what TensorRT's inspector says of a plan, and which backend a folder gets."""

import json
import logging
import pathlib
import shutil

import msgspec
import pytest

from page4d.errors import AccuracyError, EngineError, MissingBackendError
from page4d.manifest import Flavor, PlanEntry, Plans
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.tensorrt.builder import BuildOptions
from page4d_engines.tensorrt.layers import AttentionNode, check, read_inspector
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.plans import PlanBuildRequest, build_into, library_for
from page4d_engines.tensorrt.requirements import Machine, cuda_of
from page4d_plugins.driver import driver

FOLDER = pathlib.Path("engines")
RTX = Library.find(Flavor.RTX)
FULL = Library(Flavor.TENSORRT, RTX.module, (10, 13, 0))
NEW_CUDA = (99, 0)


def has_driver():
    try:
        driver()
    except MissingBackendError:
        return False
    return True


def plans_of(library, chips=("sm_89", "sm_120"), kernels="ours"):
    entry = PlanEntry("encoder.plan", plugins=1, fused=0, seconds=1.0)
    return Plans(library.flavor, ".".join(map(str, library.version)), chips, kernels, {"encoder": entry})


@pytest.mark.parametrize("library", [RTX, FULL], ids=str)
@pytest.mark.parametrize(
    ("capability", "chips"), [(89, ("sm_89", "sm_120")), (120, ("sm_89", "sm_120")), (80, ()), (122, ())]
)
@pytest.mark.parametrize("kernels", ["ours", None])
def test_plans_that_run_here(library, capability, chips, kernels):
    Machine(library, capability, NEW_CUDA, "ours").require(plans_of(library, chips, kernels), FOLDER)
    if kernels is None:
        Machine(library, capability, NEW_CUDA, "theirs").require(plans_of(library, chips, kernels), FOLDER)


@pytest.mark.parametrize("library", [RTX, FULL], ids=str)
def test_plans_that_do_not_run_here(library):
    """One by one, as `Machine.require` names them: what is wrong first is said first."""
    name, flavor = ("TensorRT-RTX", "rtx") if library is RTX else ("TensorRT", "tensorrt")
    rebuild = f"page4d-export --build-only engines --backend {flavor}"
    wrong = msgspec.structs.replace(plans_of(library, kernels="theirs" * 12), version="1.2.3")
    old = Machine(library, 86, (1, 0), "ours" * 20)

    def refusal(plans, machine=old):
        with pytest.raises(EngineError) as raised:
            machine.require(plans, FOLDER)
        return raised.value

    version = ".".join(map(str, library.version))
    error = refusal(wrong)
    assert (error.what, error.got, error.allowed, error.hint) == (
        f"the plans were built by another {name}",
        "1.2.3",
        version,
        rebuild,
    )
    wrong = msgspec.structs.replace(wrong, version=version)
    error = refusal(wrong)
    assert (error.what, error.got, error.allowed) == (
        "the plans were built for other GPUs than this one",
        "sm_89, sm_120",
        "sm_86",
    )
    assert error.hint == (f"{rebuild} --target sm_86" if library is RTX else rebuild)
    wrong = msgspec.structs.replace(wrong, chips=("sm_86",))
    error = refusal(wrong)
    assert "another version of page4d's kernels" in error.what and error.hint == rebuild
    assert (error.got, error.allowed) == ("theirstheirs..", "oursoursours..")


def test_plans_in_fp8_begin_with_sm_89():
    plans = msgspec.structs.replace(plans_of(RTX, ()), least_chip=89)
    for capability in (89, 120, 121):
        Machine(RTX, capability, NEW_CUDA, "ours").require(plans, FOLDER)
    with pytest.raises(
        EngineError,
        match=(
            r"(?s)other GPUs than this one.*sm_89 and newer.*sm_86.*page4d-export --fp16: this GPU has no fp8 products"
        ),
    ):
        Machine(RTX, 86, NEW_CUDA, "ours").require(plans, FOLDER)


@pytest.mark.parametrize("capability", [87, 90, 100, 110])
def test_gpus_that_tensorrt_rtx_does_not_run_on(capability):
    """It builds for any machine, and says only when it loads a plan that it does not compute here."""
    allowed = r"sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 and newer.*--backend cuda, or full TensorRT"
    with pytest.raises(EngineError, match=rf"(?s){RTX} does not run on this GPU.*sm_{capability}.*{allowed}"):
        Machine(RTX, capability, NEW_CUDA, "ours").require(plans_of(RTX, ()), FOLDER)
    (warning,) = RTX.warnings(f"sm_{capability}", native=False)
    assert "builds for other machines" in warning
    assert RTX.warnings("sm_89", native=False) == RTX.warnings(None, native=False) == []


def test_plans_for_every_gpu_begin_with_sm_80():
    with pytest.raises(
        EngineError,
        match=(
            r"(?s)other GPUs than this one.*sm_80 and newer.*sm_75.*--build-only engines --backend rtx --target sm_75"
        ),
    ):
        Machine(RTX, 75, NEW_CUDA, "ours").require(plans_of(RTX, ()), FOLDER)


def test_a_driver_that_is_too_old():
    needed = cuda_of(RTX)
    assert needed in (12, 13)
    Machine(RTX, 89, (needed, 0), "ours").require(plans_of(RTX), FOLDER)
    with pytest.raises(
        EngineError,
        match=rf"(?s){RTX} is for CUDA {needed}, and this GPU's driver is older.*CUDA {needed - 1}\.8.*a newer driver",
    ):
        Machine(RTX, 89, (needed - 1, 8), "ours").require(plans_of(RTX), FOLDER)


# ---- the inspector's list


NODE = AttentionNode("attention", 51, 40, channels=16, prior=False, parts=1)


def tensor(name, shape, dtype="Half"):
    return {"Name": name, "Location": "Device", "Dimensions": list(shape), "Format/Datatype": dtype}


def layer(name, kind, inputs=(), outputs=(), **more):
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": list(inputs),
        "Outputs": list(outputs),
        "TacticName": "tactic",
        "StreamId": 0,
        **more,
    }


PLUGIN = layer(
    "attention",
    "PluginV3",
    [tensor("q", (4, 2, 51, 16), "Row major linear FP16 format")],
    [tensor("out", (4, 2, 51, 16))],
)
PRODUCT = layer(
    "__myl_MatMul",
    "gemm",
    [tensor("tokens", (204, 128)), tensor("w", (128, 128))],
    [tensor("qkv", (204, 384))],
    Metadata="[ONNX Layer: n1][ONNX Layer: n2]",
)
NORM = layer("__myl_Norm", "kgen", [tensor("tokens", (204, 128), "Float")], [tensor("normed", (204, 128))])
FUSED = layer("_gemm_mha_v2_0", "kgen", [tensor("q", (4, 2, 51, 16))], [tensor("out", (4, 2, 51, 16))])


def inspected(*layers, stage="view_sa.0"):
    return read_inspector(stage, json.dumps({"Layers": list(layers), "Bindings": ["tokens", "tokens_out"]}))


def test_what_the_inspector_lists():
    plugin, product, norm = inspected(PLUGIN, PRODUCT, NORM)
    assert plugin.is_plugin and not product.is_plugin and not norm.is_plugin
    assert (plugin.inputs[0].name, plugin.inputs[0].shape, plugin.inputs[0].dtype) == ("q", (4, 2, 51, 16), "FP16")
    assert product.kind == "gemm" and product.sources == ("n1", "n2")
    assert [operand.dtype for operand in product.inputs] == ["Half", "Half"]
    assert norm.inputs[0].dtype == "Float" and norm.outputs[0].shape == (204, 128) and norm.sources == ()
    (plain,) = inspected(
        layer(
            "reformat",
            "Reformat",
            [tensor("x", (2, 3), "Row major linear FP32 format")],
            [tensor("y", (2, 3), "Row major Int8 format")],
        )
    )
    assert plain.inputs[0].dtype == "FP32"


def test_a_list_that_is_as_it_should_be():
    check("s", inspected(PLUGIN, PRODUCT, NORM), [NODE], "float16", native=False)
    check("s", inspected(FUSED, PRODUCT, NORM), [NODE], "float16", native=True)
    for native, layers in ((False, (PRODUCT,)), (False, (PLUGIN, PLUGIN)), (False, (FUSED,)), (True, (PLUGIN,))):
        with pytest.raises(AccuracyError, match="not all attentions of s became"):
            check("s", inspected(*layers), [NODE], "float16", native)


def test_an_n_by_n_tensor_is_found():
    logits = layer(
        "softmax",
        "kgen",
        [tensor("q", (4, 2, 51, 16))],
        [tensor("logits", (4, 2, 51, 40), "Row major linear FP16 format")],
    )
    with pytest.raises(
        AccuracyError, match=r"(?s)plan of s holds an n x n tensor.*logits \[4, 2, 51, 40\] of layer softmax"
    ):
        check("s", inspected(PLUGIN, logits), [NODE], "float16", native=False)


@pytest.mark.parametrize("dtype", ["Float", "Row major linear FP32 format"])
def test_a_wide_product_is_found(dtype):
    wide = layer(
        "wide",
        "gemm",
        [tensor("x", (204, 128), dtype), tensor("w", (128, 128), dtype)],
        [tensor("y", (204, 128), dtype)],
    )
    with pytest.raises(AccuracyError, match=r"(?s)a product of s is computed in float32.*layer wide"):
        check("s", inspected(PLUGIN, wide), [NODE], "float16", native=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps({"Layers": ["view_sa", "attention"], "Bindings": []}), "TensorRT gave no details"),
        (json.dumps({"Layers": [PLUGIN, "attention"]}), "TensorRT gave no details"),
        (json.dumps({"Layers": []}), "TensorRT gave no details"),
        ("{}", "TensorRT gave no details"),
        ("[]", "cannot be read back"),
        ("", "cannot be read back"),
        (json.dumps({"Layers": [PLUGIN]})[:-9], "cannot be read back"),
    ],
)
def test_a_list_that_says_nothing_is_refused(text, says):
    with pytest.raises(
        EngineError,
        match=rf"the layers of view_sa\.0 cannot be read back.*(?s:.*){says}" if says.startswith("T") else says,
    ):
        read_inspector("view_sa.0", text)


# ---- backends


@pytest.fixture(scope="module")
def planned(made, tmp_path_factory):
    """A folder with plans for two GPU architectures."""
    folder = shutil.copytree(made("default", "float16").folder, tmp_path_factory.mktemp("planned") / "engines")
    build_into(
        EngineFolder.open(folder),
        PlanBuildRequest(library_for(Flavor.RTX), BuildOptions(("sm_89", "sm_120")), Precision.FLOAT16, native=False),
    )
    return folder


@pytest.mark.skipif(has_driver(), reason="there is a GPU")
def test_without_a_gpu_plans_are_left_with_a_warning(planned, made, caplog):
    with caplog.at_level(logging.INFO, "page4d"):
        pipeline = Pipeline.load(planned)
    assert pipeline.backend in (Backend.OPENVINO, Backend.ONNXRUNTIME)
    remarks = {
        record.getMessage().split(":")[0]: record
        for record in caplog.records
        if record.getMessage().startswith("not on")
    }
    assert list(remarks)[:2] == ["not on tensorrt", "not on cuda"]
    assert remarks["not on tensorrt"].levelno == logging.WARNING
    assert "no GPU driver answers" in remarks["not on tensorrt"].getMessage()
    assert remarks["not on cuda"].levelno == logging.INFO, "which nobody expected to be used"
    assert pipeline.run(made().clip.frames).mask.shape == pipeline.manifest.layout.mask_shape
    with pytest.raises(MissingBackendError, match="no GPU driver answers"):
        Pipeline.load(planned, backend="tensorrt")


@pytest.mark.skipif(has_driver(), reason="there is a GPU")
def test_without_plans_nobody_is_warned(made, caplog):
    with caplog.at_level(logging.INFO, "page4d"):
        pipeline = Pipeline.load(made("default", "float16").folder)
    assert pipeline.backend in (Backend.OPENVINO, Backend.ONNXRUNTIME)
    assert caplog.records and all(record.levelno == logging.INFO for record in caplog.records)


def test_rounding_means_the_cpu(planned, caplog):
    with caplog.at_level(logging.INFO, "page4d"):
        assert Pipeline.load(planned, rounding=True).backend is Backend.ONNXRUNTIME
    assert not caplog.records
