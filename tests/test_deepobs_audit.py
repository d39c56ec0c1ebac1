"""Laws of the audit: the published numbers are those of the record, the rerun is
numpy's, and the order is what counts.
"""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import deepobs_audit as audit
from research import cli, figures, runs
from research.runs.result import read_result, result_bytes

RECORD = json.loads(
    (Path(__file__).parent / "reference/deepobs_quadratic.json").read_text()
)
SMALL = audit.Config(rates=(7, 8, 15, 17), tuning_seeds="42..45", seeds="52..55")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return runs.checkpoints_in(tmp_path_factory.mktemp("kept"))


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "result": (
        "a small run from end to end; make test has those of fit_a_line and "
        "decision_boundary"
    )
}


@pytest.fixture(scope="module")
def result(checkpoints):
    return cli.conduct(audit, SMALL, checkpoints=checkpoints)


@pytest.fixture(scope="module")
def problem():
    return audit.make_problem()


def hessian(problem):
    return problem.rotation.T @ np.diag(problem.eigenvalues) @ problem.rotation


def test_expected_numbers_hold_with_fewer_seeds(result):
    for name, (low, high) in audit.EXPECTED.items():
        assert low <= result.numbers[name] <= high, name


def test_problem_is_the_published_one(problem):
    # By the plain formula on the first 896 test rows; the largest eigenvalue as
    # recorded independently.
    off = 1.0 - problem.test[:896]
    value = 0.5 * np.mean(np.einsum("ni,ij,nj->n", off, hessian(problem), off))
    assert value == pytest.approx(RECORD["initial_test_loss"], rel=1e-8)
    assert problem.eigenvalues.max() == pytest.approx(53.129015, abs=5e-7)
    np.testing.assert_allclose(
        problem.rotation @ problem.rotation.T, np.eye(100), atol=1e-13
    )
    assert np.linalg.det(problem.rotation) == pytest.approx(1.0)


def test_rotations_are_uniform():
    # Haar on SO(3): the trace is 1 + 2 cos of an angle with density (1 - cos) / π, so
    # its mean is 0, its variance 1.
    random = np.random.RandomState(0)
    traces = [np.trace(audit.draw_rotation(random, 3)) for _ in range(2_000)]
    assert abs(np.mean(traces)) < 4 / np.sqrt(2_000)
    assert abs(np.var(traces) - 1) < 4 * np.sqrt(1.0 / 2_000)


@pytest.mark.parametrize("rule", audit.PUBLISHED)
def test_published_numbers_are_those_of_the_record(rule):
    published, record = audit.PUBLISHED[rule], RECORD["optimizers"][rule]
    assert published.k == record["exponent"]
    means = [
        np.mean(list(record[when].values())) for when in ("first", "tenth", "last")
    ]
    np.testing.assert_allclose(published.losses, means, rtol=1e-6)
    sweep = [np.nan if value is None else value for value in record["sweep"]]
    np.testing.assert_allclose(
        published.sweep, sweep[: len(published.sweep)], atol=0.006
    )
    assert len(published.sweep) == 36 or np.isnan(sweep[len(published.sweep)])
    # It was chosen on the test loss of this one seed.
    assert np.nanargmin(sweep) == published.k


def test_published_batches_are_those_of_the_record_and_repeat_each_epoch():
    record = RECORD["optimizers"]
    np.testing.assert_allclose(
        audit.PUBLISHED_BATCHES,
        record["gradient_descent"]["batches"]["42"][-audit.LAST :],
        atol=0.006,
    )
    for rule, most in (
        ("gradient_descent", 0.002),
        ("adam", 0.002),
        ("heavy_ball", 0.3),
    ):
        for seed, losses in record[rule]["batches"].items():
            assert audit.repetition(np.array(losses)) < most, (rule, seed)
    # Seven steps, not seven epochs: the losses of every other lag change by as much as
    # unequal batches do.
    losses = np.array(record["gradient_descent"]["batches"]["42"])
    changes = [np.mean(np.abs(losses[lag:] - losses[:-lag])) for lag in range(1, 15)]
    assert {lag + 1 for lag, change in enumerate(changes) if change < 0.01} == {7, 14}


