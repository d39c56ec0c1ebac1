"""Formulas of rules that find their own step size, from their papers."""

from itertools import count

import jax
import jax.numpy as jnp
import mpmath
import optax
import optax.contrib

from research.verification.card import Card
from research.verification.formula import Formula, Mistake
from research.verification.from_zero import from_zero
from research.verification.leaves import absolute, dot, norm, sqrt, zeros_like
from research.verification.problems import PROBLEMS


def dog(x, f, learning_rate=1.0, initial_distance=None, eps=1e-8):
    """Yield the iterates of equation (DoG) of Ivgi, Hinder & Carmon (2023).

    ε and r_ε are those of the authors' code.
    """
    start = x
    distance = (
        mpmath.mpf("1e-6") * (1 + norm(x))
        if initial_distance is None
        else initial_distance
    )
    total = 0
    while True:
        g = f.gradient(x)
        distance = larger(distance, norm(x - start))
        total = total + dot(g, g)
        x = x - learning_rate * distance / sqrt(total + eps) * g
        yield x


def larger(a, b):
    """Return the larger number; NaN if either is NaN."""
    return a + b if mpmath.isnan(a + b) else max(a, b)


def prodigy(
    x, f, learning_rate=1.0, b1=0.9, b2=0.999, b3=None, eps=1e-8, initial_distance=1e-6, distance_factor=1.0,
    weight_decay=0.0, bias_correction=False, eps_by_next_distance=True,
):  # fmt: skip
    """Yield the iterates of algorithm 4 of Mishchenko & Defazio (2024).

    The paper has eps_by_next_distance=False. The authors' code has True.
    """
    start, d = x, initial_distance
    b3 = sqrt(b2) if b3 is None else b3
    m = v = s = zeros_like(x)
    r = 0
    for t in count(1):
        g = f.gradient(x)
        rate = learning_rate * (sqrt(1 - b2**t) / (1 - b1**t) if bias_correction else 1)
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        r = b3 * r + (1 - b3) * rate * d**2 * dot(g, start - x)
        s = b3 * s + (1 - b3) * rate * d**2 * g
        size = dot(absolute(s), s**0)
        d_next = d if size == 0 else larger(d, distance_factor * r / size)
        x = x - rate * d * (
            m / (sqrt(v) + (d_next if eps_by_next_distance else d) * eps)
            + weight_decay * x
        )
        d = d_next
        yield x


def optax_dog(learning_rate=1.0, initial_distance=None, eps=1e-8):
    """Return optax.contrib.dog, with params replaced by x_t - x_0.

    With rounded params, optax's first updates would have a relative error of 1e-10.
    """
    first = (
        ("heuristic", 1e-6)
        if initial_distance is None
        else ("distance", initial_distance)
    )
    return from_zero(optax.contrib.dog(learning_rate, first, eps), "init_params")


def optax_prodigy(
    learning_rate=1.0,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    initial_distance=1e-6,
    distance_factor=1.0,
    bias_correction=False,
):
    """Return optax.contrib.prodigy, with zero updates until a gradient is not 0.

    Until then, optax itself divides 0 by 0 and the params become NaN. optax always
    corrects the bias. For bias_correction=False, the learning rate is therefore a
    schedule that is divided by optax's correction.
    """

    def uncorrected(count):
        t = count + 1.0
        return learning_rate * (1.0 - b1**t) / jnp.sqrt(1.0 - b2**t)

    rate = learning_rate if bias_correction else uncorrected
    rule = optax.contrib.prodigy(
        rate, (b1, b2), b3, eps, initial_distance, distance_factor
    )
    return _at_rest_before_gradients(from_zero(rule, "params0"))


def _at_rest_before_gradients(
    rule: optax.GradientTransformation,
) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        after = rule.update(updates, state, params)
        # The step count continues.
        inner = jax.tree.map(
            lambda a, b: jnp.where(jnp.issubdtype(a.dtype, jnp.integer), b, a),
            state,
            after[1],
        )
        unmoved = optax.tree_utils.tree_get(state, "exp_avg_sq")
        resting = jnp.array(
            [jnp.all(x == 0) for x in jax.tree.leaves((updates, unmoved))]
        ).all()
        still = (jax.tree.map(jnp.zeros_like, updates), inner)
        return jax.tree.map(lambda a, b: jnp.where(resting, a, b), still, tuple(after))

    return optax.GradientTransformation(rule.init, update)


# The learning rate of these rules is a factor, 1 by default.
_RATES = dict.fromkeys(PROBLEMS, 1.0)


CARDS = {
    "dog": Card(
        Formula(
            dog,
            (
                Mistake(
                    "it takes the last distance, not the largest",
                    "larger(distance, norm(x - start))",
                    "norm(x - start) or distance",
                ),
                Mistake(
                    "the root of the sum of squares is missing",
                    "sqrt(total + eps)",
                    "(total + eps)",
                ),
                Mistake(
                    "it uses only the last gradient", "total + dot(g, g)", "dot(g, g)"
                ),
                Mistake(
                    "the distance is measured from the origin",
                    "norm(x - start)",
                    "norm(x)",
                ),
                Mistake(
                    "the norms are of each entry: the rate differs by coordinate",
                    "total + dot(g, g)",
                    "total + g * g",
                ),
                Mistake(
                    "the first distance is not scaled by the params",
                    "(1 + norm(x))",
                    "1",
                ),
            ),
        ),
        optax=optax_dog,
        recorded=(
            "torch has none; the authors' package is for torch, its traces are not "
            "recorded"
        ),
        arguments={"initial_distance": 0.03125, "eps": 0.01},
        rates=_RATES,
    ),
    "prodigy": Card(
        Formula(
            prodigy,
            (
                Mistake(
                    "the estimate may shrink",
                    "larger(d, distance_factor * r / size)",
                    "distance_factor * r / size",
                ),
                Mistake(
                    "the estimate has the wrong sign: it never grows",
                    "dot(g, start - x)",
                    "dot(g, x - start)",
                ),
                Mistake(
                    "the norm of s is Euclidean", "dot(absolute(s), s**0)", "norm(s)"
                ),
                Mistake(
                    "r and s are averaged by b2, not by its root",
                    "b3 = sqrt(b2) if",
                    "b3 = b2 if",
                ),
                Mistake(
                    "the gradient is not multiplied by d in m",
                    "(1 - b1) * d * g",
                    "(1 - b1) * g",
                ),
                Mistake(
                    "the step takes the new d", "x - rate * d *", "x - rate * d_next *"
                ),
                Mistake(
                    "the sums are not multiplied by d",
                    "rate * d**2 * dot(g, start - x)\n        s = b3 * s + (1 - b3) * "
                    "rate * d**2 * g",
                    "rate * dot(g, start - x)\n        s = b3 * s + (1 - b3) * rate * g",
                ),
            ),
        ),
        optax=optax_prodigy,
        recorded=(
            "torch has none; the authors' package is for torch, its traces are not "
            "recorded"
        ),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "initial_distance": 0.01,
            "distance_factor": 0.25,
            "bias_correction": True,
        },
        rates=_RATES,
        # optax keeps its sums over all leaves in bfloat16, this library in float32.
        # After fifty steps the two are 9 eps apart on one processor (32 and 25 from the
        # exact rule), and 44 on another (48 and 20).
        bounds={"bfloat16": 16.0},
    ),
}
