"""Laws of what a model's parameters are called, and of the refusal of another
model's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.models import parameters
from research.models.parameters import (
    check_same_architecture,
    count_parameters,
    describe,
    list_parameters,
)

COMPILE_QUICKLY = True  # tests/conftest.py


class Pair(NamedTuple):
    first: object
    second: object


PARAMS = {
    "dense_10": {
        "weights": jnp.zeros((3, 2), jnp.float32),
        "bias": jnp.zeros(2, jnp.bfloat16),
    },
    "dense_2": [
        jnp.zeros((), jnp.float64),
        Pair(np.zeros((1, 1, 4), np.float32), np.zeros(0, np.float32)),
    ],
}


def test_rows_name_every_leaf_in_the_order_of_the_tree():
    rows = list_parameters(PARAMS)
    assert [tuple(row) for row in rows] == [
        ("dense_10/bias", (2,), "bfloat16", 2),
        ("dense_10/weights", (3, 2), "float32", 6),
        ("dense_2/0", (), "float64", 1),
        ("dense_2/1/first", (1, 1, 4), "float32", 4),
        ("dense_2/1/second", (0,), "float32", 0),
    ]
    for row, leaf in zip(rows, jax.tree.leaves(PARAMS), strict=True):
        assert (row.shape, row.dtype, row.count) == (
            leaf.shape,
            str(leaf.dtype),
            leaf.size,
        )


def test_a_lone_array_is_called_params_and_no_array_is_no_row():
    assert list_parameters(jnp.zeros(3, jnp.float32))[0].name == "params"
    assert list_parameters({}) == []
    assert describe({}).splitlines()[-1].split() == ["total", "0"]


def test_the_count_is_the_sum_of_sizes_and_needs_no_draw():
    model = models.mlp((784, 300, 100, 10))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert count_parameters(shapes) == 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert count_parameters(PARAMS) == 13


def test_the_table_lists_layer_2_before_layer_10_and_aligns_its_columns():
    lines = describe(PARAMS).splitlines()
    assert [line.split()[0] for line in lines] == [
        *(
            "name",
            "dense_2/0",
            "dense_2/1/first",
            "dense_2/1/second",
            "dense_10/bias",
            "dense_10/weights",
            "total",
        ),
    ]
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["total", "13"]


def test_the_same_architecture_passes_whatever_its_dtype():
    expected = jax.eval_shape(
        models.mlp((3, 4, 2), dtype=jnp.float32).init, jax.random.key(0)
    )
    check_same_architecture(
        models.mlp((3, 4, 2), dtype=jnp.float64).init(jax.random.key(1)), expected
    )


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        (
            (3, 5, 2),
            (
                r"dense_1/bias has shape \(5,\), but the model's has \(4,\)\n\(the "
                r"first of 3 arrays"
            ),
        ),
        (
            (3, 4, 1),
            (
                r"dense_2/bias has shape \(1,\), but the model's has \(2,\)\n\(the "
                r"first of 2 arrays"
            ),
        ),
        (
            (3, 2),
            (
                r"dense_1/bias has shape \(2,\), but the model's has \(4,\)\n\(the "
                r"first of 4 arrays"
            ),
        ),
        (
            (3, 4, 2, 2),
            r"the model has no dense_3/bias of shape \(2,\)\n\(the first of 2 arrays",
        ),
    ],
)
def test_another_architecture_is_refused_by_the_first_array_that_differs(sizes, fault):
    expected = models.mlp((3, 4, 2)).init(jax.random.key(0))
    with pytest.raises(
        ValueError,
        match=(
            rf"another architecture: {fault} that differ\)\. Build the model with the "
            r"sizes"
        ),
    ):
        check_same_architecture(models.mlp(sizes).init(jax.random.key(0)), expected)


def test_a_missing_array_and_another_container_are_refused():
    expected = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    with pytest.raises(ValueError, match=r"architecture: .*b.* of shape \(3,\)"):
        check_same_architecture({"a": jnp.zeros(2)}, expected)
    with pytest.raises(
        ValueError,
        match=(
            r"their structure is PyTreeDef\(\(\*,\)\), that of the model "
            r"PyTreeDef\(\[\*\]\)"
        ),
    ):
        check_same_architecture((jnp.zeros(2),), [jnp.zeros(2)])


NETWORKS = {
    "linear": (models.linear(4), models.softmax(4, 3), np.zeros(4)),
    "softmax": (models.softmax(4, 2), models.softmax(4, 3), np.zeros(4)),
    "mlp": (models.mlp((4, 3, 2)), models.mlp((4, 5, 2)), np.zeros(4)),
    "cnn": (
        models.cnn((4, 4, 1), 2, channels=(3,), hidden=()),
        models.cnn((4, 4, 1), 2, channels=(3,), hidden=(3,)),
        0,
    ),
    "recurrent": (
        models.recurrent(2, 3, 2),
        models.recurrent(2, 3, 2, num_layers=2),
        np.zeros((5, 2)),
    ),
    "decoder": (
        models.transformer_decoder(7, 4, width=4, num_layers=2, num_heads=1),
        models.transformer_decoder(7, 4, width=4, num_layers=1, num_heads=1),
        np.zeros(4, int),
    ),
}


@pytest.mark.on_ci("two networks that are compiled again; nothing shorter shows this")
def test_names_are_compared_only_if_the_architecture_differs(monkeypatch):
    listed = []
    monkeypatch.setattr(
        parameters,
        "list_parameters",
        lambda params: listed.append(1) or list_parameters(params),
    )
    model = models.mlp((3, 4, 2))
    params = model.init(jax.random.key(0))
    model.apply(params, np.ones(3))
    network = models.recurrence(2, 3, 2)
    network.advance(network.init(jax.random.key(0)), np.ones((1, 2)), network.start(()))
    assert not listed
    with pytest.raises(ValueError, match="another architecture"):
        model.apply({**params, "dense_3": params["dense_1"]}, np.ones(3))
    assert listed


@pytest.mark.on_ci("the other networks", but="mlp")
@pytest.mark.thorough("the larger networks", but="linear|softmax|mlp|recurrent")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_refuses_the_weights_of_another_architecture(name):
    one, other, x = NETWORKS[name]
    x = np.zeros((4, 4, 1)) if name == "cnn" else x
    for model, strange in ((one, other), (other, one)):
        with pytest.raises(ValueError, match="params belong to another architecture"):
            jax.jit(model.apply)(strange.init(jax.random.key(0)), x)


@pytest.mark.on_ci("the other models", but="mlp")
@pytest.mark.thorough("the largest of the models", but=r"^(?!transformer)")
@pytest.mark.parametrize(
    ("model", "x"),
    [
        (models.linear(3), jnp.ones(3)),
        (models.mlp((3, 4, 2)), jnp.ones(3)),
        (models.cnn((4, 4, 1), 2, channels=(2,), hidden=(3,)), jnp.ones((4, 4, 1))),
        (models.recurrent(3, 4, 2), jnp.ones((2, 3))),
        (
            models.transformer_decoder(5, 4, width=8, num_layers=1, num_heads=2),
            jnp.arange(4),
        ),
    ],
    ids=["linear", "mlp", "cnn", "recurrent", "transformer"],
)
def test_the_first_trace_of_a_model_is_that_of_all_others(model, x):
    params = model.init(jax.random.key(0))
    first, again = (str(jax.make_jaxpr(model.apply)(params, x)) for _ in range(2))
    assert first == again
    assert "random" not in first


@pytest.mark.on_ci(
    "a recurrence; test_the_first_trace_of_a_model_is_that_of_all_others has another "
    "model"
)
def test_the_first_step_of_a_recurrence_is_traced_as_all_others():
    network = models.recurrence(3, 4, 2)
    params, carry = network.init(jax.random.key(0)), network.start(())
    first, again = (
        str(jax.make_jaxpr(network.advance)(params, jnp.ones((1, 3)), carry))
        for _ in range(2)
    )
    assert first == again
    assert "random" not in first
