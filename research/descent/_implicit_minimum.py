"""A minimum as a differentiable function of the objective's parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, check_number, is_traced
from research.derivatives import NotInexactError, NotScalarError
from research.derivatives.exact.arguments import described, floating
from research.descent._implicit import DENSE, unless
from research.descent._minimise import check_hashable, check_max_steps, minimise
from research.tracing import OF_MINIMA, AdviceOnTracing
from research.types import Array, Params
from research.update_rules._checks import check_rule

LANCZOS_STEPS = 64
NUDGES = 4  # Number of points around x that show the rounding errors of the gradient.


class SingularHessianError(ValueError):
    """Raised by `implicit_minimum` if the minimum may not be differentiable.

    There are three possible reasons. The Hessian is not positive definite, up to
    rounding errors. Or the Hessian changes too much between the minimum and the point
    where the search for the minimum ended. Or the objective has a kink near this point.
    """


class ImplicitMinimum(NamedTuple):
    """The result of `implicit_minimum`.

    Attributes:
      params: Last point of the search, a pytree like the argument `start`. If the
        search has converged, this point is approximately the minimiser x(θ) of the
        objective, where θ is the argument `theta`.
      value: The objective at `params`, shape ().
      residual: Largest absolute entry of the gradient at `params`, shape (). To first
        order, the distance from `params` to the minimiser is at most √n residual / λ.
        Here n is the number of parameters, and λ is the smallest eigenvalue of the
        Hessian.
      smallest_eigenvalue: Smallest eigenvalue of the Hessian at `params`, shape (). If
        x has more than 128 entries, this is an estimate by 64 Lanczos steps. Up to
        rounding, the estimate is at least the true value.
      largest_eigenvalue: Largest eigenvalue of the Hessian at `params`, shape (). If x
        has more than 128 entries, this is an estimate by the same Lanczos steps. Up to
        rounding, the estimate is at most the true value.
      steps: Number of steps taken, int32, shape ().
      outcome: The reason why the search stopped, an `Outcome` as int32, shape ().
    """

    params: Params
    value: Array
    residual: Array
    smallest_eigenvalue: Array
    largest_eigenvalue: Array
    steps: Array
    outcome: Array


def implicit_minimum(
    objective: Callable[[Params, Any], Array],
    start: Params,
    theta: Any,
    *,
    rule: optax.GradientTransformation,
    tolerance: float | Array = 1e-8,
    max_steps: int = 1000,
) -> ImplicitMinimum:
    """Minimise objective(x, θ) over x, as a differentiable function of θ.

    The derivative of the minimum follows from the implicit function theorem:

        dx/dθ = -H⁻¹ ∂²f/∂x∂θ, for the objective f and its Hessian H = ∂²f/∂x².

    `minimise` searches for the minimum. If the search stops early, the formula is
    evaluated at the point where the search stopped. The formula does not contain the
    steps of the search, so reverse mode does not store them. Forward mode and
    derivatives of any order work too. Conjugate gradients solve the linear system with
    H. The formula is attached to the result by `jax.lax.custom_root`. If x has more
    than 128 entries, H is never formed.

    The formula needs a positive definite H at the minimum. But the search ends a small
    distance from the minimum. There, H may be positive definite although H is singular
    at the minimum, as for x⁴. So each call checks three conditions. If one of them does
    not hold, the call raises SingularHessianError. A call with traced values (under
    `jax.jit` or `jax.vmap`) cannot raise an error. If a condition does not hold in
    such a call, all derivatives are NaN instead.

    Let x be the end of the search, n the number of its entries, and ε the machine
    epsilon of their dtype. Let v be an eigenvector of H at x with the eigenvalue λ.
    Newton's method estimates the distance along v to the minimum as s = vᵀ∇f / λ. The
    conditions are:

    - Eigenvalues: The smallest eigenvalue of H at x is larger than n ε times the
      absolute value of the largest eigenvalue. To see whether NaN derivatives come
      from this condition, compare the fields smallest_eigenvalue and largest_eigenvalue
      of the result.
    - Curvature: For each v, the curvature along v at x + s v and at x - s v differs
      from λ by at most λ / 2, up to rounding.
    - Slope: A Newton step along v leads from x to x - s v. For each v, the absolute
      slope along v at x - s v is at most the largest of three numbers: half the
      absolute slope along v at x, ten times the tolerance, and eight times the rounding
      error of the slope. If the search ends beside a kink, this condition fails.

    If x has more than 128 entries, Lanczos's method estimates the extreme eigenvalues,
    and gives 64 approximate eigenvectors. Curvature and slope are then checked only for
    these vectors and for the direction v of the gradient, with λ = vᵀHv.

    The derivatives are also NaN if the linear system cannot be solved to a relative
    accuracy of 1e-3. If x has up to 128 entries, this case occurs only if H is nearly
    singular, because a direct solver corrects the result of conjugate gradients.

    jaxopt's `custom_root` decorator and optimistix's `ImplicitAdjoint` differentiate in
    the same way, but do not check the eigenvalues of the Hessian.

    Args:
      objective: Function (x, theta) -> number, twice differentiable. Each new objective
        or rule object causes a new compilation. So if an array changes between calls,
        put the array into theta.
      start: Where the search begins, a pytree of floating arrays.
      theta: Parameters of the objective, a pytree of floating arrays.
      rule: Any `optax.GradientTransformation`.
      tolerance: The search ends when the absolute value of every entry of the gradient
        is at most `tolerance`.
      max_steps: Largest number of steps.
    Returns:
      The `ImplicitMinimum`. Its fields params and value can be differentiated with
      respect to theta. The other fields count as constants.
    Raises:
      SingularHessianError: One of the three conditions above on the eigenvalues, the
        curvature and the slope does not hold.
      NotInexactError: A leaf of start or theta is not floating, or a leaf of start is
        narrower than float32.
      NotScalarError: objective does not return one number.
      ValueError: tolerance or max_steps is out of range.
      TypeError: An argument has the wrong type, objective is not hashable, max_steps
        is traced, or start has no leaves.
    References:
      Krantz & Parks, The Implicit Function Theorem, 2002. Blondel et al., Efficient and
      Modular Implicit Differentiation, 2022, equation 3. Kantorovich, Functional
      analysis and applied mathematics, 1948 (the change of H over a Newton step).
    Example:
      >>> objective = lambda x, theta: 0.5 * (x - 1.0) ** 2 + 0.5 * theta * x**2
      >>> rule = optax.sgd(0.5)
      >>> at = lambda theta: implicit_minimum(objective, 0.0, theta, rule=rule).params
      >>> print(f"{at(1.0):.6f} {jax.grad(at)(1.0):.6f}")  # 1 / (1 + θ), -1 / (1 + θ)²
      0.500000 -0.250000
    """
    check_callable("objective", objective, "x", "theta")
    check_hashable("objective", objective)
    check_rule(rule)
    start, theta = floating(start, "start"), floating(theta, "theta")
    if not jax.tree.leaves(start):
        raise TypeError(f"start must hold at least one array; got start={start!r}.")
    for leaf in jax.tree.leaves(start):
        if jnp.finfo(leaf.dtype).bits < 32:  # LAPACK has no narrower eigenvalues.
            raise NotInexactError(
                f"start must be in float32 or float64; got {leaf.dtype}. Use "
                "leaf.astype(jnp.float32)."
            )
    check_number("tolerance", tolerance)
    check_max_steps(max_steps)
    with AdviceOnTracing(OF_MINIMA):
        value = jax.eval_shape(objective, start, theta)
    if not isinstance(value, jax.ShapeDtypeStruct) or value.shape:
        raise NotScalarError(
            f"objective must return one real number; it returns {described(value)}. "
            "Sum the result."
        )
    found, far = _implicit(objective, rule, start, theta, tolerance, int(max_steps))
    smallest = jax.lax.stop_gradient(found.smallest_eigenvalue)
    largest = jax.lax.stop_gradient(found.largest_eigenvalue)
    if not is_traced(smallest) and bool(_is_singular(smallest, largest, start)):
        raise SingularHessianError(
            "The Hessian of objective at the minimum must be positive definite, beyond "
            f"rounding errors; its eigenvalues go from {float(smallest):.3g} to "
            f"{float(largest):.3g}, so the minimum may not be a differentiable "
            "function of theta. Add a penalty "
            "such as 1e-6 * sum(x**2), remove redundant parameters, or check that "
            "the search ends in a minimum (largest entry of the gradient: "
            f"{float(jax.lax.stop_gradient(found.residual)):.3g})."
        )
    far = jax.lax.stop_gradient(far)
    if not is_traced(far) and bool(far):
        raise SingularHessianError(
            "The search for the minimum ends too far from it, or beside a kink: the "
            "Hessian of objective does not predict the gradient over the distance that "
            "is left (largest entry of the gradient: "
            f"{float(jax.lax.stop_gradient(found.residual)):.3g}, smallest eigenvalue: "
            f"{float(smallest):.3g}). Lower tolerance, or raise max_steps. If this "
            "does not help, objective is not smooth at the minimum, or its Hessian is "
            "singular there: add a penalty such as 1e-6 * sum(x**2)."
        )
    return found


def _is_singular(smallest: Array, largest: Array, start: Params) -> Array:
    flat, _ = ravel_pytree(start)
    # A NaN counts as singular.
    return ~(smallest > flat.size * jnp.finfo(flat.dtype).eps * jnp.abs(largest))


@partial(jax.jit, static_argnums=(0, 1, 5))
def _implicit(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    start: Params,
    theta: Any,
    tolerance: float | Array,
    max_steps: int,
) -> tuple[ImplicitMinimum, Array]:
    """Return the result, and True if the search ends too far from the minimum."""
    of_params = lambda params: objective(params, theta)
    found = minimise(of_params, rule, start, tolerance=tolerance, max_steps=max_steps)
    params, fixed = jax.lax.stop_gradient((found.params, theta))
    of_fixed = lambda x: objective(x, fixed)
    values, vectors = _eigenvectors(of_fixed, params)
    smallest, largest = values[0], values[-1]
    far = _is_far(of_fixed, params, values, vectors, tolerance)
    bad = _is_singular(smallest, largest, start) | far
    result = ImplicitMinimum(
        unless(bad, found.params, theta),
        unless(bad, found.value, theta),
        found.gradient_norm,
        smallest,
        largest,
        found.steps,
        found.outcome,
    )
    return result, far


def _eigenvectors(f: Callable[[Params], Array], params: Params) -> tuple[Array, Array]:
    """Return eigenvalues of the Hessian of f, ascending, and eigenvectors as rows.

    With more than 128 parameters, these are the Ritz values and vectors of a Krylov
    space.
    """
    flat, unravel = ravel_pytree(params)
    slope = jax.grad(lambda x: f(unravel(x)))
    product = lambda v: jax.jvp(slope, (flat,), (v,))[1]
    if flat.size <= DENSE:
        hessian = jax.vmap(product)(jnp.eye(flat.size, dtype=flat.dtype))
        values, vectors = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
        return values, vectors.T
    basis = _lanczos(product, flat)
    projected = jax.vmap(lambda v: basis @ product(v))(basis)
    values, vectors = jnp.linalg.eigh(0.5 * (projected + projected.T))
    return values, vectors.T @ basis


def _is_far(
    f: Callable[[Params], Array],
    params: Params,
    values: Array,
    vectors: Array,
    tolerance: float | Array,
) -> Array:
    """Return whether the Hessian at x fails to predict the gradient up to the minimum.

    x is `params`. The Hessian fails if one of two things happens along an eigenvector.
    The curvature changes by more than half within the length of a Newton step. Or the
    slope after a Newton step is too large: it is more than half of the slope before
    the step, and more than rounding errors and the tolerance explain. The second case
    occurs if a search jumps to and fro over a kink.
    """
    flat, unravel = ravel_pytree(params)
    slope = jax.grad(lambda x: f(unravel(x)))
    before = slope(flat)
    eps = jnp.finfo(flat.dtype).eps
    largest = jnp.abs(values[-1])
    rounding = flat.size * eps * largest
    if flat.size > DENSE:
        # Lanczos's vectors may all miss a kink in one coordinate. The slope that the
        # search leaves lies there.
        along = before / jnp.maximum(
            jnp.linalg.norm(before), jnp.finfo(flat.dtype).tiny
        )
        curvature = along @ jax.jvp(slope, (flat,), (along,))[1]
        is_zero = ~jnp.any(before)
        vectors = jnp.append(vectors, jnp.where(is_zero, vectors[-1], along)[None], 0)
        values = jnp.append(values, jnp.where(is_zero, values[-1], curvature))
    steps = (vectors @ before) / values
    # The gradient at points closer than rounding errors shows its own rounding errors.
    signs = jax.random.rademacher(jax.random.key(0), (NUDGES, flat.size), flat.dtype)
    nudges = 4 * eps * signs * jnp.maximum(jnp.abs(flat), 1.0)[None]
    noises = jax.lax.map(slope, flat[None] + nudges) - before[None]
    # A larger change is that of a kink.
    size = jnp.maximum(jnp.max(jnp.abs(flat), initial=0.0), 1.0)
    most = jnp.sqrt(eps) * largest * size

    def is_steady(given: tuple[Array, Array, Array]) -> Array:
        v, value, step = given

        def change(step: Array) -> Array:
            curvature = v @ jax.jvp(slope, (flat + step * v,), (v,))[1]
            return jnp.abs(curvature - value)

        left = jnp.abs(v @ slope(flat - step * v))
        noise = jnp.minimum(8.0 * jnp.max(jnp.abs(noises @ v)), most)
        explained = jnp.maximum(10.0 * tolerance, noise)
        vanishes = left <= jnp.maximum(0.5 * jnp.abs(v @ before), explained)
        steady = jnp.maximum(change(step), change(-step)) <= 0.5 * value + rounding
        return steady & vanishes

    # One product after another, so that the check takes little memory.
    return ~jnp.all(jax.lax.map(is_steady, (vectors, values, steps)))


def _lanczos(product: Callable[[Array], Array], like: Array) -> Array:
    """Return an orthonormal basis of the Krylov space of a symmetric operator, as rows.

    Each vector is orthogonalised twice against all earlier vectors. If the Krylov space
    is exhausted, a random vector takes the place of the next vector.
    """
    draws = jax.random.normal(jax.random.key(0), (LANCZOS_STEPS, like.size), like.dtype)
    eps = jnp.finfo(like.dtype).eps

    def orthogonal(v: Array, basis: Array) -> Array:
        v = v - basis.T @ (basis @ v)
        return v - basis.T @ (basis @ v)

    def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
        basis, image = carry
        rest = orthogonal(image, basis)
        exhausted = jnp.linalg.norm(rest) <= 100 * eps * jnp.linalg.norm(image)
        rest = jnp.where(exhausted, orthogonal(draws[k], basis), rest)
        rest = rest / jnp.linalg.norm(rest)
        return (basis.at[k].set(rest), product(rest)), None

    start = (jnp.zeros_like(draws), draws[0])
    (basis, _), _ = jax.lax.scan(step, start, jnp.arange(LANCZOS_STEPS))
    return basis
