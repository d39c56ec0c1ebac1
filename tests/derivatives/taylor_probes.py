"""Functions on which Taylor series are probed: elementary, special, linear algebra,
loops, networks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax


class Probe(NamedTuple):
    """A function with a point and a direction."""

    f: Callable[[Any], Any]
    x: Any
    v: Any


def at(f, x: Any, v: Any = 1.0):
    return Probe(f, jnp.asarray(x, float), jnp.asarray(v, float))


VECTOR = np.array([0.3, -0.7, 1.1, 0.45])
ALONG = np.array([1.0, 0.5, -0.8, 0.3])
POSITIVE = np.array([0.8, 1.3, 0.6, 2.1])
FIXED = np.array(
    [
        [2.0, 0.3, -0.1, 0.2],
        [0.1, 1.5, 0.4, 0.0],
        [-0.2, 0.3, 1.8, 0.5],
        [0, 0.1, 0.2, 2.2],
    ]
)
WEIGHTS = np.cos(np.arange(16.0)).reshape(4, 4)


def vector(f, x=VECTOR, v=ALONG):
    return at(f, x, v)


def matrix_of(x):
    """Four numbers as a well-conditioned matrix."""
    return FIXED + 0.2 * jnp.outer(x, jnp.sin(x)) + jnp.diag(0.1 * x**2)


def symmetric_of(x):
    square = matrix_of(x)
    return square @ square.T + jnp.eye(4)


@jax.custom_jvp
def with_own_rule(x):
    return jnp.sin(x) * x


with_own_rule.defjvp(
    lambda x, dx: (with_own_rule(x[0]), (jnp.cos(x[0]) * x[0] + jnp.sin(x[0])) * dx[0])
)


@jax.custom_jvp
def own_exponential(x):
    return jnp.exp(x)


@own_exponential.defjvp
def _(primals, tangents):
    # The rule uses the function twice: without the memo, each order doubles the work.
    half = 0.5 * own_exponential(primals[0])
    return own_exponential(primals[0]), (half + 0.5 * own_exponential(primals[0])) * (
        tangents[0]
    )


@jax.custom_jvp
def loop_in_rule(x):
    return jnp.sin(x)


@loop_in_rule.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    cosine = lax.fori_loop(0, 3, lambda i, c: c * jnp.cos(x) ** i, 1.0)
    total = lax.scan(lambda c, i: (c + jnp.cos(i * x), i), cosine, jnp.arange(3.0))[0]
    return loop_in_rule(x), lax.cond(x > 0, jnp.sin, jnp.cos, total) * dx


def softmax_loss(x):
    return special.logsumexp(WEIGHTS @ x) - (WEIGHTS @ x)[1]


def network(x):
    hidden = jnp.tanh(WEIGHTS @ x)
    return jnp.sum(jnp.tanh(0.5 * WEIGHTS.T @ hidden) ** 2)


def recurrent(x):
    step = lambda h, u: (jnp.tanh(0.4 * WEIGHTS @ h + u), jnp.sum(h**2))
    last, squares = lax.scan(step, x, jnp.outer(jnp.arange(6.0), x) / 6)
    return jnp.sum(last) + squares


def attention(x):
    keys = jnp.stack([x, jnp.sin(x), x**2])
    return jax.nn.softmax(keys @ keys.T / 2.0) @ keys


def newton_root(x):
    return lax.fori_loop(0, 5, lambda i, y: 0.5 * (y + x / y), x + 1.0)


def halved_until_small(x):
    return lax.while_loop(
        lambda s: jnp.abs(s[0]) > 0.1, lambda s: (s[0] / 2, s[1] + s[0] ** 2), (x, 0.0)
    )[1]


def custom_root(x):
    return lax.custom_root(
        lambda y: y**3 + y - x,
        1.0,
        lambda g, y: lax.fori_loop(0, 30, lambda i, y: y - g(y) / (3 * y**2 + 1), y),
        lambda g, b: b / g(1.0),
    )


PROBES: dict[str, Probe] = {
    "exp": at(jnp.exp, 0.3),
    "exp2": at(jnp.exp2, 0.3),
    "expm1": at(jnp.expm1, 0.3),
    "log": at(jnp.log, 0.7),
    "log2": at(jnp.log2, 0.7),
    "log1p": at(jnp.log1p, 0.4),
    "sqrt": at(jnp.sqrt, 0.8),
    "rsqrt": at(lax.rsqrt, 0.8),
    "cbrt": at(jnp.cbrt, -1.3),
    "power": at(lambda x: x**2.3, 0.9),
    "integer_power": at(lambda x: x**7, -0.6),
    "negative_power": at(lambda x: x**-3, 0.8),
    "own_power": at(lambda x: x**x, 1.2),
    "reciprocal": at(lambda x: 1 / x, 0.8),
    "quotient": at(lambda x: jnp.sin(x) / (1 + x**2), 0.8),
    "sin": at(jnp.sin, 0.8),
    "cos": at(jnp.cos, 0.8),
    "tan": at(jnp.tan, 0.8),
    "arcsin": at(jnp.arcsin, 0.4),
    "arccos": at(jnp.arccos, 0.4),
    "arctan": at(jnp.arctan, 0.8),
    "arctan2": at(lambda x: jnp.arctan2(jnp.sin(x), 1 + x), 0.8),
    "sinh": at(jnp.sinh, 0.8),
    "cosh": at(jnp.cosh, 0.8),
    "tanh": at(jnp.tanh, 0.8),
    "arcsinh": at(jnp.arcsinh, 0.8),
    "arccosh": at(jnp.arccosh, 1.9),
    "arctanh": at(jnp.arctanh, 0.4),
    "sinc": at(jnp.sinc, 0.4),
    "logistic": at(jax.nn.sigmoid, 0.8),
    "logit": at(special.logit, 0.3),
    "softplus": at(jax.nn.softplus, 0.8),
    "silu": at(jax.nn.silu, 0.8),
    "gelu": at(jax.nn.gelu, 0.8),
    "relu": at(jax.nn.relu, 0.8),
    "elu": at(jax.nn.elu, -0.8),
    "selu": at(jax.nn.selu, -0.8),
    "erf": at(special.erf, 0.4),
    "erfc": at(special.erfc, 0.4),
    "erfinv": at(special.erfinv, 0.4),
    "gammaln": at(special.gammaln, 1.7),
    "digamma": at(special.digamma, 1.7),
    "polygamma": at(lambda x: special.polygamma(2, x), 1.7),
    "gammainc": at(lambda x: special.gammainc(1.4, x), 0.9),
    "betainc": at(lambda x: special.betainc(1.4, 2.2, x), 0.4),
    "i0e": at(special.i0e, 0.8),
    "i1e": at(special.i1e, 0.8),
    "xlogy": at(lambda x: special.xlogy(x, x), 0.8),
    "entropy": at(special.entr, 0.8),
    "absolute": at(lambda x: jnp.abs(x) * x**3, -0.8),
    "maximum": vector(lambda x: jnp.maximum(x**3, jnp.sin(x))),
    "clip": vector(lambda x: jnp.clip(x**3, -0.2, 0.5)),
    "where": vector(lambda x: jnp.where(x > 0, jnp.exp(x), x**2)),
    "sum_of_squares": vector(lambda x: jnp.sum(x**2 * jnp.cos(x))),
    "norm": vector(jnp.linalg.norm),
    "product": vector(jnp.prod),
    "cumulative_sum": vector(lambda x: jnp.cumsum(jnp.exp(x))),
    "cumulative_product": vector(jnp.cumprod),
    "largest": vector(lambda x: jnp.max(x**3)),
    "sort": vector(lambda x: jnp.sort(jnp.sin(3 * x))),
    "top_k": vector(lambda x: lax.top_k(jnp.sin(3 * x), 2)[0]),
    "gather": vector(lambda x: jnp.sin(x)[jnp.array([2, 0, 2])]),
    "dynamic_slice": vector(
        lambda x: lax.dynamic_slice(jnp.exp(x), (jnp.argmax(x) - 1,), (2,))
    ),
    "scatter": vector(lambda x: jnp.zeros(6).at[jnp.array([1, 3, 1, 0])].add(x**3)),
    "pad_and_roll": vector(lambda x: jnp.roll(jnp.pad(jnp.sin(x), 2), 1)),
    "logsumexp": vector(special.logsumexp),
    "softmax": vector(jax.nn.softmax),
    "cross_entropy": vector(softmax_loss),
    "einsum": vector(lambda x: jnp.einsum("i,ij,j->", jnp.exp(x), WEIGHTS, x)),
    "convolution": vector(lambda x: jnp.convolve(jnp.sin(x), x)),
    "fft": vector(lambda x: jnp.abs(jnp.fft.rfft(jnp.exp(x)))),
    "solve": vector(lambda x: jnp.linalg.solve(matrix_of(x), jnp.exp(x))),
    "inverse": vector(lambda x: jnp.linalg.inv(matrix_of(x))),
    "log_determinant": vector(lambda x: jnp.linalg.slogdet(matrix_of(x))[1]),
    "cholesky": vector(lambda x: jnp.linalg.cholesky(symmetric_of(x))),
    "eigenvalues": vector(lambda x: jnp.linalg.eigvalsh(symmetric_of(x))),
    "qr": vector(lambda x: jnp.linalg.qr(matrix_of(x))[1]),
    "svd": vector(lambda x: jnp.linalg.svd(matrix_of(x), full_matrices=False)[1]),
    "matrix_exponential": vector(lambda x: jax.scipy.linalg.expm(0.2 * matrix_of(x))),
    "scan": vector(recurrent),
    "while_loop": at(halved_until_small, 0.9),
    "fori_loop": at(newton_root, 2.3),
    "cond": vector(lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x**2)),
    "checkpoint": vector(jax.checkpoint(lambda x: jnp.sum(jnp.sin(x) ** 3))),
    "custom_jvp": at(with_own_rule, 0.8),
    "custom_jvp_twice": at(own_exponential, 0.8),
    "loop_in_rule": at(loop_in_rule, 0.8),
    "custom_root": at(custom_root, 2.3),
    "map": vector(lambda x: lax.map(lambda u: jnp.exp(u) * u, x)),
    "network": vector(network),
    "attention": vector(attention),
    "gradient_inside": vector(lambda x: jax.grad(network)(x)),
    "scatter_product": vector(
        lambda x: (
            jnp.ones(6)
            .at[jnp.array([1, 3, 2, 0])]
            .multiply(jnp.exp(x), unique_indices=True)
        )
    ),
}
