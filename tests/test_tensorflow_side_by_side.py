"""TensorFlow beside JAX: the recorded numbers of TensorFlow, and TensorFlow itself
where there is one.
"""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from docs import gallery
from experiments import tensorflow_side_by_side as experiment
from research import cli, runs
from research.runs.result import result_bytes

NAME = "tensorflow_side_by_side"
TINY = dataclasses.replace(experiment.FAST, repeats=1)


@pytest.fixture(scope="module")
def recorded():
    """A run as on a machine without TensorFlow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        return cli.conduct(experiment, TINY)


def test_jax_equals_tensorflows_recorded_numbers_to_rounding(recorded):
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= recorded.numbers[name] <= high, name
    assert (
        max(max(found.values()) for found in recorded.numbers["differences"].values())
        < experiment.BOUND
    )


def test_answer_says_that_tensorflow_is_not_here(recorded, headline_of):
    assert headline_of(recorded.answer).startswith("Yes: against TensorFlow 2.")
    assert "by its recorded numbers" in recorded.answer
    assert (
        "TensorFlow is not installed. To compute and time its numbers here"
        in recorded.answer
    )
    assert not any(
        "TensorFlow" in row[1] for row in recorded.tables[1].rows
    )  # Nor has it been timed.


def test_numpy_by_hand_comes_first_in_each_table(recorded):
    assert recorded.tables[0].rows[0][0] == experiment.NUMPY
    assert recorded.tables[1].rows[0][1] == experiment.NUMPY


@pytest.mark.parametrize("largest", [2.0, 7.5])
def test_picture_of_a_reference_has_room_for_every_difference(largest):
    reference = runs.read_reference(gallery.REFERENCES / f"{NAME}.json")
    reference["table"]["rows"][0][1] = largest
    axes = cli.report_of(experiment).draw_reference(reference).figure.axes[0]
    assert largest in [
        x for line in axes.lines for x in np.atleast_1d(line.get_xdata())
    ]
    assert axes.get_xlim()[1] > largest


def test_other_numbers_than_jaxs_are_told(monkeypatch, tmp_path):
    # One entry of TensorFlow's gradient moved by 1e-12 of the largest.
    saved = json.loads(experiment.FILE.read_text(encoding="utf-8"))
    saved["gradient"][100] += 1e-12 * max(map(abs, saved["gradient"]))
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(saved), encoding="utf-8")
    monkeypatch.setattr(experiment, "FILE", wrong)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.conduct(experiment, TINY).answer.startswith("No: ")


def test_params_that_are_not_finite_are_not_equal():
    found = {
        way: {
            "losses": np.ones(10),
            "gradient": np.ones(3),
            "params": np.full(3, np.nan if way == experiment.TENSORFLOW else 1.0),
            "version": "2",
        }
        for way in (experiment.NUMPY, experiment.TENSORFLOW, experiment.JAX)
    }
    assert not experiment.facts(found, {}, TINY, False)["equal"]


def test_recorded_gradient_is_that_of_the_loss_by_central_differences():
    # Of NumPy's loss alone, so that neither framework judges itself.
    params, batches = experiment.problem(experiment.NARROW)
    gradient, place = experiment.recorded()["gradient"], 0
    for k, (leaf, index) in enumerate(
        zip(params, [(27, 3), (5,), (2, 7), (9,)], strict=True)
    ):
        values = []
        for step in (6e-6, -6e-6):
            moved = [p.copy() for p in params]
            moved[k][index] += step
            values.append(experiment.in_numpy(moved, 0.0)[0](*batches[0])[0])
        at = place + int(np.ravel_multi_index(index, leaf.shape))
        np.testing.assert_allclose(
            (values[0] - values[1]) / 12e-6, gradient[at], rtol=1e-7, atol=1e-10
        )
        place += leaf.size


def test_code_that_is_shown_is_the_code_that_runs(recorded):
    for function, way in (
        (experiment.in_tensorflow, experiment.TENSORFLOW),
        (experiment.in_jax, experiment.JAX),
    ):
        assert f"def {function.__name__}(" in recorded.numbers["code"][way]
        assert "pyright" not in recorded.numbers["code"][way]
    assert (
        "tape.gradient(loss, variables)"
        in recorded.numbers["code"][experiment.TENSORFLOW]
    )


def test_pictures_are_drawn_and_the_result_can_be_saved(recorded):
    pictures = cli.report_of(experiment).draw(recorded)
    assert set(pictures) == {"code", "steps"}
    shown = "".join(
        text.get_text() for axes in pictures["code"].figure.axes for text in axes.texts
    )
    assert "tape.gradient" in shown
    assert "jax.value_and_grad" in shown
    assert runs.result.read_result(*result_bytes(recorded)).numbers == recorded.numbers


if (
    importlib.util.find_spec("tensorflow") is not None
):  # What is not installed has no test here, rather than a skipped one.

    def test_tensorflow_gives_its_recorded_numbers_again():
        found, kept = experiment.tensorflow_steps(), experiment.recorded()
        for key in ("losses", "gradient", "params"):
            np.testing.assert_allclose(found[key], kept[key], rtol=1e-9, atol=1e-15)


def test_wrong_config_is_refused():
    with pytest.raises(ValueError, match="wide must be a positive integer"):
        cli.conduct(experiment, dataclasses.replace(TINY, wide=0))
