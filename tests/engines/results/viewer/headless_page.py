"""A page in a headless browser: what it logs, how it looks, and a person's hands on its panel, over DevTools."""

import base64
import contextlib
import io
import itertools
import json
import shutil
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from page4d_engines.results.viewer.browser import NAMES, headless

SIZE = (900, 620)
PATIENCE = 60.0  # seconds: WebGL in software, on a machine that does other things
_RECT = (
    "(e => {e.scrollIntoView(); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]})"
)


def needs_browser():
    """Skip where there is no browser."""
    if not any(shutil.which(name) for name in NAMES):
        pytest.skip(f"no browser: none of {', '.join(NAMES)}")


class HeadlessPage:
    """One page; coordinates are pixels."""

    def __init__(self, websocket):
        self._websocket, self._numbers = websocket, itertools.count(1)
        self.errors = []
        """Exceptions and errors that the page logged."""
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        number = next(self._numbers)
        self._websocket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._websocket.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message):
        parameters = message.get("params", {})
        is_error = (
            message["method"] == "Runtime.exceptionThrown"
            or (message["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"))
            or (message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error")
        )
        if is_error:
            self.errors.append(parameters)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self):
        """uint8 RGB `[h,w,3]` of all of the page."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def drawn(self):
        """The part of the page that shows the scene."""
        edge = self.value("document.querySelector('canvas').getBoundingClientRect().right")
        return self.picture()[:, : int(edge)]

    def text(self):
        return self.value("document.body?.innerText ?? ''")

    def click(self, element):
        """Click the middle of what a JavaScript expression gives."""
        self.click_at(*self.value(f"{_RECT}({element})"))

    def click_at(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def control(self, label):
        """JavaScript for the element of the panel that a label is for."""
        labels = f"[...document.querySelectorAll('label')].find(e => e.innerText === {json.dumps(label)})"
        return f"document.getElementById({labels}.htmlFor)"

    def toggle(self, label):
        """Click a checkbox."""
        self.click(self.control(label))

    def choose(self, label, option):
        """Choose from a list."""
        self.click(self.control(label))
        entry = f"[...document.querySelectorAll('[role=option]')].find(e => e.innerText === {json.dumps(option)})"
        until(lambda: self.value(f"!!({entry})"))
        self.click(entry)

    def slide(self, label, share):
        """Click a slider's track, at a share of its length; keys would turn the view, too."""
        track = f"{self.control(label)}.querySelector('.mantine-Slider-track')"
        left, width, y = self.value(
            f"(e => {{e.scrollIntoView(); const r = e.getBoundingClientRect();"
            f" return [r.x, r.width, r.y + r.height / 2]}})({track})"
        )
        self.click_at(left + share * width, y)


@contextlib.contextmanager
def headless_page(url):
    """A `HeadlessPage` that shows `url`."""
    from websockets.sync.client import connect

    with headless(url, SIZE, ["--remote-debugging-port=0"]) as profile:
        told = profile / "DevToolsActivePort"
        port = until(lambda: told.exists() and told.read_text().split("\n")[0])
        tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=PATIENCE))
        (place,) = (tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(place, max_size=None) as websocket:
            yield HeadlessPage(websocket)


def until(condition, patience=PATIENCE):
    """The first value of `condition()` that counts as true; fails after a while."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(0.1)
    return value
