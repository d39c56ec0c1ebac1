"""The iterates of a rule on a problem: of one in JAX, of one in fifty digits, and how
far they lie apart."""

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
    check_number,
    check_tree,
)
from research.types import Array, Batch, Params
from research.update_rules import find_rule
from research.update_rules._checks import check_rule
from research.update_rules._transforms import evaluation_params
from research.verification.cards import CARDS
from research.verification.formula import Function
from research.verification.leaves import DIGITS, Leaves
from research.verification.problems import NUM_STEPS, Problem


class Walk(NamedTuple):
    """Where a rule went.

    Attributes:
      iterates: x_1, ..., x_T as float64, shape (T, number of entries), leaf after leaf.
      updates: x_t - x_(t-1) as the rule gave them (of a formula: subtracted in fifty
        digits), the same shape.
      leaves: Of each entry the path of its leaf, as `jax.tree_util.keystr` writes it.
      evaluations: Where the rule wants to be evaluated after each step, like iterates;
        None if at the iterates.
    """

    iterates: np.ndarray
    updates: np.ndarray
    leaves: list[str]
    evaluations: np.ndarray | None = None


def walk(
    rule: optax.GradientTransformation,
    problem: Problem,
    dtype: Any = "float64",
    num_steps: int = NUM_STEPS,
) -> Walk:
    """Walks a rule of JAX over a problem in one compiled scan, with the extra arguments
    that a step of descent passes.

    Args:
      rule: Any gradient transformation.
      problem: One of PROBLEMS, or another.
      dtype: Of params and gradients.
      num_steps: T; at most NUM_STEPS where gradients are given.
    Returns:
      The Walk.
    Raises:
      TypeError: The rule changes structure, shape or dtype of what it is given.
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
    """The walk of constructor(**arguments), whose floats are traced: other values do
    not compile again.

    Args:
      constructor: Of a gradient transformation; its hyper-parameters may be traced.
      arguments: All of them, by name, learning_rate among them; what is no float is a
        constant of the program.
      problem, dtype, num_steps: As for `walk`.
    Returns:
      The Walk.
    Raises:
      TypeError: As in `walk`.
    """
    floats = {
        key: value for key, value in arguments.items() if isinstance(value, float)
    }
    others = tuple(
        (key, value) for key, value in arguments.items() if key not in floats
    )
    return _walk(_with(constructor, others), floats, problem, dtype, num_steps)


@functools.cache
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
    )  # One object for equal arguments: it is what jit knows the program by.


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

    def step(carry, gradient):
        x, state = carry

        def value_fn(
            params, indices=None
        ):  # Linear, so that its gradient is the one that is given.
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

    def value_fn(params, indices=None):
        del indices
        return objective(params)

    def step(carry, _):
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
    """Take one step, with the extra arguments of descent where there is a function."""
    extra: dict[str, Any] = {}
    if value_fn is not None:
        extra = {"value": value, "grad": gradient, "value_fn": value_fn}
        extra["indices"] = None
    updates, state = rule.update(gradient, state, x, **extra)
    check_updates(updates, x)
    after = optax.apply_updates(x, updates)
    evaluation = evaluation_params(state, after)
    return (after, state), (after, updates, None if evaluation is after else evaluation)


def check_updates(updates: Params, params: Params) -> None:
    """Refuses updates of another structure, shape or dtype than the params.

    Raises:
      TypeError: Which leaf, what it is and what it has to be.
    """
    if jax.tree.structure(updates) != jax.tree.structure(params):
        raise TypeError(
            f"the rule's updates have the structure {jax.tree.structure(updates)}, its "
            f"params {jax.tree.structure(params)}; update must return updates like "
            "those that it is given."
        )
    for (path, u), x in zip(
        jax.tree_util.tree_leaves_with_path(updates),
        jax.tree.leaves(params),
        strict=True,
    ):
        if (jnp.shape(u), jnp.result_type(u)) != (jnp.shape(x), jnp.result_type(x)):
            raise TypeError(
                f"the update at {jax.tree_util.keystr(path) or 'the only leaf'} is "
                f"{jnp.result_type(u)}{list(jnp.shape(u))} where the params are "
                f"{jnp.result_type(x)}{list(jnp.shape(x))}; keep shape and dtype (cast "
                "the rule's hyper-parameters to those of the gradient)."
            )


def walk_exactly(
    formula: Callable[..., Iterator[Leaves]],
    problem: Problem,
    num_steps: int = NUM_STEPS,
    **arguments: Any,
) -> Walk:
    """Walks a formula over a problem in fifty digits.

    Args:
      formula: A generator function, as a `Formula` has it.
      problem: One with gradients, or with an exact Function.
      num_steps: T; at most NUM_STEPS where gradients are given.
      **arguments: Of the formula; floats are taken for exactly the numbers they are.
    Returns:
      The Walk, rounded to float64 at its end.
    Raises:
      ValueError: The problem has neither.
      ZeroDivisionError: The formula divides by zero.
    Example:
      >>> from research.verification.cards import FORMULAS
      >>> from research.verification.problems import PROBLEMS
      >>> descent, quadratic = FORMULAS["gradient_descent"].iterates, PROBLEMS["quadratic"]
      >>> print(walk_exactly(descent, quadratic, num_steps=1, learning_rate=0.125).updates)
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
    seen = np.array(evaluations) if evaluations else None
    return Walk(np.array(iterates), np.array(updates), paths(problem.start), seen)


