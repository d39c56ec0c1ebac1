"""How small should the step of a difference quotient be?

The derivative is the limit of (f(x + h) - f(x)) / h, but on a computer a smaller step is not a better one: truncation
falls with a power of h, rounding grows as ε / h, and their sum is least near √ε for the forward quotient, ∛ε for the
central one and the fifth root of ε for Richardson's. The complex step has no difference and so no such floor. The
function is that of Squire and Trapp, exp(x) / √(sin³x + cos³x).

`np.gradient` is no remedy. It differentiates samples and not functions: of one number it returns an empty tuple, and
at the two ends of samples it is of first order only. That is shown beside `grid_derivative`.

    python experiments/finite_difference_step.py            # some seconds

The numbers to expect (`EXPECTED`): the most decades between a best step and its rule of thumb, over three quotients in
float64 and float32; the share by which the forward quotient is off at h = 1e-15; how many numbers `np.gradient` returns
for one; and its error at the ends of exp on [0, 1], over that of `grid_derivative`.
"""

import dataclasses
import sys
from typing import Literal

import numpy as np

import research

EXPECTED = {
    "decades_from_theory": (0.0, 1.0),
    "error_at_1e_15": (0.25, 0.35),
    "numbers_from_numpy": (0, 0),
    "end_error_over_ours": (50, 5000),
}

Scheme = Literal["forward", "central", "richardson", "complex"]
SCHEMES: tuple[Scheme, ...] = (
    "forward",
    "central",
    "richardson",
    "complex",
)
TYPES = ("float64", "float32")
TINY = 1e-15  # A step that has lost nearly every digit.


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    x: float = 1.5
    """Where the function is differentiated: between 0 and 2, so that its root is real."""
    samples: int = 101
    """Points of exp on [0, 1] for the trap."""


FULL = Config(samples=10001)


def squire_trapp(x):
    """exp(x) / √(sin³x + cos³x)."""
    return np.exp(x) / np.sqrt(np.sin(x) ** 3 + np.cos(x) ** 3)


def run(config, on_progress=None, checkpoints=None):
    """Tabulates every quotient at every step, and what NumPy makes of samples."""
    del checkpoints  # It takes seconds.
    check(config)
    arrays, rows = {}, []
    cases: list[tuple[Scheme, str]] = [
        (scheme, kind) for kind in TYPES for scheme in SCHEMES
    ]
    for done, (scheme, kind) in enumerate(cases):
        if on_progress:
            on_progress(done, len(cases), f"{scheme} {kind}")
        table = research.derivatives.limit_table(
            squire_trapp, config.x, scheme, dtype=np.dtype(kind)
        )
        error = np.abs(table.estimates - slope(float(np.dtype(kind).type(config.x))))
        arrays |= {
            f"{kind}/{scheme}/{name}": getattr(table, name)
            for name in ("steps", "truncation", "rounding")
        }
        arrays[f"{kind}/{scheme}/error"] = error
        rows.append(
            (
                scheme,
                kind,
                float(table.steps[table.best]),
                table.theory or None,
                float(error[table.best]),
                smallest(error),
            )
        )
    if on_progress:
        on_progress(len(cases), len(cases), "done")
    forward = research.derivatives.limit_table(
        squire_trapp, config.x, "forward", steps=[TINY]
    )
    trap = numpy_trap(config)
    arrays |= trap
    numbers = {
        "x": config.x,
        "derivative": slope(config.x),
        "rows": [list(row) for row in rows],
        "decades_from_theory": max(
            float(abs(np.log10(row[2] / row[3]))) for row in rows if row[3]
        ),
        "error_at_1e_15": float(abs(forward.estimates[0] / slope(config.x) - 1)),
        "numbers_from_numpy": len(np.gradient(9.0, 3.0)),
        "end_error_over_ours": float(trap["trap/numpy"][-1] / trap["trap/ours"][-1]),
        "numpy_at_the_end": float(trap["trap/numpy"][-1]),
        "numpy_inside": float(np.median(trap["trap/numpy"])),
        "samples": config.samples,
    }
    return research.runs.Result(
        answer(numbers), (steps_table(rows), calls_table()), arrays, numbers
    )


def check(config):
    """Raises ValueError for a config that cannot be run."""
    if not 0 < config.x < 2:
        raise ValueError(
            f"x must lie between 0 and 2, where the function is real; got x={config.x}."
        )
    if config.samples < 5:
        raise ValueError(f"samples must be at least 5; got samples={config.samples}.")


