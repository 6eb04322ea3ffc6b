"""What only ./test.sh --long runs is little, and a faster test beside it guards the same."""

import pathlib
import re

MOST = 140  # of about 3000 tests


def is_slow(item):
    return item.get_closest_marker("slow") is not None


def test_slow_tests_are_few(all_tests):
    slow = [item.nodeid for item in all_tests if is_slow(item)]
    assert len(slow) <= MOST, slow


def test_a_file_of_slow_tests_has_faster_ones(all_tests, pytestconfig):
    """But for files of which the command line names single tests."""
    in_part = {
        pathlib.Path(argument.partition("::")[0]).resolve() for argument in pytestconfig.args if "::" in argument
    }
    fast = {item.path for item in all_tests if not is_slow(item)}
    assert not {str(item.path) for item in all_tests if is_slow(item) and item.path not in fast | in_part}


def test_no_test_is_left_out_by_another_name(pytestconfig):
    """./test.sh runs what is not slow, --long what is: nothing is between them."""
    root = pytestconfig.rootpath
    assert pytestconfig.getini("addopts")[-2:] == ["-m", "not slow"]
    selected = re.findall(r'-m "([^"]+)"', (root / "test.sh").read_text())
    assert selected == ["slow or hypothesis"]
