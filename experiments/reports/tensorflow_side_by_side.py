"""Report of tensorflow_side_by_side: answer, tables and figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.reports import _dots as dots
from experiments.tensorflow_side_by_side import (
    BATCH,
    EAGER,
    JAX,
    NARROW,
    NUMPY,
    RATE,
    STEPS,
    TENSORFLOW,
)

TO_INSTALL = (
    "TensorFlow is not installed. To compute and time its numbers here, run: pip "
    "install tensorflow-cpu"
)
COLOUR = {NUMPY: "data", TENSORFLOW: "stochastic", EAGER: "decaying", JAX: "full batch"}
CODE = (  # Lines of code that differ.
    (
        "parameters",
        "w1, b1, w2, b2 = variables = [tf.Variable(p) for p in params]",
        "params, any pytree of arrays",
    ),
    (
        "recording",
        "with tf.GradientTape() as tape: loss = ...",
        "def loss(params, x, y): ...",
    ),
    (
        "the gradient",
        "grads = tape.gradient(loss, variables)",
        "value, grads = jax.value_and_grad(loss)(params, x, y)",
    ),
    ("the step", "variable.assign_sub(rate * g)", "p - rate * g"),
    ("compiled", "tf.function(step)", "jax.jit(step)"),
)


def answer(findings: research.runs.Findings) -> str:
    """Say whether the results are equal, and how fast each way is.

    If TensorFlow is not installed, the answer says that its recorded results are used.
    """
    numbers = findings.numbers
    where = f"TensorFlow {numbers['version']}"
    if not numbers["installed"]:
        where += ", by its recorded numbers"
    found, by_hand = numbers["differences"][TENSORFLOW], numbers["differences"][NUMPY]
    text = (
        f"{'Yes' if numbers['equal'] else 'No'}: against {where}, JAX's gradient "
        f"differs by {found['gradient']:.1f} ε of its largest entry in float64, and "
        f"the params after {STEPS} steps by {found['params']:.1f} ε. NumPy's gradient, "
        f"by hand, differs by {by_hand['gradient']:.1f} ε and its params by "
        f"{by_hand['params']:.1f} ε. All losses fall from {numbers['first_loss']:.2f} "
        f"to {numbers['last_loss']:.2f}."
    )
    over = lambda net, way: "{1:.1f} ({2:.1f} to {3:.1f})".format(
        *numbers["seconds"][f"{net}/{way}"]
    )
    ways = (
        ((NUMPY, "NumPy"), (TENSORFLOW, "TensorFlow"))
        if numbers["installed"]
        else ((NUMPY, "NumPy"),)
    )
    parts = [
        f"With {width} hidden units a step of "
        + " and a step of ".join(
            f"{name} takes {over(net, way)} times as long as a compiled step of JAX"
            for way, name in ways
        )
        for net, width in numbers["widths"].items()
    ]
    installed = "" if numbers["installed"] else f" {TO_INSTALL}"
    return f"{text} {'. '.join(parts)}.{installed}"


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of the ten steps, the seconds, and the code."""
    numbers = findings.numbers
    return table_of_steps(numbers), table_of_seconds(numbers), table_of_code()


def table_of_steps(numbers: dict[str, Any]):
    """Return the table of the differences of each way from JAX."""
    rows = tuple(
        (
            way,
            *(
                numbers["differences"][way][key]
                for key in ("gradient", "losses", "params")
            ),
        )
        for way in (NUMPY, TENSORFLOW, JAX)
    )
    columns = (
        "way",
        "first gradient off by, ε",
        f"{STEPS} losses off by, ε",
        f"params after {STEPS} steps off by, ε",
    )
    note = (
        "Differences from JAX, relative to the largest entry; ε = 2.2e-16. "
        f"64-{NARROW}-10, batches of {BATCH}, η = {RATE}, float64. "
        f"{'Computed here by' if numbers['installed'] else 'Recorded with'} TensorFlow "
        f"{numbers['version']}; of its first gradient "
        f"{100 * numbers['gradient_bits_equal']:.0f} % of the entries are JAX's to the "
        "last bit."
    )
    return research.runs.Table("The same ten steps", columns, rows, note)


def table_of_seconds(numbers: dict[str, Any]):
    """Return the table of the seconds per step of each way, also relative to JAX."""
    rows = []
    for key, times in numbers["seconds"].items():
        net, _, way = key.partition("/")
        rows.append((f"64-{numbers['widths'][net]}-10", way, *times))
    note = (
        f"A step on a batch of {BATCH} in float32: loss, gradient and update, called "
        f"from Python. Medians of {numbers['config']['repeats']} samples, taken in "
        "alternation, and the 95 % interval of the ratio. NumPy is limited to one "
        "thread. JAX and TensorFlow have the same number of threads."
    )
    columns = ("net", "way", "seconds a step", "over JAX's", "from", "to")
    return research.runs.Table("Seconds of a step", columns, tuple(rows), note)


