"""Rules that find their own step, as their papers print them."""

from itertools import count

import mpmath

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import absolute, dot, norm, sqrt, zeros_like


def dog(x, f, learning_rate=1.0, initial_distance=None, eps=1e-8):
    """Ivgi, Hinder & Carmon (2023), equation (DoG), with the ε and the r_ε of the authors' code."""
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
    """The larger number; NaN if either is."""
    return a + b if mpmath.isnan(a + b) else max(a, b)


def prodigy(
    x, f, learning_rate=1.0, b1=0.9, b2=0.999, b3=None, eps=1e-8, initial_distance=1e-6, distance_factor=1.0,
    weight_decay=0.0, bias_correction=False, eps_by_next_distance=True,
):  # fmt: skip
    """Mishchenko & Defazio (2024), algorithm 4 with eps_by_next_distance=False, which their code has True."""
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


FORMULAS = {
    "dog": Formula(
        dog,
        (
            Mistake(
                "it takes the last distance, not the largest",
                "larger(distance, norm(x - start))",
                "norm(x - start) or distance",
            ),
            Mistake(
                "the sum of squares has no root", "sqrt(total + eps)", "(total + eps)"
            ),
            Mistake(
                "it takes the last gradient alone", "total + dot(g, g)", "dot(g, g)"
            ),
            Mistake(
                "the distance is that from the origin", "norm(x - start)", "norm(x)"
            ),
            Mistake(
                "the norms are of each entry: the rate differs by coordinate",
                "total + dot(g, g)",
                "total + g * g",
            ),
            Mistake(
                "the first distance is not scaled by the params",
                "(1 + norm(x)) if",
                "1 if",
            ),
        ),
    ),
    "prodigy": Formula(
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
            Mistake("the norm of s is Euclidean", "dot(absolute(s), s**0)", "norm(s)"),
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
                "rate * d**2 * dot(g, start - x)\n        s = b3 * s + (1 - b3) * rate * d**2 * g",
                "rate * dot(g, start - x)\n        s = b3 * s + (1 - b3) * rate * g",
            ),
        ),
    ),
}
