"""Networks to train: data and split, model, loss, batch size and length of the
training.

Every network is in float32 and has no known optimum. Its score is the validation loss
at the end of a training of fixed length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import datasets, losses, models, objectives, samplers
from research.checks import check_callable, check_count, check_instance, check_text
from research.naming import known_names
from research.sizes import check_most
from research.types import Array, Batch, Model, Sequences, Workload
from research.workloads._construction import SPLIT_SEED

DTYPE = "float32"
SIZES = ("small", "large")


class NetworkWorkload(NamedTuple):
    """A network with its data and the length of its training.

    Attributes:
      workload: The problem. It has a training and a validation part, and no optimum.
      batch_size: Number of examples in a mini-batch.
      num_epochs: Length of the training in epochs. A schedule of the learning rate has
        the same length.
    """

    workload: Workload
    batch_size: int
    num_epochs: int

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.workload.name

    @property
    def num_examples(self) -> int:
        """Number of training examples."""
        return samplers.num_examples(self.workload.train) or 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch, without an incomplete last batch."""
        return self.num_examples // self.batch_size

    @property
    def num_steps(self) -> int:
        """Number of steps of a training."""
        return self.num_epochs * self.steps_per_epoch


def network_workload(
    name: str,
    model: Model,
    loss: Callable[[Array, Array], Array],
    train: Batch,
    validation: Batch,
    test: Batch | None = None,
    *,
    batch_size: int = 32,
    num_epochs: int = 20,
    accuracy: bool = True,
) -> NetworkWorkload:
    """Make a network workload from a model, a loss and arrays.

    Args:
      name: Name of the workload in tables and files.
      model: Model, for example from `research.models` or a Linen module by
        `research.models.from_linen`.
      loss: Loss of one example, (prediction, target) -> ().
      train, validation: Parts of the data. The score of a training is its loss on the
        validation part.
      test: Part of the data on which the accuracy is reported; None if there is none.
      batch_size: Number of examples in a mini-batch.
      num_epochs: Length of the training in epochs.
      accuracy: Whether the accuracy on the test part is reported. The model must then
        be a classifier.
    Returns:
      The workload.
    Raises:
      ValueError: There is no validation part, the batch is larger than the training
        part, or a size is not positive.
      TypeError: The model is not a Model, or a part is not a Batch.
    Example:
      >>> x, y = jnp.ones((40, 3)), jnp.zeros(40, jnp.int32)
      >>> parts = Batch(x[:32], y[:32]), Batch(x[32:], y[32:])
      >>> model = models.mlp((3, 4, 2))
      >>> mine = network_workload("mine", model, losses.softmax_cross_entropy, *parts)
      >>> mine.num_steps, mine.workload.metric_name
      (20, 'accuracy')
    """
    check_text("name", name)
    check_instance("model", model, Model, "Make one by research.models.")
    check_callable("loss", loss, "prediction", "target")
    check_instance("train", train, Batch, "Give Batch(x, y).")
    if validation is None:
        raise ValueError(
            f"workload {name!r} needs a validation part: the score of a training is "
            "its validation loss. Give Batch(x, y) of held-out examples."
        )
    check_instance("validation", validation, Batch, "Give Batch(x, y).")
    check_count("batch_size", batch_size)
    check_count("num_epochs", num_epochs)
    check_most(batch_size=batch_size, num_epochs=num_epochs)
    n = len(train.y)
    if batch_size > n:
        raise ValueError(
            f"batch_size={batch_size} is more than the {n} training examples of "
            f"{name}; give at most {n}."
        )
    objective: Callable[..., Array] = objectives.empirical_risk(model, loss)
    workload = Workload(
        name=name,
        train=train,
        validation=validation,
        test=test,
        init=model.init,
        objective=objective,
        metric=objectives.accuracy(model) if accuracy else None,
        metric_name="accuracy" if accuracy else "",
        model=model,
        optimum=None,
    )
    return NetworkWorkload(workload, batch_size, num_epochs)


