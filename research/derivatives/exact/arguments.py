"""What a derivative is asked of: checks of functions and points, whose messages say what to call instead."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.errors import NotInexactError, NotScalarError


def floating(tree: Any, argument: str) -> Any:
    """The same tree with arrays for leaves, all real floating.

    Raises:
      NotInexactError: A leaf is not; the message names it.
    """

    def checked(path: Any, leaf: Any) -> jax.Array:
        name = argument + jax.tree_util.keystr(path)
        try:
            kind = type(leaf).__name__ if isinstance(leaf, str | bytes) else jnp.result_type(leaf)
        except TypeError:
            kind = type(leaf).__name__
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.floating):
            advice = "Write 3.0, not 3, or convert by jnp.asarray(..., float)."
            if not isinstance(kind, str) and jnp.issubdtype(kind, jnp.complexfloating):
                advice = "Give real and imaginary part as two real arguments."
            raise NotInexactError(f"{name} must be real floating numbers; got {kind}. {advice}")
        return jnp.asarray(leaf)

    return jax.tree_util.tree_map_with_path(checked, tree)


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
    for leaf in jax.tree.leaves(value):
        kind = jnp.result_type(leaf)
        if not jnp.issubdtype(kind, jnp.floating):
            raise NotInexactError(
                f"f must give real floating numbers; it gives {kind}, which has no derivative here. "
                "Let it give jnp.asarray(..., float), or real and imaginary part apart."
            )


def point_and_direction(x: Any, v: Any) -> tuple[Any, Any]:
    """x and v, floating and of the same structure and shapes."""
    x, v = floating(x, "x"), floating(v, "v")
    same = jax.tree.structure(x) == jax.tree.structure(v)
    if not same or any(a.shape != b.shape for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(v), strict=True)):
        raise ValueError(f"v must have the structure and the shapes of x; x is {described(x)} and v is {described(v)}.")
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
