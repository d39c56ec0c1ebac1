"""Search spaces of hyper-parameters, and the trials of a search."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import qmc

from research.checks import (
    check_count,
    check_instance,
    check_number,
    check_numbers,
    check_sequence,
    check_text,
)
from research.naming import known_names
from research.sizes import MOST_TRIALS, check_most
from research.update_rules import RULE_TABLE, Range

# Each row is one dimension of the Halton sequence. So two rules try the same values of
# a hyper-parameter that both have. If a rule has only one hyper-parameter, with a name
# that is not listed, it gets the first dimension, which covers its range best.
DIMENSIONS = (
    (
        "learning_rate",
        "distance_factor",
        "initial_scale",
        "alpha",
        "rate",
        "lr",
        "step_size",
        "max_learning_rate",
    ),
    ("momentum", "b1", "beta", "decay", "rho"),
    ("b2", "b3", "weight_decay", "decay_rate"),
    ("eps",),
)
SCALES = ("log", "linear", "one_minus")
ELSEWHERE = {"logarithm": "log", "logarithmic": "log"}  # Other names of the scales.

# A momentum closer to 1 than this is equal or almost equal to 1 in float32.
HIGHEST_SHARE = 1.0 - 1e-6

_HALTON_SEED = 0

# Least number of dimensions drawn, so that points do not depend on the space.
_DRAWN = 16


# {hyper-parameter: range}; empty if the rule has nothing to search.
Space = Mapping[str, Range]

# Search space of each rule of this package; and why the other rules are not compared.
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
    """Raise an error if a search space is not valid.

    Args:
      space: Dict from the name of each hyper-parameter to its `Range`. An empty dict is
        valid, for a rule without hyper-parameters to search.
      owner: Name of the rule, for error messages.
    Raises:
      TypeError: The space is not a mapping, a range is not a `Range`, or an end or a
        default is not a number.
      ValueError: The scale is unknown, a number is not finite, low is not below high,
        the default lies outside the range, low is not positive on the scale "log", or
        the range is not inside [0, 1) on the scale "one_minus".
    Example:
      >>> check_space({"learning_rate": Range(0.0, 1.0)}, "mine")
      Traceback (most recent call last):
      ValueError: mine.learning_rate: low must be above 0 on a log scale; got low=0.0.
    """
    check_text("owner", owner)
    if not isinstance(space, Mapping):
        raise TypeError(
            "a space must be a dict such as {'learning_rate': Range(1e-4, 1.0)}; "
            f"{owner + ' has' if owner else 'got'} {space!r}."
        )
    for name, range_ in space.items():
        where = f"{owner}.{name}" if owner else name
        if not isinstance(range_, Range):
            raise TypeError(
                f"{where} must be a Range, such as research.tuning.Range(1e-4, 1.0); "
                f"got {range_!r}."
            )
        _check_numbers(range_, where)
        low, high, scale, default = range_
        if scale == "log" and low <= 0:
            raise ValueError(
                f"{where}: low must be above 0 on a log scale; got low={low!r}."
            )
        if scale == "one_minus" and not (low >= 0 and high < 1):
            raise ValueError(
                f"{where}: a range on the one_minus scale needs 0 <= low < high < 1; "
                f"got low={low!r}, high={high!r}."
            )
        if low >= high:
            raise ValueError(
                f"{where}: low must be less than high; got low={low!r}, high={high!r}."
            )
        if default is not None and not low <= default <= high:
            raise ValueError(
                f"{where}: the default {default!r} lies outside {low!r}..{high!r}. "
                "Widen the range."
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
    """Return trials: the defaults, then points of a scrambled Halton sequence.

    A trial is a choice of hyper-parameters. Trial 0 has the default of each range. If a
    range has no default, trial 0 has the middle of this range, on its scale. Each name
    of the space uses one dimension of the Halton sequence. The constant DIMENSIONS
    lists the dimension for common names, so that two rules with the same
    hyper-parameter try the same positions in the range of this hyper-parameter. If a
    name is not listed, or if the dimension of the name is already in use, the name gets
    the first free dimension. The trials do not depend on `count`: a larger count only
    adds trials.

    Args:
      space: Ranges by name.
      count: Number of trials, positive. For an empty space, the result is {} for every
        count, because the defaults are the only trial.
    Returns:
      Values by name, each float64 of shape (count,).
    Raises:
      ValueError, TypeError: `count` is not a positive integer, or `space` is not valid.
    References:
      Halton, Numer. Math. 2 (1960); scrambled as in Owen, A randomized Halton algorithm
      in R, arXiv:1706.02808. Bergstra & Bengio, JMLR 13 (2012): why not a grid.
    Example:
      >>> print(
      ...     trials({"learning_rate": Range(0.01, 1.0)}, 3)["learning_rate"].round(3)
      ... )
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


