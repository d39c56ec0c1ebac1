"""Report of image_recognition: answer, tables and figures."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import research
from experiments.image_recognition import CHOICE_SEED, CLAIM, LABELS
from experiments.reports import _dots as dots
from research import figures
from research.figures import confusion, images
from research.runs import Result, dashed


def answer(findings: research.runs.Findings) -> str:
    """Say how many images each model recognises, and compare with published results."""
    numbers = findings.numbers
    words = []
    for mean, low, high in (row["accuracy"] for row in numbers["models"]):
        words.append(
            f"{100 * mean:.1f} %"
            + ("" if low is None else f" ({100 * low:.1f} to {100 * high:.1f})")
        )
    found = (
        f"Of {numbers['n_test']:,} test images the CNN recognises {words[2]}, the MLP "
        f"{words[1]}, softmax regression {words[0]}: "
        f"{research.statistics.seeds_in_words(numbers['seeds'])}."
    )
    if numbers["dataset"] != CLAIM:
        instead = (
            "To use that data set, leave out --fast and --dataset. To download it, "
            "run: descent data fetch"
        )
        where = (
            f"these are the images of {numbers['dataset']}; the published numbers are "
            "for Fashion-MNIST"
        )
        return f"NOT THE CLAIM: {where}. {found} {instead} {CLAIM}"
    below = [
        LABELS[row["model"]]
        for row in numbers["models"]
        if row["accuracy"][0] < row["published"]
    ]
    verdict = f"below that: {', '.join(below)}" if below else "every mean reaches them"
    softmax, mlp, cnn = (f"{100 * row['published']:.1f} %" for row in numbers["models"])
    return (
        f"{found} The accuracies to reach are {cnn} (published for two convolutions), "
        f"{mlp} (published for an MLP) and {softmax} (softmax regression): "
        f"{verdict}."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables. The terminal shows only the first table."""
    numbers = findings.numbers
    shown = accuracy_table(numbers), classes_table(numbers), budgets_table(numbers)
    return (*shown, tried_table(numbers)) if numbers["tried"] else shown


def accuracy_table(numbers: Mapping[str, Any]) -> research.runs.Table:
    """Return the table of the test accuracy and the cost of each model."""
    return research.runs.Table(
        f"Test accuracy on {numbers['dataset']}",
        (
            "model",
            "test accuracy",
            "low",
            "high",
            "to reach",
            "parameters",
            "epochs",
            "example gradients",
            "seconds",
            "peak rate",
        ),
        tuple(
            dashed(
                (
                    LABELS[r["model"]],
                    *r["accuracy"],
                    r["published"],
                    r["parameters"],
                    r["epochs"],
                    r["gradients"],
                    r["seconds"],
                    r["rate"],
                )
            )
            for r in numbers["models"]
        ),
        f"Accuracy: {research.statistics.seeds_in_words(numbers['seeds'])}. The cost "
        "is that of one training (median), without compilation and evaluation. The "
        "first row is the simple baseline. To reach: the values on the page of "
        "Fashion-MNIST for an MLP of 256, 128 and 100 units and for two convolutions "
        "with pooling; for softmax regression, about the accuracy at its optimum.",
    )


def classes_table(numbers: Mapping[str, Any]) -> research.runs.Table:
    """Return the table of the share of recognised images of each class."""
    models = numbers["models"]
    return research.runs.Table(
        "Share of recognised images by class",
        ("class", *(LABELS[r["model"]] for r in models)),
        tuple(
            (name, *(r["by_class"][i] for r in models))
            for i, name in enumerate(numbers["classes"])
        ),
        "Share of the test images of each class; mean over the seeds.",
    )


def budgets_table(numbers: Mapping[str, Any]) -> research.runs.Table:
    """Return the table of the CNN's accuracy by the length of its training."""
    return research.runs.Table(
        "The CNN by length of training",
        ("epochs", "test accuracy", "example gradients", "seconds"),
        tuple(
            (b["epochs"], b["accuracy"], b["gradients"], b["seconds"])
            for b in numbers["budgets"]
        ),
        "One training each, with the first seed; the rate rises and falls within the "
        "budget of the training.",
    )


def tried_table(numbers: Mapping[str, Any]) -> research.runs.Table:
    """Return the table of the rates that were tried on held-out images."""
    return research.runs.Table(
        "Choice of the rates",
        ("model", "peak rate", "held-out accuracy"),
        tuple(
            (LABELS[row["model"]], row["rate"], row["accuracy"])
            for row in numbers["tried"]
        ),
        f"{numbers['held_out']:,} training images were held out; seed {CHOICE_SEED}. "
        "The best rate of each model is used.",
    )


