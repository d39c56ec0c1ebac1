"""Suggestions for error messages about unknown names."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from research.checks import check_text, shown


def known_names(
    name: Any, known: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> str:
    """Return the end of an error message about an unknown name.

    The text first suggests a similar valid name, if there is one, and then lists all
    valid names.

    Args:
      name: Name that the user wrote.
      known: Valid names.
      elsewhere: Mapping from names in other packages, in lower case, to the
        corresponding valid names. If the user wrote a key of this mapping, in upper or
        lower case, the text suggests the corresponding valid name. None means an empty
        mapping.
    Returns:
      Text that follows the unknown name in the message.
    Raises:
      TypeError: known is not a collection of str, or elsewhere is not a mapping.
    Example:
      >>> known_names("adm", ["adam", "nesterov"])
      "; did you mean 'adam'? Known: adam, nesterov."
      >>> known_names("x", ["adam"])
      '. Known: adam.'
    """
    known, word = _checked(known), str(name).lower()
    if elsewhere is not None and not isinstance(elsewhere, Mapping):
        raise TypeError(
            f"elsewhere must map names to names; got elsewhere={elsewhere!r}."
        )
    close = (elsewhere or {}).get(word) or closest(word, known)
    guess = f"; did you mean {close!r}?" if close else "."
    return f"{guess} Known: {', '.join(known) or 'none'}."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the most similar known name.

    If no known name is similar, the sentence lists all known names.

    Args:
      name: Name that the user wrote.
      known: Valid names.
    Returns:
      One sentence.
    Raises:
      TypeError: name is not a str, or known is not a collection of str.
    Example:
      >>> nearest("leanring_rate", ["seed", "learning_rate"])
      'Did you mean learning_rate?'
      >>> nearest("xyz", ["seed", "learning_rate"])
      'Choose from seed, learning_rate.'
    """
    known = _checked(known)
    close = closest(name, known)
    return f"Did you mean {close}?" if close else f"Choose from {', '.join(known)}."


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, or None if no name is similar.

    Raises:
      TypeError: name is not a str, or known is not a collection of str.
    Example:
      >>> closest("adm", ["adam", "lion"]), closest("xyz", ["adam"])
      ('adam', None)
    """
    check_text("name", name)
    return next(iter(difflib.get_close_matches(name, _checked(known), n=1)), None)


def _checked(known: Iterable[str]) -> list[str]:
    """Return the valid names as a list, or raise TypeError if they are no names."""
    if isinstance(known, str | bytes) or not isinstance(known, Iterable):
        raise TypeError(
            f"known must be a collection of names; got known={shown(known)}."
        )
    names = list(known)
    if not all(isinstance(one, str) for one in names):
        raise TypeError(f"every name in known must be a str; got known={shown(names)}.")
    return names
