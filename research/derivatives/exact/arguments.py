"""What a derivative is asked of: checks of functions and points, whose messages say what to call instead."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import is_traced, shown
from research.derivatives.errors import NotInexactError, NotScalarError


def floating(tree: Any, argument: str) -> Any:
    """The same tree with arrays for leaves, all real floating.

    Raises:
      NotInexactError: A leaf is not; the message names it.
    """

    if tree is None:
        raise NotInexactError(
            f"{argument} must be real floating numbers; got None. Say where: {argument}=1.0, for example."
        )

    def checked(path: Any, leaf: Any) -> jax.Array:
        name = argument + jax.tree_util.keystr(path)
        kind = kind_of(leaf)
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.floating):
            advice = "Write 3.0, not 3, or convert by jnp.asarray(..., float)."
            if not isinstance(kind, str) and jnp.issubdtype(kind, jnp.complexfloating):
                advice = "Give real and imaginary part as two real arguments."
            raise NotInexactError(
                f"{name} must be real floating numbers; got {kind}. {advice}"
            )
        return jnp.asarray(leaf)

    return jax.tree_util.tree_map_with_path(checked, tree)


def kind_of(leaf: Any) -> Any:
    """The dtype of a number or an array of numbers; of anything else the name of its type."""
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic) or is_traced(leaf)
    if not is_array and not isinstance(leaf, bool | int | float | complex):
        return type(leaf).__name__
    try:
        return jnp.result_type(leaf)
    except (TypeError, OverflowError):
        return f"{shown(leaf)}"


def title(f: Callable) -> str:
    """What to call f in a message."""
    while isinstance(f, functools.partial):
        f = f.func
    name = getattr(f, "__name__", type(f).__name__)
    return "f" if name == "<lambda>" else name


def scalar(f: Callable, name: str) -> Callable:
    """f, that refuses to give anything but one real number."""

    def checked(x: Any) -> jax.Array:
        value = f(x)
        if len(jax.tree.leaves(value)) < 2:
            refuse_integer_outputs(value)
        if jax.tree.structure(value) != jax.tree.structure(0) or jnp.shape(value):
            raise NotScalarError(
                f"{name} needs a function that gives one real number; {title(f)} gives {described(value)}. "
                "Use jacobian(f, x), or sum what it gives."
            )
        refuse_integer_outputs(value)
        return value

    return checked


def refuse_integer_outputs(value: Any) -> None:
    """Raises NotInexactError where a leaf of what f gives is not real floating."""
    if value is None:
        raise NotInexactError(
            "f must give real floating numbers; it gives None. Does it end in a return?"
        )
    for leaf in jax.tree.leaves(value):
        kind = leaf.dtype if isinstance(leaf, jax.ShapeDtypeStruct) else kind_of(leaf)
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.floating):
            raise NotInexactError(
                f"f must give real floating numbers; it gives {kind}, which has no derivative here. "
                "Let it give jnp.asarray(..., float), or real and imaginary part apart."
            )


def outputs_of(f: Callable, x: Any) -> Any:
    """Shapes and dtypes of what f gives at x, all real floating; nothing is computed."""

    def checked(x: Any) -> Any:
        value = f(x)
        refuse_integer_outputs(value)
        return value

    return jax.eval_shape(checked, x)


def point_and_direction(x: Any, v: Any) -> tuple[Any, Any]:
    """x and v, floating and of the same structure and shapes."""
    x, v = floating(x, "x"), floating(v, "v")
    same = jax.tree.structure(x) == jax.tree.structure(v)
    if not same or any(
        a.shape != b.shape
        for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(v), strict=True)
    ):
        raise ValueError(
            f"v must have the structure and the shapes of x; x is {described(x)} and v is {described(v)}."
        )
    return x, jax.tree.map(lambda a, b: b.astype(a.dtype), x, v)


def size(tree: Any) -> int:
    """How many numbers a tree holds."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def described(tree: Any) -> str:
    """A value in words: its shape, or how many leaves it has."""

    def said(leaf: Any) -> str:
        return f"an array of shape {jnp.shape(leaf)}" if jnp.shape(leaf) else "a number"

    leaves = jax.tree.leaves(tree)
    if jax.tree.structure(tree) == jax.tree.structure(0):
        return said(leaves[0])
    return f"a {type(tree).__name__} of {len(leaves)} leaves ({', '.join(map(said, leaves[:4]))})"
