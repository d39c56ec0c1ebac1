"""Laws of a comparison, end to end: what is tuned, what is reported, what is paired,
and what is refused.
"""

import functools
import itertools
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import (
    comparison,
    descent,
    runs,
    samplers,
    tuning,
    update_rules,
    workloads,
)
from research.comparison import _searching, measurements
from research.comparison._computation import computation_digest
from research.statistics import searched_cost, searched_difference
from research.statistics.searches import best_of_trials
from research.types import Checkpoint, Saved

PACKAGE = "research.comparison."
COMPILE_QUICKLY = True  # tests/conftest.py
TERMS = {
    "searches": 2,
    "budget": 4,
    "passes": 12,
    "seeds": 4,
    "tuning_seeds": 3,
    "timed": False,
}


def rule(scale=1.0):
    """Gradient descent, its rate multiplied."""
    return lambda learning_rate: update_rules.gradient_descent(scale * learning_rate)


@functools.cache
def study_and_stays():
    """Two rules and the first under a second name, on data with all three parts.

    Beside the study: the modules of research.comparison in the order in which their
    functions are called for the first time. Calls of one module in a row are one stay.
    """
    rules = {
        "plain": "gradient_descent",
        "again": update_rules.gradient_descent,
        "adam": "adam",
    }
    called = {}

    def noted(function):
        @functools.wraps(function)
        def call(*arguments, **keywords):
            called.setdefault(function, function.__module__)
            return function(*arguments, **keywords)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module in [m for n, m in sys.modules.items() if n.startswith(PACKAGE)]:
            for name, value in list(vars(module).items()):
                own = getattr(value, "__module__", "") or ""
                if isinstance(value, types.FunctionType) and own.startswith(PACKAGE):
                    patch.setattr(module, name, noted(value))
        found = comparison.compare(rules, "diabetes_ridge", **TERMS)
    return found, [module for module, _ in itertools.groupby(called.values())]


def study():
    return study_and_stays()[0]


def cell(found, name):
    return next(c for c in found.numbers["cells"] if c["rule"] == name)


def of(found, name, kind, workload="diabetes_ridge"):
    return found.arrays[f"{workload}/{name}/{kind}"]


@pytest.mark.on_ci("a whole study; nothing shorter shows this")
def test_one_rule_under_two_names_has_other_points_and_is_not_called_better():
    # The luck of a search must not be shared, so the points depend on the name.
    assert not np.array_equal(
        of(study(), "plain", "trials")[:, 1:], of(study(), "again", "trials")[:, 1:]
    )
    defaults = of(study(), "plain", "trials")[:, 0]
    np.testing.assert_array_equal(defaults, of(study(), "again", "trials")[:, 0])
    np.testing.assert_array_equal(
        of(study(), "plain", "default_costs"), of(study(), "again", "default_costs")
    )


@pytest.mark.on_ci("a study of two equal rules; nothing shorter shows this")
def test_rules_without_a_search_that_are_the_same_have_the_ratio_one():
    made = {"a": optax.sgd(0.02), "b": optax.sgd(0.02)}
    found = comparison.compare(made, "quadratic", **TERMS | {"target": 0.9})
    (one,) = found.numbers["overall"]
    assert (one["ratio"], one["win"], one["verdict"]) == (1, 0.5, "undecided")
    assert "not distinguishable" in found.answer


def test_a_rule_cannot_take_the_place_of_the_factors_of_the_profile():
    named = "a rule cannot have the name 'factors'"
    rules = {"factors": optax.sgd(0.02), "b": optax.sgd(0.02)}
    with pytest.raises(ValueError, match=named):
        comparison.plan(rules, "quadratic")
    protocol = comparison.make_protocol(seeds=4)
    measured = {("quadratic", name): Saved({}, {}) for name in rules}
    contenders = comparison.make_contenders(rules)
    with pytest.raises(ValueError, match=named):
        comparison.conclude(protocol, "b", contenders, measured)


def test_compare_goes_through_its_modules_in_order_and_returns_to_none():
    # Methods of the values that are passed along, such as Protocol.reported_on, are no
    # functions of a module here.
    _, stays = study_and_stays()
    assert len(stays) > 7
    assert len(stays) == len(set(stays))


