"""The batch-size experiment: counts of steps held against closed forms, and a small run
from end to end.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import batch_size as experiment
from research import cli, figures, losses, models, objectives, runs, workloads
from research.runs.result import result_bytes
from research.types import Batch, Optimum, Saved, Workload

COMPILE_QUICKLY = True  # tests/conftest.py

TINY = experiment.Config(
    batch_sizes=(4, 32),
    large_batch_sizes=(16, 128),
    large_examples=2_000,
    seeds="0..3",
    most_steps=2_048,
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
    return cli.conduct(experiment, TINY)


def equal_rows(n):
    """Squared errors on n copies of one row: no batch has noise, and |x|² + 1 = 2 is
    the only curvature.
    """
    model = models.linear(1, scale=1.0, dtype="float64")
    train = Batch(jnp.ones((n, 1)), jnp.zeros(n))
    best = Optimum(
        {"weights": jnp.zeros(1), "intercept": jnp.zeros(())}, 0.0, 0.0, 1.0, "by hand"
    )
    objective: Callable[..., jax.Array] = objectives.empirical_risk(
        model, losses.squared_error
    )
    return Workload(
        "equal", train, None, None, model.init, objective, None, "", model, best
    )


def steps_taken(workload, size, seeds, rates, patience=np.inf):
    train = experiment.compile_program(
        workload, workload.train, size, 1e-2, 1_024, width=8
    )
    return train(seeds, rates, patience)[0]


@pytest.mark.thorough("the other sizes", but="3")
@pytest.mark.parametrize("size", [1, 3, 6])
def test_steps_without_noise_are_those_of_the_closed_form_for_every_batch(size):
    rates = np.array([0.01, 0.03125, 0.125, 0.25])
    # The gap falls by (1 - 2η)² a step, so that the target is reached after log(target)
    # / log of that.
    exact = np.log(1e-2) / np.log((1 - 2 * rates) ** 2)
    grid = experiment.evaluation_steps(1_024)
    expected = grid[np.searchsorted(grid, exact)]
    assert (
        steps_taken(equal_rows(6), size, range(4), rates).tolist() == expected.tolist()
    )


@pytest.mark.thorough("a sweep of this experiment; test_sweep.py has the law")
def test_steps_do_not_depend_on_the_lanes_beside():
    workload = workloads.make_workload("breast_cancer", holdout=False)
    alone = steps_taken(workload, 4, [5], [0.25])
    together = steps_taken(workload, 4, [1, 5, 2, 3], [1.0, 0.25, 1e-6, 0.5])
    assert np.isinf(together[2])
    assert together[1] == alone[0]


def test_patience_gives_up_what_takes_many_times_as_long():
    taken = steps_taken(equal_rows(6), 6, [0, 1], [0.25, 0.01], patience=4.0)
    assert np.isfinite(taken[0])
    assert np.isinf(taken[1])


@pytest.mark.on_ci("a whole measurement; nothing shorter shows this")
def test_rates_that_are_too_slow_are_not_taken_for_diverged_ones():
    # One step multiplies the gap by (1 - 2η)², so only η = 1/2 reaches the target.
    config = dataclasses.replace(TINY, most_steps=1)
    workload = equal_rows(6)
    measured = experiment.measure(
        workload, workload.train, 6, 2.0**-6, [0, 1], [100, 101], config
    )
    assert (measured.values["rate"], measured.values["reached"]) == (0.5, 2)


@pytest.mark.on_ci("a run with made-up trainings; nothing shorter shows this")
def test_a_size_that_misses_the_target_does_not_change_the_later_ones(monkeypatch):
    starts, best = {}, equal_rows(6).optimum.params

    def measured(workload, probe, size, rate, seeds, *_):
        starts[size] = rate
        steps = None if size == 3 else 4.0
        row = {"batch_size": size, "rate": 1.0 / size, "steps": [steps] * 3}
        leaves = [np.stack([leaf] * len(seeds)) for leaf in jax.tree.leaves(best)]
        arrays = {f"params/{i}": leaf for i, leaf in enumerate(leaves)}
        taken = np.full(len(seeds), np.inf if steps is None else steps)
        return Saved({"steps": taken} | arrays, row | {"seconds": steps})

    monkeypatch.setattr(experiment, "measure", measured)
    monkeypatch.setattr(experiment, "noise_scale", lambda *_: 1.0)
    monkeypatch.setattr(experiment, "plan", lambda _: [(equal_rows(6), [2, 3, 4, 6])])
    experiment.run(TINY)
    assert starts == {2: experiment.FIRST_RATE, 3: 0.5, 4: 0.5, 6: 0.25}


def test_evaluation_steps_are_all_early_steps_then_eight_for_each_doubling():
    steps = experiment.evaluation_steps(1_000)
    assert steps[:12].tolist() == list(range(12))
    assert steps[-1] == 1_000
    assert np.all(np.diff(steps) > 0)
    assert (
        np.max(steps[1:] / (steps[:-1] + 1)) < 1.09
    )  # Reached just after one evaluation, seen at the next.


def assert_gap(workload, params, probe, tolerance):
    gap = float(workload.objective(params, workload.train)) - workload.optimum.value
    estimate = jax.jit(
        lambda params, probe: experiment.gap_on(workload, params, probe)
    )(params, probe)
    assert float(estimate) == pytest.approx(gap, rel=tolerance)


@pytest.mark.thorough(
    "test_steps_without_noise_are_those_of_the_closed_form_for_every_batch counts the "
    "steps until that gap"
)
def test_gap_on_the_whole_set_is_the_difference_from_the_optimum():
    workload = workloads.make_workload("breast_cancer", holdout=False)
    for seed in range(3):
        assert_gap(workload, workload.init(jax.random.key(seed)), workload.train, 1e-10)


@pytest.mark.on_ci("20,000 examples; nothing shorter shows this")
def test_gap_on_the_probe_is_the_gap_to_a_few_percent_near_and_far(monkeypatch):
    workload = workloads.make_workload("overlapping_50k", n=20_000, holdout=False)
    monkeypatch.setattr(experiment, "PROBE", 4_096)
    probe = experiment.make_probe(workload.train)
    assert jax.tree.leaves(probe)[1].shape == (4_096,)
    assert workload.optimum is not None
    start, best = workload.init(jax.random.key(0)), workload.optimum.params
    for share in (1.0, 0.1, 0.01):
        params = jax.tree.map(lambda x, b, s=share: b + s * (x - b), start, best)
        assert_gap(workload, params, probe, 0.05)


def test_the_law_is_found_and_one_lucky_size_hardly_moves_it():
    sizes = 2.0 ** np.arange(21)
    exact = 3_000 * (1 + sizes / 700)
    law = experiment.fit_law(sizes, exact)
    assert law == pytest.approx((3_000, 700), rel=1e-6)
    assert law.examples(700) == pytest.approx(6_000, rel=1e-6)
    # The least of all sizes would be 40 % lower.
    lucky = np.where(sizes == 2, 0.6 * exact, exact)
    assert experiment.fit_law(sizes, lucky) == pytest.approx(law, rel=0.08)


def test_a_rate_at_the_edge_of_the_rates_tried_is_said():
    rows = [
        {"batch_size": size, "rate_at_edge": at_edge}
        for size, at_edge in ((8, False), (4_096, True))
    ]
    said = cli.report_of(experiment).rates_at_edges
    assert said({"curves": [{"workload": "w", "rows": rows}]}).endswith(
        "for these batches: 4,096 on w."
    )
    assert said({"curves": [{"workload": "w", "rows": rows[:1]}]}) == ""


def test_noise_scale_is_that_of_gradients_known_by_hand():
    # Intercept gradients -1 and 3 at the origin: mean 1, variance 4.
    workload = equal_rows(2)._replace(
        train=Batch(jnp.zeros((2, 1)), jnp.array([1.0, -3.0]))
    )
    origin = {"weights": jnp.zeros(1), "intercept": jnp.zeros(())}
    assert experiment.noise_scale(workload, workload.train, [origin]) == pytest.approx(
        4.0
    )


def test_run_answers_and_draws(result, tmp_path):
    assert [c["n"] for c in result.numbers["curves"]] == [569, 2_000]
    assert [[r["batch_size"] for r in c["rows"]] for c in result.numbers["curves"]] == [
        [4, 32, 569],
        [16, 128, 2_000],
    ]
    assert all(
        r["reached"] == r["seeds"] == 4
        for c in result.numbers["curves"]
        for r in c["rows"]
    )
    assert "569" in result.answer
    assert "2,000" in result.answer
    assert result_bytes(result) == result_bytes(result)
    for name, picture in cli.report_of(experiment).draw(result).items():
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 10_000


def test_run_finds_the_expected_number(result):
    low, high = experiment.EXPECTED["examples_over_law"]
    assert all(low <= ratio <= high for ratio in result.numbers["examples_over_law"])


def test_same_config_gives_the_same_bytes_with_or_without_the_large_set(result):
    again = cli.conduct(experiment, dataclasses.replace(TINY, large_examples=0)).arrays
    assert again.keys() == {"breast_cancer/batch_sizes", "breast_cancer/steps"}
    assert all(
        runs.hash_arrays(again[name]) == runs.hash_arrays(result.arrays[name])
        for name in again
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_sizes": ()}, r"batch_sizes must be positive.*\(\)"),
        ({"batch_sizes": (0, 2)}, "batch_sizes must be positive"),
        ({"batch_sizes": (8, 569)}, r"at least 2 batch sizes below its 569.*got \[8\]"),
        (
            {"large_batch_sizes": (4, 2)},
            "large_batch_sizes must be positive integers, ascending",
        ),
        ({"target": 1.0}, "target must be a share"),
        ({"most_steps": 0}, "most_steps must be at least 1"),
        ({"large_examples": -1}, "large_examples must be at least 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"tuning_seeds": "3..4"}, "must be disjoint"),
    ],
)
def test_bad_config_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        cli.conduct(experiment, dataclasses.replace(TINY, **change))


@pytest.mark.on_ci("a run of the experiment; nothing shorter shows this")
def test_target_out_of_reach_is_said():
    config = dataclasses.replace(
        TINY, batch_sizes=(8, 64), large_examples=0, most_steps=1, target=1e-6
    )
    with pytest.raises(ValueError, match="Increase most_steps"):
        cli.conduct(experiment, config)
