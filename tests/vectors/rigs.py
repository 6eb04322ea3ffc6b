"""Cameras and numbers that the vectors are made of."""

import math

import numpy as np

from page4d.cameras import Camera


def turned(x, y, z):
    """A rotation by angles about the three axes."""
    (a, b, c), (d, e, f) = ((fn(x), fn(y), fn(z)) for fn in (math.cos, math.sin))
    about_x, about_y, about_z = (
        [[1, 0, 0], [0, a, -d], [0, d, a]],
        [[b, 0, e], [0, 1, 0], [-e, 0, b]],
        [[c, -f, 0], [f, c, 0], [0, 0, 1]],
    )
    return np.array(about_z) @ np.array(about_y) @ np.array(about_x)


def rig():
    """Cameras of 640 x 480; the third and the fourth stand at one place."""
    cameras = []
    for number, centre in enumerate([(0, 0, 0), (1.5, -0.25, 0.125), (-40, 3, 900), (-40, 3, 900), (1e-7, 0, 0)]):
        rotation = turned(0.1 * number, -0.7 + 0.4 * number, 0.05 * number**2)
        K = np.array([[500.0 + 10 * number, 0.25 * number, 320.0], [0, 490.0, 240.5 - number], [0, 0, 1]])
        cameras.append(Camera(640, 480, K, np.column_stack((rotation, -rotation @ np.array(centre, np.float64)))))
    return cameras


def turning_rig():
    """Cameras whose rotations, against the first, have each number of the quaternion as the largest."""
    cameras = []
    for number, angles in enumerate(
        [(0.1, 0.2, 0.3), (3.0, 0.3, 0.1), (0.2, 2.9, 0.1), (0.1, 0.3, 3.1), (2.0, -2.0, 1.5)]
    ):
        rotation = turned(*angles)
        centre = np.array([0.3 * number, 0.1 * number**2, -0.2 * number])
        cameras.append(Camera(640, 480, rig()[number].K, np.column_stack((rotation, -rotation @ centre))))
    return cameras


def circle(count):
    """Cameras around a point, at different heights."""
    cameras = []
    for number in range(count):
        rotation = turned(0.03 * number, 0.3 * number, 0.01 * number)
        centre = np.array([math.cos(0.3 * number), 0.2 * math.sin(1.7 * number), math.sin(0.3 * number)])
        cameras.append(Camera(640, 480, rig()[0].K, np.column_stack((rotation, -rotation @ (4 * centre)))))
    return cameras


def wave(count, seed):
    """Numbers that look random."""
    return np.sin((np.arange(count) + 1) ** 2 * (0.37 + 0.11 * seed))


def plain(array):
    """Nested lists; null for NaN, and for a matrix that is NaN throughout."""
    if array.ndim == 0:
        return None if np.isnan(array) else array.item()
    return None if array.ndim == 2 and np.isnan(array).all() else [plain(inner) for inner in array]
