"""Is the backward pass by hand the gradient that jax.grad gives, and is it as fast?

Four multilayer perceptrons, from a classroom's 2-3-1 to 784-256-256-10, with every activation. The gradient of each is taken
in three ways: by central differences of the loss, by the chain rule written out in `research.models.backward`,
δ_(k-1) = (δ_k W_kᵀ) φ'(z_(k-1)), and by jax.grad. The two exact ways may differ by rounding alone: an entry is a chain of sums
of m products in all, which in any order is computed to within about m ε times the same chain of absolute values.

    python experiments/backpropagation_by_hand.py            # one to two minutes

The numbers to expect (`EXPECTED`): the largest difference between hand and jax.grad over the gradient's largest entry, in
units of ε = 2.2e-16; the largest share of its bound that the difference of an entry takes; the share of entries that are
equal to the last bit; the largest error of central differences, over the largest entry; and, on the widest net, the seconds by
hand over those of jax.grad, and the seconds of central differences over those, both in float32.
"""

import dataclasses
import functools
import sys
import time
from typing import NamedTuple

import numpy as np

import research

EXPECTED = {
    "largest_difference": (0.0, 8.0),
    "largest_share_of_bound": (0.0, 0.5),
    "share_equal": (0.3, 1.0),
    "difference_error": (1e-10, 1e-3),
    "ratio_of_seconds": (0.75, 1.33),
    "difference_ratio_of_seconds": (1e4, 1e7),
}

ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu", "silu", "gelu")
DTYPES = ("float64", "float32")
TIMED = "relu"  # As such nets are mostly trained.
LEAST_STEPS, WORK = (
    20,
    10**6,
)  # Of a timed loop: more steps for a small net, as many as come to this many products.
STEP = 6e-6  # Of central differences in float64: ∛ε, which balances truncation and rounding.
WAYS = ("central differences", "by hand", "jax.grad")


class Net(NamedTuple):
    """A network, its batch and its loss."""

    sizes: tuple[int, ...]
    batch: int
    loss: str


NETS = {
    "2-3-1": Net((2, 3, 1), 8, "logistic"),
    "64-32-10": Net((64, 32, 10), 32, "softmax_cross_entropy"),
    "16x9-4": Net((16,) * 9 + (4,), 32, "squared_error"),
    "784-256-256-10": Net((784, 256, 256, 10), 64, "softmax_cross_entropy"),
}

# The small net of the figure, with numbers that one can follow with a pencil: tanh, logistic loss, y = 1.
EXAMPLE = {
    "x": (1.0, -2.0),
    "w1": ((0.5, -0.4, 0.3), (-0.2, 0.6, 0.1)),
    "b1": (0.1, 0.2, -0.3),
}
EXAMPLE |= {"w2": ((0.7,), (-0.5,), (0.4,)), "b2": (0.2,)}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    nets: tuple[str, ...] = tuple(NETS)
    """Of NETS; the last one's times are those that the answer tells."""
    activations: tuple[str, ...] = ACTIVATIONS
    """Of the hidden layers."""
    seeds: int = 5
    """Draws of params and batch for each net, activation and dtype."""
    probes: int = 40
    """Entries of each gradient that central differences are taken of."""
    repeats: int = 41
    """Timed samples of each way, in turns."""


FULL = Config(seeds=20, probes=200, repeats=201)
FAST = Config(nets=("2-3-1",), activations=("tanh",), seeds=2, probes=5, repeats=3)


def run(config, on_progress=None, checkpoints=None):
    """Compares and times every net."""
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
    tables = (table_of_ways(config, found), table_of_activations(config, arrays))
    numbers = facts(config, found)
    return research.runs.Result(answer(config, numbers), tables, arrays, numbers)


def check(config):
    """Refuses what cannot be run."""
    for field, known in (("nets", NETS), ("activations", ACTIVATIONS)):
        values = getattr(config, field)
        if not values or set(values) - set(known):
            raise ValueError(
                f"{field} must be some of {', '.join(known)}; got {field}={values}."
            )
    for field in ("seeds", "probes", "repeats"):
        if getattr(config, field) < 1:
            raise ValueError(
                f"{field} must be a positive integer; got {field}={getattr(config, field)}."
            )


