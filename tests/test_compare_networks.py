"""Laws of a comparison on networks: schedules, scores, what chooses, equal loss, kill
and resume.
"""

import functools
import json
import re
import types

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
from research.cli import compare_networks as command
from research.comparison import _searching, network_tables, networks
from research.comparison.contenders import Contender
from research.comparison.network_contenders import (
    DECAYS,
    muon_with_adam,
    network_contenders,
    schedule_of,
    scheduled,
    training_schedule,
)
from research.comparison.networks import (
    LENGTH_FACTORS,
    WORST,
    compare_networks,
    compute_network_share,
    conclude_networks,
    log_lengths,
)
from research.comparison.protocol import make_protocol
from research.figures.network_studies import draw_network_study
from research.leaderboard import page
from research.statistics import searched_difference
from research.statistics.measured import at_most
from research.tuning import Range
from research.tuning.search import search_all
from research.types import Batch, Checkpoint, Saved
from research.workloads.networks import (
    NETWORKS,
    make_network,
    network_workload,
)

COMPILE_QUICKLY = True  # tests/conftest.py
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
    """One epoch, so that the baseline has one other length, of two: each compiles
    anew. The experiment has all five (make test-all).
    """
    model = models.mlp((4, 6, 2), dtype="float32")
    return network_workload(
        "blobs",
        model,
        losses.softmax_cross_entropy,
        *parts(shift),
        batch_size=2,
        num_epochs=1,
    )


@functools.cache
def study():
    return compare_networks(["lion", "adam"], network(), **TERMS)


def cell(found, rule):
    return next(one for one in found.numbers["cells"] if one["rule"] == rule)


@pytest.mark.on_ci("test_schedules.py has each schedule")
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
            found = jax.jit(jax.vmap(schedule))(np.arange(steps))
            rise = peak * (np.arange(rising) + 1) / rising
            fall = jax.jit(jax.vmap(falls[name]))(np.arange(left))
            expected = np.concatenate([rise, fall])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.on_ci("traced schedules; nothing shorter shows this")
def test_a_schedule_may_be_traced():
    rate = lambda peak, warmup, decay: training_schedule(peak, warmup, decay, 20)(7)
    points = np.random.default_rng(0).random((5, 3)) * [1.0, 0.3, 3.0]
    traced = jax.jit(jax.vmap(rate))(*points.T)
    np.testing.assert_allclose(traced, [rate(*point) for point in points], rtol=1e-6)


