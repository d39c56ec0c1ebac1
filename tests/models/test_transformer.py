"""The Transformer against NumPy written out, and what must not change what: later
tokens, padding, order, no key.
"""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.models.embedding import embed, split_sequences
from research.models.transformer_block import init_block
from research.types import Sequences

COMPILE_QUICKLY = True  # tests/conftest.py

VOCABULARY, CONTEXT, SMALL = (
    7,
    5,
    {"width": 8, "num_layers": 2, "num_heads": 2, "hidden": 12},
)
TOKENS = np.array([[3, 0, 6, 3, 1], [2, 2, 5, 0, 4]])
LENGTH = np.array([3, 5])
NUM_CLASSES = 3


@functools.cache
def decoder(**options):
    """A small decoder, compiled, and params none of which is 0."""
    model = models.transformer_decoder(VOCABULARY, CONTEXT, **SMALL | options)
    return jax.jit(model.apply), stirred(jax.eval_shape(model.init, jax.random.key(0)))


@functools.cache
def encoder(**options):
    model = models.transformer_encoder(
        VOCABULARY, CONTEXT, NUM_CLASSES, **SMALL | options
    )
    return jax.jit(model.apply), stirred(jax.eval_shape(model.init, jax.random.key(0)))


def stirred(params):
    """Params of order one, so that no bias is 0 and no attention even."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape)), params
    )


def normalised_by_hand(params, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


def attention_by_hand(params, x, may_look, num_heads):
    """One sequence, (T, width): a loop over heads, queries and keys."""
    size = x.shape[1] // num_heads
    projected = x @ params["query_key_value"]["weights"] + params[
        "query_key_value"
    ].get("bias", 0)
    joined = np.zeros_like(x)
    for head in range(num_heads):
        queries, keys, values = (
            projected[:, part * x.shape[1] + head * size :][:, :size]
            for part in range(3)
        )  # Columns: all queries, all keys, all values; heads within each.
        for t in range(len(x)):
            seen = [s for s in range(len(x)) if may_look(t, s)]
            powers = [math.exp(queries[t] @ keys[s] / math.sqrt(size)) for s in seen]
            mean = sum(
                power * values[s] for power, s in zip(powers, seen, strict=True)
            ) / sum(powers)
            joined[t, head * size :][:size] = mean
    return joined @ params["output"]["weights"] + params["output"].get("bias", 0)


def gelu_by_hand(z):
    return z * np.vectorize(lambda one: 0.5 * (1 + math.erf(one / math.sqrt(2))))(z)


def network_by_hand(params, x):
    hidden = gelu_by_hand(x @ params["dense_1"]["weights"] + params["dense_1"]["bias"])
    return hidden @ params["dense_2"]["weights"] + params["dense_2"]["bias"]


def block_by_hand(params, x, may_look, num_heads, order):
    if order == "pre":
        x = x + attention_by_hand(
            params["attention"],
            normalised_by_hand(params["normalisation_1"], x),
            may_look,
            num_heads,
        )
        return x + network_by_hand(
            params, normalised_by_hand(params["normalisation_2"], x)
        )
    x = normalised_by_hand(
        params["normalisation_1"],
        x + attention_by_hand(params["attention"], x, may_look, num_heads),
    )
    return normalised_by_hand(params["normalisation_2"], x + network_by_hand(params, x))


def waves_by_hand(length, width):
    places = np.zeros((length, width))
    for t in range(length):
        for i in range(width // 2):
            places[t, 2 * i] = math.sin(t / 10000 ** (2 * i / width))
            places[t, 2 * i + 1] = math.cos(t / 10000 ** (2 * i / width))
    return places


def body_by_hand(params, tokens, may_look, positions="learned", order="pre"):
    """From the tokens of one sequence to the vectors that the output reads."""
    params = jax.tree.map(np.asarray, params)
    x = params["tokens"]["weights"][tokens]
    if positions == "learned":
        x = x + params["positions"]["weights"][: len(tokens)]
    else:
        x = x * math.sqrt(x.shape[1]) + waves_by_hand(*x.shape)
    for layer in range(SMALL["num_layers"]):
        x = block_by_hand(
            params[f"block_{layer + 1}"], x, may_look, SMALL["num_heads"], order
        )
    return normalised_by_hand(params["normalisation"], x) if order == "pre" else x


each_kind = pytest.mark.parametrize(
    ("positions", "order"), [("learned", "pre"), ("sinusoidal", "post")]
)


@pytest.mark.thorough(
    (
        "the other three combinations; test_reference_models.py has learned positions "
        "without ties"
    ),
    but="True-sinusoidal",
)
@each_kind
@pytest.mark.parametrize("tied", [False, True])
def test_decoder_equals_the_sums_written_out(positions, order, tied):
    apply, params = decoder(positions=positions, order=order, tied=tied)
    output = np.asarray(
        params["tokens"]["weights"].T if tied else params["output"]["weights"]
    )
    for tokens in (TOKENS[0], TOKENS[1, :3]):
        expected = (
            body_by_hand(params, tokens, lambda t, s: s <= t, positions, order) @ output
        )
        np.testing.assert_allclose(
            apply(params, tokens), expected, rtol=1e-12, atol=1e-13
        )


@pytest.mark.on_ci("test_decoder_equals_the_sums_written_out has the same blocks")
@pytest.mark.thorough(
    "waves and post-norm, which test_decoder_equals_the_sums_written_out has",
    but="learned",
)
@each_kind
def test_encoder_is_the_mean_over_what_counts_written_out(positions, order):
    apply, params = encoder(positions=positions, order=order)
    logits = apply(params, Sequences(TOKENS, LENGTH))
    for row, tokens, length in zip(logits, TOKENS, LENGTH, strict=True):
        vectors = body_by_hand(
            params, tokens[:length], lambda t, s: True, positions, order
        )
        expected = vectors.mean(0) @ np.asarray(
            params["output"]["weights"]
        ) + np.asarray(params["output"]["bias"])
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        apply(params, TOKENS),
        apply(params, Sequences(TOKENS, np.array([5, 5]))),
        rtol=1e-13,
    )


@pytest.mark.on_ci(
    "attention by flax; test_decoder_equals_the_sums_written_out has it by hand"
)
def test_attention_equals_flax_s_and_its_weights_are_means():
    x = np.random.default_rng(1).normal(size=(2, 5, 8))
    mask = np.random.default_rng(2).random((2, 5, 5)) < 0.5
    mask |= np.eye(5, dtype=bool)
    peer = nn.MultiHeadDotProductAttention(num_heads=2, param_dtype=jnp.float64)
    theirs = stirred(jax.eval_shape(peer.init, jax.random.key(0), x))["params"]
    parts = [theirs[name] for name in ("query", "key", "value")]
    ours = {
        "query_key_value": {
            "weights": jnp.concatenate(
                [part["kernel"].reshape(8, 8) for part in parts], axis=1
            ),
            "bias": jnp.concatenate([part["bias"].reshape(8) for part in parts]),
        },
        "output": {
            "weights": theirs["out"]["kernel"].reshape(8, 8),
            "bias": theirs["out"]["bias"],
        },
    }
    expected = jax.jit(peer.apply)({"params": theirs}, x, mask=mask[:, None])
    found = jax.jit(functools.partial(models.attention, num_heads=2))(ours, x, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    weights = jax.jit(functools.partial(models.attention_weights, num_heads=2))(
        ours, x, mask
    )
    assert weights.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), np.ones((2, 2, 5)), rtol=1e-14)
    assert not weights[~np.broadcast_to(mask[:, None], weights.shape)].any()


@pytest.mark.thorough(
    "differences, forward mode and second derivatives; test_reference_models.py has "
    "the gradient of a decoder by torch"
)
def test_derivatives_of_attention_equal_finite_differences_in_both_modes_and_twice():
    params = stirred(
        jax.eval_shape(lambda key: init_block(key, 4, 6, 1, None), jax.random.key(0))
    )["attention"]
    attend = lambda x: jnp.sum(
        jnp.sin(models.attention(params, x, models.causal_mask(3), num_heads=2))
    )
    gradient, curvature = jax.jit(jax.grad(attend)), jax.jit(jax.hessian(attend))
    tangents = jax.jit(lambda x, v: jax.jvp(attend, (x,), (v,))[1])
    x, v, step = *np.random.default_rng(3).normal(size=(2, 3, 4)), 1e-5
    change = (attend(x + step * v) - attend(x - step * v)) / (2 * step)
    np.testing.assert_allclose(
        [tangents(x, v), np.sum(gradient(x) * v)], [change] * 2, rtol=1e-8
    )
    change = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    np.testing.assert_allclose(
        np.einsum("abcd,cd->ab", curvature(x), v), change, rtol=1e-7, atol=1e-9
    )


@pytest.mark.thorough(
    "biases of 0; the decoder of test_the_modern_decoder_equals_numpy_written_out "
    "(test_modern.py) has none"
)
def test_a_bias_that_is_absent_is_zero():
    x = np.random.default_rng(3).normal(size=(5, 8))
    with_zeros = stirred(
        jax.eval_shape(lambda key: init_block(key, 8, 12, 1, None), jax.random.key(0))
    )["attention"]
    with_zeros = {
        name: part | {"bias": jnp.zeros_like(part["bias"])}
        for name, part in with_zeros.items()
    }
    without = {name: {"weights": part["weights"]} for name, part in with_zeros.items()}
    attend = jax.jit(functools.partial(models.attention, num_heads=2))
    results = [attend(params, x) for params in (with_zeros, without)]
    np.testing.assert_array_equal(*results)


@pytest.mark.on_ci(
    "every position; test_decoder_reads_sequences_up_to_their_end changes later "
    "tokens and compares bits too"
)
@pytest.mark.thorough("the other positions", but="learned")
@each_kind
def test_a_token_changes_no_logit_before_it_to_the_last_bit(positions, order):
    apply, params = decoder(positions=positions, order=order)
    before = apply(params, TOKENS)
    for t in range(CONTEXT):
        changed = TOKENS.copy()
        changed[:, t] = (changed[:, t] + 1) % VOCABULARY
        after = apply(params, changed)
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (
            (after[:, t:] != before[:, t:]).any(-1).all()
        )  # And every one from there on.


@pytest.mark.thorough(
    "gradients; test_a_token_changes_no_logit_before_it_to_the_last_bit has the values"
)
def test_gradients_of_a_logit_reach_no_later_position():
    apply, params = decoder()
    sums = lambda places: apply(
        params | {"positions": {"weights": places}}, TOKENS
    ).sum((0, 2))
    grads = np.asarray(jax.jit(jax.jacrev(sums))(params["positions"]["weights"]))
    np.testing.assert_array_equal((grads != 0).any(-1), np.tri(CONTEXT, dtype=bool))


@pytest.mark.on_ci("gradients; nothing shorter shows this")
@pytest.mark.thorough("the other positions", but="learned")
@each_kind
def test_what_stands_after_the_end_changes_neither_value_nor_gradient(positions, order):
    apply, params = encoder(positions=positions, order=order)
    loss = jax.jit(
        jax.value_and_grad(
            lambda params, tokens: jnp.sum(
                jnp.sin(apply(params, Sequences(tokens, LENGTH)))
            )
        )
    )
    value, grads = loss(params, TOKENS)
    for junk in (0, 6, -1, 10**6):  # Also what names no symbol.
        padded = np.where(np.arange(CONTEXT) < LENGTH[:, None], TOKENS, junk)
        other, others = loss(params, padded)
        assert other == value
        jax.tree.map(np.testing.assert_array_equal, others, grads)


def test_decoder_reads_sequences_up_to_their_end():
    apply, params = decoder()
    logits = apply(
        params,
        Sequences(np.where(np.arange(CONTEXT) < LENGTH[:, None], TOKENS, 99), LENGTH),
    )
    for row, full, length in zip(logits, apply(params, TOKENS), LENGTH, strict=True):
        np.testing.assert_array_equal(row[:length], full[:length])


@pytest.mark.thorough(
    "one block; test_an_encoder_without_positions_sees_a_bag_of_tokens has two"
)
def test_a_block_without_mask_permutes_with_its_positions():
    params = stirred(
        jax.eval_shape(lambda key: init_block(key, 8, 12, 1, None), jax.random.key(0))
    )
    x, order = (
        np.random.default_rng(4).normal(size=(2, 5, 8)),
        np.array([3, 0, 4, 1, 2]),
    )
    apply = jax.jit(functools.partial(models.block, num_heads=2))
    np.testing.assert_allclose(
        apply(params, x[:, order]), apply(params, x)[:, order], rtol=1e-12
    )


def test_an_encoder_without_positions_sees_a_bag_of_tokens():
    apply, params = encoder()
    bag = params | {"positions": {"weights": jnp.zeros((CONTEXT, 8))}}
    shuffled = TOKENS[:, [3, 0, 4, 1, 2]]
    np.testing.assert_allclose(apply(bag, shuffled), apply(bag, TOKENS), rtol=1e-12)
    assert not np.allclose(apply(params, shuffled), apply(params, TOKENS), rtol=1e-3)


def test_waves_are_turned_by_a_shift():
    """P[t + k] is P[t] rotated by an angle that depends on k alone: why attention can
    learn distances.
    """
    places = np.asarray(models.sinusoidal_positions(30, 6))
    np.testing.assert_allclose(places, waves_by_hand(30, 6), rtol=1e-13, atol=1e-15)
    for i in range(3):
        angle = 4 / 10000 ** (2 * i / 6)
        turn = np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        np.testing.assert_allclose(
            places[4:, 2 * i : 2 * i + 2],
            places[:-4, 2 * i : 2 * i + 2] @ turn,
            atol=1e-13,
        )
    assert models.sinusoidal_positions(3, 5).shape == (3, 5)


def test_embedding_and_its_gradient_equal_the_rows_and_their_sums():
    rng, num_symbols = np.random.default_rng(5), 9
    weights, tokens = (
        rng.normal(size=(num_symbols, 4)),
        rng.integers(num_symbols, size=(3, 20)),
    )
    upstream = rng.normal(size=(3, 20, 4))
    vectors, pullback = jax.vjp(
        lambda weights: embed(weights, tokens), jnp.asarray(weights)
    )
    np.testing.assert_array_equal(vectors, weights[tokens])
    expected = np.zeros_like(weights)
    np.add.at(expected, tokens, upstream)
    np.testing.assert_allclose(
        pullback(jnp.asarray(upstream))[0], expected, rtol=1e-12, atol=1e-14
    )


@pytest.mark.on_ci("two leading axes; nothing shorter shows this")
@pytest.mark.thorough("fewer axes", but="leading2")
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_leading_axes_of_any_number_equal_the_loop_over_sequences(leading):
    rng = np.random.default_rng(6)
    tokens, length = (
        rng.integers(VOCABULARY, size=(*leading, CONTEXT)),
        rng.integers(1, CONTEXT + 1, size=leading),
    )
    (decode, decoding), (encode, encoding) = decoder(), encoder()
    logits, scores = (
        decode(decoding, tokens),
        encode(encoding, Sequences(tokens, length)),
    )
    assert (logits.shape, scores.shape) == (
        (*leading, CONTEXT, VOCABULARY),
        (*leading, NUM_CLASSES),
    )
    for index in np.ndindex(leading):
        np.testing.assert_allclose(
            logits[index], decode(decoding, tokens[index]), rtol=1e-12, atol=1e-13
        )
        alone = encode(encoding, Sequences(tokens[index], length[index]))
        np.testing.assert_allclose(scores[index], alone, rtol=1e-12, atol=1e-13)


@pytest.mark.on_ci("whole networks; nothing shorter shows this")
def test_no_key_means_no_noise_and_each_key_its_own():
    apply, params = encoder(dropout=0.5)
    plain, _ = encoder()
    np.testing.assert_array_equal(apply(params, TOKENS), plain(params, TOKENS))
    noisy = [apply(params, TOKENS, jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).all()
    assert (noisy[0] != apply(params, TOKENS)).all()


def test_each_sum_of_a_block_draws_noise_of_its_own():
    """Both sublayers give 1 everywhere here, so dropout at 1/2 leaves 0, 2 or 4, as 1 :
    2 : 1 if they are independent.
    """
    shapes = jax.eval_shape(
        lambda key: init_block(key, 8, 12, 1, None), jax.random.key(0)
    )
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    params["attention"]["output"]["bias"] = params["dense_2"]["bias"] = np.ones(8)
    x = np.zeros((50, 5, 8))
    sums = jax.jit(
        lambda key: models.block(params, x, num_heads=2, dropout_rate=0.5, key=key)
    )(jax.random.key(1))
    counts = np.array([np.sum(np.asarray(sums) == value) for value in (0, 2, 4)])
    assert counts.sum() == x.size
    np.testing.assert_allclose(
        counts / x.size, [0.25, 0.5, 0.25], atol=4 * math.sqrt(0.25 / x.size)
    )


@pytest.mark.on_ci("the start of every layer; nothing shorter shows this")
def test_the_initial_point_is_as_it_is_told():
    model = models.transformer_decoder(
        100, 50, width=64, num_layers=2, dtype=jnp.float32
    )
    params = jax.jit(model.init)(jax.random.key(2))
    block = params["block_2"]
    scales = {
        0.02: (
            params["tokens"],
            params["positions"],
            params["output"],
            block["attention"]["query_key_value"],
            block["dense_1"],
        ),
        0.02 / 2: (block["attention"]["output"], block["dense_2"]),  # 2 = sqrt(2 * 2)
    }
    for scale, layers in scales.items():
        for layer in layers:
            # The standard deviation of m normal draws has relative standard error
            # 1/sqrt(2 m): 4 of them.
            weights = np.asarray(layer["weights"])
            np.testing.assert_allclose(
                weights.std(), scale, rtol=4 / math.sqrt(2 * weights.size)
            )
            assert not np.any(layer.get("bias", 0))
    drawn = [
        np.asarray(leaf).ravel()[:50]
        for leaf in jax.tree.leaves(params)
        if leaf.ndim == 2
    ]
    assert len(np.unique(np.stack(drawn), axis=0)) == len(
        drawn
    )  # No two layers from the same draws.


@pytest.mark.on_ci("a whole network; nothing shorter shows this")
def test_the_initial_point_is_as_it_is_told_with_tied_tokens():
    waves = models.transformer_decoder(
        100, 50, width=64, positions="sinusoidal", tied=True, num_layers=1, order="post"
    )
    params = jax.jit(waves.init)(jax.random.key(3))
    assert set(params) == {"tokens", "block_1"}
    np.testing.assert_allclose(
        np.std(params["tokens"]["weights"]), 1 / 8, rtol=4 / math.sqrt(2 * 6400)
    )


@pytest.mark.thorough("the other dtypes", but="bfloat16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_every_number_keeps_the_dtype_of_the_params(dtype):
    model = models.transformer_encoder(
        VOCABULARY, CONTEXT, NUM_CLASSES, **SMALL, dropout=0.1, dtype=dtype
    )
    with jax.numpy_dtype_promotion("strict"):
        params = jax.eval_shape(model.init, jax.random.key(4))
        sequences = Sequences(TOKENS.astype(np.int32), LENGTH.astype(np.int32))
        program = jax.make_jaxpr(model.apply)(params, sequences, jax.random.key(5))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert program.out_avals[0].dtype == dtype
    if dtype != jnp.float64:  # Scalars aside: jax.random's bounds are two.
        assert not re.search(r"f64\[\d", str(program))


def test_each_dense_product_has_two_axes():
    model = models.transformer_decoder(VOCABULARY, CONTEXT, **SMALL)
    params = jax.eval_shape(model.init, jax.random.key(0))
    loss = jax.grad(lambda params: model.apply(params, TOKENS).sum())
    products = [
        e
        for e in jax.make_jaxpr(loss)(params).eqns
        if e.primitive.name == "dot_general"
    ]
    ranks = {tuple(value.aval.ndim for value in product.invars) for product in products}
    assert len(products) > 20
    assert all(pair == (2, 2) or min(pair) >= 3 for pair in ranks), (
        ranks
    )  # Three and more: attention's own batches.


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"num_heads": 3},
            (
                r"width must be divisible by num_heads; got width=8, num_heads=3. "
                r"num_heads may be one of 1, 2, 4, 8"
            ),
        ),
        ({"num_layers": 0}, "num_layers must be a positive integer; got num_layers=0"),
        ({"hidden": 1.5}, "hidden must be a positive integer; got hidden=1.5"),
        ({"order": "middle"}, "order must be one of pre, post; got order='middle'"),
        (
            {"positions": "none"},
            "positions must be one of learned, .*, rotary; got positions='none'",
        ),
        ({"activation": "step"}, "activation must be one of .*; got activation='step'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got dropout=1.0"),
    ],
)
def test_a_wrong_option_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        models.transformer_decoder(VOCABULARY, CONTEXT, **SMALL | wrong)
    with pytest.raises(ValueError, match=words):
        models.transformer_encoder(VOCABULARY, CONTEXT, NUM_CLASSES, **SMALL | wrong)


def test_wrong_counts_are_refused_by_name():
    with pytest.raises(
        ValueError,
        match="vocabulary_size must be a positive integer; got vocabulary_size=0",
    ):
        models.transformer_decoder(0, CONTEXT)
    with pytest.raises(
        ValueError,
        match="num_classes must be an integer of at least 2; got num_classes=1",
    ):
        models.transformer_encoder(VOCABULARY, CONTEXT, 1)


@pytest.mark.parametrize(
    ("x", "weights"), [((3, 8), (8, 16)), ((8,), (8, 24)), ((3, 4), (8, 24))]
)
def test_x_that_does_not_fit_attention_s_weights_is_refused(x, weights):
    params = {
        "query_key_value": {"weights": jnp.zeros(weights)},
        "output": {"weights": jnp.zeros((8, 8))},
    }
    with pytest.raises(
        ValueError,
        match=r"x must have shape \(\.\.\., T, width\) and query_key_value's weights",
    ):
        models.attention(params, jnp.zeros(x), num_heads=2)


def test_wrong_tokens_are_refused_when_traced_too():
    for apply, params in (decoder(), encoder()):
        for shape in ((), (0,), (2, 0), (CONTEXT + 1,)):
            with pytest.raises(
                ValueError,
                match=(
                    r"tokens must have shape \(\.\.\., T\) with T in 1\.\.5, .*; got "
                    r"shape"
                ),
            ):
                apply(params, jnp.zeros(shape, int))
        with pytest.raises(
            TypeError, match=r"tokens must be integers; got dtype float32"
        ):
            apply(params, jnp.zeros(3, jnp.float32))
    with pytest.raises(TypeError, match=r"tokens must be integers.*got dtype float32"):
        embed(jnp.ones((3, 2)), jnp.zeros(3, jnp.float32))


def test_wrong_lengths_are_refused():
    for length, words in (
        ([0, 3], "0 is 0"),
        ([3, 6], "1 is 6"),
        ([3], r"length must have shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            split_sequences(Sequences(TOKENS, np.array(length)), CONTEXT)
    with pytest.raises(
        TypeError, match="length must have an integer dtype; got float64"
    ):
        split_sequences(Sequences(TOKENS, np.array([1.5, 2.0])), CONTEXT)
    for wrong in (-1, VOCABULARY):
        with pytest.raises(ValueError, match="tokens must lie in"):
            split_sequences(np.array([0, wrong]), CONTEXT, VOCABULARY)
    split_sequences(
        Sequences(np.array([0, -1]), np.array(1)), CONTEXT, VOCABULARY
    )  # After the end anything may stand.
    with pytest.raises(TypeError, match="mask must be boolean"):
        models.attention(
            {"query_key_value": {"weights": np.ones((2, 6))}},
            np.ones((3, 2)),
            np.zeros((3, 3)),
            num_heads=1,
        )


@pytest.mark.on_ci("without a leading axis", but="leading1")
@pytest.mark.parametrize("leading", [(), (3,)])
def test_a_mask_has_one_of_the_documented_shapes(leading):
    params = {"query_key_value": {"weights": np.ones((2, 6))}}
    x = np.ones((*leading, 4, 2))
    weights = lambda shape: models.attention_weights(
        params, x, np.ones(shape, bool), num_heads=1
    )
    for shape in ((4, 4), (*leading, 1, 4), (*leading, 4, 4)):
        assert weights(shape).shape == (*leading, 1, 4, 4)
    for shape in ((4,), (4, 1), (*leading, 4, 1), (3, 4), (*leading, 1, 4, 4), (5, 5)):
        with pytest.raises(
            ValueError, match=r"mask must have the shape \(T, T\), .*got"
        ):
            weights(shape)


def test_tokens_outside_the_vocabulary_are_refused_with_their_place():
    models.check_tokens(TOKENS, VOCABULARY)
    models.check_tokens(np.zeros((0, 3), int), VOCABULARY)
    for wrong in (-1, VOCABULARY):
        tokens = TOKENS.copy()
        tokens[1, 2] = wrong
        with pytest.raises(
            ValueError,
            match=rf"text must lie in 0\.\.6, .*; got {wrong} at index \(1, 2\)",
        ):
            models.check_tokens(tokens, VOCABULARY, "text")
    with pytest.raises(TypeError, match="tokens must be integers; got dtype float64"):
        models.check_tokens(TOKENS.astype(float), VOCABULARY)
