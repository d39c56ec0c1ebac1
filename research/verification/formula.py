"""What a formula is: a rule as its paper prints it, in fifty digits, with the mistakes
that are made in it."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from research.verification.leaves import Leaves


class Function(NamedTuple):
    """What a formula descends on.

    Attributes:
      gradient: Leaves -> Leaves.
      value: Leaves -> number, or None where only gradients are given.
      hessian: Leaves -> mpmath matrix over all entries in order, or None.
    """

    gradient: Callable[[Leaves], Leaves]
    value: Callable[[Leaves], Any] | None = None
    hessian: Callable[[Leaves], Any] | None = None


class Mistake(NamedTuple):
    """A slip that turns a formula into another rule.

    Attributes:
      cause: The slip in a few words, as a reader of the wrong rule is told: "ε inside
        the root".
      right: A piece of the formula's source, which occurs in it exactly once.
      wrong: What the slip makes of it.
    """

    cause: str
    right: str
    wrong: str


class Formula(NamedTuple):
    """A rule in fifty digits, and what can go wrong with it.

    Attributes:
      iterates: A generator function (x, f, learning_rate, ...) -> x_1, x_2, ...: x is
        Leaves, f a Function; the other arguments have the names and defaults of our
        rule's.
      mistakes: The slips that are tried on a rule which does not agree.
    """

    iterates: Callable[..., Iterator[Leaves]]
    mistakes: tuple[Mistake, ...] = ()


def mistaken(formula: Formula, mistake: Mistake) -> Callable[..., Iterator[Leaves]]:
    """The formula with that mistake made in it: its source, edited and compiled.

    Args:
      formula: As written.
      mistake: One of its own.
    Returns:
      The generator function of the wrong rule.
    Raises:
      ValueError: mistake.right does not occur exactly once.
    """
    source = textwrap.dedent(inspect.getsource(formula.iterates))
    as_written = re.compile(re.escape(mistake.right))
    broken = _over_several_lines(mistake.right)
    pattern = as_written if as_written.search(source) else broken
    edited, count = pattern.subn(lambda _: mistake.wrong, source)
    if count != 1:
        raise ValueError(
            f"{mistake.right!r} must occur once in the formula "
            f"{formula.iterates.__name__}; it occurs {count} times."
        )
    names = dict(inspect.getmodule(formula.iterates).__dict__)
    exec(compile(edited, f"<{mistake.cause}>", "exec"), names)
    return names[formula.iterates.__name__]


def _over_several_lines(code: str) -> re.Pattern[str]:
    """Match the code where a formatter has broken its line."""
    spaces = {"(": r"\(\s*", "[": r"\[\s*", ")": r",?\s*\)", "]": r",?\s*\]"}
    parts: list[str] = re.findall(r"\s+|[()\[\]]|[^\s()\[\]]+", code)
    return re.compile(
        "".join(
            r"\s+" if part.isspace() else spaces.get(part, re.escape(part))
            for part in parts
        )
    )
