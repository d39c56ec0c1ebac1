"""Extreme eigenvalues of a Hessian, from products of the Hessian and vectors."""

import functools
import types
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from research.checks import (
    check_callable,
    check_choice,
    check_count,
    check_key,
    is_traced,
)
from research.derivatives.errors import NotInexactError
from research.derivatives.exact import hessian_vector_product
from research.derivatives.exact.arguments import floating, is_jitted, scalar
from research.sizes import check_room

__all__ = ["HessianSpectrum", "hessian_spectrum"]

SpectrumPart = Literal["largest", "smallest", "magnitude"]
ARPACK_NAMES = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}
DENSE = 32  # Up to this many inputs, the whole Hessian is computed.
SHIFT = 0.7390851332  # In units in which the Hessian has entries of about 1.


class HessianSpectrum(NamedTuple):
    """Some eigenvalues of a Hessian, with their eigenvectors and residuals.

    Attributes:
      values: The eigenvalues, a NumPy array of shape (count,). The order depends on the
        argument `which` of `hessian_spectrum`: descending for "largest", ascending for
        "smallest", and descending absolute values for "magnitude".
      vectors: Eigenvectors of length 1, in the order of `values` and in the structure
        of x, the point at which the Hessian is computed. A leaf of x of shape s becomes
        an array of shape (count, *s).
      residuals: |H v - λ v| for each computed eigenvalue λ and its vector v, shape
        (count,). H is the Hessian. An exact eigenvalue of H lies within this distance
        of λ, up to the rounding errors of the product H v.
      products: Number of products of the Hessian and a vector that were computed.
    """

    values: Float[np.ndarray, "count"]
    vectors: Any
    residuals: Float[np.ndarray, "count"]
    products: int


def hessian_spectrum(
    f: Callable[..., Any],
    x: Any,
    key: jax.Array,
    count: int = 1,
    which: SpectrumPart = "largest",
) -> HessianSpectrum:
    """Compute the largest or smallest eigenvalues of the Hessian of f at x.

    For a loss, the largest eigenvalue is the sharpness: gradient descent with a
    learning rate above 2 / sharpness diverges on the quadratic approximation of the
    loss.

    The eigenvalues are computed from products of the Hessian and vectors
    (`hessian_vector_product`). If x has at most max(32, 2 · count) numbers, these
    products give the whole Hessian, column by column. Otherwise the implicitly
    restarted Lanczos method of ARPACK (`scipy.sparse.linalg.eigsh`) is used. The method
    runs until it converges to the precision of float64 if x is in float64, and of
    float32 otherwise. If the method does not converge, an error is raised.

    A single run of the Lanczos method misses an eigenvalue that is exactly 0. ARPACK
    multiplies its random starting vector by the Hessian H, and the product has no
    component along an eigenvector with the eigenvalue 0. If 0 may belong to the result,
    the method runs a second time. There are two such cases:

    - `which` is "smallest", and the first run finds a positive eigenvalue.
    - `which` is "largest", and the first run finds a negative eigenvalue.

    The second run is for H + c I, with the identity matrix I and a positive number c.
    An eigenvalue 0 of H is the eigenvalue c of H + c I, so the second run finds it.

    If an eigenvalue has several eigenvectors, the Lanczos method may list it too few
    times. From one starting vector, the method seldom finds more than one of these
    eigenvectors.

    ARPACK runs on the host, so do not call this function inside `jax.jit` or
    `jax.vmap`. f is compiled at each call. If you pass `jax.jit(f)`, f is compiled once
    for many calls.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
      key: Random key from which the starting vector of the Lanczos method is drawn.
      count: Number of eigenvalues, at most the number n of entries of x.
      which: "largest" for the largest eigenvalues λ, "smallest" for the smallest λ (-2
        is smaller than 1), or "magnitude" for the largest |λ|. The most extreme
        eigenvalue comes first in the result.
    Returns:
      The `HessianSpectrum`.
    Raises:
      NotScalarError: f does not return one number.
      NotInexactError: A leaf of x or the value of f is not floating, or x or key is
        traced.
      ValueError: x has no numbers, count is not in 1..n, `which` is an unknown name, or
        a product of the Hessian and a vector is not finite.
      TypeError: key is not a key.
      RuntimeError: The Lanczos method did not converge.
    References:
      Lehoucq, Sorensen & Yang, ARPACK users' guide, SIAM 1998. Parlett, The symmetric
      eigenvalue problem, SIAM 1998, section 4.5, for the meaning of the residual.
    Example:
      >>> f = lambda x: 0.5 * (3 * x[0] ** 2 - x[1] ** 2) + 2 * x[0] * x[1]
      >>> found = hessian_spectrum(f, jnp.zeros(2), jax.random.key(0), count=2)
      >>> [f"{value:.3f}" for value in found.values]  # 1 + √8 and 1 - √8.
      ['3.828', '-1.828']
    """
    check_callable("f", f, "x")
    check_choice("which", which, get_args(SpectrumPart))
    check_key("key", key)
    x = floating(x, "x")
    if any(is_traced(leaf) for leaf in (*jax.tree.leaves(x), key)):
        raise NotInexactError(
            "hessian_spectrum iterates on the host and needs the numbers in x and key, "
            "but it was called inside jax.jit, jax.vmap or another transformation. "
            "Call it outside."
        )
    flat, unravel = ravel_pytree(x)
    check_count("count", count, 1, max(flat.size, 1))
    if not flat.size:
        raise ValueError("x must have at least one number; it has none.")
    check_room("count and the size of x", count, flat.size)
    product = _Product(f, x, flat.size, flat.dtype)
    if flat.size <= max(DENSE, 2 * count):
        values, vectors = _dense(product)
    else:
        values, vectors = _iterated(product, key, int(count), which)
    order = np.argsort(
        {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which],
        kind="stable",
    )[:count]
    values, vectors = values[order], vectors[:, order]
    residuals = np.array(
        [
            np.linalg.norm(product(v) - value * v)
            for value, v in zip(values, vectors.T, strict=True)
        ]
    )
    values, residuals = (
        np.ldexp(scaled, product.exponent) for scaled in (values, residuals)
    )
    leaves = [unravel(jnp.asarray(v, flat.dtype)) for v in vectors.T]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *leaves)
    return HessianSpectrum(values, stacked, residuals, product.count)


