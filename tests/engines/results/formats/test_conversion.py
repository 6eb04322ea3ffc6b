"""A finished run in more formats: what is added to its folder or written to another, and what leaves it as it was."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from page4d.cameras import read_cameras
from page4d.errors import UsageError
from page4d.files import refuse_foreign
from page4d.system.progress import SILENT
from page4d_engines.commands.convert import convert_command
from page4d_engines.options import Format
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.formats import write_formats
from page4d_engines.results.formats.conversion import Conversion
from page4d_engines.results.formats.npz import write_npz
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.summary import RUN_OUTPUT, finished, read_summary
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import inside, refused
from tests.support.exports import content
from tests.support.true_run import SURE, write_true_run


def convert(*arguments):
    """`page4d convert` in this process."""
    return inside(*arguments, function=convert_command)


def arrays_of(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of two windows with worlds of their own."""
    return write_true_run(tmp_path_factory.mktemp("run"), form="vggt", T=4, V=1, window=2, mask=True, orbit=0.05)


@pytest.fixture
def run(original, tmp_path):
    """A copy of it, whose clip lies where it was."""
    shutil.copytree(original.out, tmp_path / "out")
    return tmp_path / "out"


def test_formats_are_added_to_the_run_and_listed(run):
    before, summary = content(run), read_summary(run / "summary.json")
    done = convert(run, "--formats", "npz")
    assert done.returncode == 0, done.stderr
    after = content(run)
    npz = {f"{window.name}/scene.npz" for window in summary.windows}
    assert set(after) == set(before) | npz
    changed = {path for path in before if before[path] != after[path]}
    assert changed <= {"summary.json", "report.html"}
    written = read_summary(run / "summary.json")
    assert set(written.format_files) == npz and written.made_by.formats == ("ply", "npz")
    assert all(path in (run / "report.html").read_text() for path in npz)
    # the command that would have written the same keeps it, and another one may replace it
    assert finished(run, written.made_by) is not None
    assert finished(run, summary.made_by) is None


def test_a_second_conversion_adds_to_the_first(run):
    assert convert(run, "--formats", "npz").returncode == 0
    first = content(run)
    # the same again changes no byte of what is there
    assert convert(run, "--formats", "npz,ply").returncode == 0
    again = content(run)
    assert set(again) == set(first)
    unchanged = [path for path in first if not path.endswith((".ply", ".npz", "summary.json", "report.html"))]
    assert all(first[path] == again[path] for path in unchanged)
    for window in read_summary(run / "summary.json").windows:
        assert len(read_ply(run / window.predictions.cloud)) == window.predictions.points


def test_points_of_other_options_are_written_in_every_format_of_the_run(run, original):
    assert convert(run, "--formats", "npz").returncode == 0
    done = convert(run, "--max-points", 500, "--static-only", "--confidence-percentile", 0)
    assert done.returncode == 0, done.stderr
    summary = read_summary(run / "summary.json")
    expected = CloudOptions(confidence_percentile=0.0, max_points=500, static_only=True)
    assert summary.made_by.cloud == expected and summary.made_by.formats == ("ply", "npz")
    for window in summary.windows:
        assert (window.predictions.percentile, window.predictions.threshold) == (0.0, SURE)
        vertices = read_ply(run / window.predictions.cloud)
        assert len(vertices) == window.predictions.points == 500
        arrays = arrays_of(run / window.name / "scene.npz")
        assert arrays["kept"].sum() == 500 and not (arrays["mask"][arrays["kept"]] >= 0.5).any()
        points = arrays["points"][arrays["kept"]]
        np.testing.assert_allclose(columns(vertices, "x", "y", "z"), points, rtol=1e-6)
    assert FinishedRun.open(run).options == expected
    # and back
    assert convert(run, "--max-points", 0, "--with-dynamic").returncode == 0
    back = read_summary(run / "summary.json")
    assert back.made_by.cloud == CloudOptions(confidence_percentile=0.0) and back.points > 1000