def table_of_code():
    """Return the differences between the two programs, line by line."""
    note = (
        "The figure shows both programs in full. JAX differentiates a function; "
        "TensorFlow differentiates the operations that a tape has recorded."
    )
    return research.runs.Table(
        "The code, side by side", ("", "TensorFlow", "JAX"), CODE, note
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the code of both frameworks, and the losses and seconds of all ways."""
    numbers = result.numbers
    code, panels = research.figures.new_figure(
        1, 2, width=10.6, height=3.4, width_ratios=(4.7, 5.4)
    )
    for axes, (way, text) in zip(panels[0], numbers["code"].items(), strict=True):
        axes.axis("off")
        axes.set_title(way, loc="left", weight="bold")
        axes.text(
            0,
            1,
            text,
            family="monospace",
            fontsize=7.6,
            va="top",
            transform=axes.transAxes,
        )
    measured, panels = research.figures.new_figure(1, 2, width=11, height=4.0)
    draw_losses(panels[0, 0], result.arrays)
    draw_seconds(panels[0, 1], numbers)
    code_caption = (
        "The code of both programs, as it ran: the same network, loss and step. They "
        "differ in how they request the gradient."
    )
    caption = (
        f"Left: the loss of each of the {STEPS} steps; the three ways agree to within "
        f"{max(found['losses'] for found in numbers['differences'].values()):.1f} ε. "
        "Right: seconds of a step in float32."
    )
    return {
        "code": research.figures.Picture(
            "The same training in both", code_caption, code
        ),
        "steps": research.figures.Picture("The same ten steps", caption, measured),
    }


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw how far the ways of a stored reference are from JAX, in units of ε."""
    figure, axes = research.figures.new_figure(width=dots.WIDTH, height=4.2)
    place, numbers = axes[0, 0], reference["numbers"]
    rows = {row["way"]: [*row.values()][1:] for row in dots.rows(reference)}
    points, words = (
        [],
        ("first\ngradient", f"{STEPS}\nlosses", f"params\nafter {STEPS}"),
    )
    for k, word in enumerate(words):
        points += [
            dots.Dot(word, rows[way][k], None, None, COLOUR[way])
            for way in (NUMPY, TENSORFLOW)
        ]
    dots.draw_dots(place, points)
    place.set_yticks([4.5, 2.5, 0.5], words)
    for y in (1.5, 3.5):
        place.axhline(y, color="#E6E8EB", lw=1)
    for way in (NUMPY, TENSORFLOW):
        place.plot(
            [], [], "o", color=research.figures.COLOURS[COLOUR[way]], label=way, ms=8
        )
    figure.legend(loc="outside upper left")
    most = max(point.value for point in points)
    label = "largest difference from JAX, in ε"
    place.set(xlim=(0, max(3.0, 1.2 * most)), xlabel=label)
    caption = (
        f"Largest differences from jax.grad, divided by the largest entry, in units of "
        f"ε = 2.2e-16, the last digit of float64. The first gradient by TensorFlow "
        f"{numbers['version']} differs by {numbers['gradient_difference']:.1f} ε, and "
        f"the params after {STEPS} steps by {numbers['params_difference']:.1f} ε. All "
        f"losses fall from {numbers['first_loss']:.2f} to {numbers['last_loss']:.2f}. "
        f"{dots.SOURCE}"
    )
    return research.figures.Picture("The same ten steps", caption, figure)


def draw_losses(axes: Axes, arrays: dict[str, np.ndarray]):
    """Draw the losses of all ways: three lines that lie on top of each other."""
    for way, width, marker in ((NUMPY, 7, ""), (TENSORFLOW, 3.5, ""), (JAX, 0, "o")):
        colour = research.figures.COLOURS[COLOUR[way]]
        axes.plot(
            np.arange(1, STEPS + 1),
            arrays[f"losses/{way}"],
            color=colour,
            lw=width,
            marker=marker,
            label=way,
        )
    axes.set(xlabel="step", ylabel="loss of its batch")
    axes.legend()


def draw_seconds(axes: Axes, numbers: dict[str, Any]):
    """Draw the seconds, with one row for each network and way."""
    keys = list(numbers["seconds"])
    for row, key in enumerate(reversed(keys)):
        way = key.partition("/")[2]
        seconds = numbers["seconds"][key][0]
        axes.plot(1e6 * seconds, row, "o", color=research.figures.COLOURS[COLOUR[way]])
        axes.text(
            1e6 * seconds * 1.12, row, f"{1e6 * seconds:,.0f}", va="center", fontsize=9
        )
    axes.set(xscale="log", xlabel="microseconds a step")
    axes.set_xlim(right=axes.get_xlim()[1] * 2)
    names = [
        f"{way}, {numbers['widths'][net]}"
        for net, _, way in (key.partition("/") for key in keys)
    ]
    axes.set_yticks(range(len(keys))[::-1], names)