@pytest.mark.on_ci("a whole study; nothing shorter shows this")
def test_the_score_is_the_loss_of_a_training_made_by_itself():
    found, on = study(), network()
    rate, warmup, decay = found.arrays["blobs/adam/chosen"][1]
    schedule = training_schedule(rate, warmup, decay, on.num_steps)
    key = jax.random.key(found.numbers["protocol"]["seeds"][2])
    trained = descent.train(
        on.workload.objective,
        optax.adam(schedule),
        on.workload.train,
        samplers.minibatch(48, 2),
        num_epochs=1,
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


@pytest.mark.on_ci("two whole studies; nothing shorter shows this")
def test_the_test_part_changes_nothing_but_the_accuracy():
    other = compare_networks(["lion", "adam"], network(shift=50.0), **TERMS)
    for rule in ("lion", "adam"):
        for name in ARRAYS:
            one, two = (s.arrays[f"blobs/{rule}/{name}"] for s in (study(), other))
            assert np.array_equal(one, two) == (name != "accuracy")


@functools.cache
def odd_study():
    """One study of two rules that are unlike the others: each beside adam."""
    broken = lambda learning_rate: optax.chain(
        optax.sgd(learning_rate), optax.scale(jnp.nan)
    )
    return compare_networks(
        {"broken": broken, "nosy": nosy, "adam": "adam"},
        network(),
        evaluations={"nosy": 7.0},
        **TERMS,
    )


def comparison(found, rule):
    """A rule's comparison with the baseline, and its verdict over all networks."""
    return (
        next(one for one in found.numbers[table] if one["rule"] == rule)
        for table in ("comparisons", "overall")
    )


@pytest.mark.on_ci(
    "a whole study; test_rules_that_all_diverge_get_no_factor tests the words about "
    "such rules"
)
def test_a_rule_that_always_diverges_is_a_result():
    found = odd_study()
    assert cell(found, "broken")["robust_low"] is None
    assert cell(found, "adam")["robust_low"] is not None
    assert "Every training diverged: broken on blobs." in found.answer
    assert cell(found, "broken")["diverged"] == 1
    _, overall = comparison(found, "broken")
    assert overall["verdict"] == "worse"
    first = found.arrays["blobs/broken/curves"][:, 0].reshape(2, 3)
    np.testing.assert_allclose(
        np.exp(found.arrays["blobs/broken/logs"]), WORST * first, rtol=1e-6
    )


class KilledError(Exception):
    """The stop of a study from outside."""


@pytest.mark.thorough(
    "a study that is killed; test_a_share_is_what_the_study_reads has what is read "
    "again, test_training.py a killed training"
)
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
    factors = np.array(LENGTH_FACTORS)
    curve = 1.0 - 0.3 * np.log(factors)
    lengths = np.linspace(0.5, 2.0, 30)
    logs = np.interp(np.log(lengths), np.log(factors), curve)
    np.testing.assert_allclose(log_lengths(logs, factors, curve), np.log(lengths))
    np.testing.assert_allclose(
        np.exp(log_lengths(np.array([9.0, -9.0]), factors, curve)), [0.5, 2.0]
    )


def made_up(gain, noise=0.01, searches=3, seeds=8, slope=-0.2):
    """A study of two rules: mine is as good as the baseline with `gain` times the
    steps.
    """
    generator = np.random.default_rng(0)
    curve = lambda factor: 0.5 + slope * np.log(factor)
    facts = {
        "warmup": None,
        "decay": None,
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
    factors = np.array(LENGTH_FACTORS)
    longer = {"n": Saved({"factors": factors, "logs": curve(factors)}, None)}
    protocol = make_protocol(searches=searches, seeds=seeds, tuning_seeds=2)
    return conclude_networks(protocol, "base", ["mine", "base"], measured, longer)


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.5])
def test_a_rule_worth_so_many_times_the_steps_needs_their_inverse(gain):
    found = made_up(gain)
    (one,) = found.numbers["comparisons"]
    assert one["steps_low"] < 1 / gain < one["steps_high"]
    # The curve of the baseline is 0.5 - 0.2 log length.
    logs = (found.arrays[f"n/{rule}/logs"] for rule in ("mine", "base"))
    steps = searched_difference([tuple((each - 0.5) / 0.2 for each in logs)])
    ends = one["steps_low"], one["steps_high"]
    np.testing.assert_allclose(ends, (steps.low, steps.high), rtol=1e-12)
    assert one["steps"] == pytest.approx(1 / gain, rel=0.05)
    assert one["seconds"] == pytest.approx(2 * one["steps"])
    assert one["loss_ratio"] == pytest.approx(gain**-0.2, rel=0.02)
    assert one["at_end"] == 0.0
    expected = {0.6: "worse", 1.0: "undecided", 1.5: "better"}
    assert one["verdict"] == expected[gain]


def test_a_loss_that_the_baseline_never_reaches_says_at_most():
    found = made_up(4.0)
    for one in comparison(found, "mine"):
        assert one["at_end"] == 1.0
    (row,) = (row for row in found.tables[0].rows if row[1] == "mine")
    assert re.fullmatch(r"at most 0\.(49|50)\d?", row[8])
    assert f"It needs {row[8]} [" in found.answer
    entry = types.SimpleNamespace(comparison=found.numbers["comparisons"][0])
    assert page._steps(entry).text.startswith("at most 0.")


def test_rules_that_all_diverge_get_no_factor():
    numbers = made_up(1.0).numbers
    for each in numbers["cells"]:
        each["reported_diverged"] = 1.0
    told = network_tables.answer(numbers)
    assert told.startswith("All trainings of mine and base on n diverged. So this")
    assert "smallest factor" not in told
    (row,) = (row for row in network_tables.losses_table(numbers).rows if "mine" in row)
    assert row[5:11] == ("both diverged", "", "undecided", *["not measured"] * 3)


def test_each_rule_has_its_own_detectable_factor():
    numbers = made_up(1.5).numbers
    (one,) = numbers["overall"]
    for factors, end in (
        ([1.7], "is 1.7."),
        ([1.0021], "is 1.002."),
        ([6.06e5, 1.7], "is 1.7 to 6.06e+05, depending on the rule."),
    ):
        overall = [one | {"detectable": factor} for factor in factors]
        told = network_tables.answer(numbers | {"overall": overall})
        assert f"factor of the loss that this study could detect {end}" in told


