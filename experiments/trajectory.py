"""Which paths do update rules take to the minimum of a function?

Several rules start at the same point of a landscape of two parameters. Gradients are
exact, so nothing is random. Gradient descent always steps straight down the slope.
Momentum turns away from this direction. Rules with a rate for each coordinate hardly
depend on the steepness. For every step, the experiment stores the learning rate, the
norms of gradient and update, the ratio of the norms of update and parameters, and the
cosine between the update and -gradient.

Each rule is run with all rates of a grid, which is the same for all rules, and its best
rate is shown. The best rate has the lowest maximum of f - f* over the second half of
the steps, so a path that only passes by the minimum does not win. If f - f* is at most
1e-12 of its initial value, it counts as 0. If several rates reach 0, the rate that
reaches 0 first is the best. The results of the whole grid are reported, including the
rates that diverge. For another number of steps, another rate may be the best.

    # Some seconds.
    python experiments/trajectory.py
    python experiments/trajectory.py --landscape himmelblau --rule adam nesterov

Expected numbers (`EXPECTED`) are for the quadratic, whose theory is exact. For gradient
descent, there are two numbers. The first is the mean cosine. The second is the factor
by which the distance to the minimum shrinks at each step, divided by max |1 - η λ| over
the eigenvalues λ of the Hessian. For the heavy ball with momentum β, there is one
number: the same factor, divided by √β.
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import research

EXPECTED = {
    "cosine_of_gradient_descent": (0.999999999, 1.0),
    "gradient_descent_over_theory": (0.999, 1.001),
    "heavy_ball_over_theory": (0.99, 1.01),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    landscape: Literal["rosenbrock", "quadratic", "himmelblau", "beale", "saddle"] = (
        "rosenbrock"
    )
    """Function to minimise."""
    rule: tuple[str, ...] = (
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "rmsprop",
        "adam",
    )
    """Names of update rules. They run with their default arguments."""
    steps: int = 300
    """Steps of each path."""
    rates: int = 21
    """Number of learning rates in the grid. Neighbouring rates have a constant
    ratio."""
    lowest_rate: float = 1e-4
    """Lowest rate of the grid."""
    highest_rate: float = 10.0
    """Highest rate of the grid."""


FULL = Config(steps=3000, rates=41)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._landscapes import FORMULAS, himmelblau, rosenbrock
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

CONDITION, ANGLE, MOMENTUM = 100.0, math.pi / 6, 0.9
CLOSE = 1e-6  # A path has arrived at this share of the initial f - f*.
SMALLEST = 1e-12  # Below this share of its initial value, f - f* is rounding error.


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A function of a point of shape (2,), its minima, and the bounds of a figure."""

    formula: str
    f: Callable
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    lowest: float
    bounds: tuple[tuple[float, float], tuple[float, float]]


def quadratic(x: Any):
    """Return ½ (u² + 100 v²), where (u, v) is x rotated by 30°.

    The contour lines are ellipses, and their axes are not the coordinate axes.
    """
    u, v = turned(x)
    return 0.5 * (u**2 + CONDITION * v**2)


def turned(x: Any):
    """Return x in coordinates along the axes of the ellipses of `quadratic`."""
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    return cosine * x[0] + sine * x[1], cosine * x[1] - sine * x[0]


def beale(x: Any):
    """Return Beale's function: a plateau with steep walls."""
    return (
        (1.5 - x[0] * (1 - x[1])) ** 2
        + (2.25 - x[0] * (1 - x[1] ** 2)) ** 2
        + (2.625 - x[0] * (1 - x[1] ** 3)) ** 2
    )


def saddle(x: Any):
    """Return a function with a saddle at 0 and a minimum on each side of the saddle.

    From the initial point, descent leads almost into the saddle.
    """
    return 0.5 * x[0] ** 2 - 0.5 * x[1] ** 2 + 0.25 * x[1] ** 4


