"""How well a language model reads a text: the loss of every next token, in windows; as an objective, and as a measure."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from research.checks import check_numbers
from research.models._linear import check_count
from research.models.embedding import check_every, check_tokens
from research.models.images import check_model
from research.sizes import check_room
from research.types import Array, Batch, Key, Model, Params


def next_token_losses(
    model: Model, tokens: ArrayLike, context: int
) -> Callable[..., Array]:
    """What each position of a window costs: -log p(w_{s+i+1} | w_s, ..., w_{s+i}), i = 0, ..., context - 1, in nats.

    A batch is where its windows start, so that it costs no memory: the tokens are gathered on the device, from the one
    array that the program keeps.

    Args:
      model: Of integers (..., T) to logits (..., T, V), in which a logit depends on nothing that stands after it.
      tokens: The text w, integers in 0..V - 1, shape (N,).
      context: T, the tokens that are read; a window has one more.
    Returns:
      (params, starts, key=None) -> the losses, shape (n, context), for starts s of shape (n,) in 0..N - context - 1, as
      `research.datasets.window_starts` gives them.
    Raises:
      ValueError: context is not a positive integer, the text is shorter than a window, a token is no symbol of the
        model, or the model gives no logits after each token.
    References:
      Bengio, Ducharme, Vincent & Jauvin, A neural probabilistic language model, JMLR 2003, section 2.
    Example:
      >>> alike = Model(lambda key: None, lambda params, x, key=None: jnp.zeros((*x.shape, 4)))
      >>> print(next_token_losses(alike, jnp.array([0, 3, 1, 2]), 2)(None, jnp.array([0, 1])).round(4))  # log 4
      [[1.3863 1.3863]
       [1.3863 1.3863]]
    """
    check_model(model)
    check_count("context", context, 1)
    check_numbers("tokens", tokens)
    text = jnp.asarray(tokens)
    if (
        text.ndim != 1
        or not jnp.issubdtype(text.dtype, jnp.integer)
        or len(text) <= context
    ):
        raise ValueError(
            f"tokens must be integers along one axis, at least context + 1 = {context + 1}; got {text.dtype}"
            f"{list(text.shape)}."
        )

    def losses(params: Params, starts: ArrayLike, key: Key | None = None) -> Array:
        check_numbers("starts", starts, ndim=1, kinds="iu")
        starts = jnp.asarray(starts)
        windows = text[
            starts[:, None] + jnp.arange(context + 1, dtype=starts.dtype)[None]
        ]
        log_probabilities = jax.nn.log_softmax(
            model.apply(params, windows[:, :-1], key)
        )
        check_every(log_probabilities.shape, windows[:, :-1].shape)
        if not isinstance(tokens, Tracer):
            check_tokens(np.asarray(tokens), log_probabilities.shape[-1])
        return -jnp.take_along_axis(log_probabilities, windows[:, 1:, None], axis=-1)[
            ..., 0
        ]

    return losses


def next_token_risk(
    model: Model, tokens: ArrayLike, context: int
) -> Callable[[Params, Batch], Array]:
    """The objective of a language model: the mean of `next_token_losses` over the batch's windows and their positions.

    Args, Raises:
      As in `next_token_losses`.
    Returns:
      (params, batch) -> (), where batch.x are starts, shape (n,); batch.y is not used, and batch.key is the model's.
    Example:
      >>> alike = Model(lambda key: None, lambda params, x, key=None: jnp.zeros((*x.shape, 4)))
      >>> starts = jnp.array([0, 1])
      >>> print(next_token_risk(alike, jnp.array([0, 3, 1, 2]), 2)(None, Batch(starts, starts)).round(4))
      1.3863
    """
    losses = next_token_losses(model, tokens, context)
    return lambda params, batch: jnp.mean(losses(params, batch.x, batch.key))


def reader(
    model: Model, tokens: ArrayLike, context: int, *, slice_size: int = 128
) -> Callable[..., np.ndarray]:
    """`next_token_losses` of any number of windows, compiled once, with the memory of slice_size windows.

    Args:
      model, tokens, context: As in `next_token_losses`.
      slice_size: Windows at a time; where fewer are left, the last is repeated.
    Returns:
      (params, starts) -> float64 losses, shape (n, context), n >= 1. It loops in Python and is not to be traced.
    Raises:
      ValueError: As `next_token_losses`; slice_size is not a positive integer.
    Example:
      >>> alike = Model(lambda key: None, lambda params, x, key=None: jnp.zeros((*x.shape, 4)))
      >>> reader(alike, jnp.zeros(9, "int32"), 2, slice_size=2)(None, np.arange(5)).shape
      (5, 2)
    """
    check_count("slice_size", slice_size, 1)
    check_room(
        f"slice_size={slice_size} and context={context}", slice_size, context + 1
    )
    compiled = jax.jit(next_token_losses(model, tokens, context))

    def read(params: Params, starts: np.ndarray) -> np.ndarray:
        check_numbers("starts", starts, ndim=1, kinds="iu")
        starts = np.asarray(starts)
        last = len(np.asarray(tokens)) - context - 1
        if not len(starts) or np.min(starts) < 0 or np.max(starts) > last:
            raise ValueError(
                f"starts must be at least one of 0..{last}, where a window of {context} tokens begins."
            )
        padded = np.concatenate(
            [starts, np.repeat(starts[-1:], -len(starts) % slice_size)]
        )
        slices = [compiled(params, part) for part in padded.reshape(-1, slice_size)]
        return np.concatenate(slices)[: len(starts)].astype(float)

    return read
