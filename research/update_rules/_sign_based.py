"""Momentum rules whose steps do not scale with the gradient: Lion and ADOPT.

Lion takes the sign of an average. ADOPT averages gradients that are already normalised.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
from research.update_rules._checks import checked
from research.update_rules._edges import complete
from research.update_rules._entry import MOMENTUM, RuleEntry, step_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    increment,
    like,
    moving_average,
)


class LionState(NamedTuple):
    """State of `lion`, whose docstring defines the symbols.

    Attributes:
      mu: Moving average m_t of gradients, shaped like the params.
    """

    mu: Params


@checked
def lion(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 1e-3,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Step by the sign of a moving average of the gradients.

    u_t = -η_t (sign(β1 m_(t-1) + (1 - β1) g_t) + λ x_t), with m_t = β2 m_(t-1) + (1 -
    β2) g_t from m_0 = 0. Here g_t is the gradient, x_t are the params, u_t is the
    update, η_t the learning rate and λ is weight_decay. The average inside the sign is
    computed from m_(t-1) with the decay β1. The state stores only m_t.

    optax.lion and timm's Lion are the same except for the default of λ: 1e-3 in optax
    and here, 0 in timm. torch does not have Lion.

    Use it on large networks and large batches. Apart from the decay, every entry moves
    by η, however small its gradient is. (If the sign in u_t is 0, only the decay moves
    the entry.) Take a value of η that is 3 to 10 times smaller than for AdamW, and a
    value of λ that is larger by the same factor. Lion stores one array per leaf, and
    Adam stores two. With a constant η, the params generally do not converge, because
    the size of the steps does not shrink.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced. With b1 = b2 and no weight
        decay, the rule is `signum`.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        mask does not fit the params; update received no params; in init, the params are
        complex.
    References:
      Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023,
      algorithm 2.
    Example:
      >>> rule, x = lion(0.5, weight_decay=0.5), jnp.array([2.0, 0.0])
      >>> print(rule.update(jnp.array([4.0, -1e-6]), rule.init(x), x)[0])
      [-1.   0.5]
    """
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)

    def init(params: Params):
        return LionState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        short = moving_average(b1, state.mu, updates)
        signs = jax.tree.map(lambda g, c: like(jnp.sign(c), g), updates, short)
        return signs, LionState(moving_average(b2, state.mu, updates))

    direction = complete(optax.GradientTransformation(init, update), only_real="lion")
    return optax.chain(
        direction, add_decayed_weights(weight_decay, mask), descend(learning_rate)
    )


class AdoptState(NamedTuple):
    """State of `adopt`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of normalised gradients, shaped like the params.
      nu: Moving average v_t of squared gradients, shaped like the params.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params


@checked
def adopt(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    use_clipping: bool = True,
) -> optax.GradientTransformation:
    """Divide each gradient by the size of earlier gradients, and average the results.

    At step t, counted from 1, g_t is the gradient, u_t the update and η_t the learning
    rate. m_t averages the normalised gradients d_t, and v_t averages the squared
    gradients. The first gradient only initialises v_1 = g_1², with m_1 = 0 and u_1 = 0.
    For t > 1,
    d_t = g_t / max(√v_(t-1), ε), clipped to ±(t - 1)^¼,
    m_t = β1 m_(t-1) + (1 - β1) d_t,
    u_t = -η_t m_t,
    v_t = β2 v_(t-1) + (1 - β2) g_t².

    The paper's first version does not clip d_t, and its second version clips d_t. With
    use_clipping=False, the rule is the same as the authors' present code without
    clipping. In the authors' first code, the average m_t starts at the first normalised
    gradient: m_2 = d_2, not (1 - β1) d_2. optax.contrib.adopt is the same as the rule
    here.

    Without clipping, an entry whose first gradients are 0 may take a huge step, because
    its first nonzero d_t is g_t / ε. With eps=0, an entry whose gradients are all 0
    gives 0/0, which is NaN.

    Use it instead of Adam if β2 cannot be tuned. The paper proves convergence for every
    β2. The reason is that the divisor of g_t does not depend on g_t. An unusual first
    gradient affects v_t for about 1 / (1 - β2) steps, which is 10,000 by default.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
      use_clipping: Whether d_t is clipped.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        in init, the params are complex.
    References:
      Taniguchi et al., ADOPT: modified Adam can converge with any β2 with the optimal
      rate, NeurIPS 2024, algorithm 1; a later version, arXiv:2411.02853, clips.
    Example:
      >>> rule = adopt(1.0, b1=0.0)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(rule.update(jnp.array([2.0]), state)[0])
      [-0.5]
    """
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)

    def init(params: Params):
        return AdoptState(
            jnp.zeros((), jnp.int32),
            *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)),
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        first, most = state.count == 0, jnp.asarray(state.count, float) ** 0.25

        def divide(g: Array, v: Array):
            divided = g.astype(v.dtype) / jnp.maximum(jnp.sqrt(v), cast(eps, v))
            return (
                jnp.clip(divided, -cast(most, v), cast(most, v))
                if use_clipping
                else divided
            )

        averaged = moving_average(b1, state.mu, jax.tree.map(divide, updates, state.nu))
        mu = jax.tree.map(lambda m, new: jnp.where(first, m, new), state.mu, averaged)
        squares = jax.tree.map(
            lambda g, v: jnp.square(g).astype(v.dtype), updates, state.nu
        )
        later = moving_average(b2, state.nu, squares)
        nu = jax.tree.map(lambda square, v: jnp.where(first, square, v), squares, later)
        return jax.tree.map(lambda g, m: m.astype(g.dtype), updates, mu), AdoptState(
            increment(state.count), mu, nu
        )

    return optax.chain(
        complete(optax.GradientTransformation(init, update), only_real="adopt"),
        descend(learning_rate),
    )


RULES = (
    RuleEntry(lion, {"learning_rate": step_rate(1e-4), "b1": MOMENTUM}),
    RuleEntry(adopt, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
)
