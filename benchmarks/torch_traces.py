"""Compute the recorded trajectories of PyTorch again, and compare them.

python -m benchmarks.torch_traces

It needs the extra `bench`, which has timm for Lion and LAMB.

What is recorded (research/verification/recorded.json) is facts, so that the package and
its tests need neither of the two.
"""

# pyright: reportMissingImports=false

import argparse
import ast
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

import research
from benchmarks.tables import table
from research.verification import PROBLEMS
from research.verification.problems import INPUTS, LABELS, PENALTY, A, B

RECORD = Path(research.__file__).parent / "verification/recorded.json"
# Of the size of an entry, or of 1 for smaller ones: above rounding, and far below any
# change of a rule.
BOUND = 1e-12
# At a minimum a last bit decides where a search stops.
LOOSER = {"lbfgs/line search, memory 10": 1e-9}


class Trace(NamedTuple):
    """One trajectory that was computed again.

    Attributes:
      variant, problem, call: Which.
      apart: The largest |x - y| / max(1, |y|), y recorded, over all iterates; None
        where it was not computed.
      note: Why it was not, or "".
    """

    variant: str
    problem: str
    call: str
    apart: float | None
    note: str = ""


def quadratic(x: torch.Tensor):
    """Return ½ xᵀAx - bᵀx."""
    return 0.5 * x @ (torch.tensor(A) @ x) - torch.tensor(B) @ x


def rosenbrock(x: torch.Tensor):
    """Return (1 - x1)² + 100 (x2 - x1²)²."""
    return (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2


def softmax_regression(w: torch.Tensor, b: torch.Tensor):
    """Return the mean of -log softmax(X W + b)[y], plus its penalty."""
    log_p = torch.log_softmax(torch.tensor(INPUTS) @ w + b, dim=1)
    return -log_p[
        torch.arange(len(LABELS)), torch.tensor(LABELS)
    ].mean() + 0.5 * PENALTY * ((w**2).sum() + (b**2).sum())


OBJECTIVES: dict[str, Callable[..., Any]] = {
    "quadratic": quadratic,
    "rosenbrock": rosenbrock,
    "softmax_regression": softmax_regression,
}


def make_optimizer(call: str, params: list[Any], learning_rate: float | None) -> Any:
    """Return the optimizer of a recorded call such as "Adam(p,lr,(0.8,0.95),0.1)".

    p and lr stand for these params and this rate.

    Raises:
      ImportError: It is timm's, and timm is not installed.
      ValueError: `call` is no call.
    """
    node = ast.parse(call.partition(" one step")[0].rstrip(","), mode="eval").body
    if not isinstance(node, ast.Call):
        raise ValueError(f"{call!r} is no call.")
    path = ast.unparse(node.func)
    module = (
        importlib.import_module("timm.optim")
        if path.startswith("timm")
        else torch.optim
    )
    given = {"p": params, "lr": learning_rate}

    def value(argument: ast.expr) -> Any:
        return (
            given[argument.id]
            if isinstance(argument, ast.Name)
            else ast.literal_eval(argument)
        )

    keywords = {
        keyword.arg: value(keyword.value) for keyword in node.keywords if keyword.arg
    }
    return getattr(module, path.rpartition(".")[2])(*map(value, node.args), **keywords)


def walk(case: dict[str, Any]) -> np.ndarray:
    """Compute the iterates of a recorded case anew, in the record's shape."""
    start = jax.tree.leaves(PROBLEMS[case["problem"]].start)
    params = [
        torch.tensor(np.asarray(leaf, np.float64), requires_grad=True) for leaf in start
    ]
    objective, rows = OBJECTIVES[case["problem"]], []
    optimizer = make_optimizer(case["call"], params, case["learning_rate"])

    def closure():
        optimizer.zero_grad()
        value = objective(*params)
        value.backward()
        return value

    for _ in case["iterates"]:
        optimizer.step(closure)
        rows.append(np.concatenate([p.detach().numpy().ravel() for p in params]))
    return np.array(rows)


def measure() -> list[Trace]:
    """Measure every case that can be computed here."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # NAdam keeps a product of its own in it.
    traces = []
    for case in json.loads(RECORD.read_text("utf-8"))["cases"]:
        named = (case["variant"], case["problem"], case["call"])
        if case["library"].startswith("timm") and find_spec("timm") is None:
            traces.append(Trace(*named, None, "timm is not installed"))
            continue
        recorded = np.array(case["iterates"])
        apart = np.abs(walk(case) - recorded) / np.maximum(1.0, np.abs(recorded))
        traces.append(Trace(*named, float(apart.max())))
    return traces


def bound_of(trace: Trace) -> float:
    """Return the largest difference that a trace may have."""
    return LOOSER.get(trace.variant, BOUND)


def answer(traces: list[Trace]) -> str:
    """Write the sentence that opens the output."""
    done = [trace for trace in traces if trace.apart is not None]
    missing = len(traces) - len(done)
    worst = max(done, key=lambda trace: trace.apart or 0.0)
    changed = [trace for trace in done if not (trace.apart or 0.0) <= bound_of(trace)]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "timm")
        if find_spec(name)
    )
    said = (
        f"{len(changed)} of them are no longer what is recorded"
        if changed
        else "all are what is recorded"
    )
    return (
        f"Of {len(traces)} recorded trajectories {len(done)} were computed again with "
        f"{versions}: {said}; the largest difference is {worst.apart:.1e} "
        f"({worst.variant}, {worst.problem})."
        + (f" {missing} need timm, which is not installed." if missing else "")
    )


def main(words: list[str] | None = None) -> None:
    """Compute and print; exit with 1 if a trajectory has changed."""
    argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0]
    ).parse_args(words)
    traces = measure()
    rows = [
        [
            t.variant,
            t.problem,
            t.note if t.apart is None else f"{t.apart:.1e}",
            f"`{t.call}`",
        ]
        for t in traces
    ]
    print(f"{answer(traces)}\n\n{table(['variant', 'problem', 'apart', 'call'], rows)}")
    if any(
        trace.apart is not None and not trace.apart <= bound_of(trace)
        for trace in traces
    ):
        sys.exit(1)


if __name__ == "__main__":
    main()
