"""Text classification: its scores against scikit-learn's, what its choices may see, and
a small run from end to end.
"""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import f1_score

from experiments import text_classification as experiment
from research import cli, runs
from research.datasets.vocabulary import encode, make_vocabulary
from research.runs.result import result_bytes
from research.types import Saved

TINY = dataclasses.replace(experiment.FAST, epochs=(1,), width=4)


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {"kept": "a small run from end to end; make test has that of spoken_words"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("kept")
    return cli.conduct(
        experiment, TINY, checkpoints=runs.checkpoints_in(folder)
    ), folder


def test_macro_f1_equals_scikit_learn_s_also_for_a_class_that_is_never_predicted():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=200)
    probabilities = rng.random((200, 4)) * [1, 1, 0.01, 1]
    expected = f1_score(
        labels, probabilities.argmax(axis=1), average="macro", zero_division=0
    )
    assert experiment.macro_f1(labels, probabilities) == expected
    assert experiment.macro_f1(labels, np.eye(5)[labels]) == 0.8  # Four of five topics.


def test_the_vocabulary_numbers_words_by_how_common_they_are():
    words = make_vocabulary(["b a c", "a b", "a d d"], least_count=2)
    assert words == {
        "a": 1,
        "b": 2,
        "d": 3,
    }  # b and d are equally common: the alphabet decides.
    tokens, lengths = encode(["d x a b", "", "c"], words, 3)
    np.testing.assert_array_equal(tokens, [[3, 0, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(lengths, [3, 1, 1])
    assert (tokens.dtype, lengths.dtype) == (np.int32, np.int32)
    with pytest.raises(
        ValueError, match="no word occurs least_count=9 times in the 1 texts"
    ):
        make_vocabulary(["a b"], least_count=9)
    with pytest.raises(
        TypeError, match="texts must be a list of texts; got a single string"
    ):
        make_vocabulary("a b")
    with pytest.raises(
        ValueError, match="least_count must be a positive integer; got least_count=0"
    ):
        make_vocabulary(["a b"], least_count=0)
    with pytest.raises(
        ValueError, match="length must be a positive integer; got length=0"
    ):
        encode(["a"], words, 0)


def test_what_is_held_out_is_not_learnt_from_and_nothing_is_lost():
    learnt, held = experiment.hold_out(100, 0.1)
    assert len(held) == 10
    np.testing.assert_array_equal(
        np.sort(np.concatenate([learnt, held])), np.arange(100)
    )
    split = experiment.read("fabricated")
    choosing = experiment.Job(0, 1e-3, 1, choosing=True)
    halves = experiment.hold_out(len(split.train_y), 0.25)
    (texts, labels), (held_texts, held_labels) = experiment.parted(
        choosing, split, halves
    )
    assert set(split.test_texts).isdisjoint(texts + held_texts)
    assert sorted(texts + held_texts) == sorted(split.train_texts)
    assert len(labels) + len(held_labels) == len(split.train_y)
    (texts, _), (test_texts, _) = experiment.parted(
        choosing._replace(choosing=False), split, halves
    )
    assert (texts, test_texts) == (split.train_texts, split.test_texts)


def test_the_baseline_is_chosen_without_the_test_stories_and_learns_all_others():
    split = experiment.read("fabricated")
    learnt, held = experiment.hold_out(len(split.train_y), 0.25)
    saved = experiment.count_words(
        split.train_texts, split.test_texts, split.train_y, learnt, held, None
    )
    other = experiment.count_words(
        split.train_texts, split.test_texts[:5], split.train_y, learnt, held, None
    )
    assert other.values == saved.values
    peer = experiment.fit_counts(split.train_texts, split.train_y, saved.values["C"])
    np.testing.assert_allclose(
        saved.arrays["probabilities"], peer.predict_proba(split.test_texts), rtol=1e-12
    )
    best = max(accuracy for _, accuracy in saved.values["tried"])
    assert saved.values["C"] == next(
        strength for strength, accuracy in saved.values["tried"] if accuracy == best
    )


def test_a_small_run_says_what_it_found_and_that_it_is_not_the_claim(kept, headline_of):
    result, _ = kept
    assert headline_of(result.answer) == "NOT THE CLAIM: these stories are fabricated."
    assert result.answer.endswith(
        "To download them, run: descent data fetch reuters_r8"
    )
    main, by_class, errors, tried = result.tables
    assert [row[0] for row in main.rows] == [
        *experiment.BASELINES.values(),
        "Transformer",
    ]  # The baseline first.
    assert [row[0] for row in by_class.rows] == ["topic 0", "topic 1", "topic 2"]
    assert len(tried.rows) == 2 * len(experiment.STRENGTHS) + len(TINY.rates) * len(
        TINY.epochs
    )
    accuracy, counts = result.arrays["accuracy"], result.arrays["confusions"]
    assert accuracy.shape == (2, 2)
    assert counts.sum() == 60
    assert np.trace(counts) / 60 == pytest.approx(accuracy[0, -1])
    assert result.numbers["transformer"] == pytest.approx(accuracy[:, -1].mean())
    probabilities = [row[3] for row in errors.rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(true != taken for _, true, taken, *_ in errors.rows)


def test_a_run_from_its_checkpoints_is_the_same_to_the_last_bit(kept):
    result, folder = kept
    again = cli.conduct(experiment, TINY, checkpoints=runs.checkpoints_in(folder))
    assert result_bytes(again) == result_bytes(result)


def test_pictures_show_every_score(kept):
    result, _ = kept
    pictures = cli.report_of(experiment).draw(result)
    assert set(pictures) == {"curves", "confusions"}
    accuracy, macro, loss = pictures["curves"].figure.axes[:3]
    for axes, name in ((accuracy, "accuracy"), (macro, "macro_f1")):
        np.testing.assert_allclose(
            axes.lines[0].get_ydata(), result.arrays[name][0, 1:]
        )
        drawn = [line.get_ydata()[0] for line in axes.lines[-2:]]
        np.testing.assert_allclose(
            drawn, [row[name][0] for row in result.numbers["models"][:2]]
        )
    np.testing.assert_allclose(loss.lines[0].get_ydata(), result.arrays["loss"][0])


@pytest.mark.parametrize(
    ("network", "verdict"),
    [
        ([0.99, 0.98, 1.0], "Yes:"),
        ([0.9, 0.89, 0.91], "No:"),
        ([0.97, 0.95, 0.99], "Not for certain:"),
        ([0.99, None, None], "Not for certain:"),
    ],
)
def test_the_verdict_is_that_of_the_interval(kept, network, verdict):
    numbers = kept[0].numbers | {"dataset": experiment.CLAIM}
    models = [row | {"accuracy": [0.96, None, None]} for row in numbers["models"]]
    numbers["models"] = [*models[:2], models[2] | {"accuracy": network}]
    assert (
        cli.report_of(experiment).answer(runs.Findings({}, numbers)).startswith(verdict)
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"words": 0}, "words must be a positive integer; got words=0"),
        (
            {"rates": ()},
            r"rates must be positive, ascending, at least one; got rates=\(\)",
        ),
        (
            {"rates": (np.nan,)},
            r"rates must be positive, ascending, at least one; got rates=\(nan,\)",
        ),
        (
            {"epochs": (3, 1)},
            r"epochs must be positive, ascending, at least one; got epochs=\(3, 1\)",
        ),
        (
            {"held_out": 1.0},
            "held_out must be a share between 0 and 1; got held_out=1.0",
        ),
        (
            {"held_out": 0.999},
            (
                "held_out=0.999 leaves 0 stories for training, and none of topic 0. "
                "Hold out fewer"
            ),
        ),
        (
            {"dataset": "novels"},
            "dataset must be reuters_r8 or fabricated; got dataset='novels'",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        cli.conduct(experiment, dataclasses.replace(TINY, **wrong))


@pytest.mark.thorough(
    "a training of its own; test_training.py has the law of divergence"
)
def test_training_that_diverges_is_refused_by_its_rate():
    with pytest.raises(
        ValueError, match=r"The Transformer at rate 1e\+30 diverges in step \d"
    ):
        cli.conduct(experiment, dataclasses.replace(TINY, rates=(1e30,)))


def test_the_best_that_was_tried_is_what_is_trained(monkeypatch):
    scores = {
        1e-3: np.nan,
        2e-3: 0.9,
        4e-3: 0.9,
    }  # NaN is that of a training that diverged.
    trained = []

    def train(job, config, split, halves, watch, parts):
        trained.append(job)
        probabilities = np.eye(3)[split.test_y]
        curve = np.array([0.0, scores[job.rate]])
        arrays = {
            "accuracy": curve,
            "macro_f1": curve,
            "loss": curve[1:],
            "probabilities": probabilities,
        }
        return Saved(
            arrays,
            {"seconds": 1.0, "parameters": 1, "symbols": 1, "first_bad_step": -1},
        )

    monkeypatch.setattr(experiment, "train", train)
    result = cli.conduct(experiment, dataclasses.replace(TINY, rates=tuple(scores)))
    assert [job.rate for job in trained] == [
        1e-3,
        2e-3,
        4e-3,
        2e-3,
        2e-3,
    ]  # Of equals the first.
    assert [job.seed for job in trained] == [experiment.CHOICE_SEED] * 3 + [0, 1]
    assert result.numbers["rate"] == 2e-3
