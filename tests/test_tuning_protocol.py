"""Laws of the ways to read a comparison, on numbers whose truth is known, and of the
experiment that holds them together.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from experiments import tuning_protocol
from research import cli, descent, figures, runs, types
from research.comparison import make_contenders
from research.comparison._searching import Outcomes
from research.comparison.decision_procedures import (
    MINE,
    NONE,
    OTHER,
    MeasuredRuns,
    Procedure,
    SimulatedRuns,
    procedures,
    reported,
    share,
    simulate_study,
    tally,
    true_cost,
    winner,
)

COMPILE_QUICKLY = True  # tests/conftest.py

TINY = tuning_protocol.Config(
    rule=("gradient_descent", "heavy_ball"),
    workload=("quadratic",),
    trials=5,
    seeds="0..15",
    passes=20,
    target=0.1,
    budget=3,
    few=2,
    reported_seeds=4,
    tuning_seeds=2,
    studies=24,
    resamples=100,
    pool=4,
    searches=2,
    search_budget=4,
    search_seeds=2,
)


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "result": (
        "a small run from end to end; make test has those of fit_a_line and "
        "decision_boundary"
    )
}


def side(scores, tuning=None):
    """A side of a study all of whose runs reach the target."""
    return SimulatedRuns(scores if tuning is None else tuning, scores, scores, 1e6)


def is_plausible(count, total, chance):
    """Whether so many of so many are what this chance gives; a right law fails once in
    a hundred thousand.
    """
    return stats.binomtest(int(count), int(total), chance).pvalue > 1e-5


@pytest.mark.thorough("three seeds", but="1")
@pytest.mark.parametrize("seeds", [1, 3])
def test_tuned_on_what_is_reported_is_too_low_by_the_expected_least_of_normals(seeds):
    # Three trials that are all alike: the least of three standard normals is -3 / (2
    # √π) in expectation.
    random, total = np.random.default_rng(0), 4000
    found = {True: [], False: []}
    for _ in range(total):
        drawn = side(
            50.0 + random.standard_normal((3, seeds)),
            50.0 + random.standard_normal((3, 2)),
        )
        for held_out, means in found.items():
            means.append(
                reported(Procedure("lower mean", seeds, held_out), drawn).mean()
            )
    bias = {held_out: np.mean(means) - 50.0 for held_out, means in found.items()}
    error = 4.5 / math.sqrt(total * seeds)
    assert bias[False] == pytest.approx(
        -3 / (2 * math.sqrt(math.pi * seeds)), abs=error
    )
    assert bias[True] == pytest.approx(0.0, abs=error)


@pytest.mark.thorough("other seeds and gaps", but="3-0.5")
@pytest.mark.parametrize(("seeds", "gap"), [(1, 0.5), (3, 0.5), (3, 1.0)])
def test_lower_mean_names_the_wrong_rule_as_often_as_the_normal_law_says(seeds, gap):
    # The difference of two means over n seeds is N(gap, 2 / n): it has the wrong sign
    # with Φ(-gap √(n / 2)).
    random, total = np.random.default_rng(1), 3000
    way = Procedure("lower mean", seeds)
    draws = (random.standard_normal((2, 1, 5)) + 50.0 for _ in range(total))
    wrong = sum(
        winner(way, side(mine), side(other + gap)) != MINE for mine, other in draws
    )
    assert is_plausible(wrong, total, stats.norm.cdf(-gap * math.sqrt(seeds / 2)))


@pytest.mark.on_ci(
    "2,000 studies; test_t_test_decides_as_scipys has the decision, not the choice of "
    "the best trial"
)
@pytest.mark.thorough("other numbers of trials", but="12-3")
@pytest.mark.parametrize(
    ("mine_trials", "others_trials"), [(12, 1), (12, 3), (12, None)]
)
def test_more_trials_win_between_equals_by_their_number(mine_trials, others_trials):
    # Without noise between seeds, the best of all trials belongs to mine with chance t
    # / (t + k), by exchange.
    random, total = np.random.default_rng(2), 2000
    way, named = Procedure("t-test", None, True, others_trials), 0
    for _ in range(total):
        mine, other = random.exponential(size=(2, mine_trials, 1)).repeat(4, axis=2)
        named += winner(way, side(mine), side(other)) == MINE
    k = others_trials or mine_trials
    assert is_plausible(named, total, mine_trials / (mine_trials + k))


def test_lower_mean_always_names_somebody_and_nobody_where_all_is_equal():
    random = np.random.default_rng(3)
    same = random.exponential(size=(4, 5))
    for way in procedures().values():
        assert winner(way, side(same[:1]), side(same[:1]), resamples=100) == NONE
        if way.decide == "lower mean":
            assert (
                winner(way, side(same), side(random.exponential(size=(4, 5)))) != NONE
            )


def test_t_test_decides_as_scipys():
    random, way = np.random.default_rng(4), Procedure("t-test")
    for _ in range(200):
        mine, other = random.lognormal(sigma=0.3, size=(2, 1, 6))
        outcome = stats.ttest_rel(np.log(other[0]), np.log(mine[0]))
        expected = int(np.sign(outcome.statistic)) if outcome.pvalue < 0.05 else NONE
        assert winner(way, side(mine), side(other)) == expected


@pytest.mark.thorough(
    "250 studies; the next test has the same procedure, test_searched_statistics.py "
    "a level"
)
def test_fixed_trials_name_a_winner_between_equals_as_often_as_its_level_says():
    random, total, named = np.random.default_rng(5), 250, 0
    for study in range(total):
        mine, other = random.lognormal(3.0, 0.2, (2, 4, 23))
        sides = (side(scores[:, 3:], scores[:, :3]) for scores in (mine, other))
        named += (
            winner(procedures()["fixed trials"], *sides, resamples=300, seed=study)
            != NONE
        )
    assert is_plausible(named, total, 0.05)


@pytest.mark.on_ci(
    "60 studies of 300 draws; the level of either way is in no shorter test"
)
def test_luck_in_the_search_wins_for_fixed_trials_and_not_where_trials_are_redrawn():
    # One rule, hardly any noise, each side with trials of its own: the luckier is named
    # for sure, though both are the same.
    random, total, named = (
        np.random.default_rng(6),
        60,
        {"fixed trials": 0, "trials redrawn": 0},
    )
    for study in range(total):
        costs = random.lognormal(3.0, 1.0, (2, 12, 1)) * random.lognormal(
            0.0, 1e-4, (2, 12, 6)
        )
        sides = [side(own) for own in costs]
        for name in named:
            named[name] += (
                winner(procedures()[name], *sides, resamples=300, seed=study) != NONE
            )
    assert named["fixed trials"] >= 0.95 * total
    assert named["trials redrawn"] < 0.2 * total


@pytest.mark.parametrize("kind", tuning_protocol.KINDS)
def test_a_drawn_study_shares_what_it_should_and_nothing_else(kind):
    trials, seeds = np.mgrid[:9, :20]
    pool = MeasuredRuns(1.0 + 100 * trials + seeds, 1.0 + 100 * trials + seeds, 1e4)
    for seed in range(20):
        drawn = simulate_study(
            (pool, pool),
            np.random.default_rng(seed),
            trials=5,
            tuning_seeds=3,
            seeds=7,
            **tuning_protocol.KINDS[kind],
        )
        of_seeds, of_trials = [], []
        for one in drawn:
            assert (one.costs == one.reported).all()
            scores = np.concatenate([one.tuning, one.reported], axis=1) - 1
            assert (scores // 100 == one.trials[:, None]).all()
            assert (scores % 100 == scores[0] % 100).all()
            of_trials.append(one.trials.tolist())
            of_seeds.append((scores[0] % 100).tolist())
            assert of_trials[-1][0] == 0
            assert len(set(of_seeds[-1])) == 10
            assert len(set(of_trials[-1])) == 5
        assert (of_seeds[0] == of_seeds[1]) == (kind == "rules")
        assert bool(set(of_seeds[0]) & set(of_seeds[1])) == (kind == "rules")
        assert (of_trials[0] == of_trials[1]) == (kind != "other trials")
        assert (set(of_trials[0]) & set(of_trials[1]) == {0}) == (
            kind == "other trials"
        )


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"trials": 6}, "draws 11 trials, but only 9 were measured"),
        ({"seeds": 9}, "draws 24 seeds, but only 20 were measured"),
    ],
)
def test_a_study_larger_than_its_pool_is_refused(size, message):
    pool = MeasuredRuns(np.ones((9, 20)), np.ones((9, 20)), 10.0)
    counts = {"trials": 5, "tuning_seeds": 3, "seeds": 7} | size
    with pytest.raises(ValueError, match=message):
        simulate_study(
            (pool, pool),
            np.random.default_rng(0),
            other_seeds=True,
            other_trials=True,
            **counts,
        )


def test_true_cost_is_that_of_the_best_trial_restarts_counted():
    # Two runs of four reach the target, in 2 and 4 passes; the others spend 10 each in
    # vain.
    costs = np.array([[9.0, 9.0, 9.0, 99.0], [2.0, 4.0, np.inf, np.inf]])
    pool = MeasuredRuns(
        np.array([[9.0, 9.0, 9.0, 99.0], [2.0, 4.0, 20.0, 20.0]]), costs, 10.0
    )
    assert true_cost(pool) == pytest.approx((2 + 4 + 10 + 10) / 2)
    assert true_cost(pool, np.array([0])) == pytest.approx((9 + 9 + 9 + 10) / 3)


@pytest.mark.parametrize(("count", "total"), [(0, 40), (3, 40), (40, 40)])
def test_interval_of_a_share_holds_the_shares_that_a_score_test_would_not_reject(
    count, total
):
    found, low, high = share(count, total)
    assert found == count / total
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(found - end) / math.sqrt(
                end * (1 - end) / total
            ) == pytest.approx(stats.norm.isf(0.025))


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return runs.checkpoints_in(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def result(told, kept):
    return cli.conduct(tuning_protocol, TINY, lambda *seen: told.append(seen), kept)


def test_shares_of_each_way_sum_to_one_and_what_is_expected_is_told(result):
    assert set(tuning_protocol.EXPECTED) <= set(result.numbers)
    for row in result.numbers["ways"]:
        for kind in (tuning_protocol.TRIALS, tuning_protocol.RULES):
            assert sum(share for share, _, _ in row[kind].values()) == pytest.approx(
                1.0
            )
            if row["decide"] == "lower mean":
                assert row[kind]["undecided"][0] == 0
    assert "wrong winner" in result.answer


def test_wrong_winners_are_counted_against_the_true_costs(result):
    named, pairs = result.arrays["rules/named"], result.arrays["rules/pair"]
    cost = [result.numbers["true_costs"]["quadratic"][rule] for rule in TINY.rule]
    for column, row in enumerate(result.numbers["ways"]):
        wrong = 0
        for (_, mine, other), name in zip(pairs, named[:, column], strict=True):
            dearer = MINE if cost[mine] > cost[other] else OTHER
            wrong += name == dearer
        assert row[tuning_protocol.RULES]["wrong"][0] == wrong / TINY.studies
    for kind in ("same trials", "other trials"):
        shares = [row[kind][0] for row in result.numbers["ways"]]
        np.testing.assert_allclose(
            shares, (result.arrays[f"{kind}/named"] != 0).mean(axis=0)
        )


def test_a_tie_is_not_counted_and_the_number_told_is_what_was_counted(result):
    pools = {
        ("quadratic", rule): MeasuredRuns(np.ones((5, 16)), np.ones((5, 16)), 20.0)
        for rule in TINY.rule
    }
    ties = result.arrays["rules/truth"].copy()
    ties[:7, 1], ties[:3, 0] = 0.0, 0.0
    before, after = (
        tuning_protocol.summary(TINY, pools, result.arrays | {"rules/truth": truth})
        for truth in (result.arrays["rules/truth"], ties)
    )
    lost = {
        kind: before["counted"][kind] - after["counted"][kind]
        for kind in after["counted"]
    }
    tied = (result.arrays["rules/truth"][:7] == 0).sum(axis=0)
    assert lost == {
        tuning_protocol.RULES: 3 - (result.arrays["rules/truth"][:3, 0] == 0).sum(),
        tuning_protocol.TRIALS: 7 - tied[1],
    }
    for numbers in (before, after):
        counted = numbers["counted"]
        wrong = (
            numbers["ways"][0][tuning_protocol.TRIALS]["wrong"][0]
            * counted[tuning_protocol.TRIALS]
        )
        assert wrong == pytest.approx(round(wrong))
        told = cli.report_of(tuning_protocol).answer(runs.Findings({}, numbers))
        assert f" of {counted[tuning_protocol.TRIALS]:,} studies" in told


def test_studies_without_any_winner_are_refused():
    ties = {"rules/truth": np.zeros((4, 2))}
    with pytest.raises(ValueError, match="always have equal true costs"):
        tuning_protocol.summary(TINY, {}, ties)


def test_the_answer_does_not_call_it_no_error_where_nothing_is_counted():
    nothing = {"wrong": None, "undecided": None}
    said = cli.report_of(tuning_protocol).clear_winners(nothing, nothing)
    assert said.startswith("No study has two rules whose true costs differ by a factor")


def test_studies_of_searches_share_seeds_and_no_search():
    logs = 100.0 * np.arange(4)[:, None] + np.arange(16)
    for seed in range(20):
        generator = np.random.default_rng(seed)
        mine, other = tuning_protocol.draw_searches(TINY, [logs, logs], generator)
        assert mine.shape == other.shape == (2, 4)
        np.testing.assert_array_equal(mine[0] % 100, other[0] % 100)
        assert len(set(mine[0] % 100)) == 4
        assert not set(mine[:, 0] // 100) & set(other[:, 0] // 100)


def test_shares_of_searches_are_those_of_the_winners_named(result):
    for row in result.numbers["searched"]:
        if row["workload"] != "all":
            continue
        column = [tuning_protocol.COMPARE, tuning_protocol.RIVAL].index(row["way"])
        itself = result.arrays["searched/itself/named"][:, column]
        planted = result.arrays["searched/planted/named"][:, column]
        assert row["false"][0] == np.mean(itself != 0)
        assert row["planted"][0] == np.mean(planted == MINE)
        truth = result.arrays["searched/different/truth"]
        clear = np.abs(truth) >= np.log(1.1)
        named = result.arrays["searched/different/named"][clear, column]
        assert row["wrong"][0] == np.mean(named * np.sign(truth[clear]) < 0)
        assert row["undecided"][0] == np.mean(named == 0)
    logs = [result.arrays[f"searches/quadratic/{rule}/logs"] for rule in TINY.rule]
    assert [one.shape for one in logs] == [(4, 16)] * 2
    pairs, truth = (result.arrays[f"searched/different/{n}"] for n in ("pair", "truth"))
    for (_, mine, other), true in zip(pairs, truth, strict=True):
        assert true == pytest.approx(logs[other].mean() - logs[mine].mean())


def test_each_rule_is_mine_as_often_as_the_other(result):
    _, mine, other = result.arrays["rules/pair"].T
    assert sorted(mine) == sorted(other)
    np.testing.assert_allclose(
        *np.abs(result.arrays["rules/truth"][:2, 0])
    )  # The same two rules, from either side.


def test_tally_calls_whoever_is_named_between_equals_wrong():
    named, truth = np.array([1, 1, -1, 0, 1, 0]), np.array([1, -1, -1, 1, 0, 0])
    shares = {key: seen[0] for key, seen in tally(named, truth).items()}
    assert shares == {"right": 2 / 6, "wrong": 2 / 6, "undecided": 2 / 6}


def test_progress_ascends_to_its_total(result, told):
    assert result.answer
    done = [step for step, _, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1]


def test_what_was_kept_gives_the_same_bytes_and_trains_nothing(
    result, kept, monkeypatch
):
    monkeypatch.setattr(descent, "sweep", None)
    monkeypatch.setattr(tuning_protocol, "simulate", None)
    again = cli.conduct(tuning_protocol, TINY, None, kept)
    assert again.answer == result.answer
    assert runs.hash_arrays(*again.arrays.values()) == runs.hash_arrays(
        *result.arrays.values()
    )


def test_figures_are_saved_and_captions_hold_numbers(result, tmp_path):
    for name, picture in cli.report_of(tuning_protocol).draw(result).items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rule", ("adam",), "two rules"),
        ("rule", ("adam", "adams"), "adam"),
        ("workload", (), "at least one workload"),
        ("seeds", "0..9", "need 12 seeds; got 10"),
        ("trials", 4, "at least 5"),
        ("budget", 1, "budget must be at least 2"),
        ("tuning_seeds", 1, "tuning_seeds must be at least 2"),
        ("reported_seeds", 0, "reported_seeds must be at least 2"),
        ("studies", 0, "studies must be 2 to 1,000,000, at least one for each rule"),
        ("studies", 1, "studies must be 2 to 1,000,000, .* got studies=1"),
        ("resamples", 99, "resamples must be at least 100; got resamples=99"),
        ("passes", 0, "passes must be a positive integer; got passes=0"),
        ("batch_size", -1, "batch_size must be a positive integer; got"),
        ("target", 1.5, "target"),
        ("width", 0, "width must be a positive integer; got width=0"),
        ("search_budget", 0, "search_budget must be at least 1; got"),
        ("search_seeds", 1, "search_seeds must be at least 2; got"),
        ("workload", ("nonsense",), "nonsense"),
        (
            "workload",
            ("quadratic", "quadratic"),
            "workload must name 'quadratic' only once",
        ),
        ("few", 0, "few must be at least 1"),
        ("few", 4, "few must be at most 3, .* got few=4"),
        ("pool", 3, "pool must be at least 4"),
        ("searches", 1, "searches must be at least 2"),
        ("seed", -1, "seed must be at least 0; got seed=-1"),
        ("seeds", "9990..10005", "seeds must not contain 10000 to 10007, .* 10000"),
    ],
)
def test_config_that_makes_no_sense_is_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        cli.conduct(tuning_protocol, dataclasses.replace(TINY, **{field: value}))


@pytest.mark.parametrize("rule", ["gradient_descent", "sam"])
def test_a_missed_target_costs_every_rule_the_same(monkeypatch, rule):
    # A step of sam costs two gradients, so its training has 20 of the 21 passes.
    config = dataclasses.replace(TINY, passes=21)
    (contender,) = make_contenders([rule])
    passes = np.arange(0, 22, int(contender.evaluations))
    curves = np.ones((2, 3, len(passes)))
    curves[1, :, -1] = np.inf
    costs = np.full((2, 3), np.inf)
    found = Outcomes(costs, curves), passes.astype(float)
    saved = types.Saved({"costs": costs, "passes": found[1]}, None)
    monkeypatch.setattr(tuning_protocol, "train_trials", lambda *_, **__: found)
    monkeypatch.setattr(tuning_protocol, "measure_contender", lambda *_, **__: saved)
    given = (config, "quadratic", contender, None, types.no_checkpoints)
    arrays = tuning_protocol.pool_arrays(*given)
    assert arrays[f"quadratic/{rule}/budget"] == 21.0
    assert (arrays[f"quadratic/{rule}/scores"] == 210.0).all()
    logs = tuning_protocol.search_arrays(*given)[f"searches/quadratic/{rule}/logs"]
    np.testing.assert_allclose(np.exp(logs), 210.0, rtol=1e-14)


def test_a_target_that_nobody_reaches_is_refused_by_workload():
    never = np.full((5, 16), np.inf)
    parts = {
        "scores": np.full((5, 16), 200.0),
        "costs": never,
        "budget": np.array(20.0),
    }
    arrays = {
        f"quadratic/{rule}/{name}": array
        for rule in TINY.rule
        for name, array in parts.items()
    }
    with pytest.raises(
        ValueError, match=r"no rule reaches target=0\.1 on quadratic in 20 passes"
    ):
        tuning_protocol.read_pools(TINY, arrays)


def test_an_unknown_way_to_decide_is_refused():
    with pytest.raises(ValueError, match="decide must be"):
        winner(Procedure("eye"), side(np.ones((1, 3))), side(np.ones((1, 3))))


def test_a_t_test_of_one_seed_is_refused():
    with pytest.raises(ValueError, match="at least two seeds"):
        winner(Procedure("t-test", 1), side(np.ones((1, 3))), side(np.ones((1, 3))))
