"""The tables of speech: what each network hears, the baseline first; what a new voice costs; how rates were chosen."""

from collections.abc import Mapping
from typing import Any

from research.runs import Table, dashed


def speech_tables(
    numbers: Mapping[str, Any], labels: Mapping[str, str]
) -> tuple[Table, ...]:
    """All tables of the experiment spoken_words; the first is what the terminal shows.

    Args:
      numbers: Of the experiment.
      labels: What each model is called.
    """
    tables = [first_table(numbers, labels)]
    if numbers["digits"] is not None:
        tables.append(digits_table(numbers, labels))
    if numbers["tried"]:
        tables.append(tried_table(numbers, labels))
    return tuple(tables)


def first_table(numbers: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    """The test accuracy of each model on the first set."""
    rows = numbers["first"]
    return Table(
        f"Test accuracy on {numbers['dataset']}",
        ("model", "test accuracy", "low", "high", "parameters", "seconds", "peak rate"),
        tuple(
            dashed(
                (
                    labels[r["model"]],
                    *r["accuracy"],
                    r["parameters"],
                    r["seconds"],
                    r["rate"],
                )
            )
            for r in rows
        ),
        f"Mean over {numbers['seeds']} seeds and its 95 % t interval; the first row is the simple baseline, at its exact "
        "optimum. Seconds are those of one training (median), without compilation.",
    )


def digits_table(numbers: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    """The test accuracy of each model on spoken digits, with speakers shared and with one left out."""
    train, test, left_out = numbers["parts"]
    rows = numbers["digits"]
    return Table(
        "Spoken digits: speakers shared, and one left out",
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
            dashed((labels[r["model"]], *r["shared"], *r["left_out"], *r["by_speaker"]))
            for r in rows
        ),
        f"Shared: the set's own split, {train} and {test} recordings, each speaker in both; mean over "
        f"{numbers['word_seeds']} seeds (interval: three or more). Left out: learnt from all other speakers, asked about the "
        f"{left_out} recordings of one; mean over the speakers (their own scores are to the right) and its 95 % t interval.",
    )


def tried_table(numbers: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    """What was tried on examples held out of the first set's training part."""
    return Table(
        "How the rates were chosen",
        ("model", "peak rate", "loss on what was held out", "accuracy"),
        tuple(
            (labels[r["model"]], r["rate"], r["loss"], r["accuracy"])
            for r in numbers["tried"]
        ),
        f"Means over {numbers['choices']} trainings; for each, a fifth of each class of the training part was held out anew. "
        "The rate with the least loss is used.",
    )
