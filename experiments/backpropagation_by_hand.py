"""Does backpropagation by hand give the gradient of jax.grad, and is it as fast?

Four multilayer perceptrons are differentiated with every activation. The smallest has
layers of 2, 3 and 1 units, as in a classroom. The largest has layers of 784, 256, 256
and 10 units. Each gradient is computed in three ways: by central differences of the
loss, by the chain rule as written in `research.models.backward`, δ_(k-1) = (δ_k W_kᵀ)
φ'(z_(k-1)), and by jax.grad. (δ_k: derivative of the loss with respect to the sums z_k
of layer k; W_k: its weights; φ: activation.) The last two ways are exact, so their
results may differ only by rounding errors. An entry of the gradient is computed by a
chain of sums, with m terms in all. If the sums are computed in another order, the entry
changes by at most about m ε S. Here S is the result of the same chain if all terms are
replaced by their absolute values, and ε is the machine epsilon.

    python experiments/backpropagation_by_hand.py            # one to two minutes

Expected numbers (`EXPECTED`):

- the largest difference between the gradient by hand and jax.grad, divided by the
gradient's largest entry, in units of ε = 2.2e-16;
- the largest difference in an entry, as a share of the bound for this entry;
- the share of entries in which both gradients are equal to the last bit, averaged
over the networks;
- the largest error of central differences, divided by the largest entry;
- for the largest network in float32, the seconds by hand and the seconds of central
differences, both divided by the seconds of jax.grad.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import research

EXPECTED = {
    "largest_difference": (0.0, 8.0),
    "largest_share_of_bound": (0.0, 0.5),
    "share_equal": (0.3, 1.0),
    "difference_error": (1e-10, 1e-3),
    "ratio_of_seconds": (0.75, 1.33),
    "difference_ratio_of_seconds": (1e4, 1e7),
}
TIMES_COMPILATION = True  # So compiled programs are not kept on disk.
ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu", "silu", "gelu")


class Net(NamedTuple):
    """Sizes of a network, size of its batch, and name of its loss."""

    sizes: tuple[int, ...]
    batch: int
    loss: str


NETS = {
    "2-3-1": Net((2, 3, 1), 8, "logistic"),
    "64-32-10": Net((64, 32, 10), 32, "softmax_cross_entropy"),
    "16x9-4": Net((16,) * 9 + (4,), 32, "squared_error"),
    "784-256-256-10": Net((784, 256, 256, 10), 64, "softmax_cross_entropy"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    nets: tuple[str, ...] = tuple(NETS)
    """Networks, named by the sizes of their layers; 16x9 means nine layers of 16 units.
    The answer uses the seconds of the last network."""
    activations: tuple[str, ...] = ACTIVATIONS
    """Activations of the hidden layers."""
    seeds: int = 5
    """Number of random params and batches for each network, activation and dtype."""
    probes: int = 40
    """Number of entries for which central differences are computed. They are computed
    for the first seed only. If the gradient has fewer entries, all are used."""
    repeats: int = 41
    """Number of times that each program is timed, in turns with the others."""


FULL = Config(seeds=20, probes=200, repeats=201)
FAST = Config(nets=("2-3-1",), activations=("tanh",), seeds=2, probes=5, repeats=3)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_count, check_distinct
from research.cli.progress import OnProgress
from research.models import backward
from research.types import Checkpoints

DTYPES = ("float64", "float32")
TIMED = "relu"  # The most common activation of such networks.
# A timed loop has about WORK products, and at least LEAST_STEPS steps. So a smaller
# network takes more steps.
LEAST_STEPS, WORK = 20, 10**6
# Step of central differences in float64: ∛ε balances truncation and rounding.
STEP = 6e-6
WAYS = ("central differences", "by hand", "jax.grad")
# The small network of the figure, with numbers for calculation by hand: tanh, logistic
# loss, y = 1.
EXAMPLE = {
    "x": (1.0, -2.0),
    "w1": ((0.5, -0.4, 0.3), (-0.2, 0.6, 0.1)),
    "b1": (0.1, 0.2, -0.3),
}
EXAMPLE |= {"w2": ((0.7,), (-0.5,), (0.4,)), "b2": (0.2,)}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compare and time every network."""
    check(config)
    found, arrays = {}, example()
    report = on_progress or (lambda done, total, message: None)
    for done, name in enumerate(config.nets):
        report(done, len(config.nets), name)
        compute = lambda parts, name=name: measure(NETS[name], config)
        saved = research.runs.remembered(
            checkpoints or research.types.no_checkpoints, name, compute
        )
        found[name] = summary(NETS[name], saved.arrays)
        arrays |= {f"{name}/{key}": array for key, array in saved.arrays.items()}
    report(len(config.nets), len(config.nets), "done")
    return research.runs.Findings(arrays, facts(config, found))


