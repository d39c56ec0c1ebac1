"""Our networks and their Linen twins, with the same weights: the same values and the
same gradients.

The bound is 1e-12, absolute and relative, in float64: sums in another order differ by
about 1e-15.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research import models
from research.models.linen import from_linen
from research.types import Sequences

COMPILE_QUICKLY = True  # tests/conftest.py

BOUND = 1e-12


def compiled(function, level):
    """Jitted with less thought for speed: compiling is most of what these tests
    cost.
    """
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": level})


# A twin is (ours, module, theirs, x). `theirs` maps our params to Linen's and is
# differentiated, so that both gradients are with respect to ours.


class LinenMLP(nn.Module):
    sizes: tuple
    activation: str

    @nn.compact
    def __call__(self, x):
        for k, size in enumerate(self.sizes, 1):
            x = nn.Dense(size, name=f"dense_{k}")(x)
            x = getattr(nn, self.activation)(x) if k < len(self.sizes) else x
        return x


def dense(layer):
    return {"kernel": layer["weights"]} | (
        {"bias": layer["bias"]} if "bias" in layer else {}
    )


def mlp_twins(activation):
    sizes = (5, 4, 6, 3)
    theirs = lambda params: {name: dense(layer) for name, layer in params.items()}
    return (
        models.mlp(sizes, activation=activation),
        LinenMLP(sizes[1:], activation),
        theirs,
        np.random.default_rng(0).normal(size=(4, 5)),
    )


class LinenCNN(nn.Module):
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x):
        for i, (channels, window) in enumerate(((16, 2), (32, 1)), 1):
            x = nn.Conv(
                channels, (3, 2), self.stride, self.padding, name=f"convolution_{i}"
            )(x)
            x = nn.GroupNorm(channels // 16, epsilon=1e-5, name=f"normalisation_{i}")(x)
            x = nn.max_pool(nn.relu(x), (window, window), (window, window))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(2, name="dense_2")(nn.relu(nn.Dense(8, name="dense_1")(x)))


def cnn_twins(stride, padding):
    options = {
        "channels": (16, 32),
        "kernel_size": (3, 2),
        "pool": (2, 1),
        "hidden": (8,),
    }
    ours = models.cnn(
        (13, 12, 2), 2, **options, stride=stride, padding=padding, normalisation="group"
    )
    keep = lambda name: name.startswith("normalisation")
    theirs = lambda params: {
        name: layer if keep(name) else dense(layer) for name, layer in params.items()
    }
    x = np.random.default_rng(1).normal(size=(2, 13, 12, 2))
    return ours, LinenCNN(stride, padding.upper()), theirs, x


class LinenTransformer(nn.Module):
    """One block, between embeddings and an output."""

    order: str
    causal: bool

    @nn.compact
    def __call__(self, x):
        tokens, length = (x.values, x.length) if isinstance(x, Sequences) else (x, None)
        where = jnp.arange(tokens.shape[1])
        counts = (
            jnp.ones(tokens.shape, bool)
            if length is None
            else where[None] < length[:, None]
        )
        mask = (
            nn.make_causal_mask(tokens)
            if self.causal
            else nn.make_attention_mask(jnp.ones_like(counts), counts)
        )
        x = (
            nn.Embed(11, 8, name="tokens")(tokens)
            + nn.Embed(5, 8, name="positions")(where)[None]
        )
        attend = lambda x: nn.MultiHeadDotProductAttention(2, name="attention")(
            x, mask=mask
        )
        network = lambda x: nn.Dense(8, name="dense_2")(
            nn.gelu(nn.Dense(12, name="dense_1")(x), approximate=False)
        )
        normalise = lambda x, name: nn.LayerNorm(epsilon=1e-5, name=name)(x)
        if self.order == "pre":
            x = x + attend(normalise(x, "normalisation_1"))
            x = x + network(normalise(x, "normalisation_2"))
            x = normalise(x, "normalisation")
        else:
            x = normalise(x + attend(x), "normalisation_1")
            x = normalise(x + network(x), "normalisation_2")
        if self.causal:
            return nn.Dense(11, use_bias=False, name="output")(x)
        pooled = (
            jnp.sum(x * counts[..., None], axis=1) / jnp.sum(counts, axis=1)[:, None]
        )
        return nn.Dense(3, name="output")(pooled)


def linen_attention(layer):
    parts, heads = layer["query_key_value"], (2, 4)
    weights = [
        part.reshape(8, *heads) for part in jnp.split(parts["weights"], 3, axis=1)
    ]
    biases = [part.reshape(heads) for part in jnp.split(parts["bias"], 3)]
    output = {
        "kernel": layer["output"]["weights"].reshape(*heads, 8),
        "bias": layer["output"]["bias"],
    }
    names = zip(("query", "key", "value"), weights, biases, strict=True)
    return {name: {"kernel": kernel, "bias": bias} for name, kernel, bias in names} | {
        "out": output
    }


def linen_transformer(params):
    theirs = {
        name: {"embedding": params[name]["weights"]} for name in ("tokens", "positions")
    }
    for name, layer in (params["block_1"] | params).items():
        if name.startswith("normalisation"):
            theirs[name] = layer
        elif name == "attention":
            theirs[name] = linen_attention(layer)
        elif name.startswith(("dense", "output")):
            theirs[name] = dense(layer)
    return theirs


def decoder_twins(order):
    ours = models.transformer_decoder(
        11, 5, width=8, num_layers=1, num_heads=2, hidden=12, order=order
    )
    tokens = np.random.default_rng(2).integers(0, 11, (3, 5))
    return ours, LinenTransformer(order, True), linen_transformer, tokens


def encoder_twins(order):
    ours = models.transformer_encoder(
        11, 5, 3, width=8, num_layers=1, num_heads=2, hidden=12, order=order
    )
    tokens = np.random.default_rng(3).integers(0, 11, (3, 5))
    return (
        ours,
        LinenTransformer(order, False),
        linen_transformer,
        Sequences(tokens, np.array([5, 1, 3], np.int32)),
    )


LINEN_CELLS = {"vanilla": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
# Our fused blocks in the order of our layers, by the letters of Linen's names; the
# vanilla cell has one.
GATES = {"vanilla": " ", "gru": "rzn", "lstm": "ifgo"}


class LinenRecurrent(nn.Module):
    cell: str
    every: bool

    @nn.compact
    def __call__(self, x):
        cell = LINEN_CELLS[self.cell](3, param_dtype=jnp.float64, name="cell")
        h = nn.RNN(cell)(x.values, seq_lengths=x.length)
        inside = jnp.arange(h.shape[1])[None] < x.length[:, None]
        if self.every:
            return nn.Dense(2, name="output")(h) * inside[..., None]
        return nn.Dense(2, name="output")(h[jnp.arange(len(h)), x.length - 1])


def linen_cell(cell, layer):
    """Linen puts the bias beside the recurrent product in LSTMs, beside the input's
    else; and the GRU's second by n.
    """
    blocks = [
        dict(zip(GATES[cell], jnp.split(a, len(GATES[cell]), axis=-1), strict=True))
        for a in (
            layer["input"]["weights"],
            layer["input"]["bias"],
            layer["recurrent"]["weights"],
        )
    ]
    theirs = {}
    for gate in GATES[cell]:
        weights, bias, recurrent = (block[gate] for block in blocks)
        from_x, from_h = {"kernel": weights}, {"kernel": recurrent}
        (from_h if cell == "lstm" else from_x)["bias"] = bias
        if (cell, gate) == ("gru", "n"):
            from_h["bias"] = layer["recurrent"]["bias"]
        theirs |= {f"i{gate}".strip(): from_x, f"h{gate}".strip(): from_h}
    return theirs


def recurrent_twins(cell, outputs):
    ours = models.recurrent(4, 3, 2, cell=cell, outputs=outputs)
    theirs = lambda params: {
        "cell": linen_cell(cell, params["layer_1"]),
        "output": dense(params["output"]),
    }
    x = Sequences(
        np.random.default_rng(6).normal(size=(3, 5, 4)), np.array([5, 1, 3], np.int32)
    )
    return ours, LinenRecurrent(cell, outputs == "every"), theirs, x


TWINS = {
    **{f"mlp, {name}": lambda name=name: mlp_twins(name) for name in ("relu", "tanh")},
    "cnn": lambda: cnn_twins(2, "same"),
    "vanilla, every": lambda: recurrent_twins("vanilla", "every"),
    "gru, last": lambda: recurrent_twins("gru", "last"),
    "lstm, every": lambda: recurrent_twins("lstm", "every"),
    "transformer decoder, pre": lambda: decoder_twins("pre"),
    "transformer encoder, post": lambda: encoder_twins("post"),
}


def drawn(model):
    """Params of the model's shapes, away from where it starts, so that biases and
    scales count too.
    """
    generator = np.random.default_rng(4)
    return jax.tree.map(
        lambda leaf: 0.5 * generator.normal(size=leaf.shape),
        jax.eval_shape(model.init, jax.random.key(0)),
    )


@pytest.mark.thorough(
    (
        "the other architectures; make test has their outputs by torch "
        "(test_reference_models.py) or written out (test_cnn.py, test_transformer.py)"
    ),
    but="mlp, tanh|gru",
)
@pytest.mark.parametrize("name", TWINS)
def test_values_and_gradients_are_those_of_the_linen_twin(name):
    ours, module, theirs, x = TWINS[name]()
    twin = from_linen(module, jax.tree.map(lambda leaf: leaf[0], x))
    params = drawn(ours)
    weights = np.random.default_rng(5).normal(
        size=jax.eval_shape(ours.apply, params, x).shape
    )

    def value(apply, params):
        prediction = apply(params, x)
        return jnp.sum(jnp.sin(prediction) * weights), prediction

    def found(apply):
        # At level 0 XLA's CPU backend gives NaN for the derivative of a maximum (of
        # jnp.max too), 0.7.2 to 0.12.
        level = 1 if name == "cnn" else 0
        return compiled(
            jax.value_and_grad(lambda params: value(apply, params), has_aux=True), level
        )(params)

    (_, own), own_gradient = found(ours.apply)
    (_, other), other_gradient = found(lambda params, x: twin.apply(theirs(params), x))
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=BOUND, atol=BOUND)
    jax.tree.map(compare, (own, own_gradient), (other, other_gradient))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(own_gradient))
