"""Mistakes that may explain why a rule deviates from its reference."""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from research.types import Params
from research.verification.formula import Formula, Mistake, mistaken
from research.verification.problems import NUM_STEPS, Problem
from research.verification.walks import Deviation, Walk, walk, walk_exactly

# Values that users often give instead of a default. Each is tried in turn.
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


class Evidence(NamedTuple):
    """Comparison of a rule with its reference on one problem.

    Attributes:
      problem: Problem on which rule and reference were run.
      found: Trajectory of the rule.
      expected: Trajectory of the reference.
      deviation: Deviation of the rule from the reference.
      arguments: Arguments of the reference's formula, including learning_rate.
      reference: The reference as a JAX rule; None if it exists only as a formula.
    """

    problem: Problem
    found: Walk
    expected: Walk
    deviation: Deviation
    arguments: dict[str, Any]
    reference: optax.GradientTransformation | None


class Trial(NamedTuple):
    """A mistake that a rule may have, with a function that imitates this mistake.

    Attributes:
      cause: Short description of the mistake.
      walk: Function (evidence, number of steps) -> trajectory of a rule that has this
        mistake, on the problem of the `Evidence`.
    """

    cause: str
    walk: Callable[[Evidence, int], Walk]


def _exact(
    iterates: Callable[..., Any], changes: dict[str, Any] | None = None
) -> Callable[[Evidence, int], Walk]:
    return lambda e, steps: walk_exactly(
        iterates, e.problem, steps, **{**e.arguments, **(changes or {})}
    )


def of_the_formula(formula: Formula | None) -> Iterator[Trial]:
    """Yield a `Trial` for each mistake in `formula.mistakes`.

    A mistake is a change of the source code of the formula. The trial runs the changed
    formula. A mistake is left out if the source code of the formula is not available.
    If `formula` is None, nothing is yielded.
    """
    if formula is None:
        return
    for mistake in formula.mistakes:
        with contextlib.suppress(
            OSError, ValueError
        ):  # A formula typed into a session has no source to edit.
            yield Trial(_in_words(mistake), _exact(mistaken(formula, mistake)))


def of_two(formula: Formula | None) -> Iterator[Trial]:
    """Yield a trial for each pair of mistakes that the formula can have at once.

    A `Formula` is a rule as its paper prints it. Its field `mistakes` has mistakes that
    code of this rule often contains. A trial runs the formula with two of these
    mistakes. If the formula is None, has no mistakes or has no available source code,
    nothing is yielded.
    """
    if formula is None:
        return
    for a, b in itertools.combinations(formula.mistakes, 2):
        cause = f"{_in_words(a)}, and {_in_words(b)}"
        with contextlib.suppress(OSError, ValueError):  # The first may edit the second.
            yield Trial(cause, _exact(mistaken(formula, a, b)))


def _in_words(mistake: Mistake) -> str:
    wrong, right = (_in_one_line(source) for source in (mistake.wrong, mistake.right))
    if not wrong:
        return f"{mistake.cause} (the formula's `{right}` is missing)"
    return f"{mistake.cause} (the rule has `{wrong}`, the formula has `{right}`)"


def _in_one_line(source: str) -> str:
    return "; ".join(line.strip() for line in source.splitlines())


def of_values(formula: Formula | None, arguments: dict[str, Any]) -> list[Trial]:
    """Return trials that change one argument of the formula, or swap two arguments.

    A `Trial` is a mistake that a rule may have, with a function that imitates it.
    `formula` is that of the reference, and `arguments` are the values with which
    the rule was compared with its reference. Without a formula, the list is empty.
    """
    if formula is None:
        return []
    parameters = inspect.signature(formula.iterates).parameters
    defaults = {
        key: p.default for key, p in parameters.items() if p.default is not p.empty
    }
    values = {key: arguments.get(key, default) for key, default in defaults.items()}
    trials = []
    for key, value in values.items():
        for other in _other_values(value, defaults[key]):
            cause = (
                f"another value of an argument: {key}={_written(other)}, not "
                f"{_written(value)}"
            )
            trials.append(Trial(cause, _exact(formula.iterates, {key: other})))
    floats = [key for key, value in values.items() if type(value) is float]
    for a, b in itertools.combinations(floats, 2):
        if values[a] != values[b]:
            swapped = {a: values[b], b: values[a]}
            trials.append(
                Trial(
                    f"the values of {a} and {b} are swapped",
                    _exact(formula.iterates, swapped),
                )
            )
    return trials


