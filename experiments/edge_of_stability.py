"""How sharp does a minimum get under gradient descent, and what stops it?

The sharpness is the largest eigenvalue of the Hessian of the loss. On a quadratic loss,
gradient descent with a rate η diverges if the sharpness exceeds 2 / η. On a network
something else happens: under full-batch gradient descent the sharpness rises to about
2 / η, and then stays there. The loss rises in many single steps, but it still falls in
the long run.

    python experiments/edge_of_stability.py            # about a minute

A small network learns to recognise handwritten digits by plain gradient descent, once
for each rate. Two of the rates are so small that the sharpness does not reach 2 / η:
either the training ends too early, or the sharpness stops rising at a lower value.

Expected numbers (`EXPECTED`): the sharpness divided by 2 / η, at the start
(`greatest_at_start`) and at the end (`least_at_end`, `greatest_at_end`), over the rates
at which it should reach 1; the same at the end for the small rates (`slow_at_end`); the
share of steps in which the loss rises, before the sharpness first reaches 2 / η
(`rises_before`) and after that (`rises_after`); and |H v - λ v| / λ (`residual`) for
the Hessian H, the computed sharpness λ and its unit eigenvector v. This value bounds
the relative error of λ.
"""

import dataclasses
import sys
from typing import Any

import research

EXPECTED = {
    "greatest_at_start": (0.3, 0.8),
    "least_at_end": (0.9, 1.2),
    "greatest_at_end": (0.9, 1.2),
    "slow_at_end": (0.4, 0.8),
    "rises_before": (0.0, 0.01),
    "rises_after": (0.1, 0.6),
    "residual": (0.0, 1e-10),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    steps: int = 4000
    """Steps of gradient descent for each rate."""
    every: int = 80
    """Steps between two computations of the sharpness. It must divide the steps."""
    examples: int = 500
    """Number of images in the full batch."""
    width: int = 24
    """Units of each of the two hidden layers."""
    seed: int = 0
    """Seed of the first weights."""


FULL = Config(steps=24_000, every=200)
FAST = Config(steps=200, every=50, examples=100, width=8)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.cli.progress import OnProgress
from research.types import Checkpoints

RATES = (0.5, 0.4, 0.3)  # Rates at which the sharpness should reach 2 / rate.
SLOW = (0.15, 0.05)  # Rates at which it does not reach 2 / rate within the steps.
CLASSES = 10
SCALE = 0.7  # Factor of the first weights. The loss is flatter at such a start.


def network_loss(config: Config) -> tuple[Any, Any]:
    """Return the compiled loss of the params on all examples, and the first params."""
    data = research.datasets.load("digits")
    x = np.asarray(data.x[: config.examples]) / 16
    x = jnp.asarray(x - x.mean(axis=0))
    targets = jnp.asarray(np.eye(CLASSES)[data.y[: config.examples]])
    model = research.models.mlp(
        (x.shape[1], config.width, config.width, CLASSES),
        activation="tanh",
        initialiser="lecun_normal",
    )

    @jax.jit
    def loss(params: Any) -> jax.Array:
        error = model.apply(params, x) - targets
        return 0.5 * jnp.mean(jnp.sum(error**2, axis=1))

    params = model.init(jax.random.key(config.seed))
    return loss, jax.tree.map(lambda leaf: SCALE * leaf.astype(jnp.float64), params)


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Descend at each rate, and compute the sharpness every few steps."""
    del checkpoints  # The experiment takes about a minute.
    if config.steps < 1 or config.every < 1 or config.steps % config.every:
        raise ValueError(
            "every must be a positive divisor of steps; got "
            f"every={config.every}, steps={config.steps}."
        )
    if not 1 <= config.examples <= 1797 or config.width < 1:
        raise ValueError(
            "examples must be in 1..1797 and width at least 1; got "
            f"examples={config.examples}, width={config.width}."
        )
    loss, start = network_loss(config)

    @jax.jit
    def descend(params: Any, rate: Any) -> tuple[Any, Any]:
        def step(params: Any, _: None) -> tuple[Any, Any]:
            value, slope = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - rate * g, params, slope), value

        return jax.lax.scan(step, params, None, config.every)

    arrays: dict[str, np.ndarray] = {}
    rows, residual = [], 0.0
    for at, rate in enumerate((*RATES, *SLOW)):
        params, sharpness, losses = start, [], []
        for k in range(config.steps // config.every + 1):
            if on_progress and k % 10 == 0:
                done = at + k * config.every / config.steps
                on_progress(round(100 * done), 100 * len(RATES + SLOW), f"rate {rate}")
            found = research.derivatives.hessian_spectrum(
                loss, params, jax.random.key(config.seed)
            )
            sharpness.append(float(found.values[0]))
            residual = max(residual, float(found.residuals[0] / abs(found.values[0])))
            if k < config.steps // config.every:
                params, values = descend(params, rate)
                losses.append(np.asarray(values))
        losses.append(np.asarray(loss(params))[None])
        arrays[f"{rate}/ratio"] = np.array(sharpness) * rate / 2
        arrays[f"{rate}/loss"] = np.concatenate(losses)
        rows.append(_row(rate, arrays, config.every))
    return research.runs.Findings(arrays, {"rows": rows, **_numbers(rows, residual)})


def _row(rate: float, arrays: dict[str, np.ndarray], every: int) -> dict[str, Any]:
    """Return the numbers of one rate; None where there are no steps to count."""
    ratio, losses = arrays[f"{rate}/ratio"], arrays[f"{rate}/loss"]
    reached = np.flatnonzero(ratio >= 1)
    first = int(reached[0]) * every if reached.size else None
    rises = np.diff(losses) > 0
    share = lambda part: float(np.mean(part)) if part.size else None
    last = ratio[-max(1, len(ratio) // 4) :]
    return {
        "rate": rate,
        "start": float(ratio[0]),
        "end": float(ratio[-1]),
        "least_of_last_quarter": float(last.min()),
        "greatest_of_last_quarter": float(last.max()),
        "first": first,
        # The sharpness may pass 2 / η up to `every` steps before it is seen there.
        "rises_before": share(
            rises[: None if first is None else max(0, first - every)]
        ),
        "rises_after": None if first is None else share(rises[first:]),
        "loss": float(losses[-1]),
    }


def _numbers(rows: list[dict[str, Any]], residual: float) -> dict[str, float | None]:
    """Return the numbers of all rates; None where no rate has steps to count."""
    edge, slow = rows[: len(RATES)], rows[len(RATES) :]
    known = lambda name: [row[name] for row in rows if row[name] is not None]
    return {
        "greatest_at_start": max(row["start"] for row in edge),
        "least_at_end": min(row["end"] for row in edge),
        "greatest_at_end": max(row["end"] for row in edge),
        "slow_at_end": max(row["end"] for row in slow),
        "rises_before": max(known("rises_before"), default=None),
        "rises_after": min(known("rises_after"), default=None),
        "residual": residual,
    }
