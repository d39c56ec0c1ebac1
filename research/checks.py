"""Checks of arguments, one for each kind of value.

Public functions call these checks first. The error message of a check names the
argument, shows its value and says what to pass instead. Only concrete values are
checked. Tracers are accepted, and a check adds no operation to a compiled program. An
array of JAX whose memory was given away raises RuntimeError (`check_not_deleted`). This
module does not import JAX, so that modules that use only NumPy need not load JAX.
"""

import inspect
import math
import numbers
import operator
import os
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from types import FunctionType
from typing import Any

import numpy as np

_LONGEST = 120  # Maximum number of characters of a value in a message.
_FLOAT16, _FLOAT32, _FLOAT64 = (type(np.dtype(f"float{n}")) for n in (16, 32, 64))
_LARGEST_ITEMS = {"f": 8, "c": 16}  # Bytes of JAX's largest numbers, by kind.
_LARGEST_FAST = 2**31  # Smaller integers need no test of whether they fit a float.


def is_traced(value: Any) -> bool:
    """Return whether a value is a JAX tracer.

    A tracer has a shape and a dtype, but no values.

    Example:
      >>> is_traced(1.0)
      False
    """
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def check_not_deleted(name: str, value: Any) -> None:
    """Raise RuntimeError if a value is an array of JAX whose numbers were deleted.

    The numbers are deleted if the array's delete() was called, or if a compiled
    function with donate_argnums took the array's memory. The checks of numbers, keys
    and pytrees in this module call this check. `name` is the name of the argument, for
    the message.
    """
    if _is_deleted(value):
        raise RuntimeError(
            f"{name} must be an array with numbers; got a deleted array of "
            f"{value.dtype}, shape {value.shape}. Its delete() was called, or a "
            "compiled function with donate_argnums took its memory. Give that function "
            "a copy: jnp.copy(...)."
        )


def check_leaves_not_deleted(name: str, tree: Any) -> None:
    """Raise RuntimeError if a leaf of a pytree is a deleted array of JAX.

    The docstring of `check_not_deleted` says when an array is deleted. `name` is the
    name of the argument, for the message.

    Example:
      >>> check_leaves_not_deleted("params", {"w": np.ones(2)})
    """
    jax = sys.modules.get("jax")  # Without it, no leaf is an array of JAX.
    if jax is not None and any(map(_is_deleted, jax.tree.leaves(tree))):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            check_not_deleted(name + jax.tree_util.keystr(path), leaf)


def refuse_traced(caller: str, **values: Any) -> None:
    """Raise TypeError if an argument is traced, or holds a traced value.

    A function that needs the values of its arguments calls this check. If such a
    function is called under `jax.jit`, `jax.vmap` or `jax.grad`, its arguments may be
    tracers, which have no values. Such arguments are called traced. The check also
    searches lists, tuples and dicts for tracers.

    Args:
      caller: Name of the function that calls this check, for the message.
      values: The arguments to check, each passed by its name.
    Raises:
      TypeError: A value is traced. The message names the argument.
    Example:
      >>> import jax
      >>> jax.jit(lambda x: refuse_traced("enclose", x=x))(1.0)
      Traceback (most recent call last):
      TypeError: enclose needs concrete numbers and cannot run under jit, vmap or ...
    """
    for name, value in values.items():
        if _holds_traced(value):
            raise TypeError(
                f"{caller} needs concrete numbers and cannot run under jit, vmap or "
                f"grad; {name} is traced. Call it outside."
            )


def is_array(value: Any) -> bool:
    """Return whether a value has a dtype and a shape, as arrays and NumPy numbers do.

    Example:
      >>> is_array(np.ones(2)), is_array([1.0]), is_array(np)
      (True, False, False)
    """
    return isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype")


def is_float_array(value: Any) -> bool:
    """Return whether a value is an array or tracer of float16, float32 or float64.

    This is a quick test for the most common dtypes. An array of another floating dtype,
    such as bfloat16, gives False.

    Example:
      >>> is_float_array(np.ones(2)), is_float_array(np.ones(2, int))
      (True, False)
    """
    dtype = getattr(value, "dtype", None)
    return (
        type(dtype) is _FLOAT64 or type(dtype) is _FLOAT32 or type(dtype) is _FLOAT16
    ) and isinstance(getattr(value, "shape", None), tuple)


