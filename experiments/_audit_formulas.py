"""Formulas of rules that this project does not have, from their papers, for the audit.

Each is written from the paper that its docstring names, in the form of the formulas of
`research.verification`.
"""

from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Any, cast

import mpmath
import numpy as np

from research.verification.adam_variants import times
from research.verification.formula import Formula, Function
from research.verification.kronecker import eigenvectors
from research.verification.layerwise import newton_schulz
from research.verification.leaves import (
    Leaf,
    Leaves,
    Number,
    absolute,
    by_leaf,
    dot,
    entrywise,
    maximum,
    norm,
    sign,
    sqrt,
    zeros_like,
)


def least(x: Leaves, y: Leaves | Number) -> Leaves:
    """Return the smaller of x and y for each entry."""
    return -maximum(-x, -y)


def sum_of(a: Leaf) -> Number:
    """Return the sum of the entries of an array."""
    return mpmath.fsum(a.flat)


def length(a: Leaf) -> Number:
    """Return the Euclidean norm of an array."""
    return norm(Leaves([a]))


def float32_norm(g: Leaves) -> Number:
    """Return the norm as pytorch_optimizer computes it from norms of leaves."""
    norms = np.array([np.float32(float(length(a))) for a in g.arrays])
    return mpmath.mpf(float(np.sqrt((norms * norms).sum())))


def float32_square(g: Leaves) -> np.float32:
    """Return the squared norm as pytorch_optimizer computes it, in float32."""
    norms = np.array([np.float32(float(length(a))) for a in g.arrays])
    return (norms * norms).sum()


def float32_radius(rho: float, g: Leaves) -> Number:
    """Return ρ / |g| as PyTorch computes it in float32: ρ times a reciprocal."""
    reciprocal = np.float32(1) / np.float32(float(float32_norm(g)))
    return mpmath.mpf(float(np.float32(float(rho)) * reciprocal))


def asgd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    decay: float = 0.0001,
    power: float = 0.75,
) -> Iterator[Leaves]:
    """Yield the iterates of Bottou's averaged SGD (2012).

    These are the iterates themselves; the average is not used by the steps.
    """
    for t in count(0):
        rate = learning_rate / (1 + decay * learning_rate * t) ** power
        x = (1 - decay * rate) * x - rate * f.gradient(x)
        yield x


def ftrl(
    x: Leaves,
    f: Function,
    learning_rate: float,
    start: float = 0.0,
    beta: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of McMahan et al. (2013).

    The paper starts from x = 0. Here x starts anywhere, and z starts at 0, as in the
    libraries.
    """
    n, z = zeros_like(x) + start, zeros_like(x)
    while True:
        g = f.gradient(x)
        after = n + g**2
        z = z + g - (sqrt(after) - sqrt(n)) / learning_rate * x
        n = after
        shrunk = sign(z) * maximum(absolute(z) - l1, 0)
        x = -shrunk / ((beta + sqrt(n)) / learning_rate + l2)
        yield x


def adamp(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
    delta: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Heo et al. (2021), without weight decay."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        step = by_leaf(lambda p, a, b: tangential(p, a, b, delta), step, x, g)
        x = x - learning_rate * step
        yield x


def sgdp(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    delta: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Heo et al. (2021), without weight decay."""
    p = zeros_like(x)
    while True:
        g = f.gradient(x)
        p = momentum * p + g
        step = by_leaf(lambda s, a, b: tangential(s, a, b, delta), p, x, g)
        x = x - learning_rate * step
        yield x


def tangential(step: Leaf, x: Leaf, g: Leaf, delta: float, eps: Number = 0) -> Leaf:
    """Return the step without its part along x, if x and g are almost orthogonal.

    As in the code of the authors, each row is tested first, and then the whole matrix.
    The step of a vector is not changed.
    """
    if x.ndim < 2:
        return step
    for rows in (True, False):
        shape = (x.shape[0], -1) if rows else (1, -1)
        a, b, s = (np.reshape(y, shape) for y in (x, g, step))
        cosines = [
            abs((p * q).sum()) / ((length(p) + eps) * (length(q) + eps))
            for p, q in zip(a, b, strict=True)
        ]
        if max(cosines) < delta / mpmath.sqrt(a.shape[1]):
            unit = a / np.array([[length(row) + eps] for row in a], object)
            return (s - unit * (unit * s).sum(1, keepdims=True)).reshape(x.shape)
    return step


def accsgd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    kappa: float = 1000.0,
    xi: float = 10.0,
    constant: float = 0.7,
) -> Iterator[Leaves]:
    """Yield the iterates of AccSGD of Kidambi et al. (2018)."""
    alpha = 1 - constant**2 * xi / kappa
    w = x
    while True:
        g = f.gradient(x)
        w = alpha * w + (1 - alpha) * (x - kappa * learning_rate / constant * g)
        share = constant / (constant + 1 - alpha)
        x = share * (x - learning_rate * g) + (1 - share) * w
        yield x


