"""N-gram language models with interpolated smoothing, a baseline for neural models."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from research.checks import (
    check_choice,
    check_instance,
    check_key,
    check_numbers,
    check_real,
)
from research.models._linear import check_size
from research.models.embedding import check_tokens
from research.sizes import check_most, check_room
from research.types import Key

# Discounts for texts from which they cannot be estimated, as in KenLM.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


LONGEST = 1_000  # Largest order of an n-gram.


class Level(NamedTuple):
    """Statistics of all n-grams of one length.

    The context h of an n-gram h w is the n-gram without its last token w. Let h' be h
    without its first token. `ngram` defines the count of h w and the discount D. There
    are g different n-grams with a positive count, and they have c different contexts.
    The level contains only these n-grams and contexts.

    Each n-gram has a number kept(h w), and each context has the numbers back(h) and
    total(h). The probability of a token w after a context h is p(w | h) = (kept(h w) +
    back(h) p(w | h')) / total(h), with kept(h w) = 0 if the count of h w is 0.

    An n-gram or a context is stored as its code: the number whose digits in base V are
    its tokens, for V symbols. If an n-gram has the code a, its context has the code
    a // V.

    Attributes:
      codes: Codes of the n-grams, ascending int64, shape (g,).
      kept: Number kept(h w) of each n-gram, shape (g,): the count, or the count minus
        D(count) for the smoothing "kneser_ney".
      contexts: Codes of the contexts, ascending int64, shape (c,).
      back: Weight back(h) of p(w | h') for each context h, shape (c,).
      total: Denominator total(h) for each context h, shape (c,): the sum of kept(h w)
        over all tokens w, plus back(h).
    """

    codes: Int[np.ndarray, "g"]
    kept: Float[np.ndarray, "g"]
    contexts: Int[np.ndarray, "c"]
    back: Float[np.ndarray, "c"]
    total: Float[np.ndarray, "c"]


class NGram(NamedTuple):
    """N-gram model that was fitted to a text by `ngram`.

    Attributes:
      vocabulary_size: Number V of symbols.
      levels: Statistics of the n-grams of length 1, 2, ..., up to the order of the
        model.
    """

    vocabulary_size: int
    levels: tuple[Level, ...]


def ngram(
    tokens: Int[np.ndarray, "T"] | Sequence[int],
    order: int,
    vocabulary_size: int,
    *,
    smoothing: str = "kneser_ney",
) -> NGram:
    """Fit an n-gram model with interpolated smoothing to a text.

    An n-gram is a sequence of n tokens in the text, where n is `order`. The model
    computes the probability p(w | h) of a token w after the context h. The context
    consists of the order - 1 tokens before w. Smoothing mixes the frequency of w after
    h with the probability p(w | h'), where h' is the context h without its first token.
    Let c(h w) be the number of times that w follows h in the text, and
    c(h) = Σ_w c(h w). Let N(h) be the number of different tokens after h. There are two
    kinds of smoothing.

    "witten_bell": p(w | h) = (c(h w) + N(h) p(w | h')) / (c(h) + N(h)).

    "kneser_ney" (modified Kneser-Ney):
    p(w | h) = (c(h w) - D(c(h w)) + p(w | h') Σ_v D(c(h v))) / c(h). Here D(i) is the
    discount of a count i, defined below, and v runs over all tokens. For contexts h of
    fewer than order - 1 tokens, such as h', the formula is the same with other counts:
    c(h w) is the number of different tokens that occur directly before h w in the text,
    and again c(h) = Σ_w c(h w).

    The discounts depend on the length of the context. For each length, let n_i be the
    number of pairs (h, w) with c(h w) = i, and Y = n_1 / (n_1 + 2 n_2). The discounts
    are D(0) = 0, D(i) = i - (i + 1) Y n_{i+1} / n_i for i = 1, 2 and 3, and D(i) = D(3)
    for larger i. If one of D(1), D(2) and D(3) is undefined or not positive, as in a
    short text, all three are replaced by 0.5, 1 and 1.5, as in KenLM.

    With both kinds of smoothing, p(w | h) = p(w | h') if c(h) = 0. If h is empty,
    p(w | h') stands for 1 / vocabulary_size. Therefore, no probability is 0.

    Args:
      tokens: Tokens of the text, integers in 0..vocabulary_size - 1, shape (T,), T >=
        order.
      order: Number of tokens of an n-gram, at least 1.
      vocabulary_size: Number V of symbols. V**order must be below 2**63.
      smoothing: Name of the smoothing, a key of `SMOOTHINGS`.
    Returns:
      The model, for `ngram_losses`, `ngram_probabilities` and `sample_ngram`.
    Raises:
      TypeError: tokens are not integers.
      ValueError: An argument is out of range.
    References:
      Witten & Bell, The zero-frequency problem, IEEE Transactions on Information Theory
      1991, method C.
      Chen & Goodman, An empirical study of smoothing techniques for language modeling,
      Computer Speech & Language 1999 (Witten-Bell, modified Kneser-Ney).
      Heafield et al., Scalable modified Kneser-Ney language model estimation, ACL 2013
      (KenLM).
    Example:
      >>> model = ngram([0, 1, 0, 1, 0, 0], 2, 2, smoothing="witten_bell")
      >>> # After 1: (2 + 1 · p(0)) / 3 with p(0) = (4 + 2/2) / 8.
      >>> print(ngram_probabilities(model, [1]))
      [0.875 0.125]
    """
    check_size("order", order, 1)
    check_size("vocabulary_size", vocabulary_size, 1)
    # Convert to Python integers, which do not overflow.
    order, vocabulary_size = int(order), int(vocabulary_size)
    check_most(LONGEST, order=order)  # Before the power, which may be huge.
    if vocabulary_size**order >= 2**63:
        raise ValueError(
            "vocabulary_size**order must be below 2**63, because an n-gram's code is "
            f"an int64; got {vocabulary_size}**{order}. Use a smaller order."
        )
    check_choice("smoothing", smoothing, SMOOTHINGS)
    checked = _check_tokens("tokens", tokens, vocabulary_size)
    if len(checked) < order:
        raise ValueError(
            f"tokens must contain at least one n-gram of order {order}; got "
            f"{len(checked)} tokens. Use a longer text."
        )
    return NGram(
        vocabulary_size, SMOOTHINGS[smoothing](checked, order, vocabulary_size)
    )


def best_ngram(
    tokens: Int[np.ndarray, "T"] | Sequence[int],
    held_out: Int[np.ndarray, "t"] | Sequence[int],
    vocabulary_size: int,
    *,
    max_order: int,
    smoothing: str = "kneser_ney",
) -> tuple[NGram, Float[np.ndarray, "max_order"]]:
    """Fit n-gram models of order 1 to max_order and return the best on a held-out text.

    Args:
      tokens, vocabulary_size, smoothing: As in `ngram`.
      held_out: Tokens of another text with the same symbols, shape (t,).
      max_order: Largest order to try.
    Returns:
      The model with the smallest mean loss on held_out, and the mean loss of each
      order, shape (max_order,). The loss of a token is -log p in nats, where p is the
      probability that the model gives to this token.
    Raises:
      TypeError, ValueError: As in `ngram`, or held_out is empty.
    Example:
      >>> model, losses = best_ngram([0, 1, 2] * 9, [0, 1, 2] * 3, 3, max_order=3)
      >>> bool(len(model.levels) == losses.argmin() + 1)
      True
    """
    check_size("max_order", max_order, 1)
    check_most(LONGEST, max_order=max_order)
    check_numbers("held_out", held_out)
    if not np.size(held_out):
        raise ValueError("held_out must have at least one token; got an empty text.")
    models = [
        ngram(tokens, order, vocabulary_size, smoothing=smoothing)
        for order in range(1, max_order + 1)
    ]
    losses = np.array([ngram_losses(model, held_out).mean() for model in models])
    return models[int(losses.argmin())], losses


def ngram_losses(
    model: NGram, tokens: Int[np.ndarray, "T"] | Sequence[int]
) -> Float[np.ndarray, "T"]:
    """Compute the loss -log p(token | the tokens before it) of each token of a text.

    A model of order k uses the k - 1 tokens before a token, or fewer at the beginning
    of the text.

    The example prints the probabilities exp(-loss) of two tokens for a model of order
    2. By the formula "witten_bell" in `ngram`, the first probability is
    p(1) = (2 + 2/2) / 8. The second probability is p(0 | 1) = (2 + 1 · p(0)) / 3 with
    p(0) = (4 + 2/2) / 8.

    Args:
      model: Model from `ngram` with V symbols.
      tokens: Tokens of the text, integers in 0..V - 1, shape (T,).
    Returns:
      The losses in nats, float64, shape (T,). Their mean is the cross-entropy in nats
      per token. Divide the mean by log 2 to get bits per token.
    Raises:
      TypeError: tokens are not integers.
      ValueError: Tokens lie outside 0..V - 1, or have more than one axis.
    Example:
      >>> model = ngram([0, 1, 0, 1, 0, 0], 2, 2, smoothing="witten_bell")
      >>> print(np.exp(-ngram_losses(model, [1, 0])))
      [0.375 0.875]
    """
    check_instance(
        "model", model, NGram, "Fit one by ngram(tokens, order, vocabulary_size)."
    )
    checked = _check_tokens("tokens", tokens, model.vocabulary_size)
    probability = np.full(len(checked), 1 / model.vocabulary_size)
    for length, level in enumerate(model.levels, 1):
        codes = _codes(checked, length, model.vocabulary_size)
        longer = probability[length - 1 :]
        probability[length - 1 :] = _interpolate(
            level, codes // model.vocabulary_size, codes, longer
        )
    return -np.log(probability)


def ngram_probabilities(
    model: NGram, context: Int[np.ndarray, "t"] | Sequence[int]
) -> Float[np.ndarray, "V"]:
    """Compute the probability of each token to be the next token after a context.

    The formula is in the docstring of `ngram`.

    The example below has a text of 3 tokens and V = 2 symbols. Its model has order 1,
    so the context has no effect. Token 0 has the count 2, and token 1 has the count 1.
    D(c) is the discount of a token with the count c. For such a short text, `ngram`
    uses the fixed discounts D(1) = 0.5 and D(2) = 1. Let d = D(1) + D(2). The
    probabilities are (2 - D(2) + d / V) / 3 and (1 - D(1) + d / V) / 3.

    Args:
      model: Model from `ngram` with V symbols.
      context: Tokens before the next token, shape (t,), t >= 0. A model of order k uses
        only the last k - 1 of these tokens.
    Returns:
      The probabilities, float64, shape (V,), with sum 1.
    Raises:
      TypeError: context does not consist of integers.
      ValueError: A token of the context lies outside 0..V - 1, or the context does not
        have exactly one axis.
    Example:
      >>> print(ngram_probabilities(ngram([0, 1, 0], 1, 2), []))
      [0.58333333 0.41666667]
    """
    check_instance(
        "model", model, NGram, "Fit one by ngram(tokens, order, vocabulary_size)."
    )
    size = model.vocabulary_size
    checked = _check_tokens("context", context, size)
    probability = np.full(size, 1 / size)
    for length, level in enumerate(model.levels[: len(checked) + 1], 1):
        recent = checked[len(checked) - (length - 1) :]
        code = int(_codes(recent, length - 1, size)[0]) if length > 1 else 0
        probability = _interpolate(
            level, np.full(size, code), code * size + np.arange(size), probability
        )
    return probability


def sample_ngram(
    model: NGram,
    key: Key,
    prompt: Int[np.ndarray, "t"] | Sequence[int],
    num_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Int[np.ndarray, "num_tokens"]:
    """Continue a text by sampling from an n-gram model, one token at a time.

    The next token is drawn from the top_k likeliest tokens. The probability of each of
    these tokens w is proportional to p(w)^(1 / temperature), where p(w) is the
    probability that the model gives to w. Token i = 0, 1, ... is drawn with the key
    fold_in(key, i). Therefore, a larger num_tokens only adds tokens at the end.

    Args:
      model: Model from `ngram`.
      key: Key for the draws.
      prompt: Beginning of the text, integers, shape (t,), t >= 0.
      num_tokens: Number of tokens to sample, at least 0.
      temperature: Positive number. Values below 1 make likely tokens likelier.
      top_k: The next token is one of the top_k likeliest tokens. None means all tokens.
    Returns:
      The sampled tokens without the prompt, int32, shape (num_tokens,).
    Raises:
      TypeError: prompt does not consist of integers.
      ValueError: temperature is not positive, num_tokens is below 0, top_k is below 1,
        or a token of the prompt lies outside 0..V - 1 for the V symbols of the model.
    Example:
      >>> model = ngram([0, 1, 2] * 50, 3, 3)
      >>> print(sample_ngram(model, jax.random.key(0), [0, 1], 4, top_k=1))
      [2 0 1 2]
    """
    check_instance(
        "model", model, NGram, "Fit one by ngram(tokens, order, vocabulary_size)."
    )
    check_key("key", key)
    check_real("temperature", temperature)
    check_size("num_tokens", num_tokens, 0)
    check_room(f"num_tokens={num_tokens}", num_tokens)
    if top_k is not None:
        check_size("top_k", top_k, 1)
    if not 0 < temperature < np.inf:
        raise ValueError(
            f"temperature must be a positive number; got temperature={temperature}. "
            "Use 1 to leave p unchanged."
        )
    text = _check_tokens("prompt", prompt, model.vocabulary_size).tolist()
    kept, longest, given = (
        slice(None) if top_k is None else slice(-top_k, None),
        len(model.levels) - 1,
        len(text),
    )
    draw_one = jax.vmap(
        lambda i: jax.random.uniform(jax.random.fold_in(key, i), dtype="float32")
    )
    for draw in np.asarray(draw_one(np.arange(num_tokens))):
        probability = ngram_probabilities(
            model, np.array(text[max(0, len(text) - longest) :], int)
        )
        likeliest = np.argsort(probability, kind="stable")[kept]
        weights = np.exp(
            np.log(probability[likeliest] / probability.max()) / temperature
        )
        shares = np.cumsum(weights) / weights.sum()
        text.append(
            int(
                likeliest[
                    min(np.searchsorted(shares, draw, side="right"), len(likeliest) - 1)
                ]
            )
        )
    return np.array(text[given:], np.int32)


def _witten_bell(
    tokens: np.ndarray, order: int, vocabulary_size: int
) -> tuple[Level, ...]:
    levels = []
    for length in range(1, order + 1):
        codes, counts = np.unique(
            _codes(tokens, length, vocabulary_size), return_counts=True
        )
        contexts, owner = np.unique(codes // vocabulary_size, return_inverse=True)
        back = np.bincount(owner).astype(float)
        levels.append(
            Level(
                codes,
                counts.astype(float),
                contexts,
                back,
                np.bincount(owner, counts) + back,
            )
        )
    return tuple(levels)


def _kneser_ney(
    tokens: np.ndarray, order: int, vocabulary_size: int
) -> tuple[Level, ...]:
    levels: list[Level] = []
    codes_so_far = _codes(tokens, order, vocabulary_size)
    for length in range(order, 0, -1):
        # Below the highest order, `codes_so_far` contains each n-gram once for every
        # different token before it.
        codes, counts = np.unique(
            codes_so_far % vocabulary_size**length, return_counts=True
        )
        codes_so_far = codes
        contexts, owner = np.unique(codes // vocabulary_size, return_inverse=True)
        discounts = _discounts(counts)[np.minimum(counts, 3) - 1]
        back = np.bincount(owner, discounts)
        levels.append(
            Level(
                codes,
                counts - discounts,
                contexts,
                back,
                np.bincount(owner, counts).astype(float),
            )
        )
    return tuple(reversed(levels))


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return the discounts D(1), D(2) and D(3 and more)."""
    # The numbers n_1 to n_4 of n-grams with count 1 to 4.
    having = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if having[:3].all():
        ratio = having[0] / (having[0] + 2 * having[1])
        estimates = np.array(
            [i - (i + 1) * ratio * having[i] / having[i - 1] for i in (1, 2, 3)]
        )
        if (estimates > 0).all():
            return estimates
    return np.array(FALLBACK_DISCOUNTS)


# Name -> function (tokens, order, vocabulary_size) -> levels. A smoothing also gives a
# positive probability to n-grams that do not occur in the text.
SMOOTHINGS: dict[str, Callable[[np.ndarray, int, int], tuple[Level, ...]]] = {
    "kneser_ney": _kneser_ney,
    "witten_bell": _witten_bell,
}


def _codes(tokens: np.ndarray, length: int, vocabulary_size: int) -> np.ndarray:
    """Return the code of each window of `length` tokens, shape (T - length + 1,)."""
    count = max(len(tokens) - length + 1, 0)
    codes = np.zeros(count, np.int64)
    for start in range(length):
        codes = codes * vocabulary_size + tokens[start : start + count]
    return codes


def _interpolate(
    level: Level, contexts: np.ndarray, codes: np.ndarray, shorter: np.ndarray
) -> np.ndarray:
    """Compute p(w | h) from `shorter`, which holds p(w | h').

    `contexts` and `codes` are the codes of h and of h w.
    """
    at, known = _find(level.contexts, contexts)
    there, counted = _find(level.codes, codes)
    kept = np.where(counted, level.kept[there], 0.0)
    return np.where(known, (kept + level.back[at] * shorter) / level.total[at], shorter)


def _find(ascending: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each wanted value, and whether it occurs.

    The index of a missing value is arbitrary.
    """
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return at, ascending[at] == wanted


def _check_tokens(name: str, tokens: ArrayLike, vocabulary_size: int) -> np.ndarray:
    """Check that tokens are integers in range with one axis, and convert to int64."""
    check_numbers(name, tokens, kinds="biufc", wanted="an array of integers")
    array = np.asarray(tokens)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis; got shape {array.shape}.")
    if array.size:  # An empty list has a float dtype.
        check_tokens(array, vocabulary_size, name)
    return array.astype(np.int64)
