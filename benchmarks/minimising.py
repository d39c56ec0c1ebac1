"""Compare our minimisers with those of scipy and optimistix at one tolerance.

Ours are L-BFGS, BFGS, Newton and Levenberg-Marquardt.

python -m benchmarks.minimising  # every problem, a minute and a half
python -m benchmarks.minimising --only rosenbrock_2    # one of them
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax
from threadpoolctl import threadpool_limits

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.minimiser_problems import Case, make_cases
from benchmarks.tables import Section, number, spread_words, table
from research.descent._minimise import minimise
from research.update_rules._least_squares import levenberg_marquardt
from research.update_rules._newton import newton, trust_region_newton
from research.update_rules._quasi_newton import bfgs, lbfgs

# Of the gradient's largest entry at the end, in units of that at the start.
RELATIVE_TOLERANCE = 1e-8
MOST_STEPS = 5000
ROUNDS = 9
# A timing takes at least so long. One call of 50 µs would mostly show which caches the
# contender before it had filled.
LEAST_SECONDS = 0.005
OURS = "ours"
DIRECT = "called directly"
PEERS = ("scipy", "optimistix")


class Ended(NamedTuple):
    """The last point of a minimiser, and its own count of evaluations.

    It counts evaluations of the objective, or of all residuals.
    """

    x: Any
    evaluations: int


class Contender(NamedTuple):
    """A minimiser on a problem.

    Attributes:
      family: What it is compared within.
      name: Whose it is, and how it is called there.
      solve: () -> Ended, from the start; it has finished when it returns.
    """

    family: str
    name: str
    solve: Callable[[], Ended]


class MinimiserRow(NamedTuple):
    """One contender on one problem.

    Attributes:
      problem, family, contender: Which.
      note: Why there are no numbers, or "".
      evaluations: By its own count.
      value, gradient: The objective and its gradient's largest entry where it ended, by
        one program for all.
      reached: Whether that gradient is within the tolerance.
      seconds: Of a minimisation in the steady state, a Spread over the rounds.
      first: Seconds of the first one, with what is compiled for it.
      ratio: How many times as fast ours of the family is, where both reached the
        tolerance.
    """

    problem: str
    family: str
    contender: str
    note: str = ""
    evaluations: int = 0
    value: float = np.nan
    gradient: float = np.nan
    reached: bool = False
    seconds: clock.Spread | None = None
    first: float = np.nan
    ratio: clock.Spread | None = None


def ours(case: Case, tolerance: float) -> list[Contender]:
    """Return our contenders: `research.descent.minimise` with each rule.

    They are called as optimistix is: inside `jax.jit`, with the last point and the
    number of evaluations as results. The first rule of each family is also called
    directly, which checks the arguments and returns all six arrays of a `Minimum`.
    """
    rules: dict[str, dict[str, Any]] = {
        "L-BFGS": {"lbfgs": lbfgs()},
        "BFGS": {"bfgs": bfgs()},
        "Newton": {"newton": newton(), "trust_region_newton": trust_region_newton()},
    }
    if case.residuals is not None:
        rules = {"least squares": {"levenberg_marquardt": levenberg_marquardt()}}

    def search(rule: optax.GradientTransformation, start: Any):
        options = {
            "tolerance": tolerance,
            "max_steps": MOST_STEPS,
            "residual_fn": case.residuals,
        }
        # None: half of their squares.
        objective = case.objective if case.residuals is None else None
        found = minimise(objective, rule, start, **options)
        return found.params, found.evaluations

    def solving(run: Callable[[Any], Any]):
        def solve() -> Ended:
            x, evaluations = jax.block_until_ready(run(case.start))
            return Ended(x, int(evaluations))

        return solve

    found = []
    for family, named in rules.items():
        for name, rule in named.items():
            run = partial(search, rule)
            found.append(Contender(family, f"{OURS}: {name}", solving(jax.jit(run))))
        name, rule = next(iter(named.items()))
        found.append(
            Contender(family, f"{DIRECT}: {name}", solving(partial(search, rule)))
        )
    return found


def scipys(case: Case, tolerance: float) -> list[Contender]:
    """Return scipy's contenders, on functions compiled by JAX.

    Each evaluation returns to Python.
    """
    from scipy import optimize

    start = np.asarray(case.start)
    least_squares_of_scipy = cast(Any, optimize.least_squares)  # Its stubs want a str.

    def compiled(function: Callable[..., Any]):
        # JAX compiles a new function again, so every contender has its own program.
        made = jax.jit(lambda x: function(x))
        return lambda x: jax.tree.map(np.asarray, made(x))

    def fitting(**options: Any) -> Callable[[], Ended]:
        residual_fn = cast(Callable[..., Any], case.residuals)
        residuals = compiled(residual_fn)
        jacobian = compiled(jax.jacfwd(residual_fn))

        def solve() -> Ended:
            found = least_squares_of_scipy(
                residuals,
                start,
                jacobian,
                x_scale="jac",
                max_nfev=MOST_STEPS,
                **options,
            )
            return Ended(found.x, int(found.nfev))

        return solve

    def minimising(method: str, **options: Any) -> Callable[[], Ended]:
        both, extra = compiled(jax.value_and_grad(case.objective)), dict[str, Any]()
        if method.startswith("trust"):
            extra["hess"] = compiled(jax.hessian(case.objective))

        def solve() -> Ended:
            most = {"maxiter": MOST_STEPS, "gtol": tolerance}
            found = optimize.minimize(
                both, start, jac=True, method=method, options=most | options, **extra
            )
            return Ended(found.x, int(found.nfev))

        return solve

    if case.residuals is not None:
        minpack = fitting(method="lm", gtol=1e-15, ftol=1e-15, xtol=1e-15)
        return [
            Contender(
                "least squares",
                "scipy: trf",
                fitting(method="trf", gtol=tolerance, ftol=None, xtol=None),
            ),
            Contender("least squares", "scipy: lm, to rounding", minpack),
        ]
    return [
        Contender(
            "L-BFGS",
            "scipy: L-BFGS-B",
            minimising("L-BFGS-B", ftol=0.0, maxfun=MOST_STEPS),
        ),
        Contender("BFGS", "scipy: BFGS", minimising("BFGS")),
        Contender("Newton", "scipy: trust-exact", minimising("trust-exact")),
    ]


def contenders(case: Case, tolerance: float, with_optimistix: bool) -> list[Contender]:
    """Return all contenders, ours first."""
    found = ours(case, tolerance) + scipys(case, tolerance)
    if with_optimistix:
        from benchmarks import peers_optimistix

        found += [
            Contender(
                family, f"optimistix: {name}", lambda solve=solve: Ended(*solve())
            )
            for family, name, solve in peers_optimistix.solvers(
                case, tolerance, MOST_STEPS
            )
        ]
    return [c for c in found if not case.is_large or c.family == "L-BFGS"]


def measure_case(case: Case, with_optimistix: bool, rounds: int) -> list[MinimiserRow]:
    """Measure every contender on one problem, in turns.

    One program evaluates all their last points.
    """
    look = jax.jit(jax.value_and_grad(case.objective))

    def look_at(x: Any) -> tuple[float, float]:
        value, gradient = look(x)
        return float(value), float(np.max(np.abs(gradient)))

    tolerance = RELATIVE_TOLERANCE * look_at(case.start)[1]
    rows, running = {}, {}
    for runner in contenders(case, tolerance, with_optimistix):
        key, ends = (case.name, runner.family, runner.name), []
        try:
            first = clock.seconds_of(
                lambda runner=runner, ends=ends: ends.append(runner.solve())
            )
        except Exception as problem:  # Its row tells.
            rows[runner.name] = MinimiserRow(*key, f"failed: {type(problem).__name__}")
            continue
        value, gradient = look_at(ends[0].x)
        # Another program rounds it otherwise.
        reached = gradient <= tolerance * (1 + 1e-6)
        rows[runner.name] = MinimiserRow(
            *key, "", ends[0].evaluations, value, gradient, reached, first=first
        )
        running[runner.name] = runner.solve
    seconds = clock.take_turns(running, rounds, LEAST_SECONDS)
    return [_timed(row, seconds, rows) for row in rows.values()]


def _timed(
    row: MinimiserRow, seconds: dict[str, np.ndarray], rows: dict[str, MinimiserRow]
) -> MinimiserRow:
    if row.contender not in seconds:
        return row
    ratio, own = None, (r for r in rows.values() if r.contender.startswith(OURS))
    mine = next(r for r in own if r.family == row.family)
    if not row.contender.startswith(OURS) and row.reached and mine.reached:
        ratio = clock.ratio(seconds[row.contender], seconds[mine.contender])
    return row._replace(seconds=clock.spread(seconds[row.contender]), ratio=ratio)


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[MinimiserRow]:
    """Measure all problems; if quick, only the smallest.

    Raises:
      ValueError: A name in `only` is no problem's.
    """
    cases = {case.name: case for case in make_cases()}
    if unknown := [name for name in only or () if name not in cases]:
        raise ValueError(
            f"there is no problem {', '.join(unknown)}; known: {', '.join(cases)}."
        )
    with_optimistix, rows = find_spec("optimistix") is not None, []
    for name in only or (list(cases)[:1] if quick else cases):
        tell(f"minimising: {name}")
        # The matrices are so small that a second thread only waits.
        with threadpool_limits(1, "blas"):
            rows += measure_case(cases[name], with_optimistix, 2 if quick else ROUNDS)
        if not with_optimistix:
            rows.append(MinimiserRow(name, "", "optimistix", "not installed"))
    return rows


def section(rows: list[MinimiserRow]) -> Section:
    """Describe the rows in a section of the page."""
    mine = [row for row in rows if row.contender.startswith(OURS)]
    answer = (
        f"Minimising, ours reach the tolerance in {sum(r.reached for r in mine)} of "
        f"{len(mine)}"
    )
    others = list(filter(None, (_beside(rows, peer) for peer in PEERS)))
    answer += f"; {' '.join(others)}" if others else "."
    text = (
        f"{_table(rows)}\n\nEach stops when the gradient's largest entry is "
        f"{RELATIVE_TOLERANCE:g} of what it is at the start. Two of scipy are other: "
        "`trust-exact` uses the Euclidean norm of the gradient, and `lm`, which has no "
        "such stop, goes on until nothing changes. Values and gradients are by one "
        "program for all; evaluations are each one's own count: of scipy nfev, of "
        "optimistix its steps, each one trial. A minimisation is repeated for "
        f"{1e3 * LEAST_SECONDS:g} ms in each timing. First s is the first "
        "minimisation, with what is compiled for it. Ours in a ratio is the first of "
        "its family; there is one only where both reached the tolerance. optimistix "
        "has no minimiser by Newton's method. Ours and optimistix run inside jax.jit "
        "and return the last point and the number of evaluations. The rows "
        f"'{DIRECT}' are calls of minimise without jax.jit around them; they check "
        "their arguments and return six arrays."
    )
    missed = [
        f"{row.problem}: {row.contender} ends with a gradient of {row.gradient:.1e}, "
        "above the tolerance"
        for row in mine
        if not row.reached
    ]
    missed += [
        f"{row.problem}: {row.contender} takes {number(row.ratio.median)} of our time"
        for row in rows
        if row.ratio and row.ratio.median < 1 and row.contender.startswith(PEERS)
    ]
    return Section("Minimising", answer, text, missed)


def _beside(rows: list[MinimiserRow], peer: str) -> str:
    # One that failed did not reach the tolerance. The row "not installed" has no colon.
    theirs = [row for row in rows if row.contender.startswith(f"{peer}: ")]
    both = [(row, row.ratio.median) for row in theirs if row.ratio]
    if not both:
        return ""
    of_mine = {
        (r.problem, r.family): r for r in reversed(rows) if r.contender.startswith(OURS)
    }
    more = [
        of_mine[row.problem, row.family].evaluations / row.evaluations
        for row, _ in both
    ]
    ratios = [ratio for _, ratio in both]
    return (
        f"{peer} does in {sum(row.reached for row in theirs)} of {len(theirs)}, and "
        f"where both do, ours takes {number(float(np.median(more)))} times its "
        "evaluations (median) and is at least as fast in "
        f"{sum(ratio >= 1 for ratio in ratios)} of {len(ratios)}, by "
        f"{number(min(ratios))} to {number(max(ratios))}."
    )


def _table(rows: list[MinimiserRow]) -> str:
    columns = [
        "problem",
        "contender",
        "evaluations",
        "value",
        "gradient",
        "reached",
        "ms",
        "ours is faster by",
        "first s",
    ]
    lines = []
    for row in rows:
        if row.note or row.seconds is None:
            lines.append([row.problem, row.contender, row.note, *"------"])
            continue
        lines.append(
            [
                row.problem,
                row.contender,
                row.evaluations,
                f"{row.value:.10g}",
                f"{row.gradient:.1e}",
            ]
            + [
                "yes" if row.reached else "no",
                number(1e3 * row.seconds.median),
                spread_words(row.ratio),
                number(row.first),
            ]
        )
    return table(columns, lines)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a problem")
