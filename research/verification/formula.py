"""Formulas of rules, as their papers print them, computed with fifty digits.

Each formula has a list of mistakes that code of the rule often contains.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from research.verification.leaves import Leaves

Matrix = Any  # A matrix of mpmath.


class Function(NamedTuple):
    """An objective f, as `Formula.iterates` receives it.

    Params and gradients are `Leaves`: the leaves of a pytree, as arrays of mpmath
    numbers.

    Attributes:
      gradient: Function (Leaves) -> Leaves.
      value: Function (Leaves) -> number. None if only gradients are given.
      hessian: Function (Leaves) -> the Hessian as an mpmath matrix. Its rows and
        columns have the order of the entries of all leaves. None if the Hessian is not
        given.
    """

    gradient: Callable[[Leaves], Leaves]
    value: Any = None
    hessian: Callable[[Leaves], Any] | None = None


class Mistake(NamedTuple):
    """A mistake in the formula of an update rule, as a change of the source code.

    Attributes:
      cause: Short description of the mistake, such as "ε inside the root".
      right: Part of the formula's source code. It occurs there exactly once.
      wrong: Code that replaces this part.
    """

    cause: str
    right: str
    wrong: str


class Formula(NamedTuple):
    """A rule as its paper prints it, in arithmetic of fifty digits.

    The mistakes are those that code of this rule often contains.

    Attributes:
      iterates: Generator function of (x, f, learning_rate, ...) that yields the
        iterates x_1, x_2 and so on. Here x is the initial point (a Leaves), and f is a
        Function. The other arguments have the names and defaults of this library's
        rule.
      mistakes: Mistakes that are tried if a rule deviates from the formula.
    """

    iterates: Callable[..., Iterator[Leaves]]
    mistakes: tuple[Mistake, ...] = ()


def mistaken(formula: Formula, *mistakes: Mistake) -> Callable[..., Iterator[Leaves]]:
    """Return a wrong version of a formula, made by editing the formula's source.

    Args:
      formula: The correct formula.
      *mistakes: Mistakes that can be made in this formula. They are made in this order.
    Returns:
      A generator function like `formula.iterates`, which yields the iterates of the
      wrong version.
    Raises:
      ValueError: The code that a mistake replaces (its field `right`) does not occur
        exactly once in the source, as the mistakes before it have changed the source.
    """
    source = textwrap.dedent(inspect.getsource(formula.iterates))
    for mistake in mistakes:
        as_written = re.compile(re.escape(mistake.right))
        broken = _over_several_lines(mistake.right)
        pattern = as_written if as_written.search(source) else broken
        source, count = pattern.subn(lambda _, wrong=mistake.wrong: wrong, source)
        if count != 1:
            raise ValueError(
                f"{mistake.right!r} must occur once in the formula "
                f"{formula.iterates.__name__}; it occurs {count} times."
            )
    names = dict(inspect.getmodule(formula.iterates).__dict__)
    cause = ", and ".join(mistake.cause for mistake in mistakes)
    exec(compile(source, f"<{cause}>", "exec"), names)
    return names[formula.iterates.__name__]


def _over_several_lines(code: str) -> re.Pattern[str]:
    """Return a pattern that matches the code, also if it is split over several lines.

    A formatter splits a long line in this way.
    """
    spaces = {"(": r"\(\s*", "[": r"\[\s*", ")": r",?\s*\)", "]": r",?\s*\]"}
    parts: list[str] = re.findall(r"\s+|[()\[\]]|[^\s()\[\]]+", code)
    return re.compile(
        "".join(
            r"\s+" if part.isspace() else spaces.get(part, re.escape(part))
            for part in parts
        )
    )
