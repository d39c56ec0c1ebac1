"""Compute the verdict of a study from its measurements."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.checks import (
    check_flag,
    check_instance,
    check_sequence,
    check_text,
    shown,
)
from research.comparison.archive import FORMAT, Study
from research.comparison.contenders import Contender, check_free
from research.comparison.measurements import budget_of, logs_of
from research.comparison.origins import origin
from research.comparison.protocol import Protocol
from research.comparison.tables import answer, study_tables
from research.statistics.profiles import performance_profile
from research.statistics.searches import SearchedDifference, searched_difference
from research.types import Saved
from research.verification.rule_under_test import source_digest

Measurements = Mapping[tuple[str, str], Saved]

# Factors of a performance profile: 1 to 32 times the lowest cost.
FACTORS = 2.0 ** np.linspace(0, 5, 41)
# Name that stands instead of a rule's in the names of arrays, and what it stands for.
RESERVED = ("factors", "the factors of the performance profile")


def conclude(
    protocol: Protocol,
    baseline: str,
    contenders: Sequence[Contender],
    measurements: Measurements,
) -> Study:
    """Compute the verdicts and tables of a study from its measurements.

    Args:
      protocol: Protocol of the comparison, from `plan`.
      baseline: Name of the rule with which the others are compared.
      contenders: Rules with their search spaces, from `plan`.
      measurements: Result of `measure_contenders`: a dict from (name of the workload,
        name of the rule) to the measurement.
    Returns:
      The study. The study compares each rule with the baseline, on each workload and on
      all workloads together (`searched_difference`). A cost is the number of passes
      over the data until a target is reached. The arrays of the study include a
      performance profile of each rule. The profile has one number for each of 41
      factors x from 1 to 32, log-spaced: the share of workloads on which the cost of
      the rule is at most x times the lowest cost of all rules.
    Raises:
      ValueError, TypeError: An argument has the wrong type, `baseline` is not one of
        the rules, a rule has the name "factors" (which the arrays of the study use), or
        a rule was not measured on one of the workloads.
    """
    check_instance("protocol", protocol, Protocol, "Take it from plan.")
    check_text("baseline", baseline)
    check_sequence("contenders", contenders, "contenders", Contender)
    _check_measurements(measurements)
    names = [contender.name for contender in contenders]
    _check_names(baseline, names, measurements)
    comparisons, together = _compare_all(protocol, baseline, contenders, measurements)
    arrays = _arrays(names, measurements)
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
        "ratio": together[0]["ratio"] if together else None,
        "origin": origin(contenders),
    }
    return Study(answer(numbers), study_tables(numbers), arrays, numbers)


def _compare_all(
    protocol: Protocol,
    baseline: str,
    contenders: Sequence[Contender],
    measurements: Measurements,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare each rule with the baseline, on each workload and on all together."""
    workloads = _workloads(measurements)
    others = [one.name for one in contenders if one.name != baseline]
    logs = {
        (workload, one.name): _logs(measurements[workload, one.name], one, protocol)
        for workload in workloads
        for one in contenders
    }
    comparisons, together = [], []
    for rule in others:
        pairs = [(logs[w, rule], logs[w, baseline]) for w in workloads]
        both = {"rule": rule, "baseline": baseline}
        for workload, pair in zip(workloads, pairs, strict=True):
            one = searched_difference(
                [pair], comparisons=len(others) * len(workloads), level=protocol.level
            )
            comparisons.append({"workload": workload} | both | _as_json(one))
        one = searched_difference(pairs, comparisons=len(others), level=protocol.level)
        together.append(both | _as_json(one))
    return comparisons, together


def _logs(measured: Saved, contender: Contender, protocol: Protocol) -> np.ndarray:
    budget = budget_of(measured.arrays, contender.evaluations, protocol)
    return logs_of(measured.arrays, budget)


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
    arrays |= {f"profile/{RESERVED[0]}": FACTORS}
    return arrays | {
        f"profile/{rule}": row for rule, row in zip(names, profile, strict=True)
    }


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
    check_free(names, *RESERVED)
    if baseline not in names:
        raise ValueError(
            f"baseline must be one of the rules, {', '.join(names)}; got "
            f"baseline={baseline!r}."
        )
    missing = [
        f"{name} on {workload}"
        for workload in _workloads(measurements)
        for name in names
        if (workload, name) not in measurements
    ]
    if missing:
        raise ValueError(
            "measurements must contain every rule on every workload; missing: "
            f"{', '.join(missing)}."
        )


def leader(measurements: Measurements, *, tuned: bool = True) -> str:
    """Return the name of the rule that is best on the tuning seeds.

    In a study, searches choose the hyper-parameters of each rule on the tuning seeds,
    and the results are measured on the reporting seeds. The cost of a run is the number
    of passes over the data until a target is reached. The score of a rule on a workload
    is its mean log cost on the tuning seeds, averaged over the searches. The best rule
    has the lowest mean score over the workloads. No reporting seed is used for this
    choice, so the choice does not bias the results on the reporting seeds.

    Args:
      measurements: Result of `measure_contenders`.
      tuned: If True, the score of a rule is computed with the hyper-parameters that
        each search chose. If False, the score is computed with the rule's defaults, and
        only on the screening seeds, which are the first tuning seeds of each search.
    Returns:
      Name of the rule. If several rules have the lowest score, the first of them.
    Example:
      >>> slow, fast = (
      ...     Saved({"tuning": np.log([cost, cost])}, {}) for cost in (4.0, 2.0)
      ... )
      >>> leader({("digits", "slow"): slow, ("digits", "fast"): fast})
      'fast'
    """
    _check_measurements(measurements)
    check_flag("tuned", tuned)
    scores: dict[str, list[float]] = {}
    for (_, rule), saved in measurements.items():
        own = saved.arrays["tuning"] if tuned else saved.arrays["screening"][:, 0]
        scores.setdefault(rule, []).append(float(own.mean()))
    return min(scores, key=lambda rule: float(np.mean(scores[rule])))


def _cost(measurement: Saved) -> float:
    cost = measurement.values["cost"]
    return np.inf if cost is None else cost


def _as_json(comparison: SearchedDifference) -> dict[str, Any]:
    """Return the fields as values for JSON, with None for NaN."""
    return {name: _plain(value) for name, value in comparison._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return int(value) if isinstance(value, int | np.integer) else value
