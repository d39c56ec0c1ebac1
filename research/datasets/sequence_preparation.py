"""Preparation of sequences: standardise, interpolate, hold out, and convert images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from research.checks import check_number, check_numbers, check_share, shown
from research.datasets._images import ImageSplit
from research.datasets._recordings import Recordings, official_split, speaker_folds
from research.datasets._vowels import SequenceSplit, padded
from research.sizes import check_room


def inside(length: Int[np.ndarray, "n"], num_steps: int) -> Bool[np.ndarray, "n T"]:
    """Return the mask of the steps that lie before the end of each sequence.

    Args:
      length: Length of each sequence, integers, shape (n,).
      num_steps: Number T of steps after padding.
    Returns:
      The boolean mask, shape (n, T).
    Example:
      >>> inside(np.array([1, 3]), 3).tolist()
      [[True, False, False], [True, True, True]]
    """
    check_room(f"num_steps={num_steps}", max(1, len(length)), num_steps)
    return np.arange(num_steps) < length[:, None]


def standardise_steps(split: SequenceSplit) -> SequenceSplit:
    """Standardise each of the d components over all steps of the training sequences.

    Args:
      split: Sequences of shape (n, T, d).
    Returns:
      The same sequences, standardised. The training part and the test part are both
      standardised by the means and standard deviations of the training part. The dtypes
      do not change. Values after the end of a sequence become 0, and so do components
      that are constant in the training part.
    """
    mean, sd = mean_and_sd_of_steps(split)

    def scaled(values: np.ndarray, length: np.ndarray) -> np.ndarray:
        counts = inside(length, values.shape[1])[..., None]
        return np.where(counts, (values - mean) / sd, 0).astype(values.dtype)

    return split._replace(
        train_x=scaled(split.train_x, split.train_length),
        test_x=scaled(split.test_x, split.test_length),
    )


def mean_and_sd_of_steps(
    split: SequenceSplit,
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d"]]:
    """Compute the mean and standard deviation of each component, in float64.

    Args:
      split: Sequences of shape (n, T, d).
    Returns:
      The mean and the population standard deviation over all steps of the training
      sequences, each of shape (d,). For a constant component, the standard deviation ∞
      is returned instead of 0, so that the standardised component is 0. A component
      counts as constant if its standard deviation is at most 1e-6 times the absolute
      value of its mean.
    """
    steps = split.train_x[inside(split.train_length, split.train_x.shape[1])]
    mean, sd = steps.mean(axis=0, dtype=np.float64), steps.std(axis=0, dtype=np.float64)
    return mean, np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)


def interpolate_steps(
    values: Float[np.ndarray, "n T d"], length: Int[np.ndarray, "n"], num_steps: int
) -> Float[np.ndarray, "n num_steps d"]:
    """Interpolate each sequence linearly at num_steps evenly spaced times.

    The times run from the first step of a sequence to its last.

    Args:
      values: Sequences, floating, shape (n, T, d). Values after the end are ignored.
      length: Length of each sequence, in 1..T, shape (n,).
      num_steps: Number of times for each sequence, at least 2.
    Returns:
      The interpolated sequences, float64, shape (n, num_steps, d).
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
    """Hold out random examples of the training part, as a new test part.

    If a class has m examples, max(1, ⌊m / one_in⌋) of these examples are held out.

    Args:
      split: Sequences. The test part is not used.
      one_in: Divisor of m in max(1, ⌊m / one_in⌋), an integer at least 2. For example,
        5 means that about a fifth of the examples is held out.
      seed: Seed of the selection.
    Returns:
      The old training part, split into a new training part and a new test part. The new
      test part has the examples that are held out.
    Raises:
      ValueError: one_in is less than 2, or a class has only one example.
    """
    if one_in < 2:
        raise ValueError(f"one_in must be at least 2; got one_in={one_in}.")
    generator, drawn = np.random.default_rng(seed), np.zeros(len(split.train_y), bool)
    for label in np.unique(split.train_y):
        of_class = generator.permutation(np.flatnonzero(split.train_y == label))
        if len(of_class) < 2:
            raise ValueError(
                f"class {split.classes[label]} has only one example; it needs at least "
                "2 to be split."
            )
        drawn[of_class[: max(1, len(of_class) // one_in)]] = True
    whole = split.train_x, split.train_length, split.train_y
    parts = [values[part] for part in (~drawn, drawn) for values in whole]
    return SequenceSplit._make([f"{split.name}, held out", *parts, split.classes])


def row_sequences(split: ImageSplit) -> SequenceSplit:
    """Convert grey images to sequences of rows, from the top to the bottom.

    For images of H x W pixels, a sequence has T = H steps of W numbers. The intensities
    are not scaled.

    Args:
      split: Images with one channel.
    Returns:
      The sequences, float32.
    Raises:
      ValueError: The images have several channels.
    """
    if split.train_x.shape[-1] != 1:
        raise ValueError(
            f"the images of {split.name} have {split.train_x.shape[-1]} channels. "
            "Convert them to grey first."
        )
    parts = []
    for x, y in ((split.train_x, split.train_y), (split.test_x, split.test_y)):
        parts += [
            x[..., 0].astype(np.float32),
            np.full(len(x), x.shape[1], np.int32),
            y,
        ]
    return SequenceSplit._make([split.name, *parts, split.classes])


def with_deltas(sequence: Float[np.ndarray, "t d"]) -> Float[np.ndarray, "t 2d"]:
    """Append the changes in time of each component, called deltas.

    With the steps x_0, x_1, ..., x_{t-1}, the delta of step i is (x_{i+1} - x_{i-1}) /
    2. The delta of the first step is x_1 - x_0, and the delta of the last step is
    x_{t-1} - x_{t-2}. A sequence of one step has the delta 0.

    Args:
      sequence: Steps with d components each, shape (t, d), such as the `log_mel` of a
        recording.
    Returns:
      The components and then their deltas, shape (t, 2 d), in the dtype of the
      sequence.
    References:
      Furui, Speaker-independent isolated word recognition using dynamic features of
      speech spectrum, IEEE Transactions on Acoustics, Speech, and Signal Processing
      34(1), 1986. (In the paper, a delta is the slope of a line through several steps.)
    Example:
      >>> with_deltas(np.array([[1.0], [2.0], [5.0]])).tolist()
      [[1.0, 1.0], [2.0, 2.0], [5.0, 3.0]]
    """
    if len(sequence) < 2:
        return np.concatenate([sequence, np.zeros_like(sequence)], axis=1)
    deltas = np.gradient(sequence, axis=0).astype(sequence.dtype)
    return np.concatenate([sequence, deltas], axis=1)


def word_levels(
    frames: Float[np.ndarray, "t d"],
    *,
    margin: float = 8.0,
    floor: float = 9.0,
    quantile: float = 0.9,
) -> Float[np.ndarray, "k d"]:
    """Cut the silence around a word, and subtract a quantile from each band.

    A frame is a row of `frames`: the logarithms of the energies of d frequency bands at
    one time. The function has three steps. First, frames before the first loud frame
    and after the last one are dropped. The loudness of a frame is the logarithm of the
    sum of its energies, and a frame is loud if its loudness is at most `margin` below
    the largest loudness. Second, values below m - floor are replaced by m - floor,
    where m is the largest value of the remaining frames. So quiet parts are alike in
    all recordings. Third, the quantile of each band over the remaining frames is
    subtracted from the band. On a log spectrum, this removes constant effects of the
    voice and of the microphone, except where the second step has changed the values.
    Other methods usually subtract the mean, but the mean depends on the number of quiet
    frames.

    Args:
      frames: Logarithms of the energies of d bands at t times, such as the `log_mel` of
        the recording of a word, shape (t, d).
      margin: Largest distance of a loud frame from the loudest frame, in nats, at least
        0. 8 nats are 35 decibels.
      floor: Largest distance of a value from the largest value, in nats, positive.
      quantile: Quantile, above 0 and below 1.
    Returns:
      The word, shape (k, d) with 1 <= k <= t, in the dtype of the frames.
    Raises:
      TypeError: frames is not a matrix of floats, or another argument is not a
        number.
      ValueError: frames is empty or has an entry that is not finite, or a number is out
        of range.
    References:
      Rabiner & Sambur, An algorithm for determining the endpoints of isolated
      utterances, Bell System Technical Journal 54, 1975. (The paper finds the ends of a
      word by its energy, and then by its zero crossings, which are not used here.)
    Example:
      >>> quiet, loud = [-20.0, -20.0], [0.0, -4.0]
      >>> word_levels(np.array([quiet, loud, loud, quiet])).tolist()
      [[0.0, 0.0], [0.0, 0.0]]
    """
    check_numbers("frames", frames, ndim=2, kinds="f")
    frames = np.asarray(frames)
    if not frames.size:
        raise ValueError(
            "frames must have at least one frame and one band; got "
            f"frames={shown(frames)}."
        )
    if not np.isfinite(frames).all():
        t, band = np.argwhere(~np.isfinite(frames))[0]
        raise ValueError(
            f"frames must be finite; got frames[{t}, {band}]={frames[t, band]}. Add a "
            "small number to the energies before the logarithm, as log_mel does."
        )
    check_number("margin", margin)
    check_number("floor", floor, positive=True)
    check_share("quantile", quantile, 0.9)
    loudness = np.logaddexp.reduce(frames, axis=1)
    loud = np.flatnonzero(loudness >= loudness.max() - margin)
    word = frames[loud[0] : loud[-1] + 1]
    word = np.maximum(word, word.max() - floor)
    return (word - np.quantile(word, quantile, axis=0)).astype(frames.dtype)


def word_splits(
    given: Recordings, words: Sequence[Float[np.ndarray, "t d"]], longest: int
) -> dict[str, SequenceSplit]:
    """Build the official split of the spoken digits and one split for each speaker.

    Args:
      given: Recordings of the spoken digits.
      words: One sequence for each recording, shape (t, d), such as the `word_levels` of
        the recording.
      longest: Largest number T of steps. A longer sequence is cut to T steps.
    Returns:
      The splits by name. The official split is called "shared". In this split,
      repetitions 0 to 4 of each digit by each speaker are the test part. Each other
      split has the name of one speaker. This speaker's recordings are the test part.
    """
    values, length = padded([word[:longest] for word in words], longest)
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
