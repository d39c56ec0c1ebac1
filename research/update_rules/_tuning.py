"""Rates and momenta that theory proves, from the two curvatures that a function lies
between."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from research.checks import check_number
from research.types import Array


class Constants(NamedTuple):
    """What `heavy_ball` and `nesterov` are called with.

    Attributes:
      learning_rate: η.
      momentum: μ.
    """

    learning_rate: float | Array
    momentum: float | Array


def gradient_descent_rate(
    smoothness: float | Array, strong_convexity: float | Array
) -> float | Array:
    """η = 2 / (L + m), with which gradient descent contracts the fastest: by (κ - 1) /
    (κ + 1) a step, κ = L / m.

    Args:
      smoothness: L, the largest curvature, positive; may be traced.
      strong_convexity: m, the smallest, positive and at most L; may be traced.
    Returns:
      η.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Nesterov, Introductory lectures on convex optimization (2004), theorem 2.1.15.
    Example:
      >>> gradient_descent_rate(3.0, 1.0)
      0.5
    """
    _check(smoothness, strong_convexity)
    return 2.0 / (smoothness + strong_convexity)


def heavy_ball_constants(
    smoothness: float | Array, strong_convexity: float | Array
) -> Constants:
    """Polyak's, the fastest on quadratics: η = 4 / (√L + √m)², μ = ((√κ - 1) / (√κ +
    1))², κ = L / m.

    There the distance shrinks by (√κ - 1) / (√κ + 1) a step, up to a factor that grows
    with the step count. Beyond quadratics they may cycle for ever: Lessard, Recht &
    Packard, section 4.6, have an example with κ = 25.

    Args:
      smoothness: L, the largest curvature, positive; may be traced.
      strong_convexity: m, the smallest, positive and at most L; may be traced.
    Returns:
      The Constants: heavy_ball(*heavy_ball_constants(L, m)).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR
      Comp. Math. Math. Phys. 4 (1964), theorem 9. Lessard, Recht & Packard, Analysis
      and design of optimization algorithms via integral quadratic constraints, SIAM J.
      Optim. 26 (2016), proposition 1.
    Example:
      >>> print(*heavy_ball_constants(9.0, 1.0))
      0.25 0.25
    """
    _check(smoothness, strong_convexity)
    large, small = _root(smoothness), _root(strong_convexity)
    return Constants(
        4.0 / (large + small) ** 2, ((large - small) / (large + small)) ** 2
    )


def nesterov_constants(
    smoothness: float | Array, strong_convexity: float | Array
) -> Constants:
    """Nesterov's, proved for every such function: η = 1 / L, μ = (√κ - 1) / (√κ + 1), κ
    = L / m.

    The gap f - f* shrinks by 1 - 1 / √κ a step at the least; on quadratics the distance
    shrinks by as much.

    Args:
      smoothness: L, the largest curvature, positive; may be traced.
      strong_convexity: m, the smallest, positive and at most L; may be traced.
    Returns:
      The Constants: nesterov(*nesterov_constants(L, m)).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Nesterov, Introductory lectures on convex optimization (2004), scheme (2.2.11) and
      theorem 2.2.3.
    Example:
      >>> print(*nesterov_constants(4.0, 1.0))
      0.25 0.3333333333333333
    """
    _check(smoothness, strong_convexity)
    large, small = _root(smoothness), _root(strong_convexity)
    return Constants(1.0 / smoothness, (large - small) / (large + small))


def tuned_nesterov_constants(
    smoothness: float | Array, strong_convexity: float | Array
) -> Constants:
    """Nesterov's rule at its fastest on quadratics: η = 4 / (3L + m), μ = (√(3κ + 1) -
    2) / (√(3κ + 1) + 2), κ = L / m.

    There the distance shrinks by 1 - 2 / √(3κ + 1) a step. They are proved for
    quadratics alone.

    Args:
      smoothness: L, the largest curvature, positive; may be traced.
      strong_convexity: m, the smallest, positive and at most L; may be traced.
    Returns:
      The Constants: nesterov(*tuned_nesterov_constants(L, m)).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Lessard, Recht & Packard, Analysis and design of optimization algorithms via
      integral quadratic constraints, SIAM J.
      Optim. 26 (2016), proposition 1.
    Example:
      >>> print(*tuned_nesterov_constants(5.0, 1.0))
      0.25 0.3333333333333333
    """
    _check(smoothness, strong_convexity)
    root = _root(3.0 * smoothness / strong_convexity + 1.0)
    return Constants(
        4.0 / (3.0 * smoothness + strong_convexity), (root - 2.0) / (root + 2.0)
    )


def nesterov_momentum(t: Array | int) -> Array:
    """μ_t = t / (t + 3), t from 0: Nesterov's growing momentum where no strong
    convexity is known.

    With η = 1 / L the gap after k steps is at most 2 L |x_0 - x*|² / (k + 1)² on every
    convex function, at the point that was not looked ahead to. Nesterov's own sequence,
    (a_t - 1) / a_(t+1) with a_(t+1) = ½ (1 + √(4 a_t² + 1)), has the same limit and
    bound.

    Args:
      t: Steps taken, any shape.
    Returns:
      μ_t, of t's shape: nesterov(1 / L, nesterov_momentum).
    References:
      Su, Boyd & Candès, A differential equation for modeling Nesterov's accelerated
      gradient method, JMLR 17 (2016), equations (1)-(2). Nesterov, Soviet Math. Dokl.
      27 (1983), for his own sequence.
    Example:
      >>> print(nesterov_momentum(jnp.arange(4)))
      [0.   0.25 0.4  0.5 ]
    """
    count = jnp.asarray(t, dtype=float)
    return count / (count + 3.0)


def _check(smoothness: float | Array, strong_convexity: float | Array) -> None:
    check_number("smoothness", smoothness, positive=True)
    check_number("strong_convexity", strong_convexity, positive=True)
    if isinstance(smoothness, Tracer) or isinstance(strong_convexity, Tracer):
        return
    if strong_convexity > smoothness:
        raise ValueError(
            "strong_convexity must be at most smoothness, for it is the smallest "
            f"curvature; got strong_convexity={strong_convexity!r}, "
            f"smoothness={smoothness!r}."
        )


def _root(a: float | Array) -> float | Array:
    return float(np.sqrt(a)) if isinstance(a, float | int) else jnp.sqrt(a)
