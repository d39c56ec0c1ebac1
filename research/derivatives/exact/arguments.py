"""Checks of functions and points. The error messages say what to call instead."""

import contextlib
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_not_deleted, is_traced, shown
from research.derivatives.errors import (
    NotInexactError,
    NotScalarError,
    UnsupportedPrimitiveError,
)
from research.tracing import AdviceOnTracing


def floating(tree: Any, argument: str) -> Any:
    """Convert the leaves of a tree to arrays, and check that all are real and floating.

    Args:
      tree: Pytree that a caller passed as an argument, such as x.
      argument: Name of this argument, for the message.
    Returns:
      The tree with arrays as leaves.
    Raises:
      NotInexactError: A leaf is not real and floating. The message shows the leaf.
      RuntimeError: A leaf is an array of JAX that has been deleted.
    """

    if tree is None:
        raise NotInexactError(
            f"{argument} must be real floating numbers; got None. Pass for example "
            f"{argument}=1.0."
        )

    def checked(path: Any, leaf: Any) -> jax.Array:
        name = argument + jax.tree_util.keystr(path)
        kind = kind_of(leaf)
        if isinstance(kind, str) and not isinstance(leaf, int):
            raise NotInexactError(
                f"{name} must be real floating numbers; got {name}={shown(leaf)}. "
                "Pass a number, an array, or a pytree of arrays."
            )
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.floating):
            advice = "Write 3.0 instead of 3, or use jnp.asarray(..., float)."
            if not isinstance(leaf, int) or isinstance(leaf, bool):
                advice = (
                    "Use jnp.asarray(..., float). If it is no variable, such as a "
                    f"label, a mask or a random key, leave it out of {argument}: "
                    f"lambda {argument}: f({argument}, it)."
                )
            if not isinstance(kind, str) and jnp.issubdtype(kind, jnp.complexfloating):
                advice = "Pass the real and imaginary parts as two real arguments."
            raise NotInexactError(
                f"{name} must be real floating numbers; got {kind}. {advice}"
            )
        check_not_deleted(name, leaf)
        return jnp.asarray(leaf)

    return jax.tree_util.tree_map_with_path(checked, tree)


def kind_of(leaf: Any) -> Any:
    """Return the dtype of a number or array, or the type's name for any other value.

    For an integer that is too large for JAX, the result is the integer as a str.
    """
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic) or is_traced(leaf)
    if not is_array and not isinstance(leaf, bool | int | float | complex):
        return type(leaf).__name__
    try:
        return jnp.result_type(leaf)
    except (TypeError, OverflowError):
        return f"{shown(leaf)}"


_JITTED = type(jax.jit(lambda: None))


def is_jitted(f: Callable[..., Any]) -> bool:
    """Return whether f is the result of `jax.jit`.

    Such a function is hashable, and always computes what its first trace computes. So
    `jax.jit` may keep programs that contain f.
    """
    return isinstance(f, _JITTED)


def title(f: Callable[..., Any]) -> str:
    """Return the name of a function for a message, or "f" for a lambda function."""
    while isinstance(f, functools.partial):
        f = f.func
    name = getattr(f, "__name__", type(f).__name__)
    return "f" if name == "<lambda>" else name