ACROSS = 8  # Number of errors in a row.
COLOURS = {"softmax": "second class", "mlp": "mini-batch", "cnn": "full batch"}


def draw(result: Result) -> dict[str, figures.Picture]:
    """Draw accuracy by epoch, the confusion matrix, the worst errors, and filters."""
    numbers, kept = result.numbers, result.arrays
    pictures = {
        "accuracy": figures.Picture(
            "Accuracy against epochs",
            accuracy_caption(numbers),
            draw_accuracy(numbers, kept),
        )
    }
    figure, axes = figures.new_figure(1, 1, width=7.4, height=6.2)
    confusion.draw_confusion(axes[0, 0], kept["confusions"], numbers["classes"])
    pictures["confusions"] = figures.Picture(
        "Confusions of the CNN", confusion_caption(numbers), figure
    )
    if len(kept["worst/labels"]):
        figure = draw_worst(numbers, kept)
        pictures["worst"] = figures.Picture(
            "Its most confident errors", worst_caption(kept), figure
        )
    figure = draw_first_layers(numbers, kept)
    pictures["filters"] = figures.Picture(
        "Weights of the first layers", filters_caption(kept), figure
    )
    return pictures


def draw_reference(reference: Mapping[str, Any]) -> figures.Picture:
    """Draw the test accuracies of a stored reference, with the accuracies to reach."""
    names = {label: name for name, label in LABELS.items()}
    points = []
    for row in dots.rows(reference):
        name, label = names[row["model"]], row["model"].replace(" ", "\n")
        low, high, target = map(
            dots.percent, (row["low"], row["high"], row["to reach"])
        )
        mean = 100 * reference["numbers"][name]
        points.append(dots.Dot(label, mean, low, high, COLOURS[name], target))
    figure, axes = figures.new_figure(width=dots.WIDTH, height=3.2)
    dots.draw_dots(axes[0, 0], points)
    axes[0, 0].set_xlabel("recognised test images in %")
    axes[0, 0].plot([], [], "k:", lw=2, label="accuracy to reach")
    figure.legend(loc="outside upper left")
    numbers = reference["numbers"]
    found = ", ".join(
        f"{p.label.replace(chr(10), ' ')} {p.value:.1f} %" for p in points
    )
    caption = (
        f"Recognised share of the {numbers['n_test']:,} test images of "
        f"{numbers['dataset']}: {found}. Mean over {numbers['seeds']} seeds with its "
        "95 % t interval; dotted: the accuracy to reach, which is published (for "
        f"softmax regression, about the accuracy at its optimum). {dots.SOURCE}"
    )
    return figures.Picture("Test accuracy", caption, figure)


