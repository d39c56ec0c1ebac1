"""BFGS and L-BFGS: Newton-like steps with an approximate Hessian.

The approximation is built from changes of the gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.sizes import check_most
from research.types import Array, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete
from research.update_rules._entry import LINE_SEARCH, RuleEntry
from research.update_rules._line_search_state import (
    Search,
    Searched,
    capped_inverse_norm,
    find_line_search,
    not_yet,
    take_step,
)
from research.update_rules._line_searches import inner
from research.update_rules._transforms import cast, increment, working_dtype

NORMS = ("euclidean", "absolute")


class BFGSState(NamedTuple):
    """State of `bfgs`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      num_pairs: Number of pairs (s, y) that H uses, int32, shape (). A pair is a step s
        and the change y of the gradient in this step.
      params, grad: Params x and gradient g before the last step, shaped like the
        params.
      inverse_hessian: Approximation H of the inverse Hessian, with all n entries of the
        params as one vector, shape (n, n). Before the first pair, this field is I,
        without the factor min(1, 1 / |g|).
      product: The product H g of the two fields, as one vector, shape (n,).
      search: `Searched`, the result of the last line search.
    """

    count: Int[Array, ""]
    num_pairs: Int[Array, ""]
    params: Params
    grad: Params
    inverse_hessian: Float[Array, "n n"]
    product: Float[Array, " n"]
    search: Searched


@checked
def bfgs(
    learning_rate: Scalar | Schedule = 1.0,
    linesearch: str | Search | None = "strong_wolfe",
    first_step: str = "euclidean",
    min_curvature: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Step along -H_t g_t, where H_t approximates the inverse Hessian.

    u_t = -a_t H_t g_t, with H_t = (I - ρ s yᵀ) H_(t-1) (I - ρ y sᵀ) + ρ s sᵀ, where s =
    x_t - x_(t-1), y = g_t - g_(t-1) and ρ = 1 / <s, y>. Here u_t is the update, x_t are
    all n params as one vector, g_t is the gradient, <., .> the inner product and a_t
    the step size. A line search finds a_t, and tries the learning rate η first.

    Before the first pair (s, y), H_t = min(1, 1 / |g_t|) I. For the first pair, H_(t-1)
    is replaced by (<s, y> / <y, y>) I. A pair is used only if <s, y> > min_curvature.
    Otherwise H_t = H_(t-1). H_t therefore stays positive definite. After a step that
    satisfies the strong Wolfe conditions, <s, y> is positive.

    optax does not have BFGS. scipy's BFGS starts from H = I, first tries a step size of
    min(1, 1.01 / |g|) for the first gradient g, and does not rescale H.

    Use it on smooth deterministic functions of up to a few hundred params, if a
    gradient costs more than n² operations and H fits in memory. For more params, use
    `lbfgs`. On noisy gradients, BFGS usually fails, because y is mostly noise.

    Args:
      learning_rate: First step size η that each line search tries, or the step size if
        linesearch is None. A positive number, a traced scalar, or a schedule (number of
        earlier steps -> η).
      linesearch: "strong_wolfe", "backtracking", a function with the arguments of
        `strong_wolfe`, or None for a fixed step size.
      first_step: Name of the norm |g_t| in H_t = min(1, 1 / |g_t|) I, the matrix that
        is used as long as there is no pair: "euclidean", or "absolute", which is the
        sum of the absolute values.
      min_curvature: Bound, at least 0. A pair is used only if <s, y> exceeds the bound.
    Returns:
      The rule; its update needs params, and for a line search also value and value_fn.
      The state is a BFGSState. The field `search` of the state is the result of the
      last line search: the step size a_t, the number of evaluations of the objective,
      and the outcome. If the search fails, the update is 0.
    Raises:
      ValueError, TypeError: An argument is out of range or unknown; update received no
        params or, for a line search, no value or value_fn; in init, the params are
        complex.
    References:
      Nocedal & Wright, Numerical Optimization, 2nd ed., algorithm 6.1, equations (6.17)
      and (6.20).
      Broyden; Fletcher; Goldfarb; Shanno, each 1970.
    Example:
      >>> rule = bfgs(0.5, linesearch=None)
      >>> x, g = jnp.array([2.0]), jnp.array([4.0])
      >>> updates, state = rule.update(g, rule.init(x), x)
      >>> print(updates)
      [-0.5]
    """
    search = _checked(learning_rate, linesearch, first_step, min_curvature)

    def init(params: Params):
        n = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
        identity = jnp.eye(n, dtype=working_dtype(params))
        before, grad = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Separate arrays, so that each can be donated.
        count, pairs = (jnp.zeros((), jnp.int32) for _ in range(2))
        return BFGSState(
            count,
            pairs,
            before,
            grad,
            identity,
            jnp.zeros(n, identity.dtype),
            not_yet(search, params, learning_rate),
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        _refuse_no_params(params)
        dtype = state.inverse_hessian.dtype
        s, y = (
            _flat(a, dtype) - _flat(b, dtype)
            for a, b in ((params, state.params), (updates, state.grad))
        )
        curvature = s @ y
        enters = (state.count > 0) & (curvature > cast(min_curvature, y))
        flat = _flat(updates, dtype)
        product = state.inverse_hessian @ flat
        # The difference is H y, which would take a second product with H.
        change = product - state.product
        # Without a new pair, s, y and H y are 0, so that nothing changes.
        s, y, change = (jnp.where(enters, a, 0.0) for a in (s, y, change))
        matrix, product = _with_pair(
            state.inverse_hessian,
            product,
            flat,
            _Pair(
                s,
                y,
                change,
                jnp.where(enters, curvature, 1.0),
                enters & (state.num_pairs == 0),
            ),
        )
        num_pairs = jnp.where(enters, increment(state.num_pairs), state.num_pairs)
        scale = _scale_of_step(num_pairs == 0, updates, first_step, jnp.ones((), dtype))
        direction = _like(-scale * product, updates)
        step, searched = take_step(
            search,
            direction,
            params,
            updates,
            extra,
            rate_at(learning_rate, state.count),
        )
        return step, BFGSState(
            increment(state.count),
            num_pairs,
            params,
            updates,
            matrix,
            product,
            searched,
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="bfgs", needs_value_fn=True)


def _scale_of_step(
    is_before: Array, grad: Params, first_step: str, scale: Array
) -> Array:
    """Return min(1, 1 / |g|) before the first pair, and the argument `scale` later.

    The norm of the gradient g is computed only before the first pair.
    """
    return jax.lax.cond(
        is_before,
        lambda: capped_inverse_norm(grad, first_step).astype(scale.dtype),
        lambda: scale,
    )


class _Pair(NamedTuple):
    """A step s with the change y of the gradient.

    Attributes:
      s, y: Vectors of shape (n,); 0 if the pair is not used.
      change: H y for the matrix H without this pair, shape (n,).
      curvature: <s, y>, shape (); 1 if the pair is not used.
      is_first: Whether the pair is the first one that is used.
    """

    s: Array
    y: Array
    change: Array
    curvature: Array
    is_first: Array


def _with_pair(
    matrix: Array, product: Array, grad: Array, pair: _Pair
) -> tuple[Array, Array]:
    """Return H and H g with a new pair, from H and `product`, which is H g without it.

    Before the first pair, the matrix is I, and a factor scales it. A second matrix
    would be written and read again. If s and y are 0, the result is H and H g.
    """
    s, y = pair.s, pair.y
    # The divisor 1 keeps derivatives finite where y is 0.
    square = jnp.where(pair.is_first, y @ y, 1.0)
    factor = jnp.where(pair.is_first, pair.curvature / square, 1.0).astype(s.dtype)
    change = factor * pair.change / pair.curvature
    # Expansion of (I - ρ s yᵀ) H (I - ρ y sᵀ) + ρ s sᵀ.
    grown = (1.0 + y @ change) / pair.curvature
    matrix = (
        factor * matrix
        - jnp.outer(s, change)
        - jnp.outer(change, s)
        + grown * jnp.outer(s, s)
    )
    along_s, along_change = s @ grad, change @ grad
    product = factor * product - s * (along_change - grown * along_s) - change * along_s
    return matrix, product


class LBFGSState(NamedTuple):
    """State of `lbfgs`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      params, grad: Params x and gradient g before the last step, shaped like the
        params.
      newest: Index of the newest pair (s, y) in the fields steps, changes and weights,
        int32, shape (); -1 before the first pair. A pair is a step s and the change y
        of the gradient in this step. The pair before the one at index i has the index
        i - 1. The pair before the one at index 0 has the last index.
      steps, changes: s and y of the last pairs, shaped like the params with a leading
        axis of length memory_size.
      weights: ρ = 1 / <s, y> of each pair, 0 for empty entries, shape (memory_size,).
      scale: Factor <s, y> / <y, y> of the newest pair, shape ().
      search: `Searched`, the result of the last line search.
    """

    count: Int[Array, ""]
    params: Params
    grad: Params
    newest: Int[Array, ""]
    steps: Params
    changes: Params
    weights: Float[Array, " memory"]
    scale: Float[Array, ""]
    search: Searched


@checked
def lbfgs(
    learning_rate: Scalar | Schedule = 1.0,
    memory_size: int | None = None,
    linesearch: str | Search | None = "strong_wolfe",
    first_step: str = "euclidean",
    min_curvature: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Step as in `bfgs`, but store pairs of steps and gradient changes, no matrix.

    u_t = -a_t H_t g_t, computed by the two-loop recursion, where g_t is the gradient
    and a_t the step size. The matrix H_t approximates the inverse Hessian. It is built
    from pairs (s, y), where s is a step and y the change of the gradient in this step.
    H_t starts from (<s, y> / <y, y>) I, where (s, y) is the newest pair. H_t is then
    updated as in `bfgs` with the last m pairs, oldest first, where m is memory_size.
    Without any pair, H_t = min(1, 1 / |g_t|) I. A line search finds a_t, and tries the
    learning rate η first. With linesearch=None, a_t = η.

    optax.lbfgs(η, m, linesearch=None) is this rule with linesearch=None and
    first_step="euclidean", except that optax also uses pairs with <s, y> < 0.
    torch.optim.LBFGS(lr=η, max_iter=1, history_size=m) is this rule with
    linesearch=None, first_step="absolute" and min_curvature=1e-10. The line searches of
    the three libraries differ. With a line search, the iterates therefore differ, and
    only their limits agree.

    Use it on smooth deterministic functions with any number of params. For such
    functions, it is the first rule to try. Full-batch logistic regression is a typical
    case. On mini-batches, L-BFGS usually fails, because y compares gradients of
    different examples.

    Args:
      learning_rate: First step size η that each line search tries, or the step size if
        linesearch is None. A positive number, a traced scalar, or a schedule (number of
        earlier steps -> η).
      memory_size: Number of pairs m, an integer from 1 to 100,000; None means 10. This
        argument cannot be traced, because it determines the shapes of arrays.
      linesearch: "strong_wolfe", "backtracking", a function with the arguments of
        `strong_wolfe`, or None for a fixed step size.
      first_step: Name of the norm |g_t| in H_t = min(1, 1 / |g_t|) I, the matrix that
        is used as long as there is no pair: "euclidean", or "absolute", which is the
        sum of the absolute values.
      min_curvature: Bound, at least 0. A pair is used only if <s, y> exceeds the bound.
    Returns:
      The rule; its update needs params, and for a line search also value and value_fn.
      The state is an LBFGSState. The field `search` of the state is the result of the
      last line search: the step size a_t, the number of evaluations of the objective,
      and the outcome. If the search fails, the update is 0.
    Raises:
      ValueError, TypeError: An argument is out of range or unknown; update received no
        params or, for a line search, no value or value_fn; in init, the params are
        complex.
    References:
      Nocedal, Updating quasi-Newton matrices with limited storage, Math. Comp. 35
      (1980). Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 7.5,
      equation (7.20).
    Example:
      >>> rule = lbfgs(linesearch=None)
      >>> x = jnp.array([2.0])
      >>> updates, state = rule.update(2 * x, rule.init(x), x)
      >>> x = x + updates
      >>> print(x, rule.update(2 * x, state, x)[0])
      [1.] [-1.]
    """
    search = _checked(learning_rate, linesearch, first_step, min_curvature)
    if (
        memory_size is not None
    ):  # None, because optax.inject_hyperparams traces numeric defaults.
        check_number("memory_size", memory_size, positive=True, integer=True)
        check_most(100_000, memory_size=memory_size)

    def init(params: Params):
        dtype, memory = working_dtype(params), _length(memory_size)

        def empty():
            return jax.tree.map(
                lambda x: jnp.zeros((memory, *jnp.shape(x)), jnp.result_type(x)), params
            )

        count, newest = jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
        before, grad = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Separate arrays, so that each can be donated.
        weights, scale = jnp.zeros(memory, dtype), jnp.ones((), dtype)
        searched = not_yet(search, params, learning_rate)
        return LBFGSState(
            count, before, grad, newest, empty(), empty(), weights, scale, searched
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        _refuse_no_params(params)
        state = _remember(state, params, updates, min_curvature)
        scale = _scale_of_step(state.newest < 0, updates, first_step, state.scale)
        direction = _two_loops(updates, state, scale)
        step, searched = take_step(
            search,
            direction,
            params,
            updates,
            extra,
            rate_at(learning_rate, state.count),
        )
        return step, state._replace(
            count=increment(state.count), params=params, grad=updates, search=searched
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="lbfgs", needs_value_fn=True)


def _length(memory_size: Any) -> int:
    if isinstance(memory_size, Tracer):
        raise TypeError(
            "memory_size cannot be traced, because it is the length of arrays in the "
            "state of lbfgs. Under optax.inject_hyperparams pass "
            "static_args=('memory_size',)."
        )
    return 10 if memory_size is None else int(memory_size)


def _remember(
    state: LBFGSState, params: Params, grad: Params, min_curvature: Scalar
) -> LBFGSState:
    """Add the pair (s, y) of the last step to the memory if <s, y> > min_curvature."""
    s, y = (
        jax.tree.map(lambda a, b: (a - b.astype(a.dtype)).astype(b.dtype), new, old)
        for new, old in ((params, state.params), (grad, state.grad))
    )
    curvature = inner(s, y).astype(state.scale.dtype)
    enters = (state.count > 0) & (curvature > cast(min_curvature, curvature))
    oldest = _next(state.newest, state)

    def put(memory: Array, entry: Array):
        """Replace the oldest entry, so that the others need not be moved."""
        before = jax.lax.dynamic_index_in_dim(memory, oldest, 0, keepdims=False)
        entry = jnp.where(enters, entry.astype(memory.dtype), before)
        return jax.lax.dynamic_update_index_in_dim(memory, entry, oldest, 0)

    return state._replace(
        newest=jnp.where(enters, oldest, state.newest),
        steps=jax.tree.map(put, state.steps, s),
        changes=jax.tree.map(put, state.changes, y),
        weights=put(state.weights, 1.0 / jnp.where(enters, curvature, 1.0)),
        scale=jnp.where(enters, curvature / inner(y, y), state.scale).astype(
            state.scale.dtype
        ),
    )


def _next(index: Array, state: LBFGSState) -> Array:
    """Return the index after the given one; index 0 follows the last index."""
    return jnp.where(index == len(state.weights) - 1, 0, index + 1)


def _two_loops(grad: Params, state: LBFGSState, scale: Array) -> Params:
    """Return -H g, by a loop over the pairs from newest to oldest and a loop back."""
    memory = len(state.weights)

    def pair(index: Array):
        return jax.tree.map(
            lambda a: jax.lax.dynamic_index_in_dim(a, index, 0, keepdims=False),
            (state.steps, state.changes, state.weights),
        )

    def back(_: Array, carry: tuple[Any, ...]):
        index, q, shares = carry
        s, y, weight = pair(index)
        share = weight * inner(s, q).astype(weight.dtype)
        q = jax.tree.map(lambda a, b: a - cast(share, a) * b.astype(a.dtype), q, y)
        shares = jax.lax.dynamic_update_index_in_dim(shares, share, index, 0)
        return jnp.where(index == 0, memory, index) - 1, q, shares

    def forth(_: Array, carry: tuple[Any, ...]):
        index, r = carry
        s, y, weight = pair(index)
        share = jax.lax.dynamic_index_in_dim(shares, index, 0, keepdims=False)
        more = share - weight * inner(y, r).astype(weight.dtype)
        r = jax.tree.map(lambda a, b: a + cast(more, a) * b.astype(a.dtype), r, s)
        return _next(index, state), r

    start = (jnp.maximum(state.newest, 0), grad, jnp.zeros_like(state.weights))
    _, q, shares = jax.lax.fori_loop(0, memory, back, start)
    r = jax.tree.map(lambda a: cast(scale, a) * a, q)
    _, r = jax.lax.fori_loop(0, memory, forth, (_next(state.newest, state), r))
    return jax.tree.map(jnp.negative, r)


def _checked(
    learning_rate: Any, linesearch: Any, first_step: str, min_curvature: Any
) -> Search | None:
    check_rate(learning_rate, positive=True)
    check_number("min_curvature", min_curvature)
    if not isinstance(first_step, str) or first_step not in NORMS:
        raise ValueError(
            f"first_step must be one of {', '.join(map(repr, NORMS))}; got "
            f"first_step={first_step!r}."
        )
    return find_line_search(linesearch)


def _refuse_no_params(params: Params) -> None:
    if params is None:
        raise ValueError(
            "a quasi-Newton rule needs the params; call update(grads, state, params, "
            "...)."
        )


def _flat(tree: Params, dtype: Any) -> Array:
    return jnp.concatenate(
        [
            jnp.zeros(0, dtype),
            *(jnp.ravel(leaf).astype(dtype) for leaf in jax.tree.leaves(tree)),
        ]
    )


def _like(flat: Array, tree: Params) -> Params:
    leaves, structure = jax.tree.flatten(tree)
    ends, parts = 0, []
    for leaf in leaves:
        parts.append(
            flat[ends : ends + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        )
        ends += leaf.size
    return jax.tree.unflatten(structure, parts)


RULES = (RuleEntry(bfgs, LINE_SEARCH), RuleEntry(lbfgs, LINE_SEARCH))
