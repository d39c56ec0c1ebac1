"""Formulas of optimistic gradient descent and optimistic Adam, from their papers."""

from collections.abc import Iterator
from itertools import count

import optax

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, sqrt, zeros_like


def optimistic_gradient_descent(
    x: Leaves, f: Function, learning_rate: float, alpha: float = 1.0, beta: float = 1.0
) -> Iterator[Leaves]:
    """Yield the iterates of optimistic gradient descent.

    The rule is that of Mokhtari, Ozdaglar & Pattathil (2020): x_(t+1) = x_t - η ((α +
    β) g_t - β g_(t-1)), where g_t is the gradient at x_t and η the learning rate. In
    the first step, the previous gradient is taken to be equal to the present one.
    """
    before = None
    while True:
        g = f.gradient(x)
        before = g if before is None else before
        x = x - learning_rate * ((alpha + beta) * g - beta * before)
        before = g
        yield x


def optimistic_adam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    alpha: float = 1.0,
    beta: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of optimistic Adam: algorithm 1 of Daskalakis et al. (2018).

    The step is -η ((α + β) d_t - β d_(t-1)), where d_t is the direction of Adam in step
    t and η the learning rate. The paper has α = β = 1. In the first step, the previous
    direction is taken to be equal to the present one. With nesterov=True, d_t is the
    direction of NAdam. `eps_root` is added under the square root, as in optax.
    """
    m = v = zeros_like(x)
    before = None
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        d = m_hat / (sqrt(v / (1 - b2**t) + eps_root) + eps)
        before = d if before is None else before
        x = x - learning_rate * ((alpha + beta) * d - beta * before)
        before = d
        yield x


def _of(symbol: str) -> tuple[Mistake, ...]:
    step = f"((alpha + beta) * {symbol} - beta * before)"
    return (
        Mistake(
            "the change has the wrong sign",
            step,
            f"((alpha - beta) * {symbol} + beta * before)",
        ),
        Mistake(
            "the step has no term with the last change", step, f"(alpha * {symbol})"
        ),
        Mistake(
            "the previous gradient or direction is not subtracted",
            step,
            f"((alpha + beta) * {symbol})",
        ),
        Mistake(
            "the first step has no gradient before it, so it is twice as long",
            f"before = {symbol} if before is None else before",
            "before = zeros_like(x) if before is None else before",
        ),
        Mistake(
            "the change is always measured from the first step",
            f"before = {symbol}\n        yield",
            "pass\n        yield",
        ),
    )


def optax_optimistic_adam(
    learning_rate: float,
    alpha: float = 1.0,
    beta: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Return optax.optimistic_adam_v2 with nesterov=False as the default."""
    return optax.optimistic_adam_v2(
        learning_rate, alpha=alpha, beta=beta, b1=b1, b2=b2, eps=eps,
        eps_root=eps_root, nesterov=nesterov,
    )  # fmt: skip


CARDS = {
    "optimistic_gradient_descent": Card(
        Formula(optimistic_gradient_descent, _of("g")),
        optax=optax.optimistic_gradient_descent,
        recorded="torch and timm have no optimistic gradient descent",
        arguments={"alpha": 0.5, "beta": 2.0},
        unit_steps=False,
        rates={"quadratic": 0.05},
    ),
    "optimistic_adam": Card(
        Formula(
            optimistic_adam,
            (
                *_of("d"),
                Mistake(
                    "no bias correction of the first moment",
                    "m_hat = m / (1 - b1**t)",
                    "m_hat = m",
                ),
                Mistake(
                    "no bias correction of the second moment", "v / (1 - b2**t)", "v"
                ),
            ),
        ),
        optax=optax_optimistic_adam,
        recorded="torch and timm have no optimistic Adam",
        arguments={
            "alpha": 0.5,
            "beta": 0.25,
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "nesterov": True,
        },
    ),
}
