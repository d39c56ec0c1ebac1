"""How does backpropagation get a gradient, line by line?

By the chain rule and nothing else. The adjoint of a line of a program is the derivative
of the result with respect to the line's value. Later lines read this value. Each of
these later lines contributes its own adjoint times its local derivative. The sum of
these contributions is the adjoint. `research.derivatives.explain` writes the adjoints
as a table, for any JAX function. Here it explains one sigmoid neuron, which can be
checked with a pocket calculator. It also explains two models: softmax regression on all
digits, and a small network on a few digits. Finally, it explains ten programs with a
planted bug. For each of these ten programs, the table must find the line that produces
the first NaN or infinity.

    python experiments/chain_rule_ledger.py            # some seconds

Expected numbers (`EXPECTED`):

- the number of rows in the table of the neuron, and the largest difference between the
numbers in the table and the numbers by hand;
- the number of entries of the models' gradients whose bits differ from the result of
`jax.grad` (jax.grad runs operation by operation);
- the largest difference between a gradient and the sum of the contributions of all
paths;
- the number of bugs, out of ten, for which the table finds the primitive, the direction
and the line.
"""

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "neuron_rows": (1, 8),
    "error_by_hand": (0.0, 1e-14),
    "bits_that_differ": (0, 0),
    "path_error": (0.0, 1e-12),
    "bugs_found": (10, 10),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    hidden: int = 6
    """Units of the network's hidden layer."""
    examples: int = 8
    """Number of digits in the network's batch."""
    seed: int = 0
    """Seed of the parameters."""


FULL = Config()


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints, Params

NEURON = {"w": 0.5, "b": -0.3, "x": 2.0, "y": 1.0}
SHOWN_EXAMPLES = 12  # Number of examples whose adjoints are drawn.
NAMED = {
    "neuron": "one neuron",
    "softmax": "softmax regression, digits",
    "network": "a hidden layer, a few digits",
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Explain the neuron, the two models and the ten bugs, and check the results."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    for field in ("hidden", "examples"):
        check_count(field, getattr(config, field))
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
            neuron_rows, error = rows_of_neuron(ledger), error_by_hand(ledger)
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
        "neuron": neuron_rows,
    }
    return research.runs.Findings(arrays, numbers)


def neuron(w: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array):
    """Return the squared error of one sigmoid neuron."""
    return (jax.nn.sigmoid(w * x + b) - y) ** 2


def models(config: Config, workload: Any):
    """Return a pair (function, arguments) for each of the two models.

    They are softmax regression on all digits, and a small network on a few of them.
    """
    train = workload.train
    keys = [
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(3)
    ]
    if config.examples > len(train.y):
        raise ValueError(
            f"examples must be at most {len(train.y)}; got examples={config.examples}."
        )
    x, y = train.x[: config.examples], jnp.eye(10)[train.y[: config.examples]]

    def softmax(params: Params):
        return workload.objective(params, train)

    def network(first: jax.Array, last: jax.Array):
        logits = jnp.tanh(x @ first) @ last
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), axis=1))

    first = 0.3 * jax.random.normal(keys[1], (x.shape[1], config.hidden), dtype=float)
    last = 0.3 * jax.random.normal(keys[2], (config.hidden, 10), dtype=float)
    return {
        "softmax": (softmax, (workload.init(keys[0]),)),
        "network": (network, (first, last)),
    }


def count_bits(ledger: research.derivatives.Ledger, f: Callable, args: tuple):
    """Count the entries of the gradient whose bits differ from those of jax.grad.

    Here jax.grad is not compiled but runs operation by operation.
    """
    with jax.disable_jit():
        expected = jax.tree.leaves(jax.grad(f, argnums=tuple(range(len(args))))(*args))
    pairs = zip(jax.tree.leaves(ledger.grads), expected, strict=True)
    return sum(
        int(np.sum(np.asarray(a).view(np.int64) != np.asarray(b).view(np.int64)))
        for a, b in pairs
    )


def largest_path_error(ledger: research.derivatives.Ledger):
    """Return the largest difference between a gradient and the sum over its paths.

    The sum has one term for each path: the product of the path's local derivatives.
    """
    sums = {
        name: sum(np.asarray(path.derivative) for path in ledger.paths(name))
        for name in ledger.inputs
    }
    return max(
        float(np.max(np.abs(total - ledger.gradient(name))))
        for name, total in sums.items()
    )


