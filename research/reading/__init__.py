"""Safe reading of files from untrusted sources: limited size, strict JSON."""

import json
import math
import os
import re
import reprlib
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Nesting levels of lists and objects; Python's JSON functions fail at about 1000.
DEEPEST = 64
MOST_DIGITS = (
    310  # Of an integer, including its sign; a longer one does not fit into a float.
)
NOT_FINITE = (
    "$float"  # JSON has no NaN or infinity; they are written as {"$float": "nan"}.
)
_NAMES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPEN, _CLOSE = frozenset(b"[{"), frozenset(b"]}")
_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
_KINDS[type(None)] = "None"


class Is(NamedTuple):
    """Requirement for `check_shape`: the value has one of the types and passes a test.

    Attributes:
      kinds: Accepted types. If float is one of them, integers are accepted, too.
      test: Function that takes the value and returns True if the value is valid.
      words: Requirement in words. An error message puts these words after "it must be".
    """

    kinds: tuple[type, ...]
    test: Callable[[Any], bool]
    words: str


NUMBER, TEXT = (int, float), str
PERHAPS = (int, float, type(None))


def read_bytes(path: str | Path, most: int) -> bytes:
    """Read a regular file that has at most `most` bytes.

    Args:
      path: Path of the file.
      most: Maximum size in bytes.
    Returns:
      Content of the file.
    Raises:
      ValueError: The file is a pipe or a device, is too large, or has an invalid name.
      OSError: The file cannot be read.
    """
    size = check_regular(path)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise TypeError(
            "most must be a number of bytes, an integer; got "
            f"most={reprlib.repr(most)}."
        )
    with open(path, "rb") as file:
        data = file.read(min(most, size) + 1)
    if max(len(data), size) > most:
        raise ValueError(
            f"{path} has {max(len(data), size):,} bytes; at most {most:,} are accepted."
        )
    return data


def check_regular(path: str | Path) -> int:
    """Check that a path is not a pipe or a device, from which reading may never end.

    A folder is accepted here. A later call of `open` raises an error for a folder.

    Returns:
      Size of the file in bytes.
    Raises:
      ValueError: The file is a pipe or a device, or its name is invalid.
      OSError: The file does not exist.
    """
    _check_path(path)
    try:
        status = os.stat(path)
    except ValueError as error:  # The name contains a NUL byte.
        raise ValueError(
            f"{str(path)!r} cannot be the name of a file: {error}."
        ) from error
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError(f"{path} is a pipe or a device; give a regular file.")
    return status.st_size


def _check_path(path: Any) -> None:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            "path must be a path, a str or a pathlib.Path; got "
            f"path={reprlib.repr(path)}."
        )


def parse_json(data: bytes) -> Any:
    """Parse JSON from an untrusted source.

    The text must be UTF-8, with unique names in each object, numbers that fit into a
    float, and at most 64 nesting levels. The objects {"$float": "nan"}, {"$float":
    "inf"} and {"$float": "-inf"} become the floats NaN, ∞ and -∞. Any other object with
    the name "$float" is an error. The words NaN and Infinity without quotes are also an
    error, because they are not valid JSON.

    Args:
      data: JSON text, as bytes.
    Returns:
      The value. JSON objects become dicts, and JSON arrays become lists.
    Raises:
      ValueError: The text is invalid. The message gives the reason, and the position in
        the text if the position is known.
    Example:
      >>> parse_json(b'{"loss": {"$float": "inf"}, "sizes": [64, 10]}')
      {'loss': inf, 'sizes': [64, 10]}
      >>> parse_json(b'{"seed": 1, "seed": 2}')
      Traceback (most recent call last):
      ValueError: the name 'seed' appears twice in one object.
    """
    if not isinstance(data, bytes):
        raise TypeError(
            "data must be bytes, such as the content of a file; got "
            f"data={reprlib.repr(data)}."
        )
    try:
        text = data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not valid UTF-8.") from error
    depth = _depth(data)
    if depth > DEEPEST:
        raise ValueError(
            f"lists and objects are nested {depth:,} deep; at most {DEEPEST} levels "
            "are accepted."
        )
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error}).") from error
    except (
        RecursionError
    ):  # The call stack was already so deep that 64 levels are too many.
        raise ValueError("lists and objects are nested too deep.") from None


