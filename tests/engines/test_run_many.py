"""`page4d-run` with several folders of frames: each folder's results, their overview, failures, going on."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
from safetensors.numpy import load_file

from page4d.errors import UsageError
from page4d.system.progress import Progress
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.pipeline import Pipeline
from page4d_engines.results.batch import batch as batches
from page4d_engines.results.batch.batch import Batch
from page4d_engines.results.batch.batch_summary import FolderState, read_batch_summary
from page4d_engines.results.batch.names import result_names
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save
from tests.support.commands import program, refused, run

LENGTHS = {"attic": 4, "barn": 3, "cellar": 5}
"""Of the first and the last clip the last two windows overlap."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for seed, (name, length) in enumerate(LENGTHS.items()):
        save(render(length, 2, 100, 80, seed=seed), folder / name)
    return folder


@pytest.fixture
def scenes(rendered, tmp_path):
    """Folders of frames to spoil, with their times of change."""
    return pathlib.Path(shutil.copytree(rendered, tmp_path / "scenes"))


@pytest.fixture
def loads(monkeypatch):
    """Grows with each loading of engines."""
    seen = []
    of = Pipeline.of

    def counted(*arguments, **options):
        seen.append(arguments)
        return of(*arguments, **options)

    monkeypatch.setattr(Pipeline, "of", counted)
    return seen


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def states(out):
    return {folder.name: str(folder.state) for folder in read_batch_summary(out).folders}