def measure(net, config):
    """All that is measured of one net: arrays (activations, dtypes, seeds) of the comparison, errors, seconds."""
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


def draw_problem(net, activation, dtype, seed):
    """(params, x, y), drawn by NumPy; biases too, so that no unit is on its kink."""
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


def num_params(net):
    """Weights and biases."""
    return sum(
        (before + 1) * after
        for before, after in zip(net.sizes[:-1], net.sizes[1:], strict=True)
    )


def ways_of(net, activation, dtype):
    """{"value", "by hand", "jax.grad"}: (params, x, y) -> the loss, or loss and gradient."""
    import jax
    import jax.numpy as jnp

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


def compile_ways(net, activation, dtype):
    """(the ways, compiled; seconds to compile each)."""
    import jax

    arguments, calls, seconds = draw_problem(net, activation, dtype, 0), {}, []
    for name, function in ways_of(net, activation, dtype).items():
        start = time.perf_counter()
        calls[name] = jax.jit(function).lower(*arguments).compile()
        seconds.append(time.perf_counter() - start)
    return calls, seconds


def time_steps(net, config):
    """Seconds of one loss, and of a step of descent in either way, in a compiled loop: shape (repeats, 3).

    In a loop, as a training is: a call from Python costs more than the gradient of a small net.
    """
    import jax

    activation = TIMED if TIMED in config.activations else config.activations[0]
    params, x, y = jax.device_put(draw_problem(net, activation, "float32", 0))
    ways = ways_of(net, activation, "float32")

    def move(name, params, x, y):
        if (
            name == "value"
        ):  # It moves the params too, so that the loss is not computed once for all.
            off = 1e-9 * ways[name](params, x, y)
            return jax.tree.map(lambda p: p - off, params)
        return jax.tree.map(
            lambda p, g: p - 1e-6 * g, params, ways[name](params, x, y)[1]
        )

    @functools.partial(jax.jit, static_argnums=0)
    def loop(name, params, x, y, steps):
        return jax.lax.fori_loop(
            0, steps, lambda _, moved: move(name, moved, x, y), params
        )

    steps = max(LEAST_STEPS, WORK // (num_params(net) * net.batch))
    calls = [lambda name=name: loop(name, params, x, y, steps) for name in ways]
    return research.tuning.interleaved_timing(calls, config.repeats) / steps


def compare(net, program, activation, dtype, config):
    """For each seed, hand against jax.grad: difference over the largest entry in ε, share equal, share of the bound."""
    import jax

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


def difference_errors(net, calls, activation, config):
    """Errors of central differences over the largest entry of the gradient, at entries drawn at random."""
    import jax

    params, x, y = draw_problem(net, activation, "float64", 0)
    leaves, form = jax.tree.flatten(params)
    flat, ends = (
        np.concatenate([leaf.ravel() for leaf in leaves]),
        np.cumsum([leaf.size for leaf in leaves]),
    )
    gradient = np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves(calls["jax.grad"](params, x, y)[1])]
    )

    def value(point):
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


def summary(net, arrays):
    """What one net came to, as JSON; all that a clock told is under names with "seconds"."""
    by_dtype = {
        "largest_difference": np.max,
        "share_equal": np.mean,
        "largest_share_of_bound": np.max,
    }
    parts = zip(by_dtype.items(), ("differences", "equal", "shares"), strict=True)
    seconds = arrays["seconds"] * [
        2 * num_params(net),
        1,
        1,
    ]  # Central differences take the loss twice for each.
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


def facts(config, found):
    """The numbers of all nets together, and those of the last one that the answer tells."""
    nets = [found[name] for name in config.nets]
    return {
        "nets": found,
        "largest_difference": max(net["largest_difference"]["float64"] for net in nets),
        "largest_share_of_bound": max(
            max(net["largest_share_of_bound"].values()) for net in nets
        ),
        "share_equal": float(np.mean([net["share_equal"]["float64"] for net in nets])),
        "difference_error": max(net["difference_error"] for net in nets),
        "ratio_of_seconds": nets[-1]["ratio_of_seconds"][0],
        "difference_ratio_of_seconds": nets[-1]["difference_ratio_of_seconds"][0],
    }