def test_seconds_for_equal_loss_are_said_to_be_a_ratio():
    table = network_tables.losses_table(made_up(1.5).numbers)
    assert "seconds for equal loss, times base's" in table.columns


def test_a_ratio_of_steps_is_a_bound_if_most_runs_leave_the_range():
    for steps, at_end, words in (
        (0.5, 0.6, "at most "),
        (2.0, 0.6, "at least "),
        (0.5, 0.5, ""),
        (0.5, None, ""),
        (None, 1.0, ""),
    ):
        assert at_most({"steps": steps, "at_end": at_end}) == words
    assert at_most({"steps": 0.5}) == ""  # An older study.


@pytest.mark.parametrize(
    ("slope", "measured"), [(0.2, False), (0.03, True), (-0.03, True)]
)
def test_steps_are_not_measured_if_the_baseline_overfits_by_more_than_noise(
    slope, measured
):
    found = made_up(1.5, noise=0.05, slope=slope)
    for one in comparison(found, "mine"):
        assert (one["steps"] is not None) == measured
        assert (one["at_end"] is not None) == measured


@pytest.mark.on_ci("40 studies of made-up numbers; nothing shorter shows this")
def test_equal_rules_on_many_networks_rarely_have_a_verdict():
    """The level is that of a study: of all verdicts of its table together."""
    generator, verdicts = np.random.default_rng(0), []
    names = [f"n{number}" for number in range(8)]
    template = made_up(1.0).numbers["cells"][0]
    protocol = make_protocol(searches=3, seeds=8, tuning_seeds=2)
    longer = Saved({"factors": np.array(LENGTH_FACTORS), "logs": np.zeros(5)}, None)
    for _ in range(40):
        measured = {}
        for network in names:
            for rule in ("mine", "base"):
                arrays = {
                    "logs": generator.normal(0, 0.05, (3, 8)),
                    "bad": np.zeros((3, 8), bool),
                    "accuracy": np.full((3, 8), np.nan),
                    "update_rms": np.ones((3, 8)),
                }
                facts = template | {"rule": rule, "network": network}
                measured[network, rule] = Saved(arrays, facts)
        found = conclude_networks(
            protocol,
            "base",
            ["mine", "base"],
            measured,
            dict.fromkeys(names, longer),
        )
        rows = found.numbers["comparisons"]
        verdicts.append(any(one["verdict"] != "undecided" for one in rows))
    # 5 % are promised; of 40 studies, 6 or more are improbable.
    assert sum(verdicts) <= 5


@pytest.mark.parametrize(
    ("first", "last", "when"),
    [(-0.1, 0.5, "began"), (0.0, 0.5, "began"), (1, -1, "ended")],
)
def test_a_loss_that_has_no_log_is_refused(first, last, when):
    score = lambda first, last, step=-1: networks._score(
        types.SimpleNamespace(
            values=np.array([[0.4, 0.5], [first, last]]),
            first_bad_step=np.array([-1, step]),
        )
    )
    with pytest.raises(ValueError, match=f"a training {when} with a validation loss"):
        score(first, last)
    logs, bad = score(0.4, np.nan, 3)
    np.testing.assert_allclose(np.exp(logs), [0.5, 4.0])
    np.testing.assert_array_equal(bad, [False, True])


def drawn(passes, steps=(0.5, 0.5), nets=("one", "two")):
    """The pictures of a made-up study of two networks, by name."""
    names = ("mine", "base")
    ends = {"steps_low": 0.4, "steps_high": 0.6}
    facts = {"rule": "mine", "baseline": "base"} | ends
    numbers = {
        "rules": list(names),
        "baseline": "base",
        "networks": list(nets),
        "protocol": {"level": 0.95},
        "cells": [
            {"network": net, "rule": name} | ({"passes": passes} if passes else {})
            for net in nets
            for name in names
        ],
        "comparisons": [
            facts | {"network": net, "steps": ratio}
            for net, ratio in zip(nets, steps, strict=True)
        ],
        "overall": [facts | {"steps": None if None in steps else 0.5}],
    }
    curves = np.exp(-np.arange(12.0).reshape(3, 4))
    arrays = {f"{net}/{name}/curves": curves for net in nets for name in names}
    return draw_network_study(numbers, arrays)


