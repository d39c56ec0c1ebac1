"""Run another library's rule from 0, which avoids rounding errors.

A rule that uses only differences of params takes the same steps from any start.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.types import Params


def from_zero(
    rule: optax.GradientTransformation, positions: str
) -> optax.GradientTransformation:
    """Return a rule that passes x_t - x_0 instead of the params x_t to the given rule.

    x_0 are the initial params. Some rules of optax subtract x_0 from x_t. If two
    numbers near 1 differ by 1e-13, their difference in float64 has only three correct
    digits. The returned rule computes x_t - x_0 as the sum of its updates instead. The
    example shows the first step of DoG, which has the length 1e-6 (1 + |x_0|) =
    3.236e-6.

    Args:
      rule: A rule that uses only differences of params (so it has no weight decay).
      positions: Name of the field that holds params in the rule's state. In the
        returned rule, this field starts at 0.
    Returns:
      The same rule, with updates that are accurate to the last digits.
    Example:
      >>> rule = from_zero(optax.contrib.dog(), "init_params")
      >>> x = jnp.array([1.0, 2.0])
      >>> updates, _ = rule.update(jnp.array([3.0, 4.0]), rule.init(x), x)
      >>> print(", ".join(f"{u:.3e}" for u in updates))
      -1.942e-06, -2.589e-06
    """

    def init(params: Params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, optax.tree_utils.tree_set(rule.init(params), **{positions: zeros})

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        moved, inner = state
        updates, inner = rule.update(updates, inner, moved)
        return updates, (optax.apply_updates(moved, updates), inner)

    return optax.GradientTransformation(init, update)
