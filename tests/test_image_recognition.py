"""The image-recognition experiment: counts and choices held against others, and a small
run from end to end.
"""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import image_recognition as experiment
from experiments.reports import image_recognition as recognition
from research import cli, datasets, figures, runs, types
from research.figures import confusion
from research.runs.result import result_bytes

COMPILE_QUICKLY = True  # tests/conftest.py

TINY = dataclasses.replace(
    experiment.FAST, softmax_epochs=1, mlp_epochs=1, batch_size=64
)
MODELS = ("softmax", "mlp", "cnn")


@pytest.fixture(scope="module")
def split():
    return datasets.images("digits")


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {"result": "a small run from end to end; make test has that of spoken_words"}


@pytest.fixture(scope="module")
def result():
    return cli.conduct(experiment, TINY)


def clothes(n=8):
    """Random pictures."""
    draw = np.random.default_rng(0)
    x, y = (
        draw.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8),
        draw.integers(0, 10, n, dtype=np.int32),
    )
    return datasets.ImageSplit("fashion_mnist", x, y, x[:4], y[:4], tuple("abcdefghij"))


def saved(probabilities, **arrays):
    return types.Saved({"probabilities": np.asarray(probabilities), **arrays})


def test_recalls_and_confusions_are_of_every_class_also_of_one_that_never_comes():
    split = clothes(6)._replace(test_y=np.array([0, 0, 1, 1]))
    one = saved(np.eye(10)[[0, 2, 1, 1]])
    counts = experiment.confused(one, split)
    assert counts.shape == (10, 10)
    assert counts.dtype == np.int64
    assert (counts[0, 0], counts[0, 2], counts[1, 1]) == (1, 1, 2)
    np.testing.assert_array_equal(experiment.recalls(one, split)[:2], [0.5, 1.0])
    assert np.isnan(experiment.recalls(one, split)[2:]).all()


def test_commonest_errors_are_in_order_and_no_pair_that_never_came():
    counts = [[9, 2, 0], [3, 5, 2], [0, 0, 7]]
    errors = [("b", "a", 3, 10), ("a", "b", 2, 11), ("b", "c", 2, 10)]
    assert confusion.commonest_errors(counts, list("abc")) == errors
    assert confusion.commonest_errors(counts, list("abc"), most=1) == errors[:1]
    unsigned = np.asarray(counts, np.uint32)
    assert confusion.commonest_errors(unsigned, list("abc")) == errors


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, -1], [0, 1]], np.ones((3, 3))])
def test_what_is_not_a_confusion_matrix_is_refused(counts):
    with pytest.raises(ValueError, match=r"counts must have shape \(2, 2\)"):
        confusion.commonest_errors(counts, ["cat", "dog"])


def test_held_out_images_are_training_images_that_nothing_is_learnt_from():
    split = clothes(50)._replace(
        train_y=np.arange(50)
    )  # Each image has its number for a label.
    learn, judge = experiment.parted(split, 10)
    assert len(judge.y) == 10
    assert sorted([*learn.y, *judge.y]) == list(range(50))
    for part in (learn, judge):
        np.testing.assert_array_equal(part.x, split.train_x[part.y])
    learn, judge = experiment.parted(split, 0)
    assert (learn.x is split.train_x, judge.x is split.test_x) == (True, True)


def test_chosen_rate_is_that_of_the_highest_accuracy_of_its_own_model():
    nan = float("nan")  # Of a training that diverged.
    accuracies = {
        ("mlp", 1.0): 0.5,
        ("mlp", 2.0): 0.9,
        ("mlp", 4.0): 0.8,
        ("cnn", 0.5): 0.7,
        ("cnn", 1.0): nan,
    }
    trials = [experiment.Job(model, 100, 1, rate, 5) for model, rate in accuracies]
    found = [types.Saved({"accuracy": np.array([0.1, a])}) for a in accuracies.values()]
    rates, tried = experiment.chosen(
        {"softmax": 7.0, "mlp": 1.0, "cnn": 1.0}, trials, found
    )
    assert rates == {"softmax": 7.0, "mlp": 2.0, "cnn": 0.5}
    assert [(row["model"], row["rate"]) for row in tried] == list(accuracies)
    np.testing.assert_array_equal(
        [row["accuracy"] for row in tried], list(accuracies.values())
    )


