"""Shared code of second-order rules: flat params, matrix solves and backtracking.

The solves detect singular and indefinite matrices. Backtracking allows for rounding
errors in the objective.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from research.types import Array, Integer, Outcome, Params, Scalar
from research.update_rules._checks import check_floating
from research.update_rules._transforms import cast, reached, working_dtype

UNKNOWN, DEFINITE, INDEFINITE, SINGULAR, NOT_FINITE_MATRIX = range(5)

CURVATURES = (
    "no step yet",
    "the matrix is positive definite",
    "the Hessian has negative curvature",
    "the matrix is singular up to rounding errors",
    "the value, the gradient or the matrix is not finite",
)

MOST_IN_OWN_LOOPS = 8192  # Rows times squared columns of a small matrix.
MOST_SWEEPS = 30  # Of Jacobi's rotations; about six are needed.

Unflatten = Callable[[Float[Array, " n"]], Params]  # Restores the structure of params.
ValueAndGrad = tuple[Float[Array, ""], Float[Array, " n"]]


def curvature_in_words(curvature: Integer) -> str:
    """Return a description of the matrix that a second-order rule's last step used.

    Args:
      curvature: Index from 0 to 4 into CURVATURES, as in the field `curvature` of the
        rule's state; a concrete scalar.
    Returns:
      The description.
    Example:
      >>> curvature_in_words(jnp.int32(2))
      'the Hessian has negative curvature'
    """
    return CURVATURES[int(curvature)]


def require(rule: str, **given: Any) -> None:
    """Raise an error if update did not receive an argument that a rule needs.

    `rule` is the name of the rule, for the message. `given` holds the values that
    update received, by the arguments' names. None means that the argument is missing.

    Raises:
      ValueError: An argument is missing; the message names it and shows the right call.
    """
    missing = [name for name, value in given.items() if value is None]
    if missing:
        call = ", ".join(
            name if name == "params" else f"{name}={name}" for name in given
        )
        # `train` and a sweep call update without residuals.
        other = (
            f", or make the rule by {rule}(residual_fn=residual_fn)"
            if "residual_fn" in missing
            else ""
        )
        raise ValueError(
            f"{rule} needs {' and '.join(missing)}; call update(grads, state, "
            f"{call}){other}."
        )


def flatten(params: Params) -> tuple[Float[Array, " n"], Unflatten]:
    """Return the params as one vector, and a function that restores their structure.

    The vector has a dtype of at least float32. The function restores the shapes and the
    dtypes of the leaves.

    Raises:
      TypeError: A leaf is not a real floating array or number.
    Example:
      >>> flat, unflatten = flatten(
      ...     {"b": jnp.bfloat16(1.0), "w": jnp.ones((2, 1), jnp.bfloat16)}
      ... )
      >>> print(flat.dtype, flat, unflatten(2 * flat)["b"].dtype)
      float32 [1. 1. 1.] bfloat16
    """
    check_floating(params)
    dtype = working_dtype(params)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    flat, unravel = ravel_pytree(wide)
    return flat, lambda z: jax.tree.map(
        lambda a, leaf: a.astype(jnp.result_type(leaf)), unravel(z), params
    )


def shaped_like(
    step: Float[Array, " n"], unflatten: Unflatten, updates: Params
) -> Params:
    """Convert a step, which is one vector, to a pytree.

    `unflatten` is the function that `flatten` returned. `updates` is the gradient, and
    the leaves of the result have the dtypes of the gradient's leaves.
    """
    return jax.tree.map(
        lambda u, g: u.astype(jnp.result_type(g)), unflatten(step), updates
    )


def kept_after(
    params: Params,
    unflatten: Unflatten,
    after: tuple[Float[Array, ""], Float[Array, " n"]],
) -> tuple[Float[Array, ""] | None, Params]:
    """Return the objective's value and gradient after a step, to store in a state.

    The result is (None, None) if a leaf has a narrower dtype than the vector of
    `flatten`. In that case the step is rounded to the narrower dtype, and may end at
    another point than the one at which `after` was computed.

    Args:
      params, unflatten: The params, and the function from `flatten` that restores their
        structure.
      after: Value and gradient after the step; the gradient is one vector.
    Returns:
      The value, shape (), and the gradient in the structure of params; or (None, None).
    """
    exact = all(
        jnp.result_type(leaf) == working_dtype(params)
        for leaf in jax.tree.leaves(params)
    )
    return (after[0], unflatten(after[1])) if exact else (None, None)


def value_slack(value: Float[Array, ""]) -> Float[Array, ""]:
    """Return ten times the rounding error of a value f(x).

    Two values that differ by less than this slack may be equal. Conn, Gould & Toint
    (Trust-region methods, section 17.4.2) compare values in this way. Near a minimum,
    rounding errors hide the changes of f long before they hide the gradient, so a test
    on f alone would reject good steps near the end.

    The rounding error is assumed to be the machine epsilon times |f(x)|. If large terms
    of f cancel to a value near 0, the true rounding error is larger, and good steps may
    be rejected. The run can then end with only about half of the digits of x correct.
    The reason is that f changes with the square of the distance from the minimum: at a
    distance of about √eps, f exceeds the minimum by only about eps, where eps is the
    machine epsilon.
    """
    return 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)


def solve_symmetric(
    matrix: Float[Array, "n n"], g: Float[Array, " n"], indefinite: str
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """Solve matrix · p = g by Cholesky if the matrix is positive definite.

    Let eps be the machine epsilon. The matrix counts as positive definite if each pivot
    of the Cholesky factorisation is larger than n eps times the corresponding diagonal
    entry. This test does not depend on the scale of the variables. If the matrix fails
    the test, the argument `indefinite` says how p is computed from the eigenvalues and
    eigenvectors of the matrix. A zero matrix gives p = 0.

    Args:
      matrix: Symmetric matrix, shape (n, n).
      g: Right-hand side, shape (n,).
      indefinite: "reflect" replaces each eigenvalue by its absolute value, but by at
        least √eps times the largest absolute value. "keep" uses the eigenvalues
        unchanged. "drop" leaves out the eigenvectors whose eigenvalue is at most n eps
        times the largest absolute value. "stop" returns p = 0.
    Returns:
      p, shape (n,), and the kind of matrix as an index into CURVATURES, int32.
    Example:
      >>> p, curvature = solve_symmetric(
      ...     jnp.diag(jnp.array([2.0, -4.0])), jnp.ones(2), "reflect"
      ... )
      >>> print(p, curvature_in_words(curvature))
      [0.5  0.25] the Hessian has negative curvature
    """
    eps, n = jnp.finfo(matrix.dtype).eps, matrix.shape[0]
    factor = jnp.linalg.cholesky(matrix)
    definite = jnp.all(
        jnp.diagonal(factor) ** 2 > n * eps * jnp.diagonal(matrix)
    )  # False for NaN pivots.

    def plainly():
        return jax.scipy.linalg.cho_solve((factor, True), g), jnp.int32(DEFINITE)

    def by_eigenvalues():
        values, vectors = jnp.linalg.eigh(matrix)
        largest = jnp.max(jnp.abs(values), initial=0.0)
        found = jnp.where(
            jnp.any(values < -n * eps * largest), INDEFINITE, SINGULAR
        ).astype(jnp.int32)
        if indefinite == "stop":
            return 0 * g, found
        if indefinite == "reflect":
            values = jnp.maximum(jnp.abs(values), jnp.sqrt(eps) * largest)
        if indefinite == "drop":
            values = jnp.where(values > n * eps * largest, values, jnp.inf)
        p = vectors @ ((vectors.T @ g) / values)
        return jnp.where(largest == 0, 0 * g, p), found  # A zero matrix gives p = 0.

    return jax.lax.cond(definite, plainly, by_eigenvalues)


def secular_root(
    above: Float[Array, " n"],
    gamma: Float[Array, " n"],
    radius: Float[Array, ""],
    floor: Scalar,
) -> Float[Array, ""]:
    """Return the damping that keeps a step inside a trust region.

    Let γ be the argument `gamma`, d the argument `above`, and Δ the radius. The step is
    p(s) = γ / (d + s), with the division entry by entry, and s is the damping. The
    result is the smallest s >= floor with |p(s)| <= Δ. An entry of p(s) with γ_i = 0
    is 0, even if its divisor is 0.

    For each i with γ_i not 0, entry i of p(s) alone has the size Δ at s = s_i, where
    s_i = |γ_i| / Δ - d_i. So |p(s_i)| >= Δ. Because |p(s)| falls as s grows, the
    solution of |p(s)| = Δ is at least s_i. The search starts from the largest s_i, or
    from floor if floor is larger. If |p(s)| is then still larger than Δ, Newton's
    method on 1 / |p(s)| = 1 / Δ increases s to the solution.

    Args:
      above: Divisors d >= 0, shape (n,).
      gamma: Numerators γ, shape (n,).
      radius: Radius Δ > 0.
      floor: Smallest damping allowed, at least 0.
    Returns:
      The damping s, shape ().
    References:
      Nocedal & Wright, Numerical Optimization (2006), algorithm 4.3. Conn, Gould &
      Toint, Trust-region methods (2000), section 7.3.
    Example:
      >>> print(
      ...     secular_root(
      ...         jnp.array([0.0, 1.0]), jnp.array([3.0, 0.0]), jnp.array(1.5), 0.0
      ...     )
      ... )
      2.0
    """
    eps, none = jnp.finfo(gamma.dtype).eps, gamma == 0

    def climb(carry: tuple[Array, ...]):
        s, _, k = carry
        divisor = jnp.where(none, 1.0, above + s)
        p = gamma / divisor
        size = jnp.linalg.norm(p)
        rise = size**2 / jnp.sum(p**2 / divisor) * (size - radius) / radius
        rise = jnp.where(size > radius, rise, 0.0)
        return s + rise, rise > eps * s, k + 1

    start = jnp.maximum(
        floor, jnp.max(jnp.abs(gamma) / radius - above, initial=0.0)
    ).astype(gamma.dtype)
    going_on = lambda carry: carry[1] & (carry[2] < 100)
    return jax.lax.while_loop(
        going_on, climb, (start, jnp.asarray(True), jnp.int32(0))
    )[0]


def least_squares_step(
    jacobian: Float[Array, "m n"], r: Float[Array, " m"], singular: str
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """Return the h that minimises |J h + r|, by a QR factorisation of J.

    Args:
      jacobian: Jacobian J, shape (m, n).
      r: Residuals, shape (m,).
      singular: What to do if columns of J are linearly dependent. "shortest" returns
        the minimiser h with the smallest |D h|, where the diagonal matrix D holds the
        lengths of the columns, with 1 in place of 0. "stop" returns h = 0.
    Returns:
      h, shape (n,), and an index into CURVATURES, int32: DEFINITE or SINGULAR.
    Example:
      >>> h, _ = least_squares_step(
      ...     jnp.array([[1.0, 1.0], [1.0, 1.0]]), jnp.array([-2.0, -2.0]), "shortest"
      ... )
      >>> print(h.round(5))
      [1. 1.]
    """
    (m, n), eps = jacobian.shape, jnp.finfo(jacobian.dtype).eps
    lengths = jnp.linalg.norm(jacobian, axis=0)

    def by_singular_values():
        if singular == "stop":
            return 0 * (r @ jacobian), jnp.int32(SINGULAR)
        scale = jnp.where(lengths > 0, lengths, 1.0)
        u, s, v = jnp.linalg.svd(jacobian / scale[None], full_matrices=False)
        inverse = jnp.where(s > max(m, n) * eps * jnp.max(s, initial=0.0), 1 / s, 0.0)
        return -(v.T @ (inverse * (u.T @ r))) / scale, jnp.int32(SINGULAR)

    if m < n:
        return by_singular_values()
    q, upper = jnp.linalg.qr(jacobian)
    full = jnp.all(jnp.abs(jnp.diagonal(upper)) > m * eps * lengths)

    def by_qr():
        return -jax.scipy.linalg.solve_triangular(upper, q.T @ r), jnp.int32(DEFINITE)

    return jax.lax.cond(full, by_qr, by_singular_values)


def _in_own_loops(rows: int, columns: int) -> bool:
    """Return whether a matrix is factorised by loops of this module, not by LAPACK.

    On a CPU, XLA compiles a small loop to one function of the processor's instructions,
    but only if the loop calls no library. For a small matrix, a call of LAPACK would
    cost more than the arithmetic.
    """
    return jax.default_backend() == "cpu" and rows * columns**2 <= MOST_IN_OWN_LOOPS


def triangle(
    matrix: Float[Array, "m n"], right: Float[Array, " m"]
) -> tuple[Float[Array, "k n"], Float[Array, " k"]]:
    """Return R and Qᵀb of the QR factorisation A = Q R, by Householder's reflections.

    Args:
      matrix: Matrix A, shape (m, n).
      right: Vector b, shape (m,).
    Returns:
      R, upper triangular with shape (k, n), and Qᵀb, shape (k,), where k = min(m, n).
      The signs of the rows of R are arbitrary. If a row changes its sign, so does the
      entry of Qᵀb with the same index.
    References:
      Golub & Van Loan, Matrix Computations, 4th ed., algorithm 5.2.1.
    Example:
      >>> upper, target = triangle(jnp.array([[0.0], [2.0]]), jnp.array([1.0, 6.0]))
      >>> print(target / upper[:, 0])
      [3.]
    """
    (m, n), k = matrix.shape, min(matrix.shape)
    both = jnp.concatenate([matrix, right[:, None]], axis=1)
    if not _in_own_loops(m, n):
        both = jnp.linalg.qr(both, mode="r")
        return both[:k, :n], both[:k, n]
    index = jnp.arange(m)

    def reflect(j: Array, both: Array):
        column = jax.lax.dynamic_index_in_dim(both, j, 1, keepdims=False)
        below = jnp.where(index >= j, column, 0.0)
        largest = jnp.max(jnp.abs(below))
        unit = below / jnp.where(
            largest > 0, largest, 1.0
        )  # Its square cannot overflow.
        pivot = jax.lax.dynamic_index_in_dim(unit, j, 0, keepdims=False)
        end = -jnp.copysign(jnp.sqrt(jnp.sum(unit * unit)), pivot)
        factor = jnp.where(largest > 0, (end - pivot) / end, 0.0)
        normal = jnp.where(index == j, 1.0, unit / (pivot - end))
        normal = jnp.where(largest > 0, normal, 0.0)
        return both - factor * normal[:, None] * (normal @ both)[None]

    both = jax.lax.fori_loop(0, k, reflect, both)
    return jnp.triu(both[:k, :n]), both[:k, n]


def solve_upper(
    upper: Float[Array, "n n"], right: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Return x with R x = b, for an upper triangular R.

    R is the argument `upper`, shape (n, n), and b is `right`, shape (n,).

    Example:
      >>> print(solve_upper(jnp.array([[1.0, 1.0], [0.0, 2.0]]), jnp.array([3.0, 4.0])))
      [1. 2.]
    """
    n = len(right)
    if not _in_own_loops(n, n):
        return jax.scipy.linalg.solve_triangular(upper, right)

    def substitute(step: Array, x: Array):
        i = n - 1 - step
        row = jax.lax.dynamic_index_in_dim(upper, i, 0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, i, 0, keepdims=False)
        b = jax.lax.dynamic_index_in_dim(right, i, 0, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(x, (b - row @ x) / pivot, i, 0)

    return jax.lax.fori_loop(0, n, substitute, jnp.zeros_like(right))


def singular_values(
    matrix: Float[Array, "m n"], target: Float[Array, " m"]
) -> tuple[Float[Array, " k"], Float[Array, " k"], Float[Array, "n k"]]:
    """Return s, Uᵀb and V, for the singular value decomposition A = U diag(s) Vᵀ.

    Args:
      matrix: Matrix A, shape (m, n).
      target: Vector b, shape (m,).
    Returns:
      s, shape (k,), in any order; Uᵀb, shape (k,); and V, shape (n, k). If m n² <= 8192
      and the backend is a CPU, Jacobi rotations compute the decomposition. Then k is n,
      and Uᵀb is 0 where s is 0. Otherwise jnp.linalg.svd computes it, and k is
      min(m, n).
    Example:
      >>> matrix = jnp.diag(jnp.array([3.0, 4.0]))
      >>> s, projected, _ = singular_values(matrix, jnp.ones(2))
      >>> print(s, projected)
      [3. 4.] [1. 1.]
    """
    if not _in_own_loops(*matrix.shape):
        u, s, v = jnp.linalg.svd(matrix, full_matrices=False)
        return s, u.T @ target, v.T
    largest = jnp.max(jnp.abs(matrix), initial=0.0)
    unit = jnp.where(largest > 0, largest, 1.0)
    turned, vectors = _orthogonal_columns(matrix / unit)
    s = jnp.linalg.norm(turned, axis=0)
    projected = jnp.where(s > 0, (target @ turned) / jnp.where(s > 0, s, 1.0), 0.0)
    return unit * s, projected, vectors


def symmetric_eigen(
    matrix: Float[Array, "n n"],
) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Return the eigenvalues of a symmetric matrix, in any order, and its eigenvectors.

    The eigenvalues have the shape (n,). The eigenvectors are the columns of a matrix of
    shape (n, n), in the order of the eigenvalues.

    Example:
      >>> values, _ = symmetric_eigen(jnp.array([[1.0, 2.0], [2.0, 1.0]]))
      >>> print(jnp.sort(values).round(5))
      [-1.  3.]
    """
    n = len(matrix)
    if not _in_own_loops(n, n):
        return jnp.linalg.eigh(matrix)
    # The shifted matrix is positive semidefinite, so that its singular vectors are its
    # eigenvectors.
    shift = jnp.max(jnp.sum(jnp.abs(matrix), axis=0), initial=0.0)
    unit = jnp.where(shift > 0, shift, 1.0)
    scaled = matrix / unit
    _, vectors = _orthogonal_columns(scaled + jnp.eye(n, dtype=matrix.dtype))
    return unit * jnp.sum(vectors * (scaled @ vectors), axis=0), vectors


def _orthogonal_columns(
    matrix: Float[Array, "m n"],
) -> tuple[Float[Array, "m n"], Float[Array, "n n"]]:
    """Return A V and V, with orthogonal V such that the columns of A V are orthogonal.

    A is the argument `matrix`. One-sided Jacobi rotations turn each pair of columns
    until all are orthogonal (Golub & Van Loan, section 8.6.3).
    """
    m, n = matrix.shape
    eps = jnp.finfo(matrix.dtype).eps
    if n < 2:
        return matrix, jnp.eye(n, dtype=matrix.dtype)
    first, second = (jnp.asarray(i, jnp.int32) for i in np.triu_indices(n, 1))
    # A row holds a column of A V and the same column of V.
    both = jnp.concatenate([matrix.T, jnp.eye(n, dtype=matrix.dtype)], axis=1)

    def rotate(k: Array, carry: tuple[Array, Array]):
        both, turned = carry
        a, b = (
            jax.lax.dynamic_index_in_dim(both, i[k], 0, keepdims=False)
            for i in (first, second)
        )
        aa, bb, ab = a[:m] @ a[:m], b[:m] @ b[:m], a[:m] @ b[:m]
        off = jnp.abs(ab) > m**0.5 * eps * jnp.sqrt(aa) * jnp.sqrt(bb)
        zeta = (bb - aa) / (2.0 * jnp.where(off, ab, 1.0))
        tangent = jnp.copysign(1.0, zeta) / (jnp.abs(zeta) + jnp.hypot(1.0, zeta))
        tangent = jnp.where(off, tangent, 0.0)
        cosine = 1.0 / jnp.sqrt(1.0 + tangent * tangent)
        sine = cosine * tangent
        for i, row in ((first, cosine * a - sine * b), (second, sine * a + cosine * b)):
            both = jax.lax.dynamic_update_index_in_dim(both, row, i[k], 0)
        return both, turned | off

    def sweep(carry: tuple[Array, Array, Array]):
        both, _, sweeps = carry
        start = (both, jnp.asarray(False))
        return *jax.lax.fori_loop(0, len(first), rotate, start), sweeps + 1

    going_on = lambda carry: carry[1] & (carry[2] < MOST_SWEEPS)
    start = (both, jnp.asarray(True), jnp.int32(0))
    both, _, _ = jax.lax.while_loop(going_on, sweep, start)
    return both[:, :m].T, both[:, m:].T


def damped_step(
    jacobian: Float[Array, "m n"],
    r: Float[Array, " m"],
    scale: Float[Array, " n"],
    radius: Float[Array, ""],
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Return the step that minimises |J h + r| within a trust region, and its damping.

    The trust region is |D h| <= Δ, for a diagonal scaling D and a radius Δ. The damping
    is the μ >= 0 for which the step h minimises |J h + r|² + μ |D h|². J = Q R is
    factorised once. μ comes from the singular values of R D⁻¹. The step h comes from a
    QR factorisation of R with √μ D below it. If columns of J are linearly dependent up
    to rounding errors, h comes from the singular values instead. Singular values of at
    most max(m, n) eps times the largest are then left out, where eps is the machine
    epsilon.

    Args:
      jacobian: Jacobian J, shape (m, n).
      r: Residuals, shape (m,).
      scale: Diagonal of D, positive, shape (n,).
      radius: Radius Δ > 0, shape ().
    Returns:
      h, shape (n,), and μ. μ is 0 if the Gauss-Newton step is inside the trust region.
    Example:
      >>> h, damping = damped_step(
      ...     2 * jnp.eye(2), jnp.array([-6.0, -8.0]), jnp.ones(2), jnp.array(2.5)
      ... )
      >>> print(h.round(5), damping.round(5))
      [1.5 2. ] 4.0
    """
    upper, target = triangle(jacobian, -r)
    (m, n), eps = jacobian.shape, jnp.finfo(r.dtype).eps
    newton = solve_upper(upper, target) if m >= n else jnp.full_like(scale, jnp.inf)
    lengths = jnp.linalg.norm(jacobian, axis=0)[: min(m, n)]
    full = (m >= n) & jnp.all(jnp.abs(jnp.diagonal(upper)) > m * eps * lengths)

    def at_the_edge():
        s, projected, vectors = singular_values(upper / scale[None], target)
        nonzero = full | (s > max(m, n) * eps * jnp.max(s, initial=0.0))
        gamma = jnp.where(nonzero, s * projected, 0.0)
        damping = secular_root(s**2, gamma, radius, 0.0)
        by_values = vectors @ jnp.where(nonzero, gamma / (s**2 + damping), 0.0) / scale
        rows = jnp.concatenate([upper, jnp.diag(jnp.sqrt(damping) * scale)])
        zeros = jnp.zeros(n, target.dtype)
        damped = solve_upper(*triangle(rows, jnp.concatenate([target, zeros])))
        return jnp.where(full, damped, by_values), damping

    inside = full & (jnp.linalg.norm(scale * newton) <= radius)
    return jax.lax.cond(inside, lambda: (newton, jnp.zeros_like(radius)), at_the_edge)


def backtrack(
    at: Callable[[Float[Array, ""]], ValueAndGrad],
    before: ValueAndGrad,
    slope: Float[Array, ""],
    slack: Float[Array, ""],
    first: Float[Array, ""],
    sufficient_decrease: Scalar,
    shrink: Scalar,
    max_evaluations: Integer,
) -> tuple[Float[Array, ""], Int[Array, ""], Int[Array, ""], ValueAndGrad]:
    """Return the first step size that decreases f enough, up to a rounding error.

    f is the objective, x the params and p the direction of the step. Let t_0 be
    `first`, s be `shrink` and c be `sufficient_decrease`. The step sizes tried are t_0,
    t_0 s, t_0 s², ... A step size t is accepted if f(x + t p) <= f(x) + c t ∇f(x)ᵀp +
    slack, which is Armijo's condition with a slack. Without the slack, the last steps
    to a minimum could be rejected, because they change f by less than the rounding
    error of f.

    Args:
      at: Function from t to f(x + t p) and ∇f(x + t p).
      before: f(x) and ∇f(x).
      slope: Slope ∇f(x)ᵀp. If the slope is positive, or if the slope or f(x) is not
        finite, no step size is tried.
      slack: Possible rounding error of f, such as `value_slack(f(x))`.
      first: First step size t_0.
      sufficient_decrease, shrink: Constants c and s.
      max_evaluations: Maximum number of step sizes to try.
    Returns:
      Four results: t (0 if no step size is accepted), an `Outcome` (FOUND if t is
      accepted), the number of step sizes tried, and a pair of the value and gradient at
      x + t p.
    """
    value = before[0]

    def trial(search: tuple[Any, ...]):
        t, evaluations, _, _ = search
        t = jnp.where(evaluations == 0, t, cast(shrink, t) * t)
        there = at(t)
        enough = (
            there[0] <= value + cast(sufficient_decrease, value) * t * slope + slack
        )
        return (
            t,
            evaluations + 1,
            jnp.where(enough, Outcome.FOUND, Outcome.EVALUATIONS_USED_UP).astype(
                jnp.int32
            ),
            there,
        )

    def going_on(search: tuple[Any, ...]):
        _, evaluations, outcome, _ = search
        return (outcome == Outcome.EVALUATIONS_USED_UP) & ~reached(
            evaluations, max_evaluations
        )

    start = jnp.where(
        slope > 0, Outcome.NO_DESCENT_DIRECTION, Outcome.EVALUATIONS_USED_UP
    )
    start = jnp.where(
        jnp.isfinite(value) & jnp.isfinite(slope), start, Outcome.NOT_FINITE
    ).astype(jnp.int32)
    t, evaluations, outcome, there = jax.lax.while_loop(
        going_on, trial, (first, jnp.int32(0), start, before)
    )
    after = jax.tree.map(
        lambda a, b: jnp.where(outcome == Outcome.FOUND, a, b), there, before
    )
    return jnp.where(outcome == Outcome.FOUND, t, 0.0), outcome, evaluations, after
