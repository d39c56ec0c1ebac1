"""Classes taken for others: how often each for each, the share that is recognised, and the commonest errors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from research.checks import check_count, check_numbers, check_sequence
from research.sizes import check_room


def count_confusions(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int
) -> np.ndarray:
    """How often each class was predicted for each: counts[i, j] examples of class i were taken for class j.

    Args:
      labels, predictions: Integers in 0..num_classes - 1, of equal shape.
      num_classes: K.
    Returns:
      Shape (K, K), integers; the diagonal is what was right, and row i sums to the examples of class i.
    Raises:
      ValueError: The shapes differ, or an entry is no class.
    Example:
      >>> count_confusions([0, 0, 1], [0, 1, 1], 2).tolist()
      [[1, 1], [0, 1]]
    """
    check_numbers("labels", labels)
    check_numbers("predictions", predictions)
    check_count("num_classes", num_classes)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels and predictions must have equal shapes; got {labels.shape} and {predictions.shape}. Give one "
            "predicted class for each example."
        )
    if not labels.size:
        raise ValueError(
            "labels and predictions must hold at least one example; got none."
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.dtype.kind not in "iu" or np.any(
            (values < 0) | (values >= num_classes)
        ):
            raise ValueError(
                f"{name} must be integers in 0..{num_classes - 1}; got dtype {values.dtype} with values from "
                f"{values.min()} to {values.max()}. Of logits, take the argmax over the last axis."
            )
    check_room(f"num_classes={num_classes}", num_classes, num_classes)
    flat = num_classes * labels.astype(np.int64).ravel() + predictions.ravel()
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def recalls(counts: ArrayLike) -> np.ndarray:
    """The share of each class that was recognised; NaN for a class without examples.

    Args:
      counts: From `count_confusions`, shape (K, K).
    Returns:
      Shape (K,).
    Example:
      >>> print(recalls([[1, 1], [0, 1]]))
      [0.5 1. ]
    """
    _check_counts(counts)
    counts = np.asarray(counts)
    of_class = counts.sum(axis=1)
    return np.where(of_class > 0, np.diagonal(counts) / np.maximum(of_class, 1), np.nan)


def _check_counts(counts: ArrayLike) -> None:
    check_numbers("counts", counts)
    shape = np.shape(counts)
    if (
        len(shape) != 2
        or shape[0] != shape[1]
        or not shape[0]
        or not (np.asarray(counts) >= 0).all()
    ):
        raise ValueError(
            f"counts must be counts of shape (K, K), none negative, from count_confusions; got shape {shape}."
        )


def macro_f1(counts: ArrayLike) -> float:
    """The mean over the classes of 2 TP / (2 TP + FP + FN): rare ones weigh as much as common ones.

    Args:
      counts: From `count_confusions`, shape (K, K); a class that neither comes nor is predicted counts as 0.
    References:
      Manning, Raghavan & Schütze, Introduction to Information Retrieval (2008), section 13.6.
    Example:
      >>> print(f"{macro_f1([[1, 1], [0, 1]]):.3f}")
      0.667
    """
    counts = np.asarray(counts)
    return float(
        np.mean(
            2
            * np.diagonal(counts)
            / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
        )
    )


def commonest_errors(
    counts: ArrayLike, classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int, int]]:
    """The pairs of classes that were confused most often.

    Args:
      counts: From `count_confusions`, shape (K, K).
      classes: The K names.
      most: How many pairs, at most; a pair that never came is none.
    Returns:
      (true class, what it was taken for, how often, of how many of its class), the most frequent first; of equals, in the
      order of the classes.
    Example:
      >>> commonest_errors([[5, 2], [0, 3]], ["cat", "dog"])
      [('cat', 'dog', 2, 7)]
    """
    _check_counts(counts)
    check_sequence("classes", classes, "names", str)
    check_count("most", most, 0)
    if len(classes) != len(np.asarray(counts)):
        raise ValueError(
            f"classes must name each of the {len(np.asarray(counts))} classes of counts; got {len(classes)} names."
        )
    counts = np.asarray(counts)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order if wrong.flat[place]]
    return [
        (classes[i], classes[j], int(wrong[i, j]), int(counts[i].sum()))
        for i, j in pairs
    ]
