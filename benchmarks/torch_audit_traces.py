"""Record the trajectories of other libraries' optimizers, from which the audit is made.

python -m benchmarks.torch_audit_traces              # every row, about two minutes
python -m benchmarks.torch_audit_traces torch keras  # rows whose names begin so
python -m benchmarks.torch_audit_traces new          # rows that are not recorded

It needs the extra `bench`. Each row of experiments/_audit_rows.py takes fifty steps in
float64 on three problems of research.verification. What is recorded
(experiments/audit_traces.xz) is facts, so that the audit needs none of the libraries.
A trajectory that cannot be computed is recorded as the sentence that says why.
"""
# pyright: reportMissingImports=false

import argparse
import contextlib
import importlib
import importlib.metadata
import os
import warnings
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import optax
import torch
from optax import contrib

from benchmarks import torch_traces
from experiments import _audit_rows as rows
from experiments._audit_deviations import ROWS
from research import backend
from research.verification import walk

LICENCES = {
    "optax": "Apache-2.0",
    "keras": "Apache-2.0",
    "torch": "BSD-3-Clause",
    "timm": "Apache-2.0",
    "pytorch_optimizer": "Apache-2.0",
}


def separable(x: Any) -> Any:
    """Σ (a_i x_i² / 2 + x_i⁴ / 4)."""
    return (torch.tensor(rows.SLOPES) * x**2 / 2 + x**4 / 4).sum()


OBJECTIVES = {**torch_traces.OBJECTIVES, "separable": separable}


def found(path: str) -> Any:
    """Return the object with a dotted name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def in_torch(row: rows.Row, problem: str, rate: float) -> np.ndarray:
    """Return the iterates of a class of PyTorch."""
    leaves = jax.tree.leaves(rows.ALL_PROBLEMS[problem].start)
    params = [torch.nn.Parameter(torch.tensor(np.asarray(a, float))) for a in leaves]
    torch.manual_seed(0)
    arguments = {key: evaluated(value, params) for key, value in row.call.items()}
    if row.rate_name:
        arguments[row.rate_name] = rate
    given = [p for p in params if p.ndim > 1] if row.frozen else params
    optimizer = made(row, given, arguments)

    def closure():
        for p in params:
            p.grad = None
        with torch.enable_grad():
            value = OBJECTIVES[problem](*params)
            value.backward(create_graph=row.twice)
        return value

    iterates = []
    if hasattr(optimizer, "train"):
        optimizer.train()
    with patched(row.patch):
        for _ in range(rows.STEPS):
            closure()
            optimizer.step(closure) if row.closure else optimizer.step()
            iterates.append(
                np.concatenate([p.detach().numpy().ravel() for p in params])
            )
    return np.array(iterates)


@contextlib.contextmanager
def patched(what: str) -> Iterator[None]:
    """Replace narrower dtypes inside an optimizer by float64 if the row says so."""
    kept = torch.Tensor.bfloat16, torch.Tensor.float, torch.Tensor.to
    if what:
        torch.Tensor.bfloat16 = torch.Tensor.float = lambda self: self.double()

        def to(self: Any, *words: Any, **named: Any) -> Any:
            narrow = (torch.bfloat16, torch.float16, torch.float32)
            words = tuple(torch.float64 if w in narrow else w for w in words)
            named = {k: torch.float64 if v in narrow else v for k, v in named.items()}
            return kept[2](self, *words, **named)

        torch.Tensor.to = to
    try:
        yield
    finally:
        torch.Tensor.bfloat16, torch.Tensor.float, torch.Tensor.to = kept


def evaluated(value: Any, params: list[Any]) -> Any:
    """Return an argument; a string that begins with "=" is evaluated."""
    if isinstance(value, str) and value.startswith("="):
        return eval(value[1:], {"torch": torch, "params": params})
    return value


def made(row: rows.Row, params: list[Any], arguments: dict[str, Any]) -> Any:
    """Return the optimizer, around another one if the row says so."""
    constructor = found(row.path)
    if row.make == "muon groups":
        groups = [
            {"params": [p for p in params if (p.ndim > 1) == flag], "use_muon": flag}
            for flag in (True, False)
        ]
        return constructor([g for g in groups if g["params"]], **arguments)
    if row.inner:
        inner = dict(arguments)
        outer = {k: inner.pop(k) for k in list(inner) if k in row.outer}
        return constructor(found(row.inner)(params, **inner), **outer)
    if row.make == "model first":
        model = torch.nn.ParameterList(params)
        return constructor(model, params, found(row.base), **arguments)
    if row.base:
        return constructor(params, found(row.base), **arguments)
    return constructor(params, **arguments)


def mechanized(make: Any, learning_rate: float) -> Any:
    """Return the wrapper around Adam."""
    return make(optax.adam(learning_rate))


def one_step_of_sam(make: Any, learning_rate: float) -> Any:
    """Return optax's SAM as one step around descent, with the radius 0.05."""
    steps = (
        optax.sgd(learning_rate),
        optax.chain(contrib.normalize(), optax.sgd(0.05)),
    )
    rule = make(*steps, opaque_mode=True)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        gradient = jax.grad(extra["value_fn"])
        return rule.update(updates, state, params, grad_fn=lambda x, _: gradient(x))

    return optax.GradientTransformationExtraArgs(rule.init, update)


