"""Objectives (mean loss plus penalties), per-example gradients, and metrics."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_real,
    check_tree,
    is_array,
    shown,
)
from research.losses import check_classes, check_targets
from research.models.images import check_model
from research.samplers import num_examples
from research.types import Array, Batch, Model, Params

Objective = Callable[[Params, Batch], Array]  # (params, batch) -> ()
Penalty = Callable[[Params], Array]  # params -> ()

INTERCEPT_NAMES = ("intercept", "bias")  # This library's name, and Flax's.
CHUNK_NUMBERS = (
    2**22
)  # Largest number of per-example gradient entries held at once: 32 MiB of float64.


def empirical_risk(model: Model, loss: Callable[[Array, Array], Array]) -> Objective:
    """Make the objective (1/n) Σ_i loss(model(params, x_i), y_i), a mean over a batch.

    The sum runs over the n examples (x_i, y_i) of the batch, and model(params, x)
    stands for the prediction model.apply(params, x).

    Args:
      model: Model, which is applied to the whole batch at once. Its function `apply`
        gets batch.key as the argument `key`, which a model with dropout needs.
      loss: Loss of one example, (prediction, target) -> number.
    Returns:
      The objective, (params, batch) -> number. The objective raises ValueError if the
      batch is empty, if the numbers of predictions and targets differ, or if `loss`
      returns more than one number for an example. If `loss` belongs to this library,
      the objective also checks concrete (not traced) targets. For targets that are
      invalid for this loss, the objective raises the errors of `losses.check_targets`.
    References:
      Vapnik, Principles of risk minimization for learning theory, NeurIPS 1991.
    Example:
      >>> from research import losses, models
      >>> objective = empirical_risk(models.linear(1), losses.squared_error)
      >>> params = {"weights": jnp.array([2.0]), "intercept": jnp.array(0.0)}
      >>> # The residuals are 0 and 2, and the losses are half of their squares.
      >>> print(
      ...     objective(params, Batch(jnp.array([[1.0], [2.0]]), jnp.array([2.0, 2.0])))
      ... )
      1.0
    """

    check_model(model)
    check_callable("model.apply", model.apply, "params", "x", "key")
    check_callable("loss", loss, "prediction", "target")

    def objective(params: Params, batch: Batch) -> Array:
        _check_batch(batch)
        prediction = model.apply(params, batch.x, batch.key)
        check(prediction, batch.y)
        return jnp.mean(_of_each(loss, prediction, batch.y))

    def check(prediction: Any, y: Any) -> None:
        _check_paired(prediction, y)
        check_targets(loss, prediction, y)

    return _with_check(objective, model, check)


def check_data(
    objective: Callable[..., Any], params: Params, dataset: Batch | None
) -> None:
    """Raise an error if the targets of a dataset are invalid for an objective.

    Call this function before training. Data that JAX traces are not checked.

    Args:
      objective: Objective from `empirical_risk`, `regularised` or `accuracy`. For any
        other objective, nothing is checked.
      params: The parameters: arrays, or `jax.ShapeDtypeStruct`s with their shapes and
        dtypes.
      dataset: The examples. None means that nothing is checked.
    Raises:
      TypeError, ValueError: As in `losses.check_targets`, or as in
        `losses.check_classes` for an objective from `accuracy`. Also ValueError if the
        numbers of predictions and targets differ.
    Example:
      >>> from research import losses, models
      >>> risk = empirical_risk(models.logistic(1), losses.logistic)
      >>> params = {"weights": jnp.array([1.0]), "intercept": jnp.array(0.0)}
      >>> check_data(risk, params, Batch(jnp.array([[1.0]]), jnp.array([2])))
      Traceback (most recent call last):
      ValueError: targets must be 0 or 1 (or a probability); got 2 at index 0.
    """
    if dataset is not None and hasattr(objective, "check_data"):
        objective.check_data(params, dataset)


def l2_penalty(strength: ArrayLike, *, penalise_intercept: bool = False) -> Penalty:
    """Return the ridge penalty (λ/2) Σ w² over all weights w, with the gradient λ w.

    Here λ = strength. By default, intercepts do not count as weights.

    The sum of `empirical_risk` of n examples and this penalty is the objective of a
    model of scikit-learn, up to a constant factor:

    - Ridge(alpha), with `losses.squared_error` and λ = alpha / n.
    - LogisticRegression(C), with `losses.logistic` and λ = 1 / (n C).

    optax.add_decayed_weights(λ) adds the same λ w to the gradient, also for intercepts,
    but it does not change the value of the objective.

    Args:
      strength: Strength λ >= 0, which may be traced.
      penalise_intercept: If True, the intercepts are penalised, too. An intercept is a
        leaf whose dict key or attribute is "intercept" (or "bias", as in Flax).
    Returns:
      The penalty, params -> number, in the dtype of the parameters.
    Raises:
      ValueError: A concrete strength is negative, infinite or NaN.
      TypeError: strength is not a number, or penalise_intercept is not a bool.
    References:
      Hoerl & Kennard, Ridge regression, Technometrics 1970.
    Example:
      >>> params = {"weights": jnp.array([1.0, 2.0]), "intercept": jnp.array(9.0)}
      >>> print(l2_penalty(0.5)(params))
      1.25
    """
    return _penalty(
        strength, lambda leaf: 0.5 * jnp.sum(_abs_square(leaf)), penalise_intercept
    )


def l1_penalty(strength: ArrayLike, *, penalise_intercept: bool = False) -> Penalty:
    """Return the lasso penalty λ Σ |w| over all weights w.

    Here λ = strength. By default, intercepts do not count as weights. For a weight of
    exactly 0, the gradient of this penalty is 0, although JAX's derivative of abs at 0
    is +1. Gradient descent rarely makes a weight exactly 0, but a proximal step (soft
    thresholding) can do so. If the loss is `losses.squared_error`, the sum of
    `empirical_risk` and this penalty is the objective of scikit-learn's Lasso(alpha)
    with alpha = λ.

    Args:
      strength: Strength λ >= 0, which may be traced.
      penalise_intercept: If True, the intercepts are penalised, too. An intercept is a
        leaf whose dict key or attribute is "intercept" or "bias".
    Returns:
      The penalty, params -> number, in the dtype of the parameters.
    Raises:
      ValueError: A concrete strength is negative, infinite or NaN.
      TypeError: strength is not a number, or penalise_intercept is not a bool.
    References:
      Tibshirani, Regression shrinkage and selection via the lasso, JRSS B 1996.
    Example:
      >>> params = {"weights": jnp.array([1.0, -2.0]), "intercept": jnp.array(9.0)}
      >>> print(l1_penalty(0.5)(params))
      1.5
    """
    return _penalty(strength, lambda leaf: jnp.sum(_absolute(leaf)), penalise_intercept)


def regularised(objective: Objective, *penalties: Penalty) -> Objective:
    """Return an objective plus penalties: f(params, batch) + Σ_j r_j(params).

    Args:
      objective: Function f, (params, batch) -> number.
      penalties: Functions r_j, params -> number.
    Returns:
      The objective with penalties, (params, batch) -> number.
    Example:
      >>> objective = regularised(
      ...     lambda params, batch: jnp.sum(params), l2_penalty(1.0), l1_penalty(1.0)
      ... )
      >>> print(objective(jnp.array([3.0]), None))  # 3 + 4.5 + 3
      10.5
    """
    check_callable("objective", objective, "params", "batch")
    for place, penalty in enumerate(penalties):
        check_callable(
            f"penalties[{place}]",
            penalty,
            "params",
            hint="Make one by l2_penalty or l1_penalty.",
        )

    @functools.wraps(objective)  # This keeps the attribute `check_data`.
    def penalised(params: Params, batch: Batch) -> Array:
        return objective(params, batch) + sum(penalty(params) for penalty in penalties)

    return penalised


def per_example_gradients(objective: Objective) -> Callable[[Params, Batch], Params]:
    """Return a function that computes the gradient g_i of each example.

    g_i is the gradient, with respect to the params, of the objective on a batch that
    contains only example i. If the objective is a mean over examples plus penalties,
    the mean of the g_i is the gradient on the whole batch. If the batch has a random
    key, this key is split into one key for each example. The noise of the model (such
    as dropout) then differs between the examples. With such noise, the mean of the g_i
    differs from the gradient on the whole batch.

    Args:
      objective: Function (params, batch) -> number, as from `empirical_risk` or
        `regularised`.
    Returns:
      Function (params, batch) -> gradients. The result is a pytree like params, in
      which every leaf has an additional first axis of length n, the number of examples.
    Example:
      >>> from research import losses, models
      >>> objective = empirical_risk(models.linear(1), losses.squared_error)
      >>> params = {"weights": jnp.array([2.0]), "intercept": jnp.array(0.0)}
      >>> batch = Batch(jnp.array([[1.0], [2.0]]), jnp.array([2.0, 2.0]))
      >>> print(per_example_gradients(objective)(params, batch)["intercept"])
      [0. 2.]
    """
    check_callable("objective", objective, "params", "batch")

    def gradients(params: Params, batch: Batch) -> Params:
        check_tree("params", params)
        _check_batch(batch)
        check_data(objective, params, batch)
        return jax.vmap(jax.grad(objective), (None, 0))(params, _batches_of_one(batch))

    return gradients


def gradient_covariance_trace(
    objective: Objective, params: Params, batch: Batch
) -> Float[Array, ""]:
    """Return the trace of the gradient covariance: tr(C) = (1/n) Σ_i |g_i - ∇f|².

    Here f is the objective, ∇f its gradient on the whole batch, and g_i its gradient on
    example i = 1, ..., n. The trace is the variance of g_i for a random example i,
    summed over all parameters. The sum over i is divided by n, not by n - 1, because
    stochastic gradient descent draws its batches from these n examples only.

    At a minimiser, the trace determines the noise floor of stochastic gradient descent.
    The noise floor is the limit of the expected value of f - f* after many steps, where
    f* is the minimum of f. With a constant learning rate η and batches of b examples
    drawn with replacement, the noise floor is η tr(C) / (4 b), to first order in η.

    Args:
      objective: Function (params, batch) -> number: a mean over examples plus
        penalties.
      params: The parameters. For the noise floor, pass the minimiser.
      batch: The whole dataset. Its field `key` (a key for random numbers) must be None.
        The examples are processed in chunks. The gradients of a chunk have at most 2^22
        entries (32 MiB of float64). If the gradient of one example has more entries, a
        chunk has one example.
    Returns:
      tr(C), shape ().
    Raises:
      ValueError: The batch has a key.
    References:
      Mandt, Hoffman & Blei, Stochastic gradient descent as approximate Bayesian
      inference, JMLR 2017, section 3.
    Example:
      >>> from research import losses, models
      >>> objective = empirical_risk(models.linear(1), losses.squared_error)
      >>> params = {"weights": jnp.array([0.0]), "intercept": jnp.array(0.0)}
      >>> batch = Batch(jnp.array([[0.0], [0.0]]), jnp.array([1.0, -1.0]))
      >>> # Intercept gradients -1 and 1
      >>> print(
      ...     gradient_covariance_trace(objective, params, batch)
      ... )
      1.0
    """
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    _check_batch(batch)
    if batch.key is not None:
        raise ValueError(
            "batch must have no key, because the model's noise would add to the "
            "covariance. Pass batch._replace(key=None)."
        )
    mean = jax.grad(objective)(params, batch)

    def squared_distance(example: Batch) -> Array:
        differences = jax.tree.map(
            lambda g, m: jnp.sum(_abs_square(_widened(g) - _widened(m))),
            jax.grad(objective)(params, example),
            mean,
        )
        return jnp.asarray(sum(jax.tree.leaves(differences)))

    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    chunk = int(np.clip(CHUNK_NUMBERS // max(size, 1), 1, num_examples(batch)))
    return jnp.mean(
        jax.lax.map(squared_distance, _batches_of_one(batch), batch_size=chunk)
    )


def accuracy(model: Model) -> Objective:
    """Return a metric: the fraction of examples whose predicted class is the label.

    If an example has one logit z, the predicted class is 1 for z > 0, else 0, as in
    scikit-learn. If an example has K logits, the predicted class is the index of the
    largest logit, or of the first largest logit if several are equal. The model does
    not get the key of the batch, so the noise of the model (such as dropout) is off.

    Args:
      model: Model that predicts logits. If there is one logit for each label, logits
        and labels have the same shape, (n,) or (n, 1). If there are K logits for each
        label, the logits have an additional last axis of length K.
    Returns:
      The metric, (params, batch) -> number, in the dtype of the logits. Its value is
      NaN if any logit is NaN. (Otherwise the accuracy of a diverged run would look like
      a valid result.) The value is also NaN if a traced label is not one of the classes
      0, 1, ... The metric raises ValueError if a concrete label is not one of the
      classes, or if the shapes do not match (as with one-hot labels).
    Example:
      >>> from research import models
      >>> params = {"weights": jnp.array([1.0]), "intercept": jnp.array(0.0)}
      >>> batch = Batch(jnp.array([[-1.0], [2.0], [3.0]]), jnp.array([0, 1, 0]))
      >>> print(f"{accuracy(models.logistic(1))(params, batch):.4f}")
      0.6667
    """

    check_model(model)

    def metric(params: Params, batch: Batch) -> Array:
        _check_batch(batch)
        logits = model.apply(params, batch.x)
        check(logits, batch.y)
        predicted = (
            logits > 0 if logits.ndim == batch.y.ndim else jnp.argmax(logits, axis=-1)
        )
        dtype = _floating_dtype(logits)
        y, num_classes = (
            jnp.asarray(batch.y, float),
            2 if logits.ndim == batch.y.ndim else logits.shape[-1],
        )
        # In float16, counts above 65,504 are infinite, and 2,049 equals 2,048.
        share = jnp.mean(predicted == y, dtype=_at_least_single(dtype))
        no_class = ~((y >= 0) & (y < num_classes) & (y == jnp.floor(y)))
        is_bad = jnp.isnan(logits).any() | no_class.any()
        return jnp.where(is_bad, jnp.nan, share).astype(dtype)

    def check(logits: Any, y: Any) -> None:
        _check_paired(logits, y)
        check_classes(logits.shape, y)

    return _with_check(metric, model, check)


def r_squared(model: Model) -> Objective:
    """Return the metric R² = 1 - Σ (y - p)² / Σ (y - ȳ)².

    R² is the fraction of the variance of the targets that the predictions explain. Here
    y are the targets and p the predictions. Each output has its own ȳ, the mean of its
    targets over the examples. The sums run over all examples and all outputs, as for
    multioutput="variance_weighted" in scikit-learn. The model does not get the key of
    the batch, so the noise of the model (such as dropout) is off.

    Args:
      model: Model whose predictions have the shape of the targets.
    Returns:
      The metric, (params, batch) -> number. Its value is not finite if the targets are
      the same for all examples. The metric raises ValueError if predictions and targets
      differ in shape.
    Example:
      >>> from research import models
      >>> params = {"weights": jnp.array([1.0]), "intercept": jnp.array(0.0)}
      >>> batch = Batch(jnp.array([[0.0], [1.0], [2.0]]), jnp.array([0.0, 2.0, 1.0]))
      >>> print(r_squared(models.linear(1))(params, batch))
      0.0
    """

    check_model(model)

    def metric(params: Params, batch: Batch) -> Array:
        _check_batch(batch)
        prediction = model.apply(params, batch.x)
        _check_array(batch.y)
        if prediction.shape != batch.y.shape:
            raise ValueError(
                f"predictions and targets differ in shape: {prediction.shape} and "
                f"{batch.y.shape}. Give the targets the shape of the predictions."
            )
        dtype = jnp.result_type(prediction, _floating_dtype(batch.y))
        wide = _at_least_single(dtype)
        y, prediction = jnp.asarray(batch.y, wide), jnp.asarray(prediction, wide)
        unexplained, of_residual = _sum_of_squares(y - prediction)
        size = _power_of_two(y)
        deviation = y / size - jnp.mean(y / size, axis=0, keepdims=True)
        # The mean of equal numbers may be rounded.
        constant = jnp.all(y == y[:1], axis=0, keepdims=True)
        deviation = jnp.where(constant, 0, deviation)
        variance, of_deviation = _sum_of_squares(deviation)
        share = unexplained / variance * (of_residual / size / of_deviation) ** 2
        return (1 - share).astype(dtype)

    return metric


def _floating_dtype(a: ArrayLike) -> Any:
    """Return the dtype of an array, or the default floating dtype for integers."""
    dtype = jnp.result_type(a)
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)


def _at_least_single(dtype: Any) -> Any:
    """Return the dtype in which numbers of a floating dtype are summed.

    This dtype is at least float32.
    """
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def _widened(a: ArrayLike) -> Array:
    """Convert an array in half precision to float32. Other arrays are unchanged."""
    a = jnp.asarray(a)
    is_inexact = jnp.issubdtype(a.dtype, jnp.inexact)
    return a.astype(_at_least_single(a.dtype)) if is_inexact else a


def _sum_of_squares(a: Array) -> tuple[Array, Array]:
    """Return Σ (a / s)² and s, where s is a power of two close to max |a|.

    With this s, no square overflows, and the large squares do not underflow. Division
    by a power of two changes only the exponent of a number.
    """
    size = _power_of_two(a)
    return jnp.sum((a / size) ** 2), size


def _power_of_two(a: Array) -> Array:
    """Return the largest power of two that is at most max |a|.

    If max |a| is 0 or not finite, return 1.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(a), initial=0.0))
    has_size = (largest > 0) & jnp.isfinite(largest)
    exponent = jnp.frexp(jnp.where(has_size, largest, 1.0))[1] - 1
    return jnp.ldexp(jnp.ones((), a.dtype), exponent)


