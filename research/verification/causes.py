"""Find what is likely wrong with a rule.

Known mistakes are made in the reference, one after another, until the reference behaves
like the rule.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.verification.formula import Formula
from research.verification.trials import (
    Evidence,
    Trial,
    in_general,
    of_others,
    of_the_formula,
    of_two,
    of_values,
)
from research.verification.walks import Walk, distance

# A mistake is judged by this many steps after the first deviating step. Later steps
# only magnify the deviation and cost time.
STEPS_BEYOND = 10
# If the params on a function exceed this size, each step magnifies the rounding errors
# of the previous step.
FAR = 1e3

OnProgress = Callable[[float, float, str], None]


def likely_cause(
    evidence: Sequence[Evidence],
    formula: Formula | None,
    others: Mapping[str, Formula],
    dtype: Any,
    tolerance: float,
    on_progress: OnProgress | None = None,
) -> str | None:
    """Describe the mistake that makes the reference behave like the rule.

    The rule is the update rule under test. It is compared with another rule, the
    reference, which counts as correct. A mistake explains the rule if the reference
    with this mistake agrees with the rule on every problem on which the changed
    reference can be run. The first problem on which the rule deviates must be one of
    these problems. On each problem, only the steps up to a few after the first
    deviation are compared. These kinds of mistakes are tried in order: the mistakes of
    the formula, other values of the formula's arguments, other formulas, general
    mistakes (updates with a wrong sign or a wrong length, or one step late), and two
    mistakes of the formula at once. The search ends at the first kind with a mistake
    that explains the rule. If several mistakes of this kind explain the rule, the
    mistake with the smallest remaining deviation is returned. If the rule deviates only
    on problems with a NaN among the gradients, and its params stay finite there, the
    rule hides the NaN. Then only the mistakes of the formula are tried.

    Args:
      evidence: Comparisons of rule and reference, one for each problem. The rule must
        deviate from the reference on at least one of these problems.
      formula: Formula of the reference. None if the reference has no formula.
      others: Other formulas by name. The rule may follow one of them instead.
      dtype: Dtype of the rule's steps.
      tolerance: Largest deviation that counts as agreement.
      on_progress: Function called with (done, total, message) before each mistake is
        tried. total is the number of kinds of mistakes. done is the number of kinds
        tried so far, plus the fraction of the present kind's mistakes that was tried.
        None means that no function is called.
    Returns:
      Short description of the mistake. If no mistake explains the rule, the result is a
      description of a difference that is visible in the trajectories: params that are
      NaN or infinite only in the rule, a hidden NaN, or only small updates that differ.
      If there is no such difference either, the result is None.
    """
    differing = sorted(evidence, key=lambda e: e.deviation.largest <= tolerance)
    first = differing[0]
    kinds = (
        lambda: of_the_formula(formula),
        lambda: of_values(formula, first.arguments),
        lambda: of_others(others),
        lambda: in_general(first, dtype),
        lambda: of_two(formula),
    )
    for done, kind in enumerate(kinds):
        trials, explained = list(kind()), {}
        for number, trial in enumerate(trials):
            if on_progress:
                on_progress(
                    done + number / len(trials),
                    len(kinds),
                    f"trying known mistakes: {trial.cause}",
                )
            apart = _apart(trial, differing, tolerance)
            if apart is not None:
                explained[trial.cause] = apart
        if explained:
            return min(explained, key=explained.__getitem__)
        if _differs_by_a_hidden_nan(differing, tolerance):
            break  # No other rule or value has this effect.
    return _cause_without_trial(differing, tolerance)


def _apart(
    trial: Trial, evidence: Sequence[Evidence], tolerance: float
) -> float | None:
    """Return the deviation of the rule from the reference with the mistake `trial`.

    The deviation is the largest one on the problems in `evidence`. If the mistake does
    not explain the rule, the result is None.
    """
    worst = 0.0
    for number, e in enumerate(evidence):
        steps = _telling_steps(e)
        try:
            wrong = trial.walk(e, steps)
        # The value is invalid for the argument, or the formula needs more arguments:
        # such a mistake explains nothing.
        except Exception:
            if number == 0:
                return None
            continue
        found, wrong = _where_numbers(e.found, wrong, steps)
        worst = max(worst, distance(found, wrong, e.problem).largest)
        if not worst <= tolerance:
            return None
    return worst


def _telling_steps(e: Evidence) -> int:
    """Return the number of steps to compare: up to a few after the first deviation.

    Steps at which a descent diverges are excluded.
    """
    first = max(e.deviation.first, 0)
    steps = min(len(e.found.iterates), first + STEPS_BEYOND)
    if e.problem.gradients is None:
        away = ~(np.abs(e.found.iterates[:steps]) < FAR).all(axis=1)
        steps = int(np.argmax(away)) if away.any() else steps
    return max(steps, first + 1)


def _where_numbers(found: Walk, wrong: Walk, steps: int) -> tuple[Walk, Walk]:
    """Return the first steps of both trajectories, for comparison.

    A mistake may make entries NaN. Entries that are NaN in both trajectories are set to
    0, so that they count as equal.
    """
    shown_found, shown_wrong = {}, {}
    for field in ("iterates", "updates", "evaluations"):
        a, b = getattr(found, field), getattr(wrong, field)
        if a is None or b is None:
            shown_found[field] = shown_wrong[field] = None
        else:
            both = np.isnan(a[:steps]) & np.isnan(b[:steps])
            shown_found[field], shown_wrong[field] = (
                np.where(both, 0.0, a[:steps]),
                np.where(both, 0.0, b[:steps]),
            )
    return found._replace(**shown_found), wrong._replace(**shown_wrong)


def _cause_without_trial(evidence: Sequence[Evidence], tolerance: float) -> str | None:
    """Describe a difference that the trajectories show, without trying any mistake.

    An example is params that are NaN only in the rule. If there is none, return None.
    """
    differing = [e for e in evidence if e.deviation.largest > tolerance]
    for e in differing:
        step = e.deviation.first
        found, expected = e.found.iterates[step], e.expected.iterates[step]
        bad = ~np.isfinite(found) & np.isfinite(expected)
        if bad.any():
            kind = "NaN" if np.isnan(found[bad]).any() else "infinite"
            return (
                f"its params are {kind} after step {step + 1} on {e.problem.name}, "
                "where those of the reference are finite"
            )
    if all(_agrees_but_for_small_updates(e, tolerance) for e in differing):
        return (
            "only rounding of the params. The params agree, but updates that are much "
            "smaller than the params do not, as if the rule computed updates by "
            "subtracting params"
        )
    if _differs_by_a_hidden_nan(evidence, tolerance):
        return "it hides a NaN in the gradient, which the reference passes on"
    return None


def _agrees_but_for_small_updates(e: Evidence, tolerance: float) -> bool:
    found, expected = e.found.iterates, e.expected.iterates
    with np.errstate(invalid="ignore"):  # Both may be infinite.
        near = np.abs(found - expected) <= tolerance * (1.0 + np.abs(expected))
    return e.problem.gradients is not None and bool(near.all())


def _differs_by_a_hidden_nan(evidence: Sequence[Evidence], tolerance: float) -> bool:
    differing = [e for e in evidence if e.deviation.largest > tolerance]
    return all(e.problem.nan and np.isfinite(e.found.iterates).all() for e in differing)
