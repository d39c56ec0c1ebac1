"""The newer parts: RMS normalisation, rotary positions, gates, grouped queries, caps,
weight standardisation, mixed precision, initial states. Each against Flax, NumPy or a
second form of our own, to 1e-12 in float64.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models, update_rules
from research.models._resnet import _layout
from research.types import Sequences

COMPILE_QUICKLY = True  # tests/conftest.py

BOUND = 1e-12
close = functools.partial(np.testing.assert_allclose, rtol=BOUND, atol=BOUND)
MODERN = {
    "width": 12,
    "num_layers": 1,
    "num_heads": 3,
    "positions": "rotary",
    "normalisation": "rms",
    "gated": True,
    "activation": "silu",
    "bias": False,
    "num_key_value_heads": 1,
    "query_key_normalisation": True,
    "logit_softcap": 3.0,
    "tied": True,
}
VOCABULARY, CONTEXT = 7, 5
TOKENS = np.array([[3, 0, 6, 3, 1], [2, 2, 5, 0, 4]])


def drawn(init, seed=0):
    """Params of order one in the shapes of init."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: 0.5 * rng.normal(size=leaf.shape),
        jax.eval_shape(init, jax.random.key(0)),
    )


def rms_by_hand(x, scale):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale


def rotated_by_hand(x, base=10000.0):
    """Pairs as complex numbers, times exp(i t / base^(2i / d))."""
    length, size = x.shape[-2:]
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    angles = np.arange(length)[:, None] * base ** (-np.arange(0, size, 2) / size)
    turned = pairs * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def attention_by_hand(params, x, num_heads, num_groups):
    """One sequence, causal, head by head."""
    length, width = x.shape
    size = width // num_heads
    projected = x @ params["query_key_value"]["weights"]
    columns = lambda start, i: projected[:, start + i * size :][:, :size]
    outputs = []
    for head in range(num_heads):
        group = head // (num_heads // num_groups)
        query = columns(0, head)
        key = columns(width, group)
        value = columns(width + num_groups * size, group)
        query = rms_by_hand(query, params["query_normalisation"]["scale"])
        key = rms_by_hand(key, params["key_normalisation"]["scale"])
        scores = rotated_by_hand(query) @ rotated_by_hand(key).T / np.sqrt(size)
        powers = np.where(np.tri(length, dtype=bool), np.exp(scores), 0)
        outputs.append(powers / powers.sum(-1, keepdims=True) @ value)
    return np.concatenate(outputs, -1) @ params["output"]["weights"]


def decoder_by_hand(params, tokens):
    """One block of `MODERN`, written out in NumPy."""
    x = params["tokens"]["weights"][tokens]
    block = params["block_1"]
    entering = rms_by_hand(x, block["normalisation_1"]["scale"])
    x = x + attention_by_hand(block["attention"], entering, 3, 1)
    entering = rms_by_hand(x, block["normalisation_2"]["scale"])
    gate = entering @ block["gate"]["weights"]
    hidden = gate / (1 + np.exp(-gate)) * (entering @ block["dense_1"]["weights"])
    x = x + hidden @ block["dense_2"]["weights"]
    x = rms_by_hand(x, params["normalisation"]["scale"])
    return 3.0 * np.tanh(x @ params["tokens"]["weights"].T / 3.0)


def test_the_modern_decoder_equals_numpy_written_out():
    model = models.transformer_decoder(VOCABULARY, CONTEXT, **MODERN)
    params = drawn(model.init)
    logits = jax.jit(model.apply)(params, TOKENS)
    for row, tokens in zip(logits, TOKENS, strict=True):
        close(row, decoder_by_hand(params, tokens))
    names = {row.name for row in models.list_parameters(params)}
    assert not any("bias" in name for name in names)
    assert names.isdisjoint({"output/weights", "positions/weights"})


def test_rms_normalisation_and_its_derivatives_equal_flax():
    x, scale = np.random.default_rng(1).normal(size=(2, 4, 6))[0], np.arange(1.0, 7.0)
    theirs = lambda x, s: nn.RMSNorm(epsilon=1e-6).apply({"params": {"scale": s}}, x)
    value = lambda f: lambda x, s: jnp.sum(jnp.sin(f(x, s)))
    both = jax.jit(
        lambda x, s: [
            (f(x, s), jax.grad(value(f), (0, 1))(x, s))
            for f in (models.rms_normalisation, theirs)
        ]
    )
    jax.tree.map(close, *both(x, scale))


