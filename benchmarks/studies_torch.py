"""Make a study's runs in PyTorch.

They run one after another in eager mode, and all at once by torch.func.vmap.
"""
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import peers_torch
from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.problems import training_data
from benchmarks.sweep_runs import Sweep, one_by_one

B2, EPS = 0.999, 1e-8  # Of Adam, everywhere.
PARTS = {"heavy_ball": 1, "adam": 2}  # Averages of each leaf.


def _objective(study: Sweep, model: str, penalty: float) -> Callable[[Any, Any], Any]:
    x, y = training_data(study.workload)
    placed, loss = (
        (torch.tensor(x), peers_torch.targets(model, y)),
        peers_torch.loss_of(model),
    )
    return lambda weights, intercept: (
        loss(weights, intercept, *placed) + 0.5 * penalty * (weights**2).sum()
    )


# One by one, in place


def _move_heavy_ball(
    param: Any, averages: tuple, gradient: Any, hyper: list[float], taken: int
) -> None:
    del taken
    (rate, momentum), (sum_,) = hyper, averages
    sum_.mul_(momentum).add_(gradient)
    param.sub_(sum_, alpha=rate)


def _move_adam(
    param: Any, averages: tuple, gradient: Any, hyper: list[float], taken: int
) -> None:
    (rate, b1), (mean, square) = hyper, averages
    mean.mul_(b1).add_(gradient, alpha=1 - b1)
    square.mul_(B2).addcmul_(gradient, gradient, value=1 - B2)
    root = (square / (1 - B2**taken)).sqrt_().add_(EPS)
    param.addcdiv_(mean, root, value=-rate / (1 - b1**taken))


MOVES = {"heavy_ball": _move_heavy_ball, "adam": _move_adam}


def eager(study: Sweep, model: str, penalty: float, rule: str) -> Contender:
    """Make one run after another in eager mode.

    It uses autograd.grad and an update in place, which is faster than torch.optim for
    one run.
    """
    loss, move = peers_torch.loss_of(model), MOVES[rule]
    objective = _objective(study, model, penalty)
    batches = {
        seed: peers_torch.place_batches(model, study.workload, order, study.steps)
        for seed, order in study.orders.items()
    }

    def begin(params: Any):
        placed = peers_torch.place(params)
        averages = [
            tuple(torch.zeros_like(leaf) for _ in range(PARTS[rule])) for leaf in placed
        ]
        return tuple(leaf.requires_grad_() for leaf in placed), averages, 0

    def training(state: Any, hyper: list[float], batches: Any):
        (weights, intercept), averages, taken = state
        for x, y in batches:
            taken += 1
            gradients = torch.autograd.grad(
                loss(weights, intercept, x, y), (weights, intercept)
            )
            with torch.no_grad():
                if penalty:
                    gradients[0].add_(weights, alpha=penalty)
                for leaf, own, gradient in zip(
                    (weights, intercept), averages, gradients, strict=True
                ):
                    move(leaf, own, gradient, hyper, taken)
        return (weights, intercept), averages, taken

    def evaluate(state: Any):
        with torch.no_grad():
            return objective(*state[0])

    one = study._replace(seeds=study.seeds[:1], rates=study.rates[:1])
    once = one_by_one(one, begin, training, evaluate, batches)
    torch.set_num_threads(1)
    first = seconds_of(once)
    threads = peers_torch.choose_threads(once)
    run = one_by_one(study, begin, training, evaluate, batches)

    def train():
        torch.set_num_threads(threads)
        return torch.stack([torch.stack(seen) for seen in run()]).numpy()

    return Contender(
        "PyTorch eager, one by one", train, first, peers_torch.in_threads(threads)
    )


# All at once


def _heavy_ball(
    param: Any, averages: tuple, gradient: Any, hyper: Any, taken: Any
) -> tuple[Any, tuple]:
    del taken
    sum_ = hyper[1] * averages[0] + gradient
    return param - hyper[0] * sum_, (sum_,)


def _adam(
    param: Any, averages: tuple, gradient: Any, hyper: Any, taken: Any
) -> tuple[Any, tuple]:
    mean = hyper[1] * averages[0] + (1 - hyper[1]) * gradient
    square = B2 * averages[1] + (1 - B2) * gradient**2
    root = torch.sqrt(square / (1 - B2**taken)) + EPS
    return param - hyper[0] / (1 - hyper[1] ** taken) * mean / root, (mean, square)


FUNCTIONS = {"heavy_ball": _heavy_ball, "adam": _adam}


def vmapped(study: Sweep, model: str, penalty: float, rule: str) -> Contender:
    """Make all runs at once, in a Python loop over steps vmapped over the runs."""
    update = FUNCTIONS[rule]
    gradient_of = torch.func.grad(peers_torch.loss_of(model), argnums=(0, 1))

    def step(
        params: tuple[torch.Tensor, ...],
        averages: tuple,
        hyper: torch.Tensor,
        taken: int,
        x: torch.Tensor,
        y: torch.Tensor,
    ):
        of_weights, of_intercept = gradient_of(*params, x, y)
        if penalty:
            of_weights = of_weights + penalty * params[0]
        gradients = (of_weights, of_intercept)
        moved = [
            update(p, a, g, hyper, taken)
            for p, a, g in zip(params, averages, gradients, strict=True)
        ]
        return tuple(p for p, _ in moved), tuple(a for _, a in moved)

    x, y = training_data(study.workload)
    all_x, all_y = torch.tensor(x), peers_torch.targets(model, y)
    orders = [
        order
        for seed in study.seeds.tolist()
        if (order := study.orders[seed]) is not None
    ]
    draws = list(torch.tensor(np.stack(orders, 1)).unbind())
    together = torch.func.vmap(step, in_dims=(0, 0, 0, None, 0, 0))
    objective, hyper = (
        torch.func.vmap(_objective(study, model, penalty)),
        torch.tensor(study.rates),
    )
    placed = [peers_torch.place(study.starts[seed]) for seed in study.seeds.tolist()]
    starts, marks = (
        tuple(torch.stack(leaves) for leaves in zip(*placed, strict=True)),
        set(study.marks),
    )

    def run(steps: int):
        params, averages = (
            starts,
            tuple(
                tuple(torch.zeros_like(p) for _ in range(PARTS[rule])) for p in starts
            ),
        )
        with torch.no_grad():
            values = [objective(*params)]
            for taken, indices in enumerate(draws[:steps], 1):
                params, averages = together(
                    params, averages, hyper, taken, all_x[indices], all_y[indices]
                )
                if taken in marks:
                    values.append(objective(*params))
        return torch.stack(values, 1).numpy()

    torch.set_num_threads(1)
    first = seconds_of(lambda: run(1))
    threads = peers_torch.choose_threads(lambda: run(peers_torch.TRIAL_STEPS))

    def train():
        torch.set_num_threads(threads)
        return run(study.steps)

    return Contender("torch.func.vmap", train, first, peers_torch.in_threads(threads))
