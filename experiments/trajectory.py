"""Which way do update rules take down a landscape?

Paths of rules over a landscape of two parameters, all from one start and with exact gradients, so that nothing is left to
chance. Gradient descent always steps straight down the slope; momentum turns away from it, and rules with a rate for each
coordinate hardly look at how steep it is. Of every step are kept: the learning rate, the norms of gradient and update,
the length of the update against that of the parameters, and the cosine between the update and -gradient.

Each rule has the best rate of a grid, the same grid for all: the one whose highest f - f* in the second half of the steps is
the lowest, so that no path wins which only passes by. Twelve digits count and no more; of rates that reach them, the first
to do so. The whole grid is told, with the rates that diverge. For another number of steps another rate may be the best.

    python experiments/trajectory.py                                        # some seconds
    python experiments/trajectory.py --landscape himmelblau --rule adam nesterov

The numbers to expect (`EXPECTED`) are of the quadratic, whose theory is exact. Gradient descent: the mean cosine, and the
factor by which its distance shrinks at each step over max |1 - η λ|. The heavy ball: the same over √β.
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np

import research

EXPECTED = {
    "cosine_of_gradient_descent": (0.999999999, 1.0),
    "gradient_descent_over_theory": (0.999, 1.001),
    "heavy_ball_over_theory": (0.99, 1.01),
}

CONDITION, ANGLE, MOMENTUM = 100.0, math.pi / 6, 0.9
CLOSE = 1e-6  # Share of the first f - f* at which a path has arrived.
SMALLEST = 1e-12  # Share below which f - f* is rounding.
FRAMES = 36


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    landscape: Literal["rosenbrock", "quadratic", "himmelblau", "beale", "saddle"] = (
        "rosenbrock"
    )
    """What is walked down."""
    rule: tuple[str, ...] = (
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "rmsprop",
        "adam",
    )
    """Update rules by name, with their defaults."""
    steps: int = 300
    """Of each path."""
    rates: int = 21
    """Learning rates of the grid, in equal ratios."""
    lowest_rate: float = 1e-4
    """Of the grid."""
    highest_rate: float = 10.0
    """Of the grid."""


FULL = Config(steps=3000, rates=41)


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A function of a point of shape (2,), its minima, and what is shown of it."""

    formula: str
    f: Callable
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    lowest: float
    bounds: tuple[tuple[float, float], tuple[float, float]]


def quadratic(x):
    """½ (u² + 100 v²), where (u, v) is x turned by 30°: no coordinate is an axis of the ellipses."""
    u, v = turned(x)
    return 0.5 * (u**2 + CONDITION * v**2)


def turned(x):
    """x in the coordinates of the ellipses' axes."""
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    return cosine * x[0] + sine * x[1], cosine * x[1] - sine * x[0]


