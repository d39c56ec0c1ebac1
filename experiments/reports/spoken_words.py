"""Report of spoken_words: answer, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import research
from experiments.reports import _dots as dots
from experiments.spoken_words import CLAIM, LABELS, WORDS
from research.figures import COLOURS, new_figure
from research.runs import Table, dashed


def answer(findings: research.runs.Findings) -> str:
    """State the accuracy of each model, and how much new voices reduce the accuracy."""
    numbers = findings.numbers
    words = research.statistics.interval_in_words
    softmax, *networks = numbers["first"]
    accuracies = ", ".join(
        f"{LABELS[row['model']]} {words(row['accuracy'])}" for row in networks
    )
    seeds = research.statistics.seeds_in_words(numbers["seeds"])
    # The accuracy of a network that diverged is NaN.
    best = max(np.nan_to_num(row["accuracy"][0], nan=-1.0) for row in networks)
    verdict = "is not beaten" if softmax["accuracy"][0] >= best else "is beaten"
    found = (
        f"On {numbers['n_test']} test sequences of {numbers['dataset']} the accuracies "
        f"are: {accuracies} ({seeds}). Softmax regression, which reads all steps at "
        f"once, {verdict}: {words(softmax['accuracy'])}."
    )
    if numbers["digits"] is not None:
        found = f"{found} {of_digits(numbers)}"
    if numbers["diverged"]:
        found += (
            f" {numbers['diverged']} of the reported trainings diverged. Choose "
            "smaller rates."
        )
    if numbers["dataset"] != CLAIM:
        found = f"NOT THE CLAIM: these are images of digits, row by row. {found}"
    return found + what_is_missing(numbers)


def what_is_missing(numbers: dict[str, Any]):
    """Say which recordings were missing, and how to get these recordings."""
    missing = {
        "Japanese Vowels": (CLAIM, numbers["dataset"] != CLAIM),
        "spoken digits": (WORDS, numbers["digits"] is None),
    }
    missing = {
        title: name for title, (name, is_missing) in missing.items() if is_missing
    }
    if not missing:
        return ""
    return (
        f" Not included: {' and '.join(missing)}. To include them, leave out --fast, "
        "--dataset and --words. To download them, run: descent data fetch "
        f"{' '.join(missing.values())}"
    )


def of_digits(numbers: dict[str, Any]):
    """Describe the two scores on the spoken digits."""
    words = research.statistics.interval_in_words
    softmax, _, gru, *_ = numbers["digits"]
    return (
        f"On spoken digits the GRU has an accuracy of {words(gru['shared'])} if "
        "training and test share speakers. On a speaker left out of training it has "
        f"{words(gru['left_out'])}, which is the fair score: "
        f"{min(gru['by_speaker']):.2f} to {max(gru['by_speaker']):.2f} by speaker "
        f"(interval over the {len(numbers['speakers'])} speakers). Softmax regression "
        f"has {words(softmax['shared'])} and {words(softmax['left_out'])}."
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw some recordings, each model's accuracy, and the effect of new voices."""
    numbers, Picture = result.numbers, research.figures.Picture
    pictures = {
        "sequences": Picture(
            "The data",
            sequences_caption(numbers),
            draw_sequences(result.arrays),
        ),
        "accuracy": Picture(
            "Accuracy on the sequences",
            accuracy_caption(numbers),
            draw_accuracy(numbers, LABELS),
        ),
    }
    if numbers["digits"] is None:
        return pictures
    voices = Picture(
        "Speakers left out of training",
        voices_caption(numbers),
        draw_voices(numbers, LABELS),
    )
    return pictures | {"voices": voices}


