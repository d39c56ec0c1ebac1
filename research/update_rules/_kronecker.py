"""Rules that precondition a leaf along each of its axes: Shampoo, SOAP and PSGD.

A matrix of params has two preconditioners: a square matrix for its rows, and another
one for its columns. The Kronecker product of the two approximates one large
preconditioner of all entries. In the formulas, G_t is the gradient of a leaf, X_t its
params, u_t the update and η_t the learning rate at step t.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_choice, check_key, check_number, check_tree
from research.schedules import Schedule
from research.sizes import check_most
from research.types import Array, Integer, Key, Params, Scalar
from research.update_rules._bias_correction import bias_correction
from research.update_rules._checks import checked, make_inner, rate_at
from research.update_rules._edges import complete, norm_of, widened
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    direction_of,
    increment,
    like,
    moving_average,
    working_dtype,
)


class SoapState(NamedTuple):
    """State of `soap`, whose docstring defines the symbols.

    Attributes:
      count: Number of calls of update, int32, shape ().
      mu: Moving average M of gradients, shaped like the params, in at least float32.
      nu: Moving average V of the squares of the rotated gradients, shaped like the
        params, in at least float32.
      factors: For each leaf, a tuple with the moving average of G Gᵀ along each rotated
        axis (L and R for a matrix).
      bases: For each leaf, a tuple with the basis Q of each rotated axis, an orthogonal
        matrix.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    factors: Any
    bases: Any


@checked
def soap(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    refresh_every: Integer = 10,
    refresh: str = "qr",
    shampoo_beta: Scalar | None = None,
    max_size: int | None = None,
) -> optax.GradientTransformation:
    """Run Adam in the eigenbasis of averages of G Gᵀ and Gᵀ G (Shampoo's factors).

    For a matrix X_t with the gradient G_t,
    u_t = -η_t (Q_L N_t Q_Rᵀ + λ X_t), where λ is weight_decay and
    N_t = M̂'_t / (√V̂_t + ε), with M̂'_t = Q_Lᵀ M_t Q_R / (1 - β1^t),
    M_t = β1 M_(t-1) + (1 - β1) G_t,
    V̂_t = V_t / (1 - β2^t), with V_t = β2 V_(t-1) + (1 - β2) (Q_Lᵀ G_t Q_R)², entry by
    entry.

    u_t is the update and η_t the learning rate at step t. Step 1 is the second call of
    update, because the first call only initialises the bases. M_t and V_t start at 0.
    L and R are moving averages of G Gᵀ and Gᵀ G. The bases Q_L and Q_R are orthogonal
    matrices. Their columns approximate the eigenvectors of L and R.

    After the step, L <- β L + (1 - β) G_t G_tᵀ and R <- β R + (1 - β) G_tᵀ G_t, where β
    is shampoo_beta. If t is a multiple of k = refresh_every, the bases are then
    refreshed, that is, brought closer to the eigenvectors of L and R. First the columns
    q_i of Q_L are sorted by q_iᵀ L q_i, the largest first. The rows of V_t get the same
    order as these columns, because row i belongs to q_i. With refresh="qr", Q_L then
    becomes the orthogonal factor of the QR factorisation of L Q_L, which is one step of
    orthogonal iteration. With refresh="eigh", the columns of Q_L become the
    eigenvectors of L, from the largest to the smallest eigenvalue. Q_R is refreshed in
    the same way with R.

    The first call only sets L = (1 - β) G Gᵀ and R = (1 - β) Gᵀ G, computes Q_L and Q_R
    by eigen-decompositions, and returns the update 0. The bases change only after a
    step, so they do not depend on the gradient that they rotate. If the bases are I,
    the rule is Adam from the second call on.

    A leaf with more than two axes has a basis for each axis. Axes of length 1, and axes
    longer than max_size, are not rotated. Vectors and scalars are not rotated either,
    so for them the rule is Adam from the second call on. If one axis of a matrix is
    longer than max_size, the rule is the one-sided SOAP of Vyas et al.

    The rotated gradient is Q_Lᵀ G_t Q_R. If one of its entries is not larger than the
    rounding error of the entry, the entry counts as 0. If the square of an entry
    overflows, this entry of the rotated step N_t is 0. With eps=0, an entry that is 0
    in all steps gives 0/0, which is NaN. If L or R overflows, its basis no longer
    changes. A NaN in a gradient makes all later steps of its leaf NaN. To skip steps
    with such a gradient, wrap the rule in `skip_nonfinite`.

    In the paper by Vyas et al., ε is inside the root. The authors' code differs from
    this rule in two points. First, the code adds ε to √V_t, before the bias correction
    of V_t. Second, it multiplies the weights by 1 - η λ after the step, which changes
    the result by a term of the size η² λ. In the authors' code, the defaults of β1, β2
    and k are the same as here, and the default of λ is 0.01. optax and torch do not
    have SOAP.

    The state of a matrix of shape (m, n) has 2 m n + 2 m² + 2 n² numbers. For a square
    matrix, this is six numbers per parameter, where Adam has two. The numbers have at
    least float32 precision, whatever the dtype of the params. A step needs
    4 (m + n) m n more multiplications than a step of Adam. A refresh needs about
    10 (m³ + n³) multiplications.

    Use it for networks with weight matrices, where SOAP needs fewer steps than AdamW.
    The batch should be so large that computing the gradient takes much more time than
    the additional operations of SOAP.

    Args:
      learning_rate: Learning rate η: a number of at least 0, a traced scalar, or a
        schedule t -> η_t, with t counted from 0 at the first call.
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
      refresh_every: Number of steps k between two refreshes, a positive integer; may be
        traced.
      refresh: How the bases are refreshed (see above), "qr" or "eigh".
      shampoo_beta: Decay rate β in [0, 1); may be traced. None means β2.
      max_size: Largest length of an axis that is rotated, an integer of at least 0;
        None means 10,000. This argument cannot be traced, because it decides the shapes
        of arrays.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        mask does not fit the params; update got no params; in init, the params are
        complex.
    References:
      Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, ICLR 2025,
      algorithms 3 and 4 (github.com/nikhilvyas/SOAP).
    Example:
      >>> rule, x = soap(0.5, b1=0.0, b2=0.0), jnp.zeros((2, 2))
      >>> updates, state = rule.update(jnp.diag(jnp.array([4.0, 2.0])), rule.init(x), x)
      >>> updates, state = rule.update(jnp.diag(jnp.array([-3.0, 9.0])), state, x)
      >>> print(updates.round(6) + 0.0)
      [[ 0.5  0. ]
       [ 0.  -0.5]]
    """
    _check_soap(b1, b2, shampoo_beta, eps, weight_decay, refresh_every)
    check_choice("refresh", refresh, ("qr", "eigh"))
    longest = _static("soap", "max_size", max_size, 10_000)
    beta = b2 if shampoo_beta is None else shampoo_beta
    decay: Any = add_decayed_weights(weight_decay, mask)

    def init(params: Params):
        return SoapState(*_soap_start(params, longest))

    def update(updates: Params, state: Any, params: Params | None = None):
        first = state.count == 0
        steps = jnp.maximum(state.count, 1)

        def average(b: Scalar, old: Array, new: Array):
            kept = cast(b, old) * old + cast(1.0 - b, old) * like(new, old)
            return jnp.where(first, old, kept)

        def adam_step(g: Array, m: Array, v: Array, bases: tuple[Array, ...]):
            axes, wide = _axes(g, longest), widened(g)
            # 0 · NaN is NaN, so that a NaN in the first gradient shows.
            m = jnp.where(first, like(0.0 * wide, m), average(b1, m, wide))
            v = average(b2, v, jnp.square(_rotated(axes, bases, wide)))
            numerator = _rotated(axes, bases, widened(m)) / cast(
                bias_correction(b1, steps), wide
            )
            root = jnp.sqrt(widened(v) / cast(bias_correction(b2, steps), wide))
            finite = jnp.all(jnp.isfinite(wide)) & jnp.all(jnp.isfinite(m))
            step = jnp.where(
                jnp.isposinf(v) & finite, 0.0, numerator / (root + cast(eps, wide))
            )
            return m, v, _along(axes, [q.T for q in bases], step).astype(g.dtype)

        grads, structure = jax.tree.flatten(updates)
        mu, nu, factors, bases = (structure.flatten_up_to(part) for part in state[1:])
        found = [
            adam_step(*of_leaf) for of_leaf in zip(grads, mu, nu, bases, strict=True)
        ]
        mu, nu, moved = ([of_leaf[k] for of_leaf in found] for k in range(3))
        directions, _ = decay.update(
            structure.unflatten(moved), decay.init(params), params
        )
        directions = jax.tree.map(
            lambda d, g: jnp.where(first, 0.0 * g, d), directions, updates
        )
        factors = [
            tuple(
                cast(beta, factor) * factor
                + cast(1.0 - beta, factor) * _outer(g.astype(factor.dtype), k)
                for factor, k in zip(of_leaf, _axes(g, longest), strict=True)
            )
            for of_leaf, g in zip(factors, grads, strict=True)
        ]
        due = state.count % refresh_every == 0
        index = jnp.where(first, 1, jnp.where(due, 2, 0))
        axes = [_axes(g, longest) for g in grads]
        bases, nu = _refreshed(index, refresh, axes, factors, bases, nu)
        return directions, SoapState(
            increment(state.count),
            *(structure.unflatten(part) for part in (mu, nu, factors, bases)),
        )

    return complete(
        optax.chain(
            complete(optax.GradientTransformation(init, update), only_real="soap"),
            descend(learning_rate),
        )
    )