def with_objective(make: Any, **given: Any) -> Any:
    """Return a rule whose update takes the objective as obj_fn."""
    rule = make(**given)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return rule.update(updates, state, params, obj_fn=extra["value_fn"])

    return optax.GradientTransformationExtraArgs(rule.init, update)


OPTAX = {
    "mechanized": mechanized,
    "sam": one_step_of_sam,
    "with objective": with_objective,
}


def in_optax(row: rows.Row, problem: str, rate: float) -> np.ndarray:
    """Return the iterates of a rule of optax."""
    arguments = dict(row.call)
    if row.rate_name:
        arguments[row.rate_name] = rate
    constructor = found(row.path)
    wrap = OPTAX.get(row.make)
    rule = wrap(constructor, **arguments) if wrap else constructor(**arguments)
    return walk(rule, rows.ALL_PROBLEMS[problem]).iterates


def in_keras(row: rows.Row, problem: str, rate: float) -> np.ndarray:
    """Return the iterates of an optimizer of Keras, with gradients of JAX."""
    keras = importlib.import_module("keras")
    keras.config.set_floatx("float64")
    start = rows.ALL_PROBLEMS[problem].start
    leaves, structure = jax.tree.flatten(start)
    variables = [keras.Variable(np.asarray(a, float), dtype="float64") for a in leaves]
    optimizer = found(row.path)(**{row.rate_name: rate}, **row.call)
    objective = rows.ALL_PROBLEMS[problem].objective
    assert objective is not None
    gradient = jax.jit(jax.grad(objective))
    iterates = []
    for _ in range(rows.STEPS):
        x = structure.unflatten([v.value for v in variables])
        optimizer.apply(jax.tree.leaves(gradient(x)), variables)
        iterates.append(np.concatenate([np.ravel(v.value) for v in variables]))
    return np.array(iterates)


RUNNERS = {"optax": in_optax, "keras": in_keras}


def record(row: rows.Row) -> dict[str, Any]:
    """Return the trajectory of a row on each problem, or why there is none."""
    run = RUNNERS.get(row.library, in_torch)
    found_on: dict[str, Any] = {}
    for problem in row.problems:
        try:
            iterates = run(row, problem, rows.rate_of(row, problem))
            found_on[problem] = iterates
        except Exception as error:
            message = " ".join(str(error).split())[:200]
            found_on[problem] = f"{type(error).__name__}: {message}"
    return found_on


def parse(words: list[str] | None = None) -> list[str]:
    """Return the names on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_audit_traces",
        description=(__doc__ or "").partition("\n\n")[0],
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="the first letters of an optimizer's name, such as optax, or new: what is "
        "not recorded (default: every row)",
    )
    names = parser.parse_args(words).names
    for name in names:
        if name != "new" and not any(row.path.startswith(name) for row in ROWS):
            parser.error(f"no optimizer begins with {name}")
    return names


def main(words: list[str] | None = None) -> None:
    """Record the rows of the named optimizers, or of all."""
    names = parse(words)
    # First, because a library that is missing would be recorded as an error.
    versions = {name: importlib.metadata.version(name) for name in (*LICENCES, "jax")}
    warnings.simplefilter("ignore")
    backend.configure(x64=True)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    old = rows.traces() if rows.FILE.exists() else {"traces": {}}
    kept = {row.key for row in ROWS}
    traces = {key: value for key, value in old["traces"].items() if key in kept}
    for row in ROWS:
        named = not names or any(row.path.startswith(name) for name in names)
        named = named or ("new" in names and row.key not in traces)
        if row.reason or not named:
            continue
        traces[row.key] = record(row)
        failed = [v for v in traces[row.key].values() if isinstance(v, str)]
        print(row.key, *failed[:1], flush=True)
    rows.save(
        {
            "description": "Iterates of optimizers of other libraries: fifty steps in "
            "float64 on functions of research.verification, rounded to 3e-11 of "
            "1 + |x|. traces has the number of an array, or why there is none. "
            "experiments/_audit_rows.py reads the file.",
            "source": "Computed by the libraries named; the numbers are facts, and no "
            "code of any library is here. Recorded by "
            "python -m benchmarks.torch_audit_traces.",
            "versions": versions,
            "licences": LICENCES,
        },
        {row.key: traces[row.key] for row in ROWS if row.key in traces},
    )


if __name__ == "__main__":
    main()