def in_slices(
    function: Callable[[Params, Batch], Any], size: int
) -> Callable[[Params, Batch], Any]:
    """Return a function that computes means over a batch in slices, to save memory.

    Args:
      function: Function (params, batch) -> pytree of means over the examples of the
        batch, such as an objective or a metric.
      size: Number of examples in a slice. The last slice may have fewer. `function` is
        compiled once for each slice length.
    Returns:
      Function (params, batch) -> means over all examples of the batch. The mean of each
      slice is weighted by the length of the slice. The returned function cannot be
      traced, because it loops over the slices in Python. The random key of the batch is
      not passed to `function`. Noise such as dropout needs this key.
    Raises:
      ValueError: size is not a positive integer. The returned function raises
        ValueError if the batch is empty or if x and y differ in length. The returned
        function also raises the errors of `check_data`.
    Example:
      >>> mean = in_slices(lambda params, batch: jnp.mean(batch.x), 4)
      >>> print(mean(None, Batch(np.arange(10.0), np.zeros(10))))
      4.5
    """
    check_count("size", size)
    check_callable("function", function, "params", "batch")
    compiled = jax.jit(function)

    def whole(params: Params, batch: Batch) -> Any:
        check_tree("params", params)
        _check_batch(batch)
        n, total = num_examples(batch) or 0, None
        check_data(function, params, batch)
        for start in range(0, n, size):
            x, y = jax.tree.map(
                lambda a, start=start: a[start : start + size], (batch.x, batch.y)
            )
            share = min(size, n - start) / n
            means = compiled(params, Batch(x, y))
            part = jax.tree.map(lambda a, share=share: share * _widened(a), means)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        return jax.tree.map(
            lambda a, mean: a.astype((share * mean).dtype), total, means
        )

    return whole


