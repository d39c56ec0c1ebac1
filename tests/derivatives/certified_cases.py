"""Containment of exact values in proved enclosures, for random functions, against Arb.

python -m tests.derivatives.certified_cases --points 1000000 --seed 1

Arb (python-flint) encloses the value and the derivatives of the same function with 200
bits. Its ball must lie inside ours, at points and over boxes.
"""

import argparse
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import flint
import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.certified.enclosing import Batched

POINTS = 256  # Of each function.
BITS = 200
LEAVES = ("x", "x", "x", "constant")
BINARY = ("add", "sub", "mul", "div")
UNARY = (
    "neg",
    "square",
    "cube",
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "tanh",
    "sinh",
    "cosh",
    "atan",
    "asin",
    "logistic",
    "log1p",
    "expm1",
)


class Case(NamedTuple):
    """A random function, as a tree, and where it is enclosed."""

    tree: Any
    low: np.ndarray
    high: np.ndarray


def tree(generator: random.Random, depth: int) -> Any:
    """Draw a function as nested tuples."""
    if depth == 0 or generator.random() < 0.1:
        leaf = generator.choice(LEAVES)
        return (leaf, generator.uniform(-3, 3)) if leaf == "constant" else (leaf,)
    if generator.random() < 0.5:
        return (
            generator.choice(BINARY),
            tree(generator, depth - 1),
            tree(generator, depth - 1),
        )
    return generator.choice(UNARY), tree(generator, depth - 1)


def in_jax(node: Any, x: Any) -> Any:
    """Evaluate a tree by JAX."""
    name, *parts = node
    if name == "x":
        return x
    if name == "constant":
        return jnp.asarray(parts[0])
    values = [in_jax(part, x) for part in parts]
    return {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "square": lambda a: a**2,
        "cube": lambda a: a**3,
        "asin": jnp.arcsin,
        "atan": jnp.arctan,
        "erf": jax.scipy.special.erf,
        "logistic": jax.nn.sigmoid,
    }.get(name, getattr(jnp, name, None))(*values)


def in_arb(node: Any, x: flint.arb_series) -> flint.arb_series:
    """Evaluate a tree by Arb, as a series in the step from x."""
    name, *parts = node
    if name == "x":
        return x
    if name == "constant":
        return flint.arb_series([flint.arb(parts[0])])
    values = [in_arb(part, x) for part in parts]
    one = flint.arb_series([1])

    def tanh(a: Any) -> Any:
        return one - 2 / ((2 * a).exp() + 1)

    return {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "square": lambda a: a * a,
        "cube": lambda a: a * a * a,
        "exp": lambda a: a.exp(),
        "log": lambda a: a.log(),
        "sqrt": lambda a: a.sqrt(),
        "sin": lambda a: a.sin(),
        "cos": lambda a: a.cos(),
        "tan": lambda a: a.tan(),
        "atan": lambda a: a.atan(),
        "asin": lambda a: a.asin(),
        "erf": lambda a: a.erf(),
        "tanh": tanh,
        "sinh": lambda a: (a.exp() - (-a).exp()) / 2,
        "cosh": lambda a: (a.exp() + (-a).exp()) / 2,
        "logistic": lambda a: one / (one + (-a).exp()),
        "log1p": lambda a: (a + 1).log(),
        "expm1": lambda a: a.exp() - 1,
    }[name](*values)


def draw(generator: random.Random, width: float) -> Case:
    """Draw a function and boxes of about a width; a width of 0 means points."""
    rng = np.random.default_rng(generator.getrandbits(32))
    low = rng.normal(size=POINTS) * 10.0 ** rng.uniform(-3, 1, POINTS)
    high = low + width * rng.uniform(0, 1, POINTS) if width else low
    return Case(tree(generator, generator.randint(1, 4)), low, high)


class Outcome(NamedTuple):
    """Counts over many cases.

    Attributes:
      checked: Numbers compared: value, first and second derivative at each point.
      violations: Numbers that do not lie inside, with the case.
      ulps: Widths at points, in units of the last place of the value.
    """

    checked: int
    violations: list[str]
    ulps: list[float]


