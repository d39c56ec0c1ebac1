"""Minimise a function with any update rule, in one compiled loop."""

import functools
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from research.checks import (
    check_callable,
    check_leaves_not_deleted,
    check_number,
    check_tree,
    is_float_array,
    is_traced,
    shown,
)
from research.descent._implicit import (
    as_floats,
    as_integers,
    root_of_gradient,
    with_derivative_of,
)
from research.descent._step import checked_update, one_number
from research.tracing import OF_MINIMA, AdviceOnTracing
from research.types import Array, Outcome, Params, Scalar
from research.update_rules._checks import check_floating, check_rule
from research.update_rules._edges import leaf_norm
from research.update_rules._rule_info import rule_info
from research.update_rules._transforms import differ

# Stop after this many steps that change no parameter, even if the rule's state changes.
PATIENCE = 10
MOST_STEPS = 2**31 - 1  # The largest int32.


class Minimum(NamedTuple):
    """Result of `minimise`: last parameters, value, and why the loop stopped.

    Attributes:
      params: The last parameters, a pytree like the initial parameters.
      value: The objective at `params`, shape ().
      gradient_norm: Norm of the objective's gradient at `params`, shape (). The
        argument `norm` of `minimise` selects the norm.
      steps: Number of steps taken, int32, shape ().
      evaluations: Number of evaluations of the objective, int32, shape (). A value
        alone counts as one evaluation, and so does a value together with its gradient.
        Evaluations inside the rule are included if the rule's state has a field
        `evaluations`.
      outcome: The reason why the loop stopped, an `Outcome` as int32, shape ().
    """

    params: Params
    value: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    steps: Int[Array, ""]
    evaluations: Int[Array, ""]
    outcome: Int[Array, ""]

    def __str__(self) -> str:
        """Return a text with the outcome in words.

        If the fields are not single numbers, as under `jax.jit` or after `jax.vmap`,
        return the `repr`.
        """
        try:
            value, size = float(self.value), float(self.gradient_norm)
            steps, evaluations = int(self.steps), int(self.evaluations)
            outcome = Outcome(int(self.outcome))
        except (TypeError, ValueError):
            return repr(self)
        return (
            f"{outcome.words} (steps: {steps}, evaluations: {evaluations})\n"
            f"value: {value:.6g}\nnorm of the gradient: {size:.3g}\n"
            f"params: {self.params}"
        )


