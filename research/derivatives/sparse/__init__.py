"""Jacobians and Hessians with few entries, from few products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, is_traced
from research.derivatives.errors import UnsupportedPrimitiveError
from research.derivatives.exact.arguments import (
    floating,
    outputs_of,
    scalar,
    size,
    title,
)
from research.derivatives.sparse.colouring import Colouring, coloured
from research.derivatives.sparse.detection import detect

__all__ = [
    "PatternError",
    "SparseDerivative",
    "SparsityPattern",
    "sparse_hessian",
    "sparse_jacobian",
]

NO_RULE = (TypeError, ValueError, NotImplementedError)


class PatternError(ValueError):
    """Raised if a matrix has entries outside its sparsity pattern."""


class SparsityPattern(NamedTuple):
    """Positions at which a matrix may have entries other than 0, with a colouring.

    Attributes:
      rows: Row of each entry, shape (number of entries,).
      columns: Column of each entry.
      shape: Shape of the matrix.
      colouring: Which rows and columns are computed together, by one product.
    """

    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    colouring: Colouring


class SparseDerivative(NamedTuple):
    """A Jacobian or Hessian with few entries.

    Attributes:
      matrix: The matrix in coordinate format, `jax.experimental.sparse.BCOO` of shape
        (outputs, inputs). `matrix.todense()` is the full matrix. The entries of x and
        of f(x) are numbered in the order of `jax.flatten_util.ravel_pytree`.
      colours: Number of products that were computed: products J v and products uᵀ J.
      pattern: The pattern. Pass it to the next call, which then does not need to detect
        and colour it.
    """

    matrix: BCOO
    colours: int
    pattern: SparsityPattern


def sparse_jacobian(
    f: Callable[..., Any], x: Any, *, pattern: Any = None
) -> SparseDerivative:
    """Compute a Jacobian J_ij = ∂f_i/∂x_j that has few entries, from few products.

    Columns without entries in a common row get the same colour, and one product J v
    (forward mode) gives all columns of a colour. A row with many entries would need
    many colours of columns. Such rows are therefore computed by products uᵀ J (reverse
    mode) instead. Rows and columns change roles if that takes fewer products. A matrix
    with one dense row, one dense column and a diagonal takes 3 products for any size.

    The pattern is found from the jaxpr of f. A rule for each operation says which
    entries of its result depend on which entries of its inputs. Both sides of a branch
    count. An operation without a rule counts as dense: the result stays right, but may
    take more products.

    Each call checks the pattern with one random vector v: J v by forward mode must be
    the product of the sparse matrix and v. If J has an entry outside the pattern, this
    is detected with probability 1, unless the entry is smaller than the rounding error.

    Args:
      f: Function of one pytree of floating arrays that returns floating arrays.
      x: Point of evaluation.
      pattern: Where J may have entries: None (it is detected), the `pattern` of an
        earlier result, or a matrix of shape (outputs, inputs) whose entries other than
        0 are the pattern (an array, a scipy.sparse matrix or a BCOO).
    Returns:
      The `SparseDerivative`.
    Raises:
      PatternError: J has an entry that the pattern does not have. Under `jax.jit`,
        where the call cannot raise, all values are NaN instead.
      NotInexactError: A leaf of x or the value of f is not floating.
      ValueError: pattern has another shape than J.
      UnsupportedPrimitiveError: f has no derivative rule.
    References:
      Gebremedhin, Manne & Pothen, What color is your Jacobian?, SIAM Review 2005.
    Example:
      >>> f = lambda x: x**2 + jnp.roll(x, 1)
      >>> found = sparse_jacobian(f, jnp.array([1.0, 2.0, 3.0, 4.0]))
      >>> found.colours, found.matrix.nse
      (2, 8)
      >>> found.matrix.todense()[1].tolist()
      [1.0, 4.0, 0.0, 0.0]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    outputs_of(f, x)
    return _derivative(f, x, pattern, symmetric=False)


