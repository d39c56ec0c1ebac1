"""Learning rates and momenta with proven convergence rates.

The rates and momenta are computed from the smallest and the largest curvature of the
function.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from research.checks import check_number
from research.types import Array, Integer, Scalar


class Constants(NamedTuple):
    """Learning rate and momentum for `heavy_ball` or `nesterov`.

    Attributes:
      learning_rate: Learning rate η.
      momentum: Momentum μ.
    """

    learning_rate: Scalar
    momentum: Scalar


def gradient_descent_rate(smoothness: Scalar, strong_convexity: Scalar) -> Scalar:
    """Return the constant rate of gradient descent with the best convergence guarantee.

    The rate is η = 2 / (L + m), for functions whose curvature lies between m and L
    everywhere. With this rate, each step of gradient descent multiplies the distance to
    the minimum by at most (κ - 1) / (κ + 1), where κ = L / m. No other constant rate
    guarantees a smaller factor for all such functions.

    Args:
      smoothness: Largest curvature L, positive; may be traced.
      strong_convexity: Smallest curvature m, positive and at most L; may be traced.
    Returns:
      The learning rate η.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
    References:
      Nesterov, Introductory lectures on convex optimization (2004), theorem 2.1.15.
    Example:
      >>> gradient_descent_rate(3.0, 1.0)
      0.5
    """
    _check(smoothness, strong_convexity)
    return 2.0 / (smoothness + strong_convexity)


def heavy_ball_constants(smoothness: Scalar, strong_convexity: Scalar) -> Constants:
    """Return Polyak's constants, which give `heavy_ball` its best rate on quadratics.

    The constants are η = 4 / (√L + √m)² and μ = ((√κ - 1) / (√κ + 1))², where κ = L /
    m. On quadratics, each step multiplies the distance to the minimum by at most about
    (√κ - 1) / (√κ + 1) in the long run. On other functions, the iterates may cycle
    forever: Lessard, Recht & Packard give an example with κ = 25 in section 4.6.

    Args:
      smoothness: Largest curvature L, positive; may be traced.
      strong_convexity: Smallest curvature m, positive and at most L; may be traced.
    Returns:
      The Constants, used as heavy_ball(*heavy_ball_constants(L, m)).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
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


def nesterov_constants(smoothness: Scalar, strong_convexity: Scalar) -> Constants:
    """Return Nesterov's constants for smooth, strongly convex functions.

    The constants are η = 1 / L and μ = (√κ - 1) / (√κ + 1), where κ = L / m. Let f be a
    function whose curvature lies between m and L everywhere, with the minimum f* at x*.
    Then f(x_k) - f* <= (1 - 1 / √κ)^k (f(x_0) - f* + ½ m |x_0 - x*|²) after k steps.
    Here x_k is Nesterov's iterate, while the params of `nesterov` are the look-ahead
    points y_k = x_k + μ (x_k - x_(k-1)), at which the gradient is taken. On quadratics,
    each step multiplies the distance to the minimum by at most about 1 - 1 / √κ in the
    long run.

    Args:
      smoothness: Largest curvature L, positive; may be traced.
      strong_convexity: Smallest curvature m, positive and at most L; may be traced.
    Returns:
      The Constants, used as nesterov(*nesterov_constants(L, m)).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
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


def tuned_nesterov_constants(smoothness: Scalar, strong_convexity: Scalar) -> Constants:
    """Return the constants that give `nesterov` its best rate on quadratics.

    The constants are η = 4 / (3L + m) and μ = (√(3κ + 1) - 2) / (√(3κ + 1) + 2), where
    κ = L / m. On quadratics, each step multiplies the distance to the minimum by at
    most about 1 - 2 / √(3κ + 1) in the long run. This bound is proved only for
    quadratics.

    Args:
      smoothness: Largest curvature L, positive; may be traced.
      strong_convexity: Smallest curvature m, positive and at most L; may be traced.
    Returns:
      The Constants, used as nesterov(*tuned_nesterov_constants(L, m)).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
    References:
      Lessard, Recht & Packard, Analysis and design of optimization algorithms via
      integral quadratic constraints, SIAM J. Optim. 26 (2016), proposition 1.
    Example:
      >>> print(*tuned_nesterov_constants(5.0, 1.0))
      0.25 0.3333333333333333
    """
    _check(smoothness, strong_convexity)
    root = _root(3.0 * smoothness / strong_convexity + 1.0)
    return Constants(
        4.0 / (3.0 * smoothness + strong_convexity), (root - 2.0) / (root + 2.0)
    )


def nesterov_momentum(t: Integer) -> Float[Array, "*shape"]:
    """Return the growing momentum t / (t + 3), for `nesterov` on convex functions.

    The momentum is μ_t = t / (t + 3), with t counted from 0. The objective need not be
    strongly convex. With the learning rate η = 1 / L, every convex function f with
    curvature at most L and the minimum f* at x* satisfies f(x_k) - f* <= 2 L |x_0 -
    x*|² / (k + 1)² after k steps. Here x_k is Nesterov's iterate, while the params of
    `nesterov` are the look-ahead points at which the gradient is taken. Nesterov's own
    momenta are (a_t - 1) / a_(t+1), where a_0 = 1 and a_(t+1) = ½ (1 + √(4 a_t² + 1)).
    They also tend to 1, and f(x_k) - f* satisfies the same bound.

    Args:
      t: Number t of steps taken, any shape.
    Returns:
      Momentum μ_t, with the shape of t. Use the function as a schedule: nesterov(1 / L,
      nesterov_momentum).
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


def _check(smoothness: Scalar, strong_convexity: Scalar) -> None:
    check_number("smoothness", smoothness, positive=True)
    check_number("strong_convexity", strong_convexity, positive=True)
    if isinstance(smoothness, Tracer) or isinstance(strong_convexity, Tracer):
        return
    if strong_convexity > smoothness:
        raise ValueError(
            "strong_convexity must be at most smoothness, because it is the smallest "
            f"curvature; got strong_convexity={strong_convexity!r}, "
            f"smoothness={smoothness!r}."
        )


def _root(a: Scalar) -> Scalar:
    return float(np.sqrt(a)) if isinstance(a, float | int) else jnp.sqrt(a)
