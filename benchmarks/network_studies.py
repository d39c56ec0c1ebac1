"""Time the trainings of a study on networks, and the same trainings one after another.

Ours trains as `research.comparison.compare_networks` does: one training per core, each
the same program of one device. optax trains one after another, with a jitted step or
with one jitted scan per training, and with all threads of XLA or with the process
pinned to one core. All evaluate the validation loss after every epoch, as the study
does. Every contender is a process of its own, because threads and devices belong to a
process. The contenders take turns, and a turn takes at least a second.

    python -m benchmarks.network_studies    # four networks, one after another
    python -m benchmarks.network_studies --only mlp_digits --quick   # a smoke run
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.tables import Section, number, optional, spread_words, table

NETWORKS = ("mlp_digits", "cnn_digits", "gru_digits", "autoencoder_digits")
OURS = "ours"
# Names of the peers, and whether each scans and is pinned to one core.
PEERS = {
    "optax, steps, all threads": (False, False),
    "optax, steps, pinned": (False, True),
    "optax, scan, all threads": (True, False),
    "optax, scan, pinned": (True, True),
}
GOALS = {False: 1.3, True: 1.8}  # Of ours, by whether the peer is pinned.
CORES = 2
RATES = np.geomspace(3e-4, 3e-3, 4)  # Of Adam. Larger rates magnify rounding.
SEEDS = (0, 1)
ROUNDS = 5
TOLERANCE = 2e-2  # Of the mean validation loss, in float32.
# Of each measurement. A study takes minutes, but some of these trainings take a tenth
# of a second, in which a process that has waited for its turn is still slow.
MIN_SECONDS = 1.0


class NetworkRow(NamedTuple):
    """One contender on one network.

    Attributes:
      network, contender: Which.
      runs, steps: How many trainings, and updates of each.
      compile_seconds: Its first call, with all that is compiled for it.
      seconds: All trainings, a Spread.
      ratio: How many times as fast ours is, without compilation; None for ours.
      loss: Mean of the last validation losses.
    """

    network: str
    contender: str
    runs: int
    steps: int
    compile_seconds: float
    seconds: clock.Spread
    ratio: clock.Spread | None
    loss: float


# What a child process does


def _train_ours(name: str, epochs: int | None) -> tuple[Callable[[], np.ndarray], int]:
    """Return () -> last validation losses, as `compare_networks` trains, and steps."""
    from research import descent, samplers, update_rules
    from research.workloads.networks import make_network

    network = make_network(name)
    epochs = epochs or network.num_epochs

    @functools.cache
    def program() -> descent.SweepProgram:
        # In the first call, as the peers compile in theirs.
        return descent.compile_sweep(
            network.workload,
            update_rules.adam,
            samplers.minibatch(network.num_examples, network.batch_size),
            epochs,
            chunk=epochs,
            width=1,
            evaluate_on=("validation",),
            gradient_norms=False,
        )

    runs = {
        "seed": np.repeat(SEEDS, len(RATES)),
        "learning_rate": np.tile(RATES, len(SEEDS)),
    }
    train = lambda: descent.sweep(program(), runs).values[:, -1]
    return train, epochs * network.steps_per_epoch


def _train_optax(
    name: str, epochs: int | None, scanned: bool
) -> tuple[Callable[[], np.ndarray], int]:
    """Return () -> last validation losses, trained one after another, and steps."""
    import jax
    import optax

    from benchmarks.problems import draw_order
    from research import descent, samplers
    from research.types import Batch
    from research.workloads.networks import make_network

    network = make_network(name)
    epochs, workload = epochs or network.num_epochs, network.workload
    sampler = samplers.minibatch(network.num_examples, network.batch_size)
    data = workload.train
    assert data is not None

    def step(state: Any, rate: Any, indices: Any):
        params, inner = state
        batch = Batch(*jax.tree.map(lambda leaf: leaf[indices], tuple(data)))
        gradients = jax.grad(workload.objective)(params, batch)
        updates, inner = optax.adam(rate).update(gradients, inner, params)
        return optax.apply_updates(params, updates), inner

    def loss(params: Any):
        return workload.objective(params, workload.validation)

    def scan(state: Any, rate: Any, order: Any):
        def epoch(state: Any, rows: Any):
            state = jax.lax.scan(lambda s, i: (step(s, rate, i), None), state, rows)[0]
            return state, loss(state[0])

        return jax.lax.scan(epoch, state, order)[1]

    def loop(state: Any, rate: Any, order: Any):
        losses = []
        for rows in order:
            for indices in rows:
                state = stepped(state, rate, indices)
            losses.append(evaluated(state[0]))
        return losses

    stepped, evaluated = jax.jit(step), jax.jit(loss)
    advance = jax.jit(scan) if scanned else loop
    start = jax.jit(lambda key: workload.init(jax.random.fold_in(key, descent.INIT)))
    begin = jax.jit(optax.adam(0.1).init)
    orders = {}
    for seed in SEEDS:
        key = jax.random.fold_in(jax.random.key(seed), descent.EPOCHS)
        drawn = draw_order(sampler, key, epochs)
        assert drawn is not None
        rows = drawn.reshape(epochs, network.steps_per_epoch, -1)
        orders[seed] = jax.device_put(rows if scanned else [list(row) for row in rows])
    rates = jax.device_put(list(RATES.astype(np.float32)))

    def train() -> np.ndarray:
        found = []
        for seed in SEEDS:
            params = start(jax.random.key(seed))
            for rate in rates:
                losses = advance((params, begin(params)), rate, orders[seed])
                found.append(losses[-1])
        return np.array(jax.device_get(found))

    return train, epochs * network.steps_per_epoch


def serve(name: str, contender: str, epochs: int | None) -> None:
    """Train all runs once, then again whenever a line comes on standard input.

    Each answer is a line of JSON on standard output: the mean seconds of all runs, over
    as many repetitions as take `MIN_SECONDS`. The data and the order of the examples
    are ready before the first training, which compiles.
    """
    if contender != OURS and PEERS[contender][1]:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from research import backend

    backend.configure(devices=CORES if contender == OURS else 1)
    if contender == OURS:
        train, steps = _train_ours(name, epochs)
    else:
        train, steps = _train_optax(name, epochs, PEERS[contender][0])
    losses = []
    seconds = clock.seconds_of(lambda: losses.append(train()))
    loss = float(losses[0].mean())
    about = {"compile_seconds": seconds, "steps": steps, "loss": loss}
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps(clock.seconds_of_each(train, MIN_SECONDS)), flush=True)


# What the parent does


class _Child:
    """A contender in a process of its own."""

    def __init__(self, name: str, contender: str, epochs: int | None):
        self._what = f"{contender!r} on {name}"
        code = f"from benchmarks import network_studies as n; n.serve({name!r}, "
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{code}{contender!r}, {epochs!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The process of {self._what} ended with status "
                f"{self._process.wait()}; its error is above."
            )
        return json.loads(line)

    def train(self) -> float:
        """Train all runs, and return the seconds that this took in the child."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Close its input, so that the process ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure_network(name: str, epochs: int | None, rounds: int) -> list[NetworkRow]:
    """Measure ours and the peers on a network, in turns.

    Raises:
      ValueError: A peer's mean loss differs from ours by more than `TOLERANCE`.
      RuntimeError: The process of a contender ended early.
    """
    contenders = (OURS, *PEERS)
    children = {}
    try:
        for contender in contenders:
            children[contender] = _Child(name, contender, epochs)
        losses = {c: child.about["loss"] for c, child in children.items()}
        clock.check_equal(losses, f"the validation loss on {name}", TOLERANCE)
        seconds = {c: np.zeros(rounds) for c in contenders}
        for i in range(rounds):
            for contender in clock.in_turn(contenders, i):
                seconds[contender][i] = children[contender].train()
    finally:
        for child in children.values():
            child.end()
    return [
        NetworkRow(
            name,
            contender,
            len(RATES) * len(SEEDS),
            child.about["steps"],
            child.about["compile_seconds"],
            clock.spread(seconds[contender]),
            None
            if contender == OURS
            else clock.ratio(seconds[contender], seconds[OURS]),
            child.about["loss"],
        )
        for contender, child in children.items()
    ]


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[NetworkRow]:
    """Measure every network; if quick, two epochs and two rounds.

    Raises:
      ValueError: A name in `only` is no network's.
    """
    if unknown := [name for name in only or () if name not in NETWORKS]:
        raise ValueError(
            f"unknown network {unknown[0]!r}; choose from {', '.join(NETWORKS)}"
        )
    rows = []
    for name in only or NETWORKS:
        tell(f"a study on {name}")
        rows += measure_network(name, *((2, 2) if quick else (None, ROUNDS)))
    return rows