def _check_soap(
    b1: Scalar,
    b2: Scalar,
    shampoo_beta: Scalar | None,
    eps: Scalar,
    weight_decay: Scalar,
    refresh_every: Integer,
) -> None:
    """Check the arguments that `soap` and `kl_soap` share."""
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    if shampoo_beta is not None:
        check_number("shampoo_beta", shampoo_beta, below=1.0)
    check_number("eps", eps)
    check_number("weight_decay", weight_decay)
    check_number("refresh_every", refresh_every, positive=True, integer=True)


def _soap_start(params: Params, longest: int) -> tuple[Any, Any, Any, Any, Any]:
    """Return the first fields of the state of `soap` and `kl_soap`.

    These are the count, M, V, the factors and the bases.
    """
    # In half precision, the rounding errors of M along a column of Q where V is 0 would
    # become steps without limit.
    zeros = lambda: jax.tree.map(lambda x: jnp.zeros_like(widened(x)), params)
    squares = lambda size, dtype: jnp.zeros((size, size), dtype)
    identity = lambda size, dtype: jnp.eye(size, dtype=dtype)
    return (
        jnp.zeros((), jnp.int32),
        zeros(),
        zeros(),
        _each_axis(squares, params, longest),
        _each_axis(identity, params, longest),
    )


def _rotated(axes: Any, bases: Any, x: Array) -> Array:
    """Multiply each axis of x by Qᵀ. Entries that are rounding errors of 0 become 0.

    A gradient often has no component along some of the columns of Q. If these entries
    were not set to 0, the division by √V would turn their rounding errors into steps of
    full length.
    """
    if not axes:
        return x
    found = _along(axes, bases, x)
    longest = max(x.shape[k] for k in axes)
    rounding = 4 * longest * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x))
    return jnp.where(jnp.abs(found) <= rounding, 0.0, found)


def _refreshed(
    index: Array,
    refresh: str,
    axes: list[Any],
    factors: list[Any],
    bases: list[Any],
    nu: list[Array],
) -> tuple[list[Any], list[Array]]:
    """Return the bases Q and the averages V that the next step uses.

    `index` is 0 if Q and V do not change, 1 at the first call, and 2 at a later
    refresh.

    If a factor is not finite, it has no eigenvectors, and its basis does not change.
    """

    def keep(bases: list[Any], nu: list[Array]):
        return bases, nu

    def at_first(bases: list[Any], nu: list[Array]):
        return [
            tuple(map(_eigenvectors, of_leaf, qs))
            for of_leaf, qs in zip(factors, bases, strict=True)
        ], nu

    def later(bases: list[Any], nu: list[Array]):
        found, sorted_nu = [], []
        for of_leaf, qs, v, kept in zip(factors, bases, nu, axes, strict=True):
            rows = []
            for factor, q, k in zip(of_leaf, qs, kept, strict=True):
                q, order = _next_basis(factor, q, refresh)
                v = jnp.take(v, order, axis=k)
                rows.append(q)
            found.append(tuple(rows))
            sorted_nu.append(v)
        return found, sorted_nu

    if not any(axes):
        return bases, nu
    return jax.lax.switch(index, (keep, at_first, later), bases, nu)


def _eigenvectors(factor: Array, q: Array) -> Array:
    """Return the eigenvectors of a factor, sorted from the largest eigenvalue.

    If the factor is not finite, return the old basis q.
    """
    usable = jnp.all(jnp.isfinite(factor))
    vectors = jnp.linalg.eigh(jnp.where(usable, factor, 0.0))[1]
    return jnp.where(usable, jnp.flip(vectors, 1), q)


def _next_basis(factor: Array, q: Array, refresh: str) -> tuple[Array, Array]:
    """Return the basis after a refresh, and the order that sorts the columns of q."""
    usable = jnp.all(jnp.isfinite(factor))
    image = _product(jnp.where(usable, factor, 0.0), q)
    order = jnp.argsort(jnp.sum(q * image, 0), descending=True)
    order = jnp.where(usable, order, jnp.arange(len(order)))
    if refresh == "eigh":
        return _eigenvectors(factor, q), order
    return jnp.where(usable, jnp.linalg.qr(image[:, order])[0], q), order


