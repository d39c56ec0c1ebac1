"""Rules that treat each leaf as a whole: LAMB and Muon.

LAMB uses the norm of each leaf, and Muon its singular values.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from research.checks import check_number
from research.schedules import Schedule
from research.sizes import check_most
from research.types import Array, Params
from research.update_rules._adam import adam
from research.update_rules._bias_correction import bias_correction as correction_of
from research.update_rules._checks import checked, make_inner
from research.update_rules._edges import abs_square, complete
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._groups import checked_mask
from research.update_rules._rule_info import DirectionState
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    increment,
    moving_average,
)

# Keller Jordan's coefficients, chosen for a large slope at 0. Five iterations raise it to
# 3.4445^5 = 485. The singular values do not converge to 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@checked
def lamb(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-6,
    eps_root: float | Array = 0.0,
    weight_decay: float | Array = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Scale AdamW's step for each leaf to the norm of the leaf.

    u_t = -η_t (|x_t| / |d_t|) d_t for each leaf, with d_t = m̂_t / (√(v̂_t + ε_root) +
    ε) + λ x_t as in `adamw` and t counted from 1. Here |.| is the Euclidean norm of a
    leaf, and λ is weight_decay. If |x_t| or |d_t| is 0, the ratio is 1, as in the
    authors' code. Otherwise a leaf that starts at 0 could never move.

    The paper has a function φ that may clip |x_t|. It is the identity here and in
    optax.lamb, which is the same rule. timm's Lamb is the same with max_grad_norm=None
    and always_adapt=True. By default it clips the global norm of the gradient to 1, and
    leaves out the ratio for leaves with λ = 0. torch does not have LAMB.

    Use it for large batches on models with many layers of different scales, with
    warm-up. On small problems it has no advantage over AdamW. A rate of 0.1 changes
    every leaf by a tenth of its norm in each step, even at a minimum.

    Args:
      learning_rate: Learning rate η: a number of at least 0, a traced scalar, or a
        schedule t -> η_t.
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update received no params.
    References:
      You et al., Large batch optimization for deep learning: training BERT in 76
      minutes, ICLR 2020, algorithm 2.
    Example:
      >>> rule, x = lamb(0.5, eps=0.0), jnp.array([3.0, 4.0, 0.0, 0.0])
      >>> print(rule.update(jnp.array([8.0, -8.0, 8.0, 8.0]), rule.init(x), x)[0])
      [-1.25  1.25 -1.25 -1.25]
    """
    direction = _direction(adam(1.0, b1, b2, eps, eps_root))
    return optax.chain(
        direction,
        add_decayed_weights(weight_decay, mask),
        _as_long_as_the_leaf(),
        descend(learning_rate),
    )


