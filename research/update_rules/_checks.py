"""Checks of a rule, its inner rule and its params, outside of compiled steps."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import (
    check_callable,
    check_dtype,
    check_flag,
    check_leaves_not_deleted,
    check_number,
    check_tree,
    is_float_array,
    shown,
)
from research.naming import known_names
from research.types import Params, Scalar

_Arguments = ParamSpec("_Arguments")
_Rule = TypeVar("_Rule", bound=optax.GradientTransformation)


def check_rule(rule: Any, name: str = "rule") -> None:
    """Raise if an argument is not a rule, for example if it is a constructor.

    Args:
      rule: Value to check.
      name: Name of the argument, for the message.
    Raises:
      TypeError: The value is a class, or it has no methods init and update. The message
        says how to make a rule.
    Example:
      >>> check_rule(optax.sgd)
      Traceback (most recent call last):
      TypeError: rule must be an optax.GradientTransformation; got the constructor ...
    """
    if (
        not inspect.isclass(rule)
        and callable(getattr(rule, "init", None))
        and callable(getattr(rule, "update", None))
    ):
        return
    if callable(rule) and hasattr(rule, "__name__"):
        given = f"got the constructor {rule.__name__}. Call it: {_call_of(rule)}."
    else:
        given = (
            f"got {shown(rule)}. Build one, for example "
            "research.update_rules.adam(0.1)."
        )
    raise TypeError(f"{name} must be an optax.GradientTransformation; {given}")


def _call_of(constructor: Any) -> str:
    """Return a call of a constructor, with a learning rate only if it needs one."""
    try:
        inspect.signature(constructor).bind()
    except (TypeError, ValueError):
        return f"{constructor.__name__}(0.1)"
    return f"{constructor.__name__}()"


def make_inner(
    inner: Callable[..., optax.GradientTransformation] | None,
    learning_rate: Any,
    default: Callable[..., optax.GradientTransformation],
    name: str = "inner",
) -> optax.GradientTransformationExtraArgs:
    """Build the inner rule of another rule, from the inner rule's constructor.

    Args:
      inner: Constructor of the inner rule, with learning_rate as its first argument.
        None means `default`.
      learning_rate: Learning rate that is passed to the constructor.
      default: Constructor to use if inner is None. The outer rule cannot have this
        constructor as the default value of its argument `inner`, because
        optax.inject_hyperparams would treat the constructor as a schedule.
      name: Name of the argument `inner` of the outer rule, for error messages.
    Returns:
      The inner rule. Its update accepts any keyword argument and ignores those that the
      rule does not use.
    Raises:
      TypeError: inner is not a constructor, or it does not return a rule.
    Example:
      >>> make_inner(optax.sgd(0.1), 0.1, optax.sgd)
      Traceback (most recent call last):
      TypeError: inner must be a constructor that takes learning_rate, such as ...
    """
    inner = default if inner is None else inner
    if not callable(inner):
        made = hasattr(inner, "init") and hasattr(inner, "update")
        given = (
            f"a rule that is already built. Pass {name}=lambda learning_rate: rule. "
            f"Under optax.inject_hyperparams also pass static_args=('{name}',); "
            f"otherwise optax treats {name} as a schedule and calls {name}."
            if made
            else f"{name}={shown(inner)}."
        )
        raise TypeError(
            f"{name} must be a constructor that takes learning_rate, such as "
            f"heavy_ball; got {given}"
        )
    check_callable(
        name, inner, "learning_rate", hint=f"Pass {name}=lambda learning_rate: rule."
    )
    rule = inner(learning_rate)
    check_rule(rule, f"the result of {name}")
    return optax.with_extra_args_support(rule)


def check_rate(
    learning_rate: Any, *, positive: bool = False, no_schedule: str | None = None
) -> None:
    """Raise unless a learning rate is a number in range or an accepted schedule.

    Args:
      learning_rate: A number, a tracer or a schedule.
      positive: Whether a number must be above 0. If False, it must be at least 0.
      no_schedule: Reason why the rule does not accept a schedule, as a clause for the
        message. None if the rule accepts schedules.
    Raises:
      TypeError, ValueError: The rate is not a number, is out of range, or is a schedule
        that the rule does not accept.
    Example:
      >>> check_rate(
      ...     lambda t: 0.1,
      ...     no_schedule="the rate is the first radius; the rule computes the others",
      ... )
      Traceback (most recent call last):
      TypeError: learning_rate must be a finite number, at least 0; got a schedule. ...
    """
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate, positive=positive)
    elif not no_schedule:
        check_schedule("learning_rate", learning_rate)
    else:
        limits = "positive" if positive else "at least 0"
        raise TypeError(
            f"learning_rate must be a finite number, {limits}; got a schedule. "
            f"{no_schedule[:1].upper()}{no_schedule[1:]}. Pass a number."
        )


def check_schedule(name: str, schedule: Any) -> None:
    """Raise TypeError unless a value is a function of a step count.

    `name` is the name of the argument, for the message.

    Example:
      >>> check_schedule("learning_rate", lambda: 0.1)
      Traceback (most recent call last):
      TypeError: learning_rate must be a function of (t); got learning_rate=<...
    """
    check_callable(
        name,
        schedule,
        "t",
        hint="Call a function that makes a schedule: schedules.cosine(0.1, 1000).",
    )


def rate_at(learning_rate: Any, count: Any, name: str = "learning_rate") -> Any:
    """Return learning_rate(count) for a schedule, or a constant rate unchanged.

    `name` is the name of the argument, for the message.

    Raises:
      TypeError: The schedule does not return a number.
    Example:
      >>> rate_at(lambda t: 2.0 * t, 3), rate_at(0.1, 3)
      (6.0, 0.1)
    """
    if not callable(learning_rate):
        return learning_rate
    rate = learning_rate(count)
    if rate is None or callable(rate) or isinstance(rate, str):
        raise TypeError(
            f"{name} must be a schedule, a function (step count t) -> number; this "
            f"one returns {shown(rate)}."
        )
    return rate


def check_decays_and_sizes(
    decays: Mapping[str, Scalar], sizes: Mapping[str, Scalar]
) -> None:
    """Raise unless all decays lie in [0, 1) and all sizes are finite and at least 0.

    Args:
      decays, sizes: Mappings from the name of an argument to its value.
    Raises:
      TypeError: A value is not a number.
      ValueError: A value is out of range or not finite.
    Example:
      >>> check_decays_and_sizes({"b1": 1.0}, {"eps": 1e-8})
      Traceback (most recent call last):
      ValueError: b1 must be ...
    """
    for name, value in decays.items():
        check_number(name, value, below=1.0)
    for name, value in sizes.items():
        check_number(name, value)


def check_floating(params: Params) -> None:
    """Raise unless all params are real floating-point arrays or numbers.

    Raises:
      TypeError: A leaf is not real and floating; the message names the leaf and a
        remedy.
    Example:
      >>> check_floating({"b": jnp.zeros(2), "w": jnp.array(1)})
      Traceback (most recent call last):
      TypeError: params must be floating; params['w'] is int...[]. Convert them to ...
    """
    if all(is_float_array(leaf) for leaf in jax.tree.leaves(params)):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            remedy = (
                "Convert them to floats: jax.tree.map(lambda x: jnp.asarray(x, "
                "float), params)."
            )
            # For complex params, jax.grad of a real loss returns the conjugate of the
            # direction of steepest ascent.
            if jnp.iscomplexobj(leaf):
                remedy = (
                    "Store the real and the imaginary part as two real leaves. Or "
                    "call the rule yourself with the conjugate of jax.grad: "
                    "jax.tree.map(jnp.conj, grads)."
                )
            raise TypeError(
                "params must be floating; "
                f"params{jax.tree_util.keystr(path)} is "
                f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}. {remedy}"
            )


def refuse_integers(updates: Params) -> None:
    """Raise if a leaf of the gradients (`updates`) has integers.

    In the dtype of such a leaf, a step with a rate such as 0.1 would be rounded to 0.

    Raises:
      TypeError: A leaf has integers or booleans; the message names the leaf and a
        remedy.
    Example:
      >>> refuse_integers({"w": jnp.array(1)})
      Traceback (most recent call last):
      TypeError: updates must be floating; updates['w'] is int...[]. Convert params ...
    """
    if all(is_float_array(leaf) for leaf in jax.tree.leaves(updates)):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        # The gradient of integer params, float0, is neither.
        dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_):
            raise TypeError(
                f"updates must be floating; updates{jax.tree_util.keystr(path)} is "
                f"{dtype}{list(jnp.shape(leaf))}. Convert params and gradients to "
                "floats: jax.tree.map(lambda x: jnp.asarray(x, float), params)."
            )


def checked(constructor: Callable[_Arguments, _Rule]) -> Callable[_Arguments, _Rule]:
    """Wrap the constructor of a rule so that the rule checks its arguments.

    The wrapped constructor raises an error if an argument with the annotation bool is
    not True or False. It also checks the types of the arguments `residual_fn`,
    `fisher_fn`, `accumulator_dtype` and `mask`. These types are not checked if the
    constructor has no bool argument and is called without keyword arguments. The rule's
    `init` and `update` raise an error for params and updates that are not pytrees of
    numbers. `update` also raises an error if the updates contain integers, if the state
    belongs to another rule or to params of other shapes, or if the params and the
    updates differ in structure or shapes. The updates may have None in place of a leaf
    or of a whole subtree of the params. Under jit the checks run while `update` is
    traced. A compiled step therefore costs no more than without the checks, and its
    results are the same to the last bit.

    Args:
      constructor: Function that returns the rule.
    Returns:
      The wrapped constructor; write `@checked` above its definition.
    Example:
      >>> rule = checked(optax.adam)(0.1)
      >>> rule.update(jnp.ones(3), rule.init(jnp.ones(2)))
      Traceback (most recent call last):
      ValueError: state must belong to params of the same shapes as updates; ...
    """

    signature = inspect.signature(constructor)
    flags = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is bool
    ]

    @functools.wraps(constructor)
    def construct(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Rule:
        if flags or kwargs:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:
                _check_names(constructor.__name__, kwargs, signature)
                given = {}  # The call below raises Python's own error.
            _check_options(given, flags)
        return _with_checks(constructor(*args, **kwargs))

    return construct


def _check_names(
    name: str, kwargs: Mapping[str, Any], signature: inspect.Signature
) -> None:
    unknown = [key for key in kwargs if key not in signature.parameters]
    if unknown:
        raise TypeError(
            f"{name}() got an unexpected keyword argument "
            f"{unknown[0]!r}{known_names(unknown[0], signature.parameters)}"
        )


def _check_options(given: dict[str, Any], flags: list[str]) -> None:
    for name in flags:
        check_flag(name, given.get(name, True))
    for name in ("residual_fn", "fisher_fn"):
        if given.get(name) is not None:
            check_callable(name, given[name], "params")
    if given.get("accumulator_dtype") is not None:
        check_dtype("accumulator_dtype", given["accumulator_dtype"])
    mask = given.get("mask")
    if mask is not None and not callable(mask):
        entries = jax.tree.leaves(mask)
        if not entries or not all(
            isinstance(entry, bool | np.bool_) for entry in entries
        ):
            raise TypeError(
                "mask must be a pytree of True and False, or a function that returns "
                f"one; got mask={shown(mask)}."
            )


def _with_checks(rule: _Rule) -> _Rule:
    expected: dict[Any, tuple[Any, list[Any]]] = {}

    def init(params: Params):
        check_tree("params", params)
        return rule.init(params)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        of_updates = check_tree("updates", updates)
        refuse_integers(updates)
        found = of_updates if params is None else check_tree("params", params)
        if found != of_updates and not _fits_but_for_none(updates, params):
            raise ValueError(
                "updates (the gradients) and params must have the same structure and "
                f"shapes; got updates={_described(updates)} and "
                f"params={_described(params)}."
            )
        like = updates if params is None else params
        # The structure may depend on the dtypes, as that of newton does.
        dtypes = [getattr(leaf, "dtype", type(leaf)) for leaf in jax.tree.leaves(like)]
        found = (*found, *dtypes)
        if found not in expected:
            of_state = jax.eval_shape(rule.init, like)
            expected[found] = (
                jax.tree.structure(of_state),
                [leaf.shape for leaf in jax.tree.leaves(of_state)],
            )
        _check_state(state, *expected[found])
        return rule.update(updates, state, params, **extra)

    update.accepts_none = getattr(rule.update, "accepts_none", False)  # type: ignore[attr-defined]
    return rule._replace(init=init, update=update)


def _fits_but_for_none(updates: Any, params: Any) -> bool:
    """Return whether updates have the structure and shapes of params, except for None.

    A None in the updates matches any leaf or subtree of the params.
    """
    shapes = lambda tree, is_leaf=None: {
        path: None if leaf is None else jnp.shape(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    }
    given, wanted = shapes(updates, lambda leaf: leaf is None), shapes(params)
    without = {path for path, shape in given.items() if shape is None}
    blank = {
        path for path in wanted if any(path[: len(short)] == short for short in without)
    }
    return {path: shape for path, shape in given.items() if shape is not None} == {
        path: shape for path, shape in wanted.items() if path not in blank
    }


def _kind_of(structure: Any, state: Any) -> str:
    """Describe a structure by its type, or in full if the state has the same type."""
    outermost = structure.node_data()
    if outermost is None or outermost[0] is type(state):
        return f"structure {shown(structure)}"
    return f"type {outermost[0].__name__}"


def _check_state(state: Any, structure: Any, shapes: list[Any]) -> None:
    if jax.tree.structure(state) != structure:
        raise TypeError(
            "state must come from this rule's init(params) or its last update; got "
            f"state={shown(state)}. The state of this rule has the "
            f"{_kind_of(structure, state)}."
        )
    check_leaves_not_deleted("state", state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not hasattr(leaf, "dtype"):
            raise TypeError(
                "state must be a pytree of arrays; got "
                f"state{jax.tree_util.keystr(path)}={shown(leaf)}. Pass the state of "
                "this rule's init(params) or its last update."
            )
    found = [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
    if found != shapes:
        raise ValueError(
            "state must belong to params of the same shapes as updates; the leaves of "
            f"state have the shapes {shown(found)}, but for these updates they must "
            f"have {shown(shapes)}. Call init with these params, or pass the state of "
            "the last update."
        )


def _described(tree: Any) -> str:
    return shown(
        jax.tree.map(
            lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree
        )
    )
