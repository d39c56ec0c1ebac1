"""Japanese Vowels: who speaks, told from the cepstra of two vowels."""

import re
import reprlib
from typing import NamedTuple

import numpy as np

from research.datasets._images import check_labels
from research.datasets.finding import find_files, find_source
from research.datasets.wheel import read_text
from research.sizes import check_room

MEMBERS = tuple(
    f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
    for part in ("TRAIN", "TEST")
)


class SequenceSplit(NamedTuple):
    """Sequences of different length in a training and a test part.

    Attributes:
      name: Of the set.
      train_x: Shape (n, T, d), float32; 0 after the end of a sequence.
      train_length: Shape (n,), int32, in 1..T.
      train_y: Shape (n,), int32, 0..K-1.
      test_x, test_length, test_y: The same of the test part; T and d are the same.
      classes: What label k means.
    """

    name: str
    train_x: np.ndarray
    train_length: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_length: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]


def vowels() -> SequenceSplit:
    """Reads Japanese Vowels: 270 + 370 utterances of /ae/ by nine men, each 7 to 29 steps of 12 LPC cepstra.

    The split is its own: 30 utterances a speaker for training, 24 to 88 for the test. What of it is not on this machine
    is fetched.

    Returns:
      The set, with T = 29 and d = 12; its arrays are the caller's own.
    Raises:
      ValueError: The file is damaged.
      OSError: It is not here and cannot be fetched; the message says what brings it.
    References:
      Kudo, Toyama & Shimbo (1999), Multidimensional curve classification using passing-through regions.
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


def padded(sequences: list[np.ndarray], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts sequences of different length into one array, with 0 after their ends.

    Args:
      sequences: Each of shape (t, d), with 1 <= t <= longest.
      longest: T.
    Returns:
      Shape (n, T, d), in the sequences' dtype; the lengths, int32.
    Raises:
      ValueError: A sequence is empty or too long.
    Example:
      >>> values, length = padded([np.ones((1, 2)), np.ones((3, 2))], 3)
      >>> values[0].tolist(), length.tolist()
      ([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], [1, 3])
    """
    length = np.array([len(sequence) for sequence in sequences], np.int32)
    bad = np.flatnonzero((length < 1) | (length > longest))
    if bad.size:
        raise ValueError(
            f"Sequence {bad[0]} has {length[bad[0]]} steps; it must have 1 to longest={longest}."
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
) -> tuple[list[np.ndarray], np.ndarray, tuple[str, ...]]:
    """Parses the format .ts of sktime and aeon.

    After a head of lines `#...` and `@...`, each line is one sequence: its dimensions and then its class, parted by
    colons; the values of a dimension are parted by commas.

    Args:
      text: The file.
      where: Its name, for messages.
    Returns:
      The sequences, each (t, d) float32; the labels, int32; what they mean.
    Raises:
      ValueError: A line has another number of dimensions than the head says, dimensions of different length, a value
        that is no finite number, or a class that the head does not name; or there is no line.
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
            wrong = f"has the class {reprlib.repr(label)}, which is none of {', '.join(classes)}"
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
            wrong = "has a value that is no number"
        if wrong:
            raise ValueError(
                f"Line {number} of {where} {wrong}: the file is damaged. Fetch it anew."
            )
        labels.append(classes.index(label))
    if not sequences:
        raise ValueError(
            f"{where} has no line after @data: the file is damaged. Fetch it anew."
        )
    return sequences, np.array(labels, np.int32), classes


def _head(fields: dict[str, list[str]], where: str) -> tuple[int, tuple[str, ...]]:
    """How many dimensions a sequence has, and the classes."""
    dimensions, classes = fields.get("@dimensions", []), fields.get("@classLabel", [])
    if (
        len(dimensions) != 1
        or not re.fullmatch("[1-9][0-9]{0,5}", dimensions[0])
        or len(classes) < 2
    ):
        raise ValueError(
            f"The head of {where} lacks @dimensions with a number, or @classLabel with classes: the file is damaged. "
            "Fetch it anew."
        )
    return int(dimensions[0]), tuple(classes[1:])
