"""Report of text_classification: answer, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

import research
from experiments.reports import _dots as dots
from experiments.text_classification import BASELINES, CLAIM
from research import figures
from research.figures import confusion
from research.runs import Table, dashed

LABELS = BASELINES | {"transformer": "Transformer"}


def percent(interval: Sequence[Any]):
    """Format a share as 97.4 %, with its interval if it has one."""
    mean, low, high = interval
    return f"{100 * mean:.1f} %" + (
        "" if low is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    )


def answer(findings: research.runs.Findings) -> str:
    """Say whether the Transformer or the baseline sorts better, and by how much."""
    numbers = findings.numbers
    whole, cut, network = numbers["models"]
    _, low, high = network["accuracy"]
    best = max(whole["accuracy"][0], cut["accuracy"][0])
    verdict = "Not for certain"  # Fewer than three seeds have no interval.
    if low is not None:
        verdict = "Yes" if low > best else "No" if high < best else verdict
    seeds = research.statistics.seeds_in_words(numbers["seeds"])
    found = (
        f"{verdict}: of {numbers['n_test']:,} test stories the Transformer classifies "
        f"{percent(network['accuracy'])} correctly ({seeds}; macro-F1 "
        f"{network['macro_f1'][0]:.3f}), and TF-IDF with logistic regression "
        f"{percent(whole['accuracy'])} ({whole['macro_f1'][0]:.3f}). From the first "
        f"{numbers['words']} words, which are all that the Transformer reads, TF-IDF "
        f"classifies {percent(cut['accuracy'])} correctly."
    )
    if numbers["dataset"] == CLAIM:
        return found
    instead = (
        "To use the Reuters stories, leave out --fast and --dataset. To download "
        "them, run: descent data fetch"
    )
    return f"NOT THE CLAIM: these stories are fabricated. {found} {instead} {CLAIM}"


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables: all models, classes, the worst errors, and the choices."""
    numbers = findings.numbers
    return (
        accuracy_table(numbers),
        topics_table(numbers),
        errors_table(numbers),
        tried_table(numbers),
    )


def accuracy_table(numbers: Mapping[str, Any]) -> Table:
    """Return the table of the test accuracy and the macro-F1 of each model."""
    models, name = numbers["models"], LABELS["transformer"]
    share = models[-1]["accuracy"][0]
    return Table(
        f"Test accuracy on {numbers['dataset']}",
        (
            "model",
            "test accuracy",
            "low",
            "high",
            "macro-F1",
            "its low",
            "its high",
            "reads",
            "seconds",
        ),
        tuple(
            dashed(
                (
                    LABELS[m["name"]],
                    *m["accuracy"],
                    *m["macro_f1"],
                    m["reads"],
                    m.get("seconds"),
                )
            )
            for m in models
        ),
        f"The {name}: {research.statistics.seeds_in_words(numbers['seeds'])}. A seed "
        "sets the starting point and the order of the stories. The choice of the "
        f"{numbers['n_test']:,} test stories alone makes each accuracy uncertain by "
        f"±{196 * np.sqrt(share * (1 - share) / numbers['n_test']):.1f} points. The "
        f"most frequent topic alone has {100 * max(numbers['shares']):.1f} %. "
        f"{100 * numbers['whole_stories']:.0f} % of the training stories are no longer "
        f"than {numbers['words']} words. Seconds: one training (median), without "
        "compilation and evaluation.",
    )


def topics_table(numbers: Mapping[str, Any]) -> Table:
    """Return the table of the share of recognised stories of each topic."""
    models = numbers["models"]
    return Table(
        "Share of recognised stories by topic",
        ("topic", "share of the test stories", *(LABELS[m["name"]] for m in models)),
        tuple(
            (topic, numbers["shares"][k], *(m["by_class"][k] for m in models))
            for k, topic in enumerate(numbers["classes"])
        ),
        f"The {LABELS['transformer']}: mean over the seeds.",
    )


def errors_table(numbers: Mapping[str, Any]) -> Table:
    """Return the table of the Transformer's most confident errors."""
    return Table(
        f"The most confident errors of the {LABELS['transformer']}",
        ("story", "topic", "taken for", "probability", "TF-IDF says"),
        tuple(map(tuple, numbers["worst"])),
        "First seed; the beginning of each story.",
    )


def tried_table(numbers: Mapping[str, Any]) -> Table:
    """Return the results of all settings that were tried on held-out stories."""
    rows = [
        (LABELS[m["name"]], f"C = {strength:g}", accuracy)
        for m in numbers["models"]
        for strength, accuracy in m.get("tried", ())
    ]
    rows += [
        (
            LABELS["transformer"],
            f"rate {t['rate']:g}, {t['epochs']} epochs",
            t["accuracy"],
        )
        for t in numbers["tried"]
    ]
    return Table(
        "Choice of rate, epochs and C",
        ("model", "tried", "held-out accuracy"),
        tuple(rows),
        f"{numbers['held_out']:,} training stories were held out. The best setting of "
        "each model is used; of equal ones, the first.",
    )


