"""Linear regression, and the dense layer that the networks of this package use."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Num

from research import checks
from research.models.parameters import with_own_parameters
from research.sizes import check_most, check_room
from research.types import Array, Key, Model, Params


def linear(
    num_features: int, *, scale: float = 0.1, dtype: DTypeLike | None = None
) -> Model:
    """Build a linear model, which predicts xᵀ weights + intercept.

    Args:
      num_features: Number d of features, at least 1.
      scale: Standard deviation of the initial weights. The intercept starts at 0.
      dtype: Dtype of the parameters. None means JAX's default: float64 if JAX's 64-bit
        mode is on, otherwise float32. The same key gives different initial weights in
        float32 and in float64.
    Returns:
      A model with params {"weights": (d,), "intercept": ()}. Its apply maps x of shape
      (..., d) to predictions of shape (...).
    Raises:
      ValueError: num_features is not a positive integer, or scale is negative. In
        apply: the last axis of x does not have length d, or params belong to another
        architecture.
      TypeError: dtype is not floating, or scale is not a number.
    References:
      Bishop, Pattern Recognition and Machine Learning (2006), eq. 3.1.
    Example:
      >>> model = linear(3)
      >>> params = {"weights": jnp.array([1.0, 2.0, 3.0]), "intercept": jnp.array(0.5)}
      >>> print(model.apply(params, jnp.array([1.0, 1.0, 1.0])))
      6.5
      >>> print(model.apply(params, jnp.zeros((2, 3))))
      [0.5 0.5]
    """
    check_size("num_features", num_features, 1)
    return dense_model((num_features,), scale, dtype)


def dense_model(shape: tuple[int, ...], scale: float, dtype: DTypeLike | None) -> Model:
    """Build a model of one dense layer with weights of the given shape.

    The params are {"weights", "intercept"}. The weights have the shape (d,) for one
    number as the output, or (d, K) for K outputs. The initial weights are normal with
    the standard deviation `scale`, and the intercept starts at 0.
    """
    checks.check_real("scale", scale)
    if not scale >= 0:
        raise ValueError(
            f"scale must be at least 0; got scale={scale}. It is the standard "
            "deviation of the initial weights."
        )
    check_model_dtype(dtype)

    def init(key: Key) -> Params:
        chosen = jnp.result_type(float) if dtype is None else dtype
        check_drawn(key, shape, chosen)
        weights = draw_normal(key, shape, scale, chosen)
        return {"weights": weights, "intercept": jnp.zeros(shape[1:], dtype=chosen)}

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        del key  # The model is deterministic.
        return dense(x, params["weights"], params["intercept"])

    return with_own_parameters(init, apply)


def dense(
    x: Num[ArrayLike, "*batch d"],
    weights: Num[ArrayLike, "d *K"],
    bias: Num[ArrayLike, "*K"],
) -> Num[Array, "..."]:
    """Apply a dense layer: compute the matrix product of x and weights, plus bias.

    Internally, the leading axes of x are flattened into one, because XLA on a CPU
    multiplies two matrices faster than arrays with three axes.

    Args:
      x: Inputs, shape (..., d).
      weights: Weights, shape (d, K) for K outputs, or (d,) for one number as the
        output.
      bias: Bias, shape (K,), or () to add one number to every output.
    Returns:
      The outputs, shape (..., K), or shape (...) for weights of shape (d,).
    Raises:
      ValueError: The last axis of x does not have length d, or the bias does not fit
        the weights.
    Example:
      >>> dense(jnp.ones((5, 2, 3)), jnp.ones((3, 4)), jnp.zeros(4)).shape
      (5, 2, 4)
    """
    for name, value in (("x", x), ("weights", weights), ("bias", bias)):
        checks.check_numbers(name, value)
    x, weights = jnp.asarray(x), jnp.asarray(weights)
    if weights.ndim == 0 or jnp.shape(bias) not in ((), weights.shape[1:]):
        raise ValueError(
            "weights must have shape (d, ...). The bias must have the shape of weights "
            "without its first axis, or (). Got weights of shape "
            f"{weights.shape} and bias of shape {jnp.shape(bias)}."
        )
    num_features = weights.shape[0]
    if x.ndim == 0 or x.shape[-1] != num_features:
        raise ValueError(
            f"x must end in an axis of {num_features} features, for weights of shape "
            f"{weights.shape}; got x of shape {x.shape}. Transpose or reshape x: one "
            f"example has shape ({num_features},), a batch (n, {num_features})."
        )
    product = x.reshape(-1, num_features) @ weights
    return (product + jnp.broadcast_to(bias, product.shape)).reshape(
        *x.shape[:-1], *weights.shape[1:]
    )


def check_drawn(key: Key, shape: Sequence[int], dtype: DTypeLike) -> None:
    """Raise ValueError if an array needs more than half of this machine's memory.

    Call this function before an array of this shape and dtype is drawn with the key. If
    the key is traced (under jit), nothing is checked.
    """
    if not isinstance(key, Tracer):
        check_room(
            f"parameters of shape {tuple(shape)}",
            *shape,
            itemsize=jnp.dtype(dtype).itemsize,
        )


def at_least_single(dtype: DTypeLike) -> Any:
    """Return float32 for half precision, and any other dtype unchanged.

    Random numbers are drawn in this dtype, because half precision is too coarse: in
    bfloat16, `jax.random.normal` and `jax.random.uniform` have only 128 values, and
    the mean of these values is not 0.
    """
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype


def draw_normal(
    key: Key, shape: Sequence[int], scale: float, dtype: DTypeLike
) -> Float[Array, "..."]:
    """Draw normal numbers with mean 0 and the standard deviation `scale`.

    For half precision, the numbers are drawn in float32 and rounded.
    """
    wide = at_least_single(dtype)
    drawn = jnp.asarray(scale, wide) * jax.random.normal(key, tuple(shape), wide)
    return drawn.astype(dtype)


def check_model_dtype(dtype: DTypeLike | None) -> None:
    """Raise TypeError unless dtype is floating, or None for JAX's default."""
    if dtype is not None:
        checks.check_dtype("dtype", dtype)


def check_sizes(name: str, values: Sequence[int]) -> None:
    """Raise ValueError unless values is a sequence of positive integers.

    `name` is the name of the argument in the message.
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(
            f"{name} must be a sequence of positive integers; got {name}={values!r}. "
            f"Pass ({values},) for a single one."
        )
    for i, value in enumerate(values):
        check_size(f"{name}[{i}]", value, 1)


def check_size(name: str, value: int, least: int) -> None:
    """Raise ValueError unless value is an integer in least..2**31 - 1.

    `name` is the name of the argument in the message.
    """
    checks.check_count(name, value, least)
    check_most(**{name: value})