def test_each_search_has_its_own_points_and_its_own_tuning_seeds():
    first, second = of(study(), "adam", "trials")
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.isin(first[1:], second[1:]).any()
    screened = of(study(), "adam", "screening")[:, 0]
    assert not np.array_equal(screened[0], screened[1])  # The same point, other seeds.
    protocol = comparison.make_protocol(searches=3, tuning_seeds=4)
    own = [protocol.seeds_of_search(number) for number in range(3)]
    assert sorted(sum(own, ())) == list(protocol.tuning_seeds)
    assert [len(seeds) for seeds in own] == [4, 4, 4]


SHARED = {"a": "gradient_descent", "b": "heavy_ball"}


@functools.cache
def alone():
    """Two rules on a quadratic: a study that others are compared with."""
    return comparison.compare(SHARED, "quadratic", **TERMS)


@pytest.mark.thorough(
    "two studies; test_search.py has how seeds decide the points of a search"
)
def test_another_search_seed_tries_other_points():
    studies = [
        alone(),
        *(
            comparison.compare(SHARED, "quadratic", search_seed=seed, **TERMS)
            for seed in (0, 1)
        ),
    ]
    one, same, other = (of(found, "a", "trials", "quadratic") for found in studies)
    np.testing.assert_array_equal(one, same)
    assert not np.isin(one[:, 1:], other[:, 1:]).any()


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
    rate, b1 = of(study(), "adam", "chosen")[1]
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
            assert np.isinf(of(study(), "adam", "costs")[1, seed])
            continue
        at = below[0]
        ends = np.log(relative[at - 1 : at + 1])
        share = (np.log(1e-2) - ends[0]) / (ends[1] - ends[0])
        cost = trained.passes[at - 1] + share * (
            trained.passes[at] - trained.passes[at - 1]
        )
        np.testing.assert_allclose(
            of(study(), "adam", "costs")[1, seed], cost, rtol=1e-9
        )


def test_the_best_search_is_that_with_the_lowest_cost_on_its_tuning_seeds():
    for name in ("plain", "adam"):
        best = np.argmin(of(study(), name, "tuning"))
        values = of(study(), name, "chosen")[best]
        assert list(cell(study(), name)["chosen"].values()) == values.tolist()


@pytest.mark.thorough(
    "a study; test_costs_are_those_of_trainings_made_by_themselves has what costs "
    "depend on"
)
def test_costs_of_the_defaults_do_not_depend_on_the_tuning_seeds():
    other = comparison.compare(
        ["gradient_descent", "adam"],
        "diabetes_ridge",
        **TERMS | {"tuning_seeds": [77, 78, 79, 80, 81, 82]},
    )
    for kind in ("default_costs", "trials"):
        np.testing.assert_array_equal(
            of(other, "adam", kind), of(study(), "adam", kind)
        )
    assert not np.array_equal(
        of(other, "adam", "screening"), of(study(), "adam", "screening")
    )


@pytest.mark.thorough("a study of its own; test_sweep.py has the law")
def test_a_rule_does_not_depend_on_what_it_is_compared_with():
    other = comparison.compare(
        {"adam": "adam", "rmsprop": "rmsprop"}, "diabetes_ridge", **TERMS
    )
    for kind in ("trials", "screening", "tuning", "costs", "best_of"):
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
    rates = of(found, "gradient_descent", "chosen")[:, 0]
    runs_of_both = {
        "seed": np.tile(np.arange(4), 2),
        "learning_rate": np.repeat(rates, 4),
    }
    values = descent.sweep(program, runs_of_both).values
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


@pytest.mark.parametrize("scale", ["log", "linear", "one_minus"])
def test_a_choice_at_the_end_of_its_range_is_not_outside(scale):
    for low, high in np.sort(np.random.default_rng(0).uniform(0.1, 0.9, (200, 2))):
        outside = functools.partial(
            _searching.outside, {"a": tuning.Range(low, high, scale)}
        )
        assert outside({"a": low}) == outside({"a": high}) == []
        beyond = 1e-3 * (high - low)
        assert outside({"a": low - beyond}) == ["a, low"]
        assert outside({"a": high + beyond}) == ["a, high"]


