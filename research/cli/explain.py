"""The command `descent explain`: show backpropagation through a function as a table."""

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.cli import expression, user_code
from research.cli.parser import Parser
from research.naming import nearest

if TYPE_CHECKING:
    from research.derivatives.ledger import Ledger

SUCCESS = 0
WIDTH = 80
DESCRIPTION = """\
Show backpropagation through a function as a table: each equation with its value, its
adjoint, and what it passes on. A formula is made of numbers, variables, operators and
these functions:

"""
EXAMPLES = """
examples:
  descent explain "x**2 * sin(x)" --at x=1.0
  descent explain "sum((w * x - y)**2)" --at w=0.5 "x=[1, 2]" "y=[2, 4]" --svg loss.svg
  descent explain mine.py:loss --at w=0.5 b=0.0 --html loss.html
  descent explain jax.nn:softplus --at x=2.0

Files and modules are imported, that is, executed: use only those that you trust. A
formula is only parsed."""


def explain(words: Sequence[str]) -> int:
    """Print backpropagation through a function as a table, and optionally draw a graph.

    A row of the table shows an equation (one operation of the function), the value of
    the equation, and the derivative of the function's result with respect to this
    value. The flags --svg and --html write the graph of the equations to a file.

    Args:
      words: Command-line arguments after `explain`.
    Returns:
      0.
    Raises:
      ValueError, TypeError, OSError: The input is bad.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if an argument is missing or a value has the wrong type.
    """
    asked = _parser().parse_args(words)
    for suffix in ("svg", "html"):  # Before anything is computed.
        _check_file(suffix, getattr(asked, suffix))
    point = values(asked.at)
    f, is_formula = function(asked.function)
    f, args = _bound(f, point, is_formula)
    from research import backend

    backend.configure(x64=True)
    backend.keep_programs()
    ledger = _ledger(f, args, asked)
    print(ledger.text())
    if asked.svg:
        _write(asked.svg, ledger.svg())
    if asked.html:
        _write(asked.html, ledger.html())
    return SUCCESS


