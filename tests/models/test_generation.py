"""Generation against the loop written out, against the probabilities it should draw by,
and how often it compiles.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from research import models
from research.types import Model

COMPILE_QUICKLY = True  # tests/conftest.py

VOCABULARY, CONTEXT = 7, 4
LOGITS = np.array([0.3, -1.0, 1.2, 0.3, -0.5, 0.0, -9.0])
MANY = np.zeros((4000, 1), int)  # So many prompts, so many draws of one call.


def constant(logits):
    """A model that says the same whatever it is given."""
    return Model(
        lambda key: None,
        lambda params, x, key=None: jnp.broadcast_to(
            jnp.asarray(logits), (*x.shape, len(logits))
        ),
    )


@functools.cache
def small():
    model = models.transformer_decoder(
        VOCABULARY, CONTEXT, width=8, num_layers=1, num_heads=2
    )
    rng = np.random.default_rng(1)  # Its greedy text is no single token over and over.
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)


@pytest.mark.on_ci("large programs; nothing shorter shows this")
@pytest.mark.parametrize(
    "prompt",
    [[3], [1, 5, 2], [6, 0, 1, 5, 2, 4]],
    ids=["short", "shorter than it", "longer"],
)
def test_greedy_text_equals_the_loop_that_slides_the_window(prompt):
    model, params = small()
    tokens = models.generate(
        model, params, jax.random.key(1), prompt, 8, context=CONTEXT, temperature=0
    )
    text, apply = list(prompt), jax.jit(model.apply)
    for _ in range(8):
        text.append(int(jnp.argmax(apply(params, jnp.array(text[-CONTEXT:]))[-1])))
    np.testing.assert_array_equal(tokens, text[len(prompt) :])
    assert len(set(text[len(prompt) :])) >= 3
    assert tokens.dtype == jnp.int32


@pytest.mark.thorough(
    "one candidate; test_frequencies_follow_the_softmax_of_the_candidates has three, "
    "and test_greedy_text_equals_the_loop_that_slides_the_window temperature 0"
)
def test_one_candidate_is_greedy_at_any_temperature():
    model, params = small()
    greedy = models.generate(
        model, params, jax.random.key(1), [3], 8, context=CONTEXT, temperature=0
    )
    for temperature in (0.1, 1.0, 100.0):
        options = {"context": CONTEXT, "temperature": temperature, "top_k": 1}
        np.testing.assert_array_equal(
            models.generate(model, params, jax.random.key(2), [3], 8, **options), greedy
        )
    tied = constant([0.0, 1.0, 1.0])
    for options in ({"temperature": 0}, {"top_k": 1}):  # Of equals the first.
        assert (
            models.generate(tied, None, jax.random.key(3), [0], 1, context=1, **options)
            == 1
        )


@pytest.mark.on_ci("all candidates, and the other temperatures", but=r"3-2\.0")
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 3])
def test_frequencies_follow_the_softmax_of_the_candidates(temperature, top_k):
    tokens = models.generate(
        constant(LOGITS),
        None,
        jax.random.key(4),
        MANY,
        1,
        context=2,
        temperature=temperature,
        top_k=top_k,
    )
    candidates = np.argsort(-LOGITS, kind="stable")[:top_k]
    expected = np.zeros(VOCABULARY)
    expected[candidates] = np.exp(LOGITS[candidates] / temperature)
    expected *= len(MANY) / expected.sum()
    counts = np.bincount(tokens[:, 0], minlength=VOCABULARY)
    assert not counts[expected == 0].any()
    likely = expected > 5
    assert (
        stats.chisquare(
            counts[likely],
            expected[likely] * counts[likely].sum() / expected[likely].sum(),
        ).pvalue
        > 1e-3
    )


@pytest.mark.on_ci("six programs; nothing shorter shows this in half precision")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_draws_by_the_same_probabilities(dtype):
    equal, rare = np.zeros(256), np.log([0.999, 0.001])
    drawn = [
        models.generate(
            constant(jnp.asarray(logits, dtype)),
            None,
            jax.random.key(0),
            np.zeros((20_000, 1), int),
            1,
            context=1,
        )[:, 0]
        for logits in (equal, rare)
    ]
    assert stats.chisquare(np.bincount(drawn[0], minlength=256)).pvalue > 1e-3
    p = float(jax.nn.softmax(jnp.asarray(rare, dtype).astype(float))[1])
    assert stats.binomtest(int(drawn[1].sum()), 20_000, p).pvalue > 1e-3
    # The likeliest of all at a temperature near 0, where the quotients overflow.
    logits = jnp.asarray([0.0, -1.0, -2.0, 1.5], dtype)
    cold = models.generate(
        constant(logits), None, jax.random.key(0), [0], 1, context=1, temperature=1e-5
    )
    assert cold == 3


def test_equal_logits_do_not_let_more_than_k_in():
    tokens = models.generate(
        constant(np.zeros(5)), None, jax.random.key(5), MANY, 1, context=1, top_k=2
    )
    assert set(np.unique(tokens)) == {0, 1}


def test_each_token_and_each_text_has_noise_of_its_own():
    tokens = np.asarray(
        models.generate(
            constant(np.zeros(2)), None, jax.random.key(6), MANY[:300], 10, context=3
        )
    )
    # Fair coins: of 3000 tosses and of the agreements between neighbours a half, within
    # 4 standard errors.
    for share in (tokens, tokens[1:] == tokens[:-1], tokens[:, 1:] == tokens[:, :-1]):
        np.testing.assert_allclose(
            share.mean(), 0.5, atol=4 * 0.5 / np.sqrt(share.size)
        )


@pytest.mark.thorough(
    "drawn tokens; test_greedy_text_equals_the_loop_that_slides_the_window goes on "
    "from its own"
)
def test_the_next_token_sees_those_drawn_before():
    follow = Model(
        lambda key: None,
        lambda params, x, key=None: (
            100.0 * jax.nn.one_hot((x + 2) % VOCABULARY, VOCABULARY)
        ),
    )
    tokens = models.generate(
        follow, None, jax.random.key(7), [[0], [3]], 9, context=CONTEXT
    )
    np.testing.assert_array_equal(
        tokens, (np.array([[0], [3]]) + 2 * np.arange(1, 10)) % VOCABULARY
    )


@pytest.mark.on_ci("two programs; nothing shorter shows this")
def test_more_tokens_begin_with_the_same_and_a_key_is_all_that_is_drawn_from():
    model, params = small()
    few, many, again = (
        models.generate(model, params, jax.random.key(8), [3], count, context=CONTEXT)
        for count in (4, 9, 9)
    )
    np.testing.assert_array_equal(few, many[:4])
    np.testing.assert_array_equal(again, many)
    other = models.generate(model, params, jax.random.key(9), [3], 9, context=CONTEXT)
    assert (other != many).any()


def test_all_prompts_temperatures_and_params_share_one_compiled_program():
    traces = []

    def apply(params, x, key=None):
        traces.append(x.shape)
        return params * jax.nn.one_hot(x, VOCABULARY)

    model = Model(lambda key: None, apply)
    for prompt, temperature, scale in (
        ([1], 1.0, 1.0),
        ([1, 2, 3], 0.5, 2.0),
        (list(range(6)), 0, 3.0),
    ):
        models.generate(
            model,
            jnp.array(scale),
            jax.random.key(10),
            prompt,
            6,
            context=CONTEXT,
            temperature=temperature,
        )
    assert len(set(traces)) == 1
    # Tracing a loop's body may ask for shapes first; a second program would ask as
    # often again.
    first = len(traces)
    models.generate(model, jnp.array(4.0), jax.random.key(11), [5], 6, context=CONTEXT)
    assert len(traces) == first <= 2


def test_what_cannot_be_continued_is_refused_by_name():
    model = constant(LOGITS)

    def refused(error, words, prompt=(1,), num_tokens=1, **options):
        with pytest.raises(error, match=words):
            models.generate(
                model,
                None,
                jax.random.key(12),
                prompt,
                num_tokens,
                **{"context": 2} | options,
            )

    refused(
        ValueError,
        r"prompt must have shape \(\.\.\., T\) with T >= 1; got shape \(0,\)",
        np.zeros(0, int),
    )
    refused(ValueError, r"prompt must have shape .*; got shape \(\)", 3)
    reader = models.recurrent(VOCABULARY, 3, VOCABULARY, embedding=2)
    with pytest.raises(
        ValueError,
        match=(
            r'logits for each token, shape \(2, 3, 7\); got shape \(2, 7\)\. .*"every"'
        ),
    ):
        models.generate(
            reader,
            reader.init(jax.random.key(0)),
            jax.random.key(1),
            [[1], [2]],
            6,
            context=3,
        )
    refused(
        TypeError, r"prompt must be integers; got dtype float64, shape \(1,\)", [0.5]
    )
    refused(
        ValueError,
        "num_tokens must be a positive integer; got num_tokens=0",
        num_tokens=0,
    )
    refused(ValueError, "context must be a positive integer; got context=0", context=0)
    refused(ValueError, "top_k must be a positive integer; got top_k=0", top_k=0)
    refused(
        ValueError,
        "top_k must be at most the 7 symbols of the model; got top_k=8",
        top_k=8,
    )
    for temperature in (-0.1, float("nan")):
        refused(
            ValueError,
            "temperature must be at least 0; got temperature=",
            temperature=temperature,
        )
