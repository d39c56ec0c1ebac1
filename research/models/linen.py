"""Flax Linen modules as models. Flax is imported only when `from_linen` is called."""

import inspect
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from research.checks import (
    check_dtype,
    check_key,
    check_mapping,
    check_sequence,
    check_tree,
)
from research.models.parameters import shapes_of
from research.types import Array, Key, Model, Params

# Flags of Linen modules that switch noise, with the values that switch it on.
NOISE_FLAGS = {
    "deterministic": False,
    "train": True,
    "training": True,
    "is_training": True,
}


def from_linen(
    module: Any,
    example: Any,
    *,
    noise: Mapping[str, Any] | None = None,
    streams: Sequence[str] = ("dropout",),
    dtype: DTypeLike | None = None,
    **arguments: Any,
) -> Model:
    """Convert a Flax Linen module to a model with the functions init and apply.

    The module's noise, such as dropout, is active only if apply gets a key.

    The module is always called with one batch axis. The leading axes of x are flattened
    into this axis and restored in the result. The parameters are the collection
    "params" of the module. They keep Linen's names and layouts. For example, an array
    that Linen calls "kernel" keeps this name, although the layers of this package call
    such an array "weights".

    Each random number stream in `streams` gets its own key, derived from the key of
    apply. The module's `__call__` may have arguments that switch noise: deterministic,
    train, training or is_training. With a key, apply sets deterministic to False, and
    any of the other three to True. Without a key, apply sets the opposite values. An
    argument that is given in `**arguments` keeps the given value. If `noise` is given,
    apply sets none of these four arguments by itself.

    To compute in float64, pass dtype=float64 to this function. If the module has
    recurrent cells, also build these cells with param_dtype=float64. With the default
    param_dtype, float32, Linen's loop over time rejects float64 inputs.

    Args:
      module: A `flax.linen.Module` whose call takes x with one batch axis first.
      example: One x without batch axes, an array or a pytree of arrays. Only its shapes
        and dtypes are used.
      noise: Keyword arguments for the module's call, passed only if apply gets a key,
        such as {"train": True}. None means that deterministic, train, training and
        is_training are set as described above.
      streams: Names of the module's random number streams.
      dtype: Dtype to which init converts the floating parameters. None means no
        conversion.
      **arguments: Keyword arguments for every call of the module, such as train=False.
    Returns:
      A model with the params of the module. Its apply maps x of shape (...,
      *example.shape) to (..., *outputs), where `outputs` is the shape of the module's
      result for one example.
    Raises:
      TypeError: module is not a Linen module.
      ValueError: The module has state besides its params, as BatchNorm does. In apply:
        the structure or the last axes of x differ from those of the example.
    References:
      Flax's documentation, "Flax Linen", Module.init and Module.apply.
    Example:
      >>> import flax.linen as nn
      >>> model = from_linen(nn.Dense(3), jnp.zeros(4))
      >>> params = model.init(jax.random.key(0))
      >>> params["kernel"].shape, model.apply(params, jnp.ones((2, 5, 4))).shape
      ((4, 3), (2, 5, 3))
    """
    _check_is_linen(module)
    check_tree("example", example)
    if noise is not None:
        check_mapping("noise", noise, "names to values")
    check_sequence("streams", streams, "names", str)
    if dtype is not None:
        check_dtype("dtype", dtype)
    flags = _noise_flags(module, arguments) if noise is None else dict(noise)
    quiet = {
        name: not value for name, value in flags.items() if noise is None
    } | arguments
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], example)

    def draw(key: Key) -> Any:
        return module.init({"params": key}, one, **quiet)

    _check_has_no_state(module, shapes_of(draw))

    def init(key: Key) -> Params:
        check_key("key", key)
        params = draw(key).get("params", {})
        return params if dtype is None else jax.tree.map(partial(_cast, dtype), params)

    def apply(params: Params, x: Any, key: Key | None = None) -> Array:
        check_mapping("params", params, "names to arrays")
        check_tree("params", params)
        check_tree("x", x)
        if key is not None:
            check_key("key", key)
        leading, flat = _flattened(x, example)
        if key is None:
            prediction = module.apply({"params": params}, flat, **quiet)
        else:
            rngs = {name: jax.random.fold_in(key, i) for i, name in enumerate(streams)}
            prediction = module.apply(
                {"params": params}, flat, rngs=rngs, **(quiet | flags)
            )
        return jax.tree.map(
            lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), prediction
        )

    return Model(init, apply)


def _check_is_linen(module: Any) -> None:
    from flax import linen as nn

    if not isinstance(module, nn.Module):
        raise TypeError(
            "module must be a flax.linen.Module, already constructed, such as "
            f"nn.Dense(10); got {module!r}. NNX modules are not supported, because "
            "they contain their arrays."
        )


def _check_has_no_state(module: Any, variables: Mapping[str, Any]) -> None:
    state = sorted(set(variables) - {"params"})
    if state:
        raise ValueError(
            f"module must have no state besides its params; {type(module).__name__} "
            f"also has {', '.join(state)}. Use LayerNorm or GroupNorm instead of "
            "BatchNorm, and remove caches."
        )


def _noise_flags(module: Any, arguments: Mapping[str, Any]) -> dict[str, bool]:
    """Find the noise flags of the module's call that are not among the arguments."""
    taken = inspect.signature(type(module).__call__).parameters
    return {
        name: value
        for name, value in NOISE_FLAGS.items()
        if name in taken and name not in arguments
    }


def _cast(dtype: DTypeLike, leaf: Array) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _flattened(x: Any, example: Any) -> tuple[tuple[int, ...], Any]:
    """Return the leading axes of x, and x with these axes flattened into one."""
    if jax.tree.structure(x) != jax.tree.structure(example):
        raise ValueError(
            f"x must have the structure of the example, {jax.tree.structure(example)}; "
            f"got {jax.tree.structure(x)}."
        )
    leaves, likes = (
        jax.tree.leaves(jax.tree.map(jnp.asarray, x)),
        jax.tree.leaves(jax.tree.map(jnp.asarray, example)),
    )
    leading = leaves[0].shape[: max(leaves[0].ndim - likes[0].ndim, 0)]
    for leaf, like in zip(leaves, likes, strict=True):
        if leaf.shape != (*leading, *like.shape):
            raise ValueError(
                f"x must have the example's shape {like.shape} after any leading batch "
                f"axes; got x of shape {leaf.shape}."
            )
    n = math.prod(leading)
    return leading, jax.tree.map(
        lambda leaf: jnp.reshape(leaf, (n, *jnp.shape(leaf)[len(leading) :])), x
    )
