"""From what became of each rule on each workload to what may be said."""

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.checks import (
    check_count,
    check_instance,
    check_sequence,
    check_text,
    shown,
)
from research.comparison._contenders import Contender
from research.comparison.answers import HALF, answer
from research.comparison.pairs import scores_of
from research.comparison.protocol import Protocol
from research.comparison.study import FORMAT, Study, as_number
from research.comparison.tables import study_tables
from research.statistics.bootstrap import choice_weights
from research.statistics.differences import Overall, difference, overall
from research.statistics.profiles import performance_profile
from research.statistics.scores import Scores
from research.types import Saved

FACTORS = 2.0 ** np.linspace(
    0, 5, 41
)  # At which a performance profile is looked at: 1 to 32 times the best.


def conclude(
    protocol: Protocol,
    baseline: str,
    bring: Sequence[Contender],
    found: Mapping[tuple[str, str], Saved],
) -> Study:
    """The study, from what became of each (workload, rule); `measure_pairs` has an example.

    Args:
      protocol, bring: From `plan`.
      baseline: The name of the rule that the others are compared with.
      found: From `measure_pairs`.
    Returns:
      The study: each rule beside the baseline on each workload and on all together (`difference`, `overall`), with a
      performance profile.
    """
    check_instance("protocol", protocol, Protocol, "Take it from plan.")
    check_text("baseline", baseline)
    check_sequence("bring", bring, "contenders", Contender)
    _check_found(found)
    if baseline not in [contender.name for contender in bring]:
        raise ValueError(
            f"baseline must be one of the rules, {', '.join(c.name for c in bring)}; got baseline={baseline!r}."
        )
    if missing := [c.name for c in bring if c.name not in {rule for _, rule in found}]:
        raise ValueError(
            f"found must hold what each rule did; it has nothing of {', '.join(missing)}."
        )
    names = [contender.name for contender in bring]
    on = list(dict.fromkeys(workload for workload, _ in found))
    others = [name for name in names if name != baseline]
    settings = {"trials": protocol.budget, "level": protocol.level}
    scores = {key: scores_of(saved.arrays) for key, saved in found.items()}
    comparisons, together = [], []
    for rule in others:
        both = [(scores[workload, rule], scores[workload, baseline]) for workload in on]
        each = [
            difference(*pair, comparisons=len(others) * len(on), **settings)
            for pair in both
        ]
        for workload, seen in zip(on, each, strict=True):
            comparisons.append(
                {"workload": workload, "rule": rule, "baseline": baseline}
                | as_number(seen)
            )
        reached = [(_reaches(found[w, rule]), _reaches(found[w, baseline])) for w in on]
        seen = _together(
            both,
            reached,
            [d.verdict for d in each],
            comparisons=len(others),
            **settings,
        )
        together.append({"rule": rule, "baseline": baseline} | as_number(seen))
    cells = [saved.values for saved in found.values()]
    costs = np.array(
        [[_cost(found[workload, rule]) for rule in names] for workload in on]
    )
    profile = performance_profile(costs, FACTORS)
    arrays = {
        f"{w}/{r}/{name}": array
        for (w, r), saved in found.items()
        for name, array in saved.arrays.items()
    }
    arrays |= {"profile/factors": FACTORS} | {
        f"profile/{rule}": row for rule, row in zip(names, profile, strict=True)
    }
    numbers = {
        "study": FORMAT,
        "protocol": protocol._asdict() | {"reported_on": protocol.reported_on},
        "baseline": baseline,
        "rules": names,
        "sources": {
            contender.name: source_digest(contender.make_rule) for contender in bring
        },
        "evaluations": {c.name: c.evaluations for c in bring},
        "spaces": {
            c.name: {name: list(found_range) for name, found_range in c.space.items()}
            for c in bring
        },
        "workloads": on,
        "cells": cells,
        "comparisons": comparisons,
        "overall": together,
    }
    return Study(answer(numbers), study_tables(numbers), arrays, numbers)


def _check_found(found: Mapping[tuple[str, str], Saved]) -> None:
    fits = isinstance(found, Mapping) and all(
        isinstance(key, tuple) and len(key) == 2 for key in found
    )
    if (
        not fits
        or not found
        or not all(isinstance(saved, Saved) for saved in found.values())
    ):
        raise TypeError(
            f"found must map (workload, rule) to what measure_pair gives; got found={shown(found)}."
        )


def leader(found: Mapping[tuple[str, str], Saved], *, trials: int) -> str:
    """The rule that the tuning seeds speak for, so that reporting it on the others is no choice after the fact.

    It has the least geometric mean, over workloads, of its score over the best of all rules.

    Args:
      found: From `measure_pairs`.
      trials: The budget: a rule that made more counts as the expected best of so many of them; 1: the defaults alone.
    Returns:
      Its name; ties go to the first.
    Example:
      >>> slow, fast = (Saved({"tuning": np.array([[9.0, 9.0], [cost, cost]])}) for cost in (4.0, 2.0))
      >>> leader({("digits", "slow"): slow, ("digits", "fast"): fast}, trials=2)
      'fast'
    """
    _check_found(found)
    check_count("trials", trials)
    logs: dict[str, float] = {}
    for workload in dict.fromkeys(workload for workload, _ in found):
        means = {
            r: s.arrays["tuning"].mean(axis=1)
            for (w, r), s in found.items()
            if w == workload
        }
        scores = {
            rule: float(choice_weights(own, trials) @ own)
            for rule, own in means.items()
        }
        for rule, score in scores.items():
            logs[rule] = logs.get(rule, 0.0) + math.log(score / min(scores.values()))
    return min(logs, key=lambda rule: logs[rule])


def source_digest(make_rule: Any) -> str | None:
    """The SHA-256 of a constructor's source, by which two studies see whether they have the same rule; None: unknown."""
    if not hasattr(
        make_rule, "__wrapped__"
    ):  # A rule that was already made shows no source of its own.
        return None
    try:
        text = inspect.getsource(inspect.unwrap(make_rule))
    except (TypeError, OSError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _together(
    both: Sequence[tuple[Scores, Scores]],
    reached: Sequence[tuple[bool, bool]],
    verdicts: Sequence[str],
    **settings: Any,
) -> Overall:
    """`overall` on the workloads where both reach the target; a workload where one alone does counts if it is decided."""
    common = [pair for pair, each in zip(both, reached, strict=True) if all(each)]
    alone = {
        one
        for one, each in zip(verdicts, reached, strict=True)
        if any(each) and not all(each)
    } - {"undecided"}
    every = overall(both, **settings)
    ratio, low, high = math.nan, 0.0, math.inf
    if len(alone) == 1:
        ratio = low = high = 0.0 if "better" in alone else math.inf
    seen = Overall(
        ratio, low, high, every.win, every.win_low, every.win_high, "undecided", 0
    )
    if common:
        seen = overall(common, **settings)._replace(
            win=every.win, win_low=every.win_low, win_high=every.win_high
        )
    decided = alone | ({seen.verdict} - {"undecided"})
    # Who does not get there where the other does is not called better, decided or not.
    refuted = {"better" for each in reached if each == (False, True)} | {
        "worse" for each in reached if each == (True, False)
    }
    verdict = decided.pop() if len(decided) == 1 else "undecided"
    return seen._replace(verdict="undecided" if verdict in refuted else verdict)


def _reaches(saved: Saved) -> bool:
    return saved.values["reached"] >= HALF


def _cost(saved: Saved) -> float:
    return np.inf if saved.values["cost"] is None else saved.values["cost"]
