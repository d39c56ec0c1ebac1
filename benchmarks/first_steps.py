"""Time the first step of a network, from the model to the end of the step.

Each time is taken in a process of its own, without caches, and the processes of all
contenders take turns. The clock starts when JAX is imported and the data are made. It
stops when the loss of the first step is known. Between, a contender draws the params,
makes the state of Adam, and compiles and runs its step.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.network_jobs import NETWORKS, RATE, chosen, sampler_of
from benchmarks.startup import start
from benchmarks.tables import Section, number, spread_words, table

ROUNDS = 5
GOAL = 1.5  # Times the seconds of Flax.
STEPS = 20  # Of an epoch of ours; the first is timed.
JITTED = ", init jitted"
# Ours and its peer. Flax's pages call init without jit; under jit, it compiles faster.
PAIRS = {"ours": "Flax", f"ours{JITTED}": f"Flax{JITTED}"}
CONTENDERS = (*PAIRS, *PAIRS.values())


class FirstStep(NamedTuple):
    """Seconds of one process.

    Attributes:
      params: To draw the params.
      step: From the params to the end of the first step.
      num_params: Number of params.
    """

    params: float
    step: float
    num_params: int


class FirstStepRow(NamedTuple):
    """One contender on one network.

    Attributes:
      network, contender: Which network, and who.
      params, step, total: Seconds to draw the params, from there to the end of the
        first step, and of both.
      of_step, of_total: Ours, with the same kind of init, takes so many times these
        seconds of the contender; None for ours.
    """

    network: str
    contender: str
    params: clock.Spread
    step: clock.Spread
    total: clock.Spread
    of_step: clock.Spread | None = None
    of_total: clock.Spread | None = None


def time_ours(
    name: str, x: np.ndarray, y: np.ndarray, batch_size: int, *, jitted: bool
) -> FirstStep:
    """Time our first step of a network on these data."""
    import jax
    import jax.numpy as jnp

    from research import models, objectives, update_rules
    from research.descent._train_loop import compile_training
    from research.types import Batch

    _, make_model, loss, *_ = NETWORKS[name]
    started = time.perf_counter()
    model = make_model()
    init = jax.jit(model.init) if jitted else model.init
    params = jax.block_until_ready(init(jax.random.key(0)))
    drawn = time.perf_counter()
    compiled = compile_training(
        objectives.empirical_risk(model, loss),
        update_rules.adam(RATE),
        Batch(jnp.asarray(x), jnp.asarray(y)),
        sampler_of(len(x), batch_size),
        params,
        jax.random.key(1),
        noisy=False,
        devices=1,
    )
    order = compiled.epoch_batches(jax.random.key(1), 0)
    _, info = compiled.advance(compiled.start.state, compiled.start.info, order, 0, 1)
    np.asarray(info.loss)
    ended = time.perf_counter()
    return FirstStep(drawn - started, ended - drawn, models.count_parameters(params))


def time_flax(
    name: str, x: np.ndarray, y: np.ndarray, batch_size: int, *, jitted: bool
) -> FirstStep:
    """Time the first step of the Linen module of a network, with optax's Adam."""
    import jax
    import optax

    from benchmarks import networks_linen
    from research import models

    started = time.perf_counter()
    module = networks_linen.module_of(name)
    init = jax.jit(module.init) if jitted else module.init
    params = jax.block_until_ready(init(jax.random.key(0), x[:1])["params"])
    drawn = time.perf_counter()
    adam = optax.adam(RATE)
    step = networks_linen.make_step(module, adam)
    *_, loss = step(params, adam.init(params), x[:batch_size], y[:batch_size])
    np.asarray(loss)
    ended = time.perf_counter()
    return FirstStep(drawn - started, ended - drawn, models.count_parameters(params))


