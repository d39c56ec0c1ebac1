"""Formulas of AdaBelief, ACProp, Yogi, Adan, AdaHessian and the cautious AdamW.

The formulas are those of the papers, with the bias corrections of the authors'
programs.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import optax.contrib

from research.types import Params
from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (
    Leaf,
    Leaves,
    by_leaf,
    entrywise,
    sign,
    sqrt,
    zeros_like,
)


def adabelief(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaBelief: algorithm 2 of Zhuang et al. (2020).

    The paper's single ε has two names here: `eps_root` is added to the second moment s
    in each step, and `eps` to the root of s in the division.
    """
    m = s = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m_hat = m / (1 - b1**t)
        s_hat = s / (1 - b2**t)
        x = x - learning_rate * m_hat / (sqrt(s_hat) + eps)
        yield x


def acprop(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: float = 0.0,
    from_old_mean: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of ACProp of Zhuang et al. (2021).

    The second moment averages the squared deviations of the gradients from their moving
    average. Let m_t be this moving average after it has received the gradient g_t. With
    from_old_mean=True, the deviation of g_t is g_t - m_(t-1), as in optax. With False,
    the deviation is g_t - m_t, as in the paper. As in optax, the first step divides the
    gradient by 1 + eps, and later steps correct the bias of the second moment.
    """
    m = s = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        below = sqrt(s / (1 - b2 ** (t - 1))) if t > 1 else s**0
        step = g / (below + eps)
        old = m
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - (old if from_old_mean else m)) ** 2 + eps_root
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def yogi(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial_accumulator_value: float = 1e-6,
    initial_mu: float = 0.0,
    bias_correction: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of Yogi: algorithm 2 of Zaheer et al. (2018).

    `initial_mu` and `initial_accumulator_value` are the initial values of the first and
    of the second moment. The paper has no bias corrections. With bias_correction=True,
    both moments are corrected as in Adam.
    """
    m = zeros_like(x) + initial_mu
    v = zeros_like(x) + initial_accumulator_value
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * sign(v - g**2) * g**2
        m_hat = m / (1 - b1**t) if bias_correction else m
        v_hat = v / (1 - b2**t) if bias_correction else v
        x = x - learning_rate * m_hat / (sqrt(v_hat + eps_root) + eps)
        yield x


def adan(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 1e-8,
    weight_decay: float = 0.0,
    proximal: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of Adan: algorithm 1 of Xie et al. (2024).

    `b1`, `b2` and `b3` are 1 - β_1, 1 - β_2 and 1 - β_3, where β_k are the paper's
    constants. The averages start from 0 and are corrected for this start. With
    proximal=True, the new params are divided by 1 + η λ, as in the paper, where η is
    the learning rate and λ the weight decay. With proximal=False, the old params are
    multiplied by 1 - η λ.
    """
    m = v = n = zeros_like(x)
    before = None
    ahead = b2
    for t in count(1):
        g = f.gradient(x)
        change = g - (g if before is None else before)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * change
        n = b3 * n + (1 - b3) * (g + ahead * change) ** 2
        m_hat, v_hat, n_hat = m / (1 - b1**t), v / (1 - b2**t), n / (1 - b3**t)
        step = learning_rate * (m_hat + ahead * v_hat) / (sqrt(n_hat + eps_root) + eps)
        decay = learning_rate * weight_decay
        x = (x - step) / (1 + decay) if proximal else (1 - decay) * x - step
        before = g
        yield x


def cautious_adamw(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    plus_one: bool = False,
    cautious_decay: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of the cautious AdamW of Liang et al. (2024).

    Adam subtracts η d from the params, where η is the learning rate and d the direction
    of Adam. The cautious rule sets the entries of d that do not have the sign of the
    gradient to 0. The other entries are kept, but are divided by the fraction of
    entries that are kept (`agreeing`). With plus_one=True, this fraction counts one
    more entry as kept, as in the paper. With plus_one=False, it does not, as in the
    authors' code. With cautious_decay=True, a param does not decay if the param and its
    entry of d have opposite signs (Chen et al. 2025).
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        d = by_leaf(lambda a, b: agreeing(a, b, plus_one), d, g)
        decay = weight_decay * x
        if cautious_decay:
            decay = entrywise(lambda a, b: a if a * b >= 0 else 0 * a, decay, d)
        x = x - learning_rate * (d + decay)
        yield x


def agreeing(d: Leaf, g: Leaf, plus_one: bool):
    """Return d with 0 where d g <= 0, divided by the fraction of entries that are kept.

    d is a direction that is subtracted from the params, g is the gradient, and d g is
    their product, entry by entry. If k of n entries are kept, the divisor is max(k / n,
    0.001), or (k + 1) / n if plus_one is true.
    """
    kept = np.array([not a * b <= 0 for a, b in zip(d.flat, g.flat, strict=True)], int)
    kept = kept.reshape(d.shape).astype(object)
    if plus_one:
        return d * kept * d.size / (mpmath.mpf(int(kept.sum())) + 1)
    share = mpmath.mpf(int(kept.sum())) / max(d.size, 1)
    return d * kept / max(share, mpmath.mpf(1) / 1000)


def optax_acprop(
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: float = 0.0,
    corrected: bool = True,
) -> optax.GradientTransformation:
    """Return optax.contrib.acprop, or a corrected form of it that follows the paper.

    g_t is the gradient, and m_t is the moving average of the gradients with the decay
    β1 (`b1`). The rule divides g_t by the spread of the gradients, the root of a moving
    average of squared distances. optax takes the distances g_t - m_(t-1), and the paper
    takes g_t - m_t. Because g_t - m_t = β1 (g_t - m_(t-1)), the spread in the paper is
    β1 times the spread in optax. With corrected=True, optax therefore gets eps / b1 and
    eps_root / b1², and its updates are divided by b1 from the second step on. In the
    first step, no spread is known, and the divisor is 1 + eps.
    """
    rule = optax.contrib.scale_by_acprop(b1, b2, eps, eps_root)
    if corrected:
        rule = optax.contrib.scale_by_acprop(b1, b2, eps / b1, eps_root / b1**2)

    def update(updates: Params, state: Any, params: Params | None = None):
        first = state.count == 0
        moved, state = rule.update(updates, state, params)
        if corrected:
            factor = jnp.where(first, (1 + eps / b1) / (1 + eps), 1 / b1)
            moved = jax.tree.map(lambda u: factor.astype(u.dtype) * u, moved)
        return moved, state

    return optax.chain(
        optax.GradientTransformation(rule.init, update),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def optax_yogi(
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial_mu: float = 0.0,
) -> optax.GradientTransformation:
    """Return optax's Yogi with another initial value of the first moment.

    The first moment starts at `initial_mu`. In optax itself, both moments start at
    1e-6.
    """
    rule = optax.scale_by_yogi(b1, b2, eps, eps_root)

    def init(params: Params):
        state: Any = rule.init(params)
        return state._replace(mu=jax.tree.map(lambda m: 0 * m + initial_mu, state.mu))

    return optax.chain(
        optax.GradientTransformation(init, rule.update),
        optax.scale_by_learning_rate(learning_rate),
    )


def adahessian(
    x: Leaves,
    f: Function,
    learning_rate: float,
    draws: Sequence[Sequence[Leaf]],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-4,
    hessian_power: float = 1.0,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaHessian: algorithm 1 of Yao et al. (2021).

    In each step, the diagonal of the Hessian H is estimated as z (H z), entry by entry.
    The entries of z are randomly 1 or -1. `draws` has the z of each step, as a list
    with one array for each leaf, in the shape of the leaf. The paper also averages the
    estimate over blocks of params. This function does not. The average of the gradients
    is divided by (√v̂)^k + ε, where v̂ is the average of the squares of the estimated
    diagonal, k is `hessian_power` and ε is `eps`. Both averages have the bias
    correction of Adam.
    """
    assert f.hessian is not None
    m = v = zeros_like(x)
    for t, signs in enumerate(draws, 1):
        g, z = f.gradient(x), Leaves(signs)
        d = z * times(f.hessian(x), z)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        step = m_hat / (sqrt(v_hat) ** hessian_power + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def times(matrix: Any, z: Leaves) -> Leaves:
    """Return a matrix times the vector of all entries of z, as Leaves shaped like z."""
    entries = matrix * mpmath.matrix([e for a in z.arrays for e in a.flat])
    ends = np.cumsum([a.size for a in z.arrays])
    parts = np.split(np.array(list(entries), object), ends[:-1])
    return Leaves(p.reshape(a.shape) for p, a in zip(parts, z.arrays, strict=True))


# The formula of a rule that draws random numbers: its draws are an argument.
ADAHESSIAN = Formula(
    adahessian,
    (
        Mistake("the estimate is not squared in the average", "d**2", "sqrt(d**2)"),
        Mistake("it squares the gradient: this is Adam", "d**2", "g**2"),
        Mistake(
            "all signs are 1, so that the rows of the Hessian are summed",
            "f.gradient(x), Leaves(signs)",
            "f.gradient(x), Leaves(abs(a) for a in signs)",
        ),
        Mistake("no bias correction of the second moment", "v / (1 - b2**t)", "v"),
        Mistake("no bias correction of the first moment", "m / (1 - b1**t)", "m"),
        Mistake(
            "the decay is coupled: it is added to the gradient",
            "f.gradient(x), Leaves(signs)",
            "f.gradient(x) + weight_decay * x, Leaves(signs)",
        ),
        Mistake(
            "the root of the second moment is missing",
            "sqrt(v_hat) ** hessian_power",
            "v_hat ** hessian_power",
        ),
    ),
)

CARDS = {
    "adabelief": Card(
        Formula(
            adabelief,
            (
                Mistake(
                    "the second moment averages g²: this is Adam",
                    "(g - m) ** 2",
                    "g**2",
                ),
                Mistake(
                    "the deviation of g is taken from the old average, m_(t-1)",
                    "m = b1 * m + (1 - b1) * g\n        s = b2 * s + (1 - b2) * (g - "
                    "m) ** 2 + eps_root",
                    "s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root\n        m = b1 * "
                    "m + (1 - b1) * g",
                ),
                Mistake(
                    "no bias correction of the second moment",
                    "s_hat = s / (1 - b2**t)",
                    "s_hat = s",
                ),
                Mistake(
                    "no bias correction of the first moment",
                    "m_hat = m / (1 - b1**t)",
                    "m_hat = m",
                ),
                Mistake(
                    "the deviation of g is taken from the bias-corrected average",
                    "(g - m) ** 2",
                    "(g - m / (1 - b1**t)) ** 2",
                ),
                Mistake("the square root is missing", "sqrt(s_hat)", "s_hat"),
            ),
        ),
        optax=optax.adabelief,
        recorded="torch and timm's recorded rules do not include AdaBelief",
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "acprop": Card(
        Formula(
            acprop,
            (
                Mistake(
                    "the spread is taken from the old average, as in optax",
                    "old if from_old_mean else m",
                    "old",
                ),
                Mistake(
                    "the second moment averages g², not the squared deviation",
                    "(g - (old if",
                    "(g - 0 * (old if",
                ),
                Mistake(
                    "the step has momentum: this is AdaBelief, one step stale",
                    "step = g / (below + eps)",
                    "step = (b1 * m + (1 - b1) * g) / (below + eps)",
                ),
                Mistake(
                    "the bias correction of the second moment has t, not t - 1",
                    "(1 - b2 ** (t - 1))",
                    "(1 - b2**t)",
                ),
                Mistake(
                    "the second moment is not corrected",
                    "sqrt(s / (1 - b2 ** (t - 1)))",
                    "sqrt(s)",
                ),
                Mistake("the first step is 0", "step = g /", "step = (t > 1) * g /"),
            ),
        ),
        optax=optax_acprop,
        recorded="the authors' code is for torch, and is not recorded",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
            "from_old_mean": True,
        },
        optax_arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
            "corrected": False,
        },
        rates={"rosenbrock": 1e-4},  # The first step is as long as the gradient.
    ),
    "yogi": Card(
        Formula(
            yogi,
            (
                Mistake(
                    "the second moment is averaged: this is Adam",
                    "v - (1 - b2) * sign(v - g**2) * g**2",
                    "b2 * v + (1 - b2) * g**2",
                ),
                Mistake(
                    "the second moment's sign is flipped",
                    "v - (1 - b2)",
                    "v + (1 - b2)",
                ),
                Mistake(
                    "the first moment starts from the second's start, as in optax",
                    "zeros_like(x) + initial_mu",
                    "zeros_like(x) + initial_accumulator_value",
                ),
                Mistake(
                    "the second moment starts at 0",
                    "zeros_like(x) + initial_accumulator_value",
                    "zeros_like(x)",
                ),
                Mistake(
                    "no bias correction of the second moment",
                    "v / (1 - b2**t) if bias_correction else v",
                    "v",
                ),
                Mistake(
                    "no bias correction of the first moment",
                    "m / (1 - b1**t) if bias_correction else m",
                    "m",
                ),
                Mistake(
                    "ε is inside the root",
                    "sqrt(v_hat + eps_root) + eps",
                    "sqrt(v_hat + eps_root + eps)",
                ),
            ),
        ),
        optax=optax_yogi,
        recorded="torch and timm's recorded rules do not include Yogi",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "initial_mu": 1e-6,
        },
    ),
    "adan": Card(
        Formula(
            adan,
            (
                Mistake(
                    "changes are multiplied by 1 - b2, as in optax",
                    "ahead = b2",
                    "ahead = 1 - b2",
                ),
                Mistake(
                    "the first change is the first gradient",
                    "(g if before is None else",
                    "(0 if before is None else",
                ),
                Mistake(
                    "changes do not enter the step", "m_hat + ahead * v_hat", "m_hat"
                ),
                Mistake(
                    "the squares are of the gradient alone",
                    "(g + ahead * change) ** 2",
                    "g**2",
                ),
                Mistake(
                    "no bias correction",
                    "m / (1 - b1**t), v / (1 - b2**t), n / (1 - b3**t)",
                    "m, v, n",
                ),
                Mistake(
                    "changes have the wrong sign",
                    "(1 - b2) * change",
                    "(1 - b2) * -change",
                ),
            ),
        ),
        optax=(
            "optax 0.2.8 multiplies changes of the gradient by 1 - b2 where the paper "
            "and its authors' code have b2"
        ),
        recorded="torch and timm's recorded rules do not include Adan",
        arguments={
            "b1": 0.9,
            "b2": 0.75,
            "b3": 0.95,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
            "proximal": True,
        },
    ),
    "adahessian": Card(
        (
            "it draws random signs, which the problems here do not have; "
            "tests/rules/test_adahessian.py compares it with its formula on the same "
            "draws"
        ),
        optax="optax 0.2.8 has no AdaHessian",
        recorded="the recorded optimizers have no AdaHessian with given draws",
    ),
    "cautious_adamw": Card(
        Formula(
            cautious_adamw,
            (
                Mistake(
                    "no entry is left out: this is AdamW",
                    "d = by_leaf(lambda a, b: agreeing(a, b, plus_one), d, g)",
                    "pass",
                ),
                Mistake(
                    "the entries that oppose the gradient are left out, not the others",
                    "agreeing(a, b, plus_one)",
                    "agreeing(a, -b, plus_one)",
                ),
                Mistake(
                    "the entries that are kept are not scaled up",
                    "agreeing(a, b, plus_one)",
                    "agreeing(a, b, plus_one) * sum(not p * q <= 0 for p, q in "
                    "zip(a.flat, b.flat, strict=True)) / max(a.size, 1)",
                ),
                Mistake(
                    "the momentum is also set to 0 in the entries that are left out",
                    "m = b1 * m + (1 - b1) * g",
                    "m = by_leaf(lambda a, b: agreeing(a, b, True), b1 * m + (1 - b1) "
                    "* g, g)",
                ),
                Mistake(
                    "no bias correction of the second moment", "v / (1 - b2**t)", "v"
                ),
                Mistake(
                    "the decay is not multiplied by the learning rate",
                    "learning_rate * (d + decay)",
                    "learning_rate * d - decay",
                ),
                Mistake(
                    "the entries that are left out do not decay either",
                    "decay = weight_decay * x\n",
                    "decay = weight_decay * x * entrywise(lambda a: 0 if a == 0 else "
                    "1, d)\n",
                ),
            ),
        ),
        optax="optax 0.2.8 has no cautious rule and no such wrapper",
        recorded="timm's AdamW with caution is not among the recorded optimizers",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "weight_decay": 0.1,
            "plus_one": True,
            "cautious_decay": True,
        },
    ),
}
