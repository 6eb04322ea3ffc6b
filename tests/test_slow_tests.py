"""What only ./test.sh --long runs is little, and a faster test beside it guards the same."""

import re

import pytest

MOST = 0.05  # of all tests


def is_slow(item):
    return item.get_closest_marker("slow") is not None


def test_slow_tests_are_few(all_tests):
    slow = [item.nodeid for item in all_tests if is_slow(item)]
    if len(all_tests) < 1000:
        pytest.skip("this run is of a part of the tests")
    assert 0 < len(slow) <= MOST * len(all_tests), slow


def test_a_file_of_slow_tests_has_faster_ones(all_tests):
    fast = {item.path for item in all_tests if not is_slow(item)}
    alone = sorted({str(item.path) for item in all_tests if is_slow(item) and item.path not in fast})
    if any("::" in argument for argument in all_tests[0].config.args):
        pytest.skip("this run is of single tests")
    assert not alone


def test_no_test_is_left_out_by_another_name(pytestconfig):
    """./test.sh runs what is not slow, --long what is: nothing is between them."""
    root = pytestconfig.rootpath
    assert pytestconfig.getini("addopts")[-2:] == ["-m", "not slow"]
    selected = re.findall(r'-m "([^"]+)"', (root / "test.sh").read_text())
    assert selected == ["slow or hypothesis"]