def time_contender(contender: str, name: str) -> FirstStep:
    """Time a contender in this process, which must not have computed anything."""
    import jax.numpy as jnp

    from research import backend

    backend.configure()
    _, _, _, make_data, batch_size = NETWORKS[name]
    x, y = make_data(np.random.default_rng(0), STEPS * batch_size)
    jnp.zeros(1).block_until_ready()  # JAX's devices are found before the clock starts.
    timed = time_ours if contender in PAIRS else time_flax
    return timed(name, x, y, batch_size, jitted=contender.endswith(JITTED))


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[FirstStepRow]:
    """Time all contenders on all networks. The first process of each is not counted.

    Raises:
      ValueError: A name in `only` is no network's, or the contenders have different
        numbers of params.
    """
    rows = []
    for name in chosen(only, quick):
        tell(f"first steps: {name}")
        rows += measure_network(name, 1 if quick else ROUNDS)
    return rows


def measure_network(name: str, rounds: int) -> list[FirstStepRow]:
    """Time all contenders on one network, in turns."""
    found: dict[str, list[FirstStep]] = {contender: [] for contender in CONTENDERS}
    for i in range(rounds + 1):
        for contender in clock.in_turn(CONTENDERS, i):
            said = start(("-m", "benchmarks.first_steps", contender, name))
            params, step, count = said.split()[-3:]
            found[contender].append(FirstStep(float(params), float(step), int(count)))
    counts = {each.num_params for steps in found.values() for each in steps}
    if len(counts) > 1:
        raise ValueError(f"the numbers of params of {name} differ: {sorted(counts)}.")
    rows = {}
    seconds = {
        contender: np.array([(each.params, each.step) for each in steps[1:]]).T
        for contender, steps in found.items()
    }
    for contender, (params, step) in seconds.items():
        rows[contender] = FirstStepRow(
            name, contender, *map(clock.spread, (params, step, params + step))
        )
    for ours, peer in PAIRS.items():
        rows[peer] = rows[peer]._replace(
            of_step=clock.ratio(seconds[ours][1], seconds[peer][1]),
            of_total=clock.ratio(seconds[ours].sum(0), seconds[peer].sum(0)),
        )
    return list(rows.values())


def section(rows: list[FirstStepRow]) -> Section:
    """Describe the rows in a section of the page."""
    peers = [row for row in rows if row.contender not in PAIRS]
    answer = " ".join(
        f"The first step of a network takes at most {GOAL:g} times as long as with "
        f"Flax in {_within([row.of_total for row in at])} networks, with drawing the "
        f"params ({kind}), and in {_within([row.of_step for row in at])} without."
        for jitted, kind in ((False, "init not jitted"), (True, "init jitted"))
        if (at := [row for row in peers if row.contender.endswith(JITTED) == jitted])
    )
    columns = [
        "network",
        "contender",
        "params s",
        "step s",
        "both s",
        "ours takes, step",
        "ours takes, both",
    ]
    lines = [
        [
            row.network,
            row.contender,
            *(spread_words(value) for value in (row.params, row.step, row.total)),
            *(
                f"{spread_words(ratio)} times" if ratio else ""
                for ratio in (row.of_step, row.of_total)
            ),
        ]
        for row in rows
    ]
    text = (
        f"{table(columns, lines)}\n\nEach number is from processes of their own, "
        "without caches, which take turns. *Params* is drawing them. *Step* is from "
        "there to the loss of the first step: the state of Adam, compiling, and the "
        "step. Ours also draws the order of an epoch, and compiles the loop over its "
        "steps, which records norms."
    )
    missed = [
        f"first step, {row.network}: ours takes {number(ratio.median)} times the "
        f"seconds of {row.contender}{what}"
        for row in peers
        for ratio, what in ((row.of_total, ""), (row.of_step, ", params apart"))
        if ratio and ratio.median > GOAL
    ]
    return Section("The first step of a network", answer, text, missed)


def _within(ratios: Sequence[clock.Spread | None]) -> str:
    """Say how many ratios are within the goal, and their range."""
    medians = [ratio.median for ratio in ratios if ratio]
    return (
        f"{sum(median <= GOAL for median in medians)} of {len(medians)} "
        f"({number(min(medians))} to {number(max(medians))} times)"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in CONTENDERS:
        print(*time_contender(*sys.argv[1:]))
    else:
        print_part(
            __doc__, measure, section, "a network; may be repeated (default: all)"
        )
