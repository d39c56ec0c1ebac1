"""What is likely wrong with a rule: the known mistakes are made in the reference, one by one, until one walks as it does."""

import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from research.proofs.formulas.formula import Formula, Mistake, mistaken
from research.proofs.problems import NUM_STEPS, Problem
from research.proofs.walks import Deviation, Walk, distance, walk, walk_exactly

# Values that users give where the default is another: each is tried in turn.
USUAL_VALUES = (
    0.0,
    0.5,
    0.8,
    0.9,
    0.95,
    0.98,
    0.99,
    0.999,
    0.9999,
    1e-1,
    1e-2,
    1e-3,
    1e-4,
    1e-6,
    1e-7,
    1e-8,
    1e-10,
    1e-16,
    1.0,
)
# A mistake is judged by this many steps beyond the first that differs: later ones only magnify, and cost time.
STEPS_BEYOND = 10

OnProgress = Callable[[float, float, str], None]


class Evidence(NamedTuple):
    """What is known of a rule on one problem.

    Attributes:
      problem: On which it was walked.
      found: Its walk.
      expected: The reference's.
      deviation: How far they lie apart.
      arguments: Of the reference's formula, learning_rate among them.
      reference: The reference in JAX, if there is one.
    """

    problem: Problem
    found: Walk
    expected: Walk
    deviation: Deviation
    arguments: dict[str, Any]
    reference: optax.GradientTransformation | None


class Trial(NamedTuple):
    """A mistake, and the walk of the reference with that mistake in it."""

    cause: str
    walk: Callable[[Evidence, int], Walk]


def likely_cause(
    evidence: Sequence[Evidence],
    formula: Formula | None,
    others: Mapping[str, Formula],
    dtype: Any,
    tolerance: float,
    on_progress: OnProgress | None = None,
) -> str | None:
    """The known mistake under which the reference walks as the rule does, on every problem.

    Tried are, in this order: the mistakes of the formula, other values of its arguments, the other formulas, what can be
    wrong with any rule (its sign, its length, a step too late), and two mistakes at once. Of those of one kind the closest
    is named.

    Args:
      evidence: By problem, at least one of which differs.
      formula: The reference's formula, if it has one.
      others: Formulas by name that the rule may be instead.
      dtype: In which the rule was walked.
      tolerance: Within which two walks are one.
      on_progress: Told (done, total, message) before each trial.
    Returns:
      The cause in a few words; None if none explains the rule.
    """
    differing = sorted(evidence, key=lambda e: e.deviation.largest <= tolerance)
    kinds = [list(_of_the_formula(formula)), _of_values(formula, differing[0].arguments), list(_of_others(others))]
    kinds += [list(_in_general(differing[0], dtype)), list(_of_two(formula))]
    done, total = 0, sum(map(len, kinds))
    for trials in kinds:
        explained = {}
        for trial in trials:
            if on_progress:
                on_progress(done, total, f"trying known mistakes: {trial.cause}")
            done += 1
            apart = _apart(trial, differing, tolerance)
            if apart is not None:
                explained[trial.cause] = apart
        if explained:
            return min(explained, key=explained.__getitem__)
    return _seen(differing, tolerance)


def _apart(trial: Trial, evidence: Sequence[Evidence], tolerance: float) -> float | None:
    """How far the rule lies from the reference with that mistake, or None where the mistake does not explain it."""
    worst = 0.0
    for number, e in enumerate(evidence):
        steps = min(len(e.found.iterates), max(e.deviation.first, 0) + STEPS_BEYOND)
        try:
            wrong = trial.walk(e, steps)
        except (ArithmeticError, ValueError, TypeError):  # Some values are none of the argument's: no such rule walks.
            if number == 0:
                return None
            continue
        worst = max(worst, distance(*_where_numbers(e.found, wrong, steps), e.problem).largest)
        if not worst <= tolerance:
            return None
    return worst


def _where_numbers(found: Walk, wrong: Walk, steps: int) -> Iterator[Walk]:
    """The first steps of both; where both are NaN, as a mistake may make them, they agree."""
    for own in (found, wrong):
        pairs = (
            (a[:steps], np.isnan(b[:steps]) & np.isnan(c))
            for a, b, c in zip(own[:2], found[:2], wrong[:2], strict=True)
        )
        yield Walk(*(np.where(both, 0.0, a) for a, both in pairs), own.leaves)


def _exact(iterates: Callable[..., Any], changes: dict[str, Any] | None = None) -> Callable[[Evidence, int], Walk]:
    return lambda e, steps: walk_exactly(iterates, e.problem, steps, **{**e.arguments, **(changes or {})})


def _of_the_formula(formula: Formula | None) -> Iterator[Trial]:
    if formula is None:
        return
    for mistake in formula.mistakes:
        yield Trial(_told(mistake), _exact(mistaken(formula, mistake)))


