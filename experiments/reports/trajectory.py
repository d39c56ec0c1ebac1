"""Report of trajectory: answer, tables and figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import research
from experiments.trajectory import CLOSE, LANDSCAPES, MOMENTUM, SMALLEST, Landscape
from research import figures
from research.figures import motion

FRAMES = 36


def answer(findings: research.runs.Findings) -> str:
    """Say which rules went lowest, and how far rules turned away from the slope."""
    numbers = findings.numbers
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
        f"On {numbers['landscape']} each rule takes {numbers['steps']} steps at its "
        f"best rate of a common grid. Then f - f* is: {results}. The mean cosine "
        f"between a step and the negative gradient is: {turns}."
    )


def gap(facts: dict[str, Any]):
    """Format the final f - f*."""
    return "not finite at any rate" if facts["gap"] is None else f"{facts['gap']:.1e}"


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of each rule at its best rate, and of the whole grid."""
    return table(findings.numbers), grid_table(findings.arrays, findings.numbers)


def table(numbers: dict[str, Any]):
    """Return the table of each rule at its best rate."""
    keys = ("rate", "gap", "distance", "steps", "cosine", "longest_update", "diverged")
    edges = [name for name, facts in numbers["rules"].items() if facts["at_edge"]]
    note = (
        f"Steps: number of steps until f - f* is {CLOSE:g} of its initial value. Rates "
        "diverged: number of rates of the grid that diverge; see the next table."
    )
    if edges:
        note += (
            " At the edge of the grid, so a better rate may lie outside: "
            f"{', '.join(edges)}."
        )
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


