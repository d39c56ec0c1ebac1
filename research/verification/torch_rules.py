"""Run a `torch.optim.Optimizer` on the problems of the verification.

PyTorch is optional, and this module does not import it. If a caller passes an optimizer
of PyTorch, PyTorch has been imported already, and the module uses this import.
"""

import contextlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.types import Params
from research.verification.problems import NUM_STEPS, Problem
from research.verification.walks import Walk, paths

# Names of the learning rate in constructors of optimizers.
RATES = ("lr", "learning_rate")
# This library's names of decays, which most classes take together as `betas`.
BETAS = ("b1", "b2", "b3")


def is_torch_class(value: Any) -> bool:
    """Return whether a value is a subclass of `torch.optim.Optimizer`.

    This function does not import PyTorch. As long as PyTorch is not imported, no
    subclass can exist.

    Example:
      >>> is_torch_class(dict)
      False
    """
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
    )


def torch_arguments(optimizer: type, given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments under the names that a PyTorch class gives them.

    If the class has no argument learning_rate, learning_rate becomes lr. b1, b2 and b3
    become betas if the class has an argument betas. Other arguments that the class does
    not take are left out.

    Args:
      optimizer: A subclass of `torch.optim.Optimizer`.
      given: Arguments by this library's names or by the names of the class.
    Returns:
      The arguments of the class.
    """
    signature = inspect.signature(optimizer).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    takes = lambda name: name in signature or anything
    found = {key: value for key, value in given.items() if takes(key)}
    if "learning_rate" in given and "learning_rate" not in signature:
        found.pop("learning_rate", None)
        found["lr"] = given["learning_rate"]
    if "betas" in signature and "betas" not in given:
        betas = list(signature["betas"].default)
        for k, name in enumerate(BETAS[: len(betas)]):
            betas[k] = given.get(name, betas[k])
            found.pop(name, None)
        if tuple(betas) != signature["betas"].default:
            found["betas"] = tuple(betas)
    return found


def walk_torch(
    optimizer: type,
    problem: Problem,
    arguments: dict[str, Any],
    dtype: Any = "float64",
    num_steps: int = NUM_STEPS,
) -> Walk:
    """Run a PyTorch optimizer on a problem, and return the trajectory.

    The gradients are those of this library. If the method `step` of the optimizer takes
    a closure, the method gets a function that computes value and gradient again.

    Args:
      optimizer: A subclass of `torch.optim.Optimizer`.
      problem: One of PROBLEMS, or another problem.
      arguments: Arguments as `torch_arguments` takes them, with learning_rate.
      dtype: Dtype of params and gradients.
      num_steps: Number T of steps. If the problem is a sequence of gradients, T is at
        most 50, the number of these gradients (the constant NUM_STEPS).
    Returns:
      The Walk. Its updates are the differences of the iterates.
    """
    torch = sys.modules["torch"]
    leaves, structure = jax.tree.flatten(problem.start)
    name = jnp.dtype(dtype).name
    with _default_dtype(torch, getattr(torch, name)):
        params = [torch.nn.Parameter(torch.tensor(np.asarray(a, name))) for a in leaves]
        rule = optimizer(params, **torch_arguments(optimizer, arguments))
        takes_closure = bool(inspect.signature(rule.step).parameters)
        value_and_grad = _value_and_grad(problem, name, structure)
        rows = [_row(params)]
        for step in range(num_steps):

            def closure(step: int = step) -> Any:
                value, grads = value_and_grad([_array(p) for p in params], step)
                for p, g in zip(params, grads, strict=True):
                    p.grad = torch.tensor(np.asarray(g, name))
                return torch.tensor(np.asarray(value, name))

            closure()
            rule.step(closure) if takes_closure else rule.step()
            rows.append(_row(params))
    iterates = np.array(rows[1:])
    updates = np.diff(np.array(rows), axis=0)
    return Walk(iterates, updates, paths(problem.start), subtracted=True)


def _value_and_grad(problem: Problem, dtype: str, structure: Any) -> Any:
    """Return a function (leaves, step) -> (value, leaves of the gradient)."""
    if problem.objective is None:
        grads = [np.asarray(g, dtype) for g in jax.tree.leaves(problem.gradients)]

        def of_given(leaves: list[np.ndarray], step: int):
            found = [g[step] for g in grads]
            return sum(np.vdot(g, p) for g, p in zip(found, leaves, strict=True)), found

        return of_given
    compiled = jax.jit(jax.value_and_grad(problem.objective))

    def of_objective(leaves: list[np.ndarray], step: int) -> tuple[Any, list[Params]]:
        del step
        value, gradient = compiled(structure.unflatten(map(jnp.asarray, leaves)))
        return value, jax.tree.leaves(gradient)

    return of_objective


@contextlib.contextmanager
def _default_dtype(torch: Any, dtype: Any) -> Iterator[None]:
    """Set PyTorch's default dtype, in which some classes keep numbers of their own.

    Warnings of the optimizer are not shown.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def _array(p: Any) -> np.ndarray:
    return p.detach().numpy().copy()


def _row(params: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(_array(p)).astype(float) for p in params])