def _other_values(value: Any, default: Any) -> list[Any]:
    if type(value) is bool:
        return [not value]
    if type(value) is not float:
        return []
    # A fraction is never set to 1: a line search that shrinks its step by the factor 1
    # would not terminate.
    usual = [
        v
        for v in USUAL_VALUES
        if v < 1.0 or not (type(default) is float and 0.0 < default < 1.0)
    ]
    return [v for v in usual if v != value]


def _written(value: Any) -> str:
    return f"{value:g}" if type(value) is float else str(value)


def of_others(others: Mapping[str, Formula]) -> Iterator[Trial]:
    """Yield one `Trial` for each formula in `others`.

    `others` contains the formulas of other rules by name. A trial tests whether the
    rule under test is in fact one of these other rules. The formula of the other rule
    gets the arguments of the rule under test, except those that this formula does not
    accept.
    """
    for name, formula in others.items():

        def walk_other(e: Evidence, steps: int, formula: Formula = formula) -> Walk:
            taken = inspect.signature(formula.iterates).parameters
            given = {key: value for key, value in e.arguments.items() if key in taken}
            return walk_exactly(formula.iterates, e.problem, steps, **given)

        yield Trial(f"it is another rule, {name}", walk_other)


def in_general(first: Evidence, dtype: Any) -> Iterator[Trial]:
    """Yield trials for general mistakes: a wrong factor, and updates one step late.

    A `Trial` is a mistake that a rule may have, with a function that imitates this
    mistake. In these trials, the function changes the reference rule in JAX. If the
    reference exists only as a formula, nothing is yielded. The factor is the ratio of
    the first update of the rule to the first update of the reference. `first` contains
    both updates. If the ratio differs between entries, the trial for the factor is left
    out.
    """
    if first.reference is None:
        return
    factor = _factor(first)
    if factor is not None:
        cause = f"the updates are {factor:.6g} times as long"
        if factor < 0:
            cause = "the updates have the wrong sign: they go up the gradient"
            cause += "" if factor == -1 else f", and are {-factor:.6g} times as long"
        yield Trial(cause, _changed(lambda rule: _scaled(rule, factor), dtype))
    stale = "the updates are one step late: each belongs to the step before"
    yield Trial(stale, _changed(_stale, dtype))


def _changed(
    change: Callable[[Any], Any], dtype: Any
) -> Callable[[Evidence, int], Walk]:
    return lambda e, steps: walk(
        change(e.reference), e.problem, dtype, min(steps, NUM_STEPS)
    )


def _factor(e: Evidence) -> float | None:
    """Return the first update of the rule divided by that of the reference.

    Return None if this ratio is not the same for all entries.
    """
    found, expected = e.found.updates[0], e.expected.updates[0]
    there = np.isfinite(found) & np.isfinite(expected) & (expected != 0)
    if not there.any():
        return None
    ratios = found[there] / expected[there]
    middle = float(np.median(ratios))
    if middle == 0.0 or np.max(np.abs(ratios - middle)) > 1e-4 * abs(middle):
        return None
    rounded = float(
        f"{middle:.6g}"
    )  # This removes the rounding of the dtype from the factor.
    return rounded if abs(rounded - middle) <= 1e-6 * abs(middle) else middle


def _stale(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    rule = optax.with_extra_args_support(rule)

    def init(params: Params):
        return rule.init(params), jax.tree.map(lambda x: 0 * x, params)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        now, inner = rule.update(updates, state[0], params, **extra)
        return state[1], (inner, now)

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(
    rule: optax.GradientTransformation, factor: float
) -> optax.GradientTransformation:
    rule = optax.with_extra_args_support(rule)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        updates, state = rule.update(updates, state, params, **extra)
        return jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(rule.init, update)
