"""The losses of next tokens in windows, against the sum written out; the objective on
starts, against batches of windows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import datasets
from research.models import reading
from research.types import Batch, Model

COMPILE_QUICKLY = True  # tests/conftest.py

SIZE, CONTEXT = 4, 3
TOKENS = np.random.default_rng(0).integers(0, SIZE, 23, np.int32)


def bigram():
    """Logits of the next token that are a row of a table: what stands before has no
    part in them.
    """
    return Model(
        lambda key: jax.random.normal(key, (SIZE, SIZE), dtype="float64"),
        lambda params, x, key=None: params[x],
    )


def by_hand(table, start):
    losses = []
    for i in range(start, start + CONTEXT):
        row = np.exp(table[TOKENS[i]])
        losses.append(-np.log(row[TOKENS[i + 1]] / row.sum()))
    return losses


@pytest.mark.on_ci(
    "each loss by itself; test_risk_is_the_mean_and_has_its_gradient has their mean"
)
def test_losses_equal_the_sum_written_out():
    model, starts = bigram(), np.array([0, 7, 19], np.int32)
    params = model.init(jax.random.key(0))
    found = reading.next_token_losses(model, TOKENS, CONTEXT)(params, starts)
    np.testing.assert_allclose(
        found, [by_hand(np.asarray(params), s) for s in starts], rtol=1e-13
    )


def test_risk_is_the_mean_and_has_its_gradient():
    model, starts = bigram(), jnp.array([0, 7, 19, 7])
    params = model.init(jax.random.key(0))
    risk = reading.next_token_risk(model, TOKENS, CONTEXT)
    value, gradient = jax.jit(jax.value_and_grad(risk))(params, Batch(starts, starts))
    assert float(value) == pytest.approx(
        np.mean([by_hand(np.asarray(params), s) for s in np.asarray(starts)])
    )
    # Softmax minus one-hot, summed over what follows each symbol.
    expected = np.zeros((SIZE, SIZE))
    for i in [i for s in np.asarray(starts) for i in range(s, s + CONTEXT)]:
        row = np.exp(params[TOKENS[i]])
        expected[TOKENS[i]] += (row / row.sum() - np.eye(SIZE)[TOKENS[i + 1]]) / (
            len(starts) * CONTEXT
        )
    np.testing.assert_allclose(gradient, expected, atol=1e-14)


@pytest.mark.on_ci(
    "a model with noise; test_objectives.py has the key of a batch in empirical_risk"
)
def test_key_of_the_batch_reaches_the_model():
    def apply(params, x, key=None):
        assert key is not None
        return jax.random.normal(key, (*x.shape, SIZE))

    noisy = Model(lambda key: None, apply)
    risk = reading.next_token_risk(noisy, TOKENS, CONTEXT)
    values = [
        risk(None, Batch(jnp.array([0]), jnp.array([0]), jax.random.key(seed)))
        for seed in (0, 1)
    ]
    assert values[0] != values[1]


@pytest.mark.on_ci("a slice that is larger than the data", but="7")
@pytest.mark.thorough("the other sizes", but="7|100")
@pytest.mark.parametrize("slice_size", [1, 2, 7, 100])
def test_reader_equals_the_losses_at_once_for_any_slice(slice_size):
    model, starts = bigram(), datasets.window_starts(len(TOKENS), CONTEXT, stride=2)
    params = model.init(jax.random.key(0))
    read = reading.reader(model, TOKENS, CONTEXT, slice_size=slice_size)
    assert len(starts) == 10
    whole = reading.next_token_losses(model, TOKENS, CONTEXT)(params, starts)
    np.testing.assert_allclose(read(params, starts), whole, rtol=1e-14)


def test_reader_compiles_once_for_any_number_of_windows():
    traces = []

    def apply(params, x, key=None):
        traces.append(x.shape)
        return params[x]

    read = reading.reader(Model(bigram().init, apply), TOKENS, CONTEXT, slice_size=4)
    for n in (1, 4, 9):
        read(jnp.zeros((SIZE, SIZE)), np.arange(n, dtype=np.int32))
    assert traces == [(4, CONTEXT)]


@pytest.mark.parametrize(
    ("tokens", "context", "words"),
    [
        (TOKENS, 0, "context must be a positive integer; got context=0"),
        (TOKENS[:3], 3, r"at least context \+ 1 = 4 .*got dtype int32, shape \(3,\)"),
        (TOKENS.astype(float), 3, r"integers along one axis; got dtype float64"),
        (TOKENS[None], 3, r"got dtype int32, shape \(1, 23\)"),
    ],
)
def test_bad_text_is_named(tokens, context, words):
    with pytest.raises(ValueError, match=words):
        reading.next_token_losses(bigram(), tokens, context)


def test_model_of_one_prediction_a_window_is_refused():
    model = Model(
        lambda key: None, lambda params, x, key=None: jnp.zeros((*x.shape[:-1], 7))
    )
    with pytest.raises(
        ValueError,
        match=r"logits for each token, shape \(2, 3, 7\); got shape \(2, 7\)",
    ):
        reading.next_token_losses(model, TOKENS, 3)(None, jnp.array([0, 1]))


def test_bad_slice_is_named():
    with pytest.raises(
        ValueError, match="slice_size must be a positive integer; got slice_size=0"
    ):
        reading.reader(bigram(), TOKENS, CONTEXT, slice_size=0)


@pytest.mark.on_ci("the other dtypes", but="uint8")
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_starts_of_any_integer_dtype_reach_their_window(dtype):
    text = np.arange(600) % 7
    model = Model(
        lambda key: None, lambda p, x, key=None: 100 * jax.nn.one_hot((x + 1) % 7, 7)
    )
    starts = np.array([250], dtype)
    if dtype != np.uint64:  # Above 2^63, JAX's int64 could not hold it.
        found = reading.next_token_losses(model, text, 10)(None, starts)
        np.testing.assert_allclose(found, 0.0, atol=1e-12)
    np.testing.assert_array_equal(
        datasets.windows(text, starts, 10), text[None, 250:261]
    )
