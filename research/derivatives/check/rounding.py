"""How far rounding moves a function: its equations evaluated once more, each result nudged as rounding nudges it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.costs.jaxprs import scan_sizes

NUDGE = (
    8.0  # Times ε: so much larger than rounding itself that rounding cannot hide it.
)
DRAWN = 4096  # As many ξ are drawn; larger arrays take products of two.
WRAPPERS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
OWN_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# These move, choose or compare numbers and round none.
EXACT = (
    "abs all_gather and argmax argmin argsort bitcast_convert_type broadcast_in_dim ceil clamp concatenate copy copy_p "
    "device_put dynamic_slice dynamic_update_slice expand_dims floor gather imag is_finite iota max min neg pad real "
    "reduce_max reduce_min reshape rev round scatter select_n sharding_constraint sign slice sort split squeeze "
    "stop_gradient top_k transpose while scan cond"
)
# These round partial sums, which may be larger than the sum: their operands are nudged once more. (Those of a product of
# matrices are nudged where they come from, and cost as much as the product.)
SUMS = "add_any cumlogsumexp cumprod cumsum reduce_prod reduce_sum reduce_window_sum scatter-add scatter_add"


def rounding_of(closed: Any) -> Callable[[Any, Sequence[Any]], list[Any]]:
    """Monte Carlo arithmetic: a function of (seed, inputs) that evaluates a jaxpr with every rounding made 8 times larger.

    Every result that rounds is multiplied by 1 + 8 ε ξ, ε of its own dtype and ξ of unit variance; the seed, a float,
    picks the ξ. The distance from the plain value, divided by 8, is the size of the error that rounding leaves in it,
    cancellation within included.

    References:
      Parker, Monte Carlo arithmetic, UCLA CSD-970002, 1997.
    """

    def evaluate(seed: Any, inputs: Sequence[Any]) -> list[Any]:
        nudge = _Nudge(seed)
        return _evaluated(closed, [nudge(value) for value in inputs], nudge)

    return evaluate


class _Nudge:
    """Multiplies arrays by 1 + 8 ε ξ, with ξ = √2 cos(seed θ) and angles θ that differ from call to call."""

    def __init__(self, seed: Any, calls: Iterator[int] | None = None):
        self.seed, self.calls = seed, itertools.count(1) if calls is None else calls

    def __call__(self, value: Any) -> Any:
        if not jnp.issubdtype(getattr(value, "dtype", np.dtype(int)), jnp.inexact):
            return value
        xi = self._drawn(int(np.prod(value.shape)), next(self.calls)).reshape(
            value.shape
        )
        # In the sum and not in a factor: 1 + 8 ε ξ itself would round.
        return value + value * (NUDGE * float(jnp.finfo(value.dtype).eps) * xi).astype(
            value.dtype
        )

    def _drawn(self, size: int, call: int) -> Any:
        """As many ξ."""
        random = np.random.default_rng(call)
        cosines = lambda count: (
            np.sqrt(2) * jnp.cos(self.seed * random.uniform(0, 2 * np.pi, count))
        )
        if size <= DRAWN:
            return cosines(size)
        return jnp.outer(cosines(-(-size // DRAWN)), cosines(DRAWN)).ravel()[:size]

    def step(self, number: Any) -> "_Nudge":
        """Other ξ, for a step of a loop."""
        return _Nudge(self.seed + 0.7548776662466927 * (number + 1), self.calls)


def _evaluated(closed: Any, inputs: Sequence[Any], nudge: _Nudge | None) -> list[Any]:
    """A jaxpr's outputs; without a nudge, as they are."""
    jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    known = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(
        zip(jaxpr.invars, inputs, strict=True)
    )
    varying = set(jaxpr.invars)

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
            results = _equation(equation, values, nudge)
        else:
            results = _plain(equation, values)
        known.update(zip(equation.outvars, results, strict=True))
        varying |= set(equation.outvars) if any(which) else set()
    return [read(atom) for atom in jaxpr.outvars]


def _equation(equation: Any, values: list[Any], nudge: _Nudge) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
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
            _plain(equation, values)
            if held is None
            else _evaluated(held, values, nudge)
        )
    if name in LOOPS:
        return LOOPS[name](params, values, nudge)
    results = _plain(equation, values)
    if name == "convert_element_type" and not _loses(values[0], results[0]):
        return results
    return results if name in EXACT.split() else [nudge(result) for result in results]


def _loses(value: Any, result: Any) -> bool:
    floating = jnp.issubdtype(value.dtype, jnp.floating) and jnp.issubdtype(
        result.dtype, jnp.floating
    )
    return bool(floating and jnp.finfo(result.dtype).eps > jnp.finfo(value.dtype).eps)


def _plain(equation: Any, values: Sequence[Any]) -> Sequence[Any]:
    bound = equation.primitive.get_bind_params(equation.params)
    subfunctions, params = (
        bound if isinstance(bound, tuple) else ((), bound)
    )  # A pair up to jax 0.9 or so.
    with equation.ctx.manager:
        results = equation.primitive.bind(*subfunctions, *values, **params)
    return results if equation.primitive.multiple_results else (results,)


def _scan(params: dict[str, Any], values: list[Any], nudge: _Nudge) -> list[Any]:
    num_consts, num_carry = scan_sizes(params)
    consts, carry, xs = (
        values[:num_consts],
        values[num_consts : num_consts + num_carry],
        values[num_consts + num_carry :],
    )

    def body(state: Any, x: Any) -> Any:
        number, carried = state
        results = _evaluated(
            params["jaxpr"], [*consts, *carried, *x], nudge.step(number)
        )
        return (number + 1.0, results[:num_carry]), results[num_carry:]

    (_, carry), ys = jax.lax.scan(
        body, (0.0, carry), xs, params["length"], params["reverse"]
    )
    return [*carry, *ys]


def _while(params: dict[str, Any], values: list[Any], nudge: _Nudge) -> list[Any]:
    of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
    tested, used, state = (
        values[:of_test],
        values[of_test : of_test + of_body],
        values[of_test + of_body :],
    )
    goes_on = lambda state: _evaluated(
        params["cond_jaxpr"], [*tested, *state[1]], None
    )[0]

    def body(state: Any) -> Any:
        number, carried = state
        return number + 1.0, _evaluated(
            params["body_jaxpr"], [*used, *carried], nudge.step(number)
        )

    return jax.lax.while_loop(goes_on, body, (0.0, state))[1]


def _cond(params: dict[str, Any], values: list[Any], nudge: _Nudge) -> list[Any]:
    branches = [
        lambda *given, held=held: _evaluated(held, given, nudge)
        for held in params["branches"]
    ]
    return jax.lax.switch(values[0], branches, *values[1:])


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
