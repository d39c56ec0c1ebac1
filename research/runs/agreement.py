"""Check whether a run agrees with a stored reference.

There are three kinds of agreement: exact, to the printed digits, and within the
intervals.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.checks import (
    check_count,
    check_instance,
    check_mapping,
    check_path,
    check_sequence,
)
from research.files import json_bytes, read_json
from research.runs._environment import differences
from research.runs.comparison import (
    Difference,
    largest,
    likely_cause,
    number_difference,
)
from research.runs.readings import Entry, as_number, read_entries
from research.runs.reference import SIX_DIGITS, check_reference, reference_of

# Relative to the largest number in the same column or list, but to at least 1 and at
# most 1e6. Smaller differences are rounding errors of terms that cancel. A diverged run
# in the same column excuses no difference of the others.
ROUNDING = 64 * 2.0**-52
LARGEST_SCALE = 1e6
NAMED = 8  # Number of places that a verdict lists.


class Agreement(NamedTuple):
    """Result of comparing a run with a reference.

    A reference is a dict with the main results of an earlier run: a table, numbers, and
    hashes of arrays.

    Attributes:
      values: Number of compared values: entries of the table, and numbers. Times are
        not compared.
      rounded: Differences that are as small as rounding errors. Values with such a
        difference agree to the printed digits, as `hold` defines these words.
      within: Larger differences that count as agreement. Either the values are
        estimates (numbers with intervals) whose intervals overlap, or both values lie
        within limits that the experiment states. `hold` defines these kinds of
        agreement.
      chosen: Differences that are reported but not judged. The experiment names the
        values that are not judged, for example because they depend on a single training
        or on the installed packages.
      other_values: Differences between values that do not agree.
      hashes: Number of compared hashes of arrays.
      other_hashes: Names of the hashes that differ.
      not_made: Names of the values and hashes of the reference that the run could not
        compute, because data were missing.
      left_out: Names of the data that were missing in the run.
      causes: Texts, one for each difference between the environments of the run and of
        the reference that may change the bits of results. The most likely cause comes
        first.
    """

    values: int
    rounded: tuple[Difference, ...]
    within: tuple[Difference, ...]
    chosen: tuple[Difference, ...]
    other_values: tuple[Difference, ...]
    hashes: int
    other_hashes: tuple[str, ...]
    not_made: tuple[str, ...]
    left_out: tuple[str, ...]
    causes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether all compared values and hashes equal those of the reference."""
        return not (
            self.rounded
            or self.within
            or self.chosen
            or self.other_values
            or self.other_hashes
        )

    @property
    def agrees(self) -> bool:
        """Whether the values of the run agree with the reference.

        They agree if `other_values` is empty. Hashes are not considered, because a
        rounding error in a single entry of an array changes the hash.
        """
        return not self.other_values


def hold_against(
    reference: Mapping[str, Any],
    path: str | Path,
    *,
    varies: Mapping[str, Sequence[float] | None] | None = None,
    left_out: Sequence[str] = (),
) -> Agreement:
    """Compare the finished run at `path` with a reference of the same config.

    A reference is a dict with the main results of an earlier run: a table, numbers, and
    hashes of arrays. The returned `Agreement` lists the values and the hashes that
    differ. `hold` defines when two values agree.

    In the table of a reference, floats are rounded to four digits. A float of the run
    may lie halfway between two rounded floats, up to a relative error of 1e-6. The
    float then counts as equal to both. For example, 1.2345 equals 1.234 and 1.235.

    Args:
      reference: Reference, from `read_reference`.
      path: Folder of the run.
      varies: Values that are not reproducible. The dict maps the name of a number, or
        of a column of the table, to limits (low, high) or to None. With limits, two
        different values agree if both lie between the limits. With None, a difference
        is reported but not judged. Without the argument `varies`, all values count as
        reproducible.
      left_out: Names of the data that were missing in the run. If there are any names,
        the values and hashes that exist only in `reference` do not count as
        differences.
    Raises:
      ValueError: The run is not finished, or has no table.
      TypeError: An argument has the wrong type.
    """
    check_path("path", path)
    check_reference("reference", reference)
    return hold(
        reference,
        read_json(json_bytes(reference_of(path, like=reference))),
        varies=varies,
        left_out=left_out,
    )


