"""Laws of the comparison over independent searches: coverage, and what moves the
interval.
"""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from research.statistics import searched_cost, searched_difference
from research.statistics.bootstrap import choice_weights, wilson_interval
from research.statistics.costs import (
    log_costs,
    passes_to_target,
    penalised_passes,
    search_scores,
)
from research.statistics.searches import best_of_trials

COMPILE_QUICKLY = True  # tests/conftest.py

SHARE = pytest.mark.parametrize(
    "share",
    [0.2, pytest.param(1.0, marks=pytest.mark.thorough("five times as many studies"))],
)


def simulate(generator, search=0.2, seed=0.2, rest=0.1, searches=5, seeds=20, both=2):
    """Log costs of rules: rule + search + seed + rest; the effect of a seed is
    common.
    """
    common = generator.normal(0, seed, seeds)
    shape = (both, searches, seeds)
    return tuple(
        generator.normal(0, search, shape[:2])[..., None]
        + common
        + generator.normal(0, rest, shape)
    )


@pytest.mark.thorough("other effects", but=r"^0\.2-0\.2-")
@SHARE
@pytest.mark.parametrize(
    ("search", "seed", "rest"), [(0.2, 0.2, 0.1), (0.0, 0.2, 0.2), (0.3, 0.0, 0.02)]
)
def test_equal_rules_have_a_winner_in_no_more_studies_than_the_level_says(
    search, seed, rest, share
):
    generator, named, total = np.random.default_rng(0), 0, round(1500 * share)
    for _ in range(total):
        pair = simulate(generator, search, seed, rest)
        named += searched_difference([pair]).verdict != "undecided"
    assert stats.binomtest(named, total, 0.05, alternative="greater").pvalue > 1e-4
    if search > 0:  # Without any effect of searches, its estimate is often too large.
        assert named > 0.02 * total


@SHARE
def test_the_interval_holds_the_true_ratio_over_workloads(share):
    generator, held, true = np.random.default_rng(1), 0, 0.3
    total = round(800 * share)
    for _ in range(total):
        pairs = [simulate(generator) for _ in range(3)]
        pairs = [(mine + true, other) for mine, other in pairs]
        found = searched_difference(pairs)
        held += found.low <= np.exp(true) <= found.high
    assert stats.binomtest(held, total, 0.95, alternative="less").pvalue > 1e-4
    assert held < total


@pytest.mark.thorough(
    "300 more studies; "
    "test_equal_rules_have_a_winner_in_no_more_studies_than_the_level_says has the "
    "law"
)
def test_seeds_alone_would_name_the_luck_of_the_search():
    # One rule, seeds hardly matter: a t-test over seeds of one search each is sure,
    # this is not.
    generator, named, total = np.random.default_rng(2), 0, 300
    sure = 0
    for _ in range(total):
        mine, other = simulate(generator, search=0.2, seed=0.1, rest=0.02)
        sure += stats.ttest_rel(mine[0], other[0]).pvalue < 0.05
        named += searched_difference([(mine, other)]).verdict != "undecided"
    assert sure > 0.8 * total
    assert stats.binomtest(named, total, 0.05, alternative="greater").pvalue > 1e-4


def test_ratio_is_that_of_geometric_means_and_turns_with_the_sides():
    mine, other = simulate(np.random.default_rng(3))
    there, back = (
        searched_difference([pair]) for pair in ((mine, other), (other, mine))
    )
    assert there.ratio == pytest.approx(np.exp(mine.mean() - other.mean()))
    assert there.low == pytest.approx(1 / back.high)
    assert there.win == pytest.approx(1 - back.win)
    wins = [
        np.mean((a < b) + 0.5 * (a == b)) for a, b in itertools.product(mine, other)
    ]
    assert there.win == pytest.approx(np.mean(wins))


@SHARE
def test_the_variance_is_that_of_the_crossed_model(share):
    # Over many studies, the mean estimate is the variance of the estimated log ratio.
    generator, found, variances = np.random.default_rng(4), [], []
    for study in range(3000):
        mine, other = simulate(generator, search=0.2, seed=0.1, rest=0.4)
        found.append(mine.mean() - other.mean())
        if study < 3000 * share:
            variances.append(searched_difference([(mine, other)]))
    true = 2 * 0.2**2 / 5 + 2 * 0.4**2 / 100
    assert np.var(found) == pytest.approx(true, rel=0.1)
    held = np.mean([one.low <= 1.0 <= one.high for one in variances])
    assert 0.93 < held < 0.985


