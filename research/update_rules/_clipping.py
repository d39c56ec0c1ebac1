"""Gradient clipping: by entry, by leaf, by global norm, or relative to the weights."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number, is_integer, shown
from research.types import Array, Params, Scalar
from research.update_rules._checks import checked
from research.update_rules._edges import abs_square, complete, widened
from research.update_rules._transforms import cast

MOST_AXES = 32  # No array has more.


@checked
def clip_by_value(max_value: Scalar) -> optax.GradientTransformation:
    """Clip each entry of the gradient to [-c, c]: g <- min(max(g, -c), c).

    optax.clip and torch's clip_grad_value_ are the same. Unlike `clip_by_global_norm`,
    this clip may change the direction of the gradient. NaN stays NaN, but an infinite
    entry becomes ±c, as in optax and torch. To skip steps with infinite entries
    instead, wrap the chain of this transformation and the rule in `skip_nonfinite`.

    Args:
      max_value: Bound c, positive; may be traced.
    Returns:
      The transformation, without state; chain it before a rule.
    Raises:
      ValueError, TypeError: A concrete max_value is not a positive finite number, or
        the params that init receives are complex.
    Example:
      >>> clip = clip_by_value(1.0)
      >>> print(clip.update(jnp.array([3.0, -0.5]), clip.init(None))[0])
      [ 1.  -0.5]
    """
    check_number("max_value", max_value, positive=True)
    return _stateless(
        lambda updates, params: jax.tree.map(
            lambda g: jnp.clip(g, -cast(max_value, g), cast(max_value, g)), updates
        ),
        only_real="clip_by_value",
    )


@checked
def clip_by_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Scale each leaf down to a norm of at most c: g <- g min(1, c / |g|).

    Here g is one leaf of the gradient, and |g| is its Euclidean norm. For a leaf of n
    entries, optax.clip_by_block_rms with the threshold c / √n gives the same result.
    torch does not have this clip. If a leaf contains NaN or an infinity, the result for
    this leaf contains NaN.

    Args:
      max_norm: Largest norm c, positive; may be traced.
    Returns:
      The transformation, without state; chain it before a rule.
    Raises:
      ValueError, TypeError: A concrete max_norm is not a positive finite number.
    References:
      Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural
      networks, ICML 2013, algorithm 1 (for one leaf).
    Example:
      >>> clip = clip_by_norm(1.0)
      >>> print(
      ...     *clip.update([jnp.array([3.0, 4.0]), jnp.array(0.5)], clip.init(None))[0]
      ... )
      [0.6 0.8] 0.5
    """
    check_number("max_norm", max_norm, positive=True)
    return _stateless(
        lambda updates, params: jax.tree.map(
            lambda g: _shorten(g, _norm([g]), max_norm), updates
        )
    )


