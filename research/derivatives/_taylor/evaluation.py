"""Evaluation of a jaxpr on power series, equation by equation.

Each equation is evaluated by the first of these rules that applies:

- functions inside functions, and loops: a rule of this module;
- elementary operations: a recurrence of the module `recurrences`;
- linear operations: the operation itself, on each coefficient;
- other operations: the series of their derivative, which is then integrated.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.derivatives._taylor.equality import (
    RULE,
    equal,
    equal_params,
    have_one_rule,
)
from research.derivatives._taylor.power_series import (
    Coefficient,
    Constant,
    Series,
    columns,
    differentiated,
    minus,
    series,
    times,
    total,
)
from research.derivatives._taylor.recurrences import (
    OWN_FUNCTIONS,
    RECURRENCES,
    Operation,
)
from research.derivatives.costs.jaxprs import (
    WRAPPERS,
    alive,
    caller,
    closed,
    is_inexact,
    is_library,
    name_of_rule,
    scan_sizes,
)
from research.derivatives.errors import UnsupportedPrimitiveError

# Primitives with a derivative of zero.
FLAT = {"stop_gradient", "sign", "floor", "ceil", "round"}
# Primitives that are linear, or linear on each of several pieces, in their floating
# inputs together. A coefficient passes through them as a tangent does.
LINEAR = {
    *("neg", "real", "imag", "complex", "conj", "abs", "copy", "copy_p", "fft"),
    *("reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "rev"),
    *("stack", "unstack"),
    *("concatenate", "split", "tile", "pad", "slice", "dynamic_slice", "gather"),
    *("dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "scatter_sub"),
    *("convert_element_type", "reduce_precision", "optimization_barrier", "name"),
    *("reduce_sum", "reduce_max", "reduce_min", "cumsum", "cummax", "cummin"),
    *("max", "min", "clamp", "select_n", "sort", "top_k", "approx_top_k", "rem"),
    *("reduce_window_sum", "reduce_window_max", "reduce_window_min"),
    *("select_and_scatter_add", "select_and_gather_add", "symmetric_product"),
    *("device_put", "sharding_constraint", "pvary", "psum", "all_gather", "ppermute"),
}


class Context(NamedTuple):
    """Settings and memory for `evaluate`, which evaluates a jaxpr on power series.

    A jaxpr is a function as JAX traces it: a list of equations, each of which applies a
    primitive operation.

    Attributes:
      order: Largest order of the coefficients, or None. If `order` is a number, all
        coefficients of an equation up to this order are computed before the next
        equation is evaluated. If `order` is None, a coefficient is computed when it is
        read. In this case, coefficient k of all equations is computed before
        coefficient k + 1.
      known: Dict of the equations that `evaluate` has evaluated so far. If `order` is
        None, `evaluate` looks up each equation in this dict, so that no equation is
        evaluated twice. Otherwise the dict is not used. A key is (name of the
        primitive, names of the input series), and the entry is the list of the
        evaluated equations with this key. Without this dict, the number of evaluations
        might double with each order. For example, the series of y(t) may be computed
        from the series of y'(t), and the formula for y' may contain y twice. To compute
        y to order k, one would then compute y twice to order k - 1, and so on.
    """

    order: int | None
    known: "dict[Any, list[Known]]"


class Known(NamedTuple):
    """An equation that was evaluated, with the series of its inputs and outputs.

    Attributes:
      equation: The equation of a jaxpr.
      inputs, outputs: A series for each input, and for each output.
    """

    equation: Any
    inputs: Sequence[Series]
    outputs: Sequence[Series]


def evaluate(jaxpr: Any, inputs: Sequence[Series], context: Context) -> list[Series]:
    """Evaluate a closed jaxpr on power series instead of arrays.

    The jaxpr represents a function f. If the inputs are the power series of x(t), the
    outputs are the power series of f(x(t)).

    Args:
      jaxpr: The closed jaxpr.
      inputs: Sequence with a series for each input.
      context: Largest order of the coefficients, and the equations that were evaluated
        before.
    Returns:
      List with a series for each output.
    Raises:
      UnsupportedPrimitiveError: A primitive has no derivative rule for forward mode, or
        a function has a rule for reverse mode only (`jax.custom_vjp`).
    """
    jaxpr = closed(jaxpr)
    known: dict[Any, Series] = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
    for variable, constant in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
        known[variable] = Constant(constant)

    def read(atom: Any) -> Series:
        return _literal(atom) if hasattr(atom, "val") else known[atom]

    moving: list[Series] = []
    for equation, _ in reversed(list(alive(jaxpr.jaxpr))):
        taken = [read(atom) for atom in equation.invars]
        outputs = _outputs(equation, taken, context)
        known.update(zip(equation.outvars, outputs, strict=True))
        moving += [output for output in outputs if not output.is_constant]
        if context.order is not None:
            for output in outputs:
                output[context.order]
    results = [read(atom) for atom in jaxpr.jaxpr.outvars]
    if context.order is not None:
        return results
    return _in_step(results, moving)


def _in_step(results: list[Series], moving: list[Series]) -> list[Series]:
    """Return the outputs as series that compute a whole jaxpr one order at a time.

    `results` are the outputs of the jaxpr, and `moving` are all results of its
    equations that depend on t. Before coefficient k of an output is computed,
    coefficient k of every series in `moving` is computed. Otherwise Python calls would
    nest as deep as the longest chain of equations.
    """

    def rows() -> Iterator[list[Coefficient]]:
        for k in itertools.count():
            for one in moving:
                one[k]
            yield [result[k] for result in results]

    advanced = columns(rows(), [True] * len(results))
    return [
        result if result.is_constant else one
        for result, one in zip(results, advanced, strict=True)
    ]


def _literal(atom: Any) -> Constant:
    constant = Constant(atom.val)
    # The repr of an array shows eight digits; that of a Python number shows all.
    value = repr(np.asarray(atom.val).tolist())
    constant.name = ("literal", value, str(atom.aval))
    return constant


def _outputs(equation: Any, inputs: list[Series], context: Context) -> Sequence[Series]:
    """Return the series of the outputs of an equation."""
    if not _moves(equation, inputs):
        values = caller(equation)([one[0] for one in inputs])
        return [Constant(value) for value in values]
    if context.order is not None:
        return _evaluated(equation, inputs, context)
    for known in context.known.get(_key(equation, inputs), []):
        if _same(known, equation, inputs):
            return known.outputs
    outputs = _evaluated(equation, inputs, context)
    _remember(equation, inputs, outputs, context)
    return outputs


def _key(equation: Any, inputs: Sequence[Series]) -> Any:
    return equation.primitive.name, tuple(one.name for one in inputs)


def _remember(
    equation: Any,
    inputs: Sequence[Series],
    outputs: Sequence[Series],
    context: Context,
) -> None:
    known = Known(equation, inputs, outputs)
    context.known.setdefault(_key(equation, inputs), []).append(known)


def _moves(equation: Any, inputs: Sequence[Series]) -> bool:
    """Return whether an output depends on t, the variable of the series."""
    return (
        not all(one.is_constant for one in inputs)
        and not _is_flat(equation)
        and any(is_inexact(v.aval) for v in equation.outvars)
    )


def _is_flat(equation: Any) -> bool:
    return equation.primitive.name in FLAT and not any(
        jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in equation.invars
    )


def _same(known: Known, equation: Any, inputs: Sequence[Series]) -> bool:
    """Return whether an equation equals one that was evaluated with the same inputs.

    JAX traces a custom rule again at each call. So two custom functions count as equal
    if their jaxprs and the jaxprs of their rules are equal.
    """
    if known.equation is equation:
        return True
    if not equal_params(known.equation.params, equation.params):
        return False
    if RULE not in equation.params or have_one_rule(known.equation, equation):
        return True
    return equal(_slope(known.equation, known.inputs), _slope(equation, inputs))


def _evaluated(
    equation: Any, inputs: list[Series], context: Context
) -> Sequence[Series]:
    name, params = equation.primitive.name, equation.params
    if name.startswith("custom_vjp_call"):
        raise UnsupportedPrimitiveError(
            f"{name_of_rule(equation)} has its own rule for reverse mode only "
            "(jax.custom_vjp), which gives no Taylor series. Use gradient(f, x), or "
            "write the rule by jax.custom_jvp."
        )
    if name in WRAPPERS and WRAPPERS[name] in params:
        return evaluate(params[WRAPPERS[name]], inputs, context)
    if name in LOOPS:
        return _loop(equation, inputs, context)
    if name in ("custom_linear_solve", "linear_solve"):
        return columns(_linear_solve(equation, inputs), _inexact_outputs(equation))
    if name in RECURRENCES:
        operation = Operation(name, params, lambda *values: caller(equation)(values))
        coefficients = RECURRENCES[name](operation, *inputs)
        if coefficients is not None:
            return [series(coefficients)]
    if _is_own_function(equation):
        rule = OWN_FUNCTIONS[name_of_rule(equation)]
        return [series(rule(Operation(name, params, caller(equation)), *inputs))]
    if name in LINEAR and not _of_complex(equation):
        return columns(_linear(equation, inputs), _inexact_outputs(equation))
    inner = Context(None, {} if context.order is not None else context.known)
    rows = _general(equation, inputs, inner)
    outputs = columns(rows, _inexact_outputs(equation))
    # The general rule meets this equation again, in its own derivative rule.
    _remember(equation, inputs, outputs, inner)
    return outputs


def _is_own_function(equation: Any) -> bool:
    """Return whether an equation calls a function of JAX that has a recurrence."""
    if equation.primitive.name != "custom_jvp_call":
        return False
    is_known = name_of_rule(equation) in OWN_FUNCTIONS
    return is_known and is_library(closed(equation.params["call_jaxpr"]))


def _of_complex(equation: Any) -> bool:
    """Return whether the equation is |z| of a complex z, which is not linear in z."""
    return equation.primitive.name == "abs" and jnp.issubdtype(
        equation.invars[0].aval.dtype, jnp.complexfloating
    )


def _inexact_outputs(equation: Any) -> list[bool]:
    return [is_inexact(v.aval) for v in equation.outvars]


class _Moving(NamedTuple):
    """An equation as a function of the inputs that depend on t.

    Attributes:
      places: Positions of the inputs that depend on t, among all inputs.
      values: Values of all inputs at t = 0.
      call: Function (moving, values) -> the floating and complex outputs. `moving` are
        values of the inputs that depend on t. They replace the corresponding entries of
        `values`, which has a value for every input.
    """

    places: list[int]
    values: list[Any]
    call: Callable[[Sequence[Any], Sequence[Any]], list[Any]]

    @classmethod
    def of(cls, equation: Any, inputs: Sequence[Series]) -> "_Moving":
        places = [
            i
            for i, (one, v) in enumerate(zip(inputs, equation.invars, strict=True))
            if not one.is_constant and is_inexact(v.aval)
        ]
        kept = _inexact_outputs(equation)

        def call(moving: Sequence[Any], values: Sequence[Any]) -> list[Any]:
            merged = list(values)
            for place, value in zip(places, moving, strict=True):
                merged[place] = value
            results = caller(equation)(merged)
            return [y for y, keep in zip(results, kept, strict=True) if keep]

        values = [one[0] for one in inputs]
        return cls(places, values, call)


def _linear(equation: Any, inputs: list[Series]) -> Iterator[tuple[Coefficient, ...]]:
    """Yield the coefficients of (piecewise) linear outputs: y[k] = A x[k]."""
    own = _Moving.of(equation, inputs)
    yield tuple(caller(equation)(own.values))
    with _forward_rule_needed(equation):
        push = jax.linearize(
            lambda *moving: own.call(moving, own.values),
            *(own.values[i] for i in own.places),
        )[1]
    for k in itertools.count(1):
        taken = [inputs[i][k] for i in own.places]
        pushed = None
        if any(coefficient is not None for coefficient in taken):
            pushed = push(*(dense(inputs[i], k) for i in own.places))
        yield _row(equation, pushed)


def _general(
    equation: Any, inputs: list[Series], context: Context
) -> Iterator[tuple[Coefficient, ...]]:
    """Yield the coefficients of any outputs, from the primitive's derivative rule.

    Let y(t) = p(x(t)), where p is the primitive and Dp its derivative. The series of
    y'(t) = Dp(x(t)) x'(t) is evaluated by the same rules. Coefficient k of this series,
    divided by k + 1, is y[k + 1].
    """
    own = _Moving.of(equation, inputs)
    yield tuple(caller(equation)(own.values))
    moving = [inputs[i] for i in own.places]
    given = [*moving, *map(_rate, moving), *inputs]
    slopes = evaluate(_slope(equation, inputs), given, context)
    for k in itertools.count():
        yield _row(equation, [times(1 / (k + 1), one[k]) for one in slopes])


def _slope(equation: Any, inputs: Sequence[Series]) -> Any:
    """Return the jaxpr of Dp(x) x', for the derivative Dp of the equation's primitive.

    The jaxpr is a function of x, x' and the values of all inputs.
    """
    own = _Moving.of(equation, inputs)
    at = [own.values[i] for i in own.places]

    def slope(moving: Any, rates: Any, values: Any) -> Any:
        return jax.jvp(lambda moving: own.call(moving, values), (moving,), (rates,))[1]

    with _forward_rule_needed(equation):
        return jax.make_jaxpr(slope)(at, at, own.values)


@contextlib.contextmanager
def _forward_rule_needed(equation: Any) -> Iterator[None]:
    """Replace JAX's error if the primitive has no derivative rule for forward mode."""
    try:
        yield
    except (NotImplementedError, ValueError, TypeError) as error:
        if equation.primitive.name.startswith("custom_"):
            raise
        raise UnsupportedPrimitiveError(
            f"The primitive {equation.primitive.name} has no derivative rule for "
            f"forward mode: {error}"
        ) from error


