"""How does a total derivative differ from a partial one?

A shop sells at a price p. Its profit is a function of three variables, profit(price,
demand, cost) = price · demand - cost. But the demand depends on the price, demand = N
e^(-p / s), and the cost depends on the demand, cost = F + c · demand. The partial
derivative keeps demand and cost fixed. It equals the demand, which is positive, so it
always says *raise the price*. The total derivative lets demand and cost change with the
price. It is demand · (1 - (p - c) / s), and is zero at the best price, p* = c + s.

`research.derivatives.total_derivative` splits the total derivative by path: price ->
profit, price -> demand -> profit, and price -> demand -> cost -> profit. On random
graphs of dependencies, its result is compared with `jax.grad` of the composed function.

    python experiments/partial_and_total.py            # some seconds

Expected numbers (`EXPECTED`): the partial derivative at the best price, 1000 e^(-1.4)
by default; the total derivative at the best price, divided by the partial derivative;
and the largest relative difference from `jax.grad` over the random graphs.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence

import research

EXPECTED = {
    "partial_at_best": (246.59, 246.6),
    "total_at_best": (-1e-12, 1e-12),
    "disagreement": (0.0, 1e-12),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    customers: float = 1000.0
    """N: the demand at price 0."""
    willingness: float = 10.0
    """s: if the price rises by s, the demand is divided by e."""
    unit_cost: float = 4.0
    """c: cost of each piece that is sold."""
    fixed_cost: float = 500.0
    """F: fixed cost of the shop."""
    price: float = 18.0
    """Price at which the slopes are drawn."""
    graphs: int = 20
    """Number of random graphs."""
    seed: int = 0
    """Seed of the random graphs."""


FULL = Config(graphs=200)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.cli.progress import OnProgress
from research.types import Checkpoints

LARGEST = 1_000_000_000  # Largest absolute value of a setting of the shop.


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compute the shop's slopes by path at many prices, and check the random graphs."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    for field in ("customers", "willingness", "unit_cost", "price", "graphs"):
        if not getattr(config, field) > 0:
            raise ValueError(
                f"{field} must be positive; got {field}={getattr(config, field)}."
            )
    for field in ("customers", "willingness", "unit_cost", "price", "fixed_cost"):
        if not abs(getattr(config, field)) <= LARGEST:
            raise ValueError(
                f"{field} must be at most {LARGEST:,} in absolute value; got "
                f"{field}={getattr(config, field)}."
            )
    if on_progress:
        on_progress(0, 2, "the shop")
    shop = Shop(config)
    best = config.unit_cost + config.willingness
    at_price, at_best = (
        research.derivatives.total_derivative(shop.profit, p, shop.follows)
        for p in (config.price, best)
    )
    arrays = curves(shop, np.linspace(0.2 * best, 2 * best, 121))
    if on_progress:
        on_progress(1, 2, "random graphs")
    disagreement = max(
        disagreement_on_random_graph(config.seed + i) for i in range(config.graphs)
    )
    if on_progress:
        on_progress(2, 2, "done")
    numbers = {
        "price": config.price,
        "best_price": best,
        "profit": float(shop.of(config.price)),
        "profit_at_best": float(shop.of(best)),
        "paths": {
            " -> ".join(path.names): float(path.value) for path in at_price.paths
        },
        "partial": float(at_price.direct),
        "total": float(at_price.total),
        "partial_at_best": float(at_best.direct),
        "total_at_best": float(at_best.total / at_best.direct),
        "graphs": config.graphs,
        "disagreement": disagreement,
    }
    return research.runs.Findings(arrays, numbers)


class Shop:
    """Profit of a shop, as a function of price, demand and cost.

    `follows` says how the demand depends on the price, and the cost on the demand.
    """

    def __init__(self, config: Config):
        def profit(price: float, demand: float, cost: float):
            return price * demand - cost

        self.profit = profit
        self.follows = {
            "demand": lambda price: (
                config.customers * jnp.exp(-price / config.willingness)
            ),
            "cost": lambda demand: config.fixed_cost + config.unit_cost * demand,
        }

    def of(self, price: float):
        """Return the profit at a price. Demand and cost follow from the price."""
        demand = self.follows["demand"](price)
        return self.profit(price, demand, self.follows["cost"](demand))


def curves(shop: Shop, prices: np.ndarray):
    """Return the profit at every price, and the part of its slope from each path.

    Each array has the shape of `prices`.
    """

    def at(price: float):
        found = research.derivatives.total_derivative(shop.profit, price, shop.follows)
        return (
            shop.of(price),
            found.direct,
            found.via["demand"],
            found.via["cost"],
            found.total,
        )

    names = ("profit", "direct", "via demand", "via cost", "total")
    values = jax.jit(jax.vmap(at))(prices)
    return {"price": prices} | {
        name: np.asarray(value) for name, value in zip(names, values, strict=True)
    }


def disagreement_on_random_graph(seed: int):
    """Compare the total derivative with jax.grad on one random graph.

    The result is the largest relative difference. jax.grad differentiates the composed
    function.
    """
    random = np.random.default_rng(seed)
    names = ["x", *(f"v{i}" for i in range(random.integers(2, 6)))]
    parents = {
        n: [m for m in names[:i] if random.random() < 0.6] or [names[i - 1]]
        for i, n in enumerate(names)
        if i
    }
    weights = {n: random.normal(size=len(taken)) for n, taken in parents.items()}
    used = {m for taken in parents.values() for m in taken}
    last = [n for n in names if n not in used]

    def computes(taken: Sequence[str], weight: np.ndarray):
        return named_function(
            taken,
            lambda values: sum(
                jnp.sin(w * v) * v for w, v in zip(weight, values, strict=True)
            ),
        )

    follows = {n: computes(taken, weights[n]) for n, taken in parents.items()}
    f = named_function(["x", *last], lambda values: sum(jnp.sum(v**2) for v in values))

    def composed(x: jax.Array):
        values = {"x": x}
        for n, g in follows.items():
            values[n] = g(**{m: values[m] for m in parents[n]})
        return f(**{m: values[m] for m in ("x", *last)})

    x = jnp.asarray(random.normal(size=3))
    total = research.derivatives.total_derivative(f, x, follows).total
    truth = np.asarray(jax.grad(composed)(x))
    return float(np.abs(total - truth).max() / np.abs(truth).max())


def named_function(names: Sequence[str], of: Callable):
    """Return a function with the given argument names that calls `of`.

    `of` gets one list with the values of the arguments.
    """
    space = {"of": of}
    exec(f"def g({', '.join(names)}): return of([{', '.join(names)}])", space)
    return space["g"]
