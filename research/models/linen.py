"""Any Flax Linen module as a model; Flax is imported when the first is made, and nowhere else in this package."""

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

# Flags by which Linen modules are told to draw their noise, and their value while it is drawn.
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
    """A Flax Linen module as a model: its "params" are the parameters, and a key switches its noise on.

    The module is always called with one batch axis: leading axes of x, none included, are flattened into one before it
    and restored after it. Its parameters keep Linen's names and layouts ("kernel" is what our own layers call weights).

    A key is folded once for each of the streams. Where the module's call takes a flag named deterministic, train,
    training or is_training, the flag says whether there is a key; a flag that is given among the arguments stays as it
    is given, and noise says otherwise.

    In float64, give the module's recurrent cells param_dtype=float64: their carry starts in it, and under its default,
    float32, Linen's loop over time refuses float64 inputs. For other layers dtype is enough.

    Args:
      module: A `flax.linen.Module` whose call takes x with one batch axis first.
      example: One x without batch axes, an array or a pytree of them; its shapes and dtypes are what counts.
      noise: Keyword arguments of the call that differ when a key is given, such as {"train": True}; None: the flag
        above.
      streams: The names by which the module asks for random numbers.
      dtype: Parameters are cast to it once they are drawn; None leaves them as the module draws them.
      arguments: Keyword arguments of every call, such as train=False.
    Returns:
      A model with the params of the module; its apply maps x of shape (..., *example.shape) to (..., *outputs).
    Raises:
      TypeError: module is no Linen module.
      ValueError: The module keeps state beside its params, as BatchNorm does; in apply, x ends in other axes than the
        example.
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
            f"module must be a flax.linen.Module, already constructed, such as nn.Dense(10); got {module!r}. "
            "An NNX module is none: it holds its arrays in itself."
        )


def _check_has_no_state(module: Any, variables: Mapping[str, Any]) -> None:
    state = sorted(set(variables) - {"params"})
    if state:
        raise ValueError(
            f"module must keep nothing but params, for a model here is a pure function of them; {type(module).__name__} "
            f"also keeps {', '.join(state)}. Put LayerNorm or GroupNorm in the place of BatchNorm, and leave out caches."
        )


def _noise_flags(module: Any, arguments: Mapping[str, Any]) -> dict[str, bool]:
    """The flags that the module's call takes and that are not given, with their values while noise is drawn."""
    taken = inspect.signature(type(module).__call__).parameters
    return {
        name: value
        for name, value in NOISE_FLAGS.items()
        if name in taken and name not in arguments
    }


def _cast(dtype: DTypeLike, leaf: Array) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _flattened(x: Any, example: Any) -> tuple[tuple[int, ...], Any]:
    """The leading axes of x, and x with one in their place."""
    if jax.tree.structure(x) != jax.tree.structure(example):
        raise ValueError(
            f"x must be built as the example is, {jax.tree.structure(example)}; got {jax.tree.structure(x)}."
        )
    leaves, likes = (
        jax.tree.leaves(jax.tree.map(jnp.asarray, x)),
        jax.tree.leaves(jax.tree.map(jnp.asarray, example)),
    )
    leading = leaves[0].shape[: max(leaves[0].ndim - likes[0].ndim, 0)]
    for leaf, like in zip(leaves, likes, strict=True):
        if leaf.shape != (*leading, *like.shape):
            raise ValueError(
                f"x must have the example's shape {like.shape}, after any leading batch axes; got x of shape {leaf.shape}."
            )
    n = math.prod(leading)
    return leading, jax.tree.map(
        lambda leaf: jnp.reshape(leaf, (n, *jnp.shape(leaf)[len(leading) :])), x
    )
