"""How does backpropagation get a gradient, line by line?

By the chain rule and nothing else: every line of a program has a local derivative, and the derivative of the result by a
line's value, its adjoint, is the sum over the lines that read it of their adjoint times their local derivative.
`research.derivatives.explain` writes this down as a ledger for any JAX function. Here it does so for one sigmoid neuron,
which can be checked with a pocket calculator; for softmax regression on all digits and a small network on a few of them;
and for ten programs with a planted bug, whose NaN it is to find, with the line.

    python experiments/chain_rule_ledger.py            # some seconds

The numbers to expect (`EXPECTED`): rows of the neuron, and how far its numbers are from those by hand; entries of the
models' gradients whose bits are not those of `jax.grad`, run operation by operation; the largest difference between a
gradient and the sum over its paths; bugs that are found with primitive, direction and line, out of ten.
"""

import dataclasses
import inspect
import math
import sys

import numpy as np

import research

EXPECTED = {
    "neuron_rows": (1, 8),
    "error_by_hand": (0.0, 1e-14),
    "bits_that_differ": (0, 0),
    "path_error": (0.0, 1e-12),
    "bugs_found": (10, 10),
}

NEURON = {"w": 0.5, "b": -0.3, "x": 2.0, "y": 1.0}
SHOWN_EXAMPLES = 12  # Whose adjoints are drawn.
NAMED = {
    "neuron": "one neuron",
    "softmax": "softmax regression, digits",
    "network": "a hidden layer, a few digits",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    hidden: int = 6
    """Units of the network's hidden layer."""
    examples: int = 8
    """Digits that the network sees."""
    seed: int = 0
    """Of the parameters."""


FULL = Config()


def run(config, on_progress=None, checkpoints=None):
    """Explains the neuron, the two models and the ten bugs, and holds each against what is known otherwise."""
    del checkpoints  # It takes seconds.
    for field in ("hidden", "examples"):
        if getattr(config, field) < 1:
            raise ValueError(
                f"{field} must be a positive integer; got {field}={getattr(config, field)}."
            )
    arrays, rows, differing, path_error = {}, {}, 0, 0.0
    programs = {
        "neuron": (neuron, tuple(NEURON.values())),
        **models(config, research.workloads.make_workload("digits")),
    }
    for done, (name, (f, args)) in enumerate(programs.items()):
        if on_progress:
            on_progress(done, len(programs), NAMED[name])
        ledger = research.derivatives.explain(f, *args)
        found = graph_arrays(ledger) | adjoint_arrays(ledger)
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
        differing += count_bits(ledger, f, args)
        path_error = max(path_error, largest_path_error(ledger))
        rows[name] = facts(ledger)
        if name == "neuron":
            neuron_table, error = table_of_neuron(ledger), error_by_hand(ledger)
    hunted = hunt(arrays)
    if on_progress:
        on_progress(len(programs), len(programs), "done")
    numbers = {
        "neuron_rows": rows["neuron"]["rows"],
        "error_by_hand": error,
        "entries": sum(found["entries"] for found in rows.values()),
        "bits_that_differ": differing,
        "path_error": path_error,
        "bugs": len(hunted),
        "bugs_found": sum(bug["right"] for bug in hunted),
        "models": rows,
        "hunted": hunted,
    }
    tables = (neuron_table, table_of_models(numbers), table_of_bugs(hunted))
    return research.runs.Result(answer(numbers), tables, arrays, numbers)


def neuron(w, b, x, y):
    """The squared error of one sigmoid neuron."""
    import jax

    return (jax.nn.sigmoid(w * x + b) - y) ** 2


def models(config, workload):
    """(function, arguments) of softmax regression on the digits and of a network on a few of them."""
    import jax
    import jax.numpy as jnp

    train = workload.train
    keys = [
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(3)
    ]
    if config.examples > len(train.y):
        raise ValueError(
            f"examples must be at most {len(train.y)}; got examples={config.examples}."
        )
    x, y = train.x[: config.examples], jnp.eye(10)[train.y[: config.examples]]

    def softmax(params):
        return workload.objective(params, train)

    def network(first, last):
        logits = jnp.tanh(x @ first) @ last
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), axis=1))

    first = 0.3 * jax.random.normal(keys[1], (x.shape[1], config.hidden), dtype=float)
    last = 0.3 * jax.random.normal(keys[2], (config.hidden, 10), dtype=float)
    return {
        "softmax": (softmax, (workload.init(keys[0]),)),
        "network": (network, (first, last)),
    }