def shown(value: Any) -> str:
    """Return a text that describes a value in an error message.

    For an array of rank one or more, the text has the dtype and the shape. For any
    other value, the text is the repr of the value. If the repr has more than 120
    characters, the text has the first 120 of them, then "..." and the type of the
    value. If the repr raises an error, the text names only the type.

    Example:
      >>> shown(np.zeros((2, 3))), shown("a" * 200)[-10:]
      ('an array of float64[2, 3]', '.. (a str)')
    """
    if is_array(value) and np.shape(value):
        # The dtype of a text would be a code, such as <U1.
        is_text = getattr(value.dtype, "kind", "") == "U"
        return f"an array of {'text' if is_text else value.dtype}{list(value.shape)}"
    try:
        text = " ".join(repr(value).split())  # The repr of a key has two lines.
    except (
        Exception
    ):  # A broken __repr__ of another package, or an integer of too many digits.
        return f"a {type(value).__name__}"
    return (
        text
        if len(text) <= _LONGEST
        else f"{text[:_LONGEST]}... (a {type(value).__name__})"
    )


def check_number(
    name: str,
    value: Any,
    *,
    below: float = math.inf,
    positive: bool = False,
    integer: bool = False,
    signed: bool = False,
) -> None:
    """Raise an error unless a value is a finite number in the allowed range.

    A tracer is accepted without a check.

    Args:
      name, value: Name and value of the argument. The value may be a Python number, a
        NumPy number, or an array of shape ().
      below: Upper limit. The value must be less than this limit.
      positive: If True, 0 is refused.
      integer: If True, only integers are accepted. The float 2.0 is not an integer.
      signed: If True, negative numbers are accepted, and there is no lower limit. If
        False, the value must be at least 0.
    Raises:
      TypeError: value is not a scalar number, or it is not an integer although
        `integer` is True.
      ValueError: value is outside the range, NaN or infinite.
    Example:
      >>> check_number("b1", 1.5, below=1.0)
      Traceback (most recent call last):
      ValueError: b1 must be a finite number, at least 0 and below 1; got b1=1.5.
    """
    if (
        (type(value) is float and not integer and 0.0 < value < math.inf)
        or (type(value) is int and integer and 0 < value < _LARGEST_FAST)
    ) and value < below:
        return
    if is_traced(value):
        return
    limits = "" if signed else ", positive" if positive else ", at least 0"
    limits += f" and below {below:g}" if below < math.inf else ""
    kind = "an integer" if integer else "a finite number"
    check_not_deleted(name, value)
    message = f"{name} must be {kind}{limits}; got {name}={shown(value)}."
    array = _scalar(value)
    if array is None:
        if is_array(value) and np.shape(value):
            message += (
                " Pass one number; for several values, call the function for each of "
                "them, or use jax.vmap over the constructor of a rule."
            )
        elif isinstance(value, numbers.Number) and hasattr(value, "__float__"):
            # A Decimal looks like an accepted number.
            message += f" It is a {type(value).__name__}; pass float({name})."
        raise TypeError(message)
    if integer and not isinstance(array, int) and array.dtype.kind not in "iu":
        raise TypeError(message)
    try:
        number = float(array)
    except OverflowError:
        raise ValueError(f"{message} It is too large for a float.") from None
    inside = math.isfinite(number) and (signed or number >= 0.0) and number < below
    if not inside or (positive and number == 0.0):
        raise ValueError(message)


