"""`Page`: what a browser shows of a run: the scene, and the panel that a person changes it with."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from typing import Any

import numpy as np
import viser

from page4d.system.plain_text import counted
from page4d_engines.results.scene.cloud_view import FOV, HEIGHT, WIDTH
from page4d_engines.results.viewer.colouring import Colour, Coloured, available
from page4d_engines.results.viewer.drawn_scene import DrawnScene, Look
from page4d_engines.results.viewer.shown_image import ShownImage
from page4d_engines.results.viewer.shown_points import ShownPoints
from page4d_engines.results.viewer.shown_scene import ShownScene

_OVERVIEW = "overview"
_NARROW = 1.5  # width by height of what a page leaves beside its panel
_BAR_HEIGHT = 14  # pixels of the legend
_SIZES = (0.2, 4.0)  # of a point, as multiples
_SPEEDS = (1, 30)  # timesteps per second


@dataclasses.dataclass(frozen=True)
class Moment:
    """A timestep of a scene."""

    scene: int
    t: int
    name: str


class Page:
    """Scenes in a server, with a panel. One state for all browsers that look at it.

    Args:
        server: viser's.
        scenes: of a run, at least one.
        title: of the panel: what is looked at.
    """

    def __init__(self, server: viser.ViserServer, scenes: list[ShownScene], title: str) -> None:
        self._server, self._title = server, title
        self._lock = threading.RLock()  # callbacks come from threads of viser's, moments from the player
        self._scenes = [DrawnScene(server, scene, f"/scene{number}") for number, scene in enumerate(scenes)]
        self.moments = [
            Moment(number, t, name) for number, scene in enumerate(scenes) for t, name in scene.times.items()
        ]
        self._moment, self._look = 0, Look()
        self._ended, self._playing = threading.Event(), threading.Event()
        self._prepare_view()
        self._add_panel()
        self._fill()
        self._show()
        self._player = threading.Thread(target=self._play, name="page4d player", daemon=True)
        self._player.start()

    @property
    def look(self) -> Look:
        """What is drawn, and how."""
        return self._look

    def close(self) -> None:
        """End the player's thread."""
        self._ended.set()
        self._playing.set()
        self._player.join(5)

    def go_to(self, moment: int) -> None:
        """Show another of `moments`."""
        with self._lock:
            self._moment = moment
            self._show()
        if len(self.moments) > 1:
            self._slider.value = moment

    def change(self, **changes: Any) -> None:
        """Draw otherwise; `changes` are fields of `Look`."""
        with self._lock:
            before, self._look = self._look, dataclasses.replace(self._look, **changes)
            if (before.colour, before.percent) != (self._look.colour, self._look.percent):
                self._fill()
            elif before.size != self._look.size:
                for drawn in self._scenes:
                    drawn.resize(self._look)
            self._show()

    @property
    def scene(self) -> ShownScene:
        """Of the moment."""
        return self._scenes[self.moments[self._moment].scene].scene

    @property
    def images(self) -> list[ShownImage]:
        """Those of the moment whose pose is known."""
        return [image for image in self.scene.posed if image.t == self.moments[self._moment].t]

    def _prepare_view(self) -> None:
        scene, start = self.scene, self._server.initial_camera
        pose, distance = scene.overview
        self._server.scene.set_up_direction(scene.up)
        start.up = scene.up
        start.position = pose[:3, 3]
        start.look_at = pose[:3, 3] + distance * pose[:3, 2]
        start.fov = _overview_fov(_NARROW)
        start.near, start.far = 1e-3 * scene.extent, 1e3 * scene.extent

        @self._server.on_client_connect
        def _(client: viser.ClientHandle) -> None:
            client.camera.min_orbit_distance = min(1e-3 * scene.extent, 1e3)
            client.camera.on_update(lambda camera: self._clear_sight())

        self._server.on_client_disconnect(lambda client: self._clear_sight())

    def _add_panel(self) -> None:
        gui = self._server.gui
        gui.configure_theme(
            dark_mode=True,
            show_logo=False,
            show_share_button=False,
        )
        gui.main_panel.dock_right()
        gui.set_panel_label(self._title)
        self._summary = gui.add_markdown("")
        if len(self.moments) > 1:
            with gui.add_folder("Time"):
                self._add_time(gui)
        with gui.add_folder("Points"):
            self._add_points(gui)
        with gui.add_folder("Cameras"):
            self._add_cameras(gui)

    def _add_time(self, gui: viser.GuiApi) -> None:
        last = len(self.moments) - 1
        self._slider: Any = gui.add_slider(
            "Timestep", 0, last, 1, 0, hint="dynamic points and cameras of this timestep"
        )
        self._frame = gui.add_markdown("")
        play = gui.add_button("Play", icon=viser.Icon.PLAYER_PLAY)
        self._speed = gui.add_slider("Speed", *_SPEEDS, 1, 8, hint="timesteps per second while playing")
        self._slider.on_update(lambda event: self.go_to(int(event.target.value)))

        @play.on_click
        def _(event: Any) -> None:
            playing = not self._playing.is_set()
            (self._playing.set if playing else self._playing.clear)()
            play.label = "Pause" if playing else "Play"
            play.icon = viser.Icon.PLAYER_PAUSE if playing else viser.Icon.PLAYER_PLAY

    def _add_points(self, gui: viser.GuiApi) -> None:
        points = ShownPoints.joined([drawn.scene.points for drawn in self._scenes])
        colours = [str(colour) for colour in available(points)]
        colour = gui.add_dropdown("Colour by", colours, initial_value=str(Colour.PHOTO))
        colour.on_update(lambda event: self.change(colour=Colour(event.target.value)))
        self._bar = gui.add_image(np.zeros((_BAR_HEIGHT, 256, 3), np.uint8), format="png", visible=False)
        self._legend = gui.add_markdown("", visible=False)
        size = gui.add_slider("Point size", *_SIZES, 0.1, 1.0, hint="1 leaves no gaps on what a camera sees from close")
        size.on_update(lambda event: self.change(size=float(event.target.value)))
        if Colour.CONFIDENCE in available(points):
            percent = gui.add_slider("Hide unsure", 0, 99, 1, 0, hint="percent of points, the least confident")
            percent.on_update(lambda event: self.change(percent=float(event.target.value)))
            self._least = gui.add_markdown("", visible=False)
        if Colour.MASK in available(points):
            self._add_toggle(gui, "Static", "static", "points that do not move, by the mask")
            self._add_toggle(gui, "Dynamic", "dynamic", "points that move, by the mask, of the chosen timestep")
        if len(self.moments) > 1:
            hint = "static points of all timesteps, or of the chosen one alone"
            self._add_toggle(gui, "Static of all times", "all_times", hint)

    def _add_cameras(self, gui: viser.GuiApi) -> None:
        names = list(dict.fromkeys(image.camera_name for drawn in self._scenes for image in drawn.scene.posed))
        places = gui.add_dropdown("Look from", [_OVERVIEW, *names], hint="moves this browser's view")
        again = gui.add_button("Look from there again", color="gray", icon=viser.Icon.CAMERA)
        for control in (places.on_update, again.on_click):
            control(lambda event: self._jump(event.client, places.value))
        if names:
            self._add_toggle(gui, "Cameras and photos", "cameras", "of the chosen timestep")
            self._add_toggle(gui, "Names", "names", "of the cameras")
        if names and len(self.moments) > 1:
            self._add_toggle(gui, "Cameras of all times", "all_cameras", "where they were, without photos")

    def _add_toggle(self, gui: viser.GuiApi, label: str, field: str, hint: str) -> None:
        box = gui.add_checkbox(label, bool(getattr(self._look, field)), hint=hint)
        box.on_update(lambda event: self.change(**{field: bool(event.target.value)}))

    def _fill(self) -> None:
        coloured = [drawn.fill(self._look) for drawn in self._scenes]
        self._say_colours(coloured[self.moments[self._moment].scene])

    def _say_colours(self, coloured: Coloured) -> None:
        self._bar.visible, self._legend.visible = coloured.bar is not None, bool(coloured.legend)
        if coloured.bar is not None:
            self._bar.image = np.repeat(coloured.bar[None], _BAR_HEIGHT, axis=0)
        self._legend.content = coloured.legend
        if hasattr(self, "_least"):
            threshold = self._scenes[self.moments[self._moment].scene].threshold(self._look.percent)
            self._least.visible = threshold is not None
            self._least.content = "" if threshold is None else f"confidence at least {threshold:.4g}"

    def _show(self) -> None:
        moment = self.moments[self._moment]
        for number, drawn in enumerate(self._scenes):
            drawn.show(self._look, moment.t if number == moment.scene else None)
        self._summary.content = self._in_words(self.scene)
        if len(self.moments) > 1:
            window = f", window {self.scene.name}" if self.scene.name else ""
            self._frame.content = f"frame {moment.name}{window}"

    def _in_words(self, scene: ShownScene) -> str:
        drawn = len(scene.points)
        points = f"{drawn:,} points" if drawn == scene.total else f"{drawn:,} of {scene.total:,} points"
        cameras = counted(len({image.v for image in scene.posed}), "camera")
        times = f" at {counted(len(scene.times), 'timestep')}" if len(scene.times) > 1 else ""
        return f"{points} of {cameras}{times}\n\nlengths in {scene.unit}"

    def _clear_sight(self) -> None:
        """Hide the camera that a browser looks from: its photo would cover the points."""
        eyes = [client.camera.position for client in self._server.get_clients().values()]
        with self._lock:
            drawn = self._scenes[self.moments[self._moment].scene]
            drawn.eyes = np.array(eyes).reshape(-1, 3)
            drawn.show_cameras(self._look)

    def _jump(self, client: viser.ClientHandle | None, name: str) -> None:
        """Move a browser's view to a camera of the moment, or to the overview."""
        if client is None:
            return
        image = next((image for image in self.images if image.camera_name == name), None)
        if name != _OVERVIEW and image is None:
            client.add_notification("No camera", f"{name} has no pose at this timestep", auto_close_seconds=4)
            return
        scene = self.scene
        pose, distance = scene.overview
        fov = _overview_fov(client.camera.aspect)
        if image is not None and image.pose is not None:
            pose, fov = image.pose, image.fov_in(client.camera.aspect)
            distance = image.distance if np.isfinite(image.distance) else scene.extent
        with client.atomic():
            client.camera.up_direction = scene.up if image is None else -pose[:3, 1]
            client.camera.position = pose[:3, 3]
            client.camera.look_at = pose[:3, 3] + distance * pose[:3, 2]
            client.camera.fov = fov

    def _play(self) -> None:
        while True:
            self._playing.wait()
            if self._ended.is_set():
                return
            self._slider.value = (int(self._slider.value) + 1) % len(self.moments)  # which calls go_to
            time.sleep(1 / self._speed.value)


def _overview_fov(aspect: float) -> float:
    """Vertical field of view, in radians, with which a page shows as much as the report's picture."""
    return 2 * math.atan(math.tan(FOV / 2) * max(1.0, WIDTH / HEIGHT / aspect))
