"""Checks of the arguments of a loss, and their error messages."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from research.checks import check_not_deleted, check_numbers, is_traced, shown


def floating(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """Return a value as an array, or raise TypeError if it is not floating.

    `name` is the name of the value in the message.
    """
    array = numeric(name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating; got dtype {array.dtype}. Convert first: "
            f"{name}.astype(jnp.float32)."
        )
    return array


def numeric(name: str, value: ArrayLike) -> Num[Array, "..."]:
    """Return a value as an array, or raise TypeError if it does not hold numbers.

    `name` is the name of the value in the message. For a deleted array of JAX,
    RuntimeError is raised.
    """
    if not isinstance(value, jax.Array) or not is_traced(value):
        check_not_deleted(name, value)
        check_numbers(name, value)
    return jnp.asarray(value)


def wide(label: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Return an integer label, converted to 32 bits if its dtype has fewer bits.

    When JAX compares a label with the number of classes, JAX converts the number of
    classes to the dtype of the label. For example, an int8 label cannot be compared
    with 200 classes, because the largest int8 is 127.
    """
    return label if label.dtype.itemsize >= 4 else label.astype(jnp.int32)


def one_or_nan(
    valid: Bool[Array, "*shape"], dtype: DTypeLike
) -> Float[Array, "*shape"]:
    """Return a factor for the loss: 1 where a label is valid, else NaN.

    The factor also makes the gradient NaN. With `jnp.where(valid, loss, jnp.nan)`, the
    gradient would be 0, so training would continue and silently ignore the example.
    """
    return jnp.where(valid, jnp.asarray(1, dtype), jnp.asarray(jnp.nan, dtype))


def one_example(
    wanted: str,
    first: Num[Array, "..."],
    second: Num[Array, "..."],
    ranks: tuple[int, int] | None = None,
    hint: str = "",
) -> str:
    """Return the error message for arguments whose shapes are not those of one example.

    Args:
      wanted: Shapes that are expected, in words.
      first, second: The two arguments of the loss.
      ranks: Ranks of the two arguments for one example. If both arguments have a higher
        rank, and first axes of equal length, they are probably a batch. The message
        then advises jax.vmap. None means that any rank is allowed.
      hint: Last sentence of the message if the arguments are not a batch. "" stands
        for the sentence "Give them these shapes."
    """
    is_batch = (
        ranks is not None
        and first.ndim > ranks[0]
        and second.ndim > ranks[1]
        and first.shape[0] == second.shape[0]
    )
    advice = "Use jax.vmap for a batch." if is_batch else hint
    return (
        f"A loss takes one example, {wanted}; got shapes {first.shape} and "
        f"{second.shape}. {advice or 'Give them these shapes.'}"
    )


def check_terms(
    shape: tuple[int, ...],
    of: str,
    where: Bool[ArrayLike, "..."] | None,
    weights: Num[ArrayLike, "..."] | None,
) -> None:
    """Raise an error unless `where` and `weights` of a loss have the required shape.

    Args:
      shape: Required shape, that of another argument of the loss.
      of: Name of this other argument, such as "logits", for the message.
      where: Booleans. None is not checked.
      weights: Numbers. None is not checked. Concrete weights must be finite and at
        least 0.
    Raises:
      ValueError: `where` or `weights` has another shape, or a concrete weight is
        negative or not finite.
      TypeError: `where` is not boolean, or `weights` are not numbers.
    """
    for name, value in (("where", where), ("weights", weights)):
        if value is None:
            continue
        numeric(name, value)
        if np.shape(value) != shape:  # JAX's function takes no lists.
            raise ValueError(
                f"{name} must have the shape {shape} of the {of}; got "
                f"{np.shape(value)}."
                + (" Use jax.vmap for a batch." if np.ndim(value) > len(shape) else "")
            )
    if where is not None and jnp.asarray(where).dtype != bool:
        raise TypeError(
            "where must be boolean, True for what counts; got dtype "
            f"{jnp.asarray(where).dtype}. Pass where != 0, or use weights."
        )
    if weights is not None and not is_traced(weights):
        values = np.asarray(weights)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(
                f"weights must be finite and at least 0; got weights={shown(weights)}."
            )


def only(
    where: Bool[ArrayLike, "*shape"] | None, *arrays: Num[Array, "*shape"]
) -> tuple[Num[Array, "*shape"], ...]:
    """Return the arrays, with their entries replaced by 0 where `where` is False.

    A NaN at such an entry then has no effect. If `where` is None, the arrays are
    unchanged.
    """
    if where is None:
        return arrays
    where = jnp.asarray(where)
    return tuple(jnp.where(where, array, jnp.zeros_like(array)) for array in arrays)


def weighted(
    terms: Float[Array, "*shape"],
    where: Bool[ArrayLike, "*shape"] | None,
    weights: Num[ArrayLike, "*shape"] | None,
) -> Float[Array, "*shape"]:
    """Return terms times their weights, and 0 where `where` is False.

    `where` = None means that `where` is True everywhere. `weights` = None means that
    all weights are 1.
    """
    (terms,) = only(where, terms)
    return terms if weights is None else terms * jnp.asarray(weights, terms.dtype)


def negative_absolute(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return -|x|, with the derivative +1 at 0.

    JAX's derivative of -jnp.abs(x) at 0 is -1. `logistic` and `focal` add a function of
    -|x| and a second term with a kink at 0. The two kinks cancel, so the sum has a
    derivative at 0. For the second term, JAX's derivative at 0 is the limit from x < 0.
    The derivative of the sum is correct only if the derivative of -|x| at 0 is its
    limit from x < 0 as well, which is +1.
    """
    return jnp.where(x > 0, -x, x)
