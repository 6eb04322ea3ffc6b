"""How far a long clip drifts: aligned windows against naive chaining, on the rendered scene.

python -m tests.support.world.drift
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

import numpy as np

from page4d_engines.clip.window_reader import windows
from page4d_engines.results.world.loop import ClosingWindow, close_loop
from page4d_engines.results.world.similarity import Similarity
from page4d_engines.results.world.window_alignment import WindowAlignment
from tests.support.world.true_windows import (
    Errors,
    moving_camera,
    random_world,
    sampled,
    static_rig,
)

ERRORS = Errors(depth=0.01, pixel=0.02, degrees=0.15, shift=0.002, growing=1.0, wild=0.1)


@dataclass(frozen=True)
class Case:
    """A clip that was run in windows, each with errors and a world of its own."""

    clip: object
    windows: list
    truth: list
    parts: list
    closing: ClosingWindow | None


def run(clip, T, stride, errors=ERRORS, seed=0, loop=False):
    """Run the windows of a clip, and with `loop` the closing one."""
    chance = np.random.default_rng(seed)
    places = windows(clip.count, T, stride)
    truth = [random_world(chance) for _ in places]
    parts = [sampled(clip, window, world, errors, chance) for window, world in zip(places, truth, strict=True)]
    closing = None
    if loop:
        tail = ClosingWindow.tail_of(T)
        frames = [*range(clip.count - tail, clip.count), *range(T - tail)]
        closing = ClosingWindow(tail, sampled(clip, frames, random_world(chance), errors, chance), [])
    return Case(clip, places, truth, parts, closing)


def aligned(case):
    """By the project's way."""
    alignment = WindowAlignment()
    for number, (window, part) in enumerate(zip(case.windows, case.parts, strict=True)):
        alignment.add(f"window_{number}", window, part)
    return alignment


def chained_by_camera(case):
    """Naive: the pose of one shared camera, and the median ratio of its depths for a scale."""
    worlds = [Similarity.identity()]
    for pair in zip(case.windows, case.windows[1:], case.parts, case.parts[1:], strict=False):
        (before, after), (earlier, later) = pair[:2], pair[2:]
        row = after.start - before.start
        scale = float(np.nanmedian(earlier.depth[row, 0] / later.depth[0, 0]))
        old, new = earlier.cameras[row, 0], later.cameras[0, 0]
        rotation = old[:3, :3] @ new[:3, :3].T
        link = Similarity(scale, rotation, old[:3, 3] - scale * rotation @ new[:3, 3])
        worlds.append(worlds[-1].after(link))
    return worlds


def chained_by_frame(case):
    """Naive: least squares over all points of one shared frame."""
    worlds = [Similarity.identity()]
    for pair in zip(case.windows, case.windows[1:], case.parts, case.parts[1:], strict=False):
        (before, after), (earlier, later) = pair[:2], pair[2:]
        row = after.start - before.start
        source, target = later.points[0].reshape(-1, 3), earlier.points[row].reshape(-1, 3)
        worlds.append(worlds[-1].after(Similarity.closest(source, target)))
    return worlds


@dataclass(frozen=True)
class Drift:
    """Of the last window, against the truth seen from the first one."""

    scale: float
    degrees: float
    distance: float
    """Of the cameras of all windows, root mean square, as a share of the depth."""
    last: float
    """Of the last window's cameras."""


def drift(case, worlds):
    """How far windows are from where they should be."""
    depth = case.parts[0].typical_depth
    distances = []
    for window, world, truth in zip(case.windows, worlds, case.truth, strict=True):
        true = case.clip.cameras[list(window)][..., :3, 3].reshape(-1, 3)
        placed = world.of_points(truth.inverse().of_points(true))
        distances.append(np.linalg.norm(placed - case.truth[0].inverse().of_points(true), axis=1) / depth)
    error = case.truth[0].after(worlds[-1]).after(case.truth[-1].inverse())
    everywhere = float(np.sqrt(np.mean(np.square(np.concatenate(distances)))))
    return Drift(abs(error.scale - 1), error.degrees, everywhere, float(np.mean(distances[-1])))


def rows(case):
    """By way of alignment, its drift."""
    alignment = aligned(case)
    table = {
        "one shared camera's pose": drift(case, chained_by_camera(case)),
        "least squares of one shared frame": drift(case, chained_by_frame(case)),
        "--align": drift(case, alignment.worlds),
    }
    if case.closing is not None:
        worlds, loop = close_loop(alignment, case.closing)
        table["--align --close-loop" + ("" if loop.closed else f" ({loop.reason})")] = drift(case, worlds)
    return table


def main() -> None:
    """Print the drift of three clips, the root mean square over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200)
    options = parser.parse_args()
    around, still = moving_camera(options.frames), static_rig(options.frames // 4, 4)
    plain = dataclasses.replace(ERRORS, wild=0.0)
    cases = {
        f"camera around the scene, {around.count} frames, T=8, overlap 2": (around, 8, 6, ERRORS, True),
        f"camera around the scene, {around.count} frames, T=8, overlap 4": (around, 8, 4, ERRORS, True),
        f"the same, no wild pixels, {around.count} frames, T=8, overlap 2": (around, 8, 6, plain, True),
        f"rig of 4 cameras at rest, {still.count} frames, T=4, overlap 1": (still, 4, 3, ERRORS, False),
    }
    for name, (clip, T, stride, errors, loop) in cases.items():
        tables = [rows(run(clip, T, stride, errors, seed, loop)) for seed in range(options.seeds)]
        print(f"{name}: drift, root mean square over {options.seeds} seeds")
        print(f"  {'':36}{'scale':>9}{'degrees':>9}{'cameras':>9}{'last':>9}")
        for way in tables[0]:
            several = [table[way] for table in tables if way in table]
            values = [
                np.sqrt(np.mean(np.square([getattr(entry, field) for entry in several])))
                for field in ("scale", "degrees", "distance", "last")
            ]
            print(f"  {way:36}{values[0]:9.2%}{values[1]:9.2f}{values[2]:9.2%}{values[3]:9.2%}")


if __name__ == "__main__":
    main()
