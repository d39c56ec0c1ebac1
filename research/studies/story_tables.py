"""The tables of text classification: the baseline first, then class by class, the worst errors, how all was chosen."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from research.runs import Table, dashed


def story_tables(
    numbers: Mapping[str, Any], labels: Mapping[str, str], last: str
) -> tuple[Table, ...]:
    """All tables of the experiment text_classification; the first is what the terminal shows.

    Args:
      numbers: Of the experiment.
      labels: What each model is called, in the order of numbers["models"], the simple baseline first.
      last: The name of the model that is trained, once a seed.
    """
    models, name = numbers["models"], labels[last]
    share = models[-1]["accuracy"][0]
    main = Table(
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
                    labels[m["name"]],
                    *m["accuracy"],
                    *m["macro_f1"],
                    m["reads"],
                    m.get("seconds"),
                )
            )
            for m in models
        ),
        f"The {name}: mean over {numbers['seeds']} seeds and its 95 % t interval, which is that of starts and orders; the "
        f"draw of {numbers['n_test']:,} test stories alone makes each row uncertain by about "
        f"{196 * np.sqrt(share * (1 - share) / numbers['n_test']):.1f} points. The commonest topic alone is "
        f"{100 * max(numbers['shares']):.1f} %. {100 * numbers['whole_stories']:.0f} % of the training stories are no longer "
        f"than {numbers['words']} words. The seconds are those of one training (median), without compilation and evaluation.",
    )
    by_class = Table(
        "Topic by topic: the share that is recognised",
        ("topic", "share of the test stories", *(labels[m["name"]] for m in models)),
        tuple(
            (topic, numbers["shares"][k], *(m["by_class"][k] for m in models))
            for k, topic in enumerate(numbers["classes"])
        ),
        f"The {name}: mean over the seeds.",
    )
    errors = Table(
        f"The errors that the {name} was surest of",
        ("story", "topic", "taken for", "probability", "TF-IDF says"),
        tuple(map(tuple, numbers["worst"])),
        "Of the first seed; how each story begins.",
    )
    return main, by_class, errors, tried_table(numbers, labels, last)


def tried_table(
    numbers: Mapping[str, Any], labels: Mapping[str, str], last: str
) -> Table:
    """What was tried on the stories held out, the baselines first."""
    rows = [
        (labels[m["name"]], f"C = {strength:g}", accuracy)
        for m in numbers["models"]
        for strength, accuracy in m.get("tried", ())
    ]
    rows += [
        (labels[last], f"rate {t['rate']:g}, {t['epochs']} epochs", t["accuracy"])
        for t in numbers["tried"]
    ]
    return Table(
        "How rate, epochs and C were chosen",
        ("model", "tried", "accuracy on what was held out"),
        tuple(rows),
        f"{numbers['held_out']:,} training stories were held out. The best of each model is used, of equals the first.",
    )