@pytest.mark.thorough(
    "a study; test_search.py has the law, test_contenders.py names the edges"
)
def test_a_best_rate_outside_the_space_is_followed_by_a_third_and_reported():
    spaces = {"low": {"learning_rate": tuning.Range(0.02, 0.04)}}
    terms = TERMS | {"passes": 60, "target": 0.5, "budget": 32}
    found = comparison.compare(
        {"low": rule(), "plain": "gradient_descent"},
        "quadratic",
        spaces=spaces,
        **terms,
    )
    low, third = cell(found, "low"), 2 ** (1 / 3)
    assert 0.04 < low["chosen"]["learning_rate"] <= 0.04 * third * (1 + 1e-9)
    assert low["edges"] == ["learning_rate, high"]


@pytest.mark.on_ci(
    "a study of SAM; test_epochs_within_passes_are_those_of_exact_fractions "
    "(test_statistics.py) has the number of epochs"
)
def test_a_rule_that_costs_twice_gets_half_the_steps():
    found = comparison.compare(
        {"sam": "sam", "plain": "gradient_descent"}, "diabetes_ridge", **TERMS
    )
    assert cell(found, "sam")["evaluations"] == 2
    np.testing.assert_allclose(
        of(found, "sam", "passes")[-1], of(found, "plain", "passes")[-1]
    )
    assert len(of(found, "sam", "passes")) < len(of(found, "plain", "passes"))


@pytest.mark.on_ci("a study; nothing shorter shows this")
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
    assert "Target not reached by at least half of the runs: broken on quadratic " in (
        found.answer
    )
    assert "(every training diverged)" in found.answer


@pytest.mark.on_ci(
    "a study; "
    "test_a_rule_that_misses_like_the_baseline_is_told_apart_from_one_that_does_not "
    "has an answer that leaves a rule out"
)
def test_two_rules_that_never_reach_the_target_are_not_compared_in_the_answer():
    broken = optax.chain(optax.sgd(0.1), optax.scale(jnp.nan))
    found = comparison.compare({"a": broken, "b": broken}, "quadratic", **TERMS)
    assert found.answer.startswith("Neither a nor b reaches the target on quadratic.")
    assert found.numbers["overall"][0]["verdict"] == "undecided"
    # Each cost is the constant of a run that misses the target: no number is a result.
    assert "smallest factor" not in found.answer
    costs, together, _ = found.tables
    (row,) = (row for row in costs.rows if row[6] != "baseline")
    assert row[5:10] == ("neither reached", "", "undecided", "", "")
    neither = ("neither reached", "", "", "undecided", "")
    assert together.rows[0][1:6] == neither


def test_a_rule_that_misses_like_the_baseline_is_told_apart_from_one_that_does_not():
    cells = [{"rule": r, "workload": "w", "reached": 0.0} for r in ("a", "b", "base")]
    cells = [cell | {"diverged": 0.0, "final": 0.9} for cell in cells]
    cells[1]["reached"] = 1.0
    both = {"baseline": "base", "ratio": 1.0, "low": 0.98, "high": 1.02}
    a = both | {"rule": "a", "verdict": "undecided", "detectable": 1.02}
    b = both | {"rule": "b", "verdict": "better", "detectable": 1.5}
    numbers = {"baseline": "base", "workloads": ["w"], "cells": cells}
    told = comparison.tables.answer(numbers | {"overall": [a, b]})
    assert "fewer for b (1 [0.98, 1.02]); not measured, because neither" in told
    assert "reaches the target: a. The smallest factor that this" in told
    assert "could detect is 1.50." in told


