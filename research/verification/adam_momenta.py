"""Formulas of AdEMAMix, its simplified form, LaProp and MARS, from their papers."""

from collections.abc import Iterator
from itertools import count

import mpmath
import optax
import optax.contrib

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaf, Leaves, by_leaf, norm, sqrt, zeros_like


def ademamix(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
) -> Iterator[Leaves]:
    """Yield the iterates of algorithm 1 of Pagliardini, Ablin & Grangier (2025).

    The rule is AdEMAMix: Adam with two averages of the gradients, a fast one with the
    decay `b1` and a slow one with the decay β3 (`b3`). The slow average has the weight
    α (`alpha`). If warmup_steps > 0, α and β3 follow the schedulers in section 3 of the
    paper for this number of steps. `eps_root` is added under the square root, as in
    optax.
    """
    m = n = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        share = min(mpmath.mpf(t) / warmup_steps, 1) if warmup_steps else 1
        slow = b3
        if share < 1:
            of_b1, of_b3 = mpmath.log(b1), mpmath.log(b3)
            slow = mpmath.exp(of_b1 * of_b3 / ((1 - share) * of_b3 + share * of_b1))
        m = b1 * m + (1 - b1) * g
        n = slow * n + (1 - slow) * g
        v = b2 * v + (1 - b2) * g**2
        mixed = m / (1 - b1**t) + share * alpha * n
        step = mixed / (sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def simplified_ademamix(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.99,
    b2: float = 0.95,
    alpha: float = 0.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of the simplified AdEMAMix of Morwani et al. (2025).

    The momentum is m <- β1 m + g, where g is the gradient and β1 is `b1`. In the step,
    m + α g takes the place of the average of the gradients in Adam, where α is `alpha`.
    `eps_root` is added under the square root, as in optax.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + g
        v = b2 * v + (1 - b2) * g**2
        step = (m + alpha * g) / (sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def laprop(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-15,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of LaProp: algorithm 1 of Ziyin, Wang & Ueda (2020).

    Each gradient is first divided by √v̂ + ε, where v̂ is Adam's average of squared
    gradients with bias correction. Then these quotients are averaged, also with bias
    correction.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        v = b2 * v + (1 - b2) * g**2
        m = b1 * m + (1 - b1) * g / (sqrt(v / (1 - b2**t)) + eps)
        x = x - learning_rate * (m / (1 - b1**t) + weight_decay * x)
        yield x


def mars(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    gamma: float = 0.025,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    optimize_1d: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of the approximate MARS-AdamW of Yuan et al. (2024).

    Each gradient is corrected by its change since the last step, in proportion to
    `gamma`, and the corrected gradient of a leaf is clipped to the norm 1. As in timm
    before version 1.0.31, the first gradient is neither corrected nor clipped. With
    optimize_1d=False, leaves with fewer than two axes are updated by AdamW.
    """
    m = v = zeros_like(x)
    before = None
    for t in count(1):
        g = f.gradient(x)
        last = g if before is None else before
        c = g + gamma * b1 / (1 - b1) * (g - last)
        c = g if t == 1 else by_leaf(clipped, c)
        c = by_leaf(lambda a, b: a if optimize_1d or a.ndim >= 2 else b, c, g)
        before = g
        m = b1 * m + (1 - b1) * c
        v = b2 * v + (1 - b2) * c**2
        step = m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def clipped(a: Leaf):
    """Return an array divided by its norm if the norm exceeds 1 or is NaN.

    Otherwise the array is returned unchanged.
    """
    size = norm(Leaves([a]))
    return a if size <= 1 else a / size


_DECAY = (
    Mistake(
        "the decay is coupled: it is added to the gradient",
        "g = f.gradient(x)",
        "g = f.gradient(x) + weight_decay * x",
    ),
    Mistake(
        "the decay is not multiplied by the learning rate",
        " + weight_decay * x)",
        ") - weight_decay * x",
    ),
)


CARDS = {
    "ademamix": Card(
        Formula(
            ademamix,
            (
                Mistake(
                    "the slow average is corrected for its start, too",
                    "share * alpha * n",
                    "share * alpha * n / (1 - slow**t)",
                ),
                Mistake(
                    "there is no slow average: this is AdamW",
                    " + share * alpha * n",
                    "",
                ),
                Mistake(
                    "the slow average averages m, not the gradient",
                    "(1 - slow) * g",
                    "(1 - slow) * m",
                ),
                Mistake(
                    "the two averages are mixed with the weights 1 - α and α",
                    "m / (1 - b1**t) + share",
                    "(1 - alpha) * m / (1 - b1**t) + share",
                ),
                Mistake(
                    "no bias correction of the fast average",
                    "m / (1 - b1**t) + share",
                    "m + share",
                ),
                Mistake(
                    "no bias correction of the second moment", "v / (1 - b2**t)", "v"
                ),
                *_DECAY,
            ),
        ),
        optax=optax.contrib.ademamix,
        recorded="torch has none, and bitsandbytes' AdEMAMix is not recorded",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "b3": 0.95,
            "alpha": 2.0,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
    ),
    "simplified_ademamix": Card(
        Formula(
            simplified_ademamix,
            (
                Mistake(
                    "the gradients are averaged, not added",
                    "m = b1 * m + g",
                    "m = b1 * m + (1 - b1) * g",
                ),
                Mistake(
                    "the newest gradient has no weight of its own", " + alpha * g", ""
                ),
                Mistake(
                    "the sum is corrected for its start",
                    "(m + alpha * g)",
                    "(m / (1 - b1**t) + alpha * g)",
                ),
                Mistake(
                    "no bias correction of the second moment", "v / (1 - b2**t)", "v"
                ),
                Mistake(
                    "ε stands inside the root", "eps_root) + eps", "eps_root + eps)"
                ),
                *_DECAY,
            ),
        ),
        optax=optax.contrib.simplified_ademamix,
        recorded="torch and timm have no simplified AdEMAMix to record",
        # The sum of gradients magnifies rounding. With a processor's own instructions
        # for bfloat16, optax is 6.9 eps from the exact rule after twenty steps, this
        # rule 3.9.
        bounds={"bfloat16": 8.0},
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "alpha": 2.0,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
        # The sums make steps up to 100 times as long as Adam's, and chaotic where they
        # overshoot the minimum.
        rates={"quadratic": 0.005, "rosenbrock": 0.001, "softmax_regression": 0.01},
    ),
    "laprop": Card(
        Formula(
            laprop,
            (
                Mistake(
                    "the gradient is averaged, then divided: this is Adam",
                    "m = b1 * m + (1 - b1) * g / "
                    "(sqrt(v / (1 - b2**t)) + eps)\n        "
                    "x = x - learning_rate * (m / (1 - b1**t) + weight_decay * x)",
                    "m = b1 * m + (1 - b1) * g\n        "
                    "x = x - learning_rate * (m / (1 - b1**t) / (sqrt(v / (1 - "
                    "b2**t)) + eps) + weight_decay * x)",
                ),
                Mistake(
                    "no bias correction of the first moment", "m / (1 - b1**t)", "m"
                ),
                Mistake(
                    "no bias correction of the second moment",
                    "sqrt(v / (1 - b2**t))",
                    "sqrt(v)",
                ),
                Mistake(
                    "the quotients are added, not averaged",
                    "(1 - b1) * g / (sqrt",
                    "g / (sqrt",
                ),
                Mistake(
                    "ε stands inside the root",
                    "sqrt(v / (1 - b2**t)) + eps",
                    "sqrt(v / (1 - b2**t) + eps)",
                ),
                *_DECAY,
            ),
        ),
        optax="optax 0.2.8 has no rule that averages quotients in this way",
        recorded="timm's LaProp is not among the recorded optimizers",
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "weight_decay": 0.1},
    ),
    "mars": Card(
        Formula(
            mars,
            (
                Mistake(
                    "the change has the wrong sign", "* (g - last)", "* (last - g)"
                ),
                Mistake(
                    "the change is multiplied by γ alone",
                    "gamma * b1 / (1 - b1) *",
                    "gamma *",
                ),
                Mistake(
                    "the corrected gradient is not clipped",
                    "g if t == 1 else by_leaf(clipped, c)",
                    "g if t == 1 else c",
                ),
                Mistake(
                    "the second moment is of the gradient itself",
                    "(1 - b2) * c**2",
                    "(1 - b2) * g**2",
                ),
                Mistake(
                    "the first gradient is clipped, too",
                    "g if t == 1 else by_leaf(clipped, c)",
                    "by_leaf(clipped, c)",
                ),
                Mistake(
                    "the change is taken from the corrected gradient",
                    "before = g",
                    "before = c",
                ),
                *_DECAY,
            ),
        ),
        optax="optax 0.2.8 has no rule that corrects gradients by their change",
        recorded="timm's Mars is not among the recorded optimizers",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "gamma": 0.5,
            "eps": 0.01,
            "weight_decay": 0.1,
            "optimize_1d": True,
        },
    ),
}
