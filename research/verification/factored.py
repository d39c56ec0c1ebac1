"""Formulas of Adafactor and SM3, from their papers."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax

from research.types import Array, Params
from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (
    Leaf,
    Leaves,
    Number,
    by_leaf,
    entrywise,
    sqrt,
    zeros_like,
)


def adafactor(
    x: Leaves,
    f: Function,
    learning_rate: float,
    decay_rate: float = 0.8,
    min_dim_size_to_factor: int | None = None,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float = 1.0,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    eps: float = 1e-30,
    min_scale: float = 1e-3,
    relative_step: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of Adafactor: algorithms 4 and 5 of Shazeer & Stern (2018).

    The paper uses relative_step=True, no momentum and no weight decay. With
    relative_step=True, the rate is at most 1 / √t in step t. The gradient is divided by
    the root of V, a moving average of the squared gradients. In step t, the decay of
    this average is 1 - t^(-decay_rate). If two axes of a leaf have at least the length
    `min_dim_size_to_factor` (None means 128), V is replaced by r cᵀ / mean(r). Here r
    contains the means of the rows of V, and c those of the columns. A step whose root
    mean square exceeds `clipping_threshold` is scaled down to this value. With
    multiply_by_parameter_scale=True, the step is multiplied by the root mean square of
    the leaf, or by `min_scale` if `min_scale` is larger.

    This function keeps the whole V, and computes r and c from V in each step. The paper
    keeps moving averages of the row and column means of the squared gradients. Because
    means are linear, these averages are equal to r and c.
    """
    m = v = zeros_like(x)
    least = 128 if min_dim_size_to_factor is None else min_dim_size_to_factor
    for t in count(1):
        g = f.gradient(x)
        newest = mpmath.mpf(t) ** -decay_rate
        v = (1 - newest) * v + newest * (g**2 + eps)
        d = g / sqrt(by_leaf(lambda a: rank_one(a, least), v))
        d = by_leaf(lambda a: a / larger(1, rms(a) / clipping_threshold), d)
        if multiply_by_parameter_scale:
            d = by_leaf(lambda a, y: larger(min_scale, rms(y)) * a, d, x)
        m = d if momentum is None else momentum * m + (1 - momentum) * d
        rate = learning_rate
        if relative_step:
            rate = min(rate, 1 / sqrt(mpmath.mpf(t)))
        x = x - rate * (m + weight_decay * x)
        yield x


def rank_one(v: Leaf, least: int):
    """Return r cᵀ / mean(r), an approximation of a matrix v.

    r contains the mean of each row of v, and c the mean of each column. If v has more
    than two axes, the two longest axes are those of the rows and columns. Each index of
    the other axes gives one matrix, which is approximated separately. If fewer than two
    axes of v have a length of at least `least`, v is returned unchanged.
    """
    axes = np.argsort(v.shape, kind="stable")[-2:]
    if v.ndim < 2 or min(v.shape[k] for k in axes) < least:
        return v
    second, longest = axes
    rows, columns = mean(v, longest), mean(v, second)
    return rows * columns / mean(rows, second)


def mean(v: Leaf, axis: int):
    """Return the mean along an axis, which is kept with length 1."""
    return np.sum(v, axis=axis, keepdims=True) / v.shape[axis]


def rms(a: Leaf):
    """Return the root of the mean square of an array; 0 if it has no entries."""
    return mpmath.sqrt(mpmath.fsum(e * e for e in a.flat) / max(a.size, 1))


def larger(a: Number, b: Number):
    """Return the larger number; NaN if either is NaN."""
    return a + b if mpmath.isnan(a + b) else max(a, b)


