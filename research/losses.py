"""Losses of one example; `jax.vmap` adds the batch axis, in `research.objectives.empirical_risk`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def squared_error(prediction: ArrayLike, target: ArrayLike) -> Float[Array, ""]:
    """Half the squared distance, ½ Σ (p - y)²; the half makes the gradient the residual p - y.

    The convention is that of Bishop, Pattern Recognition and Machine Learning (2006), eq. 3.12. optax.l2_loss has the
    same half and returns its terms unsummed; optax.squared_error has no half.

    Args:
      prediction: p, floating, any shape.
      target: y, the same shape; read in the dtype of the prediction.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError: prediction is not floating.
      ValueError: The shapes differ (they are never broadcast).
    Example:
      >>> print(squared_error(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
      2.0
    """
    return 0.5 * jnp.sum(_residual(prediction, target) ** 2)


def absolute_error(prediction: ArrayLike, target: ArrayLike) -> Float[Array, ""]:
    """The sum of absolute residuals, Σ |p - y|.

    There is no derivative at a residual of 0, where the gradient is taken as 0: of the subgradients -1..1, the one that
    leaves a perfect prediction alone. (JAX differentiates its own abs to +1 there.)

    Args, Returns, Raises:
      As in `squared_error`.
    Example:
      >>> print(absolute_error(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
      2.0
    """
    residual = _residual(prediction, target)
    return jnp.sum(residual * jnp.sign(residual))


def huber(prediction: ArrayLike, target: ArrayLike, delta: ArrayLike = 1.0) -> Float[Array, ""]:
    """Squared error near the target and absolute error far from it: Σ h(p - y).

    h(r) = r²/2 if |r| <= δ, else δ (|r| - δ/2). The gradient is the residual clipped to [-δ, δ]. The Hessian is 1 for
    |r| <= δ, both ends included, and 0 beyond; optax.huber_loss, unsummed, is the same but for a Hessian of 1/4 at
    |r| = δ.

    Args:
      prediction: p, floating, any shape.
      target: y, the same shape.
      delta: δ > 0, where the parabola meets the line.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError, ValueError: As in `squared_error`; also if delta is not positive.
    References:
      Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 1964.
    Example:
      >>> print(huber(jnp.array([0.5, 4.0]), jnp.array([0.0, 1.0])))
      2.625
    """
    if not isinstance(delta, Tracer) and not float(np.asarray(delta)) > 0:
        raise ValueError(f"delta must be positive; got delta={delta}. For a pure absolute error use absolute_error.")
    residual = _residual(prediction, target)
    delta = jnp.asarray(delta, residual.dtype)
    size = jnp.abs(residual)
    return jnp.sum(jnp.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta)))


def log_cosh(prediction: ArrayLike, target: ArrayLike) -> Float[Array, ""]:
    """A Huber loss with all its derivatives: Σ log cosh(p - y).

    Near r²/2 for small residuals and |r| - log 2 for large ones; the gradient is tanh(r), the Hessian 1 - tanh²(r).
    optax.log_cosh, unsummed, is the same function.

    Args, Returns, Raises:
      As in `squared_error`.
    Example:
      >>> print(f"{log_cosh(jnp.array(1000.0), jnp.array(0.0)):.2f}")  # cosh itself overflows
      999.31
    """
    below = _negative_absolute(_residual(prediction, target))
    return jnp.sum(jnp.log1p(jnp.exp(2 * below)) - below - jnp.asarray(np.log(2), below.dtype))


def logistic(logit: ArrayLike, label: ArrayLike) -> Float[Array, ""]:
    """Cross-entropy of a yes-or-no label against the probability σ(z) = 1 / (1 + exp(-z)): log(1 + exp(z)) - y z.

    Computed as log(1 + exp(-|z|)) + z ([z > 0] - y), which neither overflows nor cancels: value, gradient σ(z) - y and
    Hessian σ(z) σ(-z) keep their relative precision when the prediction is right and sure. Labels are {0, 1}, not
    {-1, +1}. optax.sigmoid_binary_cross_entropy is the same function; neither broadcasts here.

    Args:
      logit: z, floating, shape ().
      label: y in {0, 1}, or the probability of a 1 (a soft label); any dtype, shape ().
    Returns:
      The loss in the dtype of the logit, shape (). NaN if a label that is traced lies outside 0..1.
    Raises:
      TypeError: logit is not floating.
      ValueError: logit or label is not one number, or a concrete label lies outside 0..1.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.2.3.
    Example:
      >>> print(f"{logistic(jnp.array(0.0), 1):.4f} {logistic(jnp.array(1000.0), 1):.4f}")
      0.6931 0.0000
    """
    logit, label = _scalars("logit", logit, label)
    y = label.astype(logit.dtype)
    loss = jnp.log1p(jnp.exp(_negative_absolute(logit))) + logit * jnp.where(logit > 0, 1 - y, -y)
    return _where_valid((y >= 0) & (y <= 1), loss, label, "0 or 1 (or a probability)")


def hinge(score: ArrayLike, label: ArrayLike) -> Float[Array, ""]:
    """The loss of a support vector machine: max(0, 1 - (2y - 1) s).

    At the kink (2y - 1) s = 1 the gradient is taken as 0, as in Pegasos. Labels are {0, 1} as everywhere here;
    optax.hinge_loss wants {-1, +1} and has half the slope at the kink.

    Args:
      score: s, floating, shape ().
      label: y in {0, 1}, any dtype, shape ().
    Returns:
      The loss in the dtype of the score, shape (). NaN if a label that is traced is neither 0 nor 1.
    Raises:
      TypeError: score is not floating.
      ValueError: score or label is not one number, or a concrete label is neither 0 nor 1.
    References:
      Shalev-Shwartz, Singer, Srebro & Cotter, Pegasos, Mathematical Programming 2011, eq. 2.
    Example:
      >>> print(hinge(jnp.array(0.25), 1), hinge(jnp.array(0.25), 0))
      0.75 1.25
    """
    score, label = _scalars("score", score, label)
    y = label.astype(score.dtype)
    return _where_valid((y == 0) | (y == 1), jax.nn.relu(1 - (2 * y - 1) * score), label, "0 or 1")


def softmax_cross_entropy(logits: ArrayLike, label: ArrayLike) -> Float[Array, ""]:
    """Cross-entropy of a class against softmax probabilities: log Σ_k exp(z_k) - z_label.

    The gradient is softmax(z) - e_label, the Hessian diag(p) - p pᵀ with p = softmax(z). The largest logit is
    subtracted first, so that large ones neither overflow nor cancel. optax.softmax_cross_entropy_with_integer_labels is
    the same function, but reads a label of -1 as the last class.

    Args:
      logits: z, floating, shape (K,).
      label: Integer in 0..K-1, shape ().
    Returns:
      The loss in the dtype of the logits, shape (). NaN if a label that is traced lies outside 0..K-1.
    Raises:
      TypeError: logits are not floating, or label is not an integer.
      ValueError: The shapes are not (K,) and (), or a concrete label lies outside 0..K-1.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.3.2.
    Example:
      >>> print(f"{softmax_cross_entropy(jnp.zeros(4), 2):.4f}")  # log 4
      1.3863
    """
    logits, label = _floating("logits", logits), jnp.asarray(label)
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(
            f"label must be an integer class; got dtype {label.dtype}. Convert it with .astype(int), or give "
            "probabilities of shape (K,) to softmax_cross_entropy_one_hot."
        )
    if logits.ndim != 1 or label.ndim != 0:
        raise ValueError(_one_example("logits of shape (K,) and a label of shape ()", logits, label))
    valid = (label >= 0) & (label < logits.shape[0])
    loss = -jax.nn.log_softmax(logits)[label]
    return _where_valid(valid, loss, label, f"in 0..{logits.shape[0] - 1}")


def softmax_cross_entropy_one_hot(logits: ArrayLike, distribution: ArrayLike) -> Float[Array, ""]:
    """Cross-entropy of a distribution over classes against softmax probabilities: -Σ_k q_k log softmax(z)_k.

    A class that is ruled out on both sides (z_k = -inf, q_k = 0) costs nothing, by 0 log 0 = 0, where
    optax.softmax_cross_entropy gives NaN; otherwise they are the same function.

    Args:
      logits: z, floating, shape (K,).
      distribution: q, shape (K,), nonnegative with sum 1: a one-hot label, or a smoothed one (`smooth_labels`).
    Returns:
      The loss in the dtype of the logits, shape ().
    Raises:
      TypeError: logits are not floating.
      ValueError: logits are not a vector, or the shapes differ.
    Example:
      >>> print(f"{softmax_cross_entropy_one_hot(jnp.zeros(4), jnp.array([0.5, 0.5, 0.0, 0.0])):.4f}")
      1.3863
    """
    logits = _floating("logits", logits)
    distribution = jnp.asarray(distribution, logits.dtype)
    if logits.ndim != 1 or logits.shape != distribution.shape:
        raise ValueError(_one_example("logits and distribution of the same shape (K,)", logits, distribution))
    log_probability = jax.nn.log_softmax(logits)
    ruled_out = (distribution == 0) & jnp.isneginf(log_probability)
    return -jnp.sum(distribution * jnp.where(ruled_out, 0, log_probability))


def smooth_labels(one_hot: ArrayLike, smoothing: ArrayLike) -> Float[Array, "*batch K"]:
    """Moves a share of each label's probability evenly over all K classes: (1 - ε) q + ε / K.

    As optax.smooth_labels and PyTorch's label_smoothing have it: the true class keeps 1 - ε + ε / K.

    Args:
      one_hot: q, floating, shape (..., K).
      smoothing: ε in 0..1.
    Returns:
      The smoothed distributions, shape and dtype of one_hot.
    Raises:
      TypeError: one_hot is not floating.
      ValueError: one_hot has no class axis, or smoothing lies outside 0..1.
    References:
      Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, Rethinking the Inception architecture, CVPR 2016, section 7.
    Example:
      >>> print(smooth_labels(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.5))
      [0.625 0.125 0.125 0.125]
    """
    one_hot = _floating("one_hot", one_hot)
    if one_hot.ndim == 0:
        raise ValueError("one_hot must end in an axis of classes; got shape (). Use jax.nn.one_hot(label, K).")
    if not isinstance(smoothing, Tracer) and not 0 <= float(np.asarray(smoothing)) <= 1:
        raise ValueError(f"smoothing must lie in 0..1; got smoothing={smoothing}. 0 leaves the labels alone.")
    smoothing = jnp.asarray(smoothing, one_hot.dtype)
    return (1 - smoothing) * one_hot + smoothing / one_hot.shape[-1]


def check_labels(labels: ArrayLike, num_classes: int) -> None:
    """Refuses labels that are not whole numbers in 0..K-1; call it on a dataset once, before anything is traced.

    Inside a traced program a loss can only answer a wrong label with NaN. A tracer passes here.

    Args:
      labels: Any shape and real dtype.
      num_classes: K; 2 for `logistic` and `hinge`.
    Raises:
      ValueError: A label is wrong; the message shows the first one and its index.
    Example:
      >>> check_labels(np.array([0, 1, -1]), 2)
      Traceback (most recent call last):
        ...
      ValueError: labels must be whole numbers in 0..1; got -1 at index 2. Number the classes from 0: labels = \
np.unique(labels, return_inverse=True)[1].
    """
    if isinstance(labels, Tracer):
        return
    values = np.asarray(labels)
    wrong = ~((values >= 0) & (values < num_classes) & (values == np.floor(values)))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"labels must be whole numbers in 0..{num_classes - 1}; got {values[index]} at index "
            f"{index[0] if len(index) == 1 else index}. Number the classes from 0: "
            "labels = np.unique(labels, return_inverse=True)[1]."
        )


def _negative_absolute(x: Array) -> Array:
    """-|x| with derivative +1 at 0, not JAX's 0: a smooth even function of it then keeps its derivatives there."""
    return jnp.where(x > 0, -x, x)


def _floating(name: str, value: ArrayLike) -> Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating; got dtype {array.dtype}. Convert first: {name}.astype(jnp.float32).")
    return array


def _residual(prediction: ArrayLike, target: ArrayLike) -> Array:
    prediction = _floating("prediction", prediction)
    target = jnp.asarray(target, prediction.dtype)
    if prediction.shape != target.shape:
        raise ValueError(_one_example("prediction and target of the same shape", prediction, target))
    return prediction - target


def _scalars(name: str, value: ArrayLike, label: ArrayLike) -> tuple[Array, Array]:
    value, label = _floating(name, value), jnp.asarray(label)
    if value.ndim or label.ndim:
        raise ValueError(_one_example(f"{name} and label of shape ()", value, label))
    return value, label


def _one_example(wanted: str, first: Array, second: Array) -> str:
    return f"A loss takes one example, {wanted}; got shapes {first.shape} and {second.shape}. Use jax.vmap for a batch."


def _where_valid(valid: Array, loss: Array, label: Array, domain: str) -> Array:
    """The loss where the label is valid; a concrete label that is not raises, a traced one gives NaN."""
    if not isinstance(valid, Tracer) and not valid:
        raise ValueError(f"label must be {domain}; got label={label}. See research.losses.check_labels for a dataset.")
    return jnp.where(valid, loss, jnp.nan)
