"""Run optimistix's minimisers with a stop by the gradient.

It replaces their own stop by steps and values.
"""
# pyright: reportMissingImports=false

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optimistix

from benchmarks.minimiser_problems import Case


def stopping(base: type, gradient_of: Callable[[Any], Any]) -> type:
    """Make the solver stop when the gradient's largest entry is at most its atol.

    Its own stop asks for small steps and small changes of the value, which is no
    tolerance that others share.
    """

    class Stopping(base):
        def terminate(
            self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any
        ):
            """Return whether the gradient is within the tolerance.

            Before the first step there is no gradient.
            """
            small = jnp.max(jnp.abs(gradient_of(state.f_info))) <= self.atol
            return small & ~state.first_step, optimistix.RESULTS.successful

    return Stopping


def solvers(
    case: Case, tolerance: float, most_steps: int
) -> Iterator[tuple[str, str, Callable[[], tuple[jax.Array, int]]]]:
    """Return (family, name, () -> (last point, steps)) of each solver.

    Each is compiled once and then called again.
    """
    if case.residuals is not None:
        found = {
            "LevenbergMarquardt": optimistix.LevenbergMarquardt,
            "Dogleg": optimistix.Dogleg,
        }
        for name, base in found.items():
            solver = stopping(base, lambda info: info.compute_grad())(
                rtol=0.0, atol=tolerance
            )
            yield (
                "least squares",
                name,
                _solving(
                    optimistix.least_squares, case.residuals, solver, case, most_steps
                ),
            )
        return
    for family, base in {"L-BFGS": optimistix.LBFGS, "BFGS": optimistix.BFGS}.items():
        solver = stopping(base, lambda info: info.grad)(rtol=0.0, atol=tolerance)
        yield (
            family,
            base.__name__,
            _solving(optimistix.minimise, case.objective, solver, case, most_steps),
        )


def _solving(
    entry: Callable, function: Callable, solver: Any, case: Case, most_steps: int
):
    @jax.jit
    def run(start: Any):
        found = entry(
            lambda x, args: function(x),
            solver,
            start,
            max_steps=most_steps,
            throw=False,
        )
        return found.value, found.stats["num_steps"]

    def solve() -> tuple[jax.Array, int]:
        x, steps = jax.block_until_ready(run(case.start))
        return x, int(steps)

    return solve
