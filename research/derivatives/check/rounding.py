"""Size of the rounding error of a function, measured by perturbing each operation."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.costs.jaxprs import WRAPPERS, caller, scan_sizes
from research.derivatives.costs.splitting import JUMPS

ROUNDINGS = 10  # Allowed rounding error of a derivative, in units of rounding.
# Rounding of constants that a given derivative holds in float32, relative to the rate.
OF_CONSTANTS = float(np.finfo(np.float32).eps)
# Size of a perturbation in units of ε. It is so large that rounding cannot hide it.
NUDGE = 8.0
DRAWN = 4096  # Number of random ξ. Larger arrays use products of two of them.
OWN_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# These operations move, select or compare numbers without rounding.
EXACT = (
    "abs all_gather and argmax argmin argsort bitcast_convert_type broadcast_in_dim "
    "clamp concatenate copy copy_p device_put dynamic_slice dynamic_update_slice "
    "expand_dims gather imag is_finite iota max min neg pad real reduce_max "
    "reduce_min reshape rev scatter select_n sharding_constraint sign slice sort "
    "split squeeze stack stop_gradient top_k transpose unstack while scan cond"
)
# These operations drop or keep the remainder of a division.
PERIODIC = ("rem", "floor", "ceil", "round")
# These operations round partial sums, which may be larger than the sum. So their
# operands are perturbed once more. (The operands of a matrix product were already
# perturbed when they were computed.)
SUMS = (
    "add_any cumlogsumexp cumprod cumsum reduce_prod reduce_sum reduce_window_sum "
    "scatter-add scatter_add"
)


class Nudge:
    """Perturbation of arrays by factors 1 + size ε ξ.

    ε is the relative spacing of the dtype, and ξ = √2 cos(seed θ) with random angles θ
    that differ between calls.

    Attributes:
      seed: Seed of the perturbation, a float.
      size: Size of the perturbation in units of ε.
      calls: Iterator over the numbers of the calls.
    """

    def __init__(self, seed: Any, size: Any, calls: Iterator[int] | None = None):
        self.seed, self.size = seed, size
        self.calls = itertools.count(1) if calls is None else calls

    def __call__(self, value: Any, epsilon: float | None = None) -> Any:
        """Return a perturbed array, or the array itself if it is not floating.

        `epsilon` replaces the relative spacing of the floats of the array's dtype.
        """
        if not jnp.issubdtype(getattr(value, "dtype", np.dtype(int)), jnp.inexact):
            return value
        xi = self.drawn_for(value)
        epsilon = float(jnp.finfo(value.dtype).eps) if epsilon is None else epsilon
        relative = (self.size * epsilon * xi).astype(value.dtype)
        # An infinity, such as that of a mask, has no rounding error. Add the
        # perturbation, because the factor 1 + 8 ε ξ itself would be rounded.
        return value + jnp.where(jnp.isinf(value), 0, value) * relative

    def result(self, equation: Any, values: Sequence[Any], value: Any) -> Any:
        """Return the perturbed result of an equation of a jaxpr.

        Args:
          equation: The equation.
          values: Values of its inputs.
          value: The result.
        """
        return self(value)

    def drawn_for(self, value: Any) -> Any:
        """Draw ξ for each entry of an array."""
        size = int(np.prod(value.shape))
        return self._drawn(size, next(self.calls)).reshape(value.shape)

    def _drawn(self, size: int, call: int) -> Any:
        """Draw ξ for an array of the given size."""
        random = np.random.default_rng(call)
        cosines = lambda count: (
            np.sqrt(2) * jnp.cos(self.seed * random.uniform(0, 2 * np.pi, count))
        )
        if size <= DRAWN:
            return cosines(size)
        return jnp.outer(cosines(-(-size // DRAWN)), cosines(DRAWN)).ravel()[:size]

    def step(self, number: Any) -> "Nudge":
        """Return a perturbation with other ξ, for a step of a loop."""
        return type(self)(
            self.seed + 0.7548776662466927 * (number + 1), self.size, self.calls
        )


def rounding_of(closed: Any, kind: type[Nudge] = Nudge) -> Callable[..., list[Any]]:
    """Return a function that evaluates a jaxpr with 8 times larger rounding errors.

    This is Monte Carlo arithmetic. The floating inputs, and each rounded result that
    depends on them, are multiplied by 1 + 8 ε ξ, where ε is the relative spacing of the
    dtype, and ξ is random with variance 1. Infinities are not changed. The result is
    NaN if the jaxpr computes a mod b where the floats near a are at least b apart,
    because this remainder is then arbitrary. (The same holds for `floor`, `ceil` and
    `round` of a, with b = 1.) The difference between this evaluation and the plain
    evaluation, divided by 8, is about as large as the rounding error, including
    cancellation.

    Args:
      closed: The jaxpr.
      kind: Class of the perturbation.
    Returns:
      Function (seed, inputs, size=8.0) -> outputs, where inputs and outputs are lists
      of arrays. The float `seed` determines ξ, and `size` replaces the factor 8.
    References:
      Parker, Monte Carlo arithmetic, UCLA CSD-970002, 1997.
    """

    def evaluate(seed: Any, inputs: Sequence[Any], size: Any = NUDGE) -> list[Any]:
        nudge = kind(seed, size)
        return _evaluated(closed, [nudge(value) for value in inputs], nudge)[0]

    return evaluate


def _evaluated(
    closed: Any,
    inputs: Sequence[Any],
    nudge: Nudge | None,
    vary: Sequence[bool] | None = None,
) -> tuple[list[Any], list[bool]]:
    """Evaluate a jaxpr, and perturb its rounded results unless nudge is None.

    Args:
      closed: The jaxpr.
      inputs: Values of its inputs.
      nudge: Perturbation of results.
      vary: For each input, whether it depends on x. None means that all inputs do.
    Returns:
      The outputs, and for each output whether it depends on x.
    """
    jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    known = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(
        zip(jaxpr.invars, inputs, strict=True)
    )
    vary = [True] * len(jaxpr.invars) if vary is None else vary
    varying = {
        atom
        for atom, varies in zip(jaxpr.invars, vary, strict=True)
        if varies and _rounds(atom)
    }

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        which = [
            not hasattr(atom, "val") and atom in varying for atom in equation.invars
        ]
        values = [read(atom) for atom in equation.invars]
        if any(which) and nudge:
            if equation.primitive.name in SUMS.split():
                values = [
                    nudge(value) if varies else value
                    for value, varies in zip(values, which, strict=True)
                ]
            results, moving = _equation(equation, values, nudge, which)
        else:
            results = caller(equation)(values)
            moving = [any(which)] * len(results)
        known.update(zip(equation.outvars, results, strict=True))
        varying |= {
            atom
            for atom, moves in zip(equation.outvars, moving, strict=True)
            if moves and _rounds(atom)
        }
    return [read(atom) for atom in jaxpr.outvars], [
        not hasattr(atom, "val") and atom in varying for atom in jaxpr.outvars
    ]


def _rounds(atom: Any) -> bool:
    """Return whether a variable is floating, so that it may be perturbed.

    Integers, and numbers computed from integers alone, are the same at all points near
    x. If they were perturbed, an index such as floor(0.5 * (n - 1)) could change.
    """
    return jnp.issubdtype(atom.aval.dtype, jnp.inexact)


def _equation(
    equation: Any, values: list[Any], nudge: Nudge, which: list[bool]
) -> tuple[Sequence[Any], list[bool]]:
    """Evaluate an equation of a jaxpr with perturbations.

    `which` says for each input whether it depends on x.

    Returns:
      The results, and for each result whether it varies near x.
    """
    name, params = equation.primitive.name, equation.params
    all_vary = [True] * len(equation.outvars)
    if name in WRAPPERS or name in OWN_RULES:
        held = next(
            (
                params[key]
                for key in ("jaxpr", "call_jaxpr", "fun_jaxpr")
                if key in params
            ),
            None,
        )
        return (
            (caller(equation)(values), all_vary)
            if held is None
            else _evaluated(held, values, nudge, which)
        )
    if name in LOOPS:
        return LOOPS[name](params, values, nudge, which), all_vary
    results = caller(equation)(values)
    if name == "convert_element_type" and not _loses(values[0], results[0]):
        return results, all_vary
    if name in PERIODIC:
        divisor = values[1] if name == "rem" else 1.0
        results = [_unless_lost(values[0], divisor, results[0])]
    elif name == "reduce_precision":
        epsilon = 2.0 ** -params["mantissa_bits"]
        epsilon = max(epsilon, float(jnp.finfo(values[0].dtype).eps))
        results = [nudge(results[0], epsilon)]
    elif name not in EXACT.split():
        results = [nudge.result(equation, values, result) for result in results]
    # The whole numbers of floor and the like are the same at all points near x. If they
    # were perturbed, a test of whether one of them is even would fail.
    return results, [name not in JUMPS for _ in results]


def _unless_lost(value: Any, divisor: Any, result: Any) -> Any:
    """Return the result, or NaN where the value is so large that rounding decides.

    `result` is the remainder of value / divisor, or the value rounded to a multiple of
    the divisor 1. For an absolute value of at least divisor / ε, neighbouring floats
    are about a divisor apart or more, so the result is arbitrary.
    """
    if not jnp.issubdtype(getattr(value, "dtype", np.dtype(int)), jnp.floating):
        return result
    spacing = jnp.abs(value) * float(jnp.finfo(value.dtype).eps)
    return jnp.where(spacing < jnp.abs(divisor), result, jnp.nan)


def _loses(value: Any, result: Any) -> bool:
    floating = jnp.issubdtype(value.dtype, jnp.floating) and jnp.issubdtype(
        result.dtype, jnp.floating
    )
    return bool(floating and jnp.finfo(result.dtype).eps > jnp.finfo(value.dtype).eps)


def _scan(
    params: dict[str, Any], values: list[Any], nudge: Nudge, which: list[bool]
) -> list[Any]:
    num_consts, num_carry = scan_sizes(params)
    vary = [*which[:num_consts], *[True] * (len(values) - num_consts)]
    consts, carry, xs = (
        values[:num_consts],
        values[num_consts : num_consts + num_carry],
        values[num_consts + num_carry :],
    )

    def body(state: Any, x: Any) -> Any:
        number, carried = state
        results, _ = _evaluated(
            params["jaxpr"], [*consts, *carried, *x], nudge.step(number), vary
        )
        return (number + 1.0, results[:num_carry]), results[num_carry:]

    (_, carry), ys = jax.lax.scan(
        body, (0.0, carry), xs, params["length"], params["reverse"]
    )
    return [*carry, *ys]


def _while(
    params: dict[str, Any], values: list[Any], nudge: Nudge, which: list[bool]
) -> list[Any]:
    of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
    consts = which[of_test : of_test + of_body]
    vary = [*consts, *[True] * (len(values) - of_test - of_body)]
    tested, used, state = (
        values[:of_test],
        values[of_test : of_test + of_body],
        values[of_test + of_body :],
    )
    test = lambda carried: _evaluated(params["cond_jaxpr"], [*tested, *carried], None)[
        0
    ][0]

    def body(state: Any) -> Any:
        number, carried = state
        moved, _ = _evaluated(
            params["body_jaxpr"], [*used, *carried], nudge.step(number), vary
        )
        # Under vmap, each loop of a batch has a condition of its own.
        goes_on = test(carried)
        if goes_on.ndim:
            moved = [
                jnp.where(_along_first_axes(goes_on, new), new, old)
                for new, old in zip(moved, carried, strict=True)
            ]
        return number + 1.0, moved

    return jax.lax.while_loop(
        lambda state: jnp.any(test(state[1])), body, (0.0, state)
    )[1]


def _along_first_axes(mask: Any, value: Any) -> Any:
    """Broadcast a mask of the first axes of an array to the shape of the array."""
    return jax.lax.broadcast_in_dim(mask, jnp.shape(value), tuple(range(mask.ndim)))


def _cond(
    params: dict[str, Any], values: list[Any], nudge: Nudge, which: list[bool]
) -> list[Any]:
    branches = [
        lambda *given, held=held: _evaluated(held, given, nudge, which[1:])[0]
        for held in params["branches"]
    ]
    return jax.lax.switch(values[0], branches, *values[1:])


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
