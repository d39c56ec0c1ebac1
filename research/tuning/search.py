"""Searches for hyper-parameters: scrambled Sobol points, a race over seeds, refinement.

Each search is a generator that yields the runs it needs, and receives their scores.
`search_all` advances several searches together, so that all their runs can be trained
at once.
"""

import math
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special
from scipy.stats import qmc

from research.checks import (
    check_callable,
    check_count,
    check_instance,
    check_methods,
    check_sequence,
)
from research.sizes import MOST_SEEDS, MOST_TRIALS, check_most
from research.tuning.spaces import Space, check_space, from_unit, to_unit, unit_limits

# Every point runs on these. In `best_of_trials` two of them choose and two report.
SCREENING_SEEDS = 4
RACING_SEEDS = 10  # The better points also run on these.
KEPT = 4  # One point in so many is kept after the screening.
FINALISTS = 4  # Number of points that run on all seeds of the search.
ROUNDS = 4  # Largest number of refinements.
CENTRES = 2  # Number of points around which a round refines.
ELITE = 0.2  # Share of the budget whose best points give the shape of the refinement.
SPREAD = 0.7  # Standard deviation of the new points, relative to that of the elite.
LEAST_SPREAD = 1e-3  # Least standard deviation, relative to the range.
LEAST_GAIN = math.log(1.02)  # A round that gains less than 2 % is unsuccessful.
PATIENCE = 2  # The search ends after so many unsuccessful rounds in sequence.


class Runs(NamedTuple):
    """Training runs whose scores a search of hyper-parameters needs next.

    Attributes:
      values: Dict from the name of each hyper-parameter to its value in each run, shape
        (runs,).
      seeds: Seed of each run, shape (runs,).
    """

    values: dict[str, Float[np.ndarray, " runs"]]
    seeds: Int[np.ndarray, " runs"]


class Searched(NamedTuple):
    """Result of one search.

    A point is a choice of all hyper-parameters. `search` explains the screening and the
    refinements.

    Attributes:
      values: Dict from the name of each hyper-parameter to its values at all points,
        shape (points,). The first points are those of the screening; row 0 is the
        defaults.
      scores: Score of each point on each seed of the search, shape (points, seeds); NaN
        for a run that was not needed.
      screened: Number of points of the screening.
      chosen: Row of the chosen point. Among the points that ran on all seeds, it has
        the lowest mean score.
      rounds: Number of rounds of the refinement.
    """

    values: dict[str, Float[np.ndarray, " points"]]
    scores: Float[np.ndarray, "points seeds"]
    screened: int
    chosen: int
    rounds: int

    @property
    def chosen_values(self) -> dict[str, float]:
        """Values of the chosen point, by name of the hyper-parameter."""
        return {
            name: float(column[self.chosen]) for name, column in self.values.items()
        }


Search = Generator[Runs, Float[np.ndarray, " runs"], Searched]


