"""Jacobians and Hessians with few entries other than 0, from few products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, is_traced
from research.derivatives.costs.jaxprs import lowest_precision
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
    """Raised if a Jacobian or Hessian has entries outside its sparsity pattern.

    The sparsity pattern is the set of positions at which entries may differ from 0.
    """


class SparsityPattern(NamedTuple):
    """Positions at which a matrix may have entries other than 0, with a colouring.

    Attributes:
      rows: Row index of each of these positions, shape (number of positions,).
      columns: Column index of each of these positions, same shape.
      shape: Shape of the matrix, (outputs, inputs).
      colouring: Groups (colours) of rows or columns. Each group is computed by one
        product of the matrix and a vector.
      symmetric: If True, the matrix is symmetric, and some entries (i, j) are read from
        the computed entry (j, i), as in `sparse_hessian`.
    """

    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    colouring: Colouring
    symmetric: bool = False


class SparseDerivative(NamedTuple):
    """A Jacobian or Hessian with few entries other than 0.

    Attributes:
      matrix: The matrix in coordinate format, `jax.experimental.sparse.BCOO` of shape
        (outputs, inputs). `matrix.todense()` is the full matrix. For the Jacobian of a
        function f at x, row i belongs to entry i of f(x), and column j to entry j of x.
        For a Hessian, row i belongs to entry i of x, and column j to entry j of x.
        Entries are numbered in the order of `jax.flatten_util.ravel_pytree`.
      colours: Number of products from which the entries of the matrix J were read. Each
        product is J v or uᵀ J for a vector v or u. One more product, which is not
        counted, checks the pattern.
      pattern: The sparsity pattern with its colouring. Pass it as the argument
        `pattern` to a later call of the same function (`sparse_jacobian` or
        `sparse_hessian`). This call then does not detect and colour the pattern again.
    """

    matrix: BCOO
    colours: int
    pattern: SparsityPattern


def sparse_jacobian(
    f: Callable[..., Any], x: Any, *, pattern: Any = None
) -> SparseDerivative:
    """Compute a sparse Jacobian J_ij = ∂f_i/∂x_j from few products J v and uᵀ J.

    One product J v (forward mode) gives several columns of J if no two of them have
    entries in the same row. Such columns get the same colour, so each colour costs one
    product. A row with many entries would need many colours of columns. Such rows are
    therefore computed by products uᵀ J (reverse mode) instead. If fewer products are
    needed in the opposite way, products J v give the columns with many entries, and
    products uᵀ J give all other entries. A matrix with one dense row, one dense column
    and a diagonal takes 3 products for any size.

    The pattern is found from the jaxpr of f, the program that JAX records. A rule for
    each operation says which entries of its result depend on which entries of its
    inputs. If x decides which branch of f is computed, the dependences of all branches
    are included. If an operation has no rule, each entry of its result is assumed to
    depend on all inputs of the operation. J is still right in this case, but may take
    more products.

    Each call checks the pattern with one random vector v: J v by forward mode must
    equal the product of the sparse matrix and v. If f has no derivative rule for
    forward mode, uᵀ J is compared instead, for a random vector u. Each entry of such a
    product is a sum of terms. Let s be the sum of the absolute values of these terms,
    and S the largest s of all entries of the product. Let ε be the relative spacing of
    the floats in the least precise dtype inside f. An entry of J outside the pattern is
    detected if it changes an entry of the product by more than √ε s + min(1000 ε, √ε)
    S.

    Args:
      f: Function of one pytree of floating arrays that returns floating arrays.
      x: Point of evaluation.
      pattern: Positions at which J may have entries other than 0. It may be the
        `pattern` of an earlier result, or a matrix of shape (outputs, inputs): an
        array, a scipy.sparse matrix or a BCOO. The positions are those at which this
        matrix is not 0. None means that the pattern is found from the jaxpr.
    Returns:
      The `SparseDerivative`.
    Raises:
      PatternError: The check found an entry of J outside the pattern, or the rounding
        errors of the products are larger than expected from the dtypes inside f. Under
        `jax.jit` no error can be raised, and all values are NaN instead.
      NotInexactError: A leaf of x or the value of f is not floating.
      ValueError: pattern has another shape than J.
      UnsupportedPrimitiveError: f has a derivative rule neither for forward mode nor
        for reverse mode.
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
    """Compute a sparse Hessian H_ij = ∂²f / ∂x_i ∂x_j from few products H v.

    The Hessian is computed as the Jacobian of the gradient, as in `sparse_jacobian`.
    The gradient is computed in reverse mode, and the products H v in forward mode.
    Because the Hessian is symmetric, H_ij may be read from H_ji. If row i is dense,
    column i is dense, too. One product gives both, because they have the same entries.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
      pattern: As in `sparse_jacobian`. If the pattern contains (i, j) but not (j, i),
        then (j, i) is added.
    Returns:
      The `SparseDerivative`.
    Raises:
      NotScalarError: f does not return one number.
      UnsupportedPrimitiveError: The gradient of f has no derivative rule for forward
        mode.
      PatternError, NotInexactError, ValueError: As in `sparse_jacobian`.
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
        if pattern.symmetric != symmetric:
            entries = (
                np.ones(len(pattern.rows), bool),
                (pattern.rows, pattern.columns),
            )
            pattern = scipy.sparse.csr_matrix(entries, shape=shape)
    if isinstance(pattern, SparsityPattern):
        plan = pattern
    else:
        plan = _plan(function, flat, pattern, shape, symmetric, name or title(f))
    values = _values(function, flat, plan, symmetric)
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
    columns = np.asarray(matrix.indices)
    return SparsityPattern(rows, columns, shape, colouring, symmetric)


def _matrix(pattern: Any, shape: tuple[int, int]) -> Any:
    """Convert a pattern that the user gave to a boolean CSR matrix."""
    if isinstance(pattern, BCOO):
        indices, data = np.asarray(pattern.indices), np.asarray(pattern.data)
        # The padding of a BCOO has indices outside of the matrix.
        inside = np.all(indices < np.asarray(pattern.shape), axis=1)
        pattern = scipy.sparse.coo_matrix(
            (data[inside] != 0, (indices[inside, 0], indices[inside, 1])),
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


def _seeds(colours: np.ndarray, count: int) -> np.ndarray:
    """Return for each colour the sum of its unit vectors, shape (count, size)."""
    return colours == np.arange(count)[:, None]


def _values(
    function: Callable[..., Any],
    flat: jax.Array,
    plan: SparsityPattern,
    symmetric: bool,
) -> jax.Array:
    """Return the entries of the matrix in the order of the pattern, and test them.

    The product with a random vector, which tests the pattern, is computed in the same
    batch as the other products. NumPy computes everything that depends only on the
    pattern. These values are therefore constants in a compiled program.
    """
    own, like = plan.colouring, jax.eval_shape(function, flat)
    forward = own.num_columns > 0 or _has_forward_mode(function, flat)
    draw = np.random.default_rng(0).standard_normal(plan.shape[1 if forward else 0])
    compiled = is_traced(flat)
    by_columns = _seeds(own.columns, own.num_columns)
    by_rows = _seeds(own.rows, own.num_rows)
    probe = draw[None]
    pushed = pulled = jnp.zeros((0, 0), like.dtype)
    if forward:
        rows = by_rows if symmetric else by_columns[:0]
        seeds = np.concatenate([by_columns, rows, probe])
        pushed = _products(jax.linearize(function, flat)[1], seeds, flat, compiled)
    if not forward or (own.num_rows and not symmetric):
        pull = jax.vjp(function, flat)[1]
        seeds = by_rows if forward else np.concatenate([by_rows, probe])
        pulled = _products(
            lambda u: pull(u)[0].astype(like.dtype), seeds, like, compiled
        )
    products = jnp.concatenate([pushed.ravel(), pulled.ravel()])
    values = products.at[_places(plan, symmetric, pushed.size)].get(
        mode="promise_in_bounds"
    )
    main, count = (pushed, own.num_columns) if forward else (pulled, own.num_rows)
    apart = _probed(plan, values, main, count, draw.astype(like.dtype), forward)
    wrong = apart.wrong(float(jnp.finfo(like.dtype).eps))
    is_known = not is_traced(wrong)  # f may use traced values.
    if is_known and not bool(jnp.any(wrong)):
        return values
    lowest = lowest_precision(function, jax.ShapeDtypeStruct(flat.shape, flat.dtype))
    wrong = apart.wrong(float(jnp.finfo(lowest).eps))
    if not is_known:
        return jnp.where(jnp.any(wrong), jnp.nan, values)
    if bool(jnp.any(wrong)):
        raise _contradiction(wrong, apart, forward)
    return values


def _products(
    linear: Callable[..., Any], vectors: np.ndarray, like: Any, compiled: bool
) -> jax.Array:
    """Return linear(v) for each row v of `vectors`, shape (vectors, outputs).

    In a compiled program the products are computed in a loop of two steps, each for one
    half of the vectors. XLA does not fuse across a loop. Without the loop, XLA's CPU
    backend would compute a product again for each entry that is read from it.
    """
    if not compiled:
        return jax.vmap(linear)(jnp.asarray(vectors, like.dtype))
    count = len(vectors)
    if count % 2:
        vectors = np.concatenate([vectors, np.zeros((1, like.size))])
    halves = jnp.asarray(vectors.reshape(2, len(vectors) // 2, like.size), like.dtype)
    found = jax.lax.map(jax.vmap(linear), halves)
    return found.reshape(len(vectors), found.shape[2])[:count]


def _places(plan: SparsityPattern, symmetric: bool, before: int) -> np.ndarray:
    """Return the index of each entry in the list of all entries of the products.

    The list has first the entries of all products J v, then those of all products uᵀ J.
    `before` is the number of entries of the products J v.
    """
    own, rows, columns = plan.colouring, plan.rows, plan.columns
    outputs, inputs = plan.shape
    in_column = own.columns[columns] * outputs + rows
    if not own.num_rows:
        return in_column
    if symmetric:
        # An entry stands in a dense row, or in a dense column.
        mirrored = own.rows[rows] < 0
        colour = own.num_columns + own.rows[np.where(mirrored, columns, rows)]
        in_row = colour * outputs + np.where(mirrored, rows, columns)
    else:
        in_row = before + own.rows[rows] * inputs + columns
    return np.where(own.by_row, in_row, in_column)


class _Apart(NamedTuple):
    """Product of the matrix and a random vector, computed in two ways.

    Attributes:
      product: Product of the sparse matrix and the vector.
      truth: J v or uᵀ J for the same vector, computed without the pattern.
      scale: For each entry of the product, the sum of the absolute values of its terms.
    """

    product: jax.Array
    truth: jax.Array
    scale: jax.Array

    def wrong(self, eps: float) -> jax.Array:
        """Return where `product` and `truth` differ by more than rounding errors.

        `eps` is the relative spacing of the floats.
        """
        # The largest row sets the size of rounding errors that cancel inside f.
        largest = jnp.max(self.scale, initial=0, where=jnp.isfinite(self.scale))
        allowed = eps**0.5 * self.scale + min(1e3 * eps, eps**0.5) * largest
        far = jnp.abs(self.product - self.truth) > allowed
        return far & jnp.isfinite(self.truth)


def _probed(
    plan: SparsityPattern,
    values: jax.Array,
    main: jax.Array,
    count: int,
    draw: np.ndarray,
    forward: bool,
) -> _Apart:
    """Compare the product of the matrix and a random vector with J v or uᵀ J.

    In each row, the pattern has at most one entry in the columns of one colour. So the
    sum over the entries of a row is a sum over colours, which needs no scatter.

    Args:
      plan, values: The pattern, and the entries of the matrix in its order.
      main: Products J v (uᵀ J if `forward` is False). The last is the product with the
        random vector.
      count: Number of products in `main` that belong to colours of columns (of rows if
        `forward` is False).
      draw: The random vector.
      forward: If True, the products are J v, otherwise uᵀ J.
    """
    own = plan.colouring
    direct = ~own.by_row if forward else own.by_row
    groups, others = (plan.rows, plan.columns)[:: 1 if forward else -1]
    colours = (own.columns if forward else own.rows)[others[direct]]
    weights = np.zeros((count, main.shape[1]), draw.dtype)
    weights[colours, groups[direct]] = draw[others[direct]]
    used = jnp.where(weights != 0, main[:count] * weights, 0)
    product, scale = jnp.sum(used, axis=0), jnp.sum(jnp.abs(used), axis=0)
    truth = main[-1]
    if not direct.all():
        terms = values[~direct] * draw[others[~direct]]
        add = lambda t: jax.ops.segment_sum(t, jnp.asarray(groups[~direct]), len(truth))
        product, scale = product + add(terms), scale + add(jnp.abs(terms))
    return _Apart(product, truth, scale)


def _contradiction(wrong: jax.Array, apart: _Apart, forward: bool) -> PatternError:
    place = int(jnp.argmax(wrong))
    what = "row" if forward else "column"
    return PatternError(
        f"pattern does not hold: {what} {place} has an entry outside the pattern, or "
        "rounding errors inside f are larger than its dtypes explain. The product of "
        f"this {what} with a random vector is {float(apart.truth[place]):.6g}, but the "
        f"pattern gives {float(apart.product[place]):.6g} ({int(jnp.sum(wrong))} such "
        f"{what}s). If you passed a pattern, pass pattern=None to detect it, or add "
        "the missing entries."
    )
