"""Cost of a function and of its derivatives: flops, bytes, memory and seconds."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from research.checks import (
    check_call,
    check_callable,
    check_leaves_not_deleted,
    check_real,
)
from research.columns import aligned
from research.derivatives.costs.counting import Count, count
from research.derivatives.costs.jaxprs import traced

__all__ = ["Cost", "CostRatio", "cost", "cost_ratio", "counted_cost"]


class Cost(NamedTuple):
    """Cost of one call of a compiled function.

    The operations are counted from the jaxpr, JAX's representation of the traced
    function, by these rules:

    - A multiply-add counts as two flops (floating-point operations).
    - Exp, log, sqrt and similar operations are not counted as flops, but as
      transcendentals.
    - The count for the body of a `scan` is multiplied by the number of iterations.
    - Of the branches of a `cond`, the most expensive one is counted.
    - The flops of a LAPACK routine are computed from the sizes of its matrices.

    XLA's own count of flops is different: it includes the body of a loop only once, and
    counts a LAPACK routine as 0.

    Attributes:
      flops: Number of floating-point operations, without exp, log, sqrt and similar
        operations.
      transcendentals: Number of exp, log, sqrt and similar operations.
      bytes: Number of bytes that would be read and written if each equation (operation)
        of the jaxpr ran by itself. The compiled function usually moves fewer bytes,
        because XLA fuses equations.
      temporary_bytes: Memory in bytes that XLA allocates in addition to arguments and
        results. NaN if unknown.
      compile_seconds: Time to trace and compile, in seconds.
      wall_seconds: Time of the fastest call, in seconds. NaN if calls are not timed.
      unknown_loops: Number of `while` loops. The body of such a loop is counted once,
        because the number of iterations is unknown.
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
        """Number of flops plus number of transcendentals."""
        return self.flops + self.transcendentals


class CostRatio(NamedTuple):
    """Cost of transform(f), such as `jax.grad(f)`, relative to the cost of f.

    Attributes:
      function: Cost of f.
      transformed: Cost of transform(f).
      flops: Number of operations of transform(f), divided by that of f. The operations
        are flops and transcendentals (exp, log, sqrt and similar operations).
      bytes: Number of bytes that transform(f) reads and writes, divided by that of f.
        `Cost` explains how these bytes are counted.
      wall: `wall_seconds` of transform(f), divided by that of f. NaN if calls are not
        timed.
    """

    function: Cost
    transformed: Cost
    flops: float
    bytes: float
    wall: float

    def text(self) -> str:
        """Return the ratios as a sentence, and both costs as a table, in one text."""
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
        for name, costs in (("f", self.function), ("derivative", self.transformed)):
            rows.append((name, *(f"{value:.4g}" for value in costs[:6])))
        loops = self.function.unknown_loops or self.transformed.unknown_loops
        note = (
            [
                (
                    "The number of iterations of a while loop is unknown, so its "
                    "body is counted once."
                )
            ]
            if loops
            else []
        )
        ratios = (
            f"The derivative takes {self.flops:.2f} times the operations of f, "
            f"{self.bytes:.2f} times the bytes"
        )
        return "\n".join(
            [f"{ratios} and {self.wall:.2f} times the seconds.", *note, *aligned(rows)]
        )