def spoil(scenes, name):
    """Half of a file, whose header is whole: found when the last window is read. What mends it again."""
    frame = sorted((scenes / name / "frames" / "cam1").iterdir())[-1]
    content, status = frame.read_bytes(), frame.stat()
    frame.write_bytes(content[: len(content) // 2])

    def mend():
        frame.write_bytes(content)
        os.utime(frame, ns=(status.st_atime_ns, status.st_mtime_ns))

    return mend


def test_every_folder_gets_what_a_run_of_its_own_writes(made, scenes, tmp_path, loads):
    engines, out = made().folder, tmp_path / "out"
    done = run(engines, *sorted(scenes.iterdir()), "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert len(loads) == 1, "engines are loaded once"
    assert {path.name for path in out.iterdir()} == {*LENGTHS, "summary.json", "report.html"}
    for name in LENGTHS:
        alone = tmp_path / "alone" / name
        alone.parent.mkdir(exist_ok=True)
        assert run(engines, scenes / name, "-o", alone).returncode == 0
        together, single = files(out / name), files(alone)
        assert set(together) == set(single)
        assert {path for path in single if single[path] != together[path]} <= {"summary.json", "report.html"}
        summaries = [read_summary(folder / name / "summary.json") for folder in (out, alone.parent)]
        assert summaries[0].made_by == summaries[1].made_by is not None
        assert [window.name for window in summaries[0].windows] == [window.name for window in summaries[1].windows]
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert [(row["name"], row["state"], row["images"]) for row in summary["folders"]] == [
        (name, "done", 2 * length) for name, length in LENGTHS.items()
    ]
    assert 0 < summary["load_seconds"] < summary["wall_seconds"]
    page = (out / "report.html").read_text()
    assert "3 folders: 3 done" in page and 'href="barn/report.html"' in page
    for name, length in LENGTHS.items():
        assert f"{name}: {2 * length} images in " in done.stderr
    assert str(out / "report.html") in done.stderr


def test_folders_that_fail_leave_the_others_alone_and_resume_goes_on(made, scenes, tmp_path, loads):
    engines, out = made().folder, tmp_path / "out"
    mend = spoil(scenes, "barn")
    for camera in ("cam0", "cam1"):
        (scenes / "cellar" / "frames" / camera / "000004.png").unlink()
        (scenes / "cellar" / "masks" / camera / "000004.png").unlink()
    few = scenes / "few"
    shutil.copytree(scenes / "attic", few)
    for camera in ("cam0", "cam1"):
        for index in (2, 3):
            (few / "frames" / camera / f"{index:06d}.png").unlink()
            (few / "masks" / camera / f"{index:06d}.png").unlink()
    command = (engines, *sorted(scenes.iterdir()), "-o", out)
    done = run(*command, "-q")
    refused(
        done, 1, r"few: the clip has fewer frames than a window\s+got:\s+2 frames", r"barn: camera cam1, frame 000002"
    )
    assert "2 of 4 folders failed\n  got:     barn, few\n  try:     mend them, " in done.stderr
    assert states(out) == {"attic": "done", "barn": "failed", "cellar": "done", "few": "failed"}
    assert not (out / "barn").exists() and not (out / "few").exists()
    page = (out / "report.html").read_text()
    assert "fewer frames than a window" in page and "barn/report.html" not in page
    assert not [path for path in out.iterdir() if path.name.startswith(".")]

    mend()
    shutil.rmtree(few)
    before = stamps(out / "attic") | stamps(out / "cellar")
    done = run(engines, *sorted(scenes.iterdir()), "-o", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert states(out) == {"attic": "kept", "barn": "done", "cellar": "kept"}
    assert "(kept)" in done.stderr and before == stamps(out / "attic") | stamps(out / "cellar")
    assert len(loads) == 2

    again = run(engines, *sorted(scenes.iterdir()), "-o", out, "--resume", "-q")
    assert again.returncode == 0 and again.stderr == "" and len(loads) == 2, "nothing is left to load engines for"
    assert states(out) == dict.fromkeys(LENGTHS, "kept")


def test_resume_runs_what_another_result_would_come_of(made, scenes, tmp_path):
    engines, out = made().folder, tmp_path / "out"
    paths = sorted(scenes.iterdir())

    def kept(*flags, folder=engines):
        assert run(folder, *paths, "-o", out, "--resume", *flags).returncode == 0
        return [name for name, state in states(out).items() if state == "kept"]

    assert kept() == []
    assert kept("--threads", 1) == list(LENGTHS)
    (out / "attic" / "report.html").unlink()
    assert kept() == ["barn", "cellar"]
    os.utime(scenes / "barn" / "frames" / "cam0" / "000001.png", (1, 1))
    assert kept() == ["attic", "cellar"]
    rig = json.loads((scenes / "cellar" / "cameras.json").read_text())
    rig["cam0"]["K"][0][0] += 1
    (scenes / "cellar" / "cameras.json").write_text(json.dumps(rig))
    assert kept() == ["attic", "barn"]
    assert kept("--stride", 2) == []
    assert kept("--stride", 2, "--fit", "crop") == []
    assert kept("--stride", 2, "--fit", "crop") == list(LENGTHS)
    other = pathlib.Path(shutil.copytree(engines, tmp_path / "engines"))
    (other / "manifest.json").write_text((other / "manifest.json").read_text() + "\n")
    assert kept("--stride", 2, "--fit", "crop", folder=other) == []


def test_resume_of_one_folder(made, scenes, tmp_path, loads):
    command = (made().folder, scenes / "barn", "-o", tmp_path / "out", "--resume", "--json")
    first = run(*command)
    assert first.returncode == 0 and (tmp_path / "out" / "window_0-2.safetensors").exists()
    before = stamps(tmp_path / "out")
    second = run(*command)
    assert second.returncode == 0 and second.stdout == first.stdout
    assert len(loads) == 1 and stamps(tmp_path / "out") == before


def test_a_batch_is_added_to_and_nothing_of_others_is_deleted(made, scenes, tmp_path):
    engines, out = made().folder, tmp_path / "out"
    attic, barn, cellar = sorted(scenes.iterdir())
    assert run(engines, attic, barn, "-o", out).returncode == 0
    (out / "notes.txt").write_text("precious")
    assert run(engines, barn, cellar, "-o", out).returncode == 0
    assert list(states(out)) == ["barn", "cellar", "attic"], "the overview has earlier results, too"
    assert (out / "notes.txt").read_text() == "precious"

    (out / "cellar" / "notes.txt").write_text("precious")
    before = stamps(out)
    refused(run(engines, barn, cellar, "-o", out), 2, r"-o holds more than the output of a run.*\s+got: .*notes.txt")
    assert stamps(out) == before, "refused before any work"
    refused(run(engines, barn, "-o", out), 2, r"-o names something that is not the output of a run")

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    refused(run(engines, attic, barn, "-o", tmp_path / "thesis"), 2, r"is not the output of a batch(.|\n)*chapter1.tex")
    assert run(engines, attic, "-o", tmp_path / "single").returncode == 0
    refused(run(engines, attic, barn, "-o", tmp_path / "single"), 2, r"is not the output of a batch")
    refused(run(engines, attic, barn, "-o", attic), 2, r"-o is the folder .*attic, which this reads")
    refused(run(engines, attic, barn, "-o", scenes), 2, r"-o holds the folder .*attic, which this reads")


def test_files_that_a_star_finds_are_left_out(made, scenes, tmp_path):
    (scenes / "list.csv").write_text("attic, barn")
    done = run(made().folder, *sorted(scenes.iterdir()), "-o", tmp_path / "out")
    assert done.returncode == 0 and list(states(tmp_path / "out")) == list(LENGTHS)
    assert f"note: neither folders nor videos, and left out: {scenes / 'list.csv'}\n" in done.stderr
    refused(run(made().folder, scenes / "list.csv", scenes / "list.csv", "-o", tmp_path / "none"), 2, "list.csv")


def test_what_is_refused_before_anything_is_written(made, scenes, tmp_path, loads):
    engines, out = made().folder, tmp_path / "out"
    attic, barn, _ = sorted(scenes.iterdir())
    for option in ("masks", "keypoints"):
        refused(
            run(engines, attic, barn, "-o", out, f"--{option}", attic), 2, rf"--{option} is for one folder of frames"
        )
    refused(
        run(engines, attic, scenes / "." / "attic", "-o", out),
        2,
        r"would have one name\s+got:\s+.*attic and .*attic: attic",
    )
    refused(
        run(engines, attic, barn, "-o", out, "--stride", 9),
        2,
        r"page4d: the stride .*\s+got:\s+9\s+allowed: 1 to T = 3",
    )
    refused(run(engines, scenes / "x", scenes / "y", "-o", out), 2, r"none of the folders can be run\nx: (.|\n)*\ny: ")
    refused(run(tmp_path / "none", attic, barn, "-o", out), 4, r"no such engine folder")
    refused(run(engines, attic, barn, "-o", out, "--backend", "tensorrt"), 4, r"has no TensorRT plans")
    assert not out.exists() and len(loads) <= 1


def test_calibration_that_is_given_is_that_of_every_folder(made, scenes, tmp_path):
    (scenes / "attic" / "cameras.json").rename(tmp_path / "rig.json")
    (scenes / "barn" / "cameras.json").unlink()
    for name in ("attic", "barn"):
        shutil.copytree(scenes / name / "masks", scenes / name / "keypoints")
    command = (made("memory").folder, scenes / "attic", scenes / "barn", "-o", tmp_path / "out")
    refused(run(*command), 2, r"page4d: the engine reads the cameras")
    assert run(*command, "--cameras", tmp_path / "rig.json").returncode == 0


def test_memory_begins_anew_in_every_folder(made, scenes, tmp_path):
    engines = made("memory").folder
    for name in LENGTHS:
        shutil.copytree(scenes / name / "masks", scenes / name / "keypoints")
    assert run(engines, scenes / "cellar", scenes / "barn", "-o", tmp_path / "out").returncode == 0
    assert run(engines, scenes / "barn", "-o", tmp_path / "alone").returncode == 0
    together, alone = (
        load_file(out / "window_0-2.safetensors") for out in (tmp_path / "out" / "barn", tmp_path / "alone")
    )
    assert {name: array.tobytes() for name, array in together.items()} == {
        name: array.tobytes() for name, array in alone.items()
    }


def test_progress_goes_over_all_folders(made, scenes, tmp_path):
    seen = []
    options = RunOptions(pool=ThreadPool.of(1))
    batch = Batch.prepare(EngineFolder.open(made().folder), sorted(scenes.iterdir()), tmp_path / "out", options)
    batch.run(Progress(lambda what, share: seen.append((share, what))))
    assert seen == sorted(seen, key=lambda entry: entry[0]) and 0 <= seen[0][0] < seen[-1][0] < 1
    assert seen[0][1].startswith("attic (1 of 3), window 1 of 2: ")
    assert seen[-1][1].startswith("cellar (3 of 3), window 2 of 2: ")


def test_a_fault_in_one_folder_is_said_and_a_full_disk_ends_all(made, scenes, tmp_path, monkeypatch):
    engines, paths = EngineFolder.open(made().folder), sorted(scenes.iterdir())
    options, run_clip, errors = RunOptions(pool=ThreadPool.of(1)), ClipRun.run, {}

    def faulty(self, progress):
        if self.out.name in errors:
            raise errors[self.out.name]
        return run_clip(self, progress)

    monkeypatch.setattr(batches.ClipRun, "run", faulty)
    errors["attic"] = ZeroDivisionError("of a bug")
    summary = Batch.prepare(engines, paths, tmp_path / "out", options).run(Progress())
    assert [folder.state for folder in summary.folders] == [FolderState.FAILED, FolderState.DONE, FolderState.DONE]
    assert summary.folders[0].error.startswith("this is a fault in page4d: ZeroDivisionError: of a bug")
    errors["barn"] = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        Batch.prepare(engines, paths, tmp_path / "full", options).run(Progress())
    assert states(tmp_path / "full") == {"attic": "failed", "barn": "not run", "cellar": "not run"}


def test_ctrl_c_keeps_the_folders_that_are_done(made, scenes, tmp_path):
    for camera in ("cam0", "cam1"):
        for index in range(5, 400):
            for kind in ("frames", "masks"):
                place = scenes / "cellar" / kind / camera
                os.link(place / f"{index % 5:06d}.png", place / f"{index:06d}.png")
    out = tmp_path / "out"
    command = [*program("page4d-run"), made().folder, *sorted(scenes.iterdir()), "-o", out, "--stride", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".cellar-*/new/window_*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors.splitlines()[-1].startswith("page4d: interrupted"), errors
    assert {path.name for path in out.iterdir()} == {"attic", "barn", "summary.json", "report.html"}
    assert states(out) == {"attic": "done", "barn": "done", "cellar": "not run"}
    shutil.rmtree(scenes / "cellar")
    done = run(made().folder, *sorted(scenes.iterdir()), "-o", out, "--stride", "1", "--resume")
    assert done.returncode == 0 and states(out) == {"attic": "kept", "barn": "kept"}


def test_names_of_results(tmp_path):
    for name in ("a/photos", "b/photos", "b/Photos", "c", "report.html"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "walk.mp4").touch()

    def names(*paths):
        return result_names([tmp_path / path for path in paths])

    assert names("a/photos", "c", "walk.mp4") == ["photos", "c", "walk"]
    assert names("a/photos", "b/photos", "c") == ["a-photos", "b-photos", "c"]
    assert names("a/photos/", "b/../c") == ["photos", "c"]
    for pair in (("a/photos", "a/photos"), ("b/photos", "b/Photos")):
        with pytest.raises(UsageError, match="would have one name"):
            names(*pair)
    for path in ("report.html", "/"):
        with pytest.raises(UsageError, match="no name that its results could have"):
            names("c", path)


def test_a_clip_is_run_with_engines_that_are_loaded(made, scenes, tmp_path):
    engines = EngineFolder.open(made().folder)
    pipeline = Pipeline.of(engines, pool=ThreadPool.of(1))
    for name in ("barn", "attic"):
        job = ClipRun.prepare(engines, FrameFolder.open(scenes / name), tmp_path / name, pipeline=pipeline)
        assert job.pipeline is pipeline
        assert job.run(Progress()).windows[0].name == "window_0-2"
