"""Laws of the trajectory experiment: its minima are minima, its paths are the rules',
and what it says of steps is so.
"""

import dataclasses
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import trajectory
from research import cli, figures, runs

COMPILE_QUICKLY = True  # tests/conftest.py

SMALL = trajectory.Config(rule=("gradient_descent",), steps=20, rates=3)


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {"result": "the default size; make test has short runs, below"}


@pytest.fixture(scope="module")
def result():
    return cli.conduct(trajectory, trajectory.Config())


@pytest.fixture(scope="module")
def small():
    return cli.conduct(trajectory, dataclasses.replace(SMALL, landscape="saddle"))


def test_expected_numbers_hold_at_default_size(result):
    for name, (low, high) in trajectory.EXPECTED.items():
        assert low <= result.numbers[name] <= high, name


@pytest.mark.on_ci(
    "a short run, which two tests below share; nothing shorter has such a table"
)
def test_only_steps_to_the_target_are_not_reached(small):
    """What is not finite and a cosine that there is not are no targets."""
    nothing = dict.fromkeys(("gap", "distance", "steps", "cosine", "longest_update"))
    numbers = small.numbers | {
        "rules": {"adam": small.numbers["rules"]["gradient_descent"] | nothing}
    }
    (row,) = cli.report_of(trajectory).table(numbers).rows
    assert row[2:7] == ("not finite", "not finite", None, "–", "not finite")


@pytest.mark.on_ci("the quadratic, whose curvatures the next test has", but="saddle")
@pytest.mark.thorough("the other functions", but=r"^(quadratic|saddle)\]")
@pytest.mark.parametrize("name", trajectory.LANDSCAPES)
def test_minima_are_minima_and_the_lowest(name):
    scene = trajectory.LANDSCAPES[name]
    for minimum in scene.minima:
        x = jnp.array(minimum)
        curvatures = np.linalg.eigvalsh(jax.hessian(scene.f)(x))
        assert curvatures[0] > 0
        assert np.linalg.norm(jax.grad(scene.f)(x)) < 1e-12 * curvatures[1]
        assert scene.f(x) == pytest.approx(scene.lowest, abs=1e-24)
    assert trajectory.heights(scene)["heights"].min() > -1e-12


def test_quadratic_has_the_condition_number_that_it_says():
    np.testing.assert_allclose(
        np.linalg.eigvalsh(jax.hessian(trajectory.quadratic)(jnp.ones(2))), [1, 100]
    )


@pytest.mark.parametrize("name", ["gradient_descent", "heavy_ball"])
def test_path_equals_the_formula_in_numpy(name, result):
    path, rate = result.arrays[f"{name}/points"], result.numbers["rules"][name]["rate"]
    x = before = path[0]
    for step in range(40):
        a, b = x
        gradient = np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])
        momentum = 0.9 if name == "heavy_ball" else 0.0
        x, before = x - rate * gradient + momentum * (x - before), x
        np.testing.assert_allclose(
            path[step + 1], x, rtol=1e-7
        )  # The valley's walls magnify rounding.
        assert result.arrays[f"{name}/gradient_norm"][step] == pytest.approx(
            np.linalg.norm(gradient), rel=1e-6
        )


def test_curves_are_those_of_the_paths(result):
    arrays = result.arrays
    for name in result.numbers["rules"]:
        path = arrays[f"{name}/points"]
        np.testing.assert_allclose(
            arrays[f"{name}/distances"], np.linalg.norm(path - 1.0, axis=1), rtol=1e-12
        )
        gaps = (1 - path[:, 0]) ** 2 + 100 * (path[:, 1] - path[:, 0] ** 2) ** 2
        np.testing.assert_allclose(
            arrays[f"{name}/gaps"], gaps, rtol=1e-12, atol=1e-300
        )
        np.testing.assert_allclose(
            arrays[f"{name}/learning_rate"], result.numbers["rules"][name]["rate"]
        )


