"""What became of a call with one wrong argument: accepted, nonsense in silence, a clear
error, or an unclear one.
"""

import contextlib
import inspect
import io
import re
import signal
import traceback
import types as pytypes
import typing
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from public_calls import Call
from runcall import perform
from wrong_values import Wrong

import research

HERE = Path(__file__).parent
LIBRARY = Path(research.__file__).parent
KINDS = ("accepted", "silent nonsense", "clear error", "unclear error")
SECONDS = 60  # A call that takes longer counts as one that never ends.


class Case(NamedTuple):
    """One call with one argument replaced."""

    call: Call
    argument: str
    wrong: Wrong

    def __str__(self) -> str:
        return f"{self.call.name}({self.argument}={self.wrong.label})"


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
      case: The case.
      kind: One of KINDS.
      error: The type of what was raised, or "".
      message: Its first line, or what came back.
    """

    case: Case
    kind: str
    error: str
    message: str


class NeverEndsError(BaseException):
    """A call took longer than SECONDS."""


def outcome_of(case: Case) -> Outcome:
    """Makes the call and says what became of it."""
    with quiet():  # A NaN made an integer is what is meant.
        value = case.wrong.make()
    try:
        with quiet(), at_most(SECONDS):
            result = perform(
                case.call.function, {**case.call.arguments, case.argument: value}
            )
    except NeverEndsError:
        return Outcome(
            case, "unclear error", "NeverEndsError", f"no end after {SECONDS} s"
        )
    except (Exception, SystemExit) as error:
        kind = "clear error" if is_clear(error, case) else "unclear error"
        return Outcome(case, kind, type(error).__name__, first_line(error))
    kind = "accepted" if makes_sense(case, value, result) else "silent nonsense"
    return Outcome(case, kind, "", repr(type(result)))


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]


def is_clear(error: BaseException, case: Case) -> bool:
    """Whether the library raised it, of a kind that a caller expects, and its message
    names the argument.
    """
    if not isinstance(error, TypeError | ValueError | OSError | KeyError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    inner = Path(frames[-1].filename)
    by_python = isinstance(
        error, TypeError
    ) and "() got an unexpected keyword argument" in str(error)
    if not (
        inner.is_relative_to(LIBRARY)
        or by_python
        or (inner.is_relative_to(HERE) and "wrong_values" not in inner.name)
    ):
        return False
    named = any(
        re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error))
        for name in names(case)
    )
    return named or (
        isinstance(error, OSError | ValueError) and shows_path(error, case)
    )


def shows_path(error: BaseException, case: Case) -> bool:
    """Whether a message about a file shows the path that was given: nobody then asks
    which argument it is about.
    """
    value = case.wrong.make()
    return (
        isinstance(value, str | Path)
        and len(str(value)) > 1
        and str(value) in str(error)
    )


# A message may name an argument by a plural, or by its part.
ALSO: dict[str, tuple[str, ...]] = {
    "updates": ("gradient", "gradients", "grads"),
    "args": ("x", "arguments"),
    "f": ("function",),
}


def names(case: Case) -> tuple[str, ...]:
    """What a message may call the argument."""
    entries = ()
    valid = case.call.arguments.get(case.argument)
    if case.wrong.spoilt and isinstance(valid, Mapping):
        entries = tuple(str(name) for name in valid)
    if case.wrong.spoilt and hasattr(valid, "_fields"):
        entries = tuple(valid._fields)
    # A check is told what its argument is called.
    told = (
        (str(case.call.arguments["name"]),)
        if ".check_" in case.call.name and "name" in case.call.arguments
        else ()
    )
    return (case.argument, *ALSO.get(case.argument, ()), *entries, *told)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and without a word on the terminal."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises NeverEndsError in what takes longer."""

    def stop(*_: Any) -> None:
        raise NeverEndsError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- Does it make sense that a value was accepted?

