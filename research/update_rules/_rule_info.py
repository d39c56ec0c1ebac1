"""What a rule tells those who apply it, read from its state in this one place."""

from typing import NamedTuple

import jax.numpy as jnp
import optax

from research.types import Array


class RuleInfo(NamedTuple):
    """What a rule says of its last step.

    Attributes:
      learning_rate: The rate that it used, shape (); None where it keeps none, or
        several, as rules on groups of parameters do: then none is *the* rate.
      outcomes: The `Outcome` of each rule inside that can fail, int32, shape ().
      evaluations: Those of the objective inside the step, int32 (0 where it keeps none).
    """

    learning_rate: Array | None
    outcomes: tuple[Array, ...]
    evaluations: Array | int


class DirectionState(NamedTuple):
    """The state of a rule that only gives a direction: its own rate is not the rate.

    Attributes:
      direction: The rule's own state.
    """

    direction: optax.OptState


def rule_info(state: optax.OptState) -> RuleInfo:
    """Read what a rule tells of its last step: the fields of these names in its state.

    optax's rules keep their state under the same names, and `optax.inject_hyperparams`
    keeps rates under `hyperparams`. A field of the rule itself goes before that.

    Args:
      state: Of any rule, ours or another's.
    Returns:
      The RuleInfo.
    Example:
      >>> from research.update_rules._first_order import heavy_ball
      >>> print(rule_info(heavy_ball(0.5).init(jnp.zeros(2))).learning_rate)
      0.5
      >>> print(rule_info(optax.sgd(0.5).init(jnp.zeros(2))).learning_rate)
      None
    """
    return RuleInfo(
        _rate(state),
        tuple(_fields(state, "outcome").values()),
        sum(_fields(state, "evaluations").values()),
    )


def _rate(state: optax.OptState) -> Array | None:
    """The one rate; that of a rule that gives a direction to another is none."""
    rates = [
        rate
        for path, rate in _fields(state, "learning_rate").items()
        if not jnp.ndim(rate) and not any(_field(key) == "direction" for key in path)
    ]
    if not rates:
        found = optax.tree_utils.tree_get_all_with_path(state, "learning_rate")
        rates = [rate for path, rate in found if _field(path[-2:][0]) == "hyperparams"]
    return rates[0] if len(rates) == 1 else None


def _fields(state: optax.OptState, name: str) -> dict[tuple, Array]:
    """The fields of a name in a state, by their paths."""
    found = optax.tree_utils.tree_get_all_with_path(state, name)
    return {path: value for path, value in found if _field(path[-1]) == name}


def _field(key: object) -> str | None:
    """The name of a NamedTuple's field in a path; None of another key."""
    return key.name if isinstance(key, optax.tree_utils.NamedTupleKey) else None