class KlSoapState(NamedTuple):
    """State of `kl_soap`, whose docstring defines the symbols.

    Attributes:
      count: Number of calls of update, int32, shape ().
      mu: Moving average M of gradients, shaped like the params, in at least float32.
      nu: Moving average V of the squares of the rotated gradients, shaped like the
        params, in at least float32.
      factors: For each leaf, a tuple with the factor of each rotated axis (L and R for
        a matrix).
      bases: For each leaf, a tuple with the basis Q of each rotated axis, an orthogonal
        matrix.
      eigenvalues: For each leaf, a tuple with the moving average d of the eigenvalues
        of each factor, shape (length of the axis,).
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    factors: Any
    bases: Any
    eigenvalues: Any


@checked
def kl_soap(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.98,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    refresh_every: Integer = 10,
    shampoo_beta: Scalar | None = None,
    first_eigenvalue: Scalar = 0.1,
    max_size: int | None = None,
) -> optax.GradientTransformation:
    """Run Adam in the eigenbasis of the Kronecker factors of the gradients' covariance.

    For a matrix X_t of shape (m, n) with the gradient G_t,
    u_t = -η_t (Q_L N_t Q_Rᵀ + λ X_t), where λ is weight_decay and
    N_t = Q_Lᵀ M_t Q_R / (√V_t + ε), with
    M_t = β1 M_(t-1) + (1 - β1) G_t and
    V_t = β2 V_(t-1) + (1 - β2) (Q_Lᵀ G_t Q_R)², entry by entry.
    u_t is the update and η_t the learning rate at step t. Step 1 is the second call of
    update, because the first call only initialises the factors. M_t and V_t start at 0,
    and their bias is not corrected. The bases Q_L and Q_R are orthogonal matrices.
    Their columns approximate the eigenvectors of the factors L and R.

    d_L and d_R are moving averages of the eigenvalues of L and R. After the step, L, R,
    d_L and d_R are updated. With β = shampoo_beta and P = Q_Lᵀ G_t Q_R,
    L <- β L + (1 - β) G_t Q_R diag(1 / d_R) Q_Rᵀ G_tᵀ / n,
    d_L,i <- max(β d_L,i + (1 - β) mean_j (P_ij² / d_R,j), c^(-2)) for each i,
    with c = max(10, min(m, 4000)). R and d_R are updated in the same way, with G_t
    transposed, L and R exchanged, and m and n exchanged. On the right-hand sides, d_L
    and d_R have their old values.

    If t is a multiple of refresh_every, the bases are then refreshed. Q_L becomes the
    orthogonal factor of the QR factorisation of L Q_L. In the same way, Q_R is computed
    from R Q_R.

    In `soap`, L is the average of G Gᵀ. In this rule, the gradients in L are whitened
    by R, that is, each G is multiplied by R^(-1/2). In the same way, the gradients in R
    are whitened by L. With E for the expected value, L estimates E[G R⁻¹ Gᵀ] / n and R
    estimates E[Gᵀ L⁻¹ G] / m. If L and R equal these expected values, no other
    Kronecker product of two factors has a smaller Kullback-Leibler divergence from the
    covariance of the gradients.

    The first call only sets L = (1 - β) G Gᵀ / n and R = (1 - β) Gᵀ G / m, computes Q_L
    and Q_R by eigen-decompositions, and returns the update 0. All entries of d_L and
    d_R start at first_eigenvalue. The first call does not change them.

    A leaf with more than two axes has a factor for each axis. In the factor of an axis,
    the gradients are whitened along all other axes. Axes of length 1, and axes longer
    than max_size, are not rotated and not whitened. Vectors and scalars are not rotated
    either, so for them the rule is Adam without bias correction from the second call
    on.

    The rotated gradient is Q_Lᵀ G_t Q_R. If one of its entries is not larger than the
    rounding error of the entry, the entry counts as 0. If the square of an entry
    overflows, this entry of the rotated step N_t is 0. If a factor overflows, its basis
    no longer changes. A NaN in a gradient makes all later steps of its leaf NaN. To
    skip steps with such a gradient, wrap the rule in `skip_nonfinite`.

    The authors' code with using_klsoap=True has the same defaults, except that its λ is
    0.01. It differs from this rule in four points. First, it multiplies the weights by
    1 - η λ after the step, which changes the result by a term of the size η² λ. Second,
    it computes in bfloat16. Third, it refuses vectors and leaves with more than three
    axes. Fourth, for a leaf with three axes, it updates the last axis first, and uses
    the new eigenvalues of an axis for the next axis. optax and torch do not have
    KL-SOAP.

    The state of a matrix of shape (m, n) has 2 m n + 2 m² + 2 n² + m + n numbers, in at
    least float32, whatever the dtype of the params. A step costs about as much as that
    of `soap`.

    Use it in place of `soap`. In the authors' experiments on language models, `kl_soap`
    was as good as `soap` or better.

    Args:
      learning_rate: Learning rate η: a number of at least 0, a traced scalar, or a
        schedule t -> η_t, with t counted from 0 at the first call.
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
      refresh_every: Number of steps between two refreshes of the bases, a positive
        integer; may be traced.
      shampoo_beta: Decay rate β in [0, 1); may be traced. None means β2.
      first_eigenvalue: Starting value of all entries of d_L and d_R, positive; may be
        traced.
      max_size: Largest length of an axis that is rotated, an integer of at least 0;
        None means 10,000. This argument cannot be traced, because it decides the shapes
        of arrays.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        mask does not fit the params; update got no params; in init, the params are
        complex.
    References:
      Lin et al., Understanding and improving Shampoo and SOAP via Kullback-Leibler
      minimization, ICLR 2026, arXiv:2509.03378. Code: github.com/yorkerlin/KL-Methods,
      optim/kl_opt.py, commit 4cb97e0.
    Example:
      >>> rule, x = kl_soap(0.5, b1=0.0, b2=0.0), jnp.zeros((2, 2))
      >>> updates, state = rule.update(jnp.diag(jnp.array([4.0, 2.0])), rule.init(x), x)
      >>> updates, state = rule.update(jnp.diag(jnp.array([-3.0, 9.0])), state, x)
      >>> print(updates.round(6) + 0.0)
      [[ 0.5  0. ]
       [ 0.  -0.5]]
    """
    _check_soap(b1, b2, shampoo_beta, eps, weight_decay, refresh_every)
    check_number("first_eigenvalue", first_eigenvalue, positive=True)
    longest = _static("kl_soap", "max_size", max_size, 10_000)
    beta = b2 if shampoo_beta is None else shampoo_beta
    decay: Any = add_decayed_weights(weight_decay, mask)

    def init(params: Params):
        equal = lambda size, dtype: jnp.full((size,), first_eigenvalue, dtype)
        return KlSoapState(
            *_soap_start(params, longest), _each_axis(equal, params, longest)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        first = state.count == 0
        grads, structure = jax.tree.flatten(updates)
        mu, nu, *kronecker = (structure.flatten_up_to(part) for part in state[1:])
        axes = [_axes(g, longest) for g in grads]

        def average(b: Any, old: Array, new: Array) -> Array:
            kept = cast(b, old) * old + cast(1.0 - b, old) * new
            return jnp.where(first, old, kept)

        def adam_step(of_leaf: Any, g: Array, m: Array, v: Array, bases: Any):
            wide = widened(g)
            # 0 · NaN is NaN, so that a NaN in the first gradient shows.
            m = jnp.where(first, 0.0 * wide, average(b1, m, wide))
            v = average(b2, v, jnp.square(_rotated(of_leaf, bases, wide)))
            root = jnp.sqrt(v) + cast(eps, v)
            # Without a gradient so far, an entry does not move.
            quotient = _rotated(of_leaf, bases, m) / jnp.where(root == 0, 1.0, root)
            finite = jnp.all(jnp.isfinite(wide)) & jnp.all(jnp.isfinite(m))
            step = jnp.where(jnp.isposinf(v) & finite, 0.0, quotient)
            return m, v, _along(of_leaf, [q.T for q in bases], step).astype(g.dtype)

        found = [
            adam_step(*of_leaf)
            for of_leaf in zip(axes, grads, mu, nu, kronecker[1], strict=True)
        ]
        mu, nu, moved = ([of_leaf[k] for of_leaf in found] for k in range(3))
        directions, _ = decay.update(
            structure.unflatten(moved), decay.init(params), params
        )
        directions = jax.tree.map(
            lambda d, g: jnp.where(first, 0.0 * g, d), directions, updates
        )
        learned = [
            _kl_factors(of_leaf, widened(g), first, beta, *parts)
            for of_leaf, g, *parts in zip(axes, grads, *kronecker, strict=True)
        ]
        factors, eigenvalues = ([part[k] for part in learned] for k in range(2))
        due = state.count % refresh_every == 0
        index = jnp.where(first, 1, jnp.where(due, 2, 0))
        bases = _kl_bases(index, axes, factors, kronecker[1])
        return directions, KlSoapState(
            increment(state.count),
            *(
                structure.unflatten(part)
                for part in (mu, nu, factors, bases, eigenvalues)
            ),
        )

    return complete(
        optax.chain(
            complete(optax.GradientTransformation(init, update), only_real="kl_soap"),
            descend(learning_rate),
        )
    )


def _kl_factors(
    axes: Any,
    g: Array,
    first: Array,
    beta: Scalar,
    factors: Any,
    bases: Any,
    eigenvalues: Any,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Return the factors of a leaf and their eigenvalues, updated with the gradient g.

    For the factor of an axis, the gradient is whitened along all other axes. At the
    first call, the gradient is not whitened, and the eigenvalues do not change.
    """
    rotated = _rotated(axes, bases, g)
    found, averages = [], []
    for i, k in enumerate(axes):
        whitened, diagonal = g, rotated
        for j, other in enumerate(axes):
            if j == i:
                continue
            shape = [1] * g.ndim
            shape[other] = -1
            scale = jax.lax.rsqrt(eigenvalues[j]).reshape(shape)
            turned = _along((other,), (bases[j],), whitened)
            whitened = jnp.where(first, whitened, turned * scale)
            diagonal = diagonal * scale
        count = g.size // g.shape[k]
        others = tuple(j for j in range(g.ndim) if j != k)
        new = _outer(whitened, k) / count
        found.append(cast(beta, g) * factors[i] + cast(1.0 - beta, g) * new)
        d = eigenvalues[i]
        moved = cast(beta, g) * d
        moved += cast(1.0 - beta, g) * jnp.mean(jnp.square(diagonal), others)
        moved = jnp.maximum(moved, max(10, min(g.shape[k], 4_000)) ** -2)
        averages.append(jnp.where(first | ~jnp.isfinite(moved), d, moved))
    return tuple(found), tuple(averages)