def slope(x):
    """The derivative of squire_trapp, by the rules."""
    cubes = np.sin(x) ** 3 + np.cos(x) ** 3
    inner = 3 * np.sin(x) * np.cos(x) * (np.sin(x) - np.cos(x))
    return float(np.exp(x) * (cubes - inner / 2) / cubes**1.5)


def smallest(error):
    """The least error of any step."""
    return float(np.nanmin(error))


def numpy_trap(config):
    """Errors of np.gradient and of grid_derivative on samples of exp."""
    x = np.linspace(0, 1, config.samples)
    y = np.exp(x)
    return {
        "trap/x": x,
        "trap/numpy": np.abs(np.gradient(y, x) - y),
        "trap/ours": np.abs(research.derivatives.grid_derivative(y, x) - y),
        "trap/ours of order 4": np.abs(
            research.derivatives.grid_derivative(y, x, accuracy=4) - y
        ),
    }


def answer(numbers):
    """The best steps, what a smaller one costs, and NumPy's trap."""
    best = {
        (scheme, kind): (step, error)
        for scheme, kind, step, _, error, _ in numbers["rows"]
    }
    found = ", ".join(
        f"{best[name, 'float64'][0]:.0e} for the {name} quotient (error {best[name, 'float64'][1]:.0e})"
        for name in ("forward", "central", "richardson")
    )
    return (
        f"As small as rounding allows, and no smaller: in float64 the best step is {found}, within "
        f"{numbers['decades_from_theory']:.1f} decades of √ε, ∛ε and the fifth root of ε, and the same rule holds in "
        f"float32. At h = 1e-15 the forward quotient is {100 * numbers['error_at_1e_15']:.0f} % wrong. The complex step "
        f"has no such floor (error {best['complex', 'float64'][1]:.0e}). NumPy's gradient of f(x) returns "
        f"{numbers['numbers_from_numpy']} numbers: it differentiates samples."
    )


def steps_table(rows):
    """Every quotient's best step."""
    return research.runs.Table(
        "The best step of each quotient",
        (
            "quotient",
            "type",
            "best step",
            "rule of thumb",
            "error there",
            "least error of any step",
        ),
        tuple((*row[:3], row[3] or "none", *row[4:]) for row in rows),
        "Best: where the estimated truncation and rounding add up to the least. Rule of thumb: ε to the power "
        "1 / (p + 1), times max(|x|, 1), for a quotient of order p; the complex step has none.",
    )


def calls_table():
    """What NumPy's gradient returns for calls that look right."""
    xs = np.array([1.0, 2.0, 3.0, 4.0])
    calls = (
        (
            "np.gradient(f(3.0), 3.0)",
            np.gradient(9.0, 3.0),
            "6",
            "one number has no axis to differentiate along",
        ),
        (
            "3.0 - 0.1 * np.array(np.gradient(f(3.0), 3.0))",
            3.0 - 0.1 * np.array(np.gradient(9.0, 3.0)),
            "2.4",
            "an empty parameter, without a word",
        ),
        (
            "np.gradient(xs**2, xs)",
            np.gradient(xs**2, xs),
            "[2 4 6 8]",
            "the ends are of first order",
        ),
        (
            "np.gradient(xs**2, xs, edge_order=2)",
            np.gradient(xs**2, xs, edge_order=2),
            "[2 4 6 8]",
            "right",
        ),
        (
            "np.gradient(xs**2, 3.0)",
            np.gradient(xs**2, 3.0),
            "6 at 3",
            "a number there is a spacing, not a point",
        ),
        (
            "grid_derivative(xs**2, xs)",
            research.derivatives.grid_derivative(xs**2, xs),
            "[2 4 6 8]",
            "right, at the ends too",
        ),
        ("grid_derivative(f(3.0), 3.0)", refusal(), "6", "explains all this"),
    )
    rows = tuple((call, shown(got), truth, why) for call, got, truth, why in calls)
    return research.runs.Table(
        "np.gradient is no derivative of a function",
        ("call", "gives", "wanted", "why"),
        rows,
        "f is x², xs is [1 2 3 4]. For a function use derivative(f, x), or finite_difference(f, x) where JAX cannot trace it.",
    )


def shown(value):
    """What a call gave, as it is printed."""
    return (
        str(np.round(value, 3))
        if isinstance(value, np.ndarray) and value.size
        else str(value)
    )


def refusal():
    """The type of the error that grid_derivative raises for a single number."""
    try:
        research.derivatives.grid_derivative(9.0, 3.0)
    except ValueError as error:
        return type(error).__name__
    return "nothing"


