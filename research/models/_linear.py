"""Linear regression, and the dense product that every model here is made of."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from research import checks
from research.models.parameters import with_own_parameters
from research.sizes import check_most, check_room
from research.types import Array, Key, Model, Params


def linear(
    num_features: int, *, scale: float = 0.1, dtype: DTypeLike | None = None
) -> Model:
    """The linear model: the prediction is xᵀ weights + intercept.

    Args:
      num_features: d, at least 1.
      scale: Standard deviation of the drawn weights; the intercept starts at 0.
      dtype: Of the parameters; None means JAX's default, float32 unless 64-bit is on (other draws then: name the dtype
        where the initial point must not depend on that flag).
    Returns:
      A model with params {"weights": (d,), "intercept": ()}; its apply maps x of shape (..., d) to (...).
    Raises:
      ValueError: num_features is not a positive integer, or scale is negative; in apply, x does not end in d features, or
        params are those of another architecture.
    References:
      Bishop, Pattern Recognition and Machine Learning (2006), eq. 3.1.
    Example:
      >>> model = linear(3)
      >>> params = {"weights": jnp.array([1.0, 2.0, 3.0]), "intercept": jnp.array(0.5)}
      >>> print(model.apply(params, jnp.array([1.0, 1.0, 1.0])), model.apply(params, jnp.zeros((2, 3))))
      6.5 [0.5 0.5]
    """
    check_count("num_features", num_features, 1)
    return dense_model((num_features,), scale, dtype)


def dense_model(shape: tuple[int, ...], scale: float, dtype: DTypeLike | None) -> Model:
    """One `dense` layer as a model: weights of the given shape, drawn normal; an intercept of the outputs' shape, 0."""
    checks.check_real("scale", scale)
    if not scale >= 0:
        raise ValueError(
            f"scale must not be negative; got scale={scale}. It is the weights' standard deviation."
        )
    check_model_dtype(dtype)

    def init(key: Key) -> Params:
        chosen = jnp.result_type(float) if dtype is None else dtype
        check_drawn(key, shape, chosen)
        weights = jnp.asarray(scale, chosen) * jax.random.normal(
            key, shape, dtype=chosen
        )
        return {"weights": weights, "intercept": jnp.zeros(shape[1:], dtype=chosen)}

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        del key  # Nothing here is drawn.
        return dense(x, params["weights"], params["intercept"])

    return with_own_parameters(init, apply)


def dense(x: ArrayLike, weights: ArrayLike, intercept: ArrayLike) -> Array:
    """The product x weights + intercept, with the leading axes of x flattened into one.

    XLA's CPU backend multiplies and differentiates matrices at about twice the speed of the same numbers with three
    axes, which is also what vmap of a model of one example would make.

    Args:
      x: Shape (..., d), any leading axes, none included.
      weights: Shape (d, K), or (d,) for one output without an axis.
      intercept: Shape (K,), or ().
    Returns:
      Shape (..., K), or (...).
    Raises:
      ValueError: x does not end in an axis of length d.
    Example:
      >>> dense(jnp.ones((5, 2, 3)), jnp.ones((3, 4)), jnp.zeros(4)).shape
      (5, 2, 4)
    """
    for name, value in (("x", x), ("weights", weights), ("intercept", intercept)):
        checks.check_numbers(name, value)
    x, weights = jnp.asarray(x), jnp.asarray(weights)
    if weights.ndim == 0 or jnp.shape(intercept) not in ((), weights.shape[1:]):
        raise ValueError(
            f"weights must have shape (d, ...) and intercept that of the outputs, or (); got weights of shape {weights.shape} "
            f"and intercept of shape {jnp.shape(intercept)}."
        )
    num_features = weights.shape[0]
    if x.ndim == 0 or x.shape[-1] != num_features:
        raise ValueError(
            f"x must end in an axis of {num_features} features, for weights of shape {weights.shape}; got x of shape "
            f"{x.shape}. One example has shape ({num_features},), a batch (n, {num_features}): transpose or reshape x."
        )
    product = x.reshape(-1, num_features) @ weights
    return (product + jnp.broadcast_to(intercept, product.shape)).reshape(
        *x.shape[:-1], *weights.shape[1:]
    )


def check_drawn(key: Key, shape: Sequence[int], dtype: DTypeLike) -> None:
    """Refuses parameters that memory could not hold; a key that is traced draws nothing, and any shape may be asked for."""
    if not isinstance(key, Tracer):
        check_room(
            f"parameters of shape {tuple(shape)}",
            *shape,
            itemsize=jnp.dtype(dtype).itemsize,
        )


def check_model_dtype(dtype: DTypeLike | None) -> None:
    """Refuses what names no floating dtype; None means JAX's default."""
    if dtype is not None:
        checks.check_dtype("dtype", dtype)


def check_counts(name: str, values: Sequence[int]) -> None:
    """Refuses anything but a sequence of positive integers."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(
            f"{name} must be a sequence of positive integers; got {name}={values!r}. A single one: ({values},)."
        )
    for i, value in enumerate(values):
        check_count(f"{name}[{i}]", value, 1)


def check_count(name: str, value: int, least: int) -> None:
    """Refuses anything but an integer of at least `least`."""
    checks.check_count(name, value, least)
    check_most(**{name: value})
