"""What a step of training a network takes: MLP, CNN, LSTM, GRU and Transformer, ours and each peer in turns.

python -m benchmarks.networks                     # every network, some minutes
python -m benchmarks.networks --only cnn --quick  # a smoke run
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.tables import Section, number, optional, spread_words, table
from research import backend, losses, models, objectives, samplers, update_rules
from research.descent._train_loop import compile_training
from research.types import Array, Batch, Model, Params, Sampler

RATE = 1e-3  # Of Adam, in everyone's training.
STEPS, ROUNDS = 60, 9
TOLERANCE = 1e-3  # Relative, of the last step's loss: in float32 the same job differs by rounding, which Adam magnifies.
SYMBOLS, CONTEXT = 65, 64
DEVICES = 2  # Ours is timed on one and on so many, which share each batch; everyone else has as many threads.


class Job(NamedTuple):
    """One training: the same first params, batches and Adam for everyone, in float32.

    Attributes:
      name, words: Which network, and its sizes.
      model: Ours.
      loss: Of one example.
      x, y: The data, of which each step takes batch_size examples.
      batch_size, steps: Of the training.
      params: Where everyone starts, as ours has them.
      order: Indices of each step's examples, shape (steps, batch_size), as our sampler draws them.
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
        """Every step's examples."""
        return [(self.x[rows], self.y[rows]) for rows in self.order]


class Contender(NamedTuple):
    """One way to make a training.

    Attributes:
      name, note: As the table shows it, and a word on how it was set.
      train: () -> the loss of every step, before its update; all work is done when it returns.
      compile_seconds: What building it took, with its first step.
    """

    name: str
    train: Callable[[], np.ndarray]
    compile_seconds: float
    note: str = ""


class NetworkRow(NamedTuple):
    """One contender on one job; times are None where it did not run, and note says why."""

    job: str
    words: str
    contender: str
    note: str
    milliseconds: clock.Spread | None = None  # A step.
    compile_seconds: float | None = None
    ratio: clock.Spread | None = None  # How many times as fast the faster of ours is.
    loss: float | None = None
    apart: float | None = None


def images(
    sizes: tuple[int, ...],
) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    """(generator, n) -> n normal inputs of that shape and labels of ten classes."""
    return lambda rng, n: (
        rng.normal(size=(n, *sizes)).astype(np.float32),
        rng.integers(0, 10, n).astype(np.int32),
    )


