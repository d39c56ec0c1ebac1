"""Stochastic rules whose gradient noise vanishes at the minimum: SVRG and SAGA.

Both rules correct each gradient by a stored gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Int

from research.checks import check_number
from research.schedules import Schedule
from research.sizes import check_most, check_room
from research.types import Array, Integer, Params, Scalar
from research.update_rules._checks import checked
from research.update_rules._edges import complete
from research.update_rules._entry import RuleEntry
from research.update_rules._transforms import descend, increment, reached


class SvrgState(NamedTuple):
    """State of `svrg`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps since the last snapshot, int32, shape (). The step that
        takes the snapshot is counted. After `period` steps, count is set back to 0.
        If count is 0, the next step takes a snapshot.
      snapshot: Params w̃ at the last snapshot, shaped like the params; 0 before the
        first step.
      full_gradient: Gradient ∇f(w̃) of the objective f over all examples, at the
        snapshot, shaped like the params.
    """

    count: Int[Array, ""]
    snapshot: Params
    full_gradient: Params


@checked
def svrg(
    learning_rate: Scalar | Schedule, period: Integer
) -> optax.GradientTransformationExtraArgs:
    """Correct each gradient by the gradient at a snapshot of the params.

    u_t = -η_t (∇f_B(x_t) - ∇f_B(w̃) + ∇f(w̃)).

    u_t is the update, x_t are the params, η_t is the learning rate and w̃ is a snapshot
    of the params. f_B is the objective on the mini-batch B (in the paper, on a single
    example i), and f is the objective over all n examples. Every m = period steps, at
    t = 1, m + 1, 2 m + 1, ..., the current params x_t become the snapshot w̃. A period
    of m steps costs n + 2 m b gradients of examples at batch size b.

    This choice of w̃ is the paper's option I. The paper's theorem is about option II,
    where w̃ is a random iterate of the last period. optax and torch do not have this
    rule.

    Use it to minimise a smooth and strongly convex finite sum to many digits. The noise
    of plain stochastic descent would prevent this accuracy. On deep networks, SVRG
    hardly helps (Defazio & Bottou).

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      period: Period m, a positive integer. For mini-batches of a single example, the
        paper suggests m = 2 n for convex and m = 5 n for nonconvex problems. With
        m = 1, the rule is full-batch gradient descent.
    Returns:
      The rule; its update needs params, value_fn and indices. value_fn is the objective
      as a function (params, indices=None), and indices are the examples of the
      mini-batch. indices=None means all examples.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number; update
        received no params or value_fn; the rule is used for a group of the params
        (`by_group`); in init, the params are complex.
    References:
      Johnson & Zhang, Accelerating stochastic gradient descent using predictive
      variance reduction, NeurIPS 2013, figure 1, theorem 1. Defazio & Bottou, On the
      ineffectiveness of variance reduced optimization for deep learning, NeurIPS 2019.
    Example:
      >>> targets = jnp.array([1.0, 3.0])
      >>> def value_fn(x, indices=None):
      ...     return (
      ...         jnp.mean(
      ...             (x - (targets if indices is None else targets[indices])) ** 2
      ...         )
      ...         / 2
      ...     )
      >>> rule, x, drawn = svrg(0.5, period=2), jnp.array(4.0), jnp.array([0])
      >>> # The gradient on example 0 is 3, and the gradient on both examples is 2.
      >>> gradient = jax.grad(value_fn)(x, drawn)
      >>> print(
      ...     rule.update(gradient, rule.init(x), x, value_fn=value_fn, indices=drawn)[
      ...         0
      ...     ]
      ... )
      -1.0
    """
    check_number("period", period, positive=True, integer=True)
    return optax.chain(_correct_by_snapshot(period), descend(learning_rate))


def _correct_by_snapshot(period: Integer) -> optax.GradientTransformationExtraArgs:
    def init(params: Params):
        # Zeros, until the first step takes a snapshot.
        return SvrgState(
            jnp.zeros((), jnp.int32),
            *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)),
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        indices: Any = None,
        **extra: Any,
    ):
        del extra
        params, value_fn = _needed("svrg", params, value_fn)
        if getattr(value_fn, "is_of_a_part", False):
            raise ValueError(
                "svrg cannot be used for a group of the params: it keeps a gradient "
                "at a snapshot, and that gradient is out of date once the other "
                "params change. Use svrg for all params, or saga in the group."
            )
        slope = jax.grad(value_fn)
        snapshot, full = jax.lax.cond(
            state.count == 0,
            lambda: (params, slope(params, indices=None)),
            lambda: (state.snapshot, state.full_gradient),
        )
        there = slope(snapshot, indices=indices)
        direction = jax.tree.map(
            lambda g, s, f: g - (s - f).astype(g.dtype), updates, there, full
        )
        count = increment(state.count)
        return direction, SvrgState(
            jnp.where(reached(count, period), 0, count), snapshot, full
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="svrg", needs_value_fn=True)


class SagaState(NamedTuple):
    """State of `saga`, whose docstring describes the table.

    Attributes:
      count: Number of steps taken, int32, shape (). The first step fills the table.
      table: Last gradient of each example, shaped like the params with a leading axis
        whose length is the number of examples.
      mean: Mean of the table over the examples, shaped like the params.
    """

    count: Int[Array, ""]
    table: Params
    mean: Params


@checked
def saga(
    learning_rate: Scalar | Schedule, num_examples: int
) -> optax.GradientTransformationExtraArgs:
    """Correct each gradient by a table of the examples' last gradients.

    u_t = -η_t (1/b Σ_(j in B) (∇f_j(x_t) - T_j) + 1/n Σ_i T_i), then T_j <- ∇f_j(x_t)
    for all j in B.

    u_t is the update, x_t are the params, η_t is the learning rate, f_j is the
    objective on example j, and B is the mini-batch of b examples (in the paper b = 1).
    T is the table: T_i is the gradient of example i in the last step whose batch
    contained example i. The first step fills the table with ∇f_i(x_1), which costs n
    gradients of examples. If an example is drawn twice in a batch, it counts twice in
    the first sum and once in the table.

    A step costs 2 b gradients of examples. The caller computes b gradients, and passes
    their mean to the rule's `update`. `update` computes the other b gradients, one for
    each example. They are the new entries of the table. The mean of the table is
    updated by the changes of the table, so the mean is exact up to rounding errors.
    scikit-learn's solver "saga" starts from an empty table instead, and divides by the
    number of examples seen so far. optax and torch do not have this rule.

    Use it instead of SVRG if n copies of the params fit in memory. SVRG computes the
    gradient over all examples once in each period. SAGA has no period, and needs no
    gradients over all examples after the first step.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η). The paper's rate is 1 / (3 L) for
        curvatures of at most L.
      num_examples: Number of examples n, a positive integer. The table needs the
        memory of n copies of the params.
    Returns:
      The rule; its update needs params, value_fn and indices. value_fn is the objective
      as a function (params, indices=None), and indices are the examples of the
      mini-batch. indices=None means all n examples. A traced index below 0, or of n
      or more, gives NaN.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number; the
        table does not fit in memory; update received no params or no value_fn; an index
        that is not traced is below 0, or is n or more; the dataset given to
        `research.descent.build` does not have n examples; in init, the params are
        complex.
    References:
      Defazio, Bach & Lacoste-Julien, SAGA: a fast incremental gradient method with
      support for non-strongly convex composite objectives, NeurIPS 2014, section 2,
      equation (1) (without its proximal step).
    Example:
      >>> targets = jnp.array([1.0, 3.0])
      >>> def value_fn(x, indices=None):
      ...     return (
      ...         jnp.mean(
      ...             (x - (targets if indices is None else targets[indices])) ** 2
      ...         )
      ...         / 2
      ...     )
      >>> rule, x, drawn = saga(0.5, num_examples=2), jnp.array(4.0), jnp.array([0])
      >>> gradient = jax.grad(value_fn)(x, drawn)
      >>> updates, state = rule.update(
      ...     gradient, rule.init(x), x, value_fn=value_fn, indices=drawn
      ... )
      >>> print(updates, state[0].table)
      -1.0 [3. 1.]
    """
    check_number("num_examples", num_examples, positive=True, integer=True)
    check_most(num_examples=num_examples)
    return optax.chain(_correct_by_table(num_examples), descend(learning_rate))


def _correct_by_table(n: int) -> optax.GradientTransformationExtraArgs:
    def init(params: Params):
        entries = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
        check_room(
            f"num_examples={n} gradients of {entries} entries", n, entries, itemsize=4
        )
        table = jax.tree.map(
            lambda x: jnp.zeros((n, *jnp.shape(x)), jnp.result_type(x)), params
        )
        return SagaState(
            jnp.zeros((), jnp.int32), table, jax.tree.map(jnp.zeros_like, params)
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        indices: Any = None,
        **extra: Any,
    ):
        del extra
        params, value_fn = _needed("saga", params, value_fn)
        _check_examples(n, value_fn, indices)
        drawn = jnp.arange(n) if indices is None else jnp.asarray(indices)

        def gradients_of(examples: Array):
            return jax.vmap(
                lambda i: jax.grad(value_fn)(params, indices=jnp.reshape(i, (1,)))
            )(examples)

        def fill():
            table = gradients_of(jnp.arange(n))
            return table, jax.tree.map(
                lambda t: jnp.mean(t, axis=0, dtype=t.dtype), table
            )

        table, mean = jax.lax.cond(
            state.count == 0, fill, lambda: (state.table, state.mean)
        )
        # By default, an index past the end would select the last row, and an index
        # below 0 would count from the end.
        row = jnp.where(drawn < 0, n, drawn)
        old = jax.tree.map(
            lambda t: t.at[row].get(mode="fill", fill_value=jnp.nan), table
        )
        direction = jax.tree.map(
            lambda g, o, m: (
                g - (jnp.mean(o, axis=0, dtype=o.dtype) - m).astype(g.dtype)
            ),
            updates,
            old,
            mean,
        )
        new = gradients_of(drawn)
        once = 1.0 / jnp.sum(
            drawn[:, None] == drawn[None, :], axis=1
        )  # Weight 1 / k for an example drawn k times.

        def follow(m: Array, a: Array, o: Array):
            return m + jnp.tensordot(
                (once / n).astype(m.dtype), a - o, 1, precision="highest"
            )

        mean = jax.tree.map(follow, mean, new, old)
        table = jax.tree.map(lambda t, a: t.at[row].set(a), table, new)
        return direction, SagaState(increment(state.count), table, mean)

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="saga", needs_value_fn=True)


def _check_examples(n: int, value_fn: Callable[..., Array], indices: Any) -> None:
    """Raise an error if the table does not match the dataset.

    The table must have n rows, one for each example of the dataset, and all indices
    must be in [0, n). Traced indices are not checked.
    """
    there = getattr(value_fn, "num_examples", None)
    if there is not None and there != n:
        raise ValueError(
            f"saga(num_examples={n}) keeps {n} gradients, but the dataset has {there} "
            f"examples. Pass num_examples={there}."
        )
    if indices is None or isinstance(indices, Tracer) or not np.size(indices):
        return
    for index in (np.max(indices), np.min(indices)):
        if not 0 <= index < n:
            raise ValueError(
                f"saga(num_examples={n}) keeps no gradient of example {index}. Indices "
                "must be at least 0 and below num_examples, and num_examples must be "
                "the number of examples in the dataset."
            )


def _needed(
    name: str, params: Params, value_fn: Callable[..., Array] | None
) -> tuple[Params, Callable[..., Array]]:
    if params is None or value_fn is None:
        raise ValueError(
            f"{name} needs params and value_fn to compute gradients at other points "
            "and examples; call update(grads, state, params, value_fn=f, "
            "indices=drawn) with f(params, indices=None), as research.descent.build "
            "does."
        )
    return params, value_fn


RULES = (
    RuleEntry(
        svrg,
        "it needs the number of steps between two full gradients, and its steps "
        "differ in cost",
        needs="the number of steps between two full gradients",
    ),
    RuleEntry(
        saga,
        "it needs the number of examples, and keeps a gradient of each in memory",
        needs="the number of examples",
    ),
)
