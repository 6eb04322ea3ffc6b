"""The example with Ray Data, as a person runs it: a local cluster of two workers on the CPU."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import typer
from safetensors.numpy import load_file

from page4d.errors import UsageError
from page4d.system.progress import SILENT
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "ray" / "many_clips.py"
# two CPUs at most: Ray starts a process for each that it sees; and Ctrl-C, which a background process ignores
STARTED = """
import os, runpy, signal, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
WORKERS = ("--workers", "2", "--threads", "1")
LENGTHS = {"b-short": 3, "c-long": 8, "d-middle": 5, "e-again": 4, "a-broken": 4}


@pytest.fixture(scope="module")
def environment():
    # Ray's sockets lie in it, and a socket's path has 107 bytes at most
    folder = tempfile.mkdtemp(dir="/tmp", prefix="ray-")
    yield {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of different lengths with all that engines with memory read; one has a frame that is cut off."""
    folder = tmp_path_factory.mktemp("many") / "clips"
    folder.mkdir()
    for seed, (name, length) in enumerate(LENGTHS.items()):
        save(render(length, 2, 100, 80, seed=seed), folder / name)
        shutil.copytree(folder / name / "masks", folder / name / "keypoints")
    frame = folder / "a-broken" / "frames" / "cam1" / "000003.png"
    frame.write_bytes(frame.read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("many_clips", SCRIPT)
    module = sys.modules["many_clips"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-c", STARTED, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def stamps(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("*/*")}


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def page4d_run(engines, clip, out):
    """What the command does."""
    options = RunOptions(pool=ThreadPool.of(1))
    ClipRun.prepare(EngineFolder.open(engines), FrameFolder.open(clip), out, options).run(SILENT)


def lengthen(clip, longer, count):
    """A clip's frames again and again."""
    for kind in ("frames", "keypoints"):
        for camera in ("cam0", "cam1"):
            (longer / kind / camera).mkdir(parents=True)
            for index in range(count):
                os.link(clip / kind / camera / f"{index % 8:06d}.png", longer / kind / camera / f"{index:06d}.png")
    shutil.copy(clip / "cameras.json", longer)


@pytest.mark.slow
def test_many_clips_going_on_and_ctrl_c(made, clips, tmp_path, environment):
    engines, out = made("memory").folder, tmp_path / "out"
    own = pathlib.Path(shutil.copytree(clips, tmp_path / "clips"))
    done = run(environment, engines, own, "-o", out, *WORKERS, "--json")
    assert done.returncode == 1, done.stderr
    assert "1 of 5 clips failed" in done.stderr and "a-broken: camera cam1, frame 000003.png" in done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((out / "clips.json").read_text())
    good = sorted(set(LENGTHS) - {"a-broken"})
    assert sorted(row["clip"] for row in report["done"]) == good and list(report["failed"]) == ["a-broken"]
    assert len({(row["worker"], row["load_seconds"]) for row in report["done"]}) <= 2, (
        "engines are loaded once per worker"
    )
    assert {path.name for path in out.iterdir()} == {*good, "clips.json"}, "nothing unfinished is left"
    for name in good:  # four clips on two workers: one at least ran a clip after another one
        single = tmp_path / "single" / name
        single.parent.mkdir(exist_ok=True)
        page4d_run(engines, own / name, single)
        assert files(out / name) == files(single) | {"made_by.json"}
        for window in read_summary(single / "summary.json").windows:
            parallel, alone = load_file(out / name / window.file), load_file(single / window.file)
            assert {key: value.tobytes() for key, value in parallel.items()} == {
                key: value.tobytes() for key, value in alone.items()
            }
            for overlay in window.overlays:
                assert (out / name / overlay).read_bytes() == (single / overlay).read_bytes()

    # what is missing is run and the rest kept, until Ctrl-C in the last clip
    shutil.copy(
        own / "a-broken" / "frames" / "cam1" / "000002.png", own / "a-broken" / "frames" / "cam1" / "000003.png"
    )
    shutil.rmtree(out / "d-middle")
    lengthen(own / "c-long", own / "z-longest", 1200)
    before = stamps(out)
    command = [sys.executable, "-c", STARTED, SCRIPT, engines, own, "-o", out, *WORKERS]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (
        (out / "a-broken").exists()
        and (out / "d-middle").exists()
        and list(out.glob(".unfinished/.z-longest-*/new/window_*"))
    ):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=1)[1]
        time.sleep(0.05)
    time.sleep(3)  # for the two clips' lines
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "3 of 6 clips are done already" in errors and "interrupted" in errors and "Traceback" not in errors
    report = json.loads((out / "clips.json").read_text())
    assert {row["clip"] for row in report["done"]} == {"a-broken", "d-middle"}
    assert report["kept"] == ["b-short", "c-long", "e-again"]
    assert {path.name for path in out.iterdir()} == {*LENGTHS, "clips.json"}, "nothing unfinished is left"
    after = stamps(out)
    assert before.items() <= after.items() and (out / "a-broken" / "report.html") in after

    # nothing is left to do
    shutil.rmtree(own / "z-longest")
    done = run(environment, engines, own, "-o", out, *WORKERS)
    assert done.returncode == 0 and done.stderr == "5 of 5 clips are done already\n"
    assert stamps(out) == after