def edges(
    space: Space, chosen: Mapping[str, float], outer: float = 0.1
) -> tuple[tuple[str, str], ...]:
    """Return the edges of a space at which a trial lies.

    A trial is a choice of hyper-parameters. If the best trial lies at an edge, a better
    trial may lie outside the space.

    Args:
      space: Ranges by name.
      chosen: Values of the trial by name.
      outer: Share of the width of a range that counts as an edge at each end. The width
        is measured on the scale of the range.
    Returns:
      Pairs (name, "low" or "high"), in the order of the space. On the scale
      "one_minus", a low end of 0 is not an edge, because smaller values are not
      allowed.
    Example:
      >>> momentum = Range(0.0, 0.99, "one_minus")
      >>> space = {"learning_rate": Range(0.01, 1.0), "momentum": momentum}
      >>> edges(space, {"learning_rate": 0.9, "momentum": 0.0})
      (('learning_rate', 'high'),)
    """
    places = []
    for name, range_ in space.items():
        position = _share(range_, chosen[name])
        if position <= outer and not (range_.scale == "one_minus" and range_.low == 0):
            places.append((name, "low"))
        elif position >= 1 - outer:
            places.append((name, "high"))
    return tuple(places)


def widen(
    space: Space, name: str, side: str
) -> tuple[dict[str, Range], dict[str, Range] | None]:
    """Widen a range at one end by a third of its width, measured on its scale.

    Args:
      space: Ranges by name.
      name: Name of the range to widen.
      side: End of the range, "low" or "high".
    Returns:
      Two spaces. In the first one, the range has the new end. In the second one, the
      range is only the part that was added. All other ranges are unchanged. If the
      range cannot grow, the result is (unchanged space, None). A range with the scale
      "linear" never grows. A range with the scale "one_minus" grows at most to 0 or to
      1 - 1e-6. A range with the scale "log" does not grow if its new end underflows to
      0 or overflows to infinity. `Range` defines the scales.
    Raises:
      ValueError: `name` is not in the space, or `side` is neither "low" nor "high".
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
            f"name must be one of {list(space)}, and side 'low' or 'high'; got "
            f"name={name!r}, side={side!r}."
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


def to_unit(space: Space) -> Float[np.ndarray, "1 dimensions"]:
    """Return the position of each default in its range, shape (1, number of ranges).

    A position says where a value lies in its range: 0 is the low end, and 1 the high
    end. On a range with the scale "log", which is the default scale, 1/2 is the
    geometric mean of the ends. On the scale "linear", 1/2 is the mean of the ends. On
    the scale "one_minus", 1/2 is 1 minus the geometric mean of 1 - low and 1 - high. A
    range without a default has the position 1/2.

    Example:
      >>> print(to_unit({"learning_rate": Range(0.01, 1.0, default=0.1)}))
      [[0.5]]
    """
    check_space(space)
    shares = [
        0.5 if r.default is None else float(_share(r, r.default))
        for r in space.values()
    ]
    return np.array([shares]).reshape(1, len(shares))


def from_unit(
    space: Space, shares: Float[np.ndarray, "points dimensions"]
) -> dict[str, Float[np.ndarray, " points"]]:
    """Convert positions in the ranges of a space to values.

    A position says where a value lies in its range: 0 is the low end, and 1 the high
    end. On a range with the scale "log", which is the default scale, 1/2 is the
    geometric mean of the ends. On the scale "linear", 1/2 is the mean of the ends. On
    the scale "one_minus", 1/2 is 1 minus the geometric mean of 1 - low and 1 - high. A
    position below 0 or above 1 gives a value outside the range.

    Args:
      space: Ranges by name.
      shares: Positions: a row for each point (a choice of hyper-parameters), and a
        column for each name of the space. A position of 0 or 1 gives exactly the end of
        the range.
    Returns:
      Dict from each name of the space to its values, shape (points,).
    Example:
      >>> print(from_unit({"rate": Range(0.01, 1.0)}, np.array([[0.0], [0.5], [1.5]])))
      {'rate': array([1.e-02, 1.e-01, 1.e+01])}
    """
    check_space(space)
    check_numbers("shares", shares, ndim=2)
    shares = np.asarray(shares, float)
    if shares.shape[1] != len(space):
        raise ValueError(
            f"shares must have a column for each of {list(space)}; got shape "
            f"{shares.shape}."
        )
    values = {}
    for (name, r), column in zip(space.items(), shares.T, strict=True):
        inside = (column >= 0) & (column <= 1)
        value = _value(r, column)
        value = np.where(inside, np.clip(value, r.low, r.high), value)
        value = np.where(column == 0, r.low, value)
        values[name] = np.where(column == 1, r.high, value)
    return values


def unit_limits(
    space: Space,
) -> tuple[Float[np.ndarray, " dimensions"], Float[np.ndarray, " dimensions"]]:
    """Return the lowest and the highest position that a search may try in each range.

    A position says where a value lies in its range: 0 is the low end, and 1 the high
    end (see `from_unit`). The limits of a range are the positions of the new ends that
    `widen` gives. On the scale "linear", the limits are 0 and 1, because `widen` does
    not change such a range. On the scales "log" and "one_minus", the limits are -1/3
    and 4/3, unless `widen` stops earlier. In the example, the momentum cannot be
    negative, so the lower limit of the momentum is the position 0.

    Example:
      >>> space = {"rate": Range(0.01, 10.0), "momentum": Range(0.0, 0.9, "one_minus")}
      >>> [limits.round(3).tolist() for limits in unit_limits(space)]
      [[-0.333, 0.0], [1.333, 1.333]]
    """
    check_space(space)
    lows, highs = [], []
    for name, r in space.items():
        lower = widen(space, name, "low")[0][name].low
        higher = widen(space, name, "high")[0][name].high
        lows.append(float(_share(r, lower)))
        highs.append(float(_share(r, higher)))
    return np.array(lows), np.array(highs)


def _share(range_: Range, value: float) -> float:
    """Return the position of a value in a range: 0 at low, 1 at high."""
    start, end = (
        _scaled(range_.low, range_.scale),
        _scaled(range_.high, range_.scale),
    )
    return (_scaled(value, range_.scale) - start) / (end - start)


def _beyond(range_: Range, side: str) -> float:
    """Return the new end of a range on the side that is widened.

    If the range cannot grow on this side, the new end is not beyond the old end.
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
    """Return the coordinates of `count` Halton points, in [0, 1), by name."""
    check_most(MOST_TRIALS, count=count)
    dimensions = _dimensions(space)
    drawn = max(_DRAWN, len(DIMENSIONS) + len(space))
    points = qmc.Halton(
        drawn, scramble=True, rng=np.random.default_rng(_HALTON_SEED)
    ).random(count)
    return {name: points[:, dimension] for name, dimension in dimensions.items()}