@pytest.mark.on_ci(
    "a study; test_penalties_of_misses_have_the_limit_of_the_budget "
    "(test_statistics.py) has the cost of a missed target"
)
def test_a_missed_target_costs_ten_full_trainings_whatever_a_step_costs():
    # The same steps, which are far too short. In 13 passes there is one epoch at 7
    # gradients a step, ten at 1.3, and thirteen at 1.
    steps = optax.sgd(1e-6)
    found = comparison.compare(
        {"seven": steps, "fraction": steps, "one": steps},
        "quadratic",
        evaluations={"seven": 7, "fraction": 1.3},
        **TERMS | {"passes": 13},
    )
    rules = found.numbers["rules"]
    ends = {rule: of(found, rule, "passes", "quadratic")[-1] for rule in rules}
    assert ends == pytest.approx({"seven": 7, "fraction": 13, "one": 13})
    for row in found.numbers["overall"] + found.numbers["comparisons"]:
        assert row["verdict"] == "undecided"
        assert (row["ratio"], row["win"]) == (pytest.approx(1.0), 0.5)
    for rule in rules:  # The scores of a search rank misses by less than 0.0024.
        for name in ("tuning", "screening"):
            scores = of(found, rule, name, "quadratic")
            np.testing.assert_allclose(scores, np.log(130), atol=0.0024)