def sm3(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    eps: float = 1e-8,
) -> Iterator[Leaves]:
    """Yield the iterates of algorithm SM3-II of Anil et al. (2019), with momentum.

    The paper stores, for each row and each column of a matrix, the maximum of the
    accumulated squared gradients s. This function stores all of s, and computes the
    maxima again in each step. The paper divides the gradient by √s. This function
    divides the gradient by √(s + ε), as in optax.
    """
    s = m = zeros_like(x)
    while True:
        g = f.gradient(x)
        s = by_leaf(cover, s) + g**2
        quotient = entrywise(lambda a, b: 0 if b == 0 else a / sqrt(b + eps), g, s)
        m = momentum * m + (1 - momentum) * quotient
        x = x - learning_rate * m
        yield x


def cover(s: Leaf):
    """Return a bound for each entry of s: the smallest maximum of its slices.

    s is the array of one leaf. A slice has all entries with the same position on one
    axis. In a matrix, the slices are the rows and the columns. Each slice that contains
    an entry has a maximum, and the bound for the entry is the smallest of these maxima.
    """
    bound = s
    for axis in range(s.ndim if s.size else 0):
        others = tuple(k for k in range(s.ndim) if k != axis)
        if others:
            largest = np.broadcast_to(_max(s, others), s.shape)
            bound = largest if axis == 0 else _smaller(bound, largest)
    return bound


def _max(s: Leaf, axes: Iterable[int]):
    """Return np.max over axes, but NaN if an entry is NaN."""
    for axis in axes:
        s = np.expand_dims(_larger.reduce(s, axis), axis)
    return s


_larger = np.frompyfunc(larger, 2, 1)
_smaller = np.frompyfunc(lambda a, b: -larger(-a, -b), 2, 1)


def optax_adafactor(
    learning_rate: float,
    decay_rate: float = 0.8,
    min_dim_size_to_factor: int = 128,
    clipping_threshold: float = 1.0,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    eps: float = 1e-30,
) -> optax.GradientTransformation:
    """Return optax.adafactor, built from its parts, with a more accurate t^-c.

    t is the step number, and c is decay_rate. optax computes this power in float32, so
    in float64 the updates would have a relative error of about 1e-7. Here the power has
    JAX's default float dtype, which is float64 if JAX's float64 is on. optax does not
    multiply the weight decay by the learning rate, but this function does.
    """

    def decay_at(count: Any, exponent: Any):
        return 1.0 - (count + jnp.ones((), float)) ** -exponent

    links = [
        optax.scale_by_factored_rms(
            True, decay_rate, 0, min_dim_size_to_factor, eps, decay_at
        ),
        optax.clip_by_block_rms(clipping_threshold),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.scale_by_param_block_rms(),
    ]
    if momentum is not None:
        links.append(optax.ema(momentum, debias=False))
    if weight_decay:
        links.append(optax.add_decayed_weights(learning_rate * weight_decay))
    return optax.chain(*links, optax.scale(-1))