def _rate(x: Series) -> Series:
    """Return the series of x'(t), whose first coefficient is an array."""
    rate = differentiated(x)
    return series(
        rate[k] if k or rate[0] is not None else jnp.zeros_like(x[0])
        for k in itertools.count()
    )


def _row(
    equation: Any, inexact: Sequence[Coefficient] | None
) -> tuple[Coefficient, ...]:
    """Return a coefficient for each output of an equation.

    `inexact` has the coefficients of the floating and complex outputs. All other
    outputs get None.
    """
    given = iter(inexact or ())
    return tuple(
        next(given, None) if keep else None for keep in _inexact_outputs(equation)
    )


def _linear_solve(
    equation: Any, inputs: list[Series]
) -> Iterator[tuple[Coefficient, ...]]:
    """Yield the coefficients of x, where A(t) x(t) = b(t) (lax.custom_linear_solve).

    A[0] x[k] = b[k] - Σ_(j >= 1) A[j] x[k - j].
    """
    lengths, matvec = equation.params["const_lengths"], equation.params["jaxprs"].matvec
    matrix, right = inputs[: lengths.matvec], inputs[sum(lengths) :]
    values = [one[0] for one in inputs]
    fixed = values[: sum(lengths)]
    call = caller(equation)
    solution = call(values)
    yield solution
    extra = (None,) * (len(solution) - len(right))
    products: list[list[Series]] = []
    found: Sequence[Any] = solution[: len(right)]
    moves = not all(one.is_constant for one in matrix)
    for k in itertools.count(1):
        if moves:
            arguments = [*matrix, *map(Constant, found)]
            products.append(evaluate(matvec, arguments, Context(None, {})))
        rest = [
            minus(b[k], total(row[i][k - j] for j, row in enumerate(products)))
            for i, b in enumerate(right)
        ]
        if all(one is None for one in rest):
            found = [jnp.zeros_like(b[0]) for b in right]
            yield (None,) * len(solution)
            continue
        filled = [
            jnp.zeros_like(b[0]) if one is None else one
            for one, b in zip(rest, right, strict=True)
        ]
        found = call([*fixed, *filled])[: len(right)]
        yield (*found, *extra)


