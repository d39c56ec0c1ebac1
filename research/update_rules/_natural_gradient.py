"""Natural gradient: descent in the metric of the model's Fisher matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Num

from research.checks import check_choice, check_number
from research.schedules import Schedule
from research.types import Array, Outcome, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete, refuse_none
from research.update_rules._entry import SECOND_ORDER, RuleEntry
from research.update_rules._second_order import (
    DEFINITE,
    NOT_FINITE_MATRIX,
    flatten,
    require,
    shaped_like,
    solve_symmetric,
)
from research.update_rules._transforms import cast, increment, working_dtype

FisherFn = Callable[
    ..., Array
]  # (params, indices=None) -> (n, n) over the params as one vector


class NaturalGradientState(NamedTuple):
    """State of `natural_gradient`, whose docstring defines the symbols.

    Attributes:
      count: Number of calls of update, int32, shape ().
      learning_rate: Learning rate η of the last step, 0 if no step was taken, shape ().
      outcome: `research.types.Outcome` of the last step, int32, shape ().
      curvature: Kind of the matrix F + λ I, such as positive definite: an index into
        `research.update_rules._second_order.CURVATURES`, int32, shape ().
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    outcome: Int[Array, ""]
    curvature: Int[Array, ""]


@checked
def natural_gradient(
    learning_rate: Scalar | Schedule = 1.0,
    *,
    fisher_fn: FisherFn | None = None,
    damping: Scalar = 0.0,
    singular: str = "drop",
) -> optax.GradientTransformationExtraArgs:
    """Step along the negative gradient in the metric of the Fisher matrix.

    u_t = -η_t (F(x_t) + λ I)⁻¹ g_t, where u_t is the update, x_t are the params, g_t is
    the gradient, η_t is the learning rate, λ is damping and F is the Fisher matrix. For
    one input, the model gives a distribution p of the target. The Fisher matrix of this
    input is the covariance of the gradient of log p(y) with respect to the params, for
    targets y drawn from p. F is the mean of these matrices over the inputs. For a small
    step h, ½ hᵀ F h is approximately the mean Kullback-Leibler divergence between p
    before and after the step. With λ = 0, a step changes p in the same way for every
    smooth invertible parametrisation of the model, to first order in η.

    `canonical_fisher` computes F for models whose outputs are the logits of a logistic
    function or of a softmax. If these logits are linear in the params, as in logistic
    and softmax regression, F is the Hessian of the mean cross-entropy. With η = 1 and λ
    = 0, the rule is then Newton's method without a line search.

    For logistic and softmax regression, with or without a penalty, fisher_fn may be
    left out. F is then the Hessian of the objective, which includes the Hessian of the
    penalty. The objective is the argument value_fn of update. For most other models
    this Hessian is not the Fisher matrix, so pass fisher_fn. optax and torch do not
    have this rule.

    Use it for generalised linear models. It also suits small networks whose Hessian is
    indefinite, because F is never indefinite. The rule does not use the value of the
    objective, so it has no line search. Far from the minimum, the rule may therefore
    diverge with η = 1. `newton` has a line search.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      fisher_fn: Function (params, indices=None) -> F, shape (n, n) for n parameters in
        the order of `jax.flatten_util.ravel_pytree`. `indices` are the indices of the
        mini-batch's examples, if update gets indices. If update gets a fisher_fn, the
        function given here is ignored. If neither function is given, F is the Hessian
        of value_fn.
      damping: Damping λ, at least 0; may be traced.
      singular: What to do if F + λ I is not positive definite up to rounding errors, as
        for softmax without a penalty. "drop" leaves out the directions whose eigenvalue
        is zero or negative, up to rounding errors. "stop" takes no step. In both cases
        the field `curvature` of the state reports the kind of the matrix, such as
        singular.
    Returns:
      The rule; its update needs params, and fisher_fn or value_fn.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number;
        singular is unknown; update lacks a required argument; fisher_fn returns a
        matrix of another shape; in init, the params are complex.
    References:
      Amari, Natural gradient works efficiently in learning, Neural Computation 10
      (1998), theorem 1. Martens, New insights and perspectives on the natural gradient
      method, JMLR 21 (2020), section 9 on Gauss-Newton.
    Example:
      >>> fisher = jnp.diag(jnp.array([4.0, 16.0]))
      >>> rule, x = (
      ...     natural_gradient(0.5, fisher_fn=lambda x, indices=None: fisher),
      ...     jnp.ones(2),
      ... )
      >>> print(rule.update(jnp.array([8.0, 16.0]), rule.init(x), x)[0])
      [-1.  -0.5]
    """
    check_rate(learning_rate)
    check_number("damping", damping)
    check_choice("singular", singular, ("drop", "stop"))
    given = fisher_fn

    def init(params: Params):
        count, outcome, curvature = (
            jnp.zeros((), jnp.int32) for _ in range(3)
        )  # Separate arrays, so that each can be donated.
        return NaturalGradientState(
            count, jnp.zeros((), working_dtype(params)), outcome, curvature
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        fisher_fn: Any = None,
        indices: Any = None,
        **extra: Any,
    ):
        del extra
        fisher_fn = given if fisher_fn is None else fisher_fn
        if fisher_fn is None:
            require(
                "natural_gradient without fisher_fn", params=params, value_fn=value_fn
            )
        require("natural_gradient", params=params)
        refuse_none(updates, params, "natural_gradient")
        x, unflatten = flatten(params)
        if fisher_fn is None:
            matrix = jax.hessian(
                lambda z: jnp.asarray(value_fn(unflatten(z)), x.dtype)
            )(x)
        else:
            matrix = (
                fisher_fn(params) if indices is None else fisher_fn(params, indices)
            )
            if jnp.shape(matrix) != (len(x), len(x)):
                raise ValueError(
                    f"fisher_fn must return shape {(len(x), len(x))}; it returned "
                    f"{jnp.shape(matrix)}."
                )
        g = flatten(updates)[0].astype(x.dtype)
        matrix = (matrix + matrix.T).astype(x.dtype) / 2 + cast(damping, x) * jnp.eye(
            len(x), dtype=x.dtype
        )
        p, curvature = solve_symmetric(matrix, -g, singular)
        rate = cast(rate_at(learning_rate, state.count), x)
        nothing = jnp.all(p == 0) & jnp.any(g != 0) & (curvature != DEFINITE)
        finite = jnp.all(jnp.isfinite(g)) & jnp.all(jnp.isfinite(matrix))
        outcome = jnp.where(nothing, Outcome.SINGULAR, Outcome.FOUND)
        outcome = jnp.where(finite, outcome, Outcome.NOT_FINITE).astype(jnp.int32)
        curvature = jnp.where(finite, curvature, NOT_FINITE_MATRIX).astype(jnp.int32)
        rate = jnp.where(outcome < Outcome.FIRST_FAILURE, rate, 0.0)
        step = jnp.where(finite, rate * p, jnp.nan)
        return shaped_like(step, unflatten, updates), NaturalGradientState(
            increment(state.count), rate, outcome, curvature
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(
        whole, only_real="natural_gradient", needs_value_fn=True, sees_none=True
    )


def canonical_fisher(
    apply: Callable[[Params, Num[Array, "n ..."]], Float[Array, "n ..."]],
    x: Num[Array, "n ..."],
    penalty: Any = None,
) -> FisherFn:
    """Return a function that computes the Fisher matrix of a model with logits.

    The matrix is (1/n) Σ_i J_iᵀ (diag p_i - p_i p_iᵀ) J_i, with the sum over n
    examples. J_i is the Jacobian of the logits of example i with respect to the params,
    and p_i is the softmax of these logits. For a single logit z_i, the matrix is (1/n)
    Σ_i σ(z_i) (1 - σ(z_i)) J_iᵀJ_i, where σ is the logistic function. The Fisher matrix
    is also the generalised Gauss-Newton matrix of the mean cross-entropy.

    Args:
      apply: Model (params, x) -> logits, as in `research.models`. The logits have shape
        (n,) for logistic models, or (n, K) for a softmax over K classes.
      x: Inputs, shape (n, ...).
      penalty: Function from params to a number, such as
        `research.objectives.l2_penalty`. The Hessian of the penalty is added to the
        Fisher matrix. None means no penalty.
    Returns:
      The fisher_fn for `natural_gradient`: (params, indices=None) -> F, over all inputs
      or over those with the given indices.
    Raises:
      ValueError: The logits do not have one or two axes. The error is raised by a call
        of the returned function.
    References:
      Martens, New insights and perspectives on the natural gradient method, JMLR 21
      (2020), equation (8) and section 9.2. Schraudolph, Fast curvature matrix-vector
      products, Neural Computation 14 (2002), on matching losses.
    Example:
      >>> fisher = canonical_fisher(lambda w, x: x @ w, jnp.array([[2.0], [4.0]]))
      >>> print(fisher(jnp.zeros(1)))  # p (1 - p) is 1/4.
      [[2.5]]
    """

    def fisher(params: Params, indices: Array | None = None) -> Array:
        flat, unflatten = flatten(params)
        inputs = x if indices is None else x[indices]

        def logits(z: Array):
            return apply(unflatten(z), inputs).astype(flat.dtype)

        z, jacobian = logits(flat), jax.jacfwd(logits)(flat)
        if z.ndim not in (1, 2):
            raise ValueError(
                "apply must return logits of shape (n,) or (n, K); it returned "
                f"{z.shape}."
            )
        if z.ndim == 1:
            weighted = (
                jnp.expand_dims(jax.nn.sigmoid(z) * jax.nn.sigmoid(-z), 1) * jacobian
            )
            matrix = jacobian.T @ weighted / len(z)
        else:
            p = jax.nn.softmax(z)
            mean = jnp.einsum("nk,nkd->nd", p, jacobian)
            centred = jacobian - jnp.expand_dims(mean, 1)
            matrix = jnp.einsum("nk,nkd,nke->de", p, centred, centred) / len(z)
        if penalty is not None:
            matrix += jax.hessian(lambda z: penalty(unflatten(z)).astype(flat.dtype))(
                flat
            )
        return matrix

    return fisher


RULES = (RuleEntry(natural_gradient, SECOND_ORDER),)