def test_curves_are_drawn_at_their_passes_over_the_data():
    passes = [0.0, 0.25, 1.0, 2.0]
    for given, shown, label in (
        (passes, passes, "passes over the data"),
        (None, [0, 1, 2, 3], "evaluation"),  # An older study does not say.
    ):
        panel = drawn(given)["curves"].figure.axes[0]
        assert panel.get_xlabel() == label
        for line in panel.lines:
            np.testing.assert_array_equal(line.get_xdata(), shown)


@pytest.mark.parametrize("steps", [(0.5, 0.5), (None, 0.5), (None, None)])
def test_the_legend_of_the_steps_names_each_rule_that_has_a_dot(steps):
    picture = drawn(None, steps)["steps"]
    labels = [
        text.get_text() for one in picture.figure.legends for text in one.get_texts()
    ]
    assert labels == ["mine"] * (steps != (None, None))
    assert ("not measured" in picture.caption) == (None in steps)


def test_a_network_named_all_has_a_dot_of_its_own():
    panel = drawn(None, (0.6, 0.7), ("all", "two"))["steps"].figure.axes[0]
    dots = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "o"]
    assert dots == [0.6, 0.7, 0.5]  # The last one is that of all networks together.
    assert [one.get_text() for one in panel.get_yticklabels()] == ["all", "two", "all"]


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


@pytest.mark.thorough("the other networks", but="mlp|autoencoder")
@pytest.mark.on_ci("the autoencoder", but="mlp")
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
        ({"spaces": {"adma": {}}}, "spaces names 'adma', which is not a rule"),
        ({"budget": 3}, "too small to search 3 hyper-parameters of lion"),
        ({"budget": 4, "rules": ["muon", "adam"]}, "4 hyper-parameters of muon"),
        ({"spaces": {"lion": {"warmup": Range(0.0, 1.5, "linear")}}}, "longer than"),
        ({"spaces": {"lion": {"decay": Range(0.0, 9.0, "linear")}}}, "decay of lion"),
        ({"rules": {"gap": lambda rate: gap(rate), "adam": "adam"}}, "gap"),
        (
            {"rules": {"nosy": lambda rate: nosy(rate), "adam": "adam"}},
            "nosy evaluates",
        ),
        ({"rules": {"vast": lambda rate: vast(rate), "adam": "adam"}}, "vast on blobs"),
        ({"rules": {"lengths": optax.sgd, "adam": "adam"}}, "the name 'lengths'"),
    ],
)
def test_bad_input_is_shown_before_any_training(change, message):
    arguments = {"rules": ["lion", "adam"], "networks": network()} | TERMS | change
    with pytest.raises(ValueError, match=message):
        compare_networks(**arguments)


def test_a_study_keeps_the_place_of_its_lengths():
    with pytest.raises(ValueError, match="a rule cannot have the name 'lengths'"):
        conclude_networks(make_protocol(), "b", ["lengths", "b"], {}, {})


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (Batch(jnp.zeros((4, 5)), jnp.zeros(4, int)), "an axis of 4 features"),
        (Batch(jnp.zeros((4, 4)), jnp.full(4, 7)), "labels must be whole numbers"),
        (Batch(jnp.zeros((4, 4)), jnp.zeros(3, int)), "the same number of examples"),
        (Batch(jnp.zeros((0, 4)), jnp.zeros(0, int)), "no examples"),
    ],
)
def test_a_wrong_test_part_is_named_before_any_training(test, message):
    wrong = network()._replace(workload=network().workload._replace(test=test))
    with pytest.raises(ValueError, match=f"the test part of blobs: .*{message}"):
        compare_networks(["lion", "adam"], wrong, **TERMS)


def test_an_error_of_jax_about_a_part_of_the_data_stays_its_own():
    branching = lambda params, batch: params["w"] if batch.x.sum() > 0 else 0.0
    workload = network().workload._replace(objective=branching)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        compare_networks(
            ["lion", "adam"], network()._replace(workload=workload), **TERMS
        )


@pytest.mark.parametrize("name", ["", "n\n1", "\x1b[31mred", "n" * 101])
def test_a_name_that_no_table_can_show_is_refused(name):
    model = models.mlp((4, 2), dtype="float32")
    with pytest.raises(ValueError, match="name must be a printable text of 1 to 100"):
        network_workload(name, model, losses.softmax_cross_entropy, *parts())


