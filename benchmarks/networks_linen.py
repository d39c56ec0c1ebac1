"""Train the networks as Flax Linen modules with optax's Adam, in a Python loop."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.network_jobs import RATE, Job

GATES = {
    "gru": "rzn",
    "lstm": "ifgo",
}  # Our fused blocks in the order of our layers, by the letters of Linen's names.
HEADS = 4


class MLP(nn.Module):
    """Dense layers with relu between them."""

    sizes: tuple[int, ...] = (256, 256, 10)

    @nn.compact
    def __call__(self, x: jax.Array):
        """Return the logits."""
        for k, size in enumerate(self.sizes, 1):
            x = nn.Dense(size, name=f"dense_{k}")(x)
            x = nn.relu(x) if k < len(self.sizes) else x
        return x


class CNN(nn.Module):
    """Two convolutions, pooling, two dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array):
        """Return the logits."""
        for i, channels in enumerate((32, 64), 1):
            x = nn.relu(
                nn.Conv(channels, (3, 3), padding="VALID", name=f"convolution_{i}")(x)
            )
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(10, name="dense_2")(nn.relu(nn.Dense(128, name="dense_1")(x)))


class Recurrent(nn.Module):
    """An embedding, one layer, an affine output."""

    cell: str

    @nn.compact
    def __call__(self, x: jax.Array):
        """Return the logits."""
        x = nn.Embed(65, 64, name="embedding")(x)
        cell = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.cell](
            128, name="cell"
        )
        return nn.Dense(65, name="output")(nn.RNN(cell)(x))


class Transformer(nn.Module):
    """Pre-norm blocks."""

    @nn.compact
    def __call__(self, x: jax.Array):
        """Return the logits."""
        mask = nn.make_causal_mask(x)
        x = (
            nn.Embed(65, 64, name="tokens")(x)
            + nn.Embed(64, 64, name="positions")(jnp.arange(x.shape[1]))[None]
        )
        normalise = lambda x, name: nn.LayerNorm(epsilon=1e-5, name=name)(x)
        for i in (1, 2):
            attend = nn.MultiHeadDotProductAttention(HEADS, name=f"attention_{i}")
            x = x + attend(normalise(x, f"first_{i}"), mask=mask)
            inner = nn.gelu(
                nn.Dense(256, name=f"dense_1_{i}")(normalise(x, f"second_{i}")),
                approximate=False,
            )
            x = x + nn.Dense(64, name=f"dense_2_{i}")(inner)
        return nn.Dense(65, use_bias=False, name="output")(
            normalise(x, "normalisation")
        )


def dense(layer: Any) -> Any:
    """Return our layer's params under Linen's names."""
    return {"kernel": layer["weights"]} | (
        {"bias": layer["bias"]} if "bias" in layer else {}
    )


def recurrent_params(params: Any, cell: str) -> Any:
    """Return our recurrent params in Linen's layout.

    Linen puts the bias beside the recurrent product in LSTMs and beside the input's
    product otherwise. The GRU's second bias is beside n.
    """
    layer, theirs = params["layer_1"], {}
    split = lambda a: dict(
        zip(GATES[cell], jnp.split(a, len(GATES[cell]), axis=-1), strict=True)
    )
    weights, bias, recurrent = map(
        split, (*layer["input"].values(), layer["recurrent"]["weights"])
    )
    for gate in GATES[cell]:
        from_x, from_h = {"kernel": weights[gate]}, {"kernel": recurrent[gate]}
        (from_h if cell == "lstm" else from_x)["bias"] = bias[gate]
        if (cell, gate) == ("gru", "n"):
            from_h["bias"] = layer["recurrent"]["bias"]
        theirs |= {f"i{gate}": from_x, f"h{gate}": from_h}
    table = {"embedding": params["embedding"]["weights"]}
    return {"cell": theirs, "embedding": table, "output": dense(params["output"])}


def attention_params(layer: Any) -> Any:
    """Return our attention params in Linen's layout.

    Linen has an axis for the heads, and three products.
    """
    width = layer["output"]["weights"].shape[0]
    heads = (HEADS, width // HEADS)
    fused = layer["query_key_value"]
    parts = zip(
        jnp.split(fused["weights"], 3, axis=1), jnp.split(fused["bias"], 3), strict=True
    )
    names = ("query", "key", "value")
    theirs = {
        name: {"kernel": weights.reshape(width, *heads), "bias": bias.reshape(heads)}
        for name, (weights, bias) in zip(names, parts, strict=True)
    }
    output = {
        "kernel": layer["output"]["weights"].reshape(*heads, width),
        "bias": layer["output"]["bias"],
    }
    return theirs | {"out": output}


def transformer_params(params: Any) -> Any:
    """Return our Transformer's params in Linen's layout, block by block."""
    theirs = {
        name: {"embedding": params[name]["weights"]} for name in ("tokens", "positions")
    }
    for i in (1, 2):
        block = params[f"block_{i}"]
        theirs |= {
            f"attention_{i}": attention_params(block["attention"]),
            f"first_{i}": block["normalisation_1"],
            f"second_{i}": block["normalisation_2"],
            **{f"dense_{k}_{i}": dense(block[f"dense_{k}"]) for k in (1, 2)},
        }
    return theirs | {
        "normalisation": params["normalisation"],
        "output": dense(params["output"]),
    }


def module_of(name: str) -> nn.Module:
    """Return the Linen module of a network."""
    if name in GATES:
        return Recurrent(name)
    return {"transformer": Transformer, "cnn": CNN, "mlp": MLP}[name]()


def twin(job: Job) -> tuple[nn.Module, Any]:
    """Return the Linen module of a job, and our params in its layout."""
    if job.name in GATES:
        params = recurrent_params(job.params, job.name)
    elif job.name == "transformer":
        params = transformer_params(job.params)
    else:
        params = {name: dense(layer) for name, layer in job.params.items()}
    return module_of(job.name), params


def make_step(module: nn.Module, rule: optax.GradientTransformation) -> Callable:
    """Return the jitted step of a Flax tutorial.

    It is a function (params, state, x, y) -> (params, state, loss).
    """

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array):
        def loss(params: Any):
            logits: Any = module.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def python_loop(job: Job) -> Contender:
    """Build the step of a Flax tutorial, over batches already on the device."""
    module, params = twin(job)
    adam = optax.adam(RATE)
    step = make_step(module, adam)
    batches = jax.device_put(job.batches)
    train = _loop(step, params, adam.init(params), batches)
    return Contender("Flax and optax, Python loop", train, seconds_of(lambda: train(1)))


def _loop(
    step: Callable, params: Any, state: Any, batches: list
) -> Callable[..., np.ndarray]:
    def train(steps: int | None = None) -> np.ndarray:
        at, seen = (params, state), []
        for x, y in batches[:steps]:
            *at, value = step(*at, x, y)
            seen.append(value)
        jax.block_until_ready(at)
        return np.array(jax.device_get(seen))

    return train
