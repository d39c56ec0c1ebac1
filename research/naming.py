"""What an error says after a name that is not known."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def known_names(
    name: Any, known: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> str:
    """The end of a message about a name that is not known: the nearest, where one is
    near, then all.

    Args:
      name: What was written.
      known: What could have been written.
      elsewhere: What things are called elsewhere, in small letters, and their names
        here.
    Returns:
      A text that follows the name.
    Example:
      >>> known_names("adm", ["adam", "nesterov"])
      "; did you mean 'adam'? Known: adam, nesterov."
      >>> known_names("x", ["adam"])
      '. Known: adam.'
    """
    if isinstance(known, str | bytes) or not isinstance(known, Iterable):
        raise TypeError(f"known must be several names; got known={known!r}.")
    known, word = list(known), str(name).lower()
    if not all(isinstance(one, str) for one in known):
        raise TypeError(f"known must be names, each a str; got known={known!r}.")
    if elsewhere is not None and not isinstance(elsewhere, Mapping):
        raise TypeError(
            f"elsewhere must be a dict of names; got elsewhere={elsewhere!r}."
        )
    found = (elsewhere or {}).get(word, *difflib.get_close_matches(word, known, n=1))
    guess = f"; did you mean {found!r}?" if found else "."
    return f"{guess} Known: {', '.join(known) or 'none'}."
