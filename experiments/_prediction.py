"""Functions that save trained networks and predict a file of the user."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import research
from research.descent import TrainResult
from research.reading import read_bytes
from research.runs import Result, Table, TrainedModel
from research.types import Model, Saved

SHOWN = 3  # Number of classes shown for each model.


def ranked_classes(
    file: Path,
    classes: Sequence[str],
    probabilities: Mapping[str, np.ndarray],
    note: str = "",
) -> Result:
    """Return the most probable classes of a file, by model.

    Args:
      file: The user's file.
      classes: Name of each class.
      probabilities: Label of each model -> probabilities of its classes, shape (K,).
        The answer is that of the last model.
      note: Note below the table: what the reader should know about the file.
    Raises:
      ValueError: A probability is not finite, because weights are NaN or infinite.
    """
    rows = []
    for label, values in probabilities.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"The {label} has weights that are not finite, so it predicts nothing. "
                "Train it again with --fresh."
            )
        best = np.argsort(-values, kind="stable")[:SHOWN]
        rows += [(label, classes[k], round(100 * float(values[k]), 1)) for k in best]
    label, best, share = rows[-min(SHOWN, len(classes))]
    table = Table(
        "Most probable classes", ("model", "class", "probability, %"), tuple(rows)
    )
    answer = f"{file}: {best} ({share:g} %, by the {label})."
    return Result(answer, (table._replace(note=note),), {}, {})


def arrays_to_keep(trained: TrainResult) -> dict[str, np.ndarray]:
    """Return the params and the metrics of every step, for a checkpoint."""
    params = research.models.named_arrays(trained.params)
    kept = {f"params/{name}": array for name, array in params.items()}
    return kept | {f"steps/{name}": a for name, a in trained.steps._asdict().items()}


def kept_model(
    saved: Saved, architecture: dict[str, Any], evaluations: Sequence[str] = ()
) -> TrainedModel:
    """Return the model of a checkpoint, for the run folder.

    Args:
      saved: Checkpoint that contains `arrays_to_keep`.
      architecture: Everything that is needed to make the model, as JSON values.
      evaluations: Names of the arrays in the checkpoint that have one entry for the
        start and one for each epoch.
    """
    params, steps = (
        {
            name.removeprefix(part): array
            for name, array in saved.arrays.items()
            if name.startswith(part)
        }
        for part in ("params/", "steps/")
    )
    evaluated = {name: saved.arrays[name] for name in evaluations}
    return TrainedModel(params, architecture, steps, evaluated)


def loaded(
    folder: Path, name: str, build: Callable[[Any], Model]
) -> tuple[Model, Any, Any]:
    """Return a model of a finished run, its params and its architecture.

    Args:
      folder: Run folder.
      name: Name of the model in the run.
      build: Function (architecture) -> model.
    """
    path = research.runs.model_file(folder, name)
    architecture = research.models.read_architecture(path)
    model = build(architecture)
    return model, research.models.load(path, model, architecture), architecture


def text_of(file: Path, most_bytes: int) -> str:
    """Return the text of the user's file.

    Raises:
      ValueError: The file cannot be read, is longer than `most_bytes`, or is not in
        UTF-8.
    """
    try:
        return read_bytes(file, most_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not a text in UTF-8: byte {error.start} is not valid. Convert "
            "it, for example with iconv."
        ) from error
