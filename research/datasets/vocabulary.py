"""Words as tokens: build a vocabulary from texts, and encode texts with it."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from research.checks import check_count, check_mapping, check_sequence
from research.sizes import check_most, check_room

UNKNOWN = 0  # Token of every word outside the vocabulary.


def make_vocabulary(texts: Sequence[str], least_count: int = 1) -> dict[str, int]:
    """Assign the tokens 1, 2, ... to the words of texts, the most common word first.

    Words that occur fewer than least_count times are not in the vocabulary. Token 0
    stands for all words outside the vocabulary.

    Args:
      texts: List of texts, each with words separated by spaces. Pass only the training
        texts, so that the vocabulary does not depend on the test part.
      least_count: Each word of the vocabulary occurs at least this many times in all
        texts together.
    Returns:
      Vocabulary, word -> token 1, 2, ... Equally common words are in alphabetical
      order.
    Raises:
      TypeError: texts is a single string.
      ValueError: least_count is not positive, or no word occurs least_count times or
        more.
    Example:
      >>> make_vocabulary(["oil up", "oil down oil", "up"], least_count=2)
      {'oil': 1, 'up': 2}
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts must be a list of texts; got a single string, texts={texts!r}. "
            "Pass [texts]."
        )
    check_sequence("texts", texts, "texts", str)
    check_count("least_count", least_count)
    counts = Counter(itertools.chain.from_iterable(text.split() for text in texts))
    kept = [word for word, count in counts.items() if count >= least_count]
    if not kept:
        raise ValueError(
            f"no word occurs least_count={least_count} times in the {len(texts)} "
            "texts. Decrease least_count."
        )
    return {
        word: token
        for token, word in enumerate(
            sorted(kept, key=lambda word: (-counts[word], word)), UNKNOWN + 1
        )
    }


def encode(
    texts: Sequence[str], vocabulary: Mapping[str, int], length: int
) -> tuple[Int32[np.ndarray, "n length"], Int32[np.ndarray, "n"]]:
    """Encode the first `length` words of each text as tokens, and pad with 0.

    A word that is not in the vocabulary also becomes the token 0.

    Args:
      texts: List of texts, each with words separated by spaces. A text without words is
        treated as one unknown word.
      vocabulary: Vocabulary, word -> token, from `make_vocabulary`.
      length: Number of tokens of each text. Longer texts are cut, and shorter texts are
        padded.
    Returns:
      Two int32 arrays for n texts: the tokens, shape (n, length), and the number of
      tokens of each text before the padding, shape (n,). These two arrays are the
      fields of `research.types.Sequences`.
    Raises:
      TypeError: texts is a single string.
      ValueError: length is not positive, or a token of the vocabulary is negative.
    Example:
      >>> tokens, lengths = encode(["oil up and up", "up", ""], {"oil": 1, "up": 2}, 3)
      >>> print(tokens, lengths)
      [[1 2 0]
       [2 0 0]
       [0 0 0]] [3 1 1]
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts must be a list of texts; got a single string, texts={texts!r}. "
            "Pass [texts]."
        )
    check_sequence("texts", texts, "texts", str)
    check_mapping("vocabulary", vocabulary, "words to tokens")
    for word, token in vocabulary.items():
        check_count(f"vocabulary[{word!r}]", token, 0)
    check_count("length", length)
    check_most(length=length)
    check_room(
        f"{len(texts)} texts of length={length}", max(1, len(texts)), length, itemsize=4
    )
    rows = [
        [vocabulary.get(word, UNKNOWN) for word in text.split()[:length]] or [UNKNOWN]
        for text in texts
    ]
    tokens = np.full((len(rows), length), UNKNOWN, np.int32)
    for padded, row in zip(tokens, rows, strict=True):
        padded[: len(row)] = row
    return tokens, np.array([len(row) for row in rows], np.int32)
