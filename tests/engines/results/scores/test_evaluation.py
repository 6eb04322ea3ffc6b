"""Runs of the rendered scene against its truth, and against each other, through `page4d eval`."""

import dataclasses
import json
import re
import shutil
import tracemalloc

import msgspec
import numpy as np
import pytest
from PIL import Image

from page4d.cameras import read_cameras, write_cameras
from page4d.errors import ExitCode, UsageError
from page4d.system.progress import SILENT
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.commands.evaluate import evaluate_command
from page4d_engines.options import FitMode
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scores.evaluation import Evaluation, evaluate
from page4d_engines.results.scores.truth_clip import TruthClip
from page4d_engines.results.summary import SUMMARY, read_summary, write_summary
from page4d_engines.results.world.similarity import Similarity
from tests.engines.results.scores.test_pose_scores import rotation
from tests.support.commands import inside, refused
from tests.support.true_run import write_true_run

OTHER_WORLD = Similarity(4.0, rotation([1, 2, 1], 40), np.array([3.0, -2.0, 1.0]))
WHOLE = CloudOptions(min_confidence=0.0, edges=None)


@pytest.fixture(scope="module")
def true_run(tmp_path_factory):
    """In a world and unit of its own, with a mask."""
    folder = tmp_path_factory.mktemp("true")
    return write_true_run(folder, V=4, worlds=[OTHER_WORLD], mask=True, options=WHOLE)


@pytest.fixture(scope="module")
def noisy_run(tmp_path_factory):
    """Of the same clip, in the scene's world."""
    return write_true_run(tmp_path_factory.mktemp("noisy"), V=4, mask=True, noise=0.05, options=WHOLE)


def scores_of(out, truth, **options):
    arguments = {"against": None, "frames": None, "progress": SILENT} | options
    return evaluate(out, truth, **arguments).runs[0].scores


def in_metres(run, out):
    """A copy of a run that says that its lengths are metres."""
    shutil.copytree(run.out, out)
    summary = read_summary(out / SUMMARY)
    windows = [
        msgspec.structs.replace(window, predictions=msgspec.structs.replace(window.predictions, unit="metres"))
        for window in summary.windows
    ]
    write_summary(out / SUMMARY, msgspec.structs.replace(summary, windows=windows))
    return out


def test_the_truth_itself_scores_everything(true_run):
    scores = scores_of(true_run.out, true_run.frames)
    pose, depth, mask = scores.pose, scores.depth, scores.mask
    assert scores.images == 8 and pose.images == 8 and pose.pairs == 28
    assert (pose.auc_5, pose.auc_15, pose.auc_30) == (1.0, 1.0, 1.0)
    assert pose.rotation_error < 1e-4 and pose.ate < 1e-5 and pose.ate_rigid is None
    assert depth.abs_rel < 1e-3 and depth.delta_125 == 1.0 and depth.abs_rel_metric is None
    assert "unit of its own" in scores.reasons["pose.ate_rigid"]
    # a pixel of a patch at the edge of what moves decides here and there, by how a half is rounded
    assert mask.iou > 0.98 and mask.f1 > 0.99


def test_the_cloud_of_the_truth_lies_on_the_true_surface(true_run):
    pytest.importorskip("scipy")
    cloud = scores_of(true_run.out, true_run.frames).cloud
    assert cloud.accuracy_mean < 2e-3 and cloud.completeness_mean < 2e-3 and cloud.accuracy_median < 1e-3


def test_a_run_in_metres_is_compared_unscaled(tmp_path):
    run = write_true_run(tmp_path, V=4, T=1, options=WHOLE)
    scores = scores_of(in_metres(run, tmp_path / "metres"), run.frames)
    assert scores.pose.ate_rigid < 1e-5 and scores.depth.abs_rel_metric < 1e-3 and not scores.depth.abs_rel > 1e-3


