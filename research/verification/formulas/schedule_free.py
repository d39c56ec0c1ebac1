"""Schedule-free descent, as the paper prints it; yielded are the points y at which gradients are taken.

(1 - c) x + c z is written x + c (z - x), and y likewise: they stay exactly where they are while z does not move.
"""

from itertools import count

import mpmath

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import sqrt, zeros_like


def schedule_free_sgd(
    x, f, learning_rate, warmup_steps=0, b1=0.9, weight_decay=0.0, weight_power=2.0
):
    """Defazio et al. (2024), the three sequences of its introduction, with algorithm 1's weights, warm-up and decay."""
    y = z = x
    total = 0
    for t in count(1):
        rate = learning_rate * (
            min(1, mpmath.mpf(t) / warmup_steps) if warmup_steps else 1
        )
        z = z - rate * (f.gradient(y) + weight_decay * y)
        total = total + rate**weight_power
        c = rate**weight_power / total
        x = x + c * (z - x)
        y = z + b1 * (x - z)
        yield y


def schedule_free_adamw(
    x,
    f,
    learning_rate,
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    weight_power=2.0,
):
    """Defazio et al. (2024), algorithm 1."""
    y = z = x
    v = zeros_like(x)
    total = 0
    for t in count(1):
        rate = learning_rate * (
            min(1, mpmath.mpf(t) / warmup_steps) if warmup_steps else 1
        )
        g = f.gradient(y)
        v = b2 * v + (1 - b2) * g**2
        v_hat = v / (1 - b2**t)
        z = z - rate * (g / (sqrt(v_hat) + eps) + weight_decay * y)
        total = total + rate**weight_power
        c = rate**weight_power / total
        x = x + c * (z - x)
        y = z + b1 * (x - z)
        yield y


_OF_BOTH = (
    Mistake(
        "the average weighs all steps alike",
        "c = rate**weight_power / total",
        "c = mpmath.mpf(1) / t",
    ),
    Mistake(
        "the average starts with the first point in it",
        "c = rate**weight_power / total",
        "c = rate**weight_power / (total + rate**weight_power)",
    ),
    Mistake(
        "y lies near the fast sequence: b1 and 1 - b1 are swapped",
        "y = z + b1 * (x - z)",
        "y = x + b1 * (z - x)",
    ),
    Mistake("the gradient moves y, not z", "z = z - ", "z = y - "),
    Mistake("the weights decay at z, not at y", "weight_decay * y", "weight_decay * z"),
    Mistake("the points are the averages, not those between", "yield y", "yield x"),
    Mistake(
        "with warm-up, it moves by the rate of the step before, as in optax",
        "z = z - rate *",
        "z = z - (learning_rate * min(1, mpmath.mpf(t - 1) / warmup_steps) if warmup_steps else rate) *",
    ),
)

FORMULAS = {
    "schedule_free_sgd": Formula(schedule_free_sgd, _OF_BOTH),
    "schedule_free_adamw": Formula(
        schedule_free_adamw,
        (
            *_OF_BOTH,
            Mistake(
                "ε stands inside the root", "sqrt(v_hat) + eps", "sqrt(v_hat + eps)"
            ),
            Mistake(
                "no bias correction of the second moment",
                "v_hat = v / (1 - b2**t)",
                "v_hat = v",
            ),
            Mistake(
                "the bias correction is in the rate, and so in the weights",
                "v_hat = v / (1 - b2**t)",
                "rate, v_hat = rate * sqrt(1 - b2**t), v",
            ),
        ),
    ),
}
