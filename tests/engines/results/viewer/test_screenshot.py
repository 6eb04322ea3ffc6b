"""Pictures that a headless browser draws of a run."""

import subprocess

import numpy as np
import pytest
from PIL import Image

from page4d.errors import MissingBackendError, Page4DError
from page4d_engines.results.contact_sheet import BACKGROUND
from page4d_engines.results.viewer import screenshot
from page4d_engines.results.viewer.browser import find_browser
from page4d_engines.results.viewer.screenshot import require_screenshots, write_screenshots
from page4d_engines.results.viewer.shown_scene import read_scenes
from tests.engines.results.viewer.headless_page import needs_browser
from tests.support.clips import refusal


def test_each_camera_sees_the_cloud_as_its_photo_shows_it(run, tmp_path, monkeypatch):
    needs_browser()
    monkeypatch.setattr(screenshot, "SIZE", (448, 252))
    out, names = tmp_path / "pictures", []
    assert write_screenshots(out, read_scenes(run, 10**6), names.append) == len(names) == 7
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert files == sorted(names)
    images = list(run.scenes()[0].images())
    photos = [np.asarray(Image.fromarray(image.pixels).resize((28, 21), Image.Resampling.BOX)) for image in images]
    for image in images:
        with Image.open(out / "cameras" / f"{image.name}.png") as picture:
            assert picture.size == (448, 336)
            small = np.asarray(picture.resize((28, 21), Image.Resampling.BOX)).astype(int)
        off = [np.abs(small - photo).mean() for photo in photos]
        own, others = off[2 * image.t + image.v], [off[2 * image.t + 1 - image.v]]
        assert own < 20 and own < 0.6 * min(others), f"{image.name} is not as its photo"
    overview = np.asarray(Image.open(out / "overview.png"))
    empty = np.all(overview == BACKGROUND, axis=-1)
    assert 0.1 < empty.mean() < 0.9
    cyan = np.abs(overview.astype(int) - (96, 214, 255)).max(-1) < 40
    assert cyan.sum() > 50, "no cameras in the overview"


def test_without_a_browser_the_error_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    refusal(require_screenshots, "Chromium", "apt-get install chromium", kind=MissingBackendError)


def test_a_browser_that_does_not_load_the_page_leaves_nothing_behind(run, tmp_path, monkeypatch):
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text("#!/bin/sh\nexec sleep 60\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{browser.parent}:/usr/bin:/bin")
    monkeypatch.setattr(screenshot, "_START", 0.3)
    assert find_browser() == str(browser)
    out = tmp_path / "pictures"
    refusal(lambda: write_screenshots(out, read_scenes(run, 100)), "has not loaded", browser, kind=Page4DError)
    assert not out.exists()
    assert subprocess.run(["pgrep", "-f", str(browser)], capture_output=True).stdout == b"", "it still runs"


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_a_cameras_picture_has_the_aspect_of_what_the_engine_saw(run, aspect):
    import dataclasses

    image = dataclasses.replace(read_scenes(run, 10)[0].images[0], aspect=aspect)
    width, height = screenshot._size(image)
    assert max(width, height) == screenshot.SIZE[0] and np.isclose(width / height, aspect, rtol=0.01)