@pytest.mark.thorough(
    "rotations alone; test_the_modern_decoder_equals_numpy_written_out has complex "
    "products in its attention"
)
def test_rotations_equal_complex_products_and_depend_on_differences_alone():
    x = np.random.default_rng(2).normal(size=(3, 9, 6))
    angles = models.rotary_angles(12, 6)
    close(models.rotate(x, angles), rotated_by_hand(x))
    query, key = np.random.default_rng(3).normal(size=(2, 6))
    turned = lambda v: np.asarray(models.rotate(np.tile(v, (12, 1)), angles))
    products = turned(query) @ turned(key).T
    for shift in range(-3, 4):
        diagonal = np.diagonal(products, shift)
        close(diagonal, np.full_like(diagonal, diagonal[0]))


def test_grouped_queries_equal_heads_whose_keys_and_values_are_repeated():
    x = np.random.default_rng(4).normal(size=(2, 5, 8))
    parts = np.random.default_rng(5).normal(size=(3, 8, 8))
    output = {"weights": parts[2]}
    queries, pairs = parts[0], parts[1].reshape(8, 2, 2, 2)  # (width, k or v, group, d)
    grouped = {
        "query_key_value": {
            "weights": np.concatenate([queries, parts[1]], axis=1),
        },
        "output": output,
    }
    repeated = np.repeat(pairs, 2, axis=2).reshape(8, 16)
    whole = {
        "query_key_value": {"weights": np.concatenate([queries, repeated], axis=1)},
        "output": output,
    }
    mask = models.causal_mask(5)
    both = jax.jit(
        lambda x: [
            models.attention(grouped, x, mask, num_heads=4, num_key_value_heads=2),
            models.attention(whole, x, mask, num_heads=4),
            models.attention_weights(grouped, x, num_heads=4, num_key_value_heads=2),
            models.attention_weights(whole, x, num_heads=4),
        ]
    )(x)
    close(both[0], both[1])
    close(both[2], both[3])


@pytest.mark.thorough(
    "what test_the_modern_decoder_equals_numpy_written_out has in numbers: its sums "
    "reach no later token"
)
def test_no_token_changes_a_logit_before_it_and_prefixes_agree():
    model = models.transformer_decoder(VOCABULARY, CONTEXT, **MODERN)
    apply, params = jax.jit(model.apply), drawn(model.init)
    before = apply(params, TOKENS)
    changed = TOKENS.copy()
    changed[:, 3] = (changed[:, 3] + 1) % VOCABULARY
    after = apply(params, changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).any(-1).all()
    close(apply(params, TOKENS[:, :3]), before[:, :3])
    assert (jnp.abs(before) < 3).all()


@pytest.mark.thorough(
    "JAX differentiates all parts but the normalisation, tested above, and the masked "
    "softmax, which test_reference_models.py has"
)
def test_the_gradient_of_the_modern_decoder_equals_differences():
    model = models.transformer_decoder(VOCABULARY, CONTEXT, **MODERN)
    params = drawn(model.init)
    value = jax.jit(lambda params: jnp.sum(jnp.sin(model.apply(params, TOKENS))))
    gradient = jax.jit(jax.grad(value))(params)
    rng, step = np.random.default_rng(6), 1e-4
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    moved = lambda s: value(jax.tree.map(lambda a, v: a + s * v, params, direction))
    central = lambda h: (moved(h) - moved(-h)) / (2 * h)
    difference = (4 * central(step) - central(2 * step)) / 3  # Error of order h⁴.
    slope = sum(
        jnp.sum(g * v)
        for g, v in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    )
    np.testing.assert_allclose(slope, difference, rtol=1e-8)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_key_value_heads": 2}, "num_heads must be divisible by num_key_value"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be a positive integer"),
        ({"num_heads": 5}, "width must be divisible by num_heads; got width=12"),
        ({"num_heads": 4}, r"width / num_heads must be even for positions=\"rotary\""),
        ({"normalisation": "batch"}, "normalisation must be one of layer, rms"),
        ({"logit_softcap": 0.0}, "logit_softcap must be a finite number, positive"),
        ({"rotary_base": -1.0}, "rotary_base must be a finite number, positive"),
    ],
)
def test_wrong_options_are_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        models.transformer_decoder(VOCABULARY, CONTEXT, **MODERN | wrong)


