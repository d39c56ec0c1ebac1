"""The verification table: each rule compared with formula, optax and recorded results.

The table covers two dtypes, all problems and two sets of arguments.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from research.checks import check_callable, check_choice, check_sequence
from research.update_rules import UPDATE_RULES
from research.verification.card import Card, rate_on
from research.verification.cards import CARDS, FORMULAS
from research.verification.problems import PROBLEMS, Problem
from research.verification.recorded import recorded_walks
from research.verification.walks import (
    Deviation,
    Walk,
    distance,
    walk,
    walk_constructed,
    walk_exactly,
)

AUTHORITIES = ("formula", "optax", "recorded")
DTYPES = ("float64", "float32")
# Largest deviation from an authority that rounding may cause within fifty steps, in
# units of the dtype's eps. Most rules of this library are within 5 of their formulas.
BOUND = 100.0


class Cell(NamedTuple):
    """One comparison in the verification table.

    Attributes:
      rule, authority, dtype, problem: Names of the rule, the authority, the dtype and
        the problem. The authority is the kind of reference: "formula", "optax" or
        "recorded". If the authority is "recorded" and the rule has no recorded
        results, there is no comparison, and the problem is "".
      arguments: Arguments other than the defaults, as a user writes them. "" for the
        defaults.
      deviation: The largest deviation of the rule from the authority, with its step and
        leaf. None if there was no comparison.
      reason: The reason why there was no comparison. None if there was a comparison.
      bound: Largest deviation that is allowed.
    """

    rule: str
    authority: str
    dtype: str
    problem: str
    arguments: str
    deviation: Deviation | None
    reason: str | None
    bound: float


def verification_table(
    rules: Iterable[str] | None = None,
    dtypes: Iterable[str] = DTYPES,
    authorities: Iterable[str] = AUTHORITIES,
    on_rule: Callable[[int, int, str], None] | None = None,
) -> list[Cell]:
    """Compare update rules with their formulas, with optax and with recorded results.

    Each comparison runs a rule on a problem, and compares the trajectory of the rule
    with a reference trajectory. The reference comes from the formula of the rule, from
    optax, or from a recorded result. Each comparison gives one `Cell`, whose field
    `deviation` has the largest deviation from the reference.

    Args:
      rules: Names in UPDATE_RULES. None means all.
      dtypes: Dtypes among "float64" and "float32". "float64" requires JAX's float64 to
        be on.
      authorities: Kinds of reference among AUTHORITIES: "formula", "optax", "recorded".
      on_rule: Function called before each rule with (number of rules done, number of
        all rules, name of this rule).
    Returns:
      List of `Cell`, in the order of the rules. For "formula" and for "optax", there is
      one Cell for each dtype, problem and set of arguments. The first set of arguments
      is the defaults. Most rules have a second set, but `gradient_descent` in the
      example has none. For "recorded", there is one Cell for each dtype and recorded
      trajectory. If nothing is recorded for a rule, there is one Cell for each dtype,
      with the reason.
    Raises:
      ValueError: A name in rules, dtypes or authorities is unknown.
      TypeError: rules, dtypes or authorities is not a sequence of names, or on_rule is
        not callable.
    Example:
      >>> cells = verification_table(["gradient_descent"], ["float32"], ["formula"])
      >>> len(cells), max(cell.deviation.largest for cell in cells) < 1e-6
      (8, True)
    """
    for name, given, known in (
        ("rules", UPDATE_RULES if rules is None else rules, UPDATE_RULES),
        ("dtypes", dtypes, DTYPES),
        ("authorities", authorities, AUTHORITIES),
    ):
        check_sequence(
            name, list(given) if isinstance(given, Mapping) else given, "names", str
        )
        for place, one in enumerate(given):
            check_choice(f"{name}[{place}]", one, known)
    if on_rule is not None:
        check_callable("on_rule", on_rule, "done", "total", "name")
    names, authorities = (
        list(UPDATE_RULES if rules is None else rules),
        tuple(authorities),
    )
    cells = []
    for done, name in enumerate(names):
        if on_rule is not None:
            on_rule(done, len(names), name)
        for dtype in dtypes:
            cells += _of_the_rule(name, dtype, authorities)
    return cells


def _of_the_rule(name: str, dtype: str, authorities: tuple[str, ...]) -> Iterator[Cell]:
    card = CARDS[name]
    ways = [({}, {})]
    if card.arguments:
        others = (
            card.arguments if card.optax_arguments is None else card.optax_arguments
        )
        ways.append((card.arguments, others))
    for arguments, optax_arguments in ways:
        for problem in PROBLEMS.values():
            yield from _on_the_problem(
                name, dtype, authorities, problem, arguments, optax_arguments
            )
    if "recorded" in authorities:
        yield from _recorded(name, dtype)


def _on_the_problem(
    name: str,
    dtype: str,
    authorities: tuple[str, ...],
    problem: Problem,
    arguments: dict[str, Any],
    optax_arguments: dict[str, Any],
) -> Iterator[Cell]:
    card, rate = CARDS[name], rate_on(problem, CARDS[name])
    ours: Walk | None = None
    for authority in authorities:
        reason, deviation = card.reasons.get(problem.name), None
        if authority == "recorded":
            continue
        if authority == "optax" and isinstance(card.optax, str):
            reason = card.optax
        if authority == "formula" and name not in FORMULAS:
            reason = "no formula"
        if reason is None:
            ours = ours or walk_constructed(
                UPDATE_RULES[name], {"learning_rate": rate, **arguments}, problem, dtype
            )
            if authority == "formula" or isinstance(card.optax, str):
                theirs = _exactly(name, problem.name, rate, tuple(arguments.items()))
            else:
                theirs = walk(card.optax(rate, **optax_arguments), problem, dtype)
            deviation = distance(ours, theirs, problem)
        yield Cell(
            name,
            authority,
            dtype,
            problem.name,
            written(arguments),
            deviation,
            reason,
            _bound(card, authority, dtype),
        )


@functools.cache
def _exactly(
    name: str, problem: str, rate: float, arguments: tuple[tuple[str, Any], ...]
) -> Walk:
    """Return the formula's trajectory, which does not depend on the dtype."""
    return walk_exactly(
        FORMULAS[name].iterates,
        PROBLEMS[problem],
        learning_rate=rate,
        **dict(arguments),
    )


def _recorded(name: str, dtype: str) -> Iterator[Cell]:
    card = CARDS[name]
    bound = _bound(card, "recorded", dtype)
    if isinstance(card.recorded, str):
        yield Cell(name, "recorded", dtype, "", "", None, card.recorded, bound)
        return
    for recorded in card.recorded:
        for problem_name, (rate, theirs) in recorded_walks(recorded.variant).items():
            problem = PROBLEMS[problem_name]
            ours = walk_constructed(
                UPDATE_RULES[name],
                {"learning_rate": rate, **recorded.arguments},
                problem,
                dtype,
            )
            deviation = distance(ours, theirs, problem)
            arguments = written(recorded.arguments)
            yield Cell(
                name, "recorded", dtype, problem_name, arguments, deviation, None, bound
            )


def written(arguments: dict[str, Any]) -> str:
    """Return arguments as a user writes them: "b1=0.5, eps=0.01"."""
    return ", ".join(
        f"{key}={getattr(value, '__name__', value)}" for key, value in arguments.items()
    )


def _bound(card: Card, authority: str, dtype: str) -> float:
    return card.bounds.get(authority, BOUND) * float(jnp.finfo(dtype).eps)
