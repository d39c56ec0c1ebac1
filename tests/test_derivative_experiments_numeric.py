"""Laws of the experiments on numerical derivatives: what they say at default size
holds, and of others what is theirs.
"""

import dataclasses
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from experiments import finite_difference_step, honest_errors, motion
from research import cli, figures
from research.derivatives.problems import DEVELOPMENT, HELD_OUT, random_functions
from research.runs.result import result_bytes

COMPILE_QUICKLY = True  # tests/conftest.py

MPMATH = {
    name: getattr(mpmath, name)
    for name in ("exp", "log", "log1p", "sin", "cos", "sinh", "cosh", "tanh", "sqrt")
}
MPMATH |= {"atan": mpmath.atan, "erf": mpmath.erf}
EXPERIMENTS = (finite_difference_step, honest_errors, motion)


THOROUGH = {
    "results": "whole runs of the experiments; tests/derivatives has their laws"
}


@pytest.fixture(scope="module")
def results():
    configs = {experiment: experiment.Config() for experiment in EXPERIMENTS}
    configs[honest_errors] = honest_errors.Config(
        per_class=120
    )  # By class: derivatives/test_finite_difference.

    class Results(dict):  # Each is computed when a test first asks for it.
        def __missing__(self, experiment):
            self[experiment] = cli.conduct(experiment, configs[experiment])
            return self[experiment]

    return Results()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_expected_numbers_hold(experiment, results):
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= results[experiment].numbers[name] <= high, name


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_results_are_saved_and_figures_have_captions_with_numbers(
    experiment, results, tmp_path
):
    assert all(result_bytes(results[experiment]))
    assert re.search(r"\d", results[experiment].answer)
    for name, picture in cli.report_of(experiment).draw(results[experiment]).items():
        assert re.search(r"\d", picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 0


def test_slope_of_squire_and_trapps_function_is_jaxs():
    f = lambda x: jnp.exp(x) / jnp.sqrt(jnp.sin(x) ** 3 + jnp.cos(x) ** 3)
    for x in (0.2, 1.0, 1.5, 1.9):
        assert finite_difference_step.slope(x) == pytest.approx(
            float(jax.grad(f)(x)), rel=1e-13
        )


def test_table_of_calls_says_what_numpy_gives(results):
    calls = {row[0]: row[1] for row in results[finite_difference_step].tables[1].rows}
    assert calls["np.gradient(f(3.0), 3.0)"] == "()"
    assert calls["3.0 - 0.1 * np.array(np.gradient(f(3.0), 3.0))"] == "[]"
    assert calls["np.gradient(xs**2, xs)"] == "[3. 4. 6. 7.]"
    assert calls["grid_derivative(xs**2, xs)"] == "[2. 4. 6. 8.]"
    assert calls["grid_derivative(f(3.0), 3.0)"] == "GridTooSmallError"


def test_scores_are_those_of_known_claims():
    # value, claim, answered, evaluations: right and bounded, broken, abstaining; then
    # two without a derivative.
    truth = np.array([1.0, 1.0, 1.0, np.nan, np.nan])
    found = np.array(
        [
            [1.001, 0.01, 1, 10],
            [1.05, 0.01, 1, 20],
            [9, 9, 0, 30],
            [0, 0, 1, 40],
            [0, 0.5, 1, 50],
        ],
        float,
    )
    scores = honest_errors.score(truth, found)
    assert scores["coverage"] == 0.5
    assert scores["off_tenfold"] == 0.0
    assert scores["answered"] == pytest.approx(2 / 3)
    assert scores["false_answers"] == 1
    assert scores["sharpness"] == pytest.approx((10 + 0.2) / 2)
    assert scores["evaluations"] == 30
    found[1, 0] = 1.2
    assert honest_errors.score(truth, found)["off_tenfold"] == 0.5


def test_scores_without_any_answer_are_empty_and_not_zero():
    scores = honest_errors.score(
        np.ones(2), np.array([[np.nan, np.inf, 0, 1], [np.nan, np.inf, 0, 1]])
    )
    assert scores["coverage"] is None
    assert scores["sharpness"] is None
    assert scores["answered"] == 0


def test_wrong_answers_to_random_functions_are_counted_on_both_sides_of_a_kink():
    cases = [
        random_functions.Case("abs(x)", 0.0, "kink", [0, -1.0], [0, 1.0]),
        random_functions.Case("abs(x)", 0.0, "kink", [0, -1.0], [0, 1.0]),
        random_functions.Case("x", 0.0, "smooth", [0, 1.0], [0, 1.0]),
        random_functions.Case("x", 0.0, "smooth", [0, 1.0], [0, 1.0]),
    ]
    # A claim that half the gap exceeds, one that it does not; one that holds, and one
    # that is given as no answer.
    found = np.array(
        [[0, 0.5, 1, 9], [0, 1.0, 1, 9], [1.25, 1.0, 1, 9], [9, 0.1, 0, 9]]
    )
    judged = honest_errors.judged(cases, found, 1)
    assert judged == {"functions": 4, "wrong": 1, "answered": 0.75, "sharpness": 4.0}


def test_series_of_both_sides_are_mpmaths_derivatives():
    for kind in ("smooth", "cancellation"):
        for case in random_functions.random_cases(kind, 20, 5):
            f = eval("lambda x: " + case.expression, MPMATH)
            with mpmath.workdps(80):
                truth = [
                    float(
                        mpmath.diff(
                            f, mpmath.mpf(case.x), order, h=mpmath.mpf(10) ** -14
                        )
                    )
                    for order in (1, 2)
                ]
            assert case.left[1:3] == case.right[1:3] == pytest.approx(truth, rel=1e-11)


@pytest.mark.parametrize(
    ("coverage", "false_answers", "wrong", "says"),
    [
        (1.0, 0, [0, 0], "Yes, for finite_difference."),
        (0.9, 0, [0, 0], "Not always."),
        (1.0, 1, [], "Not always."),
        (
            1.0,
            0,
            [1, 3],
            "Not always: finite_difference gives a wrong answer to 3 of 2,000 random "
            "functions of its worst class (kink, order 2).",
        ),
    ],
)
def test_the_headline_names_the_class_with_most_wrong_answers(
    coverage, false_answers, wrong, says
):
    rows = [
        {
            "class": "kink",
            "order": order,
            "package": package,
            "functions": 2000,
            "wrong": count if package == "finite_difference" else 999,
        }
        for order, count in enumerate(wrong, 1)
        for package in ("finite_difference", "jacobi")
    ]
    numbers = {"coverage": coverage, "false_answers": false_answers, "random": rows}
    assert cli.report_of(honest_errors).verdict(numbers) == says


def test_fault_of_reading_a_reply_stops_and_an_error_of_the_package_is_no_answer():
    def fails(f, x, order):
        raise ValueError("no convergence")

    broken = honest_errors.Package(
        lambda f, x, order: (1.0, 2.0, 3.0), lambda reply: reply.estimate
    )
    with pytest.raises(AttributeError):
        honest_errors.ask_one(broken, np.exp, 1.0)
    value, claim, says, _ = honest_errors.ask_one(
        honest_errors.Package(fails, lambda reply: reply), np.exp, 1.0
    )
    assert math.isnan(value)
    assert claim == math.inf
    assert not says


def test_both_replies_of_numdifftools_are_read():
    new = SimpleNamespace(estimate=2.0, error_estimate=0.1)
    reply = type("Reply", (tuple,), {"error_estimate": 0.1})((2.0, 0.1, 0.01, 3))
    assert honest_errors.read_numdifftools(reply) == (2.0, 0.1, True)
    assert honest_errors.read_numdifftools((2.0, new)) == (2.0, 0.1, True)


@pytest.mark.parametrize("name", honest_errors.installed())
def test_every_package_that_is_there_differentiates_the_exponential(name):
    # One that answers nothing is asked or read wrongly.
    value, claim, says, evaluations = honest_errors.ask_one(
        honest_errors.installed()[name], np.exp, 1.0
    )
    assert says
    assert value == pytest.approx(math.e, rel=1e-8)
    assert 0 <= claim < 1e-6
    assert evaluations > 2


@pytest.mark.thorough(
    "a run of honest_errors; its parts are tested here, its law in tests/derivatives"
)
def test_packages_that_are_missing_stand_in_the_table_with_the_way_to_get_them(
    monkeypatch,
):
    monkeypatch.setattr(honest_errors, "peer", lambda name: None)
    result = cli.conduct(
        honest_errors, honest_errors.Config("development", per_class=2)
    )
    names = [row[0] for row in result.tables[0].rows]
    assert any(name.startswith("jacobi: not installed, pip install") for name in names)
    assert "Not installed" in result.answer
    assert "other packages" not in result.answer
    assert list(result.numbers["scores"]) == [honest_errors.OURS]
    assert cli.report_of(honest_errors).draw(result)


def test_halves_are_those_of_the_problems():
    assert honest_errors.halves("held out") is HELD_OUT
    assert honest_errors.halves("development") is DEVELOPMENT


@pytest.mark.thorough("the other orders", but=r"^2\]")
@pytest.mark.on_ci(
    "test_predicted_truncation_is_the_error_without_noise uses both derivatives, "
    "with wider bounds"
)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_motion_is_differentiated_by_its_exponent(order):
    t = np.linspace(0.5, 4, 6)
    position = lambda time: jnp.exp(-time / 4) * jnp.cos(2 * time)
    derivative = position
    for _ in range(order):
        derivative = jax.grad(derivative)
    np.testing.assert_allclose(
        motion.motion(t, order), jax.vmap(derivative)(t), rtol=1e-12, atol=1e-13
    )


@pytest.mark.on_ci("the other formulas", but="1-2|2-4")
@pytest.mark.parametrize(("order", "accuracy"), motion.FORMULAS)
def test_predicted_noise_is_what_pure_noise_becomes(order, accuracy):
    config, rng = motion.Config(), np.random.default_rng(1)
    t = config.spacing * np.arange(40_001)
    y = config.noise * rng.normal(size=len(t))
    for stride in (1, 7):
        _, values = motion.differentiated(t, y, stride, order, accuracy)
        noise, _ = motion.prediction(
            config, t, np.array([stride * config.spacing]), order, accuracy
        )
        assert np.std(values) == pytest.approx(noise[0], rel=0.04)


@pytest.mark.parametrize(("order", "accuracy"), motion.FORMULAS)
def test_predicted_truncation_is_the_error_without_noise(order, accuracy):
    config = motion.Config()
    t = config.spacing * np.arange(10_001)
    truncation = motion.prediction(config, t, np.array([0.05]), order, accuracy)[1][0]
    assert motion.error(t, motion.motion(t), 50, order, accuracy) == pytest.approx(
        truncation, rel=0.15
    )


@pytest.mark.on_ci(
    "two runs of motion, with their pictures; nothing shorter shows this"
)
@pytest.mark.parametrize("noise", [1e-4, 1e-8])
def test_every_measured_error_lies_inside_the_axes(noise):
    config = motion.Config(seconds=4.0, spacing=0.02, noise=noise)
    found = motion.run(config)
    figure = cli.report_of(motion).draw(found)["noise"].figure
    for axes in figure.axes:
        low, high = axes.get_ylim()
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(dots) == 2
        for line in dots:
            assert all(low < y < high for y in line.get_ydata())


def test_every_sample_away_from_the_ends_gets_one_derivative():
    t = 0.01 * np.arange(500)
    places, _ = motion.differentiated(t, t**2, 4, 1, 2)
    np.testing.assert_array_equal(places, np.arange(12, 488))


@pytest.mark.thorough(
    "three runs of motion; test_trajectory.py has the law of the same bytes"
)
def test_same_seed_gives_the_same_arrays_and_another_other_ones():
    runs = [
        cli.conduct(motion, motion.Config(seconds=2.0, seed=seed)).arrays
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0]["positions"], runs[1]["positions"])
    assert (runs[0]["positions"] != runs[2]["positions"]).any()


@pytest.mark.parametrize(
    ("experiment", "field", "value"),
    [
        (finite_difference_step, "x", 2.5),
        (finite_difference_step, "samples", 4),
        (honest_errors, "half", "best"),
        (honest_errors, "per_class", -1),
        (honest_errors, "seed", -1),
        (motion, "noise", -1.0),
        (motion, "seconds", float("nan")),
        (motion, "spacing", 1.0),
        (motion, "spacing", 1e-9),
        (motion, "noise", 2.0),
        (motion, "noise", 1e-300),
    ],
)
def test_bad_config_names_its_field_and_value(experiment, field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value!r}")):
        cli.conduct(
            experiment, dataclasses.replace(experiment.Config(), **{field: value})
        )
