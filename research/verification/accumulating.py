"""Formulas of AdaGrad, Adadelta, RMSProp and MADGRAD, from their papers.

Where optax differs from a paper, an argument chooses between the two.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import jax.numpy as jnp
import mpmath
import optax
import optax.contrib

from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.from_zero import from_zero
from research.verification.leaves import (
    Leaves,
    Number,
    entrywise,
    maximum,
    sqrt,
    zeros_like,
)


def adagrad(
    x: Leaves,
    f: Function,
    learning_rate: float,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    eps_in_sqrt: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaGrad: figure 1 of Duchi, Hazan & Singer (2011).

    The accumulator is the sum s of the squared gradients, and starts at
    `initial_accumulator_value`. The gradient is divided by √(s + ε) with
    eps_in_sqrt=True, and by √s + ε with False. The paper has eps_in_sqrt=False and an
    accumulator that starts at 0.
    """
    s = zeros_like(x) + initial_accumulator_value
    while True:
        g = f.gradient(x)
        s = s + g**2
        root = sqrt(s + eps) if eps_in_sqrt else sqrt(s) + eps
        x = x - learning_rate * entrywise(
            lambda a, b, c: 0 if b == 0 else a / c, g, s, root
        )
        yield x


def adadelta(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
) -> Iterator[Leaves]:
    """Yield the iterates of Adadelta: algorithm 1 of Zeiler (2012).

    The step is -g RMS[Δx] / RMS[g]. Here g is the gradient, and Δx are the earlier
    steps. RMS[a] = √(E[a²] + ε) is equation (9), where E[a²] is a moving average of a²
    with the decay rate `rho`. The step is then multiplied by `learning_rate`, but
    E[Δx²] is the average of the squared steps without this factor. The paper has no
    learning rate.
    """
    of_g = of_dx = zeros_like(x)
    while True:
        g = f.gradient(x)
        of_g = rho * of_g + (1 - rho) * g**2
        dx = -sqrt(of_dx + eps) / sqrt(of_g + eps) * g
        of_dx = rho * of_dx + (1 - rho) * dx**2
        x = x + learning_rate * dx
        yield x


def rmsprop(
    x: Leaves,
    f: Function,
    learning_rate: float,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    rate_in_momentum: bool = True,  # The same, since the rate is constant here.
) -> Iterator[Leaves]:
    """Yield the iterates of RMSProp: slide 29 of Tieleman & Hinton (2012).

    The average of the squared gradients has the decay rate `decay`, starts at
    `initial_scale`, and is divided by 1 - decay^t in step t if bias_correction=True.
    With centered=True, the square of the average gradient is subtracted from the
    average of the squares, as in Graves (2013), equations (38)-(41). eps_in_sqrt=True
    adds ε under the square root, and False adds ε to the root. Let u_t be the step
    without momentum, and μ the argument `momentum`. If μ is None, the step is u_t.
    Otherwise the step is b_t = μ b_(t-1) + u_t, or u_t + μ b_t if nesterov=True.
    With rate_in_momentum=True, the learning rate is a factor of each u_t. With False,
    the learning rate is instead a factor of the sum b_t. Because the rate is constant
    here, both give the same steps.
    """
    n, m, b = zeros_like(x) + initial_scale, zeros_like(x), zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        n = decay * n + (1 - decay) * g**2
        m = decay * m + (1 - decay) * g
        c = 1 - decay**t if bias_correction else 1
        v = maximum(n / c - (m / c) ** 2, 0) if centered else n / c
        u = learning_rate * g / (sqrt(v + eps) if eps_in_sqrt else sqrt(v) + eps)
        if momentum is not None:
            b = momentum * b + u
            u = u + momentum * b if nesterov else b
        x = x - u
        yield x


_OUTSIDE = {"eps_in_sqrt": False}