def cost(f: Callable[..., Any], *args: Any, seconds: float = 0.2) -> Cost:
    """Measure the cost of one call of the compiled function f(*args).

    The flops are counted from the jaxpr, XLA reports the memory, and calls are timed.

    Args:
      f: Any function that JAX can trace. Operations that do not affect an output are
        not counted.
      *args: Arguments of f, arrays or pytrees of arrays.
      seconds: Duration of the timing in seconds. If `seconds` is 0, no call is timed.
        Otherwise, at least three calls are timed.
    Returns:
      The `Cost`.
    Raises:
      TypeError: f is not a function of these arguments, or seconds is not a real
        number.
      ValueError: seconds is negative or above 10,000.
    References:
      Golub & Van Loan, Matrix computations, 4th ed., 2013 (flops of the
      factorisations).
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.ones((10, 20)), jnp.ones((20, 30))
      >>> # 2 · 10 · 20 · 30 for the product, 300 for the sum:
      >>> cost(lambda a, b: jnp.sum(a @ b), a, b, seconds=0).flops
      12300.0
    """
    check_real("seconds", seconds)
    if not seconds >= 0:
        raise ValueError(f"seconds must be at least 0; got seconds={seconds}.")
    if seconds > 1e4:
        raise ValueError(f"seconds must be at most 10,000; got seconds={seconds}.")
    check_call("cost", f, len(args))
    check_leaves_not_deleted("args", args)
    counted = count(traced(f, *args))
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
    transform: Callable[..., Any],
    f: Callable[..., Any],
    *args: Any,
    seconds: float = 0.2,
) -> CostRatio:
    """Compare the cost of transform(f) with the cost of f, for the same arguments.

    In theory, a gradient in reverse mode takes at most 4 times as many operations as f
    (Baur & Strassen, 1983). The theory assumes that the derivative of each single
    operation is cheap. The field `flops` of the result is the ratio of the numbers of
    operations. If this ratio exceeds 4 for `jax.grad`, the derivative of some operation
    in f costs more than the theory assumes.

    Args:
      transform: Function from f to a function of the same arguments, such as
        `jax.grad`.
      f: Any function that JAX can trace.
      *args: Arguments of f, arrays or pytrees of arrays.
      seconds: Duration of the timing of each function in seconds, as in `cost`.
    Returns:
      The `CostRatio`. Its method `text` returns the ratios and both costs as a text.
    Raises:
      TypeError: transform or transform(f) is not callable, f is not a function of these
        arguments, or seconds is not a real number.
      ValueError: f has no operations on floating numbers, or seconds is negative or
        above 10,000.
    References:
      Baur & Strassen, The complexity of partial derivatives, Theor. Comput. Sci. 22,
      1983.
    Example:
      >>> import jax.numpy as jnp
      >>> f = lambda x: jnp.sum(jnp.sin(x) ** 2)
      >>> ratio = cost_ratio(jax.grad, f, jnp.ones(1000), seconds=0)
      >>> 1 < ratio.flops < 5
      True
    """
    check_callable("transform", transform, "f")
    if callable(f) and getattr(transform, "__wrapped__", None) is f:
        raise TypeError(
            "transform must be a function from f to a function, such as jax.grad; got "
            "transform(f). Pass jax.grad instead of jax.grad(f)."
        )
    check_call("cost_ratio", f, len(args))
    check_leaves_not_deleted("args", args)
    plain = cost(f, *args, seconds=seconds)
    if not plain.operations:
        raise ValueError(
            "f must contain at least one operation on floating numbers; without one "
            "the ratio is undefined."
        )
    derived = transform(f)
    check_callable("transform(f)", derived)
    derived_cost = cost(derived, *args, seconds=seconds)
    return CostRatio(
        plain,
        derived_cost,
        derived_cost.operations / plain.operations,
        derived_cost.bytes / plain.bytes,
        derived_cost.wall_seconds / plain.wall_seconds,
    )


def counted_cost(f: Callable[..., Any], *args: Any) -> Count:
    """Count the cost of f(*args) by tracing f, without compiling or running it.

    Args:
      f: Any function that JAX can trace.
      *args: Arguments of f. Only the shapes and dtypes of arrays are used.
    Returns:
      A `Count`: numbers of flops (additions, multiplications and so on), transcendental
      operations, bytes and `while` loops. The field for the loops is `unknown_loops`.
      The body of a `while` loop is counted once, because the number of iterations is
      unknown. The property `operations` of the Count is the sum of the first two
      numbers.
    Raises:
      TypeError: f is not a function of these arguments.
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.ones((2, 3)), jnp.ones((3, 4))
      >>> counted_cost(lambda a, b: a @ b, a, b).operations  # 2 · 2 · 3 · 4
      48.0
    """
    check_call("counted_cost", f, len(args))
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
