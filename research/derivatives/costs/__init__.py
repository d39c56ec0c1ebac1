"""What a derivative costs against its function: flops from the jaxpr, bytes, memory and seconds."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from research.checks import check_callable, check_real
from research.derivatives.costs.counting import Count, count
from research.derivatives.costs.jaxprs import traced

__all__ = ["Cost", "CostRatio", "cost", "cost_ratio", "counted_cost"]


class Cost(NamedTuple):
    """What one call of a compiled function costs.

    Attributes:
      flops: Counted from the jaxpr: loops times their trips, LAPACK by formula, a multiply-add as two. XLA's own count
        takes a loop's body once and LAPACK for nothing.
      transcendentals: exp, log, sqrt, ...: one each.
      bytes: Read and written, as if every equation were done by itself: an upper bound, since XLA fuses.
      temporary_bytes: What XLA sets aside beside arguments and results; NaN where it does not say.
      compile_seconds: Of tracing and compiling.
      wall_seconds: Of the fastest call, blocked on; NaN where calls are not timed.
      unknown_loops: `while` loops, whose bodies are counted once since the program does not tell their trips.
    """

    flops: float
    transcendentals: float
    bytes: float
    temporary_bytes: float
    compile_seconds: float
    wall_seconds: float
    unknown_loops: int

    @property
    def operations(self) -> float:
        """Flops and transcendentals together."""
        return self.flops + self.transcendentals


class CostRatio(NamedTuple):
    """What a transform of f costs against f.

    Attributes:
      function: Of f.
      transformed: Of transform(f).
      flops: transformed.operations / function.operations, transcendentals included.
      bytes: Of the bytes.
      wall: Of the seconds.
    """

    function: Cost
    transformed: Cost
    flops: float
    bytes: float
    wall: float

    def text(self) -> str:
        """A sentence with the ratios, then both costs in a table."""
        rows: list[tuple[str, ...]] = [
            (
                "",
                "flops",
                "transcendentals",
                "bytes",
                "temporary bytes",
                "compile s",
                "wall s",
            )
        ]
        for name, found in (("f", self.function), ("derivative", self.transformed)):
            rows.append((name, *(f"{value:.4g}" for value in found[:6])))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(
                cell.ljust(w) for cell, w in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]
        loops = self.function.unknown_loops or self.transformed.unknown_loops
        note = (
            ["The trips of a while loop are not known: its body is counted once."]
            if loops
            else []
        )
        said = f"The derivative takes {self.flops:.2f} times the operations of f, {self.bytes:.2f} times the bytes"
        return "\n".join(
            [f"{said} and {self.wall:.2f} times the seconds.", *note, *table]
        )


def cost(f: Callable, *args: Any, seconds: float = 0.2) -> Cost:
    """What f(*args) costs once compiled: counted, asked of XLA, and timed.

    Args:
      f: Any function that jax can trace; what no output needs is not counted.
      args: Arrays, or pytrees of them.
      seconds: For how long it is called again and again to be timed, at least three times; 0 times nothing.
    Returns:
      Cost.
    Raises:
      ValueError: seconds is negative.
    References:
      Golub & Van Loan, Matrix computations, 4th ed., 2013 (flops of the factorisations).
    Example:
      >>> import jax.numpy as jnp
      >>> found = cost(lambda a, b: jnp.sum(a @ b), jnp.ones((10, 20)), jnp.ones((20, 30)), seconds=0)
      >>> found.flops  # 2 · 10 · 20 · 30 for the product, 300 for the sum.
      12300.0
    """
    check_real("seconds", seconds)
    if not seconds >= 0:
        raise ValueError(f"seconds must not be negative; got seconds={seconds}.")
    if seconds > 1e4:
        raise ValueError(f"seconds must be at most 10,000; got seconds={seconds}.")
    counted = counted_cost(f, *args)
    start = time.perf_counter()
    compiled = jax.jit(f).lower(*args).compile()
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    temporary = float(getattr(memory, "temp_size_in_bytes", float("nan")))
    wall = _fastest(lambda: jax.block_until_ready(compiled(*args)), seconds)
    return Cost(
        counted.flops,
        counted.transcendentals,
        counted.bytes,
        temporary,
        compile_seconds,
        wall,
        counted.unknown_loops,
    )


def cost_ratio(
    transform: Callable, f: Callable, *args: Any, seconds: float = 0.2
) -> CostRatio:
    """How many times f the cost of transform(f) is, both at the same arguments.

    For a gradient in reverse mode theory allows at most 4 in operations, 5 with memory traffic (Baur & Strassen, 1983;
    Griewank & Walther, 2008): a larger ratio is a rule that departs from plain reverse mode.

    Args:
      transform: f -> function of the same arguments, such as `jax.grad`.
      f: Any function that jax can trace.
      args: Arrays, or pytrees of them.
      seconds: As in `cost`.
    Returns:
      CostRatio; `print(ratio.text())`.
    Raises:
      ValueError: f does no operation on floating numbers, or seconds is negative.
    References:
      Baur & Strassen, The complexity of partial derivatives, Theor. Comput. Sci. 22, 1983; Griewank & Walther, Evaluating
      derivatives, 2nd ed., 2008, section 4.6.
    Example:
      >>> import jax.numpy as jnp
      >>> ratio = cost_ratio(jax.grad, lambda x: jnp.sum(jnp.sin(x) ** 2), jnp.ones(1000), seconds=0)
      >>> 1 < ratio.flops < 5
      True
    """
    check_callable("transform", transform, "f")
    plain = cost(f, *args, seconds=seconds)
    if not plain.operations:
        raise ValueError(
            "f does no operation on floating numbers, so that no ratio to it exists; give a function that computes."
        )
    derived = transform(f)
    check_callable("what transform gives", derived)
    found = cost(derived, *args, seconds=seconds)
    return CostRatio(
        plain,
        found,
        found.operations / plain.operations,
        found.bytes / plain.bytes,
        found.wall_seconds / plain.wall_seconds,
    )


def counted_cost(f: Callable, *args: Any) -> Count:
    """What f(*args) takes, as `cost` counts it, but only traced: nothing is compiled or run.

    Args:
      f: Any JAX function.
      args: Its arguments; of arrays only shape and type matter.
    Returns:
      Count, as `cost` has it, without seconds.
    Example:
      >>> import jax.numpy as jnp
      >>> counted_cost(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 4))).operations  # 2 · 2 · 3 · 4
      48.0
    """
    check_callable("f", f, *map(str, range(len(args))))
    return count(traced(f, *args))


def _fastest(call: Callable[[], Any], seconds: float) -> float:
    if not seconds:
        return float("nan")
    call()
    best, number, until = float("inf"), 0, time.perf_counter() + seconds
    while number < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        best, number = min(best, time.perf_counter() - start), number + 1
    return best
