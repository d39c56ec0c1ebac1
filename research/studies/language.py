"""What language models cost, in tables and words: counting first, then what was trained, with intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from research.runs import Table

Interval = Sequence[float | None]  # (mean, low, high); low and high are None where there is one seed.


def mean_interval(samples: ArrayLike, *, level: float = 0.95) -> tuple[float, float | None, float | None]:
    """The mean over seeds with Student's t interval: m ± t_(n-1) s / sqrt(n).

    Args:
      samples: One number a seed, shape (n,), n >= 1.
      level: Coverage, where the numbers are normal.
    Returns:
      (mean, low, high); low and high are None for one seed, which says nothing of its spread.
    Raises:
      ValueError: samples are not along one axis, or none.
    References:
      Student, The probable error of a mean, Biometrika 1908; `scipy.stats.ttest_1samp` gives the same interval.
    Example:
      >>> mean, low, high = mean_interval([1.0, 2.0, 3.0])
      >>> print(mean, round(low, 3), round(high, 3))
      2.0 -0.484 4.484
    """
    numbers = np.asarray(samples, float)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"samples must be at least one number along one axis; got shape {numbers.shape}.")
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return mean, None, None
    half = float(stats.t.isf((1 - level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return mean, mean - half, mean + half


def in_words(interval: Interval, digits: int = 3) -> str:
    """An interval, as it is read.

    Example:
      >>> in_words((1.8931, 1.8799, 1.9063)), in_words((1.5, None, None))
      ('1.893 [1.880, 1.906]', '1.500')
    """
    mean, low, high = interval
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def costs_table(
    counted: Sequence[Mapping[str, Any]], networks: Sequence[tuple[str, Mapping[str, Any]]], note: str
) -> Table:
    """A row for each model, those that count first.

    Args:
      counted: Of each n-gram model its "name", "loss", "counts" (the n-grams that it has seen) and "seconds".
      networks: (name, facts) with the intervals "whole", "half_full" and "sampled", "parameters", "passes" and "seconds".
      note: What stands below.
    Returns:
      The table.
    """
    rows = [(m["name"], *_digits(m["loss"], None, m["loss"], None), m["counts"], 1.0, m["seconds"]) for m in counted]
    for name, n in networks:
        losses = _digits(n["whole"][0], n["whole"][1:], n["half_full"][0], n["sampled"][0])
        rows.append((name, *losses, n["parameters"], n["passes"], n["seconds"]))
    columns = ("model", "whole", "95 % interval", "half full", "sampled", "parameters", "passes", "seconds")
    return Table("Nats a character, on the last tenth of the text", columns, tuple(rows), note)


def orders_table(losses: Mapping[str, Sequence[float]]) -> Table:
    """The loss of n-grams of order 1, 2, ..., a column for each smoothing."""
    columns = ("order", *(name.replace("_", " ") for name in losses))
    rows = tuple((order, *_digits(*row)) for order, row in enumerate(zip(*losses.values(), strict=True), 1))
    note = (
        "Nats a character on the whole validation part. Kneser-Ney is modified and interpolated (Chen & Goodman 1999)."
    )
    return Table("n-grams", columns, rows, note)


def _digits(*losses: float | Sequence[float | None] | None) -> tuple[str, ...]:
    """Three decimals, for models differ in the second; a dash for what there is not, which is not "not reached"."""
    words = []
    for loss in losses:
        if loss is None or (isinstance(loss, Sequence) and loss[0] is None):
            words.append("–")
        else:
            words.append(" to ".join(f"{x:.3f}" for x in (loss if isinstance(loss, Sequence) else (loss,))))
    return tuple(words)