@pytest.mark.thorough("a training of its own; test_training.py has one that diverges")
def test_training_that_diverges_is_refused_by_its_rate():
    with pytest.raises(ValueError, match=r"The MLP at rate 1e\+30 diverges in step \d"):
        cli.conduct(experiment, dataclasses.replace(TINY, mlp_rate=1e30))


def test_worst_errors_are_wrong_and_the_most_confident_first(split):
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.full(10, 0.3), len(split.test_y)).astype(
        np.float32
    )
    found = [
        saved(
            probabilities, filters=np.zeros(1), accuracy=np.zeros(1), loss=np.zeros(1)
        )
    ]
    kept = experiment.arrays(split, dict.fromkeys(MODELS, found))
    wrong = probabilities.argmax(axis=1) != split.test_y
    assert len(kept["worst/labels"]) == experiment.WORST
    np.testing.assert_array_equal(
        kept["worst/confidences"],
        -np.sort(-probabilities.max(axis=1)[wrong])[: experiment.WORST],
    )
    for image, label, said, sure in zip(
        *(kept[f"worst/{name}"] for name in WORST_ARRAYS), strict=True
    ):
        (index,) = np.flatnonzero(
            (split.test_x * 15 == image).all(axis=(1, 2, 3))
            & (probabilities.max(axis=1) == sure)
        )
        assert split.test_y[index] == label != said == probabilities[index].argmax()


WORST_ARRAYS = ("images", "labels", "predictions", "confidences")


@pytest.mark.on_ci("the CNN", but="softmax|mlp")
@pytest.mark.parametrize("name", MODELS)
def test_nothing_in_a_training_step_is_float64(name, split):
    model = experiment.make_model(name, TINY, split)
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = types.Batch(split.train_x[:8], split.train_y[:8])

    def loss(params, key):
        return model.apply(params, batch.x, key).sum()

    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    program = str(jax.make_jaxpr(jax.grad(loss))(params, jax.random.key(1)))
    assert "f32[8" in program
    assert not re.findall(
        r"f64\[\d", program
    )  # Scalars, such as a bound that is drawn below, may be.


@pytest.mark.on_ci("a compiled CNN; models/test_images.py has mirrored images")
@pytest.mark.thorough("images as they are", but="True")
@pytest.mark.parametrize("mirror", [True, False])
def test_cnn_learns_from_images_as_they_are_or_mirrored_where_asked(mirror):
    config = dataclasses.replace(experiment.FAST, mirror=mirror, dropout=0.0)
    model, x = experiment.make_model("cnn", config, clothes()), clothes().train_x[:32]
    params, apply = model.init(jax.random.key(0)), jax.jit(model.apply)
    alone = dataclasses.replace(config, mirror=False)
    once = jax.jit(experiment.make_model("cnn", alone, clothes()).apply)
    plain, turned = once(params, x), once(params, x[:, :, ::-1])
    learning, judged = apply(params, x, jax.random.key(1)), apply(params, x)
    expected = (plain + turned) / 2 if mirror else plain
    np.testing.assert_allclose(judged, expected, atol=1e-5)
    near = [
        np.isclose(learning, seen, atol=1e-5).all(axis=1) for seen in (plain, turned)
    ]
    assert np.all(near[0] ^ near[1])
    assert set(near[1].tolist()) == ({False, True} if mirror else {False})


@pytest.mark.on_ci("the pictures of softmax regression; nothing shorter shows this")
def test_picture_of_a_class_times_the_image_is_its_score():
    model = experiment.make_model("softmax", TINY, clothes())
    params = model.init(jax.random.key(0))
    params = {
        "weights": jax.random.normal(
            jax.random.key(1), params["weights"].shape, jnp.float32
        ),
        "intercept": params["intercept"],
    }
    x = clothes().train_x
    standard = (x - x.mean()) / x.std()
    pictures = experiment.first_filters("softmax", params, (8, 8, 1))
    np.testing.assert_allclose(
        model.apply(params, x),
        np.einsum("nhwc,khwc->nk", standard, pictures),
        rtol=1e-3,
        atol=1e-3,
    )
    weights = np.random.default_rng(0).normal(size=(3, 5, 1, 40))
    filters = experiment.first_filters(
        "cnn", {"convolution_1": {"weights": weights}}, (8, 8, 1)
    )
    np.testing.assert_array_equal(filters[7], weights[..., 7])


