"""Count of the flops of a jaxpr, by a formula for each equation."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from research.derivatives.costs.jaxprs import alive, inner

TRANSCENDENTAL = {
    *(
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "log2",
        "logistic",
        "tanh",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "atan2",
    ),
    *(
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "sqrt",
        "rsqrt",
        "cbrt",
        "pow",
        "erf",
        "erfc",
        "erf_inv",
        "lgamma",
    ),
    *(
        "digamma",
        "igamma",
        "igammac",
        "igamma_grad_a",
        "polygamma",
        "zeta",
        "bessel_i0e",
        "bessel_i1e",
        "regularized_incomplete_beta",
        "cumlogsumexp",
    ),
}
MOVES = {  # These operations only move or rename numbers.
    *(
        "reshape",
        "broadcast_in_dim",
        "transpose",
        "squeeze",
        "expand_dims",
        "convert_element_type",
        "concatenate",
    ),
    *(
        "slice",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "scatter",
        "pad",
        "rev",
        "iota",
        "copy",
        "copy_p",
    ),
    *(
        "stop_gradient",
        "split",
        "stack",
        "unstack",
        "bitcast_convert_type",
        "reduce_precision",
        "random_bits",
        "random_wrap",
        "device_put",
    ),
    *(
        "random_unwrap",
        "random_seed",
        "random_fold_in",
        "threefry2x32",
        "optimization_barrier",
    ),
    *(
        "real",
        "imag",
        "complex",
        "create_token",
        "pvary",
        "sharding_constraint",
        "name",
        "tile",
    ),
}


class Count(NamedTuple):
    """Counted cost of one evaluation of a function.

    Attributes:
      flops: Number of additions, multiplications, comparisons and similar operations on
        floating numbers. A multiply-add counts as two operations.
      transcendentals: Number of exp, log, sqrt and similar operations.
      bytes: Number of bytes that would be read and written if each equation of the
        jaxpr (the program that JAX records) ran by itself, without fusion.
      unknown_loops: Number of `while` loops. The body of such a loop is counted once,
        because the number of iterations is unknown.
    """

    flops: float = 0.0
    transcendentals: float = 0.0
    bytes: float = 0.0
    unknown_loops: int = 0

    def __add__(self, other: "Count") -> "Count":  # pyright: ignore[reportIncompatibleMethodOverride]
        loops = self.unknown_loops + other.unknown_loops
        return Count(
            *(a + b for a, b in zip(self[:3], other[:3], strict=True)),
            unknown_loops=loops,
        )

    def times(self, trips: float) -> "Count":
        """Return the count for a loop whose body has this count and runs `trips` times.

        The number `unknown_loops` is not multiplied.
        """
        return Count(
            self.flops * trips,
            self.transcendentals * trips,
            self.bytes * trips,
            self.unknown_loops,
        )

    @property
    def operations(self) -> float:
        """Number of flops plus number of transcendentals."""
        return self.flops + self.transcendentals


def count(jaxpr: Any, wanted: list[bool] | None = None) -> Count:
    """Count the operations, the bytes and the `while` loops of a jaxpr.

    A jaxpr is the program that JAX records when it traces a function. Equations that do
    not affect a wanted output are not counted, because XLA removes them.

    Args:
      jaxpr: The jaxpr.
      wanted: For each output, whether it is wanted. None means that all outputs are
        wanted.
    Returns:
      The `Count`. The body of a `scan` is counted once for each iteration. Of the
      branches of a `cond`, only the most expensive one is counted.
    """
    total = Count()
    for equation, of_own in alive(jaxpr, wanted):
        total += _of_equation(equation, of_own)
    return total


def _of_equation(equation: Any, wanted: list[bool]) -> Count:
    name, held = equation.primitive.name, inner(equation)
    if name == "scan":
        # Every carried value is wanted. A stacked output has one more axis outside the
        # loop than inside. It is wanted inside if it is wanted outside.
        within = [
            w or o.aval.shape == i.aval.shape
            for w, o, i in zip(wanted, equation.outvars, held[0].outvars, strict=True)
        ]
        return count(held[0], within).times(equation.params["length"])
    if name == "while":
        once = sum((count(part) for part in held), Count())
        return once._replace(unknown_loops=once.unknown_loops + 1)
    if name == "cond":
        return max(
            (count(branch) for branch in held), key=lambda branch: branch.operations
        )
    if name == "custom_linear_solve":  # Its first program is a product, not the solver.
        return count(equation.params["jaxprs"].solve.jaxpr)
    read = sum(_bytes(v) for v in equation.invars if not hasattr(v, "val"))
    moved = float(read + sum(_bytes(v) for v in equation.outvars))
    if held and name == "scatter":  # x.at[i].apply(f) calls f for each update.
        return count(held[0]).times(_scatter(equation))._replace(bytes=moved)
    if held and name not in REDUCTIONS | SCATTERS:
        same = len(held) == 1 and len(held[0].outvars) == len(wanted)
        return count(held[0], wanted if same else None)
    if name in TRANSCENDENTAL:
        return Count(0.0, float(_size(equation.outvars[0])), moved)
    if name in MOVES or not _is_floating(equation):
        return Count(0.0, 0.0, moved)
    return Count(float(FORMULAS.get(name, _elementwise)(equation)), 0.0, moved)


def _elementwise(equation: Any) -> float:
    return _size(equation.outvars[0])


def _of_input(equation: Any) -> float:
    return _size(equation.invars[0])


def _dot(equation: Any) -> float:
    (left, _), _ = equation.params["dimension_numbers"]
    return (
        2
        * _size(equation.outvars[0])
        * math.prod(equation.invars[0].aval.shape[d] for d in left)
    )


def _convolution(equation: Any) -> float:
    kernel, numbers = (
        equation.invars[1].aval.shape,
        equation.params["dimension_numbers"],
    )
    return (
        2 * _size(equation.outvars[0]) * math.prod(kernel) / kernel[numbers.rhs_spec[0]]
    )


def _integer_power(equation: Any) -> float:
    exponent = abs(equation.params["y"])
    # Number of products in repeated squaring.
    products = max(exponent.bit_length() - 1 + bin(exponent).count("1") - 1, 0)
    return (products + (equation.params["y"] < 0)) * _size(equation.outvars[0])


def _scatter(equation: Any) -> float:
    return _size(equation.invars[2])


def _sort(equation: Any) -> float:
    params, shape = equation.params, equation.invars[0].aval.shape
    length = shape[params.get("dimension", params.get("axis", -1))]
    return math.prod(shape) * max(math.log2(max(length, 1)), 1)


def _fft(equation: Any) -> float:
    lengths = math.prod(equation.params["fft_lengths"])
    batch = max(_size(equation.invars[0]), _size(equation.outvars[0])) / max(lengths, 1)
    half = 0.5 if "RFFT" in str(equation.params["fft_type"]) else 1
    return half * 5 * batch * lengths * math.log2(max(lengths, 2))


def _matrix(formula: Callable[[float, float], float]) -> Callable[[Any], float]:
    """Return a function that counts flops by a formula in the matrix sizes m and n.

    m and n are the numbers of rows and columns of each matrix in the first operand.
    """

    def flops(equation: Any) -> float:
        *batch, m, n = equation.invars[0].aval.shape
        return math.prod(batch) * formula(m, n)

    return flops


def _triangular_solve(equation: Any) -> float:
    return equation.invars[0].aval.shape[-1] * _size(equation.invars[1])


def _windows(equation: Any) -> float:
    """Return the flops of pooling: the size of a window for each pooled entry.

    The pooled entries are the outputs of forward pooling and the inputs of backward
    pooling.
    """
    return min(_size(equation.invars[0]), _size(equation.outvars[0])) * math.prod(
        equation.params["window_dimensions"]
    )


WINDOWS = {
    "reduce_window",
    "reduce_window_sum",
    "reduce_window_max",
    "reduce_window_min",
    "select_and_scatter",
    "select_and_scatter_add",
    "select_and_gather_add",
}
REDUCTIONS = {
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce",
    "argmax",
    "argmin",
} | WINDOWS
SCATTERS = {
    f"scatter{mark}{what}"
    for mark in "-_"
    for what in ("add", "sub", "mul", "min", "max")
}
FORMULAS: dict[str, Callable[[Any], float]] = {
    **{
        name: _of_input
        for name in REDUCTIONS
        | {"argsort", "reduce_and", "reduce_or", "reduce_xor", "approx_top_k"}
    },
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _of_input),
    **dict.fromkeys(SCATTERS, _scatter),
    **dict.fromkeys(WINDOWS, _windows),
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "integer_pow": _integer_power,
    "sort": _sort,
    "top_k": _sort,
    "fft": _fft,
    # Golub & Van Loan, Matrix computations, 4th ed., 2013: sections 3.2, 4.2, 5.2, 8.3
    # and 8.6.
    "cholesky": _matrix(lambda m, n: n**3 / 3),
    "lu": _matrix(lambda m, n: min(m, n) ** 2 * (max(m, n) - min(m, n) / 3)),
    "geqrf": _matrix(lambda m, n: 2 * min(m, n) ** 2 * (max(m, n) - min(m, n) / 3)),
    "qr": _matrix(lambda m, n: 4 * min(m, n) ** 2 * (max(m, n) - min(m, n) / 3)),
    "householder_product": _matrix(
        lambda m, n: 2 * min(m, n) ** 2 * (max(m, n) - min(m, n) / 3)
    ),
    "eigh": _matrix(lambda m, n: 9 * n**3),
    "eig": _matrix(lambda m, n: 25 * n**3),
    "svd": _matrix(
        lambda m, n: 4 * m * n**2 + 22 * n**3 if m >= n else 4 * n * m**2 + 22 * m**3
    ),
    "triangular_solve": _triangular_solve,
    "tridiagonal_solve": lambda equation: 8 * _size(equation.invars[3]),
}


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))


def _bytes(variable: Any) -> int:
    return _size(variable) * getattr(
        getattr(variable.aval, "dtype", None), "itemsize", 0
    )


def _is_floating(equation: Any) -> bool:
    kinds = [
        getattr(getattr(v.aval, "dtype", None), "kind", "")
        for v in (*equation.invars, *equation.outvars)
    ]
    return any(kind in "fcV" for kind in kinds if kind)