HIMMELBLAU_MINIMA = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.283185991286170),
    (3.584428340330492, -1.848126526964404),
)
LANDSCAPES = {
    "rosenbrock": Landscape(
        FORMULAS["rosenbrock"],
        rosenbrock,
        (-1.2, 1.0),
        ((1.0, 1.0),),
        0.0,
        ((-1.9, 1.7), (-0.7, 2.1)),
    ),
    "quadratic": Landscape(
        "½ (u² + 100 v²), turned by 30°",
        quadratic,
        (-3.0, -0.5),
        ((0.0, 0.0),),
        0.0,
        ((-3.6, 1.2), (-2.4, 1.2)),
    ),
    "himmelblau": Landscape(
        FORMULAS["himmelblau"],
        himmelblau,
        (0.0, -0.5),
        HIMMELBLAU_MINIMA,
        0.0,
        ((-5.2, 5.2), (-4.9, 4.9)),
    ),
    "beale": Landscape(
        "(1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)²",
        beale,
        (-1.0, 1.5),
        ((3.0, 0.5),),
        0.0,
        ((-2.2, 4.2), (-1.6, 2.2)),
    ),
    "saddle": Landscape(
        "½ x² - ½ y² + ¼ y⁴",
        saddle,
        (-2.0, 0.001),
        ((0.0, 1.0), (0.0, -1.0)),
        -0.25,
        ((-2.3, 1.3), (-1.7, 1.7)),
    ),
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Run each rule at every rate, keep the best path, and compare two with theory."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    rates = grid(config)
    for name in config.rule:
        research.update_rules.find_rule(name)
    jobs = [(config.landscape, name) for name in dict.fromkeys(config.rule)]
    jobs += [
        job
        for job in (("quadratic", "gradient_descent"), ("quadratic", "heavy_ball"))
        if job not in jobs
    ]
    walked = {}
    for done, (landscape, name) in enumerate(jobs):
        if on_progress:
            on_progress(done, len(jobs), f"{name} on {landscape}")
        walked[landscape, name] = walk(landscape, name, rates, config.steps)
    if on_progress:
        on_progress(len(jobs), len(jobs), "done")
    found = {
        name: walked[config.landscape, name] for name in dict.fromkeys(config.rule)
    }
    arrays = {
        f"{name}/{key}": array
        for name, (_, kept) in found.items()
        for key, array in kept.items()
    }
    arrays |= {"rates": rates, **heights(LANDSCAPES[config.landscape])}
    numbers = {
        "landscape": config.landscape,
        "steps": config.steps,
        "rules": {name: facts for name, (facts, _) in found.items()},
        **against_theory(
            *(walked["quadratic", name] for name in ("gradient_descent", "heavy_ball"))
        ),
    }
    return research.runs.Findings(arrays, numbers)


def grid(config: Config):
    """Check the config, and return the learning rates in ascending order."""
    if not config.rule:
        raise ValueError("rule must name at least one update rule; got rule=().")
    for field in ("steps", "rates"):
        check_count(field, getattr(config, field), least=2)
    low, high = config.lowest_rate, config.highest_rate
    if not 0 < low < high < math.inf:
        raise ValueError(
            "lowest_rate must be positive and highest_rate above it; got "
            f"lowest_rate={low}, highest_rate={high}."
        )
    return np.geomspace(low, high, config.rates)


def walk(landscape: str, name: str, rates: np.ndarray, steps: int):
    """Run one rule at all rates.

    Returns:
      Two things: the facts of the best rate, as JSON; and arrays, which contain the
      path of the best rate and the scores of all rates.
    """
    scene = LANDSCAPES[landscape]
    points, asked, gradients, used = (
        np.asarray(a) for a in paths(scene, name, rates, steps)
    )
    with np.errstate(all="ignore"):
        gaps = np.asarray([scene.f(path.T) - scene.lowest for path in points])
    scores = np.where(
        np.isfinite(gaps).all(axis=1), gaps[:, steps // 2 :].max(axis=1), np.inf
    )
    best = choose(gaps, scores)
    with np.errstate(all="ignore"):  # The best rate diverges too if all do.
        distances = np.min(
            [np.linalg.norm(points[best] - m, axis=1) for m in np.array(scene.minima)],
            axis=0,
        )
    described = describe_steps(asked[best], gradients[best])
    kept = {
        "points": points[best],
        "gaps": gaps[best],
        "distances": distances,
        "scores": scores,
        "learning_rate": used[best],
        **described._asdict(),
    }
    arrived = np.flatnonzero(gaps[best] <= CLOSE * gaps[best, 0])
    return {
        "rate": float(rates[best]),
        "at_edge": best in (0, len(rates) - 1),
        "diverged": int(np.sum(~np.isfinite(scores))),
        "gap": finite(gaps[best, -1]),
        "distance": finite(distances[-1]),
        "steps": int(arrived[0]) if len(arrived) else None,
        "cosine": finite(np.nanmean(described.cosine))
        if np.isfinite(described.cosine).any()
        else None,
        "longest_update": finite(described.update_norm.max()),
    }, kept


def choose(gaps: np.ndarray, scores: np.ndarray):
    """Return the index of the rate with the lowest score.

    A gap counts as 0 if it is at most SMALLEST times the initial gap. If several rates
    reach 0, the rate that reaches 0 first is chosen.
    """
    enough = SMALLEST * gaps[0, 0]
    if not scores.min() <= enough:
        return int(np.argmin(scores))
    above = np.where(scores <= enough, np.sum(~(gaps <= enough), axis=1), gaps.shape[1])
    return int(np.argmin(above))


def finite(value: Any):
    """Return a number for JSON, or None if the number is not finite."""
    return float(value) if math.isfinite(value) else None


def paths(scene: Landscape, name: str, rates: np.ndarray, steps: int):
    """Run a rule at each rate.

    Returns:
      Four arrays for each rate: the iterates, the points at which gradients are
      computed, the gradients, and the learning rates of the steps. The iterates have
      shape (t + 1, 2).
    """
    descent, gradient = research.descent, jax.grad(scene.f)

    def one(rate: float):
        rule = research.update_rules.find_rule(name)(rate)
        init, step = descent.build(lambda x, batch: scene.f(x), rule, None)

        def watched(state: Any, _: Any):
            after, info = step(state, descent.BatchIndices(None))
            return after, (
                shown(after),
                after.params,
                gradient(state.params),
                info.learning_rate,
            )

        def shown(state: Any):  # Averaging rules return their average here.
            return research.update_rules.evaluation_params(state.rule, state.params)

        first = init(jnp.asarray(scene.start))
        _, (points, asked, gradients, used) = jax.lax.scan(watched, first, length=steps)
        begin = jnp.asarray(scene.start)[None]
        return (
            jnp.concatenate([begin, points]),
            jnp.concatenate([begin, asked]),
            gradients,
            used,
        )

    return jax.jit(jax.vmap(one))(jnp.asarray(rates))


def heights(scene: Landscape):
    """Return f - f* on a lattice, with the coordinates of the lattice."""
    x, y = (np.linspace(low, high, 221) for low, high in scene.bounds)
    return {
        "x": x,
        "y": y,
        "heights": scene.f(np.stack(np.meshgrid(x, y))) - scene.lowest,
    }


def against_theory(plain: tuple, ball: tuple):
    """Return the numbers measured on the quadratic, relative to theory.

    `plain` and `ball` are the results of gradient descent and of the heavy ball. Theory
    predicts the factor by which a step changes the distance, after many steps.
    """
    (facts, kept), (facts_of_ball, of_ball) = plain, ball
    factor = max(abs(1 - facts["rate"] * curvature) for curvature in (1.0, CONDITION))
    factor_of_ball = max(
        heavy_ball_factor(facts_of_ball["rate"], curvature)
        for curvature in (1.0, CONDITION)
    )
    return {
        "cosine_of_gradient_descent": facts["cosine"],
        "gradient_descent_over_theory": finite(contraction(kept["distances"]) / factor),
        "heavy_ball_in_theory": factor_of_ball,
        "heavy_ball_over_theory": finite(
            contraction(of_ball["distances"]) / factor_of_ball
        ),
    }


def heavy_ball_factor(rate: float, curvature: float) -> float:
    """Return the largest root of z² - (1 + β - η λ) z + β, in absolute value.

    η is the learning rate (`rate`), β is MOMENTUM, and λ is the second derivative along
    an axis (`curvature`). In the long run, each step of the heavy ball multiplies the
    distance along this axis by the returned factor (Polyak 1964). If the roots are
    complex, the factor is √β.
    """
    middle = (1 + MOMENTUM - rate * curvature) / 2
    if middle**2 <= MOMENTUM:
        return math.sqrt(MOMENTUM)
    return abs(middle) + math.sqrt(middle**2 - MOMENTUM)


class Steps(NamedTuple):
    """Quantities of every step of a path, each of shape (t,).

    Attributes:
      gradient_norm: |g|.
      update_norm: |u|, where u = x_(t+1) - x_t.
      update_over_params: |u| / |x_t|; inf if x_t is 0.
      cosine: Cosine of the angle between u and -g. It is 1 straight down the slope, 0
        along a contour line, and -1 straight up. It is NaN if u or g is 0.
    """

    gradient_norm: np.ndarray
    update_norm: np.ndarray
    update_over_params: np.ndarray
    cosine: np.ndarray


def describe_steps(points: np.ndarray, gradients: np.ndarray) -> Steps:
    """Return norms, ratio and direction of each step of a path.

    Args:
      points: Points x_0, ..., x_t, shape (t + 1, d).
      gradients: Gradients at all points but the last, shape (t, d).
    Returns:
      The Steps. If the path diverged, they contain NaN and infinities.
    Raises:
      ValueError: The shapes do not match.
    Example:
      >>> steps = describe_steps(np.array([[3.0, 4.0], [3.0, 3.0], [2.0, 3.0]]),
      ...     np.array([[0.0, 2.0], [0.0, 5.0]]))
      >>> print(steps.gradient_norm, steps.update_norm, steps.update_over_params[0],
      ...     steps.cosine)
      [2. 5.] [1. 1.] 0.2 [1. 0.]
    """
    points, gradients = np.asarray(points, float), np.asarray(gradients, float)
    if points.ndim != 2 or gradients.shape != (len(points) - 1, points.shape[1]):
        raise ValueError(
            "points must be of shape (t + 1, d) and gradients of shape (t, d); got "
            f"{points.shape} and {gradients.shape}."
        )
    with np.errstate(all="ignore"):
        updates = np.diff(points, axis=0)
        gradient_norm, update_norm, size = (
            np.linalg.norm(a, axis=1) for a in (gradients, updates, points[:-1])
        )
        ratio = np.where(size == 0, np.inf, update_norm / size)
        # Each vector is divided by its norm first, because the product of the norms may
        # underflow.
        cosine = -np.sum(
            updates / update_norm[:, None] * (gradients / gradient_norm[:, None]),
            axis=1,
        )
    return Steps(gradient_norm, update_norm, ratio, np.clip(cosine, -1.0, 1.0) + 0.0)


def contraction(distances: np.ndarray) -> float:
    """Return the factor by which distances shrink at each step.

    The factor is exp(s), where s is the slope of the least-squares line through the
    logarithms of the later half of the distances.

    Args:
      distances: Distances to the limit of the path, shape (t + 1,).
    Returns:
      The factor. It is NaN if a distance in the later half is 0 or not finite.
    Example:
      >>> round(contraction(5 * 0.9 ** np.arange(40)), 12)
      0.9
    """
    late = np.asarray(distances, float)[len(distances) // 2 :]
    if len(late) < 2 or not (np.isfinite(late) & (late > 0)).all():
        return float("nan")
    return float(np.exp(np.polyfit(np.arange(len(late)), np.log(late), 1)[0]))