def test_accuracy_of_the_table_is_that_of_the_probabilities(result):
    counts, numbers = result.arrays["confusions"], result.numbers
    assert counts.sum() == numbers["n_test"] == 360
    assert np.trace(counts) / 360 == pytest.approx(
        result.arrays["cnn/accuracy"][0, -1], abs=1e-6
    )
    for row in numbers["models"]:
        shares = np.bincount(datasets.images("digits").test_y) / 360
        assert shares @ row["by_class"] == pytest.approx(row["accuracy"][0], abs=1e-6)
        assert row["accuracy"][0] == numbers[row["model"]] > 0.15  # Better than chance.
    assert set(experiment.EXPECTED) <= set(numbers)


def test_every_training_starts_without_knowing_and_its_cost_is_counted(result):
    for row in result.numbers["models"]:
        epochs = getattr(TINY, f"{row['model']}_epochs")
        assert result.arrays[f"{row['model']}/accuracy"].shape == (2, epochs + 1)
        assert np.all(result.arrays[f"{row['model']}/accuracy"][:, 0] < 0.3)
        assert row["gradients"] == epochs * (1437 // 64) * 64
    widths = (64, *TINY.hidden, 10)
    mlp = result.numbers["models"][1]
    assert mlp["parameters"] == sum(a * b + b for a, b in itertools.pairwise(widths))


def test_run_answers_draws_and_says_that_digits_are_not_the_claim(
    result, tmp_path, headline_of
):
    headline = (
        "NOT THE CLAIM: these are the images of digits; the published numbers are for "
        "Fashion-MNIST."
    )
    assert headline_of(result.answer) == headline
    assert result.answer.endswith(
        "To download it, run: descent data fetch fashion_mnist"
    )
    assert "mean over 2 seeds." in result.answer  # Two have no interval.
    assert [row[0] for row in result.tables[0].rows] == [
        "softmax regression",
        "MLP",
        "CNN",
    ]
    assert all(row[4] == "–" for row in result.tables[0].rows)
    assert result_bytes(result) == result_bytes(result)
    pictures = cli.report_of(experiment).draw(result)
    assert list(pictures) == ["accuracy", "confusions", "worst", "filters"]
    for name, picture in pictures.items():
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 10_000


def test_curves_are_the_arrays_and_published_lines_stand_where_the_claim_does(result):
    for published in (None, 0.5):
        numbers = result.numbers | {
            "models": [
                row | {"published": published} for row in result.numbers["models"]
            ]
        }
        within, length = recognition.draw_accuracy(numbers, result.arrays).axes
        named = {line.get_label(): line for line in within.lines}
        for model, label in experiment.LABELS.items():
            mean = result.arrays[f"{model}/accuracy"][:, 1:].mean(axis=0)
            np.testing.assert_array_equal(
                named[label].get_xydata(),
                np.stack([np.arange(1, len(mean) + 1), mean], axis=1),
            )
        ends = [[b["epochs"], b["accuracy"]] for b in numbers["budgets"]]
        assert np.asarray(length.lines[-1].get_xydata()).tolist() == ends
        assert [epochs for epochs, _ in ends] == [1, 2]
        dashed = [
            line
            for panel in (within, length)
            for line in panel.lines
            if line.is_dashed()
        ]
        assert len(dashed) == (4 if published else 0)


@pytest.mark.parametrize(
    ("sure", "words"), [(1.0, "100.0"), (0.99999, "99.9"), (0.5, "50.0")]
)
def test_no_probability_below_one_is_written_as_certain(sure, words):
    assert recognition.floor_percent(sure) == words


def claimed(result, *accuracies):
    rows = [
        row
        | {
            "accuracy": [accuracy, accuracy - 0.01, accuracy + 0.01],
            "published": experiment.PUBLISHED[row["model"]],
        }
        for row, accuracy in zip(result.numbers["models"], accuracies, strict=True)
    ]
    return cli.report_of(experiment).answer(
        runs.Findings({}, result.numbers | {"dataset": "fashion_mnist", "models": rows})
    )


def test_answer_holds_each_model_against_what_is_published(result):
    reached = claimed(result, 0.845, 0.89, 0.92)
    assert (
        "CNN recognises 92.0 % (91.0 to 93.0), the MLP 89.0 % (88.0 to 90.0), softmax "
        "regression 84.5 %" in reached
    )
    assert "91.6 % (published for two convolutions), 88.3 % (published" in reached
    assert reached.endswith("84.4 % (softmax regression): every mean reaches them.")
    assert claimed(result, 0.845, 0.88, 0.91).endswith("below that: MLP, CNN.")


def test_kill_in_the_middle_resumes_to_the_same_bits(result, tmp_path):
    config = dataclasses.replace(TINY, seeds="0", budgets=())

    def stop(done, total, message):
        if done > 2.05:  # The CNN, at its fourth step or soon after.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cli.conduct(experiment, config, stop, runs.checkpoints_in(tmp_path))
    shown = []
    again = cli.conduct(
        experiment,
        config,
        lambda done, total, message: shown.append(done),
        runs.checkpoints_in(tmp_path),
    )
    assert not [
        done for done in shown if done % 1 and done < 2.1
    ]  # Nothing is trained twice.
    for (
        name,
        array,
    ) in (
        again.arrays.items()
    ):  # A training does not depend on how many there are beside it.
        straight = (
            result.arrays[name][:1]
            if name.endswith(("accuracy", "loss"))
            else result.arrays[name]
        )
        assert runs.hash_arrays(array) == runs.hash_arrays(straight), name


def test_rates_are_chosen_among_all_multiples_without_a_test_image(split, monkeypatch):
    seen = []

    def train(job, config, split, watch, parts):
        seen.append(job)
        judge = experiment.parted(split, job.held_out)[1]
        accuracy = np.array(
            [0.1, 1 - abs(job.rate / getattr(config, f"{job.model}_rate") - 2) / 10]
        )
        right = np.eye(10, dtype=np.float32)[judge.y]
        values = {"seconds": 1.0, "gradients": 1, "parameters": 1, "first_bad_step": -1}
        return saved(
            right, accuracy=accuracy, loss=np.ones(1), filters=np.ones((10, 8, 8, 1))
        )._replace(values=values)

    monkeypatch.setattr(experiment, "train", train)
    found = cli.conduct(
        experiment, dataclasses.replace(TINY, choose=(0.5, 2.0, 4.0), held_out=100)
    )
    trials, reported = (
        [j for j in seen if j.held_out],
        [j for j in seen if not j.held_out],
    )
    assert len(trials) == 9
    assert {j.seed for j in trials}.isdisjoint({j.seed for j in reported})
    assert {(j.model, j.rate) for j in reported} == {
        (m, 2 * getattr(TINY, f"{m}_rate")) for m in MODELS
    }
    assert len(found.tables) == 4
    assert (
        len(cli.report_of(experiment).draw(found)) == 3
    )  # No error, no picture of errors.


def test_images_that_are_not_at_hand_are_replaced_aloud(monkeypatch, capsys):
    config = experiment.Config()

    def missing(name):
        raise FileNotFoundError(f"{name} needs a file.")

    monkeypatch.setattr(datasets, "images", missing)
    assert experiment.complete(config) == dataclasses.replace(
        config, dataset="digits", batch_size=32, held_out=300, mirror=False
    )
    assert (
        "fashion_mnist needs a file. Using digits instead." in capsys.readouterr().err
    )
    # Asked for by name: the error comes with the run.
    other = dataclasses.replace(config, dataset="mnist_5k", mirror=False)
    assert experiment.complete(other) is other
    mirrored = dataclasses.replace(other, mirror=True)
    assert experiment.complete(mirrored) == other
    assert "mirror is False for mnist_5k: a mirrored digit" in capsys.readouterr().err
    monkeypatch.setattr(datasets, "images", lambda name: None)
    assert experiment.complete(config) is config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cnn_epochs": 0}, "cnn_epochs must be positive; got cnn_epochs=0"),
        ({"cnn_rate": -1.0}, "cnn_rate must be positive; got cnn_rate=-1.0"),
        ({"mlp_rate": np.nan}, "mlp_rate must be positive; got mlp_rate=nan"),
        ({"hidden": (16, 0)}, r"hidden must be positive; got hidden=\(16, 0\)"),
        (
            {"channels": ()},
            r"channels must have at least one entry, .* got channels=\(",
        ),
        ({"batch_size": 2_000}, "at most the 1,437 training images of digits"),
        ({"choose": (1.0,), "held_out": 1_400}, "at most the 37 training images"),
        ({"choose": (2.0, 1.0)}, "choose must be positive multiples, ascending"),
        ({"choose": (np.nan,)}, "choose must be positive multiples, ascending"),
        ({"budgets": (2,)}, "budgets must be positive and other than cnn_epochs"),
        ({"mirror": True}, "mirror must be False for digits"),
        ({"dataset": "digit"}, "did you mean 'digits'"),
    ],
)
def test_bad_config_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        cli.conduct(experiment, dataclasses.replace(TINY, **change))
