"""Gradient descent and nonlinear conjugate gradients with a line search.

In the formulas, f is the objective, g_t its gradient at the params x_t, and u_t the
update at step t. <a, b> is the inner product.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Integer, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete
from research.update_rules._entry import LINE_SEARCH, RuleEntry
from research.update_rules._line_search_state import (
    Search,
    Searched,
    capped_inverse_norm,
    failed,
    find_line_search,
    not_yet,
    take_step,
)
from research.update_rules._line_searches import backtracking, inner, strong_wolfe
from research.update_rules._transforms import cast, increment


class SearchState(NamedTuple):
    """State of `backtracking_descent`.

    Attributes:
      count: Number of steps taken, int32, shape ().
      search: Result of the last line search, a `Searched` with the fields
        `learning_rate` (the step size), `evaluations` and `outcome`.
    """

    count: Int[Array, ""]
    search: Searched


@checked
def backtracking_descent(
    learning_rate: Scalar | Schedule = 1.0,
    sufficient_decrease: Scalar = 1e-4,
    shrink: Scalar = 0.5,
    increase: Scalar | None = None,
    max_evaluations: Integer = 50,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with a backtracking line search by Armijo's rule.

    u_t = -a_t g_t.

    u_t is the update, a_t the step size and g_t the gradient at step t. The search
    tries the step sizes b_t, ρ b_t, ρ² b_t, ... one after another. These step sizes are
    called trials. The step size a_t is the first trial that satisfies this inequality:

    f(x_t - a_t g_t) <= f(x_t) - c a_t |g_t|².

    Here f is the objective, x_t are the params, ρ is shrink and c is
    sufficient_decrease.

    By default the first trial b_t is η, the learning rate, at every step. If the
    argument `increase` is given, b_t is min(η, increase · a_(t-1)). The search then
    needs fewer evaluations if a_t hardly changes from step to step. But at the first
    step, and after a failed search, b_t is η.

    The same rule in optax is chain(sgd(1), scale_by_backtracking_linesearch(n,
    slope_rtol=c, decrease_factor=ρ, increase_factor=increase or inf,
    max_learning_rate=η)), where n is max_evaluations. If no trial is accepted, optax
    takes the last trial. In this rule, the update is 0 instead, and the field
    `search.outcome` of the state gives the reason.

    Use it on a deterministic, cheap objective to avoid tuning a rate. Like gradient
    descent, the rule is slow if the Hessian is ill-conditioned. On mini-batches, the
    search looks only at the loss of the current batch. With a constant η, the rule
    therefore does not average out the noise of the gradients. Gradient descent with a
    falling learning rate does.

    Args:
      learning_rate: Largest step size η to try. A positive number, a traced scalar or a
        schedule (number of earlier steps -> η).
      sufficient_decrease: Constant c in (0, 1).
      shrink: Factor ρ in (0, 1).
      increase: Positive factor. The first trial of a search is this factor times the
        last accepted step size, but at most η. None starts each search from η.
      max_evaluations: Largest number of trials per step.
    Returns:
      The rule; its update needs params, value and value_fn. The state is a SearchState.
      The field `search` of the state holds `learning_rate` (the accepted step size
      a_t), `evaluations` (the number of trials) and `outcome` (a
      `research.types.Outcome`).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        update got no params, value or value_fn, or the params are complex.
    References:
      Armijo, Minimization of functions having Lipschitz continuous first partial
      derivatives, Pacific J. Math. 16 (1966). Nocedal & Wright, Numerical Optimization,
      2nd ed., algorithm 3.1.
    Example:
      >>> rule = backtracking_descent(2.0)
      >>> x = jnp.array([3.0])
      >>> square = lambda x: jnp.sum(x**2)
      >>> updates, state = rule.update(
      ...     2 * x, rule.init(x), x, value=square(x), value_fn=square
      ... )
      >>> print(updates, state.search.learning_rate, state.search.evaluations)
      [-3.] 0.5 3
    """
    check_rate(learning_rate, positive=True)
    if increase is not None:
        check_number("increase", increase, positive=True)
    search = partial(
        backtracking,
        sufficient_decrease=sufficient_decrease,
        shrink=shrink,
        max_evaluations=max_evaluations,
    )
    check_number("sufficient_decrease", sufficient_decrease, below=1.0, positive=True)
    check_number("shrink", shrink, below=1.0, positive=True)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)

    def init(params: Params):
        return SearchState(
            jnp.zeros((), jnp.int32), not_yet(search, params, learning_rate)
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        first = cast(rate_at(learning_rate, state.count), state.search.learning_rate)
        if increase is not None:
            grown = cast(increase, first) * state.search.learning_rate
            afresh = (state.count == 0) | failed(state.search)
            first = jnp.where(afresh, first, jnp.minimum(first, grown))
        direction = jax.tree.map(jnp.negative, updates)
        updates, searched = take_step(search, direction, params, updates, extra, first)
        return updates, SearchState(increment(state.count), searched)

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="backtracking_descent", needs_value_fn=True)


