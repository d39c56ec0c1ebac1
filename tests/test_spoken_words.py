"""The experiment on speech: what it keeps apart, what it counts, and what it says; on
made-up recordings.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import research
from experiments import spoken_words as experiment
from research import cli, datasets, runs
from research.datasets import sequence_preparation as preparation
from research.datasets._log_mel import mel, mel_weights
from research.datasets._vowels import SequenceSplit
from research.types import Model, Saved, Sequences, no_checkpoints

SPEAKERS = ("ann", "bob", "cho")
SMALL = dataclasses.replace(
    experiment.FAST, words=experiment.WORDS, rates=(1e-3, 1e-2, 1e-1)
)


def made_up(n=60, steps=6, seed=0):
    """Two classes that differ in which of two numbers comes first, and in nothing
    else.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for size in (n, n // 2):
        y = np.arange(size) % 2
        x = generator.normal(size=(size, steps, 2)) / 5
        x[np.arange(size), 1, y] += 2
        x[np.arange(size), 3, 1 - y] += 2
        length = np.full(size, steps) - np.arange(size) // 2 % 2
        parts += [x.astype(np.float32), length.astype(np.int32), y.astype(np.int32)]
    return SequenceSplit("made up", *parts, ("first", "second"))


def said():
    """Ten tones of each of three speakers, seven times each, of different length."""
    generator, rows = (
        np.random.default_rng(0),
        list(itertools.product(range(10), range(3), range(7))),
    )
    waves = [
        (
            3000 * np.sin(0.1 * (digit + 1) * np.arange(1200 + 97 * speaker))
            + generator.normal(size=1200 + 97 * speaker) * 50
        )
        for digit, speaker, _ in rows
    ]
    digit, speaker, index = np.array(rows, np.int32).T
    return datasets.Recordings(
        [wave.astype(np.int16) for wave in waves], 8000, digit, speaker, index, SPEAKERS
    )


@pytest.mark.thorough("a training; test_training.py has trainings in make test")
def test_a_network_learns_what_only_the_order_tells():
    config = dataclasses.replace(experiment.FAST, epochs=8, num_hidden=8)
    batches = experiment.batches(preparation.standardise_steps(made_up()))
    learn = lambda: experiment.train(
        config,
        batches,
        2,
        True,
        "gru",
        0,
        3e-2,
        lambda share, words: None,
        no_checkpoints,
    )
    saved = learn()
    assert saved.values["accuracy"] > 0.95
    assert 0 < saved.values["loss"] < np.log(2) / 2  # Half of what a guess costs.
    assert saved.values["first_bad_step"] == -1
    # 7 = 8 · √(4/3) / √2: as many as the LSTM's, in two directions.
    assert saved.values["parameters"] == 2 * (3 * 7 * (2 + 7 + 1) + 7 + 2 * (7 + 1))


@pytest.mark.thorough(
    "two networks, which make test does not train; models/test_recurrent.py has each"
)
def test_second_network_reads_each_recording_backwards():
    one = research.models.recurrent(2, 3, 4)
    both = experiment.in_both_directions(one)
    params = both.init(jax.random.key(0))
    values = np.random.default_rng(0).normal(size=(2, 5, 2))
    x = Sequences(jnp.asarray(values), jnp.array([5, 3]))
    turned = values[:, ::-1].copy()
    turned[1] = 7.0  # The end, which is not read.
    turned[1, :3] = values[1, 2::-1]
    turned = Sequences(jnp.asarray(turned), x.length)
    alone = [
        one.apply(params[name], x)
        for name, x in (("forwards", x), ("backwards", turned))
    ]
    np.testing.assert_allclose(both.apply(params, x), sum(alone), rtol=1e-14)


@pytest.mark.on_ci("many draws of noise; nothing shorter shows this")
def test_noise_on_inputs_is_drawn_in_training_alone():
    identity = Model(lambda key: (), lambda params, x, key=None: x.values)
    noisy = experiment.with_noise(identity, 0.5)
    x = Sequences(jnp.zeros((100, 50, 4)), jnp.full(100, 50))
    assert not noisy.apply((), x).any()
    drawn = np.asarray(noisy.apply((), x, jax.random.key(0)))
    assert abs(drawn.std() - 0.5) < 0.01
    assert abs(drawn.mean()) < 0.01


def test_a_warped_band_has_the_energy_at_the_frequency_times_the_factor():
    weights = mel_weights(8000, 2**17, experiment.FRONT_END["num_mels"], 20.0, 4000.0)
    peaks = weights.argmax(axis=0) * 8000 / 2**17
    energy = lambda frequency: np.sin(mel(frequency) / 400)
    for factor in (0.9, 0.97, 1.0, 1.1):
        matrix = np.asarray(experiment.band_weights(jnp.array([factor])))[0]
        there = factor * peaks
        inside = (peaks[0] <= there) & (there <= peaks[-1])
        assert inside.sum() > 15
        np.testing.assert_allclose(
            (matrix @ energy(peaks))[inside], energy(there[inside]), atol=0.01
        )


@pytest.mark.on_ci(
    "warped examples; "
    "test_a_warped_band_has_the_energy_at_the_frequency_times_the_factor has the warp"
)
def test_frequencies_are_warped_in_training_alone_and_by_one_factor_for_each_example():
    identity = Model(lambda key: (), lambda params, x, key=None: x.values)
    warped = experiment.with_warp(identity, 0.1)
    bands = experiment.FRONT_END["num_mels"]
    values = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 2 * bands)))
    x = Sequences(values, jnp.full(5, 3))
    np.testing.assert_array_equal(warped.apply((), x), values)
    out = np.asarray(warped.apply((), x, jax.random.key(0)))
    # A row of a matrix of weights is a mean, so constants stay.
    constant = Sequences(jnp.ones_like(values), x.length)
    np.testing.assert_allclose(
        warped.apply((), constant, jax.random.key(0)), 1.0, rtol=1e-6
    )
    logs = np.linspace(-0.1, 0.1, 401)
    tried = np.asarray(experiment.band_weights(jnp.exp(logs)))
    found = []
    for i in range(5):  # One of the factors explains all steps and both parts.
        parts, made = (np.asarray(a)[i].reshape(3, 2, bands) for a in (values, out))
        errors = np.abs(np.einsum("fkb,tpb->ftpk", tried, parts) - made)
        worst = errors.max(axis=(1, 2, 3))
        assert worst.min() < 0.02
        found.append(logs[worst.argmin()])
    assert len(set(found)) == 5
    assert min(found) < -0.01
    assert max(found) > 0.01


