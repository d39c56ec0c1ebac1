"""The iterates of a rule on a problem: of one in JAX, of one in fifty digits, and how far they lie apart."""

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

from research.checks import check_callable, check_count, check_dtype, check_instance
from research.types import Params
from research.update_rules._checks import check_rule
from research.update_rules._transforms import evaluation_params
from research.verification.formula import Function
from research.verification.leaves import DIGITS, Leaves
from research.verification.problems import NUM_STEPS, Problem


class Walk(NamedTuple):
    """Where a rule went.

    Attributes:
      iterates: x_1, ..., x_T as float64, shape (T, number of entries), leaf after leaf.
      updates: x_t - x_(t-1) as the rule gave them (of a formula: subtracted in fifty digits), the same shape.
      leaves: Of each entry the path of its leaf, as `jax.tree_util.keystr` writes it.
      evaluations: Where the rule wants to be evaluated after each step, like iterates; None if at the iterates.
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
    """Walks a rule of JAX over a problem in one compiled scan, with the extra arguments that a step of descent passes.

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
    """The walk of constructor(**arguments), whose floats are traced: other values do not compile again.

    Args:
      constructor: Of a gradient transformation; its hyper-parameters may be traced.
      arguments: All of them, by name, learning_rate among them; what is no float is a constant of the program.
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

        return _advance(rule, x, state, value_fn(x), gradient, value_fn)

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
        return _advance(rule, x, state, *jax.value_and_grad(value_fn)(x), value_fn)

    return jax.lax.scan(step, (start, rule.init(start)), length=num_steps)[1]


def _advance(rule, x, state, value, gradient, value_fn):
    updates, state = rule.update(
        gradient, state, x, value=value, grad=gradient, value_fn=value_fn, indices=None
    )
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
            f"the rule's updates have the structure {jax.tree.structure(updates)}, its params "
            f"{jax.tree.structure(params)}; update must return updates like those that it is given."
        )
    for (path, u), x in zip(
        jax.tree_util.tree_leaves_with_path(updates),
        jax.tree.leaves(params),
        strict=True,
    ):
        if (jnp.shape(u), jnp.result_type(u)) != (jnp.shape(x), jnp.result_type(x)):
            raise TypeError(
                f"the update at {jax.tree_util.keystr(path) or 'the only leaf'} is {jnp.result_type(u)}"
                f"{list(jnp.shape(u))} where the params are {jnp.result_type(x)}{list(jnp.shape(x))}; keep shape and "
                f"dtype (cast the rule's hyper-parameters to those of the gradient)."
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
            f"num_steps must be at most {NUM_STEPS}, for {problem.name} gives so many gradients; got {num_steps}."
        )


def _function(problem: Problem) -> Function:
    if problem.exact is not None:
        return problem.exact()
    if problem.gradients is None:
        raise ValueError(
            f"the problem {problem.name!r} has neither gradients nor an exact Function; give it one."
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
      first: The step, from 0, at which the difference first exceeds `distance`'s tolerance, or -1.
    """

    largest: float
    step: int
    leaf: str
    first: int


def distance(
    found: Walk, reference: Walk, problem: Problem, tolerance: float = 0.0
) -> Deviation:
    """The largest difference of two walks.

    On a function, where each walk follows its own gradients, it is max |x - y| / (1 + |y|) over the iterates. Where
    gradients are given, it is max |u - v| / max_t |v_t| over the updates, entry by entry, so that entries of any size
    count; over the iterates again where a gradient is NaN, since params that are NaN have no differences. Where one is
    finite and the other is not, it is inf; where both are NaN, it is 0 if the problem has NaN in its gradients and inf
    if not, so that runs which broke down never count as equal. Where both evaluate elsewhere than at their iterates,
    those points count as iterates of a function do.

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
