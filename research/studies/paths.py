"""What each step of a path does: how long it is, against what, and which way it goes."""

from typing import NamedTuple

import numpy as np


class Steps(NamedTuple):
    """Every step of a path, each entry of shape (t,).

    Attributes:
      gradient_norm: |g|.
      update_norm: |u|, u = x_(t+1) - x_t.
      update_over_params: |u| / |x_t|; inf where x_t is 0.
      cosine: Of the angle between u and -g: 1 straight down the slope, 0 along it, -1 straight up; NaN where u or g is 0.
    """

    gradient_norm: np.ndarray
    update_norm: np.ndarray
    update_over_params: np.ndarray
    cosine: np.ndarray


def describe_steps(points: np.ndarray, gradients: np.ndarray) -> Steps:
    """Norms, ratio and direction of each step of a path.

    Args:
      points: x_0, ..., x_t, shape (t + 1, d).
      gradients: At all but the last of them, shape (t, d).
    Returns:
      The Steps; NaN and infinities of a path that broke down stay in them.
    Raises:
      ValueError: The shapes do not fit.
    Example:
      >>> steps = describe_steps(np.array([[3.0, 4.0], [3.0, 3.0], [2.0, 3.0]]), np.array([[0.0, 2.0], [0.0, 5.0]]))
      >>> print(steps.gradient_norm, steps.update_norm, steps.update_over_params[0], steps.cosine)
      [2. 5.] [1. 1.] 0.2 [1. 0.]
    """
    points, gradients = np.asarray(points, float), np.asarray(gradients, float)
    if points.ndim != 2 or gradients.shape != (len(points) - 1, points.shape[1]):
        raise ValueError(
            f"points must be of shape (t + 1, d) and gradients of shape (t, d); got {points.shape} and {gradients.shape}."
        )
    with np.errstate(all="ignore"):
        updates = np.diff(points, axis=0)
        gradient_norm, update_norm, size = (
            np.linalg.norm(a, axis=1) for a in (gradients, updates, points[:-1])
        )
        ratio = np.where(size == 0, np.inf, update_norm / size)
        # Each is divided by its own norm first: their product may be below the smallest number.
        cosine = -np.sum(
            updates / update_norm[:, None] * (gradients / gradient_norm[:, None]),
            axis=1,
        )
    return Steps(gradient_norm, update_norm, ratio, np.clip(cosine, -1.0, 1.0) + 0.0)


def contraction(distances: np.ndarray) -> float:
    """The factor by which distances shrink at each step: of the least-squares line through the logarithms of the later half.

    Args:
      distances: To where a path is going, shape (t + 1,).
    Returns:
      The factor; NaN where a distance is 0 or not finite.
    Example:
      >>> round(contraction(5 * 0.9 ** np.arange(40)), 12)
      0.9
    """
    late = np.asarray(distances, float)[len(distances) // 2 :]
    if len(late) < 2 or not (np.isfinite(late) & (late > 0)).all():
        return float("nan")
    return float(np.exp(np.polyfit(np.arange(len(late)), np.log(late), 1)[0]))
