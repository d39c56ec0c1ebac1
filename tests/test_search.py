"""Laws of a search: which points it tries on which seeds, what it chooses, and how far
it may go.
"""

import math

import numpy as np
import pytest

from research.tuning import Range
from research.tuning.search import (
    FINALISTS,
    KEPT,
    RACING_SEEDS,
    ROUNDS,
    SCREENING_SEEDS,
    most_runs,
    most_runs_at_once,
    search,
    search_all,
)
from research.tuning.spaces import (
    from_unit,
    parse_range,
    range_text,
    to_unit,
    unit_limits,
)

SPACE = {
    "learning_rate": Range(1e-4, 10.0),
    "momentum": Range(0.0, 0.99, "one_minus", default=0.9),
}


def bowl(runs, best=0.02, noise=0.0):
    """Log costs with a minimum at a learning rate; momentum matters less; a deviation
    for each seed.
    """
    away = np.log(runs.values["learning_rate"] / best)
    momentum = runs.values.get("momentum", 0.0)
    own = np.random.default_rng(0).standard_normal(10_000)[runs.seeds % 10_000]
    return 0.3 * away**2 + (momentum - 0.5) ** 2 + noise * own


def run_all(searches, score=bowl):
    asked = []

    def evaluate(wanted):
        asked.append(wanted)
        return [score(runs) for runs in wanted]

    return search_all(searches, evaluate), asked


def one(budget=16, seeds=range(30), seed=0, score=bowl, space=SPACE):
    (found,), asked = run_all(
        [search(space, budget, seeds, np.random.default_rng(seed))], score
    )
    return found, [runs for wanted in asked for runs in wanted]


def test_every_point_runs_on_the_screening_seeds_and_the_better_quarter_races():
    found, asked = one()
    runs = len(found.scores)
    counts = np.isfinite(found.scores).sum(axis=1)
    assert set(counts) <= {SCREENING_SEEDS, RACING_SEEDS, 30}
    assert (counts >= SCREENING_SEEDS).all()
    assert (counts == 30).sum() == FINALISTS
    screened = found.scores[: found.screened, :SCREENING_SEEDS].mean(axis=1)
    raced = counts[: found.screened] > SCREENING_SEEDS
    assert raced.sum() == math.ceil(found.screened / KEPT)
    assert screened[raced].max() <= screened[~raced].min()
    assert sum(len(each.seeds) for each in asked) == np.isfinite(found.scores).sum()
    assert runs == 16 + found.rounds * 4


def test_the_choice_has_the_lowest_mean_over_all_seeds_of_those_that_ran_on_all():
    for seed in range(5):
        found, _ = one(seed=seed, score=lambda runs: bowl(runs, noise=0.5))
        whole = np.isfinite(found.scores).all(axis=1)
        means = np.where(whole, found.scores.mean(axis=1), np.inf)
        assert found.chosen == np.argmin(means)


def test_independent_searches_agree_on_a_bowl_and_do_not_without_refinement():
    sources = [np.random.default_rng(seed) for seed in range(8)]
    found, _ = run_all([search(SPACE, 32, range(10), source) for source in sources])
    lowest = [each.scores[each.chosen].mean() for each in found]
    first = [
        each.scores[: each.screened, :SCREENING_SEEDS].mean(axis=1).min()
        for each in found
    ]
    assert np.std(lowest) < 0.5 * np.std(first)
    assert np.mean(lowest) < 0.2 * np.mean(first)


def test_seeds_of_the_sobol_points_decide_the_points_alone():
    same, again, other = (one(seed=seed)[0] for seed in (0, 0, 1))
    for name, column in same.values.items():
        np.testing.assert_array_equal(column, again.values[name])
        assert not np.isin(column[1:16], other.values[name][1:16]).any()
        assert column[0] == other.values[name][0]  # The defaults.
    assert same.values["momentum"][0] == 0.9


def test_advancing_together_changes_nothing():
    alone = [one(seed=seed)[0] for seed in range(3)]
    sources = [np.random.default_rng(seed) for seed in range(3)]
    together, _ = run_all([search(SPACE, 16, range(30), source) for source in sources])
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.scores, second.scores)
        assert first.chosen_values == second.chosen_values