def check(config: Config):
    """Raise ValueError if the config cannot be run."""
    for field, known in (("nets", NETS), ("activations", ACTIVATIONS)):
        values = getattr(config, field)
        if not values or set(values) - set(known):
            raise ValueError(
                f"{field} must be some of {', '.join(known)}; got {field}={values}."
            )
        check_distinct(field, values)
    for field in ("seeds", "probes", "repeats"):
        check_count(field, getattr(config, field))


def measure(net: Net, config: Config):
    """Measure one network.

    Returns:
      Arrays by name. Differences, shares of equal entries, and shares of the bound have
      shape (activations, dtypes, seeds). Other arrays have the errors of central
      differences and the seconds.
    """
    programs = {
        (a, d): compile_ways(net, a, d) for a in config.activations for d in DTYPES
    }
    compared = np.array(
        [
            compare(net, programs[a, d], a, d, config)
            for a in config.activations
            for d in DTYPES
        ]
    )
    compared = compared.reshape(len(config.activations), len(DTYPES), config.seeds, 3)
    errors = np.array(
        [
            difference_errors(net, programs[a, "float64"][0], a, config)
            for a in config.activations
        ]
    )
    arrays = {
        key: compared[..., i]
        for i, key in enumerate(("differences", "equal", "shares"))
    }
    arrays |= {"errors": errors, "seconds": time_steps(net, config)}
    arrays["compile_seconds"] = np.mean(
        [programs[a, "float32"][1] for a in config.activations], axis=0
    )
    return research.types.Saved(arrays)


def draw_problem(net: Net, activation: str, dtype: str, seed: int):
    """Draw (params, x, y) with NumPy.

    Biases are random too. Otherwise, some units would lie on the kink of the
    activation.
    """
    random = np.random.default_rng([seed, *net.sizes])
    params = {}
    for k, (before, after) in enumerate(
        zip(net.sizes[:-1], net.sizes[1:], strict=True), start=1
    ):
        weights = random.normal(size=(before, after)) * np.sqrt(
            (2 if activation == "relu" else 1) / before
        )
        bias = 0.1 * random.normal(size=after)
        params[f"dense_{k}"] = {
            "weights": weights.astype(dtype),
            "bias": bias.astype(dtype),
        }
    x = random.normal(size=(net.batch, net.sizes[0])).astype(dtype)
    outputs = (net.batch, net.sizes[-1])
    targets = {
        "softmax_cross_entropy": random.integers(0, net.sizes[-1], net.batch),
        "squared_error": random.normal(size=outputs).astype(dtype),
        "logistic": random.integers(0, 2, outputs),
    }
    return params, x, targets[net.loss]


def num_params(net: Net):
    """Return the number of weights and biases."""
    return sum(
        (before + 1) * after
        for before, after in zip(net.sizes[:-1], net.sizes[1:], strict=True)
    )