def count_bits(ledger, f, args):
    """How many entries of the gradient differ in any bit from what jax.grad gives operation by operation."""
    import jax

    with jax.disable_jit():
        expected = jax.tree.leaves(jax.grad(f, argnums=tuple(range(len(args))))(*args))
    pairs = zip(jax.tree.leaves(ledger.grads), expected, strict=True)
    return sum(
        int(np.sum(np.asarray(a).view(np.int64) != np.asarray(b).view(np.int64)))
        for a, b in pairs
    )


def largest_path_error(ledger):
    """The largest difference between a gradient and the sum over its paths."""
    sums = {
        name: sum(np.asarray(path.derivative) for path in ledger.paths(name))
        for name in ledger.inputs
    }
    return max(
        float(np.max(np.abs(total - ledger.gradient(name))))
        for name, total in sums.items()
    )


def error_by_hand(ledger):
    """The largest difference between the neuron's ledger and the same numbers from the formulas of the textbook."""
    w, b, x, y = NEURON.values()
    a = 1 / (1 + math.exp(-(w * x + b)))
    da, dz = 2 * (a - y), 2 * (a - y) * a * (1 - a)
    values, adjoints = (w * x, w * x + b, a, a - y, (a - y) ** 2), (dz, dz, da, da, 1.0)
    found = [(float(row.value), float(row.adjoint)) for row in ledger.rows]
    off = np.abs(np.array(found) - np.array([values, adjoints]).T)
    return float(
        max(off.max(), *np.abs(np.array(ledger.grads) - [x * dz, dz, w * dz, -da]))
    )


def facts(ledger):
    """What a ledger came to, as JSON."""
    gradient = np.concatenate(
        [np.ravel(ledger.gradient(name)) for name in ledger.inputs]
    )
    reached = sum(row.adjoint is not None for row in ledger.rows)
    size, norm = len(gradient), float(np.linalg.norm(gradient))
    return {
        "rows": len(ledger.rows),
        "with_adjoint": reached,
        "entries": size,
        "value": float(ledger.value),
        "norm": norm,
    }


def graph_arrays(ledger):
    """The ledger's graph and where it stands, as arrays; rows that no adjoint reaches are left out."""
    drawn, layout = ledger.drawing(constants=False)
    return {
        "boxes": np.concatenate([layout.centres, layout.sizes], axis=1),
        "texts": np.array(
            [(node.title, node.value, node.adjoint, node.kind) for node in drawn.nodes]
        ),
        "ways": np.concatenate(layout.ways),
        "places": layout.labels,
        "way_lengths": np.array([len(way) for way in layout.ways]),
        "labels": np.array(
            [(edge.local, edge.contribution, edge.kind) for edge in drawn.edges]
        ),
        "size": np.array([layout.width, layout.height]),
    }


def adjoint_arrays(ledger):
    """The adjoints of the products of a model, (examples, units) of the first examples; and of its matrices."""
    products = [
        row
        for row in ledger.rows
        if row.primitive == "dot_general" and np.ndim(row.value) == 2
    ]
    found = {
        f"adjoint {i}": np.asarray(row.adjoint)[:SHOWN_EXAMPLES]
        for i, row in enumerate(products)
    }
    grads = [np.asarray(ledger.gradient(name)) for name in ledger.inputs]
    matrices = [grad for grad in grads if grad.ndim == 2]
    return found | {f"gradient {i}": grad for i, grad in enumerate(matrices)}


