"""The modern GPT: its rule by hand, its parts, the text that it reads, and a run of
which the trainings are replaced.
"""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import _characters as plain
from experiments import character_language_model
from experiments import modern_language_model as experiment
from research import cli, figures, runs, types, update_rules

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

FAST = experiment.FAST
# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "trained": "a small run from end to end; make test has that of spoken_words"
}


def shapes(without=(), config=FAST):
    model = experiment.build(experiment.describe(config, parts(), without))
    return jax.eval_shape(model.init, jax.random.key(0))


def parts():
    return plain.Parts("numbers", ("a", "b", "\n"), np.arange(90), np.arange(10))


def leaves(tree):
    """Shapes by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.on_ci("a whole network; nothing shorter shows this")
def test_rule_is_muon_in_the_blocks_and_adam_elsewhere_at_one_falling_rate():
    config = dataclasses.replace(FAST, steps=8, evaluate_every=4, warmup=2)
    rng = np.random.default_rng(0)

    def draw() -> Any:
        return {
            "tokens": rng.normal(size=(5, 4)),
            "block_1": {
                "weights": rng.normal(size=(4, 6)),
                "scale": rng.normal(size=4),
            },
        }

    def split(tree: Any) -> Any:
        others = {"tokens": tree["tokens"], "scale": tree["block_1"]["scale"]}
        return {"weights": tree["block_1"]["weights"]}, others

    params, rule = draw(), experiment.make_rule(config)
    muon = update_rules.muon(1.0, consistent_rms=0.2)
    adam = update_rules.adam(1.0, b2=0.99)
    matrix, others = split(params)
    states: list[Any] = [rule.init(params), muon.init(matrix), adam.init(others)]
    step_of_rule, step_of_muon = jax.jit(rule.update), jax.jit(muon.update)
    for step in range(9):
        grads = draw()
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads)))
        clipped = jax.tree.map(lambda leaf, norm=norm: leaf / max(norm, 1.0), grads)
        found: list[Any] = [None] * 3
        found[0], states[0] = step_of_rule(grads, states[0], params)
        matrix, others = split(params)
        for i, (step_of, grad, own) in enumerate(
            zip(
                (step_of_muon, adam.update),
                split(clipped),
                (matrix, others),
                strict=True,
            )
        ):
            found[i + 1], states[i + 1] = step_of(grad, states[i + 1], own)
        rate = config.learning_rate * np.interp(step, [0, 2, 8], [0.0, 1.0, 0.0])
        decay = config.weight_decay * matrix["weights"]
        in_blocks, elsewhere = split(found[0])
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-12)
        close(in_blocks["weights"], rate * (found[1]["weights"] - decay))
        for name in elsewhere:
            close(elsewhere[name], rate * found[2][name])
        params = optax.apply_updates(params, found[0])


def test_each_part_changes_only_what_it_names():
    config = dataclasses.replace(FAST, width=96)
    whole = leaves(shapes(config=config))
    assert not any("bias" in name or "positions" in name for name in whole)
    changed = {
        part: {
            name for name, _ in leaves(shapes((part,), config)).items() ^ whole.items()
        }
        for part in experiment.PARTS
    }
    assert changed["rotary"] == {"positions/weights"}
    assert all(name.endswith("/bias") for name in changed["rms"])
    assert changed["gate"] == {
        f"block_1/{layer}/weights" for layer in ("gate", "dense_1", "dense_2")
    }
    assert all("_normalisation/" in name for name in changed["query_key"])
    for part in ("muon", "linear_decay", "long_context"):
        assert not changed[part]
    settings = experiment.settings_of(FAST, ("long_context",))
    assert (settings.context, settings.batch_size) == (8, 8)  # As many characters.


@pytest.mark.on_ci("the rule without Muon; nothing shorter shows this")
@pytest.mark.thorough("the rate that falls along a line", but="without1")
@pytest.mark.parametrize("without", [("muon",), ("muon", "linear_decay")])
def test_rule_without_muon_is_optaxs_adamw(without):
    config = dataclasses.replace(FAST, steps=8, evaluate_every=4, warmup=2)
    peak = config.learning_rate
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, 2),
            optax.linear_schedule(peak, 0.0, 6)
            if "linear_decay" not in without
            else optax.cosine_decay_schedule(peak, 6, 0.1),
        ],
        [2],
    )
    params = {"tokens": jnp.ones((2, 3)), "block_1": jnp.ones((3, 2))}
    decayed = {"tokens": False, "block_1": True}
    rules = (
        experiment.make_rule(config, without),
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(rate, b2=0.99, weight_decay=0.1, mask=decayed),
        ),
    )
    states: list[Any] = [rule.init(params) for rule in rules]
    rng = np.random.default_rng(0)
    for _ in range(9):
        grads = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params
        )
        updates: list[Any] = [None, None]
        for i, rule in enumerate(rules):
            updates[i], states[i] = rule.update(grads, states[i], params)
        for ours, theirs in zip(*map(jax.tree.leaves, updates), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_choosing_reads_only_the_training_part():
    config = dataclasses.replace(FAST, choose=True)
    whole, found = experiment.read(FAST), experiment.read(config)
    np.testing.assert_array_equal(
        np.concatenate([found.train, found.validation]), whole.train
    )
    assert len(found.validation) == pytest.approx(len(whole.train) / 10, abs=1)


def test_each_is_all_parts_on_every_seed_and_no_part_on_the_first():
    config = dataclasses.replace(FAST, seeds="3..5", without="each")
    variants = experiment.check(config)
    assert [(v.without, v.seed) for v in variants] == [
        *(((), seed) for seed in (3, 4, 5)),
        *(((part,), 3) for part in experiment.PARTS),
    ]


def pretended(config, job, rule, parts, network, on_progress, within):
    """A training that is not done: its losses depend on its name and seed."""
    del rule, parts, network, within
    on_progress(1.0, "done")
    loss = 2.0 - 0.5 * job.seed + len(job.words) / 100
    arrays = {
        "positions": np.full(config.context, loss),
        "half_full": np.array([loss]),
        "sampled": np.linspace(3.0, loss, 3),
        "params/x": np.ones(2),
        "steps/loss": np.ones(2),
    }
    words = {"parameters": 7, "seconds": 60.0, "sample": "To be", "devices": 1}
    return types.Saved(arrays, words)


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr(plain, "train", pretended)
    config = dataclasses.replace(FAST, seeds="0..2", without="each")
    return cli.conduct(experiment, config)


@pytest.mark.thorough(
    "tables and pictures of a run; test_run_loads_what_its_parts_have_trained has a run"
)
def test_counting_stands_first_and_gains_are_of_the_same_seed(result, tmp_path):
    costs, gains, _ = result.tables
    assert [row[0].split(",")[0] for row in costs.rows[:3]] == [
        *("3-gram", "3-gram", "modern GPT")
    ]
    assert costs.rows[2][1] == "1.600"  # Seeds 0, 1, 2: 2.1, 1.6, 1.1.
    assert costs.rows[2][2] == "0.358 to 2.842"  # 1.6 -+ 4.303 * 0.5 / sqrt(3).
    assert [row[0] for row in gains.rows] == [*experiment.PARTS.values()]
    name = "GPT without rotary positions"
    loss = 2.0 + len(name) / 100
    assert gains.rows[0][1:3] == (f"{loss:.3f}", f"{loss - 2.1:+.3f}")
    assert "Not for certain: a" in result.answer
    for name, picture in cli.report_of(experiment).draw(result).items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 10_000


@pytest.mark.on_ci("a run with trainings that are replaced; nothing shorter shows this")
def test_run_loads_what_its_parts_have_trained(monkeypatch, tmp_path):
    trained = []

    def train(config, job, *others):
        trained.append((job.words, job.seed))
        return pretended(config, job, *others)

    monkeypatch.setattr(plain, "train", train)
    checkpoints = runs.checkpoints_in(tmp_path)
    for part in range(2):
        experiment.share(FAST, part, 2, checkpoints)
    assert trained == [("modern GPT", 0), ("modern GPT", 1)]
    cli.conduct(experiment, FAST, None, checkpoints)
    assert len(trained) == 2


class Killed(Exception):
    """An exception that stops a run as a kill would."""


@pytest.fixture(scope="module")
def trained():
    return cli.conduct(experiment, dataclasses.replace(FAST, seeds="0"))


def test_killed_run_goes_on_to_the_bits_of_a_whole_one(trained, tmp_path):
    config = dataclasses.replace(FAST, seeds="0")
    checkpoints = runs.checkpoints_in(tmp_path, seconds_between=0.0)

    def kill(done, total, message):
        if done > 0.6 * total:
            raise Killed(message)

    with pytest.raises(Killed, match="modern GPT, seed 0"):
        cli.conduct(experiment, config, kill, checkpoints)
    again = cli.conduct(experiment, config, None, checkpoints)
    for name, array in trained.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    assert again.numbers["samples"] == trained.numbers["samples"]


@pytest.mark.on_ci("two processes; nothing shorter shows this")
def test_flag_of_the_other_experiment_shows_this_help():
    file = Path(experiment.__file__).with_name("character_language_model.py")
    shown = [
        subprocess.run(
            [sys.executable, file, *words, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for words in (["--modern"], [])
    ]
    assert ["--without" in text for text in shown] == [True, False]
    assert "character_language_model.py --modern" in shown[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"without": "dropout"}, "without must be each, or different names of rotary"),
        ({"without": "rms,rms"}, "got without='rms,rms'"),
        (
            {"weight_decay": -1.0},
            "weight_decay must be at least 0; got weight_decay=-1",
        ),
        ({"text": "hamlet"}, "text must be one of nine_play_shakespeare"),
        ({"steps": 15}, "steps must be above warmup=5, and a multiple of"),
        ({"heads": 3}, "width must be divisible by num_heads"),
        ({"width": 6, "heads": 2}, "width / num_heads must be even"),
        ({"learning_rate": np.nan}, "learning_rate must be at least 1e-12"),
    ],
)
def test_bad_config_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        cli.conduct(experiment, dataclasses.replace(FAST, **change))


def test_a_misspelt_flag_of_another_experiment_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(character_language_model, ["--modren"])
    assert "Did you mean --modern?" in capsys.readouterr().err
