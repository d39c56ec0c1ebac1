"""Train the runs that independent searches ask for, in common sweeps."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from research import descent
from research.comparison.protocol import Protocol
from research.tuning.search import Runs, Search, Searched, most_runs, search
from research.tuning.spaces import Range
from research.types import Checkpoints

SEARCH_SHARE = 0.9  # Share of the searches in the work of a measurement, for progress.

OnProgress = Callable[[float, float, str], None]
OnChunk = Callable[[descent.SweepProgress], None]
Score = Callable[
    [descent.SweepResult],
    tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]],
]


def chunk_teller(
    on_progress: OnProgress | None, done: int, total: int, label: str
) -> OnChunk | None:
    """Announce a piece of work, and return the callback that reports its progress.

    Args:
      on_progress: Function that is called with (done, total, message), or None.
      done, total: Number of finished pieces, and of all pieces.
      label: Name of the piece.
    """
    if on_progress is None:
        return None
    on_progress(done, total, label)
    return lambda progress: on_progress(
        done + progress.share, total, f"{progress}: {label}"
    )


def start_searches(
    space: Mapping[str, Range], protocol: Protocol, workload: str, rule: str
) -> list[Search]:
    """Start the searches of a rule on a workload, each with its own points and seeds.

    The points depend on the names of the rule and of the workload, so the searches of
    two rules are independent.

    Args:
      space: Search space of the rule. If it is empty, there is one search.
      protocol: Protocol of the comparison.
      workload, rule: Names of the workload and of the rule.
    Returns:
      The searches, the argument of `search_all`.
    """
    name = f"{workload}/{rule}".encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return [
        search(
            space,
            protocol.budget,
            protocol.seeds_of_search(number),
            np.random.default_rng([protocol.search_seed, key, number]),
        )
        for number in range(protocol.searches if space else 1)
    ]


def tuning_score(searched: Searched) -> float:
    """Return the mean score of a search's choice on the tuning seeds of this search."""
    return float(searched.scores[searched.chosen].mean())


def best_search(searches: Sequence[Searched]) -> Searched:
    """Return the search with the lowest `tuning_score`."""
    return searches[int(np.argmin([tuning_score(one) for one in searches]))]


class Evaluate:
    """Callable that trains the runs that searches ask for, and counts them.

    Attributes:
      trained: Number of runs so far.
      screened, diverged: Number of runs of the screening, and number of these runs that
        diverged.
    """

    def __init__(
        self,
        program: descent.SweepProgram,
        score: Score,
        protocol: Protocol,
        *,
        on_chunk: OnChunk | None,
        checkpoints: Checkpoints,
    ) -> None:
        self.program, self.score, self.on_chunk = program, score, on_chunk
        self.checkpoints = checkpoints
        self.trained = self.screened = self.diverged = 0
        searched = bool(program.hyperparameters)
        seeds = len(protocol.tuning_seeds) // protocol.searches
        self.most = (protocol.searches if searched else 1) * most_runs(
            protocol.budget if searched else 1, seeds
        )

    def __call__(self, asked: list[Runs]) -> list[Float[np.ndarray, " runs"]]:
        """Return the scores of the runs of each search."""
        seeds = np.concatenate([runs.seeds for runs in asked])
        values = {
            name: np.concatenate([runs.values[name] for runs in asked])
            for name in self.program.hyperparameters
        }
        result = descent.sweep(
            self.program,
            {"seed": seeds, **values},
            self._tell(self.trained, len(seeds)),
            self.checkpoints,
        )
        scores, bad = self.score(result)
        if not self.trained:  # The first runs of all searches are the screening.
            self.screened, self.diverged = len(seeds), int(bad.sum())
        self.trained += len(seeds)
        ends = np.cumsum([len(runs.seeds) for runs in asked])[:-1]
        return np.split(scores, ends)

    def _tell(self, done: int, now: int) -> OnChunk | None:
        if self.on_chunk is None:
            return None
        on_chunk, most = self.on_chunk, self.most / SEARCH_SHARE
        return lambda progress: on_chunk(
            progress._replace(share=min(0.99, (done + now * progress.share) / most))
        )
