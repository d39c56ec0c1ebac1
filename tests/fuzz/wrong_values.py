"""What an argument is replaced by: values of every wrong kind, and the valid value
spoilt in one place.
"""

import datetime
import decimal
import fractions
import types as pytypes
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.types import Batch


class Wrong(NamedTuple):
    """A replacement.

    Attributes:
      label: What it is, for the tables.
      make: () -> value, made anew for each call, since a generator is used up by one.
      spoilt: Whether it is the valid value changed in one place, of which some changes
        are valid too.
    """

    label: str
    make: Callable[[], Any]
    spoilt: bool = False


class Stranger:
    """An object of a class that nothing knows."""

    def __repr__(self) -> str:
        return "Stranger()"


class Other(NamedTuple):
    """A NamedTuple of no kind that anything takes."""

    a: int = 1
    b: str = "b"


def no_arguments():
    return 0.0


def gives_none(*args, **named):
    return None


def gives_text(*args, **named):
    return "text"


def gives_object(*args, **named):
    return Stranger()


def gives_integer(*args, **named):
    return 1


def five_arguments(a, b, c, d, e):
    return 0.0


def raises(*args, **named):
    raise ZeroDivisionError("of the callable itself")


ALWAYS: tuple[Wrong, ...] = (
    Wrong("None", lambda: None),
    Wrong("text", lambda: "nonsense"),
    Wrong("empty text", lambda: ""),
    Wrong("bytes", lambda: b"bytes"),
    Wrong("object", Stranger),
    Wrong("empty dict", dict),
    Wrong("dict", lambda: {"a": 1}),
    Wrong("dict of lists", lambda: {"a": [1, 2], "b": {}}),
    Wrong("empty list", list),
    Wrong("list", lambda: [1, 2]),
    Wrong("list of texts", lambda: ["a", "b"]),
    Wrong("list of None", lambda: [None]),
    Wrong("ragged list", lambda: [[1.0], [1.0, 2.0]]),
    Wrong("empty tuple", tuple),
    Wrong("tuple", lambda: (1, 2, 3)),
    Wrong("set", lambda: {1, 2}),
    Wrong("set of texts", lambda: {"a"}),
    Wrong("True", lambda: True),
    Wrong("False", lambda: False),
    Wrong("complex", lambda: 1.0 + 2.0j),
    Wrong("NaN", lambda: float("nan")),
    Wrong("inf", lambda: float("inf")),
    Wrong("-inf", lambda: -float("inf")),
    Wrong("-1", lambda: -1),
    Wrong("0", lambda: 0),
    Wrong("1.5", lambda: 1.5),
    Wrong("-2.5", lambda: -2.5),
    Wrong("3", lambda: 3),
    Wrong("2**63", lambda: 2**63),
    Wrong("-2**63", lambda: -(2**63)),
    Wrong("10**400", lambda: 10**400),
    Wrong("1e308", lambda: 1e308),
    Wrong("fraction", lambda: fractions.Fraction(1, 3)),
    Wrong("decimal", lambda: decimal.Decimal("0.1")),
    Wrong("NumPy float", lambda: np.float32(0.5)),
    Wrong("NumPy integer", lambda: np.int8(2)),
    Wrong("empty array", lambda: np.array([])),
    Wrong("array of rank 3", lambda: np.ones((2, 3, 4))),
    Wrong("matrix", lambda: np.ones((2, 2))),
    Wrong("array of texts", lambda: np.array(["a", "b"])),
    Wrong("array of objects", lambda: np.array([None, Stranger()], object)),
    Wrong("array of integers", lambda: np.arange(3)),
    Wrong("array of booleans", lambda: np.array([True, False])),
    Wrong("array of complex", lambda: np.array([1j, 2.0])),
    Wrong("array with NaN", lambda: np.array([np.nan, 1.0])),
    Wrong("array with inf", lambda: np.array([np.inf, 1.0])),
    Wrong("array of dates", lambda: np.array(["2020-01-01"], "datetime64[D]")),
    Wrong("structured array", lambda: np.zeros(2, [("a", "f8")])),
    Wrong("JAX integers", lambda: jnp.arange(3)),
    Wrong("JAX complex", lambda: jnp.array([1j])),
    Wrong("JAX bfloat16", lambda: jnp.ones(2, jnp.bfloat16)),
    Wrong("shape without values", lambda: jax.ShapeDtypeStruct((2,), jnp.float32)),
    Wrong("old key", lambda: jax.random.PRNGKey(0)),
    Wrong("key", lambda: jax.random.key(1)),
    Wrong("keys", lambda: jax.random.split(jax.random.key(1), 2)),
    Wrong("class", lambda: Stranger),
    Wrong("function without arguments", lambda: no_arguments),
    Wrong("function of five arguments", lambda: five_arguments),
    Wrong("function that gives None", lambda: gives_none),
    Wrong("function that gives a text", lambda: gives_text),
    Wrong("function that gives an object", lambda: gives_object),
    Wrong("function that gives an integer", lambda: gives_integer),
    Wrong("optax constructor", lambda: optax.sgd),
    Wrong("rule", lambda: optax.sgd(0.1)),
    Wrong("generator", lambda: (i for i in (1, 2))),
    Wrong("range", lambda: range(3)),
    Wrong("slice", lambda: slice(2)),
    Wrong("ellipsis", lambda: ...),
    Wrong("path", lambda: Path("nowhere/at/all")),
    Wrong("date", lambda: datetime.date(2020, 1, 1)),
    Wrong("module", lambda: np),
    Wrong("namespace", lambda: pytypes.SimpleNamespace(a=1)),
    Wrong("other NamedTuple", Other),
    Wrong("empty Batch", lambda: Batch(None, None)),
)
LEAVES: tuple[Wrong, ...] = (
    Wrong("None", lambda: None),
    Wrong("text", lambda: "nonsense"),
    Wrong("object", Stranger),
    Wrong("-1", lambda: -1),
    Wrong("NaN", lambda: float("nan")),
    Wrong("dict", lambda: {"a": 1}),
    Wrong("array of rank 3", lambda: np.ones((2, 3, 4))),
    Wrong("empty array", lambda: np.array([])),
    Wrong("array of texts", lambda: np.array(["a", "b"])),
    Wrong("function", lambda: gives_none),
)


