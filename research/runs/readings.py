"""Read the table entries, numbers and intervals of a stored reference."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from research.runs.comparison import CLOCK

NUMBER = r"[-+−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?"
INTERVAL = rf"[\[(]?\s*({NUMBER})\s*(?:,|to)\s+({NUMBER})\s*%?\s*[\])]?"
ESTIMATE = rf"({NUMBER})\s*%?\s*[\[(]\s*({NUMBER})\s*(?:,|to)\s+({NUMBER})\s*%?\s*[\])]"


class Entry(NamedTuple):
    """One entry of a table, or one number, with its name and interval.

    Attributes:
      value: Value of the entry.
      name: Name of the column or of the number.
      scale: Largest finite absolute value in the column or list of the entry, but at
        least 1.
      interval: Pair (low, high) if the entry is an estimate with an interval. Otherwise
        None.
      of: Place of an estimate, such as "row 2, loss", if the entry is the low or the
        high end of the interval of this estimate. Otherwise None.
    """

    value: Any
    name: str
    scale: float = 1.0
    interval: tuple[float, float] | None = None
    of: str | None = None


def read_entries(reference: Mapping[str, Any]) -> dict[str, Entry]:
    """Return the table entries and the numbers of a reference, except times.

    A reference has the table, the numbers and the intervals of an earlier run. The
    result is a dict from a place to the `Entry` at this place. The place of an entry of
    the table is a text such as "row 2, loss". The place of a number is its name, such
    as "final_loss", or "final_loss[3]" in a list. Entries whose place contains
    "seconds" are left out.

    An estimate is an entry of the table that has an interval. The interval can be in
    the same entry ("84 % [81, 86]") or in the next entry ("1.571 to 1.600"). The
    interval can also be in the next two entries, if their headings end in "low" and
    "high".

    A number that is not in the table has the interval that the reference lists for this
    number under `intervals`. If no interval is listed and the number is a float with a
    fractional part, the number is compared with the estimates in the table. If the
    number, rounded to the digits of an estimate, equals the estimate, the number gets
    the interval of this estimate. If several estimates equal the rounded number, the
    number gets the narrowest of their intervals. Estimates in percent are not compared.

    Args:
      reference: Reference, from `reference_of` or `read_reference`.
    """
    entries = dict(_table_entries(reference["table"]))
    named = {name: tuple(ends) for name, ends in reference.get("intervals", {}).items()}
    estimates = [entry for entry in entries.values() if entry.interval]
    for name, value in reference["numbers"].items():
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        scale = _scale(value if isinstance(value, list) else [value])
        for i, item in items:
            interval = named.get(name) or _interval_in(estimates, item)
            entries[name if i is None else f"{name}[{i}]"] = Entry(
                item, name, scale, interval
            )
    return {place: entry for place, entry in entries.items() if CLOCK not in place}


def as_number(value: Any) -> float | None:
    """Return the number in a table entry, or None if the entry is not a number.

    In a text, only a percent sign and an interval may follow the number: "84 % [81,
    86]" gives 84, and "7 of 9" gives None. A bool is not a number.

    Example:
      >>> [
      ...     as_number(value)
      ...     for value in (
      ...         0.5,
      ...         "1.518",
      ...         "84 % [81, 86]",
      ...         "4e-16",
      ...         "7 of 9",
      ...         True,
      ...         None,
      ...     )
      ... ]
      [0.5, 1.518, 84.0, 4e-16, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return float(value)
    found = re.fullmatch(ESTIMATE, value) or re.fullmatch(rf"({NUMBER})\s*%?", value)
    return _number(found[1]) if found else None


def _table_entries(table: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    columns: Sequence[str] = table["columns"]
    scales = [_scale(column) for column in zip(*table["rows"], strict=True)] or [
        1.0
    ] * len(columns)
    for row_number, row in enumerate(table["rows"], 1):
        places = [f"row {row_number}, {column}" for column in columns]
        left, of = (
            0,
            "",
        )  # Number of following entries that are interval ends; the estimate's place.
        for i, value in enumerate(row):
            if left:
                left -= 1
                yield places[i], Entry(value, columns[i], scales[i], of=of)
                continue
            interval, left, of = *_interval_at(columns, row, i), places[i]
            yield places[i], Entry(value, columns[i], scales[i], interval)


def _interval_at(
    columns: Sequence[str], row: Sequence[Any], i: int
) -> tuple[tuple[float, float] | None, int]:
    """Return the interval of a row's i-th entry, and how many later entries it fills.

    The interval fills no later entry if it is in the i-th entry itself.
    """
    value = as_number(row[i])
    if isinstance(row[i], str) and (found := re.fullmatch(ESTIMATE, row[i])):
        return _ends(value, found[2], found[3]), 0
    after, headings = (
        row[i + 1 : i + 3],
        [column.strip() for column in columns[i + 1 : i + 3]],
    )
    interval, count = None, 0
    if len(after) == 2 and headings[0].endswith("low") and headings[1].endswith("high"):
        interval, count = _ends(value, *after), 2
    elif (
        after
        and isinstance(after[0], str)
        and (found := re.fullmatch(INTERVAL, after[0]))
    ):
        interval, count = _ends(value, found[1], found[2]), 1
    return interval, count if interval else 0


def _ends(value: float | None, low: Any, high: Any) -> tuple[float, float] | None:
    """Return (low, high) if both are numbers and the value lies between them."""
    first, last = as_number(low), as_number(high)
    if value is None or first is None or last is None or not first <= value <= last:
        return None
    return first, last


def _interval_in(estimates: Sequence[Entry], value: Any) -> tuple[float, float] | None:
    """Return the narrowest interval of the estimates that equal the rounded value.

    Percentages are not compared with numbers.
    """
    if not isinstance(value, float) or value.is_integer():
        return None
    same = [
        e.interval
        for e in estimates
        if "%" not in str(e.value) and _is_rounded(value, e.value)
    ]
    return min(
        (ends for ends in same if ends),
        key=lambda ends: ends[1] - ends[0],
        default=None,
    )


def _is_rounded(value: float, cell: Any) -> bool:
    if not isinstance(cell, str):
        return float(f"{value:.4g}") == cell
    digits = re.match(NUMBER, cell)
    return bool(digits) and f"{value:.{len(digits[0].partition('.')[2])}f}" == digits[0]


def _scale(values: Sequence[Any]) -> float:
    numbers = [
        abs(v) for v in map(as_number, values) if v is not None and math.isfinite(v)
    ]
    return max(1.0, *numbers) if numbers else 1.0


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))
