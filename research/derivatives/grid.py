"""Derivatives of sampled data on any grid, by Fornberg's weights."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.checks import (
    check_count,
    check_not_deleted,
    check_numbers,
    is_integer,
    refuse_traced,
)
from research.derivatives.errors import GridTooSmallError
from research.sizes import check_most

# Number of points whose weights are computed at once, to limit memory.
_BLOCK = 1 << 16


def fornberg_weights(nodes: Any, at: Any, order: int) -> Float[np.ndarray, "*batch s"]:
    """Return the weights w of the formula f^(order)(at) ≈ Σ_j w_j f(nodes_j).

    Here f^(n) is the n-th derivative of f, and j runs over all nodes. If f is a
    polynomial of degree below the number of nodes, the formula has only rounding
    errors.

    Args:
      nodes: Distinct abscissae, shape (..., s) with s > order. Each row along the last
        axis belongs to one formula.
      at: Point of the derivative: one number for all formulas, or an array with one
        number for each formula, shape (...).
      order: Order of the derivative, an integer in 0..1000. For order 0, the formula
        interpolates f.
    Returns:
      The weights, shape (..., s), in float64.
    Raises:
      GridTooSmallError: nodes has fewer than order + 1 entries along its last axis.
      ValueError: Two nodes of a formula are equal; a node or `at` is not finite; the
        shape of `at` does not match; or order is not an integer in 0..1000.
      TypeError: nodes or `at` are not real numbers.
    References:
      Fornberg, Generation of finite difference formulas on arbitrarily spaced grids,
      Math. Comp. 51 (1988), 699-706.
    Example:
      >>> print(fornberg_weights([-1.0, 0.0, 1.0], 0.0, 2))
      [ 1. -2.  1.]
    """
    refuse_traced("fornberg_weights", nodes=nodes, at=at)
    check_most(1_000, order=order)
    check_numbers("nodes", nodes)
    check_numbers("at", at)
    check_not_deleted("nodes", nodes)
    check_not_deleted("at", at)
    check_count("order", order, 0)
    shape = np.shape(nodes)
    if not shape or shape[-1] <= order:
        raise GridTooSmallError(
            f"nodes must have at least order + 1 = {order + 1} entries along their "
            f"last axis; got nodes of shape {shape}."
        )
    if np.shape(at) not in ((), shape[:-1]):
        raise ValueError(
            f"at must be one number, or have the leading shape of nodes, {shape[:-1]}; "
            f"got {np.shape(at)}."
        )
    sorted_nodes = np.sort(np.asarray(nodes, np.float64), axis=-1)
    if (
        not np.isfinite(sorted_nodes).all()
        or (np.diff(sorted_nodes, axis=-1) == 0).any()
    ):
        raise ValueError(f"nodes must be distinct and finite; got nodes={nodes!r}.")
    if not np.isfinite(np.asarray(at, np.float64)).all():
        raise ValueError(f"at must be finite; got at={at!r}.")
    offsets = np.asarray(nodes, np.float64) - np.asarray(at, np.float64)[..., None]
    # In the unit of the largest offset, products of offsets do not overflow.
    power = np.frexp(np.max(np.abs(offsets), axis=-1))[1]
    scaled = np.moveaxis(np.ldexp(offsets, -power[..., None]), -1, 0)
    found = np.moveaxis(_weights_at_zero(scaled, order), 0, -1)
    return np.ldexp(found, -order * power[..., None])


def _weights_at_zero(
    offset: Float[np.ndarray, "s *batch"], order: int
) -> Float[np.ndarray, "s *batch"]:
    """Return the weights of the derivative at 0, for nodes with the given offsets."""
    # weights[k, j] is the weight of node j for derivative k, from the first i nodes.
    weights = np.zeros((order + 1, *offset.shape))
    weights[0, 0] = 1.0
    orders = np.arange(1, order + 1).reshape(-1, *([1] * (offset.ndim - 1)))
    before = np.ones(offset.shape[1:])
    for i in range(1, len(offset)):
        product = np.ones(offset.shape[1:])
        for j in range(i):
            gap = offset[i] - offset[j]
            product = product * gap
            lower = weights[:-1, j].copy()
            if j == i - 1:
                weights[0, i] = -before * offset[j] * weights[0, j] / product
                weights[1:, i] = (
                    before * (orders * lower - offset[j] * weights[1:, j]) / product
                )
            weights[0, j] = offset[i] * weights[0, j] / gap
            weights[1:, j] = (offset[i] * weights[1:, j] - orders * lower) / gap
        before = product
    return weights[order]


def grid_derivative(
    y: Any, x: Any, order: int = 1, accuracy: int = 2, axis: int = -1
) -> Any:
    """Return the derivative d^order y / dx^order of samples on an even or uneven grid.

    The error is O(spacing^accuracy) everywhere, including both ends of the grid. At the
    ends, `np.gradient` has the error O(spacing) by default.

    The derivative at a point x_i is a weighted sum of the samples at order + accuracy
    successive points, with Fornberg's weights. About half of these points lie on each
    side of x_i. Near an end of the grid, the first or last order + accuracy points are
    used. If the grid is even, and order and accuracy are even numbers, the formula in
    the interior is symmetric. The error of a symmetric formula has only even powers of
    the spacing, so one point fewer is enough. For example, the second derivative with
    accuracy 2 uses three points in the interior.

    The result is linear in y. The samples y may be a traced JAX array, but x must have
    concrete numbers. If you have a function instead of samples, use `derivative(f, x)`.

    Args:
      y: Samples, an array with at least one axis, real or complex. Integers and bools
        are converted to float64, or to float32 if y is a JAX array and JAX's float64 is
        disabled.
      x: Abscissae, strictly increasing or strictly decreasing, shape (n,), where n is
        the length of y along `axis`.
      order: Order of the derivative, a positive integer.
      accuracy: Exponent of the spacing in the error O(spacing^accuracy), a positive
        integer.
      axis: Axis of y that contains the samples.
    Returns:
      The derivative, in the shape of y. It is a JAX array if y is a JAX array, else a
      NumPy array. It has the dtype of y if y is floating or complex. If y is in half
      precision, the derivative is computed in float32 and rounded to the dtype of y.
    Raises:
      GridTooSmallError: y or x is a single number, or there are fewer than order +
        accuracy points.
      ValueError: Two abscissae are equal, or the abscissae are not monotone, not
        finite, or do not match y. Or one of order and accuracy is not a positive
        integer.
      TypeError: y or x does not hold numbers, x is complex, or axis is not an integer.
    References:
      Fornberg, Generation of finite difference formulas on arbitrarily spaced grids,
      Math. Comp. 51 (1988), 699-706.
    Example:
      >>> x = np.array([1.0, 2.0, 3.0, 4.0])
      >>> print(grid_derivative(x**2, x), np.gradient(x**2, x))
      [2. 4. 6. 8.] [3. 4. 6. 7.]
    """
    refuse_traced("grid_derivative", x=x, order=order, accuracy=accuracy)
    check_numbers("y", y, kinds="biufc")
    check_numbers("x", x)
    refuse_scalars(y, x)
    if not is_integer(axis):
        raise TypeError(f"axis must be an integer; got axis={axis!r}.")
    check_count("order", order)
    check_count("accuracy", accuracy)
    order, accuracy = int(order), int(accuracy)
    abscissae = _abscissae(x)
    samples: Any = y if isinstance(y, jax.Array) else np.asarray(y)
    if samples.dtype.kind in "biu":
        samples = samples.astype(float)
    if not -samples.ndim <= axis < samples.ndim or samples.shape[axis] != len(
        abscissae
    ):
        raise ValueError(
            f"y must have as many samples along axis={axis} as x has abscissae; got y "
            f"of shape {samples.shape} and {len(abscissae)} abscissae. Pass another "
            "axis, or the abscissae of these samples."
        )
    if len(abscissae) < order + accuracy:
        raise GridTooSmallError(
            f"a derivative of order={order} with accuracy={accuracy} needs "
            f"{order + accuracy} points; the grid has {len(abscissae)}. Sample more "
            "points, or reduce accuracy or order."
        )
    xp: Any = jnp if isinstance(samples, jax.Array) else np
    # In half precision, weights overflow: they grow like 1 / spacing^order.
    wide = np.promote_types(samples.dtype, np.float32)
    columns = xp.moveaxis(samples, axis, -1).astype(wide)
    parts = []
    for first, last, size in _pieces(abscissae, order, accuracy):
        left = np.clip(np.arange(first, last) - size // 2, 0, len(abscissae) - size)
        weights = _weights(abscissae, np.arange(first, last), left, size, order)
        terms = (
            columns[..., left + j] * weights[:, j].astype(wide) for j in range(size)
        )
        parts.append(sum(terms))
    found = xp.concatenate(parts, axis=-1).astype(samples.dtype)
    return xp.moveaxis(found, -1, axis)


def _pieces(x: np.ndarray, order: int, accuracy: int) -> Iterator[tuple[int, int, int]]:
    """Yield blocks of points that together cover the grid.

    Yields:
      (first, last, size). For the points first, first + 1, ..., last - 1, the formula
      uses `size` points.
    """
    n, size = len(x), order + accuracy
    half = size // 2
    steps = np.diff(x)
    # The grid counts as even up to the rounding of the abscissae.
    rounding = 8 * np.finfo(np.float64).eps * np.max(np.abs(x))
    even = np.ptp(steps) <= min(rounding, 0.01 * np.min(np.abs(steps)))
    # The error of a symmetric formula has only even powers of the spacing.
    inside = size - 1 if even and size % 2 == 0 and accuracy % 2 == 0 else size
    marks = (0, half, n - half, n) if inside < size and n > 2 * half else (0, n)
    for start, stop in itertools.pairwise(marks):
        points = inside if (start, stop) == (half, n - half) else size
        yield from (
            (i, min(i + _BLOCK, stop), points) for i in range(start, stop, _BLOCK)
        )


def _weights(
    x: np.ndarray, points: np.ndarray, left: np.ndarray, size: int, order: int
) -> np.ndarray:
    """Return the weights of the formula for each point, shape (points, size).

    In Fornberg's algorithm, the unit of length is the width of the formula. The result
    is rescaled.

    Args:
      x: Abscissae, shape (n,).
      points: Indices of the points.
      left: For each point, index of the first point that its formula uses.
      size: Number of points that each formula uses.
      order: Order of the derivative.
    """
    offsets = x[left[:, None] + np.arange(size)] - x[points][:, None]
    width = np.max(np.abs(offsets), axis=1, keepdims=True)
    return (
        fornberg_weights(offsets / width, np.zeros(len(points)), order) / width**order
    )


def refuse_scalars(y: Any, x: Any) -> None:
    """Raise an error if the samples y or the abscissae x are a single number.

    Raises:
      GridTooSmallError: y or x has shape ().
    """
    if np.ndim(y) == 0:
        raise GridTooSmallError(
            f"y must be an array of samples; got the single number y={y!r}. One sample "
            "has no derivative. (np.gradient(f(x), x) silently returns an empty tuple "
            "for single numbers.) For the derivative of a function at a point call "
            "derivative(f, x), or finite_difference(f, x) if JAX cannot trace f."
        )
    if np.ndim(x) == 0:
        raise GridTooSmallError(
            f"x must be the abscissae of the samples, an array of length {len(y)}; got "
            f"the single number x={x!r}. (np.gradient takes a single number as the "
            "spacing of the samples, not as the point of the derivative.) For samples "
            "with spacing h pass x = h * np.arange(n). For the derivative of a "
            "function at a point call derivative(f, x)."
        )


def _abscissae(x: Any) -> np.ndarray:
    """Check x and convert it to float64."""
    values = np.asarray(x, np.float64)
    if values.ndim != 1:
        raise ValueError(
            "x must have one axis, with a number for each sample; got x of shape "
            f"{values.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"x must be finite; got x[{bad[0]}]={values[bad[0]]}. Remove all samples "
            "that are not finite."
        )
    steps = np.diff(values)
    same = np.flatnonzero(steps == 0)
    if len(same):
        raise ValueError(
            f"x must not have equal abscissae; got x[{same[0]}] = x[{same[0] + 1}] = "
            f"{values[same[0]]}. Average samples with equal abscissae, or remove all "
            "but one of them."
        )
    turns = np.flatnonzero(np.sign(steps) != np.sign(steps[:1]))
    if len(turns):
        i = turns[0]
        raise ValueError(
            f"x must be increasing or decreasing; got x[{i - 1}], x[{i}], x[{i + 1}] = "
            f"{values[i - 1]}, {values[i]}, {values[i + 1]}. Sort: index = "
            "np.argsort(x); grid_derivative(y[index], x[index])."
        )
    return values
