"""Calling conventions of a transformation.

The conventions cover extra arguments, plain numbers and None as leaves, and complex
params.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Num

from research.types import Array, Params


def complete(
    rule: optax.GradientTransformation,
    *,
    only_real: str | None = None,
    needs_value_fn: bool = False,
    sees_none: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Return a rule with the calling conventions of optax's transformations.

    The update of the returned rule accepts any extra keyword argument. Arguments that
    the wrapped rule does not take are ignored. Params and gradients may be plain
    floats. If update gets params, the gradient of a leaf may be None. The wrapped rule
    then gets the gradient 0 for this leaf, and the returned update of the leaf is None.

    Args:
      rule: Rule to wrap. Its init and update get arrays only.
      only_real: None if the rule works for complex params. Otherwise the name of the
        rule: init then raises an error for complex params, and the error contains this
        name.
      needs_value_fn: If True, the rule calls a function of the params, for example
        value_fn (the objective, an extra argument of update). The error for complex
        params then does not suggest optax.contrib.split_real_and_imaginary, because
        that wrapper does not work for such a rule.
      sees_none: If True, the wrapped rule gets None, not 0, for a leaf whose gradient
        is None. Use True for a rule that needs its own updates to compute the params
        after the step, that passes the gradients on to another rule, or that refuses
        None.
    Returns:
      The wrapped rule.
    Example:
      >>> rule = complete(
      ...     optax.GradientTransformation(
      ...         optax.init_empty_state, lambda g, s, x=None: (-g, s)
      ...     )
      ... )
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
        given = updates if sees_none else filled(updates, params)
        moved, state = inner.update(arrays(given), state, params, **extra)
        return moved if given is updates else blanked(moved, updates), state

    update.accepts_none = True  # type: ignore[attr-defined]
    return optax.GradientTransformationExtraArgs(init, update)


def accepting_none(
    rule: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return a rule that accepts None as the gradient of a leaf.

    A rule that already accepts None, as the rules of this package do, is returned
    itself. Any other rule is wrapped by `complete`. An outer rule uses this function to
    be able to pass None on to its inner rule.
    """
    inner = optax.with_extra_args_support(rule)
    return inner if getattr(inner.update, "accepts_none", False) else complete(inner)


def arrays(tree: Params) -> Params:
    """Return the pytree with its numbers and NumPy arrays converted to JAX arrays.

    Leaves that are already JAX arrays do not change.

    Example:
      >>> print(arrays({"w": 1.0, "b": None})["w"].shape)
      ()
    """
    given = (
        jax.Array,
        jax.ShapeDtypeStruct,
    )  # ShapeDtypeStruct occurs if only the shapes of init's result are wanted.
    return jax.tree.map(
        lambda x: x if isinstance(x, given) else jnp.asarray(x, jnp.result_type(x)),
        tree,
    )


