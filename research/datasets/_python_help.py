"""Python's own help topics, a text that every installation of Python contains."""

from research.datasets.texts import Text, as_text

CHARACTERS = 300_000


def python_help() -> Text:
    """Load the topics of Python's `help` in alphabetical order, as English text.

    Use this text if no other text is available: it needs neither a network nor files.
    The text depends on the version of Python. Results on this text can therefore be
    compared only within one version of Python.

    Returns:
      A `Text` of the first 300,000 ASCII characters. All non-ASCII characters are
      left out.
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
