"""Windows of a text: where they start, and the tokens in them."""

import numpy as np

from research.checks import check_count, check_numbers


def window_starts(
    num_tokens: int, context: int, *, stride: int | None = None, offset: int = 0
) -> np.ndarray:
    """Where windows of context + 1 tokens start: context to read, each with the one that follows it to be predicted.

    A stride of `context` predicts each token of the text once, but for the first and a rest at the end that is shorter
    than a window. A stride of 1 gives every window.

    Args:
      num_tokens: T, the length of the text.
      context: How many tokens are read, at least 1.
      stride: From one start to the next, at least 1; None means `context`.
      offset: The first start, at least 0.
    Returns:
      int32, shape (n,), n >= 1.
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
            f"a window takes context + 1 = {context + 1} tokens from offset={offset} on, but the text has "
            f"{num_tokens}. Give a longer text or a shorter context."
        )
    if num_tokens >= 2**31:
        raise ValueError(
            f"num_tokens must be below 2**31, for starts to be int32; got num_tokens={num_tokens}."
        )
    return np.arange(offset, num_tokens - context, stride, dtype=np.int32)


def windows(tokens: np.ndarray, starts: np.ndarray, context: int) -> np.ndarray:
    """The tokens of each window.

    Args:
      tokens: Shape (T,).
      starts: From `window_starts`, shape (n,).
      context: As there.
    Returns:
      Shape (n, context + 1), in the dtype of the tokens: columns 0..context - 1 are read, 1..context are predicted.
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
    outside = starts[(starts < 0) | (starts > len(tokens) - context - 1)]
    if outside.size:
        raise ValueError(
            f"starts must lie in 0..{len(tokens) - context - 1}, for {len(tokens)} tokens and windows of {context + 1}; got "
            f"{outside[0]}."
        )
    return tokens[starts[:, None] + np.arange(context + 1)]