def _dimensions(space: Space) -> dict[str, int]:
    """Return the dimension of the Halton sequence for each name.

    The dimension is the row of the name in DIMENSIONS. If the name is not listed, or
    its row is already used, the name gets the first free dimension.
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
    """Return the position of a value on a scale. The position grows with the value."""
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
    """Return the values at the positions `shares` in [0, 1], which are in the range."""
    return np.clip(_value(range_, shares), range_.low, range_.high)


def _value(
    range_: Range, shares: Float[np.ndarray, "*trials"]
) -> Float[np.ndarray, "*trials"]:
    """Return the values at any positions: 0 at low, 1 at high, up to rounding."""
    start, end = _scaled(range_.low, range_.scale), _scaled(range_.high, range_.scale)
    return _unscaled(start + shares * (end - start), range_.scale)


def parse_range(text: str) -> Range:
    """Parse the text of a range, such as "1e-4..10" or "0.5..0.999 one_minus".

    The text gives the range of a hyper-parameter, for example on a command line. It
    consists of the two ends, the scale and a default value, as in "1e-4..10 log
    default=0.1". The scale and the default value may be left out. The scale is log,
    linear, or one_minus, which is logarithmic in 1 - value. If the text has no scale,
    the scale is log. This function checks only the syntax. `check_space` checks the
    ends, the scale and the default value.

    Raises:
      ValueError: The text does not have this syntax.
    Example:
      >>> parse_range("1e-4..10")
      Range(low=0.0001, high=10.0, scale='log', default=None)
      >>> parse_range("0.5..0.999 one_minus default=0.9")
      Range(low=0.5, high=0.999, scale='one_minus', default=0.9)
    """
    check_text("text", text)
    before, equals, usual = text.strip().partition("default=")
    ends, _, scale = before.strip().partition(" ")
    try:
        low, high = (float(end) for end in ends.split("..", 1))
        default = float(usual) if equals else None
    except ValueError:
        how = (
            "low..high, with a scale if it is not log: 1e-4..10 or '0.5..0.999 "
            "one_minus'"
        )
        raise ValueError(f"a range must be written {how}; got {text!r}.") from None
    return Range(low, high, scale.strip() or "log", default)


def range_text(range_: Range) -> str:
    """Return a range as text, from which `parse_range` recovers the range.

    Example:
      >>> range_text(Range(1e-4, 10.0, "log", 0.1))
      '0.0001..10.0 log default=0.1'
    """
    check_instance("range_", range_, Range, "Write Range(low, high).")
    text = f"{float(range_.low)!r}..{float(range_.high)!r} {range_.scale}"
    if range_.default is None:
        return text
    return f"{text} default={float(range_.default)!r}"


def parse_spaces(words: Iterable[str]) -> dict[str, dict[str, Range]]:
    """Parse the texts of search spaces, such as "mine.learning_rate=1e-4..10".

    Each text in `words`, for example from a command line, has the form rule.name=range.
    Here name is a hyper-parameter of the rule, and range has the syntax of
    `parse_range`.

    Returns:
      A dict {rule: {name: Range}} in which every range is valid.
    Raises:
      ValueError: A text has the wrong syntax, a range is given twice, or a range is not
        valid.
      TypeError: `words` is not a list of texts.
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
                "a space must be written rule.name=low..high, such as "
                f"adam.learning_rate=1e-4..1; got {word!r}."
            )
        if name in spaces.setdefault(rule, {}):
            raise ValueError(f"{rule}.{name} is given twice. Give one range.")
        spaces[rule][name] = parse_range(text)
        check_space({name: spaces[rule][name]}, rule)
    return spaces
