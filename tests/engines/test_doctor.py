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
def found():
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


def test_what_is_installed(found):
    said = named(found.installed)
    assert set(said) == {"page4d", "python", "onnxruntime", *PACKAGES, "TensorRT", "TensorRT-RTX", "attention kernels"}
    assert said["page4d"].said == __version__ and said["python"].said == platform.python_version()
    assert said["onnxruntime"].ok and said["onnxruntime"].said.split()[0] == onnxruntime.__version__
    for name in PACKAGES:
        there = installed(name)
        assert said[name].ok == (there is not None and not TRIED[name].too_old(there))
        assert said[name].said.partition(",")[0] == (there or "not installed")
    kernels = shipped().kernels
    assert said["attention kernels"].ok and said["attention kernels"].said.startswith(f"{len(kernels)} for sm_80, ")
    assert all(kernel.entry.chip in said["attention kernels"].said for kernel in kernels.values())


@pytest.mark.parametrize(("name", "flavor"), [("TensorRT", Flavor.TENSORRT), ("TensorRT-RTX", Flavor.RTX)])
def test_which_tensorrt(found, name, flavor):
    finding = named(found.installed)[name]
    library, missing = answer(lambda: Library.find(flavor))
    assert finding.ok == (library is not None)
    if library is None:
        assert finding.said.startswith(missing.what) and finding.hint == missing.hint is not None
    else:
        assert finding.said.startswith(".".join(map(str, library.version)))
    if installed("tensorrt-rtx-cu13-libs") and flavor is Flavor.RTX:
        assert finding.said.startswith(f"{version('tensorrt-rtx-cu13-libs').rpartition('.')[0]}, for CUDA 13")


def test_the_machine(found):
    said = named(found.machine)
    _, missing = answer(driver)
    assert said["system"].said == f"{platform.system()} {platform.machine()}" and said["system"].ok
    assert said["driver"].ok == (missing is None)
    if missing is None:
        assert said["driver"].said.startswith("CUDA ") and said["GPU 0"].said.endswith(f", sm_{capability_of(0)}")
    else:
        assert said["driver"].said.startswith(missing.what) and set(said) == {"system", "driver"}


def test_what_the_machine_can(found):
    said = named(found.can)
    assert list(said) == [
        "page4d-export",
        "frames in videos",
        "build plans",
        "--backend tensorrt",
        "--backend cuda",
        "--backend onnxruntime",
    ]
    assert said["--backend onnxruntime"].ok
    assert said["page4d-export"].ok == all(map(installed, ("torch", "onnxscript")))
    for name, call in (
        ("build plans", lambda: library_for(None)),
        ("--backend tensorrt", lambda: (capability_of(0), Library.find())),
    ):
        there, missing = answer(call)
        assert said[name].ok == (there is not None), name
        assert missing is None or said[name].said.startswith(missing.what), name
    if said["build plans"].ok:
        assert said["build plans"].said == f"with {library_for(None)}"
    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and answer(driver)[1] is None
    assert gpu or (not said["--backend cuda"].ok and said["--backend cuda"].said)


def test_exporting_without_torch(monkeypatch):
    from page4d_engines import doctor

    def without(name):
        if name == "torch":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    found = diagnose()
    export = named(found.can)["page4d-export"]
    assert not named(found.installed)["torch"].ok and not export.ok
    assert export.said == "torch not installed" and export.hint == 'pip install "page4d[export]"'


def invoke(*arguments):
    return inside(*arguments, function=doctor_command)


def test_the_command_as_json(found):
    done = invoke("--json")
    assert done.returncode == 0 and msgspec.json.decode(done.stdout, type=Diagnosis) == found


def test_the_command(found):
    """Missing things are no failure; each line is marked, and says how to mend it."""
    done = invoke()
    assert done.returncode == 0 and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    words = " ".join(done.stdout.split())
    for finding in (*found.installed, *found.machine, *found.can):
        (line,) = (line for line in lines if line[3:].startswith(f"{finding.name} "))
        assert line.startswith("-") != finding.ok, line
        assert " ".join(finding.said.split()[:4]) in words
        assert finding.hint is None or finding.hint.split(",")[0].rstrip('"') in words, finding.hint
