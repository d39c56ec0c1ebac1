"""How weights are drawn: random matrices whose size keeps signals from growing or fading as they pass the layers."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from research.checks import shown
from research.models._linear import check_drawn
from research.types import Array, Key

Initialiser = Callable[
    ..., Array
]  # (key, shape, dtype, fan_in=None, fan_out=None) -> weights of that shape


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """How many inputs each output sums, and how many outputs each input enters.

    Args:
      shape: Of weights, (..., in, out): (in, out) of a dense layer, (height, width, in, out) of a convolution, whose
        window counts on both sides.
    Returns:
      (fan_in, fan_out).
    Raises:
      ValueError: The shape has fewer than two axes, or an empty one.
    Example:
      >>> fans((784, 10)), fans((3, 3, 16, 32))
      ((784, 10), (144, 288))
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(
            f"shape must be (..., in, out), of positive lengths; got shape={tuple(shape)}. For other weights give fan_in "
            "and fan_out."
        )
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def lecun_normal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """Draws weights normal with variance 1 / fan_in: sums of unit inputs then have unit variance.

    Plain normal, as the papers have it; `jax.nn.initializers` cuts the normal off at two standard deviations and widens
    what is left to the same variance.

    Args:
      key: Typed key.
      shape: Of the weights, (..., in, out).
      dtype: Floating.
      fan_in, fan_out: Where the shape does not tell them (see `fans`).
    Returns:
      The weights.
    Raises:
      ValueError: The fans are not positive, or missing where the shape does not tell them.
    References:
      LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998, section 4.6.
    Example:
      >>> print(f"{lecun_normal(jax.random.key(0), (400, 500), jnp.float32).std():.3f}")  # 1 / √400
      0.050
    """
    return _normal(key, shape, dtype, 1 / _fans(shape, fan_in, fan_out)[0])


def lecun_uniform(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """As `lecun_normal`, but uniform: in ±√(3 / fan_in)."""
    return _uniform(key, shape, dtype, 1 / _fans(shape, fan_in, fan_out)[0])


def glorot_normal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """Draws weights normal with variance 2 / (fan_in + fan_out): between what the way forward and the way back want.

    Args, Returns, Raises:
      As in `lecun_normal`.
    References:
      Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010, eq. 12.
    Example:
      >>> print(f"{glorot_normal(jax.random.key(0), (300, 500), jnp.float32).std():.3f}")  # √(2 / 800)
      0.050
    """
    return _normal(key, shape, dtype, 2 / sum(_fans(shape, fan_in, fan_out)))


def glorot_uniform(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """As `glorot_normal`, but uniform: in ±√(6 / (fan_in + fan_out)), eq. 16 of the same paper."""
    return _uniform(key, shape, dtype, 2 / sum(_fans(shape, fan_in, fan_out)))


def he_normal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """Draws weights normal with variance 2 / fan_in: the 2 makes up for the half that ReLU cuts away.

    Args, Returns, Raises:
      As in `lecun_normal`.
    References:
      He, Zhang, Ren & Sun, Delving deep into rectifiers, ICCV 2015, eq. 10.
    Example:
      >>> print(f"{he_normal(jax.random.key(0), (800, 500), jnp.float32).std():.3f}")  # √(2 / 800)
      0.050
    """
    return _normal(key, shape, dtype, 2 / _fans(shape, fan_in, fan_out)[0])


def he_uniform(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """As `he_normal`, but uniform: in ±√(6 / fan_in)."""
    return _uniform(key, shape, dtype, 2 / _fans(shape, fan_in, fan_out)[0])


def orthogonal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Array:
    """Draws a matrix with orthonormal columns (or rows, where there are fewer of them), uniform among all such.

    It is Q of a normal matrix's QR decomposition, with R's diagonal made positive, without which Q would not be uniform.
    Axes before the last are taken as one.

    Args:
      key: Typed key.
      shape: Of the weights, (..., in, out), at least two axes.
      dtype: Floating; half precision is drawn and made orthogonal in float32, then rounded.
      fan_in, fan_out: Not used: the size is fixed by the shape.
    Returns:
      The weights.
    Raises:
      ValueError: The shape has fewer than two axes, or an empty one.
    References:
      Saxe, McClelland & Ganguli, Exact solutions to the nonlinear dynamics of learning in deep linear neural networks,
      ICLR 2014. Mezzadri, How to generate random matrices from the classical compact groups, Notices AMS 2007.
    Example:
      >>> weights = orthogonal(jax.random.key(0), (5, 3), jnp.float32)
      >>> bool(jnp.allclose(weights.T @ weights, jnp.eye(3), atol=1e-6))
      True
    """
    del fan_in, fan_out
    fans(shape)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    check_drawn(key, shape, dtype)
    tall = (max(rows, columns), min(rows, columns))
    wide = (
        dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.float32
    )  # There is no QR of half precision.
    q, r = jnp.linalg.qr(jax.random.normal(key, tall, wide))
    q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(wide)[None, :]
    return (q if rows >= columns else q.T).reshape(tuple(shape)).astype(dtype)


INITIALISERS: dict[str, Initialiser] = {
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "orthogonal": orthogonal,
}


def find_initialiser(name: str) -> Initialiser:
    """The initialiser of that name.

    Args:
      name: A key of `INITIALISERS`.
    Returns:
      (key, shape, dtype, fan_in=None, fan_out=None) -> weights.
    Raises:
      ValueError: There is none of that name.
    Example:
      >>> find_initialiser("he_normal")(jax.random.key(0), (4, 3), jnp.float32).shape
      (4, 3)
    """
    if not isinstance(name, str) or name not in INITIALISERS:
        raise ValueError(
            f"initialiser must be one of {', '.join(INITIALISERS)}; got initialiser={shown(name)}. Give its name."
        )
    return INITIALISERS[name]


def _fans(
    shape: Sequence[int], fan_in: int | None, fan_out: int | None
) -> tuple[int, int]:
    if fan_in is None or fan_out is None:
        told = fans(shape)
        fan_in, fan_out = (
            own if given is None else given
            for given, own in zip((fan_in, fan_out), told, strict=True)
        )
    if min(fan_in, fan_out) < 1:
        raise ValueError(
            f"fan_in and fan_out must be positive; got fan_in={fan_in}, fan_out={fan_out}."
        )
    return fan_in, fan_out


def _normal(key: Key, shape: Sequence[int], dtype: DTypeLike, variance: float) -> Array:
    check_drawn(key, shape, dtype)
    return math.sqrt(variance) * jax.random.normal(key, tuple(shape), dtype)


def _uniform(
    key: Key, shape: Sequence[int], dtype: DTypeLike, variance: float
) -> Array:
    """A uniform variable in ±a has variance a² / 3."""
    check_drawn(key, shape, dtype)
    return math.sqrt(3 * variance) * jax.random.uniform(key, tuple(shape), dtype, -1, 1)