LINES = {"whole": "-", "cut": (0, (4, 3))}  # Line styles of the baselines.


def draw(result: research.runs.Result) -> dict[str, figures.Picture]:
    """Draw accuracy by epoch, and the confusion matrix."""
    numbers, kept = result.numbers, result.arrays
    curves, axes = figures.new_figure(1, 3, width=11.5, height=3.8)
    for panel, (name, label) in zip(
        axes[0],
        (("accuracy", "test accuracy"), ("macro_f1", "test macro-F1")),
        strict=False,
    ):
        draw_score(panel, numbers, kept[name], name)
        panel.set_ylabel(label)
    axes[0, 0].legend(loc="lower right", fontsize=8)
    draw_runs(axes[0, 2], np.arange(1, kept["loss"].shape[1] + 1), kept["loss"])
    axes[0, 2].set(ylabel="training loss, mean of the epoch", yscale="log")
    for panel in axes[0]:
        panel.set_xlabel("epochs")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    matrix, axes = figures.new_figure(1, 1, width=7.0, height=5.8)
    confusion.draw_confusion(axes[0, 0], kept["confusions"], numbers["classes"])
    return {
        "curves": figures.Picture(
            "Learning curves and the baseline", curves_caption(numbers), curves
        ),
        "confusions": figures.Picture(
            "Confusions of the Transformer", confusion_caption(numbers), matrix
        ),
    }


def draw_reference(reference: Mapping[str, Any]) -> figures.Picture:
    """Draw the accuracies and macro-F1 of a stored reference."""
    figure, axes = figures.new_figure(2, 1, width=dots.WIDTH, height=4.8)
    for panel, (name, low, high), words in zip(
        axes[:, 0],
        (("test accuracy", "low", "high"), ("macro-F1", "its low", "its high")),
        ("recognised test stories in %", "macro-F1 in %"),
        strict=True,
    ):
        points = []
        for row in dots.rows(reference):
            lower, upper = (dots.percent(row[key]) for key in (low, high))
            is_network = row["model"] == LABELS["transformer"]
            label = f"{'Transformer' if is_network else 'TF-IDF'},\n{row['reads']}"
            colour = "full batch" if is_network else "stochastic"
            points.append(dots.Dot(label, 100 * row[name], lower, upper, colour))
        dots.draw_dots(panel, points)
        panel.set_xlabel(words)
    numbers = reference["numbers"]
    caption = (
        f"{numbers['n_test']:,} test stories of {numbers['dataset']}. Above: "
        f"recognised share ({100 * numbers['whole']:.1f} % by TF-IDF with logistic "
        f"regression, {100 * numbers['cut']:.1f} % on the first words only, "
        f"{100 * numbers['transformer']:.1f} % by the Transformer). Below: macro-F1, "
        f"in which every topic counts the same. Mean over {numbers['seeds']} seeds "
        f"with its 95 % t interval; TF-IDF has no seeds. {dots.SOURCE}"
    )
    return figures.Picture("Test accuracy", caption, figure)


def draw_score(
    axes: Axes,
    numbers: Mapping[str, Any],
    scores: np.ndarray,
    name: str,
) -> None:
    """Draw one score of every seed by epoch, with the baselines as horizontal lines."""
    draw_runs(axes, np.arange(1, scores.shape[1]), scores[:, 1:])
    for row in numbers["models"]:
        if row["name"] in BASELINES:
            style = {
                "color": figures.COLOURS["stochastic"],
                "lw": 1.6,
                "ls": LINES[row["name"]],
            }
            axes.axhline(row[name][0], label=BASELINES[row["name"]], zorder=1, **style)


def draw_runs(axes: Axes, x: np.ndarray, runs: np.ndarray) -> None:
    """Draw every seed as a thin line, and their mean with dots."""
    colour = figures.COLOURS["full batch"]
    axes.plot(x, runs.T, color=colour, lw=0.8, alpha=0.5)
    axes.plot(
        x, runs.mean(axis=0), "o-", color=colour, markersize=4, label="Transformer"
    )


def curves_caption(numbers: Mapping[str, Any]) -> str:
    """Return the caption of the first figure."""
    return (
        f"Results on {numbers['n_test']:,} test stories after each of "
        f"{numbers['epochs']} epochs: {numbers['seeds']} seeds (thin) and their mean "
        f"(dots). The peak rate, {numbers['rate']:g}, and the number of epochs were "
        f"chosen on {numbers['held_out']:,} held-out training stories, not on the test "
        "stories. Macro-F1 gives every topic the same weight, even rare ones. The "
        "baselines (orange) count words."
    )


def confusion_caption(numbers: Mapping[str, Any]) -> str:
    """Return the caption of the second figure."""
    errors = "; ".join(
        f"{true} for {taken}, {count} of {n:,}"
        for true, taken, count, n in numbers["errors"][:3]
    )
    return (
        "Rows: true topics. Columns: predictions of the network of the first seed. "
        f"Its most frequent errors: {errors or 'none'}."
    )
