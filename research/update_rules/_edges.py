"""Where a transformation meets its caller: extra arguments, plain numbers and None as
leaves, complex params."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.types import Array, Params


def complete(
    rule: optax.GradientTransformation,
    *,
    only_real: str | None = None,
    needs_value_fn: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation with the manners that optax's have.

    Its update accepts any extra keyword argument and passes over those that the rule
    does not know. Params and gradients may be plain numbers. A gradient that is None
    moves nothing: the state takes it for 0, and the update is None.

    Args:
      rule: init and update, which then see arrays only.
      only_real: Name of the rule if it has no meaning for complex params, which init
        then refuses.
      needs_value_fn: Whether the rule calls value_fn, so that
        optax.contrib.split_real_and_imaginary cannot serve it.
    Returns:
      The transformation.
    Example:
      >>> rule = complete(optax.GradientTransformation(optax.init_empty_state, lambda g, s, x=None: (-g, s)))
      >>> print(rule.update(2.0, rule.init(1.0), 1.0, value=3.0)[0])
      -2.0
    """
    inner = optax.with_extra_args_support(rule)

    def init(params: Params):
        if only_real:
            refuse_complex(params, only_real, needs_value_fn)
        return inner.init(arrays(params))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        params = arrays(params)
        filled = updates if params is None else _filled(updates, params)
        moved, state = inner.update(arrays(filled), state, params, **extra)
        return moved if filled is updates else _blanked(moved, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def arrays(tree: Params) -> Params:
    """Return the pytree with arrays for the plain numbers in it; arrays stay as they
    are.

    Example:
      >>> print(arrays({"w": 1.0, "b": None})["w"].shape)
      ()
    """
    given = (
        jax.Array,
        jax.ShapeDtypeStruct,
    )  # The second: only what `init` would give is asked for.
    return jax.tree.map(
        lambda x: x if isinstance(x, given) else jnp.asarray(x, jnp.result_type(x)),
        tree,
    )


def refuse_complex(params: Params, rule: str, needs_value_fn: bool = False) -> None:
    """Refuse complex params for a rule that is defined for real ones alone.

    Raises:
      TypeError: Which leaf is complex, and what to do.
    Example:
      >>> refuse_complex({"w": jnp.ones(2, complex)}, "muon")
      Traceback (most recent call last):
      TypeError: muon is defined for real params only; params['w'] is complex...[2]. Wrap it: ...
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.iscomplexobj(leaf):
            pair = "Make its real and imaginary parts two real leaves"
            wrapped = (
                f"Wrap it: optax.contrib.split_real_and_imaginary({rule}(...)), or make"
            )
            raise TypeError(
                f"{rule} is defined for real params only; "
                f"params{jax.tree_util.keystr(path)} is "
                f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}. "
                f"{pair if needs_value_fn else wrapped + pair.removeprefix('Make')}."
            )


def _is_none(x: Any) -> bool:
    return x is None


def _filled(updates: Params, params: Params) -> Params:
    """The gradient with 0 for each None at which there are params; itself if there is
    none."""
    if not any(leaf is None for leaf in jax.tree.leaves(updates, is_leaf=_is_none)):
        return updates
    zeros = lambda u, x: jax.tree.map(jnp.zeros_like, x) if u is None else u
    return jax.tree.map(zeros, updates, params, is_leaf=_is_none)


def _blanked(moved: Params, updates: Params) -> Params:
    return jax.tree.map(
        lambda u, m: None if u is None else m, updates, moved, is_leaf=_is_none
    )


def real_dtype(x: Any) -> Any:
    """Return the dtype of a leaf, or that of its real part if it is complex.

    Example:
      >>> print(real_dtype(jnp.ones(2, "complex64")), real_dtype(jnp.ones(2, "bfloat16")))
      float32 bfloat16
    """
    dtype = jnp.result_type(x)
    return (
        jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype
    )


def in_dtype(x: Array, dtype: Any) -> Array:
    """Return a floating array in another dtype, a complex one with parts of that dtype;
    others stay as they are.

    JAX has no complex numbers of half precision: there the parts are float32.

    Example:
      >>> print(in_dtype(jnp.ones(2, "complex128"), "float32").dtype, in_dtype(jnp.ones(2, int), "float32").dtype)
      complex64 int...
    """
    floating = jnp.issubdtype(x.dtype, jnp.inexact)
    return x.astype(dtype_beside(x, dtype)) if floating else x


def dtype_beside(x: Any, dtype: Any) -> Any:
    """Return the dtype, or beside a complex leaf the complex one with parts of it, at
    least float32.

    Example:
      >>> print(dtype_beside(jnp.ones(2, "complex64"), "float64"))
      complex128
    """
    return jnp.promote_types(dtype, jnp.complex64) if jnp.iscomplexobj(x) else dtype


def abs_square(x: Array) -> Array:
    """Return |x|², which is real; x² of a real array.

    Example:
      >>> print(abs_square(jnp.array([3.0 + 4.0j])))
      [25.]
    """
    return (
        jnp.square(x.real) + jnp.square(x.imag)
        if jnp.iscomplexobj(x)
        else jnp.square(x)
    )


def real_product(a: Array, b: Array) -> Array:
    """Return the product entry by entry, and of complex arrays its real part, Re(a)
    Re(b) + Im(a) Im(b).

    Its sum is the inner product of the real and imaginary parts as separate real
    numbers.

    Example:
      >>> print(real_product(jnp.array([1.0 + 2.0j]), jnp.array([3.0 - 1.0j])))
      [1.]
    """
    if jnp.iscomplexobj(a) and jnp.iscomplexobj(b):
        return a.real * b.real + a.imag * b.imag
    return (a * b).real


def overflowed(squares: Array, *seen: Array) -> Array:
    """Whether an average of squares left the range of the dtype although what is behind
    it is finite.

    What is then divided by its root may be ∞, too, and the step is as good as 0; where
    a gradient is ∞ the NaN has to show.

    Example:
      >>> print(overflowed(jnp.array([jnp.inf]), jnp.ones(1)), overflowed(jnp.array([jnp.inf]), jnp.array([jnp.inf])))
      [ True] [False]
    """
    return jnp.isposinf(squares) & functools.reduce(
        operator.and_, map(jnp.isfinite, seen)
    )


def sizes_like(x: Array, value: Any = 0.0) -> Array:
    """Return an array like x, real also where x is complex, filled with a value.

    Example:
      >>> print(sizes_like(jnp.ones(2, "complex64"), 0.5))
      [0.5 0.5]
    """
    return (
        jnp.full_like(x, value, real_dtype(x))
        if jnp.iscomplexobj(x)
        else jnp.full_like(x, value)
    )
