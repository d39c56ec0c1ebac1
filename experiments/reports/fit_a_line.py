"""Report of fit_a_line: answer, tables and figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.fit_a_line import CLOSE, relative_errors
from research.figures import motion

SHOWN_PASSES = (0, 0.1, 0.3, 1, 3, 10, 30)  # The still shows the lines after these.
FRAMES, MOVING_PASSES = 40, 50  # Number of frames, and last pass of the animation.
# Ends of the drawn lines, in standard deviations of body mass index.
ENDS = (-2.0, 3.5)


def answer(findings: research.runs.Findings) -> str:
    """State the line, the cost of each regime to reach it, and which regimes stay."""
    numbers = findings.numbers
    costs = [
        f"{name} (rate {found['rate']:g}) {cost(found)}"
        for name, found in numbers["regimes"].items()
    ]
    return (
        "It steps against the gradient of the mean squared error, again and again. "
        f"To reach the least-squares line {line(numbers['exact'])} within 1 %, "
        f"{', '.join(costs)}. {staying(numbers)} the largest relative "
        f"error in the last pass is {strays(numbers)}."
    )


def staying(numbers: dict[str, Any]):
    """Return the beginning of the sentence about regimes that stay within 1 %."""
    names = [
        name
        for name, f in numbers["regimes"].items()
        if f["largest_error_in_last_pass"] <= CLOSE
    ]
    return (
        "Only the full batch, whose gradients are exact, stays there:"
        if names == ["full batch"]
        else "At the end"
    )


def strays(numbers: dict[str, Any]):
    """Say how far the lines of the last pass are from the exact line."""
    regimes = numbers["regimes"].items()
    return ", ".join(
        f"{found['largest_error_in_last_pass']:.1g} ({name})" for name, found in regimes
    )


def cost(found: dict[str, Any]):
    """Say how many passes and steps a regime needs to be within 1 %."""
    if found["passes"] is None:
        return "needs more than its budget"
    return f"takes {found['passes']:.3g} passes ({found['steps']:,} steps)"


def line(found: dict[str, Any]):
    """Return the equation of a line."""
    return f"{found['intercept']:.2f} + {found['slope']:.2f} x"


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the only table."""
    return (table(findings.numbers),)