def _check_walk(problem: Problem, num_steps: int) -> None:
    check_instance(
        "problem", problem, Problem, "Take one of research.verification.PROBLEMS."
    )
    check_count("num_steps", num_steps)
    if problem.gradients is not None and num_steps > NUM_STEPS:
        raise ValueError(
            f"num_steps must be at most {NUM_STEPS}, for {problem.name} gives so many "
            f"gradients; got {num_steps}."
        )


def _function(problem: Problem) -> Function:
    if problem.exact is not None:
        return problem.exact()
    if problem.gradients is None:
        raise ValueError(
            f"the problem {problem.name!r} has neither gradients nor an exact "
            "Function; give it one."
        )
    rows = iter(range(NUM_STEPS))
    leaves = jax.tree.leaves(problem.gradients)

    def gradient(x):
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
    """Of each entry, leaf after leaf, the path of its leaf."""
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
    """Where two walks from one start lie furthest apart.

    Attributes:
      largest: The largest difference, measured as `distance` says.
      step: The step, from 0, after which it is attained first.
      leaf: The path of the leaf in which it is ("" for a bare array).
      first: The step, from 0, at which the difference first exceeds `distance`'s
        tolerance, or -1.
    """

    largest: float
    step: int
    leaf: str
    first: int


def distance(
    found: Walk, reference: Walk, problem: Problem, tolerance: float = 0.0
) -> Deviation:
    """The largest difference of two walks.

    On a function, where each walk follows its own gradients, it is max |x - y| / (1 +
    |y|) over the iterates. Where gradients are given, it is max |u - v| / max_t |v_t|
    over the updates, entry by entry, so that entries of any size count; over the
    iterates again where a gradient is NaN, since params that are NaN have no
    differences. Where one is finite and the other is not, it is inf; where both are
    NaN, it is 0 if the problem has NaN in its gradients and inf if not, so that runs
    which broke down never count as equal. Where both evaluate elsewhere than at their
    iterates, those points count as iterates of a function do.

    Args:
      found, reference: The two.
      problem: On which both were walked.
      tolerance: What Deviation.first is counted from.
    Returns:
      The Deviation.
    Example:
      >>> from research.verification.problems import PROBLEMS
      >>> fast, slow = (walk(optax.sgd(rate), PROBLEMS["quadratic"], "float32") for rate in (0.25, 0.125))
      >>> found = distance(fast, slow, PROBLEMS["quadratic"], tolerance=1e-3)
      >>> print(f"{found.largest:.2f} at most, and they differ from step {found.first} on")
      0.12 at most, and they differ from step 0 on
    """
    if problem.gradients is None or problem.nan:
        apart = _apart(
            found.iterates,
            reference.iterates,
            1.0 + np.abs(reference.iterates),
            problem.nan,
        )
    else:
        sizes = np.where(np.isfinite(reference.updates), np.abs(reference.updates), 0.0)
        apart = _apart(
            found.updates,
            reference.updates,
            np.max(sizes, axis=0, keepdims=True),
            problem.nan,
        )
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