@pytest.mark.parametrize("rule", audit.PUBLISHED)
def test_mean_of_the_published_seeds_is_that_of_ours_within_four_errors(rule, result):
    ends = list(RECORD["optimizers"][rule]["last"].values())
    ours = result.arrays[f"fixed/{rule}/curves"][:, -1]
    assert abs(np.mean(ends) - np.mean(ours)) < 4 * np.hypot(
        np.std(ends) / np.sqrt(10), np.std(ours) / np.sqrt(len(ours))
    )


def test_rate_at_which_descent_diverges_is_the_published_one(result):
    # Rate 10^(-5 + 18/5) lies above 2 / 53.129; the one before does not.
    test = result.arrays["fixed/gradient_descent/test"]
    at = [
        int(np.argmin(np.abs(result.arrays["rates"] - audit.rate(k)))) for k in (17, 18)
    ]
    assert (test[at[0]] < 90).all()
    assert not (test[at[1]] < 1e10).any()
    assert RECORD["optimizers"]["gradient_descent"]["sweep"][18] is None


def descend(problem, rule, order, learning_rate, epochs):
    """Three rules by hand in numpy, example by example in the original coordinates;
    every mini-batch loss, and θ.
    """
    matrix, theta, losses = hessian(problem), np.ones(100), []
    m, v = np.zeros(100), np.zeros(100)
    for step in range(epochs * 7):
        rows = order[(128 * step + np.arange(128)) % len(order)]
        off = theta - problem.train[rows]
        losses.append(0.5 * np.mean(np.sum(off @ matrix * off, axis=1)))
        gradient = np.mean(off @ matrix, axis=0)
        if rule == "adam":
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            root = np.sqrt(v / (1 - 0.999 ** (step + 1)))
            theta = theta - learning_rate * m / (1 - 0.9 ** (step + 1)) / (root + 1e-8)
        else:
            m = (0.99 if rule == "heavy_ball" else 0.0) * m + gradient
            theta = theta - learning_rate * m
    return np.array(losses), theta


@pytest.mark.parametrize("order", audit.ORDERS)
@pytest.mark.parametrize("rule", audit.PUBLISHED)
def test_trainings_are_those_of_numpy_example_by_example(rule, order, problem, result):
    rows = audit.epochs_of(order, 43, 100)
    losses, theta = descend(
        problem, rule, rows, audit.rate(audit.PUBLISHED[rule].k), 100
    )
    off = theta - problem.test[:896]
    np.testing.assert_allclose(
        result.arrays[f"{order}/{rule}/batches"][1], losses[-audit.LAST :], rtol=1e-9
    )
    end = 0.5 * np.mean(np.sum(off @ hessian(problem) * off, axis=1))
    assert result.arrays[f"{order}/{rule}/curves"][1, -1] == pytest.approx(
        end, rel=1e-9
    )


