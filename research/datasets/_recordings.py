"""The Free Spoken Digit Dataset, its official split, and splits by speaker."""

import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Shaped

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
      waves: List of n arrays of samples, each of shape (t,). The length t differs
        between recordings. The samples are int16 if the function `recordings` has
        loaded them.
      rate: Number of samples per second.
      digit: Spoken digit 0..9 of each recording, shape (n,), int32.
      speaker: Index of the speaker in `speakers`, shape (n,), int32.
      index: Number of the repetition of this digit by this speaker, counted from 0,
        shape (n,), int32.
      speakers: Names of the speakers.
    """

    waves: list[Shaped[np.ndarray, " samples"]]
    rate: int
    digit: Int32[np.ndarray, "n"]
    speaker: Int32[np.ndarray, "n"]
    index: Int32[np.ndarray, "n"]
    speakers: tuple[str, ...]


def recordings() -> Recordings:
    """Load the Free Spoken Digit Dataset: 10 digits, 6 speakers, 50 repetitions, 8 kHz.

    The recordings are sorted by digit, then by speaker, then by repetition. The file is
    downloaded if it is missing.

    Returns:
      The recordings.
    Raises:
      ValueError: The file is damaged, or a recording has the wrong format.
      OSError: The file is missing and cannot be downloaded. The message says how to get
        it.
    """
    path = find_files(find_source("spoken_digits", "recordings"))[0]
    found = {}
    for name, content in wavs_in(path):
        match = NAME.fullmatch(name)
        if not match:
            raise ValueError(
                f"{name} in {path} must be named like 7_jackson_32.wav: digit, "
                "speaker, index. Fetch the original archive."
            )
        found[int(match[1]), match[2], int(match[3])] = read_wav(
            content, RATE, f"{name} in {path}"
        )
    if not found:
        raise ValueError(
            f"{path} is not the expected archive: it contains no file with a name like "
            "7_jackson_32.wav. Fetch the original archive."
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


def official_split(
    given: Recordings,
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """Split recordings into the official parts: repetitions 0 to 4 are the test part.

    Each speaker says each digit several times. The field `index` of `given` has the
    number of the repetition for each recording, counted from 0.

    Every speaker occurs in both parts. The split therefore measures accuracy for known
    voices, which is higher than accuracy for unknown voices.

    Args:
      given: Recordings to split.
    Returns:
      Two int64 arrays of positions in `given.waves`: those of the training part, and
      those of the test part.
    Example:
      >>> digit = speaker = np.zeros(6, int)
      >>> index = np.array([0, 5, 6, 4, 7, 49])
      >>> official_split(Recordings([], 8000, digit, speaker, index, ("ann",)))
      (array([1, 2, 4, 5]), array([0, 3]))
    """
    _check_recordings(given)
    is_test = np.isin(given.index, TEST_INDICES)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def speaker_folds(
    given: Recordings,
) -> tuple[tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]], ...]:
    """Split recordings by speaker into folds, each with one speaker as the test part.

    The recordings of the other speakers are the training part. The folds measure
    accuracy for unknown voices.

    Args:
      given: Recordings to split.
    Returns:
      One pair for each speaker, in the order of `speakers`. A pair has two int64 arrays
      of positions in `given.waves`: those of the training part, and those of the test
      part.
    Example:
      >>> digit, speaker = np.zeros(4, int), np.array([0, 1, 0, 1])
      >>> given = Recordings([], 8000, digit, speaker, np.arange(4), ("ann", "bob"))
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
        "given", given, Recordings, "Load them with research.datasets.recordings()."
    )
    for name in ("digit", "speaker", "index"):
        check_numbers(f"given.{name}", getattr(given, name), ndim=1, kinds="iu")
    check_sequence("given.waves", given.waves, "waves")
    check_sequence("given.speakers", given.speakers, "names", str)
