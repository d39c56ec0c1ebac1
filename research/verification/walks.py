"""Trajectories of rules on problems, in JAX or in fifty digits, and deviations."""

import functools
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
from jaxtyping import Float

from research.checks import (
    check_callable,
    check_count,
    check_dtype,
    check_instance,
    check_leaves_not_deleted,
    check_number,
    check_tree,
)
from research.descent._step import check_updates
from research.sizes import check_most
from research.types import Array, Batch, Params
from research.update_rules import find_rule
from research.update_rules._checks import check_rule
from research.update_rules._transforms import evaluation_params
from research.verification.cards import CARDS
from research.verification.formula import Function
from research.verification.leaves import DIGITS, Leaves
from research.verification.problems import NUM_STEPS, Problem

MOST_STEPS = 100_000  # In fifty digits, more would take hours.


class Walk(NamedTuple):
    """Trajectory of a rule on a problem.

    Attributes:
      iterates: Iterates x_1, ..., x_T, float64, shape (T, number of entries), with the
        entries of all leaves in order.
      updates: Updates x_t - x_(t-1), same shape as `iterates`. A JAX rule returns them.
        For a formula, they are differences that are computed with fifty digits and then
        rounded to float64. For a rule of PyTorch, and for a recorded trajectory, they
        are differences of the stored iterates.
      leaves: Path of each entry's leaf, as `jax.tree_util.keystr` writes it.
      evaluations: Params that the rule reports as its result after each step, such as
        an average. They have the shape of `iterates`. None if the rule reports the
        iterates.
      subtracted: Whether `updates` have rounding errors for which the function
        `distance` must allow when it compares two trajectories. True for a rule of
        PyTorch, and False for all other trajectories, including recorded ones.
    """

    iterates: Float[np.ndarray, "steps entries"]
    updates: Float[np.ndarray, "steps entries"]
    leaves: list[str]
    evaluations: Float[np.ndarray, "steps entries"] | None = None
    subtracted: bool = False


def walk(
    rule: optax.GradientTransformation,
    problem: Problem,
    dtype: Any = "float64",
    num_steps: int = NUM_STEPS,
) -> Walk:
    """Run a JAX rule on a problem in one compiled scan, and return its trajectory.

    As in a training step of `research.descent`, the rule receives the extra arguments
    value, grad, value_fn and indices. Here indices is None.

    Args:
      rule: Any gradient transformation.
      problem: A Problem, for example one of PROBLEMS.
      dtype: Dtype of params and gradients.
      num_steps: Number T of steps. If the problem is a sequence of gradients, T is at
        most 50, the number of these gradients (the constant NUM_STEPS).
    Returns:
      The trajectory, a Walk.
    Raises:
      TypeError: The rule changes the structure, shape or dtype of the updates or state,
        rule is not a gradient transformation, problem is not a Problem, or dtype is not
        a floating dtype.
      ValueError: `num_steps` is not a positive integer, or is too large: above 100,000,
        or above 50 if the problem is a sequence of gradients.
    Example:
      >>> from research.verification.problems import PROBLEMS
      >>> found = walk(optax.sgd(0.1), PROBLEMS["quadratic"], "float32", num_steps=2)
      >>> print(found.iterates.shape, found.updates[0].round(6))
      (2, 3) [-0.1    0.15   0.075]
    """
    check_rule(rule)
    _check_walk(problem, num_steps)
    check_dtype("dtype", dtype)
    return _walk(_always(rule), {}, problem, dtype, num_steps)


def walk_constructed(
    constructor: Callable[..., optax.GradientTransformation],
    arguments: dict[str, Any],
    problem: Problem,
    dtype: Any = "float64",
    num_steps: int = NUM_STEPS,
) -> Walk:
    """Return the trajectory of the rule constructor(**arguments).

    In the compiled program, float arguments are tracers. A later call with other values
    of these arguments therefore does not compile again.

    Args:
      constructor: Constructor of a gradient transformation, which accepts tracers as
        hyper-parameters.
      arguments: All arguments by name, including learning_rate. Arguments that are not
        floats must be hashable. They are constants of the compiled program.
      problem: One of PROBLEMS, or another problem.
      dtype: Dtype of params and gradients.
      num_steps: Number of steps.
    Returns:
      The Walk.
    Raises:
      TypeError: The rule changes the structure, shape or dtype of the updates or state,
        or an argument that is not a float is not hashable.
    """
    floats = {
        key: value for key, value in arguments.items() if isinstance(value, float)
    }
    others = tuple(
        (key, value) for key, value in arguments.items() if key not in floats
    )
    return _walk(_with(constructor, others), floats, problem, dtype, num_steps)