def _penalty(
    strength: ArrayLike, measure: Callable[[Array], Array], penalise_intercept: bool
) -> Penalty:
    check_real("strength", strength)
    if not isinstance(strength, Tracer) and not float(np.asarray(strength)) >= 0:
        raise ValueError(
            f"strength must be at least 0; got strength={strength}. Use 0 for no "
            "penalty."
        )
    check_flag("penalise_intercept", penalise_intercept)

    def penalty(params: Params) -> Array:
        check_tree("params", params)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        weights = [
            leaf
            for path, leaf in leaves
            if penalise_intercept or not _is_intercept(path)
        ]
        dtype = _real_dtype(weights)
        # A float64 strength must not widen a float32 total. A sum in half precision may
        # exceed its range before a small strength makes it smaller.
        total = sum(measure(_widened(leaf)) for leaf in weights)
        return (jnp.asarray(strength, _at_least_single(dtype)) * total).astype(dtype)

    return penalty


def _real_dtype(leaves: Sequence[ArrayLike]) -> Any:
    """Return the real floating dtype of a penalty on the leaves.

    For complex leaves, this is the dtype of the real part. For integers, it is JAX's
    default.
    """
    dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.result_type(float)
    return jnp.finfo(dtype).dtype


def _abs_square(leaf: ArrayLike) -> Array:
    """Return |a|² of each entry."""
    leaf = jnp.asarray(leaf)
    return leaf.real**2 + leaf.imag**2 if jnp.iscomplexobj(leaf) else leaf**2