def section(rows: Sequence[NetworkRow]) -> Section:
    """Write the rows as a table, with an answer and the goals that are missed."""
    beside = [row for row in rows if row.ratio is not None]
    words, missed = [], []
    for pinned, goal in GOALS.items():
        found = [row for row in beside if PEERS[row.contender][1] is pinned]
        ratios = [row.ratio.median for row in found if row.ratio is not None]
        where = "pinned to one core" if pinned else "with all threads"
        words.append(
            f"{number(min(ratios))} to {number(max(ratios))} times as fast as optax "
            f"{where}"
        )
        missed += [
            f"{row.network}: {number(row.ratio.median)} times as fast as "
            f"{row.contender}, where {goal} is the goal"
            for row in found
            if row.ratio is not None and row.ratio.median < goal
        ]
    cells = [
        [
            row.network,
            row.contender,
            row.runs,
            f"{row.steps:,}",
            spread_words(row.seconds),
            spread_words(row.ratio) if row.ratio is not None else "",
            optional(row.compile_seconds),
            f"{row.loss:.6f}",
        ]
        for row in rows
    ]
    columns = [
        "network",
        "contender",
        "trainings",
        "steps of each",
        "seconds",
        "ours is faster by",
        "compile s",
        "loss",
    ]
    text = (
        f"{table(columns, cells)}\n\nAdam in float32, {len(RATES)} rates and "
        f"{len(SEEDS)} seeds. Compile s is the first call of all trainings, with what "
        "is compiled for it. Loss is the mean of the last validation losses."
    )
    answer = f"The trainings of a study on networks are {' and '.join(words)}."
    return Section("A study on networks", answer, text, missed)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a network")
