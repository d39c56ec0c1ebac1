"""Formulas of gradient descent, momentum and sign descent, from their papers."""

from collections.abc import Iterable, Iterator
from itertools import count

import jax.numpy as jnp
import mpmath
import optax

from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (  # noqa: F401, the mistakes use them
    Leaves,
    absolute,
    dot,
    entrywise,
    norm,
    sign,
    sqrt,
    zeros_like,
)


def gradient_descent(x: Leaves, f: Function, learning_rate: float) -> Iterator[Leaves]:
    """Yield the iterates of gradient descent by Cauchy (1847): x <- x - η g.

    g is the gradient at x, and η the learning rate.
    """
    while True:
        x = x - learning_rate * f.gradient(x)
        yield x


def heavy_ball(
    x: Leaves, f: Function, learning_rate: float, momentum: float = 0.9
) -> Iterator[Leaves]:
    """Yield the iterates of the heavy ball: equation (9) of Polyak (1964).

    The step is x_(t+1) = x_t - η g_t + μ (x_t - x_(t-1)), where g_t is the gradient at
    x_t, η the learning rate and μ the momentum. The first step has x_(t-1) = x_t.
    """
    before = x
    while True:
        x, before = x - learning_rate * f.gradient(x) + momentum * (x - before), x
        yield x


def nesterov(
    x: Leaves, f: Function, learning_rate: float, momentum: float = 0.9
) -> Iterator[Leaves]:
    """Yield the iterates of equations (3)-(4) of Sutskever et al. (2013).

    The rule is Nesterov's momentum. The iterates are the points y_t = x_t + μ v_t at
    which the gradient is taken. Here x_t are the params of the paper, v_t is the
    velocity and μ the momentum.
    """
    y, v = x, zeros_like(x)
    while True:
        v_next = momentum * v - learning_rate * f.gradient(y)
        x = x + v_next
        y, v = x + momentum * v_next, v_next
        yield y


def ema_momentum(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    undamped_start: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of descent along a moving average of gradients.

    The average is that of algorithm 1 of Kingma & Ba (2015), without the bias
    correction. The decay rate of the average is `momentum`. With undamped_start=True,
    the average starts at the first gradient, as in torch. Otherwise the average starts
    at 0.
    """
    m = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = g if undamped_start and t == 1 else momentum * m + (1 - momentum) * g
        x = x - learning_rate * m
        yield x


def sign_descent(x: Leaves, f: Function, learning_rate: float) -> Iterator[Leaves]:
    """Yield the iterates of sign descent: algorithm 1 of Bernstein et al. (2018).

    The step is x <- x - η sign(g), where g is the gradient and η the learning rate.
    """
    while True:
        g = f.gradient(x)
        x = x - learning_rate * sign(g)
        yield x


def signum(
    x: Leaves, f: Function, learning_rate: float, momentum: float = 0.9
) -> Iterator[Leaves]:
    """Yield the iterates of Signum: algorithm 2 of Bernstein et al. (2018).

    The steps are m <- μ m + (1 - μ) g and x <- x - η sign(m), where g is the gradient,
    μ the momentum and η the learning rate. m starts at 0.
    """
    m = zeros_like(x)
    while True:
        g = f.gradient(x)
        m = momentum * m + (1 - momentum) * g
        x = x - learning_rate * sign(m)
        yield x


DAMPENED = "momentum/dampening 0.9 (torch) vs EMA trace (optax)"


def averaged(
    learning_rate: float, momentum: float = 0.9, undamped_start: bool = False
) -> optax.GradientTransformation:
    """Return the same rule as `ema_momentum`, made of parts of optax.

    With undamped_start=True, the first gradient is divided by 1 - momentum before it is
    averaged, so the average starts at the first gradient.
    """
    average = optax.ema(momentum, debias=False)
    if not undamped_start:
        return optax.chain(average, optax.sgd(learning_rate))
    at_first = optax.scale_by_schedule(
        lambda t: jnp.where(t == 0, 1.0 / (1.0 - momentum), 1.0)
    )
    return optax.chain(at_first, average, optax.sgd(learning_rate))


def signed_average(
    learning_rate: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Return the rule of optax.signum, made of other parts of optax.

    optax 0.2.6 has these parts, but not optax.signum. The argument `momentum` is the
    argument `beta` of optax.signum.
    """
    return optax.chain(
        optax.ema(momentum, debias=False),
        optax.scale_by_sign(),
        optax.sgd(learning_rate),
    )


# A multiple of 2^-6. On the quadratic all iterates are then exact, and a gradient is 0
# in both trajectories or in neither.
EXACT = {"quadratic": 3 / 64}


def noisy_sgd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    draws: Iterable[Leaves],
    eta: float = 0.01,
    gamma: float = 0.55,
) -> Iterator[Leaves]:
    """Yield the iterates of noisy SGD: equation (1) of Neelakantan et al. (2015).

    Step t = 1, 2, ... adds normal noise of the variance η / t^γ to the gradient, where
    `eta` and `gamma` are the paper's η and γ. For each step, `draws` has one `Leaves`
    of standard normal numbers, in the shapes of the leaves of x.
    """
    for t, noise in enumerate(draws, 1):
        deviation = sqrt(eta / mpmath.mpf(t) ** gamma)
        x = x - learning_rate * (f.gradient(x) + deviation * noise)
        yield x


