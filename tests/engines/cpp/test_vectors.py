"""The golden vectors with which C++ is compared are what Python computes."""

import json
import math

import pytest

from tests.vectors.make import FILES, FOLDER, fit, text_of

ONE_ULP = 6e-8  # of float32 below 1: sums in another order round otherwise


def assert_same(actual, expected, where, tolerance=1e-12):
    """Equal in all but the last digits of floats."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same(actual[key], value, f"{where}.{key}", ONE_ULP if key == "mean" else tolerance)
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for number, value in enumerate(expected):
            assert_same(actual[number], value, f"{where}[{number}]", tolerance)
    elif isinstance(expected, float):
        assert math.isclose(actual, expected, rel_tol=tolerance, abs_tol=tolerance), where
    else:
        assert actual == expected and type(actual) is type(expected), where


@pytest.mark.parametrize("name", FILES)
def test_committed_vectors_are_what_python_gives(name):
    committed = (FOLDER / f"{name}.json").read_text()
    assert_same(json.loads(text_of(FILES[name]())), json.loads(committed), name)
    assert len(committed) < 160_000


def test_every_file_of_the_folder_is_made():
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.json")}
    assert files == set(FILES)


def test_images_of_every_mode_and_format_are_among_them():
    images = fit()["images"]
    assert {(case["mode"], case["format"]) for case in images} >= {
        (mode, kind) for mode in ("stretch", "crop", "pad") for kind in ("rgb8", "bgra8", "mono8")
    }
    assert {case["format"] for case in images if case["spare"]} == {"rgb8", "bgr8", "rgba8", "bgra8", "mono8"}
    assert any("hex" in case for case in images)