def ways_of(net: Net, activation: str, dtype: str):
    """Return the loss and the two gradients as functions of (params, x, y).

    Returns:
      Dict with "value", "by hand" and "jax.grad". The last two return the loss and the
        gradient.
    """
    one = getattr(research.losses, net.loss)
    loss = (
        (lambda z, y: jnp.sum(jax.vmap(one)(z, y))) if net.loss == "logistic" else one
    )
    risk = research.objectives.empirical_risk(
        research.models.mlp(net.sizes, activation=activation, dtype=dtype), loss
    )
    value = lambda params, x, y: risk(params, research.types.Batch(x, y))
    by_hand = functools.partial(
        research.models.mlp_value_and_gradient, activation=activation, loss=net.loss
    )
    return {"value": value, WAYS[1]: by_hand, WAYS[2]: jax.value_and_grad(value)}


def compile_ways(net: Net, activation: str, dtype: str):
    """Compile the functions, and return them with the compilation time of each."""
    arguments, calls, seconds = draw_problem(net, activation, dtype, 0), {}, []
    for name, function in ways_of(net, activation, dtype).items():
        start = time.perf_counter()
        calls[name] = jax.jit(function).lower(*arguments).compile()
        seconds.append(time.perf_counter() - start)
    return calls, seconds


def time_steps(net: Net, config: Config):
    """Measure the seconds of one loss and of one descent step with both gradients.

    The result has shape (repeats, 3). The steps run in a compiled loop, as in a
    training. A single call from Python would cost more than the gradient of a small
    network.
    """
    activation = TIMED if TIMED in config.activations else config.activations[0]
    params, x, y = jax.device_put(draw_problem(net, activation, "float32", 0))
    ways = ways_of(net, activation, "float32")

    def move(name: str, params: Any, x: Any, y: Any):
        if name == "value":
            # The params must change, or XLA would compute the loss only once.
            off = 1e-9 * ways[name](params, x, y)
            return jax.tree.map(lambda p: p - off, params)
        return jax.tree.map(
            lambda p, g: p - 1e-6 * g, params, ways[name](params, x, y)[1]
        )

    @functools.partial(jax.jit, static_argnums=0)
    def loop(name: str, params: Any, x: Any, y: Any, steps: int):
        return jax.lax.fori_loop(
            0, steps, lambda _, moved: move(name, moved, x, y), params
        )

    steps = max(LEAST_STEPS, WORK // (num_params(net) * net.batch))
    calls = [lambda name=name: loop(name, params, x, y, steps) for name in ways]
    return research.tuning.interleaved_timing(calls, config.repeats) / steps


def compare(net: Net, program: tuple, activation: str, dtype: str, config: Config):
    """Compare the gradient by hand with jax.grad for each seed.

    Returns:
      Three numbers for each seed: the largest difference divided by the largest entry,
      in units of ε; the share of entries that are equal; and the largest ratio of a
      difference to its bound.
    """
    calls, rows = program[0], []
    bound = jax.jit(
        functools.partial(
            research.models.mlp_rounding_bound, activation=activation, loss=net.loss
        )
    )
    for seed in range(config.seeds):
        arguments = draw_problem(net, activation, dtype, seed)
        trees = (
            calls["by hand"](*arguments)[1],
            calls["jax.grad"](*arguments)[1],
            bound(*arguments),
        )
        hand, theirs, most = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
            for tree in trees
        )
        off = np.abs(hand.astype(float) - theirs)
        share = np.divide(off, most, out=np.zeros_like(off), where=off > 0)
        rows.append(
            (
                off.max() / np.abs(theirs).max() / np.finfo(dtype).eps,
                np.mean(hand == theirs),
                share.max(),
            )
        )
    return rows