def test_the_interval_is_the_sum_of_mean_squares():
    pairs = [simulate(np.random.default_rng(4), search=0.3)]
    pairs += [
        simulate(np.random.default_rng(k), 0.1, 0.02, 0.3, searches=3)
        for k in range(40)
    ]
    floors = set()
    for mine, other in pairs:
        J, n = mine.shape
        terms = [(np.var(mine.mean(0) - other.mean(0), ddof=1) / n, n - 1, 1)]
        for table in (mine, other):
            fitted = table.mean(0) + table.mean(1)[:, None] - table.mean()
            rest = ((table - fitted) ** 2).sum() / ((J - 1) * (n - 1)) / (n * J)
            between = np.var(table.mean(1), ddof=1) / J
            if between > rest:
                terms += [(between, J - 1, 1), (rest, (J - 1) * (n - 1), -1)]
        total = sum(sign * term for term, _, sign in terms)
        freedom = total**2 / sum(term**2 / own for term, own, _ in terms)
        floor = min(own for _, own, _ in terms)
        floors.add((floor, freedom < floor))
        half = stats.t.isf(0.025, max(freedom, floor)) * np.sqrt(total)
        found = searched_difference([(mine, other)])
        assert np.log(found.high / found.ratio) == pytest.approx(half)
        assert found.from_searches == pytest.approx(1 - terms[0][0] / total)
    # Some studies have no term of searches, and in some the floor binds.
    assert floors == {(4, False), (2, False), (2, True), (19, False)}


@SHARE
def test_the_detectable_factor_is_detected_with_power_four_in_five(share):
    generator, total = np.random.default_rng(5), round(2000 * share)
    # The factor is estimated in each study; here that of the true variances is planted.
    factors = [
        np.log(searched_difference([simulate(generator)]).detectable)
        for _ in range(round(400 * share))
    ]
    planted, found = np.mean(factors), 0
    for _ in range(total):
        mine, other = simulate(generator)
        found += searched_difference([(mine - planted, other)]).verdict == "better"
    assert 0.75 < found / total < 0.9


def test_no_interval_is_narrower_than_what_a_search_resolves():
    same = np.zeros((5, 20))
    found = searched_difference([(same, same + 0.015)])
    assert found.verdict == "undecided"
    assert searched_difference([(same, same + 0.03)]).verdict == "better"
    assert found.detectable >= 1.02


def test_a_rule_with_nothing_to_search_adds_no_variance():
    generator = np.random.default_rng(6)
    mine, other = simulate(generator)
    fixed = searched_difference([(mine[:1], other[:1])])
    assert fixed.from_searches == 0.0
    paired = stats.ttest_rel(mine[0], other[0]).confidence_interval(0.95)
    assert np.log(fixed.low) == pytest.approx(paired.low)


def test_the_cost_of_one_search_has_students_interval_over_its_seeds():
    (logs,) = simulate(np.random.default_rng(6), searches=1, both=1)
    found = searched_cost(logs)
    student = stats.ttest_1samp(logs[0], 0.0).confidence_interval(0.95)
    ends = np.log([found.low, found.high])
    np.testing.assert_allclose(ends, [student.low, student.high], rtol=1e-12)


def test_more_comparisons_widen_every_interval():
    pair = simulate(np.random.default_rng(7))
    one, many = (searched_difference([pair], comparisons=n) for n in (1, 20))
    assert many.low < one.low < one.high < many.high
    assert many.win_low < one.win_low < one.win_high < many.win_high
    assert many.detectable > one.detectable


