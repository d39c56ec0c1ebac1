"""Formulas of rules that treat a leaf as a whole, from their papers."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import optax.contrib

from research.update_rules._layerwise import POLAR_EXPRESS
from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (
    Leaf,
    Leaves,
    Number,
    by_leaf,
    norm,
    sqrt,
    zeros_like,
)

# Adam's constants, for leaves that are not matrices.
B1, B2 = mpmath.mpf(0.9), mpmath.mpf(0.999)


def lamb(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of LAMB: algorithm 2 of You et al. (2020), with φ(z) = z.

    φ is the paper's function of a norm, and r is the direction of AdamW. The step of a
    leaf x is multiplied by the ratio |x| / |r|, which is 1 if either norm is 0.
    `eps_root` is added under the square root, as in optax.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        r = m_hat / (sqrt(v_hat + eps_root) + eps) + weight_decay * x
        x = x - learning_rate * by_leaf(ratio, x, r) * r
        yield x


def ratio(x: Leaf, r: Leaf):
    """Return |x| / |r|, or 1 if either norm is 0, as an array of the shape of x.

    x is a leaf of the params, r is the direction of the step of this leaf, and |.| is
    the Euclidean norm. All entries of the array are equal.
    """
    of_x, of_r = norm(Leaves([x])), norm(Leaves([r]))
    return np.full(
        np.shape(x),
        mpmath.mpf(1) if of_x == 0 or of_r == 0 else of_x / of_r,
        dtype=object,
    )


def muon(
    x: Leaves,
    f: Function,
    learning_rate: float,
    beta: float = 0.95,
    nesterov: bool = True,
    eps: float = 1e-7,
    weight_decay: float = 0.0,
    ns_steps: int = 5,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    bias_correction: bool = False,
    consistent_rms: float | None = None,
) -> Iterator[Leaves]:
    """Yield the iterates of Muon, by Jordan et al. (2024).

    Muon treats the leaves that are matrices, of shape (inputs, outputs). Adam treats
    all other leaves. `newton_schulz`, with the arguments ns_steps, ns_coeffs and eps,
    makes the momentum of a matrix orthogonal. If consistent_rms is None, the orthogonal
    matrix is multiplied by √max(1, outputs / inputs). If consistent_rms is a number c,
    the orthogonal matrix is multiplied by c √max(inputs, outputs). In equation (4) of
    Liu et al. (2025), c is 0.2. With bias_correction=True, the momentum is corrected
    for its start at 0, as in optax.
    """
    m = n = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = beta * m + (1 - beta) * g
        m_hat = m / (1 - beta ** (t + 1)) if bias_correction else m
        g_hat = g / (1 - beta**t) if bias_correction else g
        ahead = beta * m_hat + (1 - beta) * g_hat if nesterov else m
        if bias_correction and not nesterov:
            ahead = m / (1 - beta**t)
        orthogonal = by_leaf(
            lambda a: (
                (
                    mpmath.sqrt(shape_factor(a))
                    if consistent_rms is None
                    else consistent_rms * mpmath.sqrt(max(np.shape(a), default=1))
                )
                * newton_schulz(a, ns_steps, ns_coeffs, eps)
            ),
            ahead,
        )
        n = B1 * n + (1 - B1) * g
        v = B2 * v + (1 - B2) * g**2
        n_hat = n / (1 - B1**t)
        adam = n_hat / (sqrt(v / (1 - B2**t)) + mpmath.mpf(1e-8))
        x = x - learning_rate * by_leaf(
            lambda o, a, y: o + weight_decay * y if o.ndim == 2 else a,
            orthogonal,
            adam,
            x,
        )
        yield x


def shape_factor(a: Leaf):
    """Return max(1, n / m) for a matrix of shape (m, n), and 1 for other arrays."""
    return (
        max(mpmath.mpf(1), mpmath.mpf(a.shape[1]) / a.shape[0])
        if a.ndim == 2
        else mpmath.mpf(1)
    )


def newton_schulz(a: Leaf, ns_steps: int, ns_coeffs: Any, eps: Number):
    """Iterate X <- p X + (q X Xᵀ + r (X Xᵀ)²) X, and return the last X.

    The first X is a / (|a| + eps), where |a| is the Frobenius norm of the matrix `a`.
    There are `ns_steps` iterations, and (p, q, r) are `ns_coeffs`. If ns_coeffs are
    several triples, iteration k uses triple k, and iterations beyond the last triple
    use the last triple. An array that is not a matrix is returned unchanged.
    """
    if a.ndim != 2:
        return a
    triples = np.atleast_2d(ns_coeffs).tolist()
    x = a / (norm(Leaves([a])) + eps)
    for k in range(ns_steps):
        p, q, r = map(mpmath.mpf, triples[min(k, len(triples) - 1)])
        square = x @ x.T
        x = p * x + (q * square + r * square @ square) @ x
    return x


def normuon(
    x: Leaves,
    f: Function,
    learning_rate: float,
    beta: float = 0.95,
    beta2: float = 0.95,
    nesterov: bool = True,
    eps: float = 1e-7,
    weight_decay: float = 0.0,
    ns_steps: int = 5,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    consistent_rms: float | None = None,
) -> Iterator[Leaves]:
    """Yield the iterates of NorMuon of Li et al. (2025).

    As in Muon, the momentum of a matrix is orthogonalised. Each column of the result is
    then divided by √v, where v is a moving average of the mean square of this column,
    with the decay `beta2`. Then the step is scaled, and after that multiplied by the
    learning rate. If consistent_rms is a number, the scaled step has this number as its
    root mean square, which is 0.2 in algorithm 1 of the paper. With None, as in the
    authors' code, the scaled step has the norm of the step of `muon`. Matrices have
    shape (inputs, outputs). Other leaves use Adam.
    """
    m = n = s = zeros_like(x)
    v = by_leaf(mean_square_of_columns, m)
    for t in count(1):
        g = f.gradient(x)
        m = beta * m + (1 - beta) * g
        ahead = beta * m + (1 - beta) * g if nesterov else m
        o = by_leaf(lambda a: newton_schulz(a, ns_steps, ns_coeffs, eps), ahead)
        v = beta2 * v + (1 - beta2) * by_leaf(mean_square_of_columns, o)
        p = by_leaf(lambda a, w: a / (w + NEVER_ZERO), o, sqrt(v))
        o = by_leaf(
            lambda a, b: (
                b * wanted(a, consistent_rms) / (norm(Leaves([b])) + NEVER_ZERO)
            ),
            o,
            p,
        )
        n = B1 * n + (1 - B1) * g
        s = B2 * s + (1 - B2) * g**2
        adam = n / (1 - B1**t) / (sqrt(s / (1 - B2**t)) + mpmath.mpf(1e-8))
        x = x - learning_rate * by_leaf(
            lambda b, a, y: b + weight_decay * y if b.ndim == 2 else a, o, adam, x
        )
        yield x


NEVER_ZERO = mpmath.mpf(1e-10)


def mean_square_of_columns(a: Leaf):
    """Return an array of shape (1, n): the mean square of each of a's n columns.

    If a is not a matrix, return an array of the shape of a in which all entries are 1.
    """
    if a.ndim != 2:
        return np.full(np.shape(a), mpmath.mpf(1), dtype=object)
    return np.sum(a * a, axis=0, keepdims=True) / a.shape[0]


def mean_square_of_rows(a: Leaf):
    """Return the mean square of each of the m rows of a matrix a, shape (m, 1).

    If a is not a matrix, return an array of the shape of a in which all entries are 1.
    """
    return mean_square_of_columns(a.T).T


def wanted(a: Leaf, consistent_rms: Number | None):
    """Return the Frobenius norm of a NorMuon step at the learning rate 1.

    `a` is the orthogonal matrix that Muon computes. If consistent_rms is a number, the
    norm is consistent_rms · √(number of entries of a). If consistent_rms is None, the
    norm is that of the step of `muon`.
    """
    if consistent_rms is not None:
        return consistent_rms * mpmath.sqrt(np.size(a))
    return mpmath.sqrt(shape_factor(a)) * norm(Leaves([a]))


def hyperball(x: Leaves, f: Function, learning_rate: float) -> Iterator[Leaves]:
    """Yield the iterates of Hyperball (Wen et al., 2025) with Adam as its inner rule.

    The step of a matrix has the direction of Adam's step, and the length η R. Here η is
    the learning rate, and R the initial norm of the matrix. After the step, the matrix
    is scaled back to the norm R. Leaves that are not matrices take Adam's step.
    """
    m = v = zeros_like(x)
    radii = by_leaf(lambda a: norm(Leaves([a])), x)
    for t in count(1):
        g = f.gradient(x)
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g**2
        d = m / (1 - B1**t) / (sqrt(v / (1 - B2**t)) + mpmath.mpf(1e-8))
        x = by_leaf(lambda a, b, r: on_sphere(a, b, r, learning_rate), x, d, radii)
        yield x


def on_sphere(a: Leaf, d: Leaf, radius: Number, learning_rate: Number):
    """Return X after a step of Hyperball against the direction D.

    The arguments are the array X, the direction D, the radius R and the learning rate
    η, in this order. For a matrix X, the result is R Y / |Y| with Y = X - η R D / |D|,
    or X if D is 0. If X is not a matrix, the result is X - η D.
    """
    if a.ndim != 2:
        return a - learning_rate * d
    length = norm(Leaves([d]))
    if length == 0:
        return a
    y = a - learning_rate * radius * d / length
    return radius * y / norm(Leaves([y]))


def before_projection(a: Leaf, d: Leaf, radius: Number, learning_rate: Number):
    """Return X after a step as in `on_sphere`, but without the projection to norm R.

    The arguments are the array X, the direction D, the radius R and the learning rate
    η, in this order. For a matrix X, the result is X - η R D / |D|. If X is not a
    matrix, or D is 0, the result is X - η D.
    """
    return a - learning_rate * (
        radius * d / norm(Leaves([d])) if a.ndim == 2 and norm(Leaves([d])) else d
    )


def of_full_length(a: Leaf, d: Leaf, radius: Number, learning_rate: Number):
    """Return X after a step as in `on_sphere`, but without normalising the direction D.

    The arguments are the array X, the direction D, the radius R and the learning rate
    η, in this order. For a matrix X, the result is R Y / |Y| with Y = X - η D, where
    |Y| is the Frobenius norm. If X is not a matrix, the result is X - η D. For a
    matrix, `on_sphere` subtracts η R D / |D| instead of η D.
    """
    y = a - learning_rate * d
    return radius * y / norm(Leaves([y])) if a.ndim == 2 else y


def along_the_sphere(a: Leaf, d: Leaf, radius: Number, learning_rate: Number):
    """Return X after a step against P, the part of D that is orthogonal to X.

    The arguments are the array X, the direction D, the radius R and the learning rate
    η, in this order. For a matrix X, the result is R Y / |Y| with Y = X - η R P / |P|,
    or X if P is 0. If X is not a matrix, the result is X - η D, as in the function
    `on_sphere`.
    """
    if a.ndim == 2:
        d = d - a * ((a * d).sum() / (a * a).sum())
    return on_sphere(a, d, radius, learning_rate)


_OF_LAMB = (
    Mistake(
        "the ratio is taken over all leaves at once",
        "by_leaf(ratio, x, r)",
        "(norm(x) / norm(r))",
    ),
    Mistake("the ratio is missing: this is AdamW", "by_leaf(ratio, x, r) * r", "r"),
    Mistake("the ratio is inverted", "by_leaf(ratio, x, r)", "by_leaf(ratio, r, x)"),
    Mistake(
        "the ratio is of the gradient's norm",
        "by_leaf(ratio, x, r)",
        "by_leaf(ratio, x, g)",
    ),
    Mistake(
        "the direction gets length 1, not the leaf's",
        "by_leaf(ratio, x, r)",
        "by_leaf(ratio, x / norm(x), r)",
    ),
    Mistake(
        "ε is inside the root",
        "sqrt(v_hat + eps_root) + eps",
        "sqrt(v_hat + eps_root + eps)",
    ),
    Mistake(
        "the decay is not part of the norm",
        " + weight_decay * x\n        x = x - ",
        "\n        x = x - learning_rate * weight_decay * x - ",
    ),
    Mistake(
        "no bias correction of the second moment",
        "v_hat = v / (1 - b2**t)",
        "v_hat = v",
    ),
)


_OF_MUON = (
    Mistake(
        "the gradient is orthogonalised, not its momentum",
        "ahead = beta * m_hat + (1 - beta) * g_hat if nesterov else m",
        "ahead = g",
    ),
    Mistake(
        "it does not look ahead",
        "beta * m_hat + (1 - beta) * g_hat if nesterov",
        "m_hat if nesterov",
    ),
    Mistake(
        "the gradient is not multiplied by 1 - beta in the look-ahead",
        "(1 - beta) * g_hat if",
        "g_hat if",
    ),
    Mistake("wide matrices are not scaled", "mpmath.sqrt(shape_factor(a))", "1"),
    Mistake(
        "the scale is of the transposed matrix", "shape_factor(a)", "shape_factor(a.T)"
    ),
    Mistake(
        "the root of the scale is missing",
        "mpmath.sqrt(shape_factor(a))",
        "shape_factor(a)",
    ),
    Mistake(
        "the momentum is not orthogonalised",
        "newton_schulz(a, ns_steps, ns_coeffs, eps)",
        "a",
    ),
    Mistake(
        "all iterations use the coefficients of the first one",
        "ns_steps, ns_coeffs, eps",
        "ns_steps, np.atleast_2d(ns_coeffs)[0], eps",
    ),
    Mistake(
        "the scale is the root of the shorter side, not of the longer",
        "max(np.shape(a), default=1)",
        "min(np.shape(a), default=1)",
    ),
    Mistake(
        "the Adam of the other leaves is NAdam, as in optax.contrib.muon",
        "n_hat = n / (1 - B1**t)",
        "n_hat = B1 * n / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t)",
    ),
)


_OF_NORMUON = (
    Mistake(
        "the second moment squares the momentum before it is orthogonalised",
        "by_leaf(mean_square_of_columns, o)",
        "by_leaf(mean_square_of_columns, ahead)",
    ),
    Mistake(
        "the mean square is taken for each row, not for each column",
        "by_leaf(mean_square_of_columns, o)",
        "by_leaf(mean_square_of_rows, o)",
    ),
    Mistake(
        "the step has no fixed norm",
        "wanted(a, consistent_rms) / (norm(Leaves([b])) + NEVER_ZERO)",
        "1",
    ),
    Mistake("the root of the second moment is missing", "o, sqrt(v))", "o, v)"),
    Mistake(
        "the squares are bias-corrected, and the norm is not restored",
        "wanted(a, consistent_rms) / (norm(Leaves([b])) + NEVER_ZERO)",
        "mpmath.sqrt(1 - beta2**t)",
    ),
    Mistake(
        "columns are normalised at once: the squares are not averaged",
        "beta2 * v + (1 - beta2) * by_leaf",
        "by_leaf",
    ),
    Mistake(
        "the momentum is not orthogonalised",
        "newton_schulz(a, ns_steps, ns_coeffs, eps)",
        "a",
    ),
)


_OF_HYPERBALL = (
    Mistake(
        "the new matrix is not scaled back to the initial norm",
        "on_sphere(a,",
        "before_projection(a,",
    ),
    Mistake("the step is not normalised", "on_sphere(a,", "of_full_length(a,"),
    Mistake("the step is tangent to the sphere", "on_sphere(a,", "along_the_sphere(a,"),
    Mistake(
        "the inner rule is gradient descent, not Adam",
        "d = m / (1 - B1**t) / (sqrt(v / (1 - B2**t)) + mpmath.mpf(1e-8))",
        "d = g",
    ),
)


def optax_muon(
    learning_rate: float,
    beta: float = 0.95,
    nesterov: bool = True,
    eps: float = 1e-7,
    weight_decay: float = 0.0,
    ns_steps: int = 5,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    bias_correction: bool = False,
    consistent_rms: float | None = None,
) -> optax.GradientTransformation:
    """Return optax.contrib.muon for matrices, and Adam for other leaves.

    For the other leaves, optax.contrib.muon itself would use NAdam if nesterov=True.
    optax's Muon always corrects the bias of the momentum. For bias_correction=False,
    optax.trace therefore computes the momentum, which is multiplied by 1 - beta and
    then orthogonalised by optax's Muon with beta=0. With consistent_rms, which needs
    bias_correction=True, the scale is computed here, because optax.contrib.muon has the
    argument consistent_rms only since version 0.2.7.
    """
    given = (learning_rate, ns_coeffs, ns_steps)
    if consistent_rms is not None:
        of_matrices = optax.chain(
            optax.contrib.scale_by_muon(
                ns_coeffs,
                ns_steps,
                beta,
                eps,
                nesterov=nesterov,
                weight_dimension_numbers=lambda params: jax.tree.map(
                    lambda _: optax.contrib.MuonDimensionNumbers(), params
                ),
            ),
            optax.stateless(
                lambda updates, params: jax.tree.map(
                    lambda u: consistent_rms * max(u.shape) ** 0.5 * u, updates
                )
            ),
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )
    elif bias_correction:
        of_matrices = optax.contrib.muon(
            *given, beta, eps, weight_decay, nesterov=nesterov
        )
    else:
        orthogonalised = optax.contrib.muon(
            *given, 0.0, eps, weight_decay, nesterov=False
        )
        of_matrices = optax.chain(
            optax.trace(beta, nesterov), optax.scale(1.0 - beta), orthogonalised
        )
    return optax.partition(
        {"matrix": of_matrices, "other": optax.adam(learning_rate)},
        lambda params: jax.tree.map(
            lambda x: "matrix" if jnp.ndim(x) == 2 else "other", params
        ),
    )


CARDS = {
    "lamb": Card(
        Formula(lamb, _OF_LAMB),
        optax=optax.lamb,
        recorded=(
            Recorded("lamb/wd 0"),
            Recorded("lamb/wd 0.1", {"weight_decay": 0.1}),
        ),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
        # The step length is the rate times the leaf's length, even near the minimum.
        # At 0.05 the iterates move chaotically there.
        rates={"quadratic": 0.01, "softmax_regression": 0.02},
    ),
    "muon": Card(
        Formula(muon, _OF_MUON),
        optax=optax_muon,
        recorded=(
            "torch.optim.Muon and the reference orthogonalise in bfloat16 whatever "
            "the dtype; its eight bits are too few for a comparison"
        ),
        arguments={
            "beta": 0.8,
            "eps": 0.01,
            "weight_decay": 0.1,
            "ns_steps": 3,
            "ns_coeffs": POLAR_EXPRESS[:3],
            "bias_correction": True,
            "consistent_rms": 0.3,
        },
        # Five iterations magnify singular values 485 times below a matrix's largest
        # one to its size, and rounding errors as well. In `scales`, the entries of one
        # matrix differ by e^60. Measured: 2035 eps in float32, and 1657 from optax in
        # float64. In bfloat16: 30 eps from optax, 31 and 19 from the exact rule.
        bounds={"formula": 4000.0, "optax": 4000.0, "bfloat16": 64.0},
    ),
    "normuon": Card(
        Formula(normuon, _OF_NORMUON),
        optax="optax and optax.contrib do not have NorMuon",
        recorded="Neither torch nor timm has NorMuon",
        arguments={
            "beta": 0.8,
            "beta2": 0.7,
            "eps": 0.01,
            "weight_decay": 0.1,
            "ns_steps": 3,
            "consistent_rms": 0.2,
        },
        bounds={"formula": 4000.0},  # As for muon.
    ),
    "hyperball": Card(
        Formula(hyperball, _OF_HYPERBALL),
        optax="optax and optax.contrib do not have hyperball",
        recorded="Neither torch nor timm has hyperball",
    ),
}
