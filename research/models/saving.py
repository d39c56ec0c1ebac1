"""Save the parameters of a model to a .safetensors file, and load them."""

import hashlib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import (
    check_mapping,
    check_methods,
    check_not_deleted,
    check_path,
    check_text,
    is_array,
    shown,
)
from research.files import canonical, safetensors_bytes, write_atomically
from research.models.parameters import list_parameters, shapes_of
from research.reading import parse_json, read_bytes
from research.reading.safetensors import TruncatedError, read_safetensors
from research.types import Model, Params

MOST_BYTES = 2**36  # Maximum size of a file that is read.
FORMAT = "descent-1"
WRITTEN_BY = (
    "It was not written by research.models.save. Read it with the package safetensors, "
    "and save the arrays again."
)


def save(path: str | Path, params: Params, architecture: Mapping[str, Any]) -> None:
    """Save parameters as a .safetensors file, with the model architecture and a digest.

    The file contains every array, unchanged to the last bit, under its name, such as
    "dense_1/weights". Every program that reads the safetensors format can read the
    file. The metadata contain the architecture as JSON, and a digest, with which `load`
    detects a damaged file. The digest is the SHA-256 of the architecture and of the
    names, dtypes, shapes and bytes of the arrays. The data are written to a temporary
    file, which is renamed to `path` when it is complete.

    Args:
      path: Path of the file. Its folder must exist.
      params: Pytree of arrays of floats, integers or truth values.
      architecture: Everything that another program needs to build the same model, as a
        mapping from names to JSON values, such as {"model": "mlp", "sizes": [4, 16, 3],
        "activation": "relu"}. Include the names of the classes, and the values that
        convert data to inputs, such as the mean and the standard deviation of the
        training data. `load` raises an error if its argument `architecture` differs.
    Raises:
      TypeError: A leaf of params is not an array or has a dtype that the format lacks
        (complex numbers, keys), or JSON cannot store a value of architecture.
      ValueError: Two arrays have the same name, or architecture is empty.
      OSError: The file cannot be written.
    References:
      The safetensors format, github.com/huggingface/safetensors, README, "Format".
    Example:
      >>> import tempfile
      >>> from research import models
      >>> sizes = [4, 16, 3]
      >>> model = models.mlp(sizes)
      >>> params = model.init(jax.random.key(0))
      >>> path = Path(tempfile.mkdtemp()) / "flowers.safetensors"
      >>> save(path, params, {"model": "mlp", "sizes": sizes})
      >>> architecture = read_architecture(path)
      >>> architecture
      {'model': 'mlp', 'sizes': [4, 16, 3]}
      >>> loaded = load(path, models.mlp(architecture["sizes"]), architecture)
      >>> bool((loaded["dense_1"]["weights"] == params["dense_1"]["weights"]).all())
      True
    """
    check_path("path", path)
    arrays, text = named_arrays(params), _text(architecture)
    metadata = {"format": FORMAT, "architecture": text, "digest": _digest(arrays, text)}
    write_atomically(path, safetensors_bytes(arrays, metadata))


def load(path: str | Path, model: Model, architecture: Mapping[str, Any]) -> Params:
    """Load the parameters of a model from a file that `save` wrote.

    Nothing in the file is executed, and no array can be larger than the file. If the
    file differs from the expected model or architecture, an error is raised. Without
    this check, for example, a network with relu could get the weights of a network with
    tanh, and would predict wrong numbers without notice.

    Args:
      path: Path of the file.
      model: The model to which the parameters belong. The model determines the
        structure of the result.
      architecture: The architecture that the caller expects, as in `save`. If you do
        not know the architecture, call `read_architecture`, and build the model from
        the result.
    Returns:
      The parameters: JAX arrays in a pytree of the same structure as the result of
      `model.init`. Every bit is as it was saved.
    Raises:
      ValueError: The file is truncated, is damaged (its digest differs), is not a
        .safetensors file, has a header that contradicts itself, was not written by
        `save`, has another architecture, or contains arrays that do not fit the model.
        The message names the file and says what is wrong.
      OSError: The file cannot be read.
    Example:
      >>> import tempfile
      >>> from research import models
      >>> path = Path(tempfile.mkdtemp()) / "flowers.safetensors"
      >>> tanh = {"model": "mlp", "sizes": [4, 16, 3], "activation": "tanh"}
      >>> params = models.mlp((4, 16, 3), activation="tanh").init(jax.random.key(0))
      >>> save(path, params, tanh)
      >>> load(path, models.mlp((4, 16, 3)), tanh | {"activation": "relu"})
      Traceback (most recent call last):
      ValueError: .../flowers.safetensors belongs to another architecture: ...
    """
    check_methods("model", model, "init", "apply")
    wanted = _text(architecture)
    arrays, text = _read(path)
    difference = _difference(_parsed(text), _parsed(wanted), "architecture")
    if difference:
        raise ValueError(
            f"{path} belongs to another architecture: {difference}. Build the model of "
            "the file; research.models.read_architecture(path) describes it."
        )
    return params_from(model, arrays, str(path))


def read_architecture(path: str | Path) -> dict[str, Any]:
    """Read the architecture in a file that `save` wrote.

    The architecture is a dict of the values that are needed to build the model. The
    values come from the file: check them before you build a large model from them.

    Args:
      path: Path of the file.
    Returns:
      The architecture. The names of the values are in alphabetical order, as `save`
      writes them. Tuples have become lists, because JSON has no tuples.
    Raises:
      ValueError: The file is truncated or damaged, or was not written by `save`.
      OSError: The file cannot be read.
    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "line.safetensors"
      >>> save(path, {"weights": jnp.ones(2)}, {"model": "linear", "features": 2})
      >>> read_architecture(path)
      {'features': 2, 'model': 'linear'}
    """
    return _parsed(_read(path)[1])