def refuse_complex(params: Params, rule: str, needs_value_fn: bool = False) -> None:
    """Raise if params are complex, for a rule that is defined for real params only.

    `rule` is the name of the rule, for the message. If needs_value_fn is False, the
    message suggests optax.contrib.split_real_and_imaginary as a remedy. If
    needs_value_fn is True, the rule calls a function of the params, for example
    value_fn (the objective), and this remedy would not work.

    Raises:
      TypeError: A leaf is complex; the message names the leaf and a remedy.
    Example:
      >>> refuse_complex({"w": jnp.ones(2, complex)}, "muon")
      Traceback (most recent call last):
      TypeError: muon is defined for real params only; params['w'] is complex...[2]. ...
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.iscomplexobj(leaf):
            pair = "Store its real and imaginary parts as two real leaves"
            wrapped = (
                f"Wrap it: optax.contrib.split_real_and_imaginary({rule}(...)), or "
                "store"
            )
            raise TypeError(
                f"{rule} is defined for real params only; "
                f"params{jax.tree_util.keystr(path)} is "
                f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}. "
                f"{pair if needs_value_fn else wrapped + pair.removeprefix('Store')}."
            )


def refuse_none(updates: Params, params: Params, rule: str) -> None:
    """Raise if the gradient of a leaf is None, for a rule that couples all leaves.

    `rule` is the name of the rule, for the message.

    Raises:
      ValueError: The gradient of a leaf is None; the message names the leaf and a
        remedy.
    Example:
      >>> refuse_none({"w": None, "b": 1.0}, {"w": 2.0, "b": 3.0}, "newton")
      Traceback (most recent call last):
      ValueError: newton couples all leaves, so each needs a gradient; updates['w'] ...
    """
    if filled(updates, params) is updates:
        return
    paths = jax.tree_util.tree_leaves_with_path(updates, is_leaf=_is_none)
    of_params = jax.tree.structure(updates, is_leaf=_is_none).flatten_up_to(params)
    for (path, leaf), part in zip(paths, of_params, strict=True):
        if leaf is None and jax.tree.leaves(part):
            raise ValueError(
                f"{rule} couples all leaves, so each needs a gradient; "
                f"updates{jax.tree_util.keystr(path)} is None. Give {rule} only the "
                "leaves that move: use by_group, or an objective of these leaves alone."
            )


def _is_none(x: Any) -> bool:
    return x is None


def filled(updates: Params, params: Params | None) -> Params:
    """Return the gradient with zeros, shaped like the params, in place of each None.

    A gradient without None is returned itself, not as a copy. If params is None, the
    shapes of the zeros are unknown, and the gradient is returned itself, too.
    """
    leaves = jax.tree.leaves(updates, is_leaf=_is_none)
    if params is None or not any(leaf is None for leaf in leaves):
        return updates
    zeros = lambda u, x: jax.tree.map(jnp.zeros_like, x) if u is None else u
    return jax.tree.map(zeros, updates, params, is_leaf=_is_none)


def blanked(moved: Params, updates: Params) -> Params:
    """Return `moved` with None at each leaf whose gradient in `updates` is None."""
    return jax.tree.map(
        lambda u, m: None if u is None else m, updates, moved, is_leaf=_is_none
    )


def blanked_leaves(updates: Params, params: Params) -> Params:
    """Return the updates with a separate None for every leaf that has no gradient.

    A None in the updates may stand for a subtree of the params with several leaves.
    This function replaces such a None by the subtree with a None at each leaf.
    """
    return jax.tree.map(
        lambda u, x: jax.tree.map(lambda _: None, x) if u is None else u,
        updates,
        params,
        is_leaf=_is_none,
    )


def unmoved(new: Params, old: Params, updates: Params) -> Params:
    """Return `new`, with the leaf of `old` where the gradient in `updates` is None."""
    return jax.tree.map(
        lambda u, a, b: b if u is None else a, updates, new, old, is_leaf=_is_none
    )


def real_dtype(x: Any) -> Any:
    """Return the dtype of a leaf, or the dtype of its real part if the leaf is complex.

    Example:
      >>> print(
      ...     real_dtype(jnp.ones(2, "complex64")), real_dtype(jnp.ones(2, "bfloat16"))
      ... )
      float32 bfloat16
    """
    dtype = jnp.result_type(x)
    return (
        jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype
    )


def in_dtype(x: Num[Array, "*shape"], dtype: Any) -> Num[Array, "*shape"]:
    """Cast a floating or complex array to a floating dtype.

    The real and imaginary parts of a complex array are cast. JAX has no complex numbers
    of half precision, so for a half-precision dtype the parts are cast to float32.
    Other arrays are returned unchanged.

    Example:
      >>> print(
      ...     in_dtype(jnp.ones(2, "complex128"), "float32").dtype,
      ...     in_dtype(jnp.ones(2, int), "float32").dtype,
      ... )
      complex64 int...
    """
    floating = jnp.issubdtype(x.dtype, jnp.inexact)
    return x.astype(dtype_beside(x, dtype)) if floating else x


def dtype_beside(x: Any, dtype: Any) -> Any:
    """Return dtype, or its complex counterpart if the leaf x is complex.

    The real and imaginary parts of the complex dtype have at least float32 precision.

    Example:
      >>> print(dtype_beside(jnp.ones(2, "complex64"), "float64"))
      complex128
    """
    return jnp.promote_types(dtype, jnp.complex64) if jnp.iscomplexobj(x) else dtype


def abs_square(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return |x|² of each entry, as a real array.

    Example:
      >>> print(abs_square(jnp.array([3.0 + 4.0j])))
      [25.]
    """
    return (
        jnp.square(x.real) + jnp.square(x.imag)
        if jnp.iscomplexobj(x)
        else jnp.square(x)
    )


