"""Who takes part in a comparison: rules by name, what of them is searched, and what a step of each costs."""

import functools
import inspect
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import descent, update_rules
from research.checks import check_callable, check_instance, check_tree
from research.naming import known_names
from research.tuning.spaces import (
    DIMENSIONS,
    NOT_COMPARED,
    SPACES,
    Range,
    Space,
    check_space,
)
from research.types import Array, Batch, Params
from research.verification.rule_under_test import is_made, made

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")

# What a first parameter may be called that is certainly no learning rate.
_NO_RATES = {name for names in DIMENSIONS[1:] for name in names}

_OURS = {name: entry.constructor for name, entry in update_rules.RULE_TABLE.items()}


class Contender(NamedTuple):
    """A rule that takes part.

    Attributes:
      name: In tables, and in the names of arrays.
      make_rule: Hyper-parameters by name, traced -> the rule.
      space: Where each of them is searched; {} where there is nothing to choose.
      evaluations: Gradients or values of the batch objective that one step costs, at least 1.
      stated: Whether `evaluations` was stated; if not, a rule that evaluates the objective itself is refused.
    """

    name: str
    make_rule: Callable[..., optax.GradientTransformation]
    space: dict[str, Range]
    evaluations: float = 1.0
    stated: bool = False


def contenders(
    rules: Mapping[str, Any] | Sequence[Any],
    *,
    spaces: Mapping[str, Space] | None = None,
    evaluations: Mapping[str, float] | None = None,
) -> tuple[Contender, ...]:
    """Rules by name, each with a search space and the cost of its step; whatever one does wrong is told with its name.

    Args:
      rules: By name, or a sequence of names of ours: the name of one of ours; a constructor (ours, optax's or yours: a
        function that takes a learning rate first); a rule that is made already, which has one trial; or a Contender.
      spaces: By the rule's name, ranges in place of those it would have, or beside them: for ours `SPACES`, which optax's
        constructor of the same name has too; for another constructor a learning rate, its first parameter, from 1e-5 to
        10. A Range without default takes that of the constructor if it lies inside, else its own middle.
      evaluations: Gradients or values of the batch objective that a step costs, by the rule's name, where it is not 1.
    Returns:
      The contenders, in the order of `rules`.
    Raises:
      ValueError, TypeError: A name does not fit, is unknown or comes twice; a rule is none, or not to be compared; a
        space or a cost is none.
    Example:
      >>> mine, adam = contenders({"mine": lambda rate: optax.sgd(rate), "adam": "adam"})
      >>> mine.space, list(adam.space)
      ({'rate': Range(low=1e-05, high=10.0, scale='log', default=None)}, ['learning_rate', 'b1'])
    """
    named = _named(rules)
    for argument, given in (("spaces", spaces), ("evaluations", evaluations)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(
                f"{argument} go by the name of a rule, {argument}={{'mine': ...}}; got {given!r}."
            )
        for name in given or ():
            if name not in named:
                raise ValueError(
                    f"{argument} names {name!r}, which does not take part{known_names(name, named)}"
                )
    return tuple(
        _contender(name, rule, (spaces or {}).get(name), evaluations or {})
        for name, rule in named.items()
    )


def _named(rules: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(rules, str) or not isinstance(rules, Mapping | Sequence):
        raise TypeError(
            f"rules must be a mapping such as {{'mine': my_rule}}, or a sequence of names; got {rules!r}."
        )
    if isinstance(rules, Mapping):
        named = list(rules.items())
    else:
        named = [
            (rule.name if isinstance(rule, Contender) else rule, rule) for rule in rules
        ]
    if not named:
        raise ValueError(
            "rules must name at least one rule, such as {'mine': my_rule, 'adam': 'adam'}; it is empty."
        )
    for name in [name for name, _ in named]:
        if not isinstance(name, str):
            raise TypeError(
                f"a rule needs a name; give it one, {{'mine': ...}}; got {name!r}."
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a rule's name is letters, digits and _, then also . : and -; got {name!r}."
            )
        if [n for n, _ in named].count(name) > 1:
            raise ValueError(
                f"the rule {name!r} comes twice; give each a name of its own."
            )
    return dict(named)


def _contender(
    name: str, rule: Any, given: Space | None, costs: Mapping[str, float]
) -> Contender:
    constructor, ours, known, whole = rule, None, None, None
    if isinstance(rule, Contender):
        constructor, whole = rule.make_rule, rule.space
    elif isinstance(rule, str):
        constructor = _OURS[rule] if rule in _OURS else update_rules.find_rule(rule)
    if not is_made(constructor):
        ours = next((n for n, c in _OURS.items() if c is constructor), None)
        known = SPACES.get(ours or _like_ours(constructor))
    if ours in NOT_COMPARED:
        raise ValueError(f"{name} is not compared: {NOT_COMPARED[ours]}.")
    if is_made(constructor) or not callable(constructor):
        made(constructor, 0.0, {}, name)  # Raises for what is neither.
        if given:
            raise ValueError(
                f"{name} is made already, so that nothing of it is searched; give its constructor."
            )
        space = {}
    else:
        space = _space(name, constructor, given or {}, known, whole)
    cost = update_rules.RULE_TABLE[ours].evaluations if ours else 1.0
    stated = ours is not None
    if isinstance(rule, Contender):
        cost, stated = rule.evaluations, rule.stated or rule.evaluations != 1
    if name in costs:
        cost, stated = costs[name], True
    return Contender(
        name, _guarded(name, constructor), space, _checked_cost(name, cost), stated
    )


def _like_ours(constructor: Callable[..., Any]) -> str:
    """The name that a constructor of optax has here, if it takes the same arguments; else ""."""
    name = getattr(constructor, "__name__", "")
    name = update_rules.ALIASES.get(name, name)
    of_optax = str(getattr(constructor, "__module__", "")).split(".")[0] == "optax"
    return (
        name
        if of_optax and set(SPACES.get(name, {})) <= set(_parameters(constructor) or {})
        else ""
    )


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """What it can be called with, by name; None where nobody can tell."""
    try:
        return dict(inspect.signature(constructor).parameters)
    except (TypeError, ValueError):
        return None


def _space(
    name: str,
    constructor: Callable[..., Any],
    given: Space,
    known: Space | None,
    whole: Space | None,
) -> dict[str, Range]:
    """The space that is searched (a Contender's own, or the usual), with what is given, checked against the constructor."""
    parameters = _parameters(constructor)
    first = (
        {}
        if parameters is None or known or whole is not None
        else _first_parameter(name, parameters)
    )
    space = {**(first or known or {} if whole is None else whole), **given}
    check_space(space, name)
    if parameters is None:
        return space
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = [n for n, p in parameters.items() if p.kind not in variadic]
    takes_any = any(
        p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )
    for unknown in [n for n in space if n not in taken]:
        if not takes_any:
            raise ValueError(
                f"{name} takes no {unknown!r}{known_names(unknown, taken)}"
            )
    needed = [
        n
        for n in taken
        if n not in space and parameters[n].default is inspect.Parameter.empty
    ]
    if needed:
        raise ValueError(
            f"{name} needs {needed[0]}, which has no default and no range: give it one, as in "
            f"{{{name!r}: {{{needed[0]!r}: research.tuning.Range(low, high)}}}} (--space {name}.{needed[0]}=LOW..HIGH)."
        )
    usual = {n: p.default for n, p in parameters.items()} | {
        n: r.default for n, r in (known or {}).items()
    }
    return {n: _with_default(r, usual.get(n)) for n, r in space.items()}


def _with_default(range_: Range, usual: Any) -> Range:
    inside = (
        range_.default is None
        and _is_number(usual)
        and range_.low <= usual <= range_.high
    )
    return range_._replace(default=float(usual)) if inside else range_


def _first_parameter(
    name: str, parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Range]:
    """The space of a constructor that nobody has said anything about: its learning rate, which comes first."""
    first = next(iter(parameters.values()), None)
    if first is None or first.kind in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ):
        return {}
    usual: Any = None if first.default is inspect.Parameter.empty else first.default
    if first.name in _NO_RATES or not (usual is None or _is_number(usual)):
        raise ValueError(
            f"{name}: its first parameter, {first.name}, is no learning rate; say what is searched: "
            f"spaces={{{name!r}: {{'learning_rate': Range(1e-4, 1.0)}}}}."
        )
    default = float(usual) if usual is not None and usual > 0 else None
    low, high = min(1e-5, default or 1.0), max(10.0, default or 1.0)
    return {first.name: Range(low, high, "log", default)}


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _checked_cost(name: str, cost: Any) -> float:
    if not _is_number(cost) or cost < 1:
        at_least = "a finite number, at least 1 for the gradient that a step gets"
        raise ValueError(f"evaluations of {name} must be {at_least}; got {cost!r}.")
    return float(cost)


def _guarded(
    name: str, constructor: Any
) -> Callable[..., optax.GradientTransformation]:
    """The constructor by name, whose rule is checked and named wherever it fails."""

    def make_rule(**hyperparameters):
        if is_made(constructor):
            return made(constructor, 0.0, {}, name)
        return made(lambda _: constructor(**hyperparameters), 0.0, {}, name)

    return (
        make_rule
        if is_made(constructor)
        else functools.update_wrapper(make_rule, constructor)
    )


def check_contender(
    contender: Contender,
    params: Params,
    objective: Callable[[Params, Any], Array],
    batch: Batch | None = None,
) -> int:
    """Traces one step of a contender as lanes do, before anything is compiled.

    Args:
      contender: From `contenders`.
      params: What a step moves, arrays or their shapes and dtypes.
      objective: (params, batch) -> ().
      batch: The training data, or None for an objective without data.
    Returns:
      How often the code of a step evaluates the objective, beyond the gradient that it is given; a loop counts once.
    Raises:
      RuleError: The rule raised while it was made (of either end of its ranges, too) or traced.
      NoRuleError: It is no rule, or changes structure, shape or dtype of updates or state.
      ValueError: It evaluates the objective itself, and nobody has stated what its step costs.
    Example:
      >>> (adam,) = contenders(["adam"])
      >>> check_contender(adam, jnp.zeros(3), lambda x, batch: jnp.sum(x**2))
      0
    """
    check_instance(
        "contender",
        contender,
        Contender,
        "Make one by research.comparison.contenders(rules).",
    )
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    descent.check_dataset("batch", batch)
    for value_of in (
        lambda r: r.low,
        lambda r: r.high,
    ):  # A tracer has no value that a rule could refuse.
        contender.make_rule(
            **{n: np.float64(value_of(r)) for n, r in contender.space.items()}
        )
    drawn, calls = 2, []

    def counted(params: Params, batch: Any) -> Array:
        calls.append(
            batch is not None and len(jax.tree.leaves((batch.x, batch.y))[0]) > drawn
        )
        return objective(params, batch)

    def first_step(hyperparameters, params, indices):
        rule = contender.make_rule(**hyperparameters)
        init, step = descent.build(counted, rule, batch)
        return step(init(params), descent.BatchIndices(indices))

    lanes = 2
    hyperparameters = {
        n: jax.ShapeDtypeStruct((lanes,), jnp.result_type(float))
        for n in contender.space
    }
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((lanes, *jnp.shape(x)), jnp.result_type(x)),
        params,
    )
    indices = None if batch is None else jax.ShapeDtypeStruct((drawn,), np.int32)
    jax.eval_shape(
        jax.vmap(first_step, in_axes=(0, 0, None)), hyperparameters, params, indices
    )
    own = len(calls) - 1
    if own > 0 and not contender.stated and contender.evaluations == 1:
        raise ValueError(_unstated(contender.name, own, sum(calls)))
    return own


def _unstated(name: str, own: int, whole: int) -> str:
    times = "1 time" if own == 1 else f"{own} times"
    of_all = (
        f" ({whole} of them on all examples, n / batch_size gradients each)"
        if whole
        else ""
    )
    return (
        f"{name} evaluates the objective itself, {times} a step{of_all}; say what a step costs in gradients: "
        f"evaluations={{{name!r}: {own + 1}}} (--evaluations {name}={own + 1})."
    )
