"""Windows of a text: their start positions and their tokens."""

import numpy as np
from jaxtyping import Int, Int32

from research.checks import check_count, check_numbers


def window_starts(
    num_tokens: int, context: int, *, stride: int | None = None, offset: int = 0
) -> Int32[np.ndarray, "n"]:
    """Compute the start positions of windows of context + 1 tokens.

    A model reads the first `context` tokens of a window. After each of these tokens,
    the model predicts the next token. If the stride is `context` and the offset is 0,
    every token of the text is predicted once. The exceptions are the first token and
    the tokens at the end that do not fill a window. If the stride is 1 and the offset
    is 0, the result contains all possible starts.

    Args:
      num_tokens: Number T of tokens of the text.
      context: Number of tokens that the model reads, at least 1.
      stride: Distance between two starts, at least 1. None means `context`.
      offset: Start of the first window, at least 0.
    Returns:
      The starts, int32, shape (n,) with n >= 1.
    Raises:
      ValueError: An argument is out of range, or the text is shorter than a window.
    Example:
      >>> window_starts(10, 3), window_starts(10, 3, stride=2)
      (array([0, 3, 6], dtype=int32), array([0, 2, 4, 6], dtype=int32))
    """
    stride = context if stride is None else stride
    check_count("num_tokens", num_tokens, 0)
    for name, value, least in (
        ("context", context, 1),
        ("stride", stride, 1),
        ("offset", offset, 0),
    ):
        check_count(name, value, least)
    if num_tokens < offset + context + 1:
        raise ValueError(
            f"a window needs context + 1 = {context + 1} tokens from offset={offset} "
            f"on, but the text has num_tokens={num_tokens}. Use a longer text or a "
            "shorter context."
        )
    if num_tokens >= 2**31:
        raise ValueError(
            "num_tokens must be below 2**31, because starts are int32; got "
            f"num_tokens={num_tokens}."
        )
    return np.arange(offset, num_tokens - context, stride, dtype=np.int32)


def windows(
    tokens: Int[np.ndarray, "T"], starts: Int[np.ndarray, "n"], context: int
) -> Int[np.ndarray, "n context+1"]:
    """Return the tokens of each window.

    A window has context + 1 consecutive tokens of a text.

    Args:
      tokens: Tokens of the text, shape (T,).
      starts: Start positions from `window_starts`, shape (n,).
      context: Number of tokens that the model reads, as in `window_starts`.
    Returns:
      The windows, shape (n, context + 1), in the dtype of the tokens. Columns
      0..context - 1 are the inputs, and columns 1..context are the targets.
    Raises:
      ValueError: A window would not lie inside the text.
    Example:
      >>> windows(np.arange(10), window_starts(10, 3), 3)
      array([[0, 1, 2, 3],
             [3, 4, 5, 6],
             [6, 7, 8, 9]])
    """
    check_numbers("tokens", tokens, ndim=1)
    check_numbers("starts", starts, ndim=1, kinds="iu")
    check_count("context", context)
    tokens, starts = np.asarray(tokens), np.asarray(starts)
    if context >= len(tokens) and starts.size:
        raise ValueError(
            f"context must be smaller than the number of tokens, {len(tokens)}; got "
            f"context={context!r}."
        )
    outside = starts[(starts < 0) | (starts > len(tokens) - context - 1)]
    if outside.size:
        raise ValueError(
            f"starts must lie in 0..{len(tokens) - context - 1} for {len(tokens)} "
            f"tokens and windows of {context + 1}; got {outside[0]}."
        )
    return tokens[starts.astype(np.int64)[:, None] + np.arange(context + 1)]