def test_what_is_done(script, tmp_path):
    """Of other engines or options is not done, nor is what cannot be read."""
    job = script.Job(tmp_path, tmp_path, tmp_path / "out", "hash", script.Backend.AUTO, 3, None)
    assert not job.has("clip")
    clip = tmp_path / "out" / "clip"
    clip.mkdir(parents=True)
    (clip / "made_by.json").write_text(json.dumps(job.made_by))
    (clip / "summary.json").write_text("{}")
    assert not job.has("clip")
    texts = dict.fromkeys(("page4d", "engines", "frames", "weights", "precision", "backend"), "")
    mappings: dict[str, object] = {key: {} for key in ("model", "layout", "stage_seconds", "stage_flop")}
    seconds = dict.fromkeys(("decode_seconds", "write_seconds", "wall_seconds", "startup_seconds"), 0)
    sizes = {"cameras": [], "windows": [], "buffer_bytes": 0, "peak_rss_bytes": 0}
    (clip / "summary.json").write_text(json.dumps(texts | mappings | seconds | sizes))
    assert job.has("clip")
    for other in ({"stride": 2}, {"fit": script.FitMode.CROP}, {"manifest": "other"}):
        assert not dataclasses.replace(job, **other).has("clip")
    (clip / "made_by.json").write_text("{")
    assert not job.has("clip")


def test_a_worker_by_itself(made, clips, tmp_path, environment):
    """A clip that workers died of is given up; engines other than the run's are refused, with their exit code."""
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "b-short.tries").write_bytes(b"...")
    code = """
import dataclasses, json, pathlib, sys
from many_clips import MANIFEST, Backend, Job, Worker, sha256
engines, clips, out = map(pathlib.Path, sys.argv[1:])
job = Job(engines, clips, out, sha256(engines / MANIFEST), Backend.AUTO, 3, None)
worker, stranger = Worker(job, 1), Worker(dataclasses.replace(job, manifest="other"), 1)
rows = [worker({"clip": "b-short"}), worker({"clip": "e-again"}), stranger({"clip": "d-middle"})]
print(json.dumps(rows))
"""
    command = [sys.executable, "-c", code, made("memory").folder, clips, tmp_path]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        },
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    died, fine, refused = json.loads(done.stdout)
    assert "3 workers died" in died["error"] and died["fatal"] == 0
    assert fine["error"] == "" and fine["windows"] == 2 and (tmp_path / "e-again" / "report.html").is_file()
    assert "are others than where the run was started" in refused["error"] and refused["fatal"] == 4


def test_bad_arguments(made, clips, script, tmp_path, capfd):
    engines, out = made("memory").folder, tmp_path / "out"

    def refused(code, message, *paths, **options):
        with pytest.raises(typer.Exit) as ended:
            script.many_clips(*paths, **options)
        errors = capfd.readouterr().err
        assert ended.value.exit_code == code and message in errors, errors

    refused(2, "no such folder of clips", engines, tmp_path / "none", out)
    refused(2, "this is one clip", engines, clips / "c-long", out)
    refused(2, "-o lies among the clips", engines, clips, clips / "out")
    (tmp_path / "empty").mkdir()
    refused(2, "the folder has no clips", engines, tmp_path / "empty", out)
    refused(4, "no such engine folder", tmp_path / "none", clips, out)
    refused(2, "stride", engines, clips, out, stride=4)
    refused(2, "--workers is out of range", engines, clips, out, workers=0)
    refused(2, "--gpus-per-worker is out of range", engines, clips, out, gpus_per_worker=1.5)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    refused(2, "-o names something that is not the output of this script", engines, clips, out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_workers_and_threads(script):
    eight = {"CPU": 16.0, "GPU": 8.0}
    assert script.divide([eight, eight], 100, None, 1, None) == (16, 2)
    mixed = script.divide([eight, {"CPU": 4.0}], 3, None, 1, None)
    assert mixed == (3, 2), "no more workers than clips; a machine without GPUs has none"
    assert script.divide([eight], 100, None, 0.5, None) == (16, 1)
    assert script.divide([{"CPU": 8.0}, {"CPU": 6.0}], 100, None, 0, None) == (2, 6)
    assert script.divide([{"CPU": 8.0}, {"CPU": 6.0}], 100, 3, 0, None) == (3, 3)
    assert script.divide([{"CPU": 8.0}], 100, 2, 0, 3) == (2, 3)
    for machines, workers, gpus, threads in (
        ([eight], 9, 1, None),
        ([{"CPU": 8.0}], None, 1, None),
        ([{"CPU": 8.0}], 3, 0, 4),
        ([{"CPU": 8.0}], None, 0, 9),
    ):
        with pytest.raises(UsageError, match="room"):
            script.divide(machines, 100, workers, gpus, threads)