def madgrad(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    eps: float = 1e-6,
    eps_in_rate: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of MADGRAD: algorithm 1 of Defazio & Jelassi (2022).

    ε is added to the divisor, the cube root of the weighted sum of squared gradients.
    With eps_in_rate=True, ε is added to the learning rate, too, as in the authors'
    code. The paper has eps_in_rate=False.
    """
    start = x
    s = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x) + weight_decay * x
        w = (learning_rate + (eps if eps_in_rate else 0)) * sqrt(mpmath.mpf(t))
        s = s + w * g
        v = v + w * g**2
        z = start - s / (entrywise(root, v) + eps)
        x = momentum * x + (1 - momentum) * z
        yield x


def root(v: Number):
    """Return the cube root of a number; NaN for NaN."""
    return v if mpmath.isnan(v) else mpmath.cbrt(v)


def optax_madgrad(
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    eps: float = 1e-6,
) -> optax.GradientTransformation:
    """Return optax.contrib.madgrad, called with x_t - x_0 in place of the params x_t.

    optax computes x_(t+1) from the stored initial params x_0, and returns the update
    x_(t+1) - x_t. If x_0 is large, small updates lose digits in this subtraction. Here
    `from_zero` adds up the updates, and passes the sum so far, x_t - x_0, to optax. The
    x_0 that optax stores is then 0, so optax subtracts no large params. Only the weight
    decay gets x_t. optax computes √t in float32, so in float64 the updates would
    have a relative error of about 1e-7. optax therefore gets a schedule as its rate,
    which replaces √t in float32 by √t in float64.
    """

    def rate(count: Any):
        rounded = jnp.sqrt(count + 1).astype(float)
        return (learning_rate + eps) * jnp.sqrt(count + 1.0) / rounded - eps

    rule = optax.contrib.scale_by_madgrad(rate, momentum, eps)
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, from_zero(rule, "x0"))


CARDS = {
    "adagrad": Card(
        Formula(
            adagrad,
            (
                Mistake(
                    "ε is outside the root", "sqrt(s + eps) if", "sqrt(s) + eps if"
                ),
                Mistake(
                    "the sum of squares starts at 0",
                    "zeros_like(x) + initial_accumulator_value",
                    "zeros_like(x)",
                ),
                Mistake(
                    "the sum of squares is one step late",
                    "sqrt(s + eps) if",
                    "sqrt(s - g**2 + eps) if",
                ),
                Mistake("the square root is missing", "sqrt(s + eps) if", "s + eps if"),
            ),
        ),
        optax=optax.adagrad,
        recorded=(
            Recorded(
                "adagrad/library defaults",
                {"initial_accumulator_value": 0.0, "eps": 1e-10, **_OUTSIDE},
            ),
            Recorded(
                "adagrad/matched accumulator 0, eps 0.01",
                {"initial_accumulator_value": 0.0, "eps": 0.01, **_OUTSIDE},
            ),
        ),
        arguments={"initial_accumulator_value": 0.5, "eps": 0.01},
    ),
    "adadelta": Card(
        Formula(
            adadelta,
            (
                Mistake(
                    "ε is outside the upper root",
                    "sqrt(of_dx + eps)",
                    "(sqrt(of_dx) + eps)",
                ),
                Mistake(
                    "ε is outside the lower root",
                    "sqrt(of_g + eps)",
                    "(sqrt(of_g) + eps)",
                ),
                Mistake(
                    "ε is missing in the numerator", "sqrt(of_dx + eps)", "sqrt(of_dx)"
                ),
                Mistake(
                    "the steps are not averaged: their sum grows",
                    "rho * of_dx + (1 - rho) * dx**2",
                    "of_dx + dx**2",
                ),
                Mistake(
                    "rho and 1 - rho are swapped",
                    "rho * of_g + (1 - rho) * g**2",
                    "(1 - rho) * of_g + rho * g**2",
                ),
                Mistake(
                    "the numerator is missing: this is RMSProp",
                    "-sqrt(of_dx + eps) /",
                    "-1 /",
                ),
            ),
        ),
        optax=optax.adadelta,
        recorded=(Recorded("adadelta/rho 0.9 eps 1e-6"),),
        arguments={"rho": 0.5, "eps": 0.01},
    ),
    "rmsprop": Card(
        Formula(
            rmsprop,
            (
                Mistake(
                    "ε is outside the root", "sqrt(v + eps) if", "sqrt(v) + eps if"
                ),
                Mistake(
                    "decay and 1 - decay are swapped",
                    "decay * n + (1 - decay)",
                    "(1 - decay) * n + decay",
                ),
                Mistake("the square root is missing", "sqrt(v + eps) if", "v + eps if"),
                Mistake(
                    "the average is corrected for starting at 0",
                    "1 - decay**t if bias_correction else 1",
                    "1 - decay**t",
                ),
                Mistake(
                    "the gradients' mean is subtracted: this is the centered rule",
                    " if centered else n / c",
                    "",
                ),
            ),
        ),
        optax=optax.rmsprop,
        recorded=(
            Recorded("rmsprop/library defaults", {"decay": 0.99, **_OUTSIDE}),
            Recorded(
                "rmsprop/matched decay 0.9 eps 0.001, eps_in_sqrt=False",
                {"eps": 0.001, **_OUTSIDE},
            ),
            Recorded(
                "rmsprop/eps 0.001, eps_in_sqrt default", {"eps": 0.001, **_OUTSIDE}
            ),
            Recorded(
                "rmsprop/momentum 0.9, eps outside",
                {"eps": 1e-6, "momentum": 0.9, "rate_in_momentum": False, **_OUTSIDE},
            ),
            Recorded(
                "rmsprop_centered/eps 0.01 outside",
                {"eps": 0.01, "centered": True, **_OUTSIDE},
            ),
            Recorded(
                "rmsprop_centered/eps 0.01, optax default placement",
                {"eps": 0.01, "centered": True, **_OUTSIDE},
            ),
        ),
        arguments={
            "decay": 0.5,
            "eps": 0.01,
            "initial_scale": 1.0,
            "eps_in_sqrt": False,
            "centered": True,
            "momentum": 0.5,
            "nesterov": True,
        },
        # At 0.05 the rule reaches the minimum within 50 steps. There it divides a
        # gradient of rounding errors by its own size.
        rates={"quadratic": 0.02, "softmax_regression": 0.02},
    ),
    "madgrad": Card(
        Formula(
            madgrad,
            (
                Mistake(
                    "the root is square, not cubic", "entrywise(root, v)", "sqrt(v)"
                ),
                Mistake("the weights do not grow", "* sqrt(mpmath.mpf(t))", ""),
                Mistake(
                    "ε is not added to the rate, as in the paper",
                    "(learning_rate + (eps if eps_in_rate else 0))",
                    "learning_rate",
                ),
                Mistake(
                    "the squares are weighted by the square of the weight",
                    "v + w * g**2",
                    "v + (w * g) ** 2",
                ),
                Mistake(
                    "it averages from the last point, not from the start",
                    "z = start - s",
                    "z = x - s",
                ),
                Mistake(
                    "momentum and 1 - momentum are swapped",
                    "momentum * x + (1 - momentum) * z",
                    "(1 - momentum) * x + momentum * z",
                ),
                Mistake(
                    "there is no weight decay",
                    "f.gradient(x) + weight_decay * x",
                    "f.gradient(x)",
                ),
            ),
        ),
        optax=optax_madgrad,
        recorded="the authors' package is for torch, and is not recorded",
        arguments={"momentum": 0.5, "weight_decay": 0.1, "eps": 0.01},
        # Measured in bfloat16: 5.1 eps from optax, and 1.6 and 4.7 from the exact rule.
        bounds={"bfloat16": 8.0},
    ),
}