@pytest.mark.on_ci("two whole studies; nothing shorter shows this")
def test_json_can_store_the_numbers_of_a_study():
    for found in (study(), odd_study()):
        json.dumps(found.numbers, allow_nan=False)


@pytest.mark.parametrize("warmup", ["0.1", None, np.ones(2)])
def test_a_warm_up_that_is_no_number_is_refused_by_name(warmup):
    with pytest.raises(TypeError, match="warmup must be a number"):
        training_schedule(0.1, warmup, 0.0, 10)


def gap(rate):
    """A rule for a leaf that the network does not have."""
    return update_rules.by_group(
        {"own": optax.sgd(rate), "rest": optax.adam(rate)},
        {"no_such_layer": "own", "layers": "rest"},
    )


def nosy(rate):
    """A rule that evaluates the objective on all training examples."""

    def update(updates, state, params=None, *, value_fn, **extra):
        value = value_fn(params, indices=None)
        return jax.tree.map(lambda g: -rate * value * g, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def vast(rate):
    """A rule whose state has 40 TB for each of the 24 params of a matrix."""

    def init(params):
        return jax.tree.map(lambda x: jnp.zeros((*x.shape, 10**7, 10**6)), params)

    return optax.GradientTransformation(
        init, lambda updates, state, params=None: (updates, state)
    )


def test_a_rule_of_ones_own_gets_the_rate_of_each_step():
    def mine(rate):
        update = lambda g, state, params=None: (
            jax.tree.map(lambda g: -rate * g, g),
            state,
        )
        return optax.GradientTransformation(optax.init_empty_state, update)

    rules = network_contenders({"mine": mine, "sgd": optax.sgd})
    values = {"warmup": 0.2, "decay": 1.0}
    own, usual = (
        scheduled(one, 20).make_rule(**values, **{name: 0.3})
        for one, name in zip(rules, ("rate", "learning_rate"), strict=True)
    )
    params, grads = jnp.zeros(2, jnp.float32), jnp.ones(2, jnp.float32)
    states = [own.init(params), usual.init(params)]
    for _ in range(20):
        one, states[0] = own.update(grads, states[0], params)
        other, states[1] = usual.update(grads, states[1], params)
        assert one.dtype == params.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.on_ci("a whole study; nothing shorter shows this")
def test_stated_evaluations_admit_a_rule_and_count_in_gradients():
    one, _ = comparison(odd_study(), "nosy")
    assert one["gradients"] == pytest.approx(7 * one["steps"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": {"validation": None}}, "has no validation part"),
        ({"workload": {"train": None}}, "has no training part"),
        ({"batch_size": 49}, "more than the 48 training examples"),
        ({"num_epochs": 0}, "num_epochs"),
        ({"workload": {"objective": lambda p, b: jnp.ones(2)}}, r"must be a number"),
        ({"workload": {"validation": parts()[1]._replace(y=jnp.full(24, 7))}}, "got 7"),
        ({"workload": {"objective": lambda p, b: -jnp.ones(())}}, "must be positive"),
    ],
)
def test_a_network_that_cannot_be_scored_is_refused(change, message):
    workload = network().workload._replace(**change.pop("workload", {}))
    wrong = network()._replace(workload=workload, **change)
    with pytest.raises(ValueError, match=message):
        compare_networks(["lion", "adam"], [wrong], **TERMS)


@pytest.mark.thorough(
    "a study of its own; test_a_rule_that_always_diverges_is_a_result has one rule"
)
def test_a_network_that_diverges_at_every_point_is_a_result():
    objective = network().workload.objective

    def torn(params, batch):
        """Its value is that of the objective, and its gradient is NaN."""
        nothing = 0.0 * jnp.sum(params["dense_1"]["bias"] ** 2)
        return objective(params, batch) + jnp.sqrt(nothing)

    lost = network()._replace(workload=network().workload._replace(objective=torn))
    found = compare_networks(["lion", "adam"], lost, **TERMS)
    assert "Every training diverged: lion on blobs, adam on blobs." in found.answer
    assert "All trainings of lion and adam on blobs diverged." in found.answer
    (one,) = found.numbers["comparisons"]
    assert (one["steps"], one["loss_ratio"], one["verdict"]) == (None, 1.0, "undecided")
    (row,) = (row for row in found.tables[0].rows if row[1] == "lion")
    assert row[8:11] == ("not measured",) * 3


@pytest.mark.on_ci("a whole study, in two shares; nothing shorter shows this")
def test_a_share_is_what_the_study_reads(tmp_path):
    checkpoints, seen = runs.checkpoints_in(tmp_path, 0.0), []
    arguments = (["lion", "adam"], network())
    for part in (1, 0):
        compute_network_share(*arguments, part, 2, checkpoints=checkpoints, **TERMS)
    found = compare_networks(
        *arguments,
        checkpoints=checkpoints,
        on_progress=lambda done, total, message: seen.append(message),
        **TERMS,
    )
    assert not [message for message in seen if "run " in message]
    for name, array in study().arrays.items():
        np.testing.assert_array_equal(array, found.arrays[name])


@pytest.mark.on_ci(
    "five shares of a study; test_compare.py has the names of a comparison without "
    "networks"
)
def test_the_name_of_a_checkpoint_says_which_network_and_rule_it_holds():
    def names(hidden=6, loss=losses.softmax_cross_entropy, rule=update_rules.adam):
        seen = []

        def kept(name):
            seen.append(name)
            return Checkpoint(lambda: Saved({}, {}), lambda saved: None, lambda: False)

        model = models.mlp((4, hidden, 2), dtype="float32")
        on = network_workload("blobs", model, loss, *parts(), batch_size=2)
        rules = {"a": rule, "base": optax.sgd(0.1)}
        compute_network_share(rules, on, 0, 1, checkpoints=kept, **TERMS)
        return seen

    first = names()  # Two rules, and other lengths of the baseline.
    assert names() == first
    assert len({*first}) == 3
    twice = lambda prediction, y: 2 * losses.softmax_cross_entropy(prediction, y)
    assert not {*first} & ({*names(60)} | {*names(loss=twice)})
    other = names(rule=functools.partial(optax.adam, b1=0.8))
    assert other[0] != first[0]
    assert other[1:] == first[1:]


@pytest.mark.on_ci(
    "a sweep of a network; test_sweep.py has a linear model with a rule that averages"
)
def test_the_accuracy_of_a_rule_that_averages_is_that_of_its_average():
    program = descent.compile_sweep(
        network().workload,
        lambda learning_rate: update_rules.schedule_free_adamw(learning_rate),
        samplers.minibatch(48, 8),
        4,
        evaluate_on=("validation",),
        width=1,
    )
    result = descent.sweep(program, {"seed": [3], "learning_rate": [0.1]})
    params = jax.tree.map(lambda leaf: leaf[0], result.params)
    loss = network().workload.objective(params, network().workload.validation)
    assert float(loss) == pytest.approx(result.values[0, -1], rel=1e-5)


@pytest.mark.on_ci("a sweep of a network; nothing shorter shows this")
def test_one_run_computes_one_branch_of_a_rule():
    seen = []

    def counted(rate):
        def update(updates, state, params=None):
            refresh = lambda: jax.debug.callback(lambda: seen.append(1))
            jax.lax.cond(state % 6 == 0, refresh, lambda: None)
            return jax.tree.map(lambda g: -rate * g, updates), state + 1

        return optax.GradientTransformation(lambda p: jnp.zeros((), jnp.int32), update)

    program = descent.compile_sweep(
        network().workload,
        counted,
        samplers.minibatch(48, 8),
        4,
        hyperparameters=("rate",),
        width=1,
    )
    descent.sweep(program, {"seed": [3], "rate": [0.1]})
    jax.effects_barrier()
    assert len(seen) == 4  # 24 steps.


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


def test_a_schedule_that_is_not_searched_is_the_same_for_all_rules():
    adam, free, prodigy = network_contenders(
        ["adam", "schedule_free_adamw", "prodigy"], search_schedule=False
    )
    assert [list(one.space) for one in (adam, free, prodigy)] == [
        ["learning_rate"],
        ["learning_rate"],
        ["distance_factor"],
    ]
    assert schedule_of(adam, {}) == schedule_of(prodigy, {}) == (0.1, 0.0)
    assert schedule_of(free, {}) == (0.1, None)
    (searched,) = network_contenders(["schedule_free_adamw"])
    assert list(searched.space) == ["learning_rate", "warmup"]


@pytest.mark.thorough("shampoo, which compiles longest", but="prodigy|free")
@pytest.mark.on_ci("schedule_free_adamw", but="prodigy")
@pytest.mark.parametrize("name", ["prodigy", "schedule_free_adamw", "shampoo"])
def test_a_rule_with_its_own_form_follows_the_schedule_that_is_stated(name):
    (one,) = network_contenders([name], search_schedule=False)
    values = {hyper: range_.default for hyper, range_ in one.space.items()}
    peak = values.get("learning_rate", 1.0)
    rate = training_schedule(peak, *schedule_of(one, {}), 20)
    plain = {
        "prodigy": update_rules.prodigy(rate, distance_factor=1.0),
        "schedule_free_adamw": update_rules.schedule_free_adamw(rate),
        "shampoo": update_rules.shampoo(
            rate, b2=0.999, eps=1e-12, refresh_every=10, graft=update_rules.adam
        ),
    }[name]
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    mine, other = scheduled(one, 20).make_rule(**values), plain

    @functools.partial(jax.jit, static_argnums=0)
    def end(rule):
        def step(_, carry):
            place, state = carry
            grads = jax.tree.map(jnp.sin, place)
            moved, state = rule.update(grads, state, place)
            return optax.apply_updates(place, moved), state

        return jax.lax.fori_loop(0, 20, step, (params, rule.init(params)))[0]

    places = [end(mine), end(other)]
    for leaf, wanted in zip(*map(jax.tree.leaves, places), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-9)


def test_given_ranges_replace_those_of_the_rates():
    spaces = {"adam": {"learning_rate": Range(0.2, 0.4)}}
    (adam,) = network_contenders(["adam"], spaces=spaces)
    assert adam.space["learning_rate"] == Range(0.2, 0.4)


def test_given_ranges_are_checked_as_those_of_other_comparisons():
    rate = {"learning_rate": Range(1e-4, 1.0)}
    beta = {"beta": Range(0.1, 0.99, "one_minus")}

    def mine(learning_rate, beta):
        return optax.sgd(learning_rate, momentum=beta)

    for rule, given, names in (
        (mine, beta, ["learning_rate", "beta"]),
        (lambda **values: optax.sgd(**values), rate, ["learning_rate"]),
        (
            lambda momentum, learning_rate: optax.sgd(0.1),
            rate | {"momentum": beta["beta"]},
            ["learning_rate", "momentum"],
        ),
        (
            "muon",
            {"adam_learning_rate": Range(0.1, 0.2)},
            ["learning_rate", "adam_learning_rate"],
        ),
    ):
        (one,) = network_contenders({"mine": rule}, spaces={"mine": given})
        assert list(one.space) == [*names, "warmup", "decay"]
    for rule, given, message in (
        (optax.adam(1e-3), rate, "already built"),
        (optax.adam(1e-3), {"warmup": Range(0.0, 0.1, "linear")}, "no schedule"),
        (optax.sgd, beta, "no argument 'beta'"),
        ("muon", beta, "no argument 'beta'"),
        (mine, rate, "mine needs beta"),
    ):
        with pytest.raises(ValueError, match=message):
            network_contenders({"mine": rule}, spaces={"mine": given})


def test_a_given_range_of_another_hyperparameter_is_searched_and_stays_constant():
    space = {"b1": Range(0.5, 0.9, "linear"), "warmup": Range(0.0, 0.1, "linear")}
    (adam,) = network_contenders(["adam"], spaces={"adam": space})
    assert list(adam.space) == ["learning_rate", "b1", "warmup", "decay"]
    values = {"learning_rate": 0.3, "b1": 0.5, "warmup": 0.0, "decay": 0.0}
    one = scheduled(adam, 4).make_rule(**values)
    other = optax.adam(training_schedule(0.3, 0.0, 0.0, 4), b1=0.5)
    params = jnp.ones(2)
    states = [one.init(params), other.init(params)]
    for grad in (params, -0.3 * params):
        step, states[0] = one.update(grad, states[0], params)
        wanted, states[1] = other.update(grad, states[1], params)
        np.testing.assert_allclose(step, wanted, rtol=1e-6)


TINY = experiment.Config(
    rule=("lion", "adamw"),
    network=("mlp_digits",),
    searches=2,
    budget=4,
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": ("muonn", "adamw")}, "Did you mean muon"),
        ({"network": ("autoencoder",)}, "did you mean 'autoencoder_digits'"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_before_a_run_begins(given, message):
    # A run folder is made of what `complete` returns.
    with pytest.raises(ValueError, match=message):
        command.complete(command.Config(**given))


@pytest.mark.on_ci("a whole study; nothing shorter shows this")
def test_the_rate_that_is_varied_is_the_learning_rate_wherever_it_stands():
    def mine(momentum=0.9, learning_rate=0.1):
        return update_rules.heavy_ball(learning_rate, momentum)

    ranges = {
        "momentum": Range(0.1, 0.5, "one_minus"),
        "learning_rate": Range(0.01, 0.1),
    }
    contenders = network_contenders({"mine": mine}, spaces={"mine": ranges})
    protocol = make_protocol(
        searches=2, budget=5, seeds=3, tuning_seeds=2, tune_on="validation", width=1
    )
    assert next(iter(contenders[0].space)) == "momentum"
    found = networks.measure_on_network(network(), contenders[0], protocol, timed=False)
    assert found.values["rate_name"] == "learning_rate"
    middle = found.arrays["rates"][len(networks.AROUND) // 2]
    assert middle == found.values["chosen"]["learning_rate"]


@pytest.mark.parametrize(("budget", "tuning_seeds"), [(16, 60), (32, 8), (8, 16)])
def test_the_memory_holds_the_runs_that_the_searches_ask_for_at_once(
    budget, tuning_seeds
):
    (contender,) = network_contenders(["adam"])
    protocol = make_protocol(
        searches=2, budget=budget, seeds=3, tuning_seeds=tuning_seeds
    )
    searches = _searching.start_searches(contender.space, protocol, "blobs", "adam")
    asked = []

    def evaluate(wanted):
        asked.append(sum(len(runs.seeds) for runs in wanted))
        return [np.log(runs.values["learning_rate"]) for runs in wanted]

    search_all(searches, evaluate)
    # For the baseline's other lengths, and around the best rate, there are fewer runs.
    fewer = max(2 * 3, len(networks.AROUND) * min(3, tuning_seeds // 2))
    assert networks._most_runs_at_once(contender, protocol) == max(*asked, fewer)


def test_a_contender_keeps_its_own_space():
    space = {"learning_rate": Range(1e-4, 1.0), "b1": Range(0.0, 0.99, "one_minus")}
    given = Contender("mine", update_rules.adam, space)
    for rules in ([given], {"mine": given}):
        (one,) = network_contenders(rules)
        assert list(one.space) == ["learning_rate", "b1", "warmup", "decay"]
    short = {"learning_rate": Range(1e-4, 1.0), "warmup": Range(0.0, 0.05, "linear")}
    mine = Contender("mine", lambda learning_rate, **others: optax.sgd(1.0), short)
    (one,) = network_contenders([mine])
    assert one.space["warmup"] == short["warmup"]
    later = {"mine": {"warmup": Range(0.1, 0.2, "linear")}}
    (one,) = network_contenders([mine], spaces=later)
    assert one.space["warmup"] == Range(0.1, 0.2, "linear")


def test_the_rate_of_a_partial_schedule_free_rule_does_not_decay():
    part = functools.partial(update_rules.schedule_free_adamw, b2=0.95)
    (one,) = network_contenders({"free": part})
    assert "decay" not in one.space
    assert schedule_of(one, {"learning_rate": 0.1})[1] is None


@pytest.mark.parametrize("size", ["medium", 3, np.array(["small", "large"])])
def test_a_size_that_no_network_has_is_refused_also_where_no_network_needs_it(size):
    with pytest.raises(ValueError, match="size must be 'small' or 'large'; got size="):
        compare_networks(["lion", "adam"], network(), **TERMS, size=size)


@pytest.mark.on_ci("two networks, each with a gradient; nothing shorter shows this")
def test_a_study_says_where_a_network_of_the_user_starts():
    part = Batch(jnp.eye(8, dtype="float32"), jnp.arange(8) % 2)
    model = models.mlp((8, 4, 2), dtype="float32")
    loss = losses.softmax_cross_entropy
    found = [
        networks._start(network_workload("n", model, one, part, part, batch_size=4))
        for one in (loss, lambda z, y: 0.1 * loss(z, y))
    ]
    params = model.init(jax.random.key(0))
    logits = jax.vmap(lambda x: model.apply(params, x))(part.x[:4])
    mean = jax.vmap(loss)(logits, part.y[:4]).mean()
    assert found[0]["loss"] == pytest.approx(float(mean), rel=1e-5)
    for name in ("loss", "gradient"):
        assert found[1][name] == pytest.approx(0.1 * found[0][name], rel=1e-5)