def _loop(equation: Any, inputs: list[Series], context: Context) -> Sequence[Series]:
    """Return the series of the outputs of a scan, while or cond.

    Such an equation computes all coefficients in one loop. If `context.order` is None,
    the coefficients are read one after another, and the loop runs again for each order.
    """
    plan = LOOPS[equation.primitive.name](equation, inputs)

    def rows() -> Iterator[tuple[Coefficient, ...]]:
        whole = None if context.order is None else plan.run(context.order)
        for k in itertools.count():
            results = plan.run(k) if whole is None else whole
            yield tuple(output[k] if k < len(output) else None for output in results)

    return columns(rows(), plan.moving)


class _Plan(NamedTuple):
    """How a loop is evaluated.

    Attributes:
      moving: For each output, whether it depends on t.
      run: Function (order) -> for each output its coefficients up to this order.
    """

    moving: list[bool]
    run: Callable[[int], list[list[Coefficient]]]


def _scan(equation: Any, inputs: list[Series]) -> _Plan:
    params, body = equation.params, closed(equation.params["jaxpr"])
    num_consts, num_carry = scan_sizes(params)
    consts, xs = inputs[:num_consts], inputs[num_consts + num_carry :]
    start = inputs[num_consts : num_consts + num_carry]
    moving, outputs = _moving_carry(body, consts, start, xs)

    def run(order: int) -> list[list[Coefficient]]:
        def step(carry: Any, x: Any) -> Any:
            given = [*consts, *_unpacked(carry), *_unpacked(x)]
            results = evaluate(body, given, Context(order, {}))
            carried = _packed(results[:num_carry], moving, order)
            return carried, [_sparse(y, order) for y in results[num_carry:]]

        last, ys = lax.scan(
            step,
            _packed(start, moving, order),
            [_sparse(x, order) for x in xs],
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        return [*last, *ys]

    return _Plan([*moving, *outputs[num_carry:]], run)


def _while(equation: Any, inputs: list[Series]) -> _Plan:
    params = equation.params
    test, body = closed(params["cond_jaxpr"]), closed(params["body_jaxpr"])
    of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
    tested, consts = inputs[:of_test], inputs[of_test : of_test + of_body]
    start = inputs[of_test + of_body :]
    moving, _ = _moving_carry(body, consts, start, [])

    def run(order: int) -> list[list[Coefficient]]:
        def goes_on(carry: Any) -> Any:
            values = [Constant(coefficients[0]) for coefficients in carry]
            return evaluate(test, [*map(_value, tested), *values], Context(0, {}))[0][0]

        def step(carry: Any) -> Any:
            results = evaluate(body, [*consts, *_unpacked(carry)], Context(order, {}))
            return _packed(results, moving, order)

        return lax.while_loop(goes_on, step, _packed(start, moving, order))

    return _Plan(moving, run)


def _cond(equation: Any, inputs: list[Series]) -> _Plan:
    branches = [closed(branch) for branch in equation.params["branches"]]
    index, operands = inputs[0], inputs[1:]
    flags = [not one.is_constant for one in operands]
    reached = [_reached(branch.jaxpr, flags) for branch in branches]
    moving = [any(of_output) for of_output in zip(*reached, strict=True)]

    def run(order: int) -> list[list[Coefficient]]:
        def taken(branch: Any) -> Callable[..., Any]:
            return lambda operands: _packed(
                evaluate(branch, _unpacked(operands), Context(order, {})), moving, order
            )

        return lax.switch(
            index[0],
            [taken(branch) for branch in branches],
            [_sparse(one, order) for one in operands],
        )

    return _Plan(moving, run)


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}