def minimise(
    objective: Callable[[Params], Array] | None,
    rule: optax.GradientTransformation,
    params: Params,
    *,
    tolerance: Scalar = 1e-8,
    max_steps: int = 1000,
    residual_fn: Callable[[Params], Params] | None = None,
    norm: float = jnp.inf,
) -> Minimum:
    """Minimise f with an update rule: take steps until |∇f(x)| <= tolerance.

    Here f is the objective, x are the params, and `norm` selects the norm of the
    gradient. At most max_steps steps are taken. The function `update` of the rule
    receives these extra arguments: value = f(x), grad = ∇f(x), value_fn = f, and
    residual_fn if it is given.

    All steps run in one compiled loop. A second call does not compile again if it has
    the same function and rule objects, the same norm, and params of the same shapes and
    dtypes. `minimise` may be vmapped over params. It may also be vmapped over a
    learning rate if the rule is made inside the vmapped function.

    The loop stops before max_steps if the value or the gradient is not finite. It also
    stops early if the rule fails or makes no progress. The condition depends on whether
    the rule's state, or the field `search` of the state, has a field `outcome` (an
    `Outcome`):

    - The rule's state or its field `search` has the field `outcome`: the loop stops if
      the outcome is a failure.
    - Only the states of inner rules have this field, as with
      `research.update_rules.by_group`: the loop stops after a step in which all inner
      rules with this field fail and no parameter changes.
    - Neither the rule nor an inner rule has this field: the loop stops if a step leaves
      all parameters and the rule's state unchanged, or if ten successive steps leave
      all parameters unchanged.

    The objective may use arrays that are not its argument, such as data. The fields
    params and value of the result have derivatives with respect to these arrays, in
    forward and reverse mode and of any order. The other fields count as constants. The
    derivatives with respect to the initial parameters and to the rule's arguments are
    0.

    The derivatives with respect to the arrays follow from the implicit function theorem
    at the minimum. The steps are not differentiated, so reverse mode does not store the
    steps. Let g be the gradient of the objective, H its Hessian, and dg the change of g
    if the arrays change and the parameters do not. The method of conjugate gradients
    solves H dx = -dg for the change dx of the minimum. The derivatives are NaN if this
    method fails, for example because H is singular, or if the estimated relative error
    of dx is above 1e-3.

    If the loop ends far from a minimum, the theorem does not hold, and the derivatives
    are wrong. Check the outcome, or use `implicit_minimum`, which also returns the
    Hessian's extreme eigenvalues.

    Some rules store the objective's value and gradient at the new params, in the fields
    `value_after` and `grad_after` of the state or of its field `search`. For such a
    rule, the loop does not evaluate the objective again. If objective is None, f is
    half the sum of squares of the residuals. In this case, a rule may instead store f
    and the gradient of f in the fields `squares_after` and `squares_grad_after`. The
    rules for least squares do so.

    Args:
      objective: Function (params) -> number, an array of shape (). None means half the
        sum of squares of the residuals from residual_fn.
      rule: Any `optax.GradientTransformation`.
      params: Initial parameters, a pytree of floating arrays.
      tolerance: Largest norm of the gradient at which the loop stops with success, at
        least 0. It may be traced.
      max_steps: Largest number of steps, an integer of at least 0.
      residual_fn: Function (params) -> pytree of residuals, for least-squares rules.
        None if the rule needs no residuals.
      norm: Norm of the gradient: jnp.inf (largest absolute entry) or 2 (Euclidean).
    Returns:
      The `Minimum`. Check its `outcome`.
    Raises:
      ValueError: tolerance, max_steps or norm is out of range, or neither objective nor
        residual_fn is given.
      TypeError: An argument has the wrong type, objective or residual_fn is not
        hashable, max_steps is traced, params have no leaves, a leaf of params is not
        floating, or the objective does not return one real floating number. Or
        objective is None, and residual_fn returns no array.
    Example:
      >>> shifted = lambda x: jnp.sum((x - 3.0) ** 2)
      >>> minimum = minimise(shifted, optax.sgd(0.5), jnp.zeros(2))
      >>> print(minimum.params, minimum.steps, Outcome(int(minimum.outcome)).words)
      [3. 3.] 1 the gradient is within the tolerance
    """
    if objective is not None:
        check_callable("objective", objective, "params")
        check_hashable("objective", objective)
    if residual_fn is not None:
        check_callable("residual_fn", residual_fn, "params")
        check_hashable("residual_fn", residual_fn)
    check_rule(rule)
    _check_params(params)
    check_number("tolerance", tolerance)
    check_max_steps(max_steps)
    if norm is not jnp.inf:
        _check_norm(norm)
    if objective is None and residual_fn is None:
        raise ValueError(
            "minimise needs objective (params -> loss) or residual_fn (params -> "
            "residuals, whose squares it sums); got neither."
        )
    # The step count is an int32.
    max_steps = min(int(max_steps), MOST_STEPS)
    with AdviceOnTracing(OF_MINIMA):
        return _minimise(
            objective,
            rule,
            residual_fn,
            float(norm),
            params,
            _on_device(tolerance),
            _on_device(max_steps),
        )


def check_hashable(name: str, function: Any) -> None:
    """Raise TypeError if a function cannot be found again among compiled programs."""
    try:
        hash(function)
    except TypeError:
        raise TypeError(
            f"{name} must be hashable, so that JAX can find its compiled program; got "
            f"{name}={shown(function)}. Give its class a __hash__, or pass a function "
            "that calls it, such as a lambda."
        ) from None