def wrong_values(valid: Any) -> Iterator[Wrong]:
    """All replacements of a valid value."""
    yield from ALWAYS
    yield from (
        Wrong(f"spoilt: {label}", make, spoilt=True) for label, make in spoilt(valid)
    )


def spoilt(valid: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The valid value with one thing wrong in it."""
    if isinstance(valid, tuple) and hasattr(valid, "_fields"):
        yield from _of_named(valid)
    elif isinstance(valid, Mapping):
        yield from _of_mapping(valid)
    elif isinstance(valid, list | tuple):
        yield from _of_sequence(valid)
    elif isinstance(valid, np.ndarray | jax.Array) and not jnp.issubdtype(
        valid.dtype, jax.dtypes.prng_key
    ):
        yield from _of_array(valid)
    elif isinstance(valid, str):
        yield from (
            ("a letter more", lambda: valid + "x"),
            ("in a list", lambda: [valid]),
        )
        yield from (
            ("as bytes", lambda: valid.encode()),
            ("with a line break", lambda: valid + "\n"),
        )
    elif isinstance(valid, bool):
        yield from (
            ("in a list", lambda: [valid]),
            ("as text", lambda: str(valid)),
            ("as number", lambda: 2 * int(valid)),
        )
    elif isinstance(valid, int | float):
        yield from (
            ("as text", lambda: str(valid)),
            ("in a list", lambda: [valid]),
            ("negative", lambda: -abs(valid) - 1),
        )
        yield from (
            ("complex", lambda: complex(valid)),
            ("in an array", lambda: np.array([valid])),
        )
        yield from (
            ("and a half", lambda: valid + 0.5),
            ("as array", lambda: np.asarray(valid)),
        )
    elif isinstance(valid, Path):
        yield from (
            ("in a list", lambda: [valid]),
            ("elsewhere", lambda: valid / "no" / "such"),
            ("as bytes", lambda: bytes(valid)),
        )


def _of_named(valid: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "plain tuple", lambda: tuple(valid)
    yield (
        "as dict",
        lambda: (
            valid._asdict()
            if hasattr(valid, "_asdict")
            else dict(zip(valid._fields, valid, strict=True))
        ),
    )
    for field in valid._fields:
        for wrong in LEAVES:
            yield (
                f"field with {wrong.label}",
                lambda field=field, wrong=wrong: valid._replace(
                    **{field: wrong.make()}
                ),
            )


def _of_mapping(valid: Mapping) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "as list", lambda: list(valid.items())
    yield "with an entry more", lambda: {**valid, "nonsense": 1.0}
    for name in list(valid)[:4]:
        yield (
            "without an entry",
            lambda name=name: {k: v for k, v in valid.items() if k != name},
        )
        for wrong in LEAVES:
            yield (
                f"entry with {wrong.label}",
                lambda name=name, wrong=wrong: {**valid, name: wrong.make()},
            )


def _of_sequence(valid: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    kind = type(valid)
    yield "reversed", lambda: kind(reversed(valid))
    yield "twice", lambda: kind([*valid, *valid])
    for place in range(min(len(valid), 3)):
        yield (
            "without one",
            lambda place=place: kind([v for i, v in enumerate(valid) if i != place]),
        )
        for wrong in LEAVES:
            yield (
                f"one is {wrong.label}",
                lambda place=place, wrong=wrong: kind(
                    [wrong.make() if i == place else v for i, v in enumerate(valid)]
                ),
            )


def _of_array(valid: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "an axis more", lambda: valid[None]
    yield "as texts", lambda: np.asarray(valid).astype(str)
    yield "as objects", lambda: np.asarray(valid).astype(object)
    yield "complex", lambda: np.asarray(valid) * 1j
    yield (
        "negative",
        lambda: (
            -1 - np.asarray(valid).astype(float if valid.dtype.kind == "f" else int)
        ),
    )
    yield "as integers", lambda: np.asarray(valid).astype(int)
    if np.issubdtype(valid.dtype, np.floating):
        yield "all NaN", lambda: valid * np.nan
        yield "huge", lambda: valid * 1e300
    if valid.ndim:
        yield "empty", lambda: valid[:0]
        yield "longer", lambda: np.concatenate([np.asarray(valid)] * 2)
        yield "first entry alone", lambda: valid[0]
        yield "as list", lambda: np.asarray(valid).tolist()
        if valid.ndim > 1:
            yield "transposed", lambda: valid.T
