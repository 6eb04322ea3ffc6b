"""scripts/environment.sh, test.sh and demo.sh on machines that lack packages: what is installed, what is only named."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
STUBS = {  # of a Debian: `installed` lists its packages, `user` is its user's number, `calls` records who was called
    "dpkg-query": 'grep -qx "$4" installed && echo "install ok installed"',
    "id": "cat user",
    "sleep": "",
    "sudo": 'echo "sudo $*" >>calls',
    "apt-get": """echo "apt-get $*" >>calls
if [ "$1" = update ] && [ -e locked ]; then rm locked; echo "E: Could not get lock x" >&2; exit 100; fi""",
    "python3": f"""if [ "$2" = "import ensurepip" ]; then [ -e ensurepip ]; else
echo "python3 $*" >>calls; exec {sys.executable} "$@"; fi""",
}


class Machine:
    def __init__(self, folder, user, installed, ensurepip=True):
        self.folder = folder
        (folder / "scripts").mkdir()
        for name in ("test.sh", "demo.sh", "scripts/environment.sh"):
            shutil.copy(ROOT / name, folder / name)
        (folder / "user").write_text(f"{user}\n")
        (folder / "installed").write_text("\n".join(installed) + "\n")
        if ensurepip:
            (folder / "ensurepip").touch()
        (folder / "bin").mkdir()
        for name, body in STUBS.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
            (folder / "bin" / name).chmod(0o755)

    def run(self, *command):
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        return subprocess.run(command, cwd=self.folder, env={"PATH": path}, capture_output=True, text=True, timeout=60)

    def need(self, *packages):
        return self.run("bash", "-c", '. scripts/environment.sh; need_packages "$@"', "-", *packages)

    @property
    def calls(self):
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []


def test_without_root_the_command_is_named_and_nothing_is_run(tmp_path):
    machine = Machine(tmp_path, 1000, ["g++", "libpng-dev"])
    done = machine.need("g++", "libeigen3-dev", "libpng-dev", "nlohmann-json3-dev")
    assert (done.returncode, done.stdout, machine.calls) == (1, "", [])
    assert done.stderr.splitlines() == [
        "page4d: packages are missing; install them and start again:",
        "  sudo apt-get install libeigen3-dev nlohmann-json3-dev",
    ]


def test_root_installs_what_is_missing_and_waits_for_dpkgs_lock(tmp_path):
    machine = Machine(tmp_path, 0, ["g++"])
    done = machine.need("g++", "libeigen3-dev")
    assert done.returncode == 0, done.stderr
    assert machine.calls == ["apt-get update -qq", "apt-get -o DPkg::Lock::Timeout=300 install -y -qq libeigen3-dev"]


def test_root_waits_while_another_program_updates_the_package_lists(tmp_path):
    machine = Machine(tmp_path, 0, [])
    (tmp_path / "locked").touch()
    assert machine.need("g++").returncode == 0
    assert [call.split()[-1] for call in machine.calls] == ["-qq", "-qq", "g++"]


@pytest.mark.parametrize("user", [0, 1000])
def test_nothing_happens_where_all_packages_are_there(tmp_path, user):
    machine = Machine(tmp_path, user, ["g++"])
    done = machine.need("g++")
    assert (done.returncode, done.stderr, machine.calls) == (0, "", [])


def test_a_system_without_dpkg_is_asked_for_nothing(tmp_path):
    machine = Machine(tmp_path, 1000, [])
    (tmp_path / "bin" / "dpkg-query").unlink()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "bash").symlink_to(shutil.which("bash"))
    command = f"PATH={tmp_path}/tools; . scripts/environment.sh; need_packages g++"
    assert machine.run("bash", "-c", command).returncode == 0 and machine.calls == []


@pytest.mark.parametrize(
    ("script", "missing"),
    [("demo.sh", ["python3-venv"]), ("test.sh", ["python3-venv", "g++", "g++-aarch64-linux-gnu"])],
)
def test_scripts_stop_before_they_make_anything_and_name_all_packages_at_once(tmp_path, script, missing):
    machine = Machine(tmp_path, 1000, [], ensurepip=False)
    done = machine.run(f"./{script}")
    assert (done.returncode, machine.calls) == (1, [])
    asked = done.stderr.splitlines()[-1]
    assert asked.startswith(f"  sudo apt-get install {' '.join(missing)}") and not (tmp_path / ".venv").exists()


def test_an_environment_that_is_there_needs_no_package_to_make_one(tmp_path):
    machine = Machine(tmp_path, 1000, [], ensurepip=False)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/bin/false")  # the script goes on to pip, and ends there
    done = machine.run("./demo.sh")
    assert done.returncode == 1 and "apt-get" not in done.stderr
