"""`page4d doctor`: what it says of the machine that the tests run on, with a GPU or without."""

import platform
from importlib.metadata import PackageNotFoundError, version

import msgspec
import onnxruntime
import pytest

from page4d import __version__
from page4d.errors import MissingBackendError
from page4d.manifest import Flavor
from page4d_engines.doctor import Diagnosis, diagnose
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.plans import library_for
from page4d_engines.versions import TRIED
from page4d_export.commands.doctor import doctor_command
from page4d_plugins.driver import capability_of, driver
from page4d_plugins.kernel_pack import shipped
from tests.support.commands import inside

PACKAGES = tuple(name for name in TRIED if name != "onnxruntime")


@pytest.fixture(scope="module")
def diagnosis():
    return diagnose()


def named(findings):
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def answer(call):
    """What a call gives, or the error that says why not."""
    try:
        return call(), None
    except MissingBackendError as missing:
        return None, missing


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def test_what_is_installed(diagnosis):
    findings = named(diagnosis.installed)
    other = {"page4d", "python", "onnxruntime", "TensorRT", "TensorRT-RTX", "attention kernels"}
    assert set(findings) == {*PACKAGES, *other}
    assert findings["page4d"].said == __version__ and findings["python"].said == platform.python_version()
    assert findings["onnxruntime"].ok and findings["onnxruntime"].said.split()[0] == onnxruntime.__version__
    for name in PACKAGES:
        there = installed(name)
        assert findings[name].ok == (there is not None and not TRIED[name].too_old(there))
        assert findings[name].said.partition(",")[0] == (there or "not installed")
    kernels, attention = shipped().kernels, findings["attention kernels"]
    assert attention.ok and attention.said.startswith(f"{len(kernels)} for sm_80, ")
    assert all(kernel.entry.chip in attention.said for kernel in kernels.values())


@pytest.mark.parametrize(("name", "flavor"), [("TensorRT", Flavor.TENSORRT), ("TensorRT-RTX", Flavor.RTX)])
def test_which_tensorrt(diagnosis, name, flavor):
    finding = named(diagnosis.installed)[name]
    library, missing = answer(lambda: Library.find(flavor))
    assert finding.ok == (library is not None)
    if library is None:
        assert finding.said.startswith(missing.what) and finding.hint == missing.hint is not None
    else:
        assert finding.said.startswith(".".join(map(str, library.version)))
    if installed("tensorrt-rtx-cu13-libs") and flavor is Flavor.RTX:
        assert finding.said.startswith(f"{version('tensorrt-rtx-cu13-libs').rpartition('.')[0]}, for CUDA 13")


def test_the_machine(diagnosis):
    findings = named(diagnosis.machine)
    _, missing = answer(driver)
    assert findings["system"].said == f"{platform.system()} {platform.machine()}" and findings["system"].ok
    assert findings["driver"].ok == (missing is None)
    if missing is None:
        assert findings["driver"].said.startswith("CUDA ")
        assert findings["GPU 0"].said.endswith(f", sm_{capability_of(0)}")
    else:
        assert findings["driver"].said.startswith(missing.what) and set(findings) == {"system", "driver"}


def test_what_the_machine_can(diagnosis):
    findings = named(diagnosis.can)
    assert list(findings) == [
        "page4d-export",
        "frames in videos",
        "weights from a hub",
        "build plans",
        "--backend tensorrt",
        "--backend cuda",
        "--backend onnxruntime",
        "--backend openvino",
    ]
    assert findings["--backend openvino"].ok == (installed("openvino") is not None)
    assert findings["--backend onnxruntime"].ok
    assert findings["page4d-export"].ok == all(map(installed, ("torch", "onnxscript")))
    for name, call in (
        ("build plans", lambda: library_for(None)),
        ("--backend tensorrt", lambda: (capability_of(0), Library.find())),
    ):
        there, missing = answer(call)
        assert findings[name].ok == (there is not None), name
        assert missing is None or findings[name].said.startswith(missing.what), name
    if findings["build plans"].ok:
        assert findings["build plans"].said == f"with {library_for(None)}"
    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and answer(driver)[1] is None
    assert gpu or (not findings["--backend cuda"].ok and findings["--backend cuda"].said)


def test_exporting_without_torch(monkeypatch):
    from page4d_engines import doctor

    def without(name):
        if name == "torch":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    diagnosis = diagnose()
    export = named(diagnosis.can)["page4d-export"]
    assert not named(diagnosis.installed)["torch"].ok and not export.ok
    assert export.said == "torch not installed" and export.hint == 'pip install "page4d[export]"'


def invoke(*arguments):
    return inside(*arguments, function=doctor_command)


def test_the_command_as_json(diagnosis):
    done = invoke("--json")
    assert done.returncode == 0 and msgspec.json.decode(done.stdout, type=Diagnosis) == diagnosis


def test_the_command(diagnosis):
    """Missing things are no failure; each line is marked, and says how to mend it."""
    done = invoke()
    assert done.returncode == 0 and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    words = " ".join(done.stdout.split())
    for finding in (*diagnosis.installed, *diagnosis.machine, *diagnosis.can):
        (line,) = (line for line in lines if line[3:].startswith(f"{finding.name} "))
        assert line.startswith("-") != finding.ok, line
        assert " ".join(finding.said.split()[:4]) in words
        assert finding.hint is None or finding.hint.split(",")[0].rstrip('"') in words, finding.hint