def sequences_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure."""
    return (
        "Above: two training sequences of each of three classes of "
        f"{numbers['dataset']}. Each row is one feature, standardised (blue: below its "
        "mean, red: above). Below, if the data are present: digits spoken by two "
        "speakers. The pictures show the natural logarithm of the energy by frequency, "
        "low frequencies at the bottom, one column every 25 ms, dark for much energy. "
        "Time runs to the right. The networks get the part between the first and the "
        "last loud column, each row relative to its loud columns, and the change in "
        "time of each row."
    )


def accuracy_caption(numbers: dict[str, Any]):
    """Return the caption of the second figure."""
    words = research.statistics.interval_in_words
    found = "; ".join(
        f"{LABELS[row['model']]} {words(row['accuracy'])}" for row in numbers["first"]
    )
    return (
        f"Test accuracy on {numbers['dataset']}. Each dot is a seed; the bar is the "
        "mean, with its 95 % t interval if there are at least three seeds "
        f"({found}). Softmax regression has a single optimum, so no seeds."
    )


def voices_caption(numbers: dict[str, Any]):
    """Return the caption of the third figure."""
    words = research.statistics.interval_in_words
    name = lambda row: (
        f"{LABELS[row['model']]} {words(row['shared'])} shared, "
        f"{words(row['left_out'])} left out"
    )
    return (
        "Test accuracy on spoken digits. Left: every speaker is also in the training "
        "part. Middle: each speaker left out of the training part. Right: their mean. "
        "Bars are 95 % t intervals over speakers, and over seeds if there are at "
        f"least three. {'; '.join(map(name, numbers['digits']))}."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of accuracies, of new voices, and of the choice of rates."""
    numbers = findings.numbers
    found = [first_table(numbers)]
    if numbers["digits"] is not None:
        found.append(digits_table(numbers))
    if numbers["tried"]:
        found.append(tried_table(numbers))
    return tuple(found)


def first_table(numbers: Mapping[str, Any]) -> Table:
    """Return the test accuracy of each model on the first set."""
    rows = numbers["first"]
    return Table(
        f"Test accuracy on {numbers['dataset']}",
        ("model", "test accuracy", "low", "high", "parameters", "seconds", "peak rate"),
        tuple(
            dashed(
                (
                    LABELS[r["model"]],
                    *r["accuracy"],
                    r["parameters"],
                    r["seconds"],
                    r["rate"],
                )
            )
            for r in rows
        ),
        f"Networks: {research.statistics.seeds_in_words(numbers['seeds'])}. The first "
        "row is the simple baseline at its exact optimum. Seconds: one training of a "
        "network (median), without compilation; one solution of the baseline, with it.",
    )


def digits_table(numbers: Mapping[str, Any]) -> Table:
    """Return the test accuracies on spoken digits.

    They are measured with shared speakers and with one speaker left out.
    """
    train, test, left_out = numbers["parts"]
    rows = numbers["digits"]
    return Table(
        "Spoken digits: shared speakers, and one speaker left out",
        (
            "model",
            "shared",
            "low",
            "high",
            "left out",
            "low ",
            "high ",
            *numbers["speakers"],
        ),
        tuple(
            dashed((LABELS[r["model"]], *r["shared"], *r["left_out"], *r["by_speaker"]))
            for r in rows
        ),
        f"Shared: the split of the data set, {train} training and {test} test "
        f"recordings, each speaker in both; mean over {numbers['word_seeds']} seeds "
        "(with an interval if there are at least three). Left out: training on all "
        f"other speakers, test on the {left_out} recordings of one; mean over the "
        "speakers with its 95 % t interval (scores by speaker on the right).",
    )


def tried_table(numbers: Mapping[str, Any]) -> Table:
    """Return the results of all rates on held-out examples of the first set."""
    return Table(
        "Choice of the rates",
        ("model", "peak rate", "held-out loss", "accuracy"),
        tuple(
            (LABELS[r["model"]], r["rate"], r["loss"], r["accuracy"])
            for r in numbers["tried"]
        ),
        f"Means over {numbers['choices']} trainings. For each, a new fifth of each "
        "class of the training part was held out. The rate with the smallest loss is "
        "used.",
    )


