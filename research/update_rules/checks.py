"""What a rule, its inner rule and its params have to be, said before anything is traced."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.schedules import check_number
from research.types import Params


def check_rule(rule: Any, name: str = "rule") -> None:
    """Refuses what is no rule, such as a constructor that was not called.

    Args:
      rule: What was given.
      name: What the argument is called.
    Raises:
      TypeError: It has no init and update; the message says how to make one.
    Example:
      >>> check_rule(optax.sgd)
      Traceback (most recent call last):
      TypeError: rule must be an optax.GradientTransformation, but the constructor sgd was given; call it: sgd(0.1).
    """
    if not inspect.isclass(rule) and hasattr(rule, "init") and hasattr(rule, "update"):
        return
    if callable(rule) and hasattr(rule, "__name__"):
        given = f"the constructor {rule.__name__} was given; call it: {rule.__name__}(0.1)."
    else:
        given = f"{rule!r} was given; make one: research.update_rules.adam(0.1), say."
    raise TypeError(f"{name} must be an optax.GradientTransformation, but {given}")


def make_inner(
    inner: Callable[..., optax.GradientTransformation] | None,
    learning_rate: Any,
    default: Callable[..., optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """The rule inside another, from its constructor.

    Args:
      inner: learning_rate -> rule; None means the default.
      learning_rate: What it is called with.
      default: The constructor for None. As a default argument optax.inject_hyperparams would take it for a schedule.
    Returns:
      The rule, which takes extra arguments and passes over those it does not know.
    Raises:
      TypeError: inner is no constructor, or what it gives is no rule.
    Example:
      >>> make_inner(optax.sgd(0.1), 0.1, optax.sgd)
      Traceback (most recent call last):
      TypeError: inner must be a constructor that takes learning_rate, such as heavy_ball; got a rule that is already ...
    """
    inner = default if inner is None else inner
    if not callable(inner):
        made = hasattr(inner, "init") and hasattr(inner, "update")
        given = (
            "a rule that is already made. Give inner=lambda learning_rate: rule; under optax.inject_hyperparams name it in "
            "static_args=('inner',), or optax takes it for a schedule and calls it."
            if made
            else f"inner={inner!r}."
        )
        raise TypeError(f"inner must be a constructor that takes learning_rate, such as heavy_ball; got {given}")
    rule = inner(learning_rate)
    check_rule(rule, "what inner gives")
    return optax.with_extra_args_support(rule)


def check_rate(learning_rate: Any, *, positive: bool = False, no_schedule: str | None = None) -> None:
    """Refuse a learning rate that is neither a number in range nor, where the rule takes one, a schedule.

    Args:
      learning_rate: A number, a tracer or a schedule.
      positive: Whether 0 is refused.
      no_schedule: Why the rule takes no schedule; None if it takes one.
    Raises:
      TypeError, ValueError: What is wrong with it.
    Example:
      >>> check_rate(lambda t: 0.1, no_schedule="it is the first radius, and the rule finds the others")
      Traceback (most recent call last):
      TypeError: learning_rate must be a finite number, at least 0; got a schedule. It is the first radius, and the rule ...
    """
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate, positive=positive)
    elif no_schedule:
        limits = "positive" if positive else "at least 0"
        raise TypeError(
            f"learning_rate must be a finite number, {limits}; got a schedule. {no_schedule[:1].upper()}{no_schedule[1:]}: "
            "give a number."
        )


def rate_at(learning_rate: Any, count: Any) -> Any:
    """Return the rate at a step: a schedule's value there, or the constant itself.

    Example:
      >>> rate_at(lambda t: 2.0 * t, 3), rate_at(0.1, 3)
      (6.0, 0.1)
    """
    return learning_rate(count) if callable(learning_rate) else learning_rate


def check_floating(params: Params) -> None:
    """Refuses params that cannot take a small step.

    Raises:
      TypeError: Which leaf is not floating, and what to call.
    Example:
      >>> check_floating({"b": jnp.zeros(2), "w": jnp.array(1)})
      Traceback (most recent call last):
      TypeError: params must be floating, to take steps of any size; params['w'] is int...[]. Give floats: ...
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"params must be floating, to take steps of any size; params{jax.tree_util.keystr(path)} is "
                f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}. Give floats: "
                "jax.tree.map(lambda x: jnp.asarray(x, float), params)."
            )
