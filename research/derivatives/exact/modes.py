"""Forward or reverse: which of the two the shapes ask for, and which a function has rules for."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from research.checks import check_callable, check_choice
from research.derivatives.errors import NotInexactError, NotScalarError
from research.derivatives.exact.arguments import floating, outputs_of, size, title

ModeName = Literal["auto", "forward", "reverse"]
MODES = ("auto", "forward", "reverse")


class Mode(NamedTuple):
    """How a Jacobian is computed, and why.

    Attributes:
      name: "forward" (a pass for each input) or "reverse" (a pass for each output).
      inputs: Numbers that f takes.
      outputs: Numbers that f gives.
      reason: In words.
    """

    name: Literal["forward", "reverse"]
    inputs: int
    outputs: int
    reason: str


def chosen_mode(f: Callable, x: Any) -> Mode:
    """Which mode `gradient` and `jacobian` take when they may choose.

    Forward mode costs a pass for each of the n inputs, reverse mode one for each of the m outputs (and it stores
    what the pass forward computes): forward where n <= m, else reverse. Where f has no rule for that mode (a
    `while_loop` has none in reverse, a `jax.custom_vjp` none forward), the other.

    Args:
      f: Function of one pytree of floating arrays.
      x: Where; nothing is computed, only traced.
    Returns:
      Mode; printing its reason says the choice.
    Raises:
      NotInexactError: A leaf of x, or what f gives, is no floating number.
    Example:
      >>> import numpy as np
      >>> mode = chosen_mode(lambda x: x @ x, np.ones(3))
      >>> print(mode.name, "because", mode.reason)
      reverse because there are more inputs (3) than outputs (1)
      >>> chosen_mode(lambda x: 2 * x, np.ones(3)).name
      'forward'
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    outputs = outputs_of(f, x)
    mode = _by_shape(size(x), size(outputs))
    taken = _with_a_rule(
        f, mode.name, lambda transformed: jax.eval_shape(transformed, x)
    )[1]
    if taken != mode.name:
        reason = f"{title(f)} has no rule for {mode.name} mode, which {mode.reason.removeprefix('there are ')} ask for"
        return Mode(taken, mode.inputs, mode.outputs, reason)
    return mode


def differentiated_in(f: Callable, x: Any, mode: str, outputs: int) -> Any:
    """All derivatives of f at x in the mode that is asked for; "auto" takes the one `chosen_mode` says."""
    check_choice("mode", mode, MODES)
    if mode != "auto":
        return _transform(f, mode)(x)
    return _with_a_rule(
        f, _by_shape(size(x), outputs).name, lambda transformed: transformed(x)
    )[0]


def _by_shape(inputs: int, outputs: int) -> Mode:
    if inputs <= outputs:
        reason = f"there are no more inputs ({inputs}) than outputs ({outputs})"
        return Mode("forward", inputs, outputs, reason)
    return Mode(
        "reverse",
        inputs,
        outputs,
        f"there are more inputs ({inputs}) than outputs ({outputs})",
    )


def _transform(f: Callable, mode: str) -> Callable:
    return jax.jacfwd(f) if mode == "forward" else jax.jacrev(f)


def _with_a_rule(f: Callable, mode: str, call: Callable) -> tuple[Any, Any]:
    """What call gives of f transformed in that mode, or in the other where that one fails; and the mode.

    What JAX raises where a rule is missing differs from release to release (0.7 has an error of its own within), so any is
    taken for it. If both modes fail, the first error is the one that is raised.
    """
    try:
        return call(_transform(f, mode)), mode
    except (NotScalarError, NotInexactError):
        raise
    except (TypeError, ValueError, NotImplementedError) as error:
        other = "reverse" if mode == "forward" else "forward"
        try:
            return call(_transform(f, other)), other
        except (TypeError, ValueError, NotImplementedError):
            raise error from None
