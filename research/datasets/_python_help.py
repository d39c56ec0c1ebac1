"""A text that every installation of Python contains: its own help topics."""

from research.datasets.texts import Text, as_text

CHARACTERS = 300_000


def python_help() -> Text:
    """Load the topics of Python's `help` in alphabetical order, as English text.

    It needs neither network nor files, and replaces a text that is missing. The text
    differs between versions of Python, so results on it are not comparable.

    Returns:
      The first 300,000 ASCII characters.
    Example:
      >>> len(python_help().characters)
      300000
    """
    from pydoc_data.topics import topics

    whole = "\n".join(topics[name] for name in sorted(topics))
    return as_text(
        "python_help",
        whole.encode("ascii", "ignore").decode()[:CHARACTERS],
        claim=False,
    )