def grid_table(arrays: dict[str, np.ndarray], numbers: dict[str, Any]):
    """Return the table of the scores of all rates."""
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
        "The best rate of a rule is the one with the smallest entry. If several are "
        f"below {SMALLEST:g} of the initial f - f*, it is the one that reaches this "
        "first. Diverged: f was not finite at some step.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the paths (also animated), the distances, and the quantities of steps."""
    arrays, numbers = result.arrays, result.numbers
    names, scene = list(numbers["rules"]), LANDSCAPES[numbers["landscape"]]
    still, axes = research.figures.new_figure(
        len(names), 1, width=4.6, height=2.1 * len(names) + 0.4, sharex=True
    )
    for number, (panel, name) in enumerate(zip(axes[:, 0], names, strict=True)):
        draw_landscape(panel, arrays["x"], arrays["y"], arrays["heights"], scene.minima)
        draw_path(panel, arrays[f"{name}/points"], number)
        panel.set_title(labels(numbers)[name], loc="left", fontsize=10)
        panel.label_outer()
    still.suptitle(f"{numbers['landscape']}: {scene.formula}", fontsize=11)
    pictures = {
        "paths": (
            "Paths of the rules",
            paths_caption(numbers),
            still,
            draw_motion(arrays, numbers, scene),
        ),
        "curves": (
            "Distance from the minimum",
            curves_caption(numbers),
            draw_curves(arrays, names),
        ),
        "steps": (
            "Size and direction of each step",
            steps_caption(numbers),
            draw_steps(arrays, names),
        ),
        "gradient_field": (
            "The gradient on its contour lines",
            field_caption(numbers),
            draw_field(arrays, scene),
        ),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def labels(numbers: dict[str, Any]):
    """Return a label for each rule: its name with its rate."""
    return {
        name: f"{name}, rate {facts['rate']:.2g}"
        for name, facts in numbers["rules"].items()
    }


def draw_motion(
    arrays: dict[str, np.ndarray], numbers: dict[str, Any], scene: Landscape
):
    """Animate the growing paths.

    The animation accelerates, so that the first and the last steps are visible.
    """
    figure, axes = research.figures.new_figure(width=6.6, height=4.8)
    draw_landscape(
        axes[0, 0], arrays["x"], arrays["y"], arrays["heights"], scene.minima
    )
    points = {name: arrays[f"{name}/points"] for name in numbers["rules"]}
    show = draw_growing_paths(axes[0, 0], points, labels(numbers))
    return motion.record(
        figure, lambda k: show((k / (FRAMES - 1)) ** 2), FRAMES, colours=64
    )


def field_caption(numbers: dict[str, Any]):
    """Return the caption of the last figure."""
    return (
        f"Contour lines of {numbers['landscape']}, and the direction of the negative "
        f"gradient at each point of a lattice of {ARROWS} x {ARROWS} points, from "
        "differences of the saved heights. "
        "The gradient is at right angles to the contour lines, and points uphill, so "
        "gradient descent follows the arrows. A darker arrow is a larger gradient. In "
        "a narrow valley the arrows point across it, not along it to the minimum "
        "(star)."
    )


def draw_field(arrays: dict[str, np.ndarray], scene: Landscape) -> Figure:
    """Draw the directions of the negative gradient over the contour lines.

    Both axes have the same scale, so that right angles look right.
    """
    x, y, heights = arrays["x"], arrays["y"], arrays["heights"]
    figure, axes = figures.new_figure(width=4.6, height=4.4)
    draw_landscape(axes[0, 0], x, y, heights, scene.minima)
    along_y, along_x = np.gradient(heights, y, x)
    size = np.maximum(np.hypot(along_x, along_y), 1e-12)
    rows, columns = (
        np.linspace(0, len(axis) - 1, ARROWS + 2).round().astype(int)[1:-1]
        for axis in (y, x)
    )
    here = np.ix_(rows, columns)
    axes[0, 0].quiver(
        x[columns],
        y[rows],
        -(along_x / size)[here],
        -(along_y / size)[here],
        np.log10(size[here]),
        cmap="copper_r",
        angles="xy",
        scale=1.25 * ARROWS,
        width=0.006,
        zorder=4,
    )
    axes[0, 0].set_aspect("equal")
    axes[0, 0].set_title(scene.formula, loc="left", fontsize=10)
    return figure


def paths_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure."""
    arrived = ", ".join(
        f"{name} "
        f"{'does not' if facts['steps'] is None else 'after ' + str(facts['steps'])}"
        for name, facts in numbers["rules"].items()
    )
    return (
        f"Paths of {numbers['steps']} steps from one start (circle) over contours of "
        "f, each rule in its own panel, at its best rate of the grid; a star is a "
        "minimum. f - f* falls "
        f"to {CLOSE:g} of its initial value: {arrived}. In the animation the steps "
        "become faster and faster."
    )


def curves_caption(numbers: dict[str, Any]):
    """Return the caption of the second figure."""
    ends = ", ".join(f"{name} {gap(facts)}" for name, facts in numbers["rules"].items())
    return (
        "After each step: f - f* on the left, distance to the nearest minimum on the "
        f"right. At the end f - f* is {ends}. "
        f"{contraction(numbers)}"
    )


def contraction(numbers: dict[str, Any]):
    """Return a sentence on the heavy ball's factor, measured and in theory."""
    ratio, theory = (
        numbers[f"heavy_ball_{which}"] for which in ("over_theory", "in_theory")
    )
    if ratio is None:
        return "The factor of a step of the heavy ball on the quadratic is not known."
    name = "√β = " if theory == math.sqrt(MOMENTUM) else ""
    return (
        "On the quadratic, a step of the heavy ball multiplies the distance by "
        f"{ratio * theory:.3f} on average; theory predicts {name}{theory:.3f}."
    )


def steps_caption(numbers: dict[str, Any]):
    """Return the caption of the third figure."""
    turns = ", ".join(
        f"{name} {facts['cosine']:.2f}"
        for name, facts in numbers["rules"].items()
        if facts["cosine"] is not None
    )
    return (
        "For each step: learning rate, norms of gradient and update, length of the "
        "update relative to the parameters, and cosine between the update and "
        f"-gradient (1: straight down; below 0: uphill). Mean cosine: {turns}."
    )


# Okabe & Ito's colours, dark ones first; from the eighth path on they repeat, dashed.
PATH_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#222222",
    "#56B4E9",
)
ARROWS = 13  # Arrows of the gradient field, along each axis.
GROUND = LinearSegmentedColormap.from_list("ground", ["#D3DCE6", "#E9EEF3", "#FBFCFD"])
SHOWN_DOWN_TO = 1e-18  # Curves are shown down to this share of the largest value.
STEP_PANELS = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "update_norm": "update norm",
    "update_over_params": "update / parameters",
    "cosine": "cosine (update, -gradient)",
}


