"""Evaluation of a function with its gradient and Hessian, by one compiled program."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.derivatives.costs.jaxprs import precisions, traced
from research.derivatives.critical.roundings import SIGNS, with_larger_roundings
from research.derivatives.exact.arguments import is_jitted, scalar

# Number of points per call of the compiled program. The last call is padded.
ROWS = 512
# A term of f may have a factor as small as the inverse of this number.
COEFFICIENT = 256
# Two quadrature rules, whose difference estimates the error.
NODES = [np.polynomial.legendre.leggauss(k) for k in (5, 6)]


class Landscape:
    """Evaluation of f, its gradient and its Hessian in scaled coordinates y = x / unit.

    Here x is the argument of f. The units are powers of two, so the conversion between
    x and y has no rounding error. The values of f and its derivatives are returned as
    float64 NumPy arrays. The derivatives are with respect to y.

    Args:
      f: The function, of a vector or of one number. If it is the result of `jax.jit`,
        its programs are compiled once, and not for each `Landscape`.
      unit: Unit of each coordinate, shape (n,).
      dtype: Dtype in which f computes.
      caller: Name of the calling function, for the message if f returns anything but
        one real number.
      of_number: Whether f is a function of one number.
    Attributes:
      unit: Unit of each coordinate, shape (n,).
      dtype: Dtype in which f computes.
      eps: Relative spacing of the floats of the dtype (machine epsilon).
      least: Smallest absolute value at which results of f have the usual relative
        rounding errors. Smaller results may have larger relative errors.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        unit: Float[np.ndarray, "n"],
        dtype: np.dtype,
        caller: str = "critical_points",
        *,
        of_number: bool = False,
    ):
        self._made_of = f, caller, of_number
        self.unit, self.dtype = unit.astype(dtype), np.dtype(dtype)
        self.eps = float(jnp.finfo(dtype).eps)
        # Smaller results have larger relative rounding errors.
        self.least = float(jnp.finfo(dtype).tiny) / self.eps
        of_vector = _OfVector(f, caller, of_number)
        # A jitted f is hashable and does not change, so its programs can be shared.
        if is_jitted(f):
            self._program = functools.partial(_compiled_rows, of_vector)
            self._noisy = functools.partial(_compiled_noisy_rows, of_vector)
        else:
            self._program = jax.jit(functools.partial(_rows, of_vector))
            self._noisy = jax.jit(functools.partial(_noisy_rows, of_vector))

    @functools.cached_property
    def in_double(self) -> "Landscape":
        """The same f in the same coordinates, with float64 as its dtype.

        It is to be used where JAX's float64 is enabled.
        """
        f, caller, of_number = self._made_of
        unit = self.unit.astype(float)
        return Landscape(f, unit, np.dtype(float), caller, of_number=of_number)

    @functools.cached_property
    def underflow(self) -> float:
        """Absolute value below which a result of f may underflow to 0.

        This is 256 times the smallest normal float of the dtype in which f computes.
        The factor is 256 because a term of f may have a coefficient as small as
        1 / 256. If f computes in several dtypes, the largest of their numbers is
        returned.
        """
        rows = np.zeros((ROWS, len(self.unit)), self.dtype)
        found = precisions(traced(self._program, rows, rows, self.unit))
        return COEFFICIENT * max(float(jnp.finfo(dtype).tiny) for dtype in found)

    def at(
        self,
        y: Float[np.ndarray, "m n"],
        v: Float[np.ndarray, "m n"] | None = None,
        *,
        noisy: bool = False,
        turn: int = 0,
    ) -> tuple[
        Float[np.ndarray, "m"], Float[np.ndarray, "m n"], Float[np.ndarray, "m n"]
    ]:
        """Evaluate f, its gradient, and its Hessian times v at each row of y.

        Args:
          y: Points, shape (m, n).
          v: Direction for each point, shape (m, n). None means 0.
          noisy: Whether to give each operation of f a larger, random rounding error.
            The errors differ between rows.
          turn: Index of the set of random errors for the first 512 rows, if `noisy` is
            True. There are eight sets, which are used in turn: each further 512 rows
            get the next set.
        Returns:
          (values, gradients, products of the Hessian and v), of the shapes (m,), (m, n)
          and (m, n).
        """
        y = self.rounded(y)
        v = np.zeros_like(y) if v is None else np.asarray(v, self.dtype)
        parts = []
        for start in range(0, max(len(y), 1), ROWS):
            rows = [np.zeros((ROWS, y.shape[1]), self.dtype) for _ in "yv"]
            for row, given in zip(rows, (y, v), strict=True):
                part = given[start : start + ROWS]
                row[: len(part)], row[len(part) :] = part, part[:1]
            call = (
                (self._noisy, _signs(turn + start // ROWS, self.dtype))
                if noisy
                else (self._program,)
            )
            parts.append(
                [np.asarray(out, float) for out in call[0](*call[1:], *rows, self.unit)]
            )
        joined = [
            np.concatenate(column)[: len(y)] for column in zip(*parts, strict=True)
        ]
        return joined[0], joined[1], joined[2]

    def hessians(
        self, y: Float[np.ndarray, "m n"]
    ) -> tuple[
        Float[np.ndarray, "m"], Float[np.ndarray, "m n"], Float[np.ndarray, "m n n"]
    ]:
        """Evaluate f, its gradient and its Hessian at each row of y.

        Returns:
          (values, gradients, Hessians), of the shapes (m,), (m, n) and (m, n, n).
        """
        m, n = y.shape
        value, slope, columns = self.at(
            np.repeat(y, n, axis=0), np.tile(np.eye(n), (m, 1))
        )
        columns = columns.reshape(m, n, n)
        return value[::n], slope[::n], (columns + columns.transpose(0, 2, 1)) / 2

    def noise(
        self, y: Float[np.ndarray, "n"]
    ) -> tuple[Float[np.ndarray, "8 n"], Float[np.ndarray, "8 n n"]]:
        """Measure how random rounding errors of f change its gradient and its Hessian.

        Returns:
          (changes of the gradient at y, changes of the Hessian at y) for eight
          different sets of rounding errors, of the shapes (8, n) and (8, n, n).
        """
        n = len(y)
        v = np.repeat(np.eye(n), 8, axis=0)
        _, slope, columns = self.at(np.broadcast_to(y, v.shape), v, noisy=True)
        _, plain, hessian = self.hessians(y[None])
        columns = columns.reshape(n, 8, n).transpose(1, 2, 0)
        return slope.reshape(n, 8, n)[0] - plain[0], (
            columns + columns.transpose(0, 2, 1)
        ) / 2 - hessian[0]

    def rounded(self, y: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Convert y to the precision in which f computes."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(y, self.dtype)

    def moved(
        self, y: Float[np.ndarray, "n"], d: Float[np.ndarray, "m n"]
    ) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "m n"]]:
        """Return the rounded points y + d for each row of d, and the steps to them.

        Returns:
          (points, steps), both of shape (m, n). For the points, y and the sum y + d are
          rounded to the precision of f. The steps are the points minus the rounded y,
          computed in float64.
        """
        there = self.rounded(self.rounded(y) + d)
        return there, there.astype(float) - self.rounded(y).astype(float)

    def rise(
        self, y: Float[np.ndarray, "n"], d: Float[np.ndarray, "m n"]
    ) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
        """Compute the rise f(y + d) - f(y) for each step d, a row of the argument d.

        The rise is the integral of the gradient along d. It is computed by
        Gauss-Legendre quadrature with 6 nodes, without a difference of two values of f.
        So no digits cancel, even if f(y) is much larger than the rise. The gradients
        are evaluated with larger, random rounding errors (`at` with noisy=True), which
        are independent at all nodes.

        Returns:
          (rise, error, difference), each of shape (m,) for m steps. The error is the
          absolute difference between the results with 5 and with 6 nodes, plus 8 ε
          times the sum of the absolute terms of the quadrature, where ε is `eps`. The
          third result is the plain difference f(y + d) - f(y) of two values of f.
        """
        totals, rounding = [], np.zeros(len(d))
        for turn, (nodes, weights) in zip((4, 0), NODES, strict=True):
            way = ((nodes + 1) / 2)[:, None, None] * d
            points = self.moved(y, way.reshape(-1, d.shape[1]))[0]
            # Equal errors at both rules would cancel in the difference of the results.
            slopes = self.at(points, noisy=True, turn=turn)[1].reshape(way.shape)
            parts = slopes * d * (weights / 2)[:, None, None]
            totals.append(parts.sum(axis=(0, 2)))
            rounding = 8 * self.eps * np.abs(parts).sum(axis=(0, 2))
        values = self.at(np.concatenate([y[None], self.moved(y, d)[0]]))[0]
        return (
            totals[1],
            np.abs(totals[1] - totals[0]) + rounding,
            values[1:] - values[0],
        )


@functools.lru_cache(8)
def _signs(turn: int, dtype: np.dtype) -> np.ndarray:
    """Return random signs for each row of a call, shape (ROWS, SIGNS).

    Eight sets of signs are used in turn.
    """
    return np.random.default_rng(turn % 8).choice(
        np.array([-1.0, 1.0], dtype), (ROWS, SIGNS)
    )


@dataclasses.dataclass(frozen=True)
class _OfVector:
    """The function f of a vector, with a check that its value is one real number.

    Two objects with the same fields are equal, so that `jax.jit` finds their program.
    """

    f: Callable[..., Any]
    caller: str
    of_number: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        f = (lambda x: self.f(x[0])) if self.of_number else self.f
        return scalar(f, self.caller)(x)


def _rows(
    f: Callable[..., Any], y: jax.Array, v: jax.Array, unit: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return f, its gradient, and its Hessian times v, for each row of y and v."""
    return jax.vmap(_one(f), in_axes=(0, 0, None))(y, v, unit)


def _noisy_rows(
    f: Callable[..., Any],
    signs: jax.Array,
    y: jax.Array,
    v: jax.Array,
    unit: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the same as `_rows`, with larger rounding errors."""
    noisy = with_larger_roundings(_one(f))
    return jax.vmap(noisy, in_axes=(0, 0, 0, None))(signs, y, v, unit)


_compiled_rows = jax.jit(_rows, static_argnums=0)
_compiled_noisy_rows = jax.jit(_noisy_rows, static_argnums=0)


def _one(f: Callable[..., Any]) -> Callable[..., Any]:
    def one(
        y: jax.Array, v: jax.Array, unit: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        slope = jax.value_and_grad(lambda y: f(unit * y))
        (value, gradient), (_, curved) = jax.jvp(slope, (y,), (v,))
        return value, gradient, curved

    return one


def power_of_two(lengths: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return positive lengths, rounded down to powers of two."""
    return np.ldexp(1.0, np.frexp(np.asarray(lengths, float))[1] - 1)
