"""Next-token losses of a language model on a text, as an objective and as a metric."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from research.checks import check_leaves_not_deleted, check_numbers
from research.models._linear import check_size
from research.models.embedding import check_every, check_tokens
from research.models.images import check_model
from research.sizes import check_room
from research.types import Array, Batch, Key, Model, Params


def next_token_losses(
    model: Model, tokens: Int[ArrayLike, "N"], context: int
) -> Callable[..., Float[Array, "n context"]]:
    """Build a function that computes the loss of each next token in windows of a text.

    A window is a part of the text: context + 1 successive tokens. Let w_0, w_1, ... be
    the tokens of the text, s the index at which a window starts, and p the probability
    that the model gives to a token. The loss at position i = 0, ..., context - 1 of
    this window is -log p(w_{s+i+1} | w_s, ..., w_{s+i}), in nats. The returned function
    gets only the starts s and takes the tokens from the text, so the dataset of all
    windows is not stored.

    Args:
      model: Model that maps tokens, integers of shape (..., T), to logits of shape
        (..., T, V), where V is the number of possible tokens. The logits at a position
        may depend only on tokens up to this position.
      tokens: Tokens of the text, integers in 0..V - 1, shape (N,).
      context: Number T of tokens that the model reads. A window has one token more,
        because the last loss needs the token after the context.
    Returns:
      A function (params, starts, key=None) -> losses, shape (n, context). `starts` are
      the first indices of n windows: integers in 0..N - context - 1, shape (n,), for
      example from `research.datasets.window_starts`. The function does not check this
      range. It passes `key` to the model.
    Raises:
      ValueError: context is not a positive integer, or tokens is not an array of
        integers with one axis and at least context + 1 entries. The returned function
        raises ValueError if a token lies outside 0..V - 1, or if the model does not
        return logits for each token.
    References:
      Bengio, Ducharme, Vincent & Jauvin, A neural probabilistic language model, JMLR
      2003, section 2.
    Example:
      >>> uniform = lambda params, x, key=None: jnp.zeros((*x.shape, 4))
      >>> model = Model(lambda key: None, uniform)
      >>> losses = next_token_losses(model, jnp.array([0, 3, 1, 2]), 2)
      >>> print(losses(None, jnp.array([0, 1])).round(4))  # log 4
      [[1.3863 1.3863]
       [1.3863 1.3863]]
    """
    check_model(model)
    check_size("context", context, 1)
    check_numbers("tokens", tokens)
    text = jnp.asarray(tokens)
    if (
        text.ndim != 1
        or not jnp.issubdtype(text.dtype, jnp.integer)
        or len(text) <= context
    ):
        raise ValueError(
            f"tokens must be at least context + 1 = {context + 1} integers along one "
            f"axis; got dtype {text.dtype}, shape {text.shape}."
        )

    def losses(params: Params, starts: ArrayLike, key: Key | None = None) -> Array:
        check_numbers("starts", starts, ndim=1, kinds="iu")
        starts = jnp.asarray(starts)
        # The position of a token may not fit into 8 or 16 bits.
        starts = starts.astype(jnp.promote_types(starts.dtype, jnp.int32))
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
    model: Model, tokens: Int[ArrayLike, "N"], context: int
) -> Callable[[Params, Batch], Float[Array, ""]]:
    """Build the objective of a language model: the mean next-token loss of a batch.

    The losses of the tokens are those of `next_token_losses`, in windows of successive
    tokens. In the example, the model gives each of the four tokens the same
    probability, so the mean loss is log 4.

    Args, Raises:
      As in `next_token_losses`.
    Returns:
      A function (params, batch) -> mean loss, shape (). batch.x contains the starts of
      the windows, shape (n,). batch.y is not used. batch.key is passed to the model.
    Example:
      >>> uniform = lambda params, x, key=None: jnp.zeros((*x.shape, 4))
      >>> model, starts = Model(lambda key: None, uniform), jnp.array([0, 1])
      >>> risk = next_token_risk(model, jnp.array([0, 3, 1, 2]), 2)
      >>> print(risk(None, Batch(starts, starts)).round(4))
      1.3863
    """
    losses = next_token_losses(model, tokens, context)
    return lambda params, batch: jnp.mean(losses(params, batch.x, batch.key))


def reader(
    model: Model, tokens: Int[ArrayLike, "N"], context: int, *, slice_size: int = 128
) -> Callable[..., Float[np.ndarray, "n context"]]:
    """Build a function that computes `next_token_losses` in slices of windows.

    A window consists of context + 1 consecutive tokens. A slice consists of slice_size
    windows. The function accepts any number of windows, and computes the losses of one
    slice at a time. All slices have the same size, so the computation of a slice is
    compiled only once. The computation needs only the memory of one slice.

    Args:
      model, tokens, context: As in `next_token_losses`.
      slice_size: Number of windows in a slice. The last slice is padded with copies of
        the last window.
    Returns:
      A function (params, starts) -> float64 losses, shape (n, context). `starts` are
      the positions in `tokens` where the n windows start, integers of shape (n,),
      n >= 1. The function loops in Python and cannot be traced by JAX.
    Raises:
      ValueError: As in `next_token_losses`, or slice_size is not a positive integer.
        The returned function raises ValueError if there are no starts, or if a start
        lies outside 0..N - context - 1 for N tokens.
    Example:
      >>> uniform = lambda params, x, key=None: jnp.zeros((*x.shape, 4))
      >>> model = Model(lambda key: None, uniform)
      >>> read = reader(model, jnp.zeros(9, "int32"), 2, slice_size=2)
      >>> read(None, np.arange(5)).shape
      (5, 2)
    """
    check_size("slice_size", slice_size, 1)
    check_size("context", context, 1)
    check_room(
        f"slice_size={slice_size} and context={context}", slice_size, context + 1
    )
    compiled = jax.jit(next_token_losses(model, tokens, context))
    last = np.shape(tokens)[0] - context - 1

    def read(params: Params, starts: np.ndarray) -> np.ndarray:
        check_leaves_not_deleted("params", params)
        check_numbers("starts", starts, ndim=1, kinds="iu")
        starts = np.asarray(starts)
        if not len(starts) or np.min(starts) < 0 or np.max(starts) > last:
            raise ValueError(
                f"starts must be at least one number, all in 0..{last}, so that "
                f"windows of {context} tokens lie inside the text."
            )
        padded = np.concatenate(
            [starts, np.repeat(starts[-1:], -len(starts) % slice_size)]
        )
        slices = [compiled(params, part) for part in padded.reshape(-1, slice_size)]
        return np.concatenate(slices)[: len(starts)].astype(float)

    return read
