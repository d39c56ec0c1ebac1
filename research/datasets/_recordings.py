"""The Free Spoken Digit Dataset, and two ways to part it: its own, and by speaker."""

import re
from typing import Any, NamedTuple

import numpy as np

from research.checks import check_instance, check_numbers, check_sequence
from research.datasets.finding import find_files, find_source
from research.datasets.hashing import wavs_in
from research.datasets.wav import read_wav

RATE = 8000
NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]{1,6})\.wav")
TEST_INDICES = range(5)


class Recordings(NamedTuple):
    """Recordings of spoken digits.

    Attributes:
      waves: n arrays of shape (t,), int16, of different length.
      rate: Samples a second.
      digit: What is said, shape (n,), int32, 0..9.
      speaker: Who says it, shape (n,), int32, an index into `speakers`.
      index: The how manieth time, shape (n,), int32, from 0.
      speakers: Their names.
    """

    waves: list[np.ndarray]
    rate: int
    digit: np.ndarray
    speaker: np.ndarray
    index: np.ndarray
    speakers: tuple[str, ...]


def recordings() -> Recordings:
    """Reads the spoken digits: 10 digits, 6 speakers, 50 times each, at 8 kHz; fetched if they are not here.

    They come by digit, speaker and index.

    Returns:
      The recordings.
    Raises:
      ValueError: The file is damaged, or a recording is of another kind.
      OSError: It is not here and cannot be fetched; the message says what brings it.
    """
    path = find_files(find_source("spoken_digits", "recordings"))[0]
    found = {}
    for name, content in wavs_in(path):
        match = NAME.fullmatch(name)
        if not match:
            raise ValueError(
                f"{name} in {path} is not named as in 7_jackson_32.wav: digit, speaker, index."
            )
        found[int(match[1]), match[2], int(match[3])] = read_wav(
            content, RATE, f"{name} in {path}"
        )
    if not found:
        raise ValueError(
            f"{path} has no recording, 7_jackson_32.wav or the like: it is another archive. Fetch that one."
        )
    order = sorted(found)
    digit, speaker, index = zip(*order, strict=True)
    speakers, who = np.unique(speaker, return_inverse=True)
    return Recordings(
        [found[key] for key in order],
        RATE,
        np.array(digit, np.int32),
        who.astype(np.int32),
        np.array(index, np.int32),
        tuple(map(str, speakers)),
    )


def official_split(given: Recordings) -> tuple[np.ndarray, np.ndarray]:
    """The set's own split: indices 0 to 4 of every digit and speaker are the test part.

    Each speaker is in both parts, so that it measures how well known voices are understood, and flatters.

    Args:
      given: The recordings.
    Returns:
      Positions in `waves` of the training part and of the test part, int64.
    Example:
      >>> given = Recordings([], 8000, np.zeros(6, int), np.zeros(6, int), np.array([0, 5, 6, 4, 7, 49]), ("ann",))
      >>> official_split(given)
      (array([1, 2, 4, 5]), array([0, 3]))
    """
    _check_recordings(given)
    is_test = np.isin(given.index, TEST_INDICES)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def speaker_folds(given: Recordings) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """One fold a speaker: the test part is all that one says, the training part what the others do.

    It measures how well a voice is understood that was never heard.

    Args:
      given: The recordings.
    Returns:
      For each of `speakers`: positions in `waves` of the training part and of the test part, int64.
    Example:
      >>> given = Recordings([], 8000, np.zeros(4, int), np.array([0, 1, 0, 1]), np.arange(4), ("ann", "bob"))
      >>> [test.tolist() for _, test in speaker_folds(given)]
      [[0, 2], [1, 3]]
    """
    _check_recordings(given)
    return tuple(
        (np.flatnonzero(given.speaker != k), np.flatnonzero(given.speaker == k))
        for k in range(len(given.speakers))
    )


def _check_recordings(given: Any) -> None:
    check_instance(
        "given", given, Recordings, "Read one by research.datasets.recordings()."
    )
    for name in ("digit", "speaker", "index"):
        check_numbers(f"given.{name}", getattr(given, name), ndim=1, kinds="iu")
    check_sequence("given.waves", given.waves, "waves")
    check_sequence("given.speakers", given.speakers, "names", str)