def test_searches_disagree_where_they_differ_more_than_seeds_explain():
    generator, wrong = np.random.default_rng(8), 0
    for _ in range(500):
        alike = simulate(generator, search=0.0, rest=0.5, both=1)[0]
        wrong += searched_cost(alike).disagree
    assert stats.binomtest(wrong, 500, 0.01, alternative="greater").pvalue > 1e-4
    apart = simulate(generator, search=0.5, both=1)[0]
    found = searched_cost(apart)
    means = apart.mean(axis=1)
    assert found.disagree
    assert found.spread == pytest.approx(np.exp(np.ptp(means)))
    assert not searched_cost(apart * 0.01).disagree  # Different, but by less than 1.25.
    same = searched_cost(np.log([[1.0, 2.0, 4.0]] * 2), factor=1.0)
    assert same.spread == 1.0
    assert not same.disagree  # The residuals are 0, and so is the difference.


def test_a_higher_level_gives_a_wider_interval_up_to_infinity():
    logs = np.log([[3.0, 3.1, 3.2, 3.0], [300.0] * 4])
    levels = (0.9, 0.95, 0.99, 0.999, 0.99999)
    for ends in (
        [searched_cost(logs, level=level) for level in levels],
        [searched_difference([(logs, -logs)], level=level) for level in levels],
    ):
        lows, highs = np.array([(one.low, one.high) for one in ends]).T
        assert (np.diff(lows) <= 0).all()
        assert (np.diff(highs[np.isfinite(highs)]) > 0).all()
        assert (lows[-1], highs[-1]) == (0, np.inf)
    assert searched_cost(np.array([[-700.0, -700.0], [700.0, 700.0]])).spread == np.inf


def test_a_share_that_is_the_same_on_all_seeds_has_wilsons_interval():
    # On each of 21 seeds one of three searches is cheaper. The variance is rounding.
    mine = np.ones((3, 21))
    mine[np.arange(21) % 3, np.arange(21)] = -1.0
    found = searched_difference([(mine, np.zeros((1, 21)))])
    wilson = stats.binomtest(7, 21).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(
        wilson_interval(1 / 3, 1e-33, 1e9, 21, 0.95), (wilson.low, wilson.high)
    )
    # Student's quantile is above the normal one.
    assert found.win_low < wilson.low
    assert found.win_high > wilson.high
    assert np.isnan(found.from_searches)


def test_f_test_of_searches_equals_that_of_two_way_analysis_of_variance():
    answers = []
    for seed in range(60):
        logs = simulate(np.random.default_rng(seed), search=0.12, rest=0.7, both=1)[0]
        rows, columns = logs.shape
        between = columns * ((logs.mean(1) - logs.mean()) ** 2).sum() / (rows - 1)
        fitted = logs.mean(1)[:, None] + logs.mean(0) - logs.mean()
        freedom = (rows - 1, (rows - 1) * (columns - 1))
        within = ((logs - fitted) ** 2).sum() / freedom[1]
        differ = stats.f.sf(between / within, *freedom) < 0.01
        wide = np.ptp(logs.mean(1)) >= np.log(1.25)
        assert searched_cost(logs).disagree == (wide and differ)
        answers.append((bool(wide), bool(differ)))
    assert {(True, True), (True, False), (False, False)} <= set(answers)


@pytest.mark.thorough(
    "one search; test_best_of_trials_pools_the_points_of_all_searches has three, "
    "test_statistics.py the subsets"
)
def test_best_of_trials_is_the_mean_over_all_subsets():
    generator = np.random.default_rng(10)
    scores = generator.normal(size=(1, 5, 2))
    choose, report = scores[0, :, 0], scores[0, :, 1]
    for k in range(1, 6):
        expected = []
        for one, two in ((choose, report), (report, choose)):
            subsets = itertools.combinations(range(1, 5), k - 1)
            best = [min((0, *s), key=lambda row: one[row]) for s in subsets]
            expected.append(np.mean(two[best]))
        found = np.log(best_of_trials(scores)[k - 1, 0])
        assert found == pytest.approx(np.mean(expected))


def test_best_of_trials_pools_the_points_of_all_searches():
    scores = np.random.default_rng(11).normal(size=(3, 4, 4))
    halves = [scores[..., :2].mean(2), scores[..., 2:].mean(2)]
    pooled = [np.concatenate([[h[:, 0].mean()], h[:, 1:].ravel()]) for h in halves]
    for k in (1, 2, 4):
        expected = [choice_weights(one, k) @ two for one, two in (pooled, pooled[::-1])]
        found = np.log(best_of_trials(scores)[k - 1, 0])
        assert found == pytest.approx(np.mean(expected))


