"""Laws of costs, of the choice of a trial, and of what a comparison may say: coverage
and power where the truth is known.
"""

import fractions
import itertools

import numpy as np
import pytest
from scipy import stats

from research.statistics import bootstrap, costs, profiles, scores
from research.statistics import differences as statistics
from research.statistics.intervals import median_interval
from research.statistics.scores import Scores

COMPILE_QUICKLY = True  # tests/conftest.py

FEW_OR_ALL = pytest.mark.parametrize(
    "studies",
    [100, pytest.param(1000, marks=pytest.mark.thorough("ten times as many studies"))],
)
BUDGET = 30.0
# Distances, in log learning rate, of twelve trials from the best one: the defaults,
# then Halton points over three decades.
DISTANCES = np.concatenate(
    [
        [0.9],
        np.log(1e3) * (stats.qmc.Halton(1, scramble=False).random(12)[1:, 0] - 0.55),
    ]
)
# Below the best rate the cost grows as one over the rate, above it as its square, and
# far above all diverges.
VALLEY = np.sqrt(np.where(DISTANCES > 0, 2, 1) ** 2 * DISTANCES**2 + 0.3**2) - 0.3


def study(
    generator,
    *,
    tuning=3,
    reporting=20,
    factor=1.0,
    spread=0.2,
    budget=BUDGET,
    shape="normal",
    valley=VALLEY,
):
    """Two rules with the same valley, mine `factor` times as costly: seeds with a
    common effect, and noise of each run.
    """
    seeds, size = tuning + reporting, (2, len(valley), tuning + reporting)
    noise = {
        "normal": lambda: generator.normal(size=size),
        "heavy": lambda: generator.standard_t(3, size=size) / np.sqrt(3),
        "skewed": lambda: generator.exponential(size=size) - 1,
    }[shape]()
    passes = (
        6
        * np.exp(valley[:, None] + spread * (generator.normal(size=seeds) + noise))
        * [[[factor]], [[1.0]]]
    )
    if valley is VALLEY:
        passes[:, DISTANCES > 2.3] = np.inf
    return [
        Scores(
            np.minimum(p[:, :tuning], 10 * BUDGET),
            np.where(p <= budget, p, np.inf)[:, tuning:],
            budget,
        )
        for p in passes
    ]


def differences(number, seed, level=0.95, comparisons=1, resamples=1000, **kinds):
    generator = np.random.default_rng(seed)
    return [
        statistics.difference(
            *study(generator, **kinds),
            level=level,
            comparisons=comparisons,
            resamples=resamples,
            seed=i,
        )
        for i in range(number)
    ]


def within(count, number, chance):
    """Whether so many of a number of trials fit a chance: inside the central 95 % of
    the binomial distribution.
    """
    low, high = stats.binom.interval(0.95, number, chance)
    return low <= count <= high


def at_least(count, number, chance):
    return count >= stats.binom.ppf(0.025, number, chance)


def constant(cost, trials=1, seeds=5):
    return Scores(
        np.full((trials, 3), min(cost, 300.0)), np.full((trials, seeds), cost), BUDGET
    )


# Costs.


@pytest.mark.parametrize("step", [0.25, 1.0, 3.0])
def test_passes_of_a_geometric_descent_do_not_depend_on_where_it_was_evaluated(step):
    passes = np.arange(0, 30 + step, step)
    rates = np.array([0.3, 1.0, 2.0])
    np.testing.assert_allclose(
        costs.passes_to_target(passes, np.exp(-rates[:, None] * passes), 1e-2),
        np.log(100) / rates,
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("relative", "expected"),
    [
        ([1.0, 0.5, 0.2, 0.1], np.inf),  # The budget ends first.
        ([1.0, np.nan, 1e-3, 1e-3], np.inf),  # Diverged, whatever comes later.
        ([1.0, np.inf, 1e-3, 1e-3], np.inf),
        ([1.0, 1e-4, np.nan, 1.0], 0.5),  # Reached before it diverged.
        ([1.0, 1e-4, 1.0, 1e-9], 0.5),  # The first crossing counts.
        ([1e-2, 1e-3, 1e-4, 1e-5], 0.0),  # There from the start.
        (
            [1.0, 10.0, 1e-3, 1e-4],
            1.75,
        ),  # Interpolated from where it was, here above the start.
        ([1.0, 0.0, 0.0, 0.0], 1 / 6),  # A gap of zero is one of 1e-12.
        ([1.0, -1e-16, 0.0, 0.0], 1 / 6),  # Rounding below the optimum too.
        ([np.nan, 1e-3, 1e-3, 1e-3], np.inf),
    ],
)
def test_passes_at_the_first_crossing(relative, expected):
    np.testing.assert_allclose(
        costs.passes_to_target(np.arange(4.0), np.array(relative), 1e-2),
        expected,
        rtol=1e-12,
    )


