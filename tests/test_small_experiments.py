"""Laws of the two small experiments: their answers are the exact ones, and what they
say at default size holds.
"""

import dataclasses
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from experiments import decision_boundary, fit_a_line
from research import cli, descent, figures, runs, samplers, update_rules, workloads
from research.figures import motion

COMPILE_QUICKLY = True  # tests/conftest.py

EXPERIMENTS = (fit_a_line, decision_boundary)
SMALL = {
    fit_a_line: fit_a_line.Config(passes=4),
    decision_boundary: decision_boundary.Config(epochs=4),
}


@pytest.fixture(scope="module")
def results():
    class Results(dict):  # Each is computed when a test first asks for it.
        def __missing__(self, experiment):
            self[experiment] = cli.conduct(experiment, experiment.Config())
            return self[experiment]

    return Results()


@pytest.fixture(scope="module")
def pictures(results):
    class Pictures(dict):
        def __missing__(self, experiment):
            report = cli.report_of(experiment)
            self[experiment] = report.draw(results[experiment])
            return self[experiment]

    return Pictures()


@pytest.mark.on_ci(
    "whole runs; test_image_recognition.py and others have parts of runs"
)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_expected_numbers_hold_at_default_size(experiment, results):
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= results[experiment].numbers[name] <= high, name


@pytest.mark.on_ci("a second run; nothing shorter shows this")
def test_exact_line_is_not_said_to_miss_a_target(results):
    *regimes, exact = results[fit_a_line].tables[0].rows
    assert exact == ("least squares", "–", *exact[2:4], 0.0, "–", "–", "–")
    assert not [row for row in regimes if "–" in row]
    short = cli.conduct(fit_a_line, SMALL[fit_a_line]).tables[0].rows
    assert short[0][6:] == (
        None,
        None,
    )  # Of a regime that does not get there in four passes, it is said.


def test_full_batch_line_equals_numpys(results):
    arrays = results[fit_a_line].arrays
    slope, intercept = np.polyfit(arrays["x"], arrays["y"], 1)
    np.testing.assert_allclose(
        arrays["full batch/lines"][-1], [intercept, slope], rtol=1e-6
    )


def test_each_full_batch_step_takes_the_share_of_the_rate_off_the_error(results):
    # x is standardised, so the Hessian is the identity and θ - θ* shrinks by 1 - η in
    # every direction.
    arrays = results[fit_a_line].arrays
    off = arrays["full batch/lines"] - arrays["exact"]
    np.testing.assert_allclose(off[1:101], 0.9 * off[:100], rtol=1e-9)


def test_gap_is_half_the_squared_distance_to_the_exact_line(results):
    # What the docstring says of the round bowl.
    arrays, workload = (
        results[fit_a_line].arrays,
        workloads.make_workload("diabetes_bmi"),
    )
    for line in arrays["stochastic/lines"][[0, 100, 1000]]:
        params = {"intercept": jnp.array(line[0]), "weights": jnp.array(line[1:])}
        gap = workload.objective(params, workload.train) - workload.optimum.value
        np.testing.assert_allclose(
            gap, np.sum((line - arrays["exact"]) ** 2) / 2, rtol=1e-9
        )


@pytest.mark.thorough(
    "a run of mini-batches; of a full batch, "
    "test_each_full_batch_step_takes_the_share_of_the_rate_off_the_error has the steps"
)
def test_steps_that_are_kept_are_those_of_a_run():
    config = SMALL[fit_a_line]
    workload = workloads.make_workload("diabetes_bmi")
    sampler = samplers.minibatch(309, config.batch_size)
    rule = update_rules.find_rule("gradient_descent")(config.minibatch_rate)
    init, step = descent.build(workload.objective, rule, workload.train)
    key_init, epochs = (
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(2)
    )
    state = init(workload.init(key_init))
    state, _ = jax.jit(
        lambda s: descent.run(step, s, sampler, epochs, jnp.arange(config.passes))
    )(state)
    lines = cli.conduct(fit_a_line, config).arrays["mini-batch 32/lines"]
    assert len(lines) == 1 + 9 * config.passes
    np.testing.assert_allclose(
        lines[-1], [state.params["intercept"], state.params["weights"][0]], rtol=1e-12
    )


def test_no_regime_is_within_one_per_cent_before_its_passes_say_so(results):
    numbers, arrays = results[fit_a_line].numbers, results[fit_a_line].arrays
    for name, found in numbers["regimes"].items():
        off = np.abs(arrays[f"{name}/lines"] / arrays["exact"] - 1).max(axis=1)
        assert (off[: found["steps"]] > 0.01).all()
        assert off[found["steps"]] <= 0.01
        assert found["passes"] == pytest.approx(
            found["steps"] * found["batch_size"] / numbers["n"]
        )


@pytest.mark.on_ci("a whole run of decision_boundary; nothing shorter shows this")
def test_last_boundary_equals_scikit_learns(results):
    arrays = results[decision_boundary].arrays
    # Ours adds (λ/2)|w|² to a mean, scikit-learn's |w|²/2 to C times a sum: C = 1 / (n
    # λ).
    model = LogisticRegression(
        C=1 / (len(arrays["y"]) * 0.01), tol=1e-10, max_iter=1000
    )
    model.fit(arrays["x"], arrays["y"])
    np.testing.assert_allclose(
        arrays["params"][-1], [*model.coef_[0], model.intercept_[0]], rtol=1e-4
    )