class ConjugateState(NamedTuple):
    """State of `nonlinear_conjugate_gradient`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      grad, direction: Gradient g and direction d of the last step, shaped like the
        params.
      slope: Inner product <g, d> of the last step, shape ().
      search: Result of the last line search, a `Searched` with the fields
        `learning_rate` (the step size), `evaluations` and `outcome`.
    """

    count: Int[Array, ""]
    grad: Params
    direction: Params
    slope: Float[Array, ""]
    search: Searched


def _fletcher_reeves(g: Params, y: Params, before: Params, d: Params):
    del y, d
    return inner(g, g), inner(before, before)


def _polak_ribiere(g: Params, y: Params, before: Params, d: Params):
    del d
    return inner(g, y), inner(before, before)


def _hestenes_stiefel(g: Params, y: Params, before: Params, d: Params):
    del before
    return inner(g, y), inner(d, y)


def _dai_yuan(g: Params, y: Params, before: Params, d: Params):
    del before
    return inner(g, g), inner(d, y)


# Each entry holds a function (g, y = g - g_before, g_before, d) -> (numerator,
# denominator) of β, and whether a negative β is replaced by 0.
BETAS = {
    "fletcher_reeves": (_fletcher_reeves, False),
    "polak_ribiere_plus": (_polak_ribiere, True),
    "hestenes_stiefel": (_hestenes_stiefel, False),
    "dai_yuan": (_dai_yuan, False),
}
_CONJUGATE_WOLFE = partial(strong_wolfe, curvature=0.1)


