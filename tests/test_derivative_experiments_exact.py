"""Laws of the experiments on exact derivatives: their expected numbers hold, and what
they say is right by another way.
"""

import dataclasses
import re

import numpy as np
import pytest

from experiments import (
    cheap_gradient,
    critical_points,
    derivative_rules,
    partial_and_total,
)
from research import cli, figures, runs

COMPILE_QUICKLY = True  # tests/conftest.py

EXPERIMENTS = (derivative_rules, partial_and_total, critical_points, cheap_gradient)
# Cut down where sizes set the seconds, not what is expected.
CONFIGS = {cheap_gradient: cheap_gradient.Config(size=100, largest=64, seconds=0.0)}
CONFIGS |= {derivative_rules: derivative_rules.Config(points=16, evaluated=1)}


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "results": "whole runs of the experiments; tests/derivatives has their laws"
}


PROGRESS = {experiment: [] for experiment in EXPERIMENTS}


@pytest.fixture(scope="module")
def results():
    def noted(experiment):
        return lambda done, total, name: PROGRESS[experiment].append(
            (done, total, name)
        )

    class Results(dict):  # Each is computed when a test first asks for it.
        def __missing__(self, e):
            self[e] = cli.conduct(e, CONFIGS.get(e, e.Config()), noted(e))
            return self[e]

    return Results()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_expected_numbers_hold(experiment, results):
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= results[experiment].numbers[name] <= high, name


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_figures_are_drawn_from_what_was_saved(experiment, results, tmp_path):
    result = runs.result.read_result(*runs.result.result_bytes(results[experiment]))
    for name, picture in cli.report_of(experiment).draw(result).items():
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 1000
        assert len(picture.caption) > 100


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_nothing_is_said_to_be_not_reached_where_there_is_no_target(
    experiment, results
):
    """A table writes None as "not reached"; the order that decides nothing is
    "none".
    """
    assert not [
        row for table in results[experiment].tables for row in table.rows if None in row
    ]


def test_rules_are_all_in_the_table(results):
    from research.derivatives.rules import DERIVATIVE_RULES

    rows = results[derivative_rules].tables[0].rows
    assert [row[0] for row in rows] == list(DERIVATIVE_RULES)
    assert results[derivative_rules].arrays["disagreement"].shape == (len(rows), 4)


def test_wrong_rule_is_seen_by_all_four(monkeypatch):
    from research.derivatives.rules import DERIVATIVE_RULES

    wrong = DERIVATIVE_RULES["product"]._replace(
        derivative=DERIVATIVE_RULES["sum"].derivative
    )
    monkeypatch.setitem(DERIVATIVE_RULES, "product", wrong)
    found = derivative_rules.disagreements(
        "product", wrong, derivative_rules.Config(points=8)
    )
    assert min(found.values()) > 1e-3


def test_paths_sum_to_the_slope_of_the_profit_that_is_measured(results):
    numbers, arrays = (
        results[partial_and_total].numbers,
        results[partial_and_total].arrays,
    )
    assert sum(numbers["paths"].values()) == pytest.approx(numbers["total"], rel=1e-12)
    parts = arrays["direct"] + arrays["via demand"] + arrays["via cost"]
    np.testing.assert_allclose(parts, arrays["total"], rtol=1e-12, atol=1e-10)
    # The profit by itself, in NumPy: the slope is demand · (1 - (p - c) / s).
    demand = 1000 * np.exp(-arrays["price"] / 10)
    np.testing.assert_allclose(
        arrays["profit"],
        arrays["price"] * demand - 500 - 4 * demand,
        rtol=1e-12,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        arrays["total"],
        demand * (1 - (arrays["price"] - 4) / 10),
        rtol=1e-11,
        atol=1e-9,
    )
    assert arrays["profit"].max() <= numbers["profit_at_best"]


def test_points_that_newtons_method_misses_are_said_to_be_missed():
    report = cli.report_of(critical_points)
    numbers = {
        "landscapes": {"himmelblau": {"starts": 4}},
        "himmelblau_found": 9,
        "camel_found": 10,
    }
    assert report.how_many(numbers).startswith("There are 9 and 15. From 4 starts, ")
    found = report.how_many(numbers | {"camel_found": 15})
    assert found.endswith("Newton's method finds them from 4 starts.")


