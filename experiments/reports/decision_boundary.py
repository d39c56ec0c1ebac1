"""Report of decision_boundary: answer, tables and figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

import research
from research.figures import motion

FEATURES = (
    "size of the largest nuclei (standardised)",
    "dents of the largest nuclei (standardised)",
)
CLASSES = {1: ("benign", "first class"), 0: ("malignant", "second class")}
SHOWN_EPOCHS = (0, 1, 5, 25)  # The still shows the boundaries of these and the last.
FRAMES, MOVING_EPOCHS = 36, 150  # Number of frames, and last epoch of the animation.
# Groups of equally many examples, for which predicted probabilities are compared with
# shares of benign examples.
BINS = 8
X_RANGE, Y_RANGE, SCORE_RANGE = (-2.1, 4.4), (-2.1, 3.1), (-14.0, 9.0)


def probability(params: np.ndarray, x: np.ndarray):
    """Return P(benign) at each point x, shape (..., 2)."""
    return 1 / (1 + np.exp(-(x @ params[:2] + params[2])))


def boundary(params: np.ndarray, reach: float = 10.0):
    """Return two points on the boundary.

    They lie at a distance `reach` on both sides of the point of the boundary that is
    nearest to the centre.
    """
    weights = params[:2]
    square = weights @ weights
    across = np.array([-weights[1], weights[0]]) / np.sqrt(square)
    return -params[2] * weights / square + np.outer([-reach, reach], across)


def equation(found: dict[str, Any]):
    """Return the boundary as an equation."""
    (first, second), intercept = found["weights"], found["intercept"]
    return (
        f"{first:.2f} x1 {'+-'[second < 0]} {abs(second):.2f} x2 {'+-'[intercept < 0]} "
        f"{abs(intercept):.2f} = 0"
    )


def sharpness(numbers: dict[str, Any]):
    """Say how many epochs w needs to grow to its final length."""
    if numbers["epochs_to_length"] is None:
        return f"is not within 1 % of it after {numbers['epochs']} epochs"
    return f"is within 1 % of it only from epoch {numbers['epochs_to_length']} on"


def answer(findings: research.runs.Findings) -> str:
    """Say where the boundary is, and how fast its position and sharpness converge."""
    numbers = findings.numbers
    return (
        f"On the line {equation(numbers)}, where P(benign) = 1/2. "
        f"{100 * numbers['accuracy']:.1f} % of {numbers['n_test']} test examples lie "
        f"on the correct side. {two_speeds(numbers)}. After {numbers['epochs']} epochs "
        f"f - f* = {numbers['gap']:.1e} and the angle is {numbers['angle']:.1e}°."
    )


def settles_first(numbers: dict[str, Any]) -> bool:
    """Return whether one epoch gives the final accuracy, but less than half of |w|."""
    return (
        numbers["accuracy_after_one"] >= numbers["accuracy"]
        and numbers["length_after_one"] < 0.5
    )


def two_speeds(numbers: dict[str, Any]):
    """Say what is nearly final after one epoch, and what is not."""
    falls = numbers["angle_after_one"] < numbers["angle_at_start"]
    turns = "reduces" if falls else "changes"
    return (
        f"{'The position converges first: one' if settles_first(numbers) else 'One'} "
        f"epoch {turns} the angle to the exact line from "
        f"{numbers['angle_at_start']:.0f}° to "
        f"{numbers['angle_after_one']:.0f}° and changes the test accuracy from "
        f"{100 * numbers['accuracy_at_start']:.1f} % to "
        f"{100 * numbers['accuracy_after_one']:.1f} %. The length |w|, which says "
        "how sharply the probability changes across the line, is then "
        f"{100 * numbers['length_after_one']:.0f} % of its exact value and "
        f"{sharpness(numbers)}"
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the only table."""
    return (table(findings.numbers),)


