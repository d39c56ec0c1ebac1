"""Names and shapes of a model's parameters, and checks that they fit the model."""

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
    """Description of one array of the parameters.

    Attributes:
      name: Path of the array, such as "dense_1/weights". The path is "params" if the
        parameters are one array.
      shape: Shape of the array.
      dtype: Name of the dtype, such as "float32".
      count: Number of entries of the array.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int


def list_parameters(params: Params) -> list[Parameter]:
    """List the arrays of the parameters, in the order of `jax.tree.leaves`.

    Args:
      params: Any pytree of arrays, or of `jax.ShapeDtypeStruct`.
    Returns:
      One `Parameter` for each array.
    Raises:
      TypeError: params is None, or a leaf is not an array of numbers.
    Example:
      >>> import jax.numpy as jnp
      >>> list_parameters({"dense_1": {"weights": jnp.zeros((2, 3), "float32")}})
      [Parameter(name='dense_1/weights', shape=(2, 3), dtype='float32', count=6)]
    """
    check_tree("params", params, for_jax=False, needs_values=False)
    if params is None:
        raise TypeError(
            "params must be a pytree of arrays, as a model's init returns; got "
            "params=None."
        )
    return [
        _row(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]


def count_parameters(params: Params) -> int:
    """Count the entries of all parameters.

    Args:
      params: Any pytree of arrays, or of `jax.ShapeDtypeStruct`.
        `jax.eval_shape(model.init, key)` returns such a pytree without drawing numbers.
    Returns:
      The total number of entries.
    Example:
      >>> from research import models
      >>> model = models.softmax(64, 10)
      >>> # 64 * 10 weights, 10 intercepts
      >>> count_parameters(
      ...     model.init(jax.random.key(0))
      ... )
      650
    """
    return sum(row.count for row in list_parameters(params))


def describe(params: Params) -> str:
    """Format the parameters as a table of names, shapes, dtypes and numbers of entries.

    The rows are in natural order of the names: layer_2 comes before layer_10.

    Args:
      params: Any pytree of arrays, or of `jax.ShapeDtypeStruct`.
    Returns:
      The table. The last line is the total.
    Example:
      >>> import jax.numpy as jnp
      >>> layer = {
      ...     "weights": jnp.zeros((784, 10), "float32"),
      ...     "bias": jnp.zeros(10, "float32"),
      ... }
      >>> print(describe({"dense_1": layer}))
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
    """Raise an error unless params have a model's names, shapes and pytree structure.

    The dtypes may differ, because dtypes are not part of the architecture.

    Args:
      params: Parameters, for example from a file.
      expected: Parameters of the model, or their shapes from `shapes_of`.
    Raises:
      ValueError: The names, the shapes or the structures of the pytrees differ. The
        message shows the first difference and says what to do.
    Example:
      >>> from research import models
      >>> expected = shapes_of(models.softmax(64, 10).init)
      >>> params = models.softmax(64, 3).init(jax.random.key(0))
      >>> check_same_architecture(params, expected)
      Traceback (most recent call last):
      ValueError: params belong to another architecture: intercept has shape (3,), ...
    """
    check_tree("params", params, needs_values=False)
    check_tree("expected", expected, needs_values=False)
    given = {row.name: row for row in list_parameters(params)}
    wanted = {row.name: row for row in list_parameters(expected)}
    faults = [
        f"{name} has shape {given[name].shape}, but the model's has {row.shape}"
        if name in given
        else f"{name} of shape {row.shape} is missing"
        for name, row in wanted.items()
        if name not in given or given[name].shape != row.shape
    ]
    faults += [
        f"the model has no {name} of shape {row.shape}"
        for name, row in given.items()
        if name not in wanted
    ]
    if not faults and jax.tree.structure(params) != jax.tree.structure(expected):
        faults = [
            f"their structure is {jax.tree.structure(params)}, that of the model "
            f"{jax.tree.structure(expected)}"
        ]
    if faults:
        many = (
            f"\n(the first of {len(faults)} arrays that differ)"
            if len(faults) > 1
            else ""
        )
        raise ValueError(
            f"params belong to another architecture: {faults[0]}{many}. Build the "
            "model with the sizes and options of these parameters, or train it again."
        )


def architecture_check(init: Callable[[Key], Params]) -> Callable[[Params], None]:
    """Build a function that raises an error unless params belong to a model.

    The function raises the errors of `check_same_architecture`, but takes less time. It
    compares the names only if the structures or the shapes differ.

    Args:
      init: Function (key) -> params of the model.
    Returns:
      A function (params) -> None. Its first call computes the shapes of the model.
    Example:
      >>> from research import models
      >>> architecture_check(models.softmax(64, 10).init)({"weights": 1.0})
      Traceback (most recent call last):
      ValueError: params belong to another architecture: ...
    """
    expected = functools.cache(lambda: shapes_of(init))
    shapes = functools.cache(lambda: check_tree("expected", expected()))

    def check(params: Params) -> None:
        if check_tree("params", params) != shapes():
            check_same_architecture(params, expected())

    return check


def shapes_of(init: Callable[[Key], Params]) -> Params:
    """Compute the shapes and dtypes of a model's parameters, without drawing numbers.

    Args:
      init: Function (key) -> params, as in `research.types.Model`.
    Returns:
      A pytree of `jax.ShapeDtypeStruct` with the structure of the params.
    Example:
      >>> from research import models
      >>> print(shapes_of(models.softmax(64, 10).init)["weights"].shape)
      (64, 10)
    """
    # Create the key inside, so that nothing is added to a program that is being traced.
    return jax.eval_shape(lambda: init(jax.random.key(0)))


def with_own_parameters(
    init: Callable[[Key], Params], apply: Callable[..., Array]
) -> Model:
    """Build a model whose apply checks that params have the architecture of the model.

    Args:
      init, apply: Functions of the model, as in `research.types.Model`.
    Returns:
      The model. At the first call of apply, the expected shapes are computed without
      drawing parameters. init and apply also check that the argument `key` is a JAX
      random key, and apply checks that x contains numbers.
    Example:
      >>> from research import models
      >>> params = models.mlp((4, 3, 2)).init(jax.random.key(0))
      >>> models.mlp((4, 5, 2)).apply(params, [1.0, 2.0, 3.0, 4.0])
      Traceback (most recent call last):
      ValueError: params belong to another architecture: ...
    """
    check_architecture = architecture_check(init)

    def checked_init(key: Key) -> Params:
        check_key("key", key)
        return init(key)

    def checked(params: Params, x: Any, key: Key | None = None) -> Array:
        check_architecture(params)
        parts = (
            {"x": x}
            if not isinstance(x, tuple)
            else x._asdict()
            if isinstance(x, Sequences)
            else {}
        )
        # apply itself rejects a plain tuple, because only apply knows whether x may be
        # Sequences.
        for name, part in parts.items():
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
    """Return a sort key that places layer_2 before layer_10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
    ]
