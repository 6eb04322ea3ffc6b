"""Recordings, read back by rerun's own reader."""

import collections
import dataclasses
import io
import sys

import numpy as np
import pytest
from PIL import Image

from page4d.errors import MissingBackendError
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.viewer.rerun_file import refuse_rerun_file, require_rerun, write_rerun
from page4d_engines.results.viewer.shown_scene import ShownScene
from tests.support.clips import refusal

pytest.importorskip("rerun.chunk")  # the reader of versions after 0.26, which has another


class Recording:
    """What a file holds: columns by entity, component and timestep; None is that of what has no time."""

    def __init__(self, path):
        from rerun.chunk import RrdReader

        self.columns = collections.defaultdict(dict)
        for chunk in RrdReader(path).stream():
            batch = chunk.to_record_batch().to_pydict()
            times = batch.get("timestep", [None] * chunk.num_rows)
            for component, values in batch.items():
                for t, value in zip(times, values, strict=True):
                    if value is not None:
                        self.columns[str(chunk.entity_path), component][None if chunk.is_static else t] = value

    def at(self, entity, component, t=None):
        return self.columns[entity, component][t]

    @property
    def entities(self):
        return {entity for entity, _ in self.columns}


@pytest.fixture(scope="module")
def recorded(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("rerun") / "run.rrd"
    names = []
    write_rerun(path, run.scenes(), 10**6, names.append)
    assert len(names) == 6 and [entry.name for entry in path.parent.iterdir()] == ["run.rrd"]
    return Recording(path)


def test_static_points_have_no_time_and_dynamic_ones_that_of_their_timestep(recorded, run):
    points = ShownScene.read(run.scenes()[0], 10**6).points
    static = np.array(recorded.at("/world/points/static", "Points3D:positions"))
    assert np.array_equal(static, points.points[~points.dynamic])
    for t in range(3):
        dynamic = np.array(recorded.at("/world/points/dynamic", "Points3D:positions", t))
        assert np.array_equal(dynamic, points.points[points.dynamic & (points.t == t)])


def test_cameras_stand_where_they_are_and_have_the_focal_lengths_of_the_engines_images(recorded, true_run):
    for v in range(2):
        camera = true_run.cameras[2][v]
        (place,) = recorded.at(f"/world/cameras/cam{v}", "Transform3D:translation", 2)
        (K,) = recorded.at(f"/world/cameras/cam{v}", "Pinhole:image_from_camera", 2)
        assert np.allclose(place, camera.centre, atol=1e-5)
        assert np.allclose(np.array(K).reshape(3, 3).T, camera.K, rtol=1e-5)


def test_a_camera_whose_pose_is_lost_does_not_stay_where_it_was(run, tmp_path, monkeypatch):
    whole = Scene.images

    def images(scene):
        for image in whole(scene):
            lost = dataclasses.replace(image.calibration, camera_to_world=np.full((4, 4), np.nan))
            yield dataclasses.replace(image, calibration=lost) if image.t == 1 else image

    monkeypatch.setattr(Scene, "images", images)
    write_rerun(tmp_path / "run.rrd", run.scenes(), 100)
    columns = Recording(tmp_path / "run.rrd").columns
    assert set(columns["/world/cameras/cam0", "Transform3D:translation"]) == {0, 2}
    assert set(columns["/world/cameras/cam0", "Clear:is_recursive"]) == {1}


def test_photos_depth_and_masks_are_on_the_timeline(recorded, true_run, run):
    image = next(image for image in run.scenes()[0].images() if (image.t, image.v) == (1, 0))
    (blob,) = recorded.at("/world/cameras/cam0/photo", "EncodedImage:blob", 1)
    photo = np.asarray(Image.open(io.BytesIO(bytes(blob))).convert("RGB"))
    assert np.abs(photo.astype(int) - image.pixels).mean() < 8
    (depth,) = recorded.at("/world/cameras/cam0/depth", "DepthImage:buffer", 1)
    assert np.allclose(np.frombuffer(bytes(depth), np.float32).reshape(image.depth.shape), true_run.depth[1, 0])
    (mask,) = recorded.at("/world/cameras/cam0/mask", "SegmentationImage:buffer", 1)
    assert np.array_equal(np.frombuffer(bytes(mask), np.uint8).reshape(image.mask.shape), image.mask >= 0.5)


def test_windows_with_worlds_of_their_own_have_entities_of_their_own(apart, tmp_path):
    write_rerun(tmp_path / "run.rrd", apart.scenes(), 1000)
    entities = Recording(tmp_path / "run.rrd").entities
    for window in apart.summary.windows:
        assert f"/world/{window.name}/points/static" in entities and f"/world/{window.name}/cameras/cam0" in entities


def test_a_recording_replaces_an_earlier_one_whole_or_not_at_all(run, tmp_path):
    path = tmp_path / "run.rrd"
    write_rerun(path, run.scenes(), 1000)
    before = path.read_bytes()
    refuse_rerun_file(path, run.path)

    def stop(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rerun(path, run.scenes(), 100, stop)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_recordings_are_not_replaced(run, tmp_path):
    notes = tmp_path / "notes.rrd"
    notes.write_text("mine")
    refusal(lambda: refuse_rerun_file(notes, run.path), "no recording", notes)
    refusal(lambda: refuse_rerun_file(tmp_path / "run.txt", run.path), ".rrd", "run.txt")
    refusal(lambda: refuse_rerun_file(tmp_path / "none" / "run.rrd", run.path), "does not exist", "mkdir")
    refusal(lambda: refuse_rerun_file(run.path / "run.rrd", run.path), "the run's folder")


def test_without_rerun_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    refusal(require_rerun, "rerun-sdk", "page4d[rerun]", kind=MissingBackendError)
