"""The terms of a comparison, the same for every rule: trials, passes, seeds, target."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from research.checks import check_count, check_share
from research.descent import WIDTH
from research.sizes import MOST_SEEDS, MOST_TRIALS, check_most

# A number of tuning seeds counts from here; reporting seeds count from 0.
FIRST_TUNING_SEED = 1000
# The tuning objective decides on which part a rule is reported.
REPORTED_ON = {"train": "train", "validation": "test"}
LEAST_SEEDS = 3  # Intervals from two tuning seeds cover 91 % in place of 95.
ADVISED_SEEDS = 20
ADVISED_TUNING_SEEDS = 10


class Protocol(NamedTuple):
    """The terms of a comparison, the same for every rule.

    Attributes:
      budget: Trials of each rule on each workload; the first is its defaults.
      passes: Length of every training in passes over the data: example gradients / n.
      batch_size: Examples in a mini-batch, sampled anew every epoch without
        replacement; None: full batch.
      seeds: Reporting seeds.
      tuning_seeds: Seeds on which a trial is chosen; none of them is reported.
      tune_on: "train" or "validation": the part whose objective chooses the trial. The
        report is then on the training objective, or on that of the test part, which
        does not enter the choice.
      target: The share of the initial gap f - f* at which a run has reached the target.
      level: Coverage of the intervals.
      width: Runs that are trained at once; the bits of a run depend on it.
    """

    budget: int
    passes: int
    batch_size: int | None
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    tune_on: str
    target: float
    level: float = 0.95
    width: int = WIDTH

    @property
    def reported_on(self) -> str:
        """The part of a workload that the report is about."""
        return REPORTED_ON[self.tune_on]


def make_protocol(
    *,
    budget: int = 20,
    passes: int = 30,
    batch_size: int | None = 32,
    seeds: int | Sequence[int] = ADVISED_SEEDS,
    tuning_seeds: int | Sequence[int] = ADVISED_TUNING_SEEDS,
    tune_on: str = "train",
    target: float = 1e-2,
    level: float = 0.95,
    width: int = WIDTH,
) -> Protocol:
    """Make a protocol, and check it.

    Args:
      seeds: Their number, counted from 0, or the seeds themselves.
      tuning_seeds: Their number, counted from 1000, or the seeds themselves.
      budget, passes, batch_size, tune_on, target, level, width: As in `Protocol`.
    Returns:
      The protocol.
    Raises:
      ValueError: A number is out of its range, there are too few seeds for an interval,
        a seed is used for both, or the choice would be made on the test part.
    Example:
      >>> protocol = make_protocol(
      ...     seeds=3, tuning_seeds=[7, 8, 9], tune_on="validation"
      ... )
      >>> protocol.seeds, protocol.tuning_seeds, protocol.reported_on
      ((0, 1, 2), (7, 8, 9), 'test')
    """
    for name, value in (("budget", budget), ("passes", passes), ("width", width)):
        check_count(name, value)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_most(MOST_TRIALS, budget=budget)
    check_most(passes=passes, width=width, batch_size=batch_size)
    _check_tune_on(tune_on)
    check_share("target", target, 1e-2)
    check_share("level", level, 0.95)
    reporting = _seeds("seeds", seeds, 0)
    tuning = _seeds("tuning_seeds", tuning_seeds, FIRST_TUNING_SEED)
    if both := sorted(set(reporting) & set(tuning)):
        raise ValueError(
            "seeds and tuning_seeds must be disjoint, or the choice sees what is "
            f"reported; both: {both}."
        )
    return Protocol(
        budget,
        passes,
        batch_size,
        reporting,
        tuning,
        tune_on,
        float(target),
        float(level),
        width,
    )


def _check_tune_on(tune_on: Any) -> None:
    if isinstance(tune_on, str) and tune_on == "test":
        raise ValueError(
            "tune_on='test' would choose by what is reported. Tune on 'train', reported "
            "on train with other seeds, or on 'validation', reported on test."
        )
    if not isinstance(tune_on, str) or tune_on not in REPORTED_ON:
        raise ValueError(f"tune_on must be 'train' or 'validation'; got {tune_on!r}.")


def _seeds(name: str, given: Any, first: int) -> tuple[int, ...]:
    """Return the seeds that an argument names."""
    if isinstance(given, bool | str | bytes) or not isinstance(given, int | Sequence):
        raise ValueError(
            f"{name} must be a number of seeds, or the seeds themselves; got {given!r}."
        )
    check_most(MOST_SEEDS, **{name: given})
    seeds = tuple(range(first, first + given) if isinstance(given, int) else given)
    if any(
        isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31
        for seed in seeds
    ):
        raise ValueError(
            f"{name} must be a number of seeds, or integers in 0..2**31-1; got "
            f"{given!r}."
        )
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{name} has a seed more than once: {seeds}. Give each seed once."
        )
    if len(seeds) < LEAST_SEEDS:
        raise ValueError(
            f"{name}: at least {LEAST_SEEDS} are needed, for an interval is made of the "
            f"differences between them; got {len(seeds)}. Reported seeds are better "
            f"{ADVISED_SEEDS} or more (0..{ADVISED_SEEDS - 1}), tuning seeds "
            f"{ADVISED_TUNING_SEEDS}."
        )
    return seeds
