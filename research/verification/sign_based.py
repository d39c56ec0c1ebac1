"""Formulas of Lion and ADOPT, from their papers."""

from collections.abc import Iterator
from itertools import count

import optax
import optax.contrib

from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, maximum, sign, sqrt, zeros_like


def lion(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
) -> Iterator[Leaves]:
    """Yield the iterates of Lion: algorithm 2 of Chen et al. (2023).

    The step is -learning_rate (sign(b1 m + (1 - b1) g) + weight_decay x), with the
    gradient g, the params x and the momentum m, which is 0 at the start. After the
    step, m becomes b2 m + (1 - b2) g.
    """
    m = zeros_like(x)
    while True:
        g = f.gradient(x)
        c, m = b1 * m + (1 - b1) * g, b2 * m + (1 - b2) * g
        x = x - learning_rate * (sign(c) + weight_decay * x)
        yield x


def adopt(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    use_clipping: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of ADOPT of Taniguchi et al. (2024).

    v is the moving average of the squared gradients. The first step does not move the
    params: v becomes the square of the first gradient, and the first iterate is the
    initial point. Each later step, counted by t = 1, 2, ..., divides the gradient by
    the larger of √v and `eps`, clips the quotient to ±t^(1/4), and moves against the
    moving average of these quotients. The square of the gradient of this step enters v
    only after this division. use_clipping=False leaves out the clipping.
    """
    m = zeros_like(x)
    v = f.gradient(x) ** 2
    yield x
    for t in count(1):
        g = f.gradient(x)
        d = g / maximum(sqrt(v), eps)
        if use_clipping:
            most = sqrt(sqrt(t))
            d = -maximum(-maximum(d, -most), -most)
        m = b1 * m + (1 - b1) * d
        x = x - learning_rate * m
        v = b2 * v + (1 - b2) * g**2
        yield x


CARDS = {
    "lion": Card(
        Formula(
            lion,
            (
                Mistake(
                    "the sign is of the long average",
                    "c, m = b1 * m + (1 - b1) * g",
                    "c, m = b2 * m + (1 - b2) * g",
                ),
                Mistake(
                    "the short average is kept",
                    "b2 * m + (1 - b2) * g\n",
                    "b1 * m + (1 - b1) * g\n",
                ),
                Mistake(
                    "the betas are swapped",
                    "b1 * m + (1 - b1) * g, b2 * m + (1 - b2) * g",
                    "b2 * m + (1 - b2) * g, b1 * m + (1 - b1) * g",
                ),
                Mistake("the weight decay is missing", " + weight_decay * x)", ")"),
                Mistake(
                    "the decay is not multiplied by the learning rate",
                    " + weight_decay * x)",
                    ") - weight_decay * x",
                ),
                Mistake("the sign is missing", "sign(c)", "c"),
            ),
        ),
        optax=optax.lion,
        recorded=(
            Recorded("lion/b1 0.9 b2 0.99 wd 0", {"weight_decay": 0.0}),
            Recorded("lion/wd 0.1", {"weight_decay": 0.1}),
        ),
        arguments={"b1": 0.5, "b2": 0.9, "weight_decay": 0.1},
    ),
    "adopt": Card(
        Formula(
            adopt,
            (
                Mistake(
                    "the divisor includes the square of this step",
                    "d = g / maximum(sqrt(v), eps)",
                    "v = b2 * v + (1 - b2) * g**2\n        d = g / maximum(sqrt(v), "
                    "eps)",
                ),
                Mistake(
                    "the clipping is missing, as in the first version",
                    "if use_clipping:",
                    "if False:",
                ),
                Mistake(
                    "ε is added to the root", "maximum(sqrt(v), eps)", "(sqrt(v) + eps)"
                ),
                Mistake("it clips to t, not to its fourth root", "sqrt(sqrt(t))", "t"),
                Mistake(
                    "clipping counts one step too many",
                    "sqrt(sqrt(t))",
                    "sqrt(sqrt(t + 1))",
                ),
                Mistake(
                    "the first average is the first divided gradient",
                    "m = b1 * m + (1 - b1) * d",
                    "m = b1 * m + (1 - b1) * d if t > 1 else d",
                ),
            ),
        ),
        optax=optax.contrib.adopt,
        recorded="torch and timm's recorded rules do not include ADOPT",
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "use_clipping": False},
    ),
}
