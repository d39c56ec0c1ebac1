"""What does a partial derivative leave out that a total one counts?

A shop sells at a price p. Profit is a function of three things, profit(price, demand, cost) = price · demand - cost, but the
demand follows the price, demand = N e^(-p / s), and the cost follows the demand, cost = F + c · demand. The partial
derivative holds demand and cost: it is the demand, which is positive, and says *raise the price* for ever. The total
derivative lets them follow, demand · (1 - (p - c) / s), and is zero at the best price, p* = c + s.

`research.derivatives.total_derivative` splits the total by path: price -> profit, price -> demand -> profit, and price ->
demand -> cost -> profit. On random graphs of dependencies it is held against `jax.grad` of the composed function.

    python experiments/partial_and_total.py            # some seconds

The numbers to expect (`EXPECTED`): the partial derivative at the best price, 1000 e^(-1.4) at the default; the total there,
over the partial; and the largest relative disagreement with `jax.grad` over the random graphs.
"""

import dataclasses
import sys

import numpy as np

import research

EXPECTED = {
    "partial_at_best": (246.59, 246.6),
    "total_at_best": (-1e-12, 1e-12),
    "disagreement": (0.0, 1e-12),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    customers: float = 1000.0
    """N: the demand at a price of nothing."""
    willingness: float = 10.0
    """s: by how much the price may rise until the demand has fallen to 1 / e."""
    unit_cost: float = 4.0
    """c: of each piece that is sold."""
    fixed_cost: float = 500.0
    """F: of the shop."""
    price: float = 18.0
    """Where the slopes are drawn."""
    graphs: int = 20
    """Random dependencies that are tried."""
    seed: int = 0
    """Of the random dependencies."""


FULL = Config(graphs=200)


def run(config, on_progress=None, checkpoints=None):
    """The shop at many prices, split by path, and the random graphs."""
    del checkpoints  # It takes seconds.
    for field in ("customers", "willingness", "unit_cost", "price", "graphs"):
        if not getattr(config, field) > 0:
            raise ValueError(
                f"{field} must be positive; got {field}={getattr(config, field)}."
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
    return research.runs.Result(answer(numbers), (table(numbers),), arrays, numbers)


class Shop:
    """Profit as a function of price, demand and cost, and who follows whom."""

    def __init__(self, config):
        import jax.numpy as jnp

        def profit(price, demand, cost):
            return price * demand - cost

        self.profit = profit
        self.follows = {
            "demand": lambda price: (
                config.customers * jnp.exp(-price / config.willingness)
            ),
            "cost": lambda demand: config.fixed_cost + config.unit_cost * demand,
        }

    def of(self, price):
        """Profit at a price, demand and cost following."""
        demand = self.follows["demand"](price)
        return self.profit(price, demand, self.follows["cost"](demand))


def curves(shop, prices):
    """Profit and the parts of its slope at every price, each of the shape of prices."""
    import jax

    def at(price):
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


def disagreement_on_random_graph(seed):
    """Largest relative distance of the total from jax.grad of the composed function, on one random graph."""
    import jax
    import jax.numpy as jnp

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

    def computes(taken, weight):
        return named_function(
            taken,
            lambda values: sum(
                jnp.sin(w * v) * v for w, v in zip(weight, values, strict=True)
            ),
        )

    follows = {n: computes(taken, weights[n]) for n, taken in parents.items()}
    f = named_function(["x", *last], lambda values: sum(jnp.sum(v**2) for v in values))

    def composed(x):
        values = {"x": x}
        for n, g in follows.items():
            values[n] = g(**{m: values[m] for m in parents[n]})
        return f(**{m: values[m] for m in ("x", *last)})

    x = jnp.asarray(random.normal(size=3))
    total = research.derivatives.total_derivative(f, x, follows).total
    truth = np.asarray(jax.grad(composed)(x))
    return float(np.abs(total - truth).max() / np.abs(truth).max())


def named_function(names, of):
    """of(list of values) as a function whose arguments have those names."""
    space = {"of": of}
    exec(f"def g({', '.join(names)}): return of([{', '.join(names)}])", space)
    return space["g"]


def answer(numbers):
    """What each of the two says at the price, and at the best one."""
    way = "raise" if numbers["total"] > 0 else "lower"
    return (
        f"What the price does through everything that follows it. At a price of {numbers['price']:g} the partial derivative "
        f"of the profit, with demand and cost held, is {numbers['partial']:+.1f}: raise the price. The total one is "
        f"{numbers['total']:+.1f}: {way} it. At the best price, {numbers['best_price']:g}, the total is zero and the partial "
        f"still {numbers['partial_at_best']:+.1f}. Split by path, totals agree with jax.grad of the composed function to "
        f"{numbers['disagreement']:.1e} on {numbers['graphs']} random graphs."
    )


def table(numbers):
    """Every path from the price to the profit."""
    rows = [(path, value) for path, value in numbers["paths"].items()]
    return research.runs.Table(
        f"How the price acts on the profit, at a price of {numbers['price']:g}",
        ("path", "profit per unit of price"),
        (*rows, ("total", numbers["total"])),
        "The first path alone is the partial derivative; the paths sum to the total.",
    )


def draw(result):
    """The profit with both slopes, and the slope split by path."""
    figure, axes = research.figures.new_figure(1, 2, width=11, height=4.3)
    draw_slopes(axes[0, 0], result.arrays, result.numbers)
    draw_parts(axes[0, 1], result.arrays, result.numbers)
    n = result.numbers
    caption = (
        f"Left: profit against price, demand and cost following. At a price of {n['price']:g} the partial derivative "
        f"({n['partial']:+.1f}, dashed) is the slope that the profit would have if nobody minded the price; the total "
        f"({n['total']:+.1f}) is the slope that it has. Right: the total is the sum of three paths, and zero at the best "
        f"price, {n['best_price']:g} (dotted), where the partial, the direct path, is {n['partial_at_best']:.1f}."
    )
    return {
        "slopes": research.figures.Picture(
            "Partial and total derivative of a profit", caption, figure
        )
    }


def draw_slopes(axes, arrays, numbers):
    """The profit, and a short tangent for each of the two."""
    colours = research.figures.COLOURS
    axes.plot(arrays["price"], arrays["profit"], color=colours["exact"])
    reach = np.array([-4.0, 4.0])
    looks = (("partial", "stochastic", (0, (4, 2))), ("total", "full batch", "-"))
    for name, colour, dashes in looks:
        heights = numbers["profit"] + numbers[name] * reach
        label = f"{name}: {numbers[name]:+.1f}"
        axes.plot(
            numbers["price"] + reach,
            heights,
            color=colours[colour],
            ls=dashes,
            label=label,
        )
    axes.plot(numbers["price"], numbers["profit"], "o", color=colours["exact"])
    axes.axvline(numbers["best_price"], color=colours["data"], lw=1, ls=":")
    axes.set(xlabel="price", ylabel="profit")
    axes.legend(title="slope by the derivative that is", loc="lower right")


def draw_parts(axes, arrays, numbers):
    """Each path's share of the slope."""
    colours = research.figures.COLOURS
    lines = (
        ("direct", "stochastic"),
        ("via demand", "mini-batch"),
        ("via cost", "decaying"),
        ("total", "full batch"),
    )
    labels = {"direct": "direct: the partial", "via cost": "via demand and cost"}
    for name, colour in lines:
        width = 2.6 if name == "total" else 1.6
        axes.plot(
            arrays["price"],
            arrays[name],
            color=colours[colour],
            lw=width,
            label=labels.get(name, name),
        )
    axes.axhline(0, color=colours["exact"], lw=0.8)
    axes.axvline(numbers["best_price"], color=colours["data"], lw=1, ls=":")
    axes.set(xlabel="price", ylabel="profit per unit of price")
    axes.legend(loc="upper right")


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