CARDS = {
    "gradient_descent": Card(
        Formula(
            gradient_descent,
            (
                Mistake(
                    "the step goes up the gradient",
                    "x - learning_rate",
                    "x + learning_rate",
                ),
                Mistake("the gradient is halved", "f.gradient(x)", "f.gradient(x) / 2"),
                Mistake(
                    "the sign of the gradient replaces the gradient",
                    "f.gradient(x)",
                    "sign(f.gradient(x))",
                ),
            ),
        ),
        optax=optax.sgd,
        recorded=(Recorded("sgd/plain"),),
        unit_steps=False,
    ),
    "heavy_ball": Card(
        Formula(
            heavy_ball,
            (
                Mistake(
                    "the gradient is damped by 1 - momentum, as in an average",
                    "learning_rate * f.gradient(x)",
                    "(1 - momentum) * learning_rate * f.gradient(x)",
                ),
                Mistake("no momentum", "+ momentum * (x - before)", ""),
                Mistake("momentum is subtracted", "+ momentum * (x", "- momentum * (x"),
                Mistake(
                    "it looks ahead, as Nesterov's rule does",
                    "f.gradient(x) + momentum * (x - before), x",
                    "f.gradient(x + momentum * (x - before)) + momentum * (x - "
                    "before), x",
                ),
            ),
        ),
        optax=lambda learning_rate, momentum=0.9: optax.sgd(learning_rate, momentum),
        recorded=(Recorded("momentum/heavy ball 0.9"),),
        arguments={"momentum": 0.5},
        unit_steps=False,
    ),
    "nesterov": Card(
        Formula(
            nesterov,
            (
                Mistake(
                    "it does not look ahead: this is the heavy ball",
                    "x + momentum * v_next",
                    "x",
                ),
                Mistake(
                    "it looks ahead along the old velocity",
                    "x + momentum * v_next",
                    "x + momentum * v",
                ),
                Mistake(
                    "the gradient is damped by 1 - momentum, as in an average",
                    "learning_rate * f.gradient(y)",
                    "(1 - momentum) * learning_rate * f.gradient(y)",
                ),
            ),
        ),
        optax=lambda learning_rate, momentum=0.9: optax.sgd(
            learning_rate, momentum, nesterov=True
        ),
        recorded=(Recorded("nesterov/0.9"),),
        arguments={"momentum": 0.5},
        unit_steps=False,
    ),
    "ema_momentum": Card(
        Formula(
            ema_momentum,
            (
                Mistake(
                    "the gradient is not damped: this is the heavy ball",
                    "(1 - momentum) * g",
                    "g",
                ),
                Mistake(
                    "momentum and 1 - momentum are swapped",
                    "momentum * m + (1 - momentum) * g",
                    "(1 - momentum) * m + momentum * g",
                ),
                Mistake(
                    "the average is corrected for its start at 0",
                    "learning_rate * m",
                    "learning_rate * m / (1 - momentum**t)",
                ),
                Mistake(
                    "it looks ahead, as Nesterov's rule does",
                    "learning_rate * m",
                    "learning_rate * (momentum * m + (1 - momentum) * g)",
                ),
            ),
        ),
        optax=averaged,
        recorded=(Recorded(DAMPENED, {"undamped_start": True}),),
        arguments={"momentum": 0.5, "undamped_start": True},
        unit_steps=False,
    ),
    "sign_descent": Card(
        Formula(
            sign_descent,
            (
                Mistake(
                    "the gradient is divided by its norm, not by its size in each "
                    "coordinate",
                    "learning_rate * sign(g)",
                    "learning_rate * g / norm(g)",
                ),
                Mistake(
                    "the sign of 0 is -1, not 0",
                    "learning_rate * sign(g)",
                    "learning_rate * entrywise(lambda a: 1 if a > 0 else -1, g)",
                ),
                Mistake(
                    "the sign is softened: g / (|g| + 1e-8)",
                    "learning_rate * sign(g)",
                    "learning_rate * g / (absolute(g) + 1e-8)",
                ),
                Mistake(
                    "the step is multiplied by the sum of sizes |g|_1",
                    "learning_rate * sign(g)",
                    "learning_rate * dot(g, sign(g)) * sign(g)",
                ),
            ),
        ),
        optax=optax.sign_sgd,
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        rates=EXACT,
    ),
    "signum": Card(
        Formula(
            signum,
            (
                Mistake(
                    "no average: the sign is the gradient's",
                    "learning_rate * sign(m)",
                    "learning_rate * sign(g)",
                ),
                Mistake(
                    "signs are averaged, not gradients",
                    "(1 - momentum) * g",
                    "(1 - momentum) * sign(g)",
                ),
                Mistake(
                    "momentum and 1 - momentum are swapped",
                    "momentum * m + (1 - momentum) * g",
                    "(1 - momentum) * m + momentum * g",
                ),
                Mistake(
                    "it looks ahead, as Nesterov's rule does",
                    "learning_rate * sign(m)",
                    "learning_rate * sign(momentum * m + (1 - momentum) * g)",
                ),
                Mistake(
                    "the gradient is averaged and no sign is taken",
                    "learning_rate * sign(m)",
                    "learning_rate * m",
                ),
            ),
        ),
        optax=signed_average,
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        arguments={"momentum": 0.5},
        rates=EXACT,
    ),
    "noisy_sgd": Card(
        Formula(
            noisy_sgd,
            (
                Mistake("the variance does not fall", " / mpmath.mpf(t) ** gamma", ""),
                Mistake(
                    "the noise is multiplied by the variance, not by its root",
                    "sqrt(eta",
                    "(eta",
                ),
                Mistake(
                    "t is counted from 0",
                    "enumerate(draws, 1)",
                    "enumerate(draws, 2)",
                ),
                Mistake(
                    "the noise is not multiplied by the rate",
                    "learning_rate * (f.gradient(x) + deviation * noise)",
                    "learning_rate * f.gradient(x) - deviation * noise",
                ),
            ),
        ),
        optax=(
            "optax.noisy_sgd draws other numbers from its key, of the same distribution"
        ),
        recorded="torch and timm have no rule that adds noise to the gradient",
    ),
}