def test_a_context_beyond_the_table_is_refused():
    model = models.transformer_decoder(VOCABULARY, CONTEXT, **MODERN)
    with pytest.raises(ValueError, match=r"T in 1\.\.5, the context of this model"):
        model.apply(drawn(model.init), np.zeros((2, 6), int))
    with pytest.raises(ValueError, match=r"a table of 5\. Call rotary_angles"):
        models.rotate(np.zeros((6, 4)), models.rotary_angles(5, 4))
    with pytest.raises(ValueError, match=r"angles \(context, d / 2\)"):
        models.rotate(np.zeros((5, 4)), models.rotary_angles(5, 6))
    with pytest.raises(ValueError, match="size must be even"):
        models.rotary_angles(5, 3)


class LinenResNet(nn.Module):
    """Two stages of one block, with the convolutions of XLA."""

    channels: tuple

    def convolve(self, x, name, channels, size, stride):
        shape = (size, size, x.shape[-1], channels)
        w = self.param(f"{name}/weights", nn.initializers.ones, shape)
        gain = self.param(f"{name}/gain", nn.initializers.ones, (channels,))
        mean, v = (f(w, axis=(0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
        factor = gain[None, None, None] / jnp.sqrt(np.prod(shape[:3]) * (v + 1e-6))
        w = (w - mean) * factor
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    @nn.compact
    def __call__(self, x):
        norm = lambda x, name: nn.GroupNorm(1, epsilon=1e-5, name=name)(x)
        x, before = self.convolve(x, "convolution", self.channels[0], 3, 1), None
        for i, channels in enumerate(self.channels, 1):
            stride = 1 if i == 1 else 2
            entering = nn.relu(norm(x, f"block_{i}/normalisation_1"))
            if before not in (None, channels):
                x = self.convolve(entering, f"block_{i}/shortcut", channels, 1, stride)
            y = self.convolve(entering, f"block_{i}/convolution_1", channels, 3, stride)
            y = nn.relu(norm(y, f"block_{i}/normalisation_2"))
            x = x + self.convolve(y, f"block_{i}/convolution_2", channels, 3, 1)
            before = channels
        x = nn.relu(norm(x, "normalisation"))
        return nn.Dense(3, name="dense")(jnp.mean(x, axis=(1, 2)))


def flat_names(params):
    """Our params by the names of `LinenResNet`."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *parts, last = [entry.key for entry in path]
        if parts[0] == "dense":
            flat.setdefault("dense", {})[{"weights": "kernel"}.get(last, last)] = leaf
        elif "normalisation" in parts[-1]:
            flat.setdefault("/".join(parts), {})[last] = leaf
        else:
            flat["/".join([*parts, last])] = leaf
    return flat


@pytest.mark.on_ci("two residual networks; nothing shorter shows this")
@pytest.mark.thorough("the gradients", but="values")
@pytest.mark.parametrize("of", ["values", "gradients"])
def test_resnet_equals_its_linen_twin(of):
    x = np.random.default_rng(7).normal(size=(2, 3, 4, 2))
    ours = models.resnet((3, 4, 2), 3, channels=(4, 8), blocks=1)
    params, twin = drawn(ours.init), LinenResNet((4, 8))
    both = [
        lambda p: ours.apply(p, x),
        lambda p: twin.apply({"params": flat_names(p)}, x),
    ]
    if of == "gradients":
        both = [jax.grad(lambda p, f=f: jnp.sum(jnp.sin(f(p)))) for f in both]
    found, expected = jax.jit(
        lambda p: [f(p) for f in both],
        compiler_options={"xla_backend_optimization_level": 0},
    )(params)
    jax.tree.map(close, found, expected)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_resnet_has_the_layers_that_it_says_and_starts_at_zero():
    assert _layout((16, 32), 2) == [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
    model = models.resnet((8, 8, 3), 10, channels=(4, 8, 8), blocks=3)
    params = jax.eval_shape(model.init, jax.random.key(0))
    layers = [row.name for row in models.list_parameters(params)]
    weights = [name for name in layers if name.endswith("weights")]
    assert len([name for name in weights if "shortcut" not in name]) == 6 * 3 + 2
    assert [name for name in weights if "shortcut" in name] == [
        "block_4/shortcut/weights",
        "block_7/shortcut/weights",
    ]
    with pytest.raises(TypeError, match="x must be floating; got dtype uint8"):
        model.apply(drawn(model.init), np.zeros((1, 8, 8, 3), np.uint8))


def test_standardised_weights_have_mean_0_and_variance_of_the_gain():
    rng = np.random.default_rng(8)
    weights, gain = rng.normal(3.0, 2.0, (3, 3, 5, 4)), rng.normal(size=4)
    found = np.asarray(models.standardise_weights(weights, gain, epsilon=1e-300))
    close(found.mean((0, 1, 2)), np.zeros(4))
    close(found.var((0, 1, 2)), gain**2 / 45)
    close(models.standardise_weights(2 * weights - 7, gain, epsilon=1e-300), found)
    with pytest.raises(ValueError, match=r"gain \(C_out,\); got"):
        models.standardise_weights(weights, gain[:3])


# In bfloat16 a number is rounded by up to 2⁻⁹ of itself. The bounds allow the root of
# the sum of squares of about a hundred such errors, 10 x 2⁻⁹, in the root mean square.
OF_VALUES, OF_GRADIENTS = 10 * 2.0**-9, 20 * 2.0**-9
PRECISE = {
    "mlp": (models.mlp((6, 16, 3), activation="tanh", dtype="float32"), (8, 6)),
    "decoder": (
        models.transformer_decoder(VOCABULARY, CONTEXT, **MODERN, dtype="float32"),
        None,
    ),
    "gru": (models.recurrent(4, 8, 3, dtype="float32"), (4, 6, 4)),
    "cnn": (
        models.cnn((6, 6, 2), 3, channels=(4,), hidden=(5,), dtype="float32"),
        (3, 6, 6, 2),
    ),
}


@pytest.mark.thorough("the other models", but="mlp")
@pytest.mark.parametrize("name", PRECISE)
def test_bfloat16_is_near_float32_and_gradients_are_float32(name):
    model, shape = PRECISE[name]
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(9)
    x = TOKENS if shape is None else rng.normal(size=shape).astype(np.float32)
    narrow = models.mixed_precision(model)
    value = lambda m: lambda p: (jnp.sum(jnp.sin(3 * m.apply(p, x))), m.apply(p, x))
    (wide_grad, wide), (grad, found) = jax.jit(
        lambda p: [jax.grad(value(m), has_aux=True)(p) for m in (model, narrow)],
        compiler_options={"xla_backend_optimization_level": int(name == "cnn")},
    )(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((grad, found))} == {
        jnp.dtype("float32")
    }
    flat = lambda tree: np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])
    apart = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    assert 2.0**-12 < apart(flat(found), flat(wide)) < OF_VALUES
    assert 2.0**-12 < apart(flat(grad), flat(wide_grad)) < OF_GRADIENTS
    products = str(jax.make_jaxpr(narrow.apply)(params, x))
    assert "bf16" in products


@pytest.mark.on_ci(
    "a network that is called without jax.jit; nothing shorter shows this"
)
def test_a_rule_keeps_a_state_in_float32_and_narrow_params_are_refused():
    model = models.mixed_precision(models.mlp((2, 3, 1), dtype="float32"))
    params = model.init(jax.random.key(0))
    state = update_rules.adam(0.1).init(params)
    averages = {a.dtype for a in jax.tree.leaves(state) if a.ndim}
    assert averages == {jnp.dtype("float32")}
    narrow = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), params)
    with pytest.raises(TypeError, match=r"rule keeps its state in.*with_state_dtype"):
        model.apply(narrow, jnp.ones((4, 2)))
    assert model.apply(params, [[1.0, 2.0]]).dtype == jnp.float32


@pytest.mark.on_ci(
    "three networks; test_a_learned_initial_state_has_the_gradient_of_the_first_window "
    "has one with an initial state"
)
@pytest.mark.thorough("the other cell", but="lstm")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_initial_state_equals_the_carry_of_recurrence(cell):
    rng = np.random.default_rng(10)
    arrays = 1 + (cell == "lstm")
    start = tuple(tuple(rng.normal(size=(arrays, 3))) for _ in range(2))
    options = {"cell": cell, "num_layers": 2}
    fixed = models.recurrent(2, 3, 4, **options, outputs="every", initial_state=start)
    explicit = models.recurrence(2, 3, 4, **options)
    learned = models.recurrent(
        2, 3, 4, **options, outputs="every", initial_state="learned"
    )
    params, x = drawn(fixed.init), rng.normal(size=(5, 4, 2))
    sequences = Sequences(x, np.array([4, 1, 2, 3, 4]))
    of_learned = params | {
        "initial_state": {
            f"layer_{i + 1}": {f"state_{j + 1}": a for j, a in enumerate(carry)}
            for i, carry in enumerate(start)
        }
    }
    carry = jax.tree.map(lambda a: np.broadcast_to(a, (5, 3)), start)
    expected, found, other, slopes = jax.jit(
        lambda: (
            explicit.advance(params, sequences, carry)[0],
            fixed.apply(params, sequences),
            learned.apply(of_learned, sequences),
            jax.grad(lambda p: jnp.sum(jnp.sin(learned.apply(p, x))))(of_learned),
        )
    )()
    close(found, expected)
    close(other, expected)
    assert all(np.all(a != 0) for a in jax.tree.leaves(slopes["initial_state"]))
    zeros = learned.init(jax.random.key(0))["initial_state"]
    assert not any(np.any(a) for a in jax.tree.leaves(zeros))


@pytest.mark.thorough("the other cell", but="lstm")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_learned_initial_state_has_the_gradient_of_the_first_window(cell):
    options = {"cell": cell, "outputs": "every", "initial_state": "learned"}
    model = models.recurrent(2, 3, 4, **options, window=2)
    whole = models.recurrent(2, 3, 4, **options)
    params, x = drawn(model.init), np.random.default_rng(11).normal(size=(5, 7, 2))

    def first_window(params):
        return jnp.sum(jnp.sin(whole.apply(params, x)[:, :2]))

    found, expected = jax.jit(
        lambda: (
            jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, x))))(params),
            jax.grad(first_window)(params),
        )
    )()
    jax.tree.map(close, found["initial_state"], expected["initial_state"])
    assert all(np.all(a != 0) for a in jax.tree.leaves(found["initial_state"]))


@pytest.mark.parametrize(
    "wrong", ["zeros", 0.0, (), ((np.zeros(3),),), ((np.zeros(2),),) * 2]
)
def test_a_wrong_initial_state_is_refused(wrong):
    with pytest.raises(ValueError, match="initial_state must"):
        models.recurrent(2, 3, 4, num_layers=2, initial_state=wrong)


@pytest.mark.on_ci(
    "a CNN that is called without jax.jit; test_convolution.py has strides, paddings "
    "and pooling"
)
def test_strides_paddings_and_pooling_are_those_of_each_block():
    x = np.random.default_rng(11).normal(size=(2, 9, 8, 1))
    model = models.cnn(
        (9, 8, 1),
        2,
        channels=(3, 4),
        strides=((2, 1), 1),
        paddings=("valid", ((0, 1), (2, 0))),
        pool=(1, 2),
        pooling="average",
        hidden=(),
        activation=lambda z: z**2,
    )
    params = drawn(model.init)
    y = models.convolution(x, **params["convolution_1"], stride=(2, 1), padding="valid")
    y = models.convolution(y**2, **params["convolution_2"], padding=((0, 1), (2, 0)))
    y = models.average_pool(y**2, 2)
    expected = models.dense(y.reshape(2, -1), **params["dense_1"])
    close(model.apply(params, x), expected)
    for wrong in ({"strides": (1,)}, {"strides": 2}, {"paddings": "same"}):
        with pytest.raises(ValueError, match="must have one entry for each of 2"):
            models.cnn((9, 8, 1), 2, channels=(3, 4), **wrong)
    with pytest.raises(ValueError, match="pooling must be one of max, average"):
        models.cnn((9, 8, 1), 2, pooling="min")
    with pytest.raises(ValueError, match=r"strides\[1\] must be an integer >= 1"):
        models.cnn((9, 8, 1), 2, strides=(1, 0))


def test_functions_are_activations_if_they_are_elementwise():
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
    x = np.random.default_rng(12).normal(size=(4, 3))
    model = models.mlp((3, 5, 2), activation=leaky)
    params = drawn(model.init)
    hidden = leaky(models.dense(x, **params["dense_1"]))
    close(model.apply(params, x), models.dense(hidden, **params["dense_2"]))
    for wrong in (jnp.sum, lambda z: z[0], lambda z: z > 0):
        with pytest.raises(ValueError, match="activation must return an array of the"):
            models.mlp((3, 5, 2), activation=wrong)
    with pytest.raises(TypeError, match=r"activation must be a function of \(z\)"):
        models.mlp((3, 5, 2), activation=lambda: 0)
    with pytest.raises(TypeError, match="which raises TypeError for an array"):
        models.find_activation(lambda z: z @ "a")