def rosenbrock(x):
    """A curved valley, steep across and flat along."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def himmelblau(x):
    """Four minima of equal height."""
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def beale(x):
    """A plateau with steep walls."""
    return (
        (1.5 - x[0] * (1 - x[1])) ** 2
        + (2.25 - x[0] * (1 - x[1] ** 2)) ** 2
        + (2.625 - x[0] * (1 - x[1] ** 3)) ** 2
    )


def saddle(x):
    """Two minima on either side of a saddle at 0, which the start almost leads into."""
    return 0.5 * x[0] ** 2 - 0.5 * x[1] ** 2 + 0.25 * x[1] ** 4


HIMMELBLAU_MINIMA = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.283185991286170),
    (3.584428340330492, -1.848126526964404),
)
LANDSCAPES = {
    "rosenbrock": Landscape(
        "(1 - x)² + 100 (y - x²)²",
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
        "(x² + y - 11)² + (x + y² - 7)²",
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


def run(config, on_progress=None, checkpoints=None):
    """Walks each rule at every rate of the grid, keeps its best path whole, and holds two rules against theory."""
    del checkpoints  # It takes seconds.
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
    tables = (table(numbers), grid_table(arrays, numbers))
    return research.runs.Result(answer(numbers), tables, arrays, numbers)


def grid(config):
    """The learning rates, ascending; the config is checked."""
    if not config.rule:
        raise ValueError("rule must name at least one update rule; got rule=().")
    for field in ("steps", "rates"):
        if getattr(config, field) < 2:
            raise ValueError(
                f"{field} must be an integer of at least 2; got {field}={getattr(config, field)}."
            )
    low, high = config.lowest_rate, config.highest_rate
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"lowest_rate must be positive and highest_rate above it; got lowest_rate={low}, highest_rate={high}."
        )
    return np.geomspace(low, high, config.rates)


def walk(landscape, name, rates, steps):
    """One rule at all rates: facts of the best as JSON, and its arrays; what every rate came to is among them."""
    from research.studies.paths import describe_steps

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
    with np.errstate(all="ignore"):  # Where every rate diverges, so does the best.
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


def choose(gaps, scores):
    """The index of the rate with the lowest score, to twelve digits; of those that reach them, of the first to do so."""
    enough = SMALLEST * gaps[0, 0]
    if not scores.min() <= enough:
        return int(np.argmin(scores))
    above = np.where(scores <= enough, np.sum(~(gaps <= enough), axis=1), gaps.shape[1])
    return int(np.argmin(above))


def finite(value):
    """A number as JSON has it; None where it is none."""
    return float(value) if math.isfinite(value) else None


def paths(scene, name, rates, steps):
    """Of each rate: where the rule is, where it asks for gradients (t + 1, 2), the gradients, and the rates it used."""
    import jax
    import jax.numpy as jnp

    descent, gradient = research.descent, jax.grad(scene.f)

    def one(rate):
        rule = research.update_rules.find_rule(name)(rate)
        init, step = descent.build(lambda x, batch: scene.f(x), rule, None)

        def watched(state, _):
            after, info = step(state, descent.BatchIndices(None))
            return after, (
                shown(after),
                after.params,
                gradient(state.params),
                info.learning_rate,
            )

        def shown(state):  # Rules that average say where: that is what they give.
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


def heights(scene):
    """f - f* on a lattice, with its axes."""
    x, y = (np.linspace(low, high, 221) for low, high in scene.bounds)
    return {
        "x": x,
        "y": y,
        "heights": scene.f(np.stack(np.meshgrid(x, y))) - scene.lowest,
    }


def against_theory(plain, ball):
    """What the quadratic says of gradient descent and of the heavy ball, each over its theory."""
    from research.studies.paths import contraction

    (facts, kept), (_, of_ball) = plain, ball
    factor = max(abs(1 - facts["rate"] * curvature) for curvature in (1.0, CONDITION))
    return {
        "cosine_of_gradient_descent": facts["cosine"],
        "gradient_descent_over_theory": finite(contraction(kept["distances"]) / factor),
        "heavy_ball_over_theory": finite(
            contraction(of_ball["distances"]) / math.sqrt(MOMENTUM)
        ),
    }


def answer(numbers):
    """Who came lowest and who did not, and how they turned from the slope."""
    ranked = sorted(
        numbers["rules"].items(),
        key=lambda item: math.inf if item[1]["gap"] is None else item[1]["gap"],
    )
    results = ", ".join(f"{name} {gap(facts)}" for name, facts in ranked)
    turns = ", ".join(
        f"{name} {facts['cosine']:.2f}"
        for name, facts in ranked
        if facts["cosine"] is not None
    )
    return (
        f"On {numbers['landscape']}, after {numbers['steps']} steps, each at its best rate of one grid, f - f* is: {results}. "
        f"The mean cosine between a step and the way straight down: {turns}."
    )


def gap(facts):
    """What is left of f - f*, in words."""
    return "not finite at any rate" if facts["gap"] is None else f"{facts['gap']:.1e}"


def table(numbers):
    """Each rule at its best rate."""
    keys = ("rate", "gap", "distance", "steps", "cosine", "longest_update", "diverged")
    edges = [name for name, facts in numbers["rules"].items() if facts["at_edge"]]
    note = f"Steps: until f - f* is {CLOSE:g} of what it was. Rates diverged: of the grid, in the table after this one."
    if edges:
        note += f" At the edge of the grid, so that a better rate may lie outside: {', '.join(edges)}."
    instead = {
        "gap": "not finite",
        "distance": "not finite",
        "longest_update": "not finite",
        "cosine": "–",
    }
    cell = lambda key, value: instead.get(key) if value is None else value
    return research.runs.Table(
        f"Each rule at its best rate on {numbers['landscape']}",
        (
            "rule",
            "rate",
            "f - f*",
            "distance",
            "steps",
            "mean cosine",
            "longest update",
            "rates diverged",
        ),
        tuple(
            (name, *(cell(key, facts[key]) for key in keys))
            for name, facts in numbers["rules"].items()
        ),
        note,
    )


def grid_table(arrays, numbers):
    """What every rate that was tried came to."""
    rows = []
    for index, rate in enumerate(arrays["rates"]):
        scores = [arrays[f"{name}/scores"][index] for name in numbers["rules"]]
        rows.append(
            (
                float(rate),
                *(
                    float(value) if np.isfinite(value) else "diverged"
                    for value in scores
                ),
            )
        )
    return research.runs.Table(
        "The whole grid: the highest f - f* in the second half of the steps",
        ("rate", *numbers["rules"]),
        tuple(rows),
        "The best rate of a rule is the one with its smallest entry, or, of those below "
        f"{SMALLEST:g} of the first f - f*, the first to get there; diverged: f was not finite at some step.",
    )


def draw(result):
    """The paths, still and moving; how far they are; and what each step does."""
    from research.figures import paths as drawing

    arrays, numbers = result.arrays, result.numbers
    names, scene = list(numbers["rules"]), LANDSCAPES[numbers["landscape"]]
    still, axes = research.figures.new_figure(width=8.6, height=6.2)
    drawing.draw_landscape(
        axes[0, 0], arrays["x"], arrays["y"], arrays["heights"], scene.minima
    )
    drawing.draw_paths(
        axes[0, 0], {name: arrays[f"{name}/points"] for name in names}, labels(numbers)
    )
    axes[0, 0].set_title(f"{numbers['landscape']}: {scene.formula}", loc="left")
    pictures = {
        "paths": (
            "The way each rule takes",
            paths_caption(numbers),
            still,
            draw_motion(arrays, numbers, scene),
        ),
        "curves": (
            "How far each rule still is",
            curves_caption(numbers),
            drawing.curves(arrays, names),
        ),
        "steps": (
            "What each step does",
            steps_caption(numbers),
            drawing.steps(arrays, names),
        ),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def labels(numbers):
    """Each rule with its rate."""
    return {
        name: f"{name}, rate {facts['rate']:.2g}"
        for name, facts in numbers["rules"].items()
    }


def draw_motion(arrays, numbers, scene):
    """The same paths as they grow; the steps go by ever faster, so that first and last are seen."""
    from research.figures import motion
    from research.figures import paths as drawing

    figure, axes = research.figures.new_figure(width=6.6, height=4.8)
    drawing.draw_landscape(
        axes[0, 0], arrays["x"], arrays["y"], arrays["heights"], scene.minima
    )
    points = {name: arrays[f"{name}/points"] for name in numbers["rules"]}
    show = drawing.draw_growing_paths(axes[0, 0], points, labels(numbers))
    return motion.record(
        figure, lambda k: show((k / (FRAMES - 1)) ** 2), FRAMES, colours=64
    )


def paths_caption(numbers):
    """What the first figure shows."""
    arrived = ", ".join(
        f"{name} {'does not' if facts['steps'] is None else 'after ' + str(facts['steps'])}"
        for name, facts in numbers["rules"].items()
    )
    return (
        f"Paths of {numbers['steps']} steps from one start (circle) over lines of equal f, each rule at its best rate of the "
        f"grid; a star is a minimum. f - f* comes to {CLOSE:g} of what it was: {arrived}. In the motion the steps go by "
        "ever faster."
    )


def curves_caption(numbers):
    """What the second figure shows."""
    ends = ", ".join(f"{name} {gap(facts)}" for name, facts in numbers["rules"].items())
    return (
        f"After each step: f - f* on the left, the distance to the nearest minimum on the right. At the end f - f* is {ends}. "
        f"On the quadratic the heavy ball's distance shrinks {shrinks(numbers['heavy_ball_over_theory'])} √β = "
        f"{math.sqrt(MOMENTUM):.3f} a step that theory gives it."
    )


def shrinks(ratio):
    """A measured factor over its theory, in words."""
    return "not by the" if ratio is None else f"by {ratio:.3f} times the"


def steps_caption(numbers):
    """What the third figure shows."""
    turns = ", ".join(
        f"{name} {facts['cosine']:.2f}"
        for name, facts in numbers["rules"].items()
        if facts["cosine"] is not None
    )
    return (
        "Of each step: the learning rate, the norms of gradient and update, the update's length against that of the "
        f"parameters, and the cosine between the update and -gradient (1: straight down; below 0: uphill). Its mean: {turns}."
    )


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
