"""Compare an accelerator with the CPU: every rule, gradients, and reruns.

python -m tests.device               # or make test-device
python -m tests.device --rule adam   # some rules only; may be repeated
python -m tests.device --pretend     # a second CPU device stands for the accelerator

- A rule takes fifty steps on a small problem, on both. Each is known to be within a
  bound of the paper's formula on the CPU (`research.verification`), so the two may
  differ by twice this bound.
- The gradient of a network in float32, with the precision that `backend.configure`
  sets, is compared with the float64 gradient of the CPU. Its error may be eight times
  that of the CPU's float32 gradient. Products in TF32 or bfloat16 have an error that is
  hundreds of times larger.
- Everything is computed twice on the accelerator and must have the same bits.

The exit status is 1 if anything differs. Without an accelerator nothing is compared,
one sentence says so, and the status is 0.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import backend, losses, models, objectives
from research.types import Batch, Model
from research.update_rules import UPDATE_RULES, find_rule
from research.verification import CARDS, PROBLEMS
from research.verification.card import rate_on
from research.verification.table import BOUND
from research.verification.walks import distance, walk_constructed

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"  # Of the sums of a scatter.
TIMES = 8.0  # Largest error of a gradient, in errors of the CPU.
NONE = (
    "No accelerator: JAX finds only the CPU here, so nothing was compared. Install JAX "
    "for the accelerator in this environment."
)


class Row(NamedTuple):
    """A comparison.

    Attributes:
      what: Name of what is compared.
      difference, bound: The difference, and the largest one that is allowed.
      fault: What is wrong, or "".
    """

    what: str
    difference: float
    bound: float
    fault: str


def main(words: list[str] | None = None) -> int:
    """Compare, print a row for each comparison, and return the exit status."""
    flags = parse(words)
    if not flags.pretend:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"
    backend.configure(devices=2 if flags.pretend else 1, x64=True)
    device = jax.devices("cpu")[1] if flags.pretend else accelerator(jax.devices())
    if device is None:
        print(NONE)
        return 0
    print(f"{device.platform} {device.device_kind} and the CPU")
    return report(rows(device, flags.rule))


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m tests.device", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--rule", action="append", help="only this rule")
    parser.add_argument(
        "--pretend", action="store_true", help="a second CPU device is the accelerator"
    )
    return parser.parse_args(words)


def accelerator(devices: list[Any]) -> Any:
    """Return the first device that is not a CPU, or None."""
    return next((device for device in devices if device.platform != "cpu"), None)


def report(found: Iterator[Row]) -> int:
    """Print each row when it is there, and return 1 if a row has a fault."""
    count = faults = 0
    for row in found:
        count, faults = count + 1, faults + bool(row.fault)
        print(
            f"{row.what}: {row.difference:.2g} of at most {row.bound:.2g}"
            f"{f', WRONG: {row.fault}' if row.fault else ''}",
            flush=True,
        )
    print(f"{count} comparisons, {faults} of them wrong.")
    return 1 if faults else 0


def rows(device: Any, rules: list[str] | None = None) -> Iterator[Row]:
    """Compare each rule, and then, if no rules are given, each model's gradient."""
    for name in rules or UPDATE_RULES:
        yield row_of_rule(find_rule(name), name, device)
    if not rules:
        for name in MODELS:
            yield row_of_gradient(name, device)


def problem_of(name: str) -> Any:
    """Return the first of three problems on which a rule may be compared."""
    problems = [PROBLEMS[p] for p in ("softmax_regression", "quadratic", "rosenbrock")]
    return next(p for p in problems if p.name not in CARDS[name].reasons)


def row_of_rule(constructor: Callable[..., Any], name: str, device: Any) -> Row:
    """Compare fifty steps of a rule."""
    card, problem = CARDS[name], problem_of(name)
    dtype = "float32" if device.platform == "tpu" else "float64"
    arguments = {"learning_rate": rate_on(problem, card)}

    def walked(device: Any) -> Any:
        with jax.default_device(device):
            return walk_constructed(constructor, arguments, problem, dtype)

    here, there, again = map(walked, (jax.devices("cpu")[0], device, device))
    bound = 2 * card.bounds.get("formula", BOUND) * float(np.finfo(dtype).eps)
    difference = distance(there, here, problem).largest
    fault = "" if difference <= bound else "it differs from the CPU"
    return Row(name, difference, bound, fault or _same_bits(there[:2], again[:2]))


def _same_bits(found: Any, again: Any) -> str:
    same = all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True)
    )
    return "" if same else "a rerun has other bits"


def row_of_gradient(name: str, device: Any) -> Row:
    """Compare the gradient of a network with the float64 gradient of the CPU."""
    cpu = jax.devices("cpu")[0]
    exact = gradient(name, "float64", cpu)
    norm = np.linalg.norm(exact)
    here, there, again = (
        gradient(name, "float32", where) for where in (cpu, device, device)
    )
    errors = [float(np.linalg.norm(g - exact) / norm) for g in (here, there)]
    bound = TIMES * max(errors[0], float(np.finfo("float32").eps))
    fault = "" if errors[1] <= bound else "products are not at the highest precision"
    return Row(
        f"gradient of {name}", errors[1], bound, fault or _same_bits(there, again)
    )


def gradient(name: str, dtype: str, device: Any) -> Any:
    """Return the gradient of a network's loss as one float64 vector."""
    with jax.default_device(device):
        model, x, y = MODELS[name](dtype)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        generator = np.random.default_rng(1)
        params = jax.tree.map(
            lambda leaf: jnp.asarray(
                generator.normal(size=leaf.shape).astype("float32") / 4, leaf.dtype
            ),
            shapes,
        )
        risk = objectives.empirical_risk(model, losses.softmax_cross_entropy)
        found = jax.jit(jax.grad(risk))(params, Batch(x, y))
        return np.concatenate(
            [np.asarray(leaf, "float64").ravel() for leaf in jax.tree.leaves(found)]
        )


def _of(make: Callable[..., Any], *shape: int) -> Callable[[str], Any]:
    """Return a function dtype -> (model, inputs, classes) of 64 examples."""

    def build(dtype: str) -> tuple[Any, Any, Any]:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(64, *shape)).astype("float32").astype(dtype)
        y = generator.integers(0, 10, (64,), np.int32)
        return make(jnp.dtype(dtype)), x, y

    return build


def _on_numbers(model: Model) -> Model:
    """Return a model of tokens that takes numbers, of which it makes tokens."""

    def apply(params: Any, x: Any, key: Any = None) -> Any:
        return model.apply(params, (jnp.abs(x) * 10).astype(jnp.int32) % 50, key)

    return Model(model.init, apply)


MODELS = {
    "mlp": _of(lambda dtype: models.mlp((256, 64, 10), dtype=dtype), 256),
    "cnn": _of(
        lambda dtype: models.cnn((12, 12, 3), 10, channels=(8,), dtype=dtype),
        *(12, 12, 3),
    ),
    "transformer": _of(
        lambda dtype: _on_numbers(
            models.transformer_encoder(
                50, 12, 10, width=32, num_layers=1, num_heads=2, dtype=dtype
            )
        ),
        12,
    ),
    "lstm": _of(
        lambda dtype: models.recurrent(16, 32, 10, cell="lstm", dtype=dtype),
        *(12, 16),
    ),
}

if __name__ == "__main__":
    sys.exit(main())
