"""Minimise the 42 problems of More, Garbow and Hillstrom with our rules and scipy.

The table has the minima that were reached, and the evaluations.

python -m benchmarks.more_garbow_hillstrom  # every problem, some minutes
python -m benchmarks.more_garbow_hillstrom --only rosenbrock  # one, or several
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
import scipy.optimize

import research
from benchmarks.tables import table
from research import update_rules
from tests.rules import mgh

TOLERANCE = 1e-6  # Of the largest entry of the gradient, for all.
MAX_STEPS = 2000
RULES: dict[str, Callable[[], Any]] = {
    "bfgs": update_rules.bfgs,
    "lbfgs": update_rules.lbfgs,
    "nonlinear_conjugate_gradient": update_rules.nonlinear_conjugate_gradient,
    "newton": update_rules.newton,
    "trust_region_newton": update_rules.trust_region_newton,
}
SCIPY = {
    "scipy BFGS": ("BFGS", {"gtol": TOLERANCE, "maxiter": MAX_STEPS}),
    "scipy L-BFGS-B": (
        "L-BFGS-B",
        {
            "gtol": TOLERANCE,
            "ftol": 0.0,
            "maxiter": MAX_STEPS,
            "maxfun": 10 * MAX_STEPS,
        },
    ),
    "scipy CG": ("CG", {"gtol": TOLERANCE, "maxiter": MAX_STEPS}),
}


class Row(NamedTuple):
    """One method on one problem.

    Attributes:
      problem, method: Their names.
      value, gradient_norm: Where it ended; the norm is the largest entry.
      evaluations: Of the objective with its gradient.
      minimum: The recorded point whose value that is ("global", "local", ...), or None.
      outcome: Why it ended.
    """

    problem: str
    method: str
    value: float
    gradient_norm: float
    evaluations: int
    minimum: str | None
    outcome: str


def measure(
    names: list[str] | None = None, on_row: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """Measure every method on every problem, or on the named problems."""
    rows: list[Row] = []

    def add(*row: Any) -> None:
        rows.append(Row(*row))
        on_row(rows[-1])

    for name in names or list(mgh.CASES):
        for method, rule in RULES.items():
            end = mgh.run(rule(), name, TOLERANCE, MAX_STEPS)
            add(
                name,
                method,
                end.f,
                end.gradient_norm,
                end.evaluations,
                end.minimum,
                end.outcome,
            )
        compiled = jax.jit(jax.value_and_grad(mgh.objective_of(name)))
        for method, (solver, options) in SCIPY.items():
            counted = _Counted(compiled)
            with np.errstate(all="ignore"):
                end = scipy.optimize.minimize(
                    counted,
                    mgh.CASES[name]["start"],
                    jac=True,
                    method=solver,
                    options=options,
                )
            norm = float(np.max(np.abs(compiled(jnp.asarray(end.x))[1])))
            add(
                name,
                method,
                float(end.fun),
                norm,
                counted.count,
                mgh.minimum_at(name, float(end.fun)),
                str(end.message),
            )
    return rows


class _Counted:
    def __init__(self, function: Callable[..., Any]):
        self.function, self.count = function, 0

    def __call__(self, x: np.ndarray):
        self.count += 1
        value, grad = self.function(jnp.asarray(x))
        return float(value), np.asarray(grad)


def page(rows: list[Row]) -> str:
    """Write the answer in sentences, then a row of evaluations for each problem.

    Brackets, with the value at the end, mark a method that reached no recorded minimum
    or stationary point.
    """
    methods = list(dict.fromkeys(r.method for r in rows))
    names = list(dict.fromkeys(r.problem for r in rows))
    by_key = {(r.problem, r.method): r for r in rows}
    lines, cells = [], []
    for method in methods:
        own = [by_key[name, method] for name in names]
        reached = sum(r.minimum is not None for r in own)
        flat = sum(r.gradient_norm <= TOLERANCE for r in own)
        median = np.median([r.evaluations for r in own])
        lines.append(
            f"{method}: on {reached} of {len(own)} problems it ended at a recorded "
            f"point, on {flat} with |∇f| <= {TOLERANCE:g}; median {median:g} "
            "evaluations."
        )
    for name in names:
        shown = [
            f"{r.evaluations}"
            if r.minimum is not None
            else f"({r.evaluations}: {r.value:.3g})"
            for r in (by_key[name, method] for method in methods)
        ]
        cells.append([name, *shown])
    return "\n".join([*lines, "", table(["problem", *methods], cells)])


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.more_garbow_hillstrom",
        description=(__doc__ or "").partition("\n\n")[0],
    )
    parser.add_argument(
        "--only",
        choices=mgh.CASES,
        metavar="PROBLEM",
        action="append",
        help="a problem's name; may be repeated (default: all)",
    )
    flags = parser.parse_args(words)
    research.backend.configure(x64=True)
    started = time.perf_counter()
    rows = measure(
        flags.only,
        lambda row: print(
            f"{row.problem}: {row.method} {row.evaluations} {row.outcome}", flush=True
        ),
    )
    print(page(rows))
    versions = (
        f"jax {jax.__version__}, scipy {scipy.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}"
    )
    print(f"\nIn {time.perf_counter() - started:.0f} s; {versions}, float64.")


if __name__ == "__main__":
    main()
