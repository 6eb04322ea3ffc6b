"""What lies beside a clip's frames: masks, keypoint maps and calibration, found, named or refused."""

import json
import shutil

import pytest
from PIL import Image

from page4d_engines.clip.frame_folder import FrameFolder
from tests.support.clips import H, W, keypoints_for, refusal


def test_named_paths_go_before_what_lies_beside(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("masks", "cameras.json"):
        (folder / name).rename(other / name)
    bare = FrameFolder.open(folder)
    assert bare.mask_files is None and bare.cameras is None
    keypoints_for(other)
    frames = FrameFolder.open(
        folder, masks=other / "masks", cameras=str(other / "cameras.json"), keypoints=other / "keypoints"
    )
    assert frames.cameras is not None
    assert (frames.keypoints(1, 1) == 255 - frames.mask(1, 1)).all()


def test_masks_that_do_not_match(folder):
    Image.new("L", (W, H + 1)).save(folder / "masks" / "cam0" / "000001.png")
    refusal(
        lambda: FrameFolder.open(folder), "camera cam0, mask 000001.png has another size", f"{W}x{H + 1}", f"{W}x{H}"
    )
    (folder / "masks" / "cam0" / "000001.png").unlink()
    refusal(lambda: FrameFolder.open(folder), "camera cam0 has no mask for frame 000001.png", "000001.png")
    shutil.rmtree(folder / "masks" / "cam0")
    refusal(lambda: FrameFolder.open(folder), "masks folder has no camera cam0", "cam0, cam1")


def test_keypoints_that_do_not_match(folder):
    keypoints_for(folder)
    (folder / "keypoints" / "cam1" / "000006.png").unlink()
    refusal(lambda: FrameFolder.open(folder), "camera cam1 has no keypoint map for frame 000006.png")


@pytest.mark.parametrize("name", ["masks", "keypoints", "cameras"])
def test_a_named_path_must_exist(folder, name):
    refusal(
        lambda: FrameFolder.open(folder, **{name: folder / "nowhere"}),
        "nowhere",
        name if name != "cameras" else "cannot be read",
    )


def test_cameras_that_do_not_match(folder):
    path = folder / "cameras.json"
    cameras = json.loads(path.read_text())
    path.write_text(json.dumps({**cameras, "cam1": {**cameras["cam1"], "width": 640}}))
    refusal(lambda: FrameFolder.open(folder), "cameras.json", "another size for camera cam1", f"640x{H}", f"{W}x{H}")
    path.write_text(json.dumps({"left": cameras["cam0"], "cam1": cameras["cam1"]}))
    refusal(lambda: FrameFolder.open(folder), "has no camera cam0", "left, cam1")
    path.write_text(
        json.dumps({"spare": {**cameras["cam1"], "width": 9}, "cam1": cameras["cam1"], "cam0": cameras["cam0"]})
    )
    assert list(FrameFolder.open(folder).cameras) == ["cam0", "cam1"]
    path.write_text("{")
    refusal(lambda: FrameFolder.open(folder), "cameras.json is not JSON")


def test_odd_cameras_are_noted(folder):
    path = folder / "cameras.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: {**entry, "k1": -0.3} for name, entry in content.items()}))
    (note,) = FrameFolder.open(folder).notes
    assert "cam0, cam1: lens distortion is not applied" in note
