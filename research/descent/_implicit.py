"""Derivatives of a minimum by the implicit function theorem.

At a minimum the gradient g(x, θ) is 0, so H dx/dθ = -∂g/∂θ, where H is the Hessian.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from research.types import Array, Params

# Up to this number of unknowns, a direct solution corrects conjugate gradients, and
# `implicit_minimum` computes the eigenvalues of the whole Hessian.
DENSE = 128
ACCURATE = 1e-3  # Largest relative error of a solution that is not NaN.


def root_of_gradient(
    objective: Callable[[Params], Array],
    params: Params,
    search: Callable[[Params], tuple[Params, Any]],
) -> tuple[Params, Any]:
    """Return the result of a search for a minimum, with implicit derivatives.

    Args:
      objective: Function (params) -> number. It may use other arrays than its argument.
        The derivatives are with respect to these arrays.
      params: Point at which the search starts.
      search: Function (params) -> (minimum, other floating arrays).
    Returns:
      The result of `search`. The derivative of the minimum is the solution dx of
      H dx = -dg, computed by conjugate gradients. Here dx is the change of the minimum
      if the arrays that the objective uses change. H is the Hessian of the objective,
      and dg is the change of the gradient at the old minimum. The other arrays of the
      result count as constant.
    """
    return jax.lax.custom_root(
        jax.grad(objective),
        params,
        lambda _, start: search(start),
        solve_by_conjugate_gradients,
        has_aux=True,
    )


def solve_by_conjugate_gradients(
    matvec: Callable[[Params], Params], right: Params
) -> Params:
    """Solve H x = b for a positive definite H, by a differentiable operation.

    `matvec` is the function x -> H x, and `right` is b. The result is NaN if the norm
    of H x - b stays above √ε times the norm of b, where ε is the machine epsilon. This
    happens, for example, if H is singular and b is outside the range of H. The result
    is also NaN if the estimated error of x is above a thousandth of the norm of x. This
    may happen if H is ill-conditioned. The estimate leaves out errors along directions
    in which H is 0 up to rounding errors.
    """
    # Joined and split, so that each leaf depends on all of them: JAX cannot transpose a
    # solution if it knows that a leaf of b is constant.
    flat, split = ravel_pytree(right)
    return jax.lax.custom_linear_solve(matvec, split(flat), _solve, symmetric=True)


def _solve(matvec: Callable[[Params], Params], right: Params) -> Params:
    leaves = jax.tree.leaves(right)
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)
    if len({leaf.dtype for leaf in leaves}) == 1:
        return _solve_in_one_dtype(matvec, right, eps)
    # A product with a number of the widest dtype would change the dtype of a leaf.
    flat, unravel = ravel_pytree(right)
    product = lambda x: ravel_pytree(matvec(unravel(x)))[0]
    return unravel(_solve_in_one_dtype(product, flat, eps))


def _solve_in_one_dtype(
    matvec: Callable[[Params], Params], right: Params, eps: float
) -> Params:
    """Solve H x = b, where `eps` is the machine epsilon of the products H x."""
    size = sum(leaf.size for leaf in jax.tree.leaves(right))
    most = min(10 * size + 10, 10_000)
    found, _ = cg(matvec, right, tol=eps, maxiter=most)
    if 0 < size <= DENSE:
        # Few conjugate directions stay conjugate if H is ill-conditioned. A direct
        # solution of H d = b - H x corrects the result where this matters.
        correction = _direct(matvec, right, eps)
        better = jax.tree.map(jnp.add, found, correction(_rest(matvec, found, right)))
        found = _where(_is_near(better, found, eps**0.5), found, better)
    else:
        correction = functools.partial(_roughly, matvec, most)
    rest = _rest(matvec, found, right)
    nearly = jax.tree.map(jnp.add, found, correction(rest))
    solved = (_norm(rest) <= eps**0.5 * _norm(right)) & _is_near(
        nearly, found, ACCURATE
    )
    return jax.tree.map(lambda leaf: jnp.where(solved, leaf, jnp.nan), found)


def _rest(matvec: Callable[[Params], Params], x: Params, right: Params) -> Params:
    return jax.tree.map(jnp.subtract, right, matvec(x))


def _roughly(matvec: Callable[[Params], Params], most: int, rest: Params) -> Params:
    """Solve H d = rest, and return d to about one digit; 0 if there is no solution.

    `matvec` is the function d -> H d. There may be no solution if H is singular and
    `rest` consists of rounding errors.
    """
    found, _ = cg(matvec, rest, tol=0.1, maxiter=most)
    is_solved = _norm(_rest(matvec, found, rest)) <= 0.2 * _norm(rest)
    return _where(is_solved, found, jax.tree.map(jnp.zeros_like, found))


def _direct(
    matvec: Callable[[Params], Params], like: Params, eps: float
) -> Callable[[Params], Params]:
    """Return the function b -> H⁻¹ b, computed from the eigenvectors of H.

    `matvec` is the function x -> H x, and `eps` is the machine epsilon of H x. If an
    eigenvalue of H is 0 up to rounding errors, H⁻¹ b has no component along the
    eigenvector of this eigenvalue.
    """
    flat, unravel = ravel_pytree(like)
    # One product after another takes no more memory than conjugate gradients.
    columns = jax.lax.map(
        lambda v: ravel_pytree(matvec(unravel(v)))[0],
        jnp.eye(flat.size, dtype=flat.dtype),
    )
    columns = columns.astype(jnp.promote_types(flat.dtype, "float32"))
    values, vectors = jnp.linalg.eigh(0.5 * (columns + columns.T))
    size = jnp.abs(values)
    is_zero = size <= flat.size * eps * jnp.max(size)
    inverse = jnp.where(is_zero, 0.0, 1 / values)

    def solution(b: Params) -> Params:
        along = ravel_pytree(b)[0].astype(vectors.dtype) @ vectors
        return unravel((vectors @ (along * inverse)).astype(flat.dtype))

    return solution


def _is_near(one: Params, other: Params, share: float) -> Array:
    """Return whether |one - other| <= share · |other|, in the Euclidean norm."""
    return _norm(jax.tree.map(jnp.subtract, one, other)) <= share * _norm(other)


def _where(condition: Array, one: Params, other: Params) -> Params:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _norm(tree: Params) -> Array:
    return jnp.sqrt(
        sum(
            (jnp.sum(leaf.astype(float) ** 2) for leaf in jax.tree.leaves(tree)),
            start=jnp.zeros(()),
        )
    )


def as_floats(counts: tuple[Array, ...]) -> Any:
    """Return int32 numbers as pairs of float32 numbers, which hold them exactly.

    The pair (h, l) stands for the number 4096 h + l. The pairs are needed because
    `jax.lax.custom_root` of jax 0.7.2 cannot return integers besides the root.
    """
    return [
        (jnp.floor_divide(n, 4096).astype("float32"), (n % 4096).astype("float32"))
        for n in counts
    ]


def as_integers(pairs: Any) -> list[Array]:
    """Return the int32 numbers that `as_floats` converted to these pairs."""
    return [h.astype("int32") * 4096 + low.astype("int32") for h, low in pairs]


def with_derivative_of(
    value: Any, function: Callable[[Params], Any], params: Params
) -> Any:
    """Return `value`, with the derivative of `function` at params.

    `value` is function(params), which the caller has computed already. `function` may
    use other arrays than its argument. The derivative is with respect to params and
    these arrays. `function` is evaluated only if a derivative is computed.
    """
    converted, consts = jax.closure_convert(function, params)

    @jax.custom_jvp
    def known(value: Any, params: Params, consts: Any) -> Any:
        del params, consts
        return value

    @known.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        value, params, consts = primals
        slope = jax.jvp(
            lambda params, consts: converted(params, *consts),
            (params, consts),
            tangents[1:],
        )[1]
        return value, slope.astype(value.dtype)

    return known(value, params, consts)


@jax.custom_jvp
def unless(flag: Array, tree: Any, inputs: Any) -> Any:
    """Return the tree unchanged, but with NaN derivatives if the flag is True.

    `inputs` are the variables from which the tree was computed. If the flag is True,
    the derivatives of the result with respect to these variables are NaN. If JAX knows
    that the derivative of the tree is 0, it treats the tree as a constant. Without
    `inputs`, the derivatives would then be 0 instead of NaN.
    """
    del flag, inputs
    return tree


@unless.defjvp
def _(primals: Any, tangents: Any) -> Any:
    flag, tree, _ = primals
    _, slope, of_inputs = tangents
    flag = jax.lax.stop_gradient(flag)
    sums = (
        jnp.sum(t, dtype=jnp.promote_types(t.dtype, "float32"))
        for t in jax.tree.leaves(of_inputs)
    )
    total = sum(sums, start=jnp.zeros(()))
    # Selected before it is multiplied, because an infinite tangent times 0 is NaN.
    lost = jnp.where(flag, total, 0.0) * jnp.where(flag, jnp.nan, 0.0)
    factor = jnp.where(flag, jnp.nan, 1.0)
    return tree, jax.tree.map(
        lambda t: t * factor.astype(t.dtype) + lost.astype(t.dtype), slope
    )
