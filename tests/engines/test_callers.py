"""A pipeline has one caller at a time, of one process."""

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from page4d.errors import UsageError
from page4d_engines import Pipeline


@pytest.mark.parametrize("sliding", [False, True])
def test_a_second_caller_is_refused_while_one_runs(made, sliding, on_cpu):
    made_ = made()
    frames = made_.clip.frames
    pipeline = Pipeline.load(made_.folder, on_cpu, threads=1, sliding=sliding)
    expected = pipeline.run(frames).copy()
    inside, go_on = threading.Event(), threading.Event()

    def wait(stage):
        inside.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: pipeline.run(frames, progress=wait).copy())
        assert inside.wait(60)
        for change in ({}, {"shared": 1} if sliding else {}):
            with pytest.raises(UsageError, match=r"this pipeline is running(.|\n)*Pipeline\.load for each thread"):
                pipeline.run(frames[::-1], **change)
        go_on.set()
        np.testing.assert_array_equal(first.result().layers[1], expected.layers[1])
    np.testing.assert_array_equal(pipeline.run(frames).layers[1], expected.layers[1])


def test_many_callers_get_right_results_or_an_error(made, on_cpu):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, on_cpu, threads=1)
    clips = [made_.clip.frames, made_.clip.frames[::-1], made_.clip.frames[:, ::-1]]
    layers = [pipeline.run(clip).copy().layers[1] for clip in clips]
    lock, outcomes = threading.Lock(), []

    def call(number):
        for turn in range(12):
            try:
                with lock if turn % 2 else contextlib.nullcontext():  # a caller's own lock is the way to share one
                    pipeline.run(clips[number])
            except UsageError:
                outcomes.append("refused")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(call, range(3)))
    assert "refused" in outcomes
    for clip, layer in zip(clips, layers, strict=True):
        np.testing.assert_array_equal(pipeline.run(clip).layers[1], layer)


def test_a_run_within_a_run_is_refused(made, on_cpu):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, on_cpu, threads=1)
    with pytest.raises(UsageError, match="this pipeline is running"):
        pipeline.run(made_.clip.frames, progress=lambda stage: pipeline.run(made_.clip.frames))
    assert np.isfinite(pipeline.run(made_.clip.frames).mask).all()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_callback_that_raises_ends_the_run_and_no_more(made, error, on_cpu):
    made_ = made()
    frames = made_.clip.frames
    pipeline = Pipeline.load(made_.folder, on_cpu, threads=1, sliding=True)
    expected = pipeline.run(frames).copy()

    def stop(*arguments):
        raise error

    for callback in ({"progress": stop}, {"observe": stop}):
        with pytest.raises(error):
            pipeline.run(frames[::-1], **callback)
        with pytest.raises(UsageError, match="no run before"):  # what the encoder made of it is not whole
            pipeline.run(frames, shared=1)
        np.testing.assert_array_equal(pipeline.run(frames).layers[1], expected.layers[1])


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_pipeline_is_no_value(made, act, on_cpu):
    pipeline = Pipeline.load(made().folder, on_cpu, threads=1)
    for value in (pipeline, {"nested": [pipeline]}):
        with pytest.raises(TypeError, match=r"cannot be copied or pickled(.|\n)*once in each thread or process"):
            act(value) if value is pipeline or act is not copy.copy else copy.copy(pipeline)
    result = pipeline.run(made().clip.frames)
    assert np.array_equal(pickle.loads(pickle.dumps(result)).mask, result.mask)


def _in_child(folder, frames, only, answers):
    try:
        only[0].run(frames)
    except UsageError as error:
        answers.put(str(error))
    only.clear()
    gc.collect()  # engines whose threads are in another process
    answers.put(Pipeline.load(folder, "onnxruntime", threads=2).run(frames).mask.sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_pipeline_does_not_outlive_a_fork(made):
    """The child is told, may drop it, and load its own."""
    made_ = made()
    frames = made_.clip.frames
    only = [Pipeline.load(made_.folder, "onnxruntime", threads=2)]  # the reference that the child drops
    mask_sum = only[0].run(frames).mask.sum()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of forks beside threads
        child = context.Process(target=_in_child, args=(made_.folder, frames, only, answers))
        child.start()
    try:
        assert "loaded before this process was forked" in answers.get(timeout=60)
        assert answers.get(timeout=60) == pytest.approx(mask_sum, rel=1e-5)
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert only[0].run(frames).mask.sum() == mask_sum