def test_penalised_passes_continue_a_geometric_descent_to_where_it_would_arrive():
    passes, rates = (
        np.linspace(0, 10, 11),
        np.log(100) / np.array([5.0, 10.0, 20.0, 99.0, 101.0, -5.0]),
    )
    found = costs.penalised_passes(passes, np.exp(-rates[:, None] * passes), 1e-2)
    np.testing.assert_allclose(found, [5, 10, 20, 99, 100, 100], rtol=1e-12)


@pytest.mark.parametrize(
    ("relative", "expected"),
    [
        ([1.0, np.nan, 1e-3], 20.0),
        ([1.0, 0.5, np.inf], 20.0),
        ([1.0, 0.5, 1.0], 20.0),
        ([1.0, 0.1, np.nan], 20.0),
        ([1.0, 1e-4, np.nan], 0.5),
        ([1.0, 0.5, 0.1], 4.0),
    ],
)
def test_penalised_passes_of_a_run_that_diverged_or_stood_still_are_ten_budgets(
    relative, expected
):
    np.testing.assert_allclose(
        costs.penalised_passes(np.arange(3.0), np.array(relative), 1e-2),
        expected,
        rtol=1e-12,
    )


def test_penalties_of_misses_have_the_limit_of_the_budget():
    # The gap falls by 1, 0.5 and 0.11 decades in ten passes, or the run diverges.
    gaps = np.array([[1.0, 0.1], [1.0, 0.1**0.5], [1.0, 0.1**0.11], [1.0, np.inf]])
    found = [
        costs.penalised_passes(np.array([0.0, 10.0]), gaps, 0.0999999999, budget)
        for budget in (None, 12.0)
    ]
    np.testing.assert_allclose(found[0], [10.0, 20.0, 10 / 0.11, 100.0], rtol=1e-8)
    np.testing.assert_allclose(found[1], [10.0, 20.0, 10 / 0.11, 120.0], rtol=1e-8)
    with pytest.raises(ValueError, match=r"budget must be at least passes\[-1\]=10.0"):
        costs.penalised_passes(np.array([0.0, 10.0]), gaps, 0.1, 9.0)


def test_epochs_within_passes_are_those_of_exact_fractions():
    for tenths, passes in itertools.product(range(1, 60), range(6, 200)):
        cost = fractions.Fraction(tenths, 10)
        number = costs.epochs_within(passes, float(cost))
        assert number == passes // cost
        length = costs.full_length(float(number * cost) * 0.9, passes, float(cost))
        assert length == pytest.approx(0.9 * passes, rel=1e-12)
        if number * cost == passes and cost.is_integer():
            assert length == float(passes) * 0.9  # The same bits.


def test_expected_running_time_is_the_mean_of_restarts_until_one_reaches():
    generator, budget = np.random.default_rng(0), 10.0
    runs = np.where(np.arange(12) < 5, np.inf, generator.uniform(1, 10, 12))
    totals = []
    for _ in range(20000):
        total, cost = 0.0, np.inf
        while np.isinf(cost):
            cost = generator.choice(runs)
            total += min(cost, budget)
        totals.append(total)
    # Five standard errors: chance alone fails one time in a million.
    found = costs.expected_running_time(runs, budget)
    assert abs(np.mean(totals) - found) < 5 * stats.sem(totals)
    assert np.isinf(costs.expected_running_time(np.full(3, np.inf), budget))
    assert (
        costs.expected_running_time(np.array([4.0, 11.0]), budget) == 14.0
    )  # Past the budget is not reached.


# The choice.


