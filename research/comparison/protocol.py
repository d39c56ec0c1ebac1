"""The protocol of a comparison: trials, passes, seeds and target of all rules."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from research.checks import check_count, check_share
from research.descent import WIDTH
from research.sizes import MOST_SEEDS, MOST_TRIALS, check_most

# If only their number is given, tuning seeds start here and reporting seeds at 0.
FIRST_TUNING_SEED = 1000
# Part of the data on which rules are tuned -> part on which they are reported.
REPORTED_ON = {"train": "train", "validation": "test"}
LEAST_SEEDS = 3  # With two tuning seeds, 95 % intervals cover only 91 %.
ADVISED_SEEDS = 20
ADVISED_TUNING_SEEDS = 10


class Protocol(NamedTuple):
    """The protocol of a comparison, the same for every rule.

    Attributes:
      budget: Number of trials of each rule on each workload; the first is its defaults.
      passes: Length of every training in passes over the data: example gradients / n.
      batch_size: Examples in a mini-batch; None: full batch. Mini-batches are drawn
        without replacement, in a new order every epoch.
      seeds: Reporting seeds.
      tuning_seeds: Seeds on which a trial is chosen; disjoint from the reporting seeds.
      tune_on: Part of the data whose objective chooses the trial. If it is "train",
        rules are reported on the training objective. If it is "validation", they are
        reported on the objective of the test part, which does not affect the choice.
      target: Target as a share of the initial gap f - f*.
      level: Coverage of the intervals.
      width: Number of runs trained at once; the bits of a run depend on it.
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
        """Part of the workload on which rules are reported."""
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
    """Make a protocol and check it.

    Args:
      seeds: Number of reporting seeds, which start at 0, or the seeds themselves.
      tuning_seeds: Number of tuning seeds, which start at 1000, or the seeds
        themselves.
      budget, passes, batch_size, tune_on, target, level, width: As in `Protocol`.
    Returns:
      The protocol.
    Raises:
      ValueError: A number is out of its range, there are too few seeds for an interval,
        a seed is both a reporting and a tuning seed, or `tune_on` is "test".
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
            "seeds and tuning_seeds must be disjoint, so that the choice does not use "
            f"the reported seeds; in both: {both}."
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
            "tune_on='test' would choose by the reported results. Use 'train' "
            "(reported on train, with other seeds) or 'validation' (reported on test)."
        )
    if not isinstance(tune_on, str) or tune_on not in REPORTED_ON:
        raise ValueError(f"tune_on must be 'train' or 'validation'; got {tune_on!r}.")


def _seeds(name: str, given: Any, first: int) -> tuple[int, ...]:
    """Return the seeds that an argument gives, as a number or as a sequence."""
    if isinstance(given, bool | str | bytes) or not isinstance(given, int | Sequence):
        raise ValueError(
            f"{name} must be a number of seeds, or a list of seeds; got {given!r}."
        )
    check_most(MOST_SEEDS, **{name: given})
    seeds = tuple(range(first, first + given) if isinstance(given, int) else given)
    if any(
        isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31
        for seed in seeds
    ):
        raise ValueError(
            f"{name} must be a number of seeds, or a list of integers in 0..2**31-1; "
            f"got {given!r}."
        )
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{name} contains a seed more than once: {seeds}. Give each seed once."
        )
    if len(seeds) < LEAST_SEEDS:
        raise ValueError(
            f"{name} must have at least {LEAST_SEEDS} seeds, because intervals come "
            f"from the differences between seeds; got {len(seeds)}. Recommended: "
            f"{ADVISED_SEEDS} reported seeds or more (0..{ADVISED_SEEDS - 1}) and "
            f"{ADVISED_TUNING_SEEDS} tuning seeds."
        )
    return seeds
