"""Read information about a rule's last step from the rule's state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.types import Array, Integer

# States of `reduce_on_plateau` here and in optax. They scale the updates.
PLATEAUS = ("PlateauState", "ReduceLROnPlateauState")


class RuleInfo(NamedTuple):
    """Information about the last step of a rule.

    Attributes:
      learning_rate: Learning rate used in the step, shape (), multiplied by the scale
        of `reduce_on_plateau`. None if the state holds no learning rate, or more than
        one, as for rules on groups of parameters.
      outcomes: A tuple with one `research.types.Outcome` for each part of the rule that
        can fail, such as a line search. The order is that of the parts in the state.
        Each is an int32, shape ().
      evaluations: Number of evaluations of the objective inside the step, summed over
        the parts of the rule, int32, shape (). The int 0 if the rule does not count
        them.
    """

    learning_rate: Float[Array, ""] | None
    outcomes: tuple[Int[Array, ""], ...]
    evaluations: Integer


class DirectionState(NamedTuple):
    """Wrapper of the state of a rule that supplies only the direction of a step.

    `rule_info` ignores the learning rates inside the wrapped state, because another
    rule sets the length of the step.

    Attributes:
      direction: The wrapped state.
    """

    direction: optax.OptState


def rule_info(state: optax.OptState) -> RuleInfo:
    """Return the learning rate, outcomes and evaluations of a rule's last step.

    The function looks for fields named `learning_rate`, `outcome` and `evaluations` at
    any depth of the state. If there is no field `learning_rate`, the function returns
    the learning rate that `optax.inject_hyperparams` keeps under `hyperparams`. A rate
    inside a DirectionState is ignored, because another rule sets the length of the
    step. The rate is multiplied by the scale of `reduce_on_plateau`, here and in optax.

    Args:
      state: State of any rule of this library or of optax.
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
    """Return the only learning rate in a state, or None if there is none or several.

    Rates inside a DirectionState are ignored. The rate is multiplied by the scales of
    `reduce_on_plateau`, but not by those of other groups of parameters.
    """
    rates = [
        (path, rate)
        for path, rate in _fields(state, "learning_rate").items()
        if not jnp.ndim(rate) and not any(_field(key) == "direction" for key in path)
    ]
    if not rates:
        found = optax.tree_utils.tree_get_all_with_path(state, "learning_rate")
        rates = [one for one in found if _field(one[0][-2:][0]) == "hyperparams"]
    if len(rates) != 1:
        return None
    ((place, rate),) = rates
    for path, scale in _fields(state, "scale").items():
        if path[-1].tuple_name in PLATEAUS and not _are_of_two_groups(path, place):
            rate = rate * jnp.asarray(scale, jnp.result_type(rate))
    return rate


def _are_of_two_groups(path: tuple, other: tuple) -> bool:
    """Return whether two paths in a state lead to different groups of parameters.

    This is the case if the first keys in which the paths differ are keys of a dict.
    """
    keys = next(
        (pair for pair in zip(path, other, strict=False) if len(set(pair)) > 1), ()
    )
    return any(isinstance(key, jax.tree_util.DictKey) for key in keys)


def _fields(state: optax.OptState, name: str) -> dict[tuple, Array]:
    """Return the fields with a given name in a state, keyed by their paths."""
    found = optax.tree_utils.tree_get_all_with_path(state, name)
    return {path: value for path, value in found if _field(path[-1]) == name}


def _field(key: object) -> str | None:
    """Return the name if a path's key is a field of a NamedTuple, else None."""
    return key.name if isinstance(key, optax.tree_utils.NamedTupleKey) else None