def test_choice_is_the_lowest_mean_and_the_first_of_equals():
    assert (
        scores.choose(np.array([[5.0, 0.0], [1.0, 2.0], [2.0, 1.0], [9.0, 0.0]])) == 1
    )


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 7, 9])
def test_choice_weights_are_shares_of_all_subsets_that_hold_the_defaults(trials):
    generator = np.random.default_rng(trials)
    for default in (0.0, 0.4, 2.0):
        means = np.concatenate([[default], generator.random(6)])
        size = min(trials, 7)
        subsets = [(0, *rest) for rest in itertools.combinations(range(1, 7), size - 1)]
        chosen = [subset[np.argmin(means[list(subset)])] for subset in subsets]
        expected = np.bincount(chosen, minlength=7) / len(subsets)
        np.testing.assert_allclose(
            bootstrap.choice_weights(means, trials), expected, atol=1e-14
        )


# What may be said.


@pytest.mark.on_ci(
    "a hundred made-up studies; test_searched_statistics.py has the coverage of the "
    "intervals of studies"
)
@FEW_OR_ALL
def test_interval_covers_the_truth_under_the_null_as_often_as_it_says(studies):
    found = differences(studies, seed=0)
    assert within(sum(d.low <= 1 <= d.high for d in found), studies, 0.95)
    verdicts = [d.verdict for d in found]
    assert within(studies - verdicts.count("undecided"), studies, 0.05)
    assert within(verdicts.count("better"), studies, 0.025)
    # Ties and whole numbers of seeds make the other one cover a little more than it
    # says.
    assert at_least(sum(d.win_low <= 0.5 <= d.win_high for d in found), studies, 0.95)


@pytest.mark.thorough(
    "other noise; "
    "test_interval_covers_the_truth_under_the_null_as_often_as_it_says has normal "
    "noise"
)
@pytest.mark.parametrize(
    "kinds",
    [
        {"shape": "heavy"},
        {"shape": "skewed", "reporting": 10},
        {"reporting": 5},
        {"tuning": 5, "reporting": 10},
        {"budget": 7.0},  # Two runs in three of the best trial arrive.
        {"budget": 5.0},  # One in four: in many resamples none.
        {
            "valley": 1.5 * np.linspace(-1, 1, 12) ** 2,
            "spread": 0.3,
        },  # Flat: the choice is nearly a lottery.
    ],
    ids=str,
)
def test_interval_covers_at_least_what_it_says_on_other_noise(kinds):
    number = 250
    found = differences(number, seed=2, resamples=500, **kinds)
    assert at_least(sum(d.verdict == "undecided" for d in found), number, 0.95)


def test_interval_that_ignores_the_choice_is_narrower_and_covers_too_little():
    generator, number = np.random.default_rng(4), 300
    valley = 1.5 * np.linspace(-1, 1, 12) ** 2
    widths, covered = [], []
    for i in range(number):
        pair = study(generator, valley=valley, spread=0.3)
        picks = [scores.choose(s.tuning) for s in pair]
        alone = [
            Scores(s.tuning[[j]], s.costs[[j]], s.budget)
            for s, j in zip(pair, picks, strict=True)
        ]
        nested, ignoring = (
            statistics.difference(*p, resamples=500, seed=i) for p in (pair, alone)
        )
        assert nested.ratio == pytest.approx(ignoring.ratio, rel=1e-12)
        widths.append(
            np.log(nested.high / nested.low) / np.log(ignoring.high / ignoring.low)
        )
        covered.append(ignoring.verdict == "undecided")
    assert np.median(widths) > 1.1
    assert sum(covered) < stats.binom.ppf(0.001, number, 0.95)


def test_many_comparisons_call_none_under_the_null_as_often_as_one_does():
    families, size = 125, 10
    found = differences(families * size, seed=5, comparisons=size, resamples=400)
    called = (
        np.array([d.verdict != "undecided" for d in found])
        .reshape(families, size)
        .any(axis=1)
    )
    assert called.sum() <= stats.binom.ppf(0.975, families, 0.05)


def test_more_comparisons_widen_both_intervals():
    (one,), (many,) = (differences(1, seed=5, comparisons=count) for count in (1, 20))
    assert many.low < one.low < one.high < many.high
    assert many.win_low < one.win_low < one.win_high < many.win_high


