"""Timing of one training that runs alone: compilation, first call, later calls."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import descent
from research.checks import check_callable, check_count, check_mapping, check_number
from research.descent._sweep_program import check_workload
from research.samplers import check_form
from research.sizes import check_most, check_room
from research.types import Array, Batch, Sampler, Workload

# Number of timed calls after the first one; their median is reported.
TIMED_CALLS = 5


class Timing(NamedTuple):
    """Seconds of one training while no other training runs.

    The seconds of compilation and of the first call are fields of their own. The
    seconds per epoch are the median, the fastest and the slowest of the later calls.
    """

    compile_seconds: float
    first_call_seconds: float
    seconds_per_epoch: float
    fastest_seconds_per_epoch: float
    slowest_seconds_per_epoch: float


def time_alone(
    workload: Workload,
    make_rule: descent.MakeRule,
    sampler: Sampler,
    hyperparameters: Mapping[str, float],
    num_epochs: int,
) -> Timing:
    """Time one training that runs alone, without evaluations of the objective.

    Args:
      workload, make_rule, sampler: As in `compile_sweep`.
      hyperparameters: Arguments of make_rule, by name.
      num_epochs: Number of epochs in each timed call.
    Returns:
      The timing. Its `seconds_per_epoch` is the median of five calls.
    """
    check_workload("workload", workload)
    check_callable("make_rule", make_rule)
    check_form(sampler)
    check_mapping("hyperparameters", hyperparameters, "names to numbers")
    for name, value in hyperparameters.items():
        check_number(f"hyperparameters[{name!r}]", value, signed=True)
    check_count("num_epochs", num_epochs)
    check_most(num_epochs=num_epochs)
    check_room(f"num_epochs={num_epochs}", max(1, num_epochs), sampler.num_batches)
    cell = {name: jnp.asarray(value, float) for name, value in hyperparameters.items()}
    root = jax.random.key(0)
    init, _ = descent.build(workload.objective, make_rule(**cell), workload.train)
    state = init(workload.init(jax.random.fold_in(root, descent.INIT)))

    def advance(
        state: descent.State,
        cell: Mapping[str, Array],
        epochs: Array,
        train: Batch | None,
    ):
        _, step = descent.build(workload.objective, make_rule(**cell), train)
        return descent.run(
            step, state, sampler, jax.random.fold_in(root, descent.EPOCHS), epochs
        )

    arguments = (state, cell, jnp.arange(num_epochs, dtype=jnp.int32), workload.train)
    times = [time.perf_counter()]
    compiled = jax.jit(advance).lower(*arguments).compile()
    times.append(time.perf_counter())
    for _ in range(1 + TIMED_CALLS):
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter())
    compile_seconds, first_call, *calls = np.diff(times)
    per_epoch = np.array(calls) / num_epochs
    return Timing(
        float(compile_seconds),
        float(first_call),
        float(np.median(per_epoch)),
        float(per_epoch.min()),
        float(per_epoch.max()),
    )
