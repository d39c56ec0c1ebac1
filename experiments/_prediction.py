"""What experiments share to save their networks, and to predict a file of the user."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import research
from research.descent import TrainResult
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
      note: What the reader should know about the file, for the end of the table.
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
      evaluations: Names of its arrays with one entry for the start and each epoch.
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


def loaded(path: Path, build: Callable[[Any], Model]) -> tuple[Model, Any, Any]:
    """Return the model that a file of weights describes, its params and architecture.

    Args:
      path: File of weights.
      build: Function architecture -> model.
    """
    architecture = research.models.read_architecture(path)
    model = build(architecture)
    return model, research.models.load(path, model, architecture), architecture
