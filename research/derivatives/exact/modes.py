"""Choice between forward and reverse mode."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax

from research.checks import check_callable, check_choice, shown
from research.derivatives.errors import NotInexactError, NotScalarError
from research.derivatives.exact.arguments import floating, outputs_of, size, title

ModeName = Literal["auto", "forward", "reverse"]


class Mode(NamedTuple):
    """Mode in which the Jacobian of a function f is computed, with the reason.

    Attributes:
      name: "forward" (a pass through f for each input) or "reverse" (a pass for each
        output).
      inputs: Number of inputs of f: entries of all leaves of its argument.
      outputs: Number of outputs of f: entries of all leaves of its value.
      reason: Reason for the choice of the mode, in words.
    """

    name: Literal["forward", "reverse"]
    inputs: int
    outputs: int
    reason: str


def chosen_mode(f: Callable[..., Any], x: Any) -> Mode:
    """Return the mode that `gradient` and `jacobian` use by default.

    For the Jacobian of f with n inputs and m outputs, forward mode needs n passes
    through f. Reverse mode needs m passes, and stores the intermediate values. So the
    choice is forward mode if n <= m, and reverse mode otherwise. If f has no derivative
    rule for this mode, the choice is the other mode. For example, `jax.lax.while_loop`
    has no rule for reverse mode, and a function that is decorated with `jax.custom_vjp`
    has no rule for forward mode.

    Args:
      f: Function of one pytree of floating arrays.
      x: Point of evaluation. f(x) is traced, but not computed.
    Returns:
      The `Mode`, with the reason.
    Raises:
      NotInexactError: A leaf of x or the value of f is not floating.
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
        wanted = mode.reason.removeprefix("there are ")
        reason = (
            f"{title(f)} has no rule for {mode.name} mode, although there are {wanted}"
        )
        return Mode(taken, mode.inputs, mode.outputs, reason)
    return mode


def differentiated_in(f: Callable[..., Any], x: Any, mode: str, outputs: int) -> Any:
    """Return the Jacobian of f at x, computed in the given mode.

    Args:
      f: Function of one pytree of floating arrays.
      x: Point of evaluation.
      mode: "forward", "reverse" or "auto". "auto" means the mode that
        `chosen_mode(f, x)` returns.
      outputs: Number of outputs of f. Used for "auto" only.
    Raises:
      ValueError: mode is unknown, or x is a pytree without leaves.
    """
    check_choice("mode", mode, get_args(ModeName))
    if not jax.tree.leaves(x):
        raise ValueError(
            f"x must hold at least one array; got x={shown(x)}. An array may be empty."
        )
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


def _transform(f: Callable[..., Any], mode: str) -> Callable[..., Any]:
    return jax.jacfwd(f) if mode == "forward" else jax.jacrev(f)


def _with_a_rule(
    f: Callable[..., Any], mode: str, call: Callable[..., Any]
) -> tuple[Any, Any]:
    """Call `call` with the transform of f in the given mode, or else in the other mode.

    If f has no derivative rule for a mode, the type of the error differs between
    releases of JAX. So any TypeError, ValueError or NotImplementedError counts as a
    missing rule, except this project's own errors. If both modes fail, the error of the
    given mode is raised.

    Returns:
      (result of `call`, mode that was used).
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