def _parser() -> Parser:
    functions = textwrap.fill(", ".join(expression.FUNCTIONS), WIDTH)
    parser = Parser(
        "descent explain",
        description=f"{DESCRIPTION}{functions}",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("function", metavar="EXPR", help="a formula, FILE.py:name or module:name")
    add(
        "--at",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="the value of each variable: a number, or a list of them",
    )
    add(
        "--primitives",
        action="store_true",
        help="also show the equations that only change a shape or a dtype",
    )
    add("--svg", type=Path, metavar="FILE.svg", help="write the graph to this SVG file")
    add(
        "--html",
        type=Path,
        metavar="FILE.html",
        help="write the graph and the table to this HTML file, a page to explore",
    )
    return parser


def values(words: Sequence[str]) -> dict[str, Any]:
    """Parse texts such as x=1.0, and return numbers or lists of numbers by name.

    Raises:
      ValueError: A name occurs twice, or a text is not NAME=VALUE with a number or a
        list of numbers as VALUE, or the lists in a list differ in length.
    Example:
      >>> values(["x=1", "y=[1, 2.5]"])
      {'x': 1, 'y': [1, 2.5]}
    """
    point: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        if not (equals and name.strip().isidentifier() and _is_numeric(value)):
            raise ValueError(
                "--at must be NAME=VALUE, a number or a list of numbers, such as "
                "x=1.0 or "
                f'"x=[1, 2]"; got {word[:80]!r}.'
            )
        if _shape(value) is None:
            raise ValueError(
                "--at: the lists in a list must have equal lengths, as in "
                f'"x=[[1, 2], [3, 4]]"; got {word[:80]!r}.'
            )
        if name.strip() in point:
            raise ValueError(f"--at sets {name.strip()} twice. Set it once.")
        point[name.strip()] = value
    return point


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(_is_numeric, value))
    return type(value) in (int, float)


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of a number or of a nested list. None if lengths differ."""
    if not isinstance(value, list | tuple):
        return ()
    shapes = {_shape(one) for one in value}
    shape = shapes.pop()
    return None if shapes or shape is None else (len(value), *shape)


def function(word: str) -> tuple[Callable[..., Any], bool]:
    """Return the function that `word` describes, and whether `word` is a formula.

    `word` is a formula such as "x**2", or has the form FILE.py:name or module:name.

    Raises:
      ValueError, TypeError, OSError: `word` is neither a formula nor the name of a
        function.
    """
    if re.fullmatch(r"[^()*]*\.py(:\w*)?", word):
        found = user_code.in_file(word, "function", inspect.isfunction, "no function")
    elif re.fullmatch(r"[A-Za-z_][\w.]*:[\w.]+", word):
        found = user_code.in_module(word)
    else:
        return expression.parse(word), True
    if not callable(found):
        raise TypeError(
            f"{word} must be a function; it is a value of type {type(found).__name__}."
        )
    return found, False


def _bound(
    f: Callable[..., Any], point: dict[str, Any], is_formula: bool
) -> tuple[Callable[..., Any], list[Any]]:
    """Return f as a function of only the arguments in `point`, and a list of values.

    The list has the values of these arguments, in the order of the arguments.
    """
    import numpy as np

    name = "the formula" if is_formula else getattr(f, "__name__", "the function")
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):
        raise TypeError(
            f"the arguments of {name} have no readable names. Wrap it in a function "
            "with named arguments."
        ) from None
    unknown = [key for key in point if key not in parameters]
    if unknown:
        hint = nearest(unknown[0], parameters)
        raise ValueError(f"{name} has no variable {unknown[0]}. {hint}")
    missing = [
        key
        for key, parameter in parameters.items()
        if key not in point
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if missing:
        raise ValueError(
            f"{name} needs a value for {missing[0]}. Pass for example --at "
            f"{missing[0]}=1.0."
        )
    names = [key for key in parameters if key in point]
    dtype = float if is_formula else None
    args = [np.asarray(point[key], dtype=dtype) for key in names]
    title = "f" if is_formula else getattr(f, "__name__", "f")
    return _of_given(f, parameters, names, title), args


def _of_given(
    f: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    names: list[str],
    title: str,
) -> Callable[..., Any]:
    """Return f, named `title`, as a function of the positional arguments `names`."""
    by_position = [
        p for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    # An argument by position needs all before it, with their defaults.
    while by_position and by_position[-1].name not in names:
        by_position.pop()

    def given(*arrays: Any) -> Any:
        values = dict(zip(names, arrays, strict=True))
        positional = [values.pop(p.name, p.default) for p in by_position]
        return f(*positional, **values)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(key, kind) for key in names])
    given.__name__ = title
    given.__signature__ = signature  # type: ignore[attr-defined]
    return given


def _ledger(
    f: Callable[..., Any], args: list[Any], asked: argparse.Namespace
) -> "Ledger":
    """Compute the table; report an error of the function in one line."""
    from research import derivatives
    from research.derivatives.errors import NotInexactError, NotScalarError

    level = "primitives" if asked.primitives else "mathematics"
    try:
        return derivatives.explain(f, *args, level=level)
    except NotInexactError:
        raise
    except NotScalarError as problem:
        # The message of `explain` names functions that the command does not have.
        reason = str(problem).partition(" Sum the result")[0]
        if ":" not in asked.function:
            reason = f"the formula{reason.removeprefix('f')}"
        raise NotScalarError(f"{reason} {_sum_of(asked.function)}") from problem
    except expression.FormulaError as problem:
        raise ValueError(
            f"{asked.function} cannot be evaluated at these values: {problem}"
        ) from problem
    except Exception as problem:
        raise ValueError(
            f"{asked.function} cannot be evaluated at these values: "
            f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
        ) from problem


def _sum_of(word: str) -> str:
    """Return advice for the case that the function `word` gives several numbers."""
    return "Let it return the sum." if ":" in word else f"Pass the sum: sum({word})."


def _check_file(suffix: str, path: Path | None) -> None:
    if path is not None and path.suffix != f".{suffix}":
        raise ValueError(
            f"--{suffix} must name a file that ends in .{suffix}; got {path}."
        )
    if path is not None and not path.parent.is_dir():
        raise ValueError(
            f"--{suffix} must name a file in an existing folder; got {path}. Make the "
            f"folder {path.parent} first."
        )


def _write(path: Path, text: str) -> None:
    from research.files import write_atomically

    write_atomically(path, text.encode())
    print(f"\n{path.suffix[1:]}: {path}")
