"""Turn a formula from the command line into a function, without evaluating code.

The formula is parsed with the module `ast`.
"""

import ast
import inspect
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from research.naming import nearest

LONGEST, DEEPEST = 1000, 60  # Maximum number of characters and nesting levels.
CONSTANTS = ("pi", "e")
# Functions of jax.numpy whose result is no larger than their arguments.
ELEMENTWISE = (
    *(
        "abs",
        "absolute",
        "square",
        "sqrt",
        "cbrt",
        "exp",
        "exp2",
        "expm1",
        "reciprocal",
    ),
    *("log", "log2", "log10", "log1p", "logaddexp", "hypot", "power", "sign", "sinc"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "maximum"),
    *("sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "minimum", "where"),
    *("floor", "ceil", "mod", "clip"),
)
REDUCTIONS = (
    *("sum", "mean", "prod", "max", "min", "var", "std", "dot", "vdot", "cumsum"),
    "cumprod",
)
ACTIVATIONS = (  # Functions of jax.nn.
    *("sigmoid", "softplus", "relu", "silu", "gelu", "elu", "softmax", "log_softmax"),
    *("log_sigmoid", "logsumexp"),
)
FUNCTIONS = (*ELEMENTWISE, *REDUCTIONS, *ACTIVATIONS)
PREFIXES = ("np", "jnp", "numpy", "jax.numpy", "jax.nn")
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class FormulaError(ValueError):
    """Raised if a formula cannot be evaluated at the given values."""


def parse(text: str) -> Callable[..., Any]:
    """Turn a formula into a function of its variables.

    The arguments of the function are the variables, in the order of their first
    appearance in the formula.

    A formula may contain numbers, variables, the constants pi and e, + - * / % ** @,
    the comparisons < <= > >=, indices such as x[0], and the functions of jax.numpy and
    jax.nn that are listed in `FUNCTIONS`. These functions may have an argument `axis`,
    an integer. Anything else raises a ValueError. A formula therefore cannot run other
    code or request much memory. All numbers except indices, axes and integer exponents
    are floats.

    Raises:
      ValueError: The formula is not valid. The message names the invalid part.
    Example:
      >>> f = parse("3 * x**2 + y")
      >>> list(inspect.signature(f).parameters), f(2.0, 1.0)
      (['x', 'y'], 13.0)
      >>> parse("sine(x)")
      Traceback (most recent call last):
      ValueError: a formula must not call sine. Did you mean sin?
    """
    body = _tree(text)
    names = tuple(dict.fromkeys(_variables(body)))
    if not names:
        raise ValueError(
            f"the formula {text!r} has no variable, such as x in x**2. Write one."
        )

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])

    def f(*args: Any, **kwargs: Any) -> Any:
        return _value(body, signature.bind(*args, **kwargs).arguments)

    f.__signature__ = signature  # type: ignore[attr-defined]
    return f