def search(
    space: Space, budget: int, seeds: Sequence[int], generator: np.random.Generator
) -> Search:
    """Search a space for the hyper-parameters with the lowest mean score.

    A point is a choice of all hyper-parameters. To run a point on a seed is to train
    once with these hyper-parameters. A coordinate of a point says where the value of a
    hyper-parameter lies in its range: 0 is the low end, and 1 the high end. The scale
    of the range determines the values in between (see `Range`). For example, on the
    scale "log", which is the default scale, 1/2 is the geometric mean of the ends.

    The search has four stages. With at least ten seeds, they are:

    1. Screening: the defaults and budget - 1 scrambled Sobol points run on four seeds.
    2. Race: the best quarter of the points also runs on the next six seeds.
    3. Refinement, at most four rounds. The elite is the best budget / 5 points (rounded
       up) on the screening seeds, but at least h + 2 points for h hyper-parameters. In
       each round, budget / 4 new points (rounded up) are drawn from normal
       distributions around the two best points. These distributions have a covariance
       of 0.49 times the covariance of the elite's coordinates, plus 1e-6 times the
       identity. With this covariance, the new points follow a narrow valley of the
       score in any direction, and they lie closer together if the points of the elite
       lie closer together. The new points run on the screening seeds, and the better
       half of them also runs on the six seeds of the race. The refinement ends after
       two rounds in a row that each improve the best mean score by less than log 1.02.
    4. Choice: the best four points of the race and the refinement run on all seeds (all
       of these points, if they are fewer). The point with the lowest mean score is
       chosen.

    If the scale of a range is "log" or "one_minus", a new point may lie outside the
    range, by up to a third of the width of the range on this scale. The chosen point
    may therefore lie outside the given space.

    Args:
      space: Ranges by name. If the space is empty, one point runs on all seeds.
      budget: Number of points of the screening, positive. With one point there is no
        refinement, and the defaults are chosen.
      seeds: Seeds of this search. With five to nine seeds, the screening uses the
        first four, and the race uses the remaining seeds. With at most four seeds, the
        screening uses all of them, and there is no race.
      generator: Random generator that scrambles the Sobol points.
    Returns:
      A generator. It yields the `Runs` that it needs, receives their scores (lower is
      better, finite, such as log costs), and returns a `Searched`.
    Raises:
      ValueError, TypeError: The space, the budget or the seeds are not valid.
    References:
      Sobol, USSR Comp. Math. 7, 1967; Owen, J. Complexity 14, 1998 (scrambling). Maron
      & Moore, Artificial Intelligence Review 11, 1997 (races). Jamieson & Talwalkar,
      AISTATS 2016 (successive halving). Rubinstein, Methodology and Computing in
      Applied Probability 1, 1999 (the cross-entropy method, which uses an elite).
    Example:
      >>> from research.tuning import Range
      >>> bowl = lambda runs: np.log(runs.values["learning_rate"] / 0.03) ** 2
      >>> space = {"learning_rate": Range(1e-4, 10.0)}
      >>> one = search(space, 16, range(4), np.random.default_rng(0))
      >>> (found,) = search_all([one], lambda asked: [bowl(runs) for runs in asked])
      >>> 0.028 < found.chosen_values["learning_rate"] < 0.032
      True
    """
    check_space(space)
    check_count("budget", budget)
    check_most(MOST_TRIALS, budget=budget)
    check_sequence("seeds", seeds, "integers", (int, np.integer))
    check_most(MOST_SEEDS, seeds=len(seeds))
    check_instance(
        "generator",
        generator,
        np.random.Generator,
        "Make one by numpy.random.default_rng(seed).",
    )
    if not len(seeds):
        raise ValueError("seeds must hold at least one seed; got none.")
    return _search(dict(space), budget, np.asarray(seeds), generator)


def search_all(
    searches: Sequence[Search],
    evaluate: Callable[[list[Runs]], Sequence[Float[np.ndarray, " runs"]]],
) -> list[Searched]:
    """Advance several searches together until all have ended.

    In each round, `evaluate` gets the runs that the searches need next. The runs of all
    searches can therefore be trained at once.

    Args:
      searches: Results of `search`.
      evaluate: Function that receives a list with one `Runs` for each unfinished
        search, and returns one array of scores for each `Runs`.
    Returns:
      The `Searched` of each search, in the order of `searches`.
    Raises:
      TypeError: `searches` are not results of `search`, or `evaluate` is not a function
        of one argument.
      ValueError: `evaluate` does not return an array for each `Runs`, with one finite
        score for each run.
    Example:
      >>> from research.tuning import Range
      >>> bowl = lambda runs: np.log(runs.values["rate"] / 0.03) ** 2
      >>> sources = [np.random.default_rng(number) for number in range(3)]
      >>> space = {"rate": Range(1e-4, 10.0)}
      >>> several = [search(space, 8, range(4), source) for source in sources]
      >>> found = search_all(several, lambda asked: [bowl(runs) for runs in asked])
      >>> all(0.025 < one.chosen_values["rate"] < 0.035 for one in found)
      True
    """
    check_sequence("searches", searches, "results of search")
    for number, one in enumerate(searches):
        check_methods(f"searches[{number}]", one, "send", hint="Take it from search.")
    check_callable("evaluate", evaluate, "runs")
    asked = {number: next(one) for number, one in enumerate(searches)}
    results: dict[int, Searched] = {}
    while asked:
        scores = evaluate(list(asked.values()))
        following = {}
        for number, own in zip(list(asked), scores, strict=True):
            try:
                following[number] = searches[number].send(np.asarray(own, float))
            except StopIteration as stop:
                results[number] = stop.value
        asked = following
    return [results[number] for number in range(len(searches))]