@pytest.mark.parametrize("flags", [[], ["--edge-depth", 0], ["--edge-normal", 70], ["--static-only"]])
def test_the_points_of_a_file_are_those_of_the_rules_alone(run, original, flags):
    done = convert(run, "--formats", "ply", "--confidence-percentile", 0, *flags)
    assert done.returncode == 0, done.stderr
    for number, window in enumerate(read_summary(run / "summary.json").windows):
        expected = []
        for t in (2 * number, 2 * number + 1):
            points, depth, moving = original.points[t, 0], original.depth[t, 0], original.moving[t, 0]
            kept = np.ones(depth.shape, bool)
            if flags != ["--edge-depth", 0]:
                wide = np.pad(depth, 1, mode="edge")
                around = np.stack([wide[y : y + 84, x : x + 112] for y in range(3) for x in range(3)])
                kept &= abs(around - depth).max(0) <= 0.03 * depth
            if flags[:1] == ["--edge-normal"]:
                across = np.gradient(points, axis=1) * 2
                down = np.gradient(points, axis=0) * 2
                normal = np.cross(across, down)
                ray = points - original.cameras[t][0].centre
                lengths = np.linalg.norm(normal, axis=-1) * np.linalg.norm(ray, axis=-1)
                kept &= abs((normal * ray).sum(-1)) >= np.cos(np.deg2rad(70)) * lengths
            if flags == ["--static-only"]:
                patches = moving.reshape(6, 14, 8, 14).mean((1, 3))
                kept &= np.kron(patches, np.ones((14, 14))) < 0.5
            expected.append(points[kept])
        vertices = columns(read_ply(run / window.predictions.cloud), "x", "y", "z")
        expected = np.concatenate(expected)
        # a pixel at a threshold may fall on either side in float32
        assert abs(len(vertices) - len(expected)) <= 0.001 * len(expected)
        if len(vertices) == len(expected):
            np.testing.assert_allclose(vertices, expected, atol=1e-5)


def test_voxels_leave_one_point_each(run):
    assert convert(run, "--voxel", 0.25, "--formats", "ply").returncode == 0
    for window in read_summary(run / "summary.json").windows:
        cells = np.floor(columns(read_ply(run / window.predictions.cloud), "x", "y", "z").astype(np.float64) / 0.25)
        assert len(np.unique(cells, axis=0)) >= 0.999 * len(cells) and len(cells) > 50


def test_a_folder_of_its_own_lists_its_files_and_is_replaced(run, tmp_path):
    before, target = content(run), tmp_path / "export"
    for _ in range(2):
        done = convert(run, "--formats", "npz,ply", "--max-points", 100, "-o", target)
        assert done.returncode == 0, done.stderr
        names = {"window_0-1", "window_2-3", "formats.json"}
        assert {path.name for path in target.iterdir()} == names
        listing = json.loads((target / "formats.json").read_text())
        assert listing["formats"] == ["ply", "npz"] and listing["run"] == str(run)
        on_disk = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
        assert set(listing["files"]) == on_disk - {"formats.json"}
        assert len(read_ply(target / "window_0-1" / "points.ply")) == 100
    assert content(run) == before
    # somebody else's file is never overwritten
    (target / "notes.txt").write_text("mine")
    refused(convert(run, "--formats", "npz", "-o", target), 2, "holds more than formats", "notes.txt")
    refused(convert(run, "--formats", "npz", "-o", run / "window_0-1"), 2, "-o lies inside the run")


def test_a_run_with_somebody_elses_file_is_left_alone(run):
    (run / "window_0-1" / "scene.npz").write_text("mine")
    before = content(run)
    refused(convert(run, "--formats", "npz"), 2, "holds more than the output of a run", "scene.npz")
    assert content(run) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), UsageError("a photo")])
def test_a_conversion_that_fails_leaves_the_run_as_it_was(run, monkeypatch, error):
    """In the second window, when the first one's file is written already."""
    before, calls = content(run), []

    def fail(place, scene, placing):
        calls.append(scene.name)
        if len(calls) > 1:
            raise error
        return write_npz(place, scene)

    monkeypatch.setitem(write_formats.WRITERS, Format.NPZ, fail)
    done = convert(run, "--formats", "ply,npz", "--max-points", 10)
    assert done.returncode in (1, 2, 130) and calls == ["window_0-1", "window_2-3"]
    assert content(run) == before and [path.name for path in run.parent.iterdir()] == ["out"]


