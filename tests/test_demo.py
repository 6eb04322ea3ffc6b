"""`demo.sh --photos`: the real script and the real commands, in an environment that is there already."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from page4d.cameras import read_cameras
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save
from tests.support.checkpoints import pi3_state, save_pi3
from tests.support.commands import program
from tests.support.hub.hub_server import serving

ROOT = pathlib.Path(__file__).parents[1]
PYTHON = f"""case "$*" in
    *pip*) echo "pip $*" >>calls ;;
    *) exec {sys.executable} "$@" ;;
esac"""
NO_NETWORK = """echo "page4d-export $*" >>calls
echo "page4d: the hub cannot be reached" >&2
exit 1"""


class Copy:
    """A copy of the script in a folder, whose `.venv` has the commands of this environment."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        for name in ("demo.sh", "scripts/environment.sh", "scripts/demo_photos.py"):
            shutil.copy(ROOT / name, folder / name)
        (folder / ".venv" / "bin").mkdir(parents=True)
        self.command("python", PYTHON)
        for name in ("page4d", "page4d-export", "page4d-run"):
            python, flag, code = program(name)
            self.command(name, f'echo "{name} $*" >>calls; exec {python} {flag} "{code}" "$@"')

    def command(self, name, body):
        path = self.folder / ".venv" / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, *arguments, cwd=None, **environment):
        return subprocess.run(
            [self.folder / "demo.sh", *arguments],
            cwd=cwd or self.folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    @property
    def calls(self):
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path / "page4d")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small Pi3: depth and cameras of photos, as of the weights that the demo downloads."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_pi3(path, pi3_state(64, 1, 2))
    return path


@pytest.fixture
def photos(tmp_path):
    """Makes a folder of photos of these sizes."""

    def make(*sizes):
        folder = tmp_path / "my photos"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for number, (width, height) in enumerate(sizes):
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"IMG_{number + 1}.jpg")
        return folder

    return make


def exported(copy):
    return next(call for call in copy.calls if call.startswith("page4d-export")).split()


