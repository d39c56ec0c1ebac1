"""Rules that keep few numbers about the squared gradients of a matrix.

Adafactor keeps a mean for each row and each column, and SM3 a maximum. In the formulas,
g_t is the gradient of a leaf, u_t the update and η_t the learning rate at step t.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import (
    abs_square,
    complete,
    overflowed,
    sizes_like,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    increment,
    like,
    moving_average,
)

MIN_DIM_SIZE_TO_FACTOR = 128


class Factors(NamedTuple):
    """Means that `adafactor` stores for a leaf in place of the second moment v_t.

    v_t is the moving average of the squared gradients of the leaf.

    Attributes:
      row: Mean of v_t over the longest axis, with the shape of the leaf without this
        axis.
      column: Mean of v_t over the second longest axis, with the shape of the leaf
        without this axis.
    """

    row: Float[Array, "..."]
    column: Float[Array, "..."]


class AdafactorState(NamedTuple):
    """State of `adafactor`, without its momentum.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      nu: Moving average v_t of squared gradients, shaped like the params. A leaf that
        is factored has Factors instead: the mean of v_t over its longest axis, and the
        mean over its second longest axis.
    """

    count: Int[Array, ""]
    nu: Params


class AdafactorMomentumState(NamedTuple):
    """State of the momentum of `adafactor`.

    Attributes:
      mu: Moving average of the updates before the weight decay is added and before the
        multiplication by the learning rate, shaped like the params.
    """

    mu: Params


@checked
def adafactor(
    learning_rate: Scalar | Schedule,
    decay_rate: Scalar = 0.8,
    min_dim_size_to_factor: int | None = None,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar = 1.0,
    momentum: Scalar | None = None,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    eps: Scalar = 1e-30,
    min_scale: Scalar = 1e-3,
    relative_step: bool = False,
) -> optax.GradientTransformation:
    """Adam without momentum, with a second moment of rank one for each matrix.

    v_t = β_t v_(t-1) + (1 - β_t) (g_t² + ε), with β_t = 1 - t^-c and t counted from 1,
    d_t = g_t / √v̂_t,
    u_t = -η_t (max(ε2, rms(x_t)) d_t / max(1, rms(d_t) / δ) + λ x_t).

    g_t is the gradient of a leaf, u_t its update, x_t its params and η_t the learning
    rate at step t. rms is the root of the mean square over a leaf, δ is
    clipping_threshold, c is decay_rate, ε is eps, ε2 is min_scale and λ is
    weight_decay. With a momentum μ, the first of the two terms in the brackets is
    replaced by its moving average with the decay μ. The other term, λ x_t, is not.

    A matrix is factored if both its sides are at least min_dim_size_to_factor long.
    Then v_t itself is not stored. Only its mean over the longer axis, in the vector
    r_t, and its mean over the shorter axis, in the vector q_t, are stored. If the
    matrix has at least as many columns as rows, r_t has the mean of each row and q_t
    the mean of each column. The entry of v̂_t in row i and column j is then r_t[i]
    q_t[j], divided by the mean of the entries of r_t. If the matrix has more rows than
    columns, rows and columns change places. A leaf with more axes is factored along its
    two longest axes: r_t is the mean of v_t over the longest axis, and q_t the mean
    over the second longest. If a leaf is not factored, v̂_t is v_t.

    Use it if the state of Adam does not fit into memory. For an (m, n) matrix that is
    factored, Adafactor without momentum stores m + n numbers. By default, the rate is
    relative to the size of the params: with η = 0.01, δ = 1 and λ = 0, the root mean
    square of a step is at most 1 % of max(ε2, rms(x_t)).

    Shazeer & Stern use the rate η_t = min(η, 1 / √t) with η = 0.01
    (relative_step=True). Other implementations differ from this rule in the following
    points.

    optax.adafactor has no arguments for relative_step and ε2. It subtracts λ x_t
    without the factor η_t, and takes the moving average after the multiplication by
    η_t. It computes t^-c in float32, so in float64 its updates have a relative error of
    1e-7.

    torch.optim.Adafactor always uses the rate min(η, 1 / √t), where η is its argument
    lr. But it multiplies λ x_t by η, not by this minimum. It has no momentum, and
    factors the last two axes, whatever their lengths. It does not add ε to the squares,
    but bounds √v̂_t from below.

    keras.optimizers.Adafactor also always uses the rate min(η, 1 / √t), but multiplies
    λ x_t by η. It factors the last two axes. It stores the whole v̂_t, so it does not
    save memory.

    The Adafactor of the library transformers factors the last two axes, takes the
    moving average after the multiplication by η_t, and also multiplies λ x_t by max(ε2,
    rms(x_t)).

    The Adafactor of the library timm factors the first two axes if the leaf has at
    least three axes and these two are longer than 16. Otherwise it factors the last two
    axes if both are longer than 16. It multiplies by max(ε2, rms(x_t)) only if no rate
    is given. timm's AdafactorBigVision factors the two longest axes if both have at
    least 16 entries, and never multiplies by max(ε2, rms(x_t)).

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      decay_rate: Exponent c, positive; may be traced.
      min_dim_size_to_factor: Smallest length of the two axes along which a leaf may be
        factored, a positive integer. None means 128. This argument cannot be traced.
      multiply_by_parameter_scale: Whether u_t contains the factor max(ε2, rms(x_t)).
      clipping_threshold: Threshold δ, positive; may be traced. 1e30 turns clipping off.
      momentum: Momentum μ in [0, 1); may be traced. None means no momentum.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      eps, min_scale: Constants ε and ε2, at least 0; may be traced.
      relative_step: Whether the rate of step t is min(η_t, 1 / √t).
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Shazeer & Stern, Adafactor: adaptive learning rates with sublinear memory cost,
      ICML 2018, algorithms 4 and 5.
    Example:
      >>> rule, x = adafactor(0.5, min_dim_size_to_factor=1), jnp.full((2, 2), 2.0)
      >>> g = jnp.array([[1.0, 2.0], [2.0, 4.0]])  # Its squares have rank one.
      >>> print(rule.update(g, rule.init(x), x)[0])
      [[-1. -1.]
       [-1. -1.]]
    """
    check_rate(learning_rate)
    check_number("decay_rate", decay_rate, positive=True)
    check_number("clipping_threshold", clipping_threshold, positive=True)
    check_number("eps", eps)
    check_number("min_scale", min_scale)
    if min_dim_size_to_factor is not None and not isinstance(
        min_dim_size_to_factor, Tracer
    ):
        check_number(
            "min_dim_size_to_factor",
            min_dim_size_to_factor,
            positive=True,
            integer=True,
        )

    def axes_of(x: Array):
        return _two_longest(jnp.shape(x), _least(min_dim_size_to_factor))

    def init(params: Params):
        def zeros(x: Array):
            axes, sizes = axes_of(x), sizes_like(x)
            if axes is None:
                return sizes
            second, longest = axes
            return Factors(
                jnp.zeros(np.delete(x.shape, longest), sizes.dtype),
                jnp.zeros(np.delete(x.shape, second), sizes.dtype),
            )

        return AdafactorState(jnp.zeros((), jnp.int32), jax.tree.map(zeros, params))

    def update(updates: Params, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError(
                "adafactor needs the params; call update(grads, state, params)."
            )
        count = increment(state.count)
        newest = count.astype(float) ** -decay_rate  # The weight 1 - β_t.

        def average(g: Array, nu: Any):
            axes, square = axes_of(g), abs_square(g)
            if axes is None:
                return _mix(newest, nu, square + cast(eps, square))
            square = square + cast(eps, square)
            return Factors(
                _mix(newest, nu.row, jnp.mean(square, axis=axes[1])),
                _mix(newest, nu.column, jnp.mean(square, axis=axes[0])),
            )

        def direction(g: Array, nu: Any, x: Array):
            axes = axes_of(g)
            d = _divided(g, nu) if axes is None else _divided_by_factors(g, nu, axes)
            size = _rms(d)
            d = d / cast(jnp.maximum(1.0, size / cast(clipping_threshold, size)), d)
            if multiply_by_parameter_scale:
                scale = _rms(x)
                d = cast(jnp.maximum(cast(min_scale, scale), scale), d) * d
            return like(d, g)

        nu = jax.tree.map(average, updates, state.nu)
        return jax.tree.map(direction, updates, nu, params), AdafactorState(count, nu)

    direction = complete(optax.GradientTransformation(init, update))
    averages = () if momentum is None else (_averaged(momentum),)
    decay = add_decayed_weights(weight_decay, mask)
    rate = _at_most_relative(learning_rate) if relative_step else learning_rate
    return optax.chain(direction, *averages, decay, descend(rate))


def _least(min_dim_size_to_factor: Any) -> int:
    if isinstance(min_dim_size_to_factor, Tracer):
        raise TypeError(
            "min_dim_size_to_factor cannot be traced, because it decides the shapes of "
            "the state of adafactor. Under optax.inject_hyperparams pass "
            "static_args=('min_dim_size_to_factor',)."
        )
    if min_dim_size_to_factor is None:
        return MIN_DIM_SIZE_TO_FACTOR
    return int(min_dim_size_to_factor)


def _two_longest(shape: tuple[int, ...], least: int) -> tuple[int, int] | None:
    """Return the second longest and the longest axis.

    Of two axes with equal lengths, the later one counts as longer. Return None if fewer
    than two axes are at least `least` long. Such a leaf is not factored.
    """
    if len(shape) < 2:
        return None
    second, longest = np.argsort(shape, kind="stable")[-2:]
    return None if shape[second] < least else (int(second), int(longest))


def _mix(newest: Array, average: Array, value: Array) -> Array:
    weight = cast(newest, average)
    return (1 - weight) * average + weight * like(value, average)


def _divided(g: Array, nu: Array) -> Array:
    """Return g / √v, where v is `nu`; 0 where v is 0, or is ∞ although g is finite."""
    still = (nu == 0) | overflowed(nu, g)
    return jnp.where(still, 0.0, g / jnp.sqrt(nu))


def _divided_by_factors(g: Array, nu: Factors, axes: tuple[int, int]) -> Array:
    """Return g / √(r cᵀ / mean(r)), and 0 where a factor is 0 or overflowed.

    r and c are the row means and the column means in `nu`. The product r cᵀ is not
    computed, because it could underflow.
    """
    second, longest = axes
    mean = jnp.mean(nu.row, axis=second - (second > longest), keepdims=True)
    relative = jnp.expand_dims(nu.row / mean, longest)
    row, mean = (jnp.expand_dims(a, longest) for a in (nu.row, mean))
    column = jnp.expand_dims(nu.column, second)
    smallest = jnp.minimum(jnp.minimum(row, mean), column)
    largest = jnp.maximum(jnp.maximum(row, mean), column)
    still = (smallest == 0) | overflowed(largest, g)
    return jnp.where(still, 0.0, g / jnp.sqrt(relative) / jnp.sqrt(column))


def _rms(x: Array) -> Array:
    """Return the root of the mean square of a leaf, in at least float32.

    The result is 0 for a leaf without entries.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    total = jnp.sum(abs_square(wide))
    return jnp.sqrt(total / max(math.prod(x.shape), 1))


