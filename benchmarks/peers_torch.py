"""Take the same step in PyTorch: eager, under torch.compile, and as pure functions.

Its vmap is made of these functions.
"""
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.problems import Problem, numpy_batches
from research.types import Workload

THREADS = (1, 2)
TRIALS, TRIAL_STEPS = 7, 100  # On which the number of threads is chosen.

Tensors = tuple[Any, Any]  # (weights, intercept) or (x, y).


def loss_of(model: str) -> Callable[[Any, Any, Any, Any], Any]:
    """Return (weights, intercept, x, y) -> mean loss of a batch.

    The penalty is added to its gradient, as weight decay is.
    """
    if model == "linear":
        return lambda weights, intercept, x, y: (
            0.5 * F.mse_loss(torch.addmv(intercept, x, weights), y)
        )
    if model == "logistic":
        return lambda w, b, x, y: F.binary_cross_entropy_with_logits(
            torch.addmv(b, x, w), y
        )
    return lambda weights, intercept, x, y: F.cross_entropy(
        torch.addmm(intercept, x, weights), y
    )


def targets(model: str, y: np.ndarray) -> Any:
    """Return the targets in the dtype that the loss needs."""
    return torch.tensor(y).to(torch.int64 if model == "softmax" else torch.float64)


def place(params: Any) -> Tensors:
    """Copy our parameters to tensors."""
    return torch.tensor(np.asarray(params["weights"])), torch.tensor(
        np.asarray(params["intercept"])
    )


def fetch(tensors: Tensors) -> dict[str, np.ndarray]:
    """Copy tensors back to our parameters; on a CPU no work is pending."""
    return {
        "weights": tensors[0].detach().numpy(),
        "intercept": tensors[1].detach().numpy(),
    }


def place_batches(
    model: str, workload: Workload, order: np.ndarray | None, steps: int
) -> list[Tensors]:
    """Return every step's batch, gathered beforehand."""
    if order is None:
        (x, y), *_ = numpy_batches(workload, None, 1)
        return [(torch.tensor(x), targets(model, y))] * steps
    gathered = numpy_batches(workload, order, steps)
    x = torch.tensor(np.stack([x for x, _ in gathered]))
    return list(
        zip(
            x.unbind(),
            targets(model, np.stack([y for _, y in gathered])).unbind(),
            strict=True,
        )
    )


def eager_training(
    model: str, penalty: float
) -> Callable[[Tensors, float, list[Tensors]], Tensors]:
    """Return (start, rate, batches) -> end, by autograd and an update in place.

    This is faster here than torch.optim.SGD.

    The start is overwritten: it becomes the end.
    """
    loss = loss_of(model)

    def train(start: Tensors, rate: float, batches: list[Tensors]) -> Tensors:
        weights, intercept = (tensor.requires_grad_() for tensor in start)
        for x, y in batches:
            of_weights, of_intercept = torch.autograd.grad(
                loss(weights, intercept, x, y), (weights, intercept)
            )
            with torch.no_grad():
                if penalty:
                    of_weights.add_(weights, alpha=penalty)
                weights.sub_(of_weights, alpha=rate)
                intercept.sub_(of_intercept, alpha=rate)
        return weights, intercept

    return train


def functional_step(model: str, penalty: float) -> Callable[..., Tensors]:
    """Return (weights, intercept, rate, x, y) -> (weights, intercept).

    The function is pure, so that it can be compiled or vmapped.
    """
    gradient = torch.func.grad(loss_of(model), argnums=(0, 1))

    def step(
        weights: torch.Tensor,
        intercept: torch.Tensor,
        rate: Any,
        x: torch.Tensor,
        y: torch.Tensor,
    ):
        of_weights, of_intercept = gradient(weights, intercept, x, y)
        if penalty:
            of_weights = of_weights + penalty * weights
        return weights - rate * of_weights, intercept - rate * of_intercept

    return step


def compiled_step(model: str, penalty: float) -> Callable[..., Tensors]:
    """Compile the functional step to one graph.

    Earlier graphs are removed, so that each call compiles again.
    """
    torch._dynamo.reset()
    return torch.compile(functional_step(model, penalty), fullgraph=True, dynamic=False)


def choose_threads(train: Callable[[], Any], trials: int = TRIALS) -> int:
    """Return the number of threads, one or two, with the smaller median in trials."""

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        return seconds_of(train)

    for threads in THREADS:
        seconds(threads)  # Warm: torch.compile makes a program for each number.
    rounds = np.array(
        [[seconds(threads) for threads in THREADS] for _ in range(trials)]
    )
    return THREADS[int(np.argmin(np.median(rounds, axis=0)))]


def in_threads(threads: int) -> str:
    """Return the note of a contender about its threads."""
    return f"{threads} thread{'s' * (threads > 1)}"


def eager(problem: Problem) -> Contender:
    """Build the contender in PyTorch's eager mode, at its better number of threads."""
    batches = place_batches(
        problem.model, problem.workload, problem.order, problem.steps
    )
    run = eager_training(problem.model, problem.penalty)
    torch.set_num_threads(1)
    first = seconds_of(lambda: run(place(problem.params), problem.rate, batches[:1]))
    threads = choose_threads(
        lambda: run(place(problem.params), problem.rate, batches[:TRIAL_STEPS])
    )

    def train():
        torch.set_num_threads(threads)
        return fetch(run(place(problem.params), problem.rate, batches))

    return Contender("PyTorch eager", train, first, in_threads(threads))


def compiled_training(
    step: Callable[..., Tensors],
) -> Callable[[Tensors, float, list[Tensors]], Tensors]:
    """Return (start, rate, batches) -> end, a Python loop over a compiled step.

    The rate is a tensor, so that no rate compiles again.
    """

    def train(start: Tensors, rate: float, batches: list[Tensors]) -> Tensors:
        (weights, intercept), rate_tensor = (
            start,
            torch.tensor(rate, dtype=torch.float64),
        )
        with torch.no_grad():
            for x, y in batches:
                weights, intercept = step(weights, intercept, rate_tensor, x, y)
        return weights, intercept

    return train


def compiled(problem: Problem) -> Contender:
    """Build the contender with torch.compile of the step, at its better threads."""
    batches = place_batches(
        problem.model, problem.workload, problem.order, problem.steps
    )
    start, run = (
        place(problem.params),
        compiled_training(compiled_step(problem.model, problem.penalty)),
    )
    torch.set_num_threads(1)
    first = seconds_of(lambda: run(start, problem.rate, batches[:1]))
    threads = choose_threads(lambda: run(start, problem.rate, batches[:TRIAL_STEPS]))

    def train():
        torch.set_num_threads(threads)
        return fetch(run(start, problem.rate, batches))

    return Contender("torch.compile", train, first, in_threads(threads))
