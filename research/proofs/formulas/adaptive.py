"""Rates by coordinate, as the papers print them, with optax's conventions where its rule is the one that is meant."""

from itertools import count

from research.proofs.formulas.formula import Formula, Mistake
from research.proofs.formulas.leaves import entrywise, sqrt, zeros_like


def adagrad(x, f, learning_rate, initial_accumulator_value=0.1, eps=1e-7):
    """Duchi, Hazan & Singer (2011), figure 1, with ε inside the root and an initial value, as in optax."""
    s = zeros_like(x) + initial_accumulator_value
    while True:
        g = f.gradient(x)
        s = s + g**2
        x = x - learning_rate * entrywise(lambda a, b: 0 if b == 0 else a / sqrt(b + eps), g, s)
        yield x


def rmsprop(x, f, learning_rate, decay=0.9, eps=1e-8, initial_scale=0.0, eps_in_sqrt=True):
    """Tieleman & Hinton (2012), slide 29, with ε as in optax."""
    v = zeros_like(x) + initial_scale
    while True:
        g = f.gradient(x)
        v = decay * v + (1 - decay) * g**2
        x = x - learning_rate * g / (sqrt(v + eps) if eps_in_sqrt else sqrt(v) + eps)
        yield x


def adam(x, f, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    """Kingma & Ba (2015), algorithm 1; eps_root is optax's."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        x = x - learning_rate * m_hat / (sqrt(v_hat + eps_root) + eps)
        yield x


def adamw(x, f, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, weight_decay=1e-4):
    """Loshchilov & Hutter (2019), algorithm 2 with their λ taken as η λ."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        x = x - learning_rate * (m_hat / (sqrt(v_hat + eps_root) + eps) + weight_decay * x)
        yield x


_OF_ADAM = (
    Mistake(
        "b1 and 1 - b1 are swapped in both averages, and b2 and 1 - b2",
        "m = b1 * m + (1 - b1) * g\n        v = b2 * v + (1 - b2) * g**2",
        "m = (1 - b1) * m + b1 * g\n        v = (1 - b2) * v + b2 * g**2",
    ),
    Mistake("ε stands inside the root", "sqrt(v_hat + eps_root) + eps", "sqrt(v_hat + eps_root + eps)"),
    Mistake(
        "ε is added before the bias correction",
        "sqrt(v_hat + eps_root) + eps",
        "sqrt(v_hat + eps_root) + eps / sqrt(1 - b2**t)",
    ),
    Mistake("no bias correction of the first moment", "m_hat = m / (1 - b1**t)", "m_hat = m"),
    Mistake("no bias correction of the second moment", "v_hat = v / (1 - b2**t)", "v_hat = v"),
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
    Mistake("the square root is missing", "sqrt(v_hat + eps_root)", "(v_hat + eps_root)"),
    Mistake("the second moment averages g, not g²", "(1 - b2) * g**2", "(1 - b2) * g"),
    Mistake("the second moment averages m², not g²", "(1 - b2) * g**2", "(1 - b2) * m**2"),
    Mistake("the second moment decays by b1", "v = b2 * v + (1 - b2)", "v = b1 * v + (1 - b1)"),
)

FORMULAS = {
    "adagrad": Formula(
        adagrad,
        (
            Mistake("ε stands outside the root", "sqrt(b + eps)", "(sqrt(b) + eps)"),
            Mistake("the sum of squares starts at 0", "zeros_like(x) + initial_accumulator_value", "zeros_like(x)"),
            Mistake(
                "the sum of squares is one step stale",
                "entrywise(lambda a, b: 0 if b == 0 else a / sqrt(b + eps), g, s)",
                "g / sqrt(s - g**2 + eps)",
            ),
        ),
    ),
    "rmsprop": Formula(
        rmsprop,
        (
            Mistake("ε stands outside the root", "sqrt(v + eps) if", "sqrt(v) + eps if"),
            Mistake("decay and 1 - decay are swapped", "decay * v + (1 - decay)", "(1 - decay) * v + decay"),
            Mistake("the square root is missing", "sqrt(v + eps) if eps_in_sqrt else sqrt(v) + eps", "v + eps"),
        ),
    ),
    "adam": Formula(adam, _OF_ADAM),
    "adamw": Formula(
        adamw,
        (
            *_OF_ADAM,
            Mistake(
                "the decay is coupled: it is added to the gradient",
                "g = f.gradient(x)",
                "g = f.gradient(x) + weight_decay * x",
            ),
            Mistake("the decay is not multiplied by the learning rate", " + weight_decay * x)", ") - weight_decay * x"),
            Mistake("there is no weight decay", " + weight_decay * x)", ")"),
        ),
    ),
}
