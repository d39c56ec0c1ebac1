"""Sparsity pattern of a Jacobian: which outputs of f may depend on which inputs.

The pattern follows from the jaxpr of f. It is valid for all inputs of the given shape,
because it includes the dependences of all branches. The pattern contains all entries of
the Jacobian, and may contain more. There is one exception: a custom derivative rule may
depend on inputs on which its function does not depend.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import lax

from research.checks import is_traced
from research.derivatives.costs.jaxprs import (
    WRAPPERS,
    caller,
    closed,
    inner,
    is_inexact,
    scan_sizes,
)

Matrix = Any  # scipy.sparse.csr_array of bool, one row for each entry of an array.


class Fact(NamedTuple):
    """Known properties of a variable of the jaxpr of a function.

    Attributes:
      shape: Shape of the variable.
      value: Value of the variable. None if the value depends on the inputs of the
        function or is traced.
      rows: Boolean sparse matrix of shape (entries of the variable, inputs of the
        function). Entry (i, j) is True if entry i of the variable may depend on input
        j. None if no entry depends on any input.
    """

    shape: tuple[int, ...]
    value: Any = None
    rows: Matrix | None = None


# Primitives that act on each entry, with a derivative.
ELEMENTWISE = {
    *("add", "add_any", "sub", "mul", "div", "pow", "max", "min", "rem", "atan2"),
    *("neg", "exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "cbrt", "square"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh"),
    *("acosh", "atanh", "logistic", "abs", "erf", "erfc", "erf_inv", "integer_pow"),
    *("lgamma", "digamma", "polygamma", "igamma", "igammac", "bessel_i0e"),
    *("bessel_i1e", "regularized_incomplete_beta", "convert_element_type", "clamp"),
    *("select_n", "copy", "copy_p", "reduce_precision", "real", "imag", "complex"),
    *("conj", "nextafter", "one_minus_square", "optimization_barrier", "name"),
    *("polynomial",),
}
FLAT = {"stop_gradient", "sign", "floor", "ceil", "round"}
# Primitives that move entries; their other inputs are places.
MOVING = {
    *("reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "rev"),
    *("slice", "dynamic_slice", "gather", "concatenate", "pad", "split", "tile"),
    *("dynamic_update_slice", "scatter", "stack", "unstack"),
}
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce"}
CUMULATIVE = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}


def detect(f: Callable[..., Any], x: Any) -> Matrix:
    """Return which entries of f(x) may depend on which entries of the vector x.

    The result is the sparsity pattern of the Jacobian of f. Each operation of f is
    examined separately, so x - x counts as dependent on x. The result of floor, ceil,
    round, sign or `stop_gradient` does not count as dependent on the input, because the
    derivative of these operations is 0 wherever it exists.

    Args:
      f: Function of a vector to a vector.
      x: The vector. Only its shape and dtype are used.
    Returns:
      A boolean matrix in CSR form, of shape (size of f(x), size of x). Entry (i, j) is
      True if entry i of f(x) may depend on entry j of x.
    """
    jaxpr = jax.make_jaxpr(f)(jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)))
    # Inside a trace of the user, constants are computed all the same.
    with jax.ensure_compile_time_eval():
        return _detected(jaxpr, x)


def _detected(jaxpr: Any, x: Any) -> Matrix:
    size = math.prod(jnp.shape(x))
    identity = scipy.sparse.identity(size, format="csr").astype(bool)
    (output,) = _walk(jaxpr, [Fact(jnp.shape(x), rows=identity)])
    if output.rows is None:
        return scipy.sparse.csr_matrix((math.prod(output.shape), size), dtype=bool)
    return _clean(output.rows)


def _clean(matrix: Matrix) -> Matrix:
    matrix = scipy.sparse.csr_matrix(matrix, dtype=bool)
    matrix.eliminate_zeros()
    matrix.sum_duplicates()
    return matrix


def _walk(jaxpr: Any, inputs: Sequence[Fact]) -> list[Fact]:
    jaxpr = closed(jaxpr)
    known: dict[Any, Fact] = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
    for variable, constant in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
        known[variable] = _constant(constant)

    def read(atom: Any) -> Fact:
        return _constant(atom.val) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.jaxpr.eqns:
        facts = [read(atom) for atom in equation.invars]
        known.update(zip(equation.outvars, _step(equation, facts), strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _constant(value: Any) -> Fact:
    return Fact(np.shape(value), None if is_traced(value) else value)


def _step(equation: Any, facts: list[Fact]) -> list[Fact]:
    """Return the facts of the outputs of an equation."""
    name, params = equation.primitive.name, equation.params
    if all(fact.rows is None for fact in facts):
        if all(fact.value is not None for fact in facts):
            values = caller(equation)([fact.value for fact in facts])
            return [_constant(value) for value in values]
        return [Fact(v.aval.shape) for v in equation.outvars]
    if name in WRAPPERS and WRAPPERS[name] in params:
        return _walk(params[WRAPPERS[name]], facts)
    if name.startswith(("custom_jvp_call", "custom_vjp_call")):
        inner = params.get("call_jaxpr", params.get("fun_jaxpr"))
        return _walk(inner, facts)
    if name in LOOPS:
        return LOOPS[name](equation, facts)
    # The sign of a complex number has a derivative.
    if name in FLAT and not any(_is_complex(v.aval) for v in equation.invars):
        return [Fact(v.aval.shape) for v in equation.outvars]
    rule = _rule(name, equation, facts)
    outputs = (rule or _dense)(equation, facts)
    return [
        Fact(v.aval.shape, None, rows if is_inexact(v.aval) else None)
        for v, rows in zip(equation.outvars, outputs, strict=True)
    ]


def _is_complex(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", np.dtype(int))
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _rule(name: str, equation: Any, facts: list[Fact]) -> Callable[..., Any] | None:
    if name in ELEMENTWISE or name == "sign":
        return _elementwise
    # x.at[i].apply(f) is a scatter that computes f of the entries.
    moves = name in MOVING and not any(held.eqns for held in inner(equation))
    if moves and _places_are_known(equation, facts):
        return _moved
    if name in REDUCTIONS:
        return _reduced
    if name in CUMULATIVE:
        return _cumulative
    if name in ("scatter-add", "scatter_add") and facts[1].value is not None:
        return _scattered
    return OTHERS.get(name)


def _places_are_known(equation: Any, facts: list[Fact]) -> bool:
    return all(
        fact.value is not None
        for fact, v in zip(facts, equation.invars, strict=True)
        if not is_inexact(v.aval)
    )


def _rows_of(fact: Fact, like: Matrix) -> Matrix:
    if fact.rows is None:
        return scipy.sparse.csr_matrix(
            (math.prod(fact.shape), like.shape[1]), dtype=bool
        )
    return fact.rows


def _any_rows(facts: Sequence[Fact]) -> Matrix:
    return next(fact.rows for fact in facts if fact.rows is not None)


def _dense(equation: Any, facts: list[Fact]) -> list[Matrix]:
    """Let each entry of each output depend on all inputs of the equation."""
    all_rows = [_union(fact.rows) for fact in facts if fact.rows is not None]
    union = _union(scipy.sparse.vstack(all_rows, format="csr"))
    return [union[np.zeros(math.prod(v.aval.shape), int)] for v in equation.outvars]


def _union(rows: Matrix) -> Matrix:
    """Return the union of all rows, as a matrix of one row."""
    columns = np.unique(rows.indices)
    return scipy.sparse.csr_matrix(
        (np.ones(len(columns), bool), columns, [0, len(columns)]),
        shape=(1, rows.shape[1]),
    )


def _mapped(
    targets: np.ndarray, sources: np.ndarray, rows: Matrix, size: int
) -> Matrix:
    """Return the matrix whose row t is the union of some rows s of `rows`.

    The union is over all pairs (t, s) in `targets` and `sources`.
    """
    ones = np.ones(len(targets), bool)
    chosen = scipy.sparse.csr_matrix((ones, (targets, sources)), (size, rows.shape[0]))
    return scipy.sparse.csr_matrix(chosen @ rows, dtype=bool)


def _elementwise(equation: Any, facts: list[Fact]) -> list[Matrix]:
    (*_, output) = equation.outvars
    size = math.prod(output.aval.shape)
    like = _any_rows(facts)
    total = scipy.sparse.csr_matrix((size, like.shape[1]), dtype=bool)
    kept = [_kept(equation, facts, i, output.aval.shape) for i in range(len(facts))]
    for fact, keep in zip(facts, kept, strict=True):
        if fact.rows is None:
            continue
        # Numbers, and axes of length 1, are repeated.
        places = np.arange(math.prod(fact.shape)).reshape(fact.shape)
        rows = fact.rows
        if fact.shape != output.aval.shape:
            rows = rows[np.broadcast_to(places, output.aval.shape).ravel()]
        if keep is not None:
            rows = scipy.sparse.diags(keep.astype(bool), dtype=bool).tocsr() @ rows
        total = total + rows
    return [total] * len(equation.outvars)


def _kept(equation: Any, facts: list[Fact], i: int, shape: Any) -> np.ndarray | None:
    """Return which entries of the output can depend on input i, or None for all."""
    name = equation.primitive.name
    mask = None
    if name == "mul" and facts[1 - i].value is not None:
        mask = np.asarray(facts[1 - i].value) != 0
    if name == "select_n" and i and facts[0].value is not None:
        mask = np.asarray(facts[0].value).astype(int) == i - 1
    return None if mask is None else np.broadcast_to(mask, shape).ravel()


def _numbered(equation: Any, facts: list[Fact]) -> tuple[list[np.ndarray], Matrix]:
    """Run an equation that only moves entries, with numbers in place of the entries.

    All entries of all inputs are numbered 1, 2, 3, ... Number 0 stands for an entry
    that depends on no input of the function.

    Returns:
      For each output, the numbers of the entries that were moved there; and the boolean
      matrix whose row n says on which inputs of the function entry n depends.
    """
    like = _any_rows(facts)
    blocks = [scipy.sparse.csr_matrix((1, like.shape[1]), dtype=bool)]
    numbers, arguments = 1, []
    for fact, v in zip(facts, equation.invars, strict=True):
        size = math.prod(fact.shape)
        if fact.rows is not None:
            arguments.append(np.arange(numbers, numbers + size).reshape(fact.shape))
            blocks.append(fact.rows)
            numbers += size
        elif is_inexact(v.aval):
            arguments.append(np.zeros(fact.shape, int))
        else:
            arguments.append(fact.value)
    arguments = [
        jnp.asarray(argument) if isinstance(argument, np.ndarray) else argument
        for argument in arguments
    ]
    if "fill_value" in equation.params:  # It must not be taken for a number.
        equation = equation.replace(params={**equation.params, "fill_value": 0})
    moved = caller(equation)(arguments)
    places = [np.maximum(np.asarray(one).ravel(), 0) for one in moved]
    return places, scipy.sparse.vstack(blocks, format="csr")


def _moved(equation: Any, facts: list[Fact]) -> list[Matrix]:
    places, rows = _numbered(equation, facts)
    return [rows[place] for place in places]


def _scattered(equation: Any, facts: list[Fact]) -> list[Matrix]:
    """Let an entry depend on the operand there, and on all updates that go there."""
    operand, indices, updates = facts
    size = math.prod(operand.shape)
    total = _rows_of(operand, _any_rows(facts))
    if updates.rows is None:
        return [total]
    # The transpose of scattering gathers: it gives the target of each update.
    numbers = jnp.arange(1.0, size + 1).reshape(operand.shape)
    if float(numbers.max()) != size:  # Not exact in this precision.
        return _dense(equation, facts)
    like = jax.ShapeDtypeStruct(updates.shape, numbers.dtype)
    scatter = lambda u: caller(equation)([jnp.zeros_like(numbers), indices.value, u])[0]
    (targets,) = jax.linear_transpose(scatter, like)(numbers)
    targets = np.asarray(targets).ravel().astype(int)
    inside = np.flatnonzero(targets)
    return [total + _mapped(targets[inside] - 1, inside, updates.rows, size)]


def _reduced(equation: Any, facts: list[Fact]) -> list[Matrix]:
    axes = equation.params.get("axes", equation.params.get("dimensions"))
    if len(facts) != len(equation.outvars):
        return _dense(equation, facts)
    outputs = []
    for fact, v in zip(facts, equation.outvars, strict=True):
        size = math.prod(v.aval.shape)
        targets = _group_numbers(fact.shape, axes)
        rows = _rows_of(fact, _any_rows(facts))
        outputs.append(_mapped(targets, np.arange(len(targets)), rows, size))
    return outputs


def _group_numbers(shape: tuple[int, ...], axes: Sequence[int]) -> np.ndarray:
    """Return for each entry the number of its group.

    Entries that differ only in their positions along the axes are one group.
    """
    kept = [1 if axis in axes else extent for axis, extent in enumerate(shape)]
    numbers = np.arange(math.prod(kept)).reshape(kept)
    return np.broadcast_to(numbers, shape).ravel()


def _along(*names: str) -> Callable[[Any, list[Fact]], list[Matrix]]:
    """Return the rule of a primitive that mixes all entries along an axis."""

    def rule(equation: Any, facts: list[Fact]) -> list[Matrix]:
        shape = facts[0].shape
        axes = next(
            (equation.params[name] for name in names if name in equation.params),
            len(shape) - 1,
        )
        axes = [axes] if isinstance(axes, int) else list(axes)
        if any(v.aval.shape != shape for v in equation.outvars):
            return _dense(equation, facts)
        groups = _group_numbers(shape, [axis % len(shape) for axis in axes])
        like = _any_rows(facts)
        total = _rows_of(Fact(shape), like)
        for fact in facts:
            total = total + _rows_of(fact, like)
        count = int(groups.max(initial=-1)) + 1
        union = _mapped(groups, np.arange(len(groups)), total, count)
        return [union[groups] for _ in equation.outvars]

    return rule


def _cumulative(equation: Any, facts: list[Fact]) -> list[Matrix]:
    (fact,), axis = facts, equation.params["axis"]
    rows: Any = fact.rows
    numbers = np.moveaxis(np.arange(math.prod(fact.shape)).reshape(fact.shape), axis, 0)
    if equation.params["reverse"]:
        numbers = numbers[::-1]
    length = len(numbers)
    if length == 0:
        return [rows]
    later, earlier = np.tril_indices(length)
    flat = numbers.reshape(length, -1)
    targets, sources = flat[later].ravel(), flat[earlier].ravel()
    return [_mapped(targets, sources, rows, rows.shape[0])]


def _dot(equation: Any, facts: list[Fact]) -> list[Matrix]:
    """Let an entry depend on its row of the left factor and column of the right."""
    (contract, batch) = equation.params["dimension_numbers"]
    (output,) = equation.outvars
    shape, size = output.aval.shape, math.prod(output.aval.shape)
    number_of_batch = len(batch[0])
    free = [
        [a for a in range(len(f.shape)) if a not in contract[s] and a not in batch[s]]
        for s, f in enumerate(facts)
    ]
    total = scipy.sparse.csr_matrix((size, _any_rows(facts).shape[1]), dtype=bool)
    places = np.arange(size).reshape(shape)
    for side, fact in enumerate(facts):
        if fact.rows is None:
            continue
        other = facts[1 - side]
        zero = other.value is not None and not np.all(np.asarray(other.value))
        if zero and not number_of_batch:
            total = total + _dot_with(fact, other, side, contract, free, places)
            continue
        # Union over the contracted axes, then a copy for each free entry of the other.
        order = [*batch[side], *free[side], *contract[side]]
        numbers = np.arange(math.prod(fact.shape)).reshape(fact.shape)
        numbers = numbers.transpose(order)
        kept = numbers.shape[: len(order) - len(contract[side])]
        groups = math.prod(kept)
        inside = numbers.reshape(groups, -1)
        targets = np.repeat(np.arange(groups), inside.shape[1])
        union = _mapped(targets, inside.ravel(), fact.rows, groups)
        at = np.arange(groups).reshape(kept)
        # The free axes of the left factor come first in the result.
        ones = (1,) * len(free[1 - side])
        front = kept if side == 0 else kept[:number_of_batch]
        at = at.reshape((*front, *ones, *kept[len(front) :]))
        total = total + union[np.broadcast_to(at, shape).ravel()]
    return [total]


def _dot_with(
    fact: Fact, other: Fact, side: int, contract: Any, free: Any, places: np.ndarray
) -> Matrix:
    """Return on which inputs each entry of a product with a known matrix depends.

    Where the known matrix is 0, the product does not depend on the other factor.
    """
    own = np.arange(math.prod(fact.shape)).reshape(fact.shape)
    own = own.transpose([*free[side], *contract[side]])
    own = own.reshape(math.prod(own.shape[: len(free[side])]), -1)
    known = np.asarray(other.value).transpose([*contract[1 - side], *free[1 - side]])
    known = known.reshape(own.shape[1], -1)
    inner, outer = np.nonzero(known)
    where = (
        places.reshape(len(own), -1) if side == 0 else places.reshape(-1, len(own)).T
    )
    targets = where[:, outer].ravel()
    return _mapped(targets, own[:, inner].ravel(), fact.rows, places.size)


def _convolution(equation: Any, facts: list[Fact]) -> list[Matrix]:
    """Let an entry depend on its window of the image, and on the whole kernel."""
    image, kernel = facts
    params, (output,) = equation.params, equation.outvars
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or kernel.rows is not None:
        return _dense(equation, facts)
    window = [kernel.shape[d] for d in numbers.rhs_spec[2:]]
    ids = jnp.arange(1.0, math.prod(image.shape) + 1).reshape(image.shape)
    if float(ids.max()) != math.prod(image.shape):
        return _dense(equation, facts)
    patches = lax.conv_general_dilated_patches(
        ids,
        window,
        params["window_strides"],
        params["padding"],
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=numbers,
        precision=lax.Precision.HIGHEST,
    )
    order = numbers.out_spec  # Places of the batch, the channels and the space axes.
    patches = np.asarray(patches).transpose(order).round().astype(int)
    shape = output.aval.shape
    places = np.arange(math.prod(shape)).reshape(shape).transpose(order)
    groups = params["feature_group_count"]
    channels = places.shape[1]
    targets, sources = [], []
    of_group = patches.reshape(patches.shape[0], groups, -1, *patches.shape[2:])
    for channel in range(channels):
        group = of_group[:, channel * groups // channels]
        at = np.broadcast_to(places[:, channel][:, None], group.shape)
        targets.append(at[group > 0])
        sources.append(group[group > 0] - 1)
    return [
        _mapped(
            np.concatenate(targets),
            np.concatenate(sources),
            image.rows,
            math.prod(shape),
        )
    ]


OTHERS: dict[str, Callable[[Any, list[Fact]], list[Matrix]]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "sort": _along("dimension"),
}


def _joined(a: Fact, b: Fact) -> Fact:
    """Return the facts that are true of a variable that is either a or b."""
    same = (
        a.value is not None and b.value is not None and np.array_equal(a.value, b.value)
    )
    if a.rows is None and b.rows is None:
        return Fact(a.shape, a.value if same else None)
    like = _any_rows((a, b))
    return Fact(a.shape, None, _rows_of(a, like) + _rows_of(b, like))


def _cond(equation: Any, facts: list[Fact]) -> list[Fact]:
    index, operands = facts[0], facts[1:]
    branches = equation.params["branches"]
    if index.value is not None:
        taken = int(np.clip(int(index.value), 0, len(branches) - 1))
        return _walk(branches[taken], operands)
    found = [_walk(branch, operands) for branch in branches]
    joined = found[0]
    for other in found[1:]:
        joined = [_joined(a, b) for a, b in zip(joined, other, strict=True)]
    return joined


def _scan(equation: Any, facts: list[Fact]) -> list[Fact]:
    params = equation.params
    num_consts, num_carry = scan_sizes(params)
    consts, xs = facts[:num_consts], facts[num_consts + num_carry :]
    carry = facts[num_consts : num_consts + num_carry]
    length = params["length"]
    columns: list[list[Fact]] = []
    order = range(length)[::-1] if params["reverse"] else range(length)
    for step in order:
        outputs = _walk(params["jaxpr"], [*consts, *carry, *(_at(x, step) for x in xs)])
        carry = outputs[:num_carry]
        columns.append(outputs[num_carry:])
    if params["reverse"]:
        columns = columns[::-1]
    stacked = equation.outvars[num_carry:]
    ys = [
        _stack([row[i] for row in columns], v.aval.shape) for i, v in enumerate(stacked)
    ]
    return [*carry, *ys]


def _at(x: Fact, step: int) -> Fact:
    size = math.prod(x.shape[1:])
    value = None if x.value is None else x.value[step]
    rows = None if x.rows is None else x.rows[step * size : (step + 1) * size]
    return Fact(x.shape[1:], value, rows)


def _stack(facts: list[Fact], shape: tuple[int, ...]) -> Fact:
    if all(fact.rows is None for fact in facts):
        known = facts and all(fact.value is not None for fact in facts)
        return Fact(shape, np.stack([f.value for f in facts]) if known else None)
    like = _any_rows(facts)
    rows = scipy.sparse.vstack([_rows_of(fact, like) for fact in facts], format="csr")
    return Fact(shape, None, rows)


def _while(equation: Any, facts: list[Fact]) -> list[Fact]:
    """Repeat the body until no new dependence is found.

    The result then holds for any number of iterations.
    """
    params = equation.params
    first = params["cond_nconsts"]
    consts = facts[first : first + params["body_nconsts"]]
    carry = facts[first + params["body_nconsts"] :]
    while True:
        after = _walk(params["body_jaxpr"], [*consts, *carry])
        joined = [_joined(a, b) for a, b in zip(carry, after, strict=True)]
        if all(map(_same, carry, joined)):
            return joined
        carry = joined


def _same(a: Fact, b: Fact) -> bool:
    if (a.value is None) != (b.value is None) or (a.rows is None) != (b.rows is None):
        return False
    return a.rows is None or _clean(a.rows).nnz == _clean(b.rows).nnz


LOOPS = {"cond": _cond, "scan": _scan, "while": _while}
