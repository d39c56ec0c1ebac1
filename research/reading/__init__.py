"""Files that anybody may have written: read within limits, parsed as strict JSON, and
held against a shape."""

import json
import math
import os
import re
import reprlib
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Levels of lists and objects; Python's own parser and printer fail at about a thousand.
DEEPEST = 64
MOST_DIGITS = (
    310  # Of an integer with its sign; a larger one fails wherever it meets a float.
)
NOT_FINITE = "$float"  # JSON has no NaN and no infinity: {"$float": "nan"} stands for them, in any language.
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
    """A shape for `check_shape`: a value of some types that passes a test.

    Attributes:
      kinds: The types; an integer is a number too where float is among them.
      test: value -> whether it is right.
      words: What it must be, after "it must be".
    """

    kinds: tuple[type, ...]
    test: Callable[[Any], bool]
    words: str


NUMBER, TEXT = (int, float), str
PERHAPS = (int, float, type(None))


def read_bytes(path: str | Path, most: int) -> bytes:
    """Read a file, which must be a regular one and not too large.

    Args:
      path: The file.
      most: Bytes that are read at most.
    Returns:
      Its bytes.
    Raises:
      ValueError: It is a pipe or a device, is larger, or its name cannot be one.
      OSError: It cannot be read.
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
            f"{path} has {max(len(data), size):,} bytes; at most {most:,} are read."
        )
    return data


def check_regular(path: str | Path) -> int:
    """Refuse a pipe or a device, whose reading may never end; a folder is left for
    `open` to refuse.

    Returns:
      The file's size in bytes.
    Raises:
      ValueError: It is one, or its name cannot be a file's.
      OSError: There is no such file.
    """
    _check_path(path)
    try:
        status = os.stat(path)
    except ValueError as error:  # A NUL byte in the name.
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
    """Parse JSON from anybody: UTF-8, one value of each name, numbers that a float can
    hold, and no deep nesting.

    {"$float": "nan"}, "inf" and "-inf" are the numbers of that name; NaN and Infinity,
    as JavaScript writes them, are no JSON. An object with the name "$float" that is
    anything else is refused.

    Args:
      data: The text.
    Returns:
      The value; objects are dicts and lists are lists.
    Raises:
      ValueError: It is no such text; the message says what is wrong, and where if that
        is known.
    Example:
      >>> parse_json(b'{"loss": {"$float": "inf"}, "sizes": [64, 10]}')
      {'loss': inf, 'sizes': [64, 10]}
      >>> parse_json(b'{"seed": 1, "seed": 2}')
      Traceback (most recent call last):
      ValueError: the name 'seed' comes twice in an object.
    """
    if not isinstance(data, bytes):
        raise TypeError(
            f"data must be bytes, such as a file's; got data={reprlib.repr(data)}."
        )
    try:
        text = data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8.") from error
    depth = _depth(data)
    if depth > DEEPEST:
        raise ValueError(
            f"lists and objects are nested {depth:,} deep; at most {DEEPEST} levels "
            "are read."
        )
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error}).") from error
    except RecursionError:  # Called from so deep that even 64 levels are too many.
        raise ValueError("lists and objects are nested too deep.") from None


def _depth(data: bytes) -> int:
    """How deep brackets are nested outside of texts, without recursion; of what is no
    JSON, at least as much."""
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
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {reprlib.repr(twice)} comes twice in an object.")
    if NOT_FINITE not in found:
        return found
    name = found[NOT_FINITE]
    if len(found) > 1 or not isinstance(name, str) or name not in _NAMES:
        raise ValueError(
            f"{reprlib.repr(found)} is no number: {{{NOT_FINITE!r}: name}} wants nan, "
            "inf or -inf."
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
    raise ValueError(f"{text} is no JSON; {{{NOT_FINITE!r}: ...}} stands for it.")


def _cut(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:12]}... of {len(text):,} characters"


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_constant,
)


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Hold what was read against what is needed.

    A shape is a type, or several: a value of one of them, where neither True nor False
    is a number. [shape] is a list whose every item has that shape. {name: shape} is an
    object with these entries, and perhaps others; a name that ends in "?" may be
    missing. {str: shape} is an object whose every entry has that shape. `Is` adds a
    test of one's own.

    Args:
      value: As `parse_json` gives it.
      shape: What it must be.
      where: The name of the value, for messages.
    Raises:
      ValueError: It has another shape; the message names the entry, and shows it.
    Example:
      >>> check_shape({"seed": 1, "rates": [0.1, "fast"]}, {"seed": int, "rates": [(int, float)]}, "config")
      Traceback (most recent call last):
      ValueError: config.rates[1] is 'fast'; it must be a number.
    """
    if not isinstance(where, str):
        raise TypeError(
            "where must be a str, the name of the value; got "
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
                "shape must be a type, several, a list, a dict or an Is; got "
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
    """The types in words; where a number may be any, an integer need not be said."""
    return " or ".join(
        _KINDS[kind] for kind in kinds if kind is not int or float not in kinds
    )


def _name(text: str) -> str:
    return reprlib.repr(text)