@pytest.mark.parametrize("best", [20.0, 5e-5])
def test_refinement_follows_a_minimum_outside_the_range_by_a_third(best):
    found, _ = one(score=lambda runs: bowl(runs, best=best), budget=64)
    rate = found.chosen_values["learning_rate"]
    assert abs(np.log(rate / best)) < 0.3
    lows, highs = unit_limits(SPACE)
    shares = np.log(found.values["learning_rate"] / 1e-4) / np.log(10.0 / 1e-4)
    assert shares.min() >= lows[0] - 1e-12
    assert shares.max() <= highs[0] + 1e-12
    assert found.values["momentum"].min() >= 0.0


def test_two_rounds_without_gain_are_the_last():
    found, _ = one(score=lambda runs: np.ones(len(runs.seeds)))
    assert found.rounds == 2
    assert one(score=lambda runs: bowl(runs), budget=32)[0].rounds <= ROUNDS


@pytest.mark.parametrize("budget", [2, 4, 16])
def test_only_points_that_ran_on_the_racing_seeds_run_on_all(budget):
    found, asked = one(budget=budget)
    assert asked[-1].seeds.min() == RACING_SEEDS
    raced = np.isfinite(found.scores[:, :RACING_SEEDS]).all(axis=1).sum()
    whole = np.isfinite(found.scores).all(axis=1).sum()
    assert whole == min(raced, FINALISTS)


def test_nothing_to_search_runs_once_on_all_seeds():
    found, asked = one(space={}, score=lambda runs: np.ones(len(runs.seeds)))
    assert found.scores.shape == (1, 30)
    assert found.chosen_values == {}
    assert sum(len(runs.seeds) for runs in asked) == 30


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 16, 64])
@pytest.mark.parametrize("seeds", [2, 4, 7, 30])
def test_no_search_asks_for_more_runs_than_stated(budget, seeds):
    # A score that falls for ever lets every round gain.
    def falling(runs):
        return -1e3 * np.log(runs.values["learning_rate"])

    for score in (bowl, falling):
        _, asked = one(budget=budget, seeds=range(seeds), score=score)
        counts = [len(runs.seeds) for runs in asked]
        assert sum(counts) <= most_runs(budget, seeds)
        assert max(counts) <= most_runs_at_once(budget, seeds)


def test_shares_of_a_range_and_values_are_inverse():
    points = np.random.default_rng(0).random((50, 2))
    values = from_unit(SPACE, points)
    ends = from_unit(SPACE, np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert ends["learning_rate"].tolist() == [1e-4, 10.0]
    assert ends["momentum"].tolist() == [0.0, 0.99]
    np.testing.assert_allclose(
        np.log(values["learning_rate"] / 1e-4) / np.log(1e5), points[:, 0]
    )
    np.testing.assert_allclose(
        np.log1p(-values["momentum"]) / np.log1p(-0.99), points[:, 1]
    )
    np.testing.assert_allclose(from_unit(SPACE, to_unit(SPACE))["momentum"], [0.9])


def test_scores_that_make_no_sense_are_refused():
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="one finite score for each of the"):
            one(score=lambda runs, wrong=wrong: np.full(len(runs.seeds), wrong))
    with pytest.raises(ValueError, match="one finite score for each of the"):
        one(score=lambda runs: np.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "budget"),
        ({"seeds": []}, "seeds must hold at least one"),
        ({"space": {"learning_rate": Range(0.0, 1.0)}}, "log scale"),
    ],
)
def test_bad_input_is_refused_before_the_first_run(change, message):
    arguments = {"space": SPACE, "budget": 4, "seeds": range(3)} | change
    with pytest.raises(ValueError, match=message):
        search(**arguments, generator=np.random.default_rng(0))


def test_the_text_of_a_range_holds_a_number_of_numpy():
    given = Range(0.01, 1.0, "log", np.float64(0.1))
    assert parse_range(range_text(given)) == given
