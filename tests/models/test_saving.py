"""Laws of files of weights: what is saved is loaded bit by bit, and every other file is
refused for what it is.
"""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.reading.safetensors import DTYPES, read_safetensors
from research.types import Model

MLP = {"model": "mlp", "sizes": [2, 3, 2], "activation": "relu"}
# Written by the package safetensors 0.8.0, with `safetensors.numpy.save`.
THEIRS = (
    b" \x01\x00\x00\x00\x00\x00\x00"
    b'{"__metadata__":{"made by":"safetensors 0.8.0"},"step":{"dtype":"I64",'
    b'"shape":[],"data_offsets":[0,8]},"weights":{"dtype":"F32","shape":[2,2'
    b'],"data_offsets":[8,24]},"bias":{"dtype":"F16","shape":[2],"data_offse'
    b'ts":[24,28]},"mask":{"dtype":"BOOL","shape":[2],"data_offsets":[28,30]'
    b"}}      "
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80\xc0\x008\x00\xb8\x01\x00"
)


def model_of(params):
    """A model with these initial parameters."""
    return Model(lambda key: params, lambda params, x, key=None: x)


def mlp(sizes=(2, 3, 2), **options):
    return models.mlp(sizes, **{"dtype": "float32", **options})


@pytest.fixture
def weights(tmp_path):
    """A file with the weights of an MLP."""
    path = tmp_path / "w.safetensors"
    models.save(path, mlp().init(jax.random.key(0)), MLP)
    return path


def test_what_is_loaded_has_every_bit_of_what_was_saved(tmp_path):
    rng = np.random.default_rng(0)
    leaves = [
        jnp.asarray(np.frombuffer(rng.bytes(dtype.itemsize * size), np.uint8) & 1)
        if dtype.kind == "b"
        else jnp.asarray(
            np.frombuffer(rng.bytes(dtype.itemsize * size), np.uint8).view(dtype)
        )
        for dtype in DTYPES.values()
        for size in (0, 6)
    ]
    params = {"a": leaves, "b": (leaves[-1].reshape(2, 3), leaves[-1][0])}
    models.save(tmp_path / "w", params, {"model": "mine"})
    loaded = models.load(tmp_path / "w", model_of(params), {"model": "mine"})
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for ours, theirs in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True
    ):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_arrays_in_the_other_order_of_bytes_are_saved_by_value(tmp_path):
    params = {"a": np.array([1.5, -2.0, 3e5]).astype(">f4")}
    models.save(tmp_path / "w", params, {"model": "mine"})
    wanted = {"a": params["a"].astype("<f4")}
    loaded = models.load(tmp_path / "w", model_of(wanted), {"model": "mine"})
    np.testing.assert_array_equal(loaded["a"], wanted["a"])


def test_a_file_of_the_package_is_read_as_it_was_written():
    arrays, metadata = read_safetensors(THEIRS)
    assert metadata == {"made by": "safetensors 0.8.0"}
    assert {name: (a.dtype.str, a.tolist()) for name, a in arrays.items()} == {
        "weights": ("<f4", [[1, 2], [3, -4]]),
        "bias": ("<f2", [0.5, -0.5]),
        "step": ("<i8", 7),
        "mask": ("|b1", [True, False]),
    }


def test_our_file_follows_the_format(weights):
    # An independent reading, after the README of the format.
    data = weights.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__")["format"] == "descent-1"
    params = models.load(weights, mlp(), MLP)
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        found = np.frombuffer(data[8 + length + first : 8 + length + last], "<f4")
        layer, leaf = name.split("/")
        assert entry["dtype"] == "F32"
        assert found.tolist() == np.ravel(params[layer][leaf]).tolist()
    assert sum(
        e["data_offsets"][1] - e["data_offsets"][0] for e in header.values()
    ) == (len(data) - 8 - length)


def test_a_file_that_is_cut_off_is_called_truncated(weights):
    data = weights.read_bytes()
    for size in range(len(data)):
        weights.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"w\.safetensors cannot .* truncated"):
            models.read_architecture(weights)


