"""Return where the rules of a study come from: a name, a file, or their source."""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optax
import optax.contrib

from research import update_rules
from research.comparison.command import digests_of
from research.comparison.contenders import Contender, make_contenders
from research.comparison.network_contenders import ON_NETWORKS
from research.reading import read_bytes
from research.verification.rule_under_test import is_a_guard

IN_PYTHON = "<in Python>"  # Stands for a rule that has neither a name nor a file.
LARGEST_SOURCE = 2**18  # Bytes; of a larger file only the function is kept.
Make = Callable[..., tuple[Contender, ...]]
_INSTALLED = {"site-packages", "dist-packages"}


def origin(
    contenders: Sequence[Contender],
    own: Sequence[str] = (),
    make: Make = make_contenders,
) -> dict[str, Any]:
    """Return where the rules and the workloads of a study come from.

    Args:
      contenders: Rules with their search spaces.
      own: Names of the workloads that were given as objects, not by name.
      make: Function with which a command makes contenders: `make_contenders`, or
        `network_contenders` for a study on networks.
    Returns:
      A dict with four or five entries, which JSON can store. `words` is a dict from the
      name of each rule to the text with which a command line names this rule
      (`rule_word`). If such a text names a file, `files` has the texts of
      `digest_files` for this file. `code` lists the sources of the rules that are not
      from this package, as {"rules": [name, ...], "text": source}. Rules with the same
      source share an entry, and the text is None if the source is unknown. `own` is the
      argument `own` as a list. `contenders` lists the rules that a command line can
      name, but that were given as a Contender with another search space or another
      constructor than the command would make. If there are none, this entry is missing.
    """
    constructors = {c.name: inspect.unwrap(c.make_rule) for c in contenders}
    words = {name: rule_word(rule) for name, rule in constructors.items()}
    code: dict[str | None, list[str]] = {}
    for name, rule in constructors.items():
        if our_name(rule) is None:
            code.setdefault(source_text(rule), []).append(name)
    others = [one.name for one in contenders if _is_other(one, words[one.name], make)]
    files = [
        _own_file(constructors[name]) for name, word in words.items() if ".py:" in word
    ]
    found = {
        "words": words,
        "files": [*digests_of([path for path in files if path is not None])],
        "code": [{"rules": names, "text": text} for text, names in code.items()],
        "own": list(own),
    }
    return found | ({"contenders": others} if others else {})


def _is_other(contender: Contender, word: str, make: Make) -> bool:
    """Return whether a command with the rule text `word` makes another contender."""
    if word == IN_PYTHON:
        return False
    name, constructor = contender.name, inspect.unwrap(contender.make_rule)
    rule = word if word in update_rules.RULE_TABLE else constructor
    try:
        (made,) = make({name: rule}, spaces={name: contender.space})
    except (ValueError, TypeError):
        return True
    spaces = [list(one.space.items()) for one in (made, contender)]
    return spaces[0] != spaces[1] or inspect.unwrap(made.make_rule) is not constructor


def rule_word(constructor: Any) -> str:
    """Return the text that names a rule on a command line.

    The text is the name of a rule of this package, optax.NAME, or FILE.py:NAME. The
    path of the file is relative to the current folder. For a file outside this folder,
    only the file's name is given. For any other rule, such as a lambda or a rule of the
    script that is running, the text is the constant `IN_PYTHON`, "<in Python>".

    Example:
      >>> (
      ...     rule_word(update_rules.adam),
      ...     rule_word(optax.contrib.dog),
      ...     rule_word(lambda r: r),
      ... )
      ('adam', 'optax.contrib.dog', '<in Python>')
    """
    constructor = inspect.unwrap(constructor)
    name = getattr(constructor, "__name__", "")
    found: Any
    for package in (optax, optax.contrib):
        found = getattr(package, name, None)
        if callable(found) and inspect.unwrap(found) is constructor:
            return f"{package.__name__}.{name}"
    return our_name(constructor) or _file_word(constructor) or IN_PYTHON


def our_name(constructor: Any) -> str | None:
    """Return the name of a rule of this package, or None for any other rule.

    `constructor` is the function that makes the rule, without its wrappers. The caller
    removes the wrappers with `inspect.unwrap`.
    """
    for name, entry in update_rules.RULE_TABLE.items():
        if inspect.unwrap(entry.constructor) is constructor:
            return name
    on_networks = {name: pair[1] for name, pair in ON_NETWORKS.items()}
    return next(
        (name for name, rule in on_networks.items() if rule is constructor), None
    )


def source_text(constructor: Any) -> str | None:
    """Return the source of a rule: its whole file, or else its function.

    The rule may use other parts of its file. The whole file is therefore returned if it
    belongs to the user and has at most 256 KiB. Otherwise, for example for a rule in an
    installed package or a notebook, only the source of the rule's function is returned.
    For a functools.partial, the text begins with a line such as
    "functools.partial(rule, decay=0.9)".

    Returns:
      The source. None if the source is unknown, for example for a gradient
      transformation, which is not a function.
    """
    if isinstance(constructor, functools.partial):
        return _partial_text(constructor)
    file = _own_file(constructor)
    try:
        if file is not None:
            return read_bytes(file, LARGEST_SOURCE).decode()
    except (OSError, ValueError):  # Too large, or not UTF-8.
        pass
    try:
        return None if is_a_guard(constructor) else inspect.getsource(constructor)
    except (TypeError, OSError):
        return None


def _partial_text(constructor: functools.partial) -> str:
    name = getattr(constructor.func, "__name__", repr(constructor.func))
    terms = [repr(value) for value in constructor.args]
    terms += [f"{key}={value!r}" for key, value in constructor.keywords.items()]
    first = f"functools.partial({', '.join([name, *terms])})\n"
    known = our_name(inspect.unwrap(constructor.func)) is not None
    rest = None if known else source_text(constructor.func)
    return first if rest is None else f"{first}\n{rest}"


def _own_file(constructor: Any) -> Path | None:
    """Return the file of the user in which a function is defined."""
    if not inspect.isfunction(constructor) or is_a_guard(constructor):
        return None
    file = Path(constructor.__code__.co_filename)
    if not file.is_file() or _INSTALLED & {*file.parts}:
        return None
    return file


def _file_word(constructor: Any) -> str | None:
    """Return FILE.py:NAME of a function at the top of a module that can be imported."""
    file = _own_file(constructor)
    place, name = (
        getattr(constructor, attribute, "")
        for attribute in ("__module__", "__qualname__")
    )
    # If two files in different folders have the same name, sys.modules has neither.
    module = sys.modules.get(place)
    known = getattr(constructor, "__globals__", vars(module) if module else {})
    if file is None or file.suffix != ".py":
        return None
    # Importing a script would run it.
    if place == "__main__" or known.get(name) is not constructor:
        return None
    return f"{_place(file)}:{name}"


def _place(file: Path) -> str:
    here = Path.cwd().resolve()
    file = file.resolve()
    return str(file.relative_to(here)) if file.is_relative_to(here) else file.name