NOT_NUMBERS = {
    *(
        "text",
        "empty text",
        "bytes",
        "object",
        "empty dict",
        "dict",
        "dict of lists",
        "list of texts",
        "list of None",
    ),
    *(
        "set",
        "set of texts",
        "array of texts",
        "array of objects",
        "array of dates",
        "structured array",
        "class",
    ),
    *(
        "function without arguments",
        "function of five arguments",
        "function that gives None",
        "ragged list",
    ),
    *(
        "function that gives a text",
        "function that gives an object",
        "function that gives an integer",
    ),
    *(
        "optax constructor",
        "rule",
        "generator",
        "slice",
        "ellipsis",
        "path",
        "date",
        "module",
        "namespace",
    ),
    *("other NamedTuple", "empty Batch", "shape without values", "keys", "key"),
}
FUNCTIONS = {
    *(
        "class",
        "function without arguments",
        "function of five arguments",
        "function that gives None",
    ),
    *(
        "function that gives a text",
        "function that gives an object",
        "function that gives an integer",
        "optax constructor",
    ),
}
SCALARS = {
    "-1",
    "0",
    "1.5",
    "-2.5",
    "3",
    "2**63",
    "-2**63",
    "10**400",
    "1e308",
    "fraction",
    "decimal",
    "NumPy float",
    "NumPy integer",
}
WHOLE = {"-1", "0", "3", "2**63", "-2**63", "10**400", "NumPy integer"}
NEGATIVE = {"-1", "-2.5", "-2**63", "-inf"}
# Integers that may be negative, or real numbers.
ANY_SIGN = {"seed", "axis", "value", "offset", "at", "step", "x", "count", "f_min"}
# Functions are called later, or never: what they give cannot be known.
# Any pytree of numbers has parameters, and any value a name that is not known; a
# result's other fields are not read.
ANYTHING: set[str] = {
    *(
        "models.count_parameters.params",
        "models.describe.params",
        "models.list_parameters.params",
    ),
    *(
        "models.check_same_architecture.params",
        "models.check_same_architecture.expected",
        "naming.known_names.name",
    ),
    *(
        "objectives.l1_penalty().params",
        "objectives.l2_penalty().params",
    ),
    *("update_rules.evaluation_params.state", "update_rules.evaluation_params.params"),
}


def makes_sense(case: Case, value: Any, result: Any) -> bool:
    """Whether a caller who gave this value would be content that it was accepted.

    Yes where the value equals the valid one, or is of the kind that the signature asks
      for: an integer for a float, a list
    for an array, NumPy's numbers for Python's. A NaN in data has to come out as a NaN;
    a wrong type never makes sense.
    """
    label, call = case.wrong.label, case.call
    parameter = inspect.signature(call.function).parameters[case.argument]
    valid = call.arguments.get(case.argument, parameter.default)
    if call.name.startswith("update_rules.") and call.name.endswith("().init"):
        return True  # Any pytree of numbers can be params.
    if f"{call.name}.{case.argument}" in ANYTHING or same(value, valid):
        return True
    allowed = kinds(parameter.annotation, valid)
    if label == "None":
        return "None" in allowed or parameter.default is None or "any" in allowed
    if case.wrong.spoilt:
        return spoilt_makes_sense(case, value, result)
    if "any" in allowed:
        return True
    if label in FUNCTIONS and "function" in allowed:
        return True
    if label in ("text", "empty text") and "str" in allowed:
        return True
    if label == "path" and "path" in allowed:
        return True
    if label in ("True", "False") and "bool" in allowed:
        return True
    if label in ("key", "old key") and "key" in allowed:
        return True
    if label == "rule" and "rule" in allowed:
        return True
    if label in ("empty dict", "dict", "dict of lists") and "mapping" in allowed:
        return True
    sequences = (
        "empty list",
        "list",
        "list of texts",
        "empty tuple",
        "tuple",
        "range",
        "list of None",
        "generator",
    )
    if label in sequences and "sequence" in allowed:
        return label != "list of None"
    if label in NOT_NUMBERS:
        return False
    if "array" in allowed:
        return (
            label not in ("array with NaN", "NaN", "all NaN")
            or holds_nan(result)
            or result is None
            or callable(result)
        )
    if label in SCALARS:
        if label in NEGATIVE and case.argument not in ANY_SIGN:
            return False
        return "float" in allowed or ("int" in allowed and label in WHOLE)
    return False


