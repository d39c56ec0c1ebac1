"""A function in units of its own: one compiled program gives value, gradient and curvature for any number of points."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.critical.roundings import SIGNS, with_larger_roundings

ROWS = 512  # Evaluated by one call of the compiled program; the last call is padded, so that one program serves all.
NODES = [
    np.polynomial.legendre.leggauss(k) for k in (5, 6)
]  # Two rules; their difference estimates noise.


class Landscape:
    """f of y = x / unit. The units are powers of two, so that nothing is rounded when points are converted.

    All arrays that come out are float64 NumPy arrays, and derivatives are with respect to y.
    """

    def __init__(self, f: Callable, unit: np.ndarray, dtype: np.dtype):
        self.unit, self.dtype = unit.astype(dtype), np.dtype(dtype)
        self.eps = float(jnp.finfo(dtype).eps)
        self.least = (
            float(jnp.finfo(dtype).tiny) / self.eps
        )  # Of what is computed less is rounded as if it were larger.
        self._program = _program(f)
        self._noisy = jax.jit(
            jax.vmap(with_larger_roundings(_one(f)), in_axes=(0, 0, 0, None))
        )

    def at(
        self, y: np.ndarray, v: np.ndarray | None = None, *, noisy: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, gradient, and Hessian times v, at each row of y; shapes (m,), (m, n), (m, n).

        With noisy, each operation of f rounds more and at random, in each row otherwise.
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
                (self._noisy, _signs(start // ROWS, self.dtype))
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

    def hessians(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, gradient and symmetric Hessian at each row of y; shapes (m,), (m, n), (m, n, n)."""
        m, n = y.shape
        value, slope, columns = self.at(
            np.repeat(y, n, axis=0), np.tile(np.eye(n), (m, 1))
        )
        columns = columns.reshape(m, n, n)
        return value[::n], slope[::n], (columns + columns.transpose(0, 2, 1)) / 2

    def noise(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much the gradient and the Hessian at the point y change when f rounds more, shapes (8, n) and (8, n, n)."""
        n = len(y)
        v = np.repeat(np.eye(n), 8, axis=0)
        _, slope, columns = self.at(np.broadcast_to(y, v.shape), v, noisy=True)
        _, plain, hessian = self.hessians(y[None])
        columns = columns.reshape(n, 8, n).transpose(1, 2, 0)
        return slope.reshape(n, 8, n)[0] - plain[0], (
            columns + columns.transpose(0, 2, 1)
        ) / 2 - hessian[0]

    def rounded(self, y: np.ndarray) -> np.ndarray:
        """y in the function's own precision."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(y, self.dtype)

    def moved(self, y: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y + d as it can be represented, and how far that is from y."""
        there = self.rounded(self.rounded(y) + d)
        return there, there.astype(float) - self.rounded(y).astype(float)

    def rise(
        self, y: np.ndarray, d: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """f(y + d) - f(y) for each row of d: the integral of the gradient along d, its error, and the difference of values.

        Gauss's rules with 5 and 6 nodes integrate the gradient, so that a large f(y) costs no digits. The error is how much
        the two rules differ, and the rounding of their terms.
        """
        totals, rounding = [], np.zeros(len(d))
        for nodes, weights in NODES:
            way = ((nodes + 1) / 2)[:, None, None] * d
            slopes = self.at(self.moved(y, way.reshape(-1, d.shape[1]))[0], noisy=True)[
                1
            ].reshape(way.shape)
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
    """Signs for each row of a call, others at the next call."""
    return np.random.default_rng(turn % 8).choice(
        np.array([-1.0, 1.0], dtype), (ROWS, SIGNS)
    )


def _program(f: Callable) -> Callable:
    return jax.jit(jax.vmap(_one(f), in_axes=(0, 0, None)))


def _one(f: Callable) -> Callable:
    def one(
        y: jax.Array, v: jax.Array, unit: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        slope = jax.value_and_grad(lambda y: f(unit * y))
        (value, gradient), (_, curved) = jax.jvp(slope, (y,), (v,))
        return value, gradient, curved

    return one


def power_of_two(lengths: np.ndarray) -> np.ndarray:
    """The powers of two next below positive lengths."""
    return np.ldexp(1.0, np.frexp(np.asarray(lengths, float))[1] - 1)