def answer(config, numbers):
    """Whether it is the gradient, and at what price."""
    name = config.nets[-1]
    ratio, low, high = numbers["nets"][name]["ratio_of_seconds"]
    count = len(config.nets) * len(config.activations) * config.seeds
    pace = "as fast" if low <= 1 <= high else "faster" if high < 1 else "slower"
    return (
        f"{'Yes' if numbers['largest_share_of_bound'] < 1 else 'No'}: in {count} gradients in float64 the two differ by at most "
        f"{numbers['largest_difference']:.1f} ε of the gradient's largest entry, at most "
        f"{100 * numbers['largest_share_of_bound']:.0f} % of what rounding allows an entry, and "
        f"{100 * numbers['share_equal']:.0f} % of all entries are equal to the last bit. By hand is {pace}: on "
        f"{name} it takes {ratio:.2f} ({low:.2f} to {high:.2f}) times the seconds of jax.grad. Central differences "
        f"are off by up to {numbers['difference_error']:.0e} of the largest entry and take "
        f"{numbers['difference_ratio_of_seconds']:,.0f} times as long."
    )


def table_of_ways(config, nets):
    """Each net in three ways, the naive one first."""
    rows = []
    for name, found in nets.items():
        apart = "{:,.0f} ({:,.0f} to {:,.0f})".format(
            *found["difference_ratio_of_seconds"]
        )
        ratios = (
            apart,
            "{:.2f} ({:.2f} to {:.2f})".format(*found["ratio_of_seconds"]),
            "1",
        )
        off = (
            found["difference_error"],
            found["largest_difference"]["float64"] * float(np.finfo(float).eps),
            0.0,
        )
        equal = (found["difference_share_equal"], found["share_equal"]["float64"], 1.0)
        parts = (WAYS, off, equal, found["seconds"], ratios, found["compile_seconds"])
        rows += [
            (f"{name}, batch {NETS[name].batch}", *row)
            for row in zip(*parts, strict=True)
        ]
    columns = (
        "net",
        "way",
        "off by",
        "bits equal",
        "seconds",
        "seconds over jax.grad's",
        "seconds to compile",
    )
    note = (
        "Off by: the largest difference from jax.grad over the gradient's largest entry, in float64, over all activations and "
        f"seeds; central differences at {config.probes} entries of each. Seconds of a step of descent in float32, in a compiled "
        "loop; for central differences, of the loss times twice the params. Ratios are medians over "
        f"{config.repeats} samples in turns, with their 95 % intervals."
    )
    return research.runs.Table("A gradient in three ways", columns, tuple(rows), note)


def table_of_activations(config, arrays):
    """What each activation came to over all nets."""
    rows = []
    for i, activation in enumerate(config.activations):
        parts = [
            [arrays[f"{name}/{key}"][i] for name in config.nets]
            for key in ("differences", "equal", "shares")
        ]
        off, equal, share = (np.stack(part) for part in parts)  # (nets, dtypes, seeds)
        error = max(arrays[f"{name}/errors"][i].max() for name in config.nets)
        counts = (
            *off.max((0, 2)).tolist(),
            *equal.mean((0, 2)).tolist(),
            float(share.max()),
        )
        rows.append((activation, float(error), *counts))
    columns = (
        "activation",
        "central differences off by",
        *(f"by hand off by, ε of {d}" for d in DTYPES),
    )
    columns += (*(f"bits equal, {d}" for d in DTYPES), "share of the bound")
    note = f"Over {', '.join(name for name in config.nets)} and {config.seeds} seeds; relative to the largest entry."
    return research.runs.Table(
        "By hand against jax.grad, by activation", columns, tuple(rows), note
    )


def example():
    """The small net of the figure, forward and back, by the same functions."""
    from research.models import backward

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


