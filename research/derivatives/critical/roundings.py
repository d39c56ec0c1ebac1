"""Evaluation of a function with larger random rounding errors, to measure its noise."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.costs.jaxprs import WRAPPERS, caller, closed

SIGNS = 61  # Number of random signs per evaluation. Operations use them in turn.
# These operations also round partial results.
SUMS = ("dot_general", "reduce_sum", "cumsum", "conv_general_dilated")
_VARIES = object()  # In place of a value that depends on the arguments of f.
EXACT = (  # These operations move or compare numbers without rounding.
    *(
        "neg",
        "abs",
        "sign",
        "copy",
        "copy_p",
        "stop_gradient",
        "convert_element_type",
        "select_n",
        "max",
        "min",
        "clamp",
    ),
    *(
        "broadcast_in_dim",
        "reshape",
        "squeeze",
        "expand_dims",
        "transpose",
        "rev",
        "slice",
        "concatenate",
        "pad",
        "gather",
    ),
    *(
        "dynamic_slice",
        "dynamic_update_slice",
        "scatter",
        "reduce_max",
        "reduce_min",
        "sort",
        "iota",
        "floor",
        "ceil",
        "round",
    ),
    *(
        "real",
        "imag",
        "split",
        "argmax",
        "argmin",
        "select_and_scatter_add",
        "reduce_precision",
    ),
)


def with_larger_roundings(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return a version of f in which each rounded result is multiplied by 1 ± 2 ε.

    Here ε is the relative spacing of the dtype. Zeros stay exact, and the results of
    operations that do not round are not changed. The result of each other operation
    changes in its last digits. Sums and matrix products also round partial results, so
    their first operand is multiplied by 1 ± 2 ε, too. The value of f changes in more
    than its last digits if later operations enlarge these changes, for example because
    large terms cancel.

    An exponent that does not depend on the arguments of f is not changed. An example is
    4.0 - 1.0 in the derivative of x**4.0. With a changed exponent, the power of a
    negative x would be NaN.

    Returns:
      Function (signs, *args) -> value. `signs` is an array of 61 random numbers 1 and
      -1 (the constant SIGNS is 61). The k-th array that is multiplied, counted from 0,
      is multiplied by 1 + 2 ε c signs[k % 61]. Here each entry of c is 1 or -1, drawn
      with the fixed seed k.
    """

    def noisy(signs: jax.Array, *args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        leaves = jax.tree.leaves(args)
        outputs, _ = _walk(
            jaxpr.jaxpr, jaxpr.consts, leaves, [_VARIES] * len(leaves), _factors(signs)
        )
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return noisy


def _factors(signs: jax.Array) -> Callable[[Any], Any]:
    """Return a function that multiplies each entry of a value by 1 ± 2 ε.

    Each call uses the next entry of `signs`.
    """
    turn = iter(range(2**62))

    def changed(value: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            return value
        shape, index = jnp.shape(value), next(turn)
        pattern = np.random.default_rng(index).choice([-2.0, 2.0], shape) * float(
            jnp.finfo(value.dtype).eps
        )
        return value * (
            1
            + signs[index % SIGNS].astype(value.dtype)
            * jnp.asarray(pattern, value.dtype)
        )

    return changed


def _walk(
    jaxpr: Any,
    consts: Sequence[Any],
    inputs: Sequence[Any],
    constants: Sequence[Any],
    changed: Callable[[Any], Any],
) -> tuple[list[Any], list[Any]]:
    """Return the outputs of a jaxpr, and those that are constant without the changes.

    `constants` has an entry for each input: its value without the changes if it does
    not depend on the arguments of f, else _VARIES. The second result has the same form.
    """
    variables = [*jaxpr.constvars, *jaxpr.invars]
    known = dict(zip(variables, [*consts, *inputs], strict=True))
    fixed = dict(zip(variables, [*consts, *constants], strict=True))

    def look_up(atoms: Sequence[Any], values: dict[Any, Any]) -> list[Any]:
        return [atom.val if hasattr(atom, "val") else values[atom] for atom in atoms]

    for equation in jaxpr.eqns:
        outputs, plain = _result(
            equation,
            look_up(equation.invars, known),
            look_up(equation.invars, fixed),
            changed,
        )
        known.update(zip(equation.outvars, outputs, strict=True))
        fixed.update(zip(equation.outvars, plain, strict=True))
    return look_up(jaxpr.outvars, known), look_up(jaxpr.outvars, fixed)


def _result(
    equation: Any,
    values: list[Any],
    constants: list[Any],
    changed: Callable[[Any], Any],
) -> tuple[Sequence[Any], Sequence[Any]]:
    name, params = equation.primitive.name, equation.params
    if name in WRAPPERS and WRAPPERS[name] in params:
        inner = closed(params[WRAPPERS[name]])
        return _walk(inner.jaxpr, inner.consts, values, constants, changed)
    varies = any(value is _VARIES for value in constants)
    plain = [_VARIES] * len(equation.outvars) if varies else caller(equation)(constants)
    if name == "pow" and constants[1] is not _VARIES:
        values = [values[0], constants[1]]
    if name in SUMS:
        values = [changed(values[0]), *values[1:]]
    results = caller(equation)(values)
    if name not in EXACT:
        results = [changed(result) for result in results]
    return results, plain