def _kl_bases(
    index: Array, axes: list[Any], factors: list[Any], bases: list[Any]
) -> list[Any]:
    """Return the bases Q that the next step uses.

    `index` is as in `_refreshed`.
    """
    if not any(axes):
        return bases
    each = lambda change: (
        lambda: [
            tuple(map(change, of_leaf, qs))
            for of_leaf, qs in zip(factors, bases, strict=True)
        ]
    )
    changes = (lambda factor, q: q, _eigenvectors, _orthogonalised)
    return jax.lax.switch(index, [each(change) for change in changes])


def _orthogonalised(factor: Array, q: Array) -> Array:
    """Return the orthogonal factor of the QR factorisation of L Q.

    L is the argument `factor`. If L is not finite, return Q.
    """
    usable = jnp.all(jnp.isfinite(factor))
    image = _product(jnp.where(usable, factor, 0.0), q)
    return jnp.where(usable, jnp.linalg.qr(image)[0], q)


class ShampooState(NamedTuple):
    """State of `shampoo`, whose docstring defines the symbols.

    Attributes:
      count: Number of calls of update, int32, shape ().
      mu: Moving average of gradients, shaped like the params.
      factors: For each leaf, a tuple with the sum or moving average of G Gᵀ along each
        axis, without ε I. If the axis is longer than max_size, only the diagonal is
        stored.
      roots: Inverse roots of order q of the factors plus ε I, from the last refresh, in
        the structure of `factors`.
      residual: Largest entry of |X^q (F + ε I) - I| over all factors F and their roots
        X at the last refresh, shape ().
      graft: State of the rule that sets the length of the step. None without `graft`.
    """

    count: Int[Array, ""]
    mu: Params
    factors: Any
    roots: Any
    residual: Float[Array, ""]
    graft: Any