def test_an_epoch_leaves_out_examples_and_the_first_table_says_so():
    found, words = study(), "the passes count the examples that an epoch leaves out"
    (n,) = {one["n"] for one in found.numbers["cells"]}
    np.testing.assert_allclose(
        of(found, "plain", "passes")[-1], TERMS["passes"] * (n // 32) * 32 / n
    )
    assert f"within 12 passes, mini-batch 32 ({words}; " in found.tables[0].note
    numbers = {**found.numbers, "cells": [cell(found, "plain") | {"n": 320}]}
    assert words not in comparison.tables.costs_table(numbers).note


def test_a_rule_that_was_not_measured_on_one_workload_is_named():
    workloads = ["quadratic", "rosenbrock"]
    protocol, contenders = comparison.plan(["gradient_descent", "adam"], workloads)
    arrays = {"costs": np.ones((6, 20)), "passes": np.arange(31.0)}
    measured = {
        (on, one.name): Saved(arrays, {}) for on in workloads for one in contenders
    }
    del measured["rosenbrock", "adam"]
    with pytest.raises(ValueError, match=r"missing: adam on rosenbrock\."):
        comparison.conclude(protocol, "gradient_descent", contenders, measured)


@pytest.mark.on_ci("the usual level", but=r"0\.8\]")
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_of_a_rule_have_the_level_of_the_study(level):
    kinds = ("costs", "passes", "screening", "final")
    arrays = {kind: of(study(), "adam", kind) for kind in kinds}
    protocol = comparison.make_protocol(level=level, passes=TERMS["passes"])
    own = cell(study(), "adam")
    saved = measurements.measurement(arrays, {}, own, protocol, 32)
    missed = 10 * arrays["passes"][-1]
    costs = np.where(np.isfinite(arrays["costs"]), arrays["costs"], missed)
    cost = searched_cost(np.log(costs), level=level)
    assert saved.values["cost_low"] == pytest.approx(cost.low)
    assert saved.values["cost_high"] == pytest.approx(min(cost.high, missed))
    assert (own["cost_low"] == pytest.approx(cost.low)) == (level == 0.95)
    best_of = best_of_trials(arrays["screening"], level=level)
    np.testing.assert_array_equal(saved.arrays["best_of"], best_of)


def test_each_interval_is_corrected_for_those_beside_it():
    # On one workload there are two comparisons on each of two, and over both two.
    names, places = ["gradient_descent", "adam", "rmsprop"], ["quadratic", "rosenbrock"]
    protocol = comparison.make_protocol(level=0.9)
    logs = np.random.default_rng(0).normal(0, 0.3, (2, 3, 4, 6))
    both = itertools.product(places, names)
    logs = dict(zip(both, logs.reshape(6, 4, 6), strict=True))
    measured = {
        (place, name): Saved(
            {"costs": np.exp(logs[place, name]), "passes": np.arange(31.0)},
            cell(study(), "adam") | {"workload": place, "rule": name},
        )
        for place, name in logs
    }
    contenders = comparison.make_contenders(names)
    numbers = comparison.conclude(protocol, names[0], contenders, measured).numbers
    for count, rows in ((4, numbers["comparisons"]), (2, numbers["overall"])):
        for row in rows:
            on = [row["workload"]] if "workload" in row else places
            pairs = [(logs[place, row["rule"]], logs[place, names[0]]) for place in on]
            own = searched_difference(pairs, level=1 - 0.1 / count)
            ends = [row[name] for name in ("low", "high", "win_low", "win_high")]
            expected = [own.low, own.high, own.win_low, own.win_high]
            np.testing.assert_allclose(ends, expected)


def test_every_answer_states_the_detectable_factor():
    assert "smallest factor that this study could detect is" in study().answer


@pytest.mark.on_ci("a whole study; nothing shorter shows this")
def test_a_rule_twice_as_fast_needs_half():
    # On a quadratic one learning rate is another's half: with made rules, nothing is
    # tuned, and both are one trial.
    fast, slow = (optax.sgd(rate) for rate in (0.02, 0.01))
    found = comparison.compare(
        {"fast": fast, "slow": slow},
        "quadratic",
        **TERMS | {"passes": 2000, "target": 0.3},
    )
    (one,) = found.numbers["overall"]
    assert one["verdict"] == "better"
    np.testing.assert_allclose(one["ratio"], 0.5, rtol=0.02)
    assert found.answer.startswith("fast needs 0.499 [0.48")


@pytest.mark.on_ci(
    "three studies; test_the_name_of_a_checkpoint_says_which_computation_it_holds "
    "takes its measurements from checkpoints"
)
def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    checkpoints = runs.checkpoints_in(tmp_path)
    for part in (0, 1):
        comparison.compute_share(
            SHARED, "quadratic", part, 2, checkpoints=checkpoints, **TERMS
        )
    monkeypatch.setattr(descent, "sweep", None)
    shared = comparison.compare(SHARED, "quadratic", checkpoints=checkpoints, **TERMS)
    monkeypatch.undo()
    for name, array in alone().arrays.items():
        np.testing.assert_array_equal(array, shared.arrays[name])


@pytest.mark.thorough(
    "test_leaderboard.py reads a saved comparison "
    "(test_what_a_comparison_concludes_is_read_as_it_was_saved)"
)
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
        ({"searches": 1}, "searches must be at least 2"),
        ({"search_seed": -1}, "search_seed"),
        ({"seeds": 1}, "seeds: at least 3 seeds are needed"),
        ({"tuning_seeds": 1}, "tuning_seeds must be"),
        ({"tuning_seeds": [5, 6]}, "tuning_seeds: at least 4 seeds are needed"),
        ({"tuning_seeds": [5, 6, 7, 8, 9]}, "5 seeds cannot be divided among 2"),
        (
            {"seeds": [0, 1, 2], "tuning_seeds": [2, 3, 4, 5]},
            r"must be disjoint.*both contain \[2\]",
        ),
        ({"seeds": [1, 1]}, "seed more than once"),
        ({"seeds": [0.5, 1]}, "integers in 0"),
        ({"seeds": True}, "number of seeds"),
        ({"tune_on": "test"}, "would choose hyper-parameters by the reported results"),
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
    [([3, 1, 1.05, 3], 1.1311), ([1, 1, 1, 1], 3.0), ([5, 1, 5, 9], 0.1184)],
)
def test_robustness_is_the_width_of_rates_within_ten_percent(scores, decades):
    rates = np.array([0.001, 0.01, 0.1, 1.0])
    costs = np.log(np.array(scores, float)[:, None])
    low, high = measurements.robust_rates(rates, costs)
    np.testing.assert_allclose(np.log10(high / low), decades, rtol=1e-3)


@pytest.mark.on_ci("a study; nothing shorter shows this")
def test_a_rule_that_never_gets_there_is_not_called_robust():
    ascends = lambda learning_rate: optax.sgd(-learning_rate)
    found = comparison.compare(
        {"ascends": ascends, "plain": "gradient_descent"},
        "quadratic",
        **TERMS | {"passes": 60, "target": 0.5},
    )
    assert cell(found, "ascends")["robustness"] is None
    assert cell(found, "plain")["robustness"] > 0


