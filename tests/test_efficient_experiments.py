"""Laws of the experiments on efficient derivatives."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

from experiments import (
    edge_of_stability,
    learn_the_penalty,
    memory_for_time,
    sparse_hessian,
    taylor_mode,
)
from research import cli, figures, runs

SMALL = {
    memory_for_time: memory_for_time.Config(
        width=64, longest=1024, timed=64, repeats=2
    ),
    learn_the_penalty: learn_the_penalty.Config(steps=60, grid=9, repeats=2),
    sparse_hessian: sparse_hessian.Config(
        rosenbrock=1000, banded=60, side=8, arrow=30, repeats=2
    ),
    taylor_mode: taylor_mode.Config(width=4, repeats=2),
    edge_of_stability: edge_of_stability.Config(steps=1600, every=160),
}


@pytest.mark.thorough("whole experiments, which compile for tens of seconds")
@pytest.mark.parametrize("experiment", SMALL)
def test_expected_numbers_hold_and_figures_are_drawn(experiment, tmp_path):
    findings = cli.conduct(experiment, SMALL[experiment], lambda *words: None)
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= findings.numbers[name] <= high, name
    result = runs.result.read_result(*runs.result.result_bytes(findings))
    report = cli.report_of(experiment)
    assert report.answer(findings)
    assert report.tables(findings)
    for name, picture in report.draw(result).items():
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 1000


@pytest.mark.thorough("the derivatives of four functions, which compile")
def test_orders_that_were_not_tried_have_no_entry():
    config = taylor_mode.Config(order=2, nested=2, width=2, repeats=1)
    result = cli.conduct(taylor_mode, config)
    rows = {row[0]: row for row in result.tables[0].rows}
    assert rows["scalar, taylor"][1] > 1
    assert rows["scalar, taylor"][2:] == ("–", "–", "–")
    assert not [row for row in result.tables[1].rows if None in row]
    assert cli.report_of(taylor_mode).draw(result)


def test_growth_of_operations_is_between_the_orders_that_the_answer_names():
    counts = {
        taylor_mode.TAYLOR: np.array([np.nan, 1, 3, np.nan, np.nan, np.nan]),
        taylor_mode.NESTED: np.array([np.nan, 2, 10, 40, 90, 250]),
    }
    arrays = {f"scalar/{way}": count for way, count in counts.items()}
    growth = [
        taylor_mode._growth(arrays, way, ["scalar"], order)
        for way, order in ((taylor_mode.TAYLOR, 2), (taylor_mode.NESTED, 5))
    ]
    numbers = {
        "functions": {},
        "growth_of_taylor": growth[0],
        "growth_of_nested": growth[1],
        "pendulum_error": 1e-15,
    }
    answer = cli.report_of(taylor_mode).answer(runs.Findings(arrays, numbers))
    assert "grow at most 3.0 times from order 1 to 2;" in answer
    assert "grow up to 25.0 times from order 2 to 5." in answer
    assert (
        "Up to order 2, the derivatives of the scalar function take 3 times" in answer
    )
    assert "and 10 times nested" in answer


def test_without_a_dense_matrix_there_is_neither_a_difference_nor_a_dot(monkeypatch):
    part = {
        "size": 9,
        "second": False,
        "colours": 3,
        "operations": 4.0,
        "dense_operations": 9.0,
        "difference": None,
        "seconds": {"sparse": (1e-3, 2.0, 1.0, 3.0)},
    }
    corner = np.eye(sparse_hessian.SHOWN)
    monkeypatch.setattr(sparse_hessian, "_examined", lambda *given: (part, corner))
    found = sparse_hessian.run(sparse_hessian.Config(dense=1))
    assert found.numbers["largest_difference"] is None
    picture = cli.report_of(sparse_hessian).draw(found)["patterns"]
    lines = picture.figure.axes[-1].lines
    assert [line.get_label() for line in lines] == ["sparse"]


def test_no_share_of_rises_is_reported_without_steps():
    # The sharpness of the large rates arrives at the last of three computations.
    rates, slow = edge_of_stability.RATES, edge_of_stability.SLOW
    arrays = {f"{rate}/ratio": np.array([0.5, 0.8, 1.01]) for rate in rates}
    arrays |= {f"{rate}/ratio": np.array([0.2, 0.3, 0.4]) for rate in slow}
    arrays |= {f"{rate}/loss": np.linspace(1, 0.5, 161) for rate in (*rates, *slow)}
    rows = [edge_of_stability._row(rate, arrays, 80) for rate in (*rates, *slow)]
    numbers = edge_of_stability._numbers(rows, 0.0)
    assert numbers["rises_after"] is None
    findings = runs.Findings(arrays, {"rows": rows, **numbers})
    report = cli.report_of(edge_of_stability)
    assert (
        "after 160 steps. Before, the loss rises in at most 0.0 % of the steps. At "
        in (report.answer(findings))
    )
    assert "rises in many steps" not in report.draw(findings)["sharpness"].caption


def test_answer_says_at_how_many_rates_the_sharpness_arrives():
    rates = (*edge_of_stability.RATES, *edge_of_stability.SLOW)
    ratios = {rate: [0.2, 0.3, 0.4] for rate in rates}
    ratios[rates[0]] = [0.5, 1.01, 1.0]
    ratios[rates[-1]] = [0.3, 1.0, 0.9]  # A small rate that arrives and goes back.
    arrays = {f"{rate}/ratio": np.array(ratio) for rate, ratio in ratios.items()}
    arrays |= {f"{rate}/loss": np.linspace(1, 0.5, 161) for rate in rates}
    rows = [edge_of_stability._row(rate, arrays, 80) for rate in rates]
    numbers = {"rows": rows, **edge_of_stability._numbers(rows, 0.0)}
    findings = runs.Findings(arrays, numbers)
    report = cli.report_of(edge_of_stability)
    answer = report.answer(findings)
    assert "It reaches 2 / η at 1 of these 3 rates, first after 80 steps. " in answer
    assert "At smaller rates the quotient ends at 0.40" in answer
    caption = report.draw(findings)["sharpness"].caption
    assert "At smaller rates (dashed) it rises later." in caption


@pytest.mark.parametrize(
    ("difference", "says"),
    [
        (None, False),
        (1e-14, True),
        (1e-3, "differs by 1.0e-03"),
        (float("nan"), "differs by nan"),
    ],
)
def test_a_sparse_matrix_that_is_wrong_is_not_said_to_be_uncompared(difference, says):
    report = cli.report_of(sparse_hessian)
    assert report._compared({"difference": difference}) == says


def test_series_of_the_pendulum_solves_its_equation():
    # θ'' = -sin θ, so θ''' = -cos θ θ' and θ'''' = sin θ θ'² + cos θ sin θ.
    angle, speed = 0.7, 0.3
    found = np.array(taylor_mode.series(jnp.array([angle, speed]), 4))[:, 0]
    sine, cosine = np.sin(angle), np.cos(angle)
    third, fourth = -cosine * speed, sine * speed**2 + cosine * sine
    truth = [angle, speed, -sine / 2, third / 6, fourth / 24]
    np.testing.assert_allclose(found, truth, rtol=1e-14)


@pytest.mark.on_ci("a network; nothing shorter shows this")
def test_loss_of_the_network_is_that_of_its_formula():
    config = edge_of_stability.Config(examples=20, width=3)
    loss, params = edge_of_stability.network_loss(config)
    data: Any = sklearn.datasets.load_digits()
    hidden = data.data[:20] / 16 - np.mean(data.data[:20] / 16, axis=0)
    for i in range(1, 4):
        layer = params[f"dense_{i}"]
        hidden = hidden @ np.asarray(layer["weights"]) + np.asarray(layer["bias"])
        hidden = np.tanh(hidden) if i < 3 else hidden
    truth = np.sum((hidden - np.eye(10)[data.target[:20]]) ** 2) / 40
    assert float(loss(params)) == pytest.approx(truth, rel=1e-13)


def test_gradient_of_the_validation_loss_has_a_closed_form():
    # Central differences of the loss of the exact weights, by NumPy alone.
    parts = learn_the_penalty.data("ridge", 0)
    theta = np.linspace(-4.0, -1.0, 10)
    (x, y), (x_valid, y_valid) = (tuple(map(np.asarray, part)) for part in parts[:2])

    def valid(theta):
        matrix = x.T @ x / len(x) + np.diag(np.exp(theta))
        w = np.linalg.solve(matrix, x.T @ y / len(x))
        return 0.5 * np.mean((x_valid @ w - y_valid) ** 2)

    found = learn_the_penalty.closed_form(parts, jnp.asarray(theta))
    for j in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[j]
        quotient = (valid(theta + step) - valid(theta - step)) / 2e-5
        assert abs(quotient - found[j]) <= 1e-9


@pytest.mark.parametrize(
    ("experiment", "changed"),
    [
        (memory_for_time, {"longest": 16}),
        (memory_for_time, {"longest": 2048}),  # Loops of 4,096 steps would be measured.
        (memory_for_time, {"width": 63}),
        (memory_for_time, {"width": 64, "longest": 4**8}),
        (learn_the_penalty, {"steps": 0}),
        (sparse_hessian, {"side": 2}),
        (taylor_mode, {"order": 1}),
        (edge_of_stability, {"every": 3}),
        (edge_of_stability, {"examples": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(experiment, changed):
    with pytest.raises(ValueError, match=next(iter(changed))):
        experiment.run(experiment.Config(**changed))


@pytest.mark.parametrize("experiment", SMALL)
def test_recorded_numbers_are_as_expected(experiment):
    name = experiment.__name__.rpartition(".")[2]
    file = Path(experiment.__file__).parent / "reference" / f"{name}.json"
    recorded = json.loads(file.read_text("utf-8"))["numbers"]
    for key, (low, high) in experiment.EXPECTED.items():
        assert low <= recorded[key] <= high, key