def draw(result):
    """The U-curves in both types, and the trap."""
    curves, axes = research.figures.new_figure(1, 2, width=11, height=4.6, sharey=True)
    for panel, kind in zip(axes[0], TYPES, strict=True):
        draw_curves(panel, result, kind)
    trap, axes = research.figures.new_figure(1, 2, width=11, height=4.2)
    draw_squares(axes[0, 0])
    draw_samples(axes[0, 1], result)
    numbers = result.numbers
    caption = (
        f"Error of each quotient for f'({numbers['x']:g}) = {numbers['derivative']:.4f} against its step (dots), with the "
        "sum of estimated truncation and rounding (line). From right to left truncation falls with the order of the "
        "quotient until rounding, which grows as ε / h, takes over. Dotted: the rules of thumb. The best steps lie within "
        f"{numbers['decades_from_theory']:.1f} decades of them."
    )
    trapped = (
        "Left: np.gradient of x² sampled at 1, 2, 3, 4 is right inside and off by 1 at both ends; grid_derivative is on "
        f"the line 2x. Right: their errors on {numbers['samples']} samples of exp. NumPy's grows from "
        f"{numbers['numpy_inside']:.0e} to {numbers['numpy_at_the_end']:.0e} at the ends, "
        f"{numbers['end_error_over_ours']:.0f} times ours. Of a single number NumPy returns an empty tuple."
    )
    return {
        "u_curve": research.figures.Picture(
            "A smaller step is not a better one", caption, curves
        ),
        "numpy_trap": research.figures.Picture(
            "np.gradient differentiates samples, not functions", trapped, trap
        ),
    }


def draw_curves(axes, result, kind):
    """Error against step for each quotient in one type."""
    colours = dict(
        zip(SCHEMES, ("#D55E00", "#0072B2", "#009E73", "#8A8F98"), strict=True)
    )
    theory = {
        scheme: rule
        for scheme, found, _, rule, *_ in result.numbers["rows"]
        if found == kind
    }
    for scheme in SCHEMES:
        h, error, truncation, rounding = (
            result.arrays[f"{kind}/{scheme}/{name}"]
            for name in ("steps", "error", "truncation", "rounding")
        )
        floor = np.finfo(np.dtype(kind)).eps / 4
        axes.plot(
            h,
            np.maximum(error, floor),
            "o",
            color=colours[scheme],
            markersize=3.5,
            label=scheme,
        )
        axes.plot(
            h,
            np.maximum(truncation + rounding, floor),
            color=colours[scheme],
            lw=1,
            alpha=0.7,
        )
        if theory[scheme]:
            axes.axvline(theory[scheme], color=colours[scheme], lw=1, ls=":")
    axes.set(
        xscale="log", yscale="log", xlabel="step h", xlim=(1e-17, 3), ylim=(1e-17, 1e2)
    )
    axes.set_ylabel("error" if kind == TYPES[0] else "")
    axes.set_title(kind, loc="left")
    axes.legend(
        loc="lower left" if kind == TYPES[1] else "upper left", ncols=2, fontsize=9
    )


def draw_squares(axes):
    """Both derivatives of x² at four samples."""
    x = np.array([1.0, 2.0, 3.0, 4.0])
    axes.plot(
        x,
        2 * x,
        color=research.figures.COLOURS["exact"],
        lw=1.2,
        ls=(0, (5, 3)),
        label="2x",
    )
    axes.plot(
        x,
        np.gradient(x**2, x),
        "o",
        color="#D55E00",
        markersize=8,
        label="np.gradient(xs**2, xs)",
    )
    ours = research.derivatives.grid_derivative(x**2, x)
    axes.plot(
        x,
        ours,
        "x",
        color="#0072B2",
        markersize=8,
        markeredgewidth=2,
        label="grid_derivative(xs**2, xs)",
    )
    axes.set(xlabel="x", ylabel="derivative of x²", xticks=x)
    axes.set_title("Four samples", loc="left")
    axes.legend(loc="upper left")


def draw_samples(axes, result):
    """Errors along the samples of exp."""
    x = result.arrays["trap/x"]
    styles = {
        "numpy": ("np.gradient", "#D55E00"),
        "ours": ("grid_derivative", "#0072B2"),
    }
    styles["ours of order 4"] = ("grid_derivative, accuracy=4", "#009E73")
    for name, (label, colour) in styles.items():
        axes.plot(
            x,
            np.maximum(result.arrays[f"trap/{name}"], 1e-17),
            color=colour,
            lw=1.6,
            label=label,
        )
    axes.set(yscale="log", xlabel="x", ylabel="error", ylim=(1e-11, 1))
    axes.set_title("Samples of exp", loc="left")
    axes.legend(loc="upper center", fontsize=9)


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
