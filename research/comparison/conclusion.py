"""Compute the verdict of a study from its measurements."""

import hashlib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from research.checks import (
    check_count,
    check_instance,
    check_mapping,
    check_sequence,
    check_text,
    shown,
)
from research.comparison.archive import FORMAT, Study
from research.comparison.contenders import Contender
from research.comparison.measurements import HALF
from research.comparison.protocol import Protocol
from research.comparison.tables import answer, study_tables
from research.statistics.bootstrap import choice_weights
from research.statistics.differences import Difference, Overall, difference, overall
from research.statistics.profiles import performance_profile
from research.statistics.scores import Scores
from research.types import Saved

Measurements = Mapping[tuple[str, str], Saved]

# Factors of a performance profile: 1 to 32 times the lowest cost.
FACTORS = 2.0 ** np.linspace(0, 5, 41)


def conclude(
    protocol: Protocol,
    baseline: str,
    contenders: Sequence[Contender],
    measurements: Measurements,
) -> Study:
    """Make a study from its measurements; `measure_contenders` has an example.

    Args:
      protocol, contenders: Results of `plan`.
      baseline: Name of the rule with which the others are compared.
      measurements: Result of `measure_contenders`.
    Returns:
      The study. It compares each rule with the baseline on each workload
      (`difference`) and on all workloads together (`overall`), and has a performance
      profile.
    """
    check_instance("protocol", protocol, Protocol, "Take it from plan.")
    check_text("baseline", baseline)
    check_sequence("contenders", contenders, "contenders", Contender)
    _check_measurements(measurements)
    names = [contender.name for contender in contenders]
    _check_names(baseline, names, measurements)
    comparisons, together = _compare_all(protocol, baseline, names, measurements)
    numbers = {
        "study": FORMAT,
        "protocol": protocol._asdict() | {"reported_on": protocol.reported_on},
        "baseline": baseline,
        "rules": names,
        "sources": {c.name: source_digest(c.make_rule) for c in contenders},
        "evaluations": {c.name: c.evaluations for c in contenders},
        "spaces": {
            c.name: {name: list(range_) for name, range_ in c.space.items()}
            for c in contenders
        },
        "workloads": _workloads(measurements),
        "cells": [measurement.values for measurement in measurements.values()],
        "comparisons": comparisons,
        "overall": together,
    }
    arrays = _arrays(names, measurements)
    return Study(answer(numbers), study_tables(numbers), arrays, numbers)


