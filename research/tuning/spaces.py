"""Search spaces of hyper-parameters, and the trials of a search."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import qmc

from research.checks import check_count, check_number, check_sequence, check_text
from research.naming import known_names
from research.sizes import MOST_TRIALS, check_most
from research.update_rules import RULE_TABLE, Range

# Names of one row share a dimension of the sequence, so that two rules try the same
# points of what they share, and so that a rule with one hyper-parameter, whatever its
# name, gets the first dimension, which covers best.
DIMENSIONS = (
    (
        "learning_rate",
        "distance_factor",
        "rate",
        "lr",
        "step_size",
        "max_learning_rate",
    ),
    ("momentum", "b1", "beta", "decay", "rho"),
    ("b2", "weight_decay"),
    ("eps",),
)
SCALES = ("log", "linear", "one_minus")
ELSEWHERE = {"logarithm": "log", "logarithmic": "log"}  # What else they may be called.

# A momentum closer to 1 is 1 in float32, or nearly.
HIGHEST_SHARE = 1.0 - 1e-6

_HALTON_SEED = 0

# How many dimensions are always drawn, so that no space changes the points of another.
_DRAWN = 16


# By the name of the hyper-parameter; empty where there is nothing to choose.
Space = Mapping[str, Range]

# Of our rules: what is searched, and why the others are not compared.
SPACES: dict[str, Space] = {
    name: entry.search_space
    for name, entry in RULE_TABLE.items()
    if not isinstance(entry.search_space, str)
}
NOT_COMPARED: dict[str, str] = {
    name: entry.search_space
    for name, entry in RULE_TABLE.items()
    if isinstance(entry.search_space, str)
}


def check_space(space: Space, owner: str = "") -> None:
    """Refuse a space that has no points, or none on its scale.

    Args:
      space: Ranges by name. An empty one is allowed: such a rule has one trial.
      owner: The rule's name, for messages.
    Raises:
      TypeError: The space is no dict, a range no Range, or an end no number.
      ValueError: Ends or scale do not fit each other.
    Example:
      >>> check_space({"learning_rate": Range(0.0, 1.0)}, "mine")
      Traceback (most recent call last):
      ValueError: mine.learning_rate: a log scale starts above 0; got low=0.0.
    """
    check_text("owner", owner)
    if not isinstance(space, Mapping):
        raise TypeError(
            "a space is a dict, such as {'learning_rate': Range(1e-4, 1.0)}; "
            f"{owner} has {space!r}."
        )
    for name, range_ in space.items():
        where = f"{owner}.{name}" if owner else name
        if not isinstance(range_, Range):
            raise TypeError(
                f"{where} must be a Range, such as Range(1e-4, 1.0); got {range_!r}."
            )
        _check_numbers(range_, where)
        low, high, scale, default = range_
        if scale == "log" and low <= 0:
            raise ValueError(f"{where}: a log scale starts above 0; got low={low!r}.")
        if scale == "one_minus" and not (low >= 0 and high < 1):
            raise ValueError(
                f"{where}: a one_minus scale goes from 0 or more to less than 1; got "
                f"{low!r}..{high!r}."
            )
        if low >= high:
            raise ValueError(
                f"{where}: low must be less than high; got low={low!r}, high={high!r}."
            )
        if default is not None and not low <= default <= high:
            raise ValueError(
                f"{where}: the default {default!r} lies outside {low!r}..{high!r}; "
                "widen the range."
            )


def _check_numbers(range_: Range, where: str) -> None:
    if range_.scale not in SCALES:
        raise ValueError(
            f"{where}: unknown scale "
            f"{range_.scale!r}{known_names(range_.scale, SCALES, ELSEWHERE)}"
        )
    for end in ("low", "high", "default"):
        value = getattr(range_, end)
        if end != "default" or value is not None:
            check_number(f"{where}.{end}", value, signed=True)


def trials(space: Space, count: int) -> dict[str, Float[np.ndarray, " trials"]]:
    """Return the first trials of a search: defaults, then a scrambled Halton sequence.

    The same name gets the same points in every space, and more trials begin with the
    fewer. (A name that is not in DIMENSIONS, or whose row another name of the space has
    taken, gets the first dimension that is free.)

    Args:
      space: Ranges by name; checked.
      count: How many trials, positive. A space without hyper-parameters has one trial
        and no array: {}.
    Returns:
      Values by name, each float64 of shape (count,).
    Raises:
      ValueError, TypeError: count is not a positive integer, or the space is none.
    References:
      Halton, Numer. Math. 2 (1960); scrambled as Owen, A randomized Halton algorithm in
      R, arXiv:1706.02808. Bergstra & Bengio, JMLR 13 (2012): why not a grid.
    Example:
      >>> print(trials({"learning_rate": Range(0.01, 1.0)}, 3)["learning_rate"].round(3))
      [0.1   0.26  0.026]
    """
    check_space(space)
    check_count("count", count)
    points = _points(space, count - 1)
    return {
        name: np.concatenate(
            [
                [float(_at(r, np.array(0.5))) if r.default is None else r.default],
                _at(r, points[name]),
            ]
        )
        for name, r in space.items()
    }


def added_trials(
    part: Space, count: int, start: int
) -> dict[str, Float[np.ndarray, " trials"]]:
    """Return further trials, inside a part that `widen` has added.

    Args:
      part: What was added; the other hyper-parameters with their whole ranges.
      count: How many.
      start: How many trials were made before, at least 1: the Halton sequence goes on
        from there.
    Returns:
      Values by name, each float64 of shape (count,).
    Raises:
      ValueError, TypeError: count or start is not a positive integer, or the space is
        none.
    Example:
      >>> _, part = widen({"learning_rate": Range(0.01, 10.0)}, "learning_rate", "high")
      >>> added = added_trials(part, 4, start=12)["learning_rate"]
      >>> print(added.min() >= 10.0, added.max() <= 100.0)
      True True
    """
    check_space(part)
    check_count("count", count)
    check_count("start", start)
    points = _points(part, start - 1 + count)
    return {name: _at(r, points[name][start - 1 :]) for name, r in part.items()}


def edges(
    space: Space, chosen: Mapping[str, float], outer: float = 0.1
) -> tuple[tuple[str, str], ...]:
    """Return where a trial lies in the outer part of a range; the best may lie outside.

    Args:
      space: Ranges by name.
      chosen: The trial's values by name.
      outer: Share of a range at each end that counts as its edge.
    Returns:
      (name, "low" or "high"), in the order of the space. The low end 0 of a one_minus
      range is no edge: nothing is beyond it.
    Example:
      >>> momentum = Range(0.0, 0.99, "one_minus")
      >>> space = {"learning_rate": Range(0.01, 1.0), "momentum": momentum}
      >>> edges(space, {"learning_rate": 0.9, "momentum": 0.0})
      (('learning_rate', 'high'),)
    """
    places = []
    for name, range_ in space.items():
        start, end = (
            _scaled(range_.low, range_.scale),
            _scaled(range_.high, range_.scale),
        )
        position = (_scaled(chosen[name], range_.scale) - start) / (end - start)
        if position <= outer and not (range_.scale == "one_minus" and range_.low == 0):
            places.append((name, "low"))
        elif position >= 1 - outer:
            places.append((name, "high"))
    return tuple(places)


def widen(
    space: Space, name: str, side: str
) -> tuple[dict[str, Range], dict[str, Range] | None]:
    """Widen a range by a third of its width, on its scale, beyond one of its ends.

    Args:
      space: Ranges by name.
      name: Whose range.
      side: "low" or "high".
    Returns:
      (the whole new space, what was added as a space of its own). The second is None,
      and the first as before, where nothing lies beyond: a linear range does not grow,
      nor a one_minus range below 0 or beyond HIGHEST_SHARE.
    Raises:
      ValueError: Another name or side.
    Example:
      >>> space = {"learning_rate": Range(0.01, 10.0, default=0.1)}
      >>> whole, part = widen(space, "learning_rate", "high")
      >>> print(round(whole["learning_rate"].high, 6), part["learning_rate"].low)
      100.0 10.0
      >>> space = {"momentum": Range(0.0, 0.99, "one_minus")}
      >>> widen(space, "momentum", "low")[1] is None
      True
    """
    if name not in space or side not in ("low", "high"):
        raise ValueError(
            f"widen takes a name of {list(space)} and a side, low or high; got "
            f"{name!r}, {side!r}."
        )
    range_, end = space[name], _beyond(space[name], side)
    if side == "low":
        whole, part = range_._replace(low=end), Range(end, range_.low, range_.scale)
    else:
        whole, part = range_._replace(high=end), Range(range_.high, end, range_.scale)
    if (
        part.low >= part.high
        or not math.isfinite(end)
        or (range_.scale == "log" and end == 0)
    ):
        return dict(space), None
    return {**space, name: whole}, {**space, name: part}


def _beyond(range_: Range, side: str) -> float:
    """Return the new end of a side that is widened.

    It is the old end, or one within, where the side has to stay.
    """
    if range_.scale == "linear":
        return range_.low if side == "low" else range_.high
    start, end = _scaled(range_.low, range_.scale), _scaled(range_.high, range_.scale)
    third = (end - start) / 3
    moved = float(
        _unscaled(start - third if side == "low" else end + third, range_.scale)
    )
    return moved if range_.scale == "log" else min(max(moved, 0.0), HIGHEST_SHARE)


def _points(space: Space, count: int) -> dict[str, np.ndarray]:
    """Return the first points of the sequence in [0, 1), by name."""
    check_most(MOST_TRIALS, count=count)
    dimensions = _dimensions(space)
    drawn = max(_DRAWN, len(DIMENSIONS) + len(space))
    points = qmc.Halton(
        drawn, scramble=True, rng=np.random.default_rng(_HALTON_SEED)
    ).random(count)
    return {name: points[:, dimension] for name, dimension in dimensions.items()}


def _dimensions(space: Space) -> dict[str, int]:
    """Return a dimension of the sequence for each name.

    It is that of the name's row, or the first free one if that is taken or there is
    none.
    """
    dimensions: dict[str, int] = {}
    for row, names in enumerate(DIMENSIONS):
        dimensions |= dict.fromkeys([name for name in names if name in space][:1], row)
    for name in sorted(set(space) - set(dimensions)):
        dimensions[name] = min(
            set(range(len(space) + len(DIMENSIONS))) - set(dimensions.values())
        )
    return dimensions


def _scaled(value: float, scale: str) -> float:
    """Return where a value lies on its scale, which ascends."""
    if scale == "linear":
        return float(value)
    return math.log(value) if scale == "log" else -math.log1p(-value)


def _unscaled(position: Any, scale: str) -> Any:
    if scale == "linear":
        return position
    with np.errstate(over="ignore"):
        return np.exp(position) if scale == "log" else -np.expm1(-position)


def _at(
    range_: Range, shares: Float[np.ndarray, "*trials"]
) -> Float[np.ndarray, "*trials"]:
    """Return the values at these shares of the way from low to high."""
    start, end = _scaled(range_.low, range_.scale), _scaled(range_.high, range_.scale)
    return np.clip(
        _unscaled(start + shares * (end - start), range_.scale), range_.low, range_.high
    )


def parse_range(text: str) -> Range:
    """Read a range of a command line: "1e-4..10", "0.5..0.999 one_minus".

    Raises:
      ValueError: It is written in another way, or is no range.
    Example:
      >>> parse_range("1e-4..10")
      Range(low=0.0001, high=10.0, scale='log', default=None)
    """
    check_text("text", text)
    ends, _, scale = text.strip().partition(" ")
    try:
        low, high = (float(end) for end in ends.split("..", 1))
    except ValueError:
        how = (
            "low..high, with a scale where it is not log: 1e-4..10 or '0.5..0.999 "
            "one_minus'"
        )
        raise ValueError(f"a range is written {how}; got {text!r}.") from None
    return Range(low, high, scale.strip() or "log")


def parse_spaces(words: Iterable[str]) -> dict[str, dict[str, Range]]:
    """Read search spaces of a command line: "mine.learning_rate=1e-4..10", one a word.

    Returns:
      {rule: {name: Range}}, checked.
    Raises:
      ValueError: A word is written in another way, a name comes twice, or a range is
        none.
    Example:
      >>> parse_spaces(["mine.rate=1e-4..10"])
      {'mine': {'rate': Range(low=0.0001, high=10.0, scale='log', default=None)}}
    """
    check_sequence("words", words, "texts such as mine.rate=1e-4..10", str)
    spaces: dict[str, dict[str, Range]] = {}
    for word in words:
        target, equals, text = word.partition("=")
        rule, _, name = target.strip().rpartition(".")
        if not (equals and rule and name.isidentifier()):
            raise ValueError(
                "a space is written rule.name=low..high, as in "
                f"adam.learning_rate=1e-4..1; got {word!r}."
            )
        if name in spaces.setdefault(rule, {}):
            raise ValueError(f"{rule}.{name} is given twice; one range is enough.")
        spaces[rule][name] = parse_range(text)
        check_space({name: spaces[rule][name]}, rule)
    return spaces