@pytest.mark.thorough("a study; test_search.py has a budget of one run")
def test_one_trial_is_the_defaults_and_nothing_is_refined():
    found = comparison.compare(
        {"a": "gradient_descent", "b": "adam"}, "quadratic", **TERMS | {"budget": 1}
    )
    assert [c["trials"] for c in found.numbers["cells"]] == [1, 1]
    assert cell(found, "a")["chosen"] == {"learning_rate": 0.01}


def test_the_leader_is_the_rule_with_the_lowest_cost_on_the_tuning_seeds():
    made = lambda default, tuned: Saved(
        {
            "tuning": np.log(tuned),
            "screening": np.log([[[default, default], [1.0, 1.0]]] * 2),
        },
        {},
    )
    found = {("w", "a"): made(4.0, [2.0, 2.0]), ("w", "b"): made(3.0, [1.0, 9.0])}
    assert comparison.leader(found) == "a"  # sqrt(1 * 9) = 3 is more than 2.
    assert comparison.leader(found, tuned=False) == "b"


@pytest.mark.on_ci(
    "three studies; test_the_name_of_a_checkpoint_says_which_computation_it_holds has "
    "the names by which measurements are found"
)
def test_measurements_of_another_rule_or_of_other_data_are_not_taken(tmp_path):
    def slow(learning_rate):
        return update_rules.gradient_descent(learning_rate / 8)

    kept, terms = runs.checkpoints_in(tmp_path), TERMS | {"budget": 2}
    first, second, again = (
        comparison.compare(
            {"mine": mine, "adam": "adam"}, "quadratic", checkpoints=kept, **terms
        )
        for mine in (update_rules.heavy_ball, slow, update_rules.heavy_ball)
    )
    curves = [
        of(one, "mine", "screening", "quadratic") for one in (first, second, again)
    ]
    np.testing.assert_array_equal(curves[0], curves[2])
    assert not np.array_equal(curves[0], curves[1])


def digest(workload=None, make_rule=lambda: optax.sgd(0.02)):
    return computation_digest(workload or QUADRATIC(), make_rule, (), None)


QUADRATIC = functools.partial(workloads.make_workload, "quadratic")


def changed(**fields):
    """The quadratic with other fields, each a function of the old one."""
    made = QUADRATIC()
    return made._replace(**{n: of(getattr(made, n)) for n, of in fields.items()})


def scaled_entries(last):
    """A rule with an array of 2000 entries in its closure."""
    entries = jnp.ones(2000).at[-1].set(last)
    return lambda: optax.stateless(
        lambda g, params: jax.tree.map(
            lambda g: -entries[: g.size] * entries[-1] * g, g
        )
    )


@pytest.mark.on_ci(
    "a momentum, another dimension, and an array in a closure, which "
    "test_another_entry_of_a_large_array_is_another_computation has",
    but=r"^change[035678]\]",
)
@pytest.mark.parametrize(
    "change",
    [
        {"make_rule": lambda: optax.sgd(0.2)},
        {"make_rule": lambda: optax.sgd(0.02, momentum=0.9)},
        {"make_rule": scaled_entries(0.02)},
        {"workload": lambda: QUADRATIC(condition=2.0)},
        {"workload": lambda: QUADRATIC(dimension=5)},
        {"workload": lambda: changed(objective=lambda f: lambda p, b: 10 * f(p, b))},
        {"workload": lambda: changed(init=lambda f: lambda key: 2 * f(key))},
        {"workload": lambda: changed(optimum=lambda best: best._replace(value=-9.0))},
        {"workload": lambda: QUADRATIC(dtype="float32")},
    ],
)
def test_another_rule_or_problem_of_the_same_name_is_another_computation(change):
    made = {name: of() if name == "workload" else of for name, of in change.items()}
    assert digest(**made) == digest(**made) != digest()


# JAX can write constants into equations; then its text only counts them. JAX 0.7 never
# does.
WRITTEN = "jax_use_simplified_jaxpr_constants"


@pytest.mark.on_ci("the other setting of JAX", but="False")
@pytest.mark.parametrize("written", [False, True][: 1 + hasattr(jax.config, WRITTEN)])
def test_another_entry_of_a_large_array_is_another_computation(written):
    before = getattr(jax.config, WRITTEN, False)
    if before != written:
        jax.config.update(WRITTEN, written)
    try:
        one, other, again = (
            digest(make_rule=scaled_entries(last)) for last in (0.02, 0.03, 0.02)
        )
    finally:
        if before != written:
            jax.config.update(WRITTEN, before)
    assert one == again != other