def _of_two(formula: Formula | None) -> Iterator[Trial]:
    """Every two mistakes that can be made in the formula at once."""
    if formula is None:
        return
    source = textwrap.dedent(inspect.getsource(formula.iterates))
    for a, b in itertools.combinations(formula.mistakes, 2):
        once = source.replace(a.right, a.wrong)
        if once.count(b.right) == 1:
            both = Mistake(f"{_told(a)}, and {_told(b)}", source, once.replace(b.right, b.wrong))
            yield Trial(both.cause, _exact(mistaken(formula, both)))


def _told(mistake: Mistake) -> str:
    wrong, right = (_in_one_line(source) for source in (mistake.wrong, mistake.right))
    return f"{mistake.cause} (`{wrong}` where the formula has `{right}`)"


def _in_one_line(source: str) -> str:
    return "; ".join(line.strip() for line in source.splitlines())


def _of_values(formula: Formula | None, arguments: dict[str, Any]) -> list[Trial]:
    if formula is None:
        return []
    parameters = inspect.signature(formula.iterates).parameters
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    values = {key: arguments.get(key, default) for key, default in defaults.items()}
    trials = []
    for key, value in values.items():
        for other in _other_values(value, defaults[key]):
            cause = f"another value of an argument: {key}={_written(other)}, not {_written(value)}"
            trials.append(Trial(cause, _exact(formula.iterates, {key: other})))
    floats = [key for key, value in values.items() if type(value) is float]
    for a, b in itertools.combinations(floats, 2):
        if values[a] != values[b]:
            swapped = {a: values[b], b: values[a]}
            trials.append(Trial(f"the values of {a} and {b} are swapped", _exact(formula.iterates, swapped)))
    return trials


def _other_values(value: Any, default: Any) -> list[Any]:
    if type(value) is bool:
        return [not value]
    if type(value) is not float:
        return []
    # A share is never 1: a line search that shortens its step by that factor would never end.
    usual = [v for v in USUAL_VALUES if v < 1.0 or not (type(default) is float and 0.0 < default < 1.0)]
    return [v for v in usual if v != value]


def _written(value: Any) -> str:
    return f"{value:g}" if type(value) is float else str(value)


def _of_others(others: Mapping[str, Formula]) -> Iterator[Trial]:
    for name, formula in others.items():

        def walk_other(e: Evidence, steps: int, formula: Formula = formula) -> Walk:
            taken = inspect.signature(formula.iterates).parameters
            given = {key: value for key, value in e.arguments.items() if key in taken}
            return walk_exactly(formula.iterates, e.problem, steps, **given)

        yield Trial(f"it is another rule: {name}", walk_other)


def _in_general(first: Evidence, dtype: Any) -> Iterator[Trial]:
    if first.reference is None:
        return
    factor = _factor(first)
    if factor is not None:
        cause = f"the updates are {factor:.6g} times as long"
        if factor < 0:
            cause = "the updates have the wrong sign: they go up the gradient"
            cause += "" if factor == -1 else f", and are {-factor:.6g} times as long"
        yield Trial(cause, _changed(lambda rule: _scaled(rule, factor), dtype))
    stale = "the updates are one step stale: each is what the step before should have given"
    yield Trial(stale, _changed(_stale, dtype))


def _changed(change: Callable[[Any], Any], dtype: Any) -> Callable[[Evidence, int], Walk]:
    return lambda e, steps: walk(change(e.reference), e.problem, dtype, min(steps, NUM_STEPS))


def _factor(e: Evidence) -> float | None:
    """By what the first update is too long, where that is one number for all entries."""
    found, expected = e.found.updates[0], e.expected.updates[0]
    there = np.isfinite(found) & np.isfinite(expected) & (expected != 0)
    if not there.any():
        return None
    ratios = found[there] / expected[there]
    middle = float(np.median(ratios))
    if middle == 0.0 or np.max(np.abs(ratios - middle)) > 1e-4 * abs(middle):
        return None
    rounded = float(f"{middle:.6g}")  # Rounding of the dtype is no part of a slip; a sum of slips is.
    return rounded if abs(rounded - middle) <= 1e-6 * abs(middle) else middle


def _stale(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    rule = optax.with_extra_args_support(rule)

    def init(params):
        return rule.init(params), jax.tree.map(lambda x: 0 * x, params)

    def update(updates, state, params=None, **extra):
        now, inner = rule.update(updates, state[0], params, **extra)
        return state[1], (inner, now)

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(rule: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    rule = optax.with_extra_args_support(rule)

    def update(updates, state, params=None, **extra):
        updates, state = rule.update(updates, state, params, **extra)
        return jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(rule.init, update)


def _seen(evidence: Sequence[Evidence], tolerance: float) -> str | None:
    """What can be seen without a trial: numbers that are not finite on one side alone."""
    differing = [e for e in evidence if e.deviation.largest > tolerance]
    for e in differing:
        step = e.deviation.first
        found, expected = e.found.iterates[step], e.expected.iterates[step]
        bad = ~np.isfinite(found) & np.isfinite(expected)
        if bad.any():
            kind = "NaN" if np.isnan(found[bad]).any() else "infinite"
            return f"its params are {kind} after step {step + 1} on {e.problem.name}, where the reference's are finite"
    if all(e.problem.nan for e in differing):
        return "it hides a NaN in the gradient, which the reference lets show"
    return None