def check_real(name: str, value: Any) -> None:
    """Raise an error if a value is not a single real number, or is infinite.

    Use this check if the caller checks the range afterwards. NaN passes this check, but
    not the check of the range: for NaN, a comparison such as `value > 0` is False. A
    tracer is accepted, too.

    Raises:
      TypeError: value is not a number.
      ValueError: value is infinite.
    Example:
      >>> check_real("delta", "1")
      Traceback (most recent call last):
      TypeError: delta must be a number; got delta='1'.
    """
    if (type(value) is float and math.isfinite(value)) or is_traced(value):
        return
    check_not_deleted(name, value)
    array = _scalar(value)
    if array is None:
        raise TypeError(f"{name} must be a number; got {name}={shown(value)}.")
    try:
        if math.isinf(float(array)):
            raise OverflowError
    except OverflowError:
        raise ValueError(
            f"{name} must be a finite number; got {name}={shown(value)}."
        ) from None


def check_count(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise an error unless a value is an integer in [least, most].

    Args:
      name, value: Name and value of the argument. The value may be a Python integer, a
        NumPy integer, an array of shape () or a tracer. A tracer is accepted without a
        check.
      least, most: Limits, both inclusive. most=None means that there is no upper limit.
    Raises:
      ValueError: The value is not an integer in [least, most]. The message shows the
        value.
    Example:
      >>> check_count("num_steps", 0)
      Traceback (most recent call last):
      ValueError: num_steps must be a positive integer; got num_steps=0.
    """
    if is_traced(value):
        return
    check_not_deleted(name, value)
    if (
        is_integer(value)
        and operator.index(value) >= least
        and (most is None or operator.index(value) <= most)
    ):
        return
    wanted = {0: "an integer of at least 0", 1: "a positive integer"}.get(
        least, f"an integer of at least {least}"
    )
    wanted += "" if most is None else f", at most {most}"
    raise ValueError(f"{name} must be {wanted}; got {name}={shown(value)}.")


def check_distinct(name: str, values: Sequence[Any]) -> None:
    """Raise an error if a sequence contains a value twice.

    Args:
      name: Name of the argument that is checked, for the message.
      values: The argument that is checked, a tuple or list.
    Raises:
      ValueError: A value occurs twice.
      TypeError: values is not a tuple or list.
    Example:
      >>> check_distinct("rule", ("adam", "lion", "adam"))
      Traceback (most recent call last):
      ValueError: rule must name 'adam' only once; got rule=('adam', 'lion', 'adam').
    """
    check_sequence(name, values)
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(
                f"{name} must name {value!r} only once; got {name}={shown(values)}."
            )


def check_share(name: str, value: Any, example: float = 0.5) -> None:
    """Raise an error unless a value is a number above 0 and below 1.

    Args:
      name, value: Name and value of the argument.
      example: A sensible value, for the message.
    Raises:
      TypeError: The value is not an int, a float or a number of NumPy. For example, a
        Fraction is refused.
      ValueError: The value is not above 0 and below 1.
    Example:
      >>> check_share("level", 95, 0.95)
      Traceback (most recent call last):
      ValueError: level must lie between 0 and 1, such as 0.95; got level=95.
    """
    between = f"between 0 and 1, such as {example:g}; got {name}={shown(value)}."
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool | np.timedelta64) or not is_number:
        raise TypeError(f"{name} must be a float {between}")
    if not 0 < value < 1:  # NaN fails too.
        raise ValueError(f"{name} must lie {between}")


def is_integer(value: Any) -> bool:
    """Return whether a value is a Python or NumPy integer, or an array of one integer.

    An array of one integer must have shape (). True and False are not integers here.

    Example:
      >>> is_integer(np.int8(2)), is_integer(True), is_integer(2.0)
      (True, False, False)
    """
    if isinstance(value, bool | np.bool_ | np.timedelta64):
        return False
    if isinstance(value, numbers.Integral):
        return True
    return (
        is_array(value)
        and getattr(value.dtype, "kind", "") in ("i", "u")
        and np.shape(value) == ()
    )


def check_flag(name: str, value: Any) -> None:
    """Raise an error unless a value is True or False. A tracer is accepted.

    Raises:
      TypeError: The value is neither True nor False.
    Example:
      >>> check_flag("replacement", "no")
      Traceback (most recent call last):
      TypeError: replacement must be True or False; got replacement='no'.
    """
    if not isinstance(value, bool | np.bool_) and not is_traced(value):
        raise TypeError(f"{name} must be True or False; got {name}={shown(value)}.")


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise an error unless a value is one of the known names.

    A value that is not a str always raises an error.

    Args:
      name, value: Name and value of the argument.
      known: The known names.
    Raises:
      ValueError: The value is not one of the names. The message lists the names.
    Example:
      >>> check_choice("mode", ["forward"], ("forward", "reverse"))
      Traceback (most recent call last):
      ValueError: mode must be one of forward, reverse; got mode=['forward'].
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f"{name} must be one of {', '.join(known)}; got {name}={shown(value)}."
        )


def check_text(name: str, value: Any) -> None:
    """Raise an error unless a value is a str.

    Raises:
      TypeError: The value is not a str.
    Example:
      >>> check_text("name", b"adam")
      Traceback (most recent call last):
      TypeError: name must be a str; got name=b'adam'.
    """
    check_instance(name, value, str)


def check_path(name: str, value: Any) -> None:
    """Raise an error unless a value can be the path of a file or folder.

    Raises:
      TypeError: The value is neither a str nor a path.
      ValueError: The path is empty or contains a NUL character.
    Example:
      >>> check_path("folder", 3)
      Traceback (most recent call last):
      TypeError: folder must be a path, a str or a pathlib.Path; got folder=3.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(
            f"{name} must be a path, a str or a pathlib.Path; got "
            f"{name}={shown(value)}."
        )
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise ValueError(
            f"{name} must be a path that is not empty and contains no NUL character; "
            f"got {name}={shown(value)}."
        )


def check_callable(name: str, value: Any, *arguments: str, hint: str = "") -> None:
    """Raise an error unless a value is a function that accepts the given arguments.

    Args:
      name, value: Name and value of the argument.
      arguments: Names of the positional arguments, for the message. The function must
        accept one positional argument for each of these names, but its parameters may
        have other names. If no names are given, any callable is accepted.
      hint: Additional sentence for the message.
    Raises:
      TypeError: The value is not callable, or it cannot be called with this number of
        arguments.
    Example:
      >>> check_callable("f", 3.0, "x")
      Traceback (most recent call last):
      TypeError: f must be a function of (x); got f=3.0.
      >>> check_callable("f", lambda: 0.0, "x")
      Traceback (most recent call last):
      TypeError: f must be a function of (x); got f=<function <lambda> ...>, which ...
    """
    of = f" of ({', '.join(arguments)})" if arguments else ""
    hint = f" {hint}" if hint else ""
    if not callable(value):
        raise TypeError(
            f"{name} must be a function{of}; got {name}={shown(value)}.{hint}"
        )
    if arguments and (signature := _misfit(value, *arguments)):
        raise TypeError(
            f"{name} must be a function{of}; got {name}={shown(value)}, which takes "
            f"{_parameters(signature)}.{hint}"
        )


def takes_others(value: Any, *args: Any, **kwargs: Any) -> bool:
    """Return whether the wrapper of a decorated function accepts `args` and `kwargs`.

    A wrapper is the function that a decorator returns, here `value`. The wrapper may
    have other parameters than the decorated function. But `inspect.signature(value)`
    shows the parameters of the decorated function. In the example, `steep` is the
    wrapper of `line`. `steep` takes one argument and calls `line` with two.

    Call `takes_others` if the arguments do not fit `inspect.signature(value)`. In two
    cases, the result is False for all `args` and `kwargs`:

    - `value` is not a wrapper made with `functools.wraps`.
    - The wrapper has no parameters except *args and **kwargs. Such a wrapper is assumed
      to pass its arguments on unchanged. So arguments that do not fit the decorated
      function do not fit the wrapper either.

    Example:
      >>> import functools
      >>> def line(t, slope):
      ...     return slope * t
      >>> @functools.wraps(line)
      ... def steep(t):
      ...     return line(t, 9.0)
      >>> takes_others(steep, 0), takes_others(line, 0)
      (True, False)
    """
    if not (inspect.isfunction(value) and hasattr(value, "__wrapped__")):
        return False
    signature = inspect.signature(value, follow_wrapped=False)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    # A decorator that takes anything passes it on unchanged, as far as we know.
    if kinds <= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return False
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def check_call(caller: str, f: Any, count: int) -> None:
    """Raise an error unless f is a function that can be called with `count` arguments.

    This check is for functions such as `cost(f, *args)`, which take f first and then
    the arguments of f.

    Args:
      caller: Name of the function that takes f and its arguments, for the message.
      f: The function.
      count: Number of positional arguments that f gets.
    Raises:
      TypeError: f is not callable, or it cannot be called with `count` arguments.
    Example:
      >>> check_call("cost", lambda x: x, 0)
      Traceback (most recent call last):
      TypeError: cost needs the arguments of f after f; got none, and f takes (x).
    """
    hint = "Pass the function f, not its value f(x)." if not callable(f) else ""
    check_callable("f", f, *(f"argument {k}" for k in range(count)), hint=hint)
    if not count and (signature := _misfit(f)):
        raise TypeError(
            f"{caller} needs the arguments of f after f; got none, and f takes "
            f"{_parameters(signature)}."
        )


def check_instance(
    name: str, value: Any, kind: type | tuple[type, ...], hint: str = ""
) -> None:
    """Raise an error unless a value is an instance of a class.

    Args:
      name, value: Name and value of the argument.
      kind: The class, or a tuple of classes.
      hint: Additional sentence for the message. It should say how to make an instance.
    Raises:
      TypeError: The value is not an instance.
    Example:
      >>> check_instance("sampler", 3, range, "Make one by range(3).")
      Traceback (most recent call last):
      TypeError: sampler must be a range; got sampler=3. Make one by range(3).
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(
            "None" if one is type(None) else f"a {one.__name__}" for one in kinds
        )
        raise TypeError(
            f"{name} must be {wanted}; got "
            f"{name}={shown(value)}.{' ' if hint else ''}{hint}"
        )


def check_mapping(name: str, value: Any, of: str = "") -> None:
    """Raise an error unless a value is a mapping whose keys are strings.

    Args:
      name, value: Name and value of the argument.
      of: Description of keys and values, for the message.
    Raises:
      TypeError: The value is not a mapping, or a key is not a string.
    Example:
      >>> check_mapping("cells", [1, 2], "names to arrays")
      Traceback (most recent call last):
      TypeError: cells must be a dict of names to arrays; got cells=[1, 2].
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(
            f"{name} must be a dict{f' of {of}' if of else ''}; got "
            f"{name}={shown(value)}."
        )


def check_sequence(
    name: str, value: Any, of: str = "", kind: type | tuple[type, ...] = object
) -> None:
    """Raise an error unless a value is a sequence or an array of rank one or more.

    Lists, tuples and ranges are sequences. A str, a set or a dict is not accepted.

    Args:
      name, value: Name and value of the argument.
      of: Description of the entries, for the message.
      kind: Required type of each entry. By default, any type is accepted.
    Raises:
      TypeError: The value is not a sequence, or an entry is not of the type `kind`.
    Example:
      >>> check_sequence("texts", "a b", "texts", str)
      Traceback (most recent call last):
      TypeError: texts must be a list of texts; got texts='a b'.
    """
    wanted = f"{name} must be a list{f' of {of}' if of else ''}"
    check_not_deleted(name, value)
    has_entries = (
        is_array(value) and hasattr(value, "__array__") and len(np.shape(value)) > 0
    )
    if isinstance(value, str | bytes | Mapping | Set) or not (
        isinstance(value, Sequence) or has_entries
    ):
        raise TypeError(f"{wanted}; got {name}={shown(value)}.")
    if kind is not object:
        for index, entry in enumerate(value):
            if not isinstance(entry, kind):
                raise TypeError(f"{wanted}; got {name}[{index}]={shown(entry)}.")


def check_key(name: str, value: Any) -> None:
    """Raise an error unless a value is a key of `jax.random`. A tracer is accepted.

    Keys of both kinds are accepted: those of `jax.random.key` and those of
    `jax.random.PRNGKey`.

    Raises:
      TypeError: The value is not a key, or is an array of several keys.
    Example:
      >>> check_key("key", 0)
      Traceback (most recent call last):
      TypeError: key must be a key, such as jax.random.key(0); got key=0.
    """
    if is_traced(value):
        return
    check_not_deleted(name, value)
    dtype, shape = (
        (str(value.dtype), np.shape(value)) if is_array(value) else ("", None)
    )
    typed = dtype.startswith("key<") and shape == ()
    if not typed and not (dtype == "uint32" and shape in ((2,), (4,))):
        several = (
            " Pass split keys one at a time, or use jax.vmap."
            if dtype.startswith("key<")
            else ""
        )
        raise TypeError(
            f"{name} must be a key, such as jax.random.key(0); got "
            f"{name}={shown(value)}.{several}"
        )


def check_numbers(
    name: str,
    value: Any,
    *,
    ndim: int | None = None,
    kinds: str = "biuf",
    wanted: str = "",
) -> None:
    """Raise an error unless a value is an array of numbers or can be converted to one.

    By default, the numbers must be real. For a tracer, only dtype and rank are checked.

    Args:
      name, value: Name and value of the argument: an array, a number, or lists of
        numbers.
      ndim: Required rank. None means that any rank is accepted.
      kinds: Accepted kinds of dtypes, as letters of NumPy's `dtype.kind`: b for
        booleans, i and u for signed and unsigned integers, f for floats, c for complex
        numbers.
      wanted: Description of the argument for the message. "" means that the description
        is derived from `kinds`.
    Raises:
      TypeError: The value is not an array of these kinds, or it contains a masked entry
        or a Python integer above 2^63 - 1.
      ValueError: The rank differs from `ndim`.
    Example:
      >>> check_numbers("costs", ["a"])
      Traceback (most recent call last):
      TypeError: costs must be an array of real numbers; got costs=['a'].
    """
    wanted = wanted or (
        "an array of integers" if "f" not in kinds else "an array of real numbers"
    )
    check_not_deleted(name, value)
    array = value
    given = is_array(value)
    if isinstance(value, np.ma.MaskedArray) and (fault := _masked_entries(value)):
        raise TypeError(f"{name} must be {wanted}; got {name}={shown(value)}, {fault}")
    if not given:
        if isinstance(value, str | bytes | Mapping | Set) or value is None:
            raise TypeError(f"{name} must be {wanted}; got {name}={shown(value)}.")
        try:
            array = np.asarray(value)
        except (
            Exception
        ):  # Lists of unequal lengths, or any error of another package's object.
            array = np.empty(0, object)
        if array.dtype == np.uint64:  # A Python integer that does not fit into int64.
            raise TypeError(
                f"{name} must be {wanted}; got {name}={shown(value)}, which has an "
                "integer above 2^63 - 1. Pass smaller integers, or floats."
            )
    empty = (
        not given and array.size == 0 and array.dtype == np.float64
    )  # NumPy turns an empty list into floats.
    if not empty and _kind_of(array.dtype) not in kinds:
        raise TypeError(f"{name} must be {wanted}; got {name}={shown(value)}.")
    if given and not hasattr(value, "__array__") and not is_traced(value):
        raise TypeError(
            f"{name} must be {wanted}; got {name}={shown(value)}, which has no values."
        )
    if ndim is not None and len(array.shape) != ndim:
        ranks = {0: "one number, shape ()", 1: "of rank one, shape (n,)"}
        raise ValueError(
            f"{name} must be {ranks.get(ndim, f'of rank {ndim}')}; got shape "
            f"{tuple(array.shape)}."
        )


def check_tree(
    name: str,
    tree: Any,
    hint: str = "",
    *,
    for_jax: bool = True,
    needs_values: bool = True,
) -> tuple[Any, ...]:
    """Raise TypeError unless every leaf of a pytree is a number or an array of numbers.

    Tracers of numbers are accepted.

    Args:
      name: Name of the argument.
      tree: Value of the argument.
      hint: Additional sentence for the message.
      for_jax: If True, arrays that JAX does not accept are refused. If False, two kinds
        of such NumPy arrays are accepted: arrays of long doubles, and arrays in the
        byte order of another processor.
      needs_values: If True, deleted arrays of JAX are refused. Pass False if the caller
        uses only the shapes and dtypes of the leaves.
    Returns:
      A tuple with the structure of the tree, followed by the shape of each leaf. The
      tuples of two trees are equal if the trees have the same structure and shapes.
    Raises:
      TypeError: A leaf is neither a number nor an accepted array of numbers. The
        message names the first such leaf. Or JAX cannot list the leaves of the tree.
      RuntimeError: A leaf is a deleted array of JAX, and `needs_values` is True.
    Example:
      >>> check_tree("params", {"w": "one"})
      Traceback (most recent call last):
      TypeError: params must be a pytree of arrays of numbers; got params['w']='one'.
    """
    import jax

    wanted = f"{name} must be a pytree of arrays of numbers"
    try:
        leaves, structure = jax.tree.flatten(tree)
    except (SystemError, RecursionError, ValueError, TypeError) as error:
        raise TypeError(
            f"{wanted}, whose leaves JAX can list; got {name}, of which it cannot. A "
            "container must not hold itself, and the keys of a dict must have one type "
            f"that can be sorted. JAX says: {error}"
        ) from error
    if needs_values and any(map(_is_deleted, leaves)):
        check_leaves_not_deleted(name, tree)
    for place, leaf in enumerate(leaves):
        is_numeric = is_float_array(leaf) or _is_numeric(leaf)
        of_numpy = isinstance(leaf, np.ndarray | np.generic)
        fault = _fault(leaf, for_jax) if of_numpy else ""
        if not is_numeric or fault:
            path = jax.tree_util.keystr(
                jax.tree_util.tree_leaves_with_path(tree)[place][0]
            )
            reason = f", {fault}" if is_numeric else _beyond_int64(leaf)
            if not hint and hasattr(tree, "init") and hasattr(tree, "update"):
                hint = "Pass the params of a model, not an update rule."
            raise TypeError(
                f"{wanted}; got {name}{path}={shown(leaf)}{reason}"
                f"{' ' if hint else ''}{hint}"
            )
    return structure, *(np.shape(leaf) for leaf in leaves)


def check_methods(name: str, value: Any, *methods: str, hint: str = "") -> None:
    """Raise TypeError unless a value has callable attributes of the given names.

    A class is not accepted, because the caller probably meant an instance of the class.

    Args:
      name, value: Name and value of the argument.
      methods: Names of the required methods.
      hint: Additional sentence for the message. It should say how to make such a value.
    Raises:
      TypeError: A method is missing, or the value is a class.
    Example:
      >>> check_methods(
      ...     "model", 3, "init", "apply", hint="Make one by research.models.linear(3)."
      ... )
      Traceback (most recent call last):
      TypeError: model must have the functions init and apply; got model=3. Make one ...
    """
    if inspect.isclass(value) or not all(
        callable(getattr(value, method, None)) for method in methods
    ):
        hint = f" {hint}" if hint else ""
        raise TypeError(
            f"{name} must have the functions {' and '.join(methods)}; got "
            f"{name}={shown(value)}.{hint}"
        )


def check_dtype(name: str, value: Any) -> None:
    """Raise an error unless a value is a floating dtype or the name of one.

    For example, "float32" and np.float64 are accepted.

    Raises:
      TypeError: The value does not name a floating dtype.
    Example:
      >>> check_dtype("dtype", "nonsense")
      Traceback (most recent call last):
      TypeError: dtype must be the name or type of a floating dtype, such as ...
    """
    try:
        named = isinstance(value, str | type | np.dtype) or (
            not is_array(value) and isinstance(getattr(value, "dtype", None), np.dtype)
        )
        dtype = np.dtype(value) if named else None
    except (TypeError, ValueError):
        dtype = None
    if dtype is not None and _kind_of(dtype) == "f":
        return
    raise TypeError(
        f'{name} must be the name or type of a floating dtype, such as "float32"; '
        f"got {name}={shown(value)}."
    )


def _is_deleted(value: Any) -> bool:
    jax = sys.modules.get("jax")  # Without it, no value is an array of JAX.
    return (
        jax is not None
        and not is_traced(value)
        and isinstance(value, jax.Array)
        and value.is_deleted()
    )


def _holds_traced(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_traced, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_traced, value))
    return is_traced(value)


