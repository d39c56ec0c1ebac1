"""Checks of all targets of a dataset, made once before JAX traces the loss."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from research.checks import (
    check_callable,
    check_not_deleted,
    check_numbers,
    check_sequence,
    is_array,
)
from research.losses.classification import (
    check_labels,
    focal,
    hinge,
    kl_divergence,
    logistic,
    multiclass_margin,
    softmax_cross_entropy,
    softmax_cross_entropy_one_hot,
)
from research.losses.regression import (
    absolute_error,
    cosine_distance,
    huber,
    log_cosh,
    quantile,
    squared_error,
)
from research.losses.sequences import sequence_cross_entropy

# Largest accepted difference between the sum of a distribution and 1. A sum of numbers
# in bfloat16 can differ from 1 by about this much.
OFF_ONE = 1e-2


def check_targets(loss: Callable[..., Any], prediction: Any, targets: Any) -> None:
    """Raise an error if a loss of this library is not defined for the targets.

    Call this function once for a whole dataset. When JAX traces a loss (under jit or
    vmap), the loss cannot raise an error for a wrong label, and returns NaN.

    Args:
      loss: A loss of `research.losses`, or a `functools.partial` of such a loss. For a
        loss for regression, such as `squared_error`, only the shape of one target is
        checked. For a loss from another library, nothing is checked.
      prediction: Predictions of the model for all examples, or a `jax.ShapeDtypeStruct`
        with their shape and dtype.
      targets: Targets y of the dataset. Traced targets are checked only for a loss for
        regression.
    Raises:
      TypeError: The targets of a loss for classification are not numbers. Or the loss
        needs integer classes, and the targets are not integers.
      ValueError: The shapes do not match. For a loss for classification, the error can
        also mean that the logits have only one class, that a target is out of range, or
        that the probabilities of a target do not sum to 1. If a target is out of range,
        the message shows the target and its index.
    Example:
      >>> check_targets(softmax_cross_entropy, jnp.zeros((2, 3)), np.array([1, 3]))
      Traceback (most recent call last):
        ...
      ValueError: labels must be whole numbers in 0..2; got 3 at index 1. Number ...
    """
    check_callable("loss", loss)
    while isinstance(loss, functools.partial):
        loss = loss.func
    check_not_deleted("targets", targets)
    # A loss of another package may be unhashable.
    if any(known is loss for known in _OF_REGRESSION):
        _check_same_shape(tuple(jnp.shape(prediction)), tuple(jnp.shape(targets)))
    check = next((check for known, check in _CHECKS.items() if known is loss), None)
    if check is not None and not isinstance(targets, Tracer):
        if not is_array(prediction):
            check_numbers("prediction", prediction)
        y = np.asarray(targets)
        if not (
            y.dtype == bool
            or jnp.issubdtype(y.dtype, np.integer)
            or jnp.issubdtype(y.dtype, np.floating)
        ):
            raise TypeError(
                f"targets must be numbers; got dtype {y.dtype}. Number the classes "
                "with np.unique(y, return_inverse=True)[1]."
            )
        check(tuple(jnp.shape(prediction)), y)


def check_classes(shape: tuple[int, ...], y: Any) -> None:
    """Raise an error if the labels do not match logits of the given shape.

    Args:
      shape: Shape of the logits: (n,) or (n, 1) for two classes, (..., K) for K
        classes.
      y: Labels. For two classes they have the shape of the logits. For K classes they
        have the shape of the logits without the last axis. The values of traced labels
        are not checked.
    Raises:
      ValueError: A label is out of range, or the shapes do not match, for example
        because the labels are one-hot.
      TypeError: y does not hold numbers, or shape is not a sequence of integers.
    Example:
      >>> check_classes((4, 3), jnp.array([0, 2, 1, 1]))  # No error.
    """
    check_sequence("shape", shape, "lengths", int)
    if not isinstance(y, Tracer):
        check_numbers("y", y)
    given = tuple(jnp.shape(y))
    if given == shape and len(shape) > 1 and shape[-1] > 1:
        raise ValueError(
            f"labels must be classes of shape {shape[:-1]} for logits of shape "
            f"{shape}; got labels of the same shape. Use jnp.argmax(y, axis=-1) for "
            "one-hot labels. If an example has several yes-or-no labels, pass one "
            "column at a time."
        )
    if given != shape and given != shape[:-1]:
        raise ValueError(
            f"labels must have the shape of predicted classes, {shape[:-1] or shape}; "
            f"got {given}."
        )
    if given != shape and shape[len(shape) - 1] == 1:
        raise ValueError(
            f"logits of shape {shape} have one class, so every prediction is that "
            f"class; got labels of shape {given}. For two classes pass one logit per "
            "example: logits[..., 0]."
        )
    check_labels(y, 2 if given == shape else shape[len(shape) - 1])


def _check_same_shape(prediction: tuple[int, ...], targets: tuple[int, ...]) -> None:
    if prediction == targets or prediction[:1] != targets[:1]:
        return
    if prediction == (*targets, 1):
        advice = (
            "Use y[..., None] as the targets, or a model whose output for an example "
            f"has shape {targets[1:]}."
        )
    elif targets == (*prediction, 1):
        advice = "Use y[..., 0] as the targets."
    else:
        advice = "Give the targets the shape of the predictions."
    raise ValueError(
        f"the model's output for an example has shape {prediction[1:]}, but the target "
        f"has shape {targets[1:]}. {advice}"
    )


def _check_logits(shape: tuple[int, ...]) -> None:
    if not shape:
        raise ValueError(
            "predictions must be logits with a last axis over the classes; got shape "
            "(), one number."
        )


def _of_classes(shape: tuple[int, ...], y: np.ndarray) -> None:
    _check_logits(shape)
    if y.shape == shape and len(shape) > 1:
        raise ValueError(
            f"targets must be integer classes of shape {shape[:-1]}; got shape "
            f"{y.shape}, that of the logits. For one-hot labels pass jnp.argmax(y, "
            "axis=-1), or use softmax_cross_entropy_one_hot."
        )
    _check_shape(shape[:-1], y, f"integer classes, for logits of shape {shape}")
    _check_integers(y)
    if shape[len(shape) - 1] == 1:
        raise ValueError(
            f"logits of shape {shape} have one class, so the loss is 0 for every "
            "example. For two classes use losses.logistic or losses.hinge, with one "
            "number per example: logits[..., 0]."
        )
    check_labels(y, shape[len(shape) - 1])


def _of_sequences(shape: tuple[int, ...], y: np.ndarray) -> None:
    _check_logits(shape)
    _check_shape(shape[:-1], y, f"integer classes, for logits of shape {shape}")
    _check_integers(y)
    # A negative label marks a position that the loss ignores.
    check_labels(np.maximum(y, 0), shape[-1])


def _of_two(shape: tuple[int, ...], y: np.ndarray) -> None:
    _check_shape(shape, y, "a label 0 or 1 for each score")
    check_labels(y, 2)


def _of_probabilities(shape: tuple[int, ...], y: np.ndarray) -> None:
    _check_shape(shape, y, "a label 0 or 1, or the probability of a 1, for each logit")
    _check_entries((y >= 0) & (y <= 1), y, "0 or 1 (or a probability)")


def _of_distributions(shape: tuple[int, ...], y: np.ndarray) -> None:
    _check_logits(shape)
    _check_shape(
        shape, y, "a distribution for each example, such as jax.nn.one_hot(labels, K)"
    )
    values = np.asarray(y, float)
    _check_entries(values >= 0, values, "probabilities, at least 0")
    sums = values.sum(axis=-1)
    _check_entries(
        np.abs(sums - 1) <= OFF_ONE,
        sums,
        "probabilities that sum to 1 over the classes",
        "a sum of ",
    )


_CHECKS: dict[Any, Callable[[tuple[int, ...], np.ndarray], None]] = {
    logistic: _of_probabilities,
    hinge: _of_two,
    focal: _of_two,
    multiclass_margin: _of_classes,
    kl_divergence: _of_distributions,
    softmax_cross_entropy: _of_classes,
    softmax_cross_entropy_one_hot: _of_distributions,
    sequence_cross_entropy: _of_sequences,
}


_OF_REGRESSION = (
    squared_error,
    absolute_error,
    huber,
    log_cosh,
    quantile,
    cosine_distance,
)


def _check_shape(wanted: tuple[int, ...], y: np.ndarray, what: str) -> None:
    if y.shape != wanted:
        raise ValueError(
            f"targets must be {what}: shape {wanted}; got shape {y.shape}."
        )


def _check_integers(y: np.ndarray) -> None:
    if not jnp.issubdtype(y.dtype, np.integer):
        raise TypeError(
            f"targets must be integer classes; got dtype {y.dtype}. Convert whole "
            "numbers with .astype(int), or pass probabilities to "
            "softmax_cross_entropy_one_hot."
        )


def _check_entries(
    right: np.ndarray, values: np.ndarray, domain: str, got: str = ""
) -> None:
    if not right.all():
        index = tuple(int(i) for i in np.argwhere(~right)[0])
        place = index[0] if len(index) == 1 else index
        raise ValueError(
            f"targets must be {domain}; got {got}{values[index]} at index {place}."
        )