def _absolute(leaf: ArrayLike) -> Array:
    """Return |a| of each entry, with the gradient 0 where a is 0."""
    leaf = jnp.asarray(leaf)
    if not jnp.iscomplexobj(leaf):
        return leaf * jnp.sign(leaf)
    is_zero = leaf == 0
    return jnp.where(is_zero, 0.0, jnp.abs(jnp.where(is_zero, 1.0, leaf)))


def _is_intercept(path: tuple[Any, ...]) -> bool:
    """Return whether the last key of a leaf's path is the name of an intercept.

    The key is a key of a dict, or the name of an attribute.
    """
    return (
        bool(path)
        and getattr(path[-1], "key", getattr(path[-1], "name", None)) in INTERCEPT_NAMES
    )


def _check_array(y: Any) -> None:
    if not is_array(y):
        raise TypeError(
            f"the targets y must be an array; got y={shown(y)}. Write jnp.asarray(y)."
        )


def _check_paired(prediction: Array, y: Array) -> None:
    _check_array(y)
    if not prediction.ndim or not y.ndim or len(prediction) != len(y) or not len(y):
        raise ValueError(
            "predictions and targets must have equal leading axes of length 1 or "
            f"more; got predictions of shape {prediction.shape}, targets y of shape "
            f"{y.shape}."
        )


