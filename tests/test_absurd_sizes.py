"""A size that nobody can mean is refused at once, by name: no process is killed, no
loop never ends, no memory is exhausted.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import (
    comparison,
    datasets,
    descent,
    models,
    optima,
    report,
    runs,
    samplers,
    sizes,
    statistics,
    tuning,
    update_rules,
    verification,
    workloads,
)
from research.datasets._log_mel import frames, mel_weights
from research.datasets._vowels import padded
from research.datasets.sequence_preparation import inside, interpolate_steps
from research.derivatives import fornberg_weights
from research.derivatives.critical import grid_of_starts
from research.models import initialisers
from research.statistics import bootstrap as resampling
from research.statistics import searches
from research.statistics.scores import Scores
from research.tuning import search, spaces, timing
from research.types import Batch

TEXT, KEY = np.array([0, 1, 2, 1, 0, 1, 2] * 5), jax.random.key(0)
SCORES = Scores(np.ones((2, 3)), np.ones((2, 3)), 10.0)
RULE, DATA = update_rules.gradient_descent, Batch(jnp.ones((4, 2)), jnp.ones(4))
SPACE = {"a": tuning.Range(0.1, 1.0, "log")}
SMALL = {"width": 4, "num_layers": 1, "num_heads": 2}
LOSS = lambda params, batch: jnp.mean((batch.x @ params - batch.y) ** 2)


def quadratic():
    return workloads.make_workload("quadratic")


def begun(make):
    return lambda size: make(size).init(KEY)


def decoder(**changes):
    return models.transformer_decoder(
        **({"vocabulary_size": 5, "context": 4, **SMALL} | changes)
    )


def encoder(**changes):
    return models.transformer_encoder(
        **({"vocabulary_size": 5, "context": 4, "num_classes": 3, **SMALL} | changes)
    )


def network(**changes):
    arguments = {
        "image_shape": (6, 6, 1),
        "num_classes": 3,
        "channels": (2,),
        "hidden": (),
    }
    return models.cnn(**(arguments | changes))


def generated(**changes):
    model = decoder()
    shapes = jax.eval_shape(model.init, KEY)
    return models.generate(
        model,
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        KEY,
        jnp.array([0, 1]),
        **({"num_tokens": 3, "context": 4} | changes),
    )


def states_of(rule):
    return rule.init(jnp.ones(3))


def trained(num_epochs):
    start = {"params": jnp.ones(2), "key": KEY}
    return descent.train(
        LOSS, RULE(0.1), DATA, samplers.full_batch(4), num_epochs=num_epochs, **start
    )


CALLS = {
    "full_batch n": samplers.full_batch,
    "minibatch n": lambda size: samplers.minibatch(size, 3),
    "minibatch n, with replacement": lambda size: samplers.minibatch(
        size, 3, replacement=True
    ),
    "stochastic n": samplers.stochastic,
    **{
        f"{name} num_features": begun(getattr(models, name))
        for name in ("linear", "logistic")
    },
    "softmax num_features": begun(lambda size: models.softmax(size, 3)),
    "softmax num_classes": begun(lambda size: models.softmax(3, size)),
    "mlp sizes": begun(lambda size: models.mlp([2, size, 2])),
    "cnn image_shape": begun(lambda size: network(image_shape=(size, 6, 1))),
    **{
        f"cnn {name}": begun(lambda size, name=name: network(**{name: size}))
        for name in ("num_classes", "kernel_size", "stride", "pool", "padding")
    },
    "cnn channels": begun(lambda size: network(channels=(size,))),
    "cnn hidden": begun(lambda size: network(hidden=(size,))),
    **{
        f"recurrent {name}": begun(
            lambda size, name=name: models.recurrent(
                **({"num_inputs": 2, "num_hidden": 3, "num_outputs": 2} | {name: size})
            )
        )
        for name in (
            "num_inputs",
            "num_hidden",
            "num_outputs",
            "num_layers",
            "embedding",
            "window",
        )
    },
    **{
        f"{make.__name__} {name}": begun(
            lambda size, name=name, make=make: make(**{name: size})
        )
        for make in (decoder, encoder)
        for name in (
            "vocabulary_size",
            "context",
            "width",
            "num_layers",
            "num_heads",
            "hidden",
        )
    },
    "encoder num_classes": begun(lambda size: encoder(num_classes=size)),
    "causal_mask length": models.causal_mask,
    "sinusoidal_positions context": lambda size: models.sinusoidal_positions(size, 4),
    "random_shift pixels": models.random_shift,
    "random_crop padding": models.random_crop,
    "initialiser shape": lambda size: initialisers.he_normal(
        KEY, (size, 2), jnp.float32
    ),
    "orthogonal shape": lambda size: initialisers.orthogonal(
        KEY, (size, 2), jnp.float32
    ),
    "ngram order": lambda size: models.ngram(TEXT, size, 3),
    "ngram order, of one symbol": lambda size: models.ngram(0 * TEXT, size, 1),
    "best_ngram max_order": lambda size: models.best_ngram(
        TEXT, TEXT, 3, max_order=size
    ),
    "sample_ngram num_tokens": lambda size: models.sample_ngram(
        models.ngram(TEXT, 2, 3), KEY, [0, 1], size
    ),
    "generate num_tokens": lambda size: generated(num_tokens=size),
    "generate context": lambda size: generated(context=size),
    "reader slice_size": lambda size: models.reader(
        decoder(), TEXT % 3, 4, slice_size=size
    ),
    "reader context": lambda size: models.reader(decoder(), TEXT % 3, size),
    "softmax_regression num_classes": lambda size: optima.softmax_regression(
        np.ones((3, 1)), np.array([0, 1, 2]), size, penalty=0.1
    ),
    "interval_in_words digits": lambda size: statistics.interval_in_words(
        (1.0, 0.5, 1.5), size
    ),
    "most_runs budget": lambda size: search.most_runs(size, 3),
    "most_runs seeds": lambda size: search.most_runs(2, size),
    "walk_exactly num_steps": lambda size: verification.walk_exactly(
        verification.CARDS["gradient_descent"].formula.iterates,
        verification.PROBLEMS["quadratic"],
        num_steps=size,
        learning_rate=0.1,
    ),
    "clip_adaptively axis": lambda size: update_rules.clip_adaptively(0.1, axis=size),
    "evaluation_points num_batches": descent.evaluation_points,
    "open_run width": lambda size: runs.open_run("x", {}, "nowhere", width=size),
    "rosenbrock dimension": datasets.rosenbrock,
    "linear_problem n": lambda size: datasets.linear_problem(0, size, 2, 0.1, 1.0),
    "overlapping_classes n": lambda size: datasets.overlapping_classes(0, size, 2, 1.0),
    "overlapping_classes d": lambda size: datasets.overlapping_classes(
        0, 10, size, 1.0
    ),
    "separable_classes d": lambda size: datasets.separable_classes(0, 10, size, 1.0),
    "window_starts num_tokens": lambda size: datasets.window_starts(size, 3),
    "encode length": lambda size: datasets.encode(["a b"], {"a": 1}, size),
    "log_mel rate": lambda size: datasets.log_mel(np.zeros(800), size),
    "log_mel num_mels": lambda size: datasets.log_mel(
        np.zeros(800), 8000, num_mels=size
    ),
    "frames length": lambda size: frames(np.zeros(100), size, 10),
    "mel_weights num_samples": lambda size: mel_weights(8000, size, 4, 20.0, 4000.0),
    "inside num_steps": lambda size: inside(np.array([1]), size),
    "interpolate_steps num_steps": lambda size: interpolate_steps(
        np.ones((1, 2, 1)), np.array([2]), size
    ),
    "padded longest": lambda size: padded([np.ones((2, 1))], size),
    "fornberg_weights order": lambda size: fornberg_weights([0.0, 1.0, 2.0], 0.0, size),
    "grid_of_starts per_axis": lambda size: grid_of_starts([(0, 1), (0, 1)], size),
    "train num_epochs": trained,
    "compile_program num_epochs": lambda size: descent.compile_sweep(
        quadratic(), RULE, samplers.full_batch(1), size
    ),
    "compile_program width": lambda size: descent.compile_sweep(
        quadratic(), RULE, samplers.full_batch(1), 4, width=size
    ),
    "median_interval resamples": lambda size: statistics.median_interval(
        np.arange(5.0), resamples=size
    ),
    "difference resamples": lambda size: statistics.difference(
        SCORES, SCORES, resamples=size
    ),
    "resampled_means resamples": lambda size: resampling.resampled_means(
        np.ones((2, 3)), size, np.random.default_rng(0)
    ),
    **{
        f"make_protocol {name}": lambda size, name=name: comparison.make_protocol(
            **{name: size}
        )
        for name in (
            "searches",
            "budget",
            "passes",
            "batch_size",
            "seeds",
            "tuning_seeds",
            "width",
            "search_seed",
        )
    },
    "search budget": lambda size: search.search(
        SPACE, size, [0, 1], np.random.default_rng(0)
    ),
    "best_of_trials resamples": lambda size: searches.best_of_trials(
        np.ones((2, 3, 4)), resamples=size
    ),
    "trials count": lambda size: spaces.trials(SPACE, size),
    "choose_rate added": lambda size: tuning.choose_rate(
        np.abs, [0.1, 0.2], added=size
    ),
    "time_alone num_epochs": lambda size: timing.time_alone(
        quadratic(), RULE, samplers.full_batch(1), {}, size
    ),
    "interleaved_timing repeats": lambda size: tuning.interleaved_timing(
        [lambda: 0], size
    ),
    "parse_seeds seeds": lambda size: runs.parse_seeds(f"0..{min(size, 2**31 - 1)}"),
    "muon ns_steps": lambda size: update_rules.muon(0.1, ns_steps=size),
    "lbfgs memory_size": lambda size: update_rules.lbfgs(memory_size=size),
    "saga num_examples": lambda size: states_of(update_rules.saga(0.1, size)),
    "workload n": lambda size: workloads.make_workload("noisy_quadratic", n=size),
    "workload dimension": lambda size: workloads.make_workload(
        "quadratic", dimension=size
    ),
}
SAID = {
    "pool": "window",
    "padding": "padding",
    "max_order": "order",
    "rate": "rate",
    "num_heads": "num_heads",
}


@pytest.mark.parametrize("size", [2**40, 10**30, 10**400])
@pytest.mark.parametrize("call", CALLS)
def test_absurd_size_is_refused_at_once_by_name(call, size):
    argument = call.partition(",")[0].split(" ")[-1]
    began = time.process_time()
    with pytest.raises(
        (ValueError, TypeError),
        match=rf"(?i)\b({argument}|{SAID.get(argument, argument)})\b",
    ):
        CALLS[call](size)
    assert time.process_time() - began < 5


def test_parameters_may_be_counted_that_no_memory_holds():
    model = models.mlp([10**6, 10**6])
    assert models.count_parameters(jax.eval_shape(model.init, KEY)) == 10**12 + 10**6
    with pytest.raises(
        ValueError,
        match=r"parameters of shape \(1000000, 1000000\) would need an array",
    ):
        model.init(KEY)


def test_limits_let_what_is_meant_pass():
    sizes.check_most(3, a=3, b=None, c=0.5, d="x")
    sizes.check_room("n", 1000, 1000)
    with pytest.raises(ValueError, match=r"a must be at most 3; got a=1\.0e\+30"):
        sizes.check_most(3, a=10**30)
    with pytest.raises(ValueError, match="a=an integer of 5,000 digits"):
        sizes.check_most(3, a=10**5000)
    with pytest.raises(
        ValueError, match="n would need an array of 1000000000000 x 8 entries, 64000 GB"
    ):
        sizes.check_room("n", 10**12, 8)


def test_a_number_of_a_table_may_be_larger_than_a_float():
    assert report.shown(-(10**400)) == "−1.00×10⁴⁰⁰"
    assert report.shown(2**1000) == "1.07×10³⁰¹"


@pytest.mark.parametrize("bad", [float("nan"), 1.5, "3", None, True, -1])
@pytest.mark.parametrize(
    "call", ["log_mel num_mels", "reader context", "clip_adaptively axis"]
)
def test_what_is_no_size_is_refused_by_name(call, bad):
    if call.endswith("axis") and (bad is None or (bad == -1 and bad is not True)):
        return  # All axes, and the last one.
    with pytest.raises((ValueError, TypeError), match=call.split(" ")[-1]):
        CALLS[call](bad)