@pytest.mark.thorough("a process of its own")
@pytest.mark.parametrize("name", ["adam", "shampoo", "soap", "schedule_free_adamw"])
def test_a_computation_has_the_same_digest_in_another_process(name):
    lines = (
        "from research import backend; backend.configure(x64=True)",
        "from research import update_rules, workloads",
        "from research.comparison._computation import computation_digest",
        "made = workloads.make_workload('breast_cancer')",
        f"rule = update_rules.find_rule({name!r})",
        "print(computation_digest(made, rule, ('learning_rate',), 32))",
    )
    words = [sys.executable, "-c", "\n".join(lines)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True)
    made, rule = workloads.make_workload("breast_cancer"), update_rules.find_rule(name)
    own = computation_digest(made, rule, ("learning_rate",), 32)
    assert shown.stdout.split() == [own]


def test_the_name_of_a_checkpoint_says_which_computation_it_holds():
    def names(rule, workload):
        seen = []

        def kept(name):
            seen.append(name)
            return Checkpoint(lambda: Saved({}, {}), lambda saved: None, lambda: False)

        rules = {"mine": rule, "base": optax.sgd(0.1)}
        protocol, contenders = comparison.plan(rules, workload)
        comparison.measure_contenders(
            protocol, contenders, [workload], checkpoints=kept
        )
        return seen

    mine, base = names(optax.sgd(0.02), QUADRATIC())
    assert names(optax.sgd(0.02), QUADRATIC()) == [mine, base]
    assert names(optax.sgd(0.2), QUADRATIC())[0] != mine
    assert names(optax.sgd(0.2), QUADRATIC())[1] == base
    assert not {mine, base} & {*names(optax.sgd(0.02), QUADRATIC(condition=2.0))}


@pytest.mark.thorough("studies that are saved; test_travel.py has the law of the id")
def test_a_changed_rule_does_not_replace_the_study_that_was_saved(tmp_path):
    def saved(momentum):
        mine = lambda rate: optax.sgd(rate, momentum=momentum)
        rules = {"mine": mine, "adam": "adam"}
        return comparison.compare(rules, "quadratic", **TERMS).save(tmp_path)

    paths = [saved(0.0), saved(0.9), saved(0.9)]
    assert paths[0] != paths[1] == paths[2]


@pytest.mark.on_ci("trainings towards wrong optima; nothing shorter shows this")
def test_optimum_that_is_not_that_of_the_objective_is_refused():
    workload = workloads.make_workload("breast_cancer")
    optimum = workload.optimum
    shrunk = jax.tree.map(lambda leaf: 0.3 * leaf, optimum.params)
    value = float(workload.objective(shrunk, workload.train))
    for wrong, error, words in (
        (
            optimum._replace(value=optimum.value + 0.05),
            ValueError,
            "on the training part",
        ),
        (optimum._replace(value=50.0), ValueError, "must be below the objective"),
        (
            optimum._replace(params=shrunk, value=value),
            ValueError,
            "a training reached",
        ),
        (0.27, TypeError, "workload.optimum=0.27"),
    ):
        changed = workload._replace(optimum=wrong)
        with pytest.raises(error, match=words):
            comparison.compare(["heavy_ball", "adam"], changed, **TERMS)
    data = workload.train._replace(x=np.full_like(workload.train.x, np.nan))
    with pytest.raises(ValueError, match=r"train\.x contains NaN"):
        comparison.compare(["rprop", "adam"], workload._replace(train=data), **TERMS)


def test_states_that_need_more_than_the_memory_are_refused_by_name():
    def vast(learning_rate):
        init = lambda params: jnp.zeros((10**7, 10**7))
        return optax.GradientTransformation(
            init, lambda g, state, params=None: (g, state)
        )

    with pytest.raises(ValueError, match=r"runs of vast on quadratic, .* would need"):
        comparison.compare({"vast": vast, "adam": "adam"}, "quadratic")