def tokens(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n sequences of symbols, and the next ones."""
    drawn = rng.integers(0, SYMBOLS, (n, CONTEXT + 1)).astype(np.int32)
    return drawn[:, :-1], drawn[:, 1:]


def recurrent(cell: str) -> Model:
    """A recurrent network of symbols, 128 wide."""
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
    """A small causal Transformer."""
    return models.transformer_decoder(
        SYMBOLS, CONTEXT, width=64, num_layers=2, num_heads=4, dtype=jnp.float32
    )


def convolutional() -> Model:
    """Two convolutions, one pooling and two dense layers: PyTorch's MNIST example, without its dropout."""
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
        "28 x 28, convolutions of 3 x 3 to 32 and 64 channels, pooling of 2, 128 units, batch 64",
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


def make_job(name: str, steps: int) -> Job:
    """The job of that name."""
    words, make_model, loss, data, batch_size = NETWORKS[name]
    model, n = make_model(), steps * batch_size
    x, y = data(np.random.default_rng(0), n)
    order = np.asarray(_sampler(n, batch_size).indices(_key_of_epoch()))
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


def _sampler(n: int, batch_size: int) -> Sampler:
    return samplers.minibatch(n, batch_size)


def _key_of_epoch() -> jax.Array:
    return jax.random.fold_in(
        jax.random.key(1), 0
    )  # As `compile_training` draws epoch 0 of key 1.


def ours(job: Job, devices: int = 1) -> Contender:
    """`research.descent.train`: it draws the order and keeps its info, as in the experiments."""
    objective = objectives.empirical_risk(job.model, job.loss)
    sampler, dataset = (
        _sampler(len(job.x), job.batch_size),
        Batch(jnp.asarray(job.x), jnp.asarray(job.y)),
    )
    built = []

    def build():
        rule = update_rules.adam(RATE)
        options = {"noisy": False, "devices": devices}
        built.append(
            compile_training(
                objective,
                rule,
                dataset,
                sampler,
                job.params,
                jax.random.key(1),
                **options,
            )
        )
        run(1)

    def run(steps: int) -> np.ndarray:
        compiled = built[0]
        batches = compiled.epoch_batches(jax.random.key(1), 0)
        _, info = compiled.advance(
            compiled.start.state, compiled.start.info, batches, 0, steps
        )
        return np.asarray(info.loss)

    seconds = clock.seconds_of(build)
    name = "ours" if devices == 1 else f"ours, on {devices} devices"
    return Contender(name, lambda: run(job.steps), seconds)


def contenders(job: Job) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Those that do this job, ours first, and those that cannot, with the reason."""
    from benchmarks import networks_linen

    found, absent = [ours(job)], []
    if len(jax.devices()) >= DEVICES:
        found.append(ours(job, DEVICES))
    found.append(networks_linen.python_loop(job))
    if find_spec("torch"):
        from benchmarks import networks_torch

        for name, make in (
            ("PyTorch eager", networks_torch.eager),
            ("torch.compile", networks_torch.compiled),
        ):
            try:
                found.append(make(job))
            except Exception as error:  # No C++ compiler, most likely; the row tells.
                absent.append((name, f"did not run: {type(error).__name__}"))
    else:
        absent += [
            ("PyTorch eager", "not installed"),
            ("torch.compile", "PyTorch is not installed"),
        ]
    if find_spec("tensorflow"):
        from benchmarks import networks_tensorflow

        found.append(networks_tensorflow.graph(job))
    else:
        absent.append(("TensorFlow", "not installed"))
    return found, absent


def measure_job(job: Job, rounds: int) -> list[NetworkRow]:
    """Every contender of one job, its losses held against ours before anything is timed."""
    runners, absent = contenders(job)
    last = {runner.name: runner.train()[-1] for runner in runners}
    apart = clock.check_equal(
        last, f"the loss of the last step ({job.name})", TOLERANCE
    )
    seconds = clock.take_turns(
        {runner.name: runner.train for runner in runners}, rounds
    )
    best = min(
        (name for name in seconds if name.startswith("ours")),
        key=lambda name: np.median(seconds[name]),
    )
    rows = [
        NetworkRow(
            job.name,
            job.words,
            runner.name,
            "held against the others" if runner.name == best else runner.note,
            clock.spread(1e3 * seconds[runner.name] / job.steps),
            runner.compile_seconds,
            None
            if runner.name.startswith("ours")
            else clock.ratio(seconds[runner.name], seconds[best]),
            float(last[runner.name]),
            apart,
        )
        for runner in runners
    ]
    return rows + [NetworkRow(job.name, job.words, name, why) for name, why in absent]


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[NetworkRow]:
    """Every network, each in a process of its own that has two devices; if quick, one of them for a few steps.

    Raises:
      ValueError: A name in `only` is no network's.
    """
    if unknown := [name for name in only or () if name not in NETWORKS]:
        raise ValueError(
            f"there is no network {', '.join(unknown)}; known: {', '.join(NETWORKS)}."
        )
    rows = []
    for name in only or (["mlp"] if quick else NETWORKS):
        tell(f"networks: {name}")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows += process.submit(
                _measured, name, 3 if quick else STEPS, 1 if quick else ROUNDS
            ).result()
    return rows


def _measured(name: str, steps: int, rounds: int) -> list[NetworkRow]:
    backend.configure(devices=DEVICES, pool=DEVICES)
    return measure_job(make_job(name, steps), rounds)


def section(rows: list[NetworkRow]) -> Section:
    """What is said of them."""
    peers = [row for row in rows if row.ratio]
    answer = ""
    if peers:
        ratios = [row.ratio.median for row in peers if row.ratio]
        ahead = sum(ratio >= 1 for ratio in ratios)
        answer = (
            f"A step of training a network is at least as fast as a peer's in {ahead} of {len(ratios)} comparisons (the ratios "
            f"go from {number(min(ratios))} to {number(max(ratios))})."
        )
    columns = [
        "network",
        "contender",
        "ms a step",
        "ours is faster by",
        "compile s",
        "loss",
        "note",
    ]
    lines = [
        [
            row.job,
            row.contender,
            spread_words(row.milliseconds),
            "" if row.contender.startswith("ours") else spread_words(row.ratio),
        ]
        + [
            optional(row.compile_seconds),
            "-" if row.loss is None else f"{row.loss:.6f}",
            row.note,
        ]
        for row in rows
    ]
    sizes = "; ".join(
        f"{name}: {words}"
        for name, words in {row.job: row.words for row in rows}.items()
    )
    apart = max((row.apart for row in rows if row.apart is not None), default=0.0)
    text = (
        f"{table(columns, lines)}\n\n{sizes}. Everyone has the same first params, batches and Adam in float32; the losses of "
        f"the last step are {apart:.1e} apart at most, relatively. Compile s is building, with the first step. Ours is timed "
        "on one device and on two that share each batch; the faster is held against the others."
    )
    missed = [
        f"network, {row.job}: {row.contender} is faster, ours has {number(row.ratio.median)} of its speed"
        for row in peers
        if row.ratio and row.ratio.median < 1
    ]
    return Section("A step of training a network", answer, text, missed)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a network; may be repeated (default: all)")
