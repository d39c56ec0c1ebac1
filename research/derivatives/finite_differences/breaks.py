"""Search for distances at which f looks noisy, jumps, or differs from a prediction."""

import numpy as np

from research.derivatives.finite_differences.ladder import (
    WINDOW,
    Ladder,
    window_points,
)
from research.derivatives.finite_differences.noise import (
    appears,
    largest_noise,
    rounding,
    windows_noise,
)
from research.derivatives.finite_differences.sampling import Sampler

# A window has more noise than rounding errors if its noise exceeds _SUDDEN times their
# estimate, or if its noise and that of all windows at larger distances exceed _APPEARS
# times the rounding errors that smaller distances show.
_APPEARS = 3.0
_SUDDEN = 30.0
_POINTS = 33  # Number of points of a look: one evaluation near a jump or kink.
# Number of looks after the first; each is sixteen times as close as the one before.
_LOOKS = 3
# A look that shrinks the break by more than _SMOOTH sees the curvature of f. Then there
# are up to _MOST_LOOKS.
_MOST_LOOKS, _SMOOTH = 5, 100.0
_SHRINKS = 8.0  # At a kink, the looks shrink the break by more than this factor.
_CLOSER = 4.0  # A look whose points are less than this much closer ends the search.
_STAYS = 2.5  # At a jump, the last look shrinks the break by less than this factor.
_NODES = 4  # Number of larger steps whose values predict a value.
_SURPRISE = 30.0  # A value this many noises from its prediction is a surprise.
_WITHIN = 4.0  # A value within this many rounding errors is as predicted.
_LAST_DIGITS = 16.0  # A bend below this many rounding errors of f shows no jump.


def quiet_part(ladder: Ladder) -> tuple[Ladder, np.ndarray, int] | None:
    """Return the levels below the first window with more noise than rounding errors.

    A ladder has values of f at many distances from x. Each of these distances is called
    a level. A ladder also has values of f in windows, which are groups of points near
    some of the levels. The first window is the one at the smallest distance, and
    "below" means at smaller distances.

    For each window, let s be the noise that its values show, divided by the rounding
    error that the function `rounding` estimates there. Let b be the largest s of the
    windows at smaller distances, but at least 1. A window has more noise than rounding
    errors in four cases:

    - Its s is above 30.
    - Its s is above 3 times its b, and the s of each window at a larger distance is
      above 3 times the same b.
    - It shows an oscillation of f (`appears`).
    - The windows at smaller distances exclude rounding errors of this size
      (`_exceeds_smaller`).

    In the second case, s is compared with b and not with 1, because the rounding errors
    of some functions are a few times larger than the estimate. Functions with matrix
    products are an example. For them, b shows how many times.

    The reason for this test: if f is rounded, or interpolates a table with straight
    lines, it looks smooth over small distances. At larger distances, its breaks look
    like noise.

    Returns:
      (ladder, rounding error at each level of this ladder, index of the window). The
      window is the first one with more noise than rounding errors, and the ladder has
      the levels below this window. The rounding error is the estimate of `rounding`
      times the b of this window. The result is None if no window has more noise than
      rounding errors, or if the window at the smallest distance already has more noise.
    """
    noise, usual = windows_noise(ladder), rounding(ladder)[ladder.places]
    share = noise / usual
    before = np.maximum.accumulate(np.append(1.0, share[:-1]))
    stays = np.minimum.accumulate(share[::-1])[::-1] > _APPEARS * before
    is_wave = _exceeds_smaller(ladder, noise, usual)
    loud = np.flatnonzero(stays | (share > _SUDDEN) | appears(share) | is_wave)
    if not len(loud) or not loud[0]:
        return None
    window = int(loud[0])
    quiet = levels_below(ladder, int(ladder.places[window]))
    return quiet, before[window] * rounding(quiet), window


