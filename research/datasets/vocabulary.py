"""Words as tokens: the vocabulary of some texts, and texts of different length as rows of it."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from research.checks import check_count, check_mapping, check_sequence
from research.sizes import check_most, check_room

UNKNOWN = 0  # The token of every word that the vocabulary has not.


def make_vocabulary(texts: Sequence[str], least_count: int = 1) -> dict[str, int]:
    """Numbers the words that come often enough, the commonest first; 0 is left for all others.

    Args:
      texts: Words parted by spaces. Those to be learnt from only: what is tested on must not shape the vocabulary.
      least_count: How often a word must come, over all texts.
    Returns:
      Word -> token, 1, 2, ... Of equally common words the first in the alphabet is first.
    Raises:
      TypeError: texts is one text.
      ValueError: least_count is not positive, or no word comes so often.
    Example:
      >>> make_vocabulary(["oil up", "oil down oil", "up"], least_count=2)
      {'oil': 1, 'up': 2}
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts must be a list of texts; got a single one: put it into brackets. texts={texts!r}."
        )
    check_sequence("texts", texts, "texts", str)
    check_count("least_count", least_count)
    counts = Counter(itertools.chain.from_iterable(text.split() for text in texts))
    kept = [word for word, count in counts.items() if count >= least_count]
    if not kept:
        raise ValueError(
            f"No word comes {least_count} times in the {len(texts)} texts; lower least_count."
        )
    return {
        word: token
        for token, word in enumerate(
            sorted(kept, key=lambda word: (-counts[word], word)), UNKNOWN + 1
        )
    }


def encode(
    texts: Sequence[str], vocabulary: Mapping[str, int], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `length` words of each text as tokens, padded to that length.

    Args:
      texts: Words parted by spaces; one without words counts as one unknown word.
      vocabulary: From `make_vocabulary`.
      length: Where texts are cut.
    Returns:
      (tokens, lengths): int32 of shape (n, length) and (n,), the two fields of `research.types.Sequences`.
    Raises:
      TypeError: texts is one text.
      ValueError: length is not positive.
    Example:
      >>> tokens, lengths = encode(["oil up and up", "up", ""], {"oil": 1, "up": 2}, 3)
      >>> print(tokens, lengths)
      [[1 2 0]
       [2 0 0]
       [0 0 0]] [3 1 1]
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts must be a list of texts; got a single one, texts={texts!r}."
        )
    check_sequence("texts", texts, "texts", str)
    check_mapping("vocabulary", vocabulary, "words to tokens")
    for word, token in vocabulary.items():
        check_count(f"vocabulary[{word!r}]", token, 0)
    check_count("length", length)
    if isinstance(texts, str):
        raise TypeError(
            "texts must be a list of texts; got a single one: put it into brackets."
        )
    if length < 1:
        raise ValueError(f"length must be a positive integer; got length={length}.")
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
