"""The version stands in pyproject.toml; everything else that states it is held to it."""

import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
import yaml

import page4d

ROOT = pathlib.Path(__file__).parents[1]
VERSION = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def test_python_says_the_version_that_is_installed():
    assert page4d.__version__ == VERSION, "the installed package is another one: pip install --editable . again"


def test_a_checkout_that_is_only_on_the_path_has_no_version(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert page4d.__version__ == "0+unknown"


@pytest.mark.parametrize(
    "entry", ["page4d_export.entry:main", "page4d_export.entry:export", "page4d_engines.entry:run"]
)
def test_every_command_says_it(entry):
    module, _, function = entry.partition(":")
    code = f"import {module}; {module}.{function}()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"page4d {VERSION}\n", "")


def test_the_ros_package_has_it():
    package = xml.etree.ElementTree.parse(ROOT / "examples" / "ros2" / "package.xml").getroot()
    assert package.findtext("version") == VERSION


def test_the_citation_has_it():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION


def test_the_changelog_tells_of_it():
    assert re.search(rf"^## \[{re.escape(VERSION)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


PROBE = """file(WRITE "${CMAKE_BINARY_DIR}/version" "${PROJECT_VERSION}")
message(FATAL_ERROR "no more than the version is asked for")
"""


@pytest.mark.parametrize("source", ["engines/cpp", "plugins/csrc"])
def test_cmake_projects_have_it(tmp_path, source):
    """CMake reads PROBE right after `project()`, and stops there."""
    (tmp_path / "probe.cmake").write_text(PROBE)
    probe = f"-DCMAKE_PROJECT_INCLUDE={tmp_path / 'probe.cmake'}"
    command = ["cmake", "-S", ROOT / source, "-B", tmp_path / "build", probe]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (tmp_path / "build" / "version").is_file(), done.stderr
    assert (tmp_path / "build" / "version").read_text() == VERSION
