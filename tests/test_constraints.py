"""constraints.txt: one version of everything that test.sh installs, which pyproject.toml allows, for every Python."""

import pathlib
import re

import pytest
import yaml
from packaging.requirements import Requirement

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = pathlib.Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def markers(python):
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_python_implementation": "CPython",
    }


def requirements():
    """What test.sh asks pip for: page4d's own requirements and those of the extras that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    script = (ROOT / "scripts" / "environment.sh").read_text()
    extras = re.search(r"^TEST_EXTRAS=(\S+)", script, re.MULTILINE)[1].split(",")
    return [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]


def pins(python):
    """The version of each package on one Python."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    here = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate(markers(python))]
    assert len({pin.name for pin in here}) == len(here)
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in here}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_one_version_which_it_allows(python):
    locked = pins(python)
    for line in requirements():
        asked = Requirement(line)
        if asked.marker is None or asked.marker.evaluate(markers(python)):
            assert asked.name in locked, f"{line}: run scripts/lock.sh"
            assert asked.specifier.contains(locked[asked.name]), f"{line} has {locked[asked.name]}: run scripts/lock.sh"


def test_versions_are_all_that_is_written():
    """No index, no folder: where packages come from is the machine's own matter."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9a-z.+!]+( ; [a-z_ '.<>=*0-9!A-Z()]+)?", line), (
            line
        )


def test_hooks_before_a_commit_use_the_same_versions():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    asked = {
        (pin.name, str(pin.specifier)) for hook in hooks for pin in map(Requirement, hook["additional_dependencies"])
    }
    newest = pins(PYTHONS[-1])
    assert asked == {(name, f"=={newest[name]}") for name in ("ruff", "clang-format")}


def test_the_workflow_runs_all_checks_on_the_lowest_and_the_newest_python():
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"].values()
    assert [entry["python"] for entry in job["strategy"]["matrix"]["include"]] == [PYTHONS[0], PYTHONS[-1]]
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "./test.sh"
