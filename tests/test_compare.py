"""Laws of a comparison, end to end: what is tuned, what is reported, what is paired, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import binom

from research import (
    comparison,
    descent,
    runs,
    samplers,
    statistics,
    tuning,
    update_rules,
    workloads,
)
from research.comparison import measurements, trials
from research.comparison.conclusion import _together
from research.types import Saved

TERMS = {"budget": 4, "passes": 12, "seeds": 4, "tuning_seeds": 3, "timed": False}


def rule(scale=1.0):
    """Gradient descent, its rate multiplied."""
    return lambda learning_rate: update_rules.gradient_descent(scale * learning_rate)


@functools.cache
def study():
    """Two rules and the first under a second name, on data with all three parts."""
    rules = {
        "plain": "gradient_descent",
        "again": update_rules.gradient_descent,
        "adam": "adam",
    }
    return comparison.compare(rules, "diabetes_ridge", **TERMS)


def cell(found, name):
    return next(c for c in found.numbers["cells"] if c["rule"] == name)


def of(found, name, kind, workload="diabetes_ridge"):
    return found.arrays[f"{workload}/{name}/{kind}"]


def test_one_rule_under_two_names_is_the_same_to_the_last_bit_and_not_called_better():
    for kind in (
        "trials",
        "tuning",
        "costs",
        "final",
        "curves",
        "best_of",
        "rate_scores",
    ):
        np.testing.assert_array_equal(
            of(study(), "plain", kind), of(study(), "again", kind)
        )
    found = comparison.compare({"a": "adam", "b": "adam"}, "quadratic", **TERMS)
    (one,) = found.numbers["overall"]
    assert (one["ratio"], one["low"], one["high"], one["win"], one["verdict"]) == (
        1,
        1,
        1,
        0.5,
        "undecided",
    )
    assert "not distinguishable" in found.answer


def test_costs_are_those_of_trainings_made_by_themselves():
    workload = workloads.make_workload("diabetes_ridge")
    sampler = samplers.minibatch(len(workload.train.y), 32)
    program = descent.compile_sweep(
        workload,
        update_rules.find_rule("adam"),
        sampler,
        12,
        hyperparameters=("learning_rate", "b1"),
    )
    rate, b1 = of(study(), "adam", "trials")[2]
    cells = {
        "seed": np.arange(4),
        "learning_rate": np.full(4, rate),
        "b1": np.full(4, b1),
    }
    trained = descent.sweep(program, cells)
    gaps = trained.values - workload.optimum.value
    for seed, relative in enumerate(gaps / gaps[:, :1]):
        below = np.flatnonzero(relative <= 1e-2)
        if not below.size:
            assert np.isinf(of(study(), "adam", "costs")[2, seed])
            continue
        at = below[0]
        ends = np.log(relative[at - 1 : at + 1])
        share = (np.log(1e-2) - ends[0]) / (ends[1] - ends[0])
        cost = trained.passes[at - 1] + share * (
            trained.passes[at] - trained.passes[at - 1]
        )
        np.testing.assert_allclose(
            of(study(), "adam", "costs")[2, seed], cost, rtol=1e-9
        )


def test_the_chosen_trial_is_the_best_on_the_tuning_seeds_alone():
    for name in ("plain", "adam"):
        best = np.argmin(of(study(), name, "tuning").mean(axis=1))
        values = of(study(), name, "trials")[best]
        assert list(cell(study(), name)["chosen"].values()) == values.tolist()


def test_reported_costs_do_not_depend_on_the_tuning_seeds():
    other = comparison.compare(
        ["gradient_descent", "adam"],
        "diabetes_ridge",
        **TERMS | {"tuning_seeds": [77, 78, 79]},
    )
    first = 4  # A choice at an edge adds trials after these.
    np.testing.assert_array_equal(
        of(other, "adam", "costs")[:first], of(study(), "adam", "costs")[:first]
    )
    assert not np.array_equal(
        of(other, "adam", "tuning")[:first], of(study(), "adam", "tuning")[:first]
    )


@pytest.mark.thorough("a study of its own; test_sweep.py has the law")
def test_a_rule_does_not_depend_on_what_it_is_compared_with():
    other = comparison.compare(
        {"adam": "adam", "rmsprop": "rmsprop"}, "diabetes_ridge", **TERMS
    )
    for kind in ("trials", "tuning", "costs", "best_of"):
        np.testing.assert_array_equal(
            of(other, "adam", kind), of(study(), "adam", kind)
        )


@pytest.mark.thorough("a study on two parts of the data")
def test_tuned_on_validation_it_is_reported_on_test():
    found = comparison.compare(
        ["gradient_descent", "adam"],
        "diabetes_ridge",
        **TERMS | {"tune_on": "validation"},
    )
    assert found.numbers["protocol"]["reported_on"] == "test"
    workload = workloads.make_workload("diabetes_ridge")
    best = float(workload.objective(workload.optimum.params, workload.test))
    program = descent.compile_sweep(
        workload,
        update_rules.gradient_descent,
        samplers.minibatch(309, 32),
        12,
        evaluate_on=("test",),
    )
    rate = cell(found, "gradient_descent")["chosen"]["learning_rate"]
    values = descent.sweep(
        program, {"seed": np.arange(4), "learning_rate": np.full(4, rate)}
    ).values
    np.testing.assert_allclose(
        of(found, "gradient_descent", "curves"),
        (values - best) / (values[:, :1] - best),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.thorough("a sweep of its own; test_sweep.py has its laws")
def test_lanes_evaluate_on_several_parts_as_on_each():
    workload = workloads.make_workload("diabetes_ridge")
    cells = {"seed": [0, 1], "learning_rate": [0.1, 0.01]}
    make = functools.partial(
        descent.compile_sweep,
        workload,
        update_rules.gradient_descent,
        samplers.full_batch(309),
        4,
    )
    both = descent.sweep(make(evaluate_on=("validation", "test")), cells)
    np.testing.assert_array_equal(both.values, both.values_on["validation"])
    for part in ("validation", "test"):
        alone = descent.sweep(make(evaluate_on=(part,)), cells)
        np.testing.assert_allclose(both.values_on[part], alone.values, rtol=1e-14)
    with pytest.raises(ValueError, match="no validation part"):
        descent.compile_sweep(
            workloads.make_workload("quadratic"),
            optax.sgd,
            samplers.full_batch(1),
            4,
            evaluate_on=("validation",),
        )
    with pytest.raises(ValueError, match="evaluate_on must name parts"):
        make(evaluate_on=("training",))


def test_a_choice_at_an_edge_widens_the_space_and_is_told():
    spaces = {"low": {"learning_rate": tuning.Range(0.02, 0.04)}}
    terms = TERMS | {"passes": 60, "target": 0.5}
    found = comparison.compare(
        {"low": rule(), "plain": "gradient_descent"},
        "quadratic",
        spaces=spaces,
        **terms,
    )
    low = cell(found, "low")
    assert low["widened"] == trials.MOST_WIDENINGS
    assert low["trials"] > TERMS["budget"]
    assert low["chosen"]["learning_rate"] > 0.04
    assert low["edges"] == ["learning_rate, high"]


def test_a_rule_that_costs_twice_gets_half_the_steps():
    found = comparison.compare(
        {"sam": "sam", "plain": "gradient_descent"}, "diabetes_ridge", **TERMS
    )
    assert cell(found, "sam")["evaluations"] == 2
    np.testing.assert_allclose(
        of(found, "sam", "passes")[-1], of(found, "plain", "passes")[-1]
    )
    assert len(of(found, "sam", "passes")) < len(of(found, "plain", "passes"))


def test_a_rule_that_gives_nan_is_a_result():
    broken = lambda learning_rate: optax.chain(
        optax.sgd(learning_rate), optax.scale(jnp.nan)
    )
    terms = TERMS | {"passes": 60, "target": 0.5}
    found = comparison.compare(
        {"broken": broken, "plain": "gradient_descent"}, "quadratic", **terms
    )
    assert cell(found, "broken")["cost"] is None
    assert cell(found, "broken")["diverged"] == 1
    assert found.numbers["overall"][0]["verdict"] == "worse"
    assert found.answer == (
        "On no workload do both broken and plain reach the target. Only plain reaches it. Not reached: by broken on "
        "quadratic (every training diverged)."
    )


def test_a_rule_twice_as_fast_needs_half():
    # On a quadratic one learning rate is another's half: with made rules, nothing is tuned, and both are one trial.
    fast, slow = (optax.sgd(rate) for rate in (0.02, 0.01))
    found = comparison.compare(
        {"fast": fast, "slow": slow},
        "quadratic",
        **TERMS | {"passes": 2000, "target": 0.3},
    )
    (one,) = found.numbers["overall"]
    assert one["verdict"] == "better"
    np.testing.assert_allclose(one["ratio"], 0.5, rtol=0.02)
    assert found.answer.startswith("fast needs 0.499 [0.49")


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    checkpoints = runs.checkpoints_in(tmp_path)
    rules = {"a": "gradient_descent", "b": "heavy_ball"}
    for part in (0, 1):
        comparison.compute_share(
            rules, "quadratic", part, 2, checkpoints=checkpoints, **TERMS
        )
    monkeypatch.setattr(descent, "sweep", None)
    shared = comparison.compare(rules, "quadratic", checkpoints=checkpoints, **TERMS)
    monkeypatch.undo()
    alone = comparison.compare(rules, "quadratic", **TERMS)
    for name, array in alone.arrays.items():
        np.testing.assert_array_equal(array, shared.arrays[name])


def test_a_study_is_saved_as_a_run(tmp_path):
    folder = study().save(tmp_path)
    loaded = runs.load_result(folder)
    assert loaded.answer == study().answer
    assert (
        loaded.numbers
        == runs.result.read_result(
            *runs.result.result_bytes(runs.Result(*study()))
        ).numbers
    )
    assert runs.read_manifest(folder)["experiment"] == "compare"
    assert str(study()).startswith(study().answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "budget must be a positive integer; got budget=0"),
        ({"passes": 0}, "passes must be a positive integer"),
        ({"batch_size": -1}, "batch_size must be a positive integer"),
        (
            {"passes": 1, "evaluations": {"adam": 2}},
            "passes=1 is less than one epoch of adam, whose step costs 2 gradients",
        ),
        ({"seeds": 1}, "seeds must have at least 3 seeds"),
        ({"tuning_seeds": 2}, "tuning_seeds must have at least 3 seeds"),
        (
            {"seeds": [0, 1, 2], "tuning_seeds": [2, 3, 4]},
            r"must be disjoint.*both: \[2\]",
        ),
        ({"seeds": [1, 1]}, "seed more than once"),
        ({"seeds": [0.5, 1]}, "integers in 0"),
        ({"seeds": True}, "number of seeds"),
        ({"tune_on": "test"}, "would choose by the reported results"),
        ({"tune_on": "tran"}, "must be 'train' or 'validation'; got 'tran'"),
        ({"target": 0}, "target must lie between 0 and 1"),
        ({"level": 95}, "level must lie between 0 and 1"),
        (
            {"baseline": "adma"},
            "baseline must be one of the rules, adam, rmsprop; got 'adma'",
        ),
        ({"spaces": {"adam": {"learning_rate": tuning.Range(0, 1)}}}, "log scale"),
    ],
)
def test_terms_that_make_no_sense_are_shown(change, message):
    with pytest.raises(ValueError, match=message):
        comparison.compare(["adam", "rmsprop"], "quadratic", **TERMS | change)


def test_other_bad_input_is_shown():
    with pytest.raises(TypeError, match=r"no argument 'bugdet'; did you mean 'budget'"):
        comparison.compare(["adam", "rmsprop"], "quadratic", bugdet=3)
    with pytest.raises(ValueError, match="at least two rules; got"):
        comparison.compare(["adam"], "quadratic")
    with pytest.raises(
        ValueError, match="batch_size=400 is larger than the 309 examples of diabetes"
    ):
        comparison.compare(["adam", "rmsprop"], "diabetes", batch_size=400)
    with pytest.raises(ValueError, match="quadratic' has no validation part"):
        comparison.compare(["adam", "rmsprop"], "quadratic", tune_on="validation")
    with pytest.raises(ValueError, match="each once; got"):
        comparison.compare(["adam", "rmsprop"], ["quadratic", "quadratic"])
    with pytest.raises(
        TypeError, match=r"mine is not an update rule.*a value of type float"
    ):
        comparison.compare(
            {"mine": lambda learning_rate: 3.0, "adam": "adam"}, "quadratic"
        )


def test_a_rule_that_cannot_be_traced_is_named_with_its_own_error():
    def mine(learning_rate):
        if learning_rate > 0.1:
            raise AssertionError
        return optax.sgd(learning_rate)

    with pytest.raises(
        ValueError, match=r"mine raised .*TracerBool|mine raised AssertionError"
    ):
        comparison.compare({"mine": mine, "adam": "adam"}, "quadratic")

    def wide(learning_rate):
        grow = lambda updates, state, params=None: (
            jax.tree.map(lambda g: jnp.stack([g, g]), updates),
            state,
        )
        return optax.chain(
            optax.sgd(learning_rate),
            optax.GradientTransformation(lambda p: optax.EmptyState(), grow),
        )

    with pytest.raises(TypeError, match="wide"):
        comparison.compare({"wide": wide, "adam": "adam"}, "quadratic")


@pytest.mark.parametrize(
    ("scores", "decades"),
    [([3, 1, 1.05, 3], 1.0513), ([1, 1, 1, 1], 3.0), ([5, 1, 5, 9], 0.05)],
)
def test_robustness_is_the_width_of_rates_within_ten_percent(scores, decades):
    rates = np.array([0.001, 0.01, 0.1, 1.0])
    low, high = measurements.robust_rates(rates, np.array(scores, float)[:, None])
    np.testing.assert_allclose(np.log10(high / low), decades, rtol=0.1)


def test_a_rule_that_never_gets_there_is_not_called_robust():
    ascends = lambda learning_rate: optax.sgd(-learning_rate)
    found = comparison.compare(
        {"ascends": ascends, "plain": "gradient_descent"},
        "quadratic",
        **TERMS | {"passes": 60, "target": 0.5},
    )
    assert cell(found, "ascends")["robustness"] is None
    assert cell(found, "plain")["robustness"] > 0


def test_one_trial_is_the_defaults_and_nothing_is_widened():
    found = comparison.compare(
        {"a": "gradient_descent", "b": "adam"}, "quadratic", **TERMS | {"budget": 1}
    )
    assert [c["trials"] for c in found.numbers["cells"]] == [1, 1]
    assert cell(found, "a")["chosen"] == {"learning_rate": 0.01}


def test_the_leader_is_read_from_the_tuning_seeds_at_equal_budgets():
    made = lambda tuning: Saved({"tuning": np.array(tuning, float)}, {})
    found = {("w", "a"): made([[4, 4], [2, 2]]), ("w", "b"): made([[3, 3], [9, 9]])}
    assert comparison.leader(found, trials=2) == "a"
    assert comparison.leader(found, trials=1) == "b"
    lucky = made(
        [[4, 4], [4, 4], [4, 4], [1, 1]]
    )  # Its best is one of three more trials: with two in all, seldom tried.
    assert comparison.leader(found | {("w", "c"): lucky}, trials=2) == "a"
    assert comparison.leader(found | {("w", "c"): lucky}, trials=4) == "c"


@pytest.mark.thorough("a study of its own; test_study_statistics.py has the law")
def test_a_target_that_one_of_two_equal_rules_reaches_more_often_is_no_verdict():
    # Two equal rules, each run of which reaches the target by the toss of a coin: that one is above a half and the other
    # below says nothing, and it may be said in 5 % of studies.
    random, named, seeds = np.random.default_rng(0), 0, 20
    for _ in range(200):
        both = [
            statistics.Scores(
                np.ones((1, 3)),
                np.where(random.random((1, seeds)) < 0.5, 5.0, np.inf),
                10.0,
            )
            for _ in "ab"
        ]
        reached = [tuple(np.isfinite(scores.costs).mean() >= 0.5 for scores in both)]
        verdict = statistics.difference(*both, resamples=300).verdict
        named += (
            _together([both], reached, [verdict], resamples=300).verdict != "undecided"
        )
    assert named <= binom.ppf(0.975, 200, 0.05)


def test_a_workload_that_one_rule_alone_reaches_speaks_for_it():
    never, soon, later = (
        statistics.Scores(np.ones((1, 3)), np.full((1, 8), c), 10.0)
        for c in (np.inf, 2.0, 4.0)
    )
    together = lambda *pairs, verdicts: _together(
        pairs,
        [tuple(bool(np.isfinite(s.costs).all()) for s in pair) for pair in pairs],
        verdicts,
        resamples=300,
    )
    alone = together((soon, never), verdicts=["better"])
    assert (alone.ratio, alone.verdict, alone.workloads) == (0.0, "better", 0)
    assert together((never, soon), verdicts=["worse"]).ratio == np.inf
    assert np.isnan(together((never, never), verdicts=["undecided"]).ratio)
    mixed = together((soon, never), (later, soon), verdicts=["better", "worse"])
    assert (mixed.verdict, mixed.workloads) == ("undecided", 1)
    assert mixed.ratio == pytest.approx(2)
