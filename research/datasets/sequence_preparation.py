"""Sequences as arrays: from images and recordings, standardised step by step, interpolated, and a part held out."""

from collections.abc import Sequence

import numpy as np

from research.datasets._images import ImageSplit
from research.datasets._recordings import Recordings, official_split, speaker_folds
from research.datasets._vowels import SequenceSplit, padded
from research.sizes import check_room


def inside(length: np.ndarray, num_steps: int) -> np.ndarray:
    """Which steps of each sequence count.

    Args:
      length: Shape (n,), integers.
      num_steps: T.
    Returns:
      Shape (n, T), booleans.
    Example:
      >>> inside(np.array([1, 3]), 3).tolist()
      [[True, False, False], [True, True, True]]
    """
    check_room(f"num_steps={num_steps}", max(1, len(length)), num_steps)
    return np.arange(num_steps) < length[:, None]


def standardise_steps(split: SequenceSplit) -> SequenceSplit:
    """Gives each number of a step mean 0 and standard deviation 1 over all steps of the training sequences.

    Args:
      split: Its sequences have shape (n, T, d).
    Returns:
      The split with both parts scaled by the same numbers, in their dtype, and 0 after the end of a sequence. A number
      that never changes becomes 0.
    """
    steps = split.train_x[inside(split.train_length, split.train_x.shape[1])]
    mean, sd = steps.mean(axis=0, dtype=np.float64), steps.std(axis=0, dtype=np.float64)
    sd = np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)

    def scaled(values: np.ndarray, length: np.ndarray) -> np.ndarray:
        counts = inside(length, values.shape[1])[..., None]
        return np.where(counts, (values - mean) / sd, 0).astype(values.dtype)

    return split._replace(
        train_x=scaled(split.train_x, split.train_length),
        test_x=scaled(split.test_x, split.test_length),
    )


def interpolate_steps(
    values: np.ndarray, length: np.ndarray, num_steps: int
) -> np.ndarray:
    """Each sequence at num_steps times, evenly from its first step to its last, linear in between.

    Args:
      values: Shape (n, T, d), floating.
      length: Shape (n,), in 1..T; what stands after the end does not matter.
      num_steps: At least 2.
    Returns:
      Shape (n, num_steps, d), float64.
    Example:
      >>> values = np.array([[[0.0], [2.0], [9.0]], [[0.0], [4.0], [6.0]]])
      >>> interpolate_steps(values, np.array([2, 3]), 3)[..., 0].tolist()
      [[0.0, 1.0, 2.0], [0.0, 4.0, 6.0]]
    """
    check_room(
        f"num_steps={num_steps}", max(1, len(values)), num_steps, *values.shape[2:]
    )
    at = np.linspace(0, 1, num_steps) * (length[:, None] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, length[:, None] - 1)
    share, row = (at - low)[..., None], np.arange(len(values))[:, None]
    return (1 - share) * values[row, low] + share * values[row, high]


def hold_out(split: SequenceSplit, one_in: int, seed: int) -> SequenceSplit:
    """The training part of a split parted anew, at random: one in `one_in` of each class, at least one, is its test part.

    Args:
      split: Its test part is not used.
      one_in: At least 2.
      seed: Of the draw.
    Returns:
      A split of the training part.
    Raises:
      ValueError: one_in is less than 2, or a class has a single example.
    """
    if one_in < 2:
        raise ValueError(f"one_in must be at least 2; got one_in={one_in}.")
    generator, drawn = np.random.default_rng(seed), np.zeros(len(split.train_y), bool)
    for label in np.unique(split.train_y):
        of_class = generator.permutation(np.flatnonzero(split.train_y == label))
        if len(of_class) < 2:
            raise ValueError(
                f"class {split.classes[label]} has a single example, which cannot be on both sides."
            )
        drawn[of_class[: max(1, len(of_class) // one_in)]] = True
    whole = split.train_x, split.train_length, split.train_y
    parts = [values[part] for part in (~drawn, drawn) for values in whole]
    return SequenceSplit._make([f"{split.name}, held out", *parts, split.classes])


def row_sequences(split: ImageSplit) -> SequenceSplit:
    """Grey images as sequences of their rows, from the top: T = H steps of W numbers.

    Args:
      split: Of images with one channel.
    Returns:
      The same images; float32.
    Raises:
      ValueError: The images have several channels.
    """
    if split.train_x.shape[-1] != 1:
        raise ValueError(
            f"the images of {split.name} have {split.train_x.shape[-1]} channels; make them grey first."
        )
    parts = []
    for x, y in ((split.train_x, split.train_y), (split.test_x, split.test_y)):
        parts += [
            x[..., 0].astype(np.float32),
            np.full(len(x), x.shape[1], np.int32),
            y,
        ]
    return SequenceSplit._make([split.name, *parts, split.classes])


def word_splits(
    given: Recordings, words: Sequence[np.ndarray], longest: int
) -> dict[str, SequenceSplit]:
    """Spoken digits by each of their splits: the official one, "shared", and for each speaker the one that leaves it out.

    From each recording its own mean is subtracted, number by number: what the colour of a voice and of a microphone adds
    to all steps of a log spectrum (cepstral mean normalisation, where it is done to cepstra).

    Args:
      given: The recordings.
      words: A sequence for each, (t, d) each, such as their `log_mel`.
      longest: T; what has more steps is cut, and its mean is of what is left.
    Returns:
      The splits by name.
    References:
      Atal, Effectiveness of linear prediction characteristics of the speech wave for automatic speaker identification and
      verification, JASA 1974.
    """
    cut = [word[:longest] for word in words]
    values, length = padded([word - word.mean(axis=0) for word in cut], longest)
    folds = {"shared": official_split(given)} | dict(
        zip(given.speakers, speaker_folds(given), strict=True)
    )
    whole, classes = (values, length, given.digit), tuple(map(str, range(10)))
    return {
        name: SequenceSplit._make(
            [name, *(array[part] for part in parts for array in whole), classes]
        )
        for name, parts in folds.items()
    }