@functools.lru_cache(maxsize=32)
def _always(
    rule: optax.GradientTransformation,
) -> Callable[..., optax.GradientTransformation]:
    return lambda: rule


@functools.cache
def _with(
    constructor: Callable[..., Any], others: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
    return partial(
        constructor, **dict(others)
    )  # The cache returns one object for equal arguments, which is jit's static key.


def _walk(
    make: Callable[..., Any],
    floats: dict[str, float],
    problem: Problem,
    dtype: Any,
    num_steps: int,
) -> Walk:
    start = jax.tree.map(lambda a: jnp.asarray(a, dtype), problem.start)
    if problem.objective is None:
        gradients = jax.tree.map(
            lambda a: jnp.asarray(a[:num_steps], dtype), problem.gradients
        )
        iterates, updates, evaluations = _walk_given(make, floats, start, gradients)
    else:
        iterates, updates, evaluations = _walk_down(
            make, problem.objective, num_steps, floats, start
        )
    elsewhere = None if evaluations is None else _rows(evaluations)
    return Walk(_rows(iterates), _rows(updates), paths(problem.start), elsewhere)


@partial(jax.jit, static_argnums=0)
def _walk_given(
    make: Callable[..., Any], floats: dict[str, Any], start: Params, gradients: Params
):
    rule = optax.with_extra_args_support(make(**floats))

    def step(carry: tuple[Params, Any], gradient: Params):
        x, state = carry

        def value_fn(
            params: Params, indices: Any = None
        ):  # A linear function whose gradient is the given one.
            del indices
            return sum(
                jnp.vdot(g, p)
                for g, p in zip(
                    jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True
                )
            )

        return _advance(rule, x, state, gradient, value_fn(x), value_fn)

    return jax.lax.scan(step, (start, rule.init(start)), gradients)[1]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _walk_down(
    make: Callable[..., Any],
    objective: Callable[[Params], jax.Array],
    num_steps: int,
    floats: dict[str, Any],
    start: Params,
):
    rule = optax.with_extra_args_support(make(**floats))

    def value_fn(params: Params, indices: Any = None):
        del indices
        return objective(params)

    def step(carry: tuple[Params, Any], _: None):
        x, state = carry
        value, gradient = jax.value_and_grad(value_fn)(x)
        return _advance(rule, x, state, gradient, value, value_fn)

    return jax.lax.scan(step, (start, rule.init(start)), length=num_steps)[1]


def _advance(
    rule: optax.GradientTransformationExtraArgs,
    x: Params,
    state: Any,
    gradient: Params,
    value: Any = None,
    value_fn: Callable[..., Any] | None = None,
) -> tuple[tuple[Params, Any], tuple[Params, Params, Params | None]]:
    """Take one step, with the extra arguments of descent if there is a value_fn."""
    extra: dict[str, Any] = {}
    if value_fn is not None:
        extra = {"value": value, "grad": gradient, "value_fn": value_fn}
        extra["indices"] = None
    updates, state = rule.update(gradient, state, x, **extra)
    check_updates(updates, x, dtypes=True)
    after = optax.apply_updates(x, updates)
    evaluation = evaluation_params(state, after)
    return (after, state), (after, updates, None if evaluation is after else evaluation)


def walk_exactly(
    formula: Callable[..., Iterator[Leaves]],
    problem: Problem,
    num_steps: int = NUM_STEPS,
    **arguments: Any,
) -> Walk:
    """Run a formula on a problem, in arithmetic of fifty digits.

    Args:
      formula: Generator function that yields the iterates of a rule. The field
        `iterates` of a `Formula` is such a function.
      problem: Problem that has a sequence of gradients (the field `gradients`), or the
        objective in arithmetic of fifty digits (the field `exact`).
      num_steps: Number T of steps. If the problem is a sequence of gradients, T is at
        most 50, the number of these gradients (the constant NUM_STEPS).
      **arguments: Arguments of the formula. Floats are converted exactly.
    Returns:
      The trajectory, a Walk, rounded to float64 at the end.
    Raises:
      TypeError: `formula` is not a function, `problem` is not a Problem, or the formula
        does not take these arguments.
      ValueError: The problem has neither `gradients` nor `exact`, or `num_steps` is not
        a positive integer or is too large, as for `walk`.
      ZeroDivisionError: The formula divides by zero.
    Example:
      >>> from research.verification.cards import FORMULAS
      >>> from research.verification.problems import PROBLEMS
      >>> descent, quadratic = (
      ...     FORMULAS["gradient_descent"].iterates,
      ...     PROBLEMS["quadratic"],
      ... )
      >>> print(
      ...     walk_exactly(descent, quadratic, num_steps=1, learning_rate=0.125).updates
      ... )
      [[-0.125    0.1875   0.09375]]
    """
    check_callable("formula", formula)
    _check_walk(problem, num_steps)
    with mpmath.workdps(DIGITS), np.errstate(invalid="ignore"):
        x = Leaves(jax.tree.leaves(problem.start))
        given = inspect.signature(formula).bind(x, _function(problem), **arguments)
        given.apply_defaults()
        exact = {
            key: mpmath.mpf(a) if type(a) is float else a
            for key, a in given.arguments.items()
        }
        steps = formula(**exact)
        iterates, updates, evaluations = [], [], []
        for _ in range(num_steps):
            before, x = x, next(steps)
            iterates.append(_row(x))
            updates.append(_row(x - before))
            elsewhere = getattr(x, "evaluation", None)
            if elsewhere is not None:
                evaluations.append(_row(elsewhere))
    points = np.array(evaluations) if evaluations else None
    return Walk(np.array(iterates), np.array(updates), paths(problem.start), points)


def _check_walk(problem: Problem, num_steps: int) -> None:
    check_instance(
        "problem", problem, Problem, "Take one of research.verification.PROBLEMS."
    )
    check_leaves_not_deleted("problem.start", problem.start)
    check_leaves_not_deleted("problem.gradients", problem.gradients)
    check_count("num_steps", num_steps)
    check_most(MOST_STEPS, num_steps=num_steps)
    if problem.gradients is not None and num_steps > NUM_STEPS:
        raise ValueError(
            f"num_steps must be at most {NUM_STEPS}, the number of gradients of "
            f"{problem.name}; got {num_steps}."
        )


def _function(problem: Problem) -> Function:
    if problem.exact is not None:
        return problem.exact()
    if problem.gradients is None:
        raise ValueError(
            f"the problem {problem.name!r} has neither gradients nor exact. Give it "
            "one of these two fields."
        )
    rows = iter(range(NUM_STEPS))
    leaves = jax.tree.leaves(problem.gradients)

    def gradient(x: Leaves):
        del x
        t = next(rows)
        return Leaves(leaf[t] for leaf in leaves)

    return Function(gradient)


def _row(x: Leaves) -> np.ndarray:
    return np.array([float(entry) for a in x.arrays for entry in a.flat])


def _rows(tree: Params) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def paths(tree: Params) -> list[str]:
    """Return one path for each number in the leaves of a pytree.

    The path is that of the leaf that contains the number. So a leaf with n entries
    gives n equal paths. The paths are in the order of the numbers in the flattened
    pytree.
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return [
        jax.tree_util.keystr(path) for path, leaf in pairs for _ in range(np.size(leaf))
    ]


def _apart(
    a: np.ndarray, b: np.ndarray, scale: np.ndarray, may_be_nan: bool
) -> np.ndarray:
    with np.errstate(all="ignore"):
        apart = np.where(a == b, 0.0, np.abs(a - b) / scale)
    apart[np.isnan(a) & np.isnan(b)] = 0.0 if may_be_nan else np.inf
    apart[np.isnan(apart)] = np.inf
    return apart


class Deviation(NamedTuple):
    """Largest difference between two trajectories from one start.

    Attributes:
      largest: The largest difference, as `distance` or `deviation` defines it.
      step: The step, counted from 0, that leads to the params with the largest
        difference. If there are several, the first of them.
      leaf: Path of the leaf with the largest difference. "" if the params are one
        array.
      first: The first step, counted from 0, that leads to params with a difference
        above a tolerance. In `distance`, the tolerance is an argument. In `deviation`,
        the tolerance is 0. If there is no such step, `first` is -1.
    """

    largest: float
    step: int
    leaf: str
    first: int


def distance(
    found: Walk, reference: Walk, problem: Problem, tolerance: float = 0.0
) -> Deviation:
    """Return the largest difference between two trajectories.

    If the problem is a function, each trajectory follows its own gradients. The
    difference is then the maximum of |x - y| / (1 + |y|) over the iterates x of `found`
    and y of `reference`.

    If the problem is a sequence of gradients, the updates u of `found` and v of
    `reference` are compared entry by entry. The difference is the maximum of |u - v| /
    max_t |v_t|, where max_t is the maximum over the steps for this entry. Entries with
    small updates therefore count as much as entries with large ones. If max_t |v_t| is
    0, the difference is 0 where u = 0, and inf elsewhere. If one of the two is from a
    rule of PyTorch (`Walk.subtracted`), its updates are differences of stored iterates,
    and have the rounding errors of the iterates. |u - v| is then divided by the larger
    of max_t |v_t| and |y|, where y is the iterate of `reference` at this step.

    If a gradient of the sequence is NaN, the iterates are compared instead of the
    updates, again by |x - y| / (1 + |y|). The reason is that some updates are computed
    as differences of iterates. Once an iterate is NaN, all later differences are NaN,
    even if the rule itself returns finite updates.

    If only one of two compared values is finite, the difference is inf. If both values
    are NaN, the difference is 0 if a gradient of the problem is NaN (`Problem.nan`),
    and inf otherwise. If both rules report other params than their iterates
    (`Walk.evaluations`), these params are compared, too, by |x - y| / (1 + |y|).

    Args:
      found, reference: The two trajectories.
      problem: Problem on which both rules were run.
      tolerance: The field `first` of the result is the first step with a difference
        above this number.
    Returns:
      The Deviation.
    Raises:
      ValueError: The two trajectories have different numbers of steps or of entries.
    Example:
      >>> from research.verification.problems import PROBLEMS
      >>> fast, slow = (
      ...     walk(optax.sgd(rate), PROBLEMS["quadratic"], "float32")
      ...     for rate in (0.25, 0.125)
      ... )
      >>> found = distance(fast, slow, PROBLEMS["quadratic"], tolerance=1e-3)
      >>> print(
      ...     f"{found.largest:.2f} at most, and they differ from step {found.first} on"
      ... )
      0.12 at most, and they differ from step 0 on
    """
    _check_shapes(found, reference, problem)
    if problem.gradients is None or problem.nan:
        apart = _apart(
            found.iterates,
            reference.iterates,
            1.0 + np.abs(reference.iterates),
            problem.nan,
        )
    else:
        sizes = np.where(np.isfinite(reference.updates), np.abs(reference.updates), 0.0)
        sizes = np.max(sizes, axis=0, keepdims=True)
        if found.subtracted or reference.subtracted:
            sizes = np.fmax(sizes, np.abs(reference.iterates))
        apart = _apart(found.updates, reference.updates, sizes, problem.nan)
    if found.evaluations is not None and reference.evaluations is not None:
        b = reference.evaluations
        apart = np.maximum(
            apart, _apart(found.evaluations, b, 1.0 + np.abs(b), problem.nan)
        )
    step, entry = np.unravel_index(np.argmax(apart), apart.shape)
    over = np.max(apart, axis=1) > tolerance
    return Deviation(
        float(apart[step, entry]),
        int(step),
        reference.leaves[entry],
        int(np.argmax(over)) if over.any() else -1,
    )


def _check_shapes(found: Walk, reference: Walk, problem: Problem) -> None:
    for field in ("iterates", "updates", "evaluations"):
        pair = getattr(found, field), getattr(reference, field)
        shapes = [None if a is None else np.shape(a) for a in pair]
        # If only one reports params for evaluation, they are not compared.
        if None not in shapes and shapes[0] != shapes[1]:
            raise ValueError(
                f"on {problem.name}, the {field} of the reference have the shape "
                f"{shapes[1]}, but those of the rule have the shape {shapes[0]}; the "
                "shape is (number of steps, number of entries). Compare trajectories "
                "of the same number of steps on the same problem."
            )


def trajectory(
    rule: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    num_steps: int,
) -> Params:
    """Run a rule from a point, and return all iterates x_0, x_1, ..., x_T.

    In each step, x_(t+1) = x_t + u_t, where u_t is the update that the rule returns for
    the gradient at x_t. One `jax.lax.scan` computes all steps.

    Args:
      rule: Any gradient transformation.
      gradient: Function (params) -> gradient, such as jax.grad(f).
      params: Initial point x_0.
      num_steps: Number T of steps, a positive integer.
    Returns:
      The params, with a leading axis of length num_steps + 1 on every leaf.
    Raises:
      ValueError: num_steps is not positive.
      TypeError: num_steps is not an integer, the gradient has another dtype than the
        params, or rule is not a gradient transformation.
    Example:
      >>> print(
      ...     trajectory(
      ...         optax.sgd(0.5), jax.grad(lambda x: x**2 / 2), jnp.array(8.0), 3
      ...     )
      ... )
      [8. 4. 2. 1.]
    """
    check_rule(rule)
    check_callable("gradient", gradient, "params")
    check_tree("params", params)
    check_number("num_steps", num_steps, positive=True, integer=True)
    params = _cast(params, None)
    _check_dtypes("gradient", jax.eval_shape(gradient, params), params)

    rule = optax.with_extra_args_support(rule)

    def step(carry: tuple[Params, Any], _: None):
        x, state = carry
        carry, (after, _, _) = _advance(rule, x, state, gradient(x))
        return carry, after

    _, iterates = jax.lax.scan(step, (params, rule.init(params)), length=num_steps)
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([jnp.expand_dims(first, 0), rest]),
        params,
        iterates,
    )


def deviation(
    rule: optax.GradientTransformation,
    reference: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    num_steps: int,
    dtype: Any = None,
) -> Deviation:
    """Return the largest difference between the iterates of two rules from one start.

    Each rule gets the gradients at its own iterates. The difference is the maximum of
    |x - y| / (1 + |y|) over the iterates x of `rule` and y of `reference`. Both rules
    run in one compiled scan that returns only a number for each step and leaf. The
    trajectories are therefore not stored. The Deviation counts steps from 0. In the
    example, step 1 is therefore the second step.

    Args:
      rule, reference: The two gradient transformations.
      gradient: Function (params) -> gradient.
      params: Common initial point.
      num_steps: Number of steps, a positive integer.
      dtype: Dtype to which the params are cast first; None leaves them unchanged. The
        gradient must also be computed in this dtype.
    Returns:
      The Deviation.
    Raises:
      TypeError: num_steps is not an integer, or the gradient or an update has another
        dtype than the params, so the comparison would mix two dtypes.
      ValueError: num_steps is not positive, or dtype is float64 while JAX's float64 is
        off.
    Example:
      >>> gradient = jax.grad(lambda x: jnp.sum(x["w"] ** 2) / 2)
      >>> found = deviation(
      ...     optax.sgd(0.5), optax.sgd(0.25), gradient, {"w": jnp.ones(3)}, num_steps=2
      ... )
      >>> print(f"{found.largest:.3f} after step {found.step} in {found.leaf}")
      0.200 after step 1 in ['w']
    """
    check_rule(rule)
    check_rule(reference, "reference")
    check_callable("gradient", gradient, "params")
    check_tree("params", params)
    check_number("num_steps", num_steps, positive=True, integer=True)
    params = _cast(params, dtype)
    differences = jax.jit(
        lambda start: _differences(rule, reference, gradient, start, num_steps)
    )(params)
    return _largest(differences, params)


def deviation_from_optax(
    name: str,
    objective: Callable[[Params, Any], Array],
    params: Params,
    batch: Any,
    learning_rate: float,
    num_steps: int,
    dtype: Any = jnp.float64,
) -> Deviation:
    """Return the deviation of a rule of this library from the same rule in optax.

    The deviation is the largest difference between the iterates of the two rules, as
    the function `deviation` defines it. Apart from the learning rate, both rules have
    their default arguments. In each step, both rules get the gradient on the whole
    batch.

    Args:
      name: Name of a rule of this library that optax also has.
      objective: Function (params, batch) -> number, such as the objective of a
        workload.
      params: Initial point.
      batch: Second argument of the objective: a Batch, None, or any pytree. Its floats
        are cast to dtype.
      learning_rate: Learning rate, a number of at least 0.
      num_steps: Number of steps, a positive integer.
      dtype: Dtype of params, batch and rate.
    Returns:
      The Deviation.
    Raises:
      ValueError, TypeError: As in `deviation`. In addition, the name is unknown, or
        optax does not have this rule.
    Example:
      >>> objective = lambda x, batch: jnp.sum((x - batch) ** 2)
      >>> deviation_from_optax(
      ...     "heavy_ball", objective, jnp.ones(3), jnp.zeros(3), 0.1, 50, "float32"
      ... ).largest < 1e-6
      True
    """
    constructor, counterpart = find_rule(name), CARDS[name].optax
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    check_tree("batch", batch._replace(key=None) if isinstance(batch, Batch) else batch)
    check_number("learning_rate", learning_rate)
    check_number("num_steps", num_steps, positive=True, integer=True)
    if isinstance(counterpart, str):
        raise ValueError(
            f"rule {name!r} cannot be compared with optax, because {counterpart}. "
            f"Compare it with its formula: verify_rule({name!r})."
        )
    params, batch, rate = _cast(
        (params, batch, jnp.asarray(learning_rate, float)), dtype
    )
    differences = _differences_from_optax(
        (constructor, counterpart), objective, int(num_steps), params, batch, rate
    )
    return _largest(differences, params)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _differences_from_optax(
    constructors: tuple[Callable[..., Any], Callable[..., Any]],
    objective: Callable[[Params, Any], Array],
    num_steps: int,
    params: Params,
    batch: Any,
    rate: Array,
):
    ours, theirs = (
        constructor(rate) for constructor in constructors
    )  # The rate is traced, so one program serves all rates.

    def value_fn(x: Params, indices: Any = None):
        del indices
        return objective(x, batch)

    return _differences(ours, theirs, jax.grad(value_fn), params, num_steps, value_fn)


def _differences(
    rule: optax.GradientTransformation,
    reference: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    num_steps: int,
    value_fn: Callable[..., Array] | None = None,
) -> Array:
    """Return the largest relative difference of each leaf after each step.

    The shape is (num_steps, number of leaves).
    """
    _check_dtypes("gradient", jax.eval_shape(gradient, params), params)

    def difference(a: Array, b: Array):
        d = jnp.where(a == b, 0.0, jnp.abs(a - b) / (1.0 + jnp.abs(b)))
        return jnp.max(jnp.where(jnp.isnan(d), jnp.inf, d), initial=0.0)

    def advance(rule: optax.GradientTransformationExtraArgs, carry: tuple[Params, Any]):
        x, state = carry
        value = None if value_fn is None else value_fn(x)
        return _advance(rule, x, state, gradient(x), value, value_fn)[0]

    def step(carry: tuple[Any, ...], _: None):
        mine, other = (advance(r, c) for r, c in zip(rules, carry, strict=True))
        return (mine, other), jnp.stack(
            jax.tree.leaves(jax.tree.map(difference, mine[0], other[0]))
        )

    rules = [optax.with_extra_args_support(r) for r in (rule, reference)]
    return jax.lax.scan(
        step, tuple((params, r.init(params)) for r in rules), length=num_steps
    )[1]


def _largest(differences: Float[Array, "steps leaves"], params: Params) -> Deviation:
    values = np.asarray(differences, dtype=np.float64)
    step, leaf = np.unravel_index(np.argmax(values), values.shape)
    over = np.max(values, axis=1) > 0
    names = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    return Deviation(
        float(values[step, leaf]),
        int(step),
        names[leaf],
        int(np.argmax(over)) if over.any() else -1,
    )


def _cast(tree: Any, dtype: Any) -> Any:
    """Convert leaves to arrays, and cast floats to the dtype unless it is None."""
    if dtype is not None:
        check_dtype("dtype", dtype)
    if (
        dtype is not None
        and jnp.dtype(dtype) == jnp.float64
        and not jax.config.read("jax_enable_x64")
    ):
        raise ValueError(
            "dtype=float64, but JAX's float64 is off. First call "
            "research.backend.configure(x64=True)."
        )

    def cast(leaf: Any):
        leaf = jnp.asarray(leaf)
        return (
            leaf.astype(dtype)
            if dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
        )

    return jax.tree.map(cast, tree)


def _check_dtypes(what: str, tree: Params, params: Params) -> None:
    for (path, leaf), x in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(params), strict=True
    ):
        if leaf.dtype != x.dtype:
            raise TypeError(
                f"the {what} at {jax.tree_util.keystr(path) or 'the only leaf'} is "
                f"{leaf.dtype} where the params are {x.dtype}; cast the data from "
                f"which the {what} is computed, and traced hyper-parameters, to "
                f"{x.dtype}."
            )
