"""Code that several experiments share: read their seeds, and train a list of jobs."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import research
from research.cli.progress import OnProgress
from research.types import Checkpoints, Saved


class _WithSeeds(Protocol):
    """A config with reported seeds and tuning seeds, written as 0..9 or as 1,4,7."""

    @property
    def seeds(self) -> str: ...

    @property
    def tuning_seeds(self) -> str: ...


def parse_both_seeds(config: _WithSeeds) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the reported seeds and the tuning seeds of a config.

    Raises:
      ValueError: A seed is in both.
    """
    seeds, tuning = map(research.runs.parse_seeds, (config.seeds, config.tuning_seeds))
    if both := sorted(set(seeds) & set(tuning)):
        raise ValueError(
            "seeds and tuning_seeds must be disjoint, so that the choice does not use "
            f"the reported seeds; in both: {both}."
        )
    return seeds, tuning


def train_jobs(
    jobs: Sequence[Any],
    compute: Callable[[Any, Callable[[float, str], None]], Callable[..., Saved]],
    label: Callable[[Any], str],
    on_progress: OnProgress,
    checkpoints: Checkpoints,
    total: int,
    first: int,
) -> list[Saved]:
    """Train every job, and load finished jobs from their checkpoints.

    Args:
      jobs: Tuples. The name of a job's checkpoint is its entries, joined by "/".
      compute: Function (job, watch) -> function of the job's checkpoints that trains
        it. The function watch takes the share that is done, and words.
      label: Function (job) -> what is trained, for the progress report.
      on_progress: Function (done, total, words).
      checkpoints: Places where the jobs are saved.
      total: Number of all jobs of the experiment.
      first: Number of jobs before these.
    """
    saved = []
    for done, job in enumerate(jobs, first):

        def watch(share: float, words: str, done: int = done, job: Any = job):
            on_progress(done + share, total, f"{label(job)}, {words}")

        watch(0.0, "compiling")
        name = "/".join(map(str, job))
        saved.append(research.runs.remembered(checkpoints, name, compute(job, watch)))
    on_progress(first + len(jobs), total, "done")
    return saved
