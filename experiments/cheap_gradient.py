"""How much does a gradient cost, compared with its function?

The cheap gradient principle says that in reverse mode, all n partial derivatives
together cost a small multiple of the function. They need at most 4 times the operations
of the function (5 times, if memory traffic is counted), for every n. In forward mode
they cost n times as much as the function, and with central differences 2 n times as
much. The principle is a theorem about plain reverse mode. A derivative rule that is
written in another way can exceed the bound.

Operations are counted from the jaxpr. The operations in a loop are multiplied by its
number of iterations, and the operations of LAPACK are computed by formulas. XLA's own
count includes the body of a loop only once, and does not include LAPACK. Seconds are
shown as well, because they are not proportional to operations.

    python experiments/cheap_gradient.py            # under a minute

Expected numbers (`EXPECTED`) are ratios: the operations of the gradient, divided by the
operations of the function. They are the largest ratio of the functions within the
bound, the smallest ratio of the functions whose derivative rules in JAX exceed the
bound, and the largest ratio of the Rosenbrock function over all n.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "largest_ratio": (1.0, 5.0),
    "least_exception": (5.0, 60.0),
    "ratio_at_any_n": (1.0, 2.5),
}
TIMES_COMPILATION = True  # So compiled programs are not kept on disk.


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    size: int = 100
    """Number of rows and of columns of matrices. A vector has as many entries as a
    matrix."""
    largest: int = 4096
    """Largest number of inputs of the Rosenbrock function."""
    seconds: float = 0.1
    """Seconds for which each program is called repeatedly to time it."""
    seed: int = 0
    """Seed of the arguments."""


FULL = Config(size=300, largest=65536, seconds=0.5)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._landscapes import rosenbrock_chain
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints, Params

# JAX's rules for these differ from plain reverse mode. The zoo also contains cheaper
# alternatives: `slogdet`, a scan.
EXCEPTIONS = ("log-determinant by Cholesky", "product", "running product")
MOST_SECONDS = 10_000
MODES: tuple[Any, ...] = ("reverse", "forward", "central differences")


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Measure the ratios of all test functions, and of one function at every n.

    Operations are counted, and seconds are measured.
    """
    del checkpoints  # The experiment takes a minute, so no checkpoint is saved.
    for field in ("size", "largest"):
        check_count(field, getattr(config, field), least=4)
    if not 0 <= config.seconds <= MOST_SECONDS:
        raise ValueError(
            f"seconds must be 0 to {MOST_SECONDS:,}, where 0 measures no seconds; got "
            f"seconds={config.seconds}."
        )
    functions, found = zoo(config), {}
    for done, (name, (f, x)) in enumerate(functions.items()):
        if on_progress:
            on_progress(done, len(functions) + 1, name)
        found[name] = ratios(f, x, config)
    if on_progress:
        on_progress(len(functions), len(functions) + 1, "every n")
    arrays = at_every_n(config)
    if on_progress:
        on_progress(len(functions) + 1, len(functions) + 1, "done")
    kept = {name: f["ratio"] for name, f in found.items() if name not in EXCEPTIONS}
    numbers = {
        "functions": found,
        "largest_ratio": max(kept.values()),
        "least_exception": min(found[name]["ratio"] for name in EXCEPTIONS),
        "ratio_at_any_n": float(arrays["reverse"].max()),
        "dearest": max(kept, key=lambda name: kept[name]),
        "largest": int(arrays["n"][-1]),
        "forward_at_largest": float(arrays["forward"][-1]),
    }
    return research.runs.Findings(arrays, numbers)


