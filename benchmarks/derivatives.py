"""Time a derivative of high order, a sparse Hessian and a certified minimum.

Each stands beside the other ways to compute the same in JAX, in turns. We know of no
peer in Python that proves a global minimum of a JAX function, so this row stands alone.

    python -m benchmarks.derivatives         # about 20 seconds on two idle cores
    python -m benchmarks.derivatives --only taylor --quick   # a smoke run
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.jet import jet

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.minimiser_problems import rosenbrock
from benchmarks.tables import Section, number, spread_words, table
from research import derivatives
from research.derivatives import certified

ORDER = 6
WIDTH = 64  # Of the network whose Taylor series is computed.
VARIABLES = 2_000  # Of Rosenbrock's function.
BOX = [(-3.0, 3.0), (-2.0, 2.0)]  # Of the six-hump camel function.
ROUNDS = 15
LEAST = 0.02  # Seconds for which a short call is repeated in a round.
TOLERANCE = 1e-8  # Relative; derivatives of order 6 magnify rounding.
OURS = "ours"


class DerivativeRow(NamedTuple):
    """One way to compute one derivative.

    Attributes:
      what, contender: Which.
      milliseconds: Of a call, a Spread over the rounds.
      ratio: How many times as fast ours is; None for ours.
      compile_seconds: Tracing and compiling, or None where a call includes them.
    """

    what: str
    contender: str
    milliseconds: clock.Spread
    ratio: clock.Spread | None
    compile_seconds: float | None


def network(x: jax.Array) -> jax.Array:
    """Return a number computed by two tanh layers."""
    weights = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, WIDTH, WIDTH)) / math.sqrt(WIDTH)
    )
    return jnp.sum(jnp.tanh(weights[1] @ jnp.tanh(weights[0] @ x)))


def camel(x: jax.Array) -> jax.Array:
    """Return the six-hump camel function, whose minimum is -1.0316284535."""
    a, b = x[0], x[1]
    return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (4 * b**2 - 4) * b**2


def taylor_ways() -> tuple[dict[str, Callable[[Any], Any]], Any]:
    """Return functions of x for the derivative of order ORDER along v, and x."""
    drawn = np.random.default_rng(1).normal(size=(2, WIDTH))
    x, v = jnp.asarray(drawn[0]), jnp.asarray(drawn[1])

    def nested(x: Any) -> Any:
        along = network
        for _ in range(ORDER):
            along = lambda y, g=along: jax.jvp(g, (y,), (v,))[1]
        return along(x)

    series = [v] + [jnp.zeros_like(v)] * (ORDER - 1)
    factorial = math.factorial(ORDER)
    return {
        OURS: lambda x: derivatives.taylor(network, x, v, ORDER)[ORDER] * factorial,
        "jax.experimental.jet": lambda x: jet(network, (x,), (series,))[1][-1],
        "nested jvp": nested,
    }, x


def hessian_ways() -> tuple[dict[str, Callable[[Any], Any]], Any]:
    """Return functions of x that compute H v from the whole Hessian H, and x."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=VARIABLES))
    v = jnp.ones(VARIABLES)
    pattern = derivatives.sparse_hessian(rosenbrock, x).pattern
    ours = lambda x: derivatives.sparse_hessian(rosenbrock, x, pattern=pattern)
    return {
        OURS: lambda x: ours(x).matrix @ v,
        "jax.hessian, dense": lambda x: jax.hessian(rosenbrock)(x) @ v,
    }, x


WAYS = {
    f"taylor, order {ORDER}": taylor_ways,
    f"sparse Hessian, {VARIABLES:,} variables": hessian_ways,
}
CERTIFIED = "certified minimum, six-hump camel"
PROOFS = 5  # Rounds of the certified minimum, which takes longer than the others.


def compiled_row(
    what: str, ways: dict[str, Callable[[Any], Any]], x: Any, rounds: int
) -> list[DerivativeRow]:
    """Compile every way, check that all agree, and time them in turns."""
    programs, compiling = {}, {}
    for name, way in ways.items():
        lower = lambda way=way: jax.jit(way).lower(x).compile()
        compiling[name] = clock.seconds_of(
            lambda name=name, lower=lower: programs.update({name: lower()})
        )
    values = {name: np.asarray(program(x)) for name, program in programs.items()}
    clock.check_equal(values, what, TOLERANCE)
    calls = {
        name: lambda program=program: jax.block_until_ready(program(x))
        for name, program in programs.items()
    }
    seconds = clock.take_turns(calls, rounds, least=LEAST)
    return [
        DerivativeRow(
            what,
            name,
            clock.spread(1e3 * seconds[name]),
            None if name == OURS else clock.ratio(seconds[name], seconds[OURS]),
            compiling[name],
        )
        for name in ways
    ]


def certified_row(rounds: int) -> list[DerivativeRow]:
    """Time the proof of a global minimum, with its tracing.

    Raises:
      ValueError: The bounds do not hold the known minimum.
    """

    def prove() -> certified.Minimum:
        return certified.certified_minimum(camel, BOX)

    found = prove()
    if not (
        found.complete and found.low <= -1.031628453 and found.high >= -1.031628454
    ):
        raise ValueError(f"the minimum was not enclosed: {found}")
    seconds = clock.take_turns({OURS: prove}, rounds)[OURS]
    spread = clock.spread(1e3 * seconds)
    return [DerivativeRow(CERTIFIED, OURS, spread, None, None)]


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[DerivativeRow]:
    """Measure all rows, or those whose name begins with an entry of `only`.

    Raises:
      ValueError: An entry of `only` begins no row's name.
    """
    names = (*WAYS, CERTIFIED)
    begun = lambda word: any(name.startswith(word) for name in names)
    if unknown := [word for word in only or () if not begun(word)]:
        raise ValueError(
            f"no row begins with {', '.join(unknown)}; the rows are {'; '.join(names)}."
        )
    chosen = [name for name in names if not only or name.startswith(tuple(only))]
    rounds = 2 if quick else ROUNDS
    rows = []
    for name in chosen:
        tell(f"derivatives: {name}")
        if name == CERTIFIED:
            rows += certified_row(2 if quick else PROOFS)
        else:
            rows += compiled_row(name, *WAYS[name](), rounds)
    return rows


def section(rows: Sequence[DerivativeRow]) -> Section:
    """Write the rows as a table, with an answer and the rows that are behind."""
    compared = [row for row in rows if row.ratio is not None]
    words = [
        f"{row.what}: {number(row.ratio.median)} times as fast as {row.contender}"
        for row in compared
        if row.ratio
    ]
    cells = [
        [
            row.what,
            row.contender,
            spread_words(row.milliseconds),
            spread_words(row.ratio) if row.ratio else "",
            number(row.compile_seconds) if row.compile_seconds else "in the call",
        ]
        for row in rows
    ]
    columns = ["what", "contender", "ms a call", "ours is faster by", "compile s"]
    text = (
        f"{table(columns, cells)}\n\nIn float64. Taylor: the derivative of order "
        f"{ORDER} of two tanh layers of width {WIDTH} along a direction. Hessian: of "
        "Rosenbrock's function, times a vector; its pattern is known before. The "
        "certified minimum is enclosed to 1e-8; a call traces the function, too. All "
        f"ways agree to {TOLERANCE:.0e}."
    )
    missed = [
        f"{row.what}: {number(row.ratio.median)} times as fast as {row.contender}"
        for row in compared
        if row.ratio and row.ratio.median < 1
    ]
    answer = f"Derivatives: {'; '.join(words)}." if words else ""
    return Section("Derivatives", answer, text, missed)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "the first letters of a row's name")