def test_a_run_of_twice_the_size_is_wrong_in_metres_alone(tmp_path):
    half = Similarity(0.5, np.eye(3), np.zeros(3))  # from the window's world, twice as large, to the scene's
    run = write_true_run(tmp_path, V=4, T=1, worlds=[half], options=WHOLE)
    scores = scores_of(in_metres(run, tmp_path / "metres"), run.frames)
    assert scores.depth.abs_rel < 1e-3 and scores.depth.delta_125 == 1.0
    assert scores.depth.abs_rel_metric == pytest.approx(1, abs=1e-3) and scores.depth.delta_125_metric == 0
    assert scores.pose.ate < 1e-5 < 0.5 < scores.pose.ate_rigid


@pytest.mark.parametrize("fit", [*FitMode])
def test_truth_of_photos_is_brought_to_the_engines_pixels(tmp_path, fit):
    """Every mode; nothing is compared beside a photo."""
    size = (112, 112) if fit is FitMode.PUBLISHED_PAD else (98, 112)
    photo = (160, 140) if fit is FitMode.PUBLISHED else (150, 99)
    run = write_true_run(tmp_path, T=1, V=3, size=size, photo_size=photo, fit=fit, mask=True, options=WHOLE)
    scores = scores_of(in_metres(run, tmp_path / "metres"), run.frames)
    assert scores.pose.auc_5 == 1.0 and scores.depth.abs_rel_metric < 0.02 and scores.depth.delta_125_metric > 0.98
    assert scores.mask.iou > 0.8
    image = next(FinishedRun.open(run.out).scenes()[0].images())
    truth = TruthClip.open(run.frames).of(image)
    assert np.array_equal(np.isfinite(truth.depth), image.fit.shown)
    close = np.abs(truth.depth - run.depth[0, 0]) < 0.05  # but at edges, where the nearest pixel shows another surface
    assert close[image.fit.shown].mean() > 0.85
    off = np.linalg.norm(truth.points - run.points[0, 0], axis=-1)[image.fit.shown]
    assert np.median(off) < 0.03  # a pixel of the photo is 0.04 wide there


def test_windows_with_worlds_of_their_own_are_scored_each_by_itself(tmp_path):
    worlds = [Similarity.identity(), OTHER_WORLD, OTHER_WORLD.inverse()]
    run = write_true_run(tmp_path, T=3, V=4, size=(42, 56), window=1, worlds=worlds, options=WHOLE)
    scores = scores_of(run.out, run.frames)
    assert scores.pose.images == 12 and scores.pose.pairs == 18 and scores.pose.auc_5 == 1.0
    assert scores.pose.ate < 1e-5 and scores.depth.abs_rel < 1e-3


def test_what_truth_or_run_lack_is_left_out_with_a_reason(true_run, tmp_path):
    clip = tmp_path / "clip"
    shutil.copytree(true_run.frames, clip)
    shutil.rmtree(clip / "depth")
    scores = scores_of(true_run.out, clip / "frames")  # the folder of frames stands for the clip
    assert scores.depth is None and scores.cloud is None and scores.pose.auc_5 == 1 and scores.mask.iou > 0.9
    assert scores.reasons["depth"] == scores.reasons["cloud"] == "the truth has no depth/"
    (clip / "cameras.json").unlink()
    scores = scores_of(true_run.out, clip)
    assert scores.pose is None and scores.reasons["pose"] == "the truth has no cameras.json"
    shutil.rmtree(clip / "masks")
    with pytest.raises(UsageError, match="has no truth to compare with"):
        TruthClip.open(clip)
    with pytest.raises(UsageError, match="no such folder of a clip"):
        TruthClip.open(clip / "nothing")
    plain = write_true_run(tmp_path / "plain", V=2, T=1)
    scores = scores_of(plain.out, plain.frames)
    assert scores.mask is None and scores.reasons["mask"] == "the run has no mask"
    assert scores.pose.ate is None and scores.reasons["pose.ate"].startswith(
        "the camera centres determine no alignment"
    )