def _averaged(decay: Scalar) -> optax.GradientTransformation:
    """Return a transformation that averages updates, from 0 and without correction."""
    check_number("momentum", decay, below=1.0)

    def init(params: Params):
        return AdafactorMomentumState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        mu = moving_average(decay, state.mu, updates)
        return jax.tree.map(like, mu, updates), AdafactorMomentumState(mu)

    return complete(optax.GradientTransformation(init, update))


def _at_most_relative(learning_rate: Scalar | Schedule) -> Schedule:
    """Return the schedule min(η_t, 1 / √t), with t counted from 1."""

    def rate(count: Array):
        given = rate_at(learning_rate, count)
        return jnp.minimum(given, 1.0 / jnp.sqrt(count + 1.0))

    return rate


class Sm3State(NamedTuple):
    """State of `sm3`.

    Attributes:
      largest: For each leaf, a tuple with one array per axis. For each index along the
        axis, the array has the largest s_t of all entries of the leaf with this index.
        For a matrix, these are the largest s_t of each row and of each column. s_t is
        the accumulated square of an entry of the gradient (see `sm3`). A leaf without
        axes has a tuple with one array of shape ().
      mu: Moving average m_t of the quotients g_t / √(s_t + ε), shaped like the params.
    """

    largest: Params
    mu: Params