@pytest.mark.on_ci("shares a whole run with the test above; nothing shorter shows this")
@pytest.mark.parametrize("epoch", [0, 1, 7, -1])
def test_boundary_points_have_probability_one_half(epoch, results):
    params = results[decision_boundary].arrays["params"][epoch]
    points = cli.report_of(decision_boundary).boundary(params, reach=3.0)
    np.testing.assert_allclose(
        cli.report_of(decision_boundary).probability(params, points), 0.5, atol=1e-12
    )
    assert np.linalg.norm(points[1] - points[0]) == pytest.approx(6.0)


def test_angles_agree_with_the_dot_product_where_that_is_accurate():
    params = np.array(
        [[1.0, 0.0, 5.0], [0.0, 2.0, 5.0], [-1.0, 0.0, 5.0], [1.0, 1.0, 5.0]]
    )
    np.testing.assert_allclose(
        decision_boundary.angles(params, np.array([3.0, 0.0, 1.0])), [0, 90, 180, 45]
    )


@pytest.mark.thorough("three runs; test_trajectory.py has the law")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_same_config_gives_the_same_bytes(experiment):
    hashes = [
        runs.hash_arrays(
            *cli.conduct(
                experiment, dataclasses.replace(SMALL[experiment], seed=seed)
            ).arrays.values()
        )
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.thorough("whole films; make test draws a short one of fit_a_line")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_motion_is_small_and_moves(experiment, pictures):
    films = [
        picture.motion for picture in pictures[experiment].values() if picture.motion
    ]
    assert len(films) == 1
    assert (
        len(films[0]) < 700_000
    )  # 619 kB with matplotlib 3.9 and 3.10, 499 with 3.11.
    with Image.open(io.BytesIO(films[0])) as film:
        assert film.n_frames > 10
        assert film.info["loop"] == 0
        first = np.asarray(film.convert("RGB"))
        film.seek(film.n_frames - 1)
        assert (np.asarray(film.convert("RGB")) != first).any()


@pytest.mark.thorough("the figures of whole runs; make test draws those of a short one")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_captions_hold_numbers_and_figures_are_saved(experiment, pictures, tmp_path):
    for name, picture in pictures[experiment].items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 0


@pytest.mark.on_ci("pictures of a run; nothing shorter shows this")
@pytest.mark.thorough("the other experiment", but="fit_a_line")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_short_run_is_drawn_too_and_says_what_it_did_not_reach(
    experiment, monkeypatch
):
    monkeypatch.setattr(cli.report_of(experiment), "FRAMES", 2)
    result = cli.conduct(experiment, SMALL[experiment])
    pictures = cli.report_of(experiment).draw(result)
    assert pictures
    for picture in pictures.values():
        assert any(letter.isdigit() for letter in picture.caption)
    assert "budget" in result.answer or "not within" in result.answer


@pytest.mark.parametrize(("passes", "shown"), [(4.0, 4), (200.0, 50)])
def test_no_pass_is_shown_that_was_not_run(passes, shown):
    arrays = {"full batch/passes": np.array([0.0, passes])}
    arrays["mini-batch 32/passes"] = np.array([0.0, 0.9 * passes])
    regimes = dict.fromkeys(("full batch", "mini-batch 32"))
    assert cli.report_of(fit_a_line).shown_passes(arrays, regimes) == shown


@pytest.mark.thorough("a run of its own; fit_a_line runs mini-batches")
def test_mini_batches_draw_a_boundary_too():
    result = cli.conduct(
        decision_boundary, decision_boundary.Config(epochs=2, batch_size=32)
    )
    assert result.numbers["regime"] == "mini-batch 32"
    assert result.arrays["params"].shape == (3, 3)


@pytest.mark.on_ci(
    "a run that diverges; test_divergence_is_said_with_its_rate_and_first_step has one",
    but="^(?!.*1000000)",
)
@pytest.mark.parametrize(
    ("experiment", "field", "value"),
    [
        (fit_a_line, "passes", 0),
        (fit_a_line, "batch_size", 0),
        (fit_a_line, "stochastic_rate", -1.0),
        (decision_boundary, "epochs", 0),
        (decision_boundary, "learning_rate", float("nan")),
        (decision_boundary, "batch_size", -1),
        (decision_boundary, "batch_size", 399),
        (decision_boundary, "learning_rate", 1e6),
    ],
)
def test_bad_config_names_its_field_and_value(experiment, field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value}")):
        cli.conduct(
            experiment, dataclasses.replace(experiment.Config(), **{field: value})
        )


def test_divergence_is_said_with_its_rate_and_first_step():
    with pytest.raises(
        ValueError, match=r"rate of 1e\+80 diverges: step 4 is not finite"
    ):
        cli.conduct(fit_a_line, fit_a_line.Config(passes=4, full_batch_rate=1e80))


def test_film_keeps_white_white_and_every_frame():
    figure, axes = figures.new_figure(width=2, height=2)
    line = axes[0, 0].plot([0, 1], color="#0072B2", lw=6)[0]
    with Image.open(
        io.BytesIO(motion.record(figure, lambda k: line.set_ydata([0, k / 4]), 5))
    ) as film:
        assert film.n_frames == 5
        frame = film.convert("RGB")
        assert frame.getpixel((1, 1)) == (255, 255, 255)
        assert (0, 114, 178) in {colour for _, colour in frame.getcolors(2**16)}


@pytest.mark.parametrize(("num_frames", "colours"), [(1, 96), (3, 1), (3, 257)])
def test_film_refuses_what_it_cannot_make(num_frames, colours):
    with pytest.raises(ValueError, match=r"num_frames=1|colours="):
        motion.record(figures.new_figure()[0], print, num_frames, colours=colours)