def hold(
    reference: Mapping[str, Any],
    here: Mapping[str, Any],
    *,
    varies: Mapping[str, Sequence[float] | None] | None = None,
    left_out: Sequence[str] = (),
) -> Agreement:
    """Compare the references of two runs of the same config.

    A reference is a dict with the main results of a run: numbers, lists and a table.

    Two floats count as equal up to rounding if their difference is at most 1e-6 times
    the larger absolute value of the two, or at most 64 ε s. They then "agree to the
    printed digits". Here ε = 2^-52 is the relative spacing of float64 numbers, and s is
    the largest absolute value in the column of the table, or in the list, that contains
    the floats. If this value is below 1, s is 1; if it is above 1e6, s is 1e6.
    The same limits hold for the first numbers in two texts, such as "1.893 [1.880,
    1.906]". Two such texts agree to the printed digits only if their intervals are
    equal.

    An estimate is a number with an interval (`read_entries`). Estimates that do not
    agree to the printed digits still agree within the interval if their intervals
    overlap. If only one of the two numbers has an interval, the other number must lie
    in this interval. A table may also list the low or the high end of an interval as an
    entry of its own. Two such ends agree if the estimates with these intervals agree.
    All other values must be equal, unless `varies` names them.

    Args:
      reference, here: References of the two runs, from `reference_of`.
      varies: Values that are not reproducible on another machine: results of one
        training of a network, choices that depend on such results, or values that
        depend on the installed packages. The dict maps the name of a column or of a
        number to limits (low, high), or to None. With limits, two different values
        agree if both lie between the limits. With None, a difference is reported but
        not judged. If both values have an interval, `varies` has no effect.
      left_out: Names of the data that were missing in the run of `here`. If there are
        any names, the values and hashes that exist only in `reference` are not
        compared.
    Returns:
      The agreement, with all differences.
    """
    for name, given in (("reference", reference), ("here", here)):
        check_reference(name, given)
    varies = {} if varies is None else varies
    check_mapping("varies", varies, "names to limits or None")
    check_sequence("left_out", left_out, "names", str)
    entries = [read_entries(given) for given in (reference, here)]
    not_made = (
        [place for place in entries[0] if place not in entries[1]] if left_out else []
    )
    places = [
        place
        for place in dict.fromkeys([*entries[0], *entries[1]])
        if place not in not_made
    ]
    kinds: dict[str, list[Difference]] = {
        kind: [] for kind in ("rounded", "within", "chosen", "other_values")
    }
    for place in places:
        kind, difference = _judge(place, entries[0], entries[1], varies)
        if difference:
            kinds[kind].append(difference)
    lost = (
        [name for name in reference["hashes"] if name not in here["hashes"]]
        if left_out
        else []
    )
    hashes = [
        name
        for name in dict.fromkeys([*reference["hashes"], *here["hashes"]])
        if name not in lost
    ]
    return Agreement(
        len(places),
        **{kind: tuple(found) for kind, found in kinds.items()},
        hashes=len(hashes),
        other_hashes=tuple(
            name
            for name in hashes
            if reference["hashes"].get(name) != here["hashes"].get(name)
        ),
        not_made=(*not_made, *lost),
        left_out=tuple(left_out),
        causes=tuple(
            differences(
                reference["manifest"]["environment"], here["manifest"]["environment"]
            )
        ),
    )


def agreement_verdict(agreement: Agreement) -> str:
    """Describe in a few sentences whether a run agrees with a reference.

    The text begins with "Bit-identical", "The same printed digits", "Agrees within the
    interval" or "Does not agree".
    """
    check_instance(
        "agreement", agreement, Agreement, "It is the result of hold_against."
    )
    for name in ("rounded", "within", "chosen", "other_values"):
        check_sequence(
            f"agreement.{name}", getattr(agreement, name), "Differences", Difference
        )
    for name in ("other_hashes", "not_made", "left_out", "causes"):
        check_sequence(f"agreement.{name}", getattr(agreement, name), "texts", str)
    check_count("agreement.values", agreement.values, 0)
    check_count("agreement.hashes", agreement.hashes, 0)
    values = f"{agreement.values} values of table and numbers"
    bits = (
        f"{len(agreement.other_hashes)} of {agreement.hashes} programs give other bits"
    )
    cause = likely_cause(agreement.causes)
    if agreement.other_values:
        count = len(agreement.other_values)
        found = (
            f"Does not agree: {count} of {values} differ by more than rounding or "
            f"their interval, and {bits}."
        )
        words = f"{found} {largest(_worst(agreement.other_values))} {cause}"
    elif agreement.within:
        count = len(agreement.within)
        found = (
            f"Agrees within the interval: {count} of {values} have other digits, each "
            f"within its interval, and {bits}."
        )
        words = f"{found} {largest(_worst(agreement.within))} {cause}"
    elif agreement.rounded:
        count = len(agreement.rounded)
        found = (
            f"The same printed digits: {count} of {values} differ, only by rounding, "
            f"and {bits}."
        )
        words = f"{found} {largest(_worst(agreement.rounded))} {cause}"
    elif agreement.other_hashes or agreement.chosen:
        count = agreement.values - len(agreement.chosen)
        share = f"{count} of the {values}" if agreement.chosen else f"all {values}"
        words = f"The same printed digits: {share} equal the reference; {bits}. {cause}"
    else:
        words = (
            f"Bit-identical: the {values} and the hashes of all {agreement.hashes} "
            "programs equal the reference."
        )
    return words + _chosen_in_words(agreement.chosen) + _not_made(agreement)


