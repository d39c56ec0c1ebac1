"""Formulas of the rules that precondition each axis of a leaf, from their papers."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import mpmath
import numpy as np
from jaxtyping import Shaped

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaf, Leaves, Number, sqrt, zeros_like

Square = Shaped[np.ndarray, "n n"]  # A matrix of numbers of mpmath.
Bases = Sequence[Sequence[Square]]  # For each leaf, the basis of each axis.


def shampoo(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float | None = None,
    eps: float = 1e-4,
    weight_decay: float = 0.0,
    refresh_every: int = 1,
    root: int | None = None,
) -> Iterator[Leaves]:
    """Yield the iterates of algorithm 2 of Gupta et al. (2018), for any number of axes.

    The rule is Shampoo. The gradients are averaged with the decay b1, as the authors
    propose in section 5. Each axis of a leaf has a matrix, its factor: ε I plus the sum
    of G Gᵀ over the steps. Row i of the matrix G has the entries of the leaf's gradient
    with index i on this axis. If b2 is given, a moving average with the decay b2
    replaces the sum. Each factor is raised to the power -1 / `root`. root=None means
    twice the number of axes. These powers are computed every `refresh_every` steps.
    Along each axis, the averaged gradient is multiplied by the power for this axis.
    """
    m = zeros_like(x)
    factors: Any = [[mpmath.mpf(0)] * max(a.ndim, 1) for a in x.arrays]
    for t in count(0):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        for of_leaf, a in zip(factors, g.arrays, strict=True):
            for k, factor in enumerate(of_leaf):
                new = products(a, k)
                of_leaf[k] = (
                    factor + new if b2 is None else b2 * factor + (1 - b2) * new
                )
        if t % refresh_every == 0:
            roots = [
                [
                    inverse_root(factor, root or 2 * len(of_leaf), eps)
                    for factor in of_leaf
                ]
                for of_leaf in factors
            ]
        step = Leaves(
            along_axes(a, of_leaf) for a, of_leaf in zip(m.arrays, roots, strict=True)
        )
        x = x - learning_rate * (step + weight_decay * x)
        yield x


def soap(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    refresh_every: int = 10,
    refresh: str = "qr",
    shampoo_beta: float | None = None,
) -> Iterator[Leaves]:
    """Yield the iterates of SOAP: algorithms 3 and 4 of Vyas et al. (2024).

    SOAP has a basis of eigenvectors for each axis of a leaf with at least two axes. The
    basis of an axis has the eigenvectors of a moving average of G Gᵀ. Row i of G has
    the entries of the gradient with index i on this axis. `shampoo_beta` is the decay
    of this average. None means `b2`. Adam's second moments and step are computed in
    these bases. Other leaves use Adam.

    As in the authors' code, the first gradient sets the bases and makes no step. The
    bases are computed again every `refresh_every` steps: with refresh="eigh" by an
    eigendecomposition, with "qr" by one power iteration and a QR decomposition. Before
    either computation, the columns of a basis, and the second moments along these
    columns, are sorted by decreasing estimated eigenvalue.
    """
    beta = b2 if shampoo_beta is None else shampoo_beta
    m = v = zeros_like(x)
    axes = [range(a.ndim) if a.ndim > 1 else () for a in x.arrays]
    factors: Any = [[mpmath.mpf(0) for _ in of_leaf] for of_leaf in axes]
    bases: Any = [[np.eye(n) for n in a.shape if a.ndim > 1] for a in x.arrays]
    for t in count(0):
        g = f.gradient(x)
        if t > 0:
            rotated = rotate(g, bases)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * rotated**2
            m_hat = rotate(m, bases) / (1 - b1**t)
            v_hat = v / (1 - b2**t)
            step = rotate_back(m_hat / (sqrt(v_hat) + eps), bases)
            x = x - learning_rate * (step + weight_decay * x)
        for n, of_leaf in enumerate(axes):
            for k in of_leaf:
                new = products(g.arrays[n], k)
                factors[n][k] = beta * factors[n][k] + (1 - beta) * new
                if (t > 0 and t % refresh_every > 0) or not is_finite(factors[n][k]):
                    continue
                q = bases[n][k]
                image = factors[n][k] @ q
                if t > 0:
                    order = np.argsort(-(q * image).sum(0), kind="stable")
                    v.arrays[n] = np.take(v.arrays[n], order, axis=k)
                if t == 0 or refresh == "eigh":
                    bases[n][k] = eigenvectors(factors[n][k])
                else:
                    bases[n][k] = orthogonalised(image[:, order], q)
        yield x


def kl_soap(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    refresh_every: int = 10,
    shampoo_beta: float | None = None,
    first_eigenvalue: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of KL-SOAP, as the code of Lin et al. (2026) computes them.

    The code is optim/kl_opt.py of KL-Methods at commit 4cb97e0 with using_klsoap=True.
    For each axis of a leaf with two or more axes, KL-SOAP keeps a moving average of a
    matrix W Wᵀ / n, a basis Q of approximate eigenvectors of this average, and
    estimates d of the eigenvalues. To compute W, KL-SOAP multiplies the gradient along
    every other axis by diag(d)^(-1/2) Qᵀ, with the d and Q of that other axis (see
    `whitened`). Only the first gradient is not multiplied. Row i of W has the entries
    of the resulting array with index i on this axis, and n is the number of columns of
    W. The first gradient sets the basis of each axis, and makes no step. The squared
    gradients are averaged in the bases Q. Leaves with fewer than two axes use Adam
    without bias correction.

    `shampoo_beta` is the decay of the averages of W Wᵀ / n and of the averages that
    estimate d. None means `b2`. `first_eigenvalue` is the initial value of all entries
    of d.
    """
    beta = b2 if shampoo_beta is None else shampoo_beta
    m = v = zeros_like(x)
    axes = [range(a.ndim) if a.ndim > 1 else () for a in x.arrays]
    factors: Any = [[mpmath.mpf(0) for _ in of_leaf] for of_leaf in axes]
    bases: Any = [[np.eye(n) for n in a.shape if a.ndim > 1] for a in x.arrays]
    spectra: Any = [
        [np.full(n, first_eigenvalue, object) for n in a.shape if a.ndim > 1]
        for a in x.arrays
    ]
    for t in count(0):
        g = f.gradient(x)
        if t > 0:
            rotated = rotate(g, bases)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * rotated**2
            step = rotate_back(rotate(m, bases) / (sqrt(v) + eps), bases)
            x = x - learning_rate * (step + weight_decay * x)
        for n, of_leaf in enumerate(axes):
            old = list(spectra[n])
            turns = list(bases[n])
            for k in of_leaf:
                size = len(turns[k])
                white = g.arrays[n]
                if t > 0:
                    white = whitened(white, turns, old, k)
                    square = along_axes(white, only(k, turns[k].T, white.ndim)) ** 2
                    mean = np.moveaxis(square, k, 0).reshape(size, -1).mean(1)
                    kept = beta * old[k] + (1 - beta) * mean
                    spectra[n][k] = at_least(kept, max(10, min(size, 4000)))
                new = products(white, k) / (white.size // size)
                factors[n][k] = beta * factors[n][k] + (1 - beta) * new
                if (t > 0 and t % refresh_every > 0) or not is_finite(factors[n][k]):
                    continue
                q = bases[n][k]
                if t == 0:
                    bases[n][k] = eigenvectors(factors[n][k])
                else:
                    bases[n][k] = orthogonalised(factors[n][k] @ q, q)
        yield x


def whitened(
    a: Leaf, bases: Sequence[Square], spectra: Sequence[Leaf], axis: int
) -> Leaf:
    """Multiply the array a along each axis k, except `axis`, by diag(d_k)^(-1/2) Q_kᵀ.

    Q_k is bases[k], and d_k is spectra[k]. The preconditioner of axis k is
    Q_k diag(d_k) Q_kᵀ. The columns of Q_k are the eigenvectors of this preconditioner,
    and d_k has its eigenvalues.
    """
    scaled = [
        (q / np.array([mpmath.sqrt(e) for e in d], object)).T
        for q, d in zip(bases, spectra, strict=True)
    ]
    return along_axes(a, [None if k == axis else q for k, q in enumerate(scaled)])


def only(axis: int, matrix: Square, ndim: int) -> list[Square | None]:
    """Return a list of `ndim` entries: `matrix` at the index `axis`, None elsewhere."""
    return [matrix if k == axis else None for k in range(ndim)]


def at_least(values: Leaf, c: int) -> Leaf:
    """Return max(d, c^(-2)) for each of the eigenvalues d in `values`.

    KL-SOAP thus keeps its estimated eigenvalues away from 0. In `kl_soap`, c is the
    length of the axis, but at least 10 and at most 4000.
    """
    return np.array([max(d, mpmath.mpf(1) / c**2) for d in values], object)


def products(g: Leaf, axis: int):
    """Return G Gᵀ, where row i of G has the entries of g with index i on one axis.

    `axis` is the index of this axis, counted from 0. A scalar counts as a vector with
    one entry.
    """
    g = np.moveaxis(np.atleast_1d(g), axis, 0)
    g = g.reshape(len(g), g.size // max(len(g), 1))
    return g @ g.T


def along_axes(a: Leaf, matrices: Iterable[Square | None]):
    """Return an array with each axis multiplied by its matrix.

    `matrices` has one matrix for each axis. An axis whose matrix is None is unchanged.
    """
    found = np.atleast_1d(a)
    for k, matrix in enumerate(matrices):
        if matrix is not None:
            found = np.moveaxis(np.tensordot(matrix, found, (1, k)), 0, k)
    return found.reshape(np.shape(a))


def rotate(x: Leaves, bases: Bases):
    """Return the leaves x with each axis multiplied by the transpose of its matrix Q.

    `bases` has a list for each leaf, with one matrix Q for each axis. A leaf whose list
    is empty is unchanged.
    """
    return Leaves(
        along_axes(a, [q.T for q in of_leaf])
        for a, of_leaf in zip(x.arrays, bases, strict=True)
    )


def rotate_back(x: Leaves, bases: Bases):
    """Return the leaves x with each axis multiplied by its matrix Q.

    If the matrices are orthogonal, this function is the inverse of `rotate`, which
    multiplies by Qᵀ. `bases` has a list for each leaf, with one matrix Q for each axis.
    A leaf whose list is empty is unchanged.
    """
    return Leaves(
        along_axes(a, of_leaf) for a, of_leaf in zip(x.arrays, bases, strict=True)
    )


def is_finite(matrix: Square):
    """Return whether all entries of a matrix are finite."""
    return all(mpmath.isfinite(entry) for entry in matrix.flat)


def spectrum(matrix: Square):
    """Return the eigenvalues and eigenvectors of a symmetric matrix.

    The largest eigenvalue is the first. The eigenvectors are the columns of an array.
    """
    values, vectors = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
    order = sorted(range(len(values)), key=lambda k: values[k], reverse=True)
    vectors = np.array(vectors.tolist(), object).reshape(matrix.shape)
    return [values[k] for k in order], vectors[:, order]


def eigenvectors(matrix: Square):
    """Return the eigenvectors of a symmetric matrix as columns.

    The eigenvector of the largest eigenvalue is the first column.
    """
    return spectrum(matrix)[1]


def orthogonalised(matrix: Square, instead: Square):
    """Return Q of the QR decomposition of `matrix`, or `instead` if `matrix` is 0."""
    if not any(matrix.flat):
        return instead
    q, _ = mpmath.qr(mpmath.matrix(matrix.tolist()))
    return np.array(q.tolist(), object).reshape(matrix.shape)


def inverse_root(factor: Square, order: int, eps: Number):
    """Return the inverse root (L + ε I)^(-1/q), computed from the eigenvalues of L.

    L is the symmetric argument `factor`, q is `order`, and ε is `eps`. Negative
    eigenvalues of L count as 0. If an entry of L is not finite, all entries of the
    result are NaN.
    """
    if not factor.size:
        return factor
    if not is_finite(factor):
        return factor * mpmath.nan
    values, vectors = spectrum(factor)
    powers = [
        (mpmath.mpf(max(value, 0)) + eps) ** (-mpmath.mpf(1) / order)
        for value in values
    ]
    return (vectors * np.array(powers, object)) @ vectors.T


def diagonal(matrix: Square):
    """Return a matrix with the entries off the diagonal set to 0."""
    return np.diag(np.diag(matrix))


_OF_SHAMPOO = (
    Mistake(
        "the power is -1/k, not -1/(2 k), for a leaf with k axes",
        "root or 2 * len(of_leaf)",
        "root or len(of_leaf)",
    ),
    Mistake(
        "the power is -1/4 for vectors too",
        "root or 2 * len(of_leaf)",
        "root or 4",
    ),
    Mistake(
        "the gradient is preconditioned, not its average",
        "zip(m.arrays, roots",
        "zip(g.arrays, roots",
    ),
    Mistake(
        "the factors keep their diagonals only",
        "new = products(a, k)",
        "new = diagonal(products(a, k))",
    ),
    Mistake(
        "the factors are sums of averaged gradients",
        "zip(factors, g.arrays",
        "zip(factors, m.arrays",
    ),
    Mistake(
        "the bias of the average is corrected",
        "inverse_root(factor, root or",
        "inverse_root(factor if b2 is None else factor / (1 - b2 ** (t + 1)), root or",
    ),
)

_OF_SOAP = (
    Mistake(
        "the first gradient makes a step",
        "if t > 0:\n            rotated",
        "if t >= 0:\n            t = t + 1\n            rotated",
    ),
    Mistake(
        "the average of the rotated gradients stays in the old basis",
        "m = b1 * m + (1 - b1) * g\n"
        "            v = b2 * v + (1 - b2) * rotated**2\n"
        "            m_hat = rotate(m, bases) / (1 - b1**t)",
        "m = b1 * m + (1 - b1) * rotated\n"
        "            v = b2 * v + (1 - b2) * rotated**2\n"
        "            m_hat = m / (1 - b1**t)",
    ),
    Mistake(
        "the gradient is squared before it is rotated",
        "rotated**2",
        "g**2",
    ),
    Mistake(
        "the step is not rotated back",
        "step = rotate_back(m_hat / (sqrt(v_hat) + eps), bases)",
        "step = m_hat / (sqrt(v_hat) + eps)",
    ),
    Mistake(
        "ε stands inside the root, as in the paper's algorithm",
        "(sqrt(v_hat) + eps)",
        "sqrt(v_hat + eps)",
    ),
    Mistake(
        "V is not sorted with the columns of the basis",
        "v.arrays[n] = np.take(v.arrays[n], order, axis=k)",
        "pass",
    ),
    Mistake(
        "the bases are refreshed before the step",
        "t % refresh_every > 0",
        "(t + 1) % refresh_every > 0",
    ),
    Mistake(
        "no bias correction of the second moment",
        "v_hat = v / (1 - b2**t)",
        "v_hat = v",
    ),
    Mistake(
        "only the left side is rotated",
        "axes = [range(a.ndim) if a.ndim > 1 else () for a in x.arrays]",
        "axes = [range(1) if a.ndim > 1 else () for a in x.arrays]",
    ),
)

_OF_KL_SOAP = (
    Mistake(
        "the factors are those of SOAP: they are not whitened",
        "white = whitened(white, turns, old, k)",
        "pass",
    ),
    Mistake(
        "the biases of both averages are corrected, as in Adam",
        "rotate(m, bases) / (sqrt(v) + eps)",
        "rotate(m / (1 - b1 ** t), bases) / (sqrt(v / (1 - b2 ** t)) + eps)",
    ),
    Mistake(
        "an axis is whitened by eigenvalues of this step, not of the last",
        "white = whitened(white, turns, old, k)",
        "white = whitened(white, turns, spectra[n], k)",
    ),
    Mistake(
        "the eigenvalues have no lower bound",
        "spectra[n][k] = at_least(kept, max(10, min(size, 4000)))",
        "spectra[n][k] = kept",
    ),
    Mistake(
        "the eigenvalues keep their first value",
        "spectra[n][k] = at_least(kept, max(10, min(size, 4000)))",
        "pass",
    ),
    Mistake(
        "the first gradient makes a step",
        "if t > 0:\n            rotated",
        "if t >= 0:\n            t = t + 1\n            rotated",
    ),
    Mistake(
        "the average of the rotated gradients stays in the old basis",
        "m = b1 * m + (1 - b1) * g\n"
        "            v = b2 * v + (1 - b2) * rotated**2\n"
        "            step = rotate_back(rotate(m, bases)",
        "m = b1 * m + (1 - b1) * rotated\n"
        "            v = b2 * v + (1 - b2) * rotated**2\n"
        "            step = rotate_back(m",
    ),
    Mistake(
        "the step is not rotated back",
        "step = rotate_back(rotate(m, bases) / (sqrt(v) + eps), bases)",
        "step = rotate(m, bases) / (sqrt(v) + eps)",
    ),
    Mistake(
        "ε stands inside the root",
        "(sqrt(v) + eps)",
        "sqrt(v + eps)",
    ),
    Mistake(
        "the bases are refreshed before the step",
        "t % refresh_every > 0",
        "(t + 1) % refresh_every > 0",
    ),
)

_UNRESOLVED = (
    "entries of one gradient differ by a factor of e^60 there, and those of G Gᵀ by "
    "e^120, so float64 cannot represent the small eigenvalues"
)

CARDS = {
    "shampoo": Card(
        Formula(shampoo, _OF_SHAMPOO),
        optax="optax and optax.contrib do not have Shampoo",
        recorded="Neither torch nor timm has Shampoo",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "weight_decay": 0.1,
            "refresh_every": 3,
        },
        reasons={"scales": _UNRESOLVED},
        # The rounding errors of L are magnified by the ratio of its largest eigenvalue
        # to ε. Measured: 2088 eps in float64 (random_pytree, where a vector's L has
        # rank 1 and the eigenvalue 400 at first), and 351 in float32.
        bounds={"formula": 4000.0},
    ),
    "soap": Card(
        Formula(soap, _OF_SOAP),
        optax="optax and optax.contrib do not have SOAP",
        recorded="Neither torch nor timm has SOAP",
        arguments={
            "b1": 0.8,
            "b2": 0.9,
            "eps": 0.01,
            "weight_decay": 0.1,
            "refresh_every": 3,
            "refresh": "eigh",
            "shampoo_beta": 0.7,
        },
        reasons={
            "scales": _UNRESOLVED,
            "sparse_gradients": (
                "the first products G Gᵀ have rank 0 or 1 there, so neither their "
                "eigenvectors nor the steps are unique"
            ),
        },
        # Small components of the gradient in the basis are divided by their own root
        # mean square, with the rounding errors of the large ones. In softmax regression
        # the rows of the gradient almost add up to 0. Measured: 2261 eps in float64 and
        # 4357 in float32.
        bounds={"formula": 10_000.0},
    ),
    "kl_soap": Card(
        Formula(kl_soap, _OF_KL_SOAP),
        optax="optax and optax.contrib do not have KL-SOAP",
        recorded="Neither torch nor timm has KL-SOAP",
        arguments={
            "b1": 0.8,
            "b2": 0.9,
            "eps": 0.01,
            "weight_decay": 0.1,
            "refresh_every": 3,
            "shampoo_beta": 0.7,
            "first_eigenvalue": 0.5,
        },
        reasons={
            "scales": _UNRESOLVED,
            "sparse_gradients": (
                "the first products G Gᵀ have rank 0 or 1 there, so neither their "
                "eigenvectors nor the steps are unique"
            ),
        },
        bounds={"formula": 10_000.0},  # For the reason of soap.
    ),
    "psgd_kron": Card(
        (
            "it draws random numbers, which the problems here do not have; "
            "tests/rules/test_psgd.py compares it with its formula on the same draws"
        ),
        optax="optax and optax.contrib do not have PSGD",
        recorded="Neither torch nor timm has PSGD with given draws",
    ),
}
