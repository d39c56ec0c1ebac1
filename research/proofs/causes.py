"""What is likely wrong with a rule: the known mistakes are made in the formula, one by one, until one walks as it does."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import optax

from research.proofs.formulas.formula import Formula, mistaken
from research.proofs.problems import NUM_STEPS, Problem
from research.proofs.walks import Walk, distance, walk, walk_exactly

# Values that users give where the default is another: each is tried in turn.
USUAL_VALUES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-7, 1e-8, 1e-10, 1e-16, 1.0)


class Explanation(NamedTuple):
    """A mistake that explains a rule.

    Attributes:
      cause: In a few words.
      distance: How far the rule lies from the reference with this mistake in it.
    """

    cause: str
    distance: float


def likely_cause(
    found: Walk,
    problem: Problem,
    formula: Formula | None,
    reference: optax.GradientTransformation | None,
    arguments: dict[str, Any],
    dtype: Any,
    tolerance: float,
) -> str | None:
    """The known mistake under which the reference walks as the rule does.

    Args:
      found: The walk of the rule.
      problem: On which it was walked.
      formula: The reference's formula, if it has one.
      reference: The reference in JAX, if there is one: general mistakes are made in it.
      arguments: Of the formula, learning_rate among them.
      dtype: In which the rule was walked.
      tolerance: Within which two walks are one.
    Returns:
      The cause in a few words, the one that explains the rule best; None if none does.
    """
    trials = [*_of_the_formula(formula, problem, arguments), *_in_general(reference, problem, dtype)]
    explained = []
    for cause, walk_wrongly in trials:
        try:
            apart = distance(found, walk_wrongly(), problem).largest
        except ZeroDivisionError:
            continue
        if apart <= tolerance:
            explained.append(Explanation(cause, apart))
    return min(explained, key=lambda e: e.distance).cause if explained else None


Trial = tuple[str, Callable[[], Walk]]


def _of_the_formula(formula: Formula | None, problem: Problem, arguments: dict[str, Any]) -> Iterator[Trial]:
    if formula is None:
        return
    for mistake in formula.mistakes:
        yield (
            f"{mistake.cause} (`{mistake.wrong}` where the formula has `{mistake.right}`)",
            lambda mistake=mistake: walk_exactly(mistaken(formula, mistake), problem, **arguments),
        )
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(formula.iterates).parameters.items()
        if isinstance(parameter.default, float)
    }
    for key, default in defaults.items():
        for value in USUAL_VALUES:
            if value != arguments.get(key, default):
                yield (
                    f"another value of an argument: {key}={value:g}, not {arguments.get(key, default):g}",
                    lambda key=key, value=value: walk_exactly(formula.iterates, problem, **{**arguments, key: value}),
                )


def _in_general(reference: optax.GradientTransformation | None, problem: Problem, dtype: Any) -> Iterator[Trial]:
    if reference is None:
        return
    for cause, change in (
        ("the updates are one step stale: each is what the step before should have given", _stale),
        ("the updates have the wrong sign: they are added to the params", lambda rule: _scaled(rule, -1.0)),
        ("the updates are half as long", lambda rule: _scaled(rule, 0.5)),
        ("the updates are twice as long", lambda rule: _scaled(rule, 2.0)),
    ):
        yield cause, lambda change=change: walk(change(reference), problem, dtype, NUM_STEPS)


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
