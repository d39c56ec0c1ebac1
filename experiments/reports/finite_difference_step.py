"""Report of finite_difference_step: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.finite_difference_step import SCHEMES, TYPES, slope, squire_trapp
from research.figures import motion

SECANTS = (0.5, 0.25, 0.1)  # Steps of the picture for teachers.
FRAMES = 24  # Number of frames of its animation.


def answer(findings: research.runs.Findings) -> str:
    """State the best steps, the cost of smaller steps, and the trap of np.gradient."""
    numbers = findings.numbers
    best = {
        (scheme, kind): (step, error)
        for scheme, kind, step, _, error, _ in numbers["rows"]
    }
    found = ", ".join(
        f"{best[name, 'float64'][0]:.0e} for the {name} quotient (error "
        f"{best[name, 'float64'][1]:.0e})"
        for name in ("forward", "central", "richardson")
    )
    return (
        "As small as rounding allows, but not smaller. In float64 the best step is "
        f"{found}. These steps lie within {numbers['decades_from_theory']:.1f} decades "
        "of √ε, ∛ε and the fifth root of ε; the same rule holds in float32. At h = "
        f"1e-15 the forward quotient is {100 * numbers['error_at_1e_15']:.0f} % wrong. "
        "The complex step has no such limit: its error is "
        f"{best['complex', 'float64'][1]:.0e}. NumPy's gradient of f(x) returns "
        f"{numbers['numbers_from_numpy']} numbers, because it differentiates samples."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of best steps, and the table of NumPy's return values."""
    return steps_table(findings.numbers["rows"]), calls_table()


def steps_table(rows: Sequence[Any]):
    """Return the table of every quotient's best step."""
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
        "Best step: the step with the smallest sum of estimated truncation and "
        "rounding. Rule of thumb: ε^(1 / (p + 1)) times max(|x|, 1) for a quotient of "
        "order p; the complex step has none.",
    )


def calls_table():
    """Return the table of results of np.gradient for calls that look right."""
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
            "an empty parameter, without a warning",
        ),
        (
            "np.gradient(xs**2, xs)",
            np.gradient(xs**2, xs),
            "[2 4 6 8]",
            "the ends have first-order accuracy",
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
            "a number there is the spacing, not the point",
        ),
        (
            "grid_derivative(xs**2, xs)",
            research.derivatives.grid_derivative(xs**2, xs),
            "[2 4 6 8]",
            "right, also at the ends",
        ),
        (
            "grid_derivative(f(3.0), 3.0)",
            refusal(),
            "6",
            "raises an error that explains this",
        ),
    )
    rows = tuple((call, shown(got), truth, why) for call, got, truth, why in calls)
    return research.runs.Table(
        "np.gradient is not the derivative of a function",
        ("call", "gives", "wanted", "why"),
        rows,
        "f is x², xs is [1 2 3 4]. For a function use derivative(f, x), or "
        "finite_difference(f, x) if JAX cannot trace it.",
    )


def shown(value: Any):
    """Return the text that Python prints for the result of a call."""
    return (
        str(np.round(value, 3))
        if isinstance(value, np.ndarray) and value.size
        else str(value)
    )


