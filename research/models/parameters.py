"""What the parameters of a model are: their names, shapes and number; and whether they fit the model they are given to."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from research.checks import check_key, check_numbers, check_tree
from research.types import Array, Key, Model, Params, Sequences


class Parameter(NamedTuple):
    """One array among the parameters.

    Attributes:
      name: Its path, such as "dense_1/weights"; "params" where the parameters are one array.
      shape: Its shape.
      dtype: Its dtype's name, such as "float32".
      count: How many numbers it holds.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int


def list_parameters(params: Params) -> list[Parameter]:
    """The arrays of the parameters, one row each, in the order of `jax.tree.leaves`.

    Args:
      params: Any pytree of arrays, or of `jax.ShapeDtypeStruct`.
    Returns:
      The rows.
    Example:
      >>> import jax.numpy as jnp
      >>> list_parameters({"dense_1": {"weights": jnp.zeros((2, 3), "float32")}})
      [Parameter(name='dense_1/weights', shape=(2, 3), dtype='float32', count=6)]
    """
    check_tree("params", params)
    if params is None:
        raise TypeError(
            "params must be a pytree of arrays, as a model's init gives them; got params=None."
        )
    return [
        _row(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]


def count_parameters(params: Params) -> int:
    """How many numbers the parameters hold.

    Args:
      params: Any pytree of arrays, or of `jax.ShapeDtypeStruct`; `jax.eval_shape(model.init, key)` draws none of them.
    Returns:
      The number.
    Example:
      >>> from research import models
      >>> count_parameters(models.softmax(64, 10).init(jax.random.key(0)))  # 64 * 10 weights and 10 intercepts
      650
    """
    return sum(row.count for row in list_parameters(params))


def describe(params: Params) -> str:
    """The parameters as a table of text: name, shape, dtype and count of each array, layer_2 before layer_10.

    Args:
      params: Any pytree of arrays, or of `jax.ShapeDtypeStruct`.
    Returns:
      Lines without trailing spaces; the last is the total.
    Example:
      >>> import jax.numpy as jnp
      >>> print(describe({"dense_1": {"weights": jnp.zeros((784, 10), "float32"), "bias": jnp.zeros(10, "float32")}}))
      name             shape    dtype    count
      dense_1/bias     10       float32     10
      dense_1/weights  784, 10  float32  7,840
      total                              7,850
    """
    rows = sorted(list_parameters(params), key=lambda row: _as_read(row.name))
    cells = [("name", "shape", "dtype", "count")]
    cells += [
        (row.name, ", ".join(map(str, row.shape)) or "()", row.dtype, f"{row.count:,}")
        for row in rows
    ]
    cells += [("total", "", "", f"{sum(row.count for row in rows):,}")]
    name, shape, dtype, count = (
        max(map(len, column)) for column in zip(*cells, strict=True)
    )
    return "\n".join(
        f"{a:{name}}  {b:{shape}}  {c:{dtype}}  {d:>{count}}" for a, b, c, d in cells
    )


def check_same_architecture(params: Params, expected: Params) -> None:
    """Refuses parameters that are not those of the model: an array missing, unknown, or of another shape.

    Dtypes may differ: they are no part of the architecture.

    Args:
      params: What was given, from a file for example.
      expected: Parameters of the model, or their shapes, from `shapes_of`.
    Raises:
      ValueError: They differ. The message names the first array that does, and says what to do.
    Example:
      >>> from research import models
      >>> expected = shapes_of(models.softmax(64, 10).init)
      >>> check_same_architecture(models.softmax(64, 3).init(jax.random.key(0)), expected)
      Traceback (most recent call last):
      ValueError: params are those of another architecture: intercept has shape (3,), where the model has (10,)
      (the first of 2 arrays that differ). Build the model with the sizes and options that ... or train it anew.
    """
    check_tree("params", params)
    check_tree("expected", expected)
    given = {row.name: row for row in list_parameters(params)}
    wanted = {row.name: row for row in list_parameters(expected)}
    faults = [
        f"{name} has shape {given[name].shape}, where the model has {row.shape}"
        if name in given
        else f"{name}, of shape {row.shape}, is missing"
        for name, row in wanted.items()
        if name not in given or given[name].shape != row.shape
    ]
    faults += [
        f"the model has no {name}, of shape {row.shape}"
        for name, row in given.items()
        if name not in wanted
    ]
    if not faults and jax.tree.structure(params) != jax.tree.structure(expected):
        faults = [
            f"its containers are {jax.tree.structure(params)}, the model's {jax.tree.structure(expected)}"
        ]
    if faults:
        many = (
            f"\n(the first of {len(faults)} arrays that differ)"
            if len(faults) > 1
            else ""
        )
        raise ValueError(
            f"params are those of another architecture: {faults[0]}{many}. Build the model with the sizes and options "
            "that these parameters were trained with, or train it anew."
        )


def shapes_of(init: Callable[[Key], Params]) -> Params:
    """What init makes, as `jax.ShapeDtypeStruct`: no number is drawn, and no line enters a function being traced.

    Args:
      init: As in `research.types.Model`.
    Example:
      >>> from research import models
      >>> print(shapes_of(models.softmax(64, 10).init)["weights"].shape)
      (64, 10)
    """
    return jax.eval_shape(
        lambda: init(jax.random.key(0))
    )  # The key is made inside: outside, it would be such a line.


def with_own_parameters(
    init: Callable[[Key], Params], apply: Callable[..., Array]
) -> Model:
    """The model of these two functions, whose apply refuses parameters of another architecture.

    Args:
      init, apply: As in `research.types.Model`.
    Returns:
      A model; what its init makes is found out once, by shapes alone.
    Example:
      >>> from research import models
      >>> params = models.mlp((4, 3, 2)).init(jax.random.key(0))
      >>> models.mlp((4, 5, 2)).apply(params, [1.0, 2.0, 3.0, 4.0])
      Traceback (most recent call last):
      ValueError: params are those of another architecture: ...
    """
    expected = functools.cache(lambda: shapes_of(init))

    def checked_init(key: Key) -> Params:
        check_key("key", key)
        return init(key)

    def checked(params: Params, x: Any, key: Key | None = None) -> Array:
        check_same_architecture(params, expected())
        parts = (
            {"x": x}
            if not isinstance(x, tuple)
            else x._asdict()
            if isinstance(x, Sequences)
            else {}
        )
        for (
            name,
            part,
        ) in (
            parts.items()
        ):  # A plain tuple is refused by apply, which knows whether it takes Sequences.
            check_numbers(name, part)
        if key is not None:
            check_key("key", key)
        return apply(params, x, key)

    return Model(checked_init, checked)


def _row(path: tuple[Any, ...], leaf: Any) -> Parameter:
    name = jax.tree_util.keystr(path, simple=True, separator="/") or "params"
    shape = tuple(np.shape(leaf))
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return Parameter(name, shape, str(dtype), math.prod(shape))


def _as_read(name: str) -> list[tuple[int, int, str]]:
    """A key by which layer_2 sorts before layer_10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
    ]
