"""Formulas of rules that find their own step size, from their papers."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import optax
import optax.contrib

from research.types import Params
from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.from_zero import from_zero
from research.verification.leaves import (
    Leaves,
    Number,
    absolute,
    dot,
    entrywise,
    maximum,
    norm,
    sqrt,
    zeros_like,
)
from research.verification.problems import PROBLEMS


def dog(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    initial_distance: float | None = None,
    eps: float = 1e-8,
) -> Iterator[Leaves]:
    """Yield the iterates of DoG: equation (DoG) of Ivgi, Hinder & Carmon (2023).

    The step size is learning_rate · r_t / √(G_t + ε). Here r_t is the largest distance
    of an iterate from the initial point x_0 so far, but at least `initial_distance`,
    and G_t is the sum of the squared norms of the gradients. The paper has no ε. ε and
    the default of initial_distance, 1e-6 (1 + |x_0|), are those of the authors' code.
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


def larger(a: Number, b: Number):
    """Return the larger number; NaN if either is NaN."""
    return a + b if mpmath.isnan(a + b) else max(a, b)


def prodigy(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: Any = None,
    eps: float = 1e-8,
    initial_distance: float = 1e-6,
    distance_factor: float = 1.0,
    weight_decay: float = 0.0,
    bias_correction: bool = False,
    eps_by_next_distance: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of Prodigy: algorithm 4 of Mishchenko & Defazio (2024).

    d_t is the estimate, in step t, of the distance from the initial point to the
    minimum, and d_1 is `initial_distance`. In each step, a new estimate is multiplied
    by `distance_factor`, and d_(t+1) is the larger of d_t and this product. b3 is the
    decay of the two averages for the estimate, where None means √b2. ε is multiplied by
    d_(t+1) with eps_by_next_distance=True, as in the authors' code, and by d_t with
    False, as in the paper.
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


def dowg(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    initial_distance: float = 1e-2,
    eps: float = 1e-4,
) -> Iterator[Leaves]:
    """Yield the iterates of DoWG: algorithm 1 of Khaled, Mishchenko & Jin (2023).

    The step size is learning_rate · r_t² / (√V_t + ε). Here r_t is the largest distance
    of an iterate from the initial point so far, but at least `initial_distance`, and
    V_t is the sum of r_k² |g_k|² over the gradients g_1, ..., g_t. The paper has no ε.
    ε is that of optax.
    """
    start, distance, total = x, initial_distance, 0
    while True:
        g = f.gradient(x)
        distance = larger(distance, norm(x - start))
        total = total + distance**2 * dot(g, g)
        x = x - learning_rate * distance**2 / (sqrt(total) + eps) * g
        yield x


def cocob(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of COCOB: algorithm 2 of Orabona & Tommasi (2017).

    `learning_rate` multiplies the gradient, as in optax. `alpha` is the paper's α,
    which limits the first steps. `eps` is the initial value of the paper's L, the
    largest absolute value so far of each entry of the gradient.
    """
    start = x
    bets = sizes = reward = zeros_like(x)
    largest = zeros_like(x) + eps
    while True:
        c = learning_rate * (f.gradient(x) + weight_decay * x)
        largest = maximum(largest, absolute(c))
        sizes = sizes + absolute(c)
        reward = maximum(reward - c * (x - start), 0)
        bets = bets - c
        below = largest * maximum(sizes + largest, alpha * largest)
        x = start + bets / below * (largest + reward)
        yield x


def dadapt_adamw(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    initial_distance: float = 1e-6,
    weight_decay: float = 0.0,
) -> Iterator[Leaves]:
    """Yield the iterates of D-Adapted Adam of Defazio & Mishchenko (2023).

    d is the estimate of the distance from the initial point to the minimum. d starts at
    `initial_distance` and never decreases. `learning_rate` is a factor of the step
    size.
    """
    d, r, root = initial_distance, 0, sqrt(b2)
    m = v = s = zeros_like(x)
    for t in count(1):
        g = f.gradient(x)
        rate = learning_rate * d * sqrt(1 - b2**t) / (1 - b1**t)
        r = root * r + (1 - root) * rate * dot(g, over(s, sqrt(v) + eps))
        m = b1 * m + (1 - b1) * rate * g
        v = b2 * v + (1 - b2) * g**2
        s = root * s + (1 - root) * rate * g
        size = (1 - root) * dot(absolute(s), s**0)
        d = d if size == 0 else larger(d, r / size)
        x = x - over(m, sqrt(v) + eps) - weight_decay * rate * x
        yield x


def over(a: Leaves, b: Leaves):
    """Return a / b for each entry, and 0 where b is 0."""
    return entrywise(lambda p, q: 0 if q == 0 else p / q, a, b)


def mechanic(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    weight_decay: float = 1e-2,
    eps: float = 1e-8,
    initial_scale: float = 1e-6,
    num_betas: int | None = None,
) -> Iterator[Leaves]:
    """Yield the iterates of Mechanic with Adam as its inner rule.

    Mechanic is algorithm 1 of Cutkosky, Defazio & Mehta (2023). Mechanic multiplies the
    sum of Adam's steps by the sum of several scales. Adam has the rate `learning_rate`.
    Scale i = 1, ..., num_betas is computed with the decay rate β_i = 1 - 10^(-i), and
    starts at `initial_scale`. For num_betas, None means 6.

    The number h of the paper is -pᵀΔ. Here p is the gradient plus the weight decay, and
    Δ is the sum of Adam's steps. As in optax, h is clipped to ±M_i for scale i. The
    limit M_i is a decaying maximum of the earlier |h|: it starts at 0, and becomes
    max(β_i M_i, |h| + ε) after each step, with the unclipped h and the argument ε
    (`eps`). The authors' package for PyTorch does not clip h.
    """
    n = 6 if num_betas is None else num_betas
    betas = [1 - mpmath.mpf(1) / 10**i for i in range(1, n + 1)]
    start, first, second = x, zeros_like(x), zeros_like(x)
    scales = [initial_scale] * n
    largest, squares, reward = [0] * n, [0] * n, [0] * n
    b1, b2 = mpmath.mpf(0.9), mpmath.mpf(0.999)
    for t in count(1):
        g = f.gradient(x)
        first = b1 * first + (1 - b1) * g
        second = b2 * second + (1 - b2) * g**2
        below = sqrt(second / (1 - b2**t)) + mpmath.mpf(1e-8)
        move = -learning_rate * first / (1 - b1**t) / below
        total = sum(scales)
        delta = (x - start) / (total + eps)
        pulled = g + weight_decay * total * norm(g) / (norm(x) + eps) * x
        h = dot(pulled, -delta)
        for i, b in enumerate(betas):
            clipped = min(max(h, -largest[i]), largest[i])
            reward[i] = b * reward[i] + clipped * scales[i]
            largest[i] = larger(b * largest[i], abs(h) + eps)
            squares[i] = b**2 * squares[i] + h**2
            wealth = initial_scale / n * largest[i] + larger(reward[i], 0)
            scales[i] = wealth / (sqrt(squares[i]) + eps)
        x = start + sum(scales) * (delta + move)
        yield x


def momo(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    beta: float = 0.9,
    lower_bound: float = 0.0,
    weight_decay: float = 0.0,
    adapt_lower_bound: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of MoMo of Schaipp et al. (2024).

    `learning_rate` is the largest step size, `beta` the decay of the moving averages,
    and `lower_bound` a lower bound of the objective. adapt_lower_bound=True is the
    paper's MoMo*, which estimates the lower bound again in each step. The estimate is
    at least `lower_bound`.
    """
    bound, a = lower_bound, 1 + learning_rate * weight_decay
    m, value, product = zeros_like(x), 0, 0
    for t in count(1):
        g = f.gradient(x)
        b = 0 if t == 1 else beta
        m = b * m + (1 - b) * g
        value = b * value + (1 - b) * f.value(x)
        product = b * product + (1 - b) * dot(g, x)
        size = dot(m, m)
        cap = a * (value - product) + dot(m, x)
        if adapt_lower_bound and cap < a * bound:
            bound = max(cap / (2 * a), lower_bound)
        gap = max(cap - a * bound, 0)
        tau = 0 if size == 0 else min(learning_rate, gap / size)
        if adapt_lower_bound:
            bound = max(value + dot(m, x) - product - tau * size / 2, lower_bound)
        x = (x - tau * m) / a
        yield x


def momo_adam(
    x: Leaves,
    f: Function,
    learning_rate: float = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: float = 0.0,
    adapt_lower_bound: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of MoMo-Adam of Schaipp et al. (2024).

    The largest step size in step t is η / (1 - β1^t), where η is `learning_rate` and β1
    is `b1`. `lower_bound` is a lower bound of the objective. adapt_lower_bound=True is
    the paper's MoMo-Adam*, which estimates the lower bound again in each step, but
    never below `lower_bound`.
    """
    bound, a = lower_bound, 1 + learning_rate * weight_decay
    m, v, value, product = zeros_like(x), zeros_like(x), 0, 0
    for t in count(1):
        g = f.gradient(x)
        c = 1 - b1**t
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        value = b1 * value + (1 - b1) * f.value(x)
        product = b1 * product + (1 - b1) * dot(g, x)
        d = over(m, sqrt(v / (1 - b2**t)) + eps)
        size = dot(m, d)
        cap = a * (value - product) + dot(m, x)
        if adapt_lower_bound and cap < a * c * bound:
            bound = max(cap / (2 * a * c), lower_bound)
        gap = max(cap - a * c * bound, 0)
        tau = 0 if size == 0 else min(learning_rate / c, gap / size)
        if adapt_lower_bound:
            after = (value + dot(m, x) - product - tau * size / 2) / c
            bound = max(after, lower_bound)
        x = (x - tau * d) / a
        yield x


def optax_momo(
    learning_rate: float = 1.0, weight_decay: float = 0.0, **arguments: Any
) -> optax.GradientTransformationExtraArgs:
    """Return optax.contrib.momo, with the weight decay of Schaipp et al. (2024).

    optax divides only the params by 1 + learning_rate · weight_decay. Schaipp et al.
    and this function divide the sum of params and step by this number.
    """
    rule = optax.contrib.momo(learning_rate, weight_decay=weight_decay, **arguments)
    return _dividing_the_step(rule, learning_rate * weight_decay)


def optax_momo_adam(
    learning_rate: float = 1e-2, weight_decay: float = 0.0, **arguments: Any
) -> optax.GradientTransformationExtraArgs:
    """Return optax.contrib.momo_adam, with the weight decay of Schaipp et al. (2024).

    optax divides only the params by 1 + learning_rate · weight_decay. Schaipp et al.
    and this function divide the sum of params and step by this number.
    """
    rule = optax.contrib.momo_adam(
        learning_rate, weight_decay=weight_decay, **arguments
    )
    return _dividing_the_step(rule, learning_rate * weight_decay)


def _dividing_the_step(
    rule: optax.GradientTransformationExtraArgs, decay: float
) -> optax.GradientTransformationExtraArgs:
    """Return a rule that steps to (x + u) / a, where the given one steps to x / a + u.

    Here a is 1 + decay.
    """
    a = 1.0 + decay

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        updates, state = rule.update(updates, state, params, **extra)
        step = jax.tree.map(lambda u, x: u + decay / a * x, updates, params)
        return jax.tree.map(lambda u, x: (u - decay * x) / a, step, params), state

    return optax.GradientTransformationExtraArgs(rule.init, update)


def optax_dog(
    learning_rate: float = 1.0, initial_distance: float | None = None, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Return optax.contrib.dog, called with x_t - x_0 in place of the params x_t.

    x_0 are the initial params. `from_zero` computes x_t - x_0 as the sum of the updates
    so far, so no digits are lost while this difference is small. optax subtracts the
    first params that it receives from the later ones. Here the first params are 0, so
    this subtraction loses nothing. If optax received the params x_t themselves, the
    first distances would have a relative error of 1e-10.
    """
    first = (
        ("heuristic", 1e-6)
        if initial_distance is None
        else ("distance", initial_distance)
    )
    return from_zero(optax.contrib.dog(learning_rate, first, eps), "init_params")


def optax_prodigy(
    learning_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float | None = None,
    eps: float = 1e-8,
    initial_distance: float = 1e-6,
    distance_factor: float = 1.0,
    bias_correction: bool = False,
) -> optax.GradientTransformation:
    """Return optax.contrib.prodigy, with zero updates until a gradient is not 0.

    As long as all gradients are 0, optax itself divides 0 by 0, and its params become
    NaN.

    optax itself subtracts the initial params x_0 from the present params x_t, which
    loses digits while the two are close. Here `from_zero` adds up the updates so far,
    and passes this sum, x_t - x_0, to optax in place of x_t. optax then subtracts
    initial params of 0, which loses nothing.

    optax always multiplies the rate by a bias correction. With bias_correction=False,
    optax gets a schedule as the rate: learning_rate divided by this bias correction.
    """

    def uncorrected(count: Any):
        t = count + 1.0
        return learning_rate * (1.0 - b1**t) / jnp.sqrt(1.0 - b2**t)

    rate = learning_rate if bias_correction else uncorrected
    rule = optax.contrib.prodigy(
        rate, (b1, b2), b3, eps, initial_distance, distance_factor
    )
    return _at_rest_before_gradients(from_zero(rule, "params0"))


def optax_dowg(
    learning_rate: float = 1.0, initial_distance: float = 1e-2, eps: float = 1e-4
) -> optax.GradientTransformation:
    """Return optax.contrib.dowg, called with x_t - x_0 in place of the params x_t.

    optax itself subtracts the initial params x_0 from the present params x_t, which
    loses digits while the two are close. Here `from_zero` adds up the updates so far,
    and passes this sum, x_t - x_0, to optax. optax then subtracts initial params of 0,
    which loses nothing.
    """
    rule = optax.contrib.dowg(learning_rate, initial_distance**2, eps)
    return from_zero(rule, "init_params")


def optax_cocob(
    learning_rate: float = 1.0,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Return optax.contrib.cocob, called with x_t - x_0 in place of the params x_t.

    optax itself subtracts the initial params x_0 from the present params x_t, which
    loses digits while the two are close. Here `from_zero` adds up the updates so far,
    and passes this sum, x_t - x_0, to optax. optax then subtracts initial params of 0,
    which loses nothing. Only the weight decay gets x_t.
    """
    rule = optax.contrib.cocob(learning_rate, alpha, eps)
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, from_zero(rule, "init_particles"))


def optax_dadapt_adamw(
    learning_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    initial_distance: float = 1e-6,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Return optax.contrib.dadapt_adamw, with updates of 0 until a gradient is not 0.

    If the first gradient is 0, optax itself divides 0 by 0, and its params become NaN.
    """
    rule = optax.contrib.dadapt_adamw(
        learning_rate, (b1, b2), eps, initial_distance, weight_decay
    )
    return _at_rest_before_gradients(rule)


def _at_rest_before_gradients(
    rule: optax.GradientTransformation,
) -> optax.GradientTransformation:
    def update(updates: Params, state: Any, params: Params | None = None):
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
_NO_RECORD = "the authors' package is for torch, and its traces are not recorded"
_NEEDS_VALUE = dict.fromkeys(
    [name for name, problem in PROBLEMS.items() if problem.objective is None],
    "it needs the objective's value, and only gradients are given",
)


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
            "torch does not have the rule, and the authors' package for torch is not "
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
                    "the step is multiplied by d_(t+1), not by d_t",
                    "x - rate * d *",
                    "x - rate * d_next *",
                ),
                Mistake(
                    "the sums are not multiplied by d",
                    "rate * d**2 * dot(g, start - x)\n        s = b3 * s + (1 - b3) * "
                    "rate * d**2 * g",
                    (
                        "rate * dot(g, start - x)\n        "
                        "s = b3 * s + (1 - b3) * rate * g"
                    ),
                ),
            ),
        ),
        optax=optax_prodigy,
        recorded=(
            "torch does not have the rule, and the authors' package for torch is not "
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
    "dowg": Card(
        Formula(
            dowg,
            (
                Mistake(
                    "the gradients are not weighted in the sum: this is DoG's sum",
                    "total + distance**2 * dot(g, g)",
                    "total + dot(g, g)",
                ),
                Mistake(
                    "the distance is not squared",
                    "learning_rate * distance**2 /",
                    "learning_rate * distance /",
                ),
                Mistake("the sum has no root", "sqrt(total) + eps", "total + eps"),
                Mistake(
                    "it takes the last distance, not the largest",
                    "larger(distance, norm(x - start))",
                    "norm(x - start) or distance",
                ),
                Mistake(
                    "ε stands inside the root", "sqrt(total) + eps", "sqrt(total + eps)"
                ),
            ),
        ),
        optax=optax_dowg,
        recorded=_NO_RECORD,
        arguments={"initial_distance": 0.03125, "eps": 0.01},
        # At the full rate the steps overshoot the minimum, and are chaotic there.
        rates={**_RATES, **{"quadratic": 0.25, "softmax_regression": 0.25}},
    ),
    "cocob": Card(
        Formula(
            cocob,
            (
                Mistake(
                    "the reward may fall below 0",
                    "maximum(reward - c * (x - start), 0)",
                    "reward - c * (x - start)",
                ),
                Mistake(
                    "the reward is multiplied by x_t, not by x_t - x_0",
                    "c * (x - start), 0)",
                    "c * x, 0)",
                ),
                Mistake(
                    "the step is added to the last point, not to the start",
                    "x = start + bets",
                    "x = x + bets",
                ),
                Mistake(
                    "the first steps are not limited by α",
                    "maximum(sizes + largest, alpha * largest)",
                    "(sizes + largest)",
                ),
                Mistake(
                    "L is the size of the last gradient, not the largest size so far",
                    "maximum(largest, absolute(c))",
                    "absolute(c) + eps",
                ),
                Mistake(
                    "the sum adds squares, not sizes",
                    "sizes + absolute(c)",
                    "sizes + c**2",
                ),
            ),
        ),
        optax=optax_cocob,
        recorded=_NO_RECORD,
        arguments={"alpha": 10.0, "eps": 0.01, "weight_decay": 0.1},
        rates=_RATES,
    ),
    "dadapt_adamw": Card(
        Formula(
            dadapt_adamw,
            (
                Mistake("the estimate may shrink", "larger(d, r / size)", "r / size"),
                Mistake(
                    "r is divided by the new second moment",
                    (
                        "r = root * r + (1 - root) * rate * dot(g, over(s, sqrt(v) + "
                        "eps))\n"
                    ),
                    "r = root * r + (1 - root) * rate * dot(g, over(s, sqrt(b2 * v + "
                    "(1 - b2) * g**2) + eps))\n",
                ),
                Mistake(
                    "no bias correction",
                    "d * sqrt(1 - b2**t) / (1 - b1**t)",
                    "d",
                ),
                Mistake(
                    "r and s are averaged by b2, not by its root",
                    "d, r, root = initial_distance, 0, sqrt(b2)",
                    "d, r, root = initial_distance, 0, b2",
                ),
                Mistake(
                    "the norm of s is Euclidean",
                    "dot(absolute(s), s**0)",
                    "norm(s)",
                ),
                Mistake(
                    "the gradient is not multiplied by the rate in m",
                    "(1 - b1) * rate * g",
                    "(1 - b1) * g",
                ),
            ),
        ),
        optax=optax_dadapt_adamw,
        recorded=_NO_RECORD,
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "initial_distance": 0.01,
        },
        # At the full rate the steps overshoot the minimum, and are chaotic there.
        rates={**_RATES, **{"quadratic": 0.25}},
    ),
    "mechanic": Card(
        Formula(
            mechanic,
            (
                Mistake(
                    "the params move from the last point, not from the start",
                    "x = start + sum(scales)",
                    "x = x + sum(scales)",
                ),
                Mistake(
                    "the product h is not clipped",
                    "min(max(h, -largest[i]), largest[i])",
                    "h",
                ),
                Mistake(
                    "the sign of h is wrong",
                    "dot(pulled, -delta)",
                    "dot(pulled, delta)",
                ),
                Mistake(
                    "there is no decay in h",
                    "g + weight_decay * total * norm(g) / (norm(x) + eps) * x",
                    "g",
                ),
                Mistake(
                    "v decays by β, not by its square",
                    "b**2 * squares[i]",
                    "b * squares[i]",
                ),
                Mistake(
                    "the reward is not multiplied by the scale",
                    "clipped * scales[i]",
                    "clipped",
                ),
            ),
        ),
        optax=(
            "optax.contrib.mechanize subtracts rounded params, so its first updates "
            "have few digits; tests/rules/test_parameter_free.py compares the two"
        ),
        recorded=_NO_RECORD,
        arguments={
            "weight_decay": 0.0,
            "eps": 0.001,
            "initial_scale": 0.00001,
            "num_betas": 3,
        },
        rates=_RATES,
    ),
    "momo": Card(
        Formula(
            momo,
            (
                Mistake(
                    "the averages start from 0",
                    "b = 0 if t == 1 else beta",
                    "b = beta",
                ),
                Mistake(
                    "the model uses the last value, not the average of the values",
                    "b * value + (1 - b) * f.value(x)",
                    "f.value(x)",
                ),
                Mistake(
                    "the step is not limited by the rate",
                    "min(learning_rate, gap / size)",
                    "gap / size",
                ),
                Mistake(
                    "the products of gradient and params are left out",
                    "cap = a * (value - product) + dot(m, x)",
                    "cap = a * value",
                ),
                Mistake(
                    "the gap is divided by |m|, not |m|²",
                    "size = dot(m, m)",
                    "size = norm(m)",
                ),
                Mistake(
                    "the decay is explicit: a rate * decay of the params is subtracted",
                    "(x - tau * m) / a",
                    "x - tau * m - learning_rate * weight_decay * x",
                ),
                Mistake(
                    "only the params are divided by 1 + rate * decay, not the step",
                    "(x - tau * m) / a",
                    "x / a - tau * m",
                ),
            ),
        ),
        optax=optax_momo,
        recorded=_NO_RECORD,
        arguments={
            "beta": 0.5,
            "lower_bound": -8.0,
            "weight_decay": 0.1,
            "adapt_lower_bound": True,
        },
        unit_steps=False,
        reasons=_NEEDS_VALUE,
    ),
    "momo_adam": Card(
        Formula(
            momo_adam,
            (
                Mistake(
                    "the limit of the step is not corrected",
                    "min(learning_rate / c, gap / size)",
                    "min(learning_rate, gap / size)",
                ),
                Mistake(
                    "the lower bound is not weighted like the averages",
                    "gap = max(cap - a * c * bound, 0)",
                    "gap = max(cap - a * bound, 0)",
                ),
                Mistake(
                    "the norm is not that of the preconditioner",
                    "size = dot(m, d)",
                    "size = dot(m, m)",
                ),
                Mistake(
                    "no bias correction of the second moment",
                    "sqrt(v / (1 - b2**t)) + eps",
                    "sqrt(v) + eps",
                ),
                Mistake(
                    "there is no model: this is Adam",
                    "min(learning_rate / c, gap / size)",
                    "learning_rate / c",
                ),
                Mistake(
                    "the decay is explicit: a rate * decay of the params is subtracted",
                    "(x - tau * d) / a",
                    "x - tau * d - learning_rate * weight_decay * x",
                ),
                Mistake(
                    "only the params are divided by 1 + rate * decay, not the step",
                    "(x - tau * d) / a",
                    "x / a - tau * d",
                ),
            ),
        ),
        optax=optax_momo_adam,
        recorded=_NO_RECORD,
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "lower_bound": 0.125,
            "weight_decay": 0.1,
            "adapt_lower_bound": True,
        },
        reasons=_NEEDS_VALUE,
    ),
}
