"""Losses for classification: cross-entropies and the hinge loss."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, Shaped

from research.checks import check_count, check_numbers, check_real
from research.losses.checks import (
    floating,
    negative_absolute,
    numeric,
    one_example,
    one_or_nan,
    wide,
)


def logistic(
    logit: Float[ArrayLike, ""], label: Num[ArrayLike, ""]
) -> Float[Array, ""]:
    """Compute the binary cross-entropy of a label y and a logit z.

    The loss is log(1 + exp(z)) - y z, and the predicted probability of the label 1 is
    σ(z) = 1 / (1 + exp(-z)). The loss is computed as log(1 + exp(-|z|)) +
    z ([z > 0] - y), which neither overflows nor cancels. Here [z > 0] is 1 if z > 0,
    and 0 otherwise. Therefore the loss, its gradient σ(z) - y and its Hessian σ(z)
    σ(-z) keep their relative precision for confident, correct predictions. Labels are 0
    or 1, not -1 or +1. optax.sigmoid_binary_cross_entropy is the same function, but it
    broadcasts its arguments.

    Args:
      logit: Logit z, floating, shape ().
      label: Label y in {0, 1}, or the probability of the label 1 (a soft label), any
        dtype, shape ().
    Returns:
      The loss in the dtype of the logit, shape (). The loss is NaN if a traced label
      lies outside 0..1.
    Raises:
      TypeError: logit is not floating.
      ValueError: logit or label is not a single number, or a concrete label lies
        outside 0..1.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.2.3.
    Example:
      >>> small, large = (logistic(jnp.array(z), 1) for z in (0.0, 1000.0))
      >>> print(f"{small:.4f} {large:.4f}")
      0.6931 0.0000
    """
    logit, label = _scalars("logit", logit, label)
    y = label.astype(logit.dtype)
    loss = jnp.log1p(jnp.exp(negative_absolute(logit))) + logit * jnp.where(
        logit > 0, 1 - y, -y
    )
    return _or_nan((y >= 0) & (y <= 1), loss, label, "0 or 1 (or a probability)")


def hinge(score: ArrayLike, label: ArrayLike) -> Float[Array, ""]:
    """Compute the hinge loss of a support vector machine: max(0, 1 - (2y - 1) s).

    Here s is the score and y the label. At the kink, where (2y - 1) s = 1, the gradient
    is 0, as in Pegasos. Labels are 0 or 1, as in all losses of this library.
    optax.hinge_loss expects the labels -1 and +1. Its gradient at the kink is half of
    the gradient beside the kink.

    Args:
      score: Score s, floating, shape ().
      label: Label y in {0, 1}, any dtype, shape ().
    Returns:
      The loss in the dtype of the score, shape (). The loss is NaN if a traced label is
      neither 0 nor 1.
    Raises:
      TypeError: score is not floating.
      ValueError: score or label is not a single number, or a concrete label is neither
        0 nor 1.
    References:
      Shalev-Shwartz, Singer, Srebro & Cotter, Pegasos, Mathematical Programming 2011,
      eq. 2.
    Example:
      >>> print(hinge(jnp.array(0.25), 1), hinge(jnp.array(0.25), 0))
      0.75 1.25
    """
    score, label = _scalars("score", score, label)
    y = label.astype(score.dtype)
    valid = (y == 0) | (y == 1)
    # Make the score NaN as well. Beyond the kink the slope is 0, which would hide the
    # NaN of the loss from the gradient.
    score = _or_nan(valid, score, label, "0 or 1")
    return _or_nan(valid, jax.nn.relu(1 - (2 * y - 1) * score), label, "0 or 1")


def softmax_cross_entropy(
    logits: Float[ArrayLike, "K"], label: Int[ArrayLike, ""]
) -> Float[Array, ""]:
    """Compute the softmax cross-entropy of an integer label and logits z.

    The loss is log Σ_k exp(z_k) - z_label. Its gradient is softmax(z) - e_label, where
    e_label is the one-hot label, and its Hessian is diag(p) - p pᵀ with p = softmax(z).
    The largest logit is subtracted first, so that large logits neither overflow nor
    cancel. optax.softmax_cross_entropy_with_integer_labels is the same function, except
    that the label -1 means the last class there.

    Args:
      logits: Logits z, floating, shape (K,).
      label: Integer in 0..K-1, shape ().
    Returns:
      The loss in the dtype of the logits, shape (). The loss is NaN if a traced label
      lies outside 0..K-1.
    Raises:
      TypeError: logits are not floating, or label is not an integer.
      ValueError: The shapes are not (K,) and (), or a concrete label lies outside
        0..K-1.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.3.2.
    Example:
      >>> print(f"{softmax_cross_entropy(jnp.zeros(4), 2):.4f}")  # log 4
      1.3863
    """
    logits, label = floating("logits", logits), numeric("label", label)
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(
            f"label must be an integer class; got dtype {label.dtype}. Convert it with "
            ".astype(int), or give probabilities of shape (K,) to "
            "softmax_cross_entropy_one_hot."
        )
    if logits.ndim != 1 or label.ndim != 0:
        raise ValueError(
            one_example("logits of shape (K,) and a label of shape ()", logits, label)
        )
    label = wide(label)
    valid = (label >= 0) & (label < logits.shape[0])
    loss = -jax.nn.log_softmax(logits)[label]
    return _or_nan(valid, loss, label, f"in 0..{logits.shape[0] - 1}")


def softmax_cross_entropy_one_hot(
    logits: Float[ArrayLike, "K"], distribution: Num[ArrayLike, "K"]
) -> Float[Array, ""]:
    """Compute the softmax cross-entropy of a distribution q over classes and logits z.

    The loss is -Σ_k q_k log softmax(z)_k. A class with z_k = -inf and q_k = 0
    contributes 0, because 0 log 0 counts as 0. optax.softmax_cross_entropy is the same
    function, except that it returns NaN if there is such a class.

    Args:
      logits: Logits z, floating, shape (K,).
      distribution: Distribution q, shape (K,), nonnegative with sum 1, such as a
        one-hot label or the output of `smooth_labels`.
    Returns:
      The loss in the dtype of the logits, shape ().
    Raises:
      TypeError: logits are not floating.
      ValueError: logits are not a vector, or the shapes differ.
    Example:
      >>> halves = jnp.array([0.5, 0.5, 0.0, 0.0])
      >>> print(f"{softmax_cross_entropy_one_hot(jnp.zeros(4), halves):.4f}")
      1.3863
    """
    logits = floating("logits", logits)
    distribution = numeric("distribution", distribution).astype(logits.dtype)
    if logits.ndim != 1 or logits.shape != distribution.shape:
        raise ValueError(
            one_example(
                "logits and distribution of the same shape (K,)", logits, distribution
            )
        )
    log_probability = jax.nn.log_softmax(logits)
    ruled_out = (distribution == 0) & jnp.isneginf(log_probability)
    return -jnp.sum(distribution * jnp.where(ruled_out, 0, log_probability))


def smooth_labels(
    one_hot: Float[ArrayLike, "*batch K"], smoothing: float | Float[Array, ""]
) -> Float[Array, "*batch K"]:
    """Spread a part of the probability of each label evenly over all classes.

    With ε = smoothing and K classes, the result is (1 - ε) one_hot + ε / K. The true
    class keeps the probability 1 - ε + ε / K. optax.smooth_labels and PyTorch's
    label_smoothing do the same.

    Args:
      one_hot: One-hot labels, floating, shape (..., K).
      smoothing: Part ε of the probability that is spread, in 0..1.
    Returns:
      The smoothed distributions, with the shape and dtype of one_hot.
    Raises:
      TypeError: one_hot is not floating.
      ValueError: one_hot has no class axis, or smoothing lies outside 0..1.
    References:
      Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, Rethinking the Inception architecture,
      CVPR 2016, section 7.
    Example:
      >>> print(smooth_labels(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.5))
      [0.625 0.125 0.125 0.125]
    """
    one_hot = floating("one_hot", one_hot)
    if one_hot.ndim == 0:
        raise ValueError(
            "one_hot must end in an axis of classes; got shape (). Use "
            "jax.nn.one_hot(label, K)."
        )
    check_real("smoothing", smoothing)
    if not isinstance(smoothing, Tracer) and not 0 <= float(np.asarray(smoothing)) <= 1:
        raise ValueError(
            f"smoothing must lie in 0..1; got smoothing={smoothing}. Use 0 to leave "
            "the labels unchanged."
        )
    smoothing = jnp.asarray(smoothing, one_hot.dtype)
    return (1 - smoothing) * one_hot + smoothing / one_hot.shape[-1]


def check_labels(labels: Shaped[ArrayLike, "..."], num_classes: int) -> None:
    """Raise an error unless all labels are whole numbers in 0..K-1.

    Call this function once for a whole dataset. It is needed because a traced loss
    cannot raise an error for a wrong label, but returns NaN. Traced labels are not
    checked.

    Args:
      labels: Labels of any shape and real dtype.
      num_classes: Number K of classes. It is 2 for `logistic` and `hinge`.
    Raises:
      TypeError: The labels are not numbers.
      ValueError: A label is wrong, or num_classes is not a positive integer. The
        message shows the first wrong label and its index.
    Example:
      >>> check_labels(np.array([0, 1, -1]), 2)
      Traceback (most recent call last):
        ...
      ValueError: labels must be whole numbers in 0..1; got -1 at index 2. Number ...
    """
    check_count("num_classes", num_classes)
    check_numbers(
        "labels",
        labels,
        wanted="numbers; np.unique(labels, return_inverse=True)[1] numbers classes",
    )
    if isinstance(labels, Tracer):
        return
    values = np.asarray(labels)
    wrong = ~((values >= 0) & (values < num_classes) & (values == np.floor(values)))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"labels must be whole numbers in 0..{num_classes - 1}; got "
            f"{values[index]} at index {index[0] if len(index) == 1 else index}. "
            "Number the classes from 0: labels = np.unique(labels, "
            "return_inverse=True)[1]."
        )


def _scalars(name: str, value: ArrayLike, label: ArrayLike) -> tuple[Array, Array]:
    value, label = floating(name, value), numeric("label", label)
    if value.ndim or label.ndim:
        raise ValueError(one_example(f"{name} and label of shape ()", value, label))
    return value, label


def _or_nan(valid: Array, value: Array, label: Array, domain: str) -> Array:
    """Return the value, or NaN if a traced label is invalid.

    Raise ValueError if a concrete label is invalid.
    """
    if not isinstance(valid, Tracer) and not valid:
        raise ValueError(
            f"label must be {domain}; got label={label}. Use "
            "research.losses.check_labels to find the wrong labels of a dataset."
        )
    return value * one_or_nan(valid, value.dtype)