def test_orders_differ_only_in_what_comes_after_the_first_epoch(result):
    fixed, reshuffled = (audit.epochs_of(order, 42, 5) for order in audit.ORDERS)
    assert len(fixed) == len(set(fixed)) == 896
    epochs = reshuffled.reshape(5, 896)
    np.testing.assert_array_equal(epochs[0], fixed)
    assert all(len(set(epoch)) == 896 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    curves = [
        result.arrays[f"{order}/gradient_descent/curves"] for order in audit.ORDERS
    ]
    np.testing.assert_allclose(curves[0][:, :2], curves[1][:, :2], rtol=1e-12)
    assert (curves[0][:, 2:] != curves[1][:, 2:]).all()


def test_rates_are_chosen_on_tuning_seeds_and_validation_alone(result):
    # Other reported seeds, and other test losses on the tuning seeds, would choose the
    # same rates.
    ks = np.round(5 * (np.log10(result.arrays["rates"]) + 5)).astype(int).tolist()
    spoilt = {name: array.copy() for name, array in result.arrays.items()}
    for name in spoilt:
        if name.endswith("/validation"):
            spoilt[name][:, 4:] = spoilt[name][::-1, 4:]
        if name.endswith("/test"):
            spoilt[name][:, :4] = spoilt[name][::-1, :4]
    before, after = (
        audit.summarise(arrays, ks, 4)["rows"] for arrays in (result.arrays, spoilt)
    )
    assert [row["chosen"] for row in before] == [row["chosen"] for row in after]
    for row in before:
        assert row["low"] <= row["mean"] <= row["high"]


def test_single_seeds_pick_what_argmin_says(result):
    for rule, published in audit.PUBLISHED.items():
        test = np.nan_to_num(result.arrays[f"reshuffled/{rule}/test"], nan=np.inf)
        picked = [
            rate
            for name, order, rate, n in result.numbers["picked"]
            if (name, order) == (published.name, "reshuffled")
            for _ in range(n)
        ]
        np.testing.assert_allclose(
            sorted(picked), np.sort(result.arrays["rates"][np.argmin(test, axis=0)])
        )


def test_same_seeds_give_the_same_bytes(problem, result):
    ks, seeds = [7, 8, 12, 15, 16, 17, 18], [*range(42, 46), *range(52, 56)]
    again = audit.train(problem, "fixed", "heavy_ball", ks, seeds, 100).arrays
    before = [result.arrays[f"fixed/heavy_ball/{name}"] for name in again]
    assert runs.hash_arrays(*again.values()) == runs.hash_arrays(*before)


def test_finished_parts_are_not_trained_again_and_tables_survive_their_file(
    checkpoints, monkeypatch, result
):
    monkeypatch.setattr(audit, "train", lambda *arguments: pytest.fail("trained again"))
    again = cli.conduct(audit, SMALL, checkpoints=checkpoints)
    assert runs.hash_arrays(*result.arrays.values()) == runs.hash_arrays(
        *again.arrays.values()
    )
    loaded = read_result(*result_bytes(again))
    assert (
        loaded.answer,
        cli.report_of(audit).tables(runs.Findings({}, loaded.numbers)),
    ) == (
        result.answer,
        result.tables,
    )


def test_answer_calls_the_cause_an_inference_and_names_what_was_not_met(result):
    assert "From this we infer" in result.answer
    assert result.answer.startswith(
        "Not all of them. With the examples in a fixed order they are reproduced"
    )
    assert "they are not reproduced" in cli.report_of(audit).answer(
        runs.Findings({}, result.numbers | {"adam_off": 0.3})
    )
    assert (
        cli.report_of(audit)
        .answer(runs.Findings({}, result.numbers | {"heavy_ball_reshuffled": 0.1}))
        .startswith("Yes. ")
    )
    off = {"adam_off": 0.3, "heavy_ball_reshuffled": 0.1}
    assert (
        cli.report_of(audit)
        .answer(runs.Findings({}, result.numbers | off))
        .startswith("Not all of them. ")
    )


@pytest.mark.thorough("a longer run", but="20")
@pytest.mark.parametrize("epochs", [20, 101])
def test_what_was_published_after_a_hundred_epochs_is_compared_with_no_other_length(
    epochs, result
):
    """Of a training of another length, the start and the first ten epochs are."""
    short = cli.conduct(
        audit,
        dataclasses.replace(
            SMALL, rates=(15,), seeds="52..53", tuning_seeds="42..43", epochs=epochs
        ),
    )
    assert (
        not {
            "adam_off",
            "heavy_ball_off",
            "gradient_descent_off",
            "heavy_ball_reshuffled",
        }
        & short.numbers.keys()
    )
    assert short.answer.startswith(
        f"The end cannot be compared: these trainings have {epochs} epochs, the "
        "published ones 100."
    )
    repeated = (
        "those of this code, after another number of epochs, up to "
        f"{100 * short.numbers['repetition']:.2g} % in a fixed order"
    )
    assert repeated in short.answer
    assert "as those of this code do in a fixed order" in result.answer
    sgd = short.numbers["rows"][0]
    assert (
        f"After 10 epochs the means over seeds are SGD {sgd['losses'][1]:.2f} (92.98), "
        in short.answer
    )
    last = [f"{published.losses[-1]:.2f}" for published in audit.PUBLISHED.values()]
    assert not [loss for loss in last if f"({loss})" in short.answer]
    for row in short.tables[0].rows:
        compared = row[3] != "last"
        assert (row[4] == "–", row[6] == "–") == (not compared, not compared)
        assert not compared or row[6] == row[5] - row[4]
    assert (
        f"these trainings have {epochs} epochs, the published ones 100."
        in short.tables[0].note
    )
    with figures.style():
        pictures = cli.report_of(audit).draw(short)
    for panel in pictures["curves"].figure.axes:
        (published,) = (line for line in panel.lines if line.get_label() == "published")
        assert list(published.get_xdata()) == [n for n in (1, 10, 100) if n <= epochs]
    for panel in pictures["rates"].figure.axes:
        assert not [
            line
            for line in panel.lines
            if line.get_label().startswith("published") and len(line.get_xdata())
        ]
    assert "not shown: these trainings have" in pictures["rates"].caption
    assert "compared with nothing" not in result.tables[0].note


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-2, 1, "do not differ clearly"),
        (-2, -1, "differ, and a is better"),
        (1, 2, "differ, and b is better"),
    ],
)
def test_verdict_says_better_only_where_the_interval_does(low, high, words):
    assert words in cli.report_of(audit).verdict(
        {"names": ["a", "b"], "difference": ((low + high) / 2, low, high)}
    )


