"""What long work says of itself, as shares of the whole."""

import pytest

from page4d.system.progress import SILENT, Progress


@pytest.fixture
def told():
    return []


@pytest.fixture
def progress(told):
    return Progress(lambda what, share: told.append((what, round(share, 9))), steps=4)


def test_steps_share_the_work_evenly(progress, told):
    for name in "abcd":
        progress.step(name)
    assert told == [("a", 0.0), ("b", 0.25), ("c", 0.5), ("d", 0.75)]


def test_a_part_covers_its_share_of_the_whole(progress, told):
    half = progress.part(0.5, 1.0, steps=2, label="window 2: ")
    half.step("encoder")
    half.step("mask")
    half.part(0.5, 1.0).note("inner", 0.5)
    assert told == [("window 2: encoder", 0.5), ("window 2: mask", 0.75), ("window 2: inner", 0.875)]


def test_more_than_was_foreseen_is_no_more_than_all(progress, told):
    progress.note("late", 3.0)
    assert told == [("late", 1.0)]


def test_silence_says_nothing(capsys):
    SILENT.step("one")
    SILENT.part(0.0, 0.5).note("two", 2.0)
    assert capsys.readouterr() == ("", "")
