"""Measure a rule and a sampler on a workload: choose the rate, train, and time."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research import descent
from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_numbers,
    check_sequence,
)
from research.descent._sweep_program import check_make_rule, check_workload
from research.samplers import check_form
from research.statistics.costs import digits_gained
from research.tuning.rates import ANY_LADDER, Choice, choose_rate
from research.tuning.timing import Timing, time_alone
from research.types import Checkpoints, Sampler, Workload, no_checkpoints
from research.workloads import known_optimum


class Measured(NamedTuple):
    """Result of `measure` for an update rule, a sampler and a workload.

    `measure` chooses the learning rate on the tuning seeds. It then trains at this rate
    on other seeds, the reporting seeds.

    Attributes:
      choice: The learning rate that was chosen, a `Choice`.
      trained: Runs on the reporting seeds, at the rate of `choice`.
      gaps: Gaps f - f* at the k evaluations of each run in `trained`, shape (seeds, k).
        f is the objective and f* its minimum. `trained.passes` contains the passes over
        the data at each evaluation.
      timing: Times of one short training that runs alone, with its seconds per epoch.
        None if the argument `timed` of `measure` was False.
      compile_seconds: Seconds to compile `program`.
      cells: Total number of runs, including those on the tuning seeds.
      program: Compiled program of the runs. `descent.sweep` can train more runs with
        this program.
    """

    choice: Choice
    trained: descent.SweepResult
    gaps: Float[np.ndarray, "seeds evaluations"]
    timing: Timing | None
    compile_seconds: float
    cells: int
    program: descent.SweepProgram


def measure(
    workload: Workload,
    make_rule: descent.MakeRule,
    sampler: Sampler,
    num_epochs: int,
    *,
    seeds: Sequence[int],
    tuning_seeds: Sequence[int],
    ladder: Sequence[float] | Float[np.ndarray, " rates"] = ANY_LADDER,
    width: int | None = None,
    on_chunk: Callable[[descent.SweepProgress], None] | None = None,
    checkpoints: Checkpoints = no_checkpoints,
    timed: bool = True,
) -> Measured:
    """Choose the learning rate on the tuning seeds, then train on the reporting seeds.

    `choose_rate` chooses the rate with the lowest mean score over the tuning seeds. The
    score of a run is log10((f - f*) / (f_0 - f*)), averaged over the run's passes over
    the data (`statistics.digits_gained`). Here f is the objective, f_0 its initial
    value and f* its minimum.

    Args:
      workload: `Workload` (optimisation problem) with a known optimum.
      make_rule: Function (learning_rate) -> update rule.
      sampler: `Sampler`, which draws batches from the workload's training data.
      num_epochs: Number of epochs of every training.
      seeds, tuning_seeds: Reporting seeds and tuning seeds; they must be disjoint.
      ladder: Learning rates to try first, as in `choose_rate`. By default, 2^-10, 2^-9,
        ..., 1.
      width: Number of runs trained at once. None means 16 if each epoch is one step on
        the whole dataset, else 8.
      on_chunk: Function that is called with a `SweepProgress` after each chunk of
        epochs, or None. The field `share` of the progress is the estimated share of the
        whole measurement that is done.
      checkpoints: Function from a name to the `Checkpoint` in which unfinished runs are
        saved, as in `descent.sweep`. `measure` passes the same names for every rule and
        every workload. So use another folder (or other storage) for each pair of a rule
        and a workload. By default nothing is saved.
      timed: If True, `time_alone` also times a short training of max(1, num_epochs //
        30) epochs. The result has these times in its field `timing`. Pass False if
        other work runs on the machine at the same time, and call `time_alone` later.
    Returns:
      A `Measured`: the chosen rate, the runs on the reporting seeds, and their gaps
      f - f*.
    Raises:
      ValueError, TypeError: The workload has no known optimum, a seed is both a
        reporting and a tuning seed, `seeds` or `tuning_seeds` is empty or has equal
        seeds, or another argument is not valid.
    """
    check_workload("workload", workload)
    optimum = known_optimum(workload)
    check_make_rule(make_rule, ("learning_rate",))
    check_form(sampler)
    check_count("num_epochs", num_epochs)
    if width is not None:
        check_count("width", width)
    for name, given in (("seeds", seeds), ("tuning_seeds", tuning_seeds)):
        check_sequence(name, given, "integers")
        for place, seed in enumerate(given):
            check_count(f"{name}[{place}]", seed, 0)
        if not len(given):
            raise ValueError(f"{name} must name at least one seed; got none.")
        if len(set(given)) < len(given):
            raise ValueError(
                f"{name} must differ, because equal seeds give equal runs; got "
                f"{list(given)}."
            )
    check_numbers("ladder", ladder, ndim=1)
    if on_chunk is not None:
        check_callable("on_chunk", on_chunk, "progress")
    check_callable("checkpoints", checkpoints, "name")
    check_flag("timed", timed)
    both = sorted(set(seeds) & set(tuning_seeds))
    if both:
        raise ValueError(
            "seeds and tuning_seeds must be disjoint, so that the choice does not use "
            f"the reported seeds; in both: {both}."
        )
    program = descent.compile_sweep(
        workload, make_rule, sampler, num_epochs, width=width
    )
    minimum, made, share = optimum.value, 0, 0.0

    def gaps_of(
        rates: np.ndarray, seeds: Sequence[int], until: float
    ) -> tuple[descent.SweepResult, np.ndarray]:
        nonlocal made, share
        made += len(rates) * len(seeds)
        cells = {
            "seed": np.tile(np.array(seeds), len(rates)),
            "learning_rate": np.repeat(rates, len(seeds)),
        }
        low, share = share, until

        def tell(progress: descent.SweepProgress) -> None:
            if on_chunk is not None:
                on_chunk(progress._replace(share=low + (until - low) * progress.share))

        trained = descent.sweep(program, cells, tell, checkpoints)
        return trained, trained.values - minimum

    def score(rates: np.ndarray) -> np.ndarray:
        until = (
            0.6 if made == 0 else (share + 0.7) / 2
        )  # The number of widenings of the ladder is not known in advance.
        trained, gaps = gaps_of(rates, tuning_seeds, until)
        return digits_gained(trained.passes, gaps).reshape(
            len(rates), len(tuning_seeds)
        )

    choice = choose_rate(score, ladder)
    trained, gaps = gaps_of(np.array([choice.rate]), seeds, 1.0)
    timing = None
    if timed:
        timing = time_alone(
            workload,
            make_rule,
            sampler,
            {"learning_rate": choice.rate},
            max(1, num_epochs // 30),
        )
    return Measured(
        choice, trained, gaps, timing, program.compile_seconds, made, program
    )
