"""Define the networks that are timed: sizes, data, first params and batch order."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import losses, models, samplers
from research.types import Array, Model, Params, Sampler

RATE = 1e-3  # Of Adam, in every training.
SYMBOLS, CONTEXT = 65, 64


class Job(NamedTuple):
    """One training with the same first params, batches and Adam for all, in float32.

    Attributes:
      name, words: Which network, and its sizes.
      model: Ours.
      loss: Of one example.
      x, y: The data, of which each step takes batch_size examples.
      batch_size, steps: Of the training.
      params: Where everyone starts, as ours has them.
      order: Indices of each step's examples, shape (steps, batch_size), as our sampler
        draws them.
    """

    name: str
    words: str
    model: Model
    loss: Callable[[Array, Array], Array]
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    steps: int
    params: Params
    order: np.ndarray

    @property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the examples of every step."""
        return [(self.x[rows], self.y[rows]) for rows in self.order]


def images(
    sizes: tuple[int, ...],
) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    """Return (generator, n) -> n normal inputs, and labels of ten classes."""
    return lambda rng, n: (
        rng.normal(size=(n, *sizes)).astype(np.float32),
        rng.integers(0, 10, n).astype(np.int32),
    )


def tokens(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n sequences of symbols; the targets are the next symbols."""
    drawn = rng.integers(0, SYMBOLS, (n, CONTEXT + 1)).astype(np.int32)
    return drawn[:, :-1], drawn[:, 1:]


def recurrent(cell: str) -> Model:
    """Build a recurrent network of symbols, 128 wide."""
    return models.recurrent(
        SYMBOLS,
        128,
        SYMBOLS,
        cell=cell,
        outputs="every",
        embedding=64,
        dtype=jnp.float32,
    )


def transformer() -> Model:
    """Build a small causal Transformer."""
    return models.transformer_decoder(
        SYMBOLS, CONTEXT, width=64, num_layers=2, num_heads=4, dtype=jnp.float32
    )


def convolutional() -> Model:
    """Build PyTorch's MNIST example without its dropout.

    It has two convolutions, one pooling and two dense layers.
    """
    return models.cnn(
        (28, 28, 1),
        10,
        channels=(32, 64),
        padding="valid",
        pool=(1, 2),
        dtype=jnp.float32,
    )


# name: (its sizes in words, the model, the loss, the data, the batch).
NETWORKS: dict[
    str, tuple[str, Callable[[], Model], Callable[..., Array], Callable, int]
] = {
    "mlp": (
        "784-256-256-10, relu, batch 64",
        lambda: models.mlp((784, 256, 256, 10), dtype=jnp.float32),
        losses.softmax_cross_entropy,
        images((784,)),
        64,
    ),
    "cnn": (
        (
            "28 x 28, convolutions of 3 x 3 to 32 and 64 channels, pooling of 2, 128 "
            "units, batch 64"
        ),
        convolutional,
        losses.softmax_cross_entropy,
        images((28, 28, 1)),
        64,
    ),
    "lstm": (
        "128 wide, 65 symbols embedded in 64 numbers, 64 steps, batch 32",
        lambda: recurrent("lstm"),
        losses.sequence_cross_entropy,
        tokens,
        32,
    ),
    "gru": (
        "128 wide, 65 symbols embedded in 64 numbers, 64 steps, batch 32",
        lambda: recurrent("gru"),
        losses.sequence_cross_entropy,
        tokens,
        32,
    ),
    "transformer": (
        "2 layers, 64 wide, 4 heads, context 64, 65 symbols, batch 32",
        transformer,
        losses.sequence_cross_entropy,
        tokens,
        32,
    ),
}


def chosen(only: Sequence[str] | None, quick: bool) -> list[str]:
    """Return the names of the networks to measure: `only`, or one if quick, or all.

    Raises:
      ValueError: A name in `only` is no network's.
    """
    if unknown := [name for name in only or () if name not in NETWORKS]:
        raise ValueError(
            f"there is no network {', '.join(unknown)}; known: {', '.join(NETWORKS)}."
        )
    return list(only or (["mlp"] if quick else NETWORKS))


def make_job(name: str, steps: int) -> Job:
    """Return the job with this name."""
    words, make_model, loss, data, batch_size = NETWORKS[name]
    model, n = make_model(), steps * batch_size
    x, y = data(np.random.default_rng(0), n)
    order = np.asarray(sampler_of(n, batch_size).indices(key_of_epoch()))
    return Job(
        name,
        words,
        model,
        loss,
        x,
        y,
        batch_size,
        steps,
        model.init(jax.random.key(0)),
        order,
    )


def sampler_of(n: int, batch_size: int) -> Sampler:
    """Return the sampler of mini-batches that all contenders use."""
    return samplers.minibatch(n, batch_size)


def key_of_epoch() -> jax.Array:
    """Return the key that draws the order of the one epoch."""
    return jax.random.fold_in(
        jax.random.key(1), 0
    )  # As `compile_training` draws epoch 0 of key 1.
