"""Formulas of LARS, NovoGrad and Fromage, from their papers."""

from collections.abc import Iterator
from itertools import count

import mpmath
import numpy as np
import optax

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (
    Leaf,
    Leaves,
    Number,
    by_leaf,
    norm,
    sqrt,
    zeros_like,
)


def lars(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 1e-3,
    eps: float = 0.0,
    nesterov: bool = False,
    separate_norms: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of LARS: algorithm 1 of You, Gitman & Ginsburg (2017).

    Let g be the gradient of a leaf x. Then g + λ x is multiplied by the ratio
    c |x| / (|g| + λ |x| + ε) before momentum is applied. Here λ is the weight decay,
    and c is `trust_coefficient`. The ratio is 1 if |x| or |g| + λ |x| is 0. The paper
    has ε = 0. With separate_norms=False, |g + λ x| takes the place of |g| + λ |x|, as
    in optax.
    """
    v = zeros_like(x)
    while True:
        g = f.gradient(x)
        d = g + weight_decay * x
        divisor = by_leaf(size, d)
        if separate_norms:
            divisor = by_leaf(size, g) + weight_decay * by_leaf(size, x)
        local = by_leaf(
            lambda p, q: ratio(trust_coefficient * p, q, eps), by_leaf(size, x), divisor
        )
        step = learning_rate * by_leaf(lambda a, b: a * b, local, d)
        v = momentum * v + step
        x = x - (momentum * v + step if nesterov else v)
        yield x


def size(a: Leaf):
    """Return the Euclidean norm of the array a, one leaf of a pytree."""
    return norm(Leaves([a]))


def ratio(p: Number, q: Number, eps: Number):
    """Return p / (q + ε), or 1 if p or q is 0."""
    p, q = (np.asarray(e, object).item() for e in (p, q))
    return mpmath.mpf(1) if p == 0 or q == 0 else p / (q + eps)


def novograd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of NovoGrad: algorithm 1 of Ginsburg et al. (2019).

    `eps_root` is added under the square root, as in optax. The paper has no `eps_root`.
    """
    m = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        square = by_leaf(size, g) ** 2
        v = square if t == 1 else b2 * v + (1 - b2) * square
        d = by_leaf(lambda a, s: a / s, g, sqrt(v + eps_root) + eps)
        m = b1 * m + d + weight_decay * x
        x = x - learning_rate * m
        yield x


def fromage(
    x: Leaves, f: Function, learning_rate: float, min_norm: float = 1e-6
) -> Iterator[Leaves]:
    """Yield the iterates of Fromage: algorithm 1 of Bernstein et al. (2020).

    The step of a leaf x is -η |x| g / |g|, where g is its gradient and η the learning
    rate. A norm below `min_norm` is replaced by `min_norm`, as in optax. After the
    step, all leaves are divided by √(1 + η²).
    """
    while True:
        g = f.gradient(x)
        turned = by_leaf(
            lambda a, b: at_least(min_norm, a) / at_least(min_norm, b), x, g
        )
        step = by_leaf(lambda r, b: r * b, turned, g)
        x = (x - learning_rate * step) / sqrt(1 + learning_rate**2)
        yield x


def at_least(least: Number, a: Leaf):
    """Return the larger of a number and the norm of a leaf; NaN if the norm is NaN."""
    length = size(a)
    return length if mpmath.isnan(length) else max(least, length)


def optax_lars(
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 1e-3,
    eps: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Return optax.lars with the argument names of this library."""
    return optax.lars(
        learning_rate,
        weight_decay,
        trust_coefficient=trust_coefficient,
        eps=eps,
        momentum=momentum,
        nesterov=nesterov,
    )


_NO_RECORD = "neither torch nor the recorded rules of timm include the rule"


CARDS = {
    "lars": Card(
        Formula(
            lars,
            (
                Mistake(
                    "the ratio is inverted",
                    "ratio(trust_coefficient * p, q, eps), by_leaf(size, x), divisor)",
                    "ratio(trust_coefficient * p, q, eps), divisor, by_leaf(size, x))",
                ),
                Mistake(
                    "the step is multiplied by the rate twice",
                    "v = momentum * v + step",
                    "v = momentum * v + learning_rate * step",
                ),
                Mistake(
                    "the norms of gradient and decay are added, as in the paper",
                    "if separate_norms:",
                    "if True:",
                ),
                Mistake(
                    "the decay is decoupled from the ratio",
                    "v = momentum * v + step",
                    "v = momentum * v + step + learning_rate * weight_decay * x",
                ),
                Mistake(
                    "the sum is not multiplied by the momentum in the look-ahead",
                    "momentum * v + step if nesterov else v",
                    "v + step if nesterov else v",
                ),
                Mistake(
                    "the ratio is taken over all leaves at once",
                    "by_leaf(lambda a, b: a * b, local, d)",
                    "(trust_coefficient * norm(x) / (norm(d) + eps) * d)",
                ),
            ),
        ),
        optax=optax_lars,
        recorded=_NO_RECORD,
        arguments={
            "momentum": 0.5,
            "weight_decay": 0.1,
            "trust_coefficient": 0.01,
            "eps": 0.01,
            "nesterov": True,
            "separate_norms": False,
        },
        optax_arguments={
            "momentum": 0.5,
            "weight_decay": 0.1,
            "trust_coefficient": 0.01,
            "eps": 0.01,
            "nesterov": True,
        },
    ),
    "novograd": Card(
        Formula(
            novograd,
            (
                Mistake(
                    "the second moment starts from 0",
                    "v = square if t == 1 else b2 * v + (1 - b2) * square",
                    "v = (1 - b2) * square if t == 1 else b2 * v + (1 - b2) * square",
                ),
                Mistake(
                    "the norm is of all leaves at once",
                    "square = by_leaf(size, g) ** 2",
                    "square = by_leaf(lambda a: norm(g), g) ** 2",
                ),
                Mistake(
                    "each entry has its own second moment",
                    "square = by_leaf(size, g) ** 2",
                    "square = g**2",
                ),
                Mistake(
                    "the quotients are averaged, not added",
                    "m = b1 * m + d + weight_decay * x",
                    "m = b1 * m + (1 - b1) * (d + weight_decay * x)",
                ),
                Mistake(
                    "the decay does not go through the momentum",
                    (
                        "m = b1 * m + d + weight_decay * x\n        "
                        "x = x - learning_rate * m"
                    ),
                    (
                        "m = b1 * m + d\n        "
                        "x = x - learning_rate * (m + weight_decay * x)"
                    ),
                ),
                Mistake(
                    "the root is missing",
                    "sqrt(v + eps_root) + eps",
                    "v + eps_root + eps",
                ),
            ),
        ),
        optax=optax.novograd,
        recorded=_NO_RECORD,
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
        # The step of a leaf does not shrink at a minimum, where it is chaotic.
        rates={"quadratic": 0.01, "rosenbrock": 0.001, "softmax_regression": 0.02},
    ),
    "fromage": Card(
        Formula(
            fromage,
            (
                Mistake(
                    "the params are not divided by the root",
                    " / sqrt(1 + learning_rate**2)",
                    "",
                ),
                Mistake(
                    "the root is missing",
                    "sqrt(1 + learning_rate**2)",
                    "(1 + learning_rate**2)",
                ),
                Mistake(
                    "the gradient is not scaled to the params",
                    "at_least(min_norm, a) / at_least",
                    "1 / at_least",
                ),
                Mistake(
                    "the norms are of all leaves at once",
                    "step = by_leaf(lambda r, b: r * b, turned, g)",
                    "step = norm(x) / norm(g) * g",
                ),
                Mistake(
                    "only the step is divided by the root, not the params",
                    "(x - learning_rate * step) / sqrt(1 + learning_rate**2)",
                    "x - learning_rate * step / sqrt(1 + learning_rate**2)",
                ),
            ),
        ),
        optax=optax.fromage,
        recorded=_NO_RECORD,
        arguments={"min_norm": 0.25},
        # The step is a share of the leaf's length, even at a minimum.
        rates={"quadratic": 0.01, "softmax_regression": 0.01},
        # optax computes 1 / √(1 + η²) - 1 as a difference, which loses four digits at
        # η = 0.01 (measured: 99 eps).
        bounds={"optax": 1000.0},
    ),
}
