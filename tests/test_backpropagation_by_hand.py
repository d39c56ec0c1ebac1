"""The experiment of the backward pass by hand: a small run, held against NumPy and
against a gradient that is wrong.
"""

import dataclasses
import re

import jax
import numpy as np
import pytest

from experiments import backpropagation_by_hand as experiment
from research import cli, figures, models, runs, tuning
from research.runs.result import result_bytes

COMPILE_QUICKLY = True  # tests/conftest.py

# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "result": "a small run from end to end; test_small_experiments.py has whole runs"
}


@pytest.fixture(scope="module")
def result():
    return cli.conduct(experiment, experiment.FAST)


def test_expected_numbers_of_the_comparison_hold_in_a_small_run(result):
    for name in ("largest_difference", "largest_share_of_bound"):
        low, high = experiment.EXPECTED[name]
        assert low <= result.numbers[name] <= high, name
    assert 1e-13 < result.numbers["difference_error"] < 1e-7
    assert result.answer.startswith("Yes: in 2 gradients in float64")
    assert re.search(
        r"On average over the networks, [0-9]+ % of the entries are", result.answer
    )


def test_naive_baseline_is_the_first_row_of_each_net(result):
    table = result.tables[0]
    assert [row[1] for row in table.rows] == list(experiment.WAYS)
    assert table.rows[0][2] > 1e3 * table.rows[1][2]
    assert np.isfinite(result.arrays["2-3-1/seconds"]).all()
    assert result.arrays["2-3-1/seconds"].shape == (experiment.FAST.repeats, 3)


def test_example_of_the_figure_is_what_numpy_gives(result):
    a = {
        key.partition("/")[2]: value
        for key, value in result.arrays.items()
        if key.startswith("example/")
    }
    h = np.tanh(a["x"] @ a["w1"] + a["b1"])
    z = h @ a["w2"] + a["b2"]
    delta2 = 1 / (1 + np.exp(-z)) - 1
    delta1 = (a["w2"] @ delta2) * (1 - h**2)
    expected = {
        "h1": h,
        "z2": z,
        "f": np.log(1 + np.exp(-z[0])),
        "delta2": delta2,
        "delta1": delta1,
    }
    expected |= {
        "delta0": a["w1"] @ delta1,
        "dw1": np.outer(a["x"], delta1),
        "dw2": np.outer(h, delta2),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(a[key], value, rtol=1e-13, err_msg=key)


@pytest.mark.thorough(
    "a run of the experiment; models/test_mlp.py holds the backward pass against jax"
)
def test_wrong_backward_pass_is_told(monkeypatch):
    # 1 - h instead of 1 - h², in one activation.
    wrong = models.ACTIVATION_DERIVATIVES | {
        "tanh": lambda z: 1 - models.ACTIVATIONS["tanh"](z)
    }
    monkeypatch.setattr("research.models.backward.ACTIVATION_DERIVATIVES", wrong)
    config = dataclasses.replace(experiment.FAST, seeds=1, probes=1, repeats=1)
    # Else the right one, as traced before, is called; and after this the wrong one.
    jax.clear_caches()
    found = cli.conduct(experiment, config)
    jax.clear_caches()
    assert found.answer.startswith("No: ")
    assert found.numbers["largest_share_of_bound"] > 1e6


def test_pictures_show_every_net_and_the_result_can_be_saved(result):
    pictures = cli.report_of(experiment).draw(result)
    assert set(pictures) == {"chain", "measured"}
    assert all(isinstance(picture, figures.Picture) for picture in pictures.values())
    labels = [
        text.get_text()
        for text in pictures["measured"].figure.axes[0].get_yticklabels()
    ]
    assert labels == list(experiment.FAST.nets)
    weights = [text.get_text() for text in pictures["chain"].figure.axes[0].texts]
    assert {"0.50", "-0.40", "0.70"} <= set(weights)
    assert runs.result.read_result(*result_bytes(result)).numbers == result.numbers


def test_calls_are_timed_interleaved():
    order = []
    calls = [lambda name=name: order.append(name) for name in "ab"]
    seconds = tuning.interleaved_timing(calls, 2)
    assert seconds.shape == (2, 2)
    assert (seconds > 0).all()
    turns = "".join(
        name
        for name, before in zip(order, ["", *order], strict=False)
        if name != before
    )
    assert turns == "ababa"  # Both to choose the number of calls, then a b, then b a.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nets": ("3-3",)}, "nets must be some of 2-3-1"),
        ({"activations": ()}, "activations must be some of identity"),
        ({"nets": ("2-3-1", "2-3-1")}, "nets must name '2-3-1' only once"),
        ({"activations": ("tanh", "tanh")}, "activations must name 'tanh' only once"),
        ({"repeats": 0}, "repeats must be a positive integer"),
    ],
)
def test_wrong_config_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        cli.conduct(experiment, dataclasses.replace(experiment.FAST, **change))
