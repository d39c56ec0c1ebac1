"""Compare two results of one config bit by bit, and report why they may differ."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.checks import check_count, check_instance, check_sequence
from research.runs._environment import differences
from research.runs.result import Result, check_result

# A number, array or table column with this word in its name is a time or follows from
# one. Times differ between runs and are not compared.
CLOCK = "seconds"


class Difference(NamedTuple):
    """Difference between two results at one place.

    Attributes:
      place: Name of an array with the index of an entry, such as "loss[1]", or the path
        of a number, such as "final.loss".
      there, here: The values at this place in the two results, which are called `there`
        and `here`. A text can stand in place of a value: "missing", or the dtype and
        shape of an array.
      size: |there - here|. The size is infinite if the values cannot be subtracted or
        are uint8 (bytes of hashes), and 0 if the values are equal but their bits
        differ.
      relative: `size` divided by the larger absolute value of the two values.
    """

    place: str
    there: Any
    here: Any
    size: float
    relative: float


class Comparison(NamedTuple):
    """Outcome of a bit-by-bit comparison of two results.

    Attributes:
      arrays, numbers: How many arrays and how many numbers were compared. Times are not
        compared.
      other_arrays: One `Difference` for each array that differs. The `Difference`
        describes the entry whose relative difference is the largest in the array.
      other_numbers: One `Difference` for each number that differs.
      causes: Differences between the environments of the two runs, the most likely
        cause first.
    """

    arrays: int
    numbers: int
    other_arrays: tuple[Difference, ...]
    other_numbers: tuple[Difference, ...]
    causes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether all compared arrays and numbers are the same, bit by bit."""
        return not self.other_arrays and not self.other_numbers


def compare(
    there: Result, here: Result, environments: Sequence[Mapping[str, Any]]
) -> Comparison:
    """Compare the arrays and the numbers of two results bit by bit.

    Tables and answers are not compared, because they are derived from the arrays and
    numbers. Arrays and numbers with "seconds" in their name are not compared either,
    because times differ between runs.

    Args:
      there, here: The two results.
      environments: Environments of the two runs, in the order (there, here), from the
        manifests of the runs. The field `causes` of the Comparison lists the
        differences between the environments.
    Returns:
      The `Comparison`. Its field `other_arrays` has one `Difference` for each array
      that differs. The `Difference` describes the entry whose relative difference is
      the largest in the array: `place` names this entry, and `size` is the absolute
      difference of the two values of the entry.
    Raises:
      TypeError, ValueError: The results are not valid, or there are not two
        environments.
    Example:
      >>> there = Result(
      ...     "", (), {"loss": np.array([1.0, 2.0])}, {"steps": 7, "seconds": 1.5}
      ... )
      >>> here = Result(
      ...     "", (), {"loss": np.array([1.0, 2.5])}, {"steps": 7, "seconds": 9.9}
      ... )
      >>> found = compare(there, here, ({}, {}))
      >>> found.same, found.other_arrays[0].place, found.other_arrays[0].size
      (False, 'loss[1]', 0.5)
    """
    check_result("there", there)
    check_result("here", here)
    check_sequence("environments", environments, "two environments", Mapping)
    if len(environments) != 2:
        raise ValueError(
            "environments must be a pair: the environment of the run `there`, then "
            f"that of the run `here`; got {len(environments)} environments."
        )
    names = [
        name
        for name in dict.fromkeys([*there.arrays, *here.arrays])
        if CLOCK not in name
    ]
    numbers = [dict(_leaves(result.numbers)) for result in (there, here)]
    paths = dict.fromkeys([*numbers[0], *numbers[1]])
    arrays = (
        _array_difference(name, _array(there, name), _array(here, name))
        for name in names
    )
    others = (_number_difference_at(path, *numbers) for path in paths)
    causes = differences(*map(dict, environments))
    return Comparison(
        len(names), len(paths), _found(arrays), _found(others), tuple(causes)
    )


def verdict(comparison: Comparison) -> str:
    """Describe a comparison of two results in a few sentences.

    The text says that the results are bit-identical, or it gives the largest relative
    difference and the likely cause.

    Example:
      >>> result = Result("", (), {"loss": np.ones(2)}, {"steps": 7})
      >>> verdict(compare(result, result, ({}, {})))
      'Bit-identical: all 1 arrays and 1 numbers agree to the last bit (times ...
    """
    check_instance("comparison", comparison, Comparison, "It is the result of compare.")
    for name in ("other_arrays", "other_numbers"):
        check_sequence(
            f"comparison.{name}", getattr(comparison, name), "Differences", Difference
        )
    check_sequence("comparison.causes", comparison.causes, "texts", str)
    check_count("comparison.arrays", comparison.arrays, 0)
    check_count("comparison.numbers", comparison.numbers, 0)
    counted = f"{comparison.arrays} arrays and {comparison.numbers} numbers"
    if comparison.same:
        return (
            f"Bit-identical: all {counted} agree to the last bit (times are not "
            "compared)."
        )
    other = (
        f"{len(comparison.other_arrays)} of {comparison.arrays} arrays and "
        f"{len(comparison.other_numbers)} of {comparison.numbers} numbers differ"
    )
    worst = max(
        comparison.other_arrays + comparison.other_numbers,
        key=lambda difference: difference.relative,
    )
    return (
        f"Not bit-identical: {other}. {largest(worst)} "
        f"{likely_cause(comparison.causes)}"
    )


