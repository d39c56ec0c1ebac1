"""Networks to train, each with data, model, loss, batch size and number of epochs.

Every named network is in float32 and has no known optimum. Its score is the validation
loss at the end of a training of fixed length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import datasets, losses, models, objectives, samplers
from research.checks import (
    check_callable,
    check_count,
    check_instance,
    check_text,
    shown,
)
from research.naming import known_names
from research.sizes import check_most
from research.types import Array, Batch, Model, Sequences, Workload
from research.workloads._construction import SPLIT_SEED
from research.workloads._named import WORKLOADS

DTYPE = "float32"
SIZES = ("small", "large")
LONGEST_NAME = 100  # Characters of a network's name.


class NetworkWorkload(NamedTuple):
    """A network with its data and the length of its training.

    Attributes:
      workload: The Workload, with a training and a validation part. Its optimum is not
        known.
      batch_size: Number of examples in a mini-batch.
      num_epochs: Length of the training in epochs. If the learning rate follows a
        schedule, the schedule has the same length.
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
        """Number of steps in an epoch, which is the number of complete batches."""
        return self.num_examples // self.batch_size

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole training, num_epochs * steps_per_epoch."""
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
    """Make a workload that trains your own network, with your own loss and data.

    Args:
      name: Name of the workload in tables and files.
      model: Model, for example from `research.models`. The function
        `research.models.from_linen` makes a Model from a Linen module.
      loss: Function (prediction, target) -> loss of one example, shape ().
      train, validation: Training and validation part of the data. The score of a
        training is the mean loss on the validation part.
      test: Part of the data on which the accuracy is reported. None means that there is
        no such part.
      batch_size: Number of examples in a mini-batch.
      num_epochs: Length of the training in epochs.
      accuracy: If True, the metric of the workload is the accuracy, as for a
        classifier. If False, the workload has no metric.
    Returns:
      The `NetworkWorkload`. The optimum of its training objective is not known.
    Raises:
      ValueError: validation is None, batch_size is larger than the number of training
        examples, or batch_size or num_epochs is not a positive integer.
      TypeError: The name is not a str, the model is not a Model, the loss is not a
        function of two arguments, train is not a Batch, or validation is neither None
        nor a Batch.
    Example:
      >>> x, y = jnp.ones((40, 3)), jnp.zeros(40, jnp.int32)
      >>> parts = Batch(x[:32], y[:32]), Batch(x[32:], y[32:])
      >>> model = models.mlp((3, 4, 2))
      >>> mine = network_workload("mine", model, losses.softmax_cross_entropy, *parts)
      >>> mine.num_steps, mine.workload.metric_name
      (20, 'accuracy')
    """
    check_text("name", name)
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(
            f"name must be a printable text of 1 to {LONGEST_NAME} characters, which "
            f"tables and pictures show; got name={shown(name)}."
        )
    check_instance(
        "model", model, Model, "Build one, such as research.models.mlp((4, 3, 2))."
    )
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
    """Build an MLP for 8x8 images of digits, to be trained for 20 epochs.

    The MLP has 64 inputs (the pixels), one hidden layer of 64 units and 10 outputs. If
    size is "large", the MLP has two hidden layers of 512 units each.
    """
    hidden = {"small": (64,), "large": (512, 512)}[check_size(size)]
    model = models.mlp((64, *hidden, 10), dtype=DTYPE)
    return network_workload(
        "mlp_digits", model, losses.softmax_cross_entropy, *_digits(lambda x: x)
    )


def cnn_digits(*, size: str = "small") -> NetworkWorkload:
    """Build a CNN for 8x8 images of digits, to be trained for 15 epochs.

    The CNN has two convolutions and then a hidden dense layer. If size is "small", the
    convolutions have 8 and 16 channels, and the dense layer has 32 units. If size is
    "large", the convolutions have 32 and 64 channels, and the dense layer has 128
    units.
    """
    channels = {"small": (8, 16), "large": (32, 64)}[check_size(size)]
    hidden = {"small": (32,), "large": (128,)}[size]
    model = models.cnn((8, 8, 1), 10, channels=channels, hidden=hidden, dtype=DTYPE)
    parts = _digits(lambda x: x.reshape(-1, 8, 8, 1))
    return network_workload(
        "cnn_digits", model, losses.softmax_cross_entropy, *parts, num_epochs=15
    )


def gru_digits(*, size: str = "small") -> NetworkWorkload:
    """Build a GRU for 8x8 images of digits, to be trained for 20 epochs.

    The GRU reads one row of the image in each of its 8 steps. It has 32 units, or 256
    units if size is "large".
    """
    hidden = {"small": 32, "large": 256}[check_size(size)]
    model = models.recurrent(8, hidden, 10, cell="gru", dtype=DTYPE)
    rows = lambda x: Sequences(
        jnp.asarray(x.reshape(-1, 8, 8)), jnp.full(len(x), 8, jnp.int32)
    )
    return network_workload(
        "gru_digits", model, losses.softmax_cross_entropy, *_digits(rows)
    )


def gru_vowels(*, size: str = "small") -> NetworkWorkload:
    """Build a GRU for the Japanese Vowels dataset, to be trained for 60 epochs.

    The dataset is downloaded if necessary. The GRU has 32 units, or 256 units if size
    is "large". Every third utterance of the dataset's training part is used for
    validation. Each input is standardised by its mean and standard deviation over all
    utterances of the dataset's training part and over all steps. The steps include the
    zeros with which shorter utterances are padded.
    """
    hidden = {"small": 32, "large": 256}[check_size(size)]
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
    """Build a GPT that predicts the next character of Python's help text.

    The network has 2 layers and width 32, and an example is a window of 32 successive
    characters of the text. With size="large", the network has 4 layers and width 128,
    and a window has 64 characters. The training examples are 4,096 windows of the first
    90 % of the text, and the validation examples are at most 512 windows of the rest.
    The training has 2 epochs. The text depends on the version of Python, so losses can
    be compared only within one version.
    """
    width, layers, context = {"small": (32, 2, 32), "large": (128, 4, 64)}[
        check_size(size)
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
    """Build a deep autoencoder of 8x8 images of digits, to be trained for 30 epochs.

    From the inputs to the outputs, its layers have 64-32-16-8-16-32-64 units, or
    64-256-128-16-128-256-64 units if size is "large". Deep autoencoders are a classic
    example of ill-conditioned training (Hinton & Salakhutdinov, Science 313, 2006). The
    loss is the mean squared error of the 64 standardised pixels.
    """
    half = {"small": (64, 32, 16, 8), "large": (64, 256, 128, 16)}[check_size(size)]
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
    """Build the network workload of a given name: network, data and training length.

    Args:
      name: One of `NETWORKS`.
      size: "small" (one training takes 0.02 to 5 seconds on one core) or "large".
    Returns:
      The network workload. Its `num_steps` is the number of steps of the training.
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

    `NETWORKS` has the names of the workloads that train a network.

    Raises:
      ValueError: The name is not one of `NETWORKS`. If the name is a key of
        `WORKLOADS`, the message says how to build this workload. Otherwise the message
        lists the names in `NETWORKS`.
    Example:
      >>> check_network_name("mlp_digits")
    """
    if isinstance(name, str) and name in NETWORKS:
        return
    if isinstance(name, str) and name in WORKLOADS:
        raise ValueError(
            f"{name!r} is a workload without a network. Use make_workload({name!r}), "
            f"or the command descent compare --workload {name}."
        )
    raise ValueError(f"unknown network {name!r}{known_names(name, NETWORKS)}")


def check_size(size: Any) -> str:
    """Return the size of a network, or raise ValueError if it is not in `SIZES`."""
    if not isinstance(size, str) or size not in SIZES:
        raise ValueError(f"size must be 'small' or 'large'; got size={size!r}.")
    return size


def _digits(prepare: Callable[[np.ndarray], Any]) -> list[Batch]:
    """Return the training, validation and test part of the digits.

    All pixels are standardised by one mean and one standard deviation: those of all
    pixels of the training part.
    """
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