def most_runs(budget: int, seeds: int) -> int:
    """Return the largest number of runs that one `search` may need in total.

    A run is one training with one choice of hyper-parameters (a point) and one seed.
    The first search in the example has one point, and needs one run for each seed. The
    second search has four stages, which `search` describes. The screening needs 32
    points · 4 seeds, and the race 8 points · 6 seeds. The refinement has at most 4
    rounds, and each round needs 8 points · 4 seeds and 4 points · 6 seeds. The choice
    needs at most 4 points · 20 seeds. The sum is 480 runs.

    Args:
      budget: Number of points of the screening. Pass 1 for a space without ranges.
      seeds: Number of seeds of the search.
    Example:
      >>> most_runs(1, 30), most_runs(32, 30)
      (30, 480)
    """
    check_count("budget", budget)
    check_count("seeds", seeds)
    check_most(MOST_TRIALS, budget=budget)
    check_most(MOST_SEEDS, seeds=seeds)
    screening, racing = (min(n, seeds) for n in (SCREENING_SEEDS, RACING_SEEDS))
    if budget == 1:
        return seeds
    new = math.ceil(budget / KEPT)
    race = racing - screening
    refinement = new * screening + math.ceil(new / 2) * race
    return (
        budget * screening
        + new * race
        + ROUNDS * refinement
        + FINALISTS * (seeds - racing)
    )


def most_runs_at_once(budget: int, seeds: int) -> int:
    """Return the largest number of runs that a `search` may ask for at one time.

    A search asks for runs several times; `search` describes its stages. With few seeds,
    it usually asks for the most runs at once in the screening. With many seeds, it does
    so in the choice among the finalists. The arguments are those of `most_runs`.

    Example:
      >>> most_runs_at_once(32, 30), most_runs_at_once(4, 60)
      (128, 200)
    """
    check_count("budget", budget)
    check_count("seeds", seeds)
    screening, racing = (min(n, seeds) for n in (SCREENING_SEEDS, RACING_SEEDS))
    race = math.ceil(budget / KEPT) * (racing - screening)
    finalists = FINALISTS if budget > 1 else 1
    return max(budget * screening, race, finalists * (seeds - racing))


def _search(
    space: dict,
    budget: int,
    seeds: Int[np.ndarray, " seeds"],
    generator: np.random.Generator,
) -> Search:
    screening, racing = (min(n, len(seeds)) for n in (SCREENING_SEEDS, RACING_SEEDS))
    count = budget if space else 1
    points = np.concatenate(
        [to_unit(space), _sobol(len(space), count - 1, generator)], axis=0
    )
    table = _Table(space, points, np.full((count, len(seeds)), np.nan), seeds)
    yield from table.run(np.arange(count), screening)
    yield from table.run(table.best(screening, math.ceil(count / KEPT)), racing)
    rounds, unsuccessful, limits = 0, 0, unit_limits(space)
    while count > 1 and rounds < ROUNDS and unsuccessful < PATIENCE:
        before, rounds = table.lowest(racing), rounds + 1
        new = table.add(_refined(table, screening, racing, count, limits, generator))
        yield from table.run(new, screening)
        better = table.best(screening, math.ceil(len(new) / 2), among=new)
        yield from table.run(better, racing)
        gained = before - table.lowest(racing) >= LEAST_GAIN
        unsuccessful = 0 if gained else unsuccessful + 1
    finalists = table.best(racing, FINALISTS if count > 1 else 1)
    yield from table.run(finalists, len(seeds))
    chosen = int(table.best(len(seeds), 1)[0])
    values = table.values(np.arange(len(table.points)))
    return Searched(values, table.scores, count, chosen, rounds)