def trajectory(
    rule: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    num_steps: int,
) -> Params:
    """The iterates x_0, x_1, ..., x_T of x_(t+1) = x_t + u_t, in one scan.

    Args:
      rule: Any gradient transformation, ours or another's.
      gradient: params -> gradient, such as jax.grad(f).
      params: x_0.
      num_steps: T, a positive integer.
    Returns:
      The params with a leading axis of length num_steps + 1 on every leaf.
    Raises:
      ValueError, TypeError: num_steps is not a positive integer, or the gradient's
        dtypes are not those of the params.
    Example:
      >>> print(trajectory(optax.sgd(0.5), jax.grad(lambda x: x**2 / 2), jnp.array(8.0), 3))
      [8. 4. 2. 1.]
    """
    check_rule(rule)
    check_callable("gradient", gradient, "params")
    check_tree("params", params)
    check_number("num_steps", num_steps, positive=True, integer=True)
    params = _cast(params, None)
    _check_dtypes("gradient", jax.eval_shape(gradient, params), params)

    rule = optax.with_extra_args_support(rule)

    def step(carry, _):
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
    """The largest difference between the iterates of two rules over a whole trajectory,
    each following its own.

    Neither trajectory is kept: both run in one compiled scan that returns a number for
    each step and leaf.

    Args:
      rule, reference: The two, as gradient transformations.
      gradient: params -> gradient.
      params: The common start.
      num_steps: A positive integer.
      dtype: Params are cast to it first; None leaves them. The gradient must then
        compute in it, too.
    Returns:
      The Deviation.
    Raises:
      TypeError: The gradient, or an update, has another dtype than the params: the
        comparison would be in neither.
      ValueError: num_steps is not a positive integer, or dtype is float64 while JAX's
        float64 is off.
    Example:
      >>> gradient = jax.grad(lambda x: jnp.sum(x["w"] ** 2) / 2)
      >>> found = deviation(optax.sgd(0.5), optax.sgd(0.25), gradient, {"w": jnp.ones(3)}, num_steps=2)
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
    """The deviation of our rule of that name, with its defaults, from its counterpart
    in optax on full-batch descent.

    Args:
      name: A key of CARDS, whose entry has a counterpart in optax.
      objective: (params, batch) -> (), such as a workload's.
      params: The start.
      batch: What the objective takes: a Batch, None, or any pytree; its floats are
        cast, too.
      learning_rate: A number of at least 0.
      num_steps: A positive integer.
      dtype: Of params, batch and rate.
    Returns:
      The Deviation.
    Raises:
      ValueError, TypeError: As in `deviation`; the name is unknown, or optax has no
        such rule.
    Example:
      >>> objective = lambda x, batch: jnp.sum((x - batch) ** 2)
      >>> deviation_from_optax("heavy_ball", objective, jnp.ones(3), jnp.zeros(3), 0.1, 50, "float32").largest < 1e-6
      True
    """
    constructor, counterpart = find_rule(name), CARDS[name].optax
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    check_tree("batch", batch._replace(key=None) if isinstance(batch, Batch) else batch)
    check_number("learning_rate", learning_rate)
    check_number("num_steps", num_steps, positive=True, integer=True)
    if isinstance(counterpart, str):
        raise ValueError(f"rule {name!r} has no counterpart in optax: {counterpart}.")
    params, batch, rate = _cast(
        (params, batch, jnp.asarray(learning_rate, float)), dtype
    )
    differences = _differences_from_optax(
        (constructor, counterpart), objective, int(num_steps), params, batch, rate
    )
    return _largest(differences, params)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _differences_from_optax(constructors, objective, num_steps, params, batch, rate):
    ours, theirs = (
        constructor(rate) for constructor in constructors
    )  # The rate is traced: one program for all rates.

    def value_fn(x, indices=None):
        del indices
        return objective(x, batch)

    return _differences(ours, theirs, jax.grad(value_fn), params, num_steps, value_fn)


def _differences(rule, reference, gradient, params, num_steps, value_fn=None) -> Array:
    """The largest relative difference of each leaf after each step, shape (num_steps,
    number of leaves)."""
    check_number("num_steps", num_steps, positive=True, integer=True)
    _check_dtypes("gradient", jax.eval_shape(gradient, params), params)

    def difference(a, b):
        d = jnp.where(a == b, 0.0, jnp.abs(a - b) / (1.0 + jnp.abs(b)))
        return jnp.max(jnp.where(jnp.isnan(d), jnp.inf, d), initial=0.0)

    def advance(rule, carry):
        x, state = carry
        value = None if value_fn is None else value_fn(x)
        return _advance(rule, x, state, gradient(x), value, value_fn)[0]

    def step(carry, _):
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
    """As arrays; the floats among them of that dtype, unless it is None."""
    if dtype is not None:
        check_dtype("dtype", dtype)
    if (
        dtype is not None
        and jnp.dtype(dtype) == jnp.float64
        and not jax.config.read("jax_enable_x64")
    ):
        raise ValueError(
            "dtype=float64, but JAX's float64 is off; call "
            "research.backend.configure(x64=True) first."
        )

    def cast(leaf):
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
                f"{leaf.dtype} where the params are {x.dtype}; cast the data that it "
                f"is computed from, and traced hyper-parameters, to {x.dtype}."
            )