def _misfit(value: Any, *arguments: Any) -> inspect.Signature | None:
    """Return the signature of a function that does not accept the arguments.

    None means that the function accepts them, or that its signature is not known.
    """
    if _takes(value, len(arguments)):
        return None
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # Some functions written in C have no signature.
        return None
    try:
        signature.bind(*arguments)
    except TypeError:
        return None if takes_others(value, *arguments) else signature
    return None


def _takes(value: Any, count: int) -> bool:
    """Return whether a value is a plain function that surely takes `count` arguments.

    `inspect.signature` says the same, but takes 50 times as long. False means that the
    signature must be inspected.
    """
    if type(value) is not FunctionType or value.__dict__:
        return False  # Attributes such as __wrapped__ change the signature.
    code, defaults = value.__code__, value.__defaults__
    most = code.co_argcount
    least = most - len(defaults) if defaults else most
    return least <= count <= most and not code.co_kwonlyargcount


def _masked_entries(array: np.ma.MaskedArray) -> str:
    """Return how many entries are masked, and what to do, or "" if there are none."""
    count = np.ma.count_masked(array)
    advice = "Replace them by .filled(number), or leave them out."
    return f"which has {count} masked entries. {advice}" if count else ""


def _fault(array: np.ndarray | np.generic, for_jax: bool) -> str:
    """Return why an array of NumPy is not accepted, and what to do, or ""."""
    if isinstance(array, np.ma.MaskedArray) and (fault := _masked_entries(array)):
        return fault
    if not for_jax:
        return ""
    if array.dtype.itemsize > _LARGEST_ITEMS.get(array.dtype.kind, math.inf):
        return f"of dtype {array.dtype}, which JAX lacks. Convert it: .astype(float)."
    if not array.dtype.isnative:
        return (
            "whose bytes are in the order of another processor. Convert it: "
            f".astype({array.dtype.newbyteorder('=').name!r})."
        )
    return ""


