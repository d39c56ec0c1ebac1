"""Write the measurements of every step of a training for spreadsheets and viewers."""

import csv
import importlib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.checks import check_mapping, check_path, is_array, shown
from research.files import explained, json_bytes, write_atomically

SUFFIXES = (".csv", ".jsonl")
INSTALL = "pip install tensorboardX"


def write_step_metrics(
    path: str | Path, steps: Any, evaluations: Mapping[str, Any] | None = None
) -> None:
    """Write the metrics of every step of a training as CSV or as JSON lines.

    There is one row for each step. The values in the row belong to the parameters from
    which the step starts:

    - `step` and `epoch`: the numbers of steps and epochs that are finished before this
      step.
    - The metrics of this step from `steps`, such as the loss.
    - The evaluations of the parameters, only in the first row of each epoch.

    If there are evaluations, a last row has the evaluations of the final parameters,
    but no metrics of a step.

    If a value was not measured, its field in a .csv file is empty, and its name is
    missing in a .jsonl file. A .jsonl file has {"$float": "nan"} in place of NaN, and
    {"$float": "inf"} in place of ∞, because JSON has no such numbers.

    Args:
      path: Path of the file, which ends in .csv or .jsonl.
      steps: `TrainResult.steps`, or arrays by name, each of shape (num_epochs,
        num_batches), where num_batches is the number of steps in an epoch.
      evaluations: `TrainResult.evaluations`: arrays by name, each of shape (num_epochs
        + 1,). They hold the values before the first epoch and after each epoch. None
        means that there are no evaluations.
    Raises:
      ValueError: The file has another suffix, a shape is wrong, or a name is used
        twice.
      TypeError: `steps` or `evaluations` does not map names to arrays of numbers.
      OSError: The file cannot be written.
    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "steps.csv"
      >>> steps = {"loss": np.array([[4.0, 2.0]])}
      >>> write_step_metrics(path, steps, {"accuracy": np.array([0.5, 0.75])})
      >>> print(path.read_text(), end="")
      step,epoch,loss,accuracy
      0,0,4.0,0.5
      1,0,2.0,
      2,1,,0.75
    """
    check_path("path", path)
    rows = list(metric_rows(steps, evaluations))
    if Path(path).suffix == ".csv":
        text = io.StringIO(newline="")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue().encode())
    elif Path(path).suffix == ".jsonl":
        lines = (json_bytes(row, "metrics", indent=None) for row in rows)
        write_atomically(path, b"".join(lines))
    else:
        raise ValueError(
            f"path must end in {' or '.join(SUFFIXES)}; got path={str(path)!r}."
        )


def write_tensorboard(
    folder: str | Path, steps: Any, evaluations: Mapping[str, Any] | None = None
) -> None:
    """Write the metrics of every step of a training for TensorBoard.

    `tensorboard --logdir FOLDER` shows a curve for each name.

    Args:
      folder: Folder of the log. Each call adds a file to the folder.
      steps: `TrainResult.steps`, or arrays by name, each of shape (num_epochs,
        num_batches), where num_batches is the number of steps in an epoch.
      evaluations: `TrainResult.evaluations`: arrays by name, each of shape (num_epochs
        + 1,). They hold the values before the first epoch and after each epoch. None
        means that there are no evaluations.
    Raises:
      ImportError: The package tensorboardX is not installed. The extra `tensorboard`
        installs it.
      ValueError: A shape is wrong, or a name is used twice.
      TypeError: `steps` or `evaluations` does not map names to arrays of numbers.
      OSError: The folder cannot be written.
    """
    check_path("folder", folder)
    rows = list(metric_rows(steps, evaluations))
    try:
        tensorboard = importlib.import_module("tensorboardX")  # An extra.
    except ImportError as error:
        raise ImportError(
            f"TensorBoard's log needs tensorboardX: {INSTALL}."
        ) from error
    with (
        explained(f"Cannot write {folder}", lambda: "Choose another folder."),
        tensorboard.SummaryWriter(str(folder)) as writer,
    ):
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    writer.add_scalar(name, value, row["step"])


def metric_rows(
    steps: Any, evaluations: Mapping[str, Any] | None = None
) -> Iterator[dict[str, float]]:
    """Yield the rows of the file that `write_step_metrics` writes.

    The arguments are those of `write_step_metrics`. `steps` contains the metrics of
    each step of a training, such as the loss. `evaluations` contains values that were
    measured before the first epoch and after each epoch, or is None. Each row is a dict
    from a name, such as "step" or "loss", to a number. There is one row for each step,
    with the metrics of this step. The first row of each epoch also has the evaluations
    before this epoch. If there are evaluations, a last row has the evaluations after
    the last epoch.
    """
    values, evaluated = _checked(steps, evaluations)
    num_epochs, num_batches = next(iter(values.values())).shape
    for epoch in range(num_epochs + 1):
        for batch in range(num_batches if epoch < num_epochs else 1):
            row: dict[str, float] = {
                "step": epoch * num_batches + batch,
                "epoch": epoch,
            }
            if epoch < num_epochs:
                row |= {name: float(v[epoch, batch]) for name, v in values.items()}
            if batch == 0:
                row |= {name: float(v[epoch]) for name, v in evaluated.items()}
            if len(row) > 2:
                yield row


def _checked(
    steps: Any, evaluations: Mapping[str, Any] | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    by_name = steps._asdict() if hasattr(steps, "_asdict") else steps
    check_mapping("steps", by_name, "names to arrays, such as TrainResult.steps")
    evaluations = {} if evaluations is None else evaluations
    check_mapping("evaluations", evaluations, "names to arrays")
    given = {"steps": by_name, "evaluations": evaluations}
    for owner, arrays in given.items():
        for name, array in arrays.items():
            if not is_array(array) or _plain(array).dtype.kind not in "biuf":
                raise TypeError(
                    f"{owner} must hold arrays of numbers; {name} is {shown(array)}."
                )
    values, evaluated = (
        {str(name): _plain(array) for name, array in arrays.items()}
        for arrays in given.values()
    )
    shapes = {array.shape for array in values.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or not math.prod(shape):
        raise ValueError(
            "steps must have arrays of one shape (num_epochs, num_batches); got "
            f"{ {name: array.shape for name, array in values.items()} }."
        )
    wrong = {n: a.shape for n, a in evaluated.items() if a.shape != (shape[0] + 1,)}
    if wrong:
        raise ValueError(
            f"evaluations must have shape (num_epochs + 1,) = ({shape[0] + 1},); got "
            f"{wrong}."
        )
    twice = ({"step", "epoch"} | evaluated.keys()) & values.keys()
    twice |= {"step", "epoch"} & evaluated.keys()
    if twice:
        raise ValueError(
            f"Each metric needs a name of its own; got {sorted(twice)} twice."
        )
    return values, evaluated


def _plain(array: Any) -> np.ndarray:
    """Return an array in a dtype of NumPy. bfloat16 becomes float32."""
    array = np.asarray(array)
    is_of_jax = array.dtype.kind == "V" and np.can_cast(array.dtype, np.float32)
    return array.astype(np.float32) if is_of_jax else array