def _of_each(
    loss: Callable[[Array, Array], Array], prediction: Array, y: Array
) -> Array:
    """Return the loss of each example; raise ValueError unless it is one number."""
    values = jax.vmap(loss)(prediction, y)
    if jnp.size(values) != len(y):
        raise ValueError(
            f"loss must return one number for an example; it returns an array of shape "
            f"{jnp.shape(values)[1:]} for a prediction of shape {prediction.shape[1:]} "
            f"and a target of shape {y.shape[1:]}. Return its mean or sum."
        )
    return values


def _with_check(
    function: Objective, model: Model, check: Callable[[Any, Any], None]
) -> Objective:
    """Give a function the attribute `check_data`, which checks a dataset's targets."""

    def of_dataset(params: Params, batch: Batch) -> None:
        if not any(
            isinstance(leaf, Tracer) for leaf in jax.tree.leaves((batch.x, batch.y))
        ):
            check(jax.eval_shape(model.apply, params, batch.x, batch.key), batch.y)

    function.check_data = of_dataset  # type: ignore[attr-defined]
    return function


OF_WORDS = (
    "Convert labels that are words to numbers with np.unique(labels, "
    "return_inverse=True)[1]."
)


def _check_batch(batch: Any) -> None:
    if not (hasattr(batch, "x") and hasattr(batch, "y") and hasattr(batch, "key")):
        raise TypeError(
            f"batch must be a research.types.Batch(x, y); got batch={shown(batch)}."
        )
    for name, hint in (("x", ""), ("y", OF_WORDS)):
        _, *shapes = check_tree(f"batch.{name}", getattr(batch, name), hint)
        if not shapes:
            raise TypeError(
                f"batch.{name} must hold arrays; got {shown(getattr(batch, name))}."
            )


def _batches_of_one(batch: Batch) -> Batch:
    n = num_examples(batch) or 0
    x, y = jax.tree.map(lambda a: a[:, None], (batch.x, batch.y))
    return Batch(x, y, None if batch.key is None else jax.random.split(batch.key, n))