def largest(worst: Difference) -> str:
    """Describe `worst`, the largest difference between two results, in a sentence."""
    values = f"{worst.there!r} there, {worst.here!r} here"
    if not np.isfinite(worst.size):
        return f"The largest difference: {worst.place} is {values}."
    size = (
        f"{worst.size:.2g} (relative {worst.relative:.2g})"
        if worst.size
        else "only in the bits"
    )
    return f"The largest difference is {size}, in {worst.place}: {values}."


def likely_cause(causes: Sequence[str]) -> str:
    """Describe the likely causes of different results in one or two sentences.

    `causes` are texts that describe the differences between the environments of the two
    runs. If `causes` is empty, the text says that the environments are equal, and names
    the causes that remain possible.
    """
    if causes:
        return f"Likely cause: {'; '.join(causes)}."
    return (
        "Versions, processor, pool, settings and code are equal. So the stored result "
        "was changed, or the experiment depends on more than its seed."
    )


def number_difference(path: str, there: Any, here: Any) -> Difference | None:
    """Return the difference of two JSON values at one place, or None if they are equal.

    `there` and `here` are the values at this place in the two results that are
    compared, and `path` is the name of the place. 1, 1.0 and True are different values.
    NaN equals NaN.
    """
    if repr(there) == repr(here):
        return None
    numeric = all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
        for v in (there, here)
    )
    if not numeric:
        return Difference(path, there, here, float("inf"), float("inf"))
    size = abs(there - here)
    if not size:
        return Difference(path, there, here, 0.0, 0.0)
    return Difference(
        path,
        there,
        here,
        float(min(size, sys.float_info.max)),
        size / max(abs(there), abs(here)),
    )


def _number_difference_at(
    path: str, there: Mapping[str, Any], here: Mapping[str, Any]
) -> Difference | None:
    """Return the difference of the numbers of two results at one path, or None.

    If only one of the results has the path, the text "missing" stands for the other
    value.
    """
    values = there.get(path, "missing"), here.get(path, "missing")
    if (path in there) != (path in here):
        return Difference(path, *values, float("inf"), float("inf"))
    return number_difference(path, *values)


def _array(result: Result, name: str) -> np.ndarray | None:
    return np.asarray(result.arrays[name]) if name in result.arrays else None


def _array_difference(
    name: str, there: np.ndarray | None, here: np.ndarray | None
) -> Difference | None:
    if (
        there is None
        or here is None
        or (there.dtype, there.shape) != (here.dtype, here.shape)
    ):
        was, now = (
            "missing" if a is None else f"{a.dtype}{list(a.shape)}"
            for a in (there, here)
        )
        return Difference(name, was, now, float("inf"), float("inf"))
    if there.tobytes() == here.tobytes():
        return None
    item = np.dtype((np.void, there.dtype.itemsize))
    other = np.ascontiguousarray(there).reshape(-1).view(item) != np.ascontiguousarray(
        here
    ).reshape(-1).view(item)
    if (
        there.dtype.kind not in "iufc" or there.dtype == np.uint8
    ):  # For bytes of a hash, the size of a difference has no meaning.
        place = np.unravel_index(np.argmax(other), there.shape)
        size = relative = float("inf")
    else:
        with np.errstate(all="ignore"):
            wide = [
                a.astype(complex if a.dtype.kind == "c" else float)
                for a in (there, here)
            ]
            gap = np.abs(wide[0] - wide[1])
            if there.dtype.kind in "iu":  # Beyond 2^53, floats may hide a difference.
                gap = np.abs(there.astype(object) - here.astype(object)).astype(float)
            share = gap / np.maximum(np.abs(wide[0]), np.abs(wide[1]))
        gap, share = (
            np.where(other.reshape(there.shape), np.where(np.isnan(a), np.inf, a), -1.0)
            for a in (gap, share)
        )
        share = np.where(gap == 0, 0.0, share)
        place = np.unravel_index(np.argmax(share), there.shape)
        size, relative = float(gap[place]), float(share[place])
    index = f"[{', '.join(str(int(i)) for i in place)}]" if place else ""
    return Difference(
        f"{name}{index}", there[place].item(), here[place].item(), size, relative
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every number and every empty container with its path, except times."""
    if isinstance(value, Mapping | list | tuple) and not value and path:
        # A text "[]" is not equal to an empty list.
        yield path, [] if isinstance(value, list | tuple) else {}
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if CLOCK not in name:
                yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:  # A number of NumPy or JAX is saved as a number of Python.
        is_number = hasattr(value, "item") and np.ndim(value) == 0
        yield path, value.item() if is_number else value


def _found(entries: Iterator[Difference | None]) -> tuple[Difference, ...]:
    return tuple(entry for entry in entries if entry is not None)