@pytest.mark.on_ci(
    "many searches; test_best_of_trials_pools_the_points_of_all_searches has the "
    "estimate, but not its band"
)
@SHARE
def test_the_band_of_k_trials_holds_what_other_searches_give(share):
    # The true curve comes from very many points; the seeds of a search shift all its
    # points.
    generator = np.random.default_rng(12)

    def screening(searches, count):
        scores = generator.normal(0, 0.5, (searches, count, 1))
        scores[:, 0] = 1.0
        return scores + generator.normal(0, 0.1, (searches, count, 4))

    true = np.log(best_of_trials(screening(400, 8), resamples=100)[:, 0])
    held, total = np.zeros((2, 8)), round(120 * share)
    for _ in range(total):
        scores = screening(5, 8)
        for counts, level in zip(held, (0.95, 0.5), strict=True):
            band = best_of_trials(scores, level=level, resamples=100)
            _, low, high = np.log(band).T
            counts += (low <= true) & (true <= high)
    # At the level 0.5, a band that is too wide is seen as well as one too narrow.
    for counts, level, side in zip(
        held, (0.95, 0.5), ("less", "two-sided"), strict=True
    ):
        for count in counts.astype(int):
            assert stats.binomtest(count, total, level, side).pvalue > 1e-4


def test_a_larger_budget_moves_the_scores_of_misses_alone_and_all_by_the_same():
    passes, gaps = np.arange(4.0), np.array([0.5, 0.1, 0.01, np.inf])
    curves = gaps[:, None] ** (passes / 3)
    curves[:, 0] = 1.0
    own, larger = (search_scores(passes, curves, 0.05, b) for b in (None, 12.0))
    np.testing.assert_allclose(larger - own, np.log([4.0, 4.0, 1.0, 4.0]), atol=1e-14)
    with pytest.raises(ValueError, match=r"budget must be at least passes\[-1\]=3.0"):
        search_scores(passes, curves, 0.05, 2.0)


def test_scores_of_a_search_rank_misses_behind_all_that_reach_the_target():
    passes = np.arange(31.0)
    generator = np.random.default_rng(13)
    curves = np.cumprod(generator.uniform(0.6, 1.05, (200, 31)), axis=1)
    curves /= curves[:, :1]
    curves[:5, 7:] = np.inf
    costs = passes_to_target(passes, curves, 1e-3)
    scores = search_scores(passes, curves, 1e-3)
    reached = np.isfinite(costs)
    assert reached.any()
    assert not reached.all()
    np.testing.assert_allclose(np.exp(scores[reached]), costs[reached])
    assert scores[~reached].min() > scores[reached].max()
    missed = penalised_passes(passes, curves, 1e-3)[~reached]
    order = np.argsort(missed, kind="stable")
    assert (np.diff(scores[~reached][order]) >= 0).all()
    np.testing.assert_allclose(scores[~reached], np.log(300.0), atol=0.0024)
    np.testing.assert_allclose(
        log_costs(costs, 30.0)[~reached], np.log(300.0), rtol=1e-15
    )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "pairs must hold the log costs"),
        ([(np.ones((2, 3)), np.ones((2, 4)))], "same reporting seeds"),
        ([(np.ones((2, 3)), np.full((2, 3), np.inf))], "must be a finite log cost"),
        ([(np.ones((2, 1)), np.ones((2, 1)))], "two seeds"),
        ([(np.ones(3), np.ones(3))], "two seeds"),
    ],
)
def test_bad_input_is_shown(pairs, message):
    with pytest.raises(ValueError, match=message):
        searched_difference(pairs)


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf, "2"])
@pytest.mark.parametrize("name", ["resolution", "factor"])
def test_a_resolution_or_factor_that_is_no_size_is_refused_by_name(name, value):
    logs = np.log([[4.0, 6.0, 4.0], [8.0, 12.0, 8.0]])
    with pytest.raises((ValueError, TypeError), match=f"{name} must be"):
        searched_cost(logs, **{name: value})
    with pytest.raises(ValueError, match="resolution must be"):
        searched_difference([(logs, logs)], resolution=1000.0)