class ForwardRuleNeeded(contextlib.AbstractContextManager[None]):
    """Context manager that replaces JAX's error about a missing rule for forward mode.

    JAX raises such an error if f has a derivative rule for reverse mode only
    (`jax.custom_vjp`). The context manager then raises UnsupportedPrimitiveError
    instead.

    Args:
      f: Function that is differentiated inside the context.
      instead: Text for the message: the call that the user should write instead of one
        that needs a forward-mode rule.
    """

    def __init__(self, f: Callable[..., Any], instead: str):
        self.f, self.instead = f, instead

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise the new error instead of JAX's.

        JAX's error is a TypeError or a NotImplementedError, and its text contains
        "custom_vjp" or "custom_lin". Other errors are not replaced.
        """
        if not isinstance(error, TypeError | NotImplementedError):
            return
        if isinstance(error, UnsupportedPrimitiveError):
            return
        if "custom_vjp" in str(error) or "custom_lin" in str(error):
            raise UnsupportedPrimitiveError(
                f"{title(self.f)} has its own rule for reverse mode only "
                f"(jax.custom_vjp). Use {self.instead}."
            ) from error


def scalar(f: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return f with a check that the value of f is one real number.

    The returned function raises NotScalarError if f returns a pytree, or an array whose
    shape is not (). It raises NotInexactError if the value is not real and floating.
    `name` is the name of the calling function, for the message.
    """

    def checked(x: Any) -> jax.Array:
        with AdviceOnTracing():
            value = f(x)
        if len(jax.tree.leaves(value)) < 2:
            refuse_integer_outputs(value)
        if jax.tree.structure(value) != jax.tree.structure(0) or jnp.shape(value):
            raise NotScalarError(
                f"{name} needs a function that returns one real number; {title(f)} "
                f"returns {described(value)}. Use jacobian(f, x), or sum the result."
            )
        refuse_integer_outputs(value)
        return value

    return checked


def refuse_integer_outputs(value: Any) -> None:
    """Raise NotInexactError if a leaf of `value` is not real and floating.

    `value` is the value of the function f to differentiate. If `value` is None, the
    error is raised, too.
    """
    if value is None:
        raise NotInexactError(
            "f must return real floating numbers; it returns None. Add a return "
            "statement."
        )
    for leaf in jax.tree.leaves(value):
        kind = leaf.dtype if isinstance(leaf, jax.ShapeDtypeStruct) else kind_of(leaf)
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.floating):
            raise NotInexactError(
                f"f must return real floating numbers; it returns {kind}, which has no "
                "derivative here. Return jnp.asarray(..., float), or the real and "
                "imaginary parts separately."
            )


def outputs_of(f: Callable[..., Any], x: Any) -> Any:
    """Return the shapes and dtypes of f(x), without computing f(x).

    The result has the structure of f(x). Its leaves are `jax.ShapeDtypeStruct`.

    Raises:
      NotInexactError: A leaf of f(x) is not real and floating.
    """

    def checked(x: Any) -> Any:
        with AdviceOnTracing():
            value = f(x)
        refuse_integer_outputs(value)
        return value

    return jax.eval_shape(checked, x)


def point_and_direction(x: Any, v: Any) -> tuple[Any, Any]:
    """Check that x and v are floating and have the same structure and shapes.

    Returns:
      (x, v). The leaves of v are converted to the dtypes of the leaves of x.
    Raises:
      NotInexactError: A leaf is not real and floating.
      ValueError: x and v differ in structure or shapes.
    """
    x, v = floating(x, "x"), floating(v, "v")
    same = jax.tree.structure(x) == jax.tree.structure(v)
    if not same or any(
        a.shape != b.shape
        for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(v), strict=True)
    ):
        raise ValueError(
            f"v must have the structure and shapes of x; x is {described(x)}, v is "
            f"{described(v)}."
        )
    return x, jax.tree.map(lambda a, b: b.astype(a.dtype), x, v)


def size(tree: Any) -> int:
    """Count the entries of all leaves of a tree."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def described(tree: Any) -> str:
    """Return the shape of an array, or the shapes in a pytree, in words.

    For a pytree, the text has the type of the pytree, the number of leaves, and the
    shapes of the first four leaves.
    """

    def shape_of(leaf: Any) -> str:
        return f"an array of shape {jnp.shape(leaf)}" if jnp.shape(leaf) else "a number"

    if tree is None:
        return "None"
    leaves = jax.tree.leaves(tree)
    if jax.tree.structure(tree) == jax.tree.structure(0):
        return shape_of(leaves[0])
    first = ", ".join(map(shape_of, leaves[:4]))
    return f"a {type(tree).__name__} of {len(leaves)} leaves ({first})"