def check(case: Case, inside: np.ndarray) -> Outcome:
    """Compare our enclosures with Arb's balls at one point of each box.

    Args:
      case: The function and its boxes.
      inside: For each box, where in it the point lies, from 0 to 1.
    """
    function = lambda x: in_jax(case.tree, x[0])
    derivatives: list[Callable[..., Any]] = [
        function,
        lambda x: jax.grad(function)(x)[0],
        lambda x: jax.hessian(function)(x)[0, 0],
    ]
    low, high = case.low[:, None], case.high[:, None]
    ours = [
        Batched(d, 1)(low, low if case.low is case.high else high) for d in derivatives
    ]
    points = np.minimum(case.low + inside * (case.high - case.low), case.high)
    flint.ctx.prec, flint.ctx.cap = BITS, 3
    checked, violations, ulps = 0, [], []
    for k, x in enumerate(points):
        try:
            series = in_arb(case.tree, flint.arb_series([float(x), 1], prec=3))
        except (ValueError, ZeroDivisionError, AttributeError) as problem:
            # Arb divides by a ball around 0. python-flint 0.7 then asks for a `cap`.
            if isinstance(problem, AttributeError) and "cap" not in str(problem):
                raise
            continue
        coefficients = [series[i] for i in range(3)]
        for order, coefficient in enumerate(coefficients):
            exact = coefficient * math.factorial(order)
            if not exact.is_finite():
                continue  # Undefined at this point, or beyond what Arb encloses.
            bounds = ours[order].low[k], ours[order].high[k]
            checked += 1
            if not is_inside(exact, *bounds) and is_sharp(
                case, float(x), order, bounds
            ):
                violations.append(
                    f"{case.tree} at {x!r}, order {order}: {exact} not in {bounds}"
                )
            if order == 0 and case.low is case.high and np.all(np.isfinite(bounds)):
                ulps.append(
                    (bounds[1] - bounds[0]) / np.spacing(abs(float(exact.mid())))
                )
    return Outcome(checked, violations, ulps)


def is_inside(exact: flint.arb, low: float, high: float) -> bool:
    """Whether a ball lies in [low, high]; a tiny ball may touch an end."""
    low_end, high_end = flint.arb(float(low)), flint.arb(float(high))
    if low_end <= exact <= high_end:
        return True
    is_small = exact.rad() < (high_end - low_end) * 1e-3
    return bool(is_small and not (exact < low_end or exact > high_end))


def is_sharp(case: Case, x: float, order: int, bounds: Any) -> bool:
    """Whether Arb's ball is outside also with twenty times the bits: 200 may be few."""
    flint.ctx.prec = 20 * BITS
    series = in_arb(case.tree, flint.arb_series([x, 1], prec=3))
    exact = series[order] * math.factorial(order)
    flint.ctx.prec = BITS
    return not is_inside(exact, *bounds) and exact.rel_accuracy_bits() > 20


def run(points: int, seed: int) -> Outcome:
    """Check so many numbers, in turns at points and over boxes of different widths."""
    generator, rng = random.Random(seed), np.random.default_rng(seed)
    total = Outcome(0, [], [])
    widths = [0.0, 1e-6, 0.0, 1e-2, 0.0, 1.0]
    turn = 0
    while total.checked < points:
        case = draw(generator, widths[turn % len(widths)])
        turn += 1
        if "x" not in str(case.tree):
            continue
        one = check(case, rng.uniform(size=POINTS))
        total = Outcome(
            total.checked + one.checked,
            total.violations + one.violations,
            total.ulps + one.ulps,
        )
    return total


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    from research import backend

    backend.configure(devices=1, x64=True)
    found = run(flags.points, flags.seed)
    print(f"{found.checked:,} numbers checked, {len(found.violations)} violations")
    print(f"width at a point: median {np.median(found.ulps):.0f} ulps of the value")
    print("\n".join(found.violations[:20]))


if __name__ == "__main__":
    main()
