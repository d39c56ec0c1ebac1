"""Formulas of NAdam, NAdamW and RAdam, from their papers.

Arguments select the conventions of optax or torch.
"""

from collections.abc import Iterator
from itertools import count

import optax
import optax.contrib
from mpmath import mpf

from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, sqrt, zeros_like


def nadam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    momentum_schedule: str = "constant",
    momentum_decay: float = 0.004,
) -> Iterator[Leaves]:
    """Yield the iterates of NAdam: algorithm 2 of Dozat (2016).

    momentum_schedule="paper" is the algorithm of the paper, "constant" is the rule of
    optax, and "torch" is the rule of torch. With "constant", the momentum is `b1`. With
    "paper" and "torch", the momentum in step t is b1 (1 - 0.96^(t · momentum_decay) /
    2). With "paper", this momentum is also the decay of the average gradient, and the
    bias-corrected average of the squares is multiplied by `b2`. `eps_root` is added
    under the square root, as in optax.
    """
    paper, constant = momentum_schedule == "paper", momentum_schedule == "constant"
    mu = lambda t: (
        b1 if constant else b1 * (1 - (mpf(96) / 100) ** (t * momentum_decay) / 2)
    )
    m = v = zeros_like(x)
    p = 1
    for t in count(1):
        g = f.gradient(x)
        p = p * mu(t)
        average = mu(t) if paper else b1
        m = average * m + (1 - average) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = mu(t + 1) * m / (1 - p * mu(t + 1)) + (1 - mu(t)) * g / (1 - p)
        v_hat = (b2 if paper else 1) * v / (1 - b2**t)
        x = x - learning_rate * m_hat / (sqrt(v_hat + eps_root) + eps)
        yield x


def nadamw(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 1e-4,
    same_correction: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of `nadam` with the decay of Loshchilov & Hutter (2019).

    Their weight decay is decoupled: it is added to the step, not to the gradient. The
    momentum coefficient is the constant `b1`. In step t, the bias correction of the
    gradient uses t, and the bias correction of the momentum uses t + 1. With
    same_correction=True, both use t, as in the AlgoPerf benchmark.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        ahead = t if same_correction else t + 1
        m_hat = b1 * m / (1 - b1**ahead) + (1 - b1) * g / (1 - b1**t)
        step = m_hat / (sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def radam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    eps_before_correction: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of RAdam: algorithm 2 of Liu et al. (2020).

    ρ_t is the paper's estimate, in step t, of the number of gradients over which the
    second moment averages. If ρ_t is at least `threshold`, the first moment is divided
    by the root of the second moment, and multiplied by the paper's factor r_t.
    Otherwise the first moment itself is the direction. The paper has the condition
    ρ_t > 4 in place of ρ_t >= threshold, and no ε. With eps_before_correction=False, ε
    is added to the root of the bias-corrected second moment, as in optax. With
    eps_before_correction=True, ε is added to the root of the uncorrected second moment,
    as in torch.
    """
    m = v = zeros_like(x)
    most = 2 / (1 - b2) - 1
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        length = most - 2 * t * b2**t / (1 - b2**t)
        if length >= threshold:
            r = sqrt(
                (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
            )
            c = 1 - b2**t
            if eps_before_correction:
                x = x - learning_rate * r * m_hat * sqrt(c) / (sqrt(v + eps_root) + eps)
            else:
                x = x - learning_rate * r * m_hat / (sqrt(v / c + eps_root) + eps)
        else:
            x = x - learning_rate * m_hat
        yield x


CARDS = {
    "nadam": Card(
        Formula(
            nadam,
            (
                Mistake(
                    "it does not look ahead: this is Adam",
                    "mu(t + 1) * m / (1 - p * mu(t + 1)) + (1 - mu(t)) * g /",
                    "m /",
                ),
                Mistake(
                    "both bias corrections have the same t",
                    "(1 - p * mu(t + 1))",
                    "(1 - p)",
                ),
                Mistake(
                    "the paper's b2 multiplies the second moment",
                    "(b2 if paper else 1) * v",
                    "b2 * v",
                ),
                Mistake(
                    "the gradient is not corrected",
                    "(1 - mu(t)) * g / (1 - p)",
                    "(1 - mu(t)) * g",
                ),
                Mistake(
                    "the momentum is scheduled, as in torch",
                    "b1 if constant else b1 *",
                    "b1 *",
                ),
                Mistake(
                    "ε is inside the root",
                    "sqrt(v_hat + eps_root) + eps",
                    "sqrt(v_hat + eps_root + eps)",
                ),
            ),
        ),
        optax=optax.nadam,
        recorded=(Recorded("nadam/defaults", {"momentum_schedule": "torch"}),),
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "nadamw": Card(
        Formula(
            nadamw,
            (
                Mistake(
                    "it does not look ahead: this is AdamW",
                    "b1 * m / (1 - b1**ahead) + (1 - b1) * g / (1 - b1**t)",
                    "m / (1 - b1**t)",
                ),
                Mistake(
                    "both bias corrections have the same t, as in AlgoPerf",
                    "t if same_correction else t + 1",
                    "t",
                ),
                Mistake(
                    "the gradient is not multiplied by 1 - b1 in the look-ahead",
                    "(1 - b1) * g / (1 - b1**t)",
                    "g",
                ),
                Mistake(
                    "the gradient is not corrected",
                    "(1 - b1) * g / (1 - b1**t)",
                    "(1 - b1) * g",
                ),
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
                Mistake("there is no weight decay", " + weight_decay * x)", ")"),
            ),
        ),
        optax=optax.nadamw,
        recorded="timm's NAdamW is not among the recorded optimizers",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
    ),
    "radam": Card(
        Formula(
            radam,
            (
                Mistake(
                    "every step is divided by the root, without a factor: Adam",
                    "length >= threshold:\n            r = sqrt(",
                    "True:\n            r = 1 or sqrt(",
                ),
                Mistake(
                    "the rectification is not applied",
                    "r * m_hat / (sqrt(v / c",
                    "m_hat / (sqrt(v / c",
                ),
                Mistake(
                    "the rectification is squared: its root is missing",
                    "r = sqrt(",
                    "r = 1 * (",
                ),
                Mistake(
                    "ε is added before the bias correction, as in torch",
                    "(sqrt(v / c + eps_root) + eps)",
                    "(sqrt(v / c + eps_root) + eps / sqrt(c))",
                ),
                Mistake(
                    "the first steps are not corrected",
                    "x - learning_rate * m_hat\n",
                    "x - learning_rate * m\n",
                ),
                Mistake(
                    "the first steps are zero",
                    "x = x - learning_rate * m_hat\n",
                    "pass\n",
                ),
            ),
        ),
        optax=optax.radam,
        recorded=(
            Recorded("radam/defaults", {"eps_before_correction": True}),
            Recorded(
                "radam/b2 0.9 eps 0.01",
                {"b2": 0.9, "eps": 0.01, "eps_before_correction": True},
            ),
        ),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "threshold": 6.0,
        },
        rates={"rosenbrock": 1e-4},  # The first steps are as long as the gradient.
        # optax computes ρ_6 = 6 as 1999 - 1993, which makes its sixth step wrong by
        # 2e-12 relative. This library's step is wrong by 5e-16 (measured).
        bounds={"optax": 20_000},
    ),
}