@pytest.mark.parametrize(
    ("off", "says"),
    [
        (1e-15, "Yes, all 1: "),
        (0.1, "Not within 1e-14: "),
        (float("nan"), "Not within 1e-14: "),
    ],
)
def test_rules_hold_only_if_jax_agrees_to_rounding(off, says):
    rules = {"product": dict.fromkeys(derivative_rules.WAYS, off)}
    numbers = {"disagreement_with_jax": off, "disagreement_with_values": off}
    findings = runs.Findings({}, {"rules": rules, **numbers})
    answer = cli.report_of(derivative_rules).answer(findings)
    assert answer.startswith(says)
    assert ("which is rounding" in answer) == says.startswith("Yes")


def test_critical_points_have_no_slope_and_minima_lie_below_their_neighbours(results):
    random = np.random.default_rng(0)
    for name, f in (
        ("himmelblau", critical_points.himmelblau),
        ("camel", critical_points.camel),
    ):
        for point in results[critical_points].numbers["landscapes"][name]["points"]:
            x = np.array(point["x"])
            around = f(x[:, None] + 1e-3 * random.normal(size=(2, 200))) - f(x)
            above = {"minimum": 200, "maximum": 0}.get(point["kind"])
            assert (
                (around > 0).sum() == above
                if above is not None
                else 0 < (around > 0).sum() < 200
            )


def test_descents_end_at_what_is_called_a_minimum(results):
    for name in ("himmelblau", "camel"):
        part = results[critical_points].numbers["landscapes"][name]
        minima = np.array([p["x"] for p in part["points"] if p["kind"] == "minimum"])
        ends = results[critical_points].arrays[f"{name}/ends"]
        assert np.linalg.norm(ends[:, None] - minima, axis=2).min(axis=1).max() < 1e-6


def test_forward_mode_costs_as_many_times_as_there_are_inputs(results):
    arrays = results[cheap_gradient].arrays
    np.testing.assert_allclose(arrays["forward"] / arrays["n"], 1, atol=1.5)
    assert arrays["reverse"].max() / arrays["reverse"].min() < 1.6


def test_exceptions_are_told_and_no_other_function_is_above_the_bound(results):
    numbers = results[cheap_gradient].numbers
    above = {name for name, found in numbers["functions"].items() if found["ratio"] > 5}
    assert above == set(cheap_gradient.EXCEPTIONS)
    assert all(
        name in results[cheap_gradient].answer for name in cheap_gradient.EXCEPTIONS
    )


def test_only_functions_above_the_bound_are_said_to_be_above_it():
    functions = {
        name: {
            "operations": 10.0,
            "ratio": ratio,
            "hessian_vector_ratio": 6.0,
            "ratio_of_seconds": float("nan"),
            "function_seconds": float("nan"),
        }
        for name, ratio in {
            **dict.fromkeys(cheap_gradient.EXCEPTIONS, 4.5),
            "sort": 5.5,
            "attention": 3.0,
        }.items()
    }
    numbers = {
        "functions": functions,
        "largest_ratio": 5.5,
        "dearest": "sort",
        "largest": 4,
        "ratio_at_any_n": 2.0,
        "forward_at_largest": 5.0,
    }
    report = cli.report_of(cheap_gradient)
    answer = report.answer(runs.Findings({}, numbers))
    assert "exceed the theoretical bound of 5 for: sort 5.5." in answer
    assert "nan" not in answer  # No program was timed.
    assert report.table(numbers).note.endswith("Above the bound of 5: sort.")


@pytest.mark.parametrize(
    ("experiment", "field", "value"),
    [
        (derivative_rules, "evaluated", 65),
        (partial_and_total, "willingness", 0.0),
        (partial_and_total, "graphs", 0),
        (partial_and_total, "price", 1e300),
        (partial_and_total, "fixed_cost", -1e300),
        (critical_points, "starts", 0),
        (critical_points, "learning_rate", float("inf")),
        (cheap_gradient, "size", 3),
        (cheap_gradient, "seconds", -1.0),
        (cheap_gradient, "seconds", 1e300),
    ],
)
def test_bad_config_names_its_field_and_value(experiment, field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value}")):
        cli.conduct(
            experiment, dataclasses.replace(experiment.Config(), **{field: value})
        )


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_progress_rises_to_its_total(experiment, results):
    seen = PROGRESS[experiment]
    assert results[experiment].answer
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][0] == seen[-1][1]