def difference_errors(
    net: Net, calls: dict[str, Callable], activation: str, config: Config
):
    """Return errors of central differences at random entries of the gradient.

    The errors are divided by the largest entry of the gradient.
    """
    params, x, y = draw_problem(net, activation, "float64", 0)
    leaves, form = jax.tree.flatten(params)
    flat, ends = (
        np.concatenate([leaf.ravel() for leaf in leaves]),
        np.cumsum([leaf.size for leaf in leaves]),
    )
    gradient = np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves(calls["jax.grad"](params, x, y)[1])]
    )

    def value(point: np.ndarray):
        parts = [
            part.reshape(leaf.shape)
            for part, leaf in zip(np.split(point, ends[:-1]), leaves, strict=True)
        ]
        return float(calls["value"](jax.tree.unflatten(form, parts), x, y))

    errors = []
    for i in np.random.default_rng(0).choice(
        flat.size, min(config.probes, flat.size), replace=False
    ):
        ahead, behind = flat.copy(), flat.copy()
        ahead[i] += STEP
        behind[i] -= STEP
        errors.append(
            abs((value(ahead) - value(behind)) / (ahead[i] - behind[i]) - gradient[i])
        )
    return np.array(errors) / np.abs(gradient).max()


def summary(net: Net, arrays: dict[str, np.ndarray]):
    """Return the results of one network, as JSON.

    The names of times contain "seconds".
    """
    by_dtype = {
        "largest_difference": np.max,
        "share_equal": np.mean,
        "largest_share_of_bound": np.max,
    }
    parts = zip(by_dtype.items(), ("differences", "equal", "shares"), strict=True)
    # Central differences compute the loss twice for each parameter.
    seconds = arrays["seconds"] * [2 * num_params(net), 1, 1]
    ratios = [
        [*map(float, research.statistics.median_interval(way / seconds[:, 2]))]
        for way in seconds.T[:2]
    ]
    return {
        **{
            key: dict(zip(DTYPES, reduce(arrays[a], axis=(0, 2)).tolist(), strict=True))
            for (key, reduce), a in parts
        },
        "difference_error": float(arrays["errors"].max()),
        "difference_share_equal": float(np.mean(arrays["errors"] == 0)),
        "difference_ratio_of_seconds": ratios[0],
        "ratio_of_seconds": ratios[1],
        "seconds": np.median(seconds, axis=0).tolist(),
        "compile_seconds": arrays["compile_seconds"].tolist(),
    }


def facts(config: Config, found: dict[str, Any]):
    """Return numbers about all networks together, and about the last network.

    The answer of the experiment uses the seconds of the last network.
    """
    nets = [found[name] for name in config.nets]
    return {
        "nets": found,
        "config": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(config).items()
        },
        "largest_difference": max(net["largest_difference"]["float64"] for net in nets),
        "largest_share_of_bound": max(
            max(net["largest_share_of_bound"].values()) for net in nets
        ),
        "share_equal": float(np.mean([net["share_equal"]["float64"] for net in nets])),
        "difference_error": max(net["difference_error"] for net in nets),
        "ratio_of_seconds": nets[-1]["ratio_of_seconds"][0],
        "difference_ratio_of_seconds": nets[-1]["difference_ratio_of_seconds"][0],
    }


def example():
    """Run the forward and the backward pass of the small network in the figure."""
    given = {key: np.array(value) for key, value in EXAMPLE.items()}
    params = {
        f"dense_{k}": {"weights": given[f"w{k}"], "bias": given[f"b{k}"]}
        for k in (1, 2)
    }
    forward = backward.mlp_forward(params, given["x"][None], activation="tanh")
    value, delta = backward.BATCH_LOSSES["logistic"](forward.sums[-1], np.ones((1, 1)))
    back = backward.mlp_backward(params, forward, delta, activation="tanh")
    arrays = given | {
        "h0": forward.inputs[0][0],
        "h1": forward.inputs[1][0],
        "z2": forward.sums[1][0],
        "f": value,
    }
    arrays |= {f"delta{k}": back.deltas[k][0] for k in range(3)}
    arrays |= {f"dw{k}": back.grads[f"dense_{k}"]["weights"] for k in (1, 2)}
    return {f"example/{key}": np.asarray(array) for key, array in arrays.items()}
