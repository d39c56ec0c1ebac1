"""`explain` survives every model and every kind of value: it draws, writes and answers,
whatever the dtypes inside are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.derivatives import explain
from research.types import Sequences

COMPILE_QUICKLY = True  # tests/conftest.py

TOKENS, LENGTH = jnp.array([[1, 2, 3, 0]]), jnp.array([3])
IMAGE, NUMBERS = (
    jnp.linspace(0.0, 1.0, 36).reshape(1, 6, 6, 1),
    jnp.linspace(0.0, 1.0, 4)[None],
)
FLOAT0 = jax.dtypes.float0
# name -> (model, what it reads).
MODELS = {
    "decoder": (
        lambda: models.transformer_decoder(5, 4, width=4, num_layers=1, num_heads=2),
        TOKENS,
    ),
    "encoder": (
        lambda: models.transformer_encoder(5, 4, 3, width=4, num_layers=1, num_heads=2),
        (TOKENS, LENGTH),
    ),
    "linear": (lambda: models.linear(4), NUMBERS),
    "logistic": (lambda: models.logistic(4), NUMBERS),
    "softmax": (lambda: models.softmax(4, 3), NUMBERS),
    "perceptron": (lambda: models.mlp([4, 3, 2]), NUMBERS),
    "recurrent": (lambda: models.recurrent(2, 3, 2), NUMBERS.reshape(1, 2, 2)),
    "convolutional": (
        lambda: models.cnn((6, 6, 1), 3, channels=(2,), hidden=()),
        IMAGE,
    ),
}


def drawn(f, *args, level="mathematics"):
    """Everything that a ledger can be asked for."""
    ledger = explain(f, *args, level=level)
    pieces = [ledger.text(), repr(ledger), ledger.svg(), ledger._repr_html_()]
    assert all(pieces)
    assert ledger.first_nonfinite() is None
    ledger.at_kinks()
    return ledger


@pytest.mark.thorough("the other models", but="linear|logistic")
@pytest.mark.parametrize("name", MODELS)
def test_model_is_explained_with_the_gradient_of_jax(name):
    make, given = MODELS[name]
    model, x = make(), Sequences(*given) if isinstance(given, tuple) else given
    params = model.init(jax.random.key(0))
    loss = lambda params: jnp.sum(model.apply(params, x) ** 2)
    ledger = drawn(loss, params)
    for ours, theirs in zip(
        jax.tree.leaves(ledger.grads),
        jax.tree.leaves(jax.grad(loss)(params)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def integer_tangent(x, shape):
    """Differentiates a product with an integer, whose tangent is of the dtype
    float0.
    """
    given = jnp.ones(shape, int), x
    return jnp.sum(
        jax.jvp(lambda i, y: i * y, given, (np.zeros(shape, FLOAT0), jnp.ones_like(x)))[
            1
        ]
    )


@jax.custom_jvp
def counted(n, x):
    return n * x


@counted.defjvp
def _(point, change):
    return counted(*point), point[0] * change[1]


@jax.custom_vjp
def picked(x, i):
    return x[i]


picked.defvjp(
    lambda x, i: (x[i], (x, i)),
    lambda kept, d: (jnp.zeros_like(kept[0]).at[kept[1]].set(d), None),
)

NARROW = (
    "bfloat16",
    "float16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int4",
    "uint4",
    "int8",
    "uint64",
    "bool",
)
VALUES = {
    **{
        f"tangent of an integer, {shape}": (
            functools.partial(integer_tangent, shape=shape),
            2.0,
        )
        for shape in [(), (5,)]
    },
    "integer into a jvp rule": (lambda x: counted(3, x), 2.0),
    "vector of integers into a jvp rule": (
        lambda x: jnp.sum(counted(jnp.arange(5), x)),
        2.0,
    ),
    "integer into a vjp rule": (
        lambda x: picked(x, 1) * picked(x, jnp.int8(0)),
        jnp.ones(2),
    ),
    "key that is closed over": (
        lambda x: jnp.sum(x * jax.random.normal(jax.random.key(1), (5,))),
        jnp.ones(5),
    ),
    "several keys": (
        lambda x: (
            x
            * jnp.sum(
                jax.vmap(jax.random.normal)(jax.random.split(jax.random.key(1), 5))
            )
        ),
        2.0,
    ),
    **{
        f"{name} inside": (
            lambda x, name=name: x * jnp.ones(5, name).astype(float).sum(),
            2.0,
        )
        for name in NARROW
    },
    **{
        f"{name} alone": (
            lambda x, name=name: x * jnp.ones((), name).astype(float),
            2.0,
        )
        for name in NARROW
    },
    "empty array": (lambda x: jnp.sum(x[:0]) + jnp.sum(x), jnp.ones(3)),
    "complex": (lambda x: jnp.abs(jnp.sum(x * 1j)) ** 2, jnp.ones(5)),
}


@pytest.mark.on_ci(
    "the other values at the level of primitives",
    but=r"-mathematics\]|^(key|bfloat16|integer into a jvp).*-primitives\]",
)
@pytest.mark.thorough(
    "narrow dtypes alone, and more keys and integers",
    but=r"^(?!\w+ alone|several|vector|tangent of an integer, \(5)",
)
@pytest.mark.parametrize("level", ["mathematics", "primitives"])
@pytest.mark.parametrize("name", VALUES)
def test_value_of_any_kind_is_explained(name, level):
    f, x = VALUES[name]
    drawn(f, x, level=level)