def table(numbers: dict[str, Any]):
    """Return the table of the lines of all regimes and the exact line."""
    rows = [
        (
            name,
            f["rate"],
            f["intercept"],
            f["slope"],
            f["error"],
            f["error_after_one_pass"],
            f["passes"],
            f["steps"],
        )
        for name, f in numbers["regimes"].items()
    ]
    exact = (
        "least squares",
        None,
        numbers["exact"]["intercept"],
        numbers["exact"]["slope"],
        0.0,
        None,
        None,
        None,
    )
    exact = research.runs.dashed(exact)  # The exact solution has no rate and no passes.
    return research.runs.Table(
        "The line that each regime finds",
        (
            "regime",
            "rate",
            "intercept",
            "slope",
            "error",
            "after one pass",
            "passes to 1 %",
            "steps to 1 %",
        ),
        (*map(tuple, rows), exact),
        "Error: the larger of the relative errors of intercept and slope at the end "
        "of the budget. Passes and steps: until this error is at most 1 % for the "
        "first time.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the lines among the data (also animated), and the parameter paths."""
    arrays, numbers = result.arrays, result.numbers
    regimes = numbers["regimes"]
    still, axes = research.figures.new_figure(
        len(regimes), 1, width=4.6, height=9.6, sharex=True
    )
    for panel, (name, found) in zip(axes[:, 0], regimes.items(), strict=True):
        draw_data(panel, arrays, f"{name}, rate {found['rate']:g}")
        draw_still_lines(panel, arrays, name)
        panel.label_outer()
    walk, axes = research.figures.new_figure(1, 2, width=11, height=4.3)
    draw_walk(axes[0, 0], arrays, regimes)
    draw_errors(axes[0, 1], arrays, regimes)
    pictures = {
        "lines": (
            "The line through the data",
            lines_caption(numbers),
            still,
            draw_motion(arrays, regimes),
        ),
        "walk": (
            "The same path in the plane of all lines",
            walk_caption(numbers),
            walk,
        ),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def lines_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure."""
    after_one = ", ".join(
        f"{100 * f['error_after_one_pass']:.0f} % ({n})"
        for n, f in numbers["regimes"].items()
    )
    return (
        f"Disease progression after a year against body mass index, {numbers['n']} "
        f"people (grey), with the least-squares line {line(numbers['exact'])} (dashed) "
        "and the line of each regime after the numbers of passes written at its end, "
        "from pale to full colour. All start flat, near 0. After one pass the error "
        f"is still {after_one}: the full batch has made one step by then, the others "
        "many. In the animation, time runs faster and faster."
    )


def walk_caption(numbers: dict[str, Any]):
    """Return the caption of the second figure."""
    costs = ", ".join(
        f"{name} {cost(found)}" for name, found in numbers["regimes"].items()
    )
    return (
        "Left: each point is a line, given by its intercept and slope. Circles are "
        "contours of f, and the cross is the exact line. The full batch goes straight "
        "(one dot for each step); the others fluctuate around that path. Right: the "
        "larger of the relative errors of intercept and slope after each pass. To "
        f"reach 1 % (dashed), {costs}. The error of the full batch is multiplied by 1 "
        "- η at each step. The errors of the others fluctuate: the largest in the "
        f"last pass are {strays(numbers)}."
    )


def draw_data(axes: Axes, arrays: dict[str, np.ndarray], title: str):
    """Draw the examples and the exact line."""
    colours = research.figures.COLOURS
    axes.plot(
        arrays["x"],
        arrays["y"],
        "o",
        color=colours["data"],
        markersize=3.2,
        alpha=0.45,
        markeredgewidth=0,
    )
    axes.plot(
        ENDS,
        heights(arrays["exact"]),
        color=colours["exact"],
        lw=1.3,
        ls=(0, (5, 3)),
        zorder=5,
    )
    axes.set(xlim=(-2.0, 4.8), ylim=(-25, 360), xlabel="body mass index (standardised)")
    axes.set_title(title, loc="left")
    place = axes.get_subplotspec()
    axes.set_ylabel("disease progression" if place and place.is_first_col() else "")


def heights(line_params: np.ndarray):
    """Return the heights of a line (intercept, slope) at its two ends."""
    return line_params[0] + line_params[1] * np.array(ENDS)


def place(passes: np.ndarray, now: float):
    """Return the index of the last step within `now` passes."""
    return int(np.searchsorted(passes, now + 1e-9, side="right")) - 1


def shown_passes(arrays: dict[str, np.ndarray], regimes: dict[str, Any]) -> float:
    """Return the last pass of the animation: MOVING_PASSES, or fewer in a short run."""
    ends = (float(arrays[f"{name}/passes"][-1]) for name in regimes)
    return min(MOVING_PASSES, max(ends))


def pale(colour: str, share: float):
    """Mix a colour with white."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return tuple(1 - share * (1 - channels))


def draw_still_lines(axes: Axes, arrays: dict[str, np.ndarray], name: str):
    """Draw the lines after SHOWN_PASSES, from pale to full colour.

    A line is labelled with its number of passes if there is room.
    """
    colour, taken, labelled = research.figures.colour(name), [], []
    passes, lines = arrays[f"{name}/passes"], arrays[f"{name}/lines"]
    for shade, shown in zip(
        np.linspace(0.3, 1.0, len(SHOWN_PASSES)), SHOWN_PASSES, strict=True
    ):
        index = place(passes, shown)
        if index in taken:
            continue  # No step has been taken since the last one shown.
        taken.append(index)
        height = heights(lines[index])
        axes.plot(ENDS, height, color=pale(colour, shade), lw=1.3 + shade, zorder=4)
        if all(abs(height[1] - other) > 12 for other in labelled):
            text = (
                f"{shown:g} pass{'es' if shown != 1 else ''}"
                if shown in (0, 1)
                else f"{shown:g}"
            )
            axes.text(
                ENDS[1] + 0.08,
                height[1],
                text,
                color=pale(colour, max(shade, 0.65)),
                va="center",
            )
            labelled.append(height[1])


def draw_motion(arrays: dict[str, np.ndarray], regimes: dict[str, Any]):
    """Animate the lines, each with a short trail.

    Time grows as the cube of the number of the frame, so that the first and the last
    steps are visible.
    """
    figure, axes = research.figures.new_figure(
        1, len(regimes), width=11, height=4.0, sharey=True
    )
    moving, end = {}, shown_passes(arrays, regimes)
    for panel, name in zip(axes[0], regimes, strict=True):
        draw_data(panel, arrays, name)
        colour = research.figures.colour(name)
        shades = ((0.2, 1.6), (0.35, 1.6), (0.5, 1.6), (1.0, 2.8))
        trail = [
            panel.plot(ENDS, (0, 0), color=pale(colour, shade), lw=width, zorder=4)[0]
            for shade, width in shades
        ]
        moving[name] = (
            trail,
            panel.text(
                0.03, 0.97, "", transform=panel.transAxes, va="top", fontsize=10
            ),
        )

    def show(k: int):
        for name, (trail, text) in moving.items():
            passes, lines = arrays[f"{name}/passes"], arrays[f"{name}/lines"]
            times = [
                end * (max(k - back, 0) / (FRAMES - 1)) ** 3 for back in (3, 2, 1, 0)
            ]
            for artist, time in zip(trail, times, strict=True):
                artist.set_ydata(heights(lines[place(passes, time)]))
            index = place(passes, times[-1])
            equation = f"{lines[index, 0]:.0f} + {lines[index, 1]:.0f} x".replace(
                "+ -", "- "
            )
            text.set_text(f"{times[-1]:.1f} passes, {index:,} steps\ny = {equation}")

    return motion.record(figure, show, FRAMES)


def draw_walk(axes: Axes, arrays: dict[str, np.ndarray], regimes: dict[str, Any]):
    """Draw the path of intercept and slope of each regime, and circles of equal f."""
    exact = arrays["exact"]
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.grid(False)
    for radius in np.linalg.norm(exact) * np.array([0.05, 0.2, 0.4, 0.6, 0.8, 1.0]):
        axes.plot(
            *(exact[:, None] + radius * np.array([np.cos(angle), np.sin(angle)])),
            color="#D5D8DC",
            lw=0.9,
        )
    for name in reversed(regimes):
        lines = arrays[f"{name}/lines"][
            : place(arrays[f"{name}/passes"], MOVING_PASSES) + 1
        ]
        style = {
            "full batch": {"marker": "o", "markersize": 3.2, "lw": 0.8},
            "stochastic": {"lw": 0.6},
        }
        axes.plot(
            *lines.T,
            color=research.figures.colour(name),
            label=name,
            **style.get(name, {"lw": 1.3}),
        )
    axes.plot(
        *exact,
        "+",
        color=research.figures.COLOURS["exact"],
        markersize=14,
        markeredgewidth=1.6,
        zorder=5,
    )
    axes.set(xlabel="intercept", ylabel="slope", xlim=(-21, 190), ylim=(-50, 109))
    axes.set_aspect("equal")
    axes.set_title(f"The first {shown_passes(arrays, regimes):g} passes", loc="left")
    axes.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")


def draw_errors(axes: Axes, arrays: dict[str, np.ndarray], regimes: dict[str, Any]):
    """Draw the relative error of each regime after each pass."""
    for name in reversed(regimes):
        stride = slice(None, None, regimes[name]["steps_per_epoch"])
        errors = relative_errors(arrays[f"{name}/lines"][stride], arrays["exact"])
        axes.plot(
            arrays[f"{name}/passes"][stride],
            errors,
            color=research.figures.colour(name),
            lw=1.4,
            label=name,
        )
    axes.axhline(CLOSE, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set(
        xlabel="passes over the data",
        ylabel="relative error",
        xlim=(0, 2 * MOVING_PASSES),
        ylim=(1e-5, 2),
    )
    axes.set_title("Distance from the exact line", loc="left")
