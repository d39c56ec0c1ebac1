"""Backpropagation through a JAX function as a table of equations and adjoints."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from research.checks import check_call, check_leaves_not_deleted, check_sequence
from research.derivatives.errors import (
    NotInexactError,
    NotScalarError,
    UnsupportedPrimitiveError,
)
from research.derivatives.exact.arguments import kind_of, title
from research.derivatives.ledger import _backward as backward
from research.derivatives.ledger import _walking as walking
from research.derivatives.ledger.kinks import Kink
from research.derivatives.ledger.ledger import Ledger, make_ledger
from research.derivatives.ledger.nonfinite import NonFinite
from research.derivatives.ledger.paths import GradientPath
from research.derivatives.ledger.rows import LEVELS, MATHEMATICS, Row
from research.derivatives.ledger.tape import (
    Equation,
    Literal,
    Operand,
    OwnReverse,
    Tape,
)

__all__ = ["GradientPath", "Kink", "Ledger", "NonFinite", "Row", "explain"]


def explain(
    f: Callable[..., Any],
    *args: Any,
    level: str = MATHEMATICS,
    expand: Sequence[str] = (),
) -> Ledger:
    """Return a table of backpropagation through f at args, for a check by hand.

    JAX traces f to a list of equations, one for each operation. Each row of the table
    is one equation, with its value and its adjoint. The adjoint of a value is the
    derivative of f with respect to this value.

    If JAX runs each operation separately (`with jax.disable_jit()`), the gradients in
    the table are bit-identical to the result of jax.grad(f). In three cases, these
    gradients are equal to the result of jax.grad(f) only up to rounding errors:

    - f has a `jax.checkpoint` inside another `jax.checkpoint`, or a `jax.checkpoint` of
      a function that uses its argument several times.
    - f has a `jax.custom_jvp` with several outputs.
    - `expand` is not empty.

    In the first two cases, JAX adds the same terms in another order. If JAX compiles f
    or a function of jax.numpy, XLA fuses operations, and the result of jax.grad may
    differ in the last digits.

    Args:
      f: Any JAX function that takes arrays, or pytrees of arrays, and returns one real
        floating number.
      *args: Point of evaluation. The gradient is with respect to all floating leaves.
      level: "primitives" shows all equations. "mathematics" hides those equations of a
        `jax.custom_jvp` rule that have no adjoint. It also hides equations that only
        change a shape or a dtype, with three exceptions: a transposition, a conversion
        that may change a number, and a broadcast whose result is the input of a sum or
        of a product of arrays.
      expand: ("scan",) shows each step of a scan in separate rows. () shows a scan as
        one row.
    Returns:
      The table, a `Ledger`. If f cannot be differentiated in reverse mode (for example
      because of a `while` loop), the table contains only the values of the forward
      pass. Its attribute `grads` is then None, and its attribute `note` gives the
      reason.
    Raises:
      NotScalarError: f does not return one real floating number.
      NotInexactError: No argument is floating, or a leaf of an argument is not a number
        or an array of numbers.
      ValueError: level or expand is unknown.
      TypeError: f cannot be called with these arguments, or expand is not a sequence of
        str.
    References:
      Griewank & Walther, Evaluating derivatives, 2nd ed., 2008, table 3.6 (adjoints of
      an evaluation trace).
    Example:
      >>> loss = lambda w, b, x, y: (jax.nn.sigmoid(w * x + b) - y) ** 2
      >>> ledger = explain(loss, 0.5, -0.3, 2.0, 1.0)
      >>> for row in ledger.rows:  # Or print(ledger.text()).
      ...     value, adjoint = f"{row.value:7.4f}", f"adjoint {row.adjoint:7.4f}"
      ...     print(f"{row.name} = {row.expression:7} {value}  {adjoint}  {row.rule}")
      v1 = w · x    1.0000  adjoint -0.1471  d(a b) = b da + a db
      v2 = v1 + b   0.7000  adjoint -0.1471  d(a + b) = da + db
      v3 = σ(v2)    0.6682  adjoint -0.6636  dσ(a) = σ(a) (1 - σ(a)) da
      v4 = v3 - y  -0.3318  adjoint -0.6636  d(a - b) = da - db
      v5 = v4²      0.1101  adjoint  1.0000  d(aⁿ) = n aⁿ⁻¹ da
      >>> print(*(f"{grad:.4f}" for grad in ledger.grads))
      -0.2943 -0.1471 -0.0736 0.6636
    """
    check_call("explain", f, len(args))
    check_leaves_not_deleted("args", args)
    check_sequence("expand", expand, "names", str)
    if not isinstance(level, str) or level not in LEVELS or not set(expand) <= {"scan"}:
        raise ValueError(
            f"level must be one of {LEVELS}, and expand () or ('scan',); got "
            f"level={level!r}, expand={tuple(expand)!r}."
        )
    leaves, structure = jax.tree.flatten(args)
    ways = [path for path, _ in jax.tree_util.tree_flatten_with_path(args)[0]]
    for way, leaf in zip(ways, leaves, strict=True):
        if isinstance(kind_of(leaf), str):
            raise NotInexactError(
                "the arguments of f must be numbers or arrays of numbers; got "
                f"args{jax.tree_util.keystr(way)}={leaf!r}. Close over other values."
            )
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    inexact = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    called = title(f)
    if not any(inexact):
        kinds = ", ".join(str(leaf.dtype) for leaf in leaves) or "no number"
        advice = " Write 3.0 instead of 3." if leaves else ""
        raise NotInexactError(
            f"at least one argument of {called} must be floating; got {kinds}.{advice}"
        )

    def flat(*given: Any) -> list[Any]:
        return _one_number(called, f(*jax.tree.unflatten(structure, given)))

    tape, nodes, (output,) = walking.record(flat, leaves, expand)
    grads, note = _gradients(tape, nodes, output, inexact, structure)
    names = _argument_names(f, len(args))
    named = {
        names[way[0].idx] + jax.tree_util.keystr(way[1:]): node
        for way, node in zip(ways, nodes, strict=True)
    }
    return make_ledger(called, tape, named, output, grads, note, level)


def _one_number(called: str, result: Any) -> list[Any]:
    outs = jax.tree.leaves(result)
    if any(isinstance(kind_of(out), str) for out in outs):
        raise NotScalarError(
            f"{called} must return one real number; it returns {result!r}."
        )
    if (
        len(outs) != 1
        or jnp.shape(outs[0]) != ()
        or not jnp.issubdtype(jnp.result_type(outs[0]), jnp.floating)
    ):
        shapes = (
            ", ".join(f"{jnp.result_type(out)}{list(jnp.shape(out))}" for out in outs)
            or "nothing"
        )
        raise NotScalarError(
            f"{called} must return one real number; it returns {shapes}. Sum the "
            "result, or use jacobian."
        )
    return outs


def _gradients(
    tape: Tape,
    nodes: Sequence[int],
    output: Operand,
    inexact: Sequence[bool],
    structure: Any,
) -> tuple[Any, str]:
    if not isinstance(output, Literal) and tape.active[output]:
        try:
            backward.pull_back(tape, output, jnp.ones_like(tape.values[output]))
        except UnsupportedPrimitiveError as error:
            tape.adjoints = [None] * len(tape.values)
            for entry in tape.entries:
                if isinstance(entry, Equation | OwnReverse):
                    entry.contributions = None
            return None, f"Only forward values: {error}."
    leaves = [
        None
        if not keep
        else jnp.zeros_like(tape.values[n])
        if tape.adjoints[n] is None
        else tape.adjoints[n]
        for n, keep in zip(nodes, inexact, strict=True)
    ]
    grads = jax.tree.unflatten(structure, leaves)
    return (grads[0] if len(grads) == 1 else grads), ""


def _argument_names(f: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
    many = [
        f"{rest}[{i}]" if rest else f"x{i + len(positional)}"
        for i in range(count - len(positional))
    ]
    return (positional + many)[:count]