@checked
def nonlinear_conjugate_gradient(
    learning_rate: Scalar | Schedule = 1.0,
    beta: str = "polak_ribiere_plus",
    linesearch: str | Search = "strong_wolfe",
) -> optax.GradientTransformationExtraArgs:
    """Nonlinear conjugate gradients with a line search.

    d_t = -g_t + β_t d_(t-1),
    u_t = a_t d_t, with the step size a_t from the line search.

    g_t is the gradient, d_t the direction and u_t the update at step t. <., .> is the
    inner product and |.| the Euclidean norm over all leaves. Let y = g_t - g_(t-1) and
    d = d_(t-1). The argument beta names the formula for β_t:

    β_t = |g_t|² / |g_(t-1)|², with `fletcher_reeves`,
    β_t = max(0, <g_t, y> / |g_(t-1)|²), with `polak_ribiere_plus`,
    β_t = <g_t, y> / <d, y>, with `hestenes_stiefel`,
    β_t = |g_t|² / <d, y>, with `dai_yuan`.

    On a convex quadratic with exact line searches, all four formulas give the linear
    conjugate gradient method. Without rounding errors, this method reaches the minimum
    in at most n steps in n dimensions.

    If the formula for β_t divides by zero or overflows, d_t is -g_t instead. The same
    holds if d_t would not be a descent direction.

    Each search first tries the step size a_(t-1) <g_(t-1), d_(t-1)> / <g_t, d_t>. This
    choice assumes that the objective decreases by as much as in step t - 1. At the
    first step, and after a failed search, the search first tries η min(1, 1 / |g_t|).

    optax does not have this rule. scipy's CG is polak_ribiere_plus with another
    implementation of the strong Wolfe search.

    Use it where L-BFGS would need too much memory: the state has three arrays of the
    size of the params, or two with linesearch="backtracking". L-BFGS usually needs
    fewer evaluations. The gradients must be deterministic.

    Args:
      learning_rate: Factor η. At the first step and after a failed search, the search
        first tries the step size η min(1, 1 / |g_t|). A positive number, a traced
        scalar or a schedule (number of earlier steps -> η).
      beta: Name of the formula for β_t, one of the four above.
      linesearch: Name of the line search, "strong_wolfe" or "backtracking", or a
        function with the arguments of `strong_wolfe`. The name "strong_wolfe" means
        the function `strong_wolfe` with curvature=0.1.
    Returns:
      The rule; its update needs params, value and value_fn. The state is a
      ConjugateState. The field `search` of the state holds `learning_rate` (the step
      size a_t), `evaluations` (the number of evaluations of the objective in the last
      search) and `outcome` (a `research.types.Outcome`). If the search fails, the
      update is 0.
    Raises:
      ValueError, TypeError: An argument is out of range or unknown, update got no
        params, value or value_fn, or the params are complex.
    References:
      Nocedal & Wright, Numerical Optimization, 2nd ed., algorithm 5.4, equations
      (5.41), (5.44)-(5.46), (5.49), and section 3.5 for the first step size that a
      search tries. Fletcher & Reeves, Function minimization by conjugate gradients,
      Comput. J. 7 (1964). Dai & Yuan, A nonlinear conjugate gradient method with a
      strong global convergence property, SIAM J. Optim. 10 (1999).
    Example:
      >>> rule = nonlinear_conjugate_gradient(linesearch="backtracking")
      >>> x = jnp.array([0.5])
      >>> square = lambda x: jnp.sum(x**2)
      >>> updates, state = rule.update(
      ...     2 * x, rule.init(x), x, value=square(x), value_fn=square
      ... )
      >>> print(updates, state.search.learning_rate, state.search.evaluations)
      [-0.5] 0.5 2
    """
    check_rate(learning_rate, positive=True)
    if not isinstance(beta, str) or beta not in BETAS:
        raise ValueError(
            f"beta must be one of {', '.join(map(repr, BETAS))}; got beta={beta!r}."
        )
    search = (
        _CONJUGATE_WOLFE
        if isinstance(linesearch, str) and linesearch == "strong_wolfe"
        else find_line_search(linesearch)
    )
    if search is None:
        raise ValueError(
            "linesearch must be a line search, because conjugate gradients have no "
            "fixed step; got linesearch=None. Pass 'strong_wolfe' or 'backtracking'."
        )

    def init(params: Params):
        before, direction = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Two separate trees, so that both may be donated.
        searched = not_yet(search, params, learning_rate)
        return ConjugateState(
            jnp.zeros((), jnp.int32),
            before,
            direction,
            jnp.zeros_like(searched.learning_rate),
            searched,
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        direction = _conjugate(*BETAS[beta], updates, state)
        slope = inner(updates, direction).astype(state.slope.dtype)
        afresh = (
            (state.count == 0)
            | failed(state.search)
            | (slope == 0)
            | (state.slope == 0)
        )
        known = (
            state.search.learning_rate
            * state.slope
            / jnp.where(afresh, 1.0, slope).astype(slope.dtype)
        )
        first = jnp.where(
            afresh,
            cast(rate_at(learning_rate, state.count), slope)
            * capped_inverse_norm(updates),
            known,
        )
        step, searched = take_step(search, direction, params, updates, extra, first)
        return step, ConjugateState(
            increment(state.count), updates, direction, slope, searched
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(
        whole, only_real="nonlinear_conjugate_gradient", needs_value_fn=True
    )


def _conjugate(
    parts: Callable[..., tuple[Array, Array]],
    plus: bool,
    g: Params,
    state: ConjugateState,
) -> Params:
    y = jax.tree.map(lambda a, b: a - b.astype(a.dtype), g, state.grad)
    above, below = parts(g, y, state.grad, state.direction)
    beta = jnp.where(below == 0, 0.0, above / jnp.where(below == 0, 1.0, below)).astype(
        above.dtype
    )
    beta = jnp.where(
        state.count == 0, 0.0, jnp.maximum(beta, 0.0) if plus else beta
    ).astype(above.dtype)
    # If β is not finite or exceeds the range of a leaf's dtype, the method restarts. A
    # NaN in g still shows in the direction.
    most = min(
        [float(jnp.finfo(leaf.dtype).max) for leaf in jax.tree.leaves(g)], default=0.0
    )
    beta = jnp.where(jnp.abs(beta) <= most, beta, 0.0)
    direction = jax.tree.map(
        lambda a, d: -a + cast(beta, a) * d.astype(a.dtype), g, state.direction
    )
    ascends = inner(g, direction) >= 0
    return jax.tree.map(lambda a, d: jnp.where(ascends, -a, d), g, direction)


RULES = (
    RuleEntry(backtracking_descent, LINE_SEARCH),
    RuleEntry(nonlinear_conjugate_gradient, LINE_SEARCH, aliases=("cg",)),
)