def mlp_digits(*, size: str = "small") -> NetworkWorkload:
    """MLP on 8x8 digits, trained for 20 epochs.

    Its layers have 64-64-10 units, or 64-512-512-10 units if size is "large".
    """
    hidden = {"small": (64,), "large": (512, 512)}[_checked(size)]
    model = models.mlp((64, *hidden, 10), dtype=DTYPE)
    return network_workload(
        "mlp_digits", model, losses.softmax_cross_entropy, *_digits(lambda x: x)
    )


def cnn_digits(*, size: str = "small") -> NetworkWorkload:
    """CNN on 8x8 digits, trained for 15 epochs.

    Its convolutions have 8 and 16 channels, or 32 and 64 channels if size is "large".
    """
    channels = {"small": (8, 16), "large": (32, 64)}[_checked(size)]
    hidden = {"small": (32,), "large": (128,)}[size]
    model = models.cnn((8, 8, 1), 10, channels=channels, hidden=hidden, dtype=DTYPE)
    parts = _digits(lambda x: x.reshape(-1, 8, 8, 1))
    return network_workload(
        "cnn_digits", model, losses.softmax_cross_entropy, *parts, num_epochs=15
    )


def gru_digits(*, size: str = "small") -> NetworkWorkload:
    """GRU on the rows of 8x8 digits, trained for 20 epochs.

    It has 32 units, or 256 units if size is "large".
    """
    hidden = {"small": 32, "large": 256}[_checked(size)]
    model = models.recurrent(8, hidden, 10, cell="gru", dtype=DTYPE)
    rows = lambda x: Sequences(
        jnp.asarray(x.reshape(-1, 8, 8)), jnp.full(len(x), 8, jnp.int32)
    )
    return network_workload(
        "gru_digits", model, losses.softmax_cross_entropy, *_digits(rows)
    )


def gru_vowels(*, size: str = "small") -> NetworkWorkload:
    """GRU on Japanese Vowels (downloaded), trained for 60 epochs.

    It has 32 units, or 256 units if size is "large". A third of the training utterances
    of each speaker are the validation part. The inputs are standardised by the mean and
    standard deviation over all utterances and all steps, with the zeros after the end
    of the shorter ones.
    """
    hidden = {"small": 32, "large": 256}[_checked(size)]
    data = datasets.vowels()
    model = models.recurrent(
        data.train_x.shape[-1], hidden, int(data.train_y.max()) + 1, dtype=DTYPE
    )
    mean, sd = data.train_x.mean((0, 1)), data.train_x.std((0, 1)) + 1e-6
    held_out = np.arange(len(data.train_y)) % 3 == 0

    def batch(x: np.ndarray, length: np.ndarray, y: np.ndarray) -> Batch:
        values = jnp.asarray((x - mean) / sd, DTYPE)
        return Batch(Sequences(values, jnp.asarray(length)), jnp.asarray(y))

    whole = (data.train_x, data.train_length, data.train_y)
    return network_workload(
        "gru_vowels",
        model,
        losses.softmax_cross_entropy,
        batch(*(part[~held_out] for part in whole)),
        batch(*(part[held_out] for part in whole)),
        batch(data.test_x, data.test_length, data.test_y),
        batch_size=18,
        num_epochs=60,
    )


def gpt_characters(*, size: str = "small") -> NetworkWorkload:
    """Character GPT on the bundled help text of Python: 2 layers, width 32, context 32.

    With size="large", the network has 4 layers, width 128 and context 64. The text
    depends on the version of Python, so losses can be compared only within one version.
    The first 90 % of the text are used for training. An epoch is 4,096 windows, and the
    training has 2 epochs.
    """
    width, layers, context = {"small": (32, 2, 32), "large": (128, 4, 64)}[
        _checked(size)
    ]
    text = datasets.python_help()
    model = models.transformer_decoder(
        len(text.symbols),
        context,
        width=width,
        num_layers=layers,
        num_heads=2 if size == "small" else 4,
        dtype=DTYPE,
    )
    cut = int(0.9 * len(text.tokens))
    parts = [
        _windows(tokens, context, most)
        for tokens, most in ((text.tokens[:cut], 4096), (text.tokens[cut:], 512))
    ]
    return network_workload(
        "gpt_characters",
        model,
        _next_token_loss,
        *parts,
        batch_size=16,
        num_epochs=2,
        accuracy=False,
    )