def look(number: int) -> dict[str, Any]:
    """Return the colour and the line style of the path with this number."""
    dashes = ("-", (0, (4, 2)), (0, (1, 1.5)))[number // len(PATH_COLOURS) % 3]
    return {"color": PATH_COLOURS[number % len(PATH_COLOURS)], "linestyle": dashes}


def draw_landscape(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    heights: np.ndarray,
    minima: Sequence[Sequence[float]],
) -> None:
    """Draw the landscape with contour lines, and a star at each minimum.

    Lower areas are darker. The heights of neighbouring contour lines have a constant
    ratio.

    Args:
      axes: Axes to draw on.
      x, y: Coordinates of the lattice, shapes (m,) and (n,).
      heights: f - f* on the lattice, at least 0, shape (n, m).
      minima: Coordinates of the minima.
    """
    log = np.log10(np.maximum(heights, 1e-2 * np.median(heights)))
    levels = np.linspace(log.min(), log.max(), 11)
    axes.grid(False)
    axes.contourf(x, y, log, levels, cmap=GROUND)
    axes.contour(
        x, y, log, levels[::2], colors="#B4BEC9", linewidths=0.6, linestyles="-"
    )
    for minimum in minima:
        axes.plot(
            *minimum,
            "*",
            color="white",
            markeredgecolor=figures.COLOURS["exact"],
            markersize=13,
            zorder=8,
        )
    axes.set(xlabel="x", ylabel="y", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def draw_path(axes: Axes, path: np.ndarray, number: int) -> None:
    """Draw a path as a line with a dot at each step.

    A circle marks the start of the path, and a larger dot marks the end.
    """
    style = look(number)
    axes.plot(*path.T, lw=1.3, zorder=3, **style)
    axes.plot(*path.T, ".", color=style["color"], markersize=2.8, zorder=4)
    end = {"color": style["color"], "markeredgecolor": "white", "markersize": 7}
    axes.plot(*path[-1], "o", zorder=7, **end)
    _draw_start(axes, path[0])


def _draw_start(axes: Axes, start: np.ndarray) -> None:
    axes.plot(
        *start,
        "o",
        color="white",
        markeredgecolor=figures.COLOURS["exact"],
        markersize=8,
        zorder=5,
    )


def draw_growing_paths(
    axes: Axes, points: Mapping[str, np.ndarray], labels: Mapping[str, str]
) -> Callable[[float], None]:
    """Prepare an animation of the paths.

    Returns:
      Function (share) -> None that draws the paths up to this share of all steps. The
      share is in [0, 1].
    """
    lines, heads = {}, {}
    for number, (name, path) in enumerate(points.items()):
        style = look(number)
        lines[name] = axes.plot(
            *path[:1].T, lw=1.8, label=labels[name], zorder=3, **style
        )[0]
        heads[name] = axes.plot(
            *path[0],
            "o",
            color=style["color"],
            markeredgecolor="white",
            markersize=8,
            zorder=7,
        )[0]
    _draw_start(axes, next(iter(points.values()))[0])
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    title = axes.set_title("0 steps", loc="left")

    def show(share: float) -> None:
        for name, path in points.items():
            last = round(share * (len(path) - 1))
            lines[name].set_data(*path[: last + 1].T)
            heads[name].set_data(*path[last : last + 1].T)
            title.set_text(f"{last:,} steps")

    return show


def _log_scale(panel: Axes) -> None:
    """Set a logarithmic axis that ends where rounding errors begin."""
    panel.set_yscale("log")
    drawn = np.concatenate(
        [np.asarray(line.get_ydata(), float) for line in panel.lines]
    )
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn):
        panel.set_ylim(
            max(drawn.min(), SHOWN_DOWN_TO * drawn.max()) / 2, 2 * drawn.max()
        )


def draw_curves(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Draw f - f* and the distance to the nearest minimum after each step."""
    figure, axes = figures.new_figure(1, 2, width=10.5, height=4.2)
    for panel, (key, title) in zip(
        axes[0],
        (("gaps", "f - f*"), ("distances", "distance to the nearest minimum")),
        strict=True,
    ):
        for number, name in enumerate(names):
            values = arrays[f"{name}/{key}"]
            panel.plot(
                np.where(values > 0, values, np.nan), label=name, lw=1.6, **look(number)
            )
        _log_scale(panel)
        panel.set_xlabel("steps")
        panel.set_title(title, loc="left")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(names), 5),
    )
    return figure


def draw_steps(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Draw five panels of each step's quantities, and a legend in the sixth place."""
    figure, axes = figures.new_figure(2, 3, width=11, height=6.0, sharex=True)
    for panel, (key, title) in zip(axes.flat, STEP_PANELS.items(), strict=False):
        for number, name in enumerate(names):
            values = np.asarray(arrays[f"{name}/{key}"], float)
            shown = values if key == "cosine" else np.where(values > 0, values, np.nan)
            panel.plot(
                np.arange(1, len(values) + 1), shown, label=name, lw=1.2, **look(number)
            )
        if key == "cosine":
            panel.set_ylim(-1.08, 1.08)
        else:
            _log_scale(panel)
        panel.set_title(title, loc="left")
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("step")
    axes[1, 2].axis("off")
    axes[1, 2].legend(
        *axes[0, 0].get_legend_handles_labels(), loc="center left", fontsize=11
    )
    return figure
