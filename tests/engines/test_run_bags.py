"""`page4d-run` over recorded bags: the results are those of the same frames in images."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from page4d_engines.commands.convert import convert_command
from page4d_engines.results.batch.batch_summary import read_batch_summary
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save
from tests.engines.clip.bags.recordings import compressed, stream, write_bag
from tests.support.commands import inside, refused, run

A, B = "/a/image_raw", "/b/image_raw/compressed"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A rendered clip, and its frames alone in images."""
    clip, root = render(4, 2, 100, 80, seed=2), tmp_path_factory.mktemp("rendered")
    save(clip, root / "clip")
    return clip, pathlib.Path(shutil.copytree(root / "clip" / "frames", root / "alone"))


@pytest.fixture
def topics(clip):
    """The clip's cameras as topics: one plain, one compressed; and a third, which is late."""
    first, second = clip[0].frames.swapaxes(0, 1)
    return {
        A: stream(first),
        B: stream(second, compressed, offset=3_000_000),
        "/c/image_raw": stream(first, offset=16_000_000),
    }


def results(out):
    summary = read_summary(out / "summary.json")
    return summary, {window.file: load_file(out / window.file) for window in summary.windows}


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_a_bag_gives_what_its_images_give(storage, made, clip, topics, tmp_path):
    engines = made("default").folder
    bag = write_bag(tmp_path / "bag", topics, storage)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    assert run(engines, clip[1], "-o", tmp_path / "images").returncode == 0
    _, expected = results(tmp_path / "images")
    for path, out in ((bag, tmp_path / "of_bag"), (file, tmp_path / "of_file")):
        done = run(engines, path, "-o", out, "--topics", f"{A},{B}")
        assert done.returncode == 0, done.stderr
        summary, tensors = results(out)
        assert summary.cameras == ["a.image_raw", "b.image_raw.compressed"]
        assert list(tensors) == list(expected)
        for window, arrays in expected.items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(tensors[window][name], array)
    done = run(engines, file, "-o", tmp_path / "of_file", "--topics", f"{A},{B}", "--resume")
    assert done.returncode == 0 and read_summary(tmp_path / "of_file" / "summary.json") == summary


def test_more_topics_than_views_are_refused_with_the_option(made, topics, tmp_path):
    done = run(made("default").folder, write_bag(tmp_path / "bag", topics), "-o", tmp_path / "out")
    refused(done, 2, "3 cameras: a.image_raw, b.image_raw.compressed, c.image_raw", "--topics")
    assert not (tmp_path / "out").exists()


def test_bags_and_folders_run_in_one_command(made, clip, topics, tmp_path):
    bags = [write_bag(tmp_path / name, {topic: topics[topic] for topic in (A, B)}) for name in ("one", "two")]
    (file,) = (path for path in bags[1].iterdir() if path.suffix != ".yaml")
    done = run(made("default").folder, bags[0], file, clip[1], "-o", tmp_path / "out", "-q")
    assert done.returncode == 0, done.stderr
    states = read_batch_summary(tmp_path / "out").folders
    assert len(states) == 3 and {state.state for state in states} == {"done"}


def test_a_bag_is_not_written_over(made, topics, tmp_path):
    bag = write_bag(tmp_path / "bag", topics)
    before = sorted(bag.iterdir())
    for out in (bag, bag / "out", tmp_path):
        refused(run(made("default").folder, bag, "-o", out, "--topics", f"{A},{B}"), 2, "bag")
    assert sorted(bag.iterdir()) == before
    refused(run(made("default").folder, bag, "-o", tmp_path / "out", "--topics", "/d"), 2, "no such topic", A)


def test_a_bag_becomes_input_of_other_programs(made, tmp_path):
    """Its frames are written as images, which these programs read; the run is read again by its cameras."""
    frames = render(1, 3, 90, 70).frames.swapaxes(0, 1)
    topics = {f"/cam{v}/image_raw": stream(frames[v]) for v in range(3)}
    bag = write_bag(tmp_path / "bag", topics | {"/other/image_raw": stream(frames[0])})
    out, chosen = tmp_path / "out", list(topics)[::-1]
    options = ("--topics", ",".join(chosen), "--formats", "colmap")
    done = run(made("pi3").folder, bag, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    done = inside(out, "--formats", "nerfstudio", function=convert_command)
    assert done.returncode == 0, done.stderr
    listed = {frame["file_path"] for frame in json.loads((out / "transforms.json").read_text())["frames"]}
    assert listed == {f"images/cam{v}.image_raw/000000.png" for v in range(3)}
    for v in range(3):
        with Image.open(out / "images" / f"cam{v}.image_raw" / "000000.png") as image:
            np.testing.assert_array_equal(np.asarray(image), frames[v, 0])
