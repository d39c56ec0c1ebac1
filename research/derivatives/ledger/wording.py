"""Derivative rule, notation and kind of each JAX primitive."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from research.derivatives.ledger.tape import is_key

_SHAPE_ONLY = (
    "broadcast_in_dim reshape squeeze expand_dims convert_element_type copy copy_p "
    "device_put optimization_barrier mul_no_op pvary sharding_constraint "
    "reduce_precision"
)
_ELEMENTWISE = (
    "add add_any sub neg mul div integer_pow square pow sqrt rsqrt cbrt exp exp2 "
    "expm1 log log1p log2 logistic tanh sin cos tan asin acos atan atan2 sinh cosh "
    "asinh acosh atanh erf erfc erf_inv lgamma digamma abs sign floor ceil round max "
    "min clamp select_n copy convert_element_type real imag complex conj rem "
    "nextafter igamma igammac bessel_i0e bessel_i1e regularized_incomplete_beta "
    "polygamma zeta reduce_precision stop_gradient is_finite eq ne lt le gt ge and or "
    "not xor"
)
# These primitives change only the shape or the dtype, and no number. A conversion to a
# less precise dtype is an exception (`rows.keeps_numbers`).
SHAPE_ONLY = frozenset(_SHAPE_ONLY.split())
# In these primitives every entry of the value depends only on the same entry of each
# input.
ELEMENTWISE = frozenset(_ELEMENTWISE.split())

RULES = {
    "sub": "d(a - b) = da - db",
    "neg": "d(-a) = -da",
    "mul": "d(a b) = b da + a db",
    "div": "d(a / b) = da / b - a db / b²",
    "integer_pow": "d(aⁿ) = n aⁿ⁻¹ da",
    "square": "d(a²) = 2 a da",
    "pow": "d(aᵇ) = b aᵇ⁻¹ da + aᵇ ln a db",
    "sqrt": "d√a = da / 2√a",
    "rsqrt": "d(1 / √a) = -da / 2 a√a",
    "cbrt": "d∛a = da / 3 (∛a)²",
    "exp": "d(eᵃ) = eᵃ da",
    "exp2": "d(2ᵃ) = 2ᵃ ln 2 da",
    "expm1": "d(eᵃ - 1) = eᵃ da",
    "log": "d(ln a) = da / a",
    "log1p": "d ln(1 + a) = da / (1 + a)",
    "log2": "d log₂ a = da / (a ln 2)",
    "logistic": "dσ(a) = σ(a) (1 - σ(a)) da",
    "tanh": "d tanh a = (1 - tanh² a) da",
    "sin": "d sin a = cos a da",
    "cos": "d cos a = -sin a da",
    "tan": "d tan a = (1 + tan² a) da",
    "asin": "d arcsin a = da / √(1 - a²)",
    "acos": "d arccos a = -da / √(1 - a²)",
    "atan": "d arctan a = da / (1 + a²)",
    "atan2": "d atan2(a, b) = (b da - a db) / (a² + b²)",
    "sinh": "d sinh a = cosh a da",
    "cosh": "d cosh a = sinh a da",
    "asinh": "d arsinh a = da / √(a² + 1)",
    "acosh": "d arcosh a = da / √(a² - 1)",
    "atanh": "d artanh a = da / (1 - a²)",
    "erf": "d erf(a) = 2/√π e^(-a²) da",
    "erfc": "d erfc(a) = -2/√π e^(-a²) da",
    "erf_inv": "d erf⁻¹(a) = √π/2 e^(erf⁻¹(a)²) da",
    "lgamma": "d ln Γ(a) = ψ(a) da",
    "digamma": "dψ(a) = ψ′(a) da",
    "abs": "d|a| = sign(a) da, a kink at 0",
    "max": (
        "d max(a, b) = the derivative of the larger one; half of each if they are equal"
    ),
    "min": (
        "d min(a, b) = the derivative of the smaller one; half of each if they are "
        "equal"
    ),
    "clamp": "da within the bounds, 0 outside",
    "select_n": "the derivative of the chosen case; 0 for the others",
    "dot_general": "d(A B) = dA B + A dB: the adjoint times the other factor",
    "conv_general_dilated": "the adjoint, convolved with the other factor",
    "reduce_sum": "d Σa = Σ da: the adjoint goes to every term",
    "reduce_prod": "d Πa = Σ da Πothers",
    "reduce_max": (
        "d max a = the derivative of the largest entry; shared if several are equal"
    ),
    "reduce_min": (
        "d min a = the derivative of the smallest entry; shared if several are equal"
    ),
    "cumsum": "running sums, from the end",
    "cumlogsumexp": "shares of the running sum of exponentials",
    "cumprod": "running products of the others",
    "cummax": "the adjoint goes to the entry that was the largest so far",
    "cummin": "the adjoint goes to the entry that was the smallest so far",
    "logsumexp": "d ln Σeᵃ = softmax(a) da",
    "gather": (
        "the adjoint goes back to the entries that were read, summed if one was read "
        "twice"
    ),
    "scatter": (
        "the adjoint of the entries that were written; 0 for values that were "
        "overwritten"
    ),
    "dynamic_update_slice": (
        "the adjoint outside the piece goes to the old array, inside it to the new "
        "piece"
    ),
    "index": "the adjoint at this step, 0 at the others",
    "stack": "each step gets its own adjoint",
    "concatenate": "each part gets its own piece of the adjoint",
    "split": "the adjoints of the pieces, joined",
    "pad": "the adjoint without its margin",
    "rev": "the adjoint, reversed",
    "broadcast_in_dim": "the adjoint, summed over the copies",
    "transpose": "the adjoint, transposed back",
    "convert_element_type": "the adjoint in the old dtype",
    "reduce_precision": "the adjoint, rounded in the same way",
    "copy": "the adjoint itself",
    "stop_gradient": "the derivative stops here",
    "scan": "the steps of the loop, in reverse order",
    "while": "no reverse rule, because the number of steps is not known beforehand",
    "triangular_solve": "another triangular solve, with the transpose",
    "cholesky": "from A = L Lᵀ: dA = dL Lᵀ + L dLᵀ, solved for dL",
    "lu": "from P A = L U: dA, solved for dL and dU",
    "eigh": "dλ = vᵀ dA v; dv divides by the gaps between the λ",
    "svd": "from A = U S Vᵀ; dS = diag(Uᵀ dA V)",
    "qr": "from A = Q R, solved for dQ and dR",
    "custom_linear_solve": (
        "x = A⁻¹ b: the adjoint z of b solves Aᵀ z = adjoint of x; the adjoint of A "
        "is -z xᵀ"
    ),
    "fft": "the transposed transform of the adjoint",
    "real": "the adjoint as a real part",
    "imag": "the adjoint as an imaginary part",
    "complex": "d(a + ib) = da + i db",
    "conj": "the conjugate of the adjoint",
    "iota": "a constant",
    **dict.fromkeys(["add", "add_any"], "d(a + b) = da + db"),
    **dict.fromkeys(["sign", "floor", "ceil", "round"], "flat: the derivative is 0"),
    **dict.fromkeys(
        ["scatter-add", "scatter_add"],
        "the old array gets the adjoint, and the added values get its entries",
    ),
    **dict.fromkeys(
        ["dynamic_slice", "slice"], "the adjoint in the place of the piece, 0 around it"
    ),
    **dict.fromkeys(
        ["sort", "top_k"], "the adjoint goes to where each entry came from"
    ),
    **dict.fromkeys(
        ["reshape", "squeeze", "expand_dims"], "the adjoint in the old shape"
    ),
    **dict.fromkeys(
        ["lu_pivots_to_permutation", "argmax", "argmin"],
        "integers have no derivative",
    ),
    **dict.fromkeys(
        ["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "is_finite"],
        "truth values have no derivative",
    ),
}

# Notation of an equation, if it differs from name(inputs).
EXPRESSIONS = {
    "add": "{0} + {1}",
    "add_any": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} · {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "square": "{0}²",
    "pow": "{0} ^ {1}",
    "exp": "exp({0})",
    "log": "ln({0})",
    "log1p": "ln(1 + {0})",
    "expm1": "exp({0}) - 1",
    "logistic": "σ({0})",
    "abs": "|{0}|",
    "sqrt": "√{0}",
    "rsqrt": "1 / √{0}",
    "reduce_sum": "sum({0})",
    "reduce_prod": "product({0})",
    "reduce_max": "largest of {0}",
    "reduce_min": "smallest of {0}",
    "stop_gradient": "stop({0})",
    "gt": "{0} > {1}",
    "ge": "{0} ≥ {1}",
    "lt": "{0} < {1}",
    "le": "{0} ≤ {1}",
    "eq": "{0} = {1}",
    "ne": "{0} ≠ {1}",
    "conv_general_dilated": "{0} ∗ {1}",
    "integer_pow": "{0}{y}",
    "index": "{0}[{step}]",
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def in_words(primitive: str) -> str:
    """Return the derivative rule of a primitive in words.

    If the primitive is not in the table RULES, the result is "JAX's rule of ...".

    Example:
      >>> in_words("mul")
      'd(a b) = b da + a db'
    """
    return RULES.get(primitive, f"JAX's rule of {primitive}")


def as_written(
    primitive: str,
    inputs: Sequence[str],
    params: dict[str, Any],
    ranks: Sequence[int] = (),
) -> str:
    """Return the right side of an equation of a jaxpr in mathematical notation.

    Args:
      primitive: Name of the equation's primitive.
      inputs: Names or values of the equation's inputs, as texts.
      params: Parameters of the equation, by name.
      ranks: Number of axes of each input. Only products of arrays need it.
    Example:
      >>> as_written("integer_pow", ["x"], {"y": 3}), as_written("sin", ["v1"], {})
      ('x³', 'sin(v1)')
    """
    if primitive == "select_n" and len(inputs) == 3:
        return f"{inputs[2]} if {inputs[0]} else {inputs[1]}"
    if primitive == "convert_element_type":
        return f"{np.dtype(params['new_dtype']).name}({inputs[0]})"
    if primitive == "transpose":
        axes = tuple(params["permutation"])
        return f"{inputs[0]}ᵀ" if axes == (1, 0) else f"transpose({inputs[0]}, {axes})"
    if primitive == "dot_general" and ranks:
        return _product(inputs, params["dimension_numbers"], ranks)
    pattern = EXPRESSIONS.get(primitive)
    if pattern is None:
        return f"{primitive}({', '.join(inputs)})"
    power = str(params.get("y", "")).translate(SUPERSCRIPTS)
    return pattern.format(*inputs, y=power, step=params.get("step"))


def _product(
    inputs: Sequence[str], dimension_numbers: Any, ranks: Sequence[int]
) -> str:
    """Write a product of arrays with @ where NumPy computes the same by @."""
    (left, right), batch = (tuple(map(tuple, part)) for part in dimension_numbers)
    (a, b), stacked = inputs, len(batch[0])
    last, leading = (ranks[0] - 1,), tuple(range(stacked))
    if not stacked and len(left) == 1 and max(ranks) <= 2:
        a += "" if left == last else "ᵀ"
        return f"{a} @ {b}{'' if right == (0,) else 'ᵀ'}"
    fits = ranks[0] == ranks[1] == stacked + 2 if stacked else ranks[1] <= 2
    if fits and batch == (leading, leading) and (left, right) == (last, (stacked,)):
        return f"{a} @ {b}"
    return f"dot_general({a}, {b})"


def short(value: Any) -> str:
    """Return a value as a short text for the table of `explain`.

    Floating numbers have at most four significant digits. For an array of more than
    three entries, the text shows the first two entries, the last entry and the shape.

    Example:
      >>> short(2 / 3), short(np.arange(3)), short(np.ones((3, 4)))
      ('0.6667', '[0, 1, 2]', '[1, 1, … 1] 3×4')
    """
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(short, value))
    if is_key(value):
        return "key"
    array = as_array(value)
    digits = [
        _number(entry)
        for entry in (array.ravel() if array.size <= 3 else array.ravel()[[0, 1, -1]])
    ]
    if array.ndim == 0:
        return digits[0]
    if array.size <= 3:
        return f"[{', '.join(digits)}]" + (
            "" if array.ndim == 1 else f" {_shape(array)}"
        )
    return f"[{digits[0]}, {digits[1]}, … {digits[2]}] {_shape(array)}"


def constant(value: Any) -> str:
    """Return a text for a constant: its value, or its shape if it has many entries.

    An array of up to three entries is shown by its value.
    """
    if is_key(value) or np.size(value) <= 3:
        return short(value)
    return f"constant {_shape(np.asarray(value))}"


def entry_at(value: Any, index: tuple[int, ...]) -> str:
    """Return a text for an entry of an array: the entry, its index and the array.

    The array is written as by `short`. In the example, the last 4 is the shape of the
    array. If `value` is a single number, the index is (), and the text is this number.

    Example:
      >>> entry_at(np.array([1.0, 2.0, np.nan, 4.0]), (2,)), entry_at(0.5, ())
      ('nan (entry [2] of [1, 2, … 4] 4)', '0.5')
    """
    if not index:
        return short(value)
    entry = _number(as_array(value)[index])
    return f"{entry} (entry [{', '.join(map(str, index))}] of {short(value)})"


def as_array(value: Any) -> Shaped[np.ndarray, "..."]:
    """Convert a value to a NumPy array.

    A value of JAX's dtype float0, such as the tangent of an integer, becomes zeros.
    """
    array = np.asarray(value)
    return np.zeros(array.shape, int) if array.dtype == jax.dtypes.float0 else array


def _number(entry: Any) -> str:
    return (
        f"{entry:.4g}"
        if entry.dtype.kind in "fc"
        else f"{float(entry):.4g}"
        if entry.dtype.kind == "V"
        else str(entry)
    )


def _shape(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape))