def refusal():
    """Return the type of the error that grid_derivative raises for a single number."""
    try:
        research.derivatives.grid_derivative(9.0, 3.0)
    except ValueError as error:
        return type(error).__name__
    return "nothing"


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw error against step in both dtypes, and the errors of np.gradient."""
    curves, axes = research.figures.new_figure(2, 1, width=4.6, height=7.4, sharex=True)
    for panel, kind in zip(axes[:, 0], TYPES, strict=True):
        draw_curves(panel, result, kind)
    axes[1, 0].set_xlabel("step h")
    curves.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2
    )
    trap, axes = research.figures.new_figure(1, 2, width=11, height=4.2)
    draw_squares(axes[0, 0])
    draw_samples(axes[0, 1], result)
    numbers = result.numbers
    caption = (
        f"Error of each quotient for f'({numbers['x']:g}) = "
        f"{numbers['derivative']:.4f} against its step (dots), and the sum of "
        "estimated truncation and rounding (line). From right to left, truncation "
        "decreases with the order of the quotient until rounding, which grows as ε / "
        "h, dominates. Dotted: the rules of thumb. The best steps lie within "
        f"{numbers['decades_from_theory']:.1f} decades of them."
    )
    trapped = (
        "np.gradient is called with its default, edge_order=1. Left: np.gradient of "
        "x², sampled at 1, 2, 3, 4, is right inside and wrong by 1 at both ends; "
        "grid_derivative lies on the line 2x. Right: their errors on "
        f"{numbers['samples']} samples of exp. The error of NumPy grows from "
        f"{numbers['numpy_inside']:.0e} to {numbers['numpy_at_the_end']:.0e} at the "
        f"ends, which is {numbers['end_error_over_ours']:.0f} times the error of "
        "grid_derivative. For a single number NumPy returns an empty tuple."
    )
    return {
        "u_curve": research.figures.Picture(
            "A smaller step is not a better one", caption, curves
        ),
        "numpy_trap": research.figures.Picture(
            "np.gradient differentiates samples, not functions", trapped, trap
        ),
        # Beyond 2.3 the function is not real.
        "secants": draw_secants(min(numbers["x"], 1.5)),
    }


def draw_secants(x: float) -> research.figures.Picture:
    """Draw secants that become the tangent, also animated."""
    slopes = [(squire_trapp(x + h) - squire_trapp(x)) / h for h in SECANTS]
    still, axes = research.figures.new_figure(width=4.6, height=4.2)
    draw_function(axes[0, 0], x)
    shades = np.linspace(0.25, 0.8, len(SECANTS))
    for h, of_secant, shade in zip(SECANTS, slopes, shades, strict=True):
        line = axes[0, 0].axline(
            (x, squire_trapp(x)), slope=of_secant, color="#D55E00", alpha=shade, lw=1.4
        )
        line.set_label(f"h = {h:g}: slope {of_secant:.3f}")
        axes[0, 0].plot(x + h, squire_trapp(x + h), "o", color="#D55E00", alpha=shade)
    axes[0, 0].legend(loc="upper left", fontsize=9)
    moving, axes = research.figures.new_figure(width=4.6, height=4.2)
    draw_function(axes[0, 0], x)
    ends = axes[0, 0].plot([], [], "o-", color="#D55E00", lw=1.6)[0]
    title = axes[0, 0].set_title("", loc="left")

    def show(k: int) -> None:
        h = SECANTS[0] * 0.9**k
        of_secant = (squire_trapp(x + h) - squire_trapp(x)) / h
        left, right = x - 0.35, x + 0.55
        at = np.array([left, x, x + h, right])
        ends.set_data(at, squire_trapp(x) + of_secant * (at - x))
        ends.set_markevery([1, 2])
        title.set_text(f"h = {h:.3f}: slope {of_secant:.3f}")

    film = motion.record(moving, show, FRAMES, colours=32)
    caption = (
        f"The secant through the points at x = {x:g} and x + h has the slope "
        f"(f(x + h) - f(x)) / h. As h shrinks, it turns into the tangent, whose slope "
        f"is f'({x:g}) = {slope(x):.3f}. For h = {', '.join(f'{h:g}' for h in SECANTS)}"
        f" the slopes are {', '.join(f'{of:.3f}' for of in slopes)}."
    )
    return research.figures.Picture(
        "A secant becomes the tangent", caption, still, film
    )


def draw_function(axes: Axes, x: float) -> None:
    """Draw the function near x, with its tangent there."""
    near = np.linspace(x - 0.4, x + 0.6, 101)
    exact = research.figures.COLOURS["exact"]
    axes.plot(near, squire_trapp(near), color="#0072B2", lw=2, label="f")
    axes.axline(
        (x, squire_trapp(x)),
        slope=slope(x),
        color=exact,
        lw=1.2,
        ls=(0, (5, 3)),
        label=f"tangent: slope {slope(x):.3f}",
    )
    axes.plot(x, squire_trapp(x), "o", color=exact, zorder=5)
    low, high = squire_trapp(near).min(), squire_trapp(near).max()
    axes.set(xlabel="x", ylabel="f(x)", xlim=(near[0], near[-1]))
    axes.set_ylim(low - 0.15 * (high - low), high + 0.35 * (high - low))


def draw_curves(axes: Axes, result: research.runs.Result, kind: str):
    """Draw error against step for each quotient in one dtype."""
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
    axes.set(xscale="log", yscale="log", xlim=(1e-17, 3), ylim=(1e-17, 1e2))
    axes.set_ylabel("error")
    axes.set_title(kind, loc="left")


def draw_squares(axes: Axes):
    """Draw the derivative of x² at four samples by np.gradient and grid_derivative."""
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


def draw_samples(axes: Axes, result: research.runs.Result):
    """Draw the errors at the samples of exp."""
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
