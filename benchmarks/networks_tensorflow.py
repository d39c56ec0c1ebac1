"""Train the networks in TensorFlow from our params.

A step is a tf.function with GradientTape and TensorFlow's own Adam kernel.
"""
# pyright: reportMissingImports=false

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow

from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.network_jobs import RATE, Job

tf: Any = tensorflow  # Its stubs know half of it.
HEADS = 4
B1, B2, EPSILON = 0.9, 0.999, 1e-8


def dense(x: Any, layer: Any) -> Any:
    """Return x W + b over the last axis."""
    flat = tf.matmul(tf.reshape(x, (-1, layer["weights"].shape[0])), layer["weights"])
    flat = flat + layer["bias"] if "bias" in layer else flat
    return tf.reshape(flat, (*x.shape[:-1], layer["weights"].shape[1]))


def mlp(params: Any, x: Any) -> Any:
    """Apply dense layers with relu between them."""
    *inner, last = params.values()
    for layer in inner:
        x = tf.nn.relu(dense(x, layer))
    return dense(x, last)


def cnn(params: Any, x: Any) -> Any:
    """Apply two convolutions, pooling, and two dense layers."""
    for i in (1, 2):
        layer = params[f"convolution_{i}"]
        x = tf.nn.relu(tf.nn.conv2d(x, layer["weights"], 1, "VALID") + layer["bias"])
    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    return dense(
        tf.nn.relu(dense(tf.reshape(x, (x.shape[0], -1)), params["dense_1"])),
        params["dense_2"],
    )


def normalise(x: Any, layer: Any) -> Any:
    """Apply layer normalisation."""
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-5) * layer["scale"] + layer["bias"]


def attend(layer: Any, x: Any) -> Any:
    """Apply causal attention."""
    n, length, width = x.shape
    parts = tf.reshape(
        dense(x, layer["query_key_value"]), (n, length, 3, HEADS, width // HEADS)
    )
    q, k, v = tf.unstack(tf.transpose(parts, (2, 0, 3, 1, 4)))
    scores = tf.matmul(q, k, transpose_b=True) / (width // HEADS) ** 0.5
    mask = tf.constant(np.triu(np.full((length, length), -np.inf, np.float32), 1))
    seen = tf.matmul(tf.nn.softmax(scores + mask), v)
    return dense(
        tf.reshape(tf.transpose(seen, (0, 2, 1, 3)), (n, length, width)),
        layer["output"],
    )


def transformer(params: Any, x: Any) -> Any:
    """Apply pre-norm blocks."""
    x = tf.gather(params["tokens"]["weights"], x) + params["positions"]["weights"]
    for i in (1, 2):
        block = params[f"block_{i}"]
        x = x + attend(block["attention"], normalise(x, block["normalisation_1"]))
        inner = tf.nn.gelu(
            dense(normalise(x, block["normalisation_2"]), block["dense_1"])
        )
        x = x + dense(inner, block["dense_2"])
    return dense(normalise(x, params["normalisation"]), params["output"])


def recurrent(job: Job) -> tuple[Callable, list[Any], list[Any]]:
    """Put Keras' layer between our embedding and output.

    Return (logits of x, variables, the multiplier of each gradient).
    """
    layer, width = job.params["layer_1"], 128
    swap = (
        np.arange(3 * width).reshape(3, width)[[1, 0, 2]].ravel()
    )  # Keras has z before r.
    w, b, u = (
        np.asarray(a) for a in (*layer["input"].values(), layer["recurrent"]["weights"])
    )
    if job.name == "lstm":
        keras, weights, moves = (
            tf.keras.layers.LSTM(width, return_sequences=True),
            [w, u, b],
            [1.0, 1.0, 1.0],
        )
    else:
        keras = tf.keras.layers.GRU(width, return_sequences=True, reset_after=True)
        free = np.ones((2, 3 * width), np.float32)
        free[1, : 2 * width] = 0  # Ours has no recurrent bias beside r and z.
        weights, moves = (
            [w[:, swap], u[:, swap], np.stack([b[swap], 0 * b])],
            [1.0, 1.0, free],
        )
    table = tf.Variable(np.asarray(job.params["embedding"]["weights"]))
    output = {
        name: tf.Variable(np.asarray(a)) for name, a in job.params["output"].items()
    }
    keras.build((None, None, table.shape[1]))
    keras.set_weights(weights)
    variables = [table, *output.values(), *(v.value for v in keras.trainable_variables)]
    return (
        lambda x: dense(keras(tf.gather(table, x)), output),
        variables,
        [1.0] * (1 + len(output)) + moves,
    )


def build(job: Job) -> tuple[Callable, list[Any], list[Any]]:
    """Return (logits of x, variables, the multiplier of each gradient)."""
    if job.name in ("lstm", "gru"):
        return recurrent(job)
    params = tf.nest.map_structure(lambda a: tf.Variable(np.asarray(a)), job.params)
    network = {"mlp": mlp, "cnn": cnn, "transformer": transformer}[job.name]
    variables = tf.nest.flatten(params)
    return lambda x: network(params, x), variables, [1.0] * len(variables)


def graph(job: Job) -> Contender:
    """Compile a step to one graph, and loop over batches gathered beforehand."""
    logits_of, variables, moves = build(job)
    start = [v.numpy() for v in variables]
    slots = [
        (tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v)))
        for v in variables
    ]
    power1, power2 = tf.Variable(B1), tf.Variable(B2)

    @tf.function
    def step(x: Any, y: Any):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits_of(x))
            )
        # The kernel adds epsilon to the root of the second moment before it corrects
        # the bias. Adam adds it afterwards.
        epsilon = EPSILON * tf.sqrt(1.0 - power2)
        for v, (m, s), g, free in zip(
            variables, slots, tape.gradient(value, variables), moves, strict=True
        ):
            g = tf.convert_to_tensor(g)
            g = g if isinstance(free, float) else g * free
            handles = {"var": v.handle, "m": m.handle, "v": s.handle}
            rates = {"lr": RATE, "beta1": B1, "beta2": B2, "epsilon": epsilon}
            tf.raw_ops.ResourceApplyAdam(
                **handles, beta1_power=power1, beta2_power=power2, **rates, grad=g
            )
        power1.assign(power1 * B1)
        power2.assign(power2 * B2)
        return value

    batches = [(tf.constant(x), tf.constant(y)) for x, y in job.batches]

    def train(steps: int = job.steps) -> np.ndarray:
        for v, first, (m, s) in zip(variables, start, slots, strict=True):
            v.assign(first)
            m.assign(tf.zeros_like(m))
            s.assign(tf.zeros_like(s))
        power1.assign(B1)
        power2.assign(B2)
        return np.array(
            [value.numpy() for value in [step(x, y) for x, y in batches[:steps]]]
        )

    return Contender(
        "TensorFlow, tf.function",
        train,
        seconds_of(lambda: train(1)),
        "its own threads",
    )