@checked
def shampoo(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar | None = None,
    eps: Scalar = 1e-4,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    refresh_every: Integer = 1,
    root: int | None = None,
    method: str = "eigh",
    graft: Callable[..., optax.GradientTransformation] | None = None,
    max_size: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition each axis of a leaf by an inverse root of the sum of G Gᵀ.

    For a matrix X_t with the gradient G_t,
    u_t = -η_t (L_t^(-1/q) M_t R_t^(-1/q) + λ X_t), where λ is weight_decay,
    M_t = β1 M_(t-1) + (1 - β1) G_t,
    L_t = ε I + Σ G_s G_sᵀ and R_t = ε I + Σ G_sᵀ G_s, with sums over s = 1, ..., t.

    u_t is the update, η_t the learning rate, q the order of the inverse roots, and M_0
    is 0. L_t and R_t are called factors. A leaf with j axes has a factor for each axis.
    By default, q = 2 j, which is 4 for matrices and 2 for vectors. For vectors and
    b1=0, the rule is then the full-matrix AdaGrad. A scalar counts as a vector of
    length 1.

    The following options come from later versions of Shampoo. If b2 is a number, the
    sums become moving averages without bias correction: L_t = ε I + A_t with A_t = β2
    A_(t-1) + (1 - β2) G_t G_tᵀ and A_0 = 0, and in the same way for R_t. The inverse
    roots L_t^(-1/q) and R_t^(-1/q) are computed only at the calls 1, 1 + k, 1 + 2 k,
    ... of update, where k is refresh_every. Such a computation is a refresh. Until the
    next refresh, the roots do not change. With `graft`, the matrix
    L_t^(-1/q) M_t R_t^(-1/q) is rescaled to the norm of the update of another rule,
    graft(1). For an axis longer than max_size, only the diagonal of the factor is used.

    If b1, ε and λ are 0 and the options have their defaults, the first update of a
    matrix is -η U Vᵀ, where G = U S Vᵀ is the singular value decomposition. `muon`
    approximates U Vᵀ. If a factor overflows, its root is 0 from the next refresh on,
    and then only weight decay moves the leaf. A NaN in a gradient makes all later steps
    of its leaf NaN. To skip steps with such a gradient, wrap the rule in
    `skip_nonfinite`.

    The argument `method` says how the inverse roots are computed. method="eigh" uses an
    eigen-decomposition. Eigenvalues of 0 are left out, as in a pseudo-inverse.
    method="newton" uses the coupled Newton iteration, which consists of matrix products
    and is faster on accelerators. With either method, if only the diagonal of a factor
    is used, zeros on this diagonal are left out.

    With method="newton", the relative error of a root is about δ κ, where δ is the
    machine epsilon and κ is the condition number of the factor (its largest eigenvalue
    divided by its smallest). If δ κ is 1 or more, the iteration fails: the step may be
    wrong, ∞ or NaN. At the first refresh, G_1 G_1ᵀ is singular for a vector. For a
    matrix that is not square, G_1 G_1ᵀ or G_1ᵀ G_1 is singular. The smallest eigenvalue
    of such a factor is then ε. For such leaves, unless G_1 is 0, the iteration fails if
    ε is 0. In float32, it also fails if ε is below about 1e-7 |G_1|². If ε is small,
    check the field `residual` of the state. This number is the largest entry of |X^q F
    - I| over all factors F and their roots X at the last refresh.

    optax and torch do not have Shampoo. The authors' TensorFlow code has the same ε. It
    uses G_t in place of M_t by default, and computes the roots at the calls k, 2 k, 3 k
    and so on. Google's distributed Shampoo has b2, grafting and Newton's iteration. It
    uses ε times the largest eigenvalue in place of ε. In place of M_t it has an average
    or sum of the preconditioned gradients. Meta's distributed Shampoo corrects the bias
    of the moving averages.

    The state of a matrix of shape (m, n) has m n + 2 m² + 2 n² numbers, and those of
    graft(1). For a square matrix, this is five numbers per parameter without graft.
    Factors and roots have at least float32 precision, whatever the dtype of the params.
    A step costs 2 (m + n) m n multiplications, and a refresh about 10 (m³ + n³).

    Use it for matrices with up to a few thousand rows and columns. Set max_size to at
    least the lengths of their axes, and refresh_every to 10 or more. With
    graft=adagrad, a learning rate that was tuned for `adagrad` can be used.

    Args:
      learning_rate: Learning rate η: a number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      b1: Decay rate β1 of M_t in [0, 1); may be traced.
      b2: Decay rate β2 in [0, 1), which may be traced. None means sums instead of
        moving averages.
      eps: Constant ε, at least 0; may be traced.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
      refresh_every: Number of steps k between two refreshes, a positive integer; may be
        traced.
      root: Order q of the roots, an integer from 1 to 1000; None means twice the number
        of axes. This argument cannot be traced.
      method: How the roots are computed (see above), "eigh" or "newton".
      graft: Function from a rate to the rule that sets the length of the step, such as
        adagrad. None means that the length is not changed.
      max_size: Largest length of an axis whose factor is a whole matrix, an integer of
        at least 0; None means 1,024. This argument cannot be traced, because it decides
        the shapes of arrays.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        graft is not a constructor of a rule; mask does not fit the params; update got
        no params; in init, the params are complex.
    References:
      Gupta et al., Shampoo: preconditioned stochastic tensor optimization, ICML 2018,
      algorithms 1 and 2. Anil et al., Scalable second order optimization for deep
      learning, arXiv:2002.09018 (2020), on averages, grafting and Newton's iteration.
    Example:
      >>> rule, x = shampoo(1.0, b1=0.0, eps=0.0), jnp.zeros((2, 2))
      >>> print(
      ...     rule.update(jnp.array([[0.0, 3.0], [-2.0, 0.0]]), rule.init(x), x)[
      ...         0
      ...     ].round(6)
      ...     + 0.0
      ... )
      [[ 0. -1.]
       [ 1.  0.]]
    """
    check_number("b1", b1, below=1.0)
    if b2 is not None:
        check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("refresh_every", refresh_every, positive=True, integer=True)
    check_choice("method", method, ("eigh", "newton"))
    longest = _static("shampoo", "max_size", max_size, 1_024)
    if root is not None:
        _static("shampoo", "root", root, 1)
        check_number("root", root, positive=True, integer=True)
        check_most(1_000, root=root)
    lengths = None
    if graft is not None:
        lengths = direction_of(make_inner(graft, 1.0, graft, "graft"))

    def init(params: Params):
        dtype = working_dtype(params)
        return ShampooState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            _factors(params, longest),
            _factors(params, longest),
            jnp.zeros((), dtype),
            None if lengths is None else lengths.init(params),
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        mu = moving_average(b1, state.mu, updates)
        grads, structure = jax.tree.flatten(updates)
        averages, factors, roots = (
            structure.flatten_up_to(part) for part in (mu, state.factors, state.roots)
        )
        factors = [
            tuple(_added(b2, f, g, k) for k, f in enumerate(of_leaf))
            for of_leaf, g in zip(factors, grads, strict=True)
        ]

        def refreshed(roots: Any, residual: Array):
            del roots
            found = [
                [_inverse_root(f, root or 2 * len(fs), eps, method) for f in fs]
                for fs in factors
            ]
            errors = [
                error.astype(residual.dtype)
                for of_leaf in found
                for _, error in of_leaf
            ]
            return [
                tuple(x for x, _ in of_leaf) for of_leaf in found
            ], functools.reduce(jnp.maximum, errors, jnp.zeros_like(residual))

        roots, residual = jax.lax.cond(
            state.count % refresh_every == 0,
            refreshed,
            lambda *kept: kept,
            roots,
            state.residual,
        )
        directions = structure.unflatten(
            [
                _preconditioned(m, xs).astype(g.dtype)
                for g, m, xs in zip(grads, averages, roots, strict=True)
            ]
        )
        graft_state = state.graft
        if lengths is not None:
            wanted, graft_state = lengths.update(updates, graft_state, params, **extra)
            directions = jax.tree.map(_as_long_as, directions, wanted)
        return directions, ShampooState(
            increment(state.count),
            mu,
            structure.unflatten(factors),
            structure.unflatten(roots),
            residual,
            graft_state,
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(
        optax.chain(
            complete(whole, only_real="shampoo"),
            add_decayed_weights(weight_decay, mask),
            descend(learning_rate),
        )
    )


def _factors(params: Params, longest: int) -> Any:
    def of_leaf(x: Array):
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        return tuple(
            jnp.zeros((n, n) if n <= longest else (n,), dtype) for n in x.shape or (1,)
        )

    return jax.tree.map(of_leaf, params)


def _added(b2: Any, factor: Array, g: Array, axis: int) -> Array:
    g = jnp.atleast_1d(g).astype(factor.dtype)
    if factor.ndim == 2:
        new = _outer(g, axis)
    else:
        others = tuple(k for k in range(g.ndim) if k != axis)
        new = jnp.sum(jnp.square(g), others)
    kept, share = (1.0, 1.0) if b2 is None else (b2, 1.0 - b2)
    found = cast(kept, factor) * factor + cast(share, factor) * new
    overflow = jnp.all(jnp.isfinite(g)) & ~jnp.any(jnp.isnan(factor))
    # Products that overflow may cancel to NaN. Mark all of the factor as overflowed.
    return jnp.where(overflow & ~jnp.all(jnp.isfinite(found)), jnp.inf, found)


def _inverse_root(
    factor: Array, order: int, eps: Any, method: str
) -> tuple[Array, Array]:
    """Return the root (L + ε I)^(-1/q) of a factor L, and the residual of the root.

    If `factor` is a vector, it is the diagonal of L. If L overflowed, the root is 0. If
    L contains NaN, the root is NaN. In both cases, the residual is ∞.
    """
    overflow = jnp.any(jnp.isposinf(factor)) & ~jnp.any(jnp.isnan(factor))
    usable = jnp.all(jnp.isfinite(factor))
    matrix = jnp.where(usable, factor, 0.0)
    ridge = cast(eps, factor)
    if factor.ndim == 1:
        found = _power(matrix + ridge, -1.0 / order)
        error = jnp.abs(found**order * (matrix + ridge) - 1.0)
    else:
        inverse_root = by_eigenvalues if method == "eigh" else by_newton
        found = inverse_root(matrix, order, ridge)
        matrix = matrix + ridge * jnp.eye(len(matrix), dtype=matrix.dtype)
        error = root_residual(found, matrix, order)
    found = jnp.where(usable, found, jnp.where(overflow, 0.0, jnp.nan))
    return found, jnp.where(usable, jnp.max(error, initial=0.0), jnp.inf)


def _power(eigenvalues: Array, power: float) -> Array:
    positive = eigenvalues > 0
    return jnp.where(positive, jnp.where(positive, eigenvalues, 1.0) ** power, 0.0)


def by_eigenvalues(
    matrix: Float[Array, "n n"], order: int, ridge: Scalar = 0.0
) -> Float[Array, "n n"]:
    """Return the inverse root (L + ε I)^(-1/q) from the eigenvalues of L.

    L is the argument `matrix`, ε is ridge and q is order.

    Eigenvalues of L below 0 are rounding errors, and count as 0. If an eigenvalue of L
    + ε I is 0, this eigenvalue is left out, as in a pseudo-inverse.

    Args:
      matrix: Semidefinite matrix L, shape (n, n), of float32 or float64.
      order: Order q of the root.
      ridge: Constant ε, at least 0.
    Returns:
      The root, shape (n, n).
    Example:
      >>> print(by_eigenvalues(jnp.diag(jnp.array([16.0, 81.0, 0.0])), 4).round(6))
      [[0.5      0.       0.      ]
       [0.       0.333333 0.      ]
       [0.       0.       0.      ]]
    """
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    eigenvalues = jnp.maximum(eigenvalues, 0.0) + ridge
    return _product(
        vectors * jnp.expand_dims(_power(eigenvalues, -1.0 / order), 0), vectors.T
    )


def by_newton(
    matrix: Float[Array, "n n"], order: int, ridge: Scalar = 0.0, num_steps: int = 100
) -> Float[Array, "n n"]:
    """Return the inverse root (L + ε I)^(-1/q) by the coupled Newton iteration.

    L is the argument `matrix`, ε is ridge and q is order.

    Let A = L + ε I, |A| its Frobenius norm, and z = (1 + q) / (2 |A|). The iteration
    starts with X = z^(1/q) I and M = z A. Each step computes T = ((q + 1) I - M) / q, X
    <- X T and M <- T^q M. M converges to I, and X converges to A^(-1/q). Let e be the
    largest entry of |M - I|. The iteration ends if e is at most n times the machine
    epsilon, if e is at most ½ and no longer falls, or after num_steps steps.

    Args:
      matrix: Symmetric matrix L, shape (n, n), of float32 or float64. L + ε I must be
        0, or positive definite with a condition number below 1 / (machine epsilon).
        Otherwise the iteration fails, and the result may be wrong, ∞ or NaN.
      order: Order q of the root.
      ridge: Constant ε, at least 0.
      num_steps: Largest number of steps.
    Returns:
      The root, shape (n, n), with a relative error of about the machine epsilon times
      the condition number of A. If A is 0, the result is 0.
    References:
      Guo & Higham, A Schur-Newton method for the matrix pth root and its inverse, SIAM
      J. Matrix Anal. Appl. 28 (2006), equation (3.1) (the coupled form).
    Example:
      >>> print(by_newton(jnp.diag(jnp.array([16.0, 81.0])), 4).round(6))
      [[0.5      0.      ]
       [0.       0.333333]]
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    matrix = matrix + ridge * identity
    norm = norm_of(matrix)
    empty = norm == 0
    norm = jnp.where(empty, 1.0, norm)
    enough = len(matrix) * jnp.finfo(matrix.dtype).eps

    def error_of(m: Array):
        return jnp.max(jnp.abs(m - identity), initial=0.0)

    def unfinished(carry: tuple[Array, ...]):
        k, _, m, last = carry
        error = error_of(m)
        return (k < num_steps) & (error > enough) & ((error < last) | (error > 0.5))

    def step(carry: tuple[Array, ...]):
        k, x, m, _ = carry
        t = ((order + 1) * identity - m) / order
        return k + 1, _product(x, t), _product(_matrix_power(t, order), m), error_of(m)

    start = (
        jnp.int32(0),
        ((1 + order) / (2 * norm)) ** (1.0 / order) * identity,
        (1 + order) / 2 * (matrix / norm),
        jnp.full((), jnp.inf, matrix.dtype),
    )
    _, x, _, _ = jax.lax.while_loop(unfinished, step, start)
    return jnp.where(empty, 0.0, x)


def root_residual(
    x: Float[Array, "n n"], matrix: Float[Array, "n n"], order: int
) -> Float[Array, "n n"]:
    """Return the entries of |X^q A - I|; they are 0 if X is the inverse q-th root of A.

    X is x, A is the argument `matrix` and q is order.

    Example:
      >>> print(root_residual(jnp.array([[0.5]]), jnp.array([[16.0]]), 4))
      [[0.]]
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    return jnp.abs(_product(_matrix_power(x, order), matrix) - identity)


def _matrix_power(x: Array, order: int) -> Array:
    """Return X^q by repeated squaring.

    jnp.linalg.matrix_power is not used, because it has no argument `precision`.
    """
    if order == 1:
        return x
    half = _matrix_power(_product(x, x), order // 2)
    return _product(half, x) if order % 2 else half


def _preconditioned(m: Array, roots: tuple[Array, ...]) -> Array:
    wide = widened(jnp.atleast_1d(m))
    for k, root in enumerate(roots):
        if root.ndim == 1:
            shape = [1] * wide.ndim
            shape[k] = -1
            wide = wide * root.reshape(shape)
        else:
            wide = _along((k,), (root,), wide)
    return wide.reshape(m.shape)


def _as_long_as(direction: Array, wanted: Array) -> Array:
    length, own = norm_of(wanted), norm_of(direction)
    ratio = jnp.where(own == 0, 0.0, length / jnp.where(own == 0, 1.0, own))
    return cast(ratio, direction) * direction


class PsgdState(NamedTuple):
    """State of `psgd_kron`, whose docstring defines the symbols.

    Attributes:
      count: Number of calls of update, int32, shape ().
      mu: Moving average M of gradients, shaped like the params.
      factors: For each leaf, a tuple with the factor Q of each axis: an upper
        triangular matrix, or the diagonal of a diagonal matrix.
    """

    count: Int[Array, ""]
    mu: Params
    factors: Any


class PsgdDraws(NamedTuple):
    """Random numbers of one step of `psgd_kron`.

    Attributes:
      uniform: Uniform number in [0, 1), shape (). The factors are updated if this
        number is below the argument `probability` of `psgd_kron`.
      noise: Standard normal numbers V, shaped like the params, in at least float32.
    """

    uniform: Float[Array, ""]
    noise: Params


def psgd_draws(key: Key, count: Integer, params: Params) -> PsgdDraws:
    """Return the random numbers of a step of `psgd_kron`: a uniform number and noise.

    The key of the step is fold_in(key, count), where fold_in is `jax.random.fold_in`.
    The uniform number is drawn with fold_in(key of the step, 0). The noise of leaf i is
    drawn with fold_in(key of the step, i). Here i counts the leaves from 1, in the
    order of jax.tree.leaves.

    Args:
      key: The argument `key` of `psgd_kron`.
      count: Number of earlier steps, an integer of at least 0.
      params: Params, or arrays of their structure, shapes and dtypes.
    Returns:
      The PsgdDraws, with the fields `uniform` and `noise`.
    Raises:
      TypeError: key is not a key, count is not an integer, or params are not arrays.
      ValueError: count is negative.
    Example:
      >>> drawn = psgd_draws(jax.random.key(0), 3, {"w": jnp.zeros((2, 3))})
      >>> print(drawn.uniform.shape, drawn.noise["w"].shape)
      () (2, 3)
    """
    check_key("key", key)
    check_number("count", count, integer=True)
    check_tree("params", params)
    key = jax.random.fold_in(key, count)
    leaves, structure = jax.tree.flatten(params)
    noise = [
        jax.random.normal(
            jax.random.fold_in(key, i), jnp.shape(x), widened(jnp.asarray(x)).dtype
        )
        for i, x in enumerate(leaves, 1)
    ]
    uniform = jax.random.uniform(jax.random.fold_in(key, 0))
    return PsgdDraws(uniform, structure.unflatten(noise))


@checked
def psgd_kron(
    learning_rate: Scalar | Schedule,
    key: Key,
    b1: Scalar = 0.9,
    factor_rate: Scalar = 0.1,
    probability: Scalar | Schedule = 1.0,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    max_size: int | None = None,
) -> optax.GradientTransformation:
    """Learn one triangular factor per axis of a leaf, to whiten the gradients.

    For a matrix X_t with the gradient G_t,
    u_t = -η_t (clip(Q_Lᵀ Q_L M_t Q_Rᵀ Q_R) + λ X_t), where λ is weight_decay and
    M_t = β1 M_(t-1) + (1 - β1) G_t. u_t is the update and η_t the learning rate. M_0 is
    0. The factors Q_L and Q_R are upper triangular matrices, which start at I.

    Each call of update first updates the factors, with the probability `probability`,
    and then computes u_t. The update of Q_L is
    Q_L <- Q_L - (μ / |A Aᵀ + B Bᵀ|) triu(A Aᵀ - B Bᵀ) Q_L, with
    A = Q_L M_t Q_Rᵀ and B = Q_L^(-T) V_t Q_R^(-1).
    Q_R is updated in the same way, with Aᵀ A and Bᵀ B in place of A Aᵀ and B Bᵀ. V_t
    has standard normal entries, Q^(-T) is the transposed inverse, triu keeps the upper
    triangle, μ is factor_rate, and |.| is a lower bound of the spectral norm. If
    Q_Lᵀ Q_L M Q_Rᵀ Q_R has the same covariance as V, the expected change of the factors
    is 0. The entries of this product are then uncorrelated and have variance 1.

    The function clip has two parts. First, the products Q_Lᵀ Q_L M_t Q_Rᵀ Q_R of all
    leaves are multiplied by the same number, so that their norm over all leaves is at
    most √N. Here N is the number of parameters in all leaves. Then each entry is
    limited to [-1, 1]. In the example below, the factors are I, √N is 2 and the norm is
    about 8. So the entries 0.5 and 8 are first divided by about 4. Then the second
    entry, now about 2, is limited to 1. The learning rate 0.5 gives the updates -0.062
    and -0.5.

    A leaf with more than two axes has a factor for each axis. A factor is a diagonal
    matrix for vectors and scalars, for axes of length 1, and for axes longer than
    max_size. The factor of a vector therefore scales each entry separately. If the new
    value of a factor is not finite, the factor does not change. A NaN in a gradient
    stays in the average M_t, so all later steps of this leaf are NaN. The steps of the
    other leaves become NaN, too, because clip multiplies all leaves by the same number.
    To skip steps with such a gradient, wrap the rule in `skip_nonfinite`.

    The rule is `kron` of psgd_jax (commit 16edaa9), with two differences. First, in one
    of a hundred steps, psgd_jax rescales the factors of a leaf to equal size, which
    only changes rounding errors. Second, psgd_jax lowers the probability from 1 to 0.03
    in the course of 4,000 steps. To do the same, pass a schedule as `probability`.
    Later versions of psgd_jax correct the bias of M_t, and clip by the root mean square
    of a leaf. optax and torch do not have PSGD.

    The state of a matrix of shape (m, n) has m n + m² + n² numbers. For a square
    matrix, this is three numbers per parameter. The factors have at least float32
    precision, whatever the dtype of the params.

    Use it in place of Shampoo or SOAP if an eigen-decomposition is too slow. A step of
    PSGD only needs matrix products and triangular solves.

    Args:
      learning_rate: Learning rate η: a number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      key: Key for all random numbers, from `jax.random.key`; may be traced.
        `psgd_draws` says how the key is used.
      b1: Decay rate β1 in [0, 1); may be traced.
      factor_rate: Rate μ of the factors, at least 0; may be traced.
      probability: Probability of an update of the factors: a number from 0 to 1, which
        may be traced, or a schedule t -> probability with t counted from 0.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
      max_size: Largest length of an axis whose factor is a triangular matrix, an
        integer of at least 0; None means 8,192. The factors of longer axes are
        diagonal. This argument cannot be traced, because it decides the shapes of
        arrays.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        key is not a key; mask does not fit the params; update got no params; in init,
        the params are complex.
    References:
      Li, Preconditioned stochastic gradient descent, IEEE Transactions on Neural
      Networks and Learning Systems 29 (2018). Pooladzandi & Li, Curvature-informed SGD
      via general purpose Lie-group preconditioners, arXiv:2402.04553 (2024). Code:
      github.com/evanatyourservice/psgd_jax.
    Example:
      >>> rule, x = (
      ...     psgd_kron(0.5, jax.random.key(0), b1=0.0, probability=0.0),
      ...     jnp.zeros((2, 2)),
      ... )
      >>> print(
      ...     rule.update(jnp.array([[0.5, 8.0], [0.0, 0.0]]), rule.init(x), x)[
      ...         0
      ...     ].round(3)
      ...     + 0.0
      ... )
      [[-0.062 -0.5  ]
       [ 0.     0.   ]]
    """
    check_key("key", key)
    check_number("b1", b1, below=1.0)
    check_number("factor_rate", factor_rate)
    if not callable(probability):
        check_number("probability", probability)
        if not isinstance(probability, Tracer) and float(probability) > 1.0:
            raise ValueError(
                "probability must lie between 0 and 1; got "
                f"probability={probability!r}."
            )
    longest = _static("psgd_kron", "max_size", max_size, 8_192)

    def init(params: Params):
        def of_leaf(x: Array):
            return tuple(
                jnp.eye(n, dtype=widened(x).dtype)
                if x.ndim > 1 and 1 < n <= longest
                else jnp.ones(n, widened(x).dtype)
                for n in x.shape or (1,)
            )

        return PsgdState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(of_leaf, params),
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        mu = moving_average(b1, state.mu, updates)
        averages, structure = jax.tree.flatten(mu)
        factors = structure.flatten_up_to(state.factors)
        drawn = psgd_draws(key, state.count, mu)
        noise = jax.tree.leaves(drawn.noise)

        def moved(factors: Any):
            return [
                _psgd_factors(
                    qs, widened(jnp.atleast_1d(m)), jnp.atleast_1d(v), factor_rate
                )
                for qs, m, v in zip(factors, averages, noise, strict=True)
            ]

        chance = rate_at(probability, state.count)
        factors = jax.lax.cond(drawn.uniform < chance, moved, lambda qs: qs, factors)
        steps = [
            _by_factors(
                qs, _by_factors(qs, widened(jnp.atleast_1d(m))), transposed=True
            )
            for qs, m in zip(factors, averages, strict=True)
        ]
        grads = jax.tree.leaves(updates)
        steps = [
            s.reshape(g.shape).astype(g.dtype)
            for s, g in zip(_trusted(steps), grads, strict=True)
        ]
        return structure.unflatten(steps), PsgdState(
            increment(state.count), mu, structure.unflatten(factors)
        )

    return complete(
        optax.chain(
            complete(optax.GradientTransformation(init, update), only_real="psgd_kron"),
            add_decayed_weights(weight_decay, mask),
            descend(learning_rate),
        )
    )


def _by_factors(
    factors: Any, x: Array, transposed: bool = False, inverse: bool = False
) -> Array:
    """Multiply each axis of x by Q, by Qᵀ (transposed) or by Q^(-T) (inverse).

    Q is the factor of the axis.
    """
    for k, q in enumerate(factors):
        if q.ndim == 1:
            shape = [1] * x.ndim
            shape[k] = -1
            x = x / q.reshape(shape) if inverse else x * q.reshape(shape)
        elif inverse:
            rows = jnp.moveaxis(x, k, 0)
            found = jax.scipy.linalg.solve_triangular(
                q, rows.reshape(len(q), -1), trans="T"
            )
            x = jnp.moveaxis(found.reshape(rows.shape), 0, k)
        else:
            x = _along((k,), (q if transposed else q.T,), x)
    return x


def _psgd_factors(
    factors: Any, m: Array, noise: Array, factor_rate: Scalar
) -> tuple[Array, ...]:
    a = _by_factors(factors, m)
    b = _by_factors(factors, noise.astype(m.dtype), inverse=True)

    def moved(k: int, q: Array):
        others = tuple(j for j in range(m.ndim) if j != k)
        if q.ndim == 1:
            of_a, of_b = (jnp.sum(jnp.square(x), others) for x in (a, b))
            step = (of_a - of_b) * q
            size = jnp.max(jnp.abs(of_a + of_b), initial=0.0)
        else:
            of_a, of_b = _outer(a, k), _outer(b, k)
            step = _product(jnp.triu(of_a - of_b), q)
            size = norm_lower_bound(of_a + of_b)
        found = q - cast(factor_rate, q) * step / jnp.maximum(size, 1e-30)
        return jnp.where(jnp.all(jnp.isfinite(found)), found, q)

    return tuple(moved(k, q) for k, q in enumerate(factors))


def norm_lower_bound(a: Float[Array, "n n"]) -> Float[Array, ""]:
    """Return a lower bound of the spectral norm of a symmetric matrix.

    A is the argument a. The bound is |A x| / |x|, where x is A times the column of A
    with the largest norm. If A is 0, the bound is 0. Usually the spectral norm is at
    most √2 times this bound, but this is not guaranteed.

    Example:
      >>> print(norm_lower_bound(jnp.diag(jnp.array([3.0, 4.0]))))
      4.0
    """
    largest = jnp.max(jnp.abs(a), initial=0.0)
    a = a / jnp.where(largest == 0, 1.0, largest)
    column = a[:, jnp.argmax(jnp.sum(jnp.square(a), 0))]
    x = _product(a, column)
    length = norm_of(x)
    return largest * norm_of(_product(a, x / jnp.where(length == 0, 1.0, length)))


def _trusted(steps: list[Array]) -> list[Array]:
    """Limit the norm of all steps to √N, and then each entry to [-1, 1].

    N is the number of entries of all steps. This is the function clip of `psgd_kron`.
    """
    if not steps:
        return steps
    limit = sum(s.size for s in steps) ** 0.5
    largest = [jnp.max(jnp.abs(s), initial=1.0) for s in steps]
    scale = functools.reduce(jnp.maximum, largest)  # Against overflow of the squares.
    norm = scale * jnp.sqrt(sum(jnp.sum(jnp.square(s / cast(scale, s))) for s in steps))
    factor = limit / jnp.maximum(norm, limit)
    return [jnp.clip(cast(factor, s) * s, -1.0, 1.0) for s in steps]


def _axes(x: Array, longest: int) -> tuple[int, ...]:
    """Return the axes of a leaf that SOAP rotates."""
    if x.ndim < 2 or not x.size:
        return ()
    return tuple(k for k, n in enumerate(x.shape) if 1 < n <= longest)


def _each_axis(make: Callable[[int, Any], Array], params: Params, longest: int) -> Any:
    def of_leaf(x: Array):
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        return tuple(make(x.shape[k], dtype) for k in _axes(x, longest))

    return jax.tree.map(of_leaf, params)


def _along(axes: Any, matrices: Any, x: Array) -> Array:
    """Multiply x along each of the axes by the transpose of the axis's matrix."""
    for k, matrix in zip(axes, matrices, strict=True):
        product = jnp.tensordot(matrix, x, ((0,), (k,)), precision="highest")
        x = jnp.moveaxis(product, 0, k)
    return x


def _outer(g: Array, axis: int) -> Array:
    """Return G Gᵀ along an axis: entry (i, j) is the dot product of slices i and j."""
    others = tuple(k for k in range(g.ndim) if k != axis)
    return jnp.tensordot(g, g, (others, others), precision="highest")


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _static(rule: str, name: str, value: Any, default: int) -> int:
    """Return a length or an exponent as an int, `default` for None; refuse a tracer."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name} cannot be traced, because it must be constant in the compiled "
            f"program of {rule}. Under optax.inject_hyperparams pass "
            f"static_args=({name!r},)."
        )
    if value is None:
        return default
    check_number(name, value, integer=True)
    check_most(2**31 - 1, **{name: value})
    return int(value)


RULES = (
    RuleEntry(
        shampoo,
        {"learning_rate": step_rate(0.1), "b1": MOMENTUM},
        aliases=("distributed_shampoo", "distributedshampoo"),
    ),
    RuleEntry(
        soap,
        {
            "learning_rate": step_rate(3e-3),
            "b1": Range(0.0, 0.999, "one_minus", 0.95),
        },
    ),
    RuleEntry(
        kl_soap,
        {
            "learning_rate": step_rate(3e-3),
            "b1": Range(0.0, 0.999, "one_minus", 0.9),
        },
        aliases=("klsoap",),
    ),
    RuleEntry(
        psgd_kron,
        "it needs a key, so it draws the same random numbers with every seed",
        aliases=("kron", "psgd"),
        needs="a key",
    ),
)