def _judge(
    place: str,
    there: Mapping[str, Entry],
    here: Mapping[str, Entry],
    varies: Mapping[str, Sequence[float] | None],
) -> tuple[str, Difference | None]:
    """Compare the two values at a place.

    Returns:
      The pair (kind, difference). The kind is the name of a field of Agreement. The
      difference is None if the values are equal.
    """
    missing = Entry("missing", "")
    was, now = there.get(place, missing), here.get(place, missing)
    if (place in there) != (place in here):
        lost = Difference(place, was.value, now.value, math.inf, math.inf)
        return "other_values", lost
    difference = number_difference(place, was.value, now.value)
    if difference is None:
        return "other_values", None
    if _is_rounding(was, now):
        return "rounded", difference
    if was.name in varies and not (was.interval and now.interval):
        ends = varies[was.name]
        kind = (
            "chosen"
            if ends is None
            else "within"
            if _lie_in((was, now), ends)
            else "other_values"
        )
        return kind, difference
    if (
        was.of is not None and was.of == now.of
    ):  # An end of an interval: compare the estimates instead.
        kind, other = _judge(was.of, there, here, varies)
        return "within" if other is None or kind == "rounded" else kind, difference
    return "within" if _overlap(was, now) else "other_values", difference


def _is_rounding(was: Entry, now: Entry) -> bool:
    numbers = [
        v
        for v in map(as_number, (was.value, now.value))
        if v is not None and math.isfinite(v)
    ]
    if (
        len(numbers) < 2
        or type(was.value) is not type(now.value)
        or isinstance(was.value, int)
    ):
        return False
    if isinstance(was.value, str) and was.interval != now.interval:
        return False
    gap, larger = abs(numbers[0] - numbers[1]), max(map(abs, numbers))
    scale = min(max(was.scale, now.scale), LARGEST_SCALE)
    return gap <= max(SIX_DIGITS * larger, ROUNDING * scale)


def _overlap(was: Entry, now: Entry) -> bool:
    """Return whether two intervals overlap; a value without an interval is a point."""
    first, second = as_number(was.value), as_number(now.value)
    if first is None or second is None or was.interval is now.interval is None:
        return False
    one, other = was.interval or (first, first), now.interval or (second, second)
    return bool(one[0] <= other[1] and other[0] <= one[1])


def _lie_in(entries: Sequence[Entry], ends: Sequence[float]) -> bool:
    numbers = [as_number(entry.value) for entry in entries]
    return all(
        number is not None and ends[0] <= number <= ends[1] for number in numbers
    )


def _worst(found: Sequence[Difference]) -> Difference:
    """Return the largest difference. For texts, the first number in each counts."""

    def relative(difference: Difference) -> float:
        there, here = (as_number(v) for v in (difference.there, difference.here))
        if there is None or here is None:
            return difference.relative
        of_numbers = number_difference(difference.place, float(there), float(here))
        return of_numbers.relative if of_numbers else 0.0

    return max(found, key=relative)


def _chosen_in_words(chosen: Sequence[Difference]) -> str:
    if not chosen:
        return ""
    words = "; ".join(
        f"{d.place}: {d.there!r} there, {d.here!r} here" for d in chosen[:NAMED]
    )
    more = f"; and {len(chosen) - NAMED} more" if len(chosen) > NAMED else ""
    return (
        "\nReported but not judged, because the experiment says that it varies: "
        f"{words}{more}."
    )


def _not_made(agreement: Agreement) -> str:
    if not agreement.left_out:
        return ""
    count = len(agreement.not_made)
    named = f", {', '.join(agreement.not_made[:NAMED])}" if count else ""
    more = f" and {count - NAMED} more" if count > NAMED else ""
    without = ", ".join(agreement.left_out)
    return (
        f"\nNot reproduced, because of missing data ({without}): {count} values and "
        f"hashes of the reference{named}{more}."
    )