def _compare_all(
    protocol: Protocol,
    baseline: str,
    names: Sequence[str],
    measurements: Measurements,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare each rule with the baseline, on each workload and on all together."""
    workloads = _workloads(measurements)
    others = [name for name in names if name != baseline]
    settings = {"trials": protocol.budget, "level": protocol.level}
    scores = {key: scores_of(saved.arrays) for key, saved in measurements.items()}
    reached = {key: _reaches(saved) for key, saved in measurements.items()}
    comparisons, together = [], []
    for rule in others:
        both = [(scores[w, rule], scores[w, baseline]) for w in workloads]
        count = len(others) * len(workloads)
        each = [difference(*pair, comparisons=count, **settings) for pair in both]
        comparisons += [
            {"workload": w, "rule": rule, "baseline": baseline} | _as_json(one)
            for w, one in zip(workloads, each, strict=True)
        ]
        one = _together(
            both,
            [(reached[w, rule], reached[w, baseline]) for w in workloads],
            [one.verdict for one in each],
            comparisons=len(others),
            **settings,
        )
        together.append({"rule": rule, "baseline": baseline} | _as_json(one))
    return comparisons, together


def _arrays(names: Sequence[str], measurements: Measurements) -> dict[str, np.ndarray]:
    """Return the arrays of all measurements, and the performance profile."""
    costs = np.array(
        [
            [_cost(measurements[workload, rule]) for rule in names]
            for workload in _workloads(measurements)
        ]
    )
    profile = performance_profile(costs, FACTORS)
    arrays = {
        f"{workload}/{rule}/{name}": array
        for (workload, rule), measurement in measurements.items()
        for name, array in measurement.arrays.items()
    }
    arrays |= {"profile/factors": FACTORS}
    return arrays | {
        f"profile/{rule}": row for rule, row in zip(names, profile, strict=True)
    }


def scores_of(arrays: Mapping[str, Float[np.ndarray, "..."]]) -> Scores:
    """Return the scores of a measurement, from which its statistics are computed.

    Args:
      arrays: Arrays of the measurement; `tuning`, `costs` and `passes` are used.
    Returns:
      The tuning scores, costs and budget.
    Example:
      >>> arrays = {"tuning": np.ones((4, 3)), "costs": np.ones((4, 20))}
      >>> scores_of(arrays | {"passes": np.arange(6.0)}).budget
      5.0
    """
    check_mapping("arrays", arrays, "names to arrays")
    return Scores(arrays["tuning"], arrays["costs"], float(arrays["passes"][-1]))


def _workloads(measurements: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(workload for workload, _ in measurements))


def _check_measurements(measurements: Any) -> None:
    fits = isinstance(measurements, Mapping) and all(
        isinstance(key, tuple) and len(key) == 2 for key in measurements
    )
    if (
        not fits
        or not measurements
        or not all(isinstance(saved, Saved) for saved in measurements.values())
    ):
        raise TypeError(
            "measurements must map (workload, rule) to results of measure_contender; "
            f"got measurements={shown(measurements)}."
        )


def _check_names(
    baseline: str, names: Sequence[str], measurements: Measurements
) -> None:
    if baseline not in names:
        raise ValueError(
            f"baseline must be one of the rules, {', '.join(names)}; got "
            f"baseline={baseline!r}."
        )
    measured = {rule for _, rule in measurements}
    if missing := [name for name in names if name not in measured]:
        raise ValueError(
            "measurements must contain every rule on every workload; missing: "
            f"{', '.join(missing)}."
        )


def leader(measurements: Measurements, *, trials: int) -> str:
    """Return the name of the rule that is best on the tuning seeds.

    The choice does not use the reporting seeds, so the results on them are not biased
    by it. On each workload the score of a rule is divided by the lowest score of all
    rules. The best rule has the smallest geometric mean of these ratios over workloads.

    Args:
      measurements: Result of `measure_contenders`.
      trials: Number of trials that each rule may choose from. If a rule has more, its
        score is the expected score of the best of `trials` of them, drawn at random
        with the defaults always included. 1: only the defaults.
    Returns:
      Name of the rule; of equal rules, the first.
    Example:
      >>> slow, fast = (
      ...     Saved({"tuning": np.array([[9.0, 9.0], [cost, cost]])})
      ...     for cost in (4.0, 2.0)
      ... )
      >>> leader({("digits", "slow"): slow, ("digits", "fast"): fast}, trials=2)
      'fast'
    """
    _check_measurements(measurements)
    check_count("trials", trials)
    logs: dict[str, float] = {}
    for workload in _workloads(measurements):
        means = {
            r: s.arrays["tuning"].mean(axis=1)
            for (w, r), s in measurements.items()
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
    """Return the SHA-256 digest of a constructor's source code.

    It is None if the source is unknown. Studies with the same digest have the same
    rule.
    """
    # The source of a rule that is already made is not available.
    if not hasattr(make_rule, "__wrapped__"):
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
    """Return `overall`, computed on the workloads where both rules reach the target.

    A workload where only one rule reaches the target can decide the verdict too, if the
    comparison on this workload is decided.
    """
    common = [pair for pair, each in zip(both, reached, strict=True) if all(each)]
    alone = {
        verdict
        for verdict, each in zip(verdicts, reached, strict=True)
        if any(each) and not all(each)
    } - {"undecided"}
    every = overall(both, **settings)
    ratio, low, high = math.nan, 0.0, math.inf
    if len(alone) == 1:
        ratio = low = high = 0.0 if "better" in alone else math.inf
    result = Overall(
        ratio, low, high, every.win, every.win_low, every.win_high, "undecided", 0
    )
    if common:
        result = overall(common, **settings)._replace(
            win=every.win, win_low=every.win_low, win_high=every.win_high
        )
    decided = alone | ({result.verdict} - {"undecided"})
    # If a rule misses the target on a workload where the other reaches it, the rule is
    # never called better, even if the comparison there is undecided.
    refuted = {"better" for each in reached if each == (False, True)} | {
        "worse" for each in reached if each == (True, False)
    }
    verdict = decided.pop() if len(decided) == 1 else "undecided"
    return result._replace(verdict="undecided" if verdict in refuted else verdict)


def _reaches(measurement: Saved) -> bool:
    return measurement.values["reached"] >= HALF


def _cost(measurement: Saved) -> float:
    cost = measurement.values["cost"]
    return np.inf if cost is None else cost


def _as_json(comparison: Difference | Overall) -> dict[str, Any]:
    """Return the fields as values for JSON, with None for NaN."""
    return {name: _plain(value) for name, value in comparison._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return int(value) if isinstance(value, int | np.integer) else value
