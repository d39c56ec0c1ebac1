"""Contenders: rules of a comparison, with search spaces and the cost of a step."""

import inspect
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optax

from research import update_rules
from research.naming import known_names
from research.tuning.spaces import (
    DIMENSIONS,
    NOT_COMPARED,
    SPACES,
    Range,
    Space,
    check_space,
)
from research.verification.rule_under_test import guarded, is_made, made

# matplotlib leaves out labels that begin with _ .
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")

# Names of a first parameter that is certainly not a learning rate.
_NO_RATES = {name for names in DIMENSIONS[1:] for name in names}

_OURS = {name: entry.constructor for name, entry in update_rules.RULE_TABLE.items()}


class Contender(NamedTuple):
    """An update rule that takes part in a comparison, with its search space.

    Attributes:
      name: Name of the rule in tables and in the names of arrays.
      make_rule: Function that takes hyper-parameters by name and returns the rule. The
        hyper-parameters may be JAX tracers.
      space: Dict from each hyper-parameter to its search range. {} if nothing is
        searched.
      evaluations: Cost of one step: how often the step evaluates the objective on a
        batch. Computing the value, the gradient, or both together counts as one
        evaluation. The gradient that the step receives counts, too, so the cost is at
        least 1.
      stated: Whether the cost is known, because the rule is from this package or
        because the user gave the cost. If the cost is not known, `evaluations` is 1,
        and a rule whose update evaluates the objective is refused. A cost other than 1
        always counts as known.
    """

    name: str
    make_rule: Callable[..., optax.GradientTransformation]
    space: dict[str, Range]
    evaluations: float = 1.0
    stated: bool = False