def error_by_hand(ledger: research.derivatives.Ledger):
    """Return the largest deviation of the neuron's table from the textbook formulas."""
    w, b, x, y = NEURON.values()
    a = 1 / (1 + math.exp(-(w * x + b)))
    da, dz = 2 * (a - y), 2 * (a - y) * a * (1 - a)
    values, adjoints = (w * x, w * x + b, a, a - y, (a - y) ** 2), (dz, dz, da, da, 1.0)
    found = [(float(row.value), float(row.adjoint)) for row in ledger.rows]
    off = np.abs(np.array(found) - np.array([values, adjoints]).T)
    return float(
        max(off.max(), *np.abs(np.array(ledger.grads) - [x * dz, dz, w * dz, -da]))
    )


def facts(ledger: research.derivatives.Ledger):
    """Return the facts of a table, as JSON."""
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


def graph_arrays(ledger: research.derivatives.Ledger):
    """Return the graph and its layout as arrays.

    Rows without an adjoint are left out.
    """
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


def adjoint_arrays(ledger: research.derivatives.Ledger):
    """Return the adjoints of a model's products, and the gradients of its matrices.

    The adjoints have shape (examples, units), for the first examples.
    """
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
    """Return the planted bugs by name.

    Returns:
      Name -> (function, arguments, primitive, whether the NaN appears in the backward
        pass).
    """

    def root(x: jax.Array):
        y = jnp.sqrt(x)  # planted
        return jnp.sum(jnp.where(x > 0, y, 0.0))

    def logarithm(x: jax.Array):
        y = jnp.log(x)  # planted
        return jnp.sum(jnp.where(x > 0, x * y, 0.0))

    def quotient(x: jax.Array):
        y = (x - 1) / (x**2 - 1)  # planted
        return jnp.tanh(y)

    def power(x: jax.Array):
        y = x**0.7  # planted
        return y * 3 + x

    def norm(x: jax.Array):
        y = jnp.sqrt(jnp.sum(x * x))  # planted
        return jnp.maximum(y, 1e-3)

    def arccosine(x: jax.Array):
        y = jnp.arccos(jnp.cos(x))  # planted
        return y**2

    def standardise(x: jax.Array):
        y = (x - jnp.mean(x)) / jnp.sqrt(jnp.mean((x - jnp.mean(x)) ** 2))  # planted
        return jnp.sum(y**2)

    def softmax_by_hand(x: jax.Array):
        y = jnp.exp(x)  # planted
        return jnp.log(y[0] / jnp.sum(y))

    def log_of_softmax(x: jax.Array):
        p = jnp.exp(x) / jnp.sum(jnp.exp(x))
        y = jnp.log(p)  # planted
        return y[1]

    def angle(x: jax.Array):
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


def hunt(arrays: dict[str, np.ndarray]):
    """Return the result of `first_nonfinite` for each bug.

    The graph of the first bug is added to the arrays.
    """
    found = []
    for name, (f, x, primitive, backward) in bugs().items():
        ledger = research.derivatives.explain(f, x)
        if not found:
            arrays |= {
                f"bug/{key}": value for key, value in graph_arrays(ledger).items()
            }
        lines, first = inspect.getsourcelines(f)
        offset = next(i for i, line in enumerate(lines) if "# planted" in line)
        planted = f"{__file__.rpartition('/')[2]}:{first + offset}"
        origin = ledger.first_nonfinite()
        reported = (
            (origin.primitive, origin.backward, origin.source)
            if origin
            else ("nothing", False, "")
        )
        right = reported == (primitive, backward, planted)
        fact = {
            "bug": name,
            "primitive": reported[0],
            "line": reported[2],
            "backward": reported[1],
            "right": right,
        }
        found.append(
            fact | {"sentence": origin.sentence if origin else "All values are finite."}
        )
    return found


def rows_of_neuron(ledger: research.derivatives.Ledger):
    """Return the neuron's table, as rows of a result table."""
    return [
        [
            row.name,
            row.expression,
            float(row.value),
            handed_on(row),
            float(row.adjoint),
            row.rule,
        ]
        for row in ledger.rows
    ]


def handed_on(row: Any):
    """Describe in words the contributions of a row to the adjoints of its inputs."""
    parts = zip(row.inputs, row.local, row.contributions, strict=True)
    return ", ".join(
        f"{name}: × {local:.4g} → {share:.4g}"
        for name, local, share in parts
        if share is not None
    )
