"""The protocol of a comparison: searches, passes, seeds and target of all rules."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from research.checks import check_count, check_share
from research.descent import WIDTH
from research.sizes import MOST_SEEDS, MOST_TRIALS, check_most

# If only their number is given, tuning seeds start here and reporting seeds at 0.
FIRST_TUNING_SEED = 1000
# Part of the data on which rules are tuned -> part on which they are reported.
REPORTED_ON = {"train": "train", "validation": "test"}
LEAST_SEEDS = 3  # An interval needs the differences between reporting seeds.
LEAST_SEARCHES = 2  # One search says nothing about the luck of a search.
LEAST_TUNING_SEEDS = 2  # Half of them choose and half report in the curve of k trials.
ADVISED_SEEDS = 20
ADVISED_SEARCHES = 6
ADVISED_TUNING_SEEDS = 30


class Protocol(NamedTuple):
    """The settings of a comparison that are the same for every rule.

    A search looks for good hyper-parameters of a rule on a workload (a named
    optimisation problem). A trial is one choice of hyper-parameters. At the end, the
    trial that a search has chosen is trained on other seeds, the reporting seeds. The
    results of the comparison come from these trainings.

    Attributes:
      searches: Number of independent searches of each rule on each workload.
      budget: Number of trials with which each search starts. The first of these trials
        is the rule's defaults. Later in the search, the better trials are run on more
        seeds, and new trials around the best ones are added (`tuning.search`).
      passes: Length of every training in passes over the data. A pass over n examples
        is the computation of n gradients, each of one example. If a step evaluates the
        objective or its gradient g times on its batch (`Contender.evaluations`), a
        training has `passes` / g epochs, rounded down. An epoch has n // `batch_size`
        steps. If `batch_size` does not divide n, each epoch leaves out n mod
        `batch_size` examples, and the training is shorter than `passes`. For example,
        309 examples in batches of 155 give 5.02 instead of 10 passes. The cost of a run
        is the number of passes until the run reaches the target. This number counts
        only the examples that were used.
      batch_size: Number of examples in a mini-batch. None means full batch.
        Mini-batches are drawn without replacement, in a new order every epoch.
      seeds: The reporting seeds. They are the same for all rules and searches.
      tuning_seeds: Seeds on which the searches choose hyper-parameters, for all
        searches together. Search number j = 0, 1, ... uses the seeds
        `tuning_seeds[j::searches]`. No seed is both a tuning seed and a reporting seed.
      tune_on: Part of the data on which a search scores its trials. If `tune_on` is
        "train", the results are also reported on the training part, but with the
        reporting seeds. If `tune_on` is "validation", the results are reported on the
        test part, which does not affect the choices.
      target: Share between 0 and 1. A run reaches the target when f - f* is at most
        this share of the initial f - f*. Here f is the objective on the part of the
        data that is scored or reported. f* is the value of f at the params that
        minimise the objective on the training part.
      level: Coverage of the confidence intervals.
      width: Number of runs that are trained at once. The rounding errors of a run
        depend on this number, so it is part of the protocol.
      search_seed: Random seed of the trials of all searches. Another seed gives other
        trials.
    """

    searches: int
    budget: int
    passes: int
    batch_size: int | None
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    tune_on: str
    target: float
    level: float = 0.95
    width: int = WIDTH
    search_seed: int = 0

    @property
    def reported_on(self) -> str:
        """Part of the data on which rules are reported: "train" or "test"."""
        return REPORTED_ON[self.tune_on]

    def seeds_of_search(self, number: int) -> tuple[int, ...]:
        """Return the tuning seeds of the search with this number, counted from 0."""
        return self.tuning_seeds[number :: self.searches]


def make_protocol(
    *,
    searches: int = ADVISED_SEARCHES,
    budget: int = 32,
    passes: int = 30,
    batch_size: int | None = 32,
    seeds: int | Sequence[int] = ADVISED_SEEDS,
    tuning_seeds: int | Sequence[int] = ADVISED_TUNING_SEEDS,
    tune_on: str = "train",
    target: float = 1e-2,
    level: float = 0.95,
    width: int = WIDTH,
    search_seed: int = 0,
) -> Protocol:
    """Make the protocol of a comparison, and check its settings.

    The protocol contains the settings that are the same for every rule. There are two
    kinds of seeds. On the tuning seeds, searches choose hyper-parameters. On the
    reporting seeds, the chosen hyper-parameters are measured.

    Args:
      seeds: Number of reporting seeds, or the seeds themselves. If a number is given,
        the seeds start at 0.
      tuning_seeds: Number of tuning seeds of each search, or a sequence of the seeds of
        all searches together. If a number is given, the seeds start at 1000. If there
        are k searches, search i = 0, 1, ... gets the seeds at the positions i, i + k,
        i + 2 k, ...
      searches, budget, passes, batch_size, tune_on, target, level, width, search_seed:
        Fields of `Protocol`, which explains them. `searches` is at least 2.
    Returns:
      The protocol.
    Raises:
      ValueError, TypeError: A number is out of its range, there are too few searches or
        seeds for a confidence interval, a seed is both a reporting and a tuning seed,
        the tuning seeds cannot be divided equally among the searches, or `tune_on` is
        neither "train" nor "validation".
    Example:
      >>> protocol = make_protocol(searches=2, tuning_seeds=2, seeds=3)
      >>> protocol.seeds, protocol.tuning_seeds
      ((0, 1, 2), (1000, 1001, 1002, 1003))
      >>> protocol.seeds_of_search(1)
      (1001, 1003)
    """
    counts = {"searches": searches, "budget": budget, "passes": passes, "width": width}
    _check_counts(counts, batch_size, search_seed)
    _check_tune_on(tune_on)
    check_share("target", target, 1e-2)
    check_share("level", level, 0.95)
    reporting = _seeds("seeds", seeds, 0, LEAST_SEEDS)
    searches = int(searches)
    if isinstance(tuning_seeds, int) and not isinstance(tuning_seeds, bool):
        check_count("tuning_seeds", tuning_seeds, LEAST_TUNING_SEEDS)
        check_most(MOST_SEEDS, tuning_seeds=tuning_seeds)
        tuning_seeds = tuning_seeds * searches
    tuning = _seeds(
        "tuning_seeds", tuning_seeds, FIRST_TUNING_SEED, LEAST_TUNING_SEEDS * searches
    )
    if both := sorted(set(reporting) & set(tuning)):
        raise ValueError(
            "seeds and tuning_seeds must be disjoint, because a choice looks too "
            f"good on the seeds that were used to make it; both contain {both}."
        )
    protocol = Protocol(
        searches,
        budget,
        passes,
        batch_size,
        reporting,
        tuning,
        tune_on,
        float(target),
        float(level),
        width,
        search_seed,
    )
    first, last = protocol.seeds_of_search(0), protocol.seeds_of_search(searches - 1)
    if len(first) != len(last):
        raise ValueError(
            f"tuning_seeds: {len(tuning)} seeds cannot be divided among {searches} "
            f"searches; give a multiple of {searches}, such as "
            f"{ADVISED_TUNING_SEEDS * searches}."
        )
    return protocol


def _check_counts(
    counts: Mapping[str, int], batch_size: int | None, search_seed: int
) -> None:
    """Check the numbers of searches, trials, passes and runs, and the batch size."""
    for name, value in counts.items():
        check_count(name, value)
    check_count("search_seed", search_seed, 0)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if counts["searches"] < LEAST_SEARCHES:
        raise ValueError(
            f"searches must be at least {LEAST_SEARCHES}, because one search does not "
            f"show the variation between searches; got searches={counts['searches']}. "
            f"Use {ADVISED_SEARCHES} or more."
        )
    check_most(MOST_TRIALS, budget=counts["budget"])
    check_most(
        passes=counts["passes"],
        width=counts["width"],
        batch_size=batch_size,
        searches=counts["searches"],
        search_seed=search_seed,
    )


def _check_tune_on(tune_on: Any) -> None:
    if isinstance(tune_on, str) and tune_on == "test":
        raise ValueError(
            "tune_on='test' would choose hyper-parameters by the reported results. Use "
            "'validation' (the results are then reported on the test set) or 'train' "
            "(they are then reported on the training set, with other seeds)."
        )
    if not isinstance(tune_on, str) or tune_on not in REPORTED_ON:
        raise ValueError(f"tune_on must be 'train' or 'validation'; got {tune_on!r}.")


def _seeds(name: str, given: Any, first: int, least: int) -> tuple[int, ...]:
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
    if len(seeds) < least:
        raise ValueError(
            f"{name}: at least {least} seeds are needed; got {len(seeds)}. Use "
            f"{ADVISED_SEEDS} or more reporting seeds, and {ADVISED_TUNING_SEEDS} "
            "tuning seeds for each search."
        )
    return seeds
