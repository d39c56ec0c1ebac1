"""Another's rule, walked from 0: one that sees params only in differences steps from
anywhere alike, and rounds less."""

import jax
import jax.numpy as jnp
import optax


def from_zero(
    rule: optax.GradientTransformation, positions: str
) -> optax.GradientTransformation:
    """The rule, told x_t - x_0 where it asks for x_t.

    optax takes differences of params whose size is 1 and whose moves are 1e-13, and so
    loses the digits of its updates.

    Args:
      rule: One that uses params in differences alone; so none with weight decay.
      positions: The name of that field of its state which holds params: it starts at 0,
        too.
    Returns:
      The same rule, with updates that are true to the last digits.
    Example:
      >>> rule = from_zero(optax.contrib.dog(), "init_params")
      >>> x = jnp.array([1.0, 2.0])
      >>> updates, _ = rule.update(jnp.array([3.0, 4.0]), rule.init(x), x)
      >>> print(", ".join(f"{u:.3e}" for u in updates))
      -1.942e-06, -2.589e-06
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, optax.tree_utils.tree_set(rule.init(params), **{positions: zeros})

    def update(updates, state, params=None):
        del params
        moved, inner = state
        updates, inner = rule.update(updates, inner, moved)
        return updates, (optax.apply_updates(moved, updates), inner)

    return optax.GradientTransformation(init, update)
