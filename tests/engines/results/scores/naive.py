"""The scores, computed pair by pair and pixel by pixel."""

import math

import numpy as np


def angle(rotation):
    return math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(rotation) - 1) / 2))))


def pose_errors(poses, truth, least=0.0):
    errors = []
    for i in range(len(poses)):
        for j in range(i + 1, len(poses)):
            relative = np.linalg.inv(poses[i]) @ poses[j]
            true = np.linalg.inv(truth[i]) @ truth[j]
            rotation = angle(relative[:3, :3].T @ true[:3, :3])
            length, true_length = np.linalg.norm(relative[:3, 3]), np.linalg.norm(true[:3, 3])
            both = rotation
            if true_length > max(least, 1e-12):
                cosine = 0.0 if length == 0 else abs(relative[:3, 3] @ true[:3, 3]) / (length * true_length)
                both = max(rotation, math.degrees(math.acos(min(1.0, cosine))))
            errors.append((rotation, both))
    return errors


def auc(errors, degrees):
    """As the public code of VGGT: mean over the thresholds 1, 2 .. of the share of pairs below."""
    below = [sum(both < threshold for _, both in errors) / len(errors) for threshold in range(1, degrees + 1)]
    return sum(below) / degrees


def depth_errors(depth, truth):
    pairs = [
        (float(a), float(b))
        for a, b in zip(depth.ravel(), truth.ravel(), strict=True)
        if math.isfinite(a) and math.isfinite(b) and a > 0 and b > 0
    ]
    relative = sum(abs(a - b) / b for a, b in pairs) / len(pairs)
    within = sum(max(a / b, b / a) < 1.25 for a, b in pairs) / len(pairs)
    return relative, within


def nearest(points, others):
    return [min(math.dist(point, other) for other in others) for point in points]