def _moving_carry(
    body: Any, consts: list[Series], start: list[Series], xs: list[Series]
) -> tuple[list[bool], list[bool]]:
    """Return whether each carried value, and each output of the body, depends on t."""
    flags = [[not one.is_constant for one in group] for group in (consts, start, xs)]
    moving = flags[1]
    while True:
        outputs = _reached(body.jaxpr, [*flags[0], *moving, *flags[2]])
        after = [a or b for a, b in zip(moving, outputs, strict=False)]
        if after == moving:
            return moving, outputs
        moving = after


def _reached(jaxpr: Any, moving: Sequence[bool]) -> list[bool]:
    """Return whether each output of a jaxpr depends on an input that depends on t."""
    depends = {v for v, moves in zip(jaxpr.invars, moving, strict=True) if moves}
    for equation in jaxpr.eqns:
        flags = [not hasattr(v, "val") and v in depends for v in equation.invars]
        if any(flags) and not _is_flat(equation):
            depends |= {v for v in equation.outvars if is_inexact(v.aval)}
    return [not hasattr(v, "val") and v in depends for v in jaxpr.outvars]


def _value(x: Series) -> Constant:
    return Constant(x[0])


def _sparse(x: Series, order: int) -> list[Coefficient]:
    """Return coefficients 0 to `order` of x, or only the first if x is constant."""
    return [x[k] for k in range(1 if x.is_constant else order + 1)]


def _packed(
    group: Sequence[Series], moving: Sequence[bool], order: int
) -> list[list[Any]]:
    """Return the coefficients of each series as arrays.

    A series for which `moving` is False gets only its first coefficient.
    """
    return [
        [dense(one, k) for k in range(order + 1 if moves else 1)]
        for one, moves in zip(group, moving, strict=True)
    ]


def _unpacked(group: Sequence[list[Coefficient]]) -> list[Series]:
    return [
        Constant(coefficients[0])
        if all(c is None for c in coefficients[1:])
        else series(coefficients)
        for coefficients in group
    ]


def dense(x: Series, k: int) -> Any:
    """Return coefficient k of the series x as an array.

    A coefficient that is None means zero. It is returned as an array of zeros.
    """
    coefficient = x[k]
    return jnp.zeros_like(x[0]) if coefficient is None else coefficient