def _exceeds_smaller(
    ladder: Ladder, noise: np.ndarray, usual: np.ndarray
) -> np.ndarray:
    """Return, for each window, whether smaller windows exclude rounding errors.

    If f rounds x, its rounding errors are about the same share of the estimate R of
    `rounding` at all distances. This share is estimated by the median over the windows
    at smaller distances. The noise of a window is more than rounding errors if it
    exceeds 30 times the larger of two numbers: this share of R, and the rounding error
    ε |f| / 2 of the values of f.

    Far from 0, R is large, because ε |x f'| is. So a wave that is added to a trend may
    be smaller than 30 R, although the smallest windows show its shape. (The windows
    just below may resolve the wave badly, and the median ignores them.)

    Args:
      ladder: Values of f around x, and in the windows.
      noise, usual: Noise that each window shows, and R there, shape (windows,).
    Returns:
      Booleans, shape (windows,).
    """
    shares = largest_noise(ladder) / usual
    below = [np.inf, *(np.median(shares[:j]) for j in range(1, len(shares)))]
    height = np.nan_to_num(np.max(np.abs(ladder.windows), axis=1))
    values = ladder.epsilon / 2 * np.maximum.accumulate(height)
    least = np.maximum(np.array(below[: len(shares)]) * usual, values)
    return noise > _SUDDEN * least


def levels_below(ladder: Ladder, end: int) -> Ladder:
    """Return the ladder with the levels before index `end`, and their windows.

    A ladder has values of f at many distances from x. Each of these distances is a
    level. A window is a group of eight more points near a level.
    """
    count = int(np.searchsorted(ladder.places, end))
    return ladder._replace(
        exponents=ladder.exponents[:end],
        plus=ladder.plus[:end],
        minus=ladder.minus[:end],
        places=ladder.places[:count],
        windows=ladder.windows[:count],
    )


def first_surprise(ladder: Ladder, noise: np.ndarray, level: int) -> int | None:
    """Return the index of the smallest step where f is not as larger steps predict.

    The steps are distances from x, ascending, and a level is the index of a step. The
    values of f at a step are predicted by a polynomial, separately on each side of x:
    the one through f(x) and the values at the next four larger steps. The deviation at
    a step is the largest |value - prediction| at this distance, on both sides and in
    the window (a group of points) near it.

    Let H be the step of the argument `level`, at which a derivative was estimated. (The
    four largest steps have no prediction. If `level` is one of them, H is the fifth
    largest step.) A step h below that of `level` shows a surprise if its deviation
    exceeds 30 s + a. Here s is the noise of the deviation: the noise of the value and
    of its prediction, which follow from the argument `noise`. For a there are two
    cases:

    - The deviation at h is at most 30 times as large as that at each step from h to H.
      Then a = 2 E h / H, where E is the largest deviation at H and at the next three
      larger steps.
    - The deviation at h is more than 30 times as large as that at some step from h to
      H. Then a = 2 D (h / H)², where D is the deviation at H.

    For D and E, a deviation counts as 0 if it is at most four times as large as the
    rounding errors of f can make it.

    The reason for this test: if the difference quotients at H and at larger steps
    converge, f is close to a polynomial at these steps, and the polynomial predicts f
    at the smaller steps. If f has a narrow peak beside x, the prediction is wrong. The
    difference quotients at smaller steps may not show the peak, because their error
    bounds are large. In the first case of a, the deviation is present at all steps up
    to H, so the error bound of the estimate at H covers it. In the second case, f is
    nearly as predicted at a step in between. So only the error of a convergent series
    is allowed. This error falls with a power of the step.

    Args:
      ladder: Values of f at the steps to both sides of x.
      noise: Bound on the error of f at each level, shape (levels,).
      level: Index of the step whose estimate is tested.
    Returns:
      Index of the smallest step with a surprise, or None if there is no surprise.
    """
    predicted = len(ladder.steps) - _NODES
    if level < 1 or predicted < 1:
        return None
    levels, steps = np.arange(predicted), ladder.steps
    errors, unsure = np.zeros(predicted), np.zeros((2, predicted))
    both = np.stack([noise, rounding(ladder)])
    for changes in ladder.changes:
        predictions = _predicted(changes, both, steps, levels, steps[levels])
        errors = np.fmax(errors, np.abs(changes[levels] - predictions[0]))
        unsure = np.fmax(unsure, predictions[1])
    apart = np.abs(window_points(ladder) - ladder.x)
    for j, place in enumerate(ladder.places[ladder.places < predicted]):
        changes, there = ladder.changes[1 - j % 2], ladder.windows[j] - ladder.centre
        own = np.full(len(WINDOW), place)
        predictions = _predicted(changes, both, steps, own, apart[j])
        found = np.fmax.reduce(np.abs(there - predictions[0]))
        errors[place] = np.fmax(errors[place], found)
        unsure[:, place] = np.fmax(unsure[:, place], np.max(predictions[1], axis=1))
    first = min(level, predicted - 1)
    top = np.where(errors > _WITHIN * unsure[1], errors, 0.0)[first:][:_NODES]
    errors, shares = errors[: first + 1], steps[: first + 1] / steps[first]
    # The bound of the estimate covers a deviation that stays up to its step.
    stays = errors <= _SURPRISE * np.fmin.accumulate(errors[::-1])[::-1]
    # A series that converges is off by a power of the step.
    allowed = np.where(stays, np.max(top) * shares, top[0] * shares**2)
    allowed = 2 * allowed + _SURPRISE * unsure[0, : first + 1]
    surprises = np.flatnonzero(errors[:level] > allowed[:level])
    return int(surprises[0]) if len(surprises) else None


