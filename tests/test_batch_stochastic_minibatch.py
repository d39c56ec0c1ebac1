"""The main experiment, small: its number, its answer, its figures, and what it
refuses.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import batch_stochastic_minibatch as experiment
from research import cli, figures, runs, tuning

SMALL = experiment.Config(
    workload=("breast_cancer",),
    rule=("adam",),
    passes=60,
    large_passes=0,
    seeds="0..3",
    tuning_seeds="100",
)
REFERENCE = (
    Path(experiment.__file__).parent / "reference" / "batch_stochastic_minibatch.json"
)


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "result": (
        "a small run from end to end; make test has those of fit_a_line and "
        "decision_boundary"
    )
}


@pytest.fixture(scope="module")
def result():
    return cli.conduct(experiment, SMALL)


def test_stochastic_descent_comes_to_rest_where_theory_says(result):
    low, high = experiment.EXPECTED["floor_over_prediction"]
    # Of the fixed rates, those whose slowest direction has e-folded six times within 60
    # passes (2 μ η steps > 6).
    rested = [
        row["with"][0] / row["predicted"]
        for row in result.numbers["floors"]["rows"]
        if 2
        * 0.01
        * row["rate"]
        * 60
        * 398
        / (1 if row["regime"] == "stochastic" else 32)
        > 6
    ]
    assert len(rested) == 2
    assert all(low < ratio < high for ratio in rested)


def test_a_new_order_every_epoch_comes_to_rest_lower(result):
    assert max(result.numbers["without_lower_by"]) > 3


def test_the_committed_result_holds_the_expected_number():
    numbers = json.loads(REFERENCE.read_text())["numbers"]
    low, high = experiment.EXPECTED["floor_over_prediction"]
    assert all(low < ratio < high for ratio in numbers["floor_over_prediction"])


def test_every_rule_equals_optax_to_rounding(result):
    for deviation in result.numbers["deviations"].values():
        assert deviation["float64"]["largest"] < 1e-12
        assert deviation["float32"]["largest"] < 1e-4


def test_the_answer_names_the_regime_that_the_table_puts_first(result):
    best = result.numbers["first_in_seconds"]["breast_cancer"]
    names = [regime.name for regime in tuning.practice_regimes(32)]
    rows = [
        r
        for r in result.numbers["rows"]
        if r["rule"] == "gradient_descent" and r["regime"] in names
    ]
    seconds = {
        r["regime"]: r["targets"][best["target"]][0] * r["seconds_per_pass"]
        for r in rows
        if r["targets"][best["target"]][0] is not None
    }
    assert best["regime"] == min(seconds, key=lambda name: seconds[name])
    assert f"use {best['regime']}" in result.answer


def test_the_answer_leaves_out_floors_of_runs_that_diverged(result):
    say = cli.report_of(experiment).answer
    for ratios, end in (
        ([np.nan, 3.0], "in every epoch (up to 3 times lower)."),
        ([np.nan], "in every epoch."),
    ):
        numbers = result.numbers | {"without_lower_by": ratios}
        assert say(runs.Findings({}, numbers)).endswith(end)


@pytest.mark.parametrize(("n", "size"), [(569, "small"), (50_000, "large")])
def test_a_set_is_large_by_its_number_of_examples(n, size):
    row = {"n": n, "workload": "any", "rule": "gradient_descent"}
    row |= {"targets": {"1e-02": [2.0, 1.0, 3.0]}, "seconds_per_pass": 1.0}
    regimes = [regime.name for regime in tuning.practice_regimes(32)]
    numbers = {
        "rows": [row | {"regime": regime} for regime in regimes],
        "first_in_seconds": {"any": {"regime": regimes[0], "target": "1e-02"}},
        **{"batch_size": 32, "large": None},
    }
    said = cli.report_of(experiment).advice(numbers, "any")
    assert said.startswith(f"On a {size} set (any, n = {n:,}) use ")


def test_regimes_that_are_about_as_fast_are_named_together():
    row = {"n": 569, "workload": "any", "rule": "gradient_descent"}
    row |= {"targets": {"1e-02": [2.0, 1.0, 3.0]}}
    regimes = [regime.name for regime in tuning.practice_regimes(32)]
    numbers = {
        "rows": [
            row | {"regime": regime, "seconds_per_pass": seconds}
            for regime, seconds in zip(regimes, (1.2, 1.05, 1.0), strict=True)
        ],
        "first_in_seconds": {"any": {"regime": "stochastic", "target": "1e-02"}},
        **{"batch_size": 32, "large": None},
    }
    said = cli.report_of(experiment).advice(numbers, "any")
    assert "use stochastic or mini-batch 32, whose times differ by less than " in said


def test_targets_are_those_of_the_curves(result):
    row = experiment.find(result.numbers, "breast_cancer", "full batch")
    key = "breast_cancer/gradient_descent/full batch"
    gaps, passes = result.arrays[f"{key}/gaps"], result.arrays[f"{key}/passes"]
    first = [p[0] for p in (passes[gap <= 1e-2 * gap[0]] for gap in gaps)]
    assert row["targets"]["1e-02"][0] == np.median(first)


def test_each_cell_has_a_hash(result):
    for row in result.numbers["rows"]:
        cells = result.arrays[f"{row['workload']}/{row['rule']}/{row['regime']}/hashes"]
        assert cells.shape == (4, 32)
        assert len({cell.tobytes() for cell in cells}) == 4


def test_a_run_that_is_stopped_in_its_threads_goes_on_to_the_same_bits(
    result, tmp_path
):
    checkpoints = runs.checkpoints_in(tmp_path, seconds_between=1e9)

    def stop(done, total, message):
        if done > 2.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(SMALL, stop, checkpoints)
    assert [*tmp_path.glob("**/*.npz")]
    again = experiment.run(SMALL, None, checkpoints)
    assert again.arrays.keys() == result.arrays.keys()
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(array, result.arrays[name], name)
    assert [row["rate"] for row in again.numbers["rows"]] == [
        row["rate"] for row in result.numbers["rows"]
    ]


def test_figures_are_drawn_from_the_saved_arrays(result, tmp_path):
    runs_result = runs.finish(runs.open_run("small", SMALL, tmp_path), result)
    again = runs.load_result(runs_result.path)
    for name, picture in cli.report_of(experiment).draw(again).items():
        saved = figures.save(picture, tmp_path, name)
        assert saved.still.stat().st_size > 10_000
        assert picture.caption


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": ("digit",)}, "digits"),
        ({"workload": ("rosenbrock",)}, "no data to sample"),
        ({"rule": ("adm",)}, "did you mean 'adam'"),
        ({"workload": ()}, "at least one"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1}, "batch_size must be at least 2, .* got batch_size=1"),
        ({"large_passes": -1}, "large_passes must be an integer of at least 0"),
        ({"batch_size": 399}, "batch_size=399, n=398"),
        ({"passes": -1}, "passes"),
        ({"seeds": "0..x"}, "x"),
        ({"tuning_seeds": "3..5"}, "disjoint"),
    ],
)
def test_bad_input_is_named_before_anything_is_trained(change, message):
    started = lambda *words: pytest.fail("it has begun")
    with pytest.raises(ValueError, match=message):
        cli.conduct(experiment, dataclasses.replace(SMALL, **change), started)