@checked
def sm3(
    learning_rate: Scalar | Schedule,
    momentum: Scalar = 0.9,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformation:
    """Adagrad that stores one number for each row and each column of a matrix.

    s_t = min(r_(t-1), c_(t-1)) + g_t²,
    m_t = μ m_(t-1) + (1 - μ) g_t / √(s_t + ε),
    u_t = -η_t m_t, where g_t is an entry of the gradient, u_t the same entry of the
    update, η_t the learning rate and μ the momentum.

    Here r is the number stored for the row of the entry, and c the number stored for
    the column of the entry. Both r_0 and c_0 are 0. After step t, r_t is the largest
    s_t in the row, and c_t is the largest s_t in the column. If s_t is 0, the quotient
    in m_t is replaced by 0.

    In a leaf with more axes, one number is stored for each index along each axis, for
    example 2 + 3 + 4 numbers for the shape (2, 3, 4). The minimum is then taken over
    the numbers that are stored for the indices of the entry, one for each axis. For a
    vector or a scalar, s_t is the sum of the squared gradients, as in `adagrad` with
    initial_accumulator_value=0. For other leaves, s_t is at least this sum in every
    entry.

    SM3-II of Anil et al. has no ε, so eps=0 gives SM3-II. The authors' code has ε =
    1e-30. optax.sm3 is the same rule with ε = 1e-8, but it accepts neither a schedule
    nor a leaf without axes.

    Use it in place of Adam, or of Adagrad with momentum, if their state does not fit
    into memory, for example for large embeddings. For an (m, n) matrix, Adam and
    Adagrad with momentum store 2 m n numbers. SM3 stores m n numbers for the momentum,
    even if μ is 0, and m + n numbers in place of the sums of squares. So the state of
    SM3 is not smaller than that of Adagrad without momentum.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      momentum: Momentum μ in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Anil, Gupta, Koren & Singer, Memory-efficient adaptive optimization, NeurIPS 2019,
      algorithm SM3-II.
    Example:
      >>> rule, x = sm3(1.0, momentum=0.0, eps=0.0), jnp.zeros((2, 2))
      >>> g = jnp.array([[3.0, 0.0], [0.0, 3.0]])
      >>> updates, state = rule.update(g, rule.init(x))
      >>> print(rule.update(jnp.full((2, 2), 4.0), state)[0])
      [[-0.8 -0.8]
       [-0.8 -0.8]]
    """
    check_number("momentum", momentum, below=1.0)
    check_number("eps", eps)

    def init(params: Params):
        def zeros(x: Array):
            dtype = sizes_like(x).dtype
            return tuple(jnp.zeros(n, dtype) for n in jnp.shape(x) or [()])

        largest = jax.tree.map(zeros, params)
        return Sm3State(largest, jax.tree.map(jnp.zeros_like, params))

    def accumulate(g: Array, largest: tuple[Array, ...]):
        bound = functools.reduce(
            jnp.minimum, (_along(a, k, g.ndim) for k, a in enumerate(largest))
        )
        return bound + abs_square(g).astype(bound.dtype)

    def covered(g: Array, s: Array):
        others = (tuple(j for j in range(g.ndim) if j != k) for k in range(g.ndim))
        return tuple(jnp.max(s, axis=axes, initial=0.0) for axes in others) or (s,)

    def divide(g: Array, s: Array):
        return jnp.where(s == 0, 0.0, g / jnp.sqrt(s + cast(eps, s)))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        sums = jax.tree.map(accumulate, updates, state.largest)
        mu = moving_average(momentum, state.mu, jax.tree.map(divide, updates, sums))
        largest = jax.tree.map(covered, updates, sums)
        return jax.tree.map(like, mu, updates), Sm3State(largest, mu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


def _along(a: Array, axis: int, ndim: int) -> Array:
    """Reshape a vector to ndim axes: `axis` gets its length, the others length 1."""
    if ndim == 0:
        return a
    return jnp.expand_dims(a, [k for k in range(ndim) if k != axis])


RULES = (
    RuleEntry(
        adafactor,
        {
            "learning_rate": step_rate(0.01),
            "decay_rate": Range(0.5, 1.0, "linear", 0.8),
        },
    ),
    RuleEntry(
        sm3, {"learning_rate": Range(1e-4, 10.0, "log", 0.1), "momentum": MOMENTUM}
    ),
)
