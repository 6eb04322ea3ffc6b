"""The page in a headless browser: it loads, the cloud is drawn, and the panel's controls change it."""

import numpy as np
import pytest

from page4d_engines.results.viewer.page import Page
from page4d_engines.results.viewer.server import LOOPBACK, address_of, free_port, serving
from page4d_engines.results.viewer.shown_scene import read_scenes
from tests.engines.results.viewer.headless_page import headless_page, needs_browser, until

BLOCK = 5  # pixels on a side: viser draws fewer pixels where drawing is slow, and edges move by one
MOVING = 20  # of 255: blocks that differ by less are the same
SAME = 1e-3  # share of blocks that may differ in equal pictures; a slow browser draws them more coarsely for a while


@pytest.fixture(scope="module")
def shown(run):
    """A page with the cloud, without cameras, whose start view is drawn."""
    needs_browser()
    port = free_port()
    with serving(LOOPBACK, port) as server:
        page = Page(server, read_scenes(run, 10**6), "a run")
        try:
            with headless_page(address_of(LOOPBACK, port)) as browser:
                until(lambda: "Timestep" in browser.text())
                notice = "document.querySelector('.mantine-Notification-closeButton')"  # that drawing is slow
                if browser.value(f"!!({notice})"):
                    browser.click(notice)
                browser.toggle("Cameras and photos")
                until(lambda: share(browser.drawn()) > 0.05)  # the page fades in
                settled(browser)
                yield browser
        finally:
            page.close()


def background(picture):
    """The colour of most of the page's edge."""
    return np.median(picture[5:-5, 3:8].reshape(-1, 3), axis=0)


def share(picture):
    """How much of a picture is bright, as the rendered scene's walls and floor are."""
    return float(np.mean(picture.max(-1) > 100))


def settled(browser):
    """A picture of the scene that no longer changes."""
    before = [browser.drawn()]

    def same():
        before.append(browser.drawn())
        return before[-1].shape == before[-2].shape and differing(*before[-2:]) < SAME

    until(same)
    return before[-1]


def differing(picture, other):
    """Share of the blocks of pixels that are not the same."""
    return float(np.mean(np.abs(blocks(picture) - blocks(other)).max(-1) > MOVING))


def blocks(picture):
    """Mean colours of blocks, float `[h,w,3]`."""
    h, w = picture.shape[0] // BLOCK, picture.shape[1] // BLOCK
    return picture[: h * BLOCK, : w * BLOCK].reshape(h, BLOCK, w, BLOCK, 3).mean((1, 3))


def changed(browser, before, least=2 * SAME):
    """A settled picture that differs from an earlier one."""
    until(lambda: differing(browser.drawn(), before) > least)
    return settled(browser)


def restored(browser, before):
    until(lambda: differing(browser.drawn(), before) < SAME)


def test_the_page_loads_without_errors_and_says_what_it_shows(shown, run):
    text = shown.text()
    assert "points of 2 cameras at 3 timesteps" in text and "the clip's own unit" in text
    assert shown.errors == []


def test_the_cloud_is_drawn_in_the_colours_of_the_photos(shown, run):
    picture = settled(shown)
    ground = background(picture)
    points = np.abs(picture - ground).max(-1) > 30
    assert 0.1 < points.mean() < 0.95
    pixels = np.concatenate([image.pixels[image.kept] for image in run.scenes()[0].images()])
    drawn, expected = np.median(picture[points], axis=0), np.median(pixels, axis=0)
    assert np.abs(drawn - expected).max() < 30
    assert np.abs(drawn - ground).max() > 60


def test_the_slider_changes_what_is_drawn(shown):
    first = settled(shown)
    shown.slide("Timestep", 0.5)
    second = changed(shown, first)
    until(lambda: "frame 000001" in shown.text())
    shown.slide("Timestep", 1.0)
    changed(shown, second)
    until(lambda: "frame 000002" in shown.text())
    shown.slide("Timestep", 0.0)
    restored(shown, first)


def test_playing_moves_the_slider_and_stops(shown):
    before = settled(shown)
    play = "[...document.querySelectorAll('button')].find(e => ['Play', 'Pause'].includes(e.innerText))"
    shown.click(play)
    until(lambda: "frame 000002" in shown.text())
    shown.click(play)
    until(lambda: "Play" in shown.text())
    shown.slide("Timestep", 0.0)
    restored(shown, before)


def test_points_are_coloured_by_what_is_chosen(shown):
    photo = settled(shown)
    shown.choose("Colour by", "depth")
    depth = changed(shown, photo, 0.1)
    assert "near" in shown.text()
    shown.choose("Colour by", "mask")
    mask = changed(shown, depth, 0.1)
    colours = mask[np.abs(mask - background(mask)).max(-1) > 30]
    assert np.abs(np.median(colours, axis=0) - (24, 22, 84)).max() < 25, "what is static is not indigo"
    red, green, blue = colours.T
    assert np.any((red > 150) & (green < 120) & (blue < 150)), "nothing dynamic is crimson"
    shown.choose("Colour by", "photo")
    restored(shown, photo)


def test_static_and_dynamic_points_are_hidden_apart(shown):
    whole = settled(shown)
    shown.toggle("Static")
    moving = changed(shown, whole, 0.1)
    ground = background(whole)
    assert 0 < np.mean(np.abs(moving - ground).max(-1) > 30) < 0.3 * np.mean(np.abs(whole - ground).max(-1) > 30)
    shown.toggle("Dynamic")
    nothing = changed(shown, moving)
    assert np.mean(np.abs(nothing - ground).max(-1) > 30) < 0.1 * np.mean(np.abs(moving - ground).max(-1) > 30) + 0.02
    shown.toggle("Static")
    still = changed(shown, nothing, 0.1)
    assert differing(still, whole) > 2 * SAME
    shown.toggle("Dynamic")
    restored(shown, whole)


def test_cameras_are_drawn_and_looked_from(shown):
    whole = settled(shown)
    shown.toggle("Cameras and photos")
    cameras = changed(shown, whole)
    shown.choose("Look from", "cam1")
    inside = changed(shown, cameras, 0.2)
    assert share(inside) > share(cameras), "the cloud does not fill the camera's view"
    shown.choose("Look from", "overview")
    outside = changed(shown, inside, 0.2)
    assert share(outside) < share(inside)
    shown.toggle("Cameras and photos")
    changed(shown, outside)


def test_no_error_was_logged_meanwhile(shown):
    assert shown.errors == []