class _Product:
    """The product of the Hessian and a vector, as a function of NumPy arrays.

    Attributes:
      count: Number of products that were computed.
      exponent: Each product is divided by 2^exponent. This division is exact.
        `exponent` is 0 until `scale_by` is called.
    """

    def __init__(self, f: Callable[..., Any], x: Any, size: int, kind: np.dtype):
        # ARPACK has two dtypes.
        self.dtype = np.dtype(np.float64 if kind == np.float64 else np.float32)
        self.size, self.kind, self.count, self.exponent = size, kind, 0, 0
        # jax.jit keeps the programs of f as long as f, so they belong to it.
        if is_jitted(f):
            self.along = lambda v: _compiled_along(f, x, v)
        else:
            compiled = jax.jit(functools.partial(_along, f))
            self.along = lambda v: compiled(x, v)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        self.count += 1
        found = self.along(jnp.asarray(v.reshape(-1), self.kind))
        found = np.asarray(found).astype(self.dtype)
        if not np.all(np.isfinite(found)):
            raise ValueError(
                "The Hessian of f is not finite at x. Choose another x, or see "
                "`explain(f, x).first_nonfinite()` for the line."
            )
        return np.ldexp(found, -self.exponent)

    def scale_by(self, found: np.ndarray) -> np.ndarray:
        """Divide a product by a power of two, so that its largest entry is about 1.

        All later products are divided by the same number. Otherwise, if all eigenvalues
        are tiny, ARPACK would end too early, because its test of convergence has an
        absolute term. And the squares in a norm might underflow or overflow.
        """
        self.exponent = int(np.frexp(np.max(np.abs(found), initial=0.0))[1])
        return np.ldexp(found, -self.exponent)


def _along(f: Callable[..., Any], x: Any, v: jax.Array) -> jax.Array:
    checked = scalar(f, "hessian_spectrum")
    product = hessian_vector_product(checked, x, ravel_pytree(x)[1](v))
    return ravel_pytree(product)[0]


_compiled_along = jax.jit(_along, static_argnums=0)


def _dense(product: _Product) -> tuple[np.ndarray, np.ndarray]:
    columns = [product(unit) for unit in np.eye(product.size, dtype=product.dtype)]
    matrix = product.scale_by(np.stack(columns))
    return np.linalg.eigh((matrix + matrix.T) / 2)


def _iterated(
    product: _Product, key: jax.Array, count: int, which: SpectrumPart
) -> tuple[np.ndarray, np.ndarray]:
    start = np.array(jax.random.normal(key, (product.size,), product.dtype))
    if not np.any(product.scale_by(product(start))):  # ARPACK refuses a Hessian of 0.
        apart = np.random.default_rng(0).normal(size=(product.size, count - 1))
        basis = np.linalg.qr(np.column_stack([start, apart]))[0]
        return np.zeros(count, product.dtype), basis.astype(product.dtype)
    values, vectors = _lanczos(product, start, count, which, 0.0)
    # ARPACK multiplies the start by the matrix, so it misses an eigenvalue that is
    # exactly 0. If 0 belongs to the result, an eigenvalue of H + c I is not 0.
    sign = {"smallest": 1, "largest": -1}.get(which, 0)
    if not np.any(sign * values > 0):
        return values, vectors
    again, its_vectors = _lanczos(product, start, count, which, SHIFT)
    found = np.sort(sign * values) - np.sort(sign * again)
    clear = 100 * np.finfo(product.dtype).eps * max(1.0, np.max(np.abs(values)))
    return (again, its_vectors) if np.any(found > clear) else (values, vectors)


def _lanczos(
    product: _Product, start: np.ndarray, count: int, which: SpectrumPart, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and eigenvectors of H, computed from those of H + shift I."""
    shifted = product.dtype.type(shift)
    matvec = lambda v: product(v) + shifted * v.reshape(-1)
    operator: Any = scipy.sparse.linalg.aslinearoperator(
        types.SimpleNamespace(
            shape=(product.size, product.size), matvec=matvec, dtype=product.dtype
        )
    )
    try:
        values, vectors = scipy.sparse.linalg.eigsh(
            operator, count, which=ARPACK_NAMES[which], v0=start
        )
        return np.asarray(values) - shifted, np.asarray(vectors)
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        raise RuntimeError(
            f"The Lanczos iteration found {len(error.eigenvalues)} of {count} "
            f"eigenvalues in {product.count} products. The eigenvalues are too close "
            "to each other. Ask for more of them, so that more vectors are kept, or "
            "use float64."
        ) from error