def zoo(config: Config):
    """Return the test functions by name, each with a point: name -> (f, x)."""
    random, n = np.random.default_rng(config.seed), config.size
    normal = lambda *shape: jnp.asarray(random.normal(size=shape))
    data, weights = normal(n, n), [normal(n, n) / np.sqrt(n) for _ in range(3)]
    square = data @ data.T / n + jnp.eye(n)
    near_one = 1 + normal(n * n) / n

    def perceptron(w: Params):
        return jnp.sum(jnp.tanh(jnp.tanh(jnp.tanh(data @ w[0]) @ w[1]) @ w[2]) ** 2)

    def recurrent(w: Params):
        return jnp.sum(
            jax.lax.scan(
                lambda h, x: (jnp.tanh(w[0] @ h + w[1] @ x), None), jnp.zeros(n), data
            )[0]
            ** 2
        )

    def attention(w: Params):
        q, k, v = (data @ part for part in w)
        return jnp.sum((jax.nn.softmax(q @ k.T / np.sqrt(n)) @ v) ** 2)

    def convolution(k: jax.Array):
        image = data.reshape(1, 1, n, n)
        return jnp.sum(jax.lax.conv(image, k, (1, 1), "SAME") ** 2)

    return {
        "Rosenbrock": (rosenbrock_chain, normal(n * n)),
        "log-sum-exp": (jax.nn.logsumexp, normal(n * n)),
        "quadratic form": (lambda x: x @ (data @ x), normal(n)),
        "perceptron": (perceptron, weights),
        "cross entropy": (
            lambda w: -jnp.mean(jax.nn.log_softmax(data @ w)[jnp.arange(n), 0]),
            weights[0],
        ),
        "recurrent network": (recurrent, weights[:2]),
        "attention": (attention, weights),
        "convolution": (convolution, normal(4, 1, 3, 3)),
        "Fourier transform": (
            lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2),
            normal(n * n),
        ),
        "sort": (
            lambda x: jnp.vdot(jnp.sort(x), jnp.arange(n * n, dtype=float)),
            normal(n * n),
        ),
        "eigenvalues": (lambda a: jnp.sum(jnp.linalg.eigvalsh(a) ** 2), square),
        "linear solve": (lambda a: jnp.sum(jnp.linalg.solve(a, jnp.ones(n))), square),
        "log-determinant by slogdet": (lambda a: jnp.linalg.slogdet(a)[1], square),
        "log-determinant by Cholesky": (
            lambda a: jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(a)))),
            square,
        ),
        "product by a scan": (
            lambda x: jax.lax.scan(lambda c, t: (c * t, None), 1.0, x)[0],
            near_one,
        ),
        "product": (jnp.prod, near_one),
        "running product": (lambda x: jnp.sum(jnp.cumprod(x) ** 2), near_one),
    }


def ratios(f: Callable, x: jax.Array, config: Config):
    """Return the cost of f and the relative cost of its gradient, as JSON.

    The relative cost of a Hessian-vector product is included.
    """
    gradient = research.derivatives.cost_ratio(jax.grad, f, x, seconds=config.seconds)
    product = research.derivatives.counted_cost(
        lambda y: jax.jvp(jax.grad(f), (y,), (y,))[1], x
    )
    return {
        "operations": gradient.function.operations,
        "ratio": gradient.flops,
        "hessian_vector_ratio": product.operations / gradient.function.operations,
        "function_seconds": gradient.function.wall_seconds,
        "gradient_seconds": gradient.transformed.wall_seconds,
        "ratio_of_seconds": gradient.wall,
        "compile_seconds": gradient.transformed.compile_seconds,
        "temporary_bytes": gradient.transformed.temporary_bytes,
    }


def at_every_n(config: Config):
    """Return the relative cost of the Rosenbrock function's derivatives in three ways.

    The cost is the number of operations for all partial derivatives, divided by the
    number of operations for the function.
    """
    n = 2 ** np.arange(2, int(np.log2(config.largest)) + 1)
    count = research.derivatives.counted_cost
    rows = []
    for size in n:
        x, own = np.ones(size), count(rosenbrock_chain, np.ones(size)).operations
        by_mode = [
            count(
                lambda y, m=m: research.derivatives.gradient(rosenbrock_chain, y, m), x
            ).operations
            for m in MODES[:2]
        ]
        rows.append([*(operations / own for operations in by_mode), 2.0 * size])
    return {"n": n} | {
        mode: np.array(column)
        for mode, column in zip(MODES, zip(*rows, strict=True), strict=True)
    }