def test_levels_of_a_word_do_not_depend_on_loudness_silence_or_microphone():
    generator = np.random.default_rng(0)
    # One band is much louder than the others, as in a vowel.
    word = generator.uniform(-8, -5, (12, 5)).astype(np.float32)
    word[:, 1] += 5
    levels = preparation.word_levels(word)
    assert levels.shape == word.shape
    np.testing.assert_allclose(np.quantile(levels, 0.9, axis=0), 0, atol=1e-6)
    quiet = np.full((7, 5), -30, np.float32)
    for changed in (
        word + 3,  # Louder.
        np.concatenate([quiet, word, quiet]),
        np.concatenate([word, quiet + generator.normal(size=(7, 5))]),
        np.concatenate([word[:2] - 12, word]),  # A faint sound before the word.
        word + np.linspace(0, 0.5, 5),  # Another microphone.
    ):
        np.testing.assert_allclose(
            preparation.word_levels(changed), levels, rtol=0, atol=2e-6
        )
    for wrong, words in (
        ({"frames": word[0]}, "frames"),
        ({"frames": word * np.nan}, r"frames\[0, 0\]=nan"),
        ({"frames": word[:0]}, "at least one frame"),
        ({"frames": word.astype(int)}, "frames"),
        ({"floor": 0.0}, "floor"),
        ({"margin": -1.0}, "margin"),
        ({"quantile": 1.5}, "quantile"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            preparation.word_levels(**{"frames": word} | wrong)


def test_baseline_is_the_exact_optimum_on_interpolated_steps():
    split = made_up()
    saved = experiment.solve(experiment.batches(split), 2, 4, no_checkpoints)
    flat = [
        preparation.interpolate_steps(x, length, 4).reshape(len(x), -1)
        for x, length in (split[1:3], split[4:6])
    ]
    card = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(
        flat[0], split.train_y
    )
    assert saved.values["accuracy"] == np.mean(card.predict(flat[1]) == split.test_y)
    assert saved.values["parameters"] == 2 * (4 * 2 + 1)


def test_interpolation_is_numpy_s_and_does_not_see_what_stands_after_the_end():
    split = made_up()
    split.train_x[np.arange(6) >= split.train_length[:, None]] = np.nan
    found = preparation.interpolate_steps(split.train_x, split.train_length, 9)
    for row, x, length in zip(found, split.train_x, split.train_length, strict=True):
        for column in range(2):
            at = np.linspace(0, length - 1, 9)
            expected = np.interp(at, np.arange(length), x[:length, column])
            np.testing.assert_allclose(row[:, column], expected, rtol=1e-6, atol=1e-6)


def test_steps_are_standardised_by_the_training_part_alone():
    split = made_up()
    scaled = preparation.standardise_steps(split)
    steps = np.concatenate(
        [
            x[:length]
            for x, length in zip(scaled.train_x, scaled.train_length, strict=True)
        ]
    )
    np.testing.assert_allclose(
        [steps.mean(axis=0), steps.std(axis=0)], [[0, 0], [1, 1]], atol=1e-6
    )
    assert not scaled.train_x[np.arange(6) >= split.train_length[:, None]].any()
    other = preparation.standardise_steps(split._replace(test_x=10 * split.test_x))
    np.testing.assert_array_equal(other.train_x, scaled.train_x)
    shift = (scaled.test_x[0, 0] - split.test_x[0, 0] / steps_sd(split)) * steps_sd(
        split
    )
    np.testing.assert_allclose(shift, -steps_of(split).mean(axis=0), rtol=1e-5)


def steps_of(split):
    return np.concatenate(
        [x[:n] for x, n in zip(split.train_x, split.train_length, strict=True)]
    )


def steps_sd(split):
    return steps_of(split).std(axis=0)


def test_what_is_held_out_is_a_fifth_of_each_class_of_the_training_part():
    split = made_up()
    parted = preparation.hold_out(split, 5, seed=0)
    assert np.bincount(parted.test_y).tolist() == [6, 6]
    rows = lambda x: {row.tobytes() for row in x}
    assert not rows(parted.train_x) & rows(parted.test_x)
    assert rows(parted.train_x) | rows(parted.test_x) == rows(split.train_x)
    assert not rows(parted.test_x) & rows(split.test_x)


def test_no_fold_hears_the_speaker_that_it_asks_about():
    given = said()
    words = [
        np.full((5, 1), speaker, float) + np.arange(5.0)[:, None]
        for speaker in given.speaker
    ]
    splits = preparation.word_splits(given, words, 4)
    assert list(splits) == ["shared", *SPEAKERS]
    shared = splits["shared"]
    assert [len(shared.train_y), len(shared.test_y)] == [60, 150]
    for fold in SPEAKERS:
        assert [len(splits[fold].train_y), len(splits[fold].test_y)] == [140, 70]
    assert shared.train_x.shape == (60, 4, 1)  # Cut to 4 steps.
    voices = [
        np.full((2, 1), 1.0) + np.array([[speaker], [0.0]]) for speaker in given.speaker
    ]
    splits = preparation.word_splits(given, voices, 4)
    for k, fold in enumerate(SPEAKERS):
        assert set(np.unique(splits[fold].test_x[:, 0, 0])) == {1.0 + k}
        assert 1.0 + k not in splits[fold].train_x[:, 0, 0]


@pytest.fixture(scope="module")
def stubbed():
    """A run in which nothing is trained: an accuracy is what `scores` says; and what
    was to be trained.
    """
    seen = []

    def scores(config, batches, num_classes, is_first, cell, seed, rate, watch, parts):
        seen.append((batches, is_first, cell, seed, rate))
        accuracy = (
            0.5
            + 0.05 * ("vanilla", "gru", "lstm").index(cell)
            + 0.01 * seed
            - 0.1 * (not is_first)
        )
        loss = {1e-3: np.nan, 1e-2: 0.3, 1e-1: 0.3 if cell == "gru" else 0.1}[
            rate
        ] + 0.01 * seed
        values = {
            "accuracy": accuracy,
            "loss": loss,
            "seconds": 1.0,
            "first_bad_step": -1,
            "parameters": 7,
        }
        return Saved({}, values)

    baseline = Saved(
        {}, {"accuracy": 0.4, "seconds": 1.0, "first_bad_step": -1, "parameters": 7}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "train", scores)
        patch.setattr(experiment, "solve", lambda *arguments: baseline)
        patch.setattr(datasets, "recordings", said)
        return cli.conduct(experiment, SMALL), seen


def test_rates_are_chosen_by_loss_on_training_examples_and_of_equal_ones_the_smallest(
    stubbed,
):
    result, seen = stubbed
    whole = experiment.read(dataclasses.replace(SMALL, words=""))[0]
    of_test = {row.tobytes() for row in whole.test_x}
    trials = [job for job in seen if job[3] in experiment.CHOICE_SEEDS]
    assert len(trials) == 9 * len(experiment.CHOICE_SEEDS)
    assert len({judge.x.values.tobytes() for (_, judge), *_ in trials}) == len(
        experiment.CHOICE_SEEDS
    )
    for (learn, judge), *_ in trials:
        assert len(learn.y) + len(judge.y) == len(whole.train_y)
        assert not of_test & {
            row.tobytes() for part in (learn, judge) for row in part.x.values
        }
    used = {
        (cell, rate)
        for _, _, cell, seed, rate in seen
        if seed not in experiment.CHOICE_SEEDS
    }
    assert used == {("vanilla", 1e-1), ("gru", 1e-2), ("lstm", 1e-1)}
    np.testing.assert_allclose(
        [row["loss"] for row in result.numbers["tried"]][3:6], [np.nan, 1.31, 1.31]
    )


def test_numbers_are_means_over_seeds_and_over_speakers(stubbed):
    numbers = stubbed[0].numbers
    assert set(experiment.EXPECTED) <= set(numbers)
    gru = numbers["first"][2]
    assert gru["accuracy"] == pytest.approx(
        (0.555, None, None)
    )  # Two seeds have no interval.
    digits = numbers["digits"][2]
    np.testing.assert_allclose(digits["by_speaker"], 0.455)
    np.testing.assert_allclose(
        [numbers["digits_shared_gru"], numbers["digits_left_out_gru"]], 0.455
    )
    assert numbers["parts"] == [60, 150, 70]


def test_answer_tables_and_figures_show_the_baseline_first_and_both_splits(
    stubbed, headline_of
):
    result = stubbed[0]
    assert (
        headline_of(result.answer)
        == "NOT THE CLAIM: these are images of digits, row by row."
    )
    assert "which is the fair score" in result.answer
    assert result.answer.endswith(
        "To download them, run: descent data fetch japanese_vowels"
    )
    without = cli.report_of(experiment).answer(
        runs.Findings(
            {}, result.numbers | {"digits": None, "dataset": "japanese_vowels"}
        )
    )
    assert "Not included: spoken digits." in without
    assert headline_of(without).startswith("On ")
    both = cli.report_of(experiment).answer(
        runs.Findings({}, result.numbers | {"digits": None})
    )
    assert both.endswith("descent data fetch japanese_vowels spoken_digits")
    read = cli.report_of(experiment).answer(
        runs.Findings({}, result.numbers | {"dataset": "japanese_vowels"})
    )
    assert "Not included" not in read
    assert "diverged" not in read
    diverged = cli.report_of(experiment).answer(
        runs.Findings({}, result.numbers | {"diverged": 2})
    )
    assert "2 of the reported trainings diverged" in diverged
    first, digits, tried = result.tables
    assert [table.rows[0][0] for table in (first, digits)] == ["softmax regression"] * 2
    assert len(tried.rows) == 9
    pictures = cli.report_of(experiment).draw(result)
    assert list(pictures) == ["sequences", "accuracy", "voices"]
    assert (
        research.statistics.interval_in_words(result.numbers["digits"][2]["left_out"])
        in pictures["voices"].caption
    )


def test_what_is_not_at_hand_is_replaced_aloud(monkeypatch, capsys):
    def missing():
        raise OSError("It is not here.")

    monkeypatch.setattr(datasets, "vowels", missing)
    monkeypatch.setattr(datasets, "recordings", missing)
    config = experiment.complete(experiment.Config())
    assert (config.dataset, config.words) == (experiment.FALLBACK, "")
    assert capsys.readouterr().err.count("It is not here.") == 2
    assert experiment.complete(experiment.FAST) == experiment.FAST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "vowels"},
            "dataset must be 'japanese_vowels' or 'digits'; got dataset='vowels'",
        ),
        ({"words": "yes"}, "words must be"),
        ({"epochs": 0}, "epochs must be a positive integer; got epochs=0"),
        ({"rates": (1e-2, 1e-3)}, "rates must be positive, ascending"),
        ({"rates": (np.nan,)}, "rates must be positive, ascending"),
    ],
)
def test_config_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        cli.conduct(experiment, dataclasses.replace(experiment.FAST, **changes))
