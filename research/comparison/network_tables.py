"""Write the answer and the tables of a study on networks from its numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from research import runs
from research.comparison.network_contenders import decay_name
from research.comparison.tables import MOST_NAMED, and_more, short
from research.statistics.measured import DIVERGED, all_diverged, at_most

Numbers = Mapping[str, Any]
NOT_MEASURED = "not measured"


def answer(numbers: Numbers) -> str:
    """Return the answer of a study on networks in a few sentences.

    `numbers` is the field `numbers` of the study's result. For each rule, the answer
    compares the validation loss of the rule with that of the baseline. The answer also
    gives the smallest factor between two losses that the study could detect. For
    several rules, it gives the range of these factors. If all trainings of a rule and
    of the baseline diverged, it says so and gives no factor. If independent searches of
    one rule on one network led to different losses, the answer names the rule and the
    network, for up to three such pairs. In the same way, the answer names up to three
    pairs for which all trainings diverged. The example prints only the beginning of the
    answer. Its last word, "a", is the name of the network.

    Example:
      >>> one = {"rule": "muon", "baseline": "adam", "verdict": "better"}
      >>> one |= {"loss_ratio": 0.93, "loss_low": 0.9, "loss_high": 0.96}
      >>> one |= {
      ...     "steps": 0.72,
      ...     "steps_low": 0.65,
      ...     "steps_high": 0.8,
      ...     "detectable": 1.04,
      ... }
      >>> print(
      ...     answer({"overall": [one], "networks": ["a"], "cells": []}).split(". ")[0]
      ... )
      muon reaches 0.93 [0.9, 0.96] times the validation loss of adam on a
    """
    where = (
        numbers["networks"][0]
        if len(numbers["networks"]) == 1
        else f"{len(numbers['networks'])} networks"
    )
    parts = [
        f"All trainings of {one['rule']} and {one['baseline']} on {where} diverged."
        if all_diverged(one, numbers)
        else _sentence(one, where)
        for one in sorted(numbers["overall"], key=lambda one: one["loss_ratio"])
    ]
    parts.append(_detectable(numbers))
    hard = [one for one in numbers["cells"] if one["searches_disagree"]]
    if hard:
        parts.append(f"Independent searches disagree (hard to tune): {_named(hard)}.")
    lost = [one for one in numbers["cells"] if one["reported_diverged"] == 1]
    if lost:
        parts.append(f"Every training diverged: {_named(lost)}.")
    return " ".join(parts)


def _detectable(numbers: Numbers) -> str:
    """Return a sentence with the smallest factor that the study could have detected."""
    factors = sorted(
        one["detectable"]
        for one in numbers["overall"]
        if not all_diverged(one, numbers)
    )
    written = [f"{f:.3g}" if f >= 1.005 else f"{f:.4g}" for f in factors]  # Not "1".
    if not factors:
        return "So this study cannot detect any factor of the loss."
    start = "The smallest factor of the loss that this study could detect is"
    if len(factors) == 1:
        return f"{start} {written[0]}."
    return f"{start} {written[0]} to {written[-1]}, depending on the rule."


def _named(cells: Sequence[Numbers]) -> str:
    pairs = [f"{one['rule']} on {one['network']}" for one in cells[:MOST_NAMED]]
    return ", ".join(pairs) + and_more(len(cells) - MOST_NAMED)


def _sentence(one: Numbers, where: str) -> str:
    loss = _interval(one, "loss_ratio", "loss_low", "loss_high")
    steps = None
    if one["steps"] is not None:
        ends = f"[{short(one['steps_low'])}, {short(one['steps_high'])}]"
        steps = f"{at_most(one)}{short(one['steps'])} {ends}"
    if one["verdict"] == "undecided":
        of_steps = f"; {steps} times the steps for the same loss" if steps else ""
        return (
            f"{one['rule']} and {one['baseline']} are not distinguishable on {where} "
            f"({loss} times the validation loss{of_steps})."
        )
    of_steps = (
        f" It needs {steps} times the steps of {one['baseline']} for the same loss."
        if steps
        else ""
    )
    return (
        f"{one['rule']} reaches {loss} times the validation loss of {one['baseline']} "
        f"on {where}.{of_steps}"
    )


def _interval(one: Numbers, ratio: str, low: str, high: str) -> str:
    return f"{short(one[ratio])} [{short(one[low])}, {short(one[high])}]"


def tables(numbers: Numbers) -> tuple[runs.Table, ...]:
    """Return the two tables of a study on networks: `losses_table`, `choices_table`.

    The first table has the validation losses, and the second the hyper-parameters that
    the searches chose. The functions with these names make the tables. `numbers` is the
    field `numbers` of the study's result.
    """
    return losses_table(numbers), choices_table(numbers)


def losses_table(numbers: Numbers) -> runs.Table:
    """Return a table with the validation loss and the relative steps of each rule.

    The relative steps are the number of steps of a rule, divided by the number of steps
    with which the baseline reaches the same loss. `numbers` is the field `numbers` of
    the study's result. The table has one row for each pair (network, rule).
    """
    compared = {(one["network"], one["rule"]): one for one in numbers["comparisons"]}
    order = list(numbers["networks"])
    cells = sorted(
        numbers["cells"], key=lambda one: (order.index(one["network"]), one["loss"])
    )
    baseline = numbers["baseline"]
    columns = (
        "network",
        "rule",
        "validation loss",
        "low",
        "high",
        f"loss, times {baseline}'s",
        "interval",
        "verdict",
        f"steps for equal loss, times {baseline}'s",
        "interval of steps",
        f"seconds for equal loss, times {baseline}'s",
        "test accuracy",
    )
    rows = tuple(
        (
            *(
                one[name]
                for name in ("network", "rule", "loss", "loss_low", "loss_high")
            ),
            *_beside(compared.get((one["network"], one["rule"])), numbers),
            "none" if one["accuracy"] is None else f"{100 * one['accuracy']:.1f} %",
        )
        for one in cells
    )
    protocol = numbers["protocol"]
    note = (
        "The validation loss at the end of the schedule is the geometric mean over "
        f"{protocol['searches']} independent searches and {len(protocol['seeds'])} "
        "seeds; a training that diverged counts as ten times its initial loss. The "
        f"{100 * protocol['level']:g} % intervals cover other searches and other "
        "seeds; those of ratios are corrected for the number of rules and networks. "
        "Steps for equal loss: the rule's steps divided by the steps with which "
        f"{baseline} reaches the same loss, from trainings of {baseline} with 0.5 to 2 "
        "times the steps; its interval takes this curve of the baseline as exact. "
        '"At most" and "at least" mark losses outside the range. Seconds for equal '
        "loss: this ratio of steps times the ratio of the times of a step; a bound "
        "where the steps are one. Test accuracy is not used for any choice."
    )
    return runs.Table("Validation loss at the end", columns, rows, note)


def _beside(one: Numbers | None, numbers: Numbers) -> tuple[Any, ...]:
    if one is None:
        return 1.0, "baseline", "", 1.0, "", 1.0
    if all_diverged(one, numbers):
        return DIVERGED, "", one["verdict"], *(NOT_MEASURED,) * 3
    ends = f"[{short(one['loss_low'])}, {short(one['loss_high'])}]"
    steps, interval = NOT_MEASURED, NOT_MEASURED
    if one["steps"] is not None:
        steps = at_most(one) + short(one["steps"])
        interval = f"[{short(one['steps_low'])}, {short(one['steps_high'])}]"
    seconds = NOT_MEASURED if one["seconds"] is None else one["seconds"]
    return one["loss_ratio"], ends, one["verdict"], steps, interval, seconds


def choices_table(numbers: Numbers) -> runs.Table:
    """Return the table of the chosen hyper-parameters, and of the cost of a step.

    `numbers` is the field `numbers` of the study's result. The table has one row for
    each pair (network, rule).
    """
    columns = (
        "network",
        "rule",
        "best rates",
        "warm-up",
        "decay",
        "spread of the searches",
        "decades of rate within 10 %",
        "diverged",
        "RMS of updates",
        "milliseconds a step",
        "trainings",
    )
    rows = tuple(_choice(one) for one in numbers["cells"])
    note = (
        "The best choice is that of the search with the lowest validation loss on "
        "its tuning seeds. The spread is the highest loss of a search divided by the "
        "lowest. Decades: range of rates around the best choice whose loss is within "
        "10 % of the lowest; none if all runs at these rates diverge. Diverged: share "
        "of the first trials' runs. RMS of updates: root mean square over parameters "
        "and steps."
    )
    return runs.Table("What was chosen", columns, rows, note)


def _choice(one: Numbers) -> tuple[Any, ...]:
    chosen = dict(one["chosen"])
    for name in ("warmup", "decay"):
        chosen.pop(name, None)
    warmup, searched = one["warmup"], bool(one["hyperparameters"])
    rates = ", ".join(f"{name} {short(value)}" for name, value in chosen.items())
    spread = f"{one['search_spread']:.3g}"
    low, high = one["robust_low"], one["robust_high"]
    seconds = one["seconds_per_step"]
    return (
        one["network"],
        one["rule"],
        rates or "nothing to choose",
        f"{100 * warmup:.0f} %" if searched else "its own",
        decay_name(one["decay"]) if searched else "its own",
        f"{spread}, they disagree" if one["searches_disagree"] else spread,
        "none" if low is None else math.log10(high / low),
        f"{100 * one['diverged']:.0f} %",
        "not finite" if one["update_rms"] is None else one["update_rms"],
        NOT_MEASURED if seconds is None else 1e3 * seconds,
        one["trainings"],
    )