def check_max_steps(max_steps: Any) -> None:
    """Raise an error unless max_steps is a concrete integer of at least 0."""
    if is_traced(max_steps):
        raise TypeError(
            "max_steps must be a concrete integer, but it is traced. Use a Python "
            "integer, or make the argument static (static_argnames of jax.jit)."
        )
    check_number("max_steps", max_steps, integer=True)


def _on_device(number: Any) -> Any:
    """Return a Python number as an array, and any other argument unchanged.

    The array of a number is made only once. Without it, JAX would copy the number to
    the device in each call.
    """
    if type(number) is float or type(number) is int:
        return _made_once(number, jax.config.jax_enable_x64)
    return number


@functools.lru_cache(maxsize=256, typed=True)  # 1 and 1.0 have different dtypes.
def _made_once(number: float | int, x64: bool) -> Array:
    del x64  # The dtype depends on it.
    with jax.ensure_compile_time_eval():
        return jax.device_put(number)


def _check_params(params: Params) -> None:
    check_leaves_not_deleted("params", params)
    leaves = jax.tree.leaves(params)
    if leaves and all(map(is_float_array, leaves)):
        return
    check_tree("params", params)
    check_floating(params)
    if not leaves:
        raise TypeError(f"params must hold at least one array; got params={params!r}.")


def _check_norm(norm: Any) -> None:
    if (
        isinstance(norm, bool)
        or not isinstance(norm, int | float | np.number)
        or norm not in (2, jnp.inf)
    ):
        raise ValueError(f"norm must be jnp.inf or 2; got norm={norm!r}.")


class _Loop(NamedTuple):
    params: Params
    rule: optax.OptState
    value: Array
    grad: Params
    size: Array  # Norm of grad.
    steps: Array
    evaluations: Array
    outcome: Array
    still: Array


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _minimise(
    objective: Callable[[Params], Array] | None,
    rule: optax.GradientTransformation,
    residual_fn: Callable[[Params], Params] | None,
    norm: float,
    params: Params,
    tolerance: Scalar,
    max_steps: int,
) -> Minimum:
    rule = optax.with_extra_args_support(rule)
    extra: dict[str, Any] = {} if residual_fn is None else {"residual_fn": residual_fn}

    value_of = _half_squares(residual_fn) if objective is None else objective

    def value_fn(params: Params, indices: Array | None = None):
        del indices
        value = value_of(params)
        return value if objective is None else one_number(value)

    def settled(loop: _Loop) -> _Loop:
        """Return the loop with its outcome updated from the value and the gradient."""
        size = _norm(loop.grad, norm)
        outcome = jnp.where(size <= tolerance, Outcome.CONVERGED, loop.outcome)
        finite = jnp.isfinite(loop.value) & jnp.isfinite(size)
        return loop._replace(
            size=size, outcome=jnp.where(finite, outcome, Outcome.NOT_FINITE)
        )

    def step(loop: _Loop) -> _Loop:
        answer = rule.update(
            loop.grad,
            loop.rule,
            loop.params,
            value=loop.value,
            grad=loop.grad,
            value_fn=value_fn,
            **extra,
        )
        updates, state = checked_update(answer, loop.params, loop.rule)
        params = optax.apply_updates(loop.params, updates)
        evaluations = loop.evaluations + rule_info(state).evaluations
        after = _after(state, params, squares=objective is None)
        if after is None:
            after = jax.value_and_grad(value_fn)(params)
            evaluations += 1
        value, grad = jax.tree.map(
            lambda new, old: new.astype(old.dtype), after, (loop.value, loop.grad)
        )
        outcome, still = _outcome_of_step(state, loop, params)
        return settled(
            _Loop(
                params,
                state,
                value,
                grad,
                loop.size,
                loop.steps + 1,
                evaluations,
                outcome,
                still,
            )
        )

    def search(params: Params) -> tuple[Params, Any]:
        value, grad = jax.value_and_grad(value_fn)(params)
        count = jnp.zeros((), jnp.int32)
        # The outcome if nothing else ends the loop.
        going_on = jnp.asarray(Outcome.STEPS_USED_UP, jnp.int32)
        begin = _Loop(
            params,
            rule.init(params),
            value,
            grad,
            _norm(grad, norm),
            count,
            count + 1,
            going_on,
            count,
        )
        end = jax.lax.while_loop(
            lambda loop: (
                (loop.outcome == Outcome.STEPS_USED_UP) & (loop.steps < max_steps)
            ),
            step,
            settled(begin),
        )
        counts = (end.steps, end.evaluations, end.outcome)
        return end.params, (end.value, end.size, as_floats(counts))

    found, (value, size, counts) = root_of_gradient(value_fn, params, search)
    return Minimum(
        found, with_derivative_of(value, value_fn, found), size, *as_integers(counts)
    )