def test_a_changed_bit_is_refused(weights):
    data = weights.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 7
        weights.write_bytes(changed)
        with pytest.raises(ValueError, match=r"w\.safetensors"):
            models.read_architecture(weights)


def crafted(arrays, data, architecture='{"model":"mlp"}'):
    """A file with any header."""
    header = json.dumps({"__metadata__": {"architecture": architecture}} | arrays)
    return len(header).to_bytes(8, "little") + header.encode() + data


def entry(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04" + bytes(100), "is not a .safetensors file"),
        (b"\x80\x04\x95" + bytes(100), "is not a .safetensors file"),
        (crafted({"w": entry([2], [0, 8])}, bytes(9)), "1 bytes after its arrays"),
        (
            crafted({"w": entry([2], [0, 8]), "v": entry([2], [4, 12])}, bytes(12)),
            "shares bytes",
        ),
        (
            crafted({"w": entry([1], [0, 4]), "v": entry([1], [8, 12])}, bytes(12)),
            "leaves a gap",
        ),
        (crafted({"w": entry([3], [0, 8])}, bytes(8)), "needs 12 bytes"),
        (crafted({"w": entry([-2, -1], [0, 8])}, bytes(8)), "none of them negative"),
        (crafted({"w": entry([2**40] * 3, [0, 8])}, b""), "none of them negative"),
        (crafted({"w": entry([0, 2**70], [0, 0])}, b""), "none of them negative"),
        (crafted({"w": entry([1] * 99, [0, 4])}, bytes(4)), "none of them negative"),
        (crafted({"w": entry([2], [-8, 0])}, bytes(8)), "the byte range"),
        (crafted({"w": entry([2], [0, 8], "O")}, bytes(8)), "has dtype 'O'; it must"),
        (crafted({"w": entry([True], [0, 4])}, bytes(4)), "must be an integer"),
        (crafted({"w": entry([2], [0, 2], "BOOL")}, b"\1\2"), "other than 0 and 1"),
        (crafted({"w": 3}, b""), "it must be an object"),
        (crafted({"w": entry([1], [0, 4])}, bytes(4)), "has no architecture"),
        (THEIRS, "has no architecture"),
    ],
)
def test_a_hostile_file_is_refused_for_what_it_is(tmp_path, data, told):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told) as error:
        models.load(path, mlp(), MLP)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("model", "architecture", "told"),
    [
        (
            mlp(activation="tanh"),
            MLP | {"activation": "tanh"},
            "'relu' in the file and",
        ),
        (mlp(), MLP | {"classes": ["a", "b"]}, "'classes'] is only in yours"),
        (mlp(), {"model": "mlp"}, "'activation'] is only in the file"),
        (mlp((2, 4, 2)), MLP, "dense_1/bias has shape (3,), but the model's has (4,)"),
        (mlp((2, 3, 3, 2)), MLP, "dense_3/bias is missing"),
        (models.softmax(2, 2), MLP, "intercept is missing"),
        (mlp(dtype="float64"), MLP, "in float32, but the model's is in float64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_of_another_architecture_are_refused(
    weights, model, architecture, told
):
    with pytest.raises(ValueError, match=r"w\.safetensors (belongs|has)") as error:
        models.load(weights, model, architecture)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("params", "architecture", "told"),
    [
        ({"w": jnp.ones(2, complex)}, MLP, "'w' has dtype complex128"),
        ({"w": jax.random.key(0)}, MLP, "arrays of numbers"),
        (
            {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}},
            MLP,
            "two arrays have the name",
        ),
        ({"__metadata__": jnp.ones(1)}, MLP, "rename it"),
        ({"w": jnp.ones(1)}, {}, "architecture must describe the model"),
        ({"w": jnp.ones(1)}, {"sizes": np.ones(2)}, r"architecture.sizes is a ndarray"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_a_file_exists(
    tmp_path, params, architecture, told
):
    with pytest.raises((ValueError, TypeError), match=told):
        models.save(tmp_path / "w", params, architecture)
    assert list(tmp_path.iterdir()) == []