def test_pair_is_named_before_the_reported_seeds_are_seen(result):
    # Reported losses that would rank the rules the other way leave the pair alone and
    # turn the winner.
    ks = np.round(5 * (np.log10(result.arrays["rates"]) + 5)).astype(int).tolist()
    scores = {
        published.name: result.arrays[f"reshuffled/{rule}/validation"][:, :4].mean(
            axis=1
        )
        for rule, published in audit.PUBLISHED.items()
    }
    named = sorted(scores, key=lambda name: np.nanmin(scores[name]))[:2]
    assert result.numbers["best_two"]["names"] == named
    for shifts, winner in (((0.0, 1.0, 2.0), 0), ((2.0, 1.0, 0.0), 1)):
        spoilt = dict(result.arrays)
        for rule, published in audit.PUBLISHED.items():
            place = named.index(published.name) if published.name in named else 2
            test = spoilt[f"reshuffled/{rule}/test"].copy()
            test[:, 4:] = 80.0 + shifts[place] + np.arange(4) / 10
            spoilt[f"reshuffled/{rule}/test"] = test
        found = audit.summarise(spoilt, ks, 4)["best_two"]
        assert found["names"] == named
        assert f"differ, and {named[winner]} is better" in cli.report_of(audit).verdict(
            found
        )


def test_captions_hold_numbers_and_figures_are_saved(result, tmp_path):
    pictures = cli.report_of(audit).draw(result)
    assert set(pictures) == {"order", "curves", "rates"}
    for name, picture in pictures.items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rates", (), "at least one; got rates=()"),
        ("rates", (36,), "at least one; got rates=(36,)"),
        ("epochs", 9, "epochs must be at least 10"),
        ("seeds", "51..60", "must be disjoint"),
        ("seeds", "60", "must each have at least two seeds"),
    ],
)
def test_bad_config_names_its_field(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cli.conduct(audit, dataclasses.replace(audit.Config(), **{field: value}))


def test_float64_off_names_the_line_to_add():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(
            ValueError, match=r"research\.backend\.configure\(x64=True\)"
        ):
            cli.conduct(audit, SMALL)
    finally:
        jax.config.update("jax_enable_x64", True)
