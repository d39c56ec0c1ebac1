"""Random initial weights whose variance keeps signals stable across layers."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from research.checks import shown
from research.models._linear import at_least_single, check_drawn, draw_normal
from research.types import Array, Key

# (key, shape, dtype, fan_in=None, fan_out=None) -> weights of that shape
Initialiser = Callable[..., Array]


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Compute the fan-in and the fan-out of weights.

    The fan-in is the number of inputs per output, and the fan-out is the number of
    outputs per input.

    Args:
      shape: Shape of the weights: (in, out) for a dense layer, (height, width, in, out)
        for a convolution. Both fans of a convolution contain the factor height * width.
    Returns:
      The pair (fan_in, fan_out).
    Raises:
      ValueError: The shape has fewer than two axes, or an axis of length 0.
    Example:
      >>> fans((784, 10)), fans((3, 3, 16, 32))
      ((784, 10), (144, 288))
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(
            "shape must be (..., in, out) with positive lengths; got "
            f"shape={tuple(shape)}. For other shapes pass fan_in and fan_out."
        )
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def lecun_normal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw normal weights with variance 1 / fan_in.

    With these weights, a layer whose inputs have mean 0 and variance 1 has outputs of
    variance 1, averaged over the random weights. The distribution is not truncated. In
    contrast, `jax.nn.initializers.lecun_normal` truncates the distribution at two
    standard deviations, and rescales it to the same variance.

    Args:
      key: Typed key.
      shape: Shape (..., in, out) of the weights.
      dtype: Floating dtype. For half precision, the weights are drawn in float32 and
        rounded. Numbers drawn in bfloat16 have only 128 values, whose mean is not 0.
      fan_in, fan_out: Number of inputs per output, and number of outputs per input.
        None means that `fans` computes the number from the shape.
    Returns:
      The weights.
    Raises:
      ValueError: A fan is not positive, or a fan is None and the shape has fewer than
        two axes.
    References:
      LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998, section 4.6.
    Example:
      >>> weights = lecun_normal(jax.random.key(0), (400, 500), jnp.float32)
      >>> print(f"{weights.std():.3f}")  # 1 / √400
      0.050
    """
    return _normal(key, shape, dtype, 1 / _fans(shape, fan_in, fan_out)[0])