def optax_sm3(
    learning_rate: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Return optax.sm3, extended to leaves without axes.

    Such a leaf is passed to optax.sm3 as a vector with one entry. Where a gradient or
    an accumulated sum of squares is NaN, optax.sm3 gives the update 0, and this rule
    gives NaN.
    """
    rule = optax.sm3(learning_rate, momentum)
    vectors = lambda tree: jax.tree.map(jnp.atleast_1d, tree)

    def show_nan(u: Array, g: Array, largest: Sequence[Array]):
        unknown = jnp.isnan(vectors(g))
        for axis, numbers in enumerate(largest):
            others = [k for k in range(unknown.ndim) if k != axis]
            unknown |= jnp.expand_dims(jnp.isnan(numbers.reshape(-1)), others)
        return jnp.where(unknown, jnp.nan, u).reshape(g.shape)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        moved, after = rule.update(vectors(updates), state)
        return jax.tree.map(show_nan, moved, updates, state[0].mu), after

    return optax.GradientTransformation(
        lambda params: rule.init(vectors(params)), update
    )


CARDS = {
    "adafactor": Card(
        Formula(
            adafactor,
            (
                Mistake(
                    "the second moment is not factored",
                    "by_leaf(lambda a: rank_one(a, least), v)",
                    "v",
                ),
                Mistake(
                    "β_t counts t from 0, so the second step forgets the first",
                    "mpmath.mpf(t) ** -decay_rate",
                    "mpmath.mpf(max(t - 1, 1)) ** -decay_rate",
                ),
                Mistake(
                    "β is constant",
                    "newest = mpmath.mpf(t) ** -decay_rate",
                    "newest = 1 - decay_rate",
                ),
                Mistake(
                    "the update is not clipped",
                    "a / larger(1, rms(a) / clipping_threshold)",
                    "a",
                ),
                Mistake(
                    "the norm is limited, not the root mean square",
                    "rms(a) / clipping_threshold",
                    "rms(a) * sqrt(mpmath.mpf(a.size)) / clipping_threshold",
                ),
                Mistake(
                    "the gradient is clipped, not the update",
                    "a / larger(1, rms(a) / clipping_threshold), d)",
                    "a / larger(1, rms(a) / clipping_threshold), g)",
                ),
                Mistake(
                    "the step is not multiplied by the size of the params",
                    "larger(min_scale, rms(y)) * a",
                    "a",
                ),
                Mistake(
                    "the size of the params is a norm, not a root mean square",
                    "larger(min_scale, rms(y))",
                    "larger(min_scale, rms(y) * sqrt(mpmath.mpf(y.size)))",
                ),
                Mistake(
                    "the decay is not multiplied by the learning rate, as in optax",
                    "x = x - rate * (m + weight_decay * x)",
                    "x = x - rate * m - weight_decay * x",
                ),
            ),
        ),
        optax=optax_adafactor,
        recorded="the Adafactor of torch, timm and transformers is not recorded",
        arguments={
            "decay_rate": 0.5,
            "min_dim_size_to_factor": 2,
            "clipping_threshold": 0.5,
            "momentum": 0.5,
            "weight_decay": 0.1,
            "eps": 0.001,
        },
        # Near the minimum the clip and the short memory make larger steps chaotic.
        rates={"quadratic": 0.01},
    ),
    "sm3": Card(
        Formula(
            sm3,
            (
                Mistake(
                    "every entry has its own sum: this is Adagrad with momentum",
                    "by_leaf(cover, s) + g**2",
                    "s + g**2",
                ),
                Mistake(
                    "the quotient is not multiplied by 1 - momentum",
                    "(1 - momentum) * quotient",
                    "quotient",
                ),
                Mistake(
                    "the newest squares are added after the step",
                    "s = by_leaf(cover, s) + g**2\n        quotient = entrywise(lambda "
                    "a, b: 0 if b == 0 else a / sqrt(b + eps), g, s)",
                    "s = by_leaf(cover, s)\n        quotient = entrywise(lambda a, "
                    "b: 0 if b == 0 else a / sqrt(b + eps), g, s)\n        s = s + "
                    "g**2",
                ),
                Mistake(
                    "ε stands outside the root", "sqrt(b + eps)", "(sqrt(b) + eps)"
                ),
                Mistake("the square root is missing", "sqrt(b + eps)", "(b + eps)"),
                Mistake(
                    "the gradient is averaged, not the quotient",
                    "quotient = entrywise(lambda a, b: 0 if b == 0 else a / sqrt(b + "
                    "eps), g, s)\n        "
                    "m = momentum * m + (1 - momentum) * quotient\n        "
                    "x = x - learning_rate * m",
                    "m = momentum * m + (1 - momentum) * g\n        x = x - "
                    "learning_rate * entrywise(lambda a, b: 0 if b == 0 else a / "
                    "sqrt(b + eps), m, s)",
                ),
            ),
        ),
        optax=optax_sm3,
        recorded="no package with recorded trajectories has SM3",
        arguments={"momentum": 0.5},
    ),
}
