"""Report of motion: answer, tables and figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.motion import NAMES, differentiated, motion

BINS = 200  # Number of short times whose lowest and highest values are drawn.
UNITS = {0: "m", 1: "m/s", 2: "m/s²"}


def answer(findings: research.runs.Findings) -> str:
    """State the errors of velocity and acceleration at the shortest and best steps."""
    numbers = findings.numbers
    sentences = []
    for row in (r for r in numbers["rows"] if r["accuracy"] == 2):
        unit = UNITS[row["order"]]
        sentences.append(
            f"the {NAMES[row['order']]} has an error of {row['error_at_spacing']:.2g} "
            f"{unit} between neighbouring samples and of {row['error_at_best']:.2g} "
            f"{unit} at the best step, {row['best_step']:.2g} s"
        )
    return (
        "By difference quotients with a step h, which divide the noise by h and h². "
        f"With {1e3 * numbers['noise']:g} mm of noise every "
        f"{1e3 * numbers['spacing']:g} ms {', and '.join(sentences)}. Between "
        "neighbouring samples, the errors agree with σ √(Σ w²) / h^n to "
        f"{100 * largest_deviation(numbers):.1f} % (σ: noise, w: weights of the "
        "quotient, n: order of the derivative). The best steps are "
        f"{numbers['step_over_prediction_least']:.2f} to "
        f"{numbers['step_over_prediction_greatest']:.2f} times the predicted ones."
    )


def largest_deviation(numbers: dict[str, Any]):
    """Return the largest relative deviation of the noise from its prediction."""
    return max(
        abs(1 - numbers[f"noise_over_prediction_{end}"])
        for end in ("least", "greatest")
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of the errors of each formula."""
    table = research.runs.Table(
        "Errors of velocity (m/s) and acceleration (m/s²)",
        (
            "derivative",
            "accuracy",
            "at the spacing",
            "over noise predicted",
            "best step (s)",
            "predicted (s)",
            "at the best step",
            "predicted",
        ),
        tuple(
            (
                NAMES[r["order"]],
                r["accuracy"],
                r["error_at_spacing"],
                r["noise_ratio"],
                r["best_step"],
                r["predicted_step"],
                r["error_at_best"],
                r["predicted_error"],
            )
            for r in findings.numbers["rows"]
        ),
        "Root mean squares over the record, without its ends. Predicted: root of the "
        "sum of squares of the noise σ √(Σ w²) / h^n and the leading truncation term "
        "(w: weights of the quotient, n: order of the derivative).",
    )
    return (table,)


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the motion with its derivatives, and their errors against the step."""
    numbers = result.numbers
    motion_figure, axes = research.figures.new_figure(
        4, 1, width=4.6, height=9.6, sharex=True
    )
    draw_motion(axes[:, 0], result)
    errors, axes = research.figures.new_figure(1, 2, width=11, height=4.4)
    for panel, order in zip(axes[0], NAMES, strict=True):
        draw_errors(panel, result, order)
    rows = [r for r in numbers["rows"] if r["accuracy"] == 2]
    falls = (
        f"The error of the {NAMES[r['order']]} falls from {r['error_at_spacing']:.2g} "
        f"to {r['error_at_best']:.2g} {UNITS[r['order']]}."
        for r in rows
    )
    caption = (
        "Position, velocity and acceleration of a damped swing, from positions with "
        f"{1e3 * numbers['noise']:g} mm of noise. Grey: differences between "
        "neighbouring samples, as a range for the velocity. Those for the acceleration "
        "would fill their panel; the last panel shows a part of them as dots. Blue: at "
        "the best "
        "step, without the ends. Dashed: the truth. " + " ".join(falls)
    )
    curve = (
        "Root mean square error against the step (dots), and the sum of noise, which "
        "falls as 1 / h^n, and truncation, which grows as h^p (lines). Dotted: the "
        "predicted best steps, "
        + ", ".join(
            f"{r['predicted_step']:.2g} s ({NAMES[r['order']]}, accuracy "
            f"{r['accuracy']})"
            for r in numbers["rows"]
        )
        + "."
    )
    return {
        "motion": research.figures.Picture(
            "Position, velocity, acceleration", caption, motion_figure
        ),
        "noise": research.figures.Picture(
            "What differentiation does to noise", curve, errors
        ),
    }


def draw_motion(panels: np.ndarray, result: research.runs.Result):
    """Draw the noisy positions and their derivatives, one panel below the other."""
    t, y = result.arrays["t"], result.arrays["positions"]
    spacing = result.numbers["spacing"]
    panels[0].plot(t, y, color="#0072B2", lw=1.6, label="noisy positions")
    draw_range(panels[1], t, y, 1, spacing)
    for order in (1, 2):
        row = next(
            r
            for r in result.numbers["rows"]
            if (r["order"], r["accuracy"]) == (order, 2)
        )
        stride = round(row["best_step"] / spacing)
        places, values = differentiated(t, y, stride, order, 2)
        label = f"step {stride * spacing:g} s"
        panels[order].plot(t[places], values, color="#0072B2", lw=1.8, label=label)
        reach = 1.6 * np.max(np.abs(motion(t, order)))
        panels[order].set_ylim(-reach, reach)
    draw_differences(panels[3], t, y, 2, spacing)
    titles = [f"{NAMES.get(order, 'position')} ({UNITS[order]})" for order in range(3)]
    titles.append(f"{titles[2]}, neighbouring samples")
    for panel, order, title in zip(panels, (0, 1, 2, 2), titles, strict=True):
        style = {"color": research.figures.COLOURS["exact"], "ls": (0, (4, 3))}
        panel.plot(t, motion(t, order), lw=1.1, label="truth", **style)
        panel.set_title(title, loc="left")
        top = panel.get_ylim()[1]
        panel.set_ylim(top=top + 0.3 * (top - panel.get_ylim()[0]))  # For the legend.
        panel.legend(loc="upper right", ncols=3, fontsize=9, handlelength=1.2)
    panels[-1].set_xlabel("time (s)")


def draw_range(panel: Axes, t: np.ndarray, y: np.ndarray, order: int, spacing: float):
    """Draw the lowest and the highest difference of neighbours in each short time."""
    places, values = differentiated(t, y, 1, order, 2)
    parts = np.array_split(np.arange(len(values)), min(BINS, len(values)))
    middles = [np.mean(t[places][part]) for part in parts]
    low, high = ([end(values[part]) for part in parts] for end in (np.min, np.max))
    label = f"step {spacing:g} s"
    panel.fill_between(middles, low, high, color="#C3C7CC", lw=0, label=label)


def draw_differences(
    panel: Axes, t: np.ndarray, y: np.ndarray, order: int, spacing: float
):
    """Draw evenly spaced differences of neighbours as dots, at most BINS of them."""
    places, values = differentiated(t, y, 1, order, 2)
    few = np.linspace(0, len(values) - 1, min(BINS, len(values))).astype(int)
    label, colour = f"step {spacing:g} s", research.figures.COLOURS["data"]
    panel.plot(t[places][few], values[few], "o", ms=2.5, color=colour, label=label)


def draw_errors(axes: Axes, result: research.runs.Result, order: int):
    """Draw the errors of one derivative against the step."""
    h, measured = result.arrays["steps"], []
    for accuracy, colour in ((2, "#0072B2"), (4, "#D55E00")):
        found, noise, truncation = (
            result.arrays[f"{NAMES[order]}/{accuracy}/{name}"]
            for name in ("error", "noise", "truncation")
        )
        measured.append(found)
        axes.plot(
            h, found, "o", color=colour, markersize=4, label=f"accuracy {accuracy}"
        )
        axes.plot(h, np.hypot(noise, truncation), color=colour, lw=1.2)
        row = next(
            r
            for r in result.numbers["rows"]
            if (r["order"], r["accuracy"]) == (order, accuracy)
        )
        axes.axvline(row["predicted_step"], color=colour, lw=1.1, ls=":")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="step h (s)",
        ylabel=f"error ({UNITS[order]})",
    )
    # The lines leave the axes, where the predictions are far from the measured errors.
    axes.set_ylim(0.3 * np.min(measured), 4 * np.max(measured))
    axes.set_title(NAMES[order], loc="left")
    axes.legend(loc="upper center")