def _beyond_int64(leaf: Any) -> str:
    if not isinstance(leaf, int):
        return "."
    return ", an integer of more than 64 bits. Pass a float."


def _is_numeric(leaf: Any) -> bool:
    if isinstance(leaf, bool | int | float | complex):
        return not isinstance(leaf, int) or -(2**63) <= leaf < 2**63
    if not is_array(leaf):
        return False
    return _kind_of(leaf.dtype) in "biufc" or "float0" in str(leaf.dtype)


def _scalar(value: Any) -> Any:
    """Return a Python integer or an array of shape () with a real number.

    Returns:
      None if the value is not a number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, bool | np.bool_ | np.timedelta64 | np.ma.MaskedArray):
        return None
    if isinstance(value, numbers.Real):
        return (
            np.asarray(float(value))
            if not isinstance(value, np.generic)
            else np.asarray(value)
        )
    if not is_array(value) or not hasattr(value, "__array__") or np.shape(value) != ():
        return None
    return np.asarray(value) if _kind_of(value.dtype) in "iuf" else None


def _kind_of(dtype: Any) -> str:
    """Return NumPy's one-letter kind of a dtype.

    The kind of bfloat16 and float8 is "f" here; NumPy calls them void.
    """
    if str(dtype).startswith(("bfloat16", "float8", "float4")):
        return "f"
    return getattr(dtype, "kind", "") or "?"


def _parameters(signature: inspect.Signature) -> str:
    parameters = signature.parameters.values()
    plain = (str(p.replace(annotation=p.empty)) for p in parameters)
    return f"({', '.join(plain)})"