def draw(result):
    """The chain of the small net with its deltas, and what was measured of the others."""
    arrays, numbers = result.arrays, result.numbers
    chain, axes = research.figures.new_figure(width=10, height=5.0)
    draw_example(
        axes[0, 0],
        {
            key.partition("/")[2]: arrays[key]
            for key in arrays
            if key.startswith("example/")
        },
    )
    measured, axes = research.figures.new_figure(
        1, 2, width=11, height=4.2, width_ratios=(1.2, 1)
    )
    draw_differences(axes[0, 0], numbers["nets"])
    draw_seconds(axes[0, 1], numbers["nets"])
    forward_and_back = (
        "A 2-3-1 net with tanh, one example, y = 1. Forward, in blue: what each unit gives, from left to right. Back, in orange: "
        "δ, the derivative of the loss by what enters the unit. It starts at the output as σ(z) - y; each hidden unit gets the δ "
        "to its right times the weight on the way, times tanh' = 1 - h². On each edge: the weight, and below it its "
        "derivative, which is the blue number on its left times the orange one on its right."
    )
    both = (
        "Left: the largest difference from jax.grad, over the gradient's largest entry, of all activations and seeds. By "
        f"hand it is at most {numbers['largest_difference']:.1f} ε in float64. Right: seconds by hand over those of jax.grad, "
        "float32, with 95 % intervals; at the line both are equally fast."
    )
    return {
        "chain": research.figures.Picture(
            "The chain rule, from the loss back", forward_and_back, chain
        ),
        "measured": research.figures.Picture(
            "How far off, and how fast", both, measured
        ),
    }


def draw_example(axes, a):
    """The small net, and below it what goes either way."""
    from research.figures.chain import draw_chain, draw_way

    values, deltas = (
        (a["h0"], a["h1"], a["z2"]),
        (a["delta0"], a["delta1"], a["delta2"]),
    )
    names = (("x₁", "x₂"), ("h₁", "h₂", "h₃"), ("z",))
    draw_chain(axes, values, deltas, (a["w1"], a["w2"]), (a["dw1"], a["dw2"]), names)
    axes.text(7.8, -1.15, f"f = log(1 + exp(-z)) = {float(a['f']):.2f}", ha="center")
    draw_way(axes, -2.85, "forward:  h = tanh(W₁ᵀ x + b₁),  z = W₂ᵀ h + b₂", False)
    draw_way(
        axes,
        -3.4,
        "back:  δ of z = σ(z) - y,  δ of h = (W₂ δ) (1 - h²),  δ of x = W₁ δ",
        True,
    )


def draw_differences(axes, nets):
    """Errors of both, a row a net."""
    blue, rows = research.figures.COLOURS["full batch"], np.arange(len(nets))[::-1]
    errors = [found["difference_error"] for found in nets.values()]
    axes.plot(
        errors, rows, "s", color=research.figures.COLOURS["stochastic"], label=WAYS[0]
    )
    for dtype, face in (("float32", "none"), ("float64", blue)):
        eps = float(np.finfo(dtype).eps)
        off = [found["largest_difference"][dtype] * eps for found in nets.values()]
        axes.plot(off, rows, "o", mfc=face, color=blue, label=f"by hand, {dtype}")
        axes.axvline(eps, color=research.figures.COLOURS["data"], lw=1, ls=(0, (4, 3)))
    axes.set(
        xscale="log",
        xlabel="largest difference over largest entry (dashed: ε)",
        ylim=(-0.6, len(nets) + 0.2),
    )
    axes.set_yticks(rows, list(nets))
    axes.legend(
        loc="upper center", ncols=3, fontsize=8.5, columnspacing=1.0, handletextpad=0.3
    )


def draw_seconds(axes, nets):
    """The ratio of seconds with its interval, a row a net."""
    blue, rows = research.figures.COLOURS["full batch"], np.arange(len(nets))[::-1]
    ends = np.array([found["ratio_of_seconds"] for found in nets.values()])
    for row, (middle, low, high) in zip(rows, ends, strict=True):
        axes.plot([low, high], [row, row], color=blue)
        axes.plot(middle, row, "o", color=blue)
        axes.text(max(high, 1) + 0.02, row, f"{middle:.2f}", va="center")
    axes.axvline(1, color=research.figures.COLOURS["exact"], lw=1)
    axes.set(xlabel="seconds by hand over jax.grad's", ylim=(-0.6, len(nets) + 0.2))
    axes.set(xlim=(min(0.7, ends.min() - 0.1), max(1.3, ends.max() + 0.15)))
    axes.set_yticks(rows, ["" for _ in nets])


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