def _after(
    state: optax.OptState, params: Params, squares: bool
) -> tuple[Array, Params] | None:
    """Return the value and gradient after the step, if the rule's state keeps them.

    Otherwise return None. If `squares` is true, the value and gradient of half the sum
    of squares also count. Only the state of the outermost rule is read: if this rule
    wraps another one, the value and gradient in the state of the inner rule may belong
    to other params. A gradient with other dtypes than the params is not used either,
    because the rule then keeps the params in its own dtype.
    """
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(params)]
    state = getattr(state, "search", state)
    names = [("value_after", "grad_after"), ("squares_after", "squares_grad_after")]
    for value, grad in names[: 1 + squares]:
        kept = getattr(state, grad, None)
        if kept is not None and dtypes == [
            leaf.dtype for leaf in jax.tree.leaves(kept)
        ]:
            return getattr(state, value), kept
    return None


def _outcome_of_step(
    state: optax.OptState, before: _Loop, after: Params
) -> tuple[Array, Array]:
    """Return the outcome of a step, and the number of steps that changed no parameter.

    If rules keep an outcome, the loop ends once all of them have failed. For other
    rules, the loop ends when nothing changes any more.
    """
    outcomes = rule_info(state).outcomes
    moved = differ(before.params, after)
    if outcomes:
        failed = functools.reduce(
            operator.and_, [outcome >= Outcome.FIRST_FAILURE for outcome in outcomes]
        )
        is_own = any(
            hasattr(part, "outcome") for part in (state, getattr(state, "search", None))
        )
        # One group's rule may have failed while the rules of other groups continue.
        failed = failed if is_own else failed & ~moved
        return jnp.where(failed, outcomes[0], Outcome.STEPS_USED_UP).astype(
            jnp.int32
        ), before.still
    # A zero step is not the end if the rule's state changes: the rate may be rising
    # from 0, or the rule may only have evaluated the objective.
    still = jnp.where(
        moved, 0, jnp.where(differ(before.rule, state), before.still + 1, PATIENCE)
    )
    return jnp.where(
        still < PATIENCE, Outcome.STEPS_USED_UP, Outcome.NO_PROGRESS
    ).astype(jnp.int32), still


def _norm(tree: Params, norm: float) -> Array:
    leaves = jax.tree.leaves(tree)
    # One dtype, because a weakly typed leaf is not weakly typed after a step.
    dtype = jnp.result_type(*(leaf.dtype for leaf in leaves))
    leaves = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves], dtype=dtype)
    return (
        jnp.max(jnp.abs(leaves), initial=0.0) if norm == jnp.inf else leaf_norm(leaves)
    )


def _half_squares(residual_fn: Any) -> Callable[[Params], Array]:
    def value_of(params: Params) -> Array:
        residuals = residual_fn(params)
        squares = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(residuals)]
        if not squares:
            raise TypeError(
                "residual_fn must return at least one array of residuals; it returns "
                f"{shown(residuals)}."
            )
        return 0.5 * jnp.sum(jnp.stack(squares))

    return value_of