def _depth(data: bytes) -> int:
    """Return how deep brackets are nested outside of strings, without recursion.

    The result is 0 if `data` has at most 64 opening brackets, which cannot be too deep.
    Otherwise, for invalid JSON, the result is at least the true depth.
    """
    depth = deepest = 0
    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return 0
    for byte in re.sub(rb"[^\[\]{}]+", b"", _TEXT.sub(b"", data)):
        depth += 1 if byte in _OPEN else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) < len(pairs):
        names: set[str] = set()
        twice = next(name for name, _ in pairs if name in names or names.add(name))
        raise ValueError(f"the name {reprlib.repr(twice)} appears twice in one object.")
    if NOT_FINITE not in found:
        return found
    name = found[NOT_FINITE]
    if len(found) > 1 or not isinstance(name, str) or name not in _NAMES:
        raise ValueError(
            f"{reprlib.repr(found)} is not a number: the value of {NOT_FINITE!r} must "
            "be nan, inf or -inf."
        )
    return _NAMES[name]


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS or not math.isfinite(float(text)):
        raise ValueError(f"the number {_cut(text)} is larger than a float can be.")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_cut(text)} is larger than a float can be.")
    return value


def _constant(text: str) -> Any:
    raise ValueError(
        f"{text} is not valid JSON; write {{{NOT_FINITE!r}: ...}} instead."
    )


def _cut(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:12]}... of {len(text):,} characters"


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_constant,
)


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Check the types and entries of a value that was read from a file.

    A shape describes the required structure of the value. It has one of these forms:

    - a type or a tuple of types: the value has this type or one of these types. True
      and False do not count as numbers.
    - [shape]: a list in which every item has this shape.
    - {name: shape}: a dict with at least these entries. A "?" at the end of a name
      means that the entry may be missing: {"seed?": int} accepts {} and {"seed": 1}.
    - {str: shape}: a dict in which every entry has this shape.
    - an `Is`: one or several types with an additional test.

    Args:
      value: Value, such as a result of `parse_json`.
      shape: Required shape.
      where: Name of the value, for messages.
    Raises:
      ValueError: The value has another shape. The message names the wrong entry, and
        shows the value of this entry.
    Example:
      >>> check_shape(
      ...     {"seed": 1, "rates": [0.1, "fast"]},
      ...     {"seed": int, "rates": [(int, float)]},
      ...     "config",
      ... )
      Traceback (most recent call last):
      ValueError: config.rates[1] is 'fast'; it must be a number.
    """
    if not isinstance(where, str):
        raise TypeError(
            "The argument `where` must be a str, the name of the value; got "
            f"where={reprlib.repr(where)}."
        )
    if isinstance(shape, list):
        _check_kind(value, (list,), where)
        for index, item in enumerate(value):
            check_shape(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, Mapping):
        _check_object(value, shape, where)
    elif isinstance(shape, Is):
        _check_kind(value, shape.kinds, where, shape.words)
        if not shape.test(value):
            raise ValueError(
                f"{where} is {reprlib.repr(value)}; it must be {shape.words}."
            )
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        if not kinds or not all(isinstance(kind, type) for kind in kinds):
            raise TypeError(
                "shape must be a type, a tuple of types, a list, a dict or an Is; got "
                f"shape={reprlib.repr(shape)}."
            )
        _check_kind(value, shape if isinstance(shape, tuple) else (shape,), where)


def _check_object(value: Any, shape: Mapping[Any, Any], where: str) -> None:
    _check_kind(value, (dict,), where)
    for name, inner in shape.items():
        if name is str:
            for own, item in value.items():
                check_shape(item, inner, f"{where}[{_name(own)}]")
        elif name.removesuffix("?") in value:
            own = name.removesuffix("?")
            check_shape(value[own], inner, f"{where}.{own}")
        elif not name.endswith("?"):
            raise ValueError(f"{where} has no entry {name!r}.")


def _check_kind(
    value: Any, kinds: tuple[type, ...], where: str, words: str = ""
) -> None:
    fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(
            f"{where} is {reprlib.repr(value)}; it must be {words or _wanted(kinds)}."
        )


def _wanted(kinds: tuple[type, ...]) -> str:
    """Return the types in words; "an integer" is omitted if any number is allowed."""
    return " or ".join(
        _KINDS[kind] for kind in kinds if kind is not int or float not in kinds
    )


def _name(text: str) -> str:
    return reprlib.repr(text)
