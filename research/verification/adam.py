"""Formulas of Adam and closely related rules, from their papers.

Arguments that a paper does not have are those of this library's rules.
"""

from collections.abc import Iterator
from itertools import count

import optax

from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, absolute, maximum, sqrt, zeros_like


def adam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of Adam: algorithm 1 of Kingma & Ba (2015).

    `eps_root` is added under the square root, as in optax. The paper has no `eps_root`.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        x = x - learning_rate * m_hat / (sqrt(v_hat + eps_root) + eps)
        yield x


def adamw(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 1e-4,
) -> Iterator[Leaves]:
    """Yield the iterates of AdamW: algorithm 2 of Loshchilov & Hutter (2019).

    The λ of the paper is here the product of the arguments `learning_rate` and
    `weight_decay`. `eps_root` is added under the square root, as in optax.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        step = m_hat / (sqrt(v_hat + eps_root) + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def amsgrad(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_before_max: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of AMSGrad: algorithm 2 of Reddi, Kale & Kumar (2018).

    The paper has no bias corrections and no ε. With bias_correction_mu=True, the bias
    of the first moment is corrected. With bias_correction_nu=True, the bias of the
    second moment is corrected: before the maximum is taken if correct_before_max=True,
    as in optax. With correct_before_max=False, the maximum is corrected instead, as in
    torch. `eps_root` is added under the square root, as in optax.
    """
    m = v = n = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t) if bias_correction_mu else m
        c = 1 - b2**t if bias_correction_nu else 1
        n = maximum(n, v / c if correct_before_max else v)
        v_hat = n if correct_before_max else n / c
        x = x - learning_rate * m_hat / (sqrt(v_hat + eps_root) + eps)
        yield x