def sparse_hessian(
    f: Callable[..., Any], x: Any, *, pattern: Any = None
) -> SparseDerivative:
    """Compute a Hessian H_ij = ∂²f/∂x_i∂x_j that has few entries, from few products.

    The Hessian is computed as the Jacobian of the gradient, as in `sparse_jacobian`.
    Because it is symmetric, H_ij may be read from H_ji. So a dense row costs one
    product, which also gives the dense column.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
      pattern: As in `sparse_jacobian`. A pattern that is not symmetric is completed.
    Returns:
      The `SparseDerivative`.
    Raises:
      NotScalarError: f does not return one number.
      PatternError, NotInexactError, ValueError, UnsupportedPrimitiveError: As in
        `sparse_jacobian`.
    Example:
      >>> rosenbrock = lambda x: jnp.sum(
      ...     100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2
      ... )
      >>> found = sparse_hessian(rosenbrock, jnp.ones(1000))
      >>> found.colours, found.matrix.shape
      (3, (1000, 1000))
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    checked = scalar(f, "sparse_hessian")
    jax.eval_shape(checked, x)
    return _derivative(jax.grad(checked), x, pattern, symmetric=True, name=title(f))


def _derivative(
    f: Callable[..., Any],
    x: Any,
    pattern: Any,
    symmetric: bool,
    name: str | None = None,
) -> SparseDerivative:
    flat, unravel = ravel_pytree(x)
    function = lambda y: ravel_pytree(f(unravel(y)))[0]
    outputs = size(jax.eval_shape(f, x))
    shape = (outputs, flat.size)
    if isinstance(pattern, SparsityPattern):
        if tuple(pattern.shape) != shape:
            raise _wrong_shape(pattern.shape, shape)
        plan = pattern
    else:
        plan = _plan(function, flat, pattern, shape, symmetric, name or title(f))
    values = _values(function, flat, plan, symmetric)
    values = _probed(function, flat, plan, values)
    indices = jnp.asarray(np.stack([plan.rows, plan.columns], axis=1))
    matrix = BCOO(
        (values, indices), shape=shape, indices_sorted=True, unique_indices=True
    )
    return SparseDerivative(matrix, plan.colouring.total, plan)


def _wrong_shape(got: Any, shape: tuple[int, int]) -> ValueError:
    return ValueError(
        f"pattern must have the shape (outputs, inputs) = {shape}; got {tuple(got)}."
    )


def _plan(
    function: Callable[..., Any],
    flat: jax.Array,
    pattern: Any,
    shape: tuple[int, int],
    symmetric: bool,
    name: str,
) -> SparsityPattern:
    """Detect the pattern, or convert the given one, and colour it."""
    matrix = detect(function, flat) if pattern is None else _matrix(pattern, shape)
    if symmetric:
        matrix = scipy.sparse.csr_matrix(matrix + matrix.T, dtype=bool)
    matrix.sort_indices()
    forward = _has_forward_mode(function, flat)
    reverse = not symmetric and _is_possible(
        lambda y: jax.vjp(function, y)[1](function(y))[0], flat
    )
    if not forward and not reverse:
        raise UnsupportedPrimitiveError(
            f"{name} has no derivative rule for forward or reverse mode here. Use "
            "finite_difference, or write a rule by jax.custom_jvp."
        )
    colouring = coloured(matrix, forward, reverse, symmetric)
    rows = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    return SparsityPattern(rows, np.asarray(matrix.indices), shape, colouring)


def _matrix(pattern: Any, shape: tuple[int, int]) -> Any:
    """Convert a pattern that the user gave to a boolean CSR matrix."""
    if isinstance(pattern, BCOO):
        indices = np.asarray(pattern.indices)
        pattern = scipy.sparse.coo_matrix(
            (np.asarray(pattern.data) != 0, (indices[:, 0], indices[:, 1])),
            pattern.shape,
        )
    if not scipy.sparse.issparse(pattern):
        pattern = np.asarray(pattern)
    if pattern.shape != shape:
        raise _wrong_shape(pattern.shape, shape)
    matrix = scipy.sparse.csr_matrix(pattern != 0, dtype=bool)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _has_forward_mode(function: Callable[..., Any], flat: jax.Array) -> bool:
    # Without vmap, JAX reports a missing rule of jax.custom_vjp only when it computes.
    push = lambda v: jax.jvp(function, (flat,), (v,))[1]
    return _is_possible(jax.vmap(push), jnp.zeros((1, *flat.shape), flat.dtype))


def _is_possible(transformed: Callable[..., Any], flat: jax.Array) -> bool:
    try:
        jax.eval_shape(transformed, flat)
    except NO_RULE:
        return False
    return True


def _seeds(colours: np.ndarray, count: int, dtype: Any) -> jax.Array:
    """Return for each colour the sum of its unit vectors, shape (count, size)."""
    return jnp.asarray(colours == np.arange(count)[:, None], dtype)


def _values(
    function: Callable[..., Any],
    flat: jax.Array,
    plan: SparsityPattern,
    symmetric: bool,
) -> jax.Array:
    """Return the entries of the matrix, in the order of the pattern."""
    own, rows, columns = plan.colouring, plan.rows, plan.columns
    push = lambda v: jax.jvp(function, (flat,), (v,))[1]
    like = jax.eval_shape(function, flat)
    values = jnp.zeros(len(rows), like.dtype)
    if own.num_columns:
        products = jax.vmap(push)(_seeds(own.columns, own.num_columns, flat.dtype))
        values = products[own.columns[columns], rows]
    if own.num_rows:
        seeds = _seeds(own.rows, own.num_rows, like.dtype)
        if symmetric:
            products = jax.vmap(push)(seeds.astype(flat.dtype))
        else:
            pull = jax.vjp(function, flat)[1]
            products = jax.vmap(lambda u: pull(u)[0])(seeds)
        # An entry stands in a dense row, or (if symmetric) in a dense column.
        in_row = own.rows[rows] >= 0
        direct = products[own.rows[rows], columns]
        mirrored = products[own.rows[columns % len(own.rows)], rows % flat.size]
        read = jnp.where(in_row, direct, mirrored) if symmetric else direct
        values = jnp.where(own.by_row, read.astype(values.dtype), values)
    return values


def _probed(
    function: Callable[..., Any], flat: jax.Array, plan: SparsityPattern, values: Any
) -> jax.Array:
    """Compare the product of the matrix and a random vector with J v or uᵀ J."""
    key = jax.random.key(0)
    forward = _has_forward_mode(function, flat)
    if forward:
        v = jax.random.normal(key, flat.shape, flat.dtype)
        truth = jax.jvp(function, (flat,), (v,))[1]
        terms, groups, count = values * v[plan.columns], plan.rows, plan.shape[0]
    else:
        value, pull = jax.vjp(function, flat)
        u = jax.random.normal(key, value.shape, value.dtype)
        (truth,) = pull(u)
        terms, groups, count = values * u[plan.rows], plan.columns, plan.shape[1]
    add = lambda t: jax.ops.segment_sum(t, jnp.asarray(groups), count)
    product, scale = add(terms), add(jnp.abs(terms))
    eps = jnp.finfo(values.dtype).eps
    # The largest row sets the size of rounding errors that cancel inside f.
    largest = jnp.max(scale, initial=0, where=jnp.isfinite(scale))
    allowed = eps**0.5 * scale + 1e3 * eps * largest
    wrong = (jnp.abs(product - truth) > allowed) & jnp.isfinite(truth)
    if not is_traced(wrong):
        if bool(jnp.any(wrong)):
            raise _contradiction(wrong, truth, product, forward)
        return values
    return jnp.where(jnp.any(wrong), jnp.nan, values)


def _contradiction(
    wrong: jax.Array, truth: jax.Array, product: jax.Array, forward: bool
) -> PatternError:
    place = int(jnp.argmax(wrong))
    what = "row" if forward else "column"
    return PatternError(
        f"pattern does not hold: {what} {place} has an entry outside the pattern, as "
        f"its product with a random vector is {float(truth[place]):.6g}, and "
        f"{float(product[place]):.6g} from the pattern ({int(jnp.sum(wrong))} such "
        f"{what}s). Pass pattern=None to detect it, or add the missing entries."
    )
