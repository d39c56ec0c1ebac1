"""Rprop, which uses only the signs of the gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float

from research.checks import check_number
from research.types import Array, Params, Scalar
from research.update_rules._checks import check_rate, checked
from research.update_rules._edges import complete
from research.update_rules._entry import RuleEntry, step_rate
from research.update_rules._transforms import cast, constant_rate


class RpropState(NamedTuple):
    """State of `rprop`, whose docstring defines the symbols.

    Attributes:
      sign: Sign of the last gradient, shaped like the params. An entry is 0 if the sign
        of its gradient changed in the last step.
      step_size: Step size Δ_t of each entry, shaped like the params.
      learning_rate: First step size η, shape ().
    """

    sign: Params
    step_size: Params
    learning_rate: Float[Array, ""]


@checked
def rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> optax.GradientTransformation:
    """Step against the sign of each gradient entry, with growing and shrinking steps.

    Each entry of the params has its own step size Δ_t. Δ_t grows while the gradient of
    this entry keeps its sign, and shrinks when the sign changes:

    u_t = -Δ_t sign(g_t), or 0 if g_t g_(t-1) < 0,
    Δ_t = clip(Δ_(t-1) η+) if g_t g_(t-1) > 0,
    Δ_t = clip(Δ_(t-1) η-) if g_t g_(t-1) < 0,
    Δ_t = clip(Δ_(t-1)) otherwise.
    All operations act entry by entry. g_t is the gradient and u_t the update. t is
    counted from 1, Δ_0 = η and g_0 = 0. Here η is learning_rate, η+ is eta_plus and η-
    is eta_minus. clip limits Δ_t to the range from min_step_size to max_step_size. If
    g_t g_(t-1) < 0, g_t counts as 0 in the next step, so that a step size shrinks once
    for each overshoot.

    This rule is iRprop- of Igel & Hüsken. torch.optim.Rprop is the same. The original
    rule of 1993 (Rprop+) undoes the last step when the sign changes. optax.rprop (up to
    0.2.8) returns each step one call too late. Its first update is therefore 0. When
    the sign changes, optax.rprop returns 0 instead of the late step, which is lost.
    Where g_t g_(t-1) = 0, optax.rprop does not clip Δ_t.

    Use it on full batches for functions that are badly scaled along the axes. The step
    sizes adapt, so learning_rate need not be tuned. Do not use it on mini-batches,
    where signs change by chance and the step sizes shrink towards zero.

    Args:
      learning_rate: First step size η of all entries. A number of at least 0, or a
        traced scalar. A schedule is not accepted.
      eta_minus: Factor η- in [0, 1); may be traced.
      eta_plus: Factor η+, at least 1; may be traced.
      min_step_size, max_step_size: Limits of the step sizes Δ_t, at least 0; may be
        traced. max_step_size is at least min_step_size.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number;
        min_step_size exceeds max_step_size; in init, the params are complex.
    References:
      Riedmiller & Braun, A direct adaptive method for faster backpropagation learning:
      the RPROP algorithm, ICNN 1993.
      Igel & Hüsken, Empirical evaluation of the improved Rprop learning algorithms,
      Neurocomputing 50 (2003), section 2.
    Example:
      >>> rule = rprop(1.0, eta_minus=0.5, eta_plus=2.0)
      >>> state = rule.init(jnp.zeros(2))
      >>> for g in ([3.0, -7.0], [4.0, 1.0], [5.0, 1.0]):
      ...     updates, state = rule.update(jnp.array(g), state)
      ...     print(updates + 0.0)
      [-1.  1.]
      [-2.  0.]
      [-4.  -0.5]
    """
    check_rate(
        learning_rate,
        no_schedule=(
            "the rate is the first step size, which the rule changes for each entry"
        ),
    )
    check_number("eta_minus", eta_minus, below=1.0)
    check_number("eta_plus", eta_plus)
    check_number("min_step_size", min_step_size)
    check_number("max_step_size", max_step_size)
    _check_order("eta_plus", "1", 1.0, eta_plus)
    _check_order("max_step_size", "min_step_size", min_step_size, max_step_size)

    def init(params: Params):
        sizes = jax.tree.map(lambda x: jnp.full_like(x, learning_rate), params)
        signs = jax.tree.map(jnp.zeros_like, params)
        return RpropState(signs, sizes, constant_rate(learning_rate))

    def resize(size: Array, agreement: Array):
        unchanged = jnp.where(
            agreement == 0, cast(1.0, size), agreement
        )  # A NaN must stay visible.
        shrinking = jnp.where(agreement < 0, cast(eta_minus, size), unchanged)
        factor = jnp.where(agreement > 0, cast(eta_plus, size), shrinking)
        return jnp.clip(
            size * factor, cast(min_step_size, size), cast(max_step_size, size)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        signs = jax.tree.map(
            lambda g, s: jnp.sign(g).astype(s.dtype), updates, state.sign
        )
        agreements = jax.tree.map(
            jnp.multiply, signs, state.sign
        )  # Signs, because products of gradients underflow.
        sizes = jax.tree.map(resize, state.step_size, agreements)
        signs = jax.tree.map(lambda s, a: jnp.where(a < 0, 0, s), signs, agreements)
        steps = jax.tree.map(
            lambda g, s, size: (-size * s).astype(g.dtype), updates, signs, sizes
        )
        return steps, RpropState(signs, sizes, constant_rate(learning_rate))

    return complete(optax.GradientTransformation(init, update), only_real="rprop")


def _check_order(name: str, other: str, least: Scalar, value: Scalar) -> None:
    if (
        not isinstance(least, Tracer)
        and not isinstance(value, Tracer)
        and float(value) < float(least)
    ):
        bound = other if other == "1" else f"{other} = {float(least):g}"
        raise ValueError(f"{name} must be at least {bound}; got {name}={value!r}.")


RULES = (RuleEntry(rprop, {"learning_rate": step_rate(0.01)}),)