def adabound(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
    final_rate: float = 0.1,
    gamma: float = 0.001,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaBound as in the code of Luo et al. (2019).

    Algorithm 2 of the paper has no bias corrections, and divides the rate by √t.
    """
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        low = final_rate * (1 - 1 / (gamma * t + 1))
        high = final_rate * (1 + 1 / (gamma * t))
        rate = learning_rate * sqrt(1 - b2**t) / (1 - b1**t)
        rates = least(maximum(rate / (sqrt(v) + eps), low), zeros_like(x) + high)
        x = x - rates * m
        yield x


def adamod(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    b3: float = 0.9999,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Ding et al. (2019)."""
    m = v = s = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        rates = learning_rate / (sqrt(v / (1 - b2**t)) + eps)
        s = b3 * s + (1 - b3) * rates
        x = x - least(rates, s) * (m / (1 - b1**t))
        yield x


def adanorm(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    gamma: float = 0.95,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaNorm with Adam of Dubey et al. (2023)."""
    m = v = zeros_like(x)
    e = by_leaf(lambda a: np.asarray(mpmath.mpf(0)), x)
    for t in count(1):
        g = f.gradient(x)
        norms = by_leaf(lambda a: np.asarray(length(a)), g)
        e = gamma * e + (1 - gamma) * norms
        s = by_leaf(
            lambda a, n, k: a * max(mpmath.mpf(1), k.item() / n.item()), g, norms, e
        )
        m = b1 * m + (1 - b1) * s
        v = b2 * v + (1 - b2) * g**2
        x = x - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        yield x


def aggmo(
    x: Leaves,
    f: Function,
    learning_rate: float,
    betas: tuple[float, ...] = (0.0, 0.9, 0.99),
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Lucas et al. (2019)."""
    velocities = [zeros_like(x) for _ in betas]
    while True:
        g = f.gradient(x)
        velocities = [b * v - g for b, v in zip(betas, velocities, strict=True)]
        for v in velocities:
            x = x + learning_rate / len(betas) * v
        yield x


def qhm(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.999,
    nu: float = 0.7,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Ma & Yarats (2019)."""
    m = zeros_like(x)
    while True:
        g = f.gradient(x)
        m = momentum * m + (1 - momentum) * g
        x = x - learning_rate * ((1 - nu) * g + nu * m)
        yield x


def qhadam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    nu1: float = 1.0,
    nu2: float = 1.0,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of QHAdam of Ma & Yarats (2019)."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        above = (1 - nu1) * g + nu1 * m / (1 - b1**t)
        below = sqrt((1 - nu2) * g**2 + nu2 * v / (1 - b2**t))
        x = x - learning_rate * above / (below + eps)
        yield x


def padam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    partial: float = 0.25,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Chen et al. (2020)."""
    m = v = largest = zeros_like(x)
    while True:
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = maximum(largest, v)
        x = x - learning_rate * m / largest**partial
        yield x


def diffgrad(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of diffGrad of Dubey et al. (2020)."""
    m = v = before = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        friction = entrywise(lambda a: 1 / (1 + mpmath.exp(-abs(a))), before - g)
        before = g
        x = x - learning_rate * friction * m_hat / (sqrt(v_hat) + eps)
        yield x


def tiger(
    x: Leaves,
    f: Function,
    learning_rate: float,
    beta: float = 0.965,
    weight_decay: float = 0.01,
) -> Iterator[Leaves]:
    """Yield the iterates of Tiger of Su (2023)."""
    m = zeros_like(x)
    while True:
        g = f.gradient(x)
        m = beta * m + (1 - beta) * g
        x = x - learning_rate * (sign(m) + weight_decay * x)
        yield x


def msvag(
    x: Leaves, f: Function, learning_rate: float, beta: float = 0.9
) -> Iterator[Leaves]:
    """Yield the iterates of M-SVAG, the method of Balles & Hennig (2018)."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = beta * m + (1 - beta) * g
        v = beta * v + (1 - beta) * g**2
        m_hat, v_hat = m / (1 - beta**t), v / (1 - beta**t)
        rho = (1 - beta) * (1 + beta**t) / ((1 + beta) * (1 - beta**t))
        factor = m_hat**0
        if t > 1:
            s = (v_hat - m_hat**2) / (1 - rho)
            factor = m_hat**2 / (m_hat**2 + rho * s)
        x = x - learning_rate * factor * m_hat
        yield x


def pnm(
    x: Leaves, f: Function, learning_rate: float, b1: float = 0.9, b0: float = 1.0
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Xie et al. (2021)."""
    m = before = zeros_like(x)
    while True:
        g = f.gradient(x)
        m, before = b1**2 * before + (1 - b1**2) * g, m
        size = sqrt((1 + b0) ** 2 + b0**2)
        x = x - learning_rate / size * ((1 + b0) * m - b0 * before)
        yield x


def adapnm(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    b0: float = 1.0,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Xie et al. (2021)."""
    m = before = v = largest = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m, before = b1**2 * before + (1 - b1**2) * g, m
        m_hat = ((1 + b0) * m - b0 * before) / (1 - b1**t)
        v = b2 * v + (1 - b2) * g**2
        largest = maximum(v, largest)
        v_hat = largest / (1 - b2**t)
        size = sqrt((1 + b0) ** 2 + b0**2)
        x = x - learning_rate * m_hat / (size * (sqrt(v_hat) + eps))
        yield x


def tam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    gamma: float = 0.9,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of TAM of Malviya et al. (2024), with a cosine per leaf."""
    m, s = zeros_like(x), by_leaf(lambda a: np.asarray(mpmath.mpf(0)), x)
    while True:
        g = f.gradient(x)
        s = gamma * s + (1 - gamma) * by_leaf(cosine, m, g)
        m = momentum * m + by_leaf(lambda k, a: (eps + (1 + k.item()) / 2) * a, s, g)
        x = x - learning_rate * m
        yield x


def cosine(a: Leaf, b: Leaf) -> Leaf:
    """Return the cosine of the angle between two arrays; 0 if one of them is 0."""
    size = length(a) * length(b)
    return np.asarray((a * b).sum() / size if size else mpmath.mpf(0))


def by_column(a: Leaf, b: Leaf) -> Leaf:
    """Divide each column of two arrays by its length, and return their product."""
    return unit_columns(a) * unit_columns(b)


def unit_columns(a: Leaf) -> Leaf:
    """Return an array with each column divided by max(its length, 1e-12)."""
    least_length = mpmath.mpf(1e-12)
    columns = a.reshape(a.shape[0], -1).T
    lengths = [max(length(column), least_length) for column in columns]
    return a / np.array(lengths, object).reshape((1,) * (a.ndim > 1) + (-1,))


def grams(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of Grams of Cao et al. (2024)."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        x = x - learning_rate * sign(g) * absolute(u)
        yield x


def grokfast(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-08,
    alpha: float = 0.98,
    factor: float = 2.0,
) -> Iterator[Leaves]:
    """Yield the iterates of Adam after Grokfast-EMA of Lee et al. (2024)."""
    m = v = zeros_like(x)
    slow = None
    for t in count(1):
        g = f.gradient(x)
        slow = g if slow is None else alpha * slow + (1 - alpha) * g
        g = g + factor * slow
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        yield x


def adashift(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    keep: int = 10,
    eps: float = 1e-10,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Zhou et al. (2019), by leaf.

    The second moment of a leaf averages its largest squared entry. There is no step
    until a gradient is older than the window.
    """
    kept, v = deque(maxlen=keep + 1), by_leaf(lambda a: np.asarray(mpmath.mpf(0)), x)
    total = mpmath.fsum(mpmath.mpf(b1) ** i for i in range(keep))
    for t in count(1):
        kept.appendleft(f.gradient(x))
        if len(kept) > keep:
            square = by_leaf(
                lambda a: np.asarray(max(e * e for e in a.flat)), kept[keep]
            )
            v = b2 * v + (1 - b2) * square
            m = sum((b1**i * kept[i] for i in range(1, keep)), start=kept[0]) / total
            below = sqrt(v / (1 - b2 ** (t - keep))) + eps
            x = x - learning_rate * by_leaf(lambda a, k: a / k.item(), m, below)
        yield x


def adasmooth(
    x: Leaves,
    f: Function,
    learning_rate: float,
    rho1: float = 0.5,
    rho2: float = 0.99,
    eps: float = 1e-06,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaSmooth of Lu (2022)."""
    s = n = squares = zeros_like(x)
    before = x
    while True:
        g = f.gradient(x)
        s, n = s + (x - before), n + absolute(x - before)
        ratio = absolute(s) / (n + eps)
        c = (rho2 - rho1) * ratio + (1 - rho2)
        squares = c**2 * g**2 + (1 - c**2) * squares
        before = x
        x = x - learning_rate * g / sqrt(squares + eps)
        yield x


def kate(
    x: Leaves, f: Function, learning_rate: float, eta: float = 0.0, eps: float = 1e-08
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Choudhury et al. (2024).

    The authors' code adds ε to b² at each step.
    """
    b = m = zeros_like(x)
    while True:
        g = f.gradient(x)
        b = b + g**2 + eps
        m = m + eta * g**2 + g**2 / b
        x = x - learning_rate * sqrt(m) * g / b
        yield x


def aida(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
    repeats: int = 2,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Zhang et al. (2023)."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = (
            b2 * v
            + (1 - b2) * by_leaf(lambda a, b: projected(a, b, repeats), m, g) ** 2
            + eps
        )
        x = x - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        yield x


def projected(m: Leaf, g: Leaf, repeats: int) -> Leaf:
    """Project m on g and g on m, `repeats` times, and return their difference."""
    for _ in range(repeats):
        product = (m * g).sum()
        m, g = (product / (m * m).sum()) * m, (product / (g * g).sum()) * g
    return m - g


def adai(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b0: float = 0.1,
    b2: float = 0.99,
    eps: float = 0.001,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Xie et al. (2022)."""
    m = v = zeros_like(x)
    product = zeros_like(x) + 1
    size = sum(a.size for a in x.arrays)
    for t in count(1):
        g = f.gradient(x)
        v = b2 * v + (1 - b2) * g**2
        v_hat = v / (1 - b2**t)
        mean = mpmath.fsum(sum_of(a) for a in v_hat.arrays) / size
        b1 = least(maximum(1 - v_hat / mean * b0, 0), zeros_like(x) + (1 - eps))
        product = product * b1
        m = b1 * m + (1 - b1) * g
        x = x - learning_rate * m / (1 - product)
        yield x


def stable_adamw(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-08,
    weight_decay: float = 0.01,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Wortsman et al. (2023)."""
    v = u = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        first = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        second = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        v = first * v + (1 - first) * g
        u = second * u + (1 - second) * g**2
        sizes = by_leaf(mean_root, g**2 / maximum(u, eps**2))
        rates = by_leaf(lambda r: learning_rate / max(mpmath.mpf(1), r), sizes)
        step = v / (sqrt(u) + eps)
        x = by_leaf(lambda a, s, r: a - r * (weight_decay * a + s), x, step, rates)
        yield x


def mean_root(a: Leaf) -> Leaf:
    """Return the root of the mean of the entries, as an array of one number."""
    return np.asarray(mpmath.sqrt(sum_of(a) / a.size))


def adams(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
    weight_decay: float = 0.0001,
) -> Iterator[Leaves]:
    """Yield the iterates of AdamS, the method of Xie et al. (2023)."""
    m = v = zeros_like(x)
    size = sum(a.size for a in x.arrays)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        mean = mpmath.fsum(sum_of(a) for a in v_hat.arrays) / size
        decay = weight_decay / sqrt(mean) * x
        x = x - learning_rate * (m_hat / (sqrt(v_hat) + eps) + decay)
        yield x


def adamg(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.95,
    b2: float = 0.999,
    b3: float = 0.95,
    p: float = 0.2,
    q: float = 0.24,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Pan et al. (2024)."""
    m = v = r = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        v = b2 * v + (1 - b2) * g**2
        r = b3 * r + (1 - b3) * p * v**q
        m = b1 * m + (1 - b1) * r * g
        rate = min(learning_rate, 1 / mpmath.sqrt(t))
        x = x - rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        yield x


def focus(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    gamma: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Liu et al. (2025), without weight decay."""
    m = mean = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        mean = b2 * mean + (1 - b2) * x
        away = sign(x - mean / (1 - b2**t))
        x = x - learning_rate * (sign(m) + gamma * away)
        yield x


def adsgd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    amplifier: float = 0.02,
    theta: float = 1.0,
    damping: float = 1.0,
    eps: float = 1e-05,
) -> Iterator[Leaves]:
    """Yield the iterates of AdSGD as in the code of Malitsky & Mishchenko (2020).

    Algorithm 1 of the paper has amplifier = 1, damping = 2 and ε = 0.
    """
    rate, before, g_before = learning_rate, x, None
    while True:
        g = f.gradient(x)
        found = rate * sqrt(1 + amplifier * theta)
        if g_before is not None:
            moved, turned = norm(x - before), norm(g - g_before)
            if moved > 0 and turned > 0:
                found = min(found, moved / (damping * turned)) + eps
        theta, rate = found / rate, found
        x, before, g_before = x - rate * g, x, g
        yield x


def radabelief(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    threshold: float = 5.0,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaBelief with RAdam's rectification, as in its code.

    The code is that of Zhuang et al. (2020). ε is added to s at every step, and in the
    division, before the bias correction.
    """
    m = s = zeros_like(x)
    most = 2 / (1 - b2) - 1
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        m_hat = m / (1 - b1**t)
        size = most - 2 * t * b2**t / (1 - b2**t)
        if size >= threshold:
            r = sqrt((size - 4) * (size - 2) * most / ((most - 4) * (most - 2) * size))
            x = x - learning_rate * r * m_hat * sqrt(1 - b2**t) / (sqrt(s) + eps)
        else:
            x = x - learning_rate * m_hat
        yield x


def ranger(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.95,
    b2: float = 0.999,
    eps: float = 1e-05,
    threshold: float = 5.0,
    sync_period: int = 6,
    slow_step_size: float = 0.5,
    centralize: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of RAdam inside Lookahead, with centralised gradients.

    RAdam is that of Liu et al. (2020), Lookahead that of Zhang et al. (2019), and the
    centralisation of matrices that of Yong et al. (2020).
    """
    slow = x
    m = v = zeros_like(x)
    most = 2 / (1 - b2) - 1
    for t in count(1):
        g = f.gradient(x)
        if centralize:
            g = by_leaf(centred, g)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        size = most - 2 * t * b2**t / (1 - b2**t)
        if size > threshold:
            r = sqrt((size - 4) * (size - 2) * most / ((most - 4) * (most - 2) * size))
            x = x - learning_rate * r * m_hat / (sqrt(v_hat) + eps)
        else:
            x = x - learning_rate * m_hat
        if t % sync_period == 0:
            slow = slow + slow_step_size * (x - slow)
            x = slow
        yield x


def centred(a: Leaf) -> Leaf:
    """Return a matrix minus the mean of each row; other arrays are returned as is."""
    return a - a.mean(axis=1, keepdims=True) if a.ndim > 1 else a


def orthograd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.0,
    eps: float = 1e-30,
) -> Iterator[Leaves]:
    """Yield the iterates along the orthogonal gradient of Prieto et al. (2025).

    The gradient of a leaf loses its part along the leaf, and keeps its length.
    """
    m = zeros_like(x)
    while True:
        g = by_leaf(lambda w, a: orthogonal(w, a, eps), x, f.gradient(x))
        m = momentum * m + g
        x = x - learning_rate * m
        yield x


def orthogonal(w: Leaf, g: Leaf, eps: float) -> Leaf:
    """Return g without its part along w, scaled to the length of g."""
    found = g - (w * g).sum() / ((w * w).sum() + eps) * w
    return found * (length(g) / (length(found) + eps))


def came(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    eps1: float = 1e-30,
    eps2: float = 1e-16,
    threshold: float = 1.0,
) -> Iterator[Leaves]:
    """Yield the iterates of Luo et al. (2023); only matrices have a confidence."""
    m = v = s = zeros_like(x)
    while True:
        g = f.gradient(x)
        v = b2 * v + (1 - b2) * (g**2 + eps1)
        u = g / sqrt(by_leaf(factored, v))
        u = by_leaf(
            lambda a: a / max(mpmath.mpf(1), mean_root(a * a).item() / threshold), u
        )
        m = b1 * m + (1 - b1) * u
        s = b3 * s + (1 - b3) * ((u - m) ** 2 + eps2)
        step = by_leaf(lambda a, c: a / roots(factored(c)) if a.ndim > 1 else a, m, s)
        x = x - learning_rate * step
        yield x


roots = np.frompyfunc(mpmath.sqrt, 1, 1)


def factored(v: Leaf) -> Leaf:
    """Return r cᵀ / mean(r) for a matrix with row means r and column means c.

    Other arrays are returned as they are.
    """
    if v.ndim < 2:
        return v
    rows, columns = v.mean(axis=1, keepdims=True), v.mean(axis=0, keepdims=True)
    return rows * columns / rows.mean()


def exadam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Adly (2024), second version."""
    m = v = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        first = 1 + v / (v + eps) * b2**t
        second = 1 + m**2 / (m**2 + eps) * b1**t
        above = (m + g) / (1 - b1**t) * first
        x = x - learning_rate * above / (sqrt(v / (1 - b2**t) * second) + eps)
        yield x


def ano(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.92,
    b2: float = 0.99,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of Ano of Kegreisz (2025) at a constant rate."""
    m = v = zeros_like(x)
    for _t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * sign(v - g**2) * g**2
        x = x - learning_rate * absolute(g) / (sqrt(v) + eps) * sign(m)
        yield x


def vsgd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    ratio: float = 30.0,
    prior: float = 1e-08,
    power1: float = 0.81,
    power2: float = 0.9,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Chen et al. (2024)."""
    mean = zeros_like(x)
    b, b_hat = zeros_like(x) + prior, zeros_like(x) + ratio * prior
    a = prior + mpmath.mpf(1) / 2
    for t in count(1):
        g = f.gradient(x)
        before = mean
        mean = (b_hat * mean + b * g) / (b_hat + b)
        variance = 1 / (a / b + a / b_hat)
        rate, rate_hat = mpmath.mpf(t) ** -power1, mpmath.mpf(t) ** -power2
        new = prior + (variance + (mean - before) ** 2) / 2
        new_hat = ratio * prior + (variance + (mean - g) ** 2) / 2
        b = (1 - rate) * b + rate * new
        b_hat = (1 - rate_hat) * b_hat + rate_hat * new_hat
        x = x - learning_rate / (sqrt(mean**2 + variance) + eps) * mean
        yield x


def bcos(
    x: Leaves,
    f: Function,
    learning_rate: float,
    beta: float = 0.9,
    eps: float = 1e-06,
    weight_decay: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of BCOS-c of Jiang & Xiao (2025)."""
    m = None
    while True:
        g = f.gradient(x)
        before = g if m is None else m
        m = beta * before + (1 - beta) * g
        v = (1 - (1 - beta) ** 2) * before**2 + (1 - beta) ** 2 * g**2
        x = (1 - learning_rate * weight_decay) * x - learning_rate * m / (sqrt(v) + eps)
        yield x


def sgdsai(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    eps: float = 1e-08,
    weight_decay: float = 0.01,
) -> Iterator[Leaves]:
    """Yield the iterates of SGD-SaI of Xu et al. (2024)."""
    m, scales = zeros_like(x), None
    while True:
        g = f.gradient(x)
        if scales is None:
            scales = by_leaf(lambda a: np.asarray(length(a) / (deviation(a) + eps)), g)
        m = momentum * m + (1 - momentum) * g
        step = by_leaf(lambda k, a: k.item() * a, scales, m)
        x = (1 - learning_rate * weight_decay) * x - learning_rate * step
        yield x


def deviation(a: Leaf) -> Number:
    """Return the standard deviation of the entries, with n - 1 in the divisor."""
    mean = sum_of(a) / a.size
    return mpmath.sqrt(sum_of((a - mean) ** 2) / (a.size - 1))


def apollo(
    x: Leaves,
    f: Function,
    learning_rate: float,
    beta: float = 0.9,
    eps: float = 0.0001,
    least_curvature: float = 1.0,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Ma (2020), leaf by leaf."""
    m = b = d = zeros_like(x)
    for t in count(1):
        g, before = f.gradient(x), m
        m = beta * (1 - beta ** (t - 1)) / (1 - beta**t) * m
        m = m + (1 - beta) / (1 - beta**t) * g
        b = by_leaf(lambda p, q, c, e: secant(p, q, c, e, eps), b, d, m, before)
        d = m / maximum(absolute(b), least_curvature)
        x = x - learning_rate * d
        yield x


def secant(b: Leaf, d: Leaf, m: Leaf, before: Leaf, eps: float) -> Leaf:
    """Return B - α d², which fits the change of m along the last direction d.

    α is chosen so that d · (B - α d²) d = -d · (m - before), but for ε.
    """
    size = mpmath.root(sum_of(d**4), 4) + eps
    alpha = ((d * (m - before)).sum() + (d * b * d).sum()) / size**4
    return b - alpha * d**2


def dadapt_sgd(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.9,
    first: float = 1e-06,
) -> Iterator[Leaves]:
    """Yield the iterates of D-Adapted SGD of Defazio & Mishchenko (2023)."""
    start, s, d, total, size = x, zeros_like(x), first, mpmath.mpf(0), None
    while True:
        g = f.gradient(x)
        size = norm(g) if size is None else size
        rate = learning_rate * d / size
        total = total + rate * dot(g, s)
        s = s + rate * g
        d = max(d, 2 * total / norm(s))
        x = momentum * x + (1 - momentum) * (start - s)
        yield x


def adatam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    gamma: float = 0.9,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaTAM of Malviya et al. (2024), with a cosine per leaf."""
    m = v = zeros_like(x)
    s = by_leaf(lambda a: np.asarray(mpmath.mpf(0)), x)
    while True:
        g = f.gradient(x)
        s = gamma * s + (1 - gamma) * by_leaf(cosine, m, g)
        m = b1 * m + by_leaf(lambda k, a: (eps + (1 + k.item()) / 2) * a, s, g)
        v = b2 * v + (1 - b2) * g**2
        x = x - learning_rate * m / (sqrt(v) + eps)
        yield x


def avagrad(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of AvaGrad, the method of Savarese et al. (2021).

    The second moment in a step does not include the gradient of this step, so the first
    gradient gives no step. The rates are divided by the root of their mean square.
    """
    m = v = zeros_like(x)
    size = sum(a.size for a in x.arrays)
    total = None
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        if total is not None:
            rates = 1 / (sqrt(v / (1 - b2 ** (t - 1))) + eps)
            x = x - learning_rate * rates / sqrt(total / size) * m / (1 - b1**t)
        v = b2 * v + (1 - b2) * g**2
        next_rates = 1 / (sqrt(v / (1 - b2**t)) + eps)
        total = dot(next_rates, next_rates)
        yield x


def wsam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    rho: float = 0.05,
    gamma: float = 0.9,
    eps: float = 1e-12,
) -> Iterator[Leaves]:
    """Yield the iterates of WSAM of Yue et al. (2023) with gradient descent."""
    while True:
        g = f.gradient(x)
        worst = f.gradient(x + rho / (norm(g) + eps) * g)
        x = x - learning_rate * (g + gamma / (1 - gamma) * (worst - g))
        yield x


def looksam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    rho: float = 0.1,
    period: int = 10,
    alpha: float = 0.7,
    eps: float = 1e-12,
) -> Iterator[Leaves]:
    """Yield the iterates of LookSAM of Liu et al. (2022) with gradient descent.

    Each leaf has its own projection.
    """
    for t in count(0):
        g = f.gradient(x)
        if t % period == 0:
            worst = f.gradient(x + rho / (norm(g) + eps) * g)
            aside = by_leaf(
                lambda s, a: s - (s * a).sum() / (a * a).sum() * a, worst, g
            )
            step = worst
        else:
            step = by_leaf(lambda a, v: a + alpha * length(a) / length(v) * v, g, aside)
        x = x - learning_rate * step
        yield x


def sophia(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.96,
    b2: float = 0.99,
    gamma: float = 0.01,
    eps: float = 1e-12,
    period: int = 10,
    weight_decay: float = 0.0,
    limit: float = 1.0,
) -> Iterator[Leaves]:
    """Yield the iterates of the method of Liu et al. (2024) with the exact diagonal.

    On a separable function, the estimate of Hutchinson is the exact diagonal.
    """
    assert f.hessian is not None
    m = h = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        m = b1 * m + (1 - b1) * g
        if (t - 1) % period == 0:
            h = b2 * h + (1 - b2) * times(f.hessian(x), zeros_like(x) + 1)
        ratio = m / maximum(gamma * h, eps)
        step = least(maximum(ratio, -limit), zeros_like(x) + limit)
        x = (1 - learning_rate * weight_decay) * x - learning_rate * step
        yield x


def schedule_free_radam(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of RAdam without a schedule, as in the code of Defazio et al.

    In the first steps, in which RAdam does not divide, the rate is 0.
    """
    y = z = x
    v, total, largest = zeros_like(x), mpmath.mpf(0), mpmath.mpf(0)
    most = 2 / (1 - b2) - 1
    for t in count(1):
        g = f.gradient(y)
        v = b2 * v + (1 - b2) * g**2
        size = most - 2 * t * b2**t / (1 - b2**t)
        rate, d = mpmath.mpf(0), g
        if size > 4:
            rate = learning_rate * sqrt(
                (size - 4) * (size - 2) * most / ((most - 4) * (most - 2) * size)
            )
            d = g / (sqrt(v / (1 - b2**t)) + eps)
        largest = max(largest, rate)
        total = total + largest**2
        c = largest**2 / total if total else mpmath.mpf(0)
        y = (1 - c) * y + c * z + rate * (b1 * (1 - c) - 1) * d
        z = z - rate * d
        yield y


def adago(
    x: Leaves,
    f: Function,
    learning_rate: float,
    momentum: float = 0.95,
    gamma: float = 10.0,
    eps: float = 0.0005,
    start: float = 1e-06,
    ns_eps: float = 1e-07,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaGO of Zhang et al. (2025) on matrices, by Newton-Schulz.

    v² is the sum of min(|G|², γ²), and the step is max(ε, η min(|G|, γ) / v).
    """
    m, squares = zeros_like(x), by_leaf(lambda a: np.asarray(mpmath.mpf(start)), x)
    while True:
        g = f.gradient(x)
        m = momentum * m + (1 - momentum) * g
        sizes = by_leaf(lambda a: np.asarray(min(length(a), gamma)), g)
        squares = squares + sizes**2
        rates = maximum(learning_rate * sizes / sqrt(squares), eps)
        o = by_leaf(lambda a: newton_schulz(a, 5, MUON, ns_eps), m)
        x = by_leaf(
            lambda w, d, r: w - (r.item() * d if d.ndim > 1 else 0), x, o, rates
        )
        yield x


MUON = (3.4445, -4.7750, 2.0315)


def galore(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
) -> Iterator[Leaves]:
    """Yield the iterates of GaLore of Zhao et al. (2024) with a full rank.

    The smaller side of a matrix is rotated to the singular vectors of its first
    gradient. In these coordinates, the rule is Adam.
    """
    m = v = 0
    bases = None
    for t in count(1):
        g = f.gradient(x)
        bases = [singular(a) for a in g.arrays] if bases is None else bases
        g = Leaves(turn(a, q, True) for a, q in zip(g.arrays, bases, strict=True))
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        back = (turn(a, q, False) for a, q in zip(step.arrays, bases, strict=True))
        x = x - learning_rate * Leaves(back)
        yield x


def singular(g: Leaf, smaller: bool = True) -> tuple[bool, Leaf] | None:
    """Return (rows, Q) for a matrix, and None for a vector.

    If `rows` is True, the columns of Q are the left singular vectors of g. Otherwise
    they are the right ones. The smaller side of g is taken; the larger one if `smaller`
    is False.
    """
    if g.ndim < 2:
        return None
    rows = (g.shape[0] <= g.shape[1]) == smaller
    return rows, eigenvectors(g @ g.T if rows else g.T @ g)[:, : min(g.shape)]


def turn(a: Leaf, basis: tuple[bool, Leaf] | None, forth: bool) -> Leaf:
    """Return Qᵀ A if `basis` is (True, Q), and A Q if it is (False, Q).

    If `forth` is False, return Q A or A Qᵀ, the way back.
    """
    if basis is None:
        return a
    rows, q = basis
    if rows:
        return (q.T if forth else q) @ a
    return a @ (q if forth else q.T)


def adagc(
    x: Leaves,
    f: Function,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-08,
    beta: float = 0.98,
    absolute_limit: float = 1.0,
    relative_limit: float = 1.05,
    warmup_steps: int = 100,
    weight_decay: float = 0.1,
) -> Iterator[Leaves]:
    """Yield the iterates of AdaGC with AdamW of Wang et al. (2025)."""
    m = v = zeros_like(x)
    gamma = None
    for t in count(1):
        g = f.gradient(x)
        if gamma is None or t < warmup_steps:
            g = min(mpmath.mpf(1), absolute_limit / norm(g)) * g
            sizes = [length(a) for a in g.arrays]
            before = sizes if gamma is None else gamma
            gamma = [min(s, c) for s, c in zip(sizes, before, strict=True)]
        else:
            parts = [
                min(mpmath.mpf(1), relative_limit * c / length(a)) * a
                for a, c in zip(g.arrays, gamma, strict=True)
            ]
            g = Leaves(parts)
            gamma = [
                beta * c + (1 - beta) * length(a)
                for a, c in zip(g.arrays, gamma, strict=True)
            ]
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)
        x = x - learning_rate * (step + weight_decay * x)
        yield x


FORMULAS: dict[str, Formula] = {
    name: Formula(cast(Any, function))
    for name, function in list(globals().items())
    if callable(function)
    and getattr(function, "__module__", "") == __name__
    and "learning_rate"
    in function.__code__.co_varnames[: function.__code__.co_argcount]
}