def _predicted(
    changes: np.ndarray,
    noise: np.ndarray,
    steps: np.ndarray,
    levels: np.ndarray,
    distances: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the changes of f that larger steps predict, and their noise.

    Args:
      changes: Changes f - f(x) at each level on one side, shape (levels,).
      noise: Two bounds on the error of f at each level, shape (2, levels).
      steps: Step length of each level.
      levels: For each prediction, the level below the four that predict, shape (n,).
      distances: Distances from x of the predicted changes, shape (n,).
    Returns:
      (changes, noise), shapes (n,) and (2, n). The noise includes the noise of the
      values of f that are predicted.
    """
    ahead = levels[:, None] + np.arange(1, _NODES + 1)
    nodes, same = steps[ahead] / distances[:, None], np.eye(_NODES, dtype=bool)
    # Lagrange's weights of (f - f(x)) / distance at the nodes, for the distance 1.
    apart = np.where(same, 1.0, nodes[:, None, :] - nodes[:, :, None])
    rest = np.where(same, 1.0, nodes[:, None, :] - 1.0)
    weights = np.prod(rest / apart, axis=2) / nodes
    return (
        np.sum(weights * changes[ahead], axis=1),
        2 * noise[:, levels] + np.sum(np.abs(weights) * noise[:, ahead], axis=2),
    )


def is_continuous(
    ladder: Ladder, sampler: Sampler, window: int, to_floats: bool = False
) -> bool:
    """Return whether f bends or has a pole, but does not jump, where noise appears.

    The result is True for a function that interpolates a table with straight lines, or
    that has a pole. The result is False for a function with rounded values, which
    jumps. The sampler evaluates f four to six times, each time at 33 equally spaced
    points. The first points lie around the given window. Each later evaluation covers
    the two intervals where the second difference of f was largest, so its points are 16
    times as close. The distance of each point from x is a multiple of the spacing of
    the floats there. So no points are closer than the floats, and there may be fewer
    evaluations.

    Let d be the largest absolute second difference in one evaluation. From one
    evaluation to the next, d stays the same at a jump, and becomes 16 times as small at
    a kink. If it becomes 256 times as small, the points show the curvature of f, which
    may hide a jump. So a fifth and a sixth evaluation are made if d became more than
    100 times as small in one of the last two evaluations.

    The result is True in two cases:

    - There is a pole: the largest |f| of the last evaluation is more than twice that of
      the first. Beside a jump, |f| does not grow.
    - The last d is less than an eighth of the largest d, and f does not count as
      jumping.

    In the second case, f counts as jumping if the last d is more than 0.4 times the d
    before it. In the first evaluations, several jumps between two points may look like
    one large bend, so that d shrinks until only one jump is left. From then on, d
    stays the same. There is one exception, in which f does not count as jumping: the d
    before the last one is at most 16 ε (|f| + |x f'|), so it may be a rounding error.
    Here |f| is the largest value in all evaluations, f' is the median slope in the
    first evaluation, and ε is the relative spacing of the floats that f returns.

    Args:
      ladder: Values of f around x. A window is a group of points near a distance from
        x.
      sampler: Evaluator of f.
      window: Index of the window that shows noise.
      to_floats: Whether to go on until the points are as close as the floats, at most
        14 evaluations. This distinguishes a jump from a wave, which may be far shorter
        than the distance of the window.
    """
    side = -1.0 if window % 2 else 1.0
    step = float(ladder.steps[ladder.places[window]])
    low, high = step / 16, step * 2 * WINDOW[-1]
    spacing = np.spacing(min(abs(ladder.x) + high, np.finfo(np.float64).max))
    sizes, heights, slope, apart = [], [], 0.0, np.inf
    while (
        to_floats
        or len(sizes) <= _LOOKS
        or (len(sizes) <= _MOST_LOOKS and _is_smooth(sizes))
    ):
        points, closer = _look(low, high, spacing)
        if closer * _CLOSER > apart:
            break
        apart, values = closer, sampler(ladder.x + side * points)
        if not sizes:
            slope = float(np.nan_to_num(np.median(np.abs(np.diff(values)) / apart)))
        bends = np.abs(np.diff(values, 2))
        bends = np.where(np.isfinite(bends), bends, 0.0)
        sizes.append(float(np.max(bends)))
        heights.append(float(np.fmax.reduce(np.abs(values))))
        at = int(np.argmax(bends)) + 1
        low, high = float(points[at - 1]), float(points[at + 1])
    # The first look may miss a peak. Beside a jump, f is not larger than around it.
    has_pole = heights[-1] > 2 * heights[0]
    # The first look may see several small jumps as one bend, and the last look one.
    size = max(heights) + abs(ladder.x) * slope
    least = _LAST_DIGITS * ladder.epsilon * size
    is_jump = len(sizes) > 1 and _STAYS * sizes[-1] > sizes[-2] > least
    return (sizes[-1] * _SHRINKS < max(sizes) and not is_jump) or has_pole


def _look(low: float, high: float, spacing: float) -> tuple[np.ndarray, float]:
    """Return 33 equally spaced multiples of `spacing`, and their distance.

    They lie between `low` and `high`, or a little beyond if these are closer than 32
    spacings. Points between the floats would be rounded, and the rounding
    errors of x would look like jumps of f.
    """
    half = _POINTS // 2
    apart = max(np.rint((high - low) / (2 * half * spacing)), 1.0) * spacing
    middle = np.rint((low + high) / 2 / spacing) * spacing
    return middle + apart * np.arange(-half, half + 1), float(apart)


def _is_smooth(sizes: list[float]) -> bool:
    """Return whether one of the last two evaluations showed that f is curved.

    `sizes` contains the largest second difference of f in each evaluation. From one
    evaluation to the next, its points become 16 times as close. The second difference
    then becomes 256 times as small for a smooth f, and 16 times as small at a kink.
    """
    return any(sizes[i - 1] > _SMOOTH * sizes[i] for i in (-1, -2))
