"""Models that compute in half precision with parameters of full precision."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from research.checks import check_dtype, check_numbers, check_tree
from research.models.images import check_model
from research.models.parameters import list_parameters
from research.types import Array, Key, Model, Params, Sequences


def mixed_precision(model: Model, compute_dtype: DTypeLike = "bfloat16") -> Model:
    """Build a model that computes in a narrow dtype, with params in a wider dtype.

    In apply, the params and the floating inputs are rounded to compute_dtype. Then the
    model is applied, and the prediction is converted back to the dtype of the params.
    With params in float32, the loss, its gradient, the state of an update rule and the
    updated params are therefore in float32.

    Params in bfloat16 would be too coarse for training, because they have 8 significant
    bits. An update below 0.2 % of a parameter would be lost. Moving averages in the
    state of an update rule would be too coarse, too. In each step, a moving average m
    with the decay b changes by (1 - b) (v - m), where v is the new value. If b is above
    0.996, the factor 1 - b is below 0.4 %. In bfloat16, most of these changes would be
    lost, and the average would hardly change.

    Normalisations and the softmax of `attention` are computed in float32. The
    prediction differs from a prediction in float32 by the rounding errors of all
    layers. In bfloat16, the relative rounding error of a number is at most 2⁻⁸, and the
    range is that of float32. In float16, numbers above 65,504 overflow, and numbers
    below about 3e-8 become 0. With float16, multiply the loss by a large constant, and
    divide the gradient by this constant. Otherwise small entries of the gradient become
    0.

    Args:
      model: Model of this library, or any model whose apply accepts params of the
        compute dtype.
      compute_dtype: Dtype of the computation.
    Returns:
      A model with the init of `model`. Its predictions have the dtype of the params
      that are given to apply.
    Raises:
      TypeError: compute_dtype is not floating. The apply of the result raises TypeError
        if a floating array of the params does not have more bits than compute_dtype.
    References:
      Micikevicius et al., Mixed precision training, ICLR 2018, section 3.1 (the copy of
      the weights in float32).
    Example:
      >>> from research import models
      >>> model = mixed_precision(models.mlp((2, 8, 1), dtype="float32"))
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jnp.ones((5, 2))).dtype
      dtype('float32')
    """
    check_model(model)
    check_dtype("compute_dtype", compute_dtype)
    narrow = jnp.dtype(compute_dtype)

    def to_narrow(leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        return array.astype(narrow) if floating else leaf

    def apply(params: Params, x: Any, key: Key | None = None) -> Array:
        check_tree("params", params)
        _check_wider(params, narrow)
        rounded = jax.tree.map(to_narrow, params)
        if isinstance(x, Sequences):
            x = x._replace(values=to_narrow(_checked("x.values", x.values)))
        elif not isinstance(x, tuple):  # The model refuses a plain tuple.
            x = to_narrow(_checked("x", x))
        return model.apply(rounded, x, key).astype(_widest(params))

    return Model(model.init, apply)


def _checked(name: str, value: Any) -> Any:
    check_numbers(name, value)
    return value


def _widest(params: Params) -> Any:
    """Return the result type of the floating parameters."""
    dtypes = [row.dtype for row in list_parameters(params)]
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.result_type(*floating) if floating else jnp.result_type(float)


def _check_wider(params: Params, narrow: Any) -> None:
    for row in list_parameters(params):
        dtype = jnp.dtype(row.dtype)
        if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= narrow.itemsize:
            raise TypeError(
                f"params must be wider than compute_dtype={narrow}, because an update "
                f"rule keeps its state in their dtype; got {row.name} of dtype {dtype}."
                ' Build the model with dtype="float32". For parameters that must be '
                "narrow, give only the rule a float32 state: "
                'research.update_rules.with_state_dtype(rule, "float32").'
            )
