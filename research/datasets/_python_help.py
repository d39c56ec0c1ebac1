"""A text that is wherever Python is: what its own help says of its topics."""

from research.datasets.texts import Text, as_text

CHARACTERS = 300_000


def python_help() -> Text:
    """English about Python, without network or files: the topics of `help`, in alphabetical order.

    It stands in where a text is missing. Each version of Python has another one, so no number may be claimed on it.

    Returns:
      The first 300,000 ASCII characters of it.
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
