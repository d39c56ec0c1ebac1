"""Report of character_language_model: answer, tables and figures."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import research
from experiments.character_language_model import (
    CHARACTERS,
    CLAIM,
    FALLBACK,
    NAMES,
    SAMPLED,
    TEMPERATURE,
    TEXTS,
    TOP_K,
)
from experiments.reports import _dots as dots
from research.figures import COLOURS, new_figure, style
from research.runs import Table

NOT_THE_CLAIM = (
    f"NOT THE CLAIM: these results are for {FALLBACK}; the claim is about {CLAIM}. "
)
INSTEAD = (
    f" To use {CLAIM}, leave out --fast and --text; if it is in a folder of yours, "
    f"pass that folder by --data-dir. To download it, run: descent data fetch {CLAIM}"
)
LONG_NAMES = {
    name: short.replace(", longer", " trained for longer")
    for name, short in NAMES.items()
}
SHADES = ("exact", "second class", "mini-batch", "stochastic", "full batch")
LOOKS = dict(zip(("ngram", *NAMES), SHADES, strict=True))
ROWS = ("exact", "data", *(LOOKS[name] for name in NAMES))  # Colours of the table.


def answer(findings: research.runs.Findings) -> str:
    """Say which model predicts better, by how much, and how more training helps."""
    numbers = findings.numbers
    networks, words = numbers["networks"], research.statistics.interval_in_words
    best = min(networks, key=lambda name: networks[name]["half_full"][0])
    winner = (
        "Counting"
        if numbers["ngram"] < networks[best]["half_full"][0]
        else f"The {LONG_NAMES[best]}"
    )
    lstm, gpt, longer_lstm, longer_gpt = (networks[name] for name in NAMES)
    before, after = (
        ("", "") if numbers["text"] in TEXTS[:2] else (NOT_THE_CLAIM, INSTEAD)
    )
    return (
        f"{before}{winner} wins. A {numbers['order']}-gram, counted in a second, has a "
        f"loss of {numbers['ngram']:.3f} nats a character. After {gpt['steps']:,} "
        f"steps of {numbers['batch_size']} x {numbers['context']} characters "
        f"({gpt['passes']:.1f} passes) the loss is {words(lstm['whole'])} for the LSTM "
        f"and {words(gpt['whole'])} for the GPT; after {longer_gpt['steps']:,} steps "
        f"it is {words(longer_lstm['whole'])} and {words(longer_gpt['whole'])}. On "
        "characters with at least half a window before them, these last two losses are "
        f"{longer_lstm['half_full'][0]:.3f} and "
        f"{longer_gpt['half_full'][0]:.3f}.{after}"
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of losses and the table of n-gram losses by order."""
    numbers = findings.numbers
    networks = [
        (f"{NAMES[name]}, {found['steps']:,} steps", found)
        for name, found in numbers["networks"].items()
    ]
    note = (
        f"{numbers['text']}, {numbers['characters']:,} characters, "
        f"{numbers['symbols']} symbols; {numbers['validation_characters']:,} are "
        "predicted. The interval is Student's t interval of the mean over "
        f"{numbers['networks']['gpt']['seeds']} seeds. The longer trainings have one "
        "seed; n-grams are exact. Whole: windows that do not overlap. Half full: each "
        f"character is predicted from at least {numbers['context'] // 2} characters "
        f"before it. Sampled: {SAMPLED} random windows, as nanoGPT reports (1.88, on "
        "tiny Shakespeare). The parameters of an n-gram model are its different "
        "n-grams."
    )
    return (
        costs_table(numbers["counted"], networks, note),
        orders_table(numbers["orders"]),
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the learning curves, the losses by context, and a sample of each model."""
    Picture, looks = (
        research.figures.Picture,
        {name: (NAMES[name], LOOKS[name]) for name in NAMES},
    )
    curves = learning_and_context(result.arrays, result.numbers, looks)
    samples = texts(titled(result.numbers))
    return {
        "learning": Picture(
            "Counting and learning", curves_caption(result.numbers), curves
        ),
        "samples": Picture(
            "Samples from each model", sample_caption(result.numbers), samples
        ),
    }


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the losses of a stored reference, by whole windows and by half full ones."""
    figure, axes = new_figure(width=dots.WIDTH, height=4.6)
    whole, half = [], []
    for row, look in zip(dots.rows(reference), ROWS, strict=True):
        ends = row["95 % interval"].split(" to ")
        low, high = map(dots.number, ends) if len(ends) == 2 else (None, None)
        name, _, rest = row["model"].partition(", ")
        label = f"{name},\n{rest.replace('longer, ', '')}"
        whole.append(dots.Dot(label, float(row["whole"]), low, high, look))
        half.append(dots.number(row["half full"]))
    place = axes[0, 0]
    dots.draw_dots(place, whole, digits=3)
    for y, (x, point) in enumerate(reversed([*zip(half, whole, strict=True)])):
        if x != point.value:
            place.plot(x, y, "|", color=COLOURS[point.colour], markersize=14, mew=2)
    place.set_xlabel("nats a character, smaller is better")
    place.set_title("●  whole windows   ❙  at least half full")
    numbers = reference["numbers"]
    found = "; ".join(
        f"{point.label.replace(chr(10), ' ')}: {point.value:.3f}" for point in whole
    )
    caption = (
        f"Loss on {numbers['validation_characters']:,} characters of "
        f"{numbers['text']} that were not used for training. Dots: each character "
        f"once, in whole windows, with a 95 % t interval over seeds "
        f"({found}). Bars: characters with at least half a window before them, the "
        f"fairest comparison with n-grams, for which the two are equal. {dots.SOURCE}"
    )
    return research.figures.Picture("Loss of each model", caption, figure)


def titled(numbers: dict[str, Any]):
    """Return (title, colour, text) for the sample of each model."""
    titles = {"ngram": f"{numbers['order']}-gram, {numbers['ngram']:.2f} nats"}
    titles |= {
        name: f"{NAMES[name]}, {found['whole'][0]:.2f} nats"
        for name, found in numbers["networks"].items()
    }
    return [
        (titles[name], LOOKS[name], sample)
        for name, sample in numbers["samples"].items()
    ]


def curves_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure, with the important numbers."""
    orders, networks = numbers["orders"][numbers["smoothing"]], numbers["networks"]
    ends = ", ".join(
        f"{found['sampled'][0]:.2f} ({NAMES[name]})" for name, found in networks.items()
    )
    return (
        f"Left: the loss on {SAMPLED} random windows of the validation part, one line "
        "for each seed. Dashed: the loss of n-grams on the whole part, from "
        f"{orders[min(1, len(orders) - 1)]:.2f} (order 2) to {numbers['ngram']:.2f} "
        f"(order {numbers['order']}). The networks reach {ends}. Right: the loss by "
        "the number of characters before the predicted one in its window; a network "
        "and an n-gram with the same context have the same horizontal position. The "
        "first characters of a window have a high loss in every model. The best "
        f"n-gram uses {numbers['order'] - 1} characters; networks gain from more."
    )


def sample_caption(numbers: dict[str, Any]):
    """Return the caption of the samples. It says how the samples were drawn."""
    texts = "; ".join(
        f"{name}: {sample[:60]!r}" for name, sample in numbers["samples"].items()
    )
    return (
        f"{CHARACTERS} characters from each model after a line break, at temperature "
        f"{TEMPERATURE}, limited to the {TOP_K} likeliest symbols, with the first "
        f"seed. They show what a smaller loss means. They begin: {texts}."
    )


SHOWN_ORDERS = (
    2,
    3,
    4,
)  # Orders drawn besides the best: the lines of longer n-grams are too close.
LINE, LINES = 44, 15  # Characters in a line of a sample, and number of lines.


def learning_and_context(
    arrays: Mapping[str, np.ndarray],
    numbers: Mapping[str, Any],
    looks: Mapping[str, tuple[str, str]],
) -> Figure:
    """Draw losses by step, and below by length of the context.

    The context is the number of characters before the predicted one. The losses of
    n-grams are drawn as lines for comparison.

    Args:
      arrays: Losses of each network and seed. name/seed/sampled has losses at evenly
        spaced steps, from step 0 on. name/seed/positions has the losses of characters
        with 1, 2, ... characters before them. ngrams/smoothing has the losses of order
        1, 2, ...
      numbers: Numbers with the entries "smoothing", "batch_size" and "networks". Each
        entry of "networks" has "steps".
      looks: Label and name of the colour of each network.
    Returns:
      The figure.
    """
    figure, (learning, context) = new_figure(2, 1, width=4.6, height=8.4)
    axes = np.array([[learning[0], context[0]]])
    ngrams = arrays[f"ngrams/{numbers['smoothing']}"]
    with style():
        for name, (label, colour) in looks.items():
            curves, positions = (
                of_seeds(arrays, name, "sampled"),
                of_seeds(arrays, name, "positions").mean(axis=0),
            )
            steps = np.linspace(0, numbers["networks"][name]["steps"], curves.shape[1])[
                1:
            ]
            for i, curve in enumerate(curves[:, 1:]):
                axes[0, 0].plot(
                    steps,
                    curve,
                    color=COLOURS[colour],
                    lw=1.3,
                    label=None if i else label,
                )
            axes[0, 1].plot(
                np.arange(1, len(positions) + 1),
                positions,
                color=COLOURS[colour],
                lw=1.6,
                label=label,
            )
        _ngram_lines(axes[0, 0], ngrams)
        _ngram_points(axes[0, 1], ngrams)
        words = f"steps of {numbers['batch_size']} windows"
        last = max(found["steps"] for found in numbers["networks"].values())
        _logarithmic(
            axes[0, 0], [m * 10**k for k in range(8) for m in (1, 2, 5)], last, words
        )
        axes[0, 0].set_title("Learning curves and n-grams", loc="left")
        words = "characters before the predicted one"
        _logarithmic(axes[0, 1], [2**k for k in range(12)], numbers["context"], words)
        axes[0, 1].set_title("Loss by context", loc="left")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2
        )
    return figure


def of_seeds(arrays: Mapping[str, np.ndarray], name: str, what: str) -> np.ndarray:
    """Return one array with the arrays name/seed/what of all seeds, stacked."""
    return np.stack(
        [
            a
            for key, a in arrays.items()
            if key.startswith(f"{name}/") and key.endswith(f"/{what}")
        ]
    )


def texts(samples: Sequence[tuple[str, str, str]]) -> Figure:
    """Draw texts in three columns, with long lines broken.

    Each text is (title, name of the colour, text).
    """
    rows = -(-len(samples) // 3)
    figure, axes = new_figure(rows, 3, width=11.5, height=2.7 * rows)
    with style():
        for panel in axes.ravel():
            panel.set_axis_off()
        for panel, (title, colour, text) in zip(axes.ravel(), samples, strict=False):
            panel.set_title(title, loc="left", color=COLOURS[colour])
            lines = [
                part
                for line in text.strip().split("\n")
                for part in textwrap.wrap(line, LINE) or [""]
            ]
            plain = "\n".join(lines[:LINES]).replace(
                "$", r"\$"
            )  # A dollar sign would begin a formula.
            look = {
                "va": "top",
                "family": "monospace",
                "fontsize": 7.5,
                "linespacing": 1.25,
            }
            panel.text(0, 1, plain, transform=panel.transAxes, **look)
    return figure


def _ngram_lines(axes: Axes, losses: np.ndarray) -> None:
    best = int(np.argmin(losses)) + 1
    for order in sorted(
        {order for order in SHOWN_ORDERS if order <= len(losses)} | {best}
    ):
        axes.axhline(
            losses[order - 1], color=COLOURS["exact"], lw=0.9, ls=(0, (4, 3)), zorder=1
        )
        look = {
            "va": "bottom",
            "ha": "right",
            "fontsize": 8.5,
            "color": COLOURS["exact"],
        }
        axes.text(
            1.0,
            losses[order - 1],
            f"{order}-gram",
            transform=axes.get_yaxis_transform(),
            **look,
        )


def _ngram_points(axes: Axes, losses: np.ndarray) -> None:
    look = {"color": COLOURS["exact"], "markersize": 4.5, "lw": 1, "zorder": 4}
    axes.plot(
        np.arange(1, len(losses)),
        losses[1:],
        "o--",
        label=f"n-grams of order 2 to {len(losses)}",
        **look,
    )


def _logarithmic(axes: Axes, ticks: Sequence[int], last: int, words: str) -> None:
    axes.set(xscale="log", xlabel=words, ylabel="nats a character (validation)")
    first, right = axes.get_xlim()
    shown = [tick for tick in ticks if first <= tick <= last]
    axes.set_xticks(shown, [f"{tick:,}" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, right)


def costs_table(
    counted: Sequence[Mapping[str, Any]],
    networks: Sequence[tuple[str, Mapping[str, Any]]],
    note: str,
) -> Table:
    """Return a table with a row for each model, with n-grams in the first rows.

    Args:
      counted: Dict for each n-gram model, with "name", "loss", "counts" (number of
        different n-grams in the text) and "seconds".
      networks: Pairs (name, facts). The facts have the intervals "whole", "half_full"
        and "sampled", and "parameters", "passes" and "seconds".
      note: Text below the table.
    Returns:
      The table.
    """
    rows = [
        (
            m["name"],
            *_digits(m["loss"], None, m["loss"], None),
            m["counts"],
            1.0,
            m["seconds"],
        )
        for m in counted
    ]
    for name, n in networks:
        losses = _digits(
            n["whole"][0], n["whole"][1:], n["half_full"][0], n["sampled"][0]
        )
        rows.append((name, *losses, n["parameters"], n["passes"], n["seconds"]))
    columns = (
        "model",
        "whole",
        "95 % interval",
        "half full",
        "sampled",
        "parameters",
        "passes",
        "seconds",
    )
    return Table(
        "Nats a character on the last tenth of the text", columns, tuple(rows), note
    )


def orders_table(losses: Mapping[str, Sequence[float]]) -> Table:
    """Return the losses of n-grams by order, with a column for each smoothing."""
    columns = ("order", *(name.replace("_", " ") for name in losses))
    rows = tuple(
        (order, *_digits(*row))
        for order, row in enumerate(zip(*losses.values(), strict=True), 1)
    )
    note = (
        "Nats a character on the whole validation part. Kneser-Ney is modified and "
        "interpolated (Chen & Goodman 1999)."
    )
    return Table("n-grams", columns, rows, note)


def _digits(*losses: float | Sequence[float | None] | None) -> tuple[str, ...]:
    """Format losses with three decimals, because models differ in the second.

    A missing value is a dash, because None would mean "not reached".
    """
    words = []
    for loss in losses:
        if loss is None or (isinstance(loss, Sequence) and loss[0] is None):
            words.append("–")
        else:
            words.append(
                " to ".join(
                    f"{x:.3f}"
                    for x in (loss if isinstance(loss, Sequence) else (loss,))
                )
            )
    return tuple(words)