def make_contenders(
    rules: Mapping[str, Any] | Sequence[Any],
    *,
    spaces: Mapping[str, Space] | None = None,
    evaluations: Mapping[str, float] | None = None,
) -> tuple[Contender, ...]:
    """Make contenders: update rules with a search space and the cost of a step.

    Args:
      rules: Sequence of rules, or mapping from a name of your choice to a rule. In
        both, a rule is the name of a rule of this package, or a Contender. In a
        mapping, a rule can also be a constructor (from this package, from optax or your
        own) whose first argument is the learning rate, or a gradient transformation,
        which has no hyper-parameters to search.
      spaces: {rule: {hyper-parameter: Range}}. A range replaces the default range of
        the hyper-parameter. If there is no default range, the hyper-parameter is added
        to the space. The default ranges of the rules of this package, and of optax's
        constructors of the same name, are in `SPACES`. Any other constructor has a
        default range only for its first parameter, which is taken as the learning rate.
        This range is 1e-5 to 10 on a log scale. If the parameter has a positive default
        outside this range, the range is extended to this default. A trial of a search
        is one choice of the hyper-parameters. The first trial uses a default for each
        hyper-parameter, namely the first of these that exists and is not None: the
        field `default` of your Range, the field `default` of the Range in `SPACES`, the
        default value of the constructor's argument. If there is no default, or if it
        lies outside your Range, the first trial uses the middle of the range.
      evaluations: {rule: cost of one step}, for rules whose cost is not 1. `Contender`
        defines the cost.
    Returns:
      The contenders, in the order of `rules`.
    Raises:
      ValueError, TypeError: A name is malformed, unknown or used twice. Or a value is
        not a rule, or is a rule that cannot be compared. Or a space or a cost is wrong.
        The message names the rule.
    Example:
      >>> rules = {"mine": lambda rate: optax.sgd(rate), "adam": "adam"}
      >>> mine, adam = make_contenders(rules)
      >>> mine.space
      {'rate': Range(low=1e-05, high=10.0, scale='log', default=None)}
      >>> list(adam.space)
      ['learning_rate', 'b1']
    """
    named = _named(rules)
    for argument, given in (("spaces", spaces), ("evaluations", evaluations)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(
                f"{argument} must be a dict with the names of rules as keys, such as "
                f"{argument}={{'mine': ...}}; got {given!r}."
            )
        for name in given or ():
            if name not in named:
                raise ValueError(
                    f"{argument} names {name!r}, which is not a rule of this "
                    f"comparison{known_names(name, named)}"
                )
    return tuple(
        _contender(name, rule, (spaces or {}).get(name), evaluations or {})
        for name, rule in named.items()
    )


def _named(rules: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(rules, str) or not isinstance(rules, Mapping | Sequence):
        raise TypeError(
            "rules must be a mapping such as {'mine': my_rule}, or a sequence of "
            f"names; got {rules!r}."
        )
    if isinstance(rules, Mapping):
        named = list(rules.items())
    else:
        named = [
            (rule.name if isinstance(rule, Contender) else rule, rule) for rule in rules
        ]
    if not named:
        raise ValueError(
            "rules must name at least one rule, such as {'mine': my_rule, 'adam': "
            "'adam'}; got none."
        )
    for name in [name for name, _ in named]:
        if not isinstance(name, str):
            raise TypeError(
                f"a rule must have a name, as in {{'mine': ...}}; got {name!r}."
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                "the name of a rule must consist of letters, digits, _ . : and -, and "
                f"begin with a letter or a digit; got {name!r}. Give it another name, "
                "as in {'mine': ...} or, in a command, mine=FILE.py:NAME."
            )
        if [n for n, _ in named].count(name) > 1:
            raise ValueError(
                f"the rule {name!r} is given twice. Give each rule its own name."
            )
    return dict(named)


def check_free(names: Sequence[str], taken: str, use: str) -> None:
    """Raise ValueError if a rule has a name under which a study keeps something else.

    A study keeps the arrays of a rule under the name of this rule.

    Args:
      names: Names of the rules.
      taken: The name that no rule may have.
      use: What the study keeps under this name, for the message.
    Example:
      >>> check_free(["mine", "lengths"], "lengths", "other lengths")
      Traceback (most recent call last):
      ValueError: a rule cannot have the name 'lengths', under which a study keeps ...
    """
    if taken in names:
        raise ValueError(
            f"a rule cannot have the name {taken!r}, under which a study keeps {use}; "
            f"got rules={list(names)}. Choose another name."
        )


def _contender(
    name: str, rule: Any, given: Space | None, costs: Mapping[str, float]
) -> Contender:
    """Make one contender from its rule, its ranges and the stated costs."""
    constructor, ours, known, whole = rule, None, None, None
    if isinstance(rule, Contender):
        constructor, whole = rule.make_rule, rule.space
    elif isinstance(rule, str):
        constructor = _OURS[rule] if rule in _OURS else update_rules.find_rule(rule)
    if not is_made(constructor):
        ours = next((n for n, c in _OURS.items() if c is constructor), None)
        known = SPACES.get(ours or _like_ours(constructor))
    if ours in NOT_COMPARED:
        raise ValueError(f"{name} cannot be compared: {NOT_COMPARED[ours]}.")
    if is_made(constructor) or not callable(constructor):
        made(constructor, 0.0, {}, name)  # Raises if it is not a rule either.
        if given:
            raise ValueError(
                f"{name} is already built, so it has nothing to search. Pass its "
                "constructor."
            )
        space = {}
    else:
        space = _space(name, constructor, given or {}, known, whole)
    cost, stated = _cost(name, rule, ours, costs)
    return Contender(name, guarded(name, constructor), space, cost, stated)


def _cost(
    name: str, rule: Any, ours: str | None, costs: Mapping[str, float]
) -> tuple[float, bool]:
    """Return the cost of a step in gradients, and whether it was stated."""
    cost = update_rules.RULE_TABLE[ours].evaluations if ours else 1.0
    stated = ours is not None
    if isinstance(rule, Contender):
        cost, stated = rule.evaluations, rule.stated or rule.evaluations != 1
    if name in costs:
        cost, stated = costs[name], True
    if not _is_number(cost) or cost < 1:
        raise ValueError(
            f"evaluations[{name!r}], the number of gradients that a step of the rule "
            f"costs, must be a finite number of at least 1; got {cost!r}."
        )
    return float(cost), stated


def _like_ours(constructor: Callable[..., Any]) -> str:
    """Return the name of this package's rule for an optax constructor.

    The constructor's name is the name or an alias of the rule, and the constructor
    takes all hyper-parameters in the search space of the rule. The result is "" if
    there is no such rule.
    """
    name = getattr(constructor, "__name__", "")
    name = update_rules.ALIASES.get(name, name)
    of_optax = str(getattr(constructor, "__module__", "")).split(".")[0] == "optax"
    return (
        name
        if of_optax and set(SPACES.get(name, {})) <= set(_parameters(constructor) or {})
        else ""
    )


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a constructor by name; None if they are unknown."""
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
    """Return the search space of a constructor.

    The ranges in `given` are added to a default space, and replace its ranges of the
    same name. The default space is the contender's own space (`whole`) if there is one,
    else the space in `SPACES` (`known`), else the range of the first parameter.
    """
    parameters = _parameters(constructor)
    usual = known or {} if whole is None else whole
    if parameters is not None and not known and whole is None:
        usual = _first_parameter(name, parameters, given)
    space = {**usual, **given}
    check_space(space, name)
    if "seed" in space:
        raise ValueError(
            f"{name} cannot have a hyper-parameter with the name 'seed', under which a "
            "run gets its seed. Rename the argument of the constructor."
        )
    if parameters is None:
        return space
    _check_parameters(name, space, parameters)
    defaults = {n: p.default for n, p in parameters.items()} | {
        n: r.default for n, r in (known or {}).items()
    }
    return {n: _with_default(r, defaults.get(n)) for n, r in space.items()}


def _check_parameters(
    name: str, space: Space, parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Raise an error if the constructor cannot be called with the space."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = [n for n, p in parameters.items() if p.kind not in variadic]
    takes_any = any(
        p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )
    for unknown in [n for n in space if n not in taken]:
        if not takes_any:
            raise ValueError(
                f"{name} has no argument {unknown!r}{known_names(unknown, taken)}"
            )
    needed = [
        n
        for n in taken
        if n not in space and parameters[n].default is inspect.Parameter.empty
    ]
    if needed:
        raise ValueError(
            f"{name} needs {needed[0]}, which has no default and no range. Give it a "
            f"range, as in {{{name!r}: {{{needed[0]!r}: research.tuning.Range(low, "
            f"high)}}}} (--space {name}.{needed[0]}=LOW..HIGH)."
        )


def _with_default(range_: Range, usual: Any) -> Range:
    inside = (
        range_.default is None
        and _is_number(usual)
        and range_.low <= usual <= range_.high
    )
    return range_._replace(default=float(usual)) if inside else range_


def _first_parameter(
    name: str, parameters: Mapping[str, inspect.Parameter], given: Space
) -> dict[str, Range]:
    """Return the default space of a constructor that has no space in `SPACES`.

    The space has one range, for the first parameter, which is taken as the learning
    rate. The space is {} if the constructor has no named parameter, or if the first
    parameter is not a rate and `given` has ranges.
    """
    first = next(iter(parameters.values()), None)
    if first is None or first.kind in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ):
        return {}
    usual: Any = None if first.default is inspect.Parameter.empty else first.default
    if first.name in _NO_RATES or not (usual is None or _is_number(usual)):
        if given:
            return {}
        raise ValueError(
            f"{name}: its first parameter, {first.name}, is not a learning rate. State "
            f"what to search: spaces={{{name!r}: {{'learning_rate': Range(1e-4, "
            "1.0)}}."
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