@checked
def clip_by_global_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Scale the gradient down to a norm of at most c: g <- g min(1, c / |g|).

    Here g is the gradient, and |g| is its Euclidean norm over all leaves.
    optax.clip_by_global_norm is the same. torch's clip_grad_norm_ divides by |g| +
    1e-6. If any entry is NaN or infinite, the result contains NaN, as in optax and
    torch.

    Args:
      max_norm: Largest norm c, positive; may be traced.
    Returns:
      The transformation, without state; chain it before a rule.
    Raises:
      ValueError, TypeError: A concrete max_norm is not a positive finite number.
    References:
      Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural
      networks, ICML 2013, algorithm 1.
    Example:
      >>> clip = clip_by_global_norm(1.0)
      >>> print(*clip.update([jnp.array([3.0]), jnp.array([4.0])], clip.init(None))[0])
      [0.6] [0.8]
    """
    check_number("max_norm", max_norm, positive=True)

    def clip(updates: Params, params: Params):
        del params
        norm = _norm(jax.tree.leaves(updates))
        return jax.tree.map(lambda g: _shorten(g, norm, max_norm), updates)

    return _stateless(clip)


@checked
def clip_adaptively(
    clipping: Scalar,
    eps: Scalar = 1e-3,
    axis: int | Sequence[int] | None = None,
) -> optax.GradientTransformation:
    """Limit the norm of each unit's gradient relative to the unit's weights.

    A unit is the set of weights that feed one output. For each unit, g <- g min(1, λ
    max(|w|, ε) / |g|), where w are the weights of the unit and g is their gradient. λ
    is the argument clipping, and ε the argument eps. If axis is None, these are the
    units:

    - In a matrix of shape (inputs, outputs), a unit is a column.
    - In a leaf of three axes (inputs, heads, head size), as in attention, a unit spans
      the first axis only: there is one unit for each entry of each head.
    - In a convolution's kernel of four or five axes (..., inputs, outputs), a unit
      spans all axes but the last.
    - A vector, a scalar, or a leaf with at most one axis longer than 1 is a single
      unit.

    optax.adaptive_grad_clip is the same. torch stores the weight matrix of a layer
    transposed, so in timm's adaptive_clip_grad a unit is a row.

    Args:
      clipping: Factor λ, positive; may be traced. The paper uses 0.01 to 0.16, with
        smaller values for larger batches. The paper does not clip the last layer. To
        exclude a layer, use `optax.masked` or `by_group`.
      eps: Constant ε, at least 0; may be traced. With ε > 0, weights that start at zero
        can move.
      axis: Axis that a unit spans in every leaf, or a list or tuple of such axes. None
        means the axes described above.
    Returns:
      The transformation, without state; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
        Or axis is neither None nor an integer nor a list or tuple of integers. Or axis
        is None, and a leaf has more than five axes. Or update got no params.
    References:
      Brock, De, Smith & Simonyan, High-performance large-scale image recognition
      without normalization, ICML 2021, equation (3).
    Example:
      >>> # Columns: norms 5 and 50.
      >>> clip, w = clip_adaptively(0.5), jnp.array([[3.0, 30.0], [4.0, 40.0]])
      >>> print(clip.update(jnp.array([[6.0, 6.0], [8.0, 8.0]]), clip.init(w), w)[0])
      [[1.5 6. ]
       [2.  8. ]]
    """
    check_number("clipping", clipping, positive=True)
    check_number("eps", eps)
    axes: Any = axis if isinstance(axis, list | tuple) else (axis,)
    axes = () if axis is None else axes
    if not all(is_integer(a) and -MOST_AXES <= a < MOST_AXES for a in axes):
        raise ValueError(
            "axis must be an integer, a list of integers or None; got "
            f"axis={shown(axis)}. For the columns of a matrix, write axis=0."
        )

    def shorten(path: Any, g: Array, w: Array):
        axes = (
            _axes_of_a_unit(jax.tree_util.keystr(path), g.shape)
            if axis is None
            else axis
        )
        # A list would not be a valid static argument.
        axes = axes if isinstance(axes, int) else tuple(axes)
        scale, of_weights = _unit_norms(w, axes)
        least = jnp.maximum(of_weights / scale, cast(eps, of_weights))
        scale, of_gradient = _unit_norms(g, axes)
        largest = (cast(clipping, least) * least).astype(of_gradient.dtype)
        factor = largest / jnp.where(of_gradient == 0, 1.0, of_gradient)
        short = of_gradient / scale < largest
        return jnp.where(short, g, (scale * widened(g) * factor).astype(g.dtype))

    def clip(updates: Params, params: Params):
        if params is None:
            raise ValueError(
                "clip_adaptively needs the params; call update(grads, state, params)."
            )
        return jax.tree_util.tree_map_with_path(shorten, updates, params)

    return _stateless(clip)


def _unit_norms(a: Array, axes: Any) -> tuple[Array, Array]:
    """Return a scale s for each unit, and the norm of s times the unit.

    s is 1, or 2^-90 if an entry of the unit is above 2^60, so that no square overflows
    in float32.
    """
    a = widened(a)
    largest = jnp.max(jnp.abs(a), axes, keepdims=True, initial=0.0)
    scale = jnp.where(largest > 2.0**60, 2.0**-90, 1.0).astype(largest.dtype)
    return scale, jnp.sqrt(jnp.sum(abs_square(scale * a), axes, keepdims=True))


def _axes_of_a_unit(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if sum(length != 1 for length in shape) <= 1:
        return tuple(range(len(shape)))
    if len(shape) > 5:
        raise ValueError(
            f"clip_adaptively does not know the units of the leaf {path} of shape "
            f"{shape}. Pass axis=, the axes that one unit spans."
        )
    return (0,) if len(shape) <= 3 else tuple(range(len(shape) - 1))


def _shorten(g: Array, norm: Array, max_norm: Scalar) -> Array:
    limit = cast(max_norm, norm)
    wide = g.astype(jnp.promote_types(g.dtype, norm.dtype))
    return jnp.where(norm < limit, g, ((wide / norm) * limit).astype(g.dtype))


def _norm(leaves: list[Array]) -> Array:
    """Return the Euclidean norm over all entries of all leaves.

    The sum of squares is computed in the widest dtype of the leaves, and at least in
    float32, because 300² overflows in float16. If the sum overflows although all
    entries are finite, the entries are divided by the largest absolute value before
    they are squared.
    """
    if not leaves:
        return jnp.zeros(())
    leaves = [widened(leaf) for leaf in leaves]

    def over(scale: Array | float) -> Array:
        shares = [leaf / scale for leaf in leaves]
        return jnp.sqrt(sum(jnp.sum(abs_square(share)) for share in shares))

    def scaled() -> Array:
        sizes = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves]
        largest = functools.reduce(jnp.maximum, sizes)
        return (largest * over(jnp.where(jnp.isfinite(largest), largest, 1.0))).astype(
            plain.dtype
        )

    plain = jnp.sqrt(sum(jnp.sum(abs_square(leaf)) for leaf in leaves))
    return jax.lax.cond(jnp.isinf(plain), scaled, lambda: plain)


def _stateless(
    clip: Callable[[Params, Params], Params], only_real: str | None = None
) -> optax.GradientTransformation:
    rule = optax.GradientTransformation(
        optax.init_empty_state,
        lambda updates, state, params=None: (clip(updates, params), state),
    )
    return complete(rule, only_real=only_real)