MODELS = (
    ("data", "s"),
    ("full batch", "o"),
    ("mini-batch", "D"),
    ("stochastic", "^"),
)  # Colour and marker of each model.


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the accuracies of a stored reference: speakers, and digits in two ways."""
    numbers = reference["numbers"]
    figure, axes = new_figure(2, 1, width=dots.WIDTH, height=6.4)
    points = []
    for name, row, (colour, _) in zip(
        LABELS, dots.rows(reference), MODELS, strict=True
    ):
        low, high = map(dots.percent, (row["low"], row["high"]))
        label = row["model"].replace(" ", "\n")
        points.append(dots.Dot(label, 100 * numbers[name], low, high, colour))
    dots.draw_dots(axes[0, 0], points)
    axes[0, 0].set_title("Which of nine men is speaking?")
    draw_two_ways(axes[1, 0], numbers)
    for panel in axes[:, 0]:
        panel.set_xlabel("recognised test recordings in %")
    first = ", ".join(
        f"{point.label.replace(chr(10), ' ')} {point.value:.1f} %" for point in points
    )
    caption = (
        f"Above: {numbers['n_test']} recordings of {numbers['dataset']}: {first}; "
        f"mean over {numbers['seeds']} seeds with its 95 % t interval. Below: which "
        "digit is spoken. Full dots: the voices of the test are also in the training "
        f"part (GRU {100 * numbers['digits_shared_gru']:.1f} %). Hollow dots: mean "
        f"over the {len(numbers['speakers'])} speakers, each left out of the training "
        f"part (GRU {100 * numbers['digits_left_out_gru']:.1f} %); the answer has "
        f"intervals. {dots.SOURCE}"
    )
    return research.figures.Picture("Test accuracy", caption, figure)


def draw_two_ways(place: Axes, numbers: Mapping[str, Any]) -> None:
    """Draw the accuracy on digits for known and for unknown speakers, joined."""
    for y, (name, (colour, _)) in enumerate(
        zip(reversed(LABELS), reversed(MODELS), strict=True)
    ):
        known, unknown = (
            100 * numbers[f"digits_{way}_{name}"] for way in ("shared", "left_out")
        )
        style = {"color": COLOURS[colour], "markersize": 8}
        place.plot([unknown, known], [y, y], color=COLOURS[colour], lw=1)
        place.plot(known, y, "o", **style)
        place.plot(unknown, y, "o", markerfacecolor="white", markeredgewidth=2, **style)
        for x in (known, unknown):
            place.annotate(
                f"{x:.1f}", (x, y), (0, 8), textcoords="offset points", ha="center"
            )
    labels = [label.replace(" ", "\n") for label in LABELS.values()]
    place.set_yticks(range(len(labels)), reversed(labels))
    place.set_ylim(-0.5, len(labels) - 0.35)
    place.margins(x=0.12)
    place.grid(False, axis="y")
    place.tick_params(axis="y", length=0)
    place.set_title("Which digit?  ● known voices  ○ unknown voices")


def draw_sequences(arrays: dict[str, np.ndarray]) -> Figure:
    """Draw sequences as images with their scales, two columns of them."""
    first = sorted(name for name in arrays if name.startswith("first/"))
    words = sorted(name for name in arrays if name.startswith("words/"))
    rows = [first[i : i + 2] for i in range(0, len(first), 2)]
    top = len(rows)
    rows += [words[i : i + 2] for i in range(0, len(words), 2)]
    figure, axes = new_figure(len(rows), 2, width=4.6, height=1.7 * len(rows))
    looks = [{"cmap": "RdBu_r", "vmin": -2.5, "vmax": 2.5}]
    if words:
        loudest = max(arrays[name].max() for name in words)
        quietest = min(arrays[name].min() for name in words)
        looks.append({"cmap": "Greys", "vmin": quietest, "vmax": loudest})
        looks[1]["origin"] = "lower"
    for names, places, look in zip(
        rows, axes, [looks[0]] * top + looks[1:] * (len(rows) - top), strict=True
    ):
        for name, place in zip(names, places, strict=True):
            image = place.imshow(
                arrays[name].T, aspect="auto", interpolation="nearest", **look
            )
            _, who, what = name.split("/")
            title = f"{who}: “{what}”" if look is looks[-1] and words else ""
            place.set_title(title or f"class {int(who) + 1}", loc="left", fontsize=10)
            place.grid(False)
            place.set(yticks=[], xlabel="step" if name in rows[-1] else "")
        label = "log energy" if look is not looks[0] else "component"
        figure.colorbar(image, ax=places, shrink=0.9, label=label)
    return figure


def draw_accuracy(numbers: dict[str, Any], labels: dict[str, str]) -> Figure:
    """Draw the accuracy of each model, with a point for each seed."""
    figure, axes = new_figure(width=4.6, height=4.2)
    place = axes[0, 0]
    for x, row in enumerate(numbers["first"]):
        draw_points(place, x, row["by_seed"], row["accuracy"])
    place.set_xticks(range(len(labels)), list(labels.values()))
    place.set(ylabel="test accuracy", xlim=(-0.5, len(labels) - 0.5))
    place.set_title(
        f"{numbers['dataset']}: a dot for each seed,\nmean and 95 % interval",
        loc="left",
    )
    place.tick_params(axis="x", labelsize=9)
    return figure


def draw_points(
    place: Axes, x: float, points: Sequence[float], estimate: Sequence[Any]
) -> None:
    """Draw points side by side, and their mean with its interval."""
    mean, low, high = estimate
    spread = (
        x + 0.16 * np.linspace(-1, 1, len(points)) if len(points) > 1 else np.full(1, x)
    )
    style = {
        "color": COLOURS["mini-batch"],
        "markersize": 5,
        "alpha": 0.75,
        "markeredgewidth": 0,
    }
    place.plot(spread, points, "o", **style)
    ends = None if low is None else [[mean - low], [high - mean]]
    bar = {
        "color": COLOURS["exact"],
        "capsize": 5,
        "lw": 1.4,
        "marker": "_",
        "markersize": 14,
    }
    place.errorbar([x], [mean], yerr=ends, zorder=3, **bar)


def draw_voices(numbers: dict[str, Any], labels: dict[str, str]) -> Figure:
    """Draw the accuracies for shared speakers, for each new speaker, and their mean."""
    figure, axes = new_figure(width=9.5, height=4)
    place, speakers = axes[0, 0], numbers["speakers"]
    for k, (row, (colour, marker)) in enumerate(
        zip(numbers["digits"], MODELS, strict=False)
    ):
        at = np.arange(len(speakers) + 2) + 0.15 * (
            k - (len(numbers["digits"]) - 1) / 2
        )
        middles = [row["shared"][0], *row["by_speaker"], row["left_out"][0]]
        place.plot(
            at,
            middles,
            marker,
            color=COLOURS[colour],
            markersize=6,
            label=labels[row["model"]],
            zorder=3,
        )
        for x, (mean, low, high) in ((at[0], row["shared"]), (at[-1], row["left_out"])):
            if low is not None and high is not None:
                ends = [[mean - low], [high - mean]]
                place.errorbar(
                    [x],
                    [mean],
                    yerr=ends,
                    color=COLOURS[colour],
                    capsize=3,
                    lw=1.4,
                    fmt="none",
                )
    for edge in (0.5, len(speakers) + 0.5):
        place.axvline(edge, color=COLOURS["data"], lw=1)
    place.set_xticks(
        range(len(speakers) + 2),
        ["shared", *speakers, "mean of the six" if len(speakers) == 6 else "mean"],
    )
    place.set(ylabel="test accuracy", ylim=(0, 1.03))
    place.set_title(
        "Spoken digits: shared speakers (left), each left out (middle), their mean "
        "(right)",
        loc="left",
    )
    place.legend(loc="lower left", ncols=4)
    return figure
