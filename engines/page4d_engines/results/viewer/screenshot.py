"""Pictures of a scene as PNG files, drawn by a browser that nobody sits at."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.errors import Page4DError
from page4d.files import staged
from page4d_engines.results.contact_sheet import BACKGROUND
from page4d_engines.results.scene.cloud_view import FOV
from page4d_engines.results.viewer.browser import find_browser, headless
from page4d_engines.results.viewer.server import LOOPBACK, free_port, require_viser, serving
from page4d_engines.results.viewer.shown_image import ShownImage
from page4d_engines.results.viewer.shown_scene import ShownScene

if TYPE_CHECKING:
    import viser

    from page4d_engines.results.viewer.page import Page

OVERVIEW, CAMERAS = "overview.png", "cameras"
SIZE = (1280, 720)
"""Of the overview, in pixels; the longer side of cameras' views is the first."""

_WINDOW = (800, 600)  # of the browser: what it draws between pictures, which are of their own size
_START, _RENDER = 90.0, 120.0  # seconds that a browser may take to load the page, and to draw it once
_TRIES, _PAUSE = 20, 0.5  # of a picture that still changes, and seconds between them
Tell = Callable[[str], None]


def require_screenshots() -> None:
    """Raise where pictures cannot be drawn.

    Raises:
        MissingBackendError: there is no viser, or no browser.
    """
    require_viser()
    find_browser()


def write_screenshots(folder: pathlib.Path, scenes: list[ShownScene], tell: Tell = lambda name: None) -> int:
    """Write `overview.png` and what each camera sees of the cloud, `cameras/<name>.png`; whole or not at all.

    Of several scenes each has a folder of its name. A camera's picture has the aspect ratio of what the engine saw of
    the photo; its points are the static ones of all timesteps and the dynamic ones of its own.

    Args:
        folder: a new or empty one, checked before.
        scenes: of a run.
        tell: is called with the name of every picture.

    Returns:
        The number of pictures.

    Raises:
        MissingBackendError: there is no viser, or no browser.
        Page4DError: the browser does not load or draw the page.
    """
    from page4d_engines.results.viewer.page import Page

    port = free_port()
    count = 0
    with staged(folder) as staging, serving(LOOPBACK, port) as server:
        page = Page(server, scenes, "page4d")
        try:
            with headless(f"http://{LOOPBACK}:{port}", _WINDOW):
                client = _client(server)
                for number, scene in enumerate(scenes):
                    place = staging / scene.name
                    for name, picture in _pictures(page, client, number):
                        path = place / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        picture.save(path)
                        tell(name)
                        count += 1
        finally:
            page.close()
    return count


def _pictures(page: Page, client: viser.ClientHandle, number: int) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures of a scene, each timestep's cameras after one another."""
    moments = [index for index, moment in enumerate(page.moments) if moment.scene == number]
    page.go_to(moments[0])
    pose, _ = page.scene.overview
    yield OVERVIEW, _settled(client, pose, FOV, SIZE)
    page.change(cameras=False)
    for moment in moments:
        page.go_to(moment)
        for image in page.images:
            assert image.pose is not None
            yield f"{CAMERAS}/{image.name}.png", _render(client, image.pose, image.fov or FOV, _size(image))
    page.change(cameras=True)


def _client(server: viser.ViserServer) -> viser.ClientHandle:
    deadline = time.monotonic() + _START
    while not server.get_clients():
        if time.monotonic() > deadline:
            raise Page4DError(
                f"the browser has not loaded the viewer's page within {_START:g} seconds",
                got=find_browser(),
                hint="page4d view, in a browser of your own",
            )
        time.sleep(0.05)
    return next(iter(server.get_clients().values()))


def _settled(client: viser.ClientHandle, pose: NDArray[np.float64], fov: float, size: tuple[int, int]) -> Image.Image:
    """A picture that no longer changes: photos are decoded by the browser when it likes."""
    before = _render(client, pose, fov, size)
    for _ in range(_TRIES):
        time.sleep(_PAUSE)
        picture = _render(client, pose, fov, size)
        if np.array_equal(np.asarray(before), np.asarray(picture)):
            break
        before = picture
    return before


def _render(client: viser.ClientHandle, pose: NDArray[np.float64], fov: float, size: tuple[int, int]) -> Image.Image:
    from page4d_engines.results.viewer.drawn_scene import quaternion

    try:
        drawn = client.get_render(
            size[1],
            size[0],
            wxyz=quaternion(pose),
            position=pose[:3, 3],
            fov=fov,
            transport_format="png",
            timeout=_RENDER,
        )
    except (RuntimeError, TimeoutError) as error:
        hint = "fewer points: --max-points"
        raise Page4DError(f"the browser has not drawn the scene: {error}", got=find_browser(), hint=hint) from None
    picture = Image.new("RGBA", size, (*BACKGROUND, 255))
    picture.alpha_composite(Image.fromarray(drawn).convert("RGBA"))
    return picture.convert("RGB")


def _size(image: ShownImage) -> tuple[int, int]:
    """Of a camera's picture: the longer side is `SIZE[0]`."""
    width = image.aspect if math.isfinite(image.aspect) else 1.0
    scale = SIZE[0] / max(width, 1.0)
    return max(1, round(width * scale)), max(1, round(scale))