def autoencoder_digits(*, size: str = "small") -> NetworkWorkload:
    """Deep autoencoder of 8x8 digits: 64-32-16-8-16-32-64 units; 30 epochs.

    With size="large", the network has 64-256-128-16-128-256-64 units. The network is a
    classic example of ill-conditioned training (Hinton & Salakhutdinov, Science 313,
    2006). The loss is the mean squared error of the 64 standardised pixels.
    """
    half = {"small": (64, 32, 16, 8), "large": (64, 256, 128, 16)}[_checked(size)]
    model = models.mlp(
        (*half, *half[-2::-1]),
        activation="tanh",
        initialiser="glorot_uniform",
        dtype=DTYPE,
    )
    parts = [Batch(part.x, part.x) for part in _digits(lambda x: x)]
    error = lambda prediction, target: jnp.mean((prediction - target) ** 2)
    return network_workload(
        "autoencoder_digits", model, error, *parts, num_epochs=30, accuracy=False
    )


NETWORKS: dict[str, Callable[..., NetworkWorkload]] = {
    constructor.__name__: constructor
    for constructor in (
        mlp_digits,
        cnn_digits,
        gru_digits,
        gru_vowels,
        gpt_characters,
        autoencoder_digits,
    )
}


def make_network(name: str, *, size: str = "small") -> NetworkWorkload:
    """Build a named network workload.

    Args:
      name: One of `NETWORKS`.
      size: "small" (one training takes 0.02 to 5 seconds on one core) or "large".
    Returns:
      The workload.
    Raises:
      ValueError: The name or the size is unknown.
      OSError: The data are missing and cannot be downloaded.
    Example:
      >>> network = make_network("mlp_digits")
      >>> network.num_steps, network.workload.train.x.dtype
      (780, dtype('float32'))
    """
    check_network_name(name)
    return NETWORKS[name](size=size)


def check_network_name(name: Any) -> None:
    """Raise ValueError if a name is not one of `NETWORKS`.

    Raises:
      ValueError: The name is unknown. The message lists the known names.
    Example:
      >>> check_network_name("mlp_digits")
    """
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}{known_names(name, NETWORKS)}")


def _checked(size: Any) -> str:
    if size not in SIZES:
        raise ValueError(f"size must be 'small' or 'large'; got size={size!r}.")
    return size


def _digits(prepare: Callable[[np.ndarray], Any]) -> list[Batch]:
    """Return the three parts of the digits, standardised by one mean and sd."""
    data = datasets.load("digits")
    parts = datasets.split(data.x, data.y, seed=SPLIT_SEED)
    mean, sd = parts[0][0].mean(), parts[0][0].std()
    return [
        Batch(
            jax.tree.map(
                jnp.asarray, prepare(((x - mean) / sd).astype(np.dtype(DTYPE)))
            ),
            jnp.asarray(y, jnp.int32),
        )
        for x, y in parts
    ]


def _windows(tokens: np.ndarray, context: int, most: int) -> Batch:
    """Return at most `most` windows of a text, evenly spread, and their next tokens."""
    count = min(most, (len(tokens) - 1) // context)
    starts = np.linspace(0, len(tokens) - 1 - context, count).astype(int)
    windows = np.asarray(tokens)[starts[:, None] + np.arange(context + 1)]
    windows = jnp.asarray(windows, jnp.int32)
    return Batch(windows[:, :-1], windows[:, 1:])


def _next_token_loss(logits: Array, targets: Array) -> Array:
    return jnp.mean(jax.vmap(losses.softmax_cross_entropy)(logits, targets))
