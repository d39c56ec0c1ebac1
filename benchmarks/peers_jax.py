"""Build our contender, and the same jitted step with optax in a Python loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.problems import Problem, numpy_batches, training_data
from research import descent, update_rules
from research.types import Batch, Params, Workload


def ours(problem: Problem) -> Contender:
    """Build our contender: `research.descent.run`, compiled.

    As in the experiments, it draws the order itself and keeps its info. The program is
    the whole training, so the time to build it contains one training.
    """
    rule = update_rules.gradient_descent(problem.rate)
    objective = problem.workload.objective
    state = descent.build(objective, rule, None).init(problem.params)

    def advance(state: Any, rate: jax.Array, epochs: jax.Array, train: Any):
        rule = update_rules.gradient_descent(rate)
        _, step = descent.build(objective, rule, train)
        return descent.run(step, state, problem.sampler, problem.key, epochs)

    arguments = (
        state,
        jnp.asarray(problem.rate),
        jnp.arange(problem.num_epochs, dtype=jnp.int32),
        problem.workload.train,
    )
    built = []

    def train() -> Params:
        state, _ = jax.block_until_ready(built[0](*arguments))
        return state.params

    def build():
        built.append(jax.jit(advance).lower(*arguments).compile())
        train()

    return Contender("ours", train, seconds_of(build))


def optax_training(workload: Workload) -> Callable[[Any, jax.Array, list], Any]:
    """Return (start, rate, batches) -> end, a Python loop over a jitted step.

    The rate is traced, so that no rate compiles again. Start and end are (params,
    the optimiser's state).
    """

    @jax.jit
    def step(params: Params, state: Any, rate: jax.Array, x: jax.Array, y: jax.Array):
        gradient = jax.grad(workload.objective)(params, Batch(x, y))
        updates, state = optax.sgd(rate).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def train(start: Any, rate: jax.Array, batches: list):
        params, state = start
        for x, y in batches:
            params, state = step(params, state, rate, x, y)
        return params, state

    return train


def optax_loop(problem: Problem) -> Contender:
    """Build the contender with a jitted step of optax.sgd.

    A Python loop calls it over batches that are already on the device.
    """
    run = optax_training(problem.workload)
    batches = place_batches(problem.workload, problem.order, problem.steps)
    start = (problem.params, optax.sgd(problem.rate).init(problem.params))
    rate = jnp.asarray(problem.rate)

    def train(batches: list = batches) -> Params:
        return jax.block_until_ready(run(start, rate, batches))[0]

    return Contender(
        "optax, Python loop", train, seconds_of(lambda: train(batches[:1]))
    )


def place_batches(
    workload: Workload, order: np.ndarray | None, steps: int
) -> list[tuple[jax.Array, jax.Array]]:
    """Return every step's batch as device arrays.

    For the full batch, this is the workload's own.
    """
    if order is None:
        return [jax.device_put(training_data(workload))] * steps
    return jax.device_put(numpy_batches(workload, order, steps))