def bugs():
    """Name -> (function, arguments, primitive, whether the NaN is born in the backward pass)."""
    import jax.numpy as jnp

    def root(x):
        y = jnp.sqrt(x)  # planted
        return jnp.sum(jnp.where(x > 0, y, 0.0))

    def logarithm(x):
        y = jnp.log(x)  # planted
        return jnp.sum(jnp.where(x > 0, x * y, 0.0))

    def quotient(x):
        y = (x - 1) / (x**2 - 1)  # planted
        return jnp.tanh(y)

    def power(x):
        y = x**0.7  # planted
        return y * 3 + x

    def norm(x):
        y = jnp.sqrt(jnp.sum(x * x))  # planted
        return jnp.maximum(y, 1e-3)

    def arccosine(x):
        y = jnp.arccos(jnp.cos(x))  # planted
        return y**2

    def standardise(x):
        y = (x - jnp.mean(x)) / jnp.sqrt(jnp.mean((x - jnp.mean(x)) ** 2))  # planted
        return jnp.sum(y**2)

    def softmax_by_hand(x):
        y = jnp.exp(x)  # planted
        return jnp.log(y[0] / jnp.sum(y))

    def log_of_softmax(x):
        p = jnp.exp(x) / jnp.sum(jnp.exp(x))
        y = jnp.log(p)  # planted
        return y[1]

    def angle(x):
        y = jnp.arctan2(x[1], x[0])  # planted
        return y + x[0]

    ends, zeros = jnp.array([1.0, 0.0]), jnp.zeros(2)
    return {
        "square root of 0, masked afterwards": (root, ends, "sqrt", True),
        "logarithm of 0, masked afterwards": (logarithm, ends, "log", False),
        "0 / 0": (quotient, jnp.array(1.0), "div", False),
        "power below 1 of 0": (power, jnp.array(0.0), "pow", True),
        "length of the zero vector": (norm, zeros, "sqrt", True),
        "arccosine of 1": (arccosine, jnp.array(0.0), "acos", True),
        "division by a spread of 0": (standardise, jnp.ones(3), "div", False),
        "exponential that overflows": (
            softmax_by_hand,
            jnp.array([100.0, 1.0], jnp.float32),
            "exp",
            False,
        ),
        "logarithm of a softmax that underflows": (
            log_of_softmax,
            jnp.array([0.0, -800.0]),
            "log",
            False,
        ),
        "angle of the zero vector": (angle, zeros, "atan2", True),
    }


def hunt(arrays):
    """What first_nonfinite says of each bug; the first one's graph joins the arrays."""
    found = []
    for name, (f, x, primitive, backward) in bugs().items():
        ledger = research.derivatives.explain(f, x)
        if not found:
            arrays |= {
                f"bug/{key}": value for key, value in graph_arrays(ledger).items()
            }
        lines, first = inspect.getsourcelines(f)
        planted = f"{__file__.rpartition('/')[2]}:{first + next(i for i, s in enumerate(lines) if '# planted' in s)}"
        origin = ledger.first_nonfinite()
        said = (
            (origin.primitive, origin.backward, origin.source)
            if origin
            else ("nothing", False, "")
        )
        right = said == (primitive, backward, planted)
        fact = {
            "bug": name,
            "primitive": said[0],
            "line": said[2],
            "backward": said[1],
            "right": right,
        }
        found.append(
            fact | {"sentence": origin.sentence if origin else "All is finite."}
        )
    return found


def answer(numbers):
    """What was explained, and how far from the truth it was."""
    softmax = numbers["models"]["softmax"]
    return (
        f"Line by line, by the chain rule: the ledger of one neuron has {numbers['neuron_rows']} rows, "
        f"{by_hand(numbers)}; that of softmax regression on the digits has {softmax['rows']}. Of the "
        f"{numbers['entries']:,} entries of all gradients {numbers['bits_that_differ']} differ in any bit from jax.grad, run "
        f"operation by operation. Of {numbers['bugs']} planted bugs that make a NaN or an infinity, it names the line of "
        f"{numbers['bugs_found']}."
    )


def by_hand(numbers):
    """How far the neuron's ledger is from the numbers by hand, in words."""
    error = numbers["error_by_hand"]
    return (
        f"within {error:.0e} of the numbers by hand"
        if error
        else "equal to the numbers by hand"
    )


def table_of_neuron(ledger):
    """The ledger of the neuron."""
    rows = tuple(
        (
            row.name,
            row.expression,
            float(row.value),
            handed_on(row),
            float(row.adjoint),
            row.rule,
        )
        for row in ledger.rows
    )
    return research.runs.Table(
        f"One sigmoid neuron at {', '.join(f'{name} = {value:g}' for name, value in NEURON.items())}",
        (
            "row",
            "equation",
            "value",
            "input: × local derivative → what its adjoint gets",
            "adjoint",
            "rule",
        ),
        rows,
        "Read values downwards and adjoints upwards: an adjoint is the sum of what the rows below hand to that name.",
    )


def handed_on(row):
    """What a row hands to its inputs, in words."""
    parts = zip(row.inputs, row.local, row.contributions, strict=True)
    return ", ".join(
        f"{name}: × {local:.4g} → {share:.4g}"
        for name, local, share in parts
        if share is not None
    )