@pytest.mark.on_ci(
    "shares a short run with a test above; nothing shorter has several minima"
)
def test_distance_is_to_the_nearest_of_several_minima(small):
    path = small.arrays["gradient_descent/points"]
    nearest = np.minimum(
        np.hypot(path[:, 0], path[:, 1] - 1), np.hypot(path[:, 0], path[:, 1] + 1)
    )
    np.testing.assert_allclose(
        small.arrays["gradient_descent/distances"], nearest, rtol=1e-12
    )


def test_rates_that_diverge_are_told_and_never_chosen(result):
    rates, whole = result.arrays["rates"], result.tables[1]
    assert whole.columns == ("rate", *result.numbers["rules"])
    assert len(whole.rows) == len(rates) == 21
    for column, (name, facts) in enumerate(result.numbers["rules"].items(), start=1):
        cells = [row[column] for row in whole.rows]
        assert cells.count("diverged") == facts["diverged"]
        numbers = [cell for cell in cells if cell != "diverged"]
        assert cells[list(rates).index(facts["rate"])] == min(numbers), name
    # Above 2 / 802 or so gradient descent leaves the valley of Rosenbrock's function
    # for good.
    assert result.numbers["rules"]["gradient_descent"]["diverged"] >= 10


@pytest.mark.on_ci("a short run; nothing shorter diverges at every rate")
def test_rule_that_diverges_everywhere_is_a_result_too():
    numbers = cli.conduct(
        trajectory, dataclasses.replace(SMALL, lowest_rate=1e3, highest_rate=1e4)
    ).numbers
    assert numbers["rules"]["gradient_descent"]["gap"] is None
    assert numbers["rules"]["gradient_descent"]["diverged"] == 3


def test_choice_takes_who_is_down_for_half_of_the_steps_and_of_the_finished_the_first():
    lucky, steady, late = [1, 9, 9, 1e-3], [1, 0.5, 0.1, 0.05], [1, 1, 1, 0.2]
    gaps = np.array([lucky, steady, late])
    assert trajectory.choose(gaps, gaps[:, 2:].max(axis=1)) == 1
    slow, quick = [1, 1e-3, 1e-20, 0], [1, 1e-15, 1e-14, 1e-14]
    gaps = np.array([steady, slow, quick])
    assert trajectory.choose(gaps, gaps[:, 2:].max(axis=1)) == 2


@pytest.mark.on_ci("a short run; nothing shorter has its best rate at the edge")
def test_best_rate_at_the_edge_is_said():
    edge = cli.conduct(
        trajectory, dataclasses.replace(SMALL, lowest_rate=1e-5, highest_rate=1e-4)
    )
    assert edge.numbers["rules"]["gradient_descent"]["at_edge"]
    assert (
        "At the edge of the grid, so a better rate may lie outside: gradient_descent."
        in edge.tables[0].note
    )


@pytest.mark.on_ci("two short runs; nothing shorter compares their bytes")
def test_same_config_gives_the_same_bytes(small):
    again = cli.conduct(trajectory, dataclasses.replace(SMALL, landscape="saddle"))
    assert runs.hash_arrays(*again.arrays.values()) == runs.hash_arrays(
        *small.arrays.values()
    )