def widened(x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
    """Return an array in at least float32.

    Example:
      >>> print(widened(jnp.ones(2, jnp.bfloat16)).dtype)
      float32
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def norm_of(x: Num[Array, "*shape"]) -> Float[Array, ""]:
    """Return the Euclidean norm of a leaf, in at least float32; no square overflows.

    If the largest absolute value is so large or small that squares could leave the
    range of the dtype, all entries are first multiplied by a power of two, as in
    `leaf_norm`. For real leaves, both functions are the same.

    Example:
      >>> print(norm_of(jnp.array([3.0, 4.0], jnp.bfloat16)))
      5.0
    """
    x = widened(x)
    scale, back = range_scale(jnp.max(jnp.abs(x), initial=0.0))
    scaled = (
        jax.lax.complex(scale * x.real, scale * x.imag)
        if jnp.iscomplexobj(x)
        else scale * x
    )
    return back * jnp.sqrt(jnp.sum(abs_square(scaled)))


def real_product(
    a: Num[Array, "*shape"], b: Num[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the real product entry by entry: Re(a) Re(b) + Im(a) Im(b).

    For real arrays this is a * b. The sum of the entries is the inner product of a and
    b if real and imaginary parts count as separate real numbers.

    Example:
      >>> print(real_product(jnp.array([1.0 + 2.0j]), jnp.array([3.0 - 1.0j])))
      [1.]
    """
    if jnp.iscomplexobj(a) and jnp.iscomplexobj(b):
        return a.real * b.real + a.imag * b.imag
    return (a * b).real


def overflowed(
    squares: Float[Array, "*shape"], *behind: Num[Array, "*shape"]
) -> Bool[Array, "*shape"]:
    """Return a mask of the entries where an average of squares overflowed.

    In these entries the average `squares` is ∞, although it was computed from the
    arrays `behind`, which are finite. A rule that divides by the root of the average
    should use 0 as the step of such an entry. Otherwise the step would be NaN if the
    numerator has overflowed as well. Where an array of `behind`, such as the gradient,
    is itself ∞ or NaN, the mask is False, so that a NaN in the step remains visible.

    Example:
      >>> print(
      ...     overflowed(jnp.array([jnp.inf]), jnp.ones(1)),
      ...     overflowed(jnp.array([jnp.inf]), jnp.array([jnp.inf])),
      ... )
      [ True] [False]
    """
    return jnp.isposinf(squares) & functools.reduce(
        operator.and_, map(jnp.isfinite, behind)
    )


def sizes_like(x: Num[Array, "*shape"], value: Any = 0.0) -> Float[Array, "*shape"]:
    """Return a real array with the shape and precision of x, filled with a value.

    Example:
      >>> print(sizes_like(jnp.ones(2, "complex64"), 0.5))
      [0.5 0.5]
    """
    return (
        jnp.full_like(x, value, real_dtype(x))
        if jnp.iscomplexobj(x)
        else jnp.full_like(x, value)
    )


def within_range(x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
    """Clip x to the finite range of its dtype; NaN stays NaN.

    An example of x is the difference of two finite gradients. This difference may
    overflow, because it may be twice the largest number of the dtype.

    Example:
      >>> print(within_range(jnp.array([-jnp.inf, 1.0], "float32")))
      [-3.4028235e+38  1.0000000e+00]
    """
    if jnp.iscomplexobj(x):
        return jax.lax.complex(within_range(x.real), within_range(x.imag))
    most = jnp.finfo(x.dtype).max
    return jnp.clip(x, -most, most)


def with_range(x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
    """Return x in float32 if it is float16, and otherwise x itself.

    Numbers above 65504 overflow in float16. The other floating dtypes have at least the
    range of float32.

    Example:
      >>> print(1e6 * with_range(jnp.float16(3.0)))
      3e+06
    """
    return x.astype(jnp.float32) if x.dtype == jnp.float16 else x


def quotient(
    a: Num[Array, "*shape"], b: Float[Array, "*shape"]
) -> Num[Array, "*shape"]:
    """Return a / b. In float16, the result is 0 where b is 0.

    A constant such as ε = 1e-8 keeps b above 0 in other dtypes. In float16 the constant
    rounds to 0, so b may be 0.

    Example:
      >>> print(quotient(jnp.zeros(1, "float16"), jnp.zeros(1, "float16")))
      [0.]
    """
    return jnp.where(b == 0, 0.0, a / b) if b.dtype == jnp.float16 else a / b


def leaf_norm(x: Num[Array, "*shape"]) -> Float[Array, ""]:
    """Return the Euclidean norm of a leaf, in at least float32; no square overflows.

    All entries are multiplied by a power of two, the scale of `range_scale`, before
    they are squared. The root is then divided by this power. Without this scaling, the
    square of an entry above 1.8e19 would overflow in float32, and so would the sum of
    the squares of many smaller entries. The norm of a leaf without entries is 0.

    Example:
      >>> print(leaf_norm(jnp.array([3e30, -4e30], "float32")))
      5e+30
    """
    sizes = widened(jnp.abs(x))
    scale, back = range_scale(jnp.max(sizes, initial=0.0))
    return back * jnp.sqrt(jnp.sum(jnp.square(scale * sizes)))


def range_scale(
    largest: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return a power of two that brings the squares of numbers into range, and 1 / it.

    `largest` is the largest of the absolute values that are multiplied by the power and
    then squared, in float32 or float64. The power is 1 unless `largest` is extreme: in
    float32 above 2^48 or below 2^-42, in float64 above 2^480 or below 2^-400.

    Example:
      >>> scale, back = range_scale(jnp.array([2.0, 1e25], "float32"))
      >>> bool(scale[0] == 1), bool(scale[1] * back[1] == 1), bool(scale[1] < 1)
      (True, True, True)
    """
    most, least, shift = (
        (48, -42, 90) if largest.dtype == jnp.float32 else (480, -400, 600)
    )
    up, down = (jnp.asarray(2.0**k, largest.dtype) for k in (shift, -shift))
    large, small = largest > 2.0**most, largest < 2.0**least
    scale = jnp.where(large, down, jnp.where(small, up, 1.0))
    return scale, jnp.where(large, up, jnp.where(small, down, 1.0))