def table_of_models(numbers):
    """How large each ledger is."""
    rows = tuple(
        (NAMED[name], f["rows"], f["with_adjoint"], f["entries"], f["value"], f["norm"])
        for name, f in numbers["models"].items()
    )
    columns = (
        "program",
        "rows",
        "rows with an adjoint",
        "entries of the gradient",
        "value",
        "norm of the gradient",
    )
    return research.runs.Table("The programs", columns, rows)


def table_of_bugs(hunted):
    """Where each NaN was found."""
    rows = tuple(
        (
            f["bug"],
            f["primitive"],
            "backward" if f["backward"] else "forward",
            f["line"],
            f["right"],
        )
        for f in hunted
    )
    columns = ("bug", "found at", "in the pass", "line", "as planted")
    return research.runs.Table(
        "Where the first NaN or infinity is born", columns, rows, hunted[0]["sentence"]
    )


def draw(result):
    """The graphs of the neuron, the two models and a bug, the models' with their adjoints as images."""
    arrays, numbers = result.arrays, result.numbers
    network = numbers["models"]["network"]
    pictures = {
        "neuron": (
            "Backpropagation through one neuron",
            neuron_caption(numbers),
            draw_beside(arrays, "neuron"),
        ),
        "softmax": (
            "The backward pass of softmax regression",
            softmax_caption(numbers),
            draw_softmax(arrays),
        ),
        "network": (
            "The backward pass of a network",
            f"A hidden layer of tanh, {network['entries']} parameters. Right, from below to above, as the pass runs: "
            "adjoints of the last product's entries, then of the first one's, a row an example (red: positive, blue: "
            "negative). The error of each digit is spread over the units that made it.",
            draw_network(arrays),
        ),
        "bug": (
            "Where a NaN is born",
            bug_caption(numbers),
            draw_beside(arrays, "bug"),
        ),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def neuron_caption(numbers):
    """What the first figure shows."""
    return (
        f"The {numbers['neuron_rows']} rows of a sigmoid neuron with squared error. Blue, computed downwards: values, and on "
        "each edge the local derivative. Red, computed upwards: adjoints, and on each edge what it adds to the adjoint "
        f"above. All are {by_hand(numbers)}."
    )


def softmax_caption(numbers):
    """What the second figure shows."""
    found = numbers["models"]["softmax"]
    return (
        f"Left: the {found['with_adjoint']} rows that an adjoint reaches; arrays by shape and Euclidean norm. Right: adjoints "
        f"of the logits of {SHOWN_EXAMPLES} digits, which are softmax minus the right class over n, and the gradient by the "
        f"weights, an 8 × 8 image for each class; its norm with the intercepts' is {found['norm']:.3g}."
    )


def bug_caption(numbers):
    """What the last figure shows."""
    return (
        f"{numbers['hunted'][0]['sentence']} The mask takes the infinite slope out of the value, not out of the chain rule: "
        f"0 times infinity is NaN. Found in this way: {numbers['bugs_found']} of {numbers['bugs']} planted bugs."
    )


def draw_beside(arrays, name, panels=()):
    """A program's graph, beside images where there are any, each (values, title, across, down)."""
    from research.figures import graph

    figure, axes, beside = graph.new_graph(arrays[f"{name}/size"], len(panels))
    graph.draw_graph(axes, arrays, name)
    for panel, parts in zip(beside, panels, strict=True):
        graph.draw_heat(panel, *parts)
    return figure


def draw_softmax(arrays):
    """Softmax regression: its graph, the adjoints of the logits, and the gradient as images."""
    images = np.pad(
        arrays["softmax/gradient 0"].T.reshape(2, 5, 8, 8),
        ((0, 0), (0, 0), (1, 1), (1, 1)),
    )
    images = images.transpose(0, 2, 1, 3).reshape(20, 50)
    logits = (arrays["softmax/adjoint 0"], "adjoints of the logits", "class", "example")
    return draw_beside(
        arrays,
        "softmax",
        (logits, (images, "gradient by the weights", "classes 0 to 4 and 5 to 9")),
    )


def draw_network(arrays):
    """The network: its graph, and the adjoints of both products."""
    last = (
        arrays["network/adjoint 1"],
        "adjoints of the last product",
        "class",
        "example",
    )
    first = (
        arrays["network/adjoint 0"],
        "adjoints of the first product",
        "hidden unit",
        "example",
    )
    return draw_beside(arrays, "network", (first, last))


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