def table(numbers: dict[str, Any]):
    """Return the table of the boundary of descent and the exact boundary."""
    columns = ("", "w1", "w2", "b", "angle to the exact, °", "f - f*", "test accuracy")
    found = (
        *numbers["weights"],
        numbers["intercept"],
        numbers["angle"],
        numbers["gap"],
        numbers["accuracy"],
    )
    exact = (
        *numbers["exact"]["weights"],
        numbers["exact"]["intercept"],
        0.0,
        0.0,
        numbers["exact_accuracy"],
    )
    return research.runs.Table(
        "The boundary w1 x1 + w2 x2 + b = 0",
        columns,
        (("gradient descent", *found), (numbers["solver"], *exact)),
        f"{numbers['regime'].capitalize()}, rate {numbers['learning_rate']:g}, "
        f"{numbers['epochs']} epochs; {numbers['n']} training and {numbers['n_test']} "
        "test examples.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the boundary among the data (also animated), and its errors."""
    arrays, numbers = result.arrays, result.numbers
    still, axes = research.figures.new_figure(
        2, 1, width=4.6, height=9.2, height_ratios=(1.5, 1)
    )
    draw_field(axes[0, 0], arrays, -1)
    draw_points(axes[0, 0], arrays)
    draw_boundaries(axes[0, 0], arrays)
    draw_sigmoid(axes[1, 0])
    draw_scores(axes[1, 0], arrays, -1)
    way, axes = research.figures.new_figure(1, 3, width=11, height=3.4)
    draw_way(axes[0], arrays)
    pictures = {
        "boundary": (
            "The boundary and the probability",
            boundary_caption(numbers),
            still,
            draw_motion(arrays),
        ),
        "way": (
            "First the position, then the confidence"
            if settles_first(numbers)
            else "Position and confidence",
            way_caption(numbers),
            way,
        ),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def boundary_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure."""
    return (
        f"Above: {numbers['n']} tumours by two measurements, benign (blue) and "
        "malignant (orange). The field is P(benign) in steps of a tenth. The lines "
        "show where P(benign) is one half after the numbers of epochs in the legend. "
        f"The last line, {equation(numbers)}, has an angle of {numbers['angle']:.1e}° "
        "to the exact one. Below: the same tumours by their score z = wᵀx + b, and "
        "the curve that turns a score into a probability (the points of each class "
        "are spread in height for visibility). Circles are the share of benign "
        f"tumours in {BINS} groups of equal size."
        + (
            " In the animation the line turns at once; then w grows, the field "
            "sharpens and the scores spread."
            if settles_first(numbers)
            else ""
        )
    )


def way_caption(numbers: dict[str, Any]):
    """Return the caption of the second figure."""
    return (
        "Three quantities after each epoch (dots: the start and the first epoch). "
        f"{two_speeds(numbers)}. f - f* falls from {numbers['initial_gap']:.2g} to "
        f"{numbers['gap']:.1e}, and the angle to {numbers['angle']:.1e}°."
    )


def draw_field(axes: Axes, arrays: dict[str, np.ndarray], epoch: int):
    """Draw P(benign) as ten bands of colour, and return the bands for the animation."""
    # The classes' colours mixed with white; transparent bands would have visible seams.
    shades = LinearSegmentedColormap.from_list(
        "probability", ["#F5D89A", "#FFFFFF", "#9BC5E0"]
    )
    x, y = np.meshgrid(np.linspace(*X_RANGE, 160), np.linspace(*Y_RANGE, 160))
    field = probability(arrays["params"][epoch], np.stack([x, y], axis=-1))
    return axes.contourf(x, y, field, np.linspace(0, 1, 11), cmap=shades, zorder=0)


def draw_points(axes: Axes, arrays: dict[str, np.ndarray]):
    """Draw the examples by class."""
    for label, (name, colour) in CLASSES.items():
        points = arrays["x"][arrays["y"] == label]
        style = {
            "markersize": 4.2,
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
            "zorder": 3,
        }
        axes.plot(
            *points.T, "o", color=research.figures.COLOURS[colour], label=name, **style
        )
    axes.grid(False)
    axes.set(xlim=X_RANGE, ylim=Y_RANGE, xlabel=FEATURES[0], ylabel=FEATURES[1])


def draw_boundaries(axes: Axes, arrays: dict[str, np.ndarray]):
    """Draw the boundary after SHOWN_EPOCHS and at the end, from grey to black."""
    last = len(arrays["params"]) - 1
    shown = [epoch for epoch in SHOWN_EPOCHS if epoch < last] + [last]
    for shade, epoch in zip(np.linspace(0.68, 0.0, len(shown)), shown, strict=True):
        style = (
            {"lw": 2.6, "ls": "-"} if epoch == last else {"lw": 1.5, "ls": (0, (5, 2))}
        )
        label = f"after {epoch} epochs" if epoch != 1 else "after 1 epoch"
        axes.plot(
            *boundary(arrays["params"][epoch]).T,
            color=str(shade),
            label=label,
            zorder=4,
            **style,
        )
    axes.set_title("Where P(benign) is one half", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.16), ncols=2)


def draw_sigmoid(axes: Axes):
    """Draw the curve from score to probability."""
    score = np.linspace(*SCORE_RANGE, 400)
    axes.plot(
        score,
        1 / (1 + np.exp(-score)),
        color=research.figures.COLOURS["exact"],
        lw=1.6,
        zorder=4,
    )
    axes.axvline(
        0, color=research.figures.COLOURS["exact"], lw=1, ls=(0, (4, 3)), zorder=1
    )
    axes.set(
        xlim=SCORE_RANGE,
        ylim=(-0.17, 1.17),
        xlabel="score z = wᵀx + b",
        ylabel="P(benign)",
    )
    axes.set_title("From score to probability", loc="left")


def draw_scores(axes: Axes, arrays: dict[str, np.ndarray], epoch: int):
    """Draw the examples by score, and the benign share in groups of equal size.

    The matplotlib artists are returned, so that they can be animated.
    """
    artists = {}
    for label, (_, colour) in CLASSES.items():
        style = {
            "color": research.figures.COLOURS[colour],
            "markersize": 3.4,
            "alpha": 0.6,
            "markeredgewidth": 0,
        }
        artists[label] = axes.plot(
            *scored(arrays, epoch, label), "o", zorder=2, **style
        )[0]
    style = {
        "markerfacecolor": "white",
        "markeredgecolor": research.figures.COLOURS["exact"],
        "markersize": 7,
    }
    artists["bins"] = axes.plot(*grouped(arrays, epoch), "o", zorder=5, **style)[0]
    return artists


def scored(arrays: dict[str, np.ndarray], epoch: int, label: int):
    """Return (scores, heights) of one class.

    Multiples of the golden ratio spread the heights evenly around the label.
    """
    params, x = arrays["params"][epoch], arrays["x"][arrays["y"] == label]
    spread = np.arange(len(x)) * 0.6180339887498949 % 1 - 0.5
    return x @ params[:2] + params[2], label + 0.18 * spread + 0.05 * (2 * label - 1)


def grouped(arrays: dict[str, np.ndarray], epoch: int):
    """Return (mean scores, shares of benign examples) of groups of equal size.

    The examples are sorted by score and then cut into groups.
    """
    params = arrays["params"][epoch]
    score = arrays["x"] @ params[:2] + params[2]
    groups = np.array_split(np.argsort(score, kind="stable"), BINS)
    return [score[group].mean() for group in groups], [
        arrays["y"][group].mean() for group in groups
    ]


def draw_motion(arrays: dict[str, np.ndarray]):
    """Animate the field, the boundary and the scores by epoch.

    The epoch grows as the square of the number of the frame.
    """
    figure, axes = research.figures.new_figure(
        1, 2, width=10, height=4.2, width_ratios=(1.15, 1)
    )
    draw_points(axes[0, 0], arrays)
    exact = axes[0, 0].plot(
        *boundary(arrays["exact"]).T,
        color="0.45",
        lw=1.3,
        ls=(0, (5, 3)),
        label="exact",
        zorder=4,
    )
    line = axes[0, 0].plot([], [], color="black", lw=2.6, zorder=5)[0]
    axes[0, 0].legend(
        handles=exact,
        loc="lower right",
        frameon=True,
        framealpha=0.92,
        edgecolor="none",
    )
    draw_sigmoid(axes[0, 1])
    scores = draw_scores(axes[0, 1], arrays, 0)
    field = [draw_field(axes[0, 0], arrays, 0)]
    last = min(MOVING_EPOCHS, len(arrays["params"]) - 1)

    def show(k: int):
        epoch = round(last * (k / (FRAMES - 1)) ** 2)
        field.pop().remove()
        field.append(draw_field(axes[0, 0], arrays, epoch))
        line.set_data(*boundary(arrays["params"][epoch]).T)
        for label in CLASSES:
            scores[label].set_data(*scored(arrays, epoch, label))
        scores["bins"].set_data(*grouped(arrays, epoch))
        turned, length = arrays["angles"][epoch], 100 * arrays["lengths"][epoch]
        axes[0, 0].set_title(
            f"epoch {epoch}: {turned:.1f}° from exact, |w| at {length:.0f} %",
            loc="left",
        )

    return motion.record(figure, show, FRAMES, colours=64)


def draw_way(axes: np.ndarray, arrays: dict[str, np.ndarray]):
    """Draw f - f*, the angle and the length of w against epochs."""
    epochs = np.arange(len(arrays["gaps"]))
    colour = research.figures.COLOURS["full batch"]
    curves = (
        ("f - f*", np.maximum(arrays["gaps"], 1e-16), "log"),
        ("angle to the exact boundary, degrees", arrays["angles"], "log"),
        ("|w| / its exact length", arrays["lengths"], "linear"),
    )
    for panel, (title, values, scale) in zip(axes, curves, strict=True):
        panel.plot(epochs, values, color=colour, lw=1.8)
        panel.plot(
            epochs[:2], values[:2], "o", color=colour, markersize=4.5, clip_on=False
        )
        panel.set_yscale(scale)
        panel.set_xscale("symlog", linthresh=1)
        panel.set(xlabel="epochs", xlim=(0, epochs[-1]))
        panel.set_title(title, loc="left")
    axes[2].axhline(1, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (4, 3)))
    axes[2].set_ylim(0, 1.1)