class _Table:
    """Points of a search in the unit cube, and their scores so far."""

    def __init__(
        self,
        space: dict,
        points: Float[np.ndarray, "points dimensions"],
        scores: Float[np.ndarray, "points seeds"],
        seeds: Int[np.ndarray, " seeds"],
    ) -> None:
        self.space, self.points, self.scores, self.seeds = space, points, scores, seeds

    def add(
        self, points: Float[np.ndarray, "points dimensions"]
    ) -> Int[np.ndarray, " points"]:
        """Add points, and return their rows."""
        start = len(self.points)
        self.points = np.concatenate([self.points, points])
        missing = np.full((len(points), self.scores.shape[1]), np.nan)
        self.scores = np.concatenate([self.scores, missing])
        return np.arange(start, len(self.points))

    def run(
        self, rows: Int[np.ndarray, " rows"], count: int
    ) -> Generator[Runs, Float[np.ndarray, " runs"], None]:
        """Ask for the scores of points on the first `count` seeds."""
        missing: Bool[np.ndarray, "rows seeds"] = np.isnan(self.scores[rows, :count])
        if not missing.any():
            return
        places, columns = np.nonzero(missing)
        points = rows[places]
        scores = yield Runs(self.values(points), self.seeds[columns])
        if scores.shape != points.shape or not np.isfinite(scores).all():
            raise ValueError(
                f"evaluate must return one finite score for each of the {len(points)} "
                f"runs; got shape {scores.shape}, {np.isfinite(scores).sum()} finite."
            )
        self.scores[points, columns] = scores

    def values(
        self, rows: Int[np.ndarray, " rows"]
    ) -> dict[str, Float[np.ndarray, " rows"]]:
        """Return the hyper-parameters of points. Row 0 gives exactly the defaults."""
        values = from_unit(self.space, self.points[rows])
        for name, range_ in self.space.items():
            if range_.default is not None:
                values[name] = np.where(rows == 0, range_.default, values[name])
        return values

    def best(
        self,
        count: int,
        number: int,
        among: Int[np.ndarray, " rows"] | None = None,
    ) -> Int[np.ndarray, " rows"]:
        """Return the rows of the best points, at most `number`, the best first.

        Only points that ran on the first `count` seeds are returned, and only rows in
        `among` if it is not None.
        """
        rows = np.arange(len(self.points)) if among is None else among
        means = self.scores[rows, :count].mean(axis=1)  # NaN if a run is missing.
        ran = np.isfinite(means)
        return rows[ran][np.argsort(means[ran], kind="stable")][:number]

    def lowest(self, count: int) -> float:
        """Return the lowest mean score over the first `count` seeds."""
        return float(np.nanmin(self.scores[:, :count].mean(axis=1)))


def _refined(
    table: _Table,
    screening: int,
    racing: int,
    count: int,
    limits: tuple[Float[np.ndarray, " dimensions"], Float[np.ndarray, " dimensions"]],
    generator: np.random.Generator,
) -> Float[np.ndarray, "points dimensions"]:
    """Return normally distributed points around the best points.

    Their covariance is that of the elite, made smaller, plus a small multiple of the
    identity.
    """
    number, dimensions = math.ceil(count / KEPT), table.points.shape[1]
    centres = table.points[table.best(racing, CENTRES)]
    elite = table.best(screening, max(dimensions + 2, math.ceil(ELITE * count)))
    covariance = np.cov(table.points[elite].T).reshape(dimensions, dimensions)
    covariance = SPREAD**2 * covariance + LEAST_SPREAD**2 * np.eye(dimensions)
    shares = _sobol(dimensions, number, generator)
    normal = special.ndtri(np.clip(shares, 1e-6, 1 - 1e-6))
    offsets = normal @ np.linalg.cholesky(covariance).T
    return np.clip(centres[np.arange(number) % len(centres)] + offsets, *limits)


def _sobol(
    dimensions: int, number: int, generator: np.random.Generator
) -> Float[np.ndarray, "points dimensions"]:
    """Return scrambled Sobol points in [0, 1), shape (number, dimensions)."""
    if not dimensions or number < 1:
        return np.zeros((max(number, 0), dimensions))
    power = math.ceil(math.log2(number)) if number > 1 else 0
    sampler = qmc.Sobol(dimensions, scramble=True, rng=generator)
    return sampler.random_base2(power)[:number]
