"""Losses for classification: cross-entropies, divergences and margin losses."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from research.checks import check_count, check_numbers, check_real
from research.losses.checks import (
    check_terms,
    floating,
    negative_absolute,
    numeric,
    one_example,
    one_or_nan,
    only,
    weighted,
    wide,
)


def logistic(
    logit: Float[ArrayLike, ""],
    label: Num[ArrayLike, ""],
    *,
    where: Bool[ArrayLike, ""] | None = None,
    weights: Num[ArrayLike, ""] | None = None,
) -> Float[Array, ""]:
    """Compute the binary cross-entropy of a label y and a logit z.

    The loss is log(1 + exp(z)) - y z. The predicted probability of the label 1 is
    σ(z) = 1 / (1 + exp(-z)). Labels are 0 or 1, not -1 or +1.
    optax.sigmoid_binary_cross_entropy is the same function, but it broadcasts its
    arguments.

    The loss is computed as log(1 + exp(-|z|)) + z ([z > 0] - y), without overflow or
    cancellation. Here [z > 0] is 1 if z > 0, and 0 otherwise. If a prediction is
    correct and close to certain, the loss, its derivative σ(z) - y and its second
    derivative σ(z) σ(-z) are close to 0. With this formula, all three keep their
    relative precision.

    Args:
      logit: Logit z, floating, shape ().
      label: Label y in {0, 1}, or the probability of the label 1 (a soft label), any
        dtype, shape ().
      where: Boolean, shape (). If it is False, the loss is 0, and logit and label may
        be anything. None means True.
      weights: Factor of the loss, shape (), finite and at least 0. None means 1. With
        `jax.vmap`, `where` and `weights` have one entry for each example.
    Returns:
      The loss in the dtype of the logit, shape (). The loss is NaN if a traced label
      lies outside 0..1.
    Raises:
      TypeError: logit is not floating, label or weights are not numbers, or where is
        not boolean.
      ValueError: An argument is not a single number, a concrete label lies outside
        0..1, or a concrete weight is negative or not finite.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.2.3.
    Example:
      >>> small, large = (logistic(jnp.array(z), 1) for z in (0.0, 1000.0))
      >>> print(f"{small:.4f} {large:.4f}")
      0.6931 0.0000
    """
    logit, label = _scalars("logit", logit, label, where, weights)
    y = label.astype(logit.dtype)
    loss = jnp.log1p(jnp.exp(negative_absolute(logit))) + logit * jnp.where(
        logit > 0, 1 - y, -y
    )
    loss = _or_nan((y >= 0) & (y <= 1), loss, label, "0 or 1 (or a probability)")
    return weighted(loss, where, weights)


def hinge(
    score: ArrayLike,
    label: ArrayLike,
    *,
    where: Bool[ArrayLike, ""] | None = None,
    weights: Num[ArrayLike, ""] | None = None,
) -> Float[Array, ""]:
    """Compute the hinge loss of a support vector machine: max(0, 1 - (2y - 1) s).

    Here s is the score and y the label. At the kink, where (2y - 1) s = 1, the gradient
    is 0, as in Pegasos. Labels are 0 or 1, as in `logistic`. optax.hinge_loss expects
    the labels -1 and +1. At the kink, the gradient of optax.hinge_loss is not 0. It is
    half of the gradient at scores with a positive loss.

    Args:
      score: Score s, floating, shape ().
      label: Label y in {0, 1}, any dtype, shape ().
      where, weights: As in `logistic`.
    Returns:
      The loss in the dtype of the score, shape (). The loss is NaN if a traced label is
      neither 0 nor 1.
    Raises:
      TypeError: score is not floating, label or weights are not numbers, or where is
        not boolean.
      ValueError: An argument is not a single number, a concrete label is neither 0 nor
        1, or a concrete weight is negative or not finite.
    References:
      Shalev-Shwartz, Singer, Srebro & Cotter, Pegasos, Mathematical Programming 2011,
      eq. 2.
    Example:
      >>> print(hinge(jnp.array(0.25), 1), hinge(jnp.array(0.25), 0))
      0.75 1.25
    """
    score, label = _scalars("score", score, label, where, weights)
    y = label.astype(score.dtype)
    valid = (y == 0) | (y == 1)
    # Make the score NaN as well. Beyond the kink the slope is 0, which would hide the
    # NaN of the loss from the gradient.
    score = _or_nan(valid, score, label, "0 or 1")
    loss = _or_nan(valid, jax.nn.relu(1 - (2 * y - 1) * score), label, "0 or 1")
    return weighted(loss, where, weights)


def focal(
    logit: Float[ArrayLike, ""],
    label: Num[ArrayLike, ""],
    gamma: float | Float[Array, ""] = 2.0,
    *,
    where: Bool[ArrayLike, ""] | None = None,
    weights: Num[ArrayLike, ""] | None = None,
) -> Float[Array, ""]:
    """Compute the focal loss -(1 - q)^γ log q for the probability q of the label.

    Let σ(z) = 1 / (1 + exp(-z)). For a logit z, q is σ(z) if the label is 1, and σ(-z)
    if the label is 0. The factor (1 - q)^γ reduces the loss of examples whose label
    already has a high probability. With γ = 0, the loss is `logistic`. (1 - q)^γ and
    log q are both computed from log σ, so the loss keeps its relative precision if q is
    close to 1.

    optax.sigmoid_focal_loss without its argument alpha is the same function for labels
    0 and 1. To get the effect of alpha, pass weights = alpha for the label 1, and
    weights = 1 - alpha for the label 0.

    Args:
      logit: Logit z, floating, shape ().
      label: Label in {0, 1}, any dtype, shape ().
      gamma: Exponent γ, at least 0. It may be traced.
      where, weights: As in `logistic`.
    Returns:
      The loss in the dtype of the logit, shape (). The loss is NaN if a traced label is
      neither 0 nor 1.
    Raises:
      TypeError: As in `hinge`. Also if gamma is not a number.
      ValueError: As in `hinge`. Also if gamma is negative or not finite.
    References:
      Lin, Goyal, Girshick, He & Dollár, Focal loss for dense object detection, ICCV
      2017, eq. 4.
    Example:
      >>> print(f"{focal(jnp.array(0.0), 1):.4f}")  # log(2) / 4
      0.1733
    """
    check_real("gamma", gamma)
    if not isinstance(gamma, Tracer) and not 0 <= float(np.asarray(gamma)) < np.inf:
        raise ValueError(
            f"gamma must be a number of at least 0; got gamma={gamma}. Use 0 for the "
            "logistic loss."
        )
    logit, label = _scalars("logit", logit, label, where, weights)
    y = label.astype(logit.dtype)
    margin = (2 * y - 1) * logit
    # -log q = log(1 + exp(-margin)), and -log(1 - q) = margin - log q.
    small = jnp.log1p(jnp.exp(negative_absolute(margin)))
    loss = small + jnp.where(margin > 0, 0 * margin, -margin)
    other = small + jnp.where(margin > 0, margin, 0 * margin)
    loss = jnp.exp(-jnp.asarray(gamma, logit.dtype) * other) * loss
    return weighted(_or_nan((y == 0) | (y == 1), loss, label, "0 or 1"), where, weights)


def softmax_cross_entropy(
    logits: Float[ArrayLike, "K"],
    label: Int[ArrayLike, ""],
    *,
    where: Bool[ArrayLike, "K"] | None = None,
    weights: Num[ArrayLike, "K"] | None = None,
) -> Float[Array, ""]:
    """Compute the softmax cross-entropy of an integer label and logits z.

    The loss is log Σ_k exp(z_k) - z_label. Its gradient is softmax(z) - e_label, where
    e_label is the one-hot label, and its Hessian is diag(p) - p pᵀ with p = softmax(z).
    The largest logit is first subtracted from all logits, which prevents an overflow.
    optax.softmax_cross_entropy_with_integer_labels is the same function, except that
    optax treats the label -1 as the last class.

    Args:
      logits: Logits z, floating, shape (K,).
      label: Integer in 0..K-1, shape ().
      where: Booleans, shape (K,), True for the classes that exist for this example. The
        sum runs over these classes. None means all classes.
      weights: Weights of the classes, shape (K,), finite and at least 0: the loss is
        multiplied by weights[label]. None means 1. PyTorch's `weight` is the same, but
        PyTorch divides the sum over a batch by the sum of the factors weights[label].
    Returns:
      The loss in the dtype of the logits, shape (). The loss is NaN if a traced label
      lies outside 0..K-1, or is a class that does not exist.
    Raises:
      TypeError: logits are not floating, label is not an integer, weights are not
        numbers, or `where` is not boolean.
      ValueError: The shapes are not (K,) and (), a concrete label lies outside 0..K-1
        or is a class that does not exist, or a concrete weight is negative or not
        finite.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.3.2.
    Example:
      >>> print(f"{softmax_cross_entropy(jnp.zeros(4), 2):.4f}")  # log 4
      1.3863
    """
    logits, label, valid = _class_of(logits, label, where, weights)
    loss = -jax.nn.log_softmax(_of_classes(logits, where))[label]
    loss = _or_nan(valid, loss, label, f"in 0..{logits.shape[0] - 1}")
    return loss if weights is None else loss * _at(weights, label, loss)


def multiclass_margin(
    scores: Float[ArrayLike, "K"],
    label: Int[ArrayLike, ""],
    margin: float | Float[Array, ""] = 1.0,
    *,
    where: Bool[ArrayLike, "K"] | None = None,
    weights: Num[ArrayLike, "K"] | None = None,
) -> Float[Array, ""]:
    """Compute the multi-class margin loss max(0, m + max_{k ≠ y} s_k - s_y).

    Here s are the scores, y is the label and m the margin. The loss is 0 if the score
    of the label exceeds every other score by at least m. If the score of the label
    exceeds the largest other score by exactly m, the loss has a kink. The gradient is 0
    there, as in `hinge`. optax.multiclass_hinge_loss is the same function for m = 1,
    but its gradient at this kink is not 0. PyTorch's multi_margin_loss is a different
    function: it sums max(0, m + s_k - s_y) over all k ≠ y, and divides the sum by the
    number K of classes.

    Args:
      scores: Scores s, floating, shape (K,).
      label: Integer y in 0..K-1, shape ().
      margin: Margin m, positive. It may be traced.
      where, weights: As in `softmax_cross_entropy`. A class exists for this example if
        `where` is True for the class. The maximum runs over the classes that exist.
    Returns:
      The loss in the dtype of the scores, shape (). The loss is NaN if a traced label
      lies outside 0..K-1, or is a class that does not exist. If no other class exists,
      the loss is 0.
    Raises:
      TypeError: As in `softmax_cross_entropy`. Also if margin is not a number.
      ValueError: As in `softmax_cross_entropy`. Also if margin is not positive or not
        finite.
    References:
      Crammer & Singer, On the algorithmic implementation of multiclass kernel-based
      vector machines, JMLR 2001, eq. 4.
    Example:
      >>> print(multiclass_margin(jnp.array([2.0, 2.5, 0.0]), 0))
      1.5
    """
    check_real("margin", margin)
    if not isinstance(margin, Tracer) and not 0 < float(np.asarray(margin)) < np.inf:
        raise ValueError(f"margin must be a positive number; got margin={margin}.")
    scores, label, valid = _class_of(scores, label, where, weights, "scores")
    # Make the scores NaN as well, as in `hinge`.
    scores = _or_nan(valid, scores, label, f"in 0..{len(scores) - 1}")
    is_label = jnp.arange(len(scores), dtype=label.dtype) == label
    rivals = jnp.where(is_label, -jnp.inf, _of_classes(scores, where))
    lead = jnp.max(rivals, initial=-jnp.inf) - scores[label]
    loss = jax.nn.relu(jnp.asarray(margin, scores.dtype) + lead)
    loss = loss * one_or_nan(valid, loss.dtype)
    return loss if weights is None else loss * _at(weights, label, loss)


def softmax_cross_entropy_one_hot(
    logits: Float[ArrayLike, "K"],
    distribution: Num[ArrayLike, "K"],
    *,
    where: Bool[ArrayLike, "K"] | None = None,
    weights: Num[ArrayLike, "K"] | None = None,
) -> Float[Array, ""]:
    """Compute the softmax cross-entropy of a distribution q over classes and logits z.

    The loss is -Σ_k q_k log softmax(z)_k. A class with z_k = -inf and q_k = 0
    contributes 0, because 0 log 0 counts as 0. optax.softmax_cross_entropy is the same
    function, except that optax returns NaN if there is such a class.

    Args:
      logits: Logits z, floating, shape (K,).
      distribution: Distribution q, shape (K,), nonnegative with sum 1, such as a
        one-hot label or the output of `smooth_labels`.
      where: Booleans, shape (K,), True for the classes that exist for this example. If
        a class that does not exist has q_k > 0, the loss is ∞. None means all classes.
      weights: Factors of the terms of the sum, shape (K,), finite and at least 0. None
        means 1.
    Returns:
      The loss in the dtype of the logits, shape ().
    Raises:
      TypeError: logits are not floating, distribution or weights are not numbers, or
        where is not boolean.
      ValueError: logits are not a vector, the shapes differ, or a concrete weight is
        negative or not finite.
    Example:
      >>> halves = jnp.array([0.5, 0.5, 0.0, 0.0])
      >>> print(f"{softmax_cross_entropy_one_hot(jnp.zeros(4), halves):.4f}")
      1.3863
    """
    logits, distribution = _vectors(logits, distribution, where, weights)
    log_probability = jax.nn.log_softmax(_of_classes(logits, where))
    ruled_out = (distribution == 0) & jnp.isneginf(log_probability)
    terms = distribution * jnp.where(ruled_out, 0, log_probability)
    return -jnp.sum(weighted(terms, None, weights))


def kl_divergence(
    logits: Float[ArrayLike, "K"],
    distribution: Num[ArrayLike, "K"],
    *,
    where: Bool[ArrayLike, "K"] | None = None,
    weights: Num[ArrayLike, "K"] | None = None,
) -> Float[Array, ""]:
    """Compute the Kullback-Leibler divergence Σ_k q_k (log q_k - log softmax(z)_k).

    Here q is the distribution and z the logits. The divergence is
    `softmax_cross_entropy_one_hot` minus the entropy of q. With respect to z, the
    divergence and the cross-entropy have the same gradient softmax(z) - q. The
    divergence has its minimum 0 at softmax(z) = q. 0 log 0 counts as 0.
    optax.kl_divergence takes log softmax(z) instead of z. PyTorch's KLDivLoss also
    takes log softmax(z), and averages over all entries by default.

    Args:
      logits: Logits z, floating, shape (K,).
      distribution: Distribution q, shape (K,), nonnegative with sum 1.
      where, weights: As in `softmax_cross_entropy_one_hot`.
    Returns:
      The divergence in the dtype of the logits, shape (). It is NaN if an entry of q is
      negative.
    Raises:
      TypeError, ValueError: As in `softmax_cross_entropy_one_hot`.
    References:
      Kullback & Leibler, On information and sufficiency, Annals of Mathematical
      Statistics 1951, eq. 2.4.
    Example:
      >>> halves = jnp.array([0.5, 0.5, 0.0, 0.0])
      >>> print(f"{kl_divergence(jnp.zeros(4), halves):.4f}")  # log 2
      0.6931
    """
    logits, distribution = _vectors(logits, distribution, where, weights)
    log_probability = jax.nn.log_softmax(_of_classes(logits, where))
    absent = distribution == 0
    log_q = jnp.where(absent, 0, jnp.log(jnp.where(absent, 1, distribution)))
    ruled_out = absent & jnp.isneginf(log_probability)
    terms = distribution * (log_q - jnp.where(ruled_out, 0, log_probability))
    return jnp.sum(weighted(terms, None, weights))


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
      TypeError: one_hot is not floating, or smoothing is not a number.
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

    Call this function once for a whole dataset. When JAX traces a loss (under jit or
    vmap), the loss cannot raise an error for a wrong label, and returns NaN. Traced
    labels are not checked.

    Args:
      labels: Labels of any shape and real dtype.
      num_classes: Number K of classes. Pass 2 for `logistic` and `hinge`.
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


def _scalars(
    name: str,
    value: ArrayLike,
    label: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[Array, Array]:
    value, label = floating(name, value), numeric("label", label)
    if value.ndim or label.ndim:
        raise ValueError(
            one_example(
                f"{name} and label of shape ()",
                value,
                label,
                ranks=(0, 0),
                hint=f"Pass one number as the {name}, and one as the label.",
            )
        )
    check_terms((), name, where, weights)
    value, label = only(where, value, label)
    return value, label


def _class_of(
    logits: ArrayLike,
    label: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    name: str = "logits",
) -> tuple[Array, Array, Array]:
    """Check logits and a label. Return both, and whether the label is valid."""
    logits, label = floating(name, logits), numeric("label", label)
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(
            f"label must be an integer class; got dtype {label.dtype}. Convert it with "
            ".astype(int), or give probabilities of shape (K,) to "
            "softmax_cross_entropy_one_hot."
        )
    if logits.ndim != 1 or label.ndim != 0:
        raise ValueError(
            one_example(
                f"{name} of shape (K,) and a label of shape ()",
                logits,
                label,
                ranks=(1, 0),
                hint=(
                    "For a distribution over the classes, such as a one-hot label, "
                    "use softmax_cross_entropy_one_hot."
                    if label.shape == logits.shape != ()
                    else ""
                ),
            )
        )
    _check_any_class(name, logits)
    check_terms(logits.shape, name, where, weights)
    label = wide(label)
    valid = (label >= 0) & (label < logits.shape[0])
    if where is not None:
        valid = valid & jnp.asarray(where)[label]
    return logits, label, valid


def _vectors(
    logits: ArrayLike,
    distribution: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[Array, Array]:
    """Check logits and a distribution over the classes."""
    logits = floating("logits", logits)
    distribution = numeric("distribution", distribution).astype(logits.dtype)
    if logits.ndim != 1 or logits.shape != distribution.shape:
        raise ValueError(
            one_example(
                "logits and distribution of the same shape (K,)",
                logits,
                distribution,
                ranks=(1, 1),
                hint=(
                    "For integer labels, use softmax_cross_entropy."
                    if logits.ndim and distribution.shape == logits.shape[:-1]
                    else "Give one probability for each class."
                ),
            )
        )
    _check_any_class("logits", logits)
    check_terms(logits.shape, "logits", where, weights)
    return logits, distribution


def _check_any_class(name: str, logits: Array) -> None:
    if not logits.size:
        raise ValueError(
            f"{name} must hold a number for each class; got shape {logits.shape}."
        )


def _of_classes(logits: Array, where: ArrayLike | None) -> Array:
    """Set the logits of classes that do not exist to -∞."""
    if where is None:
        return logits
    return jnp.where(jnp.asarray(where), logits, -jnp.inf)


def _at(weights: ArrayLike, label: Array, loss: Array) -> Array:
    return jnp.asarray(weights, loss.dtype)[label]


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