def test_cameras_that_move_have_an_entry_for_each_frame(tmp_path):
    run = write_true_run(tmp_path, T=4, V=1, orbit=0.3)
    truth = tmp_path / "truth"
    truth.mkdir()
    write_cameras(truth / "cameras.json", {f"cam0/{t:06d}": row[0] for t, row in enumerate(run.cameras)})
    whole = scores_of(run.out, truth)
    assert whole.pose.images == 4 and whole.pose.auc_5 == 1.0 and whole.pose.ate < 1e-5
    write_cameras(truth / "cameras.json", {f"{t:06d}": row[0] for t, row in enumerate(run.cameras[:3])})
    some = scores_of(run.out, truth)
    assert some.images == 4 and some.pose.images == 3 and some.pose.auc_5 == 1.0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda clip: Image.new("L", (112, 84)).save(clip / "depth/cam0/000000.png"), "no 16-bit grey image"),
        (lambda clip: Image.new("I;16", (11, 8)).save(clip / "depth/cam0/000000.png"), "another size than the photo"),
        (lambda clip: Image.new("L", (11, 8)).save(clip / "masks/cam0/000000.png"), "another size than the photo"),
        (lambda clip: (clip / "depth/cam0/000000.png").write_bytes(b"no image"), "cannot be read"),
        (lambda clip: (clip / "cameras.json").write_text("{"), "cameras.json"),
        (lambda clip: halve(clip / "cameras.json"), "another size than the photo"),
    ],
)
def test_truth_that_does_not_fit_the_photos_is_refused(true_run, tmp_path, damage, words):
    clip = tmp_path / "clip"
    shutil.copytree(true_run.frames, clip)
    damage(clip)
    with pytest.raises(UsageError, match=words):
        scores_of(true_run.out, clip)


def halve(path):
    cameras = read_cameras(path)
    write_cameras(path, {name: dataclasses.replace(camera, width=9) for name, camera in cameras.items()})


def test_frames_without_truth_are_left_out(true_run, tmp_path):
    clip = tmp_path / "clip"
    shutil.copytree(true_run.frames, clip)
    (clip / "depth/cam0/000000.png").unlink()
    shutil.rmtree(clip / "masks/cam1")
    scores = scores_of(true_run.out, clip)
    assert scores.depth.images == 7 and scores.mask.images == 6


def test_a_clip_with_depth_is_read_as_one_without(true_run, tmp_path):
    clip = FrameFolder.open(true_run.frames)
    assert clip.camera_names == ("cam0", "cam1", "cam2", "cam3") and not clip.notes
    shutil.copytree(true_run.frames / "frames" / "cam0", tmp_path / "images")
    shutil.copytree(true_run.frames / "depth" / "cam0", tmp_path / "depth")
    photos = FrameFolder.open(tmp_path, loose=UngroupedImages.VIEWS)
    assert photos.camera_names == ("000000", "000001") and not photos.notes


def test_two_runs_stand_side_by_side_with_their_difference(true_run, noisy_run):
    evaluation = evaluate(noisy_run.out, true_run.frames, true_run.out, None, SILENT)
    first, second = (run.scores.values() for run in evaluation.runs)
    assert evaluation.is_truth and first["depth.abs_rel"] == pytest.approx(0.04, abs=0.005)
    assert second["depth.abs_rel"] < 1e-3
    assert evaluation.difference["depth.abs_rel"] == first["depth.abs_rel"] - second["depth.abs_rel"]
    assert evaluation.difference["pose.ate_rigid"] is None and evaluation.difference["pose.auc_5"] == 0


def test_without_truth_the_second_run_stands_for_it(true_run, noisy_run):
    evaluation = evaluate(true_run.out, None, true_run.out, None, SILENT)
    scores = evaluation.runs[0].scores
    assert not evaluation.is_truth and len(evaluation.runs) == 1 and not evaluation.difference
    assert scores.pose.auc_5 == 1.0 and scores.pose.ate_rigid < 1e-9 and scores.depth.abs_rel_metric == 0
    assert scores.mask.iou == 1.0 and scores.mask.f1 == 1.0
    scores = evaluate(noisy_run.out, None, true_run.out, None, SILENT).runs[0].scores
    assert scores.depth.abs_rel == pytest.approx(0.04, abs=0.005) and scores.depth.abs_rel_metric > 1