@pytest.mark.slow
def test_photos_become_points_cameras_depth_and_a_report(copy, photos, weights):
    folder = photos(*[(806, 91)] * 2)  # wide ones are computed fast
    relative = os.path.relpath(folder, folder.parent), os.path.relpath(weights, folder.parent)
    done = copy.run("--photos", relative[0], "--weights", relative[1], cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    out = copy.folder / "demo" / "out"
    assert exported(copy)[2:] == ["--T", "1", "--V", "2", "--height", "56", "--width", "504", "-o", "demo/engines"]
    summary = read_summary(out / "summary.json")
    assert summary.cameras == ["IMG_1", "IMG_2"] and list(read_cameras(out / "cameras.json")) == ["IMG_1", "IMG_2"]
    assert f"element vertex {summary.points}\n".encode() in (out / "points.ply").read_bytes()
    assert load_file(out / summary.windows[0].file)["points"].shape == (1, 2, 56, 504, 3)
    assert len(list((out / "depth").iterdir())) == 2
    for name in ("report.html", "points.ply", "cameras.json", "depth/"):
        assert f"{out}/{name}" in done.stdout


@pytest.mark.slow
def test_weights_come_from_the_hub_or_their_absence_is_said(copy, photos, weights, tmp_path):
    """A small model under the published name; then the hub is gone, and its cache too."""
    pytest.importorskip("huggingface_hub")
    folder = photos((504, 56))
    with serving() as server:
        server.add("depth-anything/DA3-SMALL", {"model.safetensors": weights.read_bytes()})
        environment = {"HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "0"}
        done = copy.run("--photos", folder, HF_HOME=str(tmp_path / "cache"), **environment)
    assert done.returncode == 0, done.stderr
    assert (copy.folder / "demo" / "out" / "points.ply").exists()
    done = copy.run("--photos", folder, HF_HOME=str(tmp_path / "none"), **environment)
    assert done.returncode == 1 and "page4d: " in done.stderr and "Traceback" not in done.stderr
    assert "by hand: where a network is" in done.stderr and not (copy.folder / "demo" / "engines").exists()


def test_without_a_folder_rendered_photos_and_the_published_weights_are_used(copy):
    copy.command("page4d", 'echo "page4d $*" >>calls')
    copy.command("page4d-export", NO_NETWORK)
    done = copy.run("--photos")
    arguments = "depth-anything/DA3-SMALL --T 1 --V 4 --height 378 --width 504 -o demo/engines"
    assert exported(copy)[1:] == arguments.split()
    assert "page4d clip --T 1 --V 4 --width 640 --height 480 -o demo/photos" in copy.calls
    assert "pip -m pip install --quiet --no-compile .[export,hub,heic]" in copy.calls
    assert done.returncode == 1


def test_an_installation_is_announced_and_its_failure_ends_the_demo(copy):
    (copy.folder / ".venv" / "bin" / "page4d").unlink()
    copy.command("python", "exit 7")
    done = copy.run("--photos")
    assert done.returncode == 7 and done.stdout.startswith("installing page4d and PyTorch into ")
    assert "1/3" not in done.stdout


@pytest.mark.parametrize("code", [1, 5])
def test_without_the_weights_it_says_what_was_tried_and_the_manual_way(copy, photos, code):
    folder = photos((80, 60))
    copy.command("page4d-export", NO_NETWORK.replace("exit 1", f"exit {code}"))
    done = copy.run("--photos", folder)
    assert done.returncode == code and "the hub cannot be reached" in done.stderr
    messages = " ".join(done.stderr.split())
    assert "tried: page4d-export depth-anything/DA3-SMALL" in messages
    assert "model.safetensors and config.json of https://huggingface.co/depth-anything/DA3-SMALL" in messages
    assert f"./demo.sh --photos '{folder}' --weights THAT_FOLDER" in messages
    assert not (copy.folder / "demo" / "out").exists() and not any(call.startswith("page4d-run") for call in copy.calls)


@pytest.mark.parametrize(
    ("sizes", "views", "height", "width", "messages"),
    [
        ([(60, 80)] * 3, 3, 504, 378, ""),
        ([(160, 90)] * 2, 2, 280, 504, ""),
        ([(80, 60)] * 19, 8, 378, 504, "8 of the 19 photos are used"),
        ([(80, 60), (60, 80), (80, 60)], 3, 378, 378, "the photos differ in size: of each the middle of 378x378"),
        ([(80, 60), (40, 30)], 2, 378, 504, ""),  # scaled to one size
        ([(80, 60)], 1, 378, 504, ""),
    ],
)
def test_the_engine_is_as_the_photos_are(copy, photos, sizes, views, height, width, messages):
    copy.command("page4d-export", 'echo "page4d-export $*" >>calls')
    copy.command("page4d-run", 'echo "page4d-run $*" >>calls')
    folder = photos(*sizes)
    done = copy.run("--photos", folder)
    assert done.returncode == 0, done.stderr
    assert exported(copy)[2:10] == f"--T 1 --V {views} --height {height} --width {width}".split()
    assert messages in done.stderr and bool(messages) == bool(done.stderr)
    names = sorted(
        (path.name for path in (copy.folder / "demo" / "photos").iterdir()), key=lambda name: int(name[4:-4])
    )
    assert len(names) == views and (names[0], names[-1]) == ("IMG_1.jpg", f"IMG_{len(sizes)}.jpg")
    assert copy.calls[-1] == "page4d-run demo/engines demo/photos -o demo/out"


def test_what_is_refused_deletes_nothing(copy, photos, tmp_path):
    inside = copy.folder / "demo" / "mine"
    inside.mkdir(parents=True)
    (inside / "IMG_1.jpg").write_text("precious")
    for arguments, message in (
        (("--photos", tmp_path / "none"), "there is no such folder of photos"),
        (("--photos", inside), "lies in demo/, which is deleted first"),
        (("--photos", photos((80, 60)), "--weights", inside / "IMG_1.jpg"), "lies in demo/, which is deleted first"),
        (("--weights", "x"), "--weights goes with --photos"),
        (("--photos", "--weights"), "--weights names a file"),
        (("--phots",), "unknown argument: --phots"),
    ):
        done = copy.run(*arguments)
        assert done.returncode == 2 and message in done.stderr and "usage: ./demo.sh" in done.stderr
    assert (inside / "IMG_1.jpg").read_text() == "precious" and copy.calls == []
    assert copy.run("--help").stdout.startswith("usage: ./demo.sh")


def test_a_folder_without_photos_is_an_error_in_words(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    done = copy.run("--photos", tmp_path / "empty")
    assert done.returncode == 2 and done.stderr.startswith("page4d: ") and "empty" in done.stderr
    save(render(2, 2, 56, 42, seed=0), tmp_path / "clip")
    done = copy.run("--photos", tmp_path / "clip")
    assert done.returncode == 2 and "this is a clip, not a folder of photos" in done.stderr
    assert not any(call.startswith("page4d-export") for call in copy.calls)