def adamax(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Iterator[Leaves]:
    """Yield the iterates of Adamax: algorithm 2 of Kingma & Ba (2015), with ε.

    The paper itself has no ε. Here ε is added to |g|, as in optax and torch, where g is
    the gradient.
    """
    m = u = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        u = maximum(b2 * u, absolute(g) + eps)
        x = x - learning_rate / (1 - b1**t) * m / u
        yield x


def adamaxw(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
) -> Iterator[Leaves]:
    """Yield the iterates of `adamax` with decoupled weight decay.

    The decay is added to the step, not to the gradient (Loshchilov & Hutter, 2019).
    """
    m = u = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        u = maximum(b2 * u, absolute(g) + eps)
        x = x - learning_rate * (m / (1 - b1**t) / u + weight_decay * x)
        yield x


_OF_ADAM = (
    Mistake(
        "b1 and 1 - b1 are swapped in both averages, and b2 and 1 - b2",
        "m = b1 * m + (1 - b1) * g\n        v = b2 * v + (1 - b2) * g**2",
        "m = (1 - b1) * m + b1 * g\n        v = (1 - b2) * v + b2 * g**2",
    ),
    Mistake(
        "ε is inside the root",
        "sqrt(v_hat + eps_root) + eps",
        "sqrt(v_hat + eps_root + eps)",
    ),
    Mistake(
        "ε is added before the bias correction",
        "sqrt(v_hat + eps_root) + eps",
        "sqrt(v_hat + eps_root) + eps / sqrt(1 - b2**t)",
    ),
    Mistake(
        "no bias correction of the first moment", "m_hat = m / (1 - b1**t)", "m_hat = m"
    ),
    Mistake(
        "no bias correction of the second moment",
        "v_hat = v / (1 - b2**t)",
        "v_hat = v",
    ),
    Mistake(
        "no bias correction",
        "m_hat = m / (1 - b1**t)\n        v_hat = v / (1 - b2**t)",
        "m_hat = m\n        v_hat = v",
    ),
    Mistake(
        "the bias correction counts one step too many",
        "m_hat = m / (1 - b1**t)\n        v_hat = v / (1 - b2**t)",
        "m_hat = m / (1 - b1**(t + 1))\n        v_hat = v / (1 - b2**(t + 1))",
    ),
    Mistake(
        "the square root is missing", "sqrt(v_hat + eps_root)", "(v_hat + eps_root)"
    ),
    Mistake("the second moment averages g, not g²", "(1 - b2) * g**2", "(1 - b2) * g"),
    Mistake(
        "the second moment averages m², not g²", "(1 - b2) * g**2", "(1 - b2) * m**2"
    ),
    Mistake(
        "the second moment decays by b1",
        "v = b2 * v + (1 - b2)",
        "v = b1 * v + (1 - b1)",
    ),
)


CARDS = {
    "adam": Card(
        Formula(adam, _OF_ADAM),
        optax=optax.adam,
        recorded=(
            Recorded("adam/defaults"),
            Recorded(
                "adam/b1 0.8 b2 0.95 eps 0.1", {"b1": 0.8, "b2": 0.95, "eps": 0.1}
            ),
        ),
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "adamw": Card(
        Formula(
            adamw,
            (
                *_OF_ADAM,
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
                Mistake("the weight decay is missing", " + weight_decay * x)", ")"),
            ),
        ),
        optax=optax.adamw,
        recorded=(
            Recorded("adamw/weight decay 0.1", {"weight_decay": 0.1}),
            Recorded("adamw/library default weight decay", {"weight_decay": 0.01}),
        ),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
    ),
    "amsgrad": Card(
        Formula(
            amsgrad,
            (
                Mistake(
                    "the maximum is missing: this is Adam",
                    "maximum(n, v / c if correct_before_max else v)",
                    "v / c",
                ),
                Mistake(
                    "the maximum is taken before the correction, as in torch",
                    "n = maximum(n, v / c if correct_before_max else v)\n        v_hat "
                    "= n if correct_before_max else n / c",
                    "n = maximum(n, v)\n        v_hat = n / c",
                ),
                Mistake(
                    "no bias correction of the second moment",
                    "1 - b2**t if bias_correction_nu else 1",
                    "1",
                ),
                Mistake(
                    "no bias correction of the first moment",
                    "m / (1 - b1**t) if bias_correction_mu else m",
                    "m",
                ),
                Mistake(
                    "the maximum also replaces the average",
                    "n = maximum(n, v /",
                    "n = v = maximum(n, v /",
                ),
                Mistake(
                    "ε is inside the root",
                    "sqrt(v_hat + eps_root) + eps",
                    "sqrt(v_hat + eps_root + eps)",
                ),
            ),
        ),
        optax=optax.amsgrad,
        recorded=(
            Recorded("amsgrad/defaults", {"correct_before_max": False}),
            Recorded("amsgrad/b2 0.9", {"b2": 0.9, "correct_before_max": False}),
        ),
        # optax 0.2.6 lacks the paper's variant without corrections. The tests of this
        # family compare that variant with its formula.
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "adamax": Card(
        Formula(
            adamax,
            (
                Mistake(
                    "no bias correction", "learning_rate / (1 - b1**t)", "learning_rate"
                ),
                Mistake("the maximum does not decay", "b2 * u", "u"),
                Mistake("the maximum is of squares", "absolute(g) + eps", "g**2 + eps"),
                Mistake(
                    "ε is added in the division",
                    "absolute(g) + eps)",
                    "absolute(g)) + eps",
                ),
                Mistake(
                    "the sizes are averaged",
                    "maximum(b2 * u, absolute(g) + eps)",
                    "b2 * u + (1 - b2) * absolute(g) + eps",
                ),
                Mistake(
                    "the maximum is also bias-corrected",
                    "m / u",
                    "m / (u / (1 - b2**t))",
                ),
            ),
        ),
        optax=optax.adamax,
        recorded=(
            Recorded("adamax/defaults"),
            Recorded("adamax/eps 0.1", {"eps": 0.1}),
        ),
        # With b2 = 0.9 the maximum forgets within 50 steps. At a minimum the rule then
        # divides rounding errors by their own size.
        arguments={"b1": 0.5, "b2": 0.99, "eps": 0.01},
    ),
    "adamaxw": Card(
        Formula(
            adamaxw,
            (
                Mistake("no bias correction", "m / (1 - b1**t) / u", "m / u"),
                Mistake("the maximum does not decay", "b2 * u", "u"),
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
                Mistake(
                    "the decay is divided by the maximum, too",
                    "m / (1 - b1**t) / u + weight_decay * x",
                    "(m / (1 - b1**t) + weight_decay * x) / u",
                ),
            ),
        ),
        optax=optax.adamaxw,
        recorded="torch's Adamax has no decoupled decay, so none is recorded",
        arguments={"b1": 0.5, "b2": 0.99, "eps": 0.01, "weight_decay": 0.1},
    ),
}
