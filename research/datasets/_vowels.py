"""The data set Japanese Vowels: cepstra of two vowels, for speaker recognition."""

import re
import reprlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from research.datasets._images import check_labels
from research.datasets.finding import find_files, find_source
from research.datasets.wheel import read_text
from research.sizes import check_room

MEMBERS = tuple(
    f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
    for part in ("TRAIN", "TEST")
)


class SequenceSplit(NamedTuple):
    """Sequences of different length in a training part and a test part.

    Attributes:
      name: Name of the data set.
      train_x: The n training sequences, shape (n, T, d), float32. Each time step has d
        numbers. Sequences with fewer than T steps are padded with 0.
      train_length: Number of steps of each sequence before the padding, in 1..T, shape
        (n,), int32.
      train_y: Label of each sequence, in 0..K-1 for K classes, shape (n,), int32.
      test_x, test_length, test_y: The corresponding arrays of the test part, with the
        same T and d.
      classes: Names of the K classes. The label k has the name classes[k].
    """

    name: str
    train_x: Float32[np.ndarray, "n T d"]
    train_length: Int32[np.ndarray, "n"]
    train_y: Int32[np.ndarray, "n"]
    test_x: Float32[np.ndarray, "m T d"]
    test_length: Int32[np.ndarray, "m"]
    test_y: Int32[np.ndarray, "m"]
    classes: tuple[str, ...]


def vowels() -> SequenceSplit:
    """Load the data set Japanese Vowels: utterances of two vowels by nine men.

    Each utterance is the vowel /a/ followed by the vowel /e/. Its label is the speaker.
    The authors' split is used: 270 training utterances (30 per speaker) and 370 test
    utterances (24 to 88 per speaker). Each utterance has 7 to 29 time steps. A step has
    12 cepstral coefficients, computed by linear predictive coding (LPC). If the file is
    missing, it is downloaded.

    Returns:
      The data set. The training inputs have shape (270, 29, 12), where 29 is the number
      of steps of the longest utterance. Shorter utterances are padded with 0. The
      arrays are copies, so you may change them.
    Raises:
      ValueError: The file is damaged.
      OSError: The file is missing and cannot be downloaded. The message says how to get
        it.
    References:
      Kudo, Toyama & Shimbo (1999), Multidimensional curve classification using
      passing-through regions.
    """
    path = find_files(find_source("japanese_vowels", "vowels"))[0]
    parts = [
        parse_ts(read_text(path, member), f"{member} in {path}") for member in MEMBERS
    ]
    longest = max(len(sequence) for sequences, _, _ in parts for sequence in sequences)
    (train, train_y, classes), (test, test_y, _) = parts
    check_labels(train_y, len(train), len(classes), MEMBERS[0])
    check_labels(test_y, len(test), len(classes), MEMBERS[1])
    (train_x, train_length), (test_x, test_length) = (
        padded(train, longest),
        padded(test, longest),
    )
    return SequenceSplit(
        "japanese_vowels",
        train_x,
        train_length,
        train_y,
        test_x,
        test_length,
        test_y,
        classes,
    )


def padded(
    sequences: list[Shaped[np.ndarray, "t d"]], longest: int
) -> tuple[Shaped[np.ndarray, "n T d"], Int32[np.ndarray, "n"]]:
    """Pad sequences of different length with 0 and stack them into one array.

    Args:
      sequences: List of n arrays of shape (t, d), with 1 <= t <= longest.
      longest: Number T of steps after padding.
    Returns:
      The padded sequences, shape (n, T, d), in the dtype of the input, and the length
      of each sequence, int32.
    Raises:
      ValueError: A sequence has no step or more than T steps.
    Example:
      >>> values, length = padded([np.ones((1, 2)), np.ones((3, 2))], 3)
      >>> values[0].tolist(), length.tolist()
      ([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], [1, 3])
    """
    length = np.array([len(sequence) for sequence in sequences], np.int32)
    bad = np.flatnonzero((length < 1) | (length > longest))
    if bad.size:
        raise ValueError(
            f"sequence {bad[0]} has {length[bad[0]]} steps; it must have 1 to "
            f"longest={longest}."
        )
    check_room(f"longest={longest}", len(sequences), longest, *sequences[0].shape[1:])
    values = np.zeros(
        (len(sequences), longest, *sequences[0].shape[1:]), sequences[0].dtype
    )
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = sequence
    return values, length


def parse_ts(
    text: str, where: str
) -> tuple[list[Float32[np.ndarray, "t d"]], Int32[np.ndarray, "n"], tuple[str, ...]]:
    """Parse the .ts format of sktime and aeon.

    The lines of the header start with `#` or `@`. Every later line is one sequence: its
    dimensions and then its class, separated by colons. The values of a dimension are
    separated by commas.

    Args:
      text: Content of the file.
      where: Name of the file, for error messages.
    Returns:
      Three values: the sequences (each float32 of shape (t, d)), the labels (int32),
      and the class names.
    Raises:
      ValueError: The header is incomplete, there are no sequences, or a line is wrong.
        A line is wrong if it has the wrong number of dimensions, dimensions of
        different length, a value that is not a finite number, or an unknown class.
    Example:
      >>> head = "@dimensions 2\\n@classLabel true a b\\n@data\\n"
      >>> sequences, labels, classes = parse_ts(head + "1,2,3:4,5,6:b", "x.ts")
      >>> sequences[0].tolist(), labels.tolist(), classes
      ([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], [1], ('a', 'b'))
    """
    head, _, data = text.partition("@data\n")
    fields = {
        words[0]: words[1:] for line in head.splitlines() if (words := line.split())
    }
    dimensions, classes = _head(fields, where)
    sequences, labels = [], []
    for number, line in enumerate(data.splitlines(), head.count("\n") + 2):
        *columns, label = line.strip().split(":")
        wrong = None
        if len(columns) != dimensions:
            wrong = f"has {len(columns)} dimensions, not {dimensions}"
        elif len({column.count(",") for column in columns}) > 1:
            wrong = "has dimensions of different length"
        elif label not in classes:
            known = ", ".join(classes)
            wrong = f"has the class {reprlib.repr(label)}, which is not one of {known}"
        try:
            sequence = np.array(
                [] if wrong else [column.split(",") for column in columns], np.float32
            ).T.copy()
            wrong = wrong or (
                None
                if np.isfinite(sequence).all()
                else "has a value that is not finite"
            )
            sequences.append(sequence)
        except ValueError:
            wrong = "has a value that is not a number"
        if wrong:
            raise ValueError(
                f"line {number} of {where} {wrong}: the file is damaged. Fetch it "
                "again."
            )
        labels.append(classes.index(label))
    if not sequences:
        raise ValueError(
            f"{where} has no lines after @data: the file is damaged. Fetch it again."
        )
    return sequences, np.array(labels, np.int32), classes


def _head(fields: dict[str, list[str]], where: str) -> tuple[int, tuple[str, ...]]:
    """Return the number of dimensions of a sequence and the class names."""
    dimensions, classes = fields.get("@dimensions", []), fields.get("@classLabel", [])
    if (
        len(dimensions) != 1
        or not re.fullmatch("[1-9][0-9]{0,5}", dimensions[0])
        or len(classes) < 2
    ):
        raise ValueError(
            f"the header of {where} lacks @dimensions with a number, or @classLabel "
            "with classes: the file is damaged. Fetch it again."
        )
    return int(dimensions[0]), tuple(classes[1:])