def test_frames_that_change_meanwhile_leave_the_run_as_it_was(original, tmp_path):
    shutil.copytree(original.out, tmp_path / "out")
    shutil.copytree(original.frames, tmp_path / "clip")
    opened = FinishedRun.open(tmp_path / "out", tmp_path / "clip")
    conversion = Conversion.prepare(opened, [Format.NPZ])
    before = content(tmp_path / "out")
    (tmp_path / "clip" / "frames" / "cam0" / "000003.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="000003"):
        conversion.write(SILENT)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--formats", "obj"], ["--formats names an unknown format", "got:     obj", "ply,glb,colmap,nerfstudio,npz"]),
        (["--formats", ""], ["--formats has a place without a name"]),
        (["--formats", "ply,"], ["--formats has a place without a name", "got:     'ply,'"]),
        (["--min-confidence", 0.5], ["no probability", "--confidence-percentile"]),
        (["--points-from", "points"], ["lack what the point cloud from points"]),
        (["--frames", "nowhere"], ["cannot be read", "--frames FOLDER"]),
        (["-o", "nowhere/there"], ["does not exist"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(run, arguments, messages):
    before = content(run)
    refused(convert(run, "--formats", "npz", *arguments), 2, *messages)
    assert content(run) == before


def test_no_run_is_refused(tmp_path):
    refused(convert(tmp_path / "none", "--formats", "npz"), 2, "the summary cannot be read")


def test_npz_holds_every_array_of_every_image(run, original):
    assert convert(run, "--formats", "npz").returncode == 0
    opened = FinishedRun.open(run)
    for scene in opened.scenes():
        arrays = arrays_of(run / scene.name / "scene.npz")
        images = list(scene)
        assert arrays["name"].tolist() == [image.name for image in images]
        assert arrays["photo"].tolist() == [image.photo for image in images]
        assert str(arrays["unit"]) == "" and arrays["size"].tolist() == [[112, 84]] * 2
        for index, image in enumerate(images):
            for name in ("points", "depth", "confidence", "mask", "kept"):
                np.testing.assert_array_equal(arrays[name][index], getattr(image, name))
            np.testing.assert_array_equal(arrays["image"][index], image.pixels)
            np.testing.assert_array_equal(arrays["K"][index], image.calibration.camera.K)
            np.testing.assert_allclose(arrays["K_image"][index], image.calibration.camera.K)  # of one size
            assert (arrays["t"][index], arrays["v"][index]) == (image.t, image.v)
        assert not list(run.rglob(".*"))


def test_the_entries_of_npz_have_no_times(run):
    """The same run gives the same bytes."""
    assert convert(run, "--formats", "npz").returncode == 0
    for path in run.rglob("scene.npz"):
        with zipfile.ZipFile(path) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_windows_of_one_world_are_written_together(tmp_path):
    true = write_true_run(tmp_path, form="vggt", T=4, V=1, window=3, stride=1, orbit=0.1, aligned=True)
    done = convert(true.out, "--formats", "ply,npz", "--confidence-percentile", 0)
    assert done.returncode == 0, done.stderr
    summary = read_summary(true.out / "summary.json")
    assert summary.formats == ["scene.npz"] and [w.predictions.formats for w in summary.windows] == [[], []]
    assert [window.predictions.cloud for window in summary.windows] == ["points.ply", None]
    arrays = arrays_of(true.out / "scene.npz")
    assert arrays["name"].tolist() == [f"00000{t}" for t in range(4)]
    assert len(read_ply(true.out / "points.ply")) == arrays["kept"].sum() == summary.points
    assert list(read_cameras(true.out / "cameras.json")) == arrays["name"].tolist()
    assert finished(true.out, summary.made_by) is not None
    # a later run may replace it
    refuse_foreign(true.out, RUN_OUTPUT)
