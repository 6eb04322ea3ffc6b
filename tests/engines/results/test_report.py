"""Summaries of runs, and reports written from them."""

import base64
import io
import itertools
import json
import math
import re
from html.parser import HTMLParser

import markupsafe
import msgspec
import numpy as np
import pytest
from PIL import Image

from page4d.errors import UsageError
from page4d_engines.results.overlay import contact_sheet
from page4d_engines.results.report import (
    EMBEDDED_WINDOWS,
    SEEDED_BOTH,
    SEEDED_NOTE,
    SEEDED_PREDICTIONS,
    Picture,
    write_report,
)
from page4d_engines.results.scene.prediction_summary import CameraSummary, PredictionSummary
from page4d_engines.results.summary import Summary, WindowSummary, mean_of, read_summary, write_summary

CAMERAS = ["left", "<b>&", "\"quoted' name", "前 кам"]


def window(index, cameras=CAMERAS, **changes):
    name = f"w{index:04d}"
    overlays = [f"masks/{name}/{v}_{t}.png" for v in range(len(cameras)) for t in range(2)]
    means = {camera: 0.1 * (v + 1) for v, camera in enumerate(cameras)}
    fields = {
        "name": name,
        "first_frame": f"{index:03d}",
        "last_frame": f"{index + 1:03d}",
        "file": f"{name}.safetensors",
        "seconds": 1.5,
        "mask_mean": means,
        "overlays": overlays,
    }
    return WindowSummary(**{**fields, **changes})


def run(windows=2, cameras=CAMERAS, **changes):
    layers = ("view_sa.0", "time_sa.0", "view_sa.1", "time_sa.1", "global_sa.1")
    stages = ("encoder", "mask_head", *layers, "depth_head.<3>")
    fields = {
        "page4d": "0.1.0",
        "engines": "engines/tiny",
        "frames": "clip/frames",
        "model": {"width": 128, "order": ["view", "time"], "epipolar": False, "note": "<i>"},
        "weights": "checkpoint_150.pt",
        "layout": {"T": 2, "V": len(cameras), "H": 28, "W": 42},
        "precision": "float32",
        "backend": "onnxruntime",
        "cameras": cameras,
        "windows": [window(index, cameras) for index in range(windows)],
        "stage_seconds": {name: 0.25 * (index + 1) for index, name in enumerate(stages)},
        "stage_flop": {name: (index + 1) * 10**9 for index, name in enumerate(stages)},
        "decode_seconds": 0.5,
        "write_seconds": 0.25,
        "wall_seconds": 12.0,
        "startup_seconds": 1.0,
        "buffer_bytes": 3 * 2**20,
        "peak_rss_bytes": 2**31,
    }
    return Summary(**{**fields, **changes})


def sheet_of(index, cameras=CAMERAS):
    images = np.full((2, len(cameras), 28, 42, 3), 20 * index, np.uint8)
    return [
        Picture(
            contact_sheet(images, np.full((2, len(cameras), 2, 3), 0.5, np.float32), cameras, ["0", "1"]),
            "frames <and> masks",
        )
    ]


