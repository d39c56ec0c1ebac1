"""How much less does a Hessian cost if most of its entries are 0?

A dense Jacobian J takes one product J v or uᵀ J for each of its columns or rows. If the
places of the zeros are known, columns that have no entries in the same row can share a
colour, and one product computes all columns of a colour. The number of products, which
is the number of colours, then depends on the pattern and not on the size.

    python experiments/sparse_hessian.py            # about a minute

The problems are the Hessian of Rosenbrock's function, and the Jacobians of a banded
function, a convolution, a reaction with diffusion (Brusselator) and an arrow (a dense
row and a dense column). Dense derivatives are computed where the matrix has at most
`dense` columns. Seconds are ratios to the function, measured in turns.

Expected numbers (`EXPECTED`): the colours of each problem; the operations for the
Hessian of Rosenbrock's function and for the banded Jacobian, divided by those of the
function; the operations of the dense Hessian, divided by those of the sparse one; and
the largest difference from a dense matrix, divided by its largest entry.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import research

EXPECTED = {
    "rosenbrock_colours": (3, 3),
    "banded_colours": (5, 5),
    "convolution_colours": (9, 9),
    "brusselator_colours": (9, 12),
    "arrow_colours": (3, 3),
    "rosenbrock_operations": (3.0, 25.0),
    "banded_operations": (3.0, 25.0),
    "rosenbrock_dense_over_sparse": (100.0, 2000.0),
    "largest_difference": (0.0, 1e-12),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rosenbrock: int = 4000
    """Number of variables of Rosenbrock's function."""
    banded: int = 10_000
    """Number of variables of the banded function."""
    side: int = 32
    """Rows and columns of the image and of the grid of the reaction."""
    arrow: int = 400
    """Number of variables of the arrow."""
    dense: int = 4000
    """Largest number of columns of a dense matrix."""
    repeats: int = 15
    """Number of times that each derivative is timed."""
    seed: int = 0
    """Seed of the points and of the kernel."""


FULL = Config(repeats=51)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._landscapes import rosenbrock_chain
from experiments._timing import seconds_and_ratios
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

SHOWN = 64  # Rows and columns of the patterns that the figure shows.


class Problem(NamedTuple):
    """A function and its number of variables.

    If `second` is True, the derivative of the problem is its Hessian, otherwise its
    Jacobian.
    """

    f: Callable[[jax.Array], jax.Array]
    size: int
    second: bool = False


def problems(config: Config) -> dict[str, Problem]:
    """Return the problems by name."""
    random = np.random.default_rng(config.seed)
    kernel = jnp.asarray(random.normal(size=(1, 1, 3, 3)))
    side = config.side

    def banded(x: jax.Array) -> jax.Array:
        near = jnp.roll(x, 1) * jnp.sin(x) + 0.5 * jnp.roll(x, -1) ** 2
        return x**2 + near + jnp.roll(x, 2) * jnp.roll(x, -2)

    def convolution(x: jax.Array) -> jax.Array:
        image = x.reshape(1, 1, side, side)
        return jnp.tanh(jax.lax.conv(image, kernel, (1, 1), "SAME")).ravel()

    def brusselator(x: jax.Array) -> jax.Array:
        u, v = x.reshape(2, side, side)
        return jnp.stack(
            [
                1 + u**2 * v - 4.4 * u + 0.1 * _laplacian(u),
                3.4 * u - u**2 * v + 0.1 * _laplacian(v),
            ]
        ).ravel()

    def arrow(x: jax.Array) -> jax.Array:
        return jnp.append(x[1:] ** 2 * x[0], jnp.sum(x**2))

    return {
        "rosenbrock": Problem(rosenbrock_chain, config.rosenbrock, second=True),
        "banded": Problem(banded, config.banded),
        "convolution": Problem(convolution, side**2),
        "brusselator": Problem(brusselator, 2 * side**2),
        "arrow": Problem(arrow, config.arrow),
    }


def _laplacian(u: jax.Array) -> jax.Array:
    """Return the sum of the four neighbours minus four times the value."""
    rows = jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0)
    return rows + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compute, compare and time the derivative of each problem."""
    del checkpoints  # The experiment takes a minute, so no checkpoint is saved.
    for field in ("rosenbrock", "banded", "side", "arrow"):
        check_count(field, getattr(config, field), least=5)
    for field in ("dense", "repeats"):
        check_count(field, getattr(config, field))
    asked = problems(config)
    found, arrays = {}, {}
    for done, (name, problem) in enumerate(asked.items()):
        if on_progress:
            on_progress(done, len(asked), name)
        found[name], arrays[f"{name}/pattern"] = _examined(problem, config)
    apart = [f["difference"] for f in found.values() if f["difference"] is not None]
    rosenbrock = found["rosenbrock"]
    numbers = {
        "problems": found,
        **{f"{name}_colours": part["colours"] for name, part in found.items()},
        "rosenbrock_operations": rosenbrock["operations"],
        "banded_operations": found["banded"]["operations"],
        "rosenbrock_dense_over_sparse": rosenbrock["dense_operations"]
        / rosenbrock["operations"],
        # None if no matrix was small enough for a comparison.
        "largest_difference": max(apart, default=None),
    }
    return research.runs.Findings(arrays, numbers)


def _examined(problem: Problem, config: Config) -> tuple[dict[str, Any], np.ndarray]:
    """Return what one problem costs, and the corner of its pattern."""
    own = research.derivatives
    sparse = own.sparse_hessian if problem.second else own.sparse_jacobian
    dense = jax.hessian(problem.f) if problem.second else jax.jacfwd(problem.f)
    random = np.random.default_rng(config.seed + 1)
    x = jnp.asarray(random.normal(size=problem.size))
    began = time.perf_counter()
    first = sparse(problem.f, x)
    found_in = time.perf_counter() - began
    again = lambda x: sparse(problem.f, x, pattern=first.pattern).matrix.data
    of_f = own.counted_cost(problem.f, x).operations
    calls = {"f": jax.jit(problem.f), "sparse": jax.jit(again)}
    difference = None
    if problem.size <= config.dense:
        calls["dense"] = jax.jit(dense)
        truth = calls["dense"](x)
        largest = jnp.max(jnp.abs(truth))
        difference = float(jnp.max(jnp.abs(first.matrix.todense() - truth)) / largest)
    corner = np.zeros((SHOWN, SHOWN), bool)
    rows, columns = first.pattern.rows, first.pattern.columns
    inside = (rows < SHOWN) & (columns < SHOWN)
    corner[rows[inside], columns[inside]] = True
    return {
        "size": problem.size,
        "second": problem.second,
        "entries": int(first.matrix.nse),
        "colours": first.colours,
        "operations": own.counted_cost(again, x).operations / of_f,
        "dense_operations": own.counted_cost(dense, x).operations / of_f,
        "dense_bytes": 8 * problem.size * first.pattern.shape[0],
        "difference": difference,
        "pattern_seconds": found_in,
        "seconds": seconds_and_ratios(
            {way: lambda f=f: f(x) for way, f in calls.items()}, config.repeats
        ),
    }, corner