def _tree(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ValueError(
            f"a formula may have at most {LONGEST:,} characters; this one has "
            f"{len(text):,}. Write a longer function in a file, and pass FILE.py:NAME."
        )
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as problem:
        reason = getattr(problem, "msg", "it is nested too deep")
        hint = _missing_brackets(text)
        raise ValueError(
            f"cannot read the formula {text[:80]!r}: {reason}.{hint}"
        ) from None
    _check(body, DEEPEST)
    return body


def _missing_brackets(text: str) -> str:
    """Return a hint for a formula such as "sin x", or ""."""
    found = re.search(rf"\b({'|'.join(FUNCTIONS)})\s+([A-Za-z_]\w*|\d[\d.]*)", text)
    return f" Did you mean {found[1]}({found[2]})?" if found else ""


def _check(node: ast.AST, depth: int) -> None:
    """Raise if a formula contains an invalid part or is nested too deeply."""
    if depth == 0:
        raise ValueError(
            f"a formula may be nested at most {DEEPEST} levels deep. Write a deeper "
            "function in a file, and pass FILE.py:NAME."
        )
    match node:
        case ast.Constant():
            allowed = type(node.value) in (int, float)
        case ast.BinOp(op=ast.BitXor()):
            power = ast.unparse(ast.BinOp(node.left, ast.Pow(), node.right))
            power = power.replace(" ** ", "**")
            raise ValueError(
                f"the formula must not contain {ast.unparse(node)!r}; a power is "
                f"written {power}."
            )
        case ast.BinOp() | ast.UnaryOp():
            allowed = type(node.op) in OPERATORS
        case ast.Compare():
            allowed = len(node.ops) == 1 and type(node.ops[0]) in OPERATORS
        case ast.Call():
            _check_function(node.func)
            allowed = not any(isinstance(a, ast.Starred) for a in node.args)
            allowed = allowed and all(_is_axis(keyword) for keyword in node.keywords)
            _check_arguments(node)
        case ast.Subscript():
            allowed = _is_integer(node.slice)
        case _:
            allowed = isinstance(node, ast.Name)
    if not allowed:
        raise ValueError(
            f"the formula must not contain {ast.unparse(node)!r}; it may contain "
            "numbers, variables, operators and functions such as sin(x)."
        )
    for child in _operands(node):
        _check(child, depth - 1)


def _operands(node: ast.AST) -> list[ast.expr]:
    """Return the operands of a node."""
    match node:
        case ast.BinOp():
            return [node.left, node.right]
        case ast.UnaryOp():
            return [node.operand]
        case ast.Compare():
            return [node.left, *node.comparators]
        case ast.Call():
            return node.args
        case ast.Subscript():
            return [node.value]
    return []


def _check_function(node: ast.expr) -> None:
    name = ast.unparse(node)
    prefix, _, short = name.rpartition(".")
    if short not in FUNCTIONS or (prefix and prefix not in PREFIXES):
        close = nearest(short, FUNCTIONS)
        hint = (
            close if close.startswith("Did") else "--help lists the allowed functions."
        )
        raise ValueError(f"a formula must not call {name}. {hint}")


def _check_arguments(node: ast.Call) -> None:
    name = ast.unparse(node.func).rpartition(".")[2]
    if name == "where" and len(node.args) != 3:
        raise ValueError(
            "where needs a condition and two values, such as where(x > 0, x, 0); got "
            f"{ast.unparse(node)}."
        )
    if name in ("max", "min") and len(node.args) > 1:
        other = f"{name}imum({', '.join(map(ast.unparse, node.args))})"
        raise ValueError(
            f"{name} takes one array, as in NumPy; got {ast.unparse(node)}. For the "
            f"{'larger' if name == 'max' else 'smaller'} of two numbers, write {other}."
        )


def _is_axis(keyword: ast.keyword) -> bool:
    return keyword.arg == "axis" and _is_integer(keyword.value)


def _is_integer(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int


def _variables(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [] if node.id in CONSTANTS else [node.id]
    return [name for child in _operands(node) for name in _variables(child)]


def _value(node: ast.AST, values: Mapping[str, Any]) -> Any:
    """Evaluate a checked formula at the given values of its variables."""
    import jax.numpy as jnp

    match node:
        case ast.Constant():
            return float(node.value)  # type: ignore[arg-type]
        case ast.Name():
            return values[node.id] if node.id in values else getattr(jnp, node.id)
        case ast.Subscript():
            vector, index = _value(node.value, values), ast.literal_eval(node.slice)
            # JAX would take the nearest entry.
            if jnp.ndim(vector) and not -len(vector) <= index < len(vector):
                raise IndexError(
                    f"{ast.unparse(node)} is outside of {len(vector)} entries"
                )
            return vector[index]
        case ast.BinOp(op=ast.Pow()) if _is_integer(node.right):
            return _value(node.left, values) ** ast.literal_eval(node.right)
    inputs = [_value(child, values) for child in _operands(node)]
    _check_lengths(node, [jnp.shape(value) for value in inputs])
    match node:
        case ast.BinOp() | ast.UnaryOp():
            return OPERATORS[type(node.op)](*inputs)
        case ast.Compare():
            return OPERATORS[type(node.ops[0])](*inputs)
        case ast.Call():
            axis = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
            return _function(ast.unparse(node.func).rpartition(".")[2])(*inputs, **axis)
    raise TypeError(f"{type(node).__name__} is not allowed in a formula.")


def _check_lengths(node: ast.AST, shapes: list[tuple[int, ...]]) -> None:
    """Raise if the operands of an entry-by-entry operator differ in length."""
    import numpy as np

    if not isinstance(node, ast.BinOp | ast.Compare) or (
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
    ):
        return
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        sizes = " and ".join(
            f"length {shape[0]}" if len(shape) == 1 else f"shape {shape}"
            for shape in shapes
        )
        raise FormulaError(
            f"the two sides of {ast.unparse(node)} have {sizes}. Pass values of equal "
            "lengths with --at."
        ) from None


def _function(name: str) -> Callable[..., Any]:
    import jax

    return getattr(jax.nn if name in ACTIVATIONS else jax.numpy, name)
