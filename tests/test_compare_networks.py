"""Laws of a comparison on networks: schedules, scores, what chooses, equal loss, kill
and resume.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import compare_networks as experiment
from research import (
    cli,
    descent,
    figures,
    losses,
    models,
    runs,
    samplers,
    update_rules,
)
from research.comparison.network_contenders import (
    DECAYS,
    muon_with_adam,
    network_contenders,
    scheduled,
    training_schedule,
)
from research.comparison.networks import (
    FACTORS,
    WORST,
    compare_networks,
    conclude_networks,
    log_lengths,
)
from research.comparison.protocol import make_protocol
from research.tuning import Range
from research.types import Batch, Saved
from research.workloads.networks import (
    NETWORKS,
    make_network,
    network_workload,
)

TERMS = {
    "searches": 2,
    "budget": 4,
    "seeds": 3,
    "tuning_seeds": 2,
    "timed": False,
}
ARRAYS = ("chosen", "tuning", "logs", "curves", "accuracy", "update_rms", "rate_scores")


def parts(shift=0.0):
    """Two blobs in four dimensions, in three parts."""
    x = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    y = (np.arange(96) % 2).astype(np.int32)
    x[:, 0] += 2.0 * y
    cut = [slice(0, 48), slice(48, 72), slice(72, 96)]
    made = [Batch(jnp.asarray(x[one]), jnp.asarray(y[one])) for one in cut]
    return (*made[:2], made[2]._replace(x=made[2].x + shift))


@functools.cache
def network(shift=0.0):
    model = models.mlp((4, 6, 2), dtype="float32")
    return network_workload(
        "blobs",
        model,
        losses.softmax_cross_entropy,
        *parts(shift),
        batch_size=8,
        num_epochs=4,
    )


@functools.cache
def study():
    return compare_networks(["lion", "adam"], network(), **TERMS)


def cell(found, rule):
    return next(one for one in found.numbers["cells"] if one["rule"] == rule)


@pytest.mark.thorough("the other shares of warm-up", but=r"0\.2")
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.5])
def test_schedules_are_those_of_optax(warmup):
    steps, peak = 50, 0.3
    rising = int(warmup * steps)
    left = steps - rising
    falls = {
        "linear": optax.linear_schedule(peak, 0.0, left),
        "cosine": optax.cosine_decay_schedule(peak, left),
        "late linear": optax.linear_schedule(
            peak, 0.0, round(0.2 * left), round(0.8 * left)
        ),
    }
    for number, name in enumerate(DECAYS):
        for kind in (number, number + 0.9):
            schedule = training_schedule(peak, warmup, kind, steps)
            found = [float(schedule(t)) for t in range(steps)]
            rise = [peak * (t + 1) / rising for t in range(rising)]
            fall = [float(falls[name](t)) for t in range(left)]
            np.testing.assert_allclose(found, rise + fall, rtol=1e-5, atol=1e-7)


def test_a_schedule_may_be_traced():
    rate = lambda peak, warmup, decay: training_schedule(peak, warmup, decay, 20)(7)
    points = np.random.default_rng(0).random((5, 3)) * [1.0, 0.3, 3.0]
    traced = jax.jit(jax.vmap(rate))(*points.T)
    np.testing.assert_allclose(traced, [rate(*point) for point in points], rtol=1e-6)


def test_the_score_is_the_loss_of_a_training_made_by_itself():
    found, on = study(), network()
    rate, warmup, decay = found.arrays["blobs/adam/chosen"][1]
    schedule = training_schedule(rate, warmup, decay, on.num_steps)
    key = jax.random.key(found.numbers["protocol"]["seeds"][2])
    trained = descent.train(
        on.workload.objective,
        optax.adam(schedule),
        on.workload.train,
        samplers.minibatch(48, 8),
        num_epochs=4,
        params=on.workload.init(jax.random.fold_in(key, descent.INIT)),
        key=jax.random.fold_in(key, descent.EPOCHS),
    )
    loss = float(on.workload.objective(trained.params, on.workload.validation))
    np.testing.assert_allclose(
        np.exp(found.arrays["blobs/adam/logs"][1, 2]), loss, rtol=1e-4
    )
    accuracy = float(on.workload.metric(trained.params, on.workload.test))
    assert found.arrays["blobs/adam/accuracy"][1, 2] == pytest.approx(accuracy)
    norms = np.asarray(trained.steps.update_norm)
    count = 4 * 6 + 6 + 6 * 2 + 2
    assert found.arrays["blobs/adam/update_rms"][1, 2] == pytest.approx(
        np.sqrt(np.mean(norms**2) / count), rel=1e-3
    )


def test_the_test_part_changes_nothing_but_the_accuracy():
    other = compare_networks(["lion", "adam"], network(shift=50.0), **TERMS)
    for rule in ("lion", "adam"):
        for name in ARRAYS:
            one, two = (s.arrays[f"blobs/{rule}/{name}"] for s in (study(), other))
            assert np.array_equal(one, two) == (name != "accuracy")


def test_a_rule_that_always_diverges_is_a_result():
    broken = lambda learning_rate: optax.chain(
        optax.sgd(learning_rate), optax.scale(jnp.nan)
    )
    found = compare_networks({"broken": broken, "adam": "adam"}, network(), **TERMS)
    assert "Every training diverged: broken on blobs." in found.answer
    assert cell(found, "broken")["diverged"] == 1
    assert found.numbers["overall"][0]["verdict"] == "worse"
    first = found.arrays["blobs/broken/curves"][:, 0].reshape(2, 3)
    np.testing.assert_allclose(
        np.exp(found.arrays["blobs/broken/logs"]), WORST * first, rtol=1e-6
    )


class KilledError(Exception):
    """The stop of a study from outside."""


@pytest.mark.thorough("an earlier kill", but="4")
@pytest.mark.parametrize("after", [1, 4])
def test_killed_and_repeated_it_ends_with_the_same_bits(tmp_path, after):
    checkpoints, seen = runs.checkpoints_in(tmp_path, 0.0), []

    def kill(done, total, message):
        seen.append(message)
        if len(seen) > after and "adam" in message:
            raise KilledError

    with pytest.raises(KilledError):
        compare_networks(
            ["lion", "adam"],
            network(),
            on_progress=kill,
            checkpoints=checkpoints,
            **TERMS,
        )
    again = compare_networks(
        ["lion", "adam"], network(), checkpoints=checkpoints, **TERMS
    )
    for name, array in study().arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    assert again.answer == study().answer


def test_lengths_invert_the_curve_of_the_baseline():
    factors = np.array(FACTORS)
    curve = 1.0 - 0.3 * np.log(factors)
    lengths = np.linspace(0.5, 2.0, 30)
    logs = np.interp(np.log(lengths), np.log(factors), curve)
    np.testing.assert_allclose(log_lengths(logs, factors, curve), np.log(lengths))
    np.testing.assert_allclose(
        np.exp(log_lengths(np.array([9.0, -9.0]), factors, curve)), [0.5, 2.0]
    )


def made_up(gain, noise=0.01, searches=3, seeds=8):
    """A study of two rules: mine is as good as the baseline with `gain` times the
    steps.
    """
    generator = np.random.default_rng(0)
    curve = lambda factor: 0.5 - 0.2 * np.log(factor)
    facts = {
        "network": "n",
        "hyperparameters": [],
        "chosen": {},
        "evaluations": 1.0,
        "diverged": 0.0,
        "trainings": 1,
    }
    measured = {}
    for rule, factor, seconds in (("mine", gain, 0.002), ("base", 1.0, 0.001)):
        logs = curve(factor) + generator.normal(0, noise, (searches, seeds))
        arrays = {
            "logs": logs,
            "bad": np.zeros(logs.shape, bool),
            "accuracy": np.full(logs.shape, np.nan),
            "update_rms": np.ones(logs.shape),
        }
        values = facts | {"rule": rule, "seconds_per_step": seconds}
        measured["n", rule] = Saved(arrays, values)
    factors = np.array(FACTORS)
    longer = {"n": Saved({"factors": factors, "logs": curve(factors)}, None)}
    protocol = make_protocol(searches=searches, seeds=seeds, tuning_seeds=2)
    return conclude_networks(protocol, "base", ["mine", "base"], measured, longer)


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.5])
def test_a_rule_worth_so_many_times_the_steps_needs_their_inverse(gain):
    (one,) = made_up(gain).numbers["comparisons"]
    assert one["steps_low"] < 1 / gain < one["steps_high"]
    assert one["steps"] == pytest.approx(1 / gain, rel=0.05)
    assert one["seconds"] == pytest.approx(2 * one["steps"])
    assert one["loss_ratio"] == pytest.approx(gain**-0.2, rel=0.02)
    assert one["at_end"] == 0.0
    expected = {0.6: "worse", 1.0: "undecided", 1.5: "better"}
    assert one["verdict"] == expected[gain]


def test_a_loss_that_the_baseline_never_reaches_says_at_most():
    found = made_up(4.0)
    assert found.numbers["comparisons"][0]["at_end"] == 1.0
    (row,) = (row for row in found.tables[0].rows if row[1] == "mine")
    assert re.fullmatch(r"at most 0\.(49|50)\d?", row[8])


def test_muon_with_adam_is_muon_on_matrices_and_adam_elsewhere():
    key = jax.random.key(0)
    params = {"weights": jax.random.normal(key, (5, 3)), "bias": jnp.ones(3)}
    grads = jax.tree.map(jnp.cos, params)
    rule = muon_with_adam(0.1, 0.02)
    updates, _ = rule.update(grads, rule.init(params), params)
    muon, adam = update_rules.muon(0.1, consistent_rms=0.2), optax.adam(0.02)
    alone = {"weights": params["weights"]}, {"bias": params["bias"]}
    for inner, own in zip((muon, adam), alone, strict=True):
        part = {name: grads[name] for name in own}
        expected, _ = inner.update(part, inner.init(own), own)
        for name in own:
            np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5)


def test_contenders_search_rates_and_schedule_and_nothing_else():
    muon, adam, sgd = network_contenders(
        {"muon": "muon", "adam": "adam", "mine": optax.sgd}
    )
    assert list(muon.space)[:2] == ["learning_rate", "adam_learning_rate"]
    for one in (muon, adam, sgd):
        assert list(one.space)[-2:] == ["warmup", "decay"]
    assert list(adam.space) == ["learning_rate", "warmup", "decay"]
    values = {"learning_rate": 0.1, "warmup": 0.0, "decay": 0.0}
    rule = scheduled(sgd, 10).make_rule(**values)
    state = rule.init(jnp.ones(()))
    for t in range(10):
        update, state = rule.update(jnp.ones(()), state, jnp.ones(()))
        assert float(update) == pytest.approx(-0.1 * (1 - t / 10), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "gru_vowels"])
def test_named_networks_are_in_float32_and_their_parts_have_one_form(name):
    made = make_network(name)
    workload = made.workload
    params = jax.eval_shape(workload.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    for part in (workload.train, workload.validation, workload.test):
        if part is None:
            continue
        value = jax.eval_shape(workload.objective, params, part)
        assert (value.shape, value.dtype) == ((), np.dtype("float32"))
    large = make_network(name, size="large")
    count = lambda one: sum(
        int(np.prod(leaf.shape))
        for leaf in jax.tree.leaves(
            jax.eval_shape(one.workload.init, jax.random.key(0))
        )
    )
    assert count(large) > 3 * count(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": "mlp_digit"}, "unknown network 'mlp_digit'; did you mean"),
        ({"networks": []}, "at least one"),
        ({"size": "huge", "networks": "mlp_digits"}, "size must be 'small' or 'large'"),
        ({"rules": ["adam"]}, "two rules or more"),
        ({"baseline": "adma"}, "baseline='adma'"),
        ({"searches": 1}, "searches must be at least 2"),
        ({"seeds": 2}, "at least 3 seeds"),
        ({"spaces": {"adma": {}}}, "does not take part"),
    ],
)
def test_bad_input_is_shown_before_any_training(change, message):
    arguments = {"rules": ["lion", "adam"], "networks": network()} | TERMS | change
    with pytest.raises(ValueError, match=message):
        compare_networks(**arguments)


def test_a_network_without_validation_or_with_too_large_a_batch_is_refused():
    model = models.mlp((4, 6, 2), dtype="float32")
    train, validation, _ = parts()
    make = functools.partial(
        network_workload, "mine", model, losses.softmax_cross_entropy, train
    )
    with pytest.raises(ValueError, match="needs a validation part"):
        make(None)
    with pytest.raises(ValueError, match="more than the 48 training examples of mine"):
        make(validation, batch_size=49)


def test_given_ranges_replace_those_of_the_rates():
    spaces = {"adam": {"learning_rate": Range(0.2, 0.4)}}
    (adam,) = network_contenders(["adam"], spaces=spaces)
    assert adam.space["learning_rate"] == Range(0.2, 0.4)


TINY = experiment.Config(
    rule=("lion", "adamw"),
    network=("mlp_digits",),
    searches=2,
    budget=2,
    seeds="0..2",
    tuning_seeds="10..13",
    devices=1,
)


@pytest.mark.thorough("the experiment itself; every part of it has a law above")
def test_the_experiment_answers_and_draws(tmp_path):
    result = cli.conduct(experiment, TINY)
    assert "times the validation loss" in result.answer
    assert [row[1] for row in result.tables[0].rows].count("adamw") == 1
    for name, picture in cli.report_of(experiment).draw(result).items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 0
