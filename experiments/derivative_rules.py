"""Do the rules of differentiation hold?

A rule is a claim about two functions, f and f'. Each claim of
`research.derivatives.DERIVATIVE_RULES` is compared with four other methods. JAX in
forward and in reverse mode differentiates the program of f. The limit of Richardson's
difference quotient and `finite_difference` only evaluate f. The rules about any two
functions (product, quotient, chain, ...) are tested on u(x) = sin(a x) and
v(x) = 2 + tanh(b x) with random a and b.

    python experiments/derivative_rules.py            # under half a minute

Expected numbers (`EXPECTED`) are two disagreements, divided by the larger of |f'| and
|f| / (1 + |x|). The first is the largest disagreement with JAX's two modes, which is
due to rounding errors. The second is the largest disagreement with the two methods that
only evaluate f, which shows the accuracy of these methods.
"""

import dataclasses
import sys
from typing import Any

import research

EXPECTED = {
    "disagreement_with_jax": (0.0, 1e-14),
    "disagreement_with_values": (0.0, 1e-10),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    points: int = 64
    """Random points for each rule."""
    evaluated: int = 3
    """Number of these points at which the limit and the finite difference are
    computed."""
    seed: int = 0
    """Seed of the points and the constants."""


FULL = Config(points=1000, evaluated=20)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.cli.progress import OnProgress
from research.types import Checkpoints

WAYS = ("forward mode", "reverse mode", "limit", "finite difference")
EXACT = WAYS[:2]


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compare every rule with the four methods."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    if not 1 <= config.evaluated <= config.points:
        raise ValueError(
            f"evaluated must lie in 1..points={config.points}; got "
            f"evaluated={config.evaluated}."
        )
    rules, found = research.derivatives.DERIVATIVE_RULES, {}
    for done, (name, rule) in enumerate(rules.items()):
        if on_progress:
            on_progress(done, len(rules), name)
        found[name] = disagreements(name, rule, config)
    if on_progress:
        on_progress(len(rules), len(rules), "done")
    arrays = {
        "disagreement": np.array([[found[name][way] for way in WAYS] for name in rules])
    }
    numbers = {
        "rules": {
            name: {"text": rule.text, "domain": rule.domain} | found[name]
            for name, rule in rules.items()
        },
        "points": config.points,
        "disagreement_with_jax": float(arrays["disagreement"][:, :2].max()),
        "disagreement_with_values": float(arrays["disagreement"][:, 2:].max()),
    }
    return research.runs.Findings(arrays, numbers)


def disagreements(name: str, rule: Any, config: Config):
    """Return the largest relative difference of each method from the rule's f'."""
    check = research.derivatives.verify_derivative_rule(
        name, jax.random.key(config.seed), number=config.points
    )
    constants = {key: jnp.asarray(values) for key, values in check.constants.items()}
    reverse = jax.vmap(
        lambda x, c: jax.grad(lambda t: jnp.asarray(rule.function(t, c), float))(x)
    )
    by_reverse = np.asarray(jax.jit(reverse)(jnp.asarray(check.points), constants))
    values = np.asarray(jax.vmap(rule.function)(jnp.asarray(check.points), constants))
    scale = np.maximum(
        np.abs(check.derivative), np.abs(values) / (1 + np.abs(check.points))
    )
    scale = np.maximum(scale, np.finfo(float).tiny)
    off = {"forward mode": check.by_jax, "reverse mode": by_reverse}
    found = {
        way: float(np.max(np.abs(other - check.derivative) / scale))
        for way, other in off.items()
    }
    some = range(config.evaluated)
    by_values = [
        from_values(rule, check.points[i], {k: v[i] for k, v in constants.items()})
        for i in some
    ]
    for way, others in zip(WAYS[2:], zip(*by_values, strict=True), strict=True):
        part = slice(config.evaluated)
        found[way] = float(
            np.max(np.abs(np.array(others) - check.derivative[part]) / scale[part])
        )
    return found


def from_values(rule: Any, x: jax.Array, constants: dict[str, Any]):
    """Return f'(x) by Richardson's best quotient and by `finite_difference`."""
    compiled = jax.jit(rule.function)
    f = lambda t: np.asarray(compiled(np.asarray(t, float), constants), float)[()]
    limit = research.derivatives.limit_table(f, float(x), "richardson")
    return float(limit.estimates[limit.best]), float(
        research.derivatives.finite_difference(f, float(x)).value
    )
