"""Laws of choosing and of intervals, where the truth is known."""

import numpy as np
import pytest
from scipy import stats

from research import statistics, tuning


def test_choice_finds_the_minimum_inside_the_ladder():
    choice = tuning.choose_rate(
        lambda r: np.abs(np.log2(r) - 1.2)[:, None], 2.0 ** np.arange(-2, 5)
    )
    assert (choice.rate, choice.widened, choice.at_edge) == (2.0, 0, False)


@pytest.mark.parametrize("truth", [-9, 9])
def test_choice_at_an_edge_widens_the_ladder_until_it_is_inside(truth):
    choice = tuning.choose_rate(
        lambda r: np.abs(np.log2(r) - truth)[:, None], 2.0 ** np.arange(-2, 3)
    )
    assert choice.rate == 2.0**truth
    assert choice.widened > 0
    assert not choice.at_edge
    assert (np.diff(choice.rates) > 0).all()
    assert choice.scores.shape == (len(choice.rates), 1)


def test_choice_that_never_turns_is_reported_as_an_edge():
    choice = tuning.choose_rate(lambda r: -np.log(r)[:, None], [1.0, 2.0])
    assert choice.at_edge
    assert choice.widened == tuning.MAX_WIDENINGS


def test_divergence_counts_as_worst_and_is_not_dropped():
    # The largest rate has the best finite seed, but one seed diverged there.
    table = {1.0: [3.0, 3.0], 2.0: [2.0, 2.0], 4.0: [0.0, np.nan]}
    choice = tuning.choose_rate(
        lambda r: np.array([table.get(x, [np.inf, np.inf]) for x in r]), [1.0, 2.0, 4.0]
    )
    assert choice.rate == 2.0
    assert np.isinf(choice.scores[-1]).any()


def test_ladder_on_which_all_diverge_is_widened_downwards():
    score = lambda r: np.where(r > 0.1, np.inf, np.abs(np.log2(r) + 6))[:, None]
    assert tuning.choose_rate(score, [1.0, 2.0]).rate == 2.0**-6


def test_a_score_of_minus_infinity_is_refused_not_chosen():
    score = lambda r: np.where(r[:, None] == 2.0, [-np.inf, np.inf], [1.0, 1.0])
    with pytest.raises(ValueError, match="it returned -inf for the rate 2"):
        tuning.choose_rate(score, [1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("ladder", "factor", "added"),
    [([1e300, 1e301], 1e3, 2), ([1e-300, 1e-299], 1e200, 2), ([1.0, 2.0], 10, 400)],
)
def test_every_rate_that_is_tried_is_positive_and_finite(ladder, factor, added):
    for slope in (-1.0, 1.0):
        tried = []

        def score(rates, slope=slope, tried=tried):
            tried.extend(rates)
            return slope * np.log(rates)[:, None]

        choice = tuning.choose_rate(score, ladder, factor=factor, added=added)
        assert np.isfinite(tried).all()
        assert min(tried) > 0
        assert choice.at_edge
        np.testing.assert_array_equal(np.sort(tried), choice.rates)


@pytest.mark.parametrize("ladder", [[], [0.0, 1.0], [2.0, 1.0], [-1.0]])
def test_bad_ladder_is_shown(ladder):
    with pytest.raises(ValueError, match="ladder must contain positive, finite rates"):
        tuning.choose_rate(lambda r: r[:, None], ladder)


def test_what_is_no_function_to_time_is_named():
    with pytest.raises(TypeError, match=r"calls\[1\] must be a function"):
        tuning.interleaved_timing([int, 3], 1)


def test_digits_gained_of_an_exponential_is_half_its_last_exponent():
    passes = np.linspace(0, 10, 11)
    np.testing.assert_allclose(
        statistics.digits_gained(passes, 3 * 10.0 ** (-passes / 2)), -2.5, rtol=1e-14
    )


def test_digits_gained_does_not_depend_on_units_and_stops_at_twelve():
    passes, gaps = np.arange(3.0), np.array([1.0, 1e-30, 0.0])
    assert (
        statistics.digits_gained(passes, gaps)
        == statistics.digits_gained(passes, 7 * gaps)
        == -9.0
    )
    for gap in (np.nan, np.inf, -np.inf):
        assert statistics.digits_gained(passes, np.array([1.0, gap, 0.1])) == np.inf


def test_first_reached_agrees_with_a_loop():
    generator = np.random.default_rng(0)
    gaps, passes = generator.exponential(size=(40, 30)), np.cumsum(generator.random(30))
    expected = [
        next((p for p, g in zip(passes, row, strict=True) if g <= 0.1 * row[0]), np.inf)
        for row in gaps
    ]
    np.testing.assert_array_equal(statistics.first_reached(passes, gaps, 0.1), expected)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_median_interval_ends_at_quantiles_of_the_median_of_a_resample(level):
    # A resample of 11 numbers has a median of at most the k-th smallest number if at
    # least six draws are among the k smallest.
    chances = stats.binom.sf(5, 11, np.arange(1, 12) / 11)
    ends = np.searchsorted(chances, [(1 - level) / 2, (1 + level) / 2])
    median, low, high = statistics.median_interval(np.arange(11.0), level=level)
    assert [median, low, high] == [5.0, *ends]


@pytest.mark.thorough(
    "400 studies; test_median_interval_ends_at_quantiles_of_the_median_of_a_resample "
    "has the interval itself"
)
def test_median_interval_covers_the_true_median_about_as_often_as_it_says():
    # 400 studies of 30 normal seeds: 95 % nominal; the percentile bootstrap of a median
    # is known to be near it.
    samples = np.random.default_rng(1).normal(size=(30, 400))
    _, low, high = statistics.median_interval(samples, resamples=1000)
    covered = np.mean((low <= 0) & (high >= 0))
    assert (
        0.91 <= covered <= 0.98
    )  # 400 trials: two standard errors are 0.022 about 0.945.


def test_median_interval_keeps_runs_that_never_got_there():
    median, low, high = statistics.median_interval(
        np.array([1.0, 2.0, np.inf, np.inf, np.inf])
    )
    assert np.isinf(median)
    assert np.isinf(high)
    assert low <= 2.0