@pytest.mark.thorough("the motion, drawn whole; make test draws that of fit_a_line")
def test_figures_are_drawn_from_what_was_saved_and_the_motion_is_small(
    result, tmp_path
):
    pictures = cli.report_of(trajectory).draw(
        runs.result.read_result(*runs.result.result_bytes(result))
    )
    assert list(pictures) == ["paths", "curves", "steps", "gradient_field"]
    for name, picture in pictures.items():
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 1000
        assert any(letter.isdigit() for letter in picture.caption)
    assert len(pictures["paths"].motion) < 700_000  # 626 kB with matplotlib 3.11.
    with Image.open(io.BytesIO(pictures["paths"].motion)) as film:
        assert film.n_frames > 30
        first = np.asarray(film.convert("RGB"))
        film.seek(film.n_frames - 1)
        assert (np.asarray(film.convert("RGB")) != first).any()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rule", (), "rule must name at least one"),
        ("rule", ("adm",), "unknown rule 'adm'; did you mean 'adam'"),
        ("steps", 1, "steps=1"),
        ("rates", 1, "rates=1"),
        ("lowest_rate", 0.0, "lowest_rate=0.0"),
        ("highest_rate", float("inf"), "highest_rate=inf"),
        ("highest_rate", 1e-5, "highest_rate=1e-05"),
    ],
)
def test_bad_config_names_its_field_and_value(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cli.conduct(trajectory, dataclasses.replace(SMALL, **{field: value}))


@pytest.mark.thorough(
    "a run of two rules; test_training.py and rules/test_averaging.py have averages"
)
def test_a_rule_that_averages_is_shown_at_its_average_and_asks_at_its_iterates():
    names, rates = (
        ("gradient_descent", "polyak_averaging"),
        {"lowest_rate": 1e-3, "highest_rate": 2e-3},
    )
    arrays = cli.conduct(
        trajectory,
        trajectory.Config(
            landscape="quadratic", rule=names, steps=20, rates=2, **rates
        ),
    ).arrays
    plain, mean = (arrays[f"{name}/points"] for name in names)
    np.testing.assert_allclose(
        mean[1:4], np.cumsum(plain[1:4], axis=0) / np.arange(1, 4)[:, None], rtol=1e-12
    )
    np.testing.assert_allclose(arrays["polyak_averaging/cosine"], 1.0)


# What a step does


def test_a_step_down_the_slope_has_cosine_1_at_any_size():
    gradients = np.array([[3.0, 4.0], [3e-200, 4e-200]])
    points = np.cumsum([[1.0, 0.0], -0.5 * gradients[0], [0, 0]], axis=0)
    assert trajectory.describe_steps(points, gradients).cosine[0] == pytest.approx(1.0)
    tiny = trajectory.describe_steps(
        np.array([[0.0, 0.0], -gradients[1]]), gradients[1:]
    )
    assert tiny.cosine[0] == pytest.approx(1.0)


def test_a_step_up_is_minus_1_along_is_0_and_none_is_nan():
    gradients = np.array([[0.0, 2.0]] * 3)
    found = trajectory.describe_steps(
        np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), gradients
    )
    np.testing.assert_array_equal(found.cosine, [-1, 0, np.nan])
    np.testing.assert_array_equal(found.update_norm, [1, 1, 0])


def test_ratio_at_the_origin_is_infinite_and_a_broken_path_stays_broken():
    found = trajectory.describe_steps(
        np.array([[0.0], [1.0], [np.nan]]), np.array([[-1.0], [1.0]])
    )
    assert found.update_over_params[0] == np.inf
    assert np.isnan(found.update_norm[1])
    assert np.isnan(found.cosine[1])


@pytest.mark.parametrize(
    ("points", "gradients"), [((3, 2), (3, 2)), ((3, 2), (2, 1)), ((3,), (2,))]
)
def test_shapes_that_do_not_fit_are_refused(points, gradients):
    with pytest.raises(ValueError, match=re.escape(f"got {points} and {gradients}")):
        trajectory.describe_steps(np.zeros(points), np.zeros(gradients))


def test_contraction_of_a_spiral_is_its_radius():
    path = 3 * (0.95 * np.exp(0.7j)) ** np.arange(200)
    assert trajectory.contraction(np.abs(path)) == pytest.approx(0.95)
    assert trajectory.contraction(np.abs(path.real)) == pytest.approx(0.95, abs=0.005)
    assert np.isnan(trajectory.contraction(np.array([1.0, 0.5, 0.0, 0.0])))
