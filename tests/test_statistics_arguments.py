"""A level, a share, a number of resamples or of seeds that makes no sense is refused; a
NaN stays one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import comparison, samplers, statistics, tuning, update_rules, workloads
from research.comparison import decision_procedures
from research.statistics import bootstrap
from research.statistics.bootstrap import Replicates
from research.statistics.scores import Scores
from research.statistics.searches import best_of_trials
from research.types import Optimum, Workload

SAMPLES = np.arange(1.0, 8.0)
SCORES = Scores(np.ones((2, 3)), np.ones((2, 5)), 10.0)
REPLICATES = Replicates(np.zeros(200), np.linspace(-0.1, 0.1, 200), np.array(4.0))
SIDE = decision_procedures.SimulatedRuns(
    np.ones((1, 3)), np.ones((1, 5)), np.ones((1, 5)), 10.0
)
LOGS = np.array([[0.1, 0.2, 0.4], [0.3, 0.5, 0.4]])
LEVELS = {
    "median_interval": lambda level: statistics.median_interval(SAMPLES, level=level),
    "mean_interval": lambda level: statistics.mean_interval(SAMPLES, level=level),
    "mean_interval of two": lambda level: statistics.mean_interval(
        SAMPLES[:2], level=level
    ),
    "difference": lambda level: statistics.difference(SCORES, SCORES, level=level),
    "log_interval": lambda level: bootstrap.log_interval(0.0, REPLICATES, 5, level),
    "share_interval": lambda level: bootstrap.share_interval(0.3, REPLICATES, 5, level),
    "searched_difference": lambda level: statistics.searched_difference(
        [(LOGS, LOGS[::-1])], level=level, comparisons=2
    ),
    "searched_cost": lambda level: statistics.searched_cost(LOGS, level=level),
    "best_of_trials": lambda level: best_of_trials(LOGS[None], level=level),
    "seeds_needed": lambda level: bootstrap.seeds_needed(
        bootstrap.Variance(0.0, 4.0, 0.002, 20), level
    ),
    "share": lambda level: decision_procedures.share(5, 100, level),
    "read": lambda level: decision_procedures.winner(
        decision_procedures.Procedure("t-test"), SIDE, SIDE, level=level
    ),
    "make_protocol": lambda level: comparison.make_protocol(level=level),
}


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize(
    "level", [95, -1, 0, 1, 1.5, -0.95, np.nan, np.inf, "0.95", None, True]
)
def test_a_level_that_is_no_share_is_refused_by_name(name, level):
    with pytest.raises(
        (ValueError, TypeError), match=rf"level.* between 0 and 1.*got level={level!r}"
    ):
        LEVELS[name](level)


@pytest.mark.parametrize("resamples", [0, -1, 99, np.nan, 2000.0, None, True, "many"])
def test_resamples_that_make_no_interval_are_refused(resamples):
    for call in (
        lambda: statistics.median_interval(SAMPLES, resamples=resamples),
        lambda: statistics.difference(SCORES, SCORES, resamples=resamples),
    ):
        with pytest.raises(
            ValueError, match="resamples must be an integer of at least 100"
        ):
            call()


@pytest.mark.parametrize("bad", [0, -1, np.nan, 1.5])
def test_counts_that_are_none_are_refused(bad):
    for name in ("comparisons", "trials"):
        with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
            statistics.difference(SCORES, SCORES, **{name: bad})
    with pytest.raises(ValueError, match="total must be a positive integer"):
        decision_procedures.share(0, bad)
    with pytest.raises(ValueError, match="count"):
        decision_procedures.share(bad or 7, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_never_gives_a_finite_interval_of_the_mean(bad):
    for place in range(4):
        samples = np.insert(np.array([1.0, 2.0, 4.0]), place, bad)
        mean, low, high = statistics.mean_interval(samples)
        assert not np.isfinite(mean)
        assert np.isnan(low)
        assert np.isnan(high)
    assert not np.isfinite(statistics.mean_interval([1.0, bad])[0])


@pytest.mark.parametrize("exponent", [-1000, -300, 0, 300, 1000])
def test_an_interval_of_the_mean_scales_with_the_samples(exponent):
    samples = np.array([1.0, 2.0, 4.5])
    found = statistics.mean_interval(np.ldexp(samples, exponent))
    expected = statistics.mean_interval(samples)
    assert [*found] == [*np.ldexp(expected, exponent)]


def test_the_median_of_a_column_does_not_depend_on_the_other_columns():
    samples = np.random.default_rng(0).normal(size=(7, 4)) * [1e-270, 1.0, 1e60, 1e300]
    together = np.array(statistics.median_interval(samples))
    alone = [statistics.median_interval(column) for column in samples.T]
    np.testing.assert_allclose(together, np.array(alone).T, rtol=1e-15)
    assert (together[1] < together[2]).all()


def test_the_median_of_samples_keeps_nan_and_the_sign_of_infinity():
    samples = np.tile(SAMPLES[:, None], 4)
    samples[2, 1], samples[4:, 2], samples[3:, 3] = np.nan, -np.inf, np.inf
    median, low, high = statistics.median_interval(samples)
    assert np.isnan([median[1], low[1], high[1]]).all()
    assert [low[2], high[3]] == [-np.inf, np.inf]
    assert np.isfinite([median[0], low[0], high[0], high[2], low[3]]).all()
    alone = statistics.median_interval(samples[:, 0])
    np.testing.assert_array_equal(alone, [median[0], low[0], high[0]])


def test_large_finite_samples_are_not_taken_for_infinite():
    for scale in (1e120, 1e300, -1e200):
        expected = np.sort(np.array(statistics.median_interval(SAMPLES)) * scale)
        np.testing.assert_allclose(
            np.sort(statistics.median_interval(SAMPLES * scale)), expected, rtol=1e-12
        )
    assert np.isinf(statistics.median_interval(np.array([1e200] * 2 + [np.inf] * 5))[2])


def test_scores_that_do_not_fit_the_rates_are_refused():
    for score in (
        lambda rates: np.log(rates) ** 2,
        lambda rates: np.ones((1, 3)),
        lambda rates: np.ones((len(rates), 0)),
    ):
        with pytest.raises(
            ValueError, match="score must return a row for each of the 3 rates"
        ):
            tuning.choose_rate(score, [0.1, 0.2, 0.4])
    good = lambda rates: np.log(rates)[:, None] ** 2
    for ladder in ([0.1, np.nan], [0.1, np.inf], [], [0.2, 0.1], [-1.0, 1.0]):
        with pytest.raises(ValueError, match="ladder must contain positive"):
            tuning.choose_rate(good, ladder)
    for wrong in ({"factor": 1.0}, {"factor": np.nan}, {"added": 0}):
        with pytest.raises(
            ValueError, match=r"factor must be above 1|added must be a positive integer"
        ):
            tuning.choose_rate(good, [0.1, 0.2], **wrong)


def test_a_gap_that_begins_at_or_below_zero_has_no_share():
    passes = np.array([0.0, 1.0, 2.0])
    gaps = np.array(
        [[-1.0, -0.1, -0.01], [0.0, 0.0, 0.0], [1.0, np.nan, 1e-6], [1.0, 0.1, 0.01]]
    )
    np.testing.assert_array_equal(
        np.isinf(statistics.digits_gained(passes, gaps)), [True, True, True, False]
    )
    np.testing.assert_array_equal(
        statistics.first_reached(passes, gaps, 0.05), [np.inf, np.inf, np.inf, 2.0]
    )
    for target in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="target must be a positive share"):
            statistics.first_reached(passes, gaps, target)
    for function in (
        statistics.digits_gained,
        lambda p, g: statistics.first_reached(p, g, 0.1),
    ):
        for wrong in (passes[::-1], passes[:2], np.array([0.0, np.nan, 2.0])):
            with pytest.raises(ValueError, match="passes must"):
                function(wrong, gaps)


def test_a_negative_cost_is_no_running_time():
    with pytest.raises(ValueError, match="one of them is negative"):
        statistics.expected_running_time(np.array([4.0, -6.0]), 10.0)


def unsolved(optimum):
    objective = lambda params, batch: jnp.sum((params - 3.0) ** 2) - 7.0
    return Workload(
        "mine",
        None,
        None,
        None,
        lambda key: jax.random.normal(key, (2,)),
        objective,
        None,
        "",
        None,
        optimum,
    )


@pytest.mark.parametrize("value", [None, np.nan, np.inf])
def test_a_workload_without_a_known_optimum_has_no_share_of_f_less_f_star(value):
    workload = unsolved(
        None if value is None else Optimum(jnp.zeros(2), value, 0.0, 1.0, "guessed")
    )
    terms = {"budget": 2, "passes": 20, "seeds": 3, "tuning_seeds": 3}
    for call in (
        lambda: comparison.compare(
            ["adam", "gradient_descent"], workload, timed=False, **terms
        ),
        lambda: comparison.plan(["adam", "gradient_descent"], workload, **terms),
        lambda: comparison.measure_contender(
            workload,
            comparison.make_contenders(["adam"])[0],
            comparison.make_protocol(**terms),
            timed=False,
        ),
        lambda: tuning.measure(workload, None, None, 2, seeds=[0], tuning_seeds=[1]),
    ):
        with pytest.raises(
            ValueError,
            match=(
                r"workload 'mine' has no known optimum .* Solve it and pass "
                r"workload._replace"
            ),
        ):
            call()


@pytest.mark.parametrize("name", ["seeds", "tuning_seeds"])
def test_equal_seeds_are_refused_where_runs_are_measured(name):
    seeds = {"seeds": [0, 1], "tuning_seeds": [2, 3], name: [4, 4]}
    with pytest.raises(ValueError, match=rf"^{name} must differ, .* got \[4, 4\]"):
        tuning.measure(
            workloads.make_workload("quadratic"),
            update_rules.gradient_descent,
            samplers.full_batch(1),
            2,
            **seeds,
        )


def test_a_tally_of_studies_that_do_not_fit_is_refused():
    named = np.array([1, -1, 0])
    for truth in (
        np.array([1, 1]),
        np.array(1),
        np.array([1, 1, 2]),
        np.array([1.0, np.nan, 0.0]),
    ):
        with pytest.raises(
            ValueError, match="named and truth must have the same shape"
        ):
            decision_procedures.tally(named, truth)