class Page(HTMLParser):
    """The page as a browser takes it apart: tags, text, and whether every tag is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.words, self.open = source, [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag, attribute):
        return [attributes[attribute] for name, attributes in self.tags if name == tag and attribute in attributes]


def page(folder, summary, sheets=None):
    return Page(write_report(folder, summary, sheets).read_text("utf-8"))


# ---- summary


def test_a_summary_comes_back(tmp_path):
    summary = run(warnings=["camera <b>& is dark"])
    write_summary(tmp_path / "summary.json", summary)
    assert read_summary(tmp_path / "summary.json") == summary
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    plain = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert list(plain["stage_seconds"]) == list(summary.stage_seconds)


def test_a_summary_of_names_and_numbers_that_json_lacks(tmp_path):
    summary = run(cameras=["bad \udcff byte"], frames="\udc80", windows=0)
    summary = msgspec.structs.replace(
        summary, windows=[window(0, ["bad \udcff byte"], mask_mean={"bad \udcff byte": math.nan})]
    )
    write_summary(tmp_path / "summary.json", summary)
    back = read_summary(tmp_path / "summary.json")
    assert back.cameras == list(back.windows[0].mask_mean)
    assert list(back.windows[0].mask_mean.values()) == [None]
    assert summary.mask_mean is None
    assert back.mask_mean is None
    assert write_report(tmp_path, summary).exists()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"page4d": 3}'])
def test_no_summary(tmp_path, content):
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="summary"):
        read_summary(path)


def test_a_mean_is_over_all_or_none():
    assert mean_of([]) is None
    assert mean_of([0.25, 0.75]) == 0.5
    assert mean_of([0.25, None]) is None
    assert mean_of([0.25, math.nan]) is None


# ---- report


def test_everything_is_on_the_page(tmp_path):
    photos = ["64x48 frames were scaled to 56x42", "48x64 frames were cut"]
    summary = run(warnings=["no cameras.json & <none> found"], photos=photos)
    shown = page(tmp_path, summary, {"w0000": sheet_of(0)})
    texts = (summary.weights, summary.precision, summary.backend, summary.engines, summary.frames)
    for text in (*summary.cameras, *summary.stage_seconds, *summary.warnings, *photos, *texts):
        assert text in shown.text
        assert str(markupsafe.escape(text)) in shown.source
    assert f"{summary.mask_mean:.3f}" in shown.text
    assert "<b>" not in shown.source
    assert "<i>" not in shown.source
    links = shown.all("a", "href")
    for entry in summary.windows:
        assert {entry.file, *entry.overlays} <= set(links)
    assert "summary.json" in links
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_pictures_are_in_the_page_and_nothing_is_fetched(tmp_path):
    sheets = {f"w{index:04d}": sheet_of(index) for index in range(2)}
    shown = page(tmp_path, run(), sheets)
    sources = shown.all("img", "src")
    assert len(sources) == len(sheets)
    for source, sheet in zip(sources, sheets.values(), strict=True):
        kind, data = source.split(",", 1)
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert image.size == sheet[0].image.size
            assert np.abs(np.asarray(image).astype(int) - np.asarray(sheet[0].image)).mean() < 4
    assert not re.search(r"https?://", shown.source)
    assert not re.search(r"@import|url\(", shown.source)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in shown.tags}
    assert all(not href.startswith("/") and ":" not in href for href in shown.all("a", "href"))


def test_only_the_first_windows_are_embedded_and_the_others_linked(tmp_path):
    windows = EMBEDDED_WINDOWS + 3
    summary = run(windows)
    shown = page(tmp_path, summary, {entry.name: sheet_of(0) for entry in summary.windows})
    assert len(shown.all("img", "src")) == EMBEDDED_WINDOWS
    assert set(summary.windows[-1].overlays) <= set(shown.all("a", "href"))


def test_windows_without_a_sheet_or_overlays(tmp_path):
    summary = run(0)
    summary = msgspec.structs.replace(summary, windows=[window(0), window(1, overlays=[])])
    shown = page(tmp_path, summary, {"another": sheet_of(0)})
    assert shown.all("img", "src") == []
    assert all(entry.name in shown.text for entry in summary.windows)
    assert page(tmp_path, run(0)).all("img", "src") == []


def test_seeded_weights_are_said(tmp_path):
    assert SEEDED_NOTE not in page(tmp_path, run()).text
    shown = page(tmp_path, run(weights="Seeded (0)")).text
    assert SEEDED_NOTE in shown
    assert shown.index(SEEDED_NOTE) < shown.index("Frames and mask")


def test_warnings_are_announced_at_the_top(tmp_path):
    assert "#warnings" not in page(tmp_path, run()).all("a", "href")
    shown = page(tmp_path, run(warnings=["one", "two"]))
    assert "#warnings" in shown.all("a", "href")
    assert "warnings" in shown.all("h2", "id")


def test_bars_are_in_proportion_and_rates_add_up(tmp_path):
    summary = run(
        stage_seconds={"view_sa.0": 1.0, "view_sa.1": 3.0, "encoder": 2.0},
        stage_flop={"view_sa.0": 10**9, "view_sa.1": 7 * 10**9, "encoder": 10**9},
        wall_seconds=7.75,
    )
    source = page(tmp_path, summary).source
    times = source[source.index("Where the time went") :]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", times)]
    # encoder, view_sa, decode, write, startup, of the longest; nothing is left over
    assert widths == [50.0, 100.0, 12.5, 6.25, 25.0]
    text = Page(times[times.index("<table") : times.index("</table>") + len("</table>")]).text
    assert "2.00 s 26% 0.5" in text
    assert "4.00 s 52% 2.0" in text


def test_times_that_overlap_or_are_not_known(tmp_path):
    assert "meanwhile" in page(tmp_path, run(wall_seconds=2.0)).text
    assert "meanwhile" not in page(tmp_path, run(wall_seconds=100.0)).text
    bare = run(
        stage_seconds={}, stage_flop={}, decode_seconds=0.0, write_seconds=0.0, startup_seconds=0.0, wall_seconds=0.0
    )
    assert "Where the time went" in page(tmp_path, bare).text


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("a b#1?.safetensors", "a%20b%231%3F.safetensors"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ('"><b>.png', "%22%3E%3Cb%3E.png"),
    ],
)
def test_links_are_file_names_whatever_they_hold(tmp_path, path, href):
    summary = msgspec.structs.replace(run(0), windows=[window(0, file=path)])
    shown = page(tmp_path, summary)
    assert href in shown.all("a", "href")
    assert path in shown.text


def test_a_report_is_replaced_whole(tmp_path):
    first = write_report(tmp_path, run(1))
    before = first.read_text("utf-8")
    with pytest.raises(OSError):
        write_report(tmp_path / "missing", run(1))
    assert write_report(tmp_path, run(3)).read_text("utf-8") != before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_sheet_taller_than_a_jpeg_can_be(tmp_path):
    shown = page(tmp_path, run(1), {"w0000": [Picture(Image.new("RGB", (20, 70000)), "tall")]})
    (source,) = shown.all("img", "src")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as image:
        image.load()
        assert image.height < 70000


# ---- a run of Pi3's engines: points, cameras and depth, no mask


def predicted(index, **changes):
    rig = {
        camera: CameraSummary([0.5 * v, None if v == 1 else 0.0, -1.0], [400.0, 401.5], v != 2, 0.25)
        for v, camera in enumerate(CAMERAS)
    }
    name = f"w{index:04d}"
    predictions = PredictionSummary(
        f"{name}/points.ply", 1234567, f"{name}/cameras.json", [f"{name}/depth/{v}.png" for v in range(4)], 0.001, rig
    )
    return window(index, mask_mean={}, overlays=[], predictions=predictions, **changes)


def test_predictions_instead_of_masks(tmp_path):
    summary = run(windows=0, weights="Seeded (0)")
    summary = msgspec.structs.replace(summary, windows=[predicted(0), predicted(1)])
    pictures = {
        "w0000": [Picture(Image.new("RGB", (40, 20)), "the cloud"), Picture(Image.new("RGB", (30, 20)), "the depth")]
    }
    shown = page(tmp_path, summary, pictures)
    assert "2,469,134 points" in shown.text and "mask mean" not in shown.text.lower()
    assert SEEDED_PREDICTIONS in shown.text and SEEDED_NOTE not in shown.text
    assert shown.all("img", "alt") == ["the cloud", "the depth"] and "the cloud" in shown.text
    links = shown.all("a", "href")
    assert {"w0000/points.ply", "w0001/cameras.json", "w0000/depth/3.png"} <= set(links)
    cameras = shown.text[shown.text.index("Cameras Positions") :]
    assert "0.000, 0.000, -1.000" in cameras and "none" in cameras and "(a guess)" in cameras
    assert "400.0, 401.5" in cameras
    assert summary.has_predictions and not summary.has_mask and summary.mask_mean is None
    write_summary(tmp_path / "summary.json", summary)
    assert read_summary(tmp_path / "summary.json") == summary


def test_a_run_with_neither(tmp_path):
    summary = msgspec.structs.replace(run(0), windows=[window(0, mask_mean={}, overlays=[])])
    shown = page(tmp_path, summary)
    assert "w0000.safetensors" in shown.text and "Mask mean" not in shown.text
    assert "Cameras" not in shown.all("h2", "id")


# ---- a run of VGGT's or PAGE-4D's engines, with some of the heads


def of_heads(files, **changes):
    """A window with cameras of the network's own intrinsics, of one image without a field of view."""
    rig = {"f0": CameraSummary([0.0, 0.5, 1.0], [300.5, 301.0], None, None)}
    rig["f1"] = CameraSummary([None] * 3, [None, 250.0], None, None)
    predictions = PredictionSummary(
        cloud="points.ply" if "cloud" in files else None,
        points=12345 if "cloud" in files else 0,
        cameras="cameras.json" if "cameras" in files else None,
        depth=["depth/f0.png", "depth/f1.png"] if "depth" in files else [],
        depth_scale=0.001 if "depth" in files else None,
        rig=rig if "cameras" in files else {},
        points_from="depth" if "cloud" in files else None,
        confidence="depth_confidence" if "cloud" in files else None,
        percentile=50.0 if "cloud" in files else None,
        threshold=2.3456 if "cloud" in files else None,
    )
    return window(0, ["cam"], **{"mask_mean": {}, "overlays": [], "predictions": predictions, **changes})


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize(
    "files",
    [subset for count in range(1, 4) for subset in itertools.combinations(("cloud", "cameras", "depth"), count)],
)
def test_a_page_shows_what_the_heads_give_and_nothing_else(tmp_path, files, has_mask):
    mask = {"mask_mean": {"cam": 0.25}} if has_mask else {}
    summary = msgspec.structs.replace(run(0, ["cam"], weights="seeded"), windows=[of_heads(files, **mask)])
    shown = page(tmp_path, summary)
    links = set(shown.all("a", "href"))
    assert ("points.ply" in links) == ("cloud" in files) == ("12,345 points" in shown.text)
    assert ("cameras.json" in links) == ("cameras" in files) == ("<h2>Cameras</h2>" in shown.source)
    assert ("depth/f1.png" in links) == ("depth" in files)
    source = "from depth and cameras, confidence at least 2.346, percentile 50 of the window"
    assert (source in shown.text) == ("cloud" in files)
    if "cameras" in files:
        assert "300.5, 301.0" in shown.text and "none, 250.0" in shown.text and "none, none, none" in shown.text
        assert "a guess" not in shown.text and "residual" not in shown.text
    assert ("mask mean 0.250" in shown.text) == has_mask
    assert (SEEDED_BOTH if has_mask else SEEDED_PREDICTIONS) in shown.text and "None" not in shown.text
    write_summary(tmp_path / "summary.json", summary)
    assert read_summary(tmp_path / "summary.json") == summary


def test_the_licence_of_the_weights_is_a_fact_where_it_is_known(tmp_path):
    licence = "CC BY-NC 4.0: not for commercial use (yyfz233/<Pi3>)"
    for summary, times in ((run(licence=licence), 1), (run(), 0)):
        page = write_report(tmp_path, summary).read_text()
        assert page.count("Licence of the weights") == times
        assert page.count(str(markupsafe.escape(licence))) == times
    write_summary(tmp_path / "summary.json", run(licence=licence))
    assert read_summary(tmp_path / "summary.json").licence == licence