def named_arrays(params: Params) -> dict[str, np.ndarray]:
    """Return the arrays of the parameters by name, as NumPy arrays.

    Args:
      params: Any pytree of arrays.
    Returns:
      A dict from the name of each array to the array. The names are those of
      `list_parameters`.
    Raises:
      ValueError: Two arrays have the same name.
      TypeError: A leaf is not an array of numbers.
    Example:
      >>> named_arrays({"dense_1": {"bias": jnp.zeros(2)}})
      {'dense_1/bias': array([0., 0.])}
    """
    names = [row.name for row in list_parameters(params)]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(
            f"params must have names without '/'; two arrays have the name {twice[0]!r}"
            "."
        )
    leaves = jax.tree.leaves(params)
    for name, leaf in zip(names, leaves, strict=True):
        if not is_array(leaf):
            raise TypeError(f"params must hold arrays; {name} is {shown(leaf)}.")
        check_not_deleted(f"{name} of params", leaf)
    return dict(zip(names, map(np.asarray, leaves), strict=True))


def params_from(
    model: Model, arrays: Mapping[str, np.ndarray], where: str = "arrays"
) -> Params:
    """Put named arrays into the structure of a model's parameters.

    Args:
      model: The model.
      arrays: Arrays by name, as `named_arrays` returns them.
      where: Name of the source of the arrays, for messages.
    Returns:
      The parameters: JAX arrays in a pytree of the same structure as the result of
      `model.init`.
    Raises:
      ValueError: An array of the model is missing, `arrays` has a name that the model
        does not have, or an array has another shape or dtype than in the model.
      TypeError: A value of `arrays` is not an array.
    Example:
      >>> from research import models
      >>> model = models.linear(2, dtype="float32")
      >>> arrays = named_arrays(model.init(jax.random.key(0)))
      >>> params_from(model, arrays | {"weights": np.zeros(3, "float32")}, "my arrays")
      Traceback (most recent call last):
      ValueError: my arrays belongs to another architecture: weights has shape (3,), ...
    """
    check_methods("model", model, "init", "apply")
    check_mapping("arrays", arrays, "names to arrays")
    check_text("where", where)
    for name, array in arrays.items():
        if not is_array(array):
            raise TypeError(f"arrays must hold arrays; {name} is {shown(array)}.")
    expected = shapes_of(model.init)
    wanted = {row.name: row for row in list_parameters(expected)}
    faults = [f"{name} is missing" for name in wanted if name not in arrays]
    faults += [f"the model has no {name}" for name in arrays if name not in wanted]
    faults += [
        f"{name} has shape {arrays[name].shape}, but the model's has {row.shape}"
        for name, row in wanted.items()
        if name in arrays and arrays[name].shape != row.shape
    ]
    if faults:
        raise ValueError(
            f"{where} belongs to another architecture: {faults[0]}. Build the model "
            "with the sizes and options of these parameters."
        )
    for name, row in wanted.items():
        if str(arrays[name].dtype) != row.dtype:
            raise ValueError(
                f"{where} has {name} in {arrays[name].dtype}, but the model's is in "
                f"{row.dtype}. Build the model with dtype={str(arrays[name].dtype)!r}; "
                "float64 also needs research.backend.configure(x64=True)."
            )
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(expected), leaves)


def _read(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """Read the arrays and the architecture of a file, and check its digest."""
    check_path("path", path)
    data = read_bytes(path, MOST_BYTES)
    try:
        arrays, metadata = read_safetensors(data)
    except TruncatedError as error:
        raise ValueError(f"{path} cannot be loaded: {error}. Copy it again.") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded: {error}.") from error
    if metadata.get("format") != FORMAT or not {"architecture", "digest"} <= {
        *metadata
    }:
        raise ValueError(f"{path} has no architecture of this project. {WRITTEN_BY}")
    text = metadata["architecture"]
    if metadata["digest"] != _digest(arrays, text):
        raise ValueError(
            f"{path} is damaged: its digest differs from its content. Copy it again."
        )
    try:
        if _text(_parsed(text)) != text:
            raise ValueError("its JSON is not in the form that save writes.")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has an architecture that is not valid: {error} {WRITTEN_BY}"
        ) from error
    return arrays, text


def _text(architecture: Mapping[str, Any]) -> str:
    check_mapping("architecture", architecture, "names to JSON values")
    if not architecture:
        raise ValueError(
            "architecture must describe the model, such as {'model': 'mlp', 'sizes': "
            "[4, 16, 3]}; got an empty mapping."
        )
    return canonical(architecture, "architecture")


def _parsed(text: str) -> Any:
    return parse_json(text.encode(errors="surrogatepass"))


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode(errors="surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name!r} {array.dtype.name} {array.shape}\n".encode())
        # Use the byte order of the file, because the array may have another one.
        in_file = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(in_file.tobytes())
    return digest.hexdigest()


def _difference(found: Any, wanted: Any, where: str) -> str:
    """Return the first difference of two JSON values in words, or an empty text."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted({*found, *wanted}):
            own = f"{where}[{name!r}]"
            if name not in found or name not in wanted:
                return f"{own} is only in {'the file' if name in found else 'yours'}"
            if inner := _difference(found[name], wanted[name], own):
                return inner
        return ""
    if canonical(found) == canonical(wanted):
        return ""
    return (
        f"{where} is {reprlib.repr(found)} in the file and {reprlib.repr(wanted)} in "
        "yours"
    )
