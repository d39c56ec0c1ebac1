"""The language experiment: its recipe against optax's, its two ways of reading by hand,
and a small run from end to end.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import _characters as characters
from experiments import character_language_model as experiment
from experiments.reports import _characters as characters_report
from research import cli, figures, runs
from research.runs.result import result_bytes

COMPILE_QUICKLY = True  # tests/conftest.py

TINY = dataclasses.replace(
    experiment.FAST, seeds="0..1", steps=8, longer_steps=8, evaluate_every=4, warmup=3
)


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {"result": "a small run from end to end; make test has that of spoken_words"}


@pytest.fixture(scope="module")
def result():
    return cli.conduct(experiment, TINY)


def hashed(result):
    return {name: runs.hash_arrays(array) for name, array in result.arrays.items()}


@pytest.mark.on_ci("twenty steps without jit; nothing shorter shows this")
def test_rule_is_optaxs_adamw_with_warmup_cosine_and_clipping():
    job = characters.Job("gpt", 0, 8, 1e-2)
    params = {"weights": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, TINY.warmup, job.steps, 1e-3)
    matrices = {"weights": True, "bias": False}
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b2=0.99, weight_decay=0.1, mask=matrices, eps=1e-8),
    )
    ours = experiment.make_rule(TINY, job)
    states: list[Any] = [ours.init(params), theirs.init(params)]
    walks: list[Any] = [params, params]
    rng = np.random.default_rng(0)
    for _ in range(10):
        grads = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params
        )
        for i, rule in enumerate((ours, theirs)):
            updates, states[i] = rule.update(grads, states[i], walks[i])
            walks[i] = optax.apply_updates(walks[i], updates)
    np.testing.assert_allclose(walks[0]["weights"], walks[1]["weights"], rtol=1e-9)
    np.testing.assert_allclose(walks[0]["bias"], walks[1]["bias"], rtol=1e-9)


@pytest.mark.parametrize("context", [4, 5])
def test_both_ways_of_reading_guess_each_character_once(context):
    tokens = np.arange(43)
    parts = characters.Parts("numbers", (), tokens, tokens)
    guessed = lambda starts: (starts[:, None] + 1 + np.arange(context)).astype(
        float
    )  # As if each cost its place.
    settings = characters.settings_of(dataclasses.replace(TINY, context=context))
    found = characters.whole_losses(settings, parts, guessed)
    whole = 1 + np.arange(42 // context * context)
    assert found["positions"].mean() == pytest.approx(whole.mean())
    half = np.arange(context // 2 + 1, 43)
    half = half[: len(half) // (context - context // 2) * (context - context // 2)]
    assert found["half_full"][0] == pytest.approx(half.mean())


def test_n_grams_stand_first_and_networks_after_them(result):
    costs, orders = result.tables
    assert [row[0].split(",")[0] for row in costs.rows] == ["3-gram"] * 2 + [
        "LSTM",
        "GPT",
    ] * 2
    assert costs.rows[0][1] <= costs.rows[1][1]
    assert [row[0] for row in orders.rows] == [1, 2, 3]
    assert result.numbers["ngram"] == min(
        min(losses) for losses in result.numbers["orders"].values()
    )


def test_curves_begin_at_chance_and_fall(result):
    chance = np.log(result.numbers["symbols"])
    for name in ("gpt/0", "gpt/1", "lstm/0", "gpt_longer/0", "lstm_longer/0"):
        curve = result.arrays[f"{name}/sampled"]
        assert curve[0] == pytest.approx(chance, abs=0.5)
        assert curve[-1] < curve[0] - 0.1
    assert result.arrays["gpt_longer/0/sampled"].shape == (3,)
    assert result.arrays["gpt/0/positions"].shape == (TINY.context,)


def test_interval_is_over_the_seeds_and_the_longer_training_has_none(result):
    means = [result.arrays[f"gpt/{seed}/positions"].mean() for seed in (0, 1)]
    mean, low, high = result.numbers["networks"]["gpt"]["whole"]
    assert mean == pytest.approx(np.mean(means))
    assert (low, high) == (None, None)  # Two seeds have no interval.
    assert result.numbers["networks"]["gpt_longer"]["whole"][1:] == (None, None)


def test_run_answers_and_draws(result, tmp_path, headline_of):
    assert (
        headline_of(result.answer)
        == "NOT THE CLAIM: these results are for python_help; the claim is about"
        " nine_play_shakespeare."
    )
    assert result.answer.endswith(
        "To download it, run: descent data fetch nine_play_shakespeare"
    )
    assert all(
        len(sample) == characters.CHARACTERS
        for sample in result.numbers["samples"].values()
    )
    assert result_bytes(result) == result_bytes(result)
    for name, picture in cli.report_of(experiment).draw(result).items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 10_000


@pytest.mark.parametrize("orders", [1, 2, 3, 8])
def test_caption_names_the_orders_whose_lines_are_drawn(orders):
    losses = 2.0 + (np.arange(orders) - 6) ** 2 / 100  # The least is that of order 7.
    numbers = {
        "orders": {"kneser_ney": losses.tolist()},
        "smoothing": "kneser_ney",
        "order": int(losses.argmin()) + 1,
        "ngram": losses.min(),
        "context": 16,
        "networks": {"gpt": {"sampled": (1.5, None, None)}},
    }
    caption = cli.report_of(experiment).curves_caption(numbers)
    _, axes = figures.new_figure(1, 2)
    characters_report._ngram_lines(axes[0, 0], losses)
    characters_report._ngram_points(axes[0, 1], losses)
    drawn = [int(text.get_text().partition("-")[0]) for text in axes[0, 0].texts]
    heights = [line.get_ydata()[0] for line in axes[0, 0].lines]
    assert drawn == [int(order) for order in re.findall(r"order (\d+)", caption)]
    assert heights == [losses[order - 1] for order in drawn]
    assert all(f"{losses[k - 1]:.2f} (order {k})" in caption for k in drawn)
    labels = axes[0, 1].get_legend_handles_labels()[1]
    words = {1: [], 2: ["n-grams of order 2"]}
    assert labels == words.get(orders, [f"n-grams of order 2 to {orders}"])


class Killed(Exception):
    """An exception that stops a run as a kill would."""


def test_killed_run_goes_on_to_the_bits_of_a_whole_one_with_more_seeds(
    result, tmp_path
):
    config, checkpoints = (
        dataclasses.replace(TINY, seeds="0"),
        runs.checkpoints_in(tmp_path, seconds_between=0.0),
    )

    def kill(done, total, message):
        if done > 0.3 * total:
            raise Killed(message)

    with pytest.raises(Killed, match="GPT, seed 0"):
        cli.conduct(experiment, config, kill, checkpoints)
    seen = []
    again = cli.conduct(
        experiment,
        config,
        lambda done, total, message: seen.append(done / total),
        checkpoints,
    )
    assert hashed(again).items() < hashed(result).items()
    assert again.numbers["samples"] == result.numbers["samples"]
    assert min(seen) > 0.3  # What was there was not computed again.


def test_missing_text_is_replaced_and_said(monkeypatch, capsys):
    def missing(name):
        raise FileNotFoundError(f"{name} needs a file.")

    monkeypatch.setattr(experiment.research.datasets, "text", missing)
    assert experiment.complete(experiment.Config()).text == "python_help"
    assert "needs a file. Using python_help instead." in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):  # Asked for by name, it is not replaced.
        cli.conduct(experiment, dataclasses.replace(TINY, text="tiny_shakespeare"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"text": "hamlet"},
            "text must be one of nine_play_shakespeare.*got text='hamlet'",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1; got batch_size=0"),
        ({"characters": -5}, "characters must be at least 0; got characters=-5"),
        ({"lstm_rate": 0.0}, "lstm_rate must be at least 1e-12; got lstm_rate=0.0"),
        (
            {"learning_rate": np.nan},
            "learning_rate must be at least 1e-12; got learning_rate=nan",
        ),
        ({"devices": 0}, "devices must be at least 1; got devices=0"),
        (
            {"steps": 10},
            (
                "steps must be above warmup=3, and a multiple of evaluate_every=4; "
                "got steps=10"
            ),
        ),
        ({"longer_steps": 0}, "longer_steps must be above"),
        ({"orders": 0}, "max_order must be a positive integer"),
        (
            {"characters": 300},
            (
                "the last tenth of 300 characters is too short for two windows of "
                "context=16"
            ),
        ),
    ],
)
def test_bad_config_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        cli.conduct(experiment, dataclasses.replace(TINY, **change))
