"""Make the sweep in PyTorch.

The runs are made one after another, eager and compiled, and all at once by
torch.func.vmap.
"""
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import peers_torch
from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.problems import PENALTIES, training_data
from benchmarks.sweep_runs import MODEL, Sweep, one_by_one


def objective_on(sweep: Sweep) -> Callable[[Any, Any], Any]:
    """Return (weights, intercept) -> the training objective, penalty included."""
    (x, y), loss, penalty = data(sweep), peers_torch.loss_of(MODEL), PENALTIES[MODEL]
    return lambda weights, intercept: (
        loss(weights, intercept, x, y) + 0.5 * penalty * (weights**2).sum()
    )


def data(sweep: Sweep) -> peers_torch.Tensors:
    """Return the training data as tensors."""
    x, y = training_data(sweep.workload)
    return torch.tensor(x), peers_torch.targets(MODEL, y)


def loop(sweep: Sweep, training: Callable, objective: Callable, name: str) -> Contender:
    """Make one run after another, at the better number of threads."""
    batches = {
        seed: peers_torch.place_batches(MODEL, sweep.workload, order, sweep.steps)
        for seed, order in sweep.orders.items()
    }

    def evaluate(state: Any):
        with torch.no_grad():
            return objective(*state)

    run = one_by_one(sweep, peers_torch.place, training, evaluate, batches)
    seed = int(sweep.seeds[0])

    def trial(steps: int = peers_torch.TRIAL_STEPS):
        evaluate(
            training(peers_torch.place(sweep.starts[seed]), 0.1, batches[seed][:steps])
        )

    torch.set_num_threads(1)
    first = seconds_of(lambda: trial(1))
    threads = peers_torch.choose_threads(trial)

    def train():
        torch.set_num_threads(threads)
        return torch.stack([torch.stack(seen) for seen in run()]).numpy()

    return Contender(name, train, first, peers_torch.in_threads(threads))


def eager(sweep: Sweep) -> Contender:
    """Make one run after another in eager mode."""
    return loop(
        sweep,
        peers_torch.eager_training(MODEL, PENALTIES[MODEL]),
        objective_on(sweep),
        "PyTorch eager, one by one",
    )


def compiled(sweep: Sweep) -> Contender:
    """Make one run after another with torch.compile of the step and the objective.

    Both are compiled once for all runs.
    """
    step = peers_torch.compiled_step(MODEL, PENALTIES[MODEL])
    objective = torch.compile(objective_on(sweep), fullgraph=True, dynamic=False)
    return loop(
        sweep,
        peers_torch.compiled_training(step),
        objective,
        "torch.compile, one by one",
    )


def draws_of_all(sweep: Sweep) -> list[Any]:
    """Return each step's indices of shape (runs, batch size); None for the full
    batch.
    """
    orders = [
        order
        for seed in sweep.seeds.tolist()
        if (order := sweep.orders[seed]) is not None
    ]
    return (
        list(torch.tensor(np.stack(orders, 1)).unbind())
        if orders
        else [None] * sweep.steps
    )


def vmapped(
    sweep: Sweep,
    wrap: Callable = lambda function: function,
    name: str = "torch.func.vmap",
) -> Contender:
    """Make all runs at once, in a Python loop over steps vmapped over the runs."""
    draws, (all_x, all_y) = draws_of_all(sweep), data(sweep)
    own = None if draws[0] is None else 0  # Whether each run has a batch of its own.
    step = torch.func.vmap(
        peers_torch.functional_step(MODEL, PENALTIES[MODEL]),
        in_dims=(0, 0, 0, own, own),
    )

    def gather_and_step(
        weights: torch.Tensor,
        intercept: torch.Tensor,
        rates: torch.Tensor,
        indices: torch.Tensor | None,
    ):
        x, y = (all_x, all_y) if indices is None else (all_x[indices], all_y[indices])
        return step(weights, intercept, rates, x, y)

    advance, objective = (
        wrap(gather_and_step),
        wrap(torch.func.vmap(objective_on(sweep))),
    )
    placed = [peers_torch.place(sweep.starts[seed]) for seed in sweep.seeds.tolist()]
    starts = [torch.stack(leaves) for leaves in zip(*placed, strict=True)]
    rates, marks = torch.tensor(sweep.rates), set(sweep.marks)

    def run(steps: int):
        weights, intercept = starts
        with torch.no_grad():
            values = [objective(weights, intercept)]
            for taken, indices in enumerate(draws[:steps], 1):
                weights, intercept = advance(weights, intercept, rates, indices)
                if taken in marks:
                    values.append(objective(weights, intercept))
        return torch.stack(values, 1).numpy()

    torch.set_num_threads(1)
    first = seconds_of(lambda: run(1))
    threads = peers_torch.choose_threads(lambda: run(peers_torch.TRIAL_STEPS))

    def train():
        torch.set_num_threads(threads)
        return run(sweep.steps)

    return Contender(name, train, first, peers_torch.in_threads(threads))


def compiled_vmapped(sweep: Sweep) -> Contender:
    """Make all runs at once, with gather and step compiled into one."""
    torch._dynamo.reset()

    def wrap(function: Callable):
        return torch.compile(function, fullgraph=True, dynamic=False)

    return vmapped(sweep, wrap, "torch.compile of vmap")