def draw_worst(numbers: Mapping[str, Any], kept: Mapping[str, np.ndarray]) -> Figure:
    """Draw the wrongly recognised images, the most confident errors first."""
    rows = -(-len(kept["worst/labels"]) // ACROSS)
    figure, axes = figures.new_figure(1, 1, width=10, height=0.3 + 1.6 * rows)
    images.draw_images(
        axes[0, 0], kept["worst/images"], worst_words(numbers, kept), columns=ACROSS
    )
    return figure


def draw_accuracy(numbers: Mapping[str, Any], kept: Mapping[str, np.ndarray]) -> Figure:
    """Draw the accuracy during trainings, and the final accuracy by training length."""
    figure, axes = figures.new_figure(2, 1, width=4.6, height=7.2, sharey=True)
    within, at_the_end = axes[:, 0]
    for row in numbers["models"]:
        model, colour = row["model"], figures.COLOURS[COLOURS[row["model"]]]
        curves = kept[f"{model}/accuracy"]
        epochs = np.arange(1, curves.shape[1])
        within.plot(epochs, curves[:, 1:].T, color=colour, lw=0.8, alpha=0.5)
        within.plot(
            epochs,
            curves[:, 1:].mean(axis=0),
            "o-",
            color=colour,
            markersize=4,
            label=LABELS[model],
        )
        if row["published"]:
            for panel in axes[:, 0] if model == "cnn" else (within,):
                panel.axhline(
                    row["published"], color=colour, lw=1.2, ls=(0, (4, 3)), zorder=1
                )
    budgets, colour = numbers["budgets"], figures.COLOURS[COLOURS["cnn"]]
    accuracies = [budget["accuracy"] for budget in budgets]
    at_the_end.plot([b["epochs"] for b in budgets], accuracies, "o-", color=colour)
    # Every point stands inside the axes, also the first epoch of the CNN.
    shown = [kept[f"{model}/accuracy"][:, 1:].ravel() for model in LABELS]
    values = np.concatenate([*shown, accuracies])
    margin = 0.06 * (values.max() - values.min()) + 0.002
    within.set(
        xlabel="epochs of the training",
        ylabel="test accuracy",
        ylim=(values.min() - margin, values.max() + margin),
    )
    at_the_end.set(xlabel="epochs of the whole training", ylabel="test accuracy")
    within.set_title("Within a training", loc="left")
    at_the_end.set_title("At the end, by length: the CNN", loc="left")
    for panel in axes[:, 0]:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    within.legend(loc="lower right", fontsize=9)
    return figure


def draw_first_layers(
    numbers: Mapping[str, Any], kept: Mapping[str, np.ndarray]
) -> Figure:
    """Draw the weights of the first layer of each model."""
    figure, axes = figures.new_figure(
        1, 3, width=12, height=2.4, width_ratios=(1.1, 1, 1)
    )
    for panel, (model, columns) in zip(
        axes[0], (("softmax", 5), ("mlp", 8), ("cnn", 8)), strict=True
    ):
        names = numbers["classes"] if model == "softmax" else ()
        images.draw_filters(panel, kept[f"{model}/filters"], names, columns=columns)
        panel.set_title(LABELS[model], loc="left")
        panel.set_anchor("NW")  # Align all panels at the top.
    return figure


def accuracy_caption(numbers: Mapping[str, Any]) -> str:
    """Return the caption of the curves, with the important numbers."""
    budgets = ", ".join(
        f"{100 * b['accuracy']:.1f} % after {b['epochs']}" for b in numbers["budgets"]
    )
    lines = (
        " Dashed: the accuracy that each model should reach."
        if numbers["models"][0]["published"]
        else ""
    )
    return (
        f"Above: test accuracy after each epoch. Thin lines are the {numbers['seeds']} "
        "single seeds; dots are their mean. The rate rises in the first quarter of a "
        "training and then falls to nearly 0. Below: the CNN at the end of trainings "
        "of several lengths, with the first seed; the rate rises and falls within "
        f"each: {budgets}.{lines}"
    )


def confusion_caption(numbers: Mapping[str, Any]) -> str:
    """Return the caption of the confusion matrix, with the most frequent errors."""
    errors = "; ".join(
        f"{true} taken for {taken} ({times} of {of:,})"
        for true, taken, times, of in numbers["errors"]
    )
    return (
        f"The {numbers['n_test']:,} test images by true class (row) and by the class "
        "that the CNN of the first seed predicts (column). The shade is the share of "
        f"the row. Its most frequent errors: {errors or 'none'}."
    )


def worst_words(
    numbers: Mapping[str, Any], kept: Mapping[str, np.ndarray]
) -> list[str]:
    """Return a caption for each wrongly recognised image."""
    classes = numbers["classes"]
    errors = zip(
        kept["worst/labels"],
        kept["worst/predictions"],
        kept["worst/confidences"],
        strict=True,
    )
    return [
        f"{classes[true]}\nas {classes[predicted]}, {floor_percent(sure)} %"
        for true, predicted, sure in errors
    ]


def floor_percent(probability: float) -> str:
    """Format a probability in percent with one digit, rounded down."""
    return f"{math.floor(1000 * float(probability)) / 10:.1f}"


def worst_caption(kept: Mapping[str, np.ndarray]) -> str:
    """Return the caption of the worst errors, with the CNN's probabilities."""
    sure = kept["worst/confidences"]
    return (
        "The wrong answers of the CNN of the first seed with the highest probability: "
        "label of the data set, and prediction with its probability. The smallest of "
        f"these {len(sure)} probabilities is {floor_percent(sure.min())} %."
    )


def filters_caption(kept: Mapping[str, np.ndarray]) -> str:
    """Return the caption of the pictures of weights."""
    return (
        "Weights of the first layer after training, as pictures. Blue: a bright pixel "
        "increases the output. Red: it decreases the output. Each model has one "
        "scale. Softmax regression has one picture for each class. Units of the MLP "
        f"(the first {len(kept['mlp/filters'])}) also read all pixels. Each filter of "
        "the CNN reads 3 by 3 pixels at every position."
    )
