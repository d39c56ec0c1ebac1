"""What a comparison found, in a sentence or two."""

import math
from collections.abc import Mapping
from typing import Any

from research.statistics.bootstrap import ROUNDING

HALF = (
    0.5  # A rule reaches the target on a workload if so many of its reported runs do.
)


def answer(numbers: Mapping[str, Any]) -> str:
    """The answer in a sentence or two: two rules by name, more of them counted.

    Example:
      >>> one = {"rule": "mine", "baseline": "adam", "ratio": 0.71, "low": 0.64, "high": 0.79, "win": 0.9, "workloads": 2}
      >>> answer({"workloads": ["a", "b"], "overall": [one | {"verdict": "better"}], "cells": [], "comparisons": []})
      "mine needs 0.71 [0.64, 0.79] of adam's example gradients to reach the target on 2 of 2 workloads."
    """
    if len(numbers["overall"]) == 1:
        return _sentence(numbers["overall"][0], numbers)
    parts = []
    for verdict, words in _VERDICTS.items():
        found = sorted(
            (o for o in numbers["overall"] if o["verdict"] == verdict),
            key=lambda o: sortable(o["ratio"]),
        )
        if found:
            listed = ", ".join(
                f"{o['rule']} ({interval(o)}{_share(o, numbers)})"
                for o in found[:MOST_NAMED]
            )
            parts.append(f"{words} {listed}{_more(len(found) - MOST_NAMED)}")
    never = _never(numbers)
    return f"Example gradients to the target, beside {numbers['baseline']}'s: {'; '.join(parts)}.{never and ' ' + never}"


def _share(one: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """On how many workloads both reach the target, where that is not all of them."""
    total = len(numbers["workloads"])
    return f" on {one['workloads']} of {total}" if 0 < one["workloads"] < total else ""


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


_VERDICTS = {
    "better": "fewer for",
    "worse": "more for",
    "undecided": "not distinguishable at this budget for",
}
MOST_NAMED = 3


def _sentence(one: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    rule, baseline, names = one["rule"], one["baseline"], numbers["workloads"]
    where = (
        names[0] if len(names) == 1 else f"{one['workloads']} of {len(names)} workloads"
    )
    never = _never(numbers)
    if not one["workloads"]:
        winner = {"better": rule, "worse": baseline}.get(one["verdict"])
        alone = (
            f"{winner} alone reaches it."
            if winner
            else "Nothing can be said of the two."
        )
        text = f"On no workload do both {rule} and {baseline} reach the target. {alone}"
    elif one["high"] < 1 - ROUNDING or one["low"] > 1 + ROUNDING:
        times = "times " if one["ratio"] > 1 else "of "
        text = f"{rule} needs {interval(one)} {times}{baseline}'s example gradients to reach the target on {where}."
    else:
        text = (
            f"{rule} and {baseline} are not distinguishable at this budget ({rule} needs {interval(one)} of its example "
            f"gradients on {where}): {_how_many_more(one, numbers)}."
        )
    return f"{text} {never}" if never else text


def _how_many_more(one: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    absent = {cell["workload"] for cell in numbers["cells"] if cell["reached"] < HALF}
    own = [
        c
        for c in numbers["comparisons"]
        if c["rule"] == one["rule"] and c["workload"] not in absent
    ]
    needed = [c["more_seeds"] for c in own]
    if not needed or min(needed) < 0:
        return "to detect 10 % takes more tuning seeds, or trials that reach the target on every seed"
    if max(needed) == 0:
        return "10 % would have shown in four of five such studies"
    return f"{max(needed)} more seeds would detect 10 %{' on each' if len(numbers['workloads']) > 1 else ''}"


def _never(numbers: Mapping[str, Any]) -> str:
    """Which rules did not reach the target, and where."""
    places: dict[str, list[str]] = {}
    for cell in numbers["cells"]:
        if cell["reached"] < HALF:
            places.setdefault(cell["rule"], []).append(cell["workload"] + _why(cell))
    told = [f"by {rule} on {', '.join(on)}" for rule, on in places.items()]
    return (
        f"Not reached: {'; '.join(told[:MOST_NAMED])}{_more(len(told) - MOST_NAMED)}."
        if told
        else ""
    )


def _why(cell: Mapping[str, Any]) -> str:
    """What a rule that did not get there did instead, where that is plain."""
    if cell["diverged"] == 1:
        return " (every training diverged)"
    return " (it ends above where it began)" if cell["final"] > 1 else ""


def interval(one: Mapping[str, Any]) -> str:
    """A ratio with its interval, "0.71 [0.64, 0.79]", or why there is none."""
    if not one["workloads"]:
        return {"better": "alone reaches it", "worse": "does not reach it"}.get(
            one["verdict"], "no common workload"
        )
    return f"{short(one['ratio'])} [{short(one['low'])}, {short(one['high'])}]"


def sortable(value: float | None) -> float:
    """A number that may be missing, missing ones last."""
    return math.inf if value is None else value


def short(value: Any) -> str:
    """A value in few characters; None is a target that was not reached."""
    if value is None:
        return "not reached"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
