"""What an experiment found, as values and as the bytes of two files."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from research.checks import (
    check_instance,
    check_mapping,
    check_sequence,
    check_text,
    is_array,
    shown,
)
from research.reading import NUMBER, TEXT, check_shape, parse_json
from research.reading.arrays import read_npz
from research.runs.files import json_bytes, npz_bytes

TABLE = {"title": TEXT, "columns": [TEXT], "rows": [[(str, bool, *NUMBER, type(None))]]}
SHAPE = {
    "answer": TEXT,
    "tables": [TABLE | {"note": TEXT}],
    "numbers": dict,
}  # Of result.json.


class Table(NamedTuple):
    """A table of a result.

    Attributes:
      title: What the rows are.
      columns: A heading for each column.
      rows: One tuple a row, as long as columns; None means "not reached" (`dashed` says
        that there is nothing to reach).
      note: A sentence to be read below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    note: str = ""


def dashed(row: Iterable[Any]) -> tuple[Any, ...]:
    """The row with a dash for None, where a column does not apply.

    Example:
      >>> dashed(("baseline", 0.9, None))
      ('baseline', 0.9, '–')
    """
    if (
        isinstance(row, str | bytes | dict)
        or not isinstance(row, Iterable)
        or is_array(row)
    ):
        raise TypeError(f"row must be a row of a table, a tuple; got row={shown(row)}.")
    return tuple("–" if entry is None else entry for entry in row)


class Findings(NamedTuple):
    """What an experiment measured; its report makes an answer, tables and figures of
    this alone.

    Attributes:
      arrays, numbers: As in a Result.
    """

    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]


class Result(NamedTuple):
    """What an experiment found, in words and in numbers.

    Attributes:
      answer: The answer to its question, in a sentence or two.
      tables: What is shown beside the figures.
      arrays: What the figures are drawn from.
      numbers: What is compared with the experiment's EXPECTED; JSON values under string
        keys.
    """

    answer: str
    tables: tuple[Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]


def check_result(name: str, result: Any) -> None:
    """Raise TypeError unless a value is a Result whose fields are of their kinds."""
    check_instance(
        name,
        result,
        Result,
        "Write research.runs.Result(answer, tables, arrays, numbers).",
    )
    check_text(f"{name}.answer", result.answer)
    check_sequence(f"{name}.tables", result.tables, "Tables", Table)
    check_mapping(f"{name}.arrays", result.arrays, "names to arrays")
    for key, array in result.arrays.items():
        if not is_array(array):
            raise TypeError(
                f"{name}.arrays must hold arrays; got "
                f"{name}.arrays[{key!r}]={shown(array)}."
            )
    check_instance(f"{name}.numbers", result.numbers, dict)


def result_bytes(result: Result) -> tuple[bytes, bytes]:
    """What result.json and arrays.npz hold; `read_result` undoes it exactly, to the
    last bit and type.

    NumPy scalars in tables and numbers come back as Python's, tuples in numbers as
    lists. The same result always gives the same bytes.

    Raises:
      ValueError: A row is not as long as its table's columns, or two columns have one
        name.
      TypeError: A number cannot be held by JSON, or an array by .npz without pickle.
    Example:
      >>> result = Result("Yes.", (Table("Steps", ("rule", "steps"), (("Adam", 12), ("SGD", None))),), {}, {})
      >>> read_result(*result_bytes(result)) == result
      True
    """
    for table in result.tables:
        twice = [
            name for i, name in enumerate(table.columns) if name in table.columns[:i]
        ]
        if twice:
            raise ValueError(
                f"table {table.title!r} has two columns of the name {twice[0]!r}; give "
                "each its own."
            )
        for row in table.rows:
            if len(row) != len(table.columns):
                raise ValueError(
                    f"table {table.title!r} has {len(table.columns)} columns, but a "
                    f"row {row!r}."
                )
    text = {
        "answer": result.answer,
        "tables": [table._asdict() for table in result.tables],
        "numbers": result.numbers,
    }
    return json_bytes(text, "result"), npz_bytes(result.arrays)


def read_result(text: bytes, arrays: bytes) -> Result:
    """Undoes `result_bytes`; the bytes may be anybody's.

    Raises:
      ValueError: They are not what `result_bytes` writes; the message names the entry.
    """
    values = parse_json(text)
    check_values(values)
    tables = tuple(
        Table(
            table["title"],
            tuple(table["columns"]),
            tuple(map(tuple, table["rows"])),
            table["note"],
        )
        for table in values["tables"]
    )
    return Result(values["answer"], tables, read_npz(arrays), values["numbers"])


def check_values(values: Any) -> None:
    """Hold what result.json holds against its shape.

    Raises:
      ValueError: It has another; the message names the entry.
    """
    check_shape(values, SHAPE, "the result")
    for index, table in enumerate(values["tables"]):
        check_rows(table, f"the result.tables[{index}]")


def check_rows(table: Any, where: str) -> None:
    """Refuse a table whose rows are not as long as its columns, or two of whose columns
    have one name.

    Raises:
      ValueError: It is such a table.
    """
    columns = table["columns"]
    if len(set(columns)) < len(columns):
        raise ValueError(f"{where} has two columns of one name.")
    for number, row in enumerate(table["rows"]):
        if len(row) != len(columns):
            raise ValueError(
                f"{where} has {len(columns)} columns, but {len(row)} entries in row "
                f"{number}."
            )


def hash_arrays(*arrays: Any) -> str:
    """The SHA-256, in hexadecimal, of the dtype, shape and bytes of each array, in
    order.

    Args:
      arrays: NumPy or JAX arrays of numbers (of a key: `jax.random.key_data(key)`).
    Example:
      >>> zeros = np.zeros(4, np.float32)
      >>> hash_arrays(zeros) == hash_arrays(zeros.copy()), hash_arrays(zeros) == hash_arrays(zeros.reshape(2, 2))
      (True, False)
    """
    for place, array in enumerate(arrays):
        if np.asarray(array).dtype == object:
            raise TypeError(
                f"arrays must hold numbers; array {place} holds Python objects: "
                f"{shown(array)}."
            )
    digest = hashlib.sha256()
    for index, array in enumerate(arrays):
        array = np.asarray(array)
        if array.dtype.hasobject:
            raise TypeError(
                f"array {index} holds Python objects, which have no bytes; give an "
                "array of numbers."
            )
        digest.update(f"{array.dtype.name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
