"""Where does a landscape stand still, and which of these places are minima?

A derivative of zero marks a critical point: a minimum, a maximum, a saddle, or none of these. Newton's method on ∇f = 0 finds
all three kinds alike, and the eigenvalues of the Hessian tell them apart, unless one is zero: then derivatives of order
3 and 4 do, where they can. Descent from the same starts, whose steps go against ∇f, comes to minima alone.

Himmelblau's function, (x² + y - 11)² + (x + y² - 7)², has nine critical points, which is a theorem (a resultant and Sturm
sequences): the lattice of starts must find all of them. So too the fifteen of the six-hump camel. What is found is what
these starts reach; on another function nothing proves that it is all.

    python experiments/critical_points.py            # some seconds

The numbers to expect (`EXPECTED`): how many critical points are found on each of the two; the longest gradient that is left,
over the longest at a start; and the share of descents that end in a saddle or a maximum.
"""

import dataclasses
import math
import sys

import numpy as np

import research

EXPECTED = {
    "himmelblau_found": (9, 9),
    "camel_found": (15, 15),
    "gradient_left": (0.0, 1e-13),
    "descents_elsewhere": (0.0, 0.0),
}

LANDSCAPES = {  # name: (formula in words, bounds).
    "himmelblau": ("(x² + y - 11)² + (x + y² - 7)²", ((-5.5, 5.5), (-5.5, 5.5))),
    "camel": (
        "(4 - 2.1 x² + x⁴ / 3) x² + x y + (4 y² - 4) y²",
        ((-2.2, 2.2), (-1.3, 1.3)),
    ),
}
DEGENERATE = {  # name: formula; each is degenerate at 0.
    "x⁴ + y²": lambda x: x[0] ** 4 + x[1] ** 2,
    "x³ - 3 x y² (monkey saddle)": lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
    "x³ + y²": lambda x: x[0] ** 3 + x[1] ** 2,
    "(y - x²)(y - 3x²) (Peano)": lambda x: (x[1] - x[0] ** 2) * (x[1] - 3 * x[0] ** 2),
    "x⁶ + y²": lambda x: x[0] ** 6 + x[1] ** 2,
}
KINDS = {
    "minimum": ("first class", "v"),
    "saddle": ("second class", "D"),
    "maximum": ("stochastic", "^"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    starts: int = 12
    """Of Newton's method, on each axis."""
    descents: int = 12
    """Starts of gradient descent, on each axis."""
    steps: int = 3000
    """Of each descent."""
    learning_rate: float = 0.005
    """Of each descent."""


FULL = Config(starts=40, descents=40)


def himmelblau(x):
    """Himmelblau's function of a point of shape (2,)."""
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def camel(x):
    """The six-hump camel of a point of shape (2,)."""
    return (
        (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2
        + x[0] * x[1]
        + (4 * x[1] ** 2 - 4) * x[1] ** 2
    )


def run(config, on_progress=None, checkpoints=None):
    """Finds and classifies on both landscapes, lets descent run, and classifies what is degenerate."""
    del checkpoints  # It takes seconds.
    for field in ("starts", "descents", "steps"):
        if getattr(config, field) < 1:
            raise ValueError(
                f"{field} must be a positive integer; got {field}={getattr(config, field)}."
            )
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(
            f"learning_rate must be a positive number; got learning_rate={config.learning_rate}."
        )
    arrays, found = {}, {}
    for done, (name, f) in enumerate((("himmelblau", himmelblau), ("camel", camel))):
        if on_progress:
            on_progress(done, 3, name)
        found[name], new = landscape(f, LANDSCAPES[name][1], config)
        arrays |= {f"{name}/{key}": value for key, value in new.items()}
    if on_progress:
        on_progress(2, 3, "degenerate points")
    degenerate = {name: verdict(f) for name, f in DEGENERATE.items()}
    if on_progress:
        on_progress(3, 3, "done")
    numbers = {
        "landscapes": found,
        "degenerate": degenerate,
        "himmelblau_found": len(found["himmelblau"]["points"]),
        "camel_found": len(found["camel"]["points"]),
        "gradient_left": max(part["gradient_left"] for part in found.values()),
        "descents_elsewhere": max(part["elsewhere"] for part in found.values()),
    }
    return research.runs.Result(
        answer(numbers),
        (points_table(found), degenerate_table(degenerate)),
        arrays,
        numbers,
    )


def landscape(f, bounds, config):
    """What is found on one landscape, as JSON, and its arrays: heights on a grid, and the ends of descents."""
    import jax
    import jax.numpy as jnp

    grid_of_starts, bounds = research.derivatives.grid_of_starts, np.array(bounds)
    starts = grid_of_starts(bounds, config.starts)
    points = research.derivatives.critical_points(f, starts, bounds)
    steepest = float(
        np.linalg.norm(jax.vmap(jax.grad(f))(jnp.asarray(starts)), axis=1).max()
    )
    ends = descended(f, grid_of_starts(bounds, config.descents), config)
    x = np.array([point.x for point in points])
    nearest = np.linalg.norm(ends[:, None] - x, axis=2).argmin(axis=1)
    at_minimum = np.array([points[i].kind == "minimum" for i in nearest])
    axes = [np.linspace(low, high, 161) for low, high in bounds]
    heights = np.asarray(f(np.stack(np.meshgrid(*axes))))
    found = {
        "points": [as_json(point) for point in points],
        "starts": len(starts),
        "gradient_left": max(point.gradient_norm for point in points) / steepest,
        "elsewhere": float(np.mean(~at_minimum)),
        "farthest": float(np.linalg.norm(ends - x[nearest], axis=1).max()),
    }
    return found, {"x": axes[0], "y": axes[1], "heights": heights, "ends": ends}


def descended(f, starts, config):
    """Where gradient descent from each start is after its steps; steps longer than 0.1 are cut, for the slopes are steep."""
    import jax
    import jax.numpy as jnp

    def step(_, x):
        move = config.learning_rate * jax.grad(f)(x)
        return x - move / jnp.maximum(1.0, jnp.linalg.norm(move) / 0.1)

    walk = jax.jit(jax.vmap(lambda x: jax.lax.fori_loop(0, config.steps, step, x)))
    return np.asarray(walk(jnp.asarray(starts)))


def as_json(point):
    """A critical point as JSON values."""
    return {
        "x": point.x.tolist(),
        "value": point.value,
        "kind": point.kind,
        "eigenvalues": point.eigenvalues.tolist(),
        "newton_radius": point.newton_radius,
    }


def verdict(f):
    """What the point 0 of f is."""
    point = research.derivatives.classify_critical_point(f, np.zeros(2))
    return {"kind": point.kind, "order": point.order, "note": point.note}


def kinds(points):
    """How many there are of each kind, in words."""
    numbers = {kind: sum(point["kind"] == kind for point in points) for kind in KINDS}
    plural = {"minimum": "minima", "saddle": "saddles", "maximum": "maxima"}
    return ", ".join(
        f"{number} {kind if number == 1 else plural[kind]}"
        for kind, number in numbers.items()
    )


def answer(numbers):
    """What was found on both landscapes, by Newton's method and by descent."""
    himmelblau, camel = (
        numbers["landscapes"][name] for name in ("himmelblau", "camel")
    )
    return (
        f"Himmelblau's function stands still at {numbers['himmelblau_found']} points ({kinds(himmelblau['points'])}), the "
        f"six-hump camel at {numbers['camel_found']} ({kinds(camel['points'])}): all there are, found by Newton's method "
        f"from {himmelblau['starts']} starts. {elsewhere(numbers['descents_elsewhere'])} Where the Hessian is singular, "
        "higher derivatives decide, or nothing up to the fourth does."
    )


def elsewhere(share):
    """Where descents end, in words."""
    if share == 0:
        return "Gradient descent ends in a minimum from every start."
    return f"Of the descents, {100 * share:.1f} % were not in a minimum at the end."


def points_table(found):
    """Every critical point of both landscapes."""
    rows = [
        (
            name,
            point["kind"],
            *point["x"],
            point["value"],
            *point["eigenvalues"],
            point["newton_radius"],
        )
        for name, part in found.items()
        for point in part["points"]
    ]
    return research.runs.Table(
        "Critical points",
        (
            "function",
            "kind",
            "x",
            "y",
            "f",
            "least eigenvalue",
            "largest",
            "Newton's radius",
        ),
        tuple(rows),
        "Newton's radius: an estimate, from samples, of how close a start must be for Newton's method to come here.",
    )


def degenerate_table(degenerate):
    """What the higher orders say at 0."""
    rows = [
        (name, part["order"] or "none", part["note"])
        for name, part in degenerate.items()
    ]
    return research.runs.Table(
        "Degenerate at 0: the Hessian has an eigenvalue of zero",
        ("function", "order that decides", "what it says"),
        tuple(rows),
        "Peano's function has a minimum along every straight line through 0, and none in the plane.",
    )


def draw(result):
    """Both landscapes with every critical point."""
    figure, axes = research.figures.new_figure(1, 2, width=11, height=5.0)
    for panel, (name, found) in zip(
        axes[0], result.numbers["landscapes"].items(), strict=True
    ):
        draw_landscape(
            panel,
            {
                key: result.arrays[f"{name}/{key}"]
                for key in ("x", "y", "heights", "ends")
            },
        )
        draw_points(panel, found["points"])
        panel.set_title(f"{name}: {LANDSCAPES[name][0]}", loc="left", fontsize=9.5)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )
    parts = result.numbers["landscapes"]
    caption = (
        f"Lines of equal height, and every place where the gradient vanishes: {kinds(parts['himmelblau']['points'])} on the "
        f"left, {kinds(parts['camel']['points'])} on the right. The circle around each is where Newton's method is estimated "
        f"to converge to it. {elsewhere(result.numbers['descents_elsewhere'])} Crosses mark these ends."
    )
    return {
        "landscapes": research.figures.Picture(
            "Where two landscapes stand still", caption, figure
        )
    }


def draw_landscape(axes, arrays):
    """Lines of equal height, closer together near the lowest, and the ends of descents."""
    heights = arrays["heights"]
    levels = heights.min() + np.ptp(heights) * np.linspace(0.02, 1, 22) ** 3
    axes.grid(False)
    axes.contour(
        arrays["x"], arrays["y"], heights, levels, colors="#B8BDC4", linewidths=0.8
    )
    x, y = arrays["ends"].T
    axes.plot(
        x,
        y,
        "x",
        color=research.figures.COLOURS["exact"],
        markersize=9,
        label="ends of descents",
        lw=0,
    )
    axes.set(xlabel="x", ylabel="y")


def draw_points(axes, points):
    """A mark by kind, and the circle of Newton's method."""
    from matplotlib.patches import Circle

    for kind, (name, mark) in KINDS.items():
        of_kind = [point for point in points if point["kind"] == kind]
        colour = research.figures.COLOURS[name]
        x = np.array([point["x"] for point in of_kind]).reshape(-1, 2)
        axes.plot(*x.T, mark, color=colour, markersize=6, label=kind, lw=0)
        for point in of_kind:
            axes.add_patch(
                Circle(
                    tuple(point["x"]),
                    point["newton_radius"],
                    fill=False,
                    color=colour,
                    lw=1,
                )
            )


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