def lecun_uniform(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw uniform weights between ±√(3 / fan_in), with the variance of `lecun_normal`.

    Arguments, result and errors are as in `lecun_normal`.
    """
    return _uniform(key, shape, dtype, 1 / _fans(shape, fan_in, fan_out)[0])


def glorot_normal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw normal weights with variance 2 / (fan_in + fan_out).

    This variance is a compromise. With the variance 1 / fan_in, the forward pass keeps
    the variance of the activations. With the variance 1 / fan_out, the backward pass
    keeps the variance of the gradients.

    Args, Returns, Raises:
      As in `lecun_normal`.
    References:
      Glorot & Bengio, Understanding the difficulty of training deep feedforward neural
      networks, AISTATS 2010, eq. 12.
    Example:
      >>> weights = glorot_normal(jax.random.key(0), (300, 500), jnp.float32)
      >>> print(f"{weights.std():.3f}")  # √(2 / 800)
      0.050
    """
    return _normal(key, shape, dtype, 2 / sum(_fans(shape, fan_in, fan_out)))


def glorot_uniform(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw uniform weights between ±√(6 / (fan_in + fan_out)).

    The variance of the weights equals that of `glorot_normal`. Arguments, result and
    errors are as in `lecun_normal`.

    References:
      Glorot & Bengio, as for `glorot_normal`, eq. 16.
    """
    return _uniform(key, shape, dtype, 2 / sum(_fans(shape, fan_in, fan_out)))


def he_normal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw normal weights with variance 2 / fan_in.

    ReLU sets about half of its inputs to 0, which halves the mean of their squares. The
    factor 2 compensates for this.

    Args, Returns, Raises:
      As in `lecun_normal`.
    References:
      He, Zhang, Ren & Sun, Delving deep into rectifiers, ICCV 2015, eq. 10.
    Example:
      >>> weights = he_normal(jax.random.key(0), (800, 500), jnp.float32)
      >>> print(f"{weights.std():.3f}")  # √(2 / 800)
      0.050
    """
    return _normal(key, shape, dtype, 2 / _fans(shape, fan_in, fan_out)[0])


def he_uniform(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw uniform weights between ±√(6 / fan_in), with the variance of `he_normal`.

    Arguments, result and errors are as in `lecun_normal`.
    """
    return _uniform(key, shape, dtype, 2 / _fans(shape, fan_in, fan_out)[0])


def orthogonal(
    key: Key,
    shape: Sequence[int],
    dtype: DTypeLike,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Float[Array, "..."]:
    """Draw a matrix with orthonormal columns (rows, if it has fewer rows than columns).

    The columns of the matrix belong to the last axis of the shape, and the rows to all
    other axes, which are joined into one axis. The matrix is uniformly distributed
    among all such matrices. To draw the matrix, a matrix of standard normal numbers is
    decomposed into Q R. The signs of the columns of Q are chosen so that the diagonal
    of R is positive. The result is Q, or Qᵀ if there are fewer rows than columns.

    Args:
      key: Typed key.
      shape: Shape (..., in, out) of the weights, at least two axes.
      dtype: Floating dtype. For half precision, the matrix is computed in float32 and
        rounded.
      fan_in, fan_out: Ignored. All initialisers have these arguments.
    Returns:
      The weights.
    Raises:
      ValueError: The shape has fewer than two axes, or an axis of length 0.
    References:
      Saxe, McClelland & Ganguli, Exact solutions to the nonlinear dynamics of learning
      in deep linear neural networks, ICLR 2014.
      Mezzadri, How to generate random matrices from the classical compact groups,
      Notices AMS 2007.
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
    wide = at_least_single(dtype)  # JAX has no QR decomposition in half precision.
    q, r = jnp.linalg.qr(jax.random.normal(key, tall, wide))
    q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(wide)[None, :]
    return (q if rows >= columns else q.T).reshape(tuple(shape)).astype(dtype)


# Name -> function (key, shape, dtype) that draws the weights of a layer.
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
    """Return the initialiser that has this name in `INITIALISERS`.

    An initialiser is a function that draws the initial weights of a layer.

    Args:
      name: A key of `INITIALISERS`, such as "he_normal".
    Returns:
      The function (key, shape, dtype, fan_in=None, fan_out=None) -> weights. The
      docstring of `lecun_normal` explains these arguments.
    Raises:
      ValueError: The name is unknown.
    Example:
      >>> find_initialiser("he_normal")(jax.random.key(0), (4, 3), jnp.float32).shape
      (4, 3)
    """
    if not isinstance(name, str) or name not in INITIALISERS:
        raise ValueError(
            f"initialiser must be one of {', '.join(INITIALISERS)}; got "
            f"initialiser={shown(name)}. Pass one of these names."
        )
    return INITIALISERS[name]


def _fans(
    shape: Sequence[int], fan_in: int | None, fan_out: int | None
) -> tuple[int, int]:
    if fan_in is None or fan_out is None:
        default = fans(shape)
        fan_in, fan_out = (
            own if given is None else given
            for given, own in zip((fan_in, fan_out), default, strict=True)
        )
    if min(fan_in, fan_out) < 1:
        raise ValueError(
            f"fan_in and fan_out must be positive; got fan_in={fan_in}, "
            f"fan_out={fan_out}."
        )
    return fan_in, fan_out


def _normal(key: Key, shape: Sequence[int], dtype: DTypeLike, variance: float) -> Array:
    check_drawn(key, shape, dtype)
    return draw_normal(key, shape, math.sqrt(variance), dtype)


def _uniform(
    key: Key, shape: Sequence[int], dtype: DTypeLike, variance: float
) -> Array:
    """Draw uniform weights between ±√(3 variance), which have the given variance."""
    check_drawn(key, shape, dtype)
    drawn = jax.random.uniform(key, tuple(shape), at_least_single(dtype), -1, 1)
    return (math.sqrt(3 * variance) * drawn).astype(dtype)