@pytest.mark.on_ci(
    "two hundred made-up studies; "
    "test_seeds_needed_detect_a_tenth_with_the_power_stated_if_as_uncertain has the "
    "power"
)
@FEW_OR_ALL
def test_planted_tenth_is_found_with_the_power_stated(studies):
    # One trial. The noise of two runs, with the seed's common effect as weight: Var((x
    # - y) u) / (E x E u)^2 of lognormals.
    per_seed = np.exp(0.2**2) * 2 * np.expm1(0.2**2)
    needed = bootstrap.seeds_needed(bootstrap.Variance(0.0, 4.0, per_seed, 1))
    one = {"valley": np.zeros(1), "budget": 1e6, "factor": 0.9}
    found = differences(studies, seed=6, reporting=needed, resamples=600, **one)
    assert within(sum(d.verdict == "better" for d in found), studies, 0.8)
    assert sum(d.verdict == "worse" for d in found) <= 1
    # And the studies that are too small ask for so many. A variance from 20 seeds is
    # off by a third: its median over 200 studies by 3 %, and that of chi squared is 4 %
    # below its mean.
    few = {"resamples": 600, "reporting": 20, **one}
    asked = [
        20 + d.more_seeds for d in differences(max(100, studies // 5), seed=7, **few)
    ]
    assert np.median(asked) == pytest.approx(needed, rel=0.12)


@pytest.mark.parametrize(
    ("choice", "level"), [(0.0, 0.95), (0.0, 0.995), (0.02**2, 0.95), (0.025**2, 0.95)]
)
def test_seeds_needed_detect_a_tenth_with_the_power_stated_if_as_uncertain(
    choice, level
):
    number, deviation, freedom = 4000, 0.3, 40.0
    needed = bootstrap.seeds_needed(
        bootstrap.Variance(choice, freedom, deviation**2 / 20, 20), level
    )
    samples = np.random.default_rng(8).normal(
        np.log(0.9), deviation, size=(number, needed)
    )
    variance = stats.sem(samples, axis=1) ** 2
    degrees = (choice + variance) ** 2 / (
        choice**2 / freedom + variance**2 / (needed - 1)
    )
    ends = samples.mean(axis=1) + stats.t.isf((1 - level) / 2, degrees) * np.sqrt(
        choice + variance
    )
    power = np.mean(ends < 0)
    # Whole seeds make it a little more; three standard errors of 4000 studies are
    # 0.019.
    assert power == pytest.approx(0.8, abs=0.02)


def test_no_number_of_reporting_seeds_makes_up_for_a_choice_in_doubt():
    assert (
        bootstrap.seeds_needed(bootstrap.Variance(0.06**2, 1e6, 1e-9, 20)) == -1
    )  # 1.96 * 0.06 > 0.105.
    assert (
        bootstrap.seeds_needed(bootstrap.Variance(0.05**2, 1e6, 1e-9, 20)) == 2
    )  # 1.96 * 0.05 < 0.105.
    assert bootstrap.seeds_needed(bootstrap.Variance(np.inf, 4.0, np.inf, 20)) == -1
    flat = study(
        np.random.default_rng(9), valley=1.5 * np.linspace(-1, 1, 12) ** 2, spread=0.3
    )
    assert statistics.difference(*flat).more_seeds == -1


def test_variance_of_reporting_seeds_is_that_of_scipys_paired_bootstrap():
    mine, other = study(np.random.default_rng(10), valley=np.zeros(1), spread=0.4)
    replicates, _ = bootstrap.replicate(mine, other, None, 20000, 0)

    def log_ratio(x, y, axis):
        return np.log(
            costs.expected_running_time(x, BUDGET)
            / costs.expected_running_time(y, BUDGET)
        )

    outcome = stats.bootstrap(
        (mine.costs[0], other.costs[0]),
        log_ratio,
        paired=True,
        n_resamples=20000,
        method="percentile",
        rng=1,
    )
    # Two standard deviations from 20,000 resamples each differ by 0.7 %.
    assert np.std(replicates.reporting) == pytest.approx(
        outcome.standard_error, rel=0.03
    )
    assert np.ptp(replicates.choice) == 0.0


def test_interval_of_a_share_is_wilsons_where_seeds_are_many():
    shares = np.array([0.0, 0.3, 0.85])
    for share in shares:
        n = 4000
        deviations = np.array([-1.0, 1.0]) * np.sqrt(
            share * (1 - share) / n * (n - 1) / n
        )
        replicates = bootstrap.Replicates(np.full(2, share), deviations, np.array(4.0))
        wilson = stats.binomtest(round(share * n), n).proportion_ci(0.95, "wilson")
        np.testing.assert_allclose(
            bootstrap.share_interval(share, replicates, n, 0.95),
            (wilson.low, wilson.high),
            atol=2e-5,
        )


def test_an_infinite_replicate_gives_the_expanded_percentiles():
    # The replicates are their own ranks, so an end of the interval is its rank.
    ranks = np.arange(10_001.0)
    ranks[-1] = np.inf
    replicates = bootstrap.Replicates(np.zeros(10_001), ranks, np.array(4.0))
    tail = stats.norm.cdf(-stats.t.ppf(0.975, 4) * np.sqrt(5 / 4))
    found = bootstrap.log_interval(0.0, replicates, 5, 0.95)
    np.testing.assert_allclose(found, [1e4 * tail, 1e4 * (1 - tail)], atol=1)


# Infinity, equality, symmetry.


def test_same_scores_under_two_names_are_not_told_apart():
    mine, _ = study(np.random.default_rng(11))
    for trials in (None, 5):
        found = statistics.difference(mine, mine, trials=trials)
        assert (found.ratio, found.low, found.high) == (1.0, 1.0, 1.0)
        assert (found.win, found.verdict) == (0.5, "undecided")


def test_exchanging_the_rules_inverts_the_answer():
    mine, other = study(np.random.default_rng(12), factor=0.5)
    there, back = statistics.difference(mine, other), statistics.difference(other, mine)
    np.testing.assert_allclose(
        [there.ratio, there.low, there.high],
        [1 / back.ratio, 1 / back.high, 1 / back.low],
    )
    np.testing.assert_allclose(
        [there.win, there.win_low], [1 - back.win, 1 - back.win_high]
    )
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_rule_that_never_arrives_is_worse_and_two_such_are_undecided():
    never, there = constant(np.inf), constant(4.0)
    found = statistics.difference(never, there)
    assert (found.ratio, found.win, found.verdict, found.more_seeds) == (
        np.inf,
        0.0,
        "worse",
        -1,
    )
    found = statistics.difference(there, never)
    assert (found.ratio, found.win, found.verdict, found.more_seeds) == (
        0.0,
        1.0,
        "better",
        -1,
    )
    found = statistics.difference(never, never)
    assert np.isnan(found.ratio)
    assert (found.low, found.high, found.win, found.verdict, found.more_seeds) == (
        0.0,
        np.inf,
        0.5,
        "undecided",
        -1,
    )


def test_one_seed_that_arrives_is_no_proof():
    once = Scores(np.ones((1, 3)), np.array([[4.0] + [np.inf] * 19]), BUDGET)
    found = statistics.difference(constant(np.inf, seeds=20), once)
    assert (found.ratio, found.verdict, found.more_seeds) == (np.inf, "undecided", -1)
    assert found.low <= 1.0


def test_win_counts_seeds_and_ties_half():
    mine = Scores(np.ones((1, 3)), np.array([[1.0, 2.0, np.inf, 4.0, 40.0]]), BUDGET)
    other = Scores(np.ones((1, 3)), np.array([[2.0, 1.0, np.inf, 4.0, np.inf]]), BUDGET)
    assert statistics.difference(mine, other).win == pytest.approx(
        (1 + 0 + 0.5 + 0.5 + 0.5) / 5
    )


def test_equal_budgets_give_the_mean_over_subsets_of_the_trials():
    mine, other = study(np.random.default_rng(13))
    found = statistics.difference(mine, other, trials=3, resamples=300)
    expected = []
    for one in (mine, other):
        subsets = [(0, *rest) for rest in itertools.combinations(range(1, 12), 2)]
        chosen = [s[scores.choose(one.tuning[list(s)])] for s in subsets]
        runs = one.costs[chosen].ravel()
        expected.append(costs.expected_running_time(runs, BUDGET))
    assert found.ratio == pytest.approx(expected[0] / expected[1], rel=1e-12)
    whole = statistics.difference(mine, other, resamples=300)
    assert found.high / found.low > whole.high / whole.low
    assert statistics.difference(mine, other, trials=99, resamples=300) == whole
    # Of one trial there is no choice: the defaults.
    replicates, _ = bootstrap.replicate(mine, other, 1, 300, 0)
    defaults = [costs.expected_running_time(s.costs[0], BUDGET) for s in (mine, other)]
    np.testing.assert_allclose(
        replicates.choice, np.log(defaults[0] / defaults[1]), rtol=1e-12
    )


def test_performance_profile_agrees_with_counting():
    generator = np.random.default_rng(17)
    table = np.where(
        generator.random((9, 4)) < 0.2, np.inf, generator.exponential(size=(9, 4))
    )
    table[0] = np.inf
    factors = np.array([1.0, 1.5, 4.0, 1e9])
    expected = [
        [
            np.mean([np.isfinite(row[r]) and row[r] <= f * row.min() for row in table])
            for f in factors
        ]
        for r in range(4)
    ]
    np.testing.assert_allclose(
        profiles.performance_profile(table, factors), expected, rtol=1e-14
    )


# Bad input.

GOOD = constant(4.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: costs.passes_to_target(np.arange(3.0), np.ones(4), 0.1),
            "passes must be of shape",
        ),
        (lambda: costs.passes_to_target(np.zeros(3), np.ones(3), 0.1), "ascending"),
        (
            lambda: costs.passes_to_target(np.arange(3.0), np.ones(3), 0.0),
            "target must be a positive share",
        ),
        (
            lambda: costs.penalised_passes(np.arange(3.0), np.ones(3), 1.0),
            "target must be a share of the initial gap",
        ),
        (
            lambda: costs.expected_running_time(np.ones(3), 0.0),
            "budget must be a positive number",
        ),
        (lambda: costs.expected_running_time(np.ones((2, 0)), 1.0), "at least one run"),
        (lambda: scores.choose(np.ones((0, 3))), "at least one of each"),
        (lambda: scores.choose(np.array([[1.0, np.inf]])), "not finite"),
        (
            lambda: scores.checked(GOOD._replace(costs=np.ones((2, 5)))),
            "a row for each of the 1 trials",
        ),
        (
            lambda: scores.checked(GOOD._replace(costs=np.ones((1, 1)))),
            r"two reported seeds \(20 or more are recommended\); got 1",
        ),
        (
            lambda: scores.checked(GOOD._replace(tuning=np.ones((1, 1)))),
            r"two tuning seeds \(3 or more are recommended\); got 1",
        ),
        (
            lambda: scores.checked(GOOD._replace(costs=np.full((1, 5), np.nan))),
            "every cost must be a number of passes",
        ),
        (
            lambda: scores.checked(GOOD._replace(budget=0.0)),
            "budget must be a positive number",
        ),
        (
            lambda: statistics.difference(GOOD, constant(4.0, seeds=6)),
            "equal numbers of seeds; their costs have 5 and 6",
        ),
        (
            lambda: statistics.difference(GOOD, GOOD, level=1.0),
            "level must lie between 0 and 1",
        ),
        (
            lambda: statistics.difference(GOOD, GOOD, comparisons=0),
            "comparisons must be a positive integer",
        ),
        (
            lambda: statistics.difference(GOOD, GOOD, resamples=10),
            "resamples must be an integer of at least 100",
        ),
        (
            lambda: statistics.difference(GOOD, GOOD, trials=0),
            "trials must be a positive integer",
        ),
        (
            lambda: profiles.performance_profile(np.ones(3), np.ones(1)),
            "costs must be of shape",
        ),
        (
            lambda: profiles.performance_profile(np.zeros((1, 2)), np.ones(1)),
            "every cost must be a positive number",
        ),
        (
            lambda: profiles.performance_profile(np.ones((1, 2)), np.zeros(1)),
            "factors must be at least 1",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_infinite_factor_counts_no_run_that_fails():
    found = profiles.performance_profile(
        np.array([[1.0, np.inf]]), np.array([2.0, np.inf])
    )
    np.testing.assert_array_equal(found, [[1.0, 1.0], [0.0, 0.0]])


def test_chances_of_many_trials_do_not_overflow():
    chances = bootstrap.rank_chances(2000, 1000)
    assert chances.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(chances[:3], [0.4995, 0.25, 0.125], rtol=2e-3)
    usual = bootstrap.rank_chances(40, 7)
    left = 40 - np.arange(1, 40)
    ratios = np.concatenate([[1.0], np.maximum(left - 5, 0) / left])
    np.testing.assert_allclose(usual, 6 / 40 * np.cumprod(ratios), rtol=1e-12)


def test_an_interval_ends_at_a_sample_or_at_infinity():
    samples = np.array([1.0, 2, 3, 4, 5, 6, 7, np.inf, np.inf])
    for seed in range(60):
        _, low, high = median_interval(samples, seed=seed)
        assert 1 <= low <= 7
        assert high <= 7 or np.isinf(high)