def spoilt_makes_sense(case: Case, value: Any, result: Any) -> bool:
    """Of the valid value changed in one place: a wrong type within never makes sense,
    another value may.
    """
    label = case.wrong.label.removeprefix("spoilt: ")
    bad = ("None", "text", "object", "dict", "array of texts", "function")
    if (
        any(label.endswith(f" {word}") for word in bad)
        and "field with None" not in label
    ):
        return False
    return label not in ("as texts", "as objects", "as bytes", "all NaN") or holds_nan(
        result
    )


def holds_nan(result: Any) -> bool:
    """Whether a result has a NaN anywhere."""
    for leaf in jax.tree.leaves(result):
        with contextlib.suppress(TypeError, ValueError):
            if np.isnan(np.asarray(leaf, complex)).any():
                return True
    return False


def same(value: Any, valid: Any) -> bool:
    """Whether two values are equal, whatever their types: 2 and 2.0."""
    if value is valid:
        return True
    if isinstance(value, bool) != isinstance(valid, bool):
        return False
    with contextlib.suppress(Exception):
        if type(value) in (list, tuple) and type(valid) in (list, tuple):
            return list(value) == list(valid)
        one, two = np.asarray(value), np.asarray(valid)
        return (
            one.shape == two.shape
            and one.dtype.kind in "iufb"
            and two.dtype.kind in "iufb"
            and bool((one == two).all())
        )
    return False


def kinds(annotation: Any, valid: Any) -> set[str]:
    """What an annotation allows, in words."""
    text = str(annotation)
    found: set[str] = set()
    if annotation is inspect.Parameter.empty or annotation is Any:
        return kinds_of_value(valid)
    for part in parts_of(annotation):
        found |= _kinds_of_part(part, valid)
    return found or ({"any"} if "Any" in text else kinds_of_value(valid))


def parts_of(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, pytypes.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _kinds_of_part(part: Any, valid: Any) -> set[str]:
    text = str(part)
    if part in (None, type(None)):
        return {"None"}
    if part is bool or part is str or part is int or part is float:
        return {part.__name__}
    if part is Path:
        return {"path", "str"}
    if "Callable" in text.partition("[")[0]:
        return {"function"}
    if "Literal" in text or part is bytes:
        return set()
    if part is Any:
        return kinds_of_value(valid)
    if part is jax.Array and is_key(valid):
        return {"key"}
    with_shape = text.startswith("<class 'jaxtyping.")
    if with_shape or (
        any(word in text for word in ("Array", "ndarray", "generic", "number"))
        and "[" not in text.partition("Array")[0]
    ):
        return (
            {"array"}
            if not isinstance(valid, int | float) or isinstance(valid, bool)
            else {"float"}
        )
    if any(
        word in text.partition("[")[0]
        for word in ("Sequence", "Iterable", "list", "tuple")
    ):
        return {"sequence"}
    if any(word in text.partition("[")[0] for word in ("Mapping", "dict")):
        return {"mapping"}
    if "GradientTransformation" in text:
        return {"rule"}
    return set()


def kinds_of_value(valid: Any) -> set[str]:
    """The kinds of a valid value, where the signature allows anything."""
    if is_key(valid):
        return {"key"}
    if callable(valid) and not hasattr(valid, "_fields"):
        return {"function"}
    if isinstance(valid, bool):
        return {"bool"}
    if isinstance(valid, str):
        return {"str"}
    if isinstance(valid, int | float | np.ndarray | jax.Array):
        return {"array"}
    if isinstance(valid, Mapping):
        return {"mapping"}
    if isinstance(valid, list | tuple) and not hasattr(valid, "_fields"):
        return {"sequence", "array"}
    return set()


def is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jax.numpy.issubdtype(
        value.dtype, jax.dtypes.prng_key
    )
