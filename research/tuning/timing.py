"""Timing of one training that runs alone: compilation, first call, later calls."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import descent
from research.checks import check_count, check_mapping, check_number
from research.descent._run import draw_orders, scan_epochs
from research.descent._shared_programs import compile_once
from research.descent._sweep_program import (
    check_make_rule,
    check_workload,
    compile_orders,
)
from research.samplers import check_form
from research.sizes import check_most, check_room
from research.types import Array, Batch, Key, Sampler, Workload

# Number of timed calls after the first one; their median is reported.
TIMED_CALLS = 5


class Timing(NamedTuple):
    """Times of one training, in seconds, while no other training runs.

    Each call of the compiled program runs the training once. After a first call, five
    more calls follow. The time per epoch of a call is its seconds divided by the number
    of epochs. All fields are floats.

    Attributes:
      compile_seconds: Seconds of the compilation.
      first_call_seconds: Seconds of the first call.
      seconds_per_epoch: Median of the times per epoch of the five later calls.
      fastest_seconds_per_epoch: Smallest of these five times per epoch.
      slowest_seconds_per_epoch: Largest of these five times per epoch.
    """

    compile_seconds: float
    first_call_seconds: float
    seconds_per_epoch: float
    fastest_seconds_per_epoch: float
    slowest_seconds_per_epoch: float


class TrainingAlone(NamedTuple):
    """A compiled training that runs alone, from `compile_alone`.

    "Alone" means that no other training is computed by the same program.

    Attributes:
      call: Function without arguments that runs the training once, and returns when the
        training has ended.
      num_epochs: Number of epochs of one call.
      compile_seconds: Seconds to compile the training. The number is smaller if this
        process has already compiled the same program.
    """

    call: Callable[[], Any]
    num_epochs: int
    compile_seconds: float

    def time(self) -> Timing:
        """Run the training six times, and return its timing.

        The field `seconds_per_epoch` of the timing is the median over the last five
        calls. No other work should run at the same time.
        """
        times = [time.perf_counter()]
        for _ in range(1 + TIMED_CALLS):
            self.call()
            times.append(time.perf_counter())
        first_call, *calls = np.diff(times)
        per_epoch = np.array(calls) / self.num_epochs
        return Timing(
            self.compile_seconds,
            float(first_call),
            float(np.median(per_epoch)),
            float(per_epoch.min()),
            float(per_epoch.max()),
        )


def time_alone(
    workload: Workload,
    make_rule: descent.MakeRule,
    sampler: Sampler,
    hyperparameters: Mapping[str, float],
    num_epochs: int,
) -> Timing:
    """Time one training that runs alone, without evaluations between its steps.

    The timed program computes only the steps of this training. It does not evaluate the
    objective to measure progress.

    Args:
      workload: `Workload` (optimisation problem) to train on.
      make_rule: Function that makes the update rule from the hyperparameters.
      sampler: `Sampler`, which draws batches from the training data of the workload.
      hyperparameters: Dict from names of arguments of `make_rule` to finite numbers.
      num_epochs: Number of epochs in each timed call.
    Returns:
      The `Timing`. Its `seconds_per_epoch` is the median of five calls that follow a
      first call.
    Raises:
      ValueError, TypeError: An argument is not valid.
    """
    return compile_alone(
        workload, make_rule, sampler, hyperparameters, num_epochs
    ).time()


def compile_alone(
    workload: Workload,
    make_rule: descent.MakeRule,
    sampler: Sampler,
    hyperparameters: Mapping[str, float],
    num_epochs: int,
) -> TrainingAlone:
    """Compile one training that runs alone, without evaluations between its steps.

    The compiled program computes only the steps of this training. It does not evaluate
    the objective to measure progress. Use this function instead of `time_alone` to
    compile several trainings at the same time, in threads, and to time them later, one
    after another.

    Args:
      workload: `Workload` (optimisation problem) to train on.
      make_rule: Function that makes the update rule from the hyperparameters.
      sampler: `Sampler`, which draws batches from the training data of the workload.
      hyperparameters: Dict from names of arguments of `make_rule` to finite numbers.
      num_epochs: Number of epochs of the training.
    Returns:
      The compiled training. Its method `time` runs the training six times, and returns
      a `Timing`.
    Raises:
      ValueError, TypeError: An argument is not valid.
    Example:
      >>> from research import samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> rule, sampler = update_rules.gradient_descent, samplers.full_batch(1)
      >>> alone = compile_alone(quadratic, rule, sampler, {"learning_rate": 0.1}, 20)
      >>> alone.time().seconds_per_epoch > 0
      True
    """
    check_workload("workload", workload)
    check_form(sampler)
    check_mapping("hyperparameters", hyperparameters, "names to numbers")
    for name, value in hyperparameters.items():
        check_number(f"hyperparameters[{name!r}]", value, signed=True)
    check_count("num_epochs", num_epochs)
    check_most(num_epochs=num_epochs)
    check_room(f"num_epochs={num_epochs}", max(1, num_epochs), sampler.num_batches)
    check_make_rule(make_rule, hyperparameters)
    cell = {name: jnp.asarray(value, float) for name, value in hyperparameters.items()}
    root = jax.random.key(0)
    init, _ = descent.build(workload.objective, make_rule(**cell), workload.train)
    state = init(workload.init(jax.random.fold_in(root, descent.INIT)))
    key = jax.random.fold_in(root, descent.EPOCHS)
    epochs = jnp.arange(num_epochs, dtype=jnp.int32)

    def draw(key: Key, epochs: Array):
        return draw_orders(sampler, key, epochs)

    def advance(
        state: descent.State,
        cell: Mapping[str, Array],
        key: Key,
        epochs: Array,
        orders: Array | None,
        train: Batch | None,
    ):
        _, step = descent.build(workload.objective, make_rule(**cell), train)
        return scan_epochs(step, state, sampler, key, epochs, orders)

    started = time.perf_counter()
    drawn = compile_orders(draw, key, epochs)
    arguments = (state, cell, key, epochs, drawn(key, epochs), workload.train)
    advanced = compile_once(advance, *arguments)
    seconds = time.perf_counter() - started

    def call() -> Any:
        orders = drawn(key, epochs)
        return jax.block_until_ready(
            advanced(state, cell, key, epochs, orders, workload.train)
        )

    return TrainingAlone(call, num_epochs, seconds)