def _direction(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the direction of a rule that was made with the learning rate 1.

    Such a rule steps by minus its direction.
    """
    rule = optax.with_extra_args_support(rule)

    def init(params: Params):
        return DirectionState(rule.init(params))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        updates, inner = rule.update(updates, state.direction, params, **extra)
        return jax.tree.map(operator.neg, updates), DirectionState(inner)

    return complete(optax.GradientTransformationExtraArgs(init, update))


def _as_long_as_the_leaf() -> optax.GradientTransformation:
    def scale(d, x):
        of_x, of_d = _norm(x), _norm(d)
        ratio = jnp.where(
            (of_x == 0) | (of_d == 0), 1.0, of_x / of_d
        )  # NaN != 0, so a NaN stays visible.
        return cast(ratio, d) * d

    def update(updates: Params, state: Any, params: Params | None = None):
        return jax.tree.map(
            scale, updates, params
        ), state  # The decay before this link checked params.

    return complete(optax.GradientTransformation(optax.init_empty_state, update))


def _norm(x: Array) -> Array:
    return jnp.sqrt(
        jnp.sum(abs_square(x.astype(jnp.promote_types(x.dtype, jnp.float32))))
    )


class MuonState(NamedTuple):
    """State of Muon for the matrices.

    Attributes:
      count: Number of steps taken t, int32, shape ().
      mu: Moving average of gradients M_t, like the params.
    """

    count: Array
    mu: Params


@checked
def muon(
    learning_rate: float | Array | Schedule,
    beta: float | Array = 0.95,
    nesterov: bool = True,
    eps: float | Array = 1e-7,
    weight_decay: float | Array = 0.0,
    ns_steps: int | Array = 5,
    ns_coeffs: tuple[float, float, float] = NEWTON_SCHULZ,
    bias_correction: bool = False,
    matrices: Any = None,
    inner: Callable[..., optax.GradientTransformation] | None = None,
) -> optax.GradientTransformation:
    """Orthogonalise the momentum of each matrix before the step.

    U_t = -η_t (√max(1, n / m) O(β M_t + (1 - β) G_t) + λ X_t), with M_t = β M_(t-1) +
    (1 - β) G_t. X_t is the matrix and G_t its gradient, of shape (m, n) for m inputs
    and n outputs. λ is weight_decay, β is beta and M_t is the momentum. With
    nesterov=False, O is applied to M_t instead.

    O(A) keeps the singular vectors of A and brings its singular values close to 1. It
    starts from Y = A / (|A| + ε) with the Frobenius norm |A|, and repeats Y <- a Y + b
    Y Yᵀ Y + c Y Yᵀ Y Yᵀ Y for ns_steps iterations. With the reference's a, b and c,
    singular values of at least 0.01 |A| are mapped to values between 0.68 and 1.14.
    With (15/8, -10/8, 3/8) and more iterations, they are mapped to 1.

    The rule is the reference implementation, except that the reference rounds to
    bfloat16 inside O, as does torch.optim.Muon. This rule keeps the leaf's dtype.
    optax.contrib.muon differs in three ways. First, it divides M_t by 1 - β^(t+1) and
    G_t by 1 - β^t before the look-ahead (bias_correction=True). The second update then
    weighs the older of the first two gradients by 0.374 times the weight of the newer,
    instead of 0.463 times. Second, its ε is 1e-8. Third, its `nesterov`, which is on by
    default, also turns the Adam for the other leaves into NAdam.

    Use it for the weight matrices between hidden layers of deep networks, where it is
    fast. Inputs, outputs, biases and gains are left to `inner`. The step does not
    shrink with the gradient, so the params only converge if the rate decays.

    Args:
      learning_rate: Learning rate η of all leaves: a number of at least 0, a traced
        scalar, or a schedule t -> η_t.
      beta: Decay rate β in [0, 1); may be traced.
      nesterov: Whether to use the look-ahead β M_t + (1 - β) G_t instead of M_t.
      eps: Constant ε, at least 0; may be traced.
      weight_decay: Factor λ for the matrices, at least 0; may be traced.
      ns_steps: Number of iterations, a positive integer; may be traced.
      ns_coeffs: Coefficients a, b and c.
      bias_correction: Whether to correct the bias as optax does.
      matrices: Pytree of booleans (a prefix of the params), or a function from params
        to such a pytree. Leaves marked True are orthogonalised. None selects the leaves
        with two axes.
      inner: Function from a rate to the rule for the other leaves; None means adam. The
        rule is made with the rate 1, and its updates are multiplied by η_t. For
        example, `lambda rate: adamw(0.1 * rate)` is AdamW at a tenth of the rate.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, a
        selected leaf is not a matrix, or update received no params.
    References:
      Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024
      (kellerjordan.github.io/posts/muon).
    Example:
      >>> rule, x = muon(1.0, eps=0.0, ns_coeffs=(1.875, -1.25, 0.375), ns_steps=9), {"w": jnp.eye(2), "b": jnp.ones(1)}
      >>> updates, _ = rule.update({"w": jnp.array([[0.0, 3.0], [-2.0, 0.0]]), "b": jnp.full(1, 8.0)}, rule.init(x), x)
      >>> print(updates["w"].round(6) + 0.0, updates["b"])
      [[ 0. -1.]
       [ 1.  0.]] [-1.]
    """
    check_number("beta", beta, below=1.0)
    check_number("eps", eps)
    check_number("ns_steps", ns_steps, positive=True, integer=True)
    check_most(1_000, ns_steps=ns_steps)
    if len(ns_coeffs) != 3:
        raise ValueError(
            "ns_coeffs must be three numbers, the coefficients of x, x³ and x⁵; got "
            f"ns_coeffs={ns_coeffs!r}."
        )

    def orthogonalise(a):
        return math.sqrt(max(1.0, a.shape[1] / max(a.shape[0], 1))) * newton_schulz(
            a, ns_steps, ns_coeffs, eps
        )

    chosen = checked_mask(_two_axes if matrices is None else matrices)
    others = lambda tree: jax.tree.map(operator.not_, chosen(tree))
    of_matrices = optax.chain(
        _momentum(beta, nesterov, bias_correction, orthogonalise),
        add_decayed_weights(weight_decay),
    )
    others_rule = _direction(make_inner(inner, 1.0, adam))
    return complete(
        optax.chain(
            optax.masked(of_matrices, chosen),
            optax.masked(others_rule, others),
            descend(learning_rate),
        )
    )


def _two_axes(tree: Params) -> Any:
    return jax.tree.map(lambda x: jnp.ndim(x) == 2, tree)


def _momentum(
    beta: float | Array,
    nesterov: bool,
    bias_correction: bool,
    orthogonalise: Callable[[Array], Array],
) -> optax.GradientTransformation:
    def init(params: Params):
        for path, x in jax.tree_util.tree_leaves_with_path(params):
            if jnp.ndim(x) != 2:
                raise ValueError(
                    "muon orthogonalises matrices, but the leaf at "
                    f"{jax.tree_util.keystr(path) or 'the top'} that `matrices` "
                    f"chooses has shape {list(jnp.shape(x))}. Choose leaves with two "
                    "axes."
                )
        return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(beta, state.mu, updates)

        def corrected(a, t):
            return a / cast(correction_of(beta, t), a) if bias_correction else a

        def direction(g, m):
            if not nesterov:
                return orthogonalise(corrected(m, count)).astype(g.dtype)
            ahead = corrected(m, increment(count))
            newest = corrected(g.astype(m.dtype), count)
            return orthogonalise(
                cast(beta, m) * ahead + cast(1.0 - beta, m) * newest
            ).astype(g.dtype)

        return jax.tree.map(direction, updates, mu), MuonState(count, mu)

    return complete(optax.GradientTransformation(init, update), only_real="muon")


def newton_schulz(
    a: Array,
    ns_steps: int | Array = 5,
    ns_coeffs: tuple[float, float, float] = NEWTON_SCHULZ,
    eps: float | Array = 1e-7,
) -> Array:
    """Return a matrix with the singular vectors of a and singular values close to 1.

    The matrix comes from repeated application of an odd polynomial of degree five.
    Rounding errors in directions with a zero singular value are magnified like small
    singular values: by 485 with the defaults.

    Args:
      a: Matrix, shape (m, n).
      ns_steps, ns_coeffs, eps: As in `muon`.
    Returns:
      The matrix, shape (m, n), with the dtype of a.
    Example:
      >>> print(newton_schulz(jnp.diag(jnp.array([3.0, 4.0])), 9, (1.875, -1.25, 0.375)).round(6))
      [[1. 0.]
       [0. 1.]]
    """
    first, third, fifth = (cast(c, a) for c in ns_coeffs)
    x = a if a.shape[0] <= a.shape[1] else a.T  # Use the smaller of XXᵀ and XᵀX.
    norm = _norm(x)
    x = (x.astype(norm.dtype) / (norm + cast(eps, norm))).astype(x.dtype)

    def iterate(_, x):
        square = _product(x, x.T)
        return first * x + _product(
            third * square + fifth * _product(square, square), x
        )

    if not isinstance(ns_steps, Tracer):
        check_most(1_000, ns_steps=ns_steps)
    if isinstance(ns_steps, Tracer):  # For example under optax.inject_hyperparams.
        x = jax.lax.fori_loop(0, ns_steps, iterate, x)
    else:
        for k in range(ns_steps):
            x = iterate(k, x)
    return x if a.shape[0] <= a.shape[1] else x.T


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


RULES = (
    RuleEntry(lamb, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
    RuleEntry(
        muon,
        {
            "learning_rate": step_rate(0.02),
            "beta": Range(0.0, 0.999, "one_minus", 0.95),
        },
    ),
)