def test_runs_of_other_images_are_no_reference(true_run, tmp_path):
    fewer = write_true_run(tmp_path / "fewer", T=1, V=3)
    with pytest.raises(UsageError, match="differ in the number of timesteps and views"):
        evaluate(fewer.out, None, true_run.out, None, SILENT)
    smaller = write_true_run(tmp_path / "smaller", V=4, size=(28, 42))
    with pytest.raises(UsageError, match=r"differ in the engines' size[\s\S]*42x28"):
        evaluate(smaller.out, None, true_run.out, None, SILENT)
    with pytest.raises(UsageError, match=r"nothing to compare the run with[\s\S]*--truth"):
        evaluate(true_run.out, None, None, None, SILENT)


def test_runs_of_as_many_windows_of_other_timesteps_are_no_reference(tmp_path):
    runs = [
        write_true_run(tmp_path / str(stride), T=8, V=1, size=(28, 42), window=2, stride=stride) for stride in (None, 2)
    ]
    renamed = [msgspec.structs.replace(window, name=f"other_{window.name}") for window in runs[1].summary.windows]
    write_summary(runs[1].out / SUMMARY, msgspec.structs.replace(runs[1].summary, windows=renamed))
    with pytest.raises(UsageError, match=r"differ in the windows[\s\S]*window_0-1"):
        evaluate(runs[0].out, None, runs[1].out, None, SILENT)


def test_memory_does_not_grow_with_windows(tmp_path):
    peaks = []
    for T in (2, 6):
        run = write_true_run(tmp_path / str(T), T=T, V=2, size=(84, 84), window=1, options=WHOLE)
        scores_of(run.out, run.frames)  # what is loaded once
        tracemalloc.start()
        scores_of(run.out, run.frames)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


def test_the_command_prints_a_table_and_writes_the_document(true_run, tmp_path):
    out = tmp_path / "scores.json"
    done = inside(true_run.out, "--truth", true_run.frames, "-o", out, function=evaluate_command)
    assert done.returncode == ExitCode.OK and "note: no ATE, after SE(3)" in done.stderr
    assert re.search(r"pose AUC@30 +│ % +│ +100.00", done.stdout) and "mask IoU" in done.stdout
    document = msgspec.json.decode(out.read_bytes(), type=Evaluation)
    assert document.reference == str(true_run.frames) and document.runs[0].scores.pose.auc_30 == 1.0
    arguments = (true_run.out, "--truth", true_run.frames, "--against", true_run.out)
    done = inside(*arguments, "--json", function=evaluate_command)
    assert done.returncode == ExitCode.OK and json.loads(done.stdout)["difference"]["depth.abs_rel"] == 0.0
    done = inside(*arguments, function=evaluate_command)
    assert re.search(r"pose AUC@30 +│ % +│ +100.00 +│ +100.00 +│ +\+0.00", done.stdout)


def test_the_command_refuses_in_words(true_run, tmp_path):
    def command(*arguments):
        return inside(*arguments, function=evaluate_command)

    refused(command(true_run.out), ExitCode.USAGE, "--truth CLIP or --against OUT2")
    refused(command(true_run.out, "--truth", true_run.frames, "-o", tmp_path), ExitCode.USAGE, "-o names no file")
    for name, place in (("the run", true_run.out / "summary.json"), ("the truth", true_run.frames / "cameras.json")):
        before = place.read_bytes()
        refused(command(true_run.out, "--truth", true_run.frames, "-o", place), ExitCode.USAGE, f"-o lies in {name}")
        assert place.read_bytes() == before
    refused(command(tmp_path, "--truth", true_run.frames), ExitCode.USAGE, "summary")
