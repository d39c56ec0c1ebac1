"""The result of an experiment, and its conversion to the bytes of two files."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from research.checks import (
    check_instance,
    check_mapping,
    check_sequence,
    check_text,
    is_array,
    refuse_traced,
    shown,
)
from research.files import json_bytes, npz_bytes
from research.reading import NUMBER, TEXT, check_shape, parse_json
from research.reading.arrays import read_npz
from research.runs.manifest import NAME
from research.types import Params

TABLE = {"title": TEXT, "columns": [TEXT], "rows": [[(str, bool, *NUMBER, type(None))]]}
SHAPE = {
    "answer": TEXT,
    "tables": [TABLE | {"note": TEXT}],
    "numbers": dict,
}  # Shape of result.json.


class Table(NamedTuple):
    """Table of a result: a title, columns, rows, and a note.

    Attributes:
      title: Title of the table, which says what the rows are.
      columns: Heading of each column.
      rows: One tuple for each row, as long as `columns`. The entry None means that a
        target was not reached. Pages show None as "not reached". The entry is a dash if
        the column does not apply to the row (see `dashed`).
      note: Sentence that is printed below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    note: str = ""


def dashed(row: Iterable[Any]) -> tuple[Any, ...]:
    """Replace each None in a row by a dash, which means that the column does not apply.

    Example:
      >>> dashed(("baseline", 0.9, None))
      ('baseline', 0.9, '–')
    """
    if (
        isinstance(row, str | bytes | dict)
        or not isinstance(row, Iterable)
        or is_array(row)
    ):
        raise TypeError(
            f"row must be a row of a table, that is, a tuple; got row={shown(row)}."
        )
    return tuple("–" if entry is None else entry for entry in row)


class TrainedModel(NamedTuple):
    """A model that an experiment has trained, to be saved in its run folder.

    Attributes:
      params: Parameters, a pytree of arrays.
      architecture: All settings that are needed to build the model and its inputs, as
        JSON values by name (see `research.models.save`).
      steps: Metrics of every step, for `write_step_metrics`: arrays by name, each of
        shape (num_epochs, num_batches). The mapping is empty if the metrics are
        unknown.
      evaluations: Values that were measured before the first epoch and after every
        epoch: arrays by name, each of shape (num_epochs + 1,). The mapping is empty if
        there are no evaluations.
    """

    params: Params
    architecture: dict[str, Any]
    steps: Mapping[str, np.ndarray] = {}
    evaluations: Mapping[str, np.ndarray] = {}


class Findings(NamedTuple):
    """Measurements of an experiment, from which its report is made.

    Attributes:
      arrays: Arrays by name.
      numbers: JSON values by name.
      models: Trained models by name.
    """

    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]
    models: Mapping[str, TrainedModel] = {}


class Result(NamedTuple):
    """Result of an experiment, in words and in numbers.

    Attributes:
      answer: Answer to the experiment's question, in one or two sentences.
      tables: Tables that are shown beside the figures.
      arrays: Arrays from which the figures are drawn.
      numbers: JSON values by name.
      models: Trained models by name. `finish` writes the models to the run folder.
        `load_result` does not load them, and no comparison of results uses them.
    """

    answer: str
    tables: tuple[Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]
    models: Mapping[str, TrainedModel] = {}


def check_result(name: str, result: Any) -> None:
    """Raise an error unless a value is a Result whose fields have the right types.

    `name` is the name of the value in the message.

    Raises:
      TypeError: The value is not a Result, or a field has another type.
      ValueError: The name of a model contains a character other than a letter, a
        digit, _ or -. The name becomes the name of a file.
    """
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
    check_mapping(f"{name}.models", result.models, "names to TrainedModels")
    for key, model in result.models.items():
        check_instance(f"{name}.models[{key!r}]", model, TrainedModel)
        if not re.fullmatch(NAME, key):
            raise ValueError(
                f"The keys of {name}.models must consist of letters, digits, _ and -, "
                f"because they become names of files; got {key!r}."
            )


def result_bytes(result: Result) -> tuple[bytes, bytes]:
    """Return the contents of result.json and arrays.npz, the files of a result.

    The models are not included. `read_result` restores the rest of the result to the
    last bit, with two exceptions. NumPy scalars in the fields `tables` and `numbers`
    become Python scalars, and tuples in the field `numbers` become lists. The same
    result always gives the same bytes.

    Raises:
      ValueError: A row does not have one entry for each column of its table, or two
        columns of a table have the same name.
      TypeError: A value in the tables or in `numbers` cannot be written as JSON, or an
        array cannot be written to .npz without pickle.
    Example:
      >>> result = Result(
      ...     "Yes.",
      ...     (Table("Steps", ("rule", "steps"), (("Adam", 12), ("SGD", None))),),
      ...     {},
      ...     {},
      ... )
      >>> read_result(*result_bytes(result)) == result
      True
    """
    text = {
        "answer": result.answer,
        "tables": [table._asdict() for table in result.tables],
        "numbers": result.numbers,
    }
    found = json_bytes(text, "result")
    check_values(parse_json(found))  # What is written can be read.
    return found, npz_bytes(result.arrays)


def read_result(text: bytes, arrays: bytes) -> Result:
    """Restore a result from the bytes that `result_bytes` returned.

    The bytes may come from an untrusted source.

    Raises:
      ValueError: The bytes were not written by `result_bytes`. The message names the
        wrong entry.
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
    """Check that the content of result.json has the right structure.

    Raises:
      ValueError: The structure is wrong. The message names the entry.
    """
    check_shape(values, SHAPE, "the result")
    for table in values["tables"]:
        check_rows(table, f"the table {shown(table['title'])}")


def check_rows(table: Any, where: str) -> None:
    """Check that each row has one entry per column, and that column names are unique.

    `table` is a dict with the keys "columns" and "rows". `where` names the table in
    messages.

    Raises:
      ValueError: The table fails the check.
    """
    columns = table["columns"]
    for name, times in Counter(columns).items():
        if times > 1:
            raise ValueError(
                f"{where} has two columns with the name {shown(name)}. Give each "
                "column its own name."
            )
    for row in table["rows"]:
        if len(row) != len(columns):
            raise ValueError(
                f"{where} has {len(columns)} columns, but the row "
                f"{shown(tuple(row))} has {len(row)} entries. Give each row one entry "
                "for each column."
            )


def hash_arrays(*arrays: Any) -> str:
    """Return one hexadecimal SHA-256 of the dtypes, shapes and bytes of all arrays.

    The hash depends on the order of the arrays.

    Args:
      arrays: NumPy or JAX arrays of numbers. Instead of a random key, pass
        `jax.random.key_data(key)`.
    Raises:
      TypeError: An array holds Python objects.
    Example:
      >>> zeros = np.zeros(4, np.float32)
      >>> (
      ...     hash_arrays(zeros) == hash_arrays(zeros.copy()),
      ...     hash_arrays(zeros) == hash_arrays(zeros.reshape(2, 2)),
      ... )
      (True, False)
    """
    refuse_traced("hash_arrays", arrays=arrays)
    digest = hashlib.sha256()
    for index, array in enumerate(arrays):
        array = np.asarray(array)
        if array.dtype.hasobject:
            raise TypeError(
                f"array {index} holds Python objects, which have no bytes. Pass an "
                "array of numbers."
            )
        digest.update(f"{array.dtype.name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
